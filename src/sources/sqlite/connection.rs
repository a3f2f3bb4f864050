//! The connection to a database: opened to read and nothing else, with waits that have a bound; and the pages that it
//! shows.
//!
//! Rows are taken one by one as SQLite steps, without a thread or a copy between (decision 0023): a database's every row
//! is looked at every day.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{OpenFlags, Row};

use super::Trouble;
use super::walk::{Pages, TakePage};

/// How long a writer may keep the database locked before the backup gives up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const READ_PAGE: &str = "SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1";

/// Who else may use the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Others read and write it.
    Live,
    /// Nobody: then nothing beside the file is read or made.
    Scratch,
}

/// A connection that only reads.
pub(super) struct Connection(rusqlite::Connection);

impl Connection {
    /// Opens `path`; SQLite reads nothing of it yet.
    pub(super) fn open(path: &Path, usage: Usage) -> Result<Self, Trouble> {
        let path = std::path::absolute(path).map_err(Trouble::Name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite takes what begins with a slash for a name and never for a URI, whatever else is in it.
        let inner = match usage {
            Usage::Live => rusqlite::Connection::open_with_flags(path, flags)?,
            Usage::Scratch => {
                rusqlite::Connection::open_with_flags(immutable(&path), flags | OpenFlags::SQLITE_OPEN_URI)?
            }
        };
        inner.busy_timeout(BUSY_TIMEOUT)?;
        // The schema is not ours: no function with side effects may run from it, no constraint of it be evaluated.
        inner.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA ignore_check_constraints = ON; PRAGMA query_only = ON;",
        )?;
        Ok(Self(inner))
    }

    /// Runs a statement that gives no rows.
    pub(super) fn run(&self, sql: &'static str) -> Result<(), Trouble> {
        Ok(self.0.execute_batch(sql)?)
    }

    /// The one value of the first row.
    pub(super) fn value<T: FromSql>(&self, sql: &'static str) -> Result<T, Trouble> {
        Ok(self.0.query_row(sql, [], |row| row.get(0))?)
    }

    /// Calls `each` with every row, one after the other.
    pub(super) fn rows(
        &self,
        sql: &str,
        argument: Option<&str>,
        mut each: impl FnMut(&Row<'_>) -> Result<(), rusqlite::Error>,
    ) -> Result<(), Trouble> {
        let mut statement = self.0.prepare(sql)?;
        let mut rows = match argument {
            Some(argument) => statement.query([argument])?,
            None => statement.query([])?,
        };
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    }

    /// Registers a stand-in for every collation that indexes and keys use and only the application has, so that their
    /// tables can be read from end to end. Nothing that is asked afterwards may hang on how they compare.
    pub(super) fn stand_in_for_collations(&self) -> Result<(), Trouble> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let sql = "SELECT DISTINCT part.coll FROM main.sqlite_schema AS own \
             CROSS JOIN pragma_index_list(own.name) AS list CROSS JOIN pragma_index_xinfo(list.name) AS part \
             WHERE own.type = 'table' AND own.rootpage > 0 AND upper(part.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')";
        self.rows(sql, None, |row| {
            names.insert(row.get(0)?);
            Ok(())
        })?;
        for name in &names {
            self.0.create_collation(name.as_str(), str::cmp)?;
        }
        Ok(())
    }

    /// Ends the transaction and closes.
    pub(super) fn close(self) -> Result<(), Trouble> {
        self.0.close().map_err(|(_, error)| error.into())
    }
}

impl Pages for Connection {
    fn read(&mut self, numbers: &mut dyn Iterator<Item = u32>, each: &mut TakePage<'_>) -> Result<(), Trouble> {
        let mut statement = self.0.prepare(READ_PAGE)?;
        let mut buffer = Vec::new();
        for page in numbers {
            let mut rows = statement.query([page])?;
            let Some(row) = rows.next()? else { return Err(Trouble::PageMissing { page }) };
            let ValueRef::Blob(bytes) = row.get_ref(0)? else { return Err(Trouble::PageMissing { page }) };
            buffer.clear();
            buffer.extend_from_slice(bytes);
            each(page, &mut buffer)?;
        }
        Ok(())
    }
}

/// The URI of a file that nobody writes to. Every byte is written as its number, which needs no table of what may stand.
fn immutable(path: &Path) -> String {
    let escaped: String = path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02x}")).collect();
    format!("file:{}?immutable=1", escaped.replace("%2f", "/"))
}
