//! The hostile-code rule: under which rights a drill may run what it restored.
//!
//! Decided before anything runs. As root, foreign code gets a uid of its own that no other drill of this host uses at
//! the time, no capability, no way back to root, no terminal, none of our environment, and where the kernel allows it
//! neither a network nor sight of other processes. Without root it does not run, unless the config trusts the source.
//!
//! The tools are util-linux's. A small shell, still root, is the first process of the new process namespace: when it
//! ends, or is killed with our process group, the kernel ends everything inside, daemons too. The foreign program must
//! not be that first process: it could take the death signal off itself.
//!
//! This file does not know what is run.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::tree::{self, Step};
use crate::error::{Code, Diagnostic};
use crate::process::{Output, TOOL_PATH, Tool, ToolError};

/// The uids, each with the gid of the same number, that foreign code may get. Debian gives them to nobody, and they
/// lie beyond systemd's dynamic users (61184-65519). One each for as many drills as may run at a time on a host.
pub const UIDS: std::ops::RangeInclusive<u32> = 65520..=65533;
/// A user that has a name on every machine: `nobody`.
pub(super) const NAMED_UID: u32 = 65534;
/// Where it is noted which of them is in use.
pub const LOCK_DIR: &str = "/run/lifeboat";
/// Processes and threads that foreign code may have.
const MAX_PROCESSES: u32 = 1024;
/// How long a drill waits for one of them, and how often it looks.
const UID_WAIT: Duration = Duration::from_secs(60);
const UID_LOOK: Duration = Duration::from_millis(100);
/// What every launch goes through; `unshare` is one more where the kernel lets us.
const LAUNCHERS: [&str; 3] = ["setpriv", "prlimit", "setsid"];
/// Ends every process of a uid, and takes away what shared memory they leave behind: it belongs to no process, and
/// nobody else can remove what is not his.
const SWEEP: &str = r#"[ "$(id -u)" = "$1" ] || exit 1; kill -KILL -1; ipcrm --all=shm"#;
/// How long our own small commands in the confinement may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// What the config says of the job's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: what it holds is hostile.
    Hostile,
    /// `trust_source = true`.
    Source,
}

/// Whether foreign code can reach a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It has none, not even loopback.
    None,
    /// It has the host's: the kernel did not let us take it away.
    Shared,
}

/// Under which rights foreign code runs. A clone is the same confinement: the uid is free again when the last is gone.
#[derive(Debug, Clone)]
pub enum Confinement {
    /// With a uid of its own.
    OwnUid(Arc<OwnUid>),
    /// With ours: the config says so.
    TrustedSource,
}

/// A uid that is this drill's alone, as long as this lives.
#[derive(Debug)]
pub struct OwnUid {
    uid: u32,
    gid: u32,
    walls: Walls,
    /// How many [`Resident`]s there are.
    residents: AtomicUsize,
    /// Holds the lock on the uid.
    _lock: File,
}

/// Foreign code that runs beside other foreign code of the same drill: a server. As long as there is one, the end of a
/// tool does not end every process of the uid, where that is the only way to find what the tool left.
#[derive(Debug)]
pub(super) struct Resident(Confinement);

/// What is taken away besides rights, from the most to the least; the kernel says how much it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walls {
    /// No network, no sight of other processes.
    Full,
    /// No network; `/proc` still shows the host (containers that mask it do not let it be mounted again).
    HostProc,
    /// The host's network; the processes still end together.
    Processes,
    /// Nothing: the processes are found by their uid.
    None,
}

impl Walls {
    const ALL: [Self; 4] = [Self::Full, Self::HostProc, Self::Processes, Self::None];

