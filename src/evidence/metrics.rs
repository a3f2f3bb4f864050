//! The facts as Prometheus reads them: its text format, one sample a line.
//!
//! Everything is computed anew from what was gathered, so nothing is lost when a process ends, and a job that is no longer
//! in the config is no longer here. Moments are told, never ages: a text that nobody renews grows old by itself. A value
//! that is not known is left out; 0 is said where 0 was counted. What each series means is in [`series`].

mod exposition;
pub mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use self::exposition::Exposition;
use self::series::Series;
use super::checks::newest;
use super::facts::{DrillPlan, Gathered, JobFacts, VaultFacts, Witness, attempt};
use super::status::{JobStatus, RPO_WINDOW, job_status};
use crate::domain::contents::NoteClass;
use crate::domain::ids::JobName;
use crate::domain::manifest::Completeness;
use crate::domain::objectives::{Basis, Exposure, Restore, Standing, Window, json_seconds, measured_rpo};
use crate::domain::record::{CheckOutcome, DrillOutcome, PruneOutcome, RunOutcome};

/// The windows that the worst exposures are told over, as the label says them, and how long they are.
const WINDOWS: [(&str, Duration); 3] =
    [("1d", Duration::from_secs(24 * 60 * 60)), ("7d", Duration::from_secs(7 * 24 * 60 * 60)), ("30d", RPO_WINDOW)];

/// What only a daemon knows; its sums outlive a restart. Operations and reasons are words. Jobs that were not gathered are left
/// out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaemonFacts {
    /// When it starts an operation of a job next: takes the place of what the schedule alone says.
    pub next: BTreeMap<(JobName, String), DateTime<Utc>>,
    /// Scheduled runs that were not begun, by job, operation and why not. With the reasons that there can be, at 0: a counter
    /// that begins at 1 has no increase.
    pub skipped: BTreeMap<(JobName, String, String), u64>,
    /// Notifications that could not be delivered, by the name of the channel in the config; with 0 as well.
    pub notify_failures: BTreeMap<String, u64>,
}

