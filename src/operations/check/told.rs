//! The check itself on record: in the vault, signed, one record for each job that was looked at, that this host has in its
//! config, and that its key may sign for. So whoever asks later when the vault was last looked at, how far, and what was
//! found, need not believe this host's memory.
//!
//! Nothing here changes what a check comes to. What could not be recorded is said.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::begun::{self, Begun, Doing};
use super::super::host::Host;
use super::super::records;
use super::super::state::JobLock;
use super::super::vaults::OpenVault;
use super::{CheckReport, Depth};
use crate::domain::ids::JobName;
use crate::domain::record::{CheckOutcome, CheckRecord, RecordBody};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;

/// A check that is not on record in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotOnRecord {
    /// For these jobs; none where it was for none in the first place.
    pub jobs: Vec<JobName>,
    /// The stable code of why.
    pub code: &'static str,
    /// Why.
    pub reason: String,
}

/// A check that is under way.
pub(super) struct Run {
    started: DateTime<Utc>,
    stopwatch: Duration,
    whole_vault: bool,
    read_data_percent: Option<u8>,
    jobs: Vec<Recorded>,
    left_out: Vec<NotOnRecord>,
}

/// A job that the check will be recorded for.
struct Recorded {
    job: JobName,
    /// What a next check finds if this one is killed; none while another check of the job runs here, whose it is.
    begun: Option<Begun>,
    _lock: Option<JobLock>,
}

impl Run {
    /// Puts on record what was killed before, and leaves a mark for each job that this one will be recorded for.
    pub(super) fn begin(
        host: &Host,
        vault: &OpenVault,
        jobs: &[JobName],
        known: &BTreeMap<JobName, Duration>,
        depth: &Depth<'_>,
        progress: &dyn Progress,
    ) -> Self {
        let mut run = Self {
            started: host.clock.now(),
            stopwatch: host.clock.monotonic(),
            whole_vault: jobs.is_empty(),
            read_data_percent: depth.read_data.map(|(_, percent)| percent),
            jobs: Vec::new(),
            left_out: Vec::new(),
        };
        if let Err(error) = host.home() {
            run.leave_out(jobs.to_vec(), &error);
            return run;
        }
        let strangers: Vec<JobName> = jobs.iter().filter(|job| !known.contains_key(*job)).cloned().collect();
        if !strangers.is_empty() || known.is_empty() {
            let what = "a host records checks of the jobs that its config has in this vault, and of no others";
            run.leave_out(strangers, &Error::new(Code::NotFound, what));
        }
        for job in known.keys().filter(|job| jobs.is_empty() || jobs.contains(job)) {
            match vault.must_let_write(host, job, run.started) {
                Ok(()) => run.jobs.push(recorded(host, vault, job, run.started, progress)),
                Err(error) => run.leave_out(vec![job.clone()], &error),
            }
        }
        run
    }

    /// Writes the records. What it is not on record for goes into the report; where there is none, it is said. One that was
    /// interrupted came to nothing, and is not recorded.
    pub(super) fn end(
        mut self,
        host: &Host,
        vault: &OpenVault,
        result: &mut Result<CheckReport>,
        progress: &dyn Progress,
    ) {
        let duration_seconds = (host.clock.monotonic() - self.stopwatch).as_secs_f64();
        let was_interrupted = result.as_ref().is_err_and(|error| error.code() == Code::Interrupted);
        if result.is_err() {
            // Why there is no check at all is what a person must hear; of these nothing was looked at.
            self.left_out.clear();
        }
        let mut on_record = Vec::new();
        for Recorded { job, begun, _lock } in std::mem::take(&mut self.jobs) {
            if !was_interrupted {
                let record = CheckRecord { finished: host.clock.now(), duration_seconds, ..self.record(&job, result) };
                match records::write(host, vault, &job, RecordBody::Check(record), None) {
                    Ok(()) => on_record.push(job),
                    Err(error) => self.leave_out(vec![job], &error),
                }
            }
            begun::end(begun, progress);
        }
        match result {
            Ok(report) => (report.on_record, report.not_on_record) = (on_record, self.left_out),
            Err(_) => self.left_out.iter().for_each(|left| progress.warn(&left.sentence())),
        }
    }