    fn unshare(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["unshare", "--net", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"],
            Self::HostProc => &["unshare", "--net", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--"],
            Self::Processes => &["unshare", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--"],
            Self::None => &[],
        }
    }
}

/// Why foreign code will not be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Only root can give a process another uid.
    #[error("checks run what was restored, and that needs a uid of its own, which only root can give")]
    NotRoot,
    /// Every uid for drills is taken.
    #[error("{count} drills are at work on this host, each with a uid of its own; there are no more", count = UIDS.count())]
    NoUid,
    /// Something that must stay secret can be read.
    #[error("{path} can be read, written or entered by uid {uid}, under which foreign code would run")]
    Exposed {
        /// What.
        path: String,
        /// By whom.
        uid: u32,
    },
    /// The scratch folder cannot be reached.
    #[error("uid {uid}, under which the checks run, cannot reach {path}")]
    Unreachable {
        /// The first folder that cannot be entered.
        path: String,
        /// By whom.
        uid: u32,
    },
    /// The restored copy cannot be given to that uid.
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
    /// A tool that confines did not work.
    #[error("the confinement of checks does not work here")]
    Tool(#[source] ToolError),
}

impl Diagnostic for ConfineError {
    fn code(&self) -> Code {
        match self {
            Self::Tool(ToolError::Missing { .. }) => Code::ToolFailed,
            Self::NotRoot | Self::NoUid | Self::Exposed { .. } | Self::Tool(_) => Code::Unconfined,
            Self::Unreachable { .. } | Self::Io { .. } => Code::ScratchFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotRoot => {
                Some("run the drill as root, or set trust_source = true under [job.<name>.drill]".to_owned())
            }
            Self::NoUid => Some("wait for one of them to end".to_owned()),
            Self::Exposed { path, .. } => Some(format!("chmod o-rwx {}", quoted(path))),
            Self::Unreachable { path, .. } => {
                Some(format!("chmod o+x {}, or put the scratch folder elsewhere", quoted(path)))
            }
            Self::Tool(cause @ ToolError::Missing { .. }) => cause.hint(),
            Self::Tool(_) => Some(
                "run the drill where root may give processes another uid (not in a container that forbids it), \
                 or set trust_source = true under [job.<name>.drill]"
                    .to_owned(),
            ),
            Self::Io { .. } => None,
        }
    }
}

impl Confinement {
    /// Decides under which rights foreign code will run, and tries it.
    ///
    /// # Errors
    /// [`ConfineError::NotRoot`] where there is no other uid to be had and the source is not trusted.
    pub async fn decide(trust: Trust) -> Result<Self, ConfineError> {
        Self::decide_for(trust, rustix::process::geteuid()).await
    }

    async fn decide_for(trust: Trust, us: Uid) -> Result<Self, ConfineError> {
        if trust == Trust::Source {
            return Ok(Self::TrustedSource);
        }
        if !us.is_root() {
            return Err(ConfineError::NotRoot);
        }
        // One of them starts the next, so that a missing one would look like a confinement that does not work.
        for program in LAUNCHERS {
            if !std::env::split_paths(TOOL_PATH).any(|folder| folder.join(program).is_file()) {
                return Err(ConfineError::Tool(ToolError::Missing { program: program.to_owned() }));
            }
        }
        let waiting_since = tokio::time::Instant::now();
        let (uid, lock) = loop {
            match claim_uid(Path::new(LOCK_DIR), UIDS)? {
                Some(claimed) => break claimed,
                None if waiting_since.elapsed() > UID_WAIT => return Err(ConfineError::NoUid),
                None => tokio::time::sleep(UID_LOOK).await,
            }
        };
        let mut own = OwnUid { uid, gid: uid, walls: Walls::None, residents: AtomicUsize::new(0), _lock: lock };
        // A drill that was killed may have left processes to this uid.
        own.kill_all();
        own.walls = own.strongest_walls().await?;
        Ok(Self::OwnUid(Arc::new(own)))
    }

    /// The word for the record: `own-uid-no-network`, `own-uid` or `trusted-source`.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match (self, self.network()) {
            (Self::TrustedSource, _) => "trusted-source",
            (Self::OwnUid(_), Network::None) => "own-uid-no-network",
            (Self::OwnUid(_), Network::Shared) => "own-uid",
        }
    }

