//! Whom a vault believes: vault.json, signed by the vault's offline key, names the hosts and the jobs each may sign.
//!
//! Everything else in the vault is believed through it, and it is believed through the [`Pin`] that a config or an
//! identity file carries. It may also say whom backups may be sealed to. The next document is made in [`change`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::identity::Pin;
use super::keys::{KeyId, PublicKey, SigningKey};
use super::layout::{Key, object_id};
use super::signing::{MAX_SIGNATURE_BYTES, sign, verify};
use super::{Distrust, VaultError, versions};
use crate::domain::ids::{JobName, ManifestHash, ObjectId, VaultId};
use crate::storage::{Storage, StorageError};

pub mod change;

/// The `type` of vault.json.
pub const TRUST_TYPE: &str = "lifeboat-vault";
/// The version of the vault's format that this program writes and reads.
pub const VAULT_VERSION: u32 = 1;
const MAX_TRUST_BYTES: u64 = 4 * 1024 * 1024;
/// No serial number is higher, as no number in a signed document is.
const MAX_SERIAL: u64 = i64::MAX as u64;

/// vault.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDocument {
    /// Always [`TRUST_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// [`VAULT_VERSION`].
    pub version: u32,
    /// The vault.
    pub vault: VaultId,
    /// Rises with each change, from 1.
    pub serial: u64,
    /// When the vault was made.
    pub created: DateTime<Utc>,
    /// Who may sign.
    pub hosts: Vec<HostEntry>,
    /// Whom backups may be sealed to; absent where nobody ever said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Vec<RecipientEntry>>,
}

/// A host that may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// What it is called; unique in the document.
    pub name: String,
    /// Its public key.
    pub key: PublicKey,
    /// The jobs that it may sign.
    pub jobs: Vec<JobPattern>,
    /// Nothing of before this moment is believed.
    pub from: DateTime<Utc>,
    /// Nothing of after this moment is believed.
    pub until: Option<DateTime<Utc>>,
    /// Set where its key is no longer its own.
    pub revoked: Option<Revocation>,
}

/// A recipient that backups may be, or might once be, sealed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientEntry {
    /// age's public key (`age1…`); unique in the document.
    pub key: String,
    /// Nothing that was committed after this moment may be sealed to it.
    pub until: Option<DateTime<Utc>>,
}

/// The end of a key, and what was signed with it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Since when.
    pub at: DateTime<Utc>,
    /// The last manifest of each job that is still believed; of other jobs none is.
    pub last_manifests: BTreeMap<JobName, LastBelieved>,
}

/// The last manifest of a job that a revoked host is believed for. By its hash it is that one and no other; those before
/// it are held to the chain that ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastBelieved {
    /// Its sequence number.
    pub sequence: u64,
    /// The SHA-256 of its bytes.
    pub hash: ManifestHash,
}

/// Which jobs a host may sign: `*` for all, or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum JobPattern {
    /// All jobs.
    Any,
    /// One job.
    Job(JobName),
}

impl TryFrom<String> for JobPattern {
    type Error = crate::domain::ids::IdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::Job) }
    }
}

impl From<JobPattern> for String {
    fn from(pattern: JobPattern) -> Self {
        match pattern {
            JobPattern::Any => "*".into(),
            JobPattern::Job(job) => job.to_string(),
        }
    }
}

/// What a host wants to be, or has been, believed for.
#[derive(Debug, Clone, Copy)]
pub enum Claimed {
    /// A manifest.
    Manifest {
        /// Its sequence number.
        sequence: u64,
        /// The SHA-256 of its bytes.
        hash: ManifestHash,
    },
    /// A manifest that is not written yet.
    NextManifest,
    /// A record.
    Record {
        /// When the store last saw it, where the store knows.
        modified: Option<DateTime<Utc>>,
    },
}

impl TrustDocument {
    /// A vault's first one.
    #[must_use]
    pub fn first(vault: VaultId, created: DateTime<Utc>, hosts: Vec<HostEntry>) -> Self {
        Self { kind: TRUST_TYPE.into(), version: VAULT_VERSION, vault, serial: 1, created, hosts, recipients: None }
    }

