//! Object Lock on a real server.

use chrono::TimeDelta;

use super::*;

fn locking(server: &Server, bucket: &str, mode: LockMode) -> Options {
    Options { lock: Some(mode), ..options(server, bucket, "some/prefix") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_and_holds() {
    let server = Server::shared();
    let handle = tokio::runtime::Handle::current();
    for mode in [LockMode::Governance, LockMode::Compliance] {
        let bucket = server.bucket(Keeps::Locked);
        contract::run(&|| {
            let options = locking(server, &bucket, mode);
            Arc::new(tokio::task::block_in_place(|| handle.block_on(open(options))))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_without_a_lock_is_told_at_the_first_put() {
    let server = Server::shared();
    let store = open(locking(server, &server.bucket(Keeps::Last), LockMode::Governance)).await;
    let until = store.now().await.unwrap() + TimeDelta::days(1);
    for error in [
        store.put_held("a", Bytes::from_static(b"a"), until).await.unwrap_err(),
        store.hold("a", until).await.unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::NoLock { .. }), "{error}");
    }
    assert_eq!(store.size("a").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_s_versions_and_markers_hide_nothing_for_good() {
    let server = Server::shared();
    let store = open(locking(server, &server.bucket(Keeps::Locked), LockMode::Compliance)).await;
    let until = store.now().await.unwrap() + TimeDelta::minutes(5);
    store.put_held("a", Bytes::from_static(b"right"), until).await.unwrap();
    store.replace("a", Bytes::from_static(b"wrong")).await.unwrap();
    // A plain deletion, as any tool makes it, hides both.
    store.client.delete_object().bucket(&store.bucket).key(store.full("a")).send().await.unwrap();
    assert!(store.get("a", 100).await.unwrap_err().is_not_found());
    let earlier = store.earlier("a").await.unwrap();
    assert_eq!(earlier.len(), 2, "{earlier:?}");
    let mut found = Vec::new();
    for version in &earlier {
        found.push(store.get_earlier("a", version, 100).await.unwrap());
    }
    assert!(found.contains(&Bytes::from_static(b"right")), "{found:?}");
    // Ours takes away marker and foreign version, and what is held is to be seen again.
    assert!(matches!(store.delete("a").await.unwrap(), Deleted::Held { until: Some(_) }));
    assert_eq!(&store.get("a", 100).await.unwrap()[..], b"right");
}
