//! Bad input, and what it gets: a clear message with its code, and nothing harmed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use lifeboat::domain::contents::{Line, Member, MemberKind};
use lifeboat::domain::ids::BackupId;
use lifeboat::domain::manifest::Manifest;
use lifeboat::domain::segment::MAX_PLAIN_BYTES;
use lifeboat::vault::identity::Pin;
use lifeboat::vault::keys::SigningKey;
use lifeboat::vault::layout::{Key, object_id};
use lifeboat::vault::manifests::sign_manifest;
use lifeboat::vault::signing::sign;
use lifeboat::vault::trust::{read_trust, write_trust};
use serde_json::Value;

use crate::forge::{Forge, Piece, key_of, member, tar};
use crate::support::{Mount, Said, World, noise, said};

const WHOLE: [&str; 6] = ["restore", "shop", "--to", "out", "--identity", "identity.txt"];

/// The program fails with this code, and says these things.
#[track_caller]
fn fails(world: &World, code: i32, args: &[&str], says: &[&str]) -> Said {
    let said = world.expect(code, args);
    for words in says {
        assert!(said.stderr.contains(words), "{words:?} is not in: {}", said.stderr);
    }
    said
}

/// Restores the newest backup of `shop` and compares the files.
#[track_caller]
fn restores(world: &World, backup: &str, expected: &Path) {
    world.expect(0, &["restore", backup, "--to", "restored", "--identity", "identity.txt"]);
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    let restored = world.path("restored/uploads").join(below_root);
    let out = std::process::Command::new("diff").args(["-r", "--no-dereference"]).arg(expected).arg(restored).output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    fs::remove_dir_all(world.path("restored")).unwrap();
}

fn edit_config(world: &World, from: &str, to: &str) {
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(config.contains(from), "{from} is not in the config");
    fs::write(world.path("lifeboat.toml"), config.replace(from, to)).unwrap();
}

#[test]
fn a_vault_that_is_none() {
    let world = World::new();
    world.backup();
    fs::rename(world.path("vault"), world.path("elsewhere")).unwrap();
    // Nothing there, a file, a folder without a vault.
    for args in [&["backup"][..], &["check"], &["list"], &WHOLE] {
        fails(&world, 10, args, &["vault"]);
        assert!(!world.path("vault").exists() && !world.path("out").exists(), "made by {args:?}");
    }
    fs::write(world.path("vault"), "a file").unwrap();
    for args in [&["backup"][..], &["check"], &["list"], &WHOLE] {
        fails(&world, 10, args, &["vault", "hint:"]);
    }
    assert_eq!(fs::read(world.path("vault")).unwrap(), b"a file");
    fs::remove_file(world.path("vault")).unwrap();
    fs::create_dir(world.path("vault")).unwrap();
    for args in [&["backup"][..], &["check"], &["list"], &WHOLE] {
        fails(&world, 10, args, &["vault.json is missing"]);
    }
    assert_eq!(world.keys(""), [""; 0], "nothing is written into a folder that is no vault");

    let bare = World::empty();
    fs::create_dir(bare.path("folder")).unwrap();
    fs::copy(world.path("identity.txt"), bare.path("identity.txt")).unwrap();
    let folder = bare.path("folder").to_str().unwrap().to_owned();
    fails(&bare, 10, &["list", "--vault", &folder], &["vault.json is missing"]);
    fails(&bare, 10, &["list", "--vault", &folder, "--identity", "identity.txt"], &["vault.json is missing"]);
    let identity = bare.path("identity.txt").to_str().unwrap().to_owned();
    fails(&bare, 10, &["list", "--vault", &identity, "--identity", "identity.txt"], &["identity.txt"]);
}

