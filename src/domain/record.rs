//! Records that a vault keeps beside its backups: what was run, what a drill found, what was removed.
//!
//! They hold ids, times, verdicts and numbers, in clear. Names of data, values and error texts go into the sealed
//! details that may lie beside a record.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{BackupId, JobName, ObjectId, RecordId, VaultId};
use super::manifest::BackupSummary;

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

impl Record {
    /// How old the data may be that its details tell of: a drill's tell of a backup that is older than the drill.
    #[must_use]
    pub fn data_from(&self) -> DateTime<Utc> {
        match &self.body {
            RecordBody::Drill(drill) => drill.recovery_point.map_or(self.recorded, |point| point.min(self.recorded)),
            _ => self.recorded,
        }
    }
}

/// The kinds of records; the tag is `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RecordBody {
    /// A run of `backup`, failed ones too.
    Run(RunRecord),
    /// A drill.
    Drill(DrillRecord),
    /// A backup that was taken out of the vault.
    Removal(Box<RemovalRecord>),
    /// Objects and lists that nothing names, to be deleted later.
    Condemned(CondemnedRecord),
    /// Objects and lists that were found to be wrong.
    Refutation(RefutationRecord),
    /// Something that a person decided to go on without.
    Quarantine(QuarantineRecord),
    /// A run of `prune`, one that was stopped too.
    Prune(PruneRecord),
    /// A run of `copy`, a failed one too. It lies in the vault that was copied from.
    Copy(CopyRecord),
    /// A run of `check`, a failed one too.
    Check(CheckRecord),
}

impl RecordBody {
    /// The types there are, as they stand in a document.
    pub const TYPES: [&str; 9] =
        ["run", "drill", "removal", "condemned", "refutation", "quarantine", "prune", "copy", "check"];

    /// The folders under `records/` that the types have, in the order of [`RecordBody::TYPES`].
    pub const FOLDERS: [&str; 9] =
        ["runs", "drills", "removals", "condemned", "refutations", "quarantines", "prunes", "copies", "checks"];

    /// The type, as it stands in the document.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Drill(_) => "drill",
            Self::Removal(_) => "removal",
            Self::Condemned(_) => "condemned",
            Self::Refutation(_) => "refutation",
            Self::Quarantine(_) => "quarantine",
            Self::Prune(_) => "prune",
            Self::Copy(_) => "copy",
            Self::Check(_) => "check",
        }
    }

    /// The folder under `records/`.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Run(_) => "runs",
            Self::Drill(_) => "drills",
            Self::Removal(_) => "removals",
            Self::Condemned(_) => "condemned",
            Self::Refutation(_) => "refutations",
            Self::Quarantine(_) => "quarantines",
            Self::Prune(_) => "prunes",
            Self::Copy(_) => "copies",
            Self::Check(_) => "checks",
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

impl RunOutcome {
    /// As it is recorded.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillEnvironment {
    /// Processors at hand.
    pub cores: u32,
    /// The kind of vault: `folder`, `s3`.
    pub storage: String,
    /// How foreign code was held: `none-run`, `own-uid`, `own-uid-no-network`, `trusted-source`; on this machine none, and
    /// on a server that was there its role alone: `existing-server`.
    pub confinement: String,
    /// Whether the vault's files were dropped from the page cache before the clock started.
    pub cold_cache: bool,
    /// The scratch servers, one for each database that needs one, in the order of the backup's sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<DrillServer>,
    /// Those of the backup's recipients whose identities were at hand: whoever drilled held them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opened_for: Vec<String>,
}

/// A server of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillServer {
    /// Its own version: `15.18`. The source had the same major version, unless the server was there.
    pub version: String,
    /// `drill`: a crash may cost the copy; `production`: with the durability of a server that is lived on; `its-own`: those
    /// of a server that was there.
    pub settings: String,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "DrillGround::is_scratch")]
    pub ground: DrillGround,
    /// From the drill's start until the database's data and keys were there; `None` where it did not come so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queryable_seconds: Option<f64>,
    /// From the drill's start until its indexes, constraints and statistics were there as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_seconds: Option<f64>,
}

/// Where the server of a drill came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillGround {
    /// The drill made it, under a uid of its own.
    #[default]
    Scratch,
    /// The drill made it in a container.
    Container,
    /// It was there: what was restored ran there as the drill's role, and nobody confined it. Owners, rights, roles and
    /// policies were not restored.
    Existing,
}

