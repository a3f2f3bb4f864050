//! What a report says of keeping and erasing: removals with the age at which they came, the age at which bytes were
//! proven gone, prunes, findings and quarantines of the window.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::erasure::Proofs;
use super::facts::{JobFacts, optional_seconds};
use super::report::Met;
use crate::catalog::{PruneRow, QuarantineRow, RefutationRow, RemovalRow};
use crate::domain::ids::{BackupId, RecordId};
use crate::domain::objectives::Window;
use crate::domain::record::{Finder, PruneOutcome, RemovalReason, SequenceRange};

/// Where the figures of erasing come from.
pub const ERASURE_SOURCE: &str = "signed removal records (recorded) and prune records (clean_through, finished), read \
                                  through the catalog";

/// Erasing over the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErasureMeasured {
    /// Backups removed in the window.
    pub removed: usize,
    /// The largest age, by recovery point, at which one was removed.
    #[serde(rename = "largest_age_at_removal_seconds", serialize_with = "optional_seconds")]
    pub largest_age_at_removal: Option<Duration>,
    /// Backups of which nothing was left, proven in the window.
    pub proven_gone: usize,
    /// The largest age at which that was proven.
    #[serde(rename = "largest_age_proven_gone_seconds", serialize_with = "optional_seconds")]
    pub largest_age_proven_gone: Option<Duration>,
    /// Backups that were removed and of which bytes may be there at the window's end.
    pub pending_backups: usize,
    /// The recovery point of the oldest backup of which bytes may be there at the window's end.
    pub oldest_retained_byte: Option<DateTime<Utc>>,
    /// Whether what had to be erased in the window was, in time.
    pub met: Met,
    /// [`ERASURE_SOURCE`].
    pub source: &'static str,
}

/// A removal in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemovalEntry {
    /// Its record.
    pub id: RecordId,
    /// The host that decided.
    pub host: String,
    /// What was removed.
    pub backup: BackupId,
    /// Why.
    pub reason: RemovalReason,
    /// The moment its data was consistent at; unknown for one that nobody believed.
    pub recovery_point: Option<DateTime<Utc>>,
    /// When it was removed.
    pub removed_at: DateTime<Utc>,
    /// How old it was then.
    #[serde(rename = "age_at_removal_seconds", serialize_with = "optional_seconds")]
    pub age_at_removal: Option<Duration>,
    /// When it was proven that nothing was left of it.
    pub proven_gone_at: Option<DateTime<Utc>>,
    /// How old it was then.
    #[serde(rename = "age_proven_gone_seconds", serialize_with = "optional_seconds")]
    pub age_proven_gone: Option<Duration>,
}

/// A prune in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// How it ended.
    pub outcome: PruneOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took.
    pub duration_seconds: f64,
    /// Backups that it took out.
    pub removed_backups: u64,
    /// Objects and lists that it condemned.
    pub condemned_objects: u64,
    /// Objects and lists that it deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Of what was removed at or before this moment nothing was left.
    pub clean_through: Option<DateTime<Utc>>,
    /// The code of what stopped or failed it.
    pub error_code: Option<String>,
}

/// A finding in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefutationEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// When it was recorded.
    pub found_at: DateTime<Utc>,
    /// What found it.
    pub found_by: Finder,
    /// The backups that it spoils.
    pub backups: Vec<BackupId>,
    /// Objects and lists that are wrong or missing; none where the backup as a whole is.
    pub objects: usize,
    /// The code of what is wrong.
    pub error_code: String,
}

/// A quarantine in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantineEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
    /// The backup that was set aside.
    pub backup: Option<BackupId>,
    /// Missing numbers that were accepted.
    pub gone: Vec<SequenceRange>,
}

/// The removals of the window.
pub(super) fn removals(facts: &JobFacts, window: Window) -> Vec<RemovalEntry> {
    let proofs = facts.proofs();
    facts.removals.iter().filter(|row| window.covers(row.recorded)).map(|row| removal(&proofs, row, window)).collect()
}

/// What is proven after the window's end is not known at it.
fn removal(proofs: &Proofs, row: &RemovalRow, window: Window) -> RemovalEntry {
    let summary = row.body.summary.as_ref();
    let recovery_point = summary.map(|summary| summary.recovery_point.min(summary.committed));
    let age = |moment| recovery_point.map(|point| age(point, moment));
    let proven_gone_at = proofs.gone_at(row.recorded).filter(|at| *at <= window.end);
    RemovalEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        backup: row.body.backup.clone(),
        reason: row.body.reason,
        recovery_point,
        removed_at: row.recorded,
        age_at_removal: age(row.recorded),
        proven_gone_at,
        age_proven_gone: proven_gone_at.and_then(age),
    }
}

/// The prunes that ended in the window.
pub(super) fn prunes(facts: &JobFacts, window: Window) -> Vec<PruneEntry> {
    facts.prunes.iter().filter(|row| window.covers(row.body.finished)).map(prune).collect()
}

