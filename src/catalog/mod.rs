//! The operational memory of a host: backups, runs, drills, and what was removed, found wrong, set aside and swept, in
//! a SQLite file, so that a question about them costs a query and not a walk through the vault.
//!
//! All of it could be had again from the vault's manifests and records, which is what [`Catalog::replace`] is for;
//! only what this host has *seen* (the highest sequence number of each job, the highest serial of each vault.json, the
//! records that it did not believe) is its own and survives a rebuild.
//! Manifests and records are handed in, checked by whoever read them: the catalog knows neither vaults nor
//! signatures. Every write is an upsert by id, so that telling it the same thing twice changes nothing.

use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqlitePool};

use crate::domain::ids::VaultId;
use crate::error::{Code, Diagnostic};

mod read;
mod rows;
mod verdict;
mod write;

pub use rows::{
    BackupRow, CheckRow, CopyRow, DrillRow, PruneRow, QuarantineRow, RecordRow, RefutationRow, RemovalRow, RunRow,
};
pub use verdict::{Verdict, verdict};
pub use write::PassedOver;

static MIGRATIONS: Migrator = sqlx::migrate!("src/catalog/migrations");

/// `LBCT`; the first migration writes it into the file's header.
const APPLICATION_ID: i64 = 0x4c42_4354;
/// How long a statement waits for another process of this host to end its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// One writer at a time is all that SQLite has; the others are for questions asked meanwhile.
const MAX_CONNECTIONS: u32 = 4;
/// How long a question waits for one of these connections.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Processes may bring a new file up to date at the same moment. Whoever loses looks again, and finds one step more done
/// than before; so many times more than there are steps it may lose for another reason.
const SPARE_MIGRATION_ATTEMPTS: usize = 3;

/// An open catalog. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: SqlitePool,
    path: PathBuf,
}

/// Why the catalog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The system does not let us make or open the file.
    #[error("cannot {verb} the catalog {path}")]
    Io {
        /// `create`, `protect`, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It is a SQLite database of another program, or was changed by one.
    #[error("{path} is not a lifeboat catalog")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer lifeboat.
    #[error("the catalog {path} was written by a newer lifeboat (its shape is version {version})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The newest migration in it.
        version: i64,
    },
    /// It cannot be read as what it should be.
    #[error("the catalog {path} is damaged: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process did not let go of it in time.
    #[error("the catalog {path} was held by another process for more than {} s", BUSY_TIMEOUT.as_secs())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A statement failed for another reason.
    #[error("cannot {doing} the catalog {path}")]
    Statement {
        /// `open`, `write to`, `read from`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        cause: Box<sqlx::Error>,
    },
    /// A manifest or record of another vault was handed in for this one.
    #[error("{what} belongs to vault {found}, not to {expected}")]
    OtherVault {
        /// `backup 0123…`, `record 0123…`.
        what: String,
        /// The vault that is being written.
        expected: VaultId,
        /// The one it names.
        found: VaultId,
    },
    /// A number that no honest manifest or record holds.
    #[error("{what} says {number}, which is more than can be")]
    TooLarge {
        /// Whose number.
        what: &'static str,
        /// The number.
        number: u64,
    },
}

impl CatalogError {
    /// Whether it lies with the manifest or record that was handed in: the catalog itself is well.
    #[must_use]
    pub fn is_about_what_was_told(&self) -> bool {
        matches!(self, Self::OtherVault { .. } | Self::TooLarge { .. })
    }
}

impl Diagnostic for CatalogError {
    fn code(&self) -> Code {
        Code::CatalogFailed
    }

    fn hint(&self) -> Option<String> {
        let away = |path: &Path| {
            let path = path.display();
            format!("`mv {path} {path}.old`, remove {path}-wal and {path}-shm, and run `lifeboat catalog rebuild`")
        };
        match self {
            Self::Foreign { path } => {
                Some(format!("if no other program needs it: {}; else set another state_dir", away(path)))
            }
            Self::Newer { path, .. } => Some(format!("run the newer lifeboat, or {}", away(path))),
            Self::Corrupt { path, .. } => Some(away(path)),
            Self::Busy { path } => Some(format!("try again; `fuser {}` names the process", path.display())),
            Self::Io { path, .. } | Self::Statement { path, .. } => {
                let folder = path.parent().unwrap_or(path).display();
                Some(format!("look at `ls -ld {folder}` and `df {folder}`"))
            }
            Self::OtherVault { .. } | Self::TooLarge { .. } => Some("run `lifeboat check`".to_owned()),
        }
    }
}

