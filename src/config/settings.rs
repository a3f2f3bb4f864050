//! What the config says, checked and resolved: what the rest of the program goes by.
//!
//! Sources and vaults are named here, not opened; secrets are places, not values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::{Value, json};

use super::copies::{CopySettings, VaultRole};
use super::daemon::DaemonSettings;
use super::error::ConfigError;
use super::hooks::HookSettings;
use super::notify::{JobNotify, NotifySettings};
use super::place::VaultUrl;
use super::s3::S3Settings;
use super::secret::Secret;
use super::{locate, resolve};
use crate::domain::check::UserCheck;
use crate::domain::databases::{is_of, source_of};
use crate::domain::ids::{JobName, SourceName};
use crate::domain::quantity::exact_duration;
use crate::domain::retention::{Hold, Retention};
use crate::domain::schedule::Schedule;
use crate::domain::server::ServerAddress;

/// How long a check may take, if the config does not say.
pub const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// zstd's level for files, if the config does not say.
const FILE_COMPRESSION_LEVEL: i32 = 3;
/// zstd's level for databases, if the config does not say: most rows become no smaller at level 3, which takes a third longer
/// (docs/decisions/0024-level-2-for-rows.md).
const DATABASE_COMPRESSION_LEVEL: i32 = 2;
/// Where drills restore to: a folder that another uid can reach, as the state folder must not be.
pub const DEFAULT_SCRATCH: &str = "/var/tmp/lifeboat-scratch";
/// How many connections read a PostgreSQL database, if the config does not say.
pub const DEFAULT_CONNECTIONS: u32 = 4;
/// How long a backup may keep others waiting for a table, if the config does not say.
pub const DEFAULT_MAX_LOCK_WAIT: Duration = Duration::from_secs(30);
/// How long a snapshot may be held, if the config does not say.
pub const DEFAULT_MAX_SNAPSHOT: Duration = Duration::from_secs(12 * 60 * 60);
/// The state folder, if the config does not say.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/lifeboat";

/// A config that makes sense.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that it was read from; absolute.
    pub file: PathBuf,
    /// The wall clock of all schedules.
    pub timezone: Tz,
    /// The host's own folder; absolute.
    pub state_dir: PathBuf,
    /// By name.
    pub vaults: BTreeMap<String, VaultSettings>,
    /// By name.
    pub jobs: BTreeMap<JobName, JobSettings>,
    /// How the daemon goes about it.
    pub daemon: DaemonSettings,
    /// Who is told what.
    pub notify: NotifySettings,
}

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSettings {
    /// Its name in the config.
    pub name: String,
    /// Where it lies.
    pub url: VaultUrl,
    /// age's public keys (`age1…`), at least one, in the config's order.
    pub recipients: Vec<String>,
    /// The minisign public key (`RWQ…`) that signs vault.json.
    pub trust: Option<String>,
    /// zstd's level, 1 to 19, where the config says it; [`VaultSettings::compression_level_of`] knows always.
    pub compression_level: Option<i32>,
    /// How long an object waits before it is erased, where the config says it; [`Settings::grace_of`] knows always.
    pub grace: Option<Duration>,
    /// How its bucket is reached; of no use where it is a folder.
    pub s3: S3Settings,
    /// What it is for.
    pub role: VaultRole,
}

/// A job.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Its name.
    pub name: JobName,
    /// The name of its vault; one of [`Settings::vaults`].
    pub vault: String,
    /// When a backup is due.
    pub schedule: Schedule,
    /// How long backups are kept.
    pub retention: Retention,
    /// When they are erased.
    pub prune: PruneWhen,
    /// When the vault is checked, if that has a schedule.
    pub check: Option<Schedule>,
    /// The second vault that they are copied to.
    pub copy: Option<CopySettings>,
    /// How long what is stored is held against deletion, where the store holds it. What it follows from depends on the
    /// schedule and the moment: [`Settings::holding`] fills it in for a run.
    pub hold: Option<Hold>,
    /// What was promised.
    pub objectives: Objectives,
    /// At least one, in the config's order.
    pub sources: Vec<SourceSettings>,
    /// What runs around its backups.
    pub hooks: HookSettings,
    /// Its own heartbeats.
    pub notify: JobNotify,
    /// The rehearsed restore.
    pub drill: Option<DrillSettings>,
}

