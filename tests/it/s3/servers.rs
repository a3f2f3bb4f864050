//! The servers of these tests are what the tests take them for: who may do what, and each fault of the proxy.

use std::process::Command;
use std::time::{Duration, Instant};

use super::proxy::{Fault, Kind, ONCE, Proxy};
use super::seaweed::{CONFINED, KEEPER, Keeps, OWNER, READER, REGION, Server, WRITER};

#[test]
fn each_identity_may_do_what_its_name_says() {
    let server = Server::shared();
    let bucket = server.bucket(Keeps::Last);
    server.put(&bucket, "a/x", b"one");
    server.put(&bucket, "a/y", b"two");
    assert_eq!(server.keys(&bucket, "a/"), ["a/x", "a/y"]);
    server.delete(&bucket, "a/x");
    assert_eq!((server.get(&bucket, "a/x"), server.get(&bucket, "a/y")), (None, Some(b"two".to_vec())));
    for (who, put, get, delete) in
        [(WRITER, 200, 200, 403), (READER, 403, 404, 403), (KEEPER, 200, 200, 204), (CONFINED, 403, 403, 403)]
    {
        let path = format!("/{bucket}/a/{}", who.access_key);
        let ask = |method: &str| server.ask_as(&who, method, &path, &[], b"x").status;
        assert_eq!((ask("PUT"), ask("GET"), ask("DELETE")), (put, get, delete), "{who:?}");
    }
    let confined =
        |method: &str, path: &str| server.ask_as(&CONFINED, method, &format!("/{bucket}{path}"), &[], b"x").status;
    assert_eq!(confined("PUT", "/allowed/x"), 200);
    assert_eq!(confined("GET", "?list-type=2&prefix=allowed%2F"), 200);
    assert_eq!(confined("GET", "?list-type=2&prefix=a%2F"), 403);
    assert_eq!(server.ask_as(&WRITER, "PUT", "/no-such-bucket/x", &[], b"x").status, 404);
}

#[test]
fn a_bucket_keeps_what_it_is_told_to() {
    let server = Server::shared();
    for (keeps, versions) in [(Keeps::Last, 0), (Keeps::Versions, 3), (Keeps::Locked, 3)] {
        let bucket = server.bucket(keeps);
        server.put(&bucket, "key", b"1");
        server.put(&bucket, "key", b"2");
        server.delete(&bucket, "key");
        assert_eq!(server.get(&bucket, "key"), None);
        let found = server.versions(&bucket, "");
        assert_eq!((found.len(), found.iter().filter(|one| one.is_marker).count()), (versions, versions / 3));
    }
}

#[test]
fn a_server_of_one_s_own_is_gone_with_its_owner() {
    let server = Server::start();
    let (address, bucket) = (server.address(), server.bucket(Keeps::Last));
    server.put(&bucket, "key", b"1");
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!std::env::temp_dir().join(format!("lifeboat-test-seaweedfs-{}", address.port())).exists());
}

/// What curl says to a request through the proxy: its exit code, the status, the body.
fn ask(proxy: &Proxy, more: &[&str], target: &str) -> (Option<i32>, u16, Vec<u8>) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "30", "--aws-sigv4", &format!("aws:amz:{REGION}:s3")]);
    curl.args(["--user", &format!("{}:{}", OWNER.access_key, OWNER.secret_key)]);
    curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--write-out", "%{stderr}%{http_code}"]);
    let output = curl.args(more).arg(format!("{}{target}", proxy.endpoint())).output().unwrap();
    let status = String::from_utf8_lossy(&output.stderr).trim().parse().unwrap_or(0);
    (output.status.code(), status, output.stdout)
}

#[test]
fn the_proxy_passes_on_what_it_is_not_told_to_spoil() {
    let server = Server::shared();
    let bucket = server.bucket(Keeps::Last);
    let proxy = Proxy::before(server.address());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let (file, object) = (file.to_str().unwrap().to_owned(), format!("/{bucket}/object"));
    let put = |target: &str| ask(&proxy, &["--upload-file", &file], &format!("/{bucket}/{target}"));
    let get = || ask(&proxy, &[], &object);
    // curl asks before it sends something as large as this (`Expect: 100-continue`).
    assert_eq!(put("object").1, 200);
    assert_eq!(get(), (Some(0), 200, bytes.clone()));
    assert_eq!(ask(&proxy, &["--head"], &object).1, 200);
    assert_eq!([Kind::Put, Kind::Get, Kind::Head].map(|kind| proxy.count(kind)), [1, 1, 1]);

    let once = |fault: Fault, kind: Kind| proxy.plan(ONCE, fault, move |request| request.kind == kind);
    once(Fault::Refuse(503, "SlowDown"), Kind::Get);
    let (_, status, body) = get();
    assert!(status == 503 && String::from_utf8_lossy(&body).contains("<Code>SlowDown</Code>"));
    once(Fault::CutAnswer(1000), Kind::Get);
    assert_eq!(get(), (Some(18), 200, bytes[..1000].to_vec()));
    once(Fault::Truncate(1000), Kind::Get);
    assert_eq!(get(), (Some(0), 200, bytes[..1000].to_vec()));
    once(Fault::Flip, Kind::Get);
    let (_, _, flipped) = get();
    assert_eq!((flipped.len(), flipped.iter().zip(&bytes).filter(|(a, b)| a != b).count()), (bytes.len(), 1));
    once(Fault::CutRequest(1000), Kind::Put);
    assert_ne!(put("cut").0, Some(0));
    assert_eq!(server.get(&bucket, "cut"), None);
    once(Fault::Swallow, Kind::Put);
    assert_ne!(put("swallowed").0, Some(0));
    assert_eq!(server.get(&bucket, "swallowed").as_ref(), Some(&bytes));
    once(Fault::Silence, Kind::Get);
    assert_eq!(ask(&proxy, &["--max-time", "1"], &object).0, Some(28));
    once(Fault::ShiftDate(40 * 86_400), Kind::Head);
    let (_, _, head) = ask(&proxy, &["--head"], &object);
    let (_, _, honest) = ask(&proxy, &["--head"], &object);
    let date = |head: &[u8]| {
        let text = String::from_utf8_lossy(head).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
        chrono::DateTime::parse_from_rfc2822(line).unwrap()
    };
    assert_eq!((date(&head) - date(&honest)).num_days(), 40);
    assert_eq!(get(), (Some(0), 200, bytes));
}

#[test]
fn the_proxy_lies_about_deletes_and_lists_and_takes_its_time() {
    let server = Server::shared();
    let bucket = server.bucket(Keeps::Last);
    let proxy = Proxy::before(server.address());
    server.put(&bucket, "key", b"1");
    let list = format!("/{bucket}?list-type=2&prefix=");
    let before = ask(&proxy, &[], &list).2;
    proxy.plan(ONCE, Fault::Stale, |request| request.kind == Kind::List);
    proxy.plan(ONCE, Fault::Lie, |request| request.kind == Kind::Delete);
    let delete = || ask(&proxy, &["--request", "DELETE"], &format!("/{bucket}/key")).1;
    assert_eq!((delete(), server.get(&bucket, "key")), (204, Some(b"1".to_vec())));
    assert_eq!((delete(), server.get(&bucket, "key")), (204, None));
    assert_eq!(ask(&proxy, &[], &list).2, before);
    assert_ne!(ask(&proxy, &[], &list).2, before);
    assert_eq!(proxy.hits(), 2);

    proxy.delay(Duration::from_millis(30));
    let started = Instant::now();
    ask(&proxy, &[], &list);
    assert!(started.elapsed() >= Duration::from_millis(30));
}
