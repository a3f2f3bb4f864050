//! Records that a vault keeps beside its backups: what was run, what a drill found, what was removed.
//!
//! They hold ids, times, verdicts and numbers, in clear. Names of data, values and error texts go into the sealed
//! details that may lie beside a record.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{BackupId, JobName, ObjectId, RecordId, VaultId};

/// The version of the records' shape that this program writes and reads.
pub const RECORD_VERSION: u32 = 1;

/// What every record says of itself, and what it records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The vault it belongs to.
    pub vault: VaultId,
    /// The job.
    pub job: JobName,
    /// The record.
    pub id: RecordId,
    /// The host that wrote it, as vault.json names it.
    pub host: String,
    /// `lifeboat 0.1.0`.
    pub tool: String,
    /// When it was written.
    pub recorded: DateTime<Utc>,
    /// What it records.
    #[serde(flatten)]
    pub body: RecordBody,
    /// The SHA-256 of the sealed details beside it, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ObjectId>,
}

/// The kinds of records; the tag is `type`, and the folder under `records/` has the same name with an `s`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RecordBody {
    /// A run of `backup`, failed ones too.
    Run(RunRecord),
    /// A drill.
    Drill(DrillRecord),
}

impl RecordBody {
    /// The folder under `records/`.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Run(_) => "runs",
            Self::Drill(_) => "drills",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// Everything was read and committed.
    Success,
    /// Committed, with something unreadable.
    Partial,
    /// Not committed.
    Failed,
}

/// A run of `backup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took on the monotonic clock.
    pub duration_seconds: f64,
    /// The backup that it committed.
    pub backup: Option<BackupId>,
    /// Plain tar bytes of that backup.
    pub logical_bytes: u64,
    /// Stored bytes that it names.
    pub stored_bytes: u64,
    /// Sealed bytes that the run added.
    pub new_bytes: u64,
    /// How many errors it met.
    pub errors: u64,
    /// The stable code of the error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// A drill's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillOutcome {
    /// Everything was restored and every check passed.
    Passed,
    /// Anything else.
    Failed,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Its verdict.
    pub outcome: DrillOutcome,
    /// The backup that it restored; none if it found none.
    pub backup: Option<BackupId>,
    /// That backup's recovery point.
    pub recovery_point: Option<DateTime<Utc>>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When the last check ended.
    pub finished: DateTime<Utc>,
    /// The measured RTO: from start to the last check passing, on the monotonic clock. A failed drill has the time
    /// until it failed, and never counts as met.
    pub rto_seconds: f64,
    /// The objective at that time.
    pub rto_objective_seconds: Option<f64>,
    /// Passed, and within the objective (or passed, where there is none).
    pub rto_met: bool,
    /// Exposure when the drill began: its start minus the newest counting recovery point.
    pub rpo_seconds: Option<f64>,
    /// Where the time went, in order.
    pub phases: Vec<Phase>,
    /// Checks that passed.
    pub checks_passed: u64,
    /// Checks that did not.
    pub checks_failed: u64,
    /// Whether what was found says that the backup itself is bad: it cannot be opened, or differs from its facts.
    pub refutes_backup: bool,
    /// The stable code of the first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Tar bytes that were restored.
    pub restored_bytes: u64,
    /// What it was measured on.
    pub environment: DrillEnvironment,
}

/// What a drill was measured on: stands beside the time, so that the time means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillEnvironment {
    /// Processors at hand.
    pub cores: u32,
    /// The kind of vault: `folder`, `s3`.
    pub storage: String,
    /// How foreign code was held: `none-run`, `own-uid`, `own-uid-no-network`, `trusted-source`.
    pub confinement: String,
    /// Whether the vault's files were dropped from the page cache before the clock started.
    pub cold_cache: bool,
}

/// One phase of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// provision, locate, fetch, open, load, index, start, analyse, check.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}
