//! What is written down to be typed is typed by a test: the commands of the README and of the runbooks. And each runbook has
//! one form, so that whoever is tired finds what they look for where it was in the last one.
//!
//! A block of `sh` is run where a test opens its document (`Document::open`, or `Document::marked` for those blocks alone that
//! `<!-- run -->` stands above): tests/it/documents.rs fails where a test opens a document and leaves a block out. Commands
//! that no test can run stand in another kind of block, in runbooks with one of a few reasons above it.

use std::collections::BTreeMap;

/// Why commands are not run: `<!-- not run: packages -->`.
const REASONS: &[(&str, &str)] = &[
    ("packages", "it installs packages"),
    ("bucket", "it wants a bucket of the reader's"),
    ("machine", "it asks this machine's own systemd, cron or disks"),
    ("elsewhere", "it is typed on another machine than what is around it, and the tests of hosts do that"),
    ("choice", "it is one of several ways, and there is no going back to try the next"),
];
/// How a test opens a document, and what follows for its blocks.
const OPENERS: &[(&str, Opened)] = &[("Document::open(\"", Opened::Whole), ("Document::marked(\"", Opened::Marked)];
/// What else shells are called: nothing tells whether such a block is meant to be typed.
const SHELLS: &[&str] = &["", "bash", "shell", "zsh", "console", "shell-session"];
/// The words that commands of runbooks begin with.
const COMMANDS: &[&str] = &[
    "lifeboat",
    "sudo",
    "apt-get",
    "systemctl",
    "journalctl",
    "aws",
    "s3cmd",
    "psql",
    "sqlite3",
    "sh",
    "bash",
    "cp",
    "mv",
    "rm",
    "rsync",
    "grep",
    "curl",
    "dmesg",
    "smartctl",
    "chmod",
    "mount",
];
/// What builds and tests this repository, which no test of it can run; the demo has a test of its own.
const CHORES: &str = "cargo ";
/// What each runbook says, in this order.
const FORM: &[&str] = &[
    "**When:**",
    "**Who decides:**",
    "**Where am I?**",
    "**Time:**",
    "**Verify:**",
    "**Go back:**",
    "**Last verified:**",
];

/// How a test takes a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Every block of `sh` is run.
    Whole,
    /// Those with a mark.
    Marked,
}

/// The documents that a test's source opens.
pub(crate) fn opened(source: &str, into: &mut BTreeMap<String, Opened>) {
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (opener, how) in OPENERS {
            for (at, _) in line.match_indices(opener) {
                let rest = &line[at + opener.len()..];
                if let Some((path, _)) = rest.split_once('"') {
                    into.insert(path.to_owned(), *how);
                }
            }
        }
    }
}

/// Whether the rules hold for a file.
pub(crate) fn is_typed(path: &str) -> bool {
    path == "README.md" || is_runbook(path)
}

fn is_runbook(path: &str) -> bool {
    path.starts_with("runbooks/") && path.ends_with(".md")
}

/// A fenced block.
struct Block<'t> {
    line: usize,
    kind: &'t str,
    /// The comment right above it.
    mark: Option<&'t str>,
    lines: Vec<&'t str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(kind) = line.trim_start().strip_prefix("```") else {
            above.push(line);
            continue;
        };
        let inner = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        let mark = above
            .iter()
            .rev()
            .map(|line| line.trim())
            .take_while(|line| line.starts_with("<!-- "))
            .find(|line| !line.contains("exits with"));
        blocks.push(Block { line: index + 1, kind: kind.trim(), mark, lines: inner });
        above.clear();
    }
    blocks
}

