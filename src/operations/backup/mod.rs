//! `backup`: every source of a job into the vault, then the manifest, which is the commit.
//!
//! The order is that of docs/VAULT-FORMAT.md: the claim; segments, contents, lists; one sync; a look at whether everything
//! that the manifest will name is there, was not condemned meanwhile, and was claimed all the time; the signature; the
//! manifest. What fails before the last step leaves nothing but garbage that no manifest names, and a journal and a
//! claim of it, so that the next run takes it over.

pub(super) mod claim;
mod holds;
mod journal;
mod opening;
mod pipeline;
mod report;
pub(super) mod reuse;
mod source;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt;

use crate::config::{JobSettings, SourceKind, SourceSettings};
use crate::domain::contents::NoteClass;
use crate::domain::ids::{BackupId, JobName, ManifestHash, ObjectId, SourceName};
use crate::domain::manifest::{Completeness, MANIFEST_TYPE, MANIFEST_VERSION, Manifest};
use crate::domain::record::{Finder, RecordBody, RefutationRecord};
use crate::domain::retention::Hold;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::seal::{HostSecret, Sealer, SourceKeys, recipient_set};
use crate::sources::memory::{MemoryHead, WrittenMemory};
use crate::vault::layout::{Key, ManifestName};
use crate::vault::manifests::{commit_manifest, sign_manifest, verify_manifest};
use crate::vault::presence::{absent, absent_lists};
use crate::vault::writer::{Barred, Pace};

use self::claim::Held;
pub(super) use self::claim::agreed_time;
use self::journal::{Left, Owner};
use self::report::{Committed, run_record};
pub use self::report::{RunReport, not_started};
use self::reuse::{Allowance, MAX_REFUTED_NAMES, Refuted, Seen};
use self::source::{Prepared, StoredSource};
use super::begun::{self, Doing};
use super::hooks::Hooks;
use super::host::Host;
use super::vaults::{OpenVault, manifests};
use super::{TOOL, databases, records};

/// How long to wait before a source is tried again that failed of something that may pass: a server that starts anew, a
/// lock.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// A job as a run needs it.
struct Job<'a> {
    settings: &'a JobSettings,
    /// The job's settings without secrets, for the head of the contents.
    config: serde_json::Value,
}

/// One run.
struct Run<'a> {
    host: &'a Host,
    vault: &'a OpenVault,
    job: &'a JobName,
    progress: &'a dyn Progress,
    recipient_set: String,
    /// The number that the backup will have, once the job is claimed.
    sequence: u64,
    /// The job's backups, oldest first.
    earlier: Vec<Manifest>,
    /// Those that were found bad, and nobody knows which of their objects spoil them.
    refuted: HashSet<BackupId>,
    /// Those that were gone when they were looked for again, and what a newer lifeboat may have condemned.
    no_base: HashSet<BackupId>,
    /// Objects and lists that must not be named.
    barred: Arc<Barred>,
    /// When the run syncs.
    pace: Arc<Pace>,
    /// Since when what the run stores is claimed.
    since: DateTime<Utc>,
    /// When it began, by the store's time.
    began: DateTime<Utc>,
    /// How long what it stores is held, where the store holds it.
    hold: Option<Hold>,
}

impl Run<'_> {
    fn sealer(&self, kind: &SourceKind) -> Result<Sealer> {
        let settings = &self.vault.settings;
        Ok(Sealer::new(&settings.recipients, settings.compression_level_of(kind))?)
    }

    /// The newest complete backup that has this source and was sealed to the same recipients. None once that one was
    /// found bad and nobody knows which of its objects spoil it: then none is named again, nor an older backup's.
    fn base(&self, source: &SourceName) -> Option<&Manifest> {
        let newest = self.earlier.iter().rev().find(|manifest| {
            manifest.completeness == Completeness::Complete
                && manifest.recipient_set == self.recipient_set
                && manifest.sources.iter().any(|entry| entry.name == *source)
        });
        newest.filter(|manifest| !self.refuted.contains(&manifest.id) && !self.no_base.contains(&manifest.id))
    }
}

