//! What `schedule` prints: times that are right, crontab lines that are schedules and commands, units that systemd takes,
//! and timers that elapse when the schedule does, as systemd itself says.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use clap::Parser;
use lifeboat::cli::args::Cli;
use lifeboat::domain::schedule::Schedule;
use lifeboat::schedules::on_calendar;

use crate::documents::{files, read, repository};
use crate::support::{PROGRAM, World, said};

const CONFIG: &str = "/etc/lifeboat/lifeboat.toml";
const INSTALLED: &str = "/usr/local/bin/lifeboat";

/// What a command prints of an example, with the places that it is installed to.
fn printed(example: &str, args: &[&str]) -> String {
    let example = repository().join("schedules").join(example);
    let example = example.to_str().unwrap();
    let world = World::empty();
    let said = world.expect(0, &[&["schedule"], args, &["--config", example]].concat());
    said.stdout.replace(PROGRAM, INSTALLED).replace(example, CONFIG)
}

/// The files in what `schedule systemd` prints.
fn units(printed: &str) -> Vec<(String, String)> {
    let mut units: Vec<(String, String)> = Vec::new();
    for line in printed.lines() {
        let name =
            line.strip_prefix("# lifeboat").filter(|rest| rest.ends_with(".service") || rest.ends_with(".timer"));
        match (name, units.last_mut()) {
            (Some(rest), _) => units.push((format!("lifeboat{rest}"), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => panic!("{line}"),
        }
    }
    units.into_iter().map(|(name, text)| (name, format!("{}\n", text.trim_end()))).collect()
}

#[test]
fn the_list_says_each_time_on_both_clocks() {
    let world = World::new();
    let path = world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap().replace("\"15 */6 * * *\"", "\"30 2 * * *\"");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("timezone")).collect();
    fs::write(&path, format!("timezone = \"Asia/Kolkata\"\n{}", without.join("\n"))).unwrap();
    let list = world.json(0, &["schedule", "list", "--next", "4"]);
    assert_eq!(list["timezone"], "Asia/Kolkata");
    let rows = list["schedules"].as_array().unwrap();
    let backup = rows.iter().find(|row| row["operation"] == "backup").unwrap();
    let times = backup["next"].as_array().unwrap();
    assert_eq!(times.len(), 4);
    for time in times {
        let (at, local) = (time["at"].as_str().unwrap(), time["local"].as_str().unwrap());
        assert!(at.ends_with("T21:00:00Z") && local.ends_with("T02:30:00+05:30"), "{time}");
    }
    let said = world.expect(0, &["schedule", "list", "shop"]);
    assert!(said.stdout.contains("02:30 IST") && said.stdout.contains("21:00"), "{}", said.stdout);
    world.expect(2, &["schedule", "list", "nothing"]);
}

#[test]
fn the_shipped_files_are_what_is_printed() {
    let mut expected = units(&printed("small-saas.toml", &["systemd", "--daemon"]));
    expected.extend(units(&printed("small-saas.toml", &["systemd"])));
    expected.extend(units(&printed("drill-host.toml", &["systemd", "--only", "drill"])));
    expected.extend(units(&printed("files-only.toml", &["systemd", "--only", "prune"])));
    expected.push(("crontab".to_owned(), printed("files-only.toml", &["cron"])));
    for (name, text) in &expected {
        let path = Path::new("schedules").join(name);
        assert_eq!(&read(path.to_str().unwrap()), text, "{name}");
    }
    let shipped: Vec<_> = ["service", "timer"].into_iter().flat_map(|kind| files("schedules", kind)).collect();
    assert_eq!(shipped.len(), expected.len() - 1, "{shipped:?}");
}

#[test]
fn cron_lines_are_schedules_and_commands() {
    let mut lines = 0;
    for line in read("schedules/crontab").lines() {
        if line.starts_with('#') || line.split(' ').next().unwrap().contains('=') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        Schedule::parse(&words[..5].join(" ")).unwrap();
        assert_eq!(words[5], "root");
        Cli::try_parse_from(&words[6..]).unwrap_or_else(|error| panic!("{line}: {error}"));
        lines += 1;
    }
    assert_eq!(lines, 2);
}

#[test]
fn what_cron_cannot_say_is_said() {
    let example = repository().join("schedules/small-saas.toml");
    let example = example.to_str().unwrap();
    let world = World::empty();
    let said = world.expect(1, &["schedule", "cron", "--clock", "UTC", "--config", example]);
    assert!(said.stdout.contains("# backup of shop (15 */6 * * *) is not here: "), "{}", said.stdout);
    assert!(said.stderr.contains("not equally far apart"), "{}", said.stderr);
    let said = world.expect(0, &["schedule", "cron", "--clock", "Europe/Paris", "--config", example]);
    assert!(said.stdout.contains("\n15 */6 * * * root ") && !said.stdout.contains("CRON_TZ"), "{}", said.stdout);
    world.expect(2, &["schedule", "cron", "--clock", "Mars/Olympus", "--config", example]);
}

#[test]
fn systemd_accepts_the_units() {
    let world = World::empty();
    let mut copies = Vec::new();
    for unit in ["service", "timer"].into_iter().flat_map(|kind| files("schedules", kind)) {
        let text = fs::read_to_string(&unit).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let words = line.replace("%i", "shop");
            Cli::try_parse_from(words.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        // The program of this machine stands where the installed one will.
        let copy = world.path(unit.file_name().unwrap());
        fs::write(&copy, text.replace(INSTALLED, PROGRAM)).unwrap();
        copies.push(copy);
    }
    let verified = said(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&copies));
    assert_eq!((verified.code, verified.stderr.trim()), (Some(0), ""), "{}", verified.stdout);
    // 2.0 at most; a drill gives out users and namespaces, and has a unit of its own for it.
    let is_service = |copy: &&std::path::PathBuf| copy.extension().is_some_and(|kind| kind == "service");
    for copy in copies.iter().filter(is_service).filter(|copy| !copy.to_str().unwrap().contains("drill")) {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager", "--threshold=20"]).arg(copy);
        let exposure = said(&mut analyze);
        assert_eq!(exposure.code, Some(0), "{}\n{}", exposure.stdout, exposure.stderr);
    }
}

#[test]
fn secrets_of_systemd_are_loaded_by_it_and_told_to_cron() {
    let world = World::new();
    let path = world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    let database =
        "[job.shop.source.pg]\nkind = \"postgres\"\nurl = \"postgres://u@h/d\"\npassword = { credential = \"pg\" }\n";
    fs::write(&path, text.replace("[job.shop.drill]", &format!("{database}[job.shop.drill]"))).unwrap();
    let said = world.expect(0, &["schedule", "systemd", "--daemon", "--to", "."]);
    assert!(said.stderr.contains("/etc/credstore/pg"), "{}", said.stderr);
    let unit = fs::read_to_string(world.path("lifeboat.service")).unwrap();
    assert!(unit.contains("\nLoadCredential=pg:/etc/credstore/pg\n"), "{unit}");
    let said = world.expect(0, &["schedule", "cron"]);
    assert!(said.stdout.contains("# The credential pg is systemd's to give"), "{}", said.stdout);
}

/// Over two years with four clock changes, by systemd's own arithmetic.
#[test]
fn timers_elapse_when_the_schedule_does() {
    let base: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
    let end: DateTime<Utc> = "2028-12-01T00:00:00Z".parse().unwrap();
    for (text, zone) in [
        ("30 2 * * *", Tz::Europe__Berlin),
        ("15 */6 * * *", Tz::Europe__Berlin),
        ("30 */2 * * *", Tz::America__New_York),
        ("0 2 * * SUN", Tz::Europe__London),
        ("20 1 28-31 * MON", Tz::Europe__London),
        ("15 2 * * *", Tz::Australia__Lord_Howe),
        ("40 * * * *", Tz::Asia__Kolkata),
        ("0 5 1 */3 *", Tz::Pacific__Auckland),
    ] {
        let schedule = Schedule::parse(text).unwrap();
        let expected: Vec<DateTime<Utc>> =
            std::iter::successors(schedule.next_after(base, zone), |run| schedule.next_after(*run, zone))
                .take_while(|run| *run < end)
                .collect();
        let mut elapses = std::collections::BTreeSet::new();
        for line in on_calendar(&schedule, zone, base) {
            elapses.extend(elapses_of(&line, expected.len() + 1).into_iter().filter(|at| *at > base && *at < end));
        }
        assert_eq!(elapses.into_iter().collect::<Vec<_>>(), expected, "{text} in {zone}");
    }
}

fn elapses_of(line: &str, count: usize) -> Vec<DateTime<Utc>> {
    let mut analyze = Command::new("systemd-analyze");
    analyze.env("TZ", "UTC").args([
        "calendar",
        "--base-time=2026-12-01 00:00:00 UTC",
        &format!("--iterations={count}"),
        line,
    ]);
    let said = said(&mut analyze);
    assert_eq!(said.code, Some(0), "{line}: {}", said.stderr);
    let of_line = |line: &str| {
        let text = line.split_once(": ")?.1.trim();
        let time = text.strip_suffix(" UTC")?.split_once(' ')?.1.to_owned();
        NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S").ok().map(|time| time.and_utc())
    };
    let elapse = |line: &&str| line.contains("Next elapse") || line.contains("Iter. #") || line.contains("Iteration #");
    said.stdout.lines().filter(elapse).filter_map(of_line).collect()
}
