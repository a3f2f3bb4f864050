//! The catalog against a plain model of it, against files that are none, and against its neighbours.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;
use crate::domain::contents::NoteClass;
use crate::domain::ids::{BackupId, JobName, ManifestHash, ObjectId, RecordId};
use crate::domain::manifest::{Completeness, MANIFEST_TYPE, MANIFEST_VERSION, Manifest, SourceEntry};
use crate::domain::record::{
    CheckOutcome, CheckRecord, CondemnedRecord, DrillEnvironment, DrillOutcome, DrillRecord, Finder, Phase,
    PruneOutcome, PruneRecord, QuarantineRecord, RECORD_VERSION, Record, RecordBody, RefutationRecord, RemovalReason,
    RemovalRecord, RunOutcome, RunRecord, SequenceRange,
};

fn moment(offset_nanos: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap() + TimeDelta::nanoseconds(offset_nanos)
}

fn vault(number: u8) -> VaultId {
    VaultId::from_random([number; 8])
}

fn job(number: u8) -> JobName {
    format!("job{number}").parse().unwrap()
}

fn manifest(vault_number: u8, job_number: u8, number: u8, nanos: i64) -> Manifest {
    Manifest {
        kind: MANIFEST_TYPE.to_owned(),
        version: MANIFEST_VERSION,
        vault: vault(vault_number),
        job: job(job_number),
        id: BackupId::from_random([number; 8]),
        sequence: u64::from(number),
        completeness: if number.is_multiple_of(5) { Completeness::Partial } else { Completeness::Complete },
        host: "web-1".to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        started: moment(nanos),
        committed: moment(nanos + 1_234_567_891),
        recovery_point: moment(nanos + 1),
        recipient_set: "ab".repeat(32),
        recipients: vec!["age1x".to_owned(), "age1'y\"".to_owned()],
        previous: (number > 1).then_some(ManifestHash([number - 1; 32])),
        sources: vec![SourceEntry {
            name: "db".parse().unwrap(),
            kind: "sqlite".to_owned(),
            recovery_point: moment(nanos + 1),
            lists: vec![ObjectId([1; 32])],
            contents: vec![],
            logical_bytes: 10 * u64::from(number),
            stored_bytes: 5,
            new_bytes: 3,
            segments: 2,
            new_segments: 1,
            notes: BTreeMap::from([(NoteClass::Vanished, 2)]),
        }],
    }
}

fn record(vault_number: u8, job_number: u8, number: u8, nanos: i64) -> Record {
    let body = if number.is_multiple_of(2) {
        RecordBody::Run(RunRecord {
            outcome: if number.is_multiple_of(3) { RunOutcome::Failed } else { RunOutcome::Success },
            started: moment(nanos),
            finished: moment(nanos + 7),
            duration_seconds: f64::from(number) / 3.0,
            backup: (number > 3).then(|| BackupId::from_random([number; 8])),
            logical_bytes: 1,
            stored_bytes: 2,
            new_bytes: 3,
            errors: 4,
            error_code: number.is_multiple_of(3).then(|| "storage-full".to_owned()),
        })
    } else {
        RecordBody::Drill(DrillRecord {
            outcome: if number.is_multiple_of(3) { DrillOutcome::Failed } else { DrillOutcome::Passed },
            backup: (number > 3).then(|| BackupId::from_random([number; 8])),
            recovery_point: (number > 3).then(|| moment(nanos - 9)),
            started: moment(nanos),
            finished: moment(nanos + 9),
            rto_seconds: 0.1 + f64::from(number),
            rto_objective_seconds: (number > 5).then_some(3600.0),
            rto_met: number.is_multiple_of(3),
            rpo_seconds: (number > 3).then_some(1e-9),
            phases: vec![Phase { name: "fetch".to_owned(), seconds: 0.25 }],
            checks_passed: 3,
            checks_failed: u64::from(number.is_multiple_of(3)),
            refutes_backup: number.is_multiple_of(9),
            error_code: None,
            restored_bytes: 99,
            environment: DrillEnvironment {
                cores: 2,
                storage: "folder".to_owned(),
                confinement: "none-run".to_owned(),
                cold_cache: true,
                servers: Vec::new(),
                opened_for: Vec::new(),
            },
        })
    };
    Record {
        version: RECORD_VERSION,
        vault: vault(vault_number),
        job: job(job_number),
        id: RecordId::from_random([number; 8]),
        host: "web-1".to_owned(),
        tool: "lifeboat 0.1.0".to_owned(),
        recorded: moment(nanos + 10),
        body,
        details: number.is_multiple_of(4).then_some(ObjectId([number; 32])),
    }
}

