//! Who is told what of real runs: heartbeats, failures and their end, receivers that are away, and what stays at home.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::documents::Document;
use crate::erasing::libfaketime;
use crate::support::World;

#[path = "../servers/receivers.rs"]
pub(crate) mod receivers;

use receivers::{Mail, Web};

/// A world whose config goes on so; each secret is a file of its name.
fn world(config: &str, secrets: &[(&str, String)]) -> World {
    let world = World::in_memory();
    more(&world, config);
    for (name, value) in secrets {
        secret(&world, name, value);
    }
    world
}

fn more(world: &World, config: &str) {
    let path = world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\n{config}")).unwrap();
}

fn secret(world: &World, name: &str, value: &str) {
    fs::write(world.path(name), value).unwrap();
    fs::set_permissions(world.path(name), Permissions::from_mode(0o600)).unwrap();
}

const HEARTBEAT: &str = "[notify.heartbeat]\nurl = { file = \"ping\" }\ndrill_url = { file = \"drill-ping\" }\n";
const CHAT: &str = "[notify.chat]\nkind = \"webhook\"\nurl = { file = \"chat\" }\n";

/// The document that a webhook got.
#[track_caller]
fn told(web: &Web) -> Value {
    serde_json::from_str(&web.next_post().1).unwrap()
}

/// A beat: its path, and the run that it names.
#[track_caller]
fn beat(web: &Web) -> (String, String) {
    let (path, _) = web.next_post();
    let (path, run) = path.split_once("?rid=").expect(&path);
    (path.to_owned(), run.to_owned())
}

#[test]
fn a_failure_and_its_end_are_told_and_a_plain_success_only_to_the_heartbeat() {
    let (ping, chat) = (Web::start(), Web::start());
    let world = world(
        &format!("{HEARTBEAT}{CHAT}"),
        &[("ping", ping.url("/p")), ("drill-ping", ping.url("/d")), ("chat", chat.url("/c"))],
    );
    world.backup();
    let (begun, ended) = (beat(&ping), beat(&ping));
    assert_eq!((begun.0.as_str(), ended.0.as_str()), ("/p/start", "/p"));
    assert_eq!(begun.1, ended.1);
    assert_eq!(chat.rest(), [] as [String; 0]);

    fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    world.expect(1, &["backup"]);
    assert_eq!((beat(&ping).0.as_str(), beat(&ping).0.as_str()), ("/p/start", "/p/fail"));
    let document = told(&chat);
    for (key, value) in [
        ("event", "failure"),
        ("job", "shop"),
        ("operation", "backup"),
        ("outcome", "failed"),
        ("error_code", "source-unavailable"),
        ("title", "backup of shop failed"),
    ] {
        assert_eq!(document[key], value, "{document}");
    }
    assert_eq!(document["exit_status"], 1);
    assert!(!document.to_string().contains("shop.db") && document["details"].is_null(), "{document}");

    // Once is enough.
    world.expect(1, &["backup"]);
    assert_eq!((beat(&ping).0.as_str(), beat(&ping).0.as_str()), ("/p/start", "/p/fail"));
    fs::rename(world.path("away.db"), world.path("shop.db")).unwrap();
    world.backup();
    assert_eq!((beat(&ping).0.as_str(), beat(&ping).0.as_str()), ("/p/start", "/p"));
    let over = told(&chat);
    assert_eq!((&over["event"], &over["since"]), (&"recovery".into(), &document["at"]), "{over}");
    world.backup();
    assert_eq!(chat.rest(), [] as [String; 0]);

    // Drills have a heartbeat of their own.
    assert_eq!(ping.rest().len(), 2);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!((beat(&ping).0.as_str(), beat(&ping).0.as_str()), ("/d/start", "/d"));
    more(&world, "[[job.shop.drill.checks]]\nsource = \"db\"\nsql = \"select count(*) > 9999 from users\"\n");
    world.expect(21, &["drill", "--identity", "identity.txt"]);
    assert_eq!((beat(&ping).0.as_str(), beat(&ping).0.as_str()), ("/d/start", "/d/fail"));
    let failed = told(&chat);
    assert_eq!((&failed["event"], &failed["error_code"]), (&"drill".into(), &"drill-failed".into()), "{failed}");
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("> 9999", "> 9")).unwrap();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    let passed = told(&chat);
    assert_eq!((&passed["event"], &passed["outcome"]), (&"drill".into(), &"passed".into()), "{passed}");
    assert_eq!(passed["title"], "drill of shop passed again");
}

