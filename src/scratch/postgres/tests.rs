//! Real servers: Debian's, of the version that this machine has.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::*;
use crate::domain::ids::RecordId;
use crate::scratch::confine::tests::{confinement, processes_of, wait_until_gone, without_walls};
use crate::scratch::confine::{Network, Trust};
use crate::scratch::folder::{Scratch, remove_leftovers};
use crate::sources::postgres::binaries::Wanted;
use crate::sources::postgres::test_server::major;

const MEMORY_BYTES: u64 = 128 * 1024 * 1024;
/// Set, this test binary is a program that starts a server in the folder that it names, and lingers.
const ENTRY_VARIABLE: &str = "LIFEBOAT_TEST_SCRATCH_POSTGRES";
const ENTRY_TEST: &str = "scratch::postgres::tests::entry";

/// A scratch folder and a confinement, as a drill has them.
struct Stage {
    scratch: Scratch,
    confinement: Confinement,
    tools: Tools,
    base: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::with(confinement().await).await
    }

    async fn with(confinement: Confinement) -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let scratch =
            Scratch::create(base.path(), &"shop".parse().unwrap(), &RecordId::from_random([7; 8]), 1).unwrap();
        if let Some((_, gid)) = confinement.owner() {
            scratch.open_to_group(gid).unwrap();
        }
        Self { scratch, confinement, tools: tools().await, base }
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("db")
    }

    fn options<'a>(&'a self, dir: &'a Path) -> ServerOptions<'a> {
        ServerOptions {
            tools: &self.tools,
            container: None,
            dir,
            confinement: &self.confinement,
            durability: Durability::Off,
            encoding: "UTF8",
            collate: "C.UTF-8",
            ctype: "C.UTF-8",
            max_connections: 20,
            memory_bytes: MEMORY_BYTES,
        }
    }

    async fn start(&self) -> Server {
        Server::start(&self.options(&self.dir())).await.unwrap()
    }

    fn uid(&self) -> u32 {
        self.confinement.owner().unwrap().0
    }
}

async fn tools() -> Tools {
    Tools::find(Wanted::Exactly(major()), None, &["initdb", "postgres"]).await.unwrap()
}

async fn connect(server: &Server) -> PgConnection {
    Access { address: server.address("postgres"), password: None }.connect().await.unwrap()
}

async fn text(connection: &mut PgConnection, sql: &str) -> String {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap().get(0)
}

