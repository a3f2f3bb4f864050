//! Gathers what is promised of a job (the config) and what is known of it (the catalog, held against the vault) into facts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::copies::CopyFacts;
use super::facts::{
    Asked, DrillPlan, Gathered, Hidden, JobFacts, OwnIdentity, Promise, Unapproved, Unbelieved, Unopened, VaultFacts,
    VaultRef, Waiting, Witness,
};
use crate::catalog::{BackupRow, CatalogError, QuarantineRow, RemovalRow};
use crate::config::{JobSettings, PruneWhen, Settings};
use crate::domain::ids::{BackupId, JobName, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::objectives::{Objectives, Window};
use crate::domain::record::{CopyOutcome, SequenceRange};
use crate::domain::schedule::Schedule;
use crate::error::Result;
use crate::operations::host::Host;
use crate::operations::records::standing;
use crate::operations::vaults::{Look, OpenVault, place};
use crate::storage::Listed;
use crate::vault::layout::Key;
use crate::vault::survey::{Fault, Survey};
use crate::vault::trust::TrustDocument;

/// Scheduled moments that a report lists; a schedule of every minute over years is cut here.
const MAX_SCHEDULED: usize = 100_000;
/// How long a vault may take to be listed for its size; a scraper has long given up by then.
const LISTING_LIMIT: Duration = Duration::from_secs(20);

/// Whether everything in a vault is listed for its size: on a store that is paid by the request, one for a thousand objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// It is.
    Count,
    /// It is not.
    LeaveOut,
}

/// A vault as one command sees it, looked at once for all of its jobs.
#[derive(Debug)]
pub struct VaultView {
    /// Its name in the config.
    name: String,
    /// Its id as this host knows it, for when it cannot be asked.
    id: VaultId,
    /// The vault and what it holds, or why it cannot be asked.
    seen: Result<(OpenVault, Look)>,
}

impl VaultView {
    /// Looks at a vault, and so tells the catalog of what it has not heard of.
    #[must_use]
    pub fn look(host: &Host, name: &str, id: VaultId, vault: Result<OpenVault>) -> Self {
        let seen = vault.and_then(|vault| {
            let look = vault.look(host, None)?;
            Ok((vault, look))
        });
        Self { name: name.to_owned(), id, seen }
    }

    /// Bytes of everything in it; `None` where it cannot be listed within [`LISTING_LIMIT`].
    fn stored_bytes(&self, host: &Host) -> Option<u64> {
        let (vault, _) = self.seen.as_ref().ok()?;
        let mut bytes = 0u64;
        let mut add = |listed: Listed| bytes = bytes.saturating_add(listed.size_bytes);
        let listing = async { tokio::time::timeout(LISTING_LIMIT, vault.storage.list("", &mut add)).await };
        host.runtime.block_on(listing).ok()?.ok()?;
        Some(bytes)
    }
}

/// Gathers the facts of these jobs and of their vaults, each vault looked at once. `open` gives the id of a job's vault, and
/// the vault: where it cannot be opened, what this host remembers of that id is told; where it has none, the job is
/// [`Unopened`]. `window` bounds the scheduled moments that are listed; none without it.
///
/// # Errors
/// When catalog or outbox cannot be read.
pub fn gather(
    host: &Host,
    settings: &Settings,
    jobs: &[&JobSettings],
    sizes: Sizes,
    window: Option<Window>,
    open: impl Fn(&JobSettings) -> Result<(VaultId, Result<OpenVault>)>,
    now: DateTime<Utc>,
) -> Result<Gathered> {
    let mut views: BTreeMap<&str, Result<VaultView>> = BTreeMap::new();
    for job in jobs {
        views
            .entry(&job.vault)
            .or_insert_with(|| open(job).map(|(id, vault)| VaultView::look(host, &job.vault, id, vault)));
    }
    let asked = jobs.iter().map(|job| asked(job, settings.timezone, now)).collect();
    let mut gathered = Gathered { asked, ..Gathered::default() };
    for job in jobs {
        match &views[job.vault.as_str()] {
            Ok(view) => gathered.jobs.push(job_facts(host, settings, job, view, window, now)?),
            Err(error) => gathered.unopened.push(Unopened {
                job: job.name.clone(),
                vault: job.vault.clone(),
                objectives: objectives(job),
                why: error.to_string(),
            }),
        }
    }
    for view in views.values().flatten() {
        let stored_bytes = match sizes {
            Sizes::Count => view.stored_bytes(host),
            Sizes::LeaveOut => None,
        };
        gathered.vaults.push(VaultFacts { stored_bytes, ..vault_facts(host, settings, view, now)? });
    }
    Ok(gathered)
}

