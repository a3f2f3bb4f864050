//! What lies in a vault, and by whom it is named. One entry an object, without its key: a vault has millions of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Stop, StreamExt, stream};
use crate::domain::claim::{CLOCK_TOLERANCE, Claim};
use crate::domain::ids::{BackupId, ObjectId};
use crate::storage::{Storage, StorageError};
use crate::vault::VaultError;
use crate::vault::glance::{Glance, Glimpse, KnownLists};
use crate::vault::layout::{Key, LISTS, ManifestName, OBJECTS};
use crate::vault::lists::{MAX_LIST_BYTES, objects_of};
use crate::vault::manifests::MAX_MANIFEST_BYTES;
use crate::vault::survey::Survey;

/// By whom something is named; the later ones count for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// By nobody.
    No,
    /// It was stored since a run began that is under way.
    Fresh,
    /// A live claim covers it, because a base of its run names it.
    Claimed,
    /// A backup names it, a quarantined one too.
    Backup,
}

/// Something that lies in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lying {
    pub(super) size_bytes: u64,
    pub(super) modified: Option<DateTime<Utc>>,
    pub(super) named: Named,
}

/// What lies in a vault.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) objects: Shelf,
    pub(super) lists: Shelf,
    /// What lists name that were read.
    read: KnownLists,
}

/// Objects, or lists.
#[derive(Debug, Default)]
pub(super) struct Shelf(HashMap<ObjectId, Lying>);

impl Shelf {
    fn mark(&mut self, id: ObjectId, by: Named) {
        if let Some(lying) = self.0.get_mut(&id) {
            lying.named = lying.named.max(by);
        }
    }

    /// Whether it lies there.
    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.0.contains_key(id)
    }

    /// What lies there under the name.
    pub(super) fn get(&self, id: &ObjectId) -> Option<&Lying> {
        self.0.get(id)
    }

    /// All that lies there, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ObjectId, &Lying)> {
        self.0.iter().map(|(id, lying)| (*id, lying))
    }
}

/// Why a list gives no names.
enum Unread {
    /// It is missing or damaged.
    Wrong(String),
    /// The store failed.
    Store(VaultError),
}

impl Inventory {
    /// A broken rule, for the model.
    #[cfg(test)]
    pub(super) fn forget_claims(&mut self) {
        for lying in self.objects.0.values_mut().chain(self.lists.0.values_mut()) {
            if lying.named != Named::Backup {
                lying.named = Named::No;
            }
        }
    }

    /// Lists the store, its objects as far as nobody has just seen them.
    pub(super) async fn list(storage: &dyn Storage, glance: Option<&Glance>) -> Result<Self, VaultError> {
        let mut inventory = Self::default();
        let mut prefixes = vec![LISTS];
        match glance {
            Some(Glance { objects, lists, .. }) => {
                let lying =
                    |seen: &Glimpse| Lying { size_bytes: seen.size_bytes, modified: seen.modified, named: Named::No };
                inventory.objects.0.extend(objects.iter().map(|(object, seen)| (*object, lying(seen))));
                inventory.read.clone_from(lists);
            }
            None => prefixes.push(OBJECTS),
        }
        for prefix in prefixes {
            storage
                .list(prefix, &mut |listed| {
                    let (shelf, id) = match Key::parse(&listed.key) {
                        Key::Object(id) => (&mut inventory.objects, id),
                        Key::List(id) => (&mut inventory.lists, id),
                        // Not ours: never touched.
                        _ => return,
                    };
                    let lying = Lying { size_bytes: listed.size_bytes, modified: listed.modified, named: Named::No };
                    shelf.0.insert(id, lying);
                })
                .await?;
        }
        Ok(inventory)
    }

    /// What was seen, for whoever looks again, from that moment on.
    pub(super) fn glance(&self, begun: DateTime<Utc>) -> Option<Glance> {
        let seen = |lying: &Lying| Glimpse { size_bytes: lying.size_bytes, modified: lying.modified };
        let mut glance =
            Glance::new(begun, self.objects.iter().map(|(object, lying)| (object, seen(lying))).collect())?;
        glance.lists.clone_from(&self.read);
        Some(glance)
    }

    /// Marks what the believed backups name. A list that cannot be read is a stop, unless each backup that names it is
    /// quarantined.
    pub(super) async fn mark_backups(
        &mut self,
        storage: &dyn Storage,
        survey: &Survey,
    ) -> Result<Vec<Stop>, VaultError> {
        let mut lists = BTreeSet::new();
        for source in survey.manifests.iter().flat_map(|verified| &verified.manifest.sources) {
            lists.extend(source.lists.iter().copied());
            source.contents.iter().for_each(|object| self.objects.mark(*object, Named::Backup));
        }
        let mut stops = Vec::new();
        for (list, reason) in self.mark_lists(storage, lists, Named::Backup).await? {
            let backups = backups_that_name(survey, list);
            if !backups.is_empty() {
                stops.push(Stop::List { key: Key::List(list).to_string(), reason, backups });
            }
        }
        Ok(stops)
    }

