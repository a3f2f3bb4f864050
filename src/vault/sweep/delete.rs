//! The deleting, in an order in which every step may be the last.

use chrono::{DateTime, Utc};
use futures_util::future::ready;

use super::garbage::{Doomed, Garbage};
use super::{STOCK_HOLDS, STOCK_HOLDS_IN_ALL, StreamExt, TryStreamExt, stream};
use crate::storage::{Deleted, Storage, StorageError};
use crate::vault::VaultError;
use crate::vault::layout::{Key, ManifestName, RecordName};
use crate::vault::signing::MAX_SIGNATURE_BYTES;

/// How much is deleted between two looks at the clock: what a store across a network does in a few seconds, so that what is
/// sent last is still sent while the stock is fresh.
const DELETED_AT_ONCE: usize = 250;

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deletion {
    /// Objects and lists.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects and lists that are left for the next sweep, because the stock had grown too old. With any left, the
    /// garbage's `clean_through` does not hold.
    pub left: u64,
    /// Objects and lists that the store holds against deletion: a later sweep tries again. With any, the garbage's
    /// `clean_through` holds as far as [`super::Stock::clean_beside`] says.
    pub locked: Vec<Doomed>,
    /// Until when the last of them is held, where the store says it.
    pub locked_until: Option<DateTime<Utc>>,
}

/// Deletes what is to be deleted, in this order: the store is told that these condemned lists are in use; lists and
/// objects; and once that is durable, leftovers and condemned lists that no deletion needs. `told` hears the bytes of each
/// deletion. May be called again after an error, and by anyone else: the next sweep does the rest.
///
/// # Errors
/// The store's.
pub async fn delete(
    storage: &dyn Storage,
    garbage: &Garbage,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Deletion, VaultError> {
    let mut deletion = Deletion::default();
    if !is_fresh(storage, garbage).await? {
        deletion.left = garbage.to_delete.len() as u64;
        return Ok(deletion);
    }
    let uses = stream::iter(&garbage.used).map(|name| use_record(storage, name));
    uses.buffered(storage.parallel().max(1)).try_collect::<()>().await?;
    delete_all(storage, garbage, &garbage.to_delete, &mut deletion, told).await?;
    storage.sync().await?;
    finish(storage, garbage).await?;
    Ok(deletion)
}

/// Whether the stock may still be deleted by.
pub(super) async fn is_fresh(storage: &dyn Storage, garbage: &Garbage) -> Result<bool, StorageError> {
    let now = storage.now().await?;
    let until = (garbage.claims_read + STOCK_HOLDS).min(garbage.listed + STOCK_HOLDS_IN_ALL);
    Ok(garbage.taken <= now && now <= until)
}

/// Has the store date a condemned list's signature anew; its bytes stay, so that a death in between changes nothing.
pub(super) async fn use_record(storage: &dyn Storage, name: &RecordName) -> Result<(), StorageError> {
    let key = Key::RecordSignature(name.clone()).to_string();
    let signature = storage.get(&key, MAX_SIGNATURE_BYTES).await?;
    storage.replace(&key, signature).await
}

/// Deletes these, each batch as long as the stock is fresh: a machine that slept in between must not wake up and go on.
pub(super) async fn delete_all(
    storage: &dyn Storage,
    garbage: &Garbage,
    doomed: &[Doomed],
    deletion: &mut Deletion,
    told: &(dyn Fn(u64) + Sync),
) -> Result<(), StorageError> {
    let delete = |batch: &'_ [Doomed]| {
        let batch = batch.to_vec();
        async move {
            if !is_fresh(storage, garbage).await? {
                return Ok((batch, None));
            }
            let keys: Vec<String> = batch.iter().map(|doomed| doomed.key().to_string()).collect();
            let deleted = storage.delete_many(&keys).await?;
            Ok((batch, Some(deleted)))
        }
    };
    let batches: Vec<_> = doomed.chunks(DELETED_AT_ONCE).map(delete).collect();
    stream::iter(batches)
        .buffer_unordered(storage.parallel().max(1))
        .try_for_each(|(batch, deleted)| {
            match deleted {
                Some(deleted) => {
                    for (doomed, deleted) in batch.into_iter().zip(deleted) {
                        match deleted {
                            Deleted::Removed => {
                                deletion.objects += 1;
                                deletion.bytes += doomed.size_bytes;
                                told(doomed.size_bytes);
                            }
                            Deleted::Held { until } => {
                                deletion.locked.push(doomed);
                                deletion.locked_until = deletion.locked_until.max(until);
                            }
                            // Another sweep was faster.
                            Deleted::Absent => {}
                        }
                    }
                }
                None => deletion.left += batch.len() as u64,
            }
            ready(Ok(()))
        })
        .await
}

/// What goes last. A condemned list goes before its signature, which says nothing without it.
pub(super) async fn finish(storage: &dyn Storage, garbage: &Garbage) -> Result<(), StorageError> {
    let spent = garbage.spent.iter().map(|name| Key::Record(name.clone()).to_string());
    delete_keys(storage, garbage.leftovers.iter().cloned().chain(spent)).await?;
    storage.sync().await?;
    delete_keys(storage, garbage.spent.iter().map(|name| Key::RecordSignature(name.clone()).to_string())).await?;
    storage.sync().await
}

async fn delete_keys(storage: &dyn Storage, keys: impl Iterator<Item = String>) -> Result<(), StorageError> {
    let deletes = stream::iter(keys).map(|key| async move { storage.delete(&key).await.map(drop) });
    deletes.buffered(storage.parallel().max(1)).try_collect::<()>().await
}

/// Deletes a manifest whose removal is recorded: first the manifest, so that no manifest stands without its signature.
/// What is not there is deleted already; what is held stays, its signature too.
///
/// # Errors
/// The store's.
pub async fn remove_manifest(storage: &dyn Storage, name: &ManifestName) -> Result<Deleted, VaultError> {
    let deleted = storage.delete(&Key::Manifest(name.clone()).to_string()).await?;
    if let Deleted::Held { .. } = deleted {
        return Ok(deleted);
    }
    storage.sync().await?;
    storage.delete(&Key::ManifestSignature(name.clone()).to_string()).await?;
    Ok(deleted)
}