#[test]
fn a_disk_that_fills_up_in_mid_backup() {
    let world = World::new();
    fs::rename(world.path("vault"), world.path("first")).unwrap();
    fs::create_dir(world.path("vault")).unwrap();
    let disk = Mount::tmpfs(&world.path("vault"), "12m");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(world.path("first/.")).arg(world.path("vault")).status();
    assert!(copied.unwrap().success());
    let first = world.backup();
    let before = world.path("before");
    let copied = std::process::Command::new("cp").arg("-a").arg(world.path("uploads")).arg(&before).status();
    assert!(copied.unwrap().success());
    let manifests = world.keys("backups");

    let too_large = world.path("uploads/too-large.bin");
    fs::write(&too_large, noise(20_000_000, 77)).unwrap();
    let failed =
        fails(&world, 1, &["backup"], &["FAILED", "nothing was committed", "[storage-full]", "hint: make room"]);
    assert_eq!(failed.stdout, "");
    assert_eq!(world.keys("backups"), manifests);
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
    restores(&world, &first, &before);
    assert_eq!(world.json(0, &["status"])["jobs"][0]["last_backup"]["outcome"], "failed");

    let more_room = ["-o", "remount,size=80m"];
    let remounted = std::process::Command::new("mount").args(more_room).arg(world.path("vault")).status();
    assert!(remounted.unwrap().success());
    let second = world.backup();
    restores(&world, &second, &world.path("uploads"));
    restores(&world, &first, &before);
    world.expect(0, &["check"]);
    drop(disk);
}

/// What check says is damaged.
fn damaged(check: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    check["damaged"].as_array().unwrap().iter().map(|d| (text(&d["object"]), text(&d["reason"]))).collect()
}

/// A manifest that does not belong is told by check, warned of by list, and never restored; the sound backups are.
#[track_caller]
fn not_believed(world: &World, key: &str, says: &str) {
    let check = world.json(20, &["check"]);
    let found = damaged(&check);
    assert!(found.iter().any(|(object, reason)| object == key && reason.contains(says)), "{says:?} of {key}: {check}");
    fails(world, 0, &["list"], &[key, "warning"]);
    let (_, id) = key.strip_suffix(".json").unwrap().rsplit_once('-').unwrap();
    let listed = world.json(0, &["list"])["backups"].as_array().unwrap().len();
    let manifests = world.keys("backups").iter().filter(|key| key.ends_with(".json")).count();
    assert_eq!(listed, manifests - 1, "all but this one are listed");
    if !world.json(0, &["list"])["backups"].to_string().contains(id) {
        fails(world, 20, &["restore", id, "--to", "out", "--identity", "identity.txt"], &[key]);
        assert!(!world.path("out").exists());
    }
    // What is sound is restored still.
    world.expect(0, &WHOLE);
    fs::remove_dir_all(world.path("out")).unwrap();
}

/// Puts a document and its signature into the vault.
fn place(world: &World, key: &str, document: &[u8], signature: &[u8]) {
    let path = world.path("vault").join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(format!("{}.minisig", path.display()), signature).unwrap();
    fs::write(path, document).unwrap();
}

fn remove(world: &World, key: &str) {
    fs::remove_file(world.path("vault").join(key)).unwrap();
    fs::remove_file(world.path("vault").join(format!("{key}.minisig"))).unwrap();
}

fn document_and_signature(world: &World, key: &str) -> (Vec<u8>, Vec<u8>) {
    let path = world.path("vault").join(key);
    (fs::read(&path).unwrap(), fs::read(format!("{}.minisig", path.display())).unwrap())
}

