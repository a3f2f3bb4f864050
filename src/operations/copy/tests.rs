//! The promise of a copy, with real backups in two stores in memory: whatever is killed, loses answers or is pruned in
//! between, it holds no manifest whose objects are not all there, and the next copy makes it whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::Settings;
use crate::domain::ids::{JobName, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{RemovalReason, RemovalRecord};
use crate::evidence::gather::{VaultView, job_facts};
use crate::evidence::status::job_status;
use crate::observe::Silent;
use crate::operations::backup::backup;
use crate::operations::interrupt::Interrupt;
use crate::operations::prune::{AfterPause, PruneReport, PruneRequest, prune};
use crate::operations::vaults::place as place_id;
use crate::storage::fault::{Effect, Fault as FaultyStore, Lasting, Moment, Plan};
use crate::storage::memory::Memory;
use crate::storage::{Deleted, Listed, Put, Storage, StorageError};
use crate::vault::identity::{Pin, comment_lines};
use crate::vault::keys::SigningKey;
use crate::vault::layout::{ManifestName, object_id};
use crate::vault::lists::read_list;
use crate::vault::survey::survey;
use crate::vault::trust::{HostEntry, JobPattern, TrustDocument, write_trust};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

struct World {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    main: Memory,
    offsite: Memory,
    vault_key: SigningKey,
    trust: TrustDocument,
    host: Host,
    settings: Settings,
}

impl World {
    /// One host, job `shop`, kept for 14 days and gone after 30, copied to `offsite`.
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // The catalog writes through to the disk, and nothing here is about what a power cut leaves.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let start = "2026-11-22T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::at(start));
        let host = Host::bare(runtime.handle().clone(), Arc::<ManualClock>::clone(&clock), Interrupt::default());
        let host = host.with_home(&folder.path().join("state")).unwrap();
        let (key, vault_key) = (SigningKey::generate(), SigningKey::generate());
        key.write_new(&host.home().unwrap().state.host_key(), "test").unwrap();
        let entry = HostEntry {
            name: "web-1".to_owned(),
            key: key.public().clone(),
            jobs: vec![JobPattern::Any],
            from: start,
            until: None,
            revoked: None,
        };
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "what is backed up").unwrap();
        std::fs::write(data.join("large"), vec![7; 300_000]).unwrap();
        let vault = |name: &str| format!("[vault.{name}]\nurl = \"/nowhere/{name}\"\nrecipients = [\"{RECIPIENT}\"]\n");
        let text = format!(
            "{}{}[job.shop]\nschedule = \"0 2 * * *\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
             [job.shop.copy]\nto = \"offsite\"\n[job.shop.source.uploads]\nkind = \"files\"\npaths = [{data:?}]\n",
            vault("main"),
            vault("offsite")
        );
        let settings = Settings::parse(&text, Path::new("/etc/lifeboat.toml")).unwrap();
        let store = || Memory::new(Arc::<ManualClock>::clone(&clock));
        let trust = TrustDocument::first(VaultId::from_random([1; 8]), start, vec![entry]);
        let (main, offsite) = (store(), store());
        runtime.block_on(write_trust(&main, &vault_key, &trust)).unwrap();
        let lines = comment_lines(&trust.vault, vault_key.public());
        host.home().unwrap().state.pin_trust("main", &lines).unwrap();
        Self { runtime, folder, clock, main, offsite, vault_key, trust, host, settings }
    }

    fn job(&self) -> &JobSettings {
        &self.settings.jobs[&"shop".parse::<JobName>().unwrap()]
    }

    fn wait(&self, by: TimeDelta) {
        self.clock.advance(by.to_std().unwrap());
    }

    fn main(&self) -> OpenVault {
        self.main_on(Arc::new(self.main.another_handle()))
    }

    fn main_on(&self, storage: Arc<dyn Storage>) -> OpenVault {
        OpenVault {
            id: self.trust.vault.clone(),
            settings: self.settings.vaults["main"].clone(),
            storage,
            trust: self.trust.clone(),
        }
    }

    fn offsite(&self) -> OpenVault {
        self.offsite_on(Arc::new(self.offsite.another_handle()))
    }

    fn offsite_on(&self, storage: Arc<dyn Storage>) -> OpenVault {
        let settings = self.settings.vaults["offsite"].clone();
        let id = place_id(&settings, &self.trust.vault);
        OpenVault { id, settings, storage, trust: self.trust.clone() }
    }

    fn backup(&self) -> Manifest {
        std::fs::write(self.folder.path().join("data/daily"), self.clock.now().to_rfc3339()).unwrap();
        let report = backup(&self.host, &self.main(), self.job(), serde_json::Value::Null, &Silent).unwrap();
        report.manifest.unwrap_or_else(|| panic!("{:?}", report.failure))
    }

    fn nights(&self, count: usize) -> Vec<Manifest> {
        let night = |_| {
            let manifest = self.backup();
            self.wait(TimeDelta::days(1));
            manifest
        };
        (0..count).map(night).collect()
    }

    fn copy_between(&self, source: &OpenVault, to: &OpenVault) -> CopyReport {
        let lead = self.settings.lead_in_copy(self.job(), &to.settings, self.clock.now());
        let request = CopyRequest { job: self.job(), lead, zone: self.settings.timezone };
        copy(&self.host, source, to, &request, &Silent).unwrap()
    }

    fn copy(&self) -> CopyReport {
        self.copy_between(&self.main(), &self.offsite())
    }

    /// A copy that nothing stands in the way of.
    #[track_caller]
    fn copies(&self) -> CopyReport {
        let report = self.copy();
        assert!(report.failure.is_none() && report.left.is_empty(), "{report:?}");
        self.must_be_whole();
        report
    }

    fn prune(&self, vault: &OpenVault) -> PruneReport {
        let now = self.clock.now();
        let request = PruneRequest {
            jobs: vec![(self.job(), self.settings.lead_of(self.job(), now))],
            zone: self.settings.timezone,
            grace: self.settings.grace_of(&vault.settings),
            promises: [(self.job().name.clone(), self.job().retention)].into(),
            dry_run: false,
            began: now,
            after_pause: AfterPause::GoOn,
            glance: None,
        };
        prune(&self.host, vault, &request, &Silent).unwrap()
    }

    fn survey_of(&self, store: &Memory) -> Survey {
        self.runtime.block_on(survey(&store.another_handle(), &self.trust, None)).unwrap()
    }

    fn ids(&self, store: &Memory) -> BTreeSet<BackupId> {
        self.survey_of(store).manifests.into_iter().map(|verified| verified.manifest.id).collect()
    }

    /// The promise: everything that a manifest in the copy names lies there, under the name that its bytes have.
    #[track_caller]
    fn must_be_whole(&self) {
        let survey = self.survey_of(&self.offsite);
        let store = self.offsite.another_handle();
        let problems: Vec<_> =
            survey.problems.iter().filter(|problem| !matches!(problem.fault, Fault::Missing { .. })).collect();
        assert!(problems.is_empty(), "{problems:?}");
        self.runtime.block_on(async {
            for source in survey.manifests.iter().flat_map(|verified| &verified.manifest.sources) {
                let mut objects: Vec<ObjectId> = source.contents.clone();
                for list in &source.lists {
                    objects.extend(read_list(&store, *list).await.unwrap().into_iter().map(|line| line.object));
                }
                for object in objects {
                    let bytes = store.get(&Key::Object(object).to_string(), 1 << 30).await.unwrap();
                    assert_eq!(object_id(&bytes), object);
                }
            }
        });
    }

    fn copy_records(&self) -> Vec<CopyRecord> {
        let catalog = &self.host.home().unwrap().catalog;
        let rows = self.runtime.block_on(catalog.copies(&self.trust.vault, None)).unwrap();
        rows.into_iter().map(|row| row.body).collect()
    }

    fn an_object_of(&self, manifest: &Manifest) -> ObjectId {
        manifest.sources[0].contents[0]
    }
}

