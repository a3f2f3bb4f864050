//! What lies where in the tar of a PostgreSQL source: names of members, the list of tables, the statements that copy.
//!
//! The same for writing and for putting back. Nothing here asks a server.

use serde::{Deserialize, Serialize};

use crate::domain::contents::{Member, MemberKind, RawText};

/// Roles and tablespaces, as `pg_dumpall --globals-only` writes them.
pub const GLOBALS: &str = "globals.sql";
/// What stands before and after the data, in pg_dump's custom format, not compressed.
pub const SCHEMA: &str = "schema.dump";
/// The [`TableList`].
pub const TABLES: &str = "tables.json";
/// Makes and describes the large objects, where `schema.dump` does not.
pub const LARGE_OBJECTS: &str = "large-objects.sql";
/// Gives the large objects their owners and rights, where `schema.dump` does not.
pub const LARGE_OBJECT_OWNERS: &str = "large-objects-owners.sql";
/// A `setval` for each sequence, one a line.
pub const SEQUENCES: &str = "sequences.sql";
/// Loads everything with psql and pg_restore alone.
pub const RESTORE_SCRIPT: &str = "restore.sh";
/// The version of [`TableList`].
pub const TABLES_VERSION: u32 = 1;

const DATA_FOLDER: &str = "data";
const LARGE_OBJECTS_FOLDER: &str = "large-objects";

/// What a member of the tar is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`GLOBALS`].
    Globals,
    /// [`SCHEMA`].
    Schema,
    /// [`TABLES`].
    Tables,
    /// [`LARGE_OBJECTS`].
    LargeObjectList,
    /// [`LARGE_OBJECT_OWNERS`].
    LargeObjectOwners,
    /// The statement that takes a table's rows.
    CopyStatement {
        /// The table at the source.
        oid: u32,
    },
    /// Whole rows of a table.
    Rows {
        /// The table at the source.
        oid: u32,
        /// Where the range of pages begins that they were in.
        first_page: u32,
        /// Which member of that range, from 0.
        part: u32,
    },
    /// Statements that fill large objects.
    LargeObjects {
        /// Which member, from 0.
        number: u32,
    },
    /// [`SEQUENCES`].
    Sequences,
    /// [`RESTORE_SCRIPT`].
    RestoreScript,
}

impl Part {
    /// The member's path.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::Globals => GLOBALS.to_owned(),
            Self::Schema => SCHEMA.to_owned(),
            Self::Tables => TABLES.to_owned(),
            Self::LargeObjectList => LARGE_OBJECTS.to_owned(),
            Self::LargeObjectOwners => LARGE_OBJECT_OWNERS.to_owned(),
            Self::CopyStatement { oid } => format!("{DATA_FOLDER}/{oid:010}/copy.sql"),
            Self::Rows { oid, first_page, part } => {
                format!("{DATA_FOLDER}/{oid:010}/{first_page:010}-{part:06}.copy")
            }
            Self::LargeObjects { number } => format!("{LARGE_OBJECTS_FOLDER}/{number:010}.sql"),
            Self::Sequences => SEQUENCES.to_owned(),
            Self::RestoreScript => RESTORE_SCRIPT.to_owned(),
        }
    }

    /// What a path stands for; `None` for a path that no source of ours writes.
    #[must_use]
    pub fn of(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let part = match path.split('/').collect::<Vec<_>>()[..] {
            [GLOBALS] => Self::Globals,
            [SCHEMA] => Self::Schema,
            [TABLES] => Self::Tables,
            [LARGE_OBJECTS] => Self::LargeObjectList,
            [LARGE_OBJECT_OWNERS] => Self::LargeObjectOwners,
            [SEQUENCES] => Self::Sequences,
            [RESTORE_SCRIPT] => Self::RestoreScript,
            [LARGE_OBJECTS_FOLDER, file] => Self::LargeObjects { number: file.strip_suffix(".sql")?.parse().ok()? },
            [DATA_FOLDER, oid, "copy.sql"] => Self::CopyStatement { oid: oid.parse().ok()? },
            [DATA_FOLDER, oid, file] => {
                let (first_page, part) = file.strip_suffix(".copy")?.split_once('-')?;
                Self::Rows { oid: oid.parse().ok()?, first_page: first_page.parse().ok()?, part: part.parse().ok()? }
            }
            _ => return None,
        };
        (part.path() == path).then_some(part)
    }

    /// Whether it must be at hand before the first rows are.
    #[must_use]
    pub fn is_head(self) -> bool {
        matches!(self, Self::Globals | Self::Schema | Self::Tables | Self::LargeObjectList | Self::LargeObjectOwners)
    }

    /// A member of this many bytes. It carries no time and no owner: what did not change gives the same bytes.
    #[must_use]
    pub fn member(self, size_bytes: u64) -> Member {
        Member {
            path: RawText::from(self.path().as_str()),
            kind: MemberKind::File,
            size_bytes,
            mode: if self == Self::RestoreScript { 0o700 } else { 0o600 },
            uid: 0,
            gid: 0,
            mtime_seconds: 0,
            mtime_nanos: 0,
            blake3: None,
            link: None,
            device: None,
            xattrs: Vec::new(),
            flaw: None,
        }
    }
}

