//! A job for tests: backed up every six hours for three days, drilled once, nothing wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{DrillPlan, JobFacts, OwnIdentity, Promise, VaultRef, Witness};
use crate::catalog::{BackupRow, CheckRow, DrillRow, PruneRow, RecordRow, RefutationRow, RunRow};
use crate::domain::ids::{BackupId, ManifestHash, ObjectId, RecordId, VaultId};
use crate::domain::manifest::{BackupSummary, Completeness, SourceSummary};
use crate::domain::objectives::Objectives;
use crate::domain::record::{
    CheckOutcome, CheckRecord, DrillEnvironment, DrillOutcome, DrillRecord, Finder, Phase, PruneOutcome, PruneRecord,
    QuarantineRecord, RefutationRecord, RemovalReason, RemovalRecord, RunOutcome, RunRecord, SequenceRange,
};

pub(crate) const BACKUPS: u8 = 12;

pub(crate) fn now() -> DateTime<Utc> {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

pub(crate) fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

pub(crate) fn before_now(by: Duration) -> DateTime<Utc> {
    now() - TimeDelta::from_std(by).unwrap()
}

pub(crate) fn vault_id() -> VaultId {
    VaultId::from_random([0xaa; 8])
}

pub(crate) fn backup(number: u8, recovery_point: DateTime<Utc>) -> BackupRow {
    let summary = BackupSummary {
        vault: vault_id(),
        id: BackupId::from_random([number; 8]),
        job: "shop".parse().unwrap(),
        sequence: u64::from(number),
        completeness: Completeness::Complete,
        host: "web-1".to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        started: recovery_point,
        committed: recovery_point + TimeDelta::minutes(1),
        recovery_point,
        recipient_set: "00".repeat(32),
        recipients: vec!["age1operator".to_owned()],
        previous: (number > 1).then(|| ManifestHash([number - 1; 32])),
        manifest_hash: ManifestHash([number; 32]),
        sources: vec![SourceSummary {
            name: "db".parse().unwrap(),
            kind: "sqlite".to_owned(),
            recovery_point,
            logical_bytes: 50 << 20,
            stored_bytes: 9 << 20,
            new_bytes: 1 << 20,
            segments: 13,
            new_segments: 2,
            notes: BTreeMap::new(),
        }],
    };
    BackupRow { summary, retained_until: None, removal: None }
}

fn run_of(backup: &BackupRow) -> RunRow {
    RunRow {
        vault: vault_id(),
        id: RecordId::from_random([backup.id.as_str().len() as u8 + backup.sequence as u8; 8]),
        job: backup.job.clone(),
        host: backup.host.clone(),
        tool: backup.tool.clone(),
        recorded: backup.committed + TimeDelta::seconds(2),
        details: None,
        run: RunRecord {
            outcome: RunOutcome::Success,
            started: backup.started,
            finished: backup.committed + TimeDelta::seconds(2),
            duration_seconds: 62.0,
            backup: Some(backup.id.clone()),
            logical_bytes: backup.total(|source| source.logical_bytes),
            stored_bytes: backup.total(|source| source.stored_bytes),
            new_bytes: backup.total(|source| source.new_bytes),
            errors: 0,
            error_code: None,
        },
    }
}

pub(crate) fn failed_run(finished: DateTime<Utc>) -> RunRow {
    let mut row = run_of(&backup(200, finished - TimeDelta::seconds(5)));
    row.run = RunRecord {
        outcome: RunOutcome::Failed,
        started: finished - TimeDelta::seconds(5),
        finished,
        duration_seconds: 5.0,
        backup: None,
        logical_bytes: 0,
        stored_bytes: 0,
        new_bytes: 0,
        errors: 1,
        error_code: Some("storage-full".to_owned()),
    };
    row
}

pub(crate) fn drill(number: u8, of: &BackupId, finished: DateTime<Utc>, took: Duration) -> DrillRow {
    DrillRow {
        vault: vault_id(),
        id: RecordId::from_random([number; 8]),
        job: "shop".parse().unwrap(),
        host: "drill-1".to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        recorded: finished,
        details: None,
        drill: DrillRecord {
            outcome: DrillOutcome::Passed,
            backup: Some(of.clone()),
            recovery_point: Some(finished - TimeDelta::hours(3)),
            started: finished - TimeDelta::from_std(took).unwrap(),
            finished,
            rto_seconds: took.as_secs_f64(),
            rto_objective_seconds: Some(3600.0),
            rto_met: true,
            rpo_seconds: Some(10_800.0),
            phases: vec![
                Phase { name: "fetch".to_owned(), seconds: 8.2 },
                Phase { name: "check".to_owned(), seconds: 4.1 },
            ],
            checks_passed: 3,
            checks_failed: 0,
            refutes_backup: false,
            error_code: None,
            restored_bytes: 50 << 20,
            environment: DrillEnvironment {
                cores: 2,
                storage: "folder".to_owned(),
                confinement: "own-uid".to_owned(),
                cold_cache: true,
                servers: Vec::new(),
                opened_for: Vec::new(),
            },
        },
    }
}

pub(crate) fn fail_last_drill(facts: &mut JobFacts) {
    let drill = &mut facts.drills.last_mut().unwrap().drill;
    drill.outcome = DrillOutcome::Failed;
    drill.rto_met = false;
    drill.checks_failed = 1;
    drill.error_code = Some("drill-failed".to_owned());
}

pub(crate) fn refute(facts: &mut JobFacts, backup: BackupId) {
    facts.drills.push(drill(80, &backup, before_now(minutes(5)), Duration::from_secs(3)));
    fail_last_drill(facts);
    let drill = &mut facts.drills.last_mut().unwrap().drill;
    drill.refutes_backup = true;
    drill.error_code = Some("object-damaged".to_owned());
}

pub(crate) fn healthy() -> JobFacts {
    let backups: Vec<BackupRow> =
        (1..=BACKUPS).map(|number| backup(number, before_now(hours(3 + 6 * u64::from(BACKUPS - number))))).collect();
    let runs = backups.iter().map(run_of).collect();
    let drills = vec![drill(50, &backups[3].id, before_now(hours(48)), Duration::from_millis(12_300))];
    JobFacts {
        job: "shop".parse().unwrap(),
        vault: VaultRef { name: "main".to_owned(), id: vault_id() },
        promise: Promise {
            timezone: "Europe/Moscow".to_owned(),
            schedule: Some("0 */6 * * *".to_owned()),
            backup_gap: Some(hours(6)),
            objectives: Objectives { rpo: Some(hours(24)), rto: Some(hours(1)) },
            keep_at_least: Some(hours(24 * 14)),
            delete_after: Some(hours(24 * 30)),
            erasing_lead: Some(hours(74)),
            prune_gap: Some(hours(6)),
            check_gap: None,
            recipients: vec!["age1operator".to_owned()],
            drill: DrillPlan::Scheduled { schedule: "0 5 * * SUN".to_owned(), gap: Some(hours(24 * 7)) },
        },
        next_backup: Some(now() + TimeDelta::hours(3)),
        next_drill: Some(now() + TimeDelta::hours(14)),
        next_prune: None,
        next_check: None,
        identity: OwnIdentity::Absent,
        witness: Witness::Agrees,
        unbelieved: Vec::new(),
        quarantined: Vec::new(),
        unapproved: Vec::new(),
        gaps: Vec::new(),
        hidden: None,
        chain_breaks: 0,
        scheduled_backups: Vec::new(),
        scheduled_drills: Vec::new(),
        backups,
        runs,
        drills,
        removals: Vec::new(),
        refutations: Vec::new(),
        quarantines: Vec::new(),
        prunes: Vec::new(),
        checks: Vec::new(),
        copy: None,
    }
}

/// A record of what keeping and erasing does.
pub(crate) fn record<Body>(number: u8, recorded: DateTime<Utc>, body: Body) -> RecordRow<Body> {
    RecordRow {
        vault: vault_id(),
        id: RecordId::from_random([number; 8]),
        job: "shop".parse().unwrap(),
        host: "web-1".to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        recorded,
        details: None,
        body,
    }
}

pub(crate) fn prune(
    number: u8,
    finished: DateTime<Utc>,
    outcome: PruneOutcome,
    clean_through: Option<DateTime<Utc>>,
) -> PruneRow {
    let did = |count: u64| if outcome == PruneOutcome::Done { count } else { 0 };
    let body = PruneRecord {
        outcome,
        started: finished - TimeDelta::seconds(8),
        finished,
        duration_seconds: 8.0,
        removed_backups: did(1),
        condemned_objects: did(2),
        deleted_objects: did(3),
        deleted_bytes: did(4 << 20),
        clean_through,
        error_code: (outcome != PruneOutcome::Done).then(|| "deletion-stopped".to_owned()),
    };
    record(number, finished, body)
}

pub(crate) fn check(number: u8, finished: DateTime<Utc>, outcome: CheckOutcome) -> CheckRow {
    let looked = |count: u64| if outcome == CheckOutcome::Failed { 0 } else { count };
    let body = CheckRecord {
        outcome,
        started: finished - TimeDelta::seconds(95),
        finished,
        duration_seconds: 95.0,
        whole_vault: true,
        read_data_percent: (outcome == CheckOutcome::Sound).then_some(10),
        backups: looked(8),
        objects: looked(420),
        bytes: looked(3 << 30),
        opened_segments: if outcome == CheckOutcome::Sound { 40 } else { 0 },
        damaged: u64::from(outcome == CheckOutcome::Damaged) * 2,
        error_code: match outcome {
            CheckOutcome::Sound => None,
            CheckOutcome::Damaged => Some("object-damaged".to_owned()),
            CheckOutcome::Failed => Some("storage-unreachable".to_owned()),
        },
    };
    record(number, finished, body)
}

pub(crate) fn refutation(number: u8, recorded: DateTime<Utc>, backup: &BackupId, objects: u8) -> RefutationRow {
    let body = RefutationRecord {
        found_by: Finder::Check,
        objects: (0..objects).map(|object| ObjectId([object; 32])).collect(),
        lists: Vec::new(),
        backups: vec![backup.clone()],
        error_code: "object-damaged".to_owned(),
    };
    record(number, recorded, body)
}

/// Takes one of the job's backups out.
pub(crate) fn remove(facts: &mut JobFacts, place: usize, at: DateTime<Utc>) {
    let row = &mut facts.backups[place];
    row.retained_until = Some(at);
    row.removal = Some(RemovalReason::Expired);
    let body = RemovalRecord {
        backup: row.id.clone(),
        summary: Some(row.summary.clone()),
        reason: RemovalReason::Expired,
        gone: vec![SequenceRange { first: 1, last: row.sequence }],
    };
    facts.removals.push(record(100 + place as u8, at, body));
}

/// A job whose data is erased within three days, and goes after two: two backups are erased, the third is removed and
/// not yet swept, the fourth is due.
pub(crate) fn erasing() -> JobFacts {
    let mut facts = healthy();
    facts.promise.keep_at_least = Some(hours(24));
    facts.promise.delete_after = Some(hours(72));
    facts.promise.erasing_lead = Some(hours(24));
    remove(&mut facts, 0, before_now(hours(19)));
    remove(&mut facts, 1, before_now(hours(13)));
    remove(&mut facts, 2, before_now(hours(7)));
    facts.prunes = vec![
        prune(120, before_now(hours(18)), PruneOutcome::Done, Some(before_now(hours(20)))),
        prune(121, before_now(hours(12)), PruneOutcome::Done, Some(before_now(hours(13)))),
        prune(122, before_now(hours(7)), PruneOutcome::Done, Some(before_now(hours(8)))),
    ];
    facts
}

/// The same, with a stopped prune, a finding and a quarantine.
pub(crate) fn erasing_with_findings() -> JobFacts {
    let mut facts = erasing();
    facts.refutations.push(refutation(91, before_now(hours(4)), &facts.backups[7].id.clone(), 2));
    facts.prunes.push(prune(92, before_now(hours(3)), PruneOutcome::Stopped, None));
    facts.checks.push(check(94, before_now(hours(30)), CheckOutcome::Sound));
    facts.checks.push(check(95, before_now(hours(4)), CheckOutcome::Damaged));
    let gone = vec![SequenceRange { first: 9, last: 9 }, SequenceRange { first: 20, last: 22 }];
    facts.quarantines.push(record(93, before_now(hours(2)), QuarantineRecord { backup: None, gone }));
    facts
}

/// A job with one of most things that go wrong.
pub(crate) fn troubled() -> JobFacts {
    let mut facts = healthy();
    facts.promise.objectives.rpo = Some(hours(8));
    facts.scheduled_backups = (0..8).rev().map(|n| before_now(hours(3 + 6 * n))).collect();
    // One failed with the disk full, the next was never begun.
    facts.backups.drain(6..8);
    facts.runs.drain(6..8);
    facts.runs.insert(6, failed_run(before_now(hours(33)) + TimeDelta::minutes(1)));
    let latest = facts.backups.last().unwrap().id.clone();
    facts.drills.push(drill(60, &facts.backups[7].id, before_now(hours(2)), Duration::from_secs(4000)));
    facts.drills.last_mut().unwrap().drill.rto_met = false;
    facts.drills.last_mut().unwrap().drill.environment.cold_cache = false;
    refute(&mut facts, latest);
    facts.drills.sort_by_key(|row| row.drill.finished);
    facts
}
