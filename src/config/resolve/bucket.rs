//! The keys of a vault in a bucket.

use toml::Spanned;

use super::super::file::{S3File, SecretFile};
use super::super::s3::{DEFAULT_PARALLEL_REQUESTS, S3Keys, S3Settings};
use super::{Resolver, Text};
use crate::domain::quantity::parse_size_bytes;
use crate::storage::LockMode;

/// More requests at a time help no store, and each holds an object.
const PARALLEL_REQUESTS: std::ops::RangeInclusive<usize> = 1..=256;
/// Less than this, and requests would run into their deadlines.
const LEAST_BANDWIDTH_BYTES: u64 = 64 * 1024;

impl Resolver<'_, '_> {
    /// A folder has none of these.
    pub(super) fn no_bucket(&mut self, image: &S3File) {
        for (name, at) in image.there() {
            self.problems
                .at_secret(at, format!("`{name}` belongs to a vault in a bucket: url = \"s3://bucket/prefix\""));
        }
    }

    pub(super) fn bucket(&mut self, image: S3File, url: &Text) -> S3Settings {
        let keys = match (image.access_key, image.secret_key) {
            (Some(access_key), Some(secret_key)) => self.keys(access_key, secret_key, image.session_token),
            (None, None) => {
                if let Some(token) = image.session_token {
                    self.problems.at_secret(token.span(), "a `session_token` goes with `access_key` and `secret_key`");
                }
                None
            }
            (Some(alone), None) => {
                self.problems.at_secret(alone.span(), "`access_key` needs its `secret_key`");
                None
            }
            (None, Some(alone)) => {
                self.problems.at_secret(alone.span(), "`secret_key` needs its `access_key`");
                None
            }
        };
        if let (Some(_), Some(profile)) = (&keys, &image.profile) {
            self.problems
                .at(profile.span(), "`profile` says where keys are, and so does `access_key`: take one of them out");
        }
        let endpoint = image.endpoint.map(|text| self.endpoint(text));
        let parallel_requests = image.parallel_requests.map_or(DEFAULT_PARALLEL_REQUESTS, |number| {
            usize::try_from(*number.get_ref()).ok().filter(|n| PARALLEL_REQUESTS.contains(n)).unwrap_or_else(|| {
                let (least, most) = (PARALLEL_REQUESTS.start(), PARALLEL_REQUESTS.end());
                self.problems.at(number.span(), format!("`parallel_requests` is a number from {least} to {most}"));
                DEFAULT_PARALLEL_REQUESTS
            })
        });
        // With dots in its name a bucket cannot be a part of the host's name: no certificate would fit.
        if image.path_style.as_ref().is_some_and(|flag| !flag.get_ref())
            && url.get_ref().split('/').nth(2).is_some_and(|bucket| bucket.contains('.'))
            && let Some(flag) = &image.path_style
        {
            self.problems.at(
                flag.span(),
                "the bucket's name has a dot, and no certificate fits bucket.with.dots.host: path_style = true",
            );
        }
        S3Settings {
            region: image.region.and_then(|text| self.word("region", &text)),
            endpoint,
            path_style: image.path_style.map(Spanned::into_inner),
            profile: image.profile.and_then(|text| self.word("profile", &text)),
            keys,
            ca: image.ca.map(|text| self.path(&text)),
            parallel_requests,
            bandwidth_limit_bytes: image.bandwidth_limit.and_then(|text| self.bandwidth(&text)),
            lock: image.lock.and_then(|text| self.lock(&text)),
        }
    }

    fn keys(
        &mut self,
        access_key: Spanned<SecretFile>,
        secret_key: Spanned<SecretFile>,
        session_token: Option<Spanned<SecretFile>>,
    ) -> Option<S3Keys> {
        let session_token = session_token.and_then(|secret| self.secret(secret));
        Some(S3Keys { access_key: self.secret(access_key)?, secret_key: self.secret(secret_key)?, session_token })
    }

    /// The address as it will be used; user and password have no place in it.
    fn endpoint(&mut self, text: Text) -> String {
        let at = text.span();
        let text = text.into_inner();
        let text = text.trim_end_matches('/').to_owned();
        let known = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
        match url::Url::parse(&text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.problems.at_secret(at, "no keys stand in `endpoint`; see `access_key` and `secret_key`");
            }
            Ok(url) if known(&url) && url.query().is_none() && url.fragment().is_none() && url.path() == "/" => {}
            _ => self.problems.at(
                at,
                "`endpoint` is an address without a path, such as \"https://s3.example.com\" or \"http://127.0.0.1:9000\"",
            ),
        }
        text
    }

    fn word(&mut self, key: &str, text: &Text) -> Option<String> {
        let word = text.get_ref();
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.problems.at(text.span(), format!("`{key}` is one word"));
            return None;
        }
        Some(word.clone())
    }

    fn lock(&mut self, text: &Text) -> Option<LockMode> {
        let mode = LockMode::parse(text.get_ref());
        if mode.is_none() {
            let words = LockMode::WORDS.map(|word| format!("\"{word}\"")).join(" or ");
            self.problems.at(text.span(), format!("`lock` is {words}; left out, nothing is held"));
        }
        mode
    }

    fn bandwidth(&mut self, text: &Text) -> Option<u64> {
        match parse_size_bytes(text.get_ref().trim().trim_end_matches("/s")) {
            Ok(bytes) if bytes < LEAST_BANDWIDTH_BYTES => {
                self.problems.at(text.span(), "`bandwidth_limit` is at least \"64KiB\" (a second)");
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problems.at(text.span(), error.to_string());
                None
            }
        }
    }
}
