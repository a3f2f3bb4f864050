//! The commands: each takes what was typed, calls a verb, and says what came of it.

pub(super) mod backup;
pub(super) mod catalog;
pub(super) mod check;
pub(super) mod config;
pub(super) mod copy;
pub(super) mod daemon;
pub(super) mod demo;
pub(super) mod doctor;
pub(super) mod drill;
pub(super) mod host;
pub(super) mod init;
pub(super) mod key;
pub(super) mod list;
pub(super) mod manual;
pub(super) mod notify;
pub(super) mod prune;
pub(super) mod recipient;
pub(super) mod restore;
pub(super) mod runbook;
pub(super) mod schedule;
pub(super) mod status;

use std::io::Read;

use crate::error::{Code, Error, Result};
use crate::scratch::sql::{Request, serve};

use super::Exit;
use super::output::print_json;
use super::session::Session;

/// A request of the parent process is far smaller.
const MAX_REQUEST_BYTES: u64 = 1024 * 1024;

/// Runs one SQL check that a drill asks for on stdin, in the confinement that the drill made.
pub(super) fn confined_sql(session: &Session) -> Result<Exit> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_REQUEST_BYTES).read_to_string(&mut text);
    let wrong = |cause: String| Error::new(Code::Usage, format!("this command is called by `drill`: {cause}"));
    read.map_err(|cause| wrong(cause.to_string()))?;
    let request: Request = serde_json::from_str(&text).map_err(|cause| wrong(cause.to_string()))?;
    print_json(&session.host.runtime.block_on(serve(request)));
    Ok(Exit::DONE)
}
