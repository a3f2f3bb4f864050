//! The strict reading: every key and every type of a text against the table of keys, all mistakes at once.
//!
//! It comes before serde, whose messages name one mistake at a time and quote values, and a value may be a secret. It
//! does not know what values mean.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problems, find_age_identity};
use super::schema::{self, Key, Need, Takes};

/// Reads the text as far as the table of keys goes. Problems go into `problems`.
pub(super) fn read(text: &str, problems: &mut Problems<'_>) {
    if let Some(span) = find_age_identity(text) {
        problems.at_secret(
            span,
            "an age identity (a secret key) stands in the config; treat it as leaked: make a new one with `age-keygen -o \
             FILE`, seal to its public key, and keep the file away from this host (not shown here)",
        );
        return;
    }
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let message = format!("this is not TOML: {}", error.message());
            problems.at(error.span().unwrap_or(0..0), message);
            return;
        }
    };
    Walk { problems }.table(table.get_ref(), 0..0, "", "");
}

struct Walk<'p, 't> {
    problems: &'p mut Problems<'t>,
}

impl Walk<'_, '_> {
    /// One table: `pattern` is its place in the table of keys, `shown` the place as the text has it.
    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>, pattern: &str, shown: &str) {
        let kind = if pattern == SOURCE { self.kind(table) } else { Kind::Any };
        if kind == Kind::Later {
            return;
        }
        // Keys that are there under a wrong name: they are not missing as well.
        let mut meant = Vec::new();
        for (name, value) in table {
            let at = name.span();
            let name: &str = name.get_ref();
            let path = join(pattern, name);
            if let Some(key) = schema::below(pattern).find(|key| key.path == path) {
                match (key.only, kind) {
                    (Some(only), Kind::Is(kind)) if only != kind => {
                        self.problems.at(
                            at,
                            format!("`{name}` belongs to kind = \"{only}\"; {}", known(pattern, Kind::Is(kind))),
                        );
                    }
                    _ => self.value(key, value, at, &join(shown, name)),
                }
            } else {
                let near = near_key(name, pattern, kind);
                meant.extend(near);
                self.problems.at(at, unknown(name, near, pattern, shown, kind));
            }
        }
        for key in schema::below(pattern).filter(|key| key.need == Need::Required) {
            let wanted = match (key.only, kind) {
                (None, _) => true,
                (Some(only), Kind::Is(kind)) => only == kind,
                (Some(_), Kind::Any | Kind::Later) => false,
            };
            let there = meant.contains(&key.name()) || table.iter().any(|(name, _)| name.get_ref() == key.name());
            if wanted && !there {
                self.problems
                    .at(span.clone(), format!("{} has no `{}`: {}", bracketed(shown), key.name(), wanted_value(key)));
            }
        }
    }

    /// The kind of a source, as far as it is one.
    fn kind(&mut self, table: &DeTable<'_>) -> Kind {
        let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == "kind") else { return Kind::Any };
        let Some(text) = value.get_ref().as_str() else { return Kind::Any };
        if let Some(kind) = schema::KINDS.iter().find(|kind| **kind == text) {
            return Kind::Is(kind);
        }
        let kinds = match schema::KINDS {
            [before @ .., last] => format!("{}` and `{last}", before.join("`, `")),
            [] => String::new(),
        };
        if schema::KINDS_LATER.contains(&text) {
            self.problems
                .at(value.span(), format!("kind = \"{text}\" is not in this version yet; there are `{kinds}`"));
            return Kind::Later;
        }
        let near = nearest(text, schema::KINDS.iter().map(|kind| (*kind, *kind)));
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.problems.at(value.span(), format!("there is no such kind; there are `{kinds}`{near}"));
        Kind::Later
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, name_at: Range<usize>, shown: &str) {
        let name = key.name();
        let at = value.span();
        match (key.takes, value.get_ref()) {
            (Takes::Table, DeValue::Table(table)) => self.table(table, name_at, key.path, shown),
            (Takes::Named, DeValue::Table(tables)) => self.named(key, tables, shown, &name_at),
            (Takes::Tables, DeValue::Array(elements)) => {
                for element in elements.iter() {
                    match element.get_ref() {
                        DeValue::Table(table) => self.table(table, element.span(), &format!("{}[]", key.path), shown),
                        _ => self.problems.at(element.span(), format!("`{name}` is {}", key.takes.described())),
                    }
                }
            }
            (Takes::Secret, DeValue::Table(table)) => self.secret(name, table, at),
            // The line is not shown: what stands there is the secret itself.
            (Takes::Secret, DeValue::String(_)) => self.problems.at_secret(
                at,
                format!(
                    "`{name}` must not stand in the config; say where it lies: {} (what stood here is not shown, and must \
                     be treated as leaked if anyone else can read this file)",
                    key.takes.described()
                ),
            ),
            (Takes::Text | Takes::Path | Takes::Duration | Takes::Schedule, DeValue::String(_))
            | (Takes::Flag, DeValue::Boolean(_))
            | (Takes::Number, DeValue::Integer(_)) => {}
            (Takes::WordOrTexts, DeValue::String(_)) => {}
            (Takes::Texts | Takes::Paths | Takes::WordOrTexts, DeValue::Array(elements)) => {
                for element in elements.iter().filter(|element| !element.get_ref().is_str()) {
                    self.problems.at(element.span(), format!("`{name}` is {}", key.takes.described()));
                }
            }
            (Takes::Duration, DeValue::Integer(number)) => {
                let digits = number.as_str();
                self.problems.at(at, format!("`{name}` needs a unit, in quotes: \"{digits}s\", \"{digits}h\" or \"{digits}d\""));
            }
            (Takes::Named, DeValue::Array(_)) => {
                self.problems.at(name_at, format!("`{name}` holds tables by name: write [{shown}.NAME], not [[{shown}]]"));
            }
            (takes, found) => {
                self.problems.at(at, format!("`{name}` is {}, not {}", takes.described(), article(found.type_str())));
            }
        }
    }

    fn named(&mut self, key: &Key, tables: &DeTable<'_>, shown: &str, name_at: &Range<usize>) {
        if tables.is_empty() && key.need == Need::Required {
            self.problems.at(name_at.clone(), format!("[{shown}] has no entry: write [{shown}.NAME]"));
        }
        for (name, value) in tables {
            let shown = join(shown, name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => self.table(table, name.span(), &format!("{}.*", key.path), &shown),
                _ => self.problems.at(
                    name.span(),
                    format!(
                        "[{}] holds tables by name: write [{}.NAME] and put `{}` below it",
                        key.name(),
                        key.name(),
                        name.get_ref()
                    ),
                ),
            }
        }
    }

    fn secret(&mut self, name: &str, table: &DeTable<'_>, at: Range<usize>) {
        let described = Takes::Secret.described();
        for (place, value) in table {
            if !["file", "env", "credential"].contains(&place.get_ref().as_ref()) {
                self.problems.at_secret(place.span(), format!("`{name}` has no such place: {described}"));
            } else if value.get_ref().as_str().is_none_or(str::is_empty) {
                self.problems.at_secret(value.span(), format!("`{name}` takes a text that is not empty: {described}"));
            }
        }
        if table.len() != 1 {
            self.problems.at_secret(at, format!("`{name}` is exactly one of {described}"));
        }
    }
}

