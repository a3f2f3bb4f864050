//! Every list and every object that backups name, byte for byte against its name. Needs no key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;

use crate::domain::ids::{BackupId, JobName, ObjectId};
use crate::domain::manifest::Manifest;
use crate::error::{Code, Diagnostic as _, Result};
use crate::observe::Progress;
use crate::storage::{Storage, StorageError};
use crate::vault::layout::{Key, object_id};
use crate::vault::lists::read_lists;
use crate::vault::reader::{MAX_OBJECT_BYTES, USUAL_CONTENTS_BYTES};
use crate::vault::versions::earlier_named;

use super::super::host::Host;
use super::{Damage, OfJob, Wanted, hash_of, in_parallel, plain_reason, push, readable_words};

/// What backups name, and what is wrong with it.
#[derive(Debug, Default)]
pub struct NamedObjects {
    /// By object, what its lists say of it.
    objects: HashMap<ObjectId, Named>,
    /// By list, the backups that name it.
    lists: BTreeMap<ObjectId, Vec<usize>>,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Backups, objects, lists and bytes of each job.
    pub by_job: BTreeMap<JobName, OfJob>,
    /// What is wrong, with the backups that it spoils.
    pub damaged: Vec<Damage>,
}

/// What names an object, and what must be true of it. Backups share their lists, so an object knows few of these.
#[derive(Debug, Default)]
struct Named {
    /// The size that the lists say; contents have none.
    stored_bytes: Option<u64>,
    lists: Vec<ObjectId>,
    /// Backups whose contents it is a part of.
    contents_of: Vec<usize>,
}

impl NamedObjects {
    /// Objects and lists.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.objects.len() + self.lists.len()) as u64
    }

    /// Whether a backup names the object.
    #[must_use]
    pub fn has_object(&self, object: &ObjectId) -> bool {
        self.objects.contains_key(object)
    }

    /// Whether a backup names the list.
    #[must_use]
    pub fn has_list(&self, list: &ObjectId) -> bool {
        self.lists.contains_key(list)
    }
}

