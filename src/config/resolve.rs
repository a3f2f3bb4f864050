//! From the image of the text to settings: names, quantities, schedules, keys and paths are read, and what belongs
//! together is held against each other. All mistakes are collected, each with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use toml::Spanned;

use super::copies::VaultRole;
use super::error::{ConfigError, Problems};
use super::file::{CheckFile, ConfigFile, DrillFile, JobFile, Named, RetentionFile, SecretFile, SourceFile, VaultFile};
use super::place::VaultUrl;
use super::s3::S3Settings;
use super::secret::Secret;
use super::settings::{
    DEFAULT_CHECK_TIMEOUT, DEFAULT_CONNECTIONS, DEFAULT_MAX_LOCK_WAIT, DEFAULT_MAX_SNAPSHOT, DEFAULT_SCRATCH,
    DEFAULT_STATE_DIR, Databases, DrillSettings, FilesSettings, JobSettings, Objectives, PostgresSettings, PruneWhen,
    Settings, SourceKind, SourceSettings, SqliteSettings, VaultSettings,
};
use super::strict;
use crate::domain::check::UserCheck;
use crate::domain::databases::source_of;
use crate::domain::ids::{JobName, SourceName};
use crate::domain::quantity::{exact_duration, parse_duration};
use crate::domain::retention::{LastGood, Retention};
use crate::domain::schedule::Schedule;
use crate::error::Diagnostic;

mod bucket;
mod daemon;
mod hooks;
mod notify;
mod server;
mod vaults;

/// A check that takes longer than a day hangs.
const MAX_CHECK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// More readers of one database only wait for each other.
const CONNECTIONS: std::ops::RangeInclusive<u32> = 1..=32;
/// zstd's levels above 19 need more memory than a restore may count on.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i64> = 1..=19;

/// Reads, checks and resolves a text.
pub(super) fn parse(text: &str, file: &Path) -> Result<Settings, ConfigError> {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut problems = Problems::of(text);
    strict::read(text, &mut problems);
    if !problems.none() {
        return problems.into_error(&file).map_or_else(|| unreachable!("there are problems"), Err);
    }
    let image: Option<ConfigFile> = match toml::from_str(text) {
        Ok(image) => Some(image),
        Err(error) => {
            problems.at(error.span().unwrap_or(0..0), format!("this cannot be read: {}", error.message()));
            None
        }
    };
    let base = file.parent().unwrap_or(Path::new("/")).to_owned();
    let settings = image
        .map(|image| Resolver { problems: &mut problems, base: &base, copies: BTreeMap::new() }.settings(image, &file));
    match (problems.into_error(&file), settings) {
        (None, Some(settings)) => Ok(settings),
        (Some(error), _) => Err(error),
        (None, None) => unreachable!("an image that is missing has left a problem"),
    }
}

/// An absolute path from what stands in a config, or why it is none. `..` is taken where it leads the text, from the
/// config's real folder; behind a name it could lead through a link, and is refused.
pub(super) fn path(text: &str, base_dir: &Path) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("an empty path".to_owned());
    }
    if text.contains('\0') {
        return Err("a path cannot hold a NUL".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        return Err("`~` means something to a shell only; write the whole path".to_owned());
    }
    let mut path = if text.starts_with('/') {
        PathBuf::from("/")
    } else if Path::new(text).components().any(|component| component == Component::ParentDir) {
        base_dir.canonicalize().unwrap_or_else(|_| base_dir.to_owned())
    } else {
        base_dir.to_owned()
    };
    let mut named = text.starts_with('/');
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => {
                named = true;
                path.push(name);
            }
            Component::ParentDir if named => {
                return Err("`..` behind a name is not taken: write the path that it means".to_owned());
            }
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}

struct Resolver<'p, 't> {
    problems: &'p mut Problems<'t>,
    base: &'p Path,
    /// Which vault each copy is one of.
    copies: BTreeMap<String, String>,
}

type Text = Spanned<String>;

