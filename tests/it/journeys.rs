//! Whole journeys on undamaged data: what was backed up comes back.

use std::process::Command;

use crate::support::World;

/// Compares two trees by content with the stock tool.
#[track_caller]
fn assert_same(one: &std::path::Path, other: &std::path::Path) {
    let out = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_was_backed_up_comes_back() {
    let world = World::new();
    world.backup();
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    assert_same(&world.path("uploads"), &world.path("out/uploads").join(below_root));
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
