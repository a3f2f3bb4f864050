//! What should be erased by when, and whether it was.
//!
//! A backup is removed when its manifest goes, and erased when a prune that came through has said of that moment that
//! nothing older than it is left (`clean_through`). Until then its bytes count as there, whoever cannot read them any
//! more. What the store keeps behind the vault's back (snapshots, versions) is not known here.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::facts::JobFacts;
use super::status::{Findings, State, ago, elapsed};
use crate::catalog::{BackupRow, Verdict};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::Completeness;
use crate::domain::quantity::{exact_duration, human_duration};
use crate::domain::record::PruneOutcome;
use crate::domain::retention::{Candidate, LastGood, Retention, Stage, Way};

/// After so many times the longest time between two prunes without one, something is wrong with whatever starts them.
const PRUNES_MISSED: u32 = 2;

/// What of a job is still to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureStatus {
    /// When the oldest byte there is must be gone.
    pub deadline: Option<DateTime<Utc>>,
    /// The recovery point of the oldest backup of which bytes may be there, removed or not.
    pub oldest_retained_byte: Option<DateTime<Utc>>,
    /// Backups that are due or removed, and of which bytes may be there.
    pub pending_backups: usize,
}

/// Which vault is spoken of, and what to type for it.
pub(super) struct Where {
    /// Behind what is there: nothing, or ` in the copy offsite`.
    there: String,
    /// Takes out what is due.
    prune: String,
    /// Brings a newer good backup.
    renew: String,
}

impl Where {
    /// A job's own vault.
    pub(super) fn vault(job: &JobName) -> Self {
        Self {
            there: String::new(),
            prune: format!("`lifeboat prune {job}`"),
            renew: format!("`lifeboat backup {job}`"),
        }
    }

    /// Its second one.
    pub(super) fn copy(job: &JobName, to: &str, prunes_here: bool) -> Self {
        let host = if prunes_here { "" } else { " on the host that deletes there" };
        Self {
            there: format!(" in the copy {to}"),
            prune: format!("`lifeboat prune {job} --vault {to}`{host}"),
            renew: format!("`lifeboat copy {job}`"),
        }
    }
}

/// A backup of which bytes may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remnant {
    /// Which.
    pub backup: BackupId,
    /// Unknown for one that was removed without anybody having believed it.
    pub recovery_point: Option<DateTime<Utc>>,
    /// When it goes in normal running.
    pub due: Option<DateTime<Utc>>,
    /// When nothing of it may be left.
    pub deadline: Option<DateTime<Utc>>,
    /// When it was removed.
    pub removed: Option<DateTime<Utc>>,
}

impl JobFacts {
    /// When nothing of a backup may be left: its data is as old as its recovery point.
    pub(super) fn deadline(&self, row: &BackupRow) -> Option<DateTime<Utc>> {
        after(row.recovery_point.min(row.committed), self.promise.delete_after?)
    }

    /// Until when a backup must be there.
    pub(super) fn kept_until(&self, row: &BackupRow) -> Option<DateTime<Utc>> {
        after(row.committed, self.promise.keep_at_least?)
    }

    /// When a backup goes in normal running.
    fn due(&self, row: &BackupRow) -> Option<DateTime<Utc>> {
        let early = TimeDelta::from_std(self.promise.erasing_lead?).ok()?;
        let due = self.deadline(row)?.checked_sub_signed(early)?;
        Some(self.kept_until(row).map_or(due, |kept_until| due.max(kept_until)))
    }

    /// What the job's prunes have proven. One that speaks of a time which had not come when it was written proves nothing.
    pub(super) fn proofs(&self) -> Proofs {
        let said = self.prunes.iter().filter_map(|row| {
            let through = row.body.clean_through?;
            let knew = row.recorded.checked_add_signed(CLOCK_TOLERANCE).unwrap_or(row.recorded);
            // Removed after the prune ended is not erased by it, whatever the clocks say.
            (through <= knew).then(|| (through.min(row.body.finished).min(row.recorded), row.body.finished))
        });
        let mut proven: Vec<(DateTime<Utc>, DateTime<Utc>)> = said.collect();
        proven.sort_unstable();
        let mut earliest = None;
        for (_, finished) in proven.iter_mut().rev() {
            *finished = earliest.map_or(*finished, |earliest: DateTime<Utc>| earliest.min(*finished));
            earliest = Some(*finished);
        }
        Proofs(proven)
    }

