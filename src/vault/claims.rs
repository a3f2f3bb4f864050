//! Claims in the vault: made, renewed, given up, and read by whoever sweeps.
//!
//! A claim is not signed and never changed: the next number renews it. It is created or not, so that two runs cannot
//! both have made it. One that cannot be read claims everything, as long as any claim may hold.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::VaultError;
use super::layout::{ClaimName, Key};
use super::manifests::put_and_sync;
use crate::domain::claim::{CLAIM_HOLDS_AT_MOST, CLAIM_TYPE, CLAIM_VERSION, Claim};
use crate::domain::ids::{JobName, RunId};
use crate::storage::{Storage, StorageError};

/// No claim is larger: it names lists and contents, not segments.
pub const MAX_CLAIM_BYTES: u64 = 16 * 1024 * 1024;

/// The newest claim of a run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundClaim {
    /// Where it lies.
    pub name: ClaimName,
    /// When the store last saw it.
    pub modified: Option<DateTime<Utc>>,
    /// What it says, or why that cannot be known.
    pub claim: Result<Claim, String>,
}

impl FoundClaim {
    /// Whether it holds at `now`, by the store's clock.
    #[must_use]
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        match &self.claim {
            Ok(claim) => claim.holds(now, self.modified),
            Err(_) => self.modified.is_none_or(|seen| now <= seen + CLAIM_HOLDS_AT_MOST),
        }
    }
}

/// Writes a claim; it is durable and seen by everybody when this returns.
///
/// # Errors
/// The store's; [`StorageError::Conflict`] where another run made a claim of the same name.
pub async fn write_claim(storage: &dyn Storage, claim: &Claim) -> Result<ClaimName, VaultError> {
    let name = ClaimName::of(claim);
    let mut document = serde_json::to_vec_pretty(claim).expect("a claim is always representable as JSON");
    document.push(b'\n');
    put_and_sync(storage, &Key::Claim(name.clone()).to_string(), &document.into()).await?;
    Ok(name)
}

/// Claims that lie in the store, and when it last saw them.
pub type ListedClaims = Vec<(ClaimName, Option<DateTime<Utc>>)>;

/// Lists the claims of a job, or of all jobs: renewed ones too, as long as they lie there.
///
/// # Errors
/// The store's.
pub async fn list_claims(storage: &dyn Storage, job: Option<&JobName>) -> Result<ListedClaims, StorageError> {
    let mut listed = Vec::new();
    storage
        .list(&Key::claims_of(job), &mut |found| {
            if let Key::Claim(name) = Key::parse(&found.key) {
                listed.push((name, found.modified));
            }
        })
        .await?;
    Ok(listed)
}

/// Reads the newest claim of each run of a job, or of all jobs, whether or not it still holds.
///
/// # Errors
/// The store's, where it fails; a claim that cannot be understood is in the answer.
pub async fn read_claims(storage: &dyn Storage, job: Option<&JobName>) -> Result<Vec<FoundClaim>, VaultError> {
    read_listed_claims(storage, list_claims(storage, job).await?).await
}

