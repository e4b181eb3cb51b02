//! Who is served: whoever has an API key, where the router asks for them; else programs on this machine, and no web page
//! that a browser on it happens to show.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::keys::Keyring;

/// Longest name that is repeated in an error.
const SHOWN: usize = 80;

/// Middleware around everything below `/v1`: who asks stands in the request from then on, where keys are asked for.
pub async fn admit(
    State(keys): State<Option<Arc<Keyring>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = match &keys {
        None => check(peer, request.uri(), request.headers()).map(|()| None),
        // A page of others cannot know a key: where it comes from does not matter.
        Some(keys) => keys.authenticate(request.headers()).map(Some),
    };
    match admitted {
        Ok(caller) => {
            let Some(caller) = caller else { return next.run(request).await };
            request.extensions_mut().insert(caller.clone());
            let mut response = next.run(request).await;
            // For the access log.
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Whether a request is served.
///
/// # Errors
/// 401 for another machine; 403 for a web page of another origin, or a name that resolves to this machine
/// but is not its own (DNS rebinding).
pub fn check(peer: SocketAddr, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(ApiError::refused(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "this router asks for no API keys and so serves only requests from its own machine: start it with --api-keys, run a router of your own there, or reach this one through an SSH tunnel",
        ));
    }
    let host = uri
        .authority()
        .map(|a| a.as_str())
        .or_else(|| headers.get(header::HOST).and_then(|h| h.to_str().ok()));
    if let Some(host) = host.filter(|h| !is_local_name(host_name(h))) {
        return Err(ApiError::refused(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            format!("the name {:?} is not served: use localhost or 127.0.0.1", shown(host)),
        ));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let local = origin.split_once("://").is_some_and(|(_, host)| is_local_name(host_name(host)));
    if local {
        return Ok(());
    }
    Err(ApiError::refused(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        format!(
            "web pages of {:?} may not use this router: call it from a program, or from a page that localhost serves",
            shown(origin)
        ),
    ))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// The name in `name:port` or `[address]:port`.
fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_local_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn verdict(peer: &str, host: &str, origin: Option<&str>) -> Result<(), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(peer.parse().unwrap(), &Uri::from_static("/v1/models"), &headers)
            .map_err(|e| e.status.as_u16())
    }

    #[test]
    fn only_this_machine_is_served() {
        assert_eq!(verdict("127.0.0.1:5", "127.0.0.1:8080", None), Ok(()));
        assert_eq!(verdict("[::1]:5", "[::1]:8080", None), Ok(()));
        assert_eq!(verdict("[::ffff:127.0.0.1]:5", "localhost", None), Ok(()));
        for peer in ["10.0.0.7:5", "192.168.1.2:5", "[2001:db8::1]:5", "[::ffff:10.0.0.1]:5"] {
            assert_eq!(verdict(peer, "localhost:8080", None), Err(401), "{peer}");
        }
    }

    #[test]
    fn web_pages_of_others_are_refused() {
        let here = "127.0.0.1:5";
        assert_eq!(verdict(here, "localhost:1", Some("http://localhost:3000")), Ok(()));
        assert_eq!(verdict(here, "localhost:1", Some("https://evil.example")), Err(403));
        assert_eq!(verdict(here, "localhost:1", Some("http://localhost.evil.example")), Err(403));
        assert_eq!(verdict(here, "localhost:1", Some("null")), Err(403));
        assert_eq!(verdict(here, "evil.example:8080", None), Err(403));
        assert_eq!(verdict(here, "127.0.0.1.evil.example", None), Err(403));
    }
}
