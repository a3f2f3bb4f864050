//! How long what a backup stores is held against deletion, in a store that can hold it.
//!
//! Three times matter. A backup's objects and lists must be held until the backup is `keep_at_least` old: that is the
//! promise. They must not be held any more when the first sweep may delete them, or it could not: that is the planned
//! expiry of a backup as young as the run, when its manifest goes, and the grace period after it, which its objects wait.
//! Between the two lies the room that makes holding cheap: what is stored is held as far as the second, and what is named
//! again is held anew only when less than the first is left, and then again as far as the second. With 14d and 30d and a
//! prune a day an object that is always named is held anew every eleventh day, not daily.
//!
//! A manifest and its signature are named by nothing and held once, until the planned expiry: the moment at which a prune
//! takes them out. So no sweep in normal running meets anything that is still held.
//!
//! Nothing here knows what holds, or which objects there are.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Lead, Retention, later};

/// How long a job's data is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    retention: Retention,
    lead: Lead,
}

impl Hold {
    /// As far as these two allow.
    #[must_use]
    pub fn new(retention: Retention, lead: Lead) -> Self {
        Self { retention, lead }
    }

    /// The age of a run's data until which what it stores is held: at least `keep_at_least`, never more than
    /// `delete_after`.
    #[must_use]
    pub fn age(&self) -> Duration {
        let swept_from = self.retention.planned_age(&self.lead).saturating_add(self.lead.grace);
        swept_from.min(self.retention.delete_after)
    }

    /// How old a backup is when its manifest may be deleted.
    #[must_use]
    pub fn manifest_age(&self) -> Duration {
        self.retention.planned_age(&self.lead)
    }

    /// How much of a hold is left over beyond `keep_at_least`: an object that every run names is held anew so often.
    #[must_use]
    pub fn renewed_every(&self) -> Duration {
        self.age().saturating_sub(self.retention.keep_at_least)
    }

    /// Until when a run that began then holds what it stores. Its recovery points come after its beginning, so no
    /// deadline of theirs is nearer than this allows for.
    #[must_use]
    pub fn stored_until(&self, began: DateTime<Utc>) -> DateTime<Utc> {
        later(began, self.age())
    }

    /// Until when an object must be held anew that a backup names, of a run that began and was committed then; nothing where
    /// it is `held` long enough. What is not known to be held is held anew.
    #[must_use]
    pub fn renewal(
        &self,
        began: DateTime<Utc>,
        committed: DateTime<Utc>,
        held: Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let needed = self.retention.kept_until(committed);
        let is_enough = held.is_some_and(|held| held >= needed);
        // A run that took longer than there is room holds no longer than it must.
        (!is_enough).then(|| self.stored_until(began).max(needed))
    }

    /// Until when a manifest and its signature are held: when a prune may take them out.
    #[must_use]
    pub fn manifest_until(&self, recovery_point: DateTime<Utc>, committed: DateTime<Utc>) -> DateTime<Utc> {
        self.retention.erasing(recovery_point, committed, &self.lead).from
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::retention::{LastGood, default_grace};

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn start() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn hold(keep_at_least: Duration, delete_after: Duration, cadence: Duration) -> Hold {
        let retention = Retention::new(keep_at_least, delete_after, None, None, LastGood::Keep).unwrap();
        let grace = default_grace(Some(retention.window()));
        Hold::new(retention, Lead::new(&retention, cadence, grace))
    }

    #[test]
    fn two_weeks_and_thirty_days_are_held_anew_every_eleventh_day() {
        let hold = hold(14 * DAY, 30 * DAY, 25 * HOUR);
        // 2 × 25h + 24h + 1h are needed for erasing, and twice that is left: 6d6h before the end the manifest goes.
        assert_eq!(hold.manifest_age(), 23 * DAY + 18 * HOUR);
        assert_eq!(hold.age(), 24 * DAY + 18 * HOUR);
        assert_eq!(hold.renewed_every(), 10 * DAY + 18 * HOUR);
        let mut held = None;
        let renewed: Vec<i64> = (0..60)
            .filter(|day| {
                let began = start() + TimeDelta::days(*day);
                let renewal = hold.renewal(began, began + TimeDelta::minutes(20), held);
                held = renewal.or(held);
                renewal.is_some()
            })
            .collect();
        assert_eq!(renewed, [0, 11, 22, 33, 44, 55]);
    }

    #[test]
    fn what_is_not_known_to_be_held_is_held_anew_and_a_long_run_no_longer_than_it_must() {
        let hold = hold(14 * DAY, 30 * DAY, 25 * HOUR);
        let far = hold.stored_until(start());
        assert_eq!(hold.renewal(start(), start(), None), Some(far));
        assert_eq!(hold.renewal(start(), start(), Some(far)), None);
        let late = start() + TimeDelta::days(20);
        assert_eq!(hold.renewal(start(), late, Some(far)), Some(late + TimeDelta::days(14)));
    }

    proptest! {
        /// Backups of one job, each naming an object that the first of them stored, and prunes that come as late as they
        /// may: at every moment the promise to keep is held, and no sweep ever meets what is still held.
        #[test]
        fn held_as_long_as_promised_and_never_when_a_sweep_comes(
            keep_hours in 1u64..900,
            window_hours in 1u64..900,
            cadence_hours in 1u64..200,
            gaps_minutes in prop::collection::vec(1i64..20_000, 1..60),
            run_minutes in prop::collection::vec(0i64..600, 60),
        ) {
            let hold = hold(
                Duration::from_secs(keep_hours * 3600),
                Duration::from_secs((keep_hours + window_hours) * 3600),
                Duration::from_secs(cadence_hours * 3600),
            );
            let Hold { retention, lead } = hold;
            prop_assert!(hold.age() >= retention.keep_at_least && hold.age() <= retention.delete_after);
            let (mut committed, mut held) = (start(), None);
            let mut last_renewed: Option<DateTime<Utc>> = None;
            for (gap, run) in gaps_minutes.iter().zip(&run_minutes) {
                // A job's runs come one after another.
                let began = committed + TimeDelta::minutes(*gap);
                committed = began + TimeDelta::minutes(*run);
                let renewal = hold.renewal(began, committed, held);
                if let Some(until) = renewal {
                    prop_assert!(held.is_none_or(|held| until > held), "a hold can only be made longer");
                    // Between two there lies what is left over beyond the promise, less what the runs took.
                    if let Some(last) = last_renewed {
                        prop_assert!((committed - last).to_std().unwrap() >= hold.renewed_every());
                    }
                    (last_renewed, held) = (Some(began), Some(until));
                }
                let held = held.unwrap();
                prop_assert!(held >= retention.kept_until(committed));
                // The manifest goes at the earliest then, and its objects when they have waited.
                let goes = hold.manifest_until(began, committed);
                prop_assert!(goes >= retention.kept_until(committed));
                prop_assert!(held <= later(goes, lead.grace));
                if lead.fits(&retention) && retention.kept_until(committed) <= later(began, hold.manifest_age()) {
                    // And the next prune still comes in time.
                    prop_assert!(later(later(held, lead.cadence), lead.sweep) <= retention.expires_at(began));
                }
            }
        }
    }
}
