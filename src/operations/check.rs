//! `check`: everything in the vault against its name and its signature; with an identity also what is inside.
//!
//! Without a key: every manifest's signature, scope and place; the chain of each job's manifests; every list and
//! every object that a backup names, byte for byte against its name; every record's signature, scope and place, and its
//! sealed details against their hash. What no backup names (left over from a run that died) is counted, and told if it
//! is damaged, and spoils nothing.

pub mod objects;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt as _, stream};
use rand::RngExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::Manifest;
use crate::domain::record::{Finder, Record};
use crate::error::{Code, Diagnostic, Error, Result};
use crate::observe::Progress;
use crate::storage::ahead::{Ahead, Fetched};
use crate::storage::{Storage, StorageError};
use crate::vault::VaultError;
use crate::vault::layout::{BACKUPS, Key, LISTS, ManifestName, OBJECTS};
use crate::vault::manifests::read_top;
use crate::vault::reader::{MAX_OBJECT_BYTES, Reader};
use crate::vault::records::{read_details, survey_records};
use crate::vault::survey::{Fault, Problem, Survey};

use self::objects::NamedObjects;
pub use self::told::NotOnRecord;
use super::host::Host;
use super::lock;
use super::refute::{self, OnRecord};
use super::restore::plan;
use super::vaults::{Look, OpenVault, manifests};

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The key in the vault.
    pub object: String,
    /// The stable code of what is wrong with it, as in docs/ERRORS.md.
    pub code: &'static str,
    /// What is wrong with it.
    pub reason: String,
    /// The backups that it spoils, whole or in part, or would spoil.
    pub backups: Vec<BackupId>,
    /// It was overwritten or hidden, and an earlier version is right: nothing is spoilt as long as the vault has that.
    pub readable: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Backups looked at.
    pub backups: u64,
    /// Records looked at.
    pub records: u64,
    /// Objects and lists that they name.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that were opened and compared, with `--read-data`.
    pub opened: u64,
    /// What is wrong.
    pub damaged: Vec<Damage>,
    /// What no backup names.
    pub strays: u64,
    /// Of these, what is not what its name says.
    pub damaged_strays: Vec<String>,
    /// Whether what is wrong is on record in the vault, so that the next backup stores it anew.
    pub recorded: bool,
    /// The same of each job that was looked at.
    pub by_job: BTreeMap<JobName, OfJob>,
    /// The jobs that this check is on record for, in the vault and in this host's catalog.
    pub on_record: Vec<JobName>,
    /// Why it is not for others.
    pub not_on_record: Vec<NotOnRecord>,
}

/// What was looked at of one job. What several jobs name is counted for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfJob {
    /// Its backups.
    pub backups: u64,
    /// Objects and lists that they name.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that were opened and compared.
    pub opened: u64,
    /// What is wrong with them, and what is wrong with records: whose those are nobody can tell.
    pub damaged: u64,
    /// The code of the first of that.
    pub code: Option<&'static str>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// How deep to look.
#[derive(Debug)]
pub struct Depth<'a> {
    /// Opens data: this reader, and of the segments this percentage.
    pub read_data: Option<(&'a Reader, u8)>,
}

/// Checks the backups of `jobs`, or of all jobs where that is empty, and puts that on record for each of them which is in
/// `known`: the jobs that this host has in its config, with their `delete_after`. For these it also notices if the newest
/// backup is gone.
///
/// # Errors
/// When the vault cannot be read at all; that is on record too. Damage is no error here: it is in the report.
pub fn check(
    host: &Host,
    vault: &OpenVault,
    jobs: &[JobName],
    known: &BTreeMap<JobName, Duration>,
    depth: &Depth<'_>,
    progress: &dyn Progress,
) -> Result<CheckReport> {
    let run = told::Run::begin(host, vault, jobs, known, depth, progress);
    let mut result = look(host, vault, jobs, known, depth, progress);
    run.end(host, vault, &mut result, progress);
    result
}