    /// Whether foreign code has a network.
    #[must_use]
    pub fn network(&self) -> Network {
        match self {
            Self::OwnUid(own) if matches!(own.walls, Walls::Full | Walls::HostProc) => Network::None,
            Self::OwnUid(_) | Self::TrustedSource => Network::Shared,
        }
    }

    /// The uid and gid of foreign code, where they are not ours.
    #[must_use]
    pub fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Self::OwnUid(own) => Some((own.uid, own.gid)),
            Self::TrustedSource => None,
        }
    }

    /// Runs a tool in the confinement, and ends everything that it started.
    ///
    /// # Errors
    /// As [`Tool::run`]. A program that is missing inside the confinement is an exit status of 127.
    pub async fn run(&self, tool: Tool) -> Result<Output, ToolError> {
        match self {
            Self::TrustedSource => tool.run().await,
            Self::OwnUid(own) => {
                let output = tool.behind(own.launcher(own.walls, own.uid)).run().await;
                if own.walls == Walls::None && own.residents.load(Ordering::SeqCst) == 0 {
                    own.kill_all();
                }
                output
            }
        }
    }

    /// Runs a tool of ours, with nothing foreign to work on, as [`NAMED_UID`]: some ask for the name of the user that
    /// they run as, and the drills' uids have none. The gid is the drill's all the same, so that no other process of
    /// that user can reach what the tool reaches, or meddle with it.
    ///
    /// # Errors
    /// As [`Tool::run`].
    pub(super) async fn run_named(&self, tool: Tool) -> Result<Output, ToolError> {
        match self {
            Self::TrustedSource => tool.run().await,
            Self::OwnUid(own) => tool.behind(own.launcher(own.walls, NAMED_UID)).run().await,
        }
    }

    /// Says that something runs here beside other tools, until what is returned is dropped.
    pub(super) fn resident(&self) -> Resident {
        if let Self::OwnUid(own) = self {
            own.residents.fetch_add(1, Ordering::SeqCst);
        }
        Resident(self.clone())
    }

    /// Proves that foreign code cannot read, write or enter what it must not: identity, config, state folder, vault
    /// folder. Asked of the kernel, as that uid. A path that does not exist is nothing to be read.
    ///
    /// # Errors
    /// [`ConfineError::Exposed`] names the first path that it can. A trusted source may read what we can.
    pub async fn verify_unreadable(&self, paths: &[PathBuf]) -> Result<(), ConfineError> {
        let Self::OwnUid(own) = self else { return Ok(()) };
        let script = r#"for p; do if [ -r "$p" ] || [ -w "$p" ] || { [ -d "$p" ] && [ -x "$p" ]; }; then printf %s "$p"; exit 0; fi; done"#;
        match self.first_named(script, paths).await? {
            Some(path) => Err(ConfineError::Exposed { path, uid: own.uid }),
            None => Ok(()),
        }
    }

    /// Proves that foreign code can enter a folder, and so every folder on the way there.
    ///
    /// # Errors
    /// [`ConfineError::Unreachable`] names the first that it cannot.
    pub async fn verify_reachable(&self, folder: &Path) -> Result<(), ConfineError> {
        let Self::OwnUid(own) = self else { return Ok(()) };
        let mut way: Vec<PathBuf> = folder.ancestors().map(Path::to_owned).collect();
        way.reverse();
        let script = r#"for p; do if ! [ -x "$p" ]; then printf %s "$p"; exit 0; fi; done"#;
        match self.first_named(script, &way).await? {
            Some(path) => Err(ConfineError::Unreachable { path, uid: own.uid }),
            None => Ok(()),
        }
    }

    /// Whether foreign code could run this file.
    ///
    /// # Errors
    /// When the confinement itself does not work.
    pub async fn can_run(&self, file: &Path) -> Result<bool, ConfineError> {
        let script = r#"for p; do if [ -f "$p" ] && [ -r "$p" ] && [ -x "$p" ]; then printf %s "$p"; fi; done"#;
        Ok(self.first_named(script, &[file.to_owned()]).await?.is_some())
    }

    /// Runs a script of ours over paths, which prints the one that it stops at.
    async fn first_named(&self, script: &str, paths: &[PathBuf]) -> Result<Option<String>, ConfineError> {
        // Asked from the root folder: a relative path would be looked for there, not found, and taken for safe.
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|cause| ConfineError::Io {
                verb: "find",
                path: path.display().to_string(),
                cause,
            })
        };
        let paths = paths.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
        let tool = Tool::new("sh").args(["-c", script, "sh"]).args(paths).current_dir("/").deadline(PROBE_DEADLINE);
        let output = self.run(tool).await.map_err(ConfineError::Tool)?;
        if !output.status.success() {
            let failed =
                ToolError::Failed { program: "sh".to_owned(), status: output.status, stderr_tail: output.stderr_tail };
            return Err(ConfineError::Tool(failed));
        }
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|path| !path.is_empty()))
    }
}