#[test]
fn a_receiver_that_is_away_changes_nothing_and_is_told_by_the_next_run() {
    let (ping, chat) = (Web::start(), Web::start());
    let address = chat.address().to_string();
    let world = world(
        &format!("{HEARTBEAT}{CHAT}details = true\n"),
        &[("ping", ping.url("/p")), ("drill-ping", ping.url("/d")), ("chat", chat.url("/c/SECRET-PART"))],
    );
    drop(chat);
    fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    let said = world.expect(1, &["backup", "-vv"]);
    assert!(said.stderr.contains("a notification to chat did not arrive"), "{}", said.stderr);
    assert!(!said.stderr.contains("SECRET-PART"), "{}", said.stderr);
    let doctor = world.run(&["doctor"]);
    let line = doctor.stdout.lines().find(|line| line.contains("notify chat")).unwrap();
    assert!(line.starts_with("WARNING") && line.contains("1 undelivered since"), "{line}");
    assert!(doctor.stdout.contains("OK      notify heartbeat: last delivered 20"), "{}", doctor.stdout);

    let chat = Web::at(&address);
    world.expect(1, &["backup"]);
    let document = told(&chat);
    assert_eq!(document["event"], "failure", "{document}");
    assert!(document["details"].as_str().unwrap().contains("shop.db"), "{document}");
    assert_eq!(chat.rest(), [] as [String; 0]);
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("OK      notify chat: last delivered 20"), "{}", doctor.stdout);
}