/// A store before which something else happens, once, at the call with this number.
struct Meanwhile<F> {
    inner: Arc<dyn Storage>,
    at: u64,
    calls: AtomicU64,
    act: F,
}

impl<F> std::fmt::Debug for Meanwhile<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl<F: Fn() + Send + Sync> Meanwhile<F> {
    fn tick(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            // A verb blocks, and must not do so on a thread that runs what is asynchronous.
            std::thread::scope(|scope| scope.spawn(|| (self.act)()).join()).unwrap();
        }
    }
}

#[async_trait]
impl<F: Fn() + Send + Sync> Storage for Meanwhile<F> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    async fn put(&self, key: &str, bytes: Bytes) -> std::result::Result<Put, StorageError> {
        self.tick();
        self.inner.put(key, bytes).await
    }
    async fn replace(&self, key: &str, bytes: Bytes) -> std::result::Result<(), StorageError> {
        self.tick();
        self.inner.replace(key, bytes).await
    }
    async fn get(&self, key: &str, limit_bytes: u64) -> std::result::Result<Bytes, StorageError> {
        self.tick();
        self.inner.get(key, limit_bytes).await
    }
    async fn size(&self, key: &str) -> std::result::Result<Option<u64>, StorageError> {
        self.tick();
        self.inner.size(key).await
    }
    async fn list(
        &self,
        prefix: &str,
        visit: &mut (dyn FnMut(Listed) + Send),
    ) -> std::result::Result<(), StorageError> {
        self.tick();
        self.inner.list(prefix, visit).await
    }
    async fn delete(&self, key: &str) -> std::result::Result<Deleted, StorageError> {
        self.tick();
        self.inner.delete(key).await
    }
    async fn sync(&self) -> std::result::Result<(), StorageError> {
        self.tick();
        self.inner.sync().await
    }
    async fn now(&self) -> std::result::Result<DateTime<Utc>, StorageError> {
        self.inner.now().await
    }
    async fn available_bytes(&self) -> std::result::Result<Option<u64>, StorageError> {
        self.inner.available_bytes().await
    }
    async fn forget_cached(&self, key: &str) -> std::result::Result<bool, StorageError> {
        self.inner.forget_cached(key).await
    }
}

