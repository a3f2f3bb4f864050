//! A vault in a bucket: AWS's S3, or a store that speaks its language.
//!
//! A key lies under `prefix/key`. What was put is durable and visible when `put` returns, so `sync` has nothing to do.
//! Retries are ours ([`retry`]), the SDK's are off: only here is it known which call may be made twice, and what a lost
//! answer means. Nothing outside this folder knows that there are buckets.
//!
//! No multipart uploads (docs/decisions/0013): what a vault stores at once is far smaller than what one PUT takes.

mod bandwidth;
mod client;
mod listing;
mod lock;
mod removal;
mod retry;
mod time;
mod trouble;
mod unfinished;
mod writing;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use tokio::sync::{OnceCell, Semaphore};

use super::{Deleted, Listed, LockMode, Put, RemoteFault, Storage, StorageError, Version, check_key};
use crate::clock::Clock;

use bandwidth::Bandwidth;
pub use client::{Keys, Options};
use removal::Versions;
use retry::{Outcome, Retries, Sleep};
use time::StoreTime;
use trouble::{Kind, Trouble};
use writing::Creation;

/// How long an answer may take, besides what its bytes need.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Bytes that no line is too slow for, in a second; with 16 requests at a time, 4 Mbit/s for all of them.
const SLOWEST_BYTES_A_SECOND: u64 = 32 * 1024;

/// A prefix of a bucket.
pub struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    place: String,
    time: Arc<StoreTime>,
    parallel: usize,
    requests: Semaphore,
    retries: Retries,
    bandwidth: Bandwidth,
    /// How slow a request may be, before it is given up.
    slowest_bytes_a_second: u64,
    creation: Creation,
    versions: OnceCell<Versions>,
    lock_mode: Option<LockMode>,
    has_lock: OnceCell<bool>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("place", &self.place).finish_non_exhaustive()
    }
}

