//! From entries to pieces: what belongs together, by what it is recognised in the next run, and whether the base has
//! it already.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::contents::{Facts, MemberKind};
use crate::sources::memory::Memory;
use crate::sources::{Body, Cut, Finished, OpenPiece, Piece, Signature, Snapshot, SourceError, tar};

use super::read::{BundlePiece, EndPiece, LargePiece};
use super::status::Status;
use super::walk::{Found, Walk};

/// Files from this size on are cut by content: what is smaller costs at most this much when it changes.
pub(super) const LARGE_FILE_BYTES: u64 = 1024 * 1024;
/// Files from this size on share segments with their like only: a note of a kilobyte that changes must not store the
/// picture beside it again.
const MIDDLE_FILE_BYTES: u64 = 64 * 1024;
/// Small enough that a changed file of a few kilobytes re-stores little.
const SMALL: BundleSizes = BundleSizes { least: 40 * 1024, more: 32 * 1024, most: 512 * 1024 };
/// On average ten times the smallest of these files: what a changed one stores again is no more than that, for each of its
/// bytes.
const MIDDLE: BundleSizes = BundleSizes { least: 384 * 1024, more: 256 * 1024, most: 1024 * 1024 };
/// More files of one folder do not wait for its end: they would fill the memory.
const WAITING_FILES: usize = 4096;
/// A file whose change time lies less than this before the snapshot's opening may be changed again without a new
/// time: clocks of file systems tick in steps, of 10 ms in a kernel, of up to 2 s on FAT. It is read again next time.
const RACY_SECONDS: i64 = 2;
/// Goes into every signature: to be raised when the same files would be written as other bytes.
const SIGNATURE_CONTEXT: &str = "lifeboat 2026-11-22 signature of a piece of files, version 1";

/// An entry with its place in the plan.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) found: Found,
    pub(super) role: Role,
}

/// What an entry has to do with hard links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    Alone,
    /// Later members are links to it: it must be there, whatever happens to it.
    Target,
    /// Another name of the member at this path.
    Link(Vec<u8>),
}

/// How long bundles get, in bytes of tar.
struct BundleSizes {
    /// A bundle is not ended before this ...
    least: u64,
    /// ... on average is ended so much later ...
    more: u64,
    /// ... and of several members never gets longer than this.
    most: u64,
}

/// Members that will be one segment.
#[derive(Debug, Default)]
struct Bundle {
    members: Vec<Planned>,
    bytes: u64,
}

/// Sums over what was planned and written.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) members: AtomicU64,
    pub(super) logical_bytes: AtomicU64,
}

pub(super) struct FilesSnapshot<'a> {
    walk: Walk,
    name_key: [u8; 32],
    memory: Option<&'a Memory>,
    opened: DateTime<Utc>,
    /// First paths of files with several names, by inode, with the number of names not met yet.
    linked: HashMap<(u64, u64), (Vec<u8>, u64)>,
    /// Small entries. What is in it comes from the folder at hand, or from folders that hold nothing else.
    small: Bundle,
    /// The larger files of one folder. They come behind its small entries, all together, so that they do not cut these
    /// bundles short; and before any other folder, because GNU tar sets a folder's time when it leaves it.
    waiting: Vec<Planned>,
    /// Pieces to hand out before the walk goes on.
    ready: VecDeque<Piece>,
    ended: bool,
    totals: Arc<Totals>,
}

impl<'a> FilesSnapshot<'a> {
    pub(super) fn new(walk: Walk, name_key: [u8; 32], memory: Option<&'a Memory>, opened: DateTime<Utc>) -> Self {
        Self {
            walk,
            name_key,
            memory,
            opened,
            linked: HashMap::new(),
            small: Bundle::default(),
            waiting: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            totals: Arc::default(),
        }
    }

