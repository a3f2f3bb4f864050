//! The status page, looked at with a real browser: a real daemon, a month of real backups and drills. libfaketime tells the
//! program what day it is; the browser has its own clock.
//!
//! With `LIFEBOAT_PICTURES=DIR` it leaves pictures of what it saw there (`cargo xtask pictures`).

mod browser;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use self::browser::{Browser, Look};
use crate::erasing::{Timeline, When};
use crate::support::noise;

/// The day whose morning it is.
const TODAY: i64 = 30;
const DESKTOP: Look = Look { width: 1120, height: 1000, scheme: "light", is_phone: false };
const PHONE: Look = Look { width: 360, height: 800, scheme: "dark", is_phone: true };

/// A daemon, until it is dropped.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(timeline: &Timeline, when: When) -> Self {
        let mut command = timeline.command(when, &["daemon", "--log-format", "json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let ready = said.find(|line| line["message"] == "ready").unwrap();
        // Read to its end, or the daemon would wait for a reader.
        std::thread::spawn(move || said.count());
        Self { child, address: ready["listening"].as_str().unwrap().to_owned() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A month of `shop`, which is well and was pruned all along; of `wiki`, which missed a night and cannot be read since
/// tonight; and `archive`, whose vault nobody has ever seen.
fn month() -> Timeline {
    let timeline = Timeline::pruned_by_backups("keep_at_least = \"7d\", delete_after = \"14d\"");
    let world = &timeline.world;
    timeline.edit("[job.shop]\n", "[job.shop]\nvault = \"main\"\n");
    timeline.edit("[job.shop.drill]\n", "[job.shop.drill]\nschedule = \"0 9 * * SUN\"\n");
    let path = world.path("lifeboat.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = |begins: &str| text.lines().find(|line| line.starts_with(begins)).unwrap().to_owned();
    let text = text.replace(&line("timezone"), "timezone = \"Europe/Moscow\"");
    let (recipients, job) = (line("recipients"), |name: &str, vault: &str| {
        format!(
            "[job.{name}]\nvault = \"{vault}\"\nschedule = \"15 2 * * *\"\nretention = {{ keep_at_least = \"7d\", delete_after = \
             \"14d\" }}\nobjectives = {{ rto = \"2h\", rpo = \"26h\" }}\n[job.{name}.source.pages]\nkind = \"files\"\npaths = \
             [\"pages\"]\n"
        )
    });
    let text = format!(
        "{text}\n{}\n{}\n[vault.far]\nurl = \"/nowhere/<b>&\"\n{recipients}\n[daemon]\nlisten = \"127.0.0.1:0\"\n",
        job("wiki", "main"),
        job("archive", "far"),
    );
    fs::write(&path, text).unwrap();
    fs::create_dir(world.path("pages")).unwrap();
    timeline.expect(0, (0, "00:00"), &["key", "new", "other.txt"]);
    for day in 0..=TODAY {
        fs::write(world.path("uploads/daily"), noise(5_000 + 400 * day as usize, day as u8)).unwrap();
        fs::write(world.path("pages/daily"), noise(9_000, day as u8)).unwrap();
        if day == TODAY {
            fs::rename(world.path("pages"), world.path("away")).unwrap();
        }
        timeline.expect(0, (day, "02:15"), &["backup", "shop"]);
        match day {
            11 => {}
            TODAY => drop(timeline.expect(1, (day, "02:20"), &["backup", "wiki"])),
            _ => drop(timeline.expect(0, (day, "02:20"), &["backup", "wiki"])),
        }
        match day {
            13 => drop(timeline.expect(21, (day, "06:00"), &["drill", "shop", "--identity", "other.txt"])),
            6 | 20 | 27 => drop(timeline.expect(0, (day, "06:00"), &["drill", "shop", "--identity", "identity.txt"])),
            _ => {}
        }
    }
    timeline
}

/// Text that stands too pale on its ground, as WCAG counts it: 4.5 to 1.
const PALE: &str = r#"(() => {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.slice(0, 3).map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const rgba = numbers(getComputedStyle(e).backgroundColor);
            if (rgba.length === 3 || rgba[3] > 0) return rgba;
        }
        return [255, 255, 255];
    };
    const pale = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.textContent.trim() || element.closest('svg')) continue;
        const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) pale.push(contrast.toFixed(2) + ' ' + texts.currentNode.textContent);
    }
    return pale;
})()"#;