fn asked(job: &JobSettings, zone: Tz, now: DateTime<Utc>) -> Asked {
    Asked {
        job: job.name.clone(),
        next_backup: job.schedule.next_after(now, zone),
        next_drill: drill_schedule(job).and_then(|schedule| schedule.next_after(now, zone)),
        next_check: job.check.as_ref().and_then(|schedule| schedule.next_after(now, zone)),
    }
}

fn drill_schedule(job: &JobSettings) -> Option<&Schedule> {
    job.drill.as_ref()?.schedule.as_ref()
}

fn objectives(job: &JobSettings) -> Objectives {
    Objectives { rpo: job.objectives.rpo, rto: job.objectives.rto }
}

/// The facts of a vault that are no job's; not its size.
///
/// # Errors
/// When the outbox cannot be listed.
pub fn vault_facts(host: &Host, settings: &Settings, view: &VaultView, now: DateTime<Utc>) -> Result<VaultFacts> {
    let seen = view.seen.as_ref().ok();
    let standing = standing(host, &view.id, seen.map(|(vault, _)| vault))?;
    let unknown_jobs = seen.map(|(vault, look)| {
        let known: BTreeSet<&JobName> = settings.jobs_in(&view.name).map(|job| &job.name).collect();
        unknown_jobs(&look.survey, &known, &vault.trust, vault.host_name(host).ok().as_deref(), now)
    });
    Ok(VaultFacts {
        name: view.name.clone(),
        unknown_jobs: unknown_jobs.unwrap_or_default(),
        waiting: Waiting {
            records: standing.records,
            oldest: standing.oldest,
            in_vain: standing.in_vain,
            damaged: standing.damaged,
            folder: standing.folder,
        },
        untold: seen.map(|(_, look)| look.untold.clone()).unwrap_or_default(),
        silent: view.seen.as_ref().err().map(ToString::to_string),
        stored_bytes: None,
    })
}

/// Jobs that have backups, are not in the config, and whose newest backup is not that of another host which may go on
/// writing: that one's config has them.
fn unknown_jobs(
    survey: &Survey,
    known: &BTreeSet<&JobName>,
    trust: &TrustDocument,
    own_name: Option<&str>,
    now: DateTime<Utc>,
) -> Vec<JobName> {
    let mut newest: BTreeMap<&JobName, Option<&Manifest>> = BTreeMap::new();
    for manifest in survey.manifests.iter().map(|verified| &verified.manifest) {
        let newest = newest.entry(&manifest.job).or_default();
        if newest.is_none_or(|newest| newest.sequence < manifest.sequence) {
            *newest = Some(manifest);
        }
    }
    for found in &survey.quarantined {
        newest.entry(&found.name.job).or_default();
    }
    let is_at_work = |manifest: &Manifest| {
        own_name != Some(&manifest.host)
            && trust.hosts.iter().any(|host| {
                host.name == manifest.host && host.revoked.is_none() && host.until.is_none_or(|until| now < until)
            })
    };
    let unknown = newest.into_iter().filter(|(job, newest)| !known.contains(job) && !newest.is_some_and(is_at_work));
    unknown.map(|(job, _)| job.clone()).collect()
}

