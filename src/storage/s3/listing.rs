//! Listing: a page of a thousand keys at a time.

use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::EncodingType;
use chrono::{DateTime, Utc};

use super::super::{Listed, RemoteFault, StorageError};
use super::S3;
use super::trouble::{Kind, Trouble};

impl S3 {
    /// Tells every key that begins with `prefix`.
    pub(super) async fn pages(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        let doing = format!("listing {prefix}");
        let full = self.full(prefix);
        let mut token: Option<String> = None;
        loop {
            let send = || {
                self.client
                    .list_objects_v2()
                    .bucket(&self.bucket)
                    .prefix(&full)
                    .set_continuation_token(token.clone())
                    // XML cannot hold every key, and a strange one must not keep the others from being told.
                    .encoding_type(EncodingType::Url)
                    .send()
            };
            let page = match self.call(0, send).await.result {
                Ok(page) => page,
                Err(Trouble { kind: Kind::NotFound, said }) => {
                    return Err(self.error("", &doing, Trouble { kind: Kind::Fault(RemoteFault::NoBucket), said }));
                }
                Err(trouble) => return Err(self.error("", &doing, trouble)),
            };
            let encoded = page.encoding_type == Some(EncodingType::Url);
            for object in page.contents.unwrap_or_default() {
                let Some(key) = object.key else { continue };
                let key = if encoded { decoded(&key) } else { key };
                // What a store tells that was not asked for is not ours.
                let Some(own) = key.strip_prefix(&self.prefix).filter(|own| own.starts_with(prefix)) else { continue };
                // A store may keep an object for the prefix itself, as a folder.
                if own.is_empty() {
                    continue;
                }
                visit(Listed {
                    key: own.to_owned(),
                    size_bytes: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                    modified: object.last_modified.as_ref().and_then(moment),
                });
            }
            if page.is_truncated != Some(true) {
                return Ok(());
            }
            // Without a new token the same page would come for ever.
            match page.next_continuation_token {
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                _ => {
                    let trouble =
                        Trouble::new(Kind::Fault(RemoteFault::Refused), "a listing that goes on does not say where");
                    return Err(self.error("", &doing, trouble));
                }
            }
        }
    }
}

pub(super) fn moment(time: &SdkTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}

/// What was encoded as in a URL's query: `%20` and `+` are a space.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded() {
        for (text, key) in [
            ("objects/ab", "objects/ab"),
            ("a+b%2Bc%20d", "a b+c d"),
            ("%C3%A4%0a", "ä\n"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decoded(text), key);
        }
    }
}
