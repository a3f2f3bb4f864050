//! Is the job safe now, and if not, what to type. The result serialises to the `status` document.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::chain::judge_chain;
use super::checks::{CheckEntry, judge_checks, last_check};
use super::copies::{CopyStatus, copy_status};
use super::erasure::{ErasureStatus, Where, erasure_status, judge_erasure};
use super::facts::{
    DrillPlan, JobFacts, OwnIdentity, VaultFacts, Witness, attempt, optional_seconds, restore_or_unmeasured,
};
pub(super) use super::findings::Findings;
use super::vault_status::{VaultStatus, vault_status};
pub(super) use super::words::{ago, elapsed};
use crate::catalog::{BackupRow, Verdict};
use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::manifest::Completeness;
use crate::domain::objectives::{
    Basis, Exposure, Point, Restore, Rpo, Rto, Standing, Trend, Window, exposure_at, measured_rpo, measured_rto,
    newest_at,
};
use crate::domain::quantity::{exact_duration, human_duration};
use crate::domain::record::{DrillOutcome, RunOutcome, SequenceRange};

/// The shape of the document.
pub const SCHEMA_VERSION: u32 = 1;
/// The worst figures of a status are over this long.
pub const RPO_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The RTO figures of a status are over this many drills.
pub const RTO_DRILLS: usize = 10;
/// From this share of the objective on, in per cent, the RPO is at risk.
pub const RPO_RISK_PER_CENT: u32 = 75;
/// Without a schedule a drill is stale after this long.
pub const DRILL_STALE_AFTER: Duration = Duration::from_secs(35 * 24 * 60 * 60);

/// The `status` document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// One for each job, in the order of the config.
    pub jobs: Vec<JobStatus>,
    /// One for each vault of these jobs, by name.
    pub vaults: Vec<VaultStatus>,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As promised.
    Ok,
    /// Somebody should look.
    Warning,
    /// Nothing is known, which may hide anything.
    Unknown,
    /// A promise is broken or a restore is in doubt.
    Critical,
}

/// One job of a `status` document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobStatus {
    /// The job.
    pub job: JobName,
    /// Its vault's name in the config.
    pub vault: String,
    /// The worst of what was found.
    pub state: State,
    /// What was found, worst first; each says what to type.
    pub reasons: Vec<String>,
    /// Where a restore now would go back to.
    pub recovery_point: Option<DateTime<Utc>>,
    /// How much would be lost.
    pub rpo: RpoStatus,
    /// How long a restore took.
    pub rto: RtoStatus,
    /// How the last backup went.
    pub last_backup: Option<LastBackup>,
    /// How the last drill went.
    pub last_drill: Option<LastDrill>,
    /// When a drill last passed.
    pub last_proven: Option<DateTime<Utc>>,
    /// How the last check ended.
    pub last_check: Option<CheckEntry>,
    /// When the next backup is due.
    pub next_backup: Option<DateTime<Utc>>,
    /// When the next drill is due.
    pub next_drill: Option<DateTime<Utc>>,
    /// When the next check is due.
    pub next_check: Option<DateTime<Utc>>,
    /// When the oldest byte there is must be gone; as in `erasure`.
    pub erasure_deadline: Option<DateTime<Utc>>,
    /// What is still to be erased.
    pub erasure: ErasureStatus,
    /// The second vault, where the job has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyStatus>,
}