/// All series of all jobs and vaults, in Prometheus's text format. The same facts give the same text.
#[must_use]
pub fn metrics(gathered: &Gathered, daemon: Option<&DaemonFacts>, now: DateTime<Utc>) -> String {
    let mut to = Exposition::default();
    to.add(Series::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
    to.add(Series::ExportTimestamp, &[], unix_seconds(now));
    for facts in &gathered.jobs {
        add_job(&mut to, facts, now);
    }
    for job in &gathered.unopened {
        to.add(Series::JobInfo, &[job.job.as_str(), &job.vault], 1.0);
        to.add_known(Series::ObjectiveRpo, &[job.job.as_str()], job.objectives.rpo.map(seconds));
        to.add_known(Series::ObjectiveRto, &[job.job.as_str()], job.objectives.rto.map(seconds));
        to.add(Series::VaultReachable, &[&job.vault], 0.0);
    }
    for facts in &gathered.vaults {
        add_vault(&mut to, facts);
    }
    if let Some(daemon) = daemon {
        add_daemon(&mut to, gathered, daemon);
    }
    to.text()
}

fn add_daemon(to: &mut Exposition, gathered: &Gathered, daemon: &DaemonFacts) {
    let jobs = gathered.jobs.iter().map(|facts| &facts.job);
    let jobs: BTreeSet<&JobName> = jobs.chain(gathered.unopened.iter().map(|unopened| &unopened.job)).collect();
    for ((job, operation), next) in daemon.next.iter().filter(|((job, ..), _)| jobs.contains(job)) {
        to.add(Series::ScheduleNext, &[job.as_str(), operation], unix_seconds(*next));
    }
    for ((job, operation, reason), count) in daemon.skipped.iter().filter(|((job, ..), _)| jobs.contains(job)) {
        to.add(Series::ScheduleSkipped, &[job.as_str(), operation, reason], number(*count));
    }
    for (channel, count) in &daemon.notify_failures {
        to.add(Series::NotifyFailures, &[channel], number(*count));
    }
}

fn add_vault(to: &mut Exposition, facts: &VaultFacts) {
    let reachable = if facts.silent.is_none() { 1.0 } else { 0.0 };
    to.add(Series::VaultReachable, &[&facts.name], reachable);
    to.add_known(Series::VaultStoredBytes, &[&facts.name], facts.stored_bytes.map(number));
}

fn add_job(to: &mut Exposition, facts: &JobFacts, now: DateTime<Utc>) {
    let (job, status) = (facts.job.as_str(), job_status(facts, now));
    to.add(Series::JobInfo, &[job, &facts.vault.name], 1.0);
    to.add_known(Series::ObjectiveRpo, &[job], facts.promise.objectives.rpo.map(seconds));
    to.add_known(Series::ObjectiveRto, &[job], facts.promise.objectives.rto.map(seconds));
    add_recovery_points(to, facts, &status, now);
    add_runs(to, facts, &status);
    add_last_backup(to, facts);
    add_drills(to, facts, &status);
    add_erasure(to, facts, &status);
    add_schedules(to, facts);
    // What nobody could read says neither that it is whole nor that it is not.
    let is_whole = match &facts.witness {
        Witness::Silent(_) => None,
        Witness::Lacks(_) => Some(0.0),
        Witness::Agrees => {
            let is_told = facts.unbelieved.is_empty() && facts.gaps.is_empty() && facts.hidden.is_none();
            Some(if is_told && facts.chain_breaks == 0 { 1.0 } else { 0.0 })
        }
    };
    to.add_known(Series::AuditChainOk, &[job], is_whole);
}

fn add_recovery_points(to: &mut Exposition, facts: &JobFacts, status: &JobStatus, now: DateTime<Utc>) {
    let (job, points) = (facts.job.as_str(), facts.points());
    to.add_known(Series::RecoveryPoint, &[job], status.recovery_point.map(unix_seconds));
    let counting = points.iter().filter(|point| {
        point.standing == Standing::Counts
            && point.available_at <= now
            && point.retained_until.is_none_or(|until| now < until)
    });
    let oldest = counting.map(|point| point.recovery_point).min();
    to.add_known(Series::OldestRecoveryPoint, &[job], oldest.map(unix_seconds));
    // Before anything is known of a job, nothing is held against it.
    let Some(since) = facts.known_since() else { return };
    for (label, length) in WINDOWS {
        let window = Window::before(now, length).not_before(since);
        for (series, basis) in [(Series::RpoWorst, Basis::Available), (Series::RpoProvenWorst, Basis::Proven)] {
            let worst = match measured_rpo(&points, basis, window, None).worst {
                Exposure::Of(lost) => seconds(lost),
                Exposure::Unbounded => f64::INFINITY,
            };
            to.add(series, &[job, label], worst);
        }
    }
}

fn add_runs(to: &mut Exposition, facts: &JobFacts, status: &JobStatus) {
    let job = facts.job.as_str();
    let backup = status.last_backup.as_ref().map(|last| (last.outcome == RunOutcome::Success, last.finished));
    let drill = status.last_drill.as_ref().map(|last| (last.outcome == DrillOutcome::Passed, last.finished));
    let prune = facts.prunes.iter().max_by_key(|row| (row.body.finished, row.id.clone()));
    let prune = prune.map(|row| (row.body.outcome == PruneOutcome::Done, row.body.finished));
    let check = newest(&facts.checks).map(|row| (row.body.outcome == CheckOutcome::Sound, row.body.finished));
    for (operation, last) in [("backup", backup), ("drill", drill), ("prune", prune), ("check", check)] {
        let Some((went_well, finished)) = last else { continue };
        to.add(Series::LastRunSuccess, &[job, operation], if went_well { 1.0 } else { 0.0 });
        to.add(Series::LastRunTimestamp, &[job, operation], unix_seconds(finished));
    }
    // Each outcome is told from the first, when it is 0: a counter that begins at 1 has no increase.
    let mut count = |operation: &str, outcome: &str, runs: usize| {
        to.add(Series::Runs, &[job, operation, outcome], number(runs as u64));
    };
    for (word, outcome) in
        [("success", RunOutcome::Success), ("partial", RunOutcome::Partial), ("failed", RunOutcome::Failed)]
    {
        count("backup", word, facts.runs.iter().filter(|row| row.run.outcome == outcome).count());
    }
    for (word, outcome) in [("passed", DrillOutcome::Passed), ("failed", DrillOutcome::Failed)] {
        count("drill", word, facts.drills.iter().filter(|row| row.drill.outcome == outcome).count());
    }
    for (word, outcome) in
        [("done", PruneOutcome::Done), ("stopped", PruneOutcome::Stopped), ("failed", PruneOutcome::Failed)]
    {
        count("prune", word, facts.prunes.iter().filter(|row| row.body.outcome == outcome).count());
    }
    for (word, outcome) in
        [("sound", CheckOutcome::Sound), ("damaged", CheckOutcome::Damaged), ("failed", CheckOutcome::Failed)]
    {
        count("check", word, facts.checks.iter().filter(|row| row.body.outcome == outcome).count());
    }
}

/// The last backup that was committed, a partial one too, and whether it is still there or not.
fn add_last_backup(to: &mut Exposition, facts: &JobFacts) {
    let job = facts.job.as_str();
    let succeeded = facts.runs.iter().filter(|row| row.run.outcome == RunOutcome::Success).map(|row| row.run.finished);
    // A run that died before it left a record has committed its backup all the same.
    let complete = facts.backups.iter().filter(|row| row.completeness == Completeness::Complete);
    let complete = complete.map(|row| row.committed);
    to.add_known(Series::BackupLastSuccess, &[job], succeeded.chain(complete).max().map(unix_seconds));
    let there = facts.backups.iter().filter(|row| row.retained_until.is_none()).count();
    to.add(Series::Backups, &[job], number(there as u64));

    let Some(last) = facts.backups.iter().max_by_key(|row| (row.committed, row.sequence)) else { return };
    let run = facts.runs.iter().find(|row| row.run.backup.as_ref() == Some(&last.id));
    let took = match run {
        Some(row) => Some(row.run.duration_seconds),
        None => (last.committed - last.started).to_std().ok().map(seconds),
    };
    to.add_known(Series::BackupLastDuration, &[job], took);
    to.add(Series::BackupLastLogicalBytes, &[job], number(last.total(|source| source.logical_bytes)));
    to.add(Series::BackupLastStoredBytes, &[job], number(last.total(|source| source.stored_bytes)));
    for (word, class) in [
        ("vanished", NoteClass::Vanished),
        ("changed", NoteClass::Changed),
        ("unreadable", NoteClass::Unreadable),
        ("skipped", NoteClass::Skipped),
    ] {
        let notes = last.total(|source| source.notes.get(&class).copied().unwrap_or(0));
        to.add(Series::BackupLastErrors, &[job, word], number(notes));
    }
}

fn add_drills(to: &mut Exposition, facts: &JobFacts, status: &JobStatus) {
    let job = facts.job.as_str();
    to.add_known(Series::DrillLastSuccess, &[job], status.last_proven.map(unix_seconds));
    let Some(last) = facts.newest_drill() else { return };
    // A drill that failed has no time.
    if let Restore::Took(took) = attempt(last).restore {
        to.add(Series::DrillLastDuration, &[job], seconds(took));
    }
    let mut phases: BTreeMap<&str, f64> = BTreeMap::new();
    for phase in &last.drill.phases {
        *phases.entry(&phase.name).or_default() += phase.seconds;
    }
    for (phase, took) in phases {
        to.add(Series::DrillPhase, &[job, phase], took);
    }
    to.add_known(Series::DrillRecoveryPoint, &[job], last.drill.recovery_point.map(unix_seconds));
    to.add(Series::DrillChecks, &[job, "passed"], number(last.drill.checks_passed));
    to.add(Series::DrillChecks, &[job, "failed"], number(last.drill.checks_failed));
}

fn add_erasure(to: &mut Exposition, facts: &JobFacts, status: &JobStatus) {
    let job = facts.job.as_str();
    let done = facts.prunes.iter().filter(|row| row.body.outcome == PruneOutcome::Done).map(|row| row.body.finished);
    to.add_known(Series::PruneLastSuccess, &[job], done.max().map(unix_seconds));
    let remnants = facts.remnants();
    let first = remnants.iter().filter(|remnant| remnant.deadline.is_some()).min_by_key(|remnant| remnant.deadline);
    let planned = first.and_then(|remnant| remnant.due);
    to.add_known(Series::ErasurePlanned, &[job], planned.map(unix_seconds));
    to.add_known(Series::ErasureDeadline, &[job], status.erasure.deadline.map(unix_seconds));
    to.add_known(Series::OldestRetainedByte, &[job], status.erasure.oldest_retained_byte.map(unix_seconds));
}

fn add_schedules(to: &mut Exposition, facts: &JobFacts) {
    let job = facts.job.as_str();
    let drill_gap = match facts.promise.drill {
        DrillPlan::Scheduled { gap, .. } => gap,
        DrillPlan::None | DrillPlan::OnDemand => None,
    };
    for (operation, gap, next) in [
        ("backup", facts.promise.backup_gap, facts.next_backup),
        ("drill", drill_gap, facts.next_drill),
        ("prune", facts.promise.prune_gap, facts.next_prune),
        ("check", facts.promise.check_gap, facts.next_check),
    ] {
        to.add_known(Series::ScheduleInterval, &[job, operation], gap.map(seconds));
        to.add_known(Series::ScheduleNext, &[job, operation], next.map(unix_seconds));
    }
}

/// Seconds since 1970, to the millisecond.
fn unix_seconds(moment: DateTime<Utc>) -> f64 {
    // Milliseconds of any year that a clock shows fit into a double.
    moment.timestamp_millis() as f64 / 1000.0
}

fn seconds(duration: Duration) -> f64 {
    json_seconds(duration)
}

/// A count as Prometheus holds it; exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
