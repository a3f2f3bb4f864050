//! One run: opens what the operation needs, calls the verb, and says in a word how it went. It does what the command of
//! the same name does, with nobody at the terminal.

use std::path::PathBuf;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{DrillSettings, JobSettings, PruneWhen, Settings};
use crate::domain::manifest::Completeness;
use crate::domain::operation::Operation;
use crate::domain::record::{DrillOutcome, RunOutcome};
use crate::domain::scheduler::transient::may_pass;
use crate::domain::scheduler::{Ending, Start};
use crate::error::{Code, Error, Result};
use crate::observe::Silent;
use crate::operations::check::{self, Depth};
use crate::operations::drill::{self, DrillRequest, Which};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::prune::{PruneReport, PruneRequest, prune};
use crate::operations::vaults::{self, OpenVault, Trusted};
use crate::operations::backup;
use crate::seal::{Identities, Opener};
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
        Self { word, error: None, facts, ending: Ending::Final }
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
        Self { word, error: Some(error), facts: String::new(), ending }
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
        let host = Host::bare(self.runtime.clone(), Arc::clone(&self.clock), interrupt).with_home(&settings.state_dir)?;
        let name = &start.task.job;
        let missing = || Error::new(Code::ConfigInvalid, format!("the config has no job {name} with a vault any more"));
        let job = settings.jobs.get(name).ok_or_else(missing)?;
        let texts = self.identities.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
        let vault = settings.vault_of(job).ok_or_else(missing)?;
        let vault = vaults::open(&host, vault, None, &Trusted { identity_files: texts })?;
        let ground = Ground { host, settings, job, vault, began };
        match start.task.operation {
            Operation::Backup => ground.backup(start.lost_since),
            Operation::Prune => ground.prune().map(|report| pruned(&report)),
            Operation::Check => ground.check(),
            Operation::Drill => ground.drill(start.lost_since, &self.identities),
        }
    }
}

impl Ground<'_> {
    fn backup(&self, lost_since: Option<DateTime<Utc>>) -> Result<Outcome> {
        if let Some(done) = lost_since.map(|since| self.committed_since(since)).transpose()?.flatten() {
            let after = self.prune_after()?;
            return Ok(Outcome { word: "already-done", facts: format!("backup {done}{after}"), ..Outcome::well("", String::new()) });
        }
        let config = self.settings.without_secrets(&self.job.name);
        let report = backup::backup(&self.host, &self.vault, self.job, config, &Silent)?;
        let mut facts = report.manifest.as_ref().map_or_else(String::new, |manifest| {
            format!("backup {}, {} new bytes", manifest.id, manifest.total(|source| source.new_bytes))
        });
        match report.outcome {
            RunOutcome::Failed => {
                let unknown = || Error::new(Code::Internal, "the backup failed, and did not say of what");
                return Err(report.failure.unwrap_or_else(unknown));
            }
            RunOutcome::Success | RunOutcome::Partial => facts.push_str(&self.prune_after()?),
        }
        let partial = report.outcome == RunOutcome::Partial;
        let what = || {
            let hint = format!("`lifeboat show {}` counts what is missing", self.job.name);
            Error::new(Code::SourcePartial, "something could not be read").with_hint(hint)
        };
        Ok(Outcome {
            word: if partial { "partial" } else { "success" },
            error: report.failure.or_else(|| partial.then(what)),
            facts,
            ending: Ending::Final,
        })
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
    /// next one brings the next prune: what is wrong is logged.
    fn prune_after(&self) -> Result<String> {
        if self.job.prune != PruneWhen::AfterBackup || self.host.check_interrupted().is_err() {
            return Ok(String::new());
        }
        let outcome = match self.prune() {
            Ok(report) => pruned(&report),
            // Somebody prunes at this moment: what was to be done is being done.
            Err(error) if error.code() == Code::Locked => return Ok(String::new()),
            Err(error) => Outcome::failed(error),
        };
        if let Some(error) = &outcome.error {
            tracing::error!(job = %self.job.name, operation = "prune", code = error.code().name(), "the prune after the backup: {error}");
        }
        Ok(format!("; prune: {} {}", outcome.word, outcome.facts))
    }

    fn prune(&self) -> Result<PruneReport> {
        let request = PruneRequest::by_config(self.settings, &self.vault, &[self.job], self.host.clock.now(), self.began);
        prune(&self.host, &self.vault, &request, &Silent)
    }

    fn check(&self) -> Result<Outcome> {
        let of_vault = self.settings.jobs.values().filter(|job| job.vault == self.job.vault);
        let known = of_vault.map(|job| (job.name.clone(), job.retention.delete_after)).collect();
        let depth = Depth { read_data: None };
        let report = check::check(&self.host, &self.vault, std::slice::from_ref(&self.job.name), &known, &depth, &Silent)?;
        let facts = format!("{} backups, {} objects", report.backups, report.objects);
        let Some(first) = report.damaged.first() else { return Ok(Outcome::well("passed", facts)) };
        let code = Code::ALL.iter().copied().find(|code| code.name() == first.code).unwrap_or(Code::ObjectDamaged);
        let what = format!("{} things in the vault are not what they were", report.damaged.len());
        let error = Error::new(code, what).with_hint(format!("`lifeboat check {}` names them", self.job.name));
        Ok(Outcome { word: "failed", error: Some(error), facts, ending: Ending::Final })
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
        let name = &self.job.name;
        let error = match (report.record.outcome, report.record.rto_met) {
            (DrillOutcome::Passed, true) if report.recorded => return Ok(Outcome::well("passed", facts)),
            (DrillOutcome::Passed, true) => Error::new(Code::StorageFailed, "the drill passed, and is on no record"),
            (DrillOutcome::Passed, false) => Error::new(Code::ObjectiveMissed, "the drill took longer than promised"),
            (DrillOutcome::Failed, _) => report.failure.unwrap_or_else(|| {
                Error::new(Code::DrillFailed, format!("{} checks did not pass", report.record.checks_failed))
                    .with_hint(format!("`lifeboat drill {name}` shows them"))
            }),
        };
        // It has its verdict, and it is on record: another try would be another drill.
        Ok(Outcome { word: if report.record.outcome == DrillOutcome::Passed { "passed" } else { "failed" }, error: Some(error), facts, ending: Ending::Final })
    }
}

/// What a prune's report comes to.
fn pruned(report: &PruneReport) -> Outcome {
    let facts = format!("{} backups removed, {} objects erased", report.deleted_backups(), report.deleted_objects);
    if let Some(failure) = report.failures.first() {
        return Outcome { facts, ..Outcome::failed(failure.clone()) };
    }
    let hint = "`lifeboat prune --dry-run` says what is in the way";
    let error = if !report.stops.is_empty() {
        Error::new(Code::DeletionStopped, format!("{} things stand in the way of deleting", report.stops.len())).with_hint(hint)
    } else if !report.unswept.is_empty() || report.jobs.iter().any(|job| !job.breached.is_empty()) {
        Error::new(Code::ErasureBreached, "something older than `delete_after` is still there").with_hint(hint)
    } else {
        return Outcome::well("success", facts);
    };
    Outcome { word: "failed", error: Some(error), facts, ending: Ending::Final }
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