impl DrillGround {
    fn is_scratch(&self) -> bool {
        *self == Self::Scratch
    }
}

/// One phase of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// provision, locate, fetch, open, load, index, start, analyse, check.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// Sequence numbers of a job, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl SequenceRange {
    /// Whether a number lies in it.
    #[must_use]
    pub fn contains(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// The numbers of all these ranges: ascending, not touching each other. A range that ends before it begins is none.
    #[must_use]
    pub fn union(ranges: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut sorted: Vec<Self> = ranges.into_iter().filter(|range| range.first <= range.last).collect();
        sorted.sort_unstable();
        let mut union: Vec<Self> = Vec::new();
        for range in sorted {
            match union.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => union.push(range),
            }
        }
        union
    }

    /// What of it is in none of `ranges`, which are as [`SequenceRange::union`] gives them.
    #[must_use]
    pub fn without(self, ranges: &[Self]) -> Vec<Self> {
        let mut rest = Vec::new();
        let mut first = self.first;
        for range in ranges.iter().filter(|range| range.last >= self.first && range.first <= self.last) {
            if first < range.first {
                rest.push(Self { first, last: range.first - 1 });
            }
            match range.last.checked_add(1) {
                Some(next) => first = next,
                None => return rest,
            }
        }
        if first <= self.last {
            rest.push(Self { first, last: self.last });
        }
        rest
    }
}

/// Why a backup was taken out of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalReason {
    /// Its age: what it holds must be erased soon.
    Expired,
    /// Older than `keep_at_least`, and not among those that the thinning keeps.
    Thinned,
    /// It was quarantined, and its time is over.
    Quarantined,
}

/// A backup that was taken out of the vault. The record is written before the manifest is deleted, so that a manifest
/// which is still there beside its removal counts as gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalRecord {
    /// Which.
    pub backup: BackupId,
    /// What it was; `None` for one that could not be believed.
    pub summary: Option<BackupSummary>,
    /// Why.
    pub reason: RemovalReason,
    /// All numbers of the job that are gone for a reason by now, this one's too: so that the newest removal of a job
    /// explains every gap. Ascending, not touching each other.
    pub gone: Vec<SequenceRange>,
}

/// Objects and lists that no manifest and no live claim named. At most [`CondemnedRecord::MAX_NAMES`] in one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedRecord {
    /// Objects.
    pub objects: Vec<ObjectId>,
    /// Lists.
    pub lists: Vec<ObjectId>,
}

impl CondemnedRecord {
    /// Names in one record, so that its document stays below a megabyte.
    pub const MAX_NAMES: usize = 8192;
}

/// Who found something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finder {
    /// `check`.
    Check,
    /// A drill.
    Drill,
    /// A backup, which hashes a share of what it names again.
    Backup,
}

/// Objects and lists that were found to be wrong, and the backups of one job that they spoil. What it names is never
/// named again by a new backup. With neither objects nor lists everything that the backups name is under suspicion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefutationRecord {
    /// Who found it.
    pub found_by: Finder,
    /// Segments, of data or contents; missing ones too.
    pub objects: Vec<ObjectId>,
    /// Lists.
    pub lists: Vec<ObjectId>,
    /// The backups that are spoilt. A drill of one of them that passes later clears that one.
    pub backups: Vec<BackupId>,
    /// The stable code of what is wrong.
    pub error_code: String,
}

/// Something that a person looked at and decided to go on without: a manifest that cannot be believed, or sequence
/// numbers that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The backup whose manifest cannot be believed, or cannot be followed to its objects.
    pub backup: Option<BackupId>,
    /// Numbers of the job that are missing, and are known to be.
    pub gone: Vec<SequenceRange>,
}

/// How a run of `copy` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyOutcome {
    /// Every backup that belongs into the copy is in it.
    Success,
    /// Some are not, because something in the source is wrong or something in the copy has to go first.
    Partial,
    /// It broke off.
    Failed,
}

/// A run of `copy` for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// How it ended.
    pub outcome: CopyOutcome,
    /// The copy's name in the config.
    pub to: String,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took on the monotonic clock.
    pub duration_seconds: f64,
    /// The newest complete backup in the copy when it ended, as far as that was known.
    pub backup: Option<BackupId>,
    /// Its recovery point.
    pub recovery_point: Option<DateTime<Utc>>,
    /// Backups in the copy when it ended.
    pub backups: u64,
    /// Backups that it brought there.
    pub copied_backups: u64,
    /// Backups that belong there and could not be copied.
    pub left_backups: u64,
    /// Objects and lists that it sent.
    pub new_objects: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// The stable code of the first thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// What a run of `check` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// Everything that it looked at is what it was.
    Sound,
    /// Something is not.
    Damaged,
    /// It broke off, and says nothing of what it did not come to.
    Failed,
}

