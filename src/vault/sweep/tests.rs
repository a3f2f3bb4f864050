//! What stops a sweep, what holds it, what it condemns and deletes, and how far it says that it came.

use std::sync::Arc;

use bytes::Bytes;

use super::garbage::{Doomed, Garbage};
use super::*;
use crate::clock::ManualClock;
use crate::domain::claim::{CLAIM_HOLDS, CLAIM_TYPE, CLAIM_VERSION, CLOCK_TOLERANCE, Claim};
use crate::domain::ids::{KeyedId, ManifestHash, RecordId, RunId, VaultId};
use crate::domain::record::{
    CondemnedRecord, DrillEnvironment, DrillOutcome, DrillRecord, PruneOutcome, PruneRecord, QuarantineRecord,
    RECORD_VERSION, Record, RemovalReason, RemovalRecord, RunOutcome, RunRecord, SequenceRange,
};
use crate::storage::memory::Memory;
use crate::vault::claims::write_claim;
use crate::vault::keys::SigningKey;
use crate::vault::layout::object_id;
use crate::vault::lists::{ListedSegment, encode};
use crate::vault::manifests::tests::{manifest, start, trust};
use crate::vault::manifests::{SignedManifest, commit_manifest, sign_manifest};
use crate::vault::records::{details_id, write_record};
use crate::vault::signing::sign;

const GRACE: TimeDelta = TimeDelta::hours(24);

struct Vault {
    clock: Arc<ManualClock>,
    store: Memory,
    key: SigningKey,
    records: u8,
}

