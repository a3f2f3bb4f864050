//! A schedule as systemd's OnCalendar lines.
//!
//! The lines name the config's zone, so that a timer keeps to the wall clock as the config does, whatever the zone of the
//! host and whatever a government decides next year. Two things systemd does otherwise, measured with 252: a time that a
//! gap swallows is left out, and of the two passes of a fold only the first runs. Such moments get lines of their own, in
//! UTC, for the years that can be foreseen; behind those years a timer leaves one run out on such a day. A schedule of
//! every hour is said in UTC, which has neither gaps nor folds.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::domain::schedule::{Fields, Schedule, clock_changes, offset_seconds};

/// Clock changes are foreseen so far.
const FORESEEN_DAYS: i64 = 10 * 366;
/// No gap or fold reaches further from the moment of its change.
const AROUND_A_CHANGE: TimeDelta = TimeDelta::hours(26);
/// Lines of their own, at most: a schedule with more of them in the foreseen years has some of every year.
const MAX_EXTRA_LINES: usize = 200;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The values of the OnCalendar lines that together fire when the schedule does.
#[must_use]
pub fn on_calendar(schedule: &Schedule, zone: Tz, now: DateTime<Utc>) -> Vec<String> {
    let changes = clock_changes(zone, now, now + TimeDelta::days(FORESEEN_DAYS));
    if let Some(line) = every_hour(schedule, zone, now, &changes) {
        return vec![line];
    }
    let mut lines: Vec<String> = schedule.calendars().iter().map(|fields| line(fields, zone.name())).collect();
    let mut extra = BTreeSet::new();
    for change in &changes {
        let mut run = *change - AROUND_A_CHANGE;
        while let Some(next) = schedule.next_after(run, zone).filter(|next| *next <= *change + AROUND_A_CHANGE) {
            if next > now && !schedule.fires_plainly(next, zone) {
                extra.insert(next);
            }
            run = next;
        }
    }
    lines.extend(extra.iter().take(MAX_EXTRA_LINES).map(|run| run.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    lines
}

/// Every hour of every day at the same minutes, in a zone that changes by whole hours: as well said in UTC.
fn every_hour(schedule: &Schedule, zone: Tz, now: DateTime<Utc>, changes: &[DateTime<Utc>]) -> Option<String> {
    let [fields] = schedule.calendars() else { return None };
    let part = |moment: DateTime<Utc>| offset_seconds(moment, zone).rem_euclid(3600);
    let same = changes.iter().all(|change| part(*change) == part(now)) && part(now) % 60 == 0;
    let every =
        fields.hours.len() == 24 && fields.days.len() == 31 && fields.months.len() == 12 && fields.weekdays.len() == 7;
    if !every || !same {
        return None;
    }
    let shift = u32::try_from(part(now) / 60).unwrap_or_default();
    let minutes = fields.minutes.iter().map(|minute| (minute + 60 - shift) % 60).collect();
    Some(line(&Fields { minutes, ..fields.clone() }, "UTC"))
}

fn line(fields: &Fields, zone: &str) -> String {
    let weekdays = match fields.weekdays.len() {
        7 => String::new(),
        _ => {
            let names: Vec<&str> = fields.weekdays.iter().map(|weekday| WEEKDAYS[*weekday as usize % 7]).collect();
            format!("{} ", names.join(","))
        }
    };
    let months = values(&fields.months, 12);
    let days = values(&fields.days, 31);
    format!("{weekdays}*-{months}-{days} {}:{}:00 {zone}", values(&fields.hours, 24), values(&fields.minutes, 60))
}

/// `*`, or the values.
fn values(values: &BTreeSet<u32>, all: usize) -> String {
    if values.len() == all {
        return "*".to_owned();
    }
    values.iter().map(|value| format!("{value:02}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(schedule: &str, zone: Tz) -> Vec<String> {
        on_calendar(&Schedule::parse(schedule).unwrap(), zone, "2026-11-22T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_the_clocks_leave_alone_is_one_line() {
        for (schedule, zone, expected) in [
            ("15 */6 * * *", Tz::Europe__Berlin, "*-*-* 00,06,12,18:15:00 Europe/Berlin"),
            ("0 5 * * SUN", Tz::Europe__Berlin, "Sun *-*-* 05:00:00 Europe/Berlin"),
            ("30 2 * * *", Tz::Europe__Moscow, "*-*-* 02:30:00 Europe/Moscow"),
            ("0 0 1 1,7 *", Tz::UTC, "*-01,07-01 00:00:00 UTC"),
            ("20 * * * *", Tz::Europe__Berlin, "*-*-* *:20:00 UTC"),
            ("20 * * * *", Tz::Asia__Kolkata, "*-*-* *:50:00 UTC"),
        ] {
            assert_eq!(lines(schedule, zone), [expected], "{schedule}");
        }
    }

    #[test]
    fn either_day_is_two_lines() {
        assert_eq!(lines("0 0 25 * MON", Tz::UTC), ["*-*-25 00:00:00 UTC", "Mon *-*-* 00:00:00 UTC"]);
    }

    #[test]
    fn what_a_gap_swallows_or_a_fold_repeats_has_lines_of_its_own() {
        let lines = lines("30 2 * * *", Tz::Europe__Berlin);
        assert_eq!(lines[..2], ["*-*-* 02:30:00 Europe/Berlin", "2027-03-28 01:00:00 UTC"]);
        assert_eq!(lines.len(), 11);
        let lines = super::on_calendar(
            &Schedule::parse("30 */2 * * *").unwrap(),
            Tz::Europe__Berlin,
            "2026-11-22T00:00:00Z".parse().unwrap(),
        );
        assert_eq!(lines[1], "2027-10-31 01:30:00 UTC");
    }
}