#[test]
fn a_copy_has_what_the_source_has_and_a_second_one_sends_nothing() {
    let world = World::new();
    let made = world.nights(3);
    let first = world.copies();
    assert_eq!(first.copied, made.iter().map(|manifest| manifest.id.clone()).collect::<Vec<_>>());
    assert_eq!(world.ids(&world.main), world.ids(&world.offsite));
    assert!(world.survey_of(&world.offsite).problems.is_empty());
    assert_eq!(first.record.recovery_point, Some(made[2].recovery_point));
    let again = world.copies();
    assert_eq!((again.copied.len(), again.record.new_objects, again.record.new_bytes), (0, 0, 0));
    // A second run asks for no object: names are listed.
    let counting = Arc::new(FaultyStore::counting(Arc::new(world.main.another_handle())));
    world.copy_between(&world.main_on(Arc::<FaultyStore>::clone(&counting)), &world.offsite());
    let one_more = world.backup();
    assert_eq!(world.copies().copied, [one_more.id]);
    let records = world.copy_records();
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record.outcome == CopyOutcome::Success && record.to == "offsite"));
    // What the copy tells of itself is remembered apart from the source.
    assert_ne!(world.main().id, world.offsite().id);
}

#[test]
fn what_is_damaged_in_the_source_is_named_and_its_backup_stays_out() {
    let world = World::new();
    let made = world.nights(3);
    let wrong = world.an_object_of(&made[1]);
    let key = Key::Object(wrong).to_string();
    let good = world.runtime.block_on(world.main.get(&key, 1 << 30)).unwrap();
    world.runtime.block_on(world.main.replace(&key, Bytes::from_static(b"rot"))).unwrap();
    let spoilt: Vec<BackupId> = made
        .iter()
        .filter(|manifest| manifest.sources[0].contents.contains(&wrong))
        .map(|manifest| manifest.id.clone())
        .collect();
    let report = world.copy();
    assert_eq!(report.left.iter().filter_map(|left| left.backup.clone()).collect::<Vec<_>>(), spoilt);
    assert!(report.left.iter().all(|left| left.code == Code::ObjectDamaged && left.what.contains(&wrong.to_string())));
    assert_eq!(report.record.outcome, CopyOutcome::Partial);
    world.must_be_whole();
    assert_eq!(world.ids(&world.offsite).len(), made.len() - spoilt.len());
    assert_eq!(world.runtime.block_on(world.offsite.size(&key)).unwrap(), None);
    // The gap is explained: it stops no prune of the copy.
    assert!(world.survey_of(&world.offsite).problems.is_empty());
    world.runtime.block_on(world.main.delete(&key)).unwrap();
    assert!(world.copy().left.iter().all(|left| left.code == Code::ObjectMissing));
    world.runtime.block_on(world.main.replace(&key, good)).unwrap();
    assert_eq!(world.copies().copied, spoilt);
}

