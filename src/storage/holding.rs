//! A layer through which everything that is stored is held against deletion until one moment. Whoever knows what a key
//! means makes one such layer for what is to be held, and stores the rest without it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Deleted, Listed, LockMode, Put, Storage, StorageError, Version};

/// A store whose puts hold.
#[derive(Debug)]
pub struct Holding {
    inner: Arc<dyn Storage>,
    until: DateTime<Utc>,
}

impl Holding {
    /// What is put through it is held until then, by a store that can.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, until: DateTime<Utc>) -> Self {
        Self { inner, until }
    }
}

#[async_trait]
impl Storage for Holding {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        self.inner.put_held(key, bytes, self.until).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.inner.replace(key, bytes).await?;
        self.inner.hold(key, self.until).await.map(drop)
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.inner.get(key, limit_bytes).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        self.inner.size(key).await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        self.inner.list(prefix, visit).await
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        self.inner.delete(key).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        self.inner.delete_many(keys).await
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
        self.inner.forget_cached(key).await
    }

    fn lock(&self) -> Option<LockMode> {
        self.inner.lock()
    }

    async fn put_held(&self, key: &str, bytes: Bytes, until: DateTime<Utc>) -> Result<Put, StorageError> {
        self.inner.put_held(key, bytes, until).await
    }

    async fn hold(&self, key: &str, until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        self.inner.hold(key, until).await
    }

    async fn held_until(&self, key: &str) -> Result<Option<DateTime<Utc>>, StorageError> {
        self.inner.held_until(key).await
    }

    async fn earlier(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        self.inner.earlier(key).await
    }

    async fn get_earlier(&self, key: &str, version: &Version, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.inner.get_earlier(key, version, limit_bytes).await
    }

    fn undoing(&self, key: &str) -> Option<String> {
        self.inner.undoing(key)
    }
}
