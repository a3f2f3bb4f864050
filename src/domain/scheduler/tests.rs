//! The scheduler by example, and against brute force: years of slots, outages, failures and clocks that change.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn task(text: &str) -> Task {
    text.parse().unwrap()
}

fn table(zone: Tz, schedules: &[(&str, &str)]) -> Timetable {
    let schedules = schedules.iter().map(|(name, text)| (task(name), Schedule::parse(text).unwrap()));
    Timetable { zone, schedules: schedules.collect(), jitter: Duration::ZERO, seed: [7; 32], at_once: 2 }
}

fn followed(table: &Timetable, now: DateTime<Utc>) -> State {
    let mut state = State::default();
    state.follow(table, now);
    state
}

fn started(turn: &Turn) -> Vec<String> {
    turn.start
        .iter()
        .map(|start| format!("{} {} #{}", start.task, start.slot.format("%d %H:%M"), start.attempt))
        .collect()
}

#[test]
fn nothing_starts_before_it_was_seen_and_everything_after() {
    let table = table(Tz::UTC, &[("shop/backup", "0 2 * * *")]);
    let mut state = followed(&table, moment("2026-11-22T02:00:00Z"));
    let turn = state.turn(&table, moment("2026-11-22T02:00:00Z"));
    assert_eq!(turn, Turn { wake: Some(moment("2026-11-23T02:00:00Z")), ..Turn::default() });
    assert_eq!(state.turn(&table, moment("2026-11-23T01:59:59Z")).start, []);
    let now = moment("2026-11-23T02:00:00Z");
    let turn = state.turn(&table, now);
    assert_eq!(started(&turn), ["shop/backup 23 02:00 #1"]);
    assert_eq!(state.turn(&table, now).start, [], "it runs");
    assert_eq!(state.ended(&table, &task("shop/backup"), now, Ending::Final), []);
    assert_eq!(state.turn(&table, now).start, [], "it is done");
}

#[test]
fn what_was_missed_is_one_run() {
    let table = table(Tz::UTC, &[("shop/backup", "0 * * * *")]);
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let turn = state.turn(&table, moment("2026-11-23T02:30:00Z"));
    assert_eq!(started(&turn), ["shop/backup 23 02:00 #1"]);
    assert_eq!(turn.told, [Told::Missed(task("shop/backup"), 23)]);
    assert_eq!(turn.wake, Some(moment("2026-11-23T03:00:00Z")));
    // Two years of minutes are not counted one by one, and the newest is found all the same.
    let table = self::table(Tz::Europe__Berlin, &[("shop/backup", "*/7 3 * * *")]);
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let turn = state.turn(&table, moment("2028-11-23T02:30:00Z"));
    assert_eq!(started(&turn), ["shop/backup 23 02:28 #1"]);
}

#[test]
fn overlap_is_skipped_and_counted() {
    let table = table(Tz::UTC, &[("shop/backup", "0 * * * *")]);
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    assert_eq!(state.turn(&table, moment("2026-11-22T03:00:00Z")).start.len(), 1);
    let turn = state.turn(&table, moment("2026-11-22T04:00:10Z"));
    let since = moment("2026-11-22T03:00:00Z");
    assert_eq!((turn.start, turn.told), (vec![], vec![Told::Overlapped(task("shop/backup"), 1, since)]));
    let told = state.ended(&table, &task("shop/backup"), moment("2026-11-22T06:10:00Z"), Ending::Final);
    assert_eq!(told, [Told::Overlapped(task("shop/backup"), 2, since)]);
    assert_eq!(state.turn(&table, moment("2026-11-22T06:10:00Z")).start, []);
    assert_eq!(started(&state.turn(&table, moment("2026-11-22T07:00:00Z"))), ["shop/backup 22 07:00 #1"]);
    assert_eq!(state.tasks().next().unwrap().1.overlapped, 3);
}

