//! Running a tool's scripts in its folder, and what one run cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::peers;

/// How often the claims of a run under a moved clock get that clock's time.
const TOUCH_EVERY: Duration = Duration::from_millis(5);

/// What one command cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// Of the largest process of those that the script waited for.
    pub(super) peak_mib: f64,
}

/// What the scripts of one tool find in their surroundings.
pub(super) struct Scripts<'a> {
    pub(super) lifeboat: &'a Path,
    pub(super) path: &'a std::ffi::OsStr,
    /// The bench's folder.
    pub(super) place: &'a Path,
    /// The tool's own folder.
    pub(super) home: PathBuf,
    pub(super) tree: &'a Path,
    /// The job's part of lifeboat's config.
    pub(super) job: &'a str,
    pub(super) keep: usize,
}

impl Scripts<'_> {
    /// An empty folder for the tool.
    pub(super) fn fresh(&self) -> Result<(), String> {
        put_away(self.place, &self.home)?;
        fs::create_dir_all(&self.home).map_err(|error| format!("{}: {error}", self.home.display()))
    }

    /// Runs a script that is not measured; gives what it printed.
    pub(super) fn run(&self, script: &str) -> Result<String, String> {
        let mut command = self.command("bash", 0);
        let out = command.args(["-c", &peers::script(script)]).output();
        let out = out.map_err(|error| format!("bash: {error}"))?;
        succeeded(script, &out)?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// Runs and measures a script.
    pub(super) fn time(&self, script: &str) -> Result<Cost, String> {
        self.time_moved(script, 0)
    }

    /// Runs and measures a script whose `$AT` moves a program's wall clock on by `ahead` seconds, or back.
    ///
    /// The kernel still stamps files with the machine's time, as no store would. So what lifeboat wrote into its vault is
    /// stamped with the moved time afterwards, and its claims, whose age a run looks at while it lasts, at once.
    pub(super) fn time_at(&self, script: &str, vault: &Path, ahead: i64) -> Result<Cost, String> {
        let started = SystemTime::now();
        let over = AtomicBool::new(false);
        let claims = vault.join("claims");
        let cost = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Files come and go under it; the next look sees what this one missed.
                    let _ = stamp(&claims, started, ahead);
                    std::thread::sleep(TOUCH_EVERY);
                }
            });
            let cost = self.time_moved(script, ahead);
            over.store(true, Ordering::Relaxed);
            cost
        })?;
        stamp(vault, started, ahead).map_err(|error| format!("{}: {error}", vault.display()))?;
        Ok(cost)
    }

    /// `time` writes seconds and KiB into a file; its own format, so that nothing a tool prints can be mistaken for it.
    fn time_moved(&self, script: &str, ahead: i64) -> Result<Cost, String> {
        // What the tool before left unwritten is not this one's to write.
        self.run("sync")?;
        let report = self.home.join("time");
        let mut command = self.command("time", ahead);
        command.args(["-f", "%e %M", "-o"]).arg(&report).args(["bash", "-c", &peers::script(script)]);
        let out = command.output().map_err(|error| format!("time: {error}"))?;
        succeeded(script, &out)?;
        let text = fs::read_to_string(&report).map_err(|error| error.to_string())?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [seconds, kib] => Ok(Cost { seconds, peak_mib: kib / 1024.0 }),
            _ => Err(format!("`time` said {text:?}")),
        }
    }

    fn command(&self, program: &str, ahead: i64) -> Command {
        // The monotonic clock stays: waits are measured on it, by calls that faketime does not see.
        let at = match ahead {
            0 => String::new(),
            seconds => format!("faketime --exclude-monotonic -f {seconds:+}s"),
        };
        let mut command = Command::new(program);
        command
            .current_dir(&self.home)
            .env("PATH", self.path)
            // No tool reads the settings of whoever runs the bench.
            .env("HOME", &self.home)
            .env("LIFEBOAT", self.lifeboat)
            .env("TREE", self.tree)
            .env("JOB", self.job)
            .env("KEEP", self.keep.to_string())
            .env("AT", at)
            .env("BORG_PASSPHRASE", "secret")
            .env("BORG_BASE_DIR", &self.home)
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .stdin(Stdio::null());
        for name in ["LIFEBOAT_CONFIG", "LIFEBOAT_VAULT", "LIFEBOAT_IDENTITY", "LIFEBOAT_TRUST"] {
            command.env_remove(name);
        }
        command
    }
}

