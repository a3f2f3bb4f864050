//! From entries to pieces: what belongs together, by what it is recognised in the next run, and whether the base has
//! it already.

use std::collections::HashMap;
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
/// Files from this size on share a segment with no other: a note of a kilobyte that changes must not store the picture
/// beside it again.
const LONE_FILE_BYTES: u64 = 64 * 1024;
/// A bundle ends on average after this many bytes: small enough that a changed file re-stores little, large enough
/// that an object's own cost does not show.
const BUNDLE_BYTES: u64 = 128 * 1024;
/// A bundle of several members never gets longer than this.
const MAX_BUNDLE_BYTES: u64 = 512 * 1024;
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
    bundle: Vec<Planned>,
    bundle_bytes: u64,
    /// Taken from the walk, but not part of the bundle before it.
    held: Option<Planned>,
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
            bundle: Vec::new(),
            bundle_bytes: 0,
            held: None,
            ended: false,
            totals: Arc::default(),
        }
    }

    fn next_planned(&mut self) -> Result<Option<Planned>, SourceError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        Ok(self.walk.next()?.map(|found| Planned { role: self.role(&found), found }))
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

    /// Whether a bundle ends behind this entry: chosen by its name, so that neighbours that come and go do not
    /// move the ends of other bundles; the more likely, the larger it is.
    fn ends_bundle(&self, planned: &Planned, bytes: u64) -> bool {
        let chance = bytes.min(BUNDLE_BYTES);
        let hash = blake3::keyed_hash(&self.name_key, &planned.found.path);
        let [a, b, c, d, ..] = *hash.as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d])) * BUNDLE_BYTES < chance << 32
    }

    fn close_bundle(&mut self) -> Piece {
        self.bundle_bytes = 0;
        let members = std::mem::take(&mut self.bundle);
        let signature = self.signature(&members);
        let trusted = !members.iter().any(|planned| self.is_racy(&planned.found.status));
        let logical_bytes = members.iter().map(logical_bytes).sum();
        let totals = Arc::clone(&self.totals);
        self.piece(signature, trusted, logical_bytes, Cut::Never, |counted| {
            Box::new(BundlePiece { members, trusted, totals, counted })
        })
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
            let Some(planned) = self.next_planned()? else {
                if !self.bundle.is_empty() {
                    return Ok(Some(self.close_bundle()));
                }
                if self.ended {
                    return Ok(None);
                }
                self.ended = true;
                let signature = *blake3::Hasher::new_derive_key(SIGNATURE_CONTEXT).update(b"end").finalize().as_bytes();
                return Ok(Some(self.piece(signature, true, 0, Cut::Never, |_| Box::new(EndPiece))));
            };
            let bytes = tar_bytes(&planned);
            let lone = logical_bytes(&planned) >= LONE_FILE_BYTES;
            if !self.bundle.is_empty() && (lone || self.bundle_bytes + bytes > MAX_BUNDLE_BYTES) {
                self.held = Some(planned);
                return Ok(Some(self.close_bundle()));
            }
            if logical_bytes(&planned) >= LARGE_FILE_BYTES {
                return Ok(Some(self.large(planned)));
            }
            let ends = lone || self.ends_bundle(&planned, bytes);
            self.bundle.push(planned);
            self.bundle_bytes += bytes;
            if ends {
                return Ok(Some(self.close_bundle()));
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