/// What reaches beyond the right edge, but for what scrolls by itself.
const WIDE: &str = r#"[...document.querySelectorAll('body *')]
    .filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map((e) => e.outerHTML.slice(0, 80))
    .concat(document.documentElement.scrollWidth > innerWidth ? ['the page'] : [])"#;

/// Opens one of the daemon's pages and looks at it.
#[track_caller]
fn look(browser: &mut Browser, daemon: &Daemon, path: &str, look: Look) -> String {
    look_at(browser, &daemon.url(path), look)
}

/// Opens a page and looks at what every page must be.
#[track_caller]
fn look_at(browser: &mut Browser, url: &str, look: Look) -> String {
    browser.open(url, look);
    let none: [Value; 0] = [];
    assert_eq!(browser.complaints(url), none, "{url} {look:?}");
    assert_eq!(browser.evaluate(WIDE), serde_json::json!([]), "{url} {look:?}");
    assert_eq!(browser.evaluate(PALE), serde_json::json!([]), "{url} {look:?}");
    assert_eq!(browser.evaluate("document.scripts.length"), 0);
    browser.text()
}

fn assert_says(text: &str, all: &[&str]) {
    for says in all {
        assert!(text.contains(says), "{says:?} is not in\n{text}");
    }
}

fn keep(picture: &[u8], name: &str) {
    if let Some(folder) = std::env::var_os("LIFEBOAT_PICTURES") {
        fs::write(std::path::Path::new(&folder).join(name), picture).unwrap();
    }
}

