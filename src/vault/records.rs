//! Records: what was run, drilled and removed, signed by the host that did it.
//!
//! A record is in clear and holds ids, times, verdicts and numbers. Names, values and error texts are in the sealed
//! details beside it, which the record names by their hash; sealing and opening them is not done here.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};

use super::keys::SigningKey;
use super::layout::{Key, RECORDS, RecordName, object_id};
use super::manifests::{check_numbers, check_sum, check_version, is_over, moment, put_and_sync};
use super::signing::{MAX_SIGNATURE_BYTES, sign, signer, verify};
use super::trust::{Claimed, TrustDocument};
use super::{Distrust, VaultError};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::ObjectId;
use crate::domain::manifest::SourceSummary;
use crate::domain::record::{RECORD_VERSION, Record, RecordBody, RemovalRecord};
use crate::storage::{Listed, Storage, StorageError};

/// No record is larger.
pub const MAX_RECORD_BYTES: u64 = 1024 * 1024;
/// No sealed details are larger.
pub const MAX_DETAILS_BYTES: u64 = 16 * 1024 * 1024;

/// A record that a host of the vault signed, where it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedRecord {
    /// The record.
    pub record: Record,
    /// Where it lies.
    pub name: RecordName,
}

/// What the store knows of a record besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The store's time.
    pub now: DateTime<Utc>,
    /// When the store last saw the record, where it knows.
    pub modified: Option<DateTime<Utc>>,
}

/// All records of a vault.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    /// Those that are believed, by time and then id.
    pub records: Vec<VerifiedRecord>,
    /// Those that are not, by key.
    pub problems: Vec<RecordProblem>,
    /// Keys that belong to nothing: signatures and details of a record that was never finished, and what others
    /// put there. No damage.
    pub strays: Vec<String>,
}

/// A record that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordProblem {
    /// Where it lies.
    pub key: String,
    /// Why.
    pub reason: Distrust,
}

/// Signs a record and writes it: sealed details, signature, record, each durable before the next. The record's
/// `details` must be the hash of `sealed_details`: [`details_id`] makes it. May be called again after an error where
/// the record is the same; what an earlier attempt left is replaced.
///
/// # Errors
/// The store's; [`StorageError::Conflict`] where another record lies there.
///
/// # Panics
/// Where `sealed_details` are not those that the record names.
pub async fn write_record(
    storage: &dyn Storage,
    key: &SigningKey,
    record: &Record,
    sealed_details: Option<Bytes>,
) -> Result<RecordName, VaultError> {
    assert_eq!(record.details, sealed_details.as_deref().map(details_id), "a record names its details by their hash");
    let name = RecordName::of(record);
    let mut document = serde_json::to_vec_pretty(record).expect("a record is always representable as JSON");
    document.push(b'\n');
    let signature = sign(key, &document, &scope(record));
    if let Some(details) = sealed_details {
        put_anew(storage, &Key::RecordDetails(name.clone()).to_string(), &details).await?;
    }
    put_anew(storage, &Key::RecordSignature(name.clone()).to_string(), &signature).await?;
    put_and_sync(storage, &Key::Record(name.clone()).to_string(), &document.into()).await?;
    Ok(name)
}

/// Stores what has its document still to come. A host that may overwrite nothing never needs to, unless an attempt at
/// another record left something there.
async fn put_anew(storage: &dyn Storage, key: &str, bytes: &Bytes) -> Result<(), StorageError> {
    match put_and_sync(storage, key, bytes).await {
        Err(StorageError::Conflict { .. }) => storage.replace(key, bytes.clone()).await,
        put => put,
    }
}

/// The name that a record gives to its sealed details.
#[must_use]
pub fn details_id(sealed: &[u8]) -> ObjectId {
    object_id(sealed)
}

