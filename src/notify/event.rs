//! An event, and the words for it: a line, a text, a document. By default nothing of them is of the data: a job's name, what
//! was done, how it ended, a code, times, and the host's name.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Occasion;
use crate::domain::ids::JobName;
use crate::domain::operation::Operation;
use crate::domain::quantity::{exact_duration, human_seconds};

/// The shape of the document.
pub const SCHEMA_VERSION: u32 = 1;

/// Something that happened, or that lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same each time that it is sent.
    pub id: String,
    /// Why it is told.
    pub occasion: Occasion,
    /// The host.
    pub host: String,
    /// The job; a test has none.
    pub job: Option<JobName>,
    /// What was done to it.
    pub operation: Option<Operation>,
    /// `failed`, `partial`, `passed`, `overdue`, ...
    pub outcome: String,
    /// Of what it failed.
    pub error_code: Option<String>,
    /// The exit status that the command has.
    pub exit_status: Option<u8>,
    /// When.
    pub at: DateTime<Utc>,
    /// Since when it is so: the first failure, the end of the last run.
    pub since: Option<DateTime<Utc>>,
    /// What a drill took.
    pub rto_seconds: Option<f64>,
    /// What it may take.
    pub rto_objective_seconds: Option<f64>,
    /// When something must be erased.
    pub deadline: Option<DateTime<Utc>>,
    /// How much of the time until then is over, in per cent; 100 is past.
    pub percent: Option<u8>,
    /// The text of the error, where the channel is told of it.
    pub details: Option<String>,
}

impl Event {
    /// One without anything that not every event has.
    #[must_use]
    pub fn new(id: String, occasion: Occasion, host: String, outcome: &str, at: DateTime<Utc>) -> Self {
        Self {
            id,
            occasion,
            host,
            job: None,
            operation: None,
            outcome: outcome.to_owned(),
            error_code: None,
            exit_status: None,
            at,
            since: None,
            rto_seconds: None,
            rto_objective_seconds: None,
            deadline: None,
            percent: None,
            details: None,
        }
    }

    /// `backup of shop`.
    fn what(&self) -> String {
        match (&self.job, self.operation) {
            (Some(job), Some(operation)) => format!("{operation} of {job}"),
            (Some(job), None) => job.to_string(),
            (None, _) => "lifeboat".to_owned(),
        }
    }

    /// A few words: `backup of shop failed`.
    #[must_use]
    pub fn title(&self) -> String {
        let what = self.what();
        match self.occasion {
            Occasion::Failure if self.outcome == "partial" => format!("{what} is partial"),
            Occasion::Failure => format!("{what} failed"),
            Occasion::Recovery => format!("{what} works again"),
            Occasion::Overdue => format!("{what} is overdue"),
            Occasion::Drill => match (self.outcome.as_str(), self.error_code.is_some()) {
                ("passed", false) => format!("{what} passed again"),
                ("passed", true) => format!("{what} took too long"),
                _ => format!("{what} failed"),
            },
            Occasion::Erasure if self.percent == Some(100) => format!("erasure deadline of {what} is past"),
            Occasion::Erasure => format!("erasure deadline of {what} comes near"),
            Occasion::Test => "a test of notifications".to_owned(),
        }
    }

