//! What was told, and how channels fare: so that a trouble that lasts is not told each minute, its end is told once, and
//! what does not arrive is counted, whatever process it was that tried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::queue::EVENT_KEPT;
use super::{NotifyError, folder};
use crate::domain::ids::JobName;
use crate::domain::operation::{Operation, Task};
use crate::error::Code;

/// What lasts is told again after so long: a job that fails each night is told of each day, also where it fails a little sooner.
pub const TOLD_AGAIN_AFTER: TimeDelta = TimeDelta::hours(23);
const VERSION: u32 = 1;

/// The memory, as it lies in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Of each task that ended here, by its name.
    tasks: BTreeMap<String, TaskMemory>,
    /// What lasts, by what it is.
    standing: BTreeMap<String, Standing>,
    /// How channels fare, by name.
    channels: BTreeMap<String, ChannelMemory>,
    /// Runs that were found to have been killed and that nobody was told of, by the name of their task.
    #[serde(default)]
    killed: BTreeMap<String, Killed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Killed {
    began: DateTime<Utc>,
    found: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TaskMemory {
    ended: DateTime<Utc>,
    failing: Option<Failing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failing {
    since: DateTime<Utc>,
    code: String,
    told: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    since: DateTime<Utc>,
    level: u8,
    told: DateTime<Utc>,
}

/// How a channel fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMemory {
    /// Attempts that did not arrive, and what was given up.
    pub failures: u64,
    /// When something last arrived.
    pub delivered: Option<DateTime<Utc>>,
    /// What was in the way the last time, if something was.
    pub trouble: Option<String>,
}

/// How a run ended, for the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Well.
    Good,
    /// Not so, with this code.
    Bad(&'a str),
}

/// What is worth telling of a run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It failed: for the first time, otherwise than before, or still after a day. Since when.
    Trouble(DateTime<Utc>),
    /// It went well, after it did not. Since when it did not.
    Recovered(DateTime<Utc>),
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The job.
    pub job: JobName,
    /// What it is.
    pub kind: TroubleKind,
    /// How bad; worse is told at once.
    pub level: u8,
}

/// Kinds of what lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// Runs of it do not come.
    Overdue(Operation),
    /// Something is not erased.
    Erasure,
}

impl Trouble {
    fn name(&self) -> String {
        match self.kind {
            TroubleKind::Overdue(operation) => overdue_name(&Task { job: self.job.clone(), operation }),
            TroubleKind::Erasure => format!("{}/erasure", self.job),
        }
    }
}

fn overdue_name(task: &Task) -> String {
    format!("{task}/overdue")
}

impl Memory {
    /// A run ended. Gives what is worth telling of it.
    pub fn ended(&mut self, task: &Task, verdict: Verdict<'_>, now: DateTime<Utc>) -> Option<News> {
        self.ended_since(task, verdict, now, now)
    }

    /// A run that began then was found not to have ended: to be told, by whoever tells next. Of several the first, since it is
    /// one trouble.
    pub fn found_killed(&mut self, task: &Task, began: DateTime<Utc>, now: DateTime<Utc>) {
        self.killed.entry(task.to_string()).or_insert(Killed { began, found: now });
    }

    /// Those that were found and not told, and when they began. What was found longer ago than an event is kept is forgotten:
    /// there was nobody to tell.
    #[must_use]
    pub fn killed(&self, now: DateTime<Utc>) -> Vec<(Task, DateTime<Utc>)> {
        let news = self.killed.iter().filter(|(_, killed)| (now - killed.found).abs() <= EVENT_KEPT);
        news.filter_map(|(task, killed)| Some((task.parse().ok()?, killed.began))).collect()
    }

    /// They are told, as failures that ended now. Gives what is worth telling of each.
    pub fn tell_killed(&mut self, now: DateTime<Utc>) -> Vec<(Task, News)> {
        let killed = self.killed(now);
        self.killed.clear();
        let verdict = Verdict::Bad(Code::Killed.name());
        let news = killed.into_iter().map(|(task, began)| {
            let news = self.ended_since(&task, verdict, began, now);
            (task, news)
        });
        news.filter_map(|(task, news)| Some((task, news?))).collect()
    }

