//! Connections to a server: ours, and what its own tools need for theirs. A password goes into neither argv nor the
//! environment.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection};

use crate::domain::server::{ServerAddress, ServerHost, TlsMode};
use crate::process::Tool;

/// How long a server may take to let us in.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// SQLSTATE of a role, address and kind of connection that pg_hba.conf does not let in.
const REFUSED_BY_RULES: &str = "28000";
/// What the server shows in pg_stat_activity.
const APPLICATION: &str = "lifeboat";

/// Where systems have the certificates that they trust: Debian, Red Hat, SUSE, Alpine and macOS.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What went wrong with a server, before it is said about what.
#[derive(Debug, thiserror::Error)]
pub enum ServerTrouble {
    /// The client library's, or the server's own error.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// It did not let us in.
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
}

impl ServerTrouble {
    /// The five characters of SQLSTATE, where the server itself refused.
    #[must_use]
    pub fn state(&self) -> Option<String> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }

    /// The file of the server's source that the refusal is from: it tells causes apart that share a SQLSTATE, in
    /// whatever language the message is.
    #[must_use]
    pub fn source_file(&self) -> Option<&str> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|error| error.file())
            }
            _ => None,
        }
    }
}

/// A server, with what opens it.
#[derive(Clone)]
pub struct Access {
    /// Where, and as whom.
    pub address: ServerAddress,
    /// The role's password, where it has one.
    pub password: Option<SecretString>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

impl Access {
    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { address: self.address.with_database(database), password: self.password.clone() }
    }

    /// Connects. Nothing is set yet but the application's name.
    ///
    /// # Errors
    /// [`ServerTrouble`].
    pub async fn connect(&self) -> Result<PgConnection, ServerTrouble> {
        match self.connect_as(self.address.tls).await {
            // The library leaves it at no encryption; libpq then does what the server insists on.
            Err(trouble)
                if self.address.tls == TlsMode::Allow && trouble.state().as_deref() == Some(REFUSED_BY_RULES) =>
            {
                self.connect_as(TlsMode::Require).await
            }
            connected => connected,
        }
    }

    async fn connect_as(&self, tls: TlsMode) -> Result<PgConnection, ServerTrouble> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.options(tls).connect()).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(ServerTrouble::ConnectTimeout),
        }
    }

    fn options(&self, tls: TlsMode) -> PgConnectOptions {
        let address = &self.address;
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(address.port)
            .username(&address.role)
            .database(&address.database)
            .application_name(APPLICATION)
            .ssl_mode(match tls {
                TlsMode::Disable => PgSslMode::Disable,
                TlsMode::Allow => PgSslMode::Allow,
                TlsMode::Prefer => PgSslMode::Prefer,
                // As libpq has it: who names certificates wants them looked at.
                TlsMode::Require if address.root_certificate.is_some() => PgSslMode::VerifyCa,
                TlsMode::Require => PgSslMode::Require,
                TlsMode::VerifyCa => PgSslMode::VerifyCa,
                TlsMode::VerifyFull => PgSslMode::VerifyFull,
            })
            .disable_statement_logging();
        options = match &address.host {
            ServerHost::Name(name) => options.host(name),
            ServerHost::Socket(folder) => options.socket(folder),
        };
        if let Some(file) = &address.root_certificate {
            options = options.ssl_root_cert(file);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        options
    }

    /// Tells one of the server's own tools where to connect, through variables; the password, where there is one, lies
    /// in a file in `private`, a folder that nobody else can enter.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub fn tell(&self, tool: Tool, private: &Path) -> io::Result<Tool> {
        let address = &self.address;
        let host = match &address.host {
            ServerHost::Name(name) => name.clone().into(),
            ServerHost::Socket(folder) => folder.clone().into_os_string(),
        };
        let mut tool = tool
            .env("PGHOST", host)
            .env("PGPORT", address.port.to_string())
            .env("PGUSER", &address.role)
            .env("PGDATABASE", &address.database)
            .env("PGSSLMODE", address.tls.word())
            .env("PGAPPNAME", APPLICATION)
            .env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT.as_secs().to_string());
        if let Some(file) = &address.root_certificate {
            tool = tool.env("PGSSLROOTCERT", file);
        } else if matches!(address.tls, TlsMode::VerifyCa | TlsMode::VerifyFull)
            && let Some(file) = SYSTEM_CERTIFICATES.iter().find(|file| Path::new(file).is_file())
        {
            // Left to itself it looks into a home, and into no system's.
            tool = tool.env("PGSSLROOTCERT", file);
        }
        if let Some(password) = &self.password {
            tool = tool.env("PGPASSFILE", pass_file(private, password.expose_secret())?);
            tool = tool.secret(password.expose_secret());
        } else {
            // Not the one of whoever runs us.
            tool = tool.env("PGPASSFILE", private.join("no-password"));
        }
        Ok(tool)
    }
}

/// Writes a password file of libpq's that holds for every server: its only reader connects to one.
fn pass_file(private: &Path, password: &str) -> io::Result<PathBuf> {
    let path = private.join("password");
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(format!("*:*:*:*:{escaped}\n").as_bytes()).map(|()| path),
        // Written for another tool of the same run.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
        Err(error) => Err(error),
    }
}
