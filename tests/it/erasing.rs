//! Keeping and erasing, over weeks, with the finished program: libfaketime tells it what day it is.
//!
//! The file system dates what is written by the real clock. [`Timeline`] dates it anew after each run, as a store
//! would have; one test leaves that out.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use lifeboat::domain::ids::ObjectId;
use lifeboat::domain::manifest::Manifest;
use lifeboat::vault::layout::Key;
use lifeboat::vault::signing::sign;
use serde_json::Value;

use crate::by_hand::{assert_same, listing};
use crate::forge::Forge;
use crate::support::{PROGRAM, Said, World, noise, said};

/// A world in which every command is told when it is run.
pub(crate) struct Timeline {
    pub(crate) world: World,
    /// Whether what is written gets the program's time.
    dated: bool,
}

/// Days and a clock: `(3, "02:15")` is the fourth day's night.
pub(crate) type When = (i64, &'static str);

/// A Monday far ahead.
fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2040, 1, 2, 0, 0, 0).unwrap()
}

pub(crate) fn moment((day, clock): When) -> DateTime<Utc> {
    let (hours, minutes) = clock.split_once(':').unwrap();
    start()
        + TimeDelta::days(day)
        + TimeDelta::hours(hours.parse().unwrap())
        + TimeDelta::minutes(minutes.parse().unwrap())
}

/// What the dynamic linker is to load first.
pub(crate) fn libfaketime() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let out = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let out = out.expect("faketime is installed");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    })
}

impl Timeline {
    /// One job `shop`, backed up every night, with this retention; nothing is pruned unless a test does it.
    pub(crate) fn new(retention: &str) -> Self {
        let timeline = Self::pruned_by_backups(retention);
        timeline.edit("[job.shop.drill]", "[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]");
        timeline
    }

    /// The same, and every backup is followed by a prune.
    pub(crate) fn pruned_by_backups(retention: &str) -> Self {
        let world = World::in_memory();
        fs::write(world.path("uploads/deep/large.bin"), noise(300_000, 200)).unwrap();
        let timeline = Self::of(world);
        timeline.edit("keep_at_least = \"14d\", delete_after = \"30d\"", retention);
        timeline.edit("15 */6 * * *", "15 2 * * *");
        timeline.edit("rpo = \"24h\"", "rpo = \"26h\"");
        timeline
    }

    /// A world that is filled already.
    pub(crate) fn of(world: World) -> Self {
        Self { world, dated: true }
    }

