//! A backup that is killed in its midst: the next one goes on, and sends nothing again that arrived.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use super::bucket::{Bucket, PREFIX};
use super::proxy::{Fault, Kind, after};
use crate::support::noise;

/// Objects that have arrived when the program is killed, at least.
const ARRIVED: usize = 25;

#[test]
fn what_arrived_before_a_kill_is_not_sent_again() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    for number in 0..60_u8 {
        fs::write(world.path(format!("uploads/large-{number:02}")), noise(1_200_000, number)).unwrap();
    }
    let objects = format!("{PREFIX}/objects/");
    // The later ones hang, so that the program is in the midst of it for certain.
    bucket.proxy.plan(after(ARRIVED), Fault::Silence, {
        let objects = objects.clone();
        move |request| request.kind == Kind::Put && request.key.starts_with(&objects)
    });
    let mut command = world.command(&["backup"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    bucket.proxy.wait_for_hits(1);
    // Those before the first that hangs are on their way; the server has them when it lists them.
    while bucket.keys("objects/").len() < ARRIVED {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    bucket.proxy.relent();
    let arrived: BTreeSet<String> = bucket.keys("objects/").into_iter().collect();
    bucket.assert_nothing_lost(0);

    bucket.proxy.forget();
    world.backup();
    let put: Vec<String> = bucket
        .proxy
        .seen()
        .into_iter()
        .filter(|request| request.kind == Kind::Put)
        .filter_map(|request| request.key.strip_prefix(&format!("{PREFIX}/")).map(str::to_owned))
        .collect();
    let again: Vec<&String> = put.iter().filter(|key| arrived.contains(*key)).collect();
    assert!(again.is_empty(), "{} of {} objects were sent again", again.len(), arrived.len());
    // Age is never the same twice: what is sent again has another name, so the sum is what counts.
    let sent = put.iter().filter(|key| key.starts_with("objects/")).count();
    let all = bucket.keys("objects/").len();
    assert!(sent <= all - arrived.len(), "{sent} were sent where {} of {all} lay there", arrived.len());
    let unused = all - named(&bucket);
    assert!(unused <= 2, "{unused} of {} that had arrived were of no use", arrived.len());
    bucket.assert_sound();
}

/// How many objects the newest backup consists of.
fn named(bucket: &Bucket) -> usize {
    let manifest = bucket.keys("backups/").into_iter().rfind(|key| key.ends_with(".json")).unwrap();
    let manifest = bucket.server.get(&bucket.name, &format!("{PREFIX}/{manifest}")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut objects = BTreeSet::new();
    for source in manifest["sources"].as_array().unwrap() {
        let texts = |what: &str| -> Vec<String> {
            source[what].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
        };
        objects.extend(texts("contents"));
        for list in texts("lists") {
            let key = format!("{PREFIX}/lists/{}/{list}", &list[..2]);
            let lines = zstd::decode_all(&bucket.server.get(&bucket.name, &key).unwrap()[..]).unwrap();
            let lines = String::from_utf8(lines).unwrap();
            objects.extend(lines.lines().map(|line| line.split(' ').next().unwrap().to_owned()));
        }
    }
    objects.len()
}
