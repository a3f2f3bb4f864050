//! Whole journeys on undamaged data: what was backed up comes back, whatever happens to it meanwhile; and what must not
//! be in a backup is not in it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::inotify;
use serde_json::Value;

use crate::by_hand::{assert_same, listing};
use crate::support::{PROGRAM, Said, World, noise, said};

#[test]
fn what_was_backed_up_comes_back() {
    let world = World::new();
    world.backup();
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    let restored = world.path("out/uploads").join(below_root);
    assert_same(&listing(&restored), &listing(&world.path("uploads")), "restored");
    let rows = Command::new("sqlite3")
        .arg(world.path("out/db/shop.db"))
        .arg("select count(*), sum(id) from users")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(rows.stdout).unwrap(), "500|125250\n");
}

#[test]
fn an_unchanged_day_adds_nothing() {
    let world = World::new();
    // Files younger than the walk's margin of doubt are read again once.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    world.backup();
    let again = world.json(0, &["backup"]);
    let backup = &again["runs"][0]["backup"];
    assert_eq!((backup["new_bytes"].as_u64(), backup["new_segments"].as_u64()), (Some(0), Some(0)), "{again}");
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
}

#[test]
fn a_drill_passes_and_is_remembered() {
    let world = World::with_drill(
        r#"checks = [
  { source = "db", sql = "select count(*) = 500 from users" },
  { command = ["sh", "-c", "test -d \"$LIFEBOAT_UPLOADS_DIR\""] },
]"#,
    );
    world.backup();
    let drill = world.json(0, &["drill", "--identity", "identity.txt"]);
    let drill = &drill["drills"][0];
    assert_eq!((drill["outcome"].as_str(), drill["rto_met"].as_bool()), (Some("passed"), Some(true)), "{drill}");
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["state"], "ok", "{status}");
    assert!(std::fs::read_dir(world.scratch()).unwrap().next().is_none(), "scratch is not empty");
}

