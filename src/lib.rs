//! Lifeboat takes encrypted backups on a schedule, keeps and erases them within a two-sided window, rehearses
//! restores in scratch environments, and reports the RTO and RPO that it measured.
//!
//! The rooms, from the inside out:
//!
//! | room | what it holds |
//! |---|---|
//! | [`domain`] | pure decisions and shapes: ids, manifest, contents, records, schedule, objectives |
//! | [`storage`] | where bytes lie: the `Storage` trait, a local folder, memory, a fault layer |
//! | [`seal`] | tar bytes to segments and back: cut, compress, seal, open |
//! | [`vault`] | the format: layout, manifests, lists, signatures, trust |
//! | [`sources`] | what is backed up: file trees, SQLite databases |
//! | [`scratch`] | throw-away environments for drills, and the confinement of foreign code |
//! | [`catalog`] | the operational memory in SQLite |
//! | [`operations`] | the verbs; the only place where sources, vault and catalog meet |
//! | [`evidence`] | what is reported, and how it is rendered |
//! | [`daemon`] | the loop that starts what is due, and what it answers to who asks |
//! | [`notify`] | who is told what, and whether it arrived |
//! | [`observe`] | progress |
//! | [`schedules`] | what is due by itself, as crontabs and systemd units |
//! | [`cli`] | arguments, thin commands, output |
//!
//! docs/ARCHITECTURE.md has the map with its walls; `cargo xtask tidy` checks them.

pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod error;
pub mod evidence;
pub mod notify;
pub mod observe;
pub mod operations;
pub mod process;
pub mod schedules;
pub mod scratch;
pub mod seal;
pub mod sources;
pub mod storage;
pub mod vault;
