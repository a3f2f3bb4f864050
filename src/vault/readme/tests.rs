//! The script of README.txt, followed with the stock tools on a vault whose objects are made with the stock tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::*;
use crate::clock::SystemClock;
use crate::domain::contents::Line;
use crate::domain::ids::{KeyedId, ObjectId, VaultId};
use crate::domain::manifest::SourceEntry;
use crate::storage::local::Local;
use crate::vault::identity::comment_lines;
use crate::vault::keys::SigningKey;
use crate::vault::layout::object_id;
use crate::vault::lists::{ListedSegment, encode};
use crate::vault::manifests::tests::{manifest, trust};
use crate::vault::manifests::{commit_manifest, sign_manifest};
use crate::vault::trust::write_trust;

fn bash(script: &str, folder: &Path) -> Output {
    Command::new("bash")
        .args(["-c", &format!("set -euo pipefail\n{script}")])
        .current_dir(folder)
        .output()
        .expect("bash must be installed for this test")
}

fn must(script: &str, folder: &Path) -> Vec<u8> {
    let output = bash(script, folder);
    assert!(
        output.status.success(),
        "{script}\n{}\n(this test needs: apt-get install age zstd minisign jq)",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

struct Fixture {
    folder: tempfile::TempDir,
    vault: PathBuf,
    backup: String,
    /// The tar's segments, the contents, the list.
    objects: Vec<String>,
}

impl Fixture {
    /// A vault with one backup of one source `uploads`: a small tree in three segments.
    async fn make() -> Self {
        Self::with_members(&["a", "link", "sub", "sub/new\nline"], 4).await
    }

    /// The same, with contents that name these members and say how many there are.
    async fn with_members(members: &[&str], count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let vault = root.join("vault");
        let store = Local::create(&vault, Arc::new(SystemClock::default())).unwrap();
        let (vault_key, host_key) = (SigningKey::generate(), SigningKey::generate());
        must(
            "age-keygen -o key.txt 2>/dev/null
             mkdir -p tree/sub; head -c 30000 /dev/urandom >tree/a; printf 'hello\\n' >\"tree/sub/new
line\"; ln -s a tree/link; touch -d '1969-07-20 20:17:40' tree/a
             tar --format=pax --sort=name -cf all.tar -C tree a link sub
             split -b 16384 -a 2 -d all.tar part.",
            root,
        );
        let identity = std::fs::read_to_string(root.join("key.txt")).unwrap();
        let comments = comment_lines(&VaultId::from_random([1; 8]), vault_key.public());
        std::fs::write(root.join("identity.txt"), format!("{comments}{identity}")).unwrap();

        let mut objects = Vec::new();
        let mut segments = Vec::new();
        let mut parts: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        parts.retain(|name| name.to_string_lossy().starts_with("part."));
        parts.sort();
        for part in &parts {
            let sealed = seal(root, &part.to_string_lossy());
            let id = put(&store, &sealed, Key::Object).await;
            objects.push(Key::Object(id).to_string());
            segments.push(ListedSegment { object: id, stored_bytes: sealed.len() as u64, id: KeyedId(id.0) });
        }
        assert!(segments.len() >= 3);
        let mut lines = Vec::new();
        let head = Line::Head {
            version: 1,
            source: "uploads".parse().unwrap(),
            kind: "files".into(),
            id_key: String::new(),
            config: serde_json::json!({}),
        };
        head.write_to(&mut lines);
        for path in members {
            let member = format!(
                r#"{{"path":{},"kind":"file","mode":420,"uid":0,"gid":0,"mtime_seconds":0}}"#,
                serde_json::to_string(path).unwrap()
            );
            Line::Member(serde_json::from_str(&member).unwrap()).write_to(&mut lines);
        }
        Line::End { pieces: 0, members: count, tar_bytes: 0 }.write_to(&mut lines);
        std::fs::write(root.join("contents"), lines).unwrap();
        let sealed = seal(root, "contents");
        let contents = put(&store, &sealed, Key::Object).await;
        objects.push(Key::Object(contents).to_string());
        let (list, bytes) = encode(&segments);
        assert_eq!(put(&store, &bytes, Key::List).await, list);
        objects.push(Key::List(list).to_string());

        let mut manifest = manifest("shop", 1, None);
        let uploads = manifest.sources.remove(0);
        let (lists, contents, segments) = (vec![list], vec![contents], segments.len() as u64);
        manifest.sources.push(SourceEntry { lists, contents, segments, ..uploads });
        let signed = sign_manifest(&manifest, &host_key);
        write_trust(&store, &vault_key, &trust(&host_key)).await.unwrap();
        write_readme(&store).await.unwrap();
        store.sync().await.unwrap();
        commit_manifest(&store, &signed).await.unwrap();
        let backup = Key::Manifest(signed.name).to_string();
        Self { vault, backup, objects, folder }
    }

    /// Follows the README as it lies in the vault.
    fn restore(&self, backup: &str) -> Output {
        let readme = std::fs::read_to_string(self.vault.join("README.txt")).unwrap();
        let (_, rest) = readme.split_once("# --- begin restore.sh ---\n").unwrap();
        let (script, _) = rest.split_once("# --- end restore.sh ---\n").unwrap();
        std::fs::write(self.folder.path().join("restore.sh"), script).unwrap();
        let _ = std::fs::remove_dir_all(self.folder.path().join("target"));
        Command::new("bash")
            .arg("restore.sh")
            .current_dir(self.folder.path())
            .env("VAULT", &self.vault)
            .env("BACKUP", backup)
            .env("IDENTITY", self.folder.path().join("identity.txt"))
            .env("TARGET", self.folder.path().join("target"))
            .output()
            .unwrap()
    }

    /// Nothing may come out, and the script must say why.
    fn must_stop(&self, what: &str, says: &str) {
        let output = self.restore(&self.backup);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{what}");
        assert!(stderr.contains("STOPPED") && stderr.contains(says), "{what}: {stderr}");
        let target = self.folder.path().join("target");
        assert_eq!(std::fs::read_dir(target).map_or(0, Iterator::count), 0, "{what}: something was unpacked");
    }
}

fn seal(root: &Path, file: &str) -> Vec<u8> {
    must(&format!("zstd -qc {file} | age -r \"$(age-keygen -y key.txt)\""), root)
}

async fn put(store: &Local, bytes: &[u8], key: fn(ObjectId) -> Key) -> ObjectId {
    let id = object_id(bytes);
    store.put(&key(id).to_string(), Bytes::copy_from_slice(bytes)).await.unwrap();
    id
}

#[tokio::test]
async fn a_sound_backup_comes_back() {
    let fixture = Fixture::make().await;
    let output = fixture.restore(&fixture.backup);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("uploads: 4 members restored"));
    must("diff -r --no-dereference tree target/uploads", fixture.folder.path());
    let modified: DateTime<Utc> =
        std::fs::metadata(fixture.folder.path().join("target/uploads/a")).unwrap().modified().unwrap().into();
    assert_eq!(modified.timestamp(), "1969-07-20T20:17:40Z".parse::<DateTime<Utc>>().unwrap().timestamp());
    let again = Command::new("bash")
        .arg("restore.sh")
        .current_dir(fixture.folder.path())
        .env("VAULT", &fixture.vault)
        .env("BACKUP", &fixture.backup)
        .env("IDENTITY", "identity.txt")
        .env("TARGET", "target")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));
}

