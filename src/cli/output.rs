//! The only place that prints. stdout is data, stderr is talk.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::error::Error;

/// Whether colours are for this reader: a terminal that knows them, and nobody who asked for none (no-color.org).
pub(super) fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A line of talk.
pub(super) fn say(text: &str) {
    say_styled(&harmless(text));
}

/// A line of talk that may speak to the terminal: it holds nothing of a stranger's.
pub(super) fn say_styled(text: &str) {
    // Nobody is left to be told that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A line (or several) of data.
pub(super) fn print(text: &str) {
    print_styled(&harmless(text));
}

/// Lines of data that may speak to the terminal: they hold nothing of a stranger's.
pub(super) fn print_styled(text: &str) {
    // A reader that has gone away (`| head`) is no failure of ours.
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'));
}

/// One JSON document.
pub(super) fn print_json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => print(&text),
        Err(cause) => say(&format!("error: the document cannot be written as JSON: {cause}")),
    }
}

/// Names of tables and what a server says of them are a stranger's: they may not speak to the terminal.
fn harmless(text: &str) -> Cow<'_, str> {
    let speaks = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(speaks) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if speaks(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// An error with its code and its hint.
pub(super) fn print_error(error: &Error) {
    let message = error.to_string();
    // Behind the first line: what follows it quotes a file.
    let (first, rest) = message.split_once('\n').map_or((message.as_str(), None), |(first, rest)| (first, Some(rest)));
    say(&format!("error: {first} [{}]", error.code().name()));
    if let Some(rest) = rest {
        say(rest);
    }
    if let Some(hint) = error.hint() {
        say(&format!(" hint: {hint}"));
    }
}

/// `1 backup`, `2 backups`.
#[must_use]
pub(super) fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Aligns rows in columns, two spaces between, nothing at the ends; the first row is the head.
#[must_use]
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_speaks_to_the_terminal() {
        assert_eq!(harmless("a\tb\nc \u{e9}"), "a\tb\nc \u{e9}");
        assert_eq!(harmless("table \u{1b}[2J\u{9b}x\r"), "table \\u{1b}[2J\\u{9b}x\\r");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["id".to_owned(), "size".to_owned()], vec!["abc".to_owned(), "1".to_owned()]];
        assert_eq!(columns(&rows), "id   size\nabc  1\n");
    }
}
