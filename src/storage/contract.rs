//! What every store must do, as one suite: each store's tests run it on a place of their own.
//!
//! `open` gives another handle on the same place, as another process would have.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Deleted, MAX_KEY_BYTES, Put, Storage, StorageError};

type Open<'a> = &'a dyn Fn() -> Arc<dyn Storage>;

const LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Runs everything, on an empty store.
pub(super) async fn run(open: Open<'_>) {
    assert_eq!(keys(&*open(), "").await, BTreeSet::new(), "the suite needs an empty store");
    what_was_put_is_read_back(open).await;
    a_key_is_created_once(open).await;
    nothing_is_there_before_sync(open).await;
    what_was_not_synced_is_lost(open).await;
    two_processes_cannot_both_have_a_key(open).await;
    one_of_many_writers_creates(open).await;
    one_of_many_processes_creates(open).await;
    missing_keys(open).await;
    deleting_many(open).await;
    limits(open).await;
    replacing(open).await;
    deleting(open).await;
    listing(open).await;
    odd_keys(open).await;
    bad_keys(open).await;
    large_objects(open).await;
    what_the_store_says_of_itself(open).await;
    match open().lock() {
        Some(_) => {
            what_is_held_cannot_be_deleted(open).await;
            a_hold_is_never_made_shorter(open).await;
            what_was_overwritten_can_still_be_read(open).await;
        }
        // Nothing is left out: a store that does not hold must say so whenever it is asked to.
        None => holding_is_refused_where_there_is_no_lock(open).await,
    }
}

/// What the suite holds is held so long: it must be over when its place is to be removed, and not before the suite is.
const HELD_FOR: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

async fn what_is_held_cannot_be_deleted(open: Open<'_>) {
    let store = open();
    let until = store.now().await.unwrap() + HELD_FOR;
    assert_eq!(store.put_held("held/a", Bytes::from_static(b"held"), until).await.unwrap(), Put::Created);
    assert_eq!(store.put("held/b", Bytes::from_static(b"free")).await.unwrap(), Put::Created);
    store.sync().await.unwrap();
    let same = |held: Option<chrono::DateTime<chrono::Utc>>| {
        // Stores keep whole seconds, or more.
        assert!((held.unwrap() - until).abs() <= chrono::TimeDelta::seconds(1), "{held:?}, not {until}");
    };
    same(open().held_until("held/a").await.unwrap());
    assert_eq!(open().held_until("held/b").await.unwrap(), None);
    assert_eq!(open().held_until("held/never/there").await.unwrap(), None);
    for store in [&store, &open()] {
        match store.delete("held/a").await {
            Ok(Deleted::Held { until }) => {
                if until.is_some() {
                    same(until);
                }
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(&store.get("held/a", LIMIT_BYTES).await.unwrap()[..], b"held", "a refused deletion hides nothing");
    }
    // The key is taken, and who comes second holds nothing.
    let later = until + HELD_FOR;
    assert_eq!(store.put_held("held/a", Bytes::from_static(b"other"), later).await.unwrap(), Put::Existed);
    store.sync().await.unwrap();
    same(store.held_until("held/a").await.unwrap());
    assert_eq!(store.delete("held/b").await.unwrap(), Deleted::Removed);
    store.sync().await.unwrap();
    assert_eq!(keys(&*store, "held/").await, BTreeSet::from(["held/a".to_owned()]));
}

async fn a_hold_is_never_made_shorter(open: Open<'_>) {
    let store = open();
    let soon = store.now().await.unwrap() + HELD_FOR / 2;
    store.put("longer/a", Bytes::from_static(b"a")).await.unwrap();
    store.sync().await.unwrap();
    let near = |one: chrono::DateTime<chrono::Utc>, other: chrono::DateTime<chrono::Utc>| {
        (one - other).abs() <= chrono::TimeDelta::seconds(1)
    };
    let later = soon + HELD_FOR / 2;
    for (asked, held) in [(soon, soon), (soon, soon), (later, later), (soon, later)] {
        let told = store.hold("longer/a", asked).await.unwrap();
        assert!(near(told, held), "asked for {asked}, told {told}, not {held}");
        assert!(near(open().held_until("longer/a").await.unwrap().unwrap(), held));
    }
    assert!(matches!(store.delete("longer/a").await, Ok(Deleted::Held { .. })));
    assert!(store.hold("longer/never/there", soon).await.unwrap_err().is_not_found());
}

async fn what_was_overwritten_can_still_be_read(open: Open<'_>) {
    let store = open();
    let until = store.now().await.unwrap() + HELD_FOR;
    store.put_held("over/a", Bytes::from_static(b"right"), until).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.earlier("over/a").await.unwrap(), []);
    assert_eq!(store.earlier("over/never/there").await.unwrap(), []);
    store.replace("over/a", Bytes::from_static(b"wrong 1")).await.unwrap();
    store.replace("over/a", Bytes::from_static(b"wrong 22")).await.unwrap();
    assert_eq!(&store.get("over/a", LIMIT_BYTES).await.unwrap()[..], b"wrong 22");
    let earlier = open().earlier("over/a").await.unwrap();
    assert_eq!(earlier.iter().map(|version| version.size_bytes).collect::<Vec<_>>(), [7, 5]);
    assert_eq!(&store.get_earlier("over/a", &earlier[1], 5).await.unwrap()[..], b"right");
    let error = store.get_earlier("over/a", &earlier[1], 4).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { size_bytes: 5, limit_bytes: 4, .. }), "{error}");
    assert!(store.undoing("over/a").unwrap().contains("over/a"));
    // A deletion takes what lies on top and leaves what is held.
    let keys = ["over/a".to_owned(), "over/never/there".to_owned()];
    let deleted = store.delete_many(&keys).await.unwrap();
    assert!(matches!(deleted[..], [Deleted::Held { .. }, Deleted::Absent | Deleted::Removed]), "{deleted:?}");
    assert_eq!(&store.get("over/a", LIMIT_BYTES).await.unwrap()[..], b"right");
    assert_eq!(store.earlier("over/a").await.unwrap(), []);
}