    fn ended_since(
        &mut self,
        task: &Task,
        verdict: Verdict<'_>,
        first: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<News> {
        let before = self.tasks.remove(&task.to_string()).and_then(|known| known.failing);
        // Whatever came of it: it came.
        let overdue = self.standing.remove(&overdue_name(task));
        let (failing, news) = match (verdict, before) {
            (Verdict::Good, Some(failing)) => (None, Some(News::Recovered(failing.since))),
            (Verdict::Good, None) => (None, overdue.map(|standing| News::Recovered(standing.since))),
            (Verdict::Bad(code), Some(failing)) if failing.code == code && now < failing.told + TOLD_AGAIN_AFTER => {
                (Some(failing), None)
            }
            (Verdict::Bad(code), before) => {
                let since = before.map_or(first, |failing| failing.since);
                (Some(Failing { since, code: code.to_owned(), told: now }), Some(News::Trouble(since)))
            }
        };
        self.tasks.insert(task.to_string(), TaskMemory { ended: now, failing });
        news
    }

    /// When a run of it last ended here, well or badly.
    #[must_use]
    pub fn last_end(&self, task: &Task) -> Option<DateTime<Utc>> {
        self.tasks.get(&task.to_string()).map(|known| known.ended)
    }

    /// Everything that lasts now; what is not among it is over. Gives those that are to be told.
    pub fn lasting(&mut self, found: Vec<Trouble>, now: DateTime<Utc>) -> Vec<Trouble> {
        let mut before = std::mem::take(&mut self.standing);
        let mut tell = Vec::new();
        for trouble in found {
            let known = before.remove(&trouble.name());
            let since = known.as_ref().map_or(now, |known| known.since);
            let told = match known {
                Some(known) if trouble.level <= known.level && now < known.told + TOLD_AGAIN_AFTER => known.told,
                _ => {
                    tell.push(trouble.clone());
                    now
                }
            };
            self.standing.insert(trouble.name(), Standing { since, level: trouble.level, told });
        }
        tell
    }

    /// Something arrived at a channel.
    pub fn arrived(&mut self, channel: &str, now: DateTime<Utc>) {
        let memory = self.channels.entry(channel.to_owned()).or_default();
        (memory.delivered, memory.trouble) = (Some(now), None);
    }

    /// Something did not, or was given up.
    pub fn failed(&mut self, channel: &str, trouble: String) {
        let memory = self.channels.entry(channel.to_owned()).or_default();
        memory.failures += 1;
        memory.trouble = Some(trouble);
    }

    /// How a channel fares.
    #[must_use]
    pub fn channel(&self, name: &str) -> ChannelMemory {
        self.channels.get(name).cloned().unwrap_or_default()
    }
}

/// The memory's file.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(flatten)]
    memory: Memory,
}

impl MemoryFile {
    /// In this folder, which is there.
    pub(super) fn within(folder: &Path) -> Self {
        Self { path: folder.join("memory.json") }
    }

