//! One thing that a drill held against what should be, in the shape that its JSON has.

use serde::{Deserialize, Serialize};

/// A comparison and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was compared: `integrity`, `table users`.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What should be.
    pub expected: String,
    /// What is.
    pub actual: String,
}

impl Check {
    /// Compares; equal passes.
    pub fn equal(name: impl Into<String>, expected: impl ToString, actual: impl ToString) -> Self {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        Self { name: name.into(), passed: expected == actual, expected, actual }
    }
}
