//! Schedules in tables, against croner, and against a walk over every minute.

use proptest::prelude::*;

use super::*;

const ZONES: &[Tz] = &[
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::Europe__London,
    Tz::Europe__Moscow,
    Tz::America__New_York,
    Tz::America__Sao_Paulo,
    Tz::America__St_Johns,
    Tz::America__Nuuk,
    Tz::Asia__Kolkata,
    Tz::Asia__Tehran,
    Tz::Africa__Casablanca,
    Tz::Africa__Cairo,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Auckland,
    Tz::Pacific__Chatham,
];

fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn runs(schedule: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(schedule).unwrap();
    let mut after = moment(after);
    let mut found = Vec::new();
    for _ in 0..count {
        after = schedule.next_after(after, zone).unwrap();
        found.push(after.with_timezone(&zone).format("%m-%d %H:%M %:z").to_string());
    }
    found
}

#[test]
fn ordinary_days() {
    for (schedule, after, expected) in [
        ("15 */6 * * *", "2026-11-22T02:00:00Z", ["11-22 06:15 +00:00", "11-22 12:15 +00:00"]),
        ("0 2 * * *", "2026-11-22T02:00:00Z", ["11-23 02:00 +00:00", "11-24 02:00 +00:00"]),
        ("0 2 * * *", "2026-11-22T01:59:59.999Z", ["11-22 02:00 +00:00", "11-23 02:00 +00:00"]),
        // 22 November 2026 is a Sunday.
        ("0 5 * * SUN", "2026-11-22T00:00:00Z", ["11-22 05:00 +00:00", "11-29 05:00 +00:00"]),
        ("0 5 * * 0", "2026-11-22T00:00:00Z", ["11-22 05:00 +00:00", "11-29 05:00 +00:00"]),
        ("0 5 * * 7", "2026-11-22T00:00:00Z", ["11-22 05:00 +00:00", "11-29 05:00 +00:00"]),
        ("0 5 * * 1", "2026-11-22T00:00:00Z", ["11-23 05:00 +00:00", "11-30 05:00 +00:00"]),
        ("0 5 * * sat-sun", "2026-11-22T00:00:00Z", ["11-22 05:00 +00:00", "11-28 05:00 +00:00"]),
        ("0 5 * JAN,dec 5-7", "2026-11-22T00:00:00Z", ["12-04 05:00 +00:00", "12-05 05:00 +00:00"]),
        // Both days restricted: either. One of them beginning with a star: both.
        ("0 0 25 * MON", "2026-11-22T00:00:00Z", ["11-23 00:00 +00:00", "11-25 00:00 +00:00"]),
        ("0 0 */2 * MON", "2026-11-22T00:00:00Z", ["11-23 00:00 +00:00", "12-07 00:00 +00:00"]),
        ("@daily", "2026-11-22T00:00:00Z", ["11-23 00:00 +00:00", "11-24 00:00 +00:00"]),
        ("@Weekly", "2026-11-22T00:00:00Z", ["11-29 00:00 +00:00", "12-06 00:00 +00:00"]),
    ] {
        assert_eq!(runs(schedule, Tz::UTC, after, 2), expected, "{schedule}");
    }
}

#[test]
fn clocks_go_forward() {
    let before = "2026-03-28T20:00:00Z";
    // Berlin has no 02:00 to 03:00 on 29 March.
    assert_eq!(runs("30 2 * * *", Tz::Europe__Berlin, before, 2), ["03-29 03:00 +02:00", "03-30 02:30 +02:00"]);
    assert_eq!(
        runs("*/20 2,3 * * *", Tz::Europe__Berlin, before, 4),
        ["03-29 03:00 +02:00", "03-29 03:20 +02:00", "03-29 03:40 +02:00", "03-30 02:00 +02:00"]
    );
    assert_eq!(
        runs("30 */2 * * *", Tz::Europe__Berlin, "2026-03-28T23:00:00Z", 2),
        ["03-29 00:30 +01:00", "03-29 04:30 +02:00"]
    );
    // A gap of half an hour; a gap at midnight; a gap of a whole day.
    assert_eq!(runs("15 2 * * *", Tz::Australia__Lord_Howe, "2026-10-03T00:00:00Z", 1), ["10-04 02:30 +11:00"]);
    assert_eq!(runs("0 0 * * *", Tz::America__Sao_Paulo, "2018-11-03T12:00:00Z", 1), ["11-04 01:00 -02:00"]);
    assert_eq!(
        runs("0 12 * * *", Tz::Pacific__Apia, "2011-12-29T12:00:00Z", 3),
        ["12-29 12:00 -10:00", "12-31 00:00 +14:00", "12-31 12:00 +14:00"]
    );
}

