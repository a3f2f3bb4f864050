//! `drill`: a restore as a disaster would force it, from the vault alone, into a scratch folder, with checks and a
//! stopwatch.
//!
//! The clock starts before anything is provisioned and stops when the last check is over. Nothing that a working
//! host has and a bare one has not is used: no catalog, no memory of sources, no page cache where it can be dropped.
//! A drill can fail, and says whether what it found speaks against the backup (it cannot be opened, or differs from
//! its facts) or against something else (scratch full, a quiet Sunday failing a freshness check).

mod choose;
mod compare;
pub(super) mod ground;
mod locale;
mod server;
mod stopwatch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;

use crate::config::{DrillSettings, JobSettings, ServerGround};
use crate::domain::check::{Check, UserCheck};
use crate::domain::contents::PostgresFacts;
use crate::domain::ids::{RecordId, SourceName};
use crate::domain::manifest::{Completeness, Manifest, SourceEntry};
use crate::domain::record::{DrillEnvironment, DrillOutcome, DrillRecord, DrillServer, Finder, RecordBody};
use crate::error::{Code, Error, Kind, Result};
use crate::observe::Progress;
use crate::scratch::checks::{Around, RestoredSource, prepare, run_checks};
use crate::scratch::confine::{Confinement, Trust, hand_over};
use crate::scratch::folder::{Scratch, remove_leftovers};
use crate::vault::layout::Key;
use crate::vault::reader::Reader;
use crate::vault::survey::{Fault, Survey};

pub use self::choose::Which;
use self::choose::{choose, forget_cached};
use self::ground::Place;
use self::server::Database;
use self::stopwatch::Stopwatch;
use super::begun::{self, Doing};
use super::check;
use super::databases;
use super::host::Host;
use super::records;
use super::refute::{self, OnRecord};
use super::restore::plan;
use super::vaults::{OpenVault, manifests};

/// Room that scratch must have beyond the backup's own bytes: folders, links, file systems' rounding.
const SCRATCH_HEADROOM: u64 = 64 * 1024 * 1024;

/// What a drill needs besides host, vault and job.
#[derive(Debug)]
pub struct DrillRequest<'a> {
    /// Which backup.
    pub which: Which,
    /// Leave the scratch folder.
    pub keep: bool,
    /// The files that hold the identities: foreign code must not be able to read them.
    pub identity_files: &'a [PathBuf],
    /// The config file: likewise; relative commands of checks start in its folder.
    pub config_file: &'a Path,
    /// The rest of the drill's settings.
    pub settings: &'a DrillSettings,
}

/// What a drill came to.
#[derive(Debug)]
pub struct DrillReport {
    /// The record's id.
    pub id: RecordId,
    /// What was recorded.
    pub record: DrillRecord,
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// Why it ended early, if it did.
    pub failure: Option<Error>,
    /// What went wrong, in sentences.
    pub errors: Vec<String>,
    /// What to know beside the verdict: no error.
    pub remarks: Vec<String>,
    /// Whether the verdict is on record, in the vault and here.
    pub recorded: bool,
    /// Where the scratch folder was left, if it was to be kept.
    pub kept: Option<PathBuf>,
}

