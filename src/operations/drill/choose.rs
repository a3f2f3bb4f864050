//! Which backup a drill rehearses, and that it is read from the disk and not from the page cache.

use futures_util::StreamExt as _;
use rand::RngExt;

use crate::config::JobSettings;
use crate::domain::ids::ObjectId;
use crate::domain::manifest::{Completeness, Manifest};
use crate::error::{Code, Error, Result};
use crate::vault::layout::Key;
use crate::vault::lists::read_lists;

use super::super::host::Host;
use super::super::vaults::{OpenVault, manifests};

/// Which backup to rehearse.
#[derive(Debug, Clone)]
pub enum Which {
    /// The newest complete one.
    Latest,
    /// The oldest complete one.
    Oldest,
    /// Any complete one.
    Random,
    /// This one, by its id or the beginning of it.
    Id(String),
}

/// The one that is meant.
///
/// # Errors
/// When there is none, or several.
pub(super) fn choose(manifests: &[Manifest], which: &Which, job: &JobSettings) -> Result<Manifest> {
    let complete: Vec<&Manifest> = manifests.iter().filter(|m| m.completeness == Completeness::Complete).collect();
    let chosen = match which {
        Which::Latest => complete.iter().max_by_key(|m| m.recovery_point).copied(),
        Which::Oldest => complete.iter().min_by_key(|m| m.recovery_point).copied(),
        Which::Random if complete.is_empty() => None,
        Which::Random => Some(complete[rand::rng().random_range(0..complete.len())]),
        Which::Id(id) => {
            let fitting: Vec<&Manifest> = manifests.iter().filter(|m| m.id.as_str().starts_with(id.as_str())).collect();
            match fitting[..] {
                [one] => Some(one),
                _ => None,
            }
        }
    };
    chosen.cloned().ok_or_else(|| match which {
        Which::Id(id) => Error::new(
            Code::NotFound,
            format!("job {} has no backup, or several, whose id begins with {id:?}", job.name),
        )
        .with_hint(format!("`lifeboat list {}` shows them", job.name)),
        _ => Error::new(Code::NotFound, format!("job {} has no complete backup to rehearse", job.name))
            .with_hint(format!("make one: `lifeboat backup {}`", job.name)),
    })
}

/// Drops what the drill will read from the page cache; whether that was done for all of it.
pub(super) fn forget_cached(host: &Host, vault: &OpenVault, job: &JobSettings, which: &Which) -> Result<bool> {
    let storage = &*vault.storage;
    let forget = |key: String| host.runtime.block_on(storage.forget_cached(&key)).unwrap_or(false);
    // Where this machine caches nothing of the store, nobody need ask what there is.
    if !forget(Key::Trust.to_string()) {
        return Ok(false);
    }
    let manifests = manifests(vault.survey(host, Some(&job.name))?);
    let Ok(manifest) = choose(&manifests, which, job) else { return Ok(false) };
    let mut all = true;
    for object in manifest.sources.iter().flat_map(|source| &source.contents) {
        all &= forget(Key::Object(*object).to_string());
    }
    let lists: Vec<ObjectId> = manifest.sources.iter().flat_map(|source| source.lists.iter().copied()).collect();
    let mut read = read_lists(storage, lists);
    while let Some((list, lines)) = host.runtime.block_on(read.next()) {
        for line in lines.into_iter().flatten() {
            all &= forget(Key::Object(line.object).to_string());
        }
        all &= forget(Key::List(list).to_string());
    }
    Ok(all)
}
