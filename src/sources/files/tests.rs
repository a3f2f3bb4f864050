//! From trees to tars and back, judged by [`compare`] and by GNU tar. They need root: owners, devices, `trusted.*`.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use rustix::fs::{
    CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mkdirat, mknodat, openat, setxattr,
};

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::domain::contents::{Facts, Flaw, Member, MemberKind, Note, NoteClass};
use crate::domain::ids::{BackupId, KeyedId, ObjectId};
use crate::domain::segment::{MAX_FILE_SEGMENT_BYTES, SegmentRef};
use crate::sources::compare::{CompareOptions, compare};
use crate::sources::memory::{Memory, MemoryHead, MemoryWriter, Remembered};
use crate::sources::unpack::{Summary, UnpackOptions, Unpacker};
use crate::sources::{Body, Cut, Piece, Signature, Sink};

/// Collects segments; cuts content every so many bytes; may do something to the world at the first write.
struct Segments<'a> {
    done: Vec<Vec<u8>>,
    current: Vec<u8>,
    cut: Cut,
    meanwhile: Option<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Segments<'a> {
    fn new(cut: Cut) -> Self {
        Self { done: Vec::new(), current: Vec::new(), cut, meanwhile: None }
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        self.boundary().unwrap();
        self.done
    }
}

impl Write for Segments<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.current.extend(bytes);
        if self.cut == Cut::Content && !self.done.is_empty() {
            while self.current.len() > 300_001 {
                let rest = self.current.split_off(300_001);
                self.done.push(std::mem::replace(&mut self.current, rest));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Segments<'_> {
    fn boundary(&mut self) -> io::Result<()> {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
        Ok(())
    }
}

/// A run, with everything that it gave.
#[derive(Default)]
struct Run {
    pieces: Vec<(Signature, Vec<Vec<u8>>, u64)>,
    trusted: Vec<Signature>,
    members: Vec<Member>,
    notes: Vec<Note>,
    facts: Option<Facts>,
    opened: usize,
    remembered: usize,
}

impl Run {
    fn of(options: &FilesOptions, clock: Arc<dyn Clock>, memory: Option<&Memory>) -> Self {
        let source = FilesSource::new(options.clone(), clock);
        let mut snapshot = source.open(memory).unwrap();
        let mut run = Self::default();
        while let Some(Piece { signature, body, cut }) = snapshot.next_piece().unwrap() {
            let open = match body {
                Body::Open(open) => open,
                Body::Remembered { piece, .. } => {
                    run.remembered += 1;
                    run.pieces.push((signature, Vec::new(), piece.members));
                    continue;
                }
            };
            run.opened += 1;
            let mut sink = Segments::new(cut);
            let written = open.write(&mut sink).unwrap();
            let segments = sink.finish();
            for segment in &segments {
                assert!(segment.len() <= MAX_FILE_SEGMENT_BYTES);
            }
            assert_eq!(segments.iter().map(Vec::len).sum::<usize>() % 512, 0);
            if written.trusted {
                run.trusted.push(signature);
            }
            run.pieces.push((signature, segments, written.members.len() as u64));
            run.members.extend(written.members);
            run.notes.extend(written.notes);
        }
        let finished = snapshot.finish().unwrap();
        run.facts = finished.facts;
        run.notes.extend(finished.notes);
        run
    }

    fn memory(&self, folder: &Path) -> Memory {
        let mut writer = MemoryWriter::create(&folder.join("memory")).unwrap();
        for (signature, segments, members) in &self.pieces {
            if self.trusted.contains(signature) {
                let reference = |bytes: &Vec<u8>| SegmentRef {
                    object: ObjectId([1; 32]),
                    stored_bytes: 1,
                    id: KeyedId([2; 32]),
                    plain_bytes: bytes.len() as u64,
                };
                let segments = segments.iter().map(reference).collect();
                writer.push(signature, &Remembered { segments, lines: Vec::new(), members: *members }).unwrap();
            }
        }
        let head = MemoryHead {
            backup: BackupId::from_random([1; 8]),
            recipient_set: String::new(),
            id_key_hash: [0; 32],
            contents: Vec::new(),
        };
        writer.finish(&head).unwrap().commit().unwrap();
        Memory::open(&folder.join("memory")).unwrap()
    }

    fn unpack(&self, target: &Path) -> Summary {
        let unpacker = Unpacker::create(target, UnpackOptions { owners: true, overwrite: false }).unwrap();
        // In no helpful order, by two threads.
        let (even, odd): (Vec<_>, Vec<_>) = self.pieces.iter().rev().enumerate().partition(|(at, _)| at % 2 == 0);
        std::thread::scope(|scope| {
            for half in [even, odd] {
                let unpacker = &unpacker;
                scope.spawn(move || half.iter().for_each(|(_, (_, segments, _))| put(unpacker, segments)));
            }
        });
        unpacker.finish().unwrap()
    }

    fn unpack_with_gnu_tar(&self, target: &Path) {
        std::fs::create_dir(target).unwrap();
        let mut tar = Command::new("tar")
            .args(["-xp", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "-C"])
            .arg(target)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = tar.stdin.take().unwrap();
        for segment in self.pieces.iter().flat_map(|(_, segments, _)| segments) {
            input.write_all(segment).unwrap();
        }
        drop(input);
        assert!(tar.wait().unwrap().success());
    }

    fn assert_equals(&self, target: &Path) {
        let comparison = compare(target, &mut self.members.iter().cloned(), CompareOptions { owners: true }).unwrap();
        assert_eq!(comparison.differences, []);
        assert_eq!(comparison.total_differences, 0);
        assert_eq!(comparison.compared, self.members.len() as u64);
    }

    fn paths(&self) -> Vec<String> {
        self.members.iter().map(|member| member.path.display()).collect()
    }

    fn member(&self, path: &Path) -> &Member {
        let path = &path.as_os_str().as_encoded_bytes()[1..];
        self.members.iter().find(|member| member.path.0 == path).unwrap()
    }
}

fn put(unpacker: &Unpacker, segments: &[Vec<u8>]) {
    match segments {
        [] => {}
        [whole] => {
            unpacker.unpack(whole, &|_| true).unwrap();
        }
        [head, data @ ..] => {
            let large = unpacker.begin_large(head, &|_| true).unwrap().unwrap();
            let mut end: u64 = data.iter().map(|bytes| bytes.len() as u64).sum();
            for bytes in data.iter().rev() {
                end -= bytes.len() as u64;
                large.write_at(end, bytes).unwrap();
            }
            large.finish().unwrap();
        }
    }
}

fn options(path: &Path) -> FilesOptions {
    FilesOptions { paths: vec![path.to_owned()], name_key: [7; 32], ..FilesOptions::default() }
}

/// A clock an hour on: everything on disk is old enough to be believed.
fn later() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(Utc::now() + TimeDelta::hours(1)))
}

