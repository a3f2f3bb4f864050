//! What Prometheus is told: by promtool's judgement, by what the alerts and the dashboard are made of, and through a real
//! Prometheus (prometheus.rs).

mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;
use lifeboat::cli::args::Cli;
use lifeboat::evidence::metrics::series::Series;
use serde_json::Value;

use crate::documents::{Document, read};
use crate::support::{Said, World, said};

const RULES: &str = "schedules/prometheus/lifeboat.rules.yml";
const DASHBOARD: &str = "schedules/prometheus/lifeboat.dashboard.json";
const ALERT_TESTS: &str = "tests/it/metrics/alerts.test.yml";
const TEXTFILE: &str = "/var/lib/prometheus/node-exporter/lifeboat.prom";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn promtool(args: &[&str]) -> Said {
    said(Command::new("promtool").args(args).current_dir(env!("CARGO_MANIFEST_DIR")))
}

/// The world's job, and two more: one whose source is not there, and one that nobody ever ran.
fn good_and_bad() -> World {
    let world = World::new();
    let path = world.path("lifeboat.toml");
    let mut config = fs::read_to_string(&path).unwrap();
    for job in ["bad", "idle"] {
        config.push_str(&format!(
            "\n[job.{job}]\nschedule = \"0 * * * *\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
             objectives = {{ rpo = \"6h\" }}\n[job.{job}.source.files]\nkind = \"files\"\npaths = [\"not-there\"]\n"
        ));
    }
    fs::write(path, config).unwrap();
    world.expect(0, &["backup", "shop"]);
    world.expect(1, &["backup", "bad"]);
    world.expect(0, &["drill", "shop", "--identity", "identity.txt"]);
    world
}

/// Samples without the comments.
fn samples(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()).collect()
}

#[test]
fn promtool_has_nothing_to_say_of_what_is_told() {
    let world = good_and_bad();
    let text = world.expect(0, &["status", "--prometheus"]).stdout;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).trim()), (Some(0), ""), "{text}");

    let found = samples(&text);
    let is = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(is("lifeboat_last_run_success{job_name=\"shop\",operation=\"backup\"}"), Some("1"));
    assert_eq!(is("lifeboat_last_run_success{job_name=\"shop\",operation=\"drill\"}"), Some("1"));
    assert_eq!(is("lifeboat_last_run_success{job_name=\"bad\",operation=\"backup\"}"), Some("0"));
    assert_eq!(is("lifeboat_last_run_success{job_name=\"idle\",operation=\"backup\"}"), None);
    assert_eq!(is("lifeboat_rpo_worst_seconds{job_name=\"bad\",window=\"7d\"}"), Some("+Inf"));
    assert_eq!(is("lifeboat_runs_total{job_name=\"bad\",operation=\"backup\",outcome=\"failed\"}"), Some("1"));
    assert_eq!(is("lifeboat_backups{job_name=\"shop\"}"), Some("1"));
    assert_eq!(is("lifeboat_audit_chain_ok{job_name=\"shop\"}"), Some("1"));
    let stored: u64 = world.keys("").iter().map(|key| fs::metadata(world.path("vault").join(key)).unwrap().len()).sum();
    assert_eq!(is("lifeboat_vault_stored_bytes{vault=\"main\"}"), Some(&*stored.to_string()));
    // Half of what there is to tell comes of a drill.
    assert!(found.keys().any(|name| name.starts_with("lifeboat_drill_phase_duration_seconds{")), "{text}");
}

