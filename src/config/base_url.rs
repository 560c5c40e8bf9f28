//! The parser of Luup's base URL.

use std::net::{IpAddr, Ipv6Addr};

/// Checks an `http` or `https` URL (RFC 3986 section 3) without query and fragment, and removes the slashes at its end. The
/// scheme comes out in lower case. `None`: the text is not such a URL.
pub(super) fn parse_base_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim_end_matches('/').split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_valid = matches!(scheme.as_str(), "http" | "https")
        && authority.bytes().all(|byte| is_path_byte(byte) || matches!(byte, b'[' | b']'))
        && path.bytes().all(is_path_byte)
        && is_host_and_port(host);
    is_valid.then(|| format!("{scheme}://{rest}"))
}

/// The host of a URL that [`parse_base_url`] has returned, if it is an address, and the port.
pub(super) fn host_and_port(url: &str) -> (Option<IpAddr>, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let default = if scheme == "https" { 443 } else { 80 };
    (host.parse().ok(), port.and_then(|port| port.parse().ok()).unwrap_or(default))
}

/// Checks `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_host_and_port(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address.parse::<Ipv6Addr>().is_ok(), None),
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), Some(port.strip_prefix(':').unwrap_or(""))),
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            (is_name && !host.is_empty(), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && port.is_none_or(is_port)
}

/// The bytes of a path: `pchar` and the slash (RFC 3986 section 3.3).
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_base_urls() {
        for (text, url) in [
            ("http://127.0.0.1:3480", "http://127.0.0.1:3480"),
            ("http://vera.local", "http://vera.local"),
            ("HTTPS://Vera//", "https://Vera"),
            ("https://[::1]/", "https://[::1]"),
            ("https://[fe80::1]:443/luup", "https://[fe80::1]:443/luup"),
            ("http://me:pass@vera:80/a/b%20c", "http://me:pass@vera:80/a/b%20c"),
        ] {
            assert_eq!(parse_base_url(text).as_deref(), Some(url), "{text}");
            let uri: ureq::http::Uri = url.parse().expect(url);
            assert!(uri.host().is_some(), "the sender's client rejects {url}");
        }
    }

    #[test]
    fn a_base_url_has_a_host_and_a_port() {
        for (url, host, port) in [
            ("http://127.0.0.1:3480", Some("127.0.0.1"), 3480),
            ("http://vera.local", None, 80),
            ("https://Vera", None, 443),
            ("https://[::1]", Some("::1"), 443),
            ("https://[fe80::1]:8443/luup", Some("fe80::1"), 8443),
            ("http://me:pass@10.0.0.1:81/a@b:5", Some("10.0.0.1"), 81),
        ] {
            assert_eq!(host_and_port(url), (host.map(|host| host.parse().unwrap()), port), "{url}");
        }
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "http://",
            "127.0.0.1",
            "vera:3480",
            "ftp://vera",
            "http:///path",
            "http://:80",
            "http://vera:",
            "http://vera:x",
            "http://vera:+80",
            "http://vera:99999",
            "http://::1",
            "http://[::1",
            "http://[::1]80",
            "http://[vera]",
            "http://ve ra",
            "http://vera/a b",
            "http://vera?query",
            "http://vera/path?query",
            "http://vera#fragment",
            "http://v\u{e4}ra",
            "http://vera/\u{e4}",
        ] {
            assert_eq!(parse_base_url(text), None, "{text}");
        }
    }
}
