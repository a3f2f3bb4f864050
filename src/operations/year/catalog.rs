//! Whether a host's catalog answers as one would that was made anew.

use super::world::{Trouble, World};
use crate::operations::catch_up::tests::copy;
use crate::operations::host::Host;
use crate::operations::rebuild::rebuild;

/// Every answer about the vault, as text that can be compared and shown: name of the question, answers.
fn answers(host: &Host, world: &World) -> Vec<(&'static str, Vec<String>)> {
    fn told<T: std::fmt::Debug>(rows: Vec<T>) -> Vec<String> {
        let mut told: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        told.sort();
        told
    }
    let (catalog, vault) = (&host.home().unwrap().catalog, &world.ground.trust.vault);
    host.runtime.block_on(async {
        vec![
            ("backups", told(catalog.backups(vault, None).await.unwrap())),
            ("runs", told(catalog.runs(vault, None).await.unwrap())),
            ("drills", told(catalog.drills(vault, None).await.unwrap())),
            ("removals", told(catalog.removals(vault, None).await.unwrap())),
            ("refutations", told(catalog.refutations(vault, None).await.unwrap())),
            ("quarantines", told(catalog.quarantines(vault, None).await.unwrap())),
            ("prunes", told(catalog.prunes(vault, None).await.unwrap())),
            ("checks", told(catalog.checks(vault, None).await.unwrap())),
            ("records", told(catalog.known_records(vault).await.unwrap().into_iter().collect())),
        ]
    })
}

/// What a machine answers, against what it would answer if it remembered nothing but its outbox.
pub(super) fn differences(world: &mut World, machine: usize) -> Vec<String> {
    let host = world.machines[machine].host();
    let vault = world.ground.vault(Trouble::None);
    vault.survey(&host, None).unwrap();
    let lived = answers(&host, world);
    let fresh = tempfile::tempdir_in(world.folder.path()).unwrap();
    copy(&host.home().unwrap().state.root().join("outbox"), &fresh.path().join("outbox"));
    let forgetful = world.machines[machine].start(fresh.path());
    rebuild(&forgetful, &vault).unwrap();
    let anew = answers(&forgetful, world);
    let mut differences = Vec::new();
    for ((question, lived), (_, anew)) in lived.iter().zip(&anew) {
        differences
            .extend(lived.iter().filter(|row| !anew.contains(row)).map(|row| format!("{question} lived: {row}")));
        differences.extend(anew.iter().filter(|row| !lived.contains(row)).map(|row| format!("{question} anew: {row}")));
    }
    differences
}
