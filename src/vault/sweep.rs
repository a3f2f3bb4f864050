//! The sweep: what lies in a vault that no backup and no run needs, how it is condemned, and how it is deleted.
//!
//! Three steps, of which the caller (`prune`) decides when: [`take_stock`] reads everything that counts,
//! [`Stock::garbage`] says what to do, [`delete`] does the deleting; condemned lists are records, and the caller
//! writes them. None of it needs a key of the data. Time is the store's, throughout.
//!
//! **Why nothing that a backup names can be lost.** The rules, of the writer (W) and of a sweep (S):
//!
//! 1. W makes its claim durable, *then* reads the condemned lists, and never names what stands there; *then* it looks what
//!    of everything that it may name again is there, and names nothing that it did not see. Before its commit it looks
//!    for what it stored itself, reads the condemned lists again, and sees that its claim still holds. It gives the
//!    claim up after the commit.
//! 2. A claim covers the lists of W's bases and what these name, and everything stored since it began.
//! 3. S lists the store, *then* reads the claims, *then* the manifests, and treats as garbage what lay there and none
//!    of them covers. So a run whose object S has listed had its claim before; when S reads the claims it is there, or
//!    the run has committed before, and S reads its manifest.
//!    S may go by a listing that somebody made before, even before it read the condemned lists: what came since is not in
//!    it, and so no garbage. Lists are listed anew, because their names come back (below).
//! 4. S deletes only garbage that is on a condemned list which the store dates at least the grace period back.
//! 5. The condemned list outlives the names on it.
//!
//! Say S deletes X, and W commits a backup that names X. By 3, S did not see W's manifest, and W's claim did not cover X
//! or was not there yet.
//! - *W's claim came after S read the claims*, or covers not X (W found it by itself: in its journal, or as a list that
//!   it would have written alike). Then X was on a condemned list before S began, and by 5 stays there until X is gone.
//!   If it stood there when W read the lists after its claim, W does not name X. If not, X was gone by then, and
//!   W does not find it when it looks. Neither depends on how long W or S takes.
//! - *W's claim had lapsed when S read it.* Then W does not commit: it looks at its claim last. Between that look and the
//!   commit lies one write, and this one write is assumed to take less than the quarter of an hour that is left of the
//!   claim at least; a run that finds afterwards that it took longer looks again and refutes what it committed.
//! - *X is condemned while W runs*, by an S that began before W's claim: W sees that when it reads the lists again. If it
//!   is condemned later still, it is deleted a grace period later, by a sweep that reads W's manifest.
//!
//! *Names that come back.* An object's name is random: once deleted it never comes back. A list's name follows from its
//! lines. One that S has on its plan may be deleted by another sweep, and written anew by W, before S comes to it. Three
//! things prevent that: W writes a list whose name is condemned in another way ([`super::lists::encode_avoiding`]);
//! a stock is good for [`STOCK_HOLDS`] only, which is looked at before each deletion; and a condemned list is kept for [`CONDEMNED_LINGERS`] after the last
//! sweep that deleted by it, which each tells the store by writing the list's signature again before its first
//! deletion. So whoever has X on an older plan has thrown that plan away when X's name becomes free.
//!
//! *Crashes.* Each step leaves a state that these rules allow: names condemned and still there (the next sweep deletes
//! them), names gone and still condemned (the record goes later), a manifest removed by record and still there (it does
//! not count, and keeps what it names until it is gone). A call whose outcome is not known is a step that was done, or
//! that the next sweep does.

mod delete;
mod garbage;
mod inventory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};

pub use self::delete::{Deletion, delete, remove_manifest};
pub use self::garbage::{Doomed, Garbage};
use self::inventory::Inventory;
use super::claims::{ListedClaims, list_claims, read_listed_claims};
use super::glance::Glance;
use super::layout::{Key, ManifestName, RECORDS, RecordName};
use super::records::{VerifiedRecord, read_record};
use super::survey::{Fault, ManifestFolder, Problem, Quarantined, Survey, survey_listed};
use super::trust::TrustDocument;
use super::{Distrust, VaultError};
use crate::domain::claim::{CLAIM_HOLDS_AT_MOST, Claim};
use crate::domain::ids::{BackupId, JobName, ObjectId};
use crate::domain::record::{QuarantineRecord, RecordBody};
use crate::storage::Storage;