/// Runs a program inside the server, as whoever owns a restored schema can.
async fn program(connection: &mut PgConnection, script: &str) -> Result<(), String> {
    // It reads what it is sent, so that the server does not mind a broken pipe.
    let script = format!("cat > /dev/null; {script}");
    let sql = format!("COPY (SELECT 1) TO PROGRAM '{}'", script.replace('\'', "''"));
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_starts_as_asked_for_and_stops() {
    let stage = Stage::new().await;
    let server = stage.start().await;
    let mut connection = connect(&server).await;
    for (name, value) in server.settings() {
        let shown = text(&mut connection, &format!("SHOW {name}")).await;
        let unit = |value: &str| {
            let (number, factor) = match value {
                value if value.ends_with("MB") => (value.trim_end_matches("MB"), 1),
                value if value.ends_with("GB") => (value.trim_end_matches("GB"), 1024),
                _ => return value.to_owned(),
            };
            format!("{} MiB", number.parse::<u64>().unwrap() * factor)
        };
        assert_eq!(unit(&shown), unit(value), "{name}");
    }
    assert_eq!(text(&mut connection, "SELECT current_user::text").await, SUPERUSER);
    assert_eq!(text(&mut connection, "SHOW server_encoding").await, "UTF8");
    assert_eq!(text(&mut connection, "SHOW fsync").await, "off");
    assert_eq!(server.remarks(), [""; 0]);
    assert!(server.log_tail().contains("ready to accept connections"), "{}", server.log_tail());
    assert!(server.trouble().is_none());
    // It is in the middle of something.
    sqlx::raw_sql("CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1)").execute(&mut connection).await.unwrap();
    server.stop().await.unwrap();
    assert!(processes_of(stage.uid()).is_empty());
    assert!(!stage.dir().join("data/postmaster.pid").exists(), "an orderly end");
    let path = stage.scratch.path().to_owned();
    stage.scratch.remove().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn production_settings_flush() {
    let stage = Stage::new().await;
    let dir = stage.dir();
    let options = ServerOptions { durability: Durability::AsInProduction, ..stage.options(&dir) };
    let server = Server::start(&options).await.unwrap();
    let mut connection = connect(&server).await;
    for (name, value) in [("fsync", "on"), ("full_page_writes", "on"), ("autovacuum", "on"), ("wal_level", "replica")] {
        assert_eq!(text(&mut connection, &format!("SHOW {name}")).await, value, "{name}");
    }
}

#[tokio::test]
async fn a_schema_s_owner_can_run_programs_and_they_reach_nothing() {
    let stage = Stage::new().await;
    let server = stage.start().await;
    let mut connection = connect(&server).await;
    let identity = stage.base.path().join("identity");
    std::fs::write(&identity, "AGE-SECRET-KEY").unwrap();
    std::fs::set_permissions(&identity, PermissionsExt::from_mode(0o600)).unwrap();
    let out = stage.dir().join("data/out");
    let said = |name: &str| std::fs::read_to_string(stage.dir().join("data").join(name)).unwrap();

    program(&mut connection, &format!("id -u > {}", out.display())).await.unwrap();
    assert_eq!(said("out"), format!("{}\n", stage.uid()), "the exploit itself works");

    let steal = format!("cat {} > {}", identity.display(), out.display());
    assert!(program(&mut connection, &steal).await.unwrap_err().contains("failed"));
    assert_eq!(said("out"), "");
    let read = format!("SELECT pg_read_file('{}')", identity.display());
    let error = sqlx::query(AssertSqlSafe(read)).fetch_one(&mut connection).await.unwrap_err().to_string();
    assert!(error.contains("Permission denied"), "{error}");

    assert_eq!(stage.confinement.network(), Network::None, "this kernel gives no network namespace");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    let call = format!("bash -c \"exec 3<>{address}\" && echo reached > {0} || echo alone > {0}", out.display());
    assert!(Command::new("bash").args(["-c", &format!("exec 3<>{address}")]).status().unwrap().success());
    program(&mut connection, &call).await.unwrap();
    assert_eq!(said("out"), "alone\n");

    // Numbers of ours mean nothing there, and nobody else's process can be seen or killed.
    let us = std::process::id();
    let look = format!("cat /proc/[0-9]*/status > {0}; kill -0 {us} 2>> {0} || echo spared >> {0}", out.display());
    program(&mut connection, &look).await.unwrap();
    let seen = said("out");
    assert!(seen.ends_with("spared\n") && seen.contains("Name:\tpostgres"), "{seen}");
    assert!(!seen.lines().any(|line| line == format!("Pid:\t{us}")), "{seen}");
    program(&mut connection, "kill -KILL -1 || true").await.ok();
    assert!(std::process::id() == us);

    // Nothing of the environment that we have.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let mut server = server;
    assert!(server.keeper.ends_within(Duration::from_secs(20)).await, "it killed itself");
    drop(server);
    let second = stage.scratch.path().join("second");
    let server = Server::start(&stage.options(&second)).await.unwrap();
    let environment = second.join("data/environment");
    program(&mut connect(&server).await, &format!("env > {}", environment.display())).await.unwrap();
    let environment = std::fs::read_to_string(environment).unwrap();
    assert!(environment.contains("LANG=") && !environment.contains("CARGO"), "{environment}");
}

#[tokio::test]
async fn hostile_code_can_neither_move_the_socket_nor_the_log() {
    let stage = Stage::new().await;
    let server = stage.start().await;
    let mut connection = connect(&server).await;
    let ServerHost::Socket(folder) = server.address("postgres").host else { panic!("a socket is wanted") };
    let dir = stage.dir();
    let (socket, log) = (folder.join(".s.PGSQL.5432"), dir.join("log"));
    for target in [&socket, &log, &folder, &dir] {
        let path = target.display();
        for script in [format!("rm -rf {path}"), format!("mv {path} {path}.old"), format!("chmod 777 {path}")] {
            // The socket itself is the server's own: its rights may change, its place may not.
            if !(target == &socket && script.starts_with("chmod")) {
                assert!(program(&mut connection, &script).await.is_err(), "{script}");
            }
        }
        assert!(target.exists());
    }
    for folder in [&folder, &dir] {
        let error = program(&mut connection, &format!("touch {}/planted", folder.display())).await;
        assert!(error.is_err(), "{}", folder.display());
    }
    assert_eq!(text(&mut connect(&server).await, "SELECT 'there'").await, "there");

    // Others do not come in.
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(stage.tools.folder.join("psql"))
        .args(["-U", SUPERUSER, "-h"])
        .arg(&folder)
        .args(["-c", "SELECT 1", "postgres"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && said.contains("Permission denied"), "{said}");
}

#[tokio::test]
async fn a_dropped_server_is_gone_with_everything_it_started() {
    for confinement in [confinement().await, without_walls().await] {
        let stage = Stage::with(confinement).await;
        let server = stage.start().await;
        let mut connection = connect(&server).await;
        program(&mut connection, "setsid sleep 1000 </dev/null >/dev/null 2>&1 &").await.unwrap();
        // The end of another tool is not the server's, not even where processes are only known by their uid.
        stage.confinement.verify_reachable(&stage.dir()).await.unwrap();
        assert_eq!(text(&mut connection, "SELECT 'there'").await, "there");
        assert!(processes_of(stage.uid()).len() > 2);
        drop(server);
        wait_until_gone(stage.uid());
        assert_eq!(shared_memory_of(stage.uid()), 0);
        stage.scratch.remove().unwrap();
    }
}

#[tokio::test]
async fn a_killed_lifeboat_leaves_only_a_folder() {
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let mut child = linger(base.path(), &[]);
    let uid: u32 = first_line(&mut child).parse().unwrap();
    std::fs::remove_file(base.path().with_extension("program")).unwrap();
    assert!(!processes_of(uid).is_empty(), "the server runs");
    let shared = || std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().metadata().unwrap().uid());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone(uid);
    assert!(shared().all(|owner| owner != uid), "nothing in /dev/shm");
    assert_eq!(shared_memory_of(uid), 0);
    let left: Vec<_> = std::fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(remove_leftovers(base.path()).unwrap(), left);
}

#[tokio::test]
async fn without_root_a_trusted_source_has_a_server_too() {
    let base = tempfile::tempdir().unwrap();
    // It has a name, as a user has, and nothing else runs under it: Debian's `games`.
    let uid = 5;
    std::os::unix::fs::chown(base.path(), Some(uid), Some(uid)).unwrap();
    let mut child = linger(base.path(), &["setpriv", "--reuid=5", "--regid=5", "--clear-groups", "--"]);
    assert_eq!(first_line(&mut child), "5");
    std::fs::remove_file(base.path().with_extension("program")).unwrap();
    assert!(processes_of(uid).len() > 2);
    // It is told to end, and drops its server.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    wait_until_gone(uid);
    assert_eq!(shared_memory_of(uid), 0);
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

/// System V segments of a user, outside namespaces.
fn shared_memory_of(uid: u32) -> usize {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let column = table.lines().next().unwrap().split_whitespace().position(|name| name == "uid").unwrap();
    let uid = uid.to_string();
    table.lines().filter(|line| line.split_whitespace().nth(column) == Some(&uid)).count()
}

#[tokio::test]
async fn the_next_drill_removes_shared_memory_that_no_namespace_held() {
    let stage = Stage::with(without_walls().await).await;
    let server = stage.start().await;
    let uid = stage.uid();
    assert_eq!(shared_memory_of(uid), 1);
    let mut connection = connect(&server).await;
    program(&mut connection, "kill -KILL $(head -n 1 postmaster.pid)").await.ok();
    drop((server, stage));
    assert_eq!(shared_memory_of(uid), 0);
}

/// Starts this test binary as a program that starts a server, and lingers until its stdin ends.
fn linger(base: &Path, launcher: &[&str]) -> std::process::Child {
    // Where the other user can run it.
    let program = base.with_extension("program");
    // Copied by another process: while one of ours writes to it, a test beside us may fork, and hold it open for writing.
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap().success());
    let mut argv: Vec<std::ffi::OsString> = launcher.iter().map(Into::into).collect();
    argv.push(program.clone().into());
    Command::new(&argv[0])
        .args(&argv[1..])
        .args(["--exact", ENTRY_TEST, "--nocapture"])
        .env(ENTRY_VARIABLE, base)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it says of its server: the uid.
fn first_line(child: &mut std::process::Child) -> String {
    use std::io::BufRead;
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The test harness says something first, maybe on the same line.
    while !line.contains("uid=") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it did not say which uid its server has");
    }
    // It is still to be written to.
    child.stdout = Some(out.into_inner());
    line.split_once("uid=").unwrap().1.trim().to_owned()
}

/// No test of its own: the program of the two above.
#[test]
fn entry() {
    let Some(base) = std::env::var_os(ENTRY_VARIABLE).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let us = rustix::process::geteuid();
        let trust = if us.is_root() { Trust::Hostile } else { Trust::Source };
        let stage = {
            let confinement = Confinement::decide(trust).await.unwrap();
            let id = RecordId::from_random([8; 8]);
            let scratch = Scratch::create(&base, &"shop".parse().unwrap(), &id, 1).unwrap();
            if let Some((_, gid)) = confinement.owner() {
                scratch.open_to_group(gid).unwrap();
            }
            let base = tempfile::tempdir_in(scratch.path()).unwrap();
            Stage { scratch, confinement, tools: tools().await, base }
        };
        let server = stage.start().await;
        let uid = stage.confinement.owner().map_or(us.as_raw(), |(uid, _)| uid);
        std::io::Write::write_all(&mut std::io::stdout(), format!("uid={uid}\n").as_bytes()).unwrap();
        std::io::Read::read(&mut std::io::stdin(), &mut [0]).unwrap();
        drop(server);
    });
}

