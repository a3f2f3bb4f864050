//! Records on their way into a vault. Each is laid here, durably, before the vault is asked, and taken away once vault
//! and catalog have it: so a record that the vault refused, or a process that was killed in between, loses nothing.
//!
//! One file a record, in a folder a vault: the record as a line of JSON, then its sealed details as they are. What is
//! here was not signed yet and holds nothing that a record in the vault does not hold. Whether something is sent, and
//! where, is for `records` to say.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::domain::ids::VaultId;
use crate::domain::record::Record;
use crate::vault::layout::RecordName;
use crate::vault::records::{MAX_DETAILS_BYTES, MAX_RECORD_BYTES};

use super::state::{StateDir, StateError, make_private};

/// Records that wait for one vault. A vault that refused that many was given up by its people.
pub const MAX_WAITING: usize = 10_000;
const ENDING: &str = ".record";

/// The outbox of a vault.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: PathBuf,
}

/// A record that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The record.
    pub record: Record,
    /// Its sealed details, where it names any.
    pub details: Option<Bytes>,
}

impl StateDir {
    /// The outbox of a vault; nothing is made yet.
    #[must_use]
    pub fn outbox(&self, vault: &VaultId) -> Outbox {
        Outbox { folder: self.root().join("outbox").join(vault.as_str()) }
    }
}

impl Outbox {
    /// Lays a record here; durable when this returns. The same one again replaces itself.
    ///
    /// # Errors
    /// When it cannot be written, or [`MAX_WAITING`] wait already.
    pub fn put(&self, waiting: &Waiting) -> Result<(), StateError> {
        make_private(&self.folder)?;
        if self.files()?.len() >= MAX_WAITING {
            return Err(StateError::OutboxFull { path: self.folder.clone() });
        }
        let path = self.file(&waiting.record);
        let io = |cause| StateError::Io { verb: "write", path: path.clone(), cause };
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(io)?;
        serde_json::to_writer(&mut file, &waiting.record).map_err(|error| io(error.into()))?;
        file.write_all(b"\n").map_err(io)?;
        file.write_all(waiting.details.as_deref().unwrap_or_default()).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(&path).map_err(|error| io(error.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// What waits, oldest first within each kind, each read when it is asked for: details may be large. A file that cannot
    /// be read, or is not what is written here, is an error in its place and keeps nothing else from being read.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn waiting(&self) -> Result<impl Iterator<Item = Result<Waiting, StateError>> + use<>, StateError> {
        let read = |path: PathBuf| match read(&path) {
            // Another process of this host has sent it meanwhile.
            Err(StateError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => None,
            waiting => Some(waiting),
        };
        Ok(self.files()?.into_iter().filter_map(read))
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes a record away: vault and catalog have it.
    ///
    /// # Errors
    /// When the system refuses; that it is gone already is as good.
    pub fn remove(&self, record: &Record) -> Result<(), StateError> {
        let path = self.file(record);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { verb: "remove", path, cause })
            }
            _ => Ok(()),
        }
    }

    fn file(&self, record: &Record) -> PathBuf {
        let name = RecordName::of(record);
        self.folder.join(format!("{}-{}-{}{ENDING}", name.folder(), name.stamp(), name.id()))
    }

    fn files(&self) -> Result<Vec<PathBuf>, StateError> {
        let io = |cause| StateError::Io { verb: "list", path: self.folder.clone(), cause };
        let entries = match fs::read_dir(&self.folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(io)?;
        let mut files: Vec<PathBuf> =
            paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ENDING)).collect();
        files.sort();
        Ok(files)
    }
}

fn read(path: &Path) -> Result<Waiting, StateError> {
    let io = |cause| StateError::Io { verb: "read", path: path.to_owned(), cause };
    let damaged = || StateError::Damaged { path: path.to_owned() };
    let mut bytes = Vec::new();
    let limit = MAX_RECORD_BYTES + MAX_DETAILS_BYTES + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(io)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
    let record: Record = serde_json::from_slice(&bytes[..end]).map_err(|_| damaged())?;
    let details = Bytes::from(bytes).slice(end + 1..);
    let details = record.details.is_some().then_some(details);
    if record.details == details.as_deref().map(crate::vault::records::details_id) {
        Ok(Waiting { record, details })
    } else {
        Err(damaged())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::ids::RecordId;
    use crate::domain::record::{QuarantineRecord, RECORD_VERSION, RecordBody};
    use crate::vault::records::details_id;

    fn waiting(number: u8, details: Option<&'static [u8]>) -> Waiting {
        let record = Record {
            version: RECORD_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            id: RecordId::from_random([number; 8]),
            host: "web-1".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded: DateTime::from_timestamp(1_790_000_000 + i64::from(number), 123_456_789).unwrap(),
            body: RecordBody::Quarantine(QuarantineRecord { backup: None, gone: vec![] }),
            details: details.map(details_id),
        };
        Waiting { record, details: details.map(Bytes::from_static) }
    }

    fn all(outbox: &Outbox) -> Vec<Waiting> {
        outbox.waiting().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn what_waits_comes_out_as_it_went_in_until_it_is_taken_away() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let outbox = state.outbox(&VaultId::from_random([1; 8]));
        assert_eq!(self::all(&outbox), []);
        let all = [waiting(1, None), waiting(2, Some(b"sealed\n\nbytes")), waiting(3, Some(b""))];
        for one in all.iter().rev().chain(&all) {
            outbox.put(one).unwrap();
        }
        // What a killed process left half-written is not taken for a record.
        fs::write(outbox.folder.join(".tmp1234"), "{").unwrap();
        assert_eq!(self::all(&outbox), all);
        assert_eq!(self::all(&state.outbox(&VaultId::from_random([2; 8]))), []);
        for file in outbox.files().unwrap() {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for one in &all {
            outbox.remove(&one.record).unwrap();
            outbox.remove(&one.record).unwrap();
        }
        assert_eq!(self::all(&outbox), []);
    }

    #[test]
    fn a_damaged_file_is_named_and_keeps_nothing_from_being_read() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = StateDir::open(dir.path()).unwrap().outbox(&VaultId::from_random([1; 8]));
        let one = waiting(2, Some(b"sealed"));
        let other = waiting(3, None);
        outbox.put(&one).unwrap();
        outbox.put(&other).unwrap();
        let path = outbox.file(&one.record);
        let whole = fs::read(&path).unwrap();
        for damage in [&whole[..9], &whole[..whole.len() - 1]] {
            fs::write(&path, damage).unwrap();
            let found: Vec<_> = outbox.waiting().unwrap().collect();
            assert!(matches!(&found[0], Err(StateError::Damaged { path: named }) if *named == path));
            assert!(matches!(&found[1..], [Ok(found)] if *found == other));
        }
    }
}
