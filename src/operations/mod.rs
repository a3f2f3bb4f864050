//! The verbs: the only place where sources, vault and catalog meet. Whoever reads one of these files from top to
//! bottom has read the verb. Nothing here prints or reads the command line.

pub mod backup;
pub mod check;
pub mod doctor;
pub mod drill;
pub mod host;
pub mod init;
pub mod interrupt;
pub mod rebuild;
pub mod records;
pub mod restore;
pub mod selection;
pub mod state;
pub mod vaults;

/// What manifests and records say of the program that wrote them.
pub const TOOL: &str = concat!("lifeboat ", env!("CARGO_PKG_VERSION"));
