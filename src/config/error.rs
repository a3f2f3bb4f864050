//! What is wrong with a config, where it stands, and how it is shown without showing a secret.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Code, Diagnostic};

/// No more problems than this are shown at once.
const MAX_PROBLEMS_SHOWN: usize = 20;
/// No more of a line than this is shown, in characters.
const MAX_EXCERPT_CHARS: usize = 100;

/// Why there is no usable config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// None was named, and there is none where one is looked for.
    #[error("there is no config: looked for {}", list(looked))]
    Missing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// One was named, and is not there.
    #[error("{} does not exist ({named_by} names it)", path.display())]
    NotThere {
        /// The file.
        path: PathBuf,
        /// `--config`, `$LIFEBOAT_CONFIG`.
        named_by: &'static str,
    },
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A config is a few hundred lines.
    #[error("{} is larger than {limit_bytes} bytes; that is no config", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// TOML is UTF-8.
    #[error("{}:{line}: the line is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It says what it must not say.
    #[error("{}", show(file, problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Everything that was found, in the order of the text; never empty.
        problems: Vec<Problem>,
    },
}

/// One mistake in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The text of the line; left out, wholly or in part, where it may hold a secret.
    pub excerpt: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Diagnostic for ConfigError {
    fn code(&self) -> Code {
        match self {
            Self::Missing { .. } | Self::NotThere { .. } => Code::ConfigMissing,
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::NotText { .. } | Self::Invalid { .. } => {
                Code::ConfigInvalid
            }
        }
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Missing { .. } => "`lifeboat init` writes one; `--config FILE` names another place",
                Self::NotThere { .. } => "name a config that exists, or let `lifeboat init --config FILE` write one",
                Self::Unreadable { .. } => "run as the user whom the config is for, or name another with `--config`",
                Self::TooLarge { .. } | Self::NotText { .. } => "is this the file that you meant? name it: `--config`",
                Self::Invalid { .. } => {
                    "`lifeboat config schema` lists every key, `lifeboat config check` reads it again"
                }
            }
            .to_owned(),
        )
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn show(file: &std::path::Path, problems: &[Problem]) -> String {
    let mut text = String::new();
    for (place, problem) in problems.iter().take(MAX_PROBLEMS_SHOWN).enumerate() {
        if place > 0 {
            text.push('\n');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{}:{problem}", file.display());
    }
    if problems.len() > MAX_PROBLEMS_SHOWN {
        let _ = write!(text, "\nand {} more", problems.len() - MAX_PROBLEMS_SHOWN);
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n    {} | {excerpt}", self.line)?;
        }
        Ok(())
    }
}

/// Collects the problems of one text.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Notes a problem with its line.
    pub(super) fn at(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.note(span, message.into(), true);
    }

    /// Notes a problem without its line, which may hold a secret.
    pub(super) fn at_secret(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.note(span, message.into(), false);
    }

    fn note(&mut self, span: Range<usize>, message: String, with_line: bool) {
        let (line, column, content) = locate(self.text, span.start);
        let excerpt = if with_line { excerpt(content) } else { None };
        self.found.push(Problem { line, column, excerpt, message });
    }

    pub(super) fn none(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in the order of the text; nothing if there are none.
    pub(super) fn into_error(mut self, file: &std::path::Path) -> Option<ConfigError> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        (!self.found.is_empty()).then(|| ConfigError::Invalid { file: file.to_owned(), problems: self.found })
    }
}

/// Line and column (from 1, in characters) of a byte, and the line's text.
fn locate(text: &str, offset: usize) -> (usize, usize, &str) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |newline| offset + newline);
    let line = text[..start].matches('\n').count() + 1;
    let column = text[start..offset].chars().count() + 1;
    (line, column, text[start..end].trim_end())
}

/// Words in a key that say that its value is a secret, or was meant to be one.
const SECRET_WORDS: [&str; 5] = ["pass", "secret", "token", "access_key", "private"];
/// Whole keys whose misspelt forms count as well.
const SECRET_KEYS: [&str; 6] = ["identity", "password", "passphrase", "secret_key", "access_key", "token"];
/// From here on (of 1) a key counts as a misspelt one.
const SECRET_LIKENESS: f64 = 0.85;