fn prune(row: &PruneRow) -> PruneEntry {
    let prune = &row.body;
    PruneEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        outcome: prune.outcome,
        started: prune.started,
        finished: prune.finished,
        duration_seconds: prune.duration_seconds,
        removed_backups: prune.removed_backups,
        condemned_objects: prune.condemned_objects,
        deleted_objects: prune.deleted_objects,
        deleted_bytes: prune.deleted_bytes,
        clean_through: prune.clean_through,
        error_code: prune.error_code.clone(),
    }
}

/// What was found wrong in the window.
pub(super) fn refutations(facts: &JobFacts, window: Window) -> Vec<RefutationEntry> {
    let entry = |row: &RefutationRow| RefutationEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        found_at: row.recorded,
        found_by: row.body.found_by,
        backups: row.body.backups.clone(),
        objects: row.body.objects.len() + row.body.lists.len(),
        error_code: row.body.error_code.clone(),
    };
    facts.refutations.iter().filter(|row| window.covers(row.recorded)).map(entry).collect()
}

/// What was set aside in the window.
pub(super) fn quarantines(facts: &JobFacts, window: Window) -> Vec<QuarantineEntry> {
    let entry = |row: &QuarantineRow| QuarantineEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        decided_at: row.recorded,
        backup: row.body.backup.clone(),
        gone: row.body.gone.clone(),
    };
    facts.quarantines.iter().filter(|row| window.covers(row.recorded)).map(entry).collect()
}

/// The figures of the window. A promise is held against what was proven gone in it, and against what had to be gone by
/// its end and was not.
pub(super) fn measured(facts: &JobFacts, window: Window) -> ErasureMeasured {
    let proofs = facts.proofs();
    let all: Vec<RemovalEntry> = facts.removals.iter().map(|row| removal(&proofs, row, window)).collect();
    let removed: Vec<&RemovalEntry> = all.iter().filter(|entry| window.covers(entry.removed_at)).collect();
    let proven: Vec<&RemovalEntry> =
        all.iter().filter(|entry| entry.proven_gone_at.is_some_and(|at| window.covers(at))).collect();
    let largest_age_proven_gone = proven.iter().filter_map(|entry| entry.age_proven_gone).max();
    let remnants = facts.remnants();
    let overdue = remnants.iter().any(|remnant| remnant.deadline.is_some_and(|deadline| deadline < window.end));
    let met = match facts.promise.delete_after {
        None => Met::NoObjective,
        Some(limit) if overdue || largest_age_proven_gone.is_some_and(|age| age > limit) => Met::NotMet,
        Some(_) if largest_age_proven_gone.is_some() => Met::Met,
        Some(_) => Met::Unmeasured,
    };
    ErasureMeasured {
        removed: removed.len(),
        largest_age_at_removal: removed.iter().filter_map(|entry| entry.age_at_removal).max(),
        proven_gone: proven.len(),
        largest_age_proven_gone,
        pending_backups: remnants.iter().filter(|remnant| remnant.removed.is_some()).count(),
        oldest_retained_byte: remnants.iter().filter_map(|remnant| remnant.recovery_point).min(),
        met,
        source: ERASURE_SOURCE,
    }
}

fn age(recovery_point: DateTime<Utc>, moment: DateTime<Utc>) -> Duration {
    (moment - recovery_point).to_std().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::samples::*;

    fn window() -> Window {
        Window::before(now(), hours(48))
    }

    #[test]
    fn ages_are_counted_from_the_recovery_point() {
        let facts = erasing();
        let figures = measured(&facts, window());
        assert_eq!((figures.removed, figures.proven_gone, figures.pending_backups), (3, 2, 1));
        assert_eq!(figures.largest_age_at_removal, Some(hours(50)));
        // Removed at 50 hours each, and seen gone six hours and one hour later.
        assert_eq!(figures.largest_age_proven_gone, Some(hours(57)));
        assert_eq!(figures.oldest_retained_byte, Some(before_now(hours(57))));
        assert_eq!(figures.met, Met::Met);
        let listed = removals(&facts, window());
        assert_eq!(
            listed.iter().map(|entry| entry.age_proven_gone).collect::<Vec<_>>(),
            [Some(hours(57)), Some(hours(51)), None]
        );
    }

    #[test]
    fn a_promise_is_met_only_where_something_shows_it() {
        let mut facts = erasing();
        assert_eq!(measured(&healthy(), window()).met, Met::Unmeasured);
        facts.promise.delete_after = Some(hours(56));
        assert_eq!(measured(&facts, window()).met, Met::NotMet, "one was proven gone at 57 hours");
        facts.promise.delete_after = None;
        assert_eq!(measured(&facts, window()).met, Met::NoObjective);
        facts = erasing();
        facts.promise.delete_after = Some(hours(57) + minutes(1));
        assert_eq!(measured(&facts, window()).met, Met::Met);
        facts.prunes.clear();
        let later = Window::before(now() + chrono::TimeDelta::hours(16), hours(48));
        assert_eq!(measured(&facts, later).met, Met::NotMet, "nothing shows that the first one is gone");
        // What is proven later was not proven at the window's end.
        facts = erasing();
        let early = Window::before(before_now(hours(13)), hours(48));
        assert_eq!((measured(&facts, early).removed, measured(&facts, early).proven_gone), (2, 0));
    }
}
