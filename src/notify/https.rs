//! [`HttpsConnector`]: connections to a Luup behind https, for ureq. They use the daemon's own TLS, on a sender's
//! thread that may block.
//!
//! The socket is non-blocking. Waits use poll(2), limited by the request's timeout.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::net::socket::{Stream, TcpSocket};
use crate::net::{blocking, reason};
use crate::thread_pool::lock;
use crate::tls::{TlsContext, TlsError, TlsOutcome, TlsSettings, TlsStream, Verify, handshake};

/// Bytes of a handshake read at once at most.
const MAX_READ: usize = 16 * 1024;

/// How Luup's certificate is verified.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// Roots, configurations and session caches.
    pub context: Arc<TlsContext>,
    /// The verification that the configuration asks for.
    pub verify: Verify,
}

/// Connects to `https` URLs over TLS. Leaves other URLs to the next connector of the chain.
#[derive(Clone)]
pub(super) struct HttpsConnector(Arc<Mutex<Trust>>);

/// ureq requires `Debug`. A derived one would add kilobytes of rustls' code.
impl fmt::Debug for HttpsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpsConnector")
    }
}

impl HttpsConnector {
    /// A connector that verifies servers by `trust`.
    pub(super) fn new(trust: Trust) -> Self {
        Self(Arc::new(Mutex::new(trust)))
    }

    /// Sets how new connections verify their server.
    pub(super) fn set_trust(&self, trust: Trust) {
        *lock(&self.0) = trust;
    }

    fn trust(&self) -> Trust {
        lock(&self.0).clone()
    }
}

impl Connector for HttpsConnector {
    type Out = HttpsTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        if !details.needs_tls() {
            return Ok(None);
        }
        let deadline = Deadline { reason: Timeout::Connect, ..Deadline::of(details.timeout) };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let socket = connect_first(&details.addrs, deadline)?;
        let stream = complete_handshake(socket, host, self.trust(), deadline).map_err(|error| match error {
            Error::Timeout(_) => tls_error(TlsError::new("timeout during the handshake")),
            error => error,
        })?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(HttpsTransport { stream, buffers }))
    }
}

/// A TLS connection to Luup.
pub(super) struct HttpsTransport {
    stream: TlsStream<TcpSocket>,
    buffers: LazyBuffers,
}

/// See the `Debug` of [`HttpsConnector`].
impl fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpsTransport")
    }
}

impl Transport for HttpsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let deadline = Deadline::of(timeout.for_write());
        let mut sent = 0;
        loop {
            let outcome = match &self.buffers.output()[sent..amount] {
                [] => self.stream.flush().map(|done| if done { None } else { Some(0) }),
                rest => self.stream.send(rest).map(Some),
            };
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(more)) if more > 0 => sent += more,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(stream_error(error)),
                _ => deadline.wait(self.stream.get_mut(), PollFlags::POLLOUT)?,
            }
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = Deadline::of(timeout.for_read());
        loop {
            let buffer = self.buffers.input_append_buf();
            match self.stream.recv(buffer) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => deadline.wait(self.stream.get_mut(), PollFlags::POLLIN)?,
                    // An answer without close_notify is complete if its Content-Length says so; ureq checks that.
                    // Without a length it ends with the connection.
                    io::ErrorKind::UnexpectedEof => return Ok(false),
                    // Records without plain bytes, such as tickets. The deadline bounds them.
                    io::ErrorKind::Interrupted => drop(deadline.remaining()?),
                    _ => return Err(stream_error(error)),
                },
            }
        }
    }

    /// True if nothing but session tickets has come. Other bytes and the end make the connection unusable.
    fn is_open(&mut self) -> bool {
        let is_quiet = |kind| matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        self.stream.recv(&mut [0]).is_err_and(|error| is_quiet(error.kind()))
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl Drop for HttpsTransport {
    fn drop(&mut self) {
        self.stream.shutdown_write();
    }
}

/// Connects to the first address that accepts. Each address gets its share of the remaining time.
fn connect_first(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpSocket, Error> {
    let mut outcome = Err(Error::HostNotFound);
    for (at, address) in addresses.iter().enumerate() {
        let share = deadline.remaining()? / (addresses.len() - at) as u32;
        let connected = blocking::connect(*address, share);
        let connected = connected.and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
        match connected {
            Ok(stream) => {
                let socket = TcpSocket(mio::net::TcpStream::from_std(stream));
                socket.set_no_delay();
                return Ok(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => outcome = Err(Error::Timeout(deadline.reason)),
            Err(error) => outcome = Err(error.into()),
        }
    }
    outcome
}

/// Completes a handshake with the server `host`.
fn complete_handshake(
    mut socket: TcpSocket,
    host: &str,
    Trust { context, verify }: Trust,
    deadline: Deadline,
) -> Result<TlsStream<TcpSocket>, Error> {
    let settings = TlsSettings { verify, ..TlsSettings::default() };
    let (mut pending, mut to_send) = handshake::begin(&context, host, &settings).map_err(tls_error)?;
    let mut buffer = vec![0; MAX_READ];
    loop {
        send(&mut socket, &to_send, deadline)?;
        let read = loop {
            match socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => deadline.wait(&socket, PollFlags::POLLIN)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(tls_error(TlsError::new(reason(&error)))),
                Ok(read) => break read,
            }
        };
        let step = pending.advance(&buffer[..read]);
        to_send = step.to_send;
        match step.outcome {
            TlsOutcome::Pending(more) => pending = more,
            TlsOutcome::Done(connection) => return Ok(TlsStream::new(socket, connection, to_send)),
            TlsOutcome::Failed(error) => {
                // Send the alert, if the socket takes it at once.
                let _ = socket.send(&to_send);
                return Err(tls_error(error));
            }
        }
    }
}

/// Sends all of `bytes`. If the server has closed, the rest is dropped: what it sent before is the better error.
fn send(socket: &mut TcpSocket, mut bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
    while !bytes.is_empty() {
        match socket.send(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => deadline.wait(socket, PollFlags::POLLOUT)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(())
}

fn tls_error(error: TlsError) -> Error {
    Error::Other(Box::new(error))
}

/// Converts an error of an established stream. A [`TlsError`] inside keeps its text.
fn stream_error(error: io::Error) -> Error {
    error.downcast().map_or_else(Error::Io, tls_error)
}

/// When an operation must be finished.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Option<Instant>,
    /// The timeout that ureq reports if it is not.
    reason: Timeout,
}

impl Deadline {
    fn of(timeout: NextTimeout) -> Self {
        let after = timeout.not_zero();
        Self { at: after.and_then(|after| Instant::now().checked_add(*after)), reason: timeout.reason }
    }

    /// The remaining time, or the timeout error if none remains.
    fn remaining(self) -> Result<Duration, Error> {
        let remaining = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        match remaining.unwrap_or(Duration::from_secs(60)) {
            Duration::ZERO => Err(Error::Timeout(self.reason)),
            remaining => Ok(remaining),
        }
    }

    /// Waits until `socket` is ready for `events` or has an error.
    fn wait(self, socket: &TcpSocket, events: PollFlags) -> Result<(), Error> {
        let socket: BorrowedFd<'_> = socket.0.as_fd();
        loop {
            // One more millisecond, since poll(2) counts in whole ones: without it the loop would spin in the last one.
            let remaining = self.remaining()? + Duration::from_millis(1);
            let remaining = PollTimeout::try_from(remaining).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(socket, events)], remaining) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
}
