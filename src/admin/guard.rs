//! Refuses what a browser could be made to send.
//!
//! A web page may send requests to 127.0.0.1, though not read the answers: so every request that changes something must
//! carry a header that pages cannot set without a preflight, which is never granted. And a page's own name may resolve to
//! 127.0.0.1 (DNS rebinding), which makes the answers readable: so the Host must be a loopback address or `localhost`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// The header that requests which change something must carry, with any value.
pub const REQUEST_HEADER: &str = "duragram-request";

/// Lets a request through or answers 403.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(message) => ApiError::new(StatusCode::FORBIDDEN, message).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(request: &Request) -> Option<String> {
    // HTTP/1.0 probes send no Host; browsers always do.
    let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let foreign =
        hosts.chain(request.uri().authority().map(|authority| authority.as_str())).find(|host| !is_local(host));
    if let Some(host) = foreign {
        return Some(format!(
            "Host {host:?} is not this machine's loopback; a proxy must set it to 127.0.0.1 (protection from DNS rebinding)"
        ));
    }
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    (!reads && !request.headers().contains_key(REQUEST_HEADER)).then(|| {
        format!("requests that change something need the header {REQUEST_HEADER}: 1 (protection from web pages)")
    })
}

/// Whether a Host header names loopback, with any port: `ssh -L` changes it.
fn is_local(host: &str) -> bool {
    let Some(name) = host.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
