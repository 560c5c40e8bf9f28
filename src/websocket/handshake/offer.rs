//! What a client asks for in its opening handshake, and what it may ask for.
//!
//! Values come as a plugin meant them: percent-decoded, lists split. What could break out of its header line is refused
//! here, once, so that whoever writes a request need not look again.

use std::fmt;

/// What a client asks for.
///
/// `Debug` shows no password and no header's value: logs are read by others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Subprotocols, the dearest first.
    pub subprotocols: Vec<Box<str>>,
    /// Headers, name and value; they replace ours of that name.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// User and password for basic authentication, sent at once.
    pub auth: Option<(Box<str>, Box<str>)>,
    /// Stands in for our own User-Agent.
    pub user_agent: Option<Box<str>>,
    /// The Origin header.
    pub origin: Option<Box<str>>,
    /// Compression is offered.
    pub deflate: bool,
    /// The header block of the answer is kept.
    pub keep_head: bool,
}

/// A value that cannot be part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferError;

impl Offer {
    /// Adds a header, `Name:value`.
    pub fn add_header(&mut self, header: &[u8]) -> Result<(), OfferError> {
        let header = line(header)?;
        let (name, value) = header.split_once(':').ok_or(OfferError)?;
        self.headers.push((name.into(), value.into()));
        Ok(())
    }

    /// Sets the credentials, `user:password`; a password may hold colons.
    pub fn set_auth(&mut self, credentials: &[u8]) -> Result<(), OfferError> {
        let (user, password) = line(credentials)?.split_once(':').ok_or(OfferError)?;
        self.auth = Some((user.into(), password.into()));
        Ok(())
    }

    /// Sets the subprotocols.
    pub fn set_subprotocols<'a>(&mut self, list: impl IntoIterator<Item = &'a [u8]>) -> Result<(), OfferError> {
        self.subprotocols = list.into_iter().map(|name| Ok(line(name)?.into())).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Sets the User-Agent.
    pub fn set_user_agent(&mut self, value: &[u8]) -> Result<(), OfferError> {
        self.user_agent = Some(line(value)?.into());
        Ok(())
    }

    /// Sets the Origin.
    pub fn set_origin(&mut self, value: &[u8]) -> Result<(), OfferError> {
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

/// `value` as text that stays on its line.
fn line(value: &[u8]) -> Result<&str, OfferError> {
    let text = std::str::from_utf8(value).map_err(|_| OfferError)?;
    if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') { Err(OfferError) } else { Ok(text) }
}
