//! What did not go as promised, and what a report does not claim: the two lists that make the rest of it believable.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::facts::{JobFacts, OwnIdentity, Unbelieved, Witness};
use super::report::{Measured, Met};
use crate::catalog::{BackupRow, CheckRow, DrillRow};
use crate::domain::manifest::Completeness;
use crate::domain::objectives::{Exposure, Window};
use crate::domain::quantity::{exact_duration, human_duration, human_seconds};
use crate::domain::record::{CheckOutcome, DrillGround, DrillOutcome, PruneOutcome, RunOutcome, SequenceRange};

/// Something that did not go as promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// When.
    pub at: DateTime<Utc>,
    /// Its kind, for scripts.
    pub kind: DeviationKind,
    /// The backup or record that shows it.
    pub id: Option<String>,
    /// What, in a sentence.
    pub what: String,
}

/// Kinds of deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationKind {
    /// A scheduled backup did not begin.
    MissedBackup,
    /// A run committed nothing.
    FailedRun,
    /// A backup lacks something that could not be read.
    PartialBackup,
    /// Numbers are missing between two backups of the job.
    SequenceGap,
    /// More data than the RPO could have been lost.
    RpoExceeded,
    /// A scheduled drill did not begin.
    MissedDrill,
    /// A drill failed.
    FailedDrill,
    /// A backup cannot be opened or differs from its facts.
    RefutedBackup,
    /// A drill passed, and took longer than the RTO.
    RtoExceeded,
    /// A backup was removed before it was as old as it must become.
    RemovedEarly,
    /// Bytes of a backup were there after its time.
    NotErased,
    /// A prune was stopped by something in the vault, or failed.
    FailedPrune,
    /// A check found something damaged, or broke off.
    FailedCheck,
    /// A person decided to go on without something in the vault.
    Quarantine,
    /// A backup that this host knows of is gone from the vault, or not believed there.
    LostBackup,
}

/// What did not go as promised in the window, in the order of time.
pub(super) fn deviations(facts: &JobFacts, measured: &Measured, window: Window) -> Vec<Deviation> {
    let mut found = Vec::new();
    let mut add = |at, kind, id: Option<String>, what: String| found.push(Deviation { at, kind, id, what });
    let code = |code: &Option<String>| code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();

    for (slot, count) in in_rows(&facts.scheduled_backups, &missed_backups(facts, window)) {
        add(slot, DeviationKind::MissedBackup, None, missed_sentence("backup", count));
    }
    for (slot, count) in in_rows(&facts.scheduled_drills, &missed_drills(facts, window)) {
        add(slot, DeviationKind::MissedDrill, None, missed_sentence("drill", count));
    }
    for row in facts.runs.iter().filter(|row| window.covers(row.run.finished)) {
        if row.run.outcome == RunOutcome::Failed {
            let what = format!("the run committed nothing{}", code(&row.run.error_code));
            add(row.run.finished, DeviationKind::FailedRun, Some(row.id.to_string()), what);
        }
    }
    for row in facts.backups.iter().filter(|row| window.covers(row.committed)) {
        if row.completeness == Completeness::Partial {
            let what = "something could not be read; it does not count as a recovery point".to_owned();
            add(row.committed, DeviationKind::PartialBackup, Some(row.id.to_string()), what);
        }
    }
    sequence_gaps(facts, window, &mut add);
    if let Witness::Lacks(gone) = &facts.witness {
        for backup in gone {
            let what = format!("the vault no longer has backup {backup}");
            add(window.end, DeviationKind::LostBackup, Some(backup.to_string()), what);
        }
    }
    for Unbelieved { backup, why } in &facts.unbelieved {
        let what = format!("the manifest of backup {backup} is not believed: {why}");
        add(window.end, DeviationKind::LostBackup, Some(backup.to_string()), what);
    }
    if let (Met::NotMet, Some(objective)) = (measured.rpo.met, facts.promise.objectives.rpo) {
        let worst = measured.rpo.available.worst;
        let what = match worst {
            Exposure::Of(worst) => {
                format!(
                    "at worst {} of data could have been lost, the RPO is {}",
                    human_duration(worst),
                    exact_duration(objective)
                )
            }
            Exposure::Unbounded => {
                format!("there was nothing to restore from, the RPO is {}", exact_duration(objective))
            }
        };
        add(measured.rpo.available.worst_reached_at, DeviationKind::RpoExceeded, None, what);
    }
    for row in facts.drills.iter().filter(|row| window.covers(row.drill.finished)) {
        let (drill, id) = (&row.drill, Some(row.id.to_string()));
        if drill.refutes_backup {
            let backup = drill.backup.as_ref().map(ToString::to_string).unwrap_or_default();
            let what = format!("backup {backup} cannot be opened or differs from its facts");
            add(drill.finished, DeviationKind::RefutedBackup, id.clone(), what);
        }
        match (drill.outcome, drill.rto_objective_seconds) {
            (DrillOutcome::Failed, _) => {
                let what = format!(
                    "the drill failed{}; {} of its checks did not pass",
                    code(&drill.error_code),
                    drill.checks_failed
                );
                add(drill.finished, DeviationKind::FailedDrill, id, what);
            }
            (DrillOutcome::Passed, Some(objective)) if !drill.rto_met => {
                let what = format!(
                    "the restore took {}, the RTO was {}",
                    human_seconds(drill.rto_seconds),
                    human_seconds(objective)
                );
                add(drill.finished, DeviationKind::RtoExceeded, id, what);
            }
            (DrillOutcome::Passed, _) => {}
        }
    }
    keeping(facts, window, &mut add);
    found.sort_by(|a, b| (a.at, a.kind, &a.id).cmp(&(b.at, b.kind, &b.id)));
    found
}

