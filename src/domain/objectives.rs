//! RPO and RTO as they were: pure functions of what a vault's records say, of a window, and of nothing else.
//!
//! The definitions:
//!
//! - *Exposure* at `t` is `t − max{ rp : counted at t }`, in time. A backup counts at `t` if it is complete and not
//!   refuted, was available by `t` (for the *proven* figure: a drill of it had passed by `t`), and was still retained
//!   at `t`. What is pruned later does not rewrite the past; what is refuted later does.
//! - *Measured RPO* over a window `[start, end)` is the supremum of the exposure in it. Where nothing was pruned that
//!   is: backups ordered by availability, those dropped whose recovery point is not newer than all before them,
//!   `max(available of the next − recovery point of this one)`, with the interval that enters the window and the one
//!   still open at its end. Median and 95th percentile are over time, not over backups: half of the window had an
//!   exposure of at most the median.
//! - *Measured RTO* is what a drill took. A failed drill has no time: it outranks every time, and stays.
//!
//! Nothing here knows where the records came from, what the time is, or what a figure looks like on paper.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::ids::{BackupId, RecordId};

/// What is promised of a job; none where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// How much recent data may be lost.
    pub rpo: Option<Duration>,
    /// How long a restore may take.
    pub rto: Option<Duration>,
}

/// What there is to restore from: a backup, as far as RPO is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Which backup.
    pub backup: BackupId,
    /// The moment its data is consistent at. One later than `available_at` cannot be, and is taken as `available_at`.
    pub recovery_point: DateTime<Utc>,
    /// When it was committed, everything it names confirmed.
    pub available_at: DateTime<Utc>,
    /// When it was removed; `None` while it is there.
    pub retained_until: Option<DateTime<Utc>>,
    /// Whether it counts at all.
    pub standing: Standing,
    /// When a drill of it first passed.
    pub proven_at: Option<DateTime<Utc>>,
}

/// Whether a backup counts as a recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Complete, and nothing speaks against it.
    Counts,
    /// Something could not be read when it was taken: it can be restored, and counts for nothing here.
    Partial,
    /// It cannot be opened, or differs from its facts. Figures are computed as if it had never been.
    Refuted,
}

/// From when on a backup counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// From its commit.
    Available,
    /// From the end of the first drill of it that passed.
    Proven,
}

/// How much data would be lost, told as the age of the newest data that could be had back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exposure {
    /// So much.
    Of(Duration),
    /// Everything: there was nothing to restore from. Greater than every duration.
    Unbounded,
}

impl Exposure {
    /// The duration, where there is one.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Of(duration) => Some(duration),
            Self::Unbounded => None,
        }
    }

    /// Whether it is more than `limit`; exactly the limit is not.
    #[must_use]
    pub fn exceeds(self, limit: Duration) -> bool {
        self > Self::Of(limit)
    }
}

/// A number of seconds, or the word `unbounded` (docs/decisions/0003).
impl Serialize for Exposure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(duration) => serializer.serialize_f64(json_seconds(*duration)),
            Self::Unbounded => serializer.serialize_str("unbounded"),
        }
    }
}

/// A duration as JSON carries it: seconds, to the millisecond.
#[must_use]
pub fn json_seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A stretch of time, `start` in it and `end` not. One whose end is not after its start is a moment: its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first moment.
    pub start: DateTime<Utc>,
    /// The moment after the last.
    pub end: DateTime<Utc>,
}

impl Window {
    /// The time before `end`, `length` of it.
    #[must_use]
    pub fn before(end: DateTime<Utc>, length: Duration) -> Self {
        let start = chrono::TimeDelta::from_std(length).ok().and_then(|length| end.checked_sub_signed(length));
        Self { start: start.unwrap_or(DateTime::<Utc>::MIN_UTC), end }
    }

    /// The same window without what lies before `start`.
    #[must_use]
    pub fn not_before(self, start: DateTime<Utc>) -> Self {
        Self { start: self.start.max(start).min(self.end), end: self.end }
    }