/// The tables whose rows are in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableList {
    /// [`TABLES_VERSION`].
    pub version: u32,
    /// The source's server: `150018`.
    pub server_version_number: u32,
    /// The database's name at the source.
    pub database: String,
    /// Its encoding, which is that of the rows.
    pub encoding: String,
    /// Numbers of the entries of `schema.dump` that need what was left out, and cannot be restored without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrestorable: Vec<u32>,
    /// Sorted by oid.
    pub tables: Vec<ListedTable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedTable {
    /// At the source; names the folder of its rows.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns that are copied: no generated ones. May be empty.
    pub columns: Vec<String>,
    /// Whether the rows are in binary COPY format.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
}

impl ListedTable {
    /// `"schema"."name"`.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// For people, and for patterns: `schema.name`, not quoted.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// ` ("a", "b")`; nothing for a table without columns.
    fn column_list(&self) -> String {
        if self.columns.is_empty() {
            return String::new();
        }
        format!(" ({})", self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "))
    }

    /// The statement that takes the rows back. It says which encoding they have, so that the session's does not matter.
    /// (The texts in binary rows have the session's whatever the statement says.)
    #[must_use]
    pub fn copy_in(&self, encoding: &str) -> String {
        format!("COPY {}{} FROM STDIN WITH ({})", self.qualified(), self.column_list(), self.format(encoding))
    }

    /// The same into a table that was emptied in this transaction: rows are written as if they were old, so that nobody
    /// has to come back and mark them so.
    #[must_use]
    pub fn copy_in_frozen(&self, encoding: &str) -> String {
        format!("COPY {}{} FROM STDIN WITH ({}, FREEZE)", self.qualified(), self.column_list(), self.format(encoding))
    }

    /// The statement that gives the rows of some pages (`first..next`; open at the end where `next` is `None`), or of
    /// the whole table, and of this table alone: not of those that inherit from it. With `condition`, an SQL condition
    /// in parentheses or without, only the rows for which it holds.
    #[must_use]
    pub fn copy_out(&self, pages: Option<(u32, Option<u32>)>, condition: Option<&str>, encoding: &str) -> String {
        let columns = self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let mut conditions = Vec::new();
        if let Some((first, next)) = pages {
            conditions.push(format!("ctid >= '({first},0)'::pg_catalog.tid"));
            conditions.extend(next.map(|next| format!("ctid < '({next},0)'::pg_catalog.tid")));
        }
        conditions.extend(condition.map(|condition| format!("({condition}\n)")));
        let wanted = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!(
            "COPY (SELECT {columns} FROM ONLY {}{wanted}) TO STDOUT WITH ({})",
            self.qualified(),
            self.format(encoding)
        )
    }

    fn format(&self, encoding: &str) -> String {
        if self.binary { "FORMAT binary".to_owned() } else { format!("ENCODING {}", literal(encoding)) }
    }
}

/// An identifier, quoted whatever it holds.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Whether a pattern of the config (`schema.table`, `*` for anything) means a table.
#[must_use]
pub fn matches(pattern: &str, schema: &str, name: &str) -> bool {
    fn glob(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
            [first, rest @ ..] => text.first() == Some(first) && glob(rest, &text[1..]),
        }
    }
    glob(pattern.as_bytes(), format!("{schema}.{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parts_are_two_ways_to_say_the_same() {
        let parts = [
            Part::Globals,
            Part::Schema,
            Part::Tables,
            Part::LargeObjectList,
            Part::LargeObjectOwners,
            Part::CopyStatement { oid: 16412 },
            Part::Rows { oid: u32::MAX, first_page: 128, part: 3 },
            Part::LargeObjects { number: 0 },
            Part::Sequences,
            Part::RestoreScript,
        ];
        for part in parts {
            assert_eq!(Part::of(part.path().as_bytes()), Some(part), "{}", part.path());
        }
        for other in ["data/16412/copy.sql", "data/0000016412/x.copy", "data", "restore.sh/x", "../globals.sql", ""] {
            assert_eq!(Part::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn names_are_quoted() {
        let table = ListedTable {
            oid: 1,
            schema: "we\"ird".into(),
            name: "a.b\nc".into(),
            columns: vec!["x".into(), "Y z".into()],
            binary: false,
        };
        let name = "\"we\"\"ird\".\"a.b\nc\"";
        assert_eq!(table.copy_in("UTF8"), format!("COPY {name} (\"x\", \"Y z\") FROM STDIN WITH (ENCODING 'UTF8')"));
        assert_eq!(
            table.copy_out(Some((0, Some(128))), Some("x > 1"), "LATIN1"),
            format!(
                "COPY (SELECT \"x\", \"Y z\" FROM ONLY {name} WHERE ctid >= '(0,0)'::pg_catalog.tid AND \
                 ctid < '(128,0)'::pg_catalog.tid AND (x > 1\n)) TO STDOUT WITH (ENCODING 'LATIN1')"
            )
        );
        let bare = ListedTable { columns: Vec::new(), binary: true, ..table };
        assert_eq!(bare.copy_in("UTF8"), format!("COPY {name} FROM STDIN WITH (FORMAT binary)"));
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }

    #[test]
    fn patterns_mean_tables() {
        assert!(matches("public.users", "public", "users"));
        assert!(!matches("public.users", "public", "users2"));
        assert!(matches("*.logs", "app", "logs"));
        assert!(matches("public.log_*", "public", "log_2026"));
        assert!(!matches("public.*", "private", "x"));
        assert!(matches("*.*", "a", "b"));
    }
}
