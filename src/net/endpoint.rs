//! One end of a connection: a stream together with what is known of its readiness.
//!
//! An endpoint passes from stage to stage of a session as one value. Relays know only the trait, so that a plugin's
//! side that outlives its socket can stand in for one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::readiness::Readiness;
use super::socket::{Datagrams, Stream};
use super::user_timeout::{UserTimeout, UserTimeoutSettings};

/// What a read or a write came to.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// This many bytes were read or written. 0: the call was interrupted or made progress below; try again.
    Bytes(usize),
    /// The peer has ended its side. Only of reads.
    Eof,
    /// Nothing can be moved before an event reports so.
    Blocked,
    /// The connection broke.
    Broken(io::Error),
}

/// One end of a connection, as a relay sees it.
pub(crate) trait Endpoint {
    /// Reads what is there into `buffer`, which must not be empty. To be called while [`Endpoint::is_readable`].
    fn try_read(&mut self, buffer: &mut [u8]) -> Transfer;

    /// Writes as much of `bytes`, which must not be empty, as there is room for. [`Transfer::Blocked`] without a call
    /// where nothing can be written.
    fn try_write(&mut self, bytes: &[u8]) -> Transfer;

    /// Writes as much of `first`, and then of `rest`, as the socket takes, without a copy of them. Returns how many bytes that
    /// was. 0 says that the endpoint is no bare socket, or that nothing can be written; [`Endpoint::try_write`] tells why.
    fn try_write_both(&mut self, _first: &[u8], _rest: &[u8]) -> usize {
        0
    }

    /// Writes what the endpoint itself holds for its peer. True if nothing is left; false if the socket below is full.
    fn flush(&mut self) -> io::Result<bool>;

    /// Tells the peer that nothing more comes, once what the endpoint holds is written.
    fn shutdown_write(&mut self);

    /// True if reading may return something: bytes, the end, or an error.
    fn is_readable(&self) -> bool;

    /// Marks the socket readable, so that the next turn reads it.
    fn assume_readable(&mut self);

    /// True if writing may accept something.
    fn is_writable(&self) -> bool;

    /// True if an event reported the end of the peer's side, or of both.
    fn is_read_closed(&self) -> bool;

    /// True if an event reported the end of both sides: nothing that is written reaches the peer.
    fn is_closed(&self) -> bool;

    /// Bytes that the endpoint holds, either way.
    fn held(&self) -> usize {
        0
    }

    /// Bounds what the endpoint may hold for its peer, in bytes.
    fn set_send_limit(&mut self, _bytes: usize) {}

    /// Bounds what the endpoint may hold of what it receives before it can return it, in bytes beyond what it holds.
    fn set_receive_limit(&mut self, _bytes: usize) {}

    /// True if the endpoint is not readable before [`Endpoint::set_receive_limit`] allows it more.
    fn waits_for_memory(&self) -> bool {
        false
    }

    /// The descriptor, where bytes may be spliced.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// splice(2) said that the socket has nothing to read.
    fn clear_readable(&mut self) {}

    /// splice(2) said that the socket has no room.
    fn clear_writable(&mut self) {}

    /// splice(2) is about to read.
    fn prepare_splice(&mut self) {}

    /// splice(2) has read `_length` bytes of the socket.
    fn handle_spliced_in(&mut self, _length: usize) {}

    /// splice(2) has written bytes to the socket.
    fn handle_spliced_out(&mut self) {}
}

/// A stream and its readiness.
#[derive(Debug)]
pub(crate) struct SocketEndpoint<S> {
    stream: S,
    readiness: Readiness,
    urgent: UrgentBytes,
    user_timeout: UserTimeout,
    passed: Passed,
}

/// What has passed since the user timeout last heard of it. The endpoint itself knows no time.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    sent: bool,
    received: bool,
    /// The peer is lost.
    timed_out: bool,
}

