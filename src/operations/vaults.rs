//! Opening a vault: whom to believe, where it lies, what is in it.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::config::{S3Settings, Secret, VaultRole, VaultSettings, VaultUrl};
use crate::domain::ids::{JobName, ManifestHash, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{Record, RecordBody, SequenceRange};
use crate::error::{Code, Error, Result};
use crate::storage::local::Local;
use crate::storage::s3::{self, S3};
use crate::storage::{Storage, StorageError};
use crate::vault::identity::{Pin, comment_lines, read_comments};
use crate::vault::manifests::{MAX_NUMBER, VerifiedManifest};
use crate::vault::survey::{self, Survey};
use crate::vault::trust::{TrustDocument, exists, read_trust};
use crate::vault::{Distrust, VaultError};

use super::catch_up::{catch_up, catch_up_with_backups};
use super::host::Host;

/// A vault whose vault.json was found to be signed by the key that we trust.
pub struct OpenVault {
    /// As what this host knows the place: the catalog, the state folder. For a vault that jobs back up into it is the id that
    /// stands in its documents, `trust.vault`. A copy has the same documents, and is another place: what is gone there, or
    /// was not copied yet, is not gone here.
    pub id: VaultId,
    /// Its settings; on a bare host made up from the url.
    pub settings: VaultSettings,
    /// Where its bytes lie.
    pub storage: Arc<dyn Storage>,
    /// Who may write what.
    pub trust: TrustDocument,
}

/// What vouches for a vault besides the config.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// The texts of identity files: their comments name the vault's key.
    pub identity_files: Vec<String>,
}

/// Opens a vault of the config. Whom to believe: `flag` (`--trust`), else the config, else an identity file's
/// comments, else what this host pinned when it made the vault.
///
/// # Errors
/// Where there is no vault, nobody vouches for it, or its vault.json is not signed by whom we trust.
pub fn open(host: &Host, settings: &VaultSettings, flag: Option<&str>, trusted: &Trusted) -> Result<OpenVault> {
    let pinned = match (host.home_if_any(), &settings.role) {
        (Some(home), VaultRole::Own) => home.state.pinned_trust(&settings.name)?,
        // Another host may have made the copy: it has the key of the vault that it is one of.
        (Some(home), VaultRole::Copy { of }) => match home.state.pinned_trust(&settings.name)? {
            None => home.state.pinned_trust(of)?,
            pinned => pinned,
        },
        (None, _) => None,
    };
    let pin = match flag.or(settings.trust.as_deref()) {
        Some(key) => {
            let key = key.parse()?;
            // With the key that this host pinned, it must also be the vault that this host pinned: a second one that
            // was signed with the same key is another vault.
            let same = pinned.as_deref().map(read_comments).transpose()?.flatten().filter(|pin| pin.key == key);
            Some(Pin { vault: same.and_then(|pin| pin.vault), key })
        }
        None => from_identities(trusted)?,
    };
    let pin = match (pin, pinned) {
        (Some(pin), _) => pin,
        (None, Some(text)) => read_comments(&text)?.ok_or_else(|| nobody_vouches(&settings.url))?,
        // Without a vault there, that is what a person must hear first.
        (None, None) => {
            let storage = storage(host, settings)?;
            if !host.runtime.block_on(exists(&*storage)).map_err(VaultError::from)? {
                return Err(VaultError::NoVault { place: storage.describe() }.into());
            }
            return Err(nobody_vouches(&settings.url));
        }
    };
    open_with(host, settings.clone(), &pin)
}

/// Opens a vault by its url alone.
///
/// # Errors
/// As [`open`].
pub fn open_bare(host: &Host, url: &VaultUrl, flag: Option<&str>, trusted: &Trusted) -> Result<OpenVault> {
    let settings = VaultSettings {
        name: url.to_string(),
        url: url.clone(),
        recipients: Vec::new(),
        trust: None,
        compression_level: None,
        grace: None,
        s3: S3Settings::default(),
        role: VaultRole::Own,
    };
    open(host, &settings, flag, trusted)
}

