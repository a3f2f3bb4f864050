//! What a survey says of sound, damaged and forged vaults, and what records explain.

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
    for place in ["backups/blog/20261122T030000Z-0000000000000001", "backups/shop/20271122T030000Z-0000000000000001"] {
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
