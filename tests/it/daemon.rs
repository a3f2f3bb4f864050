//! The daemon as a process: what is due is done once, whatever happens to the process; signals, a second daemon, what it
//! answers. libfaketime puts it shortly before a full minute, so that a schedule of minutes is soon due; the clock stays
//! within what the vault allows, and never goes back from one process to the next.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::erasing::libfaketime;
use crate::notify::kills_while;
use crate::notify::receivers::Web;
use crate::support::World;

/// A line comes long before, or never.
const LINE_WITHIN: Duration = Duration::from_secs(120);
/// Where in a minute a process begins.
const BEGINS_AT_SECOND: i64 = 53;

/// A world whose job is due each minute, and the clock of its daemons.
struct Minutes {
    world: World,
    ahead: TimeDelta,
}

struct Daemon {
    child: Child,
    lines: Receiver<String>,
    heard: String,
    address: String,
}

impl Minutes {
    fn new() -> Self {
        let world = World::in_memory();
        let minutes = Self { world, ahead: TimeDelta::zero() };
        minutes.edit("15 */6 * * *", "* * * * *");
        let path = minutes.world.path("lifeboat.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}\n[daemon]\nlisten = \"127.0.0.1:0\"\nnames = [\"backup.internal\"]\n"))
            .unwrap();
        minutes
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.world.path("lifeboat.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (head, job) = text.split_at(text.find("\n[job.shop]").unwrap());
        assert!(job.contains(from), "{job}");
        fs::write(&path, format!("{head}{}", job.replacen(from, to, 1))).unwrap();
    }

