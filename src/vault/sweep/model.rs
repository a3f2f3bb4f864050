//! A model of everybody who touches a vault: two writers, two sweepers, expiry, a clock that jumps, crashes at every
//! step and answers that are lost, interleaved at random. After every step all that the committed backups name must be
//! there; in the end, when all is quiet, nothing else. The writer here is a few lines that keep the rules at the top of
//! [`super`]; with a rule left out the same model must find a loss, or it would prove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::delete::{delete_all, finish, is_fresh, use_record};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::domain::claim::{CLAIM_HOLDS, CLAIM_TYPE, CLAIM_VERSION, CLOCK_TOLERANCE, Claim};
use crate::domain::ids::{KeyedId, ManifestHash, RecordId, RunId, VaultId};
use crate::domain::record::{RECORD_VERSION, Record, RemovalReason, RemovalRecord, SequenceRange};
use crate::storage::fault::{Effect, Fault as Faulty, Lasting, Moment, Plan};
use crate::storage::memory::Memory;
use crate::vault::claims::{give_up, write_claim};
use crate::vault::keys::SigningKey;
use crate::vault::layout::{CLAIMS, LISTS, OBJECTS, object_id};
use crate::vault::lists::{ListedSegment, encode, encode_avoiding};
use crate::vault::manifests::tests::{manifest, start, trust};
use crate::vault::manifests::{commit_manifest, sign_manifest};
use crate::vault::records::{survey_folder, write_record};

const GRACE: TimeDelta = TimeDelta::hours(24);
const JOBS: [&str; 2] = ["shop", "blog"];

/// The rules that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    All,
    /// The writer makes no claim, so that nothing bounds the time between its last look and its commit.
    NoClaim,
    /// The writer does not read the condemned lists before its commit.
    NoSecondReading,
    /// The writer gives a list the name that it always had, condemned or not.
    ListNamesReused,
    /// The sweeper deletes at once what it condemns.
    NoGrace,
    /// The sweeper reads the manifests, and trusts them for as long as it runs.
    NoClaimsRead,
}

/// Splitmix64: the same everywhere, for ever.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A backup that was committed.
#[derive(Clone)]
struct Backup {
    name: ManifestName,
    hash: ManifestHash,
    sequence: u64,
    lists: BTreeMap<ObjectId, Vec<ObjectId>>,
    contents: ObjectId,
    is_removed: bool,
}

impl Backup {
    fn keys(&self) -> impl Iterator<Item = String> {
        let lists = self.lists.keys().map(|list| Key::List(*list));
        let objects = self.lists.values().flatten().chain([&self.contents]).map(|object| Key::Object(*object));
        lists.chain(objects).map(|key| key.to_string())
    }
}

/// What a writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Claim,
    LookAtBase,
    ReadCondemned,
    Work(usize),
    Lists,
    Sync,
    ListStore,
    ReadAgain,
    Commit,
    GiveUp,
}

struct Writer {
    handle: Arc<Memory>,
    run: RunId,
    step: Step,
    number: u64,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    base: Option<Backup>,
    journal: Vec<ObjectId>,
    condemned: BTreeSet<ObjectId>,
    old: Vec<ObjectId>,
    /// Lists of the base that it saw, and does not write again.
    seen_lists: BTreeSet<ObjectId>,
    new: Vec<ObjectId>,
    contents: Option<ObjectId>,
    lists: BTreeMap<ObjectId, Vec<ObjectId>>,
}

struct Sweeper {
    handle: Arc<Memory>,
    garbage: Garbage,
    unwritten: usize,
    unused: usize,
    deleted: usize,
    is_stale: bool,
}

