//! Putting segments into the vault: seal what is new, name again what is there, and know what was added.
//!
//! The order of docs/VAULT-FORMAT.md's commit is kept by the caller: segments, then contents, then lists, then `settle` and a
//! sync, then the signature, then the manifest.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, Semaphore};

use crate::clock::Clock;
use crate::domain::ids::{KeyedId, ObjectId};
use crate::domain::segment::{MAX_LIST_LINES, SegmentRef};
use crate::seal::{Sealer, keyed_id};
use crate::storage::{Put, Storage, StorageError};

use super::VaultError;
use super::layout::Key;
use super::lists::{self, ListedSegment};
use super::presence::{Looked, look_at};

/// Bytes of uploads under way, of which there are as many at once as the store takes.
const UPLOAD_ROOM_BYTES: u32 = 64 * 1024 * 1024;

/// What a run stored becomes durable and visible this often, so that one that is killed leaves something to resume from.
pub const SYNC_EVERY: Duration = Duration::from_secs(60);

/// An object that a writer may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub object: ObjectId,
    /// Its size in the vault.
    pub stored_bytes: u64,
    /// Whether more must be done before it is named.
    pub standing: Standing,
}

/// What is known of an object that may be named again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A committed backup names it, or this run stored it.
    Confirmed,
    /// A run that broke off says that it stored it: its bytes are held against its name before it is named.
    ToBeHashed,
}

/// Names that no new backup may use.
#[derive(Debug, Default)]
pub struct Barred {
    /// A sweep may delete these.
    pub condemned: HashSet<ObjectId>,
    /// These were found to be wrong.
    pub refuted: HashSet<ObjectId>,
    /// Lists that the run's claim covers. One that lies there and is not among them may be swept away at any moment.
    pub claimed: HashSet<ObjectId>,
}

impl Barred {
    /// Whether the object or list must not be named.
    #[must_use]
    pub fn bars(&self, name: &ObjectId) -> bool {
        self.condemned.contains(name) || self.refuted.contains(name)
    }
}

/// When a run syncs: shared by the stores of its sources.
pub struct Pace {
    clock: Arc<dyn Clock>,
    last: Mutex<Duration>,
}

impl Pace {
    /// Counts from now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Mutex::new(clock.monotonic());
        Self { clock, last }
    }

    /// Whether it is time; whoever is told so syncs.
    fn is_due(&self) -> bool {
        let (now, mut last) = (self.clock.monotonic(), locked(&self.last));
        let due = now.saturating_sub(*last) >= SYNC_EVERY;
        if due {
            *last = now;
        }
        due
    }
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Told of every new segment once the store has taken it, from any thread.
pub type Landed = dyn Fn(&SegmentRef) + Send + Sync;

/// The segments of one source, on their way into the vault. Shared by all threads of a run.
pub struct SegmentStore {
    runtime: Handle,
    storage: Arc<dyn Storage>,
    id_key: [u8; 32],
    known: Mutex<HashMap<KeyedId, Known>>,
    /// Uploads that may be under way.
    slots: Arc<Semaphore>,
    max_uploads: usize,
    /// Bytes that they may have.
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<StorageError>>>,
    new_segments: AtomicU64,
    new_bytes: Arc<AtomicU64>,
    resumed_segments: AtomicU64,
    repaired: Arc<Mutex<Vec<String>>>,
    /// Objects and lists that this run stored, where the store holds them from then on.
    created: Option<Arc<Mutex<HashSet<ObjectId>>>>,
    /// Lists that this run wrote.
    own_lists: Mutex<HashSet<ObjectId>>,
    /// Lists that this run has read, and found to be what their names say.
    intact: HashSet<ObjectId>,
    barred: Arc<Barred>,
    landed: Option<Arc<Landed>>,
    pace: Option<Arc<Pace>>,
}

/// What storing a segment came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Its content stands in the base or was stored by this run already: named again.
    Reused(SegmentRef),
    /// Sealed and on its way.
    New(SegmentRef),
}

impl Stored {
    /// The segment, either way.
    #[must_use]
    pub fn segment(self) -> SegmentRef {
        match self {
            Self::Reused(segment) | Self::New(segment) => segment,
        }
    }
}