#[test]
fn a_textfile_is_whole_and_for_all_to_read() {
    let world = World::new();
    world.backup();
    fs::create_dir(world.path("textfiles")).unwrap();
    let write = || {
        let status = "umask 077; exec \"$0\" status --prometheus --output textfiles/lifeboat.prom";
        let mut sh = Command::new("sh");
        sh.args(["-c", status, crate::support::PROGRAM]).current_dir(world.path(""));
        let said = said(&mut sh);
        assert_eq!(
            (said.code, said.stdout.as_str(), said.stderr.as_str()),
            (Some(0), "", ""),
            "cron mails what is said"
        );
    };
    write();
    write();
    let files: Vec<_> = fs::read_dir(world.path("textfiles")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["lifeboat.prom"], "nothing half-made is left");
    let path = world.path("textfiles/lifeboat.prom");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    let without_time = |text: &str| {
        let mut samples = samples(text);
        samples.retain(|name, _| !name.contains("export_timestamp") && !name.contains("rpo_"));
        samples
    };
    let told = world.expect(0, &["status", "--prometheus"]).stdout;
    assert_eq!(without_time(&fs::read_to_string(&path).unwrap()), without_time(&told));

    // What cannot be written leaves what was there.
    let before = fs::read(&path).unwrap();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("[job.shop]", "[job.shop]\nnonsense = 1")).unwrap();
    world.expect(78, &["status", "--prometheus", "--output", "textfiles/lifeboat.prom"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    let nowhere = world.expect(1, &["status", "--prometheus", "--output", "nowhere/lifeboat.prom"]);
    assert!(nowhere.stderr.contains("cannot write the metrics to nowhere/lifeboat.prom"), "{}", nowhere.stderr);
    world.expect(2, &["status", "--output", "textfiles/lifeboat.prom"]);
    world.expect(2, &["status", "--prometheus", "--nagios"]);
    world.expect(2, &["status", "--prometheus", "--json"]);
}

#[test]
fn a_vault_that_is_away_and_a_job_that_is_removed() {
    let world = good_and_bad();
    let told = |world: &World| samples(&world.expect(0, &["status", "--prometheus"]).stdout);
    let here = told(&world);
    fs::rename(world.path("vault"), world.path("away")).unwrap();
    let away = told(&world);
    assert_eq!(away["lifeboat_vault_reachable{vault=\"main\"}"], "0");
    assert!(!away.keys().any(|name| name.starts_with("lifeboat_vault_stored_bytes")), "{away:?}");
    let point = "lifeboat_recovery_point_timestamp_seconds{job_name=\"shop\"}";
    assert_eq!(away[point], here[point], "it is remembered");
    assert!(!away.contains_key("lifeboat_audit_chain_ok{job_name=\"shop\"}"));

    // A host that never opened it remembers nothing, and says so much.
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let state = config.lines().find(|line| line.starts_with("state_dir")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace(state, "state_dir = \"new-state\"")).unwrap();
    let new = told(&world);
    assert_eq!(new["lifeboat_vault_reachable{vault=\"main\"}"], "0");
    assert_eq!(new["lifeboat_job_info{job_name=\"shop\",vault=\"main\"}"], "1");
    assert_eq!(new["lifeboat_objective_rpo_seconds{job_name=\"bad\"}"], "21600");
    assert!(!new.keys().any(|name| name.starts_with("lifeboat_runs_total")), "{new:?}");

    fs::rename(world.path("away"), world.path("vault")).unwrap();
    let only_shop = &config[..config.find("\n[job.bad]").unwrap()];
    fs::write(world.path("lifeboat.toml"), only_shop).unwrap();
    let text = world.expect(0, &["status", "--prometheus"]).stdout;
    assert!(text.contains("job_name=\"shop\"") && !text.contains("\"bad\"") && !text.contains("\"idle\""), "{text}");
}

/// The series that expressions name, with the labels that they ask of each. Prometheus would not mind a name that is none.
#[track_caller]
fn all_are_told(expressions: &[String]) -> BTreeSet<&'static str> {
    let mut named = BTreeSet::new();
    for expression in expressions {
        for at in expression.match_indices("lifeboat_").map(|(at, _)| at) {
            let rest = &expression[at..];
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let definition = Series::ALL.iter().map(|series| series.definition()).find(|series| series.name == name);
            let definition = definition.unwrap_or_else(|| panic!("there is no {name}: {expression}"));
            named.insert(definition.name);
            let Some(selectors) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
            for selector in selectors.0.split(',').filter(|selector| !selector.is_empty()) {
                let label = selector.split(['=', '!']).next().unwrap();
                assert!(definition.labels.contains(&label), "{name} has no {label}: {expression}");
            }
        }
    }
    named
}

/// By alert: everything that stands below it, as lines.
fn alerts(rules: &str) -> BTreeMap<String, Vec<String>> {
    let mut alerts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in rules.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) = line.trim_start().strip_prefix("- alert: ") {
            current = Some(name.to_owned());
        } else if let Some(name) = &current {
            alerts.entry(name.clone()).or_default().push(line.trim().to_owned());
        }
    }
    alerts
}

