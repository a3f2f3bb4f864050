//! What most commands begin with: the config, the jobs that are meant, their vaults, the identities.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use age::secrecy::ExposeSecret;

use crate::config::{JobSettings, Secret, Settings, VaultRole, VaultSettings, VaultUrl};
use crate::domain::ids::{JobName, VaultId};
use crate::domain::manifest::Manifest;
use crate::error::{Code, Error, Result};
use crate::operations::host::Host;
use crate::operations::selection::{SHORTEST_ID, choose};
use crate::operations::vaults::{self, Look, OpenVault, Trusted, manifests};
use crate::seal::{Identities, Opener};
use crate::vault::identity::read_comments;
use crate::vault::layout::Key;
use crate::vault::reader::Reader;
use crate::vault::survey::Problem;

use super::args::Global;
use super::output::say;
use super::progress::Terminal;

/// The variable that names identity files when no option does; several are separated by colons.
const IDENTITY_VARIABLE: &str = "LIFEBOAT_IDENTITY";

/// One invocation.
pub(super) struct Session {
    pub(super) global: Global,
    pub(super) host: Host,
}

/// An invocation with a config.
pub(super) struct Configured {
    pub(super) global: Global,
    pub(super) host: Host,
    pub(super) settings: Settings,
}

/// A vault that is read without any job's settings, perhaps on a bare host.
pub(super) struct Reading {
    pub(super) host: Host,
    pub(super) settings: Option<Settings>,
    pub(super) vault: OpenVault,
    pub(super) identities: IdentitySource,
}

/// Where identities come from.
#[derive(Debug, Clone, Default)]
pub(super) struct IdentitySource {
    pub(super) files: Vec<PathBuf>,
}

impl Session {
    /// Loads the config and opens the state folder.
    pub(super) fn configured(self) -> Result<Configured> {
        let settings = Settings::load(self.global.config.as_deref())?;
        let host = self.host.with_home(&settings.state_dir)?;
        Ok(Configured { global: self.global, host, settings })
    }

    /// Opens the vault that is meant: the one given, or the only one of the config.
    pub(super) fn reading(self) -> Result<Reading> {
        let identities = IdentitySource::of(&self.global);
        let loaded = Settings::load(self.global.config.as_deref());
        // A name of the config comes first; a folder that has none may be said without a slash.
        let is_name = |text: &str| loaded.as_ref().is_ok_and(|settings| settings.vaults.contains_key(text));
        let is_url = |text: &&str| text.contains('/') || (!is_name(text) && Path::new(text).is_dir());
        let by_url = self.global.vault.as_deref().filter(is_url);
        let settings = match (loaded, by_url) {
            (Ok(settings), _) => Some(settings),
            // A bare host has no config and needs none; a config that was named must be readable all the same.
            (Err(_), Some(_)) if self.global.config.is_none() => None,
            (Err(error), _) => return Err(error.into()),
        };
        let named = settings.as_ref().and_then(|settings| match (&self.global.vault, by_url) {
            (Some(name), None) => settings.vaults.get(name),
            (_, Some(url)) => settings.vaults.values().find(|vault| vault.url.to_string() == url),
            (None, None) => {
                let mut own = settings.vaults.values().filter(|vault| vault.role == VaultRole::Own);
                own.next().filter(|_| own.next().is_none())
            }
        });
        if let (Some(settings), Some(vault)) = (&settings, named) {
            let vault = vault.clone();
            let host = self.host.with_home(&settings.state_dir)?;
            let vault = vaults::open(&host, &vault, self.global.trust.as_deref(), &identities.texts()?)?;
            return Ok(Reading { host, settings: Some(settings.clone()), vault, identities });
        }
        let Some(url) = by_url else {
            let known: Vec<String> = settings.iter().flat_map(|s| s.vaults.keys().cloned()).collect();
            let message = match &self.global.vault {
                Some(name) => format!("the config has no vault {name:?}"),
                None => "the config has several vaults".to_owned(),
            };
            return Err(Error::new(Code::Usage, message)
                .with_hint(format!("say --vault NAME with one of: {}; or --vault with a folder", known.join(", "))));
        };
        let base =
            std::env::current_dir().map_err(|cause| Error::new(Code::Usage, format!("no current folder: {cause}")))?;
        let url = VaultUrl::parse(url, &base)?;
        let vault = vaults::open_bare(&self.host, &url, self.global.trust.as_deref(), &identities.texts()?)?;
        Ok(Reading { host: self.host, settings, vault, identities })
    }

    /// Where talk about progress goes.
    pub(super) fn progress(&self) -> Terminal {
        Terminal::new(self.global.quiet)
    }
}

impl Configured {
    /// The jobs named, or all; in the order of the config.
    pub(super) fn jobs(&self, names: &[String]) -> Result<Vec<&JobSettings>> {
        jobs(&self.settings, names)
    }

