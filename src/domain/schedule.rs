//! When a job runs: five fields as in crontab(5), read on the wall clock of a zone.
//!
//! Three layers. [`Schedule::parse`] checks the fields and expands them to plain lists, because people write crontab's
//! fields and the `cron` crate reads Quartz's (seconds first, Sunday is 1, day and weekday are AND-ed). `cron` then
//! walks the bare calendar, without a zone. What a wall time means as a moment is decided here, because `cron` leaves
//! out a run that falls into a gap and repeats one that falls into a fold:
//!
//! - *gap* (clocks go forward): a fixed hour runs at the first moment after the gap, once; a `*` hour goes on as the
//!   clock shows.
//! - *fold* (clocks go back): a fixed hour runs once, the first time; a `*` hour runs every time.
//!
//! *Fixed* is an hour field that does not begin with `*`. Vixie's cron also takes a minute field that begins with `*`
//! for a `*` schedule, and so leaves out `*/15 2 * * *` altogether on the day when 02:00 to 03:00 does not exist; a
//! backup is not left out here.
//!
//! It does not know what runs, nor what happens to runs that were missed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Offset, SubsecRound, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use self::field::{DAY, HOUR, MINUTE, MONTH, WEEKDAY};
use crate::error::{Code, Diagnostic};

mod field;
#[cfg(test)]
mod tests;

/// No gap or fold of any zone has more wall-clock minutes than this (the date line was crossed in a day).
const MAX_SHIFT_RUNS: usize = 26 * 60;
/// [`Schedule::largest_gap`] looks at least this far.
const GAP_WINDOW_DAYS: i64 = 4 * 366 + 1;
/// And takes at most this many steps: two for each ordinary day, one for each minute of the days when clocks change.
const MAX_GAP_STEPS: usize = 200_000;

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Five fields are needed.
    #[error("{text:?} has {count} fields; a schedule has five: minute, hour, day of month, month, weekday")]
    FieldCount {
        /// What was given.
        text: String,
        /// Its fields.
        count: usize,
    },
    /// A field cannot be read.
    #[error("{text:?}: the {field} field {item:?} {what}")]
    Field {
        /// What was given.
        text: String,
        /// `minute`, `hour`, ...
        field: &'static str,
        /// The part of the field that is wrong.
        item: String,
        /// What is wrong with it.
        what: String,
    },
    /// An `@` word that is none of crontab's, or names no time.
    #[error("{text:?} is not a schedule; the words are @hourly, @daily, @weekly, @monthly and @yearly")]
    Macro {
        /// What was given.
        text: String,
    },
    /// No day of any year fits.
    #[error("{text:?} never fires: no month that it names has such a day")]
    NeverFires {
        /// What was given.
        text: String,
    },
}

impl Diagnostic for ScheduleError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::FieldCount { count: 6 | 7, .. } => {
                Some("there is no field for seconds or years here: leave it out".to_owned())
            }
            Self::FieldCount { .. } | Self::Macro { .. } => {
                Some("every day at half past two is \"30 2 * * *\", every six hours \"0 */6 * * *\"".to_owned())
            }
            Self::NeverFires { .. } => {
                Some("the last day of each month cannot be said in cron; \"0 0 1 * *\" is the first".to_owned())
            }
            Self::Field { .. } => None,
        }
    }
}

/// A schedule that fires. Displays as it was written.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    /// One calendar, or two whose days are joined: crontab fires when the day of month *or* the weekday fits, where
    /// both are restricted.
    calendars: Vec<cron::Schedule>,
    fields: Vec<Fields>,
    hour: HourField,
    /// First and last minute of a day on which it fires, and the longest stretch between two runs of that day.
    day: DayShape,
}

/// Whether clocks may move a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HourField {
    /// The hours are named.
    Fixed,
    /// The field begins with `*`.
    Star,
}

/// One calendar, spelt out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: BTreeSet<u32>,
    /// 0 to 23.
    pub hours: BTreeSet<u32>,
    /// 1 to 31.
    pub days: BTreeSet<u32>,
    /// 1 to 12.
    pub months: BTreeSet<u32>,
    /// 0 (Sunday) to 6.
    pub weekdays: BTreeSet<u32>,
}