/// When expired backups are erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneWhen {
    /// After each successful backup.
    AfterBackup,
    /// On a schedule of its own.
    Scheduled(Schedule),
}

/// What was promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// How long a restore may take.
    pub rto: Option<Duration>,
    /// How much recent data may be lost.
    pub rpo: Option<Duration>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// Its name within the job.
    pub name: SourceName,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// Files and folders.
    Files(FilesSettings),
    /// A SQLite database.
    Sqlite(SqliteSettings),
    /// A PostgreSQL database.
    Postgres(Box<PostgresSettings>),
}

impl SourceSettings {
    /// Whether a source of a backup is this one, or one of the databases that this one means.
    #[must_use]
    pub fn stands_for(&self, name: &SourceName) -> bool {
        match self.databases() {
            Databases::OfUrl => self.name == *name,
            Databases::These(databases) => databases.iter().any(|database| source_of(&self.name, database) == *name),
            Databases::All { .. } => is_of(&self.name, name),
        }
    }

    /// Which databases it means; of other sources, the one that they are.
    #[must_use]
    pub fn databases(&self) -> &Databases {
        match &self.kind {
            SourceKind::Postgres(postgres) => &postgres.databases,
            SourceKind::Files(_) | SourceKind::Sqlite(_) => &Databases::OfUrl,
        }
    }
}

impl SourceKind {
    /// As it stands in configs and manifests.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Whether it can be asked with SQL.
    #[must_use]
    pub fn is_database(&self) -> bool {
        match self {
            Self::Files(_) => false,
            Self::Sqlite(_) | Self::Postgres(_) => true,
        }
    }
}

/// A source of kind `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSettings {
    /// Absolute, none within another; at least one.
    pub paths: Vec<PathBuf>,
    /// gitignore globs that could be read.
    pub exclude: Vec<String>,
    /// Whether to stay on the file systems that the paths lie on.
    pub one_file_system: bool,
    /// Whether to leave out what a CACHEDIR.TAG marks.
    pub exclude_caches: bool,
}

/// A source of kind `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The database.
    pub address: ServerAddress,
    /// Which databases of that server are meant.
    pub databases: Databases,
    /// Where the role's password lies.
    pub password: Option<Secret>,
    /// Patterns of `schema.table`; empty is all.
    pub include_tables: Vec<String>,
    /// Patterns of tables to leave out.
    pub exclude_tables: Vec<String>,
    /// Patterns of tables whose rows to leave out.
    pub exclude_data: Vec<String>,
    /// The folder of the server's tools, if not one of the usual ones.
    pub tools: Option<PathBuf>,
    /// How many connections read at a time.
    pub connections: u32,
    /// How long others may be kept waiting for a table.
    pub max_lock_wait: Duration,
    /// How long the snapshot may be held.
    pub max_snapshot: Duration,
}

/// Which databases of a server a source means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Databases {
    /// The one that the url names.
    #[default]
    OfUrl,
    /// These, each a source of its own; at least one.
    These(Vec<String>),
    /// All that the server has when it is asked, each a source of its own, but for these.
    All {
        /// Left out.
        except: Vec<String>,
    },
}

/// A source of kind `sqlite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The database file; absolute.
    pub path: PathBuf,
}

/// A rehearsed restore.
#[derive(Debug, Clone)]
pub struct DrillSettings {
    /// When one is due.
    pub schedule: Option<Schedule>,
    /// What opens the backups.
    pub identity: Option<Secret>,
    /// Whether checks may run with our own rights.
    pub trust_source: bool,
    /// Where to restore to; absolute.
    pub scratch: PathBuf,
    /// The scratch server of databases that need one.
    pub server: ScratchServer,
    /// The user's own checks.
    pub checks: Vec<UserCheck>,
    /// How long one of them may take.
    pub check_timeout: Duration,
}

/// The server of a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScratchServer {
    /// Where it comes from.
    pub ground: ServerGround,
    /// How it is set up; one that is there has settings of its own.
    pub settings: ServerSettings,
    /// The folder of its programs, if not one of the usual ones.
    pub tools: Option<PathBuf>,
}

