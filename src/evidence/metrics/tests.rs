//! What is told of good jobs, bad jobs and unknown ones, and that the page about it says the same.

use chrono::TimeDelta;

use super::series::{Definition, Kind};
use super::*;
use crate::domain::objectives::Objectives;
use crate::domain::record::{Phase, SequenceRange};
use crate::evidence::facts::{Unbelieved, Unopened};
use crate::evidence::samples::*;

const PAGE: &str = include_str!("../../../docs/METRICS.md");

fn gathered(jobs: Vec<JobFacts>) -> Gathered {
    let vaults = vec![VaultFacts { name: "main".to_owned(), stored_bytes: Some(123), ..VaultFacts::default() }];
    Gathered { jobs, vaults, ..Gathered::default() }
}

fn of(facts: JobFacts) -> String {
    metrics(&gathered(vec![facts]), None, now())
}

/// The value of a sample, by the beginning of its line: name and labels.
#[track_caller]
fn value<'a>(text: &'a str, sample: &str) -> Option<&'a str> {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let first = found.next();
    assert_eq!(found.next(), None, "{sample} is there twice\n{text}");
    first
}

fn named(facts: JobFacts, name: &str) -> JobFacts {
    JobFacts { job: name.parse().unwrap(), ..facts }
}

/// One with everything that there is a series for.
fn full() -> (Gathered, DaemonFacts) {
    let mut facts = erasing_with_findings();
    facts.next_prune = Some(now() + TimeDelta::hours(1));
    let mut daemon = DaemonFacts::default();
    let shop: JobName = "shop".parse().unwrap();
    daemon.next.insert((shop.clone(), "drill".to_owned()), now() + TimeDelta::minutes(7));
    daemon.skipped.insert((shop, "backup".to_owned(), "overlap".to_owned()), 2);
    daemon.notify_failures.insert("ops".to_owned(), 3);
    (gathered(vec![facts]), daemon)
}

#[test]
fn a_healthy_job_reads_like_this() {
    insta::with_settings!({filters => vec![(env!("CARGO_PKG_VERSION"), "[VERSION]")]}, {
        insta::assert_snapshot!(of(healthy()));
    });
}

#[test]
fn everything_is_told_where_everything_is_known() {
    let (gathered, daemon) = full();
    let text = metrics(&gathered, Some(&daemon), now());
    for series in Series::ALL {
        let name = series.definition().name;
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}\n{text}");
    }
    assert_eq!(text, metrics(&gathered, Some(&daemon), now()));
    let skipped = "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"overlap\"}";
    assert_eq!(value(&text, skipped), Some("2"));
    let drill = "lifeboat_schedule_next_timestamp_seconds{job_name=\"shop\",operation=\"drill\"}";
    let next = |moment: DateTime<Utc>| moment.timestamp().to_string();
    assert_eq!(value(&text, drill), Some(&*next(now() + TimeDelta::minutes(7))), "the daemon knows better");
    let without = metrics(&gathered, None, now());
    assert_eq!(value(&without, drill), Some(&*next(now() + TimeDelta::hours(14))));
    assert_eq!(value(&text, "lifeboat_notify_failures_total{channel=\"ops\"}"), Some("3"));
    assert_eq!(value(&text, "lifeboat_last_run_success{job_name=\"shop\",operation=\"prune\"}"), Some("0"));
    assert_eq!(
        value(&text, "lifeboat_runs_total{job_name=\"shop\",operation=\"prune\",outcome=\"stopped\"}"),
        Some("1")
    );
    assert_eq!(value(&text, "lifeboat_last_run_success{job_name=\"shop\",operation=\"check\"}"), Some("0"));
    let ended = now() - TimeDelta::hours(4);
    let check = "lifeboat_last_run_timestamp_seconds{job_name=\"shop\",operation=\"check\"}";
    assert_eq!(value(&text, check), Some(&*next(ended)));
    for (outcome, count) in [("sound", "1"), ("damaged", "1"), ("failed", "0")] {
        let runs = format!("lifeboat_runs_total{{job_name=\"shop\",operation=\"check\",outcome=\"{outcome}\"}}");
        assert_eq!(value(&text, &runs), Some(count));
    }
    // The first that has not gone is the third: removed seven hours ago, and not proven gone.
    let third = gathered.jobs[0].backups[2].recovery_point;
    let text_of = |moment: DateTime<Utc>| moment.timestamp().to_string();
    let (planned, deadline) = (third + TimeDelta::hours(48), third + TimeDelta::hours(72));
    assert_eq!(
        value(&text, "lifeboat_oldest_retained_byte_timestamp_seconds{job_name=\"shop\"}"),
        Some(&*text_of(third))
    );
    assert_eq!(value(&text, "lifeboat_erasure_planned_timestamp_seconds{job_name=\"shop\"}"), Some(&*text_of(planned)));
    assert_eq!(
        value(&text, "lifeboat_erasure_deadline_timestamp_seconds{job_name=\"shop\"}"),
        Some(&*text_of(deadline))
    );
}