/// How long after the claims were read a stock may be deleted by.
pub const STOCK_HOLDS: TimeDelta = TimeDelta::hours(1);
/// And how long after its taking was begun: listing a large store takes its time. A name that came free lay there for
/// [`STOCK_HOLDS`] at most after its condemned list was said to be in use, so this and that together are to be less than
/// [`CONDEMNED_LINGERS`].
pub const STOCK_HOLDS_IN_ALL: TimeDelta = TimeDelta::hours(2);
/// How long a condemned list stays at least after a sweep has deleted by it: longer than two stocks hold.
pub const CONDEMNED_LINGERS: TimeDelta = TimeDelta::hours(4);
/// Folders of records of which each may change what is kept: all of theirs are read.
const FOLDERS_READ_WHOLE: [&str; 2] = ["condemned", "quarantines"];
/// Of the other known folders, so many of the newest records are read, to learn whether a newer lifeboat writes here: one
/// that does goes on doing so. Of folders that this version does not know all are read.
const RECORDS_LOOKED_AT: usize = 64;

/// Everything that counts for deleting, as it was at one moment.
#[derive(Debug)]
pub struct Stock {
    taken: DateTime<Utc>,
    /// When the objects were listed, or earlier.
    listed: DateTime<Utc>,
    /// When the claims were read: what lay there was listed by then.
    claims_read: DateTime<Utc>,
    survey: Survey,
    stops: Vec<Stop>,
    held_until: Option<DateTime<Utc>>,
    /// The claims that hold.
    live: Vec<Claim>,
    inventory: Inventory,
    condemned: Vec<Condemned>,
    /// When each backup was first quarantined.
    quarantined_at: BTreeMap<(JobName, BackupId), DateTime<Utc>>,
    records: RecordFolder,
    /// When the store last saw each manifest.
    manifests: BTreeMap<ManifestName, Option<DateTime<Utc>>>,
    /// Claims that the store has not seen renewed for longer than any claim may hold.
    lapsed_claims: Vec<String>,
    /// Signatures of manifests that are not there, of jobs without a live claim.
    orphans: Vec<(String, DateTime<Utc>)>,
}

/// A condemned list that is believed.
#[derive(Debug)]
struct Condemned {
    name: RecordName,
    /// When it was written, by its own word or the store's, whichever is later.
    at: DateTime<Utc>,
    /// When the last sweep that deleted by it began, if one did.
    used: DateTime<Utc>,
    objects: Vec<ObjectId>,
    lists: Vec<ObjectId>,
}

/// Something that stops every deletion until a person has looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A manifest that cannot be believed, or that is missing.
    Manifest(Problem),
    /// A list of a believed backup cannot be read: what it names is not known.
    List {
        /// Where it lies, or should.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// The backups that name it.
        backups: Vec<BackupId>,
    },
    /// A record that a host of the vault signed, of a kind or version that this lifeboat does not know.
    Record {
        /// Where it lies.
        key: String,
        /// What it is.
        reason: Distrust,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(problem) => write!(f, "{}: {}", problem.key, problem.fault),
            Self::List { key, reason, backups } => {
                let backups: Vec<_> = backups.iter().map(BackupId::as_str).collect();
                let (s, names) = if backups.len() == 1 { ("", "names") } else { ("s", "name") };
                write!(f, "{key}, which backup{s} {} {names}: {reason}", backups.join(", "))
            }
            Self::Record { key, reason } => write!(f, "{key}: {reason}"),
        }
    }
}

impl Stop {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Manifest(problem) => problem.hint(),
            Self::List { backups, .. } => {
                let quarantines: Vec<_> = backups.iter().map(|id| format!("`lifeboat quarantine {id}`")).collect();
                format!(
                    "bring the list back from a copy of the vault, or go on without what it names: {}",
                    quarantines.join(", ")
                )
            }
            Self::Record { .. } => "install the newer lifeboat that wrote it".into(),
        }
    }
}

impl Stock {
    /// When it was taken, by the store's clock.
    #[must_use]
    pub fn taken(&self) -> DateTime<Utc> {
        self.taken
    }

    /// What was seen, for the next stock: there too objects are listed before the claims are read.
    #[must_use]
    pub fn glance(&self) -> Option<Glance> {
        self.inventory.glance(self.listed)
    }

