//! The store against a real server.

use std::sync::Arc;

use super::super::contract;
use super::*;
use crate::clock::SystemClock;

mod answers;
mod lock;
mod real;
mod responder;
mod server;

use server::{ACCESS_KEY, SECRET_KEY};

fn options(server: &server::Server, bucket: &str, prefix: &str) -> Options {
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

async fn make_bucket(store: &S3) {
    store.client.create_bucket().bucket(&store.bucket).send().await.unwrap();
}

async fn open(options: Options) -> S3 {
    S3::open(options, Arc::new(SystemClock::default())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let server = server::Server::start();
    make_bucket(&open(options(&server, "contract", "")).await).await;
    let handle = tokio::runtime::Handle::current();
    contract::run(&|| {
        let options = options(&server, "contract", "some/prefix");
        Arc::new(tokio::task::block_in_place(|| handle.block_on(open(options))))
    })
    .await;
    // Beside it: a vault that has the bucket for itself.
    make_bucket(&open(options(&server, "alone", "")).await).await;
    let alone = open(options(&server, "alone", "")).await;
    assert_eq!(alone.put("a/b", Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    let mut found = Vec::new();
    alone.list("", &mut |listed| found.push(listed.key)).await.unwrap();
    assert_eq!(found, ["a/b"]);
    assert_eq!(alone.delete("a/b").await.unwrap(), Deleted::Removed);
}
