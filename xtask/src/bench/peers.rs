//! The tools under test: how each is had, and the few lines of shell with which it backs up, restores and forgets.
//!
//! Every script runs in the tool's own folder and finds the tree in `$TREE`, the job's config in `$JOB` (lifeboat's
//! only), how many backups to keep in `$KEEP`, and in `$AT` what moves the clock of the program that follows.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::SUBJECT;

/// The version of rustic that is compiled where none is installed. Without its default features (a jq, a web server,
/// a text interface, metrics) a repository in a folder works all the same; no switch leaves out its cloud stores.
const RUSTIC_VERSION: &str = "0.11.4";

/// What the scripts themselves use, with the Debian packages that have it. Without these there is no bench.
const GROUND: &[(&str, &str)] = &[("time", "time"), ("faketime", "faketime"), ("sqlite3", "sqlite3")];

/// A tool: a name, what it is had from, its scripts.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Programs that must be there, and their Debian packages.
    programs: &'static [(&'static str, &'static str)],
    /// Prints what was measured.
    version: &'static str,
    pub(super) prepare: &'static str,
    pub(super) backup: &'static str,
    /// Everything of the newest backup, into `out`.
    pub(super) restore: &'static str,
    /// The folder in which a restored file has its whole path.
    pub(super) restored: &'static str,
    /// Lets go of all but the newest `$KEEP` backups and gives the room back; `None` where a backup does it by itself
    /// (lifeboat), or where there is nothing like it (a pipeline).
    pub(super) forget: Option<&'static str>,
    /// Prints how many backups there are.
    pub(super) count: &'static str,
    /// Where what it stored lies.
    pub(super) stored: &'static str,
    /// Whether a second backup costs less than a first.
    pub(super) incremental: bool,
}

const RESTIC: &str = "restic -q -r repo -p password --cache-dir cache";
const RUSTIC: &str = "rustic -r repo --password-file password --cache-dir cache --no-progress --log-level error";

/// Replaces the program's usual beginning, which each script would else repeat.
fn spelled_out(script: &str) -> String {
    script.replace("{restic}", RESTIC).replace("{rustic}", RUSTIC)
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: SUBJECT,
        programs: &[],
        version: r#""$LIFEBOAT" --version"#,
        prepare: r#"$AT "$LIFEBOAT" init . && printf '%s\n' "$JOB" >> lifeboat.toml"#,
        backup: r#"$AT "$LIFEBOAT" backup"#,
        restore: r#""$LIFEBOAT" restore bench --to out --identity identity.txt"#,
        restored: "out/source",
        forget: None,
        count: "find vault/backups/bench -name '*.json' | wc -l",
        stored: "vault",
        incremental: true,
    },
    Tool {
        name: "restic",
        programs: &[("restic", "restic")],
        version: "restic version | cut -d' ' -f1-2",
        prepare: "echo secret > password && {restic} init",
        backup: "{restic} backup \"$TREE\"",
        restore: "{restic} restore latest --target out",
        restored: "out",
        forget: Some("{restic} forget --keep-last $KEEP --prune"),
        count: "ls repo/snapshots | wc -l",
        stored: "repo",
        incremental: true,
    },
    Tool {
        name: "rustic",
        programs: &[("rustic", "")],
        version: "rustic --version",
        prepare: "echo secret > password && {rustic} init",
        backup: "{rustic} backup \"$TREE\"",
        restore: "{rustic} restore latest out",
        restored: "out",
        // It would else keep for a day what it has marked, by a clock that stands still here.
        forget: Some("{rustic} forget --keep-last $KEEP --prune --instant-delete"),
        count: "find repo/snapshots -type f | wc -l",
        stored: "repo",
        incremental: true,
    },
    Tool {
        name: "borg",
        programs: &[("borg", "borgbackup")],
        version: "borg --version",
        prepare: "borg init -e repokey-blake2 repo",
        backup: "borg create -C zstd,3 repo::{now:%s%f} \"$TREE\"",
        restore: "mkdir out && cd out && borg extract ../repo::$(borg list --short --last 1 ../repo)",
        restored: "out",
        forget: Some("borg prune --keep-last $KEEP repo && borg compact repo"),
        count: "borg list --short repo | wc -l",
        stored: "repo",
        incremental: true,
    },
    Tool {
        name: "tar, zstd, age",
        programs: &[("tar", "tar"), ("zstd", "zstd"), ("age", "age")],
        version: "tar --version | head -n 1; zstd --version | grep -o 'v[0-9.]*' | sed 's/^v/zstd /'; age --version | sed 's/^v*/age /'",
        prepare: "age-keygen -o key 2> /dev/null && age-keygen -y key > recipient && mkdir repo",
        backup: "tar -cf - \"$TREE\" 2> /dev/null | zstd -q -3 -T0 | age -R recipient > repo/archive",
        restore: "mkdir out && age -d -i key repo/archive | zstd -qd | tar -xf - -C out",
        restored: "out",
        forget: None,
        count: "ls repo | wc -l",
        stored: "repo",
        incremental: false,
    },
];

