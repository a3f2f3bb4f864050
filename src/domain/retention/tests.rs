//! Retention in worked examples, and against a model that asks of each backup, hour by hour, what speaks for it.

use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;
use crate::domain::ids::BackupId;
use crate::domain::record::RemovalReason;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const BERLIN: Tz = Tz::Europe__Berlin;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn id(number: usize) -> BackupId {
    format!("{number:016x}").parse().unwrap()
}

fn number(backup: &BackupId) -> usize {
    usize::from_str_radix(backup.as_str(), 16).unwrap()
}

/// A backup that was committed in the moment of its recovery point; a `-` before the time: not a good one.
fn backup(number: usize, time: &str) -> Candidate {
    let (time, good) = time.strip_prefix('-').map_or((time, true), |time| (time, false));
    Candidate { backup: id(number), recovery_point: at(time), available_at: at(time), good }
}

/// Numbered from 1.
fn backups(times: &[&str]) -> Vec<Candidate> {
    times.iter().enumerate().map(|(place, time)| backup(place + 1, time)).collect()
}

fn retention(daily: Option<u32>, weekly: Option<u32>) -> Retention {
    Retention::new(14 * DAY, 365 * DAY, daily, weekly, LastGood::Keep).unwrap()
}

fn days(days: u32) -> Duration {
    days * DAY
}

/// 73 h are needed: the lead is 6d2h.
const LEAD: Lead = Lead { cadence: DAY, grace: DAY, sweep: HOUR };

/// `3 stays: newest of 2026-11-08; the newest one older than 14d`.
fn told(plan: &Plan) -> Vec<String> {
    let tell = |decision: &Decision| {
        let number = number(&decision.backup);
        match &decision.fate {
            Fate::Keep(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                format!("{number} stays: {}", reasons.join("; "))
            }
            Fate::Delete(reason) => format!("{number} goes: {reason}"),
        }
    };
    plan.decisions.iter().map(tell).collect()
}

#[test]
fn the_window_has_two_sides() {
    let retention = Retention::new(14 * DAY, 30 * DAY, Some(14), None, LastGood::Keep).unwrap();
    let point = at("2026-11-22T02:00:00Z");
    assert_eq!(retention.expires_at(point), at("2026-12-22T02:00:00Z"));
    assert_eq!(retention.expires_at(DateTime::<Utc>::MAX_UTC), DateTime::<Utc>::MAX_UTC);
    assert_eq!(retention.window(), 16 * DAY);
}

#[test]
fn contradictions_are_refused() {
    let same = Retention::new(14 * DAY, 14 * DAY, None, None, LastGood::Keep).unwrap_err();
    assert_eq!(same.to_string(), "`keep_at_least` (14d) must be shorter than `delete_after` (14d)");
    assert!(same.hint().is_some());
    let zero = Retention::new(DAY, 2 * DAY, None, Some(0), LastGood::Keep).unwrap_err();
    assert!(zero.to_string().contains("leave `weekly` out"));
    assert_eq!(LastGood::WORDS.map(LastGood::parse), [Some(LastGood::Keep), Some(LastGood::Erase)]);
    assert_eq!(LastGood::parse("Keep"), None);
}

#[test]
fn the_lead_is_twice_what_is_needed_or_the_whole_window() {
    let of = |keep: u32, delete: u32, cadence: Duration| {
        let retention = Retention::new(days(keep), days(delete), None, None, LastGood::Keep).unwrap();
        let lead = Lead::new(&retention, cadence, default_grace(Some(retention.window())));
        (lead.needed(), lead.fits(&retention), lead.length(&retention), retention.planned_age(&lead))
    };
    assert_eq!(of(14, 30, DAY), (73 * HOUR, true, 146 * HOUR, 30 * DAY - 146 * HOUR));
    // Twice of it is more than there is.
    assert_eq!(of(14, 19, DAY), (2 * DAY + 15 * HOUR + HOUR, true, 5 * DAY, 14 * DAY));
    // It is needed to the last minute; and it cannot be done.
    assert_eq!(of(14, 16, 20 * HOUR + HOUR / 2), (48 * HOUR, true, 2 * DAY, 14 * DAY));
    assert_eq!(of(14, 16, 21 * HOUR), (49 * HOUR, false, 2 * DAY, 14 * DAY));
    assert!(!of(14, 30, Duration::MAX).1);
    let tiny = Retention::new(8 * HOUR, 16 * HOUR, None, None, LastGood::Keep).unwrap();
    assert_eq!(Lead::new(&tiny, HOUR, HOUR).sweep, HOUR / 2);
    assert_eq!(default_grace(None), GRACE_AT_MOST);
    assert_eq!(LEAD.to_string(), "24h + 24h between prunes + 24h of grace + 1h for the sweep = 3d1h");
}

