//! What stops a prune, what it goes past, and what it says of itself, with real backups in a store in memory.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::Settings;
use crate::domain::manifest::Manifest;
use crate::observe::Silent;
use crate::operations::backup::backup;
use crate::operations::check::{Depth, check};
use crate::operations::interrupt::Interrupt;
use crate::operations::quarantine::quarantine;
use crate::storage::memory::Memory;
use crate::storage::{Deleted, Listed, LockMode, Put, Storage, StorageError};
use crate::vault::keys::SigningKey;
use crate::vault::layout::Key;
use crate::vault::survey::survey;
use crate::vault::trust::{HostEntry, TrustDocument};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

struct World {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Memory,
    trust: TrustDocument,
    hosts: Vec<Arc<Host>>,
    settings: Settings,
}

impl World {
    /// Two hosts, jobs `shop` and `blog`, kept for 14 days and gone after 30.
    fn new() -> Self {
        Self::with("", None)
    }

    /// With more in each job's retention, in a store that may hold.
    fn with(thinning: &str, lock: Option<LockMode>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let start = "2026-11-22T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::at(start));
        let (mut hosts, mut entries) = (Vec::new(), Vec::new());
        for name in ["web-1", "web-2"] {
            let host = Host::bare(runtime.handle().clone(), Arc::<ManualClock>::clone(&clock), Interrupt::default());
            let host = host.with_home(&folder.path().join(name)).unwrap();
            let key = SigningKey::generate();
            key.write_new(&host.home().unwrap().state.host_key(), "test").unwrap();
            hosts.push(Arc::new(host));
            entries.push(HostEntry {
                name: name.to_owned(),
                key: key.public().clone(),
                jobs: vec![JobPattern::Any],
                from: start,
                until: None,
                revoked: None,
            });
        }
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "what is backed up").unwrap();
        let job = |name: &str| {
            format!(
                "[job.{name}]\nschedule = \"0 2 * * *\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\"{thinning} }}\n\
                 [job.{name}.source.uploads]\nkind = \"files\"\npaths = [{data:?}]\n"
            )
        };
        let text =
            format!("[vault.main]\nurl = \"/nowhere\"\nrecipients = [\"{RECIPIENT}\"]\n{}{}", job("shop"), job("blog"));
        let settings = Settings::parse(&text, Path::new("/etc/lifeboat.toml")).unwrap();
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = match lock {
            None => Memory::new(time),
            Some(mode) => Memory::with_lock(time, mode),
        };
        // What is in them nobody here asks for; a store that holds is asked to hold them.
        for key in [Key::Trust, Key::TrustSignature] {
            runtime.block_on(store.replace(&key.to_string(), Bytes::from_static(b"trust"))).unwrap();
        }
        let trust = TrustDocument::first(crate::domain::ids::VaultId::from_random([1; 8]), start, entries);
        Self { runtime, folder, clock, store, trust, hosts, settings }
    }

    fn vault_on(&self, storage: Arc<dyn Storage>) -> OpenVault {
        OpenVault {
            id: self.trust.vault.clone(),
            settings: self.settings.vaults["main"].clone(),
            storage,
            trust: self.trust.clone(),
        }
    }

    fn vault(&self) -> OpenVault {
        self.vault_on(Arc::new(self.store.another_handle()))
    }

    fn wait(&self, by: TimeDelta) {
        self.clock.advance(by.to_std().unwrap());
    }

    fn backup(&self, job: &str) -> Manifest {
        std::fs::write(self.folder.path().join("data/daily"), self.clock.now().to_rfc3339()).unwrap();
        let job = &self.settings.jobs[&job.parse::<JobName>().unwrap()];
        let job = &self.settings.holding(job, self.clock.now());
        let report = backup(&self.hosts[0], &self.vault(), job, serde_json::Value::Null, &Silent).unwrap();
        report.manifest.unwrap_or_else(|| panic!("{:?}", report.failure))
    }

    fn nights(&self, job: &str, count: usize) -> Vec<Manifest> {
        let night = |_| {
            let manifest = self.backup(job);
            self.wait(TimeDelta::days(1));
            manifest
        };
        (0..count).map(night).collect()
    }

    /// A request of a process that began now, for all jobs.
    fn request(&self) -> PruneRequest<'_> {
        let now = self.clock.now();
        PruneRequest {
            jobs: self.settings.jobs.values().map(|job| (job, self.settings.lead_of(job, now))).collect(),
            zone: self.settings.timezone,
            grace: Duration::from_secs(24 * 3600),
            promises: self.settings.jobs.values().map(|job| (job.name.clone(), job.retention)).collect(),
            dry_run: false,
            began: now,
            after_pause: AfterPause::Stop,
            glance: None,
        }
    }

    fn prune(&self, request: &PruneRequest<'_>) -> PruneReport {
        prune(&self.hosts[0], &self.vault(), request, &Silent).unwrap()
    }

    fn there(&self) -> Vec<BackupId> {
        let survey = self.runtime.block_on(survey(&self.store.another_handle(), &self.trust, None)).unwrap();
        survey.manifests.into_iter().map(|verified| verified.manifest.id).collect()
    }

    /// Makes a manifest disappear, signature and all.
    fn lose(&self, manifest: &Manifest) {
        let name = ManifestName::of(manifest);
        self.runtime.block_on(remove_manifest(&self.store, &name)).unwrap();
    }

    fn lies_there(&self, manifest: &Manifest) -> bool {
        let key = Key::Manifest(ManifestName::of(manifest)).to_string();
        self.runtime.block_on(self.store.another_handle().size(&key)).unwrap().is_some()
    }

    fn say_removed(&self, manifest: &Manifest) {
        let sequence = manifest.sequence;
        let body = RecordBody::Removal(Box::new(RemovalRecord {
            backup: manifest.id.clone(),
            summary: None,
            reason: RemovalReason::Expired,
            gone: vec![SequenceRange { first: sequence, last: sequence }],
        }));
        records::write(&self.hosts[1], &self.vault(), &manifest.job, body, None).unwrap();
    }
}

