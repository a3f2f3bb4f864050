//! A hostile network, and a store that is not what it should be: each ends in success after more tries, or in an error
//! that says what to do; and afterwards, asked straight at the server, nothing is lost and no manifest names an object
//! that is not there.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bucket::{Bucket, PREFIX};
use super::proxy::{ALWAYS, Fault, Kind, ONCE, Request, Times, after, times};
use super::seaweed::OWNER;
use crate::erasing::in_time;
use crate::support::{Said, noise, said};

/// One request in so many, of those that fit, from the first on.
fn one_in(number: usize, fits: impl Fn(&Request) -> bool + Send) -> impl Fn(&Request) -> bool + Send {
    let seen = AtomicUsize::new(0);
    move |request| fits(request) && seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(number)
}

fn is_object(request: &Request) -> bool {
    request.key.contains("/objects/")
}

fn is_put(request: &Request) -> bool {
    request.kind == Kind::Put
}

/// A bucket with a good backup in it, and something new to back up.
fn backed_up() -> Bucket {
    let bucket = Bucket::new();
    bucket.world.backup();
    fs::write(bucket.world.path("uploads/new.bin"), noise(6_000_000, 77)).unwrap();
    bucket.proxy.forget();
    bucket
}

/// An error that a person can do something with: the exit code of a failure, what is the matter, what to do, no secret.
#[track_caller]
fn assert_told(refused: &Said, what: &str, hint: &str) {
    let said = &refused.stderr;
    assert!(!matches!(refused.code, Some(0) | None), "{said}");
    assert!(said.contains(what), "{what:?} is not in: {said}");
    assert!(said.lines().any(|line| line.contains("hint: ") && line.contains(hint)), "no hint of {hint:?} in: {said}");
    for secret in [OWNER.secret_key, "Signature="] {
        assert!(!said.contains(secret) && !refused.stdout.contains(secret), "{said}");
    }
}