impl Vault {
    /// An empty one, ten hours after [`start`]: manifests 1 to 9 of the tests are of the past.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(start() + TimeDelta::hours(10)));
        Self { store: Memory::new(clock.clone()), clock, key: SigningKey::generate(), records: 0 }
    }

    fn now(&self) -> DateTime<Utc> {
        crate::clock::Clock::now(&*self.clock)
    }

    fn wait(&self, by: TimeDelta) {
        self.clock.advance(by.to_std().unwrap());
    }

    async fn put(&self, key: Key, bytes: impl Into<Bytes>) {
        self.store.replace(&key.to_string(), bytes.into()).await.unwrap();
    }

    /// An object with this text in it.
    async fn object(&self, text: &str) -> ObjectId {
        let id = object_id(text.as_bytes());
        self.put(Key::Object(id), text.as_bytes().to_vec()).await;
        id
    }

    async fn list(&self, objects: &[ObjectId]) -> ObjectId {
        let line = |object: &ObjectId| ListedSegment { object: *object, stored_bytes: 1, id: KeyedId([0; 32]) };
        let (id, bytes) = encode(&objects.iter().map(line).collect::<Vec<_>>());
        self.put(Key::List(id), bytes).await;
        id
    }

    /// A backup of `shop` that names one object of its own, one list and one contents.
    async fn backup(&self, sequence: u64, previous: Option<ManifestHash>) -> (SignedManifest, ObjectId, ObjectId) {
        let object = self.object(&format!("object {sequence}")).await;
        let list = self.list(&[object]).await;
        let mut manifest = manifest("shop", sequence, previous);
        manifest.sources[0].lists = vec![list];
        manifest.sources[0].contents = vec![self.object(&format!("contents {sequence}")).await];
        let signed = sign_manifest(&manifest, &self.key);
        commit_manifest(&self.store, &signed).await.unwrap();
        (signed, list, object)
    }

    async fn record(&mut self, body: RecordBody) -> RecordName {
        self.records += 1;
        let record = self.unsigned(body);
        write_record(&self.store, &self.key, &record, None).await.unwrap()
    }

    fn unsigned(&self, body: RecordBody) -> Record {
        Record {
            version: RECORD_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            id: RecordId::from_random([self.records; 8]),
            host: "web-1".into(),
            tool: "lifeboat 0.1.0".into(),
            recorded: self.now(),
            body,
            details: None,
        }
    }

    async fn quarantine(&mut self, backup: Option<BackupId>, gone: Vec<SequenceRange>) {
        self.record(RecordBody::Quarantine(QuarantineRecord { backup, gone })).await;
    }

    async fn removal(&mut self, signed: &SignedManifest, gone: Vec<SequenceRange>) {
        let removal =
            RemovalRecord { backup: signed.name.id.clone(), summary: None, reason: RemovalReason::Expired, gone };
        self.record(RecordBody::Removal(Box::new(removal))).await;
    }

    async fn prune(&mut self, outcome: PruneOutcome, clean_through: Option<DateTime<Utc>>) {
        let (started, finished) = (self.now() - TimeDelta::minutes(1), self.now());
        self.record(RecordBody::Prune(PruneRecord {
            outcome,
            started,
            finished,
            duration_seconds: 60.0,
            removed_backups: 0,
            condemned_objects: 0,
            deleted_objects: 0,
            deleted_bytes: 0,
            clean_through,
            error_code: None,
        }))
        .await;
    }

    fn claim(&self, run: u8) -> Claim {
        Claim {
            kind: CLAIM_TYPE.into(),
            version: CLAIM_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            run: RunId::from_random([run; 8]),
            number: 1,
            host: "web-1".into(),
            since: self.now() - CLOCK_TOLERANCE,
            until: self.now() + CLAIM_HOLDS,
            bases: Vec::new(),
            lists: Vec::new(),
            contents: Vec::new(),
        }
    }

    async fn stock(&self) -> Stock {
        take_stock(&self.store.another_handle(), &trust(&self.key), None).await.unwrap()
    }

    async fn garbage(&self) -> Garbage {
        self.stock().await.garbage(&self.store, &trust(&self.key), GRACE, &BTreeMap::new()).await.unwrap()
    }

    async fn condemn(&mut self, garbage: &Garbage) -> Vec<RecordName> {
        let mut names = Vec::new();
        for condemned in &garbage.to_condemn {
            names.push(self.record(RecordBody::Condemned(condemned.clone())).await);
        }
        names
    }

    async fn delete(&self, garbage: &Garbage) -> Deletion {
        delete(&self.store.another_handle(), garbage, &|_| {}).await.unwrap()
    }

    async fn has(&self, key: Key) -> bool {
        self.store.size(&key.to_string()).await.unwrap().is_some()
    }

    async fn stops(&self) -> Vec<String> {
        let stock = self.stock().await;
        if !stock.stops().is_empty() {
            let garbage = self.garbage().await;
            assert_eq!(garbage, Garbage { claims_read: garbage.claims_read, ..garbage_of_nothing(garbage.taken) });
        }
        stock.stops().iter().map(|stop| format!("{stop}; {}", stop.hint())).collect()
    }
}

fn garbage_of_nothing(taken: DateTime<Utc>) -> Garbage {
    Garbage {
        taken,
        listed: taken,
        claims_read: taken,
        to_condemn: Vec::new(),
        to_condemn_bytes: 0,
        to_delete: Vec::new(),
        waiting: 0,
        held: 0,
        used: Vec::new(),
        spent: Vec::new(),
        leftovers: Vec::new(),
        clean_through: None,
    }
}