/// Rehearses a restore of a job's backup.
///
/// # Errors
/// Only where nothing could be tried: the job is being drilled already, or the vault cannot be read. Everything else
/// is a failed drill, and recorded.
pub fn drill(
    host: &Host,
    vault: &OpenVault,
    job: &JobSettings,
    reader: &Result<Reader>,
    request: &DrillRequest<'_>,
    progress: &dyn Progress,
) -> Result<DrillReport> {
    let home = host.home()?;
    let _lock = home.state.lock(&job.name, "drill", host.clock.now())?;
    // Before the clock: what a disaster would not have to do.
    // What runs in a folder goes before the folder.
    let ended = ground::remove_leftovers(host, request.settings);
    let leftovers = remove_leftovers(&request.settings.scratch);
    let cold_cache = forget_cached(host, vault, job, &request.which).unwrap_or(false);

    let id = RecordId::from_random(rand::rng().random());
    let started = host.clock.now();
    let begun = begun::begin(host, vault, &job.name, Doing::Drill, started, progress);
    let mut stopwatch = Stopwatch::start(host);
    let mut run = DrillRun {
        host,
        vault,
        job,
        request,
        progress,
        started,
        id: &id,
        chosen: None,
        rpo: None,
        checks: Vec::new(),
        errors: Vec::new(),
        remarks: ended,
        confinement: "none-run",
        restored_bytes: 0,
        refutes: false,
        kept: None,
        servers: Vec::new(),
        server_settings: Vec::new(),
    };
    match leftovers {
        Ok(paths) => run
            .remarks
            .extend(paths.iter().map(|p| format!("removed {}, left by a drill that was killed", p.display()))),
        Err(error) => run.remarks.push(format!("a leftover of an earlier drill could not be removed: {error}")),
    }
    let outcome = run.rehearse(reader, &mut stopwatch);
    let (error_code, interrupted) = match &outcome {
        Ok(()) => (run.checks.iter().any(|c| !c.passed).then(|| Code::DrillFailed.name().to_owned()), false),
        Err(error) => {
            run.refutes |= error.kind() == Kind::Damage;
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            run.errors.insert(0, format!("{error}{hint}"));
            (Some(error.code().name().to_owned()), error.code() == Code::Interrupted)
        }
    };
    let (rto_seconds, phases) = stopwatch.read();
    let passed = outcome.is_ok() && run.checks.iter().all(|check| check.passed) && !run.checks.is_empty();
    let objective = job.objectives.rto.map(|d| d.as_secs_f64());
    let proven = run.chosen.as_ref().filter(|_| passed).zip(reader.as_ref().ok());
    let opened_for = proven.map(|(manifest, reader)| reader.held_among(&manifest.recipients)).unwrap_or_default();
    let record = DrillRecord {
        outcome: if passed { DrillOutcome::Passed } else { DrillOutcome::Failed },
        backup: run.chosen.as_ref().map(|m| m.id.clone()),
        recovery_point: run.chosen.as_ref().map(|m| m.recovery_point),
        started,
        finished: started + TimeDelta::try_milliseconds((rto_seconds * 1000.0) as i64).unwrap_or_default(),
        rto_seconds,
        rto_objective_seconds: objective,
        rto_met: passed && objective.is_none_or(|objective| rto_seconds <= objective),
        rpo_seconds: run.rpo,
        phases,
        checks_passed: run.checks.iter().filter(|c| c.passed).count() as u64,
        checks_failed: run.checks.iter().filter(|c| !c.passed).count() as u64,
        refutes_backup: run.refutes,
        error_code,
        restored_bytes: run.restored_bytes,
        environment: DrillEnvironment {
            cores: u32::try_from(host.workers).unwrap_or(u32::MAX),
            storage: vault.storage.kind().to_owned(),
            confinement: run.confinement.to_owned(),
            cold_cache,
            servers: run.servers,
            opened_for,
        },
    };
    let (chosen, server_settings) = (run.chosen.take(), run.server_settings);
    let mut report = DrillReport {
        record,
        checks: run.checks,
        failure: outcome.err(),
        errors: run.errors,
        remarks: run.remarks,
        recorded: true,
        kept: run.kept,
        id: id.clone(),
    };
    if interrupted {
        begun::end(begun, progress);
        return Err(Error::new(
            Code::Interrupted,
            format!("the drill of {} was interrupted; its scratch folder is removed", job.name),
        ));
    }
    let mut details = serde_json::json!({ "checks": report.checks, "errors": report.errors });
    if !server_settings.is_empty() {
        details["servers"] = server_settings.into();
    }
    if let Err(error) =
        records::write_as(host, vault, &job.name, &id, RecordBody::Drill(report.record.clone()), Some(&details))
    {
        let what = format!("the drill could not be recorded in the vault: {error}");
        progress.warn(&what);
        report.errors.push(what);
        report.recorded = false;
    }
    begun::end(begun, progress);
    if let (true, true, Some(manifest)) = (report.recorded, report.record.refutes_backup, &chosen) {
        blame(host, vault, manifest, &mut report, progress);
    }
    Ok(report)
}

