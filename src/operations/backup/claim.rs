//! The claim of a run: nobody else backs the job up meanwhile, and no sweep takes what the run stored or may name.
//!
//! It is written before anything is named and looked at, renewed while the run goes on, held against the store's time
//! before the commit, and given up after it. A run that broke off leaves it behind, so that what its journal names
//! outlives the sweeps until the next run, which takes the place of its own host's older ones.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::super::host::Host;
use super::super::lock;
use super::super::vaults::OpenVault;
use crate::domain::claim::{CLAIM_HOLDS, CLAIM_HOLDS_AT_MOST, CLAIM_TYPE, CLAIM_VERSION, CLOCK_TOLERANCE, Claim};
use crate::domain::ids::{BackupId, JobName, ObjectId, RunId};
use crate::domain::manifest::Manifest;
use crate::error::{Code, Error, Result};
use crate::sources::Dated;
use crate::storage::Storage;
use crate::vault::VaultError;
use crate::vault::claims::{FoundClaim, GivenUp, give_up, read_claims, write_claim};
use crate::vault::layout::{ClaimName, Key};
use crate::vault::survey::Survey;

/// A claim is renewed this often: two attempts may fail before it lapses.
const RENEWED_EVERY: TimeDelta = TimeDelta::milliseconds(CLAIM_HOLDS.num_milliseconds() / 4);

/// A commit begins only with so much of the claim left: it is two writes and two syncs, on whatever store.
const COMMIT_MARGIN: TimeDelta = TimeDelta::minutes(15);

/// The store's time, once it is known that this host's clock agrees with it.
///
/// # Errors
/// [`Code::ClockWrong`], or the store's.
pub(in super::super) fn agreed_time(host: &Host, vault: &OpenVault) -> Result<DateTime<Utc>> {
    agree(host, vault, "tried")
}

/// Refuses to commit where the clock was set while the run went on: whose dates are in the future is not believed, and
/// what is dated back would be erased too early. `started` is from before the clocks were compared first, `points` are the
/// recovery points of the sources. What a standby has may be from long before the run.
///
/// # Errors
/// [`Code::ClockWrong`], or the store's.
pub(super) fn must_agree_still(
    host: &Host,
    vault: &OpenVault,
    started: DateTime<Utc>,
    points: impl IntoIterator<Item = (DateTime<Utc>, Dated)>,
) -> Result<()> {
    let now = agree(host, vault, "committed")?;
    let Some(point) = impossible(points, started, now) else { return Ok(()) };
    let what = format!(
        "this host's clock was set while the run went on: it began at {}, and its data would be dated {}; nothing was \
         committed",
        told(started),
        told(point)
    );
    Err(Error::new(Code::ClockWrong, what).with_hint("run it again: what is stored is taken over"))
}

/// The first moment that no data of a run between these two can be of.
fn impossible(
    points: impl IntoIterator<Item = (DateTime<Utc>, Dated)>,
    started: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let too_early = |point, dated| dated == Dated::WhenRead && point < started - CLOCK_TOLERANCE;
    let found = points.into_iter().find(|(point, dated)| too_early(*point, *dated) || *point > now + CLOCK_TOLERANCE);
    found.map(|(point, _)| point)
}

fn agree(host: &Host, vault: &OpenVault, what_not: &str) -> Result<DateTime<Utc>> {
    let theirs = host.runtime.block_on(vault.storage.now())?;
    let ours = host.clock.now();
    if (theirs - ours).abs() > CLOCK_TOLERANCE {
        let (ours, theirs) = (told(ours), told(theirs));
        let what = format!("this host's clock says {ours}, and that of the vault {theirs}: nothing was {what_not}");
        return Err(Error::new(Code::ClockWrong, what)
            .with_hint("set the clock that is wrong (`date -u` shows this host's), then run it again"));
    }
    Ok(theirs)
}

