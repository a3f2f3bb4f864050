//! Manifests: sealing one with a signature, committing it, and believing one that was found.
//!
//! The signature is written before the manifest and the manifest is the commit: a signature without a manifest is
//! what a run left that died in between, a manifest without a signature is damage.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::keys::SigningKey;
use super::layout::{Key, ManifestName, manifest_hash};
use super::signing::{MAX_SIGNATURE_BYTES, sign, signer, verify};
use super::trust::{Claimed, HostEntry, TrustDocument};
use super::{Distrust, VaultError, versions};
use crate::domain::ids::ManifestHash;
use crate::domain::manifest::{MANIFEST_TYPE, MANIFEST_VERSION, Manifest, SourceEntry};
use crate::storage::{Put, Storage, StorageError};

/// No manifest is larger: about 100,000 lists, 400 million segments.
pub const MAX_MANIFEST_BYTES: u64 = 16 * 1024 * 1024;

/// No number in a signed document is higher: whoever counts or stores them need not look.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// A manifest that is what a host of the vault signed, where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedManifest {
    /// The manifest.
    pub manifest: Manifest,
    /// Where it lies.
    pub name: ManifestName,
    /// By which the next one points back.
    pub hash: ManifestHash,
}

/// A manifest ready to be committed.
#[derive(Debug, Clone)]
pub struct SignedManifest {
    /// Where it will lie.
    pub name: ManifestName,
    /// Its bytes.
    pub document: Bytes,
    /// The signature's bytes.
    pub signature: Bytes,
    /// By which the next one points back.
    pub hash: ManifestHash,
}

/// Signs a manifest.
///
/// # Panics
/// With a manifest that no reader would accept.
#[must_use]
pub fn sign_manifest(manifest: &Manifest, key: &SigningKey) -> SignedManifest {
    if let Err(reason) = check(manifest) {
        panic!("nobody would read this manifest: {reason}");
    }
    let mut document = serde_json::to_vec_pretty(manifest).expect("a manifest is always representable as JSON");
    document.push(b'\n');
    SignedManifest {
        name: ManifestName::of(manifest),
        signature: sign(key, &document, &scope(manifest)),
        hash: manifest_hash(&document),
        document: document.into(),
    }
}

/// Commits: the signature, made durable, then the manifest, made durable. Everything that it names must have been
/// synced before. May be called again with the same [`SignedManifest`] after an error.
///
/// # Errors
/// The store's; [`StorageError::Conflict`] where something else lies there.
pub async fn commit_manifest(storage: &dyn Storage, signed: &SignedManifest) -> Result<(), VaultError> {
    let signature = Key::ManifestSignature(signed.name.clone()).to_string();
    put_and_sync(storage, &signature, &signed.signature).await?;
    put_and_sync(storage, &Key::Manifest(signed.name.clone()).to_string(), &signed.document).await?;
    Ok(())
}

/// Stores bytes durably; that the same bytes are there already is as good.
pub(super) async fn put_and_sync(storage: &dyn Storage, key: &str, bytes: &Bytes) -> Result<(), StorageError> {
    let put = storage.put(key, bytes.clone()).await?;
    storage.sync().await?;
    if put == Put::Existed {
        let there = match storage.get(key, bytes.len() as u64).await {
            Ok(there) => there == bytes,
            Err(StorageError::TooLarge { .. }) => false,
            Err(error) => return Err(error),
        };
        if !there {
            return Err(StorageError::Conflict { place: storage.describe(), key: key.to_owned() });
        }
    }
    Ok(())
}

/// Reads a manifest and believes it, or says why not; earlier versions of it and of its signature where what lies there
/// cannot be believed.
///
/// # Errors
/// [`VaultError::ManifestMissing`], [`VaultError::ManifestUntrusted`], or the store's.
pub async fn read_manifest(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &ManifestName,
) -> Result<VerifiedManifest, VaultError> {
    read_signed_manifest(storage, trust, name).await.map(|(verified, _)| verified)
}

/// As [`read_manifest`], with the bytes, ready to be committed to another place.
///
/// # Errors
/// As [`read_manifest`].
pub async fn read_signed_manifest(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &ManifestName,
) -> Result<(VerifiedManifest, SignedManifest), VaultError> {
    let error = match read_signed_top(storage, trust, name).await {
        Err(error @ (VaultError::ManifestMissing { .. } | VaultError::ManifestUntrusted { .. })) => error,
        read => return read,
    };
    let (document_key, signature_key) =
        (Key::Manifest(name.clone()).to_string(), Key::ManifestSignature(name.clone()).to_string());
    if storage.earlier(&document_key).await?.is_empty() && storage.earlier(&signature_key).await?.is_empty() {
        return Err(error);
    }
    let signatures = versions::all(storage, &signature_key, MAX_SIGNATURE_BYTES).await?;
    for document in versions::all(storage, &document_key, MAX_MANIFEST_BYTES).await? {
        for signature in &signatures {
            if let Ok(verified) = verify_manifest(trust, name, &document, signature) {
                versions::tell(storage, &document_key);
                return Ok(signed(name, document, signature.clone(), verified));
            }
        }
    }
    Err(error)
}

