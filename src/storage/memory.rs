//! A store in memory, for tests: as forgetful as a disk. What was put is visible after `sync` and not before, and
//! what a dropped handle had not synced is gone, so that a forgotten `sync` is found.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Deleted, Listed, Put, Storage, StorageError, check_key};
use crate::clock::Clock;

const PLACE: &str = "memory";

/// One handle of a store in memory.
pub struct Memory {
    shared: Arc<Shared>,
    staged: Mutex<BTreeMap<String, Bytes>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    capacity_bytes: Option<u64>,
    visible: Mutex<BTreeMap<String, (Bytes, DateTime<Utc>)>>,
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
        Self::make(clock, None)
    }

    /// An empty store that is full once it holds this much.
    #[must_use]
    pub fn with_capacity(clock: Arc<dyn Clock>, capacity_bytes: u64) -> Self {
        Self::make(clock, Some(capacity_bytes))
    }

    fn make(clock: Arc<dyn Clock>, capacity_bytes: Option<u64>) -> Self {
        let shared = Shared { clock, capacity_bytes, visible: Mutex::default() };
        Self { shared: Arc::new(shared), staged: Mutex::default() }
    }

    /// Another handle on the same store, as another process would have: it does not see what this one has not
    /// synced.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), staged: Mutex::default() }
    }

    fn check_room(&self, doing: &str, staged: &BTreeMap<String, Bytes>, more: usize) -> Result<(), StorageError> {
        let Some(capacity_bytes) = self.shared.capacity_bytes else { return Ok(()) };
        let waiting: usize = staged.values().map(Bytes::len).sum();
        if self.used_bytes() + (waiting + more) as u64 > capacity_bytes {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StorageError::Full { place: PLACE.into(), doing: doing.into(), source });
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        lock(&self.shared.visible).values().map(|(bytes, _)| bytes.len() as u64).sum()
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
        check_key(key)?;
        let mut staged = lock(&self.staged);
        if staged.contains_key(key) || lock(&self.shared.visible).contains_key(key) {
            return Ok(Put::Existed);
        }
        self.check_room(&format!("writing {key}"), &staged, bytes.len())?;
        staged.insert(key.to_owned(), bytes);
        Ok(Put::Created)
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        self.check_room(&format!("replacing {key}"), &lock(&self.staged), bytes.len())?;
        lock(&self.shared.visible).insert(key.to_owned(), (bytes, self.shared.clock.now()));
        Ok(())
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        let (place, key) = (PLACE.to_owned(), key.to_owned());
        match lock(&self.shared.visible).get(&key) {
            None => Err(StorageError::NotFound { place, key }),
            Some((bytes, _)) if bytes.len() as u64 > limit_bytes => {
                Err(StorageError::TooLarge { place, key, size_bytes: bytes.len() as u64, limit_bytes })
            }
            Some((bytes, _)) => Ok(bytes.clone()),
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        check_key(key)?;
        Ok(lock(&self.shared.visible).get(key).map(|(bytes, _)| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        if !prefix.is_empty() {
            check_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        // Copied, so that the visitor may use the store.
        let listed: Vec<Listed> = lock(&self.shared.visible)
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (bytes, modified))| Listed {
                key: key.clone(),
                size_bytes: bytes.len() as u64,
                modified: Some(*modified),
            })
            .collect();
        listed.into_iter().for_each(visit);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        check_key(key)?;
        let staged = lock(&self.staged).remove(key).is_some();
        let visible = lock(&self.shared.visible).remove(key).is_some();
        Ok(if staged || visible { Deleted::Removed } else { Deleted::Absent })
    }

    async fn sync(&self) -> Result<(), StorageError> {
        let staged = std::mem::take(&mut *lock(&self.staged));
        let now = self.shared.clock.now();
        let mut visible = lock(&self.shared.visible);
        for (key, bytes) in staged {
            match visible.get(&key) {
                Some((there, _)) if *there != bytes => {
                    return Err(StorageError::Conflict { place: PLACE.into(), key });
                }
                Some(_) => {}
                None => drop(visible.insert(key, (bytes, now))),
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn keeps_the_contract() {
        let store = Memory::new(Arc::new(SystemClock::default()));
        contract::run(&|| Arc::new(store.another_handle())).await;
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
