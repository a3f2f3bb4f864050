//! How a vault's bucket is reached, as the config says it. Secrets are places, not values; nothing is connected here.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::secret::Secret;
use super::settings::secret_json;
use crate::storage::LockMode;

/// How many requests are under way at a time, if the config does not say.
pub const DEFAULT_PARALLEL_REQUESTS: usize = 32;

/// How a bucket is reached. What is not said is asked of the environment, as AWS's own tools do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket's region.
    pub region: Option<String>,
    /// The store's address: `https://…` or `http://…`, without a path.
    pub endpoint: Option<String>,
    /// Whether the bucket's name goes into the path.
    pub path_style: Option<bool>,
    /// The profile in AWS's own files.
    pub profile: Option<String>,
    /// Keys that the config names; else the environment's, the profile's, the machine's.
    pub keys: Option<S3Keys>,
    /// The authority that alone may vouch for the endpoint (PEM); absolute.
    pub ca: Option<PathBuf>,
    /// How many requests are under way at a time.
    pub parallel_requests: usize,
    /// Bytes a second, up and down together.
    pub bandwidth_limit_bytes: Option<u64>,
    /// How what is stored is held against deletion, if it is.
    pub lock: Option<LockMode>,
}

/// Where the keys to a bucket lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// The id.
    pub access_key: Secret,
    /// The secret half.
    pub secret_key: Secret,
    /// What goes with temporary keys.
    pub session_token: Option<Secret>,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            path_style: None,
            profile: None,
            keys: None,
            ca: None,
            parallel_requests: DEFAULT_PARALLEL_REQUESTS,
            bandwidth_limit_bytes: None,
            lock: None,
        }
    }
}

impl S3Settings {
    pub(super) fn to_json(&self) -> Value {
        let keys = self.keys.as_ref();
        json!({
            "region": self.region,
            "endpoint": self.endpoint,
            "path_style": self.path_style,
            "profile": self.profile,
            "access_key": keys.map(|keys| secret_json(&keys.access_key)),
            "secret_key": keys.map(|keys| secret_json(&keys.secret_key)),
            "session_token": keys.and_then(|keys| keys.session_token.as_ref()).map(secret_json),
            "ca": self.ca.as_ref().map(|path| path.to_string_lossy()),
            "parallel_requests": self.parallel_requests,
            "bandwidth_limit": self.bandwidth_limit_bytes.map(|bytes| bytes.to_string()),
            "lock": self.lock.map(LockMode::word),
        })
    }
}

/// The longest prefix in bytes: with the longest key of a store behind it, a bucket's keys (1,024 bytes) hold it.
const MAX_PREFIX_BYTES: usize = 500;

/// What stands behind `s3://`. The reason why it is no bucket never repeats it: keys may have been written there.
pub(super) fn bucket_and_prefix(text: &str) -> Result<(String, String), &'static str> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    if bucket.contains(['@', ':']) {
        return Err("neither keys nor a port stand in it; see `access_key` and `endpoint`");
    }
    if !(3..=63).contains(&bucket.len()) {
        return Err("a bucket's name has 3 to 63 letters");
    }
    if !bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
        return Err("a bucket's name has lowercase letters, digits, `-` and `.`");
    }
    let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if !outer(bucket.bytes().next()) || !outer(bucket.bytes().last()) || bucket.contains("..") {
        return Err("a bucket's name begins and ends with a letter or digit, and has no two dots in a row");
    }
    if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("an address is no bucket's name; see `endpoint`");
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err("its prefix is longer than 500 letters");
    }
    if prefix.contains(['?', '#']) {
        return Err("no `?` and no `#` stand in it; region and endpoint are keys of their own");
    }
    if !prefix.is_empty() {
        for component in prefix.split('/') {
            if component.is_empty() || component.starts_with('.') {
                return Err("no part of its prefix is empty or begins with a dot");
            }
            if !component.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+=@,~ ".contains(&b)) {
                return Err("its prefix has letters, digits and -_.+=@,~ only");
            }
        }
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_prefixes() {
        for (text, bucket, prefix) in [
            ("backups", "backups", ""),
            ("backups/", "backups", ""),
            ("my.backups-1/shop", "my.backups-1", "shop"),
            ("backups/a/b c/", "backups", "a/b c"),
        ] {
            assert_eq!(bucket_and_prefix(text), Ok((bucket.to_owned(), prefix.to_owned())), "{text}");
        }
        let long = format!("backups/{}", "x".repeat(501));
        for text in [
            "",
            "/",
            "ab",
            "Backups",
            "back_ups",
            "-backups",
            "backups-",
            "back..ups",
            "10.0.0.1",
            "backups//a",
            "backups/a//b",
            "backups/../x",
            "backups/.x",
            "backups/ä",
            "backups/a?region=x",
            "KEY:SECRET@backups/x",
            &long,
            &"x".repeat(64),
        ] {
            let why = bucket_and_prefix(text).unwrap_err();
            assert!(!why.contains("SECRET"));
        }
    }
}
