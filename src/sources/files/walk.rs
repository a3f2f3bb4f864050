//! The walk: every entry below the roots, depth-first by path component, names sorted by their bytes, so that the
//! order is the same every day and nothing stands between a folder and its last descendant.
//!
//! It lists and stats, and opens nothing but folders. It holds the names of the folders that it stands in, and no
//! more of the tree.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::domain::contents::{MemberKind, Note, NoteClass, RawText};
use crate::sources::SourceError;

use super::folder::{Folder, Pool};
use super::names::Names;
use super::status::Status;
use super::{FilesOptions, LeftOut};

/// A path must fit into the head of a segment, and be handled once a member.
pub(super) const MAX_PATH_BYTES: usize = 64 * 1024;

const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// An entry that belongs into the backup.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The folder that it stands in.
    pub(super) folder: Arc<Folder>,
    /// Its name there.
    pub(super) name: Vec<u8>,
    /// Its path in the tar.
    pub(super) path: Vec<u8>,
    pub(super) status: Status,
    pub(super) kind: MemberKind,
}

pub(super) struct Walk {
    /// By their paths in the tar, in the order of the tar; taken out when they are reached.
    roots: BTreeMap<ByComponent, PathBuf>,
    exclude: Gitignore,
    one_file_system: bool,
    exclude_caches: bool,
    /// By their paths in the tar: why they are left out.
    leave_out: HashMap<Vec<u8>, String>,
    pool: Arc<Pool>,
    stack: Vec<Frame>,
    notes: Vec<Note>,
}

/// A folder that the walk stands in.
struct Frame {
    folder: Arc<Folder>,
    path: Vec<u8>,
    names: Names,
    next: usize,
    /// How long the path of the root is that we came from, with its slash.
    root_bytes: usize,
    root_device: u64,
}

/// A path that sorts as the tar does: `a/b` before `a-b`.
#[derive(Debug, PartialEq, Eq)]
struct ByComponent(Vec<u8>);

impl Ord for ByComponent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.split(|byte| *byte == b'/').cmp(other.0.split(|byte| *byte == b'/'))
    }
}

impl PartialOrd for ByComponent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Walk {
    /// Looks at the roots; walks nothing yet.
    ///
    /// # Errors
    /// When a root is missing or no file or folder, or a pattern is none.
    pub(super) fn begin(options: &FilesOptions) -> Result<Self, SourceError> {
        let mut roots = BTreeMap::new();
        let mut leave_out = HashMap::new();
        for path in &options.paths {
            let root = plain(path)?;
            check_root(&root)?;
            left_out_below(&root, &options.leave_out, &mut leave_out)?;
            let path = root.as_os_str().as_bytes()[1..].to_vec();
            roots.insert(ByComponent(path), root);
        }
        Ok(Self {
            roots,
            exclude: patterns(&options.exclude)?,
            one_file_system: options.one_file_system,
            exclude_caches: options.exclude_caches,
            leave_out,
            pool: Arc::default(),
            stack: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The next entry.
    ///
    /// # Errors
    /// When a root has gone.
    pub(super) fn next(&mut self) -> Result<Option<Found>, SourceError> {
        loop {
            let Some(mut frame) = self.stack.pop() else {
                let Some((path, root)) = self.roots.pop_first() else { return Ok(None) };
                match self.enter_root(&path.0, &root)? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            };
            let Some(name) = frame.names.get(frame.next) else { continue };
            frame.next += 1;
            let path = join(&frame.path, name);
            let name = name.to_vec();
            // A root below another is walked where it stands, by its own right: neither patterns nor file systems
            // of the outer one keep it out.
            if let Some(root) = self.roots.remove(&ByComponent(path.clone())) {
                self.stack.push(frame);
                match self.enter_root(&path, &root)? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            }
            let found = self.visit(&frame, name, path);
            let (root_bytes, root_device) = (frame.root_bytes, frame.root_device);
            self.stack.push(frame);
            let Some(found) = found else { continue };
            if found.kind == MemberKind::Folder {
                if self.one_file_system && found.status.device != root_device {
                    self.note(NoteClass::Skipped, &found.path, "another file system is mounted here");
                } else {
                    self.descend(&found, root_bytes, root_device);
                }
            }
            return Ok(Some(found));
        }
    }

    /// What there was to say so far that belongs to no piece.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn note(&mut self, class: NoteClass, path: &[u8], detail: impl Into<String>) {
        self.notes.push(Note { class, path: RawText::from(path), detail: detail.into() });
    }

    /// Begins at a root. `None` for `/`, which has no member of its own.
    fn enter_root(&mut self, path: &[u8], root: &Path) -> Result<Option<Found>, SourceError> {
        let gone = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => SourceError::RootMissing { path: shown(root) },
            errno => SourceError::io("open", shown(root), errno.into()),
        };
        let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
            let folder = Folder::base(root.to_owned(), &self.pool).map_err(gone)?;
            // A base is a mere path and cannot be listed; its own dot can.
            let folder = Folder::open_entry(&folder, b".").map_err(gone)?;
            let fd = folder.open().map_err(gone)?;
            let status = rustix::fs::fstat(&*fd).map(|stat| Status::of(&stat)).map_err(gone)?;
            let names = Names::list(&fd).map_err(gone)?;
            let root_device = status.device;
            self.stack.push(Frame { folder, path: Vec::new(), names, next: 0, root_bytes: 0, root_device });
            return Ok(None);
        };
        let folder = Folder::base(parent.to_owned(), &self.pool).map_err(gone)?;
        let fd = folder.open().map_err(gone)?;
        let status = status_of(&fd, name.as_bytes()).map_err(gone)?;
        let kind = usable_root(root, &status)?;
        let found = Found { folder, name: name.as_bytes().to_vec(), path: path.to_vec(), status, kind };
        if kind == MemberKind::Folder {
            self.descend(&found, path.len() + 1, status.device);
        }
        Ok(Some(found))
    }

