//! What the verbs ask of a store that is far away: how often, and how much of it at once. With real backups in a store in
//! memory, behind a layer that counts. Nothing here asserts a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use super::backup::backup;
use super::check::{Depth, check};
use super::drill::{DrillRequest, Which, drill};
use super::host::Host;
use super::interrupt::Interrupt;
use super::prune::{AfterPause, PruneRequest, prune};
use super::restore::{Request, cat, restore};
use super::vaults::OpenVault;
use crate::clock::{Clock, ManualClock};
use crate::config::{DrillSettings, JobSettings, Settings};
use crate::domain::ids::VaultId;
use crate::domain::manifest::Manifest;
use crate::observe::Silent;
use crate::seal::{Identities, Opener};
use crate::storage::Storage;
use crate::storage::memory::Memory;
use crate::storage::slow::Slow;
use crate::vault::keys::SigningKey;
use crate::vault::layout::Key;
use crate::vault::lists::read_list;
use crate::vault::reader::Reader;
use crate::vault::trust::{HostEntry, JobPattern, TrustDocument};

/// Files that are large enough to be an object each, or several.
const FILES: u64 = 40;

struct World {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Memory,
    trust: TrustDocument,
    host: Host,
    opener: Arc<Opener>,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let start = "2026-11-22T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::at(start));
        let host = Host::bare(runtime.handle().clone(), Arc::<ManualClock>::clone(&clock), Interrupt::default());
        let host = host.with_home(&folder.path().join("state")).unwrap();
        let key = SigningKey::generate();
        key.write_new(&host.home().unwrap().state.host_key(), "test").unwrap();
        let entry = HostEntry {
            name: "web-1".to_owned(),
            key: key.public().clone(),
            jobs: vec![JobPattern::Any],
            from: start,
            until: None,
            revoked: None,
        };
        let (secret, recipient) = Identities::generate();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for number in 0..FILES {
            std::fs::write(data.join(format!("file-{number}")), noise(number, 200_000)).unwrap();
        }
        // More than one segment has: a head, and data behind it.
        std::fs::write(data.join("large"), noise(FILES, 12_000_000)).unwrap();
        let text = format!(
            "[vault.main]\nurl = \"/nowhere\"\nrecipients = [\"{recipient}\"]\n\
             [job.shop]\nschedule = \"0 2 * * *\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"60d\" }}\n\
             [job.shop.source.uploads]\nkind = \"files\"\npaths = [{data:?}]\n"
        );
        Self {
            settings: Settings::parse(&text, Path::new("/etc/lifeboat.toml")).unwrap(),
            store: Memory::new(Arc::<ManualClock>::clone(&clock)),
            trust: TrustDocument::first(VaultId::from_random([1; 8]), start, vec![entry]),
            opener: Arc::new(Opener::new(Identities::parse(&secret, "test").unwrap())),
            runtime,
            folder,
            clock,
            host,
        }
    }

    /// The store as a process sees it that was just started, behind a layer that counts.
    fn counting(&self) -> Arc<Slow> {
        Arc::new(Slow::counting(Arc::new(self.store.another_handle())))
    }

    /// One that answers for these keys only once so many of them are asked for.
    fn in_company(&self, at_once: usize, keys: &[String]) -> Arc<Slow> {
        let store = Arc::new(self.store.another_handle());
        Arc::new(Slow::with_company(store, at_once, at_once).awaiting(keys.iter().cloned()))
    }

    fn vault(&self, storage: &Arc<Slow>) -> OpenVault {
        OpenVault {
            id: self.trust.vault.clone(),
            settings: self.settings.vaults["main"].clone(),
            storage: Arc::<Slow>::clone(storage),
            trust: self.trust.clone(),
        }
    }

    fn job(&self) -> &JobSettings {
        &self.settings.jobs[&"shop".parse().unwrap()]
    }

    /// A night's backup, with what it asked for.
    fn backup(&self) -> (Manifest, Arc<Slow>) {
        let store = self.counting();
        let report = backup(&self.host, &self.vault(&store), self.job(), serde_json::Value::Null, &Silent).unwrap();
        self.clock.advance(Duration::from_secs(24 * 3600));
        (report.manifest.unwrap_or_else(|| panic!("{:?}", report.failure)), store)
    }

    fn reader(&self, storage: &Arc<Slow>) -> Reader {
        Reader::new(self.runtime.handle().clone(), Arc::<Slow>::clone(storage), Arc::clone(&self.opener))
    }

    /// The keys of a backup's segments, without contents and lists.
    fn segments(&self, manifest: &Manifest) -> Vec<String> {
        let lists = manifest.sources[0].lists.iter();
        let lines = lists.flat_map(|list| self.runtime.block_on(read_list(&self.store, *list)).unwrap());
        lines.map(|line| Key::Object(line.object).to_string()).collect()
    }

    /// Where restores of this name go.
    fn target(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn is_restored(&self, target: &Path) -> bool {
        let data = self.folder.path().join("data");
        let restored = target.join("uploads").join(data.strip_prefix("/").unwrap());
        let names: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let same = |name| std::fs::read(data.join(name)).unwrap() == std::fs::read(restored.join(name)).unwrap();
        names.len() as u64 == FILES + 1 && names.iter().all(same)
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn of(requests: &BTreeMap<String, u64>, what: &str) -> u64 {
    requests.get(what).copied().unwrap_or(0)
}

#[test]
fn a_restore_asks_for_each_thing_once_and_for_as_many_at_once_as_the_store_takes() {
    let world = World::new();
    let (manifest, _) = world.backup();
    let segments = world.segments(&manifest);
    assert!(segments.len() > 12, "{}", segments.len());
    let source = &manifest.sources[0];
    let everything = segments.len() + source.contents.len() + source.lists.len();
    for at_once in [1, 6, 12] {
        let store = world.in_company(at_once, &segments);
        let target = world.target(&format!("restored-{at_once}"));
        let request = Request { target: &target, source: None, paths: &[], overwrite: false };
        restore(&world.host, &world.reader(&store), &manifest, &request, &Silent).unwrap();
        assert!(world.is_restored(&target));
        assert_eq!(store.most_at_once(), at_once);
        assert_eq!(store.total(), everything as u64, "{:?}", store.requests());

        let (store, mut tar) = (world.in_company(at_once, &segments), Vec::new());
        cat(&world.host, &world.reader(&store), &manifest, &source.name, &mut tar, &Silent).unwrap();
        assert_eq!(tar.len() as u64, source.logical_bytes);
        assert_eq!((store.most_at_once(), store.total()), (at_once, everything as u64));
    }
}

#[test]
fn what_is_not_wanted_is_not_asked_for() {
    let world = World::new();
    let (manifest, _) = world.backup();
    let store = world.counting();
    let paths = ["large".to_owned()];
    let request = Request { target: &world.target("restored"), source: None, paths: &paths, overwrite: false };
    restore(&world.host, &world.reader(&store), &manifest, &request, &Silent).unwrap();
    let segments = world.segments(&manifest).len() as u64;
    assert!(of(&store.requests(), "get objects") < segments, "{:?} of {segments}", store.requests());
}

#[test]
fn a_missing_segment_ends_a_restore_though_others_are_under_way() {
    let world = World::new();
    let (manifest, _) = world.backup();
    let segments = world.segments(&manifest);
    for lost in [0, segments.len() / 2, segments.len() - 1] {
        let bytes = world.runtime.block_on(world.store.get(&segments[lost], u64::MAX)).unwrap();
        world.runtime.block_on(world.store.delete(&segments[lost])).unwrap();
        let (store, target) = (world.counting(), world.target(&format!("without-{lost}")));
        let request = Request { target: &target, source: None, paths: &[], overwrite: false };
        let error = restore(&world.host, &world.reader(&store), &manifest, &request, &Silent).unwrap_err();
        assert_eq!(error.code(), crate::error::Code::ObjectMissing, "{error}");
        world.runtime.block_on(world.store.replace(&segments[lost], bytes)).unwrap();
    }
}

#[test]
fn a_check_reads_as_many_objects_at_once_as_the_store_takes_and_each_once() {
    let world = World::new();
    let (manifest, _) = world.backup();
    let segments = world.segments(&manifest);
    let store = world.in_company(8, &segments);
    let depth = Depth { read_data: None };
    let report = check(&world.host, &world.vault(&store), &[], &BTreeMap::new(), &depth, &Silent).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(store.most_at_once(), 8);
    let objects = segments.len() + manifest.sources[0].contents.len();
    assert_eq!(of(&store.requests(), "get objects"), objects as u64);

    let store = world.in_company(8, &segments);
    let depth = Depth { read_data: Some((&world.reader(&store), 100)) };
    let report = check(&world.host, &world.vault(&store), &[], &BTreeMap::new(), &depth, &Silent).unwrap();
    assert_eq!((report.damaged.len(), report.opened), (0, segments.len() as u64));
    assert_eq!(store.most_at_once(), 8);
}

#[test]
fn manifests_are_read_several_at_once_and_answer_as_if_they_were_not() {
    let world = World::new();
    let manifests: Vec<Manifest> = (0..6).map(|_| world.backup().0).collect();
    let name = |manifest| Key::Manifest(crate::vault::layout::ManifestName::of(manifest)).to_string();
    let keys: Vec<String> = manifests.iter().map(name).collect();
    let store = world.in_company(4, &keys);
    let survey = world.vault(&store).look(&world.host, None).unwrap().survey;
    assert_eq!(store.most_at_once(), 4);
    let sequences: Vec<u64> = survey.manifests.iter().map(|verified| verified.manifest.sequence).collect();
    assert_eq!((sequences, survey.problems.len()), ((1..=6).collect(), 0));
}

#[test]
fn an_unchanged_day_asks_for_no_object_and_no_list_twice() {
    let world = World::new();
    let (first, store) = world.backup();
    let objects = of(&store.requests(), "put objects");
    let others = store.total() - objects;
    assert!(others < 50, "{others} requests besides a new object's one: {:?}", store.requests());
    let (again, store) = world.backup();
    let requests = store.requests();
    assert_eq!(again.sources[0].lists, first.sources[0].lists);
    assert_eq!(of(&requests, "list objects"), 1, "{requests:?}");
    assert_eq!(of(&requests, "get lists"), first.sources[0].lists.len() as u64, "{requests:?}");
    assert_eq!(of(&requests, "put lists") + of(&requests, "size lists"), 0, "{requests:?}");
    assert_eq!(of(&requests, "put objects"), of(&requests, "size objects"), "{requests:?}");
    assert!(of(&requests, "put objects") <= 1, "{requests:?}");
}

/// The figures of docs/decisions/0016: what each verb asks on a vault with 30 backups of a job. A bound that is too low is
/// news, and a reason is to be had.
#[test]
fn what_verbs_ask_of_a_vault_with_thirty_backups() {
    let world = World::new();
    (0..30).for_each(|_| drop(world.backup()));
    let mut table = Vec::new();
    let (_, store) = world.backup();
    // What is hashed again each day is a share of the objects, of which there are few here.
    let hashed_again = of(&store.requests(), "get objects");
    table.push(("backup", store.total() - hashed_again, 2 * 30 + 25, store.requests()));

    let store = world.counting();
    world.vault(&store).look(&world.host, None).unwrap();
    table.push(("list, status", store.total(), 2 * 31 + 5, store.requests()));

    let store = world.counting();
    let settings = DrillSettings { scratch: world.target("scratch"), ..DrillSettings::without_checks() };
    let request = DrillRequest {
        which: Which::Latest,
        keep: false,
        identity_files: &[],
        config_file: Path::new("/etc/lifeboat.toml"),
        settings: &settings,
    };
    let reader = Ok(world.reader(&store));
    let report = drill(&world.host, &world.vault(&store), world.job(), &reader, &request, &Silent).unwrap();
    assert!(report.failure.is_none() && report.errors.is_empty(), "{report:?}");
    let data = of(&store.requests(), "get objects") + of(&store.requests(), "get lists");
    table.push(("drill", store.total() - data, 2 * 31 + 10, store.requests()));

    let store = world.counting();
    let now = world.clock.now();
    let request = PruneRequest {
        jobs: vec![(world.job(), world.settings.lead_of(world.job(), now))],
        zone: world.settings.timezone,
        grace: TimeDelta::hours(24).to_std().unwrap(),
        promises: [(world.job().name.clone(), world.job().retention)].into(),
        dry_run: false,
        began: now,
        after_pause: AfterPause::GoOn,
        glance: None,
    };
    let report = prune(&world.host, &world.vault(&store), &request, &Silent).unwrap();
    assert!(report.failures.is_empty() && report.stops.is_empty(), "{report:?}");
    // Of each folder of records the newest 64 are read.
    table.push(("prune", store.total(), 2 * 31 + 2 * 33 + 15, store.requests()));

    for (verb, asked, bound, requests) in &table {
        assert!(asked <= bound, "{verb} asked {asked} times: {requests:?}");
    }
}
