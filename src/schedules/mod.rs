//! What is due by itself, as others are told of it: crontab lines, systemd timers and units, made from the config alone.
//!
//! It starts nothing and asks nobody for the time. What a scheduler of the host would do otherwise than this program is
//! said in what is written here, or it is not written.

use chrono::{DateTime, Utc};

use crate::config::{JobSettings, Secret, Settings, SourceKind, VaultUrl};
use crate::domain::operation::{Operation, Task};
use crate::domain::schedule::Schedule;

pub mod crontab;
mod on_calendar;
pub mod units;

pub use on_calendar::on_calendar;

/// Something with a schedule.
#[derive(Debug, Clone)]
pub struct Due<'a> {
    /// What.
    pub task: Task,
    /// When.
    pub schedule: &'a Schedule,
}

/// How the program is called.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its path.
    pub program: String,
    /// When this is said: clock changes are looked for from here on.
    pub now: DateTime<Utc>,
}

/// What of it is this host's to do.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// These operations alone.
    pub operations: Vec<Operation>,
    /// Whether something opens the backups of a drill whose config names no identity.
    pub identity: Identity,
}

/// Whether an identity is at hand besides those that the config names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// A drill is this host's where its config names one.
    InConfig,
    /// Any drill is.
    AtHand,
}

impl Wanted {
    /// Everything that has a schedule, whoever does it.
    #[must_use]
    pub fn everything() -> Self {
        Self { operations: Operation::ALL.to_vec(), identity: Identity::AtHand }
    }

    fn wants(&self, job: &JobSettings, operation: Operation) -> bool {
        let opens =
            || self.identity == Identity::AtHand || job.drill.as_ref().is_some_and(|drill| drill.identity.is_some());
        self.operations.contains(&operation) && (operation != Operation::Drill || opens())
    }
}

/// What of these jobs has a schedule and is this host's to do, in the order of jobs and operations.
#[must_use]
pub fn due<'a>(jobs: impl IntoIterator<Item = &'a JobSettings>, wanted: &Wanted) -> Vec<Due<'a>> {
    let mut due = Vec::new();
    for job in jobs {
        for (operation, schedule) in job.schedules() {
            if wanted.wants(job, operation) {
                due.push(Due { task: Task { job: job.name.clone(), operation }, schedule });
            }
        }
    }
    due
}

/// Jobs whose drill has a schedule and is left to another host, because nothing here opens their backups.
#[must_use]
pub fn drills_elsewhere<'a>(jobs: impl IntoIterator<Item = &'a JobSettings>, wanted: &Wanted) -> Vec<&'a JobSettings> {
    let has_drill = |job: &JobSettings| job.drill.as_ref().is_some_and(|drill| drill.schedule.is_some());
    let asked = wanted.operations.contains(&Operation::Drill);
    jobs.into_iter().filter(|job| asked && has_drill(job) && !wanted.wants(job, Operation::Drill)).collect()
}

/// Secrets that an operation of a job reads.
fn secrets(job: &JobSettings, operation: Operation) -> Vec<&Secret> {
    let of_sources = job.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Postgres(postgres) => postgres.password.as_ref(),
        SourceKind::Files(_) | SourceKind::Sqlite(_) => None,
    });
    let of_drill = job.drill.iter().flat_map(|drill| {
        let server = match &drill.server.ground {
            crate::config::ServerGround::Existing(existing) => existing.password.as_ref(),
            _ => None,
        };
        drill.identity.iter().chain(server)
    });
    match operation {
        Operation::Backup => of_sources.collect(),
        Operation::Drill => of_drill.collect(),
        Operation::Copy | Operation::Prune | Operation::Check => Vec::new(),
    }
}

/// Names of secrets that only a systemd service has, or only an environment has: (credentials, variables), each once.
#[must_use]
pub fn handed_in(settings: &Settings, operations: &[Operation]) -> (Vec<String>, Vec<String>) {
    let (mut credentials, mut variables) = (Vec::new(), Vec::new());
    let of_jobs = settings.jobs.values().flat_map(|job| operations.iter().flat_map(move |of| secrets(job, *of)));
    let keys = settings.vaults.values().filter_map(|vault| vault.s3.keys.as_ref());
    let of_vaults = keys.flat_map(|keys| [&keys.access_key, &keys.secret_key].into_iter().chain(&keys.session_token));
    let own = settings.jobs.values().flat_map(|job| job.notify.heartbeat.iter().chain(&job.notify.drill_heartbeat));
    for secret in of_jobs.chain(of_vaults).chain(settings.notify.secrets()).chain(own) {
        let (list, name) = match secret {
            Secret::Credential(name) => (&mut credentials, name),
            Secret::Env(name) => (&mut variables, name),
            Secret::File(_) => continue,
        };
        if !list.contains(name) {
            list.push(name.clone());
        }
    }
    (credentials, variables)
}

/// Folders that operations write to.
fn written(settings: &Settings, operations: &[Operation]) -> Vec<String> {
    let mut folders = vec![settings.state_dir.clone()];
    folders.extend(settings.vaults.values().filter_map(|vault| match &vault.url {
        VaultUrl::Folder(folder) => Some(folder.clone()),
        VaultUrl::S3 { .. } => None,
    }));
    for job in settings.jobs.values() {
        if operations.contains(&Operation::Backup) {
            // A reader of a database in WAL mode writes beside it.
            folders.extend(job.sources.iter().filter_map(|source| match &source.kind {
                SourceKind::Sqlite(sqlite) => sqlite.path.parent().map(std::path::Path::to_owned),
                SourceKind::Files(_) | SourceKind::Postgres(_) => None,
            }));
        }
        if operations.contains(&Operation::Drill) {
            folders.extend(job.drill.iter().map(|drill| drill.scratch.clone()));
        }
    }
    folders.sort();
    folders.dedup();
    let within = |inner: &std::path::PathBuf, all: &[std::path::PathBuf]| {
        all.iter().any(|outer| outer != inner && inner.starts_with(outer))
    };
    folders.iter().filter(|folder| !within(folder, &folders)).map(|folder| folder.display().to_string()).collect()
}
