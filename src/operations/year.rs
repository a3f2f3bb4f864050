//! A year in seconds: two hosts, a vault in memory that has the true time, and weather: failing calls, kills, clocks
//! that jump, damage, a month in which nothing runs, a source that is gone for a month. At every hour a naive model that
//! keeps its own copies is asked what must be there and what must be gone.
//!
//! The seed replays a year: `LIFEBOAT_SEED=7 cargo test --lib operations::year::storms`. What is random in the program itself (ids,
//! keys) is not the seed's; no decision of the simulation depends on it.

mod catalog;
mod dice;
mod machine;
mod model;
mod promises;
mod rules;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::dice::Dice;
use self::promises::Watch;
use self::rules::{JOBS, Pace, Rules, Weather};
use self::world::{Ended, Trouble, World};
use crate::config::PruneWhen;
use crate::domain::record::RunOutcome;
use crate::domain::schedule::Schedule;
use crate::error::Code;
use crate::observe::Silent;
use crate::operations::check::{Depth, check};
use crate::operations::prune::AfterPause;
use crate::operations::quarantine::quarantine;
use crate::storage::LockMode;

fn start() -> DateTime<Utc> {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

const CALM: Weather = Weather { failures: 0, kills: 0, meanwhile: 0, jumps: 0, damage: 0, takeovers: 0 };
const ROUGH: Weather = Weather { failures: 12, kills: 12, meanwhile: 10, jumps: 300, damage: 400, takeovers: 500 };
const STORM: Weather = Weather { failures: 4, kills: 5, meanwhile: 4, jumps: 90, damage: 150, takeovers: 50 };

/// One at a time: what happens in the middle of a verb is the process's.
static SIMULATING: Mutex<()> = Mutex::new(());

fn simulate(seed: u64, days: u64, jobs: usize, weather: Weather, pace: Pace) {
    simulate_on(seed, days, jobs, weather, pace, None);
}

fn simulate_on(seed: u64, days: u64, jobs: usize, weather: Weather, pace: Pace, lock: Option<LockMode>) {
    let _one = SIMULATING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new(Rules::draw(seed, days, jobs, weather), pace, lock);
    let mut watch = Watch::default();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        for hour in 1..=days * 24 {
            pass_an_hour(&mut world, &mut watch, hour);
        }
    }));
    if let Err(cause) = ended {
        let mut told = format!("LIFEBOAT_SEED={seed} replays this; it was {}", world.now());
        told += &format!(" (day {})\n", (world.now() - start()).num_days());
        for job in &world.jobs {
            let lead = &world.ground.leads[&job.name];
            told += &format!("  {}: {} {:?} {lead}\n", job.name, job.schedule, job.retention);
        }
        for line in watch.journal.iter().rev().take(40).rev() {
            told += &format!("  {line}\n");
        }
        let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
        resume_unwind(cause);
    }
    watch.tell(&world);
    if lock.is_some() {
        watch.holds_were_few(&world);
    }
    assert!(watch.restored > days / 14 || weather.damage > 0, "nearly nothing was restored: {}", watch.restored);
    assert!(watch.backups > days / 2, "nearly nothing was backed up: {}", watch.backups);
}

fn pass_an_hour(world: &mut World, watch: &mut Watch, hour: u64) {
    let before = world.now();
    let next = start() + TimeDelta::hours(i64::try_from(hour).unwrap());
    // Something may have taken longer than an hour.
    world.truth.advance((next - before).to_std().unwrap_or(Duration::ZERO));
    let is_paused = world.rules.paused.contains(&hour);
    blow(world, watch, hour);
    if !is_paused {
        run_timers(world, watch, hour, before);
        people(world, watch, hour);
    }
    watch.every_hour(world, is_paused);
    if hour % 24 == 7 && watch.has_changed(world) {
        watch.every_day(world);
    }
    if hour % (24 * 7) == 8 {
        watch.every_week(world, &mut Dice::of(world.rules.seed, hour, "restore"));
    }
    if hour % (24 * 30) == 9 {
        watch.every_month(world);
    }
}

