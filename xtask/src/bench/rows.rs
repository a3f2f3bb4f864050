//! What is measured on trees and on a database: first, unchanged, restored, changed. The tools take turns within each
//! round, so that a machine whose speed drifts is unfair to all alike.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::data::{self, BUNDLED_BYTES, TINY_BYTES, Tree};
use super::peers::{Lineup, TOOLS, Tool};
use super::scripts::{self, Scripts, content, put_away, remove};
use super::table::{RowId, Sheet, Target, Unit};

const MIB: f64 = 1_048_576.0;
/// A tool may doubt a file that changed as it looked; a day's changes are older than this.
const SETTLE: Duration = Duration::from_secs(3);
/// Memory that a backup, a restore or a prune may take.
pub(super) const PEAK_MIB: f64 = 256.0;
/// Retention under which nothing expires while a part lasts.
const KEEP_ALL: &str = "keep_at_least = \"14d\", delete_after = \"60d\"";

/// How large everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) files: usize,
    pub(super) days: usize,
    pub(super) small_files: usize,
    pub(super) database_bytes: u64,
    pub(super) lone_files: usize,
}

/// One run of the bench.
pub(super) struct Bench<'a> {
    pub(super) root: &'a Path,
    pub(super) place: PathBuf,
    /// The program under test.
    pub(super) lifeboat: PathBuf,
    pub(super) lineup: &'a Lineup,
    pub(super) rounds: usize,
    pub(super) scale: Scale,
}

impl Bench<'_> {
    /// An empty sheet that says who is missing.
    pub(super) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(TOOLS.iter().map(|tool| tool.name).collect());
        self.lineup.absences().for_each(|(column, why)| sheet.absent(column, why));
        sheet
    }

    /// The surroundings of a tool's scripts.
    pub(super) fn scripts<'a>(&'a self, column: usize, tree: &'a Path, job: &'a str, keep: usize) -> Scripts<'a> {
        let home = self.place.join(format!("homes/{column}"));
        Scripts { lifeboat: &self.lifeboat, path: &self.lineup.path, place: &self.place, home, tree, job, keep }
    }

    /// Takes what the tools stored out of the way.
    pub(super) fn clear(&self) -> Result<(), String> {
        put_away(&self.place, &self.place.join("homes"))
    }
}

/// Tools that failed take no further part; the rows in which they failed say so.
#[derive(Default)]
pub(super) struct Broken(BTreeSet<usize>);

impl Broken {
    /// Does one tool's share of a step, unless it failed before.
    pub(super) fn unless(
        &mut self,
        sheet: &mut Sheet,
        (column, tool): (usize, &Tool),
        rows: &[RowId],
        step: impl FnOnce(&mut Sheet) -> Result<(), String>,
    ) {
        if self.0.contains(&column) {
            rows.iter().for_each(|row| sheet.fail(*row, column));
            return;
        }
        println!("  {}", tool.name);
        if let Err(why) = step(sheet) {
            println!("  {} failed: {why}", tool.name);
            self.0.insert(column);
            rows.iter().for_each(|row| sheet.fail(*row, column));
            sheet.note(format!("{} failed: {}", tool.name, why.lines().next().unwrap_or_default()));
        }
    }
}

/// The job's part of a config. What the source is called is known to the scripts.
pub(super) fn job(retention: &str, source: &str) -> String {
    format!(
        "[job.bench]\nschedule = \"0 2 * * *\"\nretention = {{ {retention} }}\n\
         [job.bench.source.source]\n{source}"
    )
}

/// A source of files.
pub(super) fn files_source(tree: &Path) -> String {
    format!("kind = \"files\"\npaths = [{:?}]", tree.display().to_string())
}

