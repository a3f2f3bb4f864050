//! How often the store is asked: hardly more than once for each new object, and not at all for what is there already.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::bucket::{Bucket, PREFIX};
use super::proxy::Kind;
use crate::support::noise;

/// A file whose content shares no object with what is in other folders, and nearly all of which compresses away.
const LONE_BYTES: usize = 75_000;
/// More than one page of a listing has.
const FILES: usize = 1_500;

/// Requests by kind and by what they ask for.
fn told(bucket: &Bucket) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in bucket.proxy.seen() {
        let prefix = request.query.split('&').find_map(|part| part.strip_prefix("prefix="));
        let path = prefix.map(|prefix| prefix.replace("%2F", "/")).unwrap_or(request.key);
        let below = path.strip_prefix(PREFIX).unwrap_or(&path).trim_start_matches('/');
        let folder = below.split('/').next().unwrap_or_default();
        *counts.entry(format!("{:?} {folder}", request.kind)).or_default() += 1;
    }
    counts
}

#[test]
fn a_new_object_is_one_request_and_an_unchanged_day_is_a_listing() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    for number in 0..FILES {
        let folder = world.path(format!("uploads/lone-{}/{number}", number / 100));
        fs::create_dir_all(&folder).unwrap();
        let mut bytes = vec![0; LONE_BYTES];
        bytes[..16].copy_from_slice(&noise(16, 1)[..]);
        bytes[16..24].copy_from_slice(&(number as u64).to_le_bytes());
        fs::write(folder.join("file"), bytes).unwrap();
    }
    // Files younger than the walk's margin of doubt are read again once.
    std::thread::sleep(Duration::from_millis(2_500));
    bucket.proxy.forget();
    let before = bucket.keys("").len();
    world.backup();
    let new = bucket.keys("").len() - before;
    let objects = bucket.keys("objects/").len();
    let (requests, kinds) = (bucket.proxy.total(), told(&bucket));
    assert!(objects > FILES, "{objects} objects are fewer than files of their own");
    assert!(requests * 10 <= new * 11, "{requests} requests for {new} new keys: {kinds:?}");

    bucket.proxy.forget();
    let again = world.json(0, &["backup"]);
    assert_eq!(again["runs"][0]["backup"]["new_segments"], 0, "{again}");
    let (requests, kinds) = (bucket.proxy.total(), told(&bucket));
    // A share of what is reused is read and hashed again. Beside it: pages of a thousand keys, and what a run costs that has
    // nothing to do.
    let seen = bucket.proxy.seen();
    let hashed = seen.iter().filter(|request| request.kind == Kind::Get && request.key.contains("/objects/")).count();
    assert!(hashed <= objects / 20, "{hashed} of {objects} objects were read: {kinds:?}");
    let rest = requests - hashed;
    assert!(rest <= 75 + 6 * objects.div_ceil(1000), "{rest} more requests for {objects} objects: {kinds:?}");
    bucket.assert_sound();
}
