//! A small world to run the program in: a folder with a config, sources, a vault and an identity, and a way to run
//! `lifeboat` there and look at what it said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A folder of its own for one test.
pub(crate) struct World {
    dir: TempDir,
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Data.
    pub(crate) stdout: String,
    /// Talk.
    pub(crate) stderr: String,
}

impl World {
    /// `lifeboat init` in a new folder, and one job `shop` with a file source `uploads` and a SQLite source `db`,
    /// filled with a little data. `drill` goes below `[job.shop.drill]`.
    pub(crate) fn with_drill(drill: &str) -> Self {
        Self::empty().filled(drill)
    }

    /// The same where writing through to the disk costs nothing: for tests of many runs, of which none is about what a
    /// power cut leaves. What a killed process has written is there all the same.
    pub(crate) fn in_memory() -> Self {
        Self::in_memory_empty().filled("")
    }

    /// The same with nothing in it.
    pub(crate) fn in_memory_empty() -> Self {
        Self { dir: tempfile::Builder::new().prefix("lifeboat-it-").tempdir_in("/dev/shm").unwrap() }
    }

    fn filled(self, drill: &str) -> Self {
        self.fill_sources();
        let init = self.run(&["init", "."]);
        assert_eq!(init.code, Some(0), "{}", init.stderr);
        self.add_job(drill);
        self
    }

    /// A little data for both sources.
    pub(crate) fn fill_sources(&self) {
        let uploads = self.path("uploads");
        fs::create_dir_all(uploads.join("deep")).unwrap();
        for number in 0..40 {
            fs::write(uploads.join(format!("small-{number:02}")), noise(2_000 + number * 97, number as u8)).unwrap();
        }
        fs::write(uploads.join("deep/large.bin"), noise(3_000_000, 200)).unwrap();
        std::os::unix::fs::symlink("small-00", uploads.join("link")).unwrap();
        self.sql(
            "create table users(id integer primary key, name text, created_at text);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)
             insert into users select i, 'user ' || i, '2026-01-01 00:00:00' from n;",
        );
    }

    /// The job `shop`, written below the config that is there.
    pub(crate) fn add_job(&self, drill: &str) {
        let job = format!(
            r#"
[job.shop]
schedule   = "15 */6 * * *"
retention  = {{ keep_at_least = "14d", delete_after = "30d" }}
objectives = {{ rto = "1h", rpo = "24h" }}
[job.shop.source.uploads]
kind  = "files"
paths = ["uploads"]
[job.shop.source.db]
kind = "sqlite"
path = "shop.db"
[job.shop.drill]
scratch = "{}"
{drill}
"#,
            // Not below the world, which nobody else may enter: a drill's checks run under another uid.
            self.scratch().display(),
        );
        let mut config = fs::read_to_string(self.path("lifeboat.toml")).unwrap();
        config.push_str(&job);
        fs::write(self.path("lifeboat.toml"), config).unwrap();
    }

    /// The same without any checks of the user's.
    pub(crate) fn new() -> Self {
        Self::with_drill("")
    }

    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::Builder::new().prefix("lifeboat-it-").tempdir().unwrap() }
    }

    /// A path in this world.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Where this world's drills restore to.
    pub(crate) fn scratch(&self) -> PathBuf {
        let name = self.dir.path().file_name().unwrap().to_str().unwrap();
        Path::new("/var/tmp").join(format!("{name}-scratch"))
    }

    /// Runs SQL on the world's database with the stock shell, as an application would.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let out = Command::new("sqlite3").arg(self.path("shop.db")).arg(sql).output().expect("sqlite3 is installed");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// The program, in this world, not started yet: no variable of the caller's reaches it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
    }

    /// Runs it and demands an exit code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, Some(code), "lifeboat {}\n{}\n{}", args.join(" "), said.stdout, said.stderr);
        said
    }

    /// Runs it with `--json`, demands an exit code, and gives the document.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        let said = self.expect(code, &args);
        serde_json::from_str(&said.stdout).unwrap_or_else(|cause| panic!("{cause}: {}\n{}", said.stdout, said.stderr))
    }

    /// Backs up and gives the backup's id.
    #[track_caller]
    pub(crate) fn backup(&self) -> String {
        let document = self.json(0, &["backup"]);
        document["runs"][0]["backup"]["id"].as_str().unwrap().to_owned()
    }

    /// The same where something in the vault stops the prune that follows.
    #[track_caller]
    pub(crate) fn backup_and_no_prune(&self) -> String {
        let document = self.json(20, &["backup"]);
        assert_eq!(document["runs"][0]["outcome"], "success", "{document}");
        document["runs"][0]["backup"]["id"].as_str().unwrap().to_owned()
    }

    /// Every file of the vault below a folder of it, by its key, sorted.
    pub(crate) fn keys(&self, below: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut folders = vec![self.path("vault").join(below)];
        while let Some(folder) = folders.pop() {
            // Folders are made when there is something to put into them.
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    keys.push(path.strip_prefix(self.path("vault")).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        keys.sort();
        keys
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A drill makes the folder; a test without one has none.
        let _ = fs::remove_dir_all(self.scratch());
    }
}

/// A small file system, until it is dropped. Mounting needs root.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts a tmpfs of this size on a folder.
    pub(crate) fn tmpfs(at: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=700");
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().unwrap();
        assert!(out.status.success(), "mounting needs root: {}", String::from_utf8_lossy(&out.stderr));
        Self(at.to_owned())
    }

    /// Makes it smaller, or larger, under whoever uses it.
    pub(crate) fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let out = Command::new("mount").args(["-o", &options]).arg(&self.0).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached at once, whoever still looks into it: the folder below must be removable.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Said {
    let out = command.output().unwrap();
    Said {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(bytes: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
    out
}