type Add<'a> = &'a mut dyn FnMut(DateTime<Utc>, DeviationKind, Option<String>, String);

/// Numbers that are missing, but for those that a removal or a person explains.
fn sequence_gaps(facts: &JobFacts, window: Window, add: Add<'_>) {
    let removed = facts.removals.iter().flat_map(|row| row.body.gone.iter().copied());
    let explained =
        SequenceRange::union(removed.chain(facts.quarantines.iter().flat_map(|row| row.body.gone.iter().copied())));
    let mut by_sequence: Vec<&BackupRow> = facts.backups.iter().collect();
    by_sequence.sort_by_key(|row| row.sequence);
    for pair in by_sequence.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let between =
            SequenceRange { first: before.sequence.saturating_add(1), last: after.sequence.saturating_sub(1) };
        if window.covers(after.committed) && !between.without(&explained).is_empty() {
            let what = format!("between number {} and number {} backups are missing", before.sequence, after.sequence);
            add(after.committed, DeviationKind::SequenceGap, Some(after.id.to_string()), what);
        }
    }
}

/// What went otherwise in keeping and erasing.
fn keeping(facts: &JobFacts, window: Window, add: Add<'_>) {
    let proofs = facts.proofs();
    for row in &facts.backups {
        let id = || Some(row.id.to_string());
        if let (Some(deadline), Some(delete_after)) = (facts.deadline(row), facts.promise.delete_after)
            && window.covers(deadline)
            && facts.gone_at(row, &proofs).unwrap_or(window.end) > deadline
        {
            let age = exact_duration(delete_after);
            let what = match (row.retained_until, row.removal) {
                (Some(removed), Some(_)) if removed <= deadline => {
                    format!("{age} after its recovery point the backup was removed, but its bytes were not proven gone")
                }
                _ => format!("the backup was still there {age} after its recovery point"),
            };
            add(deadline, DeviationKind::NotErased, id(), what);
        }
        if let (Some(removed), Some(_), Some(kept_until)) = (row.retained_until, row.removal, facts.kept_until(row))
            && removed < kept_until
            && window.covers(removed)
        {
            let what = format!(
                "the backup was removed {} after its commit, and is promised for {}",
                human_duration((removed - row.committed).to_std().unwrap_or_default()),
                exact_duration(facts.promise.keep_at_least.unwrap_or_default())
            );
            add(removed, DeviationKind::RemovedEarly, id(), what);
        }
    }
    for row in facts.refutations.iter().filter(|row| window.covers(row.recorded)) {
        let found = &row.body;
        let objects = match found.objects.len() + found.lists.len() {
            0 => String::new(),
            1 => ": 1 object is missing or damaged".to_owned(),
            count => format!(": {count} objects are missing or damaged"),
        };
        let backups = match &found.backups[..] {
            [one] => format!("backup {one} is no good"),
            several => format!("{} backups are no good", several.len()),
        };
        let what = format!("{backups} ({}){objects}", found.error_code);
        add(row.recorded, DeviationKind::RefutedBackup, Some(row.id.to_string()), what);
    }
    for row in facts.prunes.iter().filter(|row| window.covers(row.body.finished)) {
        let how = match row.body.outcome {
            PruneOutcome::Done => continue,
            PruneOutcome::Stopped => "something in the vault stopped every deletion",
            PruneOutcome::Failed => "the prune broke off",
        };
        let code = row.body.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        let what = format!("{how}{code}");
        add(row.body.finished, DeviationKind::FailedPrune, Some(row.id.to_string()), what);
    }
    for row in facts.checks.iter().filter(|row| window.covers(row.body.finished)) {
        let how = match (row.body.outcome, row.body.damaged) {
            (CheckOutcome::Sound, _) => continue,
            (CheckOutcome::Damaged, 1) => "the check found 1 thing that is not what it was".to_owned(),
            (CheckOutcome::Damaged, count) => format!("the check found {count} things that are not what they were"),
            (CheckOutcome::Failed, _) => "the check broke off".to_owned(),
        };
        let code = row.body.error_code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        add(row.body.finished, DeviationKind::FailedCheck, Some(row.id.to_string()), format!("{how}{code}"));
    }
    for row in facts.quarantines.iter().filter(|row| window.covers(row.recorded)) {
        let what = match (&row.body.backup, row.body.gone.len()) {
            (Some(backup), _) => format!("somebody set backup {backup} aside, which could not be believed or followed"),
            (None, 1) => "somebody accepted that backups are missing, one row of numbers".to_owned(),
            (None, count) => format!("somebody accepted that backups are missing, {count} rows of numbers"),
        };
        add(row.recorded, DeviationKind::Quarantine, Some(row.id.to_string()), what);
    }
}