/// Reads a record and believes it, or says why not.
///
/// # Errors
/// [`VaultError::RecordUntrusted`], or the store's.
pub async fn read_record(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &RecordName,
) -> Result<VerifiedRecord, VaultError> {
    let (document, signature) = read_bytes(storage, name).await?;
    let key = Key::Record(name.clone()).to_string();
    // When the store last saw it stands in listings only, and matters only where the signer's key has come to an end.
    let signed_by = signer(&signature).ok().and_then(|id| trust.host_with(id).ok());
    let mut modified = None;
    if signed_by.is_some_and(|host| host.revoked.is_some() || host.until.is_some()) {
        let visit = &mut |listed: Listed| {
            if listed.key == key {
                modified = listed.modified;
            }
        };
        storage.list(&key, visit).await?;
    }
    let seen = Seen { now: storage.now().await?, modified };
    verify_record(trust, name, &document, &signature, seen)
        .map_err(|reason| VaultError::RecordUntrusted { key, reason })
}

/// Reads a record that was listed, and believes it, or says why not.
///
/// # Errors
/// As [`read_record`].
pub async fn read_record_seen(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &RecordName,
    seen: Seen,
) -> Result<VerifiedRecord, VaultError> {
    let (document, signature) = read_bytes(storage, name).await?;
    let key = || Key::Record(name.clone()).to_string();
    verify_record(trust, name, &document, &signature, seen)
        .map_err(|reason| VaultError::RecordUntrusted { key: key(), reason })
}

/// A record as it lies there, for whoever brings it to another place.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedRecord {
    /// What it says.
    pub verified: VerifiedRecord,
    /// Its bytes.
    pub document: Bytes,
    /// Its signature's.
    pub signature: Bytes,
}

/// As [`read_record_seen`], with the bytes.
///
/// # Errors
/// As [`read_record`].
pub async fn read_signed_record(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &RecordName,
    seen: Seen,
) -> Result<SignedRecord, VaultError> {
    let (document, signature) = read_bytes(storage, name).await?;
    match verify_record(trust, name, &document, &signature, seen) {
        Ok(verified) => Ok(SignedRecord { verified, document, signature }),
        Err(reason) => Err(VaultError::RecordUntrusted { key: Key::Record(name.clone()).to_string(), reason }),
    }
}

/// A record and its signature.
async fn read_bytes(storage: &dyn Storage, name: &RecordName) -> Result<(Bytes, Bytes), VaultError> {
    let key = Key::Record(name.clone()).to_string();
    let untrusted = |reason| VaultError::RecordUntrusted { key: key.clone(), reason };
    let wrong = |error: StorageError| match error {
        StorageError::TooLarge { .. } | StorageError::NotAFile { .. } => {
            untrusted(Distrust::Unreadable { reason: error.to_string() })
        }
        error => error.into(),
    };
    let signature_key = Key::RecordSignature(name.clone()).to_string();
    let (document, signature) =
        futures_util::join!(storage.get(&key, MAX_RECORD_BYTES), storage.get(&signature_key, MAX_SIGNATURE_BYTES));
    let document = document.map_err(wrong)?;
    match signature {
        Err(error) if error.is_not_found() => Err(untrusted(Distrust::NoSignature)),
        read => Ok((document, read.map_err(wrong)?)),
    }
}

