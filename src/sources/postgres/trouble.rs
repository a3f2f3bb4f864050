//! What a server says when it refuses, as a sentence with the next command. Asks nobody.

use std::fmt;

use crate::domain::server::ServerAddress;
use crate::error::Diagnostic;
use crate::process::ToolError;
use crate::sources::SourceError;

use super::connect::ServerTrouble;

/// What keeps a standby from cancelling who reads.
const STANDBY_ADVICE: &str = "it may have had to remove rows that were being read: set hot_standby_feedback = on there, or \
     raise max_standby_streaming_delay";

/// Says what was tried (`cannot read public.users`), what came back, and what to do about it.
pub fn server_error(
    address: &ServerAddress,
    tried: impl fmt::Display,
    trouble: impl Into<ServerTrouble>,
) -> SourceError {
    let trouble = trouble.into();
    let said = words(&trouble);
    let state = trouble.state().unwrap_or_default();
    let Advice { hint, transient } = advice(address, &trouble, &state, &said);
    SourceError::Server { server: address.to_string(), what: format!("{tried}: {said}"), hint, transient }
}

/// What came back, in the server's own words: `error returned from database: …` and the like are the library's.
pub fn words(trouble: &ServerTrouble) -> String {
    match trouble {
        ServerTrouble::Sql(sqlx::Error::Database(error)) => error.message().to_owned(),
        ServerTrouble::Sql(sqlx::Error::Io(error)) => format!("the connection failed: {error}"),
        other => other.to_string(),
    }
}

/// What a superuser has to type before a role can log in at all, where that is what is missing.
#[must_use]
pub fn admission(address: &ServerAddress, trouble: &ServerTrouble) -> Option<String> {
    let role = super::layout::quoted(&address.role);
    // The role is looked up after pg_hba.conf has let it in, the right to connect after that.
    match (trouble.state().as_deref(), trouble.source_file()) {
        (Some("28000"), Some("miscinit.c")) => Some(format!("as a superuser: CREATE ROLE {role} LOGIN")),
        (Some("42501"), Some("postinit.c")) => {
            let database = super::layout::quoted(&address.database);
            Some(format!("as a superuser: GRANT CONNECT ON DATABASE {database} TO {role}"))
        }
        _ => None,
    }
}

/// A server that answers, and with something that cannot be.
pub(super) fn wrong(address: &ServerAddress, what: impl Into<String>, hint: Option<String>) -> SourceError {
    SourceError::Server { server: address.to_string(), what: what.into(), hint, transient: false }
}

/// What may go better a little later, or with a snapshot of a later moment.
pub(super) fn passing(address: &ServerAddress, what: impl Into<String>, hint: impl Into<String>) -> SourceError {
    SourceError::Server { server: address.to_string(), what: what.into(), hint: Some(hint.into()), transient: true }
}

/// A standby that must remove what is being read ends the session, and where that is busy writing it says no word of why.
pub(super) fn of_standby(error: SourceError) -> SourceError {
    match error {
        SourceError::Server { server, what, hint, transient: true } => {
            let hint = match hint {
                Some(hint) if hint.contains(STANDBY_ADVICE) => hint,
                Some(hint) => format!("{hint}; as it is a standby, {STANDBY_ADVICE}"),
                None => STANDBY_ADVICE.to_owned(),
            };
            SourceError::Server { server, what, hint: Some(hint), transient: true }
        }
        other => other,
    }
}

/// What our own or the server's programs said.
pub(super) fn tool_error(
    address: &ServerAddress,
    tried: &str,
    error: &(impl Diagnostic + fmt::Display),
) -> SourceError {
    tool_said(address, tried, error.to_string(), error.hint())
}

/// The same of a program that ran: its last line is often the query, and not what went wrong with it.
pub(super) fn tool_failed(address: &ServerAddress, tried: &str, error: &ToolError) -> SourceError {
    if let ToolError::TimedOut { .. } = error {
        return tool_said(address, tried, error.to_string(), Some("raise max_snapshot in the config".to_owned()));
    }
    let said = match error {
        ToolError::Failed { program, stderr_tail, .. } => stderr_tail
            .lines()
            .find_map(|line| line.split_once("error: "))
            .map(|(_, what)| format!("{program}: {what}")),
        _ => None,
    };
    tool_said(address, tried, said.unwrap_or_else(|| error.to_string()), error.hint())
}

fn tool_said(address: &ServerAddress, tried: &str, said: String, hint: Option<String>) -> SourceError {
    let role = super::layout::quoted(&address.role);
    let signs = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    let Advice { hint: advised, transient } = if is_about_locks(&said) {
        lasting("somebody holds or wants an exclusive lock; try later, or raise max_lock_wait")
    } else if signs(&["permission denied"]) {
        lasting(format!("let the role read everything: GRANT pg_read_all_data TO {role}"))
    } else if signs(&["out of shared memory"]) {
        lasting("raise max_locks_per_transaction on the server: pg_dump locks every table at once")
    } else if signs(&["authentication failed", "no password supplied", "pg_hba.conf"]) {
        lasting(format!("check the role's password, and what pg_hba.conf says of it: psql '{address}'"))
    } else if signs(&["certificate"]) {
        lasting("check sslmode and sslrootcert in the url")
    } else if signs(&["server closed the connection", "terminating connection", "connection to server"]) {
        later(format!("see in the server's log why; is it running? pg_isready -d '{address}'"))
    } else {
        Advice { hint: None, transient: false }
    };
    let hint = hint.or(advised);
    SourceError::Server { server: address.to_string(), what: format!("{tried}: {said}"), hint, transient }
}

