//! Throw-away environments for drills, and the confinement of foreign code.
//!
//! A drill runs hostile code: whoever controls a production schema or a backed-up script controls what a restore
//! executes. [`folder`] is the place that a drill restores into, [`confine`] decides under which rights anything may
//! run there, and [`checks`] runs the user's checks that way; [`sql`] is the confined end of a SQL check, [`postgres`] a
//! throw-away server for what was dumped from one, [`guest`] a throw-away database on a server that is there, and [`tree`] walks a restored tree without being led out of it.
//!
//! A drill goes through it in this order, the steps in brackets only where it has checks that run SQL or commands:
//! (`Confinement::decide`, `verify_unreadable`), [`folder::remove_leftovers`], [`folder::Scratch::create`],
//! restore and compare, ([`confine::hand_over`] for each source, [`checks::prepare`], [`checks::run_checks`]),
//! [`folder::Scratch::remove`] or `keep`. Deciding comes first: a drill that may not run its checks should not spend an
//! hour restoring, and processes that a killed drill left are ended before its folder is removed.
//!
//! This room knows neither vaults nor how the data came to be in the folder.

pub mod checks;
pub mod confine;
pub mod folder;
pub mod guest;
pub mod postgres;
pub mod sql;
mod tree;
