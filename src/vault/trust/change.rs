//! The next vault.json: what a document becomes when a host or a recipient comes or goes.
//!
//! Each function gives the whole next document, its serial number one higher, or `None` where the present one says so
//! already. Nothing is signed, stored or asked here. No entry is ever taken out: names stand in manifests and records, and
//! what a key signed while it was believed stays believed. So neither a name nor a key is used a second time.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{HostEntry, JobPattern, LastBelieved, RecipientEntry, Revocation, TrustDocument};
use crate::domain::ids::JobName;
use crate::error::{Code, Diagnostic};
use crate::vault::keys::PublicKey;

/// Why a document cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another key has the name.
    #[error("there is a host {name} already, and it has another key")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name belongs to a key that was revoked.
    #[error("the key of host {name} was revoked, and the name stands in what it signed: it is not used again")]
    NameRevoked {
        /// The name.
        name: String,
    },
    /// The key has another name.
    #[error("this key is host {name}'s already")]
    KeyTaken {
        /// Whose.
        name: String,
    },
    /// The key was revoked.
    #[error("this key was host {name}'s and is revoked: whoever has it may be a thief, so it is never believed again")]
    KeyRevoked {
        /// Whose it was.
        name: String,
    },
    /// There is no such host.
    #[error("vault.json names no host {name:?}")]
    NoHost {
        /// What was asked for.
        name: String,
        /// Those that it names.
        known: Vec<String>,
    },
    /// It was revoked before.
    #[error("host {name} was revoked at {} already, and no more is believed of it than was then", at.format("%Y-%m-%d %H:%M:%S UTC"))]
    AlreadyRevoked {
        /// The name.
        name: String,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Nobody could open what is sealed after that.
    #[error("{key} is the last recipient: without it nobody could open the next backup")]
    LastRecipient {
        /// The recipient.
        key: String,
    },
    /// The outcome would not be believed by its readers.
    #[error("{reason}")]
    Unusable {
        /// What is wrong with it.
        reason: String,
    },
}

impl Diagnostic for ChangeError {
    fn code(&self) -> Code {
        match self {
            Self::NoHost { .. } => Code::NotFound,
            _ => Code::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NameTaken { name } => {
                format!("take a name that is free; if the host lost its key, also `lifeboat host revoke {name}`")
            }
            Self::NameRevoked { name } => format!("take a name that is free, such as {name}-2"),
            Self::KeyTaken { name } => format!("`lifeboat host add {name}` with this key lets it sign more jobs"),
            Self::KeyRevoked { .. } => {
                "on that host move host.key out of the state folder; `lifeboat init` makes another".into()
            }
            Self::NoHost { known, .. } => format!("it names: {}", known.join(", ")),
            Self::AlreadyRevoked { .. } => {
                "`lifeboat host list --json` shows what stays believed; a lower `--last JOB=SEQ` or an earlier \
                 `--at TIME` makes it less"
                    .into()
            }
            Self::LastRecipient { .. } => "add the new one first: `lifeboat recipient add AGE1...`".into(),
            Self::Unusable { .. } => "names have at most 255 letters and no control characters".into(),
        })
    }
}

impl TrustDocument {
    /// Lets a host sign these jobs from this moment on. A host that is there under the same name and key may sign the
    /// jobs besides those that it may sign already.
    ///
    /// # Errors
    /// Where name or key are another's, or were revoked.
    pub fn with_host(
        &self,
        name: &str,
        key: &PublicKey,
        jobs: &[JobPattern],
        from: DateTime<Utc>,
    ) -> Result<Option<Self>, ChangeError> {
        let owner = || name.to_owned();
        let mut next = self.clone();
        if let Some(known) = next.hosts.iter_mut().find(|host| host.key.id() == key.id()) {
            let name_of = known.name.clone();
            if known.revoked.is_some() {
                return Err(ChangeError::KeyRevoked { name: name_of });
            }
            // A number alone does not make two keys one.
            if known.name != name || known.key != *key {
                return Err(ChangeError::KeyTaken { name: name_of });
            }
            let new = |job: &&JobPattern| !known.jobs.contains(&JobPattern::Any) && !known.jobs.contains(job);
            let more: Vec<JobPattern> = jobs.iter().filter(new).cloned().collect();
            if more.is_empty() {
                return Ok(None);
            }
            known.jobs = if more.contains(&JobPattern::Any) {
                vec![JobPattern::Any]
            } else {
                known.jobs.iter().cloned().chain(more).collect()
            };
            return next.numbered().map(Some);
        }
        match self.hosts.iter().find(|host| host.name == name) {
            Some(host) if host.revoked.is_some() => return Err(ChangeError::NameRevoked { name: owner() }),
            Some(_) => return Err(ChangeError::NameTaken { name: owner() }),
            None => {}
        }
        next.hosts.push(HostEntry {
            name: owner(),
            key: key.clone(),
            jobs: jobs.to_vec(),
            from,
            until: None,
            revoked: None,
        });
        next.numbered().map(Some)
    }