#[test]
fn a_job_of_which_nothing_is_known_has_no_figures() {
    let mut facts = healthy();
    facts.backups.clear();
    facts.runs.clear();
    facts.drills.clear();
    let text = of(facts);
    let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE lifeboat_")).collect();
    let expected = [
        "build_info gauge",
        "export_timestamp_seconds gauge",
        "job_info gauge",
        "objective_rpo_seconds gauge",
        "objective_rto_seconds gauge",
        "runs_total counter",
        "backups gauge",
        "vault_reachable gauge",
        "vault_stored_bytes gauge",
        "schedule_interval_seconds gauge",
        "schedule_next_timestamp_seconds gauge",
        "audit_chain_ok gauge",
    ];
    assert_eq!(told, expected);
    assert_eq!(
        value(&text, "lifeboat_runs_total{job_name=\"shop\",operation=\"backup\",outcome=\"success\"}"),
        Some("0")
    );
}

#[test]
fn what_cannot_be_restored_from_is_unbounded_and_not_zero() {
    let mut facts = healthy();
    facts.backups.clear();
    facts.runs = vec![failed_run(before_now(hours(2)))];
    let text = of(facts);
    assert_eq!(value(&text, "lifeboat_recovery_point_timestamp_seconds{job_name=\"shop\"}"), None);
    for window in ["1d", "7d", "30d"] {
        for series in ["rpo_worst", "rpo_proven_worst"] {
            let sample = format!("lifeboat_{series}_seconds{{job_name=\"shop\",window=\"{window}\"}}");
            assert_eq!(value(&text, &sample), Some("+Inf"));
        }
    }
    assert_eq!(value(&text, "lifeboat_last_run_success{job_name=\"shop\",operation=\"backup\"}"), Some("0"));
    assert_eq!(value(&text, "lifeboat_backup_last_success_timestamp_seconds{job_name=\"shop\"}"), None);
}

#[test]
fn the_windows_differ() {
    let mut facts = healthy();
    // Two days without a backup, five days ago.
    let old = backup(99, before_now(hours(24 * 5)));
    facts.backups.insert(0, old);
    let text = of(facts);
    let worst = |window| value(&text, &format!("lifeboat_rpo_worst_seconds{{job_name=\"shop\",window=\"{window}\"}}"));
    // Available a minute after the snapshot, each six hours; the gap ends 69 hours ago.
    assert_eq!(worst("1d"), Some("21660"));
    assert_eq!((worst("7d"), worst("30d")), (Some("183660"), Some("183660")));
}

#[test]
fn a_partial_backup_is_no_success_and_says_what_it_lacks() {
    let mut facts = healthy();
    let last = facts.backups.last_mut().unwrap();
    last.summary.completeness = Completeness::Partial;
    last.summary.sources[0].notes.insert(NoteClass::Unreadable, 7);
    facts.runs.last_mut().unwrap().run.outcome = RunOutcome::Partial;
    let before = unix_seconds(facts.runs[facts.runs.len() - 2].run.finished).to_string();
    let text = of(facts);
    assert_eq!(value(&text, "lifeboat_last_run_success{job_name=\"shop\",operation=\"backup\"}"), Some("0"));
    assert_eq!(value(&text, "lifeboat_backup_last_errors{job_name=\"shop\",class=\"unreadable\"}"), Some("7"));
    assert_eq!(value(&text, "lifeboat_backup_last_success_timestamp_seconds{job_name=\"shop\"}"), Some(&*before));
}

#[test]
fn a_failed_drill_has_phases_and_no_time() {
    let mut facts = healthy();
    facts.drills[0].drill.phases.push(Phase { name: "check".to_owned(), seconds: 1.0 });
    let phase = "lifeboat_drill_phase_duration_seconds{job_name=\"shop\",phase=\"check\"}";
    let text = of(facts.clone());
    assert_eq!(value(&text, "lifeboat_drill_last_duration_seconds{job_name=\"shop\"}"), Some("12.3"));
    assert_eq!(value(&text, phase), Some("5.1"), "one that came twice is added up");
    fail_last_drill(&mut facts);
    let text = of(facts);
    assert_eq!(value(&text, "lifeboat_drill_last_duration_seconds{job_name=\"shop\"}"), None);
    assert_eq!(value(&text, "lifeboat_drill_last_success_timestamp_seconds{job_name=\"shop\"}"), None);
    assert_eq!(value(&text, phase), Some("5.1"));
    assert_eq!(value(&text, "lifeboat_drill_checks{job_name=\"shop\",result=\"failed\"}"), Some("1"));
}

