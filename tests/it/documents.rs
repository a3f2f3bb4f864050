//! Documents that cannot rot: the README's and the runbooks' commands are run, the example configs are checked.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use lifeboat::cli::args::Cli;

use crate::hosts::{SECOND, two_known_hosts};
use crate::support::{PROGRAM, World, said};

/// A fenced block of shell commands, and what the document promises of it.
struct Block {
    script: String,
    exits_with: i32,
    /// What stands in backticks on the lines behind it that begin with `Expect`.
    expected: Vec<String>,
}

/// A document whose commands are typed, in their order, as somebody does who reads it. All of them: a test that leaves one
/// out fails, and `cargo xtask tidy` finds documents that no test opens.
pub(crate) struct Document {
    name: String,
    text: String,
    blocks: VecDeque<Block>,
    /// The variables that were said so far.
    said: String,
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

impl Document {
    /// With all of its blocks of `sh`.
    pub(crate) fn open(path: &str) -> Self {
        Self::of(path, &read(path), false)
    }

    /// With those that `<!-- run -->` stands above.
    pub(crate) fn marked(path: &str) -> Self {
        Self::of(path, &read(path), true)
    }

    /// One that was just made.
    pub(crate) fn of(name: &str, text: &str, only_marked: bool) -> Self {
        let mut blocks: VecDeque<Block> = VecDeque::new();
        let (mut marked, mut exits_with, mut last_is_ours) = (false, 0, false);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            match line.trim() {
                "<!-- run -->" => marked = true,
                "```sh" => {
                    let script: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
                    last_is_ours = marked || !only_marked;
                    if last_is_ours {
                        blocks.push_back(Block { script: script.join("\n"), exits_with, expected: Vec::new() });
                    }
                    (marked, exits_with) = (false, 0);
                }
                other if other.starts_with("```") => for _ in lines.by_ref().take_while(|line| line.trim() != "```") {},
                line if line.starts_with("Expect ") && last_is_ours => {
                    let promised = line.split('`').skip(1).step_by(2).map(str::to_owned);
                    blocks.back_mut().unwrap().expected.extend(promised);
                }
                line => {
                    let code = line.strip_prefix("<!-- exits with ").and_then(|rest| rest.strip_suffix(" -->"));
                    if let Some(code) = code {
                        exits_with = code.parse().unwrap();
                    }
                }
            }
        }
        assert!(!blocks.is_empty(), "{name} has no block to run");
        Self { name: name.to_owned(), text: text.to_owned(), blocks, said: String::new() }
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
            script.push_str(&format!("echo {}\n", divider(number)));
            match block.exits_with {
                0 => script.push_str(&block.script),
                code => script.push_str(&format!("code=0; ( {} ) || code=$?; [ \"$code\" -eq {code} ]", block.script)),
            }
            script.push('\n');
            let variables = block.script.lines().filter(|line| is_assignment(line));
            variables.for_each(|line| self.said.push_str(&format!("{line}\n")));
        }
        for (written, real) in places {
            assert!(self.text.contains(written), "{written} is not in {}", self.name);
            script = script.replace(written, real.to_str().unwrap());
        }
        let bin = Path::new(PROGRAM).parent().unwrap().display();
        let mut bash = Command::new("bash");
        bash.args(["-c", &script])
            .current_dir(world.path(""))
            .env_remove("LIFEBOAT_IDENTITY")
            .env_remove("LIFEBOAT_CONFIG");
        bash.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
        let said = said(&mut bash);
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
}

impl Drop for Document {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.blocks.is_empty(), "{} blocks of {} were not run", self.blocks.len(), self.name);
        }
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
fn the_readme_can_be_typed() {
    let world = World::empty();
    let said = Document::marked("README.md").rest(&world, &[]);
    assert!(said.contains("PASSED"), "the README's drill passes\n{said}");
}

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
}

#[test]
fn one_file_and_one_table_are_restored_by_their_runbook() {
    let world = World::new();
    world.backup();
    let places =
        [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt")), ("/srv/restored", world.path("back"))];
    Document::open("runbooks/restore-one.md").rest(&world, &places);
    assert!(fs::read_to_string(world.path("table.sql")).unwrap().lines().count() > 500);
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

/// Every `lifeboat` line of every fenced block, run or not, is a command that the program knows.
#[test]
fn every_command_that_is_written_down_is_one() {
    let mut known = 0;
    let documents =
        [files("runbooks", "md"), files("docs", "md"), files("schedules", "md"), vec![repository().join("README.md")]];
    for path in documents.concat() {
        let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        let mut fenced = false;
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            let line = line.trim_start().trim_start_matches("$ ");
            // What stands far behind it says what it is.
            let line = line.split("   ").next().unwrap_or_default();
            if !fenced || !line.starts_with("lifeboat ") {
                continue;
            }
            let words = words(line);
            Cli::try_parse_from(&words)
                .unwrap_or_else(|error| panic!("{}: {line}\n{words:?}\n{error}", path.display()));
            known += 1;
        }
    }
    assert!(known > 100, "{known}");
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
