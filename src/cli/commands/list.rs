//! `list` and `show`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::catalog::{Verdict, verdict};
use crate::domain::contents::{Member, MemberKind, PostgresFacts};
use crate::domain::ids::{BackupId, JobName};
use crate::domain::manifest::{Completeness, Manifest};
use crate::domain::quantity::human_bytes;
use crate::error::{Code, Error, Result};
use crate::operations::restore::plan;
use crate::operations::vaults::{Look, manifests};

use super::super::Exit;
use super::super::args::{ListArgs, ShowArgs};
use super::super::output::{columns, counted, print, print_json, say};
use super::super::session::{Reading, Session};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    backups: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: BackupId,
    job: JobName,
    recovery_point: DateTime<Utc>,
    available_at: DateTime<Utc>,
    logical_bytes: u64,
    stored_bytes: u64,
    completeness: Completeness,
    /// Not known without a catalog.
    verdict: Option<Verdict>,
    expires_at: Option<DateTime<Utc>>,
}

pub(in super::super) fn list(session: Session, args: &ListArgs) -> Result<Exit> {
    let json = session.global.json;
    let reading = session.reading()?;
    let job = match &args.job {
        Some(name) => Some(name.parse::<JobName>().map_err(|e| Error::new(Code::NotFound, e.to_string()))?),
        None => None,
    };
    let Look { survey, untold } = reading.vault.look(&reading.host, job.as_ref())?;
    for what in untold {
        say(&format!("warning: this host cannot remember everything that the vault says: {what}"));
    }
    for problem in &survey.problems {
        say(&format!("warning: {}: {}", problem.key, problem.fault));
        say(" hint: `lifeboat check` says what is damaged and which backups it touches");
    }
    let all = manifests(survey);
    if let (Some(job), true) = (&job, all.is_empty())
        && reading.settings.as_ref().is_none_or(|s| !s.jobs.contains_key(job))
    {
        return Err(Error::new(Code::NotFound, format!("neither the vault nor the config knows a job {job}"))
            .with_hint("`lifeboat list` shows every job in the vault"));
    }
    let entries = entries(&reading, &all)?;
    if json {
        print_json(&Document { schema_version: 1, backups: entries });
        return Ok(Exit::DONE);
    }
    if entries.is_empty() {
        say("no backups yet");
        return Ok(Exit::DONE);
    }
    let head = ["BACKUP", "JOB", "RECOVERY POINT", "DATA", "STORED", "VERDICT", "EXPIRES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let zone = reading.zone();
    for entry in &entries {
        let verdict = match (entry.completeness, entry.verdict) {
            (_, Some(Verdict::Refuted)) => "REFUTED",
            (Completeness::Partial, _) => "partial",
            (_, Some(Verdict::Proven)) => "proven",
            (_, Some(Verdict::Unproven)) => "unproven",
            (_, None) => "unknown",
        };
        rows.push(vec![
            entry.id.to_string(),
            entry.job.to_string(),
            reading.local(entry.recovery_point),
            human_bytes(entry.logical_bytes),
            human_bytes(entry.stored_bytes),
            verdict.to_owned(),
            entry.expires_at.map_or("-".to_owned(), |at| at.with_timezone(&zone).format("%Y-%m-%d").to_string()),
        ]);
    }
    print(&columns(&rows));
    Ok(Exit::DONE)
}

fn entries(reading: &Reading, all: &[Manifest]) -> Result<Vec<Entry>> {
    let (runtime, vault) = (&reading.host.runtime, &reading.vault.id);
    let known = match reading.host.home_if_any() {
        Some(home) => {
            let drills = runtime.block_on(home.catalog.drills(vault, None))?;
            Some((drills, runtime.block_on(home.catalog.refutations(vault, None))?))
        }
        None => None,
    };
    let entry = |manifest: &Manifest| Entry {
        id: manifest.id.clone(),
        job: manifest.job.clone(),
        recovery_point: manifest.recovery_point,
        available_at: manifest.committed,
        logical_bytes: manifest.total(|s| s.logical_bytes),
        stored_bytes: manifest.total(|s| s.stored_bytes),
        completeness: manifest.completeness,
        verdict: known.as_ref().map(|(drills, refutations)| verdict(&manifest.id, drills, refutations)),
        expires_at: reading
            .settings
            .as_ref()
            .and_then(|settings| settings.jobs.get(&manifest.job))
            .map(|job| job.retention.expires_at(manifest.recovery_point)),
    };
    Ok(all.iter().map(entry).collect())
}

#[derive(Serialize)]
struct ShowDocument<'a> {
    schema_version: u32,
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contents: Vec<Contents>,
}

#[derive(Serialize)]
struct Contents {
    source: String,
    members: Vec<Member>,
    notes: Vec<crate::domain::contents::Note>,
    facts: Option<crate::domain::contents::Facts>,
}

