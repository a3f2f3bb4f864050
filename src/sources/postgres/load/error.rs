//! Why a backup cannot be put into a server.

use crate::error::{Code, Diagnostic};
use crate::process::ToolError;
use crate::sources::postgres::connect::ServerTrouble;
use crate::sources::postgres::trouble::is_about_certificates;

/// What stands in the way, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server would not.
    #[error("{server}: {doing}: {what}")]
    Server {
        /// Its address.
        server: String,
        /// `loading table public.users`, ...
        doing: String,
        /// What it said.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The database has something in it.
    #[error("{server} is not empty: it has {found}")]
    NotEmpty {
        /// The database's address.
        server: String,
        /// One of the things, for a look.
        found: String,
    },
    /// A table that rows are to be put into has some.
    #[error("{server}: table {table} has rows already")]
    TableNotEmpty {
        /// The database's address.
        server: String,
        /// `schema.table`.
        table: String,
    },
    /// The existing database would not hold the same text.
    #[error("{server} has the encoding {found}, and the backup is in {wanted}")]
    Encoding {
        /// The database's address.
        server: String,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// The server is older than the source.
    #[error("{server} is PostgreSQL {found}, and the backup is of {source_major}: an older server cannot take it")]
    OlderServer {
        /// Its address.
        server: String,
        /// Its major version.
        found: u32,
        /// The source's.
        source_major: u32,
    },
    /// The tools speak of settings that the server does not know.
    #[error("{folder} has pg_restore {found}, which cannot load into {server}, PostgreSQL {server_major}")]
    NewerTools {
        /// The tools' folder.
        folder: String,
        /// Their major version.
        found: u32,
        /// The server's address.
        server: String,
        /// Its major version.
        server_major: u32,
    },
    /// Roles that own something, or may do something, are not there.
    #[error("{server} does not have these roles: {}", missing.join(", "))]
    MissingRoles {
        /// Its address.
        server: String,
        /// Their names.
        missing: Vec<String>,
    },
    /// Extensions that the database uses are not installed on the server's machine.
    #[error("{server} does not have these extensions: {}", missing.join(", "))]
    MissingExtensions {
        /// Its address.
        server: String,
        /// Their names.
        missing: Vec<String>,
    },
    /// A tool failed in a way that is not the server's.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file in the private folder.
    #[error("cannot {verb} {path}")]
    Private {
        /// `write`, `read`.
        verb: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A member is not what a source of ours writes.
    #[error("member {member} {what}")]
    Unsafe {
        /// Its path.
        member: String,
        /// `is not the list of tables`, ...
        what: String,
    },
    /// Something that the backup must have is not there.
    #[error("the backup has no {what}")]
    Lacks {
        /// `schema.dump`, `table public.users`.
        what: String,
    },
    /// Whoever called asked to end.
    #[error("interrupted; the database is not complete")]
    Stopped,
}

impl LoadError {
    /// What a server said, about what was being done.
    pub(super) fn server(server: &str, doing: impl Into<String>, trouble: ServerTrouble) -> Self {
        let hint = match trouble.state().as_deref() {
            _ if is_about_certificates(&trouble, &said(&trouble)) => {
                Some("check sslmode and sslrootcert in the url".to_owned())
            }
            Some("28P01" | "28000") => Some("check the role and its password: --password-file FILE".to_owned()),
            Some("3D000") => Some("name a database that is there, or one that may be made".to_owned()),
            Some("42501") => Some(
                "log in as a superuser; or add --no-owner: everything will belong to the role that restores".to_owned(),
            ),
            Some("53100") => Some("make room on the server's disk, then restore again with --overwrite".to_owned()),
            Some("55006" | "55P03") => Some("end the sessions that use it, then try again".to_owned()),
            Some("57P01" | "57P02" | "57P03" | "53200") => {
                Some("see in the server's log why; what was begun is restored anew with --overwrite".to_owned())
            }
            Some("53300") => Some("fewer --jobs, or raise max_connections on the server".to_owned()),
            None => Some(
                "see that the server runs and can be reached; what was begun is restored anew with --overwrite"
                    .to_owned(),
            ),
            Some(_) => None,
        };
        Self::Server { server: server.to_owned(), doing: doing.into(), what: said(&trouble), hint }
    }

    /// Why `CREATE DATABASE` was refused: often it is a locale that the server's machine lacks.
    pub(super) fn database_not_made(server: &str, doing: String, trouble: ServerTrouble) -> Self {
        let yourself = "make the database with a locale that is there (CREATE DATABASE … TEMPLATE template0 ENCODING … \
                        LOCALE …), and restore into that";
        // By the file of the server's source: the SQLSTATEs are those of any wrong option.
        let about_locale = match (trouble.source_file(), trouble.state().as_deref()) {
            (Some("dbcommands.c"), Some("0A000")) => {
                Some(format!("take a server that is built with ICU; or {yourself}"))
            }
            (Some("dbcommands.c"), Some("42809" | "22023")) => Some(format!(
                "on the server's machine: apt-get install locales-all, then restart the server; or {yourself}"
            )),
            (Some(file), _) if file.starts_with("pg_locale") => Some(yourself.to_owned()),
            _ => None,
        };
        match (Self::server(server, doing, trouble), about_locale) {
            (Self::Server { server, doing, what, .. }, hint @ Some(_)) => Self::Server { server, doing, what, hint },
            (other, _) => other,
        }
    }

    /// A member that is wrong.
    pub(super) fn unsafe_member(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsafe { member: member.into(), what: what.into() }
    }
}

/// A server's message and the place that it names. The data that stands behind the place is left out: it is somebody's.
pub(in crate::sources::postgres) fn said(trouble: &ServerTrouble) -> String {
    let ServerTrouble::Sql(sqlx::Error::Database(error)) = trouble else {
        return crate::error::chain(trouble);
    };
    let place = error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(|error| error.r#where())
        .and_then(|context| context.lines().next())
        .filter(|context| context.starts_with("COPY "))
        .and_then(|context| context.split_once(", line "))
        .map(|(_, line)| line.split(['"', '\'']).next().unwrap_or(line).trim_end_matches([':', ' ']).to_owned());
    match place {
        Some(place) => format!("{} (line {place})", error.message()),
        None => error.message().to_owned(),
    }
}

impl Diagnostic for LoadError {
    fn code(&self) -> Code {
        match self {
            Self::NotEmpty { .. } | Self::TableNotEmpty { .. } => Code::TargetNotEmpty,
            Self::Tool(_) | Self::NewerTools { .. } => Code::ToolFailed,
            Self::Unsafe { .. } => Code::DataUnsafe,
            Self::Lacks { .. } => Code::NotFound,
            Self::Stopped => Code::Interrupted,
            _ => Code::RestoreFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Server { hint, .. } => return hint.clone(),
            Self::Tool(error) => return error.hint(),
            Self::NotEmpty { .. } => {
                "name a database that is new or empty, or add --overwrite to drop this one and make it anew".to_owned()
            }
            Self::TableNotEmpty { table, .. } => {
                format!("add --overwrite to empty {table} first, or restore into another database")
            }
            Self::Encoding { wanted, .. } => {
                format!("drop it, so that it is made with encoding {wanted}, or name another database")
            }
            Self::OlderServer { source_major, .. } => format!("restore into PostgreSQL {source_major} or newer"),
            Self::NewerTools { server_major, .. } => format!("apt-get install postgresql-client-{server_major}"),
            Self::MissingRoles { .. } => {
                "add --globals to make them, or --no-owner to leave owners and rights out".to_owned()
            }
            Self::MissingExtensions { .. } => "install their packages on the server's machine".to_owned(),
            Self::Stopped => "restore again, with --overwrite".to_owned(),
            Self::Private { .. } | Self::Unsafe { .. } | Self::Lacks { .. } => return None,
        })
    }
}