/// Backs a job up. A failure is in the report, and recorded where the vault can still be written to.
///
/// # Errors
/// Only when the job is locked, by this host or another one: then nothing was tried, and nothing is recorded.
pub fn backup(
    host: &Host,
    vault: &OpenVault,
    settings: &JobSettings,
    config: serde_json::Value,
    progress: &dyn Progress,
) -> Result<RunReport> {
    let started = host.clock.now();
    let stopwatch = host.clock.monotonic();
    let _lock = host.home()?.state.lock(&settings.name, "backup", started)?;
    let begun = begun::begin(host, vault, &settings.name, Doing::Backup, started, progress);
    let job = Job { settings, config };
    let hooks = Hooks::new(host, &settings.name, &settings.hooks);
    let result = hooks.before().and_then(|()| run(host, vault, &job, started, progress));
    let mut report = match result {
        Ok(committed) => committed.into_report(),
        Err(error) => not_started(error),
    };
    hooks.after(&mut report);
    if let Some(error) = report.failure.take_if(|failure| failure.code() == Code::Locked) {
        begun::end(begun, progress);
        return Err(error);
    }
    report.duration_seconds = (host.clock.monotonic() - stopwatch).as_secs_f64();
    if let Err(error) =
        records::write(host, vault, &settings.name, run_record(&report, started, host.clock.now()), None)
    {
        let what = format!("the run could not be recorded: {error}");
        progress.warn(&what);
        report.errors.push(what);
    }
    begun::end(begun, progress);
    Ok(report)
}

/// The report of a run whose vault could not be opened. Nothing records it; the job's hooks hear of it.
#[must_use]
pub fn without_vault(host: &Host, settings: &JobSettings, error: Error) -> RunReport {
    let mut report = not_started(error);
    Hooks::new(host, &settings.name, &settings.hooks).on_failure(&mut report);
    report
}

fn run(
    host: &Host,
    vault: &OpenVault,
    job: &Job<'_>,
    started: DateTime<Utc>,
    progress: &dyn Progress,
) -> Result<Committed> {
    let name = &job.settings.name;
    vault.must_let_write(host, name, started)?;
    let now = claim::agreed_time(host, vault)?;
    let survey = vault.survey(host, Some(name))?;
    for problem in &survey.problems {
        progress.warn(&format!("{}: {}; `lifeboat check {name}` says more", problem.key, problem.fault));
    }
    claim::must_follow(host, vault, name, &survey)?;
    // What the config means by `databases` is known from here on, and is this backup's.
    let asked_for = job.settings;
    let expanded = databases::expanded(host, asked_for)?;
    let there: Vec<SourceName> = expanded.sources.iter().map(|source| source.name.clone()).collect();
    let job = &Job { settings: &expanded, config: job.config.clone() };
    let refuted = Refuted::read(host, vault, name)?;
    let verified = survey.manifests.clone();
    let mut run = Run {
        host,
        vault,
        job: name,
        progress,
        recipient_set: recipient_set(&vault.settings.recipients),
        sequence: 0,
        earlier: manifests(survey),
        refuted: refuted.backups,
        no_base: HashSet::new(),
        barred: Arc::default(),
        pace: Arc::new(Pace::new(Arc::clone(&host.clock))),
        since: now,
        began: now,
        hold: holds::asked_for(vault, asked_for)?,
    };
    for what in databases::vanished(asked_for, &run.earlier, &there) {
        progress.warn(&what);
    }
    let secret = host.home()?.state.host_secret()?;
    let mut left = left_behind(&run, job, &secret)?;
    let bases = bases(&run, job);
    let since = left.values().map(|left| left.begun).min();
    let mut held = claim::take(host, vault, name, now, since, &bases)?;
    let claimed = bases.iter().flat_map(|base| &base.sources).flat_map(|source| &source.lists).copied().collect();
    let result = swept(&run, &bases).and_then(|swept| {
        // Only now nobody else gives the job's backups their numbers: another host's run may have ended meanwhile.
        let last = vault.last_of(host, &vault.survey_again(host, name, &verified)?, name)?;
        run.sequence = last.map_or(1, |(sequence, _)| sequence + 1);
        if swept.reuse == Reuse::Nothing {
            left.clear();
        }
        run.no_base = swept.no_base;
        run.barred = Arc::new(Barred { condemned: swept.condemned, refuted: refuted.names, claimed });
        run.since = held.since();
        store_and_commit(&run, job, &secret, left, last, started, &mut held)
    });
    end(&run, held, result)
}