#[tokio::test]
async fn garbage_is_condemned_then_deleted_then_forgotten() {
    let mut vault = Vault::new();
    let (signed, list, object) = vault.backup(1, None).await;
    let stray = vault.object("stray").await;
    let stray_list = vault.list(&[stray, object]).await;
    vault.put(Key::Stray("objects/notes.txt".into()), "mine").await;

    let garbage = vault.garbage().await;
    assert_eq!(garbage.to_condemn, [CondemnedRecord { objects: vec![stray], lists: vec![stray_list] }]);
    assert_eq!((garbage.to_delete.len(), garbage.to_condemn_count()), (0, 2));
    let names = vault.condemn(&garbage).await;

    vault.wait(GRACE - TimeDelta::seconds(1));
    let early = vault.garbage().await;
    assert_eq!((early.to_condemn.len(), early.to_delete.len(), early.waiting), (0, 0, 2));
    vault.wait(TimeDelta::seconds(2));
    let garbage = vault.garbage().await;
    assert_eq!(garbage.to_delete.iter().map(|doomed| doomed.id).collect::<Vec<_>>(), [stray_list, stray]);
    let deletion = vault.delete(&garbage).await;
    assert_eq!((deletion.objects, deletion.bytes, deletion.left), (2, garbage.to_delete_bytes(), 0));
    assert_eq!(vault.delete(&garbage).await.objects, 0, "again, nothing is left to do");
    for key in [Key::Object(object), Key::List(list), Key::Manifest(signed.name), Key::Record(names[0].clone())] {
        assert!(vault.has(key).await);
    }
    assert!(!vault.has(Key::Object(stray)).await && !vault.has(Key::List(stray_list)).await);

    vault.wait(GRACE - TimeDelta::seconds(1));
    vault.delete(&vault.garbage().await).await;
    assert!(vault.has(Key::Record(names[0].clone())).await, "whoever deletes by an older stock may still be at it");
    vault.wait(TimeDelta::seconds(2));
    vault.delete(&vault.garbage().await).await;
    assert!(!vault.has(Key::Record(names[0].clone())).await);
    assert!(!vault.has(Key::RecordSignature(names[0].clone())).await);
    assert!(vault.has(Key::Stray("objects/notes.txt".into())).await);
}

#[tokio::test]
async fn a_record_is_dated_by_the_store_where_its_own_time_is_earlier() {
    let vault = Vault::new();
    vault.object("stray").await;
    let garbage = vault.garbage().await;
    let mut record = vault.unsigned(RecordBody::Condemned(garbage.to_condemn[0].clone()));
    record.recorded -= GRACE * 2;
    record.recorded = record.recorded.max(start() - TimeDelta::hours(20));
    write_record(&vault.store, &vault.key, &record, None).await.unwrap();
    assert_eq!(vault.garbage().await.to_delete, []);
    vault.wait(GRACE);
    assert_eq!(vault.garbage().await.to_delete.len(), 1);
}

#[tokio::test]
async fn a_stock_that_has_grown_old_deletes_nothing() {
    let mut vault = Vault::new();
    let stray = vault.object("stray").await;
    let garbage = vault.garbage().await;
    vault.condemn(&garbage).await;
    vault.wait(GRACE);
    let garbage = vault.garbage().await;
    vault.wait(STOCK_HOLDS + TimeDelta::seconds(1));
    assert_eq!(vault.delete(&garbage).await, Deletion { left: 1, ..Deletion::default() });
    assert!(vault.has(Key::Object(stray)).await);
}

#[tokio::test]
async fn what_is_named_again_meanwhile_is_not_deleted() {
    let mut vault = Vault::new();
    let object = vault.object("object 1").await;
    let garbage = vault.garbage().await;
    vault.condemn(&garbage).await;
    vault.backup(1, None).await;
    vault.wait(GRACE * 2);
    let garbage = vault.garbage().await;
    assert_eq!((garbage.to_delete.len(), garbage.spent.len(), garbage.waiting), (0, 0, 0));
    assert!(vault.has(Key::Object(object)).await);
}

