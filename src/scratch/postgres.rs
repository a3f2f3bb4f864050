//! A throw-away PostgreSQL server: made in a scratch folder, run in the confinement, gone with it.
//!
//! Whoever controls a schema runs programs as the server's user, as soon as it is restored and looked at. So the server
//! has the confinement's uid, listens on a socket that only that uid and we can reach, and whatever it or a program of
//! its started ends when it ends. This file does not know what is loaded into it, nor who asks.
//!
//! | file | what |
//! |---|---|
//! | place.rs | the folders, the log, the socket |
//! | cluster.rs | initdb, and what becomes of a locale that this machine lacks |
//! | settings.rs | the server's settings |
//! | runner.rs | what runs its programs: the confinement, or a container |
//! | container.rs | docker's and podman's containers |
//! | keeper.rs | the running server: who waits for it, and how it ends |

mod cluster;
pub mod container;
mod keeper;
mod place;
mod runner;
mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::confine::{ConfineError, Confinement};
use super::folder::ScratchError;
use crate::domain::server::{ServerAddress, ServerHost, TlsMode};
use crate::error::{Code, Diagnostic};
use crate::process::{Tool, ToolError};
use crate::sources::postgres::binaries::Tools;
use crate::sources::postgres::connect::{Access, ServerTrouble};
use container::{Container, ContainerError};
use keeper::{End, Keeper};
use place::Place;
use runner::Runner;

/// The number in the socket's name. The socket has a folder of its own, so no other server can have the same.
const PORT: u16 = 5432;
/// The superuser of a throw-away server.
pub const SUPERUSER: &str = "postgres";
/// How long the server may take until it lets us in, and how often it is asked.
const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_LOOK: Duration = Duration::from_millis(20);
/// How long it may take to end when told to: with a large memory it has much to write.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// What a log says where the disk, or somebody's share of it, is full.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// What server is wanted.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions<'a> {
    /// `initdb` and `postgres`, of the source's major version: the confinement's uid must be able to run them. In a
    /// container, its own ([`Container::find`] gives them).
    pub tools: &'a Tools,
    /// What they run in, where it is not this machine itself.
    pub container: Option<&'a Arc<Container>>,
    /// A folder that does not exist yet, or is empty, below a scratch folder that the confinement's uid can enter
    /// (`Scratch::open_to_group`, or [`super::checks::prepare`]).
    pub dir: &'a Path,
    /// Under which rights it runs.
    pub confinement: &'a Confinement,
    /// What a crash may cost.
    pub durability: Durability,
    /// The encoding of the template databases, as the source's server names it: `UTF8`.
    pub encoding: &'a str,
    /// Their LC_COLLATE.
    pub collate: &'a str,
    /// Their LC_CTYPE.
    pub ctype: &'a str,
    /// How many may be connected at a time, superusers included.
    pub max_connections: u32,
    /// What it may take of the memory, roughly: a quarter of the machine's is usual.
    pub memory_bytes: u64,
}

/// What a crash may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Everything: nothing is flushed, nothing is logged that need not be. For drills, which measure a load.
    Off,
    /// Nothing: the server flushes and logs as one in production does, and vacuums by itself.
    AsInProduction,
}

/// A running server. Dropped, it is killed with everything that it started, before the drop returns.
#[derive(Debug)]
pub struct Server {
    // The order matters: the server ends before its folders are removed.
    keeper: Keeper,
    place: Place,
    settings: Vec<(String, String)>,
    remarks: Vec<String>,
}

