//! Which backups of a job stay and which go, decided from their times alone.
//!
//! A backup is young until `keep_at_least` after its commit, then between the two sides, then expired. The young stay,
//! the expired go, and of those between the thinning keeps one a day and one a week. Two things speak for a backup
//! besides: that it is the newest good one between the sides, without which one could not go back as far as was
//! promised; and that it is the last good one at all, where the config says that it stays.
//!
//! It does not know what becomes of the objects, nor why a backup is good or is not.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use chrono_tz::Tz;

use super::reasons::{DeleteReason, KeepReason, WallTime};
use super::way::{Stage, Way};
use super::{LastGood, Lead, Retention};
use crate::domain::ids::BackupId;

/// A backup, as far as the plan is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub backup: BackupId,
    /// The moment its data is consistent at. One later than `available_at` cannot be, and is taken as `available_at`.
    pub recovery_point: DateTime<Utc>,
    /// When it was committed.
    pub available_at: DateTime<Utc>,
    /// Whether it is complete, and nothing refutes it.
    pub good: bool,
}

/// What becomes of each backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each candidate, in the order of their recovery points.
    pub decisions: Vec<Decision>,
}

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub backup: BackupId,
    /// What becomes of it, and why.
    pub fate: Fate,
    /// When it goes at the latest, in normal running.
    pub planned_expiry: DateTime<Utc>,
    /// When nothing of it may be left.
    pub deadline: DateTime<Utc>,
}

/// Stays or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// For at least one reason.
    Keep(Vec<KeepReason>),
    /// For one.
    Delete(DeleteReason),
}

/// The last good backup is on its way to its deadline, and no newer good one exists: either it or the promise to
/// erase has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The backup.
    pub backup: BackupId,
    /// How far it is on the way from `keep_at_least` to `delete_after`.
    pub stage: Stage,
    /// When nothing of it may be left.
    pub deadline: DateTime<Utc>,
}

impl Plan {
    /// The backups that go, with the reason, the oldest first.
    pub fn deleted(&self) -> impl Iterator<Item = (&BackupId, &DeleteReason)> {
        self.decisions.iter().filter_map(|decision| match &decision.fate {
            Fate::Delete(reason) => Some((&decision.backup, reason)),
            Fate::Keep(_) => None,
        })
    }

    /// The backups that stay, the oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &BackupId> {
        self.decisions.iter().filter(|decision| matches!(decision.fate, Fate::Keep(_))).map(|decision| &decision.backup)
    }
}

/// Where a backup stands between the two sides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Young,
    Between,
    Expired,
}

impl Retention {
    /// Which of a job's backups stay and which go at `now`, days and weeks being those of `zone`. The order of the
    /// candidates does not matter, and what a plan keeps, a plan of the same moment keeps again.
    #[must_use]
    pub fn plan(&self, candidates: &[Candidate], lead: &Lead, zone: Tz, now: DateTime<Utc>) -> Plan {
        let mut ordered: Vec<&Candidate> = candidates.iter().collect();
        ordered.sort_by(|a, b| a.order().cmp(&b.order()));
        let ways: Vec<Way> =
            ordered.iter().map(|one| self.erasing(one.recovery_point, one.available_at, lead)).collect();
        let age = |place: usize| match (now < self.kept_until(ordered[place].available_at), now < ways[place].from) {
            (true, _) => Age::Young,
            (false, true) => Age::Between,
            (false, false) => Age::Expired,
        };
        let mut reasons = self.between_the_sides(&ordered, &ways, &age, zone);
        let last_good = ordered.iter().rposition(|one| one.good);
        let decisions = ordered.iter().zip(&ways).enumerate().map(|(place, (one, way))| {
            let fate = match age(place) {
                Age::Young => {
                    let until = WallTime::new(self.kept_until(one.available_at), zone, self.keep_at_least);
                    Fate::Keep(vec![KeepReason::Young { keep_at_least: self.keep_at_least, until }])
                }
                Age::Between => reasons.remove(&place).map_or(Fate::Delete(DeleteReason::Thinned), Fate::Keep),
                Age::Expired if self.last_good == LastGood::Keep && last_good == Some(place) => {
                    Fate::Keep(vec![KeepReason::LastGood])
                }
                Age::Expired => {
                    let deadline = WallTime::new(way.until, zone, self.delete_after);
                    Fate::Delete(DeleteReason::Expired { deadline })
                }
            };
            Decision { backup: one.backup.clone(), fate, planned_expiry: way.from, deadline: way.until }
        });
        Plan { decisions: decisions.collect() }
    }

