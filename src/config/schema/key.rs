//! A row of the table of keys: where a key stands, what it takes, what it means.

use serde::Serialize;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takes {
    /// A table whose keys are further rows.
    Table,
    /// A table of tables, by name.
    Named,
    /// A list of tables.
    Tables,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// A word, or a list of texts.
    WordOrTexts,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// `"90s"`, `"24h"`, `"14d"`.
    Duration,
    /// Five fields as in crontab(5), or `@daily`.
    Schedule,
    /// A file or folder; relative to the config's folder.
    Path,
    /// A list of those.
    Paths,
    /// `{ file = … }`, `{ env = … }` or `{ credential = … }`.
    Secret,
}

impl Takes {
    /// For messages: `is …`.
    #[must_use]
    pub fn described(self) -> &'static str {
        match self {
            Self::Table | Self::Named => "a table",
            Self::Tables => "a list of tables, [ { … }, { … } ]",
            Self::Text => "a text in quotes",
            Self::Texts => "a list of texts, [\"…\", \"…\"]",
            Self::WordOrTexts => "\"all\", or a list of texts, [\"…\", \"…\"]",
            Self::Flag => "true or false",
            Self::Number => "a whole number",
            Self::Duration => "a duration in quotes, such as \"90s\", \"24h\" or \"14d\"",
            Self::Schedule => "a schedule in quotes, such as \"30 2 * * *\"",
            Self::Path => "a path in quotes",
            Self::Paths => "a list of paths, [\"/srv/a\", \"/srv/b\"]",
            Self::Secret => "{ file = \"…\" }, { env = \"…\" } or { credential = \"…\" }",
        }
    }
}

/// Whether a key may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// It must be there.
    Required,
    /// Left out, nothing takes its place.
    Optional,
    /// Left out, this does.
    Default(&'static str),
}

/// One row of the table.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Key {
    /// Where it stands; `*` is a name of one's choice, `[]` an element of a list.
    pub path: &'static str,
    /// Its type.
    pub takes: Takes,
    /// Whether it may be left out.
    pub need: Need,
    /// The source kind that has it; all, if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<&'static str>,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// What people call it who do not know its name.
    #[serde(skip)]
    pub also: &'static [&'static str],
}

pub(super) const fn key(path: &'static str, takes: Takes, need: Need, meaning: &'static str) -> Key {
    Key { path, takes, need, only: None, meaning, also: &[] }
}

impl Key {
    pub(super) const fn only(self, kind: &'static str) -> Self {
        Self { only: Some(kind), ..self }
    }

    pub(super) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}
