//! A PostgreSQL server of the bench's own: a data folder, a socket and no port, settings under which nothing waits for
//! the disk. It ends when it is dropped.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian puts the programs of each major version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// A socket's path must be short, so servers live here and not in the build's folder.
const SOCKETS: &str = "/var/tmp";
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Those of a drill's server.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_init_zero=off",
    "wal_recycle=off",
    "max_wal_size=64GB",
    "checkpoint_timeout=1h",
    "shared_buffers=1GB",
    "maintenance_work_mem=512MB",
    "max_connections=50",
];

/// A running server.
pub(super) struct Server {
    process: Child,
    programs: PathBuf,
    dir: PathBuf,
}

impl Server {
    /// Starts a new one; its name tells servers of one bench apart.
    pub(super) fn start(name: &Path) -> Result<Self, String> {
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let dir = PathBuf::from(format!("{SOCKETS}/lifeboat-bench-{}-{name}", std::process::id()));
        super::scripts::remove(&dir)?;
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(failed)?;
        let (uid, gid) = owner()?;
        chown(&dir, Some(uid), Some(gid)).map_err(failed)?;
        let programs = programs()?;
        let mut initdb = unprivileged(&programs.join("initdb"), &dir)?;
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        let out = initdb.arg(dir.join("data")).output().map_err(|error| format!("initdb: {error}"))?;
        if !out.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&out.stderr)));
        }
        let mut postgres = unprivileged(&programs.join("postgres"), &dir)?;
        postgres.arg("-D").arg(dir.join("data")).arg("-k").arg(&dir);
        SETTINGS.iter().for_each(|setting| {
            postgres.args(["-c", setting]);
        });
        let process = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| format!("postgres: {error}"))?;
        let mut server = Self { process, programs, dir };
        let until = Instant::now() + PATIENCE;
        while server.sql("postgres", "select 1").is_err() {
            if Instant::now() > until || server.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err("the server does not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The folder of its socket.
    pub(super) fn socket(&self) -> &Path {
        &self.dir
    }

    /// Runs SQL as the superuser; gives what it selected.
    pub(super) fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
        let out = psql.arg("-h").arg(&self.dir).output().map_err(|error| format!("psql: {error}"))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(format!("psql: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT takes the server's own children along.
        let _ = Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        let _ = super::scripts::remove(&self.dir);
    }
}

/// Installs a server where there is none.
pub(super) fn install() -> Result<(), String> {
    if programs().is_ok() {
        return Ok(());
    }
    crate::test::install_postgres()?;
    programs().map(drop)
}

/// `PATH` with the programs of that server before Debian's wrappers.
pub(super) fn path() -> Result<OsString, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(programs()?).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).map_err(|error| format!("PATH: {error}"))
}

/// The newest major version's.
fn programs() -> Result<PathBuf, String> {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter(|path| path.join("bin/postgres").is_file())
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin"))))
        .collect();
    found.sort();
    found.pop().map(|(_, folder)| folder).ok_or_else(|| "no PostgreSQL server: apt-get install postgresql".to_owned())
}

/// A program of the server's under the server's uid: as root they refuse. It dies with the bench.
fn unprivileged(program: &Path, dir: &Path) -> Result<Command, String> {
    let (uid, gid) = owner()?;
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--pdeathsig=QUIT", "--"]);
    command.arg(program).current_dir(dir).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    Ok(command)
}

fn owner() -> Result<(u32, u32), String> {
    let users = fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let numbers: Vec<u32> =
        line.into_iter().flat_map(|line| line.split(':').skip(2).take(2)).filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [uid, gid] => Ok((uid, gid)),
        _ => Err("there is no user postgres: apt-get install postgresql".to_owned()),
    }
}
