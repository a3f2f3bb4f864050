//! The second vault of a job: how old the newest recovery point in it is, how the last copies went, and what is still to be
//! erased there.
//!
//! It is there for the day on which the first one is lost. So what a loss would cost then is held against the same RPO, and
//! what lies there for too long against the same `delete_after`.
//!
//! Nothing says when a removal that `copy` brought along got there: its record has the time at which the first vault removed
//! the backup. So a backup counts as removed from the copy when the first copy that began after that was over.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checks::{CheckEntry, last_check, newest, not_well};
use super::erasure::{ErasureStatus, Where, erasure_status, judge_erasure};
use super::facts::JobFacts;
use super::status::{Findings, State, ago};
use crate::catalog::{
    BackupRow, CheckRow, CopyRow, DrillRow, PruneRow, QuarantineRow, RefutationRow, RemovalRow, Verdict, verdict,
};
use crate::domain::ids::{JobName, RecordId};
use crate::domain::manifest::Completeness;
use crate::domain::objectives::Exposure;
use crate::domain::quantity::{exact_duration, human_duration};
use crate::domain::record::CopyOutcome;

/// What is known of a job's copy.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyFacts {
    /// The vault's name in the config.
    pub to: String,
    /// The backups in it, as the catalog knows them, removed ones too.
    pub backups: Vec<BackupRow>,
    /// Why they were removed there: what its own prunes took out, and what the first vault had removed.
    pub removals: Vec<RemovalRow>,
    /// What a person decided to go on without there.
    pub quarantines: Vec<QuarantineRow>,
    /// The drills that its records tell of.
    pub drills: Vec<DrillRow>,
    /// What was found wrong there.
    pub refutations: Vec<RefutationRow>,
    /// The prunes of it.
    pub prunes: Vec<PruneRow>,
    /// The runs of `copy` to it, newest last.
    pub copies: Vec<CopyRow>,
    /// The checks of it, newest last.
    pub checks: Vec<CheckRow>,
    /// How long before `delete_after` a backup goes there in normal running.
    pub erasing_lead: Option<Duration>,
    /// The longest time between two prunes of it, where they follow copies with a schedule.
    pub prune_gap: Option<Duration>,
    /// Whether this host prunes it, after its copies.
    pub prunes_here: bool,
    /// Whether the last copy that got there is this host's; `None` where that cannot be said.
    pub is_own: Option<bool>,
    /// When the schedule fires next.
    pub next: Option<DateTime<Utc>>,
}

/// How the second vault stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopyStatus {
    /// Its name in the config.
    pub vault: String,
    /// The worst of what was found.
    pub state: State,
    /// Where a restore from it would go back to.
    pub recovery_point: Option<DateTime<Utc>>,
    /// How much would be lost, were the first vault lost now: seconds, or `unbounded`.
    #[serde(rename = "now_seconds")]
    pub now: Exposure,
    /// Backups in it.
    pub backups: u64,
    /// What is still to be erased there; `None` where this host has not looked there since the last copy.
    pub erasure: Option<ErasureStatus>,
    /// When it was last brought up to date.
    pub last_success: Option<DateTime<Utc>>,
    /// How the last copy ended.
    pub last_copy: Option<LastCopy>,
    /// How the last check of it ended.
    pub last_check: Option<CheckEntry>,
    /// When the next one is due.
    pub next_copy: Option<DateTime<Utc>>,
}

/// How the last run of `copy` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastCopy {
    /// How.
    pub outcome: CopyOutcome,
    /// When.
    pub finished: DateTime<Utc>,
    /// Backups that it brought there.
    pub copied_backups: u64,
    /// Backups that it could not bring there.
    pub left_backups: u64,
    /// Bytes that it sent.
    pub new_bytes: u64,
    /// The code of the first thing that went wrong.
    pub error_code: Option<String>,
}

impl CopyFacts {
    fn is_refuted(&self, row: &BackupRow) -> bool {
        verdict(&row.id, &self.drills, &self.refutations) == Verdict::Refuted
    }

    /// The copies that got as far as the records, newest last.
    fn carrying(&self) -> impl DoubleEndedIterator<Item = &CopyRow> {
        self.copies.iter().filter(|row| row.body.outcome != CopyOutcome::Failed)
    }

