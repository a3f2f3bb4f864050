//! What drills say of a backup.

use serde::Serialize;

use super::DrillRow;
use crate::domain::ids::BackupId;
use crate::domain::record::DrillOutcome;

/// What the drills of a backup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A drill of it passed, and nothing was held against it since.
    Proven,
    /// No drill has said anything about it.
    Unproven,
    /// A drill found that it cannot be opened or differs from its facts, and none of it has passed since.
    Refuted,
}

/// The verdict on a backup: the last drill that says anything about it. One that failed for another reason does not.
#[must_use]
pub fn verdict(backup: &BackupId, drills: &[DrillRow]) -> Verdict {
    drills
        .iter()
        .filter(|row| row.drill.backup.as_ref() == Some(backup))
        .filter(|row| row.drill.refutes_backup || row.drill.outcome == DrillOutcome::Passed)
        .max_by_key(|row| (row.drill.finished, row.id.clone()))
        .map_or(Verdict::Unproven, |row| if row.drill.refutes_backup { Verdict::Refuted } else { Verdict::Proven })
}
