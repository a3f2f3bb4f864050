//! A soak: the daemon with many jobs that are due each minute, a store that fails one request in ten, and a process that is
//! killed again and again. Nothing that ended well is lost, no time is begun twice, nothing leaks. In the suite it takes a
//! few minutes; `LIFEBOAT_SOAK_SECONDS=600 cargo test --test it soak` kills for ten.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::bucket::{Bucket, STRAIGHT};
use super::proxy::{ALWAYS, Fault};

const JOBS: usize = 12;
/// How long a process lives before it is killed.
const LIFE: Duration = Duration::from_secs(30);
/// How long is killed where nobody says otherwise.
const KILLING: Duration = Duration::from_secs(60);
/// A line comes long before, or never.
const LINE_WITHIN: Duration = Duration::from_secs(240);
/// What a process that did a round may have more than one that did one before: it is measured, and allocators keep some.
const MAX_GROWTH_KIB: u64 = 48 * 1024;
/// Connections to the store are kept, and nothing else.
const MAX_DESCRIPTORS: usize = 96;

/// Of runs that were found to have been killed: one file and its lock, however many they were, for whoever tells next.
const TOLD: [&str; 2] = ["notify/memory.json", "notify/memory.lock"];

/// What was seen of the runs, over all processes.
#[derive(Default)]
struct Seen {
    /// Each job's times that were begun.
    begun: BTreeMap<String, Vec<String>>,
    /// How many of each job's runs ended well.
    done: BTreeMap<String, usize>,
    failed: usize,
}

struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    fn start(bucket: &Bucket) -> Self {
        let mut command = bucket.world.command(&["daemon", "--log-format", "json"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Takes in what it says until then, or until `enough`.
    fn listen(&self, seen: &mut Seen, until: Instant, enough: impl Fn(&Seen) -> bool) -> bool {
        while !enough(seen) {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => seen.take_in(&line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => panic!("the daemon ended by itself"),
            }
        }
        true
    }

    /// Each job once more, all of them well.
    #[track_caller]
    fn a_round(&self, seen: &mut Seen) {
        let before = seen.done.clone();
        let enough = |seen: &Seen| {
            seen.done.len() == JOBS && seen.done.iter().all(|(job, done)| before.get(job).is_none_or(|was| done > was))
        };
        let done = self.listen(seen, Instant::now() + LINE_WITHIN, enough);
        assert!(done, "not every job ran: {:?}", seen.done);
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn end(mut self, signal: Signal, seen: &mut Seen) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let code = self.child.wait().unwrap().code();
        // What it said last counts too.
        self.lines.iter().for_each(|line| seen.take_in(&line));
        code
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that fails leaves none behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn take_in(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let (Some(job), Some(message)) = (line["job"].as_str(), line["message"].as_str()) else { return };
        if line["operation"] != "backup" {
            return;
        }
        if message == "started" {
            self.begun.entry(job.to_owned()).or_default().push(line["slot"].as_str().unwrap().to_owned());
        } else if message.starts_with("ended") {
            if line["outcome"] == "success" {
                *self.done.entry(job.to_owned()).or_default() += 1;
            } else {
                self.failed += 1;
            }
        }
    }
}

fn jobs(bucket: &Bucket) {
    let path = bucket.world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    let mut text = text[..text.find("\n[job.shop]").unwrap()].to_owned();
    text.push_str("\n[daemon]\nlisten = \"off\"\n");
    for number in 0..JOBS {
        let folder = bucket.world.path(format!("data-{number}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..5 {
            fs::write(folder.join(format!("file-{file}")), format!("{number} {file}").repeat(3000)).unwrap();
        }
        write!(
            text,
            "\n[job.job-{number}]\nschedule = \"* * * * *\"\n\
             retention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
             [job.job-{number}.prune]\nschedule = \"30 4 * * *\"\n\
             [job.job-{number}.source.files]\nkind = \"files\"\npaths = [{folder:?}]\n"
        )
        .unwrap();
    }
    fs::write(&path, &text).unwrap();
    let straight = text
        .replace(&bucket.proxy.endpoint(), &bucket.server.endpoint())
        .replace("\"access-key\"", "\"owner-access-key\"")
        .replace("\"secret-key\"", "\"owner-secret-key\"");
    fs::write(bucket.world.path(STRAIGHT), straight).unwrap();
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found
}

#[test]
#[expect(clippy::print_stdout, reason = "what it went through is worth a look")]
fn soak() {
    let seconds = std::env::var("LIFEBOAT_SOAK_SECONDS").ok();
    let killing = seconds.map_or(KILLING, |seconds| Duration::from_secs(seconds.parse().unwrap()));
    let bucket = Bucket::new();
    jobs(&bucket);
    // One request in ten: refused, done and not told, or cut in the midst of the answer.
    let counted = std::sync::Arc::new(AtomicUsize::new(0));
    for (at, fault) in [(3, Fault::Refuse(503, "SlowDown")), (13, Fault::Swallow), (23, Fault::CutAnswer(10))] {
        let counted = std::sync::Arc::clone(&counted);
        bucket.proxy.plan(ALWAYS, fault, move |_| {
            // Each request is asked about once by each plan that comes before the one it fits.
            let number =
                if at == 3 { counted.fetch_add(1, Ordering::SeqCst) } else { counted.load(Ordering::SeqCst) - 1 };
            number % 30 == at
        });
    }
    let mut seen = Seen::default();
    let daemon = Daemon::start(&bucket);
    daemon.a_round(&mut seen);
    assert_eq!(daemon.end(Signal::TERM, &mut seen), Some(0));
    let state = bucket.world.path("state");
    let files_before = files(&state);

    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < killing {
        let daemon = Daemon::start(&bucket);
        let all = daemon.listen(&mut seen, Instant::now() + LIFE, |_| false);
        assert!(!all);
        assert_eq!(daemon.end(Signal::KILL, &mut seen), None);
        kills += 1;
    }

    let daemon = Daemon::start(&bucket);
    daemon.a_round(&mut seen);
    let resident = daemon.resident_kib();
    daemon.a_round(&mut seen);
    let (grown, descriptors) = (daemon.resident_kib().saturating_sub(resident), daemon.descriptors());
    assert_eq!(daemon.end(Signal::TERM, &mut seen), Some(0));
    bucket.proxy.relent();
    assert!(bucket.proxy.hits() > 0, "the store never failed");
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB more in one round");
    assert!(descriptors < MAX_DESCRIPTORS, "{descriptors} files are open");
    let more: Vec<String> =
        files(&state).difference(&files_before).filter(|file| !TOLD.contains(&file.as_str())).cloned().collect();
    assert!(more.is_empty(), "files were left behind: {more:?}");

    let list = bucket.world.json(0, &["list", "--config", STRAIGHT]);
    let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
    for backup in list["backups"].as_array().unwrap() {
        *listed.entry(backup["job"].as_str().unwrap()).or_default() += 1;
    }
    for (job, begun) in &seen.begun {
        let once: BTreeSet<&String> = begun.iter().collect();
        assert_eq!(once.len(), begun.len(), "{job} began a time twice: {begun:?}");
        let (done, listed) = (seen.done[job], listed[job.as_str()]);
        assert!(
            done <= listed && listed <= begun.len(),
            "{job}: {done} ended well, {listed} are there, {} began",
            begun.len()
        );
    }
    bucket.world.expect(0, &["check", "--read-data", "--identity", "identity.txt", "--config", STRAIGHT]);
    println!(
        "soak: {} runs, {} failed, {kills} kills, {} faults, {resident} KiB, {descriptors} descriptors",
        seen.begun.values().map(Vec::len).sum::<usize>(),
        seen.failed,
        bucket.proxy.hits()
    );
}
