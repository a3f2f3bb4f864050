//! `prune`: takes out the backups whose time is over, then condemns and erases what no backup names any more.
//!
//! In this order, so that a kill at any point leaves a vault that the next run finishes: look at everything and plan; for
//! each backup that goes a signed record, then its manifest; look again; a signed list of what nothing names; delete what
//! was on such a list for the grace period and is still not named. Something that cannot be believed stops every
//! deletion, because what it names might be needed. Why no running backup can lose anything is said in vault/sweep.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::config::JobSettings;
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::Completeness;
use crate::domain::record::{PruneOutcome, PruneRecord, RecordBody, RemovalReason, RemovalRecord, SequenceRange};
use crate::domain::retention::{Candidate, Decision, Fate, Lead, Plan};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::vault::layout::ManifestName;
use crate::vault::manifests::VerifiedManifest;
use crate::vault::survey::Survey;
use crate::vault::sweep::{Garbage, Stock, delete, remove_manifest, take_stock};

use super::host::Host;
use super::records;
use super::vaults::OpenVault;

/// What to prune, and by which rules.
#[derive(Debug)]
pub struct PruneRequest<'a> {
    /// The jobs whose backups may go, all of this vault.
    pub jobs: Vec<(&'a JobSettings, Lead)>,
    /// The zone that days and weeks are read in.
    pub zone: Tz,
    /// How long a condemned object waits.
    pub grace: Duration,
    /// `delete_after` of every job of this vault that the config knows.
    pub delete_after: BTreeMap<JobName, Duration>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a prune of one vault came to.
#[derive(Debug)]
pub struct PruneReport {
    /// By job, in the order of the request.
    pub jobs: Vec<JobPrune>,
    /// Objects and lists that were put on a condemned list.
    pub condemned_objects: u64,
    /// Objects and lists that were deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// What is condemned and still waits, this run's too.
    pub waiting_objects: u64,
    /// What stopped every deletion, each with what to type.
    pub stops: Vec<(String, String)>,
    /// A claim that cannot be understood holds up the sweep until then.
    pub held_until: Option<DateTime<Utc>>,
    /// Jobs that have backups in the vault and are not in the config: nothing here erases them.
    pub unknown_jobs: Vec<JobName>,
    /// Of every backup removed at or before this moment nothing is left.
    pub clean_through: Option<DateTime<Utc>>,
    /// Whether nothing was changed, because only the plan was asked for.
    pub dry_run: bool,
    /// Whether the backups that go were taken out. Not where something stopped the run before it came to that.
    pub removed: bool,
}

/// What became of one job's backups.
#[derive(Debug)]
pub struct JobPrune {
    /// The job.
    pub job: JobName,
    /// What becomes of each, the oldest first.
    pub decisions: Vec<(BackupFacts, Decision)>,
    /// Backups that were removed because their quarantine is over.
    pub released: Vec<BackupId>,
    /// The backups that are past their deadline and still there.
    pub breached: Vec<BackupId>,
}

/// A backup as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Which.
    pub id: BackupId,
    /// The moment its data is consistent at.
    pub recovery_point: DateTime<Utc>,
}

impl PruneReport {
    /// Backups that were taken out, or would be where only the plan was asked for.
    #[must_use]
    pub fn deleted_backups(&self) -> usize {
        if !self.removed && !self.dry_run {
            return 0;
        }
        self.jobs.iter().map(|job| job.deleted().count() + job.released.len()).sum()
    }
}

impl JobPrune {
    /// The backups that go.
    pub fn deleted(&self) -> impl Iterator<Item = &(BackupFacts, Decision)> {
        self.decisions.iter().filter(|(_, decision)| matches!(decision.fate, Fate::Delete(_)))
    }
}

