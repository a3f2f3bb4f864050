//! Whether objects and lists are there, and are what their names say.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::layout::{Key, LISTS, OBJECTS, object_id};
use crate::domain::ids::ObjectId;
use crate::storage::{Storage, StorageError};

/// Of these objects, with their sizes, those that the store does not have, by one listing.
///
/// # Errors
/// When the store cannot be listed.
pub async fn absent(
    storage: &dyn Storage,
    wanted: HashMap<ObjectId, u64>,
) -> Result<HashMap<ObjectId, u64>, StorageError> {
    Ok(absent_of(storage, wanted).await?.0)
}

/// The same, and how many objects the store has; none is counted where nothing is wanted.
///
/// # Errors
/// When the store cannot be listed.
pub async fn absent_of(
    storage: &dyn Storage,
    mut wanted: HashMap<ObjectId, u64>,
) -> Result<(HashMap<ObjectId, u64>, usize), StorageError> {
    if wanted.is_empty() {
        return Ok((wanted, 0));
    }
    let mut objects = 0;
    storage
        .list(OBJECTS, &mut |listed| {
            objects += 1;
            if let Key::Object(object) = Key::parse(&listed.key)
                && wanted.get(&object) == Some(&listed.size_bytes)
            {
                wanted.remove(&object);
            }
        })
        .await?;
    Ok((wanted, objects))
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
