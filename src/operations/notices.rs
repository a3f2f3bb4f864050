//! From what happened to who is told: the runs of this process, what lasts, and the courier beside them.
//!
//! Nothing here fails a run, and a run waits for nothing here but a few small files. What cannot be laid down is logged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt as _;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::notify::FailureSign;
use crate::config::{Details, Occasion, Settings};
use crate::domain::operation::{Operation, Task};
use crate::error::{Code, Diagnostic as _, Error, chain};
use crate::notify::courier::{Courier, Rounds, Which, counted};
use crate::notify::event::Event;
use crate::notify::heartbeat::{Beat, RunUuid, Sign};
use crate::notify::memory::{News, Trouble, TroubleKind, Verdict};
use crate::notify::queue::{HEARTBEAT, Item};
use crate::notify::{NotifyError, channel};

use super::host::Host;

/// A command whose work is done waits so long for its notifications; what did not arrive by then waits for the next one.
pub const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// Who tells. One that has nobody to tell does nothing.
#[derive(Debug)]
pub struct Notices {
    office: Option<Office>,
}

struct Office {
    courier: Courier,
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    host: String,
    rounds: Option<Rounds>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// `success`, `partial`, `failed`, `passed`, ...
    pub outcome: &'a str,
    /// What was wrong, if something was.
    pub error: Option<&'a Error>,
    /// What a drill took, and what it may take.
    pub rto: Option<(f64, Option<f64>)>,
}

impl<'a> Ended<'a> {
    /// Anything but a drill.
    #[must_use]
    pub fn new(outcome: &'a str, error: Option<&'a Error>) -> Self {
        Self { outcome, error, rto: None }
    }
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// What.
    pub trouble: Trouble,
    /// When the last run ended.
    pub since: Option<DateTime<Utc>>,
    /// When something must be erased.
    pub deadline: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("courier", &self.courier).finish_non_exhaustive()
    }
}

impl Notices {
    /// For one command: what waits from before is sent at once, beside the work.
    #[must_use]
    pub fn beside(host: &Host, settings: &Settings) -> Self {
        Self::new(&host.runtime, &host.clock, &Arc::new(settings.clone()), true)
    }

    /// Without a courier: somebody else has one.
    #[must_use]
    pub fn laying(runtime: &Handle, clock: &Arc<dyn Clock>, settings: &Arc<Settings>) -> Self {
        Self::new(runtime, clock, settings, false)
    }

    fn new(runtime: &Handle, clock: &Arc<dyn Clock>, settings: &Arc<Settings>, carries: bool) -> Self {
        if counted(settings).is_empty() {
            return Self { office: None };
        }
        let open = || {
            let courier = Courier::new(&settings.state_dir, runtime.clone(), Arc::clone(clock))?;
            let rounds = carries.then(|| courier.rounds(Arc::clone(settings), Which::All)).transpose()?;
            let (settings, clock) = (Arc::clone(settings), Arc::clone(clock));
            Ok::<_, NotifyError>(Office { courier, settings, clock, host: host_name(), rounds })
        };
        Self { office: said(open()) }
    }

    /// A run begins.
    pub fn began(&self, task: &Task, run: &RunUuid) {
        let Some(office) = &self.office else { return };
        // Of one that was killed after it had found another killed.
        said(office.killed());
        said(office.beat(task, run, Sign::Start, "started".to_owned()));
        office.wake();
    }

    /// It ended. One that was interrupted, or found another one of its kind at work, says nothing of the job.
    pub fn ended(&self, task: &Task, run: &RunUuid, ended: &Ended<'_>) {
        let Some(office) = &self.office else { return };
        if ended.error.is_some_and(|error| matches!(error.code(), Code::Interrupted | Code::Locked)) {
            return;
        }
        said(office.ended(task, run, ended));
        office.wake();
    }

    /// Everything that lasts now.
    pub fn lasting(&self, found: Vec<Lasting>) {
        let Some(office) = &self.office else { return };
        said(office.lasting(found));
        office.wake();
    }

    /// What was told, and how channels fare, where there is anybody to tell.
    #[must_use]
    pub fn courier(&self) -> Option<&Courier> {
        self.office.as_ref().map(|office| &office.courier)
    }