#[test]
fn manifests_that_are_not_what_a_host_signed_there() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    let (document, signature) = document_and_signature(&world, &key_of(&first));

    // Edited.
    world.backup();
    let second = forge.manifests().pop().unwrap();
    let (sound, its_signature) = document_and_signature(&world, &key_of(&second));
    let edited = String::from_utf8(sound.clone()).unwrap().replace("\"sequence\": 2", "\"sequence\": 3");
    assert_ne!(edited.as_bytes(), sound);
    place(&world, &key_of(&second), edited.as_bytes(), &its_signature);
    not_believed(&world, &key_of(&second), "does not match its bytes");
    place(&world, &key_of(&second), &sound, &its_signature);
    world.expect(0, &["check"]);

    // Renamed: a copy under another id, and under another time.
    let renamed = |change: &dyn Fn(&mut Manifest)| {
        let mut other = first.clone();
        change(&mut other);
        let key = key_of(&other);
        place(&world, &key, &document, &signature);
        not_believed(&world, &key, "renamed, or replayed");
        remove(&world, &key);
    };
    renamed(&|manifest| manifest.id = BackupId::from_random([0xaa; 8]));
    renamed(&|manifest| manifest.recovery_point += chrono::TimeDelta::days(1));
    // Replayed under another job.
    renamed(&|manifest| manifest.job = "mail".parse().unwrap());

    // Signed by a host that vault.json does not name.
    let stranger = SigningKey::generate();
    let signed = sign_manifest(&forge.next(), &stranger);
    let key = Key::Manifest(signed.name.clone()).to_string();
    place(&world, &key, &signed.document, &signed.signature);
    not_believed(&world, &key, "vault.json does not name");
    remove(&world, &key);

    // Under a name of a host that it is not.
    let signed = sign_manifest(&Manifest { host: "another".to_owned(), ..forge.next() }, &forge.host_key);
    let key = Key::Manifest(signed.name.clone()).to_string();
    place(&world, &key, &signed.document, &signed.signature);
    not_believed(&world, &key, "host another wrote it");
    remove(&world, &key);

    // Of a newer version, properly signed.
    let next = forge.next();
    let newer = String::from_utf8(sign_manifest(&next, &forge.host_key).document.to_vec()).unwrap();
    let newer = newer.replacen("\"version\": 1", "\"version\": 2", 1);
    let scope =
        format!("lifeboat-backup vault={} job={} id={} sequence={}", next.vault, next.job, next.id, next.sequence);
    place(&world, &key_of(&next), newer.as_bytes(), &sign(&forge.host_key, newer.as_bytes(), &scope));
    not_believed(&world, &key_of(&next), "version 2");
    remove(&world, &key_of(&next));

    // With the signature of another document.
    let signed = sign_manifest(&forge.next(), &forge.host_key);
    let key = Key::Manifest(signed.name.clone()).to_string();
    place(
        &world,
        &key,
        &signed.document,
        &sign(&forge.host_key, &signed.document, "lifeboat-backup of something else"),
    );
    not_believed(&world, &key, "its signature was made for");
    remove(&world, &key);
    world.expect(0, &["check"]);
}

#[test]
fn a_manifest_replayed_from_another_vault() {
    // Of a host that this vault does not know.
    let (world, stranger) = (World::new(), World::new());
    world.backup();
    stranger.backup();
    let foreign = Forge::of(&stranger).manifests().pop().unwrap();
    let (document, signature) = document_and_signature(&stranger, &key_of(&foreign));
    place(&world, &key_of(&foreign), &document, &signature);
    not_believed(&world, &key_of(&foreign), "vault.json does not name");
    remove(&world, &key_of(&foreign));

    // Of the same host, job and key, in a second vault of its own.
    let first = Forge::of(&world).manifests().pop().unwrap();
    let (document, signature) = document_and_signature(&world, &key_of(&first));
    fs::rename(world.path("vault"), world.path("vault-one")).unwrap();
    // A new vault in place of one with backups takes a person who means it.
    let said = world.expect(10, &["init", "--vault-key", "vault.key"]);
    let pin = said.stderr.split_once("remove ").unwrap().1.split_once(" first").unwrap().0;
    fs::remove_file(pin).unwrap();
    world.expect(0, &["init", "--vault-key", "vault.key"]);
    world.backup();
    place(&world, &key_of(&first), &document, &signature);
    not_believed(&world, &key_of(&first), &format!("written to vault {}", first.vault));
}

