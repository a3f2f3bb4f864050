//! Whether the clock can be believed that says how old everything is.
//!
//! A clock that jumped forward makes every backup look old, and one prune by it would erase them all. A clock cannot be
//! asked whether it is right; but where it jumped, nothing was written for as long as it jumped. So nothing is removed
//! where the vault shows no sign of life for longer than a while that no schedule leaves, until runs have gone on for most
//! of a day after that, or a person says that it was a pause. What the process itself writes is no sign: the backup that a
//! prune follows was dated by the same clock.
//!
//! So after an honest pause of a month the first prune stops, says so, and status is critical; the next night's goes on by
//! itself, and so does `prune --after-pause` at once. A jump that lasts through a day of runs that look right is beyond
//! this, and so is one that is shorter than the while.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::PruneRequest;
use crate::domain::quantity::human_duration;
use crate::error::Result;
use crate::operations::host::Host;
use crate::operations::vaults::OpenVault;

/// A pause is longer than so many of the largest gaps between two prunes.
const CADENCES: u32 = 4;
/// And longer than this part of `keep_at_least`.
const SHARE_OF_KEEP: u32 = 2;
/// And longer than this, whatever the windows are: a machine may be off over night.
const PAUSE_AT_LEAST: Duration = Duration::from_secs(24 * 3600);
/// Runs that have gone on for so long after it end a pause: the next night's, which may come a little early.
const LIFE_AGAIN: TimeDelta = TimeDelta::hours(20);

/// What a person says of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPause {
    /// Nothing: then nothing is removed after one.
    Stop,
    /// It was one: the clock is right.
    GoOn,
}

/// A while without a sign of life that ended not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    last: DateTime<Utc>,
    next: DateTime<Utc>,
}

/// What stops a prune at `now` that may follow a pause, with what to type.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) fn stop(
    host: &Host,
    vault: &OpenVault,
    request: &PruneRequest<'_>,
    now: DateTime<Utc>,
) -> Result<Option<(String, String)>> {
    let longest = request
        .jobs
        .iter()
        .map(|(job, lead)| {
            let share = job.retention.keep_at_least / SHARE_OF_KEEP;
            lead.cadence.saturating_mul(CADENCES).max(share).max(PAUSE_AT_LEAST)
        })
        .min();
    let (Some(longest), AfterPause::Stop) = (longest, request.after_pause) else { return Ok(None) };
    let longest = TimeDelta::from_std(longest).unwrap_or(TimeDelta::MAX);
    let signs = signs_of_life(host, vault)?.into_iter().filter(|sign| *sign < request.began).collect();
    let Some(Pause { last, next }) = pause(signs, longest, now) else { return Ok(None) };
    let told = |moment: DateTime<Utc>| moment.format("%Y-%m-%d %H:%M UTC").to_string();
    let until = if next == now { "now".to_owned() } else { told(next) };
    Ok(Some((
        format!(
            "nothing was written into this vault for {}, between {} and {until}: either the clock jumped, or nothing ran",
            human_duration((next - last).to_std().unwrap_or_default()),
            told(last),
        ),
        format!(
            "look at `date -u`, it should say {}. If that is the time, `lifeboat prune --after-pause` goes on, and so does \
             by itself what runs from {} on; if it is not, set the clock before anything else",
            told(now),
            told(next + LIFE_AGAIN)
        ),
    )))
}

fn pause(mut signs: Vec<DateTime<Utc>>, longest: TimeDelta, now: DateTime<Utc>) -> Option<Pause> {
    signs.sort_unstable();
    let mut next = now;
    for last in signs.into_iter().rev().filter(|sign| *sign <= now) {
        if now - next >= LIFE_AGAIN {
            return None;
        }
        if next - last > longest {
            return Some(Pause { last, next });
        }
        next = last;
    }
    None
}

/// When anything was committed or recorded in the vault, by any host.
fn signs_of_life(host: &Host, vault: &OpenVault) -> Result<Vec<DateTime<Utc>>> {
    let catalog = &host.home()?.catalog;
    let mut signs: Vec<DateTime<Utc>> = Vec::new();
    host.runtime.block_on(async {
        signs.extend(catalog.backups(&vault.id, None).await?.iter().map(|row| row.committed));
        signs.extend(catalog.runs(&vault.id, None).await?.iter().map(|row| row.recorded));
        signs.extend(catalog.drills(&vault.id, None).await?.iter().map(|row| row.recorded));
        signs.extend(catalog.prunes(&vault.id, None).await?.iter().map(|row| row.recorded));
        Ok::<_, crate::catalog::CatalogError>(())
    })?;
    Ok(signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_long_while_that_ended_not_long_ago() {
        let start: DateTime<Utc> = "2026-11-22T02:00:00Z".parse().unwrap();
        let at = |days: i64, hours: i64| start + TimeDelta::days(days) + TimeDelta::hours(hours);
        let nightly: Vec<DateTime<Utc>> = (0..10).map(|day| at(day, 0)).collect();
        let of = |more: &[DateTime<Utc>], now| pause([&nightly[..], more].concat(), TimeDelta::days(7), now);
        assert_eq!(of(&[], at(9, 2)), None);
        assert_eq!(of(&[], at(16, 0)), None);
        // The clock jumps by a year.
        assert_eq!(of(&[], at(374, 0)), Some(Pause { last: at(9, 0), next: at(374, 0) }));
        // What an earlier process wrote a moment ago, or through half a day, does not make up for it.
        let jumped = Some(Pause { last: at(9, 0), next: at(374, 0) });
        assert_eq!(of(&[at(374, 0)], at(374, 1)), jumped);
        assert_eq!(of(&[at(374, 0), at(374, 6), at(374, 12)], at(374, 18)), jumped);
        // The next night does.
        assert_eq!(of(&[at(374, 0)], at(375, 0) - TimeDelta::minutes(5)), None);
        assert_eq!(of(&[at(374, 0), at(375, 0)], at(376, 0)), None);
        // What a clock wrote that ran ahead says nothing of now.
        assert_eq!(of(&[at(374, 0)], at(10, 0)), None);
        assert_eq!(pause(vec![], TimeDelta::days(7), start), None);
    }
}
