//! What only a real server can answer: versions, unfinished uploads, rights, certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::seaweed::{EVERYBODY, Tls};
use super::*;
use crate::error::{Code, Diagnostic as _};

/// How many versions and markers lie under a prefix.
async fn versions(store: &S3, prefix: &str) -> usize {
    let page =
        store.client.list_object_versions().bucket(&store.bucket).prefix(store.full(prefix)).send().await.unwrap();
    page.versions.unwrap_or_default().len() + page.delete_markers.unwrap_or_default().len()
}

async fn deleting_leaves_no_version(server: &Server) {
    let bucket = server.bucket(Keeps::Versions);
    let store = open(options(server, &bucket, "vault")).await;
    let put = async |key: &str| {
        for text in ["one", "two", "three"] {
            store.replace(key, Bytes::from_static(text.as_bytes())).await.unwrap();
        }
    };
    for key in ["a", "a.sig", "a/b", "hidden"] {
        put(key).await;
    }
    assert_eq!(versions(&store, "").await, 12);
    assert_eq!(store.delete("a").await.unwrap(), Deleted::Removed);
    assert_eq!(store.delete("a").await.unwrap(), Deleted::Absent);
    assert_eq!(versions(&store, "").await, 9, "of that key all, of longer ones none");
    assert_eq!(store.get("a/b", 10).await.unwrap(), "three");
    // Somebody deleted it as S3's own tools do.
    store.client.delete_object().bucket(&bucket).key(store.full("hidden")).send().await.unwrap();
    assert_eq!((store.size("hidden").await.unwrap(), versions(&store, "hidden").await), (None, 4));
    assert_eq!(store.delete("hidden").await.unwrap(), Deleted::Removed);
    assert_eq!(versions(&store, "hidden").await, 0);
    let many: Vec<String> = (0..20).map(|n| format!("many/{n}")).collect();
    for key in &many {
        put(key).await;
    }
    assert_eq!(versions(&store, "many").await, 60);
    assert_eq!(store.delete_many(&many).await.unwrap(), vec![Deleted::Removed; 20]);
    assert_eq!(versions(&store, "many").await, 0);
    assert_eq!(store.put("a", Bytes::from_static(b"new")).await.unwrap(), Put::Created);
}

async fn unfinished_uploads_are_given_up(server: &Server) {
    let bucket = server.bucket(Keeps::Last);
    let store = open(options(server, &bucket, "vault")).await;
    for key in ["vault/a", "vault/b", "elsewhere/c"] {
        store.client.create_multipart_upload().bucket(&bucket).key(key).send().await.unwrap();
    }
    let now = store.now().await.unwrap();
    assert_eq!(store.clear_unfinished(now - chrono::TimeDelta::hours(1)).await.unwrap(), 0, "too young");
    assert_eq!(store.clear_unfinished(now + chrono::TimeDelta::hours(1)).await.unwrap(), 2);
    assert_eq!(store.clear_unfinished(now + chrono::TimeDelta::hours(1)).await.unwrap(), 0);
    let left = store.client.list_multipart_uploads().bucket(&bucket).send().await.unwrap();
    assert_eq!(left.uploads.unwrap_or_default().len(), 1, "the one that is not below the vault");
}

async fn who_is_refused_is_told(server: &Server) {
    let nowhere = open(options(server, "no-such-bucket", "vault")).await;
    for error in [
        nowhere.now().await.unwrap_err(),
        nowhere.list("", &mut |_| {}).await.unwrap_err(),
        nowhere.put("a", Bytes::new()).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::VaultMissing, "{error:?}");
    }
    let bucket = server.bucket(Keeps::Last);
    for (access_key, secret_key) in [("nobody", SECRET_KEY), (ACCESS_KEY, "wrong")] {
        let keys = Keys { access_key: access_key.into(), secret_key: secret_key.into(), session_token: None };
        let store = open(Options { keys: Some(keys), ..options(server, &bucket, "vault") }).await;
        let error = store.get("a", 10).await.unwrap_err();
        assert_eq!(error.code(), Code::StorageDenied, "{error:?}");
        assert!(!format!("{error:?}{store:?}").contains(secret_key), "{error:?}");
    }
}

async fn many_at_once_are_few_at_a_time(server: &Server) {
    let store = Arc::new(
        open(Options { parallel_requests: 64, ..options(server, &server.bucket(Keeps::Last), "vault") }).await,
    );
    let writers: Vec<_> = (0..300_u16)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let (key, bytes) = (format!("p/{number}"), Bytes::from(vec![7; 50_000 + usize::from(number)]));
                assert_eq!(store.put(&key, bytes.clone()).await.unwrap(), Put::Created);
                assert!(store.get(&key, 100_000).await.unwrap() == bytes);
                assert!(store.requests.available_permits() <= 64);
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.requests.available_permits(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_server() {
    let server = Server::shared();
    deleting_leaves_no_version(server).await;
    unfinished_uploads_are_given_up(server).await;
    who_is_refused_is_told(server).await;
    many_at_once_are_few_at_a_time(server).await;
}

fn openssl(folder: &Path, arguments: &str) {
    let run = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// An authority, and a certificate of it for this machine.
fn certificates(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req -x509 {new} -keyout ca.key -out ca.pem -days 3650 -subj /CN=test-authority"));
    openssl(folder, &format!("req {new} -keyout key.pem -out request.pem -subj /CN=test-server"));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 3650 -extfile names",
    );
    (folder.join("ca.pem"), folder.join("cert.pem"), folder.join("key.pem"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_believed_that_the_named_authority_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, certificate, key) = certificates(folder.path());
    let tls = Tls { certificate, key, authority: authority.clone() };
    let server = Server::with(&EVERYBODY, Some(tls));
    let bucket = server.bucket(Keeps::Last);
    let with_ca = |ca: Option<PathBuf>| Options { ca, ..options(&server, &bucket, "vault") };
    let store = open(with_ca(Some(authority))).await;
    let bytes = Bytes::from(vec![1; 5_000_000]);
    assert_eq!(store.put("a", bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put("a", bytes.clone()).await.unwrap(), Put::Existed);
    assert!(store.get("a", 5_000_000).await.unwrap() == bytes);

    // Not by those whom this host believes.
    let error = open(with_ca(None)).await.get("a", 10).await.unwrap_err();
    assert!(error.to_string().contains("certificate is not believed"), "{error:?}");
    assert!(error.hint().unwrap().contains("ca = "), "{error:?}");
    for (text, said) in [
        ("", "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "no certificates as PEM has them"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
    ] {
        let file = folder.path().join("wrong.pem");
        std::fs::write(&file, text).unwrap();
        let error = S3::open(with_ca(Some(file)), Arc::new(SystemClock::default())).await.unwrap_err();
        assert!(format!("{error:?}").contains(said), "{error:?}");
    }
}