#[test]
fn a_manifest_that_is_gone() {
    let world = World::new();
    let ids = [world.backup(), world.backup(), world.backup()];
    let forge = Forge::of(&world);
    let manifests = forge.manifests();
    let keys: Vec<String> = manifests.iter().map(key_of).collect();
    let saved: Vec<_> = keys.iter().map(|key| document_and_signature(&world, key)).collect();

    // From between others.
    remove(&world, &keys[1]);
    let check = world.json(20, &["check"]);
    let gap = "the manifest with sequence number 2, before it, is missing";
    assert_eq!(damaged(&check), [(keys[2].clone(), gap.to_owned())]);
    fails(&world, 0, &["list"], &[gap]);
    world.expect(0, &["restore", &ids[0], "--to", "one", "--identity", "identity.txt"]);
    let restored = fails(&world, 0, &["restore", "shop", "--to", "three", "--identity", "identity.txt"], &[gap]);
    assert!(restored.stderr.contains(&ids[2]));
    place(&world, &keys[1], &saved[1].0, &saved[1].1);
    world.expect(0, &["check"]);

    // The newest: this host saw it.
    remove(&world, &keys[2]);
    let check = world.json(20, &["check"]);
    let hidden = "this host saw backup number 3 of the job once, and the newest there is number 2";
    assert_eq!(damaged(&check), [("backups/shop/".to_owned(), hidden.to_owned())]);
    let restored = fails(&world, 0, &WHOLE, &["warning: this host saw backup number 3 of shop"]);
    assert!(restored.stderr.contains(&ids[1]));

    // The next one leaves a gap that everybody sees, and does not take the number of the hidden one.
    let fourth = world.backup_and_no_prune();
    assert_eq!(forge.manifests().pop().unwrap().sequence, 4);
    let check = world.json(20, &["check"]);
    assert!(damaged(&check)[0].1.contains("sequence number 3, before it, is missing"), "{check}");
    world.expect(0, &["restore", &fourth, "--to", "four", "--identity", "identity.txt"]);

    // All of them.
    forge.manifests().iter().for_each(|manifest| remove(&world, &key_of(manifest)));
    assert!(damaged(&world.json(20, &["check"]))[0].1.contains("saw backup number 4"));
}

#[test]
fn a_wrong_identity() {
    let world = World::new();
    let id = world.backup();
    let other = world.expect(0, &["key", "new", "other.txt"]).stdout.trim().to_owned();
    let text = fs::read_to_string(world.path("identity.txt")).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let args: [&[&str]; 6] = [
        &["restore", "shop", "--to", "out"],
        &["restore", "shop", "--to", "out", "--source", "db"],
        &["restore", "shop", "--to", "out", "--path", "small-0*"],
        &["cat", "shop", "--source", "uploads"],
        &["show", "shop", "--files"],
        &["check", "--read-data"],
    ];
    for args in args {
        let wrong = [args, &["--identity", "other.txt"]].concat();
        let said = fails(&world, 12, &wrong, &["[no-identity]", recipient, &id]);
        assert!(!said.stderr.contains(&other) && said.stdout.is_empty(), "{said:?}");
        let none = fails(&world, 12, args, &["[no-identity]", "--identity"]);
        assert_eq!(none.stdout, "");
        assert!(!world.path("out").exists(), "{args:?} wrote something");
    }
    // One of several will do.
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "other.txt", "--identity", "identity.txt"]);
}

#[test]
fn an_identity_file_that_holds_none() {
    let world = World::new();
    world.backup();
    let secret = fs::read_to_string(world.path("identity.txt")).unwrap();
    let secret = secret.lines().last().unwrap();
    let texts: [&[u8]; 4] = [b"", b"# only a comment\n", &secret.as_bytes()[..40], &[0xff, 0xfe, 0x00]];
    for text in texts {
        fs::write(world.path("bad.txt"), text).unwrap();
        let said = fails(
            &world,
            1,
            &["restore", "shop", "--to", "out", "--identity", "bad.txt"],
            &["[key-missing]", "bad.txt"],
        );
        assert!(!said.stderr.contains(&secret[15..40]), "a part of a secret was shown: {}", said.stderr);
        assert!(!world.path("out").exists());
    }
    for missing in ["gone.txt", "uploads"] {
        fails(
            &world,
            1,
            &["restore", "shop", "--to", "out", "--identity", missing],
            &["[key-missing]", missing, "hint:"],
        );
    }
}

/// Commits a backup whose source `uploads` is made of these pieces.
fn forged(world: &World, pieces: &[Piece]) -> String {
    let forge = Forge::of(world);
    let mut manifest = forge.next();
    let uploads = manifest.sources.iter_mut().find(|source| source.name.as_str() == "uploads").unwrap();
    forge.replace_pieces(uploads, pieces, None);
    forge.commit(&manifest)
}

