//! What should be erased by when, and whether it was.
//!
//! A backup is removed when its manifest goes, and erased when a prune that came through has said of that moment that
//! nothing older than it is left (`clean_through`). Until then its bytes count as there, whoever cannot read them any
//! more. What the store keeps behind the vault's back (snapshots, versions) is not known here.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::facts::JobFacts;
use super::status::{Findings, State, ago, elapsed};
use crate::catalog::{BackupRow, Verdict};
use crate::domain::ids::BackupId;
use crate::domain::manifest::Completeness;
use crate::domain::quantity::{exact_duration, human_duration};
use crate::domain::record::PruneOutcome;

/// From so much of the way to a deadline on, in per cent, somebody is told.
pub const WARN_PER_CENT: [u32; 2] = [50, 75];
/// From so much of it on it is critical.
pub const CRITICAL_PER_CENT: u32 = 90;
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

    /// When a prune had proven that of what was removed at `removed` nothing was left.
    pub(super) fn proven_gone_at(&self, removed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let clean = self.prunes.iter().filter(|row| row.body.clean_through.is_some_and(|through| through >= removed));
        clean.map(|row| row.body.finished).min()
    }

    /// When a backup was gone to the last byte, as far as is known. One that disappeared without a record of its
    /// removal was gone when that was seen.
    pub(super) fn gone_at(&self, row: &BackupRow) -> Option<DateTime<Utc>> {
        match (row.retained_until, row.removal) {
            (Some(removed), Some(_)) => self.proven_gone_at(removed),
            (seen_gone, _) => seen_gone,
        }
    }

    /// The newest complete backup that is there and that nothing refutes.
    fn last_good(&self) -> Option<&BackupRow> {
        let there = self.backups.iter().filter(|row| row.retained_until.is_none());
        let good = there.filter(|row| row.completeness == Completeness::Complete);
        good.filter(|row| self.verdict(&row.id) != Verdict::Refuted)
            .max_by_key(|row| (row.recovery_point, row.committed, row.id.clone()))
    }

    /// Every backup of which bytes may be there.
    pub(super) fn remnants(&self) -> Vec<Remnant> {
        let rows = self.backups.iter().filter(|row| self.gone_at(row).is_none()).map(|row| Remnant {
            backup: row.id.clone(),
            recovery_point: Some(row.recovery_point.min(row.committed)),
            due: self.due(row),
            deadline: self.deadline(row),
            removed: row.retained_until,
        });
        let unknown = self.removals.iter().filter(|removal| {
            !self.backups.iter().any(|row| row.id == removal.body.backup)
                && self.proven_gone_at(removal.recorded).is_none()
        });
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

/// Alarms, before a promise is broken where there is still time.
pub(super) fn judge_erasure(findings: &mut Findings, facts: &JobFacts, now: DateTime<Utc>) {
    let last_good = facts.last_good();
    let remnants = facts.remnants();
    let (last, others): (Vec<&Remnant>, Vec<&Remnant>) =
        remnants.iter().partition(|remnant| last_good.is_some_and(|row| row.id == remnant.backup));
    judge_overdue(findings, facts, &others, now);
    if let (Some(row), true) = (last_good, !last.is_empty()) {
        judge_last_good(findings, facts, row, now);
    }
    judge_prunes(findings, facts, &remnants, now);
}

/// What should be gone and is not. The last good backup is another matter.
fn judge_overdue(findings: &mut Findings, facts: &JobFacts, remnants: &[&Remnant], now: DateTime<Utc>) {
    let job = &facts.job;
    let far = |remnant: &Remnant| match (remnant.due, remnant.deadline) {
        (_, Some(deadline)) if deadline < now => 100,
        (Some(due), Some(deadline)) => per_cent_of_way(due, deadline, now),
        _ => 0,
    };
    let late: Vec<&&Remnant> = remnants.iter().filter(|remnant| far(remnant) >= WARN_PER_CENT[0]).collect();
    let Some((worst, deadline)) = late
        .iter()
        .max_by_key(|remnant| (far(remnant), std::cmp::Reverse(remnant.deadline)))
        .and_then(|worst| Some((worst, worst.deadline?)))
    else {
        return;
    };
    let more = match late.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more are late"),
    };
    let state = match worst.removed {
        None => "is still there".to_owned(),
        Some(removed) => format!("was removed {}, and its bytes are not proven gone", ago(removed, now)),
    };
    let backup = &worst.backup;
    if deadline < now {
        let delete_after = facts.promise.delete_after.map(exact_duration).unwrap_or_default();
        findings.add(
            State::Critical,
            format!(
                "erasure deadline breached: backup {backup} is older than {delete_after} and {state}, {} past its \
                 deadline{more}: run `lifeboat prune {job}`",
                human_duration(elapsed(deadline, now))
            ),
        );
        return;
    }
    let (state_of_job, per_cent) = stage(far(worst));
    findings.add(
        state_of_job,
        format!(
            "backup {backup} should be gone and {state}: {per_cent} % of the time until its deadline {} is over{more}: \
             run `lifeboat prune {job}`",
            ago(deadline, now)
        ),
    );
}

