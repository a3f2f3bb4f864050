//! Programs of the user's around a backup: when they run, what they are told, and what comes of one that fails.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::World;

/// A world whose hooks write their environment into files named after them, below `said`, and then run `more` of theirs.
fn world(before: &str, after: &str, more: &str) -> World {
    let world = World::new();
    let mut config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let said = world.path("said");
    fs::create_dir(&said).unwrap();
    let hook = |key: &str, then: &str| {
        let line = format!("env | grep ^LIFEBOAT_ | sort > {}/{key}; {then}", said.display());
        format!("{key} = [\"sh\", \"-c\", {line:?}]\n")
    };
    config.push_str("[job.shop.hooks]\n");
    config.push_str(&hook("before", before));
    config.push_str(&hook("after", after));
    config.push_str(&hook("on_failure", "true"));
    config.push_str(more);
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    world
}

/// What a hook was told, and forgets it; `None` where it did not run.
fn told(world: &World, hook: &str) -> Option<String> {
    let path = world.path("said").join(hook);
    let text = fs::read_to_string(&path).ok()?;
    fs::remove_file(path).unwrap();
    Some(text)
}

#[test]
fn they_are_told_how_it_went() {
    let world = world("true", "true", "");
    let run = &world.json(0, &["backup"])["runs"][0];
    let id = run["backup"]["id"].as_str().unwrap().to_owned();
    let before = told(&world, "before").unwrap();
    assert_eq!(before, "LIFEBOAT_HOOK=before\nLIFEBOAT_JOB=shop\nLIFEBOAT_OPERATION=backup\n");
    let after = told(&world, "after").unwrap();
    for line in [
        "LIFEBOAT_HOOK=after".to_owned(),
        "LIFEBOAT_OUTCOME=success".to_owned(),
        "LIFEBOAT_ERRORS=0".to_owned(),
        format!("LIFEBOAT_BACKUP={id}"),
        format!("LIFEBOAT_NEW_BYTES={}", run["backup"]["new_bytes"]),
        format!("LIFEBOAT_LOGICAL_BYTES={}", run["backup"]["logical_bytes"]),
    ] {
        assert!(after.lines().any(|said| said == line), "{line} is not in\n{after}");
    }
    assert!(after.contains("LIFEBOAT_RECOVERY_POINT=20") && !after.contains("LIFEBOAT_ERROR_CODE"), "{after}");
    assert_eq!(told(&world, "on_failure"), None);
}

#[test]
fn without_before_there_is_no_backup() {
    let world = world("echo the database does not answer >&2; exit 7", "true", "");
    let said = world.expect(1, &["backup"]);
    for words in
        ["FAILED", "`before` of shop", "exit status: 7", "the database does not answer", "hook-failed", "hint:"]
    {
        assert!(said.stderr.contains(words), "{words} is not in\n{}", said.stderr);
    }
    let after = told(&world, "after").expect("what `before` had begun must be undone");
    assert!(after.contains("LIFEBOAT_OUTCOME=failed") && !after.contains("LIFEBOAT_BACKUP="), "{after}");
    let failure = told(&world, "on_failure").unwrap();
    assert!(failure.contains("LIFEBOAT_ERROR_CODE=hook-failed") && failure.contains("LIFEBOAT_ERRORS=1"), "{failure}");
    assert_eq!(world.json(0, &["list", "shop"])["backups"].as_array().unwrap().len(), 0);
    let status = world.run(&["status"]);
    assert!(status.stdout.contains("failed"), "{}", status.stdout);
}

#[test]
fn a_failed_after_leaves_the_backup_and_is_no_success() {
    let world = world("true", "exit 1", "");
    let document = world.json(1, &["backup"]);
    let run = &document["runs"][0];
    assert_eq!(run["outcome"], "success");
    assert!(run["errors"][0].as_str().unwrap().contains("the backup stands"), "{run}");
    assert!(told(&world, "on_failure").unwrap().contains("LIFEBOAT_ERROR_CODE=hook-failed"));
    assert_eq!(world.json(0, &["list", "shop"])["backups"].as_array().unwrap().len(), 1);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
}

#[test]
fn a_failed_run_tells_after_and_on_failure() {
    let world = world("true", "true", "");
    fs::remove_file(world.path("shop.db")).unwrap();
    let said = world.expect(1, &["backup"]);
    assert!(told(&world, "after").unwrap().contains("LIFEBOAT_OUTCOME=failed"), "{}", said.stderr);
    assert!(told(&world, "on_failure").unwrap().contains("LIFEBOAT_ERROR_CODE=source-"), "{}", said.stderr);

    fs::rename(world.path("vault"), world.path("elsewhere")).unwrap();
    world.expect(10, &["backup"]);
    assert_eq!(
        told(&world, "before"),
        Some("LIFEBOAT_HOOK=before\nLIFEBOAT_JOB=shop\nLIFEBOAT_OPERATION=backup\n".into())
    );
    assert!(told(&world, "on_failure").unwrap().contains("LIFEBOAT_ERROR_CODE=vault-missing"));
}

#[test]
fn one_that_hangs_is_killed_with_all_that_it_started() {
    let world = world("sleep 4711 & wait", "true", "timeout = \"1s\"\n");
    let said = world.expect(1, &["backup"]);
    assert!(said.stderr.contains("was killed after 1 s"), "{}", said.stderr);
    assert!(told(&world, "after").is_some());
}

#[test]
fn a_signal_ends_before_and_after_still_runs() {
    let world = world("echo begun; echo $$ > ../pid; sleep 4711", "true", "");
    let pid_file = world.path("pid");
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("../pid", pid_file.to_str().unwrap())).unwrap();
    let child = world.command(&["backup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::read_to_string(&pid_file).map_or(true, |text| !text.ends_with('\n')) {
        std::thread::yield_now();
    }
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(told(&world, "after").unwrap().contains("LIFEBOAT_ERROR_CODE=interrupted"));
}

#[test]
fn a_hook_without_a_program_is_no_config() {
    let world = World::new();
    let mut config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    config.push_str("[job.shop.hooks]\nbefore = []\nafter = \"true\"\n");
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    let said = world.expect(78, &["config", "check"]);
    assert!(said.stderr.contains("after"), "{}", said.stderr);
}
