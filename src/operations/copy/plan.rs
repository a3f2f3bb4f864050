//! What belongs into a copy and is not there: a function of what both places hold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::Completeness;
use crate::domain::record::SequenceRange;
use crate::domain::retention::{Candidate, Fate, Lead, Retention};
use crate::error::{Code, Error, Result};
use crate::vault::manifests::VerifiedManifest;
use crate::vault::survey::Survey;

/// By which a backup is let into the copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) job: &'a JobName,
    pub(super) retention: &'a Retention,
    pub(super) lead: &'a Lead,
    pub(super) zone: Tz,
    pub(super) now: DateTime<Utc>,
}

/// What is to be copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By sequence number.
    pub(super) manifests: Vec<VerifiedManifest>,
    /// Numbers of backups that stay out, because the next prune would take them out of the copy.
    pub(super) stay_out: Vec<SequenceRange>,
}

/// Decides. `removed_there` are backups that a removal in the copy names: they never come back. `bad` were refuted.
///
/// # Errors
/// Where the source has less than the copy, or another backup under a number: somebody rolled it back.
pub(super) fn plan(
    source: &Survey,
    there: &Survey,
    removed_there: &BTreeSet<BackupId>,
    bad: &dyn Fn(&BackupId) -> bool,
    rules: &Rules<'_>,
) -> Result<Wanted> {
    let job = rules.job;
    let (here, copied) = (source.next_sequence(job) - 1, there.next_sequence(job) - 1);
    if copied > here {
        return Err(rolled_back(job, here, copied));
    }
    let of_job = |survey: &'_ Survey| -> Vec<VerifiedManifest> {
        survey.manifests.iter().filter(|verified| verified.manifest.job == *job).cloned().collect()
    };
    let (ours, theirs) = (of_job(source), of_job(there));
    let by_number: BTreeMap<u64, &BackupId> = theirs.iter().map(|v| (v.manifest.sequence, &v.manifest.id)).collect();
    let candidates: Vec<Candidate> = ours
        .iter()
        .map(|VerifiedManifest { manifest, .. }| Candidate {
            backup: manifest.id.clone(),
            recovery_point: manifest.recovery_point,
            available_at: manifest.committed,
            good: manifest.completeness == Completeness::Complete
                && !bad(&manifest.id)
                && !source.set_aside.contains(&(job.clone(), manifest.id.clone())),
        })
        .collect();
    let decisions = rules.retention.plan(&candidates, rules.lead, rules.zone, rules.now).decisions;
    let going: BTreeSet<&BackupId> =
        decisions.iter().filter(|one| matches!(one.fate, Fate::Delete(_))).map(|one| &one.backup).collect();
    let mut wanted = Wanted::default();
    for verified in &ours {
        let (id, sequence) = (&verified.manifest.id, verified.manifest.sequence);
        match by_number.get(&sequence) {
            Some(there) if *there == id => continue,
            Some(there) => return Err(forked(job, sequence, id, there)),
            None if removed_there.contains(id) => continue,
            None => {}
        }
        if going.contains(id) {
            wanted.stay_out.push(SequenceRange { first: sequence, last: sequence });
        } else {
            wanted.manifests.push(verified.clone());
        }
    }
    wanted.manifests.sort_by_key(|verified| verified.manifest.sequence);
    Ok(wanted)
}

/// Of the numbers before `sequence` that the copy neither has nor explains, those that are known here not to come.
pub(super) fn to_explain(sequence: u64, accounted: &[SequenceRange], known: &[SequenceRange]) -> Vec<SequenceRange> {
    let before = SequenceRange { first: 1, last: sequence.saturating_sub(1) };
    let missing = before.without(&SequenceRange::union(accounted.iter().copied()));
    let known = SequenceRange::union(known.iter().copied());
    let explained = missing.into_iter().flat_map(|range| range.without(&range.without(&known)));
    SequenceRange::union(explained)
}

fn rolled_back(job: &JobName, here: u64, there: u64) -> Error {
    let message = format!(
        "the newest backup of {job} in the source is number {here}, and the copy knows number {there}: the source was rolled \
         back, or lost its newest backups; nothing was copied"
    );
    Error::new(Code::ManifestMissing, message).with_hint(format!(
        "run `lifeboat check {job}`; bring back from the copy what is gone, or acknowledge that it is lost: `lifeboat \
         quarantine {job}#{}-{there}`",
        here + 1
    ))
}

fn forked(job: &JobName, sequence: u64, here: &BackupId, there: &BackupId) -> Error {
    let message = format!(
        "backup number {sequence} of {job} is {here} in the source and {there} in the copy: the source was rolled back and \
         written to since; nothing was copied"
    );
    Error::new(Code::ManifestUntrusted, message).with_hint(
        "copy into a new, empty place; the copy that is there has what the source lost: keep it until you know why",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(ranges: &[SequenceRange]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|range| range.first..=range.last).collect()
    }

    fn some_ranges() -> impl Strategy<Value = Vec<SequenceRange>> {
        let range = (1u64..30, 0u64..5).prop_map(|(first, more)| SequenceRange { first, last: first + more });
        prop::collection::vec(range, 0..6)
    }

    proptest! {
        #[test]
        fn only_what_is_known_and_not_accounted_for_is_explained(
            sequence in 1u64..35, accounted in some_ranges(), known in some_ranges()
        ) {
            let told = numbers(&to_explain(sequence, &accounted, &known));
            let expected: BTreeSet<u64> = (1..sequence)
                .filter(|number| numbers(&known).contains(number) && !numbers(&accounted).contains(number))
                .collect();
            prop_assert_eq!(told, expected);
        }
    }
}
