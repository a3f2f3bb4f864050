//! What was promised, what was measured, what happened, what went otherwise, and what is not claimed: over a window,
//! for whoever has to be convinced. The JSON of these values is the record; Markdown is rendered from them.
//!
//! It judges figures against objectives and nothing else: whether that is enough for a standard or a contract is for
//! its reader to say.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checks::{self, CheckEntry};
use super::copies::{CopyStatus, copy_status};
use super::deviations::{Deviation, deviations, not_claimed};
use super::facts::{DrillPlan, JobFacts, VaultRef, attempt, optional_seconds, restore_or_unmeasured};
use super::keeping::{self, ErasureMeasured, PruneEntry, QuarantineEntry, RefutationEntry, RemovalEntry};
use super::status::Findings;
use crate::catalog::{BackupRow, DrillRow, RunRow, Verdict};
use crate::domain::ids::{BackupId, JobName, ManifestHash, RecordId};
use crate::domain::manifest::Completeness;
use crate::domain::objectives::{
    Basis, Exposure, Restore, Rpo, Trend, Window, exposure_at, measured_rpo, measured_rto, newest_at,
};
use crate::domain::record::{DrillEnvironment, DrillOutcome, Phase, RemovalReason, RunOutcome};

/// The shape of the document.
pub const SCHEMA_VERSION: u32 = 1;
/// Where the RPO figures come from.
pub const RPO_SOURCE: &str = "signed manifests (recovery_point, committed) and drill records, read through the catalog";
/// Where the RTO figures come from.
pub const RTO_SOURCE: &str = "signed drill records (rto_seconds: start to last check passed, monotonic clock), read \
                              through the catalog";

/// The `report` document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When it was made.
    pub generated: DateTime<Utc>,
    /// What made it: `lifeboat 0.1.0`.
    pub tool: String,
    /// What it is about.
    pub window: Window,
    /// One for each job.
    pub jobs: Vec<JobReport>,
    /// Jobs of which nothing can be reported, because their vault was never opened from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unopened: Vec<UnopenedJob>,
}

/// A job of which nothing can be reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnopenedJob {
    /// The job.
    pub job: JobName,
    /// Its vault's name in the config.
    pub vault: String,
    /// Why the vault cannot be opened.
    pub why: String,
}

/// One job of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobReport {
    /// The job.
    pub job: JobName,
    /// Its vault.
    pub vault: VaultRef,
    /// What the config says at the time of the report.
    pub promised: Promised,
    /// What the figures are.
    pub measured: Measured,
    /// The backups that became available in the window, and the one that the job entered it with.
    pub backups: Vec<BackupEntry>,
    /// The runs that ended in the window.
    pub runs: Vec<RunEntry>,
    /// The drills that ended in the window.
    pub drills: Vec<DrillEntry>,
    /// The backups that were removed in the window.
    pub removals: Vec<RemovalEntry>,
    /// The prunes that ended in the window.
    pub prunes: Vec<PruneEntry>,
    /// The checks that ended in the window.
    pub checks: Vec<CheckEntry>,
    /// What was found wrong in the window.
    pub refutations: Vec<RefutationEntry>,
    /// What a person decided in the window to go on without.
    pub quarantines: Vec<QuarantineEntry>,
    /// What did not go as promised, in the order of time.
    pub deviations: Vec<Deviation>,
    /// How the second vault stands, where the job has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyStatus>,
    /// What a reader must not conclude, one sentence each.
    pub not_claimed: Vec<String>,
}

/// What the config promises.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Promised {
    /// When backups are taken, in cron's five fields.
    pub schedule: Option<String>,
    /// When restores are rehearsed, in cron's five fields.
    pub drill_schedule: Option<String>,
    /// The zone of both.
    pub timezone: String,
    /// No backup goes before it is this old.
    #[serde(rename = "keep_at_least_seconds", serialize_with = "optional_seconds")]
    pub keep_at_least: Option<Duration>,
    /// Nothing of a backup is left when it is this old.
    #[serde(rename = "delete_after_seconds", serialize_with = "optional_seconds")]
    pub delete_after: Option<Duration>,
    /// The RPO.
    #[serde(rename = "rpo_objective_seconds", serialize_with = "optional_seconds")]
    pub rpo: Option<Duration>,
    /// The RTO.
    #[serde(rename = "rto_objective_seconds", serialize_with = "optional_seconds")]
    pub rto: Option<Duration>,
    /// Who can open new backups.
    pub recipients: Vec<String>,
}