#[test]
fn the_page_says_how_things_stand_in_a_real_browser() {
    let timeline = month();
    let when = (TODAY, "06:40");
    let daemon = Daemon::start(&timeline, when);
    let mut browser = Browser::start(&timeline.world.path("profile"));

    let overview = look(&mut browser, &daemon, "/", DESKTOP);
    assert_eq!(browser.evaluate("document.title"), "3 jobs: 1 critical, 1 unknown, 1 ok - Lifeboat");
    // What a terminal is told at that moment, word for word.
    let status = timeline.json(0, when, &["status"]);
    let reasons = status["jobs"].as_array().unwrap().iter().flat_map(|job| job["reasons"].as_array().unwrap());
    let reasons: Vec<String> = reasons.map(|reason| reason.as_str().unwrap().replace('`', "")).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert_says(&overview, &reasons.iter().map(String::as_str).collect::<Vec<_>>());
    assert_says(
        &overview,
        &["4h 25m ago (RPO 26h)", "3d 01h ago, took", "(RTO 1h)", "/nowhere/<b>&", "never (RTO 2h)"],
    );
    let states = "[...document.querySelectorAll('tbody .state')].map((e) => e.innerText)";
    assert_eq!(browser.evaluate(states), serde_json::json!(["? unknown", "\u{25cf} ok", "\u{2716} critical"]));
    let strips = "[...document.querySelectorAll('svg.strip')].map((e) => e.getAttribute('aria-label'))";
    assert_eq!(
        browser.evaluate(strips),
        serde_json::json!([
            "last 30 days: 30 days as planned, 3 drills passed, 1 drill failed",
            "last 30 days: 28 days as planned, 1 day without a complete backup, 1 day on which none began",
        ])
    );
    keep(&browser.picture(DESKTOP, 1.0), "status-desktop-light.png");
    let roles = ["table", "row", "columnheader", "rowheader", "cell"];
    let on_a_desktop = browser.count_of_roles(&roles);
    let on_a_phone_it_says = look(&mut browser, &daemon, "/", PHONE);
    assert_eq!(browser.count_of_roles(&roles), on_a_desktop, "a table is one on a phone too");
    assert_says(&on_a_phone_it_says, &reasons.iter().map(String::as_str).collect::<Vec<_>>());
    keep(&browser.picture(Look { height: 900, ..PHONE }, 1.5), "status-phone-dark.png");
    let label = "getComputedStyle(document.querySelector('td[data-label]'), '::before').content";
    assert_eq!(
        browser.evaluate(label),
        "\"Newest recovery point\"",
        "where the headings are away, each cell has its own"
    );
    look(&mut browser, &daemon, "/", Look { scheme: "light", ..PHONE });
    look(&mut browser, &daemon, "/", Look { scheme: "dark", ..DESKTOP });

    browser.open(&daemon.url("/"), DESKTOP);
    assert_eq!(browser.follow("a[href=\"/job/shop\"]"), "/job/shop");
    let shop = look(&mut browser, &daemon, "/job/shop", DESKTOP);
    assert_says(
        &shop,
        &[
            "shop \u{25cf} ok",
            "2040-02-01 09:40 (06:40 UTC)",
            "2040-02-01 05:15 (02:15 UTC)",
            "RPO 26h",
            "above the RPO 0.0 %",
            "no-identity",
        ],
    );
    // What was pruned is no recovery point any more; the strip has shown that it was taken.
    let listed = timeline.json(0, when, &["list", "shop", "--vault", "main"])["backups"].as_array().unwrap().len();
    assert!(listed < 20, "{listed}");
    let rows = |table: &str| {
        format!(
            "[...document.querySelectorAll('h2')].find((h) => h.innerText === '{table}').nextElementSibling.tBodies[0].rows.length"
        )
    };
    assert_eq!(browser.evaluate(&rows("Recovery points")), listed);
    assert_eq!(browser.evaluate(&rows("Drills")), 4);
    let bars = "[...document.querySelectorAll('svg.bar')].map((e) => [...e.querySelectorAll('title')].map((t) => t.textContent.split(' ')[0]))";
    let phases = browser.evaluate(bars);
    assert_eq!(phases[0], serde_json::json!(["locate", "provision", "load", "check"]));
    let drawn = browser.evaluate("document.querySelector('svg.exposure .edge').getAttribute('d').split('L').length");
    assert!(drawn.as_u64().unwrap() > 40, "{drawn}");
    keep(&browser.picture(Look { height: 860, ..DESKTOP }, 1.0), "job-desktop-light.png");
    look(&mut browser, &daemon, "/job/shop", PHONE);
    look(&mut browser, &daemon, "/job/wiki", PHONE);
    look(&mut browser, &daemon, "/job/archive", PHONE);

    // The policy holds: what somebody smuggles in does not run.
    browser.evaluate("{ const s = document.createElement('script'); s.textContent = 'window.smuggled = 1'; document.body.append(s); }");
    assert_eq!(browser.evaluate("String(window.smuggled)"), "undefined");
    assert!(!browser.complaints(&daemon.url("/job/archive")).is_empty(), "the browser says that it refused it");
    let (head, _) = daemon.get("/");
    assert_says(&head, &["HTTP/1.1 200 OK", "Cache-Control: no-store", "Content-Security-Policy: default-src 'none';"]);
    assert!(daemon.get("/job/shop").0.contains(" 200 ") && daemon.get("/job/nobody").0.contains(" 404 "));

    // The report, as a file.
    let report = ["report", "shop", "wiki", "--format", "html", "--output", "report.html"];
    timeline.expect(0, when, &report);
    let url = format!("file://{}", timeline.world.path("report.html").display());
    let text = look_at(&mut browser, &url, DESKTOP);
    assert_says(&text, &["Backup and restore report", "Measured RTO", "What is not claimed", "Objective: not met."]);
    let markdown = timeline.expect(0, when, &["report", "shop", "wiki"]).stdout;
    let manifests =
        markdown.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once('`')).map(|(_, hash)| hash);
    let manifests: Vec<&str> = manifests.filter(|hash| hash.len() == 64).collect();
    assert!(manifests.len() > 50, "{markdown}");
    assert_says(&text, &manifests);
    for scheme in ["light", "dark"] {
        look_at(&mut browser, &url, Look { scheme, ..PHONE });
    }
    assert!(browser.paper_pages() > 1);
}