#[test]
fn a_backup_goes_before_its_deadline_and_not_before_it_may() {
    let retention = Retention::new(14 * DAY, 30 * DAY, None, None, LastGood::Keep).unwrap();
    let way = |point: &str, committed: &str, lead: &Lead| retention.erasing(at(point), at(committed), lead);
    let usual = way("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", &LEAD);
    assert_eq!((usual.from, usual.until), (at("2026-11-24T22:00:00Z"), at("2026-12-01T00:00:00Z")));
    // Where the sum does not fit it goes as soon as it may.
    let unkeepable = Lead { cadence: 20 * DAY, ..LEAD };
    let squeezed = way("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", &unkeepable);
    assert_eq!((squeezed.from, squeezed.until), (at("2026-11-15T01:00:00Z"), at("2026-12-01T00:00:00Z")));
    // A run of 17 days: it may go only after the deadline of what it holds.
    let late = way("2026-11-01T00:00:00Z", "2026-11-18T00:00:00Z", &LEAD);
    assert_eq!((late.from, late.until), (at("2026-12-02T00:00:00Z"), at("2026-12-01T00:00:00Z")));
    assert_eq!((late.stage(at("2026-12-01T12:00:00Z")), late.share(at("2026-12-01T12:00:00Z"))), (None, 0.0));
    assert_eq!((late.stage(late.from), late.share(late.from)), (Some(Stage::Past), 1.0));
    // A recovery point later than the commit is none.
    let odd = way("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z", &LEAD);
    assert_eq!(odd.until, at("2026-12-01T00:00:00Z"));
}

#[test]
fn alarms_stand_along_the_way() {
    let way = Way { from: at("2026-11-01T00:00:00Z"), until: at("2026-11-11T00:00:00Z") };
    for (time, share, stage) in [
        ("2026-10-31T00:00:00Z", 0.0, None),
        ("2026-11-01T00:00:00Z", 0.0, None),
        ("2026-11-05T23:59:59Z", 0.5, None),
        ("2026-11-06T00:00:00Z", 0.5, Some(Stage::Half)),
        ("2026-11-08T11:59:59Z", 0.75, Some(Stage::Half)),
        ("2026-11-08T12:00:00Z", 0.75, Some(Stage::ThreeQuarters)),
        ("2026-11-10T00:00:00Z", 0.9, Some(Stage::NineTenths)),
        ("2026-11-10T23:59:59Z", 1.0, Some(Stage::NineTenths)),
        ("2026-11-11T00:00:00Z", 1.0, Some(Stage::Past)),
        ("2027-11-11T00:00:00Z", 1.0, Some(Stage::Past)),
    ] {
        assert_eq!(way.stage(at(time)), stage, "{time}");
        assert!((way.share(at(time)) - share).abs() < 1e-4, "{time}");
    }
    assert_eq!(Stage::NineTenths.to_string(), "90 % of the way to the deadline");
    assert!(Stage::Half < Stage::Past);
}