pub(in super::super) fn show(session: Session, args: &ShowArgs) -> Result<Exit> {
    let json = session.global.json;
    let reading = session.reading()?;
    let chosen = reading.choose(&args.backup)?;
    let manifest = &chosen.manifest;
    let with_contents = args.files || !reading.identities.files.is_empty();
    let mut contents = Vec::new();
    if with_contents {
        let reader = reading.reader()?;
        for source in &manifest.sources {
            let mut plan = plan(&reader, manifest, source)?;
            let mut members = Vec::new();
            while let Some(piece) = plan.next_piece()? {
                if args.files {
                    members.extend(piece.members);
                }
            }
            let tail = plan.tail();
            let (notes, facts) = (tail.notes.clone(), tail.facts.clone());
            contents.push(Contents { source: source.name.to_string(), members, notes, facts });
        }
    }
    if json {
        print_json(&ShowDocument { schema_version: 1, manifest, contents });
        return Ok(Exit::DONE);
    }
    print(&head(manifest, &reading));
    for warning in &chosen.warnings {
        say(&format!("warning: {warning}"));
    }
    for source in contents {
        if !source.notes.is_empty() || source.facts.is_some() || args.files {
            print(&format!("\nsource {}", source.source));
        }
        if let Some(crate::domain::contents::Facts::Sqlite(facts)) = &source.facts {
            let rows: u64 = facts.tables.iter().map(|table| table.rows).sum();
            print(&format!(
                "  {}, {}, user_version {}",
                counted(facts.tables.len() as u64, "table"),
                counted(rows, "row"),
                facts.user_version
            ));
        }
        if let Some(crate::domain::contents::Facts::Postgres(facts)) = &source.facts {
            print(&postgres_lines(facts));
        }
        for note in &source.notes {
            let class = format!("{:?}", note.class).to_lowercase();
            print(&format!("  {class}: {} ({})", note.path.display(), note.detail));
        }
        for member in &source.members {
            print(&format!("  {}", member_line(member)));
        }
    }
    Ok(Exit::DONE)
}

fn postgres_lines(facts: &PostgresFacts) -> String {
    let rows: u64 = facts.tables.iter().map(|table| table.rows).sum();
    let mut text = format!(
        "  database {:?} of PostgreSQL {}, {}, {}, {}, {} on the server",
        facts.database,
        facts.server_version,
        facts.encoding,
        counted(facts.tables.len() as u64, "table"),
        counted(rows, "row"),
        human_bytes(facts.size_bytes),
    );
    let (objects, bytes) = facts.large_objects;
    if objects > 0 {
        text.push_str(&format!("\n  {} of {}", counted(objects, "large object"), human_bytes(bytes)));
    }
    let extensions: Vec<String> = facts.extensions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    if !extensions.is_empty() {
        text.push_str(&format!("\n  extensions: {}", extensions.join(", ")));
    }
    if !facts.role_passwords {
        text.push_str("\n  the roles' passwords are not in it: the server did not show them");
    }
    text
}

fn head(manifest: &Manifest, reading: &Reading) -> String {
    let completeness = match manifest.completeness {
        Completeness::Complete => "complete",
        Completeness::Partial => "partial",
    };
    let mut text = format!(
        "backup {} of job {}, number {}, {completeness}\n\
         recovery point  {}\n\
         available       {}\n\
         written by      {} on {}\n\
         opens with      {}\n",
        manifest.id,
        manifest.job,
        manifest.sequence,
        reading.local(manifest.recovery_point),
        reading.local(manifest.committed),
        manifest.tool,
        manifest.host,
        manifest.recipients.join(", "),
    );
    let columns_head = ["SOURCE", "KIND", "DATA", "STORED", "NEW", "SEGMENTS", "NOTES"];
    let mut rows = vec![columns_head.map(str::to_owned).to_vec()];
    for source in &manifest.sources {
        let notes: Vec<String> =
            source.notes.iter().map(|(class, n)| format!("{n} {class:?}").to_lowercase()).collect();
        rows.push(vec![
            source.name.to_string(),
            source.kind.clone(),
            human_bytes(source.logical_bytes),
            human_bytes(source.stored_bytes),
            human_bytes(source.new_bytes),
            format!("{} ({} new)", source.segments, source.new_segments),
            if notes.is_empty() { "-".to_owned() } else { notes.join(", ") },
        ]);
    }
    text.push('\n');
    text.push_str(&columns(&rows));
    text
}

fn member_line(member: &Member) -> String {
    let kind = match member.kind {
        MemberKind::File => '-',
        MemberKind::Folder => 'd',
        MemberKind::Symlink => 'l',
        MemberKind::Hardlink => 'h',
        MemberKind::Fifo => 'p',
        MemberKind::Char => 'c',
        MemberKind::Block => 'b',
    };
    let modified = DateTime::from_timestamp(member.mtime_seconds, member.mtime_nanos)
        .map_or_else(|| member.mtime_seconds.to_string(), |m| m.format("%Y-%m-%d %H:%M:%S").to_string());
    let link = member.link.as_ref().map(|l| format!(" -> {}", l.display())).unwrap_or_default();
    format!(
        "{kind}{:04o} {:>5}:{:<5} {:>12} {modified} {}{link}",
        member.mode,
        member.uid,
        member.gid,
        member.size_bytes,
        member.path.display()
    )
}
