//! Deleting: where a bucket keeps versions a plain DELETE only hides, so versions and delete markers are deleted by name.
//!
//! What the store says is gone is looked for once more: an erasure that did not happen must not be believed.

use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, ObjectIdentifier};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::super::remote::Said;
use super::super::{Deleted, MAX_DELETED_AT_ONCE, RemoteFault, StorageError};
use super::S3;
use super::listing::moment;
use super::trouble::{Kind, Trouble};

/// How many keys are looked at in a row before the semaphore of requests says who goes on.
const LOOKS_AT_ONCE: usize = 64;

/// What a bucket does with what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// It is gone.
    Never,
    /// It is or was kept as a version.
    Kept,
    /// Nobody says.
    Unknown,
}

/// A version of a key.
struct Version {
    id: String,
    /// Not a mere delete marker.
    has_data: bool,
    /// To be seen.
    is_latest: bool,
    size_bytes: u64,
    written: Option<DateTime<Utc>>,
}

impl S3 {
    /// Whether the bucket keeps versions; asked once.
    async fn versions(&self) -> Result<Versions, StorageError> {
        self.versions
            .get_or_try_init(|| async {
                let send = || self.client.get_bucket_versioning().bucket(&self.bucket).send();
                match self.call(0, send).await.result {
                    // Suspended means that it kept them once.
                    Ok(answer) => Ok(if answer.status.is_some() { Versions::Kept } else { Versions::Never }),
                    Err(Trouble { kind: Kind::Fault(RemoteFault::Denied | RemoteFault::Refused), .. }) => {
                        Ok(Versions::Unknown)
                    }
                    // A store that does not know the question keeps none.
                    Err(Trouble { kind: Kind::Unsupported | Kind::NotFound, .. }) => Ok(Versions::Never),
                    Err(trouble) => Err(self.error("", "asking whether the bucket keeps versions", trouble)),
                }
            })
            .await
            .copied()
    }

    /// Removes one key.
    pub(super) async fn remove(&self, key: &str) -> Result<Deleted, StorageError> {
        if self.versions().await? == Versions::Never {
            if self.head(key).await?.is_none() {
                return Ok(Deleted::Absent);
            }
            self.remove_plainly(key).await?;
            self.must_be_gone(key).await?;
            return Ok(Deleted::Removed);
        }
        let versions = match self.versions_of(key).await {
            Ok(versions) => versions,
            // The bucket's state is not told, nor its versions: what the deletion answers must tell.
            Err(StorageError::Remote { fault: RemoteFault::Denied | RemoteFault::Refused, .. })
                if self.versions().await? == Versions::Unknown =>
            {
                if self.head(key).await?.is_none() {
                    return Ok(Deleted::Absent);
                }
                self.remove_plainly(key).await?;
                self.must_be_gone(key).await?;
                return Ok(Deleted::Removed);
            }
            Err(error) => return Err(error),
        };
        let had_data = versions.iter().any(|version| version.has_data);
        let doomed = versions.into_iter().map(|version| (key.to_owned(), Some(version.id))).collect::<Vec<_>>();
        for batch in doomed.chunks(MAX_DELETED_AT_ONCE) {
            let Err(error) = self.remove_batch(batch).await else { continue };
            // Those that are held are refused as if the right were missing; the others are gone.
            let ids: Vec<String> = batch.iter().filter_map(|(_, version)| version.clone()).collect();
            return match (&error, self.last_hold(key, &ids).await) {
                (StorageError::Remote { fault: RemoteFault::Denied | RemoteFault::Refused, .. }, Ok(Some(until))) => {
                    Ok(Deleted::Held { until: Some(until) })
                }
                _ => Err(error),
            };
        }
        if !doomed.is_empty() {
            self.must_be_gone(key).await?;
        }
        Ok(if had_data { Deleted::Removed } else { Deleted::Absent })
    }

    /// Removes all of these.
    pub(super) async fn remove_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        if self.versions().await? != Versions::Never {
            // Each has versions of its own to be asked for.
            let remove = |key: String| async move { self.remove(&key).await };
            return stream::iter(keys.to_vec()).map(remove).buffered(LOOKS_AT_ONCE).try_collect().await;
        }
        let doomed: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        for batch in doomed.chunks(MAX_DELETED_AT_ONCE) {
            self.remove_batch(batch).await?;
        }
        stream::iter(keys.to_vec())
            .map(|key| async move { self.must_be_gone(&key).await })
            .buffer_unordered(LOOKS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        Ok(vec![Deleted::Removed; keys.len()])
    }

    /// A DELETE without a version. Where its answer tells of versions, it has only hidden.
    async fn remove_plainly(&self, key: &str) -> Result<(), StorageError> {
        let full = self.full(key);
        let send = || self.client.delete_object().bucket(&self.bucket).key(&full).send();
        match self.call(0, send).await.result {
            Ok(answer)
                if answer.delete_marker == Some(true) || answer.version_id.as_ref().is_some_and(|id| id != "null") =>
            {
                Err(StorageError::Remote {
                    place: self.place.clone(),
                    doing: format!("deleting {key}"),
                    fault: RemoteFault::Denied,
                    said: Said::new(
                        "the bucket keeps versions, so it was only hidden; deleting them needs the rights \
                         ListBucketVersions and DeleteObjectVersion",
                    ),
                })
            }
            Ok(_) => Ok(()),
            Err(Trouble { kind: Kind::NotFound, .. }) => Ok(()),
            Err(trouble) => Err(self.error(key, "deleting", trouble)),
        }
    }

