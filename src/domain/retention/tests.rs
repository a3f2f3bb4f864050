//! Retention in worked examples, and against an hour-by-hour model.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_window_has_two_sides() {
    let retention = Retention::new(14 * DAY, 30 * DAY, Some(14), None, LastGood::Keep).unwrap();
    let point: DateTime<Utc> = "2026-11-22T02:00:00Z".parse().unwrap();
    assert_eq!(retention.expires_at(point).to_rfc3339(), "2026-12-22T02:00:00+00:00");
    assert_eq!(retention.expires_at(DateTime::<Utc>::MAX_UTC), DateTime::<Utc>::MAX_UTC);
}

#[test]
fn contradictions_are_refused() {
    let same = Retention::new(14 * DAY, 14 * DAY, None, None, LastGood::Keep).unwrap_err();
    assert_eq!(same.to_string(), "`keep_at_least` (14d) must be shorter than `delete_after` (14d)");
    assert!(same.hint().is_some());
    let zero = Retention::new(DAY, 2 * DAY, None, Some(0), LastGood::Keep).unwrap_err();
    assert!(zero.to_string().contains("leave `weekly` out"));
}
