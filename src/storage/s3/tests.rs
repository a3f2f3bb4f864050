//! The store against a real server.

use std::sync::Arc;

use super::super::contract;
use super::*;
use crate::clock::SystemClock;

mod answers;
mod lock;
mod real;
mod responder;
#[path = "../../../tests/servers/seaweed.rs"]
#[expect(dead_code, reason = "the tests of the whole program, and the benches, use the rest")]
mod seaweed;
mod second;

use seaweed::{Keeps, OWNER, Server};

const ACCESS_KEY: &str = OWNER.access_key;
const SECRET_KEY: &str = OWNER.secret_key;

fn options(server: &Server, bucket: &str, prefix: &str) -> Options {
    reach(&server.endpoint(), bucket, prefix)
}

fn reach(endpoint: &str, bucket: &str, prefix: &str) -> Options {
    Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        path_style: None,
        profile: None,
        keys: Some(Keys { access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into(), session_token: None }),
        ca: None,
        parallel_requests: 16,
        bandwidth_limit_bytes: None,
        lock: None,
    }
}

async fn open(options: Options) -> S3 {
    S3::open(options, Arc::new(SystemClock::default())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let server = Server::shared();
    let handle = tokio::runtime::Handle::current();
    let bucket = server.bucket(Keeps::Last);
    contract::run(&|| {
        let options = options(server, &bucket, "some/prefix");
        Arc::new(tokio::task::block_in_place(|| handle.block_on(open(options))))
    })
    .await;
    // Beside it: a vault that has the bucket for itself.
    let alone = open(options(server, &server.bucket(Keeps::Last), "")).await;
    assert_eq!(alone.put("a/b", Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    let mut found = Vec::new();
    alone.list("", &mut |listed| found.push(listed.key)).await.unwrap();
    assert_eq!(found, ["a/b"]);
    assert_eq!(alone.delete("a/b").await.unwrap(), Deleted::Removed);
}
