//! `catalog rebuild`: this host's memory, made anew from what the vault holds.

use crate::domain::ids::ManifestHash;
use crate::domain::manifest::Manifest;
use crate::domain::record::Record;
use crate::error::Result;
use crate::vault::records::survey_records;

use super::host::Host;
use super::vaults::OpenVault;

/// What a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Backups known now.
    pub backups: usize,
    /// Records known now.
    pub records: usize,
    /// What is in the vault and not believed, in sentences.
    pub problems: Vec<String>,
}

/// Replaces what the catalog knows of a vault.
///
/// # Errors
/// When the vault cannot be read or the catalog not be written.
pub fn rebuild(host: &Host, vault: &OpenVault) -> Result<Rebuilt> {
    let catalog = &host.home()?.catalog;
    let survey = vault.survey(host, None)?;
    let records = host.runtime.block_on(survey_records(&*vault.storage, &vault.trust))?;
    let mut problems: Vec<String> =
        survey.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.fault)).collect();
    problems.extend(records.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason)));
    let manifests: Vec<(Manifest, ManifestHash)> =
        survey.manifests.into_iter().map(|verified| (verified.manifest, verified.hash)).collect();
    let records: Vec<Record> = records.records.into_iter().map(|verified| verified.record).collect();
    host.runtime.block_on(catalog.replace(&vault.id, &manifests, &records))?;
    Ok(Rebuilt { backups: manifests.len(), records: records.len(), problems })
}
