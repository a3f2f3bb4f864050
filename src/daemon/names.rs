//! By which names the daemon lets itself be asked.
//!
//! A page from anywhere, open in a browser that reaches this address, can have its own name resolved to it (DNS rebinding),
//! and then reads answers as if they were its own. What it cannot change is that the browser sends this name along, as `Host`.
//! So an address that was typed as an address is answered, and `localhost`, and the names that the config lists; no other.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The name that every machine has for itself.
const LOCALHOST: &str = "localhost";

/// The names, in lower case and without a dot at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    listed: BTreeSet<String>,
}

impl Names {
    /// Those of the config, besides `localhost`.
    #[must_use]
    pub fn new(listed: &[String]) -> Self {
        Self { listed: listed.iter().map(|name| plain(name)).collect() }
    }

    /// Whether a request for this `Host` is meant for the daemon; its port is nobody's concern, since whatever forwards a
    /// port may have another one.
    #[must_use]
    pub fn admit(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return address.parse::<Ipv6Addr>().is_ok() && port.strip_prefix(':').map_or(port.is_empty(), is_port);
        }
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        if !is_port(port) {
            return false;
        }
        let name = plain(name);
        name.parse::<Ipv4Addr>().is_ok() || name == LOCALHOST || self.listed.contains(&name)
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A port may be left out behind its colon.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_what_is_listed_are_answered() {
        let names = Names::new(&["Backup.Internal".to_owned(), "web1".to_owned()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9820",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:9820",
            "[2001:db8::7]:443",
            "localhost",
            "LOCALHOST:9820",
            "localhost.:9820",
            "backup.internal",
            "BACKUP.internal.:9820",
            "web1:",
        ] {
            assert!(names.admit(host), "{host}");
            assert_eq!(Names::default().admit(host), !plain(host).contains("internal") && host != "web1:", "{host}");
        }
        for host in [
            "",
            ":9820",
            "evil.example",
            "evil.example:9820",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "backup.internal.evil.example",
            "notbackup.internal",
            "127.1",
            "2130706433",
            "127.0.0.1:99999",
            "127.0.0.1:80:80",
            "localhost:x",
            "::1",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "[127.0.0.1]",
            "user@localhost",
            "localhost, evil.example",
            "local host",
        ] {
            assert!(!names.admit(host), "{host}");
        }
    }
}
