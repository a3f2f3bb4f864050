//! What `doctor` looks at on this host and in its vaults.

mod ground;
mod keys;
mod machine;
mod notify;
mod postgres;
mod rights;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::config::{CopySettings, JobSettings, ServerGround, SourceKind, VaultSettings};
use crate::domain::ids::JobName;
use crate::domain::manifest::{Completeness, Manifest};
use crate::domain::quantity::{human_bytes, human_duration};
use crate::domain::schedule::Schedule;
use crate::error::{Error, Result};
use crate::scratch::confine::{Confinement, Network, Trust};
use crate::scratch::folder::free_bytes;

pub use self::keys::{hygiene, recipients};
pub use self::machine::machine;
pub use self::notify::notify;
pub use self::rights::{Prunes, rights};
use super::copy::awaits_first_copy;
use super::host::Host;
use super::vaults::{Look, OpenVault, manifests};

/// Less room than this on a vault's disk is a warning whatever the last backup took.
const LITTLE_ROOM_BYTES: u64 = 1024 * 1024 * 1024;

/// What clocks may differ by without a word; and when a store begins to refuse what is signed by such a clock.
const CLOCKS_AGREE: TimeDelta = TimeDelta::minutes(1);
const CLOCKS_DISAGREE: TimeDelta = TimeDelta::minutes(15);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    Warning,
    /// Backups or drills will fail.
    Problem,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What it is about.
    pub about: String,
    /// What it is.
    pub message: String,
    /// What to type.
    pub hint: Option<String>,
}

impl Finding {
    /// Nothing wrong.
    #[must_use]
    pub fn ok(about: impl Into<String>, message: String) -> Self {
        Self { grade: Grade::Ok, about: about.into(), message, hint: None }
    }

    /// Something wrong.
    #[must_use]
    pub fn problem(about: impl Into<String>, message: String, hint: Option<impl Into<String>>) -> Self {
        Self { grade: Grade::Problem, about: about.into(), message, hint: hint.map(Into::into) }
    }

    fn warning(about: impl Into<String>, message: String, hint: impl Into<String>) -> Self {
        Self { grade: Grade::Warning, about: about.into(), message, hint: Some(hint.into()) }
    }

    fn of(about: &str, error: &Error) -> Self {
        Self::problem(about, error.to_string(), error.hint())
    }
}

/// The host's own key and state.
#[must_use]
pub fn host(host: &Host) -> Vec<Finding> {
    let key = match host.key() {
        Ok(key) => Finding::ok("host key", format!("there, its public half is {}", key.public())),
        Err(error) => Finding::of("host key", &error),
    };
    vec![key]
}

/// A vault: there, trusted, with room, its clock near ours.
#[must_use]
pub fn vault(host: &Host, name: &str, vault: &Result<OpenVault>) -> Vec<Finding> {
    let about = format!("vault {name}");
    let vault = match vault {
        Err(error) => return vec![Finding::of(&about, error)],
        Ok(vault) => vault,
    };
    let what = if vault.is_copy() { "is a copy of" } else { "is" };
    let mut findings = vec![Finding::ok(
        &about,
        format!(
            "{} {what} vault {}, and signed by whom this host trusts (vault.json number {})",
            vault.settings.url, vault.trust.vault, vault.trust.serial
        ),
    )];
    let strangers = vault.trust.unapproved(&vault.settings.recipients);
    if let Some(first) = strangers.first() {
        findings.push(Finding::warning(
            &about,
            format!("the config seals to {}, whom vault.json does not approve", strangers.join(", ")),
            format!("lifeboat recipient add {first} --vault-key FILE, or take it out of `recipients`"),
        ));
    }
    match host.runtime.block_on(vault.storage.available_bytes()) {
        Ok(Some(free)) if free < LITTLE_ROOM_BYTES => findings.push(Finding::warning(
            &about,
            format!("only {} are free", human_bytes(free)),
            "make room, or move the vault to a larger disk",
        )),
        Ok(Some(free)) => findings.push(Finding::ok(&about, format!("{} are free", human_bytes(free)))),
        Ok(None) => {}
        Err(error) => findings.push(Finding::of(&about, &error.into())),
    }
    if vault.folder().is_none() {
        findings.push(clocks(host, &about, vault));
    }
    findings
}

/// This host's clock against the store's: deadlines are held against the store's, schedules against this one.
fn clocks(host: &Host, about: &str, vault: &OpenVault) -> Finding {
    match host.runtime.block_on(vault.storage.now()) {
        Ok(theirs) => apart(about, theirs - host.clock.now()),
        Err(error) => Finding::of(about, &error.into()),
    }
}

