//! The damage matrix: each way to damage each class of thing in a vault. Always: it is noticed without a key and named
//! with the backups that it spoils; what hangs on it does not restore, and says so; everything else does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lifeboat::clock::SystemClock;
use lifeboat::domain::contents::Line;
use lifeboat::domain::ids::{KeyedId, ObjectId};
use lifeboat::domain::manifest::{Manifest, SourceEntry};
use lifeboat::domain::segment::SegmentRef;
use lifeboat::storage::Storage;
use lifeboat::storage::local::Local;
use lifeboat::vault::layout::Key;
use lifeboat::vault::writer::{Barred, ListWriter, SegmentStore};
use serde_json::Value;

use crate::forge::{Forge, key_of};
use crate::support::{World, noise};

const DAMAGES: [&str; 4] = ["delete", "flip", "truncate", "swap"];

/// What a class of things in the vault is to the backup that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Part of its source `uploads`.
    Source,
    /// The backup's head.
    Manifest,
    /// What everything is believed through.
    Trust,
    /// What tells of the past.
    Record,
}

struct Row {
    name: &'static str,
    class: Class,
    /// The key that is damaged, and one of the same class in an older backup.
    key: String,
    other: String,
    /// Under this key check names the damage.
    named: String,
    other_named: String,
}

#[test]
fn every_damage_is_noticed_and_spoils_nothing_else() {
    let world = World::new();
    let ids: Vec<String> = (0..3)
        .map(|day| {
            change_everything(&world, day);
            world.backup()
        })
        .collect();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    change_everything(&world, 3);
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    change_everything(&world, 4);
    let last = world.backup();
    let stranger = World::new();
    let rows = rows(&world);
    let (older, damaged) = (ids[1].as_str(), ids[2].as_str());
    let dump = sqlite_dump(&world.path("shop.db"));
    let mut expected_db = None;

    let mut matrix = String::new();
    for row in &rows {
        for damage in DAMAGES {
            let at = format!("{damage} {}", row.name);
            let saved = apply(&world, &stranger, row, damage);
            let codes = look(&world, row, damage, older, damaged);

            // The newest backup has nothing to do with it.
            let out = world.path("out");
            if row.class == Class::Trust {
                refuses(&world, &last, if at == "delete vault.json" { 10 } else { 20 });
            } else {
                world.expect(0, &["restore", &last, "--to", "out", "--identity", "identity.txt"]);
                let uploads = out.join("uploads").join(world.path("uploads").strip_prefix("/").unwrap());
                assert_same(&world.path("uploads"), &uploads);
                assert_eq!(sqlite_dump(&out.join("db/shop.db")), dump, "{at}");
                fs::remove_dir_all(&out).unwrap();
            }
            // Neither has the other source of the same backup.
            if matches!(row.class, Class::Source | Class::Record) {
                let said = ["restore", damaged, "--source", "db", "--to", "out", "--identity", "identity.txt"];
                world.expect(0, &said);
                let found = sqlite_dump(&out.join("db/shop.db"));
                assert_eq!(expected_db.get_or_insert_with(|| found.clone()), &found, "{at}");
                fs::remove_dir_all(&out).unwrap();
            }
            matrix.push_str(&format!("{:<10}{:<26}check {:>2}  restore {:>2}\n", damage, row.name, codes.0, codes.1));
            for (path, bytes) in saved {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }
    #[expect(clippy::print_stdout, reason = "the matrix is worth a look")]
    {
        println!("{matrix}");
    }
    assert_eq!(matrix.lines().count(), rows.len() * DAMAGES.len());
    let records = world.keys("records").iter().filter(|key| key.ends_with(".json")).count();
    let sound = world.json(0, &["check", "--read-data", "--identity", "identity.txt"]);
    assert_eq!((&sound["backups"], &sound["records"]), (&5.into(), &records.into()), "undone: {sound}");
}

/// Check names it, and a restore of it fails; the codes of both.
fn look(world: &World, row: &Row, damage: &str, older: &str, damaged: &str) -> (i32, i32) {
    let at = format!("{damage} {}", row.name);
    let deleted_manifest = at == "delete manifest";
    let code = match (row.class, damage) {
        // Nothing in the vault names a record: what is left is what a run leaves that was killed while it wrote.
        (Class::Record, "delete") if row.name == "record" => 0,
        (Class::Trust, "delete") if row.key == "vault.json" => 10,
        _ => 20,
    };
    if row.class == Class::Trust {
        let said = world.expect(code, &["check"]);
        assert!(said.stderr.contains("vault.json") && !said.stdout.contains("sound"), "{at}: {}", said.stderr);
        refuses(world, damaged, code);
        return (code, code);
    }
    let check = world.json(code, &["check"]);
    let found: BTreeSet<(String, BTreeSet<String>)> = check["damaged"].as_array().unwrap().iter().map(found).collect();
    let spoils = |ids: &[&str]| match row.class {
        Class::Record => BTreeSet::new(),
        _ => ids.iter().map(|&id| id.to_owned()).collect::<BTreeSet<String>>(),
    };
    let mut expected = BTreeSet::new();
    match (row.class, damage) {
        (Class::Record, "delete") if code == 0 => {
            assert!(check["strays"].as_u64().unwrap() >= 1, "{at}: {check}");
        }
        (_, "swap") => {
            // Objects that the contents share with other backups are not taken: each spoils its own.
            expected.insert((row.named.clone(), spoils(&[damaged])));
            expected.insert((row.other_named.clone(), spoils(&[older])));
        }
        _ if deleted_manifest => {}
        _ => {
            expected.insert((row.named.clone(), spoils(&[damaged])));
        }
    }
    if row.class == Class::Manifest {
        // The one after it tells of the gap.
        let after = check["damaged"]
            .as_array()
            .unwrap()
            .iter()
            .find(|d| reason(d).contains("missing, ") || { reason(d).contains("before it, ") });
        let after = after.unwrap_or_else(|| panic!("{at}: {check}"));
        let sequences = if damage == "swap" { "2 to 3" } else { "number 3" };
        assert!(reason(after).contains(sequences), "{at}: {check}");
        assert!(found.is_superset(&expected), "{at}: {check}");
        assert_eq!(found.len(), expected.len() + 1, "{at}: {check}");
    } else {
        assert_eq!(found, expected, "{at}: {check}");
    }
    let restore = match (row.class, deleted_manifest) {
        (Class::Record, _) => return (code, 0),
        (_, true) => 2,
        _ => 20,
    };
    refuses(world, damaged, restore);
    (code, restore)
}

fn reason(damage: &Value) -> &str {
    damage["reason"].as_str().unwrap()
}

fn found(damage: &Value) -> (String, BTreeSet<String>) {
    let backups = damage["backups"].as_array().unwrap().iter();
    (damage["object"].as_str().unwrap().to_owned(), backups.map(|id| id.as_str().unwrap().to_owned()).collect())
}

/// A restore of the damaged source ends with this code, an error, and no claim of success.
#[track_caller]
fn refuses(world: &World, backup: &str, code: i32) {
    let args = ["restore", backup, "--source", "uploads", "--to", "refused", "--identity", "identity.txt"];
    let said = world.expect(code, &args);
    assert!(said.stderr.contains("error: "), "{}", said.stderr);
    assert!(!said.stderr.contains("restored") && !said.stderr.contains("done in"), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    if world.path("refused").exists() {
        fs::remove_dir_all(world.path("refused")).unwrap();
    }
}

/// New bytes in every file and every row, so that no two backups share an object of data.
fn change_everything(world: &World, day: u8) {
    let uploads = world.path("uploads");
    for number in 0..40 {
        fs::write(uploads.join(format!("small-{number:02}")), noise(2_000 + number * 97, day * 50 + number as u8))
            .unwrap();
    }
    fs::write(uploads.join("deep/large.bin"), noise(1_500_000, 201 + day)).unwrap();
    world.sql(&format!("update users set name = 'user ' || id || ' of day {day}'"));
}

fn rows(world: &World) -> Vec<Row> {
    let forge = Forge::of(world);
    let manifests = forge.manifests();
    let (older, damaged) = (&manifests[1], &manifests[2]);
    let uploads = |manifest: &Manifest| manifest.sources.iter().find(|s| s.name.as_str() == "uploads").unwrap().clone();
    let (older_source, source) = (uploads(older), uploads(damaged));
    let (small, large) = objects(&forge, &source);
    let (older_small, older_large) = objects(&forge, &older_source);
    // The first and the last part of the contents are shared: they say the same in each backup.
    let contents = |of: &SourceEntry, other: &SourceEntry| {
        Key::Object(*of.contents.iter().find(|object| !other.contents.contains(object)).unwrap()).to_string()
    };
    let list = |source: &SourceEntry| Key::List(source.lists[0]).to_string();
    let of_source = |name, key: String, other: String| Row {
        name,
        class: Class::Source,
        named: key.clone(),
        other_named: other.clone(),
        key,
        other,
    };
    let mut rows = vec![
        of_source("data object, small files", small, older_small),
        of_source("data object, large file", large, older_large),
        of_source("contents object", contents(&source, &older_source), contents(&older_source, &source)),
        of_source("list", list(&source), list(&older_source)),
    ];
    let mut signed = |names: [&'static str; 2], class, key: String, other: String| {
        for (name, ending) in names.into_iter().zip(["", ".minisig"]) {
            rows.push(Row {
                name,
                class,
                key: format!("{key}{ending}"),
                other: format!("{other}{ending}"),
                named: key.clone(),
                other_named: other.clone(),
            });
        }
    };
    signed(["manifest", "manifest signature"], Class::Manifest, key_of(damaged), key_of(older));
    signed(["vault.json", "vault.json signature"], Class::Trust, "vault.json".into(), "vault.json".into());
    let runs: Vec<String> = world.keys("records/runs").into_iter().filter(|key| key.ends_with(".json")).collect();
    signed(["record", "record signature"], Class::Record, runs[0].clone(), runs[1].clone());
    let details: Vec<String> =
        world.keys("records/drills").into_iter().filter(|key| key.ends_with(".details.age")).collect();
    // Unlike a record itself, its details are named: by the record. So that they are gone is damage.
    rows.push(Row {
        name: "record details",
        class: Class::Record,
        key: details[0].clone(),
        other: details[1].clone(),
        named: details[0].clone(),
        other_named: details[1].clone(),
    });
    rows
}

/// An object of small files, and one of a large file's data.
fn objects(forge: &Forge, source: &SourceEntry) -> (String, String) {
    let listed = forge.segments(source);
    let key = |id| Key::Object(listed.iter().find(|line| line.id == id).unwrap().object).to_string();
    let pieces: Vec<_> = forge
        .contents(source)
        .into_iter()
        .filter_map(|line| match line {
            Line::Piece(segments) => Some(segments),
            _ => None,
        })
        .collect();
    let small = pieces.iter().filter(|piece| piece.len() == 1).max_by_key(|piece| piece[0].bytes).unwrap();
    let large = pieces.iter().find(|piece| piece.len() > 1).unwrap();
    (key(small[0].id), key(large.last().unwrap().id))
}

/// Damages; gives what undoes it.
fn apply(world: &World, stranger: &World, row: &Row, damage: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let path = world.path("vault").join(&row.key);
    let bytes = fs::read(&path).unwrap();
    let mut saved = vec![(path.clone(), bytes.clone())];
    match damage {
        "delete" => fs::remove_file(&path).unwrap(),
        "flip" => {
            let mut flipped = bytes;
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            fs::write(&path, flipped).unwrap();
        }
        "truncate" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
        "swap" if row.class == Class::Trust => {
            fs::copy(stranger.path("vault").join(&row.other), &path).unwrap();
        }
        "swap" => {
            let other = world.path("vault").join(&row.other);
            let others = fs::read(&other).unwrap();
            fs::write(&path, &others).unwrap();
            fs::write(&other, bytes).unwrap();
            saved.push((other, others));
        }
        unknown => panic!("{unknown}"),
    }
    saved
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let out = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

fn sqlite_dump(file: &Path) -> String {
    let out = Command::new("sqlite3").arg(file).arg(".dump").output().expect("sqlite3 is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_shared_object_spoils_every_backup_that_names_it() {
    let world = World::new();
    let ids: BTreeSet<String> = [world.backup(), world.backup()].into();
    let forge = Forge::of(&world);
    let (small, _) = objects(&forge, &forge.manifests()[0].sources[0]);
    let path = world.path("vault").join(&small);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 0x80;
    fs::write(&path, bytes).unwrap();
    let check = world.json(20, &["check"]);
    assert_eq!(check["damaged"].as_array().unwrap().iter().map(found).collect::<Vec<_>>(), [(small, ids)]);
}

#[test]
fn what_is_missing_is_stored_anew() {
    for of_list in [false, true] {
        let world = World::new();
        let spoilt = world.backup();
        let forge = Forge::of(&world);
        let source = forge.manifests()[0].sources[0].clone();
        let key = if of_list { Key::List(source.lists[0]).to_string() } else { objects(&forge, &source).0 };
        fs::remove_file(world.path("vault").join(&key)).unwrap();
        let sound = if of_list { world.backup_and_no_prune() } else { world.backup() };
        world.expect(0, &["restore", &sound, "--to", "out", "--identity", "identity.txt"]);
        let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
        assert_same(&world.path("uploads"), &world.path("out/uploads").join(below_root));
        let check = world.json(20, &["check"]);
        assert_eq!(
            check["damaged"].as_array().unwrap().iter().map(found).collect::<Vec<_>>(),
            [(key, [spoilt].into())]
        );
    }
}

#[test]
fn a_damaged_list_is_not_named_again() {
    let world = World::new();
    let spoilt = world.backup();
    let forge = Forge::of(&world);
    let source = forge.manifests()[0].sources[0].clone();
    let key = Key::List(source.lists[0]).to_string();
    let path = world.path("vault").join(&key);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let run = world.expect(20, &["backup"]);
    assert!(run.stderr.contains("the backup is good"), "{}", run.stderr);
    assert!(run.stderr.contains("cannot be reused"), "{}", run.stderr);
    let sound = forge.manifests()[1].id.to_string();
    world.expect(0, &["restore", &sound, "--to", "out", "--identity", "identity.txt"]);
    let check = world.json(20, &["check"]);
    assert_eq!(check["damaged"].as_array().unwrap().iter().map(found).collect::<Vec<_>>(), [(key, [spoilt].into())]);
}

/// A list of the base that comes out again is held against the one that is there, before it is named again; one that is
/// there and no base's is not named at all: a sweep may be about to take it.
#[test]
fn a_list_that_lies_damaged_under_its_name_is_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let storage: Arc<dyn Storage> =
        Arc::new(Local::create(&folder.path().join("vault"), Arc::new(SystemClock::default())).unwrap());
    let segment = SegmentRef { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]), plain_bytes: 5 };
    let write_beside = |claimed: &[ObjectId]| {
        let barred = Barred { claimed: claimed.iter().copied().collect(), ..Barred::default() };
        let store =
            SegmentStore::new(runtime.handle().clone(), Arc::clone(&storage), [0; 32], []).avoiding(barred.into());
        let mut writer = ListWriter::default();
        writer.push(&store, segment).unwrap();
        let (lists, _) = writer.finish(&store).unwrap();
        store.settle().unwrap();
        (lists[0], store.repaired(), store.added().1)
    };
    let (list, repaired, added) = write_beside(&[]);
    assert!(repaired.is_empty() && added > 0);
    let write = || write_beside(&[list]);
    // Once more before the first is visible.
    assert_eq!(write(), (list, vec![], 0));
    runtime.block_on(storage.sync()).unwrap();
    assert_eq!(write(), (list, vec![], 0));
    assert_ne!(write_beside(&[]).0, list);
    let key = Key::List(list).to_string();
    let path = folder.path().join("vault").join(&key);
    let sound = fs::read(&path).unwrap();
    let longer = [&sound[..], b"more"].concat();
    let flipped: Vec<u8> = sound.iter().map(|byte| byte ^ 1).collect();
    for bytes in [&sound[1..], b"", &longer, &flipped] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(write(), (list, vec![key.clone()], 0));
        assert_eq!(fs::read(&path).unwrap(), sound);
    }
}

/// Not yet refuted, and so named again: but never hidden.
#[test]
fn an_object_of_the_right_size_and_wrong_bytes_is_told_of_both_backups() {
    let world = World::new();
    let first = world.backup();
    let forge = Forge::of(&world);
    // Not one of those that the second run hashes again, and would find.
    let segments = forge.segments(&forge.manifests()[0].sources[0]);
    let unseen = segments.iter().find(|segment| segment.object.0[0] % 32 != 2 && segment.stored_bytes > 5000).unwrap();
    let key = Key::Object(unseen.object).to_string();
    let path = world.path("vault").join(&key);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let second = world.backup();
    let check = world.json(20, &["check"]);
    let expected = (key, BTreeSet::from([first, second.clone()]));
    assert_eq!(check["damaged"].as_array().unwrap().iter().map(found).collect::<Vec<_>>(), [expected]);
    refuses(&world, &second, 20);
}

/// `status` and `report` look into the vault: what is gone from it is no recovery point, whatever the catalog says.
#[test]
fn status_does_not_count_what_the_vault_no_longer_has() {
    let world = World::new();
    let first = world.json(0, &["backup"]);
    let second = world.backup();
    for key in world.keys("backups").into_iter().filter(|key| key.contains(&second)) {
        fs::remove_file(world.path("vault").join(key)).unwrap();
    }
    let status = world.json(0, &["status"]);
    let job = &status["jobs"][0];
    assert_eq!(job["state"], "critical", "{status}");
    assert_eq!(job["recovery_point"], first["runs"][0]["backup"]["recovery_point"], "{status}");
    assert!(job["reasons"][0].as_str().unwrap().contains(&second), "{status}");
    let report = world.json(0, &["report"]);
    assert!(report["jobs"][0]["deviations"].to_string().contains("lost_backup"), "{report}");

    fs::rename(world.path("vault"), world.path("elsewhere")).unwrap();
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["state"], "unknown", "{status}");
    assert!(status["jobs"][0]["reasons"].to_string().contains("cannot be read"), "{status}");
    assert_eq!(world.run(&["status", "--nagios"]).code, Some(3));
}

