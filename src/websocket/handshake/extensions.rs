//! Negotiation of extensions (RFC 6455 section 9.1). There is one: permessage-deflate (RFC 7692 section 7.1).

use std::fmt;

use super::fields::{Fields, is_token, quoted};
use crate::websocket::Deflate;

/// The header.
pub const HEADER: &str = "Sec-WebSocket-Extensions";
/// The window that the peer is asked to keep to, in bits: what inflating costs is this and 11 KiB.
const OFFERED_WINDOW_BITS: u8 = 12;
/// What nothing said means.
const LARGEST_WINDOW_BITS: u8 = 15;

/// What a client offers. Small windows and nothing kept between messages, since the box is small; a server that cannot
/// keep to a small window declines, and nothing is compressed.
pub fn client_offer() -> String {
    format!(
        "permessage-deflate; client_max_window_bits; server_max_window_bits={OFFERED_WINDOW_BITS}; \
         server_no_context_takeover; client_no_context_takeover"
    )
}

/// Why extensions are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionError {
    /// Not of the form that RFC 6455 gives it.
    Malformed,
    /// Not offered, or said twice: its name.
    Unexpected(String),
    /// A parameter that is unknown, was not offered, is repeated, or has a bad value: its name.
    Parameter(String),
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "malformed {HEADER}"),
            Self::Unexpected(name) => write!(f, "extension not offered: {name}"),
            Self::Parameter(name) => write!(f, "bad extension parameter: {name}"),
        }
    }
}

/// Reads what a server has taken of [`client_offer`]; with `offered` false it may have taken nothing.
pub fn read_answer(fields: Fields<'_>, offered: bool) -> Result<Option<Deflate>, ExtensionError> {
    let mut agreed = None;
    for extension in parse(fields)? {
        if !offered || extension.name != "permessage-deflate" || agreed.is_some() {
            return Err(ExtensionError::Unexpected(quoted(extension.name.as_bytes())));
        }
        let parameters = Parameters::read(&extension.parameters, true)?;
        let server_window = match parameters.server_window {
            Some(Some(bits)) if bits > OFFERED_WINDOW_BITS => {
                return Err(ExtensionError::Parameter(SERVER_WINDOW.into()));
            }
            // Servers that have never heard of the parameter take an offer with it all the same.
            window => window.flatten().unwrap_or(LARGEST_WINDOW_BITS),
        };
        agreed = Some(Deflate {
            peer_window_bits: server_window,
            peer_no_context_takeover: parameters.server_no_takeover,
            own_window_bits: parameters.client_window.flatten().unwrap_or(LARGEST_WINDOW_BITS),
            own_no_context_takeover: parameters.client_no_takeover,
        });
    }
    Ok(agreed)
}

/// What a client offers and a server can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// How large the client lets the server's window be, where it says.
    server_window: Option<u8>,
    /// How large the client's window may be said to be at most, where it lets the server say.
    client_window: Option<u8>,
}

impl Proposal {
    /// What a server answers: the smallest memory that the client lets it have.
    pub fn answer(self) -> String {
        let mut answer = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_window {
            answer.extend([format!("; {SERVER_WINDOW}={bits}")]);
        }
        if let Some(bits) = self.client_window {
            answer.extend([format!("; {CLIENT_WINDOW}={bits}")]);
        }
        answer
    }
}

impl From<Proposal> for Deflate {
    /// What the server has agreed to.
    fn from(proposal: Proposal) -> Self {
        Self {
            peer_window_bits: proposal.client_window.unwrap_or(LARGEST_WINDOW_BITS),
            peer_no_context_takeover: true,
            own_window_bits: proposal.server_window.unwrap_or(LARGEST_WINDOW_BITS),
            own_no_context_takeover: true,
        }
    }
}

