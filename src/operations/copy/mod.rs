//! `copy`: the backups of a job, sealed as they are, from its vault into a second one. No key of the data is needed.
//!
//! The copy is a mirror with a life of its own (docs/decisions/0015): the same documents under the same names and
//! signatures, but what has expired is erased there by its own prunes, condemned lists and claims. In this order, so that a
//! kill at any point leaves a copy that holds no manifest whose objects are not all there: a claim; what the copy condemned;
//! records; of each backup that is missing its lists and objects, hashed on the way; one look that everything is there;
//! manifests, the oldest first. Why a sweep of the copy cannot take what a copy names is the argument of vault/sweep.rs for
//! a writer that names what it finds: what is condemned there is neither named nor stored, until its list is gone.

mod carry;
mod place;
mod plan;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::config::JobSettings;
use crate::domain::ids::{BackupId, ObjectId};
use crate::domain::manifest::Completeness;
use crate::domain::record::{CopyOutcome, CopyRecord, RecordBody, SequenceRange};
use crate::domain::retention::Lead;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::vault::layout::Key;
use crate::vault::manifests::VerifiedManifest;
use crate::vault::survey::{Fault, Survey};

pub use self::place::{awaits_first_copy, open_copy};
use self::plan::{Rules, Wanted, plan};
use super::backup::{agreed_time, claim, reuse};
use super::host::Host;
use super::records;
use super::vaults::OpenVault;

/// What to copy, and by which rules.
#[derive(Debug)]
pub struct CopyRequest<'a> {
    /// The job.
    pub job: &'a JobSettings,
    /// How long before their deadline its backups go in the copy: what would go at once is not brought there.
    pub lead: Lead,
    /// The zone that days and weeks are read in.
    pub zone: Tz,
}

/// What a copy of one job came to.
#[derive(Debug)]
pub struct CopyReport {
    /// As it is on record.
    pub record: CopyRecord,
    /// The backups that were brought there.
    pub copied: Vec<BackupId>,
    /// Backups that were removed from the source while they were copied.
    pub vanished: Vec<BackupId>,
    /// What could not be copied.
    pub left: Vec<Left>,
    /// What ended it.
    pub failure: Option<Error>,
}

/// Something that belongs into the copy and is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The backup, where it is one.
    pub backup: Option<BackupId>,
    /// What is wrong, with the key that it is wrong with.
    pub what: String,
    /// Its stable code.
    pub code: Code,
    /// What to type next.
    pub hint: String,
}

/// What has been done so far.
#[derive(Debug, Default)]
struct Tally {
    copied: Vec<BackupId>,
    vanished: Vec<BackupId>,
    left: Vec<Left>,
    new_objects: u64,
    new_bytes: u64,
    /// Backups in the copy.
    backups: u64,
    newest: Option<(DateTime<Utc>, BackupId)>,
}

impl Tally {
    fn has(&mut self, verified: &VerifiedManifest, bad: &HashSet<BackupId>) {
        self.backups += 1;
        let manifest = &verified.manifest;
        if manifest.completeness == Completeness::Complete && !bad.contains(&manifest.id) {
            self.newest = self.newest.take().max(Some((manifest.recovery_point, manifest.id.clone())));
        }
    }
}

/// Copies a job's backups, and puts on record what came of it.
///
/// # Errors
/// [`Code::Locked`] where this host copies the job already, and where its key may not sign for the job: nothing was tried.
/// Everything else is in the report.
pub fn copy(
    host: &Host,
    source: &OpenVault,
    to: &OpenVault,
    request: &CopyRequest<'_>,
    progress: &dyn Progress,
) -> Result<CopyReport> {
    let started = host.clock.now();
    source.must_let_write(host, &request.job.name, started)?;
    let lock = host.home()?.state.lock(&request.job.name, "copy", started)?;
    let stopwatch = host.clock.monotonic();
    let mut tally = Tally::default();
    let result = bring_all(host, source, to, request, progress, &mut tally);
    let duration_seconds = (host.clock.monotonic() - stopwatch).as_secs_f64();
    let outcome = match (&result, tally.left.is_empty()) {
        (Err(_), _) => CopyOutcome::Failed,
        (Ok(()), false) => CopyOutcome::Partial,
        (Ok(()), true) => CopyOutcome::Success,
    };
    let failure = result.err();
    let code = failure.as_ref().map(Error::code).or(tally.left.first().map(|left| left.code));
    let record = CopyRecord {
        outcome,
        to: to.settings.name.clone(),
        started,
        finished: host.clock.now(),
        duration_seconds,
        backup: tally.newest.as_ref().map(|(_, backup)| backup.clone()),
        recovery_point: tally.newest.as_ref().map(|(point, _)| *point),
        backups: tally.backups,
        copied_backups: tally.copied.len() as u64,
        left_backups: tally.left.len() as u64,
        new_objects: tally.new_objects,
        new_bytes: tally.new_bytes,
        error_code: code.map(|code| code.name().to_owned()),
    };
    put_on_record(host, source, request.job, &record, progress);
    drop(lock);
    Ok(CopyReport { record, copied: tally.copied, vanished: tally.vanished, left: tally.left, failure })
}