fn apart(about: &str, ahead: TimeDelta) -> Finding {
    let by = human_duration(ahead.abs().to_std().unwrap_or_default());
    let side = if ahead < TimeDelta::zero() { "ahead of" } else { "behind" };
    match ahead.abs() {
        near if near <= CLOCKS_AGREE => Finding::ok(about, "its clock and this host's agree".to_owned()),
        far => {
            let message = format!("this host's clock is {by} {side} the store's");
            let hint = "set the clock, and let it be kept: timedatectl set-ntp true";
            match far < CLOCKS_DISAGREE {
                true => Finding::warning(about, message, hint),
                false => Finding::problem(about, message, Some(hint)),
            }
        }
    }
}

/// A job: may this host write it, is there a sound chain of backups, can a drill run.
#[must_use]
pub fn job(host: &Host, vault: &OpenVault, job: &JobSettings, config_file: &Path, zone: Tz) -> Vec<Finding> {
    let about = format!("job {}", job.name);
    let now = host.clock.now();
    let mut findings = Vec::new();
    match vault.must_let_write(host, &job.name, now) {
        Ok(()) => findings.push(Finding::ok(&about, "this host may write it".to_owned())),
        Err(error) => findings.push(Finding::of(&about, &error)),
    }
    findings.extend(machine::sources(job, config_file));
    findings.extend(postgres::sources(host, job));
    findings.extend(postgres::neighbours(host, job));
    let Some(all) = backups(host, vault, &about, job, &mut findings) else { return findings };
    findings.extend(due(&about, "backup", &job.schedule, now, zone));
    if let Some(drill) = &job.drill {
        // Drills take the oldest and any other one, too.
        let needed = all.iter().map(|manifest| manifest.total(|source| source.logical_bytes)).max().unwrap_or(0);
        findings.extend(scratch(&about, &drill.scratch, needed));
        let databases = job.sources.iter().any(|source| matches!(source.kind, SourceKind::Postgres(_)));
        if databases {
            findings.extend(ground::server(host, &about, drill));
        }
        let servers = databases && !matches!(drill.server.ground, ServerGround::Existing(_));
        if !drill.checks.is_empty() || servers {
            let trust = if drill.trust_source { Trust::Source } else { Trust::Hostile };
            match host.runtime.block_on(Confinement::decide(trust)) {
                Ok(confinement) => {
                    findings.push(Finding::ok(
                        &about,
                        format!(
                            "{} will run {}",
                            if servers { "its checks and its scratch server" } else { "its checks" },
                            in_words(&confinement)
                        ),
                    ));
                    findings.extend(exposed(host, vault, config_file, &about, &confinement));
                }
                Err(error) => findings.push(Finding::of(&about, &error.into())),
            }
        }
    }
    findings
}

/// A job in the vault that it is copied to, where that could be opened: what there is, and when more is due.
#[must_use]
pub fn copy(host: &Host, vault: Option<&OpenVault>, job: &JobSettings, copy: &CopySettings, zone: Tz) -> Vec<Finding> {
    let about = format!("job {}: copy in {}", job.name, copy.to);
    let mut findings = Vec::new();
    if let Some(vault) = vault {
        let _ = backups(host, vault, &about, job, &mut findings);
    }
    match &copy.schedule {
        Some(schedule) => findings.extend(due(&about, "copy", schedule, host.clock.now(), zone)),
        None => findings.push(Finding::ok(about, "it has no schedule: somebody must start it".to_owned())),
    }
    findings
}

/// A copy that one broken disk takes along with its source.
#[must_use]
pub fn same_disk(source: &OpenVault, copy: &OpenVault) -> Option<Finding> {
    let [one, other] = [source, copy].map(|vault| Some(std::fs::metadata(vault.folder()?).ok()?.dev()));
    (one.is_some() && one == other).then(|| {
        let (name, of) = (&copy.settings.name, &source.settings.name);
        Finding::warning(
            format!("vault {name}"),
            format!("it lies in the same file system as vault {of}: what breaks the one breaks the other"),
            format!("write a place elsewhere as the url of [vault.{name}], and copy there (docs/COPY.md)"),
        )
    })
}

/// The vault that a job is copied to, where it can be opened, and what was found of it. A place that waits for its first
/// copy must stay empty, and no right is tried there.
#[must_use]
pub fn place_of_copies(
    host: &Host,
    settings: &VaultSettings,
    job: &JobName,
    prunes: Prunes,
    open: impl FnOnce() -> Result<OpenVault>,
) -> (Option<OpenVault>, Vec<Finding>) {
    let vault = match awaits_first_copy(host, settings) {
        Ok(false) => open(),
        Ok(true) => {
            let message = format!("nothing was copied to {} yet", settings.url);
            let about = format!("vault {}", settings.name);
            return (None, vec![Finding::warning(about, message, format!("lifeboat copy {job}"))]);
        }
        Err(error) => Err(error),
    };
    let mut findings = self::vault(host, &settings.name, &vault);
    if let Ok(vault) = &vault {
        findings.extend(rights(host, &settings.name, vault, prunes));
    }
    (vault.ok(), findings)
}

