//! What backups a vault holds: every manifest, believed or told why not, and what is missing between them.
//!
//! Nothing is decided here: whether a problem stops a restore, a deletion or nothing is for the verbs to say. The
//! answer depends on the vault alone and not on the order in which its store lists. A tail that was cut off (the
//! newest manifests gone, signatures and all) cannot be seen from here; who remembers the highest number can.
//!
//! What was taken out on purpose, or given up by a person, is no problem: the signed records say so (explain.rs).

mod chain;
mod explain;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures_util::future::{Either, FutureExt as _, ready};
use futures_util::{StreamExt as _, stream};

use self::chain::{chain_problems, disown};
use self::explain::{Explained, explain};
use super::layout::{Key, ManifestName, RecordName};
use super::manifests::{VerifiedManifest, number_shown, read_manifest};
use super::trust::TrustDocument;
use super::{Distrust, VaultError};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::BackupSummary;
use crate::domain::record::{RemovalReason, SequenceRange};
use crate::error::Code;
use crate::storage::{Storage, StorageError};

/// The manifests of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Those that are believed and were not removed, by job, then sequence number, then name.
    pub manifests: Vec<VerifiedManifest>,
    /// What is wrong, by key.
    pub problems: Vec<Problem>,
    /// Manifests that are not believed, and that a person quarantined, by name.
    pub quarantined: Vec<Quarantined>,
    /// Manifests that still lie there although a record says that they were removed, by name: whoever removed them
    /// died before the deletion.
    pub removed: Vec<ManifestName>,
    /// What the removals say that were read, by backup: of each in `removed` at least, of those whose manifests are gone
    /// as far as they had to be read.
    pub removals: BTreeMap<(JobName, BackupId), Removed>,
    /// Removals that were recorded before the backup was committed that they remove, which lies there: a false clock or a
    /// forgery. They count for nothing.
    pub backdated: Vec<RecordName>,
    /// Every backup that a quarantine names, believed or not.
    pub set_aside: BTreeSet<(JobName, BackupId)>,
    /// By job, the numbers that are gone for a reason. The newest removal of each job is among what was read for it,
    /// if it has one.
    pub gone: BTreeMap<JobName, Vec<SequenceRange>>,
    /// By job, the removed backup with the highest number among the removals that were read.
    pub last_removed: BTreeMap<JobName, BackupSummary>,
    /// Keys that belong to nothing: signatures of runs that died before their commit, and what others put there.
    /// No damage.
    pub strays: Vec<String>,
}

impl Survey {
    /// The number that the job's next backup gets: one more than any that stands or was removed.
    #[must_use]
    pub fn next_sequence(&self, job: &JobName) -> u64 {
        let stands = self.manifests.iter().filter(|verified| verified.manifest.job == *job);
        let stands = stands.map(|verified| verified.manifest.sequence).max().unwrap_or(0);
        let gone = self.gone.get(job).and_then(|gone| gone.last()).map_or(0, |range| range.last);
        stands.max(gone).saturating_add(1)
    }
}

/// What a removal says of a backup, and its manifest where that still lies there. Whoever signs a removal writes `recorded`
/// as he likes: whether a backup is old enough to go is told by `committed` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Why it was taken out.
    pub reason: RemovalReason,
    /// When, by the removal.
    pub recorded: DateTime<Utc>,
    /// When it was committed, by its own manifest; `None` where that is gone or not believed.
    pub committed: Option<DateTime<Utc>>,
}

/// A manifest that is not believed, and that a person decided to go on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it lies.
    pub name: ManifestName,
    /// Why it is not believed.
    pub reason: Distrust,
    /// When the store last saw it.
    pub modified: Option<DateTime<Utc>>,
}

/// Something wrong with a manifest, or with one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The manifest's key; for a gap the key of the manifest after it.
    pub key: String,
    /// The job under whose folder it lies.
    pub job: JobName,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The manifest is not believed.
    #[error("it is not to be trusted: {0}")]
    Untrusted(Distrust),
    /// Manifests before this one are gone, or are not believed.
    #[error("{}", missing(*.first, *.last))]
    Missing {
        /// The first missing sequence number.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Two believed manifests of the job have the same number.
    #[error("it has sequence number {sequence}, and so has {other}")]
    Duplicate {
        /// The number.
        sequence: u64,
        /// The other one's key.
        other: String,
    },
    /// It does not point to the manifest before it.
    #[error("it follows a manifest with hash {says}, and the one before it is another")]
    BrokenChain {
        /// The hash that it points to.
        says: String,
    },
}