    /// The command is done: waits for what is under way, not longer than [`FINISH_WITHIN`].
    pub fn finish(self) {
        let Some(rounds) = self.office.and_then(|office| office.rounds) else { return };
        if !rounds.finish(FINISH_WITHIN) {
            tracing::warn!("notifications are under way still; what does not arrive is sent by the next command");
        }
    }
}

impl Office {
    fn wake(&self) {
        if let Some(rounds) = &self.rounds {
            rounds.wake();
        }
    }

    /// What was found to have been killed: as a failure, before anything that came after it.
    fn killed(&self) -> Result<(), NotifyError> {
        let now = self.clock.now();
        let found = self.courier.memory().read()?;
        if found.killed(now).is_empty() {
            return Ok(());
        }
        for (task, news) in found.clone().tell_killed(now) {
            let (News::Trouble(since) | News::Recovered(since)) = news;
            let occasion = if task.operation == Operation::Drill { Occasion::Drill } else { Occasion::Failure };
            self.tell(&Event {
                job: Some(task.job.clone()),
                operation: Some(task.operation),
                error_code: Some(Code::Killed.name().to_owned()),
                since: Some(since),
                details: Some("it began and never ended: it was killed, or the machine went down".to_owned()),
                ..Event::new(uuid(), occasion, self.host.clone(), "failed", now)
            })?;
        }
        self.courier.memory().change(|memory| {
            memory.tell_killed(now);
        })
    }

    fn ended(&self, task: &Task, run: &RunUuid, ended: &Ended<'_>) -> Result<(), NotifyError> {
        self.killed()?;
        let now = self.clock.now();
        let status = ended.error.map(|error| error.kind().exit_code());
        let sign = match (status, self.settings.notify.failure_sign()) {
            (None, _) => Sign::Success,
            (Some(_), FailureSign::Fail) => Sign::Fail,
            (Some(status), FailureSign::ExitStatus) => Sign::Exit(status),
        };
        let code = ended.error.map(|error| error.code().name());
        let said = code.map_or_else(|| ended.outcome.to_owned(), |code| format!("{} [{code}]", ended.outcome));
        self.beat(task, run, sign, said)?;

        let verdict = code.map_or(Verdict::Good, Verdict::Bad);
        // Looked at first, and remembered when it lies in the queue: told twice is better than never.
        let news = self.courier.memory().read()?.ended(task, verdict, now);
        if let Some(news) = news {
            let (occasion, since) = match (news, task.operation) {
                (News::Trouble(since) | News::Recovered(since), Operation::Drill) => (Occasion::Drill, since),
                (News::Trouble(since), _) => (Occasion::Failure, since),
                (News::Recovered(since), _) => (Occasion::Recovery, since),
            };
            let event = Event {
                job: Some(task.job.clone()),
                operation: Some(task.operation),
                error_code: code.map(str::to_owned),
                exit_status: Some(status.unwrap_or(0)),
                since: Some(since),
                rto_seconds: ended.rto.map(|(took, _)| took),
                rto_objective_seconds: ended.rto.and_then(|(_, promised)| promised),
                details: ended.error.map(ToString::to_string),
                ..Event::new(uuid(), occasion, self.host.clone(), ended.outcome, now)
            };
            self.tell(&event)?;
        }
        self.courier.memory().change(|memory| {
            memory.ended(task, verdict, now);
        })
    }

    fn lasting(&self, found: Vec<Lasting>) -> Result<(), NotifyError> {
        self.killed()?;
        let now = self.clock.now();
        let troubles = || found.iter().map(|lasting| lasting.trouble.clone()).collect();
        let news = self.courier.memory().read()?.lasting(troubles(), now);
        for lasting in found.iter().filter(|lasting| news.contains(&lasting.trouble)) {
            let (occasion, operation, outcome) = match lasting.trouble.kind {
                TroubleKind::Overdue(operation) => (Occasion::Overdue, Some(operation), "overdue"),
                TroubleKind::Erasure => (Occasion::Erasure, None, "not-erased"),
            };
            self.tell(&Event {
                job: Some(lasting.trouble.job.clone()),
                operation,
                since: lasting.since,
                deadline: lasting.deadline,
                percent: (occasion == Occasion::Erasure).then_some(lasting.trouble.level),
                ..Event::new(uuid(), occasion, self.host.clone(), outcome, now)
            })?;
        }
        self.courier.memory().change(|memory| {
            memory.lasting(troubles(), now);
        })
    }