fn run(path: &Path) -> Run {
    Run::of(&options(path), later(), None)
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn with_holes(path: &Path, size_bytes: u64, data: &[(u64, usize)]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size_bytes).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(&noise(*bytes, *offset), *offset).unwrap();
    }
}

/// One of everything.
fn zoo(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let at = |name: &str| root.join(name);
    std::fs::create_dir(root).unwrap();
    for folder in ["a", "a/deep", "a/deep/er", "empty", "shut"] {
        std::fs::create_dir(at(folder)).unwrap();
    }
    for count in 0..400 {
        std::fs::write(at(&format!("a/deep/file-{count}")), noise(count * 37, count as u64)).unwrap();
    }
    std::fs::write(at("a/empty"), b"").unwrap();
    std::fs::write(at("a/large"), noise(3_000_001, 1)).unwrap();
    std::fs::write(at("a-sorts-after-a"), b"x").unwrap();
    std::fs::write(at("setuid"), b"#!").unwrap();
    std::os::unix::fs::chown(at("setuid"), Some(1234), Some(4_000_000_000)).unwrap();
    std::fs::set_permissions(at("setuid"), PermissionsExt::from_mode(0o6755)).unwrap();
    std::fs::write(at("unreadable-but-for-root"), b"x").unwrap();
    std::fs::set_permissions(at("unreadable-but-for-root"), PermissionsExt::from_mode(0o0)).unwrap();
    std::fs::write(at("shut/inside"), b"x").unwrap();
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), b"x").unwrap();
    std::fs::write(at("new\nline"), b"x").unwrap();
    std::fs::write(at("ümlaut"), b"x").unwrap();
    std::fs::write(at(&"n".repeat(255)), b"x").unwrap();
    symlink("a/deep", at("link")).unwrap();
    symlink("/nowhere/at/all", at("dangling")).unwrap();
    symlink("x".repeat(4000), at("long-link")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xfe"), at("odd-link")).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(77), Some(78)).unwrap();
    std::fs::hard_link(at("a/deep/file-7"), at("a/deep/zz-other-name")).unwrap();
    std::fs::hard_link(at("a/large"), at("z-large-again")).unwrap();
    with_holes(&at("holes"), 900_000, &[(100_000, 5000), (500_000, 70_000)]);
    with_holes(&at("large-holes"), 50 << 20, &[(0, 1), (9 << 20, 2_000_000), (40 << 20, 4096)]);
    with_holes(&at("all-hole"), 20 << 20, &[]);
    with_holes(&at("ends-in-data"), 5 << 20, &[((5 << 20) - 10, 10)]);
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null).unwrap();
    let disk = rustix::fs::makedev(259, 300_000);
    mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o660), disk).unwrap();

    let acl = tar_acl(1000);
    for (path, name, value) in [
        ("a/deep/file-3", "user.plain", &b"value"[..]),
        ("a/deep/file-3", "user.empty", b""),
        ("a/deep/file-3", "user.odd=%name", b"\0\xff\n"),
        ("a/large", "user.large", &noise(2000, 5)),
        ("setuid", "trusted.ours", b"x"),
        ("a", "user.folder", b"y"),
        ("a/deep/file-4", "system.posix_acl_access", &acl),
        ("a/deep/er", "system.posix_acl_default", &acl),
    ] {
        setxattr(at(path), name, value, XattrFlags::empty()).unwrap();
    }
    lsetxattr(at("link"), "trusted.on-a-link", b"z", XattrFlags::empty()).unwrap();
    std::fs::write(at("a/deep/er/inherits"), b"x").unwrap();

    set_time(&at("a/empty"), -86_400, 250_000_000);
    set_time(&at("a-sorts-after-a"), -1, 1);
    set_time(&at("link"), 1_000_000_000, 123_456_789);
    set_time(&at("fifo"), 5, 0);
    set_time(&at("shut"), 12, 13);
    std::fs::set_permissions(at("shut"), PermissionsExt::from_mode(0o1000)).unwrap();
    set_time(&at("a/deep"), 99, 999_999_999);
    set_time(root, 1, 1);
}

