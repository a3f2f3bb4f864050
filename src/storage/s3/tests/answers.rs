//! What the store makes of answers, exactly: errors and their hints, lost answers, stores that cannot do what AWS can.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::responder::{Reply, Request, Responder};
use super::*;
use crate::error::{Code, Diagnostic as _};

async fn store(responder: &Responder) -> S3 {
    open(reach(&responder.endpoint(), "bucket", "vault")).await
}

fn is(request: &Request, method: &str) -> bool {
    request.method == method
}

/// Puts, reads, looks and deletes as a simple store does; conditions mean nothing to it.
#[derive(Default)]
struct Simple {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Simple {
    fn answer(&self, request: &Request) -> Reply {
        let mut objects = self.objects.lock().unwrap();
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match request.method.as_str() {
            "PUT" => {
                objects.insert(path.to_owned(), request.body.clone());
                Reply::ok(b"")
            }
            "GET" if query.contains("versioning") => Reply::ok(b"<VersioningConfiguration/>"),
            "GET" | "HEAD" => match objects.get(path) {
                Some(bytes) => Reply::ok(bytes),
                None => Reply::Error(404, "NoSuchKey", "nothing there"),
            },
            "DELETE" => {
                objects.remove(path);
                Reply::Say(204, Vec::new(), Vec::new())
            }
            _ => Reply::Error(501, "NotImplemented", "not that"),
        }
    }
}

fn body() -> Bytes {
    Bytes::from_static(b"some bytes")
}

#[tokio::test]
async fn each_refusal_is_told_with_what_to_do() {
    let malformed = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'";
    for (status, code, message, told, hint) in [
        (404, "NoSuchBucket", "The specified bucket does not exist", Code::VaultMissing, "make the bucket"),
        (403, "AccessDenied", "User is not authorized", Code::StorageDenied, "docs/S3.md lists who needs which"),
        (403, "InvalidAccessKeyId", "unknown", Code::StorageDenied, "are key and secret those of this store?"),
        (403, "SignatureDoesNotMatch", "wrong", Code::StorageDenied, "are key and secret those of this store?"),
        (400, "ExpiredToken", "expired", Code::StorageDenied, "renew the temporary keys"),
        (400, "AuthorizationHeaderMalformed", malformed, Code::ConfigInvalid, "write region = \"eu-central-1\""),
        (403, "RequestTimeTooSkewed", "too large", Code::ClockWrong, "set this host's clock"),
        (400, "InvalidArgument", "no\u{7}\nsuch", Code::StorageFailed, "ask whoever runs the store"),
        (507, "InsufficientStorage", "full", Code::StorageFull, "make room"),
    ] {
        let responder = Responder::start(move |_| Reply::Error(status, code, message)).await;
        let store = store(&responder).await;
        for error in [
            store.get("a", 10).await.unwrap_err(),
            store.replace("a", body()).await.unwrap_err(),
            store.list("", &mut |_| {}).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), told, "{code}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{code}: {:?}", error.hint());
            assert!(!error.is_transient());
            let shown = format!("{error} {error:?} {store:?}");
            assert!(
                !shown.contains(SECRET_KEY) && !shown.contains("Signature=") && !shown.contains('\u{7}'),
                "{shown}"
            );
        }
        // A clock is corrected once; nothing else is asked twice.
        let most = if code == "RequestTimeTooSkewed" { 6 } else { 3 };
        assert_eq!(responder.seen().len(), most, "{code}");
    }
}

#[tokio::test]
async fn a_redirect_tells_the_region() {
    let responder =
        Responder::start(|_| Reply::Say(301, vec![("x-amz-bucket-region", "eu-west-3".into())], Vec::new())).await;
    let error = store(&responder).await.size("a").await.unwrap_err();
    assert!(error.hint().unwrap().contains("region = \"eu-west-3\""), "{error:?}");
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for trouble in [
        Reply::Error(503, "SlowDown", "slow down"),
        Reply::Error(500, "InternalError", "oops"),
        Reply::Error(429, "TooManyRequests", "fewer"),
        Reply::Error(400, "RequestTimeout", "your socket was idle"),
        Reply::Say(504, Vec::new(), Vec::new()),
        Reply::Cut(100, b"too few".to_vec()),
        Reply::Hang,
    ] {
        let (asked, first) = (AtomicUsize::new(0), trouble.clone());
        let responder = Responder::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => first.clone(),
            _ => Reply::ok(b"at last"),
        })
        .await;
        assert_eq!(&store(&responder).await.get("a", 100).await.unwrap()[..], b"at last", "{trouble:?}");
        assert_eq!(responder.seen().len(), 3, "{trouble:?}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = open(reach(&endpoint, "bucket", "")).await;
    let error = store.fetch("a", None, 1).await.err().unwrap();
    assert_eq!(error.kind, Kind::Fault(RemoteFault::Unreachable), "{error:?}");
    assert!(error.kind.is_transient());
}