/// Reads and hashes everything that these backups name.
///
/// # Errors
/// When the store cannot be read at all. Damage is no error: it is in the answer.
pub fn check(
    host: &Host,
    storage: &Arc<dyn Storage>,
    manifests: &[Manifest],
    progress: &dyn Progress,
) -> Result<NamedObjects> {
    let mut all = named(manifests);
    let ids = |by: &BTreeSet<usize>| by.iter().map(|&index| manifests[index].id.clone()).collect::<Vec<BackupId>>();
    let mut lists = read_lists(&**storage, all.lists.keys().copied());
    while let Some((list, read)) = host.runtime.block_on(lists.next()) {
        match read {
            Ok(lines) => {
                if let Some((code, reason)) = overwritten(host, &**storage, &Key::List(list), list)? {
                    let by = all.lists[&list].iter().copied().collect();
                    let (object, backups) = (Key::List(list).to_string(), ids(&by));
                    all.damaged.push(Damage { object, code, reason, backups, readable: true });
                }
                for line in lines {
                    let named = all.objects.entry(line.object).or_default();
                    named.stored_bytes = Some(line.stored_bytes);
                    if named.lists.last() != Some(&list) {
                        named.lists.push(list);
                    }
                }
            }
            Err(error) => all.damaged.push(Damage {
                object: Key::List(list).to_string(),
                code: error.code().name(),
                reason: plain_reason(&error),
                backups: ids(&all.lists[&list].iter().copied().collect()),
                readable: false,
            }),
        }
    }
    drop(lists);

    let shares = Shares::of(&all, manifests);
    progress.begin("checking objects", Some(all.objects.values().filter_map(|n| n.stored_bytes).sum()));
    let work: Vec<(&ObjectId, &Named)> = all.objects.iter().collect();
    let findings = Mutex::new(Vec::new());
    let bytes = AtomicU64::new(0);
    let wanted = work.iter().map(|(object, named)| Wanted {
        key: Key::Object(**object).to_string(),
        expected_bytes: named.stored_bytes.unwrap_or(USUAL_CONTENTS_BYTES),
    });
    in_parallel(host, storage, wanted, &|index, read| {
        let (object, named) = work[index];
        match hash_of(read) {
            Ok((hash, size)) => {
                bytes.fetch_add(size, Ordering::Relaxed);
                shares.read(named, size);
                progress.advance(size);
                if let Some(reason) = differs(*object, named, hash, size) {
                    let (reason, readable) = made_good(host, &**storage, *object, reason)?;
                    push(&findings, (*object, Code::ObjectDamaged.name(), reason, readable));
                }
                Ok(())
            }
            Err(
                error @ (StorageError::NotFound { .. } | StorageError::TooLarge { .. } | StorageError::NotAFile { .. }),
            ) => {
                let (reason, readable) = made_good(host, &**storage, *object, plain_reason(&error))?;
                push(&findings, (*object, error.code().name(), reason, readable));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    })?;
    progress.end();
    all.bytes = bytes.into_inner();
    all.by_job = shares.told(&all, manifests);
    let mut findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.sort();
    for (object, code, reason, readable) in findings {
        let named = &all.objects[&object];
        let mut by: BTreeSet<usize> = named.contents_of.iter().copied().collect();
        by.extend(named.lists.iter().flat_map(|list| &all.lists[list]));
        all.damaged.push(Damage { object: Key::Object(object).to_string(), code, reason, backups: ids(&by), readable });
    }
    Ok(all)
}

/// Whose what is: places in the list of jobs.
struct Shares {
    jobs: Vec<JobName>,
    of_backup: Vec<usize>,
    of_list: HashMap<ObjectId, Vec<usize>>,
    /// Bytes that were hashed, by job.
    bytes: Vec<AtomicU64>,
}

impl Shares {
    fn of(all: &NamedObjects, manifests: &[Manifest]) -> Self {
        let jobs: BTreeSet<&JobName> = manifests.iter().map(|manifest| &manifest.job).collect();
        let jobs: Vec<JobName> = jobs.into_iter().cloned().collect();
        let place = |manifest: &Manifest| jobs.partition_point(|job| *job < manifest.job);
        let of_backup: Vec<usize> = manifests.iter().map(place).collect();
        let of_list = all.lists.iter().map(|(list, by)| (*list, places(by.iter().map(|&index| of_backup[index]))));
        let (of_list, bytes) = (of_list.collect(), jobs.iter().map(|_| AtomicU64::new(0)).collect());
        Self { jobs, of_backup, of_list, bytes }
    }

    fn of_object(&self, named: &Named) -> Vec<usize> {
        let by_lists = named.lists.iter().flat_map(|list| &self.of_list[list]).copied();
        places(by_lists.chain(named.contents_of.iter().map(|&index| self.of_backup[index])))
    }

    fn read(&self, named: &Named, size: u64) {
        for job in self.of_object(named) {
            self.bytes[job].fetch_add(size, Ordering::Relaxed);
        }
    }

    fn told(self, all: &NamedObjects, manifests: &[Manifest]) -> BTreeMap<JobName, OfJob> {
        let mut told = vec![OfJob::default(); self.jobs.len()];
        (0..manifests.len()).for_each(|index| told[self.of_backup[index]].backups += 1);
        self.of_list.values().flatten().for_each(|&job| told[job].objects += 1);
        all.objects.values().flat_map(|named| self.of_object(named)).for_each(|job| told[job].objects += 1);
        for (of_job, bytes) in told.iter_mut().zip(self.bytes) {
            of_job.bytes = bytes.into_inner();
        }
        self.jobs.into_iter().zip(told).collect()
    }
}

/// Each once. Backups share their lists, and few jobs share anything: these are short.
fn places(places: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut each = Vec::new();
    for place in places {
        if !each.contains(&place) {
            each.push(place);
        }
    }
    each
}

/// Whether an earlier version of a damaged object is right, and what is to be said then.
fn made_good(host: &Host, storage: &dyn Storage, object: ObjectId, reason: String) -> Result<(String, bool)> {
    let key = Key::Object(object).to_string();
    let Some(undoing) = storage.undoing(&key) else { return Ok((reason, false)) };
    let earlier = host.runtime.block_on(earlier_named(storage, &key, object, MAX_OBJECT_BYTES))?;
    Ok(match earlier {
        Some(_) => (format!("{reason}; {}", readable_words(&undoing)), true),
        None => (reason, false),
    })
}

/// What is wrong with a list that was read: it was an earlier version of it.
fn overwritten(
    host: &Host,
    storage: &dyn Storage,
    key: &Key,
    name: ObjectId,
) -> Result<Option<(&'static str, String)>> {
    let key = key.to_string();
    let Some(undoing) = storage.undoing(&key) else { return Ok(None) };
    let (code, reason) = match host.runtime.block_on(storage.get(&key, MAX_OBJECT_BYTES)) {
        Ok(stored) if object_id(&stored) == name => return Ok(None),
        Ok(_) => (Code::ObjectDamaged.name(), "its bytes are not those that its name says".to_owned()),
        Err(error @ (StorageError::NotFound { .. } | StorageError::TooLarge { .. })) => {
            (error.code().name(), plain_reason(&error))
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some((code, format!("{reason}; {}", readable_words(&undoing)))))
}

/// What the manifests themselves name.
fn named(manifests: &[Manifest]) -> NamedObjects {
    let mut all = NamedObjects::default();
    for (index, manifest) in manifests.iter().enumerate() {
        for source in &manifest.sources {
            for list in &source.lists {
                let by = all.lists.entry(*list).or_default();
                if by.last() != Some(&index) {
                    by.push(index);
                }
            }
            for object in &source.contents {
                all.objects.entry(*object).or_default().contents_of.push(index);
            }
        }
    }
    all
}

fn differs(object: ObjectId, named: &Named, hash: [u8; 32], size: u64) -> Option<String> {
    let said = named.stored_bytes.filter(|said| *said != size);
    match (hash == object.0, said) {
        (true, None) => None,
        (true, Some(_)) => Some("the list says another size than it has".to_owned()),
        (false, Some(said)) => Some(format!("has {size} bytes where the list says {said}")),
        (false, None) => Some("its bytes are not those that its name says".to_owned()),
    }
}