/// Whether the socket keeps urgent bytes in their place. That takes a system call, which most connections need not make:
/// a read that finds what an event has reported stops at the mark of an urgent byte that came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UrgentBytes {
    /// It does not; the next byte to be read is known not to be urgent.
    Absent,
    /// It does not; the next byte to be read may be urgent.
    Possible,
    /// It does.
    Kept,
}

impl<S> SocketEndpoint<S> {
    /// `stream`, of which `readiness` is known.
    pub(crate) fn new(stream: S, readiness: Readiness) -> Self {
        let urgent = if readiness.readable { UrgentBytes::Possible } else { UrgentBytes::Absent };
        Self { stream, readiness, urgent, user_timeout: UserTimeout::default(), passed: Passed::default() }
    }

    /// Adds what an event reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        self.readiness.merge(event);
        if event.urgent {
            self.expect_urgent_bytes();
        }
    }

    fn expect_urgent_bytes(&mut self) {
        if self.urgent == UrgentBytes::Absent {
            self.urgent = UrgentBytes::Possible;
        }
    }

    /// The stream.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, for what is no transfer of bytes.
    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Puts another layer on the stream: TLS, say. A layer that may hold bytes already is to be read whatever events have
    /// reported ([`Endpoint::assume_readable`]).
    pub(crate) fn wrap<T>(self, layer: impl FnOnce(S) -> T) -> SocketEndpoint<T> {
        let Self { stream, readiness, urgent, user_timeout, passed } = self;
        SocketEndpoint { stream: layer(stream), readiness, urgent, user_timeout, passed }
    }

    /// Tells the user timeout what has passed until `now`. To be called at the end of each turn.
    pub(crate) fn end_turn(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) {
        let Passed { sent, received, timed_out } = self.passed;
        self.passed = Passed { timed_out, ..Passed::default() };
        let Some(settings) = settings.filter(|_| !timed_out) else { return };
        if received {
            self.user_timeout.handle_received(settings, now);
        }
        if sent {
            self.user_timeout.handle_sent(settings, now);
        }
    }

    /// When to call [`SocketEndpoint::handle_timeout`].
    pub(crate) fn deadline(&self, settings: Option<&UserTimeoutSettings>) -> Option<Instant> {
        self.user_timeout.poll_timeout(settings)
    }

    /// The user timeout begins anew with the next write: another session has the connection now, and another epoch.
    pub(crate) fn restart_user_timeout(&mut self) {
        self.user_timeout = UserTimeout::default();
    }
}

impl<S: Stream> SocketEndpoint<S> {
    /// True if the peer has been lost just now. From then on the connection is broken, as after ETIMEDOUT: what the peer
    /// sent before can still be read. Does nothing before [`SocketEndpoint::deadline`].
    pub(crate) fn handle_timeout(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) -> bool {
        let Self { stream, user_timeout, .. } = self;
        let lost = user_timeout.handle_timeout(settings, now, || stream.unacknowledged());
        if lost {
            self.passed.timed_out = true;
            self.handle_event(Readiness { closed: true, read_closed: true, ..Readiness::FRESH });
        }
        lost
    }

    /// True if a short read does not mean that there is nothing more. Reading goes on until the socket itself says so:
    /// behind a reported end the end is still to be read and no further event comes; a read stops short at the mark of
    /// urgent data; and a layer such as TLS may hold bytes back.
    fn reads_until_blocked(&self) -> bool {
        self.readiness.read_closed || self.readiness.urgent || self.stream.is_layered()
    }

    /// What the peer sent before a write failed is still there to be read, and no further event reports it.
    fn handle_write_error(&mut self) {
        self.readiness.read_closed = true;
        self.assume_readable();
    }

    /// To be called before a read.
    fn keep_urgent_bytes(&mut self) {
        if self.urgent == UrgentBytes::Possible {
            self.stream.keep_urgent_bytes();
            self.urgent = UrgentBytes::Kept;
        }
    }
}

