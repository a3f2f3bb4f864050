//! Where a PostgreSQL database is: what stands in a config as `postgres://role@host/database`. Never a password.

use std::fmt;
use std::path::{Path, PathBuf};

/// PostgreSQL's own port.
const DEFAULT_PORT: u16 = 5432;
/// What the name of every database begins with that a drill makes on a server that is there. No source may have one: it
/// could be taken for a leftover, and dropped.
pub const DRILL_DATABASE_PREFIX: &str = "lifeboat_drill_";

/// A database on a server, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where it listens.
    pub host: ServerHost,
    /// The port; of a socket folder, the number in the socket's name.
    pub port: u16,
    /// The role that logs in.
    pub role: String,
    /// The database.
    pub database: String,
    /// Whether and how the connection is encrypted.
    pub tls: TlsMode,
    /// The certificates to trust, as a file of PEM; without it the system's.
    pub root_certificate: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHost {
    /// A host name or an address; one of IPv6 without its brackets.
    Name(String),
    /// A folder with a socket in it.
    Socket(PathBuf),
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only where the server insists.
    Allow,
    /// Where the server can.
    #[default]
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, with a certificate that is trusted.
    VerifyCa,
    /// Always, with a trusted certificate for this very name.
    VerifyFull,
}

impl TlsMode {
    const ALL: [Self; 6] = [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// libpq's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// Why a text is not the address of a database. Shows nothing of the text that could be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerAddressError {
    /// Not a URL of this kind.
    #[error("this is no address of a database: write \"postgres://role@host/database\"")]
    Shape,
    /// A secret where everybody can read it.
    #[error("a password stands in the url: take it out, and write `password = {{ file = \"…\" }}`")]
    Password,
    /// No role.
    #[error("the url does not say which role logs in: write \"postgres://role@host/database\"")]
    Role,
    /// No database.
    #[error("the url does not name a database: write \"postgres://role@host/database\"")]
    Database,
    /// No host.
    #[error(
        "the url names no host: write \"postgres://role@host/database\", or \"postgres://role@/database?host=/run/postgresql\""
    )]
    Host,
    /// A parameter that is not known here.
    #[error("the url's parameter {name:?} is not known; known are sslmode, sslrootcert and host")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// No such mode.
    #[error("sslmode is one of disable, allow, prefer, require, verify-ca and verify-full")]
    TlsMode,
}

impl ServerAddress {
    /// Reads `postgres://role@host:port/database?sslmode=verify-full`; `postgresql://` is the same. A socket's folder
    /// is given as `host`, as a parameter or percent-encoded.
    ///
    /// # Errors
    /// [`ServerAddressError`].
    pub fn parse(text: &str) -> Result<Self, ServerAddressError> {
        // A URL that has a user must have a host, and a socket's folder is none: any stands in.
        let without_host = host_is_missing(text);
        let whole = without_host.map(|at| format!("{}localhost{}", &text[..at], &text[at..]));
        let url = url::Url::parse(whole.as_deref().unwrap_or(text)).map_err(|_| ServerAddressError::Shape)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") || url.fragment().is_some() {
            return Err(ServerAddressError::Shape);
        }
        if url.password().is_some() {
            return Err(ServerAddressError::Password);
        }
        let role = decoded(url.username())?;
        if role.is_empty() {
            return Err(ServerAddressError::Role);
        }
        let database = decoded(url.path().trim_start_matches('/'))?;
        if database.is_empty() {
            return Err(ServerAddressError::Database);
        }
        let mut host = match without_host {
            Some(_) => String::new(),
            None => url.host_str().map(decoded).transpose()?.unwrap_or_default(),
        };
        let mut tls = TlsMode::default();
        let mut root_certificate = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => tls = TlsMode::parse(&value).ok_or(ServerAddressError::TlsMode)?,
                "sslrootcert" => root_certificate = Some(PathBuf::from(&*value)),
                "host" => host = value.into_owned(),
                "password" => return Err(ServerAddressError::Password),
                _ => return Err(ServerAddressError::Parameter { name: name.into_owned() }),
            }
        }
        let host = match host {
            host if host.is_empty() => return Err(ServerAddressError::Host),
            host if host.starts_with('/') => ServerHost::Socket(host.into()),
            host => ServerHost::Name(without_brackets(host)),
        };
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT), role, database, tls, root_certificate })
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// Whether both say the same server, as far as the words tell.
    #[must_use]
    pub fn same_server(&self, other: &Self) -> bool {
        let same_host = match (&self.host, &other.host) {
            (ServerHost::Name(one), ServerHost::Name(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        };
        same_host && self.port == other.port
    }

    /// Whether the database has a name as drills give them.
    #[must_use]
    pub fn is_a_drills(&self) -> bool {
        self.database.starts_with(DRILL_DATABASE_PREFIX)
    }
}

/// An address of IPv6 has brackets in a URL, and nowhere else: no resolver and none of libpq's programs takes them.
fn without_brackets(host: String) -> String {
    match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.to_owned(),
        None => host,
    }
}