impl Fault {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::ManifestMissing,
            Self::Untrusted(_) | Self::Duplicate { .. } | Self::BrokenChain { .. } => Code::ManifestUntrusted,
        }
    }
}

impl Problem {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match (&self.fault, Key::parse(&self.key)) {
            (Fault::Missing { first, last }, _) if first == last => format!(
                "bring the manifest back from a copy of the vault; if it is lost, `lifeboat quarantine {}#{first}` \
                 acknowledges that it is missing",
                self.job
            ),
            (Fault::Missing { first, last }, _) => format!(
                "bring the manifests back from a copy of the vault; if they are lost, `lifeboat quarantine \
                 {}#{first}-{last}` acknowledges that they are missing",
                self.job
            ),
            (Fault::Untrusted(Distrust::NewerVersion { .. }), _) => {
                "install the newer lifeboat that wrote it".to_owned()
            }
            (Fault::Untrusted(_), Key::Manifest(name)) => format!(
                "look at it, and bring it back from a copy of the vault if there is one; to go on without it: \
                 `lifeboat quarantine {}`",
                name.id
            ),
            _ => "run `lifeboat check` for the whole damage".to_owned(),
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("the manifest with sequence number {first}, before it, is missing")
    } else {
        format!("the manifests with sequence numbers {first} to {last}, before it, are missing")
    }
}

/// What lies in the folders of manifests, and when the store last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestFolder {
    /// Manifests.
    pub manifests: BTreeMap<ManifestName, Option<DateTime<Utc>>>,
    /// Signatures.
    pub signatures: BTreeMap<ManifestName, Option<DateTime<Utc>>>,
    /// Keys that are neither's.
    pub others: Vec<String>,
}

impl ManifestFolder {
    /// Lists all, or those of one job.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(storage: &dyn Storage, job: Option<&JobName>) -> Result<Self, StorageError> {
        let mut folder = Self::default();
        storage
            .list(&Key::manifests_of(job), &mut |listed| match Key::parse(&listed.key) {
                Key::Manifest(name) => drop(folder.manifests.insert(name, listed.modified)),
                Key::ManifestSignature(name) => drop(folder.signatures.insert(name, listed.modified)),
                _ => folder.others.push(listed.key),
            })
            .await?;
        Ok(folder)
    }
}

/// Reads all manifests, or those of one job.
///
/// # Errors
/// The store's, where it fails; what is wrong with the manifests is in the answer.
pub async fn survey(storage: &dyn Storage, trust: &TrustDocument, job: Option<&JobName>) -> Result<Survey, VaultError> {
    let now = storage.now().await?;
    let folder = ManifestFolder::list(storage, job).await?;
    survey_listed(storage, trust, job, &folder, now, &[]).await
}

/// The same once more: manifests in `earlier`, which this process read and believed a moment ago, are not read again as
/// long as they lie there.
///
/// # Errors
/// As [`survey`].
pub async fn survey_again(
    storage: &dyn Storage,
    trust: &TrustDocument,
    job: Option<&JobName>,
    earlier: &[VerifiedManifest],
) -> Result<Survey, VaultError> {
    let now = storage.now().await?;
    let folder = ManifestFolder::list(storage, job).await?;
    survey_listed(storage, trust, job, &folder, now, earlier).await
}