/// Every object in the vault, opened with stock tools, one after the other.
fn everything_in(world: &World) -> Vec<u8> {
    const SCRIPT: &str = r#"
        set -euo pipefail
        for object in vault/objects/*/*; do age -d -i identity.txt "$object" | zstd -dcq; done
    "#;
    let out = Command::new("bash").args(["-c", SCRIPT]).current_dir(world.path("")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn holds(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

const SMALL_MARKER: &str = "a-small-row-that-was-deleted";
const LARGE_MARKER: &str = "a-large-row-that-was-deleted";

/// Inserts rows and deletes them as SQLite does it by default: their bytes stay in the file. `secure_delete` is
/// switched off by hand, because distributions build the shell with it on.
fn delete_rows(world: &World, journal: &str) {
    let said = world.sql(&format!(
        "pragma journal_mode = {journal}; pragma secure_delete = off; pragma secure_delete;
         create table notes(id integer primary key, body text);
         insert into notes values(1, 'a row that stays'), (2, '{SMALL_MARKER}'),
             (3, replace(hex(zeroblob(3000)), '00', '{LARGE_MARKER} ')), (4, 'another row that stays');
         delete from notes where id in (2, 3);
         pragma wal_checkpoint(truncate);"
    ));
    assert!(said.starts_with(&format!("{journal}\n0\n0\n")), "secure_delete cannot be switched off: {said}");
    let live = fs::read(world.path("shop.db")).unwrap();
    assert!(holds(&live, SMALL_MARKER) && holds(&live, LARGE_MARKER), "the live file has no trace of the deleted rows");
}

#[test]
fn deleted_rows_are_nowhere_in_the_vault() {
    let world = World::new();
    delete_rows(&world, "delete");
    world.backup();
    let opened = everything_in(&world);
    assert!(holds(&opened, "a row that stays") && holds(&opened, "another row that stays"), "nothing was opened");
    assert!(!holds(&opened, SMALL_MARKER), "the small row");
    assert!(!holds(&opened, LARGE_MARKER), "the large row, on overflow pages");
}

#[test]
fn a_database_that_is_written_to_meanwhile_comes_back_consistent() {
    let world = World::new();
    world.sql(
        "pragma journal_mode = wal;
         create table accounts(id integer primary key, balance integer, moves integer, filler text);
         with recursive n(i) as (select 0 union all select i + 1 from n where i < 99)
         insert into accounts select i, 1000, 0, hex(randomblob(20000)) from n;
         create table ledger(id integer primary key, source integer, target integer);",
    );
    let mut writer = Command::new("sqlite3").arg(world.path("shop.db")).stdin(Stdio::piped()).spawn().unwrap();
    let orders = writer.stdin.take().unwrap();
    let stop = AtomicBool::new(false);
    let moves = || world.sql("select count(*) from ledger").trim().parse::<u64>().unwrap();
    let (before, after) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Held here, so that the writer ends when the loop does.
            let mut orders = orders;
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (source, target) = (number * 7 % 100, (number * 13 + 1) % 100);
                let transfer = format!(
                    "begin immediate;
                     update accounts set balance = balance - 1, moves = moves + 1 where id = {source};
                     update accounts set balance = balance + 1, moves = moves + 1 where id = {target};
                     insert into ledger(source, target) values({source}, {target});
                     commit;\n"
                );
                orders.write_all(transfer.as_bytes()).unwrap();
            }
        });
        while moves() == 0 {
            std::thread::yield_now();
        }
        let before = moves();
        world.backup();
        let after = moves();
        stop.store(true, Ordering::Relaxed);
        (before, after)
    });
    assert!(writer.wait().unwrap().success());
    assert!(after > before, "nothing was written during the backup");

    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    let ask = |sql: &str| {
        let out = Command::new("sqlite3").arg(world.path("out/db/shop.db")).arg(sql).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask("pragma integrity_check"), "ok");
    assert_eq!(ask("select sum(balance) from accounts"), "100000");
    let ledger: u64 = ask("select count(*) from ledger").parse().unwrap();
    assert!((before..=after).contains(&ledger), "{before} <= {ledger} <= {after}");
    // A transfer from an account to itself moves it twice as well.
    assert_eq!(ask("select sum(moves) from accounts"), (2 * ledger).to_string());
    world.expect(0, &["drill", "--identity", "identity.txt"]);
}

#[test]
fn a_small_change_costs_one_bundle_and_reads_nothing_else() {
    let world = World::new();
    let uploads = world.path("uploads");
    for number in 0..30_u8 {
        fs::write(uploads.join(format!("medium-{number:02}")), noise(100_000, 100 + number)).unwrap();
    }
    // Files younger than the walk's margin of doubt are read again once.
    std::thread::sleep(Duration::from_millis(2_500));
    world.backup();
    fs::write(uploads.join("medium-15"), noise(100_000, 99)).unwrap();

    let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    let mut watched = std::collections::HashMap::new();
    for entry in fs::read_dir(&uploads).unwrap().chain(fs::read_dir(uploads.join("deep")).unwrap()) {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
            let watch = inotify::add_watch(&inotify, entry.path(), flags).unwrap();
            watched.insert(watch, (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()));
        }
    }
    assert_eq!(watched.len(), 71);
    let again = world.json(0, &["backup"]);
    let mut touched = std::collections::BTreeMap::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64 * 1024];
    let mut events = inotify::Reader::new(&inotify, &mut buffer);
    while let Ok(event) = events.next() {
        let (name, bytes) = &watched[&event.wd()];
        touched.insert(name.clone(), *bytes);
    }

    let source = again["runs"][0]["backup"]["sources"].as_array().unwrap().iter().find(|s| s["name"] == "uploads");
    let source = source.unwrap();
    assert_eq!(source["new_segments"].as_u64(), Some(1), "{source}");
    assert!(source["new_bytes"].as_u64().unwrap() < 1_200_000, "{source}");
    assert!(touched.contains_key("medium-15"), "the watch saw nothing: {touched:?}");
    // A bundle is at most 1 MiB.
    assert!(touched.values().sum::<u64>() <= 1024 * 1024, "more than one bundle was read: {touched:?}");
    assert!(!touched.contains_key("large.bin"), "{touched:?}");
}

/// A world of a user who is not root.
struct Unprivileged {
    world: World,
}

impl Unprivileged {
    const UID: &str = "65534";

    fn new() -> Self {
        let world = World::new();
        // Where the build folder is, that user may not get.
        fs::copy(PROGRAM, world.path("lifeboat")).unwrap();
        let owner = format!("{0}:{0}", Self::UID);
        assert!(Command::new("chown").args(["-R", &owner]).arg(world.path("")).status().unwrap().success());
        Self { world }
    }

    #[track_caller]
    fn expect(&self, code: i32, args: &[&str]) -> Said {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", Self::UID, "--regid", Self::UID, "--clear-groups", "--"])
            .arg(self.world.path("lifeboat"))
            .args(args)
            .current_dir(self.world.path(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        let said = said(&mut command);
        assert_eq!(said.code, Some(code), "lifeboat {}\n{}\n{}", args.join(" "), said.stdout, said.stderr);
        said
    }

    #[track_caller]
    fn json(&self, code: i32, args: &[&str]) -> Value {
        let said = self.expect(code, &[args, &["--json"]].concat());
        serde_json::from_str(&said.stdout).unwrap()
    }
}

#[test]
fn what_cannot_be_read_makes_a_backup_partial() {
    let user = Unprivileged::new();
    let world = &user.world;
    let uploads = world.path("uploads");
    fs::write(uploads.join("a-strangers"), "for all to read").unwrap();
    let complete = user.json(0, &["backup"])["runs"][0]["backup"]["id"].as_str().unwrap().to_owned();

    for (name, text) in [("locked-file", "secret"), ("locked-folder/inside", "secret")] {
        fs::create_dir_all(uploads.join(name).parent().unwrap()).unwrap();
        fs::write(uploads.join(name), text).unwrap();
    }
    for name in ["locked-file", "locked-folder"] {
        fs::set_permissions(uploads.join(name), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let said = user.expect(3, &["backup", "--json"]);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let run = &document["runs"][0];
    assert_eq!(run["outcome"], "partial");
    let partial = run["backup"]["id"].as_str().unwrap().to_owned();
    for name in ["locked-file", "locked-folder"] {
        let path = uploads.join(name).to_str().unwrap()[1..].to_owned();
        assert!(said.stderr.contains(&path), "stderr does not name {path}: {}", said.stderr);
        assert!(run["errors"].to_string().contains(&path), "{run}");
        // What lies in clear in the vault tells no paths.
        for key in world.keys("") {
            let bytes = fs::read(world.path("vault").join(&key)).unwrap();
            assert!(!holds(&bytes, name), "{key} names {name}");
        }
    }
    let list = user.json(0, &["list"]);
    let completeness = |id: &str| {
        let all = list["backups"].as_array().unwrap();
        all.iter().find(|backup| backup["id"] == id).unwrap()["completeness"].as_str().unwrap()
    };
    assert_eq!((completeness(&complete), completeness(&partial)), ("complete", "partial"));
    assert!(user.expect(0, &["list"]).stdout.lines().any(|line| line.contains(&partial) && line.contains("partial")));

    // The last complete one is what is meant, until the partial one is asked for by its id.
    let id_of = |document: Value, pointer: &str| document.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    for name in ["shop", "shop@latest"] {
        assert_eq!(id_of(user.json(0, &["show", name]), "/manifest/id"), complete);
    }
    let drill = user.json(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!(id_of(drill, "/drills/0/backup"), complete);
    assert_eq!(id_of(user.json(0, &["show", &partial]), "/manifest/id"), partial);
    assert_ne!(user.json(0, &["status"])["jobs"][0]["state"], "ok");
    user.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);

    // Once it can be read, everything is complete again.
    for name in ["locked-file", "locked-folder"] {
        fs::set_permissions(uploads.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mended = id_of(user.json(0, &["backup"]), "/runs/0/backup/id");
    assert_eq!(id_of(user.json(0, &["show", "shop"]), "/manifest/id"), mended);
}

#[test]
fn a_user_restores_what_root_owned_and_is_told() {
    let user = Unprivileged::new();
    let world = &user.world;
    let strangers = world.path("uploads/small-07");
    std::os::unix::fs::chown(&strangers, Some(1234), Some(1234)).unwrap();
    user.expect(0, &["backup"]);
    let said = user.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    assert!(said.stderr.contains("1 members belong to you now"), "{}", said.stderr);
    let restored = world.path("out/uploads").join(strangers.strip_prefix("/").unwrap());
    assert_eq!(fs::read(&restored).unwrap(), fs::read(&strangers).unwrap());
    assert_eq!(fs::metadata(&restored).unwrap().uid().to_string(), Unprivileged::UID);
    let again = user.json(0, &["restore", "shop", "--to", "out2", "--identity", "identity.txt"]);
    let uploads = again["sources"].as_array().unwrap().iter().find(|source| source["name"] == "uploads").unwrap();
    assert_eq!(uploads["owners_kept"].as_u64(), Some(1), "{again}");
    // Root gives the file back to whom it belonged.
    world.expect(0, &["restore", "shop", "--to", "out3", "--identity", "identity.txt"]);
    let restored = world.path("out3/uploads").join(strangers.strip_prefix("/").unwrap());
    assert_eq!(fs::metadata(&restored).unwrap().uid(), 1234);
}

#[test]
fn a_root_that_is_missing_fails_the_run() {
    let world = World::new();
    world.backup();
    let manifests = world.keys("backups");
    fs::rename(world.path("uploads"), world.path("unmounted")).unwrap();
    let said = world.expect(1, &["backup", "--json"]);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["runs"][0]["outcome"], "failed", "{document}");
    assert_eq!(document["runs"][0]["backup"], Value::Null);
    assert!(said.stderr.contains(world.path("uploads").to_str().unwrap()), "{}", said.stderr);
    assert_eq!(world.keys("backups"), manifests);
    world.expect(0, &["check"]);
    fs::rename(world.path("unmounted"), world.path("uploads")).unwrap();
    world.backup();
}

#[test]
fn what_vanishes_is_counted_and_what_changes_is_named() {
    let world = World::new();
    let uploads = world.path("uploads");
    fs::create_dir(uploads.join("passing")).unwrap();
    for number in 0..3_000 {
        fs::write(uploads.join(format!("passing/{number:04}")), "gone soon").unwrap();
    }
    fs::write(uploads.join("log"), noise(8_000_000, 8)).unwrap();
    // As soon as the first of the files is opened, the folder is listed to its end. From then on the files go, the last
    // ones first, so that each was either read or is missed. What went before it was listed would be neither.
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&inotify, uploads.join("passing"), inotify::WatchFlags::OPEN).unwrap();
    let over = AtomicBool::new(false);
    let document = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(&inotify, &mut buffer);
            // An event of the folder itself has no name.
            while events.next().unwrap().file_name().is_none() {}
            for number in (0..3_000).rev() {
                fs::remove_file(uploads.join(format!("passing/{number:04}"))).unwrap();
            }
        });
        scope.spawn(|| {
            let mut log = fs::OpenOptions::new().append(true).open(uploads.join("log")).unwrap();
            while !over.load(Ordering::Relaxed) {
                log.write_all(b".").unwrap();
            }
        });
        let document = world.json(0, &["backup"]);
        over.store(true, Ordering::Relaxed);
        document
    });
    let sources = document["runs"][0]["backup"]["sources"].as_array().unwrap();
    let notes = &sources.iter().find(|source| source["name"] == "uploads").unwrap()["notes"];
    let vanished = notes["vanished"].as_u64().unwrap_or(0);
    assert!((1..=3_000).contains(&vanished), "{notes}");
    assert_eq!(notes["changed"].as_u64(), Some(1), "{notes}");
    assert_eq!(document["runs"][0]["outcome"], "success");

    let shown = world.expect(0, &["show", "shop", "--identity", "identity.txt"]).stdout;
    let log = uploads.join("log").to_str().unwrap()[1..].to_owned();
    assert!(shown.lines().any(|line| line.contains("changed") && line.contains(&log)), "{shown}");
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    let restored = world.path("out/uploads").join(uploads.strip_prefix("/").unwrap());
    let passing = fs::read_dir(restored.join("passing")).unwrap().count() as u64;
    assert_eq!(passing + vanished, 3_000, "each is there or counted");
    assert!(fs::read(restored.join("log")).unwrap().starts_with(&noise(8_000_000, 8)));
}

#[test]
fn a_part_is_restored_with_what_it_needs() {
    let world = World::new();
    let uploads = world.path("uploads");
    fs::hard_link(uploads.join("small-05"), uploads.join("deep/zz-another-name")).unwrap();
    world.backup();
    let below = |out: &str| world.path(out).join("uploads").join(uploads.strip_prefix("/").unwrap());

    world.expect(0, &["restore", "shop", "--to", "db-only", "--source", "db", "--identity", "identity.txt"]);
    assert!(world.path("db-only/db/shop.db").exists() && !world.path("db-only/uploads").exists());

    let globs = ["--path", "**/small-1*", "--path", "**/deep/zz-*", "--source", "uploads"];
    world.expect(0, &[&["restore", "shop", "--to", "part", "--identity", "identity.txt"], &globs[..]].concat());
    let names = |folder: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // deep/... sorts before small-05: the link in the backup is small-05, and what it is another name of comes along.
    let wanted: Vec<String> = (10..20).map(|n| format!("small-{n}")).collect();
    let restored = names(&below("part"));
    assert_eq!(restored, [&["deep".to_owned()], &wanted[..]].concat());
    assert_eq!(names(&below("part").join("deep")), ["zz-another-name"]);
    for name in wanted.iter().map(String::as_str).chain(["deep/zz-another-name"]) {
        assert_eq!(fs::read(below("part").join(name)).unwrap(), fs::read(uploads.join(name)).unwrap(), "{name}");
    }
    world.expect(0, &["restore", "shop", "--to", "link", "--identity", "identity.txt", "--path", "**/small-05"]);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&below("link").join("small-05")), inode(&below("link").join("deep/zz-another-name")));
    assert_eq!(fs::read(below("link").join("small-05")).unwrap(), fs::read(uploads.join("small-05")).unwrap());
    world.expect(2, &["restore", "shop", "--to", "none", "--identity", "identity.txt", "--path", "nowhere/*"]);
}