/// The same of what was just listed.
///
/// # Errors
/// As [`read_claims`].
pub async fn read_listed_claims(storage: &dyn Storage, listed: ListedClaims) -> Result<Vec<FoundClaim>, VaultError> {
    type Newest = (u64, Option<DateTime<Utc>>);
    let mut newest: BTreeMap<(JobName, RunId), Newest> = BTreeMap::new();
    for (name, modified) in listed {
        let newest = newest.entry((name.job, name.run)).or_insert((0, None));
        if name.number >= newest.0 {
            *newest = (name.number, modified);
        }
    }
    let found: Vec<Option<FoundClaim>> = stream::iter(newest)
        .map(|((job, run), (number, modified))| read_newest(storage, ClaimName { job, run, number }, modified))
        .buffered(storage.parallel().max(1))
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Reads a claim that was listed, or the one that renewed it; `None` where it was given up.
async fn read_newest(
    storage: &dyn Storage,
    mut name: ClaimName,
    mut modified: Option<DateTime<Utc>>,
) -> Result<Option<FoundClaim>, VaultError> {
    loop {
        match storage.get(&Key::Claim(name.clone()).to_string(), MAX_CLAIM_BYTES).await {
            Ok(document) => return Ok(Some(FoundClaim { claim: parse(&name, &document), name, modified })),
            // Gone since the listing: given up, because its run has ended, or renewed by the next number.
            Err(error) if error.is_not_found() => match newest_after(storage, &name).await? {
                Some(renewed) => (name, modified) = renewed,
                None => return Ok(None),
            },
            Err(error @ (StorageError::TooLarge { .. } | StorageError::NotAFile { .. })) => {
                return Ok(Some(FoundClaim { claim: Err(error.to_string()), name, modified }));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The newest claim of the same run with a higher number.
async fn newest_after(
    storage: &dyn Storage,
    claim: &ClaimName,
) -> Result<Option<(ClaimName, Option<DateTime<Utc>>)>, VaultError> {
    let mut newest: Option<(ClaimName, Option<DateTime<Utc>>)> = None;
    storage
        .list(&Key::claims_of(Some(&claim.job)), &mut |listed| match Key::parse(&listed.key) {
            Key::Claim(name)
                if name.run == claim.run
                    && name.number > newest.as_ref().map_or(claim.number, |(newest, _)| newest.number) =>
            {
                newest = Some((name, listed.modified));
            }
            _ => {}
        })
        .await?;
    Ok(newest)
}

/// How a claim was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It is gone.
    Removed,
    /// Whoever wrote it may not remove it: it says of itself that it is over, and a sweep removes it.
    Ended,
}

/// Gives up every claim of a run. Not synced: a claim that comes back after a crash lapses by itself.
///
/// # Errors
/// The store's. That it does not let this host remove anything is none.
pub async fn give_up(storage: &dyn Storage, job: &JobName, run: &RunId) -> Result<GivenUp, VaultError> {
    let mut names = Vec::new();
    storage
        .list(&Key::claims_of(Some(job)), &mut |listed| match Key::parse(&listed.key) {
            Key::Claim(name) if name.run == *run => names.push(name),
            _ => {}
        })
        .await?;
    // The newest last: whoever dies in between leaves the one that counts.
    names.sort_by_key(|name| name.number);
    for name in &names {
        match storage.delete(&Key::Claim(name.clone()).to_string()).await {
            Err(error) if error.is_denied() => {
                if let Some(newest) = names.pop() {
                    end(storage, newest).await?;
                }
                return Ok(GivenUp::Ended);
            }
            deleted => drop(deleted?),
        }
    }
    Ok(GivenUp::Removed)
}

/// Makes a claim of the next number, which holds no longer than it took to begin.
async fn end(storage: &dyn Storage, newest: ClaimName) -> Result<(), VaultError> {
    let document = match storage.get(&Key::Claim(newest.clone()).to_string(), MAX_CLAIM_BYTES).await {
        // Somebody else removed it meanwhile.
        Err(error) if error.is_not_found() => return Ok(()),
        document => document?,
    };
    // What cannot be read was not written by this version, and lapses by itself.
    let Ok(claim) = parse(&newest, &document) else { return Ok(()) };
    if claim.until > claim.since {
        let number = claim.number + 1;
        let nothing = Claim { number, until: claim.since, bases: vec![], lists: vec![], contents: vec![], ..claim };
        write_claim(storage, &nothing).await?;
    }
    Ok(())
}

fn parse(name: &ClaimName, document: &[u8]) -> Result<Claim, String> {
    let claim: Claim = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    if claim.kind != CLAIM_TYPE || claim.version != CLAIM_VERSION {
        return Err(format!("it is a {} of version {}", claim.kind, claim.version));
    }
    if ClaimName::of(&claim) != *name {
        return Err("it belongs to another run".into());
    }
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::claim::CLAIM_HOLDS;
    use crate::domain::ids::{ObjectId, VaultId};
    use crate::vault::manifests::tests::{memory, memory_at, start};

    fn claim(run: u8, number: u64) -> Claim {
        Claim {
            kind: CLAIM_TYPE.into(),
            version: CLAIM_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            run: RunId::from_random([run; 8]),
            number,
            host: "web-1".into(),
            since: start(),
            until: start() + CLAIM_HOLDS,
            bases: Vec::new(),
            lists: vec![ObjectId([7; 32])],
            contents: Vec::new(),
        }
    }

    #[tokio::test]
    async fn who_may_not_remove_a_claim_ends_it() {
        let store = memory();
        let job = "shop".parse().unwrap();
        write_claim(&store, &claim(1, 1)).await.unwrap();
        write_claim(&store, &claim(1, 2)).await.unwrap();
        let keys = async |store: &crate::storage::memory::Memory| {
            let mut keys = Vec::new();
            store.list("claims/", &mut |listed| keys.push(listed.key)).await.unwrap();
            keys.sort();
            keys
        };
        let before = keys(&store).await;
        let nobody = Keeping(Box::new(store.another_handle()));
        assert_eq!(give_up(&nobody, &job, &RunId::from_random([1; 8])).await.unwrap(), GivenUp::Ended);
        assert_eq!(keys(&store).await.len(), before.len() + 1);
        let found = read_claims(&store, None).await.unwrap();
        let later = start() + TimeDelta::seconds(1);
        assert!(found.len() == 1 && found[0].name.number == 3 && !found[0].holds(later), "{found:?}");
        // Once is enough.
        assert_eq!(give_up(&nobody, &job, &RunId::from_random([1; 8])).await.unwrap(), GivenUp::Ended);
        assert_eq!(keys(&store).await.len(), before.len() + 1);
        assert_eq!(give_up(&store, &job, &RunId::from_random([1; 8])).await.unwrap(), GivenUp::Removed);
        assert!(keys(&store).await.is_empty());
    }

    /// A store that lets nobody remove anything.
    #[derive(Debug)]
    struct Keeping(Box<dyn Storage>);

    #[async_trait::async_trait]
    impl Storage for Keeping {
        fn describe(&self) -> String {
            self.0.describe()
        }

        fn kind(&self) -> &'static str {
            self.0.kind()
        }

        async fn put(&self, key: &str, bytes: Bytes) -> Result<crate::storage::Put, StorageError> {
            self.0.put(key, bytes).await
        }

        async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
            self.0.replace(key, bytes).await
        }

        async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
            self.0.get(key, limit_bytes).await
        }

        async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
            self.0.size(key).await
        }

        async fn list(
            &self,
            prefix: &str,
            visit: &mut (dyn FnMut(crate::storage::Listed) + Send),
        ) -> Result<(), StorageError> {
            self.0.list(prefix, visit).await
        }

        async fn delete(&self, key: &str) -> Result<crate::storage::Deleted, StorageError> {
            Err(StorageError::Failed {
                place: self.describe(),
                doing: format!("deleting {key}"),
                source: std::io::ErrorKind::PermissionDenied.into(),
            })
        }

        async fn sync(&self) -> Result<(), StorageError> {
            self.0.sync().await
        }

        async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
            self.0.now().await
        }

        async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
            self.0.available_bytes().await
        }

        async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
            self.0.forget_cached(key).await
        }
    }

    #[tokio::test]
    async fn the_newest_number_of_each_run_counts_until_it_is_given_up() {
        let store = memory();
        for (run, number) in [(1, 1), (1, 2), (1, 10), (2, 1)] {
            write_claim(&store, &claim(run, number)).await.unwrap();
        }
        let other = store.another_handle();
        let numbers = || async {
            let found = read_claims(&other, None).await.unwrap();
            found.into_iter().map(|found| found.claim.unwrap().number).collect::<Vec<_>>()
        };
        assert_eq!(numbers().await, [10, 1]);
        give_up(&store, &"shop".parse().unwrap(), &RunId::from_random([1; 8])).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(numbers().await, [1]);
        assert!(read_claims(&other, Some(&"mail".parse().unwrap())).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_claim_lapses_and_one_that_cannot_be_read_lapses_later() {
        let store = memory_at(start());
        write_claim(&store, &claim(1, 1)).await.unwrap();
        store.replace("claims/shop/0202020202020202-1.json", Bytes::from_static(b"{")).await.unwrap();
        let found = read_claims(&store, None).await.unwrap();
        let hold = |after: TimeDelta| {
            found.iter().map(|found| found.holds(found.modified.unwrap() + after)).collect::<Vec<_>>()
        };
        assert!(found[1].claim.is_err());
        assert_eq!(hold(CLAIM_HOLDS), [true, true]);
        assert_eq!(hold(CLAIM_HOLDS + TimeDelta::seconds(1)), [false, true]);
        assert_eq!(hold(CLAIM_HOLDS_AT_MOST + TimeDelta::seconds(1)), [false, false]);
    }

    #[tokio::test]
    async fn a_claim_of_another_run_under_this_name_is_not_understood() {
        let store = memory();
        let document = serde_json::to_vec(&claim(1, 1)).unwrap();
        store.replace("claims/shop/0202020202020202-1.json", document.into()).await.unwrap();
        assert!(read_claims(&store, None).await.unwrap()[0].claim.is_err());
    }
}
