//! [`Url`]: WebSocket URLs (RFC 6455 section 3), and the references to them in redirects (RFC 3986 section 5).
//!
//! Nothing is percent-decoded: the server gets the URL as the plugin wrote it. A user name is refused, because URLs are
//! logged; AUTH replaces it. RFC 6455 section 3: fragments MUST NOT be used, so they are refused too.

use std::fmt;
use std::net::Ipv6Addr;

use super::{ErrorCode, HandshakeError};

/// The parts of a `ws` or `wss` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// True for `wss`: over TLS.
    pub secure: bool,
    /// A name or a literal address, without brackets. An IPv6 address may have a zone (`fe80::1%eth0`).
    pub host: Box<str>,
    /// 1 to 65535.
    pub port: u16,
    /// Path and query, as written. The path is at least `/`.
    pub resource: Box<str>,
}

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrlError {
    /// It is not a URL, or not one of a WebSocket.
    Invalid,
    /// It has another scheme.
    Schema,
}

impl UrlError {
    /// The code for `ERR CONN`.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::Invalid => ErrorCode::InvalidUrl,
            Self::Schema => ErrorCode::InvalidSchema,
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code().fmt(f)
    }
}

impl std::error::Error for UrlError {}

impl From<UrlError> for HandshakeError {
    fn from(error: UrlError) -> Self {
        Self::new(error.code(), "")
    }
}

impl Url {
    /// Parses a URL as a plugin writes it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, UrlError> {
        let text = visible(text)?;
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::Invalid)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(UrlError::Schema),
        };
        if rest.contains('#') {
            return Err(UrlError::Invalid);
        }
        Self::parse_hierarchical(secure, rest)
    }

    /// Returns the target of a redirect from this URL. `location` may be a URL, also with `http` for `ws` and `https`
    /// for `wss`, or a reference relative to this one. Its fragment is dropped: RFC 9110 section 10.2.2 allows one in
    /// Location.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = visible(location.trim_matches([' ', '\t']).as_bytes())?;
        let location = location.split('#').next().unwrap_or_default();
        if let Some((scheme, rest)) = split_scheme(location) {
            return Self::parse_hierarchical(is_secure_scheme(scheme).ok_or(UrlError::Schema)?, rest);
        }
        if location.starts_with("//") {
            return Self::parse_hierarchical(self.secure, location);
        }
        let (base, _) = split_query(&self.resource);
        let (path, query) = split_query(location);
        let resource = if location.is_empty() {
            self.resource.clone().into_string()
        } else if path.is_empty() {
            [base, query].concat()
        } else if path.starts_with('/') {
            without_dots(path) + query
        } else {
            let directory = base.rfind('/').map_or("/", |slash| &base[..=slash]);
            without_dots(&[directory, path].concat()) + query
        };
        Ok(Self { resource: resource.into(), ..self.clone() })
    }

    /// The default port of the scheme.
    pub(crate) fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }

    /// True if headers and credentials for this host may be sent to `other`: same name, port and scheme; or same name,
    /// and a change from `ws` to `wss` on their default ports.
    pub(crate) fn same_host(&self, other: &Self) -> bool {
        let is_upgrade = other.secure && !self.secure && self.port == 80 && other.port == 443;
        let is_same = self.port == other.port && self.secure == other.secure;
        self.host.eq_ignore_ascii_case(&other.host) && (is_same || is_upgrade)
    }

    /// Returns the value of the Host header (RFC 6455 section 4.1). It has no zone, which is meaningful on this machine
    /// only.
    pub(crate) fn host_header(&self) -> String {
        let host = self.host.split('%').next().unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if self.port == self.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Parses `//host[:port][/path][?query]`.
    fn parse_hierarchical(secure: bool, text: &str) -> Result<Self, UrlError> {
        let text = text.strip_prefix("//").ok_or(UrlError::Invalid)?;
        let (authority, resource) = text.split_at(text.find(['/', '?']).unwrap_or(text.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, port) = inner.split_once(']').ok_or(UrlError::Invalid)?;
                (v6_host(host)?, port)
            }
            None => {
                let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
                if host.is_empty() || !host.bytes().all(is_unreserved) {
                    return Err(UrlError::Invalid);
                }
                (host.into(), port)
            }
        };
        let mut url = Self { secure, host, port: 0, resource: resource.into() };
        url.port = match port.strip_prefix(':') {
            None if port.is_empty() => url.default_port(),
            Some("") => url.default_port(),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|&port| port != 0).ok_or(UrlError::Invalid)?
            }
            _ => return Err(UrlError::Invalid),
        };
        if !resource.starts_with('/') {
            url.resource = ["/", resource].concat().into();
        }
        Ok(url)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "wss://" } else { "ws://" })?;
        match self.host.split_once('%') {
            Some((address, zone)) => write!(f, "[{address}%25{zone}]")?,
            None if self.host.contains(':') => write!(f, "[{}]", self.host)?,
            None => f.write_str(&self.host)?,
        }
        if self.port != self.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.resource)
    }
}

/// Returns `text` if all characters are visible ASCII, as RFC 3986 requires. Others would break a request line.
fn visible(text: &[u8]) -> Result<&str, UrlError> {
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err(UrlError::Invalid);
    }
    std::str::from_utf8(text).map_err(|_| UrlError::Invalid)
}

/// True if all characters are visible ASCII.
pub(super) fn is_visible(text: &str) -> bool {
    visible(text.as_bytes()).is_ok()
}

/// Parses a URL with the scheme `ws`, `wss`, `http` or `https` and no fragment.
pub(super) fn parse_any_scheme(text: &[u8]) -> Option<Url> {
    let text = visible(text).ok()?;
    let (scheme, rest) = split_scheme(text)?;
    let secure = is_secure_scheme(scheme)?;
    if rest.contains('#') { None } else { Url::parse_hierarchical(secure, rest).ok() }
}

/// Returns whether a scheme of WebSocket or HTTP is over TLS; `None` for other schemes.
fn is_secure_scheme(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => Some(false),
        "wss" | "https" => Some(true),
        _ => None,
    }
}

/// Splits off `scheme:` if `text` begins with one (RFC 3986 section 3.1).
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let begins_well = scheme.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    (begins_well && scheme.bytes().all(is_known)).then_some((scheme, rest))
}

/// Splits a resource into its path and its query with the `?`.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

/// True for the unreserved characters (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Parses the text between brackets. A zone may be written as in RFC 6874 (`%25eth0`) or plain.
fn v6_host(text: &str) -> Result<Box<str>, UrlError> {
    let (address, zone) = match text.split_once('%') {
        None => (text, None),
        Some((address, zone)) => {
            (address, Some(zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone)))
        }
    };
    address.parse::<Ipv6Addr>().map_err(|_| UrlError::Invalid)?;
    match zone {
        None => Ok(address.into()),
        Some(zone) if !zone.is_empty() && zone.bytes().all(is_unreserved) => Ok([address, "%", zone].concat().into()),
        Some(_) => Err(UrlError::Invalid),
    }
}

/// Removes `.` and `..` from a path that begins with `/` (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut pieces = path.split('/').skip(1).peekable();
    while let Some(piece) = pieces.next() {
        let is_last = pieces.peek().is_none();
        match piece {
            "." | ".." => {
                if piece == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push("");
                }
            }
            piece => segments.push(piece),
        }
    }
    ["/", &segments.join("/")].concat()
}

#[cfg(test)]
mod tests;
