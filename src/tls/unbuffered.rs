//! [`UnbufferedConnection`]: our end of one TLS connection, sans-IO. Received bytes in; bytes to send and plain bytes out.
//!
//! rustls has its machinery once for clients and once for servers. What is here is compiled once, except for
//! [`process_status`].
//!
//! Uses rustls' unbuffered API, so that an idle connection holds no buffer: received bytes are decrypted in place, and
//! only an incomplete record is kept.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, Error, ProtocolVersion, ServerConfig};

use super::{TlsError, TlsVersion};

/// Bytes that an incomplete handshake message of a server may have at most. A certificate chain rarely exceeds 10 KiB.
const MAX_INCOMPLETE_OF_SERVER: usize = 64 * 1024;

/// Bytes that an incomplete record or handshake message of a client may have at most. A ClientHello has 2 KiB if it offers a
/// post-quantum key exchange. A record has 18437 bytes at most (RFC 5246 section 6.2.3).
const MAX_INCOMPLETE_OF_CLIENT: usize = 20 * 1024;

/// Bytes of memory for the state of a connection, without the server's certificates, as measured on x86-64.
const STATE_MEMORY: usize = 2560;

/// Bytes of memory for a certificate besides its own: its `Vec`, and what the allocator adds to both blocks.
const CERTIFICATE_MEMORY: usize = size_of::<Vec<u8>>() + 4 * size_of::<usize>();

/// Bytes that encryption adds to a record at most: header, explicit nonce, content type, tag. Includes room for a key
/// update that goes before it.
const MAX_RECORD_OVERHEAD: usize = 128;

/// State of a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsState {
    /// The handshake waits for the peer.
    Handshake,
    /// Application data may be sent and received.
    Open,
    /// The peer has sent close_notify.
    Closed,
}

/// Our end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsRole {
    /// We have connected.
    Client,
    /// We have accepted.
    Server,
}

impl TlsRole {
    /// The word for the other end.
    pub(super) fn peer(self) -> &'static str {
        match self {
            Self::Client => "server",
            Self::Server => "client",
        }
    }
}

/// Our end of one TLS connection.
pub(super) struct UnbufferedConnection {
    rustls: RustlsConnection,
    /// Received bytes that form no whole record or handshake message yet.
    incomplete: Vec<u8>,
    /// True if the peer has sent close_notify.
    closed: bool,
}

/// The state of rustls, as the one or the other end.
enum RustlsConnection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl RustlsConnection {
    /// What rustls has for both ends.
    fn common(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }
}

impl std::fmt::Debug for UnbufferedConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the keys.
        let mut fields = f.debug_struct("UnbufferedConnection");
        fields.field("incomplete", &self.incomplete.len()).field("closed", &self.closed).finish()
    }
}

