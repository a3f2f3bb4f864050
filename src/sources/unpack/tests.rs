//! Hostile tars are refused, and leave nothing outside the target.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::sources::tar::{END, Extent, SparseMap, header, padding};

const ALL: &(dyn Fn(&[u8]) -> bool + Sync) = &|_| true;
const PLAIN: UnpackOptions = UnpackOptions { owners: true, overwrite: false };
const OVER: UnpackOptions = UnpackOptions { owners: true, overwrite: true };

fn member(path: &str, kind: MemberKind, link: Option<&str>) -> Member {
    Member {
        path: RawText::from(path),
        kind,
        size_bytes: if kind == MemberKind::File { 4 } else { 0 },
        mode: if kind == MemberKind::Folder { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime_seconds: 1,
        mtime_nanos: 0,
        blake3: None,
        link: link.map(RawText::from),
        device: None,
        xattrs: Vec::new(),
        flaw: None,
    }
}

fn file(path: &str) -> Member {
    member(path, MemberKind::File, None)
}

fn folder(path: &str) -> Member {
    member(path, MemberKind::Folder, None)
}

fn link(path: &str, target: &str) -> Member {
    member(path, MemberKind::Symlink, Some(target))
}

fn hard(path: &str, target: &str) -> Member {
    member(path, MemberKind::Hardlink, Some(target))
}

/// Every file says `evil`.
fn tar(members: &[Member]) -> Vec<u8> {
    let mut tar = Vec::new();
    for member in members {
        tar.extend(header(member, None));
        if member.kind == MemberKind::File {
            tar.extend(b"evil");
            tar.extend(padding(4));
        }
    }
    tar.extend(END);
    tar
}

/// A folder with a target and a neighbour that must not be touched.
struct Place {
    folder: tempfile::TempDir,
    outside: PathBuf,
    target: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (outside, target) = (folder.path().join("outside"), folder.path().join("target"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), b"good").unwrap();
        Self { folder, outside, target }
    }

    fn unpack(&self, options: UnpackOptions, members: &[Member]) -> Result<Summary, UnpackError> {
        let unpacker = Unpacker::create(&self.target, options)?;
        unpacker.unpack(&tar(members), ALL)?;
        unpacker.finish()
    }

    fn assert_untouched(&self) {
        assert_eq!(std::fs::read(self.outside.join("precious")).unwrap(), b"good");
        assert_eq!(self.outside.read_dir().unwrap().count(), 1);
        assert_eq!(self.outside.join("precious").metadata().unwrap().nlink(), 1);
        assert_eq!(self.folder.path().read_dir().unwrap().count(), 2);
    }
}

fn is_unsafe(outcome: &Result<Summary, UnpackError>) -> bool {
    matches!(outcome, Err(UnpackError::Tar(SourceError::Unsafe { .. })))
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../evil", "a/../../evil", "/evil", "a//b", "a/./b", ".", "..", "a/.."] {
        let place = Place::new();
        for member in [file(path), folder(path), link(path, "x"), hard(path, "x")] {
            let outcome = place.unpack(PLAIN, std::slice::from_ref(&member));
            assert!(is_unsafe(&outcome), "{member:?} gave {outcome:?}");
            place.assert_untouched();
            std::fs::remove_dir_all(&place.target).unwrap();
        }
    }
}

#[test]
fn nothing_is_written_through_links_of_the_archive() {
    for options in [PLAIN, OVER] {
        for members in [
            vec![link("a", "../outside"), file("a/evil")],
            vec![file("a/evil"), link("a", "../outside")],
            vec![link("a", "../outside"), folder("a/evil")],
            vec![link("a", "../outside"), link("a/evil", "x")],
            vec![link("a", "../outside"), file("b"), hard("a/evil", "b")],
            vec![link("a", "../outside/precious"), file("a")],
            vec![file("a"), file("a/b")],
        ] {
            let place = Place::new();
            let outcome = place.unpack(options, &members);
            assert!(outcome.is_err(), "{members:?}");
            assert!(options.overwrite || is_unsafe(&outcome), "{members:?} gave {outcome:?}");
            place.assert_untouched();
        }
    }
}

#[test]
fn hard_links_stay_inside_and_name_files() {
    let place = Place::new();
    for members in [
        vec![hard("a", "../outside/precious")],
        vec![hard("a", "/etc/passwd")],
        vec![link("s", "../outside/precious"), hard("a", "s")],
        vec![folder("d"), hard("a", "d")],
        vec![hard("a", "b"), hard("b", "a")],
    ] {
        let outcome = place.unpack(PLAIN, &members);
        assert!(is_unsafe(&outcome), "{members:?} gave {outcome:?}");
        place.assert_untouched();
        let _ = std::fs::remove_dir_all(&place.target);
    }
    // One to a file that nobody asked for is told, not made.
    let summary = place.unpack(PLAIN, &[hard("a", "not/selected")]).unwrap();
    assert_eq!(summary.unlinked, [(RawText::from("a"), RawText::from("not/selected"))]);
    assert!(!place.target.join("a").exists());
}