fn tar_acl(uid: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, uid),
        (4, 4, u32::MAX),
        (8, 2, 2000),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn one_of_everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("zoo");
    zoo(&root);
    let run = run(&root);
    assert_eq!(run.notes, []);
    assert!(run.pieces.len() > 5, "{} pieces", run.pieces.len());
    let attributes = |name: &str| -> Vec<(String, usize)> {
        let xattrs = &run.member(&root.join(name)).xattrs;
        xattrs.iter().map(|(name, value)| (name.display(), value.0.len())).collect()
    };
    let expect =
        |list: &[(&str, usize)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect::<Vec<_>>();
    assert_eq!(attributes("a/deep/file-3"), expect(&[("user.empty", 0), ("user.odd=%name", 3), ("user.plain", 5)]));
    assert_eq!(attributes("a/large"), expect(&[("user.large", 2000)]));
    assert_eq!(attributes("link"), expect(&[("trusted.on-a-link", 1)]));
    assert_eq!(attributes("a/deep/er"), expect(&[("system.posix_acl_default", 52)]));
    assert_eq!(attributes("a/deep/file-4"), expect(&[("system.posix_acl_access", 52)]));
    assert_eq!(attributes("a/deep/er/inherits")[0].0, "system.posix_acl_access");
    let large = run.member(&root.join("a/large"));
    assert_eq!(large.blake3.unwrap().0, *blake3::hash(&noise(3_000_001, 1)).as_bytes());
    assert_eq!(run.member(&root.join("z-large-again")).kind, MemberKind::Hardlink);
    let Some(Facts::Files { members, logical_bytes }) = run.facts else { panic!("{:?}", run.facts) };
    assert_eq!(members, run.members.len() as u64);
    assert_eq!(logical_bytes, run.members.iter().map(|member| member.size_bytes).sum::<u64>());

    let ours = folder.path().join("ours");
    assert_eq!(run.unpack(&ours), Summary::default());
    run.assert_equals(&ours);
    let restored = ours.join(root.strip_prefix("/").unwrap());
    for name in ["holes", "large-holes", "all-hole", "ends-in-data"] {
        let (before, after) = (root.join(name).metadata().unwrap(), restored.join(name).metadata().unwrap());
        assert!(after.blocks() <= before.blocks(), "{name}: {} blocks", after.blocks());
    }

    let gnu = folder.path().join("gnu");
    run.unpack_with_gnu_tar(&gnu);
    run.assert_equals(&gnu);
}

