//! Documents that cannot rot: the README's and the runbooks' commands are run, every config in them is read, and what they
//! show of the program's output is held against the program.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clap::Parser as _;
use lifeboat::cli::args::Cli;
use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::{SECOND, two_known_hosts};
use crate::support::{PROGRAM, World, said};

/// A line of a program that goes on comes long before, or never.
const LINE_WITHIN: Duration = Duration::from_secs(120);

/// A fenced block, as it stands in a document.
struct Fence {
    kind: String,
    /// What the comments say that stand right above it: `run`, `run: postgres`, `exits with 20`.
    marks: Vec<String>,
    text: String,
    /// What stands in backticks on the lines behind it that begin with `Expect`.
    expected: Vec<String>,
}

/// What is typed of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A shell's lines, as they are.
    Shell,
    /// Statements, for the superuser's psql.
    Sql,
    /// What is written below the config.
    Config,
}

/// A block that is typed, and what the document promises of it.
struct Block {
    kind: Kind,
    script: String,
    exits_with: i32,
    expected: Vec<String>,
}

/// Which blocks of a document are typed.
#[derive(Debug, Clone, Copy)]
enum Wanted<'n> {
    /// Every one of `sh` that is of no part.
    Shell,
    /// Those that `<!-- run -->` stands above.
    Marked,
    /// Those that `<!-- run: NAME -->` stands above, of `sh`, `sql` and `toml`; one may be in several parts: `run: a, b`.
    Part(&'n str),
}

