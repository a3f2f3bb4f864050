//! What backups a vault holds: every manifest, believed or told why not, and what is missing between them.
//!
//! Nothing is decided here: whether a problem stops a restore, a deletion or nothing is for the verbs to say. The
//! answer depends on the vault alone and not on the order in which its store lists. A tail that was cut off (the
//! newest manifests gone, signatures and all) cannot be seen from here; who remembers the highest number can.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{Key, ManifestName};
use super::manifests::{VerifiedManifest, read_manifest};
use super::trust::TrustDocument;
use super::{Distrust, VaultError};
use crate::domain::ids::{JobName, ManifestHash};
use crate::error::Code;
use crate::storage::Storage;

/// The manifests of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Those that are believed, by job, then sequence number, then name.
    pub manifests: Vec<VerifiedManifest>,
    /// What is wrong, by key.
    pub problems: Vec<Problem>,
    /// Keys that belong to nothing: signatures of runs that died before their commit, and what others put there.
    /// No damage.
    pub strays: Vec<String>,
}

/// Something wrong with a manifest, or with one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The manifest's key; for a gap the key of the manifest after it.
    pub key: String,
    /// The job under whose folder it lies.
    pub job: JobName,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The manifest is not believed.
    #[error("it is not to be trusted: {0}")]
    Untrusted(Distrust),
    /// Manifests before this one are gone, or are not believed.
    #[error("{}", missing(*.first, *.last))]
    Missing {
        /// The first missing sequence number.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Two believed manifests of the job have the same number.
    #[error("it has sequence number {sequence}, and so has {other}")]
    Duplicate {
        /// The number.
        sequence: u64,
        /// The other one's key.
        other: String,
    },
    /// It does not point to the manifest before it.
    #[error("it follows a manifest with hash {says}, and the one before it is another")]
    BrokenChain {
        /// The hash that it points to.
        says: String,
    },
}

impl Fault {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::ManifestMissing,
            Self::Untrusted(_) | Self::Duplicate { .. } | Self::BrokenChain { .. } => Code::ManifestUntrusted,
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("the manifest with sequence number {first}, before it, is missing")
    } else {
        format!("the manifests with sequence numbers {first} to {last}, before it, are missing")
    }
}