#[test]
fn a_folder_that_is_not_empty_is_restored_into_only_when_asked() {
    let world = World::new();
    world.backup();
    let restore = ["restore", "shop", "--to", "out", "--identity", "identity.txt"];
    world.expect(0, &restore);
    let restored = world.path("out/uploads").join(world.path("uploads").strip_prefix("/").unwrap());
    let listed = listing(&world.path("uploads"));
    assert_same(&listing(&restored), &listed, "restored");
    fs::write(restored.join("small-03"), "scribbled over").unwrap();
    fs::remove_file(restored.join("link")).unwrap();
    fs::create_dir(restored.join("link")).unwrap();
    fs::write(restored.join("not-of-the-backup"), "mine").unwrap();
    let said = world.expect(2, &restore);
    assert!(said.stderr.contains("--overwrite"), "{}", said.stderr);
    assert_eq!(fs::read(restored.join("small-03")).unwrap(), b"scribbled over");
    // A folder is never replaced: nobody knows what is in it.
    let over = [&restore[..], &["--overwrite"]].concat();
    let said = world.expect(1, &over);
    assert!(said.stderr.contains("uploads/link") && said.stderr.contains("move"), "{}", said.stderr);
    fs::remove_dir(restored.join("link")).unwrap();
    fs::write(restored.join("link"), "a file in the way").unwrap();
    world.expect(0, &over);
    assert_eq!(fs::read(restored.join("not-of-the-backup")).unwrap(), b"mine");
    fs::remove_file(restored.join("not-of-the-backup")).unwrap();
    // Removing it moved the folder's time: root's own is set back for the comparison.
    let time = fs::metadata(world.path("uploads")).unwrap().modified().unwrap();
    fs::File::open(&restored).unwrap().set_modified(time).unwrap();
    assert_same(&listing(&restored), &listed, "restored over");
}

