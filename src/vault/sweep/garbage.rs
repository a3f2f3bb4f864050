//! What a stock says is to be done: condemn, delete, tidy up; and of which backups nothing is left then.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};

use super::inventory::{Lying, Named};
use super::{CONDEMNED_LINGERS, Condemned, RECORDS_LOOKED_AT, Stock, StreamExt, stream};
use crate::domain::claim::{CLAIM_HOLDS_AT_MOST, CLOCK_TOLERANCE};
use crate::domain::ids::{JobName, ObjectId};
use crate::domain::record::{CondemnedRecord, PruneOutcome, PruneRecord, RecordBody};
use crate::storage::Storage;
use crate::vault::VaultError;
use crate::vault::layout::{Key, RecordName};
use crate::vault::records::{VerifiedRecord, read_record};
use crate::vault::trust::TrustDocument;

/// The folder of the drills' records.
const DRILLS: &str = "drills";

/// What is to be done. Empty where something stops every deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// When the stock was taken, by the store's clock.
    pub taken: DateTime<Utc>,
    /// When the objects that it counts were listed, or earlier.
    pub listed: DateTime<Utc>,
    /// When the stock had read the claims.
    pub claims_read: DateTime<Utc>,
    /// What nothing names and no condemned list has yet: each of these becomes a record, `recorded` at the store's time.
    pub to_condemn: Vec<CondemnedRecord>,
    /// The bytes of that.
    pub to_condemn_bytes: u64,
    /// What nothing names and was condemned long enough ago.
    pub to_delete: Vec<Doomed>,
    /// What was condemned, and must wait.
    pub waiting: u64,
    /// What no backup names and stays because a claim covers it.
    pub held: u64,
    /// The condemned lists that [`Garbage::to_delete`] stands on.
    pub(super) used: Vec<RecordName>,
    /// Condemned lists that no deletion needs any more.
    pub(super) spent: Vec<RecordName>,
    /// Claims that cannot hold any more, signatures and details of documents that are not there, and sealed details
    /// that are older than their job's data may be.
    pub leftovers: Vec<String>,
    /// Of every backup that was removed at or before this moment nothing is left once [`Garbage::to_delete`] is gone.
    /// `None` where that cannot be told: something stops the sweep, a removed manifest still lies there, or a run holds
    /// what its bases named and no backup names any more.
    pub clean_through: Option<DateTime<Utc>>,
}

/// An object or list to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doomed {
    /// Which.
    pub id: ObjectId,
    /// Whether it is a list.
    pub is_list: bool,
    /// Its stored bytes.
    pub size_bytes: u64,
}

impl Doomed {
    /// Where it lies.
    #[must_use]
    pub fn key(&self) -> Key {
        if self.is_list { Key::List(self.id) } else { Key::Object(self.id) }
    }
}

impl Garbage {
    fn none(stock: &Stock) -> Self {
        Self {
            taken: stock.taken,
            listed: stock.listed,
            claims_read: stock.claims_read,
            to_condemn: Vec::new(),
            to_condemn_bytes: 0,
            to_delete: Vec::new(),
            waiting: 0,
            held: 0,
            used: Vec::new(),
            spent: Vec::new(),
            leftovers: Vec::new(),
            clean_through: None,
        }
    }

    /// How many objects and lists are to be condemned.
    #[must_use]
    pub fn to_condemn_count(&self) -> u64 {
        self.to_condemn.iter().map(|record| (record.objects.len() + record.lists.len()) as u64).sum()
    }

    /// The bytes to be deleted.
    #[must_use]
    pub fn to_delete_bytes(&self) -> u64 {
        self.to_delete.iter().map(|doomed| doomed.size_bytes).sum()
    }
}

