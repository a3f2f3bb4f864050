//! A store in memory, for tests: as forgetful as a disk. What was put is visible after `sync` and not before, and
//! what a dropped handle had not synced is gone, so that a forgotten `sync` is found. One that holds keeps every version,
//! and has a way for whoever plays the thief to overwrite and to hide.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Deleted, Listed, LockMode, Put, Storage, StorageError, Version, check_key, keep_ends};
use crate::clock::Clock;

const PLACE: &str = "memory";

/// One handle of a store in memory.
pub struct Memory {
    shared: Arc<Shared>,
    staged: Mutex<BTreeMap<String, Staged>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    capacity_bytes: Option<u64>,
    lock: Option<LockMode>,
    visible: Mutex<BTreeMap<String, Stack>>,
    /// How many versions there ever were, which gives each its name.
    versions: AtomicU64,
    /// How often something was held that lay there.
    holds: AtomicU64,
}

struct Staged {
    bytes: Bytes,
    until: Option<DateTime<Utc>>,
}

/// What lies under a key, the newest last; never empty.
#[derive(Default)]
struct Stack {
    versions: Vec<Lying>,
    /// Whether a deletion hides them all.
    hidden: bool,
}

struct Lying {
    id: u64,
    bytes: Bytes,
    modified: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
}

impl Stack {
    fn top(&self) -> Option<&Lying> {
        self.versions.last().filter(|_| !self.hidden)
    }

    /// Those that are not to be seen, the newest first.
    fn earlier(&self) -> impl Iterator<Item = &Lying> {
        self.versions.iter().rev().skip(usize::from(!self.hidden))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("keys", &lock(&self.shared.visible).len()).finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty store that takes whatever it is given.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::make(clock, None, None)
    }

    /// An empty store that is full once it holds this much.
    #[must_use]
    pub fn with_capacity(clock: Arc<dyn Clock>, capacity_bytes: u64) -> Self {
        Self::make(clock, Some(capacity_bytes), None)
    }

    /// An empty store that keeps versions and holds them against deletion.
    #[must_use]
    pub fn with_lock(clock: Arc<dyn Clock>, mode: LockMode) -> Self {
        Self::make(clock, None, Some(mode))
    }

    fn make(clock: Arc<dyn Clock>, capacity_bytes: Option<u64>, lock: Option<LockMode>) -> Self {
        let (visible, versions, holds) = Default::default();
        let shared = Shared { clock, capacity_bytes, lock, visible, versions, holds };
        Self { shared: Arc::new(shared), staged: Mutex::default() }
    }

    /// Another handle on the same store, as another process would have: it does not see what this one has not
    /// synced.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), staged: Mutex::default() }
    }

    /// Hides `key` behind a deletion, as who may delete can and versions outlive.
    pub fn hide(&self, key: &str) {
        if let Some(stack) = lock(&self.shared.visible).get_mut(key) {
            stack.hidden = true;
        }
    }

    /// How often [`Storage::hold`] was asked for, over all handles.
    #[must_use]
    pub fn holds(&self) -> u64 {
        self.shared.holds.load(Ordering::SeqCst)
    }

    /// Each key that is there, and until when its newest version is held.
    #[must_use]
    pub fn all_held(&self) -> BTreeMap<String, Option<DateTime<Utc>>> {
        let visible = lock(&self.shared.visible);
        visible.iter().filter_map(|(key, stack)| Some((key.clone(), stack.top()?.until))).collect()
    }

    fn check_room(&self, doing: &str, staged: &BTreeMap<String, Staged>, more: usize) -> Result<(), StorageError> {
        let Some(capacity_bytes) = self.shared.capacity_bytes else { return Ok(()) };
        let waiting: usize = staged.values().map(|staged| staged.bytes.len()).sum();
        if self.used_bytes() + (waiting + more) as u64 > capacity_bytes {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StorageError::Full { place: PLACE.into(), doing: doing.into(), source });
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let visible = lock(&self.shared.visible);
        visible.values().flat_map(|stack| &stack.versions).map(|lying| lying.bytes.len() as u64).sum()
    }

    fn stage(&self, key: &str, bytes: Bytes, until: Option<DateTime<Utc>>) -> Result<Put, StorageError> {
        check_key(key)?;
        let mut staged = lock(&self.staged);
        let is_taken = |key: &str| lock(&self.shared.visible).get(key).is_some_and(|stack| stack.top().is_some());
        if staged.contains_key(key) || is_taken(key) {
            return Ok(Put::Existed);
        }
        self.check_room(&format!("writing {key}"), &staged, bytes.len())?;
        staged.insert(key.to_owned(), Staged { bytes, until });
        Ok(Put::Created)
    }

    /// Lays a version on top, or in the place of what is there where no versions are kept.
    fn lay(&self, stack: &mut Stack, bytes: Bytes, until: Option<DateTime<Utc>>) {
        if self.shared.lock.is_none() {
            stack.versions.clear();
        }
        let (id, modified) = (self.shared.versions.fetch_add(1, Ordering::SeqCst), self.shared.clock.now());
        stack.versions.push(Lying { id, bytes, modified, until });
        stack.hidden = false;
    }

    fn no_lock(doing: &str) -> StorageError {
        StorageError::NoLock { place: PLACE.into(), doing: doing.into() }
    }
}

