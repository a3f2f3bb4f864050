//! Whole journeys with a bucket in the place of a folder: everything works the same.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lifeboat::evidence::runbook::ON_THE_HOST;

use super::bucket::{Bucket, PREFIX, assert_restored};
use super::seaweed::{EVERYBODY, Keeps, OWNER, REGION, Server, Tls};
use crate::documents::{Document, IDENTITY};
use crate::support::{World, noise, said};

/// How long anything may take that a test waits for.
const DEADLINE: Duration = Duration::from_secs(90);

#[test]
fn a_bucket_does_what_a_folder_does() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    world.expect(0, &["config", "check"]);
    let first = world.backup();
    bucket.assert_restores(&[]);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
    fs::write(world.path("uploads/new"), noise(70_000, 7)).unwrap();
    fs::remove_file(world.path("uploads/small-03")).unwrap();
    world.sql("delete from users where id % 7 = 0");
    let second = world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!(bucket.listed(&[]), [first, second]);
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["state"], "ok", "{status}");

    // What the host knows it knows from the vault.
    let before = world.json(0, &["list"]);
    world.expect(0, &["catalog", "rebuild"]);
    let after = world.json(0, &["list"]);
    assert_eq!(after["backups"], before["backups"]);
    bucket.assert_sound();
    assert!(!world.path("vault").exists() && !world.path("s3:").exists(), "nothing of it lies here");
}

#[test]
fn what_is_old_is_gone_from_the_bucket_with_all_its_versions() {
    for keeps in [Keeps::Last, Keeps::Versions] {
        let bucket = Bucket::of(keeps);
        let world = &bucket.world;
        bucket.keep_little();
        fs::write(world.path("uploads/old"), noise(300_000, 1)).unwrap();
        world.run(&["backup"]);
        let old = bucket.keys("objects/");
        assert!(!old.is_empty());
        fs::write(world.path("uploads/old"), noise(300_000, 2)).unwrap();
        let until = Instant::now() + DEADLINE;
        // An object is condemned by one prune and erased by a later one.
        loop {
            let said = world.run(&["backup"]);
            assert_eq!(said.code, Some(0), "{}", said.stderr);
            let is = bucket.keys("objects/");
            if old.iter().any(|key| !is.contains(key)) {
                break;
            }
            assert!(Instant::now() < until, "nothing is erased: {}", said.stderr);
        }
        let gone: Vec<&String> =
            old.iter().filter(|key| bucket.server.get(&bucket.name, &full(key)).is_none()).collect();
        assert!(!gone.is_empty());
        for key in gone {
            let versions = bucket.server.versions(&bucket.name, &full(key));
            assert!(versions.is_empty(), "{key} has {versions:?}");
        }
        bucket.assert_sound();
    }
}

fn full(key: &str) -> String {
    format!("{PREFIX}/{key}")
}