const SOURCE: &str = "job.*.source.*";

/// Whose keys a table takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Is(&'static str),
    /// Not to be read further.
    Later,
}

fn join(left: &str, right: &str) -> String {
    if left.is_empty() { right.to_owned() } else { format!("{left}.{right}") }
}

fn bracketed(shown: &str) -> String {
    if shown.is_empty() { "the config".to_owned() } else { format!("[{shown}]") }
}

fn article(kind: &str) -> String {
    if kind.starts_with(['a', 'i']) { format!("an {kind}") } else { format!("a {kind}") }
}

fn wanted_value(key: &Key) -> String {
    match key.takes {
        Takes::Table => {
            let keys: Vec<_> =
                schema::below(key.path).filter(|key| key.need == Need::Required).map(Key::name).collect();
            format!("a table with {}", keys.join(" and "))
        }
        Takes::Named => "at least one table, by name".to_owned(),
        takes => format!("{} ({})", takes.described(), key.meaning.trim_end_matches('.')),
    }
}

/// The key that a wrong name was meant to be, by its spelling or by what people call it.
fn near_key(name: &str, pattern: &str, kind: Kind) -> Option<&'static str> {
    let names = rows(pattern, kind).flat_map(|key| {
        std::iter::once(key.name()).chain(key.also.iter().copied()).map(|spelled| (spelled, key.name()))
    });
    nearest(name, names)
}

fn unknown(name: &str, near: Option<&str>, pattern: &str, shown: &str, kind: Kind) -> String {
    let place = if shown.is_empty() { "here".to_owned() } else { format!("in [{shown}]") };
    match near {
        Some(near) => format!("unknown key `{name}` {place}; did you mean `{near}`?"),
        None => format!("unknown key `{name}` {place}; {}", known(pattern, kind)),
    }
}

fn known(pattern: &str, kind: Kind) -> String {
    format!("known here: {}", rows(pattern, kind).map(Key::name).collect::<Vec<_>>().join(", "))
}

/// The keys that a table may have, given its kind.
fn rows(pattern: &str, kind: Kind) -> impl Iterator<Item = &'static Key> {
    schema::below(pattern).filter(move |key| match (key.only, kind) {
        (Some(only), Kind::Is(kind)) => only == kind,
        _ => true,
    })
}

/// Of (what may have been meant, what it stands for): the one whose spelling is nearest, if it is near.
fn nearest<'n>(name: &str, candidates: impl Iterator<Item = (&'n str, &'n str)>) -> Option<&'n str> {
    let lower = name.to_lowercase().replace('-', "_");
    candidates
        .map(|(spelled, meant)| (strsim::damerau_levenshtein(&lower, spelled), spelled.len().max(lower.len()), meant))
        // A third of the letters wrong is a slip; more is another word.
        .filter(|(distance, length, _)| distance * 3 <= *length)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., meant)| meant)
}
