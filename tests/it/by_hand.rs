//! The vault's own README.txt, believed: its script restores what the real program backed up, with stock tools alone,
//! and stops at each damage before it unpacks anything. (src/vault/readme/tests.rs tries the script on made-up vaults
//! at more length.)

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{World, noise};

/// Everything that stock tools can tell of a tree: kinds, modes, owners, times to the nanosecond, link counts, sizes,
/// targets, device numbers, contents, extended attributes, ACLs. Folders have no size and no count of links: these are
/// the file system's own.
pub(crate) fn listing(root: &Path) -> String {
    const SCRIPT: &str = r"
        set -euo pipefail
        export LC_ALL=C
        find . \( -type f -printf 'f %P %m %U:%G %T@ %n %s\n\0' \) -o \( -type d -printf 'd %P %m %U:%G %T@\n\0' \) \
          -o -printf '%y %P %m %U:%G %T@ %n %l\n\0' | sort -z
        find . -type f -print0 | sort -z | xargs -0r sha256sum
        find . \( -type c -o -type b \) -print0 | sort -z | xargs -0r stat -c '%n %Hr:%Lr'
        find . -print0 | sort -z | xargs -0r getfattr -h -d -m - -e hex --
        find . ! -type l -print0 | sort -z | xargs -0r getfacl -n -p --
    ";
    let out = must(Command::new("bash").args(["-c", SCRIPT]).current_dir(root));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Compares two listings, and shows no more of them than where they differ.
#[track_caller]
pub(crate) fn assert_same(is: &str, should_be: &str, what: &str) {
    let mut lines: Vec<String> = Vec::new();
    for (sign, these, those) in [('-', should_be, is), ('+', is, should_be)] {
        let those: std::collections::HashSet<&str> = those.lines().collect();
        lines.extend(these.lines().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}")));
    }
    assert!(is == should_be, "{what}:\n{}", lines.join("\n"));
}

#[track_caller]
fn must(command: &mut Command) -> Output {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// One of everything that a file system of Linux has.
fn one_of_everything(uploads: &Path) {
    fs::write(uploads.join("large-file"), noise(9_000_000, 33)).unwrap();
    fs::write(uploads.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "bytes").unwrap();
    fs::write(uploads.join("two\nlines"), "newline").unwrap();
    fs::write(uploads.join("x".repeat(200)), "long name").unwrap();
    const SCRIPT: &str = r"
        set -euo pipefail
        umask 022
        mkdir -p deep/er/still private
        echo program > program; chown 1234:4321 program; chmod 6755 program
        echo secret > private/secret; chmod 0600 private/secret; chmod 3770 private; chown 1234 private
        ln program deep/er/program-again; ln program a-program-before
        ln -s ../nowhere deep/dangling; chown -h 77:88 deep/dangling
        : > empty
        truncate -s 20M sparse; printf data | dd of=sparse bs=1 seek=11000000 conv=notrunc status=none
        mkfifo -m 0620 fifo; mknod -m 0640 device c 1 3; mknod block b 7 200
        echo attributes > attributes
        setfattr -n user.comment -v 'a comment' attributes; setfattr -n user.binary -v 0x00ff00 attributes
        setfattr -n trusted.ours -v t attributes; setfattr -n user.folder -v f deep/er
        echo acl > acl; chown 55:66 acl; setfacl -m u:1234:rwx,g:4321:r,m::rx acl
        setfacl -m u:1234:rwx -d -m u:77:r deep/er/still
        touch -d '1969-07-20 20:17:40.123456789 UTC' empty
        touch -d '2038-01-20 03:14:08.000000001 UTC' sparse
        touch -h -d '2001-02-03 04:05:06.700000000 UTC' deep/dangling
        touch -d '2010-10-10 10:10:10.101010101 UTC' deep/er/still deep/er deep fifo device
    ";
    must(Command::new("bash").args(["-c", SCRIPT]).current_dir(uploads));
}

/// A vault that the program wrote, and its README's script.
struct Vault {
    world: World,
    /// The manifest's key.
    backup: String,
}

impl Vault {
    fn make(fill: impl FnOnce(&Path)) -> Self {
        let world = World::new();
        fill(&world.path("uploads"));
        world.backup();
        let manifests: Vec<String> = world.keys("backups").into_iter().filter(|key| key.ends_with(".json")).collect();
        let [backup] = &manifests[..] else { panic!("{manifests:?}") };
        let readme = fs::read_to_string(world.path("vault/README.txt")).unwrap();
        let (_, rest) = readme.split_once("# --- begin restore.sh ---\n").unwrap();
        let (script, _) = rest.split_once("# --- end restore.sh ---\n").unwrap();
        fs::write(world.path("restore.sh"), script).unwrap();
        let backup = backup.clone();
        Self { world, backup }
    }

    fn file(&self, key: &str) -> PathBuf {
        self.world.path("vault").join(key)
    }

    fn manifest(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.file(&self.backup)).unwrap()).unwrap()
    }

    fn restore(&self) -> Output {
        let _ = fs::remove_dir_all(self.world.path("by-hand"));
        Command::new("bash")
            .arg("restore.sh")
            .current_dir(self.world.path(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("VAULT", self.world.path("vault"))
            .env("BACKUP", &self.backup)
            .env("IDENTITY", self.world.path("identity.txt"))
            .env("TARGET", self.world.path("by-hand"))
            .output()
            .unwrap()
    }

    /// With this done to a file of the vault the script must stop, say so, and have unpacked nothing; then the file
    /// is put back.
    #[track_caller]
    fn must_stop(&self, what: &str, says: &str, key: &str, damage: impl FnOnce(&Path)) {
        let path = self.file(key);
        let sound = fs::read(&path).unwrap();
        damage(&path);
        assert!(fs::read(&path).ok().is_none_or(|bytes| bytes != sound), "{what}: nothing was damaged");
        self.stops(what, says);
        fs::write(&path, sound).unwrap();
    }

    #[track_caller]
    fn stops(&self, what: &str, says: &str) {
        let out = self.restore();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stdout));
        assert!(stderr.contains(says), "{what}: {stderr}");
        let unpacked = fs::read_dir(self.world.path("by-hand")).map_or(0, Iterator::count);
        assert_eq!(unpacked, 0, "{what}: something was unpacked: {stderr}");
    }
}

