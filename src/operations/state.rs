//! The state folder of this host: its keys, its locks, what its sources remember. Everything in it can be lost at
//! the price of one full backup, except that a new host key must be made known to the vault.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rand::RngExt;

use crate::domain::ids::{JobName, ObjectId, SourceName, VaultId};
use crate::error::{Code, Diagnostic};
use crate::seal::HostSecret;
use crate::sources::memory::UNFINISHED;

/// What is wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
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
    /// A file of ours does not hold what we write there.
    #[error("{} does not hold what lifeboat writes there", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// More records wait for a vault than should ever have to.
    #[error("no more records can wait in {}: a vault has refused too many", path.display())]
    OutboxFull {
        /// The outbox.
        path: PathBuf,
    },
    /// Another process works on the job.
    #[error("{doing} of {job} is under way already: {holder}")]
    Locked {
        /// The verb.
        doing: String,
        /// The job.
        job: JobName,
        /// `process 4711 since 2026-11-22 02:00:00 UTC`.
        holder: String,
    },
}

impl Diagnostic for StateError {
    fn code(&self) -> Code {
        match self {
            Self::Locked { .. } => Code::Locked,
            Self::Io { .. } | Self::Damaged { .. } | Self::OutboxFull { .. } => Code::StateFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { .. } => {
                Some("wait for it to end; `ps` shows it. A process that died holds nothing".to_owned())
            }
            Self::Damaged { path } => Some(match path.extension().and_then(|ending| ending.to_str()) {
                Some("record") => format!("move {} away; what it recorded is lost", path.display()),
                Some("serials") => format!(
                    "move {} away; until this host has seen vault.json again, an older one would not be noticed",
                    path.display()
                ),
                _ => format!("move {} away; the next backup is a full one", path.display()),
            }),
            Self::OutboxFull { .. } => Some("`lifeboat doctor` says what is wrong with the vault".to_owned()),
            Self::Io { path, cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("run as the user that owns {}, or point `state_dir` elsewhere", path.display()))
            }
            Self::Io { .. } => None,
        }
    }
}

