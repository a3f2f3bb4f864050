//! The only maker of keys: what lies where in a vault, and what a key that was found there is.
//!
//! Parsing is the exact inverse of printing: a key that differs in one byte from how it would be written is a
//! stray.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::domain::claim::Claim;
use crate::domain::ids::{BackupId, JobName, ManifestHash, ObjectId, RecordId, RunId, Stamp};
use crate::domain::manifest::Manifest;
use crate::domain::record::Record;

/// Where objects lie.
pub const OBJECTS: &str = "objects/";
/// Where lists lie.
pub const LISTS: &str = "lists/";
/// Where manifests lie.
pub const BACKUPS: &str = "backups/";
/// Where records lie.
pub const RECORDS: &str = "records/";
/// Where claims lie.
pub const CLAIMS: &str = "claims/";

const README: &str = "README.txt";
const TRUST: &str = "vault.json";
const TRUST_NEXT: &str = "vault.json.next";
const SIGNATURE: &str = ".minisig";
const DOCUMENT: &str = ".json";
const DETAILS: &str = ".details.age";

/// The name of an object or list: the SHA-256 of its bytes.
#[must_use]
pub fn object_id(bytes: &[u8]) -> ObjectId {
    ObjectId(Sha256::digest(bytes).into())
}

/// By which the next manifest points back: the SHA-256 of a manifest's bytes.
#[must_use]
pub fn manifest_hash(bytes: &[u8]) -> ManifestHash {
    ManifestHash(Sha256::digest(bytes).into())
}

/// Where a manifest lies, without its ending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestName {
    /// The job.
    pub job: JobName,
    /// The recovery point, to the second.
    pub stamp: Stamp,
    /// The backup.
    pub id: BackupId,
}

impl ManifestName {
    /// Where this manifest belongs.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        Self { job: manifest.job.clone(), stamp: manifest.stamp(), id: manifest.id.clone() }
    }
}

/// Where a record lies, without its ending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    folder: String,
    stamp: Stamp,
    id: RecordId,
}

impl RecordName {
    /// Where this record belongs.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { folder: record.body.folder().to_owned(), stamp: Stamp::of(record.recorded), id: record.id.clone() }
    }

    /// The folder under `records/`.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        &self.id
    }

    /// When it was written, to the second, as its name says.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// Where a claim lies, without its ending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimName {
    /// The job.
    pub job: JobName,
    /// The run.
    pub run: RunId,
    /// How often the claim was made, from 1.
    pub number: u64,
}

impl ClaimName {
    /// Where this claim belongs.
    #[must_use]
    pub fn of(claim: &Claim) -> Self {
        Self { job: claim.job.clone(), run: claim.run.clone(), number: claim.number }
    }
}

/// What a key of a vault is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// How to restore by hand.
    Readme,
    /// vault.json.
    Trust,
    /// Its signature.
    TrustSignature,
    /// The signature of the vault.json that is about to be written.
    TrustNextSignature,
    /// A segment, of data or contents.
    Object(ObjectId),
    /// A list of segments.
    List(ObjectId),
    /// A manifest.
    Manifest(ManifestName),
    /// A manifest's signature.
    ManifestSignature(ManifestName),
    /// A record.
    Record(RecordName),
    /// A record's signature.
    RecordSignature(RecordName),
    /// A record's sealed details.
    RecordDetails(RecordName),
    /// A claim.
    Claim(ClaimName),
    /// Something that no lifeboat of this version made.
    Stray(String),
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BACKUPS}{}/{}-{}{DOCUMENT}", self.job, self.stamp, self.id)
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RECORDS}{}/{}-{}", self.folder, self.stamp, self.id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Readme => f.write_str(README),
            Self::Trust => f.write_str(TRUST),
            Self::TrustSignature => write!(f, "{TRUST}{SIGNATURE}"),
            Self::TrustNextSignature => write!(f, "{TRUST_NEXT}{SIGNATURE}"),
            Self::Object(id) => hashed(f, OBJECTS, *id),
            Self::List(id) => hashed(f, LISTS, *id),
            Self::Manifest(name) => write!(f, "{name}"),
            Self::ManifestSignature(name) => write!(f, "{name}{SIGNATURE}"),
            Self::Record(name) => write!(f, "{name}{DOCUMENT}"),
            Self::RecordSignature(name) => write!(f, "{name}{DOCUMENT}{SIGNATURE}"),
            Self::RecordDetails(name) => write!(f, "{name}{DETAILS}"),
            Self::Claim(name) => write!(f, "{CLAIMS}{}/{}-{}{DOCUMENT}", name.job, name.run, name.number),
            Self::Stray(key) => f.write_str(key),
        }
    }
}

