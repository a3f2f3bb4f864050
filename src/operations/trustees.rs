//! Those whom a vault trusts, over time: the hosts that may write into it, and the recipients that it is sealed to.
//!
//! Every change of vault.json is signed with the vault's offline key, which is at hand for the moment only. The config's
//! `recipients` are what is sealed to; vault.json's approved set is what readers hold a backup's recipients against.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::{Settings, VaultSettings, edit};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::Manifest;
use crate::error::{Code, Error, Result};
use crate::seal::Sealer;
use crate::vault::VaultError;
use crate::vault::identity::Pin;
use crate::vault::keys::{PublicKey, SigningKey};
use crate::vault::survey::Survey;
use crate::vault::trust::change::ChangeError;
use crate::vault::trust::{HostEntry, JobPattern, LastBelieved, TrustDocument, read_trust, write_trust};

use super::host::Host;
use super::vaults::{OpenVault, manifests, must_be_newest};

/// The lock on changes of vault.json, among those of jobs.
const TRUST_LOCK: &str = "vault";

/// What a backup looks like from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastManifest {
    /// Its sequence number.
    pub sequence: u64,
    /// Its id.
    pub backup: BackupId,
    /// When it was committed.
    pub committed: DateTime<Utc>,
}

/// A host of a vault, and the newest believed manifest of each job that it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    /// As vault.json has it.
    pub entry: HostEntry,
    /// By job.
    pub last: BTreeMap<JobName, LastManifest>,
    /// Whether it is the host that asks.
    pub is_this_host: bool,
}

/// The hosts of a vault.
///
/// # Errors
/// When the vault cannot be read.
pub fn hosts(host: &Host, vault: &OpenVault) -> Result<Vec<HostState>> {
    let all = manifests(vault.survey(host, None)?);
    // A host that has no key of its own may look all the same.
    let own = host.home_if_any().and_then(|_| host.key().ok()).map(|key| key.public().clone());
    let state = |entry: &HostEntry| HostState {
        last: last_of(&all, &entry.name),
        is_this_host: own.as_ref() == Some(&entry.key),
        entry: entry.clone(),
    };
    Ok(vault.trust.hosts.iter().map(state).collect())
}

fn last_of(all: &[Manifest], host: &str) -> BTreeMap<JobName, LastManifest> {
    let mut last: BTreeMap<JobName, LastManifest> = BTreeMap::new();
    for manifest in all.iter().filter(|manifest| manifest.host == host) {
        let (sequence, committed) = (manifest.sequence, manifest.committed);
        if last.get(&manifest.job).is_none_or(|known| known.sequence < sequence) {
            last.insert(manifest.job.clone(), LastManifest { sequence, backup: manifest.id.clone(), committed });
        }
    }
    last
}

/// Lets a host write these jobs, from now on. Gives the new vault.json, or `None` where the present one says so already.
///
/// # Errors
/// With another key than the vault's, or where name or key are taken.
pub fn add_host(
    host: &Host,
    vault: &OpenVault,
    key_file: &Path,
    name: &str,
    key: &PublicKey,
    jobs: &[JobPattern],
) -> Result<Option<TrustDocument>> {
    // The new host's clock may be behind this one by as much.
    let from = host.clock.now() - CLOCK_TOLERANCE;
    change(host, vault, Some(key_file), |trust| Ok(trust.with_host(name, key, jobs, from)?), || Ok(()))
}

/// What a revocation left.
#[derive(Debug)]
pub struct Revoked {
    /// The new vault.json.
    pub trust: TrustDocument,
    /// The last manifest of each job that is still believed.
    pub believed: BTreeMap<JobName, u64>,
    /// Backups that were believed until now.
    pub disowned: Vec<Manifest>,
}