#[test]
fn cat_is_a_tar_that_gnu_tar_lists() {
    let world = World::new();
    world.backup();
    let out = Command::new("bash")
        .args(["-c", "set -o pipefail; \"$0\" cat shop --source uploads --identity identity.txt | tar -t", PROGRAM])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut listed: Vec<String> =
        String::from_utf8(out.stdout).unwrap().lines().map(|line| line.trim_end_matches('/').to_owned()).collect();
    listed.sort();
    let root = world.path("uploads");
    let find = Command::new("find").arg(&root).output().unwrap();
    let mut found: Vec<String> =
        String::from_utf8(find.stdout).unwrap().lines().map(|line| line[1..].to_owned()).collect();
    found.sort();
    assert_eq!(listed, found);
}

#[test]
fn a_walk_leaves_out_databases_of_the_job_the_vault_and_the_state() {
    let world = World::new();
    delete_rows(&world, "wal");
    let config = world.path("lifeboat.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("paths = [\"uploads\"]", "paths = [\".\"]")).unwrap();
    // Somebody has the database open: the files beside it are there.
    let mut shell = Command::new("sqlite3")
        .arg(world.path("shop.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = shell.stdin.take().unwrap();
    orders.write_all(b"insert into notes values(5, 'in the wal'); select 'done';\n").unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(world.path("shop.db-wal").exists() && world.path("shop.db-shm").exists());

    world.backup();
    let opened = everything_in(&world);
    assert!(holds(&opened, "a row that stays") && holds(&opened, "in the wal"), "nothing was opened");
    assert!(!holds(&opened, SMALL_MARKER) && !holds(&opened, LARGE_MARKER), "deleted rows came along as a raw file");
    let shown = world.expect(0, &["show", "shop", "--identity", "identity.txt"]).stdout;
    let below = world.path("").to_str().unwrap()[1..].to_owned();
    for (name, why) in [
        ("shop.db", "backed up by source db"),
        ("shop.db-wal", "backed up by source db"),
        ("shop.db-shm", "backed up by source db"),
        ("vault", "the vault that this backup goes to"),
        ("state", "lifeboat's own state folder"),
    ] {
        let note =
            |line: &str| line.contains("skipped") && line.contains(&format!("{below}{name} ")) && line.contains(why);
        assert!(shown.lines().any(note), "no note of {name}: {shown}");
    }
    // Locks of the shell are its own; that the backup opened the database beside it did not disturb them.
    orders.write_all(b"insert into notes values(6, 'afterwards');\n").unwrap();
    drop(orders);
    assert!(shell.wait().unwrap().success());

    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    let restored = world.path("out/uploads").join(world.path("").strip_prefix("/").unwrap());
    let mut names: Vec<String> =
        fs::read_dir(&restored).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["identity.txt", "lifeboat.toml", "uploads", "vault.key"]);

    fs::write(&config, fs::read_to_string(&config).unwrap().replace("paths = [\".\"]", "paths = [\"shop.db\"]"))
        .unwrap();
    let said = world.expect(1, &["backup"]);
    assert!(said.stderr.contains("backed up by source db"), "{}", said.stderr);
}

/// Takes out what a document says of the moment at which it was asked for.
fn without_now(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // The window that is reported on ends now, and what is said of all moments in it moves with it.
            let now =
                ["generated", "now_seconds", "proven_now_seconds", "start", "end", "median_seconds", "p95_seconds"];
            let of_all = ["share_above_target", "worst_seconds", "worst_reached_at", "proven_worst_seconds"];
            let proven = ["proven_share_above_target", "proven_median_seconds", "proven_p95_seconds"];
            let now = [&now[..], &of_all, &proven].concat();
            fields.retain(|name, _| !now.contains(&name.as_str()));
            fields.values_mut().for_each(without_now);
        }
        Value::Array(values) => values.iter_mut().for_each(without_now),
        // `... failed 39 ms ago: run ...`
        Value::String(text) => {
            if let (Some(ago), Some(number)) = (text.find(" ago"), text.find(|c: char| c.is_ascii_digit())) {
                text.replace_range(number..ago, "...");
            }
        }
        _ => {}
    }
}

