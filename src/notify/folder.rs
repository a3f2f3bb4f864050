//! Files of this room in the state folder: private, replaced whole, and changed by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::NotifyError;

/// For `map_err`.
pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NotifyError {
    let path: PathBuf = path.to_owned();
    move |cause| NotifyError::Io { verb, path, cause }
}

/// Makes a folder for us alone.
pub(super) fn make(folder: &Path) -> Result<(), NotifyError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("make", folder))
}

/// Waits until nobody else holds it. The kernel lets go of it when the file is dropped, or the process dies.
pub(super) fn lock(path: &Path) -> Result<File, NotifyError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(io("open", path))?;
    file.lock().map_err(io("lock", path))?;
    Ok(file)
}

/// Writes a file whole, durably, or leaves what is there.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), NotifyError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(io("write", path))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io("write", path))?;
    file.persist(path).map_err(|error| io("replace", path)(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("write", path))
}

/// What a file holds; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, NotifyError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io("read", path)(cause)),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), NotifyError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(cause)),
        _ => Ok(()),
    }
}
