//! The place of a copy: made out of nothing, found again, or refused because it is something else.
//!
//! A copy has the vault.json of its source, byte for byte, and so the same id, the same hosts and the same signing key:
//! whoever may read the one may read the other, with the same pin.

use std::sync::Arc;

use super::super::host::Host;
use super::super::vaults::{OpenVault, must_be_newest, place, storage};
use crate::config::{VaultRole, VaultSettings};
use crate::error::{Code, Error, Result};
use crate::storage::Storage;
use crate::vault::identity::{Pin, comment_lines, read_comments};
use crate::vault::layout::Key;
use crate::vault::readme::write_readme;
use crate::vault::trust::{exists, read_signed_trust, read_trust, write_signed_trust};
use crate::vault::{Distrust, VaultError};

/// Opens the copy of a vault, and makes it where there is nothing yet; brings vault.json there where it changed.
///
/// # Errors
/// Where another vault, a newer vault.json or anything else lies there; where a copy was there once and is not now;
/// the store's.
pub fn open_copy(host: &Host, source: &OpenVault, settings: &VaultSettings) -> Result<OpenVault> {
    let pin = pin_of(host, source)?;
    open_copy_on(host, source, settings, storage(host, settings)?, &pin)
}

/// As [`open_copy`], in a store that is open.
pub(super) fn open_copy_on(
    host: &Host,
    source: &OpenVault,
    settings: &VaultSettings,
    storage: Arc<dyn Storage>,
    pin: &Pin,
) -> Result<OpenVault> {
    let role = VaultRole::Copy { of: source.settings.name.clone() };
    let settings = VaultSettings { role, ..settings.clone() };
    let id = place(&settings, &source.trust.vault);
    let home = host.home()?;
    let signed = host.runtime.block_on(read_signed_trust(&*source.storage, pin))?;
    // Somebody may have changed it since the source was opened.
    must_be_newest(host, &*source.storage, &source.id, &signed.trust)?;
    let is_there = host.runtime.block_on(exists(&*storage)).map_err(VaultError::from)?;
    if is_there {
        let found = host.runtime.block_on(read_trust(&*storage, pin)).map_err(|error| another(&error, &settings))?;
        let (here, there) = (signed.trust.serial, found.serial);
        if there > here || (there == here && found.digest() != signed.trust.digest()) {
            let reason = match there > here {
                true => Distrust::RolledBack { found: here, seen: there },
                false => Distrust::Forked { serial: here },
            };
            let error = Error::from(VaultError::Untrusted { place: source.storage.describe(), reason });
            return Err(error.context("nothing was copied: the copy knows better than its source").with_hint(format!(
                "compare vault.json in both, and `lifeboat host list` with --vault {} and --vault {}; put the newest one back \
                 where it is missing, its signature with it",
                source.settings.name, settings.name
            )));
        }
        if there < here {
            host.runtime.block_on(write_signed_trust(&*storage, &signed)).map_err(VaultError::from)?;
        }
    } else {
        refuse_what_is_not_empty(host, &*storage, &settings)?;
        host.runtime
            .block_on(async {
                write_readme(&*storage).await?;
                write_signed_trust(&*storage, &signed).await
            })
            .map_err(VaultError::from)?;
    }
    must_be_newest(host, &*storage, &id, &signed.trust)?;
    if home.state.pinned_trust(&settings.name)?.is_none() {
        home.state.pin_trust(&settings.name, &comment_lines(&signed.trust.vault, &pin.key))?;
    }
    Ok(OpenVault { id, settings, storage, trust: signed.trust })
}

/// Whether an empty place waits for its first copy. False where a vault lies there.
///
/// # Errors
/// Where the place is not there, is not empty, or had a copy once; the store's.
pub fn awaits_first_copy(host: &Host, settings: &VaultSettings) -> Result<bool> {
    let storage = storage(host, settings)?;
    if host.runtime.block_on(exists(&*storage)).map_err(VaultError::from)? {
        return Ok(false);
    }
    refuse_what_is_not_empty(host, &*storage, settings)?;
    Ok(true)
}

/// Whom the source is believed through: this host pinned that when it opened it.
fn pin_of(host: &Host, source: &OpenVault) -> Result<Pin> {
    let lines = host.home()?.state.pinned_trust(&source.settings.name)?;
    let pin = lines.as_deref().map(read_comments).transpose()?.flatten();
    pin.ok_or_else(|| {
        Error::new(
            Code::VaultUntrusted,
            format!("nothing says whose signature vault {} must have", source.settings.name),
        )
        .with_hint("write its key as `trust` into the config")
    })
}

fn another(error: &VaultError, settings: &VaultSettings) -> Error {
    match error {
        VaultError::Untrusted { .. } => Error::new(
            Code::VaultUntrusted,
            format!("{} has another vault in it, or one that was tampered with: {error}", settings.url),
        )
        .with_hint(format!("a copy needs a place of its own: write another url into [vault.{}]", settings.name)),
        error => Error::new(crate::error::Diagnostic::code(error), crate::error::chain(error)),
    }
}

/// A first copy is made into an empty place only, and only if there never was one: an empty folder where a copy should be
/// is a disk that is not mounted.
fn refuse_what_is_not_empty(host: &Host, storage: &dyn Storage, settings: &VaultSettings) -> Result<()> {
    let home = host.home()?;
    if home.state.pinned_trust(&settings.name)?.is_some() {
        let message = format!("{} was a copy of this vault once, and there is none in it now", settings.url);
        return Err(Error::new(Code::VaultMissing, message).with_hint(format!(
            "see that its disk is mounted; if it is lost for good, remove {} and copy again into an empty place",
            home.state.pin_file(&settings.name).display()
        )));
    }
    let mut foreign: Option<String> = None;
    // What a first copy left that was killed is ours.
    let ours = [Key::Readme, Key::TrustSignature, Key::TrustNextSignature].map(|key| key.to_string());
    let visit = &mut |listed: crate::storage::Listed| {
        if foreign.is_none() && !ours.contains(&listed.key) {
            foreign = Some(listed.key);
        }
    };
    host.runtime.block_on(storage.list("", visit)).map_err(VaultError::from)?;
    match foreign {
        None => Ok(()),
        Some(key) => Err(Error::new(
            Code::VaultMissing,
            format!("{} is neither empty nor a copy of this vault: {key} lies there, and no vault.json", settings.url),
        )
        .with_hint(format!("write an empty place as the url of [vault.{}]", settings.name))),
    }
}