    /// Marks what a manifest may name that is not believed. Its form is not looked at, only for what looks like a name in
    /// it: it may be damaged, forged or of a version to come.
    pub(super) async fn mark_quarantined(
        &mut self,
        storage: &dyn Storage,
        name: &ManifestName,
    ) -> Result<(), VaultError> {
        let document = match storage.get(&Key::Manifest(name.clone()).to_string(), MAX_MANIFEST_BYTES).await {
            Ok(document) => document,
            Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. } | StorageError::NotAFile { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let names = names_in(&document);
        names.iter().for_each(|object| self.objects.mark(*object, Named::Backup));
        let lists = names.into_iter().filter(|name| self.lists.has(name)).collect();
        self.mark_lists(storage, lists, Named::Backup).await.map(drop)
    }

    /// Marks what was stored since any of these runs began.
    pub(super) fn mark_fresh(&mut self, live: &[Claim]) {
        let Some(since) = live.iter().map(|claim| claim.since).min() else { return };
        for lying in self.objects.0.values_mut().chain(self.lists.0.values_mut()) {
            let by = match lying.modified {
                Some(modified) if modified.checked_add_signed(CLOCK_TOLERANCE).is_some_and(|m| m < since) => continue,
                Some(_) => Named::Fresh,
                // It may be anybody's.
                None => Named::Claimed,
            };
            lying.named = lying.named.max(by);
        }
    }

    /// Marks what a live claim names. A list of its bases that is gone or damaged covers nothing: what it named is
    /// condemned at worst, its run sees that before it commits, and no object is deleted before a grace period is over.
    pub(super) async fn mark_claim(&mut self, storage: &dyn Storage, claim: &Claim) -> Result<(), VaultError> {
        claim.contents.iter().for_each(|object| self.objects.mark(*object, Named::Claimed));
        let lists = claim.lists.iter().copied().collect();
        self.mark_lists(storage, lists, Named::Claimed).await.map(drop)
    }

    /// Marks lists and what they name; each is read once, however often it is named. Those that could not be read are
    /// the answer, with what is wrong.
    async fn mark_lists(
        &mut self,
        storage: &dyn Storage,
        lists: BTreeSet<ObjectId>,
        by: Named,
    ) -> Result<BTreeMap<ObjectId, String>, VaultError> {
        let mut wrong = BTreeMap::new();
        // One that lies there marked as high has been read.
        let is_read = |shelf: &Shelf, list: &ObjectId| shelf.0.get(list).is_some_and(|lying| lying.named >= by);
        let unread: Vec<_> = match by {
            Named::Backup => lists.into_iter().collect(),
            _ => lists.into_iter().filter(|list| !is_read(&self.lists, list)).collect(),
        };
        // What was read before is what it was, as long as it is there.
        let (known, unread): (Vec<_>, Vec<_>) =
            unread.into_iter().partition(|list| self.lists.has(list) && self.read.get(list).is_some());
        for list in known {
            self.lists.mark(list, by);
            self.read.get(&list).unwrap_or_default().iter().for_each(|object| self.objects.mark(*object, by));
        }
        let mut read = stream::iter(unread)
            .map(|list| async move { (list, read_names(storage, list).await) })
            .buffer_unordered(storage.parallel().max(1));
        while let Some((list, names)) = read.next().await {
            self.lists.mark(list, by);
            match names {
                Ok(names) => {
                    names.iter().for_each(|object| self.objects.mark(*object, by));
                    self.read.add(list, names);
                }
                Err(Unread::Wrong(reason)) => drop(wrong.insert(list, reason)),
                Err(Unread::Store(error)) => return Err(error),
            }
        }
        Ok(wrong)
    }
}

/// What a list names. Hashing and opening it is work for another thread.
async fn read_names(storage: &dyn Storage, list: ObjectId) -> Result<Vec<ObjectId>, Unread> {
    let stored: Bytes = match storage.get(&Key::List(list).to_string(), MAX_LIST_BYTES).await {
        Ok(stored) => stored,
        Err(StorageError::NotFound { .. }) => return Err(Unread::Wrong("it is missing".into())),
        Err(error @ (StorageError::TooLarge { .. } | StorageError::NotAFile { .. })) => {
            return Err(Unread::Wrong(error.to_string()));
        }
        Err(error) => return Err(Unread::Store(error.into())),
    };
    let opened = tokio::task::spawn_blocking(move || objects_of(list, &stored)).await;
    match opened {
        Ok(names) => names.map_err(|error| Unread::Wrong(error.to_string())),
        Err(_) => Err(Unread::Store(VaultError::ReaderClosed)),
    }
}

/// The believed backups that name a list and are not quarantined.
fn backups_that_name(survey: &Survey, list: ObjectId) -> Vec<BackupId> {
    let manifests = survey.manifests.iter().map(|verified| &verified.manifest);
    manifests
        .filter(|manifest| manifest.sources.iter().any(|source| source.lists.contains(&list)))
        .filter(|manifest| !survey.set_aside.contains(&(manifest.job.clone(), manifest.id.clone())))
        .map(|manifest| manifest.id.clone())
        .collect()
}

/// Every run of 64 hexadecimal digits, and no more, in a document.
fn names_in(document: &[u8]) -> Vec<ObjectId> {
    document
        .split(|byte| !byte.is_ascii_hexdigit())
        .filter(|run| run.len() == 64)
        .filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_documents_that_are_broken() {
        let (one, two) = (ObjectId([0xab; 32]), ObjectId([2; 32]));
        let document = format!("{{\"lists\": [\"{one}\", \"{two}0\", \"{}\", \u{1}{two}", "AB".repeat(32));
        assert_eq!(names_in(document.as_bytes()), [one, two]);
        assert!(names_in(b"").is_empty());
    }
}