/// A run of `check`, as far as it speaks of one job: the figures are that job's own. What several jobs name is counted for
/// each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// What it came to.
    pub outcome: CheckOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took on the monotonic clock, for all jobs that were looked at together.
    pub duration_seconds: f64,
    /// Whether all jobs, the records and what no backup names were looked at too.
    pub whole_vault: bool,
    /// The share of the segments that was to be opened, in per cent; `None` where no identity was used, and bytes were held
    /// against their names only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_data_percent: Option<u8>,
    /// Backups that were looked at.
    pub backups: u64,
    /// Objects and lists that they name.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that were opened and compared.
    pub opened_segments: u64,
    /// Things that are not what they were: the job's, and those of which nobody can tell whose they are.
    pub damaged: u64,
    /// The stable code of the first of them, or of what broke the check off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

impl CheckRecord {
    /// One that broke off, of which nothing else is known.
    #[must_use]
    pub fn failed(started: DateTime<Utc>, code: &str) -> Self {
        Self {
            outcome: CheckOutcome::Failed,
            started,
            finished: started,
            duration_seconds: 0.0,
            whole_vault: false,
            read_data_percent: None,
            backups: 0,
            objects: 0,
            bytes: 0,
            opened_segments: 0,
            damaged: 0,
            error_code: Some(code.to_owned()),
        }
    }
}

/// How a run of `prune` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PruneOutcome {
    /// It did what the plan said.
    Done,
    /// Something in the vault stopped every deletion; `error_code` says what.
    Stopped,
    /// It broke off.
    Failed,
}

/// A run of `prune` for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PruneRecord {
    /// How it ended.
    pub outcome: PruneOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took on the monotonic clock.
    pub duration_seconds: f64,
    /// Backups that it took out.
    pub removed_backups: u64,
    /// Objects and lists that it condemned.
    pub condemned_objects: u64,
    /// Objects and lists that it deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Of every backup removed at or before this moment (the store's time) nothing is left in the vault. `None` where
    /// the run did not get as far as knowing.
    pub clean_through: Option<DateTime<Utc>>,
    /// The stable code of what stopped or failed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<SequenceRange>> {
        prop::collection::vec((0u64..30, 0u64..30).prop_map(|(first, last)| SequenceRange { first, last }), 0..6)
    }

    fn numbers(ranges: &[SequenceRange]) -> BTreeSet<u64> {
        (0..40).filter(|number| ranges.iter().any(|range| range.contains(*number))).collect()
    }

    proptest! {
        #[test]
        fn a_union_has_the_same_numbers_and_no_range_too_many(ranges in ranges()) {
            let union = SequenceRange::union(ranges.clone());
            prop_assert_eq!(numbers(&union), numbers(&ranges));
            prop_assert!(union.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            prop_assert_eq!(SequenceRange::union(union.clone()), union);
        }

        #[test]
        fn without_is_the_difference(ranges in ranges(), first in 0u64..30, more in 0u64..10) {
            let (range, union) = (SequenceRange { first, last: first + more }, SequenceRange::union(ranges));
            let expected: BTreeSet<u64> = numbers(&[range]).difference(&numbers(&union)).copied().collect();
            prop_assert_eq!(numbers(&range.without(&union)), expected);
        }
    }

    #[test]
    fn an_environment_from_before_there_were_servers_is_read_and_written_as_it_was() {
        let json = r#"{"cores":2,"storage":"folder","confinement":"own-uid","cold_cache":true}"#;
        let environment: DrillEnvironment = serde_json::from_str(json).unwrap();
        assert!(environment.servers.is_empty());
        assert_eq!(serde_json::to_string(&environment).unwrap(), json);
    }

    #[test]
    fn the_last_number_of_all_does_not_wrap() {
        let all = SequenceRange { first: 0, last: u64::MAX };
        assert_eq!(SequenceRange::union([all, all]), [all]);
        assert!(SequenceRange { first: 5, last: u64::MAX }.without(&[all]).is_empty());
    }
}
