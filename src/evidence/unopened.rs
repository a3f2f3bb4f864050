//! Status and report of everything that was gathered, with the jobs of which nothing can be known: their vault was never opened from
//! here, and cannot be opened now. They are unknown, and never
//! left out.

use chrono::{DateTime, Utc};

use super::erasure::ErasureStatus;
use super::facts::{Asked, Gathered, Unopened};
use super::report::{Report, UnopenedJob, report};
use super::status::{JobStatus, RtoStatus, State, Status, rpo_status, status};
use crate::domain::ids::JobName;
use crate::domain::objectives::{Basis, Trend, Window, measured_rpo};

/// The status of everything that was gathered, at `now`: a job of which nothing can be known is in it all the same.
#[must_use]
pub fn status_of(gathered: &Gathered, now: DateTime<Utc>) -> Status {
    let mut status = status(&gathered.jobs, &gathered.vaults, now);
    let place = |job: &JobName| gathered.asked.iter().position(|asked| asked.job == *job);
    status.jobs.extend(gathered.unopened.iter().map(|unopened| {
        let asked = place(&unopened.job).and_then(|place| gathered.asked.get(place));
        unopened_status(unopened, asked, now)
    }));
    status.jobs.sort_by_key(|job| place(&job.job));
    status
}

/// The report on everything that was gathered: a job of which nothing can be known is in it all the same.
#[must_use]
pub fn report_of(gathered: &Gathered, window: Window, generated: DateTime<Utc>, tool: &str) -> Report {
    let unopened = gathered.unopened.iter().map(|unopened| UnopenedJob {
        job: unopened.job.clone(),
        vault: unopened.vault.clone(),
        why: unopened.why.clone(),
    });
    Report { unopened: unopened.collect(), ..report(&gathered.jobs, window, generated, tool) }
}

/// A job in a vault that this host never opened and cannot open now.
fn unopened_status(facts: &Unopened, asked: Option<&Asked>, now: DateTime<Utc>) -> JobStatus {
    let window = Window { start: now, end: now };
    let rpo = measured_rpo(&[], Basis::Available, window, facts.objectives.rpo);
    let why = format!(
        "nothing is known of this job, because vault {} cannot be opened ({}): run `lifeboat doctor {}`",
        facts.vault, facts.why, facts.job
    );
    JobStatus {
        job: facts.job.clone(),
        vault: facts.vault.clone(),
        state: State::Unknown,
        reasons: vec![why],
        recovery_point: None,
        rpo: rpo_status(facts.objectives.rpo, (rpo.worst, rpo.worst), &rpo, &rpo, window),
        rto: RtoStatus { objective: facts.objectives.rto, last: None, worst: None, trend: Trend::Unknown },
        last_backup: None,
        last_drill: None,
        last_proven: None,
        last_check: None,
        next_backup: asked.and_then(|asked| asked.next_backup),
        next_drill: asked.and_then(|asked| asked.next_drill),
        next_check: asked.and_then(|asked| asked.next_check),
        erasure_deadline: None,
        erasure: ErasureStatus { deadline: None, oldest_retained_byte: None, pending_backups: 0 },
        copy: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::facts::{VaultFacts, Witness};
    use crate::evidence::samples::*;

    #[test]
    fn what_cannot_be_read_is_unknown_and_never_left_out() {
        let mut silent = healthy();
        silent.witness = Witness::Silent("gone".to_owned());
        let unopened = |job: &str| Unopened {
            job: job.parse().unwrap(),
            vault: "never".to_owned(),
            objectives: silent.promise.objectives,
            why: "no such host".to_owned(),
        };
        let next = Some(now() + hours(1));
        let asked =
            |job: &str| Asked { job: job.parse().unwrap(), next_backup: next, next_drill: None, next_check: None };
        let main = VaultFacts { name: "main".to_owned(), silent: Some("gone".to_owned()), ..VaultFacts::default() };
        let gathered = Gathered {
            asked: ["blog", "shop", "wiki"].map(asked).to_vec(),
            jobs: vec![silent.clone()],
            vaults: vec![main],
            unopened: vec![unopened("blog"), unopened("wiki")],
        };
        let status = status_of(&gathered, now());
        let jobs: Vec<(&str, State)> = status.jobs.iter().map(|job| (job.job.as_str(), job.state)).collect();
        assert_eq!(jobs, [("blog", State::Unknown), ("shop", State::Unknown), ("wiki", State::Unknown)]);
        assert_eq!(status.vaults[0].state, State::Unknown);
        assert!(status.vaults[0].reasons[0].contains("gone"), "{:?}", status.vaults);
        assert!(status.jobs[1].reasons[0].contains("vault main cannot be read"), "{:?}", status.jobs[1].reasons);
        let blog = serde_json::to_value(&status.jobs[0]).unwrap();
        assert!(blog["reasons"][0].as_str().unwrap().contains("(no such host): run `lifeboat doctor blog`"), "{blog}");
        assert_eq!(
            (&blog["rpo"]["now_seconds"], &blog["rto"]["last_seconds"]),
            (&"unbounded".into(), &"unmeasured".into())
        );
        assert_eq!(blog["rpo"]["objective_seconds"], 86_400.0);
        assert_eq!(status.jobs[0].next_backup, next, "the config says so");

        let report = report_of(&gathered, Window::before(now(), hours(48)), now(), "lifeboat 0.1.0");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["jobs"].as_array().unwrap().len(), 1);
        assert_eq!(json["unopened"][0], serde_json::json!({ "job": "blog", "vault": "never", "why": "no such host" }));
        for text in [crate::evidence::markdown::render(&report), crate::evidence::report_page::render(&report)] {
            assert!(text.contains("never opened vault never, and cannot open it now (no such host)"), "{text}");
            assert!(text.contains("lifeboat doctor wiki") && text.contains("Nothing is known of this job"), "{text}");
        }
    }
}