/// Refuses a clock that was set back behind the job's newest backup, as the vault has it or as this host remembers it:
/// by that clock the next backup would be the older one.
///
/// # Errors
/// [`Code::ClockWrong`], or when the catalog cannot be read.
pub(super) fn must_follow(host: &Host, vault: &OpenVault, job: &JobName, survey: &Survey) -> Result<()> {
    let remembered = host.runtime.block_on(host.home()?.catalog.backups(&vault.id, Some(job)))?;
    let there = survey.manifests.iter().map(|m| &m.manifest).filter(|m| m.job == *job).map(|m| m.committed);
    let newest = there.chain(remembered.iter().map(|row| row.committed)).max();
    let now = host.clock.now();
    match newest {
        Some(newest) if now < newest - CLOCK_TOLERANCE => {
            let what = format!(
                "this host's clock says {}, and the last backup of {job} was committed at {}: nothing was tried",
                told(now),
                told(newest)
            );
            Err(Error::new(Code::ClockWrong, what).with_hint(
                "set this host's clock (`date -u` shows it), then run it again; if the last backup was made with a \
                 clock that ran ahead, wait until then",
            ))
        }
        _ => Ok(()),
    }
}

/// The claim of this run, while it holds on to it.
#[derive(Debug)]
pub(in super::super) struct Held {
    runtime: Handle,
    storage: Arc<dyn Storage>,
    newest: Arc<Mutex<Claim>>,
    /// Renewals that were tried, of which each may have taken its number.
    attempts: Arc<AtomicU64>,
    renewal: Option<JoinHandle<()>>,
}

/// Claims the job. `since`: the oldest moment from which on a run that is resumed stored something. `bases`: the backups
/// that objects may be named of.
///
/// # Errors
/// [`Code::Locked`] where another host's run has it; the store's.
pub(in super::super) fn take(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    now: DateTime<Utc>,
    since: Option<DateTime<Utc>>,
    bases: &[&Manifest],
) -> Result<Held> {
    let host_name = vault.host_name(host)?;
    let storage = Arc::clone(&vault.storage);
    let found = host.runtime.block_on(read_claims(&*storage, Some(job)))?;
    refuse_others(&found, &host_name, now)?;
    let started = now - CLOCK_TOLERANCE;
    let claim = Claim {
        kind: CLAIM_TYPE.to_owned(),
        version: CLAIM_VERSION,
        vault: vault.trust.vault.clone(),
        job: job.clone(),
        run: RunId::from_random(rand::rng().random()),
        number: 1,
        host: host_name.clone(),
        since: since.map_or(started, |since| since.min(started)),
        until: now + CLAIM_HOLDS,
        bases: bases.iter().map(|base| base.id.clone()).collect::<BTreeSet<BackupId>>().into_iter().collect(),
        lists: all(bases, |source| &source.lists),
        contents: all(bases, |source| &source.contents),
    };
    let run = claim.run.clone();
    host.runtime.block_on(write_claim(&*storage, &claim))?;
    // Two hosts that begin at the same moment see each other at the latest now, and both stand back.
    let again = host.runtime.block_on(read_claims(&*storage, Some(job)))?;
    if let Err(error) = refuse_others(&again, &host_name, now) {
        host.runtime.block_on(give_up(&*storage, job, &run))?;
        return Err(error);
    }
    // Whoever holds this host's lock is its only run: an older claim is that of one that broke off.
    let mut given_up = GivenUp::Removed;
    for older in again.iter().filter(|found| found.name.run != run && is_of(found, &host_name)) {
        // Who may not remove them leaves those that have lapsed to a sweep.
        if given_up == GivenUp::Removed || older.holds(now) {
            given_up = host.runtime.block_on(give_up(&*storage, job, &older.name.run))?;
        }
    }
    let newest = Arc::new(Mutex::new(claim));
    let attempts = Arc::new(AtomicU64::new(0));
    let renewal = host.runtime.spawn(renew_for_ever(Arc::clone(&storage), Arc::clone(&newest), Arc::clone(&attempts)));
    Ok(Held { runtime: host.runtime.clone(), storage, newest, attempts, renewal: Some(renewal) })
}

fn all(bases: &[&Manifest], of: impl Fn(&crate::domain::manifest::SourceEntry) -> &Vec<ObjectId>) -> Vec<ObjectId> {
    let names: BTreeSet<ObjectId> = bases.iter().flat_map(|base| &base.sources).flat_map(of).copied().collect();
    names.into_iter().collect()
}

fn is_of(found: &FoundClaim, host_name: &str) -> bool {
    found.claim.as_ref().is_ok_and(|claim| claim.host == host_name)
}