impl Resolver<'_, '_> {
    // Where a value is wrong its problem is noted and any other stands in for it: the settings are then thrown away.

    fn settings(&mut self, image: ConfigFile, file: &Path) -> Settings {
        let timezone = image.timezone.map_or(Tz::UTC, |name| self.timezone(&name));
        let state_dir = image.state_dir.map_or_else(|| PathBuf::from(DEFAULT_STATE_DIR), |text| self.path(&text));
        let mut vaults = BTreeMap::new();
        let copies: BTreeSet<String> =
            image.job.values().filter_map(|job| Some(job.copy.as_ref()?.to.get_ref().clone())).collect();
        for (name, vault) in image.vault {
            // Vaults are named as jobs are: the name goes into labels and file names.
            if let Some(name) = self.name::<JobName>(&name) {
                // Of which one is known once the jobs are.
                let role = match copies.contains(name.as_str()) {
                    true => VaultRole::Copy { of: String::new() },
                    false => VaultRole::Own,
                };
                let vault = self.vault(name.as_str(), vault, role);
                vaults.insert(vault.name.clone(), vault);
            }
        }
        let mut jobs = BTreeMap::new();
        for (key, job) in image.job {
            if let Some(name) = self.name::<JobName>(&key)
                && let Some(job) = self.job(&name, &key.span(), job, &vaults)
            {
                jobs.insert(name, job);
            }
        }
        for (to, of) in std::mem::take(&mut self.copies) {
            if let Some(vault) = vaults.get_mut(&to) {
                vault.role = VaultRole::Copy { of };
            }
        }
        let daemon = self.daemon(image.daemon.unwrap_or_default());
        let notify = self.notify(image.notify, &jobs);
        Settings { file: file.to_owned(), timezone, state_dir, vaults, jobs, daemon, notify }
    }

    fn vault(&mut self, name: &str, mut image: VaultFile, role: VaultRole) -> VaultSettings {
        let url = VaultUrl::parse(image.url.get_ref(), self.base)
            .map_err(|error| self.problems.at(image.url.span(), error.to_string()))
            .ok();
        let s3 = match &url {
            // What is no vault at all has been told of already.
            None => S3Settings::default(),
            Some(VaultUrl::Folder(_)) => {
                self.no_bucket(&image.take_s3());
                S3Settings::default()
            }
            Some(VaultUrl::S3 { .. }) => self.bucket(image.take_s3(), &image.url),
        };
        let url = url.unwrap_or(VaultUrl::Folder(PathBuf::new()));
        if image.recipients.get_ref().is_empty() {
            let message = "nobody could open this vault: `recipients` needs an age public key (age1…), such as `lifeboat init` \
                           or `age-keygen` makes";
            self.problems.at(image.recipients.span(), message);
        }
        let mut recipients: Vec<String> = Vec::new();
        for recipient in image.recipients.into_inner() {
            let text = recipient.get_ref().trim();
            if let Err(message) = check_recipient(text) {
                self.problems.at(recipient.span(), message);
            } else if recipients.iter().any(|known| known == text) {
                self.problems.at(recipient.span(), "this recipient stands here twice");
            } else {
                recipients.push(text.to_owned());
            }
        }
        let trust = image.trust.map(|trust| {
            let text = trust.get_ref().trim();
            if minisign::PublicKey::from_base64(text).is_err() {
                // Not shown: the secret half has the same beginning.
                let message = "`trust` is not a minisign public key: 56 letters that begin with RW, the second line of a \
                               .pub file (what stood here is not shown)";
                self.problems.at_secret(trust.span(), message);
            }
            text.to_owned()
        });
        let compression_level = image.compression.and_then(|level| {
            if !COMPRESSION_LEVELS.contains(level.get_ref()) {
                self.problems.at(level.span(), "`compression` is zstd's level, from 1 (fast) to 19 (small)");
            }
            i32::try_from(*level.get_ref()).ok()
        });
        let grace = image.grace.map(|text| self.positive_duration("grace", &text));
        VaultSettings { name: name.to_owned(), url, recipients, trust, compression_level, grace, s3, role }
    }