    fn beat(&self, task: &Task, run: &RunUuid, sign: Sign, said: String) -> Result<(), NotifyError> {
        let Some(job) = self.settings.jobs.get(&task.job) else { return Ok(()) };
        if self.settings.notify.heartbeat_of(&job.notify, task.operation).is_none() {
            return Ok(());
        }
        let body = format!("{} of {} on {}: {said}\n", task.operation, task.job, self.host);
        let beat = Beat { job: task.job.clone(), operation: task.operation, run: run.clone(), sign, body };
        self.courier.lay(&Item::beat(beat, self.clock.now()), rand::rng().random())
    }

    /// Lays an event down for each channel that wants it.
    fn tell(&self, event: &Event) -> Result<(), NotifyError> {
        for channel in self.settings.notify.channels.values() {
            let of_job = event.job.as_ref().is_none_or(|job| channel.jobs.is_empty() || channel.jobs.contains(job));
            if !channel.on.contains(&event.occasion) || !of_job {
                continue;
            }
            let mut event = event.clone();
            if channel.details == Details::Kept {
                event.details = None;
            }
            self.courier.lay(&Item::event(&channel.name, event, self.clock.now()), rand::rng().random())?;
        }
        Ok(())
    }
}

/// A run's name.
#[must_use]
pub fn new_run() -> RunUuid {
    RunUuid::from_random(rand::rng().random())
}

/// An event that asks whether events arrive.
#[must_use]
pub fn test_event(now: DateTime<Utc>) -> Event {
    Event::new(uuid(), Occasion::Test, host_name(), "test", now)
}

fn uuid() -> String {
    new_run().as_str().to_owned()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What cannot be laid down is logged, and nobody else hears of it.
fn said<T>(result: Result<T, NotifyError>) -> Option<T> {
    result
        .inspect_err(|error| {
            tracing::error!(code = error.code().name(), "somebody is not told what happened: {}", chain(error));
        })
        .ok()
}

/// What came of a test.
#[derive(Debug)]
pub struct Tested {
    /// The channel's name, or `heartbeat`, with the job and operation that it is for.
    pub channel: String,
    /// `webhook`, ...
    pub kind: &'static str,
    /// What was answered, or why it did not arrive.
    pub result: Result<String, Error>,
}

/// Sends a test to every channel and heartbeat, or to the one of that name; blocks. Heartbeats get it as `URL/log`, which
/// changes nothing of what they know.
///
/// # Errors
/// When there is none of that name.
pub fn test(host: &Host, settings: &Settings, name: Option<&str>) -> Result<Vec<Tested>, Error> {
    let known = counted(settings);
    if let Some(name) = name.filter(|name| !known.contains(name)) {
        return Err(Error::new(Code::NotFound, format!("the config has no [notify.{name}]")).with_hint(
            match &known[..] {
                [] => "docs/NOTIFICATIONS.md has examples".to_owned(),
                known => format!("it has: {}", known.join(", ")),
            },
        ));
    }
    let wanted = |channel: &str| name.is_none_or(|name| name == channel);
    let event = test_event(host.clock.now());
    let mut tested = Vec::new();
    if wanted(HEARTBEAT) {
        let mut seen = BTreeSet::new();
        for job in settings.jobs.values() {
            for operation in [Operation::Backup, Operation::Drill] {
                let Some(place) = settings.notify.heartbeat_of(&job.notify, operation) else { continue };
                let beat = Beat {
                    job: job.name.clone(),
                    operation,
                    run: new_run(),
                    sign: Sign::Log,
                    body: format!("{}\n", event.summary()),
                };
                // Jobs that share an address share its test.
                if channel::is_new(place, &beat, &mut seen) {
                    let result = channel::beat(place, &beat).map_err(Error::from);
                    let channel = format!("{HEARTBEAT} {operation} of {}", job.name);
                    tested.push(Tested { channel, kind: HEARTBEAT, result });
                }
            }
        }
    }
    for settings in settings.notify.channels.values().filter(|channel| wanted(&channel.name)) {
        let result = channel::send(&host.runtime, settings, &event).map_err(Error::from);
        tested.push(Tested { channel: settings.name.clone(), kind: settings.kind.word(), result });
    }
    Ok(tested)
}