fn hashed(f: &mut fmt::Formatter<'_>, folder: &str, id: ObjectId) -> fmt::Result {
    write!(f, "{folder}{:02x}/{id}", id.0[0])
}

impl Key {
    /// What a key that was found is. Anything that is not exactly as it would be written is a stray.
    #[must_use]
    pub fn parse(key: &str) -> Self {
        let parsed = parse(key).unwrap_or_else(|| Self::Stray(key.to_owned()));
        if parsed.to_string() == key { parsed } else { Self::Stray(key.to_owned()) }
    }

    /// Below this lie the manifests of one job, or of all.
    #[must_use]
    pub fn manifests_of(job: Option<&JobName>) -> String {
        match job {
            Some(job) => format!("{BACKUPS}{job}/"),
            None => BACKUPS.to_owned(),
        }
    }

    /// Below this lie the records of one folder, such as `removals`.
    #[must_use]
    pub fn records_in(folder: &str) -> String {
        format!("{RECORDS}{folder}/")
    }

    /// Below this lie the claims of one job, or of all.
    #[must_use]
    pub fn claims_of(job: Option<&JobName>) -> String {
        match job {
            Some(job) => format!("{CLAIMS}{job}/"),
            None => CLAIMS.to_owned(),
        }
    }
}

fn parse(key: &str) -> Option<Key> {
    match key {
        README => return Some(Key::Readme),
        TRUST => return Some(Key::Trust),
        "vault.json.minisig" => return Some(Key::TrustSignature),
        "vault.json.next.minisig" => return Some(Key::TrustNextSignature),
        _ => {}
    }
    let (room, rest) = key.split_once('/')?;
    let (folder, file) = rest.split_once('/')?;
    match room {
        "objects" => file.parse().ok().map(Key::Object),
        "lists" => file.parse().ok().map(Key::List),
        "backups" => {
            let job = folder.parse().ok()?;
            let manifest = |(stamp, id): (Stamp, &str)| Some(ManifestName { job, stamp, id: id.parse().ok()? });
            match file.strip_suffix(SIGNATURE) {
                Some(file) => dated(file.strip_suffix(DOCUMENT)?).and_then(manifest).map(Key::ManifestSignature),
                None => dated(file.strip_suffix(DOCUMENT)?).and_then(manifest).map(Key::Manifest),
            }
        }
        "records" => {
            if folder.is_empty() || !folder.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                return None;
            }
            let folder = folder.to_owned();
            let record = |(stamp, id): (Stamp, &str)| Some(RecordName { folder, stamp, id: id.parse().ok()? });
            if let Some(file) = file.strip_suffix(DETAILS) {
                return dated(file).and_then(record).map(Key::RecordDetails);
            }
            match file.strip_suffix(SIGNATURE) {
                Some(file) => dated(file.strip_suffix(DOCUMENT)?).and_then(record).map(Key::RecordSignature),
                None => dated(file.strip_suffix(DOCUMENT)?).and_then(record).map(Key::Record),
            }
        }
        "claims" => {
            let (run, number) = file.strip_suffix(DOCUMENT)?.split_once('-')?;
            let name = ClaimName { job: folder.parse().ok()?, run: run.parse().ok()?, number: number.parse().ok()? };
            Some(Key::Claim(name))
        }
        _ => None,
    }
}