impl SegmentStore {
    /// `known`: what may be named again, each confirmed to lie in the store (see [`super::presence::absent`]). Of two with the same id
    /// the later one counts.
    #[must_use]
    pub fn new(
        runtime: Handle,
        storage: Arc<dyn Storage>,
        id_key: [u8; 32],
        known: impl IntoIterator<Item = (KeyedId, Known)>,
    ) -> Self {
        let known = known.into_iter().collect();
        let max_uploads = storage.parallel().max(1);
        let created = storage.lock().map(|_| Arc::default());
        Self {
            runtime,
            storage,
            id_key,
            known: Mutex::new(known),
            slots: Arc::new(Semaphore::new(max_uploads)),
            max_uploads,
            room: Arc::new(Semaphore::new(UPLOAD_ROOM_BYTES as usize)),
            failure: Arc::new(Mutex::new(None)),
            new_segments: AtomicU64::new(0),
            new_bytes: Arc::new(AtomicU64::new(0)),
            resumed_segments: AtomicU64::new(0),
            repaired: Arc::new(Mutex::new(Vec::new())),
            created,
            own_lists: Mutex::default(),
            intact: HashSet::new(),
            barred: Arc::default(),
            landed: None,
            pace: None,
        }
    }

    /// No list gets one of these names. Objects need no such care: their names are new each time.
    #[must_use]
    pub fn avoiding(mut self, barred: Arc<Barred>) -> Self {
        self.barred = barred;
        self
    }

    /// These lists were read by this run and are what their names say: the same lines need not be stored again.
    #[must_use]
    pub fn having_read(mut self, lists: HashSet<ObjectId>) -> Self {
        self.intact = lists;
        self
    }

    /// Tells of each new segment once the store has taken it.
    #[must_use]
    pub fn telling(mut self, landed: Arc<Landed>) -> Self {
        self.landed = Some(landed);
        self
    }

    /// Syncs now and then, after something was stored.
    #[must_use]
    pub fn syncing(mut self, pace: Arc<Pace>) -> Self {
        self.pace = Some(pace);
        self
    }

    /// Whether every one of these segments may be named again, as it is.
    #[must_use]
    pub fn knows(&self, segments: &[SegmentRef]) -> bool {
        let known = locked(&self.known);
        segments.iter().all(|SegmentRef { object, stored_bytes, id, .. }| {
            let confirmed = Known { object: *object, stored_bytes: *stored_bytes, standing: Standing::Confirmed };
            known.get(id) == Some(&confirmed)
        })
    }

    /// Stores a segment, or names it again. Returns when it is handed to the store, not when the store has it:
    /// [`SegmentStore::settle`] waits for that.
    ///
    /// # Errors
    /// When sealing fails, or an earlier upload failed.
    pub fn store(&self, sealer: &mut Sealer, plain: &[u8]) -> Result<Stored, VaultError> {
        let id = keyed_id(&self.id_key, plain);
        let plain_bytes = plain.len() as u64;
        if let Some(Known { object, stored_bytes, .. }) = self.nameable(id)? {
            return Ok(Stored::Reused(SegmentRef { object, stored_bytes, id, plain_bytes }));
        }
        let sealed = sealer.seal(plain)?;
        let stored_bytes = sealed.bytes.len() as u64;
        let segment = SegmentRef { object: sealed.object, stored_bytes, id, plain_bytes };
        self.upload(Upload { key: Key::Object(sealed.object), bytes: sealed.bytes, segment: Some(segment) })?;
        self.new_segments.fetch_add(1, Ordering::Relaxed);
        let known = Known { object: sealed.object, stored_bytes, standing: Standing::Confirmed };
        locked(&self.known).insert(id, known);
        Ok(Stored::New(segment))
    }