#[derive(Debug, Clone, Copy)]
struct DayShape {
    first_minute: i64,
    last_minute: i64,
    widest: Option<(i64, i64)>,
}

/// The longest time that lies between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargestGap {
    /// How long.
    pub gap: Duration,
    /// The run before it.
    pub from: DateTime<Utc>,
    /// The run after it.
    pub until: DateTime<Utc>,
    /// Whether clocks change in between.
    pub clocks: ClockChange,
}

/// What clocks do between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockChange {
    /// Nothing.
    None,
    /// They go forward: less time passes than they show.
    Forward,
    /// They go back: more time passes than they show.
    Back,
}

impl fmt::Display for ClockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no clock change",
            Self::Forward => "the spring clock change",
            Self::Back => "the autumn clock change",
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// Reads five fields or an `@` word.
    ///
    /// # Errors
    /// [`ScheduleError`], also where no day would ever fit.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let expanded = expand_macro(text)?;
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(ScheduleError::FieldCount { text: text.to_owned(), count: fields.len() });
        };
        let minutes = MINUTE.values(text, minute)?;
        let hours = HOUR.values(text, hour)?;
        let days = DAY.values(text, day)?;
        let months = MONTH.values(text, month)?;
        // Sunday is 0 and 7 in crontab and 1 in `cron`.
        let weekdays: BTreeSet<u32> = WEEKDAY.values(text, weekday)?.into_iter().map(|w| w % 7 + 1).collect();

        let (every_day, every_weekday) = (BTreeSet::from_iter(1..=31), BTreeSet::from_iter(1..=7));
        let spelt_out = |days: &BTreeSet<u32>, weekdays: &BTreeSet<u32>| Fields {
            minutes: minutes.clone(),
            hours: hours.clone(),
            days: days.clone(),
            months: months.clone(),
            weekdays: weekdays.iter().map(|weekday| weekday - 1).collect(),
        };
        let calendar = |days: Option<&BTreeSet<u32>>, weekdays: Option<&BTreeSet<u32>>| {
            let expression = format!(
                "0 {} {} {} {} {} *",
                list(Some(&minutes)),
                list(Some(&hours)),
                list(days),
                list(Some(&months)),
                list(weekdays)
            );
            expression.parse::<cron::Schedule>().expect("own invariant: lists of numbers in their ranges")
        };
        // crontab(5) AND-s the two day fields as long as one begins with `*`, be it `*/2`.
        let (calendars, spelt_out) = if day.starts_with('*') || weekday.starts_with('*') {
            (vec![calendar(Some(&days), Some(&weekdays))], vec![spelt_out(&days, &weekdays)])
        } else {
            let either = vec![spelt_out(&days, &every_weekday), spelt_out(&every_day, &weekdays)];
            (vec![calendar(Some(&days), None), calendar(None, Some(&weekdays))], either)
        };
        let hour = if hour.starts_with('*') { HourField::Star } else { HourField::Fixed };
        let schedule =
            Self { text: text.to_owned(), calendars, fields: spelt_out, hour, day: DayShape::of(&hours, &minutes) };
        if schedule.next_wall(DateTime::UNIX_EPOCH.naive_utc()).is_none() {
            return Err(ScheduleError::NeverFires { text: text.to_owned() });
        }
        Ok(schedule)
    }

    /// Its fields, spelt out: it fires when any of these calendars does.
    #[must_use]
    pub fn calendars(&self) -> &[Fields] {
        &self.fields
    }

    /// Whether clocks may move a run.
    #[must_use]
    pub fn hour(&self) -> HourField {
        self.hour
    }

    /// The five fields as they were written; of an `@` word, what it stands for.
    #[must_use]
    pub fn five_fields(&self) -> [&str; 5] {
        let mut fields = expand_macro(&self.text).unwrap_or(&self.text).split_whitespace();
        std::array::from_fn(|_| fields.next().unwrap_or("*"))
    }

    /// Whether a clock that shows each wall time once, and leaves out those of a gap, fires at this moment.
    #[must_use]
    pub fn fires_plainly(&self, moment: DateTime<Utc>, zone: Tz) -> bool {
        let wall = moment.with_timezone(&zone).naive_local();
        self.next_wall(wall - TimeDelta::seconds(1)) == Some(wall)
            && zone.from_local_datetime(&wall).earliest().is_some_and(|first| first == moment)
    }

    /// The first run after a moment. `None` beyond the year 2100, where the calendar of `cron` ends.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let after = after.trunc_subsecs(0);
        let wall = after.with_timezone(&zone).naive_local();
        let ahead = self.next_ahead(after, wall, zone);
        // In the first pass of a fold the same wall times come again, and the clock has shown some of them already.
        let again = self.first_of_second_pass(after, wall, zone);
        match (ahead, again) {
            (Some(ahead), Some(again)) => Some(ahead.min(again)),
            (one, other) => one.or(other),
        }
    }

    /// The longest time between two runs of the next four years and a bit, and at least between two runs. `None` where
    /// fewer than two are left before the year 2100.
    #[must_use]
    pub fn largest_gap(&self, zone: Tz, from: DateTime<Utc>) -> Option<LargestGap> {
        let end = from.checked_add_signed(TimeDelta::days(GAP_WINDOW_DAYS)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut run = self.next_after(from, zone)?;
        let mut largest: Option<(DateTime<Utc>, DateTime<Utc>)> = None;
        let mut keep = |from: DateTime<Utc>, until: DateTime<Utc>| {
            if largest.is_none_or(|(a, b)| until - from > b - a) {
                largest = Some((from, until));
            }
            until >= end
        };
        for _ in 0..MAX_GAP_STEPS {
            // A whole day on which no clock changes has the same gaps as any other: one step over it.
            if let Some((last, widest)) = self.over_plain_day(run, zone) {
                if let Some((a, b)) = widest {
                    keep(a, b);
                }
                run = last;
            }
            let Some(next) = self.next_after(run, zone) else { break };
            if keep(run, next) {
                break;
            }
            run = next;
        }
        let (from, until) = largest?;
        Some(LargestGap {
            gap: (until - from).to_std().unwrap_or_default(),
            from,
            until,
            clocks: clock_change(from, until, zone),
        })
    }

    /// The first wall time after `wall` on the bare calendar.
    fn next_wall(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let wall = Utc.from_utc_datetime(&wall);
        self.calendars.iter().filter_map(|calendar| calendar.after(&wall).next()).min().map(|next| next.naive_utc())
    }

    /// The first run among the wall times that the clock has not shown yet (or shows for the second time).
    fn next_ahead(&self, after: DateTime<Utc>, wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
        let mut wall = wall;
        // Wall times without a run of their own (in a gap, or in the second pass of a fold) end with the shift.
        for _ in 0..=MAX_SHIFT_RUNS {
            wall = self.next_wall(wall)?;
            let candidates = match zone.from_local_datetime(&wall) {
                chrono::LocalResult::Single(moment) => [Some(moment.to_utc()), None],
                chrono::LocalResult::Ambiguous(first, second) => match self.hour {
                    HourField::Fixed => [Some(first.to_utc()), None],
                    HourField::Star => [Some(first.to_utc()), Some(second.to_utc())],
                },
                chrono::LocalResult::None => match self.hour {
                    HourField::Fixed => [Some(end_of_gap(wall, zone)), None],
                    HourField::Star => [None, None],
                },
            };
            if let Some(moment) = candidates.into_iter().flatten().find(|moment| *moment > after) {
                return Some(moment);
            }
        }
        None
    }

    /// The first run of a `*` hour in the second pass of a fold whose first pass `after` lies in.
    fn first_of_second_pass(&self, after: DateTime<Utc>, wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
        if self.hour == HourField::Fixed {
            return None;
        }
        let second = zone.from_local_datetime(&wall).latest()?.to_utc();
        if second <= after {
            return None;
        }
        let first_pass_offset = offset_seconds(after, zone);
        let fold = first_moment(after, second, |moment| offset_seconds(moment, zone) != first_pass_offset);
        let fold_wall = fold.with_timezone(&zone).naive_local();
        let next = self.next_wall(fold_wall - TimeDelta::seconds(1))?;
        zone.from_local_datetime(&next).latest().map(|moment| moment.to_utc())
    }

    /// For the first run of a day on which the offset stays: its last run, and the widest gap between.
    #[expect(clippy::type_complexity, reason = "a pair inside a pair, used once")]
    fn over_plain_day(
        &self,
        run: DateTime<Utc>,
        zone: Tz,
    ) -> Option<(DateTime<Utc>, Option<(DateTime<Utc>, DateTime<Utc>)>)> {
        let wall = run.with_timezone(&zone).naive_local();
        let minute = i64::from(wall.num_seconds_from_midnight()) / 60;
        let last = run + TimeDelta::minutes(self.day.last_minute - self.day.first_minute);
        let plain = minute == self.day.first_minute && offset_seconds(run, zone) == offset_seconds(last, zone);
        let at = |minute: i64| run + TimeDelta::minutes(minute - self.day.first_minute);
        plain.then(|| (last, self.day.widest.map(|(a, b)| (at(a), at(b)))))
    }
}