/// What this host remembers of the newest vault.json of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTrust {
    /// Its serial number.
    pub serial: u64,
    /// Which one it was; `None` where the line was cut short.
    pub digest: Option<ObjectId>,
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Makes the folder if it is missing, for this user alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let state = Self { root: root.to_owned() };
        make_private(root)?;
        Ok(state)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The catalog's file.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.sqlite")
    }

    /// The secret key that signs this host's manifests and records.
    #[must_use]
    pub fn host_key(&self) -> PathBuf {
        self.root.join("host.key")
    }

    /// The lines that name a vault's id and signing key, pinned when this host made it.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn pinned_trust(&self, vault: &str) -> Result<Option<String>, StateError> {
        let path = self.pin_file(vault);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StateError::Io { verb: "read", path, cause }),
        }
    }

    /// Pins a vault's id and signing key.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn pin_trust(&self, vault: &str, lines: &str) -> Result<(), StateError> {
        let path = self.pin_file(vault);
        make_private(&self.root.join("vaults"))?;
        write_private(&path, lines.as_bytes())
    }

    /// Where a vault's pin lies. Vault names come from the config and may hold anything: the file is named after their
    /// hash.
    #[must_use]
    pub fn pin_file(&self, vault: &str) -> PathBuf {
        self.root.join("vaults").join(format!("{}.trust", &blake3::hash(vault.as_bytes()).to_hex()[..16]))
    }

    /// The vault's vault.json with the highest serial number that this host ever believed; of two with one number the first.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn newest_trust(&self, vault: &VaultId) -> Result<Option<SeenTrust>, StateError> {
        let path = self.serial_file(vault);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StateError::Io { verb: "read", path, cause }),
        };
        let mut newest: Option<SeenTrust> = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (serial, digest) = line.split_once(' ').unwrap_or((line, ""));
            let serial: u64 = serial.parse().map_err(|_| StateError::Damaged { path: path.clone() })?;
            let digest = digest.parse().ok();
            newest = match newest {
                Some(seen) if seen.serial > serial => Some(seen),
                Some(seen) if seen.serial == serial => Some(SeenTrust { serial, digest: seen.digest.or(digest) }),
                _ => Some(SeenTrust { serial, digest }),
            };
        }
        Ok(newest)
    }

    /// Remembers a vault.json by its serial number and its digest. Lines are only ever added, so that of two processes
    /// neither takes back what the other saw; each begins on a line of its own, so that one that was cut short spoils no
    /// other.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn saw_trust(&self, vault: &VaultId, serial: u64, digest: ObjectId) -> Result<(), StateError> {
        let is_known = |seen: SeenTrust| seen.serial > serial || (seen.serial == serial && seen.digest.is_some());
        if self.newest_trust(vault)?.is_some_and(is_known) {
            return Ok(());
        }
        make_private(&self.root.join("vaults"))?;
        let path = self.serial_file(vault);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(&path);
        file.and_then(|mut file| {
            file.write_all(format!("\n{serial} {digest}\n").as_bytes()).and_then(|()| file.sync_all())
        })
        .map_err(|cause| StateError::Io { verb: "write", path, cause })
    }

    /// Where the serial numbers of a vault's vault.json are remembered.
    #[must_use]
    pub fn serial_file(&self, vault: &VaultId) -> PathBuf {
        self.root.join("vaults").join(format!("{vault}.serials"))
    }

    /// Where a source's memory of its last backup lies; its folder is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn memory(&self, vault: &VaultId, job: &JobName, source: &SourceName) -> Result<PathBuf, StateError> {
        let folder = self.root.join("memory").join(vault.as_str()).join(job.as_str());
        make_private(&folder)?;
        Ok(folder.join(format!("{source}.memory")))
    }

    /// Removes what runs that were killed left of memories that they wrote. Whoever calls holds the job's lock: what a run
    /// is still writing looks the same.
    ///
    /// # Errors
    /// When the folder cannot be read, or one cannot be removed.
    pub fn clear_unfinished_memories(&self, vault: &VaultId, job: &JobName) -> Result<(), StateError> {
        let folder = self.root.join("memory").join(vault.as_str()).join(job.as_str());
        let clear = || -> io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        match clear() {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { verb: "clear", path: folder, cause })
            }
            _ => Ok(()),
        }
    }

    /// Where a source's journal of a run that has not committed lies; its folder is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn journal(&self, vault: &VaultId, job: &JobName, source: &SourceName) -> Result<PathBuf, StateError> {
        let folder = self.journals(vault, job);
        make_private(&folder)?;
        Ok(folder.join(format!("{source}.journal")))
    }

    /// Where it stands until when what the job's last backup names is held; its folder is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn holds_file(&self, vault: &VaultId, job: &JobName) -> Result<PathBuf, StateError> {
        let folder = self.root.join("holds").join(vault.as_str());
        make_private(&folder)?;
        Ok(folder.join(format!("{job}.holds")))
    }

    /// Whether a run of the job left a journal.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn has_journal(&self, vault: &VaultId, job: &JobName) -> Result<bool, StateError> {
        let path = self.journals(vault, job);
        match fs::read_dir(&path) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(StateError::Io { verb: "read", path, cause }),
        }
    }

    /// Removes the job's journals, those of sources that the config no longer has too.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget_journals(&self, vault: &VaultId, job: &JobName) -> Result<(), StateError> {
        let path = self.journals(vault, job);
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { verb: "remove", path, cause })
            }
            _ => Ok(()),
        }
    }

    fn journals(&self, vault: &VaultId, job: &JobName) -> PathBuf {
        self.root.join("resume").join(vault.as_str()).join(job.as_str())
    }

    /// A new folder for what a source's tools write, for us alone. What a run that was killed left there is removed:
    /// call it with the job's lock held.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work(&self, job: &JobName, source: &SourceName) -> Result<WorkFolder, StateError> {
        let path = self.root.join("work").join(job.as_str()).join(source.as_str());
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::Io { verb: "remove", path, cause });
            }
            _ => {}
        }
        make_private(&path)?;
        Ok(WorkFolder { path })
    }

    /// The host's secret; made on first use.
    ///
    /// # Errors
    /// When it cannot be read or made, or is not one.
    pub fn host_secret(&self) -> Result<HostSecret, StateError> {
        let path = self.root.join("host.secret");
        match fs::read_to_string(&path) {
            Ok(text) => HostSecret::from_hex(&text).ok_or(StateError::Damaged { path }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let secret = HostSecret::from_random(rand::rng().random());
                let io = |cause| StateError::Io { verb: "write", path: path.clone(), cause };
                let mut file = tempfile::NamedTempFile::new_in(&self.root).map_err(io)?;
                writeln!(file, "{}", secret.to_hex()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
                // Two first runs at once must end with the same secret.
                match file.persist_noclobber(&path) {
                    Ok(_) => Ok(secret),
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => self.host_secret(),
                    Err(error) => Err(io(error.error)),
                }
            }
            Err(cause) => Err(StateError::Io { verb: "read", path, cause }),
        }
    }

    /// Takes one verb on the job for this process until the lock is dropped; the kernel frees it when the process dies.
    ///
    /// # Errors
    /// [`StateError::Locked`] at once when another process has it.
    pub fn lock(&self, job: &JobName, doing: &str, now: DateTime<Utc>) -> Result<JobLock, StateError> {
        let folder = self.root.join("locks");
        make_private(&folder)?;
        let path = folder.join(format!("{job}.{doing}.lock"));
        let io = |verb, cause| StateError::Io { verb, path: path.clone(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| io("open", cause))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder writes its line right after it has the lock; before that it has no name yet.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    line => line.to_owned(),
                };
                return Err(StateError::Locked { doing: doing.to_owned(), job: job.clone(), holder });
            }
            Err(TryLockError::Error(cause)) => return Err(io("lock", cause)),
        }
        let line = format!("process {} since {}\n", std::process::id(), now.format("%Y-%m-%d %H:%M:%S UTC"));
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(line.as_bytes()))
            .map_err(|cause| io("write", cause))?;
        Ok(JobLock { file })
    }
}