/// Ends the belief in a host's key. Its backups up to the newest one there is stay believed, or up to the newest one from
/// before `at`, or up to the number in `last`, where 0 is none. Of its records those from before `at` do, or from before now.
///
/// # Errors
/// With another key than the vault's, where there is no such host, `last` names what it did not write, or `at` is yet to come.
pub fn revoke_host(
    host: &Host,
    vault: &OpenVault,
    key_file: &Path,
    name: &str,
    last: &BTreeMap<JobName, u64>,
    at: Option<DateTime<Utc>>,
) -> Result<Revoked> {
    let survey = vault.survey(host, None)?;
    // The store's time, which is what its records are held against.
    let now = host.runtime.block_on(vault.storage.now()).map_err(VaultError::from)?;
    if let Some(at) = at.filter(|at| *at > now) {
        let what =
            format!("{} is yet to come: until then its key would be believed", at.format("%Y-%m-%d %H:%M:%S UTC"));
        return Err(Error::new(Code::Usage, what).with_hint("without --at it is revoked from now on"));
    }
    let newest = |job: &JobName, limit: u64| newest_of(&survey, name, job, limit, at);
    let all: Vec<Manifest> = survey.manifests.iter().map(|verified| verified.manifest.clone()).collect();
    let there = last_of(&all, name);
    let entry = vault.trust.hosts.iter().find(|entry| entry.name == name);
    // What is wrong with the host's name is the better answer than what is wrong with its jobs.
    for (job, asked) in last.iter().filter(|_| entry.is_some()) {
        let newest = there.get(job).map_or(0, |last| last.sequence);
        if *asked > newest {
            let what = match newest {
                0 => format!("host {name} has no backup of job {job} in this vault"),
                _ => format!("the newest backup of {job} by host {name} is number {newest}, not {asked}"),
            };
            return Err(Error::new(Code::NotFound, what).with_hint("`lifeboat host list` shows the newest of each job"));
        }
    }
    let before = entry.and_then(|entry| entry.revoked.as_ref());
    let mut stays: BTreeMap<JobName, LastBelieved> = BTreeMap::new();
    for (job, asked) in last {
        stays.extend(newest(job, *asked).map(|newest| (job.clone(), newest)));
    }
    let not_named = |job: &&JobName| !last.contains_key(*job);
    match before {
        Some(before) => {
            for job in before.last_manifests.keys().filter(not_named) {
                let known = before.last_manifests[job];
                // Without an earlier moment there is nothing new to say of it, even where it is gone by now.
                let newest = if at.is_some() { newest(job, known.sequence) } else { Some(known) };
                stays.extend(newest.map(|newest| (job.clone(), newest)));
            }
        }
        None => {
            for job in there.keys().filter(not_named) {
                stays.extend(newest(job, u64::MAX).map(|newest| (job.clone(), newest)));
            }
        }
    }
    let at = at.or(before.map(|before| before.at)).unwrap_or(now);
    let next = |trust: &TrustDocument| Ok(Some(trust.without_host(name, at, stays.clone())?));
    let trust = change(host, vault, Some(key_file), next, || Ok(()))?
        .ok_or_else(|| Error::new(Code::Internal, "a revocation changed nothing"))?;
    let believed: BTreeMap<JobName, u64> = stays.iter().map(|(job, last)| (job.clone(), last.sequence)).collect();
    let gone = |manifest: &Manifest| {
        manifest.host == name && believed.get(&manifest.job).is_none_or(|last| manifest.sequence > *last)
    };
    let disowned = all.into_iter().filter(gone).collect();
    Ok(Revoked { trust, believed, disowned })
}

/// The newest manifest of a job that a host signed, up to a number and from before a moment.
fn newest_of(
    survey: &Survey,
    host: &str,
    job: &JobName,
    limit: u64,
    before: Option<DateTime<Utc>>,
) -> Option<LastBelieved> {
    let its = survey.manifests.iter().filter(|verified| {
        let manifest = &verified.manifest;
        manifest.host == host
            && manifest.job == *job
            && manifest.sequence <= limit
            && before.is_none_or(|before| manifest.committed < before)
    });
    let newest = its.max_by_key(|verified| verified.manifest.sequence)?;
    Some(LastBelieved { sequence: newest.manifest.sequence, hash: newest.hash })
}

/// What became of a recipient.
#[derive(Debug)]
pub struct RecipientChange {
    /// Whom the next backup is sealed to.
    pub recipients: Vec<String>,
    /// Whether the config was changed.
    pub config_changed: bool,
    /// The new vault.json, where it had to change.
    pub trust: Option<TrustDocument>,
}

