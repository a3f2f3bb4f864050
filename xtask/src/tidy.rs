//! The house rules that a program can check: walls between rooms, a word at the top of each file, files of a readable
//! length, nothing printed by the library, no suppressed warnings, no places of one machine, no dead links, no
//! commands that nobody ran, no stale generated page.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{documents, errors, text, walls};

/// Lines of a source file without its tests.
const MAX_LINES: usize = 600;

/// Checks everything; the error lists what was found, a line each.
pub(crate) fn run(root: &Path) -> Result<String, String> {
    let paths = text::files(root)?;
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    let (mut typed, mut opened) = (Vec::new(), BTreeMap::new());
    for path in &paths {
        // What is not text has no lines to find fault with.
        let Ok(content) = std::fs::read_to_string(root.join(path)) else { continue };
        let mut report = |hits: Vec<(usize, String)>| {
            findings.extend(hits.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
        };
        report(text::machine_paths(&content));
        if path.ends_with(".md") {
            report(text::dead_links(path, &content, |place| root.join(place).exists()));
        }
        if documents::is_typed(path) {
            typed.push((path.clone(), content.clone()));
        }
        if path.starts_with("tests/") && path.ends_with(".rs") {
            documents::opened(&content, &mut opened);
        }
        if path.ends_with(".rs") {
            sources.push((path.clone(), content));
        }
    }
    for (path, content) in &typed {
        let breaches = documents::breaches(path, content, &opened);
        findings.extend(breaches.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    let count = sources.len();
    findings.extend(check_sources(&sources));
    if std::fs::read_to_string(root.join(errors::PAGE)).ok().as_deref() != Some(&errors::page(root)?) {
        findings.push(format!("{}:1: is not what src/error.rs says: cargo xtask errors", errors::PAGE));
    }
    findings.sort();
    if findings.is_empty() {
        return Ok(format!("tidy: {count} source files, {} walls, nothing to find fault with", walls::WALLS.len()));
    }
    Err(format!("{}\ntidy: {} to put right", findings.join("\n"), findings.len()))
}

/// Checks Rust files, given by path and content.
fn check_sources(sources: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut looked = Vec::new();
    for (path, content) in sources {
        if !content.starts_with("//!") {
            findings.push(format!("{path}:1: does not begin by saying what it is (`//!`)"));
        }
        let module = walls::module_of(path);
        match syn::parse_file(content) {
            Ok(file) => looked.push((path, content, walls::look_through(&file, &module), module)),
            Err(error) => findings.push(format!("{path}:{}: cannot be parsed: {error}", error.span().start().line)),
        }
    }
    let test_modules: Vec<Vec<String>> = looked
        .iter()
        .filter(|(path, ..)| path.starts_with("src/"))
        .flat_map(|(_, _, found, _)| found.test_modules.clone())
        .collect();
    for (path, content, found, module) in looked {
        for line in &found.allows {
            findings.push(format!("{path}:{line}: suppresses a warning with allow: write expect, with a reason"));
        }
        if !path.starts_with("src/") && !path.starts_with("xtask/src/") {
            continue;
        }
        if test_modules.iter().any(|tests| module.starts_with(tests)) {
            continue;
        }
        let tests: usize = found.tests.iter().map(|(first, last)| last - first + 1).sum();
        let lines = content.lines().count() - tests;
        if lines > MAX_LINES {
            findings.push(format!("{path}:1: has {lines} lines without its tests, more than {MAX_LINES}: two nouns?"));
        }
        if !path.starts_with("src/") {
            continue;
        }
        if !path.starts_with("src/cli/") {
            for line in &found.prints {
                findings.push(format!("{path}:{line}: prints, which only src/cli does"));
            }
        }
        for (line, what) in walls::breaches(&module, &found.names) {
            findings.push(format!("{path}:{line}: {what}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, content: &str) -> Vec<String> {
        check_sources(&[(path.to_owned(), content.to_owned())])
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let long = "//! A.\n".to_owned() + &"fn f() {}\n".repeat(MAX_LINES);
        for (path, content, expected) in [
            ("src/seal/cut.rs", "fn f() {}\n", "src/seal/cut.rs:1: does not begin"),
            ("src/seal/cut.rs", "//! A.\nfn f( {}\n", "src/seal/cut.rs:2: cannot be parsed"),
            ("src/seal/cut.rs", "//! A.\nfn f() { eprintln!(); }\n", "src/seal/cut.rs:2: prints"),
            ("src/seal/cut.rs", "//! A.\n#[allow(dead_code)]\nfn f() {}\n", "src/seal/cut.rs:2: suppresses"),
            ("tests/it/main.rs", "//! A.\n#![allow(dead_code)]\n", "tests/it/main.rs:2: suppresses"),
            ("src/seal/cut.rs", &long, "src/seal/cut.rs:1: has 601 lines"),
            ("src/seal/cut.rs", "//! A.\nuse crate::storage;\n", "src/seal/cut.rs:2: seal names crate::storage"),
        ] {
            let found = findings(path, content);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let tests = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(MAX_LINES));
        assert!(findings("src/seal/cut.rs", &tests).is_empty(), "tests do not count");
        assert!(findings("src/cli/output.rs", "//! A.\nfn f() { println!(); }\n").is_empty());
        assert!(findings("tests/it/main.rs", "//! A.\nfn f() { println!(); }\n").is_empty());
        let apart = [
            ("src/seal/mod.rs".to_owned(), "//! A.\n#[cfg(test)]\nmod tests;\n".to_owned()),
            ("src/seal/tests.rs".to_owned(), "//! A.\nuse crate::storage;\n".to_owned()),
        ];
        assert_eq!(check_sources(&apart), Vec::<String>::new(), "tests in a file of their own");
    }
}