/// Where the first value begins that no one should see: behind the `=` of a key that sounds like a secret.
fn secret_value(line: &str) -> Option<usize> {
    line.match_indices('=').map(|(equals, _)| equals).find(|equals| {
        let before = line[..*equals].trim_end().trim_end_matches(['"', '\'']);
        let other = |c: char| !c.is_alphanumeric() && c != '_' && c != '-';
        let start = before.char_indices().rev().find(|(_, c)| other(*c)).map_or(0, |(at, c)| at + c.len_utf8());
        let key = before[start..].to_ascii_lowercase();
        SECRET_WORDS.iter().any(|word| key.contains(word))
            || SECRET_KEYS.iter().any(|word| strsim::jaro_winkler(word, &key) >= SECRET_LIKENESS)
    })
}

/// A line as it may be shown.
fn excerpt(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    if line.is_empty() || lower.contains(AGE_SECRET) || looks_like_a_key(line) {
        return None;
    }
    let mut shown = line.to_owned();
    // The value of a key that sounds like a secret is cut, in an inline table too.
    if let Some(equals) = secret_value(line) {
        shown = format!("{}= …", &line[..equals]);
    } else if let Some((scheme, rest)) = line.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
        && user.contains(':')
    {
        shown = format!("{scheme}://…@{host}");
    }
    if shown.chars().count() > MAX_EXCERPT_CHARS {
        shown = shown.chars().take(MAX_EXCERPT_CHARS).chain(['…']).collect();
    }
    Some(shown)
}

/// As long as nothing that people write: a key in hex or base64, in a file that was taken for a config.
const SHORTEST_KEY_CHARS: usize = 32;

fn looks_like_a_key(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '+').any(|run| run.len() >= SHORTEST_KEY_CHARS)
}

const AGE_SECRET: &str = "age-secret-key-";

/// Where an age identity stands in a text: what follows its prefix is long enough to be one.
pub(super) fn find_age_identity(text: &str) -> Option<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    lower.match_indices(AGE_SECRET).find_map(|(at, prefix)| {
        let tail = &lower[at + prefix.len()..];
        let length = tail.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tail.len());
        (length >= 20).then(|| at..at + prefix.len() + length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "a = 1\nüb = 2\r\nc";
        assert_eq!(locate(text, 0), (1, 1, "a = 1"));
        assert_eq!(locate(text, text.find("= 2").unwrap()), (2, 4, "üb = 2"));
        assert_eq!(locate(text, text.len()), (3, 2, "c"));
        assert_eq!(locate(text, 999), (3, 2, "c"));
    }

    #[test]
    fn a_line_never_shows_a_secret() {
        for (line, shown) in [
            ("schedule = \"x\"", Some("schedule = \"x\"")),
            ("password = \"hunter2\"", Some("password = …")),
            ("drill = { identity = \"hunter2\" }", Some("drill = { identity = …")),
            ("pasword=\"hunter2\"", Some("pasword= …")),
            (
                "drill = { schedule = \"x\", \"idntity\" = \"hunter2\" }",
                Some("drill = { schedule = \"x\", \"idntity\" = …"),
            ),
            ("é=1,\u{a0}tokn = \"hunter2\"", Some("é=1,\u{a0}tokn = …")),
            ("url = \"postgres://u:hunter2@db/x\"", Some("url = \"postgres://…@db/x\"")),
            ("x = \"AGE-SECRET-KEY-1HUNTER2\"", None),
            ("f4503870f4503870f4503870f4503870f4503870f4503870f4503870f4503870", None),
            ("x = \"RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAA/AAA+\"", None),
        ] {
            assert_eq!(excerpt(line).as_deref(), shown);
        }
        assert_eq!(excerpt(&"x y ".repeat(75)).unwrap().chars().count(), MAX_EXCERPT_CHARS + 1);
    }
}