    /// A sentence: `backup of shop on web1 failed [source-unavailable]`.
    #[must_use]
    pub fn summary(&self) -> String {
        let (what, host) = (self.what(), &self.host);
        let code = self.error_code.as_deref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let since = self.since.filter(|since| *since < self.at).map(time);
        match self.occasion {
            Occasion::Failure => {
                let how = if self.outcome == "partial" { "is partial" } else { "failed" };
                let since = since.map(|since| format!(", as it has since {since}")).unwrap_or_default();
                format!("{what} on {host} {how}{code}{since}")
            }
            Occasion::Recovery => {
                let since = since.map(|since| format!("; it did not since {since}")).unwrap_or_default();
                format!("{what} on {host} works again{since}")
            }
            Occasion::Overdue => match since {
                Some(since) => format!("{what} on {host} is overdue: the last run ended {since}"),
                None => format!("{what} on {host} is overdue"),
            },
            Occasion::Drill => match (self.outcome.as_str(), self.rto_seconds, self.rto_objective_seconds) {
                ("passed", Some(took), Some(promised)) if self.error_code.is_some() => format!(
                    "{what} on {host} passed, and took {}; promised are {}{code}",
                    human_seconds(took),
                    Duration::try_from_secs_f64(promised).map_or_else(|_| human_seconds(promised), exact_duration)
                ),
                ("passed", took, _) => {
                    let took = took.map(|took| format!(", in {}", human_seconds(took))).unwrap_or_default();
                    format!("{what} on {host} passed again{took}")
                }
                _ => {
                    let since = since.map(|since| format!(", as it has since {since}")).unwrap_or_default();
                    format!("{what} on {host} failed{code}{since}")
                }
            },
            Occasion::Erasure => match (self.percent, self.deadline) {
                (Some(percent @ 0..100), Some(deadline)) => format!(
                    "data of {what} must be gone by {}, {percent} % of the time for it is over, and it is still there",
                    time(deadline)
                ),
                (_, Some(deadline)) => {
                    format!("data of {what} should have been gone by {}, and is still there", time(deadline))
                }
                (_, None) => format!("data of {what} that must be erased is still there"),
            },
            Occasion::Test => format!("a test of lifeboat's notifications on {host}: this is how they arrive"),
        }
    }

    /// What to type.
    fn next(&self) -> Option<String> {
        let job = self.job.as_ref()?;
        Some(match (self.occasion, self.operation) {
            (Occasion::Erasure, _) => format!("lifeboat prune {job} --dry-run"),
            _ => format!("lifeboat status {job}"),
        })
    }

    /// The text of a message, lines without an end at the last.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![self.summary(), String::new()];
        let mut line = |name: &str, value: Option<String>| lines.extend(value.map(|value| format!("{name}: {value}")));
        line("host", Some(self.host.clone()));
        line("job", self.job.as_ref().map(ToString::to_string));
        line("operation", self.operation.map(|operation| operation.to_string()));
        line("outcome", Some(self.outcome.clone()));
        line("error code", self.error_code.clone());
        line("at", Some(time(self.at)));
        line("since", self.since.map(time));
        line("deadline", self.deadline.map(time));
        line("look", self.next());
        line("details", self.details.clone());
        lines.join("\n")
    }

    /// The document that a webhook gets.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "event": self.occasion.word(),
            "title": self.title(),
            "summary": self.summary(),
            "host": self.host,
            "job": self.job,
            "operation": self.operation,
            "outcome": self.outcome,
            "error_code": self.error_code,
            "exit_status": self.exit_status,
            "at": rfc3339(self.at),
            "since": self.since.map(rfc3339),
            "rto_seconds": self.rto_seconds,
            "rto_objective_seconds": self.rto_objective_seconds,
            "deadline": self.deadline.map(rfc3339),
            "percent": self.percent,
            "look": self.next(),
            "details": self.details,
        })
    }

    /// What stands for [`crate::config::notify::TEMPLATE_TEXTS`], and, with a program, behind `LIFEBOAT_`.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("summary", self.summary()),
            ("title", self.title()),
            ("event", self.occasion.word().to_owned()),
            ("host", self.host.clone()),
            ("job", self.job.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("operation", self.operation.map(|operation| operation.to_string()).unwrap_or_default()),
            ("outcome", self.outcome.clone()),
            ("error_code", self.error_code.clone().unwrap_or_default()),
            ("at", rfc3339(self.at)),
        ])
    }

    /// Whether it tells of trouble, and not of its end.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self.occasion {
            Occasion::Failure | Occasion::Overdue | Occasion::Erasure => true,
            Occasion::Drill => self.error_code.is_some() || self.outcome != "passed",
            Occasion::Recovery | Occasion::Test => false,
        }
    }
}

