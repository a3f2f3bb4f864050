//! SIGKILL at any moment of a prune or of a check that found something: run again, and it ends where an undisturbed run
//! ends, with nothing lost and a catalog that says what a new one would say.
//!
//! As in kill.rs, this test binary starts itself again for `child`, with a store that counts calls and kills. The
//! catalog's writes are no calls of a store: there strace kills the program, at each write to its files in turn.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use lifeboat::clock::ManualClock;
use lifeboat::config::Settings;
use lifeboat::observe::Silent;
use lifeboat::operations::check::{Depth, check};
use lifeboat::operations::host::Host;
use lifeboat::operations::interrupt::Interrupt;
use lifeboat::operations::prune::{AfterPause, PruneRequest, prune};
use lifeboat::operations::vaults::{self, OpenVault, Trusted};
use lifeboat::storage::Storage;
use lifeboat::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;

use crate::erasing::{Timeline, When, assert_same_catalog_anew, damage, in_time_wrapped, moment};
use crate::support::{PROGRAM, World};

/// The world's config for the child; without it the child is no child.
const CONFIG: &str = "LIFEBOAT_IT_ERASING_CONFIG";
/// `<verb> <moment in time> <number of the call> <before|after>`.
const KILL_AT: &str = "LIFEBOAT_IT_ERASING_KILL_AT";
/// Worlds that are killed in at once.
const AT_ONCE: u64 = 2;

/// The process that is killed: started by the tests below, with variables that say where.
#[test]
fn child() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let at = std::env::var(KILL_AT).unwrap();
    let [verb, now, call, side] = at.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let side = match side {
        "before" => Moment::Before,
        "after" => Moment::After,
        other => panic!("{other} is no moment"),
    };
    let effect = Effect::Call(|| kill_process(getpid(), Signal::KILL).unwrap());
    let plan = Plan { at_call: call.parse().unwrap(), moment: side, effect, lasting: Lasting::Once };
    let now = DateTime::parse_from_rfc3339(now).unwrap().to_utc();
    let calls = act(verb, Path::new(&config), now, |storage| Fault::planned(storage, plan));
    panic!("still alive after {calls} storage calls");
}

/// Prunes or checks through the library, with this layer before the store; gives the number of calls.
fn act(verb: &str, config: &Path, now: DateTime<Utc>, layer: impl FnOnce(Arc<dyn Storage>) -> Fault) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settings = Settings::load(Some(config)).unwrap();
    let clock = Arc::new(ManualClock::at(now));
    let host = Host::bare(runtime.handle().clone(), clock, Interrupt::default());
    let host = host.with_home(&settings.state_dir).unwrap();
    let job = settings.jobs.values().next().unwrap();
    let vault = vaults::open(&host, settings.vault_of(job).unwrap(), None, &Trusted::default()).unwrap();
    let fault = Arc::new(layer(vault.storage));
    let vault = OpenVault { storage: fault.clone(), ..vault };
    if verb == "prune" {
        let request = PruneRequest {
            jobs: vec![(job, settings.lead_of(job, now))],
            zone: settings.timezone,
            grace: settings.grace_of(&vault.settings),
            promises: [(job.name.clone(), job.retention)].into(),
            dry_run: false,
            began: now,
            after_pause: AfterPause::Stop,
            glance: None,
        };
        let report = prune(&host, &vault, &request, &Silent).unwrap();
        assert!(
            report.deleted_backups() == 1 && report.deleted_objects > 0 && report.condemned_objects > 0,
            "{report:?}"
        );
    } else {
        let known = [(job.name.clone(), job.retention.delete_after)].into();
        let report = check(&host, &vault, &[], &known, &Depth { read_data: None }, &Silent).unwrap();
        assert!(report.recorded && report.damaged.len() == 1, "{report:?}");
    }
    fault.calls()
}

/// What counts of a world in the end: the objects, lists and manifests that are there; of each backup that is gone, its
/// removals; what is condemned; what is refuted.
#[derive(Debug, PartialEq, Eq)]
struct Ending {
    keys: Vec<String>,
    removed: Vec<String>,
    condemned: BTreeSet<String>,
    refuted: BTreeSet<String>,
}

