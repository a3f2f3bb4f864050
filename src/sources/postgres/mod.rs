//! The source `postgres`: a live database, read in parallel inside one snapshot, without a staging disk.
//!
//! | file | what |
//! |---|---|
//! | layout.rs | what lies where in the tar; the statements that copy |
//! | connect.rs | connections, ours and those of the server's own tools |
//! | binaries.rs | pg_dump, pg_restore, postgres of a major version |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::memory::Memory;
use super::{Snapshot, Source, SourceError};
use crate::clock::Clock;

pub mod binaries;
pub mod connect;
pub mod examine;
pub mod layout;
pub mod load;
pub mod verify;

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Server, role and password.
    pub access: connect::Access,
    /// Patterns of `schema.table`; empty is all.
    pub include_tables: Vec<String>,
    /// Patterns of tables to leave out.
    pub exclude_tables: Vec<String>,
    /// Patterns of tables whose rows to leave out.
    pub exclude_data: Vec<String>,
    /// The folder of the server's tools, if not one of the usual ones.
    pub tools: Option<PathBuf>,
    /// How many connections read at a time.
    pub connections: u32,
    /// How long others may be kept waiting for a table.
    pub max_lock_wait: Duration,
    /// How long the snapshot may be held.
    pub max_snapshot: Duration,
    /// A private folder for what the tools write.
    pub scratch: PathBuf,
}

/// A database.
#[derive(Debug)]
pub struct PostgresSource {
    options: PostgresOptions,
}

impl PostgresSource {
    /// A source that is not opened yet.
    #[must_use]
    pub fn new(options: PostgresOptions, _runtime: Handle, _clock: Arc<dyn Clock>) -> Self {
        Self { options }
    }
}

impl Source for PostgresSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn open<'a>(&'a self, _memory: Option<&'a Memory>) -> Result<Box<dyn Snapshot + 'a>, SourceError> {
        Err(SourceError::Database {
            path: self.options.access.address.to_string(),
            what: "not joined yet".to_owned(),
            hint: None,
        })
    }
}