    /// The manifests that it rests on.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// What stops every deletion. Unless it is empty, [`Stock::garbage`] finds nothing, and no manifest may be removed.
    #[must_use]
    pub fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// Until when a claim may hold that cannot be understood; until then [`Stock::garbage`] finds nothing.
    #[must_use]
    pub fn held_until(&self) -> Option<DateTime<Utc>> {
        self.held_until
    }

    /// The claims of runs that are under way, or broke off not long ago.
    #[must_use]
    pub fn live_claims(&self) -> &[Claim] {
        &self.live
    }

    /// When the store last saw a manifest.
    #[must_use]
    pub fn modified(&self, name: &ManifestName) -> Option<DateTime<Utc>> {
        self.manifests.get(name).copied().flatten()
    }

    /// Quarantined manifests of a job whose time is over so long after somebody quarantined them: to be removed
    /// with reason `quarantined`. When the store saw them is not asked: who puts one there again would make it stay.
    pub fn quarantines_over(&self, job: &JobName, after: TimeDelta) -> impl Iterator<Item = &Quarantined> {
        let over = move |found: &&Quarantined| {
            let since = self.quarantined_at.get(&(found.name.job.clone(), found.name.id.clone()));
            since.and_then(|since| since.checked_add_signed(after)).is_some_and(|until| until <= self.taken)
        };
        self.survey.quarantined.iter().filter(move |found| found.name.job == *job).filter(over)
    }
}

/// Reads everything that counts for deleting. What somebody saw shortly before is not asked for again.
///
/// # Errors
/// The store's, where it fails; what is wrong with what lies in it is in [`Stock::stops`].
pub async fn take_stock(
    storage: &dyn Storage,
    trust: &TrustDocument,
    glance: Option<&Glance>,
) -> Result<Stock, VaultError> {
    let taken = storage.now().await?;
    let glance = glance.filter(|glance| glance.holds(taken));
    let listed = glance.map_or(taken, |glance| glance.begun);
    let records = RecordFolder::list(storage).await?;
    let ReadRecords { condemned, quarantined_at, mut stops } = read_records(storage, trust, &records).await?;

    // The order matters: see rule 3 at the top.
    let mut inventory = Inventory::list(storage, glance).await?;
    let claims_read = storage.now().await?;
    let claims = list_claims(storage, None).await?;
    let lapsed_claims = lapsed_claims(&claims, taken);
    let (mut held_until, mut live) = (None, Vec::new());
    for found in read_listed_claims(storage, claims).await? {
        if !found.holds(taken) {
            continue;
        }
        match found.claim {
            Ok(claim) => live.push(claim),
            Err(_) => held_until = held_until.max(Some(found.modified.unwrap_or(taken) + CLAIM_HOLDS_AT_MOST)),
        }
    }
    let now = storage.now().await?;
    let folder = ManifestFolder::list(storage, None).await?;
    let survey = survey_listed(storage, trust, None, &folder, now, &[]).await?;
    let ManifestFolder { manifests, signatures, .. } = folder;
    let stopping = |problem: &&Problem| matches!(problem.fault, Fault::Untrusted(_) | Fault::Missing { .. });
    stops.extend(survey.problems.iter().filter(stopping).cloned().map(Stop::Manifest));

    stops.extend(inventory.mark_backups(storage, &survey).await?);
    for found in &survey.quarantined {
        inventory.mark_quarantined(storage, &found.name).await?;
    }
    // A removal may be in doubt: what its manifest names goes after it, and not before.
    for name in &survey.removed {
        inventory.mark_quarantined(storage, name).await?;
    }
    inventory.mark_fresh(&live);
    for claim in &live {
        inventory.mark_claim(storage, claim).await?;
    }
    let is_stray = |name: &ManifestName| {
        survey.strays.binary_search(&Key::ManifestSignature(name.clone()).to_string()).is_ok()
            && !live.iter().any(|claim| claim.job == name.job)
    };
    // Those of which the store knows when it last saw them.
    let orphans = signatures.into_iter().filter(|(name, _)| is_stray(name));
    let orphans = orphans.filter_map(|(name, modified)| Some((Key::ManifestSignature(name).to_string(), modified?)));
    let orphans = orphans.collect();
    Ok(Stock {
        taken,
        listed,
        claims_read,
        survey,
        stops,
        held_until,
        live,
        inventory,
        condemned,
        quarantined_at,
        records,
        manifests,
        lapsed_claims,
        orphans,
    })
}