/// After the clock: which objects spoil the backup, where their bytes tell. With their names on record the next backup
/// stores these anew; without, everything that the backup names.
fn blame(host: &Host, vault: &OpenVault, manifest: &Manifest, report: &mut DrillReport, progress: &dyn Progress) {
    let manifests = std::slice::from_ref(manifest);
    let found = check::objects::check(host, &vault.storage, manifests, progress)
        .and_then(|named| refute::record(host, vault, Finder::Drill, manifests, &named.damaged));
    match found {
        Ok(OnRecord::Nothing | OnRecord::Already) => {}
        Ok(OnRecord::Written(_)) => {
            report.remarks.push("the objects that spoil it are on record; the next backup stores them anew".into());
        }
        Err(error) => report.remarks.push(format!("which objects spoil it could not be found out: {error}")),
    }
}

/// A source of the backup that is rehearsed.
struct Located<'m> {
    manifest: &'m Manifest,
    source: &'m SourceEntry,
    restored_into: RestoredInto,
}

/// What a source is restored into.
enum RestoredInto {
    /// A folder in scratch.
    Folder,
    /// A server, which these facts need.
    Server(Box<PostgresFacts>),
}

impl Located<'_> {
    /// What it takes on the disk of scratch.
    fn room_bytes(&self, ground: &ServerGround) -> u64 {
        match (&self.restored_into, ground) {
            (RestoredInto::Folder, _) => self.source.logical_bytes,
            (RestoredInto::Server(_), ServerGround::Existing(_)) => 0,
            (RestoredInto::Server(facts), _) => server::room_bytes(self.source, facts),
        }
    }

    fn on_a_server(&self) -> bool {
        matches!(self.restored_into, RestoredInto::Server(_))
    }
}

struct DrillRun<'a> {
    host: &'a Host,
    vault: &'a OpenVault,
    job: &'a JobSettings,
    request: &'a DrillRequest<'a>,
    progress: &'a dyn Progress,
    started: DateTime<Utc>,
    id: &'a RecordId,
    chosen: Option<Manifest>,
    rpo: Option<f64>,
    checks: Vec<Check>,
    errors: Vec<String>,
    remarks: Vec<String>,
    confinement: &'static str,
    restored_bytes: u64,
    refutes: bool,
    kept: Option<PathBuf>,
    servers: Vec<DrillServer>,
    server_settings: Vec<serde_json::Value>,
}