/// What runs that broke off left of the job's sources.
fn left_behind(run: &Run<'_>, job: &Job<'_>, secret: &HostSecret) -> Result<BTreeMap<SourceName, Left>> {
    let mut all = BTreeMap::new();
    run.host.home()?.state.clear_unfinished_memories(&run.vault.id, run.job)?;
    for source in &job.settings.sources {
        let path = run.host.home()?.state.journal(&run.vault.id, run.job, &source.name)?;
        let owner = owner(run, &secret.for_source(&run.vault.id, run.job, &source.name));
        all.extend(journal::read(&path, &owner).map(|left| (source.name.clone(), left)));
    }
    Ok(all)
}

fn owner(run: &Run<'_>, keys: &SourceKeys) -> Owner {
    Owner { id_key: keys.id_key, recipient_set: run.recipient_set.clone() }
}

/// The backups that the run may name objects of.
fn bases<'r>(run: &'r Run<'_>, job: &Job<'_>) -> Vec<&'r Manifest> {
    let mut bases: Vec<&Manifest> = job.settings.sources.iter().filter_map(|source| run.base(&source.name)).collect();
    bases.sort_by_key(|base| base.sequence);
    bases.dedup_by_key(|base| base.sequence);
    bases
}

/// What sweeps did before the claim stood.
struct Swept {
    /// Bases that are none any more.
    no_base: HashSet<BackupId>,
    /// Objects and lists that may be deleted.
    condemned: HashSet<ObjectId>,
    reuse: Reuse,
}

#[derive(PartialEq, Eq)]
enum Reuse {
    /// What is not condemned.
    Sound,
    /// Nobody knows what is condemned.
    Nothing,
}

/// Looks again, now that the claim stands.
fn swept(run: &Run<'_>, bases: &[&Manifest]) -> Result<Swept> {
    let condemned = reuse::condemned(run.host, run.vault)?;
    let mut no_base = HashSet::new();
    for base in bases {
        let key = Key::Manifest(ManifestName::of(base)).to_string();
        if condemned.unread.is_some() || run.host.runtime.block_on(run.vault.storage.size(&key))?.is_none() {
            no_base.insert(base.id.clone());
        }
    }
    let reuse = match &condemned.unread {
        None => Reuse::Sound,
        Some(key) => {
            run.progress.warn(&format!(
                "{key} is a newer lifeboat's and cannot be read: nothing is named again, and everything is stored anew; \
                 install that version"
            ));
            Reuse::Nothing
        }
    };
    Ok(Swept { no_base, condemned: condemned.names, reuse })
}

/// Gives up what is not needed any more: after a commit claim and journals, after a failure a claim that protects nothing.
fn end(run: &Run<'_>, held: Held, result: Result<Committed>) -> Result<Committed> {
    let state = &run.host.home()?.state;
    match &result {
        Ok(_) => {
            let done = held.give_up().and_then(|()| Ok(state.forget_journals(&run.vault.id, run.job)?));
            if let Err(error) = done {
                run.progress.warn(&format!(
                    "the backup is committed, and what the run kept for its own end is not removed: {error}; the next run \
                     does that"
                ));
            }
        }
        // The failure is what is told; a claim that is left over lapses.
        Err(_) if matches!(state.has_journal(&run.vault.id, run.job), Ok(false)) => drop(held.give_up()),
        Err(_) => {}
    }
    result
}

/// Stores a source; where that failed of something that may pass, once more from its beginning, in a new snapshot. What
/// was stored until then is named and not stored again.
fn store(
    run: &Run<'_>,
    job: &Job<'_>,
    settings: &SourceSettings,
    keys: &SourceKeys,
    prepared: Prepared,
    seen: &mut Seen,
    allowance: &mut Allowance,
) -> Result<StoredSource> {
    let mut pauses = RETRY_PAUSES.iter();
    let mut first = Some(prepared);
    let mut left = None;
    loop {
        let prepared = match first.take() {
            Some(prepared) => prepared,
            None => {
                let mut prepared = source::prepare(run, job, settings, keys, left.take())?;
                seen.add(reuse::must_be_there(run, [&mut prepared.reusable])?);
                prepared
            }
        };
        let opened = opening::source(run, job.settings, settings, keys);
        let result =
            opened.and_then(|opened| source::store(run, job, &*opened.source, settings, keys, prepared, allowance));
        let (error, pause) = match (result, pauses.next()) {
            (Err(error), Some(pause)) if error.is_transient() => (error, *pause),
            (result, _) => return result,
        };
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        run.progress.warn(&format!("source {}: {error}; trying again in {} s{hint}", settings.name, pause.as_secs()));
        run.host.runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = run.host.interrupt.raised() => {}
            }
        });
        run.host.check_interrupted()?;
        let path = run.host.home()?.state.journal(&run.vault.id, run.job, &settings.name)?;
        left = journal::read(&path, &owner(run, keys));
    }
}

