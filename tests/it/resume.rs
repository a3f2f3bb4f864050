//! A backup beside other hosts and sweeps, and one that goes on where the last one broke off: claims, journals, condemned
//! lists, refutations, and the share of what is reused that each run hashes again.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lifeboat::clock::{Clock, ManualClock, SystemClock};
use lifeboat::config::Settings;
use lifeboat::domain::ids::{BackupId, ObjectId, RecordId, Stamp};
use lifeboat::domain::manifest::{Manifest, SourceEntry};
use lifeboat::domain::record::{
    CondemnedRecord, Finder, RECORD_VERSION, Record, RecordBody, RefutationRecord, RunOutcome,
};
use lifeboat::error::Code;
use lifeboat::observe::{Progress, Silent};
use lifeboat::operations::backup::{RunReport, backup};
use lifeboat::operations::host::Host;
use lifeboat::operations::interrupt::Interrupt;
use lifeboat::operations::vaults::{self, OpenVault, Trusted};
use lifeboat::storage::Storage;
use lifeboat::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use lifeboat::storage::local::Local;
use lifeboat::vault::layout::Key;
use lifeboat::vault::records::write_record;
use lifeboat::vault::signing::sign;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use crate::by_hand::{assert_same, listing};
use crate::forge::Forge;
use crate::support::{World, noise};

/// The world's config for the child; without it the child is no child.
const CONFIG: &str = "LIFEBOAT_IT_RESUME_CONFIG";
/// The number of the storage call at which it is killed.
const KILL_AT: &str = "LIFEBOAT_IT_RESUME_KILL_AT";

/// A clock by which an hour passes each time somebody asks how long something took: every upload is followed by a sync.
#[derive(Default)]
struct Hurried {
    system: SystemClock,
    asked: AtomicU64,
}

impl Clock for Hurried {
    fn now(&self) -> DateTime<Utc> {
        self.system.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(3600 * self.asked.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a test does to a run from outside, at the beginning of each source.
struct AtBegin<F: Fn(&str) + Send + Sync>(F);

impl<F: Fn(&str) + Send + Sync> Progress for AtBegin<F> {
    fn begin(&self, stage: &str, _total_bytes: Option<u64>) {
        (self.0)(stage);
    }
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn warn(&self, _message: &str) {}
}

/// Backs up the job of a config through the library.
fn back_up(
    config: &Path,
    clock: Arc<dyn Clock>,
    progress: &dyn Progress,
    layer: impl FnOnce(Arc<dyn Storage>) -> Arc<dyn Storage>,
) -> lifeboat::error::Result<RunReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settings = Settings::load(Some(config)).unwrap();
    let host = Host::bare(runtime.handle().clone(), clock, Interrupt::default());
    let host = host.with_home(&settings.state_dir).unwrap();
    let job = settings.jobs.values().next().unwrap();
    let vault = vaults::open(&host, settings.vault_of(job).unwrap(), None, &Trusted::default()).unwrap();
    let vault = OpenVault { storage: layer(vault.storage), ..vault };
    backup(&host, &vault, job, settings.without_secrets(&job.name), progress)
}

fn config(world: &World) -> std::path::PathBuf {
    world.path("lifeboat.toml")
}

/// The process that is killed. In an ordinary run of all tests there are no variables, and nothing to do here.
#[test]
fn child() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let at_call = std::env::var(KILL_AT).unwrap().parse().unwrap();
    let effect = Effect::Call(|| kill_process(getpid(), Signal::KILL).unwrap());
    let plan = Plan { at_call, moment: Moment::Before, effect, lasting: Lasting::Once };
    back_up(Path::new(&config), Arc::new(Hurried::default()), &Silent, |storage| {
        Arc::new(Fault::planned(storage, plan))
    })
    .unwrap();
    panic!("still alive");
}

/// Kills a backup of this world when it has made about this share of its calls to the store.
fn kill_at(world: &World, share: f64) {
    for name in ["vault", "state"] {
        copy(&world.path(name), &world.path(format!("kept-{name}")));
    }
    let counting = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&counting);
    let report = back_up(&config(world), Arc::new(Hurried::default()), &Silent, |storage| {
        let fault = Arc::new(Fault::counting(storage));
        *seen.lock().unwrap() = Some(Arc::clone(&fault));
        fault
    });
    assert_eq!(report.unwrap().outcome, RunOutcome::Success);
    let calls = counting.lock().unwrap().as_ref().unwrap().calls();
    for name in ["vault", "state"] {
        fs::remove_dir_all(world.path(name)).unwrap();
        fs::rename(world.path(format!("kept-{name}")), world.path(name)).unwrap();
    }
    let at_call = (calls as f64 * share) as u64;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resume::child", "--nocapture"]);
    command.env(CONFIG, config(world)).env(KILL_AT, at_call.to_string());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "killed at call {at_call} of {calls}: {status}");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The newest backup restores to what the sources are now.
