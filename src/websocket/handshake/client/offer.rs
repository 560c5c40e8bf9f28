//! [`Offer`]: what a client asks for in its opening handshake.
//!
//! Values come percent-decoded, and lists come split. Values that could break out of their header line are refused
//! here, so that the code that writes the request need not check them.

use std::fmt;

use crate::websocket::handshake::CompressionOffer;
use crate::websocket::handshake::fields::is_token;

/// What a client asks for.
///
/// `Debug` shows no password and no header value, because logs are shown to others.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Subprotocols, in order of preference.
    pub subprotocols: Vec<Box<str>>,
    /// Headers, name and value. They replace ours of the same name.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// User and password for basic authentication, sent with the first request.
    pub auth: Option<(Box<str>, Box<str>)>,
    /// Replaces our own User-Agent.
    pub user_agent: Option<Box<str>>,
    /// The Origin header.
    pub origin: Option<Box<str>>,
    /// The compression that is offered.
    pub deflate: CompressionOffer,
    /// True if the header block of the response is kept.
    pub keep_head: bool,
}

/// Headers and subprotocols at most: as many fields as a response may have. Each takes more memory than its text.
pub(crate) const MAX_TEXTS: usize = super::super::head::MAX_FIELDS;

/// A value that cannot be part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferError;

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not fit for a request")
    }
}

impl std::error::Error for OfferError {}

/// Headers that belong to the handshake or would make its end ambiguous. So do all that begin with `Sec-WebSocket-`.
const RESERVED: [&str; 4] = ["Upgrade", "Connection", "Content-Length", "Transfer-Encoding"];

impl Offer {
    /// Bytes of memory of its texts.
    pub(crate) fn held(&self) -> usize {
        let headers = self.headers.iter().chain(&self.auth).flat_map(|(name, value)| [name, value]);
        let texts = headers.chain(&self.subprotocols).chain(&self.user_agent).chain(&self.origin);
        // A list that has grown may have room for as many texts again.
        texts.map(|text| text.len() + 2 * size_of::<usize>() + 2 * size_of_val(text)).sum()
    }

    /// Adds a header, `Name:value`. Errors: reserved headers, a second Host, a malformed header, more than [`MAX_TEXTS`].
    pub(crate) fn add_header(&mut self, header: &[u8]) -> Result<(), OfferError> {
        let (name, value) = line(header)?.split_once(':').ok_or(OfferError)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let begins =
            name.get(.."Sec-WebSocket-".len()).is_some_and(|start| start.eq_ignore_ascii_case("Sec-WebSocket-"));
        let is_second_host = is("Host") && self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case("Host"));
        if self.headers.len() >= MAX_TEXTS
            || !is_token(name.as_bytes())
            || begins
            || RESERVED.into_iter().any(is)
            || is_second_host
        {
            return Err(OfferError);
        }
        self.headers.push((name.into(), value.trim_matches([' ', '\t']).into()));
        Ok(())
    }

    /// Sets the credentials, `user:password`. The password may contain colons.
    pub(crate) fn set_auth(&mut self, credentials: &[u8]) -> Result<(), OfferError> {
        let (user, password) = line(credentials)?.split_once(':').ok_or(OfferError)?;
        self.auth = Some((user.into(), password.into()));
        Ok(())
    }

    /// Sets the subprotocols: 1 to [`MAX_TEXTS`] distinct tokens (RFC 6455 section 4.1).
    pub(crate) fn set_subprotocols<'a>(&mut self, list: impl IntoIterator<Item = &'a [u8]>) -> Result<(), OfferError> {
        let mut subprotocols: Vec<Box<str>> = Vec::new();
        for name in list {
            let text = line(name)?;
            if subprotocols.len() >= MAX_TEXTS || !is_token(name) || subprotocols.iter().any(|known| **known == *text) {
                return Err(OfferError);
            }
            subprotocols.push(text.into());
        }
        if subprotocols.is_empty() {
            return Err(OfferError);
        }
        self.subprotocols = subprotocols;
        Ok(())
    }

    /// Sets the User-Agent.
    pub(crate) fn set_user_agent(&mut self, value: &[u8]) -> Result<(), OfferError> {
        self.user_agent = Some(line(value)?.into());
        Ok(())
    }

    /// Sets the Origin.
    pub(crate) fn set_origin(&mut self, value: &[u8]) -> Result<(), OfferError> {
        self.origin = Some(line(value)?.into());
        Ok(())
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Offer")
            .field("subprotocols", &self.subprotocols)
            .field("headers", &names)
            .field("auth", &self.auth.is_some())
            .field("user_agent", &self.user_agent)
            .field("origin", &self.origin)
            .field("deflate", &self.deflate)
            .field("keep_head", &self.keep_head)
            .finish()
    }
}

