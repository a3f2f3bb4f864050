//! The law of the catalog: whatever two hosts, a failing store and kills do, a catalog that lived through it answers as
//! one that is made anew from the vault and the outbox.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::catalog::{BackupRow, CheckRow, DrillRow, PruneRow, QuarantineRow, RefutationRow, RemovalRow, RunRow};
use crate::clock::{Clock, ManualClock};
use crate::config::{VaultSettings, VaultUrl};
use crate::domain::ids::{JobName, ManifestHash, ObjectId, VaultId};
use crate::domain::manifest::{Completeness, MANIFEST_TYPE, MANIFEST_VERSION, Manifest, SourceEntry};
use crate::domain::record::{
    CheckOutcome, CheckRecord, CondemnedRecord, DrillEnvironment, DrillOutcome, DrillRecord, Finder, PruneOutcome,
    PruneRecord, QuarantineRecord, RecordBody, RefutationRecord, RemovalReason, RemovalRecord, RunOutcome, RunRecord,
    SequenceRange,
};
use crate::operations::interrupt::Interrupt;
use crate::operations::outbox::Waiting;
use crate::operations::rebuild::rebuild;
use crate::operations::records::{send_waiting, standing, write, write_as};
use crate::storage::Storage;
use crate::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
use crate::storage::memory::Memory;
use crate::vault::keys::SigningKey;
use crate::vault::manifests::{VerifiedManifest, commit_manifest, sign_manifest};
use crate::vault::records::{survey_records, write_record};
use crate::vault::survey::survey;
use crate::vault::trust::{HostEntry, JobPattern, Revocation, TrustDocument};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

pub(crate) struct World {
    pub(crate) runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Memory,
    pub(crate) trust: TrustDocument,
    pub(crate) hosts: Vec<Host>,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let start = "2026-11-22T02:00:00.5Z".parse().unwrap();
        let clock = Arc::new(ManualClock::at(start));
        let (mut hosts, mut entries) = (Vec::new(), Vec::new());
        for name in ["web-1", "web-2"] {
            let host = Host::bare(runtime.handle().clone(), clock_of(&clock), Interrupt::default());
            let host = host.with_home(&folder.path().join(name)).unwrap();
            let key = SigningKey::generate();
            key.write_new(&host.home().unwrap().state.host_key(), "test").unwrap();
            hosts.push(host);
            entries.push(HostEntry {
                name: name.to_owned(),
                key: key.public().clone(),
                jobs: vec![JobPattern::Job(job(0)), JobPattern::Job(job(1))],
                from: start,
                until: None,
                revoked: None,
            });
        }
        let store = Memory::new(clock_of(&clock));
        let trust = TrustDocument::first(VaultId::from_random([1; 8]), start, entries);
        Self { runtime, folder, clock, store, trust, hosts }
    }

    /// The vault as a process sees it that was just started.
    pub(crate) fn vault(&self, plan: Option<Plan>) -> OpenVault {
        let inner: Arc<dyn Storage> = Arc::new(self.store.another_handle());
        OpenVault {
            id: self.trust.vault.clone(),
            settings: VaultSettings {
                name: "main".to_owned(),
                url: VaultUrl::Folder("/nowhere".into()),
                s3: crate::config::S3Settings::default(),
                recipients: vec![RECIPIENT.to_owned()],
                trust: None,
                grace: None,
                compression_level: Some(1),
                role: crate::config::VaultRole::Own,
            },
            storage: match plan {
                Some(plan) => Arc::new(Fault::planned(inner, plan)),
                None => inner,
            },
            trust: self.trust.clone(),
        }
    }

    pub(crate) fn manifests(&self) -> Vec<VerifiedManifest> {
        let mut all = self.runtime.block_on(survey(&self.store.another_handle(), &self.trust, None)).unwrap().manifests;
        all.sort_by_key(|verified| verified.manifest.id.clone());
        all
    }

    pub(crate) fn delete(&self, prefix: &str) {
        let store = self.store.another_handle();
        self.runtime.block_on(async {
            let mut keys = Vec::new();
            store.list(prefix, &mut |listed| keys.push(listed.key)).await.unwrap();
            for key in keys {
                store.delete(&key).await.unwrap();
            }
            store.sync().await.unwrap();
        });
    }

    fn waiting(&self, host: &Host) -> Vec<Waiting> {
        let outbox = host.home().unwrap().state.outbox(&self.trust.vault);
        outbox.waiting().unwrap().map(Result::unwrap).collect()
    }

    fn answers(&self, host: &Host) -> Answers {
        let (catalog, vault) = (&host.home().unwrap().catalog, &self.trust.vault);
        let refuted = host.refuted(vault, None).unwrap();
        self.runtime.block_on(async {
            Answers {
                backups: catalog.backups(vault, None).await.unwrap(),
                runs: catalog.runs(vault, None).await.unwrap(),
                drills: catalog.drills(vault, None).await.unwrap(),
                removals: catalog.removals(vault, None).await.unwrap(),
                refutations: catalog.refutations(vault, None).await.unwrap(),
                quarantines: catalog.quarantines(vault, None).await.unwrap(),
                prunes: catalog.prunes(vault, None).await.unwrap(),
                checks: catalog.checks(vault, None).await.unwrap(),
                known: catalog.known_records(vault).await.unwrap(),
                refuted,
            }
        })
    }

    /// What a host would answer that has the same outbox and remembers nothing.
    fn rebuilt(&self, of: &Host) -> Answers {
        let fresh = tempfile::tempdir_in(self.folder.path()).unwrap();
        let (from, to) = (of.home().unwrap().state.root(), fresh.path());
        copy(&from.join("outbox"), &to.join("outbox"));
        let host = Host::bare(self.runtime.handle().clone(), clock_of(&self.clock), Interrupt::default());
        let host = host.with_home(to).unwrap();
        rebuild(&host, &self.vault(None)).unwrap();
        self.answers(&host)
    }
}