#[track_caller]
fn stop<'r>(report: &'r PruneReport, reason: &str, hint: &str) -> &'r str {
    assert_eq!(report.stops.len(), 1, "{:?}", report.stops);
    let (said, typed) = &report.stops[0];
    assert!(said.contains(reason) && typed.contains(hint), "{said}\n{typed}");
    assert!(report.removed.is_empty() && report.deleted_objects == 0 && report.condemned_objects == 0);
    said
}

#[test]
fn a_clock_that_jumped_removes_nothing_until_runs_go_on_or_a_person_says_so() {
    let world = World::new();
    let made = world.nights("shop", 5);
    world.wait(TimeDelta::days(365));
    let request = world.request();
    world.backup("shop");
    world.wait(TimeDelta::minutes(1));
    stop(&world.prune(&request), "nothing was written into this vault for", "`lifeboat prune --after-pause`");
    assert_eq!(world.there().len(), made.len() + 1);
    // Nor does a prune of its own some hours later, which finds that backup and that prune.
    world.wait(TimeDelta::hours(2));
    stop(&world.prune(&world.request()), "nothing was written", "date -u");
    // The next night's does.
    world.wait(TimeDelta::hours(21));
    let request = world.request();
    world.backup("shop");
    let report = world.prune(&request);
    assert_eq!((report.stops.len(), report.removed.len()), (0, 5), "{:?}", report.stops);

    let world = World::new();
    world.nights("shop", 5);
    world.wait(TimeDelta::days(31));
    let request = world.request();
    world.backup("shop");
    assert_eq!(world.prune(&PruneRequest { after_pause: AfterPause::GoOn, ..request }).removed.len(), 5);
}

#[test]
fn a_removal_that_comes_too_early_is_not_finished() {
    let world = World::new();
    let made = world.nights("shop", 3);
    world.say_removed(&made[1]);
    let request = world.request();
    stop(&world.prune(&request), "younger than 14d", &format!("`lifeboat quarantine {}`", made[1].id));
    assert!(world.lies_there(&made[1]));
    // A person who looked at it goes on, and it stays as long as it must, with what it names.
    quarantine(&world.hosts[0], &world.vault(), made[1].id.as_str()).unwrap();
    let report = world.prune(&world.request());
    assert!(report.stops.is_empty() && report.condemned_objects == 0, "{report:?}");
    assert!(world.lies_there(&made[1]));
    assert!(quarantine(&world.hosts[0], &world.vault(), made[1].id.as_str()).is_err(), "once is enough");
    world.nights("shop", 12);
    world.prune(&world.request());
    assert!(!world.lies_there(&made[1]));
}

