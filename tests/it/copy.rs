//! The second vault: what a copy brings there, what it refuses, and what is left when the first one is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::documents::{Document, IDENTITY};
use crate::support::{World, noise};

/// A world whose job is copied to a folder `offsite`, which is there and empty.
fn world() -> World {
    with_copy(World::new())
}

fn with_copy(world: World) -> World {
    let mut config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let recipients = config.lines().find(|line| line.starts_with("recipients")).unwrap().to_owned();
    config.push_str(&format!(
        "\n[vault.offsite]\nurl = \"offsite\"\n{recipients}\n[job.shop.copy]\nto = \"offsite\"\nschedule = \"45 */6 * * *\"\n"
    ));
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    fs::create_dir(world.path("offsite")).unwrap();
    world
}

fn files(below: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![below.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn copied(document: &Value) -> usize {
    document["copies"][0]["copied"].as_array().unwrap().len()
}

/// Flips a byte of the largest object of a vault: one of the large file's, so that every backup here names it.
fn damage(vault: &Path) -> PathBuf {
    let objects = files(&vault.join("objects"));
    let path = objects.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn every_verb_that_reads_works_on_the_copy_and_status_knows_both() {
    let world = world();
    let first = world.backup();
    let before = world.json(0, &["status"]);
    assert_eq!(before["jobs"][0]["copy"]["now_seconds"], "unbounded", "{before}");
    assert!(before["jobs"][0]["reasons"].to_string().contains("nothing was ever copied to offsite"), "{before}");
    let document = world.json(0, &["copy", "--to", "offsite"]);
    assert_eq!((copied(&document), &document["copies"][0]["newest"]), (1, &Value::from(first)), "{document}");
    let again = world.json(0, &["copy"]);
    assert_eq!((copied(&again), again["copies"][0]["new_objects"].as_u64()), (0, Some(0)), "{again}");
    fs::write(world.path("uploads/small-03"), "another content").unwrap();
    let second = world.backup();
    let document = world.json(0, &["copy", "shop"]);
    assert_eq!(document["copies"][0]["copied"], serde_json::json!([second]));
    let sent = document["copies"][0]["new_bytes"].as_u64().unwrap();
    assert!(sent > 0 && sent < 1_000_000, "only what is new: {document}");

    let list = world.json(0, &["list", "--vault", "offsite"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 2, "{list}");
    let checked = world.json(0, &["check", "--vault", "offsite", "--read-data", "--identity", "identity.txt"]);
    // It is on record there, and says nothing of the vault that it is a copy of.
    assert_eq!(checked["on_record"], serde_json::json!(["shop"]), "{checked}");
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["last_check"], Value::Null, "{status}");
    assert_eq!(status["jobs"][0]["copy"]["last_check"]["outcome"], "sound", "{status}");
    assert!(world.keys("records/checks").is_empty());
    assert_eq!(checked["outcome"], "passed");
    world.expect(0, &["show", "shop", "--vault", "offsite"]);
    let drill = world.json(0, &["drill", "--vault", "offsite", "--identity", "identity.txt"]);
    assert_eq!(drill["drills"][0]["outcome"], "passed", "{drill}");
    world.expect(0, &["prune", "--vault", "offsite"]);
    world.expect(0, &["restore", "shop", "--vault", "offsite", "--identity", "identity.txt", "--to", "back"]);
    assert_eq!(
        fs::read(world.path("uploads/deep/large.bin")).unwrap(),
        fs::read(files(&world.path("back")).iter().find(|path| path.ends_with("deep/large.bin")).unwrap()).unwrap()
    );

    let status = world.json(0, &["status"]);
    let copy = &status["jobs"][0]["copy"];
    assert_eq!((&copy["vault"], &copy["state"], &copy["backups"]), (&"offsite".into(), &"ok".into(), &2.into()));
    assert_eq!(copy["recovery_point"], status["jobs"][0]["recovery_point"]);
    // The same backups, for the same time.
    assert!(copy["erasure"]["deadline"].is_string(), "{copy}");
    assert_eq!(copy["erasure"], status["jobs"][0]["erasure"]);
    assert_eq!(copy["last_copy"]["outcome"], "success", "{copy}");
    assert!(world.expect(0, &["status"]).stdout.contains("in offsite"));
    let report = world.json(0, &["report"]);
    assert_eq!(report["jobs"][0]["copy"]["vault"], "offsite", "{report}");
    assert!(world.expect(0, &["report"]).stdout.contains("### Second vault"));
    // What the catalog knows of both can be had again from both.
    fs::remove_file(world.path("state/catalog.db")).or_else(|_| fs::remove_file(catalog(&world))).unwrap();
    world.expect(0, &["catalog", "rebuild"]);
    let anew = world.json(0, &["status"]);
    for field in ["vault", "state", "backups", "recovery_point", "erasure", "last_success", "last_copy"] {
        assert_eq!(anew["jobs"][0]["copy"][field], copy[field], "{field}");
    }
    assert_eq!(anew["jobs"][0]["last_backup"], status["jobs"][0]["last_backup"]);
}

fn catalog(world: &World) -> PathBuf {
    let all = files(&world.path(""));
    let found =
        all.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("catalog.")));
    for path in
        all.iter().filter(|path| path.to_string_lossy().ends_with("-wal") || path.to_string_lossy().ends_with("-shm"))
    {
        let _ = fs::remove_file(path);
    }
    found.unwrap().clone()
}

#[test]
fn the_first_vault_is_lost_and_a_bare_host_restores_from_the_copy_by_its_runbook() {
    let world = world();
    world.backup();
    world.expect(0, &["copy"]);
    fs::remove_dir_all(world.path("vault")).unwrap();
    // A bare host: nothing but the copy and the identity.
    let bare = World::empty();
    let places = [
        ("/mnt/offsite/shop", world.path("offsite")),
        (IDENTITY, world.path("identity.txt")),
        ("/srv/restored", bare.path("back")),
    ];
    Document::open("runbooks/restore-from-the-copy.md").rest(&bare, &places);
    assert!(bare.path("back/db/shop.db").is_file());
    let restored = files(&bare.path("back/uploads"));
    assert!(restored.iter().any(|path| path.ends_with("deep/large.bin")), "{restored:?}");
}

/// Both ways on from a vault that is lost, as the runbook has them.
#[test]
fn one_backs_up_again_after_the_first_vault_was_lost() {
    for becomes_the_vault in [false, true] {
        let world = world();
        let first = world.backup();
        world.expect(0, &["copy"]);
        fs::remove_dir_all(world.path("vault")).unwrap();
        if becomes_the_vault {
            let path = world.path("lifeboat.toml");
            let config = fs::read_to_string(&path).unwrap();
            let (config, _) = config.split_once("\n[vault.offsite]").unwrap();
            let own = config.lines().find(|line| line.starts_with("url")).unwrap();
            fs::write(path, config.replacen(own, "url = \"offsite\"", 1)).unwrap();
            Document::part("runbooks/restore-from-the-copy.md", "copy-is-vault").rest(&world, &[]);
        } else {
            fs::create_dir(world.path("vault")).unwrap();
            let places = [("/mnt/offsite/shop", world.path("offsite")), ("/srv/backups", world.path("vault"))];
            Document::part("runbooks/restore-from-the-copy.md", "new-vault").rest(&world, &places);
            world.expect(0, &["copy"]);
        }
        let list = world.json(0, &["list"]);
        let backups = list["backups"].as_array().unwrap();
        assert!(backups.len() == 2 && backups[0]["id"] == first.as_str(), "{list}");
    }
}

#[test]
fn what_is_damaged_in_the_source_is_named_and_not_copied() {
    let world = world();
    world.backup();
    let path = damage(&world.path("vault"));
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let document = world.json(20, &["copy"]);
    assert_eq!((copied(&document), &document["copies"][0]["outcome"]), (0, &Value::from("partial")), "{document}");
    assert!(document["copies"][0]["left"][0]["reason"].as_str().unwrap().contains(&name), "{document}");
    assert_eq!(document["copies"][0]["left"][0]["code"], "object-damaged");
    assert!(!world.path("offsite/backups").exists() || files(&world.path("offsite/backups")).is_empty());
    assert!(world.json(0, &["status"])["jobs"][0]["reasons"].to_string().contains("not copied to offsite"));
    // As the hint says: on record, stored anew, copied whole.
    world.expect(20, &["check"]);
    let next = world.backup();
    let document = world.json(20, &["copy"]);
    assert_eq!(document["copies"][0]["copied"], serde_json::json!([next]), "{document}");
    world.expect(0, &["check", "--vault", "offsite"]);
    world.expect(0, &["prune", "--vault", "offsite"]);
}

#[test]
fn what_is_damaged_in_the_copy_is_brought_anew_with_the_next_backup() {
    let world = world();
    let first = world.backup();
    world.expect(0, &["copy"]);
    damage(&world.path("offsite"));
    let said = world.expect(20, &["check", "--vault", "offsite"]);
    assert!(said.stderr.contains("`lifeboat backup`, then `lifeboat copy`"), "{}", said.stderr);
    let reasons = world.json(0, &["status"])["jobs"][0]["reasons"].to_string();
    assert!(reasons.contains("run `lifeboat backup shop`, then `lifeboat copy shop`"), "{reasons}");
    let second = world.backup();
    let document = world.json(0, &["copy"]);
    assert_eq!(document["copies"][0]["copied"], serde_json::json!([second]), "{document}");
    world.expect(0, &["check", "--vault", "offsite"]);
    let list = world.json(0, &["list", "--vault", "offsite"]);
    let verdicts: Vec<_> =
        list["backups"].as_array().unwrap().iter().map(|row| (&row["id"], &row["verdict"])).collect();
    let refuted = |id: &str| verdicts.iter().any(|(is, verdict)| *is == id && *verdict == "refuted");
    assert!(refuted(&first) && !refuted(&second), "{list}");
    assert!(world.json(0, &["status"])["jobs"][0]["copy"]["now_seconds"].is_number());
}

#[test]
fn another_vault_a_lost_disk_and_an_unknown_name_are_refused() {
    let world = world();
    world.backup();
    let said = world.expect(2, &["copy", "--to", "elsewhere"]);
    assert!(said.stderr.contains("no vault \"elsewhere\"") && said.stderr.contains("offsite"), "{}", said.stderr);
    let stranger = World::new();
    fs::remove_dir(world.path("offsite")).unwrap();
    let said = world.expect(10, &["copy"]);
    assert!(said.stderr.contains("mkdir -p ") && !said.stderr.contains("lifeboat init"), "{}", said.stderr);
    assert!(world.expect(10, &["check", "--vault", "offsite"]).stderr.contains("mkdir -p "));
    fs::rename(stranger.path("vault"), world.path("offsite")).unwrap();
    let said = world.expect(20, &["copy"]);
    assert!(said.stderr.contains("vault-untrusted") && said.stderr.contains("another vault"), "{}", said.stderr);
    fs::remove_dir_all(world.path("offsite")).unwrap();
    fs::create_dir(world.path("offsite")).unwrap();
    fs::write(world.path("offsite/photo.jpg"), "mine").unwrap();
    let said = world.expect(10, &["copy"]);
    assert!(said.stderr.contains("photo.jpg"), "{}", said.stderr);
    fs::remove_file(world.path("offsite/photo.jpg")).unwrap();
    world.expect(0, &["copy"]);
    fs::remove_dir_all(world.path("offsite")).unwrap();
    fs::create_dir(world.path("offsite")).unwrap();
    let said = world.expect(10, &["copy"]);
    assert!(said.stderr.contains("see that its disk is mounted"), "{}", said.stderr);
    assert!(files(&world.path("offsite")).is_empty());
    // Nobody backs up into a copy.
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("[job.shop]\n", "[job.shop]\nvault = \"offsite\"\n"))
        .unwrap();
    world.expect(78, &["backup"]);
}