    /// When a backup was gone to the last byte, as far as is known. One that disappeared without a record of its
    /// removal was gone when that was seen; one whose manifest lies there and is only not believed is not gone.
    pub(super) fn gone_at(&self, row: &BackupRow, proofs: &Proofs) -> Option<DateTime<Utc>> {
        match (row.retained_until, row.removal) {
            (Some(removed), Some(_)) => proofs.gone_at(removed),
            _ if self.lies_unbelieved(&row.id) => None,
            (seen_gone, _) => seen_gone,
        }
    }

    /// The newest complete backup that is there, and that nothing refutes and nobody set aside.
    fn last_good(&self) -> Option<&BackupRow> {
        let set_aside: HashSet<&BackupId> =
            self.quarantines.iter().filter_map(|row| row.body.backup.as_ref()).collect();
        let there = self.backups.iter().filter(|row| row.retained_until.is_none());
        let good = there.filter(|row| row.completeness == Completeness::Complete && !set_aside.contains(&row.id));
        good.filter(|row| self.verdict(&row.id) != Verdict::Refuted)
            .max_by_key(|row| (row.recovery_point.min(row.committed), row.committed, row.id.clone()))
    }

    /// The two sides of the promise; how a job is thinned decides nothing here.
    fn retention(&self) -> Option<Retention> {
        let (keep_at_least, delete_after) = (self.promise.keep_at_least?, self.promise.delete_after?);
        Some(Retention { keep_at_least, delete_after, daily: None, weekly: None, last_good: LastGood::Keep })
    }

    /// Every backup of which bytes may be there.
    pub(super) fn remnants(&self) -> Vec<Remnant> {
        let proofs = self.proofs();
        let rows = self.backups.iter().filter(|row| self.gone_at(row, &proofs).is_none()).map(|row| Remnant {
            backup: row.id.clone(),
            recovery_point: Some(row.recovery_point.min(row.committed)),
            due: self.due(row),
            deadline: self.deadline(row),
            removed: row.removal.and(row.retained_until),
        });
        let known: HashSet<&BackupId> = self.backups.iter().map(|row| &row.id).collect();
        let unknown = self
            .removals
            .iter()
            .filter(|removal| !known.contains(&removal.body.backup) && proofs.gone_at(removal.recorded).is_none());
        let unknown = unknown.map(|removal| Remnant {
            backup: removal.body.backup.clone(),
            recovery_point: None,
            due: None,
            deadline: None,
            removed: Some(removal.recorded),
        });
        rows.chain(unknown).collect()
    }
}

/// What prunes that came through have proven: of what was removed at or before the first moment nothing was left at the
/// second. Ascending by both.
pub(super) struct Proofs(Vec<(DateTime<Utc>, DateTime<Utc>)>);

impl Proofs {
    /// When it was first proven that of what was removed at `removed` nothing was left.
    pub(super) fn gone_at(&self, removed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let first = self.0.partition_point(|(through, _)| *through < removed);
        self.0.get(first).map(|(_, finished)| *finished)
    }
}

impl Remnant {
    /// How far it is on the way from the day when it should have gone to the one when it must be.
    fn stage(&self, now: DateTime<Utc>) -> Option<Stage> {
        match (self.due, self.deadline) {
            (_, Some(deadline)) if deadline <= now => Some(Stage::Past),
            (Some(from), Some(until)) => Way { from, until }.stage(now),
            _ => None,
        }
    }
}

/// What of a job is still to be erased at `now`.
#[must_use]
pub fn erasure_status(facts: &JobFacts, now: DateTime<Utc>) -> ErasureStatus {
    let remnants = facts.remnants();
    let is_pending = |remnant: &&Remnant| remnant.removed.is_some() || remnant.due.is_some_and(|due| due <= now);
    ErasureStatus {
        deadline: remnants.iter().filter_map(|remnant| remnant.deadline).min(),
        oldest_retained_byte: remnants.iter().filter_map(|remnant| remnant.recovery_point).min(),
        pending_backups: remnants.iter().filter(is_pending).count(),
    }
}

