//! A connection with every setting pinned that changes how rows are written, or that ends a long transaction.
//!
//! `client_encoding` stays UTF8, because statements and names travel in it; rows have the server's encoding by COPY's
//! own option, byte for byte as they lie there.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::sources::SourceError;

use super::connect::{Access, ServerTrouble};
use super::layout::literal;
use super::trouble::server_error;

/// Settings and their values. Those that a server does not have are passed over.
const PINS: [(&str, &str); 25] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
    ("search_path", ""),
    ("row_security", "off"),
    ("synchronize_seqscans", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("force_parallel_mode", "off"),
    ("debug_parallel_query", "off"),
    ("jit", "off"),
    ("enable_tidscan", "on"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    ("client_min_messages", "error"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("array_nulls", "on"),
];

/// A pinned connection.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    /// The server's process for it.
    pub(super) pid: i32,
    access: Access,
}

impl Session {
    /// Connects and pins.
    pub(super) async fn open(access: &Access) -> Result<Self, SourceError> {
        let connection =
            access.connect().await.map_err(|trouble| server_error(&access.address, "cannot connect", trouble))?;
        let mut session = Self { connection, pid: 0, access: access.clone() };
        // From 12 on, 1 means: as many digits as it takes, and no more.
        let digits = if session.connection.server_version_num().unwrap_or(0) < 120_000 { "3" } else { "1" };
        let pins: Vec<String> = PINS
            .iter()
            .chain([&("extra_float_digits", digits)])
            .map(|(name, value)| format!("({}, {})", literal(name), literal(value)))
            .collect();
        // A join of settings with functions of the same statement: the server evaluates one row after the other.
        let sql = format!(
            "SELECT pg_catalog.set_config(own.name, pin.value, false) \
             FROM pg_catalog.pg_settings AS own JOIN (VALUES {}) AS pin (name, value) \
             ON pg_catalog.lower(own.name) = pin.name WHERE own.context IN ('user', 'superuser') \
             AND (own.context = 'user' OR pg_catalog.current_setting('is_superuser') = 'on')",
            pins.join(", ")
        );
        session.rows(&sql, "cannot set up the session").await?;
        session.pid = session.value("SELECT pg_catalog.pg_backend_pid()", "cannot set up the session").await?;
        Ok(session)
    }

    /// Connects, pins, and takes over a snapshot that another session exported.
    pub(super) async fn open_in(access: &Access, snapshot: &str) -> Result<Self, SourceError> {
        let mut session = Self::open(access).await?;
        let sql =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot));
        session.run(&sql, "cannot take over the snapshot").await?;
        Ok(session)
    }

    /// Runs statements that give no rows; several are divided by semicolons.
    pub(super) async fn run(&mut self, sql: &str, tried: &str) -> Result<(), SourceError> {
        self.try_run(sql).await.map_err(|trouble| self.wrong(tried, trouble))
    }

    /// The same, for a caller who looks at what went wrong.
    pub(super) async fn try_run(&mut self, sql: &str) -> Result<(), ServerTrouble> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await?;
        Ok(())
    }

    /// All rows of a query.
    pub(super) async fn rows(&mut self, sql: &str, tried: &str) -> Result<Vec<PgRow>, SourceError> {
        self.try_rows(sql).await.map_err(|trouble| self.wrong(tried, trouble))
    }

    /// The same, for a caller who looks at what went wrong.
    pub(super) async fn try_rows(&mut self, sql: &str) -> Result<Vec<PgRow>, ServerTrouble> {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false);
        Ok(query.fetch_all(&mut self.connection).await?)
    }

    /// The rows of a query with one parameter: oids.
    pub(super) async fn rows_of(&mut self, sql: &str, oids: &[u32], tried: &str) -> Result<Vec<PgRow>, SourceError> {
        let oids: Vec<i64> = oids.iter().map(|oid| i64::from(*oid)).collect();
        let query = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false).bind(oids);
        query.fetch_all(&mut self.connection).await.map_err(|error| self.wrong(tried, error))
    }

    /// The one value of the first row.
    pub(super) async fn value<T>(&mut self, sql: &str, tried: &str) -> Result<T, SourceError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false);
        query.fetch_one(&mut self.connection).await.map_err(|error| self.wrong(tried, error))
    }

    /// Puts the server's name to what went wrong.
    pub(super) fn wrong(&self, tried: impl std::fmt::Display, trouble: impl Into<ServerTrouble>) -> SourceError {
        server_error(&self.access.address, tried, trouble)
    }

    /// Says goodbye. A session that is merely dropped ends as well: its socket is closed.
    pub(super) async fn close(self) {
        // The transaction only read; what the server says of its end changes nothing.
        let _ = self.connection.close().await;
    }
}