/// A member and its bytes.
type Content = (Member, &'static [u8]);

#[test]
fn tars_that_would_leave_the_target() {
    let world = World::new();
    world.backup();
    fs::create_dir(world.path("outside")).unwrap();
    let outside = world.path("outside").to_str().unwrap().to_owned();
    let file = |path: &str| (member(path, MemberKind::File, b"evil", None), &b"evil"[..]);
    let folder = |path: &str| (member(path, MemberKind::Folder, b"", None), &b""[..]);
    let link = |path: &str, to: &str| (member(path, MemberKind::Symlink, b"", Some(to)), &b""[..]);
    let hard = |path: &str, to: &str| (member(path, MemberKind::Hardlink, b"", Some(to)), &b""[..]);
    let hostile: Vec<(&str, Vec<Content>)> = vec![
        ("..", vec![file("../outside/a")]),
        (".. in the middle", vec![folder("t"), file("t/../../../outside/a")]),
        (".. alone", vec![folder("..")]),
        ("absolute", vec![file(&format!("{outside}/a"))]),
        ("a dot", vec![file("./a")]),
        ("nothing", vec![file("")]),
        ("through a link", vec![folder("t"), link("t/l", &outside), file("t/l/a")]),
        ("through a relative link", vec![link("l", "../../outside"), file("l/a")]),
        ("onto a link", vec![link("l", &format!("{outside}/a")), file("l")]),
        ("a folder on a link", vec![link("l", &outside), folder("l"), file("l/a")]),
        ("a hard link out", vec![hard("h", &format!("{outside}/there")), file("h")]),
        ("a hard link up", vec![hard("h", "../../outside/there")]),
        ("a hard link to a link", vec![link("l", &format!("{outside}/there")), hard("h", "l"), file("h")]),
        ("twice", vec![file("a"), file("a")]),
    ];
    fs::write(world.path("outside/there"), "untouched").unwrap();
    let one_segment = |members: &[(Member, &[u8])]| {
        vec![(vec![tar(members)], members.iter().map(|(member, _)| member.clone()).collect())]
    };
    for (what, members) in &hostile {
        // In one segment, and each member in a segment of its own, which other threads may unpack first.
        let apart: Vec<Piece> = members.iter().flat_map(|one| one_segment(std::slice::from_ref(one))).collect();
        for pieces in [one_segment(members), apart] {
            let id = forged(&world, &pieces);
            let said = world.run(&["restore", &id, "--source", "uploads", "--to", "out", "--identity", "identity.txt"]);
            assert_eq!(said.code, Some(20), "{what}: {}", said.stderr);
            assert!(
                said.stderr.contains("[data-unsafe]") && !said.stderr.contains("done in"),
                "{what}: {}",
                said.stderr
            );
            let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["there"], "{what}");
            assert_eq!(fs::read(world.path("outside/there")).unwrap(), b"untouched", "{what}");
            assert_eq!(fs::metadata(world.path("outside/there")).unwrap().len(), 9, "{what}");
            fs::remove_dir_all(world.path("out")).unwrap();
            // A drill of it fails, and leaves nothing outside either.
            let drill = world.json(21, &["drill", "--backup", &id, "--identity", "identity.txt"]);
            assert_eq!(drill["drills"][0]["refutes_backup"], true, "{what}");
        }
    }

    // Into a folder that others filled: a link that lies there already is not followed.
    let id = forged(&world, &one_segment(&[folder("t"), file("t/a")]));
    fs::create_dir_all(world.path("full/uploads")).unwrap();
    symlink(&outside, world.path("full/uploads/t")).unwrap();
    let overwrite =
        ["restore", &id, "--source", "uploads", "--to", "full", "--overwrite", "--identity", "identity.txt"];
    world.run(&overwrite);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "written through a link that lay in the target");
}

