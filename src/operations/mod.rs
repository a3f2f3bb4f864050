//! The verbs: the only place where sources, vault and catalog meet. Whoever reads one of these files from top to
//! bottom has read the verb. Nothing here prints or reads the command line.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod access;
pub mod backup;
mod begun;
pub mod catch_up;
pub mod check;
pub mod copy;
mod databases;
pub mod doctor;
pub mod drill;
pub mod holders;
mod hooks;
pub mod host;
pub mod init;
pub mod interrupt;
pub mod lost;
pub mod notices;
pub mod outbox;
pub mod prune;
pub mod quarantine;
pub mod rebuild;
pub mod records;
pub mod refute;
#[cfg(test)]
mod requests;
pub mod restore;
pub mod restore_into;
pub mod runbook;
pub mod selection;
pub mod state;
pub mod trustees;
pub mod vaults;
pub mod verdicts;
#[cfg(test)]
mod year;

/// What manifests and records say of the program that wrote them.
pub const TOOL: &str = concat!("lifeboat ", env!("CARGO_PKG_VERSION"));

/// Locks, whether or not a thread panicked while it held the lock: what the threads of a verb share is replaced whole or
/// only added to, and the panic itself ends the verb.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