    /// The host whose key signed something of this job at this moment, or why it is not believed.
    ///
    /// # Errors
    /// `UnknownHost`, `JobNotAllowed`, `OutsideTime` or `Revoked`.
    pub fn host_for(
        &self,
        key: KeyId,
        job: &JobName,
        at: DateTime<Utc>,
        claimed: Claimed,
    ) -> Result<&HostEntry, Distrust> {
        let host = self.host_with(key)?;
        let name = || host.name.clone();
        let allowed = host.jobs.iter().any(|pattern| match pattern {
            JobPattern::Any => true,
            JobPattern::Job(allowed) => allowed == job,
        });
        if !allowed {
            return Err(Distrust::JobNotAllowed { host: name(), job: job.clone() });
        }
        if at < host.from || host.until.is_some_and(|until| at > until) {
            return Err(Distrust::OutsideTime { host: name(), at });
        }
        if let Some(revoked) = &host.revoked {
            // The holder of a stolen key writes any time that he likes; a manifest's place in the chain of hashes he
            // cannot choose: the last one is known by its hash, and a survey holds those before it to the chain. Records
            // have no chain: of those only the store can say that they are as old as they claim.
            let believed = match claimed {
                Claimed::Manifest { sequence, hash } => revoked.last_manifests.get(job).is_some_and(|last| {
                    if sequence == last.sequence {
                        hash == last.hash
                    } else {
                        sequence < last.sequence && at < revoked.at
                    }
                }),
                Claimed::NextManifest => false,
                Claimed::Record { modified } => at < revoked.at && modified.is_some_and(|seen| seen < revoked.at),
            };
            if !believed {
                return Err(Distrust::Revoked { host: name() });
            }
        }
        Ok(host)
    }

    /// The host with this key, whatever it may sign.
    ///
    /// # Errors
    /// [`Distrust::UnknownHost`].
    pub fn host_with(&self, key: KeyId) -> Result<&HostEntry, Distrust> {
        self.hosts.iter().find(|host| host.key.id() == key).ok_or(Distrust::UnknownHost { key })
    }

    /// Refuses to begin a run whose manifest nobody would believe.
    ///
    /// # Errors
    /// [`VaultError::HostUnauthorised`].
    pub fn check_writer(&self, key: &PublicKey, job: &JobName, at: DateTime<Utc>) -> Result<&HostEntry, VaultError> {
        let host = self.host_for(key.id(), job, at, Claimed::NextManifest).and_then(|host| {
            // Numbers can be made alike; keys cannot.
            if host.key == *key { Ok(host) } else { Err(Distrust::UnknownHost { key: key.id() }) }
        });
        host.map_err(|reason| VaultError::HostUnauthorised { job: job.clone(), key: key.clone(), reason })
    }

    /// By what one knows this document again: the SHA-256 of the bytes that this program writes for it.
    ///
    /// # Panics
    /// With a document that [`read_trust`] would refuse.
    #[must_use]
    pub fn digest(&self) -> ObjectId {
        object_id(&encode(self))
    }

    /// Those of these recipients that nothing may be sealed to from now on: none where the document names no approved
    /// set.
    #[must_use]
    pub fn unapproved(&self, recipients: &[String]) -> Vec<String> {
        self.without_approval(recipients, |entry| entry.until.is_none())
    }

    /// Those of a backup's recipients that it should not have been sealed to when it was committed: a recipient that was
    /// removed since was right in its time.
    #[must_use]
    pub fn unapproved_at(&self, recipients: &[String], committed: DateTime<Utc>) -> Vec<String> {
        self.without_approval(recipients, |entry| entry.until.is_none_or(|until| committed <= until))
    }

    fn without_approval(&self, recipients: &[String], approves: impl Fn(&RecipientEntry) -> bool) -> Vec<String> {
        let Some(approved) = &self.recipients else { return Vec::new() };
        let known = |recipient: &String| approved.iter().any(|entry| entry.key == *recipient && approves(entry));
        recipients.iter().filter(|recipient| !known(recipient)).cloned().collect()
    }

    fn scope(&self) -> String {
        format!("{TRUST_TYPE} vault={} serial={}", self.vault, self.serial)
    }

