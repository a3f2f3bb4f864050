//! What a verb's report comes to: well, or not so, and then of what. In one place for whoever schedules, tells, or is told.

use super::backup::RunReport;
use super::check::CheckReport;
use super::copy::CopyReport;
use super::drill::DrillReport;
use super::prune::PruneReport;
use crate::domain::ids::JobName;
use crate::domain::record::{DrillOutcome, RunOutcome};
use crate::error::{Code, Error};

/// Of a backup of this job: a partial one is not well, and one whose hook failed after it neither.
#[must_use]
pub fn of_backup(job: &JobName, report: &RunReport) -> Option<Error> {
    let what = || match report.outcome {
        RunOutcome::Success => None,
        RunOutcome::Partial => Some(
            Error::new(Code::SourcePartial, "something could not be read")
                .with_hint(format!("`lifeboat show {job}` counts what is missing")),
        ),
        RunOutcome::Failed => Some(Error::new(Code::Internal, "the backup failed, and did not say of what")),
    };
    match report.outcome {
        // What is missing says more than what a hook made of it.
        RunOutcome::Partial => what(),
        RunOutcome::Success | RunOutcome::Failed => report.failure.clone().or_else(what),
    }
}

/// Of a prune.
#[must_use]
pub fn of_prune(report: &PruneReport) -> Option<Error> {
    let hint = "`lifeboat prune --dry-run` says what is in the way";
    if let Some(failure) = report.failures.first() {
        return Some(failure.clone());
    }
    if !report.stops.is_empty() {
        let what = format!("{} things stand in the way of deleting", report.stops.len());
        return Some(Error::new(Code::DeletionStopped, what).with_hint(hint));
    }
    let breached = !report.unswept.is_empty() || report.jobs.iter().any(|job| !job.breached.is_empty());
    breached.then(|| {
        Error::new(Code::ErasureBreached, "something older than `delete_after` is still there").with_hint(hint)
    })
}

/// Of a copy.
#[must_use]
pub fn of_copy(report: &CopyReport) -> Option<Error> {
    let left = || {
        let first = report.left.first()?;
        let what = format!("{} things could not be copied", report.left.len());
        Some(Error::new(first.code, what).with_hint(first.hint.clone()))
    };
    report.failure.clone().or_else(left)
}

/// Of a check that was asked for this job.
#[must_use]
pub fn of_check(job: &JobName, report: &CheckReport) -> Option<Error> {
    let first = report.damaged.first()?;
    let code = Code::ALL.iter().copied().find(|code| code.name() == first.code).unwrap_or(Code::ObjectDamaged);
    let what = format!("{} things in the vault are not what they were", report.damaged.len());
    Some(Error::new(code, what).with_hint(format!("`lifeboat check {job}` names them")))
}

/// Of a drill of this job: a time that is over the objective is not well, and neither is a verdict that is on no record.
#[must_use]
pub fn of_drill(job: &JobName, report: &DrillReport) -> Option<Error> {
    match (report.record.outcome, report.record.rto_met) {
        (DrillOutcome::Passed, true) if report.recorded => None,
        (DrillOutcome::Passed, true) => Some(Error::new(Code::StorageFailed, "the drill passed, and is on no record")),
        (DrillOutcome::Passed, false) => Some(Error::new(Code::ObjectiveMissed, "the drill took longer than promised")),
        (DrillOutcome::Failed, _) => Some(report.failure.clone().unwrap_or_else(|| {
            Error::new(Code::DrillFailed, format!("{} checks did not pass", report.record.checks_failed))
                .with_hint(format!("`lifeboat drill {job}` shows them"))
        })),
    }
}
