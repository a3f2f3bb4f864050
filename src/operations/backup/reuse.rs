//! What a run may name again: what the base stored and the vault still has, what a run that broke off left, less what is
//! condemned, refuted or under suspicion. A share of it is hashed again in each run, so that damage is found while the
//! data is still at hand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::ready;
use futures_util::{StreamExt as _, stream};

use super::super::host::Host;
use super::super::records;
use super::super::vaults::OpenVault;
use super::Run;
use super::journal::Left;
use crate::catalog::DrillRow;
use crate::config::SourceSettings;
use crate::domain::ids::{BackupId, JobName, KeyedId, ObjectId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{DrillOutcome, Finder, RecordBody, RefutationRecord};
use crate::error::{Code, Error, Result};
use crate::sources::memory::Memory;
use crate::storage::ahead::Ahead;
use crate::storage::{Storage, StorageError};
use crate::vault::Distrust;
use crate::vault::glance::Glance;
use crate::vault::layout::Key;
use crate::vault::lists::read_lists;
use crate::vault::presence::{Looked, absent, absent_at_a_glance, absent_lists, judge};
use crate::vault::records::survey_folder;
use crate::vault::writer::{Known, Standing};

/// After this many runs all that was reused all the time was hashed again, as far as the limits below let it.
const SHARES: u64 = 32;
/// No run hashes more objects again.
const MAX_REHASHED_OBJECTS: usize = 256;
/// Nor more of their bytes.
const MAX_REHASHED_BYTES: u64 = 256 * 1024 * 1024;
/// Where reading is paid for, so many.
const MAX_REHASHED_OBJECTS_FAR: usize = 32;
/// And of them so many bytes.
const MAX_REHASHED_BYTES_FAR: u64 = 64 * 1024 * 1024;
/// What was seen in the vault so long ago is believed to be there still: under a claim only somebody who keeps to no rules
/// could have taken it, and he could do that after the commit as well.
const SIGHT_HOLDS: TimeDelta = TimeDelta::hours(1);
/// Keys that a store lists with one request.
const KEYS_A_REQUEST: usize = 1000;
/// So few are asked for one by one, however short a listing might be.
const FEW: usize = 16;
/// Names in one refutation record, so that its document stays below a megabyte.
pub(in super::super) const MAX_REFUTED_NAMES: usize = 8192;
/// Objects that a warning names one by one.
const MAX_NAMED_OBJECTS: usize = 3;

/// What was found wrong earlier, by anybody.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refuted {
    /// Objects and lists. What else their backups name is sound as far as anybody knows.
    pub names: HashSet<ObjectId>,
    /// Backups of which nobody knows what is wrong: one of their objects, or all.
    pub backups: HashSet<BackupId>,
}

impl Refuted {
    /// Reads what drills and refutations say of the job's backups.
    ///
    /// # Errors
    /// When the catalog or the store cannot be read.
    pub(super) fn read(host: &Host, vault: &OpenVault, job: &JobName) -> Result<Self> {
        let drills = host.runtime.block_on(host.home()?.catalog.drills(&vault.id, Some(job)))?;
        let found = host.runtime.block_on(survey_folder(&*vault.storage, &vault.trust, "refutations"))?;
        let told = found.records.iter().filter(|verified| verified.record.job == *job);
        let told: Vec<_> = told
            .filter_map(|verified| match &verified.record.body {
                RecordBody::Refutation(body) => Some((verified.record.recorded, body)),
                _ => None,
            })
            .collect();
        Ok(Self::of(&drills, &told))
    }

    fn of(drills: &[DrillRow], told: &[(DateTime<Utc>, &RefutationRecord)]) -> Self {
        let mut refuted = Self::default();
        for (recorded, body) in told {
            refuted.names.extend(body.objects.iter().chain(&body.lists));
            if names_nothing(body) {
                let still = |backup: &&BackupId| last_word(drills, backup).is_none_or(|d| d.drill.finished < *recorded);
                refuted.backups.extend(body.backups.iter().filter(still).cloned());
            }
        }
        for backup in drills.iter().filter_map(|row| row.drill.backup.as_ref()) {
            let Some(last) = last_word(drills, backup).filter(|last| last.drill.refutes_backup) else { continue };
            let named = told.iter().any(|(recorded, body)| {
                body.found_by == Finder::Drill
                    && !names_nothing(body)
                    && body.backups.contains(backup)
                    && *recorded >= last.drill.started
            });
            if !named {
                refuted.backups.insert(backup.clone());
            }
        }
        refuted
    }
}

