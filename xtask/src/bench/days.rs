//! What is measured over weeks, in minutes: lifeboat's clock is moved on by faketime (it is the same program, of which
//! this moves the wall clock alone). The peers forget by number, and need no clock moved.

use std::time::Duration;

use super::data::{LoneFiles, TINY_BYTES, Tree};
use super::peers::Tool;
use super::rows::{Bench, Broken, PEAK_MIB, files_source, job};
use super::scripts::{self, Cost, Scripts, content};
use super::table::{SUBJECT, Sheet, Target, Unit};

const MIB: f64 = 1_048_576.0;
const PRUNE: &str = r#""$LIFEBOAT" prune"#;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Backups that every tool keeps in the end, where there are days enough.
const KEEP: usize = 14;
/// From the age at which lifeboat may erase to the one at which it must have. Less than the lead that a daily prune and
/// the sweep's grace ask for, so that a backup goes as soon as it may, and the count comes out as the peers' does.
const ERASE_WITHIN: Duration = Duration::from_secs(4 * DAY);
/// Backups in the vault that is pruned.
const PRUNE_BACKUPS: usize = 30;
/// One of so many files changes between two of them: 35,000 files and as many folders of a segment each, and 29 times 1,029
/// files again, are a hundred thousand segments.
const PRUNE_CHANGES_ONE_IN: usize = 34;
/// Between the two steps of a sweep; longer than [`PRUNE_GRACE`].
const PRUNE_PAUSE: Duration = Duration::from_secs(2);
/// Writes a grace that a bench can wait for into the config.
const PRUNE_GRACE: &str = r#"sed -i '/^\[vault/a grace = "1s"' lifeboat.toml"#;

/// Days of 1 % changes, each with a backup and a prune.
pub(super) fn days(bench: &Bench<'_>) -> Result<Sheet, String> {
    let days = bench.scale.days;
    let keep = KEEP.min(days.div_ceil(2));
    let tree = Tree::make(&bench.place, bench.scale.files).map_err(|error| format!("cannot make the tree: {error}"))?;
    scripts::warm(tree.folder())?;
    // Half a day short of the age of the oldest that is to stay, so that no minute more or less decides.
    let youngest_to_go = Duration::from_secs((keep as u64 - 1) * DAY + 12 * HOUR);
    let job = job(&retention(youngest_to_go, youngest_to_go + ERASE_WITHIN), &files_source(tree.folder()));
    let mut sheet = bench.sheet();
    let stored = sheet.row(&format!("stored after {days} days"), Unit::StoredMib, Target::TimesOf("restic", 1.5));
    let kept = sheet.row("backups kept", Unit::Count, Target::Nothing);
    let total = sheet.row("backups and prunes, all together", Unit::Seconds, Target::Nothing);
    let peak = sheet.row("peak memory of all of these", Unit::PeakMib, Target::AtMost(PEAK_MIB));
    let rows = [stored, kept, total, peak];
    let mut broken = Broken::default();
    let mut seconds = vec![0.0; super::peers::TOOLS.len()];
    bench.clear()?;
    for day in 0..days {
        println!("day {} of {days}", day + 1);
        if day > 0 {
            tree.change(day as u64, TINY_BYTES).map_err(|error| format!("cannot change the tree: {error}"))?;
        }
        for (column, tool) in bench.lineup.tools().filter(|(_, tool)| tool.incremental) {
            let scripts = bench.scripts(column, tree.folder(), &job, keep);
            broken.unless(&mut sheet, (column, tool), &rows, |sheet| {
                if day == 0 {
                    scripts.fresh()?;
                    scripts.run(tool.prepare)?;
                }
                let ahead = seconds_of_days(day);
                let mut costs = vec![timed(&scripts, tool, tool.backup, ahead)?];
                if let Some(forget) = tool.forget {
                    costs.push(scripts.time(forget)?);
                }
                for cost in costs {
                    seconds[column] += cost.seconds;
                    sheet.add(peak, column, cost.peak_mib);
                }
                if day + 1 == days {
                    sheet.add(stored, column, content(&scripts.home.join(tool.stored)).bytes as f64 / MIB);
                    sheet.add(kept, column, number(&scripts.run(tool.count)?)?);
                    sheet.add(total, column, seconds[column]);
                }
                Ok(())
            });
        }
    }
    bench.clear()?;
    sheet.note(format!(
        "The peers keep the newest {keep} and give room back at once; lifeboat keeps by age, and what it lets go stays \
         for the sweep's grace, which its size includes. A pipeline would store everything every day."
    ));
    Ok(sheet)
}

