//! The connection to a Hub: where it is, the token, and what its answers mean.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};

use crate::cache;
use crate::error::{Error, Result};
use crate::variable;

/// Bounds of time and numbers of tries.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may bring nothing, and how long connecting may take.
    pub stall: Duration,
    /// Tries in a row that may bring nothing.
    pub tries: usize,
    /// The pause after the first try; it doubles with every further one.
    pub pause: Duration,
    /// Connections at a time for one file.
    pub connections: usize,
    /// Bytes that one request asks for.
    pub chunk: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
            connections: 4,
            chunk: 32 << 20,
        }
    }
}

/// A Hub that models are downloaded from.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    pub(crate) limits: Limits,
}

impl Hub {
    /// The Hub at `endpoint`, for example `https://huggingface.co`.
    pub fn new(endpoint: &str, token: Option<String>, limits: Limits) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::Name(format!("HF_ENDPOINT: expected https://HOST, found `{endpoint}`")));
        }
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::Name("HF_TOKEN: a token has letters, digits and signs only".to_owned()));
        }
        let agent = agent(endpoint.starts_with("https://"), limits)?;
        Ok(Self { endpoint, token, agent, limits })
    }

    /// The Hub of `HF_ENDPOINT` with the token of `HF_TOKEN`, `HF_TOKEN_PATH` or the file that `hf auth login` wrote.
    pub fn from_env(limits: Limits) -> Result<Self> {
        let endpoint = variable::word("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let file = variable::path("HF_TOKEN_PATH").or_else(|| Some(cache::home()?.join("token")));
        let token = variable::word("HF_TOKEN")
            .or_else(|| variable::word("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| fs::read_to_string(file?).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        Self::new(&endpoint, token, limits)
    }

    /// Whether `HF_HUB_OFFLINE` forbids the network.
    pub fn is_offline() -> bool {
        let set = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
        ["1", "true", "yes", "on"].contains(&set.to_lowercase().as_str())
    }

    /// The host, for people.
    pub fn host(&self) -> &str {
        self.endpoint.split("://").nth(1).unwrap_or(&self.endpoint)
    }

    /// The address of a path whose parts are encoded.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// One GET, with a range of bytes where one is given. What the status means for `what` is in the result.
    pub(crate) fn get(
        &self,
        what: &str,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Try> {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((from, to)) = range {
            request = request.header("range", format!("bytes={from}-{}", to - 1));
        }
        let response = request.call().map_err(|error| self.failed(&error))?;
        let token = self.token.is_some();
        let what = what.to_owned();
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            401 if header(&response, "x-error-code") == Some("GatedRepo") => Err(Try::Give(self.gated(path))),
            // The Hub answers 401 for what is not there, unless a token shows who asks.
            401 if header(&response, "x-error-code") == Some("RepoNotFound") => {
                Err(Try::Give(Error::Missing { what, token }))
            }
            401 => Err(Try::Give(Error::Unauthorized { what, token })),
            403 => Err(Try::Give(self.gated(path))),
            404 => Err(Try::Give(Error::Missing { what, token })),
            status @ (408 | 425 | 429 | 500..=599) => {
                Err(Try::Again(Error::Network(format!("{what}: {} answered {status}", self.host()))))
            }
            status => Err(Try::Give(Error::Protocol(format!("{what}: {} answered {status}", self.host())))),
        }
    }

    fn gated(&self, path: &str) -> Error {
        let repo = path.trim_start_matches("api/models/").split('/').take(2).collect::<Vec<_>>().join("/");
        Error::Gated { page: self.url(&repo) }
    }

    /// What a connection's failure is called, and whether another try may help.
    fn failed(&self, error: &ureq::Error) -> Try {
        let what = format!("{}: {error}", self.host());
        match error {
            ureq::Error::TooManyRedirects | ureq::Error::RequireHttpsOnly(_) => {
                Try::Give(Error::Protocol(what))
            }
            ureq::Error::InvalidProxyUrl | ureq::Error::BadUri(_) => Try::Give(Error::Name(what)),
            _ => Try::Again(Error::Network(what)),
        }
    }
}

/// What makes requests: over TLS only where the first address is, with a bound of time on every step.
pub(crate) fn agent(https_only: bool, limits: Limits) -> Result<Agent> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .root_certs(roots()?)
        .build();
    let config = Agent::config_builder()
        .user_agent(concat!("tern/", env!("CARGO_PKG_VERSION")))
        .https_only(https_only)
        .http_status_as_error(false)
        // A file lies on another host, to which the token is not sent.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .max_redirects(5)
        .timeout_connect(Some(limits.stall))
        .timeout_send_request(Some(limits.stall))
        .timeout_recv_response(Some(limits.stall))
        .timeout_recv_body(Some(limits.stall))
        .tls_config(tls)
        .build();
    Ok(config.into())
}

/// The certificates to trust: those of `SSL_CERT_FILE`, or Mozilla's.
fn roots() -> Result<RootCerts> {
    let Some(path) = variable::path("SSL_CERT_FILE") else {
        return Ok(RootCerts::WebPki);
    };
    let pem = fs::read(&path).map_err(Error::io(&path))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        false => Ok(RootCerts::Specific(Arc::new(certificates))),
        true => Err(Error::Name(format!(
            "SSL_CERT_FILE: {}: expected PEM certificates, found none",
            path.display()
        ))),
    }
}

/// A try that brought nothing.
pub(crate) enum Try {
    /// Another may.
    Again(Error),
    /// No other will.
    Give(Error),
}

/// A text as it stands in a URL's path; slashes separate its parts unless they are to be `within` one.
pub(crate) fn encode(text: &str, within: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (byte == b'/' && !within) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A header of an answer, if it is text.
pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
