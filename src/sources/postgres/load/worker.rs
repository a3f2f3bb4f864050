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

/// A connection that takes rows, large objects and sequences. Each call is a transaction of its own: what a member
/// holds is in the table as a whole or not at all.
#[derive(Debug)]
pub struct Worker<'a> {
    filling: &'a Filling,
    runtime: Handle,
    access: Access,
    connection: PgConnection,
}

impl Filling {
    /// Makes a worker; as many as wanted, on any threads.
    ///
    /// # Errors
    /// When the server does not let us in.
    pub fn worker(&self) -> Result<Worker<'_>, LoadError> {
        let access = self.options.target();
        let connection = self.runtime.block_on(async {
            let mut connection = connect(&access).await?;
            // Nothing counts as restored before the very end, which waits for the disk.
            let relaxed = run(&mut connection, "SET synchronous_commit = off".to_owned()).await;
            relaxed.map_err(trouble(&access, "setting up the session"))?;
            Ok::<_, LoadError>(connection)
        })?;
        Ok(Worker { filling: self, runtime: self.runtime.clone(), access, connection })
    }
}

impl Worker<'_> {
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
        let table = self.filling.tables.get(&oid).ok_or_else(|| {
            LoadError::unsafe_member(format!("data/{oid:010}"), "has rows of a table that tables.json does not list")
        })?;
        let doing = || format!("loading table {}", table.shown());
        let failed = |what: ServerTrouble| trouble(&self.access, doing())(what);
        let encoding = &self.filling.encoding;
        let statement = table.copy_in(encoding);
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
        let text = std::str::from_utf8(bytes)
            .map_err(|_| LoadError::unsafe_member(part.path(), "is not UTF-8 text"))?
            .to_owned();
        let ran = self.runtime.block_on(run(&mut self.connection, text));
        ran.map_err(trouble(&self.access, format!("running {}", part.path())))
    }
}
