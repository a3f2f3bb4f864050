//! `prune`: takes out the backups whose time is over, then condemns and erases what no backup names any more.
//!
//! In this order, so that a kill at any point leaves a vault that the next run finishes: look at everything and plan; for
//! each backup that goes a signed record, then its manifest; look again; a signed list of what nothing names; delete what
//! was on such a list for the grace period and is still not named. Something that cannot be believed stops every
//! deletion, because what it names might be needed; so do backups that are gone without a word (lost.rs), removals that
//! come too early (early.rs), and a clock that may have jumped (pause.rs). Why no running backup can lose anything is said in vault/sweep.rs.

mod early;
mod pause;
#[cfg(test)]
mod tests;
mod unswept;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use rand::RngExt as _;

use crate::config::{JobSettings, Settings};
use crate::domain::claim::Claim;
use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::manifest::Completeness;
use crate::domain::record::{PruneOutcome, PruneRecord, RecordBody, RemovalReason, RemovalRecord, SequenceRange};
use crate::domain::retention::{Candidate, Decision, Fate, Lead, Plan, Retention};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::storage::Deleted;
use crate::vault::VaultError;
use crate::vault::glance::Glance;
use crate::vault::layout::{Key, ManifestName};
use crate::vault::manifests::VerifiedManifest;
use crate::vault::survey::Quarantined;
use crate::vault::sweep::{Garbage, Stock, delete, remove_manifest, take_stock};
use crate::vault::trust::JobPattern;

pub use self::pause::AfterPause;
use super::backup::agreed_time;
use super::catch_up::catch_up;
use super::host::Host;
use super::lost::lost;
use super::records;
use super::vaults::OpenVault;

/// A run may take long, over several attempts; a claim that goes back further than this is told of.
const LONG_RUN: TimeDelta = TimeDelta::days(7);

/// What to prune, and by which rules.
#[derive(Debug)]
pub struct PruneRequest<'a> {
    /// The jobs whose backups may go, all of this vault.
    pub jobs: Vec<(&'a JobSettings, Lead)>,
    /// The zone that days and weeks are read in.
    pub zone: Tz,
    /// How long a condemned object waits.
    pub grace: Duration,
    /// The promise of every job of this vault that the config knows.
    pub promises: BTreeMap<JobName, Retention>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// When this process began: what it wrote itself says nothing of the clock.
    pub began: DateTime<Utc>,
    /// Whether a person vouches for the clock.
    pub after_pause: AfterPause,
    /// What this process saw of the vault's objects shortly before.
    pub glance: Option<&'a Glance>,
}

