//! What an SDK's error means: which kind, whether a further try may help, whether the call may have taken effect.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::remote::{RemoteFault, Said};

/// What came of one attempt that did not succeed.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) said: Said,
}

/// Its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// 404 of a key.
    NotFound,
    /// 412: the condition of the request does not hold.
    Precondition,
    /// 409 of a conditional request: another one is under way.
    Contended,
    /// The store does not know what the request asks of it.
    Unsupported,
    /// The store, or a quota, is full.
    Full,
    /// An answer that came, of a request that was not or may not have been done, and may be done soon.
    Broken,
    /// No answer, after the request was sent.
    Lost,
    /// The clock is off; the SDK has corrected itself by the answer's date.
    Skewed,
    /// What arrived is not what was sent.
    Garbled,
    /// What a person must do something about.
    Fault(RemoteFault),
}

impl Kind {
    /// Whether a further try may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Contended | Self::Broken | Self::Lost | Self::Garbled => true,
            Self::Fault(fault) => fault.is_transient(),
            Self::NotFound | Self::Precondition | Self::Unsupported | Self::Full | Self::Skewed => false,
        }
    }

    /// Whether the call may have taken effect all the same.
    pub(super) fn may_be_done(&self) -> bool {
        matches!(self, Self::Broken | Self::Lost | Self::Garbled)
    }

    /// For a person, once nothing more is tried.
    pub(super) fn fault(self) -> RemoteFault {
        match self {
            Self::Fault(fault) => fault,
            Self::Broken | Self::Contended => RemoteFault::Busy,
            Self::Lost => RemoteFault::Unreachable,
            Self::Skewed => RemoteFault::ClockSkewed,
            Self::Garbled => RemoteFault::Garbled,
            Self::NotFound | Self::Precondition | Self::Unsupported | Self::Full => RemoteFault::Refused,
        }
    }
}

impl Trouble {
    pub(super) fn new(kind: Kind, said: &str) -> Self {
        Self { kind, said: Said::new(said) }
    }

    /// Of an answer that did not come in time.
    pub(super) fn late() -> Self {
        Self::new(Kind::Lost, "no answer in time")
    }

    /// Of one key's answer within an answer about many.
    pub(super) fn of_part(key: &str, code: &str, message: &str) -> Self {
        Self::new(kind_of(400, code, message, None), &format!("{key}: {code}: {message}"))
    }

    /// Of an error of the SDK.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_) if error.raw_response().is_some() => {
                Self::of_answer(error)
            }
            SdkError::TimeoutError(_) => Self::late(),
            SdkError::DispatchFailure(failure) => {
                let said = causes(error);
                let kind = if is_certificate(&said) {
                    Kind::Fault(RemoteFault::Untrusted)
                } else if is_without_keys(&said) {
                    Kind::Fault(RemoteFault::NoKeys)
                } else if said.contains("ConnectError")
                    || said.contains("error trying to connect")
                    || said.contains("dns")
                {
                    Kind::Fault(RemoteFault::Unreachable)
                } else if failure.is_timeout() || failure.is_io() {
                    Kind::Lost
                } else if failure.is_user() {
                    Kind::Fault(RemoteFault::Refused)
                } else {
                    Kind::Lost
                };
                Self::new(kind, &said)
            }
            _ => {
                let said = causes(error);
                let kind = if is_without_keys(&said) { RemoteFault::NoKeys } else { RemoteFault::Refused };
                Self::new(Kind::Fault(kind), &said)
            }
        }
    }

    fn of_answer<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        let region = error.raw_response().and_then(|answer| answer.headers().get("x-amz-bucket-region"));
        let (code, message) = (error.code().unwrap_or(""), error.message().unwrap_or(""));
        let said = match (code, message) {
            ("", "") => format!("status {status}"),
            (code, message) => format!("status {status}, {code}: {message}"),
        };
        Self::new(kind_of(status, code, message, region), &said)
    }
}