    /// Starts a daemon a few seconds before a full minute, which is later than any that a daemon here has seen.
    fn daemon(&mut self) -> Daemon {
        let now = Utc::now() + self.ahead;
        let wait = (BEGINS_AT_SECOND - i64::from(now.second())).rem_euclid(60);
        self.ahead += TimeDelta::seconds(wait);
        assert!(self.ahead < TimeDelta::minutes(5), "more than the vault allows");
        let mut command = self.world.command(&["daemon", "--log-format", "json"]);
        command
            .env("LD_PRELOAD", libfaketime())
            .env("FAKETIME", format!("{:+}", self.ahead.num_seconds()))
            .env("NO_FAKE_STAT", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut daemon = Daemon { child, lines, heard: String::new(), address: String::new() };
        let ready = daemon.wait_for("ready");
        daemon.address = ready["listening"].as_str().unwrap().to_owned();
        daemon
    }

    fn backups(&self) -> Vec<DateTime<Utc>> {
        let list = self.world.json(0, &["list"]);
        list["backups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["recovery_point"].as_str().unwrap().parse().unwrap())
            .collect()
    }
}

impl Daemon {
    /// The next line whose message begins so.
    #[track_caller]
    fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(LINE_WITHIN);
            let line = line.unwrap_or_else(|_| panic!("no line {message:?} after\n{}", self.heard));
            self.heard.push_str(&format!("{line}\n"));
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            if value["message"].as_str().unwrap().starts_with(message) {
                return value;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ends(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.get_as(&self.address, path)
    }

    /// As a browser does for a page of that name.
    fn get_as(&self, host: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that fails leaves none behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_does_what_is_due_answers_and_ends() {
    let mut minutes = Minutes::new();
    let mut daemon = minutes.daemon();
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/readyz"), (200, "config: ok\nstate: ok\ncatalog: ok\n".to_owned()));
    assert_eq!(daemon.get("/config").0, 404);
    // A web page whose name leads to this address reads nothing, whatever it asks for.
    for path in ["/", "/job/shop", "/metrics", "/healthz", "/config"] {
        let (status, said) = daemon.get_as("evil.example:9820", path);
        assert!(status == 421 && said.contains("names = ") && !said.contains("shop"), "{path}: {status} {said}");
    }
    assert_eq!(daemon.get_as("Backup.internal", "/metrics").0, 200);
    assert_eq!(daemon.get_as("localhost:80", "/metrics").0, 200);
    let started = daemon.wait_for("started");
    let ended = daemon.wait_for("ended");
    assert_eq!(ended["outcome"], "success", "{ended}");
    assert_eq!(
        (&ended["run"], &ended["job"], &ended["operation"]),
        (&started["run"], &"shop".into(), &"backup".into())
    );
    let (status, metrics) = daemon.get("/metrics");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("lifeboat_schedule_next_timestamp_seconds{job_name=\"shop\",operation=\"backup\"} "),
        "{metrics}"
    );

    // A second one is refused, and the first goes on.
    let second = minutes.world.expect(11, &["daemon"]);
    assert!(second.stderr.contains("[locked]") && second.stderr.contains("process "), "{}", second.stderr);

    // A broken config is told of, and the last good one stays in use.
    minutes.edit("schedule", "shcedule");
    daemon.signal(Signal::HUP);
    daemon.wait_for("the config cannot be used, and the last good one stays in use");
    let (status, ready) = daemon.get("/readyz");
    assert_eq!((status, ready.lines().next()), (503, Some("config: [config-invalid]")));
    minutes.edit("shcedule", "schedule");
    minutes.edit("* * * * *", "*/2 * * * *");
    daemon.signal(Signal::HUP);
    daemon.wait_for("read the config again");
    daemon.wait_for("another schedule: it counts from now on");
    assert_eq!(daemon.get("/readyz").0, 200);

    daemon.signal(Signal::TERM);
    daemon.wait_for("ended");
    assert_eq!(daemon.ends().code(), Some(0));
    assert_eq!(minutes.backups().len(), 1);
    minutes.world.expect(0, &["check"]);
}

/// Processes that are killed when a run began, in the middle of it, or after it ended: no time is lost but those that the
/// next one took over, none is done twice, and the vault is sound.
#[test]
fn whoever_is_killed_loses_nothing_and_repeats_nothing() {
    let mut minutes = Minutes::new();
    let mut slots = Vec::new();
    let mut sure = 0;
    for life in 0..3 {
        let mut daemon = minutes.daemon();
        let started = daemon.wait_for("started");
        slots.push(started["slot"].as_str().unwrap().to_owned());
        match life {
            0 => {}
            1 => {
                // Somewhere in the middle: when the claim, or a first segment, is there.
                while minutes.world.keys("objects").is_empty() && minutes.world.keys("claims").is_empty() {
                    std::thread::yield_now();
                }
            }
            _ => {
                assert_eq!(daemon.wait_for("ended")["outcome"], "success");
                sure += 1;
            }
        }
        daemon.signal(Signal::KILL);
        daemon.ends();
    }
    let once: std::collections::BTreeSet<&String> = slots.iter().collect();
    assert_eq!(once.len(), slots.len(), "a time was begun twice: {slots:?}");
    let backups = minutes.backups();
    assert!(backups.len() >= sure && backups.len() <= slots.len(), "{backups:?} of {slots:?}");
    minutes.world.expect(0, &["check"]);
    // What nobody saw end is told of by the next one.
    let mut daemon = minutes.daemon();
    daemon.wait_for("started");
    daemon.wait_for("ended");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().code(), Some(0));
    minutes.world.expect(0, &["check"]);
}

/// A vault that is not there for a while: the run fails of something that may pass, and the next one does its work.
#[test]
fn a_vault_that_is_away_is_waited_for() {
    let mut minutes = Minutes::new();
    minutes.world.backup();
    let (vault, away) = (minutes.world.path("vault"), minutes.world.path("away"));
    fs::rename(&vault, &away).unwrap();
    let mut daemon = minutes.daemon();
    let ended = daemon.wait_for("ended");
    assert_eq!((&ended["outcome"], &ended["code"]), (&"failed".into(), &"vault-missing".into()), "{ended}");
    daemon.wait_for("not tried again before its next time");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().code(), Some(0));
    fs::rename(&away, &vault).unwrap();
    let mut daemon = minutes.daemon();
    assert_eq!(daemon.wait_for("ended")["outcome"], "success");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().code(), Some(0));
    assert_eq!(minutes.backups().len(), 2);
}

/// Runs are told to the heartbeat under the name that they have in the log; a failure is told when it is not tried again, and
/// its end; a daemon that nobody can hear counts.
#[test]
fn it_tells_of_its_runs() {
    let web = Web::start();
    let mut minutes = Minutes::new();
    let secret = |name: &str, url: &str| {
        fs::write(minutes.world.path(name), url).unwrap();
        fs::set_permissions(minutes.world.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("ping", &web.url("/p"));
    secret("chat", &web.url("/c"));
    secret("away", "http://127.0.0.1:1/");
    let path = minutes.world.path("lifeboat.toml");
    let more = "[notify.heartbeat]\nurl = { file = \"ping\" }\n[notify.chat]\nkind = \"slack\"\nurl = { file = \"chat\" }\n\
                [notify.away]\nkind = \"slack\"\nurl = { file = \"away\" }\n";
    fs::write(&path, format!("{}\n{more}", fs::read_to_string(&path).unwrap())).unwrap();

    let (db, away) = (minutes.world.path("shop.db"), minutes.world.path("shop.away"));
    fs::rename(&db, &away).unwrap();
    let mut daemon = minutes.daemon();
    let started = daemon.wait_for("started");
    let rid = format!("?rid={}-", started["run"].as_str().unwrap());
    assert_eq!(daemon.wait_for("ended")["outcome"], "failed");
    assert!(web.next_post().0.starts_with(&format!("/p/start{rid}")));
    assert!(web.next_post().0.starts_with(&format!("/p/fail{rid}")));
    let (path, text) = web.next_post();
    assert!(path == "/c" && text.contains("backup of shop on") && text.contains("[source-unavailable]"), "{text}");
    daemon.wait_for("a notification to away did not arrive");
    fs::rename(&away, &db).unwrap();
    assert_eq!(daemon.wait_for("ended")["outcome"], "success");
    let mut posts = [web.next_post(), web.next_post(), web.next_post()].map(|(path, _)| path);
    posts.sort();
    assert!(posts[0] == "/c" && posts[1].starts_with("/p/start?") && posts[2].starts_with("/p?"), "{posts:?}");
    let (_, metrics) = daemon.get("/metrics");
    for channel in ["heartbeat", "chat"] {
        assert!(metrics.contains(&format!("lifeboat_notify_failures_total{{channel=\"{channel}\"}} 0\n")), "{metrics}");
    }
    let counted =
        metrics.lines().find_map(|line| line.strip_prefix("lifeboat_notify_failures_total{channel=\"away\"} "));
    assert!(counted.unwrap().parse::<u64>().unwrap() >= 1, "{metrics}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().code(), Some(0));
    assert_eq!(web.rest(), [] as [String; 0]);
}

/// A daemon that is killed in the middle of a run: the next one tells of that run before it tells of its own.
#[test]
fn it_tells_of_what_was_killed() {
    let web = Web::start();
    let mut minutes = Minutes::new();
    fs::write(minutes.world.path("chat"), web.url("/c")).unwrap();
    fs::set_permissions(minutes.world.path("chat"), fs::Permissions::from_mode(0o600)).unwrap();
    let (path, kill) = (minutes.world.path("lifeboat.toml"), minutes.world.path("kill-now"));
    let more = format!(
        "[job.shop.hooks]\nbefore = {}\n[notify.chat]\nkind = \"webhook\"\nurl = {{ file = \"chat\" }}\n",
        kills_while(&kill)
    );
    fs::write(&path, format!("{}\n{more}", fs::read_to_string(&path).unwrap())).unwrap();
    fs::write(&kill, "").unwrap();
    let mut daemon = minutes.daemon();
    daemon.wait_for("started");
    assert_eq!(daemon.ends().code(), None);
    fs::remove_file(&kill).unwrap();
    let mut daemon = minutes.daemon();
    assert_eq!(daemon.wait_for("ended")["outcome"], "success");
    let told = [web.next_post(), web.next_post()].map(|(_, body)| serde_json::from_str::<Value>(&body).unwrap());
    assert_eq!((&told[0]["event"], &told[0]["error_code"]), (&"failure".into(), &"killed".into()), "{told:?}");
    assert_eq!((&told[1]["event"], &told[1]["error_code"]), (&"recovery".into(), &Value::Null), "{told:?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().code(), Some(0));
    assert_eq!(web.rest(), [] as [String; 0]);
}