#[test]
fn differences_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("zoo");
    zoo(&root);
    let run = run(&root);
    let target = folder.path().join("target");
    run.unpack(&target);
    let tree = target.join(root.strip_prefix("/").unwrap());
    let at = |name: &str| tree.join(name);

    let time = |path: &Path| (path.metadata().unwrap().mtime(), path.metadata().unwrap().mtime_nsec());
    let before = time(&at("a/deep/file-100"));
    std::fs::write(at("a/deep/file-100"), noise(3700, 0)).unwrap();
    set_time(&at("a/deep/file-100"), before.0, before.1);
    std::fs::set_permissions(at("a/deep/file-5"), PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(at("a/deep/file-6"), Some(5), None).unwrap();
    set_time(&at("a/deep/file-8"), 0, 0);
    rustix::fs::removexattr(at("a/deep/file-3"), "user.plain").unwrap();
    let folder_time = time(&at("a/deep"));
    std::fs::remove_file(at("a/deep/file-9")).unwrap();
    std::fs::write(at("a/deep/extra"), b"x").unwrap();
    // A copy instead of a link.
    let link_time = time(&at("a/deep/zz-other-name"));
    std::fs::remove_file(at("a/deep/zz-other-name")).unwrap();
    std::fs::copy(at("a/deep/file-7"), at("a/deep/zz-other-name")).unwrap();
    set_time(&at("a/deep/zz-other-name"), link_time.0, link_time.1);
    set_time(&at("a/deep"), folder_time.0, folder_time.1);
    let top = time(&tree);
    std::fs::remove_file(at("odd-link")).unwrap();
    symlink("elsewhere", at("odd-link")).unwrap();
    set_time(&tree, top.0, top.1);

    let comparison = compare(&target, &mut run.members.iter().cloned(), CompareOptions { owners: true }).unwrap();
    let found: Vec<(String, &str)> = comparison
        .differences
        .iter()
        .map(|difference| (difference.path.display().rsplit('/').next().unwrap().to_owned(), difference.what))
        .collect();
    let expected = [
        ("extra", "extra"),
        ("file-100", "content"),
        ("file-3", "xattrs"),
        ("file-5", "mode"),
        ("file-6", "owner"),
        ("file-8", "mtime"),
        ("file-9", "missing"),
        ("zz-other-name", "link"),
        ("odd-link", "link"),
        ("odd-link", "mtime"),
    ];
    assert_eq!(found, expected.map(|(name, what)| (name.to_owned(), what)));
}

#[test]
fn an_unchanged_tree_is_not_opened_and_one_change_opens_one_piece() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("zoo");
    zoo(&root);
    let first = run(&root);
    assert_eq!(first.trusted.len(), first.pieces.len());
    let memory = first.memory(folder.path());

    let second = Run::of(&options(&root), later(), Some(&memory));
    assert_eq!((second.opened, second.remembered), (0, first.pieces.len()));
    assert_eq!(second.facts, first.facts);

    // The same length and the same time: the change time tells.
    let changed = root.join("a/deep/file-200");
    let before = changed.metadata().unwrap();
    std::fs::write(&changed, noise(200 * 37, 9)).unwrap();
    set_time(&changed, before.mtime(), before.mtime_nsec());
    let third = Run::of(&options(&root), later(), Some(&memory));
    assert_eq!(third.opened, 1);

    // Seen by a clock that shows the same moment, nothing that new is believed.
    let racy = Run::of(&options(&root), Arc::new(SystemClock::default()), None);
    assert_eq!(racy.trusted.len(), 1, "only the end blocks");
}