#[test]
fn the_last_place_is_a_backups() {
    let drills =
        [("a/drill", "0 3 * * *"), ("b/check", "0 3 * * *"), ("c/backup", "0 3 * * *"), ("d/backup", "0 3 * * *")];
    let table = table(Tz::UTC, &drills);
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let now = moment("2026-11-22T03:00:00Z");
    assert_eq!(started(&state.turn(&table, now)), ["c/backup 22 03:00 #1", "d/backup 22 03:00 #1"]);
    state.ended(&table, &task("c/backup"), now, Ending::Final);
    assert_eq!(started(&state.turn(&table, now)), ["a/drill 22 03:00 #1"]);
    state.ended(&table, &task("d/backup"), now, Ending::Final);
    let turn = state.turn(&table, now);
    assert_eq!(turn.start, [], "a drill runs, and the other place waits for a backup");
    assert_eq!(turn.wake, Some(moment("2026-11-23T03:00:00Z")), "nothing changes before a run ends");
    state.ended(&table, &task("a/drill"), now, Ending::Final);
    assert_eq!(started(&state.turn(&table, moment("2026-11-22T09:00:00Z"))), ["b/check 22 03:00 #1"]);
    // One place is anybody's.
    let table = Timetable { at_once: 1, ..table };
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    for expected in ["c/backup", "d/backup", "a/drill", "b/check"] {
        assert_eq!(started(&state.turn(&table, now)), [format!("{expected} 22 03:00 #1")]);
        state.ended(&table, &task(expected), now, Ending::Final);
    }
}

#[test]
fn what_may_pass_is_tried_again_but_never_past_the_next_slot() {
    let table = table(Tz::UTC, &[("shop/backup", "0,30 * * * *")]);
    let shop = task("shop/backup");
    let mut state = followed(&table, moment("2026-11-22T02:45:00Z"));
    let mut now = moment("2026-11-22T03:00:00Z");
    for (attempt, pause) in [(1, 1), (2, 5), (3, 15)] {
        assert_eq!(started(&state.turn(&table, now)), [format!("shop/backup 22 03:00 #{attempt}")]);
        let until = now + TimeDelta::minutes(pause);
        assert_eq!(state.ended(&table, &shop, now, Ending::Transient), [Told::Retry(shop.clone(), until)]);
        let turn = state.turn(&table, until - TimeDelta::seconds(1));
        assert_eq!((turn.start, turn.wake), (vec![], Some(until)));
        now = until;
    }
    assert_eq!(started(&state.turn(&table, now)), ["shop/backup 22 03:00 #4"]);
    assert_eq!(state.ended(&table, &shop, now, Ending::Transient), [Told::GaveUp(shop.clone(), 4)]);
    assert_eq!(state.turn(&table, now).wake, Some(moment("2026-11-22T03:30:00Z")));
    // At half past a run fails that began late: the slot of four is nearer than the pause.
    assert_eq!(state.turn(&table, moment("2026-11-22T03:30:00Z")).start.len(), 1);
    let told = state.ended(&table, &shop, moment("2026-11-22T03:59:30Z"), Ending::Transient);
    assert_eq!(told, [Told::GaveUp(shop.clone(), 1)]);
    // A slot that comes first takes the place of what was to be tried again.
    assert_eq!(started(&state.turn(&table, moment("2026-11-22T04:00:00Z"))), ["shop/backup 22 04:00 #1"]);
}