#[test]
fn clocks_go_back() {
    let before = "2026-10-24T20:00:00Z";
    assert_eq!(runs("30 2 * * *", Tz::Europe__Berlin, before, 2), ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]);
    assert_eq!(
        runs("30 * * * *", Tz::Europe__Berlin, "2026-10-25T00:00:00Z", 3),
        ["10-25 02:30 +02:00", "10-25 02:30 +01:00", "10-25 03:30 +01:00"]
    );
    // From between two runs of the first pass, and from its end.
    assert_eq!(runs("0,10 * * * *", Tz::Europe__Berlin, "2026-10-25T00:45:00Z", 1), ["10-25 02:00 +01:00"]);
    assert_eq!(runs("50 2 * * *", Tz::Europe__Berlin, "2026-10-25T01:00:00Z", 1), ["10-26 02:50 +01:00"]);
}

#[test]
fn bad_schedules_say_what_is_wrong() {
    for (text, fragment) in [
        ("", "has 0 fields"),
        ("0 2 * *", "has 4 fields"),
        ("0 0 2 * * *", "has 6 fields"),
        ("60 * * * *", "the minute field \"60\" is not a value from 0 to 59"),
        ("0 24 * * *", "from 0 to 23"),
        ("0 0 0 * *", "from 1 to 31"),
        ("0 0 * 13 *", "from 1 to 12, or jan to dec"),
        ("0 0 * * 8", "from 0 to 7, or sun to sat"),
        ("0 0 * * sonntag", "or sun to sat"),
        ("*/0 * * * *", "no step between 1 and 59"),
        ("5/15 * * * *", "5-59/15"),
        ("0 22-4 * * *", "22-23,0-4"),
        ("0 0 * * FRI-MON", "5-7,0-1"),
        ("0 0 1,,2 * *", "field \"\" is not a value"),
        ("0 0 L * *", "is not a value"),
        ("? * * * *", "is not a value"),
        ("@reboot", "@daily"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 30,31 feb *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
    ] {
        let message = Schedule::parse(text).unwrap_err().to_string();
        assert!(message.contains(fragment), "{text:?}: {message}");
    }
    // Day or weekday: the weekday saves it. And a day that comes every four years does come.
    assert!(Schedule::parse("0 0 31 2 MON").is_ok());
    assert_eq!(runs("0 0 29 2 *", Tz::UTC, "2026-11-22T00:00:00Z", 1), ["02-29 00:00 +00:00"]);
}

#[test]
fn largest_gaps() {
    let from = moment("2026-11-22T00:00:00Z");
    for (schedule, zone, hours, clocks) in [
        ("0 2 * * *", Tz::UTC, 24.0, ClockChange::None),
        ("0 2 * * *", Tz::Europe__Berlin, 25.0, ClockChange::Back),
        ("0 2 * * *", Tz::Australia__Lord_Howe, 24.5, ClockChange::Back),
        // Every six hours as the clock shows: seven hours once a year.
        ("15 */6 * * *", Tz::Europe__Berlin, 7.0, ClockChange::Back),
        // 02:30 runs in the first pass only, and the next is 03:30.
        ("30 0-23 * * *", Tz::Europe__Berlin, 2.0, ClockChange::Back),
        ("30 * * * *", Tz::Europe__Berlin, 1.0, ClockChange::None),
        ("* * * * *", Tz::America__New_York, 1.0 / 60.0, ClockChange::None),
        ("0 9-17 * * MON-FRI", Tz::UTC, 64.0, ClockChange::None),
        ("0 3 * * SUN", Tz::Europe__Berlin, 169.0, ClockChange::Back),
        ("0 0 29 2 *", Tz::UTC, 1461.0 * 24.0, ClockChange::None),
    ] {
        let found = Schedule::parse(schedule).unwrap().largest_gap(zone, from).unwrap();
        let expected = Duration::from_secs_f64((hours * 3600.0_f64).round());
        assert_eq!((found.gap, found.clocks), (expected, clocks), "{schedule} {zone}: {found:?}");
        assert_eq!((found.until - found.from).to_std().unwrap(), expected);
    }
    assert!(Schedule::parse("@yearly").unwrap().largest_gap(Tz::UTC, moment("2099-06-01T00:00:00Z")).is_none());
}

/// A field as text, with the values that it stands for.
#[derive(Debug, Clone)]
struct Drawn {
    text: String,
    values: BTreeSet<u32>,
}

fn drawn(least: u32, most: u32, star_most: u32) -> impl Strategy<Value = Drawn> {
    let star = move |step: u32| (least..=star_most).step_by(step as usize).collect();
    let range = (least..=most, least..=most).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => Just(Drawn { text: "*".into(), values: star(1) }),
        2 => (1..=most).prop_map(move |step| Drawn { text: format!("*/{step}"), values: star(step) }),
        4 => (least..=most).prop_map(|v| Drawn { text: v.to_string(), values: [v].into() }),
        1 => prop::collection::btree_set(least..=most, 2..4).prop_map(|values| Drawn { text: list(Some(&values)), values }),
        1 => range.clone().prop_map(|(a, b)| Drawn { text: format!("{a}-{b}"), values: (a..=b).collect() }),
        1 => (range, 1..=most).prop_map(|((a, b), step)| Drawn {
            text: format!("{a}-{b}/{step}"),
            values: (a..=b).step_by(step as usize).collect(),
        }),
    ]
}

