//! What runs by itself: one loop that owns the state, and threads that do the work and tell the loop when they end.
//!
//! The loop ([`engine`]) decides by [`crate::domain::scheduler`] and nothing else, writes down what it is about to start
//! before it starts it ([`state`]), and sleeps until the next moment that matters. The work ([`work`]) is the verbs of
//! `operations`, each on a thread of its own. What others ask ([`http`]) is answered from a board that the loop keeps
//! ([`board`]), where they ask by a name that is its own ([`names`]),
//! and from a look at config, catalog and vaults that all of them share ([`outlook`]). systemd is told by its own protocol ([`service`]).

pub mod board;
pub mod engine;
pub mod herald;
pub mod http;
pub mod metrics;
pub mod names;
pub mod outlook;
pub mod page;
pub mod service;
pub mod state;
pub mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Code, Diagnostic};

/// What is wrong with the daemon itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one has the state folder.
    #[error("a daemon works with this state folder already: {holder}")]
    Running {
        /// `process 4711 since 2026-11-22 02:00:00 UTC`.
        holder: String,
    },
    /// The system refused.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// `read`, `write`, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The address is somebody else's, or none of this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A config cannot be taken up by a daemon that runs.
    #[error("the state folder cannot change while the daemon runs: it is {}", was.display())]
    StateMoved {
        /// The one in use.
        was: PathBuf,
    },
}

impl Diagnostic for DaemonError {
    fn code(&self) -> Code {
        match self {
            Self::Running { .. } => Code::Locked,
            Self::Io { .. } => Code::StateFailed,
            Self::Listen { .. } | Self::StateMoved { .. } => Code::ConfigInvalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Running { .. } => Some("one is enough; `systemctl status lifeboat` shows it".to_owned()),
            Self::Listen { .. } => {
                Some("name another address with `listen` in [daemon], or \"off\" for none".to_owned())
            }
            Self::StateMoved { .. } => Some("restart the daemon".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// A run's name in the log: eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(u32);

impl RunId {
    /// From a random number.
    #[must_use]
    pub fn from_random(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Locks, whether or not a thread panicked meanwhile: what is shared here is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
