//! Who may come in: keys, hosts, origins; and what every answer carries.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::limits::{HEAD, PATH};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What anybody may see: whether the server lives, and the page, which knows nothing by itself.
const OPEN: [&str; 5] = ["/health", "/v1/health", "/", "/page.js", "/page.css"];

/// Around every request.
pub(crate) async fn door(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = match request.headers().get(&REQUEST_ID) {
        Some(id) if id.len() <= 64 && id.as_bytes().iter().all(u8::is_ascii_graphic) => id.clone(),
        _ => HeaderValue::from_str(&app.id("req-")).unwrap_or(HeaderValue::from_static("req")),
    };
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(200).collect();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match enter(&app, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(response) => *response,
    };
    // Axum's own words for what it could not route.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = Refusal::method(method.as_str(), &path).into_response();
        allow.map(|allow| response.headers_mut().insert(header::ALLOW, allow));
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|origin| allowed_origin(&app, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    let status = response.status().as_u16();
    app.metrics.response(status);
    (app.options.log)(&serde_json::json!({
        "time": crate::ready::now(),
        "id": String::from_utf8_lossy(id.as_bytes()),
        "method": method.as_str(),
        "path": path,
        "status": status,
        "ms": (start.elapsed().as_secs_f64() * 1e4).round() / 10.0,
    }));
    response
}

fn enter(app: &App, request: &Request) -> Result<Caller, Box<Response>> {
    let refuse = |refusal: Refusal| Box::new(refusal.into_response());
    let headers = request.headers();
    let path = request.uri().path();
    if request.uri().path_and_query().map_or(0, |whole| whole.as_str().len()) > PATH {
        let mut refusal = Refusal::bad(format!("the path has more than {PATH} bytes"));
        refusal.status = StatusCode::URI_TOO_LONG;
        return Err(refuse(refusal));
    }
    // The HTTP library reads a head in one piece even where it is a little larger than it was told to take.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEAD {
        let mut refusal = Refusal::bad(format!("the head of the request has more than {HEAD} bytes"));
        refusal.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refuse(refusal));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let allowed = allowed_origin(app, origin);
        if request.method() == Method::OPTIONS && allowed {
            return Err(Box::new(preflight()));
        }
        // A page of another site must not use what only this machine can reach.
        if !allowed && !same_host(origin, headers) {
            let mut refusal =
                Refusal::bad("pages of other sites are not answered: `--cors ORIGIN` allows one");
            (refusal.status, refusal.kind) = (StatusCode::FORBIDDEN, "permission_error");
            return Err(refuse(refusal));
        }
    }
    if app.options.keys.is_empty() {
        // Without a key the host must be this machine's: a name that a stranger's DNS leads here is not.
        if app.options.loopback && !local_host(headers) {
            let mut refusal = Refusal::bad("expected `localhost` or an address as the host");
            (refusal.status, refusal.kind) = (StatusCode::FORBIDDEN, "permission_error");
            return Err(refuse(refusal));
        }
        return Ok(Caller { realm: 0 });
    }
    match key_of(headers).and_then(|key| known(&app.options.keys, key)) {
        Some(at) => Ok(Caller { realm: if app.options.isolate { at as u64 + 1 } else { 0 } }),
        None if OPEN.contains(&path) => Ok(Caller { realm: 0 }),
        None => Err(refuse(Refusal::unauthorized())),
    }
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

fn local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id, anthropic-version"),
    );
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
    fn hosts_of_this_machine() {
        let host = |host: &'static str| {
            local_host(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]))
        };
        for good in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "192.168.1.2", "a.localhost:1"]
        {
            assert!(host(good), "{good}");
        }
        for bad in ["example.com", "example.com:8080", "localhost.example.com", "127.0.0.1.nip.io", ""] {
            assert!(!host(bad), "{bad}");
        }
    }
}
