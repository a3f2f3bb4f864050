//! The one folder that the demo writes to, which carries the demo's mark. Nothing without the mark is ever removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

/// The mark.
const MARKER: &str = ".lifeboat-demo";
const MARKER_TEXT: &str =
    "This folder belongs to `lifeboat demo`, which removes everything in it when it runs again.\n";

/// Makes the folder, or empties it if it is the demo's own; its real path.
///
/// # Errors
/// When there is something else in its place, or the system refuses.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf> {
    match dir.symlink_metadata() {
        Ok(meta) if meta.is_dir() => empty(dir)?,
        Ok(_) => return Err(not_ours(dir, "is no folder")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            // Others may pass through, to the scratch folder below; what they may not read has modes of its own.
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|cause| failed("make", dir, cause))?;
        }
        Err(cause) => return Err(failed("look at", dir, cause)),
    }
    let marker = dir.join(MARKER);
    fs::write(&marker, MARKER_TEXT).map_err(|cause| failed("write", &marker, cause))?;
    dir.canonicalize().map_err(|cause| failed("find", dir, cause))
}

/// Removes what is in a folder of ours, the mark last: a demo that is killed meanwhile leaves a folder that is ours.
fn empty(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|cause| failed("read", dir, cause))?;
    let marked = fs::read_to_string(dir.join(MARKER)).is_ok_and(|text| text == MARKER_TEXT);
    if !marked && !entries.is_empty() {
        return Err(not_ours(dir, "is not empty, and was not made by the demo"));
    }
    for entry in entries.iter().filter(|entry| entry.file_name() != MARKER) {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(cause) => Err(cause),
        };
        removed.map_err(|cause| failed("remove", &path, cause))?;
    }
    Ok(())
}

/// Whether a user without rights could get as far as this folder.
pub(super) fn is_reachable(dir: &Path) -> bool {
    dir.ancestors().all(|folder| fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

fn not_ours(dir: &Path, why: &str) -> Error {
    Error::new(Code::TargetNotEmpty, format!("{} {why}", dir.display()))
        .with_hint("nothing was touched; `lifeboat demo --dir DIR` takes a folder that does not exist yet")
}

/// A failure of the demo's own.
pub(super) fn failed(verb: &str, path: &Path, cause: impl std::fmt::Display) -> Error {
    Error::new(Code::DemoFailed, format!("cannot {verb} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_emptied_only_with_the_mark() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/demo");
        let made = prepare(&dir).unwrap();
        let outside = base.path().join("precious");
        fs::write(&outside, "x").unwrap();
        fs::create_dir_all(made.join("vault/objects")).unwrap();
        fs::write(made.join("vault/objects/1"), "x").unwrap();
        symlink(&outside, made.join("link")).unwrap();
        prepare(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "the mark only");
        assert!(outside.exists());

        fs::remove_file(dir.join(MARKER)).unwrap();
        prepare(&dir).unwrap();
        for mark in [None, Some("something else")] {
            let foreign = tempfile::tempdir().unwrap();
            fs::write(foreign.path().join("thesis.tex"), "x").unwrap();
            if let Some(text) = mark {
                fs::write(foreign.path().join(MARKER), text).unwrap();
            }
            let error = prepare(foreign.path()).unwrap_err();
            assert_eq!(error.code(), Code::TargetNotEmpty);
            assert!(foreign.path().join("thesis.tex").exists());
        }
        symlink(&made, base.path().join("way")).unwrap();
        assert_eq!(prepare(&base.path().join("way")).unwrap_err().code(), Code::TargetNotEmpty);
        assert_eq!(prepare(&outside).unwrap_err().code(), Code::TargetNotEmpty);
    }

    #[test]
    fn a_closed_folder_on_the_way_is_seen() {
        let base = tempfile::tempdir().unwrap();
        let inner = base.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let open = is_reachable(&inner);
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_reachable(&inner));
        assert_eq!(open, is_reachable(base.path().parent().unwrap()));
    }
}
