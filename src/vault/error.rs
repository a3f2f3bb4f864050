//! What a vault could not give, and why a document in it is not believed.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::keys::{KeyId, PublicKey};
use super::signing::SignatureFault;
use crate::domain::ids::{JobName, ObjectId, VaultId};
use crate::error::{Code, Diagnostic};
use crate::seal::SealError;
use crate::storage::StorageError;

/// Why a signed document is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// There is no signature beside it.
    #[error("its signature is missing")]
    NoSignature,
    /// The signature is not one, or not of these bytes.
    #[error("{0}")]
    Signature(SignatureFault),
    /// vault.json names no host with that key.
    #[error("it is signed with key {key}, which vault.json does not name")]
    UnknownHost {
        /// The key's id.
        key: KeyId,
    },
    /// The host may not sign this job.
    #[error("host {host} may not sign job {job}")]
    JobNotAllowed {
        /// The host, as vault.json names it.
        host: String,
        /// The job.
        job: JobName,
    },
    /// The host might sign at other times only.
    #[error("host {host} may not sign at {at}")]
    OutsideTime {
        /// The host, as vault.json names it.
        host: String,
        /// When the document says that it was written.
        at: DateTime<Utc>,
    },
    /// The host's key was revoked, and the document is not among the last that it is believed for.
    #[error("host {host} was revoked before it")]
    Revoked {
        /// The host, as vault.json names it.
        host: String,
    },
    /// The host in the document is not the one whose key signed it.
    #[error("it says that host {says} wrote it, and host {host} signed it")]
    OtherHost {
        /// The host, as vault.json names it.
        host: String,
        /// The host in the document.
        says: String,
    },
    /// The trusted comment of the signature belongs to another document.
    #[error("its signature was made for {found:?}, and it is {expected:?}")]
    OtherScope {
        /// What the document makes it.
        expected: String,
        /// What the trusted comment says.
        found: String,
    },
    /// It lies under a key that belongs to another document.
    #[error("it belongs at {belongs}: renamed, or replayed from elsewhere")]
    OtherPlace {
        /// The key that the document makes it.
        belongs: String,
    },
    /// It was written to another vault.
    #[error("it was written to vault {found}, and this is {expected}")]
    OtherVault {
        /// The vault it lies in.
        expected: VaultId,
        /// The vault it names.
        found: VaultId,
    },
    /// A newer version of the format.
    #[error("it has version {found}, and this lifeboat reads up to {supported}")]
    NewerVersion {
        /// The document's version.
        found: u64,
        /// What this program reads.
        supported: u32,
    },
    /// A kind of record that this version does not know.
    #[error("records of type {found:?} are not known to this lifeboat")]
    UnknownKind {
        /// The document's type.
        found: String,
    },
    /// It is not what a document of its kind looks like, although it is signed.
    #[error("it is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// It says that it was written at a time that, by the store's clock, is yet to come.
    #[error("it is dated {says}, and by the vault's own clock it is {now}")]
    FromTheFuture {
        /// The latest time in it: a recovery point, a commit, when it was recorded.
        says: DateTime<Utc>,
        /// The store's time.
        now: DateTime<Utc>,
    },
    /// It is older than one that this host saw: a host that was revoked since would be believed again.
    #[error("it has number {found}, and this host saw number {seen}: somebody put an older one back")]
    RolledBack {
        /// Its serial number.
        found: u64,
        /// The highest that was seen here.
        seen: u64,
    },
    /// It is another one than this host saw under the same number: two were signed at once, and one of them is lost.
    #[error(
        "this host saw another one with the same number {serial}: two changes were made at once, or one was put back"
    )]
    Forked {
        /// The number of both.
        serial: u64,
    },
    /// It cannot even be read as a file.
    #[error("{reason}")]
    Unreadable {
        /// What the store said.
        reason: String,
    },
}

