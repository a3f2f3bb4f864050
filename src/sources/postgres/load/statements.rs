//! SQL as pg_dump and pg_dumpall write it, cut into statements, and a database's name in them replaced. Not a parser: it
//! knows what is a string, a quoted name and a comment, and nothing else.

/// A statement's tokens, without comments and without the semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    tokens: Vec<Token<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A keyword or a plain name or a number.
    Word,
    /// `"name"`.
    Name,
    /// `'text'`, `E'text'`, `$$text$$`.
    Text,
    /// Anything else, one character.
    Other,
    /// Space and comments.
    Space,
}

/// Cuts a script. psql's own commands (`\restrict`, `\connect`), which pg_dump writes on lines of their own between
/// statements, are left out. `None` where a string or a comment does not end.
pub(super) fn statements(script: &str) -> Option<Vec<Statement<'_>>> {
    let mut found = Vec::new();
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        if first == '\\' && tokens.iter().all(|token| token.kind == Kind::Space) {
            rest = rest.find('\n').map_or("", |end| &rest[end + 1..]);
            continue;
        }
        let (kind, length) = token(rest)?;
        let (text, after) = rest.split_at(length);
        rest = after;
        if (kind, text) == (Kind::Other, ";") {
            push(&mut found, &mut tokens);
        } else {
            tokens.push(Token { kind, text });
        }
    }
    push(&mut found, &mut tokens);
    Some(found)
}

fn push<'a>(found: &mut Vec<Statement<'a>>, tokens: &mut Vec<Token<'a>>) {
    // What stands before a statement is said of it by pg_dump, and none of it.
    let before = tokens.iter().take_while(|token| token.kind == Kind::Space).count();
    let statement = Statement { tokens: std::mem::take(tokens).split_off(before) };
    if !statement.words().is_empty() {
        found.push(statement);
    }
}

/// The kind and the length of the token that `text` begins with.
fn token(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    Some(match bytes[0] {
        b'\'' => (Kind::Text, quoted_end(text, '\'', false)?),
        b'e' | b'E' if bytes.get(1) == Some(&b'\'') => (Kind::Text, 1 + quoted_end(&text[1..], '\'', true)?),
        b'"' => (Kind::Name, quoted_end(text, '"', false)?),
        b'-' if bytes.get(1) == Some(&b'-') => (Kind::Space, text.find('\n').map_or(text.len(), |end| end + 1)),
        b'/' if bytes.get(1) == Some(&b'*') => (Kind::Space, comment_end(bytes)?),
        b'$' => match dollar_tag(text) {
            Some(tag) => (Kind::Text, tag.len() + text[tag.len()..].find(tag)? + tag.len()),
            None => (Kind::Other, 1),
        },
        byte if byte.is_ascii_whitespace() => {
            (Kind::Space, bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len()))
        }
        byte if is_word(byte) => (Kind::Word, bytes.iter().position(|byte| !is_word(*byte)).unwrap_or(bytes.len())),
        _ => (Kind::Other, 1),
    })
}

/// Of a name or keyword: what is not ASCII belongs to names. A `$` inside one is part of it.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

/// Where a quoted text ends; a doubled quote stands for itself.
fn quoted_end(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if escapes && char == '\\' {
            chars.next();
        } else if char == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + quote.len_utf8());
        }
    }
    None
}