    /// Changes the job in the config.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.world.path("lifeboat.toml");
        let text = fs::read_to_string(&path).unwrap();
        // The template has an example of its own, as a comment.
        let (head, job) = text.split_at(text.find("\n[job.shop]").unwrap());
        assert!(job.contains(from), "{job}");
        fs::write(path, format!("{head}{}", job.replacen(from, to, 1))).unwrap();
    }

    pub(crate) fn command(&self, when: When, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        in_time(&mut command, when);
        command
    }

    pub(crate) fn run(&self, when: When, args: &[&str]) -> Said {
        let said = said(&mut self.command(when, args));
        if self.dated {
            self.date(when);
        }
        said
    }

    /// Gives what was just written in the vault the time that it was written at.
    pub(crate) fn date(&self, when: When) {
        let now: SystemTime = moment(when).into();
        for key in self.world.keys("") {
            let file = fs::File::options().write(true).open(self.world.path("vault").join(key)).unwrap();
            if file.metadata().unwrap().modified().unwrap() < std::time::SystemTime::from(start()) {
                file.set_modified(now).unwrap();
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&self, code: i32, when: When, args: &[&str]) -> Said {
        let said = self.run(when, args);
        assert_eq!(said.code, Some(code), "{when:?} lifeboat {}\n{}\n{}", args.join(" "), said.stdout, said.stderr);
        said
    }

    #[track_caller]
    pub(crate) fn json(&self, code: i32, when: When, args: &[&str]) -> Value {
        let said = self.expect(code, when, &[args, &["--json"]].concat());
        serde_json::from_str(&said.stdout).unwrap_or_else(|cause| panic!("{cause}: {}", said.stdout))
    }

    /// Backs up something new in the night of a day, and gives the id.
    #[track_caller]
    pub(crate) fn backup(&self, day: i64) -> String {
        fs::write(self.world.path("uploads/daily"), noise(5_000, day as u8)).unwrap();
        let document = self.json(0, (day, "02:15"), &["backup"]);
        document["runs"][0]["backup"]["id"].as_str().unwrap().to_owned()
    }

    /// The ids of what is there, oldest first.
    #[track_caller]
    fn listed(&self, when: When) -> Vec<String> {
        ids(&self.json(0, when, &["list"])["backups"])
    }

    fn objects(&self) -> BTreeSet<String> {
        self.world.keys("objects").into_iter().chain(self.world.keys("lists")).collect()
    }

    /// Whether any object holds these bytes, opened with stock tools.
    fn holds(&self, wanted: &str) -> bool {
        const SCRIPT: &str = r#"
            set -euo pipefail
            for object in vault/objects/*/*; do age -d -i identity.txt "$object" | zstd -dcq; done
        "#;
        let out = Command::new("bash").args(["-c", SCRIPT]).current_dir(self.world.path("")).output().unwrap();
        assert!(out.status.success() && !out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout.windows(wanted.len()).any(|window| window == wanted.as_bytes())
    }

    /// The newest backup restores to what the sources are now, every other one without a complaint, and all is sound.
    #[track_caller]
    fn assert_whole(&self, when: When) {
        self.expect(0, when, &["check", "--read-data", "--identity", "identity.txt"]);
        for id in self.listed(when) {
            self.expect(0, when, &["restore", &id, "--to", "out", "--identity", "identity.txt"]);
            fs::remove_dir_all(self.world.path("out")).unwrap();
        }
    }

    #[track_caller]
    fn assert_newest_is_now(&self, when: When) {
        self.expect(0, when, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
        let below_root = self.world.path("uploads").strip_prefix("/").unwrap().to_owned();
        let restored = self.world.path("out/uploads").join(below_root);
        assert_same(&listing(&restored), &listing(&self.world.path("uploads")), "restored");
        fs::remove_dir_all(self.world.path("out")).unwrap();
    }
}

pub(crate) fn in_time(command: &mut Command, when: When) {
    command
        .env("LD_PRELOAD", libfaketime())
        .env("FAKETIME", moment(when).format("@%Y-%m-%d %H:%M:%S").to_string())
        .env("NO_FAKE_STAT", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// `faketime`, to which a command is to be given.
pub(crate) fn in_time_wrapped(when: When) -> Command {
    let mut command = Command::new("faketime");
    command.args(["-m", "-f"]).arg(moment(when).format("@%Y-%m-%d %H:%M:%S").to_string());
    command.env("NO_FAKE_STAT", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
    command.env_remove("LIFEBOAT_CONFIG").env_remove("LIFEBOAT_IDENTITY");
    command
}

fn ids(backups: &Value) -> Vec<String> {
    backups.as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// Text with the ids of backups replaced by the days they are of.
fn by_day(text: &str, ids: &[String]) -> String {
    ids.iter().enumerate().fold(text.to_owned(), |text, (day, id)| text.replace(id, &format!("#{day}")))
}

#[test]
fn six_weeks_of_nights() {
    const MARKER: &str = "whoever-asked-to-be-forgotten";
    let timeline = Timeline::new(r#"keep_at_least = "14d", delete_after = "30d""#);
    let marked = timeline.world.path("uploads/marked");
    fs::write(&marked, MARKER).unwrap();
    let mut made: Vec<String> = Vec::new();
    for day in 0..42 {
        if day == 3 {
            fs::remove_file(&marked).unwrap();
        }
        made.push(timeline.backup(day));
        let night = (day, "04:00");
        if day % 7 == 0 {
            // What a dry run promises is what happens, and it changes nothing.
            let (keys, before) = (timeline.world.keys(""), timeline.listed(night));
            let plan = timeline.json(0, night, &["prune", "--dry-run"]);
            assert_eq!((timeline.world.keys(""), timeline.listed(night)), (keys, before));
            let done = timeline.json(0, night, &["prune"]);
            for what in ["deleted", "kept", "deleted_backups"] {
                assert_eq!(plan[what], done[what], "day {day}: {what}");
            }
            assert_eq!(ids(&done["kept"]), timeline.listed(night));
            assert_eq!(done["dry_run"], false);
            assert_eq!(done["stopped_by"].as_array().unwrap().len(), 0, "{done}");
        } else {
            let done = timeline.expect(0, night, &["prune", "shop"]);
            assert!(done.stderr.starts_with("erased "), "{}", done.stderr);
        }
        let there = timeline.listed(night);
        for (number, id) in made.iter().enumerate() {
            let age = day - number as i64;
            assert!(age > 14 || there.contains(id), "day {day}: backup {number} went at {age} days");
            // With a night between two prunes and the grace period the plan is to be through long before.
            assert!(age < 25 || !there.contains(id), "day {day}: backup {number} is still there at {age} days");
        }
        if day == 14 {
            assert!(timeline.holds(MARKER), "nothing was opened");
        }
        if day == 32 {
            assert!(!timeline.holds(MARKER), "day {day}");
        }
        if day % 20 == 19 {
            timeline.assert_whole(night);
        }
        let status = timeline.json(0, night, &["status"]);
        let reasons = status["jobs"][0]["reasons"].to_string();
        assert!(!reasons.contains("eras") && !reasons.contains("prune"), "day {day}: {reasons}");
    }
    let last = (41, "05:00");
    timeline.assert_newest_is_now(last);
    timeline.assert_whole(last);
    let text = timeline.expect(0, last, &["prune", "--dry-run"]).stdout;
    assert_eq!(
        by_day(&text, &made).lines().take(4).collect::<Vec<_>>(),
        [
            "shop: 24 backups, 0 would go",
            "  #18 of 2040-01-20 02:15  stays: kept until 2040-02-13",
            "  #19 of 2040-01-21 02:15  stays: kept until 2040-02-14",
            "  #20 of 2040-01-22 02:15  stays: kept until 2040-02-15",
        ]
    );
    assert!(by_day(&text, &made).contains("  #41 of 2040-02-12 02:15  stays: younger than 14d (until 2040-02-26)"));
    let checked = timeline.json(0, last, &["check"]);
    // What the last prunes condemned is all that lies about.
    let done = timeline.json(0, last, &["prune"]);
    let condemned = ["waiting_objects", "deleted_objects"].map(|what| done[what].as_u64().unwrap());
    assert_eq!(
        (checked["strays"].as_u64(), done["condemned_objects"].as_u64()),
        (Some(condemned.iter().sum()), Some(0))
    );
}

#[test]
fn thinning_keeps_the_newest_of_days_and_weeks() {
    let timeline = Timeline::new(r#"keep_at_least = "3d", delete_after = "40d", daily = 3, weekly = 3"#);
    let made: Vec<String> = (0..27).map(|day| timeline.backup(day)).collect();
    let when = (26, "04:00");
    let text = timeline.expect(0, when, &["prune", "-v"]).stdout;
    let stays: Vec<String> = by_day(&text, &made)
        .lines()
        .filter_map(|line| line.trim().split_once(" stays: "))
        .map(|(backup, why)| format!("{} {why}", backup.split_whitespace().next().unwrap()))
        .collect();
    assert_eq!(
        stays,
        [
            // Sundays end the weeks of a calendar that begins on a Monday.
            "#13 newest of week 2040-W02",
            "#20 newest of week 2040-W03",
            "#21 newest of 2040-01-23",
            "#22 newest of 2040-01-24",
            "#23 newest of 2040-01-25; newest of week 2040-W04; the newest one older than 3d",
            "#24 younger than 3d (until 2040-01-29)",
            "#25 younger than 3d (until 2040-01-30)",
            "#26 younger than 3d (until 2040-01-31)",
        ]
    );
    assert_eq!(text.matches("removed: thinned").count(), 19, "{text}");
    assert_eq!(timeline.listed(when).len(), 8);
    timeline.assert_whole(when);
    // Again, there is nothing to do.
    assert_eq!(timeline.json(0, (26, "05:00"), &["prune"])["deleted_backups"], 0);
}

/// What keeps quarter-days: a window of two days, a night between prunes, an hour of grace.
const SHORT: &str = r#"keep_at_least = "4d", delete_after = "12d""#;

#[test]
fn erasing_takes_two_steps() {
    let timeline = Timeline::new(SHORT);
    let first = timeline.backup(0);
    let of_first = timeline.objects();
    for day in 1..10 {
        timeline.backup(day);
    }
    let before = timeline.objects();
    let said = timeline.expect(0, (9, "04:00"), &["prune"]);
    assert!(!timeline.listed((9, "04:01")).contains(&first));
    // Condemned, and nothing is gone yet; not much later either.
    assert_eq!(timeline.objects(), before, "{}", said.stderr);
    assert!(said.stderr.contains("wait for the grace period"), "{}", said.stderr);
    let early = timeline.json(0, (9, "20:00"), &["prune"]);
    assert_eq!((early["deleted_objects"].as_u64(), early["condemned_objects"].as_u64()), (Some(0), Some(0)));
    assert_eq!(timeline.objects(), before);
    let done = timeline.json(0, (10, "05:00"), &["prune"]);
    let after = timeline.objects();
    assert_eq!(done["deleted_objects"].as_u64(), Some((before.len() - after.len()) as u64));
    assert!(after.is_subset(&before) && of_first.difference(&after).count() >= 3, "{done}");
    timeline.assert_whole((10, "05:00"));
    timeline.assert_newest_is_now((10, "05:00"));
    // The catalog knows what a new one would be told.
    assert_same_catalog_anew(&timeline.world, (10, "06:00"));
}

/// The answers that come out of the catalog are the same after a rebuild.
#[track_caller]
pub(crate) fn assert_same_catalog_anew(world: &World, when: When) {
    let ask = || {
        ["list", "status", "report"].map(|verb| {
            let mut command = world.command(&[verb, "--json"]);
            in_time(&mut command, when);
            let said = said(&mut command);
            let mut document: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{verb}: {said:?}"));
            forget_the_present(&mut document);
            document
        })
    };
    let before = ask();
    let mut command = world.command(&["catalog", "rebuild"]);
    in_time(&mut command, when);
    let rebuilt = said(&mut command);
    assert_eq!(rebuilt.code, Some(0), "{}", rebuilt.stderr);
    for (before, after) in before.iter().zip(ask()) {
        assert_eq!(*before, after);
    }
}

/// What a document says of the moment at which it was asked for differs by the time between two questions.
fn forget_the_present(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(forget_the_present),
        Value::Array(all) => all.iter_mut().for_each(forget_the_present),
        Value::Number(number) if number.is_f64() => *value = Value::from(number.as_f64().unwrap().round() as i64),
        Value::String(text) => {
            if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
                *text = moment.format("%Y-%m-%d %H:%M").to_string();
            }
            // `49m 59s ago` in a sentence.
            let is_lapse = |word: &&str| {
                word.strip_suffix(['h', 'm', 's'])
                    .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            };
            if text.contains(" ago") {
                *text = text.split(' ').filter(|word| !is_lapse(word)).collect::<Vec<_>>().join(" ");
            }
        }
        _ => {}
    }
}

#[test]
fn objects_that_the_store_dates_long_ago_wait_all_the_same() {
    let mut timeline = Timeline::new(SHORT);
    timeline.dated = false;
    for day in 0..10 {
        timeline.backup(day);
    }
    let before = timeline.objects();
    let done = timeline.json(0, (9, "04:00"), &["prune"]);
    assert!(done["condemned_objects"].as_u64().unwrap() > 0, "{done}");
    timeline.expect(0, (9, "05:00"), &["prune"]);
    assert_eq!(timeline.objects(), before);
    let done = timeline.json(0, (10, "05:00"), &["prune"]);
    assert!(done["deleted_objects"].as_u64().unwrap() > 0, "{done}");
    timeline.assert_whole((10, "05:00"));
}

#[test]
fn a_backup_prunes_unless_prunes_have_a_schedule() {
    for (timeline, left) in [(Timeline::new(SHORT), 12), (Timeline::pruned_by_backups(SHORT), 6)] {
        let mut made = Vec::new();
        for day in 0..12 {
            made.push(timeline.backup(day));
        }
        let there = timeline.listed((11, "03:00"));
        assert_eq!(there.len(), left, "{there:?}");
        assert_eq!(there[..], made[12 - left..]);
        // In cron nothing is said about it.
        let said = timeline.expect(0, (12, "02:15"), &["backup"]);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
        timeline.assert_whole((12, "03:00"));
    }
}

#[test]
fn the_last_good_one_stays_and_alarms() {
    let timeline = Timeline::new(SHORT);
    let only = timeline.backup(0);
    let state = |day| {
        let status = timeline.json(0, (day, "04:00"), &["status"]);
        let job = &status["jobs"][0];
        (job["state"].as_str().unwrap().to_owned(), job["reasons"].to_string())
    };
    // Nobody ran for eleven days: that must be a pause, and no clock that jumped.
    let said = timeline.expect(20, (11, "03:00"), &["prune"]);
    assert!(said.stderr.contains("nothing was written") && said.stderr.contains("--after-pause"), "{}", said.stderr);
    timeline.expect(0, (11, "04:00"), &["prune", "--after-pause"]);
    assert_eq!(timeline.listed((11, "04:00")), std::slice::from_ref(&only));
    let (_, reasons) = state(9);
    assert!(reasons.contains("last good"), "{reasons}");

    let said = timeline.expect(23, (13, "04:00"), &["prune"]);
    assert!(said.stderr.contains("[erasure-breached]"), "{}", said.stderr);
    assert!(said.stderr.contains("lifeboat backup shop") && said.stderr.contains(&only), "{}", said.stderr);
    assert_eq!(timeline.json(23, (13, "04:30"), &["prune"])["breached"][0], only.as_str());
    let (state, reasons) = state(13);
    assert_eq!(state, "critical");
    assert!(reasons.contains("is the last good one and still there, 1d"), "{reasons}");
    timeline.assert_whole((13, "05:00"));

    // A good one is the way out.
    let good = timeline.backup(14);
    // Too late, and so long as its bytes are there that is said.
    let done = timeline.json(23, (14, "04:00"), &["prune"]);
    assert_eq!(ids(&done["deleted"]), [only]);
    assert_eq!(timeline.listed((14, "04:00")), [good]);
}

#[test]
fn the_last_good_one_goes_where_that_was_said() {
    let timeline = Timeline::new(r#"keep_at_least = "4d", delete_after = "12d", last_good = "erase""#);
    let only = timeline.backup(0);
    let done = timeline.json(0, (11, "04:00"), &["prune", "--after-pause"]);
    assert_eq!(ids(&done["deleted"]), [only]);
    timeline.expect(0, (12, "05:00"), &["prune"]);
    assert_eq!(timeline.objects().len(), 0);
    let said = timeline.expect(2, (12, "06:00"), &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    assert!(!timeline.world.path("out").exists(), "{}", said.stderr);
    timeline.expect(0, (12, "06:00"), &["check"]);
    timeline.backup(13);
    timeline.assert_newest_is_now((13, "06:00"));
}

/// Enough backups that a prune in the tenth night removes some.
fn ten_nights() -> (Timeline, Vec<String>) {
    let timeline = Timeline::new(SHORT);
    let made = (0..10).map(|day| timeline.backup(day)).collect();
    (timeline, made)
}

fn manifest_of(timeline: &Timeline, id: &str) -> String {
    timeline.world.keys("backups").into_iter().find(|key| key.ends_with(&format!("{id}.json"))).unwrap()
}

/// A prune is stopped by this, and changes nothing but its own record.
#[track_caller]
fn assert_stopped(timeline: &Timeline, when: When, wanted: &[&str]) {
    let before = (timeline.objects(), timeline.world.keys("backups"));
    let said = timeline.expect(20, when, &["prune"]);
    assert!(said.stderr.contains("[deletion-stopped]"), "{}", said.stderr);
    for wanted in wanted {
        assert!(said.stderr.contains(wanted), "{wanted}: {}", said.stderr);
    }
    assert_eq!((timeline.objects(), timeline.world.keys("backups")), before);
    assert!(timeline.world.keys("records/removals").is_empty() && timeline.world.keys("records/condemned").is_empty());
    let document = timeline.json(20, when, &["prune"]);
    assert!(!document["stopped_by"].as_array().unwrap().is_empty(), "{document}");
    assert_eq!(document["deleted_backups"], 0, "{document}");
    let status = timeline.json(0, when, &["status"]);
    assert!(status["jobs"][0]["reasons"].to_string().contains("prune"), "{status}");
}

#[test]
fn a_manifest_that_cannot_be_believed_stops_everything_until_it_is_quarantined() {
    let (timeline, made) = ten_nights();
    let key = manifest_of(&timeline, &made[7]);
    let path = timeline.world.path("vault").join(&key);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(6).position(|window| window == b"\"tool\"").unwrap() + 9;
    bytes[place] ^= 1;
    fs::write(&path, &bytes).unwrap();
    timeline.date((9, "03:00"));
    let named = of_backup(&bytes);
    assert!(named.len() >= 4, "{named:?}");
    assert_stopped(&timeline, (9, "04:00"), &[&key, &format!("lifeboat quarantine {}", made[7])]);

    // What is sound is not quarantined, nor what is not there.
    for (wrong, wanted) in
        [(made[6].as_str(), "holds anything up"), ("ffffffffffff", "holds anything up"), ("shop", "no id")]
    {
        let said = timeline.expect(2, (9, "04:10"), &["quarantine", wrong]);
        assert!(said.stderr.contains(wanted) && said.stderr.contains("hint: "), "{}", said.stderr);
    }
    let said = timeline.expect(0, (9, "04:10"), &["quarantine", &made[7][..8]]);
    assert!(said.stderr.contains(&made[7]), "{}", said.stderr);
    let done = timeline.json(0, (9, "04:20"), &["prune"]);
    assert!(done["deleted_backups"].as_u64().unwrap() > 0, "{done}");
    timeline.expect(0, (10, "05:00"), &["prune"]);
    // What it names stays as long as it.
    assert!(named.iter().all(|key| timeline.world.path("vault").join(key).exists()));
    assert_eq!(timeline.listed((10, "05:00")), [&made[5], &made[6], &made[8], &made[9]].map(Clone::clone));
    timeline.assert_newest_is_now((10, "05:00"));
    // And goes with it, when its time by the store's clock is over.
    for day in 10..24 {
        timeline.backup(day);
        timeline.expect(0, (day, "05:00"), &["prune"]);
    }
    assert!(!path.exists() && !path.with_extension("json.minisig").exists());
    let alone = named.iter().filter(|key| timeline.world.path("vault").join(key).exists()).count();
    assert!(alone < named.len(), "all that it names is still there");
    timeline.assert_whole((23, "06:00"));
}

/// The keys of a manifest's lists and contents.
fn of_backup(manifest: &[u8]) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let mut keys = Vec::new();
    for source in manifest["sources"].as_array().unwrap() {
        for (what, folder) in [("lists", "lists"), ("contents", "objects")] {
            for id in source[what].as_array().unwrap() {
                let id = id.as_str().unwrap();
                keys.push(format!("{folder}/{}/{id}", &id[..2]));
            }
        }
    }
    keys
}

#[test]
fn a_manifest_that_is_missing_stops_everything_until_somebody_says_so() {
    let (timeline, made) = ten_nights();
    let key = manifest_of(&timeline, &made[6]);
    for key in [key.clone(), format!("{key}.minisig")] {
        fs::remove_file(timeline.world.path("vault").join(key)).unwrap();
    }
    let said = timeline.expect(20, (9, "03:00"), &["check"]);
    assert!(said.stdout.contains("[manifest-missing]"), "{}", said.stdout);
    assert_stopped(&timeline, (9, "04:00"), &["sequence number 7", "lifeboat quarantine shop#7"]);
    for wrong in ["shop#6", "shop#6-7", "shopp#7", "shop#0", "shop#x"] {
        let said = timeline.expect(2, (9, "04:10"), &["quarantine", wrong]);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
    }
    timeline.expect(0, (9, "04:10"), &["quarantine", "shop#7"]);
    timeline.expect(0, (9, "04:20"), &["prune"]);
    timeline.expect(0, (10, "05:00"), &["prune"]);
    timeline.assert_whole((10, "05:00"));
    // What was acknowledged is no news, neither to this host nor to one that never saw it.
    for rebuilt in [false, true] {
        if rebuilt {
            timeline.expect(0, (10, "05:00"), &["catalog", "rebuild"]);
        }
        let status = timeline.json(0, (10, "05:00"), &["status"]);
        assert!(!status["jobs"][0]["reasons"].to_string().contains("no longer has"), "{status}");
    }
}

#[test]
fn a_list_that_cannot_be_read_stops_everything() {
    let (timeline, made) = ten_nights();
    let manifest = fs::read(timeline.world.path("vault").join(manifest_of(&timeline, &made[8]))).unwrap();
    let older: BTreeSet<String> = made[..8]
        .iter()
        .flat_map(|id| of_backup(&fs::read(timeline.world.path("vault").join(manifest_of(&timeline, id))).unwrap()))
        .collect();
    let newer = of_backup(&fs::read(timeline.world.path("vault").join(manifest_of(&timeline, &made[9]))).unwrap());
    let list = of_backup(&manifest)
        .into_iter()
        .find(|key| key.starts_with("lists/") && !older.contains(key) && !newer.contains(key))
        .unwrap();
    let path = timeline.world.path("vault").join(&list);
    let sound = fs::read(&path).unwrap();
    fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    timeline.date((9, "03:00"));
    let quarantine = format!("lifeboat quarantine {}", made[8]);
    assert_stopped(&timeline, (9, "04:00"), &[&list, &quarantine]);
    fs::remove_file(&path).unwrap();
    let said = timeline.expect(20, (9, "04:05"), &["prune"]);
    assert!(said.stderr.contains(&list) && said.stderr.contains(&quarantine), "{}", said.stderr);
    timeline.expect(0, (9, "04:10"), &["quarantine", &made[8]]);
    let done = timeline.json(0, (9, "04:20"), &["prune"]);
    assert!(done["deleted_backups"].as_u64().unwrap() > 0, "{done}");
}

#[test]
fn a_record_of_a_newer_lifeboat_stops_everything() {
    let (timeline, _) = ten_nights();
    let forge = Forge::of(&timeline.world);
    let key = timeline.world.keys("records/runs").into_iter().find(|key| key.ends_with(".json")).unwrap();
    let text = fs::read_to_string(timeline.world.path("vault").join(&key)).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["type"] = "embargo".into();
    let key = key.replace("runs/", "embargoes/");
    let document = serde_json::to_vec_pretty(&record).unwrap();
    let text = |name: &str| record[name].as_str().unwrap().to_owned();
    let comment = format!("lifeboat-embargo vault={} job=shop id={}", text("vault"), text("id"));
    let signature = sign(&forge.host_key, &document, &comment);
    forge.put(&format!("{key}.minisig"), signature);
    forge.put(&key, document);
    timeline.date((9, "03:00"));
    assert_stopped(&timeline, (9, "04:00"), &[&key, "install the newer lifeboat"]);
    // Whoever cannot sign for the vault stops nothing.
    fs::write(timeline.world.path("vault").join(format!("{key}.minisig")), "untrusted comment: x\nx\n").unwrap();
    timeline.date((9, "03:00"));
    let done = timeline.json(0, (9, "05:00"), &["prune"]);
    assert!(done["deleted_backups"].as_u64().unwrap() > 0, "{done}");
}

#[test]
fn a_misspelt_job_and_a_job_of_nobody() {
    let (timeline, made) = ten_nights();
    let said = timeline.expect(2, (9, "04:00"), &["prune", "shopp"]);
    assert!(said.stderr.contains("shopp") && said.stderr.contains("hint: "), "{}", said.stderr);
    assert_eq!(timeline.listed((9, "04:00")), made);
    // A job that the config has no more erases nothing, and that is said.
    let path = timeline.world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("[job.shop", "[job.mail")).unwrap();
    let said = timeline.expect(0, (9, "04:00"), &["prune"]);
    assert!(said.stderr.contains("backups of job shop, which is not in this config"), "{}", said.stderr);
    assert_eq!(timeline.json(0, (10, "05:00"), &["prune"])["unknown_jobs"][0], "shop");
    assert_eq!(timeline.listed((10, "05:00")), made);
    timeline.assert_whole((10, "05:00"));
}

/// A user who may read and add, and may delete nothing that is already there.
#[test]
fn without_the_right_to_delete_nothing_is_lost() {
    const UID: &str = "65534";
    let (timeline, made) = ten_nights();
    let world = &timeline.world;
    fs::copy(PROGRAM, world.path("lifeboat")).unwrap();
    let owned = |uid: &str, paths: &[&str]| {
        let paths = paths.iter().map(|path| world.path(path));
        assert!(Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).args(paths).status().unwrap().success());
    };
    owned(UID, &[""]);
    let prune = |when: When| {
        let mut told = Command::new("");
        in_time(&mut told, when);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", UID, "--regid", UID, "--clear-groups", "--", "env"])
            // Only now: what libfaketime makes first must be that user's.
            .args(told.get_envs().map(|(key, value)| format!("{}={}", key.display(), value.unwrap().display())))
            .arg(world.path("lifeboat"))
            .arg("prune")
            .current_dir(world.path(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        let said = said(&mut command);
        timeline.date(when);
        said
    };
    // A vault that is another's altogether.
    owned("0", &["vault"]);
    assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(world.path("vault")).status().unwrap().success());
    let before = world.keys("");
    let said = prune((9, "04:00"));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("[storage-failed]") && said.stderr.contains("hint: "), "{}", said.stderr);
    assert_eq!(world.keys(""), before);
    // One that takes new records, and lets go of no manifest: what was recorded is gone for everybody, and the next prune
    // that may deletes it.
    owned(UID, &["vault/records"]);
    owned(UID, &["vault/.tmp"]);
    let said = prune((9, "04:10"));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("[storage-failed]") && said.stderr.contains("backups/shop/"), "{}", said.stderr);
    let manifests = |keys: &[String]| keys.iter().filter(|key| key.starts_with("backups/")).count();
    assert_eq!(manifests(&world.keys("")), manifests(&before));
    let there = timeline.listed((9, "04:20"));
    assert_eq!(there[..], made[4..], "one that cannot be deleted keeps no other: {}", said.stderr);
    timeline.assert_whole((9, "04:20"));
    owned(UID, &["vault"]);
    assert_eq!(prune((9, "04:30")).code, Some(0));
    assert_eq!(prune((10, "05:00")).code, Some(0));
    assert_eq!(timeline.listed((10, "05:00"))[..], made[5..]);
    timeline.assert_whole((10, "05:00"));
    assert_same_catalog_anew(world, (10, "05:00"));
}

/// Flips a byte of the largest segment that every backup names; gives its key.
pub(crate) fn damage(world: &World) -> String {
    let forge = Forge::of(world);
    let segments = |manifest: &Manifest| -> BTreeSet<(u64, ObjectId)> {
        let listed = manifest.sources.iter().flat_map(|source| forge.segments(source));
        listed.map(|line| (line.stored_bytes, line.object)).collect()
    };
    let common = forge.manifests().iter().map(segments).reduce(|one, other| &one & &other).unwrap();
    let key = Key::Object(common.last().unwrap().1).to_string();
    let path = world.path("vault").join(&key);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
    key
}

#[test]
fn what_check_finds_is_known_and_the_next_backup_stores_it_anew() {
    let timeline = Timeline::new(SHORT);
    let world = &timeline.world;
    let made: Vec<String> = (0..3).map(|day| timeline.backup(day)).collect();
    let key = damage(world);
    timeline.date((2, "03:00"));

    // Who only has the vault and no keys of a host finds it and cannot say it to the others.
    let trust = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let trust = trust.lines().find_map(|line| line.strip_prefix("trust      = \"")).unwrap();
    let trust = trust.split('"').next().unwrap();
    let mut bare = Command::new(PROGRAM);
    in_time(&mut bare, (2, "03:05"));
    let bare = bare
        .args(["check", "--vault"])
        .arg(world.path("vault"))
        .args(["--trust", trust])
        .current_dir("/")
        .env_remove("LIFEBOAT_CONFIG")
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&bare.stdout), String::from_utf8_lossy(&bare.stderr));
    assert_eq!(bare.status.code(), Some(20), "{told}");
    assert!(told.contains(&key) && told.contains("run `lifeboat check` on the host that backs up"), "{told}");
    assert!(world.keys("records/refutations").is_empty());

    let said = timeline.expect(20, (2, "03:10"), &["check"]);
    assert!(said.stdout.contains(&key) && made.iter().all(|id| said.stdout.contains(id)), "{}", said.stdout);
    assert!(said.stderr.contains("it is on record"), "{}", said.stderr);
    let records = world.keys("records/refutations");
    assert_eq!(records.len(), 2, "{records:?}");
    let list = timeline.json(0, (2, "03:20"), &["list"]);
    for backup in list["backups"].as_array().unwrap() {
        assert_eq!(backup["verdict"], "refuted", "{backup}");
    }
    let status = timeline.json(0, (2, "03:20"), &["status"]);
    assert_eq!(status["jobs"][0]["state"], "critical", "{status}");
    let reasons = status["jobs"][0]["reasons"].to_string();
    assert!(reasons.contains("`lifeboat backup shop`"), "{reasons}");
    assert_same_catalog_anew(world, (2, "03:20"));
    // Said once, it is not said again.
    timeline.expect(20, (2, "03:30"), &["check"]);
    assert_eq!(world.keys("records/refutations"), records);

    // What is sound is named again, what is not is read again: one file.
    fs::write(world.path("uploads/daily"), noise(5_000, 3)).unwrap();
    let document = timeline.json(0, (3, "02:15"), &["backup"]);
    let backup = &document["runs"][0]["backup"];
    let new = backup["new_segments"].as_u64().unwrap();
    assert!((1..=4).contains(&new) && backup["segments"].as_u64().unwrap() > new, "{document}");
    let id = backup["id"].as_str().unwrap();
    timeline.expect(0, (3, "03:00"), &["drill", "--identity", "identity.txt"]);
    timeline.assert_newest_is_now((3, "03:00"));
    let list = timeline.json(0, (3, "03:00"), &["list"]);
    let newest = list["backups"].as_array().unwrap().last().unwrap();
    assert_eq!((newest["id"].as_str(), newest["verdict"].as_str()), (Some(id), Some("proven")), "{newest}");
    // A refuted one is not what is counted on when the others go.
    let done = timeline.json(23, (12, "04:00"), &["prune", "--after-pause"]);
    assert_eq!(ids(&done["kept"]), [id], "{done}");
}

/// By the real clock: what lies in the vault is as old as it is.
#[test]
fn what_a_stopped_backup_needs_is_not_erased() {
    let world = World::in_memory();
    let path = world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    let retention = r#"keep_at_least = "1s", delete_after = "1h", last_good = "erase""#;
    let text = text
        .replace(
            "retention  = { keep_at_least = \"14d\", delete_after = \"30d\" }\nobj",
            &format!("retention  = {{ {retention} }}\nobj"),
        )
        .replace("[job.shop.drill]", "[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]")
        .replace("[vault.main]", "[vault.main]\ngrace = \"1s\"");
    fs::write(&path, text).unwrap();
    let first = world.backup();
    for number in 0..24_u8 {
        fs::write(world.path(format!("uploads/new-{number:02}")), noise(4_000_000, 50 + number)).unwrap();
    }
    let objects = world.keys("objects").len();
    let mut command = world.command(&["backup", "--json"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&running);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.keys("objects").len() < objects + 6 {
        assert!(Instant::now() < deadline, "the backup stores nothing");
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let stopped = world.keys("objects").len();
    let mut removed = Vec::new();
    // Until the first is gone, and has been for longer than the grace period.
    while removed.is_empty() {
        assert!(Instant::now() < deadline, "the first backup does not go");
        removed = ids(&world.json(0, &["prune"])["deleted"]);
    }
    assert_eq!(removed, [first]);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2_500) {
        world.expect(0, &["prune"]);
    }
    assert!(world.keys("objects").len() >= stopped, "what the run had stored is gone");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let out = running.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    match out.status.code() {
        Some(0) => {
            world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
            let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
            assert_same(
                &listing(&world.path("out/uploads").join(below_root)),
                &listing(&world.path("uploads")),
                "restored",
            );
            world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
        }
        code => {
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains("[claim-lost]"), "{stderr}");
            assert!(world.keys("backups").is_empty());
        }
    }
    // Whatever came of it, the next one is good.
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
}