#[tokio::test]
async fn a_manifest_that_is_not_believed_stops_until_it_is_quarantined_and_keeps_what_it_names() {
    let mut vault = Vault::new();
    let (one, ..) = vault.backup(1, None).await;
    let (two, list, object) = vault.backup(2, Some(one.hash)).await;
    let (three, ..) = vault.backup(3, Some(two.hash)).await;
    vault.object("stray").await;
    assert!(vault.stops().await.is_empty());

    // Damaged so that it is not even JSON.
    let mut broken = two.document.to_vec();
    broken[0] = b'?';
    vault.put(Key::Manifest(two.name.clone()), broken).await;
    let stops = vault.stops().await;
    assert_eq!(stops.len(), 2, "{stops:?}");
    assert!(
        stops[0].contains("does not match its bytes") && stops[0].contains("`lifeboat quarantine 0000000000000002`")
    );
    assert!(stops[1].contains("sequence number 2") && stops[1].contains("`lifeboat quarantine shop#2`"), "{stops:?}");

    vault.quarantine(Some(two.name.id.clone()), Vec::new()).await;
    assert!(vault.stops().await.is_empty(), "its number is explained by it, too");
    let stock = vault.stock().await;
    assert_eq!(stock.survey().quarantined.len(), 1);
    assert_eq!(stock.survey().gone[&three.name.job], [SequenceRange { first: 2, last: 2 }]);
    let garbage = vault.garbage().await;
    assert_eq!(garbage.to_condemn_count(), 1, "the stray and nothing else");
    assert!(!garbage.to_condemn[0].lists.contains(&list) && !garbage.to_condemn[0].objects.contains(&object));
    let over = |stock: &Stock| stock.quarantines_over(&three.name.job, TimeDelta::days(30)).count();
    assert_eq!(over(&stock), 0);
    vault.wait(TimeDelta::days(30));
    // Whoever puts it there again does not make it stay.
    let key = Key::Manifest(two.name.clone()).to_string();
    let bytes = vault.store.get(&key, 1_000_000).await.unwrap();
    vault.store.replace(&key, bytes).await.unwrap();
    assert_eq!(over(&vault.stock().await), 1);

    // It is removed: its number stays explained.
    vault.removal(&two, stock.survey().gone[&three.name.job].clone()).await;
    assert_eq!(vault.stock().await.survey().removed, std::slice::from_ref(&two.name));
    remove_manifest(&vault.store, &two.name).await.unwrap();
    remove_manifest(&vault.store, &two.name).await.unwrap();
    assert!(vault.stops().await.is_empty());
    assert_eq!(vault.garbage().await.to_condemn_count(), 4);
}

#[tokio::test]
async fn a_missing_manifest_stops_until_a_person_acknowledges_its_number() {
    let mut vault = Vault::new();
    let (one, ..) = vault.backup(1, None).await;
    let (two, ..) = vault.backup(2, Some(one.hash)).await;
    vault.backup(3, Some(two.hash)).await;
    remove_manifest(&vault.store, &two.name).await.unwrap();
    assert_eq!(vault.stops().await.len(), 1);
    vault.quarantine(None, vec![SequenceRange { first: 2, last: 2 }]).await;
    assert!(vault.stops().await.is_empty());
}