/// What lies there, without a look at what lay there before.
///
/// # Errors
/// As [`read_manifest`].
pub async fn read_top(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &ManifestName,
) -> Result<VerifiedManifest, VaultError> {
    read_signed_top(storage, trust, name).await.map(|(verified, _)| verified)
}

fn signed(
    name: &ManifestName,
    document: Bytes,
    signature: Bytes,
    verified: VerifiedManifest,
) -> (VerifiedManifest, SignedManifest) {
    let signed = SignedManifest { name: name.clone(), document, signature, hash: verified.hash };
    (verified, signed)
}

async fn read_signed_top(
    storage: &dyn Storage,
    trust: &TrustDocument,
    name: &ManifestName,
) -> Result<(VerifiedManifest, SignedManifest), VaultError> {
    let key = Key::Manifest(name.clone()).to_string();
    let signature_key = Key::ManifestSignature(name.clone()).to_string();
    let (document, signature) =
        futures_util::join!(storage.get(&key, MAX_MANIFEST_BYTES), storage.get(&signature_key, MAX_SIGNATURE_BYTES));
    let document = match document {
        Err(error) if error.is_not_found() => return Err(VaultError::ManifestMissing { key }),
        Err(error) => return Err(unreadable(key, error)),
        Ok(document) => document,
    };
    let signature = match signature {
        Err(error) if error.is_not_found() => {
            return Err(VaultError::ManifestUntrusted { key, reason: Distrust::NoSignature });
        }
        Err(error) => return Err(unreadable(key, error)),
        Ok(signature) => signature,
    };
    let verified = verify_manifest(trust, name, &document, &signature)
        .map_err(|reason| VaultError::ManifestUntrusted { key, reason })?;
    Ok(signed(name, document, signature, verified))
}

/// What lies there is wrong in itself, or the store failed.
fn unreadable(key: String, error: StorageError) -> VaultError {
    match error {
        StorageError::TooLarge { .. } | StorageError::NotAFile { .. } => {
            VaultError::ManifestUntrusted { key, reason: Distrust::Unreadable { reason: error.to_string() } }
        }
        error => error.into(),
    }
}

/// Decides whether these bytes under this name are to be believed.
///
/// # Errors
/// Why not.
pub fn verify_manifest(
    trust: &TrustDocument,
    name: &ManifestName,
    document: &[u8],
    signature: &[u8],
) -> Result<VerifiedManifest, Distrust> {
    // Whose signature it is must be settled before a byte of the document is believed; what the signer may sign is
    // in the document.
    let host = trust.host_with(signer(signature).map_err(Distrust::Signature)?)?;
    let found = verify(&host.key, document, signature).map_err(Distrust::Signature)?;

    let malformed = |reason: String| Distrust::Malformed { reason };
    let value: serde_json::Value = serde_json::from_slice(document).map_err(|error| malformed(error.to_string()))?;
    // Of what cannot be read the rest is not known; that its signer's time is over is the better answer, and the only one
    // that a newer lifeboat does not change.
    check_version(&value, MANIFEST_VERSION).map_err(|reason| {
        let committed = moment(&value, "committed");
        is_over(host, committed, committed).unwrap_or(reason)
    })?;
    check_numbers(&value).map_err(malformed)?;
    let manifest: Manifest = serde_path_to_error::deserialize(value).map_err(|error| malformed(error.to_string()))?;
    check(&manifest).map_err(malformed)?;

    let expected = scope(&manifest);
    if found != expected {
        return Err(Distrust::OtherScope { expected, found });
    }
    let belongs = ManifestName::of(&manifest);
    if belongs != *name {
        return Err(Distrust::OtherPlace { belongs: belongs.to_string() });
    }
    if manifest.vault != trust.vault {
        return Err(Distrust::OtherVault { expected: trust.vault.clone(), found: manifest.vault });
    }
    let hash = manifest_hash(document);
    let claimed = Claimed::Manifest { sequence: manifest.sequence, hash };
    // By its recovery point a backup is chosen, so that may not be later than its signer's time either.
    for at in [manifest.committed, manifest.committed.max(manifest.recovery_point)] {
        trust.host_for(host.key.id(), &manifest.job, at, claimed)?;
    }
    if manifest.host != host.name {
        return Err(Distrust::OtherHost { host: host.name.clone(), says: manifest.host });
    }
    Ok(VerifiedManifest { manifest, name: belongs, hash })
}