    /// Opens the vaults of these jobs, each once.
    pub(super) fn vaults(&self, jobs: &[&JobSettings]) -> BTreeMap<String, Result<OpenVault>> {
        let mut open = BTreeMap::new();
        for job in jobs {
            open.entry(job.vault.clone()).or_insert_with(|| self.vault(job));
        }
        open
    }

    /// The vault of a job that is meant: its own, or the one that it is copied to where `--vault` says so.
    pub(super) fn place_of<'a>(&'a self, job: &'a JobSettings) -> Result<&'a VaultSettings> {
        let of_job = [Some(&job.vault), job.copy.as_ref().map(|copy| &copy.to)];
        let mut places = of_job.into_iter().flatten().filter_map(|name| self.settings.vaults.get(name));
        let found = match &self.global.vault {
            None => places.next(),
            Some(text) => places.find(|vault| vault.name == *text || vault.url.to_string() == *text),
        };
        found.ok_or_else(|| {
            let text = self.global.vault.as_deref().unwrap_or(&job.vault);
            Error::new(Code::NotFound, format!("job {} has no vault {text:?}", job.name)).with_hint(format!(
                "its own is {:?}; a second one is named by `to` in [job.{}.copy]",
                job.vault, job.name
            ))
        })
    }

    /// Opens these jobs' vaults that are meant, each once, by name.
    pub(super) fn places(&self, jobs: &[&JobSettings]) -> Result<BTreeMap<String, Result<OpenVault>>> {
        let mut open = BTreeMap::new();
        for job in jobs {
            let settings = self.place_of(job)?;
            open.entry(settings.name.clone()).or_insert_with(|| self.open(settings));
        }
        Ok(open)
    }

    /// Opens a vault of the config.
    pub(super) fn open(&self, settings: &VaultSettings) -> Result<OpenVault> {
        let texts = IdentitySource::of(&self.global).texts()?;
        vaults::open(&self.host, settings, self.global.trust.as_deref(), &texts)
    }

    /// Opens a job's vault.
    pub(super) fn vault(&self, job: &JobSettings) -> Result<OpenVault> {
        let settings: &VaultSettings = self
            .settings
            .vault_of(job)
            .ok_or_else(|| Error::new(Code::ConfigInvalid, format!("job {} has no vault {}", job.name, job.vault)))?;
        self.open(settings)
    }

    pub(super) fn progress(&self) -> Terminal {
        Terminal::new(self.global.quiet)
    }
}

/// The jobs named, or all.
pub(super) fn jobs<'a>(settings: &'a Settings, names: &[String]) -> Result<Vec<&'a JobSettings>> {
    if settings.jobs.is_empty() {
        return Err(Error::new(Code::NotFound, format!("{} has no job", settings.file.display()))
            .with_hint("add a [job.NAME] with a source; the comments in the file show how"));
    }
    if names.is_empty() {
        return Ok(settings.jobs.values().collect());
    }
    names
        .iter()
        .map(|name| {
            let found = name.parse::<JobName>().ok().and_then(|name| settings.jobs.get(&name));
            found.ok_or_else(|| {
                let known: Vec<&str> = settings.jobs.keys().map(JobName::as_str).collect();
                Error::new(Code::NotFound, format!("the config has no job {name:?}"))
                    .with_hint(format!("it has: {}", known.join(", ")))
            })
        })
        .collect()
}

impl Reading {
    /// A reader with the identities at hand.
    pub(super) fn reader(&self) -> Result<Reader> {
        let opener = self.identities.opener()?;
        Ok(Reader::new(self.host.runtime.clone(), Arc::clone(&self.vault.storage), Arc::new(opener)))
    }

    /// The backup that is meant. What is wrong around it is said too: a manifest that is gone or not believed may be
    /// the reason why this one is the newest.
    pub(super) fn choose(&self, text: &str) -> Result<Chosen> {
        let Look { survey, untold } = self.vault.look(&self.host, None)?;
        let problems = survey.problems.clone();
        let known: Vec<JobName> = self.settings.iter().flat_map(|s| s.jobs.keys().cloned()).collect();
        let hidden = self.vault.hidden_newest(&self.host, &survey, &known)?;
        let refuted = self.host.refuted(&self.vault.id, None)?;
        let all = manifests(survey);
        let chosen =
            choose(text, &all, &refuted, self.zone()).map_err(|error| not_believed(text, &problems, error)).map_err(
                |error| match (text.split('@').next().and_then(|job| job.parse::<JobName>().ok()), error.code()) {
                    (Some(job), Code::NotFound) if known.contains(&job) && !all.iter().any(|m| m.job == job) => {
                        Error::new(Code::NotFound, format!("job {job} has no backup in this vault"))
                            .with_hint(format!("make one: `lifeboat backup {job}`"))
                    }
                    _ => error,
                },
            )?;
        let job = &chosen.manifest.job;
        let of_job = problems.iter().filter(|problem| problem.job == *job);
        let mut warnings: Vec<String> =
            of_job.map(|p| format!("{}: {}; `lifeboat check {job}` says more", p.key, p.fault)).collect();
        warnings.extend(hidden.iter().filter(|(hidden, ..)| hidden == job).map(|(_, there, seen)| {
            format!("this host saw backup number {seen} of {job} once, and the newest in the vault is number {there}")
        }));
        warnings.extend(chosen.warning);
        warnings.extend(
            untold.iter().map(|what| format!("this host cannot remember everything that the vault says: {what}")),
        );
        Ok(Chosen { manifest: chosen.manifest.clone(), warnings })
    }

