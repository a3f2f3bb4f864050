//! What a drill holds against what should be: the checks that a config asks for, and what came of each check.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::SourceName;

/// A check as the config states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCheck {
    /// One row, one column; true or a number other than zero passes.
    Sql {
        /// Asked of this source.
        source: SourceName,
        /// The statement.
        sql: String,
    },
    /// A moment that must not lie further back than this before the drill's start.
    Freshness {
        /// Asked of this source.
        source: SourceName,
        /// A statement that gives the moment: Unix seconds, RFC 3339, or `2026-11-22 02:00:00` in UTC.
        sql: String,
        /// How far back it may lie.
        within: Duration,
    },
    /// A program; exit status 0 passes.
    Command {
        /// The program and its arguments; at least one.
        command: Vec<String>,
    },
}

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