fn clock_of(clock: &Arc<ManualClock>) -> Arc<dyn Clock> {
    Arc::<ManualClock>::clone(clock)
}

/// Copies what is below a folder; one that is not there has nothing below it.
pub(crate) fn copy(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to);
            continue;
        }
        std::fs::copy(&from, &to).unwrap();
    }
}

/// Every answer about the vault.
#[derive(Debug, PartialEq)]
struct Answers {
    backups: Vec<BackupRow>,
    runs: Vec<RunRow>,
    drills: Vec<DrillRow>,
    removals: Vec<RemovalRow>,
    refutations: Vec<RefutationRow>,
    quarantines: Vec<QuarantineRow>,
    prunes: Vec<PruneRow>,
    checks: Vec<CheckRow>,
    known: HashSet<(String, RecordId)>,
    refuted: HashSet<BackupId>,
}

pub(crate) fn job(number: usize) -> JobName {
    ["shop", "blog"][number].parse().unwrap()
}

pub(crate) fn manifest(
    world: &World,
    host: usize,
    job: &JobName,
    last: Option<(u64, ManifestHash)>,
    id: u64,
) -> Manifest {
    let now = world.clock.now();
    Manifest {
        kind: MANIFEST_TYPE.to_owned(),
        version: MANIFEST_VERSION,
        vault: world.trust.vault.clone(),
        job: job.clone(),
        id: BackupId::from_random(id.to_be_bytes()),
        sequence: last.map_or(1, |(sequence, _)| sequence + 1),
        completeness: if id.is_multiple_of(4) { Completeness::Partial } else { Completeness::Complete },
        host: ["web-1", "web-2"][host].to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        started: now,
        committed: now,
        recovery_point: now - TimeDelta::nanoseconds(1),
        recipient_set: "00".repeat(32),
        recipients: vec![RECIPIENT.to_owned()],
        previous: last.map(|(_, hash)| hash),
        sources: vec![SourceEntry {
            name: "uploads".parse().unwrap(),
            kind: "files".to_owned(),
            recovery_point: now - TimeDelta::nanoseconds(1),
            lists: vec![ObjectId([3; 32])],
            contents: vec![ObjectId([4; 32])],
            logical_bytes: 10,
            stored_bytes: 9,
            new_bytes: 8,
            segments: 2,
            new_segments: 1,
            notes: BTreeMap::new(),
        }],
    }
}