    /// Looks at one name. `None` where it does not belong into the backup; then it is noted why, if it must be.
    fn visit(&mut self, frame: &Frame, name: Vec<u8>, path: Vec<u8>) -> Option<Found> {
        if path.len() > MAX_PATH_BYTES {
            self.note(NoteClass::Unreadable, &path[..255], format!("a path of more than {MAX_PATH_BYTES} bytes"));
            return None;
        }
        if let Some(why) = self.leave_out.get(&path) {
            let why = why.clone();
            if !self.excluded(&path[frame.root_bytes..], false) {
                self.note(NoteClass::Skipped, &path, why);
            }
            return None;
        }
        let status = match frame.folder.open().and_then(|fd| status_of(&fd, &name)) {
            Ok(status) => status,
            Err(errno) => {
                // An excluded name that cannot be looked at is no loss.
                if !self.excluded(&path[frame.root_bytes..], false) {
                    self.note(class_of(errno), &path, format!("cannot look at it: {errno}"));
                }
                return None;
            }
        };
        if self.excluded(&path[frame.root_bytes..], status.kind == Some(MemberKind::Folder)) {
            return None;
        }
        let Some(kind) = status.kind else {
            self.note(NoteClass::Skipped, &path, "a socket, or something that no tar can hold");
            return None;
        };
        Some(Found { folder: Arc::clone(&frame.folder), name, path, status, kind })
    }

    /// Lists a folder and goes on in it. One that cannot be listed is noted; its own member stays.
    fn descend(&mut self, found: &Found, root_bytes: usize, root_device: u64) {
        let listed = Folder::open_entry(&found.folder, &found.name).and_then(|folder| {
            let fd = folder.open()?;
            let names = Names::list(&fd)?;
            let cache = self.exclude_caches && names.contains(CACHE_TAG) && is_cache(&fd);
            Ok((folder, names, cache))
        });
        match listed {
            Ok((_, _, true)) => self.note(NoteClass::Skipped, &found.path, "a cache, says its CACHEDIR.TAG"),
            Ok((folder, names, false)) => {
                self.stack.push(Frame { folder, path: found.path.clone(), names, next: 0, root_bytes, root_device });
            }
            Err(errno) => self.note(class_of(errno), &found.path, format!("cannot list it: {errno}")),
        }
    }

