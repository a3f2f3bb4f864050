//! POSIX ACLs: from the kernel's binary attribute to the text that tar writers agreed on.
//!
//! The attribute is what we restore from; the text is for GNU tar, which sets ACLs from text only. Ids are numbers:
//! whoever restores elsewhere has other names.

/// The attribute that holds a file's access ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds a folder's default ACL.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const ENTRY_BYTES: usize = 8;

/// `user::rw-,user:1000:r--,...`; `None` where the bytes are not an ACL of the version that Linux has had so far.
pub(super) fn text(attribute: &[u8]) -> Option<String> {
    let entries = attribute.strip_prefix(&VERSION)?;
    if !entries.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let mut texts = Vec::new();
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let rights = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let letter = |bit: u16, letter: char| if rights & bit == 0 { '-' } else { letter };
        texts.push(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    Some(texts.join(","))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An access ACL with one named user.
    pub(crate) fn with_user(uid: u32) -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let mut bytes = VERSION.to_vec();
        for (tag, rights, id) in
            [(0x01_u16, 6_u16, NOBODY), (0x02, 4, uid), (0x04, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)]
        {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_text_is_the_one_of_getfacl() {
        assert_eq!(text(&with_user(1000)).as_deref(), Some("user::rw-,user:1000:r--,group::r--,mask::r--,other::---"));
        assert_eq!(text(b"nonsense"), None);
        assert_eq!(text(&with_user(1)[..9]), None);
    }
}
