//! Documents that cannot rot: the README's and the runbooks' commands are run, the example configs are checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::hosts::{SECOND, two_known_hosts};
use crate::support::{PROGRAM, World, said};

/// A fenced block of shell commands, and the exit code that the document promises.
pub(crate) struct Block {
    script: String,
    exits_with: i32,
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The ```sh blocks of a document; with `only_marked`, those that `<!-- run -->` stands above.
pub(crate) fn blocks(document: &str, only_marked: bool) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut marked, mut exits_with) = (false, 0);
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        match line {
            "<!-- run -->" => marked = true,
            "```sh" => {
                let script: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                if marked || !only_marked {
                    blocks.push(Block { script: script.join("\n"), exits_with });
                }
                (marked, exits_with) = (false, 0);
            }
            _ => {
                let code = line.strip_prefix("<!-- exits with ").and_then(|rest| rest.strip_suffix(" -->"));
                if let Some(code) = code {
                    exits_with = code.parse().unwrap();
                }
            }
        }
    }
    blocks
}

/// Runs blocks in one bash session, as somebody who types them one after the other. Gives what they printed.
#[track_caller]
pub(crate) fn run(world: &World, blocks: &[Block], places: &[(&str, PathBuf)]) -> String {
    assert!(!blocks.is_empty(), "the document has no block to run");
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks {
        match block.exits_with {
            0 => script.push_str(&block.script),
            code => script.push_str(&format!("code=0; ( {} ) || code=$?; [ \"$code\" -eq {code} ]", block.script)),
        }
        script.push('\n');
    }
    for (written, real) in places {
        assert!(script.contains(written), "{written} is not in the document");
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
    assert_eq!(said.code, Some(0), "{script}\n--- said\n{}{}", said.stdout, said.stderr);
    said.stdout
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
    let said = run(&world, &blocks(&read("README.md"), true), &[]);
    assert!(said.contains("PASSED"), "the README's drill passes\n{said}");
}

#[test]
fn everything_is_restored_by_its_runbook() {
    let world = World::new();
    world.backup();
    let places =
        [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt")), ("/srv/restored", world.path("back"))];
    run(&world, &blocks(&read("runbooks/restore-everything.md"), false), &places);
    for below in ["back/db/shop.db", "back-db/db/shop.db"] {
        assert!(world.path(below).is_file(), "{below}");
    }
    assert!(world.path("back-file/uploads").is_dir());
}

#[test]
fn a_damaged_vault_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    damage(&world);
    let places = [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt"))];
    let said = run(&world, &blocks(&read("runbooks/vault-damaged.md"), false), &places);
    assert!(said.contains("DAMAGED"), "{said}");
}

#[test]
fn a_failed_drill_is_met_by_its_runbook() {
    let world = World::new();
    world.backup();
    world.backup();
    damage(&world);
    let places = [(IDENTITY, world.path("identity.txt"))];
    run(&world, &blocks(&read("runbooks/drill-failed.md"), false), &places);
}

#[test]
fn the_other_runbooks_can_be_typed() {
    let world = World::new();
    world.backup();
    run(&world, &blocks(&read("runbooks/restore-by-hand.md"), false), &[(VAULT, world.path("vault"))]);
    let places = [
        (IDENTITY, world.path("identity.txt")),
        (NEW_IDENTITY, world.path("new.txt")),
        (VAULT_KEY, world.path("vault.key")),
    ];
    run(&world, &blocks(&read("runbooks/keys-lost-or-leaked.md"), false), &places);
    assert!(world.path("new.txt").is_file());
}

#[test]
fn what_is_not_erased_is_met_by_its_runbook() {
    let world = World::new();
    let runbook = read("runbooks/erasing.md");
    let made: Vec<String> = (0..8).map(|_| world.backup()).collect();
    run(&world, &blocks(&runbook, false), &[]);

    // What stands there for a case that cannot be made by typing is typed when it is there.
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
    let mut typed = 0;
    let lines = runbook.lines().filter_map(|line| line.strip_prefix("lifeboat ")).filter(|line| !line.contains('$'));
    for line in lines {
        let line = line.replace("3fa4c81e", &made[2][..8]).replace("FILE", "identity.txt").replace("NAME", "shop");
        let args: Vec<&str> = line.split_whitespace().collect();
        world.expect(if args[0] == "check" { 20 } else { 0 }, &args);
        typed += 1;
    }
    assert_eq!(typed, 8);
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
    run(&world, &blocks(&read("runbooks/host-stolen.md"), false), &places);
    assert!(world.path("back/posts").is_dir());
    world.expect(1, &["backup", "blog", "--config", SECOND]);
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
    run(&world, &blocks(&read("runbooks/rotate-recipient.md"), false), &places);
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
