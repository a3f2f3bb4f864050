//! Whether a restored tree is what the contents say: every member, everything about it, and nothing besides.
//!
//! Files are read by several threads; members are taken from the iterator as they are needed, so that the contents
//! need not be in memory. What is kept of each member is a hash of its path, and where hard links may point.
//!
//! It does not know tar, or how the tree came to be: one that GNU tar extracted is judged the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::domain::contents::{Member, MemberKind, RawText};

use super::files::attributes::{self, Attributes, is_privileged};
use super::files::names::Names;
use super::files::status::Status;
use super::unpack::Cursor;
use super::unpack::UnpackError;

/// At most this many differences are told in full; the rest is counted.
const MAX_DIFFERENCES: usize = 1000;
/// More readers than this wait for the disk, not for each other.
const MAX_THREADS: usize = 16;
/// So many members are taken from the iterator at once.
const BATCH: usize = 64;
const READ_BYTES: usize = 256 * 1024;

/// What to hold the tree against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompareOptions {
    /// Owners count. Without, neither they nor the set-id bits and attributes that only root can give are compared.
    pub owners: bool,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Members that were looked at.
    pub compared: u64,
    /// The sizes of the files that were read, together.
    pub bytes: u64,
    /// The first differences, sorted by path.
    pub differences: Vec<Difference>,
    /// All differences.
    pub total_differences: u64,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Where.
    pub path: RawText,
    /// What: `content`, `mode`, `missing`, `extra`, ...
    pub what: &'static str,
    /// What the contents say.
    pub expected: String,
    /// What is there.
    pub actual: String,
}

/// Compares the tree below `root` with its members, in any order. A member with a flaw is compared too: what was
/// stored is what must come back.
///
/// # Errors
/// When the tree cannot be read at all. A file in it that cannot be read is a difference.
pub fn compare(
    root: &Path,
    members: &mut dyn Iterator<Item = Member>,
    options: CompareOptions,
) -> Result<Comparison, UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_path = root.as_os_str().as_encoded_bytes();
    let opened = openat(CWD, root, flags, Mode::empty());
    let root = opened.map_err(|errno| UnpackError::system("open", root_path, errno))?;
    let shared = Shared { root, options, state: Mutex::default() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (batches, queue) = sync_channel::<Vec<Member>>(2 * threads);
    let queue = Arc::new(Mutex::new(queue));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let shared = &shared;
            scope.spawn(move || {
                let mut buffer = vec![0; READ_BYTES];
                let mut cursor = Cursor::at(shared.root.as_fd());
                loop {
                    let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(batch) = batch else { break };
                    for member in &batch {
                        shared.member(member, &mut cursor, &mut buffer);
                    }
                }
            });
        }
        // The threads alone hold it now: when the last has panicked, sending fails instead of waiting for ever.
        drop(queue);
        loop {
            let batch: Vec<Member> = members.take(BATCH).collect();
            // The queue ends when every thread has panicked; the scope tells.
            if batch.is_empty() || batches.send(batch).is_err() {
                break;
            }
        }
        drop(batches);
    });

    shared.links();
    shared.extras(root_path)?;
    let State { mut comparison, .. } = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    comparison.differences.sort();
    Ok(comparison)
}

struct Shared {
    root: OwnedFd,
    options: CompareOptions,
    state: Mutex<State>,
}

type PathKey = [u8; 16];

#[derive(Default)]
struct State {
    comparison: Comparison,
    /// Everything that may be in the tree: members, and the folders above them.
    known: HashSet<PathKey>,
    /// Hard links as the contents have them, by target.
    links: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// The inodes of files with several names, as they are.
    inodes: HashMap<PathKey, (u64, u64)>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn differ(&self, path: &[u8], what: &'static str, expected: impl ToString, actual: impl ToString) {
        let mut state = self.lock();
        state.comparison.total_differences += 1;
        if state.comparison.differences.len() < MAX_DIFFERENCES {
            let (expected, actual) = (expected.to_string(), actual.to_string());
            state.comparison.differences.push(Difference { path: RawText::from(path), what, expected, actual });
        }
    }

