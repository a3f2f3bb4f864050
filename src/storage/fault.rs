//! A layer that counts the calls to a store and makes one of them go wrong, by plan.
//!
//! A remote call has four outcomes: done or not, told or not. A [`Plan`] names the call by its number, says whether
//! the fault comes before the call took effect or after it, and what it is. Tests try every number in turn. There is
//! no way to reach this from outside the process: no flag, no environment variable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Deleted, Listed, LockMode, Put, Storage, StorageError, Version};

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The number of the call, from 1.
    pub at_call: u64,
    /// Whether the store has done what it was asked by then.
    pub moment: Moment,
    /// What happens.
    pub effect: Effect,
    /// Whether the calls after it fare alike.
    pub lasting: Lasting,
}

/// When a fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The store is not asked.
    Before,
    /// The store has done it.
    After,
}

/// What a fault does.
#[derive(Debug, Clone, Copy)]
pub enum Effect {
    /// The caller gets this error: [`StorageError::Full`] for `StorageFull`, else [`StorageError::Failed`].
    Fail(io::ErrorKind),
    /// The caller gets [`StorageError::OutcomeUnknown`].
    LoseAnswer,
    /// The function is called, and then the call goes on as if nothing had happened. A test of crashes has its own
    /// process killed here.
    Call(fn()),
}

/// How long a fault stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// One call.
    Once,
    /// That call and every later one.
    FromThenOn,
}

/// A store behind which another one lies.
#[derive(Debug)]
pub struct Fault {
    inner: Arc<dyn Storage>,
    plan: Option<Plan>,
    calls: AtomicU64,
}

impl Fault {
    /// Counts only.
    #[must_use]
    pub fn counting(inner: Arc<dyn Storage>) -> Self {
        Self { inner, plan: None, calls: AtomicU64::new(0) }
    }

    /// Counts, and follows the plan.
    #[must_use]
    pub fn planned(inner: Arc<dyn Storage>, plan: Plan) -> Self {
        Self { inner, plan: Some(plan), calls: AtomicU64::new(0) }
    }

    /// How many calls were made so far: all of the trait's but those that ask nobody.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn through<T>(
        &self,
        doing: String,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let hit = self.plan.filter(|plan| match plan.lasting {
            Lasting::Once => plan.at_call == number,
            Lasting::FromThenOn => plan.at_call <= number,
        });
        let Some(plan) = hit else { return call.await };
        match plan.moment {
            Moment::Before => {
                self.strike(plan.effect, doing)?;
                call.await
            }
            Moment::After => {
                let answer = call.await;
                self.strike(plan.effect, doing)?;
                answer
            }
        }
    }

    fn strike(&self, effect: Effect, doing: String) -> Result<(), StorageError> {
        let place = self.describe();
        match effect {
            Effect::Fail(io::ErrorKind::StorageFull) => {
                Err(StorageError::Full { place, doing, source: io::ErrorKind::StorageFull.into() })
            }
            Effect::Fail(kind) => Err(StorageError::Failed { place, doing, source: kind.into() }),
            Effect::LoseAnswer => Err(StorageError::OutcomeUnknown { place, doing }),
            Effect::Call(function) => {
                function();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Storage for Fault {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn parallel(&self) -> usize {
        self.inner.parallel()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        self.through(format!("writing {key}"), self.inner.put(key, bytes)).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.through(format!("replacing {key}"), self.inner.replace(key, bytes)).await
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.through(format!("reading {key}"), self.inner.get(key, limit_bytes)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        self.through(format!("looking at {key}"), self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        self.through(format!("listing {prefix}"), self.inner.list(prefix, visit)).await
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        self.through(format!("deleting {key}"), self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        self.through(format!("deleting {} keys", keys.len()), self.inner.delete_many(keys)).await
    }

    async fn clear_unfinished(&self, before: DateTime<Utc>) -> Result<u64, StorageError> {
        self.through("clearing what is unfinished".into(), self.inner.clear_unfinished(before)).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.through("syncing".into(), self.inner.sync()).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        self.through("asking for the time".into(), self.inner.now()).await
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        self.through("asking for the room left".into(), self.inner.available_bytes()).await
    }

    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        self.through(format!("dropping {key} from the cache"), self.inner.forget_cached(key)).await
    }

    fn lock(&self) -> Option<LockMode> {
        self.inner.lock()
    }

    async fn put_held(&self, key: &str, bytes: Bytes, until: DateTime<Utc>) -> Result<Put, StorageError> {
        self.through(format!("writing {key}"), self.inner.put_held(key, bytes, until)).await
    }

    async fn hold(&self, key: &str, until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        self.through(format!("holding {key}"), self.inner.hold(key, until)).await
    }

    async fn held_until(&self, key: &str) -> Result<Option<DateTime<Utc>>, StorageError> {
        self.through(format!("asking until when {key} is held"), self.inner.held_until(key)).await
    }

    async fn earlier(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        self.through(format!("listing versions of {key}"), self.inner.earlier(key)).await
    }

    async fn get_earlier(&self, key: &str, version: &Version, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.through(format!("reading a version of {key}"), self.inner.get_earlier(key, version, limit_bytes)).await
    }

    fn undoing(&self, key: &str) -> Option<String> {
        self.inner.undoing(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::super::memory::Memory;
    use super::*;
    use crate::clock::SystemClock;

    fn memory() -> Memory {
        Memory::new(Arc::new(SystemClock::default()))
    }

    #[tokio::test]
    async fn without_a_plan_it_keeps_the_contract() {
        let store = memory();
        contract::run(&|| Arc::new(Fault::counting(Arc::new(store.another_handle())))).await;
    }

    #[tokio::test]
    async fn the_four_outcomes() {
        for (moment, effect, done) in [
            (Moment::Before, Effect::Fail(io::ErrorKind::Other), false),
            (Moment::After, Effect::Fail(io::ErrorKind::Other), true),
            (Moment::Before, Effect::LoseAnswer, false),
            (Moment::After, Effect::LoseAnswer, true),
        ] {
            let store = memory();
            let plan = Plan { at_call: 2, moment, effect, lasting: Lasting::Once };
            let faulty = Fault::planned(Arc::new(store.another_handle()), plan);
            assert_eq!(faulty.put("a", Bytes::from_static(b"1")).await.unwrap(), Put::Created);
            faulty.sync().await.unwrap_err();
            assert_eq!(store.size("a").await.unwrap().is_some(), done, "{plan:?}");
            assert_eq!(faulty.calls(), 2);
            faulty.sync().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_full_disk_stays_full() {
        let effect = Effect::Fail(io::ErrorKind::StorageFull);
        let plan = Plan { at_call: 1, moment: Moment::Before, effect, lasting: Lasting::FromThenOn };
        let faulty = Fault::planned(Arc::new(memory()), plan);
        for _ in 0..2 {
            let error = faulty.put("a", Bytes::new()).await.unwrap_err();
            assert!(matches!(error, StorageError::Full { .. }), "{error}");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "killed here")]
    async fn a_function_is_called_at_the_planned_call() {
        let effect = Effect::Call(|| panic!("killed here"));
        let plan = Plan { at_call: 1, moment: Moment::Before, effect, lasting: Lasting::Once };
        let _ = Fault::planned(Arc::new(memory()), plan).now().await;
    }
}