/// Whether there is a sound chain of a job's backups in a vault; gives those there are.
fn backups(
    host: &Host,
    vault: &OpenVault,
    about: &str,
    job: &JobSettings,
    findings: &mut Vec<Finding>,
) -> Option<Vec<Manifest>> {
    let now = host.clock.now();
    let (again, check) = match vault.is_copy() {
        false => ("backup", format!("lifeboat check {}", job.name)),
        true => ("copy", format!("lifeboat check {} --vault {}", job.name, vault.settings.name)),
    };
    let survey = match vault.look(host, Some(&job.name)) {
        Ok(Look { survey, untold }) => {
            findings.extend(untold.into_iter().map(|what| Finding::problem(about, what, Some(&check))));
            survey
        }
        Err(error) => {
            findings.push(Finding::of(about, &error));
            return None;
        }
    };
    for problem in &survey.problems {
        findings.push(Finding::problem(about, format!("{}: {}", problem.key, problem.fault), Some(&check)));
    }
    let all = manifests(survey);
    let newest = all.iter().rev().find(|manifest| manifest.completeness == Completeness::Complete);
    findings.push(match newest {
        None => Finding::warning(about, "no complete backup yet".to_owned(), format!("lifeboat {again} {}", job.name)),
        Some(newest) if newest.recovery_point > now + CLOCKS_AGREE => Finding::warning(
            about,
            "the newest recovery point is yet to come: this host's clock, or that of the host that made it, is wrong"
                .to_owned(),
            "compare `date -u` on both with a clock that is right",
        ),
        Some(newest) => {
            let age = (now - newest.recovery_point).to_std().unwrap_or_default();
            Finding::ok(about, format!("the newest recovery point is {} old", human_duration(age)))
        }
    });
    Some(all)
}

/// When a schedule wants the next one.
fn due(about: &str, what: &str, schedule: &Schedule, now: DateTime<Utc>, zone: Tz) -> Option<Finding> {
    let next = schedule.next_after(now, zone)?;
    let local = next.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z");
    Some(Finding::ok(about, format!("by its schedule the next {what} is due {local}")))
}

/// What foreign code could read: a drill would end there.
fn exposed(host: &Host, vault: &OpenVault, config: &Path, about: &str, confinement: &Confinement) -> Option<Finding> {
    let state = host.home().ok().map(|home| home.state.root().to_owned());
    let secrets = [Some(config.to_owned()), state, vault.folder()];
    // The question is asked in another folder than this process's.
    let secrets: Vec<PathBuf> =
        secrets.into_iter().flatten().filter_map(|path| std::path::absolute(path).ok()).collect();
    let asked = host.runtime.block_on(confinement.verify_unreadable(&secrets));
    asked.err().map(|error| Finding::of(about, &error.into()))
}

fn in_words(confinement: &Confinement) -> &'static str {
    match (confinement, confinement.network()) {
        (Confinement::TrustedSource, _) => "with this user's own rights, as `trust_source` allows",
        (Confinement::OwnUid(_), Network::None) => "under a uid of their own, without a network",
        (Confinement::OwnUid(_), Network::Shared) => "under a uid of their own",
    }
}

fn scratch(about: &str, folder: &Path, needed: u64) -> Option<Finding> {
    // The folder is made by the first drill; until then its nearest parent tells how much room there is.
    let there = folder.ancestors().find(|ancestor| ancestor.is_dir())?;
    Some(match free_bytes(there) {
        Ok(free) if free < needed => Finding::problem(
            about,
            format!(
                "scratch {} has {} free, and the largest backup takes {}",
                folder.display(),
                human_bytes(free),
                human_bytes(needed)
            ),
            Some("set `scratch` of the drill to a folder with more room"),
        ),
        Ok(free) => Finding::ok(about, format!("scratch {} has {} free", folder.display(), human_bytes(free))),
        Err(error) => Finding::of(about, &error.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_far_apart_are_told() {
        for (seconds, grade, side) in [
            (0, Grade::Ok, "agree"),
            (60, Grade::Ok, "agree"),
            (-61, Grade::Warning, "1m 01s ahead of the store's"),
            (300, Grade::Warning, "behind the store's"),
            (900, Grade::Problem, "15m 00s behind the store's"),
            (-86_400, Grade::Problem, "ahead of"),
        ] {
            let found = apart("vault main", TimeDelta::seconds(seconds));
            assert!(found.grade == grade && found.message.contains(side), "{seconds}: {found:?}");
        }
    }
}