#[tokio::test]
async fn more_than_the_limit_is_not_read() {
    // A gigabyte is promised and never comes: the answer does not wait for it.
    let responder = Responder::start(|_| Reply::Cut(1 << 30, b"beginning".to_vec())).await;
    match store(&responder).await.get("a", 100).await {
        Err(StorageError::TooLarge { size_bytes, limit_bytes: 100, .. }) => assert_eq!(size_bytes, 1 << 30),
        other => panic!("{other:?}"),
    }
    assert_eq!(responder.seen().len(), 1);
}

#[tokio::test]
async fn every_put_brings_its_sum_and_its_condition() {
    let responder = Responder::start(|request| match request.headers.get("if-none-match") {
        Some(_) if is(request, "PUT") => Reply::Error(412, "PreconditionFailed", "there already"),
        _ if is(request, "PUT") => Reply::ok(b""),
        _ => Reply::ok(b"other bytes"),
    })
    .await;
    let store = store(&responder).await;
    store.creation.know(true);
    assert_eq!(store.put("a", body()).await.unwrap(), Put::Existed);
    store.replace("a", body()).await.unwrap();
    let puts: Vec<_> = responder.seen().into_iter().filter(|request| is(request, "PUT")).collect();
    assert_eq!(puts.len(), 2);
    for put in &puts {
        // openssl dgst -sha256 -binary | base64
        assert_eq!(put.headers["x-amz-checksum-sha256"], "DSLNzBDm0Enb4a9RI9UIc/38Gk9YMG5Yy2JBvpRyAU0=");
        assert_eq!((put.target.split('?').next().unwrap(), &put.body[..]), ("/bucket/vault/a", &b"some bytes"[..]));
        assert!(put.headers["authorization"].contains("x-amz-checksum-sha256"), "the sum is signed");
    }
    assert_eq!(puts[0].headers["if-none-match"], "*");
    assert!(!puts[1].headers.contains_key("if-none-match"));
}