fn dated(file: &str) -> Option<(Stamp, &str)> {
    let (stamp, id) = file.split_once('-')?;
    Some((stamp.parse().ok()?, id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::check_key;

    fn stamp() -> impl Strategy<Value = Stamp> {
        (0i64..253_402_300_800).prop_map(|seconds| Stamp::of(chrono::DateTime::from_timestamp(seconds, 0).unwrap()))
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let object = any::<[u8; 32]>().prop_map(ObjectId).boxed();
        let job = "[a-z][a-z0-9_-]{0,62}".prop_map(|name| name.parse::<JobName>().unwrap()).boxed();
        let manifest = (job.clone(), stamp(), any::<[u8; 8]>())
            .prop_map(|(job, stamp, id)| ManifestName { job, stamp, id: BackupId::from_random(id) })
            .boxed();
        let record = ("[a-z][a-z-]{0,20}", stamp(), any::<[u8; 8]>())
            .prop_map(|(folder, stamp, id)| RecordName { folder, stamp, id: RecordId::from_random(id) })
            .boxed();
        prop_oneof![
            Just(Key::Readme),
            Just(Key::Trust),
            Just(Key::TrustSignature),
            Just(Key::TrustNextSignature),
            object.clone().prop_map(Key::Object),
            object.prop_map(Key::List),
            manifest.clone().prop_map(Key::Manifest),
            manifest.prop_map(Key::ManifestSignature),
            record.clone().prop_map(Key::Record),
            record.clone().prop_map(Key::RecordSignature),
            record.prop_map(Key::RecordDetails),
            (job, any::<[u8; 8]>(), any::<u64>()).prop_map(|(job, run, number)| Key::Claim(ClaimName {
                job,
                run: RunId::from_random(run),
                number
            })),
        ]
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(key in any_key()) {
            let text = key.to_string();
            check_key(&text).unwrap();
            prop_assert_eq!(Key::parse(&text), key);
        }

        #[test]
        fn a_changed_key_is_never_taken_for_the_same(key in any_key(), at in any::<prop::sample::Index>(), byte in 32u8..127) {
            let mut text = key.to_string().into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != byte);
            text[at] = byte;
            let changed = String::from_utf8(text).unwrap();
            let parsed = Key::parse(&changed);
            prop_assert_ne!(&parsed, &key);
            prop_assert_eq!(parsed.to_string(), changed);
        }

        #[test]
        fn junk_is_a_stray_or_is_written_back_alike(text in "\\PC{0,80}") {
            prop_assert_eq!(Key::parse(&text).to_string(), text);
        }
    }

    #[test]
    fn the_table_of_the_format() {
        let id = object_id(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Key::Object(id).to_string(), format!("objects/ba/{hex}"));
        assert_eq!(Key::List(id).to_string(), format!("lists/ba/{hex}"));
        for known in [
            "backups/shop/20261122T020000Z-0011223344556677.json",
            "backups/shop/20261122T020000Z-0011223344556677.json.minisig",
            "records/drills/20261122T020000Z-0011223344556677.json",
            "records/removals/20261122T020000Z-0011223344556677.json.minisig",
            "records/runs/20261122T020000Z-0011223344556677.details.age",
            "claims/shop/0011223344556677-1.json",
        ] {
            assert!(!matches!(Key::parse(known), Key::Stray(_)), "{known}");
        }
        for stray in [
            String::new(),
            "objects".into(),
            format!("objects/bb/{hex}"),
            format!("objects/ba/{}", hex.to_uppercase()),
            format!("objects/ba/{hex}.tmp"),
            format!("objects/ba/x/{hex}"),
            "vault.json.bak".into(),
            "backups/Shop/20261122T020000Z-0011223344556677.json".into(),
            "backups/shop/2026112T020000Z-0011223344556677.json".into(),
            "backups/shop/20261122T020000Z-0011223344556677.json.minisig.minisig".into(),
            "backups/shop/20261122T020000Z-0011223344556677.json~".into(),
            "records//20261122T020000Z-0011223344556677.json".into(),
            "claims/shop/a/b.json".into(),
            "claims/shop/0011223344556677-01.json".into(),
            "claims/shop/0011223344556677.json".into(),
            "lost+found/x".into(),
        ] {
            assert_eq!(Key::parse(&stray), Key::Stray(stray.clone()));
        }
    }
}