impl DayShape {
    fn of(hours: &BTreeSet<u32>, minutes: &BTreeSet<u32>) -> Self {
        let runs: Vec<i64> =
            hours.iter().flat_map(|hour| minutes.iter().map(move |minute| i64::from(hour * 60 + minute))).collect();
        let widest = runs.windows(2).map(|pair| (pair[0], pair[1])).max_by_key(|(a, b)| b - a);
        Self {
            first_minute: runs.first().copied().unwrap_or_default(),
            last_minute: runs.last().copied().unwrap_or_default(),
            widest,
        }
    }
}

/// The first moment whose wall time is beyond a gap that `wall` lies in.
fn end_of_gap(wall: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    // Offsets lie within a day of UTC, and so do the two sides of the gap.
    let margin = TimeDelta::hours(50);
    let middle = wall.and_utc();
    first_moment(middle - margin, middle + margin, |moment| moment.with_timezone(&zone).naive_local() > wall)
}

/// The first second after `low` for which `holds`, which is false at `low`, true at `high`, and turns once.
fn first_moment(low: DateTime<Utc>, high: DateTime<Utc>, holds: impl Fn(DateTime<Utc>) -> bool) -> DateTime<Utc> {
    let (mut low, mut high) = (low.timestamp(), high.timestamp());
    let moment = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if holds(moment(middle)) { high = middle } else { low = middle }
    }
    moment(high)
}

