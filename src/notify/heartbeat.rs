//! The heartbeat, in the healthchecks.io manner: `URL/start`, `URL`, `URL/fail` or `URL/<exit status>`, each with `?rid=`, which
//! ties the end of a run to its start. What is posted to it is a line, as short as the run is well.

use serde::{Deserialize, Serialize};
use url::Url;

use super::NotifyError;
use crate::config::Secret;
use crate::domain::ids::JobName;
use crate::domain::operation::Operation;

/// What stands for the job's name in an address that several jobs share.
const JOB: &str = "{job}";
const OPERATION: &str = "{operation}";

/// A run's name: a random UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunUuid(String);

impl RunUuid {
    /// From a random number.
    #[must_use]
    pub fn from_random(number: u128) -> Self {
        // Version 4, variant 1.
        let number = number & !(0xf000 << 64) & !(0xc000 << 48) | (0x4000 << 64) | (0x8000 << 48);
        let hex = format!("{number:032x}");
        Self(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
    }

    /// As it stands in addresses.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// A run began.
    Start,
    /// It went well.
    Success,
    /// It did not.
    Fail,
    /// It did not, with this exit status.
    Exit(u8),
    /// Nothing of a run: a line for the log of whoever listens.
    Log,
}

/// One beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The job.
    pub job: JobName,
    /// `backup` or `drill`.
    pub operation: Operation,
    /// The run.
    pub run: RunUuid,
    /// What it says.
    pub sign: Sign,
    /// What is posted: a line, nothing of the data.
    pub body: String,
}

impl Beat {
    /// Where it goes, from the address that the config names.
    ///
    /// # Errors
    /// When that is no http address.
    pub fn address(&self, base: &str, place: &Secret) -> Result<String, NotifyError> {
        let named = base.replace(JOB, self.job.as_str()).replace(OPERATION, self.operation.name());
        let none = || NotifyError::NotOne { place: place.to_string(), what: "an http address" };
        let mut url = Url::parse(named.trim()).map_err(|_| none())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(none());
        }
        let behind = match self.sign {
            Sign::Start => Some("start".to_owned()),
            Sign::Success => None,
            Sign::Fail => Some("fail".to_owned()),
            Sign::Exit(status) => Some(status.to_string()),
            Sign::Log => Some("log".to_owned()),
        };
        if let Some(behind) = behind {
            url.path_segments_mut().map_err(|()| none())?.pop_if_empty().push(&behind);
        }
        url.query_pairs_mut().append_pair("rid", self.run.as_str());
        Ok(url.into())
    }
}

/// Whether an address tells jobs apart.
#[must_use]
pub fn tells_jobs_apart(base: &str) -> bool {
    base.contains(JOB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_version_4() {
        assert_eq!(RunUuid::from_random(0).as_str(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RunUuid::from_random(u128::MAX).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert!(RunUuid::from_random(0x1234_5678 << 96).as_str().starts_with("12345678-"));
    }

    #[test]
    fn addresses() {
        let place = Secret::Env("PING".to_owned());
        let at = |base: &str, sign| {
            let run = RunUuid::from_random(0);
            let beat =
                Beat { job: "shop".parse().unwrap(), operation: Operation::Backup, run, sign, body: String::new() };
            beat.address(base, &place).map_err(|error| error.to_string())
        };
        let rid = "rid=00000000-0000-4000-8000-000000000000";
        for (base, sign, expected) in [
            ("https://hc.example/abc", Sign::Start, format!("https://hc.example/abc/start?{rid}")),
            ("https://hc.example/abc/", Sign::Fail, format!("https://hc.example/abc/fail?{rid}")),
            ("https://hc.example/abc", Sign::Success, format!("https://hc.example/abc?{rid}")),
            ("https://hc.example/abc", Sign::Exit(21), format!("https://hc.example/abc/21?{rid}")),
            (
                "https://hc.example/key/{job}-{operation}?create=1",
                Sign::Start,
                format!("https://hc.example/key/shop-backup/start?create=1&{rid}"),
            ),
        ] {
            assert_eq!(at(base, sign), Ok(expected));
        }
        for wrong in ["hunter22", "ftp://hunter22", "mailto:hunter22@example.com"] {
            assert_eq!(
                at(wrong, Sign::Fail),
                Err("the environment variable PING does not hold an http address".into())
            );
        }
    }
}
