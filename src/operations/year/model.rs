//! The naive model: its own copy of what each backup must bring back, the true time of its commit, and what the
//! simulation itself broke. It looks at the keys of the store and at nothing that the program remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::BackupId;
use crate::domain::manifest::{Completeness, Manifest};
use crate::domain::retention::Retention;

/// Path below the root, and content.
pub(super) type Tree = BTreeMap<String, Vec<u8>>;

pub(super) struct Backup {
    pub(super) manifest: Manifest,
    pub(super) job: usize,
    /// Keys.
    pub(super) document: String,
    pub(super) signature: String,
    pub(super) lists: BTreeSet<String>,
    pub(super) objects: BTreeSet<String>,
    /// By the true clock.
    pub(super) committed: DateTime<Utc>,
    pub(super) point: DateTime<Utc>,
    pub(super) tree: Rc<Tree>,
    /// Nothing of it is left, and nothing is looked for any more.
    pub(super) erased: bool,
}

impl Backup {
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.lists.iter().chain(&self.objects)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.manifest.completeness == Completeness::Complete
    }
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) backups: Vec<Backup>,
    /// Every key of the store, and when the model first saw it.
    pub(super) keys: BTreeMap<String, DateTime<Utc>>,
    /// What the simulation broke.
    pub(super) broken: BTreeSet<String>,
}

/// Something that should be gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Overdue {
    /// The job; none where no backup ever named it.
    pub(super) job: Option<usize>,
    /// Whether its manifest cannot be believed: then it goes when its quarantine is over, and until then an alarm says that
    /// the vault has it no longer.
    pub(super) is_unbelieved: bool,
    pub(super) what: String,
}

impl Model {
    pub(super) fn knows(&self, id: &BackupId) -> bool {
        self.backups.iter().any(|backup| backup.manifest.id == *id)
    }

    pub(super) fn is_there(&self, backup: &Backup) -> bool {
        self.keys.contains_key(&backup.document)
    }

    /// Whether a manifest cannot be believed any more, because of us.
    pub(super) fn is_unbelieved(&self, backup: &Backup) -> bool {
        self.broken.contains(&backup.document)
    }

    /// Whether what it names can still be told.
    pub(super) fn is_followed(&self, backup: &Backup) -> bool {
        !self.is_unbelieved(backup) && backup.lists.iter().all(|list| !self.broken.contains(list))
    }

    /// Whether we broke something that it needs.
    pub(super) fn is_spoilt(&self, backup: &Backup) -> bool {
        self.is_unbelieved(backup) || backup.names().any(|key| self.broken.contains(key))
    }

    /// Backups that are there, believed and whole.
    pub(super) fn sound(&self) -> impl Iterator<Item = &Backup> {
        self.backups.iter().filter(|one| self.is_there(one) && !self.is_spoilt(one) && one.is_complete())
    }

    /// What is gone and should not be: of backups younger than `keep_at_least`, and of those whose manifest is there.
    pub(super) fn lost(&self, retentions: &[Retention], now: DateTime<Utc>) -> Vec<String> {
        let mut lost = Vec::new();
        for backup in self.backups.iter().filter(|backup| !backup.erased) {
            let id = &backup.manifest.id;
            let kept_until = backup.committed + delta(retentions[backup.job].keep_at_least);
            // What a host takes for the time may be off by this much, and a commit is dated by its host.
            let is_young = now < kept_until - CLOCK_TOLERANCE;
            let there = self.is_there(backup);
            if is_young && !there && !self.is_unbelieved(backup) {
                lost.push(format!("manifest of {id}, which must stay until {kept_until}"));
            }
            if there && !self.keys.contains_key(&backup.signature) {
                lost.push(format!("signature of {id}"));
            }
            if (is_young || there) && self.is_followed(backup) {
                let gone = backup.names().filter(|key| !self.keys.contains_key(*key) && !self.broken.contains(*key));
                lost.extend(gone.map(|key| format!("{key} of {id}, committed {}", backup.committed)));
            }
        }
        lost
    }

    /// What is left and should be gone. Forgets what is gone for good.
    pub(super) fn overdue(&mut self, retentions: &[Retention], now: DateTime<Utc>) -> Vec<Overdue> {
        let deadline = |backup: &Backup| backup.point + delta(retentions[backup.job].delete_after);
        let in_time = |backup: &&Backup| now <= deadline(backup);
        let needed: BTreeSet<&String> =
            self.backups.iter().filter(|one| !one.erased && in_time(one)).flat_map(Backup::names).collect();
        let mut overdue = Vec::new();
        let mut erased = Vec::new();
        for (place, backup) in self.backups.iter().enumerate().filter(|(_, one)| !one.erased && !in_time(one)) {
            let keys = [&backup.document, &backup.signature].into_iter().chain(backup.names());
            let left = keys.filter(|key| self.keys.contains_key(*key) && !needed.contains(key)).count();
            if left == 0 {
                erased.push(place);
                continue;
            }
            let manifest = if self.is_there(backup) { "manifest and all" } else { "manifest gone" };
            let what = format!(
                "{left} keys of {} ({manifest}), which should be gone since {}",
                backup.manifest.id,
                deadline(backup)
            );
            overdue.push(Overdue { job: Some(backup.job), is_unbelieved: self.is_unbelieved(backup), what });
        }
        let longest = retentions.iter().map(|one| delta(one.delete_after)).max().unwrap();
        let named: BTreeSet<&String> = self.backups.iter().filter(|one| !one.erased).flat_map(Backup::names).collect();
        for (key, seen) in &self.keys {
            let is_data = key.starts_with("objects/") || key.starts_with("lists/");
            if is_data && *seen + longest < now && !named.contains(key) {
                let what = format!("{key}, which nothing names, since {seen}");
                overdue.push(Overdue { job: None, is_unbelieved: false, what });
            }
        }
        for place in erased {
            self.backups[place].erased = true;
        }
        overdue
    }
}

pub(super) fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap()
}
