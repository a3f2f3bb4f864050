//! `catalog rebuild`: this host's memory, made anew from what the vault holds and what still waits to be sent there.

use std::collections::HashSet;

use crate::domain::ids::ManifestHash;
use crate::domain::manifest::Manifest;
use crate::domain::record::Record;
use crate::error::{Result, chain};
use crate::vault::records::survey_records;

use super::host::Host;
use super::vaults::{Look, OpenVault};

/// What a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Backups in the vault.
    pub backups: usize,
    /// Records in the vault, and those that wait to be sent there.
    pub records: usize,
    /// What is not believed, or cannot be remembered, in sentences.
    pub problems: Vec<String>,
}

/// Replaces what the catalog knows of a vault.
///
/// # Errors
/// When the vault cannot be read or the catalog not be written.
pub fn rebuild(host: &Host, vault: &OpenVault) -> Result<Rebuilt> {
    let home = host.home()?;
    let Look { survey, untold: _ } = vault.look(host, None)?;
    let records = host.runtime.block_on(survey_records(&*vault.storage, &vault.trust))?;
    let mut problems: Vec<String> =
        survey.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.fault)).collect();
    problems.extend(records.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason)));
    let manifests: Vec<(Manifest, ManifestHash)> =
        survey.manifests.into_iter().map(|found| (vault.manifest_here(&found.manifest), found.hash)).collect();
    let mut records: Vec<Record> = records.records.into_iter().map(|verified| verified.record).collect();
    let place = |record: &Record| (record.body.type_name(), record.id.clone());
    let there: HashSet<_> = records.iter().map(place).collect();
    for waiting in home.state.outbox(&vault.id).waiting()? {
        match waiting {
            Ok(waiting) if there.contains(&place(&waiting.record)) => {}
            Ok(waiting) => records.push(waiting.record),
            Err(damaged) => problems.push(chain(&damaged)),
        }
    }
    let records: Vec<Record> = records.into_iter().map(|record| vault.record_here(record)).collect();
    let passed_over = host.runtime.block_on(home.catalog.replace(&vault.id, &manifests, &records))?;
    problems.extend(passed_over.iter().map(|passed| format!("{}: {}", passed.what, chain(&passed.why))));
    Ok(Rebuilt { backups: manifests.len(), records: records.len(), problems })
}