fn read(key: &str, found: Option<&Lying>, limit_bytes: u64) -> Result<Bytes, StorageError> {
    let (place, key) = (PLACE.to_owned(), key.to_owned());
    match found {
        None => Err(StorageError::NotFound { place, key }),
        Some(Lying { bytes, .. }) if bytes.len() as u64 > limit_bytes => {
            Err(StorageError::TooLarge { place, key, size_bytes: bytes.len() as u64, limit_bytes })
        }
        Some(Lying { bytes, .. }) => Ok(bytes.clone()),
    }
}

#[async_trait]
impl Storage for Memory {
    fn describe(&self) -> String {
        PLACE.into()
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        self.stage(key, bytes, None)
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        self.check_room(&format!("replacing {key}"), &lock(&self.staged), bytes.len())?;
        self.lay(lock(&self.shared.visible).entry(key.to_owned()).or_default(), bytes, None);
        Ok(())
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        read(key, lock(&self.shared.visible).get(key).and_then(Stack::top), limit_bytes)
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        check_key(key)?;
        Ok(lock(&self.shared.visible).get(key).and_then(Stack::top).map(|lying| lying.bytes.len() as u64))
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        if !prefix.is_empty() {
            check_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        // Copied, so that the visitor may use the store.
        let listed: Vec<Listed> = lock(&self.shared.visible)
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, stack)| Some((key, stack.top()?)))
            .map(|(key, lying)| Listed {
                key: key.clone(),
                size_bytes: lying.bytes.len() as u64,
                modified: Some(lying.modified),
            })
            .collect();
        listed.into_iter().for_each(visit);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        check_key(key)?;
        let staged = lock(&self.staged).remove(key).is_some();
        let mut visible = lock(&self.shared.visible);
        let Some(mut stack) = visible.remove(key) else {
            return Ok(if staged { Deleted::Removed } else { Deleted::Absent });
        };
        let now = self.shared.clock.now();
        stack.versions.retain(|lying| lying.until.is_some_and(|until| until > now));
        match stack.versions.iter().filter_map(|lying| lying.until).max() {
            None => Ok(Deleted::Removed),
            Some(until) => {
                stack.hidden = false;
                visible.insert(key.to_owned(), stack);
                Ok(Deleted::Held { until: Some(until) })
            }
        }
    }

    async fn sync(&self) -> Result<(), StorageError> {
        let staged = std::mem::take(&mut *lock(&self.staged));
        let mut visible = lock(&self.shared.visible);
        for (key, Staged { bytes, until }) in staged {
            match visible.get(&key).and_then(Stack::top) {
                Some(there) if there.bytes != bytes => {
                    return Err(StorageError::Conflict { place: PLACE.into(), key });
                }
                Some(_) => {}
                None => self.lay(visible.entry(key).or_default(), bytes, until),
            }
        }
        Ok(())
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        Ok(self.shared.clock.now())
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        Ok(self.shared.capacity_bytes.map(|capacity_bytes| capacity_bytes.saturating_sub(self.used_bytes())))
    }

    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        check_key(key)?;
        match self.size(key).await? {
            Some(_) => Ok(false),
            None => Err(StorageError::NotFound { place: PLACE.into(), key: key.into() }),
        }
    }

    fn lock(&self) -> Option<LockMode> {
        self.shared.lock
    }

    async fn put_held(&self, key: &str, bytes: Bytes, until: DateTime<Utc>) -> Result<Put, StorageError> {
        if self.shared.lock.is_none() {
            return Err(Self::no_lock(&format!("storing {key}")));
        }
        self.stage(key, bytes, Some(until))
    }

    async fn hold(&self, key: &str, until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        check_key(key)?;
        if self.shared.lock.is_none() {
            return Err(Self::no_lock(&format!("holding {key}")));
        }
        self.shared.holds.fetch_add(1, Ordering::SeqCst);
        let mut visible = lock(&self.shared.visible);
        match visible.get_mut(key).filter(|stack| !stack.hidden).and_then(|stack| stack.versions.last_mut()) {
            None => Err(StorageError::NotFound { place: PLACE.into(), key: key.into() }),
            Some(lying) => {
                let until = lying.until.map_or(until, |held| held.max(until));
                lying.until = Some(until);
                Ok(until)
            }
        }
    }

    async fn held_until(&self, key: &str) -> Result<Option<DateTime<Utc>>, StorageError> {
        check_key(key)?;
        Ok(lock(&self.shared.visible).get(key).and_then(Stack::top).and_then(|lying| lying.until))
    }

    async fn earlier(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        check_key(key)?;
        let visible = lock(&self.shared.visible);
        let mut versions: Vec<Version> = visible
            .get(key)
            .into_iter()
            .flat_map(Stack::earlier)
            .map(|lying| Version {
                id: lying.id.to_string(),
                size_bytes: lying.bytes.len() as u64,
                written: Some(lying.modified),
            })
            .collect();
        keep_ends(&mut versions);
        Ok(versions)
    }

    async fn get_earlier(&self, key: &str, version: &Version, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        let visible = lock(&self.shared.visible);
        let found =
            visible.get(key).and_then(|stack| stack.versions.iter().find(|lying| lying.id.to_string() == version.id));
        read(key, found, limit_bytes)
    }

    fn undoing(&self, key: &str) -> Option<String> {
        self.shared.lock.map(|_| format!("take the newest version of {key} out of the memory"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    #[tokio::test]
    async fn keeps_the_contract() {
        let store = Memory::new(Arc::new(SystemClock::default()));
        contract::run(&|| Arc::new(store.another_handle())).await;
    }

    #[tokio::test]
    async fn keeps_the_contract_where_it_holds() {
        for mode in [LockMode::Governance, LockMode::Compliance] {
            let store = Memory::with_lock(Arc::new(SystemClock::default()), mode);
            contract::run(&|| Arc::new(store.another_handle())).await;
        }
    }

    #[tokio::test]
    async fn what_is_held_goes_when_its_time_is_over() {
        let clock = Arc::new(ManualClock::at("2026-11-22T02:00:00Z".parse().unwrap()));
        let store = Memory::with_lock(Arc::<ManualClock>::clone(&clock), LockMode::Governance);
        let until = clock.now() + chrono::TimeDelta::hours(1);
        store.put_held("a", Bytes::from_static(b"a"), until).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(store.delete("a").await.unwrap(), Deleted::Held { until: Some(until) });
        clock.advance(std::time::Duration::from_secs(3600));
        assert_eq!(store.delete("a").await.unwrap(), Deleted::Removed);
    }

    #[tokio::test]
    async fn is_full_when_it_is_full() {
        let store = Memory::with_capacity(Arc::new(SystemClock::default()), 10);
        store.put("a", Bytes::from_static(b"123456")).await.unwrap();
        let error = store.put("b", Bytes::from_static(b"12345")).await.unwrap_err();
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
        store.put("b", Bytes::from_static(b"1234")).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(store.available_bytes().await.unwrap(), Some(0));
    }
}
