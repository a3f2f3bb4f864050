//! SIGKILL at any moment: run again and it converges, and every committed backup still restores.
//!
//! A process of its own is killed at every storage call of a backup in turn, once before the store is asked and once
//! after it answered. There is no hook in the program for that: this test binary starts itself again for `child`,
//! which backs up through the library, with a store that counts calls and kills. The real program is killed at a few
//! random moments besides, and asked to end by SIGTERM.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifeboat::clock::SystemClock;
use lifeboat::config::Settings;
use lifeboat::domain::record::RunOutcome;
use lifeboat::observe::Silent;
use lifeboat::operations::backup::backup;
use lifeboat::operations::host::Host;
use lifeboat::operations::interrupt::Interrupt;
use lifeboat::operations::vaults::{self, OpenVault, Trusted};
use lifeboat::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::by_hand::{assert_same, listing};
use crate::support::{World, noise};

/// The world's config for the child; without it the child is no child.
const CONFIG: &str = "LIFEBOAT_IT_CONFIG";
/// `<number of the call> <before|after>`.
const KILL_AT: &str = "LIFEBOAT_IT_KILL_AT";
/// How long anything may take that a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// The process that is killed: started by the tests below, with variables that say where. In an ordinary run of all
/// tests there are none, and nothing to do here.
#[test]
fn child() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let at = std::env::var(KILL_AT).unwrap();
    let (call, moment) = at.split_once(' ').unwrap();
    let moment = match moment {
        "before" => Moment::Before,
        "after" => Moment::After,
        other => panic!("{other} is no moment"),
    };
    let effect = Effect::Call(|| kill_process(getpid(), Signal::KILL).unwrap());
    let plan = Plan { at_call: call.parse().unwrap(), moment, effect, lasting: Lasting::Once };
    let calls = back_up(Path::new(&config), |storage| Fault::planned(storage, plan));
    panic!("still alive after {calls} storage calls");
}

/// Backs up the job of a config through the library, with this layer before the store; gives the number of calls.
fn back_up(config: &Path, layer: impl FnOnce(Arc<dyn lifeboat::storage::Storage>) -> Fault) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settings = Settings::load(Some(config)).unwrap();
    let host = Host::bare(runtime.handle().clone(), Arc::new(SystemClock::default()), Interrupt::default());
    let host = host.with_home(&settings.state_dir).unwrap();
    let job = settings.jobs.values().next().unwrap();
    let vault = vaults::open(&host, settings.vault_of(job).unwrap(), None, &Trusted::default()).unwrap();
    let fault = Arc::new(layer(vault.storage));
    let storage: Arc<dyn lifeboat::storage::Storage> = fault.clone();
    let vault = OpenVault { storage, ..vault };
    let report = backup(&host, &vault, job, settings.without_secrets(&job.name), &Silent).unwrap();
    assert_eq!(report.outcome, RunOutcome::Success, "{:?}", report.errors);
    fault.calls()
}

/// A world whose vault and state can be put back to where they were.
struct Replay {
    world: World,
    /// The trees of the backups that are committed before each kill, by their ids.
    before: BTreeMap<String, String>,
}

/// What a kill point came to.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Left {
    Nothing,
    ACommittedBackup,
}

impl Replay {
    /// Keeps vault and state as they are now, to begin from here at every point.
    fn from_here(world: World, before: BTreeMap<String, String>) -> Self {
        copy(&world.path("vault"), &world.path("kept-vault"));
        copy(&world.path("state"), &world.path("kept-state"));
        Self { world, before }
    }

    /// The sources keep their inodes: what the host remembers of them is part of what is tested.
    fn rewind(&self) {
        for name in ["vault", "state"] {
            fs::remove_dir_all(self.world.path(name)).unwrap();
            copy(&self.world.path(format!("kept-{name}")), &self.world.path(name));
        }
    }

