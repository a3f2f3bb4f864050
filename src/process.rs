//! Runs an outside tool to its end: cleared environment, own process group, a deadline, bounded output.
//!
//! Nothing of our own environment reaches a tool: it gets a fixed `PATH`, `LANG=C.UTF-8`, and what it is given. When
//! the deadline passes, or when the future is dropped, the whole process group is killed. This file does not know
//! what a tool is for; holding hostile code is `scratch::confine`'s task.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::error::{Code, Diagnostic};

/// Where tools are looked for. Fixed, so that a cron job and a shell find the same ones.
pub const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a tool may take where the caller says nothing.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
/// How much of a tool's stdout is kept where the caller says nothing.
pub const DEFAULT_STDOUT_BYTES: usize = 1024 * 1024;
/// How much of the end of a tool's stderr is kept where the caller says nothing.
pub const STDERR_TAIL_BYTES: usize = 4096;
/// Once the tool itself has ended and its group is killed, how long its pipes may stay open: a process that left the
/// group can hold them, and nobody waits for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 16 * 1024;

/// A tool, and how to run it.
#[derive(Clone)]
pub struct Tool {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    deadline: Duration,
    stdout_limit_bytes: usize,
    stderr_tail_bytes: usize,
    secrets: Vec<String>,
}

/// How a tool ended, and what it said.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; success is for the caller to demand.
    pub status: ExitStatus,
    /// The beginning of its stdout, to the limit. Secrets are not taken out of it: it is data.
    pub stdout: Vec<u8>,
    /// How many bytes of stdout came after the limit and were dropped.
    pub stdout_dropped_bytes: u64,
    /// The end of its stderr, secrets taken out, control characters escaped.
    pub stderr_tail: String,
    /// From start to end.
    pub elapsed: Duration,
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No such program.
    #[error("{program} is not installed")]
    Missing {
        /// The program.
        program: String,
    },
    /// It is there and could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It was still running at its deadline, and was killed.
    #[error("{program} was killed after {deadline_seconds} s{}", said(stderr_tail))]
    TimedOut {
        /// The program.
        program: String,
        /// The deadline.
        deadline_seconds: f64,
        /// The end of its stderr.
        stderr_tail: String,
    },
    /// It ended with something else than success.
    #[error("{program} ended with {status}{}", said(stderr_tail))]
    Failed {
        /// The program.
        program: String,
        /// Exit status or signal.
        status: ExitStatus,
        /// The end of its stderr.
        stderr_tail: String,
    },
    /// It could not be waited for.
    #[error("lost track of {program}")]
    Lost {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl Diagnostic for ToolError {
    fn code(&self) -> Code {
        Code::ToolFailed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { program } => Some(match debian_package(program) {
                Some(package) => format!("apt-get install {package}"),
                None => format!("install {program}, or write its full path"),
            }),
            _ => None,
        }
    }
}

