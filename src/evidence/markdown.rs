//! A report as Markdown, for people who read documents: the blocks of [`super::document`], written down.

use super::document::{Block, Cell, Span, Table, Tone, document};
use super::report::Report;

/// The whole document, ending in a newline. The same report gives the same text.
#[must_use]
pub fn render(report: &Report) -> String {
    let blocks: Vec<String> = document(report).iter().map(block).collect();
    format!("{}\n", blocks.join("\n\n"))
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(rank, title) => format!("{} {title}", "#".repeat(usize::from(*rank))),
        Block::Paragraph(words) => words.iter().map(span).collect(),
        Block::List(items) => {
            let item = |words: &Vec<Span>| format!("- {}", words.iter().map(span).collect::<String>());
            items.iter().map(item).collect::<Vec<_>>().join("\n")
        }
        Block::Table(table) => self::table(table),
    }
}

fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let head = table.columns.iter().map(|column| (*column).to_owned()).collect();
    let mut lines = vec![row(head), row(vec!["---".to_owned(); table.columns.len()])];
    let words = |cell: &Cell| cell.words.iter().map(span).collect();
    lines.extend(table.rows.iter().map(|cells| row(cells.iter().map(words).collect())));
    lines.join("\n")
}

fn span(span: &Span) -> String {
    match span {
        Span::Text(text) => plain(text),
        Span::Sentence(sentence) => sentence.clone(),
        Span::Code(text) => format!("`{}`", plain(text)),
        Span::Term(term) => format!("*{term}*"),
        Span::Verdict(verdict, Tone::Good | Tone::Plain) => verdict.clone(),
        Span::Verdict(verdict, Tone::Bad) | Span::Outcome(verdict, _) => format!("**{verdict}**"),
    }
}

/// A text from outside, so that it stays in its cell and is nothing but text.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '[' | ']' | '`' | '\\' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::objectives::Window;
    use crate::evidence::report::report;
    use crate::evidence::samples::*;

    fn rendered(facts: &[crate::evidence::facts::JobFacts]) -> String {
        render(&report(facts, Window::before(now(), hours(48)), now(), "lifeboat 0.1.0"))
    }

    #[test]
    fn keeping_and_erasing_read_like_this() {
        let text = rendered(&[erasing_with_findings()]);
        let from = text.find("### Measured erasure").unwrap();
        let drills = text.find("### Drills").unwrap();
        let backups = text.find("### Backups").unwrap();
        insta::assert_snapshot!(format!("{}[...]\n{}", &text[from..backups], &text[drills..]));
    }

    #[test]
    fn a_troubled_job_reads_like_this() {
        insta::assert_snapshot!(rendered(&[troubled()]));
    }

    #[test]
    fn an_unknown_job_is_unbounded_and_unmeasured_not_blank() {
        let mut facts = healthy();
        facts.backups.clear();
        facts.runs.clear();
        facts.drills.clear();
        facts.promise = Default::default();
        insta::assert_snapshot!(rendered(&[facts]));
    }

    #[test]
    fn text_from_outside_stays_in_its_cell() {
        assert_eq!(plain("a|b\n<i>`c`\\"), "a\\|b \\<i\\>\\`c\\`\\\\");
        let mut facts = healthy();
        facts.drills[0].host = "evil | host\n# heading".to_owned();
        let text = rendered(&[facts]);
        assert!(!text.contains("\n# heading"));
        assert!(text.contains("evil \\| host # heading"));
    }
}