/// A prune that lets go of nearly all of thirty backups.
pub(super) fn prune(bench: &Bench<'_>) -> Result<Sheet, String> {
    let files = bench.scale.lone_files;
    let lone = LoneFiles::make(&bench.place, files).map_err(|error| format!("cannot make the files: {error}"))?;
    // Thinned: what is let go all at once must not be overdue, or the prune says so with its exit status.
    let retention = format!("{}, daily = 1", retention(Duration::from_secs(HOUR), Duration::from_secs(40 * DAY)));
    // A schedule of its own, so that no backup prunes.
    let job =
        format!("{}\n[job.bench.prune]\nschedule = \"30 4 * * *\"", job(&retention, &files_source(lone.folder())));
    let mut sheet = bench.sheet();
    let pruned = sheet.row("prune, both steps", Unit::Seconds, Target::AtMost(5.0));
    let before = sheet.row("files in the store before", Unit::Count, Target::Nothing);
    let after = sheet.row("files in the store after", Unit::Count, Target::Nothing);
    let kept = sheet.row("backups kept", Unit::Count, Target::Nothing);
    let peak = sheet.row("peak memory", Unit::PeakMib, Target::AtMost(PEAK_MIB));
    let rows = [pruned, before, after, kept, peak];
    let mut broken = Broken::default();
    bench.clear()?;
    let lineup = || bench.lineup.tools().filter(|(_, tool)| matches!(tool.name, SUBJECT | "restic"));
    for backup in 0..PRUNE_BACKUPS {
        println!("backup {} of {PRUNE_BACKUPS}", backup + 1);
        if backup > 0 {
            let share = (files / PRUNE_CHANGES_ONE_IN).max(1);
            lone.change(backup, share).map_err(|error| format!("cannot change the files: {error}"))?;
        }
        for (column, tool) in lineup() {
            let scripts = bench.scripts(column, lone.folder(), &job, 1);
            broken.unless(&mut sheet, (column, tool), &rows, |_| {
                // The last is today's, so that the prunes need no clock moved: what moves it makes every look at it slow.
                let ahead = -seconds_of_days(PRUNE_BACKUPS - 1 - backup);
                if backup == 0 {
                    scripts.fresh()?;
                    timed(&scripts, tool, tool.prepare, ahead)?;
                    if tool.name == SUBJECT {
                        scripts.run(PRUNE_GRACE)?;
                    }
                }
                timed(&scripts, tool, tool.backup, ahead).map(drop)
            });
        }
    }
    println!("prune");
    for (column, tool) in lineup() {
        let scripts = bench.scripts(column, lone.folder(), &job, 1);
        broken.unless(&mut sheet, (column, tool), &rows, |sheet| {
            let store = scripts.home.join(tool.stored);
            let files_before = content(&store).files;
            let costs = match tool.forget {
                Some(forget) => vec![scripts.time(forget)?],
                None => {
                    let condemning = scripts.time(PRUNE)?;
                    std::thread::sleep(PRUNE_PAUSE);
                    vec![condemning, scripts.time(PRUNE)?]
                }
            };
            let files_after = content(&store).files;
            if files_after >= files_before {
                return Err(format!("prune deleted nothing of {files_before} files"));
            }
            sheet.add(pruned, column, costs.iter().map(|cost| cost.seconds).sum());
            costs.iter().for_each(|cost| sheet.add(peak, column, cost.peak_mib));
            sheet.add(before, column, files_before as f64);
            sheet.add(after, column, files_after as f64);
            sheet.add(kept, column, number(&scripts.run(tool.count)?)?);
            Ok(())
        });
    }
    bench.clear()?;
    scripts::remove(lone.folder())?;
    sheet.note(
        "One round. Lifeboat's two steps are two seconds apart, with a grace of one: the first condemns, the second deletes. \
         Restic is a reference only: it packs the same files into far fewer files of its own. Its cache is in no count."
            .to_owned(),
    );
    Ok(sheet)
}

fn seconds_of_days(days: usize) -> i64 {
    (days as u64 * DAY).cast_signed()
}

/// Under a moved clock where the tool asks for the time, plainly else.
fn timed(scripts: &Scripts<'_>, tool: &Tool, script: &str, ahead: i64) -> Result<Cost, String> {
    if tool.name == SUBJECT {
        return scripts.time_at(script, &scripts.home.join(tool.stored), ahead);
    }
    scripts.time(script)
}

fn retention(keep_at_least: Duration, delete_after: Duration) -> String {
    let hours = |duration: Duration| duration.as_secs() / HOUR;
    format!("keep_at_least = \"{}h\", delete_after = \"{}h\"", hours(keep_at_least), hours(delete_after))
}

fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number of backups"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_written_in_hours() {
        let text = retention(Duration::from_secs(13 * DAY + 12 * HOUR), Duration::from_secs(17 * DAY + 12 * HOUR));
        assert_eq!(text, "keep_at_least = \"324h\", delete_after = \"420h\"");
    }
}