/// The facts of a job. `window` bounds the scheduled moments that are listed; none without it.
///
/// # Errors
/// When the catalog cannot be read.
pub fn job_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    view: &VaultView,
    window: Option<Window>,
    now: DateTime<Utc>,
) -> Result<JobFacts> {
    let (catalog, id) = (&host.home()?.catalog, &view.id);
    let zone = settings.timezone;
    let gap = |schedule: &Schedule| schedule.largest_gap(zone, now).map(|gap| gap.gap);
    let drill_schedule = drill_schedule(job);
    let drill = match (&job.drill, drill_schedule) {
        (None, _) => DrillPlan::None,
        (Some(_), None) => DrillPlan::OnDemand,
        (Some(_), Some(schedule)) => DrillPlan::Scheduled { schedule: schedule.to_string(), gap: gap(schedule) },
    };
    let identity = match job.drill.as_ref().and_then(|drill| drill.identity.as_ref()) {
        Some(_) => OwnIdentity::Present,
        None => OwnIdentity::Absent,
    };
    let mut backups = host.runtime.block_on(catalog.backups(id, Some(&job.name)))?;
    let removals = host.runtime.block_on(catalog.removals(id, Some(&job.name)))?;
    let quarantines = host.runtime.block_on(catalog.quarantines(id, Some(&job.name)))?;
    let witness;
    let (mut gaps, mut hidden, mut chain_breaks) = (Vec::new(), None, 0);
    let (mut unbelieved, mut quarantined, mut unapproved) = (Vec::new(), Vec::new(), Vec::new());
    match &view.seen {
        Ok((vault, Look { survey, .. })) => {
            let explained = explained(survey, &job.name, &removals, &quarantines);
            unbelieved = unbelieved_of(survey, &job.name);
            let of_job = survey.quarantined.iter().filter(|found| found.name.job == job.name);
            quarantined.extend(of_job.map(|found| found.name.id.clone()));
            unapproved = unapproved_of(survey, &job.name, &vault.trust);
            let account = Account { unbelieved: &unbelieved, explained: &explained, quarantines: &quarantines };
            witness = hold_against(&mut backups, survey, &account, now);
            gaps = unexplained(survey, &job.name, &explained);
            chain_breaks = chain_breaks_of(survey, &job.name);
            let of_job = vault.hidden_newest(host, survey, std::slice::from_ref(&job.name))?;
            hidden = of_job.first().map(|(_, there, seen)| Hidden { there: *there, seen: *seen });
        }
        Err(error) => witness = Witness::Silent(error.to_string()),
    }
    let lead = settings.lead_of(job, now);
    let recipients = settings.vault_of(job).map(|vault| vault.recipients.clone()).unwrap_or_default();
    Ok(JobFacts {
        job: job.name.clone(),
        vault: VaultRef { name: job.vault.clone(), id: id.clone() },
        promise: Promise {
            timezone: zone.name().to_owned(),
            schedule: Some(job.schedule.to_string()),
            backup_gap: gap(&job.schedule),
            objectives: objectives(job),
            keep_at_least: Some(job.retention.keep_at_least),
            delete_after: Some(job.retention.delete_after),
            erasing_lead: Some(lead.length(&job.retention)),
            prune_gap: Some(lead.cadence),
            check_gap: job.check.as_ref().and_then(gap),
            recipients,
            drill,
        },
        next_backup: job.schedule.next_after(now, zone),
        next_drill: drill_schedule.and_then(|schedule| schedule.next_after(now, zone)),
        next_prune: match &job.prune {
            PruneWhen::AfterBackup => None,
            PruneWhen::Scheduled(schedule) => schedule.next_after(now, zone),
        },
        next_check: job.check.as_ref().and_then(|schedule| schedule.next_after(now, zone)),
        identity,
        witness,
        unbelieved,
        quarantined,
        unapproved,
        gaps,
        hidden,
        chain_breaks,
        scheduled_backups: scheduled(&job.schedule, window, zone),
        scheduled_drills: drill_schedule.map(|schedule| scheduled(schedule, window, zone)).unwrap_or_default(),
        backups,
        runs: host.runtime.block_on(catalog.runs(id, Some(&job.name)))?,
        drills: host.runtime.block_on(catalog.drills(id, Some(&job.name)))?,
        removals,
        refutations: host.runtime.block_on(catalog.refutations(id, Some(&job.name)))?,
        quarantines,
        prunes: host.runtime.block_on(catalog.prunes(id, Some(&job.name)))?,
        checks: host.runtime.block_on(catalog.checks(id, Some(&job.name)))?,
        copy: copy_facts(host, settings, job, view, now)?,
    })
}

