//! `[daemon]`, from the image of the text to settings.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::daemon::{DEFAULT_JOBS_AT_ONCE, DEFAULT_LISTEN, DaemonSettings};
use super::super::file::DaemonFile;
use super::Resolver;

/// What runs at a time is limited by disks, not by this; more is a mistake.
const JOBS_AT_ONCE: std::ops::RangeInclusive<usize> = 1..=16;
/// A start that is put off longer is not when the schedule says.
const MAX_JITTER: Duration = Duration::from_secs(6 * 3600);

impl Resolver<'_, '_> {
    pub(super) fn daemon(&mut self, image: DaemonFile) -> DaemonSettings {
        let listen = match image.listen {
            None => Some(DEFAULT_LISTEN),
            Some(text) if text.get_ref() == "off" => None,
            Some(text) => {
                let address: Option<SocketAddr> = text.get_ref().parse().ok();
                if address.is_none() {
                    let message =
                        "`listen` is an address and a port, such as \"127.0.0.1:9820\" or \"[::1]:9820\", or \"off\"";
                    self.problems.at(text.span(), message);
                }
                address
            }
        };
        let mut names = Vec::new();
        for name in image.names.unwrap_or_default() {
            if !is_name(name.get_ref()) {
                let message = "a name of `names` is as it stands in a browser's address, without `http://`, port and path: \
                               \"backup.internal\"";
                self.problems.at(name.span(), message);
            }
            names.push(name.into_inner());
        }
        let jitter = image.jitter.map_or(Duration::ZERO, |text| {
            let jitter = self.duration(&text).unwrap_or_default();
            if jitter > MAX_JITTER {
                self.problems.at(text.span(), "`jitter` is at most 6h: what starts later is not on its schedule");
            }
            jitter
        });
        let jobs_at_once = image.jobs_at_once.map_or(DEFAULT_JOBS_AT_ONCE, |number| {
            let wanted = usize::try_from(*number.get_ref()).unwrap_or(0);
            if !JOBS_AT_ONCE.contains(&wanted) {
                self.problems.at(number.span(), "`jobs_at_once` is a number from 1 to 16");
            }
            wanted.max(1)
        });
        DaemonSettings { listen, names, jitter, jobs_at_once }
    }
}

/// Whether a browser could send it as the name of a host. No patterns: each name that is let in was written down.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
