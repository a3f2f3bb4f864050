//! How a backup is put back into a server. To be replaced at the merge.

use std::path::PathBuf;

use super::binaries::Tools;
use super::connect::Access;
use crate::domain::contents::PostgresFacts;

/// Whose the restored objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whose they were.
    Keep,
    /// The role's that restores.
    Drop,
}

/// What becomes of roles and tablespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Globals {
    /// They are the server's own.
    Leave,
    /// Missing ones are made.
    Make,
}

/// What becomes of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is in the way.
    Refuse,
    /// It is replaced.
    Replace,
}

/// Whether the database may speak to other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// As at the source.
    Keep,
    /// A drill.
    Shut,
}

/// What the server must have.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The source's server.
    pub server_version_number: u32,
}

impl From<&PostgresFacts> for Needs {
    fn from(facts: &PostgresFacts) -> Self {
        Self { server_version_number: facts.server_version_number }
    }
}

/// Where to, and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The server.
    pub access: Access,
    /// The database to make.
    pub database: String,
    /// pg_restore and psql.
    pub tools: Tools,
    /// How many connections load at a time.
    pub jobs: u32,
    /// Whose the objects are.
    pub owners: Owners,
    /// Roles.
    pub globals: Globals,
    /// What is in the way.
    pub existing: Existing,
    /// Other servers.
    pub outside: Outside,
    /// A folder that nobody else can enter.
    pub private: PathBuf,
    /// These tables only.
    pub tables: Option<Vec<String>>,
    /// What the source knew of itself.
    pub needs: Needs,
}

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What to know.
    pub remarks: Vec<String>,
}