/// Whether a peer that no package has may be compiled, which keeps a machine busy for half an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compiling {
    Allowed,
    Never,
}

/// The tools of this run: whether each is there, and what they are called by.
pub(super) struct Lineup {
    /// One for each of [`TOOLS`]: why it is not there.
    absent: Vec<Option<String>>,
    /// Versions of those that are there.
    pub(super) versions: Vec<String>,
    /// What `PATH` is for every script.
    pub(super) path: std::ffi::OsString,
}

impl Lineup {
    /// Installs what is missing. A peer that cannot be had is remembered with the reason, and no error; `wanted` names
    /// the peers to run, all of them where it is empty.
    pub(super) fn gather(
        root: &Path,
        lifeboat: &Path,
        wanted: &[String],
        compiling: Compiling,
    ) -> Result<Self, String> {
        crate::test::install(GROUND)?;
        let peers = root.join("target/peers");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([peers.join("bin")]);
        let path = std::env::join_paths(folders).map_err(|error| format!("PATH: {error}"))?;
        let absent = TOOLS
            .iter()
            .map(|tool| {
                let asked_for =
                    tool.name == SUBJECT || wanted.is_empty() || wanted.iter().any(|name| name == tool.name);
                if !asked_for {
                    return Some("not asked for in this run".to_owned());
                }
                provide(tool, &path, &peers, compiling).err().map(|why| format!("not installed: {why}"))
            })
            .collect();
        let mut lineup = Self { absent, versions: Vec::new(), path };
        for tool in TOOLS.iter().enumerate().filter(|(index, _)| lineup.absent[*index].is_none()).map(|(_, tool)| tool)
        {
            let out = Command::new("bash")
                .args(["-c", tool.version])
                .env("PATH", &lineup.path)
                .env("LIFEBOAT", lifeboat)
                .output()
                .map_err(|error| format!("bash: {error}"))?;
            let lines = String::from_utf8_lossy(&out.stdout).lines().collect::<Vec<_>>().join(", ");
            lineup.versions.push(lines);
        }
        Ok(lineup)
    }

    /// The tools that run, with their columns.
    pub(super) fn tools(&self) -> impl Iterator<Item = (usize, &'static Tool)> {
        TOOLS.iter().enumerate().filter(|(column, _)| self.absent[*column].is_none())
    }

    /// The columns of the tools that do not run, and why.
    pub(super) fn absences(&self) -> impl Iterator<Item = (usize, &str)> {
        self.absent.iter().enumerate().filter_map(|(column, why)| Some((column, why.as_deref()?)))
    }
}

/// A script as bash gets it.
pub(super) fn script(text: &str) -> String {
    format!("set -euo pipefail; {}", spelled_out(text))
}

fn provide(tool: &Tool, path: &std::ffi::OsStr, peers: &Path, compiling: Compiling) -> Result<(), String> {
    let found = |program: &str| std::env::split_paths(path).any(|folder| folder.join(program).is_file());
    for (program, package) in tool.programs {
        if found(program) {
            continue;
        }
        match *package {
            "" if compiling == Compiling::Never => return Err("this run compiles no peer".to_owned()),
            "" => compile_rustic(peers)?,
            package => crate::test::install(&[(program, package)]).map_err(|why| one_line(&why))?,
        }
        if !found(program) {
            return Err(format!("{program} is not on PATH after installing it"));
        }
    }
    Ok(())
}

fn compile_rustic(peers: &Path) -> Result<(), String> {
    println!("== compiling rustic {RUSTIC_VERSION} from crates.io into {}: half an hour on two cores", peers.display());
    let root: PathBuf = peers.to_owned();
    let status = Command::new("cargo")
        .args(["install", "rustic-rs", "--version", RUSTIC_VERSION, "--locked", "--no-default-features", "--root"])
        .arg(root)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo install rustic-rs {RUSTIC_VERSION} ended with {status}")) }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_spelled_out_and_borg_keeps_its_own_braces() {
        for tool in TOOLS {
            for text in [tool.prepare, tool.backup, tool.restore, tool.count, tool.forget.unwrap_or_default()] {
                let script = script(text);
                assert!(!script.contains("{rest") && !script.contains("{rust"), "{script}");
            }
        }
        assert!(script(TOOLS[3].backup).contains("{now:%s%f}"));
        assert_eq!(TOOLS[0].name, SUBJECT);
    }
}