#[test]
fn without_thinning_everything_stays_until_its_time_has_come() {
    let retention = Retention::new(14 * DAY, 30 * DAY, None, None, LastGood::Keep).unwrap();
    let times = [
        "2026-10-20T02:00:00Z",
        "2026-10-29T04:00:00Z",
        "2026-10-29T04:00:01Z",
        "2026-11-07T23:30:00Z",
        "-2026-11-08T02:00:00Z",
        "2026-11-08T02:00:01Z",
        "2026-11-21T02:00:00Z",
    ];
    let plan = retention.plan(&backups(&times), &LEAD, BERLIN, at("2026-11-22T02:00:00Z"));
    assert_eq!(
        told(&plan),
        [
            "1 goes: expired: must be gone by 2026-11-19",
            "2 goes: expired: must be gone by 2026-11-28",
            "3 stays: kept until 2026-11-22",
            // Half past midnight in Berlin, of the day after.
            "4 stays: the newest one older than 14d; kept until 2026-12-01",
            "5 stays: kept until 2026-12-02",
            "6 stays: younger than 14d (until 2026-11-22)",
            "7 stays: younger than 14d (until 2026-12-05)",
        ]
    );
    assert_eq!(plan.kept().map(number).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert_eq!(plan.deleted().map(|(backup, _)| number(backup)).collect::<Vec<_>>(), [1, 2]);
    assert!(plan.deleted().all(|(_, reason)| reason.removal() == RemovalReason::Expired));
    assert_eq!(plan.decisions[2].planned_expiry, at("2026-11-22T02:00:01Z"));
    assert_eq!(plan.decisions[2].deadline, at("2026-11-28T04:00:01Z"));
}

#[test]
fn short_promises_are_told_to_the_minute() {
    let retention = Retention::new(HOUR, 8 * HOUR, None, None, LastGood::Keep).unwrap();
    let lead = Lead { cadence: HOUR, grace: HOUR / 4, sweep: HOUR / 4 };
    let times = ["2026-11-21T20:00:00Z", "2026-11-22T00:00:00Z", "2026-11-22T01:59:00Z"];
    let plan = retention.plan(&backups(&times), &lead, BERLIN, at("2026-11-22T02:00:00Z"));
    assert_eq!(
        told(&plan),
        [
            "1 goes: expired: must be gone by 2026-11-22 05:00",
            "2 stays: the newest one older than 1h; kept until 2026-11-22 04:00",
            "3 stays: younger than 1h (until 2026-11-22 03:59)",
        ]
    );
}

#[test]
fn a_day_is_that_of_the_zone_however_long_it_is() {
    // The 25th of October has 25 hours in Berlin, the 29th of March 23.
    let times = [
        "2026-03-28T22:59:59Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:59Z",
        "2026-03-29T22:00:00Z",
        "2026-10-24T21:59:59Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T22:59:59Z",
        "2026-10-25T23:00:00Z",
    ];
    let now = at("2026-12-01T00:00:00Z");
    assert_eq!(
        told(&retention(Some(6), None).plan(&backups(&times), &LEAD, BERLIN, now)),
        [
            "1 stays: newest of 2026-03-28",
            "2 goes: thinned",
            "3 stays: newest of 2026-03-29",
            "4 stays: newest of 2026-03-30",
            "5 stays: newest of 2026-10-24",
            "6 goes: thinned",
            "7 stays: newest of 2026-10-25",
            "8 stays: newest of 2026-10-26; the newest one older than 14d",
        ]
    );
    let utc = retention(Some(6), None).plan(&backups(&times), &LEAD, Tz::UTC, now);
    assert_eq!(utc.kept().map(number).collect::<Vec<_>>(), [2, 4, 6, 8]);
    // Fewer days: those that hold backups count, not those of the calendar.
    let three = retention(Some(3), None).plan(&backups(&times), &LEAD, BERLIN, now);
    assert_eq!(three.kept().map(number).collect::<Vec<_>>(), [5, 7, 8]);
}

#[test]
fn a_week_is_that_of_its_iso_year() {
    let times = [
        "2024-12-29T12:00:00Z",
        "2024-12-30T12:00:00Z",
        "2025-01-05T12:00:00Z",
        "2026-12-27T12:00:00Z",
        "2026-12-28T12:00:00Z",
        "2026-12-31T23:30:00Z",
        "2027-01-03T22:59:59Z",
        "2027-01-03T23:00:00Z",
        "2027-01-10T12:00:00Z",
    ];
    let long = Retention::new(14 * DAY, 5000 * DAY, None, Some(5), LastGood::Keep).unwrap();
    assert_eq!(
        told(&long.plan(&backups(&times), &LEAD, BERLIN, at("2027-03-01T00:00:00Z"))),
        [
            "1 stays: newest of week 2024-W52",
            // The Monday and the Sunday of the first week of 2025.
            "2 goes: thinned",
            "3 stays: newest of week 2025-W01",
            "4 stays: newest of week 2026-W52",
            // The year 2026 has a week 53, and in Berlin it ends an hour before UTC's midnight.
            "5 goes: thinned",
            "6 goes: thinned",
            "7 stays: newest of week 2026-W53",
            "8 goes: thinned",
            "9 stays: newest of week 2027-W01; the newest one older than 14d",
        ]
    );
    // The turn of the year, day by day: half past eleven in London is next year in Berlin.
    let daily = Retention::new(14 * DAY, 5000 * DAY, Some(2), None, LastGood::Keep).unwrap();
    let turn = backups(&["2026-12-31T22:30:00Z", "2026-12-31T23:30:00Z", "2027-01-01T01:00:00Z"]);
    let kept = |zone| told(&daily.plan(&turn, &LEAD, zone, at("2027-03-01T00:00:00Z")));
    assert_eq!(kept(BERLIN)[0..2], ["1 stays: newest of 2026-12-31", "2 goes: thinned"]);
    assert_eq!(kept(Tz::UTC)[0..2], ["1 goes: thinned", "2 stays: newest of 2026-12-31"]);
}

#[test]
fn the_newest_good_one_stands_for_its_day_and_its_week() {
    let times = [
        "-2026-10-31T02:00:00Z",
        "-2026-10-31T03:00:00Z",
        "2026-11-01T02:00:00Z",
        "2026-11-01T08:00:00Z",
        "-2026-11-01T14:00:00Z",
        "-2026-11-02T02:00:00Z",
        "2026-11-20T02:00:00Z",
    ];
    let now = at("2026-11-22T02:00:00Z");
    assert_eq!(
        told(&retention(Some(3), Some(2)).plan(&backups(&times), &LEAD, BERLIN, now)),
        [
            "1 goes: thinned",
            // A day without a good one keeps what it has.
            "2 stays: newest of 2026-10-31",
            "3 goes: thinned",
            "4 stays: newest of 2026-11-01; newest of week 2026-W44; the newest one older than 14d",
            "5 goes: thinned",
            "6 stays: newest of 2026-11-02; newest of week 2026-W45",
            "7 stays: younger than 14d (until 2026-12-04)",
        ]
    );
    // Without room for its day the good one stays as the one that reaches back.
    assert_eq!(
        told(&retention(Some(1), None).plan(&backups(&times), &LEAD, BERLIN, now))[3..6],
        ["4 stays: the newest one older than 14d", "5 goes: thinned", "6 stays: newest of 2026-11-02"]
    );
}

#[test]
fn one_stays_until_its_successor_is_old_enough() {
    let retention = retention(Some(1), None);
    let two = backups(&["2026-11-01T02:00:00Z", "2026-11-05T02:00:00Z"]);
    let told = |now: &str| told(&retention.plan(&two, &LEAD, BERLIN, at(now)));
    assert_eq!(told("2026-11-19T01:59:59Z")[0], "1 stays: newest of 2026-11-01; the newest one older than 14d");
    assert_eq!(
        told("2026-11-19T02:00:00Z"),
        ["1 goes: thinned", "2 stays: newest of 2026-11-05; the newest one older than 14d"]
    );
}

#[test]
fn the_last_good_one_is_kept_or_erased_as_the_config_says_and_never_silently() {
    let mut retention = Retention::new(14 * DAY, 30 * DAY, Some(1), None, LastGood::Keep).unwrap();
    let mut three = backups(&["2026-10-01T02:00:00Z", "2026-10-02T02:00:00Z", "-2026-10-03T02:00:00Z"]);
    let now = at("2026-11-22T02:00:00Z");
    let kept = "2 stays: the last good one";
    let gone = |number, day| format!("{number} goes: expired: must be gone by 2026-{day}");
    assert_eq!(
        told(&retention.plan(&three, &LEAD, BERLIN, now)),
        [gone(1, "10-31"), kept.to_owned(), gone(3, "11-02")]
    );
    retention.last_good = LastGood::Erase;
    assert_eq!(told(&retention.plan(&three, &LEAD, BERLIN, now))[1], gone(2, "11-01"));

    // From half-way on it is told, with either choice. The way is 16 days long and begins at 14.
    for choice in [LastGood::Keep, LastGood::Erase] {
        retention.last_good = choice;
        for (now, stage) in [
            ("2026-10-24T01:59:59Z", None),
            ("2026-10-24T02:00:00Z", Some(Stage::Half)),
            ("2026-10-28T02:00:00Z", Some(Stage::ThreeQuarters)),
            ("2026-10-30T16:24:00Z", Some(Stage::NineTenths)),
            ("2026-11-01T02:00:00Z", Some(Stage::Past)),
        ] {
            let conflict = retention.conflict(&three, at(now));
            assert_eq!(conflict.as_ref().map(|conflict| conflict.stage), stage, "{now}");
            if let Some(conflict) = conflict {
                assert_eq!((number(&conflict.backup), conflict.deadline), (2, at("2026-11-01T02:00:00Z")));
            }
        }
    }
    // A newer good one ends it.
    three.push(backup(4, "2026-11-21T02:00:00Z"));
    retention.last_good = LastGood::Keep;
    assert_eq!(retention.conflict(&three, now), None);
    assert_eq!(told(&retention.plan(&three, &LEAD, BERLIN, now))[1], gone(2, "11-01"));
    // Where none is good none is the last good one.
    let bad = backups(&["-2026-10-01T02:00:00Z"]);
    assert_eq!(told(&retention.plan(&bad, &LEAD, BERLIN, now)), [gone(1, "10-31")]);
    assert_eq!(retention.conflict(&bad, now), None);
}

#[test]
fn a_backup_that_took_long_is_as_old_as_its_commit_and_its_data_as_the_recovery_point() {
    let retention = Retention::new(2 * DAY, 10 * DAY, Some(1), None, LastGood::Keep).unwrap();
    let lead = Lead { cadence: 12 * HOUR, grace: HOUR, sweep: HOUR };
    let mut two = backups(&["2026-11-10T00:00:00Z", "2026-11-10T06:00:00Z"]);
    // The first is committed after the second, days later.
    two[0].available_at = at("2026-11-14T00:00:00Z");
    let told = |now: &str| told(&retention.plan(&two, &lead, Tz::UTC, at(now)));
    assert_eq!(
        told("2026-11-15T00:00:00Z"),
        ["1 stays: younger than 2d (until 2026-11-16)", "2 stays: newest of 2026-11-10; the newest one older than 2d",]
    );
    assert_eq!(told("2026-11-16T00:00:00Z")[0], "1 goes: thinned");
    assert_eq!(told("2026-11-17T22:00:00Z")[0], "1 goes: expired: must be gone by 2026-11-20");
}

#[test]
fn times_at_the_ends_of_the_calendar_do_no_harm() {
    let far = |time: DateTime<Utc>| Candidate { backup: id(1), recovery_point: time, available_at: time, good: true };
    for time in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        for now in [DateTime::<Utc>::MIN_UTC, at("2026-11-22T02:00:00Z"), DateTime::<Utc>::MAX_UTC] {
            let _ = retention(Some(1), Some(1)).plan(&[far(time)], &LEAD, Tz::UTC, now);
            let _ = retention(None, None).conflict(&[far(time)], now);
        }
    }
}

