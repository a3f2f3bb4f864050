//! The source `postgres`: a live database, read in parallel inside one snapshot, without a staging disk.
//!
//! | file | what |
//! |---|---|
//! | layout.rs | what lies where in the tar; the statements that copy |

pub mod layout;
