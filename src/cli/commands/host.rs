//! `host add`, `host revoke` and `host list`.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::json;

use crate::domain::ids::JobName;
use crate::error::{Code, Error, Result};
use crate::operations::selection::parse_moment;
use crate::operations::trustees::{self, HostState, LastManifest};
use crate::vault::keys::PublicKey;
use crate::vault::trust::{JobPattern, Revocation};

use super::super::Exit;
use super::super::args::HostCommand;
use super::super::output::{columns, counted, print, print_json, say};
use super::super::session::{Reading, Session};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    vault: String,
    serial: u64,
    hosts: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    key: String,
    jobs: Vec<JobPattern>,
    from: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    revoked: Option<Revocation>,
    this_host: bool,
    last_manifests: BTreeMap<JobName, LastManifest>,
}

pub(in super::super) fn host(session: Session, command: &HostCommand) -> Result<Exit> {
    let json = session.global.json;
    match command {
        HostCommand::Add { name, key, jobs, vault_key } => {
            let (key, jobs) = (public_key(key)?, patterns(jobs)?);
            add(&session.reading()?, name, &key, &jobs, vault_key, json)
        }
        HostCommand::Revoke { name, last, at, vault_key } => {
            let last = last_manifests(last)?;
            let reading = session.reading()?;
            let at = at.as_ref().map(|at| since(at, reading.zone())).transpose()?;
            revoke(&reading, name, &last, at, vault_key, json)
        }
        HostCommand::List => list(&session.reading()?, json),
    }
}

fn add(
    reading: &Reading,
    name: &str,
    key: &PublicKey,
    jobs: &[JobPattern],
    vault_key: &Path,
    json: bool,
) -> Result<Exit> {
    let changed = trustees::add_host(&reading.host, &reading.vault, vault_key, name, key, jobs)?;
    if json {
        let trust = changed.as_ref().unwrap_or(&reading.vault.trust);
        let jobs = trust.hosts.iter().find(|host| host.name == name).map(|host| &host.jobs);
        let (changed, serial) = (changed.is_some(), trust.serial);
        print_json(&json!({ "schema_version": 1, "host": name, "jobs": jobs, "changed": changed, "serial": serial }));
        return Ok(Exit::DONE);
    }
    match changed {
        None => say(&format!("host {name} may write that already; nothing was changed")),
        Some(trust) => {
            let now = trust.hosts.iter().find(|host| host.name == name).map_or(jobs, |host| &host.jobs);
            say(&format!("host {name} may write {} now (vault.json number {})", of_jobs(now), trust.serial));
            put_away(vault_key);
        }
    }
    Ok(Exit::DONE)
}

fn revoke(
    reading: &Reading,
    name: &str,
    last: &BTreeMap<JobName, u64>,
    at: Option<DateTime<Utc>>,
    vault_key: &Path,
    json: bool,
) -> Result<Exit> {
    let revoked = trustees::revoke_host(&reading.host, &reading.vault, vault_key, name, last, at)?;
    if json {
        let disowned: Vec<_> = revoked.disowned.iter().map(|manifest| &manifest.id).collect();
        print_json(&json!({
            "schema_version": 1,
            "host": name,
            "last_manifests": revoked.believed,
            "disowned": disowned,
            "serial": revoked.trust.serial,
        }));
        return Ok(Exit::DONE);
    }
    say(&format!("host {name} is revoked (vault.json number {})", revoked.trust.serial));
    if revoked.believed.is_empty() {
        say("none of its backups is believed");
    }
    for (job, sequence) in &revoked.believed {
        say(&format!("still believed: its backups of {job} up to number {sequence}"));
    }
    for manifest in &revoked.disowned {
        let (job, sequence) = (&manifest.job, manifest.sequence);
        say(&format!(
            "no longer believed: {} ({job}, number {sequence}, {})",
            manifest.id,
            reading.local(manifest.committed)
        ));
    }
    let until = at.map_or_else(|| "now".to_owned(), |at| reading.local(at));
    say(&format!("still believed: what it recorded until {until}, and the vault has had since before then"));
    let kept: u64 = revoked.believed.len() as u64;
    if kept > 0 && last.is_empty() && at.is_none() {
        say(&format!(
            "If somebody had its key before now, the newest of {} may be false: look at their times in `lifeboat list`,",
            counted(kept, "job")
        ));
        say("restore from before, and revoke it once more with a lower --last JOB=SEQ or an earlier --at TIME.");
    }
    put_away(vault_key);
    Ok(Exit::DONE)
}