#[test]
fn data_that_swells() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let sound = forge.manifests().pop().unwrap();
    let refused = |manifest: &Manifest, says: &str| {
        let id = forge.commit(manifest);
        let args = ["restore", &id, "--source", "uploads", "--to", "out", "--identity", "identity.txt"];
        let said = fails(&world, 20, &args, &[says]);
        assert!(!said.stderr.contains("done in"), "{}", said.stderr);
        if world.path("out").exists() {
            fs::remove_dir_all(world.path("out")).unwrap();
        }
    };
    fn uploads(manifest: &mut Manifest) -> &mut lifeboat::domain::manifest::SourceEntry {
        manifest.sources.iter_mut().find(|source| source.name.as_str() == "uploads").unwrap()
    }
    // Objects that open to more than their contents say, each properly sealed, named and signed.
    let bomb = vec![0; 300 << 20];
    let swell = |plain: &[u8], declared: u64| {
        let mut manifest = forge.next();
        let told = vec![member("a", MemberKind::File, b"aaa", None)];
        let small = tar(&[(told[0].clone(), b"aaa")]);
        forge.replace_pieces(uploads(&mut manifest), &[(vec![small], told)], None);
        let mut listed = forge.segments(uploads(&mut manifest));
        (listed[0].object, listed[0].stored_bytes) = forge.seal(plain);
        forge.replace_lists(uploads(&mut manifest), &listed);
        let mut lines = forge.contents(uploads(&mut manifest));
        for line in &mut lines {
            match line {
                Line::Piece(segments) => segments[0].bytes = declared,
                Line::End { tar_bytes, .. } => *tar_bytes = declared,
                _ => {}
            }
        }
        forge.replace_contents(uploads(&mut manifest), &lines);
        manifest
    };
    refused(&swell(&bomb, 2560), &format!("declares {} bytes, more than the 2560", bomb.len()));
    // And where the contents declare as much, there is an end to what a segment may be.
    refused(&swell(&bomb, bomb.len() as u64), &format!("more than the {MAX_PLAIN_BYTES}"));
    refused(&swell(&bomb, u64::MAX), &format!("more than the {MAX_PLAIN_BYTES}"));

    // Sizes whose sum, or the room that they need, is beyond counting.
    let mut manifest = Manifest { sources: sound.sources.clone(), ..forge.next() };
    let mut lines = forge.contents(uploads(&mut manifest));
    for line in &mut lines {
        if let Line::Piece(segments) = line {
            segments.iter_mut().for_each(|segment| segment.bytes = u64::MAX);
        }
    }
    forge.replace_contents(uploads(&mut manifest), &lines);
    refused(&manifest, "[object-damaged]");
    let check = world.json(20, &["check", "--read-data", "--identity", "identity.txt"]);
    let too_large = format!("more than the {MAX_PLAIN_BYTES}");
    assert_eq!(damaged(&check).iter().filter(|(_, reason)| reason.contains(&too_large)).count(), 3, "{check}");
    let mut manifest = Manifest { sources: vec![sound.sources[0].clone()], ..forge.next() };
    manifest.sources[0].logical_bytes = u64::MAX / 2;
    forge.commit(&manifest);
    let drill = world.json(21, &["drill", "--identity", "identity.txt"]);
    assert!(drill["drills"][0]["errors"].to_string().contains("the drill needs"), "{drill}");

    // Contents that swell.
    let mut manifest = forge.next();
    let object = forge.seal(&bomb).0;
    uploads(&mut manifest).contents = vec![object];
    refused(&manifest, &object.to_string());

    // A list that swells.
    let stored = zstd::bulk::compress(&bomb, 3).unwrap();
    let list = object_id(&stored);
    forge.put(&Key::List(list).to_string(), stored);
    let mut manifest = Manifest { sources: sound.sources.clone(), ..forge.next() };
    uploads(&mut manifest).lists = vec![list];
    refused(&manifest, &list.to_string());
    let check = world.json(20, &["check"]);
    assert!(damaged(&check).iter().any(|(key, _)| key.contains(&list.to_string())), "{check}");
}

