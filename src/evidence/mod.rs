//! What is said of a job: its status now, and the report over a window. Both are pure functions of [`facts`], which
//! the caller gathers from config, schedule and catalog; their JSON is the record, and the texts and pages are rendered
//! from the same values.
//!
//! Nothing here reads a clock, a vault or a terminal.

mod chain;
pub mod checks;
pub mod copies;
pub mod deviations;
mod document;
pub mod drawing;
pub mod erasure;
pub mod facts;
mod findings;
pub mod gather;
pub mod html;
pub mod keeping;
pub mod lasting;
pub mod markdown;
pub mod metrics;
pub mod page;
pub mod report;
pub mod report_page;
pub mod runbook;
pub mod status;
pub mod strip;
pub mod text;
pub mod unopened;
pub mod vault_status;
mod words;

#[cfg(test)]
pub(crate) mod samples;