    /// What may be named for this content. What a run that broke off left is hashed here, when it is about to be named.
    fn nameable(&self, id: KeyedId) -> Result<Option<Known>, VaultError> {
        let found = locked(&self.known).get(&id).copied();
        let Some(doubtful) = found.filter(|known| known.standing == Standing::ToBeHashed) else { return Ok(found) };
        let looked = self.runtime.block_on(look_at(&*self.storage, doubtful.object, doubtful.stored_bytes))?;
        let mut known = locked(&self.known);
        // Another thread may have come to the same content meanwhile, and been faster.
        if known.get(&id) == Some(&doubtful) {
            if looked == Looked::Intact {
                known.insert(id, Known { standing: Standing::Confirmed, ..doubtful });
                self.resumed_segments.fetch_add(1, Ordering::Relaxed);
            } else {
                known.remove(&id);
            }
        }
        Ok(known.get(&id).copied())
    }

    /// Stores a list of segments under its hash. One of the base's that is there is held against it: what lies there
    /// damaged is put right, because these are the bytes that its name says. One that is nobody's, or an older backup's,
    /// is left alone, and this one written in another way: the claim does not cover what lay there before.
    ///
    /// # Errors
    /// When an upload failed.
    fn store_list(&self, lines: &[SegmentRef]) -> Result<ObjectId, VaultError> {
        let lines: Vec<ListedSegment> = lines.iter().map(ListedSegment::from).collect();
        let failure = Cell::new(None);
        let is_taken = |name: &ObjectId| {
            if self.barred.bars(name) {
                return true;
            }
            if self.barred.claimed.contains(name) || locked(&self.own_lists).contains(name) {
                return false;
            }
            match self.runtime.block_on(self.storage.size(&Key::List(*name).to_string())) {
                Ok(size) => size.is_some(),
                // Something lies there that is no list.
                Err(StorageError::NotAFile { .. }) => true,
                Err(error) => {
                    failure.set(Some(error));
                    false
                }
            }
        };
        let (list, bytes) = lists::encode_avoiding(&lines, &is_taken);
        if let Some(error) = failure.take() {
            return Err(error.into());
        }
        locked(&self.own_lists).insert(list);
        if !(self.intact.contains(&list) && self.barred.claimed.contains(&list)) {
            self.upload(Upload { key: Key::List(list), bytes, segment: None })?;
        }
        if !self.barred.refuted.is_empty() {
            // Older backups name the list that was found to be wrong: it is put right for them, and not named by this one.
            let (usual, bytes) = lists::encode(&lines);
            if self.barred.refuted.contains(&usual) && !self.barred.condemned.contains(&usual) {
                self.upload(Upload { key: Key::List(usual), bytes, segment: None })?;
            }
        }
        Ok(list)
    }

    fn upload(&self, Upload { key, bytes, segment }: Upload) -> Result<(), VaultError> {
        let name = match key {
            Key::Object(name) | Key::List(name) => Some(name),
            _ => None,
        };
        let created = self.created.clone().zip(name);
        let key = key.to_string();
        let existing = if segment.is_some() { Existing::Believed } else { Existing::Compared };
        let (slots, room) = (Arc::clone(&self.slots), Arc::clone(&self.room));
        let share = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(UPLOAD_ROOM_BYTES);
        let permits = self.runtime.block_on(async {
            let slot = slots.acquire_owned().await?;
            Ok::<_, AcquireError>((slot, room.acquire_many_owned(share).await?))
        });
        let permits = permits.map_err(|_| VaultError::WriterClosed)?;
        self.check_failure()?;
        let (storage, failure, added) =
            (Arc::clone(&self.storage), Arc::clone(&self.failure), Arc::clone(&self.new_bytes));
        let (repaired, landed, pace) = (Arc::clone(&self.repaired), self.landed.clone(), self.pace.clone());
        self.runtime.spawn(async move {
            // Armed until the store has answered: an upload that panics must not pass for one that was done.
            let mut guard =
                Unanswered { failure: Arc::clone(&failure), place: storage.describe(), key: Some(key.clone()) };
            let size = bytes.len() as u64;
            let mut uploaded = upload(&*storage, &key, bytes, existing).await;
            if uploaded.is_ok() {
                if let (Some(landed), Some(segment)) = (landed, segment) {
                    landed(&segment);
                }
                if pace.is_some_and(|pace| pace.is_due())
                    && let Err(error) = storage.sync().await
                {
                    uploaded = Err(error);
                }
            }
            if let (Ok(Uploaded::Created | Uploaded::Repaired), Some((created, name))) = (&uploaded, created) {
                locked(&created).insert(name);
            }
            match uploaded {
                Ok(Uploaded::Created) => {
                    added.fetch_add(size, Ordering::Relaxed);
                }
                Ok(Uploaded::Existed) => {}
                Ok(Uploaded::Repaired) => locked(&repaired).push(key),
                Err(error) => {
                    locked(&failure).get_or_insert(error);
                }
            }
            guard.key = None;
            drop(guard);
            drop(permits);
        });
        Ok(())
    }