    /// What there is to say of a job.
    fn record(&self, job: &JobName, result: &Result<CheckReport>) -> CheckRecord {
        let (whole_vault, read_data_percent) = (self.whole_vault, self.read_data_percent);
        match result {
            Err(error) => {
                CheckRecord { whole_vault, read_data_percent, ..CheckRecord::failed(self.started, error.code().name()) }
            }
            Ok(report) => {
                let of_job = report.by_job.get(job).copied().unwrap_or_default();
                CheckRecord {
                    outcome: if of_job.damaged == 0 { CheckOutcome::Sound } else { CheckOutcome::Damaged },
                    started: self.started,
                    finished: self.started,
                    duration_seconds: 0.0,
                    whole_vault,
                    read_data_percent,
                    backups: of_job.backups,
                    objects: of_job.objects,
                    bytes: of_job.bytes,
                    opened_segments: of_job.opened,
                    damaged: of_job.damaged,
                    error_code: of_job.code.map(str::to_owned),
                }
            }
        }
    }

    /// One entry for each reason.
    fn leave_out(&mut self, jobs: Vec<JobName>, error: &Error) {
        let (code, reason) = (error.code().name(), error.to_string());
        match self.left_out.iter_mut().find(|left| (left.code, &left.reason) == (code, &reason)) {
            Some(left) => left.jobs.extend(jobs),
            None => self.left_out.push(NotOnRecord { jobs, code, reason }),
        }
    }
}

impl NotOnRecord {
    /// In a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let jobs: Vec<&str> = self.jobs.iter().map(JobName::as_str).collect();
        let of = if jobs.is_empty() { String::new() } else { format!(" of {}", jobs.join(", ")) };
        format!("this check{of} is not on record in the vault: {} [{}]", self.reason, self.code)
    }
}