/// RPO figures; seconds, or `unbounded`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RpoStatus {
    /// The target.
    #[serde(rename = "objective_seconds", serialize_with = "optional_seconds")]
    pub objective: Option<Duration>,
    /// Exposure now.
    #[serde(rename = "now_seconds")]
    pub now: Exposure,
    /// Exposure now, if only what a drill has proven counts.
    #[serde(rename = "proven_now_seconds")]
    pub proven_now: Exposure,
    /// The worst in the window.
    #[serde(rename = "worst_seconds")]
    pub worst: Exposure,
    /// Half of the time in the window it was at most this.
    #[serde(rename = "median_seconds")]
    pub median: Exposure,
    /// 95 % of the time in the window it was at most this.
    #[serde(rename = "p95_seconds")]
    pub p95: Exposure,
    /// The share of the time, 0 to 1, that it was above the target; null without a target.
    pub share_above_target: Option<f64>,
    /// The worst in the window, if only what a drill has proven counts.
    #[serde(rename = "proven_worst_seconds")]
    pub proven_worst: Exposure,
    /// The median, if only what a drill has proven counts.
    #[serde(rename = "proven_median_seconds")]
    pub proven_median: Exposure,
    /// The 95th percentile, if only what a drill has proven counts.
    #[serde(rename = "proven_p95_seconds")]
    pub proven_p95: Exposure,
    /// The share above the target, if only what a drill has proven counts.
    pub proven_share_above_target: Option<f64>,
    /// The window.
    pub window: Window,
}

/// RTO figures; seconds, `not_met`, or `unmeasured`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RtoStatus {
    /// The target.
    #[serde(rename = "objective_seconds", serialize_with = "optional_seconds")]
    pub objective: Option<Duration>,
    /// The last drill's.
    #[serde(rename = "last_seconds", serialize_with = "restore_or_unmeasured")]
    pub last: Option<Restore>,
    /// The worst of the last [`RTO_DRILLS`].
    #[serde(rename = "worst_seconds", serialize_with = "restore_or_unmeasured")]
    pub worst: Option<Restore>,
    /// Where it is going, over the same drills.
    pub trend: Trend,
}

/// How the last run of `backup` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastBackup {
    /// How.
    pub outcome: RunOutcome,
    /// When.
    pub finished: DateTime<Utc>,
    /// What it committed.
    pub backup: Option<BackupId>,
    /// The code of the error that ended it.
    pub error_code: Option<String>,
}

/// How the last drill ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastDrill {
    /// Its record.
    pub id: RecordId,
    /// How.
    pub outcome: DrillOutcome,
    /// When.
    pub finished: DateTime<Utc>,
    /// What it restored.
    pub backup: Option<BackupId>,
    /// The code of its first error.
    pub error_code: Option<String>,
}

/// The status of jobs and their vaults at `now`, in the order given.
#[must_use]
pub fn status(jobs: &[JobFacts], vaults: &[VaultFacts], now: DateTime<Utc>) -> Status {
    Status {
        schema_version: SCHEMA_VERSION,
        jobs: jobs.iter().map(|facts| job_status(facts, now)).collect(),
        vaults: vaults.iter().map(|facts| vault_status(facts, now)).collect(),
    }
}

/// The figures now, available and proven, and those over the window.
pub(super) fn rpo_status(
    objective: Option<Duration>,
    (now, proven_now): (Exposure, Exposure),
    available: &Rpo,
    proven: &Rpo,
    window: Window,
) -> RpoStatus {
    RpoStatus {
        objective,
        now,
        proven_now,
        worst: available.worst,
        median: available.median,
        p95: available.p95,
        share_above_target: available.share_above_target,
        proven_worst: proven.worst,
        proven_median: proven.median,
        proven_p95: proven.p95,
        proven_share_above_target: proven.share_above_target,
        window,
    }
}

