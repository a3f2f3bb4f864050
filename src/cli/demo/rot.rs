//! A disk that rots: one bit of one object changes, and nothing says so. What lies where is read as docs/VAULT-FORMAT.md
//! describes it, without any of the program's own rooms.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Code, Error, Result};

use super::folder::failed;

/// The bit.
const FLIP: u8 = 0b0000_0100;

/// An object with one bit wrong.
#[derive(Debug)]
pub(super) struct Rot {
    /// The file.
    pub(super) path: PathBuf,
    /// Its name: the SHA-256 of what it held.
    pub(super) object: String,
    /// Where in it.
    pub(super) offset: u64,
}

/// Changes a bit in the middle of the largest segment of a backup, and neither its size nor its time.
///
/// # Errors
/// When the vault is not as the manifest says.
pub(super) fn flip(vault: &Path, manifest: &Value) -> Result<Rot> {
    let (object, bytes) = largest_segment(vault, manifest)?;
    let rot = Rot { path: vault.join("objects").join(&object[..2]).join(&object), object, offset: bytes / 2 };
    rot.change()?;
    Ok(rot)
}

impl Rot {
    /// Puts the bit back.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn repair(&self) -> Result<()> {
        self.change()
    }

    fn change(&self) -> Result<()> {
        flip_bit(&self.path, self.offset).map_err(|cause| failed("change", &self.path, cause))
    }
}

fn flip_bit(path: &Path, offset: u64) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    // Objects may be read-only, as a vault's should be.
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() | 0o200))?;
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0_u8];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ FLIP], offset)?;
    file.set_modified(meta.modified()?)?;
    file.sync_all()?;
    fs::set_permissions(path, meta.permissions())
}

/// The name and size of the largest segment that a manifest's lists name.
fn largest_segment(vault: &Path, manifest: &Value) -> Result<(String, u64)> {
    let odd = |what: String| Error::new(Code::DemoFailed, what);
    let sources = manifest["sources"].as_array().ok_or_else(|| odd("the manifest names no sources".to_owned()))?;
    let lists = sources.iter().filter_map(|source| source["lists"].as_array()).flatten().filter_map(Value::as_str);
    let mut largest = None;
    for list in lists {
        let path = vault.join("lists").join(list.get(..2).unwrap_or_default()).join(list);
        let lines = File::open(&path)
            .and_then(zstd::decode_all)
            .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
            .map_err(|cause| failed("read", &path, cause))?;
        for line in lines.lines() {
            let mut words = line.split(' ');
            if let (Some(object), Some(Ok(bytes))) = (words.next(), words.next().map(str::parse::<u64>))
                && object.len() == 64
                && largest.as_ref().is_none_or(|(_, most)| bytes > *most)
            {
                largest = Some((object.to_owned(), bytes));
            }
        }
    }
    largest.ok_or_else(|| odd(format!("{} holds no segment of the backup", vault.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_segment_rots_and_is_mended() {
        let vault = tempfile::tempdir().unwrap();
        let name = |digit: &str| digit.repeat(64);
        let put = |folder: &str, name: &str, bytes: &[u8]| {
            let folder = vault.path().join(folder).join(&name[..2]);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
            folder.join(name)
        };
        put("objects", &name("a"), &[1; 10]);
        let large = put("objects", &name("b"), &[1; 101]);
        let lines = format!("{} 10 {}\n{} 101 {}\n", name("a"), name("0"), name("b"), name("1"));
        put("lists", &name("c"), &zstd::encode_all(lines.as_bytes(), 1).unwrap());
        fs::set_permissions(&large, fs::Permissions::from_mode(0o400)).unwrap();
        let before = fs::metadata(&large).unwrap();

        let manifest = json!({ "sources": [{ "lists": [name("c")] }] });
        let rot = flip(vault.path(), &manifest).unwrap();
        assert_eq!((rot.object.as_str(), rot.offset), (name("b").as_str(), 50));
        let bytes = fs::read(&large).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte != 1).count(), 1);
        let after = fs::metadata(&large).unwrap();
        assert_eq!((after.len(), after.mode()), (before.len(), before.mode()));
        assert_eq!(after.modified().unwrap(), before.modified().unwrap(), "rot leaves no trace");
        rot.repair().unwrap();
        assert_eq!(fs::read(&large).unwrap(), [1; 101]);

        let missing = json!({ "sources": [{ "lists": [name("d")] }] });
        assert_eq!(flip(vault.path(), &missing).unwrap_err().code(), Code::DemoFailed);
        assert_eq!(flip(vault.path(), &json!({ "sources": [] })).unwrap_err().code(), Code::DemoFailed);
    }
}