/// Reads what a client offers: the first offer of permessage-deflate that can be taken (RFC 7692 section 7.1), or none.
/// What is not understood is passed over; what has no form is an error.
pub fn read_offer(fields: Fields<'_>) -> Result<Option<Proposal>, ExtensionError> {
    let extensions = parse(fields)?;
    let mut offers = extensions.iter().filter(|extension| extension.name == "permessage-deflate");
    Ok(offers.find_map(|extension| {
        let parameters = Parameters::read(&extension.parameters, false).ok()?;
        let client_window = parameters.client_window.map(|bits| bits.unwrap_or(LARGEST_WINDOW_BITS));
        Some(Proposal {
            server_window: parameters.server_window.flatten(),
            client_window: client_window.map(|bits| bits.min(OFFERED_WINDOW_BITS)),
        })
    }))
}

const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";

/// One extension as it is said.
struct Extension<'h> {
    name: &'h str,
    /// Names, and values where there is a `=`.
    parameters: Vec<(&'h str, Option<String>)>,
}

/// The parameters of permessage-deflate.
#[derive(Default)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    /// `Some(None)`: said without a value.
    server_window: Option<Option<u8>>,
    client_window: Option<Option<u8>>,
}

impl Parameters {
    /// Reads them. In an answer each window needs its value; in an offer, the client's does not.
    fn read(said: &[(&str, Option<String>)], is_answer: bool) -> Result<Self, ExtensionError> {
        let mut parameters = Self::default();
        for (name, value) in said {
            let bad = || ExtensionError::Parameter(quoted(name.as_bytes()));
            let value = value.as_deref();
            let is_new = match *name {
                SERVER_NO_TAKEOVER if value.is_none() => !std::mem::replace(&mut parameters.server_no_takeover, true),
                CLIENT_NO_TAKEOVER if value.is_none() => !std::mem::replace(&mut parameters.client_no_takeover, true),
                SERVER_WINDOW => {
                    let bits = value.and_then(window_bits).ok_or_else(bad)?;
                    parameters.server_window.replace(Some(bits)).is_none()
                }
                CLIENT_WINDOW => {
                    let bits = match value {
                        None if is_answer => return Err(bad()),
                        None => None,
                        Some(value) => Some(window_bits(value).ok_or_else(bad)?),
                    };
                    parameters.client_window.replace(bits).is_none()
                }
                _ => false,
            };
            if !is_new {
                return Err(bad());
            }
        }
        Ok(parameters)
    }
}

/// 8 to 15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits| bits.to_string() == value)
}

/// Reads all extensions that are said, in order.
fn parse(fields: Fields<'_>) -> Result<Vec<Extension<'_>>, ExtensionError> {
    let mut extensions = Vec::new();
    for value in fields.all(HEADER) {
        let mut cursor = Cursor(std::str::from_utf8(value).map_err(|_| ExtensionError::Malformed)?);
        while !cursor.at_end() {
            // Empty members count for nothing.
            if cursor.skip(',') {
                continue;
            }
            let mut extension = Extension { name: cursor.token()?, parameters: Vec::new() };
            while cursor.skip(';') {
                let name = cursor.token()?;
                let value = if cursor.skip('=') { Some(cursor.value()?) } else { None };
                extension.parameters.push((name, value));
            }
            extensions.push(extension);
            if !cursor.at_end() && !cursor.skip(',') {
                return Err(ExtensionError::Malformed);
            }
        }
    }
    Ok(extensions)
}

/// What is still to be read. Blanks between words mean nothing.
struct Cursor<'h>(&'h str);

impl<'h> Cursor<'h> {
    fn at_end(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        self.0.is_empty()
    }

    fn skip(&mut self, mark: char) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'h str, ExtensionError> {
        let text = self.0.trim_start_matches([' ', '\t']);
        let end = text.bytes().position(|byte| !is_token(&[byte])).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(ExtensionError::Malformed) } else { Ok(token) }
    }

    /// A token, bare or quoted; inside quotes a backslash makes any character itself. Unquoted it must still be a token
    /// (RFC 6455 section 9.1).
    fn value(&mut self) -> Result<String, ExtensionError> {
        if !self.skip('"') {
            return self.token().map(Into::into);
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return if is_token(value.as_bytes()) { Ok(value) } else { Err(ExtensionError::Malformed) };
                }
                '\\' => value.extend(characters.next().map(|(_, character)| character)),
                character => value.push(character),
            }
        }
        Err(ExtensionError::Malformed)
    }
}

#[cfg(test)]
mod tests;
