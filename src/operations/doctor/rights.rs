//! What this host may do in a vault across a network, and what whoever breaks into it could do: each right is tried on
//! objects of doctor's own below `doctor/`, and nothing else is touched.
//!
//! Which rights are right depends on what the host is for (docs/OBJECT-LOCK.md): one that backs up needs no right to delete.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::host::Host;
use super::super::vaults::OpenVault;
use super::Finding;
use crate::error::{Code, Error, Result};
use crate::storage::{Deleted, LockMode, Put, Storage, StorageError};

/// Where doctor's own objects lie.
const FOLDER: &str = "doctor/";
/// How long the object is held that shows whether holding works: long enough for the next call.
const HELD_FOR: TimeDelta = TimeDelta::minutes(2);
/// Nothing of doctor's is larger.
const MAX_BYTES: u64 = 1024;

/// Who deletes what has had its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prunes {
    /// This host, after its backups or when somebody starts it.
    Here,
    /// This host, after each copy into the vault.
    AfterCopies,
    /// Another one, as far as the config says.
    Elsewhere,
}

/// Tries each right. Nothing for a folder, whose rights are the file system's.
#[must_use]
pub fn rights(host: &Host, name: &str, vault: &OpenVault, prunes: Prunes) -> Vec<Finding> {
    if vault.folder().is_some() {
        return Vec::new();
    }
    // One object a host, whatever else is forbidden: who may not delete leaves no more than that behind.
    let whose = host.key().map_or_else(|_| "nobody".to_owned(), |key| key.public().id().to_string());
    let probe = Probe { about: format!("vault {name}"), key: format!("{FOLDER}{whose}") };
    host.runtime.block_on(probe.all(&*vault.storage, prunes))
}

struct Probe {
    about: String,
    key: String,
}

/// What came of asking for something.
enum Tried<T> {
    Done(T),
    Denied,
}