#[tokio::test]
async fn what_is_refused_though_nothing_is_there_is_put_all_the_same() {
    let simple = Arc::new(Simple::default());
    let held = Arc::clone(&simple);
    let responder = Responder::start(move |request| match request.headers.get("if-none-match") {
        Some(_) => Reply::Error(412, "PreconditionFailed", ""),
        None => held.answer(request),
    })
    .await;
    let store = store(&responder).await;
    assert_eq!(store.put("a", body()).await.unwrap(), Put::Created);
    assert_eq!(store.put("a", Bytes::from_static(b"other")).await.unwrap(), Put::Existed);
    assert_eq!(store.get("a", 100).await.unwrap(), body());
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_looked_for() {
    for (there, put) in [(&b"some bytes"[..], Put::Created), (b"other bytes", Put::Existed)] {
        let puts = AtomicUsize::new(0);
        let responder = Responder::start(move |request| match request.method.as_str() {
            "PUT" if puts.fetch_add(1, Ordering::SeqCst) == 0 => Reply::Hang,
            "PUT" => Reply::Error(412, "PreconditionFailed", ""),
            _ => Reply::ok(there),
        })
        .await;
        let store = store(&responder).await;
        store.creation.know(true);
        assert_eq!(store.put("a", body()).await.unwrap(), put);
    }
}

#[tokio::test]
async fn a_replacement_whose_last_answer_was_lost_is_looked_for() {
    let responder = Responder::start(|request| match request.method.as_str() {
        "PUT" => Reply::Error(500, "InternalError", ""),
        _ => Reply::ok(b"some bytes"),
    })
    .await;
    let store = S3 { retries: Retries::without_pauses(), ..store(&responder).await };
    store.replace("a", body()).await.unwrap();
    let error = store.replace("a", Bytes::from_static(b"other")).await.unwrap_err();
    assert_eq!(error.code(), Code::StorageUnreachable, "{error:?}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_found_out() {
    let simple = Arc::new(Simple::default());
    let held = Arc::clone(&simple);
    let responder = Responder::start(move |request| held.answer(request)).await;
    let store = store(&responder).await;
    assert_eq!(store.put("a", body()).await.unwrap(), Put::Created);
    for key in ["a", "b"] {
        let first = store.put(key, body()).await.unwrap();
        assert_eq!(first, if key == "a" { Put::Existed } else { Put::Created });
        assert_eq!(store.put(key, Bytes::from_static(b"other")).await.unwrap(), Put::Existed);
        assert_eq!(store.get(key, 100).await.unwrap(), body());
    }
    // Sixteen at once in this process: one creates.
    let store = Arc::new(store);
    let writers: Vec<_> = (0..16_u8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put("race", Bytes::from(vec![writer; 100])).await.unwrap() })
        })
        .collect();
    let mut created = 0;
    for writer in writers {
        created += usize::from(writer.await.unwrap() == Put::Created);
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn a_store_that_refuses_the_condition_is_found_out() {
    let simple = Arc::new(Simple::default());
    let held = Arc::clone(&simple);
    let responder = Responder::start(move |request| match request.headers.get("if-none-match") {
        Some(_) => {
            Reply::Error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
        }
        None => held.answer(request),
    })
    .await;
    let store = store(&responder).await;
    assert_eq!(store.put("a", body()).await.unwrap(), Put::Created);
    assert_eq!(store.put("a", Bytes::from_static(b"other")).await.unwrap(), Put::Existed);
    assert_eq!(store.put("b", body()).await.unwrap(), Put::Created);
    assert_eq!(simple.objects.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn without_conditions_another_writer_is_found_out_afterwards() {
    let simple = Arc::new(Simple::default());
    let held = Arc::clone(&simple);
    let responder = Responder::start(move |request| {
        let reply = held.answer(request);
        if is(request, "PUT") && request.target.contains("/raced") {
            // Somebody else's comes right after.
            let path = request.target.split('?').next().unwrap().to_owned();
            held.objects.lock().unwrap().insert(path, b"theirs".to_vec());
        }
        reply
    })
    .await;
    let store = store(&responder).await;
    store.creation.know(false);
    let error = store.put("raced", body()).await.unwrap_err();
    assert!(matches!(error, StorageError::Conflict { .. }), "{error:?}");
}

#[tokio::test]
async fn a_deletion_that_did_not_happen_is_no_deletion() {
    let responder = Responder::start(|request| match request.method.as_str() {
        "GET" if request.target.contains("versioning") => Reply::ok(b"<VersioningConfiguration/>"),
        "DELETE" => Reply::Say(204, Vec::new(), Vec::new()),
        "POST" => Reply::ok(b"<DeleteResult/>"),
        _ => Reply::ok(b"still here"),
    })
    .await;
    let store = store(&responder).await;
    for error in
        [store.delete("a").await.unwrap_err(), store.delete_many(&["a".to_owned(), "b".to_owned()]).await.unwrap_err()]
    {
        assert!(error.to_string().contains("says that it is gone, and still has it"), "{error}");
    }
}

#[tokio::test]
async fn a_deletion_that_only_hides_is_told() {
    let responder = Responder::start(|request| match request.method.as_str() {
        "HEAD" => Reply::ok(b"x"),
        "DELETE" => Reply::Say(204, vec![("x-amz-delete-marker", "true".into())], Vec::new()),
        _ => Reply::Error(403, "AccessDenied", "no"),
    })
    .await;
    let error = store(&responder).await.delete("a").await.unwrap_err();
    let (code, said) = (error.code(), std::error::Error::source(&error).unwrap().to_string());
    assert!(code == Code::StorageDenied && said.contains("ListBucketVersions"), "{error:?}");
}

#[tokio::test]
async fn one_of_many_that_cannot_be_deleted_is_named() {
    let part = "<DeleteResult><Error><Key>vault/b</Key><Code>AccessDenied</Code><Message>held</Message></Error></DeleteResult>";
    let responder = Responder::start(move |request| match request.method.as_str() {
        "GET" => Reply::ok(b"<VersioningConfiguration/>"),
        _ => Reply::ok(part.as_bytes()),
    })
    .await;
    let error = store(&responder).await.delete_many(&["a".to_owned(), "b".to_owned()]).await.unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.code() == Code::StorageDenied && said.contains("vault/b"), "{error:?}");
}

#[tokio::test]
async fn a_listing_that_never_ends_ends() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>\
                <Contents><Key>vault/a</Key><Size>1</Size></Contents>\
                <Contents><Key>elsewhere/b</Key><Size>1</Size></Contents>\
                <Contents><Key>vault/</Key><Size>0</Size></Contents></ListBucketResult>";
    let responder = Responder::start(move |_| Reply::ok(page.as_bytes())).await;
    let mut found = Vec::new();
    let error = store(&responder).await.list("", &mut |listed| found.push(listed.key)).await.unwrap_err();
    assert!(format!("{error:?}").contains("does not say where"), "{error:?}");
    assert_eq!(found, ["a", "a"]);
}

#[tokio::test]
async fn the_time_is_learnt_from_answers() {
    let responder = Responder::start(|_| Reply::ok(b"x")).await;
    let store = store(&responder).await;
    let first: DateTime<Utc> = "2026-11-22T17:21:38Z".parse().unwrap();
    assert!(store.now().await.unwrap() >= first);
    assert_eq!(responder.seen().len(), 1);
    store.size("a").await.unwrap();
    let now = store.now().await.unwrap();
    assert!(first <= now && now < first + chrono::TimeDelta::seconds(60), "{now}");
    assert_eq!(responder.seen().len(), 2, "nothing is asked for the time where answers come anyway");
}