/// Why there is no server, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// `postgres` does not run as root, and the confinement leaves us root.
    #[error("a PostgreSQL server refuses to run as root, and a trusted source's server would run as we do")]
    Root,
    /// There is something in its folder.
    #[error("{dir} is not empty")]
    NotEmpty {
        /// The folder.
        dir: String,
    },
    /// The uid that it would run under cannot run its programs.
    #[error("uid {uid}, under which the server would run, cannot run {program}")]
    NotRunnable {
        /// The program.
        program: String,
        /// The uid.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        path: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The folder of its socket could not be had.
    #[error("there is no folder for the server's socket")]
    Socket(#[source] ScratchError),
    /// There is no container for it.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The confinement does not work, or the folder cannot be reached from within it.
    #[error("the server cannot be confined")]
    Confine(#[source] ConfineError),
    /// `initdb` did not come to its end.
    #[error("cannot make a database cluster in {dir}")]
    Tool {
        /// The data folder.
        dir: String,
        /// Why.
        #[source]
        cause: ToolError,
    },
    /// `initdb` refused.
    #[error("cannot make a database cluster in {dir}: initdb ended with {status}: {}", telling(said))]
    Initdb {
        /// The data folder.
        dir: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// It ended by itself before it let us in.
    #[error("the throw-away server in {dir} did not start: {how}: {}", telling(log_tail))]
    NotStarted {
        /// Its folder.
        dir: String,
        /// Exit status or signal.
        how: String,
        /// The end of its log.
        log_tail: String,
    },
    /// It runs, and lets nobody in.
    #[error("the throw-away server in {dir} did not let us in within {} s: {}", limit.as_secs(), telling(log_tail))]
    NotReady {
        /// Its folder.
        dir: String,
        /// How long it was asked.
        limit: Duration,
        /// The end of its log.
        log_tail: String,
        /// What became of the last attempt.
        #[source]
        cause: ServerTrouble,
    },
    /// It ended by itself, later on.
    #[error("the throw-away server in {dir} ended by itself: {how}: {}", telling(log_tail))]
    Died {
        /// Its folder.
        dir: String,
        /// Exit status or signal.
        how: String,
        /// The end of its log.
        log_tail: String,
    },
    /// It did not end when told to, and was killed.
    #[error("the throw-away server in {dir} did not stop within {} s, and was killed", limit.as_secs())]
    NotStopped {
        /// Its folder.
        dir: String,
        /// How long it was given.
        limit: Duration,
        /// The end of its log.
        log_tail: String,
    },
}

impl Diagnostic for ServerError {
    fn code(&self) -> Code {
        match self {
            Self::Root => Code::Unconfined,
            Self::Confine(cause) => cause.code(),
            Self::Container(cause) => cause.code(),
            Self::NotRunnable { .. } | Self::Tool { .. } | Self::Initdb { .. } => Code::ToolFailed,
            _ => Code::ScratchFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Root => Some(
                "take trust_source = true out of [job.<name>.drill], so that the server gets a uid of its own; \
                 or run the drill as another user than root"
                    .to_owned(),
            ),
            Self::NotEmpty { dir } => Some(format!("ls -A {dir}; name a folder that does not exist yet")),
            Self::NotRunnable { program, uid } => Some(format!(
                "setpriv --reuid {uid} --clear-groups {program} --version; chmod o+x each folder on the way there"
            )),
            Self::Io { .. } => None,
            Self::Socket(cause) => cause.hint(),
            Self::Confine(cause) => cause.hint(),
            Self::Container(cause) => cause.hint(),
            Self::Tool { cause, .. } => cause.hint(),
            Self::Initdb { dir, said, .. } => cure(said, dir),
            Self::NotStarted { dir, log_tail, .. }
            | Self::NotReady { dir, log_tail, .. }
            | Self::Died { dir, log_tail, .. }
            | Self::NotStopped { dir, log_tail, .. } => cure(log_tail, dir),
        }
    }
}

impl Server {
    /// Makes a cluster and starts a server on it; returns when it lets us in.
    ///
    /// # Errors
    /// [`ServerError`]. Nothing is left running; the folder is the caller's to remove.
    pub async fn start(options: &ServerOptions<'_>) -> Result<Self, ServerError> {
        Self::start_within(options, READY_LIMIT).await
    }

    async fn start_within(options: &ServerOptions<'_>, limit: Duration) -> Result<Self, ServerError> {
        if options.confinement.owner().is_none() && rustix::process::geteuid().is_root() {
            return Err(ServerError::Root);
        }
        let place = Place::make(options)?;
        options.confinement.verify_reachable(options.dir).await.map_err(ServerError::Confine)?;
        match options.container {
            Some(_) => Container::must_show(&place.folders())?,
            None => must_be_runnable(options).await?,
        }
        let remarks = cluster::create(options, &place).await?;

        let settings = settings::settings(options);
        let mut arguments = settings.clone();
        arguments.push(("unix_socket_directories".to_owned(), place.socket_setting()));
        let tool = Tool::new("sh")
            .args(["-c", r#"exec "$@" >>"$0" 2>&1"#])
            .arg(place.log_path())
            .arg(options.tools.folder.join("postgres"))
            .arg("-D")
            .arg(place.data())
            .args(arguments.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]))
            .env("TZ", "UTC")
            .current_dir(place.data());
        let keeper = Keeper::start(Runner::of(options, &place), tool, place.data())
            .map_err(|cause| place::io_error("start the server in", options.dir, cause))?;
        let mut server = Self { keeper, place, settings, remarks };
        server.wait_until_ready(limit).await?;
        server.place.close_socket_folder()?;
        Ok(server)
    }

    /// Where it listens. The role is a superuser without a password.
    #[must_use]
    pub fn address(&self, database: &str) -> ServerAddress {
        ServerAddress {
            host: ServerHost::Socket(self.place.socket_folder().to_owned()),
            port: PORT,
            role: SUPERUSER.to_owned(),
            database: database.to_owned(),
            tls: TlsMode::Disable,
            root_certificate: None,
        }
    }

    /// Ends it in an orderly way, connections or not: its data folder is whole afterwards.
    ///
    /// # Errors
    /// When it had ended before, or had to be killed.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        if let Some(died) = self.trouble() {
            return Err(died);
        }
        // Without a postmaster to be told there is nothing to wait for.
        if self.keeper.tell_to_stop() && self.keeper.ends_within(STOP_LIMIT).await {
            return match self.keeper.end() {
                Some(End { clean: true, .. }) | None => Ok(()),
                Some(_) => self.trouble().map_or(Ok(()), Err),
            };
        }
        Err(ServerError::NotStopped { dir: self.place.shown(), limit: STOP_LIMIT, log_tail: self.log_tail() })
    }

    /// What to say if it has ended: a connection that broke says less.
    #[must_use]
    pub fn trouble(&self) -> Option<ServerError> {
        self.keeper.end().map(|end| ServerError::Died {
            dir: self.place.shown(),
            how: end.how.clone(),
            log_tail: self.tail_after(&end),
        })
    }

    /// The last 4 KiB of its log, control characters escaped.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.place.log_tail()
    }

    /// What to do where its log says that the disk is full. Whoever loads into it may have seen a closed connection only.
    #[must_use]
    pub fn lacks_room(&self) -> Option<String> {
        let log = self.place.log_tail();
        FULL.iter().any(|word| log.contains(word)).then(|| make_room(&self.place.shown()))
    }

    /// What was set, for the report: names as in postgresql.conf, and their values.
    #[must_use]
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// What is not as at the source, in sentences for the report.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    async fn wait_until_ready(&mut self, limit: Duration) -> Result<(), ServerError> {
        let access = Access { address: self.address("postgres"), password: None };
        let started = tokio::time::Instant::now();
        loop {
            if let Some(end) = self.keeper.end() {
                let log_tail = self.tail_after(&end);
                return Err(ServerError::NotStarted { dir: self.place.shown(), how: end.how, log_tail });
            }
            let cause = match access.connect().await {
                Ok(connection) => {
                    // It let us in; how it takes the farewell does not matter.
                    let _ = sqlx::Connection::close(connection).await;
                    return Ok(());
                }
                Err(cause) => cause,
            };
            if started.elapsed() > limit {
                let (dir, log_tail) = (self.place.shown(), self.log_tail());
                return Err(ServerError::NotReady { dir, limit, log_tail, cause });
            }
            self.keeper.ends_within(READY_LOOK).await;
        }
    }

    /// The log's end; where there is none, what stands in for it.
    fn tail_after(&self, end: &End) -> String {
        Some(self.log_tail()).filter(|tail| !tail.trim().is_empty()).unwrap_or_else(|| end.said.clone())
    }
}

