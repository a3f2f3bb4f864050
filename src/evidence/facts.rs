//! What status and report are made of: what was promised of a job, and what the catalog knows of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::copies::CopyFacts;
use crate::catalog::{
    BackupRow, CheckRow, DrillRow, PruneRow, QuarantineRow, RefutationRow, RemovalRow, RunRow, Verdict, verdict,
};
use crate::domain::ids::{BackupId, JobName, VaultId};
use crate::domain::manifest::Completeness;
use crate::domain::objectives::{Attempt, Objectives, Point, Restore, Standing, json_seconds};
use crate::domain::record::{DrillOutcome, SequenceRange};

/// Everything that is known of a job, gathered by the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct JobFacts {
    /// The job.
    pub job: JobName,
    /// Its vault.
    pub vault: VaultRef,
    /// What the config promises.
    pub promise: Promise,
    /// When the schedule fires next.
    pub next_backup: Option<DateTime<Utc>>,
    /// When the drill's schedule fires next.
    pub next_drill: Option<DateTime<Utc>>,
    /// When the prune's schedule fires next, where it has one of its own.
    pub next_prune: Option<DateTime<Utc>>,
    /// When the check's schedule fires next.
    pub next_check: Option<DateTime<Utc>>,
    /// Whether this host could open its own backups.
    pub identity: OwnIdentity,
    /// What the vault itself says of the backups that the catalog knows.
    pub witness: Witness,
    /// Backups whose manifests lie in the vault and are not believed.
    pub unbelieved: Vec<Unbelieved>,
    /// Backups whose manifests lie in the vault and are not believed, and that somebody set aside.
    pub quarantined: Vec<BackupId>,
    /// Backups in the vault that somebody can open whom vault.json does not approve.
    pub unapproved: Vec<Unapproved>,
    /// Numbers of the job that are missing in the vault, and that no removal and no quarantine explains.
    pub gaps: Vec<SequenceRange>,
    /// The newest backup that this host saw is not in the vault, and nobody removed it.
    pub hidden: Option<Hidden>,
    /// How many believed manifests of the job do not follow the one before them, or share their number with another.
    pub chain_breaks: usize,
    /// When backups should have begun in the report's window, in order, none after its end; status does without.
    pub scheduled_backups: Vec<DateTime<Utc>>,
    /// When drills should have begun in the report's window, in order, none after its end; status does without.
    pub scheduled_drills: Vec<DateTime<Utc>>,
    /// The job's backups, newest last: all that the catalog has, not only those of a window.
    pub backups: Vec<BackupRow>,
    /// The job's runs, newest last.
    pub runs: Vec<RunRow>,
    /// The job's drills, newest last.
    pub drills: Vec<DrillRow>,
    /// What was taken out of the vault, newest last.
    pub removals: Vec<RemovalRow>,
    /// What was found wrong, newest last.
    pub refutations: Vec<RefutationRow>,
    /// What a person decided to go on without, newest last.
    pub quarantines: Vec<QuarantineRow>,
    /// The job's runs of `prune`, newest last.
    pub prunes: Vec<PruneRow>,
    /// The job's runs of `check`, newest last.
    pub checks: Vec<CheckRow>,
    /// The second vault.
    pub copy: Option<CopyFacts>,
}

/// What the vault was found to say, so that nobody is told of backups that are no longer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// It has every backup that the catalog knows, or says what became of it.
    Agrees,
    /// It was read, and these are gone, and nothing says why.
    Lacks(Vec<BackupId>),
    /// It could not be read: why.
    Silent(String),
}

/// A manifest that lies in the vault and is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbelieved {
    /// The backup, as the manifest's place says.
    pub backup: BackupId,
    /// Why.
    pub why: String,
}

/// A backup that is sealed to somebody whom vault.json did not approve when it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unapproved {
    /// Which.
    pub backup: BackupId,
    /// To whom.
    pub recipients: Vec<String>,
}