async fn holding_is_refused_where_there_is_no_lock(open: Open<'_>) {
    let store = open();
    let until = store.now().await.unwrap() + HELD_FOR;
    let refused = |error| assert!(matches!(error, StorageError::NoLock { .. }), "{error}");
    refused(store.put_held("unheld/a", Bytes::from_static(b"a"), until).await.unwrap_err());
    store.sync().await.unwrap();
    assert_eq!(store.size("unheld/a").await.unwrap(), None, "what cannot be held is not stored");
    store.put("unheld/a", Bytes::from_static(b"a")).await.unwrap();
    store.sync().await.unwrap();
    refused(store.hold("unheld/a", until).await.unwrap_err());
    assert_eq!(store.held_until("unheld/a").await.unwrap(), None);
    assert_eq!(store.delete("unheld/a").await.unwrap(), Deleted::Removed);
    store.sync().await.unwrap();
}

async fn keys(store: &dyn Storage, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    store
        .list(prefix, &mut |listed| assert!(found.insert(listed.key.clone()), "{} was told twice", listed.key))
        .await
        .unwrap();
    found
}

async fn what_was_put_is_read_back(open: Open<'_>) {
    let store = open();
    for (key, bytes) in [("read/empty", &b""[..]), ("read/a/b/c", b"abc"), ("read/top", b"\0\xff\n")] {
        assert_eq!(store.put(key, Bytes::from_static(bytes)).await.unwrap(), Put::Created);
    }
    store.sync().await.unwrap();
    for store in [store, open()] {
        assert_eq!(&store.get("read/empty", 0).await.unwrap()[..], b"");
        assert_eq!(&store.get("read/a/b/c", LIMIT_BYTES).await.unwrap()[..], b"abc");
        assert_eq!(&store.get("read/top", LIMIT_BYTES).await.unwrap()[..], b"\0\xff\n");
        assert_eq!(store.size("read/a/b/c").await.unwrap(), Some(3));
    }
}

async fn a_key_is_created_once(open: Open<'_>) {
    let store = open();
    assert_eq!(store.put("once/a", Bytes::from_static(b"first")).await.unwrap(), Put::Created);
    assert_eq!(store.put("once/a", Bytes::from_static(b"second")).await.unwrap(), Put::Existed, "before sync");
    store.sync().await.unwrap();
    for store in [Arc::clone(&store), open()] {
        assert_eq!(store.put("once/a", Bytes::from_static(b"third")).await.unwrap(), Put::Existed, "after sync");
        store.sync().await.unwrap();
    }
    assert_eq!(&store.get("once/a", LIMIT_BYTES).await.unwrap()[..], b"first");
}