#[test]
fn a_restart_neither_repeats_nor_forgets() {
    let table = table(Tz::UTC, &[("mail/backup", "0 * * * *"), ("shop/backup", "0 * * * *")]);
    let (mail, shop) = (task("mail/backup"), task("shop/backup"));
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let began = moment("2026-11-22T03:00:00Z");
    assert_eq!(state.turn(&table, began).start.len(), 2);
    state.ended(&table, &mail, began, Ending::Final);
    let text = serde_json::to_string(&state).unwrap();
    let mut state: State = serde_json::from_str(&text).unwrap();
    let now = moment("2026-11-22T03:10:00Z");
    let again = now + PAUSES[0];
    assert_eq!(state.recover(&table, now), [Told::Lost(shop.clone()), Told::Retry(shop.clone(), again)]);
    assert_eq!(state.follow(&table, now), []);
    assert_eq!(state.turn(&table, now).start, []);
    let start = Start { task: shop.clone(), slot: began, attempt: 2, lost_since: Some(began) };
    assert_eq!(state.turn(&table, again).start, [start]);
    // Asked to end, it is the first thing afterwards.
    assert_eq!(state.ended(&table, &shop, again, Ending::Interrupted), []);
    assert_eq!(started(&state.turn(&table, moment("2026-11-22T03:20:00Z"))), ["shop/backup 22 03:00 #2"]);
}

#[test]
fn an_edit_starts_nothing() {
    let before = table(Tz::UTC, &[("shop/backup", "0 3 * * *"), ("shop/drill", "0 5 * * *")]);
    let mut state = followed(&before, moment("2026-11-22T02:30:00Z"));
    let after = table(Tz::UTC, &[("shop/backup", "0 1 * * *"), ("mail/backup", "* * * * *")]);
    let now = moment("2026-11-22T02:45:00Z");
    let (shop, mail) = (task("shop/backup"), task("mail/backup"));
    let told = state.follow(&after, now);
    assert_eq!(told, [Told::FirstSeen(mail), Told::Rescheduled(shop.clone()), Told::Gone(task("shop/drill"))]);
    assert_eq!(state.turn(&after, now).start, []);
    assert_eq!(state.follow(&after, now), []);
    assert_eq!(state.next_start(&after, &shop), Some(moment("2026-11-23T01:00:00Z")));
    // Another clock is another schedule.
    let moved = table(Tz::Asia__Tokyo, &[("shop/backup", "0 1 * * *")]);
    assert!(state.follow(&moved, now).contains(&Told::Rescheduled(shop)));
    // What runs is not forgotten before it ends.
    let mut state = followed(&before, moment("2026-11-22T02:30:00Z"));
    state.turn(&before, moment("2026-11-22T03:00:00Z"));
    let none = table(Tz::UTC, &[]);
    assert_eq!(state.follow(&none, now), [Told::Gone(task("shop/drill"))]);
    assert_eq!(state.running().count(), 1);
    assert_eq!(state.ended(&none, &task("shop/backup"), now, Ending::Transient), [Told::Gone(task("shop/backup"))]);
    assert_eq!(state, State::default());
}

#[test]
fn a_clock_that_steps() {
    let table = table(Tz::UTC, &[("shop/backup", "0 * * * *")]);
    let shop = task("shop/backup");
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let mut run = |now: &str| {
        let turn = state.turn(&table, moment(now));
        state.ended(&table, &shop, moment(now), Ending::Final);
        (turn.start.len(), turn.told)
    };
    assert_eq!(run("2026-11-22T03:00:00Z"), (1, vec![]));
    // A little back: the same slot does not come twice.
    assert_eq!(run("2026-11-22T02:59:00Z"), (0, vec![]));
    assert_eq!(run("2026-11-22T03:00:30Z"), (0, vec![]));
    // Ten years ahead and back again: the schedule goes on.
    assert_eq!(run("2036-11-22T03:00:00Z").0, 1);
    assert_eq!(run("2026-11-22T03:01:00Z"), (0, vec![Told::ClockBack(shop.clone())]));
    assert_eq!(run("2026-11-22T04:00:00Z"), (1, vec![]));
    // A retry does not wait for a clock that was wrong.
    let mut state = followed(&table, moment("2036-11-22T02:30:00Z"));
    state.turn(&table, moment("2036-11-22T03:00:00Z"));
    state.ended(&table, &shop, moment("2036-11-22T03:00:00Z"), Ending::Transient);
    let now = moment("2026-11-22T03:05:00Z");
    assert_eq!(state.turn(&table, now).start, []);
    assert_eq!(started(&state.turn(&table, now + PAUSES[0])), ["shop/backup 22 03:00 #2"]);
}