/// What the catalog knows of a job's second vault, which is not looked into: it may be far away, and its copies and prunes
/// tell the catalog.
fn copy_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    view: &VaultView,
    now: DateTime<Utc>,
) -> Result<Option<CopyFacts>> {
    let Some((copy, to)) = job.copy.as_ref().and_then(|copy| Some((copy, settings.vaults.get(&copy.to)?))) else {
        return Ok(None);
    };
    let (catalog, there, name) = (&host.home()?.catalog, place(to, &view.id), Some(&job.name));
    let mut copies = host.runtime.block_on(catalog.copies(&view.id, name))?;
    copies.retain(|row| row.body.to == copy.to);
    copies.sort_by_key(|row| row.body.finished);
    let own_name = view.seen.as_ref().ok().and_then(|(vault, _)| vault.host_name(host).ok());
    let last = copies.iter().rfind(|row| row.body.outcome != CopyOutcome::Failed);
    let is_own = own_name.zip(last).map(|(own, last)| last.host == own);
    let lead = settings.lead_in_copy(job, to, now);
    let facts = host.runtime.block_on(async {
        Ok::<_, CatalogError>(CopyFacts {
            to: copy.to.clone(),
            backups: catalog.backups(&there, name).await?,
            removals: catalog.removals(&there, name).await?,
            quarantines: catalog.quarantines(&there, name).await?,
            drills: catalog.drills(&there, name).await?,
            refutations: catalog.refutations(&there, name).await?,
            prunes: catalog.prunes(&there, name).await?,
            checks: catalog.checks(&there, name).await?,
            prunes_here: copy.prune,
            is_own,
            copies,
            erasing_lead: Some(lead.length(&job.retention)),
            prune_gap: copy.schedule.as_ref().filter(|_| copy.prune).map(|_| lead.cadence),
            next: copy.schedule.as_ref().and_then(|schedule| schedule.next_after(now, settings.timezone)),
        })
    })?;
    Ok(Some(facts))
}

/// Numbers of a job that are gone for a reason.
fn explained(
    survey: &Survey,
    job: &JobName,
    removals: &[RemovalRow],
    quarantines: &[QuarantineRow],
) -> Vec<SequenceRange> {
    let remembered = removals.iter().flat_map(|row| &row.body.gone);
    let remembered = remembered.chain(quarantines.iter().flat_map(|row| &row.body.gone));
    SequenceRange::union(remembered.chain(survey.gone.get(job).into_iter().flatten()).copied())
}

fn unbelieved_of(survey: &Survey, job: &JobName) -> Vec<Unbelieved> {
    let of_job = survey.problems.iter().filter(|problem| problem.job == *job);
    let unbelieved = of_job.filter_map(|problem| match (&problem.fault, Key::parse(&problem.key)) {
        (Fault::Untrusted(reason), Key::Manifest(name)) => {
            Some(Unbelieved { backup: name.id, why: reason.to_string() })
        }
        _ => None,
    });
    unbelieved.collect()
}

/// Believed manifests that cannot all be what they say.
fn chain_breaks_of(survey: &Survey, job: &JobName) -> usize {
    let of_job = survey.problems.iter().filter(|problem| problem.job == *job);
    of_job.filter(|problem| matches!(problem.fault, Fault::Duplicate { .. } | Fault::BrokenChain { .. })).count()
}

fn unapproved_of(survey: &Survey, job: &JobName, trust: &TrustDocument) -> Vec<Unapproved> {
    let of_job = survey.manifests.iter().map(|verified| &verified.manifest).filter(|manifest| manifest.job == *job);
    let unapproved = of_job.map(|manifest| Unapproved {
        backup: manifest.id.clone(),
        recipients: trust.unapproved_at(&manifest.recipients, manifest.committed),
    });
    unapproved.filter(|found| !found.recipients.is_empty()).collect()
}

