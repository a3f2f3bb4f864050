//! Least privilege: a host that backs up needs no right to remove or to overwrite anything, one that prunes needs no
//! identity, one that drills only reads.

use std::fs;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::proxy::{ALWAYS, Fault, Kind};
use super::seaweed::{CONFINED, KEEPER, Keeps, OWNER, READER, WRITER};
use crate::support::noise;

const DEADLINE: Duration = Duration::from_secs(90);

/// A bucket that refuses what no one who only adds ever needs: a put that would overwrite.
fn refuse_overwriting(bucket: &Bucket) {
    bucket.proxy.plan(ALWAYS, Fault::Refuse(403, "AccessDenied"), |request| {
        request.kind == Kind::Put && request.header("if-none-match").is_none()
    });
}

#[test]
fn a_writer_that_cannot_remove_backs_up_for_ever() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    bucket.keep_little();
    // Prune runs elsewhere.
    bucket.edit("[job.shop.drill]", "[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]");
    bucket.sign_as(&WRITER);
    refuse_overwriting(&bucket);
    bucket.proxy.forget();
    for day in 0..4_u8 {
        fs::write(world.path("uploads/daily"), noise(100_000, day)).unwrap();
        world.backup();
    }
    assert_eq!(bucket.listed(&[]).len(), 4);
    let removals: Vec<_> =
        bucket.proxy.seen().into_iter().filter(|r| matches!(r.kind, Kind::Delete | Kind::DeleteMany)).collect();
    assert!(removals.iter().all(|request| request.key.contains("/claims/")), "{removals:?}");
    // Until the first of them has had its second there is nothing to remove.
    let until = Instant::now() + DEADLINE;
    let refused = loop {
        let said = world.run(&["prune"]);
        if said.code != Some(0) {
            break said;
        }
        assert!(Instant::now() < until, "nothing expires: {}", said.stderr);
    };
    assert!(refused.stderr.contains("these keys may not do it"), "{}", refused.stderr);
    bucket.assert_sound();

    // The keeper has no identity, and removes what is old.
    bucket.proxy.relent();
    bucket.sign_as(&KEEPER);
    let old = bucket.keys("objects/");
    let until = Instant::now() + DEADLINE;
    while bucket.keys("objects/").len() == old.len() {
        world.expect(0, &["prune"]);
        assert!(Instant::now() < until, "nothing is erased");
    }
    bucket.assert_sound();
    bucket.sign_as(&WRITER);
    world.backup();
    bucket.assert_sound();
}

#[test]
fn a_drill_only_reads() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    world.backup();
    bucket.sign_as(&READER);
    bucket.proxy.forget();
    let drill = world.run(&["drill", "--identity", "identity.txt"]);
    // Rehearsed it is; that it was cannot be written down there.
    let writes: Vec<_> = bucket.proxy.seen().into_iter().filter(|request| request.kind == Kind::Put).collect();
    assert!(drill.code == Some(1) && drill.stdout.contains("PASSED"), "{}{}", drill.stdout, drill.stderr);
    assert!(
        drill.stderr.contains("could not be recorded in the vault: it waits in the state folder"),
        "{}",
        drill.stderr
    );
    for request in &writes {
        assert!(request.key.contains("/records/"), "{request:?}");
    }
    let check = world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
    let waits = "this check of shop is not on record in the vault: it waits in the state folder";
    assert!(check.stderr.contains(waits), "{}", check.stderr);
    world.expect(0, &["list"]);
    bucket.assert_restores(&[]);
    let refused = world.run(&["backup"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("these keys may not do it"), "{}", refused.stderr);
    // The next command that may write does it.
    assert!(bucket.keys("records/drills/").is_empty() && bucket.keys("records/checks/").is_empty());
    bucket.sign_as(&WRITER);
    world.backup();
    assert!(!bucket.keys("records/drills/").is_empty() && !bucket.keys("records/checks/").is_empty());
    bucket.assert_nothing_lost(2);
}

#[test]
fn keys_for_another_prefix_are_told_what_they_lack() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    world.backup();
    bucket.sign_as(&CONFINED);
    for args in [&["backup"][..], &["list"], &["check"], &["prune"]] {
        let refused = world.run(args);
        assert_ne!(refused.code, Some(0), "{args:?}");
        let said = &refused.stderr;
        assert!(
            said.contains("these keys may not do it") && said.contains("hint: give these keys the right"),
            "{said}"
        );
        assert!(!said.contains(CONFINED.secret_key));
    }
    bucket.assert_nothing_lost(1);
}