fn assert_restores(world: &World) {
    let out = world.path("out");
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt", "-q"]);
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    assert_same(&listing(&out.join("uploads").join(below_root)), &listing(&world.path("uploads")), "uploads");
    let dump = |path: &Path| {
        String::from_utf8(Command::new("sqlite3").arg(path).arg(".dump").output().unwrap().stdout).unwrap()
    };
    assert_eq!(dump(&out.join("db/shop.db")), dump(&world.path("shop.db")));
    fs::remove_dir_all(out).unwrap();
}

fn sizes(world: &World, keys: &[String]) -> u64 {
    keys.iter().map(|key| fs::metadata(world.path("vault").join(key)).unwrap().len()).sum()
}

/// Every object that a backup names.
fn named(forge: &Forge, manifest: &Manifest) -> Vec<ObjectId> {
    manifest.sources.iter().flat_map(|source| named_by(forge, source)).collect()
}

fn named_by(forge: &Forge, source: &SourceEntry) -> Vec<ObjectId> {
    let segments = forge.segments(source);
    segments.iter().map(|segment| segment.object).chain(source.contents.iter().copied()).collect()
}

fn key_of(object: ObjectId) -> String {
    Key::Object(object).to_string()
}

fn flip(world: &World, key: &str) {
    let path = world.path("vault").join(key);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Writes a record that says this, signed with the host's key.
fn write(forge: &Forge, body: RecordBody) {
    let last = forge.manifests().pop().unwrap();
    let record = Record {
        version: RECORD_VERSION,
        vault: last.vault,
        job: last.job,
        id: RecordId::from_random(rand::random()),
        host: last.host,
        tool: last.tool,
        recorded: Utc::now(),
        body,
        details: None,
    };
    forge.runtime.block_on(write_record(&*forge.storage, &forge.host_key, &record, None)).unwrap();
}

fn condemn(forge: &Forge, objects: &[ObjectId], lists: &[ObjectId]) {
    write(forge, RecordBody::Condemned(CondemnedRecord { objects: objects.to_vec(), lists: lists.to_vec() }));
}

fn run_of(document: &Value) -> &Value {
    &document["runs"][0]
}

#[test]
fn a_killed_backup_is_gone_on_with() {
    let world = World::new();
    fs::write(world.path("uploads/more.bin"), noise(6_000_000, 210)).unwrap();
    kill_at(&world, 0.6);
    let (there, lists) = (world.keys("objects"), world.keys("lists"));
    assert_eq!(world.keys("claims").len(), 1, "what the journal names stays claimed");
    let document = world.json(0, &["backup"]);
    let run = run_of(&document);
    assert!(run["resumed_segments"].as_u64().unwrap() > 0, "{document:#}");

    // What is told as new is what was not there: to the byte.
    let forge = Forge::of(&world);
    let manifest = forge.manifests().pop().unwrap();
    let mut taken_over: Vec<String> = named(&forge, &manifest).into_iter().map(key_of).collect();
    taken_over.sort_unstable();
    taken_over.dedup();
    taken_over.retain(|key| there.contains(key));
    let new_lists: Vec<String> = world.keys("lists").into_iter().filter(|key| !lists.contains(key)).collect();
    let backup = &run["backup"];
    assert_eq!(
        backup["new_bytes"].as_u64().unwrap(),
        backup["stored_bytes"].as_u64().unwrap() - sizes(&world, &taken_over) + sizes(&world, &new_lists),
    );
    assert_restores(&world);
    world.expect(0, &["check"]);
    assert_eq!(world.keys("claims"), [""; 0], "given up after the commit");
    let left = Command::new("find").arg(world.path("state/resume")).args(["-type", "f"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "a journal is no use any more");
    assert_eq!(run_of(&world.json(0, &["backup"]))["resumed_segments"], 0);
}

#[test]
fn a_second_backup_that_is_killed_is_gone_on_with_too() {
    let world = World::new();
    world.backup();
    fs::write(world.path("uploads/new.bin"), noise(6_000_000, 210)).unwrap();
    kill_at(&world, 0.6);
    let document = world.json(0, &["backup"]);
    assert!(run_of(&document)["resumed_segments"].as_u64().unwrap() > 0, "{document:#}");
    assert_restores(&world);
    world.expect(0, &["check"]);
}

#[test]
fn what_was_changed_or_lost_since_the_kill_is_sealed_anew() {
    for tamper in [flip as fn(&World, &str), |world, key| fs::remove_file(world.path("vault").join(key)).unwrap()] {
        let world = World::new();
        kill_at(&world, 0.8);
        let there = world.keys("objects");
        // The canary of init is among them, and is nobody's segment.
        assert!(there.len() > 2, "{there:?}");
        there.iter().for_each(|key| tamper(&world, key));
        let document = world.json(0, &["backup"]);
        assert_eq!(run_of(&document)["resumed_segments"], 0, "{document:#}");
        assert_restores(&world);
    }
}

#[test]
fn a_journal_means_nothing_once_the_recipients_are_others() {
    let world = World::new();
    kill_at(&world, 0.8);
    world.expect(0, &["key", "new", "another.txt"]);
    let key = world.json(0, &["key", "show", "another.txt"]);
    let text = fs::read_to_string(config(&world)).unwrap();
    let recipient = key["recipients"][0].as_str().unwrap();
    let changed = text.replacen("recipients = [", &format!("recipients = [\"{recipient}\", "), 1);
    assert_ne!(text, changed);
    fs::write(config(&world), changed).unwrap();
    let document = world.json(0, &["backup"]);
    assert_eq!(run_of(&document)["resumed_segments"], 0, "{document:#}");
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "another.txt", "-q"]);
}