impl OwnUid {
    /// What stands before the foreign program's argv.
    fn launcher(&self, walls: Walls, uid: u32) -> Vec<OsString> {
        // Where this process is killed, what it started ends with it. Without walls the signal is lost on the way to
        // the other uid; then the next drill under that uid ends the rest. (The kernel means the thread that started it:
        // a verb keeps its own until it ends.)
        let mut argv: Vec<OsString> =
            ["setpriv", "--pdeathsig=KILL", "--", "prlimit", "--core=0"].map(OsString::from).into();
        argv.push(format!("--nproc={MAX_PROCESSES}").into());
        argv.extend(walls.unshare().iter().map(OsString::from));
        if walls != Walls::None {
            // `exit $?` keeps the shell from replacing itself with the program.
            argv.extend(["sh", "-c", "\"$@\"; exit $?", "lifeboat-confined"].map(OsString::from));
        }
        // A session of its own: a program that shares the operator's terminal could type into it.
        argv.extend(["setsid", "--wait"].map(OsString::from));
        argv.extend(self.setpriv(uid));
        argv
    }

    fn setpriv(&self, uid: u32) -> Vec<OsString> {
        let mut argv = vec!["setpriv".into(), format!("--reuid={uid}").into(), format!("--regid={}", self.gid).into()];
        argv.extend(
            ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
                .map(OsString::from),
        );
        argv
    }