    /// Kills a backup at every call, at both moments, and looks at everything afterwards.
    fn at_every_call(&self, what: &str) {
        let config = self.world.path("lifeboat.toml");
        let calls = back_up(&config, Fault::counting);
        self.rewind();
        assert_eq!(back_up(&config, Fault::counting), calls, "the same run makes the same number of calls");
        assert!(calls > 10, "{calls} storage calls are no backup");
        let now = tree_of_sources(&self.world);
        let mut killed = 0;
        let mut left = Vec::new();
        for call in 1..=calls {
            for moment in ["before", "after"] {
                self.rewind();
                let at = format!("{call} {moment}");
                let status = self.child(&at);
                assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{what}, {at}: {status}");
                killed += 1;
                left.push(self.converges(&format!("{what}, killed {moment} call {call}"), &now));
            }
        }
        assert_eq!(killed, 2 * calls);
        // One moment divides them, or a commit would have been undone by going on.
        assert!(left.contains(&Left::Nothing) && left.contains(&Left::ACommittedBackup), "{left:?}");
        assert!(left.is_sorted_by_key(|left| *left == Left::ACommittedBackup), "{left:?}");
        let told = format!(
            "{what}: {calls} storage calls; killed at {killed} of {} points; {} left a committed backup\n",
            2 * calls,
            left.iter().filter(|left| **left == Left::ACommittedBackup).count()
        );
        std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
    }

    fn child(&self, at: &str) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kill::child", "--nocapture"]);
        command.env(CONFIG, self.world.path("lifeboat.toml")).env(KILL_AT, at);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    }

    /// The vault is sound, what is committed restores, the next run succeeds, and everybody agrees on what there is.
    fn converges(&self, what: &str, now: &str) -> Left {
        let world = &self.world;
        let check = world.run(&["check"]);
        assert_eq!(check.code, Some(0), "{what}: {}{}", check.stdout, check.stderr);
        let ids = listed(world);
        assert_restores(world, &ids, &self.before, now, what);
        let left = match ids.len() - self.before.len() {
            0 => Left::Nothing,
            1 => Left::ACommittedBackup,
            more => panic!("{what}: {more} new backups"),
        };
        assert_goes_on(world, &ids, what);
        // Each run once, the one that was killed too, however far it came.
        let runs = in_runs(world, "count(*) || ' ' || count(distinct started)");
        let all = self.before.len() + 2;
        assert_eq!(
            runs,
            format!("{all} {all}"),
            "{what}: {}",
            in_runs(world, "group_concat(started || ' ' || outcome)")
        );
        let failed = in_runs(world, "coalesce(sum(outcome = 'failed'), 0)");
        assert_eq!(failed, if left == Left::Nothing { "1" } else { "0" }, "{what}");
        left
    }
}

/// Every backup of the list restores to its tree: those from before to theirs, others to that of the sources now.
fn assert_restores(world: &World, ids: &[String], before: &BTreeMap<String, String>, now: &str, what: &str) {
    for id in before.keys() {
        assert!(ids.contains(id), "{what}: backup {id} is gone");
    }
    for id in ids {
        let out = world.path("out");
        let said = world.run(&["restore", id, "--to", "out", "--identity", "identity.txt", "-q"]);
        assert_eq!(said.code, Some(0), "{what}: {id}: {}", said.stderr);
        let restored = tree_of_restored(world, &out);
        assert_same(&restored, before.get(id).map_or(now, String::as_str), &format!("{what}: backup {id}"));
        fs::remove_dir_all(out).unwrap();
    }
}