    fn place(&mut self, planned: Planned) {
        // A folder's entry opens it: what comes next is inside.
        let leaves = |first: &Planned| planned.found.kind == MemberKind::Folder || folder(first) != folder(&planned);
        if self.waiting.first().is_some_and(leaves) {
            self.end_folder();
        }
        let is_small = logical_bytes(&planned) < MIDDLE_FILE_BYTES;
        match planned.role {
            _ if is_small => {
                let mut small = std::mem::take(&mut self.small);
                self.add(&mut small, planned, &SMALL);
                self.small = small;
            }
            // Its other names may be among the small entries that follow.
            Role::Target => {
                self.waiting.push(planned);
                self.end_folder();
            }
            _ => self.waiting.push(planned),
        }
        if self.waiting.len() >= WAITING_FILES {
            self.end_folder();
        }
    }

    /// Plans the larger files that wait: the folder is left, or they are many.
    fn end_folder(&mut self) {
        let small = std::mem::take(&mut self.small);
        self.close(small);
        let mut middle = Bundle::default();
        let (large, waiting): (Vec<Planned>, Vec<Planned>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|file| logical_bytes(file) >= LARGE_FILE_BYTES);
        for planned in waiting {
            self.add(&mut middle, planned, &MIDDLE);
        }
        self.close(middle);
        for planned in large {
            let piece = self.large(planned);
            self.ready.push_back(piece);
        }
    }

    fn add(&mut self, bundle: &mut Bundle, planned: Planned, sizes: &BundleSizes) {
        let bytes = tar_bytes(&planned);
        if bundle.bytes + bytes > sizes.most {
            self.close(std::mem::take(bundle));
        }
        bundle.bytes += bytes;
        let ends = bundle.bytes >= sizes.least && self.ends_bundle(&planned, bytes, sizes);
        bundle.members.push(planned);
        if ends {
            self.close(std::mem::take(bundle));
        }
    }

    /// The first name of an inode carries the data. It is only counted on if it can be opened now, so that what
    /// this user may not read is noted under each of its names.
    fn role(&mut self, found: &Found) -> Role {
        if found.kind != MemberKind::File || found.status.links < 2 {
            return Role::Alone;
        }
        let inode = (found.status.device, found.status.inode);
        if let Some((target, left)) = self.linked.get_mut(&inode) {
            let role = Role::Link(target.clone());
            *left -= 1;
            if *left == 0 {
                self.linked.remove(&inode);
            }
            return role;
        }
        if super::read::can_open(found) {
            self.linked.insert(inode, (found.path.clone(), found.status.links - 1));
            return Role::Target;
        }
        Role::Alone
    }