    /// Tries the strongest first. Each is tried once; what the kernel refuses, it refuses for good.
    async fn strongest_walls(&self) -> Result<Walls, ConfineError> {
        let mut refusal = None;
        for walls in Walls::ALL {
            let probe =
                Tool::new("true").current_dir("/").deadline(PROBE_DEADLINE).behind(self.launcher(walls, self.uid));
            match probe.run_to_success().await {
                Ok(_) => return Ok(walls),
                Err(error @ ToolError::Missing { .. }) => return Err(ConfineError::Tool(error)),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.map_or(ConfineError::NotRoot, ConfineError::Tool))
    }

    /// Kills every process of the uid: it is this drill's alone. The kernel does it in one sweep for whoever asks as
    /// that uid, so a process that forks meanwhile does not escape.
    fn kill_all(&self) {
        let setpriv = self.setpriv(self.uid);
        // With nobody to kill, `kill` fails; that it does is no news. It is bound to end: it runs nothing foreign.
        let _ = std::process::Command::new(&setpriv[0])
            .args(&setpriv[1..])
            // The guard is there for the day on which setpriv does not do what it says: as root, this kills a machine.
            .args(["sh", "-c", SWEEP, "sh", &self.uid.to_string()])
            .env_clear()
            .env("PATH", TOOL_PATH)
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Confinement::OwnUid(own) = &self.0
            && own.residents.fetch_sub(1, Ordering::SeqCst) == 1
            && own.walls == Walls::None
        {
            own.kill_all();
        }
    }
}

impl Drop for OwnUid {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Takes the first uid that no living drill has, if there is one.
fn claim_uid(lock_dir: &Path, uids: impl Iterator<Item = u32>) -> Result<Option<(u32, File)>, ConfineError> {
    match DirBuilder::new().mode(0o700).create(lock_dir) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", lock_dir, cause)),
        _ => {}
    }
    for uid in uids {
        let path = lock_dir.join(format!("drill-uid-{uid}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|cause| io_error("open", &path, cause))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some((uid, file))),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(io_error("lock", &path, errno.into())),
        }
    }
    Ok(None)
}

/// Gives a restored tree to another user, the top folder included, before anything runs as that user: files lose
/// set-uid and set-gid; device nodes stay ours, with no permission for anyone, because their rights are those of a
/// machine that this is not.
///
/// Call it once, on a tree that only we have written to: then no name in it is also a name of something outside.
///
/// # Errors
/// When the system refuses, at the first thing it refuses.
pub fn hand_over(dir: &Path, uid: u32, gid: u32) -> Result<(), ConfineError> {
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let own = |folder: std::os::fd::BorrowedFd<'_>, name: &std::ffi::CStr| {
        rustix::fs::chownat(folder, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| ("hand over", errno))
    };
    let top = tree::open_top(dir).map_err(|cause| io_error("open", dir, cause))?;
    let top_again = top.try_clone().map_err(|cause| io_error("open", dir, cause))?;
    tree::walk(top, &mut |folder, name, step| match step {
        Step::Enter => Ok(()),
        Step::Entry(FileType::CharacterDevice | FileType::BlockDevice) => {
            set_mode(folder, name, |_| Mode::empty()).map_err(|errno| ("disarm", errno))
        }
        Step::Entry(FileType::RegularFile) => {
            set_mode(folder, name, |mode| mode - (Mode::SUID | Mode::SGID)).map_err(|errno| ("disarm", errno))?;
            own(folder, name)
        }
        Step::Entry(_) | Step::Leave => own(folder, name),
    })
    .map_err(|error| ConfineError::Io {
        verb: error.verb,
        path: format!("{} ({})", dir.display(), error.path),
        cause: error.cause,
    })?;
    rustix::fs::fchown(&top_again, Some(owner), Some(group)).map_err(|errno| io_error("hand over", dir, errno.into()))
}

/// Changes a mode without opening what it belongs to: opening a device does things.
fn set_mode(
    folder: std::os::fd::BorrowedFd<'_>,
    name: &std::ffi::CStr,
    change: impl FnOnce(Mode) -> Mode,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let place = rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&place)?.st_mode & 0o7777);
    let wanted = change(mode);
    if wanted == mode {
        return Ok(());
    }
    // The kernel refuses fchmod on such a descriptor, but not chmod on its name here, which leads to the very same.
    rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), wanted)
}

fn io_error(verb: &'static str, path: &Path, cause: io::Error) -> ConfineError {
    ConfineError::Io { verb, path: path.display().to_string(), cause }
}

