//! `cargo xtask bench files`: lifeboat beside restic, rustic, borg and `tar | zstd | age`, on the same data in the same
//! run. It prints a table for each part, and fills docs/PERFORMANCE.md where told to. It asserts nothing about figures; it
//! fails where a tool failed.

use std::fs;
use std::path::{Path, PathBuf};

use peers::{Compiling, Lineup, TOOLS};
use rows::{Bench, Scale};
use table::{SUBJECT, Sheet};

mod data;
mod days;
mod floors;
mod page;
mod peers;
pub(crate) mod postgres;
mod rows;
pub(crate) mod s3;
mod scripts;
mod table;

/// Rounds unless told otherwise.
const ROUNDS: usize = 3;

/// The scale that the targets are meant for: about 1.7 GB in the tree.
const FULL: Scale =
    Scale { files: 59_000, days: 30, small_files: 1_000_000, database_bytes: 1_000_000_000, lone_files: 35_000 };
/// To see whether the bench works; its figures mean nothing.
const QUICK: Scale = Scale { files: 500, days: 6, small_files: 2000, database_bytes: 4_000_000, lone_files: 200 };

/// How the bench is asked for.
pub(crate) const USAGE: &str = "\
bench files takes
  --million --sqlite --prune   these parts as well as floors, tree and days; --all: all of them
  --only PART[,PART]           these parts alone: floors, tree, days, million, sqlite, prune
  --tools NAME[,NAME]          these peers alone: restic, rustic, borg, tar
  --rounds N                   medians of N (3)
  --files N, --days N          another scale of tree and days
  --quick                      everything tiny: does it work?
  --lifeboat FILE              this program instead of a release build made now
  --output FILE                fill the parts between marks of this page (full scale only)";

/// A part of the bench, which is a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Floors,
    Tree,
    Days,
    Million,
    Sqlite,
    Prune,
}

impl Part {
    const ALL: [Self; 6] = [Self::Floors, Self::Tree, Self::Days, Self::Million, Self::Sqlite, Self::Prune];

    fn name(self) -> &'static str {
        match self {
            Self::Floors => "floors",
            Self::Tree => "tree",
            Self::Days => "days",
            Self::Million => "million",
            Self::Sqlite => "sqlite",
            Self::Prune => "prune",
        }
    }

    fn title(self, scale: &Scale) -> String {
        match self {
            Self::Floors => format!("What the simplest programs take for the tree of {} files", scale.files),
            Self::Tree => format!("A tree of {} files", scale.files),
            Self::Days => {
                let below = data::TINY_BYTES / 1000;
                format!("{} days, each changes 1 % of the files below {below} kB of {}", scale.days, scale.files)
            }
            Self::Million => format!("{} small files", scale.small_files),
            Self::Sqlite => format!("A SQLite database of {} MB", scale.database_bytes / 1_000_000),
            Self::Prune => {
                format!("Prune of 30 backups of {} folders and their files, a segment each", scale.lone_files)
            }
        }
    }

    fn run(self, bench: &Bench<'_>) -> Result<Sheet, String> {
        match self {
            Self::Floors => floors::floors(bench),
            Self::Tree => rows::tree(bench),
            Self::Days => days::days(bench),
            Self::Million => rows::million(bench),
            Self::Sqlite => rows::sqlite(bench),
            Self::Prune => days::prune(bench),
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    parts: Vec<Part>,
    /// Names of peers; none means all.
    tools: Vec<String>,
    rounds: usize,
    scale: Scale,
    lifeboat: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let ["files", flags @ ..] = args else {
            return Err("there are three benches: files, postgres and s3".to_owned());
        };
        let mut options = Self {
            parts: vec![Part::Floors, Part::Tree, Part::Days],
            tools: vec![],
            rounds: ROUNDS,
            scale: FULL,
            lifeboat: None,
            output: None,
        };
        if flags.contains(&"--quick") {
            options.scale = QUICK;
            options.rounds = 1;
        }
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().copied().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"));
            match *flag {
                "--quick" => {}
                "--million" => options.parts.push(Part::Million),
                "--sqlite" => options.parts.push(Part::Sqlite),
                "--prune" => options.parts.push(Part::Prune),
                "--all" => options.parts = Part::ALL.to_vec(),
                "--only" => options.parts = value()?.split(',').map(part).collect::<Result<_, _>>()?,
                "--tools" => options.tools = value()?.split(',').map(peer).collect::<Result<_, _>>()?,
                "--rounds" => options.rounds = number(value()?)?,
                "--files" => options.scale.files = number(value()?)?,
                "--days" => options.scale.days = number(value()?)?,
                "--lifeboat" => options.lifeboat = Some(PathBuf::from(value()?)),
                "--output" => options.output = Some(PathBuf::from(value()?)),
                other => return Err(format!("what is {other}?\n{USAGE}")),
            }
        }
        if options.output.is_some() && (options.scale != FULL || options.lifeboat.is_some()) {
            let why = "--output is for this commit at full scale: leave out --quick, --files, --days and --lifeboat";
            return Err(why.to_owned());
        }
        Ok(options)
    }
}