/// Missing numbers that nothing explains.
fn unexplained(survey: &Survey, job: &JobName, explained: &[SequenceRange]) -> Vec<SequenceRange> {
    let of_job = survey.problems.iter().filter(|problem| problem.job == *job);
    let missing = of_job.filter_map(|problem| match problem.fault {
        Fault::Missing { first, last } => Some(SequenceRange { first, last }),
        _ => None,
    });
    missing.filter(|gap| !gap.without(explained).is_empty()).collect()
}

/// What becomes of a backup that is not among those that are believed.
struct Account<'a> {
    unbelieved: &'a [Unbelieved],
    explained: &'a [SequenceRange],
    quarantines: &'a [QuarantineRow],
}

/// What the catalog knows and the vault has not counts as gone from when a person said so, or from now on. It is missed
/// only where nothing accounts for it: neither a quarantine, nor a removal, nor a manifest that is told of by itself.
fn hold_against(backups: &mut [BackupRow], survey: &Survey, account: &Account<'_>, now: DateTime<Utc>) -> Witness {
    let there: HashSet<&BackupId> = survey.manifests.iter().map(|verified| &verified.manifest.id).collect();
    let removed: HashSet<&BackupId> = survey.removed.iter().map(|name| &name.id).collect();
    let mut lacking = Vec::new();
    for row in backups.iter_mut().filter(|row| row.retained_until.is_none() && !there.contains(&row.id)) {
        let said = account.quarantines.iter().filter(|quarantine| {
            let (set_aside, gone) = (&quarantine.body.backup, &quarantine.body.gone);
            set_aside.as_ref() == Some(&row.id) || gone.iter().any(|range| range.contains(row.sequence))
        });
        let said = said.map(|quarantine| quarantine.recorded).min();
        row.retained_until = Some(said.unwrap_or(now).max(row.committed));
        let is_explained = account.explained.iter().any(|range| range.contains(row.sequence));
        let is_told = removed.contains(&row.id) || account.unbelieved.iter().any(|found| found.backup == row.id);
        if said.is_none() && !is_explained && !is_told {
            lacking.push(row.id.clone());
        }
    }
    if lacking.is_empty() { Witness::Agrees } else { Witness::Lacks(lacking) }
}

