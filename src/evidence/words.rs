//! Figures and moments as all texts that people read say them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::report::Met;
use crate::domain::objectives::{Exposure, Restore, Trend, json_seconds};
use crate::domain::quantity::{human_duration, human_seconds};

/// A moment in UTC, to the second, as RFC 3339 has it.
pub(super) fn moment(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Seconds for people, with the number behind them.
pub(super) fn seconds(count: f64) -> String {
    format!("{} ({count:.3} s)", human_seconds(count))
}

/// An exposure for people, with its seconds behind it.
pub(super) fn exposure(exposure: Exposure) -> String {
    match exposure {
        Exposure::Of(duration) => format!("{} ({} s)", human_exposure(exposure), json_seconds(duration)),
        Exposure::Unbounded => human_exposure(exposure),
    }
}

/// What a restore took.
pub(super) fn restore(restore: Option<Restore>) -> String {
    match restore {
        Some(Restore::Took(time)) => format!("{} ({} s)", human_duration(time), json_seconds(time)),
        Some(Restore::Failed) => "not met: the drill failed".to_owned(),
        None => "unmeasured".to_owned(),
    }
}

/// Whether an objective was met.
pub(super) fn met(met: Met) -> &'static str {
    match met {
        Met::Met => "met",
        Met::NotMet => "not met",
        Met::NoObjective => "none is set",
        Met::Unmeasured => "unmeasured",
    }
}

/// Where restores are going.
pub(super) fn trend(trend: Trend) -> &'static str {
    match trend {
        Trend::Unknown => "too few drills passed to say",
        Trend::Steady => "steady",
        Trend::Faster => "faster",
        Trend::Slower => "slower",
    }
}

/// A word of the JSON, with blanks for people.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        // Only enums of words are handed in.
        _ => String::new(),
    }
}

/// An exposure for people.
pub(super) fn human_exposure(exposure: Exposure) -> String {
    human_seconds(exposure.duration().map_or(f64::INFINITY, |duration| duration.as_secs_f64()))
}

/// From a moment to a later one; zero the other way round.
pub(super) fn elapsed(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or(Duration::ZERO)
}

/// `3h 05m`.
pub(super) fn age(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    human_duration(elapsed(moment, now))
}

/// `3h 05m ago`; a moment that lies ahead (clocks differ between hosts) is said as such.
pub(super) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if moment > now {
        return format!("in {}", human_duration(elapsed(now, moment)));
    }
    format!("{} ago", human_duration(elapsed(moment, now)))
}