#[test]
fn both_places_are_pruned_and_nothing_comes_back() {
    let world = World::new();
    let mut removed_there = BTreeSet::new();
    for night in 0..45 {
        let made = world.backup();
        if night % 3 == 0 {
            let report = world.copies();
            assert!(report.copied.contains(&made.id));
        }
        let (here, there) = (world.prune(&world.main()), (night % 3 == 0).then(|| world.prune(&world.offsite())));
        assert!(here.stops.is_empty() && here.failures.is_empty(), "{here:?}");
        if let Some(there) = there {
            assert!(there.stops.is_empty() && there.failures.is_empty(), "{there:?}");
            assert!(there.unswept.is_empty() && there.jobs.iter().all(|job| job.breached.is_empty()));
            removed_there.extend(there.removed.into_iter().map(|(_, backup)| backup));
        }
        assert!(removed_there.is_disjoint(&world.ids(&world.offsite)), "a backup came back");
        world.must_be_whole();
        world.wait(TimeDelta::days(1));
    }
    let oldest = world.survey_of(&world.offsite).manifests.iter().map(|one| one.manifest.recovery_point).min().unwrap();
    assert!(world.clock.now() - oldest < TimeDelta::days(30));
    assert!(world.ids(&world.offsite).len() > 4);
    assert!(world.survey_of(&world.offsite).problems.is_empty());
}

/// What this host says of the job: whether it judges the copy's erasing, and its reasons that are about it.
fn said_of_copy(world: &World) -> (bool, Vec<String>) {
    let now = world.clock.now();
    let view = VaultView::look(&world.host, "main", world.trust.vault.clone(), Ok(world.main()));
    let facts = job_facts(&world.host, &world.settings, world.job(), &view, None, now).unwrap();
    let status = job_status(&facts, now);
    let about = status.reasons.into_iter().filter(|reason| reason.contains("in the copy offsite"));
    (status.copy.unwrap().erasure.is_some(), about.collect())
}

/// Everything that a backup names.
fn objects_of(world: &World, made: &Manifest) -> BTreeSet<ObjectId> {
    let store = world.main.another_handle();
    let mut objects = BTreeSet::new();
    for source in &made.sources {
        objects.extend(source.contents.iter().copied());
        for list in &source.lists {
            objects
                .extend(world.runtime.block_on(read_list(&store, *list)).unwrap().into_iter().map(|line| line.object));
        }
    }
    objects
}

/// A backup that is past its time, and of which something lies in the copy that no younger one names.
fn outlived(world: &World, made: &[(Manifest, BTreeSet<ObjectId>)]) -> Option<BackupId> {
    let late = world.clock.now() - TimeDelta::days(30);
    let (old, young): (Vec<_>, Vec<_>) = made.iter().partition(|(one, _)| one.recovery_point <= late);
    let named: BTreeSet<ObjectId> = young.into_iter().flat_map(|(_, objects)| objects).copied().collect();
    let lies = |object: &ObjectId| {
        let key = Key::Object(*object).to_string();
        world.runtime.block_on(world.offsite.size(&key)).unwrap().is_some()
    };
    let there = old.into_iter().find(|(_, objects)| objects.difference(&named).any(lies));
    there.map(|(one, _)| one.id.clone())
}

fn rebuild_copy(world: &World) {
    let offsite = world.offsite();
    crate::operations::rebuild::rebuild(&world.host, &offsite).unwrap();
}