/// Reads all manifests, or those of one job.
///
/// # Errors
/// The store's, where it fails; what is wrong with the manifests is in the answer.
pub async fn survey(storage: &dyn Storage, trust: &TrustDocument, job: Option<&JobName>) -> Result<Survey, VaultError> {
    let (mut names, mut signatures) = (BTreeSet::new(), BTreeSet::new());
    let mut survey = Survey::default();
    storage
        .list(&Key::manifests_of(job), &mut |listed| match Key::parse(&listed.key) {
            Key::Manifest(name) => names.extend([name]),
            Key::ManifestSignature(name) => signatures.extend([name]),
            _ => survey.strays.push(listed.key),
        })
        .await?;
    survey.strays.extend(signatures.difference(&names).map(|name| Key::ManifestSignature(name.clone()).to_string()));
    survey.strays.sort();

    for name in &names {
        match read_manifest(storage, trust, name).await {
            Ok(verified) => survey.manifests.push(verified),
            Err(VaultError::ManifestUntrusted { reason, .. }) => {
                survey.problems.push(problem(name, Fault::Untrusted(reason)));
            }
            // Removed since the listing.
            Err(VaultError::ManifestMissing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let place = |verified: &VerifiedManifest| {
        (verified.manifest.job.clone(), verified.manifest.sequence, verified.name.clone())
    };
    survey.manifests.sort_by_key(place);
    let chain = chain_problems(&survey.manifests);
    survey.problems.extend(chain);
    survey.problems.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(survey)
}

/// What the numbers and the hashes of believed manifests say, sorted as in a [`Survey`].
#[must_use]
pub fn chain_problems(manifests: &[VerifiedManifest]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for job in manifests.chunk_by(|one, other| one.manifest.job == other.manifest.job) {
        let mut hashes: BTreeMap<u64, Vec<(ManifestHash, &ManifestName)>> = BTreeMap::new();
        let mut last = 0;
        for verified in job {
            let sequence = verified.manifest.sequence;
            if sequence > last + 1 {
                let fault = Fault::Missing { first: last + 1, last: sequence - 1 };
                problems.push(problem(&verified.name, fault));
            }
            if let Some((_, other)) = hashes.get(&sequence).and_then(|same| same.first()) {
                let fault = Fault::Duplicate { sequence, other: Key::Manifest((*other).clone()).to_string() };
                problems.push(problem(&verified.name, fault));
            }
            if let Some(before) = hashes.get(&(sequence - 1))
                && let Some(says) = verified.manifest.previous
                && !before.iter().any(|(hash, _)| *hash == says)
            {
                problems.push(problem(&verified.name, Fault::BrokenChain { says: says.to_string() }));
            }
            hashes.entry(sequence).or_default().push((verified.hash, &verified.name));
            last = sequence;
        }
    }
    problems
}

fn problem(name: &ManifestName, fault: Fault) -> Problem {
    Problem { key: Key::Manifest(name.clone()).to_string(), job: name.job.clone(), fault }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::ids::BackupId;
    use crate::storage::memory::Memory;
    use crate::vault::keys::SigningKey;
    use crate::vault::manifests::tests::{manifest, memory, trust};
    use crate::vault::manifests::{SignedManifest, commit_manifest, sign_manifest};

    /// Commits `count` manifests of a job, each pointing to the one before.
    async fn commit(store: &Memory, key: &SigningKey, job: &str, count: u64) -> Vec<SignedManifest> {
        let mut committed: Vec<SignedManifest> = Vec::new();
        for sequence in 1..=count {
            let previous = committed.last().map(|signed| signed.hash);
            let signed = sign_manifest(&manifest(job, sequence, previous), key);
            commit_manifest(store, &signed).await.unwrap();
            committed.push(signed);
        }
        committed
    }

    fn key_of(signed: &SignedManifest) -> String {
        Key::Manifest(signed.name.clone()).to_string()
    }

    async fn faults(store: &Memory, key: &SigningKey) -> Vec<(String, Fault)> {
        let survey = survey(store, &trust(key), None).await.unwrap();
        survey.problems.into_iter().map(|problem| (problem.key, problem.fault)).collect()
    }

    #[tokio::test]
    async fn an_empty_and_a_sound_vault() {
        let (store, key) = (memory(), SigningKey::generate());
        assert_eq!(survey(&store, &trust(&key), None).await.unwrap(), Survey::default());
        commit(&store, &key, "shop", 3).await;
        commit(&store, &key, "blog", 2).await;
        let all = survey(&store, &trust(&key), None).await.unwrap();
        let order: Vec<_> = all.manifests.iter().map(|m| (m.manifest.job.as_str(), m.manifest.sequence)).collect();
        assert_eq!(order, [("blog", 1), ("blog", 2), ("shop", 1), ("shop", 2), ("shop", 3)]);
        assert_eq!((all.problems.len(), all.strays.len()), (0, 0));
        let one = survey(&store, &trust(&key), Some(&"blog".parse().unwrap())).await.unwrap();
        assert_eq!(one.manifests, all.manifests[..2]);
    }

    #[tokio::test]
    async fn a_manifest_that_is_gone_is_a_gap_in_its_job_only() {
        for (gone, fault) in [
            (vec![0], Some((1, Fault::Missing { first: 1, last: 1 }))),
            (vec![1], Some((2, Fault::Missing { first: 2, last: 2 }))),
            (vec![0, 1, 2], Some((3, Fault::Missing { first: 1, last: 3 }))),
            (vec![3], None),
        ] {
            let (store, key) = (memory(), SigningKey::generate());
            let committed = commit(&store, &key, "shop", 4).await;
            commit(&store, &key, "blog", 1).await;
            for index in &gone {
                store.delete(&key_of(&committed[*index])).await.unwrap();
            }
            let expected: Vec<_> = fault.map(|(at, fault)| (key_of(&committed[at]), fault)).into_iter().collect();
            assert_eq!(faults(&store, &key).await, expected);
            let survey = survey(&store, &trust(&key), None).await.unwrap();
            assert_eq!(survey.strays.len(), gone.len(), "their signatures belong to nothing now");
            assert_eq!(survey.manifests.len(), 5 - gone.len());
        }
    }

    #[tokio::test]
    async fn a_run_that_died_before_its_commit_is_no_damage() {
        let (store, key) = (memory(), SigningKey::generate());
        commit(&store, &key, "shop", 1).await;
        let stray = "backups/shop/20261122T090000Z-00000000000000ff.json.minisig";
        store.replace(stray, Bytes::from_static(b"x")).await.unwrap();
        store.replace("backups/shop/notes.txt", Bytes::from_static(b"x")).await.unwrap();
        let survey = survey(&store, &trust(&key), None).await.unwrap();
        assert_eq!(survey.problems, []);
        assert_eq!(survey.strays, [stray, "backups/shop/notes.txt"]);
    }

    #[tokio::test]
    async fn what_is_changed_renamed_replayed_or_unsigned_is_named_and_the_rest_stands() {
        let key = SigningKey::generate();
        type Damage = fn(&[SignedManifest]) -> Vec<(String, Option<Bytes>)>;
        let cases: [(&str, Damage, &str); 6] = [
            ("a flipped byte", |c| vec![(key_of(&c[2]), Some(flipped(&c[2].document)))], "does not match its bytes"),
            ("cut off", |c| vec![(key_of(&c[2]), Some(c[2].document.slice(..100)))], "does not match its bytes"),
            ("no signature", |c| vec![(format!("{}.minisig", key_of(&c[2])), None)], "signature is missing"),
            (
                "a signature swapped",
                |c| vec![(format!("{}.minisig", key_of(&c[2])), Some(c[1].signature.clone()))],
                "does not match its bytes",
            ),
            (
                "swapped with another",
                |c| {
                    vec![
                        (key_of(&c[2]), Some(c[1].document.clone())),
                        (format!("{}.minisig", key_of(&c[2])), Some(c[1].signature.clone())),
                    ]
                },
                "it belongs at backups/shop/",
            ),
            ("a huge one", |c| vec![(key_of(&c[2]), Some(Bytes::from(vec![0; 17 << 20])))], "more than the"),
        ];
        for (what, damage, says) in cases {
            let store = memory();
            let committed = commit(&store, &key, "shop", 3).await;
            for (target, bytes) in damage(&committed) {
                match bytes {
                    Some(bytes) => store.replace(&target, bytes).await.unwrap(),
                    None => assert_eq!(store.delete(&target).await.unwrap(), crate::storage::Deleted::Removed),
                }
            }
            let found = faults(&store, &key).await;
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert_eq!(found[0].0, key_of(&committed[2]), "{what}");
            assert!(matches!(found[0].1, Fault::Untrusted(_)), "{what}: {found:?}");
            assert!(found[0].1.to_string().contains(says), "{what}: {}", found[0].1);
            assert_eq!(survey(&store, &trust(&key), None).await.unwrap().manifests.len(), 2, "{what}");
        }
    }

    fn flipped(bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes.into()
    }

    #[tokio::test]
    async fn a_copy_in_another_jobs_folder_and_a_renamed_one() {
        let (store, key) = (memory(), SigningKey::generate());
        let committed = commit(&store, &key, "shop", 1).await;
        for place in
            ["backups/blog/20261122T030000Z-0000000000000001", "backups/shop/20271122T030000Z-0000000000000001"]
        {
            store.replace(&format!("{place}.json"), committed[0].document.clone()).await.unwrap();
            store.replace(&format!("{place}.json.minisig"), committed[0].signature.clone()).await.unwrap();
        }
        let found = faults(&store, &key).await;
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|(_, f)| matches!(f, Fault::Untrusted(Distrust::OtherPlace { .. }))), "{found:?}");
    }

    #[tokio::test]
    async fn two_with_one_number_and_a_chain_that_does_not_hold() {
        let (store, key) = (memory(), SigningKey::generate());
        let committed = commit(&store, &key, "shop", 2).await;
        let mut twin = manifest("shop", 2, Some(committed[0].hash));
        twin.id = BackupId::from_random([0xff; 8]);
        let twin = sign_manifest(&twin, &key);
        commit_manifest(&store, &twin).await.unwrap();
        let duplicate = Fault::Duplicate { sequence: 2, other: key_of(&committed[1]) };
        assert_eq!(faults(&store, &key).await, [(key_of(&twin), duplicate.clone())]);

        let wrong = ManifestHash([9; 32]);
        let third = sign_manifest(&manifest("shop", 3, Some(wrong)), &key);
        commit_manifest(&store, &third).await.unwrap();
        let broken = Fault::BrokenChain { says: wrong.to_string() };
        assert_eq!(faults(&store, &key).await, [(key_of(&twin), duplicate), (key_of(&third), broken)]);
    }
}