/// What happens without anybody doing anything.
fn blow(world: &mut World, watch: &mut Watch, hour: u64) {
    let (seed, weather) = (world.rules.seed, world.rules.weather);
    for machine in 0..world.machines.len() {
        let mut dice = Dice::of(seed, hour * 2 + machine as u64, "clock");
        let clock = &world.machines[machine].clock;
        if dice.once_in(weather.jumps) {
            let by = jump(&mut dice);
            clock.set_off(TimeDelta::minutes(by));
            watch.note(world, format!("clock of host {machine} is off by {by} minutes"));
        } else if !clock.off().is_zero() && dice.once_in(8) {
            clock.set_off(TimeDelta::zero());
            watch.note(world, format!("clock of host {machine} is right again"));
        }
    }
    let mut dice = Dice::of(seed, hour, "source");
    for job in 0..world.jobs.len() {
        if dice.once_in(9) {
            world.change_source(job, &mut dice);
        }
        let (gone, hours) = &world.rules.source_gone;
        if *gone == job && weather.failures > 0 {
            world.set_source(job, !hours.contains(&hour));
        }
    }
    let mut dice = Dice::of(seed, hour, "damage");
    if dice.once_in(weather.damage) {
        let candidates: Vec<usize> = (0..world.model.backups.len())
            .filter(|place| world.model.is_there(&world.model.backups[*place]))
            .filter(|place| !world.model.is_spoilt(&world.model.backups[*place]))
            .collect();
        if !candidates.is_empty() {
            let backup = &world.model.backups[*dice.one_of(&candidates)];
            let key = match dice.below(10) {
                0 => backup.document.clone(),
                1 | 2 => dice.one_of(&backup.lists.iter().collect::<Vec<_>>()).to_string(),
                _ => dice.one_of(&backup.objects.iter().collect::<Vec<_>>()).to_string(),
            };
            let is_deleted = dice.once_in(2);
            watch.note(world, format!("damage to {key}, deleted: {is_deleted}"));
            world.damage(&key, is_deleted);
        }
    }
}

/// Minutes, forward or back, from a few to days.
fn jump(dice: &mut Dice) -> i64 {
    let longest = *dice.one_of(&[4, 30, 600, 4 * 1440]);
    let by = i64::try_from(dice.between(1, longest)).unwrap();
    if dice.once_in(2) { by } else { -by }
}

fn trouble(dice: &mut Dice, weather: Weather) -> Trouble {
    let most = *dice.one_of(&[12, 60, 150, 400]);
    let at_call = dice.between(1, most);
    let after = dice.once_in(2);
    if dice.once_in(weather.kills) {
        return Trouble::Kill { at_call, after };
    }
    if dice.once_in(weather.failures) {
        return Trouble::Failure { at_call, after, lasting: dice.once_in(2), kind: dice.below(3) };
    }
    if dice.once_in(weather.meanwhile) {
        return match dice.below(3) {
            0 => Trouble::Prune { at_call },
            1 => Trouble::Jump { at_call, by_minutes: jump(dice) },
            _ => Trouble::Wait { at_call, minutes: *dice.one_of(&[2, 40, 100, 150, 1500]) },
        };
    }
    Trouble::None
}