#[test]
fn a_copy_that_is_made_and_pruned_each_night_is_never_told_of() {
    let world = World::new();
    let mut made = Vec::new();
    for night in 0..75 {
        let backup = world.backup();
        let objects = objects_of(&world, &backup);
        made.push((backup, objects));
        world.copies();
        let (here, there) = (world.prune(&world.main()), world.prune(&world.offsite()));
        assert!(here.failures.is_empty() && there.failures.is_empty());
        assert_eq!((said_of_copy(&world), outlived(&world, &made)), ((true, vec![]), None), "night {night}");
        if night == 50 {
            rebuild_copy(&world);
            assert_eq!(said_of_copy(&world), (true, vec![]));
        }
        world.wait(TimeDelta::days(1));
    }
    // Nobody copies any more, and nobody prunes there: it is told before it is too late, and when it is.
    let (mut warned, mut breached) = (None, None);
    for day in 0..31 {
        let (_, reasons) = said_of_copy(&world);
        let says = reasons.join("; ");
        warned = warned.or((!says.is_empty()).then_some(day));
        breached = breached.or(says.contains("erasure deadline breached").then_some(day));
        assert_eq!(outlived(&world, &made).is_some(), breached.is_some(), "day {day}");
        world.backup();
        world.prune(&world.main());
        world.wait(TimeDelta::days(1));
    }
    let (warned, breached) = (warned.unwrap(), breached.unwrap());
    assert!(warned + 2 <= breached, "warned on day {warned}, breached on day {breached}");
}

/// What goes on for some nights.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spell {
    AllIsWell,
    NothingIsPruned,
    NoCopies,
    CopiesDie,
    CopiesAreNotPruned,
}

fn spell() -> impl Strategy<Value = (Spell, u64)> {
    use Spell::{AllIsWell, CopiesAreNotPruned, CopiesDie, NoCopies, NothingIsPruned};
    let what =
        prop_oneof![Just(AllIsWell), Just(NothingIsPruned), Just(NoCopies), Just(CopiesDie), Just(CopiesAreNotPruned)];
    (what, 1u64..28)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    /// Whatever does not happen for days or weeks: what outlives its time in the copy is told, by the catalog that lived
    /// through it and by one that was made anew.
    #[test]
    fn nothing_outlives_its_time_in_the_copy_unsaid(
        spells in prop::collection::vec(spell(), 3..5),
        killed_at in 1u64..60,
        rebuilt in 0usize..60,
    ) {
        let world = World::new();
        let mut made = Vec::new();
        let nights = [(Spell::AllIsWell, 12)].into_iter().chain(spells).flat_map(|(spell, nights)| (0..nights).map(move |_| spell));
        for (night, spell) in nights.chain([Spell::AllIsWell; 4]).enumerate() {
            let backup = world.backup();
            let objects = objects_of(&world, &backup);
            made.push((backup, objects));
            if spell != Spell::NothingIsPruned {
                world.prune(&world.main());
            }
            let to: Option<Arc<dyn Storage>> = match spell {
                Spell::AllIsWell | Spell::NothingIsPruned | Spell::CopiesAreNotPruned => {
                    Some(Arc::new(world.offsite.another_handle()))
                }
                Spell::CopiesDie => Some(Arc::new(FaultyStore::planned(Arc::new(world.offsite.another_handle()), Plan {
                    at_call: killed_at + night as u64 % 7,
                    moment: Moment::Before,
                    effect: Effect::Fail(std::io::ErrorKind::Other),
                    lasting: Lasting::FromThenOn,
                }))),
                Spell::NoCopies => None,
            };
            let copied = to.map(|to| world.copy_between(&world.main(), &world.offsite_on(to)));
            // The command prunes the copy after each copy.
            if spell == Spell::AllIsWell && copied.is_some_and(|copied| copied.failure.is_none()) {
                world.prune(&world.offsite());
            }
            if night == rebuilt {
                rebuild_copy(&world);
            }
            let (_, reasons) = said_of_copy(&world);
            let says = reasons.join("; ");
            if let Some(there) = outlived(&world, &made) {
                prop_assert!(says.contains("erasure deadline breached"), "night {night}, {spell:?}: {there} {says}");
            }
            world.wait(TimeDelta::days(1));
        }
        // Two nights of the last four brought everything in order.
        prop_assert_eq!((said_of_copy(&world), outlived(&world, &made)), ((true, vec![]), None));
    }
}

