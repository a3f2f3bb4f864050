//! The last thirty days of a job, a day at a time: what was done, what failed, what never began. Drawn from records of runs, so
//! that a backup which was pruned since is not a missed one.
//!
//! A scheduled time is held against the schedule as it is now: what the config said before is not known here.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;

use super::deviations::{missed_backups, missed_drills};
use super::facts::JobFacts;
use crate::domain::manifest::Completeness;
use crate::domain::objectives::Window;
use crate::domain::record::{DrillOutcome, RunOutcome};

/// Days of a strip, today among them.
pub const DAYS: u64 = 30;

/// A day on the config's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// Which.
    pub date: NaiveDate,
    /// Whether the job was known by its end.
    pub is_known: bool,
    /// Backups that were begun on it, by how they ended.
    pub backups: Counts,
    /// Drills that were begun on it.
    pub drills: Counts,
}

/// What was begun on a day, and what was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Complete backups, drills that passed.
    pub well: usize,
    /// Partial backups.
    pub partial: usize,
    /// What failed.
    pub failed: usize,
    /// Scheduled times at which nothing began.
    pub missed: usize,
}

/// A day in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DayKind {
    /// The job was not known yet.
    Unknown,
    /// Nothing was done, and nothing had to be.
    Quiet,
    /// Everything went well.
    Well,
    /// Something went well, and something did not.
    Mixed,
    /// Nothing began that should have.
    Missed,
    /// Nothing went well.
    Failed,
}

impl Counts {
    /// Those of a day in a word, where the job was known.
    #[must_use]
    pub fn kind(self) -> DayKind {
        match (self.well, self.partial + self.failed, self.missed) {
            (0, 0, 0) => DayKind::Quiet,
            (_, 0, 0) => DayKind::Well,
            (0, 0, _) => DayKind::Missed,
            (0, _, _) => DayKind::Failed,
            (_, _, _) => DayKind::Mixed,
        }
    }
}

impl Day {
    /// Its backups in a word.
    #[must_use]
    pub fn kind(&self) -> DayKind {
        if self.is_known { self.backups.kind() } else { DayKind::Unknown }
    }
}

/// What a strip needs to be told the scheduled moments of: a day more than it shows, because zones differ from UTC.
#[must_use]
pub fn window(now: DateTime<Utc>) -> Window {
    Window::before(now, Duration::from_secs((DAYS + 1) * 24 * 60 * 60))
}

