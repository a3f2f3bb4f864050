//! What `doctor` looks at on this host itself: room for its state, its clock's zone, and whether it may read what it is to
//! back up and run what it is to run.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::clock::zone_of_this_host;
use crate::config::{JobSettings, Settings, SourceKind};
use crate::domain::ids::JobName;
use crate::domain::quantity::human_bytes;
use crate::scratch::folder::free_bytes;

use super::super::TOOL;
use super::super::host::Host;
use super::{Finding, LITTLE_ROOM_BYTES};

/// How much of a file source is looked at: reading all of it is what a backup is for.
const MAX_LOOKED: usize = 2_000;
/// What every SQLite database begins with.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The program, its state's room, its clock.
#[must_use]
pub fn machine(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("program", format!("this is {TOOL}"))];
    let folder = &settings.state_dir;
    let about = "state folder";
    findings.push(match free_bytes(folder) {
        Ok(free) if free < LITTLE_ROOM_BYTES => Finding::warning(
            about,
            format!("{} has only {} free: without room no run is remembered", folder.display(), human_bytes(free)),
            format!("make room: `df {}`", folder.display()),
        ),
        Ok(free) => Finding::ok(about, format!("{} has {} free", folder.display(), human_bytes(free))),
        Err(error) => Finding::of(about, &error.into()),
    });
    let (zone, own) = (settings.timezone.name(), zone_of_this_host());
    let now = host.clock.now().with_timezone(&settings.timezone).format("%Y-%m-%d %H:%M");
    let message = format!("schedules are read on the clock of {zone}, where it is {now}");
    // UTC is also called Etc/UTC.
    let plain = |name: &str| name.trim_start_matches("Etc/").to_owned();
    findings.push(match plain(zone) == plain(&own) {
        true => Finding::ok("zone", message),
        false => Finding::ok(
            "zone",
            format!("{message}; this host's own clock shows {own}: cron reads that one unless CRON_TZ is set"),
        ),
    });
    findings
}

/// Whether this user may read a job's files and run its hooks. Servers have a look of their own.
pub(super) fn sources(job: &JobSettings, config_file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &job.sources {
        let about = format!("job {}: source {}", job.name, source.name);
        let looked: Vec<Option<Result<(), Trouble>>> = match &source.kind {
            SourceKind::Files(files) => files.paths.iter().map(|path| readable(path)).collect(),
            SourceKind::Sqlite(sqlite) => vec![database(&sqlite.path)],
            SourceKind::Postgres(_) => continue,
        };
        let troubles = looked.into_iter().flatten().filter_map(Result::err);
        let found: Vec<Finding> = troubles.map(|trouble| trouble.about(&about)).collect();
        match found.is_empty() {
            true => findings.push(Finding::ok(about, "this user may read it".to_owned())),
            false => findings.extend(found),
        }
    }
    findings.extend(programs(job, config_file));
    findings
}

/// Why something cannot be read.
enum Trouble {
    /// Nothing of it can.
    Closed { path: PathBuf, why: String },
    /// A part of it cannot.
    Partly { path: PathBuf, unreadable: usize, first: PathBuf },
}

impl Trouble {
    fn about(self, about: &str) -> Finding {
        let hint = |path: &Path| {
            format!("run lifeboat as a user that may: `namei -l {}` shows who stands in the way", path.display())
        };
        match self {
            Self::Closed { path, why } => {
                Finding::problem(about, format!("{} cannot be read: {why}", path.display()), Some(hint(&path)))
            }
            Self::Partly { path, unreadable, first } => Finding::warning(
                about,
                format!(
                    "of the first {MAX_LOOKED} things in {} this user may not read {unreadable}, such as {}: unless `exclude` \
                     leaves them out, backups will be partial",
                    path.display(),
                    first.display()
                ),
                hint(&first),
            ),
        }
    }
}

