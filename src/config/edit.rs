//! Changing `recipients` of a vault in the config's text: what a person wrote around it, comments and all, stays.
//!
//! It knows the text and the file, not what a recipient is good for; the text that comes out is read again by the strict
//! reader before it takes the place of the old one.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Value};

use super::Settings;
use crate::error::{Code, Diagnostic};

/// Why a config was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The list is not where a person would write it.
    #[error("{} has no list `recipients` in [vault.{vault}] that could be changed", file.display())]
    NoList {
        /// The config.
        file: PathBuf,
        /// The vault.
        vault: String,
        /// What the list should be.
        wanted: String,
    },
    /// The changed text would not be read as what was meant.
    #[error("{} cannot be changed: {reason}", file.display())]
    Unreadable {
        /// The config.
        file: PathBuf,
        /// What is wrong.
        reason: String,
        /// What the list should be.
        wanted: String,
    },
    /// The system refused.
    #[error("cannot write {}; it is as it was", file.display())]
    Io {
        /// The config.
        file: PathBuf,
        /// What the list should be.
        wanted: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl Diagnostic for EditError {
    fn code(&self) -> Code {
        match self {
            Self::NoList { .. } | Self::Unreadable { .. } => Code::ConfigInvalid,
            Self::Io { .. } => Code::StateFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoList { vault, wanted, .. } => {
                Some(format!("write in [vault.{vault}] yourself, and type the command again: {wanted}"))
            }
            Self::Unreadable { wanted, .. } | Self::Io { wanted, .. } => {
                Some(format!("change the line yourself, and type the command again: {wanted}"))
            }
        }
    }
}

/// Puts these recipients into a vault's list in the file, in the place of the ones there; in one step, with the file's
/// mode and owner. `recipients` must differ from the present ones by what was added at the end and what was taken out.
///
/// # Errors
/// [`EditError`]; then the file is as it was.
pub fn set_recipients(settings: &Settings, vault: &str, recipients: &[String]) -> Result<(), EditError> {
    let file = settings.file.clone();
    let wanted = line(recipients);
    let failed = |cause| EditError::Io { file: file.clone(), wanted: wanted.clone(), cause };
    // A config may be a link to where it is kept.
    let real = std::fs::canonicalize(&file).map_err(failed)?;
    let text = std::fs::read_to_string(&real).map_err(failed)?;
    let unreadable = |reason| EditError::Unreadable { file: file.clone(), reason, wanted: wanted.clone() };
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| unreadable(error.to_string()))?;
    let no_list = || EditError::NoList { file: file.clone(), vault: vault.to_owned(), wanted: wanted.clone() };
    let list = document
        .get_mut("vault")
        .and_then(|vaults| vaults.get_mut(vault))
        .and_then(|vault| vault.get_mut("recipients"))
        .and_then(|list| list.as_array_mut())
        .ok_or_else(no_list)?;
    change(list, recipients);
    let changed = document.to_string();
    let again = Settings::parse(&changed, &file).map_err(|error| unreadable(error.to_string()))?;
    if again.vaults.get(vault).is_none_or(|vault| vault.recipients != recipients) {
        return Err(unreadable("the list would not be read as what was meant".to_owned()));
    }
    replace(&real, &changed).map_err(failed)
}

/// The line as a person would write it.
fn line(recipients: &[String]) -> String {
    let quoted: Vec<String> = recipients.iter().map(|recipient| format!("\"{recipient}\"")).collect();
    format!("recipients = [{}]", quoted.join(", "))
}

/// A list as its values and what stands between them: before the first, between each two (the comma left out), and behind
/// the last. In this form nothing depends on whether a comment stands before a comma or behind it.
struct Spaced {
    values: Vec<String>,
    gaps: Vec<String>,
}

/// Makes the list these recipients.
fn change(list: &mut Array, recipients: &[String]) {
    let mut spaced = Spaced::of(list);
    while let Some(index) = spaced.values.iter().position(|value| !recipients.iter().any(|r| r == value.trim())) {
        spaced.take_out(index);
    }
    for recipient in recipients {
        if !spaced.values.iter().any(|value| value.trim() == recipient) {
            spaced.append(recipient);
        }
    }
    spaced.put_into(list);
}

