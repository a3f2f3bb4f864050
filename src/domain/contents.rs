//! The sealed table of contents of one source in one backup: what is inside, where, and what must be true of it.
//!
//! Contents are JSON, one value a line, cut into segments of their own that are sealed like data. In order: one
//! [`Line::Head`]; for each piece of the plan one [`Line::Piece`] followed by a [`Line::Member`] for each of its
//! members, in the order of the tar; the [`Line::Note`]s; one [`Line::Facts`] where the source has any; one
//! [`Line::End`]. Nothing in a piece or member line depends on what stands before it, so that an unchanged part of
//! the source gives unchanged lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::ids::{ContentHash, KeyedId, SourceName};

/// Bytes that are a text most of the time: a path, a link target, an attribute's name or value. In JSON a string,
/// or `{"base64": "..."}` where the bytes are not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RawText(pub Vec<u8>);

impl RawText {
    /// For messages: escaped, so that newlines and control characters cannot fool a terminal.
    #[must_use]
    pub fn display(&self) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => self.0.escape_ascii().to_string(),
        }
    }
}

impl std::fmt::Debug for RawText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

impl From<&[u8]> for RawText {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for RawText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawImage {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for RawText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => RawImage::Bytes { base64: BASE64.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match RawImage::deserialize(deserializer)? {
            RawImage::Text(text) => Ok(Self(text.into_bytes())),
            RawImage::Bytes { base64 } => BASE64.decode(base64).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// What a member of the tar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link; `link` is its target.
    Symlink,
    /// Another name of a file that stands earlier in the same source; `link` is that member's path.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device; `device` has its numbers.
    Char,
    /// A block device; `device` has its numbers.
    Block,
}

/// One member of a source's tar stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The path in the tar: relative, `/` between components, no trailing slash.
    pub path: RawText,
    /// What it is.
    pub kind: MemberKind,
    /// The size of a regular file in bytes, holes included; 0 for everything else.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    /// Permission bits with set-uid, set-gid and sticky: at most 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Whole seconds since 1970, rounded down; negative before.
    pub mtime_seconds: i64,
    /// Nanoseconds after `mtime_seconds`.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub mtime_nanos: u32,
    /// BLAKE3 of a regular file's content, holes read as zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<ContentHash>,
    /// The target of a symbolic or hard link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<RawText>,
    /// Major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Extended attributes, ACLs among them (`system.posix_acl_access`), sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(RawText, RawText)>,
    /// Why the content is not to be trusted as a moment's state, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

/// What happened to a member's content on its way into the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flaw {
    /// The file was written to while it was read.
    Changed,
    /// Reading failed half-way; the rest is zeros.
    Unreadable,
}

/// A segment as a piece line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceSegment {
    /// The keyed id, as in the lists.
    pub id: KeyedId,
    /// Plain bytes: the bound of decompression.
    pub bytes: u64,
}

/// What a source has to say of one thing that did not go as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What kind of thing.
    pub class: NoteClass,
    /// Which member, as its path in the tar, or what else.
    pub path: RawText,
    /// What the system said.
    pub detail: String,
}

/// Classes of notes; counted in the manifest's clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteClass {
    /// It was there when the folder was listed and gone when it was opened. Not an error.
    Vanished,
    /// It changed while it was read.
    Changed,
    /// It cannot be read. Makes the backup partial.
    Unreadable,
    /// It was left out on purpose (sockets, foreign file systems). Not an error.
    Skipped,
}

/// What must be true of a restored SQLite database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqliteFacts {
    /// The file's name in the tar.
    pub file: RawText,
    /// `PRAGMA user_version`.
    pub user_version: i64,
    /// BLAKE3 over the sorted rows of `sqlite_schema` (type, name, table, SQL).
    pub schema: ContentHash,
    /// Bytes a page.
    pub page_bytes: u32,
    /// Number of pages.
    pub pages: u64,
    /// The SQLite that read it.
    pub library_version: String,
    /// The tables, sorted by name.
    pub tables: Vec<TableFacts>,
}

/// Whose rules the text of a PostgreSQL database sorts and compares by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocaleProvider {
    /// The C library's, by the names in `collate` and `ctype`.
    #[default]
    Libc,
    /// ICU's.
    Icu,
    /// The server's own.
    Builtin,
    /// One that a later version has.
    #[serde(other)]
    Other,
}

