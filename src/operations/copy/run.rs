//! The way of the bytes: lists and objects of some backups, one look that all of it is there, then their manifests.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::super::backup::claim::Held;
use super::super::backup::reuse;
use super::super::host::Host;
use super::super::records;
use super::super::vaults::OpenVault;
use super::plan::to_explain;
use super::{Left, Tally, one};
use crate::domain::ids::{BackupId, JobName, ObjectId};
use crate::domain::record::{Finder, QuarantineRecord, RecordBody, RefutationRecord, SequenceRange};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::vault::VaultError;
use crate::vault::layout::{Key, ManifestName};
use crate::vault::manifests::{VerifiedManifest, commit_manifest, read_signed_manifest};
use crate::vault::mirror::{Existing, Flaw, Holdings, REQUESTS_AT_ONCE, fetch_list, put, send_object};

/// So many backups are committed after one look.
const BATCH_BACKUPS: usize = 32;
/// Or as many as name so many objects: 32 bytes each.
const BATCH_OBJECTS: usize = 500_000;
/// Objects that are under way between two questions whether to go on.
const OBJECTS_BETWEEN: usize = 256;
/// Bytes that are held at once, an object being as large as its list says.
const KIB_IN_FLIGHT: u32 = 64 * 1024;
/// What an object of contents is taken for, whose size no list says.
const CONTENTS_KIB: u32 = 5 * 1024;

/// What the way needs to know.
pub(super) struct Run<'a> {
    pub(super) host: &'a Host,
    pub(super) source: &'a OpenVault,
    pub(super) to: &'a OpenVault,
    pub(super) job: &'a JobName,
    pub(super) progress: &'a dyn Progress,
    /// What a sweep of the copy may be deleting.
    pub(super) condemned: HashSet<ObjectId>,
    /// What was found to be wrong in the copy.
    pub(super) refuted: HashSet<ObjectId>,
    /// Backups in the copy that were refuted there.
    pub(super) bad: &'a HashSet<BackupId>,
    /// What lies in the copy.
    pub(super) there: Holdings,
    /// Numbers that the copy has, or explains.
    pub(super) accounted: Vec<SequenceRange>,
    /// Numbers that are known not to come.
    pub(super) known: Vec<SequenceRange>,
    pub(super) tally: &'a mut Tally,
}

/// A backup whose bytes are all on their way.
struct Ready {
    verified: VerifiedManifest,
    objects: Vec<ObjectId>,
    lists: Vec<ObjectId>,
}

/// Why a backup does not come.
enum Not {
    /// Something in the source is wrong, or something in the copy is in the way.
    Possible(Left),
    /// It was removed from the source meanwhile.
    ThereAnyMore,
}

/// Lists a copy.
pub(super) fn look(host: &Host, to: &OpenVault) -> Result<Holdings> {
    Ok(host.runtime.block_on(Holdings::list(&*to.storage)).map_err(VaultError::from)?)
}