/// Cron on each host, by its own clock.
fn run_timers(world: &mut World, watch: &mut Watch, hour: u64, before: DateTime<Utc>) {
    let zone = world.ground.settings.timezone;
    for (job, (name, machine)) in JOBS.into_iter().enumerate().take(world.jobs.len()) {
        let off = world.machines[machine].clock.off();
        let (from, until) = (before + off, world.now() + off);
        let is_due = |schedule: &Schedule| schedule.next_after(from, zone).is_some_and(|next| next <= until);
        let mut dice = Dice::of(world.rules.seed, hour, name);
        if let PruneWhen::Scheduled(schedule) = &world.jobs[job].prune
            && is_due(schedule)
        {
            let of_prune = trouble(&mut dice, world.rules.weather);
            prune(world, watch, machine, &[job], of_prune);
        }
        if !is_due(&world.jobs[job].schedule) {
            continue;
        }
        let of_backup = trouble(&mut dice, world.rules.weather);
        let is_source_there = world.is_source_there(job);
        let is_clock_right = world.machines[machine].clock.off().abs() <= TimeDelta::minutes(5);
        let is_success = match world.back_up(job, of_backup) {
            Ended::Killed => {
                watch.note(world, format!("backup {job} killed, {of_backup:?}"));
                continue;
            }
            Ended::Failed(error) => {
                watch.note(world, format!("backup {job} not begun, {of_backup:?}: {error}"));
                assert!(of_backup != Trouble::None, "nothing disturbed this backup: {error}");
                false
            }
            Ended::Done(report) => {
                let said = report.failure.as_ref().map(ToString::to_string);
                watch.note(
                    world,
                    format!("backup {job} {:?}, {of_backup:?}: {said:?} {:?}", report.outcome, report.refuted_objects),
                );
                let is_success = report.outcome == RunOutcome::Success;
                if of_backup == Trouble::None && is_source_there {
                    let clock = report.failure.as_ref().is_some_and(|error| error.code() == Code::ClockWrong);
                    let broken = report.failure.as_ref().is_some_and(|error| error.code() == Code::ObjectMissing)
                        && !world.model.broken.is_empty();
                    assert!(is_success || clock && !is_clock_right || broken, "an undisturbed backup failed: {said:?}");
                }
                watch.backups += u64::from(is_success);
                is_success
            }
        };
        if is_success && world.jobs[job].prune == PruneWhen::AfterBackup {
            let of_prune = trouble(&mut dice, world.rules.weather);
            prune(world, watch, machine, &[job], of_prune);
        }
    }
}

fn prune(world: &mut World, watch: &mut Watch, machine: usize, jobs: &[usize], trouble: Trouble) {
    prune_as(world, watch, machine, jobs, AfterPause::Stop, trouble);
}

fn prune_as(
    world: &mut World,
    watch: &mut Watch,
    machine: usize,
    jobs: &[usize],
    after_pause: AfterPause,
    trouble: Trouble,
) {
    match world.prune(machine, jobs, after_pause, trouble) {
        Ended::Killed => watch.note(world, format!("prune of {jobs:?} killed, {trouble:?}")),
        Ended::Failed(error) => {
            watch.note(world, format!("prune of {jobs:?} failed, {trouble:?}: {error}"));
            let is_clock_right = world.machines[machine].clock.off().abs() <= TimeDelta::minutes(5);
            assert!(
                trouble != Trouble::None || error.code() == Code::ClockWrong && !is_clock_right,
                "nothing disturbed this prune: {error}"
            );
        }
        Ended::Done(report) => {
            watch.note(
                world,
                format!(
                    "prune of {jobs:?} by {machine}, {trouble:?}: {} removed, {} condemned, {} deleted, {} wait, clean through \
                     {:?}, stops {:?}, held until {:?}",
                    report.deleted_backups(),
                    report.condemned_objects,
                    report.deleted_objects,
                    report.waiting_objects,
                    report.clean_through,
                    report.stops,
                    report.held_until
                ),
            );
            let is_stopped = !report.stops.is_empty();
            watch.removed += if is_stopped { 0 } else { report.deleted_backups() as u64 };
            watch.deleted += report.deleted_objects;
            watch.locked += report.locked_objects;
            let (pauses, others): (Vec<_>, Vec<_>) =
                report.stops.into_iter().partition(|(stop, _)| stop.contains("either the clock jumped"));
            for (stop, _) in &others {
                assert!(watch.is_ours(world, stop), "nothing that we broke stops deletions: {stop}");
            }
            watch.stopped = others;
            if pauses.is_empty() {
                return;
            }
            assert!(after_pause == AfterPause::Stop, "a person had said that it was a pause: {pauses:?}");
            // The store's clock never lies here. Every other time a person says so; else it must go on by itself.
            watch.pauses += 1;
            if watch.pauses.is_multiple_of(2) {
                prune_as(world, watch, machine, jobs, AfterPause::GoOn, Trouble::None);
            }
        }
    }
}