/// A path as it can be typed into a shell.
fn quoted(path: &str) -> String {
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    pub(crate) async fn confinement() -> Confinement {
        assert!(rustix::process::geteuid().is_root(), "this test gives a process another uid: run it as root");
        Confinement::decide(Trust::Hostile).await.unwrap()
    }

    /// As if the kernel had refused every namespace.
    pub(crate) async fn without_walls() -> Confinement {
        match confinement().await {
            Confinement::OwnUid(mut own) => {
                Arc::get_mut(&mut own).unwrap().walls = Walls::None;
                Confinement::OwnUid(own)
            }
            Confinement::TrustedSource => panic!("nobody asked for that"),
        }
    }

    /// A folder that everybody can enter and list.
    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        folder
    }

    fn bash(script: &str) -> Tool {
        Tool::new("bash").args(["-c", script]).current_dir("/").deadline(Duration::from_secs(30))
    }

    async fn said(confinement: &Confinement, script: &str) -> String {
        String::from_utf8(confinement.run(bash(script)).await.unwrap().stdout).unwrap()
    }

    /// The processes of a uid.
    pub(crate) fn processes_of(uid: u32) -> Vec<String> {
        let wanted = format!("Uid:\t{uid}\t");
        let status = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("status")).ok();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| status(entry.unwrap()))
            .filter(|status| status.contains(&wanted) && !status.contains("State:\tZ"))
            .collect()
    }

    #[tokio::test]
    async fn without_root_only_a_trusted_source_runs() {
        let nobody = Uid::from_raw(65534);
        let error = Confinement::decide_for(Trust::Hostile, nobody).await.unwrap_err();
        assert_eq!(error.code(), Code::Unconfined);
        assert!(error.hint().unwrap().contains("trust_source"));
        let trusted = Confinement::decide_for(Trust::Source, nobody).await.unwrap();
        assert_eq!(trusted.describe(), "trusted-source");
        assert_eq!(trusted.owner(), None);
    }

    #[tokio::test]
    async fn two_drills_never_share_a_uid() {
        let (one, other) = (confinement().await, confinement().await);
        assert_ne!(one.owner(), other.owner());

        let locks = tempfile::tempdir().unwrap();
        let claim = || claim_uid(locks.path(), 1..=2).unwrap();
        let (first, second) = (claim().unwrap(), claim().unwrap());
        assert_eq!((first.0, second.0), (1, 2));
        assert!(claim().is_none());
        drop(first);
        assert_eq!(claim().unwrap().0, 1, "a dead drill holds nothing");
    }

    #[tokio::test]
    async fn no_right_is_left() {
        let confinement = confinement().await;
        let (uid, gid) = confinement.owner().unwrap();
        assert_eq!(said(&confinement, "id -u; id -g; id -G").await, format!("{uid}\n{gid}\n{gid}\n"));
        let status = said(&confinement, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status").await;
        for line in status.lines() {
            let value = line.split_whitespace().last().unwrap();
            assert!(if line.starts_with("Cap") { value == "0000000000000000" } else { value == "1" }, "{status}");
        }
        assert_eq!(status.lines().count(), 6, "{status}");
    }

    #[tokio::test]
    async fn a_private_file_of_root_cannot_be_read() {
        let confinement = confinement().await;
        let folder = open_folder();
        let identity = folder.path().join("identity");
        std::fs::write(&identity, "AGE-SECRET-KEY").unwrap();
        std::fs::set_permissions(&identity, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(said(&confinement, &format!("cat {}", identity.display())).await, "");
        confinement.verify_unreadable(&[identity.clone(), folder.path().join("not there")]).await.unwrap();

        for mode in [0o604, 0o602] {
            std::fs::set_permissions(&identity, PermissionsExt::from_mode(mode)).unwrap();
            let error = confinement.verify_unreadable(std::slice::from_ref(&identity)).await.unwrap_err();
            assert_eq!(error.code(), Code::Unconfined, "{mode:o}");
            assert_eq!(error.hint().unwrap(), format!("chmod o-rwx {}", identity.display()));
        }
        let state = folder.path().join("it's state");
        std::fs::create_dir(&state).unwrap();
        // It cannot be listed, but whoever knows a name can go for it.
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o711)).unwrap();
        let error = confinement.verify_unreadable(&[state]).await.unwrap_err();
        assert!(error.hint().unwrap().ends_with(r"/it'\''s state'"), "{error:?}");
    }

    #[tokio::test]
    async fn a_folder_out_of_reach_is_named() {
        let confinement = confinement().await;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        match confinement.verify_reachable(&inner).await.unwrap_err() {
            ConfineError::Unreachable { path, .. } => assert_eq!(Path::new(&path), folder.path()),
            other => panic!("{other:?}"),
        }
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        confinement.verify_reachable(&inner).await.unwrap();
    }

    #[tokio::test]
    async fn not_even_loopback_can_be_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{} && echo reached", listener.local_addr().unwrap().port());
        assert_eq!(said(&Confinement::TrustedSource, &script).await, "reached\n", "the test itself works");
        let confinement = confinement().await;
        assert_eq!(confinement.network(), Network::None, "this kernel gives no network namespace");
        assert_eq!(confinement.describe(), "own-uid-no-network");
        assert_eq!(said(&confinement, &script).await, "");
        let shared = without_walls().await;
        assert_eq!(shared.describe(), "own-uid");
        assert_eq!(said(&shared, &script).await, "reached\n", "what is recorded is what is so");
    }

    #[tokio::test]
    async fn no_environment_shows_a_secret() {
        // Cargo sets CARGO_MANIFEST_DIR for every test: it stands for LIFEBOAT_IDENTITY.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        for confinement in [confinement().await, without_walls().await] {
            let seen = said(&confinement, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").await;
            assert!(seen.contains("LANG=C.UTF-8"), "{seen}");
            assert!(!seen.contains("CARGO"), "{seen}");
        }
    }

    #[tokio::test]
    async fn the_deadline_ends_daemons_too() {
        for confinement in [confinement().await, without_walls().await] {
            let (uid, _) = confinement.owner().unwrap();
            let hang = bash("setsid sleep 1000 & sleep 1000 & echo up >&2; wait").deadline(Duration::from_secs(2));
            let error = confinement.run(hang).await.unwrap_err();
            assert!(matches!(&error, ToolError::TimedOut { stderr_tail, .. } if stderr_tail == "up\n"), "{error:?}");
            wait_until_gone(uid);
        }
    }

    #[tokio::test]
    async fn a_daemon_does_not_outlive_the_check_that_started_it() {
        for confinement in [confinement().await, without_walls().await] {
            let (uid, _) = confinement.owner().unwrap();
            let daemon = bash("setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 4");
            assert_eq!(confinement.run(daemon).await.unwrap().status.code(), Some(4));
            wait_until_gone(uid);
        }
    }

    /// The kernel takes a moment to end what it was told to end.
    pub(crate) fn wait_until_gone(uid: u32) {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while !processes_of(uid).is_empty() {
            assert!(std::time::Instant::now() < until, "{:?}", processes_of(uid));
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_set_uid_program_gives_nothing() {
        let confinement = confinement().await;
        let (uid, _) = confinement.owner().unwrap();
        let folder = open_folder();
        let program = folder.path().join("id");
        std::fs::copy("/usr/bin/id", &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o6755)).unwrap();
        let (script, expected) = (format!("{} -u", program.display()), format!("{uid}\n"));
        assert_eq!(said(&confinement, &script).await, expected, "still root's, still set-uid");
        hand_over(folder.path(), uid, uid).unwrap();
        assert_eq!(std::fs::metadata(&program).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(said(&confinement, &script).await, expected);
    }

    #[tokio::test]
    async fn handing_over_follows_no_link_and_disarms_devices() {
        let confinement = confinement().await;
        let (uid, gid) = confinement.owner().unwrap();
        let (folder, outside) = (open_folder(), open_folder());
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let tree = folder.path().join("files");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "content").unwrap();
        std::fs::set_permissions(tree.join("a/b/file"), PermissionsExt::from_mode(0o400)).unwrap();
        symlink(&secret, tree.join("a/link")).unwrap();
        symlink(outside.path(), tree.join("folder link")).unwrap();
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            null,
        )
        .unwrap();
        hand_over(&tree, uid, gid).unwrap();

        let owner = |path: &Path| {
            let stat = std::fs::symlink_metadata(path).unwrap();
            (stat.uid(), stat.gid())
        };
        for path in
            [tree.clone(), tree.join("a/b"), tree.join("a/b/file"), tree.join("a/link"), tree.join("folder link")]
        {
            assert_eq!(owner(&path), (uid, gid), "{}", path.display());
        }
        assert_eq!((owner(&secret), owner(outside.path())), ((0, 0), (0, 0)));
        let device = std::fs::metadata(tree.join("null")).unwrap();
        assert_eq!((device.uid(), device.mode() & 0o7777), (0, 0));
        let script = format!("cd {} && cat a/b/file; cat null && echo opened", tree.display());
        assert_eq!(said(&confinement, &script).await, "content");
    }
}