#[tokio::test]
async fn a_backup_from_the_future_stops() {
    let vault = Vault::new();
    let (one, ..) = vault.backup(1, None).await;
    vault.backup(12, Some(one.hash)).await;
    let stops = vault.stops().await;
    assert!(stops.len() == 1 && stops[0].contains("it is dated 2026-11-22 14:00:00.500 UTC"), "{stops:?}");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_stops_until_its_backups_are_quarantined() {
    for is_missing in [false, true] {
        let mut vault = Vault::new();
        let (one, list, _) = vault.backup(1, None).await;
        if is_missing {
            vault.store.delete(&Key::List(list).to_string()).await.unwrap();
        } else {
            vault.put(Key::List(list), "rot").await;
        }
        let stops = vault.stops().await;
        assert_eq!(stops.len(), 1, "{stops:?}");
        assert!(stops[0].contains("`lifeboat quarantine 0000000000000001`"), "{stops:?}");
        vault.quarantine(Some(one.name.id), Vec::new()).await;
        assert!(vault.stops().await.is_empty());
        let garbage = vault.garbage().await;
        assert_eq!(garbage.to_condemn.iter().map(|record| record.lists.len()).sum::<usize>(), 0);
        assert_eq!(garbage.to_condemn_count(), 1, "what the list named cannot be known, and was let go");
    }
}

#[tokio::test]
async fn a_record_of_an_unknown_kind_or_version_stops_and_one_of_a_stranger_does_not() {
    let vault = Vault::new();
    let plant = |key: SigningKey, folder: &'static str, field: &'static str, value: serde_json::Value| {
        let mut document = serde_json::to_value(
            vault.unsigned(RecordBody::Condemned(CondemnedRecord { objects: Vec::new(), lists: Vec::new() })),
        )
        .unwrap();
        document[field] = value;
        let document = serde_json::to_vec(&document).unwrap();
        let signature = sign(&key, &document, "lifeboat-something");
        let key: Key = Key::parse(&format!("records/{folder}/20261122T020100Z-0101010101010101.json"));
        let Key::Record(name) = key else { panic!("no record") };
        let vault = &vault;
        async move {
            vault.put(Key::RecordSignature(name.clone()), signature).await;
            vault.put(Key::Record(name), document).await;
        }
    };
    plant(SigningKey::generate(), "novelties", "type", "novelty".into()).await;
    plant(SigningKey::generate(), "condemned", "version", 2.into()).await;
    assert!(vault.stops().await.is_empty());
    let own = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        vault.key.write_new(&path, "host").unwrap();
        SigningKey::read(&path).unwrap()
    };
    plant(own(), "novelties", "type", "novelty".into()).await;
    plant(own(), "runs", "version", 2.into()).await;
    let stops = vault.stops().await;
    assert_eq!(stops.len(), 2, "{stops:?}");
    assert!(stops.iter().all(|stop| stop.contains("install the newer lifeboat")), "{stops:?}");
}

#[tokio::test]
async fn a_live_claim_covers_its_base_and_what_is_stored_since_and_a_lapsed_one_does_not() {
    let vault = Vault::new();
    let old = vault.object("old").await;
    let (base, contents) = (vault.object("base").await, vault.object("contents").await);
    let list = vault.list(&[base]).await;
    vault.wait(TimeDelta::hours(1));
    let mut claim = vault.claim(1);
    (claim.lists, claim.contents) = (vec![list, ObjectId([9; 32])], vec![contents]);
    write_claim(&vault.store, &claim).await.unwrap();
    vault.object("new").await;
    let garbage = vault.garbage().await;
    assert_eq!(garbage.to_condemn, [CondemnedRecord { objects: vec![old], lists: Vec::new() }]);
    assert_eq!(garbage.clean_through, None, "the run holds what no backup names");
    vault.wait(CLAIM_HOLDS + TimeDelta::seconds(1));
    let garbage = vault.garbage().await;
    assert_eq!((garbage.to_condemn_count(), garbage.leftovers.len()), (5, 0));
    vault.wait(CLAIM_HOLDS_AT_MOST);
    assert_eq!(vault.garbage().await.leftovers, ["claims/shop/0101010101010101-1.json"]);
}

#[tokio::test]
async fn a_claim_that_cannot_be_read_holds_everything_until_it_lapses() {
    let vault = Vault::new();
    vault.object("stray").await;
    vault.put(Key::parse("claims/shop/0202020202020202-1.json"), "{").await;
    let stock = vault.stock().await;
    assert_eq!(stock.held_until(), Some(vault.now() + CLAIM_HOLDS_AT_MOST));
    assert_eq!(stock.stops(), []);
    assert_eq!(vault.garbage().await, garbage_of_nothing(vault.now()));
    vault.wait(CLAIM_HOLDS_AT_MOST + TimeDelta::seconds(1));
    let garbage = vault.garbage().await;
    assert_eq!((garbage.to_condemn_count(), garbage.leftovers.len()), (1, 1));
    vault.delete(&garbage).await;
    assert_eq!(vault.garbage().await.leftovers.len(), 0);
}