#[tokio::test]
async fn each_damage_stops_it_before_anything_is_unpacked() {
    let fixture = Fixture::make().await;
    let manifest = fixture.backup.clone();
    let signature = format!("{manifest}.minisig");
    let mut damaged = fixture.objects.clone();
    damaged.extend([manifest, signature, "vault.json".into(), "vault.json.minisig".into()]);
    for key in &damaged {
        let path = fixture.vault.join(key);
        let sound = std::fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        // Of a signature the first line may say anything.
        let at = if key.ends_with(".minisig") { sound.len() * 3 / 4 } else { sound.len() / 2 };
        flipped[at] ^= 1;
        let other =
            std::fs::read(fixture.vault.join(&fixture.objects[usize::from(*key == fixture.objects[0])])).unwrap();
        for (what, bytes) in [("flipped", &flipped[..]), ("cut off", &sound[..sound.len() / 2]), ("swapped", &other)] {
            std::fs::write(&path, bytes).unwrap();
            fixture.must_stop(&format!("{key} {what}"), "");
        }
        std::fs::remove_file(&path).unwrap();
        let output = fixture.restore(&fixture.backup);
        assert!(!output.status.success(), "{key} missing");
        assert!(!fixture.folder.path().join("target/uploads").exists(), "{key} missing");
        std::fs::write(&path, sound).unwrap();
    }
    assert!(fixture.restore(&fixture.backup).status.success(), "everything is repaired again");
}

#[tokio::test]
async fn contents_that_say_something_else_stop_it() {
    let fixture = Fixture::with_members(&["a"], 2).await;
    fixture.must_stop("contents cut short", "are not complete");
    let fixture = Fixture::with_members(&["a"], 1).await;
    let output = fixture.restore(&fixture.backup);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("uploads has 4 members, and its contents say 1"));
}

#[tokio::test]
async fn renamed_replayed_and_untrusted_ones_stop_it() {
    let fixture = Fixture::make().await;
    let root = fixture.folder.path();
    let renamed = "backups/shop/20271122T030000Z-0000000000000001.json";
    let elsewhere = fixture.backup.replace("/shop/", "/blog/");
    std::fs::create_dir(fixture.vault.join("backups/blog")).unwrap();
    for copy in [renamed, &elsewhere] {
        for ending in ["", ".minisig"] {
            let from = fixture.vault.join(format!("{}{ending}", fixture.backup));
            std::fs::copy(from, fixture.vault.join(format!("{copy}{ending}"))).unwrap();
        }
        let output = fixture.restore(copy);
        assert!(String::from_utf8_lossy(&output.stderr).contains("was renamed, or is a copy"), "{output:?}");
    }

    let identity = root.join("identity.txt");
    let sound = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, sound.replace("# lifeboat vault: 01", "# lifeboat vault: 02")).unwrap();
    fixture.must_stop("another vault", "not the vault that the identity file names");
    let stranger = SigningKey::generate();
    let lines = comment_lines(&VaultId::from_random([1; 8]), stranger.public());
    let secret = sound.lines().last().unwrap();
    std::fs::write(&identity, format!("{lines}{secret}\n")).unwrap();
    fixture.must_stop("another vault key", "vault.json is not signed by the vault's key");
    std::fs::write(&identity, format!("{secret}\n")).unwrap();
    fixture.must_stop("no vault key", "has no line '# lifeboat trust");
    must("age-keygen -o other.txt 2>/dev/null", root);
    let other = std::fs::read_to_string(root.join("other.txt")).unwrap();
    std::fs::write(&identity, sound.replace(secret, other.lines().last().unwrap())).unwrap();
    fixture.must_stop("another identity", "the contents of uploads cannot be opened");
}