/// The places in `scheduled_backups` of those at which none began. A run that was killed after its backup was committed left
/// no record, and a backup that was pruned since is known all the same.
pub(super) fn missed_backups(facts: &JobFacts, window: Window) -> Vec<usize> {
    let runs = facts.runs.iter().map(|row| row.run.started);
    let begun = runs.chain(facts.backups.iter().map(|row| row.started)).collect();
    missed(&facts.scheduled_backups, begun, facts, window)
}

/// The places in `scheduled_drills` of those at which none began.
pub(super) fn missed_drills(facts: &JobFacts, window: Window) -> Vec<usize> {
    missed(&facts.scheduled_drills, facts.drills.iter().map(|row| row.drill.started).collect(), facts, window)
}

/// Scheduled moments with nothing begun between them and the next. The last scheduled moment's time is not over, and what
/// lies before the job was known is not held against it; where nothing at all is known of it, everything is.
fn missed(slots: &[DateTime<Utc>], mut begun: Vec<DateTime<Utc>>, facts: &JobFacts, window: Window) -> Vec<usize> {
    begun.sort_unstable();
    let since = facts.known_since().unwrap_or(window.start);
    let is_missed = |from: DateTime<Utc>, until: DateTime<Utc>| {
        let first = begun.partition_point(|begun| *begun < from);
        from >= since && window.covers(from) && begun.get(first).is_none_or(|begun| *begun >= until)
    };
    let pairs = slots.windows(2).enumerate();
    pairs.filter(|(_, pair)| is_missed(pair[0], pair[1])).map(|(place, _)| place).collect()
}

