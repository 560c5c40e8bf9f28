//! Compression of messages: permessage-deflate, RFC 7692.

pub mod inflate;

/// What the two ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The peer's window in bits, 8 to 15: how far back its messages may refer, and so what inflating them costs. Says
    /// the response nothing, it is 15.
    pub peer_window_bits: u8,
    /// The peer's messages refer to nothing before their own beginning, so that nothing is kept between them.
    pub peer_no_context_takeover: bool,
    /// How far back our messages may refer in bits, 8 to 15.
    pub own_window_bits: u8,
    /// Our messages must refer to nothing before their own beginning. (They never do.)
    pub own_no_context_takeover: bool,
}