#[test]
fn every_alert_can_be_read_and_says_what_to_do() {
    let checked = promtool(&["check", "rules", RULES]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let rules = read(RULES);
    let alerts = alerts(&rules);
    assert_eq!(alerts.len(), rules.matches("- alert:").count(), "no name twice");
    let page = read("docs/METRICS.md");
    assert_eq!(page.matches("| `Lifeboat").count(), alerts.len(), "none that is no more");
    for (name, lines) in &alerts {
        let one = |start: &str| {
            let found: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(start)).collect();
            assert_eq!(found.len(), 1, "{name}: {start}");
            found[0]
        };
        assert!(["critical", "warning"].contains(&one("severity: ")), "{name}");
        let summary = one("summary: ");
        assert!(summary.ends_with(".'") || summary.ends_with("?'"), "{name} says a sentence: {summary}");
        let runbook = one("runbook_url: ");
        assert!(runbook.starts_with("runbooks/") && project(runbook).is_file(), "{name}: {runbook}");
        let row = format!("| `{name}` | {} | ", one("severity: "));
        let written = page.lines().find(|line| line.starts_with(&row));
        assert!(written.is_some_and(|line| line.contains(&format!("(../{runbook})"))), "docs/METRICS.md has {row}");
    }
    let expressions: Vec<String> = alerts.values().map(|lines| lines.join("\n")).collect();
    all_are_told(&expressions);
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let tested = promtool(&["test", "rules", ALERT_TESTS]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    // promtool does not mind an alert that no test names.
    let text = read(ALERT_TESTS);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for name in alerts(&read(RULES)).keys() {
        let at = lines.iter().enumerate().filter(|(_, line)| **line == format!("alertname: {name}"));
        let expected: Vec<&str> = at.map(|(at, _)| lines[at + 1]).collect();
        assert!(expected.contains(&"exp_alerts:"), "{name} fires in no test");
        assert!(expected.contains(&"exp_alerts: []"), "{name} is silent in no test");
    }
    let series: Vec<String> =
        lines.iter().filter_map(|line| line.strip_prefix("- series: ")).map(no_instance).collect();
    all_are_told(&series);
}

/// The scraper's own label is none of ours.
fn no_instance(series: &str) -> String {
    series.replace("instance=\"a\",", "").replace("instance=\"b\",", "").replace("instance=\"a\"", "")
}

/// The expressions of the dashboard, by the title of their panel.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        panel["targets"].as_array().unwrap().iter().map(move |target| (title.clone(), target))
    });
    targets.map(|(title, target)| (title, target["expr"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = read(DASHBOARD);
    let whole: Value = serde_json::from_str(&text).unwrap();
    let panels = whole["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let expressions = dashboard();
    assert!(expressions.len() > 20, "{expressions:?}");
    // A file of rules is YAML, and so is JSON.
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, (_, expr))| serde_json::json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    let world = World::empty();
    let file = world.path("panels.yml");
    fs::write(&file, serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] }).to_string()).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let expressions: Vec<String> = expressions.into_iter().map(|(_, expr)| expr).collect();
    let named = all_are_told(&expressions);
    assert!(named.contains("lifeboat_recovery_point_timestamp_seconds") && named.len() > 15, "{named:?}");
    let variable = whole["templating"]["list"][1]["definition"].as_str().unwrap();
    assert_eq!(variable, "label_values(lifeboat_job_info, job_name)");
}

#[test]
fn the_timer_and_the_cron_line_write_the_textfile() {
    let folder = "schedules/prometheus/lifeboat-metrics";
    let (service, timer, cron) =
        (read(&format!("{folder}.service")), read(&format!("{folder}.timer")), read(&format!("{folder}.cron")));
    let started: Vec<&str> = service.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let lines = cron.lines().filter(|line| !line.starts_with('#') && !line.split(' ').next().unwrap().contains('='));
    let typed: Vec<&str> = lines.map(|line| line.split_once(" root ").unwrap().1).collect();
    assert_eq!((started.len(), typed.len()), (1, 1));
    assert_eq!(started[0].strip_prefix("/usr/local/bin/"), Some(typed[0]), "both do the same");
    assert!(typed[0].contains(TEXTFILE));
    Cli::try_parse_from(typed[0].split_whitespace()).unwrap_or_else(|error| panic!("{error}"));

    // The program of this machine stands where the installed one will.
    let world = World::empty();
    let (unit, when) = (world.path("lifeboat-metrics.service"), world.path("lifeboat-metrics.timer"));
    fs::write(&unit, service.replace("/usr/local/bin/lifeboat", crate::support::PROGRAM)).unwrap();
    fs::write(&when, timer).unwrap();
    let verified = said(Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&unit, &when]));
    assert_eq!((verified.code, verified.stderr.trim()), (Some(0), ""), "{}", verified.stdout);
    // In tenths.
    let rated = said(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=20"]).arg(&unit));
    assert_eq!(rated.code, Some(0), "{}{}", rated.stdout, rated.stderr);
}

#[test]
fn a_breached_rpo_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    let said = Document::open("runbooks/rpo-breached.md").rest(&world, &[]);
    assert!(said.contains("RPO"), "{said}");
}

#[test]
fn a_failed_backup_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    fs::rename(world.path("uploads"), world.path("away")).unwrap();
    let mut runbook = Document::open("runbooks/backup-failed.md");
    runbook.next(4, &world, &[]);
    fs::rename(world.path("away"), world.path("uploads")).unwrap();
    let said = runbook.rest(&world, &[]);
    assert!(!said.contains("the last backup run failed"), "{said}");
}

#[test]
fn silent_metrics_are_met_by_their_runbook() {
    let world = World::new();
    world.backup();
    let file = world.path("lifeboat.prom");
    let said = Document::open("runbooks/metrics-absent.md").rest(&world, &[(TEXTFILE, file.clone())]);
    assert!(said.contains("lifeboat_vault_reachable{vault=\"main\"} 1"), "{said}");
    assert!(fs::read_to_string(file).unwrap().contains("lifeboat_job_info"));
}
