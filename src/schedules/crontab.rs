//! Crontab lines, for the clock that a host's cron reads.
//!
//! A cron reads the host's clock; some (cronie, systemd-cron) read the one that CRON_TZ names, Debian's and busybox's do
//! not. So a schedule is written as it stands where the host's clock is the config's, is shifted where the two clocks are
//! always equally far apart, and is left out, with the reason, where no line would be right all year.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::{Call, Due};
use crate::config::Settings;
use crate::domain::operation::Operation;
use crate::domain::schedule::{Fields, HourField, Schedule, clock_changes, offset_seconds};

/// Clock changes are foreseen so far.
const FORESEEN_DAYS: i64 = 10 * 366;
const DAY_MINUTES: i64 = 24 * 60;

/// Which clock the lines are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The config's own, by CRON_TZ: for a cron that knows it.
    CronTz,
    /// This zone's, which is the host's.
    Host(Tz),
}

/// A crontab.
#[derive(Debug)]
pub struct Crontab {
    /// The file.
    pub text: String,
    /// What could not be written, in sentences; it stands in the file as well.
    pub left_out: Vec<String>,
}

/// Why there is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotALine {
    /// The clocks differ now by this, then by that.
    #[error("{config} and {host} are not equally far apart all year, and crontab has one line for all of it")]
    Drifts {
        /// The config's zone.
        config: Tz,
        /// The host's.
        host: Tz,
    },
    /// The days of a month are others on the host's clock.
    #[error("on {host}'s clock it falls on another day, and crontab cannot say the day after the last of a month")]
    Days {
        /// The host's zone.
        host: Tz,
    },
    /// A `*` hour, shifted, is none any more.
    #[error(
        "on {host}'s clock its hours are named one by one, and cron would run them otherwise on the days when clocks change"
    )]
    Hours {
        /// The host's zone.
        host: Tz,
    },
}

/// Writes a file for /etc/cron.d.
#[must_use]
pub fn crontab(settings: &Settings, due: &[Due<'_>], clock: Clock, call: &Call) -> Crontab {
    let zone = settings.timezone;
    let mut text = format!(
        "# /etc/cron.d/lifeboat: silent while all is well, mail when it is not. Made by `lifeboat schedule cron` from\n\
         # {}: make it anew when a schedule there changes.\n",
        settings.file.display()
    );
    match clock {
        Clock::CronTz => {
            let _ = writeln!(
                text,
                "# The times are {zone}'s. A cron that does not know CRON_TZ (Debian's, busybox's) reads them on the host's clock:"
            );
            let _ = writeln!(text, "# then `lifeboat schedule cron --clock ZONE` with the host's zone.\nMAILTO=root");
            let _ = writeln!(text, "CRON_TZ={zone}");
        }
        Clock::Host(host) if host == zone => {
            let _ = writeln!(text, "# The times are {zone}'s, and so must be the clock of the host.\nMAILTO=root");
        }
        Clock::Host(host) => {
            let _ = writeln!(
                text,
                "# The schedules are {zone}'s, the times here {host}'s, which must be the clock of the host.\nMAILTO=root"
            );
        }
    }
    text.push_str("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    let (credentials, variables) = super::handed_in(settings, &Operation::ALL);
    for name in credentials {
        let _ = writeln!(
            text,
            "# The credential {name} is systemd's to give: cron has none. Put it into a file, or use `lifeboat schedule systemd`."
        );
    }
    for name in variables {
        let _ = writeln!(text, "# The variable {name} must be set here.");
    }
    let mut left_out = Vec::new();
    for Due { task, schedule } in due {
        let written = match clock {
            Clock::CronTz => Ok(vec![plain(schedule)]),
            Clock::Host(host) => lines(schedule, zone, host, call.now),
        };
        match written {
            Ok(lines) => {
                for times in lines {
                    let _ = writeln!(
                        text,
                        "{times} root {} {} {} --quiet --config {}",
                        word(&call.program),
                        task.operation,
                        task.job,
                        word(&settings.file.display().to_string())
                    );
                }
            }
            Err(cause) => {
                let what = format!("{} of {} ({schedule}) is not here: {cause}", task.operation, task.job);
                let _ = writeln!(text, "# {what}");
                left_out.push(what);
            }
        }
    }
    Crontab { text, left_out }
}

/// As a shell takes it behind cron, which makes a line end of `%`.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c);
    let quoted = if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) };
    quoted.replace('%', r"\%")
}