    fn check_failure(&self) -> Result<(), VaultError> {
        match locked(&self.failure).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Waits until the store has taken everything.
    ///
    /// # Errors
    /// The first upload's that failed.
    pub fn settle(&self) -> Result<(), VaultError> {
        let all = u32::try_from(self.max_uploads).unwrap_or(u32::MAX);
        let permit = self.runtime.block_on(self.slots.acquire_many(all)).map_err(|_| VaultError::WriterClosed)?;
        drop(permit);
        self.check_failure()
    }

    /// The lists that lay damaged in the store and were put right, by key; final after [`SegmentStore::settle`].
    #[must_use]
    pub fn repaired(&self) -> Vec<String> {
        locked(&self.repaired).clone()
    }

    /// The objects and lists that this run stored, in a store that holds: they are held as the store was told to. Final
    /// after [`SegmentStore::settle`], and then they are forgotten here.
    #[must_use]
    pub fn take_created(&self) -> HashSet<ObjectId> {
        self.created.as_ref().map(|created| std::mem::take(&mut *locked(created))).unwrap_or_default()
    }

    /// Segments and bytes that this run added so far, lists included in the bytes; final after [`SegmentStore::settle`].
    #[must_use]
    pub fn added(&self) -> (u64, u64) {
        (self.new_segments.load(Ordering::Relaxed), self.new_bytes.load(Ordering::Relaxed))
    }

    /// Segments that a run which broke off had stored, and that this one took over.
    #[must_use]
    pub fn resumed_segments(&self) -> u64 {
        self.resumed_segments.load(Ordering::Relaxed)
    }
}

/// Something on its way into the store: an object, which is a segment's, or a list.
struct Upload {
    key: Key,
    bytes: Bytes,
    segment: Option<SegmentRef>,
}

/// What to think of bytes that lie under a key already.
#[derive(Debug, Clone, Copy)]
enum Existing {
    /// An object's name is new each time: sealing is randomised.
    Believed,
    /// A list's name is that of yesterday's where nothing changed, and yesterday's may have been damaged since.
    Compared,
}

enum Uploaded {
    Created,
    Existed,
    Repaired,
}

async fn upload(storage: &dyn Storage, key: &str, bytes: Bytes, existing: Existing) -> Result<Uploaded, StorageError> {
    match (storage.put(key, bytes.clone()).await?, existing) {
        (Put::Created, _) => return Ok(Uploaded::Created),
        (Put::Existed, Existing::Believed) => return Ok(Uploaded::Existed),
        (Put::Existed, Existing::Compared) => {}
    }
    match storage.get(key, bytes.len() as u64).await {
        Ok(there) if there == bytes => return Ok(Uploaded::Existed),
        // Put by this run already and not visible before the sync: bytes of ours.
        Err(error) if error.is_not_found() => return Ok(Uploaded::Existed),
        Ok(_) | Err(StorageError::TooLarge { .. }) => {}
        Err(error) => return Err(error),
    }
    storage.replace(key, bytes).await?;
    Ok(Uploaded::Repaired)
}

/// Says that an upload failed, unless it was disarmed.
struct Unanswered {
    failure: Arc<Mutex<Option<StorageError>>>,
    place: String,
    /// What is being uploaded; `None` once the store has answered.
    key: Option<String>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let doing = format!("storing {key}");
            let error = StorageError::OutcomeUnknown { place: std::mem::take(&mut self.place), doing };
            locked(&self.failure).get_or_insert(error);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for SegmentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentStore").field("storage", &self.storage).finish_non_exhaustive()
    }
}

