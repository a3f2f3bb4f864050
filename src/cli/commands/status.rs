//! `status` and `report`.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::config::JobSettings;
use crate::domain::objectives::Window;
use crate::domain::quantity::parse_duration;
use crate::error::{Code, Error, Result};
use crate::evidence::facts::Gathered;
use crate::evidence::gather::{Sizes, gather};
use crate::evidence::unopened::{report_of, status_of};
use crate::evidence::{markdown, metrics, report_page, text};
use crate::operations::TOOL;

use super::super::Exit;
use super::super::args::{ReportArgs, ReportFormat, StatusArgs};
use super::super::output::{is_coloured, print, print_json, print_styled, say};
use super::super::session::{Configured, Session};

pub(in super::super) fn status(session: Session, args: &StatusArgs) -> Result<Exit> {
    let session = session.configured()?;
    let now = session.host.clock.now();
    if args.prometheus {
        return metrics(&session, args, now);
    }
    let gathered = gathered(&session, &args.jobs, Sizes::LeaveOut, None, now)?;
    let status = status_of(&gathered, now);
    if args.nagios {
        let answer = text::nagios(&status);
        print(&answer.line);
        return Ok(Exit::code(answer.code));
    }
    if session.global.json {
        print_json(&status);
    } else {
        let colour = match is_coloured(&std::io::stdout()) {
            true => text::Colour::Ansi,
            false => text::Colour::Plain,
        };
        print_styled(&text::table(&status, now, colour));
    }
    Ok(Exit::DONE)
}

/// A vault that cannot be reached is told in the text, which is the place where whoever reads it looks.
fn metrics(session: &Configured, args: &StatusArgs, now: DateTime<Utc>) -> Result<Exit> {
    let gathered = gathered(session, &args.jobs, Sizes::Count, None, now)?;
    let text = metrics::metrics(&gathered, None, now);
    match &args.output {
        None => print(&text),
        Some(path) => write_whole(path, &text, Readers::All, "the metrics")?,
    }
    Ok(Exit::DONE)
}

/// What is known of the jobs that are meant; a vault that cannot be reached is told in it.
fn gathered(
    session: &Configured,
    names: &[String],
    sizes: Sizes,
    window: Option<Window>,
    now: DateTime<Utc>,
) -> Result<Gathered> {
    let open = |job: &JobSettings| Ok((session.vault_id(job)?, session.vault(job)));
    let jobs = session.jobs(names)?;
    gather(&session.host, &session.settings, &jobs, sizes, window, open, now)
}

pub(in super::super) fn report(session: Session, args: &ReportArgs) -> Result<Exit> {
    let session = session.configured()?;
    let now = session.host.clock.now();
    let since = parse_duration(&args.since).map_err(|cause| {
        Error::new(Code::Usage, format!("--since: {cause}")).with_hint("`--since 30d` is the last month")
    })?;
    let window = Window::before(now, since);
    let gathered = gathered(&session, &args.jobs, Sizes::LeaveOut, Some(window), now)?;
    for job in &gathered.unopened {
        say(&format!(
            "warning: nothing can be reported of {}: vault {} cannot be opened ({})",
            job.job, job.vault, job.why
        ));
    }
    let report = report_of(&gathered, window, now, TOOL);
    let format = if session.global.json { ReportFormat::Json } else { args.format };
    let rendered = match format {
        ReportFormat::Md => markdown::render(&report),
        ReportFormat::Html => report_page::render(&report),
        ReportFormat::Json => serde_json::to_string_pretty(&report)
            .map_err(|cause| Error::new(Code::Internal, format!("the report cannot be written as JSON: {cause}")))?,
    };
    match &args.output {
        None => print(&rendered),
        // An auditor must never find half a report.
        Some(path) => write_whole(path, &rendered, Readers::Owner, "the report")?,
    }
    Ok(Exit::DONE)
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// Who wrote it.
    Owner,
    /// Everybody, whatever the umask.
    All,
}

/// Writes a file whole or not at all: whoever reads it meanwhile finds the one that was there before.
pub(super) fn write_whole(path: &Path, text: &str, readers: Readers, what: &str) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |cause: std::io::Error| {
        Error::new(Code::RestoreFailed, format!("cannot write {what} to {}: {cause}", path.display()))
            .with_hint(format!("look at `ls -ld {0}` and `df {0}`", folder.display()))
    };
    // Its name does not end as the file's does: node exporter reads every *.prom that it finds.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{}", text.trim_end()).map_err(failed)?;
    if readers == Readers::All {
        file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
