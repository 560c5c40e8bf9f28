//! What is known of a socket's readiness.
//!
//! mio is edge-triggered: the kernel reports once that a socket became ready. [`Readiness`] remembers it, in the one
//! place that also owns the socket ([`super::endpoint::SocketEndpoint`]). Three rules:
//!
//! 1. A bit is cleared only where the socket says `WouldBlock`, or by a short read or write, which means the same
//!    except where [`super::endpoint::SocketEndpoint`] says otherwise.
//! 2. A caller that stops on purpose, for want of room or because its turn is over, leaves the bit and asks for
//!    another turn.
//! 3. Bytes that are buffered for a socket are offered to it in the same turn.

/// What the kernel has reported of a socket and no call has refuted since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Reading may return bytes, the end, or an error.
    pub readable: bool,
    /// Writing may accept bytes.
    pub writable: bool,
    /// The peer has ended its side, or the connection broke (EPOLLRDHUP, EPOLLHUP, EPOLLERR).
    pub read_closed: bool,
    /// The peer has sent urgent data, at whose mark a read stops short (EPOLLPRI, tcp(7)).
    pub urgent: bool,
    /// The connection has ended both ways: the peer reads nothing more (EPOLLHUP, EPOLLERR).
    pub closed: bool,
}

impl Readiness {
    /// A connection that was made just now: it may be read and written until a call says otherwise.
    pub(crate) const FRESH: Self =
        Self { readable: true, writable: true, read_closed: false, urgent: false, closed: false };

    /// A connection that was accepted just now: writable, and readable only after an event.
    pub(crate) const ACCEPTED: Self = Self { readable: false, ..Self::FRESH };

    /// Adds what an event reports.
    pub(crate) fn merge(&mut self, event: Self) {
        self.readable |= event.readable;
        self.writable |= event.writable;
        self.read_closed |= event.read_closed;
        self.urgent |= event.urgent;
        self.closed |= event.closed;
    }
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Self {
        let closed = event.is_error() || event.is_write_closed();
        Self {
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            writable: event.is_writable() || closed,
            read_closed: event.is_read_closed() || event.is_error(),
            urgent: event.is_priority(),
            closed,
        }
    }
}
