//! Settings held against each other ([`check`], pure) and against this host ([`check_host`]).
//!
//! The arithmetic of objectives is docs/MEASURES.md's: a schedule whose largest gap reaches the RPO cannot keep it, whatever
//! the machine. `backup` never refuses to run because of what is found here.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use ignore::gitignore::GitignoreBuilder;

use super::place::VaultUrl;
use super::secret::Secret;
use super::settings::{DrillRole, FilesSettings, JobSettings, ServerGround, Settings, SourceKind};
use crate::domain::ids::JobName;
use crate::domain::quantity::{exact_duration, human_duration};
use crate::domain::schedule::{ClockChange, LargestGap, Schedule};
use crate::error::Code;

mod lock;
mod retention;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `config check` fails.
    Error,
    /// It works, and will not do what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The stable code; it decides the exit code where this is an error.
    pub code: Code,
    /// The key that it is about: `job.shop.objectives.rpo`.
    pub key: String,
    /// What it is.
    pub message: String,
    /// What to write or do instead.
    pub hint: Option<String>,
}

impl Finding {
    fn new(severity: Severity, code: Code, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity, code, key: key.into(), message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Holds settings against each other. `longest_runs` is how long backups of each job took at most, as far as it was
/// measured. Errors come first.
#[must_use]
pub fn check(settings: &Settings, now: DateTime<Utc>, longest_runs: &BTreeMap<JobName, Duration>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.jobs.is_empty() {
        let message = "there is no job: nothing is backed up";
        findings.push(
            Finding::new(Severity::Warning, Code::ConfigInvalid, "job", message)
                .hint("add [job.NAME] with a schedule, a retention and a [job.NAME.source.NAME]"),
        );
    } else {
        let message = "a config starts nothing by itself: something has to be there that does what is due";
        findings.push(
            Finding::new(Severity::Note, Code::ConfigInvalid, "job.*.schedule", message)
                .hint("one of `lifeboat daemon`, `lifeboat schedule systemd` and `lifeboat schedule cron`; `lifeboat schedule list` has the times"),
        );
    }
    for job in settings.jobs.values() {
        check_schedule(job, settings.timezone, now, longest_runs.get(&job.name).copied(), &mut findings);
        findings.extend(retention::check_lead(settings, job, now, longest_runs.get(&job.name).copied()));
        findings.extend(lock::check_lock(settings, job, now, longest_runs.get(&job.name).copied()));
        check_drill(job, &mut findings);
        check_copy(settings, job, now, &mut findings);
        check_drill_server(settings, job, &mut findings);
        check_places(settings, job, &mut findings);
    }
    for vault in settings.vaults.values() {
        let VaultUrl::Folder(folder) = &vault.url else { continue };
        if settings.state_dir.starts_with(folder) {
            let message =
                format!("the state folder {} lies in the vault {}", settings.state_dir.display(), folder.display());
            findings.push(
                Finding::new(Severity::Error, Code::ConfigInvalid, "state_dir", message)
                    .hint("whoever gets the vault gets the host's signing key: keep them apart"),
            );
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Holds settings against the files of this host; reads none.
#[must_use]
pub fn check_host(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.file.metadata().is_ok_and(|metadata| metadata.mode() & 0o002 != 0) {
        let message =
            format!("everyone on this host can change {}, and drills run commands from it", settings.file.display());
        findings.push(
            Finding::new(Severity::Warning, Code::ConfigInvalid, "", message)
                .hint(format!("chmod o-w {}", settings.file.display())),
        );
    }
    for vault in settings.vaults.values() {
        let VaultUrl::Folder(folder) = &vault.url else { continue };
        let key = format!("vault.{}.url", vault.name);
        match folder.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                let message = format!("{} is a file; a vault is a folder", folder.display());
                findings.push(
                    Finding::new(Severity::Error, Code::ConfigInvalid, key, message)
                        .hint("name a folder that is empty or not there yet"),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let message = format!("a part of the path {} is a file", folder.display());
                findings.push(Finding::new(Severity::Error, Code::ConfigInvalid, key, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("there is no vault at {} yet", folder.display());
                findings.push(
                    Finding::new(Severity::Note, Code::VaultMissing, key, message).hint("`lifeboat init` makes it"),
                );
            }
            _ => {}
        }
    }
    for job in settings.jobs.values() {
        for source in &job.sources {
            let key = format!("job.{}.source.{}", job.name, source.name);
            let mut missing = |path: &Path, key: String| {
                let message = format!("{} does not exist: a backup of it would fail", path.display());
                findings.push(Finding::new(Severity::Warning, Code::SourceUnavailable, key, message));
            };
            match &source.kind {
                SourceKind::Files(files) => {
                    for path in files.paths.iter().filter(|path| gone(path)) {
                        missing(path, format!("{key}.paths"));
                    }
                }
                SourceKind::Sqlite(sqlite) if gone(&sqlite.path) => missing(&sqlite.path, format!("{key}.path")),
                SourceKind::Postgres(postgres) => {
                    if let Some(folder) = postgres.tools.as_ref().filter(|folder| gone(folder)) {
                        missing(folder, format!("{key}.tools"));
                    }
                }
                SourceKind::Sqlite(_) => {}
            }
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn check_schedule(
    job: &JobSettings,
    zone: Tz,
    now: DateTime<Utc>,
    longest_run: Option<Duration>,
    findings: &mut Vec<Finding>,
) {
    let Some(largest) = job.schedule.largest_gap(zone, now) else { return };
    let between = describe(&largest, zone);
    if let Some(rpo) = job.objectives.rpo {
        let key = format!("job.{}.objectives.rpo", job.name);
        let promise = exact_duration(rpo);
        if largest.gap >= rpo {
            let message =
                format!("the schedule \"{}\" leaves {between}, so an RPO of {promise} cannot be kept", job.schedule);
            findings.push(Finding::new(Severity::Error, Code::ObjectiveUnreachable, key, message).hint(suggestion(
                rpo,
                largest.gap,
                zone,
                now,
            )));
        } else if let Some(run) = longest_run
            && largest.gap + run >= rpo
        {
            let message = format!(
                "the schedule \"{}\" leaves {between}, and a backup took up to {}: an RPO of {promise} will be missed",
                job.schedule,
                human_duration(run)
            );
            findings.push(Finding::new(Severity::Warning, Code::ObjectiveUnreachable, key, message).hint(suggestion(
                rpo,
                largest.gap + run,
                zone,
                now,
            )));
        }
    }
    if job.retention.delete_after <= largest.gap {
        let message = format!(
            "the schedule \"{}\" leaves {between}, and everything is erased after {}: there would be times without any backup",
            job.schedule,
            exact_duration(job.retention.delete_after)
        );
        let key = format!("job.{}.retention.delete_after", job.name);
        findings.push(
            Finding::new(Severity::Error, Code::ConfigInvalid, key, message)
                .hint(format!("write delete_after = \"{}\" or more", exact_duration(figure_above(largest.gap)))),
        );
    }
}

fn describe(largest: &LargestGap, zone: Tz) -> String {
    let show = |moment: DateTime<Utc>| moment.with_timezone(&zone).format("%Y-%m-%d %H:%M");
    let across = match largest.clocks {
        ClockChange::None => String::new(),
        clocks => format!(", across {clocks}"),
    };
    let gap = exact_duration(largest.gap);
    format!("up to {gap} between two backups ({} to {}{across})", show(largest.from), show(largest.until))
}

/// Schedules to propose, the sparsest first.
const DENSER: [&str; 10] = [
    "0 2 * * *",
    "0 */12 * * *",
    "0 */8 * * *",
    "0 */6 * * *",
    "0 */4 * * *",
    "0 */2 * * *",
    "0 * * * *",
    "*/15 * * * *",
    "*/5 * * * *",
    "* * * * *",
];

/// What would hold: a larger figure for this schedule, and the sparsest schedule for this figure.
fn suggestion(rpo: Duration, needed: Duration, zone: Tz, now: DateTime<Utc>) -> String {
    let figure = format!("write rpo = \"{}\"", exact_duration(figure_above(needed)));
    let denser = DENSER.iter().find_map(|text| {
        let gap = Schedule::parse(text).ok()?.largest_gap(zone, now)?.gap;
        // A backup counts when it has been committed, so some room must be left for the run.
        (figure_above(gap) <= rpo)
            .then(|| format!(", or schedule = \"{text}\", which leaves at most {}", exact_duration(gap)))
    });
    figure + &denser.unwrap_or_default()
}

/// A round figure above a gap, with a fiftieth of it, and five minutes at least, for the run itself.
fn figure_above(gap: Duration) -> Duration {
    rounded_up(gap + (gap / 50).max(Duration::from_secs(300)), gap)
}

/// Rounded up to what people write of a figure of this size.
fn rounded_up(figure: Duration, size: Duration) -> Duration {
    let step_seconds: u64 = match size.as_secs() {
        0..3_600 => 300,
        3_600..21_600 => 900,
        21_600..172_800 => 3_600,
        _ => 86_400,
    };
    // A part of a second is one more.
    let seconds = figure.as_secs() + u64::from(figure.subsec_nanos() > 0);
    Duration::from_secs(seconds.div_ceil(step_seconds) * step_seconds)
}

fn check_drill(job: &JobSettings, findings: &mut Vec<Finding>) {
    match &job.drill {
        None if job.objectives.rto.is_some() => {
            let key = format!("job.{}.objectives.rto", job.name);
            findings.push(
                Finding::new(
                    Severity::Warning,
                    Code::ConfigInvalid,
                    key,
                    "an RTO is promised, and without a drill never measured",
                )
                .hint(format!("add [job.{}.drill]", job.name)),
            );
        }
        Some(drill) if drill.identity.is_some() => {
            let key = format!("job.{}.drill.identity", job.name);
            let message = "a host with this identity can read the backups; it belongs on a drill host, not where backups are made";
            findings.push(Finding::new(Severity::Note, Code::ConfigInvalid, key, message));
        }
        _ => {}
    }
}

/// The second vault: whether it can be as young as the RPO, and whether what has expired can be erased there in time.
fn check_copy(settings: &Settings, job: &JobSettings, now: DateTime<Utc>, findings: &mut Vec<Finding>) {
    let Some(copy) = &job.copy else { return };
    let Some(vault) = settings.vaults.get(&copy.to) else { return };
    let key = format!("job.{}.copy.schedule", job.name);
    let gap = |schedule: &Schedule| schedule.largest_gap(settings.timezone, now).map(|largest| largest.gap);
    if let (Some(schedule), Some(rpo)) = (&copy.schedule, job.objectives.rpo)
        && let Some(largest) = gap(schedule)
        && largest >= rpo
    {
        let message = format!(
            "copies are up to {} apart: were the vault lost, an RPO of {} could not be kept from the copy",
            exact_duration(largest),
            exact_duration(rpo)
        );
        findings.push(
            Finding::new(Severity::Warning, Code::ConfigInvalid, key.clone(), message)
                .hint("copy more often, best after each backup"),
        );
    }
    let lead = settings.lead_in_copy(job, vault, now);
    let (needed, window) = (lead.needed(), job.retention.window());
    if needed > window {
        let message = format!(
            "prunes of the copy come after its copies, and need {} to erase everything in time, more than the {} between              `keep_at_least` and `delete_after`",
            exact_duration(needed),
            exact_duration(window)
        );
        findings.push(
            Finding::new(Severity::Error, Code::RetentionUnkeepable, key, message)
                .hint("copy more often, or widen the window"),
        );
    }
}

/// A server that is there: what else it is for, and what may be done on it.
fn check_drill_server(settings: &Settings, job: &JobSettings, findings: &mut Vec<Finding>) {
    let Some(drill) = &job.drill else { return };
    let ServerGround::Existing(server) = &drill.server.ground else { return };
    let key = format!("job.{}.drill.server", job.name);
    let sources = settings.jobs.values().flat_map(|job| job.sources.iter().map(move |source| (job, source)));
    let on_it = sources.filter_map(|(job, source)| match &source.kind {
        SourceKind::Postgres(postgres) if postgres.address.same_server(&server.address) => Some((job, source)),
        _ => None,
    });
    if let Some((of, source)) = on_it.into_iter().next() {
        let message = format!(
            "drills restore into the server that source {} of job {} lives on: they take its disk, its memory and its log",
            source.name, of.name
        );
        findings.push(
            Finding::new(Severity::Warning, Code::ConfigInvalid, format!("{key}.url"), message)
                .hint("name a server that nobody lives on, or take `url` out"),
        );
    }
    if server.role == DrillRole::Any {
        let message =
            "whoever controls the source can take over this server: what is restored runs there as a superuser may";
        findings.push(
            Finding::new(Severity::Warning, Code::ConfigInvalid, format!("{key}.allow_superuser"), message)
                .hint("CREATE ROLE drill LOGIN CREATEDB BYPASSRLS is enough for most"),
        );
    }
}

/// What must not lie within what is backed up, or within the vault.
fn check_places(settings: &Settings, job: &JobSettings, findings: &mut Vec<Finding>) {
    let identity = job.drill.as_ref().and_then(|drill| match &drill.identity {
        Some(Secret::File(path)) => Some(path.as_path()),
        _ => None,
    });
    let vaults = || {
        settings.vaults.values().filter_map(|vault| match &vault.url {
            VaultUrl::Folder(folder) => Some(folder.as_path()),
            VaultUrl::S3 { .. } => None,
        })
    };
    if let Some(identity) = identity
        && let Some(folder) = vaults().find(|folder| identity.starts_with(folder))
    {
        let message = format!("the identity {} lies in the vault {}", identity.display(), folder.display());
        findings.push(
            Finding::new(Severity::Error, Code::ConfigInvalid, format!("job.{}.drill.identity", job.name), message)
                .hint("whoever gets the vault could read it: keep them apart"),
        );
    }
    for source in &job.sources {
        let SourceKind::Files(files) = &source.kind else { continue };
        let key = format!("job.{}.source.{}.paths", job.name, source.name);
        let mut inside = |severity, what: &str, path: &Path, hint: &str| {
            if backs_up(files, path) {
                let message = format!("{what} {} is backed up as a part of this source", path.display());
                findings.push(Finding::new(severity, Code::ConfigInvalid, key.clone(), message).hint(hint));
            }
        };
        for folder in vaults() {
            inside(Severity::Error, "the vault", folder, "every backup would hold those before it: exclude or move it");
        }
        if let Some(identity) = identity {
            let hint = "the key would lie behind its own lock only: exclude or move it";
            inside(Severity::Error, "the identity", identity, hint);
        }
        let hint = "it changes with every run, and is made anew on another host: exclude or move it";
        inside(Severity::Warning, "the state folder", &settings.state_dir, hint);
        if let Some(drill) = &job.drill
            && !drill.scratch.starts_with(&settings.state_dir)
        {
            inside(
                Severity::Warning,
                "the scratch folder",
                &drill.scratch,
                "a drill's leftovers are no data: exclude or move it",
            );
        }
    }
}

/// Whether a source takes in a path: it lies below one of its own, and no pattern excludes it.
fn backs_up(files: &FilesSettings, path: &Path) -> bool {
    let Some(root) = files.paths.iter().find(|root| path.starts_with(root)) else { return false };
    let mut builder = GitignoreBuilder::new(root);
    for pattern in &files.exclude {
        // The settings hold only patterns that could be read.
        let _ = builder.add_line(None, pattern);
    }
    !builder.build().is_ok_and(|excluded| path != root && excluded.matched_path_or_any_parents(path, true).is_ignore())
}
