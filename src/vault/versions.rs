//! Reading past what somebody laid on top: where what lies under a key is wrong or gone, and the store kept what lay there
//! before, the earlier version whose hash or signature is right is as good as ever.
//!
//! Whoever may write can overwrite, and whoever may delete can hide; neither takes away what is held. A reader goes by names
//! and signatures, so it needs no list of which version is the right one. It says loudly that it had to look.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::VaultError;
use super::layout::object_id;
use crate::domain::ids::ObjectId;
use crate::storage::{Storage, StorageError};

/// So many keys are told of loudly by one process; of the others the log says it quietly.
const MAX_TOLD: u64 = 20;

/// What was told of so far: a whole vault may have been overwritten, and nobody reads a hundred thousand lines.
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Whether an earlier version may help: the store answered, and what it has is not what it should be.
pub(super) fn may_be_overwritten(error: &StorageError) -> bool {
    matches!(error, StorageError::NotFound { .. } | StorageError::TooLarge { .. })
}

/// Reads what has this name. `None` where neither what lies there nor anything that lay there before has it.
///
/// # Errors
/// The store's, where it fails.
pub async fn read_named(
    storage: &dyn Storage,
    key: &str,
    name: ObjectId,
    limit_bytes: u64,
) -> Result<Option<Bytes>, StorageError> {
    match storage.get(key, limit_bytes).await {
        Ok(bytes) if object_id(&bytes) == name => Ok(Some(bytes)),
        Ok(_) => earlier_named(storage, key, name, limit_bytes).await,
        Err(error) if may_be_overwritten(&error) => earlier_named(storage, key, name, limit_bytes).await,
        Err(error) => Err(error),
    }
}

/// The earlier version that has this name, once it is known that what lies there has not.
///
/// # Errors
/// The store's, where it fails.
pub async fn earlier_named(
    storage: &dyn Storage,
    key: &str,
    name: ObjectId,
    limit_bytes: u64,
) -> Result<Option<Bytes>, StorageError> {
    for bytes in earlier(storage, key, limit_bytes).await? {
        let bytes = bytes.read(storage, key, limit_bytes).await?;
        if let Some(bytes) = bytes.filter(|bytes| object_id(bytes) == name) {
            tell(storage, key);
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// All that lies or lay under a key, what lies there first: for documents that only together with their signature say
/// whether they are right.
pub(super) async fn all(storage: &dyn Storage, key: &str, limit_bytes: u64) -> Result<Vec<Bytes>, VaultError> {
    let mut all = Vec::new();
    match storage.get(key, limit_bytes).await {
        Ok(bytes) => all.push(bytes),
        Err(error) if may_be_overwritten(&error) || matches!(error, StorageError::NotAFile { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for version in earlier(storage, key, limit_bytes).await? {
        all.extend(version.read(storage, key, limit_bytes).await?);
    }
    Ok(all)
}

/// Says that an earlier version is the right one.
pub(super) fn tell(storage: &dyn Storage, key: &str) {
    let undoing = storage.undoing(key).unwrap_or_default();
    let place = storage.describe();
    if TOLD.fetch_add(1, Ordering::Relaxed) < MAX_TOLD {
        tracing::error!(
            "{key} in {place} was overwritten or hidden, and is wrong as it lies there; an earlier version is right and was \
             read. Find out who did that; `lifeboat check` tells the whole damage. {undoing}"
        );
    } else {
        tracing::info!("{key} in {place} was overwritten or hidden; an earlier version is right and was read");
    }
}

struct Earlier(crate::storage::Version);

async fn earlier(storage: &dyn Storage, key: &str, limit_bytes: u64) -> Result<Vec<Earlier>, StorageError> {
    let versions = storage.earlier(key).await?;
    Ok(versions.into_iter().filter(|version| version.size_bytes <= limit_bytes).map(Earlier).collect())
}

impl Earlier {
    /// Nothing where it is gone meanwhile, or larger than was said.
    async fn read(&self, storage: &dyn Storage, key: &str, limit_bytes: u64) -> Result<Option<Bytes>, StorageError> {
        match storage.get_earlier(key, &self.0, limit_bytes).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if may_be_overwritten(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::ids::KeyedId;
    use crate::storage::LockMode;
    use crate::storage::memory::Memory;
    use crate::vault::keys::SigningKey;
    use crate::vault::layout::Key;
    use crate::vault::lists::{ListedSegment, encode, read_list};
    use crate::vault::manifests::sign_manifest;
    use crate::vault::manifests::tests::{manifest, trust};
    use crate::vault::manifests::{commit_manifest, read_manifest};
    use crate::vault::{Distrust, VaultError};

    fn start() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn store() -> Memory {
        Memory::with_lock(Arc::new(ManualClock::at(start())), LockMode::Governance)
    }

    async fn overwrite(store: &Memory, key: &str, times: usize) {
        for number in 0..times {
            store.replace(key, Bytes::from(format!("a thief was here {number}"))).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_has_the_right_name_is_read_however_often_it_was_overwritten() {
        let bytes = Bytes::from_static(b"sealed");
        let name = object_id(&bytes);
        let key = Key::Object(name).to_string();
        for times in [0, 1, 3, 500] {
            let store = store();
            store.put_held(&key, bytes.clone(), start() + TimeDelta::days(14)).await.unwrap();
            store.sync().await.unwrap();
            overwrite(&store, &key, times).await;
            assert_eq!(read_named(&store, &key, name, 100).await.unwrap().unwrap(), bytes, "{times}");
            store.hide(&key);
            assert!(store.get(&key, 100).await.unwrap_err().is_not_found());
            assert_eq!(read_named(&store, &key, name, 100).await.unwrap().unwrap(), bytes, "hidden, {times}");
            let other = object_id(b"never stored");
            assert_eq!(read_named(&store, &key, other, 100).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_list_is_read_past_what_lies_on_it() {
        let segment = ListedSegment { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]) };
        let (id, stored) = encode(&[segment]);
        let (store, key) = (store(), Key::List(id).to_string());
        store.replace(&key, stored).await.unwrap();
        overwrite(&store, &key, 2).await;
        assert_eq!(read_list(&store, id).await.unwrap(), [segment]);
        store.hide(&key);
        assert_eq!(read_list(&store, id).await.unwrap(), [segment]);
    }

    #[tokio::test]
    async fn a_manifest_is_believed_whichever_half_was_overwritten() {
        let host = SigningKey::generate();
        let (trust, manifest) = (trust(&host), sign_manifest(&manifest("shop", 1, None), &host));
        let keys = [Key::Manifest(manifest.name.clone()), Key::ManifestSignature(manifest.name.clone())];
        let keys = keys.map(|key| key.to_string());
        for (which, hides) in
            [(vec![0], false), (vec![1], false), (vec![0, 1], false), (vec![0, 1], true), (vec![1], true)]
        {
            let store = store();
            commit_manifest(&store, &manifest).await.unwrap();
            for index in &which {
                overwrite(&store, &keys[*index], 2).await;
                if hides {
                    store.hide(&keys[*index]);
                }
            }
            let read = read_manifest(&store, &trust, &manifest.name).await.unwrap();
            assert_eq!(read.hash, manifest.hash, "{which:?} {hides}");
        }
        // What was never right is not believed, however many there are.
        let store = store();
        overwrite(&store, &keys[0], 3).await;
        overwrite(&store, &keys[1], 3).await;
        let error = read_manifest(&store, &trust, &manifest.name).await.unwrap_err();
        assert!(matches!(error, VaultError::ManifestUntrusted { reason: Distrust::Signature(_), .. }), "{error}");
    }
}