/// The same of what was just listed, at `now` by the store's time or later.
///
/// # Errors
/// As [`survey`].
pub async fn survey_listed(
    storage: &dyn Storage,
    trust: &TrustDocument,
    job: Option<&JobName>,
    folder: &ManifestFolder,
    now: DateTime<Utc>,
    earlier: &[VerifiedManifest],
) -> Result<Survey, VaultError> {
    let names = &folder.manifests;
    let alone = folder.signatures.keys().filter(|name| !names.contains_key(name));
    let alone = alone.map(|name| Key::ManifestSignature(name.clone()).to_string());
    let mut survey = Survey { strays: folder.others.iter().cloned().chain(alone).collect(), ..Survey::default() };
    survey.strays.sort();

    let known: BTreeMap<&ManifestName, &VerifiedManifest> = earlier.iter().map(|known| (&known.name, known)).collect();
    let read = |name| match known.get(name) {
        Some(known) => Either::Left(ready(Ok((*known).clone()))),
        None => Either::Right(read_manifest(storage, trust, name)),
    };
    let mut reads = stream::iter(names)
        .map(|(name, modified)| read(name).map(move |answer| (name, modified, answer)))
        .buffered(storage.parallel().max(1));
    let mut untrusted = Vec::new();
    while let Some((name, modified, answer)) = reads.next().await {
        let untrusted_for = |reason| Quarantined { name: name.clone(), reason, modified: *modified };
        match answer {
            Ok(verified) => {
                let times = [verified.manifest.recovery_point, verified.manifest.committed];
                match times.into_iter().find(|says| *says > now + CLOCK_TOLERANCE) {
                    Some(says) => untrusted.push(untrusted_for(Distrust::FromTheFuture { says, now })),
                    None => survey.manifests.push(verified),
                }
            }
            Err(VaultError::ManifestUntrusted { reason, .. }) => untrusted.push(untrusted_for(reason)),
            // Removed since the listing.
            Err(VaultError::ManifestMissing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    drop(reads);
    survey.manifests.sort_by(|one, other| place(one).cmp(&place(other)));

    // After the manifests: a removal's record is written before its manifest goes, so that every gap that a removal
    // made has its record by now.
    let Explained { removed, backdated, set_aside, mut gone, last_removed } =
        explain(storage, trust, job, &survey.manifests, &untrusted).await?;
    let is_removed = |name: &ManifestName| removed.contains_key(&(name.job.clone(), name.id.clone()));
    survey.removed.extend(survey.manifests.extract_if(.., |m| is_removed(&m.name)).map(|m| m.name));
    survey.removed.extend(untrusted.extract_if(.., |found| is_removed(&found.name)).map(|found| found.name));
    survey.removed.sort();
    for (name, reason) in disown(trust, &mut survey.manifests, &gone) {
        let modified = names.get(&name).copied().flatten();
        untrusted.push(Quarantined { name, reason, modified });
    }
    untrusted.sort_by(|one, other| one.name.cmp(&other.name));
    for found in untrusted {
        if set_aside.contains(&(found.name.job.clone(), found.name.id.clone())) {
            survey.quarantined.push(found);
        } else {
            survey.problems.push(problem(&found.name, Fault::Untrusted(found.reason)));
        }
    }
    // A quarantine of a manifest says that its own number is gone, as far as it can be told, and no other.
    let mut shown: BTreeMap<&JobName, Vec<u64>> = BTreeMap::new();
    for gap in gaps(&survey.manifests) {
        let job = &gap.before.job;
        let known = gone.entry(job.clone()).or_default();
        let mut left = gap.numbers.without(known);
        if left.is_empty() {
            continue;
        }
        if !shown.contains_key(job) {
            let mut numbers = Vec::new();
            for found in survey.quarantined.iter().filter(|found| found.name.job == *job) {
                numbers.extend(number_shown(storage, &found.name).await?);
            }
            shown.insert(job, numbers);
        }
        let known_to_be = shown[job].iter().filter(|number| left.iter().any(|range| range.contains(**number)));
        let known_to_be: Vec<_> = known_to_be.map(|n| SequenceRange { first: *n, last: *n }).collect();
        *known = SequenceRange::union(known.iter().chain(&known_to_be).copied());
        left = gap.numbers.without(known);
        let faults = left.into_iter().map(|SequenceRange { first, last }| Fault::Missing { first, last });
        survey.problems.extend(faults.map(|fault| problem(gap.before, fault)));
    }
    gone.retain(|_, ranges| !ranges.is_empty());
    survey.problems.extend(chain_problems(&survey.manifests));
    survey.problems.sort_by(|one, other| one.key.cmp(&other.key));
    (survey.set_aside, survey.gone, survey.last_removed) = (set_aside, gone, last_removed);
    (survey.removals, survey.backdated) = (removed, backdated);
    Ok(survey)
}

fn place(verified: &VerifiedManifest) -> (&JobName, u64, &ManifestName) {
    (&verified.manifest.job, verified.manifest.sequence, &verified.name)
}

/// Numbers that no believed manifest has.
struct Gap<'a> {
    numbers: SequenceRange,
    /// The manifest that follows.
    before: &'a ManifestName,
}

/// The gaps between manifests, which are sorted as in a [`Survey`].
fn gaps(manifests: &[VerifiedManifest]) -> impl Iterator<Item = Gap<'_>> {
    manifests.iter().enumerate().filter_map(|(index, verified)| {
        let after = index.checked_sub(1).map(|before| &manifests[before]);
        let after = after.filter(|after| after.manifest.job == verified.manifest.job);
        let last = after.map_or(0, |after| after.manifest.sequence);
        let numbers = SequenceRange { first: last.saturating_add(1), last: verified.manifest.sequence - 1 };
        let gap = Gap { numbers, before: &verified.name };
        (numbers.first <= numbers.last).then_some(gap)
    })
}

fn problem(name: &ManifestName, fault: Fault) -> Problem {
    Problem { key: Key::Manifest(name.clone()).to_string(), job: name.job.clone(), fault }
}

#[cfg(test)]
mod tests;