/// The model: everything in whole minutes from a start, each backup asked on its own.
#[derive(Debug, Clone)]
struct Model {
    keep: i64,
    delete: i64,
    lead: i64,
    daily: Option<u32>,
    weekly: Option<u32>,
    last_good: LastGood,
    backups: Vec<Modelled>,
}

#[derive(Debug, Clone)]
struct Modelled {
    point: i64,
    available: i64,
    good: bool,
    day: String,
    week: String,
}

impl Model {
    fn old(&self, one: &Modelled, now: i64) -> bool {
        now - one.available >= self.keep
    }

    fn expired(&self, one: &Modelled, now: i64) -> bool {
        self.old(one, now) && now - one.point >= self.delete - self.lead
    }

    /// Whether anything speaks for the backup among those that are there.
    fn keeps(&self, place: usize, there: &[usize], now: i64) -> bool {
        let one = &self.backups[place];
        let newer = |a: usize, b: usize| {
            let key = |place: usize| (self.backups[place].point, self.backups[place].available, place);
            key(a) > key(b)
        };
        if !self.old(one, now) {
            return true;
        }
        let good_and_newer = |other: &&usize| self.backups[**other].good && newer(**other, place);
        if self.expired(one, now) {
            let last = one.good && !there.iter().any(|other| good_and_newer(&other));
            return last && self.last_good == LastGood::Keep;
        }
        if self.daily.is_none() && self.weekly.is_none() {
            return true;
        }
        let between: Vec<usize> = there
            .iter()
            .copied()
            .filter(|other| self.old(&self.backups[*other], now) && !self.expired(&self.backups[*other], now))
            .collect();
        if one.good && !between.iter().any(|other| good_and_newer(&other)) {
            return true;
        }
        let stands_for = |count: Option<u32>, period: &dyn Fn(&Modelled) -> String| {
            let mine = period(one);
            let better = |other: usize| {
                let good = self.backups[other].good;
                other != place
                    && period(&self.backups[other]) == mine
                    && (good && !one.good || good == one.good && newer(other, place))
            };
            let mut later: Vec<String> =
                between.iter().map(|other| period(&self.backups[*other])).filter(|other| *other > mine).collect();
            later.sort();
            later.dedup();
            count.is_some_and(|count| later.len() < count as usize) && !between.iter().any(|other| better(*other))
        };
        stands_for(self.daily, &|one| one.day.clone()) || stands_for(self.weekly, &|one| one.week.clone())
    }
}

