//! Bytes of one vault brought to another place, sealed as they are: each held against its name before it is written.
//!
//! An object or list has one name for one content, so that nothing is compared that lies there under its name with its
//! size, and a copy that broke off goes on where it was. What belongs together, and what must not be copied, is decided
//! by the caller.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::VaultError;
use super::layout::{Key, LISTS, OBJECTS, RecordName, object_id};
use super::lists::{ListedSegment, MAX_LIST_BYTES, decode};
use super::reader::MAX_OBJECT_BYTES;
use super::records::{MAX_DETAILS_BYTES, Seen, SignedRecord, details_id, read_signed_record, verify_record};
use super::trust::TrustDocument;
use crate::domain::ids::ObjectId;
use crate::storage::{Put, Storage, StorageError};

/// Requests under way at once.
pub const REQUESTS_AT_ONCE: usize = 16;
/// Records whose bytes are held at once.
const RECORDS_AT_ONCE: usize = 256;

/// What lies in a place, by name, with its size.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Objects.
    pub objects: HashMap<ObjectId, u64>,
    /// Lists.
    pub lists: HashMap<ObjectId, u64>,
}

impl Holdings {
    /// Lists a place: two listings, however much lies there.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(storage: &dyn Storage) -> Result<Self, StorageError> {
        let mut held = Self::default();
        for prefix in [LISTS, OBJECTS] {
            storage
                .list(prefix, &mut |listed| match Key::parse(&listed.key) {
                    Key::Object(id) => drop(held.objects.insert(id, listed.size_bytes)),
                    Key::List(id) => drop(held.lists.insert(id, listed.size_bytes)),
                    _ => {}
                })
                .await?;
        }
        Ok(held)
    }
}

/// Why something could not be had from the source as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// What lies there is not what its name says.
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

/// What lies under a name in the source, hashed: other bytes are not handed on.
///
/// # Errors
/// The store's, where it fails; what is wrong with the bytes is the inner error.
async fn fetch(from: &dyn Storage, key: &Key, id: ObjectId, limit: u64) -> Result<Result<Bytes, Flaw>, VaultError> {
    let bytes = match from.get(&key.to_string(), limit).await {
        Ok(bytes) => bytes,
        Err(StorageError::NotFound { .. }) => return Ok(Err(Flaw::Missing)),
        Err(error @ (StorageError::TooLarge { .. } | StorageError::NotAFile { .. })) => {
            return Ok(Err(Flaw::Damaged { reason: error.to_string() }));
        }
        Err(error) => return Err(error.into()),
    };
    let hashed = bytes.clone();
    // A megabyte takes a millisecond: not on a thread that others wait for.
    let found = tokio::task::spawn_blocking(move || object_id(&hashed)).await.map_err(|_| VaultError::ReaderClosed)?;
    Ok(if found == id {
        Ok(bytes)
    } else {
        Err(Flaw::Damaged { reason: format!("its bytes have the SHA-256 {found}") })
    })
}

/// A list of the source: its bytes, and what it names.
///
/// # Errors
/// The store's; what is wrong with the list is the inner error.
pub async fn fetch_list(
    from: &dyn Storage,
    list: ObjectId,
) -> Result<Result<(Bytes, Vec<ListedSegment>), Flaw>, VaultError> {
    let bytes = match fetch(from, &Key::List(list), list, MAX_LIST_BYTES).await? {
        Ok(bytes) => bytes,
        Err(flaw) => return Ok(Err(flaw)),
    };
    Ok(decode(&bytes).map(|lines| (bytes, lines)).map_err(|reason| Flaw::Damaged { reason }))
}

/// Brings an object to a place where it does not lie, or lies wrong. The answer is its size.
///
/// # Errors
/// The store's, of either place; what is wrong with it in the source is the inner error.
pub async fn send_object(
    from: &dyn Storage,
    to: &dyn Storage,
    object: ObjectId,
    there: Existing,
) -> Result<Result<u64, Flaw>, VaultError> {
    let key = Key::Object(object);
    let bytes = match fetch(from, &key, object, MAX_OBJECT_BYTES).await? {
        Ok(bytes) => bytes,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let size = bytes.len() as u64;
    put(to, &key.to_string(), bytes, there).await?;
    Ok(Ok(size))
}

/// What is known of what lies under a name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing lay there.
    Nothing,
    /// Something lies there that is known to be wrong.
    Wrong,
}

/// Stores bytes under the name that they must have. What turned out to lie there is held against them.
///
/// # Errors
/// The store's.
pub async fn put(to: &dyn Storage, key: &str, bytes: Bytes, there: Existing) -> Result<(), StorageError> {
    if there == Existing::Wrong {
        return to.replace(key, bytes).await;
    }
    if to.put(key, bytes.clone()).await? == Put::Created {
        return Ok(());
    }
    match to.get(key, bytes.len() as u64).await {
        Ok(found) if found == bytes => Ok(()),
        // Put by this process already and not visible before the sync.
        Err(error) if error.is_not_found() => Ok(()),
        Ok(_) | Err(StorageError::TooLarge { .. }) => to.replace(key, bytes).await,
        Err(error) => Err(error),
    }
}

