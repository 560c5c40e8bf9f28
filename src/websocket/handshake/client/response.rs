//! The server's answer, judged as RFC 6455 section 4.1 asks of a client.

use httparse::Response;

use crate::websocket::Deflate;
use crate::websocket::handshake::fields::{Fields, Single, quoted};
use crate::websocket::handshake::{Failure, Word, accept, extensions};

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another one follows.
    Interim,
    /// The connection speaks WebSocket now.
    Upgraded {
        /// The subprotocol that was chosen.
        subprotocol: Option<Box<str>>,
        /// The compression that was agreed on.
        deflate: Option<Deflate>,
    },
    /// The server says to go elsewhere.
    Redirect(Box<str>),
}

/// What the request asked for, as far as the answer must fit.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The one good Sec-WebSocket-Accept.
    pub accept: String,
    /// Subprotocols offered.
    pub subprotocols: Vec<Box<str>>,
    /// Compression was offered.
    pub deflate: bool,
}

impl Asked {
    /// What is asked for with `key`, in base64.
    pub fn new(key: &str, subprotocols: &[Box<str>], deflate: bool) -> Self {
        Self { accept: accept::answer(key), subprotocols: subprotocols.to_vec(), deflate }
    }

    /// Judges an answer.
    pub fn judge(&self, response: &Response<'_, '_>) -> Result<Verdict, Failure> {
        let fields = Fields(response.headers);
        match response.code.unwrap_or_default() {
            101 if response.version == Some(1) => self.judge_upgrade(fields),
            101 => Err(wrong("101 in HTTP/1.0")),
            100..=199 => Ok(Verdict::Interim),
            301 | 302 | 303 | 307 | 308 => match fields.single("Location") {
                Single::One(location) => match std::str::from_utf8(location) {
                    Ok(location) => Ok(Verdict::Redirect(location.into())),
                    Err(_) => Err(Failure::new(Word::InvalidUrl, "in the redirect")),
                },
                _ => Err(bad_status(response)),
            },
            _ => Err(bad_status(response)),
        }
    }

    fn judge_upgrade(&self, fields: Fields<'_>) -> Result<Verdict, Failure> {
        match fields.single("Upgrade") {
            Single::One(upgrade) if upgrade.eq_ignore_ascii_case(b"websocket") => {}
            Single::None => return Err(wrong("no Upgrade")),
            _ => return Err(wrong("Upgrade to something else")),
        }
        if !fields.list_has("Connection", "Upgrade") {
            return Err(wrong("no Connection: Upgrade"));
        }
        match fields.single("Sec-WebSocket-Accept") {
            Single::One(accept) if accept == self.accept.as_bytes() => {}
            Single::None => return Err(wrong("no Sec-WebSocket-Accept")),
            _ => return Err(wrong("wrong Sec-WebSocket-Accept")),
        }
        let subprotocol = match fields.single("Sec-WebSocket-Protocol") {
            Single::None => None,
            Single::One(chosen) => {
                let offered = self.subprotocols.iter().find(|offered| offered.as_bytes() == chosen);
                let offered = offered.ok_or_else(|| wrong(format!("subprotocol not offered: {}", quoted(chosen))))?;
                Some(offered.clone())
            }
            Single::Many => return Err(wrong("more than one subprotocol")),
        };
        let deflate = extensions::read_answer(fields, self.deflate).map_err(|error| wrong(error.to_string()))?;
        Ok(Verdict::Upgraded { subprotocol, deflate })
    }
}

fn wrong(reason: impl Into<Box<str>>) -> Failure {
    Failure::new(Word::WebsocketProtocolError, reason)
}

/// `403 Forbidden`.
fn bad_status(response: &Response<'_, '_>) -> Failure {
    let phrase = quoted(response.reason.unwrap_or_default().as_bytes());
    let status = format!("{} {phrase}", response.code.unwrap_or_default());
    Failure::new(Word::BadHttpStatus, status.trim_end())
}