/// Whether the other side is not who the url says, as far as certificates tell.
pub(super) fn is_about_certificates(trouble: &ServerTrouble, said: &str) -> bool {
    match trouble {
        ServerTrouble::Sql(sqlx::Error::Tls(_)) => true,
        // While hands are shaken the encryption's trouble is one of reading and writing.
        ServerTrouble::Sql(sqlx::Error::Io(_)) => said.contains("certificate"),
        _ => false,
    }
}

/// Whether what a server or pg_dump said is that somebody else has a lock. (pg_dump waits for its locks under a
/// statement_timeout.)
pub(super) fn is_about_locks(said: &str) -> bool {
    ["lock timeout", "statement timeout", "could not obtain lock"].iter().any(|sign| said.contains(sign))
}

struct Advice {
    hint: Option<String>,
    transient: bool,
}

fn lasting(hint: impl Into<String>) -> Advice {
    Advice { hint: Some(hint.into()), transient: false }
}

fn later(hint: impl Into<String>) -> Advice {
    Advice { hint: Some(hint.into()), transient: true }
}

fn advice(address: &ServerAddress, trouble: &ServerTrouble, state: &str, said: &str) -> Advice {
    let role = super::layout::quoted(&address.role);
    if is_about_certificates(trouble, said) {
        return lasting("check sslmode and sslrootcert in the url");
    }
    if let Some(admission) = admission(address, trouble) {
        return lasting(admission);
    }
    match state {
        "28P01" | "28000" => lasting(format!(
            "check the role's password in the config, and what pg_hba.conf says of it: psql '{address}'"
        )),
        "3D000" => lasting("name a database that exists: psql -l shows them".to_owned()),
        "42501" if trouble.source_file() == Some("rls.c") => lasting(format!("ALTER ROLE {role} BYPASSRLS")),
        "42501" if matches!(trouble.source_file(), Some("inv_api.c" | "be-fsstubs.c")) => {
            lasting(format!("GRANT SELECT ON LARGE OBJECT … TO {role}, or let the backup log in as their owner"))
        }
        "42501" => lasting(format!("GRANT pg_read_all_data TO {role}, or GRANT SELECT ON … TO {role}")),
        // As long as it may be waited for it was.
        "55P03" => lasting("another session holds it; try later, or raise max_lock_wait"),
        "57014" => lasting(format!(
            "somebody cancelled it, or a timeout struck that a pooler or proxy sets: look into the server's log, and \
             ALTER ROLE {role} SET statement_timeout = 0"
        )),
        "25P03" | "25P04" | "57P05" => lasting(format!(
            "the server ends transactions that take long: ALTER ROLE {role} SET idle_in_transaction_session_timeout = 0"
        )),
        "53300" => later("lower `connections` in the config, or raise max_connections on the server"),
        "53200" => lasting("raise max_locks_per_transaction on the server"),
        // A transaction that only reads is cancelled there for nothing else.
        "40001" if trouble.source_file() == Some("postgres.c") => later(STANDBY_ADVICE),
        "40001" | "40P01" => later("try again"),
        "08P01" => lasting("if a pooler such as pgbouncer stands between, name the server's own port"),
        "57P01" | "57P02" | "57P03" => later("the server stopped or ended the session; see its log"),
        "42P01" | "42703" | "42704" | "3F000" => {
            later("it was altered between the snapshot and the lock; run the backup again, away from migrations")
        }
        "54000" => {
            lasting("a row does not fit into the server's 1 GB for a row; split it, or leave it out by exclude_data")
        }
        "XX001" | "XX002" => lasting("the server found damage: pg_amcheck says more; restore from an older backup"),
        "22021" | "22P05" => {
            lasting("the name of a table or column is not valid in the database's encoding; rename it")
        }
        _ if state.starts_with("08") => later("the connection was lost; see the server's log"),
        _ => match trouble {
            ServerTrouble::ConnectTimeout => later(format!("is it reachable? pg_isready -d '{address}'")),
            ServerTrouble::Sql(sqlx::Error::Io(_)) => {
                later(format!("is it running, and reachable? pg_isready -d '{address}'"))
            }
            ServerTrouble::Sql(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => lasting(
                "a name in the catalogs is no UTF-8 text, as SQL_ASCII allows: rename it, or leave its table out",
            ),
            ServerTrouble::Sql(_) => Advice { hint: None, transient: false },
        },
    }
}