#[test]
fn a_remembered_piece_can_be_read_after_all() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("zoo");
    zoo(&root);
    let first = run(&root);
    let memory = first.memory(folder.path());
    let source = FilesSource::new(options(&root), later());
    let mut snapshot = source.open(Some(&memory)).unwrap();
    let mut members = 0;
    while let Some(piece) = snapshot.next_piece().unwrap() {
        let Body::Remembered { reread, .. } = piece.body else { panic!("all are remembered") };
        let mut sink = Segments::new(piece.cut);
        members += reread.write(&mut sink).unwrap().members.len();
        let before = first.pieces.iter().find(|(signature, ..)| *signature == piece.signature).unwrap();
        assert_eq!(sink.finish(), before.1);
    }
    assert_eq!(members, first.members.len());
    assert_eq!(snapshot.finish().unwrap().facts, first.facts);
}

#[test]
fn a_new_file_disturbs_one_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(root.join("sub")).unwrap();
    for count in 0..600 {
        std::fs::write(root.join(format!("sub/{count:04}")), noise(20_000, count)).unwrap();
    }
    let first = run(&root);
    assert!(first.pieces.len() > 20, "{} pieces", first.pieces.len());
    let memory = first.memory(folder.path());
    std::fs::write(root.join("sub/0300-new"), b"new").unwrap();
    let second = Run::of(&options(&root), later(), Some(&memory));
    // Its own bundle, and the one with its folder's time.
    assert!(second.opened <= 2, "{} opened", second.opened);
}

#[test]
fn paths_may_be_longer_than_a_path_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep");
    std::fs::create_dir(&root).unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut at = openat(CWD, &root, flags, Mode::empty()).unwrap();
    for level in 0..700 {
        let name = if level < 40 { "d".repeat(200) } else { "e".to_owned() };
        mkdirat(&at, &name, Mode::from_raw_mode(0o750)).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = openat(&at, "file", flags, Mode::from_raw_mode(0o640)).unwrap();
        rustix::io::write(&file, b"deep down").unwrap();
        rustix::fs::symlinkat("file", &at, "link").unwrap();
    }
    drop(at);
    let run = run(&root);
    assert_eq!(run.notes, []);
    assert_eq!(run.members.len(), 1 + 3 * 700);
    assert!(run.members.iter().any(|member| member.path.0.len() > 9000));
    let target = folder.path().join("target");
    run.unpack(&target);
    run.assert_equals(&target);
    // What removes the folder at the end knows no long paths either.
    assert!(Command::new("rm").arg("-rf").arg(folder.path()).status().unwrap().success());
}

#[test]
fn nine_gibibytes_of_hole_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("huge");
    with_holes(&root, (9 << 30) + 5, &[(8 << 30, 10_000), (9 << 30, 5)]);
    let run = run(&root);
    assert_eq!((run.members.len(), run.members[0].size_bytes), (1, (9 << 30) + 5));
    assert!(run.pieces.iter().flat_map(|(_, segments, _)| segments).map(Vec::len).sum::<usize>() < 100_000);
    let ours = folder.path().join("ours");
    run.unpack(&ours);
    run.assert_equals(&ours);
    let gnu = folder.path().join("gnu");
    run.unpack_with_gnu_tar(&gnu);
    run.assert_equals(&gnu);
}

#[test]
fn a_folder_may_be_crowded() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("crowd");
    std::fs::create_dir(&root).unwrap();
    for count in 0..100_000 {
        std::fs::File::create(root.join(format!("{count}"))).unwrap();
    }
    let run = run(&root);
    assert_eq!(run.members.len(), 100_001);
    let mut sorted = run.members.iter().map(|member| member.path.clone()).collect::<Vec<_>>();
    sorted.sort();
    assert!(run.members.iter().map(|member| &member.path).eq(&sorted));
    let target = folder.path().join("target");
    run.unpack(&target);
    run.assert_equals(&target);
}

