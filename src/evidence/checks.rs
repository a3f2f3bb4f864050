//! What checks say of a job: when one last ended, how far it looked, what it found; and those of a report's window.
//!
//! A check holds bytes against their names, and with an identity what is inside against what was sealed. It restores
//! nothing: that is a drill's to say.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::facts::JobFacts;
use super::status::{Findings, State, ago, elapsed};
use crate::catalog::CheckRow;
use crate::domain::ids::RecordId;
use crate::domain::objectives::Window;
use crate::domain::quantity::exact_duration;
use crate::domain::record::{CheckOutcome, CheckRecord};

/// A check, as `status` and `report` tell of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took, for all jobs that were looked at together.
    pub duration_seconds: f64,
    /// Whether all jobs, the records and what no backup names were looked at too.
    pub whole_vault: bool,
    /// The share that was to be opened, in per cent; null where bytes were held against their names only.
    pub read_data_percent: Option<u8>,
    /// Backups of the job that it looked at.
    pub backups: u64,
    /// Objects and lists that they name.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that it opened.
    pub opened_segments: u64,
    /// Things that were not what they were.
    pub damaged: u64,
    /// The code of the first of them, or of what broke it off.
    pub error_code: Option<String>,
}

/// The last check that ended.
pub(super) fn last_check(checks: &[CheckRow]) -> Option<CheckEntry> {
    newest(checks).map(check)
}

/// The last check that ended, as it is on record.
pub(super) fn newest(checks: &[CheckRow]) -> Option<&CheckRow> {
    checks.iter().max_by_key(|row| (row.body.finished, row.id.clone()))
}

/// What is to be said of a check that was not well; `of` is what it was of: ` of the copy in offsite`.
pub(super) fn not_well(check: &CheckRecord, of: &str, command: &str, now: DateTime<Utc>) -> Option<String> {
    let (ago, found) = (ago(check.finished, now), check.damaged);
    let code = check.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
    match check.outcome {
        CheckOutcome::Sound => None,
        CheckOutcome::Damaged => {
            let what = if found == 1 { "1 thing".to_owned() } else { format!("{found} things") };
            Some(format!("the last check{of} {ago} found {what} damaged{code}: run `{command}`, it names them"))
        }
        CheckOutcome::Failed => Some(format!("the last check{of} failed{code} {ago}: run `{command}`")),
    }
}

/// A check that was never made is nobody's promise; one that has a schedule and came once is.
pub(super) fn judge_checks(findings: &mut Findings, facts: &JobFacts, now: DateTime<Utc>) {
    let (job, Some(last)) = (&facts.job, newest(&facts.checks)) else { return };
    if let Some(reason) = not_well(&last.body, "", &format!("lifeboat check {job}"), now) {
        findings.add(State::Warning, reason);
    }
    if let Some(gap) = facts.promise.check_gap
        && elapsed(last.body.finished, now) > gap * 2
    {
        findings.add(
            State::Warning,
            format!(
                "the last check ended {}, they are at most {} apart: run `lifeboat check {job}`",
                ago(last.body.finished, now),
                exact_duration(gap)
            ),
        );
    }
}

/// The checks that ended in the window.
pub(super) fn checks(facts: &JobFacts, window: Window) -> Vec<CheckEntry> {
    facts.checks.iter().filter(|row| window.covers(row.body.finished)).map(check).collect()
}

fn check(row: &CheckRow) -> CheckEntry {
    let check = &row.body;
    CheckEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        outcome: check.outcome,
        started: check.started,
        finished: check.finished,
        duration_seconds: check.duration_seconds,
        whole_vault: check.whole_vault,
        read_data_percent: check.read_data_percent,
        backups: check.backups,
        objects: check.objects,
        bytes: check.bytes,
        opened_segments: check.opened_segments,
        damaged: check.damaged,
        error_code: check.error_code.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::samples::*;
    use crate::evidence::status::job_status;

    #[test]
    fn the_last_check_is_told_and_judged() {
        let mut facts = healthy();
        assert_eq!(
            (job_status(&facts, now()).state, last_check(&facts.checks)),
            (State::Ok, None),
            "nobody promised one"
        );
        facts.checks.push(check_row(CheckOutcome::Sound, 50));
        assert_eq!(job_status(&facts, now()).state, State::Ok);
        facts.promise.check_gap = Some(hours(24));
        let late = job_status(&facts, now());
        assert_eq!(late.state, State::Warning);
        assert!(late.reasons[0].contains("they are at most 24h apart: run `lifeboat check shop`"), "{late:?}");
        for (outcome, says) in [
            (CheckOutcome::Damaged, "found 2 things damaged (object-damaged)"),
            (CheckOutcome::Failed, "the last check failed (storage-unreachable) 1h 00m ago"),
            (CheckOutcome::Sound, ""),
        ] {
            facts.checks.truncate(1);
            facts.checks.push(check_row(outcome, 1));
            let status = job_status(&facts, now());
            assert_eq!(status.last_check.unwrap().outcome, outcome);
            assert_eq!(status.reasons.len(), usize::from(outcome != CheckOutcome::Sound));
            assert!(status.reasons.concat().contains(says), "{:?}", status.reasons);
        }
    }

    #[test]
    fn a_report_has_the_checks_of_its_window() {
        let mut facts = healthy();
        facts.checks = vec![check_row(CheckOutcome::Damaged, 50), check_row(CheckOutcome::Sound, 1)];
        let found = checks(&facts, Window::before(now(), hours(48)));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].outcome, found[0].read_data_percent), (CheckOutcome::Sound, Some(10)));
    }

    fn check_row(outcome: CheckOutcome, hours_ago: u64) -> CheckRow {
        crate::evidence::samples::check(u8::try_from(hours_ago).unwrap(), before_now(hours(hours_ago)), outcome)
    }
}