    /// Whether this host knows what is there: whoever copies looks first, and whoever has heard of a later prune looked
    /// since.
    fn is_known(&self) -> bool {
        let Some(last) = self.carrying().next_back() else { return false };
        self.is_own == Some(true) || self.prunes.iter().any(|row| row.body.finished >= last.body.started)
    }
}

impl JobFacts {
    /// The job as the second vault has it, where this host knows what is there.
    pub(super) fn in_copy(&self) -> Option<Self> {
        let copy = self.copy.as_ref().filter(|copy| copy.is_known())?;
        let carried: HashSet<&RecordId> = self.removals.iter().map(|row| &row.id).collect();
        let first = copy.copies.iter().map(|row| row.body.started).min()?;
        let backups = copy.backups.iter().filter_map(|row| {
            let why: Vec<&RemovalRow> = copy.removals.iter().filter(|found| found.body.backup == row.id).collect();
            // It was gone before there was a copy: only the record was brought there.
            if why.iter().any(|found| carried.contains(&found.id) && found.recorded < first) {
                return None;
            }
            let removed = why.iter().filter_map(|found| match carried.contains(&found.id) {
                true => self.arrived(copy, row, found.recorded),
                false => Some(found.recorded),
            });
            let retained_until = removed.min();
            Some(BackupRow { retained_until, removal: retained_until.and(row.removal), ..row.clone() })
        });
        let mut facts = Self {
            backups: backups.collect(),
            removals: copy.removals.iter().filter(|row| !carried.contains(&row.id)).cloned().collect(),
            quarantines: copy.quarantines.clone(),
            drills: copy.drills.clone(),
            refutations: copy.refutations.clone(),
            prunes: copy.prunes.clone(),
            unbelieved: Vec::new(),
            quarantined: Vec::new(),
            copy: None,
            ..self.clone()
        };
        (facts.promise.erasing_lead, facts.promise.prune_gap) = (copy.erasing_lead, copy.prune_gap);
        Some(facts)
    }

    /// When the copy had heard for certain that a backup was removed at `removed`: it believes no removal of what is not as
    /// old as it must become.
    fn arrived(&self, copy: &CopyFacts, row: &BackupRow, removed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let from = self.kept_until(row).map_or(removed, |kept_until| kept_until.max(removed));
        copy.carrying().find(|run| run.body.started >= from).map(|run| run.body.finished)
    }
}

/// Judges the copy of a job at `now`; what was found goes to the job's findings too. `None` where it has none.
pub(super) fn copy_status(findings: &mut Findings, job: &JobFacts, now: DateTime<Utc>) -> Option<CopyStatus> {
    let facts = job.copy.as_ref()?;
    let rpo = job.promise.objectives.rpo;
    let mut found = Findings::default();
    let in_copy = job.in_copy();
    if let Some(in_copy) = &in_copy {
        judge_erasure(&mut found, in_copy, &Where::copy(&job.job, &facts.to, facts.prunes_here), now);
    }
    let status = judged(&mut found, &job.job, facts, rpo, now);
    let erasure = in_copy.map(|in_copy| erasure_status(&in_copy, now));
    let state = findings.take(found);
    Some(CopyStatus { state, erasure, ..status })
}

