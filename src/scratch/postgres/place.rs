//! Where a throw-away server lives: its data, its log and its socket.
//!
//! The data folder is the server's own. The log and the socket's folder are ours, and hostile code in the server may
//! not put something else in their place: not a link that makes us read a file of root's into a report, nor one that
//! leads us to a server in production. So the server may make its socket and nothing afterwards.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{PORT, ServerError, ServerOptions};
use crate::domain::ids::RecordId;
use crate::process::shown;
use crate::scratch::confine::NAMED_UID;
use crate::scratch::folder::{Scratch, remove_leftovers};

/// How much of the end of the log is shown.
const LOG_TAIL_BYTES: usize = 4096;
/// The longest path that a socket can have (108 bytes with the one that ends it).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Where the socket lies when the scratch folder's path is too long.
const SHORT_BASE: &str = "/tmp";

/// The folders of a server.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    data: PathBuf,
    log_path: PathBuf,
    /// Open from the beginning: what is read is what we made.
    log: File,
    socket_folder: PathBuf,
    /// The uid's group, where the server has a uid of its own.
    gid: Option<u32>,
    /// Holds the socket's folder, where that had to be elsewhere.
    elsewhere: Option<Scratch>,
}

impl Place {
    pub(super) fn make(options: &ServerOptions<'_>) -> Result<Self, ServerError> {
        let owner = options.confinement.owner();
        let gid = owner.map(|(_, gid)| gid);
        let dir = std::path::absolute(options.dir).map_err(|cause| io_error("find", options.dir, cause))?;
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => must_be_empty(&dir)?,
            other => other.map_err(|cause| io_error("make", &dir, cause))?,
        }
        give(&dir, gid, 0o710)?;

        let data = dir.join("data");
        make_folder(&data)?;
        if let Some((_, gid)) = owner {
            std::os::unix::fs::chown(&data, Some(NAMED_UID), Some(gid))
                .map_err(|cause| io_error("hand over", &data, cause))?;
        }
        // The kernel names a process's folder without links, and the server's processes are found by it.
        let data = data.canonicalize().map_err(|cause| io_error("find", &data, cause))?;

        let log_path = dir.join("log");
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(|cause| io_error("make", &log_path, cause))?;
        // The server may add to it.
        give(&log_path, gid, if gid.is_some() { 0o620 } else { 0o600 })?;

        let (socket_folder, elsewhere) = match fits(&dir.join("socket")) {
            true => (dir.join("socket"), None),
            false => {
                let scratch = short_folder(&dir, gid).map_err(ServerError::Socket)?;
                (scratch.path().join("socket"), Some(scratch))
            }
        };
        make_folder(&socket_folder)?;
        give(&socket_folder, gid, if gid.is_some() { 0o770 } else { 0o700 })?;
        Ok(Self { dir, data, log_path, log, socket_folder, gid, elsewhere })
    }

    /// From now on nobody but us can change what lies beside the socket. Nothing foreign has run in the server yet.
    pub(super) fn close_socket_folder(&self) -> Result<(), ServerError> {
        match self.gid {
            Some(_) => give(&self.socket_folder, self.gid, 0o710),
            None => Ok(()),
        }
    }

    /// What a server must reach, as it is named and as the kernel names it.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let elsewhere = self.elsewhere.as_ref().map(|scratch| scratch.path().to_owned());
        let canonical = self.data.parent().map(Path::to_owned);
        let mut folders: Vec<PathBuf> = [Some(self.dir.clone()), canonical, elsewhere].into_iter().flatten().collect();
        folders.sort();
        folders.dedup();
        folders
    }

    pub(super) fn shown(&self) -> String {
        self.dir.display().to_string()
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn log_path(&self) -> &Path {
        &self.log_path
    }

    pub(super) fn socket_folder(&self) -> &Path {
        &self.socket_folder
    }

    /// As `unix_socket_directories` wants it: a list, whose members may be quoted.
    pub(super) fn socket_setting(&self) -> String {
        // A path that is no text was not taken for the socket: see `fits`.
        format!("\"{}\"", self.socket_folder.to_string_lossy().replace('"', "\"\""))
    }

    pub(super) fn log_tail(&self) -> String {
        let mut tail = vec![0; LOG_TAIL_BYTES];
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        let start = length.saturating_sub(LOG_TAIL_BYTES as u64);
        // A log that cannot be read says nothing; what is shown beside it still does.
        let count = self.log.read_at(&mut tail, start).unwrap_or(0);
        shown(&tail[..count], &[], LOG_TAIL_BYTES)
    }
}

fn fits(folder: &Path) -> bool {
    folder.to_str().is_some() && folder.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() <= MAX_SOCKET_PATH_BYTES
}

/// A scratch folder below [`SHORT_BASE`]: one that a killed drill left goes when the next one needs one.
fn short_folder(dir: &Path, gid: Option<u32>) -> Result<Scratch, crate::scratch::folder::ScratchError> {
    let base = Path::new(SHORT_BASE);
    remove_leftovers(base)?;
    let hash = blake3::hash(dir.as_os_str().as_encoded_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hash.as_bytes()[..8]);
    #[expect(clippy::unwrap_used, reason = "the name of a job may consist of letters")]
    let job = "socket".parse().unwrap();
    let scratch = Scratch::create(base, &job, &RecordId::from_random(id), 0)?;
    if let Some(gid) = gid {
        scratch.open_to_group(gid)?;
    }
    Ok(scratch)
}

fn must_be_empty(dir: &Path) -> Result<(), ServerError> {
    let mut entries = std::fs::read_dir(dir).map_err(|cause| io_error("list", dir, cause))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(ServerError::NotEmpty { dir: dir.display().to_string() }),
    }
}

fn make_folder(folder: &Path) -> Result<(), ServerError> {
    DirBuilder::new().mode(0o700).create(folder).map_err(|cause| io_error("make", folder, cause))
}

/// Gives a group rights on something that stays ours.
fn give(path: &Path, gid: Option<u32>, mode: u32) -> Result<(), ServerError> {
    std::os::unix::fs::chown(path, None, gid)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|cause| io_error("set the rights of", path, cause))
}

pub(super) fn io_error(verb: &'static str, path: &Path, cause: io::Error) -> ServerError {
    ServerError::Io { verb, path: path.display().to_string(), cause }
}
