//! Where a vault's bytes lie: few operations on keys, each with its atomicity, its idempotence and what a lost
//! answer means.
//!
//! A store does not know what its keys mean, and nothing here is encrypted or checked: names that are hashes, and
//! signatures, are the vault's business. Every store passes one and the same suite (`contract.rs`).
//!
//! Keys are relative: components of ASCII letters, digits and a little punctuation, joined by `/` (see
//! [`check_key`]). A *prefix* is the beginning of a key's text, as in S3, and need not end at a slash.
//!
//! Cancelling a call (dropping its future) is the same as losing its answer: it may still take effect.

pub mod ahead;
#[cfg(test)]
mod contract;
pub mod fault;
pub mod holding;
pub mod local;
pub mod memory;
pub mod remote;
pub mod s3;
#[cfg(test)]
pub(crate) mod slow;

use std::fmt;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::{Code, Diagnostic};

pub use remote::RemoteFault;

/// The longest key in bytes that every store takes.
pub const MAX_KEY_BYTES: usize = 512;
/// The most keys that are deleted in one call.
pub const MAX_DELETED_AT_ONCE: usize = 1000;
/// Requests under way at once, where a store does not say otherwise.
pub const USUAL_PARALLEL: usize = 16;

/// A place for bytes under keys.
///
/// Every call has four outcomes: done or not done, and told or not told. An error of the store that is not one of
/// the named facts (not found, too large, conflict, bad key) leaves open whether the call took effect. What may be
/// tried again is said at each method.
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// The place, for messages: `/srv/backups`. Never holds credentials.
    fn describe(&self) -> String;

    /// The kind of store, one word: `folder`, `memory`.
    fn kind(&self) -> &'static str;

    /// How many requests may be under way at once and be the faster for it, at least 1. Whoever has many to make keeps so
    /// many under way; more are no error.
    fn parallel(&self) -> usize {
        USUAL_PARALLEL
    }

    /// Whether reading from it is paid for, in money or in waiting: then nobody reads more than he needs.
    fn is_far(&self) -> bool {
        false
    }

    /// Stores `bytes` under `key` unless something is there already. Whole or not at all.
    ///
    /// Neither durable nor certain to be visible (to `get`, `size`, `list`, in this process or another) before
    /// [`sync`](Self::sync) returns. [`Put::Existed`] says that the key was taken, by something visible or by an
    /// earlier `put` through this handle that is not synced yet; the bytes there are not compared. Where another
    /// process takes the key between `put` and `sync`, the `sync` decides: it returns [`StorageError::Conflict`]
    /// unless the bytes are the same.
    ///
    /// After an error it may be called again with the same bytes. Where the answer was lost it then returns
    /// `Existed` for bytes that are its own.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError>;

    /// Stores `bytes` under `key` in place of whatever is there: a reader sees the old bytes or the new ones, never
    /// a mixture, and never neither. Durable and visible when it returns. For the few documents that change
    /// (`vault.json`). May be called again after an error.
    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError>;

    /// Reads everything under `key`; [`StorageError::TooLarge`] where that is more than `limit_bytes`, before it is
    /// held in memory. Changes nothing; may be called again.
    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError>;

    /// The stored size under `key`; `None` where there is nothing. Changes nothing; may be called again.
    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError>;

    /// Calls `visit` once for each visible key that begins with `prefix`, in no particular order, with bounded
    /// memory. Keys that come or go meanwhile may be told or not; all others are told exactly once. An empty
    /// prefix means everything; a prefix without keys is not an error. A listing may hold names that no vault
    /// would make, and that [`check_key`] refuses. After an error, what was visited so far is no full answer.
    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError>;

    /// Removes `key`, with every earlier version of it where the store keeps those. Gone for readers at once, durably so
    /// after [`sync`](Self::sync). Removing what is not there is [`Deleted::Absent`], no error, so that it may be called
    /// again. [`Deleted::Held`] where a version is held: it stays, is read as before, and what lay on top of it is gone.
    async fn delete(&self, key: &str) -> Result<Deleted, StorageError>;

    /// Removes all of these, in no particular order and in fewer requests than one by one where the store can; what each
    /// was, in their order. A store that cannot tell cheaply says [`Deleted::Removed`] of what was not there. After an
    /// error some are gone and some are not; may be called again. At most [`MAX_DELETED_AT_ONCE`] at a time.
    async fn delete_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        let mut deleted = Vec::with_capacity(keys.len());
        for key in keys {
            deleted.push(self.delete(key).await?);
        }
        Ok(deleted)
    }

    /// Gives up what somebody began to store below this store's place, before that time, and never finished: it takes room,
    /// is in no listing, and no reader sees it. How much there was. May be called again.
    async fn clear_unfinished(&self, _before: DateTime<Utc>) -> Result<u64, StorageError> {
        Ok(0)
    }

    /// Makes every `put` and `delete` that returned before this call began durable and visible. In which order they
    /// become visible is not said: whoever needs an order syncs between.
    ///
    /// After an error nothing that was put since the last good `sync` counts: some of it may be visible, the rest
    /// is dropped, and the caller must put it again (or give up its run). It must not merely sync again: an
    /// operating system reports a failed write-back once and then forgets it.
    async fn sync(&self) -> Result<(), StorageError>;

    /// The store's time: what deadlines are held against, where a client's clock is not to be believed.
    async fn now(&self) -> Result<DateTime<Utc>, StorageError>;

    /// How many bytes still fit; `None` where nobody can tell.
    async fn available_bytes(&self) -> Result<Option<u64>, StorageError>;

    /// Drops `key` from the machine's page cache, so that a drill reads it cold. False where that does not apply.
    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError>;

    /// How this handle holds what it is told to hold; `None` where the store cannot, or was not asked to. Then
    /// [`put_held`](Self::put_held) and [`hold`](Self::hold) fail with [`StorageError::NoLock`].
    fn lock(&self) -> Option<LockMode> {
        None
    }

    /// As [`put`](Self::put), and what is [`Put::Created`] is held from its first moment: nobody who could delete it
    /// can until then. What [`Put::Existed`] is held as long as it was.
    async fn put_held(&self, key: &str, _bytes: Bytes, _until: DateTime<Utc>) -> Result<Put, StorageError> {
        Err(StorageError::NoLock { place: self.describe(), doing: format!("storing {key}") })
    }

    /// Holds what lies under `key` until then, if it is not held for longer already. May be called again. A hold is never
    /// made shorter. Returns until when it is held now, at least.
    async fn hold(&self, key: &str, _until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        Err(StorageError::NoLock { place: self.describe(), doing: format!("holding {key}") })
    }

    /// Until when what lies under `key` is held; `None` where it is not, or nothing is there.
    async fn held_until(&self, _key: &str) -> Result<Option<DateTime<Utc>>, StorageError> {
        Ok(None)
    }

    /// What lay under `key` before what lies there now, or before it was hidden by a deletion: the newest first, at most
    /// [`MAX_EARLIER_VERSIONS`], of those the newest and the oldest half. Empty where the store keeps nothing.
    async fn earlier(&self, _key: &str) -> Result<Vec<Version>, StorageError> {
        Ok(Vec::new())
    }

    /// Reads one of the [`earlier`](Self::earlier) versions, as [`get`](Self::get) does.
    async fn get_earlier(&self, key: &str, _version: &Version, _limit_bytes: u64) -> Result<Bytes, StorageError> {
        Err(StorageError::NotFound { place: self.describe(), key: key.into() })
    }

    /// What a person types to take away what lies wrongly on top of an earlier version of `key`; `None` where the store
    /// keeps none.
    fn undoing(&self, _key: &str) -> Option<String> {
        None
    }
}