    /// Ends the belief in a host's key. Of each job its manifests up to the one given stay believed, of other jobs none;
    /// records from before `at` do. Of a host that was revoked before, less may be believed than was then, never more.
    ///
    /// # Errors
    /// Where there is no such host, or it was revoked before and no number is lower now and no moment earlier.
    pub fn without_host(
        &self,
        name: &str,
        at: DateTime<Utc>,
        last_manifests: BTreeMap<JobName, LastBelieved>,
    ) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        let Some(host) = next.hosts.iter_mut().find(|host| host.name == name) else {
            let known = self.hosts.iter().map(|host| host.name.clone()).collect();
            return Err(ChangeError::NoHost { name: name.to_owned(), known });
        };
        if let Some(revoked) = &mut host.revoked {
            let no_more = |(job, last): (&JobName, &LastBelieved)| {
                revoked.last_manifests.get(job).is_some_and(|known| last == known || last.sequence < known.sequence)
            };
            let is_less = at < revoked.at || last_manifests != revoked.last_manifests;
            if at > revoked.at || !is_less || !last_manifests.iter().all(no_more) {
                return Err(ChangeError::AlreadyRevoked { name: name.to_owned(), at: revoked.at });
            }
            *revoked = Revocation { at, last_manifests };
        } else {
            host.revoked = Some(Revocation { at, last_manifests });
        }
        next.numbered()
    }

    /// Approves a recipient. Where there is no approved set yet, it begins with those that are `in_use`.
    ///
    /// # Errors
    /// Where it is no recipient.
    pub fn with_recipient(&self, in_use: &[String], recipient: &str) -> Result<Option<Self>, ChangeError> {
        let mut entries = self.entries(in_use);
        match entries.iter_mut().find(|entry| entry.key == recipient) {
            Some(entry) if entry.until.is_none() && self.recipients.is_some() => return Ok(None),
            Some(entry) => entry.until = None,
            None => entries.push(RecipientEntry { key: recipient.to_owned(), until: None }),
        }
        Self { recipients: Some(entries), ..self.clone() }.numbered().map(Some)
    }

    /// Ends the approval of a recipient at this moment: what was sealed to it before was right then. Where there is no
    /// approved set yet, it begins with those that are `in_use`.
    ///
    /// # Errors
    /// [`ChangeError::LastRecipient`].
    pub fn without_recipient(
        &self,
        in_use: &[String],
        recipient: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<Self>, ChangeError> {
        let mut entries = self.entries(in_use);
        match entries.iter_mut().find(|entry| entry.key == recipient) {
            Some(entry) if entry.until.is_some() => return Ok(None),
            Some(entry) => entry.until = Some(at),
            None => entries.push(RecipientEntry { key: recipient.to_owned(), until: Some(at) }),
        }
        if entries.iter().all(|entry| entry.until.is_some()) {
            return Err(ChangeError::LastRecipient { key: recipient.to_owned() });
        }
        Self { recipients: Some(entries), ..self.clone() }.numbered().map(Some)
    }

    fn entries(&self, in_use: &[String]) -> Vec<RecipientEntry> {
        self.recipients
            .clone()
            .unwrap_or_else(|| in_use.iter().map(|key| RecipientEntry { key: key.clone(), until: None }).collect())
    }

    fn numbered(mut self) -> Result<Self, ChangeError> {
        // One too high is refused by the check.
        self.serial = self.serial.saturating_add(1);
        self.check().map_err(|reason| ChangeError::Unusable { reason })?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ManifestHash, VaultId};
    use crate::vault::keys::SigningKey;

    const ANNE: &str = "age1anne";
    const BORIS: &str = "age1boris";

    fn at(hour: u32) -> DateTime<Utc> {
        format!("2026-11-22T{hour:02}:00:00Z").parse().unwrap()
    }

    fn key() -> PublicKey {
        SigningKey::generate().public().clone()
    }

    fn job(name: &str) -> JobPattern {
        JobPattern::Job(name.parse().unwrap())
    }

    fn first(key: &PublicKey) -> TrustDocument {
        let vault = TrustDocument::first(VaultId::from_random([1; 8]), at(0), Vec::new());
        let one = vault.with_host("web-1", key, &[JobPattern::Any], at(1)).unwrap().unwrap();
        TrustDocument { serial: 1, ..one }
    }

    #[test]
    fn a_document_without_recipients_is_written_as_ever() {
        let text = serde_json::to_string(&first(&key())).unwrap();
        assert!(!text.contains("recipients"), "{text}");
        assert_eq!(serde_json::from_str::<TrustDocument>(&text).unwrap().recipients, None);
    }

    #[test]
    fn hosts_come_with_their_jobs_and_get_more() {
        let (one, two) = (key(), key());
        let trust = first(&one).with_host("web-2", &two, &[job("blog")], at(2)).unwrap().unwrap();
        assert_eq!((trust.serial, trust.hosts.len(), trust.hosts[1].from), (2, 2, at(2)));
        assert_eq!(trust.with_host("web-2", &two, &[job("blog")], at(3)).unwrap(), None, "it may do that already");
        let more = trust.with_host("web-2", &two, &[job("shop"), job("blog")], at(3)).unwrap().unwrap();
        assert_eq!(more.hosts[1].jobs, [job("blog"), job("shop")]);
        assert_eq!((more.serial, more.hosts[1].from), (3, at(2)));
        let all = more.with_host("web-2", &two, &[JobPattern::Any], at(3)).unwrap().unwrap();
        assert_eq!(all.hosts[1].jobs, [JobPattern::Any]);
        assert_eq!(all.with_host("web-2", &two, &[job("shop")], at(3)).unwrap(), None, "all is all");
    }

    #[test]
    fn names_and_keys_are_used_once() {
        let (one, two) = (key(), key());
        let trust = first(&one);
        let add = |trust: &TrustDocument, name: &str, key: &PublicKey| {
            trust.with_host(name, key, &[JobPattern::Any], at(2)).unwrap_err()
        };
        let name = || "web-1".to_owned();
        assert_eq!(add(&trust, "web-1", &two), ChangeError::NameTaken { name: name() });
        assert_eq!(add(&trust, "web-2", &one), ChangeError::KeyTaken { name: name() });
        for bad in ["", "a\nb"] {
            assert!(matches!(add(&trust, bad, &two), ChangeError::Unusable { .. }), "{bad:?}");
        }
        let gone = trust.without_host("web-1", at(3), BTreeMap::new()).unwrap();
        assert_eq!(gone.serial, 2);
        assert_eq!(add(&gone, "web-1", &two), ChangeError::NameRevoked { name: name() });
        assert_eq!(add(&gone, "web-1", &one), ChangeError::KeyRevoked { name: name() });
        assert_eq!(add(&gone, "web-3", &one), ChangeError::KeyRevoked { name: name() });
        gone.with_host("web-1-2", &two, &[JobPattern::Any], at(4)).unwrap().unwrap();
    }

    #[test]
    fn a_host_is_revoked_once_with_what_stays() {
        let trust = first(&key());
        let believed = |sequence| LastBelieved { sequence, hash: ManifestHash([7; 32]) };
        let last = BTreeMap::from([("shop".parse().unwrap(), believed(7))]);
        let gone = trust.without_host("web-1", at(3), last.clone()).unwrap();
        assert_eq!(gone.hosts[0].revoked, Some(Revocation { at: at(3), last_manifests: last }));
        let other = LastBelieved { sequence: 7, hash: ManifestHash([8; 32]) };
        let already = ChangeError::AlreadyRevoked { name: "web-1".into(), at: at(3) };
        for more in [
            &[("shop", believed(7))][..],
            &[("shop", believed(8))],
            &[("shop", other)],
            &[("shop", believed(7)), ("blog", believed(1))],
        ] {
            let more = more.iter().map(|(job, last)| (job.parse().unwrap(), *last)).collect();
            assert_eq!(gone.without_host("web-1", at(3), more).unwrap_err(), already);
        }
        let less = BTreeMap::from([("shop".parse().unwrap(), believed(5))]);
        let less_believed = gone.without_host("web-1", at(3), less.clone()).unwrap();
        assert_eq!(less_believed.hosts[0].revoked, Some(Revocation { at: at(3), last_manifests: less.clone() }));
        assert_eq!(less_believed.serial, 3);
        assert_eq!(gone.without_host("web-1", at(4), less.clone()).unwrap_err(), already, "not a later moment");
        let last = gone.hosts[0].revoked.clone().unwrap().last_manifests;
        let earlier = gone.without_host("web-1", at(2), last.clone()).unwrap();
        assert_eq!(earlier.hosts[0].revoked, Some(Revocation { at: at(2), last_manifests: last }));
        let unknown = trust.without_host("web-9", at(3), BTreeMap::new()).unwrap_err();
        assert!(unknown.hint().unwrap().contains("web-1"), "{unknown}");
    }

    #[test]
    fn recipients_are_approved_in_their_time() {
        let trust = first(&key());
        let of = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert!(trust.unapproved(&of(&[ANNE, BORIS])).is_empty(), "nobody ever said");
        let both = trust.with_recipient(&of(&[ANNE]), BORIS).unwrap().unwrap();
        assert_eq!(both.serial, 2);
        assert_eq!(both.unapproved(&of(&[ANNE, "age1mallory", BORIS])), of(&["age1mallory"]));
        assert_eq!(both.with_recipient(&[], BORIS).unwrap(), None);

        let boris = both.without_recipient(&[], ANNE, at(5)).unwrap().unwrap();
        assert_eq!(boris.unapproved(&of(&[ANNE, BORIS])), of(&[ANNE]));
        assert!(boris.unapproved_at(&of(&[ANNE, BORIS]), at(5)).is_empty(), "it was right then");
        assert_eq!(boris.unapproved_at(&of(&[ANNE, BORIS]), at(6)), of(&[ANNE]));
        assert_eq!(boris.without_recipient(&[], ANNE, at(7)).unwrap(), None, "the first end counts");
        let last = boris.without_recipient(&[], BORIS, at(7)).unwrap_err();
        assert_eq!(last, ChangeError::LastRecipient { key: BORIS.into() });
        let back = boris.with_recipient(&[], ANNE).unwrap().unwrap();
        assert!(back.unapproved(&of(&[ANNE, BORIS])).is_empty());
    }

    #[test]
    fn the_first_change_begins_the_set_with_those_in_use() {
        let trust = first(&key());
        let in_use = [ANNE.to_owned()];
        let same = trust.with_recipient(&in_use, ANNE).unwrap().unwrap();
        assert!(same.unapproved(&in_use).is_empty() && same.recipients.as_ref().unwrap().len() == 1);
        assert_eq!(
            trust.without_recipient(&in_use, ANNE, at(2)).unwrap_err(),
            ChangeError::LastRecipient { key: ANNE.into() }
        );
        // Changed by hand before: what was sealed to the former one was right until now.
        let by_hand = trust.without_recipient(&in_use, BORIS, at(2)).unwrap().unwrap();
        assert!(by_hand.unapproved_at(&[BORIS.to_owned()], at(1)).is_empty());
        assert_eq!(by_hand.unapproved(&[ANNE.to_owned(), BORIS.to_owned()]), [BORIS.to_owned()]);
        assert!(matches!(trust.with_recipient(&in_use, "ssh-rsa"), Err(ChangeError::Unusable { .. })));
    }
}
