//! [`FirstBytes`]: what a peer speaks, judged by the first bytes that it sends.

use super::{TlsError, TlsRole};

/// How the requests of HTTP begin that browsers, curl(1) and scanners send, and the preface of HTTP/2 (RFC 9113 section 3.4).
const REQUESTS: [&[u8]; 7] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"PRI "];

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstBytes {
    /// The bytes can begin a record of TLS. Other bytes may be too few yet.
    Tls,
    /// HTTP without TLS.
    Http,
    /// SSL 2, or the ClientHello in its form with which clients before TLS 1.0 began.
    Ssl2,
    /// Something else.
    Other,
}

impl FirstBytes {
    /// Judges `bytes`. `role` is our end.
    pub(super) fn of(bytes: &[u8], role: TlsRole) -> Self {
        let http: &[&[u8]] = match role {
            TlsRole::Client => &[b"HTTP/"],
            TlsRole::Server => &REQUESTS,
        };
        if http.iter().any(|start| bytes.starts_with(start)) {
            return Self::Http;
        }
        if http.iter().any(|start| start.starts_with(bytes)) {
            return Self::Tls;
        }
        match bytes {
            // RFC 8446 section 5.1: the first record is a handshake (0x16) or an alert (0x15), with major version 3.
            [0x15 | 0x16] | [0x15 | 0x16, 3, ..] => Self::Tls,
            // RFC 6101 appendix E.1: a length of two bytes, of which the highest bit is set, and client_hello (1).
            [0x80..=0xff, _, 1, ..] if role == TlsRole::Server => Self::Ssl2,
            [0x80..=0xff] | [0x80..=0xff, _] if role == TlsRole::Server => Self::Tls,
            _ => Self::Other,
        }
    }

    /// Why there is no TLS connection. `None`: there may be one. `role` is our end.
    pub(super) fn error(self, role: TlsRole) -> Option<TlsError> {
        let peer = role.peer();
        Some(TlsError::new(match self {
            Self::Tls => return None,
            Self::Http => format!("the {peer} speaks plain HTTP on this port"),
            Self::Ssl2 => format!("the {peer} speaks SSL 2, which is too old"),
            Self::Other => format!("the {peer} does not speak TLS on this port"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_told_from_tls() {
        use TlsRole::{Client, Server};
        for (role, bytes, words) in [
            (Client, &b"HTTP/1.1 400 Bad Request\r\n"[..], Some("the server speaks plain HTTP")),
            (Client, b"SSH-2.0-dropbear\r\n", Some("the server does not speak TLS")),
            (Client, b"\x16\x02\x00\x00\x01", Some("the server does not speak TLS")),
            (Client, b"\x16\x03\x03\x00\x01", None),
            (Client, b"\x15\x03\x03\x00\x02", None),
            (Client, b"\x16", None),
            (Client, b"HTT", None),
            (Client, b"", None),
            (Server, b"GET / HTTP/1.1\r\n", Some("the client speaks plain HTTP")),
            (Server, b"OPTIONS * HTTP/1.1\r\n", Some("the client speaks plain HTTP")),
            (Server, b"PRI * HTTP/2.0\r\n\r\n", Some("the client speaks plain HTTP")),
            (Server, b"PO", None),
            (Server, b"PORT 1", Some("the client does not speak TLS")),
            (Server, b"HTTP/1.1 200 OK", Some("the client does not speak TLS")),
            (Server, b"SSH-2.0-OpenSSH_9\r\n", Some("the client does not speak TLS")),
            (Server, b"\n", Some("the client does not speak TLS")),
            (Server, b"\x16\x03\x01\x02\x00\x01", None),
            (Server, b"\x80\x2e\x01\x00\x02", Some("SSL 2")),
            (Server, b"\x80\x2e", None),
            (Server, b"\x80\x2e\x02", Some("the client does not speak TLS")),
        ] {
            let found = FirstBytes::of(bytes, role).error(role).map(|error| error.to_string());
            match words {
                Some(words) => {
                    assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{bytes:?}: {found:?}");
                }
                None => assert_eq!(found, None, "{bytes:?}"),
            }
        }
    }
}
