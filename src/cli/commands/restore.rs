//! `restore` and `cat`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::config::Secret;
use crate::domain::ids::{BackupId, JobName, SourceName};
use crate::domain::manifest::Manifest;
use crate::domain::quantity::{human_bytes, human_seconds};
use crate::domain::server::{ServerAddress, ServerAddressError};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::operations::host::Host;
use crate::operations::restore::{self, Request, RestoredSource};
use crate::operations::restore_into::{IntoReport, IntoRequest, restore_into};
use crate::sources::postgres::load::{Existing, Globals, Outside, Owners};
use crate::vault::reader::Reader;

use super::super::Exit;
use super::super::args::{CatArgs, RestoreArgs};
use super::super::output::{counted, print_json, say};
use super::super::session::{Reading, Session};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    backup: BackupId,
    job: JobName,
    recovery_point: chrono::DateTime<chrono::Utc>,
    target: PathBuf,
    sources: Vec<RestoredSource>,
    duration_seconds: f64,
}

pub(in super::super) fn restore(session: Session, args: &RestoreArgs) -> Result<Exit> {
    let progress = session.progress();
    let (json, quiet) = (session.global.json, session.global.quiet);
    let stopwatch = session.host.clock.monotonic();
    let reading = session.reading()?;
    let chosen = reading.choose(&args.backup)?;
    for warning in &chosen.warnings {
        say(&format!("warning: {warning}"));
    }
    let source = args.source.as_deref().map(source_name).transpose()?;
    let reader = reading.reader()?;
    let to = match (&args.to, &args.into, &source) {
        (Some(to), ..) => to,
        (None, Some(url), Some(source)) => {
            let report = into(&reading.host, &reader, &chosen.manifest, source, url, args, &progress)?;
            told_into(&reading, &chosen.manifest, report, stopwatch, json, quiet);
            return Ok(Exit::DONE);
        }
        // The command line's parser asks for one of the two, and for a source with the second.
        _ => return Err(Error::new(Code::Usage, "say where to restore: --to DIR, or --source NAME --into URL")),
    };
    let request = Request { target: to, source: source.as_ref(), paths: &args.path, overwrite: args.overwrite };
    let sources = restore::restore(&reading.host, &reader, &chosen.manifest, &request, &progress)?;
    let duration_seconds = (reading.host.clock.monotonic() - stopwatch).as_secs_f64();
    if json {
        print_json(&Document {
            schema_version: 1,
            backup: chosen.manifest.id.clone(),
            job: chosen.manifest.job.clone(),
            recovery_point: chosen.manifest.recovery_point,
            target: to.clone(),
            sources,
            duration_seconds,
        });
    } else if !quiet {
        let recovery_point = reading.local(chosen.manifest.recovery_point);
        for source in &sources {
            say(&format!(
                "restored {} of backup {} ({}) to {}: {}, {}",
                source.name,
                chosen.manifest.id,
                recovery_point,
                to.join(source.name.as_str()).display(),
                counted(source.members, "member"),
                human_bytes(source.bytes),
            ));
            for (count, what) in [
                (source.owners_kept, "members belong to you now: only root can give them their owners back"),
                (source.attributes_left_out, "extended attributes were left out: only root can set them"),
                (source.devices_left_out, "device nodes were left out: only root can make them"),
            ] {
                if count > 0 {
                    say(&format!("  {count} {what}"));
                }
            }
        }
        say(&format!("done in {}", human_seconds(duration_seconds)));
    }
    Ok(Exit::DONE)
}

#[derive(Serialize)]
struct IntoDocument {
    schema_version: u32,
    backup: BackupId,
    job: JobName,
    recovery_point: chrono::DateTime<chrono::Utc>,
    target: String,
    sources: [IntoReport; 1],
    duration_seconds: f64,
}

fn into(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    source: &SourceName,
    url: &str,
    args: &RestoreArgs,
    progress: &dyn Progress,
) -> Result<IntoReport> {
    let address = ServerAddress::parse(url).map_err(|cause| {
        let said = cause.to_string();
        // What is said for a config holds for the command line, but for where the password stands.
        let error = Error::new(Code::Usage, format!("--into: {}", said.split(": take it out").next().unwrap_or(&said)));
        match cause {
            ServerAddressError::Password => error.with_hint("take it out, and write --password-file FILE"),
            _ => error,
        }
    })?;
    let password = args.password_file.clone().map(|file| Secret::File(file).read()).transpose()?;
    let request = IntoRequest {
        source,
        address: &address,
        password,
        tools: args.tools.clone(),
        tables: &args.path,
        jobs: args.jobs,
        owners: if args.no_owner { Owners::Drop } else { Owners::Keep },
        globals: if args.globals { Globals::Make } else { Globals::Leave },
        existing: if args.overwrite { Existing::Replace } else { Existing::Refuse },
        outside: Outside::Keep,
    };
    restore_into(host, reader, manifest, &request, progress)
}

fn told_into(
    reading: &Reading,
    manifest: &Manifest,
    report: IntoReport,
    stopwatch: std::time::Duration,
    json: bool,
    quiet: bool,
) {
    let duration_seconds = (reading.host.clock.monotonic() - stopwatch).as_secs_f64();
    if json {
        print_json(&IntoDocument {
            schema_version: 1,
            backup: manifest.id.clone(),
            job: manifest.job.clone(),
            recovery_point: manifest.recovery_point,
            target: report.server.clone(),
            sources: [report],
            duration_seconds,
        });
    } else if !quiet {
        say(&format!(
            "restored {} of backup {} ({}) into {}: {}, {}, {}",
            report.name,
            manifest.id,
            reading.local(manifest.recovery_point),
            report.server,
            counted(report.tables, "table"),
            counted(report.rows, "row"),
            human_bytes(report.bytes),
        ));
        for remark in &report.remarks {
            say(&format!("  {remark}"));
        }
        if let Some(seconds) = report.queryable_seconds {
            say(&format!("data and keys were there after {}", human_seconds(seconds)));
        }
        say(&format!("done in {}", human_seconds(duration_seconds)));
    }
}

pub(in super::super) fn cat(session: Session, args: &CatArgs) -> Result<Exit> {
    let progress = session.progress();
    let reading = session.reading()?;
    let chosen = reading.choose(&args.backup)?;
    for warning in &chosen.warnings {
        say(&format!("warning: {warning}"));
    }
    let source = source_name(&args.source)?;
    let reader = reading.reader()?;
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    restore::cat(&reading.host, &reader, &chosen.manifest, &source, &mut out, &progress)?;
    out.flush().map_err(|cause| Error::new(Code::RestoreFailed, format!("cannot write to stdout: {cause}")))?;
    Ok(Exit::DONE)
}

fn source_name(text: &str) -> Result<SourceName> {
    text.parse().map_err(|cause: crate::domain::ids::IdError| Error::new(Code::NotFound, cause.to_string()))
}