/// Collects a source's segments into lists. A list ends after a segment whose id says so, so that a segment more or
/// less at one place leaves the other lists as they were.
#[derive(Debug, Default)]
pub struct ListWriter {
    lines: Vec<SegmentRef>,
    lists: Vec<ObjectId>,
    totals: ListTotals,
    counted: HashSet<ObjectId>,
}

/// Sums over a source's segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListTotals {
    /// Segments named.
    pub segments: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// Their stored bytes, an object that is named twice counted once.
    pub stored_bytes: u64,
}

/// A list ends, on average, after this many lines.
const USUAL_LIST_LINES: u32 = 1024;

impl ListWriter {
    /// Adds the next segment in the order of the tar.
    ///
    /// # Errors
    /// When an upload failed.
    pub fn push(&mut self, store: &SegmentStore, segment: SegmentRef) -> Result<(), VaultError> {
        self.totals.segments += 1;
        self.totals.plain_bytes += segment.plain_bytes;
        if self.counted.insert(segment.object) {
            self.totals.stored_bytes += segment.stored_bytes;
        }
        self.lines.push(segment);
        let [a, b, c, d, ..] = segment.id.0;
        let ends = u32::from_le_bytes([a, b, c, d]).is_multiple_of(USUAL_LIST_LINES);
        if ends || self.lines.len() == MAX_LIST_LINES {
            self.lists.push(store.store_list(&self.lines)?);
            self.lines.clear();
        }
        Ok(())
    }

    /// Stores the last list.
    ///
    /// # Errors
    /// When an upload failed.
    pub fn finish(mut self, store: &SegmentStore) -> Result<(Vec<ObjectId>, ListTotals), VaultError> {
        if !self.lines.is_empty() {
            self.lists.push(store.store_list(&self.lines)?);
        }
        Ok((self.lists, self.totals))
    }
}

/// Cuts the contents into segments of their own and stores them. Only whole pieces' lines stand between two cuts
/// (except within a piece too large for one segment), and the cuts follow the lines' own hashes, so that unchanged
/// stretches are named again.
pub struct ContentsWriter {
    sealer: Sealer,
    buffer: Vec<u8>,
    segments: Vec<SegmentRef>,
}

/// No cut before this many bytes of lines.
const CONTENTS_MIN_BYTES: usize = 128 * 1024;
/// A cut here at the latest.
const CONTENTS_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Between the two, one piece in so many ends a segment.
const CONTENTS_CUT_EVERY: u8 = 8;

impl ContentsWriter {
    /// Seals with `sealer`.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer, buffer: Vec::new(), segments: Vec::new() }
    }

    /// Adds the lines of one piece.
    ///
    /// # Errors
    /// When sealing or an upload failed.
    pub fn push(&mut self, store: &SegmentStore, lines: &[u8]) -> Result<(), VaultError> {
        self.buffer.extend_from_slice(lines);
        while self.buffer.len() > CONTENTS_MAX_BYTES {
            let rest = self.buffer.split_off(CONTENTS_MAX_BYTES);
            self.cut(store)?;
            self.buffer = rest;
        }
        let ends = blake3::hash(lines).as_bytes()[0].is_multiple_of(CONTENTS_CUT_EVERY);
        if ends && self.buffer.len() >= CONTENTS_MIN_BYTES { self.cut(store) } else { Ok(()) }
    }

    /// Ends the current segment.
    ///
    /// # Errors
    /// When sealing or an upload failed.
    pub fn cut(&mut self, store: &SegmentStore) -> Result<(), VaultError> {
        if !self.buffer.is_empty() {
            let plain = std::mem::take(&mut self.buffer);
            self.segments.push(store.store(&mut self.sealer, &plain)?.segment());
        }
        Ok(())
    }

    /// Ends the contents and gives its segments.
    ///
    /// # Errors
    /// When sealing or an upload failed.
    pub fn finish(mut self, store: &SegmentStore) -> Result<Vec<SegmentRef>, VaultError> {
        self.cut(store)?;
        Ok(self.segments)
    }
}

