//! Vaults in buckets.

use super::*;
use crate::config::S3Settings;

fn bucket(lines: &str) -> String {
    vault().replace("/srv/backups", "s3://acme.backups/prod/db") + lines + "\n"
}

#[test]
fn what_is_said_of_a_bucket() {
    let plain = parse(&bucket("")).unwrap();
    let plain = &plain.vaults["main"];
    assert_eq!(plain.url, VaultUrl::S3 { bucket: "acme.backups".into(), prefix: "prod/db".into() });
    assert_eq!((plain.url.to_string().as_str(), &plain.s3), ("s3://acme.backups/prod/db", &S3Settings::default()));

    let whole = parse(&bucket(
        r#"
region = "eu-central-1"
endpoint = "https://s3.example.com:9000/"
path_style = true
access_key = { env = "KEY" }
secret_key = { file = "secret" }
session_token = { credential = "token" }
ca = "ca.pem"
parallel_requests = 64
bandwidth_limit = "20MiB""#,
    ))
    .unwrap();
    let s3 = &whole.vaults["main"].s3;
    assert_eq!(s3.region.as_deref(), Some("eu-central-1"));
    assert_eq!(s3.endpoint.as_deref(), Some("https://s3.example.com:9000"));
    assert_eq!((s3.path_style, s3.profile.as_deref()), (Some(true), None));
    let keys = s3.keys.as_ref().unwrap();
    assert_eq!(keys.secret_key, Secret::File("/etc/lifeboat/secret".into()));
    assert_eq!(keys.session_token, Some(Secret::Credential("token".into())));
    assert_eq!(s3.ca.as_deref(), Some(Path::new("/etc/lifeboat/ca.pem")));
    assert_eq!((s3.parallel_requests, s3.bandwidth_limit_bytes), (64, Some(20 * 1024 * 1024)));
}

#[test]
fn mistakes() {
    for (lines, line, column, fragment) in [
        ("parallel_requests = 0", 4, 21, "a number from 1 to 256"),
        ("bandwidth_limit = \"5\"", 4, 19, "at least \"64KiB\""),
        ("bandwidth_limit = \"fast\"", 4, 19, "4MiB"),
        ("endpoint = \"s3.example.com\"", 4, 12, "an address without a path"),
        ("endpoint = \"https://s3.example.com/bucket\"", 4, 12, "an address without a path"),
        ("region = \"\"", 4, 10, "`region` is one word"),
        ("path_style = false", 4, 14, "the bucket's name has a dot"),
        ("access_key = { env = \"K\" }", 4, 14, "`access_key` needs its `secret_key`"),
        ("secret_key = { env = \"K\" }", 4, 14, "`secret_key` needs its `access_key`"),
        ("session_token = { env = \"T\" }", 4, 17, "goes with `access_key`"),
        ("access_key = { env = \"K\" }\nsecret_key = { env = \"S\" }\nprofile = \"p\"", 6, 11, "take one of them out"),
    ] {
        let problems = problems(&bucket(lines));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((problems[0].line, problems[0].column), (line, column), "{problems:?}");
        assert!(problems[0].message.contains(fragment), "{problems:?}");
    }
    // A folder has none of these.
    let problems = problems(&format!("{}region = \"eu-1\"\nbandwidth_limit = \"20MiB\"\n", vault()));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.message.contains("belongs to a vault in a bucket")), "{problems:?}");
}

#[test]
fn no_secret_of_a_bucket_is_ever_shown() {
    for text in [
        bucket("endpoint = \"https://key:hunter2@host\""),
        bucket("secret_key = \"hunter2\""),
        bucket("session_token = { fiel = \"hunter2\" }"),
        vault().replace("/srv/backups", "s3://key:hunter2@bucket/x"),
    ] {
        let error = parse(&text).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