/// Opens a vault whose signing key is known.
///
/// # Errors
/// As [`open`].
pub fn open_with(host: &Host, settings: VaultSettings, pin: &Pin) -> Result<OpenVault> {
    let storage = storage(host, &settings)?;
    let trust = host.runtime.block_on(read_trust(&*storage, pin))?;
    let id = place(&settings, &trust.vault);
    must_be_newest(host, &*storage, &id, &trust)?;
    if let Some(home) = host.home_if_any()
        && home.state.pinned_trust(&settings.name)?.is_none()
    {
        home.state.pin_trust(&settings.name, &comment_lines(&trust.vault, &pin.key))?;
    }
    Ok(OpenVault { id, settings, storage, trust })
}

/// As what this host knows the place of a vault with this id.
#[must_use]
pub fn place(settings: &VaultSettings, vault: &VaultId) -> VaultId {
    match settings.role {
        VaultRole::Own => vault.clone(),
        VaultRole::Copy { .. } => {
            let digest = Sha256::new()
                .chain_update("lifeboat copy")
                .chain_update([0])
                .chain_update(vault.as_str())
                .chain_update([0])
                .chain_update(&settings.name)
                .finalize();
            let mut id = [0; 8];
            id.copy_from_slice(&digest[..8]);
            VaultId::from_random(id)
        }
    }
}

/// Reads vault.json, believes it, and remembers its number.
///
/// # Errors
/// As [`read_trust`] and [`must_be_newest`].
pub fn believe(host: &Host, storage: &dyn Storage, pin: &Pin) -> Result<TrustDocument> {
    let trust = host.runtime.block_on(read_trust(storage, pin))?;
    must_be_newest(host, storage, &trust.vault, &trust)?;
    Ok(trust)
}

/// Fails where this host saw a newer vault.json of the vault, or another one with the same number, and remembers this one
/// where it did not: who puts an older one back puts back those who were revoked since, and of two changes made at once one
/// was lost.
///
/// # Errors
/// [`Code::VaultUntrusted`], or where the state folder cannot be used.
pub fn must_be_newest(host: &Host, storage: &dyn Storage, place: &VaultId, trust: &TrustDocument) -> Result<()> {
    let Some(home) = host.home_if_any() else { return Ok(()) };
    let (serial, digest) = (trust.serial, trust.digest());
    let memory = home.state.serial_file(place);
    let refused = |reason, hint: String| {
        Err(Error::from(VaultError::Untrusted { place: storage.describe(), reason }).with_hint(hint))
    };
    match home.state.newest_trust(place)? {
        Some(seen) if serial < seen.serial => refused(
            Distrust::RolledBack { found: serial, seen: seen.serial },
            format!(
                "put the newest vault.json and vault.json.minisig back from a copy of the vault. If number {} is lost for \
                 good, remove {}, look at `lifeboat host list`, and change again what was changed since number {serial}",
                seen.serial,
                memory.display(),
            ),
        ),
        Some(seen) if serial == seen.serial && seen.digest.is_some_and(|known| known != digest) => refused(
            Distrust::Forked { serial },
            format!(
                "what this host saw as number {serial} was changed away: find out what that change was (a revocation?), \
                 remove {}, look at `lifeboat host list` and `lifeboat recipient list`, and make the change again",
                memory.display()
            ),
        ),
        _ => Ok(home.state.saw_trust(place, serial, digest)?),
    }
}

/// The store of a vault; not looked into yet.
///
/// # Errors
/// Where nothing can be there, or the keys to it cannot be had.
pub fn storage(host: &Host, settings: &VaultSettings) -> Result<Arc<dyn Storage>> {
    match &settings.url {
        VaultUrl::Folder(path) => match Local::open(path, Arc::clone(&host.clock)) {
            Ok(local) => Ok(Arc::new(local)),
            // `init` makes no copies, and `copy` makes no folder: what is not there may be a disk that is not mounted.
            Err(error @ StorageError::NoStore { .. }) if settings.role != VaultRole::Own => {
                let path = path.display();
                Err(Error::from(error).with_hint(format!(
                    "see that its disk is mounted; a first copy goes into an empty folder: mkdir -p {path}"
                )))
            }
            Err(error) => Err(error.into()),
        },
        VaultUrl::S3 { bucket, prefix } => bucket_store(host, bucket, prefix, &settings.s3),
    }
}

