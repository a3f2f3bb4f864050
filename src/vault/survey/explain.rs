//! What removals and quarantines say of manifests that are not there, or that do not count.
//!
//! A vault gathers removals for years, and each one repeats the numbers that were gone before it. So they are read from
//! the newest backwards, and no further than something is left to be explained: in normal running one a job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, stream};

use super::{Quarantined, Removed, gaps};
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::BackupSummary;
use crate::domain::record::{RecordBody, SequenceRange};
use crate::storage::Storage;
use crate::vault::VaultError;
use crate::vault::layout::RecordName;
use crate::vault::manifests::VerifiedManifest;
use crate::vault::records::{Seen, VerifiedRecord, list_records, read_record_seen, survey_folder};
use crate::vault::trust::TrustDocument;

/// A removal is not looked for among records that are older than the backup by more than this.
const SLACK: TimeDelta = TimeDelta::days(1);

/// What the records say.
#[derive(Debug, Default)]
pub(super) struct Explained {
    /// Backups of which a removal was read; of several the last one recorded.
    pub(super) removed: BTreeMap<(JobName, BackupId), Removed>,
    /// Removals that are older than the backup which they remove, and count for nothing.
    pub(super) backdated: Vec<RecordName>,
    /// Backups that were quarantined.
    pub(super) set_aside: BTreeSet<(JobName, BackupId)>,
    /// Numbers that are gone for a reason.
    pub(super) gone: BTreeMap<JobName, Vec<SequenceRange>>,
    /// The removed backup with the highest number.
    pub(super) last_removed: BTreeMap<JobName, BackupSummary>,
}

impl Explained {
    fn add_gone(&mut self, job: &JobName, ranges: &[SequenceRange]) {
        let gone = self.gone.entry(job.clone()).or_default();
        *gone = SequenceRange::union(gone.iter().chain(ranges).copied());
    }
}

/// Reads all quarantines, which are few, and as many removals as it takes. A record that is not believed explains
/// nothing.
pub(super) async fn explain(
    storage: &dyn Storage,
    trust: &TrustDocument,
    job: Option<&JobName>,
    manifests: &[VerifiedManifest],
    untrusted: &[Quarantined],
) -> Result<Explained, VaultError> {
    let mut explained = Explained::default();
    let mut quarantined_at: BTreeMap<(JobName, BackupId), DateTime<Utc>> = BTreeMap::new();
    for verified in survey_folder(storage, trust, "quarantines").await?.records {
        let RecordBody::Quarantine(quarantine) = verified.record.body else { continue };
        explained.add_gone(&verified.record.job, &quarantine.gone);
        if let Some(backup) = quarantine.backup {
            let which = (verified.record.job, backup);
            quarantined_at.entry(which.clone()).or_insert(verified.record.recorded);
            explained.set_aside.insert(which);
        }
    }

    let names = list_records(storage, "removals").await?;
    let revoked: BTreeSet<&str> =
        trust.hosts.iter().filter(|host| host.revoked.is_some()).map(|host| host.name.as_str()).collect();
    let committed: BTreeMap<(&JobName, &BackupId), DateTime<Utc>> =
        manifests.iter().map(|m| ((&m.manifest.job, &m.manifest.id), m.manifest.committed)).collect();
    let mut heard = BTreeSet::new();
    let mut last = None;
    // As many at once as were read before: what is read in vain is no more than what was needed.
    let mut names: Vec<(RecordName, Seen)> = names.into_iter().collect();
    let (mut read, mut at_once) = (VecDeque::new(), 1);
    while let Some(name) = read.front().map(|(name, _)| name).or(names.last().map(|(name, _)| name)) {
        // Of those of one second nobody knows which is the newest, and has the most numbers.
        let is_of_same_second = last.replace(name.stamp().moment()) == Some(name.stamp().moment());
        match look_back_to(&explained, &heard, job, manifests, &revoked, untrusted, &quarantined_at) {
            Some(moment) if name.stamp().moment() >= moment => {}
            _ if is_of_same_second => {}
            _ => break,
        }
        if read.is_empty() {
            let next = names.split_off(names.len().saturating_sub(at_once));
            let reads = stream::iter(next.into_iter().rev()).map(|(name, seen)| async move {
                let answer = read_record_seen(storage, trust, &name, seen).await;
                (name, answer)
            });
            read = reads.buffered(at_once).collect().await;
            at_once = (at_once * 2).min(storage.parallel().max(1));
        }
        let Some((name, answer)) = read.pop_front() else { break };
        take_removal(&name, answer, &committed, &mut explained, &mut heard)?;
    }
    explained.backdated.sort();
    Ok(explained)
}