#[tokio::test]
async fn signatures_and_details_without_a_document_go_after_a_day() {
    let vault = Vault::new();
    let orphans = [
        "backups/shop/20261122T090000Z-00000000000000ff.json.minisig",
        "records/runs/20261122T090000Z-00000000000000ff.details.age",
        "records/runs/20261122T090000Z-00000000000000ff.json.minisig",
    ];
    for orphan in orphans {
        vault.put(Key::parse(orphan), "x").await;
    }
    assert!(vault.garbage().await.leftovers.is_empty());
    vault.wait(TimeDelta::hours(24));
    let mut leftovers = vault.garbage().await.leftovers;
    leftovers.sort();
    assert_eq!(leftovers, orphans);
    write_claim(&vault.store, &vault.claim(1)).await.unwrap();
    assert!(!vault.garbage().await.leftovers.contains(&orphans[0].to_owned()), "a run of the job is under way");
}

#[tokio::test]
async fn sealed_details_go_with_their_jobs_data() {
    let vault = Vault::new();
    let sealed = Bytes::from_static(b"sealed");
    let run = RunRecord {
        outcome: RunOutcome::Success,
        started: vault.now(),
        finished: vault.now(),
        duration_seconds: 1.0,
        backup: None,
        logical_bytes: 0,
        stored_bytes: 0,
        new_bytes: 0,
        errors: 0,
        error_code: None,
    };
    let record = Record { details: Some(details_id(&sealed)), ..vault.unsigned(RecordBody::Run(run)) };
    let name = write_record(&vault.store, &vault.key, &record, Some(sealed)).await.unwrap();
    let job = |name: &str| name.parse::<JobName>().unwrap();
    let delete_after = BTreeMap::from([(job("shop"), TimeDelta::days(30)), (job("blog"), TimeDelta::days(10))]);
    let leftovers = |jobs: BTreeMap<JobName, TimeDelta>| {
        let vault = &vault;
        async move {
            let stock = vault.stock().await;
            stock.garbage(&vault.store, &trust(&vault.key), GRACE, &jobs).await.unwrap().leftovers
        }
    };
    vault.wait(TimeDelta::days(29));
    assert!(leftovers(delete_after.clone()).await.is_empty());
    vault.wait(TimeDelta::days(1));
    assert_eq!(leftovers(delete_after.clone()).await, [Key::RecordDetails(name).to_string()]);
    // Of a job that the config does not have they go with the longest.
    assert!(leftovers(BTreeMap::from([(job("blog"), TimeDelta::days(31))])).await.is_empty());
    assert_eq!(leftovers(BTreeMap::from([(job("blog"), TimeDelta::days(10))])).await.len(), 1);
}

#[tokio::test]
async fn details_of_a_drill_are_as_old_as_its_backup_and_of_unknown_jobs_go_with_the_longest() {
    let mut vault = Vault::new();
    let point = vault.now() - TimeDelta::days(20);
    let details = Bytes::from_static(b"sealed");
    let mut names = Vec::new();
    for (job, id) in [("shop", 1), ("gone", 2)] {
        vault.records = id;
        let mut record = vault.unsigned(RecordBody::Drill(drill(point, vault.now())));
        record.job = job.parse().unwrap();
        record.details = Some(details_id(&details));
        names.push(write_record(&vault.store, &vault.key, &record, Some(details.clone())).await.unwrap());
    }
    let delete_after = BTreeMap::from([
        ("shop".parse().unwrap(), TimeDelta::days(30)),
        ("blog".parse().unwrap(), TimeDelta::days(35)),
    ]);
    let leftovers = || async {
        let stock = vault.stock().await;
        stock.garbage(&vault.store, &trust_all(&vault.key), GRACE, &delete_after).await.unwrap().leftovers
    };
    let key = |place: usize| Key::RecordDetails(names[place].clone()).to_string();
    vault.wait(TimeDelta::days(10) - TimeDelta::minutes(1));
    assert!(leftovers().await.is_empty());
    vault.wait(TimeDelta::minutes(1));
    assert_eq!(leftovers().await, [key(0)]);
    vault.wait(TimeDelta::days(5));
    let both = leftovers().await;
    assert!(both.contains(&key(0)) && both.contains(&key(1)) && both.len() == 2, "{both:?}");
}