fn store_and_commit(
    run: &Run<'_>,
    job: &Job<'_>,
    secret: &HostSecret,
    mut left: BTreeMap<SourceName, Left>,
    last: Option<(u64, ManifestHash)>,
    started: DateTime<Utc>,
    held: &mut Held,
) -> Result<Committed> {
    let Run { host, vault, progress, .. } = *run;
    let context = |settings: &SourceSettings, e: Error| e.context(format!("source {}", settings.name));
    let mut prepared = Vec::new();
    for settings in &job.settings.sources {
        let keys = secret.for_source(&vault.id, run.job, &settings.name);
        let left = left.remove(&settings.name);
        prepared.push(source::prepare(run, job, settings, &keys, left).map_err(|e| context(settings, e))?);
    }
    // One listing for all of them.
    let mut seen = reuse::must_be_there(run, prepared.iter_mut().map(|prepared| &mut prepared.reusable))?;
    let mut stored = Vec::new();
    let mut allowance = Allowance::of(job.settings.sources.len(), vault.storage.is_far());
    for (settings, prepared) in job.settings.sources.iter().zip(prepared) {
        let keys = secret.for_source(&vault.id, run.job, &settings.name);
        let result = store(run, job, settings, &keys, prepared, &mut seen, &mut allowance);
        stored.push(result.map_err(|e| context(settings, e))?);
    }
    host.runtime.block_on(vault.storage.sync())?;

    // What is named must be there, the reused as well as the new.
    let named: HashMap<ObjectId, u64> = stored.iter().flat_map(|s| &s.named).map(|(o, size)| (*o, *size)).collect();
    let lists: HashSet<ObjectId> = stored.iter().flat_map(|s| &s.entry.lists).copied().collect();
    let missing = reuse::missing(run, &seen, &named, &lists)?;
    if let Some(key) = missing.first() {
        return Err(Error::new(
            Code::ObjectMissing,
            format!(
                "{} objects that this backup names are not in the vault, {key} for one; nothing was committed",
                missing.len()
            ),
        )
        .with_hint("run it again: what is missing is stored anew"));
    }

    let lists = stored.iter().flat_map(|s| &s.entry.lists);
    reuse::refuse_condemned(host, vault, stored.iter().flat_map(|s| s.named.keys()).chain(lists).copied())?;

    let partial = stored.iter().flat_map(|s| &s.notes).any(|note| note.class == NoteClass::Unreadable);
    let points = stored.iter().map(|s| (s.entry.recovery_point, s.dated));
    claim::must_agree_still(host, vault, started, points)?;
    let recovery_point = stored.iter().map(|s| s.entry.recovery_point).min().unwrap_or(started);
    let mut recipients = vault.settings.recipients.clone();
    recipients.sort_unstable();
    recipients.dedup();
    let manifest = Manifest {
        kind: MANIFEST_TYPE.to_owned(),
        version: MANIFEST_VERSION,
        vault: vault.trust.vault.clone(),
        job: job.settings.name.clone(),
        id: BackupId::from_random(rand::rng().random()),
        sequence: run.sequence,
        completeness: if partial { Completeness::Partial } else { Completeness::Complete },
        host: vault.host_name(host)?,
        tool: TOOL.to_owned(),
        started,
        committed: host.clock.now(),
        recovery_point,
        recipient_set: run.recipient_set.clone(),
        recipients,
        previous: last.map(|(_, hash)| hash),
        sources: stored.iter().map(|s| s.entry.clone()).collect(),
    };
    let signed = sign_manifest(&manifest, &host.key()?);
    // Nobody is told of a backup that its readers would not believe: a clock that was set back meanwhile is enough.
    verify_manifest(&vault.trust, &signed.name, &signed.document, &signed.signature).map_err(|reason| {
        Error::new(
            Code::HostUnauthorised,
            format!("the backup is stored, and its manifest would not be believed: {reason}"),
        )
        .with_hint("look at this host's clock (`date -u`), and at what vault.json lets it sign; nothing was committed")
    })?;
    holds::hold_named(run, &manifest, &stored)?;
    held.confirm()?;
    host.runtime.block_on(commit_manifest(&*holds::committing(run, &manifest), &signed))?;
    let swept = if held.held_through()? { HashSet::new() } else { gone_since(host, vault, &stored)? };

    // From here on the backup exists. What follows is this host's memory of it, and may be lost.
    let mut notes = Vec::new();
    let (mut unread_segments, mut resumed_segments, mut refuted_objects) = (0, 0, Vec::new());
    for source in stored {
        unread_segments += source.unread_segments;
        resumed_segments += source.resumed_segments;
        refuted_objects.extend(source.wrong);
        notes.extend(source.notes);
        let head = MemoryHead {
            backup: manifest.id.clone(),
            recipient_set: run.recipient_set.clone(),
            id_key_hash: source.id_key_hash,
            contents: source.contents,
        };
        // A partial backup is never a base, so nothing is remembered of it.
        if !partial && let Err(error) = source.memory.finish(&head).and_then(WrittenMemory::commit) {
            progress.warn(&format!("the next run will read every file again: {error}"));
        }
    }
    if let Err(error) = vault.remember_one(host, &manifest, signed.hash) {
        progress.warn(&format!(
            "the catalog does not know of this backup yet: {error}; `lifeboat catalog rebuild` mends it"
        ));
    }
    if !swept.is_empty() {
        return Err(refute(host, vault, &manifest, swept));
    }
    if resumed_segments > 0 {
        tracing::info!(job = %run.job, resumed_segments, "took over what a run that broke off had stored");
    }
    let glance = seen.into_glance();
    Ok(Committed { manifest, notes, unread_segments, resumed_segments, refuted_objects, glance })
}

