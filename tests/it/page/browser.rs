//! A headless Chromium, driven over its own pipe: documents as JSON, each ended by a NUL.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

/// Where Debian puts it; `cargo xtask test` installs it.
const PROGRAM: &str = "chromium-headless-shell";
/// An answer comes long before, or never.
const PATIENCE: Duration = Duration::from_secs(120);

/// A browser with one tab, until it is dropped.
pub(super) struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    asked: u64,
    /// What happened that nobody asked for.
    events: Vec<Value>,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) width: u32,
    pub(super) height: u32,
    /// `light` or `dark`.
    pub(super) scheme: &'static str,
    pub(super) is_phone: bool,
}

impl Browser {
    /// Starts one, with a profile of its own.
    pub(super) fn start(profile: &Path) -> Self {
        // Its pipe is descriptors 3 and 4. The sandbox refuses root, which the tests are; what it opens is our own.
        let script = r#"exec "$0" --headless --no-sandbox --disable-gpu --hide-scrollbars --force-color-profile=srgb \
            --no-first-run --disable-extensions --disable-background-networking --remote-debugging-pipe "--user-data-dir=$1" \
            3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let mut process = Command::new("sh")
            .args(["-c", script, PROGRAM])
            .arg(profile)
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (tell, from) = channel();
        std::thread::spawn(move || {
            let documents = BufReader::new(stdout).split(0).map_while(Result::ok);
            documents.map_while(|text| serde_json::from_slice(&text).ok()).try_for_each(|value| tell.send(value))
        });
        let mut browser = Self { process, to, from, session: String::new(), asked: 0, events: Vec::new() };
        let tab = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": tab, "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of its protocol.
    #[track_caller]
    pub(super) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut call = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{call}\0").as_bytes()).unwrap();
        loop {
            let said = self.next(method);
            if said["id"] == self.asked {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
        }
    }

    #[track_caller]
    fn next(&mut self, waiting_for: &str) -> Value {
        let said = self.from.recv_timeout(PATIENCE);
        let said = said.unwrap_or_else(|_| panic!("{PROGRAM} says nothing to {waiting_for}: is it installed?"));
        if said["id"].is_null() {
            self.events.push(said.clone());
        }
        said
    }

    /// Opens a page and waits until it is there. What happened before is forgotten.
    pub(super) fn open(&mut self, url: &str, look: Look) {
        self.events.clear();
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.is_phone }),
        );
        let feature = json!([{ "name": "prefers-color-scheme", "value": look.scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": feature }));
        let opened = self.ask("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_for_page();
    }

    /// Clicks, and waits until the page is there that this leads to. Gives its path.
    pub(super) fn follow(&mut self, link: &str) -> Value {
        self.events.clear();
        self.evaluate(&format!("document.querySelector('{link}').click()"));
        self.wait_for_page();
        self.evaluate("location.pathname")
    }

    fn wait_for_page(&mut self) {
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.next("Page.navigate");
        }
    }

    /// What an expression comes to on the page. The page itself runs no script; this is the browser's own console.
    #[track_caller]
    pub(super) fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text that a reader sees.
    pub(super) fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap().to_owned()
    }

    /// How many things of each role whoever cannot see finds, by the roles' names.
    pub(super) fn count_of_roles(&mut self, roles: &[&str]) -> Vec<usize> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap();
        let shown: Vec<&Value> = nodes.iter().filter(|node| node["ignored"] == false).collect();
        roles.iter().map(|role| shown.iter().filter(|node| node["role"]["value"] == *role).count()).collect()
    }

    /// Everything that the page complained of, or asked for besides itself.
    pub(super) fn complaints(&mut self, url: &str) -> Vec<Value> {
        let bad = ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed"];
        let is_bad = |event: &&Value| {
            let method = event["method"].as_str().unwrap();
            let asked_for = event["params"]["request"]["url"].as_str().unwrap_or_default();
            let is_foreign = !asked_for.starts_with("data:") && asked_for != url;
            bad.contains(&method) || (method == "Network.requestWillBeSent" && is_foreign)
        };
        self.events.iter().filter(is_bad).cloned().collect()
    }

    /// How many pages it takes on paper.
    pub(super) fn paper_pages(&mut self) -> usize {
        let data = self.ask("Page.printToPDF", json!({ "printBackground": false }))["data"].clone();
        let pdf = base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap();
        assert!(pdf.starts_with(b"%PDF"));
        pdf.windows(11).filter(|window| window == b"/Type /Page").count() - 1
    }

    /// A picture of the whole page, at most so high.
    pub(super) fn picture(&mut self, look: Look, scale: f64) -> Vec<u8> {
        let full = self.evaluate("document.body.offsetHeight").as_f64().unwrap();
        let clip =
            json!({ "x": 0, "y": 0, "width": look.width, "height": full.min(f64::from(look.height)), "scale": scale });
        let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let data = self.ask("Page.captureScreenshot", params)["data"].clone();
        base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its profile goes with the world.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