/// How far what should be gone, and the last good backup, are on the way to their deadlines: the worst, and its deadline.
pub(super) fn worst_stage(facts: &JobFacts, now: DateTime<Utc>) -> Option<(Stage, DateTime<Utc>)> {
    let last_good = facts.last_good();
    let others = facts.remnants().into_iter().filter(|remnant| last_good.is_none_or(|row| row.id != remnant.backup));
    let others = others.filter_map(|remnant| Some((remnant.stage(now)?, remnant.deadline?)));
    let last = last_good.and_then(|row| {
        let conflict = facts.retention()?.conflict(&[candidate(row)], now)?;
        Some((conflict.stage, conflict.deadline))
    });
    others.chain(last).max_by_key(|(stage, deadline)| (*stage, std::cmp::Reverse(*deadline)))
}

/// Alarms, before a promise is broken where there is still time.
pub(super) fn judge_erasure(findings: &mut Findings, facts: &JobFacts, place: &Where, now: DateTime<Utc>) {
    let last_good = facts.last_good();
    let remnants = facts.remnants();
    let (last, others): (Vec<&Remnant>, Vec<&Remnant>) =
        remnants.iter().partition(|remnant| last_good.is_some_and(|row| row.id == remnant.backup));
    judge_overdue(findings, facts, &others, place, now);
    if let (Some(row), true) = (last_good, !last.is_empty()) {
        judge_last_good(findings, facts, row, place, now);
    }
    judge_prunes(findings, facts, &remnants, place, now);
}

/// What should be gone and is not. The last good backup is another matter.
fn judge_overdue(
    findings: &mut Findings,
    facts: &JobFacts,
    remnants: &[&Remnant],
    Where { there, prune, .. }: &Where,
    now: DateTime<Utc>,
) {
    let late: Vec<(Stage, &Remnant)> =
        remnants.iter().filter_map(|remnant| Some((remnant.stage(now)?, *remnant))).collect();
    let Some((stage, worst, deadline)) = late
        .iter()
        .max_by_key(|(stage, remnant)| (*stage, std::cmp::Reverse(remnant.deadline)))
        .and_then(|(stage, worst)| Some((*stage, *worst, worst.deadline?)))
    else {
        return;
    };
    let more = match late.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more are late"),
    };
    let state = match worst.removed {
        None => format!("is still there{there}"),
        Some(removed) => format!("was removed{there} {}, and its bytes are not proven gone", ago(removed, now)),
    };
    let backup = &worst.backup;
    if stage == Stage::Past {
        let delete_after = facts.promise.delete_after.map(exact_duration).unwrap_or_default();
        findings.add(
            State::Critical,
            format!(
                "erasure deadline breached: backup {backup} is older than {delete_after} and {state}, {} past its \
                 deadline{more}: run {prune}",
                human_duration(elapsed(deadline, now))
            ),
        );
        return;
    }
    let per_cent = stage.percent();
    findings.add(
        state_at(stage),
        format!(
            "backup {backup} should be gone and {state}: {per_cent} % of the time until its deadline {} is over{more}: \
             run {prune}",
            ago(deadline, now)
        ),
    );
}

fn candidate(row: &BackupRow) -> Candidate {
    Candidate { backup: row.id.clone(), recovery_point: row.recovery_point, available_at: row.committed, good: true }
}