/// What of a backup a sweep took, or may be about to take, because the commit took longer than the claim held.
fn gone_since(host: &Host, vault: &OpenVault, stored: &[StoredSource]) -> Result<HashSet<ObjectId>> {
    let named: HashMap<ObjectId, u64> = stored.iter().flat_map(|s| &s.named).map(|(o, size)| (*o, *size)).collect();
    let mut gone = reuse::condemned(host, vault)?.names;
    let lists: Vec<ObjectId> = stored.iter().flat_map(|s| &s.entry.lists).copied().collect();
    gone.retain(|name| named.contains_key(name) || lists.contains(name));
    gone.extend(host.runtime.block_on(absent(&*vault.storage, named))?.into_keys());
    gone.extend(host.runtime.block_on(absent_lists(&*vault.storage, lists.into_iter().collect()))?);
    Ok(gone)
}

/// Says of a backup that stands and is not whole that nobody may count on it: its manifest may have been seen already,
/// and is not taken back.
fn refute(host: &Host, vault: &OpenVault, manifest: &Manifest, swept: HashSet<ObjectId>) -> Error {
    let lists: HashSet<ObjectId> = manifest.sources.iter().flat_map(|source| &source.lists).copied().collect();
    let (mut lists, mut objects): (Vec<ObjectId>, Vec<ObjectId>) = swept.into_iter().partition(|n| lists.contains(n));
    lists.sort_unstable();
    objects.sort_unstable();
    let first = objects.iter().chain(&lists).next().map(ToString::to_string).unwrap_or_default();
    let count = objects.len() + lists.len();
    objects.truncate(MAX_REFUTED_NAMES);
    lists.truncate(MAX_REFUTED_NAMES);
    let body = RecordBody::Refutation(RefutationRecord {
        found_by: Finder::Backup,
        objects,
        lists,
        backups: vec![manifest.id.clone()],
        error_code: Code::ObjectMissing.name().to_owned(),
    });
    let error = Error::new(
        Code::ClaimLost,
        format!(
            "the commit of backup {} took longer than its claim held, and meanwhile a sweep took {count} of its objects, \
             {first} for one: it is refuted, do not count on it",
            manifest.id
        ),
    )
    .with_hint("run it again: what is missing is stored anew. A host that sleeps cannot renew its claim");
    match records::write(host, vault, &manifest.job, body, None) {
        Ok(()) => error,
        Err(refused) => error.context(format!("it could not be put on record ({refused})")),
    }
}
