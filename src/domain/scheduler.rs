//! What starts now, what was missed, when to look again: the scheduler's decisions. It is told the time and starts nothing.
//!
//! A *slot* is a moment at which a schedule is due. Of each task the newest slot that was dealt with is remembered, so that
//! everything else follows from the schedule and the time:
//!
//! - A task counts its slots from when it was first seen, or its schedule or zone changed: an edit starts nothing.
//! - Slots that nobody was there for become one run, the newest slot's; the others are counted as missed.
//! - Slots that come while the same task still runs are skipped and counted. Other tasks of the job may run beside it: a
//!   backup does not wait for a drill of hours.
//! - Not more runs at a time than there are places, and from two places on the last is a backup's. What finds none waits, and
//!   takes over the slots that come meanwhile.
//! - A failure that may pass is tried again after each of [`PAUSES`], never at or past the next slot. A run that nobody saw
//!   end is tried again likewise, with the time of its start, so that whoever does it can look whether it was done.
//! - A clock that goes forward makes slots due. One that goes back by less than [`MAX_STEP_BACK`] is waited for; beyond
//!   that it was wrong before, and slots count anew from where it is now.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::ids::JobName;
use super::operation::{Operation, Task};
use super::schedule::Schedule;

#[cfg(test)]
mod tests;
pub mod transient;

/// How long after each failure that may pass it is tried again.
pub const PAUSES: [TimeDelta; 3] = [TimeDelta::minutes(1), TimeDelta::minutes(5), TimeDelta::minutes(15)];
/// A clock that was set back by more was wrong before.
pub const MAX_STEP_BACK: TimeDelta = TimeDelta::hours(1);
/// Missed slots are counted one by one up to here.
const MAX_COUNTED: u64 = 1000;

/// What the config says, and what is the host's own.
#[derive(Debug, Clone)]
pub struct Timetable {
    /// The clock that schedules are read on.
    pub zone: Tz,
    /// What is due by itself.
    pub schedules: BTreeMap<Task, Schedule>,
    /// At most this much is added to a start.
    pub jitter: Duration,
    /// What makes the jitter this host's own.
    pub seed: [u8; 32],
    /// How much runs at a time, at least 1.
    pub at_once: usize,
}

/// What is remembered of every task, across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    tasks: BTreeMap<Task, TaskState>,
}

/// What is remembered of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// The schedule that slots were counted by, as it was written.
    schedule: String,
    /// The zone that it was read in.
    zone: String,
    /// Every slot up to here was dealt with.
    handled: DateTime<Utc>,
    /// A slot that was begun and is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
    /// Slots that nobody was there for.
    #[serde(default)]
    pub missed: u64,
    /// Slots that came while the task still ran.
    #[serde(default)]
    pub overlapped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    slot: DateTime<Utc>,
    /// From 1.
    attempt: usize,
    phase: Phase,
    /// When runs of this slot began that nobody saw end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost_since: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Running { since: DateTime<Utc> },
    Waiting { until: DateTime<Utc> },
}

/// Something to start now. It counts as running from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What.
    pub task: Task,
    /// The slot that it is for.
    pub slot: DateTime<Utc>,
    /// From 1.
    pub attempt: usize,
    /// Since when there may have been a run of this slot that nobody saw end: it may be done.
    pub lost_since: Option<DateTime<Utc>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was done, well or not, and another try changes nothing.
    Final,
    /// It failed of something that may pass.
    Transient,
    /// It was asked to end, and is to be done as soon as somebody is there again.
    Interrupted,
}

/// What somebody should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its slots count from now on.
    FirstSeen(Task),
    /// Its schedule is another one: its slots count from now on.
    Rescheduled(Task),
    /// It has no schedule any more.
    Gone(Task),
    /// So many slots, nobody there.
    Missed(Task, u64),
    /// So many slots came while it ran since then.
    Overlapped(Task, u64, DateTime<Utc>),
    /// The clock was set back.
    ClockBack(Task),
    /// It is tried again then.
    Retry(Task, DateTime<Utc>),
    /// It waits for its next slot.
    GaveUp(Task, usize),
    /// It ran when the process ended, and nobody saw how it came out.
    Lost(Task),
}

/// What a look at the clock came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// To start now.
    pub start: Vec<Start>,
    /// To tell.
    pub told: Vec<Told>,
    /// When to look again, at the latest.
    pub wake: Option<DateTime<Utc>>,
}

/// Slots that are due.
struct DueSlots {
    newest: DateTime<Utc>,
    count: u64,
}

impl Timetable {
    /// What is added to the starts of a job on this host.
    #[must_use]
    pub fn jitter_of(&self, job: &JobName) -> TimeDelta {
        let digest = blake3::keyed_hash(&self.seed, job.as_str().as_bytes());
        let number = digest.as_bytes().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let seconds = number % (self.jitter.as_secs() + 1);
        TimeDelta::seconds(i64::try_from(seconds).unwrap_or_default())
    }