/// The number that a manifest shows which is not believed, where it also shows the job and the id under which it lies: all
/// that is left to tell which one it was, or pretends to be.
///
/// # Errors
/// The store's, where it fails.
pub(super) async fn number_shown(storage: &dyn Storage, name: &ManifestName) -> Result<Option<u64>, VaultError> {
    let document = match storage.get(&Key::Manifest(name.clone()).to_string(), MAX_MANIFEST_BYTES).await {
        Ok(document) => document,
        Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. } | StorageError::NotAFile { .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    // It may be damaged anywhere, and need not be JSON any more.
    let text = String::from_utf8_lossy(&document);
    let shows = |field: &str, wanted: &str| {
        value_of(&text, field).is_some_and(|value| value.starts_with(&format!("\"{wanted}\"")))
    };
    if !shows("job", name.job.as_str()) || !shows("id", name.id.as_str()) {
        return Ok(None);
    }
    let digits = value_of(&text, "sequence").map(|value| value.split(|c: char| !c.is_ascii_digit()).next());
    Ok(digits.flatten().and_then(|digits| digits.parse().ok()).filter(|number| (1..=MAX_NUMBER).contains(number)))
}

/// What follows a field's name in a text; nothing where the field stands there more than once.
fn value_of<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let name = format!("\"{field}\":");
    let (_, value) = text.split_once(&name)?;
    (!value.contains(&name)).then(|| value.trim_start())
}

/// A time in a document that may be of a shape that nobody here knows.
pub(super) fn moment(value: &serde_json::Value, field: &str) -> Option<DateTime<Utc>> {
    let text = value.get(field)?.as_str()?;
    DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.to_utc())
}

/// Why nothing that this host signed then is believed, whatever it is: its key was revoked, or its time had run out. `says`
/// is the time in the document, `seen` the store's. Of a revoked host both must be known and early.
pub(super) fn is_over(host: &HostEntry, says: Option<DateTime<Utc>>, seen: Option<DateTime<Utc>>) -> Option<Distrust> {
    let name = || host.name.clone();
    let mut times = [says, seen].into_iter();
    if let Some(revoked) = &host.revoked {
        return times.any(|at| at.is_none_or(|at| at >= revoked.at)).then(|| Distrust::Revoked { host: name() });
    }
    let until = host.until?;
    let late = times.flatten().find(|at| *at > until)?;
    Some(Distrust::OutsideTime { host: name(), at: late })
}

/// Refuses numbers that are beyond counting.
pub(super) fn check_numbers(value: &serde_json::Value) -> Result<(), String> {
    match value {
        serde_json::Value::Number(number) => {
            let is_countable = match number.as_u64() {
                Some(number) => number <= MAX_NUMBER,
                None => number.as_f64().is_some_and(|number| number.abs() <= MAX_NUMBER as f64),
            };
            if is_countable { Ok(()) } else { Err(format!("{number} is beyond counting")) }
        }
        serde_json::Value::Array(values) => values.iter().try_for_each(check_numbers),
        serde_json::Value::Object(fields) => fields.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

/// Refuses numbers whose sum is beyond counting.
pub(super) fn check_sum(numbers: impl IntoIterator<Item = u64>) -> Result<(), String> {
    let mut numbers = numbers.into_iter();
    match numbers.try_fold(0u64, |sum, number| sum.checked_add(number).filter(|sum| *sum <= MAX_NUMBER)) {
        Some(_) => Ok(()),
        None => Err("its sums are beyond counting".into()),
    }
}

/// Refuses what a newer lifeboat wrote.
pub(super) fn check_version(value: &serde_json::Value, supported: u32) -> Result<(), Distrust> {
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > u64::from(supported) => Err(Distrust::NewerVersion { found, supported }),
        Some(found) if found == u64::from(supported) => Ok(()),
        _ => Err(Distrust::Malformed { reason: "it has no version that any lifeboat wrote".into() }),
    }
}

/// What the trusted comment repeats.
fn scope(manifest: &Manifest) -> String {
    let Manifest { vault, job, id, sequence, .. } = manifest;
    format!("{MANIFEST_TYPE} vault={vault} job={job} id={id} sequence={sequence}")
}

fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.kind != MANIFEST_TYPE {
        return Err(format!("its type is {:?}, not {MANIFEST_TYPE:?}", manifest.kind));
    }
    if manifest.version != MANIFEST_VERSION {
        return Err(format!("its version is {}", manifest.version));
    }
    if manifest.sequence == 0 {
        return Err("sequence numbers begin at 1".into());
    }
    if manifest.sequence > MAX_NUMBER {
        return Err("its sequence number is beyond counting".into());
    }
    if (manifest.sequence == 1) != manifest.previous.is_none() {
        return Err("the first manifest of a job, and no other, has no previous one".into());
    }
    if manifest.sources.is_empty() {
        return Err("it has no source".into());
    }
    let names: BTreeSet<_> = manifest.sources.iter().map(|source| &source.name).collect();
    if names.len() != manifest.sources.len() {
        return Err("a source stands in it twice".into());
    }
    // Sums over the sources are taken without looking.
    let sums: [fn(&SourceEntry) -> u64; 5] =
        [|s| s.logical_bytes, |s| s.stored_bytes, |s| s.new_bytes, |s| s.segments, |s| s.new_segments];
    sums.into_iter().try_for_each(|of| check_sum(manifest.sources.iter().map(of)))?;
    check_sum(manifest.sources.iter().flat_map(|source| source.notes.values().copied()))
}

#[cfg(test)]
pub(super) mod tests;