async fn must_be_runnable(options: &ServerOptions<'_>) -> Result<(), ServerError> {
    for program in ["initdb", "postgres"] {
        let program = options.tools.folder.join(program);
        if !options.confinement.can_run(&program).await.map_err(ServerError::Confine)? {
            let uid = options.confinement.owner().map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
            return Err(ServerError::NotRunnable { program: program.display().to_string(), uid });
        }
    }
    Ok(())
}

/// The line of a log that tells most: the last one that is an error, or the last one.
fn telling(log: &str) -> &str {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let bad = |line: &&str| ["FATAL:", "PANIC:", "ERROR:", "error:"].iter().any(|word| line.contains(word));
    lines().rfind(bad).or_else(|| lines().next_back()).unwrap_or("it said nothing")
}

fn make_room(dir: &str) -> String {
    format!("df -h {dir}; make room there, or name another folder as `scratch` of the drill")
}

/// What to do about what a log complains of.
fn cure(log: &str, dir: &str) -> Option<String> {
    let says = |words: &[&str]| words.iter().any(|word| log.contains(word));
    Some(if says(&["could not create semaphores"]) {
        "sysctl kernel.sem; allow more semaphores, or end other servers".to_owned()
    } else if says(&FULL) {
        make_room(dir)
    } else if says(&["Cannot allocate memory", "could not map anonymous shared memory", "out of memory"]) {
        "free -m; end what takes the memory, and run the drill again".to_owned()
    } else if says(&["could not load library", "could not access file", "error while loading shared libraries"]) {
        "install the package that has the library which the log names".to_owned()
    } else if says(&["is another postmaster", "Address already in use"]) {
        format!("ps -ef | grep {dir}; end the server that still runs there")
    } else if log.trim().is_empty() {
        return None;
    } else {
        "run the drill with --keep and read the file `log` in that folder".to_owned()
    })
}
