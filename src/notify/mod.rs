//! Telling people and their monitoring: what is said, to whom, whether it arrived.
//!
//! An [`event`] is laid into a [`queue`] in the state folder before anything is sent, one item a channel, and leaves it when
//! the channel took it; a [`courier`] carries what waits. What was told already is in a [`memory`], so that a trouble that
//! lasts is not told each minute. A [`heartbeat`] is the other way round: it speaks of every run, and its silence alarms.
//!
//! Nothing here decides how a run goes, or keeps it waiting. It does not know vaults, sources or the catalog: what
//! happened is told by the operations.

pub mod channel;
pub mod courier;
pub mod event;
mod folder;
pub mod heartbeat;
mod http;
mod mail;
pub mod memory;
pub mod queue;
mod scrub;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::SecretError;
use crate::error::{Code, Diagnostic};
use crate::process::ToolError;

/// How long a channel may take for one notification; a mail server so long for each of its answers.
pub const SEND_WITHIN: Duration = Duration::from_secs(10);

/// Why a notification did not arrive, or could not be laid down. Holds nothing of a secret.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The address, token or password cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What lies there is none.
    #[error("{place} does not hold {what}")]
    NotOne {
        /// Where the secret lies.
        place: String,
        /// `an http address`, ...
        what: &'static str,
    },
    /// Nobody answered.
    #[error("nobody answers there: {why}")]
    Unreachable {
        /// What the network said.
        why: String,
    },
    /// Somebody answered, and did not take it.
    #[error("the answer is {status}{}", said(said_too))]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of what it said.
        said_too: String,
    },
    /// The message cannot be put into words that the channel takes.
    #[error("it cannot be written for this channel: {why}")]
    Unwritable {
        /// Why.
        why: String,
    },
    /// The program did not do it.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The state folder.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// `read`, `write`, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl NotifyError {
    /// Whether the next one to the same place would fare alike: then it is not tried.
    fn is_of_the_place(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Unwritable { .. })
    }
}

impl Diagnostic for NotifyError {
    fn code(&self) -> Code {
        match self {
            Self::Secret(error) => error.code(),
            Self::Io { .. } => Code::StateFailed,
            _ => Code::NotifyFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Secret(error) => error.hint(),
            Self::NotOne { .. } => Some("put it there alone, on one line".to_owned()),
            Self::Unreachable { .. } | Self::Refused { status: 500.., .. } => {
                Some("`lifeboat notify test` tries it again".to_owned())
            }
            Self::Refused { status: 300..=399, .. } => {
                Some("this address leads elsewhere, and is not followed: write the one that it leads to".to_owned())
            }
            Self::Refused { status: 400..=499, .. } => Some(
                "see that address, token and receiver are still right; `lifeboat notify test` tries it again"
                    .to_owned(),
            ),
            Self::Tool(error) => error
                .hint()
                .or_else(|| Some("run it by hand, as lifeboat's user and with LIFEBOAT_EVENT=test".to_owned())),
            Self::Refused { .. } | Self::Unwritable { .. } | Self::Io { .. } => None,
        }
    }

    fn is_transient(&self) -> bool {
        true
    }
}
