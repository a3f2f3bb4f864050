//! A connection with every setting pinned that changes how rows are written, or that ends a long transaction.
//!
//! `client_encoding` stays UTF8, because statements and names travel in it; rows have the server's encoding by COPY's
//! own option, byte for byte as they lie there.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::sources::SourceError;

use super::connect::{Access, ServerTrouble};
use super::layout::literal;
use super::pins::{Purpose, pin};
use super::trouble::server_error;

/// A pinned connection.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    /// The server's process for it.
    pub(super) pid: i32,
    pub(super) access: Access,
}

impl Session {
    /// Connects and pins.
    pub(super) async fn open(access: &Access) -> Result<Self, SourceError> {
        let connection =
            access.connect().await.map_err(|trouble| server_error(&access.address, "cannot connect", trouble))?;
        let mut session = Self { connection, pid: 0, access: access.clone() };
        let pinned = pin(&mut session.connection, Purpose::Read).await;
        pinned.map_err(|trouble| session.wrong("cannot set up the session", trouble))?;
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