/// What a vault could not give.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no vault.json.
    #[error("there is no vault in {place}: vault.json is missing")]
    NoVault {
        /// The store.
        place: String,
    },
    /// vault.json is not what the pinned key signed.
    #[error("vault.json in {place} is not to be trusted: {reason}")]
    Untrusted {
        /// The store.
        place: String,
        /// Why.
        reason: Distrust,
    },
    /// Somebody else changed vault.json at the same time.
    #[error("vault.json in {place} was changed by somebody else at the same moment")]
    TrustOverwritten {
        /// The store.
        place: String,
    },
    /// vault.json is of a newer version.
    #[error("the vault in {place} has version {found}, and this lifeboat reads up to {supported}")]
    NewerVersion {
        /// The store.
        place: String,
        /// vault.json's version.
        found: u64,
        /// What this program reads.
        supported: u32,
    },
    /// This host's key is not among those that may sign.
    #[error("this host cannot write job {job} into the vault: {reason}")]
    HostUnauthorised {
        /// The job.
        job: JobName,
        /// This host's key.
        key: PublicKey,
        /// Why.
        reason: Distrust,
    },
    /// A manifest is not believed.
    #[error("{key} is not to be trusted: {reason}")]
    ManifestUntrusted {
        /// Where it lies.
        key: String,
        /// Why.
        reason: Distrust,
    },
    /// A manifest is not there.
    #[error("{key} is gone")]
    ManifestMissing {
        /// Where it should lie.
        key: String,
    },
    /// A record is not believed.
    #[error("{key} is not to be trusted: {reason}")]
    RecordUntrusted {
        /// Where it lies.
        key: String,
        /// Why.
        reason: Distrust,
    },
    /// The bytes of a list, an object, or of sealed details do not have the hash that names them.
    #[error("{key} is damaged: its bytes have the SHA-256 {found}")]
    HashDiffers {
        /// Where it lies.
        key: String,
        /// What its bytes hash to.
        found: ObjectId,
    },
    /// A list has the right hash and is no list.
    #[error("{key} is not a list of segments: {reason}")]
    ListMalformed {
        /// Where it lies.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// An object's layers do not agree with what leads to it.
    #[error("{key} is damaged: {reason}")]
    ObjectDamaged {
        /// Where it lies.
        key: String,
        /// Which layer noticed, and what.
        reason: String,
    },
    /// The contents of a source do not fit together, or do not fit the lists.
    #[error("the contents of source {source_name} are damaged: {reason}")]
    ContentsDamaged {
        /// The source.
        source_name: String,
        /// What is wrong.
        reason: String,
    },
    /// The contents of a source are of a newer version.
    #[error("the contents of source {source_name} have version {found}, and this lifeboat reads up to {supported}")]
    NewerContents {
        /// The source.
        source_name: String,
        /// Their version.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// Sealing or opening failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The threads that write to the store are gone.
    #[error("the threads that write to the vault have ended")]
    WriterClosed,
    /// The threads that read from the store are gone.
    #[error("the threads that read from the vault have ended")]
    ReaderClosed,
    /// A key file cannot be used.
    #[error("key file {}: {reason}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text is not a public key.
    #[error("{text:?} is not a minisign public key (RWQ…)")]
    PublicKey {
        /// What was given.
        text: String,
    },
    /// The identity file's comments contradict themselves.
    #[error("the identity file has two different lines `# lifeboat {name}: …`")]
    IdentityAmbiguous {
        /// `vault` or `trust`.
        name: &'static str,
    },
    /// A text after `# lifeboat vault:` is not an id.
    #[error("the identity file's line `# lifeboat vault: {text}` has no vault id")]
    IdentityVault {
        /// What stands there.
        text: String,
    },
}

impl Diagnostic for VaultError {
    fn code(&self) -> Code {
        match self {
            Self::Storage(error) => error.code(),
            Self::NoVault { .. } => Code::VaultMissing,
            Self::Untrusted { .. } => Code::VaultUntrusted,
            Self::TrustOverwritten { .. } => Code::Locked,
            Self::NewerVersion { .. } | Self::NewerContents { .. } => Code::VaultVersion,
            Self::Seal(error) => error.code(),
            Self::WriterClosed | Self::ReaderClosed => Code::Internal,
            Self::ObjectDamaged { .. } | Self::ContentsDamaged { .. } => Code::ObjectDamaged,
            Self::HostUnauthorised { .. } => Code::HostUnauthorised,
            Self::ManifestUntrusted { .. } | Self::RecordUntrusted { .. } => Code::ManifestUntrusted,
            Self::ManifestMissing { .. } => Code::ManifestMissing,
            Self::HashDiffers { .. } | Self::ListMalformed { .. } => Code::ObjectDamaged,
            Self::KeyFile { .. } | Self::PublicKey { .. } => Code::KeyMissing,
            Self::IdentityAmbiguous { .. } | Self::IdentityVault { .. } => Code::KeyMissing,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::NoVault { .. } => {
                Some("check the vault's url in the config, or make a vault there with `lifeboat init`".into())
            }
            Self::Untrusted { .. } => Some(
                "compare `trust` in the config with the line `# lifeboat trust:` of the identity file; if they agree, \
                 somebody changed vault.json: restore it from a copy before anything else"
                    .into(),
            ),
            Self::TrustOverwritten { .. } => Some(
                "look at `lifeboat host list` and `lifeboat recipient list`, then run the same command again".into(),
            ),
            Self::Seal(error) => error.hint(),
            Self::WriterClosed | Self::ReaderClosed => None,
            Self::NewerVersion { .. } | Self::NewerContents { .. } => {
                Some("install the newer lifeboat that wrote it".into())
            }
            Self::HostUnauthorised { job, key, reason } => Some(how_to_let_write(job, key, reason)),
            Self::ManifestUntrusted { reason: Distrust::NewerVersion { .. }, .. }
            | Self::RecordUntrusted { reason: Distrust::NewerVersion { .. } | Distrust::UnknownKind { .. }, .. } => {
                Some("install the newer lifeboat that wrote it".into())
            }
            Self::ManifestUntrusted { .. } | Self::ManifestMissing { .. } => {
                Some("run `lifeboat check` for the whole damage, and `lifeboat list` for the other backups".into())
            }
            Self::RecordUntrusted { .. } => Some("run `lifeboat check` for the whole damage".into()),
            Self::HashDiffers { .. }
            | Self::ListMalformed { .. }
            | Self::ObjectDamaged { .. }
            | Self::ContentsDamaged { .. } => Some("run `lifeboat check` to learn which backups this touches".into()),
            Self::KeyFile { .. } => {
                Some("keys belong to lifeboat's user and are readable by nobody else (`chmod 600`)".into())
            }
            Self::PublicKey { .. } | Self::IdentityAmbiguous { .. } | Self::IdentityVault { .. } => Some(
                "the vault's public key is printed by `lifeboat key show` and stands in the identity file as \
                 `# lifeboat trust: RWQ…`"
                    .into(),
            ),
        }
    }
}

/// What makes vault.json let a host sign a job, and where that is typed.
fn how_to_let_write(job: &JobName, key: &PublicKey, reason: &Distrust) -> String {
    match reason {
        Distrust::Revoked { .. } => {
            "a revoked key stays revoked: move host.key out of the state folder, `lifeboat init` makes \
                                     another and says how to add it, under a new name"
                .into()
        }
        Distrust::OutsideTime { .. } => {
            "compare this host's clock (`date -u`) with the times that `lifeboat host list` shows".into()
        }
        Distrust::JobNotAllowed { host, .. } => {
            format!(
                "where the vault's offline key is: `lifeboat host add {host} --key {key} --jobs {job} --vault-key FILE`"
            )
        }
        _ => format!("where the vault's offline key is: `lifeboat host add NAME --key {key} --vault-key FILE`"),
    }
}
