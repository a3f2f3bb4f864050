//! Which failures may pass by themselves, so that the same is worth another try within the hour. The one place that says so.

use crate::error::{Code, Error};

/// Whether to try again.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    error.is_transient() || code_may_pass(error.code())
}

/// By the code alone: everything that a server, a network, a mount or another process may have done, and nothing that only
/// a person can put right.
#[must_use]
pub fn code_may_pass(code: Code) -> bool {
    match code {
        // A server that starts anew, a share that is not mounted yet, a store that is slow today.
        Code::SourceUnavailable | Code::StorageFailed | Code::StorageUnreachable | Code::VaultMissing => true,
        // Somebody else is at it, or was in the way.
        Code::Locked | Code::ClaimLost | Code::CatalogFailed => true,
        // After a start of the machine, until its clock is set.
        Code::ClockWrong => true,
        Code::Usage
        | Code::NotFound
        | Code::TargetNotEmpty
        | Code::ConfigMissing
        | Code::ConfigInvalid
        | Code::ObjectiveUnreachable
        | Code::SecretUnavailable
        | Code::VaultVersion
        | Code::VaultUntrusted
        | Code::ManifestUntrusted
        | Code::ManifestMissing
        | Code::ObjectDamaged
        | Code::ObjectMissing
        | Code::RecipientUnapproved
        | Code::DataUnsafe
        | Code::HostUnauthorised
        | Code::KeyMissing
        | Code::DeletionStopped
        | Code::ErasureBreached
        | Code::RetentionUnkeepable
        | Code::NoIdentity
        | Code::SourcePartial
        | Code::StorageFull
        | Code::StorageDenied
        | Code::LockUnavailable
        | Code::HookFailed
        | Code::NotifyFailed
        | Code::Killed
        | Code::StateFailed
        | Code::RestoreFailed
        | Code::ScratchFailed
        | Code::Unconfined
        | Code::ToolFailed
        | Code::DrillFailed
        | Code::ObjectiveMissed
        | Code::DemoFailed
        | Code::Interrupted
        | Code::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_put_right_is_not_tried_again() {
        let passing: Vec<&str> =
            Code::ALL.iter().filter(|code| code_may_pass(**code)).map(|code| code.name()).collect();
        assert_eq!(
            passing,
            [
                "vault-missing",
                "locked",
                "clock-wrong",
                "claim-lost",
                "source-unavailable",
                "storage-unreachable",
                "storage-failed",
                "catalog-failed"
            ]
        );
    }
}
