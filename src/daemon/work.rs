//! One run: opens what the operation needs, calls the verb, and says in a word how it went. It does what the command of
//! the same name does, with nobody at the terminal.

use std::path::PathBuf;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use crate::catalog::CheckRow;
use crate::clock::Clock;
use crate::config::{DrillSettings, JobSettings, PruneWhen, Settings};
use crate::domain::manifest::Completeness;
use crate::domain::operation::Operation;
use crate::domain::record::{CheckOutcome, DrillOutcome, RunOutcome};
use crate::domain::scheduler::transient::may_pass;
use crate::domain::scheduler::{Ending, Start};
use crate::error::{Code, Error, Result};
use crate::observe::Silent;
use crate::operations::backup;
use crate::operations::check::{self, Depth};
use crate::operations::copy::{self, CopyRequest, could_not_begin, open_copy};
use crate::operations::drill::{self, DrillRequest, Which};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::prune::{PruneReport, PruneRequest, prune};
use crate::operations::vaults::{self, OpenVault, Trusted};
use crate::operations::verdicts;
use crate::seal::{Identities, Opener};
use crate::vault::glance::Glance;
use crate::vault::reader::Reader;

/// How a run ended, for the loop and for the log.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `success`, `partial`, `failed`, ...
    pub word: &'static str,
    /// What went wrong, if something did.
    pub error: Option<Error>,
    /// Facts for the log, without anything of the data: `backup 0123…, 3 segments`.
    pub facts: String,
    /// What the scheduler makes of it.
    pub ending: Ending,
    /// What a drill took in seconds, and what it may take.
    pub rto: Option<(f64, Option<f64>)>,
    /// What followed it by itself, and what was wrong with that.
    pub followed: Option<(Operation, Option<Error>)>,
}

/// Does what is due.
pub trait Work: Send + Sync {
    /// Does it, to its end, unless it is interrupted.
    fn run(&self, start: &Start, settings: &Settings, interrupt: Interrupt) -> Outcome;
}

/// The verbs.
pub struct Verbs {
    /// Where asynchronous calls run.
    pub runtime: Handle,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Identities besides those that the config names.
    pub identities: Vec<PathBuf>,
}

impl Outcome {
    fn well(word: &'static str, facts: String) -> Self {
        Self { word, error: None, facts, ending: Ending::Final, rto: None, followed: None }
    }

    /// A failure.
    #[must_use]
    pub fn failed(error: Error) -> Self {
        let ending = match error.code() {
            Code::Interrupted => Ending::Interrupted,
            _ if may_pass(&error) => Ending::Transient,
            _ => Ending::Final,
        };
        let word = if ending == Ending::Interrupted { "interrupted" } else { "failed" };
        Self { error: Some(error), ending, ..Self::well(word, String::new()) }
    }
}

impl Work for Verbs {
    fn run(&self, start: &Start, settings: &Settings, interrupt: Interrupt) -> Outcome {
        self.attempt(start, settings, interrupt).unwrap_or_else(Outcome::failed)
    }
}

/// What a run has at hand.
struct Ground<'a> {
    host: Host,
    settings: &'a Settings,
    job: &'a JobSettings,
    vault: OpenVault,
    began: DateTime<Utc>,
}

impl Verbs {
    fn attempt(&self, start: &Start, settings: &Settings, interrupt: Interrupt) -> Result<Outcome> {
        let began = self.clock.now();
        let host =
            Host::bare(self.runtime.clone(), Arc::clone(&self.clock), interrupt).with_home(&settings.state_dir)?;
        let name = &start.task.job;
        let missing = || Error::new(Code::ConfigInvalid, format!("the config has no job {name} with a vault any more"));
        let job = settings.jobs.get(name).ok_or_else(missing)?;
        let texts = identity_texts(&self.identities)?;
        let vault = settings.vault_of(job).ok_or_else(missing)?;
        let vault = vaults::open(&host, vault, None, &Trusted { identity_files: texts })?;
        let ground = Ground { host, settings, job, vault, began };
        match start.task.operation {
            Operation::Backup => ground.backup(start.lost_since),
            Operation::Copy => ground.copy(),
            Operation::Prune => ground.prune(None).map(|report| pruned(&report)),
            Operation::Check => ground.check(start.lost_since),
            Operation::Drill => ground.drill(start.lost_since, &self.identities),
        }
    }
}

/// The texts of identity files.
///
/// # Errors
/// When one cannot be read.
pub(super) fn identity_texts(files: &[PathBuf]) -> Result<Vec<String>> {
    files.iter().map(|file| read(file)).collect()
}