impl<'a> PruneRequest<'a> {
    /// Some of a vault's jobs, by the rules of the config.
    #[must_use]
    pub fn by_config(
        settings: &'a Settings,
        vault: &OpenVault,
        jobs: &[&'a JobSettings],
        now: DateTime<Utc>,
        began: DateTime<Utc>,
    ) -> Self {
        let of_vault = settings.jobs_in(&vault.settings.name);
        let lead = |job: &JobSettings| match vault.is_copy() {
            true => settings.lead_in_copy(job, &vault.settings, now),
            false => settings.lead_of(job, now),
        };
        Self {
            jobs: jobs.iter().map(|job| (*job, lead(job))).collect(),
            zone: settings.timezone,
            grace: settings.grace_of(&vault.settings),
            promises: of_vault.map(|job| (job.name.clone(), job.retention)).collect(),
            dry_run: false,
            began,
            after_pause: AfterPause::Stop,
            glance: None,
        }
    }
}

/// What a prune of one vault came to.
#[derive(Debug)]
pub struct PruneReport {
    /// By job, in the order of the request.
    pub jobs: Vec<JobPrune>,
    /// Quarantined backups of jobs that are not in the config, of which the time is over.
    pub released: Vec<(JobName, BackupId)>,
    /// The backups that were taken out.
    pub removed: BTreeSet<(JobName, BackupId)>,
    /// Objects and lists that were put on a condemned list.
    pub condemned_objects: u64,
    /// Objects and lists that were deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// What is condemned and still waits, this run's too.
    pub waiting_objects: u64,
    /// What was to be deleted and is held by the store against that: a later prune does it.
    pub locked_objects: u64,
    /// Until when the last of it, or of a manifest, is held, where the store says it.
    pub locked_until: Option<DateTime<Utc>>,
    /// What was to be deleted and is left, because the deleting took too long: the next prune does it.
    pub left_objects: u64,
    /// What no backup names and is not condemned, because one of [`PruneReport::claims`] covers it.
    pub held_objects: u64,
    /// The claims that hold.
    pub claims: Vec<HeldBy>,
    /// What stopped every deletion from there on, each with what to type.
    pub stops: Vec<(String, String)>,
    /// A claim that cannot be understood holds up the sweep until then.
    pub held_until: Option<DateTime<Utc>>,
    /// What did not work, while the rest went on.
    pub failures: Vec<Error>,
    /// Jobs that have backups in the vault and are not in the config: nothing here erases them.
    pub unknown_jobs: Vec<JobName>,
    /// Removed backups that are past their deadline and may not be erased to the last byte.
    pub unswept: Vec<(JobName, BackupId)>,
    /// Of every backup removed at or before this moment nothing is left.
    pub clean_through: Option<DateTime<Utc>>,
    /// Whether nothing was changed, because only the plan was asked for.
    pub dry_run: bool,
}

/// A claim that holds objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy {
    /// The job that it says.
    pub job: JobName,
    /// The host that it says: claims are not signed.
    pub host: String,
    /// Since when what was stored is held.
    pub since: DateTime<Utc>,
    /// Until when it holds without being renewed.
    pub until: DateTime<Utc>,
    /// What is odd about it.
    pub odd: Option<&'static str>,
}

/// What became of one job's backups.
#[derive(Debug)]
pub struct JobPrune {
    /// The job.
    pub job: JobName,
    /// What becomes of each, the oldest first.
    pub decisions: Vec<(BackupFacts, Decision)>,
    /// Of those that are to go, the ones that the store holds against it, and until when. They go when that is over.
    pub locked: BTreeMap<BackupId, DateTime<Utc>>,
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
        if !self.dry_run {
            return self.removed.len();
        }
        self.released.len() + self.jobs.iter().map(|job| job.deleted().count() + job.released.len()).sum::<usize>()
    }

    /// Whether a backup went, or would go where only the plan was asked for.
    #[must_use]
    pub fn goes(&self, job: &JobName, backup: &BackupId) -> bool {
        self.dry_run || self.removed.contains(&(job.clone(), backup.clone()))
    }

    fn outcome(&self) -> (PruneOutcome, Option<Code>) {
        let stopped = Some(Code::DeletionStopped);
        match self.failures.first() {
            Some(error) => (PruneOutcome::Failed, Some(error.code())),
            None if !self.stops.is_empty() || self.held_until.is_some() => (PruneOutcome::Stopped, stopped),
            None if self.left_objects > 0 => (PruneOutcome::Failed, stopped),
            None => (PruneOutcome::Done, None),
        }
    }
}

impl JobPrune {
    /// The backups that are to go, and can.
    pub fn deleted(&self) -> impl Iterator<Item = &(BackupFacts, Decision)> {
        self.to_go().filter(|(facts, _)| !self.locked.contains_key(&facts.id))
    }

    /// The backups that are to go, those that the store holds too.
    fn to_go(&self) -> impl Iterator<Item = &(BackupFacts, Decision)> {
        self.decisions.iter().filter(|(_, decision)| matches!(decision.fate, Fate::Delete(_)))
    }
}

