//! Extended attributes of anything that has a name, ACLs among them.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{fgetxattr, flistxattr, flistxattr_query, lgetxattr, llistxattr, llistxattr_query};
use rustix::io::{Errno, Result};

use crate::domain::contents::RawText;

/// Sorted by name.
pub(crate) type Attributes = Vec<(RawText, RawText)>;

/// Linux has no longer list of names and no longer value.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// More than this of one file does not fit into the head of its segment.
pub(crate) const MAX_ATTRIBUTE_BYTES: usize = 1024 * 1024;

/// The attributes of an open file or folder (not of a descriptor that is a mere path).
///
/// # Errors
/// What the system said; `E2BIG` beyond [`MAX_ATTRIBUTE_BYTES`].
pub(crate) fn of_open(file: BorrowedFd<'_>) -> Result<Attributes> {
    all(flistxattr_query(file), |buffer| flistxattr(file, buffer), |name, buffer| fgetxattr(file, name, buffer))
}

/// The attributes of the entry `name` in `folder`, itself if it is a link.
///
/// # Errors
/// As [`of_open`].
pub(crate) fn of_entry<Fd: AsRawFd>(folder: &Fd, name: &[u8]) -> Result<Attributes> {
    let path = entry_path(folder, name);
    all(
        llistxattr_query(&path[..]),
        |buffer| llistxattr(&path[..], buffer),
        |name, buffer| lgetxattr(&path[..], name, buffer),
    )
}

/// The way to an entry that the calls without a descriptor of the parent need: short however deep it lies.
pub(crate) fn entry_path<Fd: AsRawFd>(folder: &Fd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat()
}

fn all(
    length: Result<usize>,
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
) -> Result<Attributes> {
    // Most files have none, and asking for the length alone costs no buffer.
    match length {
        Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut names = vec![0; MAX_VALUE_BYTES];
    let length = list(&mut names)?;
    let mut value = vec![0; MAX_VALUE_BYTES];
    let mut attributes = Vec::new();
    let mut total_bytes = 0;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match get(name, &mut value) {
            Ok(length) => {
                total_bytes += name.len() + length;
                if total_bytes > MAX_ATTRIBUTE_BYTES {
                    return Err(Errno::TOOBIG);
                }
                attributes.push((RawText::from(name), RawText::from(&value[..length])));
            }
            // Gone since the list was made.
            Err(Errno::NODATA) => {}
            Err(_) if is_privileged(name) && !rustix::process::geteuid().is_root() => {}
            Err(errno) => return Err(errno),
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// The namespaces that belong to the machine's administrator: another user may see the names but neither reads nor
/// sets the values.
pub(crate) fn is_privileged(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}