fn comment_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_u32;
    let mut at = 0;
    loop {
        match bytes.get(at..at + 2)? {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// `$$` or `$name$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii());
    (plain && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| &text[..end])
}

impl<'a> Statement<'a> {
    /// The statement's text.
    pub(super) fn text(&self) -> String {
        self.tokens.iter().map(|token| token.text).collect::<String>().trim().to_owned()
    }

    /// Its words, names and texts in order: keywords in capitals, names as they are without their quotes.
    pub(super) fn words(&self) -> Vec<String> {
        let tokens = self.tokens.iter().filter(|token| token.kind != Kind::Space);
        tokens.map(Token::word).collect()
    }

    /// Whether it begins with these keywords.
    pub(super) fn begins(&self, keywords: &[&str]) -> bool {
        let tokens = self.tokens.iter().filter(|token| token.kind != Kind::Space);
        keywords.len() <= tokens.clone().count()
            && tokens
                .zip(keywords)
                .all(|(token, keyword)| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(keyword))
    }

    /// Whether a keyword stands in it, outside of names and texts.
    pub(super) fn says(&self, keyword: &str) -> bool {
        self.tokens.iter().any(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(keyword))
    }

    /// The text with the first database that is named in it being `to` (quoted), where it is `from` there.
    pub(super) fn with_database(&self, from: &str, to: &str) -> String {
        let mut text = String::new();
        let mut after_keyword = false;
        let mut done = false;
        for token in &self.tokens {
            if after_keyword && !done && token.kind != Kind::Space {
                done = true;
                if matches!(token.kind, Kind::Word | Kind::Name) && token.name() == from {
                    text.push_str(to);
                    continue;
                }
            }
            after_keyword |= token.kind == Kind::Word && token.text.eq_ignore_ascii_case("DATABASE");
            text.push_str(token.text);
        }
        text.trim().to_owned()
    }

    /// The text without an option of `CREATE DATABASE`: `TABLESPACE = fast`.
    pub(super) fn without_option(&self, option: &str) -> String {
        let mut left_out = 0;
        let mut text = String::new();
        for token in &self.tokens {
            if token.kind == Kind::Word && token.text.eq_ignore_ascii_case(option) {
                // The word, the sign and the value.
                left_out = 3;
            }
            if left_out > 0 {
                left_out -= usize::from(token.kind != Kind::Space);
                continue;
            }
            text.push_str(token.text);
        }
        text.trim().to_owned()
    }
}

impl Token<'_> {
    fn word(&self) -> String {
        if self.kind == Kind::Word { self.text.to_ascii_uppercase() } else { self.name() }
    }

    /// As a name: pg_dump quotes every name that is not all in small letters.
    fn name(&self) -> String {
        match self.kind {
            Kind::Name => self.text[1..self.text.len() - 1].replace("\"\"", "\""),
            _ => self.text.to_owned(),
        }
    }
}

/// The name that stands as the `index`-th word of a statement.
pub(super) fn name_at(statement: &Statement<'_>, index: usize) -> Option<String> {
    statement.tokens.iter().filter(|token| token.kind != Kind::Space).nth(index).map(Token::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_cut_at_semicolons_that_are_statements_ends() {
        let script = "-- a; b\n\\restrict xyz\nSET a = 'x;''y';\n/* ; /* ; */ */ COMMENT ON DATABASE \"a;b\" IS E'\\';';\n\
                      DO $f$ BEGIN; END $f$;\n\\unrestrict xyz\n";
        let texts: Vec<String> = statements(script).unwrap().iter().map(Statement::text).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert_eq!(texts[0], "SET a = 'x;''y'");
        assert_eq!(texts[1], "COMMENT ON DATABASE \"a;b\" IS E'\\';'");
        assert_eq!(texts[2], "DO $f$ BEGIN; END $f$");
        assert_eq!(statements("SELECT 'open"), None);
        assert_eq!(statements("/* open"), None);
    }

    #[test]
    fn the_database_is_renamed_and_nothing_else() {
        let renamed = |text: &str| statements(text).unwrap()[0].with_database("shop", "\"sh\"\"op 2\"");
        assert_eq!(
            renamed("ALTER DATABASE shop SET \"shop.shop\" TO 'shop DATABASE shop';"),
            "ALTER DATABASE \"sh\"\"op 2\" SET \"shop.shop\" TO 'shop DATABASE shop'"
        );
        assert_eq!(
            renamed("GRANT CONNECT ON DATABASE \"shop\" TO shop;"),
            "GRANT CONNECT ON DATABASE \"sh\"\"op 2\" TO shop"
        );
        assert_eq!(
            renamed("ALTER ROLE shop IN DATABASE other SET a TO 'b'"),
            "ALTER ROLE shop IN DATABASE other SET a TO 'b'"
        );
    }

    #[test]
    fn an_option_is_left_out() {
        let parsed =
            statements("CREATE DATABASE a WITH TEMPLATE = template0 TABLESPACE = \"fa st\" LOCALE = 'C';").unwrap();
        assert_eq!(parsed[0].without_option("TABLESPACE"), "CREATE DATABASE a WITH TEMPLATE = template0  LOCALE = 'C'");
        assert_eq!(name_at(&parsed[0], 2).as_deref(), Some("a"));
        assert!(parsed[0].begins(&["CREATE", "DATABASE"]) && parsed[0].says("tablespace"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_without_a_panic(text in "[a\"'$\\\\;/*\\- \nEé]{0,40}") {
            let _ = statements(&text);
        }
    }
}