#[test]
fn a_source_that_was_rolled_back_is_refused() {
    let world = World::new();
    let made = world.nights(2);
    world.copies();
    let lose = |manifest: &Manifest| {
        let name = ManifestName::of(manifest);
        world.runtime.block_on(crate::vault::sweep::remove_manifest(&world.main, &name)).unwrap();
    };
    lose(&made[1]);
    let report = world.copy();
    assert_eq!(report.failure.unwrap().code(), Code::ManifestMissing);
    // Nor does a host see it that never looked into the source before: the copy knows.
    let survey = world.survey_of(&world.main);
    let there = world.survey_of(&world.offsite);
    let job = world.job();
    let lead = world.settings.lead_of(job, world.clock.now());
    let rules = plan::Rules {
        job: &job.name,
        retention: &job.retention,
        lead: &lead,
        zone: world.settings.timezone,
        now: world.clock.now(),
    };
    let refused = plan::plan(&survey, &there, &BTreeSet::new(), &|_| false, &rules).unwrap_err();
    assert_eq!(refused.code(), Code::ManifestMissing);
    assert_eq!(world.ids(&world.offsite).len(), 2);
}

#[test]
fn a_removal_before_its_time_does_not_reach_the_copy() {
    let world = World::new();
    let made = world.nights(2);
    world.copies();
    let sequence = made[0].sequence;
    let body = RecordBody::Removal(Box::new(RemovalRecord {
        backup: made[0].id.clone(),
        summary: None,
        reason: RemovalReason::Expired,
        gone: vec![one(sequence)],
    }));
    records::write(&world.host, &world.main(), &made[0].job, body, None).unwrap();
    let report = world.copy();
    assert_eq!(report.left.iter().map(|left| left.code).collect::<Vec<_>>(), [Code::DeletionStopped], "{report:?}");
    assert!(world.ids(&world.offsite).contains(&made[0].id));
}

#[test]
fn a_place_is_made_found_again_or_refused() {
    let world = World::new();
    let pin = Pin { vault: Some(world.trust.vault.clone()), key: world.vault_key.public().clone() };
    let open = |store: &Memory, source: &OpenVault| {
        let settings = &world.settings.vaults["offsite"];
        place::open_copy_on(&world.host, source, settings, Arc::new(store.another_handle()), &pin)
    };
    let opened = open(&world.offsite, &world.main()).unwrap();
    assert_eq!((opened.trust.clone(), opened.id), (world.trust.clone(), world.offsite().id));
    open(&world.offsite, &world.main()).unwrap();
    // Once it was there, an empty place is a disk that is not mounted.
    let other = Memory::new(Arc::<ManualClock>::clone(&world.clock));
    assert_eq!(open(&other, &world.main()).unwrap_err().code(), Code::VaultMissing);
    std::fs::remove_file(world.host.home().unwrap().state.pin_file("offsite")).unwrap();
    world.runtime.block_on(other.replace("holiday/photo.jpg", Bytes::from_static(b"x"))).unwrap();
    assert_eq!(open(&other, &world.main()).unwrap_err().code(), Code::VaultMissing);
    // Another vault.
    let stranger = Memory::new(Arc::<ManualClock>::clone(&world.clock));
    world.runtime.block_on(write_trust(&stranger, &SigningKey::generate(), &world.trust)).unwrap();
    assert_eq!(open(&stranger, &world.main()).unwrap_err().code(), Code::VaultUntrusted);
    // A change of vault.json arrives; an older one in the source is refused.
    let next = TrustDocument { serial: 2, ..world.trust.clone() };
    world.runtime.block_on(write_trust(&world.main, &world.vault_key, &next)).unwrap();
    assert_eq!(open(&world.offsite, &world.main()).unwrap().trust.serial, 2);
    world.runtime.block_on(write_trust(&world.main, &world.vault_key, &world.trust)).unwrap();
    assert_eq!(open(&world.offsite, &world.main()).unwrap_err().code(), Code::VaultUntrusted);
}