    /// Whether the moment is in it; its end counts as in it, so that what happens now is seen now.
    #[must_use]
    pub fn covers(self, moment: DateTime<Utc>) -> bool {
        self.start <= moment && moment <= self.end
    }
}

/// The measured RPO of a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rpo {
    /// The largest exposure.
    #[serde(rename = "worst_seconds")]
    pub worst: Exposure,
    /// When it was reached (its first time): the end of the stretch without a newer recovery point.
    pub worst_reached_at: DateTime<Utc>,
    /// Half of the time the exposure was at most this.
    #[serde(rename = "median_seconds")]
    pub median: Exposure,
    /// 95 % of the time the exposure was at most this.
    #[serde(rename = "p95_seconds")]
    pub p95: Exposure,
    /// The share of the time, 0 to 1, that the exposure was above the target; `None` without a target.
    pub share_above_target: Option<f64>,
}

/// The exposure at one moment.
#[must_use]
pub fn exposure_at(points: &[Point], basis: Basis, moment: DateTime<Utc>) -> Exposure {
    newest_at(points, basis, moment).map_or(Exposure::Unbounded, |point| Exposure::Of(since(counted_rp(point), moment)))
}

/// The point that a restore at `moment` would go back to: of those that count then, the one with the newest recovery
/// point.
#[must_use]
pub fn newest_at(points: &[Point], basis: Basis, moment: DateTime<Utc>) -> Option<&Point> {
    points
        .iter()
        .filter(|point| {
            span(point, basis).is_some_and(|(from, until)| from <= moment && until.is_none_or(|u| moment < u))
        })
        .max_by_key(|point| counted_rp(point))
}

/// The measured RPO over a window, in `O(n log n)` of the points.
#[must_use]
pub fn measured_rpo(points: &[Point], basis: Basis, window: Window, target: Option<Duration>) -> Rpo {
    let stretches = stretches(points, basis, window);
    let (mut worst, mut worst_reached_at) = (None, window.end);
    for stretch in &stretches {
        if worst.is_none_or(|so_far| stretch.ends() > so_far) {
            worst = Some(stretch.ends());
            worst_reached_at = stretch.to;
        }
    }
    Rpo {
        // A window without length has no stretch: its end is all there is.
        worst: worst.unwrap_or_else(|| exposure_at(points, basis, window.end)),
        worst_reached_at,
        median: quantile(&stretches, 50).unwrap_or_else(|| exposure_at(points, basis, window.end)),
        p95: quantile(&stretches, 95).unwrap_or_else(|| exposure_at(points, basis, window.end)),
        share_above_target: target.map(|target| match share_above(&stretches, target) {
            Some(share) => share,
            None => f64::from(u8::from(exposure_at(points, basis, window.end).exceeds(target))),
        }),
    }
}

/// A stretch of a window over which the exposure grows as time does, or is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Its first moment.
    pub from: DateTime<Utc>,
    /// The moment after its last.
    pub to: DateTime<Utc>,
    /// The exposure at its first moment.
    pub starts: Exposure,
    /// The exposure just before its end.
    pub ends: Exposure,
}

/// The exposure over a window, leg by leg, without a gap; none where the window has no length.
#[must_use]
pub fn exposure_legs(points: &[Point], basis: Basis, window: Window) -> Vec<Leg> {
    let stretches = stretches(points, basis, window);
    let leg =
        |stretch: &Stretch| Leg { from: stretch.from, to: stretch.to, starts: stretch.starts(), ends: stretch.ends() };
    stretches.iter().map(leg).collect()
}

/// From when until when a point counts, if it ever does.
fn span(point: &Point, basis: Basis) -> Option<(DateTime<Utc>, Option<DateTime<Utc>>)> {
    if point.standing != Standing::Counts {
        return None;
    }
    let from = match basis {
        Basis::Available => point.available_at,
        Basis::Proven => point.proven_at?.max(point.available_at),
    };
    (point.retained_until.is_none_or(|until| from < until)).then_some((from, point.retained_until))
}

