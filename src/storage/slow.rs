//! A layer that makes a store far away: it counts what is asked of it, as a store in a network would bill it, and knows how
//! many requests were under way at once. Tests assert on that, and never on a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{Deleted, Listed, Put, Storage, StorageError};

/// Keys that one request lists, as in S3.
const KEYS_PER_PAGE: u64 = 1000;
/// So long a request waits for company that does not come. A test that gets here fails by what it asserts.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store behind which another one lies.
#[derive(Debug)]
pub(crate) struct Slow {
    inner: Arc<dyn Storage>,
    parallel: usize,
    /// Requests wait until so many were under way at once.
    company: usize,
    /// Only these keys are read and written in company; `None` for all.
    awaited: Option<BTreeSet<String>>,
    under_way: AtomicUsize,
    most: watch::Sender<usize>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Slow {
    /// Counts only.
    pub(crate) fn counting(inner: Arc<dyn Storage>) -> Self {
        Self::with_company(inner, 1, 1)
    }

    /// Says that it takes `parallel` requests at once. The first `get`s and `put`s are answered when `company` of them are
    /// under way.
    pub(crate) fn with_company(inner: Arc<dyn Storage>, parallel: usize, company: usize) -> Self {
        let (under_way, counts) = (AtomicUsize::new(0), Mutex::default());
        Self { inner, parallel, company, awaited: None, under_way, most: watch::Sender::new(0), counts }
    }

    /// Only of these keys it is counted how many are under way.
    pub(crate) fn awaiting(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.awaited = Some(keys.into_iter().collect());
        self
    }

    /// The most `get`s and `put`s that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        *self.most.borrow()
    }

    /// Requests so far: `get`, `put`, `list` and so on, with the first part of the key:
    /// `get objects`. The time costs nothing.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        self.counted().clone()
    }

    /// The sum of [`Slow::requests`].
    pub(crate) fn total(&self) -> u64 {
        self.counted().values().sum()
    }

    fn count(&self, verb: &str, key: &str, requests: u64) {
        let room = key.split('/').next().unwrap_or_default();
        *self.counted().entry(format!("{verb} {room}")).or_default() += requests;
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn in_company<T>(&self, key: &str, request: impl Future<Output = T>) -> T {
        if self.awaited.as_ref().is_some_and(|keys| !keys.contains(key)) {
            return request.await;
        }
        let _under_way = UnderWay::begin(self);
        let waited = async { self.most.subscribe().wait_for(|most| *most >= self.company).await.map(|_| ()) };
        // What came of the waiting shows in the number.
        drop(tokio::time::timeout(PATIENCE, waited).await);
        request.await
    }
}

/// A request under way, cancelled or not.
struct UnderWay<'a>(&'a Slow);

impl<'a> UnderWay<'a> {
    fn begin(slow: &'a Slow) -> Self {
        let now = slow.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        slow.most.send_if_modified(|most| {
            let is_more = now > *most;
            *most = now.max(*most);
            is_more
        });
        Self(slow)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Storage for Slow {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn parallel(&self) -> usize {
        self.parallel
    }

    fn is_far(&self) -> bool {
        true
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        self.count("put", key, 1);
        self.in_company(key, self.inner.put(key, bytes)).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.count("replace", key, 1);
        self.inner.replace(key, bytes).await
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.count("get", key, 1);
        self.in_company(key, self.inner.get(key, limit_bytes)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        self.count("size", key, 1);
        self.inner.size(key).await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        let mut keys: u64 = 0;
        let counting = &mut |listed| {
            keys += 1;
            visit(listed);
        };
        let answer = self.inner.list(prefix, counting).await;
        self.count("list", prefix, keys.div_ceil(KEYS_PER_PAGE).max(1));
        answer
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        self.count("delete", key, 1);
        self.inner.delete(key).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.inner.sync().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        self.inner.now().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        self.inner.available_bytes().await
    }

    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        self.count("forget", key, 1);
        self.inner.forget_cached(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::super::memory::Memory;
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let store = Memory::new(Arc::new(SystemClock::default()));
        contract::run(&|| Arc::new(Slow::counting(Arc::new(store.another_handle())))).await;
    }

    #[tokio::test]
    async fn it_counts_requests_and_how_many_are_under_way() {
        let store: Arc<dyn Storage> = Arc::new(Memory::new(Arc::new(SystemClock::default())));
        let slow = Slow::with_company(store, 4, 3);
        tokio::join!(slow.get("a/1", 1), slow.get("a/2", 1), slow.get("b/1", 1)).0.unwrap_err();
        slow.get("a/1", 1).await.unwrap_err();
        slow.list("a/", &mut |_| {}).await.unwrap();
        assert_eq!(slow.most_at_once(), 3);
        assert_eq!(slow.total(), 5);
        assert_eq!(slow.requests()["get a"], 3);
    }
}
