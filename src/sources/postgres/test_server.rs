//! A PostgreSQL server of one unit test: the machine's own programs, a data folder and a socket that go with it. The tests
//! need it: where it cannot be had they fail.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::connect::Access;
use crate::domain::server::ServerAddress;

/// Where Debian has a folder for each major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Names another version's folder of programs, as it does for the tests in tests/it.
const VARIABLE: &str = "LIFEBOAT_TEST_POSTGRES";
/// `nobody`: a server refuses to run as root, and initdb as somebody who is not in the list of users.
const UID: u32 = 65_534;
/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const SETTINGS: [&str; 4] = ["listen_addresses=", "fsync=off", "autovacuum=off", "shared_buffers=32MB"];

/// The folder of the programs that the tests run.
pub(crate) fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return folder.into();
    }
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok);
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let complete = |major: &u32| Path::new(VERSIONS).join(major.to_string()).join("bin/postgres").is_file();
    let newest = numbers.filter(complete).max();
    let newest = newest.expect("there is no PostgreSQL server here: apt-get install postgresql postgresql-contrib");
    Path::new(VERSIONS).join(newest.to_string()).join("bin")
}

/// Their major version.
pub(crate) fn major() -> u32 {
    let output = Command::new(programs().join("postgres")).arg("--version").output().unwrap();
    super::binaries::version(&String::from_utf8_lossy(&output.stdout)).unwrap().0
}

/// A running server. Everybody is let in; `postgres` is the superuser.
#[derive(Debug)]
pub(crate) struct TestServer {
    folder: tempfile::TempDir,
    process: Child,
}

impl TestServer {
    /// For tests that wait for things.
    #[expect(clippy::unused_async, reason = "a test that is asynchronous need not know that this is not")]
    pub(crate) async fn start() -> Self {
        Self::start_now()
    }

    pub(crate) fn start_now() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test gives a process another uid: run it as root");
        let folder = tempfile::Builder::new().prefix("lifeboat-pg-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(UID), Some(UID)).unwrap();
        let program = |name: &str| {
            let mut command = Command::new(programs().join(name));
            command.uid(UID).gid(UID).current_dir(folder.path()).env_clear().env("LC_ALL", "C.UTF-8");
            command.stdin(Stdio::null()).stdout(Stdio::null()).arg("-D").arg("data");
            command
        };
        let made = program("initdb").args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]).status();
        assert!(made.unwrap().success());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut postgres = program("postgres");
        postgres.arg("-k").arg(folder.path()).args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let process = postgres.stderr(log).spawn().unwrap();
        let server = Self { folder, process };
        wait_until("the server is up", || server.is_ready());
        server
    }

    /// As pg_ctl sees it: the server writes it down.
    fn is_ready(&self) -> bool {
        let text = std::fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    /// Its socket is in here, and its data in `data`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        format!("postgres://{role}@{}/{}", encode(&self.folder().display().to_string()), encode(database))
    }

    pub(crate) fn address(&self, role: &str, database: &str) -> ServerAddress {
        ServerAddress::parse(&self.url(role, database)).unwrap()
    }

    pub(crate) fn access(&self, role: &str, database: &str) -> Access {
        Access { address: self.address(role, database), password: None }
    }

    /// psql as the superuser.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url("postgres", database)]);
        psql.env("PGCLIENTENCODING", "UTF8");
        psql
    }

    /// What the statements gave, or what psql complained of.
    pub(crate) fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.psql(database);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs statements, for tests that wait for things.
    #[expect(clippy::unused_async, reason = "a test that is asynchronous need not know that this is not")]
    pub(crate) async fn run(&self, sql: &str) {
        self.sql("postgres", sql);
    }

    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// Looks again and again.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::sleep(LOOK);
    }
}