/// The catalog's rebuild forgets the rows of what is gone, and not that it was seen: the loss stays visible.
#[test]
fn a_rollback_outlives_a_rebuilt_catalog() {
    let world = World::new();
    world.backup();
    let second = world.backup();
    for key in world.keys("backups").into_iter().filter(|key| key.contains(&second)) {
        fs::remove_file(world.path("vault").join(key)).unwrap();
    }
    let drill = world.json(21, &["drill", "--identity", "identity.txt"]);
    assert!(drill["drills"][0]["errors"].to_string().contains("this host saw backup number 2"), "{drill}");
    assert_eq!(drill["drills"][0]["refutes_backup"], false, "{drill}");
    world.expect(0, &["catalog", "rebuild"]);
    // The backup is good; the prune that follows it is stopped by what is missing.
    world.backup_and_no_prune();
    let said = world.expect(20, &["check"]);
    assert!(said.stdout.contains("sequence number 2"), "{}", said.stdout);
}

/// No new vault is made over a lost one.
#[test]
fn init_makes_no_vault_over_backups() {
    let world = World::new();
    world.backup();
    for name in ["vault.json", "vault.json.minisig"] {
        fs::rename(world.path("vault").join(name), world.path(name)).unwrap();
    }
    let said = world.expect(20, &["init"]);
    assert!(said.stderr.contains("no vault.json"), "{}", said.stderr);
    fs::rename(world.path("vault"), world.path("unmounted")).unwrap();
    let said = world.expect(10, &["init"]);
    assert!(said.stderr.contains("mount its disk"), "{}", said.stderr);
    for name in ["vault.json", "vault.json.minisig"] {
        fs::rename(world.path(name), world.path("unmounted").join(name)).unwrap();
    }
    fs::remove_dir_all(world.path("vault")).unwrap();
    fs::rename(world.path("unmounted"), world.path("vault")).unwrap();
    world.expect(0, &["check"]);
}

/// A drill of a job whose config has grown says so, and is no proof of what it did not restore.
#[test]
fn a_source_that_is_not_in_the_backup_fails_the_drill() {
    let world = World::new();
    world.backup();
    fs::create_dir(world.path("more")).unwrap();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let more = config
        .replace("[job.shop.drill]", "[job.shop.source.more]\nkind = \"files\"\npaths = [\"more\"]\n[job.shop.drill]");
    fs::write(world.path("lifeboat.toml"), more).unwrap();
    let drill = world.json(21, &["drill", "--identity", "identity.txt"]);
    assert!(drill["drills"][0]["errors"].to_string().contains("source more is in the config"), "{drill}");
    world.backup();
    world.json(0, &["drill", "--identity", "identity.txt"]);
}
