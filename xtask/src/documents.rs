//! What is written down to be typed is typed by a test: the commands of the README, the documents and the runbooks. And each
//! runbook has one form, so that whoever is tired finds what they look for where it was in the last one.
//!
//! A block of `sh` is run where a test opens its document whole (`Document::open`), or where a comment above it says so and a
//! test opens that part: `<!-- run -->` by `Document::marked`, `<!-- run: NAME -->` by `Document::part`. The same comment has
//! `sql` run, and `toml` written into a config; `toml` without one is read all the same by tests/it/documents.rs, which
//! fails too where a test opens a document and leaves a block out. What a command printed stands in a block of `text` below
//! `<!-- printed: NAME -->`, which a test compares (`Document::printed`). Commands that no test can run stand in a block of
//! `text` with one of a few reasons above it.

use std::collections::{BTreeMap, BTreeSet};

/// Why commands are not run: `<!-- not run: packages -->`.
const REASONS: &[(&str, &str)] = &[
    ("packages", "it installs packages"),
    ("bucket", "it wants a bucket of the reader's"),
    ("machine", "it asks this machine's own systemd, cron or disks"),
];
/// What else shells are called: nothing tells whether such a block is meant to be typed.
const SHELLS: &[&str] = &["", "bash", "shell", "zsh", "console", "shell-session"];
/// The words that commands begin with.
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
    "cargo",
    "docker",
    "podman",
    "age",
];
/// The words that statements begin with.
const STATEMENTS: &[&str] = &["SELECT", "CREATE", "ALTER", "GRANT", "REVOKE", "DROP", "INSERT", "UPDATE", "DELETE"];
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

/// How tests open a document.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Every block of `sh` is run.
    whole: bool,
    /// Those marked `run` are.
    marked: bool,
    /// Those marked `run: NAME` are, for these names.
    parts: BTreeSet<String>,
    /// Those marked `printed: NAME` are compared, for these names.
    printed: BTreeSet<String>,
}

/// The documents that a test's source opens, by their paths.
pub(crate) fn opened(source: &str, into: &mut BTreeMap<String, Opened>) {
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for call in line.split("Document::").skip(1) {
            let Some((how, arguments)) = call.split_once('(') else { continue };
            let mut literals = arguments.split('"').skip(1).step_by(2);
            let (Some(path), name) = (literals.next(), literals.next()) else { continue };
            let opened = into.entry(path.to_owned()).or_default();
            match (how, name) {
                ("open", _) => opened.whole = true,
                ("marked", _) => opened.marked = true,
                ("part", Some(name)) => drop(opened.parts.insert(name.to_owned())),
                ("printed", Some(name)) => drop(opened.printed.insert(name.to_owned())),
                _ => {}
            }
        }
    }
}

/// Whether the rules hold for a file. What was changed in the past is not typed.
pub(crate) fn is_typed(path: &str) -> bool {
    path.ends_with(".md") && path != "CHANGELOG.md"
}

fn is_runbook(path: &str) -> bool {
    path.starts_with("runbooks/") && path.ends_with(".md")
}

/// A fenced block.
struct Block<'t> {
    line: usize,
    kind: &'t str,
    /// What the comments right above it say.
    marks: Vec<&'t str>,
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
        let comments = above.iter().rev().map(|line| line.trim());
        let marks = comments.map_while(|line| line.strip_prefix("<!-- ")?.strip_suffix(" -->")).collect();
        blocks.push(Block { line: index + 1, kind: kind.trim(), marks, lines: inner });
        above.clear();
    }
    blocks
}