/// Seals to one more from the next backup on: approves it in vault.json, where that does not, and puts it into the
/// config. The vault's key is needed for the former only.
///
/// # Errors
/// Where it is no recipient, with another key than the vault's, or where the config cannot be changed.
pub fn add_recipient(
    host: &Host,
    vault: &OpenVault,
    settings: &Settings,
    key_file: Option<&Path>,
    recipient: &str,
) -> Result<RecipientChange> {
    must_be_recipient(recipient)?;
    let in_use = &vault.settings.recipients;
    let mut recipients = in_use.clone();
    if !recipients.iter().any(|known| known == recipient) {
        recipients.push(recipient.to_owned());
    }
    let next = |trust: &TrustDocument| Ok(trust.with_recipient(in_use, recipient)?);
    change_recipients(host, vault, settings, key_file, recipients, next)
}

/// Seals to one less from the next backup on, and approves nothing that is sealed to it after now. The vault's key is
/// needed where vault.json still approves it.
///
/// # Errors
/// Where nobody knows it, it is the last one, with another key than the vault's, or where the config cannot be changed.
pub fn remove_recipient(
    host: &Host,
    vault: &OpenVault,
    settings: &Settings,
    key_file: Option<&Path>,
    recipient: &str,
) -> Result<RecipientChange> {
    let in_use = &vault.settings.recipients;
    let approved = vault.trust.recipients.iter().flatten().any(|entry| entry.key == recipient);
    if !approved
        && !in_use.iter().any(|known| known == recipient)
        && sealed_to(host, vault, settings, recipient)?.backups == 0
    {
        return Err(Error::new(Code::NotFound, format!("{recipient:?} is no recipient of this vault, and was none"))
            .with_hint("`lifeboat recipient list` shows them"));
    }
    let recipients: Vec<String> = in_use.iter().filter(|known| *known != recipient).cloned().collect();
    if recipients.is_empty() {
        return Err(ChangeError::LastRecipient { key: recipient.to_owned() }.into());
    }
    let at = host.clock.now();
    let next = |trust: &TrustDocument| Ok(trust.without_recipient(in_use, recipient, at)?);
    change_recipients(host, vault, settings, key_file, recipients, next)
}

fn change_recipients(
    host: &Host,
    vault: &OpenVault,
    settings: &Settings,
    key_file: Option<&Path>,
    recipients: Vec<String>,
    next: impl Fn(&TrustDocument) -> Result<Option<TrustDocument>>,
) -> Result<RecipientChange> {
    let config_changed = recipients != vault.settings.recipients;
    // The config first: where it cannot be written nothing has changed at all, and whoever is killed in between has a
    // config that vault.json does not approve yet, which `check` says; the same command again ends it.
    let before = || -> Result<()> {
        if config_changed {
            edit::set_recipients(settings, &vault.settings.name, &recipients)?;
        }
        Ok(())
    };
    let trust = if next(&vault.trust)?.is_some() {
        change(host, vault, key_file, next, before)?
    } else {
        before()?;
        None
    };
    Ok(RecipientChange { recipients, config_changed, trust })
}

/// Backups that a recipient can open.
#[derive(Debug, Default)]
pub struct SealedTo {
    /// How many.
    pub backups: usize,
    /// The last of them that must be gone, and when, as far as the config knows their jobs.
    pub last_deadline: Option<(BackupId, JobName, DateTime<Utc>)>,
    /// Jobs of such backups that this config does not know: nobody here can say when they expire.
    pub unknown_jobs: BTreeSet<JobName>,
}

/// Looks for the backups that a recipient can open.
///
/// # Errors
/// When the vault cannot be read.
pub fn sealed_to(host: &Host, vault: &OpenVault, settings: &Settings, recipient: &str) -> Result<SealedTo> {
    let mut found = SealedTo::default();
    for manifest in manifests(vault.survey(host, None)?) {
        if !manifest.recipients.iter().any(|known| known == recipient) {
            continue;
        }
        found.backups += 1;
        let Some(job) = settings.jobs.get(&manifest.job) else {
            found.unknown_jobs.insert(manifest.job);
            continue;
        };
        let deadline = manifest.recovery_point + job.retention.delete_after;
        if found.last_deadline.as_ref().is_none_or(|(.., last)| *last < deadline) {
            found.last_deadline = Some((manifest.id, manifest.job, deadline));
        }
    }
    Ok(found)
}

