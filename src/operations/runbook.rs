//! What a runbook of a job is made of: its config, and what this host knows of its vault, its backups and its drills. The
//! vault is asked where it answers; where it does not, the catalog is all there is, and the facts say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::catalog::{BackupRow, DrillRow};
use crate::config::{JobSettings, Settings, VaultRole, VaultSettings};
use crate::domain::ids::VaultId;
use crate::domain::manifest::Completeness;
use crate::domain::record::DrillOutcome;
use crate::error::Result;
use crate::vault::identity::read_comments;

use super::holders::proven;
use super::host::Host;
use super::vaults::OpenVault;

/// Everything that a runbook says of a job.
#[derive(Debug, Clone)]
pub struct RunbookFacts {
    /// The config; absolute.
    pub config: PathBuf,
    /// The host's own folder.
    pub state_dir: PathBuf,
    /// The zone of the schedules.
    pub timezone: Tz,
    /// The job, as the config has it.
    pub job: JobSettings,
    /// Job and vault as they can be read by programs, without secrets.
    pub as_json: serde_json::Value,
    /// Its vault, as the config has it.
    pub vault: VaultSettings,
    /// The second vault, where the job has one.
    pub copy: Option<VaultSettings>,
    /// The vault's id, where this host ever opened it.
    pub vault_id: Option<VaultId>,
    /// The vault's public signing key, as the config says it or this host pinned it.
    pub trust: Option<String>,
    /// What this host is called in vault.json, where that could be read and names it.
    pub host_name: Option<String>,
    /// Whom backups are sealed to, in the config's order.
    pub holders: Vec<Holder>,
    /// The newest complete backup that is there.
    pub newest: Option<BackupRow>,
    /// The plain bytes of the largest backup that is there: the room that a restore may need.
    pub largest_bytes: Option<u64>,
    /// The last drill.
    pub last_drill: Option<DrillRow>,
    /// The last drill that passed.
    pub last_passed: Option<DrillRow>,
    /// Why the vault could not be asked; `None` where it was.
    pub silent: Option<String>,
}

/// Somebody to whom backups are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The public key.
    pub recipient: String,
    /// When a drill last opened a backup with its identity.
    pub proven: Option<DateTime<Utc>>,
}

/// Gathers them. `vault` is the job's own, or why it cannot be opened; `None` for a job whose vault the config does not have.
///
/// # Errors
/// When state folder or catalog cannot be read.
pub fn runbook_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    vault: &Result<OpenVault>,
) -> Result<Option<RunbookFacts>> {
    let Some(of_job) = settings.vault_of(job) else { return Ok(None) };
    // A look tells the catalog what other hosts did since; a vault that is there and cannot be read is silent too.
    let (opened, silent) = match vault {
        Err(error) => (None, Some(error.to_string())),
        Ok(vault) => (Some(vault), vault.look(host, Some(&job.name)).err().map(|error| error.to_string())),
    };
    let home = host.home()?;
    let pinned = home.state.pinned_trust(&of_job.name)?.as_deref().map(read_comments).transpose()?.flatten();
    let vault_id = opened.map(|vault| vault.id.clone()).or_else(|| pinned.as_ref().and_then(|pin| pin.vault.clone()));
    let trust = of_job.trust.clone().or_else(|| pinned.map(|pin| pin.key.to_string()));
    let (mut backups, mut drills, mut held) = (Vec::new(), Vec::new(), BTreeMap::new());
    if let Some(id) = &vault_id {
        backups = host.runtime.block_on(home.catalog.backups(id, Some(&job.name)))?;
        drills = host.runtime.block_on(home.catalog.drills(id, Some(&job.name)))?;
        held = proven(host, id)?;
    }
    backups.retain(|row| row.retained_until.is_none() && row.completeness == Completeness::Complete);
    drills.sort_by_key(|row| row.drill.finished);
    let holder = |recipient: &String| Holder { recipient: recipient.clone(), proven: held.get(recipient).copied() };
    Ok(Some(RunbookFacts {
        config: settings.file.clone(),
        state_dir: settings.state_dir.clone(),
        timezone: settings.timezone,
        job: job.clone(),
        as_json: settings.without_secrets(&job.name),
        vault: of_job.clone(),
        copy: job.copy.as_ref().and_then(|copy| settings.vaults.get(&copy.to)).cloned(),
        vault_id,
        trust,
        host_name: opened.and_then(|vault| vault.host_name(host).ok()),
        holders: of_job.recipients.iter().map(holder).collect(),
        largest_bytes: backups.iter().map(|row| row.total(|source| source.logical_bytes)).max(),
        newest: backups.into_iter().max_by_key(|row| row.sequence),
        last_passed: drills.iter().rfind(|row| row.drill.outcome == DrillOutcome::Passed).cloned(),
        last_drill: drills.pop(),
        silent,
    }))
}

impl RunbookFacts {
    /// The vaults that its backups lie in, its own first.
    pub fn vaults(&self) -> impl Iterator<Item = &VaultSettings> {
        std::iter::once(&self.vault).chain(&self.copy)
    }

    /// Whether a vault is the second one.
    #[must_use]
    pub fn is_copy(vault: &VaultSettings) -> bool {
        matches!(vault.role, VaultRole::Copy { .. })
    }
}
