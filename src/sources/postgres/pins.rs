//! How a session must be set so that the same rows are the same text, whatever the server, the database or the role is
//! set to: for reading a source, for loading a backup and for comparing the two.

use sqlx::{AssertSqlSafe, PgConnection};

use super::connect::ServerTrouble;
use super::layout::literal;

/// Settings and their values: what changes how rows are written, and what would end a long transaction. Those that a
/// server does not have are passed over.
const PINS: [(&str, &str); 24] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
    ("array_nulls", "on"),
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
    // Where we may.
    ("lc_messages", "C"),
];

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It changes nothing.
    Read,
    /// It fills a database.
    Write,
}

/// Pins a session.
pub(super) async fn pin(connection: &mut PgConnection, purpose: Purpose) -> Result<(), ServerTrouble> {
    // From 12 on, 1 means: as many digits as it takes, and no more.
    let digits = if connection.server_version_num().unwrap_or(0) < 120_000 { "3" } else { "1" };
    let read_only = if purpose == Purpose::Read { "on" } else { "off" };
    let pins: Vec<String> = PINS
        .iter()
        .chain([
            &("extra_float_digits", digits),
            &("default_transaction_isolation", "read committed"),
            &("default_transaction_read_only", read_only),
        ])
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
    sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(connection).await?;
    Ok(())
}