    /// A moment on that zone's wall clock, as it is told to people.
    pub(super) fn local(&self, moment: DateTime<Utc>) -> String {
        moment.with_timezone(&self.zone()).format("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// The zone that times without one are read in.
    pub(super) fn zone(&self) -> Tz {
        self.settings.as_ref().map_or(Tz::UTC, |settings| settings.timezone)
    }
}

/// A backup that was found, and what to know before it is used.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    pub(super) warnings: Vec<String>,
}

/// Nothing fits because what would is not believed: that is the better answer.
fn not_believed(text: &str, problems: &[Problem], error: Error) -> Error {
    let (job, _) = text.split_once('@').unwrap_or((text, ""));
    let meant = |problem: &&Problem| match Key::parse(&problem.key) {
        Key::Manifest(name) => {
            text.len() >= SHORTEST_ID && name.id.as_str().starts_with(text) || name.job.as_str() == job
        }
        _ => false,
    };
    match problems.iter().find(meant) {
        Some(problem) if error.code() == Code::NotFound => {
            Error::new(problem.fault.code(), format!("{}: {}", problem.key, problem.fault))
                .with_hint("run `lifeboat check` for the whole damage, and `lifeboat list` for the other backups")
        }
        _ => error,
    }
}

impl IdentitySource {
    /// The files of `--identity`, else of the variable.
    pub(super) fn of(global: &Global) -> Self {
        let files = if global.identity.is_empty() {
            std::env::var_os(IDENTITY_VARIABLE).map(|list| std::env::split_paths(&list).collect()).unwrap_or_default()
        } else {
            global.identity.clone()
        };
        Self { files }
    }

    /// What the files hold, for whoever looks for their comments.
    pub(super) fn texts(&self) -> Result<Trusted> {
        let mut texts = Vec::new();
        for file in &self.files {
            texts.push(read_identity(file)?);
        }
        Ok(Trusted { identity_files: texts })
    }

    /// Opens with all of them.
    pub(super) fn opener(&self) -> Result<Opener> {
        if self.files.is_empty() {
            return Err(Error::new(Code::NoIdentity, "opening backups needs an identity, and none was given")
                .with_hint(format!("add --identity FILE, or set {IDENTITY_VARIABLE}; `lifeboat init` wrote the file when the vault was made")));
        }
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&read_identity(file)?);
            text.push('\n');
        }
        let place = self.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        Ok(Opener::new(Identities::parse(&text, &place)?))
    }
}

fn read_identity(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|cause| {
        Error::new(Code::KeyMissing, format!("cannot read the identity {}: {cause}", file.display()))
            .with_hint("name the identity file with --identity FILE")
    })
}

impl Configured {
    /// The id of a job's vault: as this host knows it, without looking into the vault, where it ever opened it.
    pub(super) fn vault_id(&self, job: &JobSettings) -> Result<VaultId> {
        let pinned = self.host.home()?.state.pinned_trust(&job.vault)?;
        let known = pinned.as_deref().map(read_comments).transpose()?.flatten().and_then(|pin| pin.vault);
        match known {
            Some(id) => Ok(id),
            None => Ok(self.vault(job)?.id),
        }
    }

    /// Opens with the identity that a job's drill names.
    pub(super) fn opener_of(&self, secret: &Secret) -> Result<Opener> {
        let text = secret.read()?;
        Ok(Opener::new(Identities::parse(text.expose_secret(), &secret.to_string())?))
    }
}

/// Every vault of the config, or the one given by name.
pub(super) fn open_all(session: &Configured) -> Result<Vec<OpenVault>> {
    let trusted = IdentitySource::of(&session.global).texts()?;
    let wanted = session.global.vault.as_deref();
    let vaults: Vec<&VaultSettings> =
        session.settings.vaults.values().filter(|vault| wanted.is_none_or(|name| name == vault.name)).collect();
    if let (Some(name), true) = (wanted, vaults.is_empty()) {
        return Err(Error::new(Code::NotFound, format!("the config has no vault {name:?}")));
    }
    let mut open = Vec::new();
    for vault in vaults {
        match vaults::open(&session.host, vault, session.global.trust.as_deref(), &trusted) {
            Ok(vault) => open.push(vault),
            // One that was never made, or whose disk is elsewhere, stands in nobody's way.
            Err(error) if wanted.is_none() && vault.role != VaultRole::Own => {
                say(&format!("note: the copy {} cannot be opened, and is passed over: {error}", vault.name));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(open)
}
