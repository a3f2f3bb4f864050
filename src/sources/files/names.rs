//! The names in one folder, sorted by their bytes, in one piece of memory: a million names cost their letters and
//! eight bytes each.

use std::os::fd::OwnedFd;

use rustix::fs::RawDir;
use rustix::io::{Errno, Result};

/// What one call to the kernel returns at most.
const LIST_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Names {
    letters: Vec<u8>,
    /// Begin and length in `letters`, in the order of the names.
    places: Vec<(u32, u16)>,
}

impl Names {
    /// Lists a folder from the place where its descriptor stands.
    pub(crate) fn list(folder: &OwnedFd) -> Result<Self> {
        let mut names = Self::default();
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            // 4 GiB of names in one folder, or a name of 64 KiB, is beyond every file system there is.
            let begin = u32::try_from(names.letters.len()).map_err(|_| Errno::OVERFLOW)?;
            let length = u16::try_from(name.len()).map_err(|_| Errno::OVERFLOW)?;
            names.letters.extend(name);
            names.places.push((begin, length));
        }
        let Self { letters, places } = &mut names;
        places.sort_unstable_by(|a, b| slice(letters, *a).cmp(slice(letters, *b)));
        // A folder that is changed while it is listed may name an entry twice.
        places.dedup_by(|a, b| slice(letters, *a) == slice(letters, *b));
        Ok(names)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&[u8]> {
        self.places.get(place).map(|place| slice(&self.letters, *place))
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.places.binary_search_by(|place| slice(&self.letters, *place).cmp(name)).is_ok()
    }
}

fn slice(letters: &[u8], (begin, length): (u32, u16)) -> &[u8] {
    &letters[begin as usize..begin as usize + usize::from(length)]
}