/// Decides whether these bytes under this name are to be believed.
///
/// # Errors
/// Why not.
pub fn verify_record(
    trust: &TrustDocument,
    name: &RecordName,
    document: &[u8],
    signature: &[u8],
    seen: Seen,
) -> Result<VerifiedRecord, Distrust> {
    let host = trust.host_with(signer(signature).map_err(Distrust::Signature)?)?;
    let found = verify(&host.key, document, signature).map_err(Distrust::Signature)?;

    let malformed = |reason: String| Distrust::Malformed { reason };
    let value: serde_json::Value = serde_json::from_slice(document).map_err(|error| malformed(error.to_string()))?;
    // What is not understood stops every deletion, because it might say what must stay. The holder of a key that has come
    // to an end must not be able to do that.
    check_kind(&value).map_err(|reason| is_over(host, moment(&value, "recorded"), seen.modified).unwrap_or(reason))?;
    check_numbers(&value).map_err(malformed)?;
    let record = parse_strictly(&value).map_err(malformed)?;
    let expected = scope(&record);
    if found != expected {
        return Err(Distrust::OtherScope { expected, found });
    }
    let belongs = RecordName::of(&record);
    if belongs != *name {
        return Err(Distrust::OtherPlace { belongs: Key::Record(belongs).to_string() });
    }
    if record.vault != trust.vault {
        return Err(Distrust::OtherVault { expected: trust.vault.clone(), found: record.vault });
    }
    trust.host_for(host.key.id(), &record.job, record.recorded, Claimed::Record { modified: seen.modified })?;
    if record.host != host.name {
        return Err(Distrust::OtherHost { host: host.name.clone(), says: record.host });
    }
    if record.recorded > seen.now + CLOCK_TOLERANCE {
        return Err(Distrust::FromTheFuture { says: record.recorded, now: seen.now });
    }
    if let RecordBody::Removal(removal) = &record.body {
        check_removal(&record, removal).map_err(malformed)?;
    }
    Ok(VerifiedRecord { record, name: belongs })
}

fn check_kind(value: &serde_json::Value) -> Result<(), Distrust> {
    match value.get("type").and_then(serde_json::Value::as_str) {
        Some(known) if RecordBody::TYPES.contains(&known) => check_version(value, RECORD_VERSION),
        Some(unknown) => Err(Distrust::UnknownKind { found: unknown.to_owned() }),
        None => Err(Distrust::Malformed { reason: "it has no type".into() }),
    }
}

/// A removal speaks of one backup of its own job, and of one that was there before it.
fn check_removal(record: &Record, removal: &RemovalRecord) -> Result<(), String> {
    let Some(summary) = &removal.summary else { return Ok(()) };
    if (&summary.vault, &summary.job, &summary.id) != (&record.vault, &record.job, &removal.backup) {
        return Err("it sums up another backup than the one that it removes".into());
    }
    if record.recorded < summary.committed {
        return Err("it was recorded before its backup was committed".into());
    }
    let sums: [fn(&SourceSummary) -> u64; 5] =
        [|s| s.logical_bytes, |s| s.stored_bytes, |s| s.new_bytes, |s| s.segments, |s| s.new_segments];
    sums.into_iter().try_for_each(|of| check_sum(summary.sources.iter().map(of)))?;
    check_sum(summary.sources.iter().flat_map(|source| source.notes.values().copied()))
}

/// Reads all records.
///
/// # Errors
/// The store's, where it fails; what is wrong with the records is in the answer.
pub async fn survey_records(storage: &dyn Storage, trust: &TrustDocument) -> Result<Records, VaultError> {
    survey_below(storage, trust, RECORDS).await
}

/// Reads the records of one folder, such as `removals`.
///
/// # Errors
/// As [`survey_records`].
pub async fn survey_folder(storage: &dyn Storage, trust: &TrustDocument, folder: &str) -> Result<Records, VaultError> {
    survey_below(storage, trust, &Key::records_in(folder)).await
}

/// The names of a folder's records, oldest first, and what the store knows of each.
///
/// # Errors
/// The store's.
pub async fn list_records(storage: &dyn Storage, folder: &str) -> Result<BTreeMap<RecordName, Seen>, VaultError> {
    let mut listed = BTreeMap::new();
    storage
        .list(&Key::records_in(folder), &mut |found| {
            if let Key::Record(name) = Key::parse(&found.key) {
                listed.insert(name, found.modified);
            }
        })
        .await?;
    // After the listing: no record of it may seem to be from the future.
    let now = storage.now().await?;
    Ok(listed.into_iter().map(|(name, modified)| (name, Seen { now, modified })).collect())
}