/// What is known of a vault besides its jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaultFacts {
    /// Its name in the config.
    pub name: String,
    /// Jobs that have backups in it, are not in the config, and are no other host's business.
    pub unknown_jobs: Vec<JobName>,
    /// What waits to be sent to it.
    pub waiting: Waiting,
    /// What it says and the catalog could not be told, in sentences.
    pub untold: Vec<String>,
    /// Why it cannot be opened or read; `None` where it was.
    pub silent: Option<String>,
    /// Bytes of everything in it, where somebody asked for that and it could be listed in time.
    pub stored_bytes: Option<u64>,
}

/// Everything that is known of some jobs and their vaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gathered {
    /// Everything that was asked for, in that order.
    pub asked: Vec<Asked>,
    /// The jobs, in the order in which they were asked for.
    pub jobs: Vec<JobFacts>,
    /// The vaults that this host knows, by name.
    pub vaults: Vec<VaultFacts>,
    /// Jobs in vaults that this host never opened and cannot open now: the catalog knows nothing of them.
    pub unopened: Vec<Unopened>,
}

/// A job that was asked for, and what the config alone says comes next of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The job.
    pub job: JobName,
    /// When its schedule fires next.
    pub next_backup: Option<DateTime<Utc>>,
    /// When its drill's does.
    pub next_drill: Option<DateTime<Utc>>,
    /// When its check's does.
    pub next_check: Option<DateTime<Utc>>,
}

/// A job in a vault that this host never opened and cannot open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// The job.
    pub job: JobName,
    /// The vault's name in the config.
    pub vault: String,
    /// What the config promises.
    pub objectives: Objectives,
    /// Why the vault cannot be opened.
    pub why: String,
}

/// Records of this host that the vault has not got yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many wait.
    pub records: usize,
    /// When the oldest was written.
    pub oldest: Option<DateTime<Utc>>,
    /// Those that nobody would believe from this host as it is now: they will wait for ever.
    pub in_vain: usize,
    /// Files among them that are damaged, in sentences.
    pub damaged: Vec<String>,
    /// The folder that they lie in.
    pub folder: PathBuf,
}

/// A newest backup that is gone without a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hidden {
    /// The highest number there is; 0 where there is none.
    pub there: u64,
    /// The highest number that this host ever saw.
    pub seen: u64,
}

/// A vault by its name in the config and by its own id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultRef {
    /// The name in the config.
    pub name: String,
    /// The vault's id.
    pub id: VaultId,
}

/// What the config says will happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promise {
    /// The zone that schedules are read in.
    pub timezone: String,
    /// When backups are taken, in cron's five fields.
    pub schedule: Option<String>,
    /// The longest time between two scheduled backups.
    pub backup_gap: Option<Duration>,
    /// RPO and RTO.
    pub objectives: Objectives,
    /// No backup goes before it is this old.
    pub keep_at_least: Option<Duration>,
    /// Nothing of a backup is left when it is this old.
    pub delete_after: Option<Duration>,
    /// How long before `delete_after` a backup goes in normal running.
    pub erasing_lead: Option<Duration>,
    /// The longest time between two prunes.
    pub prune_gap: Option<Duration>,
    /// The longest time between two checks; none where they have no schedule.
    pub check_gap: Option<Duration>,
    /// The public keys that new backups are sealed to.
    pub recipients: Vec<String>,
    /// Whether and when restores are rehearsed.
    pub drill: DrillPlan,
}

/// Whether and when restores are rehearsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DrillPlan {
    /// The config has no drill for the job.
    #[default]
    None,
    /// It has one, which somebody has to start.
    OnDemand,
    /// It has one with a schedule.
    Scheduled {
        /// In cron's five fields.
        schedule: String,
        /// The longest time between two of them.
        gap: Option<Duration>,
    },
}

/// Whether the host that takes the backups holds a key that opens them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnIdentity {
    /// It holds recipients only, as it should.
    Absent,
    /// It could read its backups, and so could whoever takes it over.
    Present,
}