    fn job(
        &mut self,
        name: &JobName,
        at: &Range<usize>,
        image: JobFile,
        vaults: &BTreeMap<String, VaultSettings>,
    ) -> Option<JobSettings> {
        let vault = self.vault_name(at, image.vault, vaults);
        let schedule = self.schedule(&image.schedule);
        let retention = self.retention(&image.retention);
        let prune = match image.prune.unwrap_or_default().schedule {
            Some(text) => self.schedule(&text).map(PruneWhen::Scheduled),
            None => Some(PruneWhen::AfterBackup),
        };
        let check = image.check.map(|check| self.schedule(&check.schedule));
        let copy = image.copy.map(|copy| self.copy(copy, &vault, vaults));
        let objectives = image.objectives.unwrap_or_default();
        let objectives = Objectives {
            rto: objectives.rto.map(|text| self.positive_duration("rto", &text)),
            rpo: objectives.rpo.map(|text| self.positive_duration("rpo", &text)),
        };
        let sources = self.sources(image.source);
        let drill = image.drill.map(|drill| self.drill(drill, &sources));
        Some(JobSettings {
            name: name.clone(),
            vault,
            schedule: schedule?,
            retention: retention?,
            prune: prune?,
            check: check.map_or(Some(None), |schedule| schedule.map(Some))?,
            copy,
            hold: None,
            objectives,
            sources,
            hooks: self.hooks(image.hooks.unwrap_or_default()),
            notify: self.job_notify(image.notify.unwrap_or_default()),
            drill,
        })
    }

    fn retention(&mut self, image: &Spanned<RetentionFile>) -> Option<Retention> {
        let at = image.span();
        let image = image.get_ref();
        let mut count = |value: &Option<Spanned<i64>>| {
            value.as_ref().map(|value| {
                u32::try_from(*value.get_ref()).unwrap_or_else(|_| {
                    self.problems.at(value.span(), "this is a number of backups: 1 or more");
                    1
                })
            })
        };
        let (daily, weekly) = (count(&image.daily), count(&image.weekly));
        let last_good = image.last_good.as_ref().map_or_else(LastGood::default, |text| self.last_good(text));
        let keep_at_least = self.duration(&image.keep_at_least)?;
        let delete_after = self.duration(&image.delete_after)?;
        match Retention::new(keep_at_least, delete_after, daily, weekly, last_good) {
            Ok(retention) => Some(retention),
            Err(error) => {
                self.problems.at(at, with_hint(&error));
                None
            }
        }
    }

    fn last_good(&mut self, text: &Text) -> LastGood {
        LastGood::parse(text.get_ref()).unwrap_or_else(|| {
            let words = LastGood::WORDS.map(|word| format!("\"{word}\"")).join(" or ");
            self.problems.at(text.span(), format!("`last_good` is {words}: whether the last good backup stays"));
            LastGood::default()
        })
    }

    fn sources(&mut self, image: Named<SourceFile>) -> Vec<SourceSettings> {
        let mut entries: Vec<_> = image.into_iter().collect();
        // In the order of the text, which is the order of the manifest; a map of names has lost it, places have not.
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut sources: Vec<SourceSettings> = Vec::new();
        let mut places = Vec::new();
        for (key, source) in entries {
            let Some(name) = self.name::<SourceName>(&key) else { continue };
            // Checks get LIFEBOAT_<SOURCE>_DIR, where a dash cannot stand.
            let variable = |name: &SourceName| name.as_str().replace('-', "_");
            if let Some(other) = sources.iter().find(|other| variable(&other.name) == variable(&name)) {
                let message =
                    format!("`{name}` and `{}` would share a variable LIFEBOAT_…_DIR; rename one", other.name);
                self.problems.at(key.span(), message);
            }
            let kind = match source.kind.get_ref().as_str() {
                "sqlite" => Some(self.sqlite(source)),
                "postgres" => self.postgres(source),
                _ => Some(self.files(source)),
            };
            if let Some(kind) = kind {
                sources.push(SourceSettings { name, kind });
                places.push(key.span());
            }
        }
        self.keep_apart(&sources, &places);
        sources
    }

