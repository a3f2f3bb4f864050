//! The status for people at a terminal, and for Nagios. Returns texts; the only place that prints is elsewhere. Nothing of a
//! stranger's speaks to the terminal: the only control characters here are line ends and, where asked for, colours.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::copies::CopyStatus;
use super::status::{JobStatus, RPO_RISK_PER_CENT, State, Status, ago};
use crate::domain::objectives::{Exposure, Restore, json_seconds};
use crate::domain::quantity::{exact_duration, human_duration};

/// Whether the reader's terminal shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// No escape sequences.
    Plain,
    /// ANSI.
    Ansi,
}

pub(super) const HEADINGS: [&str; 5] = ["JOB", "STATE", "NEWEST RECOVERY POINT", "RESTORE PROVEN", "NEXT"];
/// The column that is coloured.
const STATE_COLUMN: usize = 1;

/// A line a job (is it safe, how old is the newest recovery point against the RPO, when was a restore last proven and
/// how long did it take against the RTO, what comes next), then what is wrong and what to type.
#[must_use]
pub fn table(status: &Status, now: DateTime<Utc>, colour: Colour) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    let mut states = vec![None];
    for job in &status.jobs {
        rows.push(cells(job, now).map(|cell| harmless(&cell)));
        states.push(Some(job.state));
        if let Some(copy) = &job.copy {
            rows.push(copy_cells(job, copy, now).map(|cell| harmless(&cell)));
            states.push(Some(copy.state));
        }
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (row, state) in rows.iter().zip(states) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count() + 2);
            match (state, colour) {
                (Some(state), Colour::Ansi) if column == STATE_COLUMN => {
                    let _ = write!(line, "{}{cell}\x1b[0m{padding}", ansi(state));
                }
                _ => {
                    let _ = write!(line, "{cell}{padding}");
                }
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (what, state, reasons) in troubles(status) {
        let _ = writeln!(text, "\n{} ({}):", harmless(&what), state_word(state));
        for reason in reasons {
            let _ = writeln!(text, "  - {}", harmless(reason));
        }
    }
    text
}

/// What there is to be said of jobs, and then of vaults.
fn troubles(status: &Status) -> Vec<(String, State, &[String])> {
    let jobs = status.jobs.iter().map(|job| (job.job.to_string(), job.state, &job.reasons[..]));
    let vaults = status.vaults.iter().map(|vault| (format!("vault {}", vault.name), vault.state, &vault.reasons[..]));
    jobs.chain(vaults).filter(|(_, _, reasons)| !reasons.is_empty()).collect()
}

/// What stands under the headings.
pub(super) fn cells(job: &JobStatus, now: DateTime<Utc>) -> [String; 5] {
    let point = job.recovery_point.map_or_else(|| "none".to_owned(), |moment| ago(moment, now));
    let point = match job.rpo.objective {
        Some(objective) => format!("{point} (RPO {})", exact_duration(objective)),
        None => point,
    };
    let proven = match (&job.last_drill, job.rto.last) {
        (Some(drill), Some(Restore::Took(time))) => {
            format!("{}, took {}", ago(drill.finished, now), human_duration(time))
        }
        (Some(drill), Some(Restore::Failed)) => {
            let before = job.last_proven.map_or_else(|| "never".to_owned(), |moment| ago(moment, now));
            format!("{before}; FAILED {}", ago(drill.finished, now))
        }
        _ => "never".to_owned(),
    };
    let proven = match job.rto.objective {
        Some(objective) => format!("{proven} (RTO {})", exact_duration(objective)),
        None => proven,
    };
    let next: Vec<String> = [("backup", job.next_backup), ("drill", job.next_drill)]
        .into_iter()
        .filter_map(|(what, moment)| moment.map(|moment| format!("{what} {}", due(moment, now))))
        .collect();
    let next = if next.is_empty() { "no schedule".to_owned() } else { next.join(", ") };
    let state = match job.state {
        State::Ok => "ok".to_owned(),
        state => state_word(state).to_uppercase(),
    };
    [job.job.to_string(), state, point, proven, next]
}

/// The second vault stands below its job: where a restore from it would go back to, and when it was last brought up to date.
pub(super) fn copy_cells(job: &JobStatus, copy: &CopyStatus, now: DateTime<Utc>) -> [String; 5] {
    let point = copy.recovery_point.map_or_else(|| "none".to_owned(), |moment| ago(moment, now));
    let point = match job.rpo.objective {
        Some(objective) => format!("{point} (RPO {})", exact_duration(objective)),
        None => point,
    };
    let last = match (copy.last_success, &copy.last_copy) {
        (Some(success), _) => format!("copied {}", ago(success, now)),
        (None, Some(_)) => "never copied whole".to_owned(),
        (None, None) => "never copied".to_owned(),
    };
    let next = copy.next_copy.map_or_else(|| "no schedule".to_owned(), |next| format!("copy {}", due(next, now)));
    let state = match copy.state {
        State::Ok => "ok".to_owned(),
        state => state_word(state).to_uppercase(),
    };
    [format!("  in {}", copy.vault), state, point, last, next]
}

fn due(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if moment <= now { "due".to_owned() } else { ago(moment, now) }
}

pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Unknown => "unknown",
        State::Critical => "critical",
    }
}

fn ansi(state: State) -> &'static str {
    match state {
        State::Ok => "\x1b[32m",
        State::Warning => "\x1b[33m",
        State::Unknown => "\x1b[35m",
        State::Critical => "\x1b[1;31m",
    }
}

/// What a Nagios plugin says and returns: one line with performance data, and 0, 1, 2 or 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nagios {
    /// One line without its newline.
    pub line: String,
    /// 0 ok, 1 warning, 2 critical, 3 unknown.
    pub code: u8,
}

