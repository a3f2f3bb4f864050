//! What a runbook of a job is made of: its config, and what this host knows of its vault, its backups and its drills. The
//! vault is asked where it answers, and not for long; where it does not, the catalog is all there is, and the facts say so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::catalog::{BackupRow, DrillRow};
use crate::clock::Clock;
use crate::config::{JobSettings, Settings, VaultRole, VaultSettings};
use crate::domain::ids::{JobName, VaultId};
use crate::domain::manifest::Completeness;
use crate::domain::record::DrillOutcome;
use crate::error::{Code, Error, Result};
use crate::vault::identity::read_comments;

use super::holders::proven;
use super::host::Host;
use super::interrupt::Interrupt;
use super::vaults::{self, Trusted};

/// So long the vaults are waited for: whoever prints a runbook may be in a hurry, and most of it stands here.
pub const LOOK_WITHIN: Duration = Duration::from_secs(10);

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

/// What a vault was asked for; what it holds stands in the catalog then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its id.
    pub id: VaultId,
    /// What this host is called in vault.json, where it is named there.
    pub host_name: Option<String>,
}

/// Asks the vaults of these jobs, all at once, and tells the catalog what they hold of them; by the vault's name. One that has
/// not answered within `within` counts as silent: what it still says is nobody's to hear. `flag` is `--trust`.
#[must_use]
pub fn ask(
    host: &Host,
    settings: &Settings,
    jobs: &[&JobSettings],
    (flag, trusted): (Option<&str>, &Trusted),
    within: Duration,
) -> BTreeMap<String, Result<Answer>> {
    let mut of_vault: BTreeMap<&str, Vec<JobName>> = BTreeMap::new();
    for job in jobs {
        of_vault.entry(&job.vault).or_default().push(job.name.clone());
    }
    let asked: Vec<_> = of_vault
        .into_iter()
        .filter_map(|(name, jobs)| {
            let errand = Errand {
                vault: settings.vaults.get(name)?.clone(),
                jobs,
                state_dir: settings.state_dir.clone(),
                flag: flag.map(str::to_owned),
                trusted: trusted.clone(),
                clock: Arc::clone(&host.clock),
            };
            Some((name.to_owned(), errand.begin()))
        })
        .collect();
    let until = host.clock.monotonic() + within;
    let wait = |answer: Receiver<Result<Answer>>| {
        let left = until.saturating_sub(host.clock.monotonic());
        answer.recv_timeout(left).unwrap_or_else(|_| Err(late(within)))
    };
    asked.into_iter().map(|(name, begun)| (name, begun.and_then(wait))).collect()
}

fn late(within: Duration) -> Error {
    Error::new(Code::StorageFailed, format!("nothing came within {} s", within.as_secs()))
}

/// What one vault is asked, by a thread that nobody waits for longer than they want.
struct Errand {
    vault: VaultSettings,
    jobs: Vec<JobName>,
    state_dir: PathBuf,
    flag: Option<String>,
    trusted: Trusted,
    clock: Arc<dyn Clock>,
}

impl Errand {
    fn begin(self) -> Result<Receiver<Result<Answer>>> {
        let failed = |cause| Error::new(Code::Internal, format!("no thread to be had: {cause}"));
        let (sender, answer) = sync_channel(1);
        // Whoever asked may not wait for it any more.
        let run = move || drop(sender.send(self.run()));
        thread::Builder::new().name("ask".to_owned()).spawn(run).map_err(failed)?;
        Ok(answer)
    }

    /// With threads of its own for its requests: those of the process may end before it does.
    fn run(&self) -> Result<Answer> {
        let failed = |cause| Error::new(Code::Internal, format!("no threads to be had: {cause}"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
        let host = Host::bare(runtime.handle().clone(), Arc::clone(&self.clock), Interrupt::default())
            .with_home(&self.state_dir)?;
        let vault = vaults::open(&host, &self.vault, self.flag.as_deref(), &self.trusted)?;
        for job in &self.jobs {
            // Tells the catalog what other hosts did since. A vault that is there and cannot be read is silent too.
            vault.look(&host, Some(job))?;
        }
        Ok(Answer { id: vault.id.clone(), host_name: vault.host_name(&host).ok() })
    }
}

/// Gathers them. `answer` is that of the job's own vault; `None` for a job whose vault the config does not have.
///
/// # Errors
/// When state folder or catalog cannot be read.
pub fn runbook_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    answer: &Result<Answer>,
) -> Result<Option<RunbookFacts>> {
    let Some(of_job) = settings.vault_of(job) else { return Ok(None) };
    let said = answer.as_ref().ok();
    let silent = answer.as_ref().err().map(ToString::to_string);
    let home = host.home()?;
    let pinned = home.state.pinned_trust(&of_job.name)?.as_deref().map(read_comments).transpose()?.flatten();
    let vault_id = said.map(|said| said.id.clone()).or_else(|| pinned.as_ref().and_then(|pin| pin.vault.clone()));
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
        host_name: said.and_then(|said| said.host_name.clone()),
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