/// The first of each row of places that follow one another, and how many there are in the row.
fn in_rows(slots: &[DateTime<Utc>], places: &[usize]) -> Vec<(DateTime<Utc>, usize)> {
    let rows = places.chunk_by(|place, next| place + 1 == *next);
    rows.filter_map(|row| Some((*slots.get(*row.first()?)?, row.len()))).collect()
}

fn missed_sentence(what: &str, count: usize) -> String {
    match count {
        1 => format!("no {what} began between this scheduled time and the next"),
        count => format!("{count} scheduled times in a row, from this one on, passed without a {what}"),
    }
}

/// What a reader must not conclude.
pub(super) fn not_claimed(facts: &JobFacts, measured: &Measured, drills: &[&DrillRow], window: Window) -> Vec<String> {
    let mut list = Vec::new();
    let mut say = |condition: bool, sentence: &str| {
        if condition {
            list.push(sentence.to_owned());
        }
    };
    say(facts.known_since().is_none(), "Nothing is known of this job: no figure here says anything about it.");
    say(
        facts.promise.schedule.is_none(),
        "There is no schedule, so backups that should have been taken cannot be named.",
    );
    say(
        matches!(facts.witness, Witness::Silent(_)),
        "The vault could not be read when this was made: nothing here says that the backups are still there.",
    );
    say(facts.promise.objectives.rpo.is_none(), "There is no RPO objective: the exposure is measured, not judged.");
    say(
        facts.promise.objectives.rto.is_none(),
        "There is no RTO objective: the time of a restore is measured, not judged.",
    );
    say(drills.is_empty(), "No restore was rehearsed in the window: nothing is said about how long one takes.");
    say(
        // Of one that was killed nobody knows, and it measured nothing.
        drills.iter().any(|row| row.drill.outcome == DrillOutcome::Passed && !row.drill.environment.cold_cache),
        "At least one drill ran on a warm cache: after a disaster a restore would be slower.",
    );
    say(
        drills.iter().any(|row| row.drill.environment.confinement == "trusted-source"),
        "At least one drill ran checks with its own user's rights, because the config trusts the source.",
    );
    say(
        drills
            .iter()
            .flat_map(|row| &row.drill.environment.servers)
            .any(|server| server.ground == DrillGround::Existing),
        "At least one drill restored a database on a server that was there: what the backup holds ran there, held by the drill's \
         role alone, and owners, rights, roles and policies were not restored.",
    );
    let (erases, measured_erasure) = (facts.promise.delete_after.is_some(), &measured.erasure);
    say(
        erases && measured_erasure.proven_gone == 0,
        "Nothing was proven gone in the window: no prune that came through followed a removal.",
    );
    say(
        measured_erasure.removed + measured_erasure.proven_gone > 0,
        "Ages at removal are by the clock of the host that pruned; that bytes are gone is what its record says, which it \
         reckons by the store's clock.",
    );
    say(
        erases,
        "Erased means gone from the vault: what the store keeps behind it (snapshots, versions, copies of the disk) and \
         what somebody copied from it are not known here.",
    );
    say(
        facts.identity == OwnIdentity::Present,
        "The host that takes the backups can open them: whoever takes it over can read them.",
    );
    let came_through = |row: &&CheckRow| window.covers(row.body.finished) && row.body.outcome != CheckOutcome::Failed;
    say(
        facts.checks.iter().find(came_through).is_none(),
        "No check is on record that came to its end in the window: nothing is said about whether what is stored is still what it was.",
    );
    say(true, "Backups that no drill restored are known to be stored, not to be restorable.");
    say(true, "People's time (noticing, deciding, switching over) is in no figure.");
    say(
        true,
        "Promises are those of the config when the report was made; what it said before is in each drill's record only.",
    );
    say(
        true,
        "The figures were read from this host's catalog and held against the vault's signed manifests; `lifeboat check` \
         verifies what these name.",
    );
    if measured.rpo.window.start > window.start {
        list.insert(
            0,
            format!(
                "The job was first seen at {}: nothing is said about the time before.",
                measured.rpo.window.start.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ),
        );
    }
    list
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::record::QuarantineRecord;
    use crate::evidence::report::report;
    use crate::evidence::samples::*;

    fn window() -> Window {
        Window::before(now(), hours(48))
    }

    fn found(facts: &JobFacts) -> Vec<Deviation> {
        report(std::slice::from_ref(facts), window(), now(), "lifeboat 0.1.0").jobs.remove(0).deviations
    }

    fn kinds(facts: &JobFacts) -> Vec<DeviationKind> {
        found(facts).iter().map(|deviation| deviation.kind).collect()
    }

    #[test]
    fn each_deviation_is_named() {
        use DeviationKind::*;
        let mut facts = troubled();
        assert_eq!(
            kinds(&facts),
            [FailedRun, MissedBackup, SequenceGap, RpoExceeded, RtoExceeded, FailedDrill, RefutedBackup]
        );
        facts = healthy();
        facts.backups[8].summary.completeness = Completeness::Partial;
        facts.promise.delete_after = Some(hours(40));
        // The deadlines of five backups lie in the window and are over.
        assert_eq!(kinds(&facts).iter().filter(|kind| **kind == NotErased).count(), 5);
        assert!(kinds(&facts).contains(&PartialBackup));
        facts.backups.iter_mut().for_each(|row| row.retained_until = Some(row.recovery_point + TimeDelta::hours(39)));
        assert!(!kinds(&facts).contains(&NotErased));
        facts.scheduled_drills = vec![before_now(hours(30)), before_now(hours(20)), before_now(hours(1))];
        let missed = found(&facts);
        let missed: Vec<_> = missed.iter().filter(|deviation| deviation.kind == MissedDrill).collect();
        assert_eq!(missed.len(), 1, "one row of two");
        assert!(missed[0].at == before_now(hours(30)) && missed[0].what.starts_with("2 scheduled times"));
    }

    #[test]
    fn keeping_and_erasing_deviate_by_name() {
        use DeviationKind::*;
        let mut facts = erasing();
        assert_eq!(kinds(&facts), []);
        // Removed in time, and nothing shows that its bytes went.
        facts.promise.delete_after = Some(hours(54));
        let late = found(&facts);
        assert_eq!(late.iter().map(|deviation| deviation.kind).collect::<Vec<_>>(), [NotErased, NotErased]);
        assert!(late.iter().all(|deviation| deviation.what.contains("its bytes were not proven gone")), "{late:?}");
        facts.promise.delete_after = Some(hours(72));
        facts.promise.keep_at_least = Some(hours(50));
        assert_eq!(kinds(&facts), [RemovedEarly; 3], "a minute early, as the commit came a minute late");
        facts.promise.keep_at_least = Some(hours(24));

        facts.refutations.push(refutation(91, before_now(hours(4)), &facts.backups[7].id.clone(), 2));
        facts.prunes.push(prune(92, before_now(hours(3)), PruneOutcome::Stopped, None));
        let quarantine = QuarantineRecord { backup: None, gone: vec![SequenceRange { first: 9, last: 9 }] };
        facts.quarantines.push(record(93, before_now(hours(2)), quarantine));
        assert_eq!(kinds(&facts), [RefutedBackup, FailedPrune, Quarantine]);
        assert!(found(&facts)[0].what.ends_with("is no good (object-damaged): 2 objects are missing or damaged"));
        // The ninth is known to be missing, the tenth is not.
        facts.backups.remove(8);
        assert_eq!(kinds(&facts), [RefutedBackup, FailedPrune, Quarantine]);
        facts.backups.remove(8);
        facts.promise.objectives.rpo = None;
        assert_eq!(kinds(&facts), [SequenceGap, RefutedBackup, FailedPrune, Quarantine]);
    }

    #[test]
    fn silence_is_a_deviation_too() {
        let mut facts = healthy();
        facts.scheduled_backups = (0..8).rev().map(|n| before_now(hours(3 + 6 * n))).collect();
        facts.backups.clear();
        facts.runs.clear();
        facts.drills.clear();
        assert_eq!(kinds(&facts), [DeviationKind::MissedBackup, DeviationKind::RpoExceeded]);
    }
}
