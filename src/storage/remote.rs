//! What is the matter with a store across a network, in the few kinds that a person can do something about.

use std::fmt;

use crate::error::Code;

/// What is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteFault {
    /// No keys were found wherever they are looked for.
    NoKeys,
    /// The store does not know the keys, or a signature made with them is wrong.
    KeysRefused,
    /// The keys were temporary, and their time is over.
    KeysExpired,
    /// The keys are right, and do not give this right.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The bucket lies somewhere else.
    WrongRegion {
        /// Where, if the store said.
        right: Option<String>,
    },
    /// This host's clock and the store's are too far apart.
    ClockSkewed,
    /// Nobody answers there: the name is unknown, the connection refused or cut, the answer did not come.
    Unreachable,
    /// The other side's certificate is not believed.
    Untrusted,
    /// It is overloaded, or broken for now.
    Busy,
    /// What arrived is not what was sent, on every try.
    Garbled,
    /// It says that a key is gone, and shows it all the same.
    NotGone,
    /// Something else.
    Refused,
}

/// What store or network said, shortened, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(String);

/// No more of what others say is shown, in characters.
const MAX_SAID_CHARS: usize = 300;

impl Said {
    /// Cleans and cuts what was said.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID_CHARS).collect())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

impl RemoteFault {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoKeys | Self::KeysRefused | Self::KeysExpired | Self::Denied => Code::StorageDenied,
            Self::NoBucket => Code::VaultMissing,
            Self::WrongRegion { .. } => Code::ConfigInvalid,
            Self::ClockSkewed => Code::ClockWrong,
            Self::Unreachable | Self::Busy => Code::StorageUnreachable,
            Self::Untrusted | Self::Garbled | Self::NotGone | Self::Refused => Code::StorageFailed,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKeys => {
                "write `access_key` and `secret_key` into the vault's part of the config, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role for this machine"
                    .into()
            }
            Self::KeysRefused => "are key and secret those of this store? `access_key` and `secret_key` in the config, else \
                                  AWS_ACCESS_KEY_ID, else the profile's"
                .into(),
            Self::KeysExpired => "renew the temporary keys, then run it again".into(),
            Self::Denied => "give these keys the right (docs/S3.md lists who needs which), then run it again".into(),
            Self::NoBucket => "make the bucket, or mend the vault's `url` or `endpoint` in the config".into(),
            Self::WrongRegion { right: Some(right) } => format!("write region = \"{right}\" into the vault's part of the config"),
            Self::WrongRegion { right: None } => {
                "write the bucket's `region` into the vault's part of the config (or its `endpoint`, if it is not AWS's)".into()
            }
            Self::ClockSkewed => "set this host's clock (`timedatectl` shows it), then run it again".into(),
            Self::Unreachable => "look at the network and the vault's `endpoint` and `region`, then run it again".into(),
            Self::Untrusted => "name the authority that vouches for the endpoint: ca = \"/path.pem\" in the vault's part of the config".into(),
            Self::Busy => "run it again later, or with fewer `parallel_requests`".into(),
            Self::Garbled => "something between this host and the store changes data: look at proxies and memory, then run it again".into(),
            Self::NotGone => "ask whoever runs the store; nothing counts as erased there until it is gone".into(),
            Self::Refused => "ask whoever runs the store, with its words".into(),
        })
    }

    /// Whether the same could go well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy | Self::Garbled)
    }
}

impl fmt::Display for RemoteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeys => "no keys to the store were found",
            Self::KeysRefused => "the store does not take these keys",
            Self::KeysExpired => "the keys' time is over",
            Self::Denied => "these keys may not do it",
            Self::NoBucket => "there is no such bucket",
            Self::WrongRegion { right: Some(right) } => return write!(f, "the bucket lies in region {right}"),
            Self::WrongRegion { right: None } => "the bucket lies in another region",
            Self::ClockSkewed => "this host's clock is too far from the store's",
            Self::Unreachable => "the store does not answer",
            Self::Untrusted => "the store's certificate is not believed",
            Self::Busy => "the store is too busy",
            Self::Garbled => "what arrived is not what was sent",
            Self::NotGone => "the store says that it is gone, and still has it",
            Self::Refused => "the store refused",
        })
    }
}