async fn nothing_is_there_before_sync(open: Open<'_>) {
    let store = open();
    store.put("staged/a", Bytes::from_static(b"a")).await.unwrap();
    // A store may show it early; but it must not show a part of it, and must show it after sync.
    for handle in [Arc::clone(&store), open()] {
        match handle.get("staged/a", LIMIT_BYTES).await {
            Ok(bytes) => assert_eq!(&bytes[..], b"a"),
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
    }
    store.sync().await.unwrap();
    for handle in [Arc::clone(&store), open()] {
        assert_eq!(&handle.get("staged/a", LIMIT_BYTES).await.unwrap()[..], b"a");
        assert!(keys(&*handle, "staged/").await.contains("staged/a"));
    }
    store.sync().await.unwrap();
}

async fn what_was_not_synced_is_lost(open: Open<'_>) {
    let dying = open();
    let staged = !matches!(dying.kind(), "s3");
    dying.put("lost/a", Bytes::from_static(b"old")).await.unwrap();
    drop(dying);
    let store = open();
    if staged {
        assert_eq!(store.size("lost/a").await.unwrap(), None);
        assert_eq!(keys(&*store, "lost").await, BTreeSet::new());
        assert_eq!(store.put("lost/a", Bytes::from_static(b"new")).await.unwrap(), Put::Created);
        store.sync().await.unwrap();
        assert_eq!(&store.get("lost/a", LIMIT_BYTES).await.unwrap()[..], b"new");
    }
}

async fn two_processes_cannot_both_have_a_key(open: Open<'_>) {
    let (one, other) = (open(), open());
    for (key, ours, theirs) in [("both/same", "same", "same"), ("both/different", "ours", "theirs")] {
        one.put(key, Bytes::from_static(ours.as_bytes())).await.unwrap();
        let put = other.put(key, Bytes::from_static(theirs.as_bytes())).await.unwrap();
        one.sync().await.unwrap();
        let synced = other.sync().await;
        if put == Put::Created && ours != theirs {
            assert!(matches!(synced, Err(StorageError::Conflict { .. })), "{synced:?}");
        } else {
            synced.unwrap();
        }
        assert_eq!(&other.get(key, LIMIT_BYTES).await.unwrap()[..], ours.as_bytes());
    }
    // A lost race is over: the handle goes on working.
    other.put("both/after", Bytes::from_static(b"x")).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(one.size("both/after").await.unwrap(), Some(1));
}

const WRITERS: u8 = 16;

async fn one_of_many_writers_creates(open: Open<'_>) {
    for round in 0..20 {
        let store = open();
        let key = format!("race/handle-{round}");
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    let put = store.put(&key, Bytes::from(vec![writer; 10_000])).await.unwrap();
                    (writer, put)
                })
            })
            .collect();
        let mut created = Vec::new();
        for writer in writers {
            if let (writer, Put::Created) = writer.await.unwrap() {
                created.push(writer);
            }
        }
        assert_eq!(created.len(), 1, "created by {created:?}");
        store.sync().await.unwrap();
        let bytes = store.get(&key, LIMIT_BYTES).await.unwrap();
        assert!(bytes.len() == 10_000 && bytes.iter().all(|b| *b == created[0]));
    }
}

