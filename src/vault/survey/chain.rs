//! What the numbers and hashes of manifests say of those that stand side by side, and of those that a revoked host signed.
//!
//! The holder of a stolen key can sign any number and any time. He cannot make a manifest that a later one points to: so the
//! last one that its host is believed for, known by its hash, vouches for the one before it, and so on backwards. Where
//! the chain is interrupted, because the one between was removed, a number must be free and the time early enough.

use std::collections::BTreeMap;

use super::{Fault, Problem, problem};
use crate::domain::ids::{JobName, ManifestHash};
use crate::domain::record::SequenceRange;
use crate::vault::Distrust;
use crate::vault::layout::{Key, ManifestName};
use crate::vault::manifests::VerifiedManifest;
use crate::vault::trust::TrustDocument;

/// Takes out what revoked hosts signed and no chain vouches for; `manifests` are sorted as in a survey, and none of them was
/// removed. `gone` are numbers that are used up, by job.
pub(super) fn disown(
    trust: &TrustDocument,
    manifests: &mut Vec<VerifiedManifest>,
    gone: &BTreeMap<JobName, Vec<SequenceRange>>,
) -> Vec<(ManifestName, Distrust)> {
    let mut disowned = Vec::new();
    // From the highest number downwards: only what is believed itself may vouch for the one before.
    let mut above: Option<(&JobName, u64, Vec<Option<ManifestHash>>)> = None;
    let same = |one: &VerifiedManifest, other: &VerifiedManifest| {
        (&one.manifest.job, one.manifest.sequence) == (&other.manifest.job, other.manifest.sequence)
    };
    let groups: Vec<&[VerifiedManifest]> = manifests.chunk_by(same).collect();
    for group in groups.into_iter().rev() {
        let (job, sequence) = (&group[0].manifest.job, group[0].manifest.sequence);
        let vouching = match &above {
            Some((of, number, previous)) if *of == job && *number == sequence + 1 => &previous[..],
            _ => &[],
        };
        let is_used = || gone.get(job).is_some_and(|gone| gone.iter().any(|range| range.contains(sequence)));
        let mut believed = Vec::new();
        for verified in group {
            let host = &verified.manifest.host;
            let entry = trust.hosts.iter().find(|entry| entry.name == *host);
            let is_believed = match entry.and_then(|entry| entry.revoked.as_ref()) {
                None => true,
                // Known by its hash, or it would not be here.
                Some(revoked) if revoked.last_manifests.get(job).is_some_and(|last| last.sequence == sequence) => true,
                Some(_) if !vouching.is_empty() => vouching.contains(&Some(verified.hash)),
                Some(_) => group.len() == 1 && !is_used(),
            };
            if is_believed {
                believed.push(verified.manifest.previous);
            } else {
                disowned.push((verified.name.clone(), Distrust::Revoked { host: host.clone() }));
            }
        }
        if !believed.is_empty() {
            above = Some((job, sequence, believed));
        }
    }
    manifests.retain(|verified| !disowned.iter().any(|(name, _)| *name == verified.name));
    disowned
}

/// What the numbers and the hashes of believed manifests say of those that stand side by side; they are sorted as in a
/// [`Survey`].
pub(super) fn chain_problems(manifests: &[VerifiedManifest]) -> Vec<Problem> {
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