#[test]
fn a_store_that_is_busy_is_asked_again() {
    let bucket = backed_up();
    let answers =
        [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError"), (429, "TooManyRequests"), (504, "X")];
    for (number, (status, code)) in answers.into_iter().enumerate() {
        fs::write(bucket.world.path("uploads/new.bin"), noise(3_000_000, number as u8)).unwrap();
        bucket.proxy.plan(ALWAYS, Fault::Refuse(status, code), one_in(3, |_| true));
        bucket.world.backup();
        bucket.proxy.relent();
        assert!(bucket.proxy.hits() >= 4 * (number + 1), "{} hits", bucket.proxy.hits());
    }
    bucket.assert_sound();
    assert_eq!(bucket.listed(&[]).len(), 1 + answers.len());
}

#[test]
fn a_storm_that_does_not_end_is_told_and_the_next_run_goes_on() {
    let bucket = backed_up();
    let before = bucket.keys("objects/").len();
    bucket.proxy.plan(after(1), Fault::Refuse(503, "SlowDown"), |request| is_put(request) && is_object(request));
    let refused = bucket.world.run(&["backup"]);
    assert_told(&refused, "the store is too busy", "run it again later");
    bucket.assert_nothing_lost(1);
    bucket.proxy.relent();
    bucket.world.backup();
    assert!(bucket.keys("objects/").len() > before);
    bucket.assert_sound();
}

#[test]
fn connections_that_are_cut_are_made_anew() {
    let bucket = backed_up();
    // On the way up: before a byte, in the midst of one object, of many.
    bucket.proxy.plan(times(3), Fault::CutRequest(0), one_in(2, is_put));
    bucket.proxy.plan(times(4), Fault::CutRequest(10_000), one_in(2, |request| is_put(request) && is_object(request)));
    bucket.world.backup();
    // On the way down.
    bucket.proxy.plan(times(8), Fault::CutAnswer(0), one_in(3, |request| request.kind == Kind::Get));
    bucket.proxy.plan(times(8), Fault::CutAnswer(5_000), one_in(2, |request| request.kind == Kind::Get));
    bucket.proxy.plan(times(2), Fault::CutAnswer(300), one_in(2, |request| request.kind == Kind::List));
    bucket.assert_restores(&[]);
    bucket.world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
    assert!(bucket.proxy.hits() >= 16, "{} hits", bucket.proxy.hits());
    bucket.assert_sound();
}

#[test]
fn an_answer_that_is_lost_after_the_write_was_done_is_looked_for() {
    for kind in ["/claims/", "/objects/", "/lists/", "/backups/", "/records/"] {
        let bucket = backed_up();
        bucket.proxy.plan(
            ALWAYS,
            Fault::Swallow,
            one_in(2, move |request| is_put(request) && request.key.contains(kind)),
        );
        let id = bucket.world.backup();
        assert!(bucket.proxy.hits() > 0, "{kind}");
        bucket.proxy.relent();
        let listed = bucket.listed(&[]);
        assert!(listed.len() == 2 && listed[1] == id, "{kind}: {listed:?}");
        bucket.assert_sound();
    }
}

#[test]
fn a_read_that_is_not_what_was_written_is_read_again_or_told() {
    for fault in [Fault::Truncate(700), Fault::Truncate(0), Fault::Flip] {
        let bucket = Bucket::new();
        bucket.world.backup();
        // Once, as by a bad moment of some box on the way.
        bucket.proxy.plan(ONCE, fault.clone(), |request| request.kind == Kind::Get && is_object(request));
        let world = &bucket.world;
        let once = world.run(&["restore", "shop", "--to", "out", "--identity", "identity.txt", "-q"]);
        if once.code != Some(0) {
            assert_told(&once, "damaged", "");
            let _ = fs::remove_dir_all(world.path("out"));
            bucket.assert_restores(&[]);
        }
        // And for ever, as by a broken disk there.
        let always = |request: &Request| request.kind == Kind::Get && is_object(request);
        bucket.proxy.plan(ALWAYS, fault, always);
        let _ = fs::remove_dir_all(world.path("out"));
        let told = world.run(&["restore", "shop", "--to", "out", "--identity", "identity.txt", "-q"]);
        assert_told(&told, "object", "lifeboat check");
        let check = world.run(&["check", "--read-data", "--identity", "identity.txt"]);
        assert_eq!(check.code, Some(20), "{}{}", check.stdout, check.stderr);
        bucket.proxy.relent();
        bucket.world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
        let _ = fs::remove_dir_all(world.path("out"));
        bucket.assert_sound();
    }
}

#[test]
fn a_stale_listing_loses_nothing() {
    let bucket = backed_up();
    // What every list said before this run is what it goes on saying.
    bucket.world.expect(0, &["check"]);
    bucket.proxy.plan(ALWAYS, Fault::Stale, |request| request.kind == Kind::List);
    let during = bucket.world.run(&["backup"]);
    let stale = bucket.world.run(&["list"]);
    assert!(stale.code.is_some(), "{}", stale.stderr);
    bucket.proxy.relent();
    let committed = 1 + usize::from(during.code == Some(0));
    if committed == 1 {
        assert_told(&during, "", "");
    }
    bucket.assert_nothing_lost(committed);
    bucket.world.backup();
    bucket.assert_sound();
}

#[test]
fn a_clock_that_is_off_is_corrected_or_told() {
    let bucket = backed_up();
    // Tomorrow, and the day before yesterday; the store's own clock is right.
    for shift in ["+1d", "-2d"] {
        let mut command = bucket.world.command(&["backup"]);
        off_by(&mut command, shift);
        let said = said(&mut command);
        if said.code != Some(0) {
            assert_told(&said, "", "clock");
        }
        bucket.assert_nothing_lost(bucket.listed(&[]).len());
    }
    bucket.world.backup();
    bucket.assert_sound();
}

#[test]
fn a_store_whose_clock_is_off_is_told() {
    let bucket = backed_up();
    bucket.proxy.plan(ALWAYS, Fault::ShiftDate(400 * 86_400), |_| true);
    let said = bucket.world.run(&["backup"]);
    if said.code != Some(0) {
        assert_told(&said, "clock", "");
    }
    bucket.proxy.relent();
    let backups = bucket.listed(&[]).len();
    bucket.assert_nothing_lost(backups);
}

#[test]
fn keys_that_expire_in_the_midst_are_told_and_the_next_run_goes_on() {
    let bucket = backed_up();
    bucket.proxy.plan(after(2), Fault::Refuse(400, "ExpiredToken"), |request| is_put(request) && is_object(request));
    let refused = bucket.world.run(&["backup"]);
    assert_told(&refused, "the keys' time is over", "renew the temporary keys");
    bucket.proxy.relent();
    bucket.assert_nothing_lost(1);
    bucket.world.backup();
    bucket.assert_sound();
}

#[test]
fn what_is_wrong_with_the_config_is_told_with_what_to_write() {
    let bucket = backed_up();
    let world = &bucket.world;
    let with = |from: &str, to: &str| {
        bucket.edit(from, to);
        let said = world.run(&["backup"]);
        bucket.edit(to, from);
        said
    };
    fs::write(world.path("wrong"), "wrong-secret").unwrap();
    let wrong_secret = with("secret_key = { file = \"secret-key\" }", "secret_key = { env = \"NO_SUCH\" }");
    assert_told(&wrong_secret, "NO_SUCH", "");
    let key = fs::read(world.path("secret-key")).unwrap();
    fs::write(world.path("secret-key"), "wrong-secret").unwrap();
    assert_told(&world.run(&["backup"]), "the store does not take these keys", "`access_key` and `secret_key`");
    fs::write(world.path("secret-key"), key).unwrap();
    let no_bucket = with(&bucket.url(), "s3://no-such-bucket/backups/shop");
    assert_told(&no_bucket, "there is no such bucket", "make the bucket, or mend the vault's `url`");
    let no_vault = with(&bucket.url(), &format!("s3://{}/elsewhere", bucket.name));
    assert_told(&no_vault, "there is no vault in", "lifeboat init");

    // A port that nobody listens at.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let nobody = with(&bucket.proxy.endpoint(), &format!("http://{port}"));
    assert_told(&nobody, "the store does not answer", "`endpoint`");

    // The server of these tests takes any region; AWS says it like this.
    for (status, code) in [(400, "AuthorizationHeaderMalformed"), (301, "PermanentRedirect")] {
        bucket.proxy.plan(ALWAYS, Fault::Refuse(status, code), |_| true);
        assert_told(&world.run(&["backup"]), "the bucket lies in another region", "`region`");
        bucket.proxy.relent();
    }
    bucket.assert_nothing_lost(1);
    world.backup();
    bucket.assert_sound();
}

#[test]
fn a_bucket_that_lies_about_a_delete_is_found_out() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    bucket.keep_little();
    bucket.edit("[job.shop.drill]", "[job.shop.prune]\nschedule = \"0 4 * * *\"\n[job.shop.drill]");
    for day in 0..3_u8 {
        fs::write(world.path("uploads/daily"), noise(100_000, day)).unwrap();
        world.backup();
    }
    let before = bucket.keys("");
    bucket.proxy.plan(ALWAYS, Fault::Lie, |request| matches!(request.kind, Kind::Delete | Kind::DeleteMany));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let told = loop {
        let said = world.run(&["prune"]);
        if bucket.proxy.hits() > 0 {
            break said;
        }
        assert!(std::time::Instant::now() < until, "nothing is ever erased: {}", said.stderr);
    };
    assert_told(&told, "still has it", "nothing counts as erased there until it is gone");
    for key in &before {
        assert!(bucket.server.get(&bucket.name, &format!("{PREFIX}/{key}")).is_some(), "{key}");
    }
    bucket.proxy.relent();
    while bucket.keys("objects/").len() >= before.iter().filter(|key| key.starts_with("objects/")).count() {
        world.expect(0, &["prune"]);
        assert!(std::time::Instant::now() < until, "nothing is erased");
    }
    world.backup();
    bucket.assert_sound();
}

#[test]
fn silence_is_not_waited_for_for_ever() {
    let bucket = backed_up();
    // What a put may take depends on its size, and these are small.
    bucket.proxy.plan(Times { skip: 1, hit: 2 }, Fault::Silence, |request| {
        is_put(request) && !is_object(request) || request.kind == Kind::List
    });
    bucket.world.backup();
    assert_eq!(bucket.proxy.hits(), 2);
    bucket.assert_sound();
}

/// The program's clock, so much off.
fn off_by(command: &mut std::process::Command, shift: &str) {
    in_time(command, (0, "00:00"));
    command.env("FAKETIME", shift);
}