#[test]
fn a_lost_tail_or_a_lost_job_is_no_garbage() {
    let world = World::new();
    let shop = world.nights("shop", 3);
    let blog = world.nights("blog", 2);
    shop[1..].iter().for_each(|manifest| world.lose(manifest));
    stop(&world.prune(&world.request()), "backups number 2 to 3 of shop", "`lifeboat quarantine shop#2-3`");
    let quarantine = |what: &str| quarantine(&world.hosts[0], &world.vault(), what);
    assert!(quarantine("shop#3-4").is_err() && quarantine("shop#1").is_err());
    quarantine("shop#3").unwrap();
    stop(&world.prune(&world.request()), "backup number 2 of shop", "`lifeboat quarantine shop#2`");
    quarantine("shop#2").unwrap();
    assert!(world.prune(&world.request()).stops.is_empty());
    blog.iter().for_each(|manifest| world.lose(manifest));
    stop(&world.prune(&world.request()), "backups number 1 to 2 of blog", "`lifeboat quarantine blog#1-2`");
}

#[test]
fn removals_of_a_job_that_is_not_in_the_config_are_finished() {
    let world = World::new();
    let blog = world.nights("blog", 2);
    world.say_removed(&blog[0]);
    let without_blog = || {
        let mut request = world.request();
        request.jobs.retain(|(job, _)| job.name.as_str() == "shop");
        request.promises.retain(|job, _| job.as_str() == "shop");
        request
    };
    // Young as far as is known here: its own host may keep it for a shorter time, and ends what it began.
    let report = world.prune(&without_blog());
    assert_eq!((report.stops.len(), report.condemned_objects), (0, 0), "{report:?}");
    assert!(world.lies_there(&blog[0]));
    world.nights("shop", 15);
    let report = world.prune(&without_blog());
    assert_eq!(report.unknown_jobs, ["blog".parse().unwrap()]);
    assert!(!world.lies_there(&blog[0]) && world.lies_there(&blog[1]));
    assert!(report.clean_through.is_some(), "{report:?}");
}

#[test]
fn what_was_removed_too_late_is_told_until_it_is_swept() {
    let world = World::new();
    let made = world.nights("shop", 2);
    world.wait(TimeDelta::days(29));
    let go_on = || PruneRequest { after_pause: AfterPause::GoOn, ..world.request() };
    let report = world.prune(&go_on());
    assert_eq!(report.unswept, [("shop".parse().unwrap(), made[0].id.clone())], "{report:?}");
    world.wait(TimeDelta::hours(25));
    let report = world.prune(&go_on());
    assert!(report.unswept.is_empty() && report.deleted_objects > 0, "{report:?}");
}

/// A store that does not let go of one key, and that calls somebody right before the first claim.
struct Meddler {
    inner: Memory,
    kept: Option<String>,
    before_claim: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meddler").field("kept", &self.kept).finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for Meddler {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        if key.starts_with("claims/") {
            let call = crate::operations::lock(&self.before_claim).take();
            call.into_iter().for_each(|call| call());
        }
        self.inner.put(key, bytes).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.inner.replace(key, bytes).await
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        self.inner.get(key, limit_bytes).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        self.inner.size(key).await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        self.inner.list(prefix, visit).await
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        if self.kept.as_deref() == Some(key) {
            let source = std::io::Error::other("kept");
            return Err(StorageError::Failed { place: self.describe(), doing: format!("deleting {key}"), source });
        }
        self.inner.delete(key).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.inner.sync().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        self.inner.now().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        self.inner.available_bytes().await
    }

    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        self.inner.forget_cached(key).await
    }
}

