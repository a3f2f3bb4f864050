//! The config: one TOML file, read strictly, checked, and turned into settings.
//!
//! Three shapes for three jobs: [`schema`] is the one table of keys (what may stand where, of which type, meaning
//! what), the private `file` is the serde image of the text, [`settings`] is what the rest of the program uses.
//! [`check`] holds settings against each other and against this host.
//!
//! It does not know vaults or sources, only where they are said to be.

pub mod check;
mod copies;
mod daemon;
pub mod edit;
mod erasing;
mod error;
mod file;
mod hooks;
pub mod locate;
pub mod notify;
pub mod place;
mod resolve;
pub mod s3;
pub mod schema;
pub mod secret;
pub mod settings;
mod strict;
pub mod template;
#[cfg(test)]
mod tests;

pub use copies::{CopySettings, VaultRole};
pub use daemon::DaemonSettings;
pub use error::{ConfigError, Problem};
pub use hooks::HookSettings;
pub use notify::{ChannelKind, ChannelSettings, Details, JobNotify, NotifySettings, Occasion};
pub use place::{VaultUrl, VaultUrlError};
pub use s3::S3Settings;
pub use secret::{Secret, SecretError};
pub use settings::{
    ContainerSettings, Databases, DrillRole, DrillSettings, ExistingServer, FilesSettings, JobSettings, Objectives,
    PostgresSettings, PruneWhen, ScratchServer, ServerGround, ServerSettings, Settings, SourceKind, SourceSettings,
    SqliteSettings, VaultSettings,
};
