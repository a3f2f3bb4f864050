//! What a survey says of sound, damaged and forged vaults, and what records explain.

use bytes::Bytes;

use chrono::TimeDelta;

use super::*;
use crate::domain::ids::{BackupId, ManifestHash, RecordId, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{QuarantineRecord, RECORD_VERSION, Record, RecordBody, RemovalRecord};
use crate::storage::memory::Memory;
use crate::vault::keys::SigningKey;
use crate::vault::manifests::tests::{manifest, memory, start, trust};
use crate::vault::manifests::{SignedManifest, commit_manifest, sign_manifest};
use crate::vault::records::write_record;
use crate::vault::trust::{HostEntry, LastBelieved, Revocation};

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

/// A store, a vault that believes `web-1` and `web-2` for all that these tests sign, and their keys.
struct Hosts {
    store: Memory,
    trust: TrustDocument,
    first: SigningKey,
    second: SigningKey,
}

impl Hosts {
    fn new() -> Self {
        let (first, second) = (SigningKey::generate(), SigningKey::generate());
        let mut trust = trust(&first);
        let entry = HostEntry { name: "web-2".into(), key: second.public().clone(), ..trust.hosts[0].clone() };
        trust.hosts.push(entry);
        Self { store: memory(), trust, first, second }
    }

    async fn survey(&self) -> Survey {
        survey(&self.store, &self.trust, None).await.unwrap()
    }

    /// Ends the belief in the first host, up to this manifest.
    fn revoke(&mut self, at: TimeDelta, last: &SignedManifest, sequence: u64) {
        let last = BTreeMap::from([(last.name.job.clone(), LastBelieved { sequence, hash: last.hash })]);
        self.trust.hosts[0].revoked = Some(Revocation { at: start() + at, last_manifests: last });
    }

    /// Signed by the first host.
    async fn forge(&self, manifest: &Manifest) -> SignedManifest {
        let signed = sign_manifest(manifest, &self.first);
        commit_manifest(&self.store, &signed).await.unwrap();
        signed
    }

    async fn delete(&self, signed: &SignedManifest) {
        for key in [key_of(signed), format!("{}.minisig", key_of(signed))] {
            self.store.delete(&key).await.unwrap();
        }
    }

    /// A record of the second host.
    async fn record(&self, job: &str, at: TimeDelta, body: RecordBody) -> RecordName {
        let record = Record {
            version: RECORD_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: job.parse().unwrap(),
            id: RecordId::from_random(at.num_seconds().to_be_bytes()),
            host: "web-2".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded: start() + at,
            body,
            details: None,
        };
        write_record(&self.store, &self.second, &record, None).await.unwrap()
    }

    async fn removal(&self, job: &str, at: TimeDelta, of: &SignedManifest, gone: SequenceRange) -> RecordName {
        let (backup, reason) = (of.name.id.clone(), RemovalReason::Thinned);
        let body = RemovalRecord { backup, summary: None, reason, gone: vec![gone] };
        self.record(job, at, RecordBody::Removal(Box::new(body))).await
    }
}

fn numbers(survey: &Survey) -> Vec<u64> {
    survey.manifests.iter().map(|verified| verified.manifest.sequence).collect()
}

fn revoked(survey: &Survey) -> Vec<&str> {
    let is_revoked = |p: &&Problem| matches!(p.fault, Fault::Untrusted(Distrust::Revoked { .. }));
    survey.problems.iter().filter(is_revoked).map(|problem| problem.key.as_str()).collect()
}

fn other(manifest: Manifest) -> Manifest {
    Manifest { id: BackupId::from_random([0xee; 8]), ..manifest }
}

#[tokio::test]
async fn a_revoked_key_makes_no_backup_where_another_stands_or_stood() {
    let mut hosts = Hosts::new();
    let committed = commit(&hosts.store, &hosts.first, "shop", 5).await;
    hosts.revoke(TimeDelta::hours(10), &committed[4], 5);
    assert_eq!((numbers(&hosts.survey().await), hosts.survey().await.problems.len()), (vec![1, 2, 3, 4, 5], 0));

    // Beside one that the chain vouches for, in the place of the last one, and beside one that is alone in its number.
    for sequence in [4, 5, 1] {
        let twin =
            hosts.forge(&other(manifest("shop", sequence, (sequence > 1).then_some(ManifestHash([3; 32]))))).await;
        let survey = hosts.survey().await;
        assert_eq!(numbers(&survey), [1, 2, 3, 4, 5], "{sequence}");
        assert_eq!(revoked(&survey), [key_of(&twin)], "{sequence}");
        hosts.delete(&twin).await;
    }

    // In the place of one that was removed: the next one points to another; or that is gone too, and the number was used.
    for removed in 2..=3 {
        let of = &committed[removed - 1];
        let gone = SequenceRange { first: 2, last: removed as u64 };
        hosts.removal("shop", TimeDelta::hours(20 + removed as i64), of, gone).await;
        hosts.delete(of).await;
        let forged = hosts.forge(&other(manifest("shop", 2, Some(committed[0].hash)))).await;
        let survey = hosts.survey().await;
        assert_eq!((revoked(&survey), survey.problems.len()), (vec![&*key_of(&forged)], 1), "{removed}");
        assert!(!numbers(&survey).contains(&2) && numbers(&survey).contains(&1), "{removed}");
        hosts.delete(&forged).await;
    }
    // One that was committed after the end of the key, whatever its number.
    let late =
        Manifest { committed: start() + TimeDelta::hours(10), ..other(manifest("shop", 2, Some(committed[0].hash))) };
    let late = hosts.forge(&late).await;
    assert_eq!(revoked(&hosts.survey().await), [key_of(&late)]);
}

#[tokio::test]
async fn a_revoked_key_that_fills_every_gap_hides_no_removal() {
    let mut hosts = Hosts::new();
    let committed = commit(&hosts.store, &hosts.first, "shop", 3).await;
    let later = |sequence: u64, previous| {
        let mut later = manifest("shop", sequence, Some(previous));
        later.recovery_point = start() + TimeDelta::hours(40 + i64::try_from(sequence).unwrap());
        later.committed = later.recovery_point;
        later
    };
    let four = hosts.forge(&later(4, committed[2].hash)).await;
    hosts.revoke(TimeDelta::hours(46), &four, 4);
    hosts.removal("shop", TimeDelta::hours(5), &committed[2], SequenceRange { first: 1, last: 3 }).await;
    let mut previous = None;
    for (sequence, signed) in (1..).zip(&committed) {
        hosts.delete(signed).await;
        let mut forged = Manifest { previous, ..later(sequence, ManifestHash([0; 32])) };
        forged.id = BackupId::from_random([0xe0 + u8::try_from(sequence).unwrap(); 8]);
        previous = Some(hosts.forge(&forged).await.hash);
    }
    let survey = hosts.survey().await;
    assert_eq!(
        (numbers(&survey), revoked(&survey).len(), survey.problems.len()),
        (vec![4], 3, 3),
        "{:?}",
        survey.problems
    );
}

#[tokio::test]
async fn a_removal_counts_in_its_own_job_and_after_the_commit() {
    let hosts = Hosts::new();
    let committed = commit(&hosts.store, &hosts.first, "shop", 3).await;
    let all = SequenceRange { first: 1, last: 3 };
    hosts.removal("blog", TimeDelta::hours(9), &committed[1], all).await;
    let backdated = hosts.removal("shop", TimeDelta::hours(2), &committed[1], all).await;
    let survey = hosts.survey().await;
    assert_eq!(numbers(&survey), [1, 2, 3]);
    assert_eq!((survey.removed.len(), &survey.backdated), (0, &vec![backdated]));
    assert!(!survey.gone.contains_key(&committed[0].name.job), "{:?}", survey.gone);

    let two = SequenceRange { first: 2, last: 2 };
    hosts.removal("shop", TimeDelta::hours(8), &committed[1], two).await;
    let survey = hosts.survey().await;
    assert_eq!((numbers(&survey), &survey.removed), (vec![1, 3], &vec![committed[1].name.clone()]));
    let removed = survey.removals[&(committed[1].name.job.clone(), committed[1].name.id.clone())];
    let (recorded, committed) = (start() + TimeDelta::hours(8), start() + TimeDelta::hours(2) + TimeDelta::minutes(1));
    assert_eq!(removed, Removed { reason: RemovalReason::Thinned, recorded, committed: Some(committed) });
    assert_eq!(survey.problems, []);
}

#[tokio::test]
async fn a_commit_that_is_yet_to_come_is_not_believed() {
    let hosts = Hosts::new();
    let now = start() + TimeDelta::days(2);
    let just = Manifest { committed: now + CLOCK_TOLERANCE, ..manifest("shop", 1, None) };
    let just = hosts.forge(&just).await;
    let says = now + CLOCK_TOLERANCE + TimeDelta::seconds(1);
    let future = hosts.forge(&Manifest { committed: says, ..manifest("shop", 2, Some(just.hash)) }).await;
    let survey = hosts.survey().await;
    assert_eq!(numbers(&survey), [1]);
    let fault = Fault::Untrusted(Distrust::FromTheFuture { says, now });
    assert_eq!(survey.problems, [problem(&future.name, fault)]);
}

#[tokio::test]
async fn a_quarantine_of_junk_acknowledges_no_number_that_the_junk_does_not_show() {
    let hosts = Hosts::new();
    let committed = commit(&hosts.store, &hosts.first, "shop", 3).await;
    let two = &committed[1];
    hosts.delete(two).await;
    let name = ManifestName { id: BackupId::from_random([0xee; 8]), ..two.name.clone() };
    let quarantine = QuarantineRecord { backup: Some(name.id.clone()), gone: Vec::new() };
    hosts.record("shop", TimeDelta::hours(9), RecordBody::Quarantine(quarantine)).await;
    let id = name.id.as_str();
    let missing = problem(&committed[2].name, Fault::Missing { first: 2, last: 2 });
    for (junk, left) in [
        ("junk".to_owned(), 1),
        // The document of another backup: the number is not its own.
        (String::from_utf8(two.document.to_vec()).unwrap(), 1),
        (format!(r#"{{"job": "shop", "id": "{id}", "sequence": 1}}"#), 1),
        (format!(r#"{{"job": "blog", "id": "{id}", "sequence": 2}}"#), 1),
        (format!(r#"{{"job": "shop", "id": "{id}", "sequence": 2, "sequence": 3}}"#), 1),
        (format!(r#"?"job": "shop", "id": "{id}", "sequence": 2, and then rubbish"#), 0),
    ] {
        hosts.store.replace(&Key::Manifest(name.clone()).to_string(), junk.clone().into()).await.unwrap();
        let survey = hosts.survey().await;
        assert_eq!(survey.quarantined.len(), 1, "{junk}");
        assert_eq!(survey.problems, vec![missing.clone(); left], "{junk}");
    }
}