/// The company's tree: first backup, unchanged, full restore, a day's changes.
pub(super) fn tree(bench: &Bench<'_>) -> Result<Sheet, String> {
    let tree = Tree::make(&bench.place, bench.scale.files).map_err(|error| format!("cannot make the tree: {error}"))?;
    scripts::warm(tree.folder())?;
    let job = job(KEEP_ALL, &files_source(tree.folder()));
    let mut sheet = bench.sheet();
    let first = sheet.row("first backup", Unit::Seconds, Target::TimesBest(0.4));
    let stored = sheet.row("stored by it", Unit::StoredMib, Target::TimesOf("restic", 1.0));
    let unchanged = sheet.row("unchanged", Unit::Seconds, Target::TimesBest(0.25));
    let restore = sheet.row("full restore", Unit::Seconds, Target::TimesBest(0.7));
    // Which files are small is a matter of taste that decides the figure: both are told.
    let changes = [(TINY_BYTES, "40 kB"), (BUNDLED_BYTES, "1 MiB")].map(|(below, size)| {
        let changed = sheet.row(&format!("1 % of the files below {size} changed"), Unit::Seconds, Target::Nothing);
        let added = sheet.row("stored by that, for each changed byte", Unit::Times, Target::AtMost(10.0));
        (below, changed, added)
    });
    let peak = sheet.row("peak memory of all of these", Unit::PeakMib, Target::AtMost(PEAK_MIB));
    let whole = [first, stored, unchanged, restore, peak];
    let mut broken = Broken::default();
    for round in 1..=bench.rounds {
        println!("round {round} of {}: first backup, unchanged, restore", bench.rounds);
        bench.clear()?;
        for (column, tool) in bench.lineup.tools() {
            let scripts = bench.scripts(column, tree.folder(), &job, 1);
            broken.unless(&mut sheet, (column, tool), &whole, |sheet| {
                scripts.fresh()?;
                scripts.run(tool.prepare)?;
                measure(sheet, (first, peak), column, &scripts, tool.backup)?;
                sheet.add(stored, column, content(&scripts.home.join(tool.stored)).bytes as f64 / MIB);
                if tool.incremental {
                    measure(sheet, (unchanged, peak), column, &scripts, tool.backup)?;
                }
                measure(sheet, (restore, peak), column, &scripts, tool.restore)?;
                if round == 1 {
                    scripts.run(&format!("diff -rq --no-dereference \"$TREE\" {}\"$TREE\"", tool.restored))?;
                }
                put_away(&bench.place, &scripts.home.join("out"))
            });
        }
        for (step, (below, changed, added)) in changes.into_iter().enumerate() {
            let change = tree
                .change((2 * round + step) as u64, below)
                .map_err(|error| format!("cannot change the tree: {error}"))?;
            println!("round {round} of {}: {} files of {} bytes changed", bench.rounds, change.files, change.bytes);
            std::thread::sleep(SETTLE);
            for (column, tool) in bench.lineup.tools().filter(|(_, tool)| tool.incremental) {
                let scripts = bench.scripts(column, tree.folder(), &job, 1);
                broken.unless(&mut sheet, (column, tool), &[changed, added, peak], |sheet| {
                    let vault = scripts.home.join(tool.stored);
                    let before = content(&vault).bytes;
                    measure(sheet, (changed, peak), column, &scripts, tool.backup)?;
                    let new = content(&vault).bytes.saturating_sub(before);
                    sheet.add(added, column, new as f64 / change.bytes.max(1) as f64);
                    Ok(())
                });
            }
        }
        bench.clear()?;
    }
    Ok(sheet)
}

/// A tree of very many small files: whether time and memory stay within bounds.
pub(super) fn million(bench: &Bench<'_>) -> Result<Sheet, String> {
    let tree = data::small_files(&bench.place, bench.scale.small_files)
        .map_err(|error| format!("cannot make the small files: {error}"))?;
    scripts::warm(&tree)?;
    let job = job(KEEP_ALL, &files_source(&tree));
    let mut sheet = bench.sheet();
    let first = sheet.row("first backup", Unit::Seconds, Target::Nothing);
    let stored = sheet.row("stored by it", Unit::StoredMib, Target::Nothing);
    let unchanged = sheet.row("unchanged", Unit::Seconds, Target::AtMost(15.0));
    let restore = sheet.row("full restore", Unit::Seconds, Target::Nothing);
    let peak = sheet.row("peak memory of all of these", Unit::PeakMib, Target::AtMost(600.0));
    let mut broken = Broken::default();
    bench.clear()?;
    for (column, tool) in bench.lineup.tools() {
        let scripts = bench.scripts(column, &tree, &job, 1);
        broken.unless(&mut sheet, (column, tool), &[first, stored, unchanged, restore, peak], |sheet| {
            scripts.fresh()?;
            scripts.run(tool.prepare)?;
            measure(sheet, (first, peak), column, &scripts, tool.backup)?;
            sheet.add(stored, column, content(&scripts.home.join(tool.stored)).bytes as f64 / MIB);
            for _ in 0..if tool.incremental { bench.rounds } else { 0 } {
                measure(sheet, (unchanged, peak), column, &scripts, tool.backup)?;
            }
            measure(sheet, (restore, peak), column, &scripts, tool.restore)?;
            // One tool's copies at a time: with the tree they take gigabytes of inodes and blocks.
            remove(&scripts.home)
        });
    }
    sheet.note("First backup and restore are one round each.".to_owned());
    Ok(sheet)
}

