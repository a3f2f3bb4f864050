//! Pure shapes and decisions. Nothing here reads a clock, a file, the environment or a database.

pub mod check;
pub mod claim;
pub mod contents;
pub mod databases;
pub mod ids;
pub mod manifest;
pub mod objectives;
pub mod operation;
pub mod quantity;
pub mod record;
pub mod retention;
pub mod schedule;
pub mod scheduler;
pub mod segment;
pub mod server;
pub mod template;