fn counted_rp(point: &Point) -> DateTime<Utc> {
    point.recovery_point.min(point.available_at)
}

/// From a moment to a later one; zero the other way round.
fn since(earlier: DateTime<Utc>, later: DateTime<Utc>) -> Duration {
    (later - earlier).to_std().unwrap_or(Duration::ZERO)
}

/// A stretch of the window in which the newest counting recovery point stays the same: the exposure starts at
/// `from − newest` and grows as time does.
struct Stretch {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    newest: Option<DateTime<Utc>>,
}

impl Stretch {
    fn starts(&self) -> Exposure {
        self.newest.map_or(Exposure::Unbounded, |newest| Exposure::Of(since(newest, self.from)))
    }

    /// The exposure just before its end.
    fn ends(&self) -> Exposure {
        self.newest.map_or(Exposure::Unbounded, |newest| Exposure::Of(since(newest, self.to)))
    }

    fn length(&self) -> Duration {
        since(self.from, self.to)
    }
}

fn stretches(points: &[Point], basis: Basis, window: Window) -> Vec<Stretch> {
    // At a moment, how many points of a recovery point begin (or, negative, cease) to count.
    let mut changes: BTreeMap<DateTime<Utc>, Vec<(DateTime<Utc>, i64)>> = BTreeMap::new();
    for point in points {
        if let Some((from, until)) = span(point, basis) {
            changes.entry(from).or_default().push((counted_rp(point), 1));
            if let Some(until) = until {
                changes.entry(until).or_default().push((counted_rp(point), -1));
            }
        }
    }
    let mut counting: BTreeMap<DateTime<Utc>, i64> = BTreeMap::new();
    let mut result = Vec::new();
    let mut from = window.start;
    let mut close = |newest: Option<DateTime<Utc>>, to: DateTime<Utc>| {
        if from < to {
            result.push(Stretch { from, to, newest });
            from = to;
        }
    };
    for (moment, changed) in changes.range(..window.end) {
        close(counting.last_key_value().map(|(rp, _)| *rp), *moment);
        for (rp, by) in changed {
            let count = counting.entry(*rp).or_insert(0);
            *count += by;
        }
        counting.retain(|_, count| *count != 0);
    }
    close(counting.last_key_value().map(|(rp, _)| *rp), window.end);
    result
}

/// The smallest exposure that at least `per_hundred` per cent of the time is not above. `None` without any time.
fn quantile(stretches: &[Stretch], per_hundred: u128) -> Option<Exposure> {
    let total: u128 = stretches.iter().map(|stretch| stretch.length().as_nanos()).sum();
    if total == 0 {
        return None;
    }
    let wanted = (total * per_hundred).div_ceil(100);
    // Seen along the axis of exposures, each bounded stretch covers [start, start + length) once.
    let mut edges: BTreeMap<u128, i128> = BTreeMap::new();
    for stretch in stretches {
        if let Exposure::Of(start) = stretch.starts() {
            *edges.entry(start.as_nanos()).or_insert(0) += 1;
            *edges.entry((start + stretch.length()).as_nanos()).or_insert(0) -= 1;
        }
    }
    let (mut covered, mut depth, mut at) = (0_u128, 0_i128, 0_u128);
    for (edge, change) in edges {
        let times = depth.unsigned_abs();
        let gained = times * (edge - at);
        if times > 0 && covered + gained >= wanted {
            let nanos = at + (wanted - covered).div_ceil(times);
            return Some(Exposure::Of(duration_of_nanos(nanos)));
        }
        covered += gained;
        depth += change;
        at = edge;
    }
    Some(Exposure::Unbounded)
}

fn duration_of_nanos(nanos: u128) -> Duration {
    const NANOS_A_SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / NANOS_A_SECOND).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % NANOS_A_SECOND).unwrap_or(0);
    Duration::new(seconds, rest)
}