    fn files(&mut self, image: SourceFile) -> SourceKind {
        let mut paths: Vec<PathBuf> = Vec::new();
        if let Some(texts) = image.paths {
            if texts.get_ref().is_empty() {
                self.problems.at(texts.span(), "`paths` is empty: nothing would be backed up");
            }
            for text in texts.into_inner() {
                let path = self.path(&text);
                if let Some(other) = paths.iter().find(|other| path.starts_with(other) || other.starts_with(&path)) {
                    let message = format!("{} and {} overlap; name the outer one", other.display(), path.display());
                    self.problems.at(text.span(), message);
                }
                paths.push(path);
            }
        }
        let mut exclude = Vec::new();
        for pattern in image.exclude.unwrap_or_default() {
            if let Err(message) = check_pattern(pattern.get_ref()) {
                self.problems.at(pattern.span(), message);
            }
            exclude.push(pattern.into_inner());
        }
        SourceKind::Files(FilesSettings {
            paths,
            exclude,
            one_file_system: image.one_file_system.unwrap_or(false),
            exclude_caches: image.exclude_caches.unwrap_or(true),
        })
    }

    fn sqlite(&mut self, image: SourceFile) -> SourceKind {
        SourceKind::Sqlite(SqliteSettings { path: image.path.map(|text| self.path(&text)).unwrap_or_default() })
    }

    fn postgres(&mut self, image: SourceFile) -> Option<SourceKind> {
        let address = self.address(&image.url?);
        let databases = self.databases(image.databases, image.exclude_databases);
        let connections = image.connections.map_or(DEFAULT_CONNECTIONS, |number| {
            u32::try_from(*number.get_ref()).ok().filter(|number| CONNECTIONS.contains(number)).unwrap_or_else(|| {
                let (least, most) = (CONNECTIONS.start(), CONNECTIONS.end());
                self.problems.at(number.span(), format!("`connections` is a number from {least} to {most}"));
                DEFAULT_CONNECTIONS
            })
        });
        let mut patterns = |texts: Option<Vec<Text>>| -> Vec<String> {
            texts
                .unwrap_or_default()
                .into_iter()
                .map(|text| {
                    if !text.get_ref().contains('.') {
                        self.problems
                            .at(text.span(), "a pattern of tables has a schema: write \"public.users\" or \"*.logs\"");
                    }
                    text.into_inner()
                })
                .collect()
        };
        let include_tables = patterns(image.include_tables);
        let exclude_tables = patterns(image.exclude_tables);
        let exclude_data = patterns(image.exclude_data);
        let mut wait =
            |name: &str, text: Option<Text>, default| text.map_or(default, |text| self.positive_duration(name, &text));
        let max_lock_wait = wait("max_lock_wait", image.max_lock_wait, DEFAULT_MAX_LOCK_WAIT);
        let max_snapshot = wait("max_snapshot", image.max_snapshot, DEFAULT_MAX_SNAPSHOT);
        Some(SourceKind::Postgres(Box::new(PostgresSettings {
            address: address?,
            databases,
            password: image.password.and_then(|secret| self.secret(secret)),
            include_tables,
            exclude_tables,
            exclude_data,
            tools: image.tools.map(|text| self.path(&text)),
            connections,
            max_lock_wait,
            max_snapshot,
        })))
    }

