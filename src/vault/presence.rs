//! Whether objects and lists are there, and are what their names say.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::glance::{Glance, Glimpse};
use super::layout::{Key, LISTS, OBJECTS, object_id};
use crate::domain::ids::ObjectId;
use crate::storage::{Listed, Storage, StorageError};

/// From so many objects on a far store is asked for sixteen parts of them at once, by the first digit of their names, which are
/// evenly spread. A page of a listing has a thousand, and each page has to wait for the one before; so many fill
/// the parts' pages well enough that hardly more is asked for.
const LISTED_IN_PARTS_FROM: usize = 32_000;

/// Of these objects, with their sizes, those that the store does not have, by one listing.
///
/// # Errors
/// When the store cannot be listed.
pub async fn absent(
    storage: &dyn Storage,
    mut wanted: HashMap<ObjectId, u64>,
) -> Result<HashMap<ObjectId, u64>, StorageError> {
    if !wanted.is_empty() {
        let expected = wanted.len();
        list_objects(storage, expected, &mut |object, seen| strike(&mut wanted, object, seen)).await?;
    }
    Ok(wanted)
}

/// The same, and what was seen, by which others may go who come soon.
///
/// # Errors
/// When the store cannot be listed.
pub async fn absent_at_a_glance(
    storage: &dyn Storage,
    mut wanted: HashMap<ObjectId, u64>,
) -> Result<(HashMap<ObjectId, u64>, Option<Glance>), StorageError> {
    if wanted.is_empty() {
        return Ok((wanted, None));
    }
    let begun = storage.now().await?;
    let mut seen = HashMap::new();
    let expected = wanted.len();
    list_objects(storage, expected, &mut |object, glimpse| {
        strike(&mut wanted, object, glimpse);
        seen.insert(object, glimpse);
    })
    .await?;
    Ok((wanted, Glance::new(begun, seen)))
}

/// Takes an object that was seen, and has the size that it should have, from those that are wanted.
fn strike(wanted: &mut HashMap<ObjectId, u64>, object: ObjectId, seen: Glimpse) {
    if wanted.get(&object) == Some(&seen.size_bytes) {
        wanted.remove(&object);
    }
}

/// Tells every object of a store that is thought to have at least so many.
async fn list_objects(
    storage: &dyn Storage,
    expected: usize,
    visit: &mut (dyn FnMut(ObjectId, Glimpse) + Send),
) -> Result<(), StorageError> {
    let visit = &mut |listed: Listed| {
        if let Key::Object(object) = Key::parse(&listed.key) {
            visit(object, Glimpse { size_bytes: listed.size_bytes, modified: listed.modified });
        }
    };
    if !storage.is_far() || expected < LISTED_IN_PARTS_FROM {
        return storage.list(OBJECTS, visit).await;
    }
    let visit = Mutex::new(visit);
    let part = |digit: u8| {
        let visit = &visit;
        async move {
            let mut each = |listed| (visit.lock().unwrap_or_else(PoisonError::into_inner))(listed);
            storage.list(&format!("{OBJECTS}{digit:x}"), &mut each).await
        }
    };
    stream::iter(0..16).map(part).buffer_unordered(storage.parallel()).try_collect().await
}

/// Of these lists those that the store does not have, by one listing.
///
/// # Errors
/// When the store cannot be listed.
pub async fn absent_lists(
    storage: &dyn Storage,
    mut wanted: HashSet<ObjectId>,
) -> Result<HashSet<ObjectId>, StorageError> {
    storage
        .list(LISTS, &mut |listed| {
            if let Key::List(list) = Key::parse(&listed.key) {
                wanted.remove(&list);
            }
        })
        .await?;
    Ok(wanted)
}

/// What was found where an object should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Its bytes are those that its name says.
    Intact,
    /// Other bytes, or something that is no file.
    Damaged,
    /// Nothing.
    Missing,
}

/// Reads an object and holds its bytes against its name and size.
///
/// # Errors
/// The store's, where it fails; what is wrong with the object is the answer.
pub async fn look_at(storage: &dyn Storage, object: ObjectId, stored_bytes: u64) -> Result<Looked, StorageError> {
    judge(object, storage.get(&Key::Object(object).to_string(), stored_bytes).await)
}

/// The same of what was read, which was to be no longer than it should be.
///
/// # Errors
/// The store's, where it failed.
pub fn judge(object: ObjectId, read: Result<Bytes, StorageError>) -> Result<Looked, StorageError> {
    match read {
        Ok(bytes) if object_id(&bytes) == object => Ok(Looked::Intact),
        Ok(_) | Err(StorageError::TooLarge { .. } | StorageError::NotAFile { .. }) => Ok(Looked::Damaged),
        Err(error) if error.is_not_found() => Ok(Looked::Missing),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::storage::memory::Memory;
    use crate::storage::slow::Slow;

    fn object(number: usize) -> ObjectId {
        ObjectId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[tokio::test]
    async fn whatever_their_number_each_object_is_told_once_and_few_pages_are_asked_for() {
        for (there, most_pages) in [(500, 1), (LISTED_IN_PARTS_FROM, LISTED_IN_PARTS_FROM as u64 / 1000 + 16)] {
            let store: Arc<dyn Storage> = Arc::new(Memory::new(Arc::new(SystemClock::default())));
            for number in 0..there {
                store.put(&Key::Object(object(number)).to_string(), Bytes::from_static(b"x")).await.unwrap();
            }
            store.sync().await.unwrap();
            let mut wanted: HashMap<ObjectId, u64> = (0..there).map(|number| (object(number), 1)).collect();
            // One is of another size, two are not there.
            let missing = HashMap::from([(object(3), 2), (object(there), 1), (object(there + 1), 1)]);
            wanted.extend(&missing);
            let store = Slow::counting(store);
            let (absent, glance) = absent_at_a_glance(&store, wanted).await.unwrap();
            assert_eq!((absent.len(), glance.unwrap().objects()), (missing.len(), there));
            assert_eq!(absent, missing);
            assert!(store.total() <= most_pages, "{:?}", store.requests());
        }
    }
}
