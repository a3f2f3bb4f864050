//! A database server that the config names, with what opens it: the secret is read when it is used, and not before.

use crate::config::{PostgresSettings, Secret};
use crate::domain::server::ServerAddress;
use crate::error::Result;
use crate::sources::postgres::connect::Access;

/// The server of a source, as the config says who logs in and with what.
///
/// # Errors
/// When the password cannot be had.
pub(super) fn access(settings: &PostgresSettings) -> Result<Access> {
    access_of(&settings.address, settings.password.as_ref())
}

/// A server, and what opens it.
///
/// # Errors
/// When the password cannot be had.
pub(super) fn access_of(address: &ServerAddress, password: Option<&Secret>) -> Result<Access> {
    let password = password.map(Secret::read).transpose()?;
    Ok(Access { address: address.clone(), password })
}
