//! One check of a drill: what was asked, what was expected, what was found.

use serde::{Deserialize, Serialize};

/// A check and its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// What would have passed.
    pub expected: String,
    /// What was found.
    pub actual: String,
}
