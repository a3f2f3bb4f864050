//! S3, from the outside: the finished program against a real server, and against a hostile network before it.
//!
//! The servers are in tests/servers, which knows nothing of the program. Without their programs these tests fail and say
//! what to install.

mod bucket;
mod faults;
mod journey;
#[path = "../../servers/proxy.rs"]
mod proxy;
mod requests;
mod rights;
#[path = "../../servers/seaweed.rs"]
mod seaweed;
mod servers;
mod soak;
mod stopped;
