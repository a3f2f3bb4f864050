//! A real Prometheus reads the textfile from a server of static files, with the alerts that are shipped: a backup is broken on
//! purpose, and mended.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{RULES, dashboard, project};
use crate::support::World;

/// It scrapes and evaluates each second; on a busy machine it may be late.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus of this test's own, until it is dropped.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes `target`, and waits until it answers.
    fn start(world: &World, target: SocketAddr) -> Self {
        let config = world.path("prometheus.yml");
        let text = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [project(RULES)],
            "scrape_configs": [{ "job_name": "textfile", "static_configs": [{ "targets": [target.to_string()] }] }],
        });
        fs::write(&config, text.to_string()).unwrap();
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", world.path("series").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        // It is read to its end, or Prometheus would wait for a reader.
        thread::spawn(move || {
            let mut address = None;
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, listens)) = line.split_once("msg=\"Listening on\" address=") {
                    address = Some(listens.parse::<SocketAddr>().unwrap());
                }
                if line.contains("Server is ready to receive web requests") {
                    address.take().into_iter().for_each(|address| tell.send(address).unwrap());
                }
            }
        });
        let address = told.recv_timeout(PATIENCE).expect("prometheus says where it listens, and that it is ready");
        Self { process, address }
    }

    /// Asks its API.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|cause| panic!("{cause}: {answer}"))
    }

    /// What an expression gives now: the labels of each sample.
    fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().iter().map(|sample| sample["metric"].clone()).collect()
    }

    /// Asks until the answer is as it should be.
    #[track_caller]
    fn wait_for(&self, expression: &str, is_right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.query(expression);
            if is_right(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{expression} is still {answer:?}\n{}", self.get("/api/v1/targets"));
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its files go with the world.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves one file to whoever asks for anything, until the process ends.
fn serve(file: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let request = BufReader::new(&stream);
            let _ = request.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            let text = fs::read(&file).unwrap_or_default();
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(&[head.as_bytes(), &text].concat());
        }
    });
    address
}

#[test]
fn a_real_prometheus_alerts_when_a_backup_is_broken_on_purpose() {
    let world = World::in_memory();
    let file = world.path("lifeboat.prom");
    let tell = |world: &World| world.expect(0, &["status", "--prometheus", "--output", "lifeboat.prom"]);
    world.backup();
    tell(&world);
    let prometheus = Prometheus::start(&world, serve(file));
    let firing = "ALERTS{alertstate=\"firing\"}";
    let is_well = |answer: &[Value]| answer.is_empty();
    prometheus.wait_for("lifeboat_last_run_success{operation=\"backup\"} == 1", |answer| answer.len() == 1);
    assert_eq!(prometheus.query(firing), Vec::<Value>::new());

    fs::rename(world.path("uploads"), world.path("away")).unwrap();
    world.expect(1, &["backup"]);
    tell(&world);
    let fired = prometheus.wait_for(firing, |answer| !answer.is_empty());
    assert_eq!(fired.len(), 1, "{fired:?}");
    for (label, value) in [("alertname", "LifeboatRunFailed"), ("job_name", "shop"), ("severity", "critical")] {
        assert_eq!(fired[0][label], value, "{fired:?}");
    }

    fs::rename(world.path("away"), world.path("uploads")).unwrap();
    world.backup();
    tell(&world);
    prometheus.wait_for(firing, is_well);

    // No rule and no panel stumbles over what is really told.
    let rules = prometheus.get("/api/v1/rules");
    for rule in rules["data"]["groups"][0]["rules"].as_array().unwrap() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    tell(&world);
    prometheus.wait_for("lifeboat_drill_last_duration_seconds", |answer| answer.len() == 1);
    for (title, expression) in dashboard() {
        let answer = prometheus.query(&expression.replace("$job_name", ".*"));
        // Nothing was left out of the last backup.
        let is_empty = title == "Notes of the last backup";
        assert_eq!(answer.is_empty(), is_empty, "{title}: {expression}");
    }
}
