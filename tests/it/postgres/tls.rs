//! A server across a network: encrypted, and known by its certificate, for the program's own connections and for those
//! of the server's tools alike.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BACKUP_ROLE, Server, world};
use crate::support::{World, said};

const PASSWORD: &str = "correct:horse\\battery";

/// An address of this machine that nobody else listens at: all of 127.0.0.0/8 is ours, and PostgreSQL's port is one.
fn address() -> String {
    let [a, b]: [u8; 2] = rand::random();
    format!("127.77.{a}.{}", b.clamp(1, 254))
}

/// Makes an authority `name.pem`, and its key.
fn authority(folder: &Path, name: &str) {
    openssl(folder, name, &["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"]);
}

/// Makes a server's certificate, `server.pem`, for one address.
fn certificate(folder: &Path, authority: &str, address: &str) {
    let (pem, key) = (format!("{authority}.pem"), format!("{authority}.key"));
    let subject = ["-CA", &pem, "-CAkey", &key, "-subj", "/CN=server", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(folder, "server", &[&subject[..], &["-addext", &format!("subjectAltName=IP:{address}")]].concat());
}

fn openssl(folder: &Path, name: &str, more: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).args(more);
    let out = said(command.current_dir(folder));
    assert_eq!(out.code, Some(0), "openssl: {}", out.stderr);
}

/// Writes the source's url into the config anew.
fn point(world: &World, was: &str, url: &str) -> String {
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(config.contains(was), "{was} is not in {config}");
    fs::write(world.path("lifeboat.toml"), config.replace(was, url)).unwrap();
    url.to_owned()
}

#[test]
fn a_server_is_known_by_its_certificate_or_not_talked_to() {
    let (here, elsewhere) = (address(), address());
    let server = Server::with(&[&format!("listen_addresses={here},{elsewhere}")]);
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ours");
    authority(folder.path(), "theirs");
    certificate(folder.path(), "ours", &here);
    for (setting, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
        let path = server.keep(file, &fs::read(folder.path().join(file)).unwrap());
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting} = '{}'", path.display()));
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.sql("postgres", BACKUP_ROLE);
    server.sql("postgres", &format!("ALTER ROLE backup PASSWORD '{PASSWORD}'"));
    server.sql("postgres", "CREATE ROLE keeper LOGIN SUPERUSER");
    server.sql("postgres", &format!("ALTER ROLE keeper PASSWORD '{PASSWORD}'"));
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE t AS SELECT generate_series(1, 10) AS id; CREATE INDEX ON t (id)");
    server.admit("local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n");
    while server.sql("postgres", "SHOW ssl").trim() != "on" {}

    let ours = folder.path().join("ours.pem");
    let theirs = folder.path().join("theirs.pem");
    let url = |role: &str, host: &str, database: &str, mode: &str, trusted: Option<&Path>| {
        let trusted = trusted.map(|file| format!("&sslrootcert={}", file.display())).unwrap_or_default();
        format!("postgres://{role}@{host}/{database}?sslmode={mode}{trusted}")
    };
    let mut written = url("backup", &here, "shop", "verify-full", Some(&ours));
    let world = world(&written, "password = { file = \"password\" }", "");
    fs::write(world.path("password"), format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(world.path("password"), fs::Permissions::from_mode(0o600)).unwrap();

    for (host, mode, trusted, says) in [
        // Somebody else's certificate, the right one for another name, nobody's word for it, and no encryption at all.
        (&here, "verify-full", Some(&theirs), "certificate"),
        (&elsewhere, "verify-full", Some(&ours), "certificate"),
        (&here, "verify-full", None, "certificate"),
        (&here, "require", Some(&theirs), "certificate"),
        (&here, "disable", None, "no encryption"),
    ] {
        written = point(&world, &written, &url("backup", host, "shop", mode, trusted.map(PathBuf::as_path)));
        let out = world.run(&["backup"]);
        assert_eq!(out.code, Some(1), "{written}: {}\n{}", out.stdout, out.stderr);
        assert!(out.stderr.contains(says) && out.stderr.contains(host.as_str()), "{written}: {}", out.stderr);
        assert!(out.stderr.contains("hint: "), "{written}: {}", out.stderr);
        assert!(!out.stderr.contains("horse"), "{}", out.stderr);
    }
    assert_eq!(world.keys("backups"), Vec::<String>::new());

    for (host, mode, trusted) in [
        (&here, "verify-full", Some(&ours)),
        (&elsewhere, "verify-ca", Some(&ours)),
        (&elsewhere, "require", None),
        (&here, "prefer", None),
        (&here, "allow", None),
    ] {
        written = point(&world, &written, &url("backup", host, "shop", mode, trusted.map(PathBuf::as_path)));
        world.backup();
    }

    // And back the same way: our own connections, and pg_restore's.
    let into = url("keeper", &here, "again", "verify-full", Some(&ours));
    let args = ["restore", "shop", "--source", "db", "--into", &into, "--password-file", "password"];
    let out = world.expect(0, &[&args[..], &["--identity", "identity.txt"]].concat());
    assert!(!format!("{}{}", out.stdout, out.stderr).contains("horse"));
    assert_eq!(server.sql("again", "SELECT count(*) FROM t").trim(), "10");
    let into = url("keeper", &here, "not_there", "verify-full", Some(&theirs));
    let args = ["restore", "shop", "--source", "db", "--into", &into, "--password-file", "password"];
    let out = world.expect(1, &[&args[..], &["--identity", "identity.txt"]].concat());
    assert!(out.stderr.contains("certificate") && out.stderr.contains("hint: "), "{}", out.stderr);
}