struct World {
    rules: Rules,
    clock: Arc<ManualClock>,
    store: Memory,
    key: SigningKey,
    trust: TrustDocument,
    dice: Dice,
    made: u64,
    truth: Vec<Backup>,
    /// What a killed run of the job stored, and since when.
    journals: [(Vec<ObjectId>, DateTime<Utc>); 2],
    writers: [Option<Writer>; 2],
    sweepers: [Option<Sweeper>; 2],
    /// How long a writer has been standing between its last look and its commit.
    hesitated: TimeDelta,
    /// Whether the writers hesitate where it hurts.
    is_patient: bool,
    commits: usize,
    deletions: usize,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let clock = Arc::new(ManualClock::at(start()));
        let key = SigningKey::generate();
        Self {
            rules,
            store: Memory::new(clock.clone()),
            clock,
            trust: trust(&key),
            key,
            dice: Dice(seed),
            made: 0,
            truth: Vec::new(),
            journals: [(Vec::new(), start()), (Vec::new(), start())],
            writers: [None, None],
            sweepers: [None, None],
            hesitated: TimeDelta::zero(),
            is_patient: rules != Rules::All || seed % 2 == 1,
            commits: 0,
            deletions: 0,
        }
    }

    fn eight(&mut self) -> [u8; 8] {
        self.made += 1;
        self.made.to_be_bytes()
    }

    /// The store as an actor sees it in one step: now and then an answer is lost.
    fn seen_through(&mut self, handle: &Arc<Memory>) -> Arc<dyn Storage> {
        if self.dice.one_in(12) {
            let moment = if self.dice.one_in(2) { Moment::Before } else { Moment::After };
            let at_call = 1 + self.dice.below(8) as u64;
            let plan = Plan { at_call, moment, effect: Effect::LoseAnswer, lasting: Lasting::Once };
            Arc::new(Faulty::planned(handle.clone(), plan))
        } else {
            handle.clone()
        }
    }

    async fn act(&mut self) {
        // Where a writer hesitates for long at a step that counts, the others have time to do their worst.
        let is_critical = |writer: &Writer| {
            matches!(writer.step, Step::Work(_) | Step::Lists | Step::ListStore | Step::ReadAgain | Step::Commit)
        };
        let hesitates = self.is_patient && self.writers.iter().flatten().any(is_critical) && !self.dice.one_in(5);
        match if hesitates { 10 + self.dice.below(10) } else { self.dice.below(20) } {
            0..10 => {
                let which = self.dice.below(2);
                self.write(which).await;
            }
            10..16 => {
                let which = self.dice.below(2);
                self.sweep(which).await;
            }
            16..18 => self.expire().await,
            _ => self.wait(),
        }
        self.check().await;
    }

    fn wait(&mut self) {
        let minutes = [5, 20, 45, 90, 1500][self.dice.below(5)];
        let by = TimeDelta::minutes(minutes);
        let stands = |writer: &Writer| writer.step == Step::Commit;
        if self.rules != Rules::NoClaim && self.writers.iter().flatten().any(stands) {
            if self.hesitated + by > TimeDelta::minutes(50) {
                return;
            }
            self.hesitated += by;
        }
        self.clock.advance(Duration::from_secs(minutes as u64 * 60));
    }

    async fn write(&mut self, which: usize) {
        let Some(mut writer) = self.writers[which].take() else {
            self.writers[which] = Some(self.begin(which));
            return;
        };
        let storage = self.seen_through(&writer.handle.clone());
        let is_alive = !self.dice.one_in(40) && self.step(which, &mut writer, &*storage).await.unwrap_or(false);
        if is_alive {
            self.writers[which] = Some(writer);
        } else if !writer.new.is_empty() && writer.step != Step::GiveUp {
            // It died. What it had stored stands in its journal.
            self.journals[which] = (writer.new, writer.since);
        }
    }

    fn begin(&mut self, which: usize) -> Writer {
        let job: JobName = JOBS[which].parse().unwrap();
        let now = self.clock.now();
        let base = self.truth.iter().rev().find(|backup| backup.name.job == job && !backup.is_removed).cloned();
        let mut since = now - CLOCK_TOLERANCE;
        let (journal, begun) = std::mem::take(&mut self.journals[which]);
        if !journal.is_empty() {
            since = since.min(begun);
        }
        Writer {
            handle: Arc::new(self.store.another_handle()),
            run: RunId::from_random(self.eight()),
            step: Step::Claim,
            number: 0,
            since,
            until: now,
            base,
            journal,
            condemned: BTreeSet::new(),
            old: Vec::new(),
            seen_lists: BTreeSet::new(),
            new: Vec::new(),
            contents: None,
            lists: BTreeMap::new(),
        }
    }

    async fn claim(&mut self, which: usize, writer: &mut Writer, storage: &dyn Storage) -> Result<(), VaultError> {
        if self.rules == Rules::NoClaim {
            return Ok(());
        }
        writer.number += 1;
        let base = writer.base.as_ref();
        let claim = Claim {
            kind: CLAIM_TYPE.into(),
            version: CLAIM_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: JOBS[which].parse().unwrap(),
            run: writer.run.clone(),
            number: writer.number,
            host: "web-1".into(),
            since: writer.since,
            until: self.clock.now() + CLAIM_HOLDS,
            bases: base.map(|base| base.name.id.clone()).into_iter().collect(),
            lists: base.map(|base| base.lists.keys().copied().collect()).unwrap_or_default(),
            contents: base.map(|base| base.contents).into_iter().collect(),
        };
        write_claim(storage, &claim).await?;
        writer.until = claim.until;
        Ok(())
    }

    /// Whether the run goes on.
    async fn step(&mut self, which: usize, writer: &mut Writer, storage: &dyn Storage) -> Result<bool, VaultError> {
        let is_busy = !matches!(writer.step, Step::Claim | Step::Commit | Step::GiveUp);
        if is_busy && writer.until - TimeDelta::hours(1) < self.clock.now() && !self.dice.one_in(4) {
            self.claim(which, writer, storage).await?;
        }
        writer.step = match writer.step {
            Step::Claim => {
                self.claim(which, writer, storage).await?;
                Step::LookAtBase
            }
            Step::LookAtBase => {
                if let Some(base) = &writer.base
                    && storage.size(&Key::Manifest(base.name.clone()).to_string()).await?.is_none()
                {
                    writer.base = None;
                }
                Step::ReadCondemned
            }
            Step::ReadCondemned => {
                writer.condemned = condemned(storage, &self.trust).await?;
                Step::Work(1 + self.dice.below(5))
            }
            Step::Work(0) => Step::Lists,
            Step::Work(left) => {
                self.work(writer, storage).await?;
                Step::Work(left - 1)
            }
            Step::Lists => {
                self.lists(writer, storage).await?;
                Step::Sync
            }
            Step::Sync => {
                storage.sync().await?;
                Step::ListStore
            }
            Step::ListStore => {
                let there = keys(storage, &[LISTS, OBJECTS]).await?;
                let named = self.backup(which, writer);
                // What it saw after it had read what is condemned it need not see again.
                let seen = writer.old.iter().map(|object| Key::Object(*object));
                let seen: BTreeSet<String> = seen
                    .chain(writer.seen_lists.iter().map(|list| Key::List(*list)))
                    .map(|key| key.to_string())
                    .collect();
                let is_there = |key: String| seen.contains(&key) || there.contains(&key);
                if named.keys().all(is_there) { Step::ReadAgain } else { Step::GiveUp }
            }
            Step::ReadAgain => {
                let condemned = match self.rules {
                    Rules::NoSecondReading => BTreeSet::new(),
                    _ => condemned(storage, &self.trust).await?,
                };
                let lists = writer.lists.keys().filter(|_| self.rules != Rules::ListNamesReused);
                let objects = writer.lists.values().flatten().chain(&writer.contents);
                let is_taken = lists.chain(objects).any(|id| condemned.contains(id));
                let holds = self.rules == Rules::NoClaim || writer.until >= self.clock.now() + TimeDelta::hours(1);
                self.hesitated = TimeDelta::zero();
                if is_taken || !holds { Step::GiveUp } else { Step::Commit }
            }
            Step::Commit => {
                self.commit(which, writer, storage).await;
                Step::GiveUp
            }
            Step::GiveUp => {
                give_up(storage, &JOBS[which].parse().unwrap(), &writer.run).await?;
                return Ok(false);
            }
        };
        Ok(true)
    }

    async fn work(&mut self, writer: &mut Writer, storage: &dyn Storage) -> Result<(), VaultError> {
        let base = writer.base.as_ref().map(|base| base.lists.values().flatten().copied().collect::<Vec<_>>());
        let may_reuse: Vec<ObjectId> = base.into_iter().flatten().chain(writer.journal.iter().copied()).collect();
        for list in
            writer.base.iter().flat_map(|base| base.lists.keys()).filter(|list| !writer.condemned.contains(list))
        {
            if storage.size(&Key::List(*list).to_string()).await?.is_some() {
                writer.seen_lists.insert(*list);
            }
        }
        for object in may_reuse {
            let is_new = !writer.old.contains(&object) && !writer.condemned.contains(&object);
            let there = storage.size(&Key::Object(object).to_string()).await?.is_some();
            if is_new && there && !self.dice.one_in(4) {
                writer.old.push(object);
            }
        }
        if self.dice.one_in(2) || writer.contents.is_none() {
            let bytes = Bytes::copy_from_slice(&self.eight());
            let object = object_id(&bytes);
            storage.put(&Key::Object(object).to_string(), bytes).await?;
            if self.dice.one_in(2) {
                storage.sync().await?;
            }
            if writer.contents.replace(object).is_some() || self.dice.one_in(2) {
                writer.new.push(object);
            }
        }
        Ok(())
    }

    /// Lists of few objects, so that their names come back often.
    async fn lists(&mut self, writer: &mut Writer, storage: &dyn Storage) -> Result<(), VaultError> {
        writer.old.sort();
        writer.old.truncate(3);
        let mut objects = writer.old.clone();
        objects.extend(&writer.new);
        let pieces: Vec<Vec<ObjectId>> = vec![writer.old.clone(), writer.new.clone()];
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            let line = |object: &ObjectId| ListedSegment { object: *object, stored_bytes: 8, id: KeyedId(object.0) };
            let lines: Vec<_> = piece.iter().map(line).collect();
            let (list, bytes) = match self.rules {
                Rules::ListNamesReused => encode(&lines),
                _ => encode_avoiding(&lines, &|list| writer.condemned.contains(list)),
            };
            if self.rules == Rules::ListNamesReused || !writer.seen_lists.contains(&list) {
                storage.put(&Key::List(list).to_string(), bytes).await?;
            }
            writer.lists.insert(list, piece);
        }
        Ok(())
    }

    fn backup(&self, which: usize, writer: &Writer) -> Backup {
        let job: JobName = JOBS[which].parse().unwrap();
        let sequence = self.truth.iter().filter(|backup| backup.name.job == job).count() as u64 + 1;
        Backup {
            name: ManifestName {
                job,
                stamp: crate::domain::ids::Stamp::of(self.clock.now()),
                id: BackupId::from_random(sequence.to_be_bytes()),
            },
            hash: ManifestHash([0; 32]),
            sequence,
            lists: writer.lists.clone(),
            contents: writer.contents.unwrap(),
            is_removed: false,
        }
    }

    async fn commit(&mut self, which: usize, writer: &Writer, storage: &dyn Storage) {
        let mut backup = self.backup(which, writer);
        let previous = self.truth.iter().rev().find(|before| before.name.job == backup.name.job);
        let mut document = manifest(JOBS[which], backup.sequence, previous.map(|before| before.hash));
        let now = self.clock.now();
        (document.started, document.committed, document.recovery_point) = (now, now, now);
        document.sources[0].recovery_point = now;
        document.sources[0].lists = backup.lists.keys().copied().collect();
        document.sources[0].contents = vec![backup.contents];
        let signed = sign_manifest(&document, &self.key);
        // Whatever the store answers: what can be seen is committed.
        let _ = commit_manifest(storage, &signed).await;
        let key = Key::Manifest(signed.name.clone()).to_string();
        if self.store.size(&key).await.unwrap().is_some() {
            (backup.name, backup.hash) = (signed.name, signed.hash);
            self.truth.push(backup);
            self.commits += 1;
        }
    }

    fn record(&mut self, job: &str, body: RecordBody) -> Record {
        Record {
            version: RECORD_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: job.parse().unwrap(),
            id: RecordId::from_random(self.eight()),
            host: "web-1".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded: self.clock.now(),
            body,
            details: None,
        }
    }

    /// The oldest backup of a job goes; its manifest now and then later.
    async fn expire(&mut self) {
        let job = JOBS[self.dice.below(2)];
        let gone = self.truth.iter().filter(|backup| backup.name.job.as_str() == job && backup.is_removed);
        let mut gone: Vec<_> = gone.map(|b| SequenceRange { first: b.sequence, last: b.sequence }).collect();
        let oldest = self.truth.iter_mut().find(|backup| backup.name.job.as_str() == job && !backup.is_removed);
        let Some(oldest) = oldest else { return };
        oldest.is_removed = true;
        gone.push(SequenceRange { first: oldest.sequence, last: oldest.sequence });
        let name = oldest.name.clone();
        let removal = RemovalRecord {
            backup: name.id.clone(),
            summary: None,
            reason: RemovalReason::Expired,
            gone: SequenceRange::union(gone),
        };
        let record = self.record(job, RecordBody::Removal(Box::new(removal)));
        write_record(&self.store, &self.key, &record, None).await.unwrap();
        if !self.dice.one_in(4) {
            remove_manifest(&self.store, &name).await.unwrap();
        }
    }

    async fn sweep(&mut self, which: usize) {
        let Some(mut sweeper) = self.sweepers[which].take() else {
            let handle = Arc::new(self.store.another_handle());
            let storage = self.seen_through(&handle);
            if let Ok(sweeper) = self.begin_sweep(handle, &*storage).await {
                self.sweepers[which] = Some(sweeper);
            }
            return;
        };
        let storage = self.seen_through(&sweeper.handle.clone());
        let is_alive = !self.dice.one_in(30) && self.sweep_on(&mut sweeper, &*storage).await.unwrap_or(false);
        if is_alive {
            self.sweepers[which] = Some(sweeper);
        }
    }

    async fn sweep_once(&mut self) {
        let handle = Arc::new(self.store.another_handle());
        let mut sweeper = self.begin_sweep(handle.clone(), &*handle).await.unwrap();
        while self.sweep_on(&mut sweeper, &*handle).await.unwrap() {}
    }

    async fn begin_sweep(&mut self, handle: Arc<Memory>, storage: &dyn Storage) -> Result<Sweeper, VaultError> {
        let mut stock = take_stock(storage, &self.trust, None).await?;
        assert_eq!(stock.stops(), [], "nothing in this model is wrong");
        assert_eq!(stock.held_until(), None);
        for name in &stock.survey().removed {
            remove_manifest(storage, name).await?;
        }
        if self.rules == Rules::NoClaimsRead {
            stock.inventory.forget_claims();
        }
        let grace = if self.rules == Rules::NoGrace { TimeDelta::zero() } else { GRACE };
        let garbage = stock.garbage(storage, &self.trust, grace, &BTreeMap::new()).await?;
        Ok(Sweeper { handle, garbage, unwritten: 0, unused: 0, deleted: 0, is_stale: false })
    }

    /// As [`delete`], after what `prune` does, in pieces.
    async fn sweep_on(&mut self, sweeper: &mut Sweeper, storage: &dyn Storage) -> Result<bool, VaultError> {
        let garbage = &sweeper.garbage;
        if let Some(condemned) = garbage.to_condemn.get(sweeper.unwritten) {
            let record = self.record("shop", RecordBody::Condemned(condemned.clone()));
            write_record(storage, &self.key, &record, None).await?;
            sweeper.unwritten += 1;
        } else if let Some(name) = garbage.used.get(sweeper.unused) {
            use_record(storage, name).await?;
            sweeper.unused += 1;
        } else if sweeper.deleted < garbage.to_delete.len() && !sweeper.is_stale {
            let end = garbage.to_delete.len().min(sweeper.deleted + 1 + self.dice.below(3));
            if is_fresh(storage, garbage).await? {
                let mut deletion = Deletion::default();
                delete_all(storage, garbage, &garbage.to_delete[sweeper.deleted..end], &mut deletion, &|_| {}).await?;
                self.deletions += deletion.objects as usize;
                sweeper.deleted = end;
            } else {
                sweeper.is_stale = true;
            }
        } else {
            storage.sync().await?;
            finish(storage, garbage).await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn check(&self) {
        let there = keys(&self.store, &[LISTS, OBJECTS]).await.unwrap();
        for backup in self.truth.iter().filter(|backup| !backup.is_removed) {
            for key in backup.keys() {
                assert!(there.contains(&key), "lost: {key} of {}", backup.name);
            }
        }
    }

    /// Everybody is gone; some days pass, with a sweep on each.
    async fn end(&mut self) {
        (self.writers, self.sweepers) = ([None, None], [None, None]);
        for _ in 0..6 {
            self.clock.advance(Duration::from_secs(25 * 3600));
            self.sweep_once().await;
            self.check().await;
        }
        let named: BTreeSet<String> = self.truth.iter().filter(|b| !b.is_removed).flat_map(Backup::keys).collect();
        let there = keys(&self.store, &[LISTS, OBJECTS, CLAIMS]).await.unwrap();
        let left: Vec<_> = there.difference(&named).collect();
        assert!(left.is_empty(), "left: {left:?}");
        // One that was condemned between a run's last look and its commit is named and condemned for as long as it stands.
        for verified in survey_folder(&self.store, &self.trust, "condemned").await.unwrap().records {
            let RecordBody::Condemned(condemned) = verified.record.body else { continue };
            let objects = condemned.objects.into_iter().map(|object| Key::Object(object).to_string());
            let mut names = objects.chain(condemned.lists.into_iter().map(|list| Key::List(list).to_string()));
            assert!(names.any(|name| there.contains(&name)), "left: {:?}", verified.name);
        }
        let manifests = keys(&self.store, &["backups/"]).await.unwrap();
        let stands = self.truth.iter().filter(|backup| !backup.is_removed).count();
        assert_eq!(manifests.len(), 2 * stands, "a manifest and a signature each: {manifests:?}");
    }
}

async fn keys(storage: &dyn Storage, prefixes: &[&str]) -> Result<BTreeSet<String>, VaultError> {
    let mut keys = BTreeSet::new();
    for prefix in prefixes {
        storage.list(prefix, &mut |listed| keys.extend([listed.key])).await?;
    }
    Ok(keys)
}

async fn condemned(storage: &dyn Storage, trust: &TrustDocument) -> Result<BTreeSet<ObjectId>, VaultError> {
    let records = survey_folder(storage, trust, "condemned").await?.records;
    let names = records.into_iter().filter_map(|verified| match verified.record.body {
        RecordBody::Condemned(condemned) => Some(condemned.objects.into_iter().chain(condemned.lists)),
        _ => None,
    });
    Ok(names.flatten().collect())
}

/// Plays one game. How many backups were committed, and how many objects deleted.
fn play(seed: u64, rules: Rules, moves: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, rules);
        for _ in 0..moves {
            world.act().await;
        }
        let done = (world.commits, world.deletions);
        world.end().await;
        done
    })
}