fn names_nothing(body: &RefutationRecord) -> bool {
    body.objects.is_empty() && body.lists.is_empty()
}

/// The last drill of a backup that says anything about it.
fn last_word<'a>(drills: &'a [DrillRow], backup: &BackupId) -> Option<&'a DrillRow> {
    drills
        .iter()
        .filter(|row| row.drill.backup.as_ref() == Some(backup))
        .filter(|row| row.drill.refutes_backup || row.drill.outcome == DrillOutcome::Passed)
        .max_by_key(|row| (row.drill.finished, &row.id))
}

/// What sweeps have condemned.
#[derive(Debug, Default)]
pub(in super::super) struct Condemned {
    /// Objects and lists.
    pub names: HashSet<ObjectId>,
    /// A condemned list that a newer lifeboat wrote, and that this one cannot read: anything may stand in it.
    pub unread: Option<String>,
}

/// Reads the condemned lists.
///
/// # Errors
/// When the store cannot be read.
pub(in super::super) fn condemned(host: &Host, vault: &OpenVault) -> Result<Condemned> {
    let found = host.runtime.block_on(survey_folder(&*vault.storage, &vault.trust, "condemned"))?;
    let mut condemned = Condemned::default();
    for verified in found.records {
        if let RecordBody::Condemned(body) = verified.record.body {
            condemned.names.extend(body.objects);
            condemned.names.extend(body.lists);
        }
    }
    // Others that are not believed are nobody's word, to a sweep too.
    let newer = |reason: &Distrust| matches!(reason, Distrust::NewerVersion { .. } | Distrust::UnknownKind { .. });
    condemned.unread = found.problems.into_iter().find(|problem| newer(&problem.reason)).map(|problem| problem.key);
    Ok(condemned)
}

/// Refuses to commit where a sweep condemned something meanwhile that the manifest would name.
///
/// # Errors
/// [`Code::ClaimLost`], or the store's.
pub(super) fn refuse_condemned(
    host: &Host,
    vault: &OpenVault,
    named: impl IntoIterator<Item = ObjectId>,
) -> Result<()> {
    let condemned = condemned(host, vault)?.names;
    match named.into_iter().find(|name| condemned.contains(name)) {
        Some(name) => Err(Error::new(
            Code::ClaimLost,
            format!(
                "a sweep condemned {name} while this run went on, which was about to name it; nothing was committed"
            ),
        )
        .with_hint("run it again: what is condemned is stored anew")),
        None => Ok(()),
    }
}

/// What the sources of a run may still hash again, each its part of what is left.
#[derive(Debug)]
pub(super) struct Allowance {
    sources: u64,
    objects: usize,
    bytes: u64,
}

impl Allowance {
    /// For so many sources.
    pub(super) fn of(sources: usize, is_far: bool) -> Self {
        let (objects, bytes) = match is_far {
            false => (MAX_REHASHED_OBJECTS, MAX_REHASHED_BYTES),
            true => (MAX_REHASHED_OBJECTS_FAR, MAX_REHASHED_BYTES_FAR),
        };
        Self { sources: sources as u64, objects, bytes }
    }