#[test]
fn a_bare_host_restores_with_what_aws_tools_are_told() {
    let bucket = Bucket::new();
    bucket.world.backup();
    let bare = tempfile::tempdir().unwrap();
    let identity = bucket.world.path("identity.txt");
    let identity = identity.to_str().unwrap();
    let url = bucket.url();
    let run = |args: &[&str]| {
        let said =
            said(&mut bucket.bare_command(bare.path(), &[args, &["--vault", &url, "--identity", identity]].concat()));
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    };
    assert!(run(&["list"]).contains("shop"));
    run(&["check", "--read-data"]);
    run(&["restore", "shop", "--to", "out"]);
    assert_restored(&bucket.world, &bare.path().join("out"));
    let here: Vec<_> = fs::read_dir(bare.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(here, ["out"], "nothing else is left there");
}

#[test]
fn the_paper_of_a_job_brings_everything_back_from_a_bucket() {
    let bucket = Bucket::new();
    bucket.world.backup();
    let paper = bucket.world.expect(0, &["runbook", "--short"]).stdout;
    assert!(!paper.contains(OWNER.secret_key) && paper.contains(&bucket.url()), "{paper}");
    let (elsewhere, _) = paper.split_once(ON_THE_HOST).unwrap();
    // As step 1 says.
    let keys = format!(
        "```sh\nexport AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}\n```\n",
        OWNER.access_key, OWNER.secret_key
    );
    let bare = World::empty();
    let places = [(IDENTITY, bucket.world.path("identity.txt")), ("/srv/restored", bare.path("back"))];
    Document::of("the paper", &format!("{keys}{elsewhere}")).rest(&bare, &places);
    assert_restored(&bucket.world, &bare.path("back"));
}

/// What the README types makes a vault in a bucket that one can back up to.
#[test]
fn the_readmes_bucket_is_one() {
    let server = Server::shared();
    let name = server.bucket(Keeps::Last);
    let world = World::empty();
    let endpoint = format!("AWS_REGION={REGION} AWS_ENDPOINT_URL_S3={}", server.endpoint());
    let places = [
        ("AWS_ACCESS_KEY_ID=…", format!("AWS_ACCESS_KEY_ID={}", OWNER.access_key).into()),
        ("AWS_SECRET_ACCESS_KEY=…", format!("AWS_SECRET_ACCESS_KEY={}", OWNER.secret_key).into()),
        ("AWS_REGION=eu-central-1", endpoint.into()),
        ("s3://acme-backups/prod", format!("s3://{name}/prod").into()),
    ];
    Document::part("README.md", "bucket").rest(&world, &places);
    assert!(server.get(&name, "prod/vault.json").is_some());
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(config.contains(&format!("\"s3://{name}/prod\"")) && !config.contains(OWNER.secret_key), "{config}");
}

#[test]
fn stock_tools_alone_bring_everything_back_from_a_bucket() {
    let bucket = Bucket::new();
    bucket.world.backup();
    let folder = tempfile::tempdir().unwrap();
    // As the README that lies in the bucket says it, with the address that is not AWS's.
    let address = bucket.server.address().to_string();
    let mut s3cmd = Command::new("s3cmd");
    s3cmd.args(["--quiet", "--no-ssl", "--region", REGION, "--host", &address, "--host-bucket", &address]);
    s3cmd.args(["--access_key", OWNER.access_key, "--secret_key", OWNER.secret_key]);
    s3cmd.args(["--config", "/dev/null", "sync", &format!("{}/", bucket.url())]).arg(folder.path().join("vault/"));
    let copied = said(&mut s3cmd);
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    let readme = fs::read_to_string(folder.path().join("vault/README.txt")).unwrap();
    assert!(readme.contains("s3cmd sync"), "the README says how a bucket is copied");
    let (_, rest) = readme.split_once("# --- begin restore.sh ---\n").unwrap();
    let (script, _) = rest.split_once("# --- end restore.sh ---\n").unwrap();
    fs::write(folder.path().join("restore.sh"), script).unwrap();
    let backup = bucket.keys("backups/").into_iter().find(|key| key.ends_with(".json")).unwrap();
    let restored = said(
        Command::new("bash")
            .arg("restore.sh")
            .current_dir(folder.path())
            .env("VAULT", folder.path().join("vault"))
            .env("BACKUP", backup)
            .env("IDENTITY", bucket.world.path("identity.txt"))
            .env("TARGET", folder.path().join("out")),
    );
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    assert_restored(&bucket.world, &folder.path().join("out"));
}

#[test]
fn a_store_is_known_by_its_certificate_or_not_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |name: &str, more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        let out = said(command.args(more).current_dir(folder.path()));
        assert_eq!(out.code, Some(0), "openssl: {}", out.stderr);
        folder.path().join(format!("{name}.pem"))
    };
    let authority =
        |name: &str| openssl(name, &["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"]);
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let mut arguments = vec!["-CA", "ours.pem", "-CAkey", "ours.key", "-subj", "/CN=server"];
    arguments.extend(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"]);
    let certificate = openssl("server", &arguments);
    let tls = Tls { certificate, key: folder.path().join("server.key"), authority: ours.clone() };
    let server = Server::with(&EVERYBODY, Some(tls));
    let name = server.bucket(Keeps::Last);
    let world = World::in_memory_empty();
    world.fill_sources();
    let key = world.json(0, &["key", "new", "identity.txt"]);
    let recipient = key["recipient"].as_str().unwrap();
    let write = |authority: &str| {
        let config = format!(
            "state_dir = \"state\"\n[vault.main]\nurl = \"s3://{name}/vault\"\nregion = \"{REGION}\"\n\
             endpoint = \"{}\"\naccess_key = {{ env = \"KEY\" }}\nsecret_key = {{ env = \"SECRET\" }}\n\
             recipients = [\"{recipient}\"]\n{authority}\n",
            server.endpoint()
        );
        fs::write(world.path("lifeboat.toml"), config).unwrap();
        world.add_job("");
    };
    let run = |args: &[&str]| said(world.command(args).env("KEY", OWNER.access_key).env("SECRET", OWNER.secret_key));
    for authority in [String::new(), format!("ca = \"{}\"", theirs.display())] {
        write(&authority);
        let refused = run(&["init"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("certificate") && refused.stderr.contains("ca = "), "{}", refused.stderr);
        assert!(server.keys(&name, "").is_empty());
    }
    write(&format!("ca = \"{}\"", ours.display()));
    for args in [&["init"][..], &["backup"], &["check", "--read-data", "--identity", "identity.txt"]] {
        let done = run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
    }
}