/// Of backups that are told of twice, by their manifest and by their removal.
const NANOS: i64 = 5;

/// A record of what keeping and erasing does, of all kinds in turn; backups are told of by sevens.
fn keeping(vault_number: u8, job_number: u8, number: u8, nanos: i64) -> Record {
    let backup = BackupId::from_random([number / 7; 8]);
    let body = match number % 7 {
        6 if (number / 7).is_multiple_of(2) => RecordBody::Check(CheckRecord {
            outcome: CheckOutcome::Damaged,
            started: moment(nanos),
            finished: moment(nanos + 3),
            duration_seconds: 0.000_000_003,
            whole_vault: number > 60,
            read_data_percent: (number > 90).then_some(number),
            backups: 1,
            objects: 2,
            bytes: 3,
            opened_segments: 4,
            damaged: 5,
            error_code: (number > 120).then(|| "object-missing".to_owned()),
        }),
        0 | 1 => RecordBody::Removal(Box::new(RemovalRecord {
            backup,
            // No job has a number 0.
            summary: Some(number / 7)
                .filter(|number| *number > 0)
                .map(|number| manifest(vault_number, job_number, number, NANOS).summary(hash(number))),
            reason: if number.is_multiple_of(2) { RemovalReason::Expired } else { RemovalReason::Thinned },
            gone: vec![SequenceRange { first: 1, last: u64::from(number / 7) }],
        })),
        2 => RecordBody::Removal(Box::new(RemovalRecord {
            backup,
            summary: None,
            reason: RemovalReason::Quarantined,
            gone: vec![],
        })),
        3 => RecordBody::Condemned(CondemnedRecord { objects: vec![ObjectId([number; 32])], lists: vec![] }),
        4 => RecordBody::Refutation(RefutationRecord {
            found_by: Finder::Check,
            objects: vec![ObjectId([number; 32])],
            lists: vec![],
            backups: vec![backup],
            error_code: "object-damaged".to_owned(),
        }),
        5 => RecordBody::Quarantine(QuarantineRecord {
            backup: Some(backup),
            gone: vec![SequenceRange { first: 2, last: u64::MAX }],
        }),
        _ => RecordBody::Prune(PruneRecord {
            outcome: PruneOutcome::Stopped,
            started: moment(nanos),
            finished: moment(nanos + 5),
            duration_seconds: 0.000_000_005,
            removed_backups: 1,
            condemned_objects: 2,
            deleted_objects: 3,
            deleted_bytes: 4,
            clean_through: number.is_multiple_of(2).then(|| moment(nanos - 1)),
            error_code: Some("deletion-stopped".to_owned()),
        }),
    };
    Record { body, ..record(vault_number, job_number, number, nanos) }
}

fn hash(number: u8) -> ManifestHash {
    ManifestHash([number; 32])
}

/// Runs on a folder of its own.
fn with_folder<T, F: Future<Output = T>>(test: impl FnOnce(PathBuf) -> F) -> T {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(folder.path().join("catalog.db")))
}

/// Every answer about a vault.
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
}

async fn all(catalog: &Catalog, vault: &VaultId) -> Answers {
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
    }
}