/// The same for whoever makes a vault: a folder is made where it is missing, a bucket must be there.
///
/// # Errors
/// As [`storage`].
pub fn new_storage(host: &Host, settings: &VaultSettings) -> Result<Arc<dyn Storage>> {
    match &settings.url {
        VaultUrl::Folder(path) => Ok(Arc::new(Local::create(path, Arc::clone(&host.clock))?)),
        VaultUrl::S3 { .. } => storage(host, settings),
    }
}

fn bucket_store(host: &Host, bucket: &str, prefix: &str, settings: &S3Settings) -> Result<Arc<dyn Storage>> {
    let keys = match &settings.keys {
        None => None,
        Some(keys) => Some(s3::Keys {
            access_key: keys.access_key.read()?,
            secret_key: keys.secret_key.read()?,
            session_token: keys.session_token.as_ref().map(Secret::read).transpose()?,
        }),
    };
    let options = s3::Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: settings.region.clone(),
        endpoint: settings.endpoint.clone(),
        path_style: settings.path_style,
        profile: settings.profile.clone(),
        keys,
        ca: settings.ca.clone(),
        parallel_requests: settings.parallel_requests,
        bandwidth_limit_bytes: settings.bandwidth_limit_bytes,
        lock: settings.lock,
    };
    Ok(Arc::new(host.runtime.block_on(S3::open(options, Arc::clone(&host.clock)))?))
}

fn from_identities(trusted: &Trusted) -> Result<Option<Pin>> {
    for text in &trusted.identity_files {
        if let Some(pin) = read_comments(text)? {
            return Ok(Some(pin));
        }
    }
    Ok(None)
}

fn nobody_vouches(url: &VaultUrl) -> Error {
    Error::new(Code::VaultUntrusted, format!("nothing says whose signature the vault in {url} must have"))
        .with_hint("give the identity file that was made with the vault (--identity FILE), or its key (--trust RWQ...)")
}

/// What a vault holds, for a verb that only reads.
#[derive(Debug)]
pub struct Look {
    /// Its manifests.
    pub survey: Survey,
    /// What the catalog could not be told of, in sentences.
    pub untold: Vec<String>,
}

impl OpenVault {
    /// Reads and verifies the manifests of one job, or of all, and tells the catalog, where there is one, of the
    /// backups and records that it does not know: for verbs that go on to write, and go by what the catalog knows. One that
    /// only reads takes a [`OpenVault::look`].
    ///
    /// # Errors
    /// When the store cannot be read, or the catalog not be written. A manifest that is not to be believed is a problem in
    /// the survey; a record that is not, or that the catalog cannot hold, is passed over.
    pub fn survey(&self, host: &Host, job: Option<&JobName>) -> Result<Survey> {
        let survey = host.runtime.block_on(survey::survey(&*self.storage, &self.trust, job))?;
        if let Some(home) = host.home_if_any() {
            catch_up(host, home, self, &survey)?;
        }
        Ok(survey)
    }

    /// Once more, in a verb that surveyed the job a moment ago: only manifests that are new since are read.
    ///
    /// # Errors
    /// As [`OpenVault::survey`].
    pub fn survey_again(&self, host: &Host, job: &JobName, earlier: &[VerifiedManifest]) -> Result<Survey> {
        let again = survey::survey_again(&*self.storage, &self.trust, Some(job), earlier);
        let survey = host.runtime.block_on(again)?;
        if let Some(home) = host.home_if_any() {
            catch_up_with_backups(host, home, self, &survey)?;
        }
        Ok(survey)
    }

