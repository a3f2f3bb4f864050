//! The throw-away server. To be replaced at the merge.

use std::path::Path;

use super::confine::Confinement;
use crate::domain::server::ServerAddress;
use crate::error::{Code, Diagnostic};
use crate::sources::postgres::binaries::Tools;

/// Whether a crash may cost the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It may: the drill would fail.
    Off,
    /// It must not.
    AsInProduction,
}

/// How to make it.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions<'a> {
    /// initdb and postgres.
    pub tools: &'a Tools,
    /// A folder of its own.
    pub dir: &'a Path,
    /// Under which rights.
    pub confinement: &'a Confinement,
    /// fsync and the like.
    pub durability: Durability,
    /// The cluster's encoding.
    pub encoding: &'a str,
    /// `lc_collate`.
    pub collate: &'a str,
    /// `lc_ctype`.
    pub ctype: &'a str,
    /// Connections.
    pub max_connections: u32,
    /// Memory that it may plan with.
    pub memory_bytes: u64,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Not joined yet.
    #[error("not joined yet")]
    NotYet,
}

impl Diagnostic for ServerError {
    fn code(&self) -> Code {
        Code::ScratchFailed
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: ServerAddress,
    settings: Vec<(String, String)>,
    remarks: Vec<String>,
}

impl Server {
    /// Makes and starts it.
    ///
    /// # Errors
    /// Always.
    pub async fn start(_options: &ServerOptions<'_>) -> Result<Self, ServerError> {
        Err(ServerError::NotYet)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self, database: &str) -> ServerAddress {
        self.address.with_database(database)
    }

    /// Ends it.
    pub async fn stop(self) {}

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        String::new()
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// What to know of it.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}