/// What people do: now and then the other host prunes for all; somebody checks; somebody looks at what stops deletions.
fn people(world: &mut World, watch: &mut Watch, hour: u64) {
    let mut dice = Dice::of(world.rules.seed, hour, "people");
    let all: Vec<usize> = (0..world.jobs.len()).collect();
    if dice.once_in(world.rules.weather.takeovers) {
        let machine = dice.place(2);
        let trouble = trouble(&mut dice, world.rules.weather);
        prune(world, watch, machine, &all, trouble);
    }
    if hour % 24 == 10 && world.rules.weather.damage > 0 && dice.once_in(7) {
        look_for_damage(world, watch, dice.place(2));
    }
    if hour % 24 == 11 && !watch.stopped.is_empty() && dice.once_in(2) {
        for (stop, hint) in std::mem::take(&mut watch.stopped) {
            for what in
                hint.split("`lifeboat quarantine ").skip(1).map(|rest| rest.split('`').next().unwrap().to_owned())
            {
                let ended = world.run(dice.place(2), Trouble::None, |host, ground| {
                    quarantine(host, &ground.vault(Trouble::None), &what)
                });
                match ended {
                    Ended::Done(done) => watch.note(world, format!("quarantined {done:?} for {stop}")),
                    Ended::Failed(error) => watch.note(world, format!("quarantine {what}: {error}")),
                    Ended::Killed => unreachable!("nothing kills it"),
                }
            }
        }
    }
}

fn look_for_damage(world: &mut World, watch: &mut Watch, machine: usize) {
    let known: BTreeMap<_, _> = world.jobs.iter().map(|job| (job.name.clone(), job.retention.delete_after)).collect();
    let spoilt: BTreeSet<_> = world
        .model
        .backups
        .iter()
        .filter(|one| world.model.is_there(one) && !world.model.is_unbelieved(one) && world.model.is_spoilt(one))
        .map(|one| one.manifest.id.clone())
        .collect();
    let ended = world.run(machine, Trouble::None, |host, ground| {
        let vault = ground.vault(Trouble::None);
        let report = check(host, &vault, &[], &known, &Depth { read_data: None }, &Silent)?;
        Ok((report, host.refuted(&vault.id, None)?))
    });
    let Ended::Done((report, refuted)) = ended else { panic!("nothing disturbed this check") };
    watch.note(world, format!("check by {machine}: {} damaged", report.damaged.len()));
    let silent: Vec<_> = spoilt.iter().filter(|id| !refuted.contains(*id)).collect();
    assert!(silent.is_empty(), "broken, and the check did not say so: {silent:?}");
}

#[test]
fn a_rough_year() {
    simulate(1, 365, 2, ROUGH, Pace::Sparse);
}

/// Nothing is held when a sweep comes for it, and nothing is ever late.
#[test]
fn quiet_weeks_in_a_vault_that_holds() {
    for (seed, pace) in [(5, Pace::Dense), (6, Pace::Dense), (7, Pace::Sparse)] {
        let days = if pace == Pace::Sparse { 120 } else { 30 };
        simulate_on(seed, days, 2, CALM, pace, Some(LockMode::Compliance));
    }
}

#[test]
fn a_rough_half_year_in_a_vault_that_holds() {
    // What a thief does to what is held is tested elsewhere; here nothing breaks.
    let weather = Weather { damage: 0, ..ROUGH };
    simulate_on(8, 180, 2, weather, Pace::Sparse, Some(LockMode::Governance));
}

#[test]
fn quiet_weeks() {
    simulate(2, 21, 2, CALM, Pace::Dense);
}

/// The worst weather. `LIFEBOAT_SEED` replays a seed, or a range of them as `1-50`; `LIFEBOAT_DAYS` says how long.
#[test]
fn storms() {
    let given = std::env::var("LIFEBOAT_SEED").unwrap_or_else(|_| "3-4".to_owned());
    let days = std::env::var("LIFEBOAT_DAYS").map_or(24, |days| days.parse().unwrap());
    let (first, last) = given.split_once('-').unwrap_or((&given, &given));
    for seed in first.parse().unwrap()..=last.parse().unwrap() {
        simulate(seed, days, 2, STORM, Pace::Dense);
    }
}
