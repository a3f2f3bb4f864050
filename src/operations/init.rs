//! `init`: what is missing is made, nothing that is there is changed.
//!
//! A vault begins with its offline key: it signs vault.json, which names this host's key as one that may write. The
//! identity that opens the backups is made by whoever has no config yet; afterwards `init` never makes one.

use std::path::{Path, PathBuf};

use rand::RngExt;
use serde::Serialize;

use crate::config::{VaultSettings, VaultUrl};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::VaultId;
use crate::error::{Code, Error, Result};
use crate::seal::{Identities, Opener, Sealer};
use crate::storage::Storage;
use crate::vault::identity::{Pin, comment_lines, read_comments};
use crate::vault::keys::SigningKey;
use crate::vault::layout::{BACKUPS, Key, OBJECTS};
use crate::vault::readme::write_readme;
use crate::vault::trust::{HostEntry, JobPattern, TrustDocument, exists, write_trust};

use super::host::Host;
use super::vaults::{believe, new_storage};

/// The lock that `init` takes among those of jobs.
const INIT_LOCK: &str = "vault";
/// What sealing and opening is tried on.
const CANARY: &[u8] = b"lifeboat canary: if you can read this, the identity opens the vault\n";

/// What was made and what was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// What it is.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Whether this call made it.
    pub new: bool,
}

/// What `init` did to one vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultMade {
    /// The vault's id.
    pub id: VaultId,
    /// Its public signing key.
    pub trust: String,
    /// Files made, and found.
    pub made: Vec<Made>,
    /// Set where vault.json does not name this host's key yet.
    pub stranger: Option<Stranger>,
}

/// A host that a vault does not know, and what would make it known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// A name for it that is free in vault.json.
    pub name: String,
    /// The public half of its key.
    pub key: String,
}

/// A new identity file's text: a comment that says what it is, the vault's lines, the secret line.
#[derive(Debug)]
pub struct NewIdentity {
    /// The public key.
    pub recipient: String,
    secret: String,
}

impl NewIdentity {
    /// Makes one.
    #[must_use]
    pub fn generate() -> Self {
        let (secret, recipient) = Identities::generate();
        Self { recipient, secret }
    }

    /// The file's text; with the vault's lines where there is one.
    #[must_use]
    pub fn text(&self, vault_lines: &str) -> String {
        format!(
            "# An age identity: whoever has this file can read the backups, and nobody can without it.\n\
             # Keep it off the host that makes the backups, in two places.\n\
             # public key: {}\n{vault_lines}{}\n",
            self.recipient, self.secret
        )
    }
}

/// Makes this host's signing key if there is none.
///
/// # Errors
/// When it cannot be written.
pub fn host_key(host: &Host) -> Result<Made> {
    let state = &host.home()?.state;
    let path = state.host_key();
    let new = !path.exists();
    if new {
        SigningKey::generate().write_new(&path, "lifeboat host key: signs this host's manifests and records")?;
    }
    state.host_secret()?;
    Ok(Made { what: "host key", path, new })
}

/// Makes a vault where there is none; where there is one, checks that it is the one this host trusts.
///
/// # Errors
/// When the place cannot be used, or what is there is not to be trusted.
pub fn vault(host: &Host, settings: &VaultSettings, key_file: &Path) -> Result<VaultMade> {
    let state = &host.home()?.state;
    // Two at once would each make a vault, and one of them would be the other's.
    let _lock = state.lock(&INIT_LOCK.parse().map_err(|_| internal())?, "init", host.clock.now())?;
    let storage = new_storage(host, settings)?;
    let path = PathBuf::from(settings.url.to_string());
    let pinned = state.pinned_trust(&settings.name)?;
    if host.runtime.block_on(exists(&*storage))? {
        let pin = match (&settings.trust, pinned) {
            (Some(key), _) => Pin { key: key.parse()?, vault: None },
            (None, Some(text)) => read_comments(&text)?.ok_or_else(|| unvouched(settings))?,
            (None, None) => return Err(unvouched(settings)),
        };
        let trust = believe(host, &*storage, &pin)?;
        let made = vec![Made { what: "vault", path, new: false }];
        let stranger = stranger(host, &trust)?;
        return Ok(VaultMade { id: trust.vault, trust: pin.key.to_string(), made, stranger });
    }

    must_be_new(host, settings, &*storage, pinned.as_deref())?;

    let mut made = Vec::new();
    let key = if key_file.exists() {
        made.push(Made { what: "vault key", path: key_file.to_owned(), new: false });
        SigningKey::read(key_file)?
    } else if settings.trust.is_some() {
        // A new key could not be the one that the config trusts.
        return Err(Error::new(Code::KeyMissing, format!("the vault key {} is not there", key_file.display()))
            .with_hint("name the file of the key that `trust` stands for with --vault-key FILE, or take `trust` out of the config"));
    } else {
        let key = SigningKey::generate();
        key.write_new(key_file, "lifeboat vault key: signs vault.json; keep it offline, beside the identity")?;
        made.push(Made { what: "vault key", path: key_file.to_owned(), new: true });
        key
    };
    if let Some(configured) = &settings.trust
        && *configured != key.public().to_string()
    {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!("`trust` of vault {} is not the key in {}", settings.name, key_file.display()),
        )
        .with_hint("name the right key file with --vault-key FILE, or take `trust` out of the config"));
    }
    let now = host.clock.now();
    let entry = HostEntry {
        name: host_name(),
        key: host.key()?.public().clone(),
        jobs: vec![JobPattern::Any],
        // What it signs is held against the store's clock, which may be behind this one by as much.
        from: now - CLOCK_TOLERANCE,
        until: None,
        revoked: None,
    };
    let id = VaultId::from_random(rand::rng().random());
    let lines = comment_lines(&id, key.public());
    // The pin before the vault: a crash between the two leaves a pin that the next call replaces, and never a vault
    // that nobody vouches for.
    state.pin_trust(&settings.name, &lines)?;
    let document = TrustDocument::first(id.clone(), now, vec![entry]);
    host.runtime.block_on(async {
        write_readme(&*storage).await?;
        write_trust(&*storage, &key, &document).await
    })?;
    state.saw_trust(&id, document.serial, document.digest())?;
    made.push(Made { what: "vault", path, new: true });
    Ok(VaultMade { id, trust: key.public().to_string(), made, stranger: None })
}