impl Tool {
    /// A tool found on [`TOOL_PATH`], or at a path.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::from([("PATH".into(), TOOL_PATH.into()), ("LANG".into(), "C.UTF-8".into())]),
            dir: None,
            stdin: Vec::new(),
            deadline: DEFAULT_DEADLINE,
            stdout_limit_bytes: DEFAULT_STDOUT_BYTES,
            stderr_tail_bytes: STDERR_TAIL_BYTES,
            secrets: Vec::new(),
        }
    }

    /// Adds an argument. Every user of the machine can read it: never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Puts a variable into its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Where it runs; left out, where we do.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What it reads on stdin; left out, nothing.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How much of its stdout is kept.
    #[must_use]
    pub fn stdout_limit_bytes(mut self, limit: usize) -> Self {
        self.stdout_limit_bytes = limit;
        self
    }

    /// How much of the end of its stderr is kept.
    #[must_use]
    pub fn stderr_tail_bytes(mut self, limit: usize) -> Self {
        self.stderr_tail_bytes = limit;
        self
    }

    /// A text that must not be shown, should the tool repeat it.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// Makes `launcher` run this tool: `launcher… program args…`, all else as it was.
    #[must_use]
    pub fn behind<T: Into<OsString>>(mut self, launcher: impl IntoIterator<Item = T>) -> Self {
        let mut argv: VecDeque<OsString> = launcher.into_iter().map(Into::into).collect();
        if let Some(first) = argv.pop_front() {
            argv.push_back(std::mem::replace(&mut self.program, first));
            argv.extend(std::mem::take(&mut self.args));
            self.args = argv.into();
        }
        self
    }

    /// Runs it to its end and gives whatever status it ended with.
    ///
    /// # Errors
    /// When it is missing, cannot be started, or is still running at its deadline.
    pub async fn run(self) -> Result<Output, ToolError> {
        let started = Instant::now();
        let (mut child, mut group) = self.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let longest_secret = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let mut head = Head { kept: Vec::new(), limit: self.stdout_limit_bytes, dropped: 0 };
        let mut tail = Tail { kept: VecDeque::new(), limit: self.stderr_tail_bytes + longest_secret };

        let ended = {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A tool that does not want all of its input is free to close it: its status says how it went.
                    let _ = stdin.write_all(&self.stdin).await;
                }
            };
            let talk = async {
                tokio::join!(feed, drain(stdout, |bytes| head.push(bytes)), drain(stderr, |bytes| tail.push(bytes)));
            };
            tokio::pin!(talk);
            let life = async {
                let status = tokio::select! {
                    status = child.wait() => status,
                    // Its pipes are closed and it still runs.
                    () = &mut talk => return child.wait().await,
                };
                // The tool has ended; what is left of its group must not outlive it, nor keep its pipes open.
                group.kill();
                let _ = tokio::time::timeout(DRAIN_LIMIT, &mut talk).await;
                status
            };
            tokio::time::timeout(self.deadline, life).await
        };
        group.kill();

        let stderr_tail = shown(tail.kept.make_contiguous(), &self.secrets, self.stderr_tail_bytes);
        match ended {
            Ok(Ok(status)) => Ok(Output {
                status,
                stdout: head.kept,
                stdout_dropped_bytes: head.dropped,
                stderr_tail,
                elapsed: started.elapsed(),
            }),
            Ok(Err(cause)) => Err(ToolError::Lost { program: self.shown_program(), cause }),
            Err(_) => {
                // Reap it; SIGKILL cannot be refused, so this ends.
                let _ = tokio::time::timeout(DRAIN_LIMIT, child.wait()).await;
                Err(ToolError::TimedOut {
                    program: self.shown_program(),
                    deadline_seconds: self.deadline.as_secs_f64(),
                    stderr_tail,
                })
            }
        }
    }

    /// Runs it and demands success.
    ///
    /// # Errors
    /// As [`Tool::run`], and when it ends with anything but exit status 0.
    pub async fn run_to_success(self) -> Result<Output, ToolError> {
        let program = self.shown_program();
        let output = self.run().await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(ToolError::Failed { program, status: output.status, stderr_tail: output.stderr_tail })
    }

    fn spawn(&self) -> Result<(tokio::process::Child, Group), ToolError> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let child = command.spawn().map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound if self.dir.as_deref().is_none_or(Path::is_dir) => {
                ToolError::Missing { program: self.shown_program() }
            }
            _ => ToolError::Start { program: self.shown_program(), cause },
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok((child, Group { leader }))
    }

    fn shown_program(&self) -> String {
        shown(self.program.as_encoded_bytes(), &self.secrets, usize::MAX)
    }
}

impl Output {
    /// The last line of stderr that is not blank.
    #[must_use]
    pub fn last_stderr_line(&self) -> Option<&str> {
        last_line(&self.stderr_tail)
    }
}

/// The Debian package that has a program.
#[must_use]
pub fn debian_package(program: &str) -> Option<&'static str> {
    let name = Path::new(program).file_name().and_then(OsStr::to_str)?;
    Some(match name {
        "age" | "age-keygen" => "age",
        "zstd" | "unzstd" => "zstd",
        "tar" => "tar",
        "minisign" => "minisign",
        "jq" => "jq",
        "sqlite3" => "sqlite3",
        "getfacl" | "setfacl" => "acl",
        "getfattr" | "setfattr" => "attr",
        "setpriv" | "unshare" | "prlimit" | "setsid" | "mount" => "util-linux",
        "sha256sum" | "test" | "env" | "cp" => "coreutils",
        "sh" | "dash" => "dash",
        _ => return None,
    })
}

fn said(stderr_tail: &str) -> String {
    last_line(stderr_tail).map_or_else(String::new, |line| format!(": {line}"))
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// The process group of a running tool, killed when this goes out of scope.
///
/// It is killed right after its leader was waited for. The kernel does not give a number to a new process while a
/// group has it, so a stranger can be hit only if the group is empty and the very number was handed out again within
/// those microseconds.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // ESRCH: nobody is left, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps the beginning of a stream.
struct Head {
    kept: Vec<u8>,
    limit: usize,
    dropped: u64,
}

impl Head {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.dropped += (bytes.len() - room) as u64;
    }
}