#[test]
fn nothing_is_written_twice() {
    for options in [PLAIN, OVER] {
        for members in [[file("a"), file("a")], [folder("a"), folder("a")], [link("a", "x"), file("a")]] {
            let place = Place::new();
            assert!(is_unsafe(&place.unpack(options, &members)), "{members:?}");
        }
    }
    let place = Place::new();
    let unpacker = Unpacker::create(&place.target, PLAIN).unwrap();
    unpacker.unpack(&tar(&[file("a")]), ALL).unwrap();
    let mut big = file("a");
    big.size_bytes = 5_000_000;
    assert!(unpacker.begin_large(&header(&big, None), ALL).is_err());
}

#[test]
fn a_target_in_use_is_refused_or_replaced_but_never_written_through() {
    let place = Place::new();
    std::fs::create_dir(&place.target).unwrap();
    symlink("../outside/precious", place.target.join("file")).unwrap();
    std::fs::hard_link(place.outside.join("precious"), place.folder.path().join("target/hard")).unwrap();
    assert!(matches!(place.unpack(PLAIN, &[file("file")]), Err(UnpackError::NotEmpty { .. })));
    place.unpack(OVER, &[file("file"), file("hard")]).unwrap();
    for name in ["file", "hard"] {
        let made = place.target.join(name);
        assert!(made.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(made).unwrap(), b"evil");
    }
    place.assert_untouched();

    symlink("../outside", place.target.join("folder")).unwrap();
    assert!(is_unsafe(&place.unpack(OVER, &[file("folder/evil")])));
    assert!(is_unsafe(&place.unpack(OVER, &[folder("folder")])));
    place.assert_untouched();
}

#[test]
fn folders_are_closed_until_the_end_and_foreign_set_id_bits_are_dropped() {
    let place = Place::new();
    let unpacker = Unpacker::create(&place.target, UnpackOptions { owners: false, overwrite: false }).unwrap();
    let (mut foreign, mut own) = (file("srv/a/foreign"), file("srv/a/own"));
    (foreign.mode, foreign.uid, own.mode) = (0o6755, 4711, 0o6755);
    let mut read_only = folder("srv/a");
    read_only.mode = 0o500;
    unpacker.unpack(&tar(&[read_only, foreign, own]), ALL).unwrap();
    let mode = |path: &str| place.target.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("srv"), mode("srv/a")), (0o700, 0o700));
    let summary = unpacker.finish().unwrap();
    assert_eq!(summary.owners_kept, 1);
    assert_eq!((mode("srv"), mode("srv/a")), (0o755, 0o500));
    assert_eq!((mode("srv/a/foreign"), mode("srv/a/own")), (0o755, 0o6755));
    assert_eq!(place.target.join("srv/a/foreign").metadata().unwrap().uid(), 0);
    assert_eq!(place.target.join("srv/a").metadata().unwrap().mtime(), 1);
}

#[test]
fn only_what_is_selected_is_written() {
    let place = Place::new();
    let unpacker = Unpacker::create(&place.target, PLAIN).unwrap();
    let tar = tar(&[folder("a"), file("a/1"), file("a/2"), file("../evil")]);
    let unpacked = unpacker.unpack(&tar, &|path| path == b"a/2").unwrap();
    assert_eq!(unpacked, Unpacked { members: 1, bytes: 4 });
    unpacker.finish().unwrap();
    assert!(place.target.join("a/2").exists() && !place.target.join("a/1").exists());
    place.assert_untouched();
}

#[test]
fn a_large_file_takes_its_declared_data_and_no_more() {
    let place = Place::new();
    let unpacker = Unpacker::create(&place.target, PLAIN).unwrap();
    let mut member = file("big");
    member.size_bytes = 1 << 20;
    let map = SparseMap::new(1 << 20, vec![Extent { offset: 10, bytes: 600 }, Extent { offset: 5000, bytes: 1000 }]);
    let head = header(&member, map.as_ref());
    assert!(unpacker.begin_large(&head, &|_| false).unwrap().is_none());
    let large = unpacker.begin_large(&head, ALL).unwrap().unwrap();
    assert_eq!(large.data_bytes(), 1600);
    let data: Vec<u8> = (0..1600_u32).map(|byte| (byte % 251) as u8 + 1).collect();
    let mut padded = data.clone();
    padded.extend(padding(1600));
    assert!(large.write_at(0, &[&padded[..], &[0]].concat()).is_err());
    assert!(large.write_at(1600, b"x").is_err());
    assert!(large.write_at(u64::MAX, b"x").is_err());
    large.write_at(1599, &padded[1599..]).unwrap();
    large.write_at(500, &padded[500..1599]).unwrap();
    large.write_at(0, &padded[..500]).unwrap();
    large.finish().unwrap();
    let mut expected = vec![0; 1 << 20];
    expected[10..610].copy_from_slice(&data[..600]);
    expected[5000..6000].copy_from_slice(&data[600..]);
    assert!(std::fs::read(place.target.join("big")).unwrap() == expected);

    member.path = RawText::from("short");
    let large = unpacker.begin_large(&header(&member, None), ALL).unwrap().unwrap();
    large.write_at(0, &data).unwrap();
    assert!(matches!(large.finish(), Err(UnpackError::Tar(_))));
}