/// The five fields. Vixie's cron takes a minute that begins with `*` for a schedule that clock changes may swallow: behind
/// a fixed hour the minutes are named.
fn plain(schedule: &Schedule) -> String {
    let [minute, hour, day, month, weekday] = schedule.five_fields();
    let minutes = match (schedule.hour(), minute.starts_with('*')) {
        (HourField::Fixed, true) => schedule.calendars().first().map(|fields| listed(&fields.minutes)),
        _ => None,
    };
    format!("{} {hour} {day} {month} {weekday}", minutes.as_deref().unwrap_or(minute))
}

/// The five fields of the lines that fire on another clock when the schedule does on its own.
///
/// # Errors
/// [`NotALine`].
pub fn lines(schedule: &Schedule, config: Tz, host: Tz, now: DateTime<Utc>) -> Result<Vec<String>, NotALine> {
    let until = now + TimeDelta::days(FORESEEN_DAYS);
    let mut changes = clock_changes(config, now, until);
    changes.extend(clock_changes(host, now, until));
    let ahead = |moment| offset_seconds(moment, host) - offset_seconds(moment, config);
    let shift = ahead(now);
    if changes.iter().any(|change| ahead(*change) != shift) || shift % 60 != 0 {
        return Err(NotALine::Drifts { config, host });
    }
    if shift == 0 {
        return Ok(vec![plain(schedule)]);
    }
    let Some(fields) = schedule.calendars().first() else { return Ok(Vec::new()) };
    let [minute, _, day, month, weekday] = schedule.five_fields();
    let mut times: BTreeMap<(i64, i64), BTreeSet<u32>> = BTreeMap::new();
    for hour in &fields.hours {
        for minute in &fields.minutes {
            let shifted = i64::from(hour * 60 + minute) + i64::from(shift / 60);
            let (days, of_day) = (shifted.div_euclid(DAY_MINUTES), shifted.rem_euclid(DAY_MINUTES));
            times.entry((days, of_day / 60)).or_default().insert(u32::try_from(of_day % 60).unwrap_or_default());
        }
    }
    if fields.hours.len() == 24 && is_every_day(schedule) {
        let minutes = times.into_values().flatten().collect::<BTreeSet<u32>>();
        let minutes = if minutes.len() == 60 { minute.to_owned() } else { listed(&minutes) };
        return Ok(vec![format!("{minutes} * * * *")]);
    }
    if schedule.hour() == HourField::Star && !changes.is_empty() {
        return Err(NotALine::Hours { host });
    }
    let mut hours: BTreeMap<(i64, BTreeSet<u32>), BTreeSet<u32>> = BTreeMap::new();
    for ((days, hour), minutes) in times {
        hours.entry((days, minutes)).or_default().insert(u32::try_from(hour).unwrap_or_default());
    }
    let mut lines = Vec::new();
    for ((days, minutes), hours) in hours {
        let weekday = match days {
            0 => weekday.to_owned(),
            days if day == "*" && month == "*" => shifted_weekdays(weekday, fields, days),
            _ => return Err(NotALine::Days { host }),
        };
        lines.push(format!("{} {} {day} {month} {weekday}", listed(&minutes), listed(&hours)));
    }
    Ok(lines)
}

fn is_every_day(schedule: &Schedule) -> bool {
    let whole = |fields: &Fields| fields.days.len() == 31 && fields.months.len() == 12 && fields.weekdays.len() == 7;
    schedule.calendars().iter().any(whole)
}