/// Prunes a vault for the jobs of the request, and records it for each.
///
/// # Errors
/// [`Code::Locked`] where this host prunes one of the jobs already; the store's and the catalog's. What stops the
/// deletions is no error: it is in the report.
pub fn prune(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    let started = host.clock.now();
    let stopwatch = host.clock.monotonic();
    let mut locks = Vec::new();
    if !request.dry_run {
        for (job, _) in &request.jobs {
            vault.must_let_write(host, &job.name, started)?;
            locks.push(host.home()?.state.lock(&job.name, "prune", started)?);
        }
    }
    let result = run(host, vault, request, progress);
    if request.dry_run {
        return result;
    }
    let duration_seconds = (host.clock.monotonic() - stopwatch).as_secs_f64();
    let record = |report: Option<&PruneReport>, failure: Option<&Error>, first: bool, job: Option<&JobPrune>| {
        let stopped = report.is_some_and(|report| !report.stops.is_empty());
        // The sweep is the whole vault's: its figures stand in the first job's record, so that sums are right.
        let of_sweep = |figure: fn(&PruneReport) -> u64| report.filter(|_| first).map_or(0, figure);
        RecordBody::Prune(PruneRecord {
            outcome: match failure {
                Some(_) => PruneOutcome::Failed,
                None if stopped => PruneOutcome::Stopped,
                None => PruneOutcome::Done,
            },
            started,
            finished: host.clock.now(),
            duration_seconds,
            removed_backups: job
                .filter(|_| report.is_some_and(|report| report.removed))
                .map_or(0, |job| (job.deleted().count() + job.released.len()) as u64),
            condemned_objects: of_sweep(|report| report.condemned_objects),
            deleted_objects: of_sweep(|report| report.deleted_objects),
            deleted_bytes: of_sweep(|report| report.deleted_bytes),
            clean_through: report.and_then(|report| report.clean_through),
            error_code: failure
                .map(|error| error.code().name().to_owned())
                .or_else(|| stopped.then(|| Code::DeletionStopped.name().to_owned())),
        })
    };
    for (place, (job, _)) in request.jobs.iter().enumerate() {
        let report = result.as_ref().ok();
        let body = record(report, result.as_ref().err(), place == 0, report.and_then(|report| report.jobs.get(place)));
        if let Err(error) = records::write(host, vault, &job.name, body, None) {
            progress.warn(&format!("the prune of {} could not be recorded: {error}", job.name));
        }
    }
    result
}

fn run(host: &Host, vault: &OpenVault, request: &PruneRequest<'_>, progress: &dyn Progress) -> Result<PruneReport> {
    let storage = &*vault.storage;
    // The catalog hears of other hosts' records first: a backup that a drill elsewhere refuted is not a good one.
    vault.survey(host, None)?;
    let stock = host.runtime.block_on(take_stock(storage, &vault.trust))?;
    let mut report = plan(host, vault, request, &stock)?;
    report.stops = stock.stops().iter().map(|stop| (stop.to_string(), stop.hint())).collect();
    if request.dry_run || !report.stops.is_empty() {
        return Ok(report);
    }
    let removed = remove(host, vault, stock.survey(), &report)?;
    report.removed = true;
    host.check_interrupted()?;

    // What was seen before a removal does not say what is garbage after it.
    let stock = if removed {
        let again = host.runtime.block_on(take_stock(storage, &vault.trust))?;
        // What turned up in between stops the sweep as it would have stopped the removal.
        report.stops = again.stops().iter().map(|stop| (stop.to_string(), stop.hint())).collect();
        again
    } else {
        stock
    };
    report.held_until = stock.held_until();
    if report.stops.is_empty() && report.held_until.is_none() {
        let delete_after = request.delete_after.iter().map(|(job, after)| (job.clone(), delta(*after))).collect();
        let grace = delta(request.grace);
        let garbage = host.runtime.block_on(stock.garbage(storage, &vault.trust, grace, &delete_after))?;
        sweep(host, vault, request, &garbage, progress, &mut report)?;
    }
    Ok(report)
}