/// Plans the pieces of a tree, does something, then writes them.
fn planned_then(options: &FilesOptions, meanwhile: impl FnOnce()) -> Run {
    let source = FilesSource::new(options.clone(), later());
    let mut snapshot = source.open(None).unwrap();
    let mut planned = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        planned.push(piece);
    }
    meanwhile();
    let mut run = Run::default();
    for piece in planned {
        let Body::Open(open) = piece.body else { panic!("nothing is remembered") };
        let mut sink = Segments::new(piece.cut);
        let written = open.write(&mut sink).unwrap();
        if written.trusted {
            run.trusted.push(piece.signature);
        }
        run.pieces.push((piece.signature, sink.finish(), written.members.len() as u64));
        run.members.extend(written.members);
        run.notes.extend(written.notes);
    }
    run.facts = snapshot.finish().unwrap().facts;
    run
}

#[test]
fn what_goes_between_the_looks_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for name in ["gone", "linked", "now-a-folder", "now-a-fifo", "replaced", "stays", "large"] {
        std::fs::write(root.join(name), noise(if name == "large" { 2_000_000 } else { 3000 }, 1)).unwrap();
    }
    symlink("x", root.join("symlink")).unwrap();
    std::fs::hard_link(root.join("linked"), root.join("z-linked")).unwrap();
    let run = planned_then(&options(&root), || {
        for name in ["gone", "linked", "now-a-folder", "now-a-fifo", "symlink", "large"] {
            std::fs::remove_file(root.join(name)).unwrap();
        }
        std::fs::create_dir(root.join("now-a-folder")).unwrap();
        mknodat(CWD, root.join("now-a-fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        std::fs::write(root.join("other"), noise(4000, 2)).unwrap();
        std::fs::rename(root.join("other"), root.join("replaced")).unwrap();
    });
    let mut notes: Vec<(String, NoteClass)> =
        run.notes.iter().map(|note| (note.path.display().rsplit('/').next().unwrap().to_owned(), note.class)).collect();
    // Larger files stand behind small ones.
    notes.sort();
    let expected = [
        ("gone", NoteClass::Vanished),
        ("large", NoteClass::Vanished),
        ("linked", NoteClass::Unreadable),
        ("now-a-fifo", NoteClass::Vanished),
        ("now-a-folder", NoteClass::Vanished),
        ("symlink", NoteClass::Vanished),
    ];
    assert_eq!(notes, expected.map(|(name, class)| (name.to_owned(), class)));
    assert_eq!(run.member(&root.join("replaced")).size_bytes, 4000);
    assert_eq!(run.member(&root.join("linked")).flaw, Some(Flaw::Unreadable));
    assert_eq!(run.trusted.len(), 1, "only the end blocks");
    let Some(Facts::Files { members, .. }) = run.facts else { panic!("no facts") };
    assert_eq!(members, run.members.len() as u64);
    // The tar is whole, and the link has something to stand on.
    let target = folder.path().join("target");
    run.unpack(&target);
    run.assert_equals(&target);
}

#[test]
fn a_file_that_changes_under_the_reader_keeps_its_declared_size() {
    let folder = tempfile::tempdir().unwrap();
    for (name, new_bytes) in [("shrinks", 1_234_567), ("grows", 9_000_000)] {
        let root = folder.path().join(name);
        std::fs::write(&root, noise(5_000_000, 1)).unwrap();
        let source = FilesSource::new(options(&root), later());
        let mut snapshot = source.open(None).unwrap();
        let piece = snapshot.next_piece().unwrap().unwrap();
        let Body::Open(open) = piece.body else { panic!("nothing is remembered") };
        let mut sink = Segments::new(piece.cut);
        // The first write is that of the head: the file is open, and its size declared.
        sink.meanwhile = Some(Box::new(|| {
            let file = std::fs::File::options().append(true).open(&root).unwrap();
            file.set_len(new_bytes).unwrap();
        }));
        let written = open.write(&mut sink).unwrap();
        assert!(!written.trusted);
        assert_eq!(written.notes[0].class, NoteClass::Changed);
        assert_eq!((written.members[0].size_bytes, written.members[0].flaw), (5_000_000, Some(Flaw::Changed)));
        let mut expected = noise(5_000_000, 1);
        if new_bytes < 5_000_000 {
            expected[new_bytes as usize..].fill(0);
        }
        assert_eq!(written.members[0].blake3.unwrap().0, *blake3::hash(&expected).as_bytes());
        let data = sink.finish()[1..].concat();
        assert!(data[..5_000_000] == expected && data[5_000_000..].iter().all(|byte| *byte == 0));
        assert_eq!(data.len() % 512, 0);
    }
}

#[test]
fn a_small_file_may_grow_between_plan_and_reading_but_not_burst_its_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a-little"), noise(1000, 1)).unwrap();
    std::fs::write(root.join("too-much"), noise(1000, 2)).unwrap();
    let run = planned_then(&options(&root), || {
        std::fs::write(root.join("a-little"), noise(100_000, 1)).unwrap();
        std::fs::write(root.join("too-much"), noise(50_000_000, 2)).unwrap();
    });
    let (little, much) = (run.member(&root.join("a-little")), run.member(&root.join("too-much")));
    assert_eq!((little.size_bytes, little.flaw), (100_000, None));
    assert_eq!((much.size_bytes, much.flaw), (1000, Some(Flaw::Changed)));
    assert_eq!(run.trusted.len(), 1, "only the end blocks");
}