fn tried<T>(result: std::result::Result<T, StorageError>) -> Result<Tried<T>> {
    match result {
        Ok(done) => Ok(Tried::Done(done)),
        Err(StorageError::Failed { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Ok(Tried::Denied)
        }
        Err(error) => {
            let error = Error::from(error);
            if error.code() == Code::StorageDenied { Ok(Tried::Denied) } else { Err(error) }
        }
    }
}

impl Probe {
    async fn all(&self, storage: &dyn Storage, prunes: Prunes) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = self.try_all(storage, prunes, &mut findings).await {
            findings.push(Finding::of(&self.about, &error));
        }
        findings
    }

    async fn try_all(&self, storage: &dyn Storage, prunes: Prunes, findings: &mut Vec<Finding>) -> Result<()> {
        let mut may = Vec::new();
        match tried(storage.list(FOLDER, &mut |_| {}).await)? {
            Tried::Done(()) => may.push("list"),
            Tried::Denied => {
                findings.push(self.problem("this host may not list what is there, and nothing works without"));
            }
        }
        let put = tried(storage.put(&self.key, Bytes::from_static(b"lifeboat doctor\n")).await)?;
        match put {
            Tried::Done(Put::Created) => may.push("put"),
            // Left by an earlier doctor that might not delete it: no store need have looked at this host's rights.
            Tried::Done(Put::Existed) => {}
            Tried::Denied => findings.push(Finding::warning(
                &self.about,
                format!(
                    "this host may not put anything into {}: it can restore, and neither back up nor record a drill",
                    storage.describe()
                ),
                "give it the policy of a writer or a driller (docs/OBJECT-LOCK.md), if that is what it is",
            )),
        }
        storage.sync().await?;
        if matches!(put, Tried::Done(_)) {
            match tried(storage.get(&self.key, MAX_BYTES).await)? {
                Tried::Done(_) => may.push("read"),
                Tried::Denied => {
                    findings.push(self.problem("this host may not read what it put: it can check and restore nothing"));
                }
            }
        }
        let at = findings.len();
        let overwrites = match put {
            Tried::Denied => Tried::Denied,
            Tried::Done(_) => self.try_to_overwrite(storage, findings).await?,
        };
        if let (Tried::Done(Put::Existed), Tried::Done(())) = (&put, &overwrites) {
            may.insert(may.len().min(1), "put");
        }
        if !may.is_empty() {
            findings.insert(at, Finding::ok(&self.about, format!("this host may {}", may.join(", "))));
        }
        match (put, overwrites) {
            (Tried::Denied, _) => return Ok(()),
            (Tried::Done(Put::Existed), Tried::Denied) => findings.push(Finding::ok(
                &self.about,
                format!("{} is there from before: whether it may put what is new, the next backup shows", self.key),
            )),
            _ => {}
        }
        // A copy holds nothing.
        if let Some(mode) = storage.lock().filter(|_| prunes != Prunes::AfterCopies) {
            self.try_to_hold(storage, mode, findings).await?;
        }
        self.try_to_delete(storage, prunes, findings).await
    }

    /// What a thief with this host's keys could do to what is there; gives whether it may be overwritten.
    async fn try_to_overwrite(&self, storage: &dyn Storage, findings: &mut Vec<Finding>) -> Result<Tried<()>> {
        let replaced = tried(storage.replace(&self.key, Bytes::from_static(b"lifeboat doctor, again\n")).await)?;
        findings.push(match replaced {
            Tried::Denied => Finding::ok(&self.about, "it may not overwrite what is there".to_owned()),
            Tried::Done(()) => match tried(storage.earlier(&self.key).await)? {
                Tried::Done(earlier) if !earlier.is_empty() => Finding::ok(
                    &self.about,
                    "it may overwrite what is there, and what was overwritten is kept and can be read".to_owned(),
                ),
                _ => Finding::warning(
                    &self.about,
                    "it may overwrite what is there, and nothing shows that what was overwritten is kept: so could whoever \
                     breaks into this host"
                        .to_owned(),
                    "switch the bucket's versioning on, with Object Lock if it can be had; docs/OBJECT-LOCK.md says how",
                ),
            },
        });
        Ok(replaced)
    }

    /// Whether what is held can be deleted all the same.
    async fn try_to_hold(&self, storage: &dyn Storage, mode: LockMode, findings: &mut Vec<Finding>) -> Result<()> {
        let key = format!("{}-held", self.key);
        let until: DateTime<Utc> = storage.now().await? + HELD_FOR;
        let held = match storage.put_held(&key, Bytes::from_static(b"lifeboat doctor\n"), until).await {
            Ok(Put::Existed) => {
                storage.sync().await?;
                tried(storage.hold(&key, until).await)?
            }
            put => match tried(put)? {
                Tried::Done(_) => {
                    storage.sync().await?;
                    Tried::Done(until)
                }
                Tried::Denied => Tried::Denied,
            },
        };
        if let Tried::Denied = held {
            findings.push(
                self.problem(
                    "this host may not hold what it stores, and `lock` says that it should: backups will fail",
                ),
            );
            return Ok(());
        }
        findings.push(match tried(storage.delete(&key).await)? {
            Tried::Done(Deleted::Held { .. }) | Tried::Denied => {
                Finding::ok(&self.about, format!("what is held ({}) cannot be deleted", mode.word()))
            }
            Tried::Done(Deleted::Removed | Deleted::Absent) => self.problem(
                "what was held could be deleted at once: this host has the right to pass over the lock, or the store does not keep it",
            ),
        });
        Ok(())
    }

    async fn try_to_delete(&self, storage: &dyn Storage, prunes: Prunes, findings: &mut Vec<Finding>) -> Result<()> {
        let deleted = tried(storage.delete(&self.key).await)?;
        storage.sync().await?;
        findings.push(match (deleted, prunes) {
            (Tried::Denied, Prunes::Elsewhere) => {
                Finding::ok(&self.about, "it may not delete: prunes run elsewhere".to_owned())
            }
            (Tried::Denied, Prunes::Here) => Finding::warning(
                &self.about,
                "it may not delete, and by the config its prunes run here: nothing will be erased".to_owned(),
                "give the job a [job.NAME.prune] with a schedule, and run `lifeboat prune` on a host with a keeper's policy \
                 (docs/OBJECT-LOCK.md)",
            ),
            (Tried::Denied, Prunes::AfterCopies) => Finding::warning(
                &self.about,
                "it may not delete: each copy is followed by a prune, which will fail, and nothing is erased".to_owned(),
                "give it the right; or write `prune = false` into [job.NAME.copy], and run `lifeboat prune --vault` with this vault \
                 on a host that may (docs/COPY.md)",
            ),
            (Tried::Done(Deleted::Removed | Deleted::Absent), Prunes::AfterCopies) => Finding::warning(
                &self.about,
                "it may delete what is there, as a copy's prunes must: so could whoever breaks into this host".to_owned(),
                "let the place keep what is deleted for some days (snapshots, versions), or copy from a host that does nothing else",
            ),
            (Tried::Done(Deleted::Held { until }), _) => {
                let until = until.map_or_else(String::new, |until| format!(" until {}", until.format("%Y-%m-%d %H:%M UTC")));
                Finding::problem(
                    &self.about,
                    format!(
                        "what nobody asked to be held is held{until}: the bucket has a default retention, and claims and records \
                         that are done with cannot be deleted"
                    ),
                    Some("take the default retention out of the bucket's Object Lock configuration: lifeboat says for each object how long"),
                )
            }
            (Tried::Done(_), _) if storage.lock().is_some() => Finding::ok(
                &self.about,
                "it may delete what is not held".to_owned(),
            ),
            (Tried::Done(_), _) => Finding::warning(
                &self.about,
                "it may delete what is there, and nothing is held: so could whoever breaks into this host".to_owned(),
                "write lock = \"governance\" or \"compliance\" into the vault's table, for a bucket that was made with Object \
                 Lock; or take the right to delete from this host and prune elsewhere (docs/OBJECT-LOCK.md)",
            ),
        });
        Ok(())
    }

    fn problem(&self, message: &str) -> Finding {
        Finding::problem(&self.about, message.to_owned(), Some("docs/OBJECT-LOCK.md lists who needs which rights"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::operations::doctor::Grade;
    use crate::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
    use crate::storage::memory::Memory;

    fn memory(lock: Option<LockMode>) -> Memory {
        let clock = Arc::new(ManualClock::at("2026-11-22T02:00:00Z".parse().unwrap()));
        match lock {
            None => Memory::new(clock),
            Some(mode) => Memory::with_lock(clock, mode),
        }
    }

    async fn findings(storage: &dyn Storage, prunes: Prunes) -> Vec<(Grade, String)> {
        let probe = Probe { about: "vault main".into(), key: "doctor/0123".into() };
        probe.all(storage, prunes).await.into_iter().map(|finding| (finding.grade, finding.message)).collect()
    }

    fn says(findings: &[(Grade, String)], grade: Grade, what: &str) {
        assert!(findings.iter().any(|(of, message)| *of == grade && message.contains(what)), "{what}: {findings:#?}");
    }

    #[tokio::test]
    async fn everything_allowed_and_nothing_held_is_told() {
        let store = memory(None);
        let found = findings(&store, Prunes::Here).await;
        says(&found, Grade::Ok, "may list, put, read");
        says(&found, Grade::Warning, "may overwrite what is there, and nothing shows");
        says(&found, Grade::Warning, "may delete what is there, and nothing is held");
        assert_eq!(store.size("doctor/0123").await.unwrap(), None, "doctor leaves nothing behind");
    }

    #[tokio::test]
    async fn a_vault_that_holds_is_as_it_should_be_twice() {
        let store = memory(Some(LockMode::Compliance));
        for _ in 0..2 {
            let found = findings(&store, Prunes::Here).await;
            says(&found, Grade::Ok, "what was overwritten is kept");
            says(&found, Grade::Ok, "what is held (compliance) cannot be deleted");
            says(&found, Grade::Ok, "may delete what is not held");
            assert!(found.iter().all(|(grade, _)| *grade == Grade::Ok), "{found:#?}");
        }
    }

    #[tokio::test]
    async fn each_right_that_is_missing_is_named() {
        // The calls of one examination: list, put, sync, get, replace, earlier, delete, sync.
        for (call, prunes, grade, what) in [
            (1, Prunes::Elsewhere, Grade::Problem, "may not list"),
            (2, Prunes::Elsewhere, Grade::Warning, "may not put"),
            (4, Prunes::Elsewhere, Grade::Problem, "may not read"),
            (5, Prunes::Elsewhere, Grade::Ok, "may not overwrite"),
            (7, Prunes::Elsewhere, Grade::Ok, "may not delete: prunes run elsewhere"),
            (7, Prunes::Here, Grade::Warning, "may not delete, and by the config"),
        ] {
            let effect = Effect::Fail(std::io::ErrorKind::PermissionDenied);
            let plan = Plan { at_call: call, moment: Moment::Before, effect, lasting: Lasting::Once };
            let store = Fault::planned(Arc::new(memory(None)), plan);
            says(&findings(&store, prunes).await, grade, what);
        }
    }

    /// The actions that a policy's statements with this effect name.
    fn actions(policy: &serde_json::Value, effect: &str) -> BTreeSet<String> {
        let of_effect = policy["Statement"].as_array().unwrap().iter().filter(|one| one["Effect"] == effect);
        let all = of_effect.flat_map(|one| match &one["Action"] {
            serde_json::Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        });
        all.map(|action| action.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_policies_of_the_docs_give_each_host_what_it_needs_and_no_more() {
        let writer = include_str!("../../../docs/policies/writer.json");
        let keeper = include_str!("../../../docs/policies/keeper.json");
        let driller = include_str!("../../../docs/policies/driller.json");
        for (text, needs, never) in [
            (
                writer,
                &["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:PutObjectRetention"][..],
                &["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"][..],
            ),
            (
                keeper,
                &[
                    "s3:ListBucketVersions",
                    "s3:DeleteObjectVersion",
                    "s3:GetObjectRetention",
                    "s3:AbortMultipartUpload",
                ],
                &["s3:BypassGovernanceRetention", "s3:PutObjectRetention"],
            ),
            (
                driller,
                &["s3:ListBucket", "s3:GetObject", "s3:GetObjectVersion"],
                &["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectRetention", "s3:BypassGovernanceRetention"],
            ),
        ] {
            let policy: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(policy["Version"], "2012-10-17");
            let (allowed, denied) = (actions(&policy, "Allow"), actions(&policy, "Deny"));
            for action in needs {
                assert!(allowed.contains(*action), "{action}");
            }
            for action in never {
                assert!(!allowed.contains(*action) && denied.contains(*action), "{action}");
            }
            assert!(allowed.iter().all(|action| !action.contains('*')), "{allowed:?}");
            for statement in policy["Statement"].as_array().unwrap() {
                let resources = statement["Resource"].to_string();
                assert!(resources.contains("arn:aws:s3:::BUCKET"), "{statement}");
            }
        }
        let cap = serde_json::from_str::<serde_json::Value>(writer).unwrap()["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["Effect"] == "Deny" && !one["Condition"]["NumericGreaterThan"].is_null())
            .unwrap()
            .clone();
        assert_eq!(cap["Action"], serde_json::json!(["s3:PutObject", "s3:PutObjectRetention"]));
        // Who has no identity has no use for the sealed data either.
        let keeper: serde_json::Value = serde_json::from_str(keeper).unwrap();
        let reads = keeper["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["Action"].to_string().contains("\"s3:GetObject\""));
        assert!(
            reads.clone().count() == 1 && reads.clone().all(|one| !one["Resource"].to_string().contains("objects"))
        );
    }
}