impl Ground<'_> {
    fn backup(&self, lost_since: Option<DateTime<Utc>>) -> Result<Outcome> {
        if let Some(done) = lost_since.map(|since| self.committed_since(since)).transpose()?.flatten() {
            let (after, followed) = self.prune_after(None).unzip();
            let facts = format!("backup {done}{}", after.unwrap_or_default());
            return Ok(Outcome { followed, ..Outcome::well("already-done", facts) });
        }
        let config = self.settings.without_secrets(&self.job.name);
        let held = self.settings.holding(self.job, self.host.clock.now());
        let report = backup::backup(&self.host, &self.vault, &held, config, &Silent)?;
        let mut facts = report.manifest.as_ref().map_or_else(String::new, |manifest| {
            format!("backup {}, {} new bytes", manifest.id, manifest.total(|source| source.new_bytes))
        });
        let error = verdicts::of_backup(&self.job.name, &report);
        if let (RunOutcome::Failed, Some(error)) = (report.outcome, &error) {
            return Err(error.clone());
        }
        let (after, followed) = self.prune_after(report.glance.as_ref()).unzip();
        facts.push_str(&after.unwrap_or_default());
        Ok(Outcome { error, followed, ..Outcome::well(report.outcome.word(), facts) })
    }

    /// A complete backup of this host that began since then: a run that nobody saw end did its work.
    fn committed_since(&self, since: DateTime<Utc>) -> Result<Option<String>> {
        let us = self.vault.host_name(&self.host)?;
        let survey = self.vault.survey(&self.host, Some(&self.job.name))?;
        let manifests = survey.manifests.iter().map(|verified| &verified.manifest);
        let mut ours = manifests.filter(|manifest| {
            manifest.host == us && manifest.started >= since && manifest.completeness == Completeness::Complete
        });
        Ok(ours.next().map(|manifest| manifest.id.to_string()))
    }

    /// Where prunes have no schedule of their own they follow the backups. The backup stands whatever comes of it, and the
    /// next one brings the next prune: what is wrong is logged, and told.
    fn prune_after(&self, glance: Option<&Glance>) -> Option<(String, (Operation, Option<Error>))> {
        if self.job.prune != PruneWhen::AfterBackup || self.host.check_interrupted().is_err() {
            return None;
        }
        let outcome = match self.prune(glance) {
            Ok(report) => pruned(&report),
            // Somebody prunes at this moment: what was to be done is being done.
            Err(error) if error.code() == Code::Locked => return None,
            Err(error) => Outcome::failed(error),
        };
        if let Some(error) = &outcome.error {
            tracing::error!(job = %self.job.name, operation = "prune", code = error.code().name(), "the prune after the backup: {error}");
        }
        Some((format!("; prune: {} {}", outcome.word, outcome.facts), (Operation::Prune, outcome.error)))
    }

    fn prune(&self, glance: Option<&Glance>) -> Result<PruneReport> {
        let now = self.host.clock.now();
        let by_config = PruneRequest::by_config(self.settings, &self.vault, &[self.job], now, self.began);
        let request = PruneRequest { glance, ..by_config };
        prune(&self.host, &self.vault, &request, &Silent)
    }

    /// Into the job's second vault, and what has expired there is erased after a copy that succeeded.
    fn copy(&self) -> Result<Outcome> {
        let missing =
            || Error::new(Code::ConfigInvalid, format!("the config copies {} nowhere any more", self.job.name));
        let copy = self.job.copy.as_ref().ok_or_else(missing)?;
        let to = self.settings.vaults.get(&copy.to).ok_or_else(missing)?;
        let opened = match open_copy(&self.host, &self.vault, to) {
            Ok(opened) => opened,
            Err(error) => {
                could_not_begin(&self.host, &self.vault, self.job, &to.name, self.began, &error, &Silent);
                return Err(error);
            }
        };
        let lead = self.settings.lead_in_copy(self.job, to, self.host.clock.now());
        let request = CopyRequest { job: self.job, lead, zone: self.settings.timezone };
        let report = copy::copy(&self.host, &self.vault, &opened, &request, &Silent)?;
        let mut facts = format!("{} backups copied, {} new bytes", report.copied.len(), report.record.new_bytes);
        if let Some(failure) = report.failure {
            return Err(failure);
        }
        let left = verdicts::of_copy(&report);
        let word = if left.is_some() { "partial" } else { "success" };
        if !copy.prune {
            return Ok(Outcome { error: left, ..Outcome::well(word, facts) });
        }
        let now = self.host.clock.now();
        let request = PruneRequest::by_config(self.settings, &opened, &[self.job], now, self.began);
        let pruned = match prune(&self.host, &opened, &request, &Silent) {
            Ok(report) => pruned(&report),
            Err(error) if error.code() == Code::Locked => Outcome::well("locked", String::new()),
            Err(error) => Outcome::failed(error),
        };
        facts.push_str(&format!("; prune: {} {}", pruned.word, pruned.facts));
        Ok(Outcome { error: left.or(pruned.error), ..Outcome::well(word, facts) })
    }

    fn check(&self, lost_since: Option<DateTime<Utc>>) -> Result<Outcome> {
        if let Some(since) = lost_since {
            let home = self.host.home()?;
            let rows = self.host.runtime.block_on(home.catalog.checks(&self.vault.id, Some(&self.job.name)))?;
            let us = self.vault.host_name(&self.host).unwrap_or_default();
            let came_through = |row: &&CheckRow| row.body.outcome == CheckOutcome::Sound;
            let mut ours = rows.iter().filter(|row| row.host == us && row.body.started >= since);
            if let Some(row) = ours.find(came_through) {
                return Ok(Outcome::well("already-done", format!("check {}", row.id)));
            }
        }
        let of_vault = self.settings.jobs.values().filter(|job| job.vault == self.job.vault);
        let known = of_vault.map(|job| (job.name.clone(), job.retention.delete_after)).collect();
        let depth = Depth { read_data: None };
        let report =
            check::check(&self.host, &self.vault, std::slice::from_ref(&self.job.name), &known, &depth, &Silent)?;
        let facts = format!("{} backups, {} objects", report.backups, report.objects);
        for left in &report.not_on_record {
            tracing::warn!(job = %self.job.name, operation = "check", code = left.code, "{}", left.sentence());
        }
        let error = verdicts::of_check(&self.job.name, &report);
        let word = if error.is_some() { "failed" } else { "passed" };
        Ok(Outcome { error, ..Outcome::well(word, facts) })
    }

    fn drill(&self, lost_since: Option<DateTime<Utc>>, identities: &[PathBuf]) -> Result<Outcome> {
        if let Some(since) = lost_since {
            let home = self.host.home()?;
            let rows = self.host.runtime.block_on(home.catalog.drills(&self.vault.id, Some(&self.job.name)))?;
            let us = self.vault.host_name(&self.host).unwrap_or_default();
            if let Some(row) = rows.iter().find(|row| row.host == us && row.drill.started >= since) {
                return Ok(Outcome::well("already-done", format!("drill {}", row.id)));
            }
        }
        let settings = self.job.drill.clone().unwrap_or_else(DrillSettings::without_checks);
        let mut files = identities.to_vec();
        let text = match (&settings.identity, files.is_empty()) {
            (Some(secret), true) => {
                files.extend(secret.path());
                Ok((secret.read()?.expose_secret().to_owned(), secret.to_string()))
            }
            (None, true) => Err(Error::new(Code::NoIdentity, "a drill opens a backup, and no identity was given")),
            (_, false) => {
                let texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
                Ok((texts.join("\n"), "the identities given".to_owned()))
            }
        }?;
        let opener = Identities::parse(&text.0, &text.1).map(Opener::new)?;
        let reader = Ok(Reader::new(self.host.runtime.clone(), Arc::clone(&self.vault.storage), Arc::new(opener)));
        let request = DrillRequest {
            which: Which::Latest,
            keep: false,
            identity_files: &files,
            config_file: &self.settings.file,
            settings: &settings,
        };
        let report = drill::drill(&self.host, &self.vault, self.job, &reader, &request, &Silent)?;
        self.host.check_interrupted()?;
        let facts = format!("drill {}, {:.0} s", report.id, report.record.rto_seconds);
        let rto = Some((report.record.rto_seconds, report.record.rto_objective_seconds));
        let word = if report.record.outcome == DrillOutcome::Passed { "passed" } else { "failed" };
        // It has its verdict, and it is on record: another try would be another drill.
        Ok(Outcome { error: verdicts::of_drill(&self.job.name, &report), rto, ..Outcome::well(word, facts) })
    }
}

/// What a prune's report comes to.
fn pruned(report: &PruneReport) -> Outcome {
    let facts = format!("{} backups removed, {} objects erased", report.deleted_backups(), report.deleted_objects);
    match verdicts::of_prune(report) {
        None => Outcome::well("success", facts),
        // Deleting may go on where something failed; what stands in its way waits for a person.
        Some(error) if !report.failures.is_empty() => Outcome { facts, ..Outcome::failed(error) },
        Some(error) => Outcome { error: Some(error), ..Outcome::well("failed", facts) },
    }
}

fn read(file: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|cause| {
        Error::new(Code::KeyMissing, format!("cannot read the identity {}: {cause}", file.display()))
            .with_hint("name the identity file with --identity FILE")
    })
}

impl std::fmt::Debug for Verbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verbs").field("identities", &self.identities.len()).finish_non_exhaustive()
    }
}
