//! `/metrics`: what `status --prometheus` says, with what only the daemon knows put in.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::Settings;
use crate::error::Result;
use crate::evidence::facts::Gathered;
use crate::evidence::metrics::{DaemonFacts, metrics};
use crate::notify::courier::{Courier, counted};

use super::board::Notice;

/// The series of what was gathered at `now`.
///
/// # Errors
/// When what was told to channels cannot be read.
pub(super) fn text(
    runtime: &Handle,
    clock: &Arc<dyn Clock>,
    settings: &Settings,
    gathered: &Gathered,
    notice: &Notice,
    now: DateTime<Utc>,
) -> Result<String> {
    let mut facts = facts(notice);
    let channels = counted(settings);
    if !channels.is_empty() {
        let courier = Courier::new(&settings.state_dir, runtime.clone(), Arc::clone(clock))?;
        let memory = courier.memory().read()?;
        let failures = channels.iter().map(|name| ((*name).to_owned(), memory.channel(name).failures));
        facts.notify_failures = failures.collect();
    }
    Ok(metrics(gathered, Some(&facts), now))
}

/// What only the daemon knows.
fn facts(notice: &Notice) -> DaemonFacts {
    let mut facts = DaemonFacts::default();
    for told in &notice.tasks {
        let (job, operation) = (&told.task.job, told.task.operation.to_string());
        facts.next.extend(told.next.map(|next| ((job.clone(), operation.clone()), next)));
        for (reason, count) in [("missed", told.missed), ("overlap", told.overlapped)] {
            facts.skipped.insert((job.clone(), operation.clone(), reason.to_owned()), count);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::super::board::TaskNotice;
    use super::*;
    use crate::domain::objectives::Objectives;
    use crate::evidence::facts::{Gathered, Unopened};

    #[test]
    fn each_task_is_told() {
        let task = TaskNotice {
            task: "shop/backup".parse().unwrap(),
            next: Some("2026-11-22T02:00:00Z".parse().unwrap()),
            running_since: None,
            missed: 3,
            overlapped: 0,
        };
        let facts = facts(&Notice { tasks: vec![task], ..Notice::default() });
        let shop = Unopened {
            job: "shop".parse().unwrap(),
            vault: "main".to_owned(),
            objectives: Objectives::default(),
            why: String::new(),
        };
        let gathered = Gathered { unopened: vec![shop], ..Gathered::default() };
        let text = metrics(&gathered, Some(&facts), "2026-11-22T01:00:00Z".parse().unwrap());
        for line in [
            "lifeboat_schedule_next_timestamp_seconds{job_name=\"shop\",operation=\"backup\"} 1795312800",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"missed\"} 3",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"overlap\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
