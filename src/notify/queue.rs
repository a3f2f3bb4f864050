//! What waits to be sent: a file an item in the state folder, named after the moment when it was laid down, oldest first.
//!
//! Nothing of a secret is in it: a channel is named, and where its address lies is looked up when it is sent to.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::heartbeat::{Beat, Sign};
use super::{NotifyError, folder};

/// No more wait; the oldest gives way.
pub const MAX_WAITING: usize = 1000;
/// An event that is older is no news.
pub const EVENT_KEPT: TimeDelta = TimeDelta::days(3);
/// The end of a run that is told later would pass for a newer one.
pub const BEAT_KEPT: TimeDelta = TimeDelta::hours(1);
/// A start that is told later is none.
pub const START_KEPT: TimeDelta = TimeDelta::minutes(2);
/// After so many minutes it is tried again, the first time and so on; the last holds from there on.
const AGAIN_AFTER_MINUTES: [i64; 4] = [1, 5, 15, 60];
/// The name under which heartbeats are counted.
pub const HEARTBEAT: &str = "heartbeat";
const VERSION: u32 = 1;
const ENDING: &str = ".json";

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    version: u32,
    /// For whom: a channel's name, or [`HEARTBEAT`].
    pub channel: String,
    /// Since when it waits.
    pub laid: DateTime<Utc>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be tried next.
    pub due: DateTime<Utc>,
    /// What it is.
    pub what: What,
}

/// What waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// For a channel.
    Event(Box<Event>),
    /// For the heartbeat of its job.
    Beat(Beat),
}

impl Item {
    /// For a channel.
    #[must_use]
    pub fn event(channel: &str, event: Event, now: DateTime<Utc>) -> Self {
        let what = What::Event(Box::new(event));
        Self { version: VERSION, channel: channel.to_owned(), laid: now, attempts: 0, due: now, what }
    }

    /// For a heartbeat.
    #[must_use]
    pub fn beat(beat: Beat, now: DateTime<Utc>) -> Self {
        let channel = HEARTBEAT.to_owned();
        Self { version: VERSION, channel, laid: now, attempts: 0, due: now, what: What::Beat(beat) }
    }

    /// Whether it would say something that is no longer so. A clock that was set back does not make it last for ever.
    #[must_use]
    pub fn is_stale(&self, now: DateTime<Utc>) -> bool {
        let kept = match &self.what {
            What::Event(_) => EVENT_KEPT,
            What::Beat(Beat { sign: Sign::Start, .. }) => START_KEPT,
            What::Beat(_) => BEAT_KEPT,
        };
        (now - self.laid).abs() > kept
    }

    /// It was tried, and did not arrive.
    pub fn did_not_arrive(&mut self, now: DateTime<Utc>) {
        let step = usize::try_from(self.attempts).unwrap_or(usize::MAX).min(AGAIN_AFTER_MINUTES.len() - 1);
        self.due = now + TimeDelta::minutes(AGAIN_AFTER_MINUTES[step]);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Whether `end` is the end of the run whose start this is.
    fn is_start_of(&self, end: &Self) -> bool {
        match (&self.what, &end.what) {
            (What::Beat(start), What::Beat(end)) => {
                start.sign == Sign::Start && end.sign != Sign::Start && start.run == end.run
            }
            _ => false,
        }
    }
}

/// The queue.
#[derive(Debug, Clone)]
pub struct Queue {
    folder: PathBuf,
}

/// An item and its file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    pub(super) name: String,
    pub(super) item: Item,
}

impl Queue {
    /// In this folder; it is made when there is something to put into it.
    pub(super) fn within(folder: &Path) -> Self {
        Self { folder: folder.join("queue") }
    }