#[test]
fn jitter_is_stable_and_each_hosts_own() {
    let schedules = [("shop/backup", "0 3 * * *"), ("shop/drill", "30 4 * * *")];
    let table = Timetable { jitter: Duration::from_secs(300), ..table(Tz::UTC, &schedules) };
    let other = Timetable { seed: [8; 32], ..table.clone() };
    let job: JobName = "shop".parse().unwrap();
    let late = table.jitter_of(&job);
    assert!(late > TimeDelta::zero() && late <= TimeDelta::minutes(5));
    assert_eq!(late, table.clone().jitter_of(&job));
    assert_ne!(late, other.jitter_of(&job));
    assert_ne!(late, table.jitter_of(&"mail".parse().unwrap()));
    let mut state = followed(&table, moment("2026-11-22T02:30:00Z"));
    let due = moment("2026-11-22T03:00:00Z") + late;
    assert_eq!(state.turn(&table, due - TimeDelta::seconds(1)).wake, Some(due));
    assert_eq!(started(&state.turn(&table, due)), ["shop/backup 22 03:00 #1"]);
    // First seen between a slot and its start: nothing was due yet, and nothing starts.
    let mut state = followed(&table, moment("2026-11-22T03:00:00Z"));
    assert_eq!(state.turn(&table, due).start, []);
}

