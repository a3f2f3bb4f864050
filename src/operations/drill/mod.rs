//! `drill`: a restore as a disaster would force it, from the vault alone, into a scratch folder, with checks and a
//! stopwatch.
//!
//! The clock starts before anything is provisioned and stops when the last check is over. Nothing that a working
//! host has and a bare one has not is used: no catalog, no memory of sources, no page cache where it can be dropped.
//! A drill can fail, and says whether what it found speaks against the backup (it cannot be opened, or differs from
//! its facts) or against something else (scratch full, a quiet Sunday failing a freshness check).

mod compare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;

use crate::config::{DrillSettings, JobSettings};
use crate::domain::check::Check;
use crate::domain::ids::{RecordId, SourceName};
use crate::domain::manifest::{Completeness, Manifest};
use crate::domain::record::{DrillEnvironment, DrillOutcome, DrillRecord, Finder, Phase, RecordBody};
use crate::error::{Code, Error, Kind, Result};
use crate::observe::Progress;
use crate::scratch::checks::{Around, RestoredSource, prepare, run_checks};
use crate::scratch::confine::{Confinement, Trust, hand_over};
use crate::scratch::folder::{Scratch, remove_leftovers};
use crate::sources::unpack::{UnpackOptions, Unpacker};
use crate::vault::layout::Key;
use crate::vault::lists::read_list;
use crate::vault::reader::Reader;
use crate::vault::survey::{Fault, Survey};

use super::check;
use super::host::Host;
use super::records;
use super::refute::{self, OnRecord};
use super::restore::{Selection, finish, plan, unpack_source};
use super::vaults::{OpenVault, manifests};

/// Room that scratch must have beyond the backup's own bytes: folders, links, file systems' rounding.
const SCRATCH_HEADROOM: u64 = 64 * 1024 * 1024;

/// Which backup to rehearse.
#[derive(Debug, Clone)]
pub enum Which {
    /// The newest complete one.
    Latest,
    /// The oldest complete one.
    Oldest,
    /// Any complete one.
    Random,
    /// This one, by its id or the beginning of it.
    Id(String),
}

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
    let leftovers = remove_leftovers(&request.settings.scratch);
    let cold_cache = forget_cached(host, vault, job, &request.which).unwrap_or(false);

    let id = RecordId::from_random(rand::rng().random());
    let mut stopwatch = Stopwatch::start(host);
    let started = host.clock.now();
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
        remarks: Vec::new(),
        confinement: "none-run",
        restored_bytes: 0,
        refutes: false,
        kept: None,
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
        },
    };
    let chosen = run.chosen.take();
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
        return Err(Error::new(
            Code::Interrupted,
            format!("the drill of {} was interrupted; its scratch folder is removed", job.name),
        ));
    }
    let details = serde_json::json!({ "checks": report.checks, "errors": report.errors });
    if let Err(error) =
        records::write_as(host, vault, &job.name, &id, RecordBody::Drill(report.record.clone()), Some(&details))
    {
        let what = format!("the drill could not be recorded in the vault: {error}");
        progress.warn(&what);
        report.errors.push(what);
        report.recorded = false;
    }
    if let (true, true, Some(manifest)) = (report.recorded, report.record.refutes_backup, &chosen) {
        blame(host, vault, manifest, &mut report, progress);
    }
    Ok(report)
}

/// After the clock: which objects spoil the backup, where their bytes tell. With their names on record the next backup
/// stores these anew; without, everything that the backup names.
fn blame(host: &Host, vault: &OpenVault, manifest: &Manifest, report: &mut DrillReport, progress: &dyn Progress) {
    let manifests = std::slice::from_ref(manifest);
    let found = check::objects::check(host, &*vault.storage, manifests, progress)
        .and_then(|named| refute::record(host, vault, Finder::Drill, manifests, &named.damaged));
    match found {
        Ok(OnRecord::Nothing | OnRecord::Already) => {}
        Ok(OnRecord::Written(_)) => {
            report.remarks.push("the objects that spoil it are on record; the next backup stores them anew".into());
        }
        Err(error) => report.remarks.push(format!("which objects spoil it could not be found out: {error}")),
    }
}

