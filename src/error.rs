//! Every failure that reaches a person, in a few kinds named by what one can do about them.
//!
//! A module states facts in its own error enum and says, through [`Diagnostic`], which stable [`Code`] they have
//! and what to type next. This file knows no module.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong as far as a script is concerned; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It did not work; nothing more special is known.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Done, but something could not be read.
    Partial,
    /// There is no vault where the config says.
    NoVault,
    /// Another process of this host works on the same job.
    Locked,
    /// None of the identities at hand opens this.
    NoIdentity,
    /// Something in the vault is not what it was.
    Damage,
    /// A drill did not pass.
    DrillFailed,
    /// A drill passed, but took longer than its objective.
    ObjectiveMissed,
    /// Something should have been erased by now and was not.
    ErasureBreached,
    /// The config cannot be used.
    Config,
    /// A signal ended it.
    Interrupted,
}

impl Kind {
    /// The process's exit code (docs/ERRORS.md lists them).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::NoVault => 10,
            Self::Locked => 11,
            Self::NoIdentity => 12,
            Self::Damage => 20,
            Self::DrillFailed => 21,
            Self::ObjectiveMissed => 22,
            Self::ErasureBreached => 23,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }
}

macro_rules! codes {
    ($($variant:ident, $name:literal, $kind:ident, $meaning:literal;)*) => {
        /// A stable name for a failure: scripts and runbooks may rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the table in docs/ERRORS.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as printed: lowercase, with a dash.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind it belongs to.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    Usage, "usage", Usage, "The command line asks for something that does not exist or does not fit together.";
    NotFound, "not-found", Usage, "The job, source, backup or path that was named does not exist.";
    TargetNotEmpty, "target-not-empty", Usage, "The folder to restore into has something in it already.";
    ConfigMissing, "config-missing", Config, "No config file was found where one was looked for.";
    ConfigInvalid, "config-invalid", Config, "The config has a mistake: an unknown key, a bad value, or values that contradict each other.";
    ObjectiveUnreachable, "objective-unreachable", Config, "The schedule alone cannot keep the promised RPO.";
    SecretUnavailable, "secret-unavailable", Config, "A secret that the config refers to cannot be read.";
    VaultMissing, "vault-missing", NoVault, "There is no vault at the place given.";
    VaultVersion, "vault-version", NoVault, "The vault was written by a newer lifeboat.";
    VaultUntrusted, "vault-untrusted", Damage, "vault.json is not signed by the key that this host trusts.";
    ManifestUntrusted, "manifest-untrusted", Damage, "A manifest's signature, scope or place is wrong.";
    ManifestMissing, "manifest-missing", Damage, "A manifest that must exist, because later ones stand, is gone.";
    ObjectDamaged, "object-damaged", Damage, "An object's bytes are not those that its name says.";
    ObjectMissing, "object-missing", Damage, "An object that a backup names is not in the vault.";
    RecipientUnapproved, "recipient-unapproved", Damage, "A backup is sealed to somebody whom vault.json does not approve: they can read it.";
    DataUnsafe, "data-unsafe", Damage, "A backup holds something that must not be unpacked: a path that leads out of the target, or more data than declared.";
    HostUnauthorised, "host-unauthorised", Failed, "This host's key is not among those that vault.json lets write this job.";
    KeyMissing, "key-missing", Failed, "A key file is missing, is none, or cannot be read or written.";
    Locked, "locked", Locked, "Another lifeboat process, of this host or of another one, works on the job.";
    ClockWrong, "clock-wrong", Failed, "This host's clock and the vault's, or the last backup's, do not agree.";
    ClaimLost, "claim-lost", Failed, "A run could not keep its claim on what it stored, or a sweep took something of it; nothing was committed.";
    DeletionStopped, "deletion-stopped", Damage, "Something in the vault cannot be believed, and as long as nobody has looked at it nothing is deleted.";
    ErasureBreached, "erasure-breached", ErasureBreached, "Something older than `delete_after` is still in the vault.";
    RetentionUnkeepable, "retention-unkeepable", Config, "The schedule alone cannot erase within the promised window.";
    NoIdentity, "no-identity", NoIdentity, "None of the identities given opens this backup.";
    SourceUnavailable, "source-unavailable", Failed, "A source cannot be read at all.";
    SourcePartial, "source-partial", Partial, "A part of a source could not be read; the rest is stored.";
    StorageFull, "storage-full", Failed, "The disk or the quota is full.";
    StorageDenied, "storage-denied", Failed, "The store does not know the keys of this host, or they do not give the right that was needed.";
    StorageUnreachable, "storage-unreachable", Failed, "The store did not answer, or answered that it is too busy, however often it was asked.";
    StorageFailed, "storage-failed", Failed, "Reading or writing the vault failed.";
    LockUnavailable, "lock-unavailable", Config, "The config says that what is stored is held against deletion, and the store cannot hold it.";
    CatalogFailed, "catalog-failed", Failed, "The catalog in the state folder cannot be used.";
    StateFailed, "state-failed", Failed, "A file of the state folder cannot be read or written.";
    RestoreFailed, "restore-failed", Failed, "A file could not be written where it should be restored.";
    ScratchFailed, "scratch-failed", DrillFailed, "The scratch environment could not be made, or has too little room.";
    Unconfined, "unconfined", DrillFailed, "Checks would have to run with this user's own rights, and the config does not allow it.";
    ToolFailed, "tool-failed", Failed, "An outside tool is missing, failed, or took too long.";
    HookFailed, "hook-failed", Failed, "A program that the config has run before or after a backup failed.";
    NotifyFailed, "notify-failed", Failed, "A notification did not arrive at its channel.";
    DrillFailed, "drill-failed", DrillFailed, "A drill's checks did not pass.";
    ObjectiveMissed, "objective-missed", ObjectiveMissed, "A drill passed, but took longer than the RTO objective.";
    DemoFailed, "demo-failed", Failed, "The demo could not build its shop, or a step of it did not come out as it must.";
    Killed, "killed", Failed, "A run, a drill or a check never said how it ended: its process was killed, or the machine went down.";
    Interrupted, "interrupted", Interrupted, "A signal ended the run; nothing was committed.";
    Internal, "internal", Failed, "Lifeboat broke a rule of its own; please report it.";
}

/// What a module's error says of itself, besides its message.
pub trait Diagnostic: StdError + Send + Sync + 'static {
    /// The stable code.
    fn code(&self) -> Code;
    /// What to type or look at next, as one sentence or command.
    fn hint(&self) -> Option<String> {
        None
    }
    /// Whether the same could go well a little later.
    fn is_transient(&self) -> bool {
        false
    }
}

/// A failure on its way to a person.
#[derive(Debug, Clone)]
pub struct Error {
    code: Code,
    message: String,
    hint: Option<String>,
    transient: bool,
}

/// The result of a verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure without a module's enum behind it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, transient: false }
    }

    /// Adds or replaces the hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done before the message: `job shop: ...`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The kind, which decides the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.code.kind()
    }

    /// What to do next, if there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the same could go well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

impl<E: Diagnostic> From<E> for Error {
    fn from(error: E) -> Self {
        Self { code: error.code(), message: chain(&error), hint: error.hint(), transient: error.is_transient() }
    }
}

/// The message of an error and of everything that caused it, joined by colons.
pub fn chain(error: &dyn StdError) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = inner.source();
    }
    message
}