fn judged(
    findings: &mut Findings,
    job: &JobName,
    facts: &CopyFacts,
    rpo: Option<Duration>,
    now: DateTime<Utc>,
) -> CopyStatus {
    let there: Vec<&BackupRow> = facts.backups.iter().filter(|row| row.retained_until.is_none()).collect();
    let counts = |row: &&&BackupRow| row.completeness == Completeness::Complete && !facts.is_refuted(row);
    let recovery_point = there.iter().filter(counts).map(|row| row.recovery_point).max();
    let age = recovery_point.map(|point| (now - point).to_std().unwrap_or_default());
    let last = facts.copies.last();
    let to = &facts.to;
    match (last, age, rpo) {
        (None, None, _) => {
            findings.add(State::Warning, format!("nothing was ever copied to {to}: run `lifeboat copy {job}`"));
        }
        (_, None, _) => {
            // What is copied stays refuted: a newer backup brings the bytes anew.
            let backup = if there.is_empty() { String::new() } else { format!("`lifeboat backup {job}`, then ") };
            findings.add(
                State::Critical,
                format!(
                    "the copy in {to} has no backup that counts, were the vault lost everything would be: run {backup}`lifeboat copy {job}`"
                ),
            );
        }
        (_, Some(age), Some(rpo)) if age > rpo => findings.add(
            State::Critical,
            format!(
                "were the vault lost now, the copy in {to} would go back {}, the RPO is {}: run `lifeboat copy {job}`",
                human_duration(age),
                exact_duration(rpo)
            ),
        ),
        (_, Some(_), _) => {}
    }
    if let Some(last) = last {
        let code = last.body.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        let ago = ago(last.body.finished, now);
        match last.body.outcome {
            CopyOutcome::Success => {}
            CopyOutcome::Partial => {
                let left = last.body.left_backups;
                let what = if left == 1 { "1 thing was".to_owned() } else { format!("{left} things were") };
                findings.add(
                    State::Warning,
                    format!("{what} not copied to {to}{code} {ago}: run `lifeboat copy {job}`, it says what and why"),
                );
            }
            CopyOutcome::Failed => {
                findings.add(
                    State::Warning,
                    format!("the last copy to {to} failed{code} {ago}: run `lifeboat copy {job}`"),
                );
            }
        }
    }
    if let Some(last) = newest(&facts.checks) {
        let command = format!("lifeboat check {job} --vault {to}");
        let reason = not_well(&last.body, &format!(" of the copy in {to}"), &command, now);
        if let Some(reason) = reason {
            findings.add(State::Warning, reason);
        }
    }
    let succeeded = facts.copies.iter().filter(|row| row.body.outcome == CopyOutcome::Success);
    CopyStatus {
        vault: to.clone(),
        state: State::Ok,
        recovery_point,
        now: age.map_or(Exposure::Unbounded, Exposure::Of),
        backups: there.len() as u64,
        erasure: None,
        last_success: succeeded.map(|row| row.body.finished).max(),
        last_copy: last.map(|row| LastCopy {
            outcome: row.body.outcome,
            finished: row.body.finished,
            copied_backups: row.body.copied_backups,
            left_backups: row.body.left_backups,
            new_bytes: row.body.new_bytes,
            error_code: row.body.error_code.clone(),
        }),
        last_check: last_check(&facts.checks),
        next_copy: facts.next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{CopyRecord, PruneOutcome};
    use crate::evidence::lasting::lasting;
    use crate::evidence::samples::{backup, before_now, erasing, healthy, hours, now, prune, record};
    use crate::evidence::status::job_status;

    fn run(number: u8, started: DateTime<Utc>, outcome: CopyOutcome) -> CopyRow {
        let finished = started + chrono::TimeDelta::minutes(10);
        let body = CopyRecord {
            outcome,
            to: "offsite".to_owned(),
            started,
            finished,
            duration_seconds: 600.0,
            backup: None,
            recovery_point: None,
            backups: 1,
            copied_backups: 1,
            left_backups: u64::from(outcome == CopyOutcome::Partial),
            new_objects: 1,
            new_bytes: 1,
            error_code: None,
        };
        record(number, finished, body)
    }

    fn facts(backups: Vec<BackupRow>, copies: Vec<CopyRow>) -> CopyFacts {
        CopyFacts {
            to: "offsite".to_owned(),
            backups,
            removals: vec![],
            quarantines: vec![],
            drills: vec![],
            refutations: vec![],
            prunes: vec![],
            copies,
            checks: vec![],
            erasing_lead: Some(hours(24)),
            prune_gap: Some(hours(6)),
            prunes_here: true,
            is_own: Some(true),
            next: None,
        }
    }

    fn with(copy: CopyFacts, rpo: Option<u64>) -> JobFacts {
        let mut facts = healthy();
        facts.promise.objectives.rpo = rpo.map(hours);
        facts.copy = Some(copy);
        facts
    }

    #[test]
    fn the_copy_is_held_against_the_same_rpo() {
        let judged = |backups: Vec<BackupRow>, copies: Vec<CopyRow>, rpo: Option<u64>| {
            let mut findings = Findings::default();
            let status = copy_status(&mut findings, &with(facts(backups, copies), rpo), now()).unwrap();
            let (state, reasons) = findings.judged();
            assert_eq!(state, status.state);
            (status, reasons.join("; "))
        };
        let ran = |outcome| vec![run(1, before_now(hours(1)), outcome)];
        let old = || vec![backup(1, before_now(hours(30)))];
        let (never, says) = judged(vec![], vec![], Some(24));
        assert_eq!((never.state, never.now), (State::Warning, Exposure::Unbounded), "{says}");
        let (fine, says) = judged(old(), ran(CopyOutcome::Success), Some(48));
        assert_eq!((fine.state, &says[..]), (State::Ok, ""));
        assert_eq!((fine.backups, fine.recovery_point), (1, Some(before_now(hours(30)))));
        let (late, says) = judged(old(), ran(CopyOutcome::Success), Some(24));
        assert_eq!(late.state, State::Critical);
        assert!(says.contains("would go back") && says.contains("the RPO is 24h"), "{says}");
        assert_eq!(judged(old(), ran(CopyOutcome::Partial), None).0.state, State::Warning);
        assert_eq!(judged(old(), ran(CopyOutcome::Failed), None).0.state, State::Warning);
        // What was erased there, or refuted, counts no more.
        let mut gone = old();
        gone[0].retained_until = Some(now());
        assert_eq!(judged(gone, ran(CopyOutcome::Success), None).0.state, State::Critical);
    }

    /// The job of `erasing`, whose copy has everything: copied and pruned every six hours until an hour ago.
    fn copied() -> JobFacts {
        let mut job = erasing();
        let mut backups = job.backups.clone();
        backups.iter_mut().for_each(|row| (row.retained_until, row.removal) = (None, None));
        let rounds = (0..12).rev().map(|round| before_now(hours(1 + 6 * round)));
        let mut copy = facts(backups, vec![]);
        for (number, at) in rounds.enumerate() {
            let ended = at + chrono::TimeDelta::minutes(30);
            copy.copies.push(run(130 + number as u8, at, CopyOutcome::Success));
            copy.prunes.push(prune(150 + number as u8, ended, PruneOutcome::Done, None));
        }
        job.copy = Some(copy);
        job
    }

    /// Removes a backup from the copy: with a record of the first vault's, or one of its own.
    fn remove(job: &mut JobFacts, place: usize, removal: RemovalRow) {
        let reason = removal.body.reason;
        let copy = job.copy.as_mut().unwrap();
        (copy.backups[place].retained_until, copy.backups[place].removal) = (Some(removal.recorded), Some(reason));
        copy.removals.push(removal);
    }

    fn proves(job: &mut JobFacts, ended: DateTime<Utc>, through: DateTime<Utc>) {
        job.copy.as_mut().unwrap().prunes.push(prune(170, ended, PruneOutcome::Done, Some(through)));
    }

    fn of_copy(job: &JobFacts, at: DateTime<Utc>) -> (Option<ErasureStatus>, State, String) {
        let status = job_status(job, at);
        let copy = status.copy.unwrap();
        (copy.erasure, copy.state, status.reasons.join("\n"))
    }

    #[test]
    fn what_lies_in_the_copy_too_long_is_told_like_in_the_vault() {
        let job = copied();
        let (erasure, state, _) = of_copy(&job, before_now(hours(20)));
        let oldest = job.backups[0].recovery_point;
        let deadline = oldest + chrono::TimeDelta::hours(72);
        assert_eq!(
            erasure.as_ref().map(|it| (it.deadline, it.oldest_retained_byte)),
            Some((Some(deadline), Some(oldest)))
        );
        assert_eq!(state, State::Ok);
        let (_, state, says) = of_copy(&job, deadline - chrono::TimeDelta::hours(2));
        assert_eq!(state, State::Critical);
        assert!(says.contains("should be gone and is still there in the copy offsite: 90 % of the time"), "{says}");
        assert!(says.contains("run `lifeboat prune shop --vault offsite`"), "{says}");
        let (_, state, says) = of_copy(&job, deadline + chrono::TimeDelta::hours(2));
        assert_eq!(state, State::Critical);
        assert!(says.contains("is older than 3d and is still there in the copy offsite"), "{says}");
        // Whoever is told of what lasts is told of this too, even where all is well in the vault.
        let mut erased = job;
        erased.backups.truncate(0);
        erased.removals.truncate(0);
        let told = lasting(&erased, &[], deadline + chrono::TimeDelta::hours(2));
        assert_eq!(told.iter().map(|it| (it.trouble.level, it.deadline)).collect::<Vec<_>>(), [(100, Some(deadline))]);
    }

    #[test]
    fn what_the_first_vault_removed_counts_from_when_the_copy_heard_of_it() {
        let mut job = copied();
        let removal = job.removals[0].clone();
        assert_eq!((removal.recorded, &removal.body.backup), (before_now(hours(19)), &job.backups[0].id));
        remove(&mut job, 0, removal);
        job.copy.as_mut().unwrap().backups.truncate(1);
        let pending = |job: &JobFacts| of_copy(job, now()).0.unwrap().pending_backups;
        // The copy that brought it began right then, and took ten minutes.
        let arrived = before_now(hours(19)) + chrono::TimeDelta::minutes(10);
        let mut early = job.clone();
        proves(&mut early, before_now(hours(1)), arrived - chrono::TimeDelta::minutes(1));
        assert_eq!(pending(&early), 1, "what the prune says is of before");
        let mut proven = job.clone();
        proves(&mut proven, before_now(hours(1)), arrived);
        assert_eq!(pending(&proven), 0);
        // A copy that failed may have brought nothing: then the next one did.
        let mut failed = proven.clone();
        let copies = &mut failed.copy.as_mut().unwrap().copies;
        let brought = copies.iter_mut().find(|run| run.body.started == before_now(hours(19))).unwrap();
        brought.body.outcome = CopyOutcome::Failed;
        assert_eq!(pending(&failed), 1);
        proves(&mut failed, before_now(hours(1)), before_now(hours(12)));
        assert_eq!(pending(&failed), 0);
        // What its own prune took out, was out at once.
        let mut own = copied();
        let removal = RemovalRow { id: RecordId::from_random([200; 8]), ..own.removals[0].clone() };
        remove(&mut own, 0, removal);
        own.copy.as_mut().unwrap().backups.truncate(1);
        proves(&mut own, before_now(hours(1)), before_now(hours(19)));
        assert_eq!(pending(&own), 0);
    }

    #[test]
    fn what_was_gone_before_there_was_a_copy_was_never_in_it() {
        let mut job = copied();
        let removal = job.removals[0].clone();
        remove(&mut job, 0, removal);
        job.copy.as_mut().unwrap().backups.truncate(1);
        assert!(of_copy(&job, now()).0.unwrap().oldest_retained_byte.is_some());
        job.copy.as_mut().unwrap().copies.retain(|run| run.body.started > before_now(hours(19)));
        assert_eq!(
            of_copy(&job, now()).0,
            Some(ErasureStatus { deadline: None, oldest_retained_byte: None, pending_backups: 0 })
        );
    }

    #[test]
    fn who_has_not_looked_there_since_the_last_copy_does_not_judge() {
        let mut job = copied();
        let late = now() + chrono::TimeDelta::hours(200);
        let is_told = |job: &JobFacts| {
            let (erasure, _, says) = of_copy(job, late);
            assert_eq!(erasure.is_some(), says.contains("in the copy offsite"), "{says}");
            erasure.is_some()
        };
        // Whose copies they are, the vault must be asked for; prunes are evidence enough.
        for (is_own, with_the_last_prune, told) in [
            (None, true, true),
            (Some(false), true, true),
            (Some(true), false, true),
            (None, false, false),
            (Some(false), false, false),
        ] {
            let copy = job.copy.as_mut().unwrap();
            copy.is_own = is_own;
            if !with_the_last_prune {
                copy.prunes.retain(|row| row.body.finished < before_now(hours(1)));
            }
            assert_eq!(is_told(&job), told, "{is_own:?} {with_the_last_prune}");
        }
        assert_eq!(lasting(&job, &[], now()), lasting(&erasing(), &[], now()));
        // Before the first copy, and after nothing but failed ones, there is nothing there to judge.
        job.copy.as_mut().unwrap().is_own = Some(true);
        job.copy.as_mut().unwrap().copies.iter_mut().for_each(|run| run.body.outcome = CopyOutcome::Failed);
        assert!(!is_told(&job));
    }
}