/// A document whose commands are typed, in their order, as somebody does who reads it. All of them: a test that leaves one
/// out fails, and `cargo xtask tidy` finds documents and parts that no test opens.
pub(crate) struct Document {
    name: String,
    text: String,
    blocks: VecDeque<Block>,
    /// The variables that were said so far.
    said: String,
    /// A database's address for whoever may do anything there: where blocks of `sql` go.
    superuser: Option<String>,
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

fn fences(text: &str) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut marks: Vec<String> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next().map(str::trim) {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            let (marks, expected) = (std::mem::take(&mut marks), Vec::new());
            fences.push(Fence { kind: kind.to_owned(), marks, text: text.join("\n"), expected });
        } else if let Some(mark) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            marks.push(mark.to_owned());
        } else {
            marks.clear();
            if let (true, Some(fence)) = (line.starts_with("Expect "), fences.last_mut()) {
                fence.expected.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    fences
}

impl Fence {
    fn is_wanted(&self, wanted: Wanted<'_>) -> bool {
        match wanted {
            Wanted::Shell => self.kind == "sh" && !self.marks.iter().any(|mark| mark.starts_with("run: ")),
            Wanted::Marked => self.marks.iter().any(|mark| mark == "run"),
            Wanted::Part(name) => self
                .marks
                .iter()
                .filter_map(|mark| mark.strip_prefix("run: "))
                .any(|names| names.split(", ").any(|one| one == name)),
        }
    }

    fn block(self) -> Block {
        let kind = match self.kind.as_str() {
            "sh" => Kind::Shell,
            "sql" => Kind::Sql,
            "toml" => Kind::Config,
            other => panic!("a block of {other:?} cannot be run: {}", self.text),
        };
        let code = self.marks.iter().find_map(|mark| mark.strip_prefix("exits with "));
        let exits_with = code.map_or(0, |code| code.parse().unwrap());
        Block { kind, script: self.text, exits_with, expected: self.expected }
    }
}

impl Block {
    /// As bash takes it.
    fn typed(&self) -> String {
        match (self.kind, self.exits_with) {
            (Kind::Shell, 0) => self.script.clone(),
            (Kind::Shell, code) => format!("code=0; ( {} ) || code=$?; [ \"$code\" -eq {code} ]", self.script),
            (Kind::Sql, _) => format!(
                "psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \"$SUPERUSER\" <<'END-OF-BLOCK'\n{}\nEND-OF-BLOCK",
                self.script
            ),
            (Kind::Config, _) => {
                format!("cat >> lifeboat.toml <<'END-OF-BLOCK'\n\n{}\nEND-OF-BLOCK\nlifeboat config check", self.script)
            }
        }
    }
}

impl Document {
    /// With all of its blocks of `sh` that are of no part.
    pub(crate) fn open(path: &str) -> Self {
        Self::with(path, &read(path), Wanted::Shell)
    }

    /// With those that `<!-- run -->` stands above.
    pub(crate) fn marked(path: &str) -> Self {
        Self::with(path, &read(path), Wanted::Marked)
    }

    /// With those that `<!-- run: NAME -->` stands above.
    pub(crate) fn part(path: &str, name: &str) -> Self {
        Self::with(path, &read(path), Wanted::Part(name))
    }

    /// One that was just made, with all of its blocks of `sh`.
    pub(crate) fn of(name: &str, text: &str) -> Self {
        Self::with(name, text, Wanted::Shell)
    }

    /// The block that `<!-- printed: NAME -->` stands above: what a command printed, for a test to compare.
    pub(crate) fn printed(path: &str, name: &str) -> String {
        let mark = format!("printed: {name}");
        let fence = fences(&read(path)).into_iter().find(|fence| fence.marks.contains(&mark));
        fence.unwrap_or_else(|| panic!("{path} has no block with the mark {mark:?}")).text
    }

    fn with(name: &str, text: &str, wanted: Wanted<'_>) -> Self {
        let taken = fences(text).into_iter().filter(|fence| fence.is_wanted(wanted));
        let blocks: VecDeque<Block> = taken.map(Fence::block).collect();
        assert!(!blocks.is_empty(), "{name} has no block to run: {wanted:?}");
        Self { name: name.to_owned(), text: text.to_owned(), blocks, said: String::new(), superuser: None }
    }

    /// Blocks of `sql` from here on go to this database.
    pub(crate) fn as_superuser(&mut self, url: &str) {
        self.superuser = Some(url.to_owned());
    }

    /// Runs all that is left, and gives what it printed on either stream.
    #[track_caller]
    pub(crate) fn rest(mut self, world: &World, places: &[(&str, PathBuf)]) -> String {
        self.next(self.blocks.len(), world, places)
    }

    /// Runs that many blocks in one bash session, with the variables that were said before. What the document promises of
    /// each must come.
    #[track_caller]
    pub(crate) fn next(&mut self, count: usize, world: &World, places: &[(&str, PathBuf)]) -> String {
        let blocks: Vec<Block> = self.blocks.drain(..count).collect();
        let mut script = format!("set -euo pipefail\nexec 2>&1\n{}", self.said);
        for (number, block) in blocks.iter().enumerate() {
            script.push_str(&format!("echo {}\n{}\n", divider(number), block.typed()));
            let variables = block.script.lines().filter(|line| block.kind == Kind::Shell && is_assignment(line));
            variables.for_each(|line| self.said.push_str(&format!("{line}\n")));
        }
        let said = said(&mut self.bash(&script, world, places));
        assert_eq!(said.code, Some(0), "{}: {script}\n--- said\n{}{}", self.name, said.stdout, said.stderr);
        let mut rest = said.stdout.as_str();
        for (number, block) in blocks.iter().enumerate() {
            let (_, own) = rest.split_once(&divider(number)).unwrap();
            let (own, _) = own.split_once(&divider(number + 1)).unwrap_or((own, ""));
            for expected in &block.expected {
                assert!(
                    own.contains(expected.as_str()),
                    "{}: {}\ndoes not say {expected:?}:{own}",
                    self.name,
                    block.script
                );
            }
            rest = &rest[rest.find(&divider(number)).unwrap()..];
        }
        said.stdout
    }

    /// Starts the next block, a command that goes on until it is told to end.
    pub(crate) fn start(&mut self, world: &World) -> Running {
        let block = self.blocks.pop_front().unwrap();
        assert!(block.script.lines().count() == 1 && block.exits_with == 0, "one command: {}", block.script);
        let mut bash = self.bash(&format!("exec {}", block.script), world, &[]);
        let mut child = bash.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines, heard: String::new() }
    }

    /// A bash for these lines, each of the document's places replaced by what it is here.
    fn bash(&self, script: &str, world: &World, places: &[(&str, PathBuf)]) -> Command {
        let mut script = script.to_owned();
        for (written, real) in places {
            assert!(self.text.contains(written), "{written} is not in {}", self.name);
            script = script.replace(written, real.to_str().unwrap());
        }
        let mut bash = Command::new("bash");
        bash.args(["-c", &script])
            .current_dir(world.path(""))
            .env_remove("LIFEBOAT_IDENTITY")
            .env_remove("LIFEBOAT_CONFIG");
        self.superuser.iter().for_each(|url| {
            bash.env("SUPERUSER", url);
        });
        let bin = Path::new(PROGRAM).parent().unwrap().display();
        bash.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
        bash
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.blocks.is_empty(), "{} blocks of {} were not run", self.blocks.len(), self.name);
        }
    }
}