impl Stock {
    /// What is to be done, `grace` being the time between condemning and deleting, and `delete_after` that of each job of
    /// this host's: sealed details of jobs that are not among them, and of which no backup is left, go when the longest of them is over. With a grace of less than a few hours the
    /// assumptions at the top of [`super`] do not hold.
    ///
    /// # Errors
    /// The store's.
    pub async fn garbage(
        &self,
        storage: &dyn Storage,
        trust: &TrustDocument,
        grace: TimeDelta,
        delete_after: &BTreeMap<JobName, TimeDelta>,
    ) -> Result<Garbage, VaultError> {
        let mut garbage = Garbage::none(self);
        if !self.stops.is_empty() || self.held_until.is_some() {
            return Ok(garbage);
        }
        let (mut to_condemn, mut used, mut waiting) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut claimed, mut fresh) = (0, 0);
        let shelves = [
            (true, &self.inventory.lists, by_name(&self.condemned, |condemned| &condemned.lists)),
            (false, &self.inventory.objects, by_name(&self.condemned, |condemned| &condemned.objects)),
        ];
        for (is_list, shelf, condemned) in shelves {
            for (id, &Lying { size_bytes, named, .. }) in shelf.iter() {
                let doomed = Doomed { id, is_list, size_bytes };
                match (named, condemned.get(&id).copied()) {
                    (Named::Claimed, _) => claimed += 1,
                    (Named::Fresh, _) => fresh += 1,
                    (Named::Backup, _) => {}
                    (Named::No, None) => {
                        to_condemn.push(doomed);
                        garbage.to_condemn_bytes += size_bytes;
                    }
                    (Named::No, Some(index)) if self.condemned[index].at + grace <= self.taken => {
                        used.insert(index);
                        garbage.to_delete.push(doomed);
                    }
                    (Named::No, Some(index)) => {
                        waiting.insert(index);
                        garbage.waiting += 1;
                    }
                }
            }
        }
        garbage.to_condemn = chunks(to_condemn);
        garbage.to_delete.sort_unstable_by_key(|doomed| (!doomed.is_list, doomed.id));
        garbage.used = used.into_iter().map(|index| self.condemned[index].name.clone()).collect();
        garbage.spent = self.spent(grace);
        garbage.leftovers = self.leftovers(storage, trust, grace, delete_after).await?;
        garbage.held = claimed + fresh;
        if self.survey.removed.is_empty() && claimed == 0 {
            let waiting: Vec<DateTime<Utc>> = waiting.into_iter().map(|index| self.condemned[index].at).collect();
            let is_new = !garbage.to_condemn.is_empty();
            let mut through = self.clean_through(storage, trust, &waiting, is_new).await?.min(self.listed);
            // What was stored since a run began may have been a backup's that was made and removed since then.
            if let (Some(since), true) = (self.live.iter().map(|claim| claim.since).min(), fresh > 0) {
                through = through.min(since.checked_sub_signed(CLOCK_TOLERANCE).unwrap_or(since));
            }
            garbage.clean_through = Some(through);
        }
        Ok(garbage)
    }

    /// Condemned lists whose names are all gone, and by which nobody can be deleting any more.
    fn spent(&self, grace: TimeDelta) -> Vec<RecordName> {
        let lingers = grace.max(CONDEMNED_LINGERS);
        let is_spent = |condemned: &&Condemned| {
            condemned.used + lingers <= self.taken
                && !condemned.objects.iter().any(|id| self.inventory.objects.has(id))
                && !condemned.lists.iter().any(|id| self.inventory.lists.has(id))
        };
        self.condemned.iter().filter(is_spent).map(|condemned| condemned.name.clone()).collect()
    }

    /// What else has had its time.
    async fn leftovers(
        &self,
        storage: &dyn Storage,
        trust: &TrustDocument,
        grace: TimeDelta,
        delete_after: &BTreeMap<JobName, TimeDelta>,
    ) -> Result<Vec<String>, VaultError> {
        // A run writes a signature before its document: whoever may still be doing that has a claim, or is fast.
        let is_old = |modified: DateTime<Utc>| modified + grace.max(CLAIM_HOLDS_AT_MOST) <= self.taken;
        let mut leftovers = self.lapsed_claims.clone();
        leftovers.extend(self.orphans.iter().filter(|(_, modified)| is_old(*modified)).map(|(key, _)| key.clone()));
        let documents = &self.records.documents;
        let alone = |(name, modified): (&RecordName, &Option<DateTime<Utc>>)| {
            (!documents.contains_key(name) && modified.is_some_and(is_old)).then(|| name.clone())
        };
        leftovers.extend(self.records.signatures.iter().filter_map(alone).map(|n| Key::RecordSignature(n).to_string()));
        leftovers.extend(self.records.details.iter().filter_map(alone).map(|n| Key::RecordDetails(n).to_string()));

        let (Some(shortest), Some(longest)) = (delete_after.values().min(), delete_after.values().max()) else {
            return Ok(leftovers);
        };
        let has_backups = |job: &JobName| {
            let quarantined = self.survey.quarantined.iter().map(|found| &found.name.job);
            self.survey.manifests.iter().map(|verified| &verified.manifest.job).chain(quarantined).any(|of| of == job)
        };
        let mut doubtful = Vec::new();
        let is_over = |from: DateTime<Utc>, after: &TimeDelta| {
            from.checked_add_signed(*after).is_some_and(|until| until <= self.taken)
        };
        for (name, modified) in &self.records.details {
            // Whose clock was wrong when it was written must not keep its details for ever.
            let written = modified.map_or(name.stamp().moment(), |modified| modified.min(name.stamp().moment()));
            // A drill tells of data that is older than the drill.
            if (is_over(written, shortest) || name.folder() == DRILLS) && documents.contains_key(name) {
                doubtful.push((name, written));
            }
        }
        let mut read = stream::iter(doubtful)
            .map(|(name, written)| async move { (name, written, read_record(storage, trust, name).await) })
            .buffered(storage.parallel().max(1));
        while let Some((name, written, answer)) = read.next().await {
            let expired = match answer {
                Ok(VerifiedRecord { record, .. }) => {
                    let from = record.data_from().min(written);
                    match delete_after.get(&record.job) {
                        Some(after) => is_over(from, after),
                        // Another host may promise to keep for longer what it still has backups of.
                        None => is_over(from, longest) && !has_backups(&record.job),
                    }
                }
                // Whose it is cannot be known: it goes when every job's would.
                Err(VaultError::RecordUntrusted { .. }) => is_over(written, longest),
                Err(VaultError::Storage(error)) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            if expired {
                leftovers.push(Key::RecordDetails(name.clone()).to_string());
            }
        }
        drop(read);
        Ok(leftovers)
    }

    /// What the sweep leaves clean where the store holds some of what was to be deleted: as if that still waited, unless no
    /// backup ever named it. What was condemned sooner than `keep_at_least` after it was stored was never a backup's, if no
    /// job of the vault promises to keep for less: a run stored it that came to nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn clean_beside(
        &self,
        storage: &dyn Storage,
        trust: &TrustDocument,
        garbage: &Garbage,
        locked: &[Doomed],
        keep_at_least: Option<TimeDelta>,
    ) -> Result<Option<DateTime<Utc>>, VaultError> {
        let Some(through) = garbage.clean_through else { return Ok(None) };
        let lists = by_name(&self.condemned, |condemned| &condemned.lists);
        let objects = by_name(&self.condemned, |condemned| &condemned.objects);
        let mut waiting = Vec::new();
        for Doomed { id, is_list, .. } in locked {
            let (shelf, names) =
                if *is_list { (&self.inventory.lists, &lists) } else { (&self.inventory.objects, &objects) };
            let condemned = names.get(id).map_or(self.taken, |index| self.condemned[*index].at);
            let stored = shelf.get(id).and_then(|lying| lying.modified);
            let was_named = match (stored, keep_at_least) {
                (Some(stored), Some(keep)) => stored.checked_add_signed(keep).is_some_and(|until| until <= condemned),
                _ => true,
            };
            if was_named {
                waiting.push(condemned);
            }
        }
        if waiting.is_empty() {
            return Ok(Some(through));
        }
        Ok(Some(self.clean_through(storage, trust, &waiting, false).await?.min(through)))
    }

    /// What is condemned now, or waits since these moments, belonged to backups that were removed after the last sweep
    /// before it that got to its end: all that was without a name then was condemned then.
    async fn clean_through(
        &self,
        storage: &dyn Storage,
        trust: &TrustDocument,
        waiting: &[DateTime<Utc>],
        is_new: bool,
    ) -> Result<DateTime<Utc>, VaultError> {
        let Some(earliest) = waiting.iter().min().copied().or(is_new.then_some(self.taken)) else {
            return Ok(self.taken);
        };
        let before = self.records.of("prunes").rev();
        let before = before.filter(|name| name.stamp().moment() + CLOCK_TOLERANCE < earliest);
        for name in before.take(RECORDS_LOOKED_AT) {
            match read_record(storage, trust, name).await {
                Ok(verified) => {
                    if let RecordBody::Prune(prune) = verified.record.body
                        && prune.outcome == PruneOutcome::Done
                        && prune.clean_through.is_some()
                    {
                        return self.swept_through(storage, trust, &verified.record.host, &prune).await;
                    }
                }
                Err(VaultError::RecordUntrusted { .. }) => {}
                Err(VaultError::Storage(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        // Then all that is known is that nothing is left of backups that were removed before there was a removal.
        let first = self.records.of("removals").next();
        Ok(first.map_or(self.taken, |name| name.stamp().moment() - TimeDelta::seconds(1)).min(self.taken))
    }

    /// The removals before this moment are those that a sweep knew of. Its own come before its stock; another host's that
    /// come while it runs may have come too late for it.
    async fn swept_through(
        &self,
        storage: &dyn Storage,
        trust: &TrustDocument,
        host: &str,
        prune: &PruneRecord,
    ) -> Result<DateTime<Utc>, VaultError> {
        let mut through = prune.finished;
        for name in self.records.of("removals").rev() {
            let removed = name.stamp().moment();
            if removed > prune.finished + CLOCK_TOLERANCE {
                continue;
            }
            if removed < prune.started - CLOCK_TOLERANCE {
                break;
            }
            let is_own = match read_record(storage, trust, name).await {
                Ok(verified) => verified.record.host == host,
                Err(VaultError::RecordUntrusted { .. }) => false,
                Err(VaultError::Storage(error)) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            if !is_own {
                through = through.min(removed - TimeDelta::seconds(1));
            }
        }
        Ok(through)
    }
}

/// Which condemned list has a name; where several have it, the earliest.
fn by_name(condemned: &[Condemned], names: impl Fn(&Condemned) -> &Vec<ObjectId>) -> HashMap<ObjectId, usize> {
    let mut by_name = HashMap::new();
    for (index, record) in condemned.iter().enumerate() {
        for id in names(record) {
            by_name.entry(*id).or_insert(index);
        }
    }
    by_name
}

/// Records of at most [`CondemnedRecord::MAX_NAMES`] names.
pub(super) fn chunks(mut doomed: Vec<Doomed>) -> Vec<CondemnedRecord> {
    doomed.sort_unstable_by_key(|doomed| (!doomed.is_list, doomed.id));
    let record = |chunk: &[Doomed]| {
        let of = |is_list| chunk.iter().filter(move |doomed| doomed.is_list == is_list).map(|doomed| doomed.id);
        CondemnedRecord { objects: of(false).collect(), lists: of(true).collect() }
    };
    doomed.chunks(CondemnedRecord::MAX_NAMES).map(record).collect()
}