/// One that cannot be understood may be a newer lifeboat's, of any host.
fn refuse_others(found: &[FoundClaim], host_name: &str, now: DateTime<Utc>) -> Result<()> {
    let other = found.iter().find(|found| found.holds(now) && !is_of(found, host_name));
    let Some(FoundClaim { name, modified, claim }) = other else { return Ok(()) };
    let longest = modified.map(|modified| modified + CLAIM_HOLDS_AT_MOST);
    let key = Key::Claim(name.clone());
    let (who, until) = match claim {
        Ok(claim) => (format!("host {}", claim.host), Some(longest.map_or(claim.until, |l| l.min(claim.until)))),
        Err(reason) => (format!("somebody whose claim cannot be read ({reason})"), longest),
    };
    let until = until.map(|until| format!(" until {}", told(until))).unwrap_or_default();
    Err(Error::new(Code::Locked, format!("backup of {} is under way already: {who} has claimed it{until}", name.job))
        .with_hint(format!(
            "wait for it to end; a run that died claims nothing after that time. If nobody else backs this job up, \
             remove {key} from the vault"
        )))
}

async fn renew_for_ever(storage: Arc<dyn Storage>, newest: Arc<Mutex<Claim>>, attempts: Arc<AtomicU64>) {
    let every = RENEWED_EVERY.to_std().unwrap_or(Duration::MAX);
    loop {
        tokio::time::sleep(every).await;
        let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
        match renew(&*storage, &newest, attempt).await {
            Ok(true) => {}
            // It has lapsed, and a sweep may have acted on that: the commit will find out.
            Ok(false) => return,
            Err(error) => tracing::warn!("a claim could not be renewed: {error}"),
        }
    }
}

/// Makes the claim of the next number; false where the last one has lapsed. `attempt` rises by one with each call, because
/// one whose answer was lost may have taken its number.
async fn renew(storage: &dyn Storage, newest: &Mutex<Claim>, attempt: u64) -> Result<bool, VaultError> {
    let now = storage.now().await?;
    let last = lock(newest).clone();
    if !last.holds(now, None) {
        return Ok(false);
    }
    let before = ClaimName::of(&last);
    let next = Claim { number: attempt + 1, until: now + CLAIM_HOLDS, ..last };
    write_claim(storage, &next).await?;
    *lock(newest) = next;
    match storage.delete(&Key::Claim(before).to_string()).await {
        // The highest number counts; a sweep removes the others where this host may not.
        Err(error) if error.is_denied() => {}
        deleted => drop(deleted?),
    }
    Ok(true)
}

impl Held {
    /// Since when what was stored is claimed, by the store's time.
    pub(super) fn since(&self) -> DateTime<Utc> {
        lock(&self.newest).since
    }

    /// To be called right before the commit: ends the renewal, and sees that the claim has held all the time and will
    /// hold for [`COMMIT_MARGIN`].
    ///
    /// # Errors
    /// [`Code::ClaimLost`], or the store's.
    pub(in super::super) fn confirm(&mut self) -> Result<()> {
        self.stop();
        let until = self.until();
        if self.now()? + COMMIT_MARGIN > until {
            let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            self.runtime.block_on(renew(&*self.storage, &self.newest, attempt))?;
        }
        let claim = lock(&self.newest).clone();
        let now = self.now()?;
        let key = Key::Claim(ClaimName::of(&claim)).to_string();
        let there = self.runtime.block_on(self.storage.size(&key))?.is_some();
        if there && now + COMMIT_MARGIN <= claim.until {
            return Ok(());
        }
        let why = match there {
            true if now > claim.until => format!("it lapsed at {}", told(claim.until)),
            true => format!("it lapses at {}, and could not be renewed", told(claim.until)),
            false => "it is gone".to_owned(),
        };
        Err(Error::new(
            Code::ClaimLost,
            format!("the claim {key} did not hold to the end: {why}; what this run stored may have been swept, and nothing was committed"),
        )
        .with_hint("run it again: what is still there is taken over. A host that sleeps cannot renew its claim"))
    }

    /// Goes on renewing the claim, where another commit comes after the one that it was confirmed for.
    pub(in super::super) fn go_on(&mut self) {
        if self.renewal.is_none() {
            let (storage, newest) = (Arc::clone(&self.storage), Arc::clone(&self.newest));
            self.renewal = Some(self.runtime.spawn(renew_for_ever(storage, newest, Arc::clone(&self.attempts))));
        }
    }