#[test]
fn stock_tools_alone_bring_everything_back() {
    let vault = Vault::make(one_of_everything);
    let world = &vault.world;
    let out = vault.restore();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    let (was, is) = (world.path("uploads"), world.path("by-hand/uploads").join(below_root));
    let (before, after) = (listing(&was), listing(&is));
    for sign in ["6755", "1234:4321", ".1234567890", "user.comment", "trusted.ours", "user:1234:rwx", "1:3"] {
        assert!(before.contains(sign), "the tree to be backed up has no {sign}: {before}");
    }
    assert_same(&after, &before, "restored by hand");
    let inode = |name: &str| fs::metadata(is.join(name)).unwrap().ino();
    assert_eq!([inode("program"), inode("a-program-before")], [inode("deep/er/program-again"); 2]);
    let sparse = fs::metadata(is.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < sparse.len() / 4, "the holes were filled: {} blocks", sparse.blocks());

    let ask = |path: &Path, sql: &str| must(Command::new("sqlite3").arg(path).arg(sql)).stdout;
    let (was, is) = (world.path("shop.db"), world.path("by-hand/db/shop.db"));
    assert_eq!(ask(&is, "pragma integrity_check"), b"ok\n");
    assert_eq!(ask(&is, ".dump"), ask(&was, ".dump"));
}

#[test]
fn each_damage_to_the_programs_vault_stops_the_script() {
    let vault = Vault::make(|_| {});
    let manifest = vault.manifest();
    let sources = manifest["sources"].as_array().unwrap();
    let lists: Vec<String> = sources
        .iter()
        .map(|source| source["lists"][0].as_str().unwrap())
        .map(|id| format!("lists/{}/{id}", &id[..2]))
        .collect();
    let contents = sources[0]["contents"][0].as_str().unwrap();
    let contents = format!("objects/{}/{contents}", &contents[..2]);
    let line = must(Command::new("zstd").arg("-dcq").arg(vault.file(&lists[0]))).stdout;
    let data = String::from_utf8(line).unwrap().split(' ').next().unwrap().to_owned();
    let data = format!("objects/{}/{data}", &data[..2]);

    for (name, key, other, says) in [
        ("data", &data, &contents, "an object is damaged or missing"),
        ("contents", &contents, &data, "an object is damaged or missing"),
        ("list", &lists[0], &lists[1], "a list is damaged or missing"),
    ] {
        vault.must_stop(&format!("{name} flipped"), says, key, |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(path, bytes).unwrap();
        });
        vault.must_stop(&format!("{name} missing"), says, key, |path| fs::remove_file(path).unwrap());
        vault.must_stop(&format!("{name} swapped"), says, key, |path| {
            fs::copy(vault.file(other), path).unwrap();
        });
        vault.must_stop(&format!("{name} truncated"), says, key, |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        });
    }

    let edit = |from: String, to: String| {
        move |path: &Path| fs::write(path, fs::read_to_string(path).unwrap().replacen(&from, &to, 1)).unwrap()
    };
    let sequence = edit("\"sequence\": 1".into(), "\"sequence\": 2".into());
    vault.must_stop("manifest edited", "is not signed by its host", &vault.backup, sequence);

    // Somebody who may write to the vault signs with a key of his own.
    let world = &vault.world;
    let keys = ["-G", "-W", "-f", "-p", "stranger.pub", "-s", "stranger.key"];
    must(Command::new("minisign").args(keys).current_dir(world.path("")));
    let public = fs::read_to_string(world.path("stranger.pub")).unwrap().lines().last().unwrap().to_owned();
    let sign = |key: &str| {
        let file = vault.file(key);
        let signature = vault.file(&format!("{key}.minisig"));
        let old = fs::read_to_string(&signature).unwrap();
        let comment = old.lines().find_map(|line| line.strip_prefix("trusted comment: ")).unwrap().to_owned();
        must(
            Command::new("minisign")
                .args(["-S", "-W", "-s", "stranger.key", "-t", &comment, "-x"])
                .arg(&signature)
                .arg("-m")
                .arg(&file)
                .current_dir(world.path("")),
        );
    };
    let signature = format!("{}.minisig", vault.backup);
    vault.must_stop("signature of an unknown key", "is not signed by its host", &signature, |_| sign(&vault.backup));
    // And names it in vault.json.
    let trust: serde_json::Value = serde_json::from_slice(&fs::read(vault.file("vault.json")).unwrap()).unwrap();
    let host = trust["hosts"][0]["key"].as_str().unwrap().to_owned();
    let sound = fs::read(vault.file(&signature)).unwrap();
    sign(&vault.backup);
    let enter = edit(host, public);
    vault.must_stop("vault.json edited", "vault.json is not signed by the vault's key", "vault.json", &enter);
    vault.must_stop(
        "vault.json's signature of an unknown key",
        "not signed by the vault's key",
        "vault.json.minisig",
        |_| {
            sign("vault.json");
        },
    );
    fs::write(vault.file(&signature), sound).unwrap();

    let out = vault.restore();
    assert!(out.status.success(), "all is as it was again: {}", String::from_utf8_lossy(&out.stderr));
}
