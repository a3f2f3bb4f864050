//! The confined end of a SQL check: opens a restored database, asks one question, gives one value. SQLite's files are
//! read here, a scratch server of PostgreSQL's is asked by [`postgres`].
//!
//! `lifeboat confined-sql` reads a [`Request`] as JSON on stdin, calls [`serve`], and writes the [`Answer`] as JSON on
//! stdout. It runs as the uid of foreign code, because a restored schema is foreign code: what is answered here is
//! believed by nobody as to *its* truth, only as to the check's verdict.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};
use tokio::time::Instant;

pub(super) mod postgres;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "confined-sql";
/// Bytes of a text that are given back; a check's verdict does not depend on more.
pub const MAX_TEXT_BYTES: usize = 1024;
/// What an answer may take beyond its statement's deadline, to begin and to say that it was too slow.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(10);
/// How many of SQLite's instructions run between two looks at the clock.
const OPERATIONS_PER_LOOK: i32 = 10_000;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked.
    pub database: Database,
    /// A statement that gives one row of one column.
    pub sql: String,
    /// How long the statement may run.
    pub timeout_seconds: u64,
}

/// A restored database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// A file of SQLite's. It is opened read-only, as it lies: a write-ahead log beside it is not read.
    Sqlite(PathBuf),
    /// The address of a PostgreSQL database, as a URL. It is asked in a transaction that only reads.
    Postgres(String),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// One row of one column.
    Value(Value),
    /// Something else, or an error: the check failed, and this says why.
    Refused(String),
}

/// A database's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum Value {
    /// NULL.
    Null,
    /// A truth value; SQLite has none, and gives 1 or 0.
    Boolean(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// A floating-point number; an infinite one is given as the largest finite one, because JSON has none.
    Real(f64),
    /// The first [`MAX_TEXT_BYTES`] of a text.
    Text(String),
    /// How many bytes a blob has.
    Blob(usize),
}

impl Value {
    /// What a check passes on: true, or a number other than zero (SQLite's *true* is 1).
    #[must_use]
    pub fn is_true(&self) -> bool {
        match self {
            Self::Boolean(truth) => *truth,
            Self::Integer(number) => *number != 0,
            Self::Real(number) => *number != 0.0,
            Self::Null | Self::Text(_) | Self::Blob(_) => false,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(truth) => write!(f, "{truth}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Blob(bytes) => write!(f, "a blob of {bytes} bytes"),
        }
    }
}

/// Answers a request.
pub async fn serve(request: Request) -> Answer {
    let Request { database, sql, timeout_seconds } = &request;
    match database {
        Database::Postgres(url) => postgres::answer(url, sql, *timeout_seconds).await,
        Database::Sqlite(path) => match ask(path, sql, *timeout_seconds).await {
            Ok(answer) => answer,
            Err(sqlx::Error::Database(cause)) if cause.message() == "interrupted" => too_slow(*timeout_seconds),
            Err(sqlx::Error::Database(cause)) => Answer::Refused(cause.message().to_owned()),
            Err(other) => Answer::Refused(other.to_string()),
        },
    }
}

fn too_slow(timeout_seconds: u64) -> Answer {
    Answer::Refused(format!("the statement still ran after {timeout_seconds} s"))
}

fn no_row() -> Answer {
    Answer::Refused("the statement gave no row; one row of one column is wanted".to_owned())
}

fn more_rows() -> Answer {
    Answer::Refused("the statement gave more than one row; one row of one column is wanted".to_owned())
}

fn wrong_columns(names: &[&str]) -> Answer {
    let some = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    Answer::Refused(format!("the statement gave {} columns ({some}); one is wanted", names.len()))
}

async fn ask(path: &Path, sql: &str, timeout_seconds: u64) -> Result<Answer, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        // The copy may say that it wants a write-ahead log, and nobody may write beside it.
        .immutable(true);
    let mut connection = options.connect().await?;
    let until = Instant::now() + Duration::from_secs(timeout_seconds);
    connection.lock_handle().await?.set_progress_handler(OPERATIONS_PER_LOOK, move || Instant::now() < until);
    let answer = only_value(&mut connection, sql).await;
    // Interrupted or not, the file was only read.
    let _ = connection.close().await;
    answer
}

async fn only_value(connection: &mut SqliteConnection, sql: &str) -> Result<Answer, sqlx::Error> {
    let first = {
        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
        let Some(first) = next(&mut rows).await? else {
            return Ok(no_row());
        };
        if next(&mut rows).await?.is_some() {
            return Ok(more_rows());
        }
        first
    };
    let names: Vec<&str> = first.columns().iter().map(Column::name).collect();
    if names.len() != 1 {
        return Ok(wrong_columns(&names));
    }
    value(&first).map(Answer::Value)
}