impl Catalog {
    /// Opens the catalog, makes the file (0600) if there is none, and brings its shape up to date.
    ///
    /// # Errors
    /// [`CatalogError::Foreign`], [`CatalogError::Newer`] and [`CatalogError::Corrupt`] leave the file as it was.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        make_file(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        look_before_writing(&options, path).await?;
        protect(path)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full))
            .await
            .map_err(|cause| failed("open", path, cause))?;
        migrate(&pool, path).await?;
        Ok(Self { pool, path: path.to_owned() })
    }

    /// Ends all connections; SQLite then folds its write-ahead log into the file.
    pub async fn close(self) {
        self.pool.close().await;
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
        let path = self.path.clone();
        move |cause| failed(doing, &path, cause)
    }
}

/// SQLite gives its companion files the mode of the database, so an empty one of the right mode is made first.
fn make_file(path: &Path) -> Result<(), CatalogError> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(CatalogError::Io { verb: "create", path: path.to_owned(), cause }),
    }
}

fn protect(path: &Path) -> Result<(), CatalogError> {
    let io = |cause| CatalogError::Io { verb: "protect", path: path.to_owned(), cause };
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)
}

/// Switching to a write-ahead log already changes a file, so whose it is and whether it is sound is asked before, on
/// a connection that changes nothing. The catalog is small: reading it all costs milliseconds.
async fn look_before_writing(options: &SqliteConnectOptions, path: &Path) -> Result<(), CatalogError> {
    let open = |cause| failed("open", path, cause);
    let mut connection = SqliteConnection::connect_with(options).await.map_err(open)?;
    let id: i64 = sqlx::query_scalar("pragma application_id").fetch_one(&mut connection).await.map_err(open)?;
    let tables: i64 = sqlx::query_scalar(
        r"select count(*) from sqlite_schema where name not like 'sqlite\_%' escape '\'
            and tbl_name <> '_sqlx_migrations'",
    )
    .fetch_one(&mut connection)
    .await
    .map_err(open)?;
    if id != APPLICATION_ID && (id != 0 || tables > 0) {
        return Err(CatalogError::Foreign { path: path.to_owned() });
    }
    let sound = sqlx::query("pragma quick_check(1)").fetch_one(&mut connection).await.map_err(open)?;
    let verdict: String = sound.try_get(0).map_err(open)?;
    if verdict != "ok" {
        return Err(CatalogError::Corrupt { path: path.to_owned(), what: verdict });
    }
    connection.close().await.map_err(open)
}

async fn migrate(pool: &SqlitePool, path: &Path) -> Result<(), CatalogError> {
    let attempts = MIGRATIONS.iter().count() + SPARE_MIGRATION_ATTEMPTS;
    let mut attempt = 1;
    loop {
        match MIGRATIONS.run(pool).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _)) => {
                return Err(CatalogError::Newer { path: path.to_owned(), version });
            }
            Err(MigrateError::VersionMismatch(_)) => return Err(CatalogError::Foreign { path: path.to_owned() }),
            Err(MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) => {
                if attempt == attempts {
                    return Err(failed("open", path, cause));
                }
            }
            Err(other) => {
                return Err(CatalogError::Corrupt { path: path.to_owned(), what: other.to_string() });
            }
        }
        attempt += 1;
    }
}

/// Sorts what SQLite said into facts.
fn failed(doing: &'static str, path: &Path, cause: sqlx::Error) -> CatalogError {
    const SQLITE_BUSY: i32 = 5;
    const SQLITE_CORRUPT: i32 = 11;
    const SQLITE_NOTADB: i32 = 26;
    let path = path.to_owned();
    let primary = cause
        .as_database_error()
        .and_then(DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok())
        .map(|code| code & 0xff);
    match (primary, &cause) {
        (Some(SQLITE_BUSY), _) => CatalogError::Busy { path },
        (Some(SQLITE_CORRUPT | SQLITE_NOTADB), _)
        | (_, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_)) => {
            CatalogError::Corrupt { path, what: cause.to_string() }
        }
        _ => CatalogError::Statement { doing, path, cause: Box::new(cause) },
    }
}

#[cfg(test)]
mod tests;