/// The next backup and a drill succeed, numbers rise one by one, and catalog and vault name the same backups.
fn assert_goes_on(world: &World, ids: &[String], what: &str) {
    let again = world.run(&["backup"]);
    assert_eq!(again.code, Some(0), "{what}: {}", again.stderr);
    let drill = world.run(&["drill", "--identity", "identity.txt"]);
    assert_eq!(drill.code, Some(0), "{what}: {}{}", drill.stdout, drill.stderr);
    let after = listed(world);
    assert_eq!(after.len(), ids.len() + 1, "{what}: {after:?}");
    assert_eq!(&after[..ids.len()], ids, "{what}: the next backup is the newest");
    assert_eq!(sequences(world), (1..=after.len() as u64).collect::<Vec<_>>(), "{what}");
    assert_eq!(in_catalog(world), after, "{what}: the catalog");
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["state"], "ok", "{what}: {status}");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The ids of `list`, oldest first.
fn listed(world: &World) -> Vec<String> {
    let list = world.json(0, &["list"]);
    list["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// The same as the catalog has them.
fn in_catalog(world: &World) -> Vec<String> {
    let out = Command::new("sqlite3")
        .arg(world.path("state/catalog.sqlite"))
        .arg("select id from backups order by recovery_point")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Asks the catalog's runs.
fn in_runs(world: &World, what: &str) -> String {
    let mut sqlite = Command::new("sqlite3");
    let out = sqlite.arg(world.path("state/catalog.sqlite")).arg(format!("select {what} from runs")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// The sequence numbers of the manifests in the vault, sorted.
fn sequences(world: &World) -> Vec<u64> {
    let mut all = Vec::new();
    for key in world.keys("backups").iter().filter(|key| key.ends_with(".json")) {
        let text = fs::read(world.path("vault").join(key)).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        all.push(manifest["sequence"].as_u64().unwrap());
    }
    all.sort_unstable();
    all
}

/// Everything about the sources: the files, and what is in the database.
fn tree_of_sources(world: &World) -> String {
    format!("{}{}", listing(&world.path("uploads")), dump(&world.path("shop.db")))
}

fn tree_of_restored(world: &World, out: &Path) -> String {
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    format!("{}{}", listing(&out.join("uploads").join(below_root)), dump(&out.join("db/shop.db")))
}

fn dump(database: &Path) -> String {
    let out = Command::new("sqlite3").arg(database).arg(".dump").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A world with as little in it as shows every kind of segment: a bundle, a large file, a database.
fn little_world(drill: &str) -> World {
    let world = World::with_drill(drill);
    let uploads = world.path("uploads");
    for number in 3..40 {
        fs::remove_file(uploads.join(format!("small-{number:02}"))).unwrap();
    }
    fs::write(uploads.join("deep/large.bin"), noise(1_200_000, 200)).unwrap();
    world
}

#[test]
fn the_first_backup_is_killed_at_every_storage_call() {
    Replay::from_here(little_world(""), BTreeMap::new()).at_every_call("first backup");
}

#[test]
fn the_second_backup_is_killed_at_every_storage_call() {
    let world = little_world("");
    // Files that are younger than this are not believed by their times, and nothing would be named again unread.
    std::thread::sleep(Duration::from_millis(2_500));
    let first = world.backup();
    let before = BTreeMap::from([(first, tree_of_sources(&world))]);
    let uploads = world.path("uploads");
    fs::write(uploads.join("small-01"), noise(2_500, 77)).unwrap();
    fs::rename(uploads.join("small-02"), uploads.join("renamed")).unwrap();
    fs::write(uploads.join("new"), "new").unwrap();
    world.sql("delete from users where id < 100; insert into users values(1000, 'new', '2026-02-02 00:00:00')");
    Replay::from_here(world, before).at_every_call("second backup");
}

/// Not at the calls of a layer, but whenever: the seed makes the moments the same again, as far as a clock can.
#[test]
fn the_program_is_killed_at_random_moments() {
    const SEED: u64 = 20_261_122;
    let world = World::new();
    for number in 0..8_u8 {
        fs::write(world.path("uploads").join(format!("large-{number}")), noise(2_000_000, 100 + number)).unwrap();
    }
    let stopwatch = Instant::now();
    let first = world.backup();
    let whole = stopwatch.elapsed();
    let mut before = BTreeMap::from([(first, tree_of_sources(&world))]);
    let mut random = rand::rngs::StdRng::seed_from_u64(SEED);
    let mut killed = 0;
    for round in 0..6_u8 {
        for number in 0..8_u8 {
            fs::write(world.path("uploads").join(format!("large-{number}")), noise(2_000_000, round * 8 + number))
                .unwrap();
        }
        let now = tree_of_sources(&world);
        let mut running = world.command(&["backup"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(random.random_range(0.0..0.9)));
        running.kill().unwrap();
        killed += u64::from(running.wait().unwrap().signal() == Some(Signal::KILL.as_raw()));
        let what = format!("seed {SEED}, round {round}");
        world.expect(0, &["check"]);
        let ids = listed(&world);
        assert_restores(&world, &ids, &before, &now, &what);
        assert_goes_on(&world, &ids, &what);
        before.extend(
            listed(&world)
                .into_iter()
                .filter(|id| !before.contains_key(id))
                .map(|id| (id, now.clone()))
                .collect::<Vec<_>>(),
        );
    }
    assert!(killed > 0, "every run ended before it was killed");
}

/// Waits for a line with this in it on a child's stderr; gives what was read.
fn wait_for_line(stderr: &mut impl BufRead, wanted: &str) {
    let mut all = String::new();
    while !all.contains(wanted) {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without {wanted:?}: {all}");
        all.push_str(&line);
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

#[test]
fn a_backup_that_is_asked_to_end_commits_nothing() {
    let world = World::new();
    let first = world.backup();
    // A writer in rollback mode keeps the run from its end for as long as we want.
    let mut writer = Command::new("sqlite3")
        .arg(world.path("shop.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = writer.stdin.take().unwrap();
    std::io::Write::write_all(&mut orders, b"begin exclusive; select 'held';\n").unwrap();
    wait_for_line(&mut BufReader::new(writer.stdout.take().unwrap()), "held");

    let lock = world.path("state/locks/shop.backup.lock");
    fs::write(&lock, "").unwrap();
    let mut running = world.command(&["backup"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    // Signals are watched before the job is locked.
    wait_until("the run", || fs::metadata(&lock).unwrap().len() > 0);
    terminate(&running);
    wait_for_line(&mut stderr, "ending in good order");
    std::io::Write::write_all(&mut orders, b"commit;\n").unwrap();
    drop(orders);
    assert!(writer.wait().unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("nothing was committed"), "{rest}");
    assert_eq!(listed(&world), [first]);
    world.expect(0, &["check"]);
    world.backup();
    assert_eq!(sequences(&world), [1, 2]);
}

#[test]
fn a_drill_that_is_asked_to_end_cleans_up() {
    // The check would hold the drill for an hour, or up to its deadline, if the signal were not heeded.
    let world =
        World::with_drill("check_timeout = \"1m\"\nchecks = [ { command = [\"sh\", \"-c\", \"sleep 3600; true\"] } ]");
    world.backup();
    let mut command = world.command(&["drill", "--identity", "identity.txt"]);
    let mut running = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    wait_until("the check", || sleeper(running.id()));
    terminate(&running);
    wait_for_line(&mut stderr, "ending in good order");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(130), "{rest}");
    assert!(fs::read_dir(world.scratch()).unwrap().next().is_none(), "scratch is not empty");
    assert!(world.keys("records").iter().all(|key| !key.contains("drill")), "{:?}", world.keys("records"));
    // It is no verdict on the backup.
    assert_eq!(world.json(0, &["list"])["backups"][0]["verdict"], "unproven");
}

/// Nobody is left to say how it ended, and its record would be missed.
#[test]
fn what_was_killed_is_on_record_with_the_next() {
    let world =
        World::with_drill("check_timeout = \"1m\"\nchecks = [ { command = [\"sh\", \"-c\", \"sleep 3600; true\"] } ]");
    world.backup();
    let mut command = world.command(&["drill", "--identity", "identity.txt"]);
    let mut running = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the check", || sleeper(running.id()));
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(world.path("state/locks/shop.drill.begun").exists());
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("sleep 3600; true", "true")).unwrap();
    let said = world.run(&["drill", "--identity", "identity.txt"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("never ended: it was killed"), "{}", said.stderr);
    assert!(!world.path("state/locks/shop.drill.begun").exists());
    let report = world.json(0, &["report"]);
    let text = report.to_string();
    assert_eq!(text.matches("\"error_code\":\"killed\"").count(), 1, "{report}");
    assert!(text.contains("failed_drill"), "{report}");
    // The next one has nothing more to say of it.
    let again = world.run(&["drill", "--identity", "identity.txt"]);
    assert!(again.code == Some(0) && !again.stderr.contains("killed"), "{}", again.stderr);
    // A backup's mark, as a power cut leaves it.
    fs::write(world.path("state/locks/shop.backup.begun"), "2026-01-01T02:00:00Z\n").unwrap();
    let said = world.run(&["backup"]);
    assert!(said.code == Some(0) && said.stderr.contains("2026-01-01 02:00:00 UTC"), "{}", said.stderr);
    assert_eq!(in_runs(&world, "sum(error_code = 'killed' and outcome = 'failed')"), "1");
}

/// Whether the process has a descendant that sleeps for an hour.
fn sleeper(ancestor: u32) -> bool {
    let mut processes = vec![ancestor];
    while let Some(process) = processes.pop() {
        if fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line == b"sleep\x003600\x00") {
            return true;
        }
        for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            processes.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        }
    }
    false
}