fn scheduled(schedule: &Schedule, window: Option<Window>, zone: Tz) -> Vec<DateTime<Utc>> {
    let Some(window) = window else { return Vec::new() };
    std::iter::successors(schedule.next_after(window.start, zone), |last| schedule.next_after(*last, zone))
        .take_while(|moment| *moment <= window.end)
        .take(MAX_SCHEDULED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ManifestHash;
    use crate::domain::record::{QuarantineRecord, RemovalReason, RemovalRecord};
    use crate::evidence::samples::{backup, before_now, hours, now, record, vault_id};
    use crate::operations::catch_up::tests::{World, job, manifest};
    use crate::vault::Distrust;
    use crate::vault::layout::ManifestName;
    use crate::vault::manifests::VerifiedManifest;
    use crate::vault::survey::{Problem, Quarantined};

    fn rows() -> Vec<BackupRow> {
        (1..=4).map(|number| backup(number, before_now(hours(20 - u64::from(number))))).collect()
    }

    fn name(row: &BackupRow) -> ManifestName {
        let world = World::new();
        let any = manifest(&world, 0, &row.job, None, 1);
        ManifestName::of(&crate::domain::manifest::Manifest { id: row.id.clone(), ..any })
    }

    fn quarantine(number: u8, backup: Option<BackupId>, gone: Vec<SequenceRange>) -> QuarantineRow {
        record(number, before_now(hours(2)), QuarantineRecord { backup, gone })
    }

    #[test]
    fn what_is_accounted_for_is_not_missed() {
        let mut known = rows();
        let (first, second, third) = (known[0].clone(), known[1].clone(), known[2].clone());
        let quarantines = [
            quarantine(1, Some(first.id.clone()), vec![]),
            quarantine(2, None, vec![SequenceRange { first: 2, last: 2 }]),
        ];
        let mut survey = Survey::default();
        survey.quarantined.push(Quarantined { name: name(&first), reason: Distrust::NoSignature, modified: None });
        let key = Key::Manifest(name(&third)).to_string();
        survey.problems.push(Problem { key, job: third.job.clone(), fault: Fault::Untrusted(Distrust::NoSignature) });
        let explained = explained(&survey, &first.job, &[], &quarantines);
        let unbelieved = unbelieved_of(&survey, &first.job);
        assert_eq!(unbelieved.iter().map(|found| &found.backup).collect::<Vec<_>>(), [&third.id]);
        let account = Account { unbelieved: &unbelieved, explained: &explained, quarantines: &quarantines };
        let witness = hold_against(&mut known, &survey, &account, now());
        assert_eq!(witness, Witness::Lacks(vec![known[3].id.clone()]), "nothing says anything of the fourth");
        assert_eq!(known[0].retained_until, Some(before_now(hours(2))), "since somebody said so");
        assert_eq!(known[1].retained_until, Some(before_now(hours(2))));
        assert_eq!(known[2].retained_until, Some(now()));
        assert_eq!(second.retained_until, None);
    }

    #[test]
    fn a_gap_needs_every_number_explained() {
        let mut survey = Survey::default();
        let shop: JobName = "shop".parse().unwrap();
        let fault = Fault::Missing { first: 2, last: 5 };
        survey.problems.push(Problem { key: String::new(), job: shop.clone(), fault });
        let gap = [SequenceRange { first: 2, last: 5 }];
        let removal = RemovalRecord {
            backup: BackupId::from_random([9; 8]),
            summary: None,
            reason: RemovalReason::Expired,
            gone: vec![SequenceRange { first: 1, last: 3 }],
        };
        let removals = [record(1, now(), removal)];
        assert_eq!(unexplained(&survey, &shop, &explained(&survey, &shop, &removals, &[])), gap);
        let quarantines = [quarantine(2, None, vec![SequenceRange { first: 4, last: 5 }])];
        assert_eq!(unexplained(&survey, &shop, &explained(&survey, &shop, &removals, &quarantines)), []);
    }

    #[test]
    fn a_chain_is_broken_by_what_is_believed() {
        let mut survey = Survey::default();
        let shop: JobName = "shop".parse().unwrap();
        let faults = [
            Fault::Missing { first: 2, last: 5 },
            Fault::Untrusted(Distrust::NoSignature),
            Fault::Duplicate { sequence: 6, other: String::new() },
            Fault::BrokenChain { says: String::new() },
        ];
        survey.problems.extend(faults.map(|fault| Problem { key: String::new(), job: shop.clone(), fault }));
        assert_eq!(chain_breaks_of(&survey, &shop), 2, "the others are told by themselves");
        assert_eq!(chain_breaks_of(&survey, &"blog".parse().unwrap()), 0);
    }

    #[test]
    fn a_job_is_told_of_as_far_as_its_vault_is_known() {
        let text = "[vault.main]\nurl = \"/v\"\nrecipients = \
                    [\"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa\"]\n[job.shop]\nschedule = \
                    \"0 */6 * * *\"\nretention = { keep_at_least = \"14d\", delete_after = \"30d\" }\nobjectives = { rpo = \
                    \"24h\" }\n[job.shop.source.uploads]\nkind = \"files\"\npaths = [\"/srv\"]\n";
        let settings = Settings::parse(text, std::path::Path::new("/etc/lifeboat.toml")).unwrap();
        let world = World::new();
        let jobs: Vec<&JobSettings> = settings.jobs.values().collect();
        let gone = || crate::error::Error::new(crate::error::Code::StorageFailed, "gone");
        let silent =
            gather(&world.hosts[0], &settings, &jobs, Sizes::Count, None, |_| Ok((vault_id(), Err(gone()))), now());
        let silent = silent.unwrap();
        assert_eq!((silent.jobs.len(), silent.unopened.len()), (1, 0));
        assert_eq!((silent.vaults[0].silent.as_deref(), silent.vaults[0].stored_bytes), (Some("gone"), None));
        let unopened = gather(&world.hosts[0], &settings, &jobs, Sizes::Count, None, |_| Err(gone()), now()).unwrap();
        assert_eq!((unopened.jobs.len(), unopened.vaults.len()), (0, 0));
        assert_eq!(unopened.unopened[0].objectives.rpo, Some(hours(24)));
        assert_eq!((&*unopened.unopened[0].vault, &*unopened.unopened[0].why), ("main", "gone"));
    }

    #[test]
    fn jobs_that_another_host_writes_are_its_business() {
        let mut world = World::new();
        let mut survey = Survey::default();
        let mut add = |world: &World, host: usize, number: usize, sequence: u64| {
            let manifest = Manifest { sequence, ..manifest(world, host, &job(number), None, sequence) };
            let (name, hash) = (ManifestName::of(&manifest), ManifestHash([0; 32]));
            survey.manifests.push(VerifiedManifest { manifest, name, hash });
        };
        add(&world, 1, 0, 1);
        add(&world, 0, 0, 2);
        add(&world, 0, 1, 1);
        add(&world, 1, 1, 2);
        let (shop, blog) = (job(0), job(1));
        let unknown = |world: &World, survey: &Survey, known: &[&JobName]| {
            unknown_jobs(survey, &known.iter().copied().collect(), &world.trust, Some("web-1"), now())
        };
        assert_eq!(unknown(&world, &survey, &[&shop, &blog]), []);
        assert_eq!(unknown(&world, &survey, &[]), std::slice::from_ref(&shop), "web-2 writes the other one");
        assert_eq!(unknown(&world, &survey, &[&shop]), []);
        world.trust.hosts[1].until = Some(now());
        assert_eq!(unknown(&world, &survey, &[]), [blog, shop.clone()]);
        let quarantined = backup(1, now());
        survey.manifests.clear();
        let found = Quarantined { name: name(&quarantined), reason: Distrust::NoSignature, modified: None };
        survey.quarantined.push(found);
        assert_eq!(unknown(&world, &survey, &[]), [shop]);
    }

    #[test]
    fn the_promise_is_that_of_the_config() {
        let text = "[vault.main]\nurl = \"/v\"\ngrace = \"6h\"\nrecipients = \
                    [\"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa\"]\n[job.shop]\nschedule = \
                    \"0 */6 * * *\"\nprune = { schedule = \"0 4 * * *\" }\nretention = { keep_at_least = \"14d\", \
                    delete_after = \"30d\" }\n[job.shop.source.uploads]\nkind = \"files\"\npaths = [\"/srv\"]\n";
        let settings = Settings::parse(text, std::path::Path::new("/etc/lifeboat.toml")).unwrap();
        let world = World::new();
        let view = VaultView::look(
            &world.hosts[0],
            "main",
            vault_id(),
            Err(crate::error::Error::new(crate::error::Code::StorageFailed, "gone")),
        );
        let job = settings.jobs.values().next().unwrap();
        let facts = job_facts(&world.hosts[0], &settings, job, &view, None, now()).unwrap();
        assert_eq!(facts.promise.prune_gap, Some(hours(24)));
        // Twice the sum of two days between prunes, six hours of grace and one for the sweep.
        assert_eq!(facts.promise.erasing_lead, Some(hours(2 * (48 + 6 + 1))));
        assert_eq!(facts.witness, Witness::Silent("gone".to_owned()));
    }

    #[test]
    fn a_vault_is_looked_at_once_for_all_of_its_jobs() {
        let world = World::new();
        for number in 0..2 {
            world.plant(0, &manifest(&world, 0, &job(number), None, number as u64));
        }
        let mut trust = world.vault(None);
        trust.trust.recipients = Some(vec![]);
        let view = VaultView::look(&world.hosts[0], "main", world.trust.vault.clone(), Ok(trust));
        let (vault, look) = view.seen.as_ref().unwrap();
        for number in 0..2 {
            let found = unapproved_of(&look.survey, &job(number), &vault.trust);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].recipients.len(), 1);
        }
    }
}