/// Whether something is lost in one of these games.
fn is_lost(mut games: impl Iterator<Item = impl FnOnce() + std::panic::UnwindSafe>) -> bool {
    games.any(|game| {
        let said = std::panic::catch_unwind(game).err().and_then(|panic| panic.downcast::<String>().ok());
        said.is_some_and(|said| said.starts_with("lost: "))
    })
}

#[test]
fn nothing_that_a_backup_names_is_ever_lost_and_nothing_else_is_left() {
    let (mut commits, mut deletions) = (0, 0);
    for seed in 0..40 {
        let done = std::panic::catch_unwind(|| play(seed, Rules::All, 250));
        let (committed, deleted) = done.unwrap_or_else(|_| panic!("seed {seed}"));
        (commits, deletions) = (commits + committed, deletions + deleted);
    }
    assert!(commits > 100 && deletions > 100, "a model in which nothing happens: {commits}, {deletions}");
}

#[test]
fn a_writer_needs_its_claim_and_its_second_reading_and_a_sweeper_must_read_claims() {
    for (rules, seeds) in [(Rules::NoClaim, 50..120), (Rules::NoSecondReading, 0..40), (Rules::NoClaimsRead, 0..300)] {
        assert!(is_lost(seeds.map(|seed| move || _ = play(seed, rules, 250))), "without {rules:?} nothing was lost");
    }
}