/// A database of which 1 % of the rows is updated in one place. Peers back up its file, which nobody writes to
/// meanwhile.
pub(super) fn sqlite(bench: &Bench<'_>) -> Result<Sheet, String> {
    let bytes = bench.scale.database_bytes;
    let folder = bench.place.join("shop");
    remove(&folder)?;
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let database = folder.join("shop.db").display().to_string();
    println!("making a database of {bytes} bytes");
    scripts::command("sqlite3", &[&database, &data::shop_sql(bytes)], bench.root)?;
    let job = job(KEEP_ALL, &format!("kind = \"sqlite\"\npath = {database:?}"));
    let mut sheet = bench.sheet();
    let first = sheet.row("first backup", Unit::Seconds, Target::Nothing);
    let stored = sheet.row("stored by it", Unit::StoredMib, Target::Nothing);
    let next = sheet.row("1 % of the rows updated in one place", Unit::Seconds, Target::Nothing);
    let share = sheet.row("stored by that, of what the first stored", Unit::Percent, Target::AtMost(5.0));
    let peak = sheet.row("peak memory of all of these", Unit::PeakMib, Target::AtMost(PEAK_MIB));
    let mut broken = Broken::default();
    bench.clear()?;
    let mut whole = vec![0; TOOLS.len()];
    for (column, tool) in bench.lineup.tools() {
        let scripts = bench.scripts(column, &folder, &job, 1);
        broken.unless(&mut sheet, (column, tool), &[first, stored, peak], |sheet| {
            scripts.fresh()?;
            scripts.run(tool.prepare)?;
            measure(sheet, (first, peak), column, &scripts, tool.backup)?;
            whole[column] = content(&scripts.home.join(tool.stored)).bytes;
            sheet.add(stored, column, whole[column] as f64 / MIB);
            Ok(())
        });
    }
    for round in 1..=bench.rounds {
        println!("round {round} of {}: rows updated", bench.rounds);
        scripts::command("sqlite3", &[&database, &data::update_sql(bytes, round)], bench.root)?;
        std::thread::sleep(SETTLE);
        for (column, tool) in bench.lineup.tools().filter(|(_, tool)| tool.incremental) {
            let scripts = bench.scripts(column, &folder, &job, 1);
            broken.unless(&mut sheet, (column, tool), &[next, share, peak], |sheet| {
                let vault = scripts.home.join(tool.stored);
                let before = content(&vault).bytes;
                measure(sheet, (next, peak), column, &scripts, tool.backup)?;
                let new = content(&vault).bytes.saturating_sub(before);
                sheet.add(share, column, 100.0 * new as f64 / whole[column].max(1) as f64);
                Ok(())
            });
        }
    }
    bench.clear()?;
    let size = fs::metadata(&database).map_or(0, |metadata| metadata.len());
    remove(&folder)?;
    sheet.note(format!("The database has {:.0} MiB; the first backup is one round.", size as f64 / MIB));
    Ok(sheet)
}

/// Runs a script and adds what it cost to a row of seconds and one of memory.
fn measure(
    sheet: &mut Sheet,
    (seconds, peak): (RowId, RowId),
    column: usize,
    scripts: &Scripts<'_>,
    script: &str,
) -> Result<(), String> {
    let cost = scripts.time(script)?;
    sheet.add(seconds, column, cost.seconds);
    sheet.add(peak, column, cost.peak_mib);
    Ok(())
}
