//! The source `postgres`: a live database, read in parallel inside one snapshot, without a staging disk.
//!
//! | file | what |
//! |---|---|
//! | layout.rs | what lies where in the tar; the statements that copy |
//! | connect.rs | connections, ours and those of the server's own tools |
//! | binaries.rs | pg_dump, pg_restore, postgres of a major version |

pub mod binaries;
pub mod connect;
pub mod examine;
pub mod layout;