impl S3 {
    /// Makes a client for a bucket; whether it is there is not looked at.
    ///
    /// # Errors
    /// Where `ca` is no file of certificates.
    pub async fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        let time = Arc::new(StoreTime::new(Arc::clone(&clock)));
        let connected = client::connect(&options, &time).await?;
        let sleep: Arc<Sleep> = Arc::new(|pause| Box::pin(tokio::time::sleep(pause)));
        let parallel = options.parallel_requests.max(1);
        // Half of each request's share of the limit.
        let share = options.bandwidth_limit_bytes.map_or(u64::MAX, |limit| limit / parallel as u64 / 2);
        Ok(Self {
            client: connected.client,
            prefix: if options.prefix.is_empty() { String::new() } else { format!("{}/", options.prefix) },
            bucket: options.bucket,
            place: connected.place,
            time,
            parallel: options.parallel_requests.max(1),
            requests: Semaphore::new(options.parallel_requests.max(1)),
            bandwidth: Bandwidth::new(options.bandwidth_limit_bytes, Arc::clone(&clock), Arc::clone(&sleep)),
            slowest_bytes_a_second: SLOWEST_BYTES_A_SECOND.min(share).max(1),
            retries: Retries::new(clock, sleep),
            creation: Creation::default(),
            versions: OnceCell::new(),
            lock_mode: options.lock,
            has_lock: OnceCell::new(),
        })
    }

    /// The bucket's own name for a key.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Makes a request until it succeeds, fails for good, or too often. `bytes` is how much goes up or comes down, at most.
    async fn call<T, E, Fut>(&self, bytes: u64, mut send: impl FnMut() -> Fut + Send) -> Outcome<T>
    where
        Fut: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + std::error::Error + Send + 'static,
        T: Send,
    {
        self.tries(bytes, move || {
            let sent = send();
            async move { sent.await.map_err(|error| Trouble::of(&error)) }
        })
        .await
    }

    /// The same for what is more than one request.
    async fn tries<T, Fut>(&self, bytes: u64, mut attempt: impl FnMut() -> Fut + Send) -> Outcome<T>
    where
        Fut: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        let within = ANSWER_WITHIN + Duration::from_secs(bytes / self.slowest_bytes_a_second);
        self.retries
            .run(|| {
                let attempt = attempt();
                async move {
                    // Held by a try and not in the pauses between. The semaphore is never closed.
                    let _permit = self.requests.acquire().await;
                    tokio::time::timeout(within, attempt).await.unwrap_or_else(|_| Err(Trouble::late()))
                }
            })
            .await
    }

    /// What is told of trouble.
    fn error(&self, key: &str, doing: &str, trouble: Trouble) -> StorageError {
        let place = self.place.clone();
        let doing = if key.is_empty() { doing.to_owned() } else { format!("{doing} {key}") };
        match trouble.kind {
            Kind::NotFound => StorageError::NotFound { place, key: key.to_owned() },
            kind => StorageError::Remote { place, doing, fault: kind.fault(), said: trouble.said },
        }
    }

    /// The stored size, or nothing.
    async fn head(&self, key: &str) -> Result<Option<u64>, StorageError> {
        let full = self.full(key);
        let send = || self.client.head_object().bucket(&self.bucket).key(&full).send();
        match self.call(0, send).await.result {
            Ok(head) => Ok(Some(u64::try_from(head.content_length.unwrap_or(0)).unwrap_or(0))),
            // A HEAD's 404 does not say whether key or bucket is missing; whoever reads or writes next hears it.
            Err(trouble) if trouble.kind == Kind::NotFound => Ok(None),
            Err(trouble) => Err(self.error(key, "looking at", trouble)),
        }
    }

    async fn fetch(&self, key: &str, version: Option<&str>, limit_bytes: u64) -> Result<Fetched, Trouble> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        let answer = request.set_version_id(version.map(str::to_owned)).send().await;
        let answer = answer.map_err(|error| Trouble::of(&error))?;
        let declared = answer.content_length.and_then(|length| u64::try_from(length).ok());
        if let Some(size_bytes) = declared.filter(|size| *size > limit_bytes) {
            return Ok(Fetched::TooLarge { size_bytes });
        }
        let room = declared.unwrap_or(0).min(limit_bytes);
        let mut bytes = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
        let mut body = answer.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| Trouble::new(Kind::Lost, &error.to_string()))?;
            self.bandwidth.book(chunk.len() as u64).await;
            let size_bytes = (bytes.len() + chunk.len()) as u64;
            if size_bytes > limit_bytes {
                return Ok(Fetched::TooLarge { size_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        match declared {
            Some(declared) if declared != bytes.len() as u64 => {
                Err(Trouble::new(Kind::Lost, &format!("{} bytes came of {declared}", bytes.len())))
            }
            _ => Ok(Fetched::Whole(bytes.freeze())),
        }
    }

    async fn read(&self, key: &str, version: Option<&str>, limit_bytes: u64) -> Result<Bytes, StorageError> {
        match self.tries(limit_bytes, || self.fetch(key, version, limit_bytes)).await.result {
            Ok(Fetched::Whole(bytes)) => Ok(bytes),
            Ok(Fetched::TooLarge { size_bytes }) => {
                Err(StorageError::TooLarge { place: self.place.clone(), key: key.to_owned(), size_bytes, limit_bytes })
            }
            Err(trouble) => Err(self.error(key, "reading", trouble)),
        }
    }

    /// Asks something that costs little, for the date of the answer.
    async fn ask_the_time(&self) -> Result<(), StorageError> {
        let send = || self.client.head_bucket().bucket(&self.bucket).send();
        let outcome = self.call(0, send).await;
        match outcome.result {
            Ok(_) => Ok(()),
            Err(Trouble { kind: Kind::NotFound, said }) => Err(StorageError::Remote {
                place: self.place.clone(),
                doing: "asking for the time".into(),
                fault: RemoteFault::NoBucket,
                said,
            }),
            // Who may not look at the bucket is told the time all the same.
            Err(Trouble { kind: Kind::Fault(RemoteFault::Denied), .. }) => Ok(()),
            Err(trouble) => Err(self.error("", "asking for the time", trouble)),
        }
    }
}

enum Fetched {
    Whole(Bytes),
    TooLarge { size_bytes: u64 },
}

#[async_trait]
impl Storage for S3 {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn kind(&self) -> &'static str {
        "s3"
    }

    fn parallel(&self) -> usize {
        self.parallel
    }

    fn is_far(&self) -> bool {
        true
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        check_key(key)?;
        self.create(key, bytes, None).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        self.overwrite(key, &bytes).await
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        self.read(key, None, limit_bytes).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        check_key(key)?;
        self.head(key).await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        if !prefix.is_empty() {
            check_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        self.pages(prefix, visit).await
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        check_key(key)?;
        self.remove(key).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        for key in keys {
            check_key(key)?;
        }
        self.remove_many(keys).await
    }

    async fn clear_unfinished(&self, before: DateTime<Utc>) -> Result<u64, StorageError> {
        self.abort_uploads(before).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        if let Some(now) = self.time.now() {
            return Ok(now);
        }
        self.ask_the_time().await?;
        self.time.now().ok_or_else(|| {
            self.error(
                "",
                "asking for the time",
                Trouble::new(Kind::Fault(RemoteFault::Refused), "an answer without a date"),
            )
        })
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        Ok(None)
    }

    /// Nothing of a bucket is in this machine's page cache; nothing is asked.
    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        check_key(key)?;
        Ok(false)
    }

    fn lock(&self) -> Option<LockMode> {
        self.lock_mode
    }

    async fn put_held(&self, key: &str, bytes: Bytes, until: DateTime<Utc>) -> Result<Put, StorageError> {
        check_key(key)?;
        let hold = self.hold_of_put(key, until).await?;
        self.create(key, bytes, Some(hold)).await
    }

    async fn hold(&self, key: &str, until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        check_key(key)?;
        self.lengthen(key, until).await
    }

    async fn held_until(&self, key: &str) -> Result<Option<DateTime<Utc>>, StorageError> {
        check_key(key)?;
        match self.retained(key, None).await {
            Err(error) if error.is_not_found() => Ok(None),
            held => held,
        }
    }

    async fn earlier(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        check_key(key)?;
        self.hidden(key).await
    }

    async fn get_earlier(&self, key: &str, version: &Version, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        self.read(key, Some(&version.id), limit_bytes).await
    }

    fn undoing(&self, key: &str) -> Option<String> {
        Some(self.undoing_words(key))
    }
}