    /// One request for up to a thousand keys, or versions of keys.
    async fn remove_batch(&self, batch: &[(String, Option<String>)]) -> Result<(), StorageError> {
        let identifiers: Result<Vec<_>, _> = batch
            .iter()
            .map(|(key, version)| {
                ObjectIdentifier::builder().key(self.full(key)).set_version_id(version.clone()).build()
            })
            .collect();
        let delete = identifiers.and_then(|all| Delete::builder().set_objects(Some(all)).quiet(true).build());
        let doing = format!("deleting {} keys", batch.len());
        // Built of whole parts.
        let delete = delete.map_err(|error| {
            self.error("", &doing, Trouble::new(Kind::Fault(RemoteFault::Refused), &error.to_string()))
        })?;
        let attempt = || {
            let send = self
                .client
                .delete_objects()
                .bucket(&self.bucket)
                .delete(delete.clone())
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .send();
            async move {
                let answer = send.await.map_err(|error| Trouble::of(&error))?;
                // Each key has an answer of its own; the first that is bad stands for all.
                match answer
                    .errors
                    .unwrap_or_default()
                    .into_iter()
                    .find(|error| error.code.as_deref() != Some("NoSuchKey"))
                {
                    None => Ok(()),
                    Some(error) => Err(Trouble::of_part(
                        error.key.as_deref().unwrap_or(""),
                        error.code.as_deref().unwrap_or(""),
                        error.message.as_deref().unwrap_or(""),
                    )),
                }
            }
        };
        match self.tries(0, attempt).await.result {
            Ok(()) => Ok(()),
            // A store without batches.
            Err(Trouble { kind: Kind::Unsupported, .. }) => {
                for (key, version) in batch {
                    match version {
                        None => self.remove_plainly(key).await?,
                        Some(version) => self.remove_version(key, version).await?,
                    }
                }
                Ok(())
            }
            Err(trouble) => Err(self.error("", &doing, trouble)),
        }
    }

    async fn remove_version(&self, key: &str, version: &str) -> Result<(), StorageError> {
        let full = self.full(key);
        let send = || self.client.delete_object().bucket(&self.bucket).key(&full).version_id(version).send();
        match self.call(0, send).await.result {
            Ok(_) | Err(Trouble { kind: Kind::NotFound, .. }) => Ok(()),
            Err(trouble) => Err(self.error(key, "deleting a version of", trouble)),
        }
    }

    /// All versions and markers of one key.
    async fn versions_of(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        let full = self.full(key);
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker): (Option<String>, Option<String>) = (None, None);
        loop {
            let send = || {
                self.client
                    .list_object_versions()
                    .bucket(&self.bucket)
                    .prefix(&full)
                    .set_key_marker(key_marker.clone())
                    .set_version_id_marker(id_marker.clone())
                    .send()
            };
            let page = self
                .call(0, send)
                .await
                .result
                .map_err(|trouble| self.error(key, "listing the versions of", trouble))?;
            // Longer keys begin with this one, too, and come after it.
            let mut others = false;
            for version in page.versions.unwrap_or_default() {
                match (version.key, version.version_id) {
                    (Some(key), Some(id)) if key == full => found.push(Version {
                        id,
                        has_data: true,
                        is_latest: version.is_latest == Some(true),
                        size_bytes: version.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                        written: version.last_modified.as_ref().and_then(moment),
                    }),
                    _ => others = true,
                }
            }
            for marker in page.delete_markers.unwrap_or_default() {
                match (marker.key, marker.version_id) {
                    (Some(key), Some(id)) if key == full => found.push(Version {
                        id,
                        has_data: false,
                        is_latest: marker.is_latest == Some(true),
                        size_bytes: 0,
                        written: None,
                    }),
                    _ => others = true,
                }
            }
            let next = (page.next_key_marker, page.next_version_id_marker);
            if page.is_truncated != Some(true) || others || next == (key_marker.clone(), id_marker.clone()) {
                return Ok(found);
            }
            (key_marker, id_marker) = next;
        }
    }

    /// Versions with data that are not to be seen.
    pub(super) async fn hidden_versions(&self, key: &str) -> Result<Vec<super::Version>, StorageError> {
        if self.versions().await? == Versions::Never {
            return Ok(Vec::new());
        }
        let hidden = self.versions_of(key).await?.into_iter().filter(|version| version.has_data && !version.is_latest);
        Ok(hidden.map(|Version { id, size_bytes, written, .. }| super::Version { id, size_bytes, written }).collect())
    }

    async fn must_be_gone(&self, key: &str) -> Result<(), StorageError> {
        match self.head(key).await? {
            None => Ok(()),
            Some(_) => Err(StorageError::Remote {
                place: self.place.clone(),
                doing: format!("deleting {key}"),
                fault: RemoteFault::NotGone,
                said: Said::new("asked after the deletion it is there"),
            }),
        }
    }
}