#[test]
fn a_vault_of_a_newer_version() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let key = SigningKey::read(&world.path("vault.key")).unwrap();
    let pin = Pin { key: key.public().clone(), vault: None };
    let mut trust = forge.runtime.block_on(read_trust(&*forge.storage, &pin)).unwrap();
    (trust.version, trust.serial) = (2, 2);
    forge.runtime.block_on(write_trust(&*forge.storage, &key, &trust)).unwrap();
    let before = world.keys("");
    for args in [&["backup"][..], &["check"], &["list"], &["drill", "--identity", "identity.txt"], &WHOLE] {
        fails(&world, 10, args, &["version 2, and this lifeboat reads up to 1", "hint: install the newer lifeboat"]);
    }
    assert_eq!(world.keys(""), before, "nothing is written into a vault that is not understood");
    assert!(!world.path("out").exists());
}

#[test]
fn two_backups_of_a_job_at_once() {
    let world = World::new();
    world.backup();
    let lock = world.path("state/locks/shop.backup.lock");
    let mut file = File::options().read(true).write(true).open(&lock).unwrap();
    let mut line = String::new();
    file.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("process ") && line.contains(" since "), "{line}");
    // A process that died holds nothing, whatever stands in its file.
    fs::write(&lock, "process 1 since 2026-01-01 00:00:00 UTC\n").unwrap();
    world.backup();

    let line = "process 4711 since 2026-11-22 02:00:00 UTC";
    fs::write(&lock, format!("{line}\n")).unwrap();
    file.try_lock().unwrap();
    let manifests = world.keys("");
    fails(&world, 11, &["backup"], &[line, "[locked]", "hint:"]);
    let document = world.json(11, &["backup"]);
    assert_eq!(document["runs"][0]["outcome"], "failed");
    assert_eq!(world.keys(""), manifests, "nothing was tried");
    // Reading is nobody's business.
    world.expect(0, &["check"]);
    world.expect(0, &WHOLE);
    drop(file);
    world.backup();
}

#[test]
fn a_target_that_is_not_empty() {
    let world = World::new();
    world.backup();
    fs::create_dir(world.path("out")).unwrap();
    fs::write(world.path("out/mine"), "mine").unwrap();
    fails(&world, 2, &WHOLE, &["[target-not-empty]", "--overwrite"]);
    assert_eq!(fs::read_dir(world.path("out")).unwrap().count(), 1);
    world.expect(0, &[&WHOLE[..], &["--overwrite"]].concat());
    assert_eq!(fs::read(world.path("out/mine")).unwrap(), b"mine");
    fs::write(world.path("file"), "a file").unwrap();
    fails(&world, 1, &["restore", "shop", "--to", "file", "--identity", "identity.txt"], &["[restore-failed]", "file"]);
    assert_eq!(fs::read(world.path("file")).unwrap(), b"a file");
}