async fn next(
    rows: &mut (impl futures_util::Stream<Item = Result<SqliteRow, sqlx::Error>> + Unpin),
) -> Result<Option<SqliteRow>, sqlx::Error> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *rows).poll_next(context)).await.transpose()
}

fn value(row: &SqliteRow) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(0)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // The value's own type, whatever its column was declared as.
    let kind = raw.type_info();
    Ok(match kind.name() {
        "INTEGER" => Value::Integer(row.try_get_unchecked(0)?),
        "REAL" => Value::Real(row.try_get_unchecked::<f64, _>(0)?.clamp(f64::MIN, f64::MAX)),
        "TEXT" => {
            let bytes: Vec<u8> = row.try_get_unchecked(0)?;
            Value::Text(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_BYTES)]).into_owned())
        }
        _ => Value::Blob(row.try_get_unchecked::<Vec<u8>, _>(0)?.len()),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::path::Path;

    use super::*;

    /// The variable that turns [`confined_entry`] into the subcommand.
    pub(crate) const ENTRY_VARIABLE: &str = "LIFEBOAT_TEST_CONFINED_SQL";
    /// Its name for the test binary.
    pub(crate) const ENTRY_TEST: &str = "scratch::sql::tests::confined_entry";

    /// A database that says it is in WAL mode and has no log beside it, as a restored one does.
    pub(crate) async fn database(path: &Path) {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.pragma("journal_mode", "wal").connect().await.unwrap();
        sqlx::raw_sql(
            "create table orders (id integer primary key, created text);
             insert into orders values (1, '2026-11-21 10:00:00'), (2, '2026-11-22 02:00:00');",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
    }

    /// What the hidden subcommand does, so that this test binary can stand in for it.
    #[test]
    fn confined_entry() {
        let mut json = Vec::new();
        if std::env::var_os(ENTRY_VARIABLE).is_none() {
            for database in [Database::Sqlite("db".into()), Database::Postgres("postgres://a@b/c".into())] {
                let request = Request { database, sql: "select 1".into(), timeout_seconds: 1 };
                json.clear();
                serde_json::to_writer(&mut json, &request).unwrap();
                assert_eq!(serde_json::from_slice::<Request>(&json).unwrap(), request);
            }
            return;
        }
        std::io::stdin().read_to_end(&mut json).unwrap();
        let request = serde_json::from_slice(&json).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(serve(request));
        std::io::stdout().write_all(&serde_json::to_vec(&answer).unwrap()).unwrap();
        std::process::exit(0);
    }

    async fn answer(path: &Path, sql: &str) -> Answer {
        let database = Database::Sqlite(path.to_owned());
        serve(Request { database, sql: sql.to_owned(), timeout_seconds: 1 }).await
    }

    fn refused(answer: Answer) -> String {
        match answer {
            Answer::Refused(why) => why,
            Answer::Value(value) => panic!("{value:?} was answered"),
        }
    }

    #[tokio::test]
    async fn every_type_is_told_by_the_value_not_by_the_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        database(&path).await;
        for (sql, value, passes) in [
            ("select count(*) from orders", Value::Integer(2), true),
            ("select count(*) > 5 from orders", Value::Integer(0), false),
            ("select true;", Value::Integer(1), true),
            ("select 0.5", Value::Real(0.5), true),
            ("select 9e999", Value::Real(f64::MAX), true),
            ("select max(created) from orders", Value::Text("2026-11-22 02:00:00".into()), false),
            ("select max(created) from orders where id > 5", Value::Null, false),
            ("select x'0102'", Value::Blob(2), false),
            ("select hex(zeroblob(5000))", Value::Text("0".repeat(MAX_TEXT_BYTES)), false),
        ] {
            let answered = answer(&path, sql).await;
            assert_eq!(answered, Answer::Value(value.clone()), "{sql}");
            assert_eq!(value.is_true(), passes, "{sql}");
            let json = serde_json::to_string(&answered).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answered, "{json}");
        }
    }

    #[tokio::test]
    async fn anything_but_one_value_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        database(&path).await;
        let before = std::fs::read(&path).unwrap();
        for (sql, why) in [
            ("select id from orders", "more than one row"),
            ("select 1; select 1", "more than one row"),
            ("select id, created from orders where id = 1", "2 columns (id, created)"),
            ("select id from orders where id > 5", "no row"),
            ("", "no row"),
            ("selec 1", "syntax error"),
            ("delete from orders returning 1", "readonly"),
            ("select load_extension('libm.so.6')", "not authorized"),
            (
                "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n",
                "still ran after 1 s",
            ),
        ] {
            let said = refused(answer(&path, sql).await);
            assert!(said.contains(why), "{sql}: {said}");
        }
        assert!(!refused(answer(&folder.path().join("none"), "select 1").await).is_empty());
        std::fs::write(folder.path().join("junk"), vec![7; 4096]).unwrap();
        assert!(
            refused(answer(&folder.path().join("junk"), "select count(*) from orders").await)
                .contains("not a database")
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