fn take_removal(
    name: &RecordName,
    answer: Result<VerifiedRecord, VaultError>,
    committed: &BTreeMap<(&JobName, &BackupId), DateTime<Utc>>,
    explained: &mut Explained,
    heard: &mut BTreeSet<JobName>,
) -> Result<(), VaultError> {
    let record = match answer {
        Ok(verified) => verified.record,
        Err(VaultError::RecordUntrusted { .. }) => return Ok(()),
        Err(VaultError::Storage(error)) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let RecordBody::Removal(removal) = record.body else { return Ok(()) };
    let committed = committed.get(&(&record.job, &removal.backup)).copied();
    if committed.is_some_and(|committed| record.recorded < committed) {
        // Nobody removes what is not there yet: whoever signed it wrote the time that he liked.
        explained.backdated.push(name.clone());
        return Ok(());
    }
    explained.add_gone(&record.job, &removal.gone);
    // They come from the newest backwards.
    let removed = Removed { reason: removal.reason, recorded: record.recorded, committed };
    explained.removed.entry((record.job.clone(), removal.backup)).or_insert(removed);
    if let Some(summary) = removal.summary {
        let newest = explained.last_removed.get(&record.job).is_none_or(|last| last.sequence < summary.sequence);
        if newest {
            explained.last_removed.insert(record.job.clone(), summary);
        }
    }
    heard.insert(record.job);
    Ok(())
}

/// How far back removals must still be read; `None` where nothing is left to be explained.
fn look_back_to(
    explained: &Explained,
    heard: &BTreeSet<JobName>,
    job: Option<&JobName>,
    manifests: &[VerifiedManifest],
    revoked: &BTreeSet<&str>,
    untrusted: &[Quarantined],
    quarantined_at: &BTreeMap<(JobName, BackupId), DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let gone_of = |job: &JobName| explained.gone.get(job).map_or(&[][..], Vec::as_slice);
    let always = DateTime::<Utc>::MIN_UTC;
    let mut back: Option<DateTime<Utc>> = None;
    let mut to = |moment: DateTime<Utc>| back = Some(back.map_or(moment, |back| back.min(moment)));
    if gaps(manifests).any(|gap| !gap.numbers.without(gone_of(&gap.before.job)).is_empty()) {
        to(always);
    }
    // Of a job of which nothing stands only removals can tell what numbers it had.
    if manifests.is_empty() && job.is_some_and(|job| !heard.contains(job)) {
        to(always);
    }
    for verified in manifests {
        let (job, sequence) = (&verified.manifest.job, verified.manifest.sequence);
        // One that was removed and still lies there stands in the newest removal of its job, by its number at least.
        let is_suspect = gone_of(job).iter().any(|range| range.contains(sequence));
        let is_removed = || explained.removed.contains_key(&(job.clone(), verified.manifest.id.clone()));
        // The holder of a revoked key may have filled a gap that a removal left, with any times that he likes: only the
        // newest removal of the job, however old, tells that the number was used.
        if !heard.contains(job) && revoked.contains(verified.manifest.host.as_str()) {
            to(always);
        }
        if !heard.contains(job) || (is_suspect && !is_removed()) {
            to(verified.manifest.committed - SLACK);
        }
    }
    for found in untrusted {
        let which = (found.name.job.clone(), found.name.id.clone());
        match quarantined_at.get(&which) {
            _ if explained.removed.contains_key(&which) => {}
            Some(quarantined) => to(*quarantined.min(&found.name.stamp.moment()) - SLACK),
            None => to(always),
        }
    }
    back
}
