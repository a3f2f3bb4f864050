//! What is done to a job by itself, and the two words that name it: the job and the operation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::JobName;

/// What a schedule starts. In this order of need where not everything can start at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `backup`.
    Backup,
    /// `copy`.
    Copy,
    /// `prune`.
    Prune,
    /// `check`.
    Check,
    /// `drill`.
    Drill,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Backup, Self::Copy, Self::Prune, Self::Check, Self::Drill];

    /// The command's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Copy => "copy",
            Self::Prune => "prune",
            Self::Check => "check",
            Self::Drill => "drill",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is no operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is backup, copy, prune, check and drill")]
pub struct OperationError;

impl FromStr for Operation {
    type Err = OperationError;

    fn from_str(text: &str) -> Result<Self, OperationError> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or(OperationError)
    }
}

/// An operation of a job. Displays as `shop/backup`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The job.
    pub job: JobName,
    /// What is done.
    pub operation: Operation,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.operation)
    }
}

/// A text is no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a job and an operation, such as \"shop/backup\"")]
pub struct TaskError {
    text: String,
}

impl FromStr for Task {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let read = || {
            let (job, operation) = text.split_once('/')?;
            Some(Self { job: job.parse().ok()?, operation: operation.parse().ok()? })
        };
        read().ok_or_else(|| TaskError { text: text.to_owned() })
    }
}

impl Serialize for Task {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_as_it_is_shown() {
        for operation in Operation::ALL {
            let task = Task { job: "shop-2".parse().unwrap(), operation };
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        for text in ["shop", "shop/", "shop/restore", "/backup", "Shop/backup"] {
            assert!(text.parse::<Task>().is_err(), "{text}");
        }
    }
}
