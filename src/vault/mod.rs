//! The vault's format: where things lie, who signed them, and whom to believe. docs/VAULT-FORMAT.md describes it.
//!
//! It knows segments and documents by their bytes; it does not know sources, configs or the catalog.

pub mod ahead;
pub mod claims;
pub mod error;
pub mod glance;
pub mod identity;
pub mod keys;
pub mod layout;
pub mod lists;
pub mod manifests;
pub mod mirror;
pub mod presence;
pub mod reader;
pub mod readme;
pub mod records;
pub mod signing;
pub mod survey;
pub mod sweep;
pub mod trust;
pub mod versions;
pub mod writer;

pub use error::{Distrust, VaultError};