#[test]
fn what_goes_in_comes_out_to_the_last_digit() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        let taken = manifest(1, 1, 7, 123_456_789);
        catalog.record_backup(&taken, hash(7)).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), Some(&job(1))).await.unwrap(), [BackupRow::of(&taken, hash(7))]);
        assert_eq!(catalog.backups(&vault(1), Some(&job(2))).await.unwrap(), []);
        assert_eq!(catalog.backups(&vault(2), None).await.unwrap(), []);
        for number in 1..=12 {
            let record = record(1, 1, number, i64::from(number));
            catalog.record(&record).await.unwrap();
            match record.body {
                RecordBody::Run(run) => {
                    let row = catalog.runs(&vault(1), Some(&job(1))).await.unwrap().pop().unwrap();
                    assert_eq!((row.run, row.id, row.details), (run, record.id, record.details));
                }
                RecordBody::Drill(drill) => {
                    let row = catalog.drills(&vault(1), Some(&job(1))).await.unwrap().pop().unwrap();
                    assert_eq!((row.drill, row.id, row.recorded), (drill, record.id, record.recorded));
                }
                other => panic!("{other:?} is not written here"),
            }
        }
        assert_eq!(catalog.vaults().await.unwrap(), [vault(1)]);
    });
}

#[test]
fn a_backup_can_be_told_of_from_its_removal_alone() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        let (taken, shape) = (manifest(1, 1, 2, NANOS), keeping(1, 1, 14, 0));
        catalog.record(&shape).await.unwrap();
        let gone = BackupRow {
            retained_until: Some(shape.recorded),
            removal: Some(RemovalReason::Expired),
            ..BackupRow::of(&taken, hash(2))
        };
        assert_eq!(catalog.backups(&vault(1), Some(&job(1))).await.unwrap(), std::slice::from_ref(&gone));
        // Its manifest may still lie beside the removal, and is learnt of later.
        catalog.record_backup(&taken, hash(2)).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap(), std::slice::from_ref(&gone));
        // A second host decided the same later: the first word stands.
        let again = Record { recorded: moment(99), id: RecordId::from_random([99; 8]), ..shape.clone() };
        catalog.record(&again).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap(), [gone]);
        assert_eq!(catalog.removals(&vault(1), None).await.unwrap().len(), 2);

        // What another job's record says of it is not taken.
        catalog.record_backup(&manifest(1, 1, 3, 0), hash(3)).await.unwrap();
        let mut meddling = keeping(1, 1, 21, 0);
        meddling.job = job(2);
        catalog.record(&meddling).await.unwrap();
        let rows = catalog.backups(&vault(1), None).await.unwrap();
        assert_eq!(rows.iter().filter(|row| row.retained_until.is_none()).count(), 1, "{rows:?}");
        assert_eq!(rows.len(), 2);
    });
}

#[test]
fn a_removal_does_not_rewrite_what_a_manifest_said() {
    with_folder(|path| async move {
        let mut lies = keeping(1, 1, 14, 0);
        for (number, summary) in [(1, Some(manifest(1, 1, 2, NANOS + 7).summary(hash(9)))), (2, None)] {
            let RecordBody::Removal(removal) = &mut lies.body else { panic!() };
            removal.summary = summary;
            lies.id = RecordId::from_random([number; 8]);
            let catalog = Catalog::open(&path.with_file_name(format!("{number}.db"))).await.unwrap();
            catalog.record_backup(&manifest(1, 1, 2, NANOS), hash(2)).await.unwrap();
            catalog.record(&lies).await.unwrap();
            let row = BackupRow {
                retained_until: Some(lies.recorded),
                removal: Some(RemovalReason::Expired),
                ..BackupRow::of(&manifest(1, 1, 2, NANOS), hash(2))
            };
            assert_eq!(catalog.backups(&vault(1), None).await.unwrap(), [row]);
        }
    });
}

#[test]
fn a_prune_says_nothing_of_a_time_that_had_not_come() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        let mut record = keeping(1, 1, 13, 0);
        let tolerance = crate::domain::claim::CLOCK_TOLERANCE;
        for (number, ahead, is_said) in [(1, tolerance, true), (2, tolerance + TimeDelta::seconds(1), false)] {
            let RecordBody::Prune(prune) = &mut record.body else { panic!() };
            prune.clean_through = Some(record.recorded + ahead);
            record.id = RecordId::from_random([number; 8]);
            catalog.record(&record).await.unwrap();
            let rows = catalog.prunes(&vault(1), None).await.unwrap();
            assert_eq!(rows.last().unwrap().body.clean_through.is_some(), is_said);
        }
    });
}