impl JobFacts {
    /// The backups as points of the RPO.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        self.backups.iter().map(|row| self.point(row)).collect()
    }

    /// The newest whole backup that is there.
    #[must_use]
    pub fn newest_complete(&self) -> Option<&BackupRow> {
        let present = self.backups.iter().filter(|row| row.retained_until.is_none());
        present.filter(|row| row.completeness == Completeness::Complete).max_by_key(|row| (row.committed, row.sequence))
    }

    /// The last drill that ended.
    #[must_use]
    pub fn newest_drill(&self) -> Option<&DrillRow> {
        self.drills.iter().max_by_key(|row| (row.drill.finished, row.id.clone()))
    }

    /// What was found out about a backup.
    #[must_use]
    pub fn verdict(&self, backup: &BackupId) -> Verdict {
        verdict(backup, &self.drills, &self.refutations)
    }

    /// How many objects and lists of a backup were found wrong; 0 where it was refuted as a whole.
    #[must_use]
    pub fn refuted_objects(&self, backup: &BackupId) -> usize {
        let of_backup = self.refutations.iter().filter(|row| row.body.backups.contains(backup));
        let objects: BTreeSet<_> = of_backup.flat_map(|row| row.body.objects.iter().chain(&row.body.lists)).collect();
        objects.len()
    }

    /// Whether a backup's manifest lies in the vault and is not believed.
    pub(super) fn lies_unbelieved(&self, backup: &BackupId) -> bool {
        self.quarantined.contains(backup) || self.unbelieved.iter().any(|found| found.backup == *backup)
    }

    fn point(&self, row: &BackupRow) -> Point {
        let standing = match (row.completeness, self.verdict(&row.id)) {
            (_, Verdict::Refuted) => Standing::Refuted,
            (Completeness::Partial, _) => Standing::Partial,
            (Completeness::Complete, _) => Standing::Counts,
        };
        let proven_at = self
            .drills
            .iter()
            .filter(|drill| drill.drill.backup.as_ref() == Some(&row.id))
            .filter(|drill| drill.drill.outcome == DrillOutcome::Passed && !drill.drill.refutes_backup)
            .map(|drill| drill.drill.finished)
            .min();
        Point {
            backup: row.id.clone(),
            recovery_point: row.recovery_point,
            available_at: row.committed,
            retained_until: row.retained_until,
            standing,
            proven_at,
        }
    }

    /// The moment from which on a time without a backup is held against the job: the first of its runs or backups
    /// ended, well or badly. `None` where nothing is known of it.
    #[must_use]
    pub fn known_since(&self) -> Option<DateTime<Utc>> {
        let runs = self.runs.iter().map(|row| row.run.finished);
        let backups = self.backups.iter().map(|row| row.committed);
        runs.chain(backups).min()
    }
}

/// A drill as an attempt of the RTO.
#[must_use]
pub fn attempt(row: &DrillRow) -> Attempt {
    let took = Duration::try_from_secs_f64(row.drill.rto_seconds);
    let restore = match (row.drill.outcome, took) {
        (DrillOutcome::Passed, Ok(took)) => Restore::Took(took),
        // A time that is none proves nothing.
        (DrillOutcome::Failed, _) | (DrillOutcome::Passed, Err(_)) => Restore::Failed,
    };
    Attempt { drill: row.id.clone(), finished: row.drill.finished, restore }
}

/// For `#[serde(serialize_with)]`: what a drill took, or `unmeasured` where there was none (docs/decisions/0003).
pub(crate) fn restore_or_unmeasured<S: Serializer>(restore: &Option<Restore>, to: S) -> Result<S::Ok, S::Error> {
    match restore {
        Some(restore) => restore.serialize(to),
        None => to.serialize_str("unmeasured"),
    }
}

/// For `#[serde(serialize_with)]`: a duration that was promised or measured, or null where there is none.
pub(crate) fn optional_seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => to.serialize_f64(json_seconds(*duration)),
        None => to.serialize_none(),
    }
}