/// How many earlier versions of one key a reader is told of. Who overwrites a key more often than that has hidden the first
/// version from nobody: the oldest are among them.
pub const MAX_EARLIER_VERSIONS: usize = 64;

/// Who may delete what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Only somebody with a right made for that.
    Governance,
    /// Nobody, whoever they are.
    Compliance,
}

impl LockMode {
    /// The words that a config takes.
    pub const WORDS: [&str; 2] = ["governance", "compliance"];

    /// As it stands in a config.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }

    /// From the word in a config; nothing if it is none of [`LockMode::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| mode.word() == word)
    }
}

/// An earlier version of what lies under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The store's name for it.
    pub id: String,
    /// Stored bytes.
    pub size_bytes: u64,
    /// When it was written, by the store's time.
    pub written: Option<DateTime<Utc>>,
}

/// What a [`Storage::put`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The key was free and now holds the bytes.
    Created,
    /// The key was taken; nothing changed.
    Existed,
}

/// What a [`Storage::delete`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was there and is gone.
    Removed,
    /// There was nothing.
    Absent,
    /// It is held against deletion, and is there.
    Held {
        /// Until when, where the store says it.
        until: Option<DateTime<Utc>>,
    },
}

/// Of more versions than anybody is told of, the newest and the oldest half.
fn keep_ends(versions: &mut Vec<Version>) {
    if versions.len() > MAX_EARLIER_VERSIONS {
        let half = MAX_EARLIER_VERSIONS / 2;
        versions.drain(half..versions.len() - half);
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// Stored bytes.
    pub size_bytes: u64,
    /// When it was last written, by the store's time, where the store knows.
    pub modified: Option<DateTime<Utc>>,
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing is there.
    #[error("{place} has no {key}")]
    NotFound {
        /// The store.
        place: String,
        /// The key.
        key: String,
    },
    /// More is there than the reader is ready to hold.
    #[error("{key} in {place} has {size_bytes} bytes, more than the {limit_bytes} that it may have")]
    TooLarge {
        /// The store.
        place: String,
        /// The key.
        key: String,
        /// What is there, at least.
        size_bytes: u64,
        /// What the reader would have taken.
        limit_bytes: u64,
    },
    /// Another process stored something else under the key first.
    #[error("{key} in {place} was written by another process meanwhile, with other bytes")]
    Conflict {
        /// The store.
        place: String,
        /// The key.
        key: String,
    },
    /// No store takes such a key.
    #[error("{key:?} cannot be a key of a store: {reason}")]
    BadKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that is not a plain file lies where an object should: a link, a folder, a pipe.
    #[error("{key} in {place} is {found}, not a plain file")]
    NotAFile {
        /// The store.
        place: String,
        /// The key.
        key: String,
        /// What it is.
        found: &'static str,
    },
    /// There is no store at the place.
    #[error("{place} {reason}")]
    NoStore {
        /// The place.
        place: String,
        /// `does not exist`, `is a file, not a folder`.
        reason: &'static str,
    },
    /// The disk or a quota is full.
    #[error("no room left in {place} while {doing}; earlier backups are intact, this run stored nothing that counts")]
    Full {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something was to be held, and nothing here can be.
    #[error("{place} cannot hold anything against deletion: {doing} failed")]
    NoLock {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
    },
    /// A store across a network could not be asked, or refused.
    #[error("{doing} in {place} failed: {fault}")]
    Remote {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
        /// What is the matter.
        fault: RemoteFault,
        /// What store or network said of it.
        #[source]
        said: remote::Said,
    },
    /// Nobody knows whether it was done: the answer was lost.
    #[error("{place} gave no answer while {doing}: it may have been done or not")]
    OutcomeUnknown {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
    },
    /// The system refused.
    #[error("{doing} in {place} failed")]
    Failed {
        /// The store.
        place: String,
        /// What was being done: `writing objects/ab/…`.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl StorageError {
    /// Whether it says that nothing is there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether it says that this host may not do it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Remote { fault, .. } => *fault == RemoteFault::Denied,
            Self::Failed { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

impl Diagnostic for StorageError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::ObjectMissing,
            Self::TooLarge { .. } | Self::NotAFile { .. } => Code::ObjectDamaged,
            Self::NoStore { .. } => Code::VaultMissing,
            Self::Full { .. } => Code::StorageFull,
            Self::Remote { fault, .. } => fault.code(),
            Self::Conflict { .. } | Self::OutcomeUnknown { .. } | Self::Failed { .. } => Code::StorageFailed,
            Self::NoLock { .. } => Code::LockUnavailable,
            Self::BadKey { .. } => Code::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::TooLarge { .. } | Self::NotAFile { .. } => {
                Some("run `lifeboat check` to learn which backups this touches".into())
            }
            Self::NoStore { .. } => Some(
                "check the vault's url in the config and that its disk is mounted; `lifeboat init` makes a new vault"
                    .into(),
            ),
            Self::Full { place, .. } => {
                Some(format!("make room (`df -h {place}` shows how much there is), then run it again"))
            }
            Self::Conflict { .. } | Self::OutcomeUnknown { .. } => Some("run it again".into()),
            Self::Failed { source, .. } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "give the user that lifeboat runs as the right to use this folder".into()
                }
                io::ErrorKind::ReadOnlyFilesystem => "the vault's file system is mounted read-only; remount it".into(),
                _ => "look at the disk (`dmesg | tail`), then run it again".into(),
            }),
            Self::Remote { fault, .. } => fault.hint(),
            Self::NoLock { .. } => Some(
                "Object Lock is switched on when a bucket is made: make a new bucket with it, or take `lock` out of the \
                 vault's table"
                    .into(),
            ),
            Self::BadKey { .. } => None,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Remote { fault, .. } => fault.is_transient(),
            _ => false,
        }
    }
}