    /// Lays an item down; durable when this returns. `tie` tells apart what is laid down at one moment. Gives what had to give
    /// way.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lay(&self, item: &Item, tie: u32) -> Result<Vec<Item>, NotifyError> {
        folder::make(&self.folder)?;
        let mut gone = Vec::new();
        let names = self.names()?;
        for name in names.iter().take((names.len() + 1).saturating_sub(MAX_WAITING)) {
            gone.extend(self.read(name)?);
            self.remove(name)?;
        }
        let name = format!("{:020}-{tie:08x}{ENDING}", item.laid.timestamp_micros().max(0));
        self.write(&name, item)?;
        Ok(gone)
    }

    /// What waits, oldest first. A start that was tried, and whose end waits too, is taken away: told late, it would pass for
    /// another run.
    pub(super) fn waiting(&self) -> Result<Vec<Waiting>, NotifyError> {
        let mut waiting = Vec::new();
        for name in self.names()? {
            if let Some(item) = self.read(&name)? {
                waiting.push(Waiting { name, item });
            }
        }
        let is_late =
            |start: &Waiting| start.item.attempts > 0 && waiting.iter().any(|end| start.item.is_start_of(&end.item));
        let late: Vec<String> = waiting.iter().filter(|start| is_late(start)).map(|start| start.name.clone()).collect();
        for name in &late {
            self.remove(name)?;
        }
        waiting.retain(|waiting| !late.contains(&waiting.name));
        Ok(waiting)
    }

    /// What waits, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn items(&self) -> Result<Vec<Item>, NotifyError> {
        let mut items = Vec::new();
        for name in self.names()? {
            items.extend(self.read(&name)?);
        }
        Ok(items)
    }

    pub(super) fn write(&self, name: &str, item: &Item) -> Result<(), NotifyError> {
        let path = self.folder.join(name);
        let bytes = serde_json::to_vec(item).map_err(|cause| folder::io("write", &path)(cause.into()))?;
        folder::replace(&path, &bytes)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), NotifyError> {
        folder::remove(&self.folder.join(name))
    }

    fn names(&self) -> Result<Vec<String>, NotifyError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(folder::io("list", &self.folder)(cause)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(folder::io("list", &self.folder))?.file_name();
            names.extend(name.to_str().filter(|name| name.ends_with(ENDING)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// `None` where another process has sent it meanwhile. What is damaged says nothing, and is taken away.
    fn read(&self, name: &str) -> Result<Option<Item>, NotifyError> {
        let path = self.folder.join(name);
        let Some(bytes) = folder::read(&path)? else { return Ok(None) };
        match serde_json::from_slice::<Item>(&bytes) {
            Ok(item) if item.version == VERSION => Ok(Some(item)),
            _ => {
                tracing::error!(file = %path.display(), "a notification that waited is damaged, and is taken away");
                self.remove(name)?;
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::failed;
    use super::super::heartbeat::RunUuid;
    use super::*;
    use crate::domain::operation::Operation;

    fn at(minutes: i64) -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
    }

    fn beat(sign: Sign, run: u128, minutes: i64) -> Item {
        let run = RunUuid::from_random(run);
        let body = String::new();
        Item::beat(Beat { job: "shop".parse().unwrap(), operation: Operation::Backup, run, sign, body }, at(minutes))
    }

    #[test]
    fn it_is_kept_in_order_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::within(folder.path());
        assert_eq!(queue.items().unwrap(), []);
        for minute in 0..i64::try_from(MAX_WAITING).unwrap() {
            assert_eq!(queue.lay(&Item::event("mail", failed(), at(minute)), 0).unwrap(), []);
        }
        let gone = queue.lay(&Item::event("chat", failed(), at(-5)), 0).unwrap();
        assert_eq!(gone.iter().map(|item| item.laid).collect::<Vec<_>>(), [at(0)]);
        let items = queue.items().unwrap();
        assert_eq!((items.len(), items[0].channel.as_str(), items[1].laid), (MAX_WAITING, "chat", at(1)));
        fs::write(folder.path().join("queue/00-0.json"), "{").unwrap();
        assert_eq!(queue.items().unwrap().len(), MAX_WAITING);
        assert!(!folder.path().join("queue/00-0.json").exists());
    }

    #[test]
    fn tried_again_after_longer_and_longer_until_it_is_stale() {
        let mut item = Item::event("mail", failed(), at(0));
        for minutes in [1, 5, 15, 60, 60] {
            item.did_not_arrive(at(0));
            assert_eq!(item.due, at(minutes));
        }
        assert!(!item.is_stale(at(3 * 24 * 60)) && item.is_stale(at(3 * 24 * 60 + 1)));
        assert!(beat(Sign::Start, 1, 0).is_stale(at(3)) && !beat(Sign::Success, 1, 0).is_stale(at(60)));
        assert!(beat(Sign::Success, 1, 0).is_stale(at(61)) && beat(Sign::Success, 1, 0).is_stale(at(-61)));
    }

    #[test]
    fn a_start_is_not_told_after_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::within(folder.path());
        let mut tried = beat(Sign::Start, 1, 0);
        tried.did_not_arrive(at(0));
        for item in [&tried, &beat(Sign::Start, 2, 1)] {
            queue.lay(item, 0).unwrap();
        }
        assert_eq!(queue.waiting().unwrap().len(), 2);
        queue.lay(&beat(Sign::Success, 1, 2), 0).unwrap();
        queue.lay(&beat(Sign::Success, 2, 3), 0).unwrap();
        let left: Vec<_> = queue.waiting().unwrap().into_iter().map(|waiting| waiting.item.laid).collect();
        assert_eq!(left, [at(1), at(2), at(3)], "one that was not tried yet goes before its end");
    }
}