#[test]
fn the_chain_is_whole_or_not_or_nobody_could_look() {
    type Trouble = fn(&mut JobFacts);
    let troubles: [(Trouble, Option<&str>); 7] = [
        (|_| {}, Some("1")),
        (|f| f.gaps.push(SequenceRange { first: 2, last: 3 }), Some("0")),
        (|f| f.hidden = Some(crate::evidence::facts::Hidden { there: 12, seen: 14 }), Some("0")),
        (|f| f.chain_breaks = 1, Some("0")),
        (|f| f.witness = Witness::Lacks(vec![f.backups[0].id.clone()]), Some("0")),
        (
            |f| {
                let backup = f.backups[0].id.clone();
                f.unbelieved.push(Unbelieved { backup, why: "its signature is missing".to_owned() });
            },
            Some("0"),
        ),
        (|f| f.witness = Witness::Silent("gone".to_owned()), None),
    ];
    for (trouble, expected) in troubles {
        let mut facts = healthy();
        trouble(&mut facts);
        assert_eq!(value(&of(facts), "lifeboat_audit_chain_ok{job_name=\"shop\"}"), expected);
    }
}

#[test]
fn a_vault_that_cannot_be_reached_is_told() {
    let mut silent = gathered(vec![healthy()]);
    silent.vaults[0].silent = Some("cannot list /srv/backups".to_owned());
    silent.vaults[0].stored_bytes = None;
    silent.unopened.push(Unopened {
        job: "blog".parse().unwrap(),
        vault: "never".to_owned(),
        objectives: Objectives { rpo: Some(hours(1)), rto: None },
        why: "there is no vault".to_owned(),
    });
    let text = metrics(&silent, None, now());
    assert_eq!(value(&text, "lifeboat_vault_reachable{vault=\"main\"}"), Some("0"));
    assert_eq!(value(&text, "lifeboat_vault_reachable{vault=\"never\"}"), Some("0"));
    assert_eq!(value(&text, "lifeboat_vault_stored_bytes{vault=\"main\"}"), None);
    assert_eq!(value(&text, "lifeboat_job_info{job_name=\"blog\",vault=\"never\"}"), Some("1"));
    assert_eq!(value(&text, "lifeboat_objective_rpo_seconds{job_name=\"blog\"}"), Some("3600"));
    assert!(!text.contains("/srv/backups") && !text.contains("there is no vault"), "{text}");
}

#[test]
fn only_the_jobs_of_the_config_are_told() {
    let mut two = gathered(vec![healthy(), named(healthy(), "blog")]);
    let (_, daemon) = full();
    assert!(metrics(&two, None, now()).contains("job_name=\"blog\""));
    two.jobs.remove(0);
    let text = metrics(&two, Some(&daemon), now());
    assert!(text.contains("job_name=\"blog\"") && !text.contains("job_name=\"shop\""), "{text}");
}

/// Ids would make a new series each time.
#[test]
fn no_label_holds_an_id() {
    let (gathered, daemon) = full();
    let text = metrics(&gathered, Some(&daemon), now());
    for facts in &gathered.jobs {
        for id in facts.backups.iter().map(|row| row.id.as_str()).chain([facts.vault.id.as_str()]) {
            assert!(!text.contains(id), "{id}");
        }
    }
}

#[test]
fn names_say_their_units() {
    for series in Series::ALL {
        let definition = series.definition();
        let name = definition.name;
        assert!(name.starts_with("lifeboat_"), "{name}");
        assert_eq!(name.ends_with("_total"), definition.kind == Kind::Counter, "{name}");
        assert!(!definition.labels.contains(&"job"), "{name}: it collides with the scraper's");
        assert!(definition.help.ends_with('.') && !definition.absent.ends_with('.'), "{name}");
        assert!(!definition.help.contains(['\\', '\n', '|']) && !definition.absent.contains('|'), "{name}");
        if name.contains("timestamp") {
            assert!(name.ends_with("_timestamp_seconds"), "{name}");
        }
    }
}

#[test]
fn the_page_has_this_table() {
    let mut table = String::from("| series | type | labels | what it says | left out where |\n|---|---|---|---|---|\n");
    for series in Series::ALL {
        let Definition { name, kind, labels, help, absent } = series.definition();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (labels, help) = (labels.join(", "), help.trim_end_matches('.'));
        table.push_str(&format!("| `{name}` | {} | {labels} | {help} | {absent} |\n", kind.word()));
    }
    assert!(PAGE.contains(&table), "docs/METRICS.md should have\n\n{table}");
}
