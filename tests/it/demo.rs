//! The demo as the README's reader runs it: it must tell the truth, end well, and touch nothing but its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::documents::Document;
use crate::support::World;

/// Every file below a folder, with its content and time.
fn files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(&path).unwrap(), modified));
            }
        }
    }
    found
}

#[test]
fn the_shops_story_is_true_from_end_to_end() {
    let world = World::empty();
    let said = world.expect(0, &["demo", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let bytes = |backup: &str| document[backup]["new_bytes"].as_u64().unwrap();
    assert!(bytes("first_backup") > 20_000_000 && bytes("second_backup") < bytes("first_backup") / 5, "{document:#}");
    for drill in ["drill", "drill_after_repair"] {
        assert_eq!((&document[drill]["outcome"], &document[drill]["rto_met"]), (&"passed".into(), &true.into()));
        assert_eq!(document[drill]["checks_failed"], 0);
    }
    let object = document["damaged_object"].as_str().unwrap();
    let story = &said.stderr;
    assert!(story.contains(&format!("DAMAGED objects/{}/{object}", &object[..2])), "{story}");
    for command in
        ["init .", "backup", "drill", "check", "status", "list", "show shop", "report --since 1d --output report.md"]
    {
        assert!(story.contains(&format!("    $ lifeboat {command}\n")), "{command}\n{story}");
    }
    assert!(!story.contains('\x1b'), "no colours where there is no terminal");
    the_readme_shows_it(story);

    // What it tells the reader to type next works, in the folder it leaves behind.
    let demo = world.path("lifeboat-demo");
    let mut restore = world.command(&["restore", "shop", "--to", "restored", "--identity", "identity.txt"]);
    let restored = crate::support::said(restore.current_dir(&demo));
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    let shop = demo.canonicalize().unwrap().join("shop/uploads");
    let copy = demo.join("restored/uploads").join(shop.strip_prefix("/").unwrap());
    let below = |root: &Path| -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        files(root).into_iter().map(|(path, file)| (path.strip_prefix(root).unwrap().to_owned(), file)).collect()
    };
    assert!(below(&shop) == below(&copy), "the restored uploads are those of the shop");
    assert!(fs::read_to_string(demo.join("report.md")).unwrap().contains("failed drill"));
}

/// What stands in the README for lines that it leaves out.
const LEFT_OUT: &str = "[…]";

/// What the README shows of it is there, line by line and in its order, but for figures, times, ids and how columns are
/// filled up.
fn the_readme_shows_it(story: &str) {
    let lines =
        |text: &str| -> Vec<String> { text.lines().map(without_figures).filter(|line| !line.is_empty()).collect() };
    let story = lines(story);
    let mut told = story.as_slice();
    for shown in Document::printed("README.md", "demo").split(LEFT_OUT).map(lines) {
        let from = told.iter().position(|line| *line == shown[0]);
        told = &told[from.unwrap_or_else(|| panic!("{:?} is not in {told:#?}", shown[0]))..];
        for line in &shown {
            let (said, rest) = told.split_first().unwrap_or_else(|| panic!("the demo ends before {line:?}"));
            assert_eq!(line, said, "the README, and the demo");
            told = rest;
        }
    }
}

/// A line with one mark for each run of words that have digits in them, units included.
fn without_figures(line: &str) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "ms", "s"];
    let mut words: Vec<&str> = Vec::new();
    let line = match line.trim_start().starts_with("written by") {
        // The host's name is the host's.
        true => line.split_once(" on ").map_or(line, |(before, _)| before),
        false => line,
    };
    for word in line.split_whitespace() {
        let bare = word.trim_end_matches([',', '.', ':', ')']);
        let is_figure = word.chars().any(|c| c.is_ascii_digit());
        match words.last() {
            Some(&"#") if is_figure || UNITS.contains(&bare) => {}
            _ if is_figure => words.push("#"),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[test]
fn ones_own_data_is_only_read_and_the_folder_is_the_demos_own() {
    let world = World::empty();
    let own = world.path("own \"data\" ü");
    fs::create_dir_all(own.join("deep")).unwrap();
    fs::write(own.join("deep/letter"), "dear all").unwrap();
    world.sql("create table t(a); insert into t values (1), (2)");
    let before = (files(&own), fs::read(world.path("shop.db")).unwrap());
    let own_argument = own.to_str().unwrap();
    let args = ["demo", "--files", own_argument, "--sqlite", "shop.db", "--dir", "there"];
    // Twice: the second run removes what the first left.
    for _ in 0..2 {
        let said = world.expect(0, &args);
        assert!(said.stdout.contains("PASSED") && said.stdout.contains("FAILED"), "{}", said.stdout);
    }
    assert!(before == (files(&own), fs::read(world.path("shop.db")).unwrap()), "nothing of it was changed");

    let said = world.expect(2, &["demo", "--files", own_argument, "--dir", own_argument]);
    assert!(said.stderr.contains("lie within each other"), "{}", said.stderr);
    let said = world.expect(2, &["demo", "--dir", own_argument]);
    assert!(said.stderr.contains("was not made by the demo"), "{}", said.stderr);
    assert!(before.0 == files(&own));
}
