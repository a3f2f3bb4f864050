//! systemd's protocol for services: datagrams to the socket that $NOTIFY_SOCKET names. Without one nobody is told.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who started this process, as far as it listens.
#[derive(Debug, Default)]
pub struct Service {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Service {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET");
        let socket = named.and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&address.ok()?).ok()?;
            // A manager that does not read must not hold the loop.
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        });
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let microseconds = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let watchdog = microseconds.filter(|_| ours && socket.is_some()).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// How often the watchdog wants to hear from the loop.
    #[must_use]
    pub fn feed_every(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// Everything stands: dependents may start.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The loop turns.
    pub fn turns(&self, status: &str) {
        let feed = if self.watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
        self.tell(&format!("{feed}STATUS={}", status.replace('\n', " ")));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // Whoever started us and does not listen any more has no use for an error.
            let _ = socket.send(text.as_bytes());
        }
    }
}