/// Where the server of a drill comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServerGround {
    /// This machine's own programs make it, for this drill.
    #[default]
    Programs,
    /// A container's image makes it, for this drill.
    Container(ContainerSettings),
    /// It is there: the drill makes a database on it, and drops it.
    Existing(Box<ExistingServer>),
}

/// A container for a scratch server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// An image that this machine has: `postgres:15`.
    pub image: String,
    /// docker or podman, by name or path, if not the first that is found.
    pub program: Option<String>,
}

/// A server that is there, for a drill's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingServer {
    /// A database that can be logged in to, and the role that makes others.
    pub address: ServerAddress,
    /// Where the role's password lies.
    pub password: Option<Secret>,
    /// What the role may be: what is restored runs as it.
    pub role: DrillRole,
}

/// What a drill's role on a server that is there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DrillRole {
    /// One that reaches nothing beyond its own databases.
    #[default]
    Ordinary,
    /// `allow_superuser = true`: any.
    Any,
}

/// How a scratch server is set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerSettings {
    /// For speed: a crash may cost the copy.
    #[default]
    Drill,
    /// With the durability of a server that is lived on.
    Production,
}

impl ServerSettings {
    pub(super) const ALL: [Self; 2] = [Self::Drill, Self::Production];

    /// As it stands in a config.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::Production => "production",
        }
    }
}

impl Settings {
    /// Finds, reads and checks the config. `explicit` is `--config`.
    ///
    /// # Errors
    /// [`ConfigError`], with every mistake that was found.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let file = locate::locate(explicit)?;
        Self::parse(&locate::read(&file)?, &file)
    }

    /// Checks a config's text. Relative paths in it are relative to the folder of `file`, which need not exist.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with every mistake that was found.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        resolve::parse(text, file)
    }

    /// The vault of a job.
    #[must_use]
    pub fn vault_of(&self, job: &JobSettings) -> Option<&VaultSettings> {
        self.vaults.get(&job.vault)
    }

    /// What a job's backup keeps of the config, sealed, so that a bare host knows what was backed up and how: the job
    /// and its vault. Of secrets it says where they lie. `null` if there is no such job.
    #[must_use]
    pub fn without_secrets(&self, job: &JobName) -> Value {
        let Some(job) = self.jobs.get(job) else { return Value::Null };
        json!({
            "timezone": self.timezone.name(),
            "state_dir": self.state_dir.to_string_lossy(),
            "vault": self.vault_of(job).map(VaultSettings::to_json),
            "job": job.to_json(),
        })
    }
}

impl VaultSettings {
    /// zstd's level for what a source of this kind gives.
    #[must_use]
    pub fn compression_level_of(&self, kind: &SourceKind) -> i32 {
        self.compression_level.unwrap_or(match kind {
            SourceKind::Files(_) => FILE_COMPRESSION_LEVEL,
            SourceKind::Sqlite(_) | SourceKind::Postgres(_) => DATABASE_COMPRESSION_LEVEL,
        })
    }

    fn to_json(&self) -> Value {
        let mut json = json!({
            "name": self.name,
            "url": self.url.to_string(),
            "recipients": self.recipients,
            "trust": self.trust,
            "compression": self.compression_level,
            "grace": self.grace.map(exact_duration),
        });
        if let VaultUrl::S3 { .. } = self.url {
            json["s3"] = self.s3.to_json();
        }
        json
    }
}

impl JobSettings {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "schedule": self.schedule.to_string(),
            "retention": {
                "keep_at_least": exact_duration(self.retention.keep_at_least),
                "delete_after": exact_duration(self.retention.delete_after),
                "daily": self.retention.daily,
                "weekly": self.retention.weekly,
                "last_good": self.retention.last_good.word(),
            },
            "prune": { "schedule": self.prune.schedule().map(ToString::to_string) },
            "check": { "schedule": self.check.as_ref().map(ToString::to_string) },
            "copy": self.copy.as_ref().map(CopySettings::to_json),
            "objectives": {
                "rto": self.objectives.rto.map(exact_duration),
                "rpo": self.objectives.rpo.map(exact_duration),
            },
            "sources": self.sources.iter().map(SourceSettings::to_json).collect::<Vec<_>>(),
            "hooks": self.hooks.to_json(),
            "drill": self.drill.as_ref().map(DrillSettings::to_json),
        })
    }
}