/// Prunes a vault for the jobs of the request, and records it for each.
///
/// # Errors
/// [`Code::Locked`] where this host prunes one of the jobs already; [`Code::ClockWrong`]; where the vault or the catalog
/// cannot be read. What stops the deletions, and what failed once they had begun, is no error: it is in the report.
pub fn prune(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    // What this host takes for the time does not date what sweeps go by. Where the store does not say, nothing is swept.
    let started = host.runtime.block_on(vault.storage.now()).unwrap_or_else(|_| host.clock.now());
    let stopwatch = host.clock.monotonic();
    let mut locks = Vec::new();
    if !request.dry_run {
        for (job, _) in &request.jobs {
            vault.must_let_write(host, &job.name, started)?;
            locks.push(host.home()?.state.lock(&job.name, "prune", started)?);
        }
    }
    let result = look(host, vault, request).map(|(stock, mut report)| {
        if !request.dry_run
            && report.stops.is_empty()
            && let Err(error) = carry_out(host, vault, request, stock, progress, &mut report)
        {
            report.failures.push(error);
        }
        match unswept::unswept(host, vault, &request.promises, report.clean_through, host.clock.now()) {
            Ok(unswept) => report.unswept = unswept,
            Err(error) => report.failures.push(error),
        }
        report
    });
    if request.dry_run {
        return result;
    }
    let took = host.clock.monotonic() - stopwatch;
    let (finished, duration_seconds) = (started + delta(took), took.as_secs_f64());
    let record = |report: Option<&PruneReport>, failure: Option<&Error>, first: bool, job: &JobName| {
        // The sweep is the whole vault's: its figures stand in the first job's record, so that sums are right.
        let of_sweep = |figure: fn(&PruneReport) -> u64| report.filter(|_| first).map_or(0, figure);
        let outcome = report.map(PruneReport::outcome);
        let (outcome, code) = outcome.unwrap_or((PruneOutcome::Failed, failure.map(Error::code)));
        let removed = report.into_iter().flat_map(|report| &report.removed);
        RecordBody::Prune(PruneRecord {
            outcome,
            started,
            finished,
            duration_seconds,
            removed_backups: removed.filter(|(of, _)| of == job).count() as u64,
            condemned_objects: of_sweep(|report| report.condemned_objects),
            deleted_objects: of_sweep(|report| report.deleted_objects),
            deleted_bytes: of_sweep(|report| report.deleted_bytes),
            clean_through: report.and_then(|report| report.clean_through),
            error_code: code.map(|code| code.name().to_owned()),
        })
    };
    for (place, (job, _)) in request.jobs.iter().enumerate() {
        let body = record(result.as_ref().ok(), result.as_ref().err(), place == 0, &job.name);
        if let Err(error) = write(host, vault, &job.name, finished, body) {
            progress.warn(&format!("the prune of {} could not be recorded: {error}", job.name));
        }
    }
    result
}

/// Looks at everything, and plans.
fn look(host: &Host, vault: &OpenVault, request: &PruneRequest<'_>) -> Result<(Stock, PruneReport)> {
    agreed_time(host, vault)?;
    let stock = host.runtime.block_on(take_stock(&*vault.storage, &vault.trust, request.glance))?;
    // The catalog hears of other hosts' records first: a backup that a drill elsewhere refuted is not a good one.
    if let Some(home) = host.home_if_any() {
        catch_up(host, home, vault, stock.survey())?;
    }
    let mut report = plan(host, vault, request, &stock)?;
    report.stops = stops(host, vault, request, &stock)?;
    report.stops.extend(pause::stop(host, vault, request, stock.taken())?);
    Ok((stock, report))
}

