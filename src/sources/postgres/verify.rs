//! A restored database against its facts. To be replaced at the merge.

use tokio::runtime::Handle;

use super::connect::Access;
use crate::domain::check::Check;
use crate::domain::contents::PostgresFacts;
use crate::sources::SourceError;

/// Compares.
///
/// # Errors
/// Always.
pub fn verify(
    access: &Access,
    _facts: &PostgresFacts,
    _connections: u32,
    _runtime: &Handle,
) -> Result<Vec<Check>, SourceError> {
    Err(SourceError::Database { path: access.address.to_string(), what: "not joined yet".to_owned(), hint: None })
}
