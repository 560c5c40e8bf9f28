//! Tests of TLS against rustls' own server, without sockets.

mod files;
mod handshakes;
mod refusals;
mod server;
mod streams;

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use testkit::tls::{Authority, Identity, Validity};

use super::handshake::{TlsConnection, TlsOutcome, TlsStep, begin};
use super::{TlsContext, TlsError, TlsSettings, TlsVersion, Verify};

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const V12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const V13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A temporary directory, removed on drop.
struct TempDirectory(std::path::PathBuf);

impl TempDirectory {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sockproxyd-tls-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        // The temporary directory's own path may contain a link.
        Self(path.canonicalize().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A context that trusts `authority`, and the directory of its files.
fn trusting(authority: &Authority) -> (TlsContext, TempDirectory) {
    let directory = TempDirectory::new();
    let ca = directory.write("ca.pem", &authority.pem());
    (TlsContext::new(Some(directory.0.clone()), Some(ca)), directory)
}

fn unverified() -> TlsSettings {
    TlsSettings { verify: Verify::None, ..TlsSettings::default() }
}

/// Takes the bytes that the server wants to send.
fn drain(server: &mut ServerConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut sent).unwrap();
    }
    sent
}

/// Passes `bytes` to the server.
fn receive(server: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).unwrap();
        server.process_new_packets()?;
    }
    Ok(())
}

/// Both ends after a handshake.
struct Finished {
    client: Result<TlsConnection, TlsError>,
    server: ServerConnection,
    /// The server's result for the client's bytes.
    received: Result<(), rustls::Error>,
}

/// Runs a handshake between a client and a server. The server's bytes reach the client in pieces of at most `piece`
/// bytes.
fn handshake_in_pieces(
    context: &TlsContext,
    host: &str,
    settings: &TlsSettings,
    config: &Arc<ServerConfig>,
    piece: usize,
) -> Finished {
    let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
    let (mut pending, hello) = match begin(context, host, settings) {
        Ok(begun) => begun,
        Err(error) => return Finished { client: Err(error), server, received: Ok(()) },
    };
    let mut received = receive(&mut server, &hello);
    let mut answer = drain(&mut server);
    let client = loop {
        assert!(!answer.is_empty(), "client and server wait for each other: {received:?}");
        let rest = answer.split_off(piece.min(answer.len()));
        let TlsStep { to_send, outcome } = pending.advance(&answer);
        received = received.and_then(|()| receive(&mut server, &to_send));
        answer = [rest, drain(&mut server)].concat();
        match outcome {
            TlsOutcome::Pending(more) => pending = more,
            TlsOutcome::Failed(error) => break Err(error),
            TlsOutcome::Done(mut connection) => {
                // Bytes that follow the server's handshake: session tickets, or an alert that refuses the client.
                let mut incoming = [connection.connection.incomplete(), &answer].concat();
                let deliver = |_: &[u8]| panic!("plain bytes that the server did not send");
                if let Err(error) = connection.connection.process(&mut incoming, &mut Vec::new(), deliver) {
                    break Err(connection.connection.error(&error));
                }
                break Ok(connection);
            }
        }
    };
    Finished { client, server, received }
}

fn handshake(context: &TlsContext, host: &str, settings: &TlsSettings, config: &Arc<ServerConfig>) -> Finished {
    handshake_in_pieces(context, host, settings, config, usize::MAX)
}

/// The text of the error of a handshake that fails.
fn error_text(context: &TlsContext, host: &str, settings: &TlsSettings, config: &Arc<ServerConfig>) -> String {
    handshake(context, host, settings, config).client.expect_err("the handshake should fail").to_string()
}

/// Sends bytes in both directions over a finished handshake.
fn exchange(finished: Finished) {
    let Finished { client, mut server, received } = finished;
    received.unwrap();
    let mut client = client.unwrap().connection;
    let (mut to_send, mut out) = (Vec::new(), Vec::new());
    let length = client.encrypt(b"ping", &mut to_send, &mut out).unwrap();
    receive(&mut server, &[&to_send, &out[..length]].concat()).unwrap();
    let mut received = [0; 4];
    server.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"ping");
    server.writer().write_all(b"pong").unwrap();
    let mut sent = drain(&mut server);
    let mut plain = Vec::new();
    client.process(&mut sent, &mut to_send, |bytes| plain.extend_from_slice(bytes)).unwrap();
    assert_eq!(plain, b"pong");
}
