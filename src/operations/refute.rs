//! Telling everybody what was found to be wrong: a signed refutation for each job that it spoils, so that no host names it
//! again, the next backup stores it anew from its source, and nobody counts on the backups that it spoils.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::domain::ids::{BackupId, JobName, ObjectId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{Finder, RecordBody, RefutationRecord};
use crate::error::Result;
use crate::vault::layout::Key;
use crate::vault::records::survey_folder;

use super::check::Damage;
use super::host::Host;
use super::records;
use super::vaults::OpenVault;

/// Names in one record, so that its document stays below a megabyte.
const MAX_NAMES: usize = 8192;

/// What is wrong with one job's backups for one reason.
#[derive(Default)]
struct Found {
    objects: BTreeSet<ObjectId>,
    lists: BTreeSet<ObjectId>,
    backups: BTreeSet<BackupId>,
}

/// Whether a refutation can say this: damage to what believed manifests name. What cannot be believed is not counted on in
/// the first place.
#[must_use]
pub fn can_say(damage: &Damage) -> bool {
    !damage.backups.is_empty()
        && !matches!(Key::parse(&damage.object), Key::Manifest(_) | Key::Record(_) | Key::RecordDetails(_))
}

/// What of the damage is on record now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRecord {
    /// None of it: it spoils no backup that is counted on.
    Nothing,
    /// What spoils backups, and it was before.
    Already,
    /// What spoils backups; so many records were written.
    Written(usize),
}

/// Records damage that spoils backups, unless it is on record already.
///
/// # Errors
/// When the vault's records cannot be read, or this host may not sign for a job.
pub fn record(
    host: &Host,
    vault: &OpenVault,
    found_by: Finder,
    manifests: &[Manifest],
    damaged: &[Damage],
) -> Result<OnRecord> {
    let mut by_job: BTreeMap<(JobName, &'static str), Found> = BTreeMap::new();
    for damage in damaged.iter().filter(|damage| can_say(damage)) {
        let key = Key::parse(&damage.object);
        for manifest in manifests.iter().filter(|manifest| damage.backups.contains(&manifest.id)) {
            let found = by_job.entry((manifest.job.clone(), damage.code)).or_default();
            // What can still be read spoils nothing; nor may the next backup count on it.
            if !damage.readable {
                found.backups.insert(manifest.id.clone());
            }
            match key {
                Key::Object(object) => drop(found.objects.insert(object)),
                Key::List(list) => drop(found.lists.insert(list)),
                // Contents that cannot be followed: which of their objects is to blame is not known.
                _ => {}
            }
        }
    }
    if by_job.is_empty() {
        return Ok(OnRecord::Nothing);
    }
    let known = known(host, vault)?;
    let refuted = host.refuted(&vault.id, None)?;
    let mut written = 0;
    for ((job, code), found) in by_job {
        let names: Vec<&ObjectId> = found.objects.iter().chain(&found.lists).collect();
        let on_record = names.iter().all(|name| known.contains(*name));
        // A drill's own word says that the names are all there is: without it its verdict holds for the whole backup.
        let said = found_by != Finder::Drill && on_record;
        if said && found.backups.iter().all(|backup| refuted.contains(backup)) {
            continue;
        }
        let objects: Vec<ObjectId> = found.objects.into_iter().collect();
        let lists: Vec<ObjectId> = found.lists.into_iter().collect();
        let backups: Vec<BackupId> = found.backups.into_iter().collect();
        // One record at least: with no names at all it casts doubt on everything that the backups name.
        let count = objects.len().max(lists.len()).div_ceil(MAX_NAMES).max(1);
        for part in 0..count {
            let share = |names: &[ObjectId]| -> Vec<ObjectId> {
                names.iter().skip(part * MAX_NAMES).take(MAX_NAMES).copied().collect()
            };
            let body = RecordBody::Refutation(RefutationRecord {
                found_by,
                objects: share(&objects),
                lists: share(&lists),
                backups: backups.clone(),
                error_code: code.to_owned(),
            });
            records::write(host, vault, &job, body, None)?;
            written += 1;
        }
    }
    Ok(if written == 0 { OnRecord::Already } else { OnRecord::Written(written) })
}

/// Objects and lists that stand in a refutation already.
fn known(host: &Host, vault: &OpenVault) -> Result<HashSet<ObjectId>> {
    let records = host.runtime.block_on(survey_folder(&*vault.storage, &vault.trust, "refutations"))?;
    let mut known = HashSet::new();
    for verified in records.records {
        if let RecordBody::Refutation(refutation) = verified.record.body {
            known.extend(refutation.objects);
            known.extend(refutation.lists);
        }
    }
    Ok(known)
}