/// Refuses keys that a store of some kind could not hold, or that would lead out of it.
///
/// # Errors
/// [`StorageError::BadKey`] where it is empty, longer than [`MAX_KEY_BYTES`], absolute, has an empty component or
/// one that begins with a dot, or a byte that is neither an ASCII letter or digit nor one of `-_.+=@,~ `.
pub fn check_key(key: &str) -> Result<(), StorageError> {
    let bad = |reason| Err(StorageError::BadKey { key: key.chars().take(MAX_KEY_BYTES).collect(), reason });
    if key.is_empty() {
        return bad("it is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return bad("it is too long");
    }
    for component in key.split('/') {
        if component.is_empty() {
            return bad("it has an empty component");
        }
        // Dot-names are a store's own, and `.` and `..` are among them.
        if component.starts_with('.') {
            return bad("a component begins with a dot");
        }
        if component.len() > 255 {
            return bad("a component is too long");
        }
        if !component.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+=@,~ ".contains(&b)) {
            return bad("it has a character that is not allowed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside() {
        for good in ["vault.json", "objects/ab/abcd", "backups/shop/20261122T020000Z-0011223344556677.json", "a b/c~d"]
        {
            check_key(good).unwrap();
        }
        let long = "a/".repeat(MAX_KEY_BYTES);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a/.b",
            "a\0b",
            "a\nb",
            "a\\b",
            "ä",
            &long,
            &"x".repeat(256),
        ] {
            assert!(matches!(check_key(bad), Err(StorageError::BadKey { .. })), "{bad:?}");
        }
    }
}