/// A list of a run that died lies there, and a writer makes the very same one. It was condemned long before, or is
/// condemned between the writer's last look and its commit; the sweeper comes to it after the commit.
async fn a_list_comes_back(rules: Rules, is_condemned_before: bool) {
    let mut world = World::new(0, rules);
    let bytes = Bytes::from_static(b"object");
    let object = object_id(&bytes);
    let (list, stored) = encode(&[ListedSegment { object, stored_bytes: 8, id: KeyedId(object.0) }]);
    world.store.replace(&Key::List(list).to_string(), stored).await.unwrap();
    world.clock.advance(Duration::from_secs(3600));
    if is_condemned_before {
        world.sweep_once().await;
        world.clock.advance(Duration::from_secs(25 * 3600));
    }

    let mut writer = world.begin(0);
    let storage = writer.handle.clone();
    while !matches!(writer.step, Step::Work(_)) {
        world.step(0, &mut writer, &*storage).await.unwrap();
    }
    world.store.replace(&Key::Object(object).to_string(), bytes).await.unwrap();
    (writer.old, writer.contents, writer.step) = (vec![object], Some(object), Step::Lists);
    let handle = Arc::new(world.store.another_handle());
    let mut sweeper = world.begin_sweep(handle.clone(), &*handle).await.unwrap();
    while writer.step != Step::Commit {
        world.step(0, &mut writer, &*storage).await.unwrap();
        assert_ne!(writer.step, Step::GiveUp);
    }
    if !is_condemned_before {
        world.sweep_once().await;
        sweeper = world.begin_sweep(handle.clone(), &*handle).await.unwrap();
    }
    world.step(0, &mut writer, &*storage).await.unwrap();
    assert_eq!(world.commits, 1);
    while world.sweep_on(&mut sweeper, &*handle).await.unwrap() {}
    world.check().await;
}

#[test]
fn a_list_whose_name_comes_back_needs_another_name_and_the_grace_period() {
    let game = |rules, is_condemned_before| {
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(a_list_comes_back(rules, is_condemned_before));
        }
    };
    game(Rules::All, true)();
    game(Rules::All, false)();
    assert!(is_lost([game(Rules::ListNamesReused, true)].into_iter()));
    assert!(is_lost([game(Rules::NoGrace, false)].into_iter()));
}