    fn member(&self, member: &Member, cursor: &mut Cursor<'_>, buffer: &mut [u8]) {
        let path = &member.path.0[..];
        {
            let mut state = self.lock();
            state.comparison.compared += 1;
            let mut above = path;
            // Up to the first folder that is known already.
            while state.known.insert(key(above)) {
                let Some(slash) = above.iter().rposition(|byte| *byte == b'/') else { break };
                above = &above[..slash];
            }
            if let (MemberKind::Hardlink, Some(target)) = (member.kind, &member.link) {
                state.links.entry(target.0.clone()).or_default().push(path.to_vec());
            }
        }
        match self.look(member, cursor, buffer) {
            Ok(()) => {}
            Err(Looking::Path(error)) => self.differ(path, "missing", kind_name(member.kind), error),
            Err(Looking::System(Errno::NOENT)) => self.differ(path, "missing", kind_name(member.kind), "nothing"),
            Err(Looking::System(errno)) => self.differ(path, "unreadable", kind_name(member.kind), errno),
        }
    }

    fn look(&self, member: &Member, cursor: &mut Cursor<'_>, buffer: &mut [u8]) -> Result<(), Looking> {
        let path = &member.path.0[..];
        let (parent, name) = super::unpack::split(path).map_err(Looking::Path)?;
        let folder = cursor.existing(parent).map_err(Looking::Path)?;
        let status = Status::of(&statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let kind = if member.kind == MemberKind::Hardlink { MemberKind::File } else { member.kind };
        if status.kind != Some(kind) {
            self.differ(path, "kind", kind_name(member.kind), status.kind.map_or("a socket", kind_name));
            return Ok(());
        }
        if status.links > 1 && kind == MemberKind::File {
            self.lock().inodes.insert(key(path), (status.device, status.inode));
        }
        if member.kind == MemberKind::Hardlink {
            // The rest is its target's.
            return Ok(());
        }

        let foreign = (member.uid, member.gid) != (status.uid, status.gid);
        if self.options.owners && foreign {
            let owner = |uid, gid| format!("{uid}:{gid}");
            self.differ(path, "owner", owner(member.uid, member.gid), owner(status.uid, status.gid));
        }
        let mask = if foreign && !self.options.owners { 0o1777 } else { 0o7777 };
        if kind != MemberKind::Symlink && member.mode & mask != status.mode & mask {
            self.differ(path, "mode", format!("{:04o}", member.mode), format!("{:04o}", status.mode));
        }
        if (member.mtime_seconds, member.mtime_nanos) != status.mtime {
            let time = |seconds: i64, nanos: u32| format!("{seconds} s and {nanos} ns");
            let expected = time(member.mtime_seconds, member.mtime_nanos);
            self.differ(path, "mtime", expected, time(status.mtime.0, status.mtime.1));
        }
        if let Some(numbers) = member.device.filter(|numbers| *numbers != status.numbers) {
            let shown = |(major, minor): (u32, u32)| format!("{major}:{minor}");
            self.differ(path, "device", shown(numbers), shown(status.numbers));
        }
        if kind == MemberKind::Symlink {
            let target = RawText(readlinkat(folder, name, Vec::new())?.into_bytes());
            let expected = member.link.clone().unwrap_or_default();
            if target != expected {
                self.differ(path, "link", expected.display(), target.display());
            }
        }
        let attributes = if kind == MemberKind::File {
            let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            self.content(member, &file, &status, buffer)?;
            attributes::of_open(file.as_fd())?
        } else {
            attributes::of_entry(&folder, name)?
        };
        self.attributes(member, attributes);
        Ok(())
    }

    fn content(&self, member: &Member, file: &OwnedFd, status: &Status, buffer: &mut [u8]) -> Result<(), Errno> {
        let path = &member.path.0[..];
        if member.size_bytes != status.size_bytes {
            self.differ(path, "size", member.size_bytes, status.size_bytes);
            return Ok(());
        }
        let Some(expected) = member.blake3 else {
            self.differ(path, "hash in the contents", "one", "none");
            return Ok(());
        };
        let actual = super::files::hash_of(file, status, buffer)?;
        if actual != expected {
            self.differ(path, "content", expected, actual);
        }
        self.lock().comparison.bytes += member.size_bytes;
        Ok(())
    }

    fn attributes(&self, member: &Member, actual: Attributes) {
        let counts = |name: &RawText| self.options.owners || !is_privileged(&name.0);
        let names = |all: &[(RawText, RawText)]| {
            let all: Vec<String> = all.iter().map(|(name, _)| name.display()).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        let kept =
            |all: &[(RawText, RawText)]| all.iter().filter(|(name, _)| counts(name)).cloned().collect::<Vec<_>>();
        let (expected, actual) = (kept(&member.xattrs), kept(&actual));
        if expected != actual {
            // Names only, unless they are the same: values may be anything.
            let (expected, mut shown) = (names(&expected), names(&actual));
            if expected == shown {
                shown.push_str(", with another value");
            }
            self.differ(&member.path.0, "xattrs", expected, shown);
        }
    }

    /// Whether names that were one inode still are.
    fn links(&self) {
        let (links, inodes) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.links), std::mem::take(&mut state.inodes))
        };
        for (target, names) in links {
            let inode = inodes.get(&key(&target));
            for name in names {
                if inode.is_none() || inodes.get(&key(&name)) != inode {
                    let expected = format!("a hard link to {}", RawText::from(&target[..]).display());
                    self.differ(&name, "link", expected, "another inode");
                }
            }
        }
    }

    /// Whatever stands in the tree and in no member's path.
    fn extras(&self, root_path: &[u8]) -> Result<(), UnpackError> {
        let list = |path: &[u8]| -> Result<(Names, Vec<bool>), Looking> {
            let mut cursor = Cursor::at(self.root.as_fd());
            let folder = cursor.existing(path).map_err(Looking::Path)?;
            // A descriptor of its own: that of the root may have been read to its end.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(folder, ".", flags, Mode::empty())?;
            let names = Names::list(&folder)?;
            let mut folders = Vec::new();
            while let Some(name) = names.get(folders.len()) {
                let status = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Status::of(&stat));
                folders.push(status.is_ok_and(|status| status.kind == Some(MemberKind::Folder)));
            }
            Ok((names, folders))
        };
        let mut stack = vec![Vec::new()];
        while let Some(path) = stack.pop() {
            let (names, folders) = match list(&path) {
                Ok(listed) => listed,
                Err(Looking::System(errno)) if path.is_empty() => {
                    return Err(UnpackError::system("list", root_path, errno));
                }
                Err(Looking::System(errno)) => {
                    self.differ(&path, "unreadable", "a folder", errno);
                    continue;
                }
                Err(Looking::Path(error)) => {
                    self.differ(&path, "unreadable", "a folder", error);
                    continue;
                }
            };
            for (place, is_folder) in folders.into_iter().enumerate() {
                let Some(name) = names.get(place) else { break };
                let entry = if path.is_empty() { name.to_vec() } else { [&path[..], b"/", name].concat() };
                if !self.lock().known.contains(&key(&entry)) {
                    self.differ(&entry, "extra", "nothing", if is_folder { "a folder" } else { "an entry" });
                } else if is_folder {
                    stack.push(entry);
                }
            }
        }
        Ok(())
    }
}

/// Why a member could not be looked at.
enum Looking {
    Path(UnpackError),
    System(Errno),
}

impl From<Errno> for Looking {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

fn kind_name(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::File => "a file",
        MemberKind::Folder => "a folder",
        MemberKind::Symlink => "a symbolic link",
        MemberKind::Hardlink => "a hard link",
        MemberKind::Fifo => "a FIFO",
        MemberKind::Char => "a character device",
        MemberKind::Block => "a block device",
    }
}

fn key(path: &[u8]) -> PathKey {
    let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(path).as_bytes();
    key
}
