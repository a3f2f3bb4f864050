//! Reading ahead: requests under way while nobody needs their answers yet, so that a store that is far away keeps its
//! readers busy. Two things are bounded: how many requests are under way, and how many bytes are held.
//!
//! It does not know what is read, nor what will be: whoever reads follows a plan of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::{Storage, StorageError};

/// Bytes that were asked for or are held, and that nobody is done with yet.
pub const ROOM_BYTES: u32 = 64 * 1024 * 1024;

/// Begins requests. Those of its clones count against the same bounds.
#[derive(Debug, Clone)]
pub struct Ahead {
    runtime: Handle,
    storage: Arc<dyn Storage>,
    /// Requests that may be under way.
    slots: Arc<Semaphore>,
    /// Bytes that may be held.
    room: Arc<Semaphore>,
    room_bytes: u32,
}

impl Ahead {
    /// As many requests at once as the store takes, and [`ROOM_BYTES`].
    #[must_use]
    pub fn new(runtime: Handle, storage: Arc<dyn Storage>) -> Self {
        let slots = Arc::new(Semaphore::new(storage.parallel().max(1)));
        let room = Arc::new(Semaphore::new(ROOM_BYTES as usize));
        Self { runtime, storage, slots, room, room_bytes: ROOM_BYTES }
    }

    /// One with room of its own. The requests count against the same bound, because each of them ends by itself; room does
    /// not come back before somebody is done with what was read, and two who wait for each other must not share it.
    #[must_use]
    pub fn with_room(&self, room_bytes: u32) -> Self {
        let room_bytes = room_bytes.max(1);
        Self { room: Arc::new(Semaphore::new(room_bytes as usize)), room_bytes, ..self.clone() }
    }

    /// How many requests are worth beginning before the first answer is needed.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.storage.parallel().max(1)
    }

    /// The runtime that requests run on.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The store.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Begins to read what lies under `key`, once there is room for `expected_bytes`. More than that is read all the same,
    /// up to `limit_bytes`, by whoever waits for it. To be called by nobody who holds something that it began.
    #[must_use]
    pub fn begin(&self, key: String, expected_bytes: u64, limit_bytes: u64) -> Fetching {
        let room = self.runtime.block_on(Arc::clone(&self.room).acquire_many_owned(self.share(expected_bytes)));
        self.spawn(key, expected_bytes, limit_bytes, room.ok())
    }

    /// The same where there is room at once.
    #[must_use]
    pub fn try_begin(&self, key: String, expected_bytes: u64, limit_bytes: u64) -> Option<Fetching> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.share(expected_bytes)).ok()?;
        Some(self.spawn(key, expected_bytes, limit_bytes, Some(room)))
    }

    /// Reads all these, keys with their sizes and no more than these, in their order, and calls `visit` for each.
    ///
    /// # Errors
    /// The first of `visit`.
    pub fn each<E>(
        &self,
        wanted: impl IntoIterator<Item = (String, u64)>,
        mut visit: impl FnMut(Result<Fetched, StorageError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted = wanted.into_iter().peekable();
        let mut begun = VecDeque::new();
        loop {
            while begun.len() < self.depth()
                && let Some((key, size_bytes)) = wanted.peek()
                && let Some(fetching) = match begun.is_empty() {
                    true => Some(self.begin(key.clone(), *size_bytes, *size_bytes)),
                    false => self.try_begin(key.clone(), *size_bytes, *size_bytes),
                }
            {
                begun.push_back(fetching);
                wanted.next();
            }
            let Some(next) = begun.pop_front() else { return Ok(()) };
            visit(next.wait())?;
        }
    }

    /// What is larger than all the room is read alone.
    fn share(&self, expected_bytes: u64) -> u32 {
        u32::try_from(expected_bytes).unwrap_or(u32::MAX).clamp(1, self.room_bytes)
    }

    fn spawn(
        &self,
        key: String,
        expected_bytes: u64,
        limit_bytes: u64,
        room: Option<OwnedSemaphorePermit>,
    ) -> Fetching {
        let (slots, storage) = (Arc::clone(&self.slots), Arc::clone(&self.storage));
        let (asked_for, limit) = (key.clone(), expected_bytes.min(limit_bytes));
        let task = self.runtime.spawn(async move {
            // Nobody closes them.
            let _slot = slots.acquire().await;
            storage.get(&asked_for, limit).await
        });
        Fetching { ahead: self.clone(), task, key, is_cautious: limit < limit_bytes, limit_bytes, room }
    }
}