/// A copy that could not even be begun, because its place cannot be opened: that is on record too.
pub fn could_not_begin(
    host: &Host,
    source: &OpenVault,
    job: &JobSettings,
    to: &str,
    started: DateTime<Utc>,
    error: &Error,
    progress: &dyn Progress,
) {
    let record = CopyRecord {
        outcome: CopyOutcome::Failed,
        to: to.to_owned(),
        started,
        finished: host.clock.now(),
        duration_seconds: 0.0,
        backup: None,
        recovery_point: None,
        backups: 0,
        copied_backups: 0,
        left_backups: 0,
        new_objects: 0,
        new_bytes: 0,
        error_code: Some(error.code().name().to_owned()),
    };
    put_on_record(host, source, job, &record, progress);
}

fn put_on_record(host: &Host, source: &OpenVault, job: &JobSettings, record: &CopyRecord, progress: &dyn Progress) {
    if let Err(error) = records::write(host, source, &job.name, RecordBody::Copy(record.clone()), None) {
        progress.warn(&format!("the copy of {} could not be recorded: {error}", job.name));
    }
}

fn bring_all(
    host: &Host,
    source: &OpenVault,
    to: &OpenVault,
    request: &CopyRequest<'_>,
    progress: &dyn Progress,
    tally: &mut Tally,
) -> Result<()> {
    let job = request.job;
    let now = agreed_time(host, to)?;
    let survey = source.survey(host, Some(&job.name))?;
    let hidden = source.hidden_newest(host, &survey, std::slice::from_ref(&job.name))?;
    if let Some((_, there, seen)) = hidden.first() {
        return Err(hidden_newest(job, *there, *seen));
    }
    tally.left.extend(wrong_in_source(&survey));
    let there = to.survey(host, Some(&job.name))?;
    let (bad, bad_there) = (host.refuted(&source.id, Some(&job.name))?, host.refuted(&to.id, Some(&job.name))?);
    there.manifests.iter().for_each(|verified| tally.has(verified, &bad_there));

    // Records first: they explain the gaps between the manifests, and say what must not come back.
    let carried = carry::carry(host, source, to, &job.name, &job.retention, &there, now)?;
    tally.left.extend(carried.left);
    let catalog = &host.home()?.catalog;
    let removals = host.runtime.block_on(catalog.removals(&to.id, Some(&job.name)))?;
    let removed: BTreeSet<BackupId> = removals.into_iter().map(|row| row.body.backup).chain(carried.removed).collect();
    let rules = Rules { job: &job.name, retention: &job.retention, lead: &request.lead, zone: request.zone, now };
    let Wanted { manifests, stay_out } = plan(&survey, &there, &removed, &|id| bad.contains(id), &rules)?;
    if manifests.is_empty() {
        return Ok(());
    }

    let gone_there = there.gone.get(&job.name).into_iter().flatten().copied().chain(carried.gone);
    let numbers = there.manifests.iter().map(|verified| one(verified.manifest.sequence)).chain(gone_there);
    let known = survey.gone.get(&job.name).into_iter().flatten().copied().chain(stay_out);
    let mut held = claim::take(host, to, &job.name, now, None, &[])?;
    let result = (|| {
        // Only now: what is condemned from here on, is so by a sweep that sees the claim, or is found before the commit.
        let condemned = reuse::condemned(host, to)?;
        if let Some(key) = condemned.unread {
            let message = format!("{key} in the copy is a newer lifeboat's and cannot be read: nothing was copied");
            return Err(Error::new(Code::VaultVersion, message).with_hint("install the newer lifeboat"));
        }
        let refuted = host.runtime.block_on(catalog.refutations(&to.id, None))?;
        let refuted: HashSet<ObjectId> =
            refuted.into_iter().flat_map(|row| row.body.objects.into_iter().chain(row.body.lists)).collect();
        let mut run = run::Run {
            host,
            source,
            to,
            job: &job.name,
            progress,
            condemned: condemned.names,
            refuted,
            bad: &bad_there,
            there: run::look(host, to)?,
            accounted: numbers.collect(),
            known: known.collect(),
            tally,
        };
        run.bring(manifests, &mut held)
    })();
    match &result {
        Ok(()) => {
            if let Err(error) = held.give_up() {
                progress.warn(&format!("the copy is made, and its claim could not be given up: {error}; it lapses"));
            }
        }
        // Until it lapses it keeps the sweeps away from what was stored: the next copy goes on from there.
        Err(_) => drop(held),
    }
    result
}

fn one(number: u64) -> SequenceRange {
    SequenceRange { first: number, last: number }
}

/// Manifests of the source that nobody would believe in the copy either, and those that are missing.
fn wrong_in_source(survey: &Survey) -> Vec<Left> {
    let wrong = survey.problems.iter().map(|problem| Left {
        backup: match (&problem.fault, Key::parse(&problem.key)) {
            (Fault::Untrusted(_), Key::Manifest(name)) => Some(name.id),
            _ => None,
        },
        what: format!("{}: {}", problem.key, problem.fault),
        code: problem.fault.code(),
        hint: problem.hint(),
    });
    wrong.collect()
}

fn hidden_newest(job: &JobSettings, there: u64, seen: u64) -> Error {
    let name = &job.name;
    let message = format!(
        "this host saw backup number {seen} of {name}, and the newest in the source is number {there}: it was rolled back, and \
         nothing was copied"
    );
    Error::new(Code::ManifestMissing, message).with_hint(format!(
        "run `lifeboat check {name}`; bring back what is gone, or acknowledge that it is lost: `lifeboat quarantine \
         {name}#{}-{seen}`",
        there + 1
    ))
}