    /// Whether the last good backup is at least half-way from `keep_at_least` to `delete_after` and no newer good one
    /// exists, whatever [`Retention::last_good`] says: with either choice a promise will be broken.
    #[must_use]
    pub fn conflict(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Option<Conflict> {
        let last = candidates.iter().filter(|one| one.good).max_by(|a, b| a.order().cmp(&b.order()))?;
        let deadline = self.expires_at(last.point());
        let way = Way { from: self.kept_until(last.available_at), until: deadline };
        way.stage(now).map(|stage| Conflict { backup: last.backup.clone(), stage, deadline })
    }

    /// What speaks for each of those between the two sides, by their place; what nothing speaks for is not there.
    fn between_the_sides(
        &self,
        ordered: &[&Candidate],
        ways: &[Way],
        age: &impl Fn(usize) -> Age,
        zone: Tz,
    ) -> BTreeMap<usize, Vec<KeepReason>> {
        let between: Vec<usize> = (0..ordered.len()).filter(|place| age(*place) == Age::Between).collect();
        let day = |place: usize| local_day(ordered[place], zone);
        let mut reasons: BTreeMap<usize, Vec<KeepReason>> = BTreeMap::new();
        if let Some(days) = self.daily {
            for (day, place) in newest_of_each(&between, ordered, day, days) {
                reasons.entry(place).or_default().push(KeepReason::NewestOfDay(day));
            }
        }
        if let Some(weeks) = self.weekly {
            for (week, place) in newest_of_each(&between, ordered, |place| day(place).iso_week(), weeks) {
                reasons.entry(place).or_default().push(KeepReason::NewestOfWeek(week));
            }
        }
        if let Some(place) = between.iter().rfind(|place| ordered[**place].good) {
            let reason = KeepReason::ReachesBack { keep_at_least: self.keep_at_least };
            reasons.entry(*place).or_default().push(reason);
        }
        if self.daily.is_none() && self.weekly.is_none() {
            for place in between {
                let until = WallTime::new(ways[place].from, zone, self.delete_after);
                reasons.entry(place).or_default().push(KeepReason::Unexpired { until });
            }
        }
        reasons
    }
}

impl Candidate {
    fn point(&self) -> DateTime<Utc> {
        self.recovery_point.min(self.available_at)
    }

    /// From older to newer; ids settle what times do not, so that every plan comes out the same.
    fn order(&self) -> (DateTime<Utc>, DateTime<Utc>, &str) {
        (self.point(), self.available_at, self.backup.as_str())
    }
}

fn local_day(one: &Candidate, zone: Tz) -> NaiveDate {
    one.point().with_timezone(&zone).date_naive()
}

/// Of the places, given from older to newer: the newest good one of each of the last `count` periods that have any, or
/// the newest at all where a period has no good one.
fn newest_of_each<P: Ord + Copy>(
    places: &[usize],
    ordered: &[&Candidate],
    period: impl Fn(usize) -> P,
    count: u32,
) -> Vec<(P, usize)> {
    let mut newest: BTreeMap<P, usize> = BTreeMap::new();
    for &place in places {
        let standing = newest.entry(period(place)).or_insert(place);
        if ordered[place].good || !ordered[*standing].good {
            *standing = place;
        }
    }
    newest.into_iter().rev().take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
}