/// Whether a host can stand behind the user: an address with a zone (`fe80::1%eth0`) is a parameter.
fn stands_in_url(host: &str) -> bool {
    !host.contains(['%', '/', '?', '#', '@', ' '])
}

/// Where a host would stand, if there is none behind the user: at the end of `postgres://role@`.
fn host_is_missing(text: &str) -> Option<usize> {
    let start = text.find("://")? + 3;
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |length| start + length);
    text[start..end].ends_with('@').then_some(end)
}

fn decoded(text: &str) -> Result<String, ServerAddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = digit(*high).zip(digit(*low)).ok_or(ServerAddressError::Shape)?;
                bytes.push(high << 4 | low);
                rest = after;
            }
            (b'%', _) => return Err(ServerAddressError::Shape),
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| ServerAddressError::Shape)
}

/// Encodes what may not stand in a URL's role or database.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn encoded_path(path: &Path) -> String {
    encoded(&path.to_string_lossy()).replace("%2F", "/")
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, database) = (encoded(&self.role), encoded(&self.database));
        let mut parameters = Vec::new();
        write!(f, "postgres://{role}@")?;
        match &self.host {
            ServerHost::Name(name) if stands_in_url(name) => {
                if name.contains(':') {
                    write!(f, "[{name}]")?;
                } else {
                    f.write_str(name)?;
                }
                if self.port != DEFAULT_PORT {
                    write!(f, ":{}", self.port)?;
                }
            }
            elsewhere => {
                parameters.push(match elsewhere {
                    ServerHost::Name(name) => format!("host={}", encoded(name)),
                    ServerHost::Socket(folder) => format!("host={}", encoded_path(folder)),
                });
                // A URL without a host has no port: `localhost` stands in.
                if self.port != DEFAULT_PORT {
                    write!(f, "localhost:{}", self.port)?;
                }
            }
        }
        write!(f, "/{database}")?;
        if self.tls != TlsMode::default() {
            parameters.push(format!("sslmode={}", self.tls.word()));
        }
        if let Some(file) = &self.root_certificate {
            parameters.push(format!("sslrootcert={}", encoded_path(file)));
        }
        if !parameters.is_empty() {
            write!(f, "?{}", parameters.join("&"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "postgres://backup@db.internal/shop",
            "postgres://backup@db.internal:5433/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://backup@/shop?host=/run/postgresql",
            "postgres://backup@localhost:5499/shop?host=/run/postgresql",
            "postgres://backup@/shop?host=/run/a%20b%2Bc%26d%25&sslmode=require",
            "postgres://o%27neil@[::1]/a%20b%2Fc?sslmode=disable",
        ] {
            let address = ServerAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(ServerAddress::parse(&address.to_string()).unwrap(), address);
        }
        let address = ServerAddress::parse("postgresql://backup@%2Frun%2Fpostgresql/shop").unwrap();
        assert_eq!(address.host, ServerHost::Socket("/run/postgresql".into()));
        assert_eq!(address.port, 5432);
    }

    #[test]
    fn brackets_are_the_url_s_and_not_the_address_s() {
        let read = |text: &str| ServerAddress::parse(text).unwrap();
        let address = read("postgres://backup@[2001:db8::7]:5433/shop");
        assert_eq!((&address.host, address.port), (&ServerHost::Name("2001:db8::7".into()), 5433));
        assert_eq!(address.to_string(), "postgres://backup@[2001:db8::7]:5433/shop");
        for text in ["postgres://backup@/shop?host=::1", "postgres://backup@/shop?host=[::1]"] {
            assert_eq!(read(text).to_string(), "postgres://backup@[::1]/shop");
        }
        let with_zone = read("postgres://backup@localhost:5433/shop?host=fe80::1%25eth0");
        assert_eq!(with_zone.host, ServerHost::Name("fe80::1%eth0".into()));
        assert_eq!(read(&with_zone.to_string()), with_zone);
    }

    #[test]
    fn what_is_wrong_is_said_and_no_secret_shown() {
        let error = |text: &str| ServerAddress::parse(text).unwrap_err();
        assert_eq!(error("postgres://backup:hunter2@db/shop"), ServerAddressError::Password);
        assert_eq!(error("postgres://backup@db/shop?password=hunter2"), ServerAddressError::Password);
        assert_eq!(error("postgres://db/shop"), ServerAddressError::Role);
        assert_eq!(error("postgres://backup@db"), ServerAddressError::Database);
        assert_eq!(error("postgres://backup@/shop"), ServerAddressError::Host);
        assert_eq!(error("postgres://backup@db/shop?sslmode=on"), ServerAddressError::TlsMode);
        assert_eq!(error("mysql://backup@db/shop"), ServerAddressError::Shape);
        assert_eq!(error("/var/lib/shop"), ServerAddressError::Shape);
        for text in ["postgres://backup:hunter2@db/shop", "postgres://backup@db/shop?password=hunter2"] {
            assert!(!error(text).to_string().contains("hunter2"));
        }
    }
}
