//! TLS to a Luup that stands behind `https`, under ureq: the proxy's own TLS, in a thread that may wait.
//!
//! The socket does not block; who waits for it does so by poll(2), for as long as the request may take.

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
use crate::tls::{Failure, House, Outcome, Settings, TlsStream, Verify, handshake};

/// Most that is read of a handshake at once.
const READ: usize = 16 * 1024;

/// What it takes for Luup to be believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Roots, configurations, and sessions to be resumed.
    pub house: Arc<House>,
    /// How Luup proves who it is.
    pub verify: Verify,
}

/// Connects to where a URL with `https` leads, and leaves others to the next in the chain.
#[derive(Clone)]
pub struct SecureConnector(Arc<Mutex<Trust>>);

/// ureq wants it. What is inside would bring the Debug of all of rustls along, which is kilobytes.
impl fmt::Debug for SecureConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureConnector")
    }
}

impl SecureConnector {
    /// Connects to who can be trusted.
    pub fn new(trust: Trust) -> Self {
        Self(Arc::new(Mutex::new(trust)))
    }

    /// From now on, new connections go by `trust`.
    pub fn set_trust(&self, trust: Trust) {
        *lock(&self.0) = trust;
    }

    fn trust(&self) -> Trust {
        lock(&self.0).clone()
    }
}

impl Connector for SecureConnector {
    type Out = SecureTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        if !details.needs_tls() {
            return Ok(None);
        }
        let due = Due { reason: Timeout::Connect, ..Due::of(details.timeout) };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let socket = open(&details.addrs, due)?;
        let stream = shake_hands(socket, host, self.trust(), due).map_err(|error| match error {
            Error::Timeout(_) => failed(Failure::new("timeout during the handshake")),
            error => error,
        })?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(SecureTransport { stream, buffers }))
    }
}

/// A connection to Luup over TLS.
pub struct SecureTransport {
    stream: TlsStream<TcpSocket>,
    buffers: LazyBuffers,
}

/// As for [`SecureConnector`].
impl fmt::Debug for SecureTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureTransport")
    }
}

impl Transport for SecureTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let due = Due::of(timeout.for_write());
        let mut sent = 0;
        loop {
            let outcome = match &self.buffers.output()[sent..amount] {
                [] => self.stream.flush().map(|done| if done { None } else { Some(0) }),
                rest => self.stream.send(rest).map(Some),
            };
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(more)) if more > 0 => sent += more,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(broken(error)),
                _ => due.wait(self.stream.get_mut(), PollFlags::POLLOUT)?,
            }
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let due = Due::of(timeout.for_read());
        loop {
            let buffer = self.buffers.input_append_buf();
            match self.stream.recv(buffer) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => due.wait(self.stream.get_mut(), PollFlags::POLLIN)?,
                    // The answer says itself how long it is; where not, it is as long as what came.
                    io::ErrorKind::UnexpectedEof => return Ok(false),
                    // Tickets, but not without end.
                    io::ErrorKind::Interrupted => drop(due.left()?),
                    _ => return Err(broken(error)),
                },
            }
        }
    }

    /// Tickets may have come; anything else that was not asked for, and the end, are the end.
    fn is_open(&mut self) -> bool {
        let is_quiet = |kind| matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        self.stream.recv(&mut [0]).is_err_and(|error| is_quiet(error.kind()))
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl Drop for SecureTransport {
    fn drop(&mut self) {
        self.stream.shutdown_write();
    }
}

/// Connects to the first address that lets us.
fn open(addresses: &[SocketAddr], due: Due) -> Result<TcpSocket, Error> {
    let mut outcome = Err(Error::HostNotFound);
    for (at, address) in addresses.iter().enumerate() {
        // Each gets its share of the time that is left, so that the last has some.
        let share = due.left()? / (addresses.len() - at) as u32;
        let connected = blocking::connect(*address, share);
        let connected = connected.and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
        match connected {
            Ok(stream) => {
                let socket = TcpSocket(mio::net::TcpStream::from_std(stream));
                socket.set_options();
                return Ok(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => outcome = Err(Error::Timeout(due.reason)),
            Err(error) => outcome = Err(error.into()),
        }
    }
    outcome
}

/// Makes a handshake with the server called `host`.
fn shake_hands(
    mut socket: TcpSocket,
    host: &str,
    Trust { house, verify }: Trust,
    due: Due,
) -> Result<TlsStream<TcpSocket>, Error> {
    let settings = Settings { verify, ..Settings::default() };
    let (mut pending, mut to_send) = handshake::begin(&house, host, &settings).map_err(failed)?;
    let mut buffer = vec![0; READ];
    loop {
        send(&mut socket, &to_send, due)?;
        let read = loop {
            match socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => due.wait(&socket, PollFlags::POLLIN)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(Failure::new(reason(&error)))),
                Ok(read) => break read,
            }
        };
        let step = pending.advance(&buffer[..read]);
        to_send = step.to_send;
        match step.outcome {
            Outcome::More(more) => pending = more,
            Outcome::Done(connection) => return Ok(TlsStream::new(socket, connection, to_send)),
            Outcome::Failed(failure) => {
                // The alert that says why, if it goes at once.
                let _ = socket.send(&to_send);
                return Err(failed(failure));
            }
        }
    }
}

/// Sends all of `bytes`, unless the server has gone: what it said before is worth more than the news of that.
fn send(socket: &mut TcpSocket, mut bytes: &[u8], due: Due) -> Result<(), Error> {
    while !bytes.is_empty() {
        match socket.send(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => due.wait(socket, PollFlags::POLLOUT)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(())
}

fn failed(failure: Failure) -> Error {
    Error::Other(Box::new(failure))
}

/// What an error of an established stream is for ureq. What TLS has to say keeps its words.
fn broken(error: io::Error) -> Error {
    error.downcast().map_or_else(Error::Io, failed)
}

/// When something has to be done.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Option<Instant>,
    /// What it is called when it is not.
    reason: Timeout,
}

impl Due {
    fn of(timeout: NextTimeout) -> Self {
        let after = timeout.not_zero();
        Self { at: after.and_then(|after| Instant::now().checked_add(*after)), reason: timeout.reason }
    }

    /// The time that is left.
    fn left(self) -> Result<Duration, Error> {
        let left = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        match left.unwrap_or(Duration::from_secs(60)) {
            Duration::ZERO => Err(Error::Timeout(self.reason)),
            left => Ok(left),
        }
    }

    /// Waits until `socket` is ready for `what`, or has an error to tell.
    fn wait(self, socket: &TcpSocket, what: PollFlags) -> Result<(), Error> {
        let socket: BorrowedFd<'_> = socket.0.as_fd();
        loop {
            // Rounded up: it would be asked in vain in its last millisecond.
            let left = self.left()? + Duration::from_millis(1);
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(socket, what)], left) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
}