impl<S: Stream> Endpoint for SocketEndpoint<S> {
    fn try_read(&mut self, buffer: &mut [u8]) -> Transfer {
        self.keep_urgent_bytes();
        match self.stream.recv(buffer) {
            Ok(0) => Transfer::Eof,
            Ok(read) => {
                self.passed.received = true;
                if read < buffer.len() && !self.reads_until_blocked() {
                    self.readiness.readable = false;
                }
                if read == buffer.len() {
                    // The next read, or splice(2), may find what no event has reported.
                    self.expect_urgent_bytes();
                    self.keep_urgent_bytes();
                }
                Transfer::Bytes(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Transfer::Bytes(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.passed.timed_out => {
                Transfer::Broken(io::ErrorKind::TimedOut.into())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // What the stream leaves in the socket for want of memory is reported by no further event.
                self.readiness.readable &= self.stream.waits_for_memory();
                // Every urgent byte that has come is read. If the kernel still has one behind a gap, the event that closes the
                // gap reports it again (EPOLLPRI).
                self.readiness.urgent &= self.readiness.readable;
                Transfer::Blocked
            }
            Err(error) => Transfer::Broken(error),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> Transfer {
        if self.passed.timed_out {
            return Transfer::Broken(io::ErrorKind::TimedOut.into());
        }
        if !self.readiness.writable {
            return Transfer::Blocked;
        }
        match self.stream.send(bytes) {
            Ok(sent) => {
                self.passed.sent = true;
                self.readiness.writable = sent == bytes.len();
                Transfer::Bytes(sent)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Transfer::Bytes(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.writable = false;
                Transfer::Blocked
            }
            Err(error) => {
                self.handle_write_error();
                Transfer::Broken(error)
            }
        }
    }

    fn try_write_both(&mut self, first: &[u8], rest: &[u8]) -> usize {
        if self.passed.timed_out || !self.readiness.writable || self.stream.is_layered() {
            return 0;
        }
        match self.stream.send_both(first, rest) {
            Ok(sent) => {
                self.passed.sent = true;
                self.readiness.writable = sent == first.len() + rest.len();
                sent
            }
            Err(error) => {
                self.readiness.writable = error.kind() != io::ErrorKind::WouldBlock;
                0
            }
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        loop {
            let unsent = self.stream.unsent() > 0;
            if unsent && self.passed.timed_out {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if unsent && !self.readiness.writable {
                return Ok(false);
            }
            self.passed.sent |= unsent;
            match self.stream.flush() {
                Ok(true) => return Ok(true),
                Ok(false) => self.readiness.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readiness.writable = false,
                Err(error) => {
                    self.handle_write_error();
                    return Err(error);
                }
            }
            return Ok(false);
        }
    }

    fn shutdown_write(&mut self) {
        self.stream.shutdown_write();
    }

    fn is_readable(&self) -> bool {
        self.readiness.readable && !self.stream.waits_for_memory()
    }

    fn assume_readable(&mut self) {
        self.readiness.readable = true;
        self.expect_urgent_bytes();
    }

    fn is_writable(&self) -> bool {
        self.readiness.writable
    }

    fn is_read_closed(&self) -> bool {
        self.readiness.read_closed
    }

    fn is_closed(&self) -> bool {
        self.readiness.closed
    }

    fn held(&self) -> usize {
        self.stream.held()
    }

    fn set_send_limit(&mut self, bytes: usize) {
        self.stream.set_send_limit(bytes);
    }

    fn set_receive_limit(&mut self, bytes: usize) {
        self.stream.set_receive_limit(bytes);
    }

    fn waits_for_memory(&self) -> bool {
        self.stream.waits_for_memory()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.fd().filter(|_| !self.passed.timed_out)
    }

    fn clear_readable(&mut self) {
        // Old kernels answer EAGAIN at the end of a stream, too: a reported end is looked into by reading.
        if !self.reads_until_blocked() {
            self.readiness.readable = false;
        }
    }

    fn clear_writable(&mut self) {
        self.readiness.writable = false;
    }

    fn handle_spliced_in(&mut self, _length: usize) {
        self.passed.received = true;
    }

    fn handle_spliced_out(&mut self) {
        self.passed.sent = true;
    }
}

/// The endpoint of a peer that is gone: reading returns the end, writing fails.
#[derive(Debug)]
pub(crate) struct ClosedEndpoint;

impl Endpoint for ClosedEndpoint {
    fn try_read(&mut self, _: &mut [u8]) -> Transfer {
        Transfer::Eof
    }

    fn try_write(&mut self, _: &[u8]) -> Transfer {
        Transfer::Broken(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown_write(&mut self) {}

    fn is_readable(&self) -> bool {
        true
    }

    fn assume_readable(&mut self) {}

    fn is_writable(&self) -> bool {
        true
    }

    fn is_read_closed(&self) -> bool {
        true
    }

    fn is_closed(&self) -> bool {
        true
    }
}

/// What receiving a datagram came to.
#[derive(Debug)]
pub(crate) enum Received {
    /// A datagram of this many bytes, and its sender.
    Datagram(usize, SocketAddr),
    /// An error of an earlier datagram, or an interrupted call: it says nothing about the next datagram.
    Failed,
    /// Nothing is there before an event reports so.
    Blocked,
}

/// A datagram socket and its readiness.
#[derive(Debug)]
pub(crate) struct DatagramEndpoint<D> {
    socket: D,
    readiness: Readiness,
}

impl<D: Datagrams> DatagramEndpoint<D> {
    /// A socket that was opened just now.
    pub(crate) fn new(socket: D) -> Self {
        Self { socket, readiness: Readiness::FRESH }
    }

    /// Adds what an event reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        self.readiness.merge(event);
    }

    /// Marks the socket readable, so that the next turn reads it whatever events have reported.
    pub(crate) fn assume_readable(&mut self) {
        self.readiness.readable = true;
    }

    /// True if a datagram may be there.
    pub(crate) fn is_readable(&self) -> bool {
        self.readiness.readable
    }

    /// True if the socket may have room for a datagram.
    pub(crate) fn is_writable(&self) -> bool {
        self.readiness.writable
    }

    /// Receives one datagram into `buffer`. To be called while [`DatagramEndpoint::is_readable`].
    pub(crate) fn try_receive(&mut self, buffer: &mut [u8]) -> Received {
        match self.socket.recv_from(buffer) {
            Ok((length, sender)) => Received::Datagram(length, sender),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.readable = false;
                Received::Blocked
            }
            Err(_) => Received::Failed,
        }
    }

    /// Sends one datagram. [`Transfer::Broken`] is the error of this datagram alone.
    pub(crate) fn try_send(&mut self, payload: &[u8], to: SocketAddr) -> Transfer {
        loop {
            return match self.socket.send_to(payload, to) {
                Ok(sent) => Transfer::Bytes(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.writable = false;
                    Transfer::Blocked
                }
                Err(error) => Transfer::Broken(error),
            };
        }
    }
    /// The socket, in simulations.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn socket(&self) -> &D {
        &self.socket
    }

    /// The socket, in simulations.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn socket_mut(&mut self) -> &mut D {
        &mut self.socket
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;
    use crate::net::socket::TcpSocket;

    const EVENT: Readiness =
        Readiness { readable: true, writable: false, read_closed: false, urgent: false, closed: false };

    fn pair(readiness: Readiness) -> (SocketEndpoint<TcpSocket>, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (SocketEndpoint::new(TcpSocket(mio::net::TcpStream::from_std(stream)), readiness), peer)
    }

    /// Reads, once bytes have come.
    fn read(endpoint: &mut SocketEndpoint<TcpSocket>, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        loop {
            match endpoint.try_read(&mut buffer) {
                Transfer::Bytes(read) => return buffer[..read].to_vec(),
                Transfer::Blocked => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn keeps_urgent_bytes(endpoint: &SocketEndpoint<TcpSocket>) -> bool {
        SockRef::from(&endpoint.stream.0).out_of_band_inline().unwrap()
    }

    #[test]
    fn two_pieces_are_written_in_order_until_the_socket_is_full() {
        let (mut endpoint, mut peer) = pair(Readiness::ACCEPTED);
        let rest = vec![b'r'; 100_000];
        let mut expected = Vec::new();
        while endpoint.is_writable() {
            let written = endpoint.try_write_both(b"first", &rest);
            expected.extend_from_slice(&[b"first", &rest[..]].concat()[..written]);
        }
        assert_eq!(endpoint.try_write_both(b"first", &rest), 0);
        assert!(matches!(endpoint.try_write(b"first"), Transfer::Blocked));
        endpoint.shutdown_write();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    }

    #[test]
    fn a_read_of_what_an_event_has_reported_costs_no_other_call() {
        let (mut endpoint, mut peer) = pair(Readiness::ACCEPTED);
        for _ in 0..3 {
            peer.write_all(b"some").unwrap();
            endpoint.handle_event(EVENT);
            assert_eq!(read(&mut endpoint, 100), b"some");
        }
        assert!(!keeps_urgent_bytes(&endpoint));
    }

    #[test]
    fn an_urgent_byte_that_comes_before_a_read_is_left_to_its_event() {
        let (mut endpoint, mut peer) = pair(Readiness::ACCEPTED);
        peer.write_all(b"some").unwrap();
        endpoint.handle_event(EVENT);
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        peer.write_all(b"end").unwrap();
        let mut got = read(&mut endpoint, 100);
        assert_eq!(got, b"some", "the read stops at the mark");
        endpoint.handle_event(Readiness { urgent: true, ..EVENT });
        while !got.ends_with(b"end") {
            got.extend(read(&mut endpoint, 100));
        }
        assert_eq!(got, b"some!end");
    }

    /// Regression: after one urgent byte, each later read took a second call that found nothing.
    #[test]
    fn an_urgent_byte_that_is_read_costs_later_reads_no_call() {
        let (mut endpoint, mut peer) = pair(Readiness::ACCEPTED);
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        let mut buffer = [0; 100];
        let read_length = loop {
            endpoint.handle_event(Readiness { urgent: true, ..EVENT });
            match endpoint.try_read(&mut buffer) {
                Transfer::Bytes(length) => break length,
                other => assert!(matches!(other, Transfer::Blocked), "{other:?}"),
            }
        };
        assert_eq!((read_length, buffer[0]), (1, b'!'));
        assert!(endpoint.is_readable(), "more may follow the mark");
        assert!(matches!(endpoint.try_read(&mut [0; 100]), Transfer::Blocked));
        peer.write_all(b"some").unwrap();
        endpoint.handle_event(EVENT);
        assert_eq!(read(&mut endpoint, 100), b"some");
        assert!(!endpoint.is_readable(), "a short read says that there is nothing more");
    }

    #[test]
    fn an_urgent_byte_that_no_event_has_reported_is_not_lost() {
        for kind in 0..3 {
            let (mut endpoint, mut peer) = pair(if kind == 0 { Readiness::FRESH } else { Readiness::ACCEPTED });
            if kind == 1 {
                // After a full read the next one follows at once.
                peer.write_all(b"full").unwrap();
                endpoint.handle_event(EVENT);
                assert_eq!(read(&mut endpoint, 4), b"full");
            }
            if kind == 2 {
                endpoint.assume_readable();
            }
            SockRef::from(&peer).send_out_of_band(b"!").unwrap();
            peer.write_all(b"end").unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"end") {
                got.extend(read(&mut endpoint, 100));
            }
            assert_eq!(got, b"!end", "case {kind}");
        }
    }
}
