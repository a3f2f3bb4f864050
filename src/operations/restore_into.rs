//! From the vault into a server. To be replaced at the merge.

use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::sources::postgres::load::{LoadOptions, Loaded};
use crate::vault::reader::{Plan, Reader};

use super::host::Host;

/// Loads.
///
/// # Errors
/// Always.
pub fn load(
    _host: &Host,
    _reader: &Reader,
    _plan: Plan,
    _options: LoadOptions,
    _phase: &mut dyn FnMut(&'static str),
    _progress: &dyn Progress,
) -> Result<Loaded> {
    Err(Error::new(Code::Internal, "not joined yet"))
}