#[test]
fn doctor_tries_what_whoever_copies_into_a_bucket_may() {
    let bucket = Bucket::new();
    let path = bucket.world.path("lifeboat.toml");
    let config = fs::read_to_string(&path).unwrap();
    let main = config.split("[vault.main]").nth(1).unwrap().split("\n[").next().unwrap();
    let url = main.lines().find(|line| line.starts_with("url")).unwrap();
    let place = main.replace(url, &format!("{}-copy\"", url.trim_end().trim_end_matches('"')));
    fs::write(&path, format!("{config}\n[vault.offsite]{place}\n[job.shop.copy]\nto = \"offsite\"\n")).unwrap();
    bucket.world.backup();
    told(&bucket, 0, &["WARNING vault offsite: nothing was copied to "]);
    bucket.world.expect(0, &["copy"]);
    let may = [
        "OK      vault offsite: this host may list, put, read",
        "WARNING vault offsite: it may delete what is there, as a copy's prunes must",
        "OK      job shop: copy in offsite: the newest recovery point is ",
    ];
    told(&bucket, 0, &may);
}

/// What `doctor` says of the vault's rights; it must say each of these, and end with this code.
#[track_caller]
fn told(bucket: &Bucket, code: i32, says: &[&str]) -> String {
    let said = bucket.world.expect(code, &["doctor"]).stdout;
    for what in says {
        assert!(said.contains(what), "{what}: {said}");
    }
    said
}

#[test]
fn doctor_tries_what_a_host_should_be_able_to_and_what_it_should_not() {
    let bucket = Bucket::new();
    bucket.edit("[job.shop.drill]", "[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]");
    bucket.world.backup();
    let everything = [
        "OK      vault main: this host may list, put, read",
        "WARNING vault main: it may overwrite what is there, and nothing shows that what was overwritten is kept",
        "WARNING vault main: it may delete what is there, and nothing is held",
        "OK      vault main: its clock and this host's agree",
    ];
    told(&bucket, 0, &everything);
    assert!(bucket.keys("doctor/").is_empty(), "nothing is left behind");

    // A writer as it should be, and what it tried on is its own.
    bucket.sign_as(&WRITER);
    refuse_overwriting(&bucket);
    bucket.proxy.forget();
    let held_back = ["it may not overwrite what is there", "it may not delete: prunes run elsewhere"];
    let said = told(&bucket, 0, &held_back);
    assert!(said.contains("this host may list, put, read"), "{said}");
    // What it put then is still there, and putting it once more shows nothing.
    let said = told(&bucket, 0, &held_back);
    assert!(said.contains("this host may list, read") && said.contains("whether it may put"), "{said}");
    let changes = bucket
        .proxy
        .seen()
        .into_iter()
        .filter(|r| !matches!(r.kind, Kind::Get | Kind::List | Kind::Head | Kind::Bucket));
    let elsewhere: Vec<_> = changes.filter(|request| !request.key.contains("doctor/")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(bucket.keys("doctor/").len(), 1, "one object a host");
    bucket.proxy.relent();

    // A writer that is to prune cannot; a stranger sees nothing; a reader cannot even write.
    bucket.edit("[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]", "[job.shop.drill]");
    told(&bucket, 0, &["WARNING vault main: it may not delete, and by the config its prunes run here"]);
    bucket.sign_as(&CONFINED);
    told(&bucket, 1, &["PROBLEM vault main: "]);
    bucket.sign_as(&OWNER);
    told(&bucket, 0, &everything);
    assert!(bucket.keys("doctor/").is_empty());
    bucket.sign_as(&READER);
    told(&bucket, 0, &["this host may not put anything into", "this host may list"]);
    bucket.assert_sound();
}

#[test]
fn doctor_sees_what_a_bucket_keeps_and_holds() {
    let bucket = Bucket::of(Keeps::Versions);
    told(&bucket, 0, &["OK      vault main: it may overwrite what is there, and what was overwritten is kept"]);
    let bucket = Bucket::of(Keeps::Locked);
    bucket.edit("\nrecipients", "\nlock = \"governance\"\nrecipients");
    let held = [
        "what was overwritten is kept",
        "what is held (governance) cannot be deleted",
        "it may delete what is not held",
    ];
    told(&bucket, 0, &held);
}