/// The last good backup on its way to its deadline: either it or the promise to erase will have to give way.
fn judge_last_good(findings: &mut Findings, facts: &JobFacts, row: &BackupRow, now: DateTime<Utc>) {
    let (Some(from), Some(deadline)) = (facts.kept_until(row), facts.deadline(row)) else { return };
    let (job, backup) = (&facts.job, &row.id);
    if deadline < now {
        findings.add(
            State::Critical,
            format!(
                "erasure deadline breached: backup {backup} is the last good one and still there, {} past its \
                 deadline: run `lifeboat backup {job}`, then `lifeboat prune {job}`",
                human_duration(elapsed(deadline, now))
            ),
        );
        return;
    }
    let far = per_cent_of_way(from, deadline, now);
    if far < WARN_PER_CENT[0] {
        return;
    }
    let (state, per_cent) = stage(far);
    findings.add(
        state,
        format!(
            "the last good backup {backup} must be erased {}, {per_cent} % of the time for that is over, and there is no \
             newer good one: run `lifeboat backup {job}`",
            ago(deadline, now)
        ),
    );
}

fn judge_prunes(findings: &mut Findings, facts: &JobFacts, remnants: &[Remnant], now: DateTime<Utc>) {
    let job = &facts.job;
    let code = |code: &Option<String>| code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
    let newest = facts.prunes.iter().max_by_key(|row| (row.body.finished, row.id.clone()));
    if let Some(last) = newest.map(|row| &row.body) {
        let (code, ago) = (code(&last.error_code), ago(last.finished, now));
        match last.outcome {
            PruneOutcome::Done => {}
            PruneOutcome::Stopped => findings.add(
                State::Critical,
                format!(
                    "the last prune {ago} was stopped{code}, and nothing is erased until somebody looked: `lifeboat prune \
                     {job}` says what stands in the way"
                ),
            ),
            PruneOutcome::Failed => findings.add(
                State::Warning,
                format!("the last prune failed{code} {ago}: run `lifeboat prune {job} -v`"),
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
                "retention is not applied: a backup is due since {}, prunes are at most {} apart, and no prune has \
                 succeeded since ({last}): run `lifeboat prune {job}`",
                human_duration(elapsed(due, now)),
                exact_duration(gap)
            ),
        );
    }
}

/// How bad it is, and the last mark that was passed.
fn stage(per_cent: u32) -> (State, u32) {
    match per_cent {
        CRITICAL_PER_CENT.. => (State::Critical, CRITICAL_PER_CENT),
        _ => (State::Warning, WARN_PER_CENT.into_iter().rfind(|mark| *mark <= per_cent).unwrap_or(per_cent)),
    }
}

/// How much of a way is behind: 0 before it begins, 100 at its end.
fn per_cent_of_way(from: DateTime<Utc>, until: DateTime<Utc>, now: DateTime<Utc>) -> u32 {
    if now >= until {
        return 100;
    }
    let (behind, whole) = ((now - from).num_milliseconds(), (until - from).num_milliseconds());
    if behind <= 0 || whole <= 0 {
        return 0;
    }
    u32::try_from(i128::from(behind) * 100 / i128::from(whole)).unwrap_or(100)
}

fn after(moment: DateTime<Utc>, by: Duration) -> Option<DateTime<Utc>> {
    moment.checked_add_signed(TimeDelta::from_std(by).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{QuarantineRecord, RemovalReason, RemovalRecord};
    use crate::evidence::samples::*;
    use crate::evidence::status::job_status;

    fn after_now(by: Duration) -> DateTime<Utc> {
        now() + TimeDelta::from_std(by).unwrap()
    }

    /// How bad the reason is that says this, if one does.
    fn said(facts: &JobFacts, moment: DateTime<Utc>, what: &str) -> Option<State> {
        let mut findings = Findings::default();
        judge_erasure(&mut findings, facts, moment);
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
    fn a_quarantine_alone_erases_nothing() {
        let mut facts = erasing();
        let backup = facts.backups[3].id.clone();
        let before = erasure_status(&facts, now());
        facts.quarantines.push(record(126, now(), QuarantineRecord { backup: Some(backup), gone: vec![] }));
        assert_eq!(erasure_status(&facts, now()), before);
    }
}
