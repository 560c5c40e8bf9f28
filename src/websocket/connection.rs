//! An open connection: messages, control frames, liveness and the closing handshake.

use std::time::Instant;

use super::{Closing, Entropy, Event, Kind, Lost, Refused, Settings};

/// A connection, from the blank line of the opening handshake to the end of the transport.
///
/// Contract: after any input, command or timeout, write what [`Connection::poll_transmit`] gives, then ask
/// [`Connection::is_over`] and [`Connection::poll_timeout`].
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    last_frame: Instant,
}

impl Connection {
    /// A connection whose opening handshake is done. Bytes that came behind its blank line are the first input.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self { settings, last_frame: now }
    }

    /// Takes a prefix of `input` and gives at most one event; call with the rest until it answers `(0, None)`, and with
    /// nothing more where that is all: a piece to inflate may give several. What was taken has been changed in place.
    /// After [`Event::Closed`] and [`Event::Failed`] input is consumed whole and ignored.
    pub fn handle_input<'a>(&'a mut self, input: &'a mut [u8], now: Instant) -> (usize, Option<Event<'a>>) {
        self.last_frame = now;
        (input.len(), None)
    }

    /// The transport ended. True: the peer's end is known from [`Event::Closed`] or [`Event::Failed`]; false: it
    /// vanished, which is 1006 to the plugin.
    pub fn handle_eof(&mut self) -> bool {
        false
    }

    /// The caller reads from the transport, or has ceased to because it can take no more. While it does not, nobody can
    /// say that the peer is silent: no ping is due, and the silence begins anew when reading does. Initially true.
    pub fn set_reading(&mut self, _reading: bool, _now: Instant) {}

    /// Sends one frame of a message; `fin` false: more follow. A whole message is one frame with `fin` true. Of a message
    /// in several frames the first one's `kind` holds. That text is UTF-8 is the caller's care.
    pub fn send(
        &mut self,
        _kind: Kind,
        _payload: &[u8],
        _fin: bool,
        _entropy: &mut dyn Entropy,
    ) -> Result<(), Closing> {
        Err(Closing)
    }

    /// Sends a ping of the user's own: its pong will be shown. `payload`: at most [`super::CONTROL_LIMIT`] bytes.
    pub fn send_ping(&mut self, _payload: &[u8], _entropy: &mut dyn Entropy) -> Result<(), Refused> {
        Err(Refused::Closing)
    }

    /// Sends a pong. `payload`: at most [`super::CONTROL_LIMIT`] bytes.
    pub fn send_pong(&mut self, _payload: &[u8], _entropy: &mut dyn Entropy) -> Result<(), Refused> {
        Err(Refused::Closing)
    }

    /// Begins the closing handshake; where it has begun, nothing happens. `code`: one that [`super::close::is_valid`]
    /// accepts, any other (1005) sends none, and no reason. `reason` is cut to 123 bytes. Messages still come until the
    /// peer's close frame, for at most 5 s.
    pub fn close(&mut self, _code: u16, _reason: &str, _now: Instant, _entropy: &mut dyn Entropy) {}

    /// Encodes what waits (pongs, pings of `ping_interval`, answers to a close) and gives what is to be written.
    pub fn poll_transmit(&mut self, _entropy: &mut dyn Entropy) -> &[u8] {
        &[]
    }

    /// So many of the bytes that [`Connection::poll_transmit`] gave have been written.
    pub fn handle_transmitted(&mut self, _bytes: usize) {}

    /// Bytes waiting to be written: the caller's measure of backpressure.
    pub fn queued(&self) -> usize {
        0
    }

    /// When [`Connection::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// It is `now`. A ping may have become due, so ask [`Connection::poll_transmit`]; or the connection is lost.
    pub fn handle_timeout(&mut self, _now: Instant) -> Option<Lost> {
        None
    }

    /// Both closes are done and everything is transmitted: the transport may be shut. A client leaves that to the server
    /// for 5 s.
    pub fn is_over(&self) -> bool {
        false
    }

    /// When the last complete frame came from the peer, control frames included (for RTIM); before any: when the
    /// connection began.
    pub fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// Whole messages received and sent.
    pub fn messages(&self) -> (u64, u64) {
        let _ = &self.settings;
        (0, 0)
    }
}