/// A claim of a host, in the vault.
fn claim(world: &World, host: &str, until: DateTime<Utc>) -> String {
    let trust: Value = serde_json::from_slice(&fs::read(world.path("vault/vault.json")).unwrap()).unwrap();
    let claim = json!({
        "type": "lifeboat-claim", "version": 1, "vault": trust["vault"], "job": "shop", "run": "00112233445566ff",
        "number": 1, "host": host, "since": Utc::now(), "until": until, "bases": [], "lists": [], "contents": [],
    });
    let key = "claims/shop/00112233445566ff-1.json";
    fs::create_dir_all(world.path("vault/claims/shop")).unwrap();
    fs::write(world.path("vault").join(key), claim.to_string()).unwrap();
    key.to_owned()
}

#[test]
fn another_hosts_claim_holds_and_lapses() {
    let world = World::new();
    let key = claim(&world, "web-9", Utc::now() + TimeDelta::hours(1));
    let records = world.keys("records");
    let said = world.expect(11, &["backup"]);
    assert!(said.stderr.contains("web-9") && said.stderr.contains(&key), "{}", said.stderr);
    assert_eq!(world.keys("claims"), std::slice::from_ref(&key), "nothing was tried");
    assert_eq!(world.keys("records"), records, "and nothing is recorded");

    fs::write(world.path("vault").join(&key), "{").unwrap();
    assert!(world.expect(11, &["backup"]).stderr.contains("cannot be read"));

    claim(&world, "web-9", Utc::now() - TimeDelta::seconds(1));
    world.backup();
    assert_eq!(world.keys("claims"), [key], "one that has lapsed is for a sweep to remove");
}

#[test]
fn this_hosts_own_claim_is_superseded() {
    let world = World::new();
    world.backup();
    let host = Forge::of(&world).manifests()[0].host.clone();
    claim(&world, &host, Utc::now() + TimeDelta::hours(1));
    world.backup();
    assert_eq!(world.keys("claims"), [""; 0]);
}

