//! Who may ask for what.
//!
//! A request that changes something must carry the admin token, wherever it comes from: any user of the machine reaches a
//! loopback port, and so does a web page in a browser on it. A page can send requests there, though not read the answers;
//! the token's header it can set only after a preflight, which is never granted.
//!
//! On loopback reading needs no token. A page whose own name resolves to 127.0.0.1 (DNS rebinding) could read too, so the
//! Host must be a loopback address or `localhost`. On an address that other machines reach everything needs the token but
//! the two questions of probes, which are then answered without reasons.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::token::Token;

/// Probes ask for these paths, and need no token.
pub(super) const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Rules and secret of one admin interface.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// The admin token; `None` before it is known: then nobody has it.
    pub(super) token: Option<Arc<Token>>,
    /// The interface is bound to loopback.
    pub(super) local: bool,
}

/// Whether the asker may know why.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayKnow(pub(super) bool);

/// Why a request is not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Refusal {
    /// DNS rebinding, or a proxy that does not set the Host.
    ForeignHost(String),
    /// It lacks the token, or has a wrong one.
    Token,
}

/// Lets a request through or answers 401 or 403.
pub(super) async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.judge(&request) {
        Ok(may_know) => {
            request.extensions_mut().insert(may_know);
            next.run(request).await
        }
        Err(Refusal::ForeignHost(host)) => ApiError::foreign_host(&host).into_response(),
        Err(Refusal::Token) => {
            let message = "this needs the admin token (Authorization: Bearer TOKEN; --admin-token-file FILE), which stands in \
                           the file that the server's admin_token_file names, or in admin-token in its data directory";
            let mut answer = ApiError::new(StatusCode::UNAUTHORIZED, message).into_response();
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            answer
        }
    }
}

impl Guard {
    fn judge(&self, request: &Request) -> Result<MayKnow, Refusal> {
        if let Some(host) = foreign_host(self.local, request) {
            return Err(Refusal::ForeignHost(host));
        }
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        let trusted = self.has_token(request);
        if trusted || (reads && self.local) {
            Ok(MayKnow(true))
        } else if reads && PROBES.contains(&request.uri().path()) {
            Ok(MayKnow(false))
        } else {
            Err(Refusal::Token)
        }
    }

    /// Whether the request carries it.
    pub(super) fn has_token(&self, request: &Request) -> bool {
        let Some(right) = &self.token else { return false };
        let mut given = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = given.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && right.is(token.trim_ascii())
    }
}

/// The Host of a request to an interface on loopback, where it names another machine.
pub(super) fn foreign_host(local: bool, request: &Request) -> Option<String> {
    // HTTP/1.0 probes send no Host; browsers always do.
    let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut hosts = hosts.chain(request.uri().authority().map(|authority| authority.as_str()));
    hosts.find(|host| local && !is_local(host)).map(str::to_owned)
}

/// Whether a Host header names loopback, with any port: `ssh -L` changes it.
fn is_local(host: &str) -> bool {
    let Some(name) = host.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn only_loopback_is_local() {
        for host in ["127.0.0.1", "127.0.0.1:7118", "localhost:9", "LOCALHOST", "[::1]", "[::1]:7118", "127.9.9.9:1"] {
            assert!(is_local(host), "{host}");
        }
        let foreign = [
            "",
            "example.com",
            "127.0.0.1.example.com",
            "localhost.evil:7118",
            "10.0.0.1",
            "::1x",
            "0.0.0.0:7118",
            "[::]",
        ];
        for host in foreign {
            assert!(!is_local(host), "{host}");
        }
    }

    /// The answer's first digit of meaning: 200 with or without reasons, 401, 403.
    fn judged(local: bool, method: &str, path: &str, host: &str, authorization: &[&str]) -> &'static str {
        let guard = Guard { token: Token::parse(TOKEN.as_bytes()).map(Arc::new), local };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        match guard.judge(&request.body(Body::empty()).unwrap()) {
            Ok(MayKnow(true)) => "yes",
            Ok(MayKnow(false)) => "bare",
            Err(Refusal::Token) => "401",
            Err(Refusal::ForeignHost(_)) => "403",
        }
    }

    #[test]
    fn every_change_needs_the_token_and_so_does_reading_from_elsewhere() {
        let right = "Bearer 0123456789abcdef";
        for path in ["/healthz", "/metrics", "/api/status", "/api/dead/1/0", "/api/tail", "/none"] {
            let probe = PROBES.contains(&path);
            for method in ["GET", "HEAD"] {
                assert_eq!(judged(true, method, path, "127.0.0.1", &[]), "yes");
                assert_eq!(judged(true, method, path, "evil.example", &[right]), "403");
                assert_eq!(judged(false, method, path, "any.example", &[]), if probe { "bare" } else { "401" });
                assert_eq!(judged(false, method, path, "any.example", &[right]), "yes");
            }
            for method in ["POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO"] {
                for local in [true, false] {
                    assert_eq!(judged(local, method, path, "localhost", &[]), "401", "{method} {path}");
                    assert_eq!(judged(local, method, path, "localhost", &[right]), "yes", "{method} {path}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_the_token_in_its_place_is_none() {
        let ask = |authorization: &[&str]| judged(true, "DELETE", "/api/dead/1/0", "localhost", authorization);
        for wrong in ["", "Bearer", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef", "Bearer 0123456789abcdeF"]
        {
            assert_eq!(ask(&[wrong]), "401", "{wrong}");
        }
        assert_eq!(ask(&["bearer  0123456789abcdef"]), "yes");
        assert_eq!(ask(&["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]), "401", "twice is not once");
    }
}