impl Spaced {
    fn of(list: &Array) -> Self {
        let mut spaced = Self { values: Vec::new(), gaps: vec![String::new()] };
        for value in list {
            let decor = value.decor();
            let text = |raw: Option<&toml_edit::RawString>| {
                raw.and_then(toml_edit::RawString::as_str).unwrap_or_default().to_owned()
            };
            if let Some(gap) = spaced.gaps.last_mut() {
                gap.push_str(&text(decor.prefix()));
            }
            spaced.values.push(value.as_str().unwrap_or_default().to_owned());
            spaced.gaps.push(text(decor.suffix()));
        }
        if let Some(gap) = spaced.gaps.last_mut() {
            gap.push_str(list.trailing().as_str().unwrap_or_default());
        }
        spaced
    }

    /// Takes a value out with the comment behind it and those on lines of their own above it. A comment behind the value
    /// before stays.
    fn take_out(&mut self, index: usize) {
        self.values.remove(index);
        let before = self.gaps.remove(index);
        let after = &mut self.gaps[index];
        let behind_the_one_before = before.split_once('\n').map_or("", |(line, _)| line).trim_end();
        let is_end = index == self.values.len();
        *after = match after.split_once('\n') {
            Some((_, lines)) => format!("{behind_the_one_before}\n{lines}"),
            None if !is_end => before,
            None if behind_the_one_before.is_empty() => after.clone(),
            None => format!("{behind_the_one_before}\n"),
        };
    }

    /// Appends a value, on a line of its own where the last one has such. Comments behind the last one stay behind it.
    fn append(&mut self, value: &str) {
        let end = self.gaps.pop().unwrap_or_default();
        let indent = self.gaps.last().and_then(|gap| gap.rsplit_once('\n')).map(|(_, indent)| indent.to_owned());
        let (comments, close) = match end.rsplit_once('\n') {
            Some((comments, close)) => (comments.trim_end(), format!("\n{close}")),
            None => ("", end.clone()),
        };
        let gap = match indent {
            Some(indent) => format!("{comments}\n{indent}"),
            None if !comments.is_empty() => format!("{comments}\n  "),
            None if self.values.is_empty() => String::new(),
            None => " ".to_owned(),
        };
        self.values.push(value.to_owned());
        self.gaps.extend([gap, close]);
    }

    fn put_into(self, list: &mut Array) {
        let comma = list.trailing_comma();
        list.clear();
        let mut gaps = self.gaps.into_iter();
        for value in self.values {
            let mut value = Value::from(value);
            *value.decor_mut() = toml_edit::Decor::new(gaps.next().unwrap_or_default(), "");
            list.push_formatted(value);
        }
        list.set_trailing(gaps.next().unwrap_or_default());
        list.set_trailing_comma(comma);
    }
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let old = std::fs::metadata(file)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    let made = new.as_file().metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file().set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNE: &str = "age1scdvlqnswny6dwufh3aktsafh9gl278esmjc3n83vgw5g4m5f39sg9aw2w";

    fn identity() -> String {
        crate::seal::Identities::generate().1
    }

    /// Edits `recipients = [...]` with the letters standing for keys, and gives it back in letters.
    fn edited(list: &str, after: &str) -> String {
        let mut document: DocumentMut = format!("recipients = {list}\n").parse().unwrap();
        let recipients: Vec<String> = after.chars().map(|letter| letter.to_string()).collect();
        change(document["recipients"].as_array_mut().unwrap(), &recipients);
        let text = document.to_string();
        let again: DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let found: Vec<&str> =
            again["recipients"].as_array().unwrap().iter().map(|value| value.as_str().unwrap().trim()).collect();
        assert_eq!(found, recipients, "{text}");
        text.strip_prefix("recipients = ").unwrap().trim_end().to_owned()
    }

