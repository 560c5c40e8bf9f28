//! WebSocket, RFC 6455, with permessage-deflate, RFC 7692. Sans-IO: bytes, instants and random bytes in; bytes, events
//! and the next deadline out. It knows no socket, no clock and nothing of who uses it.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`handshake`] | the opening handshake, both sides, and URLs |
//! | [`Connection`] | an open connection: messages, control frames, the closing handshake |
//! | `keepalive` | pings, and whose a pong is |
//! | `receiver` | messages out of frames: fragments, UTF-8, limits |
//! | `sender` | frames out of messages, and what waits to be written |
//! | `decoder`, `frame`, `mask`, `utf8` | frames in pieces, headers, keys, texts |
//! | [`close`] | the close frame and its codes |
//! | [`deflate`] | what was agreed on compression, and the compression |
//!
//! A connection begins behind the blank line of the opening handshake. Messages are never assembled here: a piece is
//! handed on as soon as it is there, in the memory it came in (or was inflated to), so that an idle connection costs a
//! few hundred bytes and a busy one no more than what waits to be written.

pub mod close;
mod connection;
mod decoder;
pub mod deflate;
mod frame;
pub mod handshake;
mod keepalive;
mod mask;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod utf8;

use std::fmt;
use std::time::Duration;

pub use connection::Connection;
pub use deflate::Deflate;

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub const CONTROL_LIMIT: usize = 125;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We asked for the connection: we mask, the peer must not.
    Client,
    /// We were asked: the peer masks, we must not.
    Server,
}

/// What a data message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// Who sees and answers control frames (the option CTRL). A close frame is always shown, and always answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Pings are answered; pings and unsolicited pongs are not shown.
    #[default]
    Auto,
    /// Pings are answered; pings and pongs are shown.
    Show,
    /// Pings are not answered; pings and pongs are shown.
    Hand,
}

/// Unpredictable bytes (RFC 6455 section 10.3), from the shell.
pub trait Entropy {
    /// The key of the next frame.
    fn mask(&mut self) -> [u8; 4];
}

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which end we are.
    pub role: Role,
    /// False: a client that does not mask (the option MASK; its server must allow it). A server never masks.
    pub mask: bool,
    /// Who sees and answers control frames.
    pub control: Control,
    /// The longest message from the peer in bytes, after inflation. Beyond: [`Event::Failed`] with 1009.
    pub max_message: u64,
    /// Compression, as negotiated; `None`: none.
    pub deflate: Option<Deflate>,
    /// A ping is sent after that much silence of the peer; still silent as long again, it is lost ([`Lost::Silent`]).
    pub ping_interval: Option<Duration>,
}

/// What came from the peer. A message is `Start`, any number of `Data`, `End`; control frames come between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message begins.
    Start(Kind),
    /// A piece of it, unmasked and inflated. Text is checked, but a piece may end inside a character.
    Data(&'a [u8]),
    /// The message is complete.
    End,
    /// A ping, with [`Control::Show`] or [`Control::Hand`].
    Ping(&'a [u8]),
    /// A pong. True: it answers a ping of [`Connection::send_ping`], and is always shown. False: unsolicited, shown with
    /// [`Control::Show`] or [`Control::Hand`]. Answers to the pings of `ping_interval` are never shown.
    Pong(&'a [u8], bool),
    /// The peer's close frame. If we had not closed, our answer has been queued. The last event.
    Closed {
        /// The code, 1005 where it gave none.
        code: u16,
        /// Why, at most 123 bytes.
        reason: &'a str,
    },
    /// The peer broke the protocol or a limit. Our close frame has been queued. The last event.
    Failed(Failure),
}

/// How the peer broke the protocol or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that the peer is sent: 1002, 1007 or 1009.
    pub code: u16,
    /// What was wrong, for people; at most 123 bytes.
    pub why: &'static str,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.why, self.code)
    }
}

/// Nothing can be sent any more: a close frame has been sent or received, or the peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing;

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closing")
    }
}

impl std::error::Error for Closing {}

/// Why a ping or pong was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing can be sent any more.
    Closing,
    /// The payload is longer than [`CONTROL_LIMIT`].
    TooLong,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => Closing.fmt(f),
            Self::TooLong => write!(f, "a control frame holds at most {CONTROL_LIMIT} bytes"),
        }
    }
}

impl std::error::Error for Refused {}

/// What a deadline brought: the transport is to be closed as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The ping of `ping_interval` was followed by more silence: 1006 to the plugin.
    Silent,
    /// Our close frame was not answered in time: 1006 to the plugin.
    Unanswered,
    /// The peer's end is known from an event, but our close frame could not be written, or the server did not close its
    /// transport, in time. The plugin knows all.
    Lingering,
}