    fn check(&self) -> Result<(), String> {
        if self.kind != TRUST_TYPE {
            return Err(format!("its type is {:?}, not {TRUST_TYPE:?}", self.kind));
        }
        if self.serial == 0 {
            return Err("serial numbers begin at 1".into());
        }
        if self.serial > MAX_SERIAL {
            return Err("its serial number is beyond counting".into());
        }
        let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for host in &self.hosts {
            if host.name.is_empty() || host.name.len() > 255 || host.name.chars().any(char::is_control) {
                return Err(format!("{:?} is not a usable host name", host.name));
            }
            if !names.insert(&host.name) {
                return Err(format!("host {} stands in it twice", host.name));
            }
            if !keys.insert(host.key.id()) {
                return Err(format!("key {} stands in it twice", host.key.id()));
            }
        }
        if let Some(recipients) = &self.recipients {
            let mut keys = BTreeSet::new();
            for RecipientEntry { key, .. } in recipients {
                if !key.starts_with("age1") || !key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
                    return Err(format!("{key:?} is not a recipient"));
                }
                if !keys.insert(key) {
                    return Err(format!("recipient {key} stands in it twice"));
                }
            }
            if recipients.iter().all(|entry| entry.until.is_some()) {
                return Err("it approves no recipient at all".into());
            }
        }
        Ok(())
    }
}

/// Reads vault.json and believes it, or says why not: first the signature, then the version, then the rest. Where it is not
/// signed as it lies there, the newest earlier version is taken that is: whoever could put an older one on top could do that
/// as well, and a host that saw a newer one notices it.
///
/// # Errors
/// [`VaultError::NoVault`], [`VaultError::Untrusted`], [`VaultError::NewerVersion`], or the store's.
pub async fn read_trust(storage: &dyn Storage, pin: &Pin) -> Result<TrustDocument, VaultError> {
    read_signed_trust(storage, pin).await.map(|signed| signed.trust)
}

/// vault.json as it lies there, for whoever brings it to another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTrust {
    /// What it says.
    pub trust: TrustDocument,
    /// Its bytes.
    pub document: Bytes,
    /// The signature that fits them.
    pub signature: Bytes,
}

/// As [`read_trust`], with the bytes.
///
/// # Errors
/// As [`read_trust`].
pub async fn read_signed_trust(storage: &dyn Storage, pin: &Pin) -> Result<SignedTrust, VaultError> {
    let error = match read_top(storage, pin).await {
        Err(error @ (VaultError::NoVault { .. } | VaultError::Untrusted { .. })) => error,
        read => return read,
    };
    let (document_key, signature_key) = (Key::Trust.to_string(), Key::TrustSignature.to_string());
    if storage.earlier(&document_key).await?.is_empty() && storage.earlier(&signature_key).await?.is_empty() {
        return Err(error);
    }
    let signatures = versions::all(storage, &signature_key, MAX_SIGNATURE_BYTES).await?;
    for document in versions::all(storage, &document_key, MAX_TRUST_BYTES).await? {
        for signature in &signatures {
            if let Ok(scope) = verify(&pin.key, &document, signature)
                && let Ok(trust) = believed(storage, pin, &document, &scope)
            {
                versions::tell(storage, &document_key);
                return Ok(SignedTrust { trust, document, signature: signature.clone() });
            }
        }
    }
    Err(error)
}