/// A program that a document has started.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    heard: String,
}

impl Running {
    /// The next line of its log with these words.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LINE_WITHIN);
            let line = line.unwrap_or_else(|_| panic!("no line with {words:?} after\n{}", self.heard));
            if line.contains(words) {
                return line;
            }
            self.heard.push_str(&format!("{line}\n"));
        }
    }

    /// Tells it to end, and demands that it does so in good order.
    #[track_caller]
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.heard);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails leaves none behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn divider(number: usize) -> String {
    format!("=-=-= block {number} =-=-=")
}

fn is_assignment(line: &str) -> bool {
    line.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Flips a byte of the largest object: one of the large file's, so that every backup here names it.
fn damage(world: &World) {
    let objects = world.keys("objects");
    let key = objects.iter().max_by_key(|key| fs::metadata(world.path("vault").join(key)).unwrap().len()).unwrap();
    let path = world.path("vault").join(key);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub(crate) const VAULT: &str = "/mnt/backups/shop";
pub(crate) const IDENTITY: &str = "/mnt/usb/identity.txt";
const NEW_IDENTITY: &str = "/mnt/usb/new-identity.txt";
const VAULT_KEY: &str = "/mnt/usb/vault.key";

#[test]
fn everything_is_restored_by_its_runbook() {
    let world = World::new();
    world.backup();
    let places =
        [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt")), ("/srv/restored", world.path("back"))];
    Document::open("runbooks/restore-everything.md").rest(&world, &places);
    assert!(world.path("back/db/shop.db").is_file() && world.path("back/uploads").is_dir());
}

#[test]
fn a_damaged_vault_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    damage(&world);
    let places = [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt"))];
    let said = Document::open("runbooks/vault-damaged.md").rest(&world, &places);
    assert!(said.contains("DAMAGED"), "{said}");
}

#[test]
fn a_failed_drill_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    world.backup();
    damage(&world);
    let places = [(IDENTITY, world.path("identity.txt"))];
    Document::open("runbooks/drill-failed.md").rest(&world, &places);
}

#[test]
fn the_other_runbooks_can_be_typed() {
    let world = World::new();
    world.backup();
    Document::open("runbooks/restore-by-hand.md").rest(&world, &[(VAULT, world.path("vault"))]);
    let places = [
        (IDENTITY, world.path("identity.txt")),
        (NEW_IDENTITY, world.path("new.txt")),
        (VAULT_KEY, world.path("vault.key")),
    ];
    Document::open("runbooks/keys-lost-or-leaked.md").rest(&world, &places);
    assert!(world.path("new.txt").is_file());
}

#[test]
fn what_is_not_erased_is_met_by_its_runbook() {
    let world = World::new();
    let mut runbook = Document::open("runbooks/erasing.md");
    let made: Vec<String> = (0..8).map(|_| world.backup()).collect();
    let places = [(IDENTITY, world.path("identity.txt")), ("3fa4c81e", PathBuf::from(&made[2][..8]))];
    runbook.next(2, &world, &places);

    // Somebody forged one manifest, and removed three.
    let manifest = |id: &str| {
        let key = world.keys("backups").into_iter().find(|key| key.ends_with(&format!("{id}.json"))).unwrap();
        world.path("vault").join(key)
    };
    let path = manifest(&made[2]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [&bytes[..], b" "].concat()).unwrap();
    for id in &made[4..7] {
        fs::remove_file(manifest(id)).unwrap();
    }
    world.expect(20, &["prune"]);
    runbook.rest(&world, &places);
    world.expect(0, &["check"]);
}

#[test]
fn a_stolen_host_is_revoked_by_its_runbook() {
    let world = two_known_hosts();
    world.backup();
    world.expect(0, &["backup", "blog", "--config", SECOND]);
    let places = [
        (VAULT_KEY, world.path("vault.key")),
        (IDENTITY, world.path("identity.txt")),
        ("/srv/restored", world.path("back")),
    ];
    Document::open("runbooks/host-stolen.md").rest(&world, &places);
    assert!(world.path("back/posts").is_dir());
    world.expect(1, &["backup", "blog", "--config", SECOND]);
    let here = Document::part("runbooks/host-stolen.md", "new-host");
    a_new_host_comes(&world, here, Document::part("runbooks/host-stolen.md", "vault-key"));

    // It was stolen earlier than thought.
    let world = two_known_hosts();
    (0..2).for_each(|_| drop(world.expect(0, &["backup", "blog", "--config", SECOND])));
    let mut earlier = Document::part("runbooks/host-stolen.md", "earlier");
    world.expect(0, &["host", "revoke", "web-2", "--vault-key", "vault.key"]);
    let said = earlier.next(1, &world, &[("FILE", world.path("vault.key")), ("blog=12", "blog=1".into())]);
    assert_eq!(said.matches("no longer believed: ").count(), 2, "each takes one more: {said}");
}

/// A host takes the place of one that is gone, by what is typed on it and where the vault key is.
fn a_new_host_comes(world: &World, on_it: Document, by_the_key: Document) {
    let new = World::empty();
    let text = fs::read_to_string(world.path(SECOND)).unwrap();
    let config = text.replace("\"../vault\"", &format!("{:?}", world.path("vault")));
    fs::write(new.path("lifeboat.toml"), config).unwrap();
    fs::create_dir(new.path("posts")).unwrap();
    let said = on_it.rest(&new, &[("/etc/lifeboat/lifeboat.toml", new.path("lifeboat.toml"))]);
    let key = said.split_once("--key ").unwrap().1.split_whitespace().next().unwrap();
    by_the_key.rest(world, &[("RWQ…", key.into()), ("FILE", world.path("vault.key"))]);
    new.expect(0, &["backup", "blog"]);
}

#[test]
fn one_file_and_one_table_are_restored_by_their_runbook() {
    let world = World::new();
    world.backup();
    let places =
        [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt")), ("/srv/restored", world.path("back"))];
    Document::open("runbooks/restore-one.md").rest(&world, &places);
    assert!(fs::read_to_string(world.path("table.sql")).unwrap().lines().count() > 500);
    world.sql("delete from users where id > 100");
    let places = [("/srv/shop/shop.db", world.path("shop.db"))];
    Document::part("runbooks/restore-one.md", "whole-table").rest(&world, &places);
    let counts = world.sql("select count(*) from users; select count(*) from users_before");
    assert_eq!(counts, "500\n100\n");
}

/// A world with a second host that backed up, and where its runbooks' places are.
fn with_a_second_host() -> (World, [(&'static str, PathBuf); 4]) {
    let world = two_known_hosts();
    world.backup();
    world.expect(0, &["backup", "blog", "--config", SECOND]);
    let places = [
        (VAULT, world.path("vault")),
        (VAULT_KEY, world.path("vault.key")),
        (IDENTITY, world.path("identity.txt")),
        ("/srv/restored", world.path("back")),
    ];
    (world, places)
}

#[test]
fn a_lost_host_is_replaced_by_its_runbook() {
    let (world, places) = with_a_second_host();
    Document::open("runbooks/host-lost.md").rest(&world, &places);
    assert!(world.path("back/posts").is_dir());
    let here = Document::part("runbooks/host-lost.md", "new-host");
    a_new_host_comes(&world, here, Document::part("runbooks/host-lost.md", "vault-key"));
    world.expect(1, &["backup", "blog", "--config", SECOND]);
    world.backup();
}

#[test]
fn ransomware_is_met_by_its_runbook() {
    let (world, places) = with_a_second_host();
    Document::open("runbooks/ransomware.md").rest(&world, &places);
    assert!(world.path("back/posts").is_dir());
    // What it signed since then is no longer believed, and is named.
    let said = world.expect(20, &["check"]);
    assert!(said.stdout.contains("blog"), "{}", said.stdout);
}

#[test]
fn the_quarterly_drill_is_held_by_its_runbook() {
    let world = World::new();
    world.backup();
    world.backup();
    Document::open("runbooks/quarterly-drill.md").rest(&world, &[(IDENTITY, world.path("identity.txt"))]);
    assert!(fs::read_to_string(world.path("runbook-shop.md")).unwrap().contains("| load |"));
}

/// Every Markdown file of the repository.
fn pages() -> Vec<PathBuf> {
    let (mut pages, mut folders) = (vec![repository().join("README.md")], Vec::new());
    folders.extend(["docs", "runbooks", "schedules"].map(|folder| repository().join(folder)));
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Every `lifeboat` line of every fenced block, run or not, is a command that the program knows.
#[test]
fn every_command_that_is_written_down_is_one() {
    let mut known = 0;
    for path in pages() {
        for fence in fences(&fs::read_to_string(&path).unwrap()) {
            let text = fence.text.replace("\\\n", " ");
            for line in text.lines().map(|line| line.trim_start().trim_start_matches("$ ")) {
                if !line.starts_with("lifeboat ") {
                    continue;
                }
                let words = words(line);
                Cli::try_parse_from(&words)
                    .unwrap_or_else(|error| panic!("{}: {line}\n{words:?}\n{error}", path.display()));
                known += 1;
            }
        }
    }
    assert!(known > 100, "{known}");
}

/// What a page's piece of a config hangs on, where it does not say it itself.
const AROUND: &str = r#"
[vault.main]
url        = "/srv/backups"
recipients = ["age1…"]
[job.shop]
schedule   = "15 */6 * * *"
retention  = { keep_at_least = "14d", delete_after = "30d" }
objectives = { rto = "1h", rpo = "24h" }
source.db  = { kind = "postgres", url = "postgres://backup@db.internal/shop" }
[job.mail]
schedule   = "15 2 * * *"
retention  = { keep_at_least = "14d", delete_after = "30d" }
source.all = { kind = "files", paths = ["/srv/mail"] }
"#;
/// What stands for something of the reader's.
const STANDS_FOR: &[(&str, &str)] = &[
    ("age1…", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"),
    ("RWQ…", "RWQyJuXLqNQLMhjP4M0zSzAUL22fE/bde/0fHQJEFEaHLp7q1Id0J7w0"),
    ("BUCKET", "acme-backups"),
    ("PREFIX", "prod"),
];

/// Every block of `toml`, wherever it stands, is taken by the program as a part of a config.
#[test]
fn every_config_that_is_written_down_is_one() {
    let mut known = 0;
    for path in pages() {
        for fence in fences(&fs::read_to_string(&path).unwrap()).into_iter().filter(|fence| fence.kind == "toml") {
            let mut config: toml::Table = AROUND.parse().unwrap();
            put_over(&mut config, fence.text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display())));
            let mut text = config.to_string();
            STANDS_FOR.iter().for_each(|(written, real)| text = text.replace(written, real));
            let world = World::empty();
            fs::write(world.path("lifeboat.toml"), &text).unwrap();
            let said = world.run(&["config", "check"]);
            assert_eq!(said.code, Some(0), "{}:\n{text}\n{}{}", path.display(), said.stdout, said.stderr);
            known += 1;
        }
    }
    assert!(known > 10, "{known}");
}

/// Puts a table over another one, key by key; a source's table takes the whole place of the other.
fn put_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) if !above.contains_key("kind") => {
                put_over(below, above);
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// The words of a line's first command, as bash takes it apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '>' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn a_recipient_is_rotated_by_its_runbook() {
    let world = World::new();
    world.backup();
    let places = [
        (VAULT_KEY, world.path("vault.key")),
        (IDENTITY, world.path("identity.txt")),
        (NEW_IDENTITY, world.path("new.txt")),
    ];
    Document::open("runbooks/rotate-recipient.md").rest(&world, &places);
    world.expect(12, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    // The new identity alone is enough on a bare host.
    world.expect(0, &["list", "--vault", "./vault", "--identity", "new.txt", "--config", "lifeboat.toml"]);
    fs::rename(world.path("lifeboat.toml"), world.path("elsewhere.toml")).unwrap();
    world.expect(0, &["restore", "shop", "--to", "out", "--vault", "./vault", "--identity", "new.txt"]);
}

#[test]
fn the_example_configs_have_no_mistakes() {
    let examples = files("schedules", "toml");
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        let world = World::empty();
        world.expect(0, &["config", "check", "--config", example.to_str().unwrap()]);
    }
}

pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(repository().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}