    /// What it holds. A damaged one holds nothing: then something may be told twice.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read(&self) -> Result<Memory, NotifyError> {
        let Some(bytes) = folder::read(&self.path)? else { return Ok(Memory::default()) };
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(Document { version: VERSION, memory }) => Ok(memory),
            _ => {
                tracing::error!(file = %self.path.display(), "what was told is not known any more: the file is damaged");
                Ok(Memory::default())
            }
        }
    }

    /// Changes it, while nobody else does.
    ///
    /// # Errors
    /// When the system refuses; then what was there stays.
    pub fn change<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> Result<T, NotifyError> {
        let _held = folder::lock(&self.path.with_extension("lock"))?;
        let before = self.read()?;
        let mut memory = before.clone();
        let given = change(&mut memory);
        if memory != before {
            let bytes = serde_json::to_vec(&Document { version: VERSION, memory });
            folder::replace(&self.path, &bytes.map_err(|cause| folder::io("write", &self.path)(cause.into()))?)?;
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hours)
    }

    #[test]
    fn a_failure_is_told_once_a_day_and_its_end_once() {
        let (mut memory, task) = (Memory::default(), "shop/backup".parse().unwrap());
        let mut ended = |verdict, hour| memory.ended(&task, verdict, at(hour));
        assert_eq!(ended(Verdict::Good, -1), None);
        assert_eq!(ended(Verdict::Bad("locked"), 0), Some(News::Trouble(at(0))));
        assert_eq!(ended(Verdict::Bad("locked"), 1), None);
        assert_eq!(ended(Verdict::Bad("storage-full"), 2), Some(News::Trouble(at(0))), "it is another trouble");
        assert_eq!(ended(Verdict::Bad("storage-full"), 24), None);
        assert_eq!(ended(Verdict::Bad("storage-full"), 25), Some(News::Trouble(at(0))));
        assert_eq!(ended(Verdict::Bad("storage-full"), 26), None);
        assert_eq!(ended(Verdict::Good, 27), Some(News::Recovered(at(0))));
        assert_eq!(ended(Verdict::Good, 28), None);
    }

    #[test]
    fn a_killed_run_is_a_failure_that_is_told_once() {
        let (mut memory, task): (_, Task) = (Memory::default(), "shop/backup".parse().unwrap());
        memory.found_killed(&task, at(0), at(6));
        memory.found_killed(&task, at(1), at(7));
        assert_eq!(memory.killed(at(8)), [(task.clone(), at(0))]);
        assert_eq!(memory.tell_killed(at(8)), [(task.clone(), News::Trouble(at(0)))]);
        assert_eq!(memory.tell_killed(at(8)), []);
        memory.found_killed(&task, at(9), at(10));
        assert_eq!(memory.tell_killed(at(10)), [], "again, and within a day");
        assert_eq!(memory.ended(&task, Verdict::Good, at(11)), Some(News::Recovered(at(0))));
        memory.found_killed(&task, at(12), at(13));
        assert_eq!(memory.tell_killed(at(13 + 24 * 4)), [], "nobody was there to be told");
        assert_eq!(memory.killed(at(13)), []);
    }

    #[test]
    fn what_lasts_is_told_again_when_it_gets_worse_or_after_a_day() {
        let mut memory = Memory::default();
        let job: JobName = "shop".parse().unwrap();
        let erasure = |level| Trouble { job: job.clone(), kind: TroubleKind::Erasure, level };
        let overdue = Trouble { job: job.clone(), kind: TroubleKind::Overdue(Operation::Backup), level: 0 };
        assert_eq!(memory.lasting(vec![erasure(50), overdue.clone()], at(0)).len(), 2);
        assert_eq!(memory.lasting(vec![erasure(50), overdue.clone()], at(1)), []);
        assert_eq!(memory.lasting(vec![erasure(75), overdue.clone()], at(2)), [erasure(75)]);
        assert_eq!(memory.lasting(vec![erasure(75), overdue.clone()], at(23)), std::slice::from_ref(&overdue));
        let task = Task { job: job.clone(), operation: Operation::Backup };
        assert_eq!(memory.ended(&task, Verdict::Good, at(24)), Some(News::Recovered(at(0))), "it runs again");
        assert_eq!(memory.lasting(vec![erasure(50)], at(24)), [], "better than it was");
        assert_eq!(memory.lasting(vec![], at(25)), []);
        assert_eq!(memory.lasting(vec![erasure(50)], at(26)), [erasure(50)], "it was over");
    }

    #[test]
    fn it_is_kept_and_a_damaged_one_is_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::within(folder.path());
        file.change(|memory| memory.failed("mail", "nobody answers".to_owned())).unwrap();
        file.change(|memory| memory.failed("mail", "nobody answers".to_owned())).unwrap();
        file.change(|memory| memory.arrived("chat", at(0))).unwrap();
        let known = file.read().unwrap();
        assert_eq!((known.channel("mail").failures, known.channel("chat").delivered), (2, Some(at(0))));
        std::fs::write(folder.path().join("memory.json"), "{\"version\":1").unwrap();
        assert_eq!(file.read().unwrap(), Memory::default());
        file.change(|memory| memory.arrived("chat", at(1))).unwrap();
        assert_eq!(file.read().unwrap().channel("chat").delivered, Some(at(1)));
    }
}