#[test]
fn a_rebuilt_catalog_says_the_same() {
    let world = World::with_drill("checks = [ { source = \"db\", sql = \"select count(*) = 500 from users\" } ]");
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    fs::write(world.path("uploads/new"), "new").unwrap();
    world.backup();
    fs::rename(world.path("uploads"), world.path("unmounted")).unwrap();
    world.expect(1, &["backup"]);
    fs::rename(world.path("unmounted"), world.path("uploads")).unwrap();
    let all = || {
        [&["list"][..], &["status"], &["report", "--format", "json"]].map(|args| {
            let mut document = world.json(0, args);
            without_now(&mut document);
            serde_json::to_string_pretty(&document).unwrap()
        })
    };
    let rows = || {
        ["backups", "runs", "drills", "seen"].map(|table| {
            let sql = format!("select * from {table} order by 2, 3");
            let out = Command::new("sqlite3").arg(world.path("state/catalog.sqlite")).arg(sql).output().unwrap();
            assert!(out.status.success() && !out.stdout.is_empty(), "{table}: {out:?}");
            String::from_utf8(out.stdout).unwrap()
        })
    };
    let (before, rows_before) = (all(), rows());
    // Lost altogether, not only emptied.
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(world.path(format!("state/catalog.sqlite{ending}")));
    }
    for what in ["after the rebuild", "after another one"] {
        world.expect(0, &["catalog", "rebuild"]);
        for (was, is) in before.iter().zip(&all()).chain(rows_before.iter().zip(&rows())) {
            assert_same(is, was, what);
        }
    }
}

#[test]
fn after_a_refutation_the_next_backup_is_whole_again() {
    let world = World::new();
    // Files younger than the walk's margin of doubt are read again once.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    world.backup();
    let objects = world.keys("objects").into_iter().map(|key| world.path("vault").join(key));
    let largest = objects.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    world.expect(21, &["drill", "--identity", "identity.txt"]);

    let mended = world.backup();
    world.expect(0, &["restore", &mended, "--to", "out", "--identity", "identity.txt"]);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    let again = world.json(0, &["backup"]);
    assert_eq!(again["runs"][0]["backup"]["new_segments"], 0, "one full backup is enough: {again}");
}
