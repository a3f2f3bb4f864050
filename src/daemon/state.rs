//! The daemon's file in the state folder: written whole, before anything is started and after it ended, so that a process
//! that dies at any moment leaves either the state before or the state after. And the lock on it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::DaemonError;
use crate::domain::scheduler::State;

/// The version of the file's shape.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Held as long as the daemon lives; the kernel frees it when the process dies.
    _lock: File,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// What the last daemon left.
    State(State),
    /// Nothing: the first start.
    Nothing,
    /// Something that cannot be read: it was moved away, to here.
    Damaged(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(flatten)]
    state: State,
}

impl StateFile {
    /// Takes the state folder for this daemon.
    ///
    /// # Errors
    /// [`DaemonError::Running`] where another one has it.
    pub fn take(folder: &Path, now: DateTime<Utc>) -> Result<Self, DaemonError> {
        let path = folder.join("daemon.lock");
        let io = |verb, cause| DaemonError::Io { verb, path: path.clone(), cause };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&path).map_err(|cause| io("open", cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder writes its line right after it has the lock.
                let _ = lock.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(DaemonError::Running { holder: holder.to_owned() });
            }
            Err(TryLockError::Error(cause)) => return Err(io("lock", cause)),
        }
        let line = format!("process {} since {}\n", std::process::id(), now.format("%Y-%m-%d %H:%M:%S UTC"));
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(line.as_bytes()))
            .map_err(|cause| io("write", cause))?;
        Ok(Self { path: folder.join("daemon.json"), _lock: lock })
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the system refuses. What is damaged is no error: backups must go on.
    pub fn load(&self) -> Result<Found, DaemonError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(cause) => return Err(self.io("read", cause)),
        };
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(Document { version: VERSION, state }) => Ok(Found::State(state)),
            _ => {
                let aside = self.path.with_extension("damaged");
                fs::rename(&self.path, &aside).map_err(|cause| self.io("move away", cause))?;
                Ok(Found::Damaged(aside))
            }
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// When the system refuses; then what was there stays.
    pub fn save(&self, state: &State) -> Result<(), DaemonError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let text = serde_json::to_vec(&Document { version: VERSION, state: state.clone() })
            .map_err(|cause| self.io("write", io::Error::other(cause)))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|cause| self.io("write", cause))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(|cause| self.io("write", cause))?;
        file.persist(&self.path).map_err(|error| self.io("replace", error.error))?;
        // The name, too, must survive a power cut.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| self.io("write", cause))
    }

    fn io(&self, verb: &'static str, cause: io::Error) -> DaemonError {
        DaemonError::Io { verb, path: self.path.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::scheduler::Timetable;

    #[test]
    fn one_daemon_has_it_and_what_it_saved_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let now = "2026-11-22T02:30:00Z".parse().unwrap();
        let file = StateFile::take(folder.path(), now).unwrap();
        let error = StateFile::take(folder.path(), now).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} since 2026-11-22 02:30:00", std::process::id())), "{error}");
        assert!(matches!(file.load().unwrap(), Found::Nothing));
        let schedules = [("shop/backup".parse().unwrap(), "0 3 * * *".parse_schedule())].into();
        let table = Timetable {
            zone: chrono_tz::Tz::UTC,
            schedules,
            jitter: std::time::Duration::ZERO,
            seed: [0; 32],
            at_once: 1,
        };
        let mut state = State::default();
        state.follow(&table, now);
        state.turn(&table, now + chrono::TimeDelta::hours(1));
        file.save(&state).unwrap();
        drop(file);
        let file = StateFile::take(folder.path(), now).unwrap();
        assert!(matches!(file.load().unwrap(), Found::State(found) if found == state));
        fs::write(folder.path().join("daemon.json"), "{\"version\":1,").unwrap();
        assert!(matches!(file.load().unwrap(), Found::Damaged(_)));
        assert!(matches!(file.load().unwrap(), Found::Nothing));
        assert!(folder.path().join("daemon.damaged").is_file());
    }

    trait ParseSchedule {
        fn parse_schedule(&self) -> crate::domain::schedule::Schedule;
    }

    impl ParseSchedule for str {
        fn parse_schedule(&self) -> crate::domain::schedule::Schedule {
            crate::domain::schedule::Schedule::parse(self).unwrap()
        }
    }
}