#[test]
fn what_was_not_believed_is_forgotten_once_it_is_judged_anew() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        let seen = [("records/runs/x.json".to_owned(), "3 bytes".to_owned())];
        catalog.judged(&vault(1), "serial 1").await.unwrap();
        catalog.did_not_believe(&vault(1), &seen).await.unwrap();
        catalog.judged(&vault(1), "serial 1").await.unwrap();
        assert_eq!(catalog.unbelieved(&vault(1)).await.unwrap(), seen.clone().into());
        assert_eq!(catalog.unbelieved(&vault(2)).await.unwrap().len(), 0);
        catalog.judged(&vault(1), "serial 2").await.unwrap();
        assert_eq!(catalog.judged_by(&vault(1)).await.unwrap().as_deref(), Some("serial 2"));
        assert_eq!(catalog.unbelieved(&vault(1)).await.unwrap().len(), 0);

        // A record is forgotten by its folder and id, a backup by its job and id.
        let run = record(1, 1, 3, 0);
        catalog.record(&run).await.unwrap();
        catalog.record(&keeping(1, 1, 4, 0)).await.unwrap();
        catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        for (folder, id) in catalog.known_records(&vault(1)).await.unwrap() {
            catalog.forget_record(&vault(1), "quarantines", &id).await.unwrap();
            assert!(catalog.known_records(&vault(1)).await.unwrap().contains(&(folder.clone(), id.clone())));
            catalog.forget_record(&vault(1), &folder, &id).await.unwrap();
        }
        assert_eq!(catalog.known_records(&vault(1)).await.unwrap().len(), 0);
        let id = BackupId::from_random([2; 8]);
        catalog.forget_backups(&vault(1), &[(job(2), id.clone())]).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap().len(), 1);
        catalog.forget_backups(&vault(1), &[(job(1), id)]).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap().len(), 0);
    });
}

#[test]
fn the_latest_word_on_a_backup_counts() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        let backup = BackupId::from_random([7; 8]);
        let ask = || async {
            let drills = catalog.drills(&vault(1), None).await.unwrap();
            verdict(&backup, &drills, &catalog.refutations(&vault(1), None).await.unwrap())
        };
        let passing = |id: u8, nanos: i64| {
            let mut drill = record(1, 1, 7, nanos);
            drill.id = RecordId::from_random([id; 8]);
            drill
        };
        assert_eq!(ask().await, Verdict::Unproven);
        catalog.record(&passing(1, 0)).await.unwrap();
        assert_eq!(ask().await, Verdict::Proven);
        let refutation = keeping(1, 1, 53, 100);
        assert!(matches!(&refutation.body, RecordBody::Refutation(found) if found.backups == [backup.clone()]));
        catalog.record(&refutation).await.unwrap();
        assert_eq!(ask().await, Verdict::Refuted);
        // At the same moment the worse word counts, later the better one.
        catalog.record(&passing(2, 101)).await.unwrap();
        assert_eq!(ask().await, Verdict::Refuted);
        catalog.record(&passing(3, 102)).await.unwrap();
        assert_eq!(ask().await, Verdict::Proven);
    });
}

#[test]
fn answers_are_in_the_order_of_time_whatever_the_fraction_of_a_second() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        for (number, nanos) in [(1, 1_500_000_000), (2, 2_000_000_000), (3, 1_500_000_001), (4, -1)] {
            catalog.record_backup(&manifest(1, 1, number, nanos), hash(number)).await.unwrap();
        }
        let order: Vec<u64> = catalog.backups(&vault(1), None).await.unwrap().iter().map(|row| row.sequence).collect();
        assert_eq!(order, [4, 1, 3, 2]);
    });
}

#[test]
fn what_was_seen_never_falls_and_survives_a_rebuild() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        assert_eq!(catalog.highest_seen(&vault(1), &job(1)).await.unwrap(), None);
        for sequence in [3, 9, 4] {
            catalog.saw(&vault(1), &job(1), sequence).await.unwrap();
        }
        catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        catalog.replace(&vault(1), &[], &[]).await.unwrap();
        assert_eq!(catalog.highest_seen(&vault(1), &job(1)).await.unwrap(), Some(9));
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap(), []);
        let refused = catalog.saw(&vault(1), &job(1), u64::MAX).await.unwrap_err();
        assert!(matches!(refused, CatalogError::TooLarge { .. }), "{refused}");
    });
}

