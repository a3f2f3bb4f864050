//! Putting: once, or in place of what is there.
//!
//! `If-None-Match: *` makes a put create or fail. Not every store obeys it, so the first object that a process puts is put
//! twice: the second must be refused. Where it is not, a put looks first, and reads back what is there afterwards.

use std::sync::OnceLock;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use base64::Engine as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::super::{Put, RemoteFault, Storage as _, StorageError};
use super::S3;
use super::lock::Hold;
use super::trouble::{Kind, Trouble};

/// Whether the store has create-only puts, once it is known.
#[derive(Default)]
pub(super) struct Creation {
    known: OnceLock<CreateOnly>,
    /// Held while that is found out, and while a key is created by looking first: two of this process must not look at
    /// once.
    one_at_a_time: Mutex<()>,
}

impl Creation {
    /// As if it had been found out.
    #[cfg(test)]
    pub(super) fn know(&self, kept: bool) {
        self.known.set(if kept { CreateOnly::Kept } else { CreateOnly::Ignored }).unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreateOnly {
    /// It refuses to create what is there.
    Kept,
    /// It ignores the header, or does not know it.
    Ignored,
}

/// What may be under the key already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Nothing,
    Anything,
}

/// Bytes to be put, and their sum as S3 writes it.
struct Body {
    bytes: Bytes,
    sha256: String,
    hold: Option<Hold>,
}

impl Body {
    fn of(bytes: &Bytes) -> Self {
        let sha256 = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(bytes));
        Self { bytes: bytes.clone(), sha256, hold: None }
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl S3 {
    /// The one place where a request to put is made.
    async fn send_put(
        &self,
        full: &str,
        body: &Body,
        over: Over,
    ) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
        let mut request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(full)
            .content_length(i64::try_from(body.bytes.len()).unwrap_or(i64::MAX))
            .checksum_sha256(&body.sha256)
            .body(ByteStream::from(body.bytes.clone()));
        if over == Over::Nothing {
            request = request.if_none_match("*");
        }
        if let Some(hold) = &body.hold {
            // With a hold AWS wants the sum's name as well, in a header of its own.
            request = request.checksum_algorithm(ChecksumAlgorithm::Sha256);
            request = request.object_lock_mode(hold.mode.clone()).object_lock_retain_until_date(hold.until);
        }
        // The sum above is signed, and checked by the store: signing the body would only hash it once more.
        request.customize().disable_payload_signing().send().await
    }

    /// Puts if nothing is there.
    pub(super) async fn create(&self, key: &str, bytes: Bytes, hold: Option<Hold>) -> Result<Put, StorageError> {
        let body = Body { hold, ..Body::of(&bytes) };
        self.bandwidth.book(body.length()).await;
        if self.creation.known.get().is_none() {
            // Others that put meanwhile wait for what is found out.
            let _asking = self.creation.one_at_a_time.lock().await;
            if self.creation.known.get().is_none() {
                return self.find_out(key, &body).await;
            }
        }
        match self.creation.known.get() {
            Some(CreateOnly::Ignored) => self.look_and_put(key, &body).await,
            Some(CreateOnly::Kept) | None => match self.create_only(key, &body).await? {
                Some(put) => Ok(put),
                None => {
                    Err(self.error(key, "writing", Trouble::new(Kind::Unsupported, "If-None-Match was taken before")))
                }
            },
        }
    }

