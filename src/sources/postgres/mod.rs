//! The source `postgres`: a live database, read in parallel inside one snapshot, without a staging disk.
//!
//! | file | what |
//! |---|---|
//! | snapshot.rs | the pieces, in order: what stands before the data, the data, what stands after it |
//! | leader.rs | the snapshot itself: exported, dumped by pg_dump, its tables locked, and looked at again |
//! | session.rs | a connection with every setting pinned that changes how rows are written |
//! | tables.rs | what there is to copy, asked of the catalogs |
//! | dump.rs | pg_dumpall and pg_dump |
//! | plan.rs | which pages of which table are one task |
//! | copy.rs | the readers: COPY, packed into members |
//! | pieces.rs | members in memory, on their way into the tar |
//! | dependents.rs | what cannot stand without the tables that are left out |
//! | large_objects.rs | large objects' owners, rights and comments, where pg_dump takes them for data |
//! | values.rs | sequences' values and large objects' bytes |
//! | facts.rs | rows and checksum a table; what else must be true of the database |
//! | watch.rs | who waits for us, and how long the snapshot is held |
//! | trouble.rs | what a server says, in sentences and with a next command |
//! | script.rs | restore.sh |
//! | layout.rs | what lies where in the tar; the statements that copy |
//! | connect.rs | connections, ours and those of the server's own tools |
//! | binaries.rs | pg_dump, pg_restore, postgres of a major version |
//! | pins.rs | how a session is set so that the same rows are the same text |
//! | examine.rs | what a server says of itself and of the role that asks, for doctor |
//! | load.rs | putting a backup into a server |
//! | verify.rs | a restored database against the facts |
//!
//! What is guaranteed: every row that was committed before the recovery point, none that was committed after the
//! snapshot, and each table as it stood in that snapshot. A table that is dropped, rewritten or altered between the snapshot and
//! the lock on it makes the attempt start anew, or fails it; it never reads as empty. Sequences stand at the snapshot's
//! value or a later one, because the server keeps no older.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Snapshot, Source, SourceError, memory};
use crate::clock::Clock;

pub mod binaries;
pub mod connect;
mod copy;
mod dependents;
mod dump;
pub mod examine;
pub mod facts;
mod large_objects;
pub mod layout;
mod leader;
pub mod load;
mod pieces;
mod pins;
mod plan;
mod script;
mod session;
mod snapshot;
mod tables;
pub mod trouble;
mod values;
pub mod verify;
mod watch;

/// How a database is to be read.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where, and as whom.
    pub access: connect::Access,
    /// Patterns of `schema.table`; empty is all.
    pub include_tables: Vec<String>,
    /// Patterns of tables to leave out.
    pub exclude_tables: Vec<String>,
    /// Patterns of tables whose rows to leave out.
    pub exclude_data: Vec<String>,
    /// The folder of the server's tools, if not one of the usual ones.
    pub tools: Option<PathBuf>,
    /// How many connections read; two more lead and watch.
    pub connections: u32,
    /// How long we may keep somebody waiting for a table.
    pub max_lock_wait: Duration,
    /// How long the snapshot may be held.
    pub max_snapshot: Duration,
    /// A private folder of ours, for what pg_dump writes and for its password file.
    pub scratch: PathBuf,
}

/// One PostgreSQL database.
pub struct PostgresSource {
    options: PostgresOptions,
    runtime: tokio::runtime::Handle,
    clock: Arc<dyn Clock>,
}

impl PostgresOptions {
    /// How long a statement of ours may wait for a lock, as PostgreSQL counts it: 0 would be for ever.
    fn lock_wait_milliseconds(&self) -> u128 {
        self.max_lock_wait.as_millis().clamp(1, i32::MAX as u128)
    }
}

impl PostgresSource {
    /// The database that `options` name. The server is waited for on `runtime`, so the snapshot's methods must be
    /// called from threads that are not the runtime's own.
    #[must_use]
    pub fn new(options: PostgresOptions, runtime: tokio::runtime::Handle, clock: Arc<dyn Clock>) -> Self {
        Self { options, runtime, clock }
    }
}

impl Source for PostgresSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn open<'a>(&'a self, _memory: Option<&'a memory::Memory>) -> Result<Box<dyn Snapshot + 'a>, SourceError> {
        let snapshot = snapshot::open(&self.options, &self.runtime, &self.clock)?;
        Ok(Box::new(snapshot))
    }
}

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