async fn read_top(storage: &dyn Storage, pin: &Pin) -> Result<SignedTrust, VaultError> {
    let place = || storage.describe();
    let untrusted = |reason| VaultError::Untrusted { place: storage.describe(), reason };
    let document = match storage.get(&Key::Trust.to_string(), MAX_TRUST_BYTES).await {
        Err(error) if error.is_not_found() => return Err(VaultError::NoVault { place: place() }),
        read => read?,
    };
    let mut reason = Distrust::NoSignature;
    let mut found_signature = None;
    // A change that died half-way has written the new document and not yet renewed its signature; the one that was
    // laid beside it beforehand is as good.
    for key in [Key::TrustSignature, Key::TrustNextSignature] {
        match storage.get(&key.to_string(), MAX_SIGNATURE_BYTES).await {
            Ok(signature) => match verify(&pin.key, &document, &signature) {
                Ok(comment) => {
                    found_signature = Some((comment, signature));
                    break;
                }
                Err(fault) if reason == Distrust::NoSignature => reason = Distrust::Signature(fault),
                Err(_) => {}
            },
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some((scope, signature)) = found_signature else { return Err(untrusted(reason)) };
    let trust = believed(storage, pin, &document, &scope)?;
    Ok(SignedTrust { trust, document, signature })
}

/// What is signed, if it is a vault.json and this vault's.
fn believed(storage: &dyn Storage, pin: &Pin, document: &[u8], scope: &str) -> Result<TrustDocument, VaultError> {
    let place = || storage.describe();
    let untrusted = |reason| VaultError::Untrusted { place: storage.describe(), reason };
    let malformed = |reason: String| untrusted(Distrust::Malformed { reason });
    let value: serde_json::Value = serde_json::from_slice(document).map_err(|error| malformed(error.to_string()))?;
    let found = value.get("version").and_then(serde_json::Value::as_u64);
    match found {
        Some(found) if found > u64::from(VAULT_VERSION) => {
            return Err(VaultError::NewerVersion { place: place(), found, supported: VAULT_VERSION });
        }
        Some(found) if found == u64::from(VAULT_VERSION) => {}
        _ => return Err(malformed("it has no version that any lifeboat wrote".into())),
    }
    let trust: TrustDocument = serde_path_to_error::deserialize(value).map_err(|error| malformed(error.to_string()))?;
    trust.check().map_err(malformed)?;
    if scope != trust.scope() {
        return Err(untrusted(Distrust::OtherScope { expected: trust.scope(), found: scope.to_owned() }));
    }
    if let Some(expected) = &pin.vault
        && *expected != trust.vault
    {
        let (expected, found) = (expected.clone(), trust.vault);
        return Err(untrusted(Distrust::OtherVault { expected, found }));
    }
    Ok(trust)
}

/// Writes a vault.json that somebody signed before: killed at any point, the place has the old document or the new one, or
/// none yet, and a signature for it.
///
/// # Errors
/// The store's.
pub async fn write_signed_trust(storage: &dyn Storage, signed: &SignedTrust) -> Result<(), StorageError> {
    let next = Key::TrustNextSignature.to_string();
    storage.replace(&next, signed.signature.clone()).await?;
    storage.replace(&Key::Trust.to_string(), signed.document.clone()).await?;
    storage.replace(&Key::TrustSignature.to_string(), signed.signature.clone()).await?;
    // Where it may not be deleted it does no harm: readers take the signature that fits.
    let _ = storage.delete(&next).await;
    storage.sync().await
}

/// Signs and writes vault.json, and reads it again. Killed at any point, the vault has the old document or the new one,
/// and a signature for it. No store can be asked to replace a document only if it is still the one that was read: of two
/// changes made at once from two machines one is lost, and the loser must hear of it.
///
/// # Errors
/// [`VaultError::TrustOverwritten`] where another document lies there afterwards, or the store's.
///
/// # Panics
/// With a document that [`read_trust`] would refuse.
pub async fn write_trust(storage: &dyn Storage, key: &SigningKey, trust: &TrustDocument) -> Result<(), VaultError> {
    let document = encode(trust);
    let signature = sign(key, &document, &trust.scope());
    let next = Key::TrustNextSignature.to_string();
    storage.replace(&next, signature.clone()).await?;
    storage.replace(&Key::Trust.to_string(), document.clone()).await?;
    storage.replace(&Key::TrustSignature.to_string(), signature).await?;
    storage.delete(&next).await?;
    storage.sync().await?;
    match storage.get(&Key::Trust.to_string(), MAX_TRUST_BYTES).await {
        Ok(there) if there == document => Ok(()),
        Ok(_) => Err(VaultError::TrustOverwritten { place: storage.describe() }),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a vault at all, believed or not.
///
/// # Errors
/// The store's.
pub async fn exists(storage: &dyn Storage) -> Result<bool, StorageError> {
    Ok(storage.size(&Key::Trust.to_string()).await?.is_some())
}

fn encode(trust: &TrustDocument) -> Bytes {
    if let Err(reason) = trust.check() {
        panic!("nobody would believe this vault.json: {reason}");
    }
    let mut text = serde_json::to_vec_pretty(trust).expect("vault.json is always representable as JSON");
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests;
