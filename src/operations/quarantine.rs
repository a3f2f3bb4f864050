//! `quarantine`: a person's word that a backup which cannot be believed, or numbers that are missing, need not hold up the
//! rest. Nothing is deleted here; the word is a signed record.

use rand::RngExt as _;

use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::record::{QuarantineRecord, RecordBody, SequenceRange};
use crate::error::{Code, Error, Result};
use crate::vault::layout::{Key, ManifestName};
use crate::vault::survey::{Fault, Survey};
use crate::vault::sweep::{Stop, take_stock};

use super::host::Host;
use super::lost::{Lost, lost};
use super::records;
use super::selection::SHORTEST_ID;
use super::vaults::OpenVault;

/// What was quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The job.
    pub job: JobName,
    /// The backup, if it is one.
    pub backup: Option<BackupId>,
    /// Why it could not be counted on, in a sentence.
    pub reason: String,
}

/// Quarantines what `what` names: a backup by its id or the beginning of it, or missing numbers as `JOB#5` or `JOB#5-7`.
///
/// # Errors
/// Where nothing of that name needs it: [`Code::NotFound`]; a sound backup is never quarantined. Where this host may not
/// sign for the job.
pub fn quarantine(host: &Host, vault: &OpenVault, what: &str) -> Result<Quarantined> {
    let survey = vault.survey(host, None)?;
    let (found, record) = match what.split_once('#') {
        Some((job, numbers)) => missing(host, vault, &survey, job, numbers)?,
        None => backup(host, vault, &survey, what)?,
    };
    let id = RecordId::from_random(rand::rng().random());
    records::write_as(host, vault, &found.job, &id, RecordBody::Quarantine(record), None)?;
    Ok(found)
}

fn missing(
    host: &Host,
    vault: &OpenVault,
    survey: &Survey,
    job: &str,
    numbers: &str,
) -> Result<(Quarantined, QuarantineRecord)> {
    let range = range(numbers).ok_or_else(|| {
        Error::new(Code::Usage, format!("{numbers:?} is neither a number nor a range of numbers"))
            .with_hint("write `JOB#5` or `JOB#5-7`")
    })?;
    let job: JobName = job.parse().map_err(|error| Error::new(Code::NotFound, format!("{error}")))?;
    let holds = |first, last| first <= range.first && range.last <= last;
    let in_gap = survey.problems.iter().filter(|problem| problem.job == job).find_map(|problem| match problem.fault {
        Fault::Missing { first, last } => holds(first, last).then(|| problem.fault.to_string()),
        _ => None,
    });
    // At the end of the numbers there is no gap, and only who saw them knows.
    let in_tail = || {
        let lost = lost(host, vault, survey, std::slice::from_ref(&job))?;
        let found = lost.iter().find(|lost| lost.job == job && holds(lost.numbers.first, lost.numbers.last));
        Ok::<_, Error>(found.map(Lost::reason))
    };
    let reason = match in_gap {
        Some(reason) => Some(reason),
        None => in_tail()?,
    };
    let reason = reason.ok_or_else(|| {
        Error::new(Code::NotFound, format!("{} of job {job} are not missing, or not without a reason", told(range)))
            .with_hint(format!("`lifeboat check {job}` names what is missing"))
    })?;
    let found = Quarantined { job, backup: None, reason };
    Ok((found, QuarantineRecord { backup: None, gone: vec![range] }))
}

fn backup(host: &Host, vault: &OpenVault, survey: &Survey, text: &str) -> Result<(Quarantined, QuarantineRecord)> {
    let looks_like_id = text.len() >= SHORTEST_ID && text.bytes().all(|b| b.is_ascii_hexdigit());
    let not_found = |message: String| {
        Error::new(Code::NotFound, message).with_hint(
            "`lifeboat check` names what cannot be believed; `lifeboat prune --dry-run` what stops deletions",
        )
    };
    if !looks_like_id {
        return Err(not_found(format!("{text:?} is no id of a backup, nor the beginning of one")));
    }
    let unbelieved = survey.problems.iter().filter_map(|problem| match (&problem.fault, Key::parse(&problem.key)) {
        (Fault::Untrusted(_), Key::Manifest(name)) => Some((name.job, name.id, problem.fault.to_string())),
        _ => None,
    });
    let is_new = |name: &&ManifestName| !survey.set_aside.contains(&(name.job.clone(), name.id.clone()));
    let removed = survey.removed.iter().filter(is_new).map(|name| {
        let reason = "a record says that it was removed, and it still lies there";
        (name.job.clone(), name.id.clone(), reason.to_owned())
    });
    let mut found: Vec<(JobName, BackupId, String)> =
        unbelieved.chain(removed).filter(|(_, id, _)| id.as_str().starts_with(text)).collect();
    if found.is_empty() {
        // A believed one whose lists cannot be followed stops deletions too.
        let stock = host.runtime.block_on(take_stock(&*vault.storage, &vault.trust, None))?;
        for stop in stock.stops() {
            let Stop::List { backups, .. } = stop else { continue };
            let named = survey.manifests.iter().filter(|verified| backups.contains(&verified.manifest.id));
            let named = named.map(|verified| (verified.manifest.job.clone(), verified.manifest.id.clone()));
            found.extend(named.map(|(job, id)| (job, id, stop.to_string())));
        }
        found.retain(|(_, id, _)| id.as_str().starts_with(text));
        found.sort();
        found.dedup_by(|one, other| one.1 == other.1);
    }
    match &found[..] {
        [(job, id, reason)] => {
            let record = QuarantineRecord { backup: Some(id.clone()), gone: Vec::new() };
            Ok((Quarantined { job: job.clone(), backup: Some(id.clone()), reason: reason.clone() }, record))
        }
        [] => Err(not_found(format!("no backup whose id begins with {text} holds anything up"))),
        several => {
            Err(Error::new(Code::NotFound, format!("{} backups have ids that begin with {text}", several.len()))
                .with_hint("give more of the id"))
        }
    }
}

fn range(text: &str) -> Option<SequenceRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = SequenceRange { first: first.parse().ok()?, last: last.parse().ok()? };
    (range.first > 0 && range.first <= range.last).then_some(range)
}

fn told(range: SequenceRange) -> String {
    if range.first == range.last {
        format!("number {}", range.first)
    } else {
        format!("numbers {} to {}", range.first, range.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(range("5"), Some(SequenceRange { first: 5, last: 5 }));
        assert_eq!(range("5-7"), Some(SequenceRange { first: 5, last: 7 }));
        for bad in ["", "0", "7-5", "a", "5-", "-5", "1-2-3"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