/// What status and code mean, in the words of AWS and of those who speak like it.
fn kind_of(status: u16, code: &str, message: &str, region: Option<&str>) -> Kind {
    let fault = Kind::Fault;
    match code {
        "NoSuchBucket" => fault(RemoteFault::NoBucket),
        "NoSuchKey" | "NoSuchVersion" | "NotFound" if status == 404 => Kind::NotFound,
        "PreconditionFailed" => Kind::Precondition,
        "ConditionalRequestConflict" | "OperationAborted" => Kind::Contended,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "ServiceUnavailable"
        | "InternalError"
        | "InternalFailure"
        | "ServerBusy"
        | "XMinioServerNotInitialized" => Kind::Broken,
        "RequestTimeout" | "RequestTimeoutException" | "IncompleteBody" => Kind::Lost,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "InvalidDigest" => Kind::Garbled,
        "RequestTimeTooSkewed" | "RequestExpired" => Kind::Skewed,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => fault(RemoteFault::KeysExpired),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "AuthFailure"
        | "NotSignedUp" => fault(RemoteFault::KeysRefused),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => {
            let right = region.map(str::to_owned).or_else(|| expected_region(message));
            fault(RemoteFault::WrongRegion { right })
        }
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "EntityTooLarge" | "InsufficientCapacity" => {
            Kind::Full
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidPayer" => fault(RemoteFault::Denied),
        _ => match status {
            301 | 307 => fault(RemoteFault::WrongRegion { right: region.map(str::to_owned) }),
            // A HEAD has no body, and so no code.
            400 if region.is_some() => fault(RemoteFault::WrongRegion { right: region.map(str::to_owned) }),
            401 | 403 => fault(RemoteFault::Denied),
            404 => Kind::NotFound,
            408 => Kind::Lost,
            409 => Kind::Contended,
            412 => Kind::Precondition,
            429 | 500 | 502 | 503 | 504 => Kind::Broken,
            405 | 501 => Kind::Unsupported,
            507 => Kind::Full,
            // A good status, and an answer that cannot be read.
            200..=299 => Kind::Lost,
            _ => fault(RemoteFault::Refused),
        },
    }
}

/// `… the region 'us-east-1' is wrong; expecting 'eu-central-1'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("expecting '")?;
    let (region, _) = rest.split_once('\'')?;
    let plain = region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (plain && !region.is_empty()).then(|| region.to_owned())
}

/// The chain of causes in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn is_certificate(said: &str) -> bool {
    let lower = said.to_ascii_lowercase();
    lower.contains("certificate") || lower.contains("unknownissuer") || lower.contains("not valid for name")
}

fn is_without_keys(said: &str) -> bool {
    let lower = said.to_ascii_lowercase();
    lower.contains("credentials") && !lower.contains("connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses() {
        let region = |right: &str| Kind::Fault(RemoteFault::WrongRegion { right: Some(right.into()) });
        let malformed =
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'";
        for (status, code, message, header, kind) in [
            (404, "NoSuchBucket", "", None, Kind::Fault(RemoteFault::NoBucket)),
            (404, "NoSuchKey", "", None, Kind::NotFound),
            (404, "", "", None, Kind::NotFound),
            (412, "PreconditionFailed", "", None, Kind::Precondition),
            (409, "ConditionalRequestConflict", "", None, Kind::Contended),
            (503, "SlowDown", "", None, Kind::Broken),
            (500, "", "", None, Kind::Broken),
            (400, "RequestTimeout", "", None, Kind::Lost),
            (403, "RequestTimeTooSkewed", "", None, Kind::Skewed),
            (400, "ExpiredToken", "", None, Kind::Fault(RemoteFault::KeysExpired)),
            (403, "InvalidAccessKeyId", "", None, Kind::Fault(RemoteFault::KeysRefused)),
            (403, "", "", None, Kind::Fault(RemoteFault::Denied)),
            (400, "AuthorizationHeaderMalformed", malformed, None, region("eu-central-1")),
            (301, "PermanentRedirect", "", Some("eu-west-3"), region("eu-west-3")),
            (301, "", "", Some("eu-west-3"), region("eu-west-3")),
            (400, "BadDigest", "", None, Kind::Garbled),
            (501, "NotImplemented", "", None, Kind::Unsupported),
            (507, "", "", None, Kind::Full),
            (400, "InvalidArgument", "", None, Kind::Fault(RemoteFault::Refused)),
        ] {
            assert_eq!(kind_of(status, code, message, header), kind, "{status} {code}");
        }
        assert_eq!(expected_region("expecting '<script>'"), None);
    }
}