fn trust_all(key: &SigningKey) -> TrustDocument {
    let mut trust = trust(key);
    trust.hosts.iter_mut().for_each(|host| host.jobs = vec![crate::vault::trust::JobPattern::Any]);
    trust
}

fn drill(point: DateTime<Utc>, at: DateTime<Utc>) -> DrillRecord {
    DrillRecord {
        outcome: DrillOutcome::Passed,
        backup: None,
        recovery_point: Some(point),
        started: at,
        finished: at,
        rto_seconds: 1.0,
        rto_objective_seconds: None,
        rto_met: true,
        rpo_seconds: None,
        phases: Vec::new(),
        checks_passed: 1,
        checks_failed: 0,
        refutes_backup: false,
        error_code: None,
        restored_bytes: 1,
        environment: DrillEnvironment {
            cores: 1,
            storage: "memory".into(),
            confinement: "none-run".into(),
            cold_cache: false,
            servers: Vec::new(),
            opened_for: Vec::new(),
        },
    }
}

#[tokio::test]
async fn what_a_run_under_way_may_have_stored_proves_nothing_gone_since_it_began() {
    let vault = Vault::new();
    vault.backup(1, None).await;
    let claim = vault.claim(1);
    write_claim(&vault.store, &claim).await.unwrap();
    assert_eq!(vault.garbage().await.clean_through, Some(vault.now()), "nothing was stored since");
    vault.wait(TimeDelta::minutes(30));
    vault.object("of the run, or of a backup that came and went").await;
    let garbage = vault.garbage().await;
    assert_eq!((garbage.held, garbage.clean_through), (1, Some(claim.since - CLOCK_TOLERANCE)));
    assert_eq!(vault.stock().await.live_claims(), [claim]);
}

#[tokio::test]
async fn a_stock_that_took_long_may_be_deleted_by_and_no_deletion_is_late() {
    let vault = Vault::new();
    let object = vault.object("stray").await;
    let doomed = Doomed { id: object, is_list: false, size_bytes: 5 };
    let taken = vault.now();
    let garbage = |claims_read| Garbage { claims_read, to_delete: vec![doomed], ..garbage_of_nothing(taken) };
    vault.wait(STOCK_HOLDS + TimeDelta::minutes(30));
    // Each deletion looks at the clock, not only the first of many.
    let mut deletion = Deletion::default();
    let late = garbage(taken);
    super::delete::delete_all(&vault.store, &late, &late.to_delete, &mut deletion, &|_| {}).await.unwrap();
    assert_eq!((deletion.objects, deletion.left), (0, 1));
    assert_eq!(vault.delete(&garbage(taken + TimeDelta::minutes(45))).await.objects, 1, "the listing took its time");
    vault.object("stray").await;
    vault.wait(TimeDelta::hours(1));
    assert_eq!(vault.delete(&garbage(vault.now())).await.left, 1, "a list of names may be forgotten by now");
}