/// Whether an objective was met in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// The worst figure is within it.
    Met,
    /// It is not.
    NotMet,
    /// There is no objective.
    NoObjective,
    /// There is no figure.
    Unmeasured,
}

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// How much could have been lost.
    pub rpo: RpoMeasured,
    /// How long restores took.
    pub rto: RtoMeasured,
    /// How old data was when it was gone.
    pub erasure: ErasureMeasured,
}

/// RPO over the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RpoMeasured {
    /// What the figures are over: the report's window, from the moment that the job was known.
    pub window: Window,
    /// Exposure at the window's end.
    #[serde(rename = "now_seconds")]
    pub now: Exposure,
    /// The same, counting only what a drill had proven.
    #[serde(rename = "proven_now_seconds")]
    pub proven_now: Exposure,
    /// Backups count from their commit.
    pub available: Rpo,
    /// Backups count from the first drill of them that passed.
    pub proven: Rpo,
    /// The worst available figure against the objective.
    pub met: Met,
    /// [`RPO_SOURCE`].
    pub source: &'static str,
}

/// RTO over the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RtoMeasured {
    /// Drills in the window.
    pub drills: usize,
    /// How many failed.
    pub failed: usize,
    /// How many passed within the objective.
    pub within_objective: usize,
    /// The last one.
    #[serde(rename = "last_seconds", serialize_with = "restore_or_unmeasured")]
    pub last: Option<Restore>,
    /// The worst one; a failed one is worst.
    #[serde(rename = "worst_seconds", serialize_with = "restore_or_unmeasured")]
    pub worst: Option<Restore>,
    /// Where it is going.
    pub trend: Trend,
    /// The worst against the objective.
    pub met: Met,
    /// [`RTO_SOURCE`].
    pub source: &'static str,
}

/// A backup in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupEntry {
    /// Its id.
    pub id: BackupId,
    /// Its number in the job.
    pub sequence: u64,
    /// The SHA-256 of its manifest: ties the line to the signed document in the vault.
    pub manifest_hash: ManifestHash,
    /// The moment its data is consistent at.
    pub recovery_point: DateTime<Utc>,
    /// When it was committed.
    pub available_at: DateTime<Utc>,
    /// When it was removed.
    pub retained_until: Option<DateTime<Utc>>,
    /// Why.
    pub removal: Option<RemovalReason>,
    /// Complete or partial.
    pub completeness: Completeness,
    /// What drills, checks and later backups found.
    pub verdict: Verdict,
    /// Who can open it.
    pub recipients: Vec<String>,
    /// Plain tar bytes.
    pub logical_bytes: u64,
    /// Stored bytes that it names.
    pub stored_bytes: u64,
    /// Sealed bytes that its run added.
    pub new_bytes: u64,
}

/// A run in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took.
    pub duration_seconds: f64,
    /// What it committed.
    pub backup: Option<BackupId>,
    /// How many errors it met.
    pub errors: u64,
    /// The code of the error that ended it.
    pub error_code: Option<String>,
}

/// A drill in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillEntry {
    /// Its record.
    pub id: RecordId,
    /// The host.
    pub host: String,
    /// Its verdict.
    pub outcome: DrillOutcome,
    /// What it restored.
    pub backup: Option<BackupId>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// What it took; of a failed one `not_met`.
    #[serde(rename = "rto_seconds")]
    pub rto: Restore,
    /// How long it ran, failed or not.
    pub duration_seconds: f64,
    /// The objective when it ran.
    pub rto_objective_seconds: Option<f64>,
    /// Whether it met that.
    pub rto_met: bool,
    /// Exposure when it began.
    #[serde(rename = "rpo_seconds")]
    pub rpo: Exposure,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Checks that passed.
    pub checks_passed: u64,
    /// Checks that did not.
    pub checks_failed: u64,
    /// Whether it speaks against the backup itself.
    pub refutes_backup: bool,
    /// The code of its first error.
    pub error_code: Option<String>,
    /// Tar bytes that it restored.
    pub restored_bytes: u64,
    /// What it was measured on.
    pub environment: DrillEnvironment,
}