#[test]
fn names_that_nothing_has() {
    let world = World::new();
    let id = world.backup();
    let with = |args: &[&'static str]| [args, &["--identity", "identity.txt"]].concat();
    fails(&world, 2, &["backup", "shpo"], &["no job \"shpo\"", "it has: shop"]);
    fails(&world, 2, &["drill", "shpo"], &["no job \"shpo\"", "it has: shop"]);
    fails(&world, 2, &["list", "shpo"], &["shpo", "hint:"]);
    fails(&world, 2, &with(&["restore", "shpo", "--to", "out"]), &["\"shpo\"", "lifeboat list"]);
    fails(&world, 2, &with(&["restore", "ffffffffffffffff", "--to", "out"]), &["\"ffffffffffffffff\""]);
    fails(&world, 2, &with(&["restore", "shop@2001-01-01", "--to", "out"]), &["2001-01-01 or before"]);
    fails(&world, 2, &with(&["restore", "shop@yesterday", "--to", "out"]), &["yesterday", "2026-11-22T02:00"]);
    fails(&world, 2, &with(&["restore", "shop", "--source", "dbb", "--to", "out"]), &["no source dbb", "uploads, db"]);
    fails(&world, 2, &with(&["cat", "shop", "--source", "dbb"]), &["no source dbb"]);
    fails(&world, 2, &with(&["restore", "shop", "--path", "*.gone", "--to", "out"]), &["nothing in backup", "*.gone"]);
    fails(&world, 2, &["list", "--vault", "man"], &["\"man\"", "main"]);
    // Short of an id it is none.
    fails(&world, 2, &["show", &id[..3]], &[&id[..3]]);
    world.expect(0, &["show", &id[..6]]);
    let drill = world.json(21, &with(&["drill", "--backup", "ffff"]));
    assert_eq!((&drill["drills"][0]["outcome"], &drill["drills"][0]["backup"]), (&"failed".into(), &Value::Null));
}

#[test]
fn a_bare_host() {
    let world = World::new();
    let id = world.backup();
    let bare = World::empty();
    let copied = std::process::Command::new("cp").arg("-a").arg(world.path("vault")).arg(bare.path("copy")).status();
    assert!(copied.unwrap().success());
    fs::copy(world.path("identity.txt"), bare.path("identity.txt")).unwrap();
    let run = |code, args: &[&str]| {
        let said = said(&mut bare.command(args));
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        said
    };
    let restored = |to: &str| {
        let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
        let file = bare.path(to).join("uploads").join(below_root).join("deep/large.bin");
        assert_eq!(fs::read(file).unwrap(), noise(3_000_000, 200));
        assert!(bare.path(to).join("db/shop.db").is_file());
    };
    let vault = bare.path("copy").to_str().unwrap().to_owned();
    run(0, &["restore", "shop", "--to", "one", "--vault", &vault, "--identity", "identity.txt"]);
    restored("one");
    run(0, &["restore", &id, "--to", "two", "--vault", "copy", "--identity", "identity.txt"]);
    restored("two");
    for args in [&["list"][..], &["check"], &["show", "shop"]] {
        run(0, &[args, &["--vault", "./copy", "--identity", "identity.txt"]].concat());
    }

    // Without the comments nobody vouches for the vault.
    let text = fs::read_to_string(bare.path("identity.txt")).unwrap();
    let trust = text.lines().find_map(|line| line.strip_prefix("# lifeboat trust: ")).unwrap();
    let secret = text.lines().last().unwrap();
    fs::write(bare.path("secret.txt"), format!("{secret}\n")).unwrap();
    let args = ["restore", "shop", "--to", "three", "--vault", "./copy", "--identity", "secret.txt"];
    let refused = run(20, &args);
    assert!(
        refused.stderr.contains("[vault-untrusted]") && refused.stderr.contains("--trust RWQ"),
        "{}",
        refused.stderr
    );
    assert!(!bare.path("three").exists());
    run(0, &[&args[..], &["--trust", trust]].concat());
    restored("three");
    let other = SigningKey::generate().public().to_string();
    let refused = run(20, &["list", "--vault", "./copy", "--trust", &other]);
    assert!(refused.stderr.contains("is not to be trusted"), "{}", refused.stderr);
    // An identity of another vault vouches for that one only.
    let stranger = World::new();
    fs::copy(stranger.path("identity.txt"), bare.path("stranger.txt")).unwrap();
    run(20, &["list", "--vault", "./copy", "--identity", "stranger.txt"]);
    // What only a host with a config can do, it says so.
    let refused = run(78, &["backup", "--vault", "./copy"]);
    assert!(refused.stderr.contains("lifeboat init"), "{}", refused.stderr);
    // Nothing was written anywhere but below the targets.
    let mut left: Vec<_> =
        fs::read_dir(bare.path("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["copy", "identity.txt", "one", "secret.txt", "stranger.txt", "three", "two"]);
}

#[test]
fn a_source_that_is_not_there() {
    let world = World::new();
    let first = world.backup();
    let manifests = world.keys("backups");
    edit_config(&world, "paths = [\"uploads\"]", "paths = [\"uploads\", \"gone\"]");
    fails(&world, 1, &["backup"], &["gone", "[source-unavailable]", "nothing was committed"]);
    edit_config(&world, "paths = [\"uploads\", \"gone\"]", "paths = [\"uploads\"]");
    fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    fails(&world, 1, &["backup"], &["shop.db", "[source-unavailable]"]);
    fs::write(world.path("shop.db"), noise(8192, 9)).unwrap();
    fails(&world, 1, &["backup"], &["shop.db", "[source-unavailable]"]);
    assert_eq!(world.keys("backups"), manifests);
    restores(&world, &first, &world.path("uploads"));
}