#[test]
fn a_run_that_stored_nothing_gives_its_claim_up() {
    let world = World::new();
    world.backup();
    fs::rename(world.path("uploads"), world.path("away")).unwrap();
    fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    assert_ne!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.keys("claims"), [""; 0]);
}

#[test]
fn a_claim_that_lapsed_stops_the_commit_and_the_next_run_goes_on() {
    let world = World::new();
    let clock = Arc::new(ManualClock::at(Utc::now()));
    let late = Arc::clone(&clock);
    let sleeps = AtBegin(move |stage: &str| {
        if stage.contains("db") {
            late.advance(Duration::from_secs(3 * 3600));
        }
    });
    let report = back_up(&config(&world), clock, &sleeps, |storage| storage).unwrap();
    let failure = report.failure.unwrap();
    assert_eq!((report.outcome, failure.code()), (RunOutcome::Failed, Code::ClaimLost), "{failure}");
    assert_eq!(world.keys("backups").len(), 0);
    assert_eq!(world.keys("claims").len(), 1, "what it stored is not forgotten");
    let document = world.json(0, &["backup"]);
    assert!(run_of(&document)["resumed_segments"].as_u64().unwrap() > 0, "{document:#}");
    assert_eq!(world.keys("claims"), [""; 0]);
    assert_restores(&world);
}

#[test]
fn clocks_that_do_not_agree_are_refused() {
    let world = World::new();
    world.backup();
    let before = world.keys("backups");
    let ahead = Arc::new(ManualClock::at(Utc::now() + TimeDelta::minutes(10)));
    let vault = world.path("vault");
    let report = back_up(&config(&world), ahead, &Silent, |_| {
        Arc::new(Local::open(&vault, Arc::new(SystemClock::default())).unwrap())
    });
    assert_eq!(report.unwrap().failure.unwrap().code(), Code::ClockWrong);
    assert_eq!(world.keys("backups"), before);

    // One clock, as on one machine, that ran ahead for a while and was put right.
    let ahead = Arc::new(ManualClock::at(Utc::now() + TimeDelta::minutes(10)));
    let report = back_up(&config(&world), ahead, &Silent, |storage| storage).unwrap();
    assert_eq!(report.outcome, RunOutcome::Success);
    let said = world.expect(1, &["backup"]);
    assert!(said.stderr.contains("clock-wrong"), "{}", said.stderr);
    assert_eq!(world.keys("claims"), [""; 0]);
}

#[test]
fn what_is_condemned_is_not_named_again() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    let object = forge.segments(&first.sources[0])[0].object;
    condemn(&forge, &[object], &[first.sources[1].lists[0]]);
    let document = world.json(0, &["backup"]);
    let second = forge.manifests().pop().unwrap();
    assert!(!named(&forge, &second).contains(&object));
    assert_eq!(run_of(&document)["backup"]["new_segments"], 1, "and everything else is: {document:#}");
    // The other source did not change: the same lines, under another name.
    assert_eq!(forge.segments(&second.sources[1]), forge.segments(&first.sources[1]));
    assert_ne!(second.sources[1].lists, first.sources[1].lists);
    // As a sweep would.
    fs::remove_file(world.path("vault").join(key_of(object))).unwrap();
    fs::remove_file(world.path("vault").join(Key::List(first.sources[1].lists[0]).to_string())).unwrap();
    assert_restores(&world);
}

#[test]
fn a_condemned_list_of_a_newer_lifeboat_may_name_anything() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    let id = RecordId::from_random([9; 8]);
    let document = json!({
        "version": RECORD_VERSION + 1, "vault": first.vault, "job": first.job, "id": id, "host": first.host,
        "tool": "lifeboat 9.0.0", "recorded": Utc::now(), "type": "condemned", "everything": true,
    });
    let document = document.to_string().into_bytes();
    let scope = format!("lifeboat-condemned vault={} job={} id={id}", first.vault, first.job);
    let key = format!("records/condemned/{}-{id}.json", Stamp::of(Utc::now()));
    forge.put(&format!("{key}.minisig"), sign(&forge.host_key, &document, &scope));
    forge.put(&key, document);
    let said = world.expect(20, &["backup"]);
    assert!(said.stderr.contains(&key) && said.stderr.contains("stored anew"), "{}", said.stderr);
    let before = named(&forge, &first);
    assert!(named(&forge, &forge.manifests()[1]).iter().all(|object| !before.contains(object)));
}