#[tokio::test]
async fn a_locale_that_is_not_there_is_replaced_and_said() {
    let stage = Stage::new().await;
    let dir = stage.dir();
    let options = ServerOptions { collate: "xx_YY.UTF-8", ctype: "xx_YY.UTF-8", ..stage.options(&dir) };
    let server = Server::start(&options).await.unwrap();
    assert_eq!(server.remarks().len(), 1);
    assert!(server.remarks()[0].contains("xx_YY.UTF-8: it has C.UTF-8"), "{:?}", server.remarks());
    let collate = text(&mut connect(&server).await, "SELECT datcollate::text FROM pg_database LIMIT 1").await;
    assert_eq!(collate, "C.UTF-8");
    drop(server);

    let dir = stage.scratch.path().join("latin");
    let options = ServerOptions { encoding: "LATIN1", collate: "xx_YY", ctype: "xx_YY", ..stage.options(&dir) };
    let server = Server::start(&options).await.unwrap();
    assert!(server.remarks()[0].contains("has C instead"), "{:?}", server.remarks());
    assert_eq!(text(&mut connect(&server).await, "SHOW server_encoding").await, "LATIN1");
}

#[tokio::test]
async fn a_long_path_has_its_socket_elsewhere() {
    let stage = Stage::new().await;
    let dir = stage.scratch.path().join("d".repeat(100));
    let server = Server::start(&stage.options(&dir)).await.unwrap();
    assert_eq!(text(&mut connect(&server).await, "SELECT 'there'").await, "there");
    let ServerHost::Socket(folder) = server.address("postgres").host else { panic!("a socket is wanted") };
    assert!(folder.starts_with("/tmp/"), "{}", folder.display());
    let elsewhere = folder.parent().unwrap().to_owned();
    for folder in [&elsewhere, &folder] {
        let metadata = std::fs::metadata(folder).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o027), (0, 0), "{}", folder.display());
    }
    server.stop().await.unwrap();
    assert!(!elsewhere.exists());
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let stage = Stage::new().await;
    let dir = stage.dir();
    let failure = async |options: &ServerOptions<'_>| {
        let error = Server::start(options).await.unwrap_err();
        (crate::error::chain(&error), error.code(), error.hint())
    };

    let (said, code, hint) =
        failure(&ServerOptions { confinement: &Confinement::TrustedSource, ..stage.options(&dir) }).await;
    assert!(said.contains("refuses to run as root"), "{said}");
    assert_eq!(code, Code::Unconfined);
    assert!(hint.unwrap().contains("trust_source"));
    assert!(!dir.exists());

    let (said, code, _) = failure(&ServerOptions { encoding: "KLINGON", ..stage.options(&dir) }).await;
    assert!(said.contains("\"KLINGON\" is not a valid server encoding name"), "{said}");
    assert_eq!(code, Code::ToolFailed);

    let (said, _, hint) = failure(&stage.options(&dir)).await;
    assert!(said.ends_with("/db is not empty"), "{said}");
    assert!(hint.unwrap().starts_with("ls -A /"));

    let hidden = Tools { folder: stage.base.path().join("bin"), ..stage.tools.clone() };
    let nowhere = stage.scratch.path().join("nowhere");
    let (said, _, hint) = failure(&ServerOptions { tools: &hidden, ..stage.options(&nowhere) }).await;
    assert!(said.contains("cannot run") && said.ends_with("bin/initdb"), "{said}");
    assert!(hint.unwrap().starts_with(&format!("setpriv --reuid {}", stage.uid())));
}

