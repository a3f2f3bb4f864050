//! `restore` and `cat`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::domain::ids::{BackupId, JobName, SourceName};
use crate::domain::quantity::{human_bytes, human_seconds};
use crate::error::{Code, Error, Result};
use crate::operations::restore::{self, Request, RestoredSource};

use super::super::Exit;
use super::super::args::{CatArgs, RestoreArgs};
use super::super::output::{counted, print_json, say};
use super::super::session::Session;

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
    let request = Request { target: &args.to, source: source.as_ref(), paths: &args.path, overwrite: args.overwrite };
    let sources = restore::restore(&reading.host, &reader, &chosen.manifest, &request, &progress)?;
    let duration_seconds = (reading.host.clock.monotonic() - stopwatch).as_secs_f64();
    if json {
        print_json(&Document {
            schema_version: 1,
            backup: chosen.manifest.id.clone(),
            job: chosen.manifest.job.clone(),
            recovery_point: chosen.manifest.recovery_point,
            target: args.to.clone(),
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
                args.to.join(source.name.as_str()).display(),
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
