//! Takes secrets out of what is shown. Whoever refuses a request likes to repeat it: its address, its path, a part of it.

/// What stands where a secret stood.
const GONE: &str = "…";
/// Parts that are shorter are words like any other.
const LEAST_BYTES: usize = 6;
/// No more of an answer is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// The text on one line, short, without these secrets and without the parts of those that are addresses.
pub(super) fn scrubbed(text: &str, secrets: &[&str]) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for secret in secrets {
        parts.push(secret);
        // Of an address: what follows the host, and each piece of that.
        let behind = secret.split_once("://").map_or("", |(_, rest)| rest);
        let from = behind.find(['/', '?']).unwrap_or(behind.len());
        parts.push(&behind[from..]);
        parts.extend(behind[from..].split(['/', '?', '&', '=']));
        // Name and password before a host.
        parts.extend(behind[..from].rsplit_once('@').map(|(login, _)| login));
    }
    parts.retain(|part| part.len() >= LEAST_BYTES);
    // The longest first: of a part that stands in another one nothing may be left.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    let mut shown = text.to_owned();
    for part in parts {
        shown = shown.replace(part, GONE);
    }
    let one_line: Vec<&str> = shown.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let one_line = one_line.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_an_address_is_left() {
        let url = "https://user:hunter22@hooks.example/services/T0000000/B0000000?key=XXXXXXXX";
        let said =
            format!("Cannot POST {url}\r\n or /services/T0000000/B0000000 for B0000000, XXXXXXXX; hunter22 hooks");
        let shown = scrubbed(&said, &[url]);
        for part in ["T0000000", "B0000000", "XXXXXXXX", "user:hunter22"] {
            assert!(!shown.contains(part), "{shown}");
        }
        assert!(shown.starts_with("Cannot POST …") && !shown.contains('\n'), "{shown}");
    }

    #[test]
    fn answers_are_short() {
        assert_eq!(scrubbed(&"x".repeat(1000), &[]).chars().count(), MAX_SHOWN_CHARS + 1);
        assert_eq!(scrubbed(" ok\u{1b}[2J\n", &["ok"]), "ok [2J");
    }
}
