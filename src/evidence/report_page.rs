//! A report as one file of HTML, to open, to print and to hand on: the blocks of [`super::document`], written down. It asks for
//! nothing outside itself.

use super::document::{Block, Cell, Span, TITLE, Table, Tone, document};
use super::drawing::share_bar;
use super::html::{self, Head, Html};
use super::report::Report;

/// Tables with more columns than these scroll by themselves where there is no room.
const NARROW_COLUMNS: usize = 3;

/// The whole document, ending in a newline. The same report gives the same text.
#[must_use]
pub fn render(report: &Report) -> String {
    let unopened = report.unopened.iter().map(|job| job.job.as_str());
    let jobs: Vec<&str> = report.jobs.iter().map(|job| job.job.as_str()).chain(unopened).collect();
    let title = format!("{TITLE}: {}", jobs.join(", "));
    html::document(Head { title: &title, refresh_seconds: None }, |html| {
        html.el("main", &[("class", "report")], |html| {
            let mut about = String::new();
            for block in &document(report) {
                write(html, block, &mut about);
            }
        });
    })
}

/// Writes a block; `about` is the heading that it stands under.
fn write(html: &mut Html, block: &Block, about: &mut String) {
    match block {
        Block::Heading(rank, title) => {
            let tag = match rank {
                1 => "h1",
                2 => "h2",
                _ => "h3",
            };
            html.leaf(tag, &[], title);
            title.clone_into(about);
        }
        Block::Paragraph(words) => html.el("p", &[], |html| spans(html, words)),
        Block::List(items) => html.el("ul", &[("class", "reasons")], |html| {
            for words in items {
                html.el("li", &[], |html| spans(html, words));
            }
        }),
        Block::Table(table) if table.columns.len() > NARROW_COLUMNS => {
            let attributes = [("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", &**about)];
            html.el("div", &attributes, |html| write_table(html, table));
        }
        Block::Table(table) => write_table(html, table),
    }
}

fn write_table(html: &mut Html, table: &Table) {
    html.el("table", &[], |html| {
        html.el("thead", &[], |html| {
            html.el("tr", &[], |html| {
                table.columns.iter().for_each(|column| html.leaf("th", &[("scope", "col")], column));
            });
        });
        html.el("tbody", &[], |html| {
            for row in &table.rows {
                html.el("tr", &[], |html| {
                    for (place, cell) in row.iter().enumerate() {
                        match place {
                            0 => html.el("th", &[("scope", "row")], |html| write_cell(html, cell)),
                            _ => html.el("td", &[], |html| write_cell(html, cell)),
                        }
                    }
                });
            }
        });
    });
}

fn write_cell(html: &mut Html, cell: &Cell) {
    spans(html, &cell.words);
    if let Some(share) = cell.share {
        share_bar(html, &format!("{:.0} % of the drill", share * 100.0), share);
    }
}

fn spans(html: &mut Html, spans: &[Span]) {
    for span in spans {
        match span {
            Span::Text(text) => html.text(text),
            Span::Sentence(sentence) => html.sentence(sentence),
            Span::Code(text) => html.leaf("code", &[], text),
            Span::Term(term) => html.leaf("em", &[], term),
            Span::Verdict(verdict, tone) | Span::Outcome(verdict, tone) => {
                let class = match tone {
                    Tone::Good => "ok",
                    Tone::Bad => "critical",
                    Tone::Plain => "soft",
                };
                html.leaf("strong", &[("class", class)], verdict);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::objectives::Window;
    use crate::evidence::facts::JobFacts;
    use crate::evidence::report::report;
    use crate::evidence::samples::*;

    fn rendered(facts: &[JobFacts]) -> String {
        render(&report(facts, Window::before(now(), hours(48)), now(), "lifeboat 0.1.0"))
    }

    #[test]
    fn a_troubled_job_reads_like_this() {
        let page = rendered(&[troubled()]);
        insta::assert_snapshot!(&page[page.find("<body>").unwrap()..]);
    }

    /// Without tags and without Markdown's signs: the words alone.
    fn words(text: &str) -> String {
        let mut words = String::new();
        let mut is_tag = false;
        for c in text.chars() {
            match c {
                '<' => is_tag = true,
                '>' => is_tag = false,
                c if !is_tag && c.is_alphanumeric() => words.push(c),
                _ => {}
            }
        }
        words
    }

    #[test]
    fn it_says_what_markdown_says() {
        for facts in [troubled(), erasing_with_findings(), healthy()] {
            let page = rendered(std::slice::from_ref(&facts));
            let body = page[page.find("<body>").unwrap()..]
                .replace("&#39;", "'")
                .replace("&quot;", "\"")
                .replace("&amp;", "&");
            let markdown = super::super::markdown::render(&report(
                &[facts],
                Window::before(now(), hours(48)),
                now(),
                "lifeboat 0.1.0",
            ));
            assert_eq!(words(&body), words(&markdown.replace("| ---", "")));
        }
    }

    #[test]
    fn it_is_one_file_and_nothing_in_it_is_a_tag_of_anothers() {
        let mut facts = troubled();
        facts.drills[0].host = "<script>alert(1)</script>".to_owned();
        let page = rendered(&[facts]);
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"));
        assert!(page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;;"));
        assert!(!page.contains("refresh") && !page.contains("href=\"/"));
    }
}
