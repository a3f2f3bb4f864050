//! How a backup is put back into a server. To be replaced at the merge.

use std::path::PathBuf;

use super::binaries::Tools;
use super::connect::Access;

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
    /// Whether a database that is there is replaced.
    pub overwrite: bool,
    /// A folder that nobody else can enter.
    pub private: PathBuf,
    /// These tables only.
    pub tables: Option<Vec<String>>,
}

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {}