    /// The same for verbs that only read: whatever keeps the catalog from being told stands in nobody's way, and is said.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn look(&self, host: &Host, job: Option<&JobName>) -> Result<Look> {
        let survey = host.runtime.block_on(survey::survey(&*self.storage, &self.trust, job))?;
        let untold = match host.home_if_any().map(|home| catch_up(host, home, self, &survey)) {
            None => Vec::new(),
            Some(Ok(untold)) => untold,
            Some(Err(error)) => vec![error.to_string()],
        };
        Ok(Look { survey, untold })
    }

    /// A manifest as the catalog is to remember it: under this place.
    #[must_use]
    pub fn manifest_here(&self, manifest: &Manifest) -> Manifest {
        Manifest { vault: self.id.clone(), ..manifest.clone() }
    }

    /// A record as the catalog is to remember it: under this place.
    #[must_use]
    pub fn record_here(&self, mut record: Record) -> Record {
        record.vault = self.id.clone();
        if let RecordBody::Removal(removal) = &mut record.body
            && let Some(summary) = &mut removal.summary
        {
            summary.vault = self.id.clone();
        }
        record
    }

    /// Whether it is a copy of another vault.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.settings.role != VaultRole::Own
    }

    /// Tells the catalog of one backup, and that this host saw it.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub fn remember_one(&self, host: &Host, manifest: &Manifest, hash: ManifestHash) -> Result<()> {
        let catalog = &host.home()?.catalog;
        host.runtime.block_on(async {
            // In this order: whoever is killed in between has not told it of the backup, and does both again.
            catalog.saw(&self.id, &manifest.job, manifest.sequence).await?;
            catalog.record_backup(&self.manifest_here(manifest), hash).await
        })?;
        Ok(())
    }

    /// Fails where this host's key may not sign the job's manifests now.
    ///
    /// # Errors
    /// [`Code::HostUnauthorised`], or where there is no key.
    pub fn must_let_write(&self, host: &Host, job: &JobName, now: DateTime<Utc>) -> Result<()> {
        self.trust.check_writer(host.key()?.public(), job, now)?;
        Ok(())
    }

    /// This host's name in vault.json.
    ///
    /// # Errors
    /// Where vault.json does not know its key.
    pub fn host_name(&self, host: &Host) -> Result<String> {
        let key = host.key()?.public().id();
        self.trust.host_with(key).map(|entry| entry.name.clone()).map_err(|reason| {
            Error::new(Code::HostUnauthorised, format!("this host cannot write into the vault: {reason}"))
        })
    }

    /// The folder on this machine, where the vault is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.settings.url {
            VaultUrl::Folder(path) => Some(path.clone()),
            VaultUrl::S3 { .. } => None,
        }
    }

    /// What on this machine is the vault, or gives access to it: nobody else's code may read that.
    #[must_use]
    pub fn secrets(&self) -> Vec<PathBuf> {
        let keys = self.settings.s3.keys.iter();
        let keys = keys.flat_map(|keys| [Some(&keys.access_key), Some(&keys.secret_key), keys.session_token.as_ref()]);
        self.folder().into_iter().chain(keys.flatten().filter_map(Secret::path)).collect()
    }

    /// Finds jobs whose newest backup this host saw once and the vault no longer has, and nobody removed: the job, the
    /// highest number there is, and the highest that was seen.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn hidden_newest(&self, host: &Host, survey: &Survey, jobs: &[JobName]) -> Result<Vec<(JobName, u64, u64)>> {
        let Some(home) = host.home_if_any() else { return Ok(Vec::new()) };
        let mut hidden = Vec::new();
        for job in jobs {
            let there =
                survey.manifests.iter().map(|m| &m.manifest).filter(|m| m.job == *job).map(|m| m.sequence).max();
            let there = there.unwrap_or(0);
            let seen = host.runtime.block_on(home.catalog.highest_seen(&self.id, job))?;
            let Some(seen) = seen.filter(|seen| there < *seen) else { continue };
            let removals = host.runtime.block_on(home.catalog.removals(&self.id, Some(job)))?;
            let quarantines = host.runtime.block_on(home.catalog.quarantines(&self.id, Some(job)))?;
            let ranges = removals.iter().flat_map(|row| &row.body.gone);
            let ranges = ranges.chain(quarantines.iter().flat_map(|row| &row.body.gone));
            let missing = SequenceRange { first: there.saturating_add(1), last: seen };
            if !missing.without(&SequenceRange::union(ranges.copied())).is_empty() {
                hidden.push((job.clone(), there, seen));
            }
        }
        Ok(hidden)
    }

    /// The sequence number and hash that the next manifest of a job follows: the highest there is, here or in this
    /// host's memory, so that a hidden newest backup leaves a gap that everybody sees.
    ///
    /// # Errors
    /// When the catalog cannot be read, or there is no higher number.
    pub fn last_of(&self, host: &Host, survey: &Survey, job: &JobName) -> Result<Option<(u64, ManifestHash)>> {
        let there = survey
            .manifests
            .iter()
            .filter(|m| m.manifest.job == *job)
            .map(|m| (m.manifest.sequence, m.hash))
            .max_by_key(|(sequence, _)| *sequence);
        if there.is_some_and(|(sequence, _)| sequence >= MAX_NUMBER) {
            let what = format!("job {job} has a backup with the highest number there is: none can follow it");
            return Err(Error::new(Code::ManifestUntrusted, what).with_hint(
                "no lifeboat gave it that number: `lifeboat list` shows its host, and `lifeboat host revoke HOST --last \
                 JOB=SEQ` ends the belief in it; a job of another name backs the same data up",
            ));
        }
        let Some(home) = host.home_if_any() else { return Ok(there) };
        let rows = host.runtime.block_on(home.catalog.backups(&self.id, Some(job)))?;
        let remembered = rows.iter().map(|row| (row.sequence, row.manifest_hash)).max_by_key(|(sequence, _)| *sequence);
        let known = there.into_iter().chain(remembered).max_by_key(|(sequence, _)| *sequence);
        // What was seen outlives a rebuild of the catalog. Its hash may be forgotten; then the chain shows a break, as
        // it should: something is gone.
        let seen = host.runtime.block_on(home.catalog.highest_seen(&self.id, job))?;
        Ok(match (known, seen) {
            (Some((sequence, hash)), Some(seen)) if seen > sequence => Some((seen, hash)),
            (None, Some(seen)) => Some((seen, ManifestHash([0; 32]))),
            (known, _) => known,
        })
    }
}

