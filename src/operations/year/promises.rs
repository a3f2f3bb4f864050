//! What must be true at every hour, day, week and month.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::catalog::differences;
use super::dice::Dice;
use super::model::{Backup, Overdue, Tree, delta};
use super::rules::JOBS;
use super::world::{Trouble, World};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::BackupId;
use crate::domain::retention::Retention;
use crate::evidence::gather::{VaultView, job_facts};
use crate::evidence::status::{JobStatus, State, job_status};
use crate::observe::Silent;
use crate::operations::restore::{Request, restore};
use crate::storage::Storage;
use crate::vault::layout::Key;
use crate::vault::reader::Reader;

/// Of these words one must be in an alarm about something that is not erased.
const ALARMS: [&str; 6] = [
    "erasure deadline breached",
    "should be gone",
    "must be erased",
    "prune was stopped",
    "last prune failed",
    "retention is not applied",
];

/// What an alarm says of a backup whose manifest was damaged.
const UNBELIEVED: &str = "or its signature is wrong";

/// Looks on, and remembers what it saw.
#[derive(Default)]
pub(super) struct Watch {
    /// How often a prune asked whether the clock had jumped.
    pub(super) pauses: u64,
    /// What happened, for when a promise is broken.
    pub(super) journal: Vec<String>,
    pub(super) backups: u64,
    pub(super) removed: u64,
    pub(super) deleted: u64,
    pub(super) restored: u64,
    /// How often a sweep met something that was still held.
    pub(super) locked: u64,
    /// Until when each key was held at the last look.
    held: BTreeMap<String, DateTime<Utc>>,
    /// What stopped the last prune, with hints.
    pub(super) stopped: Vec<(String, String)>,
    /// Hours at which something was overdue, and an alarm stood.
    alarmed: u64,
    /// What was overdue under an alarm, and how many verbs had run by then: alarms do not go away by themselves.
    stood: (u64, Vec<Overdue>),
    /// How many verbs had run on the last day that was looked at.
    looked: u64,
}

impl Watch {
    pub(super) fn note(&mut self, world: &World, what: String) {
        self.journal.push(format!("{} {what}", world.now()));
    }

    pub(super) fn tell(&self, world: &World) {
        tracing::info!(
            "seed {}: {} backups, {} removed, {} objects erased, {} restored, {} things broken, {} hours with something \
             overdue and an alarm",
            world.rules.seed,
            world.model.backups.len(),
            self.removed,
            self.deleted,
            self.restored,
            world.model.broken.len(),
            self.alarmed
        );
    }

    /// Nothing is lost that must stay; what must be gone is gone, or an alarm stands.
    pub(super) fn every_hour(&mut self, world: &mut World, is_paused: bool) {
        let (now, retentions) = (world.now(), world.retentions());
        let lost = world.model.lost(&retentions, now);
        assert!(lost.is_empty(), "gone, and should not be: {lost:#?}");
        if world.ground.store.lock().is_some() {
            self.holds(world, &retentions, now);
        }
        let overdue = world.model.overdue(&retentions, now);
        if overdue.is_empty() {
            return;
        }
        self.alarmed += 1;
        let stands = (world.verbs, overdue.clone());
        if stands == self.stood {
            return;
        }
        let mut statuses: Vec<Option<JobStatus>> = (0..world.jobs.len()).map(|_| None).collect();
        for Overdue { job, is_unbelieved, what } in &overdue {
            let jobs = job.map_or_else(|| (0..world.jobs.len()).collect(), |job| vec![job]);
            let stands = jobs.iter().any(|job| {
                let status = statuses[*job].get_or_insert_with(|| status(world, *job, now));
                is_alarm(status, is_paused) || *is_unbelieved && says(status, UNBELIEVED)
            });
            assert!(
                stands,
                "still there, and no alarm stands: {what}\n{:#?}",
                statuses.iter().flatten().map(|s| &s.reasons).collect::<Vec<_>>()
            );
        }
        self.stood = stands;
    }

    /// What a young backup names is held until it is young no longer, itself too; nothing was ever held for longer than it
    /// may be there.
    fn holds(&mut self, world: &World, retentions: &[Retention], now: DateTime<Utc>) {
        let held = world.ground.store.all_held();
        for backup in world.model.backups.iter().filter(|one| !one.erased && world.model.is_there(one)) {
            // A commit is dated by its host, whose clock may be off by this much.
            let promised = backup.committed + delta(retentions[backup.job].keep_at_least) - CLOCK_TOLERANCE;
            if promised <= now {
                continue;
            }
            for key in [&backup.document, &backup.signature].into_iter().chain(backup.names()) {
                let until = held.get(key).copied().flatten();
                assert!(
                    until.is_some_and(|until| until >= promised),
                    "{key} of {} is held until {until:?}, and was promised until {promised}",
                    backup.manifest.id
                );
            }
        }
        let longest = retentions.iter().map(|one| delta(one.delete_after)).max().unwrap();
        let held: BTreeMap<String, DateTime<Utc>> =
            held.into_iter().filter_map(|(key, until)| Some((key, until?))).collect();
        for (key, until) in &held {
            let is_new = self.held.get(key) != Some(until);
            assert!(
                !is_new || *until <= now + longest,
                "{key} is held until {until}: longer than anything may be there"
            );
            let is_kept_free = key.starts_with("claims/") || key.starts_with("records/") || key.ends_with(".txt");
            assert!(!is_kept_free, "{key} is held until {until}, and must be deletable");
        }
        self.held = held;
    }