/// For people, to the second.
fn time(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// For programs, to the second.
fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A backup that failed.
    pub(in super::super) fn failed() -> Event {
        Event {
            job: Some("shop".parse().unwrap()),
            operation: Some(Operation::Backup),
            error_code: Some("source-unavailable".to_owned()),
            exit_status: Some(1),
            ..Event::new(
                "00000000-0000-4000-8000-000000000001".to_owned(),
                Occasion::Failure,
                "web1".to_owned(),
                "failed",
                "2026-11-22T02:00:05.250Z".parse().unwrap(),
            )
        }
    }

    #[test]
    fn the_words() {
        let since = Some("2026-11-21T02:00:00Z".parse().unwrap());
        let base = failed();
        let drill = Event { occasion: Occasion::Drill, operation: Some(Operation::Drill), ..base.clone() };
        let erasure = Event {
            occasion: Occasion::Erasure,
            operation: None,
            deadline: Some("2026-11-23T00:00:00Z".parse().unwrap()),
            ..base.clone()
        };
        let cases = [
            (base.clone(), "backup of shop failed", "backup of shop on web1 failed [source-unavailable]"),
            (
                Event { since, ..base.clone() },
                "backup of shop failed",
                "backup of shop on web1 failed [source-unavailable], as it has since 2026-11-21 02:00:00 UTC",
            ),
            (
                Event { outcome: "partial".to_owned(), error_code: Some("source-partial".to_owned()), ..base.clone() },
                "backup of shop is partial",
                "backup of shop on web1 is partial [source-partial]",
            ),
            (
                Event { occasion: Occasion::Recovery, error_code: None, since, ..base.clone() },
                "backup of shop works again",
                "backup of shop on web1 works again; it did not since 2026-11-21 02:00:00 UTC",
            ),
            (
                Event { occasion: Occasion::Overdue, since, ..base.clone() },
                "backup of shop is overdue",
                "backup of shop on web1 is overdue: the last run ended 2026-11-21 02:00:00 UTC",
            ),
            (
                Event { error_code: Some("drill-failed".to_owned()), ..drill.clone() },
                "drill of shop failed",
                "drill of shop on web1 failed [drill-failed]",
            ),
            (
                Event { outcome: "passed".to_owned(), error_code: None, rto_seconds: Some(62.0), ..drill.clone() },
                "drill of shop passed again",
                "drill of shop on web1 passed again, in 1m 02s",
            ),
            (
                Event {
                    outcome: "passed".to_owned(),
                    error_code: Some("objective-missed".to_owned()),
                    rto_seconds: Some(3720.0),
                    rto_objective_seconds: Some(3600.0),
                    ..drill
                },
                "drill of shop took too long",
                "drill of shop on web1 passed, and took 1h 02m; promised are 1h [objective-missed]",
            ),
            (
                Event { percent: Some(75), ..erasure.clone() },
                "erasure deadline of shop comes near",
                "data of shop must be gone by 2026-11-23 00:00:00 UTC, 75 % of the time for it is over, and it is still there",
            ),
            (
                Event { percent: Some(100), ..erasure },
                "erasure deadline of shop is past",
                "data of shop should have been gone by 2026-11-23 00:00:00 UTC, and is still there",
            ),
        ];
        for (event, title, summary) in cases {
            assert_eq!((event.title().as_str(), event.summary().as_str()), (title, summary));
        }
    }

    #[test]
    fn the_text_and_the_document() {
        assert_eq!(
            failed().text(),
            "backup of shop on web1 failed [source-unavailable]\n\nhost: web1\njob: shop\noperation: backup\n\
             outcome: failed\nerror code: source-unavailable\nat: 2026-11-22 02:00:05 UTC\nlook: lifeboat status shop"
        );
        let told = Event { details: Some("cannot open /srv/x".to_owned()), ..failed() };
        assert!(told.text().ends_with("\ndetails: cannot open /srv/x"));
        assert_eq!(
            failed().document(),
            json!({
                "schema_version": 1, "id": "00000000-0000-4000-8000-000000000001", "event": "failure",
                "title": "backup of shop failed", "summary": "backup of shop on web1 failed [source-unavailable]",
                "host": "web1", "job": "shop", "operation": "backup", "outcome": "failed",
                "error_code": "source-unavailable", "exit_status": 1, "at": "2026-11-22T02:00:05Z", "since": null,
                "rto_seconds": null, "rto_objective_seconds": null, "deadline": null, "percent": null,
                "look": "lifeboat status shop", "details": null,
            })
        );
        let texts = failed().texts();
        let named: Vec<&str> = texts.keys().copied().collect();
        let mut known = crate::config::notify::TEMPLATE_TEXTS.to_vec();
        known.sort_unstable();
        assert_eq!(named, known);
    }
}