pub(super) fn put_away(vault_key: &Path) {
    say(&format!("Take {} off this host again.", vault_key.display()));
}

fn list(reading: &Reading, json: bool) -> Result<Exit> {
    let hosts = trustees::hosts(&reading.host, &reading.vault)?;
    let trust = &reading.vault.trust;
    if json {
        let hosts = hosts.into_iter().map(entry).collect();
        print_json(&Document { schema_version: 1, vault: trust.vault.to_string(), serial: trust.serial, hosts });
        return Ok(Exit::DONE);
    }
    let head = ["HOST", "JOBS", "FROM", "STATE", "NEWEST BACKUPS", "KEY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for host in hosts {
        let name = if host.is_this_host { format!("{} (this one)", host.entry.name) } else { host.entry.name.clone() };
        let state = match (&host.entry.revoked, host.entry.until) {
            (Some(revoked), _) => format!("revoked {}", reading.local(revoked.at)),
            (None, Some(until)) => format!("until {}", reading.local(until)),
            (None, None) => "may write".to_owned(),
        };
        let last: Vec<String> = host.last.iter().map(|(job, last)| format!("{job} {}", last.sequence)).collect();
        let last = if last.is_empty() { "-".to_owned() } else { last.join(", ") };
        rows.push(vec![
            name,
            in_words(&host.entry.jobs),
            reading.local(host.entry.from),
            state,
            last,
            host.entry.key.to_string(),
        ]);
    }
    print(&columns(&rows));
    Ok(Exit::DONE)
}

fn entry(host: HostState) -> Entry {
    Entry {
        name: host.entry.name,
        key: host.entry.key.to_string(),
        jobs: host.entry.jobs,
        from: host.entry.from,
        until: host.entry.until,
        revoked: host.entry.revoked,
        this_host: host.is_this_host,
        last_manifests: host.last,
    }
}

fn in_words(jobs: &[JobPattern]) -> String {
    let words: Vec<String> = jobs.iter().cloned().map(String::from).collect();
    words.join(",")
}

fn of_jobs(jobs: &[JobPattern]) -> String {
    match jobs {
        _ if jobs.contains(&JobPattern::Any) => "every job".to_owned(),
        [_] => format!("job {}", in_words(jobs)),
        _ => format!("jobs {}", in_words(jobs)),
    }
}

fn public_key(text: &str) -> Result<PublicKey> {
    text.trim().parse().map_err(|_| {
        // Not shown: the secret half has the same beginning.
        Error::new(Code::Usage, "--key is not the public half of a host's key (56 letters that begin with RW)")
            .with_hint("`lifeboat init` and `lifeboat doctor` print it on the host that it belongs to")
    })
}

fn patterns(jobs: &[String]) -> Result<Vec<JobPattern>> {
    if jobs.is_empty() {
        return Ok(vec![JobPattern::Any]);
    }
    let pattern = |job: &String| {
        JobPattern::try_from(job.trim().to_owned()).map_err(|error| {
            Error::new(Code::Usage, format!("{job:?} is no job's name: {error}"))
                .with_hint("--jobs takes names separated by commas; without it every job is meant")
        })
    };
    jobs.iter().map(pattern).collect()
}

/// A moment from which on nothing is believed: a day alone means from its beginning.
fn since(text: &str, zone: Tz) -> Result<DateTime<Utc>> {
    let is_day = NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    if is_day { parse_moment(&format!("{text}T00:00"), zone) } else { parse_moment(text, zone) }
}

fn last_manifests(given: &[String]) -> Result<BTreeMap<JobName, u64>> {
    let mut last = BTreeMap::new();
    for text in given {
        let parsed = text.split_once('=').and_then(|(job, sequence)| Some((job.parse().ok()?, sequence.parse().ok()?)));
        let Some((job, sequence)) = parsed else {
            return Err(Error::new(Code::Usage, format!("{text:?} is not a job and a number"))
                .with_hint("such as --last shop=12; `lifeboat host list` shows the newest numbers"));
        };
        if last.insert(job, sequence).is_some() {
            return Err(Error::new(Code::Usage, format!("--last {text}: the job was named before"))
                .with_hint("name each job once"));
        }
    }
    Ok(last)
}