/// What must not be the case when anything is deleted, each with what to type.
fn stops(host: &Host, vault: &OpenVault, request: &PruneRequest<'_>, stock: &Stock) -> Result<Vec<(String, String)>> {
    let mut stops: Vec<_> = stock.stops().iter().map(|stop| (stop.to_string(), stop.hint())).collect();
    let known: Vec<JobName> = request.promises.keys().cloned().collect();
    stops.extend(lost(host, vault, stock.survey(), &known)?.iter().map(|lost| (lost.reason(), lost.hint())));
    let early = early::early(host, vault, request, stock)?;
    stops.extend(early.iter().filter(|early| !early.is_left_alone).map(early::Early::stop));
    Ok(stops)
}

fn carry_out(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    stock: Stock,
    progress: &dyn Progress,
    report: &mut PruneReport,
) -> Result<()> {
    let changed = remove(host, vault, request, &stock, report)?;
    host.check_interrupted()?;

    // What was named before a removal does not say what is garbage after it.
    let stock = if changed {
        let glance = stock.glance();
        drop(stock);
        let again = host.runtime.block_on(take_stock(&*vault.storage, &vault.trust, glance.as_ref()))?;
        // What turned up in between stops the sweep as it would have stopped the removal.
        report.stops = stops(host, vault, request, &again)?;
        again
    } else {
        stock
    };
    report.held_until = stock.held_until();
    if report.stops.is_empty() && report.held_until.is_none() {
        let after = |promise: &Retention| delta(promise.delete_after);
        let delete_after = request.promises.iter().map(|(job, promise)| (job.clone(), after(promise))).collect();
        let grace = delta(request.grace);
        let garbage = host.runtime.block_on(stock.garbage(&*vault.storage, &vault.trust, grace, &delete_after))?;
        sweep(host, vault, request, &stock, &garbage, progress, report)?;
    }
    Ok(())
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
        // As early as any other, so that its objects can be gone in time.
        let over_after = delta(job.retention.planned_age(lead));
        let released = stock.quarantines_over(&job.name, over_after).map(|found| found.name.id.clone()).collect();
        let mut of_job = JobPrune { job: job.name.clone(), decisions, locked: BTreeMap::new(), released, breached };
        of_job.locked = locked_backups(host, vault, stock, &of_job)?;
        jobs.push(of_job);
    }
    let survey = stock.survey();
    let quarantined: BTreeSet<&JobName> = survey.quarantined.iter().map(|found| &found.name.job).collect();
    let mut in_vault: BTreeSet<&JobName> = survey.manifests.iter().map(|verified| &verified.manifest.job).collect();
    in_vault.extend(&quarantined);
    let is_unknown = |job: &&&JobName| !request.promises.contains_key(**job);
    let unknown_jobs = in_vault.iter().filter(is_unknown).map(|job| (*job).clone()).collect();
    let longest = request.promises.values().map(|promise| delta(promise.delete_after)).max().unwrap_or(TimeDelta::MAX);
    let over = |job: &&JobName| {
        let over = stock.quarantines_over(job, longest);
        over.map(|found| (found.name.job.clone(), found.name.id.clone())).collect::<Vec<_>>()
    };
    let released = quarantined.iter().filter(is_unknown).flat_map(over).collect();
    let jobs_locked_until = jobs.iter().flat_map(|job: &JobPrune| job.locked.values()).max().copied();
    Ok(PruneReport {
        jobs,
        released,
        removed: BTreeSet::new(),
        condemned_objects: 0,
        deleted_objects: 0,
        deleted_bytes: 0,
        waiting_objects: 0,
        locked_objects: 0,
        locked_until: jobs_locked_until,
        left_objects: 0,
        held_objects: 0,
        claims: stock.live_claims().iter().map(|claim| held_by(vault, claim, now)).collect(),
        stops: Vec::new(),
        held_until: stock.held_until(),
        failures: Vec::new(),
        unknown_jobs,
        unswept: Vec::new(),
        clean_through: None,
        dry_run: request.dry_run,
    })
}