/// Blocks that nobody runs, and what a runbook lacks: line, and what is wrong.
pub(crate) fn breaches(path: &str, text: &str, opened: &BTreeMap<String, Opened>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for block in blocks(text) {
        let marked = block.mark == Some("<!-- run -->");
        let chores = path == "README.md" && block.lines.iter().all(|line| line.starts_with(CHORES));
        match (block.kind, opened.get(path)) {
            ("sh", Some(Opened::Whole)) => {}
            ("sh", Some(Opened::Marked)) if marked || chores => {}
            ("sh", _) => found.push((block.line, "a block of sh that no test runs".to_owned())),
            (shell, _) if SHELLS.contains(&shell) => {
                let what = "a block that does not say what it is: sh, which a test runs, or text";
                found.push((block.line, what.to_owned()));
            }
            _ if is_runbook(path) && block.lines.iter().any(|line| is_command(line)) => {
                let reason = block.mark.and_then(|mark| mark.strip_prefix("<!-- not run: ")?.strip_suffix(" -->"));
                if !reason.is_some_and(|reason| REASONS.iter().any(|(known, _)| *known == reason)) {
                    let known: Vec<String> = REASONS.iter().map(|(known, why)| format!("{known} ({why})")).collect();
                    let what =
                        "commands that no test runs: make it sh, or put <!-- not run: REASON --> above it, with one of";
                    found.push((block.line, format!("{what} {}", known.join(", "))));
                }
            }
            _ => {}
        }
    }
    if is_runbook(path) {
        let mut from = 0;
        for label in FORM {
            match text[from..].find(label) {
                Some(at) => from += at,
                None => found
                    .push((1, format!("a runbook without {label}, or with it in another place: {}", FORM.join(" ")))),
            }
        }
    }
    found
}

fn is_command(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| COMMANDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, source: &str) -> Vec<usize> {
        let mut documents = BTreeMap::new();
        opened(source, &mut documents);
        let form = FORM.join("\n");
        let text = if is_runbook(path) { format!("{text}\n{form}\n") } else { text.to_owned() };
        breaches(path, &text, &documents).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_block_is_run_where_a_test_opens_its_document() {
        let block = "# A\n\n```sh\nlifeboat list\n```\n";
        assert_eq!(found("runbooks/a.md", block, ""), [3]);
        assert_eq!(
            found("runbooks/a.md", block, "// Document::open(\"runbooks/a.md\")"),
            [3],
            "a comment runs nothing"
        );
        assert_eq!(found("runbooks/a.md", block, "Document::open(\"runbooks/b.md\")"), [3]);
        assert!(found("runbooks/a.md", block, "let d = Document::open(\"runbooks/a.md\");").is_empty());
        assert_eq!(found("README.md", block, "Document::marked(\"README.md\")"), [3]);
        let marked = block.replace("```sh", "<!-- run -->\n```sh");
        assert!(found("README.md", &marked, "Document::marked(\"README.md\")").is_empty());
        let chores = block.replace("lifeboat list", "cargo xtask test");
        assert!(found("README.md", &chores, "Document::marked(\"README.md\")").is_empty());
    }

    #[test]
    fn commands_do_not_hide_in_other_blocks() {
        let open = "Document::open(\"runbooks/a.md\")";
        assert!(found("runbooks/a.md", "```text\nPASSED\n```", open).is_empty());
        assert_eq!(found("runbooks/a.md", "```text\nlifeboat list\n```", open), [1]);
        assert_eq!(found("runbooks/a.md", "```bash\nls\n```", open), [1]);
        assert_eq!(found("runbooks/a.md", "<!-- not run: no time -->\n```text\nlifeboat list\n```", open), [2]);
        assert!(
            found("runbooks/a.md", "<!-- not run: packages -->\n```text\napt-get install age\n```", open).is_empty()
        );
    }

    #[test]
    fn a_runbook_has_its_form() {
        let documents = BTreeMap::new();
        assert!(breaches("runbooks/a.md", &FORM.join(" x\n"), &documents).is_empty());
        let turned: Vec<&str> = FORM.iter().rev().copied().collect();
        assert!(!breaches("runbooks/a.md", &turned.join(" x\n"), &documents).is_empty());
        assert_eq!(breaches("runbooks/a.md", "", &documents).len(), FORM.len());
    }
}
