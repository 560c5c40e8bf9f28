//! WebSocket's opening handshake under way.

use std::io;

use super::remote::Remote;
use super::{Context, TURN_READS};
use crate::net::reason;
use crate::net::socket::Stream;
use crate::relay::Ready;
use crate::websocket::handshake::{self, ClientHandshake, ErrorCode, HandshakeError, Upgraded};

/// Most that is read at once: what comes behind the answer waits in the kernel.
const READ: usize = 4 * 1024;

/// An opening handshake under way.
#[derive(Debug)]
pub struct Upgrading {
    remote: Remote,
    handshake: ClientHandshake,
}

/// How far an opening handshake has come.
pub enum Progress {
    /// Not yet done.
    Pending(Upgrading),
    /// Done.
    Upgraded(Remote, Upgraded),
    /// The server is elsewhere.
    Redirect(Box<str>),
    /// It came to nothing: the reason that the plugin is given.
    Failed(String),
}

impl Upgrading {
    /// Begins an opening handshake with `remote`.
    pub fn begin(remote: Remote, handshake: ClientHandshake) -> Self {
        Self { remote, handshake }
    }

    /// Sends and receives what can be sent and received.
    pub fn step(mut self, ready: &mut Ready, cx: &mut Context<'_>) -> Progress {
        if let Err(error) = self.send(ready) {
            return Progress::Failed(lost(&error));
        }
        for _ in 0..TURN_READS {
            if !ready.readable {
                break;
            }
            let length = READ.min(cx.scratch.len());
            let progress = match self.remote.recv(&mut cx.scratch[..length]) {
                Ok(0) => handshake::HandshakeProgress::Failed(self.handshake.handle_eof()),
                Ok(read) => self.handshake.handle_input(&cx.scratch[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    handshake::HandshakeProgress::Failed(self.handshake.handle_eof())
                }
                Err(error) => return Progress::Failed(lost(&error)),
            };
            match progress {
                handshake::HandshakeProgress::Pending => {}
                handshake::HandshakeProgress::Upgraded(upgraded) => return Progress::Upgraded(self.remote, upgraded),
                handshake::HandshakeProgress::Redirect { location } => return Progress::Redirect(location),
                handshake::HandshakeProgress::Failed(failure) => return Progress::Failed(failure.to_string()),
            }
        }
        Progress::Pending(self)
    }

    fn send(&mut self, ready: &mut Ready) -> io::Result<()> {
        while ready.writable && !self.handshake.transmit().is_empty() {
            match self.remote.send(self.handshake.transmit()) {
                Ok(sent) => self.handshake.handle_transmitted(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.writable = false,
                // A server that refuses may end before it has read everything: its answer counts.
                Err(_) if ready.readable => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if ready.writable && !self.remote.flush()? {
            ready.writable = false;
        }
        Ok(())
    }
}

/// The reason for a connection that broke before it was of any use.
pub fn lost(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::InvalidData {
        // TLS has its own word: a server may refuse our certificate only now.
        return reason(error);
    }
    HandshakeError::new(ErrorCode::SocketError, reason(error)).to_string()
}
