//! The simulated world: one store that has the true time, machines, sources, and the verbs as their timers, their people and
//! the weather call them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::dice::Dice;
use super::machine::Machine;
use super::model::{Backup, Model, Tree};
use super::rules::{JOBS, Pace, Rules};
use crate::clock::{Clock, ManualClock};
use crate::config::{JobSettings, Settings};
use crate::domain::ids::{JobName, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::retention::{Lead, Retention};
use crate::error::{Error, Result};
use crate::observe::Silent;
use crate::operations::backup::{RunReport, backup};
use crate::operations::host::Host;
use crate::operations::prune::{AfterPause, PruneReport, PruneRequest, prune};
use crate::operations::vaults::OpenVault;
use crate::seal::{Identities, Opener};
use crate::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use crate::storage::memory::Memory;
use crate::storage::{LockMode, Storage};
use crate::vault::glance::Glance;
use crate::vault::layout::Key;
use crate::vault::lists::read_list;
use crate::vault::trust::{HostEntry, JobPattern, TrustDocument};

/// What happens in the middle of a verb; the fault layer can call functions only.
static MEANWHILE: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

fn meanwhile() {
    let event = MEANWHILE.lock().unwrap().take();
    if let Some(event) = event {
        // On a thread of its own: the call that is held up is one of an asynchronous runtime.
        std::thread::spawn(event).join().unwrap();
    }
}

/// The end of a process: every later call of it ends so as well.
fn die() {
    resume_unwind(Box::new("killed"));
}

/// How a verb is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Failure {
        at_call: u64,
        after: bool,
        lasting: bool,
        kind: u64,
    },
    Kill {
        at_call: u64,
        after: bool,
    },
    /// Another host prunes everything.
    Prune {
        at_call: u64,
    },
    Jump {
        at_call: u64,
        by_minutes: i64,
    },
    Wait {
        at_call: u64,
        minutes: u64,
    },
}

impl Trouble {
    fn plan(self) -> Option<Plan> {
        let plan = |at_call, after, effect, lasting| {
            let moment = if after { Moment::After } else { Moment::Before };
            Some(Plan { at_call, moment, effect, lasting })
        };
        match self {
            Self::None => None,
            Self::Failure { at_call, after, lasting, kind } => {
                let effect = match kind {
                    0 => Effect::Fail(std::io::ErrorKind::StorageFull),
                    1 => Effect::Fail(std::io::ErrorKind::Other),
                    _ => Effect::LoseAnswer,
                };
                plan(at_call, after, effect, if lasting { Lasting::FromThenOn } else { Lasting::Once })
            }
            Self::Kill { at_call, after } => plan(at_call, after, Effect::Call(die), Lasting::FromThenOn),
            Self::Prune { at_call } | Self::Jump { at_call, .. } | Self::Wait { at_call, .. } => {
                plan(at_call, false, Effect::Call(meanwhile), Lasting::Once)
            }
        }
    }
}

pub(super) enum Ended<T> {
    Done(T),
    Failed(Error),
    Killed,
}

/// What is the same for everybody.
pub(super) struct Ground {
    pub(super) store: Memory,
    pub(super) settings: Settings,
    pub(super) trust: TrustDocument,
    pub(super) leads: BTreeMap<JobName, Lead>,
}

impl Ground {
    /// The vault as a process sees it that was just started.
    pub(super) fn vault(&self, trouble: Trouble) -> OpenVault {
        let inner: Arc<dyn Storage> = Arc::new(self.store.another_handle());
        OpenVault {
            id: self.trust.vault.clone(),
            settings: self.settings.vaults["main"].clone(),
            storage: match trouble.plan() {
                Some(plan) => Arc::new(Fault::planned(inner, plan)),
                None => inner,
            },
            trust: self.trust.clone(),
        }
    }