/// The status of one job at `now`.
#[must_use]
pub fn job_status(facts: &JobFacts, now: DateTime<Utc>) -> JobStatus {
    let points = facts.points();
    let objectives = facts.promise.objectives;
    let window = Window::before(now, RPO_WINDOW);
    let window = facts.known_since().map_or(window, |since| window.not_before(since));
    let available = measured_rpo(&points, Basis::Available, window, objectives.rpo);
    let proven = measured_rpo(&points, Basis::Proven, window, objectives.rpo);
    let exposed = |basis| exposure_at(&points, basis, now);
    let exposed = (exposed(Basis::Available), exposed(Basis::Proven));
    let rpo = rpo_status(objectives.rpo, exposed, &available, &proven, window);
    let attempts: Vec<_> = facts.drills.iter().map(attempt).collect();
    let rto = measured_rto(&attempts, RTO_DRILLS, objectives.rto);
    let last_backup = last_backup(facts);
    let erasure = erasure_status(facts, now);

    let mut findings = Findings::default();
    if facts.backups.is_empty() && facts.runs.is_empty() && facts.drills.is_empty() {
        findings.add(
            State::Unknown,
            format!(
                "nothing is known of this job: run `lifeboat backup {0}`, or `lifeboat catalog rebuild` if vault {1} \
                 has backups of it",
                facts.job, facts.vault.name
            ),
        );
    } else {
        judge_backups(&mut findings, facts, &points, &rpo, last_backup.as_ref(), now);
        judge_drills(&mut findings, facts, &rto, now);
        judge_erasure(&mut findings, facts, &Where::vault(&facts.job), now);
        judge_checks(&mut findings, facts, now);
    }
    if facts.identity == OwnIdentity::Present {
        findings.add(
            State::Warning,
            format!(
                "this host holds an identity that opens its own backups: move it to the host that drills (`identity` in \
                 [job.{}.drill])",
                facts.job
            ),
        );
    }
    judge_witness(&mut findings, facts);
    judge_unbelieved(&mut findings, facts);
    judge_recipients(&mut findings, facts);
    judge_missing(&mut findings, facts);
    judge_chain(&mut findings, facts);
    let copy = copy_status(&mut findings, facts, now);
    let (state, reasons) = findings.judged();

    JobStatus {
        job: facts.job.clone(),
        vault: facts.vault.name.clone(),
        state,
        reasons,
        recovery_point: newest_at(&points, Basis::Available, now).map(|point| point.recovery_point),
        rpo,
        rto: RtoStatus { objective: objectives.rto, last: rto.last, worst: rto.worst, trend: rto.trend },
        last_backup,
        last_drill: facts.newest_drill().map(|row| LastDrill {
            id: row.id.clone(),
            outcome: row.drill.outcome,
            finished: row.drill.finished,
            backup: row.drill.backup.clone(),
            error_code: row.drill.error_code.clone(),
        }),
        last_proven: facts
            .drills
            .iter()
            .filter(|row| row.drill.outcome == DrillOutcome::Passed)
            .map(|row| row.drill.finished)
            .max(),
        last_check: last_check(&facts.checks),
        next_backup: facts.next_backup,
        next_drill: facts.next_drill,
        next_check: facts.next_check,
        erasure_deadline: erasure.deadline,
        erasure,
        copy,
    }
}

fn judge_witness(findings: &mut Findings, facts: &JobFacts) {
    let job = &facts.job;
    match &facts.witness {
        Witness::Agrees => {}
        Witness::Lacks(gone) => findings.add(
            State::Critical,
            format!(
                "the vault no longer has {}, and nothing says who removed it: run `lifeboat check {job}`",
                match &gone[..] {
                    [one] => format!("backup {one}"),
                    several => format!("{} backups that this host knows of", several.len()),
                }
            ),
        ),
        // Why, is the vault's to say.
        Witness::Silent(_) => findings.add(
            State::Unknown,
            format!(
                "vault {} cannot be read, and what stands here is what this host remembers of it: run `lifeboat doctor {job}`",
                facts.vault.name
            ),
        ),
    }
}

/// What lies there and is not believed restores nothing, and stops every deletion until a person has looked.
fn judge_unbelieved(findings: &mut Findings, facts: &JobFacts) {
    let Some((first, others)) = facts.unbelieved.split_first() else { return };
    let (backup, why) = (&first.backup, &first.why);
    let others = match others.len() {
        0 => String::new(),
        1 => " and 1 other is not either".to_owned(),
        count => format!(" and {count} others are not either"),
    };
    findings.add(
        State::Critical,
        format!(
            "the manifest of backup {backup} is not believed ({why}){others}: run `lifeboat check {}`, and `lifeboat \
             quarantine {backup}` to go on without it",
            facts.job
        ),
    );
}