/// What lies under records/: when the store last saw each document, signature and sealed details.
#[derive(Debug, Default)]
struct RecordFolder {
    documents: BTreeMap<RecordName, Option<DateTime<Utc>>>,
    signatures: BTreeMap<RecordName, Option<DateTime<Utc>>>,
    details: BTreeMap<RecordName, Option<DateTime<Utc>>>,
}

impl RecordFolder {
    async fn list(storage: &dyn Storage) -> Result<Self, VaultError> {
        let mut folder = Self::default();
        storage
            .list(RECORDS, &mut |listed| {
                let (names, name) = match Key::parse(&listed.key) {
                    Key::Record(name) => (&mut folder.documents, name),
                    Key::RecordSignature(name) => (&mut folder.signatures, name),
                    Key::RecordDetails(name) => (&mut folder.details, name),
                    _ => return,
                };
                names.insert(name, listed.modified);
            })
            .await?;
        Ok(folder)
    }

    /// The names of a folder's records, oldest first.
    fn of<'a>(&'a self, folder: &'a str) -> impl DoubleEndedIterator<Item = &'a RecordName> {
        self.documents.keys().filter(move |name| name.folder() == folder)
    }
}

/// What the records say.
#[derive(Debug, Default)]
struct ReadRecords {
    condemned: Vec<Condemned>,
    quarantined_at: BTreeMap<(JobName, BackupId), DateTime<Utc>>,
    stops: Vec<Stop>,
}

/// Reads the condemned lists and the quarantines, and looks for records that this version does not understand.
async fn read_records(
    storage: &dyn Storage,
    trust: &TrustDocument,
    records: &RecordFolder,
) -> Result<ReadRecords, VaultError> {
    let mut wanted: Vec<&RecordName> = Vec::new();
    let folders: BTreeSet<&str> = records.documents.keys().map(RecordName::folder).collect();
    for folder in folders {
        let is_sampled = RecordBody::FOLDERS.contains(&folder) && !FOLDERS_READ_WHOLE.contains(&folder);
        wanted.extend(records.of(folder).rev().take(if is_sampled { RECORDS_LOOKED_AT } else { usize::MAX }));
    }
    let mut read =
        stream::iter(wanted).map(|name| read_record(storage, trust, name)).buffer_unordered(storage.parallel().max(1));
    let ReadRecords { mut condemned, mut quarantined_at, mut stops } = ReadRecords::default();
    while let Some(answer) = read.next().await {
        match answer {
            Ok(VerifiedRecord { record, name }) => match record.body {
                RecordBody::Condemned(body) => {
                    let seen = |names: &BTreeMap<_, _>| names.get(&name).copied().flatten();
                    let at = record.recorded.max(seen(&records.documents).unwrap_or(record.recorded));
                    let used = at.max(seen(&records.signatures).unwrap_or(at));
                    condemned.push(Condemned { name, at, used, objects: body.objects, lists: body.lists });
                }
                RecordBody::Quarantine(QuarantineRecord { backup: Some(backup), .. }) => {
                    let at = quarantined_at.entry((record.job, backup)).or_insert(record.recorded);
                    *at = record.recorded.min(*at);
                }
                _ => {}
            },
            Err(VaultError::RecordUntrusted {
                key,
                reason: reason @ (Distrust::UnknownKind { .. } | Distrust::NewerVersion { .. }),
            }) => stops.push(Stop::Record { key, reason }),
            Err(VaultError::RecordUntrusted { .. }) => {}
            // Deleted since the listing.
            Err(VaultError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    condemned.sort_by(|one, other| (one.at, &one.name).cmp(&(other.at, &other.name)));
    stops.sort_by_key(ToString::to_string);
    Ok(ReadRecords { condemned, quarantined_at, stops })
}

/// Claims that cannot hold any more, whatever they say; renewed ones too.
fn lapsed_claims(claims: &ListedClaims, now: DateTime<Utc>) -> Vec<String> {
    let is_over = |modified: &Option<DateTime<Utc>>| modified.is_some_and(|at| at + CLAIM_HOLDS_AT_MOST < now);
    let lapsed = claims.iter().filter(|(_, modified)| is_over(modified));
    let mut lapsed: Vec<String> = lapsed.map(|(name, _)| Key::Claim(name.clone()).to_string()).collect();
    lapsed.sort();
    lapsed
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