/// The report on these jobs over a window.
#[must_use]
pub fn report(jobs: &[JobFacts], window: Window, generated: DateTime<Utc>, tool: &str) -> Report {
    Report {
        schema_version: SCHEMA_VERSION,
        generated,
        tool: tool.to_owned(),
        window,
        jobs: jobs.iter().map(|facts| job_report(facts, window)).collect(),
        unopened: Vec::new(),
    }
}

fn job_report(facts: &JobFacts, window: Window) -> JobReport {
    let measured = measured(facts, window);
    let runs: Vec<&RunRow> = facts.runs.iter().filter(|row| window.covers(row.run.finished)).collect();
    let drills: Vec<&DrillRow> = facts.drills.iter().filter(|row| window.covers(row.drill.finished)).collect();
    let entered_with = newest_at(&facts.points(), Basis::Available, window.start).map(|point| point.backup.clone());
    let backups = facts
        .backups
        .iter()
        .filter(|row| window.covers(row.committed) || Some(&row.id) == entered_with.as_ref())
        .map(|row| backup_entry(row, facts))
        .collect();
    let promise = &facts.promise;
    JobReport {
        job: facts.job.clone(),
        vault: facts.vault.clone(),
        promised: Promised {
            schedule: promise.schedule.clone(),
            drill_schedule: match &promise.drill {
                DrillPlan::Scheduled { schedule, .. } => Some(schedule.clone()),
                DrillPlan::None | DrillPlan::OnDemand => None,
            },
            timezone: promise.timezone.clone(),
            keep_at_least: promise.keep_at_least,
            delete_after: promise.delete_after,
            rpo: promise.objectives.rpo,
            rto: promise.objectives.rto,
            recipients: promise.recipients.clone(),
        },
        deviations: deviations(facts, &measured, window),
        not_claimed: not_claimed(facts, &measured, &drills, window),
        removals: keeping::removals(facts, window),
        prunes: keeping::prunes(facts, window),
        checks: checks::checks(facts, window),
        refutations: keeping::refutations(facts, window),
        quarantines: keeping::quarantines(facts, window),
        copy: copy_status(&mut Findings::default(), facts, window.end),
        measured,
        backups,
        runs: runs.into_iter().map(run_entry).collect(),
        drills: drills.into_iter().map(drill_entry).collect(),
    }
}

fn measured(facts: &JobFacts, window: Window) -> Measured {
    let points = facts.points();
    let objectives = facts.promise.objectives;
    let known = facts.known_since().map_or(window, |since| window.not_before(since));
    let available = measured_rpo(&points, Basis::Available, known, objectives.rpo);
    let attempts: Vec<_> = facts.drills.iter().filter(|row| window.covers(row.drill.finished)).map(attempt).collect();
    let rto = measured_rto(&attempts, attempts.len(), objectives.rto);
    Measured {
        rpo: RpoMeasured {
            window: known,
            now: exposure_at(&points, Basis::Available, window.end),
            proven_now: exposure_at(&points, Basis::Proven, window.end),
            available,
            proven: measured_rpo(&points, Basis::Proven, known, objectives.rpo),
            met: match objectives.rpo {
                None => Met::NoObjective,
                Some(objective) if available.worst.exceeds(objective) => Met::NotMet,
                Some(_) => Met::Met,
            },
            source: RPO_SOURCE,
        },
        rto: RtoMeasured {
            drills: rto.drills,
            failed: rto.failed,
            within_objective: rto.met,
            last: rto.last,
            worst: rto.worst,
            trend: rto.trend,
            met: match (rto.worst, objectives.rto) {
                (None, _) => Met::Unmeasured,
                (Some(Restore::Failed), _) => Met::NotMet,
                (Some(_), None) => Met::NoObjective,
                (Some(worst), objective) if worst.meets(objective) => Met::Met,
                (Some(_), Some(_)) => Met::NotMet,
            },
            source: RTO_SOURCE,
        },
        erasure: keeping::measured(facts, window),
    }
}

