//! restore.sh: puts an unpacked backup into a server with a shell, psql and pg_restore alone.

use std::fmt::Write as _;

const SCRIPT: &str = include_str!("restore.sh");
/// Stands in the script for the database's name as it stands in a URL.
const NAME_IN_URL: &str = "@DATABASE_IN_URL@";
/// Stands in it for the numbers of the entries of schema.dump that are passed over, as grep's alternatives.
const UNRESTORABLE: &str = "@UNRESTORABLE@";

/// The script for a database of this name, of which some entries of the schema cannot be restored.
pub(super) fn restore_script(database: &str, unrestorable: &[u32]) -> String {
    let numbers: Vec<String> = unrestorable.iter().map(u32::to_string).collect();
    SCRIPT.replace(UNRESTORABLE, &numbers.join("|")).replace(NAME_IN_URL, &in_url(database))
}

/// Percent-encoded, everything but letters, digits, `-`, `_` and `.`: safe in a URL, and in a shell's single quotes.
fn in_url(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string has no way to fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let script = restore_script("o'ne; $(rm) \"x\"", &[7, 11]);
        assert!(script.contains("'o%27ne%3B%20%24%28rm%29%20%22x%22'"), "{script}");
        assert!(!script.contains(NAME_IN_URL));
        assert!(script.contains("\nunrestorable='7|11'\n") && !script.contains(UNRESTORABLE));
    }
}