    fn drill(&mut self, image: DrillFile, sources: &[SourceSettings]) -> DrillSettings {
        let check_timeout = image.check_timeout.map_or(DEFAULT_CHECK_TIMEOUT, |text| {
            let timeout = self.positive_duration("check_timeout", &text);
            if timeout > MAX_CHECK_TIMEOUT {
                let most = exact_duration(MAX_CHECK_TIMEOUT);
                self.problems.at(text.span(), format!("`check_timeout` is at most {most}: a hung check must fail"));
            }
            timeout
        });
        DrillSettings {
            schedule: image.schedule.and_then(|text| self.schedule(&text)),
            identity: image.identity.and_then(|secret| self.secret(secret)),
            trust_source: image.trust_source.unwrap_or(false),
            scratch: image.scratch.map_or_else(|| PathBuf::from(DEFAULT_SCRATCH), |text| self.path(&text)),
            server: self.server(image.server, image.container, sources),
            checks: image.checks.into_iter().filter_map(|check| self.check(check, sources)).collect(),
            check_timeout,
        }
    }

    fn secret(&mut self, secret: Spanned<SecretFile>) -> Option<Secret> {
        let at = secret.span();
        let SecretFile { file, env, credential } = secret.into_inner();
        if let Some(file) = file {
            return match path(&file, self.base) {
                Ok(path) => Some(Secret::File(path)),
                Err(message) => {
                    self.problems.at_secret(at, message);
                    None
                }
            };
        }
        let name = env.as_ref().or(credential.as_ref())?;
        if name.contains(['/', '=', '\0']) {
            self.problems.at_secret(at, "the name of a variable or a credential holds no `/` and no `=`");
        }
        env.map(Secret::Env).or(credential.map(Secret::Credential))
    }

    fn check(&mut self, check: Spanned<CheckFile>, sources: &[SourceSettings]) -> Option<UserCheck> {
        const SHAPES: &str = "a check is { source, sql }, { source, freshness, within } or { command }";
        let at = check.span();
        match check.into_inner() {
            CheckFile { source: Some(source), sql: Some(sql), freshness: None, within: None, command: None } => {
                let source = self.check_source(&source, sources)?;
                self.not_blank("sql", &sql);
                Some(UserCheck::Sql { source, sql: sql.into_inner() })
            }
            CheckFile {
                source: Some(source),
                sql: None,
                freshness: Some(sql),
                within: Some(within),
                command: None,
            } => {
                let source = self.check_source(&source, sources)?;
                self.not_blank("freshness", &sql);
                let within = self.positive_duration("within", &within);
                Some(UserCheck::Freshness { source, sql: sql.into_inner(), within })
            }
            CheckFile { source: None, sql: None, freshness: None, within: None, command: Some(command) } => {
                Some(UserCheck::Command { command: self.argv("command", command) })
            }
            CheckFile { source: None, sql, freshness, command: None, .. } if sql.is_some() != freshness.is_some() => {
                self.problems.at(at, "this check has no `source`: which database is asked?");
                None
            }
            CheckFile { freshness: Some(_), within: None, sql: None, command: None, .. } => {
                self.problems.at(at, "this check has no `within`: how old may the newest entry be? such as \"26h\"");
                None
            }
            _ => {
                self.problems.at(at, SHAPES);
                None
            }
        }
    }

    fn check_source(&mut self, name: &Text, sources: &[SourceSettings]) -> Option<SourceName> {
        let databases = sources.iter().filter(|source| source.kind.is_database());
        let databases: Vec<String> = databases
            .map(|source| match source.databases() {
                Databases::OfUrl => source.name.to_string(),
                Databases::These(names) => {
                    let names: Vec<String> = names.iter().map(|it| source_of(&source.name, it).to_string()).collect();
                    names.join(", ")
                }
                Databases::All { .. } => format!("{}-DATABASE", source.name),
            })
            .collect();
        let there_are = if databases.is_empty() {
            "this job has no database".to_owned()
        } else {
            format!("this job's databases: {}", databases.join(", "))
        };
        let of_several =
            name.get_ref().parse().ok().filter(|name: &SourceName| {
                sources.iter().any(|source| source.name != *name && source.stands_for(name))
            });
        if of_several.is_some() {
            return of_several;
        }
        let what = match sources.iter().find(|source| source.name.as_str() == name.get_ref()) {
            Some(source) if *source.databases() != Databases::OfUrl => {
                format!("source {0} is several databases: name one of them, such as \"{0}-shop\"", source.name)
            }
            Some(source) if source.kind.is_database() => return Some(source.name.clone()),
            Some(source) => format!("a source of kind {} cannot be asked with SQL", source.kind.name()),
            None => format!("this job has no source {:?}", name.get_ref()),
        };
        self.problems.at(name.span(), format!("{what}; {there_are}"));
        None
    }

