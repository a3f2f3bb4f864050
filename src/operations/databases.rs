//! A source of the config that means several databases of a server: which ones there are now, each a source of its own.
//!
//! It is asked when a backup begins, and the backup has what was there then. What appears is in the next one; what is gone
//! is said, by the backup and by drills, and is no error: nobody here knows whether it should be there.

use std::time::Duration;

use crate::config::{Databases, JobSettings, PostgresSettings, SourceKind, SourceSettings};
use crate::domain::databases::{is_of, source_of};
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Completeness, Manifest, SourceEntry};
use crate::domain::server::DRILL_DATABASE_PREFIX;
use crate::error::{Code, Error, Result};
use crate::sources::postgres::examine::databases;
use crate::sources::postgres::layout::quoted;

use super::access::access;
use super::host::Host;

/// How long a server may take to name its databases, and how many are taken.
const DEADLINE: Duration = Duration::from_secs(60);
const MAX_DATABASES: usize = 1000;

/// The job with each database a source of its own.
///
/// # Errors
/// When a server cannot be asked, has none or too many, or two sources would have one name.
pub(super) fn expanded(host: &Host, job: &JobSettings) -> Result<JobSettings> {
    let mut sources: Vec<SourceSettings> = Vec::new();
    for source in &job.sources {
        let SourceKind::Postgres(postgres) = &source.kind else {
            sources.push(source.clone());
            continue;
        };
        let names = match &postgres.databases {
            Databases::OfUrl => {
                sources.push(source.clone());
                continue;
            }
            Databases::These(names) => names.clone(),
            Databases::All { except } => {
                all(host, postgres, except).map_err(|error| error.context(format!("source {}", source.name)))?
            }
        };
        sources.extend(names.into_iter().map(|database| SourceSettings {
            name: source_of(&source.name, &database),
            kind: SourceKind::Postgres(Box::new(PostgresSettings {
                address: postgres.address.with_database(&database),
                databases: Databases::OfUrl,
                ..(**postgres).clone()
            })),
        }));
    }
    Ok(JobSettings { sources, ..job.clone() })
}

fn all(host: &Host, postgres: &PostgresSettings, except: &[String]) -> Result<Vec<String>> {
    let access = access(postgres)?;
    let asked = host.runtime.block_on(async { tokio::time::timeout(DEADLINE, databases(&access)).await });
    let found = asked.map_err(|_| {
        let seconds = DEADLINE.as_secs();
        Error::new(Code::SourceUnavailable, format!("{} did not name its databases within {seconds} s", access.address))
    })??;
    let wanted =
        found.into_iter().filter(|(name, _)| !except.contains(name) && !name.starts_with(DRILL_DATABASE_PREFIX));
    let (mut names, mut shut_out) = (Vec::new(), Vec::new());
    for (name, may_connect) in wanted {
        if may_connect { names.push(name) } else { shut_out.push(name) }
    }
    names.sort();
    // "all" without them would be a backup that is not what it says.
    if !shut_out.is_empty() {
        let role = quoted(&access.address.role);
        let grants: Vec<String> =
            shut_out.iter().map(|name| format!("GRANT CONNECT ON DATABASE {} TO {role}", quoted(name))).collect();
        let what = format!("role {} may not connect to {}", access.address.role, shut_out.join(", "));
        let except: Vec<String> = except.iter().chain(&shut_out).map(|name| format!("{name:?}")).collect();
        return Err(Error::new(Code::SourceUnavailable, what).with_hint(format!(
            "as a superuser: {}; or leave them out: exclude_databases = [{}]",
            grants.join("; "),
            except.join(", ")
        )));
    }
    match names.len() {
        0 => Err(Error::new(Code::SourceUnavailable, format!("{} has no database to back up", access.address))
            .with_hint("psql -l shows them; see `exclude_databases`")),
        1..=MAX_DATABASES => Ok(names),
        more => Err(Error::new(
            Code::SourceUnavailable,
            format!("{} has {more} databases, and one source takes {MAX_DATABASES}", access.address),
        )
        .with_hint("leave some out by `exclude_databases`, and give them a source of their own")),
    }
}

/// What of a source must be in a backup and is not.
pub(super) fn missing(source: &SourceSettings, there: &[SourceEntry]) -> Vec<SourceName> {
    let is_there = |name: &SourceName| there.iter().any(|entry| entry.name == *name);
    match source.databases() {
        Databases::These(names) => {
            names.iter().map(|database| source_of(&source.name, database)).filter(|name| !is_there(name)).collect()
        }
        Databases::OfUrl | Databases::All { .. } if there.iter().any(|entry| source.stands_for(&entry.name)) => {
            Vec::new()
        }
        Databases::OfUrl | Databases::All { .. } => vec![source.name.clone()],
    }
}

/// Databases of `databases = "all"` that the newest complete one of `earlier` has, and that are not among `now`, in
/// sentences.
pub(super) fn vanished(job: &JobSettings, earlier: &[Manifest], now: &[SourceName]) -> Vec<String> {
    let complete = earlier.iter().filter(|manifest| manifest.completeness == Completeness::Complete);
    let Some(last) = complete.max_by_key(|manifest| manifest.sequence) else { return Vec::new() };
    let all = || job.sources.iter().filter(|source| matches!(source.databases(), Databases::All { .. }));
    let gone = last
        .sources
        .iter()
        .filter(|entry| all().any(|source| is_of(&source.name, &entry.name)) && !now.contains(&entry.name));
    gone.map(|entry| {
        format!("source {} is in backup {} and not in this one: its database is gone, or left out", entry.name, last.id)
    })
    .collect()
}
