//! The integration tests: one binary, so that the linker runs once. They drive the finished program as its users do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod by_hand;
mod checks;
mod cli;
mod codes;
mod copy;
mod daemon;
mod damage;
mod demo;
mod doctor;
mod documents;
mod erasing;
mod forge;
mod hooks;
mod hosts;
mod journeys;
mod kill;
mod kill_erasing;
mod metrics;
mod notify;
mod page;
mod postgres;
mod readme;
mod resume;
mod runbook;
mod s3;
mod sabotage;
mod schedules;
mod support;