/// Backups that somebody can open who should not.
fn judge_recipients(findings: &mut Findings, facts: &JobFacts) {
    let Some((first, others)) = facts.unapproved.split_first() else { return };
    let backups = match others.len() {
        0 => format!("backup {} is", first.backup),
        count => format!("{} backups are", count + 1),
    };
    let recipients: BTreeSet<&str> =
        facts.unapproved.iter().flat_map(|found| found.recipients.iter().map(String::as_str)).collect();
    let recipients: Vec<&str> = recipients.into_iter().collect();
    findings.add(
        State::Warning,
        format!(
            "{backups} sealed to {}, whom vault.json does not approve: run `lifeboat check {}`, and `lifeboat recipient list`",
            recipients.join(", "),
            facts.job
        ),
    );
}

/// Numbers that are gone without a reason: somebody, or a disk, took backups away. What this host knew of the backups is
/// said by the witness already.
fn judge_missing(findings: &mut Findings, facts: &JobFacts) {
    let job = &facts.job;
    let lacking: HashSet<u64> = match &facts.witness {
        Witness::Lacks(gone) => {
            facts.backups.iter().filter(|row| gone.contains(&row.id)).map(|row| row.sequence).collect()
        }
        Witness::Agrees | Witness::Silent(_) => HashSet::new(),
    };
    if let Some(hidden) = facts.hidden.filter(|hidden| !lacking.contains(&hidden.seen)) {
        findings.add(
            State::Critical,
            format!(
                "this host saw backup number {}, the newest in the vault is number {}, and nothing says who removed it: run \
                 `lifeboat check {job}`",
                hidden.seen, hidden.there
            ),
        );
    }
    let gaps: Vec<&SequenceRange> =
        facts.gaps.iter().filter(|gap| !(gap.first..=gap.last).all(|number| lacking.contains(&number))).collect();
    let range = |gap: &SequenceRange| match gap.first == gap.last {
        true => format!("number {}", gap.first),
        false => format!("numbers {} to {}", gap.first, gap.last),
    };
    let Some((first, more)) = gaps.split_first() else { return };
    let more = if more.is_empty() { String::new() } else { format!(" and {} more gaps", more.len()) };
    findings.add(
        State::Critical,
        format!(
            "backups are missing in the vault, {}{more}, and nothing says who removed them: run `lifeboat check {job}`",
            range(first)
        ),
    );
}

fn judge_backups(
    findings: &mut Findings,
    facts: &JobFacts,
    points: &[Point],
    rpo: &RpoStatus,
    last: Option<&LastBackup>,
    now: DateTime<Utc>,
) {
    let job = &facts.job;
    let newest = facts.newest_complete();
    match newest {
        None => findings.add(
            State::Critical,
            format!("there is no complete backup, everything would be lost: run `lifeboat backup {job}`"),
        ),
        Some(row) if facts.verdict(&row.id) == Verdict::Refuted => findings.add(
            State::Critical,
            format!(
                "the latest backup {} was refuted{}: run `lifeboat backup {job}`, then `lifeboat check {job} \
                 --read-data`",
                row.id,
                refuted_by(facts, row)
            ),
        ),
        Some(_) => {}
    }
    judge_refuted(findings, facts, newest);
    match (rpo.now, rpo.objective) {
        (Exposure::Unbounded, _) => {
            let ever = points.iter().any(|point| point.standing == Standing::Counts);
            if newest.is_some() {
                let why = if ever { "none that counts is left" } else { "all that were complete are refuted" };
                findings.add(
                    State::Critical,
                    format!("there are backups, but {why}, everything would be lost: run `lifeboat backup {job}`"),
                );
            }
        }
        (Exposure::Of(lost), Some(objective)) => {
            let (lost_text, objective_text) = (human_duration(lost), exact_duration(objective));
            if rpo.now.exceeds(objective) {
                findings.add(
                    State::Critical,
                    format!(
                        "a loss now would cost {lost_text} of data, the RPO is {objective_text}: run `lifeboat backup \
                         {job}`"
                    ),
                );
            } else if rpo.now.exceeds(objective * RPO_RISK_PER_CENT / 100) {
                findings.add(
                    State::Warning,
                    format!(
                        "a loss now would cost {lost_text} of data, over {RPO_RISK_PER_CENT} % of the RPO of \
                         {objective_text}: run `lifeboat backup {job}`"
                    ),
                );
            }
        }
        (Exposure::Of(_), None) => {}
    }
    if let Some(last) = last {
        let ago = ago(last.finished, now);
        let code = last.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        match last.outcome {
            RunOutcome::Failed => findings.add(
                State::Critical,
                format!("the last backup run failed{code} {ago}: run `lifeboat backup {job} -v`"),
            ),
            RunOutcome::Partial => findings.add(
                State::Warning,
                format!(
                    "the last backup {ago} is partial, something could not be read, and it does not count: run \
                     `lifeboat backup {job} -v` to see what"
                ),
            ),
            RunOutcome::Success => {}
        }
        if let Some(gap) = facts.promise.backup_gap
            && elapsed(last.finished, now) > gap * 2
        {
            findings.add(
                State::Warning,
                format!(
                    "the schedule has been silent: the last run ended {ago}, runs are at most {} apart: see \
                     whether the timer or crontab still starts `lifeboat backup {job}`",
                    exact_duration(gap)
                ),
            );
        }
    }
}