    /// The next source's share of what it may reuse. Where the limits do not let all of it be hashed, it is taken from
    /// another place each time the share comes round, the places spread evenly.
    fn choose(&mut self, reusable: &[(KeyedId, Known)], sequence: u64) -> Vec<(ObjectId, u64)> {
        let sources = self.sources.max(1);
        let objects = (self.objects as u64).div_ceil(sources);
        let bytes = self.bytes.div_ceil(sources);
        self.sources = sources - 1;
        let in_share = |known: &&Known| {
            known.standing == Standing::Confirmed && u64::from(known.object.0[0]) % SHARES == sequence % SHARES
        };
        // Ordered by what follows the first byte, which is the same for many of them.
        let share: BTreeSet<([u8; 8], ObjectId, u64)> = reusable
            .iter()
            .map(|(_, known)| known)
            .filter(in_share)
            .map(|known| (place_in(&known.object), known.object, known.stored_bytes))
            .collect();
        let from = place_of(sequence / SHARES);
        let (before, after): (Vec<_>, Vec<_>) = share.into_iter().partition(|(place, ..)| *place < from);
        let mut chosen = Vec::new();
        let mut sum = 0;
        for (_, object, size) in after.into_iter().chain(before) {
            // One object is looked at however many sources there are, as long as the run's own limit holds.
            let fits = sum + size <= bytes || (chosen.is_empty() && size <= self.bytes);
            if chosen.len() as u64 == objects || !fits {
                break;
            }
            sum += size;
            chosen.push((object, size));
        }
        self.objects -= chosen.len();
        self.bytes -= sum;
        chosen
    }
}

fn place_in(object: &ObjectId) -> [u8; 8] {
    let mut place = [0; 8];
    place.copy_from_slice(&object.0[1..9]);
    place
}

/// Where the looking begins in the given round: multiples of the golden ratio lie far apart, however many there are.
fn place_of(round: u64) -> [u8; 8] {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    round.wrapping_mul(GOLDEN).to_be_bytes()
}

/// What a source may name again.
#[derive(Default)]
pub(super) struct Reusable {
    /// By the id of the content.
    pub known: Vec<(KeyedId, Known)>,
    /// Lists of the base that were read, and are what their names say, with the objects that they name.
    pub lists: HashMap<ObjectId, Vec<ObjectId>>,
}

/// What the store was seen to have, and when.
pub(super) struct Seen {
    at: DateTime<Utc>,
    /// Objects, and lists that were read.
    there: HashSet<ObjectId>,
    /// How many pages of objects it takes to see more, as far as that is known.
    pages: usize,
    /// The newest look at all of it.
    glance: Option<Glance>,
}

impl Seen {
    /// What was seen later as well; the earlier moment counts.
    pub(super) fn add(&mut self, later: Self) {
        self.there.extend(later.there);
        self.pages = self.pages.max(later.pages);
        self.glance = later.glance.or(self.glance.take());
    }

    /// The newest look at all that lies there, for whoever comes next.
    pub(super) fn into_glance(self) -> Option<Glance> {
        self.glance
    }

    /// Nothing, at this moment of the store's.
    pub(super) fn nothing(at: DateTime<Utc>) -> Self {
        Self { at, there: HashSet::new(), pages: 0, glance: None }
    }
}

/// What the base and a run that broke off stored of this source, whether or not the vault still has it.
pub(super) fn candidates(
    run: &Run<'_>,
    settings: &SourceSettings,
    base: Option<&Manifest>,
    memory: Option<&Memory>,
    left: Option<&Left>,
) -> Reusable {
    // The base's come later, and so count where both have the same content.
    let Reusable { mut known, mut lists } = Reusable::default();
    for segment in left.iter().flat_map(|left| &left.segments) {
        let (object, stored_bytes) = (segment.object, segment.stored_bytes);
        known.push((segment.id, Known { object, stored_bytes, standing: Standing::ToBeHashed }));
    }
    let confirmed = |object, stored_bytes| Known { object, stored_bytes, standing: Standing::Confirmed };
    if let Some(entry) = base.and_then(|base| base.sources.iter().find(|source| source.name == settings.name)) {
        let mut read = read_lists(&*run.vault.storage, entry.lists.iter().copied());
        while let Some((list, read)) = run.host.runtime.block_on(read.next()) {
            match read {
                Ok(lines) => {
                    known.extend(lines.iter().map(|line| (line.id, confirmed(line.object, line.stored_bytes))));
                    lists.insert(list, lines.iter().map(|line| line.object).collect());
                }
                // What a lost list named is sealed again; `check` is who reports the loss.
                Err(error) => {
                    run.progress.warn(&format!("a list of the last backup cannot be reused: {error}"));
                }
            }
        }
        // Parts of the contents are in no list: only this host's memory has their ids.
        let contents = memory.iter().flat_map(|memory| &memory.head().contents);
        known.extend(contents.map(|s| (s.id, confirmed(s.object, s.stored_bytes))));
    }
    let doubtful = named_by_refuted(run, settings);
    known.retain(|(_, known)| !doubtful.contains(&known.object) && !run.barred.bars(&known.object));
    Reusable { known, lists }
}