const STARTS: [&str; 5] = [
    "2026-03-20T00:00:00Z",
    "2026-10-15T00:00:00Z",
    "2026-12-20T00:00:00Z",
    "2024-12-20T00:00:00Z",
    "2020-12-20T00:00:00Z",
];
const ZONES: [Tz; 5] = [Tz::UTC, BERLIN, Tz::America__St_Johns, Tz::Pacific__Auckland, Tz::Pacific__Chatham];
const HOURS: i64 = 40 * 24;

fn minutes(minutes: i64) -> Duration {
    Duration::from_secs(u64::try_from(minutes).unwrap() * 60)
}

#[derive(Debug, Clone)]
struct World {
    model: Model,
    retention: Retention,
    lead: Lead,
    zone: Tz,
    start: DateTime<Utc>,
    prune_every: i64,
    candidates: Vec<Candidate>,
}

fn world() -> impl Strategy<Value = World> {
    let ages = (1_i64..200, 2_i64..400, 1_i64..40, 1_i64..20, 0_i64..4);
    let rules = (proptest::option::of(1_u32..6), proptest::option::of(1_u32..4), any::<bool>());
    let one = (0..HOURS * 60, 0_i64..400, 0_u8..4);
    (ages, rules, proptest::collection::vec(one, 1..28), 0..STARTS.len(), 0..ZONES.len(), 1_i64..30).prop_map(
        |((keep, window, cadence, grace, sweep), (daily, weekly, keep_last), list, start, zone, prune_every)| {
            let (start, zone) = (at(STARTS[start]), ZONES[zone]);
            let last_good = if keep_last { LastGood::Keep } else { LastGood::Erase };
            let moment = |minute: i64| start + TimeDelta::minutes(minute);
            let backups: Vec<Modelled> = list
                .iter()
                .map(|(point, took, luck)| {
                    let local = moment(*point).with_timezone(&zone);
                    let (day, week) = (local.format("%Y-%m-%d").to_string(), local.format("%G-W%V").to_string());
                    Modelled { point: *point, available: point + took, good: *luck > 0, day, week }
                })
                .collect();
            let candidates = backups.iter().enumerate().map(|(place, one)| Candidate {
                backup: id(place),
                recovery_point: moment(one.point),
                available_at: moment(one.available),
                good: one.good,
            });
            let hours = |hours: i64| minutes(hours * 60);
            World {
                candidates: candidates.collect(),
                retention: Retention::new(hours(keep), hours(keep + window), daily, weekly, last_good).unwrap(),
                lead: Lead { cadence: hours(cadence), grace: hours(grace), sweep: hours(sweep) },
                model: Model {
                    keep: keep * 60,
                    delete: (keep + window) * 60,
                    lead: (2 * (2 * cadence + grace + sweep)).min(window) * 60,
                    daily,
                    weekly,
                    last_good,
                    backups,
                },
                zone,
                start,
                prune_every,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Six weeks, hour by hour: what the plan does is what the model does, and what was promised holds at each hour.
    #[test]
    fn the_plan_does_what_the_model_does(world in world()) {
        let World { model, retention, lead, zone, start, prune_every, candidates } = world;
        let mut there: Vec<usize> = Vec::new();
        for hour in 0..HOURS {
            let (minute, now) = (hour * 60, start + TimeDelta::hours(hour));
            let committed = |place: &usize| (minute - 60 + 1..=minute).contains(&model.backups[*place].available);
            there.extend((0..candidates.len()).filter(committed));
            if hour % prune_every == 0 {
                let before: Vec<Candidate> = there.iter().map(|place| candidates[*place].clone()).collect();
                let plan = retention.plan(&before, &lead, zone, now);
                prop_assert_eq!(plan.decisions.len(), before.len());
                let expected: Vec<usize> =
                    there.iter().copied().filter(|place| model.keeps(*place, &there, minute)).collect();
                let mut kept: Vec<usize> = plan.kept().map(number).collect();
                kept.sort_unstable();
                let mut sorted = expected.clone();
                sorted.sort_unstable();
                prop_assert_eq!(&kept, &sorted, "hour {}: {:#?}", hour, told(&plan));

                let mut order = before.clone();
                order.reverse();
                let middle = order.len() / 2;
                order.rotate_left(middle);
                prop_assert_eq!(&retention.plan(&order, &lead, zone, now), &plan);

                let after: Vec<Candidate> = expected.iter().map(|place| candidates[*place].clone()).collect();
                let again = retention.plan(&after, &lead, zone, now);
                prop_assert_eq!(again.deleted().count(), 0, "hour {}: {:#?}", hour, told(&again));

                for decision in &plan.decisions {
                    let one = &model.backups[number(&decision.backup)];
                    match &decision.fate {
                        Fate::Delete(_) => prop_assert!(model.old(one, minute)),
                        Fate::Keep(reasons) => {
                            let last = reasons.contains(&KeepReason::LastGood);
                            prop_assert!(now < decision.planned_expiry || last && model.last_good == LastGood::Keep);
                            prop_assert!(!reasons.is_empty());
                        }
                    }
                }
                there = expected;
            }
            // Whatever was committed at any time, is good, old enough and not expired: something that old is there.
            let reaches = |one: &Modelled| one.good && model.old(one, minute) && !model.expired(one, minute);
            if let Some(point) = model.backups.iter().filter(|one| reaches(one)).map(|one| one.point).max() {
                let back = there.iter().map(|place| &model.backups[*place]);
                let newest = back.filter(|one| reaches(one)).map(|one| one.point).max();
                prop_assert_eq!(newest, Some(point), "hour {}", hour);
            }
            // The last good one is never lost in silence.
            let goods: Vec<Candidate> =
                there.iter().map(|place| candidates[*place].clone()).filter(|one| one.good).collect();
            let half = |one: &Candidate| {
                let (from, until) = (retention.kept_until(one.available_at), retention.expires_at(one.recovery_point));
                now >= from && now - from >= until - now
            };
            prop_assert_eq!(
                retention.conflict(&goods, now).is_some(),
                !goods.is_empty() && goods.iter().max_by_key(|one| (one.recovery_point, one.available_at)).is_some_and(half)
            );
        }
    }
}
