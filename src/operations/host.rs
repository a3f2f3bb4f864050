//! The machine a verb runs on: its clocks, its threads, and, where there is a config, its state folder and catalog.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::catalog::{Catalog, Verdict, verdict};
use crate::clock::Clock;
use crate::domain::ids::{BackupId, JobName, VaultId};
use crate::error::{Code, Error, Result};
use crate::vault::keys::SigningKey;

use super::interrupt::Interrupt;
use super::state::StateDir;

/// The machine a verb runs on.
pub struct Host {
    /// Where asynchronous calls run; verbs themselves block.
    pub runtime: Handle,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Threads that read, seal, open and hash.
    pub workers: usize,
    /// Raised by a signal.
    pub interrupt: Interrupt,
    /// Absent on a bare host, which has nothing but a vault and an identity.
    home: Option<Home>,
}

/// What a host with a config has of its own.
pub struct Home {
    /// Keys, locks, memories.
    pub state: StateDir,
    /// The operational memory.
    pub catalog: Catalog,
}

impl Host {
    /// A host without a config.
    #[must_use]
    pub fn bare(runtime: Handle, clock: Arc<dyn Clock>, interrupt: Interrupt) -> Self {
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { runtime, clock, workers, interrupt, home: None }
    }

    /// Gives the host its state folder; folder and catalog are made if they are missing.
    ///
    /// # Errors
    /// When either cannot be used.
    pub fn with_home(mut self, state_dir: &Path) -> Result<Self> {
        let state = StateDir::open(state_dir)?;
        let catalog = self.runtime.block_on(Catalog::open(&state.catalog()))?;
        self.home = Some(Home { state, catalog });
        Ok(self)
    }

    /// State folder and catalog.
    ///
    /// # Errors
    /// On a bare host.
    pub fn home(&self) -> Result<&Home> {
        self.home.as_ref().ok_or_else(|| {
            Error::new(
                Code::ConfigMissing,
                "this needs a config: its state folder holds the host's key and the catalog",
            )
            .with_hint("`lifeboat init` makes one; or name it with --config FILE")
        })
    }

    /// State folder and catalog, if this is no bare host.
    #[must_use]
    pub fn home_if_any(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// The key that signs this host's manifests and records.
    ///
    /// # Errors
    /// When there is none.
    pub fn key(&self) -> Result<SigningKey> {
        let path = self.home()?.state.host_key();
        if !path.exists() {
            return Err(Error::new(
                Code::KeyMissing,
                format!("this host has no key: {} does not exist", path.display()),
            )
            .with_hint("`lifeboat init` makes it"));
        }
        Ok(SigningKey::read(&path)?)
    }

    /// Backups that a drill, a check or a later backup found bad, as this host's catalog knows.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn refuted(&self, vault: &VaultId, job: Option<&JobName>) -> Result<HashSet<BackupId>> {
        let Some(home) = &self.home else { return Ok(HashSet::new()) };
        let drills = self.runtime.block_on(home.catalog.drills(vault, job))?;
        let refutations = self.runtime.block_on(home.catalog.refutations(vault, job))?;
        let drilled = drills.iter().filter_map(|row| row.drill.backup.clone());
        let spoken_of: HashSet<BackupId> =
            drilled.chain(refutations.iter().flat_map(|row| row.body.backups.clone())).collect();
        let is_refuted = |backup: &BackupId| verdict(backup, &drills, &refutations) == Verdict::Refuted;
        Ok(spoken_of.into_iter().filter(is_refuted).collect())
    }

    /// Fails once a signal asked the verb to end.
    ///
    /// # Errors
    /// [`Code::Interrupted`].
    pub fn check_interrupted(&self) -> Result<()> {
        self.interrupt.check()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("workers", &self.workers).finish_non_exhaustive()
    }
}