/// Gives files that were written since `started` the time that it was `ahead` seconds of the machine's.
fn stamp(folder: &Path, started: SystemTime, ahead: i64) -> std::io::Result<()> {
    let from = started - Duration::from_secs(1);
    let now = SystemTime::now();
    let moved = |time: SystemTime| {
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { time - by } else { time + by }
    };
    if ahead == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            stamp(&entry.path(), started, ahead)?;
            continue;
        }
        let written = metadata.modified()?;
        if written >= from && written <= now {
            fs::File::options().write(true).open(entry.path())?.set_modified(moved(written))?;
        }
    }
    Ok(())
}

fn succeeded(script: &str, out: &Output) -> Result<(), String> {
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{script}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim()))
}

/// Runs a program with its output passed on.
pub(super) fn command(program: &str, args: &[&str], dir: &Path) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(dir).status();
    match status.map_err(|error| format!("{program}: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("{program} {}: {status}", args.join(" "))),
    }
}

/// Reads every file once, so that the cache is as warm for the first tool as for the last.
pub(super) fn warm(tree: &Path) -> Result<(), String> {
    command("sh", &["-c", "find . -type f -exec cat {} + > /dev/null"], tree)
}

/// Takes a folder out of the way between two measurements: its files are emptied, and stay until the bench is over. For
/// minutes after many files were deleted ext4 looks for inodes that were not deleted just now, file by file, and
/// whichever tool comes next would pay for it.
pub(super) fn put_away(place: &Path, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if !folder.exists() {
        return Ok(());
    }
    let away = away(place);
    fs::create_dir_all(&away).map_err(failed)?;
    let number = fs::read_dir(&away).map_err(failed)?.count();
    let put = away.join(number.to_string());
    fs::rename(folder, &put).map_err(failed)?;
    command("find", &[".", "-type", "f", "-size", "+0", "-exec", "truncate", "--size=0", "{}", "+"], &put)
}

/// Removes what was put away.
pub(super) fn remove_away(place: &Path) -> Result<(), String> {
    remove(&away(place))
}

fn away(place: &Path) -> PathBuf {
    place.join("put-away")
}

/// Removes a folder with what is in it, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}

/// Files below a folder, and the sum of their apparent sizes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Content {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// What lies below a folder.
pub(super) fn content(folder: &Path) -> Content {
    let mut total = Content::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => {
                    total.files += 1;
                    total.bytes += metadata.len();
                }
                Err(_) => {}
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_wrote_gets_its_clock_once_and_nothing_else_does() {
        let folder = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        fs::create_dir_all(folder.join("objects")).unwrap();
        let (old, new) = (folder.join("old"), folder.join("objects/new"));
        let started = SystemTime::now();
        let before = started - Duration::from_secs(3600);
        fs::write(&old, "").unwrap();
        fs::File::options().write(true).open(&old).unwrap().set_modified(before).unwrap();
        fs::write(&new, "").unwrap();
        let written = fs::metadata(&new).unwrap().modified().unwrap();
        let day = Duration::from_secs(86_400);
        for (ahead, stamped) in [(86_400, written + day), (-86_400, written - day)] {
            fs::File::options().write(true).open(&new).unwrap().set_modified(written).unwrap();
            for _ in 0..2 {
                stamp(&folder, started, ahead).unwrap();
                assert_eq!(fs::metadata(&new).unwrap().modified().unwrap(), stamped);
                assert_eq!(fs::metadata(&old).unwrap().modified().unwrap(), before);
            }
        }
        remove(&folder).unwrap();
        assert!(stamp(&folder, started, 1).is_err() && content(&folder).files == 0);
    }
}