#[test]
fn where_another_host_prunes_the_copy_this_one_does_not_and_says_until_when_it_must() {
    let world = world();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("to = \"offsite\"\n", "to = \"offsite\"\nprune = false\n"))
        .unwrap();
    world.backup();
    world.expect(0, &["copy"]);
    assert!(files(&world.path("offsite/records/prunes")).is_empty());
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["copy"]["erasure"], status["jobs"][0]["erasure"], "{status}");
    assert!(status["jobs"][0]["copy"]["erasure"]["deadline"].is_string(), "{status}");
    world.expect(0, &["prune", "shop", "--vault", "offsite"]);
    assert!(!files(&world.path("offsite/records/prunes")).is_empty());
}

#[test]
fn doctor_looks_at_the_second_place() {
    let world = world();
    world.backup();
    let doctor = |code| world.expect(code, &["doctor"]).stdout;
    fs::remove_dir(world.path("offsite")).unwrap();
    let said = doctor(1);
    assert!(said.contains("PROBLEM vault offsite: ") && said.contains("mkdir -p "), "{said}");
    fs::create_dir(world.path("offsite")).unwrap();
    let said = doctor(0);
    assert!(
        said.contains("WARNING vault offsite: nothing was copied to ") && said.contains("lifeboat copy shop"),
        "{said}"
    );
    assert!(files(&world.path("offsite")).is_empty(), "it waits for its first copy, and must be empty");
    world.expect(0, &["copy"]);
    let said = doctor(0);
    for about in ["vault offsite: ", "job shop: copy in offsite: the newest recovery point is "] {
        assert!(said.contains(&format!("OK      {about}")), "{about}: {said}");
    }
    assert!(
        !said.contains("nothing was copied to ") && said.contains("by its schedule the next copy is due "),
        "{said}"
    );
    assert!(said.contains("WARNING vault offsite: it lies in the same file system as vault main"), "{said}");
    let manifest =
        files(&world.path("offsite/backups")).into_iter().find(|path| path.extension().is_some_and(|it| it == "json"));
    fs::write(manifest.unwrap(), "torn").unwrap();
    let said = doctor(1);
    assert!(said.contains("PROBLEM job shop: copy in offsite: "), "{said}");
    assert!(said.contains("lifeboat check shop --vault offsite"), "{said}");
    fs::remove_dir_all(world.path("offsite")).unwrap();
    fs::create_dir(world.path("offsite")).unwrap();
    let said = doctor(1);
    assert!(said.contains("PROBLEM vault offsite: ") && !said.contains("nothing was copied to "), "{said}");
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let world = with_copy(World::in_memory());
    fs::write(world.path("uploads/huge.bin"), noise(40_000_000, 77)).unwrap();
    world.backup();
    let all = files(&world.path("vault/objects")).len();
    for objects in [1, all / 3, all / 2] {
        let mut child = world.command(&["copy"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A run that was faster than the look is over, and that is as good.
        while files(&world.path("offsite")).len() < objects && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        if world.path("offsite/vault.json").exists() {
            world.expect(0, &["check", "--vault", "offsite"]);
        }
    }
    world.json(0, &["copy"]);
    let checked = world.json(0, &["check", "--vault", "offsite"]);
    assert_eq!(checked["backups"], 1, "{checked}");
    assert_eq!(files(&world.path("offsite/objects")).len(), files(&world.path("vault/objects")).len());
}