/// What must be true of one restored table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// The table's name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The sum, modulo 2^128, of a 128-bit hash of each row, in hexadecimal: the order of rows does not matter,
    /// and a row that stands twice counts twice.
    pub checksum: String,
}

/// What must be true of a restored PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The server's version as it says it: `15.18`.
    pub server_version: String,
    /// The same as a number: `150018`.
    pub server_version_number: u32,
    /// The database's name.
    pub database: String,
    /// `UTF8`, `SQL_ASCII`, ...
    pub encoding: String,
    /// `lc_collate`.
    pub collate: String,
    /// `lc_ctype`.
    pub ctype: String,
    /// Whose rules text sorts and compares by.
    #[serde(default)]
    pub locale_provider: LocaleProvider,
    /// What `pg_database_size` said.
    pub size_bytes: u64,
    /// Installed extensions with their versions, sorted by name.
    pub extensions: Vec<(String, String)>,
    /// Roles that own something or were granted something in the database, sorted.
    pub roles: Vec<String>,
    /// Whether the roles' passwords are in globals.sql; a managed server hides them.
    pub role_passwords: bool,
    /// The tables whose rows are in the backup, sorted by schema and name.
    pub tables: Vec<PostgresTableFacts>,
    /// Large objects, and the sum of their sizes.
    pub large_objects: (u64, u64),
    /// The sum, modulo 2^128, of a 128-bit hash of each large object's number and bytes, in hexadecimal. Backups made
    /// before this was counted have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_object_checksum: Option<String>,
    /// What was stored of each sequence, sorted by schema and name. Backups made before this was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<PostgresSequenceFacts>>,
    /// Valid indexes, sorted: `schema.name`, quoted where it must be.
    pub indexes: Vec<String>,
    /// Constraints, sorted: `schema.table.name`, with ` (not valid)` where one was not validated.
    pub constraints: Vec<String>,
}

/// What must be true of one restored table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresTableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns that were copied, in the order of the copy.
    pub columns: Vec<String>,
    /// Whether it went by binary COPY, because a row does not fit into text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// Its rows.
    pub rows: u64,
    /// The sum, modulo 2^128, of a 128-bit hash of each row as COPY writes it, in hexadecimal.
    pub checksum: String,
}

/// What a restored sequence must say. Sequences stand outside of transactions: this is no part of the snapshot but what it
/// said a moment later, and what is in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresSequenceFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The value that was given last, or, where none was, is to be given first.
    pub last_value: i64,
    /// Whether it was given.
    pub is_called: bool,
}

/// Facts of a source, taken in the same snapshot as its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Facts {
    /// A file tree: its members say it all; here are their totals.
    Files {
        /// Members by kind, all together.
        members: u64,
        /// The sum of the regular files' sizes.
        logical_bytes: u64,
    },
    /// A SQLite database.
    Sqlite(SqliteFacts),
    /// A PostgreSQL database.
    Postgres(Box<PostgresFacts>),
}

/// One line of the contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// First.
    Head {
        /// The version of this format: 1.
        version: u32,
        /// Whose contents these are.
        source: SourceName,
        /// The source's kind, as in the config.
        kind: String,
        /// The key of the keyed ids, in hexadecimal.
        id_key: String,
        /// The job's settings without its secrets, for whoever must rebuild the host.
        config: serde_json::Value,
    },
    /// The next segments of the tar belong together: either whole members in one segment, or one large regular
    /// file: its header in the first segment, its data in the others.
    Piece(Vec<PieceSegment>),
    /// A member of the piece above.
    Member(Box<Member>),
    /// Something that did not go as it should.
    Note(Note),
    /// What must be true of the restored source.
    Facts(Facts),
    /// Last: totals, so that a contents that was cut short is noticed.
    End {
        /// Piece lines.
        pieces: u64,
        /// Member lines.
        members: u64,
        /// Plain tar bytes.
        tar_bytes: u64,
    },
}

impl Line {
    /// Appends the line with its newline.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing JSON of these shapes into memory has no way to fail.
        serde_json::to_writer(&mut *out, self).expect("a contents line is always representable as JSON");
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_utf8_survive() {
        for bytes in [&b"plain"[..], b"new\nline", b"\xff\xfe", b""] {
            let raw = RawText(bytes.to_vec());
            let json = serde_json::to_string(&raw).unwrap();
            assert_eq!(serde_json::from_str::<RawText>(&json).unwrap(), raw, "{json}");
        }
        assert_eq!(RawText::from("a\nb").display(), "a\\nb");
    }
}
