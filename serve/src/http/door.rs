//! Who may come in: keys, hosts, origins; and what every answer carries.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::http::connection::Peer;
use crate::http::line::Line;
use crate::limits::{HEAD, PATH, REFUSED_PAUSE};
use crate::note::Note;
use crate::page;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a client should know about its answer: a system message that the model does not read, what of a schema is not kept.
const WARNING: HeaderName = HeaderName::from_static("x-tern-warning");

/// Paths that need no key: health, and the static page, which holds no secrets.
fn open(path: &str) -> bool {
    matches!(path, "/health" | "/v1/health") || page::FILES.iter().any(|(file, ..)| *file == path)
}

/// Paths that need no key where the operator says so.
const METRICS: [&str; 2] = ["/metrics", "/v1/metrics"];

/// Around every request.
pub(crate) async fn door(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = match request.headers().get(&REQUEST_ID) {
        Some(id) if id.len() <= 64 && id.as_bytes().iter().all(u8::is_ascii_graphic) => id.clone(),
        _ => HeaderValue::from_str(&app.id("req-")).unwrap_or(HeaderValue::from_static("req")),
    };
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical());
    let note = Arc::new(Note::new(app.budget.hold()));
    let mut line = Line {
        app: app.clone(),
        note: note.clone(),
        start,
        id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
        client: peer.map(|peer| peer.to_string()).unwrap_or_default(),
        key: None,
        method: request.method().as_str().chars().take(20).collect(),
        path: request.uri().path().chars().take(200).collect(),
        status: None,
        bytes: 0,
        told: false,
    };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let (mut response, owner) = match enter(&app, &request) {
        Ok(key) => {
            line.key = key.map(|at| at + 1);
            let salt = if app.options.isolate { key.map_or(0, |at| at as u64 + 1) } else { 0 };
            let owner = owner(key, peer);
            request.extensions_mut().insert(Caller { salt, owner, key, note });
            (next.run(request).await, owner)
        }
        Err(response) => (*response, owner(None, peer)),
    };
    if matches!(response.status().as_u16(), 401 | 413 | 429 | 503) && app.patience.is_lost(owner) {
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
    // Axum's own words for what it could not route.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = Refusal::method(&line.method, &line.path).response_for(&line.path);
        allow.map(|allow| response.headers_mut().insert(header::ALLOW, allow));
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    let warnings: String =
        line.note.warnings().chars().filter(|c| (' '..='~').contains(c)).take(1000).collect();
    if let Some(value) = HeaderValue::from_str(&warnings).ok().filter(|value| !value.is_empty()) {
        headers.insert(WARNING, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|origin| allowed_origin(&app, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let exposed = HeaderValue::from_static("x-request-id, retry-after, x-tern-warning");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    app.metrics.response(response.status().as_u16());
    line.follow(response)
}

fn refused(status: StatusCode, kind: &'static str, what: impl Into<String>) -> Box<Response> {
    let mut refusal = Refusal::bad(what);
    (refusal.status, refusal.kind) = (status, kind);
    Box::new(refusal.into_response())
}

/// The client that a request counts for: its key, or its address. An IPv6 client owns a whole network, so its prefix counts.
fn owner(key: Option<usize>, peer: Option<IpAddr>) -> u64 {
    match (key, peer) {
        (Some(at), _) => at as u64 + 1,
        (None, Some(IpAddr::V4(address))) => u64::from(address.to_bits()),
        (None, Some(IpAddr::V6(address))) => (address.to_bits() >> 64) as u64,
        (None, None) => 0,
    }
}

/// Which key the caller brought, if any is asked for.
fn enter(app: &App, request: &Request) -> Result<Option<usize>, Box<Response>> {
    const REQUEST: &str = "invalid_request_error";
    const PERMISSION: &str = "permission_error";
    let headers = request.headers();
    let path = request.uri().path();
    if request.uri().path_and_query().map_or(0, |whole| whole.as_str().len()) > PATH {
        let what = format!("the path has more than {PATH} bytes");
        return Err(refused(StatusCode::URI_TOO_LONG, REQUEST, what));
    }
    // The HTTP library reads a head in one piece even where it is a little larger than it was told to take.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEAD {
        let what = format!("the head of the request has more than {HEAD} bytes");
        return Err(refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, REQUEST, what));
    }
    framed(request)?;
    let host = headers.get(header::HOST);
    if (app.options.keys.is_empty() || !app.options.hosts.is_empty()) && !known_host(app, host) {
        // A page whose name a stranger's DNS leads here would otherwise count as one of this server's own.
        let what =
            "this server does not go by the host's name of this request: `--allowed-hosts NAME` adds one";
        return Err(refused(StatusCode::FORBIDDEN, PERMISSION, what));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let allowed = allowed_origin(app, origin);
        if request.method() == Method::OPTIONS && allowed {
            return Err(Box::new(preflight(headers)));
        }
        // A page of another site must not use what only this machine can reach.
        if !allowed && !same_host(origin, headers) {
            let what = "pages of other sites are not answered: `--cors ORIGIN` allows one";
            return Err(refused(StatusCode::FORBIDDEN, PERMISSION, what));
        }
    }
    if app.options.keys.is_empty() {
        return Ok(None);
    }
    let open = open(path) || (app.options.metrics_open && METRICS.contains(&path));
    match key_of(headers).and_then(|key| known(&app.options.keys, key)) {
        Some(at) => Ok(Some(at)),
        None if open => Ok(None),
        None => Err(Box::new(Refusal::unauthorized().response_for(path))),
    }
}

/// Refuses what a proxy in front might understand in another way than this server.
fn framed(request: &Request) -> Result<(), Box<Response>> {
    const REQUEST: &str = "invalid_request_error";
    let headers = request.headers();
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let what = format!("expected one `Host`, found {hosts}");
        return Err(refused(StatusCode::BAD_REQUEST, REQUEST, what));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !plain(first)) || codings.next().is_some() {
        let what = "expected `Transfer-Encoding: chunked` or none: bodies cannot be compressed";
        return Err(refused(StatusCode::NOT_IMPLEMENTED, REQUEST, what));
    }
    Ok(())
}