    /// Whether a bundle that is long enough ends behind this entry: chosen by its name, so that neighbours that come
    /// and go move few ends of other bundles; the more likely, the larger it is.
    fn ends_bundle(&self, planned: &Planned, bytes: u64, sizes: &BundleSizes) -> bool {
        let chance = bytes.min(sizes.more);
        let hash = blake3::keyed_hash(&self.name_key, &planned.found.path);
        let [a, b, c, d, ..] = *hash.as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d])) * sizes.more < chance << 32
    }

    fn close(&mut self, bundle: Bundle) {
        let members = bundle.members;
        if members.is_empty() {
            return;
        }
        let signature = self.signature(&members);
        let trusted = !members.iter().any(|planned| self.is_racy(&planned.found.status));
        let logical_bytes = members.iter().map(logical_bytes).sum();
        let totals = Arc::clone(&self.totals);
        let piece = self.piece(signature, trusted, logical_bytes, Cut::Never, |counted| {
            Box::new(BundlePiece { members, trusted, totals, counted })
        });
        self.ready.push_back(piece);
    }

    fn large(&mut self, planned: Planned) -> Piece {
        let signature = self.signature(std::slice::from_ref(&planned));
        let trusted = !self.is_racy(&planned.found.status);
        let logical_bytes = logical_bytes(&planned);
        let totals = Arc::clone(&self.totals);
        self.piece(signature, trusted, logical_bytes, Cut::Content, |counted| {
            Box::new(LargePiece { planned, trusted, totals, counted })
        })
    }

    /// A piece, remembered if the base has it. `open` is told what of it is already in the totals.
    fn piece(
        &mut self,
        signature: Signature,
        trusted: bool,
        logical_bytes: u64,
        cut: Cut,
        open: impl FnOnce((u64, u64)) -> Box<dyn OpenPiece>,
    ) -> Piece {
        let remembered = self.memory.filter(|_| trusted).and_then(|memory| memory.lookup(&signature));
        let body = match remembered {
            Some(piece) => {
                self.totals.members.fetch_add(piece.members, Ordering::Relaxed);
                self.totals.logical_bytes.fetch_add(logical_bytes, Ordering::Relaxed);
                let reread = open((piece.members, logical_bytes));
                Body::Remembered { piece, reread }
            }
            None => Body::Open(open((0, 0))),
        };
        Piece { signature, body, cut }
    }

    /// Over everything that is in a member or shows that its content is another: any write, any change of mode, owner,
    /// link or attribute gives a new change time. Device numbers of the file system are left out: they differ from
    /// boot to boot.
    fn signature(&self, members: &[Planned]) -> Signature {
        let mut hasher = blake3::Hasher::new_derive_key(SIGNATURE_CONTEXT);
        let mut text = Vec::with_capacity(256);
        for Planned { found, role } in members {
            let Status { size_bytes, mode, uid, gid, mtime, ctime, inode, numbers, .. } = found.status;
            text.clear();
            text.extend((found.path.len() as u64).to_le_bytes());
            text.extend(&found.path);
            text.push(found.kind as u8);
            for number in [size_bytes, inode, mtime.0.cast_unsigned(), ctime.0.cast_unsigned()] {
                text.extend(number.to_le_bytes());
            }
            for number in [mtime.1, ctime.1, mode, uid, gid, numbers.0, numbers.1] {
                text.extend(number.to_le_bytes());
            }
            match role {
                Role::Alone => text.push(0),
                Role::Target => text.push(1),
                Role::Link(target) => {
                    text.push(2);
                    text.extend((target.len() as u64).to_le_bytes());
                    text.extend(target);
                }
            }
            hasher.update(&text);
        }
        *hasher.finalize().as_bytes()
    }

    /// The change time decides, and it alone: nobody can set it, while a modification time in the future may be as
    /// old as the file.
    fn is_racy(&self, status: &Status) -> bool {
        let limit = self.opened - TimeDelta::seconds(RACY_SECONDS);
        status.ctime >= (limit.timestamp(), limit.timestamp_subsec_nanos())
    }
}

impl Snapshot for FilesSnapshot<'_> {
    fn recovery_point(&self) -> DateTime<Utc> {
        self.opened
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, SourceError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            match self.walk.next()? {
                Some(found) => {
                    let role = self.role(&found);
                    self.place(Planned { found, role });
                }
                None => {
                    self.end_folder();
                    self.ended = true;
                    let signature =
                        *blake3::Hasher::new_derive_key(SIGNATURE_CONTEXT).update(b"end").finalize().as_bytes();
                    let end = self.piece(signature, true, 0, Cut::Never, |_| Box::new(EndPiece));
                    self.ready.push_back(end);
                }
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Finished, SourceError> {
        let facts = Facts::Files {
            members: self.totals.members.load(Ordering::Relaxed),
            logical_bytes: self.totals.logical_bytes.load(Ordering::Relaxed),
        };
        Ok(Finished { facts: Some(facts), notes: self.walk.take_notes() })
    }
}

/// The folder that an entry is in.
fn folder(planned: &Planned) -> &[u8] {
    let path = &planned.found.path;
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

fn logical_bytes(planned: &Planned) -> u64 {
    match planned.role {
        Role::Link(_) => 0,
        Role::Alone | Role::Target => planned.found.status.size_bytes,
    }
}

/// About what a member takes in the tar, attributes aside: three blocks of headers, its long names, its data.
fn tar_bytes(planned: &Planned) -> u64 {
    let link = if let Role::Link(target) = &planned.role { target.len() as u64 } else { 0 };
    let names = planned.found.path.len() as u64 + link + planned.found.status.target_bytes;
    let block = tar::BLOCK_BYTES as u64;
    3 * block + if names > 100 { names } else { 0 } + logical_bytes(planned).next_multiple_of(block)
}