fn plan(host: &Host, vault: &OpenVault, request: &PruneRequest<'_>, stock: &Stock) -> Result<PruneReport> {
    let now = stock.taken();
    let refuted = host.refuted(&vault.id, None)?;
    let mut jobs = Vec::new();
    for (job, lead) in &request.jobs {
        let of_job: Vec<&VerifiedManifest> =
            stock.survey().manifests.iter().filter(|verified| verified.manifest.job == job.name).collect();
        let candidates: Vec<Candidate> = of_job
            .iter()
            .map(|verified| Candidate {
                backup: verified.manifest.id.clone(),
                recovery_point: verified.manifest.recovery_point,
                available_at: verified.manifest.committed,
                good: verified.manifest.completeness == Completeness::Complete
                    && !refuted.contains(&verified.manifest.id)
                    && !stock.survey().set_aside.contains(&(job.name.clone(), verified.manifest.id.clone())),
            })
            .collect();
        let Plan { decisions } = job.retention.plan(&candidates, lead, request.zone, now);
        let breached = decisions
            .iter()
            .filter(|decision| matches!(decision.fate, Fate::Keep(_)) && decision.deadline < now)
            .map(|decision| decision.backup.clone())
            .collect();
        let decisions = decisions
            .into_iter()
            .map(|decision| {
                let point = candidates.iter().find(|one| one.backup == decision.backup).map(|one| one.recovery_point);
                let facts = BackupFacts { id: decision.backup.clone(), recovery_point: point.unwrap_or(now) };
                (facts, decision)
            })
            .collect();
        let delete_after = delta(job.retention.delete_after);
        let released = stock.quarantines_over(&job.name, delete_after).map(|found| found.name.id.clone()).collect();
        jobs.push(JobPrune { job: job.name.clone(), decisions, released, breached });
    }
    let in_vault: BTreeSet<&JobName> = stock.survey().manifests.iter().map(|verified| &verified.manifest.job).collect();
    let unknown_jobs = in_vault.into_iter().filter(|job| !request.delete_after.contains_key(*job)).cloned().collect();
    Ok(PruneReport {
        jobs,
        condemned_objects: 0,
        deleted_objects: 0,
        deleted_bytes: 0,
        waiting_objects: 0,
        stops: Vec::new(),
        held_until: None,
        unknown_jobs,
        clean_through: None,
        dry_run: request.dry_run,
        removed: false,
    })
}

/// Takes backups out: the record first, because a manifest that is gone without one is an alarm. Says whether there were
/// any.
fn remove(host: &Host, vault: &OpenVault, survey: &Survey, report: &PruneReport) -> Result<bool> {
    let planned: BTreeSet<&JobName> = report.jobs.iter().map(|job| &job.job).collect();
    let mut removed = false;
    // What an earlier run recorded and did not get to delete.
    for name in survey.removed.iter().filter(|name| planned.contains(&name.job)) {
        host.runtime.block_on(remove_manifest(&*vault.storage, name))?;
        removed = true;
    }
    for job in &report.jobs {
        let mut gone = survey.gone.get(&job.job).cloned().unwrap_or_default();
        for (_, decision) in job.deleted() {
            let Fate::Delete(reason) = &decision.fate else { continue };
            let Some(verified) = survey.manifests.iter().find(|one| one.manifest.id == decision.backup) else {
                continue;
            };
            host.check_interrupted()?;
            let sequence = verified.manifest.sequence;
            gone = SequenceRange::union(gone.into_iter().chain([SequenceRange { first: sequence, last: sequence }]));
            let record = RemovalRecord {
                backup: decision.backup.clone(),
                summary: Some(verified.manifest.summary(verified.hash)),
                reason: reason.removal(),
                gone: gone.clone(),
            };
            take_out(host, vault, record, &verified.name)?;
            removed = true;
        }
        for found in survey.quarantined.iter().filter(|found| job.released.contains(&found.name.id)) {
            let record = RemovalRecord {
                backup: found.name.id.clone(),
                summary: None,
                reason: RemovalReason::Quarantined,
                gone: gone.clone(),
            };
            take_out(host, vault, record, &found.name)?;
            removed = true;
        }
    }
    Ok(removed)
}

fn take_out(host: &Host, vault: &OpenVault, record: RemovalRecord, name: &ManifestName) -> Result<()> {
    records::write(host, vault, &name.job, RecordBody::Removal(Box::new(record)), None)?;
    host.runtime.block_on(remove_manifest(&*vault.storage, name))?;
    Ok(())
}

/// Condemns what nothing names, then deletes what was condemned long enough ago.
fn sweep(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    garbage: &Garbage,
    progress: &dyn Progress,
    report: &mut PruneReport,
) -> Result<()> {
    let Some((job, _)) = request.jobs.first() else { return Ok(()) };
    for condemned in &garbage.to_condemn {
        records::write(host, vault, &job.name, RecordBody::Condemned(condemned.clone()), None)?;
    }
    report.condemned_objects = garbage.to_condemn_count();
    report.waiting_objects = garbage.waiting + report.condemned_objects;
    host.check_interrupted()?;
    progress.begin("erasing", Some(garbage.to_delete_bytes()));
    let deleted = host.runtime.block_on(delete(&*vault.storage, garbage, &|bytes| progress.advance(bytes)));
    progress.end();
    let deleted = deleted?;
    report.deleted_objects = deleted.objects;
    report.deleted_bytes = deleted.bytes;
    report.waiting_objects += deleted.left;
    report.clean_through = garbage.clean_through.filter(|_| deleted.left == 0);
    Ok(())
}

/// A duration that no calendar holds is longer than any backup is old.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