#[test]
fn roots_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: PathBuf| match FilesSource::new(options(&path), later()).open(None) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => error,
    };
    assert!(matches!(open(folder.path().join("missing")), SourceError::RootMissing { .. }));
    let link = folder.path().join("link");
    symlink("/srv/data", &link).unwrap();
    let SourceError::RootUnusable { what, .. } = open(link) else { panic!("another error") };
    assert_eq!(what, "a symbolic link to /srv/data");
    assert!(matches!(open(PathBuf::from("relative")), SourceError::RootUnusable { .. }));
    assert!(matches!(open(folder.path().join("../x")), SourceError::RootUnusable { .. }));
    let options = FilesOptions { exclude: vec!["a{b".to_owned()], ..options(folder.path()) };
    assert!(matches!(FilesSource::new(options, later()).open(None), Err(SourceError::Pattern { .. })));
}

#[test]
fn overlapping_roots_are_stored_once_and_reached_in_spite_of_excludes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    for path in ["a/in", "a/cache/keep", "b"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    for path in ["a/in/1", "a/cache/lost", "a/cache/keep/2", "b/3", "single"] {
        std::fs::write(root.join(path), path).unwrap();
    }
    let options = FilesOptions {
        paths: ["a", "a/in/", "a/cache/keep", "single", "a"].iter().map(|path| root.join(path)).collect(),
        exclude: vec!["cache".to_owned()],
        ..options(&root)
    };
    let run = Run::of(&options, later(), None);
    let prefix = format!("{}/", root.display()).split_off(1);
    let paths: Vec<String> = run.paths().iter().map(|path| path.strip_prefix(&prefix).unwrap().to_owned()).collect();
    assert_eq!(paths, ["a", "a/in", "a/in/1", "a/cache/keep", "a/cache/keep/2", "single"]);
    let target = folder.path().join("target");
    run.unpack(&target);
    run.assert_equals(&target);
}

