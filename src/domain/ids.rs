//! Names and identifiers: what they look like, and what they must not be.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

/// Why a text is not the name or id that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Job and source names go into keys, paths, labels and environment variables.
    #[error(
        "{text:?} is not a usable name: lowercase letters, digits, `-` and `_`, a letter first, at most 63 characters"
    )]
    Name {
        /// What was given.
        text: String,
    },
    /// A digest is 64 lowercase hexadecimal digits.
    #[error("{text:?} is not a SHA-256 or BLAKE3 digest in lowercase hexadecimal")]
    Digest {
        /// What was given.
        text: String,
    },
    /// A backup or record id is 16 lowercase hexadecimal digits.
    #[error("{text:?} is not an id of 16 lowercase hexadecimal digits")]
    Id {
        /// What was given.
        text: String,
    },
    /// `20261122T020000Z`.
    #[error("{text:?} is not a time like 20261122T020000Z")]
    Stamp {
        /// What was given.
        text: String,
    },
}

macro_rules! string_serde {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let fits = text.len() <= 63
                    && text.starts_with(|c: char| c.is_ascii_lowercase())
                    && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
                if fits { Ok(Self(text.to_owned())) } else { Err(IdError::Name { text: text.to_owned() }) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        string_serde!($type);
    };
}

name! {
    /// A job's name.
    JobName
}
name! {
    /// A source's name within its job.
    SourceName
}

macro_rules! digest {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; 32]);

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if lower => Ok(Self(bytes)),
                    _ => Err(IdError::Digest { text: text.chars().take(80).collect() }),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        string_serde!($type);
    };
}

digest! {
    /// The SHA-256 of a stored object's or list's bytes: its name in the vault.
    ObjectId
}
digest! {
    /// The keyed BLAKE3 of a segment's plain bytes: how a writer knows that it stored the same content before.
    KeyedId
}
digest! {
    /// An unkeyed BLAKE3 of plain content: only ever stored sealed.
    ContentHash
}
digest! {
    /// The SHA-256 of a manifest's bytes, by which the next one points back.
    ManifestHash
}

macro_rules! short_id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// An id from eight random bytes.
            #[must_use]
            pub fn from_random(bytes: [u8; 8]) -> Self {
                Self(hex::encode(bytes))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let fits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if fits { Ok(Self(text.to_owned())) } else { Err(IdError::Id { text: text.chars().take(80).collect() }) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        string_serde!($type);
    };
}

short_id! {
    /// One backup.
    BackupId
}
short_id! {
    /// One record: a run, a drill, a removal.
    RecordId
}
short_id! {
    /// One run of `backup`, as its claims name it.
    RunId
}
short_id! {
    /// One vault.
    VaultId
}

/// A moment as it stands in keys, to the second: `20261122T020000Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(DateTime<Utc>);

impl Stamp {
    /// Cuts a moment to the second.
    #[must_use]
    pub fn of(moment: DateTime<Utc>) -> Self {
        Self(DateTime::from_timestamp(moment.timestamp(), 0).unwrap_or(moment))
    }

    /// The moment.
    #[must_use]
    pub fn moment(self) -> DateTime<Utc> {
        self.0
    }
}

const STAMP_FORMAT: &str = "%Y%m%dT%H%M%SZ";

impl FromStr for Stamp {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        NaiveDateTime::parse_from_str(text, STAMP_FORMAT)
            .map(|naive| Self(naive.and_utc()))
            .map_err(|_| IdError::Stamp { text: text.to_owned() })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format(STAMP_FORMAT))
    }
}

string_serde!(Stamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_narrow() {
        for good in ["shop", "a", "db-2_x"] {
            assert_eq!(good.parse::<JobName>().unwrap().as_str(), good);
        }
        for bad in ["", "Shop", "2nd", "a/b", "a.b", "-a", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_and_stamps_round_trip() {
        let id = ObjectId([0xab; 32]);
        assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
        assert!("AB".repeat(32).parse::<ObjectId>().is_err());
        let stamp: Stamp = "20261122T020000Z".parse().unwrap();
        assert_eq!(stamp.to_string(), "20261122T020000Z");
        assert!("20261322T020000Z".parse::<Stamp>().is_err());
    }
}