/// The key that a request brings, wherever its dialect puts it.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// Which key it is. All are looked at, each in constant time, so that time tells nothing.
fn known(keys: &[String], key: &[u8]) -> Option<usize> {
    let mut found = None;
    for (at, known) in keys.iter().enumerate() {
        if bool::from(known.as_bytes().ct_eq(key)) {
            found = Some(at);
        }
    }
    found
}

fn allowed_origin(app: &App, origin: &HeaderValue) -> bool {
    app.options.cors.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
}

fn same_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.split_once("://").map(|(_, host)| host) == host
}

/// Whether the server goes by this name: an address or a name that no stranger can have in the DNS, or one of those
/// that it was told.
fn known_host(app: &App, host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let named = |known: &String| known == "*" || known.eq_ignore_ascii_case(name);
    private(name) || app.options.hosts.iter().any(named)
}

/// Addresses, names of one word (a machine or a container of this network) and the domains that the DNS of the world
/// does not have (RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`).
fn private(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let last = name.rsplit_once('.').map_or("", |(_, last)| last);
    name.parse::<std::net::IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || ["localhost", "local", "internal"].contains(&last)
        || name.ends_with(".home.arpa")
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    // The official packages send fields of their own (`x-stainless-*`, `anthropic-*`), more with each release. An
    // origin that is let in may send what it likes: no field means anything here but the key.
    let fields = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let usual = HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.unwrap_or(usual));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_as_bearer_or_by_their_own_header() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let keys = ["one".to_owned(), "two".to_owned()];
        let which = |headers: &HeaderMap| key_of(headers).and_then(|key| known(&keys, key));
        assert_eq!(which(&headers("authorization", "Bearer two")), Some(1));
        assert_eq!(which(&headers("authorization", "bearer  one ")), Some(0));
        assert_eq!(which(&headers("x-api-key", "one")), Some(0));
        for (name, value) in [
            ("authorization", "one"),
            ("authorization", "Basic one"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", "Bearer on"),
            ("authorization", "Bearer onee"),
            ("authorization", "Bearer ONE"),
            ("x-api-key", ""),
            ("cookie", "one"),
        ] {
            assert_eq!(which(&headers(name, value)), None, "{name}: {value}");
        }
    }

    #[test]
    fn names_that_no_stranger_can_have() {
        for good in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "::1",
            "192.168.1.2",
            "a.localhost",
            "tern",
            "nas.local",
            "tern.ai.svc.cluster.local",
            "box.home.arpa",
            "localhost.",
        ] {
            assert!(private(good), "{good}");
        }
        for bad in ["example.com", "localhost.example.com", "127.0.0.1.nip.io", "", ".", "local.example"] {
            assert!(!private(bad), "{bad}");
        }
    }
}