    /// Puts the first object, and finds out whether the store creates once.
    async fn find_out(&self, key: &str, body: &Body) -> Result<Put, StorageError> {
        // A store that ignores the condition would overwrite, so it is looked first. What is there teaches nothing.
        if self.head(key).await?.is_some() {
            return Ok(Put::Existed);
        }
        let found = |known| {
            // Only the first finding counts, and there is only one: whoever finds out holds the lock.
            let _ = self.creation.known.set(known);
        };
        match self.create_only(key, body).await? {
            None => {
                found(CreateOnly::Ignored);
                return self.put_unseen(key, body).await;
            }
            Some(Put::Existed) => {
                found(CreateOnly::Kept);
                return Ok(Put::Existed);
            }
            Some(Put::Created) => {}
        }
        // The same bytes once more: harmless where they are taken.
        let full = self.full(key);
        let again = self.call(body.length(), || self.send_put(&full, body, Over::Nothing)).await;
        match again.result {
            Ok(_) => found(CreateOnly::Ignored),
            // Whoever may not overwrite cannot do so by mistake either.
            Err(Trouble { kind: Kind::Precondition | Kind::Fault(RemoteFault::Denied), .. }) => found(CreateOnly::Kept),
            Err(trouble) => return Err(self.error(key, "writing", trouble)),
        }
        Ok(Put::Created)
    }

    /// A put that the store refuses where something is there; nothing where it does not know such puts.
    async fn create_only(&self, key: &str, body: &Body) -> Result<Option<Put>, StorageError> {
        let full = self.full(key);
        let outcome = self.call(body.length(), || self.send_put(&full, body, Over::Nothing)).await;
        match outcome.result {
            Ok(_) => Ok(Some(Put::Created)),
            Err(trouble) if trouble.kind == Kind::Precondition => {
                // An earlier try may have been ours, and its answer lost.
                if outcome.lost && self.holds(key, body).await? {
                    return Ok(Some(Put::Created));
                }
                if self.head(key).await?.is_some() {
                    return Ok(Some(Put::Existed));
                }
                // It was deleted just now, or the store refuses what it does not have: SeaweedFS does where the key's
                // versions are all deleted and longer keys begin with it. Nobody may believe that something is there.
                self.put_unseen(key, body).await.map(Some)
            }
            Err(trouble) if trouble.kind == Kind::Unsupported => Ok(None),
            Err(trouble) => Err(self.error_of_put(key, trouble)),
        }
    }

    /// For stores that cannot refuse: whoever comes second sees what is there, and two at once find out afterwards.
    async fn look_and_put(&self, key: &str, body: &Body) -> Result<Put, StorageError> {
        let _looking = self.creation.one_at_a_time.lock().await;
        if self.head(key).await?.is_some() {
            return Ok(Put::Existed);
        }
        self.put_unseen(key, body).await
    }

    async fn put_unseen(&self, key: &str, body: &Body) -> Result<Put, StorageError> {
        self.overwrite_with(key, body).await?;
        if self.holds(key, body).await? {
            return Ok(Put::Created);
        }
        Err(StorageError::Conflict { place: self.place.clone(), key: key.to_owned() })
    }

    /// Puts in place of whatever is there.
    pub(super) async fn overwrite(&self, key: &str, bytes: &Bytes) -> Result<(), StorageError> {
        let body = Body::of(bytes);
        self.bandwidth.book(body.length()).await;
        self.overwrite_with(key, &body).await
    }

    async fn overwrite_with(&self, key: &str, body: &Body) -> Result<(), StorageError> {
        let full = self.full(key);
        let outcome = self.call(body.length(), || self.send_put(&full, body, Over::Anything)).await;
        match outcome.result {
            Ok(_) => Ok(()),
            // Lost on the last try: what is there tells.
            Err(trouble) if trouble.kind.may_be_done() && self.holds(key, body).await.unwrap_or(false) => Ok(()),
            Err(trouble) => Err(self.error_of_put(key, trouble)),
        }
    }

    /// Whether these very bytes lie there.
    async fn holds(&self, key: &str, body: &Body) -> Result<bool, StorageError> {
        match self.get(key, body.length()).await {
            Ok(there) => Ok(there == body.bytes),
            Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn error_of_put(&self, key: &str, trouble: Trouble) -> StorageError {
        match trouble.kind {
            // Only a bucket can be missing where something is put.
            Kind::NotFound => {
                self.error(key, "writing", Trouble { kind: Kind::Fault(RemoteFault::NoBucket), ..trouble })
            }
            _ => self.error(key, "writing", trouble),
        }
    }
}