    /// The slots after one moment up to another.
    fn slots(&self, schedule: &Schedule, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DueSlots> {
        let next = |after| schedule.next_after(after, self.zone).filter(|slot| *slot <= until);
        let mut due = DueSlots { newest: next(after)?, count: 1 };
        while due.count < MAX_COUNTED {
            let Some(slot) = next(due.newest) else { return Some(due) };
            due = DueSlots { newest: slot, count: due.count + 1 };
        }
        // From the end: how many there were does not matter any more.
        let near = [TimeDelta::hours(1), TimeDelta::days(1), TimeDelta::days(40), TimeDelta::days(400)];
        let from = near.into_iter().map(|back| until - back).find(|from| next(*from).is_some()).unwrap_or(due.newest);
        let mut newest = from.max(due.newest);
        while let Some(slot) = next(newest) {
            newest = slot;
        }
        Some(DueSlots { newest, ..due })
    }

    /// The first start after a slot.
    fn start_after(&self, task: &Task, slot: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.schedules.get(task)?.next_after(slot, self.zone)?;
        Some(next + self.jitter_of(&task.job))
    }
}

impl State {
    /// Takes up a config: what is new or has another schedule counts from now, what is gone is forgotten once it ended.
    pub fn follow(&mut self, table: &Timetable, now: DateTime<Utc>) -> Vec<Told> {
        let mut told = Vec::new();
        for (task, schedule) in &table.schedules {
            let fresh = TaskState {
                schedule: schedule.to_string(),
                zone: table.zone.name().to_owned(),
                handled: now,
                open: None,
                missed: 0,
                overlapped: 0,
            };
            match self.tasks.get_mut(task) {
                None => {
                    self.tasks.insert(task.clone(), fresh);
                    told.push(Told::FirstSeen(task.clone()));
                }
                Some(known) if known.schedule != fresh.schedule || known.zone != fresh.zone => {
                    (known.schedule, known.zone, known.handled) = (fresh.schedule, fresh.zone, now);
                    told.push(Told::Rescheduled(task.clone()));
                }
                Some(_) => {}
            }
        }
        self.tasks.retain(|task, known| {
            let stays = table.schedules.contains_key(task) || known.is_running();
            if !stays {
                told.push(Told::Gone(task.clone()));
            }
            stays
        });
        told
    }

    /// After a restart: what ran then does not any more, and nobody saw how it ended.
    pub fn recover(&mut self, table: &Timetable, now: DateTime<Utc>) -> Vec<Told> {
        let running: Vec<(Task, DateTime<Utc>)> = self.running().map(|(task, since)| (task.clone(), since)).collect();
        let mut told = Vec::new();
        for (task, since) in running {
            told.push(Told::Lost(task.clone()));
            if let Some(open) = self.tasks.get_mut(&task).and_then(|known| known.open.as_mut()) {
                open.lost_since = Some(open.lost_since.map_or(since, |earlier| earlier.min(since)));
            }
            self.try_again(table, &task, now, &mut told);
        }
        told
    }

    /// Looks at the clock.
    pub fn turn(&mut self, table: &Timetable, now: DateTime<Utc>) -> Turn {
        let mut turn = Turn::default();
        let mut ready: Vec<(Start, u64)> = Vec::new();
        for (task, schedule) in &table.schedules {
            let Some(known) = self.tasks.get_mut(task) else { continue };
            let reached = now - table.jitter_of(&task.job);
            known.mind_the_clock(task, now, &mut turn.told);
            let due = table.slots(schedule, known.handled, reached);
            match (&known.open, due) {
                (Some(Open { phase: Phase::Running { since }, .. }), Some(due)) => {
                    turn.told.push(Told::Overlapped(task.clone(), due.count, *since));
                    known.overlapped += due.count;
                    known.handled = due.newest;
                }
                (Some(Open { phase: Phase::Running { .. }, .. }), None) => {}
                // The newest slot takes the place of what was to be tried again.
                (_, Some(due)) => {
                    let start = Start { task: task.clone(), slot: due.newest, attempt: 1, lost_since: None };
                    ready.push((start, due.count - 1));
                }
                (Some(open @ Open { phase: Phase::Waiting { until }, .. }), None) if *until <= now => {
                    let Open { slot, attempt, lost_since, .. } = *open;
                    ready.push((Start { task: task.clone(), slot, attempt, lost_since }, 0));
                }
                _ => {}
            }
        }
        ready.sort_by(|(a, _), (b, _)| {
            let need = |start: &Start| (start.task.operation != Operation::Backup, start.slot);
            need(a).cmp(&need(b)).then_with(|| a.task.cmp(&b.task))
        });
        for (start, missed) in ready {
            if self.has_place(table, start.task.operation) {
                self.begin(&start, missed, now, &mut turn.told);
                turn.start.push(start);
            }
        }
        turn.wake = self.next_look(table, now);
        turn
    }