fn look(
    host: &Host,
    vault: &OpenVault,
    jobs: &[JobName],
    known: &BTreeMap<JobName, Duration>,
    depth: &Depth<'_>,
    progress: &dyn Progress,
) -> Result<CheckReport> {
    let only = match jobs {
        [job] => Some(job),
        _ => None,
    };
    let Look { survey, untold } = vault.look(host, only)?;
    for what in untold {
        progress.warn(&format!("this host cannot remember everything that the vault says: {what}"));
    }
    // A misspelt job is sound in every way: nothing of it is damaged.
    let there = |job: &JobName| {
        known.contains_key(job)
            || survey.manifests.iter().any(|verified| verified.manifest.job == *job)
            || survey.problems.iter().any(|problem| problem.job == *job)
    };
    if let Some(job) = jobs.iter().find(|job| !there(job)) {
        return Err(Error::new(Code::NotFound, format!("neither the vault nor the config knows a job {job}"))
            .with_hint("`lifeboat list` shows every job in the vault"));
    }
    let mut report = CheckReport::default();
    let looked_at = if jobs.is_empty() { known.keys().cloned().collect() } else { jobs.to_vec() };
    let mut missing = damaged_manifests(host, vault, &survey, &looked_at)?;
    let manifests: Vec<Manifest> =
        manifests(survey).into_iter().filter(|m| jobs.is_empty() || jobs.contains(&m.job)).collect();
    report.backups = manifests.len() as u64;
    check_recipients(vault, &manifests, &mut report);

    let named = objects::check(host, &vault.storage, &manifests, progress)?;
    report.objects = named.count();
    report.bytes = named.bytes;
    report.by_job.clone_from(&named.by_job);
    report.damaged.extend(named.damaged.iter().cloned());

    if jobs.is_empty() {
        find_strays(host, &vault.storage, &named, &mut report)?;
        // A record that is not believed says nothing of its job either: they are looked at all together.
        check_records(host, vault, known, &mut report)?;
    }
    if let Some((reader, percent)) = depth.read_data {
        read_data(host, reader, &manifests, percent, progress, &mut report)?;
    }
    // All that took its time, and a prune may have removed backups meanwhile and erased what they named. What went without
    // a reason is missing by now.
    if report.damaged.iter().any(|damage| !damage.backups.is_empty()) {
        let Look { survey, .. } = vault.look(host, only)?;
        missing = damaged_manifests(host, vault, &survey, &looked_at)?;
        let there: HashSet<&BackupId> = survey.manifests.iter().map(|verified| &verified.manifest.id).collect();
        report.damaged.retain_mut(|damage| {
            let spoilt = !damage.backups.is_empty();
            damage.backups.retain(|backup| there.contains(backup));
            !spoilt || !damage.backups.is_empty()
        });
    }
    report.damaged.splice(..0, missing);
    share_out(&looked_at, &manifests, &mut report);
    remember(host, vault, &manifests, &mut report, progress);
    Ok(report)
}

/// Says of each job what is wrong with it.
fn share_out(looked_at: &[JobName], manifests: &[Manifest], report: &mut CheckReport) {
    let job_of: HashMap<&BackupId, &JobName> = manifests.iter().map(|manifest| (&manifest.id, &manifest.job)).collect();
    let CheckReport { damaged, by_job, .. } = report;
    let mut add = |job: &JobName, damage: &Damage| {
        let of_job = by_job.entry(job.clone()).or_default();
        of_job.damaged += 1;
        of_job.code.get_or_insert(damage.code);
    };
    for damage in damaged.iter() {
        // Below the folder of a job lies what is that job's, believed or not.
        let below = damage.object.strip_prefix(BACKUPS).and_then(|rest| rest.split('/').next());
        let below = below.and_then(|job| job.parse::<JobName>().ok());
        let spoilt: BTreeSet<&JobName> =
            damage.backups.iter().filter_map(|backup| job_of.get(backup).copied()).chain(below.as_ref()).collect();
        match spoilt.is_empty() {
            false => spoilt.into_iter().for_each(|job| add(job, damage)),
            true => looked_at.iter().for_each(|job| add(job, damage)),
        }
    }
}