/// A recipient, as config and vault.json see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecipientState {
    /// The public key.
    pub recipient: String,
    /// Whether the next backup of this host is sealed to it.
    pub in_config: bool,
    /// Whether vault.json approves it now; `None` where vault.json names no recipients.
    pub approved: Option<bool>,
    /// Until when it was approved, where that has ended.
    pub until: Option<DateTime<Utc>>,
}

/// The recipients of the config, then those that only vault.json names.
#[must_use]
pub fn recipients(vault: &TrustDocument, settings: &VaultSettings) -> Vec<RecipientState> {
    let entries = || vault.recipients.iter().flatten();
    let only_there = entries().map(|entry| &entry.key).filter(|key| !settings.recipients.contains(key));
    let state = |recipient: &String| {
        let entry = entries().find(|entry| entry.key == *recipient);
        RecipientState {
            recipient: recipient.clone(),
            in_config: settings.recipients.contains(recipient),
            approved: vault.recipients.as_ref().map(|_| entry.is_some_and(|entry| entry.until.is_none())),
            until: entry.and_then(|entry| entry.until),
        }
    };
    settings.recipients.iter().chain(only_there).map(state).collect()
}

fn must_be_recipient(text: &str) -> Result<()> {
    // Any level: nothing is sealed here.
    Sealer::new(&[text.to_owned()], 1).map(drop).map_err(|_| {
        // Not shown: it may be the secret half.
        Error::new(Code::Usage, "that is not an age public key").with_hint(
            "a whole one begins with age1 and has 62 letters: `lifeboat key show FILE` prints that of an identity",
        )
    })
}

/// Makes the next vault.json of the present one, which must be signed by the key at hand, and writes it. `before` is done
/// when nothing else can be wrong any more; where it fails, nothing is written.
fn change(
    host: &Host,
    vault: &OpenVault,
    key_file: Option<&Path>,
    next: impl Fn(&TrustDocument) -> Result<Option<TrustDocument>>,
    before: impl Fn() -> Result<()>,
) -> Result<Option<TrustDocument>> {
    if vault.is_copy() {
        let message = format!("{} is a copy: its vault.json is that of the vault it is one of", vault.settings.name);
        return Err(Error::new(Code::Usage, message)
            .with_hint("change it there (--vault NAME); the next `lifeboat copy` brings the change here"));
    }
    let Some(key_file) = key_file else {
        return Err(Error::new(
            Code::KeyMissing,
            "vault.json has to change for that, which only the vault's offline key can",
        )
        .with_hint("add --vault-key FILE; `lifeboat init` wrote the file when the vault was made"));
    };
    let _lock = match host.home_if_any() {
        Some(home) => {
            let name = TRUST_LOCK.parse().map_err(|_| Error::new(Code::Internal, "the lock's name is not one"))?;
            Some(home.state.lock(&name, "change", host.clock.now())?)
        }
        None => None,
    };
    let key = SigningKey::read(key_file)?;
    // Read once more, under the lock and under this key: it was opened under the pinned one, so they are the same or this
    // is refused.
    let pin = Pin { key: key.public().clone(), vault: Some(vault.trust.vault.clone()) };
    let present = host.runtime.block_on(read_trust(&*vault.storage, &pin)).map_err(|error| match error {
        VaultError::Untrusted { .. } => Error::new(
            Code::KeyMissing,
            format!("the key in {} is not the one that signs this vault's vault.json", key_file.display()),
        )
        .with_hint("name the file that `lifeboat init` wrote when this vault was made; its public half is `trust`"),
        error => error.into(),
    })?;
    must_be_newest(host, &*vault.storage, &vault.id, &present)?;
    let Some(next) = next(&present)? else { return Ok(None) };
    before()?;
    host.runtime.block_on(write_trust(&*vault.storage, &key, &next))?;
    if let Some(home) = host.home_if_any() {
        home.state.saw_trust(&next.vault, next.serial, next.digest())?;
    }
    Ok(Some(next))
}