/// The last good backup on its way to its deadline: either it or the promise to erase will have to give way.
fn judge_last_good(
    findings: &mut Findings,
    facts: &JobFacts,
    row: &BackupRow,
    Where { there, prune, renew }: &Where,
    now: DateTime<Utc>,
) {
    let Some(retention) = facts.retention() else { return };
    let backup = &row.id;
    let Some(conflict) = retention.conflict(&[candidate(row)], now) else { return };
    let (stage, deadline) = (conflict.stage, conflict.deadline);
    if stage == Stage::Past {
        findings.add(
            State::Critical,
            format!(
                "erasure deadline breached: backup {backup} is the last good one and still there{there}, {} past its \
                 deadline: run {renew}, then {prune}",
                human_duration(elapsed(deadline, now))
            ),
        );
        return;
    }
    let per_cent = stage.percent();
    findings.add(
        state_at(stage),
        format!(
            "the last good backup {backup}{there} must be erased {}, {per_cent} % of the time for that is over, and there is no \
             newer good one: run {renew}",
            ago(deadline, now)
        ),
    );
}

fn judge_prunes(
    findings: &mut Findings,
    facts: &JobFacts,
    remnants: &[Remnant],
    Where { there, prune, .. }: &Where,
    now: DateTime<Utc>,
) {
    let code = |code: &Option<String>| code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
    let newest = facts.prunes.iter().max_by_key(|row| (row.body.finished, row.id.clone()));
    if let Some(last) = newest.map(|row| &row.body) {
        let (code, ago) = (code(&last.error_code), ago(last.finished, now));
        match last.outcome {
            PruneOutcome::Done => {}
            PruneOutcome::Stopped => findings.add(
                State::Critical,
                format!(
                    "the last prune{there} {ago} was stopped{code}, and nothing is erased until somebody looked: {prune} says what \
                     stands in the way"
                ),
            ),
            PruneOutcome::Failed => findings.add(
                State::Warning,
                format!("the last prune{there} failed{code} {ago}: run {prune}"),
            ),
        }
    }
    let due = remnants.iter().filter(|remnant| remnant.removed.is_none()).filter_map(|remnant| remnant.due).min();
    let (Some(due), Some(gap)) = (due.filter(|due| *due <= now), facts.promise.prune_gap) else { return };
    let done = facts.prunes.iter().filter(|row| row.body.outcome == PruneOutcome::Done);
    let done = done.map(|row| row.body.finished).max();
    // Before anything was due, nobody had to prune.
    if elapsed(done.map_or(due, |done| done.max(due)), now) > gap.saturating_mul(PRUNES_MISSED) {
        let last =
            done.map_or_else(|| "there was none yet".to_owned(), |done| format!("the last ended {}", ago(done, now)));
        findings.add(
            State::Warning,
            format!(
                "retention is not applied{there}: a backup is due since {}, prunes are at most {} apart, and no prune has \
                 succeeded since ({last}): run {prune}",
                human_duration(elapsed(due, now)),
                exact_duration(gap)
            ),
        );
    }
}

fn state_at(stage: Stage) -> State {
    match stage {
        Stage::Half | Stage::ThreeQuarters => State::Warning,
        Stage::NineTenths | Stage::Past => State::Critical,
    }
}