/// The body of a record of each kind, about `of`.
pub(crate) fn body(kind: u8, of: Option<&VerifiedManifest>, now: chrono::DateTime<chrono::Utc>) -> RecordBody {
    let backup = of.map(|verified| verified.manifest.id.clone());
    let named = backup.clone().unwrap_or_else(|| BackupId::from_random([0; 8]));
    match kind {
        0 => RecordBody::Run(RunRecord {
            outcome: RunOutcome::Failed,
            started: now,
            finished: now,
            duration_seconds: 0.000_000_001,
            backup,
            logical_bytes: 1,
            stored_bytes: 2,
            new_bytes: 3,
            errors: 4,
            error_code: Some("storage-full".to_owned()),
        }),
        1 => RecordBody::Drill(DrillRecord {
            outcome: DrillOutcome::Passed,
            backup,
            recovery_point: Some(now),
            started: now,
            finished: now,
            rto_seconds: 1.25,
            rto_objective_seconds: None,
            rto_met: true,
            rpo_seconds: None,
            phases: Vec::new(),
            checks_passed: 1,
            checks_failed: 0,
            refutes_backup: false,
            error_code: None,
            restored_bytes: 9,
            environment: DrillEnvironment {
                cores: 2,
                storage: "folder".to_owned(),
                confinement: "none-run".to_owned(),
                cold_cache: true,
                servers: Vec::new(),
                opened_for: Vec::new(),
            },
        }),
        2 => RecordBody::Refutation(RefutationRecord {
            found_by: Finder::Check,
            objects: vec![ObjectId([7; 32])],
            lists: Vec::new(),
            backups: vec![named],
            error_code: "object-damaged".to_owned(),
        }),
        3 => RecordBody::Prune(PruneRecord {
            outcome: PruneOutcome::Done,
            started: now,
            finished: now,
            duration_seconds: 12.345_678_9,
            removed_backups: 1,
            condemned_objects: 2,
            deleted_objects: 3,
            deleted_bytes: 4,
            clean_through: Some(now),
            error_code: None,
        }),
        4 => RecordBody::Removal(Box::new(RemovalRecord {
            backup: named,
            summary: of.map(|verified| verified.manifest.summary(verified.hash)),
            reason: RemovalReason::Expired,
            gone: of
                .map(|verified| SequenceRange { first: verified.manifest.sequence, last: verified.manifest.sequence })
                .into_iter()
                .collect(),
        })),
        5 => RecordBody::Quarantine(QuarantineRecord { backup: Some(named), gone: Vec::new() }),
        7 => RecordBody::Check(CheckRecord {
            outcome: CheckOutcome::Sound,
            started: now,
            finished: now,
            duration_seconds: 1.000_000_1,
            whole_vault: true,
            read_data_percent: Some(5),
            backups: 1,
            objects: 2,
            bytes: 3,
            opened_segments: 4,
            damaged: 0,
            error_code: None,
        }),
        _ => RecordBody::Condemned(CondemnedRecord { objects: vec![ObjectId([9; 32])], lists: Vec::new() }),
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A backup is committed, and the catalog told, unless the process is killed in between.
    Commit { host: usize, job: usize, told: bool },
    /// A record is written.
    Write { host: usize, kind: u8, of: prop::sample::Index, details: bool, plan: Option<AnyPlan> },
    /// Once a removal is in the vault its manifest goes, sooner or later.
    DeleteRemoved,
    /// A sweep is through with what it condemned.
    DeleteCondemned,
    /// What waits is sent.
    Send { host: usize, plan: Option<AnyPlan> },
    /// A process was killed between its last word to the catalog and the outbox.
    StillWaits { host: usize, of: prop::sample::Index },
    /// The vault is looked at.
    Survey { host: usize, job: Option<usize>, plan: Option<AnyPlan> },
}

#[derive(Debug, Clone, Copy)]
struct AnyPlan {
    at_call: u64,
    after: bool,
    effect: u8,
    lasting: bool,
}

impl AnyPlan {
    fn plan(self) -> Plan {
        Plan {
            at_call: self.at_call,
            moment: if self.after { Moment::After } else { Moment::Before },
            effect: match self.effect {
                0 => Effect::Fail(std::io::ErrorKind::StorageFull),
                1 => Effect::LoseAnswer,
                _ => Effect::Call(|| panic!("killed")),
            },
            lasting: if self.lasting { Lasting::FromThenOn } else { Lasting::Once },
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let plan =
        || {
            prop::option::of(
                // The first call asks for the time: a process that is killed there has not begun to write.
                (2_u64..9, any::<bool>(), 0_u8..3, any::<bool>())
                    .prop_map(|(at_call, after, effect, lasting)| AnyPlan { at_call, after, effect, lasting }),
            )
        };
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0_usize..2, 0_usize..2, any::<bool>()).prop_map(|(host, job, told)| Step::Commit { host, job, told }),
        8 => (0_usize..2, 0_u8..8, index(), any::<bool>(), plan())
            .prop_map(|(host, kind, of, details, plan)| Step::Write { host, kind, of, details, plan }),
        1 => Just(Step::DeleteRemoved),
        1 => Just(Step::DeleteCondemned),
        2 => (0_usize..2, plan()).prop_map(|(host, plan)| Step::Send { host, plan }),
        1 => (0_usize..2, index()).prop_map(|(host, of)| Step::StillWaits { host, of }),
        3 => (0_usize..2, prop::option::of(0_usize..2), plan())
            .prop_map(|(host, job, plan)| Step::Survey { host, job, plan }),
    ]
}

/// What happened on each host, and must not be lost.
type Happened = Vec<HashSet<(String, RecordId)>>;

fn take(world: &World, step: &Step, number: u64, happened: &mut Happened) {
    match step {
        Step::Commit { host: at, job: number_of_job, told } => {
            let (host, vault, job) = (&world.hosts[*at], world.vault(None), job(*number_of_job));
            let found = vault.survey(host, Some(&job)).unwrap();
            let last = vault.last_of(host, &found, &job).unwrap();
            let manifest = manifest(world, *at, &job, last, number);
            let signed = sign_manifest(&manifest, &host.key().unwrap());
            world.runtime.block_on(commit_manifest(&*vault.storage, &signed)).unwrap();
            if *told {
                vault.remember_one(host, &manifest, signed.hash).unwrap();
            }
        }
        Step::Write { host: at, kind, of, details, plan } => {
            let all = world.manifests();
            let of = (!all.is_empty()).then(|| of.get(&all));
            let job = of.map_or_else(|| job(0), |verified| verified.manifest.job.clone());
            let body = body(*kind, of, world.clock.now());
            let id = RecordId::from_random(number.to_be_bytes());
            if *kind < 4 || *kind == 7 {
                happened[*at].insert((body.folder().to_owned(), id.clone()));
            }
            let details = details.then(|| serde_json::json!({ "errors": ["cannot read a file"] }));
            let vault = world.vault(plan.map(AnyPlan::plan));
            let write = || write_as(&world.hosts[*at], &vault, &job, &id, body, details.as_ref());
            let _ = catch_unwind(AssertUnwindSafe(write));
        }
        Step::DeleteRemoved => {
            let records = world.runtime.block_on(survey_records(&world.store.another_handle(), &world.trust)).unwrap();
            for verified in records.records {
                if let RecordBody::Removal(removal) = &verified.record.body
                    && let Some(gone) = world.manifests().iter().find(|m| m.manifest.id == removal.backup)
                {
                    world.delete(&Key::Manifest(gone.name.clone()).to_string());
                }
            }
        }
        Step::DeleteCondemned => world.delete(&Key::records_in("condemned")),
        Step::Send { host, plan } => {
            let vault = world.vault(plan.map(AnyPlan::plan));
            let _ = catch_unwind(AssertUnwindSafe(|| send_waiting(&world.hosts[*host], &vault)));
        }
        Step::StillWaits { host, of } => {
            let records = world.runtime.block_on(survey_records(&world.store.another_handle(), &world.trust)).unwrap();
            let own: Vec<Record> = records
                .records
                .into_iter()
                .map(|verified| verified.record)
                .filter(|record| record.details.is_none() && record.host == ["web-1", "web-2"][*host])
                .filter(|record| ["runs", "drills", "refutations", "prunes", "checks"].contains(&record.body.folder()))
                .collect();
            if !own.is_empty() {
                let outbox = world.hosts[*host].home().unwrap().state.outbox(&world.trust.vault);
                outbox.put(&Waiting { record: of.get(&own).clone(), details: None }).unwrap();
            }
        }
        Step::Survey { host, job: of_job, plan } => {
            let vault = world.vault(plan.map(AnyPlan::plan));
            let of_job = of_job.map(job);
            let _ = catch_unwind(AssertUnwindSafe(|| vault.survey(&world.hosts[*host], of_job.as_ref())));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_catalog_that_lived_answers_as_one_made_anew(steps in proptest::collection::vec(any_step(), 1..24)) {
        let world = World::new();
        let mut happened: Happened = vec![HashSet::new(), HashSet::new()];
        for (number, step) in steps.iter().enumerate() {
            world.clock.advance(Duration::from_secs(61));
            take(&world, step, number as u64, &mut happened);
        }
        for (host, happened) in world.hosts.iter().zip(&happened) {
            world.vault(None).survey(host, None).unwrap();
            let lived = world.answers(host);
            prop_assert_eq!(&lived, &world.rebuilt(host));
            prop_assert!(lived.known.is_superset(happened), "{:?} lost something of {:?}", lived.known, happened);
        }
        // Once everything is sent, both hosts know the same.
        for host in &world.hosts {
            send_waiting(host, &world.vault(None)).unwrap();
            prop_assert_eq!(world.waiting(host), vec![]);
        }
        for host in &world.hosts {
            world.vault(None).survey(host, None).unwrap();
        }
        prop_assert_eq!(world.answers(&world.hosts[0]), world.answers(&world.hosts[1]));
    }
}

#[test]
fn what_the_vault_has_is_not_sent_again() {
    let world = World::new();
    let (host, vault) = (&world.hosts[0], world.vault(None));
    let details = serde_json::json!({});
    write(host, &vault, &job(0), body(0, None, world.clock.now()), Some(&details)).unwrap();
    let outbox = host.home().unwrap().state.outbox(&vault.id);
    assert_eq!(world.waiting(host), []);

    // Refused, it waits; the next one that is written takes it along.
    let refuses = AnyPlan { at_call: 1, after: false, effect: 0, lasting: true };
    let error =
        write(host, &world.vault(Some(refuses.plan())), &job(0), body(1, None, world.clock.now()), Some(&details))
            .unwrap_err();
    assert!(error.to_string().contains("the next command that writes sends it"), "{error}");
    let waiting = world.waiting(host);
    assert_eq!(waiting.len(), 1);
    assert_eq!(world.answers(host).drills.len(), 1);
    write(host, &vault, &job(0), body(0, None, world.clock.now()), None).unwrap();
    assert_eq!(world.waiting(host), []);

    // As if killed before it was taken away; meanwhile its details expired.
    outbox.put(&waiting[0]).unwrap();
    let sealed = Key::RecordDetails(RecordName::of(&waiting[0].record)).to_string();
    world.delete(&sealed);
    assert_eq!(send_waiting(host, &world.vault(None)).unwrap(), 1);
    assert_eq!(world.waiting(host), []);
    let there = world.runtime.block_on(world.store.another_handle().get(&sealed, 1 << 20));
    assert!(there.unwrap_err().is_not_found());
}

#[test]
fn what_was_only_decided_does_not_wait() {
    let world = World::new();
    let refuses = AnyPlan { at_call: 1, after: false, effect: 0, lasting: true }.plan();
    for kind in 4..7 {
        let body = body(kind, None, world.clock.now());
        write(&world.hosts[0], &world.vault(Some(refuses)), &job(0), body, None).unwrap_err();
    }
    assert_eq!(world.waiting(&world.hosts[0]), []);
    assert_eq!(world.answers(&world.hosts[0]).known, HashSet::new());
}

#[test]
fn a_newest_backup_that_was_removed_is_not_hidden() {
    let world = World::new();
    let mut happened = vec![HashSet::new(), HashSet::new()];
    for number in 0..3 {
        world.clock.advance(Duration::from_secs(60));
        take(&world, &Step::Commit { host: 0, job: 0, told: true }, number, &mut happened);
    }
    let all = world.manifests();
    let hidden = || {
        let vault = world.vault(None);
        let survey = vault.survey(&world.hosts[0], None).unwrap();
        vault.hidden_newest(&world.hosts[0], &survey, &[job(0), job(1)]).unwrap()
    };
    assert_eq!(hidden(), []);
    for (last, verified) in all.iter().rev().enumerate() {
        world.delete(&Key::Manifest(verified.name.clone()).to_string());
        assert_eq!(hidden(), [(job(0), 2 - last as u64, 3)]);
        // The other host removed it, and says so.
        let removal = body(4, Some(verified), world.clock.now());
        write(&world.hosts[1], &world.vault(None), &job(0), removal, None).unwrap();
        assert_eq!(hidden(), []);
    }
}

impl World {
    /// Puts a manifest there, as a host does that may lie in it.
    pub(crate) fn plant(&self, at: usize, manifest: &Manifest) {
        let signed = sign_manifest(manifest, &self.hosts[at].key().unwrap());
        self.runtime.block_on(commit_manifest(&self.store.another_handle(), &signed)).unwrap();
    }

    /// Puts a record there, past its host's catalog.
    fn plant_record(&self, at: usize, number: u8, body: RecordBody) -> Record {
        let record = Record {
            version: crate::domain::record::RECORD_VERSION,
            vault: self.trust.vault.clone(),
            job: job(0),
            id: RecordId::from_random([number; 8]),
            host: ["web-1", "web-2"][at].to_owned(),
            tool: "lifeboat 0.1.0".to_owned(),
            recorded: self.clock.now(),
            body,
            details: None,
        };
        let store = self.store.another_handle();
        self.runtime.block_on(write_record(&store, &self.hosts[at].key().unwrap(), &record, None)).unwrap();
        record
    }

    fn known(&self, host: usize) -> HashSet<Place> {
        self.answers(&self.hosts[host]).known
    }
}

#[test]
fn what_the_catalog_cannot_hold_is_passed_over_and_said() {
    let world = World::new();
    let (host, vault) = (&world.hosts[0], world.vault(None));
    world.plant(1, &manifest(&world, 1, &job(0), None, 1));
    let RecordBody::Run(run) = body(0, None, world.clock.now()) else { panic!() };
    for (number, errors) in [(1, 1), (2, u64::MAX), (3, 1)] {
        world.plant_record(1, number, RecordBody::Run(RunRecord { errors, ..run.clone() }));
    }
    vault.look(host, None).unwrap();
    vault.survey(host, None).unwrap();
    let answers = world.answers(host);
    assert_eq!((answers.backups.len(), answers.runs.len()), (1, 2));
    // It is not believed to begin with.
    let rebuilt = rebuild(host, &vault).unwrap();
    assert_eq!(rebuilt.problems.len(), 1, "{rebuilt:?}");
    assert_eq!(world.answers(host), answers);
}

#[test]
fn a_verb_that_reads_goes_on_where_the_catalog_cannot_be_told() {
    let world = World::new();
    let host = &world.hosts[0];
    world.plant(1, &manifest(&world, 1, &job(0), None, 1));
    let whole = world.vault(None).look(host, None).unwrap();
    assert_eq!((whole.survey.manifests.len(), whole.untold.len()), (1, 0));
    let no_record_can_be_read = |at_call| {
        let plan = AnyPlan { at_call, after: false, effect: 0, lasting: true }.plan();
        let vault = world.vault(Some(plan));
        let survey = world.runtime.block_on(survey(&*vault.storage, &vault.trust, None)).is_ok();
        let vault = world.vault(Some(plan));
        survey.then(|| (vault.look(host, None), world.vault(Some(plan)).survey(host, None)))
    };
    let (look, survey) = (1..40).find_map(no_record_can_be_read).unwrap();
    let look = look.unwrap();
    assert_eq!((look.survey.manifests.len(), look.untold.len()), (1, 1));
    survey.unwrap_err();
}

#[test]
fn a_damaged_file_of_the_outbox_keeps_nothing_from_being_sent() {
    let world = World::new();
    let (host, vault) = (&world.hosts[0], world.vault(None));
    let refuses = AnyPlan { at_call: 1, after: false, effect: 0, lasting: true };
    for _ in 0..2 {
        write(host, &world.vault(Some(refuses.plan())), &job(0), body(0, None, world.clock.now()), None).unwrap_err();
    }
    let outbox = host.home().unwrap().state.outbox(&vault.id);
    let mut files: Vec<_> = std::fs::read_dir(outbox.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::write(&files[0], "{").unwrap();
    assert_eq!(vault.look(host, None).unwrap().untold.len(), 1);
    vault.survey(host, None).unwrap();
    assert_eq!(rebuild(host, &vault).unwrap().problems.len(), 1);
    let stands = standing(host, &vault.id, Some(&vault)).unwrap();
    assert_eq!((stands.records, stands.in_vain, stands.damaged.len()), (1, 0, 1));
    assert_eq!(stands.oldest, Some(world.clock.now()));
    assert_eq!(send_waiting(host, &vault).unwrap(), 1);
    assert_eq!(standing(host, &vault.id, Some(&vault)).unwrap().records, 0);
}

#[test]
fn a_record_of_a_host_that_this_one_no_longer_is_waits() {
    let world = World::new();
    let host = &world.hosts[0];
    let refuses = AnyPlan { at_call: 1, after: false, effect: 0, lasting: true };
    write(host, &world.vault(Some(refuses.plan())), &job(0), body(0, None, world.clock.now()), None).unwrap_err();
    let mut renamed = world.vault(None);
    renamed.trust.hosts[0].name = "web-9".to_owned();
    assert_eq!(send_waiting(host, &renamed).unwrap(), 0);
    let stands = standing(host, &renamed.id, Some(&renamed)).unwrap();
    assert_eq!((stands.records, stands.in_vain), (1, 1));
    let records = world.runtime.block_on(survey_records(&world.store.another_handle(), &renamed.trust)).unwrap();
    assert_eq!((records.records.len(), records.problems.len()), (0, 0), "nobody would believe it");
    assert_eq!(send_waiting(host, &world.vault(None)).unwrap(), 1);
}

#[test]
fn what_a_new_vault_json_disowns_is_forgotten_and_learnt_again() {
    let mut world = World::new();
    world.plant(0, &manifest(&world, 0, &job(0), None, 1));
    world.plant(1, &manifest(&world, 1, &job(1), None, 2));
    for (at, number) in [(0, 1), (1, 2)] {
        for (kind, number) in [(0, number), (2, number + 10)] {
            world.plant_record(at, number, body(kind, None, world.clock.now()));
        }
    }
    let look = |world: &World| world.vault(None).look(&world.hosts[0], None).unwrap();
    assert_eq!(look(&world).untold.len(), 0);
    let all = world.answers(&world.hosts[0]);
    assert_eq!((all.backups.len(), all.known.len()), (2, 4));

    let trusted = world.trust.clone();
    world.trust.serial += 1;
    world.trust.hosts[1].revoked = Some(Revocation { at: world.trust.hosts[1].from, last_manifests: BTreeMap::new() });
    look(&world);
    let left = world.answers(&world.hosts[0]);
    assert_eq!((left.backups.len(), left.known.len()), (1, 2));
    assert_eq!(left, world.rebuilt(&world.hosts[0]));

    world.trust = TrustDocument { serial: 3, ..trusted };
    look(&world);
    assert_eq!(world.answers(&world.hosts[0]), all);
}

#[test]
fn a_damaged_manifest_is_not_forgotten() {
    let world = World::new();
    world.plant(0, &manifest(&world, 0, &job(0), None, 1));
    let look = || world.vault(None).look(&world.hosts[0], None).unwrap();
    look();
    let key = Key::Manifest(world.manifests()[0].name.clone()).to_string();
    world.runtime.block_on(world.store.another_handle().replace(&key, "{}".into())).unwrap();
    assert_eq!(look().survey.problems.len(), 1);
    assert_eq!(world.answers(&world.hosts[0]).backups.len(), 1);
}

#[test]
fn what_is_not_believed_is_read_again_only_when_it_looks_otherwise() {
    let world = World::new();
    let (host, vault) = (&world.hosts[0], world.vault(None));
    let record = world.plant_record(1, 1, body(0, None, world.clock.now()));
    let key = Key::Record(RecordName::of(&record)).to_string();
    let store = world.store.another_handle();
    let whole = world.runtime.block_on(store.get(&key, 1 << 20)).unwrap();
    world.runtime.block_on(store.replace(&key, "{}".into())).unwrap();
    vault.look(host, None).unwrap();
    let catalog = &host.home().unwrap().catalog;
    let unbelieved = || world.runtime.block_on(catalog.unbelieved(&vault.id)).unwrap();
    assert_eq!(unbelieved().keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(world.known(0).len(), 0);

    // It is whole again; as long as the catalog takes it for what it was, nobody looks.
    world.clock.advance(Duration::from_secs(1));
    world.runtime.block_on(store.replace(&key, whole)).unwrap();
    let looks = world.runtime.block_on(names(&vault)).unwrap();
    let same = [(key.clone(), looks[&RecordName::of(&record)].clone())];
    world.runtime.block_on(catalog.did_not_believe(&vault.id, &same)).unwrap();
    vault.look(host, None).unwrap();
    assert_eq!(world.known(0).len(), 0);
    world.clock.advance(Duration::from_secs(1));
    let signature = Key::RecordSignature(RecordName::of(&record)).to_string();
    let signed = world.runtime.block_on(store.get(&signature, 1 << 20)).unwrap();
    world.runtime.block_on(store.replace(&signature, signed)).unwrap();
    vault.look(host, None).unwrap();
    assert_eq!(world.known(0).len(), 1, "its signature is another one");
}