#[test]
fn a_rebuild_with_something_of_another_vault_changes_nothing() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        let foreign = catalog.replace(&vault(1), &[(manifest(2, 1, 3, 0), hash(3))], &[]).await.unwrap_err();
        assert!(matches!(foreign, CatalogError::OtherVault { .. }), "{foreign}");
        let foreign = catalog.replace(&vault(1), &[], &[record(2, 1, 3, 0)]).await.unwrap_err();
        assert!(matches!(foreign, CatalogError::OtherVault { .. }), "{foreign}");
        let left: Vec<u64> = catalog.backups(&vault(1), None).await.unwrap().iter().map(|row| row.sequence).collect();
        assert_eq!(left, [2]);
        // A number that cannot be stored keeps nothing else from being stored.
        let mut absurd = manifest(1, 1, 4, 0);
        absurd.sequence = u64::MAX;
        let all = [(absurd, hash(4)), (manifest(1, 1, 3, 0), hash(3))];
        let passed_over = catalog.replace(&vault(1), &all, &[]).await.unwrap();
        assert!(matches!(&passed_over[..], [PassedOver { why: CatalogError::TooLarge { .. }, .. }]));
        let left: Vec<u64> = catalog.backups(&vault(1), None).await.unwrap().iter().map(|row| row.sequence).collect();
        assert_eq!(left, [3]);
    });
}

#[test]
fn the_file_is_private_and_stays_when_opened_again() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            let mode = std::fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        catalog.close().await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let again = Catalog::open(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(again.backups(&vault(1), None).await.unwrap().len(), 1);
    });
}

#[test]
fn files_that_are_no_catalog_are_refused_and_left_alone() {
    with_folder(|path| async move {
        let text = b"lorem ipsum dolor sit amet ".repeat(100);
        std::fs::write(&path, &text).unwrap();
        let error = Catalog::open(&path).await.unwrap_err();
        assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
        assert!(error.hint().unwrap().contains("lifeboat catalog rebuild"));
        assert_eq!(error.code(), Code::CatalogFailed);
        assert_eq!(std::fs::read(&path).unwrap(), text);

        let other = path.with_file_name("other.db");
        let options = SqliteConnectOptions::new().filename(&other).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("create table notes (body text)").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let before = std::fs::read(&other).unwrap();
        let error = Catalog::open(&other).await.unwrap_err();
        assert!(matches!(error, CatalogError::Foreign { .. }), "{error}");
        assert_eq!(std::fs::read(&other).unwrap(), before);

        let folder = path.with_file_name("folder");
        std::fs::create_dir(&folder).unwrap();
        assert!(Catalog::open(&folder).await.is_err());
        assert!(matches!(Catalog::open(&folder.join("no/such")).await, Err(CatalogError::Io { .. })));
    });
}

#[test]
fn a_catalog_of_the_first_shape_keeps_what_it_knows() {
    with_folder(|path| async move {
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let first: Vec<_> = MIGRATIONS.iter().take(1).cloned().collect();
        Migrator { migrations: first.into(), ..Migrator::DEFAULT }.run(&pool).await.unwrap();
        let taken = manifest(1, 1, 2, 0);
        for statement in [
            "insert into vaults values ('0101010101010101')".to_owned(),
            format!(
                "insert into backups values ('0101010101010101', '0202020202020202', 'job1', 2, 'complete', 'web-1',
                    'lifeboat 0.1.0', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', null)",
                taken.started.to_rfc3339(),
                taken.committed.to_rfc3339(),
                taken.recovery_point.to_rfc3339(),
                taken.recipient_set,
                serde_json::to_string(&taken.recipients).unwrap().replace('\'', "''"),
                hash(1),
                hash(2),
                serde_json::to_string(&taken.summary(hash(2)).sources).unwrap(),
            ),
            "insert into seen values ('0101010101010101', 'job1', 9)".to_owned(),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        }
        pool.close().await;
        let catalog = Catalog::open(&path).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap(), [BackupRow::of(&taken, hash(2))]);
        assert_eq!(catalog.highest_seen(&vault(1), &job(1)).await.unwrap(), Some(9));
        catalog.record(&keeping(1, 1, 14, 0)).await.unwrap();
        assert!(catalog.backups(&vault(1), None).await.unwrap()[0].removal.is_some());
    });
}

