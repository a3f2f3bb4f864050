//! Keeps a running server: one thread starts it, waits for it and ends it.
//!
//! The thread is there for two reasons. The kernel ends a confined process with the *thread* that started it, and a
//! runtime's threads come and go. And a server that is dropped must have ended when the drop returns, or what it writes
//! comes in the way of the removal of its folder.
//!
//! The server's processes are known by their uid and by where they stand: in the data folder. A server puts each of its
//! processes into a session of its own, so that a process group does not find them all.

use std::io;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::{oneshot, watch};

use super::runner::Runner;
use crate::process::{Output, Tool, ToolError};

/// How long a throw-away server may run: longer than any drill.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long what was killed may take to be gone, and how often it is looked for.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const KILL_LOOK: Duration = Duration::from_millis(5);
/// How long a server may take to break off what it does, before it is killed: by itself it gives its processes 5 s.
const QUIT_LIMIT: Duration = Duration::from_secs(10);
/// A server's own postmaster.pid is far smaller.
const MAX_PID_FILE_BYTES: u64 = 4096;

/// How a server ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// In an orderly way.
    pub(super) clean: bool,
    /// Its exit status, or why it could not be run.
    pub(super) how: String,
    /// What it said where it should not say anything.
    pub(super) said: String,
}

/// A running server's keeper. Dropped, it kills the server, and returns when nothing of it is left.
#[derive(Debug)]
pub(super) struct Keeper {
    end: watch::Receiver<Option<End>>,
    /// Dropped, it has the thread end the server.
    kill: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    processes: Processes,
}

impl Keeper {
    /// Runs a server: a tool that stays in the foreground, in `data`, an absolute path without links.
    pub(super) fn start(runner: Runner, tool: Tool, data: &Path) -> io::Result<Self> {
        let processes = Processes { uid: runner.uid(), data: data.to_owned() };
        let (tell, end) = watch::channel(None);
        let (kill, killed) = oneshot::channel();
        let (resident, ours) = (runner.resident(), processes.clone());
        let thread = std::thread::Builder::new().name("scratch-postgres".to_owned()).spawn(move || {
            let end = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => describe(runtime.block_on(run(&runner, tool, &ours, killed))),
                Err(cause) => End { clean: false, how: cause.to_string(), said: String::new() },
            };
            // A server that was killed leaves its helpers to notice; and programs that it started notice nothing.
            ours.kill_all();
            drop(resident);
            // Nobody may be left who wants to know.
            let _ = tell.send(Some(end));
        })?;
        Ok(Self { end, kill: Some(kill), thread: Some(thread), processes })
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    /// Waits for its end.
    pub(super) async fn ends_within(&mut self, limit: Duration) -> bool {
        // A channel whose other side is gone has no news any more: the thread has ended.
        tokio::time::timeout(limit, self.end.wait_for(Option::is_some)).await.is_ok()
    }

    /// Tells it to break off what it does and to end in an orderly way; `false` if nobody is there to be told.
    pub(super) fn tell_to_stop(&self) -> bool {
        self.processes.tell(Signal::INT)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, there would be nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// Runs the server until it ends, or until nobody keeps the other end of `killed`.
async fn run(
    runner: &Runner,
    tool: Tool,
    processes: &Processes,
    killed: oneshot::Receiver<()>,
) -> Option<Result<Output, ToolError>> {
    let run = runner.run(tool.deadline(LIFETIME).stdout_limit_bytes(0));
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => Some(ended),
        _ = killed => {
            // Asked to break off at once, it takes its shared memory along.
            if processes.tell(Signal::QUIT)
                && let Ok(ended) = tokio::time::timeout(QUIT_LIMIT, &mut run).await
            {
                return Some(ended);
            }
            processes.kill_all();
            // What ran it ends with it. If it does not, dropping it kills that too.
            tokio::time::timeout(KILL_LIMIT, &mut run).await.ok()
        }
    }
}

fn describe(ended: Option<Result<Output, ToolError>>) -> End {
    match ended {
        Some(Ok(output)) => {
            End { clean: output.status.success(), how: output.status.to_string(), said: output.stderr_tail }
        }
        Some(Err(error)) => End { clean: false, how: crate::error::chain(&error), said: String::new() },
        None => End { clean: false, how: "it was killed".to_owned(), said: String::new() },
    }
}

/// The processes of one server.
#[derive(Debug, Clone)]
struct Processes {
    uid: u32,
    data: PathBuf,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: Pid,
    /// Its number where it runs, in the innermost process namespace.
    own_number: i32,
}

impl Processes {
    /// Those that live.
    fn list(&self) -> Vec<Process> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
            .filter_map(|pid| self.look(pid))
            .collect()
    }

    /// The process, if it is one of them.
    fn look(&self, pid: Pid) -> Option<Process> {
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let status = std::fs::read_to_string(proc.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let uid: u32 = field("Uid")?.split_whitespace().next()?.parse().ok()?;
        if uid != self.uid || field("State")?.trim_start().starts_with('Z') {
            return None;
        }
        // A process that is ending has no folder any more, nor an open file in it.
        if !std::fs::read_link(proc.join("cwd")).ok()?.starts_with(&self.data) {
            return None;
        }
        let own_number = match field("NSpid") {
            Some(numbers) => numbers.split_whitespace().next_back()?.parse().ok()?,
            None => pid.as_raw_nonzero().get(),
        };
        Some(Process { pid, own_number })
    }

    /// Sends a signal to the one that the others belong to; `false` if there is none.
    fn tell(&self, signal: Signal) -> bool {
        // Whoever owns the server's schema could have written another number there: then another of its own processes
        // is told, which is no harm.
        let Some(wanted) = postmaster(&self.data) else { return false };
        let postmaster = self.list().into_iter().find(|process| process.own_number == wanted);
        postmaster.is_some_and(|process| self.signal(&process, signal))
    }

    /// Sends a signal; `false` if there is nobody to get it.
    fn signal(&self, process: &Process, signal: Signal) -> bool {
        // Held, the process is looked at again: its number may have gone to another meanwhile.
        let Ok(held) = rustix::process::pidfd_open(process.pid, PidfdFlags::empty()) else { return false };
        self.look(process.pid).is_some() && rustix::process::pidfd_send_signal(&held, signal).is_ok()
    }

    /// Kills them, again and again until there are none, for they may fork.
    fn kill_all(&self) {
        for _ in 0..KILL_LIMIT.as_millis() / KILL_LOOK.as_millis() {
            let living = self.list();
            if living.is_empty() {
                return;
            }
            for process in &living {
                self.signal(process, Signal::KILL);
            }
            std::thread::sleep(KILL_LOOK);
        }
    }
}

/// The number that a server has written down as its own.
fn postmaster(data: &Path) -> Option<i32> {
    // The folder is the server's: neither follow a link out of it, nor wait for a pipe.
    let file = std::fs::File::options()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(data.join("postmaster.pid"))
        .ok()?;
    let mut text = String::new();
    file.take(MAX_PID_FILE_BYTES).read_to_string(&mut text).ok()?;
    text.lines().next()?.trim().parse().ok()
}