#[derive(Debug, Clone)]
struct Expression {
    fields: [Drawn; 5],
}

impl Expression {
    fn text(&self) -> String {
        self.fields.each_ref().map(|field| field.text.clone()).join(" ")
    }

    fn star(&self, field: usize) -> bool {
        self.fields[field].text.starts_with('*')
    }

    /// crontab(5), word by word, on a wall time.
    fn matches(&self, wall: NaiveDateTime) -> bool {
        use chrono::Datelike;
        let has = |field: usize, value: u32| self.fields[field].values.contains(&value);
        let weekday = wall.weekday().num_days_from_sunday();
        let (day, week) = (has(2, wall.day()), has(4, weekday) || (weekday == 0 && has(4, 7)));
        let days = if self.star(2) || self.star(4) { day && week } else { day || week };
        has(0, wall.minute()) && has(1, wall.hour()) && has(3, wall.month()) && days
    }
}

fn expressions() -> impl Strategy<Value = Expression> {
    // Hours are drawn from the small ones mostly: that is when clocks change.
    let hour = prop_oneof![2 => drawn(0, 23, 23), 1 => (0..4_u32).prop_map(|v| Drawn { text: v.to_string(), values: [v].into() })];
    let months = prop_oneof![
        2 => Just(Drawn { text: "*".into(), values: (1..=12).collect() }),
        1 => drawn(1, 12, 12),
    ];
    (drawn(0, 59, 59), hour, drawn(1, 31, 31), months, drawn(0, 7, 6))
        .prop_map(|(a, b, c, d, e)| Expression { fields: [a, b, c, d, e] })
}

/// A zone, and a moment in 1990 to 2040: half of the time within two days before its clocks change or within an hour
/// and a half around.
fn moments() -> impl Strategy<Value = (Tz, DateTime<Utc>)> {
    let near = prop_oneof![2 => Just(None), 1 => (-2_880_i64..90).prop_map(Some), 1 => (-90_i64..90).prop_map(Some)];
    (prop::sample::select(ZONES), 631_152_000_i64..2_208_988_800, near).prop_map(|(zone, seconds, near)| {
        let start = DateTime::from_timestamp(seconds / 60 * 60, 0).unwrap();
        let day = TimeDelta::days(1);
        let change = (0..370)
            .map(|days| start + day * days)
            .find(|at| offset_seconds(*at, zone) != offset_seconds(*at + day, zone))
            .map(|at| first_moment(at, at + day, |moment| offset_seconds(moment, zone) != offset_seconds(at, zone)));
        match (change, near) {
            (Some(change), Some(minutes)) => (zone, change + TimeDelta::minutes(minutes)),
            _ => (zone, start),
        }
    })
}