impl Ending {
    fn of(world: &World) -> Self {
        let records = |folder: &str| -> Vec<Value> {
            let keys = world.keys(&format!("records/{folder}")).into_iter().filter(|key| key.ends_with(".json"));
            keys.map(|key| serde_json::from_slice(&fs::read(world.path("vault").join(key)).unwrap()).unwrap()).collect()
        };
        let names = |folder: &str, fields: &[&str]| -> BTreeSet<String> {
            let of = |record: &Value, field: &str| record[field].as_array().unwrap().clone();
            let all = records(folder);
            let names = all.iter().flat_map(|record| fields.iter().flat_map(move |field| of(record, field)));
            names.map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let mut removed: Vec<String> =
            records("removals").iter().map(|record| record["backup"].as_str().unwrap().to_owned()).collect();
        removed.sort();
        Self {
            keys: ["objects", "lists", "backups"].into_iter().flat_map(|folder| world.keys(folder)).collect(),
            removed,
            condemned: names("condemned", &["objects", "lists"]),
            refuted: names("refutations", &["objects", "lists", "backups"]),
        }
    }
}

/// A world from which a verb is run again and again.
struct Story {
    timeline: Timeline,
    verb: &'static str,
    when: When,
    exits_with: i32,
}

impl Story {
    /// A prune that has everything to do: a backup to remove, its objects to condemn, and another's to erase.
    fn prune() -> Self {
        let timeline = Timeline::new(r#"keep_at_least = "1d", delete_after = "4d""#);
        fs::write(timeline.world.path("uploads/deep/large.bin"), "not so large").unwrap();
        timeline.backup(0);
        timeline.backup(1);
        timeline.expect(0, (1, "04:00"), &["prune"]);
        timeline.backup(2);
        Self { timeline, verb: "prune", when: (2, "05:00"), exits_with: 0 }
    }

    /// A check that finds an object damaged that two backups name.
    fn check() -> Self {
        let timeline = Timeline::new(r#"keep_at_least = "4d", delete_after = "12d""#);
        timeline.backup(0);
        timeline.backup(1);
        damage(&timeline.world);
        timeline.date((1, "04:00"));
        Self { timeline, verb: "check", when: (1, "05:00"), exits_with: 20 }
    }

    /// The same world elsewhere.
    fn again(&self) -> Timeline {
        let copy = Timeline::of(World::in_memory_empty());
        for name in ["vault", "state", "lifeboat.toml", "identity.txt"] {
            let (from, to) = (self.timeline.world.path(name), copy.world.path(name));
            assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        }
        copy
    }

    /// Runs the verb to its end, as somebody does who saw it die.
    fn finish(&self, timeline: &Timeline, what: &str) -> Ending {
        timeline.date(self.when);
        let later = (self.when.0, "05:10");
        let said = timeline.run(later, &[self.verb]);
        assert_eq!(said.code, Some(self.exits_with), "{what}: {}{}", said.stdout, said.stderr);
        Ending::of(&timeline.world)
    }

    /// The undisturbed run, and the number of its storage calls.
    fn undisturbed(&self) -> (u64, Ending) {
        let timeline = self.again();
        let calls = act(self.verb, &timeline.world.path("lifeboat.toml"), moment(self.when), Fault::counting);
        assert!(calls > 20, "{calls} storage calls are no {}", self.verb);
        (calls, self.finish(&timeline, "undisturbed"))
    }

    /// After a death: run again, it ends as it should, everything restores, and nobody remembers anything else.
    fn converges(&self, timeline: &Timeline, ending: &Ending, what: &str) {
        let found = self.finish(timeline, what);
        assert_eq!(found, *ending, "{what}");
        let after = (self.when.0, "06:00");
        if self.exits_with == 0 {
            timeline.expect(0, after, &["check", "--read-data", "--identity", "identity.txt", "-q"]);
            timeline.expect(0, after, &["restore", "shop", "--to", "out", "--identity", "identity.txt", "-q"]);
        } else {
            let list = timeline.json(0, after, &["list"]);
            for backup in list["backups"].as_array().unwrap() {
                assert_eq!(backup["verdict"], "refuted", "{what}: {backup}");
            }
        }
        // What was just recorded lies behind, not at the moment itself.
        assert_same_catalog_anew(&timeline.world, (self.when.0, "06:30"));
    }

    /// Kills it at every call, at both moments.
    fn at_every_call(&self) {
        let (calls, ending) = self.undisturbed();
        in_parallel(2 * calls, &|point| {
            let side = if point % 2 == 0 { "before" } else { "after" };
            let at = format!("{} {} {} {side}", self.verb, moment(self.when).to_rfc3339(), point / 2 + 1);
            let timeline = self.again();
            let status = child_at(&timeline.world, &at);
            // Reads that run at once may be fewer in a run that is disturbed.
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{at}: {status}");
            self.converges(&timeline, &ending, &format!("killed at {at}"));
        });
        tell(&format!("{}: killed at {} of {} storage calls, before and after\n", self.verb, calls, calls));
    }

    /// Kills it at every write to the catalog's files.
    fn at_every_write_of_the_catalog(&self) {
        let (_, ending) = self.undisturbed();
        let mut points = 0;
        loop {
            let timeline = self.again();
            let status = killed_at_write(&timeline, self, points + 1);
            if status.code() == Some(self.exits_with) {
                break;
            }
            assert_eq!(status.code(), Some(128 + Signal::KILL.as_raw()), "{status}");
            points += 1;
            self.converges(&timeline, &ending, &format!("{} killed at write {points} of the catalog", self.verb));
        }
        assert!(points > 3, "{points} writes are no catalog");
        tell(&format!("{}: killed at {points} writes of the catalog\n", self.verb));
    }
}

fn child_at(world: &World, at: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill_erasing::child", "--nocapture"]);
    command.env(CONFIG, world.path("lifeboat.toml")).env(KILL_AT, at);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// The program under strace, which kills it at so-many-th write of a thread to the catalog.
fn killed_at_write(timeline: &Timeline, story: &Story, number: u64) -> ExitStatus {
    // libfaketime keeps things in /dev/shm until its process ends in peace; here its wrapper clears up instead. The shell
    // turns strace's way to die (by the same signal) into an exit code.
    let mut command = in_time_wrapped(story.when);
    command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]);
    command.args(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]);
    command.arg("-e").arg(format!("inject=pwrite64:signal=KILL:when={number}"));
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        command.arg("-P").arg(timeline.world.path("state").join(file));
    }
    command.args([PROGRAM, story.verb]).current_dir(timeline.world.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// Does this for every number below `count`, some at once.
fn in_parallel(count: u64, work: &(dyn Fn(u64) + Sync)) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number if number < count => work(number),
                        _ => break,
                    }
                }
            });
        }
    });
}

fn tell(text: &str) {
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
}

#[test]
fn a_prune_is_killed_at_every_storage_call() {
    Story::prune().at_every_call();
}

#[test]
fn a_check_is_killed_at_every_storage_call() {
    Story::check().at_every_call();
}

#[test]
fn a_prune_is_killed_at_every_write_of_the_catalog() {
    Story::prune().at_every_write_of_the_catalog();
}

#[test]
fn a_check_is_killed_at_every_write_of_the_catalog() {
    Story::check().at_every_write_of_the_catalog();
}