    fn timezone(&mut self, name: &Text) -> Tz {
        name.get_ref().parse().unwrap_or_else(|_| {
            let lower = name.get_ref().to_lowercase();
            let near = chrono_tz::TZ_VARIANTS
                .iter()
                .map(|zone| (strsim::damerau_levenshtein(&zone.name().to_lowercase(), &lower), zone.name()))
                .filter(|(distance, zone)| distance * 4 <= zone.len().max(lower.len()))
                .min();
            let near = near.map_or_else(
                || "a zone is written like \"Europe/Berlin\" or \"UTC\"".to_owned(),
                |(_, near)| format!("did you mean \"{near}\"?"),
            );
            self.problems.at(name.span(), format!("there is no time zone {:?}; {near}", name.get_ref()));
            Tz::UTC
        })
    }

    fn schedule(&mut self, text: &Text) -> Option<Schedule> {
        Schedule::parse(text.get_ref()).map_err(|error| self.problems.at(text.span(), with_hint(&error))).ok()
    }

    fn duration(&mut self, text: &Text) -> Option<Duration> {
        parse_duration(text.get_ref()).map_err(|error| self.problems.at(text.span(), error.to_string())).ok()
    }

    fn positive_duration(&mut self, key: &str, text: &Text) -> Duration {
        let duration = self.duration(text);
        if duration == Some(Duration::ZERO) {
            self.problems.at(text.span(), format!("`{key}` of nothing cannot be kept; leave it out or give it time"));
        }
        duration.unwrap_or_default()
    }

    fn path(&mut self, text: &Text) -> PathBuf {
        path(text.get_ref(), self.base).unwrap_or_else(|message| {
            self.problems.at(text.span(), message);
            PathBuf::new()
        })
    }

    fn name<N: std::str::FromStr<Err: std::fmt::Display>>(&mut self, key: &Text) -> Option<N> {
        key.get_ref().parse().map_err(|error: N::Err| self.problems.at(key.span(), error.to_string())).ok()
    }

    fn not_blank(&mut self, key: &str, text: &Text) {
        if text.get_ref().trim().is_empty() {
            self.problems.at(text.span(), format!("`{key}` is empty"));
        }
    }
}

fn with_hint(error: &impl Diagnostic) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"))
}

fn check_recipient(text: &str) -> Result<(), String> {
    if text.parse::<age::x25519::Recipient>().is_ok() {
        return Ok(());
    }
    Err(if text.starts_with("ssh-") {
        "ssh keys are not taken as recipients in this version; `age-keygen` makes an age key".to_owned()
    } else if text.starts_with("age1") {
        "this is not a whole age public key (a letter is missing or wrong); copy it again".to_owned()
    } else {
        "this is not an age public key; one begins with age1, and `age-keygen -y FILE` prints that of an identity"
            .to_owned()
    })
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.trim().is_empty() {
        return Err("an empty pattern excludes nothing; take it out".to_owned());
    }
    if pattern.starts_with('#') {
        return Err(
            "a pattern that begins with `#` is a comment to gitignore; write `\\\\#…` in TOML quotes".to_owned()
        );
    }
    let mut builder = ignore::gitignore::GitignoreBuilder::new("/");
    builder.add_line(None, pattern).map(|_| ()).map_err(|error| format!("this is not a gitignore glob: {error}"))
}