fn backup_entry(row: &BackupRow, facts: &JobFacts) -> BackupEntry {
    BackupEntry {
        id: row.id.clone(),
        sequence: row.sequence,
        manifest_hash: row.manifest_hash,
        recovery_point: row.recovery_point,
        available_at: row.committed,
        retained_until: row.retained_until,
        removal: row.removal,
        completeness: row.completeness,
        verdict: facts.verdict(&row.id),
        recipients: row.recipients.clone(),
        logical_bytes: row.total(|source| source.logical_bytes),
        stored_bytes: row.total(|source| source.stored_bytes),
        new_bytes: row.total(|source| source.new_bytes),
    }
}

fn run_entry(row: &RunRow) -> RunEntry {
    RunEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        outcome: row.run.outcome,
        started: row.run.started,
        finished: row.run.finished,
        duration_seconds: row.run.duration_seconds,
        backup: row.run.backup.clone(),
        errors: row.run.errors,
        error_code: row.run.error_code.clone(),
    }
}

fn drill_entry(row: &DrillRow) -> DrillEntry {
    let drill = &row.drill;
    DrillEntry {
        id: row.id.clone(),
        host: row.host.clone(),
        outcome: drill.outcome,
        backup: drill.backup.clone(),
        started: drill.started,
        finished: drill.finished,
        rto: attempt(row).restore,
        duration_seconds: drill.rto_seconds,
        rto_objective_seconds: drill.rto_objective_seconds,
        rto_met: drill.rto_met,
        rpo: drill
            .rpo_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map_or(Exposure::Unbounded, Exposure::Of),
        phases: drill.phases.clone(),
        checks_passed: drill.checks_passed,
        checks_failed: drill.checks_failed,
        refutes_backup: drill.refutes_backup,
        error_code: drill.error_code.clone(),
        restored_bytes: drill.restored_bytes,
        environment: drill.environment.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::samples::*;

    fn window() -> Window {
        Window::before(now(), hours(48))
    }

    #[test]
    fn a_healthy_job_deviates_nowhere() {
        let mut facts = healthy();
        facts.scheduled_backups = (0..8).rev().map(|n| before_now(hours(3 + 6 * n))).collect();
        let report = job_report(&facts, window());
        assert_eq!(report.deviations, []);
        assert_eq!((report.measured.rpo.met, report.measured.rto.met), (Met::Met, Met::Met));
        // Eight became available in the window, and one was there when it began.
        assert_eq!(report.backups.len(), 9);
        assert_eq!(report.runs.len(), 8);
        assert_eq!(report.measured.rpo.window, window());
    }

    #[test]
    fn the_record_is_stable() {
        let report = report(&[troubled()], window(), now(), "lifeboat 0.1.0");
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn the_record_of_erasing_is_stable() {
        let json = serde_json::to_value(job_report(&erasing_with_findings(), window())).unwrap();
        let part = |name: &str| json[name].clone();
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&serde_json::json!({
                "erasure": json["measured"]["erasure"],
                "removals": part("removals"),
                "prunes": part("prunes"),
                "checks": part("checks"),
                "refutations": part("refutations"),
                "quarantines": part("quarantines"),
                "deviations": part("deviations"),
                "not_claimed": part("not_claimed"),
            }))
            .unwrap()
        );
    }

    #[test]
    fn a_failed_drill_stays_in_the_figures_and_no_drill_is_unmeasured() {
        let measured = job_report(&troubled(), window()).measured;
        assert_eq!((measured.rto.worst, measured.rto.met), (Some(Restore::Failed), Met::NotMet));
        let mut facts = healthy();
        facts.drills.clear();
        assert_eq!(job_report(&facts, window()).measured.rto.met, Met::Unmeasured);
    }

    #[test]
    fn nothing_is_ever_called_compliant() {
        let report = report(&[healthy(), troubled()], window(), now(), "lifeboat 0.1.0");
        let everything = serde_json::to_string(&report).unwrap() + &crate::evidence::markdown::render(&report);
        assert!(!everything.to_lowercase().contains("complian"));
    }
}
