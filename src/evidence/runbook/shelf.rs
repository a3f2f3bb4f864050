//! The runbooks that the program brings along, with the config's names in the place of their examples: what is typed when a
//! backup fails, a key is lost, a vault is damaged. The tests type them as they lie in runbooks/; here only names change.

use crate::config::SourceKind;
use crate::operations::runbook::RunbookFacts;

use super::commands::{identity_file, quoted};

/// When a runbook is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Everybody,
    /// Jobs with a second vault.
    Copies,
    /// Jobs with a PostgreSQL database.
    Postgres,
}

/// Their names, which is how they name each other, and their texts: what hurts most first.
const SHELF: &[(&str, For, &str)] = &[
    ("host-lost", For::Everybody, include_str!("../../../runbooks/host-lost.md")),
    ("restore-postgres", For::Postgres, include_str!("../../../runbooks/restore-postgres.md")),
    ("restore-from-the-copy", For::Copies, include_str!("../../../runbooks/restore-from-the-copy.md")),
    ("restore-by-hand", For::Everybody, include_str!("../../../runbooks/restore-by-hand.md")),
    ("ransomware", For::Everybody, include_str!("../../../runbooks/ransomware.md")),
    ("host-stolen", For::Everybody, include_str!("../../../runbooks/host-stolen.md")),
    ("keys-lost-or-leaked", For::Everybody, include_str!("../../../runbooks/keys-lost-or-leaked.md")),
    ("vault-damaged", For::Everybody, include_str!("../../../runbooks/vault-damaged.md")),
    ("backup-failed", For::Everybody, include_str!("../../../runbooks/backup-failed.md")),
    ("rpo-breached", For::Everybody, include_str!("../../../runbooks/rpo-breached.md")),
    ("drill-failed", For::Everybody, include_str!("../../../runbooks/drill-failed.md")),
    ("erasing", For::Everybody, include_str!("../../../runbooks/erasing.md")),
    ("notifications-absent", For::Everybody, include_str!("../../../runbooks/notifications-absent.md")),
    ("rotate-recipient", For::Everybody, include_str!("../../../runbooks/rotate-recipient.md")),
    ("quarterly-drill", For::Everybody, include_str!("../../../runbooks/quarterly-drill.md")),
];

/// The runbooks for what else may happen to a job: name and text, headings one level down.
pub(super) fn runbooks(facts: &RunbookFacts) -> Vec<(&'static str, String)> {
    let has_postgres = facts.job.sources.iter().any(|source| matches!(source.kind, SourceKind::Postgres(_)));
    let of_use = |of: For| match of {
        For::Everybody => true,
        For::Copies => facts.copy.is_some(),
        For::Postgres => has_postgres,
    };
    let names = names(facts);
    let chosen = SHELF.iter().filter(|(_, of, _)| of_use(*of));
    chosen.map(|(name, _, text)| (*name, with_names(name, text, &names))).collect()
}

/// A variable of the runbooks, and what it is here.
type Name = (&'static str, String);

fn names(facts: &RunbookFacts) -> Vec<Name> {
    let job = &facts.job;
    let mut names = vec![
        ("JOB", job.name.to_string()),
        ("VAULT", facts.vault.url.to_string()),
        ("IDENTITY", identity_file(job)),
        ("OLD_IDENTITY", identity_file(job)),
        ("STATE", facts.state_dir.display().to_string()),
    ];
    names.extend(facts.copy.iter().map(|copy| ("COPY", copy.url.to_string())));
    names.extend(facts.host_name.iter().map(|name| ("HOST", name.clone())));
    let postgres = job.sources.iter().find(|source| matches!(source.kind, SourceKind::Postgres(_)));
    names.extend(postgres.map(|source| ("SOURCE", source.name.to_string())));
    names
}

/// Gives a runbook's variables their values here. What its prose calls jobs and hosts changes with them.
fn with_names(name: &str, text: &str, names: &[Name]) -> String {
    let mut renamed: Vec<(&str, &str)> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let given = line.split_once('=').and_then(|(variable, example)| {
            let (_, value) = names.iter().find(|(known, _)| *known == variable)?;
            Some((variable, example, value))
        });
        match given {
            None => lines.push(line.to_owned()),
            Some((variable, example, value)) => {
                if matches!(variable, "JOB" | "HOST") {
                    renamed.push((example, value));
                }
                lines.push(format!("{variable}={}", quoted(value)));
            }
        }
    }
    let mut page = String::new();
    for line in lines {
        let line = match line.strip_prefix("# ") {
            Some(title) => format!("## {name}.md: {title}"),
            None if line.starts_with("## ") => format!("#{line}"),
            None => line,
        };
        // Comments are for the tests.
        if line.starts_with("<!-- ") {
            continue;
        }
        page.push_str(&renamed.iter().fold(line, |line, (example, value)| replaced(&line, example, value)));
        page.push('\n');
    }
    page
}

/// A whole word in the place of another; a part of a path is none.
fn replaced(line: &str, word: &str, by: &str) -> String {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "/_-.".contains(c));
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let last = before.chars().next_back().or_else(|| out.chars().next_back());
        let ends = after.chars().next().filter(|c| *c != '.');
        let whole = !part_of_word(last) && !part_of_word(ends);
        out.push_str(before);
        out.push_str(if whole { by } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_change() {
        for (line, is) in [
            ("lifeboat list shop", "lifeboat list web"),
            ("`shop@2026` and shop.", "`web@2026` and web."),
            ("/mnt/backups/shop shopping my-shop shop-1", "/mnt/backups/shop shopping my-shop shop-1"),
            ("shop", "web"),
        ] {
            assert_eq!(replaced(line, "shop", "web"), is);
        }
    }

    #[test]
    fn variables_get_their_values_and_prose_follows() {
        let text = "# A title\n\n```sh\nVAULT=/mnt/backups/shop\nJOB=shop\nTARGET=/srv/restored\n```\n\n<!-- exits with 1 -->\nTake `shop@2026-11-22`.\n\n## More\n";
        let names = [("JOB", "web".to_owned()), ("VAULT", "/srv/my backups".to_owned())];
        let page = with_names("a", text, &names);
        assert_eq!(
            page,
            "## a.md: A title\n\n```sh\nVAULT='/srv/my backups'\nJOB=web\nTARGET=/srv/restored\n```\n\nTake `web@2026-11-22`.\n\n### More\n"
        );
    }

    #[test]
    fn the_shelf_has_every_runbook_that_the_page_does_not_say_itself() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let said = ["restore-everything", "restore-one", "metrics-absent"];
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let name = file.strip_suffix(".md").unwrap();
            assert_eq!(
                SHELF.iter().filter(|(known, ..)| *known == name).count(),
                usize::from(!said.contains(&name)),
                "{name}"
            );
        }
    }
}