/// Runs the bench and prints a table after each part, so that a long run that is broken off has said something.
pub(crate) fn run(root: &Path, options: &Options) -> Result<String, String> {
    let page = options.output.as_ref().map(|output| root.join(output));
    let lifeboat = match &options.lifeboat {
        Some(lifeboat) => std::path::absolute(lifeboat).map_err(|error| format!("{}: {error}", lifeboat.display()))?,
        None => {
            crate::test::cargo(root, &["build", "--release", "--quiet"])?;
            root.join("target/release/lifeboat")
        }
    };
    // Whoever asks whether the bench works does not wait for half an hour of compiling.
    let compiling = if options.scale == FULL { Compiling::Allowed } else { Compiling::Never };
    let lineup = Lineup::gather(root, &lifeboat, &options.tools, compiling)?;
    let place = root.join("target/bench");
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    scripts::remove_away(&place)?;
    let bench = Bench { root, place, lifeboat, lineup: &lineup, rounds: options.rounds, scale: options.scale };
    let mut failed = false;
    for part in &options.parts {
        let title = part.title(&options.scale);
        println!("== {title}");
        let facts = page::facts(root, &bench.place, options.rounds, &lineup.versions);
        let sheet = part.run(&bench)?;
        // What a failed tool said may name places of this machine.
        let table = sheet.markdown().replace(&root.display().to_string(), ".");
        let block = format!("{}\n\n{facts}\n", table.trim());
        println!("\n## {title}\n\n{block}");
        // What one tool could not do may be the next run's; a page shows whole parts only.
        match &page {
            Some(page) if !sheet.any_failed() => write(page, *part, &block)?,
            _ => {}
        }
        failed |= sheet.any_failed();
    }
    scripts::remove_away(&bench.place)?;
    if failed {
        return Err(
            "something failed: see the sentences below the tables; a part in which it did fills no page".to_owned()
        );
    }
    Ok(format!("ok: {} parts", options.parts.len()))
}

fn write(page: &Path, part: Part, block: &str) -> Result<(), String> {
    let failed = |why: String| format!("{}: {why}", page.display());
    let text = fs::read_to_string(page).map_err(|error| failed(error.to_string()))?;
    let text = page::fill(&text, part.name(), block).map_err(failed)?;
    fs::write(page, text).map_err(|error| failed(error.to_string()))
}

fn part(name: &str) -> Result<Part, String> {
    Part::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| format!("there is no part {name}\n{USAGE}"))
}

/// A peer by the first word of its name.
fn peer(name: &str) -> Result<String, String> {
    let called = |tool: &&peers::Tool| tool.name != SUBJECT && tool.name.split(',').next() == Some(name);
    let found = TOOLS.iter().find(called).ok_or_else(|| format!("there is no peer {name}\n{USAGE}"))?;
    Ok(found.name.to_owned())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{text} is no number above zero"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_parts_run_where_they_are_asked_for() {
        let parts = |args: &[&str]| Options::parse(args).unwrap().parts;
        assert_eq!(parts(&["files"]), [Part::Floors, Part::Tree, Part::Days]);
        assert_eq!(parts(&["files", "--prune"]), [Part::Floors, Part::Tree, Part::Days, Part::Prune]);
        assert_eq!(parts(&["files", "--only", "sqlite,prune"]), [Part::Sqlite, Part::Prune]);
        assert_eq!(parts(&["files", "--all"]), Part::ALL);
    }

    #[test]
    fn arguments_are_read_strictly() {
        for args in [
            &["trees"][..],
            &["files", "--only", "forest"],
            &["files", "--rounds", "0"],
            &["files", "--rounds"],
            &["files", "--tools", "lifeboat"],
            &["files", "--quick", "--output", "docs/PERFORMANCE.md"],
            &["files", "--milion"],
        ] {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn quick_is_a_start_that_other_flags_change_wherever_they_stand() {
        let options =
            Options::parse(&["files", "--rounds", "2", "--files", "70", "--quick", "--tools", "tar,borg"]).unwrap();
        assert_eq!((options.rounds, options.scale.files, options.scale.days), (2, 70, QUICK.days));
        assert_eq!(options.tools, ["tar, zstd, age", "borg"]);
    }
}