/// Keeps the end of a stream.
struct Tail {
    kept: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let surplus = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..surplus);
    }
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, mut keep: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; READ_BYTES];
    // A pipe that cannot be read any more has ended; the tool's status says how it went.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        keep(&buffer[..count]);
    }
}

/// Text of a stranger, fit to be shown: secrets out first, while they are whole, then cut from the front.
pub(crate) fn shown(bytes: &[u8], secrets: &[String], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "***");
    }
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let mut clean = String::with_capacity(text.len() - start);
    for c in text[start..].chars() {
        if c.is_control() && c != '\n' && c != '\t' { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn gives_back_what_a_tool_said_and_how_it_ended() {
        let output = sh("cat; echo first >&2; echo last >&2; exit 3").stdin("fed").run().await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"fed");
        assert_eq!(output.last_stderr_line(), Some("last"));
        let error = sh("echo broken >&2; exit 3").run_to_success().await.unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status: 3: broken");
        assert_eq!(error.code(), Code::ToolFailed);
    }

    #[tokio::test]
    async fn sees_only_the_environment_it_is_given() {
        // Cargo sets CARGO_MANIFEST_DIR for every test: it stands for our own secrets.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let output = Tool::new("env").env("GIVEN", "1").run_to_success().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["GIVEN", "LANG", "PATH"]);
    }

    #[tokio::test]
    async fn a_missing_tool_names_its_package() {
        let error = Tool::new("/nowhere/minisign").run().await.unwrap_err();
        assert!(matches!(error, ToolError::Missing { .. }), "{error:?}");
        assert_eq!(error.hint().unwrap(), "apt-get install minisign");
        let error = sh("true").current_dir("/nowhere").run().await.unwrap_err();
        assert!(matches!(error, ToolError::Start { .. }), "a missing folder is not a missing tool: {error:?}");
    }

    #[tokio::test]
    async fn the_deadline_kills_the_tool_and_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting >&2; wait", pid_file.display());
        let error = sh(&script).deadline(Duration::from_millis(500)).run().await.unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }), "{error:?}");
        assert!(error.to_string().ends_with(": waiting"), "{error}");
        let pid = std::fs::read_to_string(pid_file).unwrap();
        assert!(gone(pid.trim()), "the grandchild lives on");
    }

    #[tokio::test]
    async fn dropping_the_future_kills_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid_file.display());
        let task = tokio::spawn(sh(&script).run());
        let pid = loop {
            match std::fs::read_to_string(&pid_file) {
                Ok(pid) => break pid,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(gone(pid.trim()), "the grandchild lives on");
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_pipes_open_does_not_keep_us() {
        let output = sh("sleep 1000 & exit 0").deadline(Duration::from_secs(60)).run().await.unwrap();
        assert!(output.status.success());
        assert!(output.elapsed < Duration::from_secs(30), "{:?}", output.elapsed);
    }

    #[tokio::test]
    async fn output_is_bounded_at_both_ends() {
        let script = "head -c 100000 /dev/zero | tr '\\0' a; head -c 100000 /dev/zero | tr '\\0' b >&2; echo end >&2";
        let output = sh(script).stdout_limit_bytes(1000).run_to_success().await.unwrap();
        assert_eq!(output.stdout, vec![b'a'; 1000]);
        assert_eq!(output.stdout_dropped_bytes, 99_000);
        assert_eq!(output.stderr_tail.len(), STDERR_TAIL_BYTES);
        assert!(output.stderr_tail.ends_with("bend\n"));
    }

    #[tokio::test]
    async fn secrets_are_not_shown_not_even_their_second_half() {
        let filler = STDERR_TAIL_BYTES - 3;
        let script = format!("printf 'hunter2%0{filler}d\\033[2J' 0 >&2; echo ' hunter2' >&2");
        let output = sh(&script).secret("hunter2").run().await.unwrap();
        assert!(!output.stderr_tail.contains("ter2"), "{}", output.stderr_tail);
        assert!(output.stderr_tail.ends_with("\\u{1b}[2J ***\n"), "{}", output.stderr_tail);
    }

    /// Whether a process has ended; one that was killed this moment may need a moment more, so it is asked until it
    /// has, or far too long has passed.
    fn gone(pid: &str) -> bool {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < until {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Err(_) => return true,
                Ok(stat) if stat.contains(") Z ") => return true,
                Ok(_) => std::thread::yield_now(),
            }
        }
        false
    }
}