#[tokio::test]
async fn a_server_that_ends_or_lets_nobody_in_says_why() {
    let stage = Stage::new().await;
    let bin = stage.base.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = |name: &str, script: &str| {
        std::fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    };
    std::fs::set_permissions(&bin, PermissionsExt::from_mode(0o755)).unwrap();
    script("initdb", "true");
    script(
        "postgres",
        "echo 'FATAL:  could not write lock file: No space left on device'; echo 'LOG:  shut down'; exit 1",
    );
    let fake = Tools { folder: bin.clone(), ..stage.tools.clone() };
    let dir = stage.dir();
    let error = Server::start(&ServerOptions { tools: &fake, ..stage.options(&dir) }).await.unwrap_err();
    assert!(matches!(&error, ServerError::NotStarted { log_tail, .. } if log_tail.contains("LOG:  shut")), "{error:?}");
    let said = error.to_string();
    assert!(said.ends_with("exit status: 1: FATAL:  could not write lock file: No space left on device"), "{said}");
    assert!(error.hint().unwrap().starts_with("df -h /"));

    script("postgres", "sleep 1000");
    let dir = stage.scratch.path().join("second");
    let options = ServerOptions { tools: &fake, ..stage.options(&dir) };
    let error = Server::start_within(&options, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, ServerError::NotReady { .. }), "{error:?}");
    wait_until_gone(stage.uid());

    let dir = stage.scratch.path().join("third");
    let mut server = Server::start(&stage.options(&dir)).await.unwrap();
    program(&mut connect(&server).await, "kill -KILL $(head -n 1 postmaster.pid)").await.ok();
    assert!(server.keeper.ends_within(Duration::from_secs(20)).await);
    assert!(matches!(server.trouble(), Some(ServerError::Died { .. })));
    assert!(matches!(server.stop().await, Err(ServerError::Died { .. })));
    wait_until_gone(stage.uid());
}