fn shifted_weekdays(text: &str, fields: &Fields, days: i64) -> String {
    if fields.weekdays.len() == 7 {
        return text.to_owned();
    }
    let shifted = fields.weekdays.iter().map(|weekday| (i64::from(*weekday) + days).rem_euclid(7));
    listed(&shifted.filter_map(|weekday| u32::try_from(weekday).ok()).collect())
}

fn listed(values: &BTreeSet<u32>) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    fn shifted(schedule: &str, config: Tz, host: Tz) -> Result<Vec<String>, NotALine> {
        lines(&Schedule::parse(schedule).unwrap(), config, host, now())
    }

    #[test]
    fn a_schedule_is_written_as_it_stands() {
        for (schedule, expected) in [
            ("15 */6 * * *", "15 */6 * * *"),
            ("@daily", "0 0 * * *"),
            ("*/15 2 * * *", "0,15,30,45 2 * * *"),
            ("*/15 * * * MON", "*/15 * * * MON"),
        ] {
            assert_eq!(shifted(schedule, Tz::Europe__Berlin, Tz::Europe__Paris).unwrap(), [expected]);
        }
    }

    #[test]
    fn clocks_that_stay_apart_shift_it() {
        for (schedule, config, host, expected) in [
            ("30 5 * * *", Tz::Europe__Moscow, Tz::UTC, vec!["30 2 * * *"]),
            ("15 */6 * * *", Tz::Europe__Moscow, Tz::UTC, vec!["15 21 * * *", "15 3,9,15 * * *"]),
            ("0 2 * * MON", Tz::Europe__Moscow, Tz::UTC, vec!["0 23 * * 0"]),
            ("0 2 * * MON", Tz::Europe__Berlin, Tz::Europe__London, vec!["0 1 * * MON"]),
            ("0,40 * * * *", Tz::Asia__Kolkata, Tz::UTC, vec!["10,30 * * * *"]),
            ("*/5 * * * *", Tz::Europe__Berlin, Tz::Europe__London, vec!["0,5,10,15,20,25,30,35,40,45,50,55 * * * *"]),
        ] {
            assert_eq!(shifted(schedule, config, host).unwrap(), expected, "{schedule}");
        }
    }

    #[test]
    fn what_no_line_can_say_is_not_written() {
        assert!(matches!(shifted("30 2 * * *", Tz::Europe__Berlin, Tz::UTC), Err(NotALine::Drifts { .. })));
        assert!(matches!(shifted("0 2 1 * *", Tz::Europe__Moscow, Tz::UTC), Err(NotALine::Days { .. })));
        assert!(matches!(shifted("0 */6 * * *", Tz::Europe__Berlin, Tz::Europe__London), Err(NotALine::Hours { .. })));
    }

    /// Every line, read on the host's clock by the rules of cron, fires exactly when the schedule does.
    #[test]
    fn a_year_of_both_is_the_same() {
        let zones =
            [Tz::UTC, Tz::Europe__Moscow, Tz::Europe__Berlin, Tz::Europe__London, Tz::Asia__Kolkata, Tz::Asia__Tokyo];
        for text in
            ["30 5 * * *", "15 */6 * * *", "10 23,0 * * 1-5", "0 12 1 * *", "*/20 2 * * *", "5 * * * *", "0 0 25 * MON"]
        {
            let schedule = Schedule::parse(text).unwrap();
            for (config, host) in zones.iter().flat_map(|a| zones.iter().map(move |b| (*a, *b))) {
                let Ok(lines) = lines(&schedule, config, host, now()) else { continue };
                let lines: Vec<Schedule> = lines.iter().map(|line| Schedule::parse(line).unwrap()).collect();
                let mut run = now();
                for _ in 0..500 {
                    let next = schedule.next_after(run, config).unwrap();
                    let theirs: Vec<_> = lines.iter().filter_map(|line| line.next_after(run, host)).collect();
                    assert_eq!(theirs.iter().min(), Some(&next), "{text} of {config} on {host}");
                    assert_eq!(theirs.iter().filter(|found| **found == next).count(), 1, "{text}: two lines at once");
                    run = next;
                }
            }
        }
    }
}
