//! Records: what was run, drilled and removed, signed by the host that did it.
//!
//! A record is in clear and holds ids, times, verdicts and numbers. Names, values and error texts are in the sealed
//! details beside it, which the record names by their hash; sealing and opening them is not done here.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::keys::SigningKey;
use super::layout::{Key, RECORDS, RecordName, object_id};
use super::manifests::{check_version, put_and_sync};
use super::signing::{MAX_SIGNATURE_BYTES, sign, signer, verify};
use super::trust::{Claimed, TrustDocument};
use super::{Distrust, VaultError};
use crate::domain::ids::ObjectId;
use crate::domain::record::{RECORD_VERSION, Record, RecordBody};
use crate::storage::{Storage, StorageError};

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
        storage.replace(&Key::RecordDetails(name.clone()).to_string(), details).await?;
    }
    storage.replace(&Key::RecordSignature(name.clone()).to_string(), signature).await?;
    put_and_sync(storage, &Key::Record(name.clone()).to_string(), &document.into()).await?;
    Ok(name)
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
    let key = Key::Record(name.clone()).to_string();
    let untrusted = |reason| VaultError::RecordUntrusted { key: key.clone(), reason };
    let wrong = |error: StorageError| match error {
        StorageError::TooLarge { .. } | StorageError::NotAFile { .. } => {
            untrusted(Distrust::Unreadable { reason: error.to_string() })
        }
        error => error.into(),
    };
    let document = storage.get(&key, MAX_RECORD_BYTES).await.map_err(wrong)?;
    let signature = Key::RecordSignature(name.clone()).to_string();
    let signature = match storage.get(&signature, MAX_SIGNATURE_BYTES).await {
        Err(error) if error.is_not_found() => return Err(untrusted(Distrust::NoSignature)),
        read => read.map_err(wrong)?,
    };
    verify_record(trust, name, &document, &signature).map_err(untrusted)
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
) -> Result<VerifiedRecord, Distrust> {
    let host = trust.host_with(signer(signature).map_err(Distrust::Signature)?)?;
    let found = verify(&host.key, document, signature).map_err(Distrust::Signature)?;

    let malformed = |reason: String| Distrust::Malformed { reason };
    let value: serde_json::Value = serde_json::from_slice(document).map_err(|error| malformed(error.to_string()))?;
    match value.get("type").and_then(serde_json::Value::as_str) {
        Some(known) if RecordBody::TYPES.contains(&known) => {}
        Some(unknown) => return Err(Distrust::UnknownKind { found: unknown.to_owned() }),
        None => return Err(malformed("it has no type".into())),
    }
    check_version(&value, RECORD_VERSION)?;
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
    trust.host_for(host.key.id(), &record.job, record.recorded, Claimed::Record)?;
    if record.host != host.name {
        return Err(Distrust::OtherHost { host: host.name.clone(), says: record.host });
    }
    Ok(VerifiedRecord { record, name: belongs })
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

/// The names of a folder's records, oldest first.
///
/// # Errors
/// The store's.
pub async fn list_records(storage: &dyn Storage, folder: &str) -> Result<Vec<RecordName>, VaultError> {
    let mut names = Vec::new();
    storage
        .list(&Key::records_in(folder), &mut |listed| {
            if let Key::Record(name) = Key::parse(&listed.key) {
                names.push(name);
            }
        })
        .await?;
    names.sort();
    Ok(names)
}

async fn survey_below(storage: &dyn Storage, trust: &TrustDocument, prefix: &str) -> Result<Records, VaultError> {
    let (mut names, mut beside) = (BTreeSet::new(), Vec::new());
    let mut answer = Records::default();
    storage
        .list(prefix, &mut |listed| match Key::parse(&listed.key) {
            Key::Record(name) => names.extend([name]),
            Key::RecordSignature(name) | Key::RecordDetails(name) => beside.push((name, listed.key)),
            _ => answer.strays.push(listed.key),
        })
        .await?;
    answer.strays.extend(beside.into_iter().filter(|(name, _)| !names.contains(name)).map(|(_, key)| key));
    answer.strays.sort();
    for name in names {
        match read_record(storage, trust, &name).await {
            Ok(verified) => answer.records.push(verified),
            Err(VaultError::RecordUntrusted { key, reason }) => answer.problems.push(RecordProblem { key, reason }),
            // Removed since the listing.
            Err(VaultError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
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
                logical_bytes: u64::MAX,
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
}