/// Fails where a vault was lost rather than never made: backups without their vault.json, or a vault that this host
/// made and has backups in. A new one would orphan them.
fn must_be_new(host: &Host, settings: &VaultSettings, storage: &dyn Storage, pinned: Option<&str>) -> Result<()> {
    let mut leftovers = 0_u64;
    for prefix in [BACKUPS, OBJECTS] {
        host.runtime.block_on(storage.list(prefix, &mut |_| leftovers += 1))?;
    }
    if leftovers > 0 {
        return Err(Error::new(
            Code::VaultUntrusted,
            format!("{} holds backups and no vault.json: no new vault is made over them", settings.url),
        )
        .with_hint("put vault.json and vault.json.minisig back from a copy, or name an empty folder"));
    }
    let known = pinned.map(read_comments).transpose()?.flatten().and_then(|pin| pin.vault);
    if let Some(known) = known
        && !host.runtime.block_on(host.home()?.catalog.backups(&known, None))?.is_empty()
    {
        return Err(Error::new(
            Code::VaultMissing,
            format!("this host has backups in vault {known}, and it is not in {}", settings.url),
        )
        .with_hint(format!(
            "{} if that vault is lost for good and a new one is to take its name, remove {} first",
            match settings.url {
                VaultUrl::Folder(_) => "mount its disk;",
                VaultUrl::S3 { .. } => "look whether bucket, prefix and endpoint are the right ones;",
            },
            host.home()?.state.pin_file(&settings.name).display()
        )));
    }
    Ok(())
}

fn internal() -> Error {
    Error::new(Code::Internal, "the lock's name is not one")
}

/// Seals a canary to the vault's recipients, stores it, and opens what the store gives back.
///
/// # Errors
/// When the identities do not open it, or the store does not give back what it got.
pub fn canary(host: &Host, storage: &dyn Storage, recipients: &[String], identities: Identities) -> Result<()> {
    let sealed = Sealer::new(recipients, 1)?.seal(CANARY)?;
    let key = Key::Object(sealed.object).to_string();
    let opener = Opener::new(identities);
    host.runtime.block_on(async {
        storage.put(&key, sealed.bytes).await?;
        storage.sync().await?;
        let stored = storage.get(&key, 64 * 1024).await;
        storage.delete(&key).await?;
        storage.sync().await?;
        let opened = opener.open_contents(&sealed.object, &stored?)?;
        if opened != CANARY {
            return Err(Error::new(Code::ObjectDamaged, "the canary came back changed"));
        }
        Ok(())
    })
}

fn unvouched(settings: &VaultSettings) -> Error {
    Error::new(
        Code::VaultUntrusted,
        format!("there is a vault in {} already, and nothing says whose signature it must have", settings.url),
    )
    .with_hint("put its key into the config: `trust = \"RWQ...\"` (it stands in the identity file)")
}

/// This host, if vault.json does not name its key. Its own name is proposed, with a number where that is taken.
fn stranger(host: &Host, trust: &TrustDocument) -> Result<Option<Stranger>> {
    let key = host.key()?.public().clone();
    if trust.hosts.iter().any(|entry| entry.key == key) {
        return Ok(None);
    }
    let own = host_name();
    let names = std::iter::once(own.clone()).chain((2_u32..).map(|number| format!("{own}-{number}")));
    let free = |name: &String| trust.hosts.iter().all(|entry| entry.name != *name);
    let name = names.into_iter().find(free).unwrap_or(own);
    Ok(Some(Stranger { name, key: key.to_string() }))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().filter(|c| !c.is_control()).take(255).collect()
}
