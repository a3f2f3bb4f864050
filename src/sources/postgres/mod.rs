//! The source `postgres`: a live database, read in parallel inside one snapshot, without a staging disk.
//!
//! | file | what |
//! |---|---|
//! | layout.rs | what lies where in the tar; the statements that copy |
//! | connect.rs | connections, ours and those of the server's own tools |
//! | binaries.rs | pg_dump, pg_restore, postgres of a major version |
//! | pins.rs | how a session is set so that the same rows are the same text |
//! | load.rs | putting a backup into a server |
//! | verify.rs | a restored database against the facts |

pub mod binaries;
pub mod connect;
pub mod examine;
pub mod layout;
pub mod load;
mod pins;
pub mod verify;
