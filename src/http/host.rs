//! The `Host` field of a request (RFC 9112, section 3.2). hyper does not check it.

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use super::problem::{Code, Problem};

/// Checks that a request has exactly one `Host`, in a valid form. If a request has two, a proxy and
/// this service could use different ones, and a client could bypass the access rules of the proxy.
///
/// # Errors
/// 400 `malformed_request`
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
    let refused = |detail: &str| Err(Problem::new(Code::MalformedRequest, detail));
    match hosts[..] {
        // HTTP/1.0 does not require Host.
        [] if request.version() < Version::HTTP_11 => Ok(()),
        [] => refused("the request has no Host header; HTTP/1.1 needs one"),
        [host] if is_valid(host.as_bytes()) => Ok(()),
        [_] => refused("the Host header is not a host with an optional port"),
        _ => refused("the request has more than one Host header; send one"),
    }
}

/// Whether a field is a host that is not empty, optionally followed by a colon and a port. The port
/// may be empty.
fn is_valid(field: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(field) else {
        return false;
    };
    let host = authority.host();
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    let rest = authority.as_str().strip_prefix(host);
    let has_valid_port =
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    !field.contains(&b'@') && !matches!(host, "" | "[]") && has_valid_port
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn a_request_has_exactly_one_valid_host() {
        let check = |version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            super::check(&request.body(Body::empty()).unwrap())
        };
        for host in [
            "cameo",
            "cameo:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
            "a.b-c.example",
            "cameo:",
            "cameo:65535",
        ] {
            assert!(check(Version::HTTP_11, &[host]).is_ok(), "{host}");
        }
        for hosts in [
            &[][..],
            &[""],
            &["a b"],
            &["a/b"],
            &["me@cameo"],
            &[":80"],
            &[":"],
            &["[]:80"],
            &["cameo:abc"],
            &["cameo:+80"],
            &["cameo:65536"],
            &["cameo:99999"],
            &["cameo:80:80"],
            &["[::1]80"],
            &["a", "b"],
            &["a", "a"],
        ] {
            let refused = check(Version::HTTP_11, hosts).unwrap_err();
            assert_eq!(refused.code, Code::MalformedRequest, "{hosts:?}");
        }
        assert!(check(Version::HTTP_10, &[]).is_ok());
        assert!(check(Version::HTTP_10, &["a", "b"]).is_err());
    }
}