#[test]
fn a_newer_shape_and_a_damaged_page_are_named() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        for number in 1..=200 {
            catalog.record_backup(&manifest(1, 1, number, i64::from(number)), hash(number)).await.unwrap();
        }
        catalog.close().await;

        let newer = path.with_file_name("newer.db");
        std::fs::copy(&path, &newer).unwrap();
        let options = SqliteConnectOptions::new().filename(&newer);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (7001, 'from the future', true, x'00', 0)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        let error = Catalog::open(&newer).await.unwrap_err();
        assert!(matches!(error, CatalogError::Newer { version: 7001, .. }), "{error}");

        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 64].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let error = Catalog::open(&path).await.unwrap_err();
        assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
    });
}

#[test]
fn what_lifeboat_did_not_write_is_damage_and_not_a_panic() {
    with_folder(|path| async move {
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        for change in [
            "update backups set committed = 'yesterday'",
            "update backups set sources = '{}'",
            "update backups set sequence = -1",
        ] {
            let mut transaction = catalog.pool.begin().await.unwrap();
            sqlx::query(change).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
            let error = catalog.backups(&vault(1), None).await.unwrap_err();
            assert!(matches!(error, CatalogError::Corrupt { .. }), "{change}: {error}");
            catalog.record_backup(&manifest(1, 1, 2, 0), hash(2)).await.unwrap();
        }
    });
}

#[test]
fn many_open_and_write_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=6_u8 {
            let path = path.clone();
            tasks.spawn(async move {
                let catalog = Catalog::open(&path).await?;
                catalog.record_backup(&manifest(1, 1, number, 0), hash(number)).await?;
                catalog.saw(&vault(1), &job(1), u64::from(number)).await
            });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap().unwrap();
        }
        let catalog = Catalog::open(&path).await.unwrap();
        assert_eq!(catalog.backups(&vault(1), None).await.unwrap().len(), 6);
        assert_eq!(catalog.highest_seen(&vault(1), &job(1)).await.unwrap(), Some(6));
    });
}

/// Something that a host does to its catalog.
#[derive(Debug, Clone)]
enum Step {
    Backup {
        vault: u8,
        job: u8,
        number: u8,
    },
    Record {
        vault: u8,
        job: u8,
        number: u8,
        nanos: i64,
    },
    Keeping {
        vault: u8,
        job: u8,
        number: u8,
        nanos: i64,
    },
    Again,
    Reopen,
    /// With some of the vault's documents gone since.
    Rebuild {
        vault: u8,
        lost: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = (1_u8..3, 1_u8..3, 1_u8..30, 0_i64..3_000_000_000);
    prop_oneof![
        4 => place.clone().prop_map(|(vault, job, number, _)| Step::Backup { vault, job, number }),
        4 => place.prop_map(|(vault, job, number, nanos)| Step::Record { vault, job, number, nanos }),
        4 => (1_u8..3, 1_u8..3, 1_u8..210, 0_i64..3_000_000_000)
            .prop_map(|(vault, job, number, nanos)| Step::Keeping { vault, job, number, nanos }),
        2 => Just(Step::Again),
        1 => Just(Step::Reopen),
        1 => (1_u8..3, 0_usize..3).prop_map(|(vault, lost)| Step::Rebuild { vault, lost }),
    ]
}

/// What the vaults hold.
#[derive(Default)]
struct Model {
    manifests: BTreeMap<(VaultId, BackupId), (Manifest, ManifestHash)>,
    /// Types keep records of one id apart, as their folders do.
    records: BTreeMap<(VaultId, &'static str, RecordId), Record>,
}

impl Model {
    fn of(&self, vault: &VaultId) -> (Vec<(Manifest, ManifestHash)>, Vec<Record>) {
        let manifests = self.manifests.iter().filter(|(key, _)| key.0 == *vault).map(|(_, value)| value.clone());
        let records = self.records.iter().filter(|(key, _)| key.0 == *vault).map(|(_, value)| value.clone());
        (manifests.collect(), records.collect())
    }

