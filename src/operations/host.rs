//! The machine a verb runs on: its clocks, its threads, and, where there is a config, its state folder and catalog.

use std::collections::HashSet;
use std::sync::Arc;

use minisign::KeyPair;
use tokio::runtime::Handle;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::domain::ids::{BackupId, JobName, ManifestHash, VaultId};
use crate::domain::manifest::Manifest;
use crate::error::{Code, Error, Result};

use super::state::StateDir;

/// The machine a verb runs on.
pub struct Host {
    /// Where asynchronous calls run; verbs themselves block.
    pub runtime: Handle,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Threads that read, seal, open and hash.
    pub workers: usize,
    /// Absent on a bare host, which has nothing but a vault and an identity.
    pub home: Option<Home>,
}