/// Which of the backups that are to go the store still holds: those that were to be thinned, and those of a config that
/// promised to keep for longer.
fn locked_backups(
    host: &Host,
    vault: &OpenVault,
    stock: &Stock,
    job: &JobPrune,
) -> Result<BTreeMap<BackupId, DateTime<Utc>>> {
    let mut locked = BTreeMap::new();
    for (facts, _) in job.to_go() {
        let found =
            stock.survey().manifests.iter().find(|one| one.manifest.job == job.job && one.manifest.id == facts.id);
        let Some(found) = found else { continue };
        if let Some(until) = locked_until(host, vault, &found.name, stock.taken())? {
            locked.insert(facts.id.clone(), until);
        }
    }
    Ok(locked)
}

/// Until when the store holds a manifest or its signature, if it does.
fn locked_until(
    host: &Host,
    vault: &OpenVault,
    name: &ManifestName,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    let keys = [Key::Manifest(name.clone()), Key::ManifestSignature(name.clone())];
    let mut latest = None;
    for key in keys {
        latest = latest.max(host.runtime.block_on(vault.storage.held_until(&key.to_string()))?);
    }
    Ok(latest.filter(|until| *until > now))
}

/// What the store would not let go is no failure: it goes when the store does.
fn note_removal(removed: std::result::Result<Deleted, VaultError>, report: &mut PruneReport) {
    match removed {
        Ok(Deleted::Held { until }) => report.locked_until = report.locked_until.max(until),
        Ok(Deleted::Removed | Deleted::Absent) => {}
        Err(error) => report.failures.push(error.into()),
    }
}

fn held_by(vault: &OpenVault, claim: &Claim, now: DateTime<Utc>) -> HeldBy {
    let lets = |pattern: &JobPattern| match pattern {
        JobPattern::Any => true,
        JobPattern::Job(job) => *job == claim.job,
    };
    let is_known = vault.trust.hosts.iter().any(|host| host.name == claim.host && host.jobs.iter().any(lets));
    let odd = if !is_known {
        Some("vault.json knows no such host, or not for this job")
    } else if claim.since < now - LONG_RUN {
        Some("it goes back further than a week")
    } else {
        None
    };
    HeldBy { job: claim.job.clone(), host: claim.host.clone(), since: claim.since, until: claim.until, odd }
}

/// Takes backups out: the record first, because a manifest that is gone without one is an alarm. What fails for one
/// goes on with the next. Says whether anything changed.
fn remove(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    stock: &Stock,
    report: &mut PruneReport,
) -> Result<bool> {
    let survey = stock.survey();
    let early = early::early(host, vault, request, stock)?;
    let mut changed = false;
    // What an earlier run recorded and did not get to delete, of whatever job.
    for name in survey.removed.iter().filter(|name| early.iter().all(|early| early.name != **name)) {
        host.check_interrupted()?;
        note_removal(host.runtime.block_on(remove_manifest(&*vault.storage, name)), report);
        changed = true;
    }
    let mut gone = survey.gone.clone();
    let mut leaving = Vec::new();
    for job in &report.jobs {
        for (_, decision) in job.deleted() {
            let Fate::Delete(reason) = &decision.fate else { continue };
            let found = survey.manifests.iter().find(|one| one.manifest.id == decision.backup);
            leaving.extend(found.map(|verified| {
                let summary = verified.manifest.summary(verified.hash);
                (verified.name.clone(), Some(summary.sequence), Some(summary), reason.removal())
            }));
        }
    }
    let rows = host.runtime.block_on(host.home()?.catalog.backups(&vault.id, None))?;
    for found in survey.quarantined.iter().filter(|found| is_released(report, found)) {
        // Its number, if it could be believed once. Its age says nothing: a person gave it another time.
        let row = rows.iter().find(|row| row.job == found.name.job && row.id == found.name.id);
        leaving.push((found.name.clone(), row.map(|row| row.sequence), None, RemovalReason::Quarantined));
    }
    for (name, sequence, summary, reason) in leaving {
        host.check_interrupted()?;
        if !request.promises.contains_key(&name.job) && vault.must_let_write(host, &name.job, host.clock.now()).is_err()
        {
            // Another host's job, and for another host to end.
            continue;
        }
        if let Some(until) = locked_until(host, vault, &name, stock.taken())? {
            report.locked_until = report.locked_until.max(Some(until));
            continue;
        }
        let gone = gone.entry(name.job.clone()).or_default();
        let own = sequence.map(|sequence| SequenceRange { first: sequence, last: sequence });
        let with_own = SequenceRange::union(gone.iter().copied().chain(own));
        let record = RemovalRecord { backup: name.id.clone(), summary, reason, gone: with_own.clone() };
        let now = host.runtime.block_on(vault.storage.now())?;
        if let Err(error) = write(host, vault, &name.job, now, RecordBody::Removal(Box::new(record))) {
            report.failures.push(error);
            continue;
        }
        (*gone, changed) = (with_own, true);
        report.removed.insert((name.job.clone(), name.id.clone()));
        note_removal(host.runtime.block_on(remove_manifest(&*vault.storage, &name)), report);
    }
    Ok(changed)
}