impl DrillRun<'_> {
    fn rehearse(&mut self, reader: &Result<Reader>, stopwatch: &mut Stopwatch<'_>) -> Result<()> {
        stopwatch.phase("locate");
        let reader = reader.as_ref().map_err(|e| {
            let again = Error::new(e.code(), e.to_string());
            match e.hint() {
                Some(hint) => again.with_hint(hint),
                None => again,
            }
        })?;
        let survey = self.vault.survey(self.host, Some(&self.job.name))?;
        for problem in &survey.problems {
            self.remarks
                .push(format!("{}: {}; `lifeboat check {}` says more", problem.key, problem.fault, self.job.name));
        }
        let newest_missing = self.newest_missing(&survey)?;
        let manifests = manifests(survey);
        let refuted = self.host.refuted(&self.vault.id, Some(&self.job.name))?;
        self.rpo = manifests
            .iter()
            .filter(|m| m.completeness == Completeness::Complete && m.committed <= self.started)
            .filter(|m| !refuted.contains(&m.id))
            .map(|m| m.recovery_point)
            .max()
            .map(|newest| (self.started - newest).as_seconds_f64().max(0.0));
        let manifest = choose(&manifests, &self.request.which, self.job)?;
        self.chosen = Some(manifest.clone());
        if let (Which::Latest, Some(what)) = (&self.request.which, newest_missing) {
            // An older backup that restores is no proof for the one that a disaster would have to fall back on.
            self.errors.push(what.clone());
            self.checks.push(Check {
                name: "newest backup".to_owned(),
                passed: false,
                expected: "there, and believed".to_owned(),
                actual: what,
            });
        }
        for source in self.job.sources.iter().flat_map(|source| databases::missing(source, &manifest.sources)) {
            let what = format!("source {source} is in the config and not in backup {}", manifest.id);
            self.errors.push(what.clone());
            let name = format!("{source}: backed up");
            self.checks.push(Check { name, passed: false, expected: "in the backup".to_owned(), actual: what });
        }

        // Of a server's databases nobody knows which must be there; which were is known.
        let before: Vec<Manifest> = manifests.into_iter().filter(|it| it.sequence < manifest.sequence).collect();
        let there: Vec<SourceName> = manifest.sources.iter().map(|source| source.name.clone()).collect();
        self.remarks.extend(databases::vanished(self.job, &before, &there));

        let located = self.locate_sources(reader, &manifest)?;

        stopwatch.phase("provision");
        let ground = &self.request.settings.server.ground;
        let needed = located.iter().map(|located| located.room_bytes(ground));
        let needed = needed.fold(SCRATCH_HEADROOM, u64::saturating_add);
        let confinement = self.confinement(&located)?;
        let scratch = Scratch::create(&self.request.settings.scratch, &self.job.name, self.id, needed)?;

        let result = self.restore_and_check(reader, located, &scratch, confinement.as_ref(), stopwatch);
        if self.request.keep {
            self.kept = Some(scratch.keep()?);
        } else if let Err(error) = scratch.remove() {
            // The next drill removes it; the verdict on the backup does not hang on it.
            self.remarks.push(format!("the scratch folder could not be removed: {error}"));
        }
        result
    }

    /// What each source of the backup is to be restored into. A database's own facts say which server it needs.
    fn locate_sources<'m>(&self, reader: &Reader, manifest: &'m Manifest) -> Result<Vec<Located<'m>>> {
        let locate = |source: &'m SourceEntry| {
            let restored_into = match source.kind.as_str() {
                "postgres" => RestoredInto::Server(
                    server::facts(self.host, reader, manifest, source)
                        .map_err(|e| e.context(format!("source {}", source.name)))?,
                ),
                _ => RestoredInto::Folder,
            };
            Ok(Located { manifest, source, restored_into })
        };
        manifest.sources.iter().map(locate).collect()
    }

    /// Whether the newest backup of the job, by what this host saw or by what lies in the vault, is gone or not to be
    /// believed.
    fn newest_missing(&self, survey: &Survey) -> Result<Option<String>> {
        let jobs = [self.job.name.clone()];
        if let Some((_, there, seen)) = self.vault.hidden_newest(self.host, survey, &jobs)?.first() {
            return Ok(Some(format!(
                "this host saw backup number {seen}, and the newest in the vault is number {there}"
            )));
        }
        // Keys begin with the time, so the newest is the last.
        let newest = survey.manifests.iter().map(|m| Key::Manifest(m.name.clone()).to_string()).max();
        let unbelieved = survey.problems.iter().filter(|p| matches!(p.fault, Fault::Untrusted(_)));
        Ok(unbelieved
            .filter(|problem| newest.as_ref().is_none_or(|newest| problem.key > *newest))
            .map(|problem| format!("{}: {}", problem.key, problem.fault))
            .next())
    }

    fn restore_and_check(
        &mut self,
        reader: &Reader,
        located: Vec<Located<'_>>,
        scratch: &Scratch,
        confinement: Option<&Confinement>,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<()> {
        let mut databases = Vec::new();
        let mut result = self.restore_sources(reader, located, scratch, confinement, &mut databases, stopwatch);
        // Whatever came of it: no server outlives its drill.
        for database in databases {
            self.remarks.extend(database.remarks().iter().map(|remark| format!("{}: {remark}", database.name())));
            if let (Err(_), Some(tail)) = (&result, database.log_tail()) {
                self.errors.push(format!("{}: the scratch server's log ends: {tail}", database.name()));
            }
            // Whoever loaded may have seen no more than a closed connection.
            result = match (result, database.lacks_room()) {
                (Err(error), Some(cure)) => Err(error.with_hint(cure)),
                (result, _) => result,
            };
            let name = database.name().clone();
            self.server_settings.push(database.settings());
            let (measured, remarks) = database.end(self.host, self.request.keep);
            self.servers.push(measured);
            self.remarks.extend(remarks.into_iter().map(|remark| format!("{name}: {remark}")));
        }
        result
    }

    /// The order keeps foreign code away from what it is none of: servers are made while they hold nothing foreign,
    /// files are restored and compared while nobody else can write, and only then databases are loaded.
    fn restore_sources(
        &mut self,
        reader: &Reader,
        located: Vec<Located<'_>>,
        scratch: &Scratch,
        confinement: Option<&Confinement>,
        databases: &mut Vec<Database>,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<()> {
        let host = self.host;
        let manifest = located.first().map(|located| located.manifest);
        if let Some(confinement) = confinement {
            host.runtime.block_on(prepare(scratch, confinement))?;
        }
        let (mut folders, mut on_servers) = (Vec::new(), Vec::new());
        let settings = &self.request.settings.server;
        let place =
            Place { host, scratch, confinement, trust: self.trust(), settings, job: &self.job.name, id: self.id };
        for Located { source, restored_into, .. } in located {
            match restored_into {
                RestoredInto::Server(facts) => {
                    let context = |e: Error| e.context(format!("source {}", source.name));
                    host.check_interrupted()?;
                    databases.push(Database::start(&place, source, facts).map_err(context)?);
                    on_servers.push(source);
                }
                RestoredInto::Folder => folders.push(source),
            }
        }
        for database in &*databases {
            let remarks =
                database.must_have_extensions(host).map_err(|e| e.context(format!("source {}", database.name())))?;
            self.remarks.extend(remarks.into_iter().map(|remark| format!("{}: {remark}", database.name())));
        }
        let Some(manifest) = manifest else { return Ok(()) };
        let mut restored = self.restore_folders(reader, manifest, &folders, scratch, stopwatch)?;
        if let Some((uid, gid)) = confinement.and_then(Confinement::owner) {
            stopwatch.phase("start");
            for dir in restored.values().filter_map(RestoredSource::dir) {
                hand_over(dir, uid, gid)?;
            }
        }
        for (database, source) in databases.iter_mut().zip(on_servers) {
            let context = |e: Error| e.context(format!("source {}", source.name));
            stopwatch.phase("load");
            let remarks = database.load(host, reader, manifest, source, stopwatch, self.progress).map_err(context)?;
            self.remarks.extend(remarks.into_iter().map(|remark| format!("{}: {remark}", source.name)));
            self.restored_bytes += source.logical_bytes;
            stopwatch.phase("check");
            let checks = database.compare(host).map_err(context)?;
            let failed = checks.iter().filter(|check| !check.passed);
            let errors = failed.map(|c| format!("{}: expected {}, got {}", c.name, c.expected, c.actual)).collect();
            self.compared(checks, errors);
            restored.insert(source.name.clone(), database.restored());
        }
        if self.request.settings.checks.is_empty() {
            return Ok(());
        }
        stopwatch.phase("check");
        // Without a confinement no check runs on this machine: all of them are asked of a server that is there.
        let nothing_runs = Confinement::TrustedSource;
        self.run_user_checks(scratch, confinement.unwrap_or(&nothing_runs), &restored)
    }

    /// Restores and compares the sources that become folders.
    fn restore_folders(
        &mut self,
        reader: &Reader,
        manifest: &Manifest,
        sources: &[&SourceEntry],
        scratch: &Scratch,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<BTreeMap<SourceName, RestoredSource>> {
        let mut restored = BTreeMap::new();
        if sources.is_empty() {
            return Ok(restored);
        }
        stopwatch.phase("load");
        let plans = sources.iter().map(|source| plan(reader, manifest, source)).collect::<Result<Vec<_>>>()?;
        for (source, plan) in sources.iter().zip(plans) {
            let target = scratch.path().join(source.name.as_str());
            compare::load(self.host, reader, source, plan, &target, self.progress)
                .map_err(|e| e.context(format!("source {}", source.name)))?;
            self.restored_bytes += source.logical_bytes;
        }
        stopwatch.phase("check");
        for source in sources {
            self.host.check_interrupted()?;
            let dir = scratch.path().join(source.name.as_str());
            let compared = compare::source(reader, source, &dir, self.progress)
                .map_err(|e| e.context(format!("source {}", source.name)))?;
            self.compared(compared.checks, compared.errors);
            let source_restored = match compared.sqlite {
                Some(file) => RestoredSource::Sqlite { dir, file },
                None => RestoredSource::Folder(dir),
            };
            restored.insert(source.name.clone(), source_restored);
        }
        Ok(restored)
    }

    /// Takes checks that speak for or against the backup itself.
    fn compared(&mut self, checks: Vec<Check>, errors: Vec<String>) {
        self.refutes |= checks.iter().any(|check| !check.passed);
        self.errors.extend(errors);
        self.checks.extend(checks);
    }

    fn run_user_checks(
        &mut self,
        scratch: &Scratch,
        confinement: &Confinement,
        sources: &BTreeMap<SourceName, RestoredSource>,
    ) -> Result<()> {
        let program = std::env::current_exe()
            .map_err(|cause| Error::new(Code::ToolFailed, format!("cannot find our own executable: {cause}")))?;
        let around = Around {
            scratch,
            confinement,
            sources,
            program: &program,
            base_dir: self.request.config_file.parent().unwrap_or(Path::new("/")),
            started: self.started,
            deadline: self.request.settings.check_timeout,
        };
        // A check may take its whole deadline; whoever asks us to end need not wait for it. Its process is killed.
        let results = self.host.runtime.block_on(async {
            tokio::select! {
                results = run_checks(&self.request.settings.checks, &around) => Ok(results),
                () = self.host.interrupt.raised() => self.host.check_interrupted().map(|()| Vec::new()),
            }
        })?;
        for check in &results {
            if !check.passed {
                self.errors.push(format!("{}: expected {}, got {}", check.name, check.expected, check.actual));
            }
        }
        self.checks.extend(results);
        Ok(())
    }

    fn trust(&self) -> Trust {
        if self.request.settings.trust_source { Trust::Source } else { Trust::Hostile }
    }

    /// Under which rights scratch servers and the user's checks will run on this machine; `None` where there are neither.
    fn confinement(&mut self, located: &[Located<'_>]) -> Result<Option<Confinement>> {
        let elsewhere = matches!(self.request.settings.server.ground, ServerGround::Existing(_));
        let on_a_server = |name: &SourceName| located.iter().any(|it| it.on_a_server() && it.source.name == *name);
        let runs_here = |check: &UserCheck| match check {
            UserCheck::Sql { source, .. } | UserCheck::Freshness { source, .. } => !(elsewhere && on_a_server(source)),
            UserCheck::Command { .. } => true,
        };
        let servers = located.iter().any(Located::on_a_server);
        if (!servers || elsewhere) && !self.request.settings.checks.iter().any(runs_here) {
            if servers {
                self.confinement = "existing-server";
            }
            return Ok(None);
        }
        let confinement = self.host.runtime.block_on(Confinement::decide(self.trust()))?;
        self.confinement = confinement.describe();
        let mut secrets = self.request.identity_files.to_vec();
        secrets.push(self.request.config_file.to_owned());
        secrets.push(self.host.home()?.state.root().to_owned());
        secrets.extend(self.vault.secrets());
        // The question is asked in another folder than this process's: a relative path would be nothing there.
        let secrets = secrets.iter().map(std::path::absolute).collect::<std::io::Result<Vec<PathBuf>>>();
        let secrets = secrets
            .map_err(|cause| Error::new(Code::Unconfined, format!("no current folder to start from: {cause}")))?;
        self.host.runtime.block_on(confinement.verify_unreadable(&secrets))?;
        Ok(Some(confinement))
    }
}
