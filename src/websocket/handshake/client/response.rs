//! [`ExpectedResponse`]: checks the server's response as RFC 6455 section 4.1 asks of a client.

use httparse::Response;

use super::lenient::{LOCATION, UPGRADE_FIELDS};
use crate::websocket::Deflate;
use crate::websocket::handshake::fields::{Fields, Single, printable};
use crate::websocket::handshake::{CompressionOffer, ErrorCode, HandshakeError, accept, extensions};

/// What a valid response means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponseOutcome {
    /// An interim response; another one follows.
    Interim,
    /// The handshake is done.
    Upgraded {
        /// The chosen subprotocol.
        subprotocol: Option<Box<str>>,
        /// The negotiated compression.
        deflate: Option<Deflate>,
    },
    /// The server redirects to this Location.
    Redirect(Box<str>),
    /// The server answers 400 to a request that offers compression, perhaps because of that.
    OfferRefused(HandshakeError),
}

/// What the response must match.
#[derive(Clone, Debug)]
pub(super) struct ExpectedResponse {
    /// The expected Sec-WebSocket-Accept.
    pub accept: String,
    /// The offered subprotocols.
    pub subprotocols: Vec<Box<str>>,
    /// The offered compression.
    pub deflate: CompressionOffer,
}

impl ExpectedResponse {
    /// Bytes of memory of its subprotocols.
    pub(super) fn held(&self) -> usize {
        self.subprotocols.iter().map(|name| name.len() + 2 * size_of::<usize>() + size_of_val(name)).sum()
    }

    /// What a response to a request with `key` (base64) must match.
    pub(super) fn new(key: &str, subprotocols: &[Box<str>], deflate: CompressionOffer) -> Self {
        Self { accept: accept::accept_value(key), subprotocols: subprotocols.to_vec(), deflate }
    }

    /// Checks a response. `malformed`: the fields of the handshake that it has in a form that cannot be read.
    pub(super) fn check(
        &self,
        response: &Response<'_, '_>,
        malformed: &[&'static str],
    ) -> Result<ResponseOutcome, HandshakeError> {
        let fields = Fields(response.headers);
        let refuse_malformed = |names: &[&str]| match malformed.iter().find(|name| names.contains(name)) {
            Some(name) => Err(HandshakeError::new(ErrorCode::ParseErrorHeaders, format!("malformed {name}"))),
            None => Ok(()),
        };
        match response.code.unwrap_or_default() {
            101 if response.version == Some(1) => {
                refuse_malformed(&UPGRADE_FIELDS)?;
                self.check_upgrade(fields)
            }
            // RFC 6455 section 4.2.2: the status line of the response is HTTP/1.1.
            101 => Err(protocol_error("101 in HTTP/1.0")),
            100..=199 => Ok(ResponseOutcome::Interim),
            301 | 302 | 303 | 307 | 308 => {
                refuse_malformed(&[LOCATION])?;
                match fields.single(LOCATION) {
                    Single::One(location) => match std::str::from_utf8(location) {
                        Ok(location) => Ok(ResponseOutcome::Redirect(location.into())),
                        Err(_) => Err(HandshakeError::new(ErrorCode::InvalidUrl, "in the redirect")),
                    },
                    _ => Err(bad_status(response)),
                }
            }
            400 if self.deflate != CompressionOffer::None => Ok(ResponseOutcome::OfferRefused(bad_status(response))),
            _ => Err(bad_status(response)),
        }
    }

    fn check_upgrade(&self, fields: Fields<'_>) -> Result<ResponseOutcome, HandshakeError> {
        // RFC 6455 section 4.1, items 2 to 6 of the checks of a response: on each of these faults a client MUST fail the
        // connection. Item 2: Upgrade is missing or is not `websocket`.
        match fields.single("Upgrade") {
            Single::One(upgrade) if upgrade.eq_ignore_ascii_case(b"websocket") => {}
            Single::None => return Err(protocol_error("no Upgrade")),
            _ => return Err(protocol_error("Upgrade to something else")),
        }
        // Item 3: Connection is missing or does not contain `Upgrade`.
        if !fields.list_has("Connection", "Upgrade") {
            return Err(protocol_error("no Connection: Upgrade"));
        }
        // Item 4: Sec-WebSocket-Accept is missing or does not match the key.
        match fields.single("Sec-WebSocket-Accept") {
            Single::One(accept) if accept == self.accept.as_bytes() => {}
            Single::None => return Err(protocol_error("no Sec-WebSocket-Accept")),
            _ => return Err(protocol_error("wrong Sec-WebSocket-Accept")),
        }
        // Item 6: the subprotocol was not offered.
        let subprotocol = match fields.single("Sec-WebSocket-Protocol") {
            // Some servers that choose none say so by an empty value.
            Single::None | Single::One(b"") => None,
            Single::One(chosen) => {
                let offered = self.subprotocols.iter().find(|offered| offered.as_bytes() == chosen);
                let offered =
                    offered.ok_or_else(|| protocol_error(format!("subprotocol not offered: {}", printable(chosen))))?;
                Some(offered.clone())
            }
            Single::Many => return Err(protocol_error("more than one subprotocol")),
        };
        // Item 5: an extension was not offered.
        let deflate =
            extensions::read_response(fields, self.deflate).map_err(|error| protocol_error(error.to_string()))?;
        Ok(ResponseOutcome::Upgraded { subprotocol, deflate })
    }
}

fn protocol_error(reason: impl Into<Box<str>>) -> HandshakeError {
    HandshakeError::new(ErrorCode::WebsocketProtocolError, reason)
}

/// The error for a status other than 101, for example `BAD_HTTP_STATUS 403 Forbidden`.
fn bad_status(response: &Response<'_, '_>) -> HandshakeError {
    let phrase = printable(response.reason.unwrap_or_default().as_bytes());
    let status = format!("{} {phrase}", response.code.unwrap_or_default());
    HandshakeError::new(ErrorCode::BadHttpStatus, status.trim_end())
}