    /// Takes note of the end of a run.
    pub fn ended(&mut self, table: &Timetable, task: &Task, now: DateTime<Utc>, ending: Ending) -> Vec<Told> {
        let mut told = Vec::new();
        let Some(known) = self.tasks.get_mut(task) else { return told };
        let Some(Open { phase: Phase::Running { since }, .. }) = known.open else { return told };
        let Some(schedule) = table.schedules.get(task) else {
            self.tasks.remove(task);
            return vec![Told::Gone(task.clone())];
        };
        if let Some(due) = table.slots(schedule, known.handled, now - table.jitter_of(&task.job)) {
            told.push(Told::Overlapped(task.clone(), due.count, since));
            known.overlapped += due.count;
            known.handled = due.newest;
        }
        match ending {
            Ending::Final => known.open = None,
            Ending::Transient => self.try_again(table, task, now, &mut told),
            Ending::Interrupted => {
                if let Some(open) = &mut known.open {
                    open.phase = Phase::Waiting { until: now };
                }
            }
        }
        told
    }

    /// What runs, and since when.
    pub fn running(&self) -> impl Iterator<Item = (&Task, DateTime<Utc>)> {
        self.tasks.iter().filter_map(|(task, known)| match known.open {
            Some(Open { phase: Phase::Running { since }, .. }) => Some((task, since)),
            _ => None,
        })
    }

    /// What is remembered of every task.
    pub fn tasks(&self) -> impl Iterator<Item = (&Task, &TaskState)> {
        self.tasks.iter()
    }

    /// When a task starts next, if nothing is in its way: a retry, or a slot.
    #[must_use]
    pub fn next_start(&self, table: &Timetable, task: &Task) -> Option<DateTime<Utc>> {
        let known = self.tasks.get(task)?;
        let retry = match known.open {
            Some(Open { phase: Phase::Waiting { until }, .. }) => Some(until),
            _ => None,
        };
        retry.into_iter().chain(table.start_after(task, known.handled)).min()
    }

    fn begin(&mut self, start: &Start, missed: u64, now: DateTime<Utc>, told: &mut Vec<Told>) {
        let Some(known) = self.tasks.get_mut(&start.task) else { return };
        if missed > 0 {
            known.missed += missed;
            told.push(Told::Missed(start.task.clone(), missed));
        }
        known.handled = known.handled.max(start.slot);
        known.open = Some(Open {
            slot: start.slot,
            attempt: start.attempt,
            phase: Phase::Running { since: now },
            lost_since: start.lost_since,
        });
    }

    /// Whether one more may run.
    fn has_place(&self, table: &Timetable, operation: Operation) -> bool {
        let running = self.running().count();
        let others = self.running().filter(|(task, _)| task.operation != Operation::Backup).count();
        let room = running < table.at_once;
        room && (operation == Operation::Backup || table.at_once == 1 || others + 1 < table.at_once)
    }

    /// After the next pause, or with the next slot where that is not later.
    fn try_again(&mut self, table: &Timetable, task: &Task, now: DateTime<Utc>, told: &mut Vec<Told>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let Some(open) = &mut known.open else { return };
        let until = PAUSES.get(open.attempt - 1).map(|pause| now + *pause);
        let next = table.start_after(task, known.handled);
        match until.filter(|until| next.is_none_or(|next| *until < next)) {
            Some(until) => {
                (open.attempt, open.phase) = (open.attempt + 1, Phase::Waiting { until });
                told.push(Told::Retry(task.clone(), until));
            }
            None => {
                told.push(Told::GaveUp(task.clone(), open.attempt));
                known.open = None;
            }
        }
    }

    fn next_look(&self, table: &Timetable, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let of_task = |(task, known): (&Task, &TaskState)| {
            let retry = match known.open {
                Some(Open { phase: Phase::Waiting { until }, .. }) => Some(until),
                _ => None,
            };
            // What is due and found no place is looked at when a place is free.
            [retry, table.start_after(task, known.handled)].into_iter().flatten().filter(|at| *at > now).min()
        };
        self.tasks.iter().filter_map(of_task).min()
    }
}

impl TaskState {
    fn is_running(&self) -> bool {
        matches!(self.open, Some(Open { phase: Phase::Running { .. }, .. }))
    }

    /// Forgets what a clock said that was set back far.
    fn mind_the_clock(&mut self, task: &Task, now: DateTime<Utc>, told: &mut Vec<Told>) {
        if self.handled - now > MAX_STEP_BACK {
            self.handled = now;
            told.push(Told::ClockBack(task.clone()));
        }
        if let Some(Open { phase: Phase::Waiting { until }, attempt, .. }) = &mut self.open {
            let pause = PAUSES.get(attempt.saturating_sub(2)).copied().unwrap_or_default();
            *until = (*until).min(now + pause);
        }
    }
}