/// A year, a zone with clock changes, and nothing in the way: what croner names happened, once.
#[test]
fn every_run_of_a_year_happens_once() {
    let zones = [Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Africa__Casablanca, Tz::UTC];
    let schedules = [
        ("a/backup", "30 2 * * *"),
        ("a/drill", "0 5 * * SUN"),
        ("b/backup", "15 * * * *"),
        ("b/check", "0 3 1 * *"),
        ("c/backup", "0 */3 * * *"),
    ];
    for zone in zones {
        let table = Timetable { at_once: 16, ..table(zone, &schedules) };
        let (begin, end) = (moment("2026-01-01T00:00:00Z"), moment("2027-01-01T00:00:00Z"));
        let mut state = followed(&table, begin);
        let mut ran: BTreeMap<Task, Vec<DateTime<Utc>>> = BTreeMap::new();
        let mut now = begin;
        while now < end {
            let turn = state.turn(&table, now);
            assert_eq!(turn.told, []);
            for start in &turn.start {
                assert_eq!(start.slot, now);
                ran.entry(start.task.clone()).or_default().push(start.slot);
                // Through the file, as if the process were another one each time.
                state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
                assert_eq!(state.ended(&table, &start.task, now, Ending::Final), []);
            }
            now = turn.wake.unwrap();
        }
        for (name, text) in schedules {
            let reference: croner::Cron = text.parse().unwrap();
            let expected: Vec<DateTime<Utc>> = reference
                .iter_after(begin.with_timezone(&zone))
                .map(|run| run.to_utc())
                .take_while(|run| *run < end)
                .collect();
            assert_eq!(ran[&task(name)], expected, "{text} in {zone}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes, and the loop looks when it is told to.
    Pass(i64),
    /// Nobody is there for so long; what ran is lost.
    Outage(i64),
    /// What runs ends so.
    End(Ending),
    /// A look that nobody asked for.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1_i64..400).prop_map(Step::Pass),
        1 => (1_i64..3_000).prop_map(Step::Outage),
        4 => prop_oneof![Just(Ending::Final), Just(Ending::Transient)].prop_map(Step::End),
        1 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens: each slot that was reached is begun once, or counted once as missed or overlapped; no more runs
    /// than places; a retry lies before the next slot; nothing starts twice.
    #[test]
    fn every_slot_is_accounted_for(
        steps in steps(),
        zone in prop_oneof![Just(Tz::Europe__Berlin), Just(Tz::UTC), Just(Tz::Australia__Lord_Howe)],
        (at_once, jitter) in (1_usize..4, 0_u64..400),
        start in 0_i64..(366 * 24 * 60),
    ) {
        let schedules = [("a/backup", "*/20 * * * *"), ("a/drill", "30 2 * * *"), ("b/backup", "0 */2 * * *"), ("b/check", "10 1,2,3 * * *")];
        let jitter = Duration::from_secs(jitter);
        let table = Timetable { at_once, jitter, ..table(zone, &schedules) };
        let begin = moment("2026-01-01T00:00:00Z") + TimeDelta::minutes(start);
        let mut now = begin;
        let mut state = followed(&table, now);
        let mut begun: BTreeMap<Task, Vec<DateTime<Utc>>> = BTreeMap::new();
        let mut look = |state: &mut State, now: DateTime<Utc>| -> Result<Option<DateTime<Utc>>, TestCaseError> {
            let turn = state.turn(&table, now);
            for start in &turn.start {
                prop_assert!(start.slot + table.jitter_of(&start.task.job) <= now);
                if start.attempt == 1 {
                    begun.entry(start.task.clone()).or_default().push(start.slot);
                } else {
                    // Slots that came while it ran were skipped; the next one is behind those.
                    let next = table.start_after(&start.task, state.tasks[&start.task].handled).unwrap();
                    prop_assert!(now < next, "a retry at or past the next slot");
                }
            }
            prop_assert!(state.running().count() <= table.at_once);
            let others = state.running().filter(|(task, _)| task.operation != Operation::Backup).count();
            prop_assert!(others <= table.at_once.saturating_sub(1).max(1));
            prop_assert!(turn.wake.is_none_or(|wake| wake > now));
            Ok(turn.wake)
        };
        let mut wake = look(&mut state, now)?;
        for step in steps {
            match step {
                Step::Pass(minutes) => {
                    let until = now + TimeDelta::minutes(minutes);
                    while let Some(at) = wake.filter(|at| *at <= until) {
                        now = at;
                        wake = look(&mut state, now)?;
                    }
                    now = until;
                }
                Step::Outage(minutes) => {
                    now += TimeDelta::minutes(minutes);
                    state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
                    state.recover(&table, now);
                    prop_assert_eq!(state.follow(&table, now), vec![]);
                    wake = look(&mut state, now)?;
                }
                Step::End(ending) => {
                    let first = state.running().next().map(|(task, _)| task.clone());
                    if let Some(task) = first {
                        state.ended(&table, &task, now, ending);
                        wake = look(&mut state, now)?;
                    }
                }
                Step::Look => wake = look(&mut state, now)?,
            }
        }
        // Everything ends, so that what waited for a place is taken up as well.
        loop {
            let running: Vec<Task> = state.running().map(|(task, _)| task.clone()).collect();
            if running.is_empty() { break }
            for task in running {
                state.ended(&table, &task, now, Ending::Final);
            }
            look(&mut state, now)?;
        }
        for (task, known) in state.tasks() {
            let schedule = &table.schedules[task];
            let late = table.jitter_of(&task.job);
            let all: BTreeSet<DateTime<Utc>> = std::iter::successors(schedule.next_after(begin, zone), |run| schedule.next_after(*run, zone))
                .take_while(|slot| *slot + late <= now)
                .collect();
            let begun = begun.remove(task).unwrap_or_default();
            let once: BTreeSet<DateTime<Utc>> = begun.iter().copied().collect();
            prop_assert_eq!(once.len(), begun.len(), "{} began a slot twice", task);
            prop_assert!(once.is_subset(&all));
            let counted = known.missed + known.overlapped + begun.len() as u64;
            prop_assert_eq!(counted, all.len() as u64, "{}", task);
        }
    }
}
