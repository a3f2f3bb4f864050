//! What manifests must hold, and what is not believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::clock::ManualClock;
use crate::domain::contents::NoteClass;
use crate::domain::ids::{BackupId, ObjectId, VaultId};
use crate::domain::manifest::{Completeness, SourceEntry};
use crate::error::{Code, Diagnostic};
use crate::storage::memory::Memory;
use crate::vault::trust::{HostEntry, JobPattern, LastBelieved, Revocation};

pub(in crate::vault) fn start() -> DateTime<Utc> {
    "2026-11-22T02:00:00.5Z".parse().unwrap()
}

/// A store whose clock stands two days after [`start`], so that nothing of these tests is from the future.
pub(in crate::vault) fn memory() -> Memory {
    memory_at(start() + TimeDelta::days(2))
}

pub(in crate::vault) fn memory_at(now: DateTime<Utc>) -> Memory {
    Memory::new(Arc::new(ManualClock::at(now)))
}

/// A vault that believes one host, `web-1`, for jobs `shop` and `blog`.
pub(in crate::vault) fn trust(key: &SigningKey) -> TrustDocument {
    let host = HostEntry {
        name: "web-1".into(),
        key: key.public().clone(),
        jobs: vec![JobPattern::Job("shop".parse().unwrap()), JobPattern::Job("blog".parse().unwrap())],
        from: start() - TimeDelta::days(1),
        until: None,
        revoked: None,
    };
    TrustDocument::first(VaultId::from_random([1; 8]), start() - TimeDelta::days(1), vec![host])
}

pub(in crate::vault) fn manifest(job: &str, sequence: u64, previous: Option<ManifestHash>) -> Manifest {
    let recovery_point = start() + TimeDelta::hours(i64::try_from(sequence).unwrap());
    Manifest {
        kind: MANIFEST_TYPE.into(),
        version: MANIFEST_VERSION,
        vault: VaultId::from_random([1; 8]),
        job: job.parse().unwrap(),
        id: BackupId::from_random(sequence.to_be_bytes()),
        sequence,
        completeness: Completeness::Complete,
        host: "web-1".into(),
        tool: "lifeboat 0.1.0".into(),
        started: recovery_point,
        committed: recovery_point + TimeDelta::minutes(1),
        recovery_point,
        recipient_set: "00".repeat(32),
        recipients: vec!["age1xyz".into()],
        previous,
        sources: vec![SourceEntry {
            name: "uploads".parse().unwrap(),
            kind: "files".into(),
            recovery_point,
            lists: vec![ObjectId([3; 32])],
            contents: vec![ObjectId([4; 32])],
            logical_bytes: 10,
            stored_bytes: 9,
            new_bytes: 8,
            segments: 2,
            new_segments: 1,
            notes: BTreeMap::new(),
        }],
    }
}

#[tokio::test]
async fn a_committed_manifest_is_believed() {
    let (store, key) = (memory(), SigningKey::generate());
    let manifest = manifest("shop", 1, None);
    let signed = sign_manifest(&manifest, &key);
    assert_eq!(Key::Manifest(signed.name.clone()).to_string(), "backups/shop/20261122T030000Z-0000000000000001.json");
    let missing = read_manifest(&store, &trust(&key), &signed.name).await.unwrap_err();
    assert_eq!(missing.code(), Code::ManifestMissing);
    commit_manifest(&store, &signed).await.unwrap();
    let read = read_manifest(&store.another_handle(), &trust(&key), &signed.name).await.unwrap();
    assert_eq!(read, VerifiedManifest { manifest, name: signed.name.clone(), hash: signed.hash });
    commit_manifest(&store, &signed).await.unwrap();
    let other = SignedManifest { document: Bytes::from_static(b"{}"), ..signed };
    let conflict = commit_manifest(&store, &other).await.unwrap_err();
    assert!(matches!(conflict, VaultError::Storage(StorageError::Conflict { .. })), "{conflict}");
}

/// What a reader says of a manifest after it was signed, with the document, the name and the vault then changed.
fn verdict(change: impl FnOnce(&mut Manifest), trust: &TrustDocument, key: &SigningKey) -> Result<(), Distrust> {
    let original = manifest("shop", 1, None);
    let mut changed = original.clone();
    change(&mut changed);
    let mut document = serde_json::to_vec_pretty(&changed).unwrap();
    document.push(b'\n');
    let signature = sign(key, &document, &scope(&changed));
    verify_manifest(trust, &ManifestName::of(&original), &document, &signature).map(|_| ())
}

