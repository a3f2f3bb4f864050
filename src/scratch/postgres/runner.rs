//! What runs the programs of a server: the confinement on this machine, or a container.

use std::path::PathBuf;
use std::sync::Arc;

use super::ServerOptions;
use super::container::Container;
use super::place::Place;
use crate::process::{Output, Tool, ToolError};
use crate::scratch::confine::{Confinement, NAMED_UID, Resident};

/// Runs programs. A clone runs them in the same way.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    confinement: Confinement,
    inside: Option<Inside>,
}

/// A container's part of it.
#[derive(Debug, Clone)]
struct Inside {
    container: Arc<Container>,
    folders: Vec<PathBuf>,
    dir: PathBuf,
}

impl Runner {
    pub(super) fn of(options: &ServerOptions<'_>, place: &Place) -> Self {
        let inside = options.container.map(|container| Inside {
            container: Arc::clone(container),
            folders: place.folders(),
            dir: place.data().to_owned(),
        });
        Self { confinement: options.confinement.clone(), inside }
    }

    /// The uid of what it runs.
    pub(super) fn uid(&self) -> u32 {
        match (&self.inside, self.confinement.owner()) {
            (Some(inside), _) => inside.container.uid(),
            (None, Some((uid, _))) => uid,
            (None, None) => rustix::process::geteuid().as_raw(),
        }
    }

    /// Runs a tool to its end, with everything that it started.
    pub(super) async fn run(&self, tool: Tool) -> Result<Output, ToolError> {
        match &self.inside {
            Some(inside) => inside.run(tool, inside.container.uid()).await,
            None => self.confinement.run(tool).await,
        }
    }

    /// Runs a tool of ours as a user that has a name.
    pub(super) async fn run_named(&self, tool: Tool) -> Result<Output, ToolError> {
        match &self.inside {
            Some(inside) => inside.run(tool, NAMED_UID).await,
            None => self.confinement.run_named(tool).await,
        }
    }

    /// Says that something stays here beside other tools.
    pub(super) fn resident(&self) -> Resident {
        self.confinement.resident()
    }
}

impl Inside {
    async fn run(&self, tool: Tool, uid: u32) -> Result<Output, ToolError> {
        self.container.run(tool, uid, &self.folders, &self.dir).await
    }
}