/// Returns `value` as text that stays on its line: no control characters except the tab (RFC 9110 section 5.5).
fn line(value: &[u8]) -> Result<&str, OfferError> {
    let text = std::str::from_utf8(value).map_err(|_| OfferError)?;
    if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') { Err(OfferError) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused_in_every_value() {
        for bad in ["a\r\nX: y", "a\n", "a\r", "a\0", "\u{1b}[2J", "\u{7f}"] {
            let mut offer = Offer::default();
            assert_eq!(offer.add_header(format!("X:{bad}").as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.add_header(format!("{bad}:x").as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.set_auth(format!("u:{bad}").as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.set_auth(format!("{bad}:p").as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.set_user_agent(bad.as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.set_origin(bad.as_bytes()), Err(OfferError), "{bad:?}");
            assert_eq!(offer.set_subprotocols([bad.as_bytes()]), Err(OfferError), "{bad:?}");
            assert_eq!(offer, Offer::default(), "a refused value leaves the offer unchanged");
        }
        assert_eq!(Offer::default().set_origin(b"\xff"), Err(OfferError), "a value that is not UTF-8");
    }

    #[test]
    fn headers_need_a_name_and_must_not_be_reserved() {
        let mut offer = Offer::default();
        offer.add_header(b"X-Key:\t a:b ").unwrap();
        offer.add_header("X-Empty:".as_bytes()).unwrap();
        offer.add_header("X-Name: Müller".as_bytes()).unwrap();
        offer.add_header(b"Host:h").unwrap();
        assert_eq!(offer.headers[0], ("X-Key".into(), "a:b".into()), "split at the first colon");
        assert_eq!(offer.headers[1], ("X-Empty".into(), "".into()));
        for bad in [
            "X",
            ":x",
            "X Y:z",
            "X :z",
            "Ä:x",
            "upgrade:h2c",
            "CONNECTION:close",
            "Sec-WebSocket-Key:x",
            "sec-websocket-anything:x",
            "Content-Length:5",
            "transfer-encoding:chunked",
            "hOST:x",
        ] {
            assert_eq!(offer.add_header(bad.as_bytes()), Err(OfferError), "{bad}");
        }
        assert_eq!(offer.headers.len(), 4);
    }

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let mut offer = Offer::default();
        for (text, user, password) in [("u:p:q", "u", "p:q"), (":", "", ""), ("u:", "u", "")] {
            offer.set_auth(text.as_bytes()).unwrap();
            assert_eq!(offer.auth, Some((user.into(), password.into())));
        }
        assert_eq!(offer.set_auth(b"u"), Err(OfferError));
    }

    #[test]
    fn rfc_6455_section_4_1_subprotocols_are_distinct_tokens() {
        let mut offer = Offer::default();
        offer.set_subprotocols([&b"b"[..], b"a", b"A"]).unwrap();
        assert_eq!(offer.subprotocols, ["b".into(), "a".into(), "A".into()]);
        for bad in [&["a", "a"][..], &[""], &["a", ""], &["a b"], &["a/b"], &["ä"], &[]] {
            assert_eq!(offer.set_subprotocols(bad.iter().map(|name| name.as_bytes())), Err(OfferError), "{bad:?}");
        }
        assert_eq!(offer.subprotocols.len(), 3);
    }

    #[test]
    fn debug_shows_no_secrets() {
        let mut offer = Offer::default();
        offer.set_auth(b"hidden1:hidden2").unwrap();
        offer.add_header(b"X-Key:hidden3").unwrap();
        let shown = format!("{offer:?}");
        assert!(shown.contains("X-Key") && !shown.contains("hidden"), "{shown}");
    }
}