#[test]
fn one_manifest_that_cannot_be_deleted_keeps_no_other_and_the_account_is_true() {
    let world = World::new();
    let made = world.nights("shop", 30);
    let kept = Key::Manifest(ManifestName::of(&made[1])).to_string();
    let vault = || {
        let inner = world.store.another_handle();
        let meddler = Meddler { inner, kept: Some(kept.clone()), before_claim: Mutex::default() };
        world.vault_on(Arc::new(meddler))
    };
    let mut removed = 0;
    for _ in 0..2 {
        let report = prune(&world.hosts[0], &vault(), &world.request(), &Silent).unwrap();
        assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
        assert!(report.failures[0].to_string().contains(&kept));
        assert_eq!(report.clean_through, None);
        removed += report.removed.len();
        let catalog = &world.hosts[0].home().unwrap().catalog;
        let prunes = world.runtime.block_on(catalog.prunes(&world.trust.vault, Some(&made[0].job))).unwrap();
        let newest = &prunes.last().unwrap().body;
        assert_eq!((newest.outcome, newest.removed_backups), (PruneOutcome::Failed, report.removed.len() as u64));
        world.wait(TimeDelta::hours(1));
    }
    assert!(removed > 2 && world.there().len() == made.len() - removed, "{removed}");
    assert!(world.lies_there(&made[1]) && !world.lies_there(&made[2]));
    assert!(world.prune(&world.request()).failures.is_empty());
    assert!(!world.lies_there(&made[1]));
}

#[test]
fn a_backup_that_another_host_made_meanwhile_has_its_number() {
    let world = World::new();
    world.backup("shop");
    let shop: JobName = "shop".parse().unwrap();
    let (host, settings, name) = (Arc::clone(&world.hosts[1]), world.settings.clone(), shop.clone());
    let theirs = world.vault();
    let before_claim = Box::new(move || {
        let backup = move || backup(&host, &theirs, &settings.jobs[&name], serde_json::Value::Null, &Silent);
        let report = std::thread::spawn(backup).join().unwrap().unwrap();
        assert_eq!(report.manifest.unwrap().sequence, 2);
    });
    let inner = world.store.another_handle();
    let meddler = Meddler { inner, kept: None, before_claim: Mutex::new(Some(before_claim)) };
    let vault = world.vault_on(Arc::new(meddler));
    let job = &world.settings.jobs[&shop];
    let report = backup(&world.hosts[0], &vault, job, serde_json::Value::Null, &Silent).unwrap();
    assert_eq!(report.manifest.unwrap().sequence, 3);
    let found = world.runtime.block_on(survey(&world.store.another_handle(), &world.trust, None)).unwrap();
    assert_eq!((found.manifests.len(), found.problems), (3, vec![]));
}

#[test]
fn what_is_named_again_is_held_anew_every_eleventh_day_and_a_lost_memory_costs_one_round() {
    let world = World::with("", Some(LockMode::Governance));
    let mut asked = Vec::new();
    for _ in 0..30 {
        let before = world.store.holds();
        world.nights("shop", 1);
        asked.push(world.store.holds() - before);
    }
    let rounds: Vec<usize> = (0..30).filter(|night| asked[*night] > 0).collect();
    // What comes and goes with each night is new each time; what stays is the object of the file that never changes, and
    // vault.json, which nobody has held before the first night.
    assert_eq!(rounds, [0, 11, 22], "{asked:?}");
    let shop: JobName = "shop".parse().unwrap();
    let state = &world.hosts[0].home().unwrap().state;
    let file = state.holds_file(&world.trust.vault, &shop).unwrap();
    std::fs::write(&file, "not what was written there").unwrap();
    let before = world.store.holds();
    world.nights("shop", 2);
    assert!(world.store.holds() - before > 0, "what is not known to be held is held");
    assert!(world.store.holds() - before <= 5, "and once is enough");
}