#[test]
fn what_is_left_out_is_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    for path in ["cache/deep", "sub/cache", "tagged/x"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    for path in ["cache/deep/1", "sub/cache/2", "sub/a.tmp", "sub/keep.tmp", "tagged/x/3", "top.log"] {
        std::fs::write(root.join(path), path).unwrap();
    }
    std::fs::write(root.join("tagged/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let exclude = ["/cache/**", "*.tmp", "!keep.tmp", "*.log"].map(str::to_owned).to_vec();
    let options = FilesOptions { exclude, exclude_caches: true, ..options(&root) };
    let run = Run::of(&options, later(), None);
    let prefix = format!("{}/", root.display()).split_off(1);
    let paths: Vec<String> =
        run.paths()[1..].iter().map(|path| path.strip_prefix(&prefix).unwrap().to_owned()).collect();
    assert_eq!(paths, ["cache", "sub", "sub/cache", "sub/cache/2", "sub/keep.tmp", "tagged"]);
    assert_eq!(run.notes.iter().map(|note| note.class).collect::<Vec<_>>(), [NoteClass::Skipped; 2]);
}

#[test]
fn what_must_not_be_touched_is_left_out_however_it_is_spelt() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    std::fs::create_dir_all(root.join("vault/objects")).unwrap();
    for path in ["vault/objects/1", "shop.db", "shop.db-wal", "shop.dbx", "kept"] {
        std::fs::write(root.join(path), path).unwrap();
    }
    symlink(&root, folder.path().join("link")).unwrap();
    symlink("shop.db", root.join("alias")).unwrap();
    let out = |path: PathBuf| LeftOut { path, why: "because".to_owned() };
    let through_link = folder.path().join("link");
    // Spelt through a link above it, through one of its own, straight; one that is not there yet; one elsewhere.
    let leave_out = vec![
        out(through_link.join("vault")),
        out(root.join("alias")),
        out(root.join("shop.db-wal")),
        out(root.join("shop.db-journal")),
        out(folder.path().join("other/kept")),
    ];
    let run = Run::of(&FilesOptions { leave_out: leave_out.clone(), ..options(&root) }, later(), None);
    let prefix = format!("{}/", root.display()).split_off(1);
    let below = |path: &str| path.strip_prefix(&prefix).unwrap().to_owned();
    let paths: Vec<String> = run.paths()[1..].iter().map(|path| below(path)).collect();
    assert_eq!(paths, ["alias", "kept", "shop.dbx"]);
    let noted: Vec<String> = run.notes.iter().map(|note| below(&note.path.display())).collect();
    assert_eq!(noted, ["shop.db", "shop.db-wal", "vault"]);
    assert!(run.notes.iter().all(|note| note.class == NoteClass::Skipped && note.detail == "because"));

    // The walk of a root behind a link meets the same things under other names.
    let root_behind_link = through_link.join("vault");
    let objects = out(root.join("vault/objects"));
    let run = Run::of(&FilesOptions { leave_out: vec![objects], ..options(&root_behind_link) }, later(), None);
    assert_eq!(run.paths().len(), 1, "{:?}", run.paths());
    assert_eq!(run.notes.len(), 1);

    for inside in ["vault", "vault/objects", "shop.db"] {
        let options = FilesOptions { leave_out: leave_out.clone(), ..options(&root.join(inside)) };
        let refused = FilesSource::new(options, later()).open(None).err();
        assert!(matches!(refused, Some(SourceError::RootLeftOut { .. })), "{inside}: {refused:?}");
    }
}

#[test]
fn other_file_systems_stay_out() {
    let options = FilesOptions {
        one_file_system: true,
        exclude: vec!["*".to_owned(), "!/shm".to_owned(), "!/pts".to_owned()],
        ..options(Path::new("/dev"))
    };
    let run = Run::of(&options, later(), None);
    assert_eq!(run.paths(), ["dev", "dev/pts", "dev/shm"]);
    assert_eq!(run.notes.iter().map(|note| note.class).collect::<Vec<_>>(), [NoteClass::Skipped; 2]);
}

#[test]
fn the_root_of_all_has_no_member_of_its_own() {
    let options = FilesOptions {
        one_file_system: true,
        exclude: vec!["/*".to_owned(), "!/dev".to_owned()],
        ..options(Path::new("/"))
    };
    let run = Run::of(&options, later(), None);
    assert_eq!(run.paths(), ["dev"]);
    // A root on another file system, below one that stays on its own, is walked all the same.
    let both = FilesOptions { paths: vec!["/".into(), "/dev/shm".into()], ..options };
    let run =
        Run::of(&FilesOptions { exclude: vec!["/[!d]*".to_owned(), "/d[!e]*".to_owned()], ..both }, later(), None);
    assert!(run.paths().contains(&"dev/shm".to_owned()), "{:?}", run.paths());
}