/// A request that was begun. Dropped, it is cancelled.
#[derive(Debug)]
pub struct Fetching {
    ahead: Ahead,
    task: JoinHandle<Result<Bytes, StorageError>>,
    key: String,
    /// Whether more would be taken than was asked for.
    is_cautious: bool,
    limit_bytes: u64,
    room: Option<OwnedSemaphorePermit>,
}

/// What was read. The room that it takes comes back when this is dropped.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Fetching {
    /// Waits for the answer; blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn wait(mut self) -> Result<Fetched, StorageError> {
        let answer = self.ahead.runtime.block_on(&mut self.task).unwrap_or_else(|ended| {
            // As if it had been asked from here.
            if ended.is_panic() {
                std::panic::resume_unwind(ended.into_panic());
            }
            let (place, doing) = (self.ahead.storage.describe(), format!("reading {}", self.key));
            Err(StorageError::OutcomeUnknown { place, doing })
        });
        let bytes = match answer {
            // It is larger than whoever named it said. What that means is for the reader to say.
            Err(StorageError::TooLarge { .. }) if self.is_cautious => {
                self.ahead.runtime.block_on(self.ahead.storage.get(&self.key, self.limit_bytes))?
            }
            answer => answer?,
        };
        Ok(Fetched { bytes, _room: self.room.take() })
    }

    /// The same, for whoever can do something about an error: the bytes, and what keeps their room until it is dropped.
    pub fn wait_with_room(self) -> (Result<Bytes, StorageError>, Option<Fetched>) {
        match self.wait() {
            Ok(fetched) => (Ok(fetched.bytes.clone()), Some(fetched)),
            Err(error) => (Err(error), None),
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::slow::Slow;
    use super::*;
    use crate::clock::SystemClock;

    struct World {
        runtime: tokio::runtime::Runtime,
        store: Arc<Slow>,
    }

    impl World {
        /// Ten keys of ten bytes, behind a store that answers nobody before so many ask.
        fn new(parallel: usize, company: usize) -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let memory = Memory::new(Arc::new(SystemClock::default()));
            for number in 0..10u8 {
                runtime.block_on(memory.replace(&format!("a/{number}"), vec![number; 10].into())).unwrap();
            }
            Self { runtime, store: Arc::new(Slow::with_company(Arc::new(memory), parallel, company)) }
        }

        fn ahead(&self) -> Ahead {
            Ahead::new(self.runtime.handle().clone(), Arc::<Slow>::clone(&self.store))
        }
    }

    fn key(number: u8) -> String {
        format!("a/{number}")
    }

    #[test]
    fn as_many_as_the_store_takes_are_under_way_and_no_more() {
        let world = World::new(4, 4);
        let ahead = world.ahead();
        let begun: Vec<Fetching> = (0..10).map(|number| ahead.begin(key(number), 10, 10)).collect();
        for (number, fetching) in (0..10).zip(begun) {
            assert_eq!(fetching.wait().unwrap().bytes, vec![number; 10]);
        }
        assert_eq!(world.store.most_at_once(), 4);
        assert_eq!(world.store.total(), 10);
    }

    #[test]
    fn no_more_bytes_are_held_than_there_is_room_for() {
        let world = World::new(16, 1);
        let ahead = world.ahead().with_room(25);
        let begun: Vec<Option<Fetching>> = (0..3).map(|number| ahead.try_begin(key(number), 10, 10)).collect();
        assert_eq!(begun.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        let mut read = begun.into_iter().flatten().map(|fetching| fetching.wait().unwrap());
        let (first, second) = (read.next().unwrap(), read.next().unwrap());
        assert!(ahead.try_begin(key(3), 10, 10).is_none(), "it is read, and nobody is done with it");
        drop((first, second));
        // What is larger than the room is read alone, and what is given up makes room.
        let whole = ahead.begin(key(4), 1000, 1000);
        assert!(ahead.try_begin(key(5), 1, 10).is_none());
        drop(whole);
        assert_eq!(ahead.begin(key(5), 10, 10).wait().unwrap().bytes.len(), 10);
    }

    #[test]
    fn what_is_larger_than_was_said_is_read_up_to_the_limit() {
        let world = World::new(4, 1);
        let ahead = world.ahead();
        assert_eq!(ahead.begin(key(1), 3, 10).wait().unwrap().bytes.len(), 10);
        for expected in [3, 9, 20] {
            let error = ahead.begin(key(1), expected, 9).wait().unwrap_err();
            assert!(matches!(error, StorageError::TooLarge { limit_bytes: 9, .. }), "{error}");
        }
        assert!(ahead.begin("a/none".into(), 3, 10).wait().unwrap_err().is_not_found());
    }
}