/// The manifests of a survey, oldest first.
#[must_use]
pub fn manifests(survey: Survey) -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = survey.manifests.into_iter().map(|verified| verified.manifest).collect();
    manifests.sort_by(|a, b| (a.recovery_point, &a.job, a.sequence).cmp(&(b.recovery_point, &b.job, b.sequence)));
    manifests
}

impl std::fmt::Debug for OpenVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenVault").field("id", &self.id).field("storage", &self.storage).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::operations::interrupt::Interrupt;
    use crate::storage::memory::Memory;
    use crate::vault::keys::SigningKey;
    use crate::vault::trust::{HostEntry, JobPattern};

    #[test]
    fn neither_an_older_vault_json_nor_another_with_the_same_number_is_taken() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<SystemClock> = Arc::default();
        let host = Host::bare(runtime.handle().clone(), Arc::<SystemClock>::clone(&clock), Interrupt::default());
        let host = host.with_home(folder.path()).unwrap();
        let store = Memory::new(clock);
        let made = "2026-11-22T02:00:00Z".parse().unwrap();
        let document = |serial, name: &str| {
            let host = HostEntry {
                name: name.to_owned(),
                key: SigningKey::generate().public().clone(),
                jobs: vec![JobPattern::Any],
                from: made,
                until: None,
                revoked: None,
            };
            TrustDocument { serial, ..TrustDocument::first(VaultId::from_random([1; 8]), made, vec![host]) }
        };
        let (old, one, two) = (document(1, "web-1"), document(2, "web-1"), document(2, "web-2"));
        for trust in [&old, &one, &one] {
            must_be_newest(&host, &store, &trust.vault, trust).unwrap();
        }
        for (trust, says) in [(&old, "it has number 1, and this host saw number 2"), (&two, "the same number 2")] {
            let error = must_be_newest(&host, &store, &trust.vault, trust).unwrap_err();
            assert_eq!(error.code(), Code::VaultUntrusted);
            assert!(error.to_string().contains(says), "{error}");
        }
        must_be_newest(&host, &store, &VaultId::from_random([1; 8]), &document(3, "web-1")).unwrap();
    }
}
