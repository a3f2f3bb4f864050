//! What vault.json must hold, and what is not believed.

use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::error::{Code, Diagnostic};
use crate::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use crate::storage::memory::Memory;

fn at(hour: u32) -> DateTime<Utc> {
    format!("2026-11-22T{hour:02}:00:00Z").parse().unwrap()
}

fn memory() -> Memory {
    Memory::new(Arc::new(SystemClock::default()))
}

fn host(name: &str, key: &SigningKey) -> HostEntry {
    HostEntry {
        name: name.into(),
        key: key.public().clone(),
        jobs: vec![JobPattern::Any],
        from: at(1),
        until: None,
        revoked: None,
    }
}

fn document(host_key: &SigningKey) -> TrustDocument {
    TrustDocument::first(VaultId::from_random([1; 8]), at(0), vec![host("web-1", host_key)])
}

fn pin(key: &SigningKey) -> Pin {
    Pin { key: key.public().clone(), vault: None }
}

/// Lays a text under vault.json, signed by `key` with this scope.
async fn plant(store: &dyn Storage, key: &SigningKey, text: &str, scope: &str) {
    store.replace("vault.json", Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
    store.replace("vault.json.minisig", sign(key, text.as_bytes(), scope)).await.unwrap();
}

#[tokio::test]
async fn what_is_written_is_believed() {
    let (store, key, host_key) = (memory(), SigningKey::generate(), SigningKey::generate());
    assert!(!exists(&store).await.unwrap());
    assert_eq!(read_trust(&store, &pin(&key)).await.unwrap_err().code(), Code::VaultMissing);
    let trust = document(&host_key);
    write_trust(&store, &key, &trust).await.unwrap();
    assert!(exists(&store).await.unwrap());
    assert_eq!(read_trust(&store, &pin(&key)).await.unwrap(), trust);
    let right = Pin { vault: Some(trust.vault.clone()), ..pin(&key) };
    read_trust(&store, &right).await.unwrap();
    let wrong = Pin { vault: Some(VaultId::from_random([2; 8])), ..pin(&key) };
    let error = read_trust(&store, &wrong).await.unwrap_err();
    assert!(matches!(error, VaultError::Untrusted { reason: Distrust::OtherVault { .. }, .. }), "{error}");
}

#[tokio::test]
async fn what_another_key_signed_or_anybody_changed_is_not() {
    let (store, key, host_key) = (memory(), SigningKey::generate(), SigningKey::generate());
    write_trust(&store, &host_key, &document(&host_key)).await.unwrap();
    let error = read_trust(&store, &pin(&key)).await.unwrap_err();
    assert_eq!(error.code(), Code::VaultUntrusted, "{error}");

    write_trust(&store, &key, &document(&host_key)).await.unwrap();
    let text = store.get("vault.json", 100_000).await.unwrap();
    let changed = String::from_utf8(text.to_vec()).unwrap().replace("web-1", "web-2");
    store.replace("vault.json", changed.into()).await.unwrap();
    let error = read_trust(&store, &pin(&key)).await.unwrap_err();
    assert!(error.to_string().contains("does not match its bytes"), "{error}");

    store.delete("vault.json.minisig").await.unwrap();
    let error = read_trust(&store, &pin(&key)).await.unwrap_err();
    assert!(error.to_string().contains("its signature is missing"), "{error}");
}

#[tokio::test]
async fn a_newer_version_is_refused_after_its_signature() {
    let (store, key, other) = (memory(), SigningKey::generate(), SigningKey::generate());
    let text = r#"{ "type": "lifeboat-vault", "version": 2, "what": ["we", "cannot", "know"] }"#;
    plant(&store, &key, text, "lifeboat-vault something new").await;
    let error = read_trust(&store, &pin(&key)).await.unwrap_err();
    assert!(matches!(error, VaultError::NewerVersion { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(error.code(), Code::VaultVersion);
    let error = read_trust(&store, &pin(&other)).await.unwrap_err();
    assert_eq!(error.code(), Code::VaultUntrusted, "anybody can write a number: {error}");
}

#[tokio::test]
async fn strict_even_where_it_is_signed() {
    let (store, key, host_key) = (memory(), SigningKey::generate(), SigningKey::generate());
    let trust = document(&host_key);
    let good = String::from_utf8(encode(&trust).to_vec()).unwrap();
    let twice = serde_json::to_string(&TrustDocument { hosts: vec![trust.hosts[0].clone(); 2], ..trust.clone() });
    for bad in [
        "{".to_owned(),
        good.replace("\"version\": 1", "\"version\": 0"),
        good.replace("\"version\": 1", "\"version\": \"1\""),
        good.replace("\"serial\": 1", "\"serial\": 0"),
        good.replace("lifeboat-vault", "lifeboat-backup"),
        good.replace("\"serial\"", "\"extra\": 1, \"serial\""),
        good.replace("\"*\"", "\"**\""),
        good.replace("web-1", ""),
        good.replace("\"hosts\"", "\"recipients\": [], \"hosts\""),
        good.replace("\"hosts\"", "\"recipients\": [{\"key\": \"ssh-rsa\", \"until\": null}], \"hosts\""),
        good.replace(
            "\"hosts\"",
            "\"recipients\": [{\"key\": \"age1a\", \"until\": \"2026-11-22T01:00:00Z\"}], \"hosts\"",
        ),
        twice.unwrap(),
    ] {
        plant(&store, &key, &bad, &trust.scope()).await;
        let error = read_trust(&store, &pin(&key)).await.unwrap_err();
        assert!(matches!(error, VaultError::Untrusted { reason: Distrust::Malformed { .. }, .. }), "{bad}\n{error}");
    }
    plant(&store, &key, &good, "lifeboat-vault vault=0101010101010101 serial=2").await;
    let error = read_trust(&store, &pin(&key)).await.unwrap_err();
    assert!(matches!(error, VaultError::Untrusted { reason: Distrust::OtherScope { .. }, .. }), "{error}");
    plant(&store, &key, &good, &trust.scope()).await;
    read_trust(&store, &pin(&key)).await.unwrap();
}

#[tokio::test]
async fn a_change_that_dies_anywhere_leaves_a_vault() {
    let (key, host_key) = (SigningKey::generate(), SigningKey::generate());
    let old = document(&host_key);
    let new = TrustDocument { serial: 2, ..old.clone() };
    for at_call in 1..=5 {
        for moment in [Moment::Before, Moment::After] {
            let store = memory();
            write_trust(&store, &key, &old).await.unwrap();
            let plan = Plan { at_call, moment, effect: Effect::LoseAnswer, lasting: Lasting::FromThenOn };
            let dying = Fault::planned(Arc::new(store.another_handle()), plan);
            write_trust(&dying, &key, &new).await.unwrap_err();
            let found = read_trust(&store, &pin(&key)).await.unwrap();
            assert!(found == old || found == new);
            write_trust(&store, &key, &new).await.unwrap();
            assert_eq!(read_trust(&store, &pin(&key)).await.unwrap(), new);
        }
    }
}

#[test]
fn who_may_sign_what_and_when() {
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    let (shop, blog): (JobName, JobName) = ("shop".parse().unwrap(), "blog".parse().unwrap());
    let mut trust = document(&key);
    let ask = |trust: &TrustDocument, key: &SigningKey, job: &JobName, hour, claimed| {
        trust.host_for(key.public().id(), job, at(hour), claimed).map(|host| host.name.clone())
    };
    let hash = ManifestHash([7; 32]);
    let manifest = |sequence| Claimed::Manifest { sequence, hash };
    let record = |hour| Claimed::Record { modified: Some(at(hour)) };
    assert_eq!(ask(&trust, &key, &blog, 2, manifest(9)).unwrap(), "web-1");
    assert!(matches!(ask(&trust, &other, &shop, 2, record(2)), Err(Distrust::UnknownHost { .. })));
    assert!(matches!(ask(&trust, &key, &shop, 0, record(2)), Err(Distrust::OutsideTime { .. })));

    trust.hosts[0].jobs = vec![JobPattern::Job(shop.clone())];
    trust.hosts[0].until = Some(at(10));
    assert!(matches!(ask(&trust, &key, &blog, 2, record(2)), Err(Distrust::JobNotAllowed { .. })));
    ask(&trust, &key, &shop, 10, record(2)).unwrap();
    assert!(matches!(ask(&trust, &key, &shop, 11, record(2)), Err(Distrust::OutsideTime { .. })));
    trust.check_writer(key.public(), &shop, at(2)).unwrap();

    let last_manifests = BTreeMap::from([(shop.clone(), LastBelieved { sequence: 7, hash })]);
    trust.hosts[0].revoked = Some(Revocation { at: at(5), last_manifests });
    let revoked = |claimed, hour| {
        let answer = ask(&trust, &key, &shop, hour, claimed);
        assert!(matches!(&answer, Err(Distrust::Revoked { .. }) | Ok(_)), "{answer:?}");
        answer.is_err()
    };
    assert!(!revoked(manifest(7), 9), "the last one is known by its hash, whatever its writer's clock said");
    assert!(revoked(Claimed::Manifest { sequence: 7, hash: ManifestHash([8; 32]) }, 4));
    assert!(!revoked(manifest(6), 4));
    assert!(revoked(manifest(6), 5), "committed after the end of its key");
    assert!(revoked(manifest(8), 2));
    assert!(!revoked(record(4), 4));
    assert!(revoked(record(4), 5));
    assert!(revoked(record(5), 4), "dated back: the store saw it later");
    assert!(revoked(Claimed::Record { modified: None }, 4), "nobody can say that it is as old as it claims");
    let error = trust.check_writer(key.public(), &shop, at(2)).unwrap_err();
    assert_eq!(error.code(), Code::HostUnauthorised);
}

#[tokio::test]
async fn a_change_that_another_one_overwrites_is_told() {
    static STORE: std::sync::OnceLock<Memory> = std::sync::OnceLock::new();
    let (key, host_key) = (SigningKey::generate(), SigningKey::generate());
    let store = STORE.get_or_init(memory);
    // Between the last write and the look at it.
    let effect = Effect::Call(|| {
        let other = STORE.get().unwrap().replace("vault.json", Bytes::from_static(b"another"));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(other).poll(&mut context).is_ready(), "what is in memory waits for nothing");
    });
    let plan = Plan { at_call: 6, moment: Moment::Before, effect, lasting: Lasting::Once };
    let raced = Fault::planned(Arc::new(store.another_handle()), plan);
    let error = write_trust(&raced, &key, &document(&host_key)).await.unwrap_err();
    assert!(matches!(error, VaultError::TrustOverwritten { .. }), "{error}");
    assert!(error.hint().unwrap().contains("run the same command again"));
    write_trust(store, &key, &document(&host_key)).await.unwrap();
}

#[test]
fn a_document_is_known_again_by_its_digest() {
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    assert_eq!(document(&key).digest(), document(&key).digest());
    assert_ne!(document(&key).digest(), document(&other).digest());
}