/// What refutes it: objects, or a drill that tried to restore it.
fn refuted_by(facts: &JobFacts, row: &BackupRow) -> String {
    match facts.refuted_objects(&row.id) {
        0 if facts.refutations.iter().any(|found| found.body.backups.contains(&row.id)) => String::new(),
        0 => " by a drill".to_owned(),
        1 => ", 1 of its objects is missing or damaged".to_owned(),
        count => format!(", {count} of its objects are missing or damaged"),
    }
}

/// Older backups that are no good: what one would fall back on is less than it seems.
fn judge_refuted(findings: &mut Findings, facts: &JobFacts, newest: Option<&BackupRow>) {
    let there = facts.backups.iter().filter(|row| row.retained_until.is_none());
    let refuted: Vec<&BackupRow> = there
        .filter(|row| newest.is_none_or(|newest| newest.id != row.id))
        .filter(|row| facts.verdict(&row.id) == Verdict::Refuted)
        .collect();
    let Some((last, others)) = refuted.split_last() else { return };
    let others = match others.len() {
        0 => String::new(),
        count => format!(", and so were {count} older ones"),
    };
    findings.add(
        State::Warning,
        format!(
            "backup {} was refuted{}{others}: run `lifeboat check {}`",
            last.id,
            refuted_by(facts, last),
            facts.job
        ),
    );
}

fn judge_drills(findings: &mut Findings, facts: &JobFacts, rto: &Rto, now: DateTime<Utc>) {
    let job = &facts.job;
    let Some(last) = facts.newest_drill() else {
        let how = match facts.promise.drill {
            DrillPlan::None => format!("`lifeboat drill {job} --identity FILE`, and add [job.{job}.drill]"),
            DrillPlan::OnDemand | DrillPlan::Scheduled { .. } => format!("`lifeboat drill {job}`"),
        };
        findings.add(State::Warning, format!("a restore was never rehearsed: run {how}"));
        return;
    };
    let ago = ago(last.drill.finished, now);
    match rto.last {
        Some(Restore::Failed) => {
            let code = last.drill.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
            findings.add(
                State::Critical,
                format!("the last drill failed{code} {ago}: run `lifeboat drill {job} -v` on the host that drills"),
            );
        }
        Some(took @ Restore::Took(time)) if !took.meets(facts.promise.objectives.rto) => {
            let objective = facts.promise.objectives.rto.map(exact_duration).unwrap_or_default();
            findings.add(
                State::Warning,
                format!(
                    "the last drill took {}, the RTO is {objective}: run `lifeboat report {job}` to see its phases",
                    human_duration(time)
                ),
            );
        }
        Some(Restore::Took(_)) | None => {}
    }
    let stale_after = match facts.promise.drill {
        DrillPlan::Scheduled { gap: Some(gap), .. } => gap * 2,
        DrillPlan::Scheduled { gap: None, .. } | DrillPlan::OnDemand | DrillPlan::None => DRILL_STALE_AFTER,
    };
    if elapsed(last.drill.finished, now) > stale_after {
        findings.add(State::Warning, format!("the last drill ended {ago}: run `lifeboat drill {job}`"));
    }
}

