//! One POST, within a deadline, to an address that is a secret. No redirect is followed: it would carry the secret elsewhere.
//!
//! Whom it believes is what the host believes (or `SSL_CERT_FILE`), as for a vault in a bucket; proxies are those that the
//! environment names.

use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::scrub::scrubbed;
use super::{NotifyError, SEND_WITHIN};

const USER_AGENT: &str = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));
/// No more of an answer is read.
const MAX_ANSWER_BYTES: u64 = 4096;

/// A POST.
pub(super) struct Post<'a> {
    /// The address; a secret.
    pub(super) url: &'a str,
    /// Headers besides the usual ones.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// What must not be shown besides the address.
    pub(super) secrets: Vec<&'a str>,
}

/// What came back: `200 ok`. Nothing of the secrets is in it.
pub(super) fn post(post: &Post<'_>) -> Result<String, NotifyError> {
    let mut hidden = vec![post.url];
    hidden.extend(&post.secrets);
    let failed = |error: ureq::Error| NotifyError::Unreachable { why: scrubbed(&why(&error), &hidden) };
    let mut request = agent(post.url)?.post(post.url).header("Content-Type", post.content_type);
    for (name, value) in &post.headers {
        request = request.header(*name, value);
    }
    let mut response = request.send(&post.body).map_err(failed)?;
    let mut answer = Vec::new();
    let read = response.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (status, said) = (response.status().as_u16(), scrubbed(&answer, &hidden));
    match (status, read) {
        // It was taken, whatever became of the words about it.
        (200..=299, _) => Ok(format!("{status} {said}").trim_end().to_owned()),
        (_, _) => Err(NotifyError::Refused { status, said_too: said }),
    }
}

fn agent(url: &str) -> Result<ureq::Agent, NotifyError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(SEND_WITHIN))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(USER_AGENT)
        .accept("*/*");
    // The roots are read only where somebody needs them.
    let config = if url.starts_with("https:") { config.tls_config(tls()?) } else { config };
    Ok(config.build().into())
}

fn tls() -> Result<TlsConfig, NotifyError> {
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        Arc::new(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
    });
    if roots.is_empty() {
        let why = "this host believes no certificate authority: `apt-get install ca-certificates`".to_owned();
        return Err(NotifyError::Unreachable { why });
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::clone(roots)))
        .build())
}

/// In words of our own where the client's would hold the address.
fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => "this is no address".to_owned(),
        ureq::Error::Http(_) => "address or headers hold something that cannot be sent".to_owned(),
        ureq::Error::Timeout(_) => format!("no answer within {} s", SEND_WITHIN.as_secs()),
        ureq::Error::ConnectProxyFailed(_) => "the proxy does not connect to it".to_owned(),
        ureq::Error::Io(cause) => cause.to_string(),
        other => other.to_string(),
    }
}
