//! What is known of a backup's worth: the latest word of drills and refutations.

use serde::Serialize;

use super::{DrillRow, RefutationRow};
use crate::domain::ids::BackupId;
use crate::domain::record::DrillOutcome;

/// What was found out about a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A drill of it passed, and nothing was held against it since.
    Proven,
    /// Nobody has said anything about it.
    Unproven,
    /// A drill found that it cannot be opened or differs from its facts, or something that it names was found wrong,
    /// and no drill of it has passed since.
    Refuted,
}

/// The verdict on a backup: the latest word of the drills and refutations that say anything about it. A drill that
/// failed for another reason does not. Of two words at the same moment the worse one counts.
#[must_use]
pub fn verdict(backup: &BackupId, drills: &[DrillRow], refutations: &[RefutationRow]) -> Verdict {
    let drilled = drills
        .iter()
        .filter(|row| row.drill.backup.as_ref() == Some(backup))
        .filter(|row| row.drill.refutes_backup || row.drill.outcome == DrillOutcome::Passed)
        .map(|row| (row.drill.finished, row.drill.refutes_backup));
    let refuted = refutations.iter().filter(|row| row.body.backups.contains(backup)).map(|row| (row.recorded, true));
    match drilled.chain(refuted).max() {
        None => Verdict::Unproven,
        Some((_, true)) => Verdict::Refuted,
        Some((_, false)) => Verdict::Proven,
    }
}
