//! The connection to a database: opened to read and nothing else, with waits and buffers that have a bound; and the
//! pages that it shows.
//!
//! SQLite's calls are waited for here and nowhere else, and never while a caller's code runs: what takes the pages may
//! itself wait for a runtime.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Row, SqliteConnection};

use super::Trouble;
use super::walk::{Pages, TakePage};

/// How long a writer may keep the database locked before the backup gives up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Rows that SQLite's thread may be ahead of us. Rows can be large, so there are few of them.
const ROWS_AHEAD: usize = 32;
/// Pages are fetched in batches of this size.
const BATCH_BYTES: usize = 1024 * 1024;

/// Pages in the order asked for: `CROSS JOIN` is SQLite's way to fix the order of a join's loops.
const READ_PAGES: &str = "SELECT page.pgno, page.data FROM json_each(?1) AS wanted \
     CROSS JOIN sqlite_dbpage('main') AS page ON page.pgno = wanted.value";

/// Who else may use the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Others read and write it.
    Live,
    /// Nobody: then nothing beside the file is read or made.
    Scratch,
}

/// A connection that only reads.
pub(super) struct Connection {
    inner: SqliteConnection,
    runtime: tokio::runtime::Handle,
    page_bytes: usize,
}

impl Connection {
    /// Opens `path`; SQLite reads nothing of it yet.
    pub(super) fn open(path: &Path, usage: Usage, runtime: &tokio::runtime::Handle) -> Result<Self, Trouble> {
        // Absolute, because SQLite takes names that begin with `file:` for URIs.
        let path = std::path::absolute(path).map_err(sqlx::Error::from)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .immutable(usage == Usage::Scratch)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(ROWS_AHEAD)
            // The schema is not ours: no function with side effects may run from it, no constraint of it be evaluated.
            .pragma("trusted_schema", "OFF")
            .pragma("ignore_check_constraints", "ON")
            .pragma("query_only", "ON")
            .disable_statement_logging();
        let inner = runtime.block_on(options.connect())?;
        Ok(Self { inner, runtime: runtime.clone(), page_bytes: 512 })
    }

    /// Tells how large the pages are, so that batches have a bound.
    pub(super) fn set_page_bytes(&mut self, page_bytes: usize) {
        self.page_bytes = page_bytes;
    }

    /// Runs a statement that gives no rows.
    pub(super) fn run(&mut self, sql: &'static str) -> Result<(), Trouble> {
        self.runtime.block_on(sqlx::query(sql).execute(&mut self.inner))?;
        Ok(())
    }

    /// The one value of the first row.
    pub(super) fn value<T>(&mut self, sql: &'static str) -> Result<T, Trouble>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
    {
        Ok(self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&mut self.inner))?)
    }

    /// Calls `each` with every row, one after the other. `each` runs inside the runtime and must not wait.
    pub(super) fn rows(
        &mut self,
        sql: String,
        argument: Option<&str>,
        mut each: impl FnMut(&SqliteRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), Trouble> {
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        let query = match argument {
            Some(argument) => query.bind(argument),
            None => query,
        };
        let inner = &mut self.inner;
        self.runtime.block_on(async move {
            let mut rows = query.fetch(inner);
            while let Some(row) = rows.try_next().await? {
                each(&row)?;
            }
            Ok(())
        })
    }

    /// Registers a stand-in for every collation that indexes and keys use and only the application has, so that their
    /// tables can be read from end to end. Nothing that is asked afterwards may hang on how they compare.
    pub(super) fn stand_in_for_collations(&mut self) -> Result<(), Trouble> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let sql = "SELECT DISTINCT part.coll FROM main.sqlite_schema AS own \
             CROSS JOIN pragma_index_list(own.name) AS list CROSS JOIN pragma_index_xinfo(list.name) AS part \
             WHERE own.type = 'table' AND own.rootpage > 0 AND upper(part.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')";
        self.rows(sql.to_owned(), None, |row| {
            names.insert(row.try_get(0)?);
            Ok(())
        })?;
        let inner = &mut self.inner;
        Ok(self.runtime.block_on(async move {
            for name in &names {
                inner.lock_handle().await?.create_collation(name, Ord::cmp)?;
            }
            Ok::<_, sqlx::Error>(())
        })?)
    }

    /// Ends the transaction and closes. A connection that is merely dropped is closed as well, later.
    pub(super) fn close(self) -> Result<(), Trouble> {
        Ok(self.runtime.block_on(self.inner.close())?)
    }
}

impl Pages for Connection {
    fn read(&mut self, numbers: &mut dyn Iterator<Item = u32>, each: &mut TakePage<'_>) -> Result<(), Trouble> {
        let batch_pages = (BATCH_BYTES / self.page_bytes).max(1);
        let mut buffer = Vec::with_capacity(self.page_bytes);
        loop {
            let batch: Vec<u32> = numbers.take(batch_pages).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let wanted = format!("{batch:?}");
            let rows = self.runtime.block_on(sqlx::query(READ_PAGES).bind(wanted).fetch_all(&mut self.inner))?;
            let mut rows = rows.iter();
            for page in batch {
                let row = rows.next().ok_or(Trouble::PageMissing { page })?;
                if row.try_get::<i64, _>(0)? != i64::from(page) {
                    return Err(Trouble::PageMissing { page });
                }
                buffer.clear();
                buffer.extend_from_slice(row.try_get::<&[u8], _>(1)?);
                each(page, &mut buffer)?;
            }
        }
    }
}