#[test]
fn a_test_goes_to_everybody_and_says_what_they_answer() {
    let (web, mail) = (Web::start(), Mail::start("250 2.0.0 taken as 4711"));
    let config = format!(
        "{HEARTBEAT}{CHAT}[notify.bot]\nkind = \"telegram\"\ntoken = {{ env = \"BOT\" }}\nchat = \"@ops\"\nendpoint = \"{}\"\n\
         [notify.mail]\nkind = \"email\"\nserver = \"{}\"\ntls = \"none\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n\
         [notify.shell]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"cat > shell.said\"]\n",
        web.url(""),
        mail.address()
    );
    let secrets = [("ping", web.url("/p/{job}")), ("drill-ping", web.url("/d")), ("chat", web.url("/c"))];
    let world = world(&config, &secrets);
    let run = |args: &[&str]| {
        let out = world.command(args).env("BOT", "1234567:TOKENTOKEN").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    };
    let (code, stdout, stderr) = run(&["notify", "test", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    let answers: Vec<(&str, &str)> = document["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| (channel["channel"].as_str().unwrap(), channel["answer"].as_str().unwrap()))
        .collect();
    assert_eq!(
        answers,
        [
            ("heartbeat backup of shop", "200 ok"),
            ("heartbeat drill of shop", "200 ok"),
            ("bot", "200 ok"),
            ("chat", "200 ok"),
            ("mail", "250 2.0.0 taken as 4711"),
            ("shell", "exit status 0"),
        ]
    );
    let paths: Vec<String> = (0..4).map(|_| web.next_post().0.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/p/shop/log", "/d/log", "/bot1234567:TOKENTOKEN/sendMessage", "/c"]);
    assert!(mail.next().contains(&"Subject: lifeboat: a test of notifications".to_owned()));
    let shell: Value = serde_json::from_slice(&fs::read(world.path("shell.said")).unwrap()).unwrap();
    assert_eq!(shell["event"], "test");

    web.answers("403 Forbidden", "", "no /bot1234567:TOKENTOKEN/sendMessage");
    let (code, stdout, stderr) = run(&["notify", "test", "bot"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("error: bot (telegram): the answer is 403: no") && stderr.contains("[notify-failed]"),
        "{stderr}"
    );
    assert!(stderr.contains("hint:") && !stderr.contains("TOKEN"), "{stdout}{stderr}");
    assert_eq!(run(&["notify", "test", "mial"]).0, 2);
    // Nothing of a secret is in what is said of the config, or kept.
    let shown = world.json(0, &["config", "show"]);
    assert_eq!(shown["notify"]["bot"]["token"], serde_json::json!({ "env": "BOT" }), "{shown}");
}

#[test]
fn jobs_have_heartbeats_of_their_own_and_failures_an_exit_status() {
    let ping = Web::start();
    let secrets = [("ping", ping.url("/all")), ("own", ping.url("/own?create=1"))];
    let config = "[notify.heartbeat]\nurl = { file = \"ping\" }\nexit_status = true\n\
                  [job.shop.notify]\nheartbeat = { file = \"own\" }\n\
                  [job.mail]\nschedule = \"@daily\"\nretention = { keep_at_least = \"14d\", delete_after = \"30d\" }\n\
                  [job.mail.source.files]\nkind = \"files\"\npaths = [\"nowhere\"]\n";
    let world = world(config, &secrets);
    let said = world.run(&["backup"]);
    let paths: Vec<String> = (0..4).map(|_| ping.next_post().0).collect();
    let begins = |at: usize, with: &str| assert!(paths[at].starts_with(with), "{paths:?}\n{}", said.stderr);
    begins(0, "/all/start?rid=");
    begins(1, &format!("/all/{}?rid=", said.code.unwrap()));
    begins(2, "/own/start?create=1&rid=");
    begins(3, "/own?create=1&rid=");
}

/// STARTTLS and a login, to a server that this host believes, and to one that it does not.
#[test]
fn a_password_goes_only_to_a_server_that_is_believed() {
    let world = world(
        "[notify.mail]\nkind = \"email\"\nserver = \"localhost:PORT\"\nuser = \"backups\"\npassword = { file = \"password\" }\n\
         from = \"a@example.com\"\nto = [\"b@example.com\"]\n",
        &[("password", "hunter22".to_owned())],
    );
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "tls.key", "-out", "tls.pem"])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let certificate = CertificateDer::from_pem_file(world.path("tls.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.path("tls.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mail = Mail::with_tls(Arc::new(config));
    let text = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), text.replace("PORT", &mail.address().port().to_string())).unwrap();

    let said = world.run(&["notify", "test"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(!mail.next().concat().contains("AUTH"));

    let out = world.command(&["notify", "test"]).env("SSL_CERT_FILE", world.path("tls.pem")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let talk = mail.next();
    // \0backups\0hunter22
    assert!(talk.contains(&"AUTH PLAIN AGJhY2t1cHMAaHVudGVyMjI=".to_owned()), "{talk:?}");
    assert!(talk.contains(&"RCPT TO:<b@example.com>".to_owned()), "{talk:?}");
}

#[test]
fn what_the_config_must_not_say() {
    for (config, words) in [
        ("[notify.heartbeat]\nurl = \"https://hc.example/SECRET\"\n", "must not stand in the config"),
        ("[notify.heartbeat]\n", "neither `url`"),
        ("[notify.heartbeat]\nurl = { env = \"P\" }\non = [\"failure\"]\n", "told of every run"),
        ("[notify.x]\nkind = \"slak\"\n", "there is no such kind"),
        ("[notify.x]\nurl = { env = \"P\" }\n", "has no `kind`"),
        ("[notify.x]\nkind = \"heartbeat\"\nurl = { env = \"P\" }\n", "a heartbeat is [notify.heartbeat]"),
        ("[notify.x]\nkind = \"slack\"\n", "has no `url`"),
        ("[notify.x]\nkind = \"slack\"\nurl = { env = \"P\" }\nchat = \"1\"\n", "it belongs to telegram"),
        (
            "[notify.x]\nkind = \"slack\"\nurl = { env = \"P\" }\non = [\"success\"]\n",
            "is what [notify.heartbeat] is for",
        ),
        ("[notify.x]\nkind = \"slack\"\nurl = { env = \"P\" }\njobs = [\"shopp\"]\n", "there is no job \"shopp\""),
        (
            "[notify.x]\nkind = \"webhook\"\nurl = { env = \"P\" }\ntemplate = \"{jobb}\"\n",
            "there is no placeholder {jobb}",
        ),
        ("[notify.x]\nkind = \"webhook\"\nurl = { env = \"P\" }\ntemplate = \"{job}\"\n", "not JSON"),
        ("[notify.x]\nkind = \"webhook\"\nurll = { env = \"P\" }\n", "did you mean `url`"),
        ("[notify.x]\nkind = \"email\"\nserver = \"m:99999\"\nfrom = \"a\"\nto = []\n", "`server` is a name"),
        (
            "[notify.x]\nkind = \"email\"\nserver = \"mail.example.com\"\ntls = \"none\"\nuser = \"u\"\npassword = { env = \"P\" }\n\
             from = \"a@example.com\"\nto = [\"b@example.com\"]\n",
            "in clear",
        ),
        ("[notify.x]\nkind = \"command\"\ncommand = []\n", "names no program"),
    ] {
        let world = world(config, &[]);
        let said = world.expect(78, &["config", "check"]);
        assert!(said.stderr.contains(words), "{words} is not in\n{}", said.stderr);
        assert!(!said.stderr.contains("SECRET"), "{}", said.stderr);
    }
}

/// What lasts is told by whatever looks, once a day, and a run that comes again ends it.
#[test]
fn what_is_overdue_and_what_is_not_erased_are_told() {
    let chat = Web::start();
    let world = world(CHAT, &[("chat", chat.url("/c"))]);
    world.backup();
    let look = |later: &str| {
        let mut command = world.command(&["notify", "send"]);
        command.env("LD_PRELOAD", libfaketime()).env("FAKETIME", later);
        let out = command.env("NO_FAKE_STAT", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    look("+11h");
    assert_eq!(chat.rest(), [] as [String; 0]);
    look("+13h");
    let overdue = told(&chat);
    assert_eq!((&overdue["event"], &overdue["operation"]), (&"overdue".into(), &"backup".into()), "{overdue}");
    assert!(overdue["summary"].as_str().unwrap().contains("is overdue: the last run ended 20"), "{overdue}");
    look("+14h");
    assert_eq!(chat.rest(), [] as [String; 0]);
    // The last backup there is: it stays, and the promise to erase it cannot be kept.
    look("+45d");
    let mut again = [told(&chat), told(&chat)];
    again.sort_by_key(|document| document["title"].as_str().unwrap().to_owned());
    let titles = again.each_ref().map(|document| document["title"].as_str().unwrap());
    assert_eq!(titles, ["backup of shop is overdue", "erasure deadline of shop is past"]);
    assert_eq!((&again[1]["event"], &again[1]["percent"]), (&"erasure".into(), &100.into()), "{}", again[1]);
    world.backup();
    assert_eq!(told(&chat)["event"], "recovery");
}

#[test]
fn a_channel_that_is_not_reached_is_met_by_its_runbook() {
    let chat = Web::start();
    let address = chat.address().to_string();
    let world = world(CHAT, &[("chat", chat.url("/c"))]);
    drop(chat);
    fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    world.expect(1, &["backup"]);
    let places = [("/var/lib/lifeboat", world.path("state")), ("/etc/lifeboat/chat.url", world.path("chat"))];
    let mut runbook = Document::open("runbooks/notifications-absent.md");
    let said = runbook.next(6, &world, &places);
    assert!(said.contains("chat (webhook)") && said.contains("nobody answers there"), "{said}");
    assert!(said.contains("1 undelivered since") && said.contains(".json\n"), "{said}");
    let chat = Web::at(&address);
    runbook.rest(&world, &places);
    assert_eq!(told(&chat)["event"], "test");
    assert_eq!(told(&chat)["event"], "failure");
}

/// A hook that kills the process that runs it, as long as a file is there.
pub(crate) fn kills_while(path: &std::path::Path) -> String {
    format!("[\"sh\", \"-c\", \"test ! -e {} || kill -KILL $PPID\"]", path.display())
}

/// Who was killed can tell nobody: the next one does, once, whether or not it lives to its own end.
#[test]
fn a_killed_backup_is_told_by_the_next_one() {
    let (ping, chat) = (Web::start(), Web::start());
    let world = world(
        &format!("{HEARTBEAT}{CHAT}"),
        &[("ping", ping.url("/p")), ("drill-ping", ping.url("/d")), ("chat", chat.url("/c"))],
    );
    let (before, after) = (world.path("before-now"), world.path("after-now"));
    more(&world, &format!("[job.shop.hooks]\nbefore = {}\nafter = {}\n", kills_while(&before), kills_while(&after)));
    fs::write(&before, "").unwrap();
    assert_eq!(world.run(&["backup"]).code, None);
    assert_eq!(world.run(&["backup"]).code, None);
    assert_eq!(chat.rest(), [] as [String; 0]);
    fs::remove_file(&before).unwrap();
    world.backup();
    let killed = told(&chat);
    for (key, value) in [
        ("event", "failure"),
        ("job", "shop"),
        ("operation", "backup"),
        ("outcome", "failed"),
        ("error_code", "killed"),
        ("title", "backup of shop failed"),
    ] {
        assert_eq!(killed[key], value, "{killed}");
    }
    let (since, at) = (killed["since"].as_str().unwrap(), killed["at"].as_str().unwrap());
    assert!(since <= at && killed["exit_status"].is_null() && killed["details"].is_null(), "{killed}");
    let over = told(&chat);
    assert_eq!((&over["event"], &over["since"]), (&"recovery".into(), &killed["since"]), "{over}");
    world.backup();
    assert_eq!(chat.rest(), [] as [String; 0], "once is enough");

    // One that was committed when it was killed is no failure.
    fs::write(&after, "").unwrap();
    assert_eq!(world.run(&["backup"]).code, None);
    fs::remove_file(&after).unwrap();
    world.backup();
    let list = world.json(0, &["list"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 4, "{list}");
    assert_eq!(chat.rest(), [] as [String; 0]);
    // The heartbeat missed them by itself.
    let beats: Vec<String> = ping.rest();
    let ends = beats.iter().filter(|beat| beat.starts_with("POST /p?")).count();
    assert_eq!((beats.len(), ends), (6 + 3, 3), "{beats:?}");
}

/// The same of a drill, which is told as one.
#[test]
fn a_killed_drill_is_told_by_the_next_one() {
    let chat = Web::start();
    let world = world(CHAT, &[("chat", chat.url("/c"))]);
    world.backup();
    let mark = world.path("state/locks/shop.drill.begun");
    let mut drill = world.command(&["drill", "--identity", "identity.txt"]);
    let mut drill = drill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !mark.exists() {
        assert_eq!(drill.try_wait().unwrap(), None, "it ended before it could be killed");
        std::thread::yield_now();
    }
    drill.kill().unwrap();
    drill.wait().unwrap();
    assert_eq!(chat.rest(), [] as [String; 0]);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    let (killed, passed) = (told(&chat), told(&chat));
    for (told, outcome, code) in [(&killed, "failed", Value::from("killed")), (&passed, "passed", Value::Null)] {
        assert_eq!((&told["event"], &told["operation"]), (&"drill".into(), &"drill".into()), "{told}");
        assert_eq!((&told["outcome"], &told["error_code"]), (&outcome.into(), &code), "{told}");
    }
    assert_eq!(killed["title"], "drill of shop failed");
    assert_eq!(chat.rest(), [] as [String; 0]);
}