/// The last run, or the last backup where the run that committed it died before it left a record.
fn last_backup(facts: &JobFacts) -> Option<LastBackup> {
    let run = facts.runs.iter().max_by_key(|row| (row.run.finished, row.id.clone())).map(|row| LastBackup {
        outcome: row.run.outcome,
        finished: row.run.finished,
        backup: row.run.backup.clone(),
        error_code: row.run.error_code.clone(),
    });
    let backup = facts.backups.iter().max_by_key(|row| (row.committed, row.sequence)).map(|row| LastBackup {
        outcome: match row.completeness {
            Completeness::Complete => RunOutcome::Success,
            Completeness::Partial => RunOutcome::Partial,
        },
        finished: row.committed,
        backup: Some(row.id.clone()),
        error_code: None,
    });
    match (run, backup) {
        (Some(run), Some(backup)) => Some(if backup.finished > run.finished { backup } else { run }),
        (run, backup) => run.or(backup),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::PruneOutcome;
    use crate::evidence::facts::{Hidden, Unapproved, Unbelieved, Waiting};
    use crate::evidence::samples::*;

    fn state_of(facts: &JobFacts) -> (State, String) {
        let status = job_status(facts, now());
        (status.state, status.reasons.join("\n"))
    }

    #[test]
    fn a_healthy_job_has_nothing_to_say() {
        let status = job_status(&healthy(), now());
        assert_eq!((status.state, status.reasons.len()), (State::Ok, 0), "{:?}", status.reasons);
        assert_eq!(status.rpo.now, Exposure::Of(hours(3)));
        // Taken every six hours, available a minute after the snapshot.
        assert_eq!(status.rpo.worst, Exposure::Of(hours(6) + minutes(1)));
        assert_eq!(status.rto.last, Some(Restore::Took(Duration::from_millis(12_300))));
        assert_eq!(status.recovery_point, Some(before_now(hours(3))));
    }

    #[test]
    fn the_document_is_that_of_the_contract() {
        let document = status(&[healthy()], &[VaultFacts { name: "main".to_owned(), ..VaultFacts::default() }], now());
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
        let mut nothing = healthy();
        nothing.backups.clear();
        nothing.drills.clear();
        let json = serde_json::to_value(job_status(&nothing, now())).unwrap();
        assert_eq!(json["rpo"]["now_seconds"], "unbounded");
        assert_eq!(json["rpo"]["worst_seconds"], "unbounded");
        assert_eq!(json["rto"]["last_seconds"], "unmeasured");
        assert_eq!(json["recovery_point"], serde_json::Value::Null);
    }

    #[test]
    fn each_trouble_has_its_state_and_says_what_to_type() {
        type Trouble = fn(&mut JobFacts);
        let table: &[(&str, Trouble, State, &str, &str)] = &[
            (
                "nothing known",
                |f| {
                    f.backups.clear();
                    f.runs.clear();
                    f.drills.clear();
                },
                State::Unknown,
                "nothing is known",
                "`lifeboat catalog rebuild`",
            ),
            ("no backup", |f| f.backups.clear(), State::Critical, "no complete backup", "`lifeboat backup shop`"),
            (
                "only partial ones",
                |f| f.backups.iter_mut().for_each(|row| row.summary.completeness = Completeness::Partial),
                State::Critical,
                "no complete backup",
                "`lifeboat backup shop`",
            ),
            (
                "RPO breached",
                |f| f.promise.objectives.rpo = Some(hours(2)),
                State::Critical,
                "3h 00m of data, the RPO is 2h",
                "`lifeboat backup shop`",
            ),
            (
                "RPO at risk",
                |f| f.promise.objectives.rpo = Some(minutes(200)),
                State::Warning,
                "over 75 % of the RPO of 3h20m",
                "`lifeboat backup shop`",
            ),
            (
                "last run failed",
                |f| f.runs.push(failed_run(before_now(minutes(30)))),
                State::Critical,
                "failed (storage-full) 30m 00s ago",
                "`lifeboat backup shop -v`",
            ),
            (
                "last run partial",
                |f| {
                    f.backups.last_mut().unwrap().summary.completeness = Completeness::Partial;
                    f.runs.last_mut().unwrap().run.outcome = RunOutcome::Partial;
                },
                State::Warning,
                "is partial",
                "`lifeboat backup shop -v`",
            ),
            ("last drill failed", |f| fail_last_drill(f), State::Critical, "drill failed", "`lifeboat drill shop -v`"),
            (
                "latest backup refuted",
                |f| refute(f, f.backups.last().unwrap().id.clone()),
                State::Critical,
                "was refuted by a drill",
                "`lifeboat check shop --read-data`",
            ),
            (
                "latest backup refuted by a check",
                |f| f.refutations.push(refutation(91, now(), &f.backups.last().unwrap().id.clone(), 3)),
                State::Critical,
                "was refuted, 3 of its objects are missing or damaged",
                "`lifeboat check shop --read-data`",
            ),
            (
                "an older backup refuted",
                |f| f.refutations.push(refutation(91, now(), &f.backups[2].id.clone(), 1)),
                State::Warning,
                "was refuted, 1 of its objects is missing or damaged",
                "`lifeboat check shop`",
            ),
            (
                "unexplained gap",
                |f| f.gaps.push(SequenceRange { first: 2, last: 3 }),
                State::Critical,
                "numbers 2 to 3",
                "`lifeboat check shop`",
            ),
            (
                "manifest not believed",
                |f| {
                    let backup = f.backups[2].id.clone();
                    f.unbelieved.push(Unbelieved { backup, why: "its signature is missing".to_owned() });
                },
                State::Critical,
                "the manifest of backup 0303030303030303 is not believed (its signature is missing)",
                "`lifeboat quarantine 0303030303030303`",
            ),
            (
                "recipient not approved",
                |f| {
                    let backup = f.backups[2].id.clone();
                    f.unapproved.push(Unapproved { backup, recipients: vec!["age1stranger".to_owned()] });
                },
                State::Warning,
                "backup 0303030303030303 is sealed to age1stranger, whom vault.json does not approve",
                "`lifeboat recipient list`",
            ),
            (
                "newest hidden",
                |f| f.hidden = Some(Hidden { there: 12, seen: 14 }),
                State::Critical,
                "saw backup number 14, the newest in the vault is number 12",
                "`lifeboat check shop`",
            ),
            (
                "prune stopped",
                |f| f.prunes.push(prune(92, now(), PruneOutcome::Stopped, None)),
                State::Critical,
                "was stopped (deletion-stopped)",
                "`lifeboat prune shop`",
            ),
            ("never drilled", |f| f.drills.clear(), State::Warning, "never rehearsed", "`lifeboat drill shop`"),
            (
                "stale drill",
                |f| f.promise.drill = DrillPlan::Scheduled { schedule: String::new(), gap: Some(hours(20)) },
                State::Warning,
                "the last drill ended 2d 00h ago",
                "`lifeboat drill shop`",
            ),
            (
                "RTO missed",
                |f| f.promise.objectives.rto = Some(Duration::from_secs(10)),
                State::Warning,
                "took 12.3s, the RTO is 10s",
                "`lifeboat report shop`",
            ),
            (
                "identity at hand",
                |f| f.identity = OwnIdentity::Present,
                State::Warning,
                "opens its own backups",
                "[job.shop.drill]",
            ),
            (
                "silent schedule",
                |f| f.promise.backup_gap = Some(minutes(80)),
                State::Warning,
                "the schedule has been silent",
                "`lifeboat backup shop`",
            ),
            (
                "not erased",
                |f| f.promise.delete_after = Some(hours(24)),
                State::Critical,
                "erasure deadline breached",
                "`lifeboat prune shop`",
            ),
        ];
        for (name, trouble, state, says, types) in table {
            let mut facts = healthy();
            trouble(&mut facts);
            let (found, reasons) = state_of(&facts);
            assert_eq!(found, *state, "{name}: {reasons}");
            assert!(reasons.contains(says) && reasons.contains(types), "{name}: {reasons}");
        }
    }

    #[test]
    fn a_passing_drill_clears_a_refutation_and_another_failure_does_not_refute() {
        let mut facts = healthy();
        let latest = facts.backups.last().unwrap().id.clone();
        refute(&mut facts, latest.clone());
        assert_eq!(facts.verdict(&latest), Verdict::Refuted);
        assert_eq!(job_status(&facts, now()).rpo.now, Exposure::Of(hours(9)), "the one before counts");
        facts.drills.push(drill(90, &latest, before_now(minutes(1)), Duration::from_secs(9)));
        assert_eq!(facts.verdict(&latest), Verdict::Proven);
        assert_eq!(state_of(&facts).0, State::Ok);
        fail_last_drill(&mut facts);
        assert_eq!(facts.verdict(&latest), Verdict::Refuted, "a failure for another reason says nothing");
    }

    #[test]
    fn what_the_witness_says_is_not_said_again() {
        let mut facts = healthy();
        facts.gaps.push(SequenceRange { first: 2, last: 3 });
        facts.hidden = Some(Hidden { there: 11, seen: 12 });
        assert_eq!(job_status(&facts, now()).reasons.len(), 2);
        let gone = [1, 2, 11].map(|place: usize| facts.backups[place].id.clone());
        facts.witness = Witness::Lacks(gone.to_vec());
        assert_eq!(job_status(&facts, now()).reasons.len(), 1, "all of it is known");
        facts.gaps.push(SequenceRange { first: 3, last: u64::MAX });
        assert_eq!(job_status(&facts, now()).reasons.len(), 2, "the fourth is nobody's");
    }

    #[test]
    fn a_vault_says_what_no_job_can() {
        let quiet = VaultFacts { name: "main".to_owned(), ..VaultFacts::default() };
        let said = |facts: &VaultFacts| {
            let status = vault_status(facts, now());
            (status.state, status.reasons.join("\n"))
        };
        assert_eq!(said(&quiet), (State::Ok, String::new()));
        let unknown_jobs = vec!["blog".parse().unwrap(), "old-shop".parse().unwrap()];
        let (state, reasons) = said(&VaultFacts { unknown_jobs, ..quiet.clone() });
        assert_eq!(state, State::Warning);
        assert!(reasons.contains("backups of jobs blog, old-shop") && reasons.contains("nothing erases them"));

        let waiting = Waiting { records: 3, oldest: Some(before_now(hours(5))), ..Waiting::default() };
        let (state, reasons) = said(&VaultFacts { waiting: waiting.clone(), ..quiet.clone() });
        assert_eq!(state, State::Warning);
        assert!(reasons.contains("3 records of this host wait to be written into it, since 5h 00m ago"), "{reasons}");
        let waiting = Waiting { in_vain: 2, folder: "/state/outbox".into(), ..waiting };
        assert!(said(&VaultFacts { waiting, ..quiet.clone() }).1.contains("move them away from /state/outbox"));

        let damaged = vec!["x.record does not hold what lifeboat writes there".to_owned()];
        let waiting = Waiting { damaged: damaged.clone(), ..Waiting::default() };
        let (state, reasons) = said(&VaultFacts { waiting, untold: damaged, ..quiet });
        assert_eq!((state, reasons.lines().count()), (State::Warning, 1), "said once: {reasons}");
    }

    #[test]
    fn a_time_without_any_backup_counts_from_the_first_run() {
        let mut facts = healthy();
        facts.runs.insert(0, failed_run(before_now(hours(24 * 20))));
        assert_eq!(job_status(&facts, now()).rpo.worst, Exposure::Unbounded);
        assert_eq!(job_status(&facts, now()).rpo.window.start, before_now(hours(24 * 20)));
    }
}