async fn one_of_many_processes_creates(open: Open<'_>) {
    for round in 0..10 {
        let key = format!("race/process-{round}");
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, key) = (open(), key.clone());
                tokio::spawn(async move {
                    let put = store.put(&key, Bytes::from(vec![writer; 10_000])).await.unwrap();
                    match store.sync().await {
                        Ok(()) => (put == Put::Created).then_some(writer),
                        Err(StorageError::Conflict { .. }) => None,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let mut created = Vec::new();
        for writer in writers {
            created.extend(writer.await.unwrap());
        }
        assert_eq!(created.len(), 1, "created by {created:?}");
        let bytes = open().get(&key, LIMIT_BYTES).await.unwrap();
        assert!(bytes.len() == 10_000 && bytes.iter().all(|b| *b == created[0]));
    }
}

async fn missing_keys(open: Open<'_>) {
    let store = open();
    for key in ["missing", "missing/a/b"] {
        let error = store.get(key, LIMIT_BYTES).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(store.size(key).await.unwrap(), None);
        // A store that has nothing in this machine's cache need not look.
        match store.forget_cached(key).await {
            Ok(dropped) => assert!(!dropped),
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
        assert_eq!(keys(&*store, key).await, BTreeSet::new());
    }
}

async fn limits(open: Open<'_>) {
    let store = open();
    store.put("limits/ten", Bytes::from_static(b"0123456789")).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.get("limits/ten", 10).await.unwrap().len(), 10);
    match store.get("limits/ten", 9).await {
        Err(StorageError::TooLarge { size_bytes: 10, limit_bytes: 9, .. }) => {}
        other => panic!("{other:?}"),
    }
}

async fn replacing(open: Open<'_>) {
    let store = open();
    store.replace("replaced/a", Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(&open().get("replaced/a", LIMIT_BYTES).await.unwrap()[..], b"one", "visible without sync");
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = open();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let bytes = store.get("replaced/a", LIMIT_BYTES).await.unwrap();
                    assert!(matches!(&bytes[..], b"one" | b"two" | b"three"), "{bytes:?}");
                }
            })
        })
        .collect();
    for _ in 0..10 {
        store.replace("replaced/a", Bytes::from_static(b"two")).await.unwrap();
        store.replace("replaced/a", Bytes::from_static(b"three")).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(&open().get("replaced/a", LIMIT_BYTES).await.unwrap()[..], b"three");
    assert_eq!(store.put("replaced/a", Bytes::from_static(b"no")).await.unwrap(), Put::Existed);
}

async fn deleting(open: Open<'_>) {
    let store = open();
    assert_eq!(store.delete("deleted/never/there").await.unwrap(), Deleted::Absent);
    store.put("deleted/a", Bytes::from_static(b"a")).await.unwrap();
    store.put("deleted/b", Bytes::from_static(b"b")).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.delete("deleted/a").await.unwrap(), Deleted::Removed);
    assert_eq!(store.delete("deleted/a").await.unwrap(), Deleted::Absent);
    assert_eq!(open().size("deleted/a").await.unwrap(), None, "gone at once");
    store.sync().await.unwrap();
    assert_eq!(keys(&*open(), "deleted/").await, BTreeSet::from(["deleted/b".to_owned()]));
    assert_eq!(store.put("deleted/a", Bytes::from_static(b"again")).await.unwrap(), Put::Created);
    assert_eq!(store.delete("deleted/a").await.unwrap(), Deleted::Removed, "put and not yet synced");
    store.sync().await.unwrap();
    assert_eq!(store.size("deleted/a").await.unwrap(), None);
}

async fn deleting_many(open: Open<'_>) {
    let store = open();
    assert_eq!(store.delete_many(&[]).await.unwrap(), []);
    let keys_of = |range: std::ops::Range<u32>| range.map(|n| format!("many/{n:04} +")).collect::<Vec<_>>();
    for key in keys_of(0..30) {
        store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    }
    store.sync().await.unwrap();
    let mut doomed = keys_of(3..28);
    assert_eq!(store.delete_many(&doomed).await.unwrap(), vec![Deleted::Removed; 25]);
    store.sync().await.unwrap();
    let left = BTreeSet::from_iter(keys_of(0..3).into_iter().chain(keys_of(28..30)));
    assert_eq!(keys(&*open(), "many/").await, left);
    // What is gone already is no error, and may be told as either.
    doomed.push(keys_of(0..1).remove(0));
    let again = store.delete_many(&doomed).await.unwrap();
    assert_eq!((again.len(), again[25]), (26, Deleted::Removed));
    store.sync().await.unwrap();
    assert_eq!(keys(&*open(), "many/").await.len(), 4);
    let refused = store.delete_many(&["../x".to_owned()]).await;
    assert!(matches!(refused, Err(StorageError::BadKey { .. })));
}