#[test]
fn what_a_sweep_condemns_meanwhile_stops_the_commit() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    let object = forge.segments(&first.sources[0])[0].object;
    let sweeps = AtBegin(|stage: &str| {
        // Not on a thread of the run's own runtime.
        if stage.contains("db") {
            std::thread::scope(|scope| drop(scope.spawn(|| condemn(&forge, &[object], &[])).join()));
        }
    });
    let report = back_up(&config(&world), Arc::new(SystemClock::default()), &sweeps, |storage| storage).unwrap();
    assert_eq!(report.failure.unwrap().code(), Code::ClaimLost);
    assert_eq!(forge.manifests().len(), 1);
    world.backup();
    assert_eq!(forge.manifests().len(), 2);
    assert_restores(&world);
}

#[test]
fn what_is_refuted_by_name_is_not_named_again_and_all_else_is() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    let object = forge.segments(&first.sources[0])[0].object;
    let refute = |objects: Vec<ObjectId>, backup: &BackupId| {
        let body = RefutationRecord {
            found_by: Finder::Check,
            objects,
            lists: Vec::new(),
            backups: vec![backup.clone()],
            error_code: "object-damaged".to_owned(),
        };
        write(&forge, RecordBody::Refutation(body));
    };
    refute(vec![object], &first.id);
    let document = world.json(0, &["backup"]);
    assert_eq!(run_of(&document)["backup"]["new_segments"], 1, "{document:#}");
    let second = forge.manifests().pop().unwrap();
    assert!(!named(&forge, &second).contains(&object));

    // With no names at all, anything in it may be what is wrong.
    refute(Vec::new(), &second.id);
    world.backup();
    let third = forge.manifests().pop().unwrap();
    let doubtful = named(&forge, &second);
    assert!(named(&forge, &third).iter().all(|object| !doubtful.contains(object)));
    assert_restores(&world);
}

/// Each run looks at one object in 32 again: those whose first byte fits its number.
#[test]
fn damage_in_what_is_reused_is_found_and_mended() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let first = forge.manifests().pop().unwrap();
    // Whichever comes soonest.
    let turn = |object: &ObjectId| (u64::from(object.0[0] % 32) + 32 - 2) % 32 + 2;
    let segments = forge.segments(&first.sources[0]);
    let object = segments.iter().map(|segment| segment.object).min_by_key(turn).unwrap();
    flip(&world, &key_of(object));
    for _ in 2..turn(&object) {
        world.backup();
    }
    let before = forge.manifests();
    assert!(before.iter().all(|manifest| named(&forge, manifest).contains(&object)), "it was reused so far");
    let said = world.expect(0, &["backup"]);
    assert!(said.stderr.contains(&key_of(object)) && said.stderr.contains("lifeboat check shop"), "{}", said.stderr);
    let mended = forge.manifests().pop().unwrap();
    assert!(!named(&forge, &mended).contains(&object));
    assert_eq!(mended.total(|source| source.new_segments), 1, "that piece was stored anew");
    assert_restores(&world);
    let records: Vec<String> =
        world.keys("records/refutations").into_iter().filter(|key| key.ends_with(".json")).collect();
    let record: Record = serde_json::from_slice(&fs::read(world.path("vault").join(&records[0])).unwrap()).unwrap();
    let RecordBody::Refutation(body) = record.body else { panic!("{record:?}") };
    assert_eq!((body.found_by, body.objects, records.len()), (Finder::Backup, vec![object], 1));
    let mut spoilt = body.backups;
    spoilt.sort();
    let mut expected: Vec<BackupId> = before.iter().map(|manifest| manifest.id.clone()).collect();
    expected.sort();
    assert_eq!(spoilt, expected);
    world.backup();
    assert_eq!(world.keys("records/refutations").len(), 2, "it is told once");
}