impl PruneWhen {
    /// The schedule of its own, if it has one.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        match self {
            Self::AfterBackup => None,
            Self::Scheduled(schedule) => Some(schedule),
        }
    }
}

impl SourceSettings {
    fn to_json(&self) -> Value {
        match &self.kind {
            SourceKind::Files(files) => json!({
                "name": self.name,
                "kind": self.kind.name(),
                "paths": files.paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
                "exclude": files.exclude,
                "one_file_system": files.one_file_system,
                "exclude_caches": files.exclude_caches,
            }),
            SourceKind::Sqlite(sqlite) => json!({
                "name": self.name,
                "kind": self.kind.name(),
                "path": sqlite.path.to_string_lossy(),
            }),
            SourceKind::Postgres(postgres) => json!({
                "name": self.name,
                "kind": self.kind.name(),
                "url": postgres.address.to_string(),
                "databases": match &postgres.databases {
                    Databases::OfUrl => Value::Null,
                    Databases::These(names) => json!(names),
                    Databases::All { .. } => json!("all"),
                },
                "exclude_databases": match &postgres.databases {
                    Databases::All { except } => json!(except),
                    Databases::OfUrl | Databases::These(_) => json!([]),
                },
                "password": postgres.password.as_ref().map(secret_json),
                "include_tables": postgres.include_tables,
                "exclude_tables": postgres.exclude_tables,
                "exclude_data": postgres.exclude_data,
                "tools": postgres.tools.as_ref().map(|folder| folder.to_string_lossy()),
                "connections": postgres.connections,
                "max_lock_wait": exact_duration(postgres.max_lock_wait),
                "max_snapshot": exact_duration(postgres.max_snapshot),
            }),
        }
    }
}

impl DrillSettings {
    /// What holds for a job whose config has no drill: a restore compared with the contents, and no further checks.
    #[must_use]
    pub fn without_checks() -> Self {
        Self {
            schedule: None,
            identity: None,
            trust_source: false,
            scratch: PathBuf::from(DEFAULT_SCRATCH),
            server: ScratchServer::default(),
            checks: Vec::new(),
            check_timeout: DEFAULT_CHECK_TIMEOUT,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "schedule": self.schedule.as_ref().map(ToString::to_string),
            "identity": self.identity.as_ref().map(secret_json),
            "trust_source": self.trust_source,
            "scratch": self.scratch.to_string_lossy(),
            "server": self.server.to_json(),
            "container": match &self.server.ground {
                ServerGround::Container(container) => json!({ "image": container.image, "program": container.program }),
                ServerGround::Programs | ServerGround::Existing(_) => Value::Null,
            },
            "check_timeout": exact_duration(self.check_timeout),
            "checks": self.checks.iter().map(check_json).collect::<Vec<_>>(),
        })
    }
}

impl ScratchServer {
    fn to_json(&self) -> Value {
        let tools = self.tools.as_ref().map(|folder| folder.to_string_lossy());
        match &self.ground {
            ServerGround::Programs | ServerGround::Container(_) => {
                json!({ "settings": self.settings.word(), "tools": tools })
            }
            ServerGround::Existing(existing) => json!({
                "url": existing.address.to_string(),
                "password": existing.password.as_ref().map(secret_json),
                "allow_superuser": existing.role == DrillRole::Any,
                "tools": tools,
            }),
        }
    }
}

/// Where a secret lies, as it can be read again.
pub(super) fn secret_json(secret: &Secret) -> Value {
    match secret {
        Secret::File(path) => json!({ "file": path.to_string_lossy() }),
        Secret::Env(name) => json!({ "env": name }),
        Secret::Credential(name) => json!({ "credential": name }),
    }
}

/// A check as it can be read again.
fn check_json(check: &UserCheck) -> Value {
    match check {
        UserCheck::Sql { source, sql } => json!({ "source": source, "sql": sql }),
        UserCheck::Freshness { source, sql, within } => {
            json!({ "source": source, "freshness": sql, "within": exact_duration(*within) })
        }
        UserCheck::Command { command } => json!({ "command": command }),
    }
}