/// A record to be brought to another place, with its sealed details, if it has them still.
#[derive(Debug)]
pub struct Carried {
    /// The record and its signature.
    pub signed: SignedRecord,
    details: Option<Bytes>,
}

/// Reads records that are believed here and would be believed there. Others, and those that are gone since they were
/// listed, are passed over.
///
/// # Errors
/// The store's.
pub async fn read_carried(
    from: &dyn Storage,
    trust: &TrustDocument,
    names: &BTreeMap<RecordName, Seen>,
) -> Result<Vec<Carried>, VaultError> {
    let read = |(name, seen): (&RecordName, &Seen)| {
        let (name, seen) = (name.clone(), *seen);
        async move {
            let signed = match read_signed_record(from, trust, &name, seen).await {
                Ok(signed) => signed,
                Err(VaultError::RecordUntrusted { .. }) => return Ok(None),
                Err(VaultError::Storage(error)) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            };
            // There it is seen for the first time now: what a revoked host wrote is then nobody's word.
            let there = Seen { modified: Some(seen.now), ..seen };
            if verify_record(trust, &name, &signed.document, &signed.signature, there).is_err() {
                return Ok(None);
            }
            let Some(expected) = signed.verified.record.details else {
                return Ok(Some(Carried { signed, details: None }));
            };
            let details = match from.get(&Key::RecordDetails(name).to_string(), MAX_DETAILS_BYTES).await {
                Ok(details) => Some(details).filter(|details| details_id(details) == expected),
                Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. } | StorageError::NotAFile { .. }) => {
                    None
                }
                Err(error) => return Err(error.into()),
            };
            Ok(Some(Carried { signed, details }))
        }
    };
    let names: Vec<(&RecordName, &Seen)> = names.iter().collect();
    let read = stream::iter(names.into_iter().map(read)).buffered(REQUESTS_AT_ONCE);
    read.try_filter_map(|found| async move { Ok(found) }).try_collect().await
}

/// Writes records: details and signatures of each before the record itself, and durable before it.
///
/// # Errors
/// The store's.
pub async fn write_carried(to: &dyn Storage, records: &[Carried]) -> Result<(), StorageError> {
    for records in records.chunks(RECORDS_AT_ONCE) {
        let mut before = Vec::new();
        let mut documents = Vec::new();
        for Carried { signed, details } in records {
            let name = &signed.verified.name;
            before.extend(details.iter().map(|details| (Key::RecordDetails(name.clone()), details.clone())));
            before.push((Key::RecordSignature(name.clone()), signed.signature.clone()));
            documents.push((Key::Record(name.clone()), signed.document.clone()));
        }
        for wave in [before, documents] {
            let put =
                |(key, bytes): (Key, Bytes)| async move { put(to, &key.to_string(), bytes, Existing::Nothing).await };
            stream::iter(wave.into_iter().map(put)).buffer_unordered(REQUESTS_AT_ONCE).try_collect::<Vec<()>>().await?;
            to.sync().await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::manifests::tests::memory;

    #[tokio::test]
    async fn only_bytes_that_fit_their_name_arrive() {
        let (from, to) = (memory(), memory());
        let good = Bytes::from_static(b"sealed bytes");
        let id = object_id(&good);
        let key = Key::Object(id).to_string();
        let send = async |there| send_object(&from, &to, id, there).await.unwrap();
        assert_eq!(send(Existing::Nothing).await, Err(Flaw::Missing));
        from.replace(&key, Bytes::from_static(b"other bytes")).await.unwrap();
        assert!(matches!(send(Existing::Nothing).await, Err(Flaw::Damaged { .. })));
        assert_eq!(to.size(&key).await.unwrap(), None);
        from.replace(&key, good.clone()).await.unwrap();
        assert_eq!(send(Existing::Nothing).await, Ok(12));
        to.sync().await.unwrap();
        assert_eq!(to.get(&key, 100).await.unwrap(), good);
        // What turns out to lie there is put right, known to be wrong or not.
        for there in [Existing::Nothing, Existing::Wrong] {
            for wrong in [&b"x"[..], b"sealed bytEs", b"longer than it was before"] {
                to.replace(&key, Bytes::from_static(wrong)).await.unwrap();
                assert_eq!(send(there).await, Ok(12));
                to.sync().await.unwrap();
                assert_eq!(to.get(&key, 100).await.unwrap(), good);
            }
        }
        let held = Holdings::list(&to).await.unwrap();
        assert_eq!((held.objects.get(&id), held.lists.len()), (Some(&12), 0));
    }

    #[tokio::test]
    async fn a_list_is_opened_before_it_is_believed() {
        let from = memory();
        let bytes = Bytes::from_static(b"no list at all");
        let id = object_id(&bytes);
        from.replace(&Key::List(id).to_string(), bytes).await.unwrap();
        assert!(matches!(fetch_list(&from, id).await.unwrap(), Err(Flaw::Damaged { .. })));
        let line =
            ListedSegment { object: ObjectId([1; 32]), stored_bytes: 7, id: crate::domain::ids::KeyedId([2; 32]) };
        let (id, bytes) = crate::vault::lists::encode(&[line]);
        from.replace(&Key::List(id).to_string(), bytes.clone()).await.unwrap();
        assert_eq!(fetch_list(&from, id).await.unwrap(), Ok((bytes, vec![line])));
    }
}