/// Blocks that nobody runs, and what a runbook lacks: line, and what is wrong.
pub(crate) fn breaches(path: &str, text: &str, opened: &BTreeMap<String, Opened>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let nowhere = Opened::default();
    let opened = opened.get(path).unwrap_or(&nowhere);
    for block in blocks(text) {
        if let Some(what) = block.breach(path, opened) {
            found.push((block.line, what));
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

impl Block<'_> {
    /// What is wrong with it.
    fn breach(&self, path: &str, opened: &Opened) -> Option<String> {
        if let Some(mark) = self.marks.iter().find(|mark| is_unknown(mark)) {
            return Some(format!("<!-- {mark} --> says nothing that is known here"));
        }
        let names = |begin: &str| self.marks.iter().filter_map(|mark| mark.strip_prefix(begin)).collect::<Vec<_>>();
        let parts: Vec<&str> = names("run: ").iter().flat_map(|names| names.split(", ")).collect();
        if let Some(part) = parts.iter().find(|part| !opened.parts.contains(**part)) {
            return Some(format!("is of a part that no test runs: Document::part(\"{path}\", \"{part}\")"));
        }
        if let Some(name) = names("printed: ").iter().find(|name| !opened.printed.contains(**name)) {
            return Some(format!("shows what no test compares: Document::printed(\"{path}\", \"{name}\")"));
        }
        let is_run = !parts.is_empty() || (opened.marked && self.marks.contains(&"run"));
        match self.kind {
            "sh" if is_run
                || opened.whole
                || (path == "README.md" && self.has_all(|line| line.starts_with(CHORES))) =>
            {
                None
            }
            "sql" if is_run => None,
            "toml" if is_run || !self.marks.contains(&"run") => None,
            "sh" | "sql" | "toml" => Some(format!("a block of {} that no test runs", self.kind)),
            kind if SHELLS.contains(&kind) => {
                Some("a block that does not say what it is: sh, which a test runs, or text".to_owned())
            }
            _ if !names("printed: ").is_empty() => None,
            _ if self.has(is_command) => {
                let known = |reason: &&str| REASONS.iter().any(|(known, _)| known == reason);
                if names("not run: ").iter().any(known) {
                    return None;
                }
                let reasons: Vec<String> = REASONS.iter().map(|(known, why)| format!("{known} ({why})")).collect();
                let ways = "make it sh, or put <!-- not run: REASON --> above it, with one of";
                Some(format!("commands that no test runs: {ways} {}", reasons.join(", ")))
            }
            _ if self.has(is_statement) => Some("statements that no test runs: make it sql".to_owned()),
            _ if self.has(is_setting) => Some("a config that no test reads: make it toml".to_owned()),
            _ => None,
        }
    }

    fn has(&self, what: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().any(|line| what(line))
    }

    fn has_all(&self, what: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().all(|line| what(line))
    }
}

/// A comment above a block that is meant for a test, and misspelt; anything else may stand there.
fn is_unknown(mark: &str) -> bool {
    let begins = ["run: ", "not run: ", "printed: ", "exits with "];
    let meant = ["run", "not run", "printed", "exits"].iter().any(|word| mark.starts_with(word));
    meant && mark != "run" && !begins.iter().any(|begin| mark.starts_with(begin))
}

/// A line that begins with a command, after the prompt that a transcript has.
fn is_command(line: &str) -> bool {
    line.split_whitespace().find(|word| *word != "$").is_some_and(|word| COMMANDS.contains(&word))
}

fn is_statement(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| STATEMENTS.contains(&word))
}

/// `[job.shop]`, or a key with a value.
fn is_setting(line: &str) -> bool {
    let line = line.trim();
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return is_name(name);
    }
    line.split_once(" = ")
        .is_some_and(|(name, value)| is_name(name.trim()) && value.trim().starts_with(['"', '[', '{']))
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
    fn a_part_is_run_where_a_test_opens_it() {
        let block = |kind: &str, mark: &str| format!("<!-- {mark} -->\n```{kind}\nx\n```\n");
        let one = "let d = Document::part(\"docs/a.md\", \"one\");";
        for kind in ["sh", "sql", "toml"] {
            assert!(found("docs/a.md", &block(kind, "run: one"), one).is_empty(), "{kind}");
            for mark in ["run: two", "run: one, two", "run", "runs: one", "run one"] {
                assert_eq!(found("docs/a.md", &block(kind, mark), one), [2], "{kind} {mark}");
            }
            assert_eq!(found("docs/b.md", &block(kind, "run: one"), one), [2], "{kind} of another document");
        }
        let both = format!("{one} let e = Document::part(\"docs/a.md\", \"two\");");
        assert!(found("docs/a.md", &block("sh", "run: one, two"), &both).is_empty());
        let whole = "let d = Document::open(\"docs/a.md\");";
        assert_eq!(found("docs/a.md", &block("sh", "run: one"), whole), [2], "a part is opened by its name");
        assert_eq!(found("docs/a.md", "```sql\nx\n```\n", one), [1], "statements are run");
        assert!(found("docs/a.md", "```toml\nx = 1\n```\n", "").is_empty(), "a config is read wherever it stands");
    }

    #[test]
    fn commands_do_not_hide_in_other_blocks() {
        for path in ["runbooks/a.md", "README.md", "docs/a.md", "schedules/a.md"] {
            let open = &format!("Document::open(\"{path}\")");
            for nothing_to_run in ["PASSED", "worst = max over neighbours", "[a picture]  of a vault", "x = 3"] {
                assert!(found(path, &format!("```text\n{nothing_to_run}\n```"), open).is_empty(), "{nothing_to_run}");
            }
            for hidden in [
                "lifeboat list",
                "one line\n   lifeboat list     # and what it does",
                "    $ lifeboat list\n    BACKUP  JOB",
                "CREATE ROLE backup LOGIN;",
                "[job.shop.source.db]",
                "databases = \"all\"",
                "retention = { keep_at_least = \"14d\" }",
            ] {
                for kind in ["text", "json", "console", "bash", ""] {
                    assert_eq!(found(path, &format!("```{kind}\n{hidden}\n```"), open), [1], "{path} {kind}: {hidden}");
                }
            }
            assert_eq!(found(path, "<!-- not run: no time -->\n```text\nlifeboat list\n```", open), [2]);
            let packages = "<!-- not run: packages -->\n```text\napt-get install age\n```";
            assert!(found(path, packages, open).is_empty());
        }
        assert!(found("CHANGELOG.md", "", "").is_empty() && !is_typed("CHANGELOG.md") && !is_typed("src/a.rs"));
    }

    #[test]
    fn what_is_shown_as_output_is_compared() {
        let shown = "<!-- printed: demo -->\n```text\n    $ lifeboat list\n    BACKUP  JOB\n```";
        assert!(found("README.md", shown, "Document::printed(\"README.md\", \"demo\")").is_empty());
        assert_eq!(found("README.md", shown, "Document::printed(\"README.md\", \"tour\")"), [2]);
        assert_eq!(found("README.md", shown, "Document::marked(\"README.md\")"), [2]);
    }

    /// The README as it is, with one block at a time that says nothing of a test any more, or calls itself text.
    #[test]
    fn each_block_of_the_readme_is_held() {
        let readme = include_str!("../../README.md");
        let mut documents = BTreeMap::new();
        for (mark, call) in [("run: ", "part"), ("printed: ", "printed")] {
            for name in
                readme.lines().filter_map(|line| line.strip_prefix(&format!("<!-- {mark}"))?.strip_suffix(" -->"))
            {
                opened(&format!("Document::{call}(\"README.md\", \"{name}\")"), &mut documents);
            }
        }
        opened("Document::marked(\"README.md\")", &mut documents);
        assert_eq!(breaches("README.md", readme, &documents), []);
        let lines: Vec<&str> = readme.lines().collect();
        let mut held = 0;
        for (at, line) in lines.iter().enumerate() {
            let spoilt = match *line {
                "```sh" | "```sql" | "```toml" => "```text",
                mark if mark.starts_with("<!-- ") && lines[at + 1] != "```toml" => "",
                _ => continue,
            };
            let mut spoilt_lines = lines.clone();
            spoilt_lines[at] = spoilt;
            let found = breaches("README.md", &spoilt_lines.join("\n"), &documents);
            assert_eq!(found.len(), 1, "line {}: {line}: {found:?}", at + 1);
            held += 1;
        }
        assert!(held > 40, "{held}");
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