/// The moments between two others from which on a zone's clocks show something else, in order.
#[must_use]
pub fn clock_changes(zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    // No zone has ever changed its clocks twice in so short a time.
    let step = TimeDelta::hours(12);
    let mut changes = Vec::new();
    let mut low = from;
    while low < until {
        let high = (low + step).min(until);
        let offset = offset_seconds(low, zone);
        if offset_seconds(high, zone) != offset {
            changes.push(first_moment(low, high, |moment| offset_seconds(moment, zone) != offset));
        }
        low = high;
    }
    changes
}

/// How far a zone's wall clock is ahead of UTC at a moment, in seconds.
#[must_use]
pub fn offset_seconds(moment: DateTime<Utc>, zone: Tz) -> i32 {
    zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc()
}

fn clock_change(from: DateTime<Utc>, until: DateTime<Utc>, zone: Tz) -> ClockChange {
    match offset_seconds(from, zone).cmp(&offset_seconds(until, zone)) {
        std::cmp::Ordering::Less => ClockChange::Forward,
        std::cmp::Ordering::Equal => ClockChange::None,
        std::cmp::Ordering::Greater => ClockChange::Back,
    }
}

fn expand_macro(text: &str) -> Result<&str, ScheduleError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    Ok(match text.to_ascii_lowercase().as_str() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        _ => return Err(ScheduleError::Macro { text: text.to_owned() }),
    })
}

/// The values as `cron` reads them; none given, or all, is `*`.
fn list(values: Option<&BTreeSet<u32>>) -> String {
    values.map_or_else(|| "*".to_owned(), |values| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}