/// Held while a process works on a job.
#[derive(Debug)]
pub struct JobLock {
    file: File,
}

impl Drop for JobLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just forked holds the file until it runs its program.
        // Where the unlocking fails, closing does it a moment later.
        let _ = self.file.unlock();
    }
}

/// A folder for one run's own files, a password's among them. Dropped, it is gone with all that is in it.
#[derive(Debug)]
pub struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(cause) = fs::remove_dir_all(&self.path) {
            // A drop cannot return it; the next run removes it, or fails.
            tracing::error!("cannot remove {}: {cause}", self.path.display());
        }
    }
}

/// Replaces a file whole.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let io = |cause| StateError::Io { verb: "write", path: path.to_owned(), cause };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map(drop).map_err(|error| io(error.error))
}

pub(super) fn make_private(folder: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|cause| StateError::Io {
        verb: "make",
        path: folder.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_being_remembered_when_a_run_was_killed_is_cleared_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (vault, job) = (VaultId::from_random([1; 8]), "shop".parse().unwrap());
        state.clear_unfinished_memories(&vault, &job).unwrap();
        let memory = state.memory(&vault, &job, &"files".parse().unwrap()).unwrap();
        let unfinished = memory.with_file_name(format!("{UNFINISHED}a1b2c3"));
        fs::write(&memory, "whole").unwrap();
        fs::write(&unfinished, "half").unwrap();
        state.clear_unfinished_memories(&vault, &job).unwrap();
        assert!(memory.exists() && !unfinished.exists());
    }

    #[test]
    fn the_secret_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let first = state.host_secret().unwrap().to_hex();
        assert_eq!(state.host_secret().unwrap().to_hex(), first);
        let mode = fs::metadata(dir.path().join("state/host.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.path().join("state/host.secret"), "short").unwrap();
        assert!(matches!(state.host_secret(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn the_highest_serial_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (vault, other) = (VaultId::from_random([1; 8]), VaultId::from_random([2; 8]));
        let seen = |vault| state.newest_trust(vault).unwrap().map(|seen| (seen.serial, seen.digest));
        let (one, two) = (ObjectId([1; 32]), ObjectId([2; 32]));
        assert_eq!(seen(&vault), None);
        for serial in [1, 12, 3] {
            state.saw_trust(&vault, serial, one).unwrap();
        }
        state.saw_trust(&vault, 12, two).unwrap();
        assert_eq!(seen(&vault), Some((12, Some(one))), "the first one of a number is the one that was believed");
        assert_eq!(seen(&other), None);
        // Lines that were cut short by a crash, and the next one.
        let append = |bytes: &[u8]| {
            OpenOptions::new().append(true).open(state.serial_file(&vault)).unwrap().write_all(bytes).unwrap();
        };
        append(b"\n1");
        assert_eq!(seen(&vault), Some((12, Some(one))));
        append(b"\n13 0202");
        assert_eq!(seen(&vault), Some((13, None)));
        state.saw_trust(&vault, 13, two).unwrap();
        assert_eq!(seen(&vault), Some((13, Some(two))));
        fs::write(state.serial_file(&vault), "many").unwrap();
        assert!(matches!(state.newest_trust(&vault), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_work_folder_is_private_new_and_gone_afterwards() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let make = || state.work(&"shop".parse().unwrap(), &"db".parse().unwrap()).unwrap();
        let work = make();
        assert_eq!(fs::metadata(work.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(work.path().join("password"), "hunter2").unwrap();
        // What a process that is killed leaves behind.
        let path = work.path().to_owned();
        let _left = std::mem::ManuallyDrop::new(work);
        let again = make();
        assert_eq!(again.path(), path);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        drop(again);
        assert!(!path.exists());
    }

    #[test]
    fn a_job_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (shop, mail): (JobName, JobName) = ("shop".parse().unwrap(), "mail".parse().unwrap());
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let held = state.lock(&shop, "backup", now).unwrap();
        let error = state.lock(&shop, "backup", now).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} since 2026-09-21", std::process::id())), "{error}");
        state.lock(&mail, "backup", now).unwrap();
        state.lock(&shop, "drill", now).unwrap();
        drop(held);
        state.lock(&shop, "backup", now).unwrap();
    }
}
