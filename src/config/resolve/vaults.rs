//! Which vault a job means, and which one is a copy of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::copies::{CopySettings, VaultRole};
use super::super::file::CopyFile;
use super::super::settings::VaultSettings;
use super::{Resolver, Text};

impl Resolver<'_, '_> {
    pub(super) fn vault_name(
        &mut self,
        at: &Range<usize>,
        named: Option<Text>,
        vaults: &BTreeMap<String, VaultSettings>,
    ) -> String {
        let names = || vaults.keys().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let own: Vec<&String> =
            vaults.values().filter(|vault| vault.role == VaultRole::Own).map(|vault| &vault.name).collect();
        match (named, vaults.len()) {
            (Some(text), _) if vaults.get(text.get_ref()).is_some_and(|vault| vault.role != VaultRole::Own) => {
                let message = format!(
                    "[vault.{}] is a copy of another vault (`copy.to` of a job names it), and no job backs up into a copy",
                    text.get_ref()
                );
                self.problems.at(text.span(), message);
                String::new()
            }
            (Some(text), _) if vaults.contains_key(text.get_ref()) => text.into_inner(),
            (Some(text), 0) => {
                self.problems.at(text.span(), format!("there is no [vault.{}] in this config", text.get_ref()));
                String::new()
            }
            (Some(text), _) => {
                let message = format!("there is no [vault.{}] in this config; there is {}", text.get_ref(), names());
                self.problems.at(text.span(), message);
                String::new()
            }
            (None, _) if own.len() == 1 => own[0].clone(),
            (None, 0) => {
                self.problems
                    .at(at.clone(), "there is no vault for this job: write [vault.main] with `url` and `recipients`");
                String::new()
            }
            (None, _) => {
                self.problems.at(at.clone(), format!("which vault? write `vault = ` and one of {}", names()));
                String::new()
            }
        }
    }

    /// Every copy mirrors one vault: with two it could have neither's vault.json.
    pub(super) fn copy(
        &mut self,
        image: CopyFile,
        vault: &str,
        vaults: &BTreeMap<String, VaultSettings>,
    ) -> CopySettings {
        let to = image.to.get_ref().clone();
        match vaults.get(&to) {
            None => {
                let message = format!("there is no [vault.{to}] in this config: write it with `url` and `recipients`");
                self.problems.at(image.to.span(), message);
            }
            Some(copy) if vaults.get(vault).is_some_and(|vault| vault.name == copy.name || vault.url == copy.url) => {
                self.problems.at(image.to.span(), "the copy is the job's own vault: it needs another place");
            }
            Some(_) => match self.copies.insert(to.clone(), vault.to_owned()) {
                Some(other) if other != vault => {
                    let message =
                        format!("[vault.{to}] is a copy of vault {other} already; write a second one for {vault}");
                    self.problems.at(image.to.span(), message);
                }
                _ => {}
            },
        }
        let schedule = image.schedule.and_then(|text| self.schedule(&text));
        CopySettings { to, schedule, prune: image.prune.unwrap_or(true) }
    }
}