async fn listing(open: Open<'_>) {
    let store = open();
    let before = store.now().await.unwrap();
    // More than travel in one batch of any store, over several folders, with sizes that tell them apart.
    let expected: BTreeSet<String> =
        (0..1500).map(|n| format!("listed/{:02x}/{n:04}", n % 7)).chain(["listed-not/a".to_owned()]).collect();
    for key in &expected {
        store.put(key, Bytes::from(vec![7; key.len() % 5])).await.unwrap();
    }
    store.sync().await.unwrap();
    let within = |prefix: &str| expected.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
    for prefix in ["listed", "listed/", "listed/0", "listed/03", "listed/03/", "listed/03/00", "listed-", "listed/zz/"]
    {
        let found: BTreeSet<String> = keys(&*store, prefix).await;
        assert_eq!(found, within(prefix), "{prefix}");
    }
    assert!(keys(&*store, "").await.is_superset(&expected));
    let after = store.now().await.unwrap();
    store
        .list("listed/", &mut |listed| {
            assert_eq!(listed.size_bytes, (listed.key.len() % 5) as u64, "{}", listed.key);
            // File systems stamp with a coarser clock than the one that tells the time.
            let slack = chrono::TimeDelta::seconds(2);
            let modified = listed.modified.unwrap();
            assert!(before - slack <= modified && modified <= after + slack, "{modified}");
        })
        .await
        .unwrap();
}

async fn odd_keys(open: Open<'_>) {
    let store = open();
    // Who keeps versions may keep them in a folder that is named after the key, and a little more.
    let component = if store.lock().is_some() { 240 } else { 255 };
    let mut longest = format!("odd/{}", "l".repeat(component));
    while longest.len() < MAX_KEY_BYTES {
        longest += "/";
        longest += &"o".repeat(component.min(MAX_KEY_BYTES - longest.len()));
    }
    assert_eq!(longest.len(), MAX_KEY_BYTES);
    let odd = ["odd/a b", "odd/a+b", "odd/-rf", "odd/a=b,c@d~", "odd/a.b.c", "odd/A", "odd/a", &longest];
    for key in odd {
        assert_eq!(store.put(key, Bytes::copy_from_slice(key.as_bytes())).await.unwrap(), Put::Created, "{key}");
    }
    store.sync().await.unwrap();
    for key in odd {
        assert_eq!(&store.get(key, LIMIT_BYTES).await.unwrap()[..], key.as_bytes());
    }
    assert_eq!(keys(&*store, "odd/").await, odd.iter().map(|key| (*key).to_owned()).collect());
}

async fn bad_keys(open: Open<'_>) {
    let store = open();
    for key in ["", "/etc/passwd", "../outside", "a/../../outside", "a//b", ".tmp/0/0", "a\0b", "a/"] {
        let refused = |error| assert!(matches!(error, StorageError::BadKey { .. }), "{key:?}: {error}");
        refused(store.put(key, Bytes::new()).await.unwrap_err());
        refused(store.replace(key, Bytes::new()).await.unwrap_err());
        refused(store.get(key, LIMIT_BYTES).await.unwrap_err());
        refused(store.size(key).await.unwrap_err());
        refused(store.delete(key).await.unwrap_err());
        refused(store.forget_cached(key).await.unwrap_err());
    }
    for prefix in ["..", "../", "/", "a/../"] {
        let listed = store.list(prefix, &mut |listed| panic!("{listed:?}")).await;
        assert!(matches!(listed, Err(StorageError::BadKey { .. })), "{prefix:?}");
    }
}

async fn large_objects(open: Open<'_>) {
    let store = open();
    let bytes: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    let bytes = Bytes::from(bytes);
    store.put("large/a", bytes.clone()).await.unwrap();
    store.sync().await.unwrap();
    assert!(store.get("large/a", LIMIT_BYTES).await.unwrap() == bytes);
    store.forget_cached("large/a").await.unwrap();
    assert!(open().get("large/a", LIMIT_BYTES).await.unwrap() == bytes, "read after dropping it from the cache");
}

async fn what_the_store_says_of_itself(open: Open<'_>) {
    let store = open();
    assert!(!store.describe().is_empty());
    assert!(!store.kind().is_empty());
    assert!(store.now().await.unwrap() <= store.now().await.unwrap());
    store.available_bytes().await.unwrap();
}