/// The status as a Nagios plugin puts it. The worst job or vault decides; a job of which nothing is known is worse than a
/// warning. `U` in the performance data is Nagios's word for a value that cannot be had: here, unbounded or failed.
#[must_use]
pub fn nagios(status: &Status) -> Nagios {
    // No job at all is nothing to be green about.
    let worst = status.jobs.iter().map(|job| job.state).max().unwrap_or(State::Unknown);
    let worst = status.vaults.iter().map(|vault| vault.state).fold(worst, State::max);
    let (word, code) = match worst {
        State::Ok => ("OK", 0),
        State::Warning => ("WARNING", 1),
        State::Critical => ("CRITICAL", 2),
        State::Unknown => ("UNKNOWN", 3),
    };
    let mut troubles = troubles(status);
    troubles.sort_by_key(|(_, state, _)| std::cmp::Reverse(*state));
    let said: Vec<String> =
        troubles.iter().map(|(what, _, reasons)| format!("{what}: {}", reasons.join(", "))).collect();
    let said = match (status.jobs.len(), said.is_empty()) {
        (0, _) => "no job is configured".to_owned(),
        (1, true) => "1 job is as promised".to_owned(),
        (count, true) => format!("{count} jobs are as promised"),
        (_, false) => said.join("; "),
    };
    let performance: Vec<String> = status.jobs.iter().flat_map(performance).collect();
    let mut line = format!("LIFEBOAT {word} - {}", one_line(&said));
    if !performance.is_empty() {
        let _ = write!(line, " | {}", performance.join(" "));
    }
    Nagios { line, code }
}

/// `label=value;warning;critical;minimum`.
fn performance(job: &JobStatus) -> [String; 2] {
    let rpo = match job.rpo.now {
        Exposure::Of(now) => format!("{}s", json_seconds(now)),
        Exposure::Unbounded => "U".to_owned(),
    };
    let rpo_limits = job.rpo.objective.map_or_else(
        || ";".to_owned(),
        |objective| format!("{};{}", json_seconds(objective * RPO_RISK_PER_CENT / 100), json_seconds(objective)),
    );
    let rto = match job.rto.last {
        Some(Restore::Took(time)) => format!("{}s", json_seconds(time)),
        Some(Restore::Failed) | None => "U".to_owned(),
    };
    let rto_limit = job.rto.objective.map(|objective| json_seconds(objective).to_string()).unwrap_or_default();
    [format!("{}_rpo={rpo};{rpo_limits};0", job.job), format!("{}_rto={rto};{rto_limit};;0", job.job)]
}

/// A bar begins performance data and a newline ends the line.
fn one_line(text: &str) -> String {
    harmless(text).replace('|', "/")
}

/// Errors quote what others wrote: a line of them stays one.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::facts::{JobFacts, Promise, VaultFacts};
    use crate::evidence::samples::*;
    use crate::evidence::status::status;

    fn three_jobs() -> Status {
        let mut files = healthy();
        files.job = "files".parse().unwrap();
        files.promise.objectives.rpo = Some(minutes(170));
        fail_last_drill(&mut files);
        let mut fresh = healthy();
        fresh.job = "fresh-one".parse().unwrap();
        fresh = JobFacts {
            promise: Promise::default(),
            next_backup: None,
            next_drill: None,
            backups: vec![],
            runs: vec![],
            drills: vec![],
            ..fresh
        };
        let old = VaultFacts {
            name: "main".to_owned(),
            unknown_jobs: vec!["old-shop".parse().unwrap()],
            ..VaultFacts::default()
        };
        status(&[healthy(), files, fresh], &[old], now())
    }

    #[test]
    fn the_table_answers_in_a_line_a_job() {
        insta::assert_snapshot!(table(&three_jobs(), now(), Colour::Plain));
        assert!(!table(&three_jobs(), now(), Colour::Plain).contains('\x1b'));
        let coloured = table(&three_jobs(), now(), Colour::Ansi);
        assert!(coloured.contains("\x1b[32mok\x1b[0m") && coloured.contains("\x1b[1;31mCRITICAL\x1b[0m"));
    }

    #[test]
    fn a_stranger_does_not_speak_to_the_terminal() {
        let mut status = three_jobs();
        status.jobs[1].reasons[0] = "cannot open \x1b]0;owned\x07\nfiles (ok)".to_owned();
        let text = table(&status, now(), Colour::Plain);
        assert!(text.contains("  - cannot open  ]0;owned  files (ok)\n"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    }

    #[test]
    fn nagios_gets_one_line_and_the_worst_code() {
        let all = nagios(&three_jobs());
        insta::assert_snapshot!(all.line);
        assert_eq!((all.code, all.line.lines().count()), (2, 1));
        let one = |index: usize| {
            nagios(&Status { schema_version: 1, jobs: vec![three_jobs().jobs[index].clone()], vaults: vec![] })
        };
        assert_eq!((one(0).code, one(1).code, one(2).code), (0, 2, 3));
        let none = Status { schema_version: 1, jobs: vec![], vaults: vec![] };
        assert_eq!(nagios(&none).code, 3);
        let vault = nagios(&Status {
            schema_version: 1,
            jobs: vec![three_jobs().jobs[0].clone()],
            vaults: three_jobs().vaults,
        });
        assert_eq!(vault.code, 1, "{}", vault.line);
        assert!(vault.line.starts_with("LIFEBOAT WARNING - vault main: it has backups of job old-shop"));
        let mut piped = three_jobs();
        piped.jobs[1].reasons[0] = "a|b\nc".to_owned();
        assert_eq!(nagios(&piped).line.matches('|').count(), 1);
    }
}