/// The last [`DAYS`] days on a zone's clock, today last. `facts` have the scheduled moments of [`window`].
#[must_use]
pub fn strip(facts: &JobFacts, zone: Tz, now: DateTime<Utc>) -> Vec<Day> {
    let date = |moment: DateTime<Utc>| moment.with_timezone(&zone).date_naive();
    let today = date(now);
    let known_since = facts.known_since().map(date);
    let dates = (0..DAYS).rev().filter_map(|ago| today.checked_sub_days(Days::new(ago)));
    let mut days: BTreeMap<NaiveDate, Day> = dates
        .map(|date| {
            let is_known = known_since.is_some_and(|since| since <= date);
            (date, Day { date, is_known, backups: Counts::default(), drills: Counts::default() })
        })
        .collect();
    let mut on = |moment: DateTime<Utc>, count: &dyn Fn(&mut Day)| {
        if let Some(day) = days.get_mut(&date(moment)) {
            count(day);
        }
    };
    for row in &facts.runs {
        on(row.run.started, &|day| match row.run.outcome {
            RunOutcome::Success => day.backups.well += 1,
            RunOutcome::Partial => day.backups.partial += 1,
            RunOutcome::Failed => day.backups.failed += 1,
        });
    }
    // A run that was killed after its commit left no record of itself.
    let recorded: std::collections::HashSet<_> = facts.runs.iter().filter_map(|row| row.run.backup.as_ref()).collect();
    for row in facts.backups.iter().filter(|row| !recorded.contains(&row.id)) {
        on(row.started, &|day| match row.completeness {
            Completeness::Complete => day.backups.well += 1,
            Completeness::Partial => day.backups.partial += 1,
        });
    }
    for row in &facts.drills {
        on(row.drill.started, &|day| match row.drill.outcome {
            DrillOutcome::Passed => day.drills.well += 1,
            DrillOutcome::Failed => day.drills.failed += 1,
        });
    }
    let window = window(now);
    for slot in missed_backups(facts, window).into_iter().filter_map(|place| facts.scheduled_backups.get(place)) {
        on(*slot, &|day| day.backups.missed += 1);
    }
    for slot in missed_drills(facts, window).into_iter().filter_map(|place| facts.scheduled_drills.get(place)) {
        on(*slot, &|day| day.drills.missed += 1);
    }
    days.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::RemovalReason;
    use crate::evidence::samples::*;

    fn kinds(facts: &JobFacts) -> Vec<DayKind> {
        strip(facts, Tz::Europe__Moscow, now()).iter().map(Day::kind).collect()
    }

    /// The sample, told when its backups were due: 0, 6, 12 and 18 o'clock in Moscow.
    fn scheduled() -> JobFacts {
        let mut facts = healthy();
        facts.scheduled_backups = (0..120).rev().map(|number| before_now(hours(3 + 6 * number))).collect();
        facts
    }

    #[test]
    fn a_day_is_one_of_the_zones_and_what_was_not_known_is_not_missed() {
        let days = strip(&scheduled(), Tz::Europe__Moscow, now());
        assert_eq!(days.len(), 30);
        assert_eq!(days[29].date, "2026-11-22".parse().unwrap());
        // The first was taken on the 19th at 18 o'clock in Moscow, the third at midnight of the 20th.
        let well: Vec<usize> = days[26..].iter().map(|day| day.backups.well).collect();
        assert_eq!(well, [1, 4, 4, 3]);
        assert!(days[..26].iter().all(|day| day.kind() == DayKind::Unknown));
        assert!(days[26..].iter().all(|day| day.kind() == DayKind::Well), "{days:?}");
        assert_eq!(days[27].drills.well, 1);
    }

    #[test]
    fn a_pruned_backup_is_not_a_missed_one() {
        let mut facts = scheduled();
        for row in &mut facts.backups[..8] {
            row.retained_until = Some(before_now(hours(1)));
            row.removal = Some(RemovalReason::Expired);
        }
        assert_eq!(kinds(&facts), kinds(&scheduled()));
        // Nor is one whose run left no record, nor one of which the record alone is left.
        facts.runs.drain(4..6);
        facts.backups.drain(6..8);
        assert_eq!(kinds(&facts), kinds(&scheduled()));
    }

    #[test]
    fn each_day_has_its_word() {
        let mut facts = scheduled();
        // The 20th lost its run of 6 o'clock, the 21st everything.
        facts.backups.drain(2..3);
        facts.runs.drain(2..3);
        assert_eq!(kinds(&facts)[27..], [DayKind::Mixed, DayKind::Well, DayKind::Well]);
        facts.backups.drain(4..8);
        facts.runs.drain(4..8);
        assert_eq!(kinds(&facts)[27..], [DayKind::Mixed, DayKind::Missed, DayKind::Well]);
        facts.runs.push(failed_run(before_now(hours(27))));
        assert_eq!(kinds(&facts)[27..], [DayKind::Mixed, DayKind::Failed, DayKind::Well]);
        facts.scheduled_backups.clear();
        facts.runs.pop();
        assert_eq!(kinds(&facts)[27..], [DayKind::Well, DayKind::Quiet, DayKind::Well]);
        let nothing = JobFacts { backups: vec![], runs: vec![], drills: vec![], ..scheduled() };
        assert!(kinds(&nothing).iter().all(|kind| *kind == DayKind::Unknown));
    }
}
