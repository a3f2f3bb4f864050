//! The source `sqlite`: a live database, copied page by page inside one read transaction, beside its writers.
//!
//! | file | what |
//! |---|---|
//! | snapshot.rs | the pieces: page map, then the cleaned pages in order, then the facts, all in one transaction |
//! | connection.rs | the connection: opened to read and nothing else, and its pages |
//! | walk.rs | what every page is |
//! | pages.rs | what of a page is in use; the rest becomes zeros |
//! | facts.rs | rows and checksum a table, schema hash |
//! | verify.rs | a restored database against its facts |
//!
//! Pages stay at their place, so that what did not change gives the same bytes in the next backup. What was deleted
//! does not come along (pages.rs). Content that an application itself keeps of deleted rows is content: the segments
//! of an FTS index without its `secure-delete`, samples in sqlite_stat4.
//!
//! In WAL mode writers go on; the `-wal` cannot be reset while the copy runs, so it grows. In rollback mode a writer's
//! commit waits until the copy is done. A WAL database that nobody had open keeps an empty `-wal` and a `-shm` beside
//! it afterwards, because SQLite needs them to read; the next writer takes them away.
//!
//! The database's own file is never opened here other than through SQLite, and nothing else of this process may open
//! it or its `-shm` meanwhile: closing any descriptor of a file drops the process's POSIX locks on it, and with them
//! the snapshot.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Snapshot, Source, SourceError, memory};
use crate::clock::Clock;
use crate::domain::contents::RawText;

mod connection;
mod facts;
mod pages;
mod snapshot;
pub mod verify;
mod walk;

/// One SQLite database.
pub struct SqliteSource {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl SqliteSource {
    /// The database at `path`. SQLite blocks the thread that it is called from.
    #[must_use]
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, clock }
    }
}

impl Source for SqliteSource {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn open<'a>(&'a self, _memory: Option<&'a memory::Memory>) -> Result<Box<dyn Snapshot + 'a>, SourceError> {
        let snapshot = snapshot::open(&self.path, self.clock.as_ref())?;
        Ok(Box::new(snapshot))
    }
}

/// What can go wrong with a database, before its path is put to it.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Malformed(#[from] pages::Malformed),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("no place to look for it: {0}")]
    Name(io::Error),
    #[error(transparent)]
    Sink(io::Error),
    #[error("page {page} is not there any more")]
    PageMissing { page: u32 },
}

impl Trouble {
    /// Says which database it is about, and what to do.
    fn of(self, path: &Path) -> SourceError {
        let cause = match self {
            Self::Sink(cause) => return SourceError::Sink(cause),
            other => other,
        };
        let shown = shown(path);
        let (what, hint) = match &cause {
            Self::Sqlite(error) => say(error, &shown),
            _ => (cause.to_string(), Some(look(&shown))),
        };
        SourceError::Database { path: shown, what, hint }
    }
}

fn shown(path: &Path) -> String {
    RawText::from(path.as_os_str().as_encoded_bytes()).display()
}

fn look(path: &str) -> String {
    format!("see what is wrong with it: sqlite3 '{path}' 'PRAGMA integrity_check'")
}

/// SQLite's result codes that mean something special here: <https://www.sqlite.org/rescode.html>.
mod result_code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
    pub(super) const READONLY_ROLLBACK: i32 = 776;
}

fn say(error: &rusqlite::Error, path: &str) -> (String, Option<String>) {
    let rusqlite::Error::SqliteFailure(failure, said) = error else {
        return (error.to_string(), None);
    };
    let code = failure.extended_code;
    let said = said.clone().unwrap_or_else(|| failure.to_string());
    if code == result_code::READONLY_ROLLBACK {
        return (
            "a writer died in the middle of a transaction and left a journal, which a reader must not roll back"
                .to_owned(),
            Some(format!("open it once with the right to write: sqlite3 '{path}' 'PRAGMA schema_version'")),
        );
    }
    match code & 0xff {
        result_code::BUSY | result_code::LOCKED => (
            format!("locked by a writer for more than {} seconds", connection::BUSY_TIMEOUT.as_secs()),
            Some("find the program that keeps a transaction open, or try again later".to_owned()),
        ),
        result_code::CANTOPEN | result_code::READONLY => (
            format!("SQLite cannot open it, or the -wal and -shm files beside it: {said}"),
            Some(
                "run as a user who can read the database and write to its folder: a reader in WAL mode needs both"
                    .to_owned(),
            ),
        ),
        result_code::NOTADB => (
            "not a SQLite database, or an encrypted one".to_owned(),
            Some("name a plain SQLite database in the config".to_owned()),
        ),
        result_code::CORRUPT => (said, Some(look(path))),
        _ if said.contains("sqlite_dbpage") => (
            "this lifeboat was built with a SQLite that does not show pages".to_owned(),
            Some("build it in its own folder, where .cargo/config.toml sets LIBSQLITE3_FLAGS".to_owned()),
        ),
        _ => (said, None),
    }
}

#[cfg(test)]
mod tests;
