//! Tar bytes to segments and back: cut, compress, seal, open. Bytes in, bytes out: nothing here knows where they
//! come from or where they lie.

mod cut;
mod identity;
mod keys;
mod open;
mod sealer;

pub use cut::{Cutter, GearTable};
pub use identity::Identities;
pub use keys::{HostSecret, SourceKeys};
pub use open::Opener;
pub use sealer::{Sealed, Sealer, keyed_id, recipient_set};

use crate::error::{Code, Diagnostic};

/// Why bytes could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A public key cannot be parsed.
    #[error("{text:?} is not an age recipient")]
    Recipient {
        /// The text; public keys are no secret.
        text: String,
    },
    /// Nobody could ever open it.
    #[error("there is no recipient to seal to")]
    NoRecipients,
    /// An identity file holds no identity.
    #[error("{place} holds no age identity")]
    NoIdentities {
        /// Where it was looked for.
        place: String,
    },
    /// A line of an identity file is neither an identity nor a comment.
    #[error("line {line} of {place} is not an age identity")]
    Identity {
        /// Which file.
        place: String,
        /// Which line, from 1. Its text is not shown: it may be most of a secret.
        line: usize,
    },
    /// The identities at hand are not among the recipients.
    #[error("none of the identities given opens this")]
    NotForUs,
    /// The bytes are not what was sealed.
    #[error("{reason}")]
    Damaged {
        /// Which of the layers noticed.
        reason: String,
    },
    /// A library refused to seal.
    #[error("sealing failed: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
}

impl Diagnostic for SealError {
    fn code(&self) -> Code {
        match self {
            Self::Recipient { .. } | Self::NoRecipients => Code::ConfigInvalid,
            Self::NoIdentities { .. } | Self::Identity { .. } => Code::KeyMissing,
            Self::NotForUs => Code::NoIdentity,
            Self::Damaged { .. } => Code::ObjectDamaged,
            Self::Failed { .. } => Code::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRecipients => {
                Some("add the public key of an identity to `recipients`; `lifeboat key new` makes one".to_owned())
            }
            Self::NoIdentities { .. } | Self::Identity { .. } => {
                Some("give the file that `lifeboat init` or `lifeboat key new` wrote: `--identity FILE`".to_owned())
            }
            _ => None,
        }
    }
}