    #[test]
    fn on_one_line() {
        assert_eq!(edited(r#"["a"]"#, "ab"), r#"["a", "b"]"#);
        assert_eq!(edited(r#"["a", "b"]"#, "a"), r#"["a"]"#);
        assert_eq!(edited(r#"["a", "b"]"#, "b"), r#"["b"]"#);
        assert_eq!(edited(r#"[ "a", "b", "c" ]"#, "ac"), r#"[ "a", "c" ]"#);
        assert_eq!(edited(r#"["a"] # the only one"#, "b"), r#"["b"] # the only one"#);
        assert_eq!(edited(r#"["a",]"#, "ab"), r#"["a", "b",]"#);
    }

    #[test]
    fn on_lines_with_comments() {
        let list = "[\n  # people\n  \"a\", # anne\n  \"b\", # boris\n  # the safe\n  \"c\" # in the bank\n]";
        assert_eq!(
            edited(list, "abcd"),
            "[\n  # people\n  \"a\", # anne\n  \"b\", # boris\n  # the safe\n  \"c\", # in the bank\n  \"d\"\n]"
        );
        assert_eq!(edited(list, "ac"), "[\n  # people\n  \"a\", # anne\n  # the safe\n  \"c\" # in the bank\n]");
        assert_eq!(edited(list, "ab"), "[\n  # people\n  \"a\", # anne\n  \"b\" # boris\n]");
        assert_eq!(edited(list, "bc"), "[\n  \"b\", # boris\n  # the safe\n  \"c\" # in the bank\n]");
        assert_eq!(edited("[\n  \"a\",\n]", "ab"), "[\n  \"a\",\n  \"b\",\n]");
        assert_eq!(edited("[\"a\", # anne\n]", "ab"), "[\"a\", # anne\n  \"b\",\n]");
        assert_eq!(edited("[\"a\", # anne\n \"b\"]", "a"), "[\"a\" # anne\n]");
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_around_it_the_list_is_what_was_meant(
            gaps in proptest::collection::vec("( |\n| # [a-z]{0,3}\n){0,3}", 1..6),
            comma in proptest::bool::ANY,
            keep in proptest::collection::vec(proptest::bool::ANY, 5),
            add in 0..3_usize,
        ) {
            let letters: Vec<char> = "abcde".chars().take(gaps.len() - 1).collect();
            let mut list = format!("[{}", gaps[0]);
            for (index, letter) in letters.iter().enumerate() {
                let last = index + 1 == letters.len();
                list.push_str(&format!("\"{letter}\"{}{}", if last && !comma { "" } else { "," }, gaps[index + 1]));
            }
            list.push(']');
            let kept = letters.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(letter, _)| *letter);
            let after: String = kept.chain("xyz".chars().take(add)).collect();
            edited(&list, &after);
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.toml"), folder.path().join("lifeboat.toml"));
        let boris = identity();
        let text = format!("# ours\n[vault.main] # the one\nurl = \"vault\"\nrecipients = [\"{ANNE}\"] # who\n");
        std::fs::write(&file, &text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        let settings = Settings::parse(&text, &link).unwrap();
        set_recipients(&settings, "main", &[ANNE.to_owned(), boris.clone()]).unwrap();
        let changed = std::fs::read_to_string(&file).unwrap();
        assert_eq!(changed, text.replace(&format!("\"{ANNE}\""), &format!("\"{ANNE}\", \"{boris}\"")));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());

        for bad in [vec![], vec!["age1nobody".to_owned()]] {
            let error = set_recipients(&settings, "main", &bad).unwrap_err();
            assert!(matches!(error, EditError::Unreadable { .. }), "{error}");
        }
        let error = set_recipients(&settings, "other", std::slice::from_ref(&boris)).unwrap_err();
        assert!(error.hint().unwrap().contains(&boris), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);
    }

    #[test]
    fn inline_tables_are_tables_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lifeboat.toml");
        let text = format!("vault = {{ main = {{ url = \"vault\", recipients = [\"{ANNE}\"] }} }}\n");
        std::fs::write(&file, &text).unwrap();
        let settings = Settings::parse(&text, &file).unwrap();
        let boris = identity();
        set_recipients(&settings, "main", std::slice::from_ref(&boris)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text.replace(ANNE, &boris));
    }
}