/// Leaves of all these what the vault has, which one listing tells; it is the answer.
pub(super) fn must_be_there<'r>(run: &Run<'_>, all: impl IntoIterator<Item = &'r mut Reusable>) -> Result<Seen> {
    let mut all: Vec<&mut Reusable> = all.into_iter().collect();
    let now = run.host.runtime.block_on(run.vault.storage.now())?;
    let known = || all.iter().flat_map(|reusable| &reusable.known).map(|(_, known)| known);
    let wanted: HashMap<ObjectId, u64> = known().map(|known| (known.object, known.stored_bytes)).collect();
    let mut seen = Seen::nothing(now);
    seen.there.extend(wanted.keys());
    let (absent, mut glance) = run.host.runtime.block_on(absent_at_a_glance(&*run.vault.storage, wanted))?;
    seen.there.retain(|object| !absent.contains_key(object));
    seen.pages = glance.as_ref().map_or(0, |glance| glance.objects().div_ceil(KEYS_A_REQUEST));
    for reusable in &mut all {
        reusable.known.retain(|(_, known)| !absent.contains_key(&known.object));
        seen.there.extend(reusable.lists.keys());
        for (list, names) in &mut reusable.lists {
            glance.iter_mut().for_each(|glance| glance.add_list(*list, std::mem::take(names)));
        }
    }
    seen.glance = glance;
    Ok(seen)
}

/// Hashes a share of these again; gives those that are wrong, after a record says so, and takes them from the others.
pub(super) fn rehash(run: &Run<'_>, reusable: &mut Reusable, allowance: &mut Allowance) -> Result<Vec<ObjectId>> {
    let wrong = look_again(run, allowance.choose(&reusable.known, run.sequence))?;
    reusable.known.retain(|(_, known)| wrong.iter().all(|(object, _)| *object != known.object));
    if !wrong.is_empty() {
        refute(run, &wrong)?;
    }
    Ok(wrong.into_iter().map(|(object, _)| object).collect())
}

/// What of these objects, with their sizes, and of these lists is not in the vault. What was seen a while ago counts, for
/// the claim has stood since before that; what was not, because the run stored it, is looked for: one by one, or by
/// listing, whichever takes fewer requests.
pub(super) fn missing(
    run: &Run<'_>,
    seen: &Seen,
    objects: &HashMap<ObjectId, u64>,
    lists: &HashSet<ObjectId>,
) -> Result<Vec<Key>> {
    let storage = &*run.vault.storage;
    let now = run.host.runtime.block_on(storage.now())?;
    let is_recent = seen.at <= now && now <= seen.at + SIGHT_HOLDS;
    let doubtful = |name: &ObjectId| !(is_recent && seen.there.contains(name));
    let objects: HashMap<ObjectId, u64> =
        objects.iter().filter(|(name, _)| doubtful(name)).map(|(name, size)| (*name, *size)).collect();
    let lists: HashSet<ObjectId> = lists.iter().copied().filter(doubtful).collect();
    let mut missing = Vec::new();
    if objects.len() > seen.pages.max(FEW) {
        let absent = run.host.runtime.block_on(absent(storage, objects))?;
        missing.extend(absent.into_keys().map(Key::Object));
    } else {
        let keys = objects.into_iter().map(|(object, size)| (Key::Object(object), Some(size)));
        missing.extend(run.host.runtime.block_on(not_there(storage, keys))?);
    }
    if lists.len() > FEW {
        missing.extend(run.host.runtime.block_on(absent_lists(storage, lists))?.into_iter().map(Key::List));
    } else {
        let keys = lists.into_iter().map(|list| (Key::List(list), None));
        missing.extend(run.host.runtime.block_on(not_there(storage, keys))?);
    }
    missing.sort_by_key(ToString::to_string);
    Ok(missing)
}