/// Manifests that are not believed, or are missing; the newest one of a job among them, if this host ever saw it.
fn damaged_manifests(host: &Host, vault: &OpenVault, survey: &Survey, looked_at: &[JobName]) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    for problem in &survey.problems {
        damaged.push(Damage {
            object: problem.key.clone(),
            code: problem.fault.code().name(),
            reason: problem.fault.to_string(),
            backups: spoilt(problem),
            readable: false,
        });
    }
    damaged.extend(overwritten_manifests(host, vault, survey)?);
    for (job, there, seen) in vault.hidden_newest(host, survey, looked_at)? {
        let object = format!("backups/{job}/");
        let reason =
            format!("this host saw backup number {seen} of the job once, and the newest there is number {there}");
        let code = Code::ManifestMissing.name();
        damaged.push(Damage { object, code, reason, backups: Vec::new(), readable: false });
    }
    Ok(damaged)
}

/// Manifests that are believed for an earlier version's sake: somebody overwrote them.
fn overwritten_manifests(host: &Host, vault: &OpenVault, survey: &Survey) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    for verified in &survey.manifests {
        let key = Key::Manifest(verified.name.clone()).to_string();
        let Some(undoing) = vault.storage.undoing(&key) else { continue };
        match host.runtime.block_on(read_top(&*vault.storage, &vault.trust, &verified.name)) {
            Ok(_) => {}
            Err(error @ (VaultError::ManifestMissing { .. } | VaultError::ManifestUntrusted { .. })) => {
                damaged.push(Damage {
                    object: key,
                    code: error.code().name(),
                    reason: format!("as it lies there {}; {}", plain_reason(&error), readable_words(&undoing)),
                    backups: vec![verified.manifest.id.clone()],
                    readable: true,
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(damaged)
}

/// What is said of damage that an earlier version makes good.
fn readable_words(undoing: &str) -> String {
    format!(
        "an earlier version is right, and that is what is read. Find out who overwrote it. To put it right: {undoing}"
    )
}

/// What was found is put on record, so that no backup names it again. Who only reads the vault says so and changes nothing.
fn remember(host: &Host, vault: &OpenVault, manifests: &[Manifest], report: &mut CheckReport, progress: &dyn Progress) {
    if !report.damaged.iter().any(refute::can_say) {
        return;
    }
    match refute::record(host, vault, Finder::Check, manifests, &report.damaged) {
        Ok(OnRecord::Nothing) => {}
        Ok(OnRecord::Already | OnRecord::Written(_)) => report.recorded = true,
        Err(error) => progress
            .warn(&format!("what was found is not on record, and a host that backs up may name it again: {error}")),
    }
}

/// The backup that a problem spoils, by the key it lies under.
fn spoilt(problem: &Problem) -> Vec<BackupId> {
    match (&problem.fault, Key::parse(&problem.key)) {
        (Fault::Untrusted(_), Key::Manifest(name)) => vec![name.id],
        _ => Vec::new(),
    }
}

/// Objects and lists that nothing names: only told when all jobs are looked at.
fn find_strays(host: &Host, storage: &Arc<dyn Storage>, named: &NamedObjects, report: &mut CheckReport) -> Result<()> {
    let mut strays = Vec::new();
    for prefix in [OBJECTS, LISTS] {
        host.runtime.block_on(storage.list(prefix, &mut |listed| {
            let named = match Key::parse(&listed.key) {
                Key::Object(object) => named.has_object(&object),
                Key::List(list) => named.has_list(&list),
                _ => false,
            };
            if !named {
                strays.push((listed.key, listed.size_bytes));
            }
        }))?;
    }
    report.strays = strays.len() as u64;
    let expected = |key: &str| match Key::parse(key) {
        Key::Object(id) | Key::List(id) => Some(id.0),
        _ => None,
    };
    let (to_hash, others): (Vec<_>, Vec<_>) = strays.into_iter().partition(|(key, _)| expected(key).is_some());
    let damaged = Mutex::new(others.into_iter().map(|(key, _)| key).collect::<Vec<String>>());
    let wanted = to_hash.iter().map(|(key, size)| Wanted { key: key.clone(), expected_bytes: *size });
    in_parallel(host, storage, wanted, &|index, read| {
        let key = &to_hash[index].0;
        if !matches!(hash_of(read), Ok((hash, _)) if Some(hash) == expected(key)) {
            push(&damaged, key.clone());
        }
        Ok(())
    })?;
    report.damaged_strays.append(&mut lock(&damaged));
    report.damaged_strays.sort();
    Ok(())
}

/// A backup that somebody else can open restores as well as any other: it is told, and spoils nothing.
fn check_recipients(vault: &OpenVault, manifests: &[Manifest], report: &mut CheckReport) {
    for manifest in manifests {
        let strangers = vault.trust.unapproved_at(&manifest.recipients, manifest.committed);
        if strangers.is_empty() {
            continue;
        }
        report.damaged.push(Damage {
            object: Key::Manifest(ManifestName::of(manifest)).to_string(),
            code: Code::RecipientUnapproved.name(),
            reason: format!("it is sealed to {}, whom vault.json does not approve", strangers.join(", ")),
            backups: Vec::new(),
            readable: false,
        });
    }
}

/// Records spoil no backup, but without them the past cannot be told. One that is gone whole cannot be missed: nothing
/// names it, and what it leaves beside it is what a run leaves that died while it wrote. Sealed details expire as the data
/// does: those of a record older than its job's `delete_after` must not be there, and those of a job that this host does
/// not know need not.
fn check_records(
    host: &Host,
    vault: &OpenVault,
    known: &BTreeMap<JobName, Duration>,
    report: &mut CheckReport,
) -> Result<()> {
    let now = host.runtime.block_on(vault.storage.now())?;
    let expired = |record: &Record| {
        known
            .get(&record.job)
            .is_none_or(|after| TimeDelta::from_std(*after).is_ok_and(|after| record.data_from() + after <= now))
    };
    let storage = &*vault.storage;
    let records = host.runtime.block_on(survey_records(storage, &vault.trust))?;
    report.records = (records.records.len() + records.problems.len()) as u64;
    report.strays += records.strays.len() as u64;
    for problem in records.problems {
        let reason = format!("it is not to be trusted: {}", problem.reason);
        let code = Code::ManifestUntrusted.name();
        report.damaged.push(Damage { object: problem.key, code, reason, backups: Vec::new(), readable: false });
    }
    let details = stream::iter(&records.records)
        .map(|verified| async move { (verified, read_details(storage, verified).await.map(drop)) })
        .buffered(storage.parallel().max(1));
    for (verified, read) in host.runtime.block_on(details.collect::<Vec<_>>()) {
        match read {
            Ok(()) => {}
            Err(error) if error.code() == Code::ObjectMissing && expired(&verified.record) => {}
            Err(error) if matches!(error.code(), Code::ObjectDamaged | Code::ObjectMissing) => {
                let object = Key::RecordDetails(verified.name.clone()).to_string();
                let (code, reason) = (error.code().name(), plain_reason(&error));
                report.damaged.push(Damage { object, code, reason, backups: Vec::new(), readable: false });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn hash_of(read: Read) -> std::result::Result<([u8; 32], u64), StorageError> {
    read.map(|read| (Sha256::digest(&read.bytes).into(), read.bytes.len() as u64))
}

/// Opens every backup's contents whole, and of its segments so many percent, chosen at random.
fn read_data(
    host: &Host,
    reader: &Reader,
    manifests: &[Manifest],
    percent: u8,
    progress: &dyn Progress,
    report: &mut CheckReport,
) -> Result<()> {
    // A segment that several backups name is opened once; what it is depends on its source's key as well.
    let mut opened = HashSet::new();
    for manifest in manifests {
        for source in &manifest.sources {
            progress.begin(&format!("opening {} of {}", source.name, manifest.id), Some(source.logical_bytes));
            let mut segments = Vec::new();
            let walked = (|| -> Result<[u8; 32]> {
                let mut plan = plan(reader, manifest, source)?;
                while let Some(piece) = plan.next_piece()? {
                    segments.extend(piece.segments);
                }
                Ok(plan.id_key())
            })();
            let id_key = match walked {
                Ok(id_key) => id_key,
                Err(error) if error.code() == Code::NoIdentity => return Err(error),
                Err(error) => {
                    let key = format!("contents of source {} in {}", source.name, manifest.id);
                    add_damage(report, key, error.code(), error.to_string(), &manifest.id);
                    progress.end();
                    continue;
                }
            };
            segments.retain(|segment| {
                opened.insert((segment.object, id_key))
                    && (percent >= 100 || rand::rng().random_range(0..100) < percent)
            });
            let findings = Mutex::new(Vec::new());
            let wanted = segments.iter().map(|segment| Wanted {
                key: Key::Object(segment.object).to_string(),
                expected_bytes: segment.stored_bytes,
            });
            in_parallel(host, reader.storage(), wanted, &|index, read| {
                let segment = &segments[index];
                let (stored, _room) = match read {
                    Ok(read) => (Ok(read.bytes.clone()), Some(read)),
                    Err(error) => (Err(error), None),
                };
                match reader.open(segment, stored, &id_key) {
                    Ok(plain) => progress.advance(plain.len() as u64),
                    Err(error) => push(&findings, (segment.object, error.code(), error.to_string())),
                }
                Ok(())
            })?;
            progress.end();
            report.opened += segments.len() as u64;
            report.by_job.entry(manifest.job.clone()).or_default().opened += segments.len() as u64;
            for (object, code, reason) in findings.into_inner().unwrap_or_else(PoisonError::into_inner) {
                add_damage(report, Key::Object(object).to_string(), code, reason, &manifest.id);
            }
        }
    }
    Ok(())
}

/// Adds a finding, unless the same object was found damaged already.
fn add_damage(report: &mut CheckReport, object: String, code: Code, reason: String, backup: &BackupId) {
    match report.damaged.iter_mut().find(|damage| damage.object == object) {
        Some(damage) if damage.backups.contains(backup) => {}
        Some(damage) => damage.backups.push(backup.clone()),
        None => {
            let backups = vec![backup.clone()];
            report.damaged.push(Damage { object, code: code.name(), reason, backups, readable: false });
        }
    }
}

fn plain_reason(error: &dyn std::error::Error) -> String {
    crate::error::chain(error)
}

fn push<T>(to: &Mutex<Vec<T>>, item: T) {
    lock(to).push(item);
}

/// Something to be read.
struct Wanted {
    key: String,
    /// What it has, as far as that is known.
    expected_bytes: u64,
}

/// What was read, or why not.
type Read = std::result::Result<Fetched, StorageError>;

/// Reads all these, ahead of the workers, and calls `work` for each, on any of their threads.
fn in_parallel(
    host: &Host,
    storage: &Arc<dyn Storage>,
    wanted: impl Iterator<Item = Wanted> + Send,
    work: &(dyn Fn(usize, Read) -> Result<()> + Sync),
) -> Result<()> {
    let ahead = Ahead::new(host.runtime.clone(), Arc::clone(storage));
    let begun = Mutex::new((wanted.enumerate().peekable(), VecDeque::new()));
    // Whoever takes one asks for more. Nobody holds another while he waits for room.
    let next = || {
        let (wanted, begun) = &mut *lock(&begun);
        while begun.len() < ahead.depth()
            && let Some((index, Wanted { key, expected_bytes })) = wanted.peek()
            && let Some(fetching) = match begun.is_empty() {
                true => Some(ahead.begin(key.clone(), *expected_bytes, MAX_OBJECT_BYTES)),
                false => ahead.try_begin(key.clone(), *expected_bytes, MAX_OBJECT_BYTES),
            }
        {
            begun.push_back((*index, fetching));
            wanted.next();
        }
        begun.pop_front()
    };
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..host.workers {
            scope.spawn(|| {
                while lock(&failure).is_none()
                    && let Some((index, fetching)) = next()
                {
                    if let Err(error) = host.check_interrupted().and_then(|()| work(index, fetching.wait())) {
                        lock(&failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::Clock as _;
    use crate::observe::Silent;
    use crate::operations::catch_up::tests::{World, body, job, manifest};
    use crate::operations::records::write;

    /// Does something while objects are read, as another host might.
    struct Meanwhile<F: Fn() + Send + Sync>(F, AtomicBool);

    impl<F: Fn() + Send + Sync> Progress for Meanwhile<F> {
        fn begin(&self, _stage: &str, _total_bytes: Option<u64>) {
            if !self.1.swap(true, Ordering::Relaxed) {
                self.0();
            }
        }
        fn advance(&self, _bytes: u64) {}
        fn end(&self) {}
        fn warn(&self, message: &str) {
            panic!("{message}");
        }
    }

    fn checked(world: &World, progress: &dyn Progress) -> CheckReport {
        let depth = Depth { read_data: None };
        check(&world.hosts[0], &world.vault(None), &[], &BTreeMap::new(), &depth, progress).unwrap()
    }

    #[test]
    fn what_a_prune_removes_meanwhile_is_no_damage() {
        let world = World::new();
        // Nothing that they name is there, as if it had just been erased.
        world.plant(0, &manifest(&world, 0, &job(0), None, 1));
        let all = world.manifests();
        let prune = || {
            let removal = body(4, Some(&all[0]), world.clock.now());
            write(&world.hosts[1], &world.vault(None), &job(0), removal, None).unwrap();
            world.delete(&Key::Manifest(all[0].name.clone()).to_string());
        };
        let report = checked(&world, &Meanwhile(prune, AtomicBool::new(false)));
        assert_eq!(report.damaged, []);
        assert!(!report.recorded);
    }

    #[test]
    fn what_disappears_meanwhile_without_a_reason_is_missing() {
        let world = World::new();
        world.plant(0, &manifest(&world, 0, &job(0), None, 1));
        let all = world.manifests();
        world.plant(0, &manifest(&world, 0, &job(0), Some((1, all[0].hash)), 2));
        let lose = || world.delete(&Key::Manifest(all[0].name.clone()).to_string());
        let report = checked(&world, &Meanwhile(lose, AtomicBool::new(false)));
        assert_eq!(report.damaged[0].code, "manifest-missing", "{report:?}");
        assert!(report.damaged.iter().all(|damage| !damage.backups.contains(&all[0].manifest.id)), "{report:?}");
    }

    #[test]
    fn only_what_spoils_a_backup_is_on_record() {
        let world = World::new();
        let junk = Key::Manifest(ManifestName::of(&manifest(&world, 0, &job(1), None, 3))).to_string();
        world.runtime.block_on(world.store.another_handle().replace(&junk, "{}".into())).unwrap();
        let report = checked(&world, &Silent);
        assert_eq!((report.damaged.len(), report.recorded), (1, false));
        world.plant(0, &manifest(&world, 0, &job(0), None, 1));
        assert!(checked(&world, &Silent).recorded);
        assert!(checked(&world, &Silent).recorded, "it was before");
    }
}
