//! One of several connections that rows go in by.

use std::ops::Deref;

use sqlx::PgConnection;
use tokio::runtime::Handle;

use super::archive::trouble;
use super::error::LoadError;
use super::{Filling, connect, run};
use crate::sources::postgres::connect::{Access, ServerTrouble};
use crate::sources::postgres::facts::{BINARY_HEADER, BINARY_SIGNATURE};
use crate::sources::postgres::layout::{Part, literal};

/// A connection that takes rows, large objects and sequences. What a member holds is in the table as a whole or
/// not at all: each call is a transaction of its own, or part of one ([`Tables::Own`]).
#[derive(Debug)]
pub struct Worker<'a> {
    filling: &'a Filling,
    runtime: Handle,
    access: Access,
    connection: PgConnection,
    tables: Tables,
    /// The table of the worker's own whose transaction is open.
    begun: Option<u32>,
}

/// Whether others put rows into the same tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// They do, at the same time.
    Shared,
    /// Nobody does before [`Worker::end`]. What the worker puts into a table is one transaction until it is given another
    /// one, and that begins with emptying it, so that a server with `wal_level = minimal` logs nothing of it.
    Own,
}

impl Filling {
    /// Makes a worker; as many as wanted, on any threads.
    ///
    /// # Errors
    /// When the server does not let us in.
    pub fn worker(&self, tables: Tables) -> Result<Worker<'_>, LoadError> {
        let access = self.options.target();
        let connection = self.runtime.block_on(async {
            let mut connection = connect(&access).await?;
            // Nothing counts as restored before the very end, which waits for the disk.
            let relaxed = run(&mut connection, "SET synchronous_commit = off".to_owned()).await;
            relaxed.map_err(trouble(&access, "setting up the session"))?;
            Ok::<_, LoadError>(connection)
        })?;
        Ok(Worker { filling: self, runtime: self.runtime.clone(), access, connection, tables, begun: None })
    }
}

impl Worker<'_> {
    /// Empties a table in a transaction that stays open. Where it has rows, or our role may not empty it, each member is a
    /// transaction instead, as in a table that is shared.
    fn begin(&mut self, oid: u32) -> Result<(), LoadError> {
        let table = self.filling.table(oid)?;
        let begun = self.runtime.block_on(async {
            let name = table.qualified();
            // An extension may have filled it when it was made, and of these rows the backup has none.
            let sql = "SELECT pg_catalog.pg_relation_size(found) = 0 AND pg_catalog.has_table_privilege(found, 'TRUNCATE') \
                       FROM pg_catalog.to_regclass($1) AS found";
            let may: bool = sqlx::query_scalar(sql).bind(&name).fetch_one(&mut self.connection).await?;
            if may {
                run(&mut self.connection, format!("BEGIN; TRUNCATE ONLY {name}")).await?;
            }
            Ok(may)
        });
        let begun = begun.map_err(trouble(&self.access, format!("beginning with table {}", table.shown())))?;
        self.begun = begun.then_some(oid);
        Ok(())
    }

    /// Ends what is begun of the worker's own tables. Without this the last one stays empty.
    ///
    /// # Errors
    /// The server's.
    pub fn end(&mut self) -> Result<(), LoadError> {
        let Some(oid) = self.begun.take() else { return Ok(()) };
        let ended = self.runtime.block_on(run(&mut self.connection, "COMMIT".to_owned()));
        ended.map_err(trouble(&self.access, format!("ending table {}", self.filling.table(oid)?.shown())))
    }

    /// Puts the rows of one member into its table; gives how many there were. The parts come one after the other and
    /// may be cut anywhere.
    ///
    /// # Errors
    /// The server's, naming the table and the line; and those of the parts themselves, then nothing of the member stays.
    pub fn copy<B, E>(&mut self, oid: u32, parts: impl IntoIterator<Item = Result<B, E>>) -> Result<u64, E>
    where
        B: Deref<Target = [u8]>,
        E: From<LoadError>,
    {
        if self.tables == Tables::Own && self.begun != Some(oid) {
            self.end()?;
            self.begin(oid)?;
        }
        let table = self.filling.table(oid)?;
        let doing = || format!("loading table {}", table.shown());
        let failed = |what: ServerTrouble| trouble(&self.access, doing())(what);
        let encoding = &self.filling.encoding;
        let statement = if self.begun.is_some() { table.copy_in_frozen(encoding) } else { table.copy_in(encoding) };
        if table.binary {
            // Text in binary rows is read in the session's encoding.
            let set = format!("SET client_encoding = {}", literal(encoding));
            self.runtime.block_on(run(&mut self.connection, set)).map_err(failed)?;
        }
        let begun = self.runtime.block_on(self.connection.copy_in_raw(&statement));
        let mut copy = begun.map_err(|cause| failed(cause.into()))?;
        let mut at_the_beginning = true;
        for part in parts {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    // The reason is at hand already; what the server has to say to it is not news.
                    let _ = self.runtime.block_on(copy.abort("the backup could not be read"));
                    return Err(error);
                }
            };
            // The server wrote one header for the whole table, and each member is a COPY of its own here.
            let lacks_header = table.binary && at_the_beginning && !part.starts_with(BINARY_SIGNATURE);
            at_the_beginning = false;
            let sent = self.runtime.block_on(async {
                if lacks_header {
                    copy.send(&BINARY_HEADER[..]).await?;
                }
                copy.send(part).await.map(|_| ())
            });
            if let Err(cause) = sent {
                // Why it closed the connection is among what it said last.
                let last = self.runtime.block_on(copy.finish()).err();
                return Err(
                    failed(last.filter(|last| last.as_database_error().is_some()).unwrap_or(cause).into()).into()
                );
            }
        }
        let rows = self.runtime.block_on(copy.finish()).map_err(|cause| failed(cause.into()))?;
        if table.binary {
            let reset = run(&mut self.connection, "SET client_encoding = 'UTF8'".to_owned());
            self.runtime.block_on(reset).map_err(failed)?;
        }
        Ok(rows)
    }

    /// Runs a member that consists of statements: large objects' data, sequences' values.
    ///
    /// # Errors
    /// The server's.
    pub fn run(&mut self, part: Part, bytes: &[u8]) -> Result<(), LoadError> {
        self.end()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| LoadError::unsafe_member(part.path(), "is not UTF-8 text"))?
            .to_owned();
        let ran = self.runtime.block_on(run(&mut self.connection, text));
        ran.map_err(trouble(&self.access, format!("running {}", part.path())))
    }
}
