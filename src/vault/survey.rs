//! What backups a vault holds: every manifest, believed or told why not, and what is missing between them.
//!
//! Nothing is decided here: whether a problem stops a restore, a deletion or nothing is for the verbs to say. The
//! answer depends on the vault alone and not on the order in which its store lists. A tail that was cut off (the
//! newest manifests gone, signatures and all) cannot be seen from here; who remembers the highest number can.
//!
//! What was taken out on purpose, or given up by a person, is no problem: the signed records say so (explain.rs).

mod explain;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use self::explain::{Explained, explain};
use super::layout::{Key, ManifestName};
use super::manifests::{VerifiedManifest, read_manifest};
use super::trust::TrustDocument;
use super::{Distrust, VaultError};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::{BackupId, JobName, ManifestHash};
use crate::domain::manifest::BackupSummary;
use crate::domain::record::SequenceRange;
use crate::error::Code;
use crate::storage::Storage;

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

/// Reads all manifests, or those of one job.
///
/// # Errors
/// The store's, where it fails; what is wrong with the manifests is in the answer.
pub async fn survey(storage: &dyn Storage, trust: &TrustDocument, job: Option<&JobName>) -> Result<Survey, VaultError> {
    let (mut names, mut signatures) = (BTreeMap::new(), BTreeSet::new());
    let mut survey = Survey::default();
    let now = storage.now().await?;
    storage
        .list(&Key::manifests_of(job), &mut |listed| match Key::parse(&listed.key) {
            Key::Manifest(name) => names.extend([(name, listed.modified)]),
            Key::ManifestSignature(name) => signatures.extend([name]),
            _ => survey.strays.push(listed.key),
        })
        .await?;
    let alone = signatures.into_iter().filter(|name| !names.contains_key(name));
    survey.strays.extend(alone.map(|name| Key::ManifestSignature(name).to_string()));
    survey.strays.sort();

    let mut untrusted = Vec::new();
    for (name, modified) in names {
        match read_manifest(storage, trust, &name).await {
            Ok(verified) if verified.manifest.recovery_point > now + CLOCK_TOLERANCE => {
                let reason = Distrust::FromTheFuture { says: verified.manifest.recovery_point, now };
                untrusted.push(Quarantined { name, reason, modified });
            }
            Ok(verified) => survey.manifests.push(verified),
            Err(VaultError::ManifestUntrusted { reason, .. }) => untrusted.push(Quarantined { name, reason, modified }),
            // Removed since the listing.
            Err(VaultError::ManifestMissing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    survey.manifests.sort_by(|one, other| place(one).cmp(&place(other)));

    // After the manifests: a removal's record is written before its manifest goes, so that every gap that a removal
    // made has its record by now.
    let Explained { removed, set_aside, mut gone, last_removed } =
        explain(storage, trust, job, &survey.manifests, &untrusted).await?;
    let is_removed = |name: &ManifestName| removed.contains(&(name.job.clone(), name.id.clone()));
    survey.removed.extend(survey.manifests.extract_if(.., |m| is_removed(&m.name)).map(|m| m.name));
    survey.removed.extend(untrusted.extract_if(.., |found| is_removed(&found.name)).map(|found| found.name));
    survey.removed.sort();
    for found in untrusted {
        if set_aside.contains(&(found.name.job.clone(), found.name.id.clone())) {
            survey.quarantined.push(found);
        } else {
            survey.problems.push(problem(&found.name, Fault::Untrusted(found.reason)));
        }
    }
    for gap in gaps(&survey.manifests) {
        let known = gone.entry(gap.before.job.clone()).or_default();
        let left = gap.numbers.without(known);
        let missing: u64 = left.iter().map(|range| range.last - range.first + 1).sum();
        // What is not believed tells no number: it stands between its neighbours by its time.
        let between = survey.quarantined.iter().filter(|found| gap.spans(&found.name)).count() as u64;
        if missing <= between {
            *known = SequenceRange::union(known.iter().chain(&left).copied());
        } else {
            let faults = left.into_iter().map(|SequenceRange { first, last }| Fault::Missing { first, last });
            survey.problems.extend(faults.map(|fault| problem(gap.before, fault)));
        }
    }
    gone.retain(|_, ranges| !ranges.is_empty());
    survey.problems.extend(chain_problems(&survey.manifests));
    survey.problems.sort_by(|one, other| one.key.cmp(&other.key));
    (survey.set_aside, survey.gone, survey.last_removed) = (set_aside, gone, last_removed);
    Ok(survey)
}

fn place(verified: &VerifiedManifest) -> (&JobName, u64, &ManifestName) {
    (&verified.manifest.job, verified.manifest.sequence, &verified.name)
}

/// Numbers that no believed manifest has.
struct Gap<'a> {
    numbers: SequenceRange,
    /// The manifest before it, of the same job.
    after: Option<&'a ManifestName>,
    /// The manifest that follows.
    before: &'a ManifestName,
}

impl Gap<'_> {
    fn spans(&self, name: &ManifestName) -> bool {
        name.job == self.before.job
            && name.stamp <= self.before.stamp
            && self.after.is_none_or(|after| after.stamp <= name.stamp)
    }
}

/// The gaps between manifests, which are sorted as in a [`Survey`].
fn gaps(manifests: &[VerifiedManifest]) -> impl Iterator<Item = Gap<'_>> {
    manifests.iter().enumerate().filter_map(|(index, verified)| {
        let after = index.checked_sub(1).map(|before| &manifests[before]);
        let after = after.filter(|after| after.manifest.job == verified.manifest.job);
        let last = after.map_or(0, |after| after.manifest.sequence);
        let numbers = SequenceRange { first: last.saturating_add(1), last: verified.manifest.sequence - 1 };
        let gap = Gap { numbers, after: after.map(|after| &after.name), before: &verified.name };
        (numbers.first <= numbers.last).then_some(gap)
    })
}

/// What the numbers and the hashes of believed manifests say of those that stand side by side; they are sorted as in a
/// [`Survey`].
fn chain_problems(manifests: &[VerifiedManifest]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for job in manifests.chunk_by(|one, other| one.manifest.job == other.manifest.job) {
        let mut hashes: BTreeMap<u64, Vec<(ManifestHash, &ManifestName)>> = BTreeMap::new();
        for verified in job {
            let sequence = verified.manifest.sequence;
            if let Some((_, other)) = hashes.get(&sequence).and_then(|same| same.first()) {
                let fault = Fault::Duplicate { sequence, other: Key::Manifest((*other).clone()).to_string() };
                problems.push(problem(&verified.name, fault));
            }
            if let Some(before) = hashes.get(&(sequence - 1))
                && let Some(says) = verified.manifest.previous
                && !before.iter().any(|(hash, _)| *hash == says)
            {
                problems.push(problem(&verified.name, Fault::BrokenChain { says: says.to_string() }));
            }
            hashes.entry(sequence).or_default().push((verified.hash, &verified.name));
        }
    }
    problems
}

fn problem(name: &ManifestName, fault: Fault) -> Problem {
    Problem { key: Key::Manifest(name.clone()).to_string(), job: name.job.clone(), fault }
}

#[cfg(test)]
mod tests;
