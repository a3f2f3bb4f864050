//! The confined end of a SQL check on PostgreSQL: one question in a transaction that only reads.
//!
//! What is asked is the user's; what answers is a restored schema, whose views and functions run in the scratch server.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column as _, Connection as _, PgConnection, Row as _, TypeInfo as _, ValueRef as _};

use super::{ANSWER_GRACE, Answer, MAX_TEXT_BYTES, Value, more_rows, no_row, too_slow, wrong_columns};
use crate::domain::server::ServerAddress;
use crate::sources::postgres::connect::{Access, ServerTrouble};

/// SQLSTATE of a statement that was cancelled, here by its own deadline.
const CANCELLED: &str = "57014";

/// Answers a question asked of the database at `url`, which asks for no password.
pub(super) async fn answer(url: &str, sql: &str, timeout_seconds: u64) -> Answer {
    match ServerAddress::parse(url) {
        Ok(address) => answer_by(&Access { address, password: None }, sql, timeout_seconds).await,
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Answers a question asked of a database that is not on this machine, or not ours: what answers runs there, so whoever
/// asks need not be confined.
pub(in crate::scratch) async fn answer_by(access: &Access, sql: &str, timeout_seconds: u64) -> Answer {
    // A server that does not keep to the deadline is not waited for.
    let limit = Duration::from_secs(timeout_seconds) + ANSWER_GRACE;
    let Ok(asked) = tokio::time::timeout(limit, ask(access, sql, timeout_seconds)).await else {
        return too_slow(timeout_seconds);
    };
    match asked {
        Ok(answer) => answer,
        Err(trouble) if trouble.state().as_deref() == Some(CANCELLED) => too_slow(timeout_seconds),
        Err(ServerTrouble::Sql(sqlx::Error::Database(error))) => Answer::Refused(error.message().to_owned()),
        Err(other) => Answer::Refused(other.to_string()),
    }
}

async fn ask(access: &Access, sql: &str, timeout_seconds: u64) -> Result<Answer, ServerTrouble> {
    let mut connection = access.connect().await?;
    // In one place and one notation, whatever the database's own settings say; its search_path stays what it is.
    let begin = format!(
        "SET statement_timeout = '{timeout_seconds}s'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; \
         SET bytea_output = 'hex'; BEGIN READ ONLY"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await?;
    let answer = only_value(&mut connection, sql).await;
    // The transaction ends with the connection.
    let _ = connection.close().await;
    Ok(answer?)
}

async fn only_value(connection: &mut PgConnection, sql: &str) -> Result<Answer, sqlx::Error> {
    // As text, whatever the type: the simple protocol.
    let mut rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(connection);
    let Some(first) = rows.try_next().await? else { return Ok(no_row()) };
    if rows.try_next().await?.is_some() {
        return Ok(more_rows());
    }
    let names: Vec<&str> = first.columns().iter().map(sqlx::Column::name).collect();
    if names.len() != 1 {
        return Ok(wrong_columns(&names));
    }
    value(&first).map(Answer::Value)
}

fn value(row: &PgRow) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(0)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = row.column(0).type_info().name().to_owned();
    let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
    // A database in SQL_ASCII may hold anything.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_BYTES)]).into_owned();
    Ok(match kind.as_str() {
        "BOOL" => Value::Boolean(text == "t"),
        "INT2" | "INT4" | "INT8" | "OID" => text.parse().map_or(Value::Text(text), Value::Integer),
        "FLOAT4" | "FLOAT8" | "NUMERIC" => number(text),
        // A day begins at midnight; who wants to know more exactly asks for a timestamp.
        "DATE" => Value::Text(format!("{text} 00:00:00")),
        // Two digits a byte, behind `\x`.
        "BYTEA" => Value::Blob(bytes.len().saturating_sub(2) / 2),
        _ => Value::Text(text),
    })
}

fn number(text: String) -> Value {
    if let Ok(integer) = text.parse() {
        return Value::Integer(integer);
    }
    match text.parse::<f64>() {
        Ok(number) if !number.is_nan() => Value::Real(number.clamp(f64::MIN, f64::MAX)),
        _ => Value::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::examine::tests::TestServer;

    fn refused(answer: Answer) -> String {
        match answer {
            Answer::Refused(why) => why,
            Answer::Value(value) => panic!("{value:?} was answered"),
        }
    }

    #[tokio::test]
    async fn every_type_has_a_value() {
        let server = TestServer::start().await;
        server
            .run(
                "CREATE TABLE messages (id int, created timestamptz);
                 INSERT INTO messages VALUES (1, '2026-11-22 05:00:00+03'), (2, '2026-11-21 00:00:00Z');
                 ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE postgres SET DateStyle = 'German';
                 CREATE TYPE mood AS ENUM ('fine')",
            )
            .await;
        let url = server.address("postgres", "postgres").to_string();
        let text = |text: &str| Value::Text(text.to_owned());
        for (sql, value, passes) in [
            ("select count(*) > 0 from messages", Value::Boolean(true), true),
            ("select false", Value::Boolean(false), false),
            ("select count(*) from messages;", Value::Integer(2), true),
            ("select 3::smallint", Value::Integer(3), true),
            ("select 0.5::real", Value::Real(0.5), true),
            ("select 'infinity'::float8", Value::Real(f64::MAX), true),
            ("select 'NaN'::float8", text("NaN"), false),
            ("select sum(id) from messages", Value::Integer(3), true),
            ("select 2.50::numeric", Value::Real(2.5), true),
            ("select 0.00::numeric", Value::Real(0.0), false),
            ("select max(created) from messages", text("2026-11-22 02:00:00+00"), false),
            ("select '2026-11-22 02:00:00.125'::timestamp", text("2026-11-22 02:00:00.125"), false),
            ("select date '2026-11-22'", text("2026-11-22 00:00:00"), false),
            ("select 'fine'::mood", text("fine"), false),
            ("select '{}'::jsonb", text("{}"), false),
            ("select max(created) from messages where id > 5", Value::Null, false),
            ("select '\\x0102'::bytea", Value::Blob(2), false),
            ("select repeat('0', 5000)", text(&"0".repeat(MAX_TEXT_BYTES)), false),
        ] {
            let answered = answer(&url, sql, 10).await;
            assert_eq!(answered, Answer::Value(value.clone()), "{sql}");
            assert_eq!(value.is_true(), passes, "{sql}");
        }
        for (sql, why) in [
            ("select id from messages", "more than one row"),
            ("select id, created from messages where id = 1", "2 columns (id, created)"),
            ("select id from messages where id > 5", "no row"),
            ("", "no row"),
            ("selec 1", "syntax error"),
            ("select * from nowhere", "relation \"nowhere\" does not exist"),
            ("delete from messages returning 1", "read-only transaction"),
            ("select pg_sleep(100)", "still ran after 1 s"),
        ] {
            let said = refused(answer(&url, sql, 1).await);
            assert!(said.contains(why), "{sql}: {said}");
        }
        assert!(refused(answer("postgres://nobody", "select 1", 1).await).contains("database"));
        let gone = server.address("postgres", "gone").to_string();
        assert!(refused(answer(&gone, "select 1", 1).await).contains("\"gone\" does not exist"));
    }
}
