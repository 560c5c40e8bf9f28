//! WebSocket: RFC 6455, with permessage-deflate (RFC 7692). Client and server, sans-IO: bytes, the time and random bytes
//! in; bytes, events and the next deadline out.
//!
//! May depend on `buffer_pool` and `trace`. Knows no sockets, no clock and no sessions.
//!
//! | file | holds |
//! | --- | --- |
//! | [`handshake`] | the opening handshake of both sides, and URLs |
//! | [`Connection`] | an open connection: messages, control frames, the closing handshake. Start here |
//! | `keepalive` | pings, and which ping a pong answers |
//! | `receiver` | decodes messages from frames: fragments, UTF-8, limits |
//! | `sender` | encodes frames, and holds those that wait to be written |
//! | `decoder`, `frame`, `mask`, `utf8` | partial frames, headers, masking, UTF-8 in pieces |
//! | [`close`] | the close frame and its status codes |
//! | [`deflate`] | the negotiated parameters of compression, and inflation |
//! | [`deflater`] | compression of messages that are sent |
//!
//! A [`Connection`] begins after the blank line of the opening handshake. Messages are never assembled: each piece is
//! passed on when it arrives, in the memory that it was read into or inflated to. So an idle connection costs a few
//! hundred bytes, and a busy one no more than the bytes that wait to be written.

pub(crate) mod close;
mod connection;
mod decoder;
pub(crate) mod deflate;
pub(crate) mod deflater;
mod frame;
pub(crate) mod handshake;
mod keepalive;
mod mask;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod utf8;

use std::fmt;
use std::time::Duration;

pub(crate) use connection::Connection;
pub(crate) use deflate::Deflate;
pub(crate) use sender::WriteFrame;

/// Unmasks bytes from the start of a payload on.
#[cfg(feature = "bench")]
pub fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    mask::Mask::new(key).apply(bytes);
}

/// Payload of a control frame in bytes at most (RFC 6455 section 5.5).
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The client: it masks its frames, and the peer must not.
    Client,
    /// The server: the peer masks its frames, and the server must not.
    Server,
}

/// The type of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8, unless [`Leniency::utf8`] is set.
    Text,
    /// Any bytes.
    Binary,
}

/// How control frames are handled (the option CTRL). A close frame is always reported and always answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Control {
    /// Pings are answered. Pings and unsolicited pongs are not reported.
    #[default]
    Auto,
    /// Pings are answered. Pings and pongs are reported.
    Show,
    /// Pings are not answered. Pings and pongs are reported.
    Hand,
}

/// A source of unpredictable bytes (RFC 6455 section 10.3).
pub(crate) trait Entropy {
    /// Returns a new masking key.
    fn mask(&mut self) -> [u8; 4];
}

/// What a peer may get wrong (the option LENI). By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leniency {
    /// Text need not be UTF-8, nor the reason of a close frame: both are passed on as they are.
    pub utf8: bool,
    /// A server may mask its frames.
    pub mask: bool,
}

/// The settings of a connection.
#[derive(Clone, Debug)]
pub(crate) struct WebSocketSettings {
    /// Which end this is.
    pub role: Role,
    /// False: a client that does not mask (the option MASK); its server must allow that. A server never masks.
    pub mask: bool,
    /// How control frames are handled.
    pub control: Control,
    /// Longest message from the peer in bytes, after inflation. A longer one causes [`Event::Failed`] with 1009.
    pub max_message: u64,
    /// What the peer may get wrong.
    pub leniency: Leniency,
    /// The negotiated compression; `None`: none.
    pub deflate: Option<Deflate>,
    /// A ping is sent if the peer has been silent for this time. If it stays silent for as long again, the connection is
    /// lost ([`ConnectionLost::NoPong`]). `None`: no pings.
    pub ping_interval: Option<Duration>,
}

/// An event from the peer. A message is `Start`, any number of `Data`, `End`; control frames may come between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A message begins.
    Start {
        /// Its type.
        kind: Kind,
        /// Its length in bytes, at most `max_message`; `None` if the peer does not announce it: the message is compressed or
        /// has several frames. The bytes may still turn out not to be UTF-8.
        length: Option<u64>,
    },
    /// A piece of the message, unmasked and inflated. Text has been checked, but a piece may end within a character.
    Data(&'a [u8]),
    /// The message is complete.
    End,
    /// A ping, with [`Control::Show`] or [`Control::Hand`].
    Ping(&'a [u8]),
    /// A pong. True: it answers a ping of [`Connection::send_ping`], and is always reported. False: it is unsolicited,
    /// and reported with [`Control::Show`] or [`Control::Hand`]. Answers to pings of `ping_interval` are not reported.
    Pong(&'a [u8], bool),
    /// The peer's close frame. If no close frame has been sent, the answer has been queued. The last event.
    Closed {
        /// The status code; 1005 if the frame has none.
        code: u16,
        /// The reason, at most 123 bytes. UTF-8, unless [`Leniency::utf8`] is set.
        reason: &'a [u8],
    },
    /// The peer's close frame has a code that none may have, or a reason that is not UTF-8. A close frame has been queued that
    /// says so. The last event.
    InvalidClose {
        /// What is wrong.
        error: ProtocolError,
        /// The code of the peer's frame.
        code: u16,
        /// The reason of the peer's frame, at most 123 bytes.
        reason: &'a [u8],
    },
    /// The peer violated the protocol or a limit. A close frame has been queued. The last event.
    Failed(ProtocolError),
}

/// Numbers of complete messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageCounts {
    /// Received from the peer.
    pub received: u64,
    /// Sent to the peer.
    pub sent: u64,
}

/// A violation of the protocol or of a limit by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError {
    /// The status code for the close frame: 1002, 1007 or 1009.
    pub code: u16,
    /// The reason for the close frame, at most 123 bytes.
    pub reason: &'static str,
}

/// A violation of the protocol as such, whose close code is 1002.
fn protocol_error<T>(reason: &'static str) -> Result<T, ProtocolError> {
    Err(ProtocolError { code: close::PROTOCOL_ERROR, reason })
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl std::error::Error for ProtocolError {}

/// Nothing can be sent: a close frame has been sent or received, or the peer violated the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClosingError;

impl fmt::Display for ClosingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closing")
    }
}

impl std::error::Error for ClosingError {}

/// Why a ping or pong was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlFrameError {
    /// As [`ClosingError`].
    Closing,
    /// The payload is longer than [`MAX_CONTROL_PAYLOAD`].
    TooLong,
}

impl fmt::Display for ControlFrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => ClosingError.fmt(f),
            Self::TooLong => write!(f, "a control frame holds at most {MAX_CONTROL_PAYLOAD} bytes"),
        }
    }
}

impl std::error::Error for ControlFrameError {}

/// Which deadline has passed. The transport is to be closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionLost {
    /// The peer stayed silent after a ping of `ping_interval`. The plugin sees 1006.
    NoPong,
    /// The peer did not answer the close frame. The plugin sees 1006.
    NoCloseFrame,
    /// The end is known from an event, but the close frame could not be written in time, or the server did not close the
    /// transport in time. The plugin has seen the end already.
    NotClosed,
}
