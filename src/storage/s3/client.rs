//! The connection to a store: keys, address, region, certificates, and how long to wait for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use age::secrecy::{ExposeSecret as _, SecretString};
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, profile};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};

use super::super::remote::{RemoteFault, Said};
use super::super::{LockMode, StorageError};
use super::time::{Listener, StoreTime};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A transfer that stands still so long is broken off.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// Where nothing says the region. Stores that have none take any.
const DEFAULT_REGION: &str = "us-east-1";
/// Variables that name a store's address.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// No file of certificates is larger.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// How a bucket is reached.
#[derive(Debug)]
pub struct Options {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// The bucket's region; else the environment's.
    pub region: Option<String>,
    /// The store's address; else the environment's, else AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket's name goes into the path; else: where there is an endpoint.
    pub path_style: Option<bool>,
    /// The profile in AWS's files; else the environment's.
    pub profile: Option<String>,
    /// The keys; else the environment's, the profile's, the machine's.
    pub keys: Option<Keys>,
    /// The authority that alone may vouch for the endpoint (PEM).
    pub ca: Option<PathBuf>,
    /// How many requests are under way at a time.
    pub parallel_requests: usize,
    /// Bytes a second, up and down together.
    pub bandwidth_limit_bytes: Option<u64>,
    /// How what is to be held is held.
    pub lock: Option<LockMode>,
}

/// The keys to a store.
#[derive(Debug)]
pub struct Keys {
    /// The id.
    pub access_key: SecretString,
    /// The secret half.
    pub secret_key: SecretString,
    /// What goes with temporary keys.
    pub session_token: Option<SecretString>,
}

/// A client, and where it leads to, for messages.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) place: String,
}

/// Makes a client. Asks no store anything; finding the keys of a machine's role may ask the machine's own service.
pub(super) async fn connect(options: &Options, time: &Arc<StoreTime>) -> Result<Connected, StorageError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        // Keys of a machine's role come from elsewhere than the store, and are vouched for by the usual authorities.
        .http_client(http_client(tls::TlsContext::default(), ProxyConfig::disabled(), 1));
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    } else if options.endpoint.is_some() || ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some()) {
        // Not AWS: the machine's own service, which is asked last, is not there, and asking it takes seconds.
        let profile = profile::region::Builder::default();
        let profile = match &options.profile {
            Some(name) => profile.profile_name(name),
            None => profile,
        };
        let named = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
        loader = loader.region(named.or_else(Region::new(DEFAULT_REGION)));
    }
    if let Some(keys) = &options.keys {
        loader = loader.credentials_provider(Credentials::new(
            keys.access_key.expose_secret(),
            keys.secret_key.expose_secret(),
            keys.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            None,
            "lifeboat's config",
        ));
    }
    let shared = loader.load().await;
    let endpoint = options.endpoint.clone().or_else(|| configured_endpoint(&shared));
    let place = place(options, endpoint.as_deref());
    let context = match &options.ca {
        None => tls::TlsContext::default(),
        Some(file) => {
            let trust = tls::TrustStore::empty().with_pem_certificate(authority(file, &place)?);
            tls::TlsContext::builder().with_trust_store(trust).build().map_err(|error| StorageError::Remote {
                place: place.clone(),
                doing: "setting up TLS".into(),
                fault: RemoteFault::Untrusted,
                said: Said::new(&error.to_string()),
            })?
        }
    };
    let http = http_client(context, ProxyConfig::from_env(), options.parallel_requests);
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .region(shared.region().cloned().unwrap_or_else(|| Region::new(DEFAULT_REGION)))
        .force_path_style(options.path_style.unwrap_or(endpoint.is_some()))
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALLED_AFTER).build())
        // Objects are checked against their names and documents against their signatures, so a second sum is not asked for
        // on the way down; on the way up each put brings its own.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(Listener(Arc::clone(time)));
    // What AWS's files say of an endpoint for S3 alone is in there already.
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(Connected { client: Client::from_conf(config.build()), place })
}

/// The endpoint that environment or profile name.
fn configured_endpoint(shared: &aws_config::SdkConfig) -> Option<String> {
    let own = std::env::var(ENDPOINTS[0]).ok().filter(|url| !url.is_empty());
    own.or_else(|| shared.endpoint_url().map(str::to_owned))
}

fn place(options: &Options, endpoint: Option<&str>) -> String {
    let bucket = match options.prefix.as_str() {
        "" => format!("s3://{}", options.bucket),
        prefix => format!("s3://{}/{prefix}", options.bucket),
    };
    // The host alone: whatever else stands in an address from the environment is nobody's business.
    match endpoint.and_then(|url| url::Url::parse(url).ok()).and_then(|url| url.host_str().map(str::to_owned)) {
        Some(host) => format!("{bucket} ({host})"),
        None => bucket,
    }
}

/// How connections are made. The variables HTTPS_PROXY and NO_PROXY are obeyed where `proxy` says so.
fn http_client(context: tls::TlsContext, proxy: ProxyConfig, idle: usize) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, _| {
        let mut builder = Connector::builder().pool_max_idle_per_host(idle).proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        let rustls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        builder.tls_provider(rustls).tls_context(context.clone()).build()
    })
}

/// Reads a file of certificates. What is none is refused here: the TLS library would panic.
fn authority(file: &Path, place: &str) -> Result<Vec<u8>, StorageError> {
    let doing = || format!("reading the certificates in {}", file.display());
    let failed = |source| StorageError::Failed { place: place.to_owned(), doing: doing(), source };
    let wrong = |what: &str| StorageError::Remote {
        place: place.to_owned(),
        doing: doing(),
        fault: RemoteFault::Untrusted,
        said: Said::new(what),
    };
    if std::fs::metadata(file).map_err(failed)?.len() > MAX_CA_BYTES {
        return Err(wrong("it is larger than any file of certificates"));
    }
    let pem = std::fs::read(file).map_err(failed)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(&pem) {
        let certificate: rustls::pki_types::CertificateDer<'_> =
            certificate.map_err(|_| wrong("it holds no certificates as PEM has them"))?;
        roots.add(certificate).map_err(|error| wrong(&format!("a certificate in it cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(pem)
}