    /// Takes a vault's first documents of each kind away.
    fn lose(&mut self, vault: &VaultId, count: usize) {
        let manifests: Vec<_> = self.manifests.keys().filter(|key| key.0 == *vault).take(count).cloned().collect();
        manifests.iter().for_each(|key| drop(self.manifests.remove(key)));
        for kind in RecordBody::TYPES {
            let of_kind = self.records.keys().filter(|key| key.0 == *vault && key.1 == kind);
            let records: Vec<_> = of_kind.take(count).cloned().collect();
            records.iter().for_each(|key| drop(self.records.remove(key)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_catalog_that_lived_equals_one_rebuilt(steps in proptest::collection::vec(any_step(), 1..25)) {
        with_folder(|path| async move {
            let mut lived = Catalog::open(&path).await.unwrap();
            let mut model = Model::default();
            let mut last = None;
            for step in steps {
                let step = if matches!(step, Step::Again) { last.clone() } else { Some(step) };
                match &step {
                    Some(Step::Backup { vault, job, number }) => {
                        let manifest = manifest(*vault, *job, *number, NANOS);
                        lived.record_backup(&manifest, hash(*number)).await.unwrap();
                        let key = (manifest.vault.clone(), manifest.id.clone());
                        model.manifests.insert(key, (manifest, hash(*number)));
                    }
                    Some(
                        Step::Record { vault, job, number, nanos } | Step::Keeping { vault, job, number, nanos },
                    ) => {
                        let record = match &step {
                            Some(Step::Record { .. }) => record(*vault, *job, *number, *nanos),
                            _ => keeping(*vault, *job, *number, *nanos),
                        };
                        lived.record(&record).await.unwrap();
                        let key = (record.vault.clone(), record.body.type_name(), record.id.clone());
                        model.records.insert(key, record);
                    }
                    Some(Step::Reopen) => {
                        lived.close().await;
                        lived = Catalog::open(&path).await.unwrap();
                    }
                    Some(Step::Rebuild { vault: number, lost }) => {
                        model.lose(&vault(*number), *lost);
                        let (manifests, records) = model.of(&vault(*number));
                        lived.replace(&vault(*number), &manifests, &records).await.unwrap();
                    }
                    Some(Step::Again) | None => {}
                }
                last = step;
            }
            let rebuilt = Catalog::open(&path.with_file_name("rebuilt.db")).await.unwrap();
            for number in 1..3 {
                let (mut manifests, records) = model.of(&vault(number));
                let removal = |manifest: &Manifest| {
                    let removals = records.iter().filter_map(|record| match &record.body {
                        RecordBody::Removal(removal) if record.job == manifest.job => Some((record, removal)),
                        _ => None,
                    });
                    let of_it = removals.filter(|(_, removal)| removal.backup == manifest.id);
                    of_it.min_by_key(|(record, _)| (record.recorded, record.id.clone())).map(|(_, removal)| removal)
                };
                let there = manifests.iter().filter(|(manifest, _)| removal(manifest).is_none()).count();
                // What was removed is gone from the vault, sooner or later, and its removal says what it was; but for
                // what nobody could believe, which no catalog was ever told of.
                manifests.retain(|(manifest, _)| removal(manifest).is_none_or(|removal| removal.summary.is_none()));
                rebuilt.replace(&vault(number), &manifests, &records).await.unwrap();
                let lived = all(&lived, &vault(number)).await;
                assert_eq!(lived, all(&rebuilt, &vault(number)).await);
                assert_eq!(lived.backups.iter().filter(|row| row.retained_until.is_none()).count(), there);
                let condemned = records.iter().filter(|r| matches!(r.body, RecordBody::Condemned(_))).count();
                assert_eq!(lived.known.len() + condemned, records.len());
            }
        });
    }
}
