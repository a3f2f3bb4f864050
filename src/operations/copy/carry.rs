//! The records that go along: those that say why a backup is gone, and the history of a job, so that a copy tells it when
//! the source is lost.
//!
//! Condemned lists and prunes stay where they are: they speak of bytes in that place. So do refutations, and drills that
//! refute: the damage may be the source's alone, and what arrives in the copy was hashed on the way.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::super::host::Host;
use super::super::vaults::OpenVault;
use super::Left;
use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::record::{Record, RecordBody, SequenceRange};
use crate::domain::retention::Retention;
use crate::error::{Code, Result};
use crate::vault::VaultError;
use crate::vault::layout::{Key, RecordName};
use crate::vault::mirror::{Carried, read_carried, write_carried};
use crate::vault::records::list_records;
use crate::vault::survey::Survey;

/// Folders of records that are carried.
const CARRIED: [&str; 5] = ["removals", "quarantines", "runs", "drills", "copies"];
/// Records that are read before they are written.
const BATCH: usize = 256;

/// What was carried.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// Backups that a removal names.
    pub(super) removed: BTreeSet<BackupId>,
    /// Numbers that are gone for a reason.
    pub(super) gone: Vec<SequenceRange>,
    /// Removals that nobody's prune would have written.
    pub(super) left: Vec<Left>,
}

/// Brings a job's records into the copy, as far as they are not there.
pub(super) fn carry(
    host: &Host,
    source: &OpenVault,
    to: &OpenVault,
    job: &JobName,
    retention: &Retention,
    there: &Survey,
    now: DateTime<Utc>,
) -> Result<Carry> {
    let mut carry = Carry::default();
    let of_job = of_job(host, source, job)?;
    for folder in CARRIED {
        let here = host.runtime.block_on(list_records(&*source.storage, folder))?;
        let known = host.runtime.block_on(list_records(&*to.storage, folder))?;
        let missing: Vec<_> =
            here.into_iter().filter(|(name, _)| !known.contains_key(name) && of_job.contains(name.id())).collect();
        for names in missing.chunks(BATCH) {
            let names: BTreeMap<RecordName, _> = names.iter().cloned().collect();
            let mut records = host.runtime.block_on(read_carried(&*source.storage, &to.trust, &names))?;
            records.retain(|found| may_go(found, job, retention, there, now, &mut carry));
            host.runtime.block_on(write_carried(&*to.storage, &records)).map_err(VaultError::from)?;
            let told: Vec<Record> =
                records.into_iter().map(|found| to.record_here(found.signed.verified.record)).collect();
            host.runtime.block_on(host.home()?.catalog.record_all(&told))?;
        }
    }
    Ok(carry)
}

/// The job's records, as the catalog knows them: of the others not one byte is read.
fn of_job(host: &Host, source: &OpenVault, job: &JobName) -> Result<HashSet<RecordId>> {
    let (catalog, id) = (&host.home()?.catalog, &source.id);
    Ok(host.runtime.block_on(async {
        let mut ids: HashSet<RecordId> = HashSet::new();
        ids.extend(catalog.removals(id, Some(job)).await?.into_iter().map(|row| row.id));
        ids.extend(catalog.quarantines(id, Some(job)).await?.into_iter().map(|row| row.id));
        ids.extend(catalog.runs(id, Some(job)).await?.into_iter().map(|row| row.id));
        ids.extend(catalog.drills(id, Some(job)).await?.into_iter().map(|row| row.id));
        ids.extend(catalog.copies(id, Some(job)).await?.into_iter().map(|row| row.id));
        Ok::<_, crate::catalog::CatalogError>(ids)
    })?)
}

/// Whoever has a key of a host can write a removal, and it would make the backup count as gone here too: so none is taken
/// that comes before the backup's time, where the copy has the backup.
fn may_go(
    found: &Carried,
    job: &JobName,
    retention: &Retention,
    there: &Survey,
    now: DateTime<Utc>,
    carry: &mut Carry,
) -> bool {
    let record = &found.signed.verified.record;
    if record.job != *job {
        return false;
    }
    match &record.body {
        RecordBody::Drill(drill) => !drill.refutes_backup,
        RecordBody::Quarantine(quarantine) => {
            carry.gone.extend(&quarantine.gone);
            true
        }
        RecordBody::Removal(removal) => {
            let manifest = there.manifests.iter().map(|verified| &verified.manifest);
            let young = manifest.filter(|manifest| manifest.id == removal.backup).any(|manifest| {
                let keep = TimeDelta::from_std(retention.keep_at_least).unwrap_or(TimeDelta::MAX);
                manifest.committed.checked_add_signed(keep).is_none_or(|until| now < until)
            });
            if young {
                carry.left.push(Left {
                    backup: None,
                    what: format!(
                        "{}: it says that backup {} was removed, which is younger than `keep_at_least`; the copy keeps it",
                        Key::Record(found.signed.verified.name.clone()),
                        removal.backup
                    ),
                    code: Code::DeletionStopped,
                    hint: "look for who wrote that record; if nobody should have, end its host's key with `lifeboat host \
                           revoke`, and bring the backup back from the copy"
                        .to_owned(),
                });
                return false;
            }
            carry.removed.insert(removal.backup.clone());
            carry.gone.extend(&removal.gone);
            true
        }
        _ => true,
    }
}
