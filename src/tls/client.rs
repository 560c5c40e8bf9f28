//! The sans-IO heart of TLS: received bytes in, bytes to be sent and plain bytes out.
//!
//! It stands on rustls' unbuffered interface, so that an idle connection holds no buffer at all: what is received is
//! processed where it lies, and only a record that is still incomplete is kept.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, Error, ProtocolVersion};

/// The most that may wait for the rest of a handshake message. A chain of certificates rarely exceeds 10 KiB.
const MOST_REST: usize = 64 * 1024;

/// What a record adds to its payload at most: header, explicit nonce, type, tag; and some for a key update before it.
const OVERHEAD: usize = 128;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The handshake waits for the server.
    Handshake,
    /// Plain bytes may pass.
    Open,
    /// The server has said that nothing more comes.
    Closed,
}

/// One connection.
pub struct Connection {
    rustls: UnbufferedClientConnection,
    /// Received, and of no use before more comes.
    rest: Vec<u8>,
    /// The server has said that nothing more comes.
    closed: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are nobody's business.
        f.debug_struct("Connection").field("rest", &self.rest.len()).field("closed", &self.closed).finish()
    }
}

impl Connection {
    /// A connection that is about to say hello to the server `name`.
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self { rustls: UnbufferedClientConnection::new(config, name)?, rest: Vec::new(), closed: false })
    }

    /// What waits for more to come, to stand in front of it.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Processes `incoming`, which is [`Connection::rest`] and what has come since. What is to be sent is added to
    /// `to_send`, also in case of an error, after which nothing more can be done; plain bytes are given to `deliver`.
    pub fn process(
        &mut self,
        incoming: &mut [u8],
        to_send: &mut Vec<u8>,
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<Reached, Error> {
        let mut taken = 0;
        let outcome = loop {
            let (step, discard) = step(&mut self.rustls, &mut incoming[taken..], to_send, &mut deliver, &mut |_| ());
            taken += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.closed = true,
                Ok(Step::Blocked) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if outcome.is_err() {
            // The alert that says why. Nothing more is processed meanwhile.
            while self.rustls.wants_write() {
                if step(&mut self.rustls, &mut incoming[taken..], to_send, &mut |_| (), &mut |_| ()).0.is_err() {
                    break;
                }
            }
        }
        self.rest = incoming[taken..].to_vec();
        outcome?;
        if self.rest.len() > MOST_REST {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(match (self.rustls.is_handshaking(), self.closed) {
            (true, _) => Reached::Handshake,
            (false, true) => Reached::Closed,
            (false, false) => Reached::Open,
        })
    }

    /// Encrypts `bytes` to the beginning of `out`, which grows if need be, and says how much it is. What had to be sent
    /// before is added to `to_send`.
    pub fn encrypt(&mut self, bytes: &[u8], to_send: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, Error> {
        let mut room = bytes.len() + OVERHEAD * bytes.len().div_ceil(16 * 1024).max(1);
        let mut encrypt = |mut traffic: Traffic<'_>| loop {
            if out.len() < room {
                out.resize(room, 0);
            }
            match traffic.encrypt(bytes, out) {
                Ok(written) => break Ok(written),
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
                Err(_) => break Err(Error::General("the keys are used up".into())),
            }
        };
        self.with_traffic(to_send, &mut encrypt)
    }

    /// Adds the notice that nothing more comes to `to_send`.
    pub fn close(&mut self, to_send: &mut Vec<u8>) -> Result<(), Error> {
        let mut notice = [0; 2 * OVERHEAD];
        let mut queue = |mut traffic: Traffic<'_>| {
            traffic.queue_close_notify(&mut notice).map_err(|_| Error::General("no room for close_notify".into()))
        };
        let written = self.with_traffic(to_send, &mut queue)?;
        to_send.extend_from_slice(&notice[..written]);
        Ok(())
    }

    /// The version that was agreed upon, in OpenSSL's words.
    pub fn version(&self) -> &'static str {
        match self.rustls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        }
    }

    fn with_traffic<T>(
        &mut self,
        to_send: &mut Vec<u8>,
        work: &mut dyn FnMut(Traffic<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut result = None;
        loop {
            let mut once = |traffic: Traffic<'_>| result = Some(work(traffic));
            // Whole records have been processed when they came, so nothing is discarded or delivered here.
            let (step, _) = step(&mut self.rustls, &mut self.rest, to_send, &mut |_| (), &mut once);
            match step? {
                Step::Again | Step::PeerClosed => {}
                Step::Blocked => return result.unwrap_or(Err(Error::HandshakeNotComplete)),
            }
        }
    }
}

type Traffic<'a> = WriteTraffic<'a, ClientConnectionData>;

/// What one step has come to.
enum Step {
    /// There may be more to do.
    Again,
    /// The server has said that nothing more comes; there may be more to do.
    PeerClosed,
    /// Only new bytes, either way, lead further.
    Blocked,
}

/// Processes as much of `incoming` as rustls likes at once. Gives what is to be discarded of it, too.
fn step(
    rustls: &mut UnbufferedClientConnection,
    incoming: &mut [u8],
    to_send: &mut Vec<u8>,
    deliver: &mut dyn FnMut(&[u8]),
    traffic: &mut dyn FnMut(Traffic<'_>),
) -> (Result<Step, Error>, usize) {
    let UnbufferedStatus { mut discard, state } = rustls.process_tls_records(incoming);
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    deliver(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = to_send.len();
            loop {
                match data.encode(&mut to_send[start..]) {
                    Err(EncodeError::InsufficientSize(size)) => to_send.resize(start + size.required_size, 0),
                    _ => break Ok(Step::Again),
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(open)) => {
            traffic(open);
            Ok(Step::Blocked)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // Early data is a server's, and of states that are not invented yet nothing is known.
        Ok(_) => Ok(Step::Blocked),
    };
    (step, discard)
}