async fn survey_below(storage: &dyn Storage, trust: &TrustDocument, prefix: &str) -> Result<Records, VaultError> {
    let (mut names, mut beside) = (BTreeMap::new(), Vec::new());
    let mut answer = Records::default();
    storage
        .list(prefix, &mut |listed| match Key::parse(&listed.key) {
            Key::Record(name) => names.extend([(name, listed.modified)]),
            Key::RecordSignature(name) | Key::RecordDetails(name) => beside.push((name, listed.key)),
            _ => answer.strays.push(listed.key),
        })
        .await?;
    answer.strays.extend(beside.into_iter().filter(|(name, _)| !names.contains_key(name)).map(|(_, key)| key));
    answer.strays.sort();
    let now = storage.now().await?;
    let mut read = stream::iter(names)
        .map(|(name, modified)| async move { read_record_seen(storage, trust, &name, Seen { now, modified }).await })
        .buffered(storage.parallel().max(1));
    while let Some(read) = read.next().await {
        match read {
            Ok(verified) => answer.records.push(verified),
            Err(VaultError::RecordUntrusted { key, reason }) => answer.problems.push(RecordProblem { key, reason }),
            // Removed since the listing.
            Err(VaultError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    drop(read);
    answer
        .records
        .sort_by(|one, other| (one.record.recorded, &one.record.id).cmp(&(other.record.recorded, &other.record.id)));
    Ok(answer)
}

/// The sealed details beside a record, held to the hash in it; `None` where it has none.
///
/// # Errors
/// [`VaultError::HashDiffers`], or the store's, also where they are missing.
pub async fn read_details(storage: &dyn Storage, verified: &VerifiedRecord) -> Result<Option<Bytes>, VaultError> {
    let Some(expected) = verified.record.details else { return Ok(None) };
    let key = Key::RecordDetails(verified.name.clone()).to_string();
    let sealed = storage.get(&key, MAX_DETAILS_BYTES).await?;
    let found = details_id(&sealed);
    if found == expected { Ok(Some(sealed)) } else { Err(VaultError::HashDiffers { key, found }) }
}

/// What the trusted comment repeats.
fn scope(record: &Record) -> String {
    let kind = record.body.type_name();
    format!("lifeboat-{kind} vault={} job={} id={}", record.vault, record.job, record.id)
}

/// The record's shape is flattened, and serde cannot refuse unknown fields there: so the record is written again, and
/// must come out as it went in.
fn parse_strictly(value: &serde_json::Value) -> Result<Record, String> {
    let record: Record = serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(&record).map_err(|error| error.to_string())?;
    if again == *value { Ok(record) } else { Err("it has fields or spellings that no lifeboat wrote".into()) }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::ids::{BackupId, RecordId, VaultId};
    use crate::domain::record::{RunOutcome, RunRecord};
    use crate::error::{Code, Diagnostic};
    use crate::vault::manifests::tests::{memory, start, trust};

    fn record(number: u8, details: Option<&[u8]>) -> Record {
        let recorded = start() + TimeDelta::minutes(number.into());
        Record {
            version: RECORD_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            id: RecordId::from_random([number; 8]),
            host: "web-1".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded,
            body: RecordBody::Run(RunRecord {
                outcome: RunOutcome::Success,
                started: recorded,
                finished: recorded,
                duration_seconds: 12.345_678_901,
                backup: Some(BackupId::from_random([5; 8])),
                logical_bytes: i64::MAX as u64,
                stored_bytes: 2,
                new_bytes: 1,
                errors: 0,
                error_code: None,
            }),
            details: details.map(details_id),
        }
    }

    #[tokio::test]
    async fn records_and_their_details_round_trip() {
        let (store, key) = (memory(), SigningKey::generate());
        for number in [3, 1, 2] {
            let sealed = (number == 2).then(|| Bytes::from_static(b"sealed"));
            let record = record(number, sealed.as_deref());
            write_record(&store, &key, &record, sealed.clone()).await.unwrap();
            let name = write_record(&store, &key, &record, sealed.clone()).await.unwrap();
            let read = read_record(&store.another_handle(), &trust(&key), &name).await.unwrap();
            assert_eq!(read.record, record);
            assert_eq!(read_details(&store, &read).await.unwrap(), sealed);
        }
        let all = survey_records(&store, &trust(&key)).await.unwrap();
        let ids: Vec<_> = all.records.iter().map(|r| r.record.id.to_string()[..2].to_owned()).collect();
        assert_eq!(ids, ["01", "02", "03"]);
        assert_eq!((all.problems.len(), all.strays.len()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_not_believed_is_reported_with_its_reason() {
        let (store, key) = (memory(), SigningKey::generate());
        let trust = trust(&key);
        let plant = |path: &'static str, value: serde_json::Value, scope: &'static str| {
            let document = serde_json::to_vec(&value).unwrap();
            let signature = sign(&key, &document, scope);
            let store = &store;
            async move {
                store.replace(path, document.into()).await.unwrap();
                store.replace(&format!("{path}.minisig"), signature).await.unwrap();
            }
        };
        let good = serde_json::to_value(record(1, None)).unwrap();
        let with = |field: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[field] = value;
            changed
        };
        let right = "lifeboat-run vault=0101010101010101 job=shop id=0101010101010101";
        let at = "records/runs/20261122T020100Z-0101010101010101.json";
        let verdict = || async {
            let answer = survey_records(&store, &trust).await.unwrap();
            assert!(answer.problems.len() <= 1, "{answer:?}");
            answer.problems.into_iter().next().map(|problem| problem.reason)
        };
        plant(at, good.clone(), right).await;
        assert_eq!(verdict().await, None);
        plant(at, with("type", "novelty".into()), right).await;
        assert_eq!(verdict().await, Some(Distrust::UnknownKind { found: "novelty".into() }));
        plant(at, with("version", 2.into()), right).await;
        assert!(matches!(verdict().await, Some(Distrust::NewerVersion { found: 2, .. })));
        for malformed in [with("extra", 1.into()), with("outcome", "fine".into()), with("job", "Shop".into())] {
            plant(at, malformed, right).await;
            assert!(matches!(verdict().await, Some(Distrust::Malformed { .. })));
        }
        plant(at, good.clone(), "lifeboat-drill vault=0101010101010101 job=shop id=0101010101010101").await;
        assert!(matches!(verdict().await, Some(Distrust::OtherScope { .. })));
        plant(at, with("recorded", "2026-11-22T03:01:00Z".into()), right).await;
        assert!(matches!(verdict().await, Some(Distrust::OtherPlace { .. })));
        plant(at, good.clone(), right).await;
        store.delete(&format!("{at}.minisig")).await.unwrap();
        assert_eq!(verdict().await, Some(Distrust::NoSignature));
        store.delete(at).await.unwrap();

        plant("records/novelties/20261122T020100Z-0101010101010101.json", with("type", "novelty".into()), right).await;
        assert_eq!(verdict().await, Some(Distrust::UnknownKind { found: "novelty".into() }));
    }

    #[tokio::test]
    async fn damaged_details_and_strays() {
        let (store, key) = (memory(), SigningKey::generate());
        let sealed = Bytes::from_static(b"sealed");
        let name = write_record(&store, &key, &record(1, Some(&sealed)), Some(sealed)).await.unwrap();
        let read = read_record(&store, &trust(&key), &name).await.unwrap();
        let details = Key::RecordDetails(name.clone()).to_string();
        store.replace(&details, Bytes::from_static(b"Sealed")).await.unwrap();
        assert_eq!(read_details(&store, &read).await.unwrap_err().code(), Code::ObjectDamaged);
        store.delete(&details).await.unwrap();
        assert_eq!(read_details(&store, &read).await.unwrap_err().code(), Code::ObjectMissing);
        let signature = Key::RecordSignature(name.clone()).to_string();
        store.delete(&Key::Record(name).to_string()).await.unwrap();
        let answer = survey_records(&store, &trust(&key)).await.unwrap();
        assert_eq!((answer.records.len(), answer.problems.len()), (0, 0));
        assert_eq!(answer.strays, [signature]);
    }

    /// Signs a document under the name and scope of [`record`] number 1.
    fn verdict(trust: &TrustDocument, key: &SigningKey, value: &serde_json::Value, seen: Seen) -> Option<Distrust> {
        let document = serde_json::to_vec(value).unwrap();
        let kind = value["type"].as_str().unwrap();
        let scope = format!("lifeboat-{kind} vault=0101010101010101 job=shop id=0101010101010101");
        let record = Record { recorded: moment(value, "recorded").unwrap(), ..record(1, None) };
        let name = match serde_json::from_value(value.clone()) {
            Ok(record) => RecordName::of(&record),
            Err(_) => RecordName::of(&record),
        };
        verify_record(trust, &name, &document, &sign(key, &document, &scope), seen).err()
    }

    #[test]
    fn of_a_key_that_has_ended_only_what_the_store_had_before_is_believed_or_stops_anything() {
        let key = SigningKey::generate();
        let (mut trust, end) = (trust(&key), start() + TimeDelta::hours(1));
        let seen = |minutes| Seen { now: end, modified: Some(start() + TimeDelta::minutes(minutes)) };
        let good = serde_json::to_value(record(1, None)).unwrap();
        let late = serde_json::to_value(Record { recorded: end + TimeDelta::seconds(1), ..record(1, None) }).unwrap();
        let with = |of: &serde_json::Value, field: &str, value: serde_json::Value| {
            let mut changed = of.clone();
            changed[field] = value;
            changed
        };
        let unknown = |of: &serde_json::Value| [with(of, "type", "novelty".into()), with(of, "version", 2.into())];
        let verdict = |trust: &TrustDocument, value: &serde_json::Value, seen| verdict(trust, &key, value, seen);
        let stops = |reason: Option<Distrust>| {
            matches!(reason, Some(Distrust::UnknownKind { .. } | Distrust::NewerVersion { .. }))
        };
        assert_eq!(verdict(&trust, &good, seen(99)), None, "the store's time is asked of keys only that have ended");

        trust.hosts[0].until = Some(end);
        assert!(unknown(&good).iter().all(|value| stops(verdict(&trust, value, seen(60)))));
        let outside = |reason| matches!(reason, Some(Distrust::OutsideTime { .. }));
        assert!(unknown(&good).iter().all(|value| outside(verdict(&trust, value, seen(61)))));
        assert!(unknown(&late).iter().all(|value| outside(verdict(&trust, value, seen(2)))));

        trust.hosts[0].revoked = Some(crate::vault::trust::Revocation { at: end, last_manifests: Default::default() });
        let revoked = |reason| matches!(reason, Some(Distrust::Revoked { .. }));
        assert_eq!(verdict(&trust, &good, seen(59)), None);
        assert!(revoked(verdict(&trust, &good, seen(60))), "dated back");
        assert!(revoked(verdict(&trust, &good, Seen { modified: None, ..seen(1) })));
        assert!(unknown(&good).iter().all(|value| stops(verdict(&trust, value, seen(59)))));
        assert!(unknown(&good).iter().all(|value| revoked(verdict(&trust, value, seen(60)))));
        assert!(unknown(&late).iter().all(|value| revoked(verdict(&trust, value, seen(2)))));
    }

    #[tokio::test]
    async fn the_store_says_how_old_a_revoked_hosts_record_is() {
        let (store, key) = (memory(), SigningKey::generate());
        let mut trust = trust(&key);
        let name = write_record(&store, &key, &record(1, None), None).await.unwrap();
        for (days, believed) in [(3, true), (1, false)] {
            let (at, last_manifests) = (start() + TimeDelta::days(days), Default::default());
            trust.hosts[0].revoked = Some(crate::vault::trust::Revocation { at, last_manifests });
            assert_eq!(read_record(&store, &trust, &name).await.is_ok(), believed);
            assert_eq!(survey_records(&store, &trust).await.unwrap().records.len(), usize::from(believed));
        }
    }

    #[test]
    fn what_is_yet_to_come_is_not_believed() {
        let key = SigningKey::generate();
        let good = record(1, None);
        let at = |seconds| Seen { now: good.recorded - CLOCK_TOLERANCE - TimeDelta::seconds(seconds), modified: None };
        let value = serde_json::to_value(&good).unwrap();
        assert_eq!(verdict(&trust(&key), &key, &value, at(0)), None);
        let reason = verdict(&trust(&key), &key, &value, at(1));
        assert!(matches!(reason, Some(Distrust::FromTheFuture { says, .. }) if says == good.recorded), "{reason:?}");
    }

    #[test]
    fn numbers_beyond_counting_are_malformed() {
        let key = SigningKey::generate();
        let seen = Seen { now: start() + TimeDelta::days(1), modified: None };
        let good = serde_json::to_value(record(1, None)).unwrap();
        let most = i64::MAX as u64;
        for (field, number, believed) in [
            ("stored_bytes", serde_json::json!(most), true),
            ("stored_bytes", serde_json::json!(most + 1), false),
            ("duration_seconds", serde_json::json!(1e300), false),
            ("duration_seconds", serde_json::json!(-1e300), false),
        ] {
            let mut value = good.clone();
            value[field] = number;
            let reason = verdict(&trust(&key), &key, &value, seen);
            assert_eq!(reason.is_none(), believed, "{value}");
            assert!(matches!(reason, None | Some(Distrust::Malformed { .. })), "{reason:?}");
        }
        let range = crate::domain::record::SequenceRange { first: 1, last: u64::MAX };
        let body = crate::domain::record::QuarantineRecord { backup: None, gone: vec![range] };
        let wild = Record { body: RecordBody::Quarantine(body), ..record(1, None) };
        let reason = verdict(&trust(&key), &key, &serde_json::to_value(wild).unwrap(), seen);
        assert!(matches!(reason, Some(Distrust::Malformed { .. })), "{reason:?}");
    }

    #[test]
    fn a_removal_sums_up_the_backup_that_it_removes() {
        use crate::domain::manifest::BackupSummary;
        use crate::domain::record::RemovalReason;
        let key = SigningKey::generate();
        let seen = Seen { now: start() + TimeDelta::days(1), modified: None };
        let manifest = crate::vault::manifests::tests::manifest("shop", 1, None);
        let recorded = manifest.committed;
        let verdict = |recorded, change: fn(&mut BackupSummary)| {
            let mut summary = manifest.summary(crate::domain::ids::ManifestHash([1; 32]));
            change(&mut summary);
            let (backup, reason) = (manifest.id.clone(), RemovalReason::Expired);
            let removal = RemovalRecord { backup, summary: Some(summary), reason, gone: Vec::new() };
            let removal = Record { recorded, body: RecordBody::Removal(Box::new(removal)), ..record(1, None) };
            verdict(&trust(&key), &key, &serde_json::to_value(removal).unwrap(), seen)
        };
        assert_eq!(verdict(recorded, |_| {}), None);
        let changes: [fn(&mut BackupSummary); 4] = [
            |summary| summary.job = "blog".parse().unwrap(),
            |summary| summary.id = BackupId::from_random([9; 8]),
            |summary| summary.vault = VaultId::from_random([9; 8]),
            |summary| {
                summary.sources[0].new_bytes = i64::MAX as u64;
                summary.sources.push(summary.sources[0].clone());
            },
        ];
        for change in changes {
            let reason = verdict(recorded, change);
            assert!(matches!(reason, Some(Distrust::Malformed { .. })), "{reason:?}");
        }
        let reason = verdict(recorded - TimeDelta::seconds(1), |_| {});
        assert!(matches!(reason, Some(Distrust::Malformed { .. })), "{reason:?}");
    }
}