/// Asks for each of these, several at once. Of another size than it should have is as good as missing.
async fn not_there(
    storage: &dyn Storage,
    keys: impl Iterator<Item = (Key, Option<u64>)>,
) -> std::result::Result<Vec<Key>, StorageError> {
    let mut asked = stream::iter(keys)
        .map(|(key, expected)| async move {
            let there = match storage.size(&key.to_string()).await {
                Ok(size) => size.is_some_and(|size| expected.is_none_or(|expected| size == expected)),
                Err(StorageError::NotAFile { .. }) => false,
                Err(error) => return Err(error),
            };
            Ok((!there).then_some(key))
        })
        .buffered(storage.parallel().max(1));
    let mut missing = Vec::new();
    while let Some(answer) = asked.next().await {
        missing.extend(answer?);
    }
    Ok(missing)
}

/// What refuted backups name of this source: one of these objects is damaged or was wrong from the start, and only
/// who can open them knows which. None is named again, so that the next backup is whole, at the price of a full one.
fn named_by_refuted(run: &Run<'_>, settings: &SourceSettings) -> HashSet<ObjectId> {
    let mut named = HashSet::new();
    for entry in run
        .earlier
        .iter()
        .filter(|manifest| run.refuted.contains(&manifest.id))
        .flat_map(|manifest| &manifest.sources)
        .filter(|entry| entry.name == settings.name)
    {
        named.extend(&entry.contents);
        let mut read = read_lists(&*run.vault.storage, entry.lists.iter().copied());
        while let Some((_, lines)) = run.host.runtime.block_on(read.next()) {
            // A list that cannot be read names nothing that could be reused through it.
            named.extend(lines.into_iter().flatten().map(|line| line.object));
        }
    }
    named
}

/// Hashes these objects; gives those that are wrong.
fn look_again(run: &Run<'_>, objects: Vec<(ObjectId, u64)>) -> Result<Vec<(ObjectId, Looked)>> {
    let mut wrong = Vec::new();
    let ahead = Ahead::new(run.host.runtime.clone(), Arc::clone(&run.vault.storage));
    let keys = objects.iter().map(|(object, stored_bytes)| (Key::Object(*object).to_string(), *stored_bytes));
    let mut left = objects.iter();
    ahead.each(keys, |read| {
        run.host.check_interrupted()?;
        let Some((object, _)) = left.next() else { return Ok(()) };
        match judge(*object, read.map(|read| read.bytes))? {
            Looked::Intact => {}
            looked => wrong.push((*object, looked)),
        }
        Ok::<(), Error>(())
    })?;
    Ok(wrong)
}

/// Writes down what was found wrong, and says so.
fn refute(run: &Run<'_>, wrong: &[(ObjectId, Looked)]) -> Result<()> {
    let job = run.job;
    let names: HashSet<ObjectId> = wrong.iter().map(|(object, _)| *object).collect();
    let backups = naming(run, &names);
    let missing = wrong.iter().all(|(_, looked)| *looked == Looked::Missing);
    let mut keys: Vec<String> =
        wrong.iter().take(MAX_NAMED_OBJECTS).map(|(object, _)| Key::Object(*object).to_string()).collect();
    if wrong.len() > MAX_NAMED_OBJECTS {
        keys.push(format!("{} more", wrong.len() - MAX_NAMED_OBJECTS));
    }
    let ids: Vec<&str> = backups.iter().map(BackupId::as_str).collect();
    run.progress.warn(&format!(
        "{} {} in the vault: {} of {job} cannot be restored whole. This run stores anew what is still there; \
         `lifeboat check {job}` tells the whole damage",
        keys.join(", "),
        if missing { "is missing" } else { "lies damaged" },
        if ids.is_empty() { "a backup".to_owned() } else { format!("backup {}", ids.join(", ")) },
    ));
    for names in wrong.chunks(MAX_REFUTED_NAMES) {
        let code = if missing { Code::ObjectMissing } else { Code::ObjectDamaged };
        let body = RefutationRecord {
            found_by: Finder::Backup,
            objects: names.iter().map(|(object, _)| *object).collect(),
            lists: Vec::new(),
            backups: backups.clone(),
            error_code: code.name().to_owned(),
        };
        records::write(run.host, run.vault, job, RecordBody::Refutation(body), None)?;
    }
    Ok(())
}

