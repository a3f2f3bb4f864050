//! The second vault of a job: how old the newest recovery point in it is, and how the last copies went.
//!
//! It is there for the day on which the first one is lost. So what a loss would cost then is held against the same RPO.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checks::{CheckEntry, last_check, newest, not_well};
use super::status::{Findings, State, ago};
use crate::catalog::{BackupRow, CheckRow, CopyRow};
use crate::domain::ids::{BackupId, JobName};
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
    /// Those that were refuted there.
    pub refuted: Vec<BackupId>,
    /// The runs of `copy` to it, newest last.
    pub copies: Vec<CopyRow>,
    /// The checks of it, newest last.
    pub checks: Vec<CheckRow>,
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

/// Judges the copy of a job at `now`; what was found goes to the job's findings too.
pub(super) fn copy_status(
    findings: &mut Findings,
    job: &JobName,
    facts: &CopyFacts,
    rpo: Option<std::time::Duration>,
    now: DateTime<Utc>,
) -> CopyStatus {
    let there: Vec<&BackupRow> = facts.backups.iter().filter(|row| row.retained_until.is_none()).collect();
    let counts = |row: &&&BackupRow| row.completeness == Completeness::Complete && !facts.refuted.contains(&row.id);
    let recovery_point = there.iter().filter(counts).map(|row| row.recovery_point).max();
    let age = recovery_point.map(|point| (now - point).to_std().unwrap_or_default());
    let last = facts.copies.last();
    let mut found: Vec<(State, String)> = Vec::new();
    let to = &facts.to;
    match (last, age, rpo) {
        (None, None, _) => {
            found.push((State::Warning, format!("nothing was ever copied to {to}: run `lifeboat copy {job}`")));
        }
        (_, None, _) => {
            // What is copied stays refuted: a newer backup brings the bytes anew.
            let backup = if there.is_empty() { String::new() } else { format!("`lifeboat backup {job}`, then ") };
            found.push((
                State::Critical,
                format!(
                    "the copy in {to} has no backup that counts, were the vault lost everything would be: run {backup}`lifeboat copy {job}`"
                ),
            ));
        }
        (_, Some(age), Some(rpo)) if age > rpo => found.push((
            State::Critical,
            format!(
                "were the vault lost now, the copy in {to} would go back {}, the RPO is {}: run `lifeboat copy {job}`",
                human_duration(age),
                exact_duration(rpo)
            ),
        )),
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
                found.push((
                    State::Warning,
                    format!("{what} not copied to {to}{code} {ago}: run `lifeboat copy {job}`, it says what and why"),
                ));
            }
            CopyOutcome::Failed => {
                found.push((
                    State::Warning,
                    format!("the last copy to {to} failed{code} {ago}: run `lifeboat copy {job}`"),
                ));
            }
        }
    }
    if let Some(last) = newest(&facts.checks) {
        let command = format!("lifeboat check {job} --vault {to}");
        let reason = not_well(&last.body, &format!(" of the copy in {to}"), &command, now);
        found.extend(reason.map(|reason| (State::Warning, reason)));
    }
    let state = found.iter().map(|(state, _)| *state).max().unwrap_or(State::Ok);
    found.into_iter().for_each(|(state, reason)| findings.add(state, reason));
    let succeeded = facts.copies.iter().filter(|row| row.body.outcome == CopyOutcome::Success);
    CopyStatus {
        vault: to.clone(),
        state,
        recovery_point,
        now: age.map_or(Exposure::Unbounded, Exposure::Of),
        backups: there.len() as u64,
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
    use crate::domain::record::CopyRecord;
    use crate::evidence::samples::{backup, before_now, hours, now, record};

    fn run(outcome: CopyOutcome) -> CopyRow {
        let at = before_now(hours(1));
        record(
            1,
            at,
            CopyRecord {
                outcome,
                to: "offsite".to_owned(),
                started: at,
                finished: at,
                duration_seconds: 1.0,
                backup: None,
                recovery_point: None,
                backups: 1,
                copied_backups: 1,
                left_backups: u64::from(outcome == CopyOutcome::Partial),
                new_objects: 1,
                new_bytes: 1,
                error_code: None,
            },
        )
    }

    #[test]
    fn the_copy_is_held_against_the_same_rpo() {
        let job: JobName = "shop".parse().unwrap();
        let judged = |backups: Vec<BackupRow>, copies: Vec<CopyRow>, rpo: Option<u64>| {
            let facts =
                CopyFacts { to: "offsite".to_owned(), backups, refuted: vec![], copies, checks: vec![], next: None };
            let mut findings = Findings::default();
            let status = copy_status(&mut findings, &job, &facts, rpo.map(hours), now());
            let (state, reasons) = findings.judged();
            assert_eq!(state, status.state);
            (status, reasons.join("; "))
        };
        let old = || vec![backup(1, before_now(hours(30)))];
        let (never, says) = judged(vec![], vec![], Some(24));
        assert_eq!((never.state, never.now), (State::Warning, Exposure::Unbounded), "{says}");
        let (fine, says) = judged(old(), vec![run(CopyOutcome::Success)], Some(48));
        assert_eq!((fine.state, &says[..]), (State::Ok, ""));
        assert_eq!((fine.backups, fine.recovery_point), (1, Some(before_now(hours(30)))));
        let (late, says) = judged(old(), vec![run(CopyOutcome::Success)], Some(24));
        assert_eq!(late.state, State::Critical);
        assert!(says.contains("would go back") && says.contains("the RPO is 24h"), "{says}");
        assert_eq!(judged(old(), vec![run(CopyOutcome::Partial)], None).0.state, State::Warning);
        assert_eq!(judged(old(), vec![run(CopyOutcome::Failed)], None).0.state, State::Warning);
        // What was erased there, or refuted, counts no more.
        let mut gone = old();
        gone[0].retained_until = Some(now());
        assert_eq!(judged(gone, vec![run(CopyOutcome::Success)], None).0.state, State::Critical);
    }
}
