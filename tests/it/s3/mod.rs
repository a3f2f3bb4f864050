//! S3, from the outside: the finished program against a real server, and against a hostile network before it.

#[path = "../../servers/proxy.rs"]
mod proxy;
#[path = "../../servers/seaweed.rs"]
mod seaweed;
mod servers;
