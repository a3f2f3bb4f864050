//! How a session must be set so that the same rows are the same text, whatever the server, the database or the role is
//! set to: for reading a source, for loading a backup and for comparing the two.

use sqlx::PgConnection;

use super::connect::ServerTrouble;

/// One statement each. What only some versions know is set where it is known. The last digits of floating-point
/// numbers: from 12 on any positive number means the shortest text that reads back the same.
pub(super) const PINS: &[&str] = &[
    "SET DateStyle = 'ISO, MDY'",
    "SET IntervalStyle = 'postgres'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 3",
    "SET search_path = ''",
    "SET TimeZone = 'UTC'",
    "SET lc_monetary = 'C'",
    "SET row_security = off",
    "SET standard_conforming_strings = on",
    "SET xmloption = content",
    "SET synchronize_seqscans = off",
    "SET max_parallel_workers_per_gather = 0",
    "SET default_transaction_read_only = off",
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN \
     ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', \
     'transaction_timeout')",
];

/// Sets them.
pub(super) async fn pin(connection: &mut PgConnection) -> Result<(), ServerTrouble> {
    for statement in PINS {
        sqlx::raw_sql(*statement).execute(&mut *connection).await?;
    }
    Ok(())
}
