//! Throw-away environments for drills, and the confinement of foreign code.
//!
//! A drill runs hostile code: whoever controls a production schema or a backed-up script controls what a restore
//! executes. [`folder`] is the place that a drill restores into, [`confine`] decides under which rights anything may
//! run there, and [`checks`] runs the user's checks that way; [`sql`] is the confined end of a SQL check, [`postgres`] a
//! throw-away server for what was dumped from one, [`guest`] a throw-away database on a server that is there, and [`tree`] walks a restored tree without being led out of it.
//!
//! A drill goes through it in this order. The steps in brackets are only for drills that run something: checks of SQL or
//! commands, or a database server.
//!
//! | step | by |
//! |---|---|
//! | what a killed drill left is removed | [`folder::remove_leftovers`] |
//! | (the rights of foreign code are decided, and tried) | `Confinement::decide`, `verify_unreadable` |
//! | the folder is made, and (opened to the foreign uid's group) | [`folder::Scratch::create`], [`checks::prepare`] |
//! | (servers are made and started, with nothing foreign in them) | [`postgres::Server::start`] |
//! | files are restored and compared, while nobody else can write | |
//! | (they are given to the foreign uid) | [`confine::hand_over`] |
//! | (databases are loaded and compared: from here on foreign code runs) | |
//! | (the user's checks) | [`checks::run_checks`] |
//! | (the servers end), the folder goes or stays | [`postgres::Server::stop`], [`folder::Scratch::remove`] or `keep` |
//!
//! Deciding comes before restoring: a drill that may not run its checks should not spend an hour first. And processes
//! that a killed drill left to a uid end when the uid is given out again.
//!
//! This room knows neither vaults nor how the data came to be in the folder.

pub mod checks;
pub mod confine;
pub mod folder;
pub mod guest;
pub mod postgres;
pub mod sql;
mod tree;
