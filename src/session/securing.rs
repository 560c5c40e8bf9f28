//! A TLS handshake under way: the socket is here, the thinking is done on other threads.

use std::io;

use super::Context;
use super::upgrading::lost;
use crate::net::socket::{Stream, TcpSocket};
use crate::relay::Ready;
use crate::tls::{PendingHandshake, TlsConnection, TlsError, TlsOutcome, TlsSettings, TlsStep, TlsStream};

/// Most that is read of a handshake at once. A flight with a long chain has some 6 KiB.
const READ: usize = 16 * 1024;

/// A handshake under way.
#[derive(Debug)]
pub struct Securing {
    socket: TcpSocket,
    to_send: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A thread is at it.
    AtWork,
    /// The server is to answer.
    Waiting(PendingHandshake),
    /// It is done.
    Done(TlsConnection),
    /// It has failed; what is to be sent are the reasons for the server.
    Failed(TlsError),
}

/// How far a handshake has come.
pub enum Progress {
    /// Not yet done.
    Pending(Securing),
    /// Done.
    Secured(TlsStream<TcpSocket>),
    /// It came to nothing: the reason that the plugin is given.
    Failed(String),
}

impl Securing {
    /// Begins a handshake over `socket` with the server called `host`.
    pub fn begin(socket: TcpSocket, host: &str, settings: &TlsSettings, cx: &mut Context<'_>) -> Self {
        cx.handshakes.begin(cx.key, host, settings);
        Self { socket, to_send: Vec::new(), state: State::AtWork }
    }

    /// A thread has done its part.
    pub fn handle_step(&mut self, step: TlsStep) {
        self.to_send.extend_from_slice(&step.to_send);
        self.state = match step.outcome {
            TlsOutcome::Pending(pending) => State::Waiting(pending),
            TlsOutcome::Done(connection) => State::Done(connection),
            TlsOutcome::Failed(failure) => State::Failed(failure),
        };
    }

    /// Sends and receives what can be sent and received.
    pub fn step(mut self, ready: &mut Ready, cx: &mut Context<'_>) -> Progress {
        if let Err(error) = self.send(ready) {
            // What it said before it went is worth more than the news that it is gone.
            if !matches!(self.state, State::Waiting(_)) {
                return Progress::Failed(lost(&error));
            }
        }
        match self.state {
            State::AtWork => Progress::Pending(self),
            State::Waiting(pending) if ready.readable => {
                let length = READ.min(cx.scratch.len());
                match self.socket.recv(&mut cx.scratch[..length]) {
                    // At the end, nothing is received.
                    Ok(read) => {
                        cx.handshakes.advance(cx.key, pending, cx.scratch[..read].to_vec());
                        self.state = State::AtWork;
                        Progress::Pending(self)
                    }
                    Err(error) => {
                        if error.kind() == io::ErrorKind::WouldBlock {
                            ready.readable = false;
                        } else if error.kind() != io::ErrorKind::Interrupted {
                            return Progress::Failed(lost(&error));
                        }
                        self.state = State::Waiting(pending);
                        Progress::Pending(self)
                    }
                }
            }
            State::Waiting(_) => Progress::Pending(self),
            State::Done(connection) => {
                let stream = TlsStream::new(self.socket, connection, self.to_send);
                Progress::Secured(stream)
            }
            State::Failed(failure) => Progress::Failed(failure.to_string()),
        }
    }

    fn send(&mut self, ready: &mut Ready) -> io::Result<()> {
        while !self.to_send.is_empty() && ready.writable {
            match self.socket.send(&self.to_send) {
                Ok(sent) => drop(self.to_send.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