impl UnbufferedConnection {
    /// A client that will send its ClientHello to the server `name`. Errors: those of rustls for the configuration.
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(RustlsConnection::Client).map(Self::new)
    }

    /// A server that waits for a ClientHello. Errors: those of rustls for the configuration.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(RustlsConnection::Server).map(Self::new)
    }

    fn new(rustls: RustlsConnection) -> Self {
        Self { rustls, incomplete: Vec::new(), closed: false }
    }

    /// Which end this is.
    pub(super) fn role(&self) -> TlsRole {
        match self.rustls {
            RustlsConnection::Client(_) => TlsRole::Client,
            RustlsConnection::Server(_) => TlsRole::Server,
        }
    }

    /// The words for an error of this connection.
    pub(super) fn error(&self, error: &Error) -> TlsError {
        TlsError::from_rustls(error, self.role(), self.negotiated())
    }

    /// Bytes that must stand in front of the next received bytes.
    pub(super) fn incomplete(&self) -> &[u8] {
        &self.incomplete
    }

    /// Processes `incoming`, which must be [`UnbufferedConnection::incomplete`] followed by the bytes received since. Appends the
    /// bytes to send to `to_send` and passes plain bytes to `deliver`. After an error, `to_send` ends with the alert
    /// and the connection is unusable.
    pub(super) fn process(
        &mut self,
        incoming: &mut [u8],
        to_send: &mut Vec<u8>,
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<TlsState, Error> {
        let mut consumed = 0;
        let result = loop {
            let (step, discard) = step(&mut self.rustls, &mut incoming[consumed..], to_send, &mut deliver, &mut |_| ());
            consumed += discard;
            match step {
                Ok(RecordStep::Again) => {}
                Ok(RecordStep::PeerClosed) => self.closed = true,
                Ok(RecordStep::Blocked) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            // Encode the alert. No plain bytes are delivered after an error.
            while self.rustls.common().wants_write() {
                if step(&mut self.rustls, &mut incoming[consumed..], to_send, &mut |_| (), &mut |_| ()).0.is_err() {
                    break;
                }
            }
        }
        self.incomplete = incoming[consumed..].to_vec();
        result?;
        let max = match self.role() {
            TlsRole::Client => MAX_INCOMPLETE_OF_SERVER,
            TlsRole::Server => MAX_INCOMPLETE_OF_CLIENT,
        };
        if self.incomplete.len() > max {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(match (self.rustls.common().is_handshaking(), self.closed) {
            (true, _) => TlsState::Handshake,
            (false, true) => TlsState::Closed,
            (false, false) => TlsState::Open,
        })
    }

    /// Bytes of memory for the state of an established connection, beyond what the state of any connection takes: keys, and
    /// the peer's certificates, which rustls keeps.
    pub(super) fn state_memory(&self) -> usize {
        let certificates = self.rustls.common().peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.len() + CERTIFICATE_MEMORY);
        STATE_MEMORY + certificates.sum::<usize>()
    }

    /// True if the peer has sent close_notify.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Encrypts `bytes` to the start of `out`, which grows if necessary, and returns the encrypted length. Appends
    /// messages that must be sent first, such as a key update, to `to_send`.
    pub(super) fn encrypt(&mut self, bytes: &[u8], to_send: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, Error> {
        let mut size = bytes.len() + MAX_RECORD_OVERHEAD * bytes.len().div_ceil(16 * 1024).max(1);
        let mut encrypt = |traffic: &mut dyn Traffic| loop {
            if out.len() < size {
                out.resize(size, 0);
            }
            match traffic.encrypt(bytes, out) {
                Ok(written) => break Ok(written),
                Err(EncryptError::InsufficientSize(error)) if error.required_size > size => size = error.required_size,
                Err(_) => break Err(Error::General("the keys are used up".into())),
            }
        };
        self.with_traffic(to_send, &mut encrypt)
    }

    /// Appends close_notify to `to_send`.
    pub(super) fn close(&mut self, to_send: &mut Vec<u8>) -> Result<(), Error> {
        let mut notice = [0; 2 * MAX_RECORD_OVERHEAD];
        let mut queue = |traffic: &mut dyn Traffic| {
            traffic.queue_close_notify(&mut notice).map_err(|_| Error::General("close_notify does not fit".into()))
        };
        let written = self.with_traffic(to_send, &mut queue)?;
        to_send.extend_from_slice(&notice[..written]);
        Ok(())
    }

    /// The version that the server has chosen. `None` before its ServerHello.
    pub(super) fn negotiated(&self) -> Option<TlsVersion> {
        match self.rustls.common().protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::V13),
            Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::V12),
            _ => None,
        }
    }

    /// The negotiated version as OpenSSL prints it: `TLSv1.3`, `TLSv1.2`, or `TLS` during the handshake.
    pub(super) fn version(&self) -> &'static str {
        match self.negotiated() {
            Some(TlsVersion::V13) => "TLSv1.3",
            Some(TlsVersion::V12) => "TLSv1.2",
            None => "TLS",
        }
    }

    fn with_traffic<T>(
        &mut self,
        to_send: &mut Vec<u8>,
        work: &mut dyn FnMut(&mut dyn Traffic) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut result = None;
        loop {
            let mut once = |traffic: &mut dyn Traffic| result = Some(work(traffic));
            // `process` has consumed all whole records, so nothing is discarded or delivered here.
            let (step, _) = step(&mut self.rustls, &mut self.incomplete, to_send, &mut |_| (), &mut once);
            match step? {
                RecordStep::Again | RecordStep::PeerClosed => {}
                RecordStep::Blocked => return result.unwrap_or(Err(Error::HandshakeNotComplete)),
            }
        }
    }
}

/// Sending over an established connection, for both of rustls' types.
trait Traffic {
    fn encrypt(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Traffic for WriteTraffic<'_, Data> {
    fn encrypt(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::encrypt(self, bytes, out)
    }

    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::queue_close_notify(self, out)
    }
}

/// Result of one call of [`step`].
enum RecordStep {
    /// Call again.
    Again,
    /// The peer has sent close_notify; call again.
    PeerClosed,
    /// Nothing more to do without new bytes in one of the directions.
    Blocked,
}

/// Where the results of a step go.
struct Sinks<'a> {
    to_send: &'a mut Vec<u8>,
    deliver: &'a mut dyn FnMut(&[u8]),
    traffic: &'a mut dyn FnMut(&mut dyn Traffic),
}

/// Processes one state of rustls. Returns how many bytes of `incoming` to discard with the result.
fn step(
    rustls: &mut RustlsConnection,
    incoming: &mut [u8],
    to_send: &mut Vec<u8>,
    deliver: &mut dyn FnMut(&[u8]),
    traffic: &mut dyn FnMut(&mut dyn Traffic),
) -> (Result<RecordStep, Error>, usize) {
    let sinks = Sinks { to_send, deliver, traffic };
    match rustls {
        RustlsConnection::Client(client) => process_status(client.process_tls_records(incoming), sinks),
        RustlsConnection::Server(server) => process_status(server.process_tls_records(incoming), sinks),
    }
}

fn process_status<Data>(
    UnbufferedStatus { mut discard, state }: UnbufferedStatus<'_, '_, Data>,
    Sinks { to_send, deliver, traffic }: Sinks<'_>,
) -> (Result<RecordStep, Error>, usize) {
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    deliver(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(RecordStep::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = to_send.len();
            loop {
                match data.encode(&mut to_send[start..]) {
                    Err(EncodeError::InsufficientSize(size)) => to_send.resize(start + size.required_size, 0),
                    _ => break Ok(RecordStep::Again),
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(RecordStep::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut open)) => {
            traffic(&mut open);
            Ok(RecordStep::Blocked)
        }
        Ok(ConnectionState::PeerClosed) => Ok(RecordStep::PeerClosed),
        // Early data is not accepted. The enum is non-exhaustive; unknown states cannot be advanced.
        Ok(_) => Ok(RecordStep::Blocked),
    };
    (step, discard)
}