/// Times phases, which follow each other without gaps.
struct Stopwatch<'a> {
    host: &'a Host,
    started: std::time::Duration,
    phases: Vec<(&'static str, std::time::Duration)>,
}

impl<'a> Stopwatch<'a> {
    fn start(host: &'a Host) -> Self {
        Self { host, started: host.clock.monotonic(), phases: Vec::new() }
    }

    fn phase(&mut self, name: &'static str) {
        self.phases.push((name, self.host.clock.monotonic()));
    }

    /// The whole time, and each phase's; a phase that came twice is added up.
    fn read(&self) -> (f64, Vec<Phase>) {
        let end = self.host.clock.monotonic();
        // Added up before they become fractions: a sum of those does not come back from its JSON bit for bit.
        let mut sums: Vec<(&'static str, std::time::Duration)> = Vec::new();
        for (index, (name, begun)) in self.phases.iter().enumerate() {
            let took = self.phases.get(index + 1).map_or(end, |(_, next)| *next) - *begun;
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += took,
                None => sums.push((name, took)),
            }
        }
        let phases = sums.into_iter().map(|(name, sum)| Phase { name: name.to_owned(), seconds: sum.as_secs_f64() });
        let phases = phases.collect();
        ((end - self.started).as_secs_f64(), phases)
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
        for source in self.job.sources.iter().filter(|s| manifest.sources.iter().all(|there| there.name != s.name)) {
            let what = format!("source {} is in the config and not in backup {}", source.name, manifest.id);
            self.errors.push(what.clone());
            let name = format!("{}: backed up", source.name);
            self.checks.push(Check { name, passed: false, expected: "in the backup".to_owned(), actual: what });
        }

        stopwatch.phase("provision");
        let needed = manifest.total(|s| s.logical_bytes).saturating_add(SCRATCH_HEADROOM);
        let confinement = self.confinement()?;
        let scratch = Scratch::create(&self.request.settings.scratch, &self.job.name, self.id, needed)?;

        let result = self.restore_and_check(reader, &manifest, &scratch, confinement.as_ref(), stopwatch);
        if self.request.keep {
            self.kept = Some(scratch.keep()?);
        } else if let Err(error) = scratch.remove() {
            // The next drill removes it; the verdict on the backup does not hang on it.
            self.remarks.push(format!("the scratch folder could not be removed: {error}"));
        }
        result
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
        manifest: &Manifest,
        scratch: &Scratch,
        confinement: Option<&Confinement>,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<()> {
        stopwatch.phase("load");
        let owners = rustix::process::geteuid().is_root();
        let plans = manifest.sources.iter().map(|source| plan(reader, manifest, source)).collect::<Result<Vec<_>>>()?;
        for (source, plan) in manifest.sources.iter().zip(plans) {
            let target = scratch.path().join(source.name.as_str());
            let context = |e: Error| e.context(format!("source {}", source.name));
            self.progress.begin(&format!("restoring {}", source.name), Some(source.logical_bytes));
            let unpacker = Unpacker::create(&target, UnpackOptions { owners, overwrite: false })?;
            let everything = Selection::everything();
            let unpacked = unpack_source(self.host, reader, plan, &unpacker, &everything, self.progress);
            self.progress.end();
            unpacked.map_err(context)?;
            self.restored_bytes += source.logical_bytes;
            finish(unpacker).map_err(context)?;
        }

        stopwatch.phase("check");
        let mut restored = BTreeMap::new();
        for source in &manifest.sources {
            self.host.check_interrupted()?;
            let dir = scratch.path().join(source.name.as_str());
            let compared = compare::source(self.host, reader, source, &dir, owners, self.progress)
                .map_err(|e| e.context(format!("source {}", source.name)))?;
            self.refutes |= compared.checks.iter().any(|check| !check.passed);
            self.checks.extend(compared.checks);
            self.errors.extend(compared.errors);
            restored.insert(source.name.clone(), RestoredSource { dir, sqlite: compared.sqlite });
        }
        let Some(confinement) = confinement else { return Ok(()) };

        stopwatch.phase("start");
        if let Some((uid, gid)) = confinement.owner() {
            for source in restored.values() {
                hand_over(&source.dir, uid, gid)?;
            }
        }
        self.host.runtime.block_on(prepare(scratch, confinement))?;

        stopwatch.phase("check");
        self.run_user_checks(scratch, confinement, &restored)
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

    /// Under which rights the user's checks will run; `None` where there are none.
    fn confinement(&mut self) -> Result<Option<Confinement>> {
        if self.request.settings.checks.is_empty() {
            return Ok(None);
        }
        let trust = if self.request.settings.trust_source { Trust::Source } else { Trust::Hostile };
        let confinement = self.host.runtime.block_on(Confinement::decide(trust))?;
        self.confinement = confinement.describe();
        let mut secrets = self.request.identity_files.to_vec();
        secrets.push(self.request.config_file.to_owned());
        secrets.push(self.host.home()?.state.root().to_owned());
        secrets.extend(self.vault.folder());
        // The question is asked in another folder than this process's: a relative path would be nothing there.
        let secrets = secrets.iter().map(std::path::absolute).collect::<std::io::Result<Vec<PathBuf>>>();
        let secrets = secrets
            .map_err(|cause| Error::new(Code::Unconfined, format!("no current folder to start from: {cause}")))?;
        self.host.runtime.block_on(confinement.verify_unreadable(&secrets))?;
        Ok(Some(confinement))
    }
}

fn choose(manifests: &[Manifest], which: &Which, job: &JobSettings) -> Result<Manifest> {
    let complete: Vec<&Manifest> = manifests.iter().filter(|m| m.completeness == Completeness::Complete).collect();
    let chosen = match which {
        Which::Latest => complete.iter().max_by_key(|m| m.recovery_point).copied(),
        Which::Oldest => complete.iter().min_by_key(|m| m.recovery_point).copied(),
        Which::Random if complete.is_empty() => None,
        Which::Random => Some(complete[rand::rng().random_range(0..complete.len())]),
        Which::Id(id) => {
            let fitting: Vec<&Manifest> = manifests.iter().filter(|m| m.id.as_str().starts_with(id.as_str())).collect();
            match fitting[..] {
                [one] => Some(one),
                _ => None,
            }
        }
    };
    chosen.cloned().ok_or_else(|| match which {
        Which::Id(id) => Error::new(
            Code::NotFound,
            format!("job {} has no backup, or several, whose id begins with {id:?}", job.name),
        )
        .with_hint(format!("`lifeboat list {}` shows them", job.name)),
        _ => Error::new(Code::NotFound, format!("job {} has no complete backup to rehearse", job.name))
            .with_hint(format!("make one: `lifeboat backup {}`", job.name)),
    })
}

/// Drops what the drill will read from the page cache; whether that was done for all of it.
fn forget_cached(host: &Host, vault: &OpenVault, job: &JobSettings, which: &Which) -> Result<bool> {
    let manifests = manifests(vault.survey(host, Some(&job.name))?);
    let Ok(manifest) = choose(&manifests, which, job) else { return Ok(false) };
    let storage = &*vault.storage;
    let forget = |key: String| host.runtime.block_on(storage.forget_cached(&key)).unwrap_or(false);
    let mut all = true;
    for source in &manifest.sources {
        for list in &source.lists {
            if let Ok(lines) = host.runtime.block_on(read_list(storage, *list)) {
                for line in lines {
                    all &= forget(Key::Object(line.object).to_string());
                }
            }
            all &= forget(Key::List(*list).to_string());
        }
        for object in &source.contents {
            all &= forget(Key::Object(*object).to_string());
        }
    }
    Ok(all)
}