/// Whether clocks decide this moment: it comes twice on the wall, or is the first behind a gap.
fn shifted(moment: DateTime<Utc>, zone: Tz) -> bool {
    let wall = moment.with_timezone(&zone).naive_local();
    let just_before = wall - TimeDelta::seconds(1);
    matches!(zone.from_local_datetime(&wall), chrono::LocalResult::Ambiguous(..))
        || matches!(zone.from_local_datetime(&just_before), chrono::LocalResult::None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// croner reads crontab's fields and knows zones. It differs from crontab(5) in two points, and these are left
    /// out, nothing else:
    /// - a day field like `*/2` counts as restricted in croner, and the two day fields are OR-ed; in crontab(5) what
    ///   begins with `*` is not restricted, and they are AND-ed;
    /// - a *fixed* time is one minute of one hour in croner; `0,30 2 * * *` or `30 2,14 * * *` are intervals to it,
    ///   which miss their run in a gap and repeat it in a fold. To crontab(5), and here, what has no star is fixed.
    ///   There the runs that clocks decide are left out of both sequences.
    #[test]
    fn agrees_with_croner(expression in expressions(), (zone, start) in moments()) {
        let stepped = |field: usize| expression.fields[field].text.starts_with("*/");
        let plain_star = |field: usize| expression.fields[field].text == "*";
        prop_assume!((!stepped(2) || plain_star(4)) && (!stepped(4) || plain_star(2)));
        let text = expression.text();
        let reference: croner::Cron = text.parse().unwrap();
        let Ok(ours) = Schedule::parse(&text) else {
            prop_assert!(reference.find_next_occurrence(&start, false).is_err(), "{} fires", text);
            return Ok(());
        };
        let single = |field: usize| expression.fields[field].text.bytes().all(|b| b.is_ascii_digit());
        let compare_all = expression.star(1) || (single(0) && single(1));
        let (mut here, mut there) = (start, start.with_timezone(&zone));
        for _ in 0..20 {
            loop {
                here = ours.next_after(here, zone).unwrap();
                if compare_all || !shifted(here, zone) { break }
            }
            loop {
                there = reference.find_next_occurrence(&there, false).unwrap();
                if compare_all || !shifted(there.to_utc(), zone) { break }
            }
            prop_assert_eq!(here, there.to_utc(), "{} in {} from {}", text, zone, start);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every minute of four days, one by one, nothing left out.
    #[test]
    fn agrees_with_a_walk_over_minutes(expression in expressions(), (zone, start) in moments()) {
        let Ok(ours) = Schedule::parse(&expression.text()) else { return Ok(()) };
        let wall = |minute: i64| (start + TimeDelta::minutes(minute)).with_timezone(&zone).naive_local();
        let minute = TimeDelta::minutes(1);
        let mut expected = Vec::new();
        // The furthest that the clock has been: a wall time before it is shown for the second time.
        let mut furthest = wall(-1_500);
        for at in -1_499..4 * 1_440 {
            let now = wall(at);
            let mut fires = expression.matches(now);
            if !expression.star(1) {
                fires &= now > furthest;
                let mut skipped = furthest + minute;
                while skipped < now {
                    fires |= expression.matches(skipped);
                    skipped += minute;
                }
            }
            furthest = furthest.max(now);
            if fires && at > 0 {
                expected.push(start + TimeDelta::minutes(at));
            }
        }
        let mut found = Vec::new();
        let mut after = start;
        while found.len() < expected.len() {
            after = ours.next_after(after, zone).unwrap();
            found.push(after);
        }
        prop_assert_eq!(&found, &expected, "{} in {} from {}", expression.text(), zone, start);
        if let Some(next) = ours.next_after(after, zone) {
            prop_assert!(next >= start + TimeDelta::days(4), "{} in {}: {}", expression.text(), zone, next);
        }
    }

    /// The day by day shortcut of the largest gap against all runs, one by one, of a window as long.
    #[test]
    fn the_largest_gap_is_the_largest(
        hours in prop::collection::btree_set(0_u32..24, 1..4), star in any::<bool>(), days in drawn(0, 7, 6),
        (zone, start) in moments(),
    ) {
        let hours = if star { "*/5".to_owned() } else { list(Some(&hours)) };
        let text = format!("20 {hours} * * {}", days.text);
        let schedule = Schedule::parse(&text).unwrap();
        let end = start + TimeDelta::days(GAP_WINDOW_DAYS);
        let (mut run, mut largest) = (schedule.next_after(start, zone).unwrap(), TimeDelta::zero());
        while run < end {
            let next = schedule.next_after(run, zone).unwrap();
            largest = largest.max(next - run);
            run = next;
        }
        let found = schedule.largest_gap(zone, start).unwrap();
        prop_assert_eq!(found.gap, largest.to_std().unwrap(), "{} in {} from {}: {:?}", text, zone, start, found);
    }
}