#[tokio::test]
async fn clean_through_is_before_the_removals_whose_garbage_is_still_there() {
    let mut vault = Vault::new();
    let (one, ..) = vault.backup(1, None).await;
    let (two, ..) = vault.backup(2, Some(one.hash)).await;
    vault.backup(3, Some(two.hash)).await;
    assert_eq!(vault.garbage().await.clean_through, Some(vault.now()));
    vault.wait(TimeDelta::hours(1));

    let first_removal = vault.now();
    vault.removal(&one, vec![SequenceRange { first: 1, last: 1 }]).await;
    assert_eq!(vault.garbage().await.clean_through, None, "its manifest is still there");
    remove_manifest(&vault.store, &one.name).await.unwrap();
    vault.wait(TimeDelta::minutes(1));
    let garbage = vault.garbage().await;
    assert!(garbage.clean_through.unwrap() < first_removal);
    vault.condemn(&garbage).await;
    vault.wait(TimeDelta::minutes(1));
    vault.prune(PruneOutcome::Done, garbage.clean_through).await;

    vault.wait(TimeDelta::hours(20));
    let second_removal = vault.now();
    vault.removal(&two, vec![SequenceRange { first: 1, last: 2 }]).await;
    remove_manifest(&vault.store, &two.name).await.unwrap();
    vault.wait(TimeDelta::minutes(1));
    let garbage = vault.garbage().await;
    assert!(garbage.clean_through.unwrap() < first_removal, "what was condemned first still waits");
    vault.condemn(&garbage).await;
    vault.prune(PruneOutcome::Failed, None).await;

    vault.wait(TimeDelta::hours(5));
    let garbage = vault.garbage().await;
    let clean = garbage.clean_through.unwrap();
    assert!(first_removal <= clean && clean < second_removal, "{clean}");
    vault.delete(&garbage).await;
    assert_eq!(vault.garbage().await.clean_through, Some(clean), "nothing has changed");
    vault.wait(GRACE);
    let garbage = vault.garbage().await;
    assert_eq!((garbage.clean_through, garbage.to_delete.len()), (Some(vault.now()), 3));
}

#[tokio::test]
async fn a_removal_of_one_job_explains_nothing_in_another_and_the_newest_one_is_enough() {
    let mut vault = Vault::new();
    let mut committed: Vec<SignedManifest> = Vec::new();
    for sequence in 1..=5 {
        committed.push(vault.backup(sequence, committed.last().map(|signed| signed.hash)).await.0);
    }
    for index in 0..3u64 {
        let signed = committed[index as usize].clone();
        vault.removal(&signed, vec![SequenceRange { first: 1, last: index + 1 }]).await;
        remove_manifest(&vault.store, &signed.name).await.unwrap();
        vault.wait(TimeDelta::minutes(1));
    }
    let blog = sign_manifest(&manifest("blog", 2, Some(ManifestHash([7; 32]))), &vault.key);
    commit_manifest(&vault.store, &blog).await.unwrap();
    let survey = vault.stock().await.survey().clone();
    assert_eq!(survey.problems.len(), 1, "{:?}", survey.problems);
    assert_eq!(survey.problems[0].job.as_str(), "blog");
    assert_eq!((survey.next_sequence(&"shop".parse().unwrap()), survey.manifests.len()), (6, 3));
}

#[tokio::test]
async fn condemned_lists_hold_each_name_once_and_not_too_many() {
    for count in [0, 1, 8192, 8193, 20_000] {
        let doomed = |n: u64| super::garbage::Doomed {
            id: object_id(&n.to_le_bytes()),
            is_list: n.is_multiple_of(7),
            size_bytes: 1,
        };
        let records = super::garbage::chunks((0..count).map(doomed).collect());
        assert_eq!(records.len(), (count as usize).div_ceil(CondemnedRecord::MAX_NAMES));
        let names: BTreeSet<_> = records.iter().flat_map(|record| record.objects.iter().chain(&record.lists)).collect();
        assert_eq!(names.len() as u64, count);
        let Some(longest) = records.into_iter().next() else { continue };
        let vault = Vault::new();
        let record = vault.unsigned(RecordBody::Condemned(longest));
        let name = write_record(&vault.store, &vault.key, &record, None).await.unwrap();
        read_record(&vault.store, &trust(&vault.key), &name).await.unwrap();
    }
}