/// One copy with a fault at one call after the other, of either store, told or not; the promise holds after each, and the
/// next copy makes it whole.
#[test]
fn a_copy_that_is_killed_anywhere_leaves_a_copy_that_is_whole() {
    for (there, moment, effect) in [
        (true, Moment::Before, Effect::Fail(std::io::ErrorKind::Other)),
        (true, Moment::After, Effect::LoseAnswer),
        (false, Moment::Before, Effect::Fail(std::io::ErrorKind::Other)),
    ] {
        let mut at_call = 1;
        loop {
            let world = World::new();
            let made = world.nights(2);
            let plan = Plan { at_call, moment, effect, lasting: Lasting::FromThenOn };
            let (main, offsite) = (Arc::new(world.main.another_handle()), Arc::new(world.offsite.another_handle()));
            let fault = Arc::new(FaultyStore::planned(if there { offsite } else { main }, plan));
            let report = match there {
                true => world.copy_between(&world.main(), &world.offsite_on(Arc::<FaultyStore>::clone(&fault))),
                false => world.copy_between(&world.main_on(Arc::<FaultyStore>::clone(&fault)), &world.offsite()),
            };
            world.must_be_whole();
            assert_eq!(world.copies().record.backups, made.len() as u64);
            assert_eq!(world.ids(&world.main), world.ids(&world.offsite));
            if fault.calls() < at_call {
                assert!(report.failure.is_none() && report.copied.len() == made.len(), "{report:?}");
                break;
            }
            at_call += 5;
        }
        assert!(at_call > 15, "{at_call}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Backup,
    Copy { killed_at: Option<u64>, pruned_at: Option<u64> },
    PruneMain,
    PruneCopy { killed_at: Option<u64> },
    Wait { hours: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let call = || prop::option::of(1u64..120);
    prop_oneof![
        3 => Just(Step::Backup),
        4 => (call(), call()).prop_map(|(killed_at, pruned_at)| Step::Copy { killed_at, pruned_at }),
        1 => Just(Step::PruneMain),
        2 => call().prop_map(|killed_at| Step::PruneCopy { killed_at }),
        3 => prop_oneof![Just(1i64), Just(7), Just(30), Just(24 * 8)].prop_map(|hours| Step::Wait { hours }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Copies and prunes of both places in any order, each killed anywhere, prunes of the copy in the midst of a copy of it.
    #[test]
    fn whatever_interleaves_the_copy_is_whole(steps in prop::collection::vec(step(), 1..14)) {
        let world = Arc::new(World::new());
        world.backup();
        let dying = |at_call: Option<u64>, store: &Memory| -> Arc<dyn Storage> {
            let inner = Arc::new(store.another_handle());
            match at_call {
                None => inner,
                Some(at_call) => Arc::new(FaultyStore::planned(inner, Plan {
                    at_call,
                    moment: Moment::Before,
                    effect: Effect::Fail(std::io::ErrorKind::Other),
                    lasting: Lasting::FromThenOn,
                })),
            }
        };
        for step in steps {
            match step {
                Step::Backup => drop(world.backup()),
                Step::Wait { hours } => world.wait(TimeDelta::hours(hours)),
                Step::PruneMain => drop(world.prune(&world.main())),
                Step::PruneCopy { killed_at } => {
                    let vault = world.offsite_on(dying(killed_at, &world.offsite));
                    let now = world.clock.now();
                    let request = PruneRequest {
                        jobs: vec![(world.job(), world.settings.lead_of(world.job(), now))],
                        zone: world.settings.timezone,
                        grace: world.settings.grace_of(&vault.settings),
                        promises: [(world.job().name.clone(), world.job().retention)].into(),
                        dry_run: false,
                        began: now,
                        after_pause: AfterPause::GoOn,
                        glance: None,
                    };
                    drop(prune(&world.host, &vault, &request, &Silent));
                }
                Step::Copy { killed_at, pruned_at } => {
                    // Weak: what still holds the store when the world ends must not be what ends it.
                    let weak = Arc::downgrade(&world);
                    let storage = Meanwhile {
                        inner: dying(killed_at, &world.offsite),
                        at: pruned_at.unwrap_or(0),
                        calls: AtomicU64::new(0),
                        act: move || {
                            if let Some(world) = weak.upgrade() {
                                drop(world.prune(&world.offsite()));
                            }
                        },
                    };
                    world.copy_between(&world.main(), &world.offsite_on(Arc::new(storage)));
                }
            }
            world.must_be_whole();
        }
        // In the end, once what was condemned is gone, it has everything that belongs there.
        for _ in 0..4 {
            world.wait(TimeDelta::hours(25));
            world.backup();
            world.copy();
            world.must_be_whole();
            world.prune(&world.offsite());
            world.prune(&world.main());
            world.must_be_whole();
        }
        world.backup();
        let newest = world.copies();
        prop_assert_eq!(newest.record.recovery_point, world.survey_of(&world.main).manifests.iter().map(|one| one.manifest.recovery_point).max());
    }
}