#[test]
fn a_backup_that_is_held_is_not_thinned_and_the_plan_says_until_when() {
    let world = World::with(", daily = 2", Some(LockMode::Compliance));
    let made = world.nights("shop", 20);
    let request = PruneRequest { dry_run: true, ..world.request() };
    let planned = world.prune(&request);
    let shop = &planned.jobs[1];
    let thinned: Vec<_> = shop
        .decisions
        .iter()
        .filter(|(_, one)| matches!(one.fate, Fate::Delete(_)))
        .map(|(facts, _)| &facts.id)
        .collect();
    assert!(!thinned.is_empty() && thinned.iter().all(|id| shop.locked.contains_key(*id)), "{:?}", shop.locked);
    assert_eq!((shop.deleted().count(), planned.deleted_backups()), (0, 0));
    let expires = made[0].recovery_point + TimeDelta::hours(24 * 24 - 2);
    assert!(
        (shop.locked[&made[0].id] - expires).abs() <= TimeDelta::seconds(1),
        "{}, not {expires}",
        shop.locked[&made[0].id]
    );
    let report = world.prune(&world.request());
    assert_eq!((report.removed.len(), report.failures.len(), report.stops.len()), (0, 0, 0), "{:?}", report.failures);
    assert_eq!(report.outcome().0, PruneOutcome::Done);
    assert_eq!(world.there().len(), made.len());
    // When its time has come it goes.
    for _ in 0..6 {
        world.wait(TimeDelta::days(1));
        world.prune(&world.request());
    }
    assert!(!world.lies_there(&made[0]) && !world.lies_there(&made[1]));
}

#[test]
fn garbage_that_is_held_waits_and_makes_no_backup_look_unerased() {
    let world = World::with("", Some(LockMode::Compliance));
    world.nights("shop", 2);
    let now = world.clock.now();
    let store = world.store.another_handle();
    let key = Key::Object(crate::domain::ids::ObjectId([7; 32])).to_string();
    world.runtime.block_on(async {
        store
            .put_held(&key, Bytes::from_static(b"a run that came to nothing"), now + TimeDelta::days(20))
            .await
            .unwrap();
        store.sync().await.unwrap();
    });
    world.wait(TimeDelta::hours(1));
    assert_eq!(world.prune(&world.request()).condemned_objects, 1);
    for _ in 0..3 {
        world.wait(TimeDelta::hours(25));
        world.backup("shop");
        let report = world.prune(&world.request());
        assert_eq!((report.locked_objects, report.failures.len()), (1, 0), "{:?}", report.failures);
        assert_eq!(report.locked_until, Some(now + TimeDelta::days(20)));
        assert_eq!(report.outcome().0, PruneOutcome::Done);
        assert_eq!(report.clean_through, Some(world.clock.now()), "no backup ever named it");
    }
    for _ in 0..18 {
        world.wait(TimeDelta::days(1));
        world.backup("shop");
        world.prune(&world.request());
    }
    assert_eq!(world.runtime.block_on(store.size(&key)).unwrap(), None);
}

#[test]
fn what_a_thief_overwrote_is_damage_that_can_be_read_and_the_next_backup_stores_it_anew() {
    let world = World::with("", Some(LockMode::Governance));
    let made = world.nights("shop", 1).remove(0);
    let store = world.store.another_handle();
    // vault.json is read when a vault is opened, and its own tests overwrite it.
    let held = world.store.all_held().into_iter().filter(|(key, until)| until.is_some() && !key.starts_with("vault."));
    let keys: Vec<String> = held.map(|(key, _)| key).collect();
    world.runtime.block_on(async {
        for key in &keys {
            let size = usize::try_from(store.size(key).await.unwrap().unwrap()).unwrap();
            store.replace(key, Bytes::from(vec![b'x'; size])).await.unwrap();
        }
    });
    let (host, vault) = (&world.hosts[0], world.vault());
    let known = BTreeMap::new();
    let found = check(host, &vault, &[], &known, &Depth { read_data: None }, &Silent).unwrap();
    // A manifest and its signature are told of together.
    assert_eq!(found.damaged.len(), keys.len() - 1, "{:#?}", found.damaged);
    assert!(found.damaged.iter().all(|damage| damage.readable && damage.backups == [made.id.clone()]));
    assert!(found.damaged.iter().all(|damage| damage.reason.contains("an earlier version is right")));
    assert_eq!(host.refuted(&vault.id, None).unwrap().len(), 0, "it can be restored");
    let next = world.backup("shop");
    let named = |manifest: &Manifest| -> BTreeSet<_> {
        manifest.sources.iter().flat_map(|source| source.contents.iter().chain(&source.lists)).copied().collect()
    };
    assert!(named(&made).is_disjoint(&named(&next)), "what lies there overwritten is named again");
    assert_eq!(world.there().len(), 2);
}
