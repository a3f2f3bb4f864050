//! A job's hooks: programs of the user's own around a backup, to quiet an application before it and to wake it after.
//!
//! They run as lifeboat's own user, in an environment that holds facts of the run and nothing of ours, each within a
//! deadline. They are told how it went; what they print is shown where they fail, and kept nowhere.

use crate::config::HookSettings;
use crate::domain::ids::JobName;
use crate::domain::record::RunOutcome;
use crate::error::{Code, Error, Result};
use crate::process::{Tool, ToolError};

use super::backup::RunReport;
use super::host::Host;

/// The hooks of one job.
pub(super) struct Hooks<'a> {
    host: &'a Host,
    job: &'a JobName,
    settings: &'a HookSettings,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
    OnFailure,
}

impl Moment {
    /// As the config has it.
    fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::OnFailure => "on_failure",
        }
    }
}

impl<'a> Hooks<'a> {
    /// Those of a job.
    pub(super) fn new(host: &'a Host, job: &'a JobName, settings: &'a HookSettings) -> Self {
        Self { host, job, settings }
    }

    /// Runs `before`; a signal ends it.
    ///
    /// # Errors
    /// When it does not succeed: then there is nothing to back up in the state that was asked for.
    pub(super) fn before(&self) -> Result<()> {
        let Some(tool) = self.tool(Moment::Before) else { return Ok(()) };
        let interrupt = &self.host.interrupt;
        interrupt.check()?;
        // Dropped, the hook and all that it started are killed.
        let ended = self.host.runtime.block_on(async {
            tokio::select! {
                ended = tool.run_to_success() => Some(ended),
                () = interrupt.raised() => None,
            }
        });
        match ended {
            None => interrupt.check(),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.failed(Moment::Before, &error, "nothing was backed up")),
        }
    }

    /// Runs `after`, and then, where the run or `after` failed, `on_failure`; after a signal too, because what `before` did
    /// must be undone. What goes wrong is added to the report.
    pub(super) fn after(&self, report: &mut RunReport) {
        self.run(Moment::After, report);
        self.on_failure(report);
    }

    /// Runs `on_failure` where the run failed; not where another one of the job was under way, which says nothing bad of it.
    pub(super) fn on_failure(&self, report: &mut RunReport) {
        let failed = match &report.failure {
            Some(failure) => failure.code() != Code::Locked,
            None => report.outcome != RunOutcome::Success,
        };
        if failed {
            self.run(Moment::OnFailure, report);
        }
    }

    fn run(&self, moment: Moment, report: &mut RunReport) {
        let Some(tool) = self.tool(moment) else { return };
        if let Err(error) = self.host.runtime.block_on(told(tool, report).run_to_success()) {
            let stands = if report.manifest.is_some() { "the backup stands" } else { "there is no backup of this run" };
            let error = self.failed(moment, &error, stands);
            report.errors.push(error.to_string());
            report.failure.get_or_insert(error);
        }
    }

    fn tool(&self, moment: Moment) -> Option<Tool> {
        let argv = match moment {
            Moment::Before => &self.settings.before,
            Moment::After => &self.settings.after,
            Moment::OnFailure => &self.settings.on_failure,
        };
        let (program, args) = argv.split_first()?;
        let tool = Tool::new(program)
            .args(args)
            .deadline(self.settings.timeout)
            .env("LIFEBOAT_JOB", self.job.as_str())
            .env("LIFEBOAT_OPERATION", "backup")
            .env("LIFEBOAT_HOOK", moment.word());
        Some(tool)
    }

    fn failed(&self, moment: Moment, error: &ToolError, stands: &str) -> Error {
        let word = moment.word();
        Error::new(Code::HookFailed, format!("the hook `{word}` of {} failed: {error}; {stands}", self.job)).with_hint(
            format!(
                "run it by hand, as lifeboat's user and with LIFEBOAT_JOB={} LIFEBOAT_HOOK={word}; [job.{}.hooks] names it",
                self.job, self.job
            ),
        )
    }
}

/// Puts what is known of the run into the hook's environment. What is not known is not there.
fn told(tool: Tool, report: &RunReport) -> Tool {
    let mut tool =
        tool.env("LIFEBOAT_OUTCOME", report.outcome.word()).env("LIFEBOAT_ERRORS", report.errors.len().to_string());
    if let Some(failure) = &report.failure {
        tool = tool.env("LIFEBOAT_ERROR_CODE", failure.code().name());
    }
    if let Some(manifest) = &report.manifest {
        tool = tool
            .env("LIFEBOAT_BACKUP", manifest.id.as_str())
            .env("LIFEBOAT_RECOVERY_POINT", manifest.recovery_point.to_rfc3339())
            .env("LIFEBOAT_LOGICAL_BYTES", manifest.total(|source| source.logical_bytes).to_string())
            .env("LIFEBOAT_NEW_BYTES", manifest.total(|source| source.new_bytes).to_string());
    }
    tool
}