    fn excluded(&self, relative: &[u8], is_folder: bool) -> bool {
        !self.exclude.is_empty() && self.exclude.matched(Path::new(OsStr::from_bytes(relative)), is_folder).is_ignore()
    }
}

/// What an error on a name that was listed means for the backup.
pub(super) fn class_of(errno: Errno) -> NoteClass {
    match errno {
        // A folder that became something else between the looks is gone as that folder.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => NoteClass::Vanished,
        _ => NoteClass::Unreadable,
    }
}

fn status_of(folder: &OwnedFd, name: &[u8]) -> rustix::io::Result<Status> {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).map(|stat| Status::of(&stat))
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn shown(path: &Path) -> String {
    RawText::from(path.as_os_str().as_bytes()).display()
}

/// The root without dots and doubled slashes.
fn plain(path: &Path) -> Result<PathBuf, SourceError> {
    let unusable = |what: &str| SourceError::RootUnusable { path: shown(path), what: what.to_owned() };
    if !path.is_absolute() {
        return Err(unusable("not an absolute path"));
    }
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => return Err(unusable("spelt with `..`, which says different things over links")),
            _ => {}
        }
    }
    Ok(plain)
}

/// What must be left out, as the walk from this root will meet it. The walk follows no link, so behind the root a path
/// without links is the only one that leads anywhere.
fn left_out_below(root: &Path, leave_out: &[LeftOut], paths: &mut HashMap<Vec<u8>, String>) -> Result<(), SourceError> {
    let real_root = without_links(root);
    for LeftOut { path, why } in leave_out {
        let real = without_links(path);
        if real_root.starts_with(&real) {
            return Err(SourceError::RootLeftOut { path: shown(root), why: why.clone() });
        }
        if let Ok(below) = real.strip_prefix(&real_root) {
            let met = root.join(below);
            paths.insert(met.as_os_str().as_bytes()[1..].to_vec(), why.clone());
        }
    }
    Ok(())
}

/// The path with its links followed, as far as it exists.
fn without_links(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => without_links(parent).join(name),
        _ => path.to_owned(),
    }
}

fn check_root(root: &Path) -> Result<(), SourceError> {
    match rustix::fs::lstat(root) {
        Ok(stat) => usable_root(root, &Status::of(&stat)).map(drop),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(SourceError::RootMissing { path: shown(root) }),
        Err(errno) => Err(SourceError::io("look at", shown(root), errno.into())),
    }
}

/// A root that is a link would be stored as a link, and nothing behind it: the classic way to back up nothing.
fn usable_root(root: &Path, status: &Status) -> Result<MemberKind, SourceError> {
    let what = match status.kind {
        Some(kind @ (MemberKind::File | MemberKind::Folder)) => return Ok(kind),
        Some(MemberKind::Symlink) => {
            let target = rustix::fs::readlink(root, Vec::new()).map(std::ffi::CString::into_bytes).unwrap_or_default();
            format!("a symbolic link to {}", shown(Path::new(&std::ffi::OsString::from_vec(target))))
        }
        _ => "neither a file nor a folder".to_owned(),
    };
    Err(SourceError::RootUnusable { path: shown(root), what })
}

fn patterns(exclude: &[String]) -> Result<Gitignore, SourceError> {
    let unusable = |pattern: &str, error: &ignore::Error| SourceError::Pattern {
        pattern: pattern.to_owned(),
        what: error.to_string(),
    };
    let mut builder = GitignoreBuilder::new("");
    for pattern in exclude {
        builder.add_line(None, pattern).map_err(|error| unusable(pattern, &error))?;
    }
    builder.build().map_err(|error| unusable(&exclude.join(", "), &error))
}

/// Whether the tag in this folder is a real one.
fn is_cache(folder: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut beginning = [0; CACHE_SIGNATURE.len()];
    let read = openat(folder, CACHE_TAG, flags, Mode::empty()).and_then(|tag| rustix::io::read(&tag, &mut beginning));
    read == Ok(CACHE_SIGNATURE.len()) && beginning == CACHE_SIGNATURE
}