    /// In calm weather no sweep meets what is held; what every run names is not held anew by
    /// every run.
    pub(super) fn holds_were_few(&self, world: &World) {
        let (holds, stored) = (world.ground.store.holds(), world.model.backups.iter().map(|one| one.names().count()));
        let named: usize = stored.sum();
        assert!(holds * 2 < named as u64, "{holds} times something was held anew, of {named} that were named");
        if world.rules.weather.kills == 0 {
            assert_eq!(self.locked, 0, "so often a sweep met what was still held");
        }
    }

    /// Whether anything ran, or broke, since the last look.
    pub(super) fn has_changed(&mut self, world: &World) -> bool {
        let seen = world.verbs + world.model.broken.len() as u64;
        std::mem::replace(&mut self.looked, seen) != seen
    }

    /// Every name of every backup that should restore has the bytes that it says; the vault shows no problem that we did not make.
    pub(super) fn every_day(&mut self, world: &mut World) {
        let store = world.ground.store.another_handle();
        let mut seen = BTreeSet::new();
        for backup in world.model.sound() {
            for key in backup.names().filter(|key| seen.insert((*key).clone())) {
                let bytes = world.block_on(store.get(key, 1 << 20));
                let bytes = bytes.unwrap_or_else(|error| panic!("{key} of {}: {error}", backup.manifest.id));
                let hash: [u8; 32] = Sha256::digest(&bytes).into();
                let (Key::Object(id) | Key::List(id)) = Key::parse(key) else { panic!("{key}") };
                assert_eq!(id.0, hash, "{key} of {}", backup.manifest.id);
            }
        }
        {
            // By turns.
            let machine = usize::from(self.looked.is_multiple_of(2));
            let host = world.machines[machine].host();
            let vault = world.ground.vault(Trouble::None);
            let survey = vault.survey(&host, None).unwrap();
            for problem in &survey.problems {
                let told = format!("{}: {}", problem.key, problem.fault);
                assert!(self.is_ours(world, &told), "a problem that nobody made: {told}");
            }
            let refuted = host.refuted(&vault.id, None).unwrap();
            let wrongly: Vec<&BackupId> =
                world.model.sound().map(|backup| &backup.manifest.id).filter(|id| refuted.contains(*id)).collect();
            assert!(wrongly.is_empty(), "refuted, and nothing is wrong with them: {wrongly:?}");
        }
    }

    /// One of them is restored.
    pub(super) fn every_week(&mut self, world: &mut World, dice: &mut Dice) {
        let sound: Vec<&Backup> = world.model.sound().collect();
        if sound.is_empty() {
            return;
        }
        let backup = *dice.one_of(&sound);
        let (job, manifest, tree) = (backup.job, backup.manifest.clone(), std::rc::Rc::clone(&backup.tree));
        let host = world.machines[JOBS[job].1].host();
        let vault = world.ground.vault(Trouble::None);
        let reader = Reader::new(host.runtime.clone(), vault.storage, std::sync::Arc::clone(&world.opener));
        let target = tempfile::tempdir_in(world.folder.path()).unwrap();
        let request = Request { target: target.path(), source: None, paths: &[], overwrite: false };
        restore(&host, &reader, &manifest, &request, &Silent).unwrap();
        let mut restored = Tree::new();
        read(&target.path().join("files"), "", &mut restored);
        assert!(restored == *tree, "{} brings back {:?}, not {:?}", manifest.id, restored.keys(), tree.keys());
        self.restored += 1;
    }

    /// The catalogs answer as if made anew.
    pub(super) fn every_month(&mut self, world: &mut World) {
        // A backup whose manifest was damaged is remembered by who saw it sound, and by nobody else.
        let unbelieved: Vec<String> = {
            let broken = world.model.backups.iter().filter(|backup| world.model.is_unbelieved(backup));
            broken.map(|backup| backup.manifest.id.to_string()).collect()
        };
        for machine in 0..world.machines.len() {
            let mut differences = differences(world, machine);
            differences.retain(|row| !unbelieved.iter().any(|id| row.starts_with("backups lived") && row.contains(id)));
            assert!(differences.is_empty(), "host {machine} remembers what a rebuild does not: {differences:#?}");
        }
    }

    /// Whether what is told is of something that we broke.
    pub(super) fn is_ours(&self, world: &World, told: &str) -> bool {
        let model = &world.model;
        // A gap is told by the manifest after it, a broken chain as well.
        let of_job = |backup: &&Backup| told.contains(&format!("backups/{}/", JOBS[backup.job].0));
        model.broken.iter().any(|key| told.contains(key.as_str()))
            || model.backups.iter().filter(|one| model.is_unbelieved(one)).any(|one| of_job(&one))
    }
}

fn status(world: &mut World, job: usize, now: DateTime<Utc>) -> JobStatus {
    let host = world.machines[JOBS[job].1].host();
    let vault = Ok(world.ground.vault(Trouble::None));
    let view = VaultView::look(&host, "main", world.ground.trust.vault.clone(), vault);
    let facts = job_facts(&host, &world.ground.settings, &world.jobs[job], &view, None, now).unwrap();
    job_status(&facts, now)
}

fn is_alarm(status: &JobStatus, is_paused: bool) -> bool {
    status.state != State::Ok && (is_paused || ALARMS.iter().any(|alarm| says(status, alarm)))
}

fn says(status: &JobStatus, what: &str) -> bool {
    status.reasons.iter().any(|reason| reason.contains(what))
}

/// The files below a folder.
fn read(folder: &std::path::Path, below: &str, tree: &mut Tree) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &name, tree);
        } else {
            tree.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}