fn share_above(stretches: &[Stretch], target: Duration) -> Option<f64> {
    let total: Duration = stretches.iter().map(Stretch::length).sum();
    let above: Duration = stretches
        .iter()
        .map(|stretch| match stretch.ends() {
            Exposure::Unbounded => stretch.length(),
            Exposure::Of(end) => end.saturating_sub(target).min(stretch.length()),
        })
        .sum();
    (!total.is_zero()).then(|| above.as_secs_f64() / total.as_secs_f64())
}

/// What a drill says about the RTO. A failure outranks every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Restore {
    /// It passed, from its start to the last check, in this time.
    Took(Duration),
    /// It failed: whatever the objective, it was not met.
    Failed,
}

impl Restore {
    /// Whether it passed, and within the objective where there is one. Exactly the objective is within.
    #[must_use]
    pub fn meets(self, objective: Option<Duration>) -> bool {
        match self {
            Self::Took(time) => objective.is_none_or(|objective| time <= objective),
            Self::Failed => false,
        }
    }
}

/// A number of seconds, or the word `not_met` (docs/decisions/0003).
impl Serialize for Restore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Took(time) => serializer.serialize_f64(json_seconds(*time)),
            Self::Failed => serializer.serialize_str("not_met"),
        }
    }
}

/// A drill, as far as RTO is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which drill.
    pub drill: RecordId,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How.
    pub restore: Restore,
}

/// The measured RTO of the last drills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rto {
    /// How many drills are in these figures.
    pub drills: usize,
    /// How many of them failed.
    pub failed: usize,
    /// How many of them passed within the objective.
    pub met: usize,
    /// The last one.
    pub last: Option<Restore>,
    /// The worst one.
    pub worst: Option<Restore>,
    /// The longest time of those that passed.
    pub worst_passed: Option<Duration>,
    /// Where it is going.
    pub trend: Trend,
}

/// How the later half of the drills that passed compares with the earlier half, by their medians.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    /// Fewer than [`TREND_MIN_DRILLS`] passed.
    Unknown,
    /// Within ten per cent of each other.
    Steady,
    /// The later ones were more than ten per cent faster.
    Faster,
    /// The later ones were more than ten per cent slower.
    Slower,
}

/// With fewer drills than these a trend would be noise.
pub const TREND_MIN_DRILLS: usize = 4;

/// The measured RTO of the last `last` drills (of all, if there are fewer), held against an objective.
#[must_use]
pub fn measured_rto(attempts: &[Attempt], last: usize, objective: Option<Duration>) -> Rto {
    let mut ordered: Vec<&Attempt> = attempts.iter().collect();
    ordered.sort_by_key(|attempt| (attempt.finished, attempt.drill.clone()));
    let ordered = &ordered[ordered.len().saturating_sub(last)..];
    let passed: Vec<Duration> = ordered
        .iter()
        .filter_map(|attempt| match attempt.restore {
            Restore::Took(time) => Some(time),
            Restore::Failed => None,
        })
        .collect();
    Rto {
        drills: ordered.len(),
        failed: ordered.len() - passed.len(),
        met: ordered.iter().filter(|attempt| attempt.restore.meets(objective)).count(),
        last: ordered.last().map(|attempt| attempt.restore),
        worst: ordered.iter().map(|attempt| attempt.restore).max(),
        worst_passed: passed.iter().max().copied(),
        trend: trend(&passed),
    }
}

fn trend(times: &[Duration]) -> Trend {
    if times.len() < TREND_MIN_DRILLS {
        return Trend::Unknown;
    }
    let half = times.len() / 2;
    let before = median_seconds(&times[..half]);
    let after = median_seconds(&times[times.len() - half..]);
    if after > before * 1.1 {
        Trend::Slower
    } else if after < before * 0.9 {
        Trend::Faster
    } else {
        Trend::Steady
    }
}

