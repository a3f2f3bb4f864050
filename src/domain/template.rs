//! A text with `{placeholders}`, for a JSON body of one's own. There is nothing else to it: no conditions, no loops.
//!
//! A placeholder is a lowercase word in braces. Any other brace is a brace, so that JSON needs no escaping.

use std::collections::BTreeMap;

/// A template whose placeholders are known ones, and which is JSON whatever stands for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing stands for it.
    #[error("there is no placeholder {{{name}}}; there are {known}")]
    Unknown {
        /// What stands in braces.
        name: String,
        /// What may.
        known: String,
    },
    /// Filled in, it could not be read.
    #[error("the template is not JSON once it is filled in: {cause}")]
    NotJson {
        /// What the reader said.
        cause: String,
    },
}

impl Template {
    /// Reads a template. `texts` stand within quotes and are escaped, `values` are JSON of their own.
    ///
    /// # Errors
    /// Where a placeholder is unknown, or the text is not JSON.
    pub fn parse(text: &str, texts: &[&str], values: &[&str]) -> Result<Self, TemplateError> {
        let unknown = placeholders(text).find(|(_, name)| !texts.contains(name) && !values.contains(name));
        if let Some((_, name)) = unknown {
            let known: Vec<String> = texts.iter().chain(values).map(|name| format!("{{{name}}}")).collect();
            return Err(TemplateError::Unknown { name: name.to_owned(), known: known.join(", ") });
        }
        let template = Self { text: text.to_owned() };
        let sample = texts.iter().map(|name| (*name, "\"\\".to_owned())).collect();
        let values = values.iter().map(|name| (*name, "{}".to_owned())).collect();
        match serde_json::from_str::<serde::de::IgnoredAny>(&template.fill(&sample, &values)) {
            Ok(_) => Ok(template),
            Err(cause) => Err(TemplateError::NotJson { cause: cause.to_string() }),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Fills it in. What has no text and no value is empty.
    #[must_use]
    pub fn fill(&self, texts: &BTreeMap<&str, String>, values: &BTreeMap<&str, String>) -> String {
        let mut filled = String::with_capacity(self.text.len() * 2);
        let mut done = 0;
        for (at, name) in placeholders(&self.text) {
            filled.push_str(&self.text[done..at]);
            match (texts.get(name), values.get(name)) {
                (Some(text), _) => filled.push_str(&escaped(text)),
                (None, Some(value)) => filled.push_str(value),
                (None, None) => {}
            }
            done = at + name.len() + 2;
        }
        filled.push_str(&self.text[done..]);
        filled
    }
}

/// As it stands between a JSON string's quotes.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Every `{word}`: where its brace stands, and the word.
fn placeholders(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices('{').filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        let name = &rest[..rest.find('}')?];
        let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_word.then_some((at, name))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, &["job", "summary"], &["document"])
    }

    #[test]
    fn braces_of_json_stay() {
        let template = parse(r#"{"a": {}, "b": {"{job}": ["{job}: {summary}"]}, "c": {document}}"#).unwrap();
        let texts = [("job", "shop".to_owned()), ("summary", "it \"failed\"\n".to_owned())].into();
        let values = [("document", "{\"x\":1}".to_owned())].into();
        assert_eq!(
            template.fill(&texts, &values),
            r#"{"a": {}, "b": {"shop": ["shop: it \"failed\"\n"]}, "c": {"x":1}}"#
        );
    }

    #[test]
    fn what_is_no_template_is_said() {
        assert!(parse(r#"{"a": "{jobb}"}"#).unwrap_err().to_string().contains("{jobb}; there are {job}, {summary}"));
        assert!(parse(r#"{"a": {job}}"#).unwrap_err().to_string().contains("not JSON"));
        assert!(parse("{job").unwrap_err().to_string().contains("not JSON"));
    }

    proptest! {
        #[test]
        fn whatever_stands_for_it_it_is_json(job in ".*", summary in ".*") {
            let template = parse(r#"{"text": "{job}: {summary}"}"#).unwrap();
            let filled = template.fill(&[("job", job.clone()), ("summary", summary.clone())].into(), &BTreeMap::new());
            let read: serde_json::Value = serde_json::from_str(&filled).unwrap();
            prop_assert_eq!(&read["text"], &serde_json::Value::from(format!("{job}: {summary}")));
        }
    }
}
