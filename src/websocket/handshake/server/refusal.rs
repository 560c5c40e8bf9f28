//! [`Refusal`]: an HTTP response other than 101.

use std::fmt;

use crate::websocket::handshake::fields::{printable, printable_up_to};

/// Characters of a reason at most.
const MAX_REASON: usize = 200;

/// A response other than 101. Displays as its status, for example `404 Not Found`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// 300 to 599; 0: no response, because the client does not speak HTTP.
    code: u16,
    /// The reason phrase.
    phrase: Box<str>,
    /// A sentence for people, which is the body; may be empty.
    reason: Box<str>,
    /// What the request may be instead, if its method is refused.
    methods: &'static str,
    /// False: the request was a HEAD, whose response has no body.
    has_body: bool,
}

impl Refusal {
    /// A refusal with the standard phrase of `code`. A `code` outside 300 to 599 becomes 500. `reason`: a sentence for people,
    /// of 200 characters at most; may be empty.
    pub(crate) fn new(code: u16, reason: &str) -> Self {
        let code = if (300..600).contains(&code) { code } else { 500 };
        let reason = printable_up_to(MAX_REASON, reason.as_bytes());
        Self { code, phrase: phrase(code).into(), reason: reason.into(), methods: "GET", has_body: true }
    }

    /// A refusal with a plugin's phrase, or the standard one if `phrase` is empty.
    pub(crate) fn with_phrase(code: u16, phrase: &[u8]) -> Self {
        let refusal = Self::new(code, "");
        let phrase = printable(phrase);
        if phrase.is_empty() { refusal } else { Self { phrase: phrase.into(), ..refusal } }
    }

    /// The refusal of a method, at a port that may have pages.
    pub(super) fn of_method(has_pages: bool) -> Self {
        if has_pages {
            Self { methods: "GET, HEAD", ..Self::new(405, "This port takes only GET and HEAD.") }
        } else {
            Self::new(405, "A WebSocket request is a GET.")
        }
    }

    /// A refusal without a response.
    pub(super) fn silent() -> Self {
        Self { code: 0, phrase: "no HTTP request".into(), ..Self::new(400, "") }
    }

    /// The refusal of a HEAD. RFC 9110 section 9.3.2: its response MUST NOT have a body.
    pub(crate) fn without_body(self) -> Self {
        Self { has_body: false, ..self }
    }

    /// The status code; 0 if there is no response.
    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    /// The sentence for people; may be empty.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the bytes of the response.
    pub(crate) fn response(&self) -> Vec<u8> {
        if self.code == 0 {
            return Vec::new();
        }
        let extra = match self.code {
            401 => "WWW-Authenticate: Basic realm=\"sockproxyd\", charset=\"UTF-8\"\r\n",
            // RFC 9110 section 15.5.6: a 405 MUST have Allow.
            405 => &format!("Allow: {}\r\n", self.methods),
            // RFC 9110 section 15.5.22: a 426 MUST have Upgrade. RFC 6455 section 4.4: the supported versions.
            426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let connection = if self.code == 426 { "close, Upgrade" } else { "close" };
        let body = if self.reason.is_empty() { format!("{self}\n") } else { format!("{}\n", self.reason) };
        format!(
            "HTTP/1.1 {} {}\r\n{extra}Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{}",
            self.code,
            self.phrase,
            body.len(),
            if self.has_body { &body } else { "" },
        )
        .into_bytes()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == 0 { f.write_str(&self.phrase) } else { write!(f, "{} {}", self.code, self.phrase) }
    }
}

/// Returns the phrase of a code (RFC 9110 section 15).
fn phrase(code: u16) -> &'static str {
    match code {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        code if code < 500 => "Refused",
        _ => "Failed",
    }
}
