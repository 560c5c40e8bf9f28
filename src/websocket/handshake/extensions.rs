//! Negotiation of extensions (RFC 6455 section 9.1). The only supported one is permessage-deflate (RFC 7692 section
//! 7.1).

use std::fmt;

use super::fields::{Fields, is_token, printable};
use crate::websocket::Deflate;

/// The name of the header field.
pub(super) const HEADER: &str = "Sec-WebSocket-Extensions";
/// The window that the peer is asked to keep to, in bits. Inflation needs this window and 11 KiB.
const OFFERED_WINDOW_BITS: u8 = 12;
/// The window if a parameter is absent (RFC 7692 sections 7.1.2.1 and 7.1.2.2).
const DEFAULT_WINDOW_BITS: u8 = 15;

/// What a client's request offers of permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CompressionOffer {
    /// Nothing.
    #[default]
    None,
    /// The extension without parameters, for servers that refuse a request with parameters.
    Plain,
    /// Small windows, and nothing kept between messages, to save memory. A server that cannot keep to a small window must
    /// decline, and then nothing is compressed.
    SmallWindows,
}

impl CompressionOffer {
    /// The value of the header field; `None` if nothing is offered.
    pub(super) fn header(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Plain => Some("permessage-deflate".into()),
            Self::SmallWindows => Some(format!(
                "permessage-deflate; {CLIENT_WINDOW}; {SERVER_WINDOW}={OFFERED_WINDOW_BITS}; \
                 {SERVER_NO_TAKEOVER}; {CLIENT_NO_TAKEOVER}"
            )),
        }
    }

    /// The next offer to a server that refuses this one with 400 (RFC 7692 section 5.1 lets a client fall back). `None` if
    /// nothing was offered.
    pub(crate) fn plainer(self) -> Option<Self> {
        match self {
            Self::SmallWindows => Some(Self::Plain),
            Self::Plain => Some(Self::None),
            Self::None => None,
        }
    }
}

/// Why extensions are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExtensionError {
    /// The field violates the syntax of RFC 6455 section 9.1.
    Malformed,
    /// The extension of this name was not offered, or appears twice.
    Unexpected(String),
    /// The parameter of this name is unknown, was not offered, is repeated, or has an invalid value.
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

/// Parses the server's choice from `offer`. RFC 6455 section 4.1, item 5: a client MUST fail the connection on an
/// extension that it did not offer.
pub(super) fn read_response(fields: Fields<'_>, offer: CompressionOffer) -> Result<Option<Deflate>, ExtensionError> {
    let mut negotiated = None;
    for extension in parse(fields)? {
        if offer == CompressionOffer::None || extension.name != "permessage-deflate" || negotiated.is_some() {
            return Err(ExtensionError::Unexpected(printable(extension.name.as_bytes())));
        }
        let parameters = DeflateParameters::read(&extension.parameters, true)?;
        // RFC 7692 section 7.1.2.2: the response to an offer without this parameter MUST NOT include it.
        if offer == CompressionOffer::Plain && parameters.client_window.is_some() {
            return Err(ExtensionError::Parameter(CLIENT_WINDOW.into()));
        }
        let server_window = match parameters.server_window {
            Some(Some(bits)) if bits > OFFERED_WINDOW_BITS && offer == CompressionOffer::SmallWindows => {
                return Err(ExtensionError::Parameter(SERVER_WINDOW.into()));
            }
            // Servers that do not know the parameter accept an offer with it all the same.
            window => window.flatten().unwrap_or(DEFAULT_WINDOW_BITS),
        };
        negotiated = Some(Deflate {
            peer_window_bits: server_window,
            peer_no_context_takeover: parameters.server_no_takeover,
            own_window_bits: parameters.client_window.flatten().unwrap_or(DEFAULT_WINDOW_BITS),
            own_no_context_takeover: parameters.client_no_takeover,
        });
    }
    Ok(negotiated)
}

/// A client's offer that the server can accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeflateOffer {
    /// The server's largest window in bits, if the client limits it.
    server_window: Option<u8>,
    /// The client's largest window in bits, if the client lets the server limit it.
    client_window: Option<u8>,
}

impl DeflateOffer {
    /// Returns the server's response, which asks for the least memory that the client allows.
    pub(crate) fn response(self) -> String {
        let mut response = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_window {
            response.extend([format!("; {SERVER_WINDOW}={bits}")]);
        }
        if let Some(bits) = self.client_window {
            response.extend([format!("; {CLIENT_WINDOW}={bits}")]);
        }
        response
    }
}

impl From<DeflateOffer> for Deflate {
    /// The parameters that the server has accepted.
    fn from(offer: DeflateOffer) -> Self {
        Self {
            peer_window_bits: offer.client_window.unwrap_or(DEFAULT_WINDOW_BITS),
            peer_no_context_takeover: true,
            own_window_bits: offer.server_window.unwrap_or(DEFAULT_WINDOW_BITS),
            own_no_context_takeover: true,
        }
    }
}

/// Parses a client's offers and returns the first of permessage-deflate that can be accepted (RFC 7692 section 7.1).
/// Unknown extensions and offers with unknown parameters are skipped; a violation of the syntax is an error.
pub(super) fn read_offer(fields: Fields<'_>) -> Result<Option<DeflateOffer>, ExtensionError> {
    let extensions = parse(fields)?;
    let mut offers = extensions.iter().filter(|extension| extension.name == "permessage-deflate");
    Ok(offers.find_map(|extension| {
        let parameters = DeflateParameters::read(&extension.parameters, false).ok()?;
        let client_window = parameters.client_window.map(|bits| bits.unwrap_or(DEFAULT_WINDOW_BITS));
        Some(DeflateOffer {
            server_window: parameters.server_window.flatten(),
            client_window: client_window.map(|bits| bits.min(OFFERED_WINDOW_BITS)),
        })
    }))
}

const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";

/// One extension of a field.
struct Extension<'h> {
    name: &'h str,
    /// Names, and values if there is a `=`.
    parameters: Vec<(&'h str, Option<String>)>,
}

/// The parameters of permessage-deflate.
#[derive(Default)]
struct DeflateParameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    /// `Some(None)`: present without a value.
    server_window: Option<Option<u8>>,
    client_window: Option<Option<u8>>,
}

impl DeflateParameters {
    /// Parses parameters. In a response, both windows need a value; in an offer, the client's window may have none (RFC
    /// 7692 section 7.1.2.2).
    fn read(parameter_list: &[(&str, Option<String>)], is_response: bool) -> Result<Self, ExtensionError> {
        let mut parameters = Self::default();
        for (name, value) in parameter_list {
            let bad = || ExtensionError::Parameter(printable(name.as_bytes()));
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
                        None if is_response => return Err(bad()),
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

/// Parses a window size: 8 to 15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits| bits.to_string() == value)
}

/// Parses all extensions of the header, in their order.
fn parse(fields: Fields<'_>) -> Result<Vec<Extension<'_>>, ExtensionError> {
    let mut extensions = Vec::new();
    for value in fields.all(HEADER) {
        let mut cursor = Cursor(std::str::from_utf8(value).map_err(|_| ExtensionError::Malformed)?);
        while !cursor.at_end() {
            // Empty list members are ignored.
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

/// The unparsed rest. Blanks between tokens are ignored.
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

    /// Parses a token, plain or quoted. In quotes a backslash escapes any character. The unquoted value must be a token
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