fn is_released(report: &PruneReport, found: &Quarantined) -> bool {
    let ManifestName { job, id, .. } = &found.name;
    report.released.iter().any(|(of, released)| of == job && released == id)
        || report.jobs.iter().any(|of| of.job == *job && of.released.contains(id))
}

/// Condemns what nothing names, then deletes what was condemned long enough ago.
fn sweep(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    stock: &Stock,
    garbage: &Garbage,
    progress: &dyn Progress,
    report: &mut PruneReport,
) -> Result<()> {
    let Some((job, _)) = request.jobs.first() else { return Ok(()) };
    for condemned in &garbage.to_condemn {
        write(host, vault, &job.name, garbage.taken, RecordBody::Condemned(condemned.clone()))?;
    }
    report.condemned_objects = garbage.to_condemn_count();
    report.waiting_objects = garbage.waiting + report.condemned_objects;
    report.held_objects = garbage.held;
    host.check_interrupted()?;
    progress.begin("erasing", Some(garbage.to_delete_bytes()));
    let deleted = host.runtime.block_on(delete(&*vault.storage, garbage, &|bytes| progress.advance(bytes)));
    progress.end();
    let deleted = deleted?;
    report.deleted_objects = deleted.objects;
    report.deleted_bytes = deleted.bytes;
    report.locked_objects = deleted.locked.len() as u64;
    report.locked_until = report.locked_until.max(deleted.locked_until);
    report.waiting_objects += deleted.left + report.locked_objects;
    report.left_objects = deleted.left;
    if deleted.left == 0 {
        // Of jobs that are not in the config nobody here knows how long they keep.
        let promises = request.promises.values().map(|promise| delta(promise.keep_at_least));
        let keep_at_least = promises.min().filter(|_| report.unknown_jobs.is_empty());
        let clean = stock.clean_beside(&*vault.storage, &vault.trust, garbage, &deleted.locked, keep_at_least);
        report.clean_through = host.runtime.block_on(clean)?;
    }
    // Nothing of ours is ever unfinished, so a keeper without the rights for this loses nothing of its own.
    match host.runtime.block_on(vault.storage.clear_unfinished(garbage.taken - delta(request.grace))) {
        Ok(0) => {}
        Ok(count) => progress.warn(&format!("{count} uploads that somebody began and never finished were given up")),
        Err(error) => progress.warn(&format!("uploads that somebody never finished may take room: {error}")),
    }
    Ok(())
}

fn write(host: &Host, vault: &OpenVault, job: &JobName, recorded: DateTime<Utc>, body: RecordBody) -> Result<()> {
    records::write_at(host, vault, job, &RecordId::from_random(rand::rng().random()), recorded, body, None)
}

/// A duration that no calendar holds is longer than any backup is old.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