impl Run<'_> {
    /// Brings these backups, which come by sequence number.
    pub(super) fn bring(&mut self, manifests: Vec<VerifiedManifest>, held: &mut Held) -> Result<()> {
        let mut batch: Vec<Ready> = Vec::new();
        for verified in manifests {
            self.host.check_interrupted()?;
            let (id, sequence) = (verified.manifest.id.clone(), verified.manifest.sequence);
            match self.bring_bytes(verified)? {
                Ok(ready) => batch.push(ready),
                Err(not) => self.stays_out(not, id, sequence),
            }
            if batch.len() >= BATCH_BACKUPS
                || batch.iter().map(|ready| ready.objects.len()).sum::<usize>() >= BATCH_OBJECTS
            {
                self.commit(std::mem::take(&mut batch), held)?;
            }
        }
        self.commit(batch, held)
    }

    fn stays_out(&mut self, not: Not, id: BackupId, sequence: u64) {
        self.known.push(one(sequence));
        match not {
            Not::Possible(left) => self.tally.left.push(left),
            Not::ThereAnyMore => self.tally.vanished.push(id),
        }
    }

    /// Brings a backup's lists and objects, as far as they are not there.
    fn bring_bytes(&mut self, verified: VerifiedManifest) -> Result<std::result::Result<Ready, Not>> {
        let sources = &verified.manifest.sources;
        let lists: BTreeSet<ObjectId> = sources.iter().flat_map(|source| source.lists.iter().copied()).collect();
        let mut objects: BTreeMap<ObjectId, Option<u64>> =
            sources.iter().flat_map(|source| source.contents.iter().map(|object| (*object, None))).collect();
        let mut list_bytes = Vec::new();
        let fetched: Vec<_> = self.host.runtime.block_on(async {
            let storage = &*self.source.storage;
            let fetch = |list: ObjectId| async move { Ok::<_, VaultError>((list, fetch_list(storage, list).await?)) };
            stream::iter(lists.iter().copied().map(fetch)).buffered(REQUESTS_AT_ONCE).try_collect().await
        })?;
        for (list, found) in fetched {
            match found {
                Ok((bytes, lines)) => {
                    objects.extend(lines.iter().map(|line| (line.object, Some(line.stored_bytes))));
                    if self.is_wanted(self.there.lists.get(&list), Some(bytes.len() as u64), &list) {
                        list_bytes.push((list, bytes));
                    }
                }
                Err(flaw) => return Ok(Err(self.flawed(&verified, &Key::List(list), flaw)?)),
            }
        }
        if let Some(name) = lists.iter().chain(objects.keys()).find(|name| self.condemned.contains(*name)) {
            return Ok(Err(Not::Possible(waits(&verified, *name))));
        }
        let missing: Vec<(ObjectId, Option<u64>)> = objects
            .iter()
            .filter(|(object, size)| self.is_wanted(self.there.objects.get(object), **size, object))
            .map(|(object, size)| (*object, *size))
            .collect();
        let total = missing.iter().filter_map(|(_, size)| *size).sum();
        self.progress.begin(&format!("copying {} of {}", verified.manifest.id, self.job), Some(total));
        let sent = self.send(&missing);
        self.progress.end();
        if let Some((object, flaw)) = sent? {
            return Ok(Err(self.flawed(&verified, &Key::Object(object), flaw)?));
        }
        for (list, bytes) in list_bytes {
            let size = bytes.len() as u64;
            let key = Key::List(list).to_string();
            let there = existing(self.there.lists.get(&list));
            self.host.runtime.block_on(put(&*self.to.storage, &key, bytes, there)).map_err(VaultError::from)?;
            self.there.lists.insert(list, size);
            self.sent(list, size);
        }
        Ok(Ok(Ready { verified, objects: objects.into_keys().collect(), lists: lists.into_iter().collect() }))
    }

    /// Whether something must be brought: where it lies there it has the size that its list says, and nobody found it wrong.
    fn is_wanted(&self, there: Option<&u64>, says: Option<u64>, id: &ObjectId) -> bool {
        match there {
            None => true,
            Some(size) => self.refuted.contains(id) || says.is_some_and(|says| says != *size),
        }
    }

    fn sent(&mut self, id: ObjectId, size: u64) {
        // It was hashed on the way: what was wrong under its name is right now.
        self.refuted.remove(&id);
        self.tally.new_objects += 1;
        self.tally.new_bytes += size;
    }

    /// Brings objects, many at once; the first that cannot be had from the source ends it.
    fn send(&mut self, missing: &[(ObjectId, Option<u64>)]) -> Result<Option<(ObjectId, Flaw)>> {
        let room = Arc::new(Semaphore::new(KIB_IN_FLIGHT as usize));
        for some in missing.chunks(OBJECTS_BETWEEN) {
            self.host.check_interrupted()?;
            let work: Vec<_> =
                some.iter().map(|(object, size)| (*object, *size, existing(self.there.objects.get(object)))).collect();
            let (from, to, progress) = (&*self.source.storage, &*self.to.storage, self.progress);
            let send = |(object, size, there): (ObjectId, Option<u64>, Existing)| {
                let room = Arc::clone(&room);
                async move {
                    let kib = size.map_or(CONTENTS_KIB, |size| u32::try_from(size / 1024).unwrap_or(u32::MAX));
                    let permit = room.acquire_many(kib.clamp(1, KIB_IN_FLIGHT)).await;
                    let _permit = permit.map_err(|_| VaultError::WriterClosed)?;
                    let sent = send_object(from, to, object, there).await?;
                    if let Ok(bytes) = sent {
                        progress.advance(bytes);
                    }
                    Ok::<_, VaultError>((object, sent))
                }
            };
            let sent: Vec<_> = self
                .host
                .runtime
                .block_on(stream::iter(work.into_iter().map(send)).buffer_unordered(REQUESTS_AT_ONCE).try_collect())?;
            let mut flaw = None;
            for (object, sent) in sent {
                match sent {
                    Ok(size) => {
                        self.there.objects.insert(object, size);
                        self.sent(object, size);
                    }
                    Err(found) => flaw = flaw.or(Some((object, found))),
                }
            }
            if flaw.is_some() {
                return Ok(flaw);
            }
        }
        Ok(None)
    }

    /// What it means that something could not be had: damage, unless the backup itself is gone by now.
    fn flawed(&self, verified: &VerifiedManifest, key: &Key, flaw: Flaw) -> Result<Not> {
        let (code, reason) = match flaw {
            Flaw::Missing if self.is_gone(&verified.name)? => return Ok(Not::ThereAnyMore),
            Flaw::Missing => (Code::ObjectMissing, "it is missing".to_owned()),
            Flaw::Damaged { reason } => (Code::ObjectDamaged, reason),
        };
        let (job, id) = (self.job, &verified.manifest.id);
        Ok(Not::Possible(Left {
            backup: Some(id.clone()),
            what: format!("backup {id} was not copied: {key} in the source: {reason}"),
            code,
            hint: format!(
                "run `lifeboat check {job}`, which puts it on record: then the next `lifeboat backup {job}` stores anew what is \
                 damaged, and copies whole"
            ),
        }))
    }

    fn is_gone(&self, name: &ManifestName) -> Result<bool> {
        let key = Key::Manifest(name.clone()).to_string();
        Ok(self.host.runtime.block_on(self.source.storage.size(&key)).map_err(VaultError::from)?.is_none())
    }

    /// Makes everything durable, looks whether it is all there, and commits: the oldest backup first, so that no number is
    /// missing before one that stands.
    fn commit(&mut self, batch: Vec<Ready>, held: &mut Held) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (host, to) = (self.host, self.to);
        host.runtime.block_on(to.storage.sync()).map_err(VaultError::from)?;
        let there = look(host, to)?;
        let condemned = reuse::condemned(host, to)?.names;
        for ready in &batch {
            let is_there = |id: &ObjectId, now: &HashMap<ObjectId, u64>, before: &HashMap<ObjectId, u64>| {
                now.get(id).is_some_and(|size| before.get(id) == Some(size)) && !condemned.contains(id)
            };
            let lists = ready.lists.iter().find(|id| !is_there(id, &there.lists, &self.there.lists));
            let objects = ready.objects.iter().find(|id| !is_there(id, &there.objects, &self.there.objects));
            if let Some(name) = lists.or(objects) {
                let message = format!(
                    "{name} is gone from the copy, or was condemned there, while this run went on, which was about to name it; \
                     no backup was committed that names it"
                );
                return Err(Error::new(Code::ClaimLost, message).with_hint(
                    "run it again: what is there is not sent again. Was something removed from the copy by hand?",
                ));
            }
        }
        (self.there, self.condemned) = (there, condemned);
        for ready in batch {
            self.host.check_interrupted()?;
            self.commit_one(ready, held)?;
        }
        Ok(())
    }

    fn commit_one(&mut self, ready: Ready, held: &mut Held) -> Result<()> {
        let (host, to) = (self.host, self.to);
        let VerifiedManifest { manifest, name, hash } = &ready.verified;
        let (id, sequence) = (manifest.id.clone(), manifest.sequence);
        // The bytes as they are now, verified as any reader of the copy would.
        let signed = match host.runtime.block_on(read_signed_manifest(&*self.source.storage, &to.trust, name)) {
            Ok((verified, signed)) if verified.hash == *hash => signed,
            Err(VaultError::ManifestMissing { .. }) => {
                self.stays_out(Not::ThereAnyMore, id, sequence);
                return Ok(());
            }
            Err(error @ VaultError::ManifestUntrusted { .. }) => {
                let left = changed(&ready.verified, &error.to_string());
                self.stays_out(Not::Possible(left), id, sequence);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let left = changed(&ready.verified, "it is another document than a moment ago");
                self.stays_out(Not::Possible(left), id, sequence);
                return Ok(());
            }
        };
        self.explain(sequence)?;
        held.confirm()?;
        host.runtime.block_on(commit_manifest(&*to.storage, &signed))?;
        let in_time = held.held_through()?;
        held.go_on();
        if let Err(error) = to.remember_one(host, manifest, *hash) {
            self.progress
                .warn(&format!("the catalog does not know of this copy yet: {error}; the next command tells it"));
        }
        if !in_time {
            self.must_be_whole(&ready)?;
        }
        self.accounted.push(one(sequence));
        self.tally.has(&ready.verified, self.bad);
        self.tally.copied.push(id);
        Ok(())
    }

    /// Says of numbers that stay out that they do: a gap that nothing explains stops every deletion.
    fn explain(&mut self, sequence: u64) -> Result<()> {
        let gone = to_explain(sequence, &self.accounted, &self.known);
        if gone.is_empty() {
            return Ok(());
        }
        self.accounted.extend(&gone);
        let body = RecordBody::Quarantine(QuarantineRecord { backup: None, gone });
        records::write(self.host, self.to, self.job, body, None)
    }

    /// After a commit that took longer than the claim held: a sweep may have taken what it names.
    fn must_be_whole(&self, ready: &Ready) -> Result<()> {
        let there = look(self.host, self.to)?;
        let condemned = reuse::condemned(self.host, self.to)?.names;
        let is_lost =
            |id: &&ObjectId, held: &HashMap<ObjectId, u64>| !held.contains_key(*id) || condemned.contains(*id);
        let lists: Vec<ObjectId> = ready.lists.iter().filter(|id| is_lost(id, &there.lists)).copied().collect();
        let mut objects: Vec<ObjectId> =
            ready.objects.iter().filter(|id| is_lost(id, &there.objects)).copied().collect();
        if lists.is_empty() && objects.is_empty() {
            return Ok(());
        }
        objects.truncate(reuse::MAX_REFUTED_NAMES);
        let id = &ready.verified.manifest.id;
        let body = RecordBody::Refutation(RefutationRecord {
            found_by: Finder::Backup,
            objects,
            lists,
            backups: vec![id.clone()],
            error_code: Code::ObjectMissing.name().to_owned(),
        });
        records::write(self.host, self.to, self.job, body, None)?;
        let message = format!(
            "the commit of backup {id} into the copy took longer than its claim held, and meanwhile a sweep took objects of it: \
             it is refuted there, do not count on it"
        );
        Err(Error::new(Code::ClaimLost, message).with_hint("a host that sleeps cannot renew its claim"))
    }
}

/// Only what is wanted is asked about: what lies there then is wrong.
fn existing(there: Option<&u64>) -> Existing {
    if there.is_some() { Existing::Wrong } else { Existing::Nothing }
}

fn waits(verified: &VerifiedManifest, name: ObjectId) -> Left {
    let id = &verified.manifest.id;
    Left {
        backup: Some(id.clone()),
        what: format!("backup {id} was not copied yet: {name}, which it needs, is about to be erased in the copy"),
        code: Code::ClaimLost,
        hint: "an earlier copy broke off, and a prune of the copy came before the next: a later copy brings it, once the copy's \
               prunes have erased what they condemned"
            .to_owned(),
    }
}

fn changed(verified: &VerifiedManifest, reason: &str) -> Left {
    let id = &verified.manifest.id;
    Left {
        backup: Some(id.clone()),
        what: format!("backup {id} was not copied: {}: {reason}", Key::Manifest(verified.name.clone())),
        code: Code::ManifestUntrusted,
        hint: format!("run `lifeboat check {}`", verified.manifest.job),
    }
}