fn median_seconds(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle].as_secs_f64()
    } else {
        (sorted[middle - 1] + sorted[middle]).as_secs_f64() / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn minutes(count: u64) -> Duration {
        MINUTE * u32::try_from(count).unwrap()
    }

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 / 60 * 60 + minute * 60, 0).unwrap()
    }

    fn id(number: u64) -> BackupId {
        BackupId::from_random(number.to_be_bytes())
    }

    fn point(rp: i64, av: i64) -> Point {
        Point {
            backup: id(rp.unsigned_abs()),
            recovery_point: at(rp),
            available_at: at(av),
            retained_until: None,
            standing: Standing::Counts,
            proven_at: None,
        }
    }

    fn window(start: i64, end: i64) -> Window {
        Window { start: at(start), end: at(end) }
    }

    #[test]
    fn nothing_is_unbounded_and_never_zero() {
        let mut refuted = point(0, 5);
        refuted.standing = Standing::Refuted;
        let mut partial = point(0, 5);
        partial.standing = Standing::Partial;
        for points in [vec![], vec![refuted, partial]] {
            let rpo = measured_rpo(&points, Basis::Available, window(0, 60), Some(MINUTE));
            assert_eq!(rpo.worst, Exposure::Unbounded);
            assert_eq!(rpo.median, Exposure::Unbounded);
            assert_eq!(rpo.p95, Exposure::Unbounded);
            assert_eq!(rpo.share_above_target, Some(1.0));
            assert_eq!(exposure_at(&points, Basis::Available, at(60)), Exposure::Unbounded);
        }
        assert_eq!(serde_json::to_string(&Exposure::Unbounded).unwrap(), "\"unbounded\"");
        assert_eq!(serde_json::to_string(&Exposure::Of(Duration::from_millis(1500))).unwrap(), "1.5");
    }

    #[test]
    fn the_run_counts_from_its_snapshot_and_until_the_next_one_is_available() {
        // Daily, each run an hour long: in the last minute before the next is available a loss costs 25 hours.
        let points = [point(0, 60), point(1440, 1500), point(2880, 2940)];
        let rpo = measured_rpo(&points, Basis::Available, window(60, 2940), Some(minutes(1440)));
        assert_eq!(rpo.worst, Exposure::Of(minutes(1500)));
        assert_eq!(rpo.worst_reached_at, at(1500));
        assert_eq!(rpo.share_above_target, Some(120.0 / 2880.0));
        assert_eq!(exposure_at(&points, Basis::Available, at(1499)), Exposure::Of(minutes(1499)));
        assert_eq!(exposure_at(&points, Basis::Available, at(1500)), Exposure::Of(minutes(60)));
    }

    #[test]
    fn the_interval_that_enters_and_the_one_still_open_count() {
        let points = [point(0, 1), point(600, 601)];
        assert_eq!(measured_rpo(&points, Basis::Available, window(599, 700), None).worst, Exposure::Of(minutes(601)));
        assert_eq!(measured_rpo(&points, Basis::Available, window(650, 1700), None).worst, Exposure::Of(minutes(1100)));
    }

    #[test]
    fn an_older_recovery_point_that_comes_late_changes_nothing() {
        let points = [point(100, 110), point(50, 120), point(200, 210)];
        assert_eq!(measured_rpo(&points, Basis::Available, window(110, 210), None).worst, Exposure::Of(minutes(110)));
    }

    #[test]
    fn pruning_does_not_rewrite_the_past_and_refuting_does() {
        let mut old = point(0, 1);
        old.retained_until = Some(at(500));
        let mut points = vec![old, point(100, 101)];
        assert_eq!(measured_rpo(&points, Basis::Available, window(1, 600), None).worst, Exposure::Of(minutes(500)));
        points[1].standing = Standing::Refuted;
        assert_eq!(measured_rpo(&points, Basis::Available, window(1, 500), None).worst, Exposure::Of(minutes(500)));
        assert_eq!(measured_rpo(&points, Basis::Available, window(1, 600), None).worst, Exposure::Unbounded);
    }

    #[test]
    fn proven_counts_from_the_drill() {
        let mut points = vec![point(0, 1), point(100, 101)];
        points[0].proven_at = Some(at(60));
        assert_eq!(exposure_at(&points, Basis::Proven, at(59)), Exposure::Unbounded);
        assert_eq!(exposure_at(&points, Basis::Proven, at(160)), Exposure::Of(minutes(160)));
        assert_eq!(exposure_at(&points, Basis::Available, at(160)), Exposure::Of(minutes(60)));
    }

    #[test]
    fn a_recovery_point_in_the_future_is_no_better_than_now() {
        let points = [point(500, 100)];
        assert_eq!(exposure_at(&points, Basis::Available, at(130)), Exposure::Of(minutes(30)));
    }

    fn attempts(list: &[Option<u64>]) -> Vec<Attempt> {
        list.iter()
            .enumerate()
            .map(|(index, seconds)| Attempt {
                drill: RecordId::from_random((index as u64).to_be_bytes()),
                finished: at(index as i64),
                restore: seconds.map_or(Restore::Failed, |s| Restore::Took(Duration::from_secs(s))),
            })
            .collect()
    }

    #[test]
    fn a_failed_drill_is_not_met_and_stays() {
        let objective = Some(Duration::from_secs(60));
        let rto = measured_rto(&attempts(&[Some(10), None, Some(70), Some(20)]), 10, objective);
        assert_eq!((rto.drills, rto.failed, rto.met), (4, 1, 2));
        assert_eq!(rto.last, Some(Restore::Took(Duration::from_secs(20))));
        assert_eq!(rto.worst, Some(Restore::Failed));
        assert_eq!(rto.worst_passed, Some(Duration::from_secs(70)));
        assert!(!Restore::Failed.meets(None));
        // Beyond the last N it is history.
        assert_eq!(measured_rto(&attempts(&[None, Some(10)]), 1, objective).worst, rto_of(10));
        assert_eq!(measured_rto(&[], 10, objective).worst, None);
    }

    fn rto_of(seconds: u64) -> Option<Restore> {
        Some(Restore::Took(Duration::from_secs(seconds)))
    }

    #[test]
    fn the_trend_compares_halves() {
        let trend = |list: &[Option<u64>]| measured_rto(&attempts(list), 10, None).trend;
        assert_eq!(trend(&[Some(1), Some(2), Some(3)]), Trend::Unknown);
        assert_eq!(trend(&[Some(10), Some(10), Some(20), Some(20)]), Trend::Slower);
        assert_eq!(trend(&[Some(20), None, Some(20), Some(10), Some(10)]), Trend::Faster);
        assert_eq!(trend(&[Some(10), Some(11), Some(500), Some(10), Some(11)]), Trend::Steady);
        assert_eq!(trend(&[Some(10), Some(11), Some(10), Some(11)]), Trend::Steady);
    }

    /// Everything lies on whole minutes, so the exposure within a minute starts at its value on the minute and grows
    /// by less than a minute: the brute force is exact.
    fn brute_force(points: &[Point], basis: Basis, start: i64, end: i64, target: Duration) -> Rpo {
        let counts = |point: &Point, minute: i64| {
            let by = match basis {
                Basis::Available => Some(point.available_at),
                Basis::Proven => point.proven_at.map(|proven| proven.max(point.available_at)),
            };
            point.standing == Standing::Counts
                && by.is_some_and(|by| by <= at(minute))
                && point.retained_until.is_none_or(|until| at(minute) < until)
        };
        let exposures: Vec<Option<i64>> = (start..end)
            .map(|minute| {
                points
                    .iter()
                    .filter(|point| counts(point, minute))
                    .map(|point| (at(minute) - point.recovery_point.min(point.available_at)).num_minutes())
                    .min()
            })
            .collect();
        let as_exposure = |e: Option<i64>| match e {
            Some(whole) => Exposure::Of(minutes(whole.unsigned_abs() + 1)),
            None => Exposure::Unbounded,
        };
        let mut sorted: Vec<Exposure> = exposures.iter().map(|e| as_exposure(*e)).collect();
        sorted.sort();
        let above = exposures.iter().filter(|e| e.is_none_or(|e| minutes(e.unsigned_abs()) >= target)).count();
        let worst = *sorted.last().unwrap();
        // An unbounded stretch ends where it ends, which may be minutes after the first of them.
        let mut reached = exposures.iter().position(|e| as_exposure(*e) == worst).unwrap();
        if worst == Exposure::Unbounded {
            while reached + 1 < exposures.len() && exposures[reached + 1].is_none() {
                reached += 1;
            }
        }
        Rpo {
            worst,
            worst_reached_at: at(start + reached as i64 + 1),
            median: sorted[(sorted.len() * 50).div_ceil(100) - 1],
            p95: sorted[(sorted.len() * 95).div_ceil(100) - 1],
            share_above_target: Some(above as f64 / exposures.len() as f64),
        }
    }

    fn any_point() -> impl Strategy<Value = Point> {
        (
            0_i64..300,
            -5_i64..60,
            proptest::option::weighted(0.4, 0_i64..200),
            prop_oneof![8 => Just(Standing::Counts), 1 => Just(Standing::Partial), 1 => Just(Standing::Refuted)],
            proptest::option::weighted(0.5, -20_i64..100),
        )
            .prop_map(|(rp, took, kept, standing, proven)| Point {
                retained_until: kept.map(|kept| at(rp + took + kept)),
                standing,
                proven_at: proven.map(|after| at(rp + took + after)),
                ..point(rp, rp + took)
            })
    }

    /// Quantiles of a continuous time and of whole minutes differ by less than a minute.
    fn within_a_minute(exact: Exposure, brute: Exposure) -> bool {
        match (exact, brute) {
            (Exposure::Of(exact), Exposure::Of(brute)) => exact <= brute && brute - exact < MINUTE,
            (exact, brute) => exact == brute,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn agrees_with_brute_force_over_minutes(
            points in proptest::collection::vec(any_point(), 0..12),
            start in -20_i64..300, length in 1_i64..300, target in 0_u64..200, proven in any::<bool>(),
        ) {
            let basis = if proven { Basis::Proven } else { Basis::Available };
            let target = minutes(target);
            let fast = measured_rpo(&points, basis, window(start, start + length), Some(target));
            let slow = brute_force(&points, basis, start, start + length, target);
            prop_assert_eq!(fast.worst, slow.worst);
            prop_assert!(within_a_minute(fast.median, slow.median), "{:?} {:?}", fast.median, slow.median);
            prop_assert!(within_a_minute(fast.p95, slow.p95), "{:?} {:?}", fast.p95, slow.p95);
            if fast.worst != Exposure::Unbounded {
                prop_assert_eq!(fast.worst_reached_at, slow.worst_reached_at);
            }
            let (fast, slow) = (fast.share_above_target.unwrap(), slow.share_above_target.unwrap());
            prop_assert!((fast - slow).abs() < 1e-9, "{} {}", fast, slow);
        }

        #[test]
        fn without_pruning_it_is_the_closed_formula(
            mut points in proptest::collection::vec(any_point(), 1..12), open in 0_i64..100,
        ) {
            for point in &mut points {
                point.retained_until = None;
                point.standing = Standing::Counts;
            }
            points.sort_by_key(|point| point.available_at);
            let end = points.last().unwrap().available_at + chrono::TimeDelta::minutes(open);
            let start = points[0].available_at;
            let mut newest: Vec<&Point> = Vec::new();
            for point in &points {
                if newest.last().is_none_or(|last| counted_rp(point) > counted_rp(last)) {
                    newest.push(point);
                }
            }
            let nexts = newest.iter().skip(1).map(|next| next.available_at).chain([end]);
            let formula = newest.iter().zip(nexts).filter(|(this, next)| this.available_at < *next || start == end)
                .map(|(this, next)| since(counted_rp(this), next)).max().unwrap();
            let rpo = measured_rpo(&points, Basis::Available, Window { start, end }, None);
            prop_assert_eq!(rpo.worst, Exposure::Of(formula));
        }
    }
}