    /// To be called right after the commit: whether the claim still holds, so that no sweep can have taken anything.
    ///
    /// # Errors
    /// The store's.
    pub(in super::super) fn held_through(&self) -> Result<bool> {
        Ok(self.now()? <= self.until())
    }

    fn now(&self) -> Result<DateTime<Utc>> {
        Ok(self.runtime.block_on(self.storage.now())?)
    }

    fn until(&self) -> DateTime<Utc> {
        lock(&self.newest).until
    }

    /// Gives the claim up: the run has committed, or has nothing that would be resumed.
    ///
    /// # Errors
    /// The store's.
    pub(in super::super) fn give_up(mut self) -> Result<()> {
        self.stop();
        let (job, run) = {
            let claim = lock(&self.newest);
            (claim.job.clone(), claim.run.clone())
        };
        self.runtime.block_on(give_up(&*self.storage, &job, &run))?;
        Ok(())
    }

    /// Ends the renewal, and waits until it has ended.
    fn stop(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
            // That it was ended is the error that it ends with.
            let _ = self.runtime.block_on(renewal);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

fn told(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::ids::VaultId;
    use crate::storage::fault::{Effect, Fault, Lasting, Moment, Plan};
    use crate::storage::memory::Memory;

    fn start() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn claim(run: u8, host: &str) -> Claim {
        Claim {
            kind: CLAIM_TYPE.into(),
            version: CLAIM_VERSION,
            vault: VaultId::from_random([1; 8]),
            job: "shop".parse().unwrap(),
            run: RunId::from_random([run; 8]),
            number: 1,
            host: host.into(),
            since: start(),
            until: start() + CLAIM_HOLDS,
            bases: Vec::new(),
            lists: Vec::new(),
            contents: Vec::new(),
        }
    }

    async fn numbers(store: &Memory) -> Vec<u64> {
        let mut numbers = Vec::new();
        let visit = &mut |listed: crate::storage::Listed| match Key::parse(&listed.key) {
            Key::Claim(name) => numbers.push(name.number),
            _ => panic!("{listed:?}"),
        };
        store.another_handle().list("claims/", visit).await.unwrap();
        numbers
    }

    #[tokio::test]
    async fn a_claim_is_renewed_by_the_next_number_as_long_as_it_holds() {
        let clock = Arc::new(ManualClock::at(start()));
        let store = Memory::new(clock.clone());
        let first = claim(1, "web-1");
        write_claim(&store, &first).await.unwrap();
        let newest = Mutex::new(first);
        let every = RENEWED_EVERY.to_std().unwrap();
        for attempt in 1..20 {
            clock.advance(every);
            assert!(renew(&store, &newest, attempt).await.unwrap());
            assert_eq!(numbers(&store).await, [attempt + 1]);
            assert_eq!(lock(&newest).until, clock_now(&clock) + CLAIM_HOLDS);
        }
        clock.advance(CLAIM_HOLDS.to_std().unwrap() + Duration::from_secs(1));
        let lapsed = lock(&newest).clone();
        assert!(!renew(&store, &newest, 20).await.unwrap(), "a sweep may have acted on its lapse");
        assert_eq!(*lock(&newest), lapsed);
    }

    fn clock_now(clock: &ManualClock) -> DateTime<Utc> {
        crate::clock::Clock::now(clock)
    }

    #[tokio::test]
    async fn a_renewal_whose_answer_was_lost_does_not_keep_the_next_one_from_its_number() {
        let clock = Arc::new(ManualClock::at(start()));
        let store = Memory::new(clock.clone());
        let first = claim(1, "web-1");
        write_claim(&store, &first).await.unwrap();
        let newest = Mutex::new(first);
        // The time, the document, the sync: it is done, and nobody is told.
        let plan = Plan { at_call: 3, moment: Moment::After, effect: Effect::LoseAnswer, lasting: Lasting::Once };
        let faulty = Fault::planned(Arc::new(store.another_handle()), plan);
        clock.advance(Duration::from_secs(60));
        renew(&faulty, &newest, 1).await.unwrap_err();
        assert_eq!(lock(&newest).number, 1, "what is not known to stand does not count");
        assert_eq!(numbers(&store).await, [1, 2]);
        clock.advance(Duration::from_secs(60));
        assert!(renew(&faulty, &newest, 2).await.unwrap());
        assert_eq!(lock(&newest).number, 3);
        give_up(&store, &"shop".parse().unwrap(), &RunId::from_random([1; 8])).await.unwrap();
        assert!(numbers(&store).await.is_empty());
    }

    #[tokio::test]
    async fn others_are_refused_while_their_claims_hold() {
        let store = Memory::new(Arc::new(ManualClock::at(start())));
        let refused = |after: TimeDelta| {
            let store = store.another_handle();
            async move { refuse_others(&read_claims(&store, None).await.unwrap(), "web-1", start() + after) }
        };
        write_claim(&store, &claim(1, "web-1")).await.unwrap();
        refused(TimeDelta::zero()).await.unwrap();
        write_claim(&store, &claim(2, "web-2")).await.unwrap();
        let error = refused(CLAIM_HOLDS).await.unwrap_err();
        assert_eq!(error.code(), Code::Locked);
        assert!(error.to_string().contains("host web-2 has claimed it until 2026-11-22 04:00:00 UTC"), "{error}");
        refused(CLAIM_HOLDS + TimeDelta::seconds(1)).await.unwrap();

        store.replace("claims/shop/0303030303030303-1.json", Bytes::from_static(b"{")).await.unwrap();
        let error = refused(CLAIM_HOLDS_AT_MOST).await.unwrap_err();
        assert!(error.to_string().contains("until 2026-11-23 02:00:00 UTC"), "{error}");
        refused(CLAIM_HOLDS_AT_MOST + TimeDelta::seconds(1)).await.unwrap();
    }

    /// A claim whose renewal is left to the test.
    fn held(runtime: &tokio::runtime::Runtime, store: &Memory) -> Held {
        let first = claim(1, "web-1");
        runtime.block_on(write_claim(store, &first)).unwrap();
        Held {
            runtime: runtime.handle().clone(),
            storage: Arc::new(store.another_handle()),
            newest: Arc::new(Mutex::new(first)),
            attempts: Arc::default(),
            renewal: None,
        }
    }

    #[test]
    fn a_commit_begins_with_a_claim_that_will_hold_for_a_while() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = Arc::new(ManualClock::at(start()));
        let store = Memory::new(clock.clone());
        let mut one = held(&runtime, &store);
        let second = Duration::from_secs(1);
        clock.advance(CLAIM_HOLDS.to_std().unwrap() - second);
        one.confirm().unwrap();
        assert_eq!(lock(&one.newest).until, clock_now(&clock) + CLAIM_HOLDS, "one second was too little");
        assert!(one.held_through().unwrap());
        clock.advance(CLAIM_HOLDS.to_std().unwrap() + second);
        assert!(!one.held_through().unwrap());
        assert_eq!(one.confirm().unwrap_err().code(), Code::ClaimLost);
        // One that cannot be renewed is as good as lost, before it lapses.
        let store = Memory::new(clock.clone());
        clock.advance(second);
        let mut one = held(&runtime, &store);
        lock(&one.newest).until = clock_now(&clock) + TimeDelta::minutes(14);
        let plan = Plan {
            at_call: 3,
            moment: Moment::Before,
            effect: Effect::Fail(std::io::ErrorKind::Other),
            lasting: Lasting::Once,
        };
        one.storage = Arc::new(Fault::planned(Arc::new(store.another_handle()), plan));
        one.confirm().unwrap_err();
    }

    #[test]
    fn only_a_standbys_data_may_be_from_long_before_the_run() {
        let started = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let (now, long_ago) = (started + TimeDelta::hours(1), started - TimeDelta::days(3));
        let found = |point, dated| impossible([(started, Dated::WhenRead), (point, dated)], started, now);
        assert_eq!(found(long_ago, Dated::BySource), None);
        assert_eq!(found(long_ago, Dated::WhenRead), Some(long_ago));
        let later = now + TimeDelta::hours(1);
        assert_eq!((found(later, Dated::BySource), found(later, Dated::WhenRead)), (Some(later), Some(later)));
    }
}
