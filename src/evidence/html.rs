//! HTML that cannot be broken by what stands in it: tags and attributes are the program's own words, everything else is text
//! and is escaped, on its way in, always. A document is one text: its style is in it, and it asks for nothing else.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The style of every document.
const STYLE: &str = include_str!("html/style.css");
/// Tags that begin a line, so that people can read the source.
const BEGIN_A_LINE: &[&str] = &[
    "html", "head", "meta", "link", "title", "body", "header", "main", "footer", "nav", "section", "article", "h1",
    "h2", "h3", "p", "ul", "li", "dl", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "figure",
    "details", "rect", "path", "line",
];
/// Characters that turn the direction of what follows them: a name could read as another one.
const TURNS: &[std::ops::RangeInclusive<char>] =
    &['\u{200e}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];

/// Attributes: names are the program's own, values are escaped.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

/// A piece of HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(String);

/// A document's head.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// What stands in the tab.
    pub title: &'a str,
    /// After so many seconds a browser asks again.
    pub refresh_seconds: Option<u32>,
}

impl Html {
    /// Text.
    pub fn text(&mut self, text: &str) {
        escape(&mut self.0, text);
    }

    /// An element with something in it.
    pub fn el(&mut self, tag: &'static str, attributes: Attributes<'_>, inner: impl FnOnce(&mut Self)) {
        self.open(tag, attributes);
        inner(self);
        let _ = write!(self.0, "</{tag}>");
    }

    /// An element with text in it.
    pub fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.el(tag, attributes, |html| html.text(text));
    }

    /// An element that has nothing in it and no end.
    pub fn void(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.open(tag, attributes);
    }

    /// A sentence of the program's, in which backquotes are around what is to be typed.
    pub fn sentence(&mut self, sentence: &str) {
        for (place, part) in sentence.split('`').enumerate() {
            // One that is not closed is a character like any other.
            match place % 2 {
                1 if sentence.split('`').count() > place + 1 => self.leaf("code", &[], part),
                1 => self.text(&format!("`{part}")),
                _ => self.text(part),
            }
        }
    }

    /// A piece that was made before.
    pub fn append(&mut self, piece: Self) {
        self.0.push_str(&piece.0);
    }

    fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        if BEGIN_A_LINE.contains(&tag) {
            self.0.push('\n');
        }
        let _ = write!(self.0, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"");
            escape(&mut self.0, value);
            self.0.push('"');
        }
        self.0.push('>');
    }

    /// What was written so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a browser is allowed to do for a document: to apply its style. No script, no request, no frame, no form.
#[must_use]
pub fn policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'")
}

/// A whole document, ending in a newline. It carries its policy, because a file has no headers.
#[must_use]
pub fn document(head: Head<'_>, body: impl FnOnce(&mut Html)) -> String {
    let mut html = Html("<!doctype html>".to_owned());
    html.el("html", &[("lang", "en")], |html| {
        html.el("head", &[], |html| {
            html.void("meta", &[("charset", "utf-8")]);
            html.void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", &policy())]);
            html.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            html.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            html.void("meta", &[("name", "referrer"), ("content", "no-referrer")]);
            html.void("meta", &[("name", "robots"), ("content", "noindex")]);
            if let Some(seconds) = head.refresh_seconds {
                html.void("meta", &[("http-equiv", "refresh"), ("content", &seconds.to_string())]);
            }
            // Nothing: a browser that is told of none asks for /favicon.ico.
            html.void("link", &[("rel", "icon"), ("href", "data:,")]);
            html.leaf("title", &[], head.title);
            // The one text that is not escaped: it is the program's own, and its hash is in the policy.
            let _ = write!(html.0, "\n<style>{STYLE}</style>");
        });
        html.el("body", &[], body);
    });
    html.0.push('\n');
    html.0
}

/// Text in an element or between quotes. What no document may hold, and what would turn the reading of the rest, is shown as
/// a replacement character.
fn escape(to: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            '\n' | '\t' => to.push(c),
            c if c.is_control() || TURNS.iter().any(|turns| turns.contains(&c)) => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_in_it_cannot_break_it() {
        let mut html = Html::default();
        html.el("b", &[("title", "a\"><script>alert('x')</script>")], |html| {
            html.text("</b><img src=x onerror=alert(1)> & \u{202e}txt.exe\0");
        });
        assert_eq!(
            html.as_str(),
            "<b title=\"a&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\">&lt;/b&gt;&lt;img src=x \
             onerror=alert(1)&gt; &amp; \u{fffd}txt.exe\u{fffd}</b>"
        );
    }

    #[test]
    fn what_is_typed_stands_out() {
        let said = |sentence: &str| {
            let mut html = Html::default();
            html.sentence(sentence);
            html.0
        };
        assert_eq!(said("run `lifeboat backup shop`, then look"), "run <code>lifeboat backup shop</code>, then look");
        assert_eq!(said("a `<b>` and a lone ` here"), "a <code>&lt;b&gt;</code> and a lone ` here");
        assert_eq!(said("``"), "<code></code>");
        assert_eq!(said(""), "");
    }

    #[test]
    fn a_document_asks_for_nothing() {
        let text = document(Head { title: "a < b", refresh_seconds: None }, |html| html.leaf("h1", &[], "x"));
        assert!(text.starts_with("<!doctype html>\n<html lang=\"en\">") && text.ends_with("</html>\n"), "{text}");
        assert!(text.contains("<title>a &lt; b</title>") && !text.contains("refresh"));
        for asks in ["http:", "https:", "url(", "@import", "src="] {
            assert!(!text.contains(asks), "{asks}");
        }
        assert!(!STYLE.contains('<') && policy().starts_with("default-src 'none'; style-src 'sha256-"));
    }

    proptest! {
        #[test]
        fn no_text_brings_a_tag_or_ends_a_value(text in "\\PC*|[<>\"'&a`\\x00-\\x1f]*") {
            let mut html = Html::default();
            html.leaf("b", &[("title", &text)], &text);
            prop_assert_eq!(html.0.matches('<').count(), 2);
            prop_assert_eq!(html.0.matches('>').count(), 2);
            prop_assert_eq!(html.0.matches('"').count(), 2);
            prop_assert!(!html.0.contains('\''));
        }
    }
}