fn after(moment: DateTime<Utc>, by: Duration) -> Option<DateTime<Utc>> {
    moment.checked_add_signed(TimeDelta::from_std(by).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{QuarantineRecord, RemovalReason, RemovalRecord};
    use crate::evidence::facts::Unbelieved;
    use crate::evidence::samples::*;
    use crate::evidence::status::job_status;

    fn after_now(by: Duration) -> DateTime<Utc> {
        now() + TimeDelta::from_std(by).unwrap()
    }

    /// How bad the reason is that says this, if one does.
    fn said(facts: &JobFacts, moment: DateTime<Utc>, what: &str) -> Option<State> {
        let mut findings = Findings::default();
        judge_erasure(&mut findings, facts, &Where::vault(&facts.job), moment);
        findings.found(what)
    }

    #[test]
    fn removed_bytes_count_until_a_prune_has_come_through() {
        let mut facts = erasing();
        let status = job_status(&facts, now());
        assert_eq!((status.state, status.reasons), (State::Ok, vec![]));
        assert_eq!(
            status.erasure,
            ErasureStatus {
                deadline: Some(after_now(hours(15))),
                oldest_retained_byte: Some(before_now(hours(57))),
                pending_backups: 2,
            }
        );
        facts.prunes.push(prune(123, before_now(hours(1)), PruneOutcome::Done, Some(before_now(hours(7)))));
        let erasure = erasure_status(&facts, now());
        assert_eq!((erasure.oldest_retained_byte, erasure.pending_backups), (Some(before_now(hours(51))), 1));
        // Of what nobody could believe only the removal is known.
        let removal = RemovalRecord {
            backup: BackupId::from_random([77; 8]),
            summary: None,
            reason: RemovalReason::Quarantined,
            gone: vec![],
        };
        facts.removals.push(record(124, before_now(hours(1)), removal));
        let erasure = erasure_status(&facts, now());
        assert_eq!((erasure.oldest_retained_byte, erasure.pending_backups), (Some(before_now(hours(51))), 2));
    }

    #[test]
    fn alarms_come_on_the_way_to_the_deadline() {
        let facts = erasing();
        let shop = "should be gone and was removed";
        assert_eq!(said(&facts, after_now(hours(2)), shop), None);
        assert_eq!(said(&facts, after_now(hours(4)), "50 % of the time"), Some(State::Warning));
        assert_eq!(said(&facts, after_now(hours(10)), "75 % of the time"), Some(State::Warning));
        assert_eq!(said(&facts, after_now(hours(13)), "90 % of the time"), Some(State::Critical));
        assert_eq!(said(&facts, after_now(hours(13)), shop), Some(State::Critical));
        assert_eq!(said(&facts, after_now(hours(16)), "erasure deadline breached"), Some(State::Critical));
        assert_eq!(said(&facts, after_now(hours(16)), "and its bytes are not proven gone"), Some(State::Critical));
        // By then the next two are late as well, and still there.
        assert_eq!(said(&facts, after_now(hours(16)), "and 2 more are late"), Some(State::Critical));
        let mut swept = facts;
        swept.prunes.push(prune(123, now(), PruneOutcome::Done, Some(now())));
        assert_eq!(said(&swept, after_now(hours(4)), "of the time"), None);
        assert_eq!(said(&swept, after_now(hours(22)), "erasure deadline breached"), Some(State::Critical));
        assert_eq!(said(&swept, after_now(hours(22)), "is still there"), Some(State::Critical));
    }

    #[test]
    fn the_last_good_backup_has_alarms_of_its_own() {
        let mut facts = erasing();
        let old = backup(1, before_now(hours(40)));
        facts.backups = vec![old];
        facts.removals.clear();
        let what = "the last good backup";
        // From a day on, when it is old enough to go, to three.
        assert_eq!(said(&facts, after_now(hours(7)), what), None);
        assert_eq!(said(&facts, after_now(hours(9)), what), Some(State::Warning));
        assert_eq!(said(&facts, after_now(hours(21)), "75 % of the time"), Some(State::Warning));
        assert_eq!(said(&facts, after_now(hours(29)), what), Some(State::Critical));
        assert_eq!(said(&facts, after_now(hours(29)), "should be gone"), None);
        assert_eq!(said(&facts, after_now(hours(33)), "is the last good one and still there"), Some(State::Critical));
        // A refuted one does not relieve it, a good one does: then it is late like any other.
        facts.backups.push(backup(2, before_now(hours(1))));
        facts.refutations.push(refutation(90, now(), &facts.backups[1].id.clone(), 1));
        assert_eq!(said(&facts, after_now(hours(29)), what), Some(State::Critical));
        facts.refutations.clear();
        assert_eq!(said(&facts, after_now(hours(29)), what), None);
        assert_eq!(said(&facts, after_now(hours(29)), "should be gone"), Some(State::Warning));
    }

    #[test]
    fn prunes_that_do_not_come_through_are_told() {
        let mut facts = erasing();
        assert_eq!(said(&facts, after_now(hours(8)), "retention is not applied"), None);
        assert_eq!(said(&facts, after_now(hours(10)), "retention is not applied"), Some(State::Warning));
        facts.prunes.push(prune(123, now(), PruneOutcome::Stopped, None));
        assert_eq!(said(&facts, now(), "was stopped (deletion-stopped)"), Some(State::Critical));
        assert_eq!(said(&facts, now(), "`lifeboat prune shop`"), Some(State::Critical));
        facts.prunes.push(prune(124, after_now(minutes(1)), PruneOutcome::Failed, None));
        assert_eq!(said(&facts, after_now(hours(1)), "was stopped"), None);
        assert_eq!(said(&facts, after_now(hours(1)), "the last prune failed"), Some(State::Warning));
        facts.prunes.push(prune(125, after_now(hours(2)), PruneOutcome::Done, None));
        assert_eq!(said(&facts, after_now(hours(2)), "the last prune"), None);
        assert_eq!(said(&facts, after_now(hours(13)), "retention is not applied"), None);
        // A job that never pruned, and has nothing due, is not blamed.
        let healthy = healthy();
        assert_eq!(said(&healthy, now(), ""), None);
    }

    #[test]
    fn one_record_that_speaks_of_the_future_proves_nothing() {
        let mut facts = erasing();
        let before = erasure_status(&facts, now());
        assert_eq!(before.pending_backups, 2);
        facts.prunes.push(prune(123, before_now(hours(1)), PruneOutcome::Done, Some(after_now(hours(1)))));
        assert_eq!(erasure_status(&facts, now()), before, "it was not written then");
        // It says what held after it had ended.
        let mut early = prune(124, before_now(hours(8)), PruneOutcome::Done, Some(before_now(hours(1))));
        early.recorded = now();
        facts.prunes.push(early);
        assert_eq!(erasure_status(&facts, now()), before, "the backup was removed after it had ended");
        // Clocks of two machines are never quite alike.
        let ahead = Some(before_now(hours(1)) + CLOCK_TOLERANCE);
        facts.prunes.push(prune(125, before_now(hours(1)), PruneOutcome::Done, ahead));
        assert_eq!(erasure_status(&facts, now()).pending_backups, 1);
    }

    #[test]
    fn the_first_prune_that_proves_it_counts_in_any_order() {
        let mut facts = erasing();
        facts.prunes.reverse();
        let proofs = facts.proofs();
        assert_eq!(proofs.gone_at(before_now(hours(20))), Some(before_now(hours(18))));
        assert_eq!(proofs.gone_at(before_now(hours(19))), Some(before_now(hours(12))));
        assert_eq!(proofs.gone_at(before_now(hours(8))), Some(before_now(hours(7))));
        assert_eq!(proofs.gone_at(before_now(hours(7))), None);
    }

    #[test]
    fn what_somebody_set_aside_is_not_the_last_good_one() {
        let mut facts = erasing();
        facts.removals.clear();
        facts.backups = vec![backup(1, before_now(hours(40))), backup(2, before_now(hours(1)))];
        let what = "the last good backup 0101010101010101";
        assert_eq!(said(&facts, after_now(hours(29)), what), None);
        let aside = QuarantineRecord { backup: Some(facts.backups[1].id.clone()), gone: vec![] };
        facts.quarantines.push(record(126, now(), aside));
        assert_eq!(said(&facts, after_now(hours(29)), what), Some(State::Critical));
    }

    #[test]
    fn a_manifest_that_is_not_believed_erases_nothing() {
        let mut facts = erasing();
        let before = erasure_status(&facts, now());
        for place in [3, 4] {
            facts.backups[place].retained_until = Some(now());
        }
        assert_ne!(erasure_status(&facts, now()), before, "what is gone is gone");
        facts.quarantined.push(facts.backups[3].id.clone());
        let backup = facts.backups[4].id.clone();
        facts.unbelieved.push(Unbelieved { backup, why: "its signature is wrong".to_owned() });
        assert_eq!(erasure_status(&facts, now()), before);
    }

    #[test]
    fn a_quarantine_alone_erases_nothing() {
        let mut facts = erasing();
        let backup = facts.backups[3].id.clone();
        let before = erasure_status(&facts, now());
        facts.quarantines.push(record(126, now(), QuarantineRecord { backup: Some(backup), gone: vec![] }));
        assert_eq!(erasure_status(&facts, now()), before);
    }
}
