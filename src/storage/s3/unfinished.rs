//! Multipart uploads that were begun below the vault's prefix and never finished. We make none; others with our keys may,
//! and their parts are paid for and hidden from every listing.

use super::super::{RemoteFault, StorageError};
use super::S3;
use super::listing::{decoded, moment};
use super::trouble::{Kind, Trouble};

use aws_sdk_s3::types::EncodingType;
use chrono::{DateTime, Utc};

impl S3 {
    /// Aborts those that were begun before a time.
    pub(super) async fn abort_uploads(&self, before: DateTime<Utc>) -> Result<u64, StorageError> {
        const DOING: &str = "looking for unfinished uploads";
        let (mut key_marker, mut id_marker): (Option<String>, Option<String>) = (None, None);
        let mut aborted = 0;
        loop {
            let send = || {
                self.client
                    .list_multipart_uploads()
                    .bucket(&self.bucket)
                    .prefix(&self.prefix)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone())
                    .encoding_type(EncodingType::Url)
                    .send()
            };
            let page = match self.call(0, send).await.result {
                Ok(page) => page,
                // A store without multipart uploads has none.
                Err(Trouble { kind: Kind::Unsupported, .. }) => return Ok(aborted),
                Err(Trouble { kind: Kind::NotFound, said }) => {
                    return Err(self.error("", DOING, Trouble { kind: Kind::Fault(RemoteFault::NoBucket), said }));
                }
                Err(trouble) => return Err(self.error("", DOING, trouble)),
            };
            let encoded = page.encoding_type == Some(EncodingType::Url);
            let plain = |text: String| if encoded { decoded(&text) } else { text };
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key.map(plain), upload.upload_id) else { continue };
                let old = upload.initiated.as_ref().and_then(moment).is_some_and(|begun| begun < before);
                if old && key.starts_with(&self.prefix) {
                    aborted += u64::from(self.abort(&key, &id).await?);
                }
            }
            let next = (page.next_key_marker.map(plain), page.next_upload_id_marker);
            if page.is_truncated != Some(true) || next == (key_marker, id_marker) {
                return Ok(aborted);
            }
            (key_marker, id_marker) = next;
        }
    }

    /// False where somebody else was faster.
    async fn abort(&self, full: &str, id: &str) -> Result<bool, StorageError> {
        let send = || self.client.abort_multipart_upload().bucket(&self.bucket).key(full).upload_id(id).send();
        match self.call(0, send).await.result {
            Ok(_) => Ok(true),
            Err(Trouble { kind: Kind::NotFound, .. }) => Ok(false),
            Err(trouble) => Err(self.error("", "giving up an unfinished upload", trouble)),
        }
    }
}