/// The job's backups that name one of these objects, as far as their lists can be read.
fn naming(run: &Run<'_>, objects: &HashSet<ObjectId>) -> Vec<BackupId> {
    // Backups share most of their lists.
    let lists: BTreeSet<ObjectId> =
        run.earlier.iter().flat_map(|m| &m.sources).flat_map(|source| source.lists.iter().copied()).collect();
    let leads_to = read_lists(&*run.vault.storage, lists).filter_map(|(list, lines)| {
        let names_one = lines.is_ok_and(|lines| lines.iter().any(|line| objects.contains(&line.object)));
        ready(names_one.then_some(list))
    });
    let lists: HashSet<ObjectId> = run.host.runtime.block_on(leads_to.collect());
    let names_one = |manifest: &&Manifest| {
        let mut sources = manifest.sources.iter();
        sources.any(|source| {
            source.contents.iter().any(|o| objects.contains(o)) || source.lists.iter().any(|list| lists.contains(list))
        })
    };
    run.earlier.iter().filter(|manifest| names_one(manifest)).map(|manifest| manifest.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{RecordId, VaultId};
    use crate::domain::record::{DrillEnvironment, DrillRecord};

    fn start() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn at(minutes: i64) -> DateTime<Utc> {
        start() + TimeDelta::minutes(minutes)
    }

    fn backup(number: u8) -> BackupId {
        BackupId::from_random([number; 8])
    }

    fn drill(minutes: i64, refutes_backup: bool) -> DrillRow {
        DrillRow {
            vault: VaultId::from_random([1; 8]),
            id: RecordId::from_random([u8::try_from(minutes).unwrap(); 8]),
            job: "shop".parse().unwrap(),
            host: "web-1".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded: at(minutes),
            details: None,
            drill: DrillRecord {
                outcome: if refutes_backup { DrillOutcome::Failed } else { DrillOutcome::Passed },
                backup: Some(backup(1)),
                recovery_point: Some(start()),
                started: at(minutes - 1),
                finished: at(minutes),
                rto_seconds: 60.0,
                rto_objective_seconds: None,
                rto_met: !refutes_backup,
                rpo_seconds: None,
                phases: Vec::new(),
                checks_passed: 0,
                checks_failed: 0,
                refutes_backup,
                error_code: None,
                restored_bytes: 0,
                environment: DrillEnvironment {
                    cores: 2,
                    storage: "folder".into(),
                    confinement: "none-run".into(),
                    cold_cache: false,
                    servers: Vec::new(),
                    opened_for: Vec::new(),
                },
            },
        }
    }

    fn told(found_by: Finder, objects: &[ObjectId]) -> RefutationRecord {
        let (objects, backups) = (objects.to_vec(), vec![backup(1)]);
        RefutationRecord { found_by, objects, lists: Vec::new(), backups, error_code: "object-damaged".into() }
    }

    #[test]
    fn with_names_these_are_refuted_and_without_the_whole_backup_until_a_drill_clears_it() {
        let object = ObjectId([7; 32]);
        let (named, nameless) = (told(Finder::Check, &[object]), told(Finder::Check, &[]));
        let by_drill = told(Finder::Drill, &[object]);
        let refuted = |drills: &[DrillRow], told: &[(DateTime<Utc>, &RefutationRecord)]| {
            let refuted = Refuted::of(drills, told);
            (refuted.names.len(), refuted.backups.len())
        };
        assert_eq!(refuted(&[], &[]), (0, 0));
        assert_eq!(refuted(&[], &[(at(5), &named)]), (1, 0));
        assert_eq!(refuted(&[], &[(at(5), &nameless)]), (0, 1));
        assert_eq!(refuted(&[drill(4, false)], &[(at(5), &nameless)]), (0, 1));
        assert_eq!(refuted(&[drill(6, false)], &[(at(5), &nameless)]), (0, 0));
        // An object stays refuted: what a drill reads may have been put right since.
        assert_eq!(refuted(&[drill(6, false)], &[(at(5), &named)]), (1, 0));

        assert_eq!(refuted(&[drill(4, true)], &[]), (0, 1));
        assert_eq!(refuted(&[drill(4, true), drill(6, false)], &[]), (0, 0));
        assert_eq!(refuted(&[drill(4, false), drill(6, true)], &[]), (0, 1));
        // A drill that could name what is wrong leaves the rest of the backup sound.
        assert_eq!(refuted(&[drill(4, true)], &[(at(5), &by_drill)]), (1, 0));
        assert_eq!(refuted(&[drill(8, true)], &[(at(5), &by_drill)]), (1, 1), "the names are an older drill's");
        assert_eq!(refuted(&[drill(4, true)], &[(at(5), &named)]), (1, 1), "the names are not the drill's");
    }

    fn reusable(count: u64, stored_bytes: u64) -> Vec<(KeyedId, Known)> {
        let object = |number: u64| ObjectId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let known = |number| Known { object: object(number), stored_bytes, standing: Standing::Confirmed };
        (0..count).map(|number| (KeyedId(object(number).0), known(number))).collect()
    }

    #[test]
    fn everything_is_hashed_again_within_so_many_runs() {
        let known = reusable(2000, 1000);
        let mut seen = HashSet::new();
        for sequence in 5..5 + SHARES {
            let chosen = Allowance::of(1, false).choose(&known, sequence);
            assert!(chosen.iter().all(|(object, _)| u64::from(object.0[0]) % SHARES == sequence % SHARES));
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 2000);
    }

    #[test]
    fn limits_hold_and_do_not_leave_the_same_objects_out_for_ever() {
        // 40,000 objects of 4 MiB: 1,250 in each share, of which 64 fit.
        let known = reusable(40_000, 4 << 20);
        let mut seen = HashSet::new();
        for round in 0..60 {
            let chosen = Allowance::of(1, false).choose(&known, 3 + round * SHARES);
            assert_eq!(chosen.len(), 64);
            seen.extend(chosen);
        }
        let share = known.iter().filter(|(_, known)| u64::from(known.object.0[0]) % SHARES == 3).count();
        assert_eq!(seen.len(), share);
        let small = reusable(40_000, 1);
        assert_eq!(Allowance::of(1, false).choose(&small, 3).len(), MAX_REHASHED_OBJECTS);
    }

    #[test]
    fn sources_have_their_part_and_what_one_leaves_goes_to_the_next() {
        let (many, few) = (reusable(40_000, 1000), reusable(40, 1000));
        let mut allowance = Allowance::of(3, false);
        let chosen = [&many, &few, &many].map(|known| allowance.choose(known, 3).len());
        assert_eq!(chosen[0], 86);
        assert!(chosen[1] < 20, "{chosen:?}");
        assert_eq!(chosen.iter().sum::<usize>(), MAX_REHASHED_OBJECTS);
        // However many sources there are, large objects have their turn.
        assert_eq!(Allowance::of(500, false).choose(&reusable(1000, 4 << 20), 3).len(), 1);
        // What a broken run left is hashed when it is named, and not before.
        let left: Vec<_> =
            many.iter().map(|(id, known)| (*id, Known { standing: Standing::ToBeHashed, ..*known })).collect();
        assert!(Allowance::of(1, false).choose(&left, 3).is_empty());
    }
}
