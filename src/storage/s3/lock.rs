//! Object Lock: holding versions against deletion, and reading those that lie under others.
//!
//! A hold is of one version. Whoever overwrites or deletes puts something on top of it, and what lies below stays as long as
//! it is held, and can be read by its name.

use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use chrono::{DateTime, TimeDelta, Utc};

use super::super::{LockMode, RemoteFault, StorageError, Version, keep_ends};
use super::S3;
use super::listing::moment;
use super::trouble::{Kind, Trouble};

/// How a put holds what it stores.
#[derive(Clone)]
pub(super) struct Hold {
    pub(super) mode: ObjectLockMode,
    pub(super) until: SdkTime,
}

impl S3 {
    /// The lock, once it is known that the bucket has any.
    pub(super) async fn must_lock(&self, doing: &str) -> Result<LockMode, StorageError> {
        let no_lock = || StorageError::NoLock { place: self.place.clone(), doing: doing.to_owned() };
        let mode = self.lock_mode.ok_or_else(no_lock)?;
        let has_lock = self
            .has_lock
            .get_or_try_init(|| async {
                let send = || self.client.get_object_lock_configuration().bucket(&self.bucket).send();
                match self.call(0, send).await.result {
                    Ok(answer) => {
                        Ok(answer.object_lock_configuration.is_some_and(|it| it.object_lock_enabled.is_some()))
                    }
                    // Who may not ask finds out by the first put, which the bucket refuses.
                    Err(Trouble { kind: Kind::Fault(RemoteFault::Denied), .. }) => Ok(true),
                    Err(Trouble { kind: Kind::NotFound | Kind::Unsupported, .. }) => Ok(false),
                    Err(trouble) => Err(self.error("", "asking whether the bucket has Object Lock", trouble)),
                }
            })
            .await?;
        if *has_lock { Ok(mode) } else { Err(no_lock()) }
    }

    pub(super) async fn hold_of_put(&self, key: &str, until: DateTime<Utc>) -> Result<Hold, StorageError> {
        let mode = match self.must_lock(&format!("storing {key}")).await? {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        Ok(Hold { mode, until: whole_seconds(until) })
    }

    /// Makes the hold of the newest version longer. A store refuses to make it shorter, and then it says how long it is.
    pub(super) async fn lengthen(&self, key: &str, until: DateTime<Utc>) -> Result<DateTime<Utc>, StorageError> {
        let mode = match self.must_lock(&format!("holding {key}")).await? {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let full = self.full(key);
        let until_seconds = whole_seconds(until);
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(until_seconds).build();
        let send = || {
            let request = self.client.put_object_retention().bucket(&self.bucket).key(&full);
            request.retention(retention.clone()).send()
        };
        match self.call(0, send).await.result {
            Ok(_) => Ok(moment(&until_seconds).unwrap_or(until)),
            Err(trouble) if trouble.kind == Kind::NotFound => Err(self.error(key, "holding", trouble)),
            Err(trouble) => match self.retained(key, None).await {
                Ok(Some(held)) if held >= until => Ok(held),
                Ok(_) => Err(self.error(key, "holding", trouble)),
                // Some stores refuse before they look whether anything is there.
                Err(error) if error.is_not_found() => Err(error),
                Err(_) => Err(self.error(key, "holding", trouble)),
            },
        }
    }

    /// Until when a version is held, the newest or one by its name.
    pub(super) async fn retained(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<DateTime<Utc>>, StorageError> {
        let full = self.full(key);
        let send = || {
            let request = self.client.head_object().bucket(&self.bucket).key(&full);
            request.set_version_id(version.map(str::to_owned)).send()
        };
        match self.call(0, send).await.result {
            Ok(head) => Ok(head.object_lock_retain_until_date.as_ref().and_then(moment)),
            Err(trouble) => Err(self.error(key, "asking until when it is held:", trouble)),
        }
    }

    /// Until when the last of these versions is held that would not be deleted; nothing where none is held.
    pub(super) async fn last_hold(
        &self,
        key: &str,
        versions: &[String],
    ) -> Result<Option<DateTime<Utc>>, StorageError> {
        let now = super::Storage::now(self).await?;
        let mut last = None;
        for version in versions {
            match self.retained(key, Some(version)).await {
                Ok(until) => last = last.max(until.filter(|until| *until > now)),
                // A mere marker, or gone by now.
                Err(StorageError::NotFound { .. } | StorageError::Remote { fault: RemoteFault::Refused, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(last)
    }

    /// What lies under what is to be seen.
    pub(super) async fn hidden(&self, key: &str) -> Result<Vec<Version>, StorageError> {
        let mut hidden = self.hidden_versions(key).await?;
        // The newest first, however the store tells them; what is as new keeps its order.
        hidden.sort_by_key(|version| std::cmp::Reverse(version.written));
        keep_ends(&mut hidden);
        Ok(hidden)
    }

    /// For a person with AWS's own tool.
    pub(super) fn undoing_words(&self, key: &str) -> String {
        let full = self.full(key);
        format!(
            "aws s3api list-object-versions --bucket {0} --prefix '{full}' shows them, and aws s3api delete-object --bucket {0} \
             --key '{full}' --version-id ID takes away what is newer than the right one",
            self.bucket
        )
    }
}

/// A part of a second is one more: nothing is held shorter than was asked for.
fn whole_seconds(until: DateTime<Utc>) -> SdkTime {
    let up = until + TimeDelta::nanoseconds(999_999_999);
    SdkTime::from_secs(up.timestamp())
}
