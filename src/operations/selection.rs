//! Which backup is meant: `JOB`, `JOB@latest`, `JOB@2026-11-22T02:00`, or an id or its beginning.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;

use crate::domain::ids::BackupId;
use crate::domain::manifest::{Completeness, Manifest};
use crate::error::{Code, Error, Result};

/// The shortest beginning of an id that is taken for one.
pub const SHORTEST_ID: usize = 4;

/// What was chosen, and what a person should know of it.
#[derive(Debug)]
pub struct Chosen<'a> {
    /// The backup's manifest.
    pub manifest: &'a Manifest,
    /// It is not the best there could be: why.
    pub warning: Option<String>,
}

/// Chooses among `manifests` (any order). Times without zone are read in `zone`; `refuted` are backups that a drill
/// or a check found wrong.
///
/// # Errors
/// [`Code::NotFound`] where nothing fits or several do.
pub fn choose<'a>(text: &str, manifests: &'a [Manifest], refuted: &HashSet<BackupId>, zone: Tz) -> Result<Chosen<'a>> {
    let (job, which) = match text.split_once('@') {
        Some((job, which)) => (job, which),
        None => (text, "latest"),
    };
    let of_job: Vec<&Manifest> = manifests.iter().filter(|m| m.job.as_str() == job).collect();
    if of_job.is_empty() {
        return by_id(text, manifests, refuted);
    }
    let newest = |candidates: Vec<&'a Manifest>| candidates.into_iter().max_by_key(|m| (m.recovery_point, m.sequence));
    if which == "latest" {
        let complete: Vec<&Manifest> =
            of_job.iter().copied().filter(|m| m.completeness == Completeness::Complete).collect();
        let sound = complete.iter().copied().filter(|m| !refuted.contains(&m.id)).collect();
        let newest_complete = newest(complete);
        let Some(manifest) = newest(sound).or(newest_complete).or_else(|| newest(of_job)) else {
            return Err(not_found(text));
        };
        let mut chosen = with_warning(manifest, refuted);
        if let Some(passed_over) = newest_complete.filter(|newest| newest.id != manifest.id) {
            chosen.warning = Some(format!(
                "backup {} is newer, and was found to be bad: {} is taken; name the newer one by its id if you want it",
                passed_over.id, manifest.id
            ));
        }
        return Ok(chosen);
    }
    let until = parse_moment(which, zone)?;
    newest(of_job.into_iter().filter(|m| m.recovery_point <= until).collect())
        .map(|manifest| with_warning(manifest, refuted))
        .ok_or_else(|| {
            Error::new(Code::NotFound, format!("job {job} has no backup from {which} or before"))
                .with_hint(format!("`lifeboat list {job}` shows what there is"))
        })
}

fn by_id<'a>(text: &str, manifests: &'a [Manifest], refuted: &HashSet<BackupId>) -> Result<Chosen<'a>> {
    let looks_like_id = text.len() >= SHORTEST_ID && text.bytes().all(|b| b.is_ascii_hexdigit());
    let fitting: Vec<&Manifest> =
        manifests.iter().filter(|m| looks_like_id && m.id.as_str().starts_with(text)).collect();
    match fitting[..] {
        [manifest] => Ok(with_warning(manifest, refuted)),
        [] => Err(not_found(text)),
        _ => Err(Error::new(Code::NotFound, format!("{} backups have ids that begin with {text}", fitting.len()))
            .with_hint("give more of the id; `lifeboat list` shows them")),
    }
}

fn with_warning<'a>(manifest: &'a Manifest, refuted: &HashSet<BackupId>) -> Chosen<'a> {
    let id = &manifest.id;
    let warning = if refuted.contains(id) {
        Some(format!("backup {id} was found to be bad by a drill or a check; it is taken because nothing better fits"))
    } else if manifest.completeness == Completeness::Partial {
        Some(format!(
            "backup {id} is partial: something could not be read when it was made; `lifeboat show {id}` says what"
        ))
    } else {
        None
    };
    Chosen { manifest, warning }
}

fn not_found(text: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no job or backup {text:?} in this vault"))
        .with_hint("`lifeboat list` shows what there is")
}

/// A date, or a date and time to the minute or second, in `zone` unless it has an offset.
fn parse_moment(text: &str, zone: Tz) -> Result<DateTime<Utc>> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.to_utc());
    }
    let naive = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| {
            // A day means all of it.
            NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(23, 59, 59))
        });
    let wrong = || {
        Error::new(Code::Usage, format!("{text:?} is neither `latest` nor a time like 2026-11-22T02:00"))
            .with_hint("times are read in the config's zone; add Z for UTC")
    };
    // In the hour that the autumn clock change repeats, the later moment is meant: the newest at or before.
    zone.from_local_datetime(&naive.ok_or_else(wrong)?).latest().map(|moment| moment.to_utc()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(job: &str, id: u8, hour: u32, completeness: Completeness) -> Manifest {
        let moment = Utc.with_ymd_and_hms(2026, 11, 22, hour, 0, 0).unwrap();
        Manifest {
            kind: "lifeboat-backup".to_owned(),
            version: 1,
            vault: "00000000000000aa".parse().unwrap(),
            job: job.parse().unwrap(),
            id: BackupId::from_random([id; 8]),
            sequence: u64::from(hour),
            completeness,
            host: "h".to_owned(),
            tool: "t".to_owned(),
            started: moment,
            committed: moment,
            recovery_point: moment,
            recipient_set: String::new(),
            recipients: Vec::new(),
            previous: None,
            sources: Vec::new(),
        }
    }

    #[test]
    fn backups_are_found_by_every_name() {
        use Completeness::{Complete, Partial};
        let all = [
            manifest("shop", 0x11, 2, Complete),
            manifest("shop", 0x12, 8, Complete),
            manifest("shop", 0x13, 14, Partial),
            manifest("mail", 0x22, 3, Complete),
        ];
        let none = HashSet::new();
        let pick = |text: &str, refuted: &HashSet<BackupId>| {
            choose(text, &all, refuted, chrono_tz::Europe::Moscow)
                .map(|c| (c.manifest.id.as_str()[..2].to_owned(), c.warning.is_some()))
        };
        for (text, expected) in [
            ("shop", ("12", false)),
            ("shop@latest", ("12", false)),
            ("mail", ("22", false)),
            // Moscow is three hours ahead of UTC.
            ("shop@2026-11-22T10:59", ("11", false)),
            ("shop@2026-11-22T11:00", ("12", false)),
            ("shop@2026-11-22T08:00:00Z", ("12", false)),
            ("shop@2026-11-22", ("13", true)),
            ("1313", ("13", true)),
        ] {
            let (id, warned) = pick(text, &none).unwrap();
            assert_eq!((id.as_str(), warned), expected, "{text}");
        }
        let refuted = HashSet::from([all[1].id.clone()]);
        assert_eq!(pick("shop", &refuted).unwrap(), ("11".to_owned(), true), "what was passed over is told");
        let both = HashSet::from([all[0].id.clone(), all[1].id.clone()]);
        assert_eq!(pick("shop", &both).unwrap(), ("12".to_owned(), true));
        for bad in ["nothing", "shop@yesterday", "shop@2026-11-21T00:00", "abcd", "13"] {
            assert!(pick(bad, &none).is_err(), "{bad}");
        }
    }
}