#[test]
fn what_is_not_believed_although_it_is_signed() {
    let (key, stranger) = (SigningKey::generate(), SigningKey::generate());
    let trust = trust(&key);
    verdict(|_| {}, &trust, &key).unwrap();
    let unknown = verdict(|_| {}, &trust, &stranger);
    assert!(matches!(unknown, Err(Distrust::UnknownHost { .. })), "{unknown:?}");
    type Case = (&'static str, fn(&mut Manifest), fn(&Distrust) -> bool);
    let cases: [Case; 12] = [
        (
            "replayed from another job",
            |m| m.job = "blog".parse().unwrap(),
            |d| matches!(d, Distrust::OtherPlace { .. }),
        ),
        ("renamed", |m| m.id = BackupId::from_random([9; 8]), |d| matches!(d, Distrust::OtherPlace { .. })),
        (
            "from another vault",
            |m| m.vault = VaultId::from_random([9; 8]),
            |d| matches!(d, Distrust::OtherVault { .. }),
        ),
        ("in another's name", |m| m.host = "web-2".into(), |d| matches!(d, Distrust::OtherHost { .. })),
        ("before the host was", |m| m.committed -= TimeDelta::days(9), |d| matches!(d, Distrust::OutsideTime { .. })),
        ("of a newer version", |m| m.version = 2, |d| matches!(d, Distrust::NewerVersion { found: 2, .. })),
        ("of sequence 0", |m| m.sequence = 0, |d| matches!(d, Distrust::Malformed { .. })),
        ("of a number beyond counting", |m| m.sequence = 1 << 63, |d| matches!(d, Distrust::Malformed { .. })),
        (
            "of more bytes than can be counted",
            |m| m.sources[0].stored_bytes = u64::MAX,
            |d| matches!(d, Distrust::Malformed { .. }),
        ),
        (
            "of more notes than can be counted",
            |m| {
                m.sources[0].notes.insert(NoteClass::Vanished, i64::MAX as u64);
                m.sources[0].notes.insert(NoteClass::Changed, 1);
            },
            |d| matches!(d, Distrust::Malformed { .. }),
        ),
        ("without sources", |m| m.sources.clear(), |d| matches!(d, Distrust::Malformed { .. })),
        ("of another type", |m| m.kind = "lifeboat-run".into(), |d| matches!(d, Distrust::Malformed { .. })),
    ];
    for (what, change, expected) in cases {
        let distrust = verdict(change, &trust, &key).unwrap_err();
        assert!(expected(&distrust), "{what}: {distrust}");
    }
    let elsewhere = TrustDocument {
        hosts: vec![HostEntry { jobs: vec![JobPattern::Job("blog".parse().unwrap())], ..trust.hosts[0].clone() }],
        ..trust.clone()
    };
    assert!(matches!(verdict(|_| {}, &elsewhere, &key), Err(Distrust::JobNotAllowed { .. })));
}

#[test]
fn a_changed_manifest_or_a_swapped_signature_is_not_believed() {
    let key = SigningKey::generate();
    let trust = trust(&key);
    let (one, two) = (manifest("shop", 1, None), manifest("shop", 2, Some(ManifestHash([0; 32]))));
    let (one, two) = (sign_manifest(&one, &key), sign_manifest(&two, &key));
    let verify = |document: &[u8], signature: &[u8]| verify_manifest(&trust, &one.name, document, signature);
    verify(&one.document, &one.signature).unwrap();
    let mut document = one.document.to_vec();
    for at in (0..document.len()).step_by(7) {
        document[at] ^= 1;
        assert!(matches!(verify(&document, &one.signature), Err(Distrust::Signature(_))));
        document[at] ^= 1;
    }
    assert!(verify(&one.document, &two.signature).is_err());
    assert!(matches!(verify(&two.document, &two.signature), Err(Distrust::OtherPlace { .. })));
    assert!(verify(&one.document[1..], &one.signature).is_err());
    let comment = sign(&key, &one.document, "lifeboat-backup vault=0101010101010101 job=shop id=x sequence=9");
    assert!(matches!(verify(&one.document, &comment), Err(Distrust::OtherScope { .. })));
    let text = std::str::from_utf8(&one.document).unwrap().replacen('{', "{ \"extra\": 1,", 1);
    let signature = sign(&key, text.as_bytes(), "lifeboat-backup");
    assert!(matches!(verify(text.as_bytes(), &signature), Err(Distrust::Malformed { .. })));
}

#[test]
fn what_a_key_signs_after_its_end_is_judged_by_that_first() {
    let key = SigningKey::generate();
    let mut trust = trust(&key);
    let committed = manifest("shop", 1, None).committed;
    let last = LastBelieved { sequence: 2, hash: ManifestHash([1; 32]) };
    let last_manifests = BTreeMap::from([("shop".parse().unwrap(), last)]);
    let at = committed + TimeDelta::hours(1);
    trust.hosts[0].revoked = Some(Revocation { at, last_manifests });
    verdict(|_| {}, &trust, &key).unwrap();
    let late = |m: &mut Manifest| m.committed += TimeDelta::hours(1);
    assert!(matches!(verdict(late, &trust, &key), Err(Distrust::Revoked { .. })));
    let newer = verdict(|m| m.version = 2, &trust, &key);
    assert!(matches!(newer, Err(Distrust::NewerVersion { .. })), "{newer:?}");
    let late_and_newer = |m: &mut Manifest| (m.version, m.committed) = (2, m.committed + TimeDelta::hours(1));
    assert!(matches!(verdict(late_and_newer, &trust, &key), Err(Distrust::Revoked { .. })));
    // Its name has its recovery point, by which a backup is chosen.
    let mut dated_back = manifest("shop", 1, None);
    dated_back.recovery_point = at;
    let signed = sign_manifest(&dated_back, &key);
    let answer = verify_manifest(&trust, &signed.name, &signed.document, &signed.signature);
    assert!(matches!(answer, Err(Distrust::Revoked { .. })), "{answer:?}");

    (trust.hosts[0].revoked, trust.hosts[0].until) = (None, Some(committed));
    assert!(matches!(verdict(late_and_newer, &trust, &key), Err(Distrust::OutsideTime { .. })));
}