    /// As the command line asks for it.
    pub(super) fn prune(
        &self,
        host: &Host,
        jobs: &[&JobSettings],
        after_pause: AfterPause,
        trouble: Trouble,
        glance: Option<&Glance>,
    ) -> Result<PruneReport> {
        let vault = self.vault(trouble);
        let all = self.settings.jobs.values();
        let request = PruneRequest {
            jobs: jobs.iter().map(|job| (*job, self.leads[&job.name])).collect(),
            zone: self.settings.timezone,
            grace: self.settings.grace_of(&vault.settings),
            promises: all.map(|job| (job.name.clone(), job.retention)).collect(),
            dry_run: false,
            began: host.clock.now(),
            after_pause,
            glance,
        };
        prune(host, &vault, &request, &Silent)
    }
}

pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) truth: Arc<ManualClock>,
    pub(super) ground: Arc<Ground>,
    pub(super) machines: Vec<Machine>,
    pub(super) opener: Arc<Opener>,
    pub(super) jobs: Vec<JobSettings>,
    pub(super) model: Model,
    /// Verbs that ran.
    pub(super) verbs: u64,
    /// What the last backup saw of the vault, for the prune that follows it.
    glance: Option<Glance>,
    trees: Vec<Rc<Tree>>,
    runtime: tokio::runtime::Runtime,
    pub(super) folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new(rules: Rules, pace: Pace, lock: Option<LockMode>) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let truth = Arc::new(ManualClock::at(super::start()));
        let (secret, recipient) = Identities::generate();
        let opener = Arc::new(Opener::new(Identities::parse(&secret, "test").unwrap()));
        let settings = rules.settings(&recipient, &folder.path().join("sources"), pace);
        let jobs: Vec<JobSettings> =
            JOBS[..rules.jobs].iter().map(|(job, _)| settings.jobs[&job.parse().unwrap()].clone()).collect();
        let (mut machines, mut entries) = (Vec::new(), Vec::new());
        for name in ["web-1", "web-2"] {
            let (machine, key) = Machine::new(name, folder.path(), &truth);
            machines.push(machine);
            entries.push(HostEntry {
                name: name.to_owned(),
                key,
                jobs: jobs.iter().map(|job| JobPattern::Job(job.name.clone())).collect(),
                from: super::start() - TimeDelta::days(100),
                until: None,
                revoked: None,
            });
        }
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&truth);
        let trust = TrustDocument::first(VaultId::from_random([1; 8]), super::start(), entries);
        let leads = jobs.iter().map(|job| (job.name.clone(), settings.lead_of(job, super::start()))).collect();
        let store = match lock {
            None => Memory::new(clock),
            Some(mode) => Memory::with_lock(clock, mode),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // What is in them nobody here asks for; a store that holds is asked to hold them.
        for key in [Key::Trust, Key::TrustSignature] {
            runtime.block_on(store.replace(&key.to_string(), Bytes::from_static(b"trust"))).unwrap();
        }
        let ground = Arc::new(Ground { store, settings, trust, leads });
        let mut world = Self {
            glance: None,
            trees: vec![Rc::default(); rules.jobs],
            rules,
            truth,
            ground,
            machines,
            opener,
            jobs,
            model: Model::default(),
            verbs: 0,
            runtime,
            folder,
        };
        for job in 0..world.jobs.len() {
            for _ in 0..8 {
                world.change_source(job, &mut Dice::of(world.rules.seed, job as u64, "first files"));
            }
        }
        world
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.truth.now()
    }

    pub(super) fn retentions(&self) -> Vec<Retention> {
        self.jobs.iter().map(|job| job.retention).collect()
    }

    /// On the simulation's own thread, with the store as it is.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(super) fn source(&self, job: usize) -> PathBuf {
        self.folder.path().join("sources").join(JOBS[job].0)
    }

    /// Writes some files, removes one.
    pub(super) fn change_source(&mut self, job: usize, dice: &mut Dice) {
        let root = self.source(job);
        if !root.exists() && root.with_extension("gone").exists() {
            return;
        }
        let mut tree = (*self.trees[job]).clone();
        for _ in 0..dice.between(1, 3) {
            let name = format!("folder-{}/file-{}", dice.below(3), dice.below(5));
            let path = root.join(&name);
            let below_root = path.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
            if dice.once_in(5) && tree.contains_key(&below_root) {
                std::fs::remove_file(&path).unwrap();
                tree.remove(&below_root);
            } else {
                let content: Vec<u8> = (0..dice.between(1, 1500)).map(|_| dice.next().to_le_bytes()[0]).collect();
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &content).unwrap();
                tree.insert(below_root, content);
            }
        }
        self.trees[job] = Rc::new(tree);
    }

    /// Takes a source away, or brings it back.
    pub(super) fn set_source(&self, job: usize, there: bool) {
        let (here, gone) = (self.source(job), self.source(job).with_extension("gone"));
        if there && gone.exists() {
            std::fs::rename(gone, here).unwrap();
        } else if !there && here.exists() {
            std::fs::rename(here, gone).unwrap();
        }
    }

    pub(super) fn is_source_there(&self, job: usize) -> bool {
        self.source(job).exists()
    }

    fn prepare(&mut self, machine: usize, trouble: Trouble) {
        let event: Option<Box<dyn FnOnce() + Send>> = match trouble {
            Trouble::Prune { .. } => {
                let (other, ground) = (self.machines[1 - machine].host(), Arc::clone(&self.ground));
                Some(Box::new(move || {
                    let jobs: Vec<&JobSettings> = ground.settings.jobs.values().collect();
                    let _ = ground.prune(&other, &jobs, AfterPause::Stop, Trouble::None, None);
                }))
            }
            Trouble::Jump { by_minutes, .. } => {
                let clock = Arc::clone(&self.machines[machine].clock);
                Some(Box::new(move || clock.set_off(TimeDelta::minutes(by_minutes))))
            }
            Trouble::Wait { minutes, .. } => {
                let truth = Arc::clone(&self.truth);
                Some(Box::new(move || truth.advance(Duration::from_secs(minutes * 60))))
            }
            Trouble::None | Trouble::Failure { .. } | Trouble::Kill { .. } => None,
        };
        *MEANWHILE.lock().unwrap() = event;
    }

    /// Runs a verb on a machine, and has the model look at what it left.
    pub(super) fn run<T>(
        &mut self,
        machine: usize,
        trouble: Trouble,
        verb: impl FnOnce(&Host, &Ground) -> Result<T>,
    ) -> Ended<T> {
        self.verbs += 1;
        // No two processes begin at the same moment.
        self.truth.advance(Duration::from_secs(1));
        self.prepare(machine, trouble);
        let (began, off) = (self.now(), self.machines[machine].clock.off());
        let (host, ground) = (self.machines[machine].host(), Arc::clone(&self.ground));
        let ended = match catch_unwind(AssertUnwindSafe(|| verb(&host, &ground))) {
            Ok(Ok(done)) => Ended::Done(done),
            Ok(Err(error)) => Ended::Failed(error),
            Err(cause) => {
                if !matches!(trouble, Trouble::Kill { .. }) {
                    resume_unwind(cause);
                }
                Ended::Killed
            }
        };
        drop(host);
        if matches!(trouble, Trouble::Kill { .. }) {
            self.machines[machine].killed();
        }
        *MEANWHILE.lock().unwrap() = None;
        let is_steady = !matches!(trouble, Trouble::Jump { .. });
        self.look(began, is_steady.then_some(off));
        ended
    }

    pub(super) fn back_up(&mut self, job: usize, trouble: Trouble) -> Ended<RunReport> {
        let settings = self.ground.settings.holding(&self.jobs[job], super::start());
        let mut ended = self.run(JOBS[job].1, trouble, |host, ground| {
            let config = ground.settings.without_secrets(&settings.name);
            backup(host, &ground.vault(trouble), &settings, config, &Silent)
        });
        self.glance = match &mut ended {
            Ended::Done(report) => report.glance.take(),
            Ended::Failed(_) | Ended::Killed => None,
        };
        ended
    }

    pub(super) fn prune(
        &mut self,
        machine: usize,
        jobs: &[usize],
        after_pause: AfterPause,
        trouble: Trouble,
    ) -> Ended<PruneReport> {
        let jobs: Vec<JobSettings> = jobs.iter().map(|job| self.jobs[*job].clone()).collect();
        let glance = self.glance.take();
        self.run(machine, trouble, |host, ground| {
            ground.prune(host, &jobs.iter().collect::<Vec<_>>(), after_pause, trouble, glance.as_ref())
        })
    }

    /// Reads the keys of the store, and what is newly committed. `off` is by how much its host's clock was wrong, if that
    /// can be said.
    fn look(&mut self, began: DateTime<Utc>, off: Option<TimeDelta>) {
        let now = self.now();
        let store = self.ground.store.another_handle();
        let mut keys = BTreeMap::new();
        self.block_on(store.list("", &mut |listed| {
            keys.insert(listed.key, listed.modified.unwrap());
        }))
        .unwrap();
        let mut fresh = Vec::new();
        for (key, modified) in &mut keys {
            match self.model.keys.get(key) {
                Some(seen) => *modified = *seen,
                None => fresh.push((key.clone(), *modified)),
            }
        }
        self.model.keys = keys;
        // What comes under an old name is not what we broke.
        let there: BTreeSet<String> = fresh.iter().map(|(key, _)| key.clone()).collect();
        self.model.broken.retain(|key| !there.contains(key));
        for (document, modified) in fresh {
            let Key::Manifest(name) = Key::parse(&document) else { continue };
            let bytes = self.block_on(store.get(&document, 1 << 20)).unwrap();
            let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
            assert!(!self.model.knows(&manifest.id), "{} came back", manifest.id);
            let lists: BTreeSet<String> =
                manifest.sources.iter().flat_map(|s| &s.lists).map(|list| Key::List(*list).to_string()).collect();
            let mut objects: BTreeSet<String> = manifest
                .sources
                .iter()
                .flat_map(|source| &source.contents)
                .map(|object| Key::Object(*object).to_string())
                .collect();
            for list in manifest.sources.iter().flat_map(|source| &source.lists) {
                let lines = self.block_on(read_list(&store, *list)).unwrap();
                objects.extend(lines.into_iter().map(|line| Key::Object(line.object).to_string()));
            }
            let job = self.jobs.iter().position(|job| job.name == manifest.job).unwrap();
            // A recovery point is what the host took for the time; it cannot be before the run began.
            let point = off.map_or(modified, |off| (manifest.recovery_point - off).max(began)).min(now);
            self.model.backups.push(Backup {
                job,
                signature: Key::ManifestSignature(name).to_string(),
                document,
                lists,
                objects,
                committed: modified,
                point,
                tree: Rc::clone(&self.trees[job]),
                manifest,
                erased: false,
            });
        }
    }

    /// Something in the store breaks: its bytes change, or it disappears.
    pub(super) fn damage(&mut self, key: &str, is_deleted: bool) {
        let store = self.ground.store.another_handle();
        self.block_on(async {
            if is_deleted {
                store.delete(key).await.unwrap();
            } else {
                let mut bytes = store.get(key, 1 << 20).await.unwrap().to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                store.replace(key, Bytes::from(bytes)).await.unwrap();
            }
        });
        self.model.broken.insert(key.to_owned());
        if is_deleted {
            self.model.keys.remove(key);
        } else {
            // Of a manifest that cannot be believed only the store knows how old it is, and the store saw it now.
            let now = self.now();
            for backup in self.model.backups.iter_mut().filter(|backup| backup.document == key) {
                backup.point = now;
            }
        }
    }
}