fn recorded(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    started: DateTime<Utc>,
    progress: &dyn Progress,
) -> Recorded {
    // Only whoever holds the lock knows that nobody is behind a mark. Two checks of a job may run at once all the same. Marks
    // do not say of which place they are, so a check of a copy leaves none.
    let home = host.home().ok().filter(|_| !vault.is_copy());
    let lock = home.and_then(|home| home.state.lock(job, "check", started).ok());
    let begun = lock.is_some().then(|| begun::begin(host, vault, job, Doing::Check, started, progress)).flatten();
    Recorded { job: job.clone(), begun, _lock: lock }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Mutex;

    use super::super::check;
    use super::*;
    use crate::catalog::CheckRow;
    use crate::observe::Silent;
    use crate::operations::catch_up::tests::{World, job, manifest};
    use crate::operations::rebuild::rebuild;
    use crate::operations::records::send_waiting;
    use crate::storage::fault::{Effect, Lasting, Moment, Plan};
    use crate::vault::trust::JobPattern;

    const KEYLESS: Depth<'_> = Depth { read_data: None };

    fn known(jobs: &[usize]) -> BTreeMap<JobName, Duration> {
        jobs.iter().map(|number| (job(*number), Duration::from_secs(3600))).collect()
    }

    fn rows(world: &World, host: usize, of: usize) -> Vec<CheckRow> {
        let catalog = &world.hosts[host].home().unwrap().catalog;
        world.runtime.block_on(catalog.checks(&world.trust.vault, Some(&job(of)))).unwrap()
    }

    /// Hears what is said.
    #[derive(Default)]
    struct Ear(Mutex<Vec<String>>);

    impl Progress for Ear {
        fn begin(&self, _stage: &str, _total_bytes: Option<u64>) {}
        fn advance(&self, _bytes: u64) {}
        fn end(&self) {}
        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[test]
    fn each_job_is_on_record_with_its_own_figures() {
        let world = World::new();
        let report = check(&world.hosts[0], &world.vault(None), &[], &known(&[0, 1]), &KEYLESS, &Silent).unwrap();
        assert_eq!(report.on_record, [job(1), job(0)], "by name");
        assert_eq!(rows(&world, 0, 0)[0].body.outcome, CheckOutcome::Sound);
        // Nothing that it names is there.
        world.plant(0, &manifest(&world, 0, &job(0), None, 1));
        world.clock.advance(Duration::from_secs(60));
        let report = check(&world.hosts[1], &world.vault(None), &[], &known(&[0, 1]), &KEYLESS, &Silent).unwrap();
        assert_eq!((report.damaged.len(), report.not_on_record.len()), (2, 0));
        for (of, backups, damaged) in [(0, 1, 2), (1, 0, 0)] {
            let row = rows(&world, 1, of).pop().unwrap();
            assert_eq!((row.body.backups, row.body.damaged, row.host.as_str()), (backups, damaged, "web-2"));
            assert_eq!(row.body.outcome == CheckOutcome::Damaged, damaged > 0);
            assert_eq!(row.body.error_code.as_deref(), (damaged > 0).then_some("object-missing"));
            assert!(row.body.whole_vault && row.body.read_data_percent.is_none());
        }
        // The other host hears of it, and a host that remembers nothing too.
        rebuild(&world.hosts[0], &world.vault(None)).unwrap();
        assert_eq!(rows(&world, 0, 0), rows(&world, 1, 0));
    }

    #[test]
    fn who_may_not_sign_for_a_job_or_does_not_know_it_leaves_no_record() {
        let mut world = World::new();
        world.trust.hosts[0].jobs = vec![JobPattern::Job(job(0))];
        let report = check(&world.hosts[0], &world.vault(None), &[], &known(&[0, 1]), &KEYLESS, &Silent).unwrap();
        assert_eq!(report.on_record, [job(0)]);
        assert_eq!(
            (&report.not_on_record[0].jobs[..], report.not_on_record[0].code),
            (&[job(1)][..], "host-unauthorised")
        );
        world.plant(1, &manifest(&world, 1, &job(1), None, 3));
        let of_other = [job(1)];
        let report = check(&world.hosts[0], &world.vault(None), &of_other, &known(&[0]), &KEYLESS, &Silent).unwrap();
        assert_eq!((report.on_record.len(), &report.not_on_record[0].jobs[..]), (0, &of_other[..]));
        assert_eq!(rows(&world, 0, 1), []);
        // Its damage is not held against the job that this host has.
        let report = check(&world.hosts[0], &world.vault(None), &[], &known(&[0]), &KEYLESS, &Silent).unwrap();
        assert!(!report.is_sound());
        assert_eq!(rows(&world, 0, 0).pop().unwrap().body.outcome, CheckOutcome::Sound);
    }

    #[test]
    fn a_check_that_broke_off_waits_to_be_told() {
        let world = World::new();
        let effect = Effect::Fail(ErrorKind::Other);
        let plan = Plan { at_call: 1, moment: Moment::Before, effect, lasting: Lasting::FromThenOn };
        let ear = Ear::default();
        let error = check(&world.hosts[0], &world.vault(Some(plan)), &[], &known(&[0]), &KEYLESS, &ear).unwrap_err();
        let said = ear.0.into_inner().unwrap().join("\n");
        assert!(
            said.contains("this check of shop is not on record in the vault: it waits in the state folder"),
            "{said}"
        );
        let row = rows(&world, 0, 0).pop().unwrap();
        assert_eq!(
            (row.body.outcome, row.body.error_code.as_deref()),
            (CheckOutcome::Failed, Some(error.code().name()))
        );
        assert_eq!(send_waiting(&world.hosts[0], &world.vault(None)).unwrap(), 1);
        rebuild(&world.hosts[1], &world.vault(None)).unwrap();
        assert_eq!(rows(&world, 1, 0), [row]);
    }

    #[test]
    fn one_that_was_killed_is_put_on_record_by_the_next() {
        let world = World::new();
        let host = &world.hosts[0];
        drop(Run::begin(host, &world.vault(None), &[], &known(&[0]), &KEYLESS, &Silent));
        world.clock.advance(Duration::from_secs(60));
        let ear = Ear::default();
        check(host, &world.vault(None), &[], &known(&[0]), &KEYLESS, &ear).unwrap();
        assert!(ear.0.into_inner().unwrap()[0].contains("never ended"));
        let mut rows = rows(&world, 0, 0);
        rows.sort_by_key(|row| row.body.started);
        let outcomes: Vec<CheckOutcome> = rows.iter().map(|row| row.body.outcome).collect();
        assert_eq!(outcomes, [CheckOutcome::Failed, CheckOutcome::Sound]);
    }
}
