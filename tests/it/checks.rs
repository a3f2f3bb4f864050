//! A check leaves a record: what it says, to whom, and what becomes of it where it may not be written.

use std::fs;

use serde_json::Value;

use crate::erasing::damage;
use crate::hosts::two_known_hosts;
use crate::support::World;

/// The last check of the only job, as `status` tells of it.
fn last_check(world: &World) -> Value {
    world.json(0, &["status"])["jobs"][0]["last_check"].clone()
}

/// The signed records, oldest first.
fn records(world: &World) -> Vec<Value> {
    let keys = world.keys("records/checks").into_iter().filter(|key| key.ends_with(".json"));
    keys.map(|key| serde_json::from_slice(&fs::read(world.path("vault").join(key)).unwrap()).unwrap()).collect()
}

#[test]
fn a_check_is_on_record_whatever_it_found() {
    let world = World::new();
    world.backup();
    assert_eq!(last_check(&world), Value::Null);
    assert!(world.expect(0, &["report"]).stdout.contains("No check is on record"));

    let check = world.json(0, &["check", "--read-data=50", "--identity", "identity.txt"]);
    assert_eq!((&check["on_record"], &check["not_on_record"]), (&serde_json::json!(["shop"]), &Value::Array(vec![])));
    let sound = last_check(&world);
    for (field, value) in [
        ("outcome", "sound".into()),
        ("read_data_percent", 50.into()),
        ("damaged", 0.into()),
        ("error_code", Value::Null),
        ("whole_vault", true.into()),
        ("backups", check["backups"].clone()),
        ("objects", check["objects"].clone()),
        ("bytes", check["checked_bytes"].clone()),
        ("opened_segments", check["opened_segments"].clone()),
    ] {
        assert_eq!(sound[field], value, "{field}: {sound} {check}");
    }
    assert_eq!(records(&world).len(), 1);

    damage(&world);
    let check = world.json(20, &["check", "shop"]);
    assert_eq!(check["on_record"], serde_json::json!(["shop"]), "{check}");
    let damaged = last_check(&world);
    assert_eq!((&damaged["outcome"], &damaged["damaged"]), (&"damaged".into(), &1.into()), "{damaged}");
    assert_eq!((&damaged["error_code"], &damaged["whole_vault"]), (&"object-damaged".into(), &false.into()));
    assert_eq!(damaged["read_data_percent"], Value::Null);
    let said = world.expect(0, &["status"]).stdout;
    assert!(said.contains("the last check") && said.contains("found 1 thing damaged (object-damaged)"), "{said}");

    // The vault remembers it for whoever remembers nothing.
    world.expect(0, &["catalog", "rebuild"]);
    assert_eq!(last_check(&world), damaged);
    let report = world.json(0, &["report"])["jobs"][0].clone();
    let outcomes: Vec<&Value> = report["checks"].as_array().unwrap().iter().map(|check| &check["outcome"]).collect();
    assert_eq!(outcomes, ["sound", "damaged"], "{report}");
    assert!(report["deviations"].to_string().contains("the check found 1 thing that is not what it was"), "{report}");
    assert!(!report["not_claimed"].to_string().contains("No check is on record"), "{report}");
    let markdown = world.expect(0, &["report"]).stdout;
    assert!(markdown.contains("### Checks") && markdown.contains("damaged (object-damaged)"), "{markdown}");
    let metrics = world.expect(0, &["status", "--prometheus"]).stdout;
    for line in [
        "lifeboat_last_run_success{job_name=\"shop\",operation=\"check\"} 0",
        "lifeboat_runs_total{job_name=\"shop\",operation=\"check\",outcome=\"sound\"} 1",
        "lifeboat_runs_total{job_name=\"shop\",operation=\"check\",outcome=\"damaged\"} 1",
        "lifeboat_runs_total{job_name=\"shop\",operation=\"check\",outcome=\"failed\"} 0",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
    }
}

#[test]
fn a_check_that_is_not_on_record_counts_all_the_same_and_says_so() {
    let world = World::new();
    world.backup();
    let (key, away) = (world.path("state/host.key"), world.path("host.key.away"));
    fs::rename(&key, &away).unwrap();
    let said = world.expect(0, &["check"]);
    assert!(
        said.stderr.contains("note: this check of shop is not on record in the vault: this host has no key"),
        "{said:?}"
    );
    assert_eq!(said.stderr.matches("not on record").count(), 1, "{}", said.stderr);
    assert!(!world.expect(0, &["check", "--quiet"]).stderr.contains("not on record"));
    fs::rename(&away, &key).unwrap();
    damage(&world);
    fs::rename(&key, &away).unwrap();
    let check = world.json(20, &["check"]);
    assert_eq!((&check["outcome"], &check["on_record"]), (&"failed".into(), &Value::Array(vec![])), "{check}");
    assert_eq!(check["not_on_record"][0]["code"], "key-missing", "{check}");
    assert_eq!(check["not_on_record"][0]["jobs"], serde_json::json!(["shop"]), "{check}");
    assert_eq!((records(&world).len(), last_check(&world)), (0, Value::Null));

    // A bare host has a vault and an identity, and nothing that anybody would believe.
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let trust =
        config.lines().find_map(|line| line.strip_prefix("trust      = \"")).unwrap().split('"').next().unwrap();
    fs::rename(world.path("lifeboat.toml"), world.path("away.toml")).unwrap();
    let vault = world.path("vault");
    let bare = world.json(20, &["check", "--vault", vault.to_str().unwrap(), "--trust", trust]);
    assert_eq!(bare["not_on_record"][0]["code"], "config-missing", "{bare}");
    assert_eq!(records(&world).len(), 0);
}

#[test]
fn each_host_records_its_own_jobs() {
    let world = two_known_hosts();
    world.backup();
    let check = world.json(0, &["check"]);
    assert_eq!(check["on_record"], serde_json::json!(["shop"]), "{check}");
    let of = |record: &Value| (record["job"].as_str().unwrap().to_owned(), record["host"].as_str().unwrap().to_owned());
    let jobs: Vec<_> = records(&world).iter().map(of).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].0, "shop");
}

#[test]
fn a_killed_check_is_put_on_record_by_the_next() {
    let world = World::new();
    world.backup();
    let began = "2026-11-22T08:15:00.250Z";
    fs::create_dir_all(world.path("state/locks")).unwrap();
    fs::write(world.path("state/locks/shop.check.begun"), format!("{began}\n")).unwrap();
    let said = world.expect(0, &["check"]);
    assert!(
        said.stderr.contains("the check of shop that began at 2026-11-22 08:15:00 UTC never ended"),
        "{}",
        said.stderr
    );
    assert!(!world.path("state/locks/shop.check.begun").exists());
    let outcomes: Vec<(Value, Value)> =
        records(&world).iter().map(|record| (record["outcome"].clone(), record["error_code"].clone())).collect();
    assert!(outcomes.contains(&("failed".into(), "killed".into())) && outcomes.len() == 2, "{outcomes:?}");
    assert!(!world.expect(0, &["check"]).stderr.contains("never ended"));
}