impl std::fmt::Debug for ContentsWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentsWriter").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Runtime;

    use super::*;
    use crate::clock::ManualClock;
    use crate::seal::Identities;
    use crate::storage::memory::Memory;
    use crate::storage::slow::Slow;

    /// A store in memory, and what a run needs to write into it.
    struct Bench {
        runtime: Runtime,
        clock: Arc<ManualClock>,
        memory: Memory,
        recipients: Vec<String>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at("2026-11-22T02:00:00Z".parse().unwrap()));
            Self {
                runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap(),
                memory: Memory::new(clock.clone()),
                clock,
                recipients: vec![Identities::generate().1],
            }
        }

        /// A run of its own: what it does not sync is not seen by others.
        fn run(&self, known: Vec<(KeyedId, Known)>) -> SegmentStore {
            let storage: Arc<dyn Storage> = Arc::new(self.memory.another_handle());
            SegmentStore::new(self.runtime.handle().clone(), storage, [7; 32], known)
        }

        fn sealer(&self) -> Sealer {
            Sealer::new(&self.recipients, 1).unwrap()
        }

        fn sync(&self, store: &SegmentStore) {
            store.settle().unwrap();
            self.runtime.block_on(store.storage.sync()).unwrap();
        }

        fn visible(&self, prefix: &str) -> usize {
            let mut count = 0;
            let visit = &mut |_| count += 1;
            self.runtime.block_on(self.memory.another_handle().list(prefix, visit)).unwrap();
            count
        }
    }

    #[test]
    fn as_many_uploads_are_under_way_as_the_store_takes() {
        let bench = Bench::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        for at_once in [1, 5] {
            let slow = Arc::new(Slow::with_company(Arc::new(bench.memory.another_handle()), at_once, at_once));
            let storage: Arc<dyn Storage> = Arc::<Slow>::clone(&slow);
            let store = SegmentStore::new(runtime.handle().clone(), storage, [7; 32], Vec::new());
            let mut sealer = bench.sealer();
            for number in 0..12u8 {
                store.store(&mut sealer, &[number]).unwrap();
            }
            store.settle().unwrap();
            assert_eq!((slow.most_at_once(), slow.requests()["put objects"]), (at_once, 12));
        }
    }

    fn left(segment: SegmentRef) -> (KeyedId, Known) {
        let SegmentRef { object, stored_bytes, id, .. } = segment;
        (id, Known { object, stored_bytes, standing: Standing::ToBeHashed })
    }

    #[test]
    fn what_a_broken_run_left_is_named_once_its_bytes_were_seen() {
        let bench = Bench::new();
        let landed = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&landed);
        let broken = bench.run(Vec::new()).telling(Arc::new(move |segment| locked(&told).push(*segment)));
        for plain in [b"intact", b"flaked", b"losing"] {
            broken.store(&mut bench.sealer(), plain).unwrap();
        }
        bench.sync(&broken);
        let segments = locked(&landed).clone();
        let of = |plain: &[u8]| *segments.iter().find(|s| s.id == keyed_id(&[7; 32], plain)).unwrap();
        let key = |plain: &[u8]| Key::Object(of(plain).object).to_string();
        bench.runtime.block_on(async {
            let bytes = Bytes::from(vec![0; usize::try_from(of(b"flaked").stored_bytes).unwrap()]);
            bench.memory.replace(&key(b"flaked"), bytes).await.unwrap();
            bench.memory.delete(&key(b"losing")).await.unwrap();
        });

        let next = bench.run(segments.iter().copied().map(left).collect());
        assert!(!next.knows(&[of(b"intact")]), "not before it was hashed");
        let mut sealer = bench.sealer();
        assert_eq!(next.store(&mut sealer, b"intact").unwrap(), Stored::Reused(of(b"intact")));
        assert!(next.knows(&[of(b"intact")]));
        for plain in [b"flaked", b"losing"] {
            let Stored::New(anew) = next.store(&mut sealer, plain).unwrap() else { panic!("named unseen") };
            assert_ne!(anew.object, of(plain).object);
            assert_eq!(next.store(&mut sealer, plain).unwrap(), Stored::Reused(anew));
        }
        assert_eq!(next.store(&mut sealer, b"intact").unwrap(), Stored::Reused(of(b"intact")));
        bench.sync(&next);
        assert_eq!((next.resumed_segments(), next.added().0), (1, 2));
    }

    #[test]
    fn what_was_stored_becomes_visible_every_so_often() {
        let bench = Bench::new();
        let pace = Arc::new(Pace::new(bench.clock.clone()));
        let stored = Arc::new(Mutex::new(0));
        let told = Arc::clone(&stored);
        let run = bench.run(Vec::new()).syncing(pace).telling(Arc::new(move |_| *locked(&told) += 1));
        let mut sealer = bench.sealer();
        run.store(&mut sealer, b"one").unwrap();
        run.settle().unwrap();
        bench.clock.advance(SYNC_EVERY - Duration::from_millis(1));
        run.store(&mut sealer, b"two").unwrap();
        run.settle().unwrap();
        assert_eq!((bench.visible("objects/"), *locked(&stored)), (0, 2));
        bench.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.visible("objects/"), 0, "nothing was stored since, and nothing is synced");
        run.store(&mut sealer, b"three").unwrap();
        run.settle().unwrap();
        assert_eq!(bench.visible("objects/"), 3);
        run.store(&mut sealer, b"four").unwrap();
        run.settle().unwrap();
        assert_eq!(bench.visible("objects/"), 3, "the next minute has begun");
    }

    #[test]
    fn a_barred_list_gets_another_name_and_a_refuted_one_is_put_right() {
        let bench = Bench::new();
        let segment = SegmentRef { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]), plain_bytes: 5 };
        let write = |barred: Barred| {
            let run = bench.run(Vec::new()).avoiding(Arc::new(barred));
            let mut lists = ListWriter::default();
            lists.push(&run, segment).unwrap();
            let (names, _) = lists.finish(&run).unwrap();
            bench.sync(&run);
            (names[0], run.repaired())
        };
        let (usual, _) = write(Barred::default());
        let damage = || {
            let key = Key::List(usual).to_string();
            bench.runtime.block_on(bench.memory.replace(&key, Bytes::from_static(b"damaged"))).unwrap();
        };
        let only = || HashSet::from([usual]);
        let look = |name| bench.runtime.block_on(lists::read_list(&bench.memory, name));
        damage();
        let (condemned, repaired) = write(Barred { condemned: only(), ..Barred::default() });
        assert!(condemned != usual && repaired.is_empty());
        assert_eq!(look(condemned).unwrap(), [ListedSegment::from(&segment)]);
        look(usual).unwrap_err();
        let (refuted, repaired) = write(Barred { refuted: only(), claimed: [condemned].into(), ..Barred::default() });
        assert_eq!((refuted, repaired), (condemned, vec![Key::List(usual).to_string()]));
        assert_eq!(look(usual).unwrap(), look(refuted).unwrap());
        damage();
        let (_, repaired) = write(Barred { condemned: only(), refuted: only(), claimed: [condemned].into() });
        assert!(repaired.is_empty(), "a sweep may be about to delete it");
    }

    #[test]
    fn a_list_that_lies_there_is_named_where_the_claim_covers_it_and_written_in_another_way_where_not() {
        let bench = Bench::new();
        let segment = SegmentRef { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]), plain_bytes: 5 };
        let write = |claimed: HashSet<ObjectId>| {
            let run = bench.run(Vec::new()).avoiding(Arc::new(Barred { claimed, ..Barred::default() }));
            let names = [(); 2].map(|()| {
                let mut lists = ListWriter::default();
                lists.push(&run, segment).unwrap();
                lists.finish(&run).unwrap().0[0]
            });
            bench.sync(&run);
            assert_eq!(names[0], names[1], "its own are no strays");
            names[0]
        };
        let stray = write(HashSet::new());
        assert_eq!(write(HashSet::from([stray])), stray);
        let another = write(HashSet::new());
        assert_ne!(another, stray);
        let look = |name| bench.runtime.block_on(lists::read_list(&bench.memory, name)).unwrap();
        assert_eq!(look(another), look(stray));
    }
}