/// Looks at the beginning of a tree; `None` where there is nothing, which the config's own check tells.
fn readable(root: &Path) -> Option<Result<(), Trouble>> {
    let metadata = root.symlink_metadata().ok()?;
    if let Err(why) = may_read(root, metadata.is_dir()) {
        return Some(Err(Trouble::Closed { path: root.to_owned(), why }));
    }
    let (mut unreadable, mut looked) = (Vec::new(), 0);
    let mut folders = if metadata.is_dir() { vec![root.to_owned()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if looked == MAX_LOOKED {
                break;
            }
            looked += 1;
            // Links are kept as links, and what is neither file nor folder is not read.
            let Ok(kind) = entry.file_type() else { continue };
            if (kind.is_file() || kind.is_dir()) && may_read(&entry.path(), kind.is_dir()).is_err() {
                unreadable.push(entry.path());
            } else if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let count = unreadable.len();
    let trouble =
        unreadable.into_iter().next().map(|first| Trouble::Partly { path: root.to_owned(), unreadable: count, first });
    Some(trouble.map_or(Ok(()), Err))
}

fn may_read(path: &Path, is_folder: bool) -> Result<(), String> {
    let wanted = if is_folder { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Ok(()),
        _ => accessat(CWD, path, wanted, AtFlags::EACCESS).map_err(|errno| std::io::Error::from(errno).to_string()),
    }
}

/// Looks at the beginning of a SQLite database.
fn database(path: &Path) -> Option<Result<(), Trouble>> {
    path.symlink_metadata().ok()?;
    let closed = |why: String| Err(Trouble::Closed { path: path.to_owned(), why });
    let mut head = Vec::new();
    Some(match File::open(path).and_then(|file| file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut head)) {
        Err(cause) => closed(cause.to_string()),
        // A database that nothing was written to yet is an empty file.
        Ok(0) => Ok(()),
        Ok(_) if head == SQLITE_MAGIC => Ok(()),
        Ok(_) => closed("it is no SQLite database".to_owned()),
    })
}

/// The programs that a job's hooks name.
fn programs(job: &JobSettings, config_file: &Path) -> Vec<Finding> {
    let hooks = [("before", &job.hooks.before), ("after", &job.hooks.after), ("on_failure", &job.hooks.on_failure)];
    let named = hooks.into_iter().filter_map(|(hook, argv)| Some((hook, argv.first()?)));
    let missing = named.filter(|(_, program)| !can_run(program, config_file));
    missing.map(|(hook, program)| no_program(&job.name, hook, program)).collect()
}

fn no_program(job: &JobName, hook: &str, program: &str) -> Finding {
    Finding::problem(
        format!("job {job}: hook {hook}"),
        format!("{program} is no program that this user can run"),
        Some("write its whole path, and see that it is executable: `ls -l`"),
    )
}

fn can_run(program: &str, config_file: &Path) -> bool {
    let places: Vec<PathBuf> = match program.contains('/') {
        true => vec![config_file.parent().unwrap_or(Path::new("/")).join(program)],
        false => {
            std::env::var_os("PATH").iter().flat_map(std::env::split_paths).map(|folder| folder.join(program)).collect()
        }
    };
    places.iter().any(|place| place.is_file() && accessat(CWD, place, Access::EXEC_OK, AtFlags::EACCESS).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_database_or_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        assert!(database(&path).is_none(), "the config's check tells that");
        for (bytes, fine) in [
            (&b""[..], true),
            (b"SQLite format 3\0 and more", true),
            (b"hello", false),
            (b"SQLite format 2\0....", false),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(database(&path).unwrap().is_ok(), fine, "{bytes:?}");
        }
    }

    #[test]
    fn a_program_is_looked_for_where_hooks_are_started_from() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("lifeboat.toml");
        assert!(can_run("sh", &config) && can_run("/bin/sh", &config));
        assert!(!can_run("no-such-program", &config) && !can_run("./hook.sh", &config));
        std::fs::write(folder.path().join("hook.sh"), "#!/bin/sh\n").unwrap();
        assert!(!can_run("./hook.sh", &config), "nobody may run it");
    }

    #[test]
    fn a_tree_is_looked_at_from_its_top() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(readable(folder.path()).unwrap().is_ok());
        assert!(readable(&folder.path().join("deep/file")).unwrap().is_ok());
        assert!(readable(&folder.path().join("gone")).is_none());
    }
}
