//! Tests of TLS against rustls' own server, without sockets.

mod files;
mod handshakes;
mod refusals;
mod streams;

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use testkit::tls::{Authority, Identity, Validity};

use super::handshake::{Outcome, Step, TlsConnection, begin};
use super::{Failure, House, Settings, Verify, Version};

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const V12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const V13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A directory that is removed again.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sockproxyd-tls-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        // /tmp may be a link itself.
        Self(path.canonicalize().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A house that trusts `authority`.
fn trusting(authority: &Authority) -> (House, Directory) {
    let directory = Directory::new();
    let ca = directory.write("ca.pem", &authority.pem());
    (House::new(Some(directory.0.clone()), Some(ca)), directory)
}

fn unverified() -> Settings {
    Settings { verify: Verify::None, ..Settings::default() }
}

/// What the server has to say.
fn drain(server: &mut ServerConnection) -> Vec<u8> {
    let mut said = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut said).unwrap();
    }
    said
}

/// Has the server hear `bytes`.
fn hear(server: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).unwrap();
        server.process_new_packets()?;
    }
    Ok(())
}

/// What came of a handshake.
struct Shaken {
    client: Result<TlsConnection, Failure>,
    server: ServerConnection,
    /// What the server thinks of what the client sent.
    heard: Result<(), rustls::Error>,
}

/// A handshake of a client and a server, whose bytes reach the client in pieces of at most `piece`.
fn shake_in_pieces(house: &House, host: &str, settings: &Settings, config: &Arc<ServerConfig>, piece: usize) -> Shaken {
    let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
    let (mut pending, hello) = match begin(house, host, settings) {
        Ok(begun) => begun,
        Err(failure) => return Shaken { client: Err(failure), server, heard: Ok(()) },
    };
    let mut heard = hear(&mut server, &hello);
    let mut answer = drain(&mut server);
    let client = loop {
        assert!(!answer.is_empty(), "both wait: {heard:?}");
        let rest = answer.split_off(piece.min(answer.len()));
        let Step { to_send, outcome } = pending.advance(&answer);
        heard = heard.and_then(|()| hear(&mut server, &to_send));
        answer = [rest, drain(&mut server)].concat();
        match outcome {
            Outcome::More(more) => pending = more,
            Outcome::Failed(failure) => break Err(failure),
            Outcome::Done(mut connection) => {
                // What the server says behind its handshake: tickets, or that it does not want us.
                let mut incoming = [connection.connection.rest(), &answer].concat();
                let deliver = |_: &[u8]| panic!("nobody said anything");
                if let Err(error) = connection.connection.process(&mut incoming, &mut Vec::new(), deliver) {
                    break Err(Failure::of(&error));
                }
                break Ok(connection);
            }
        }
    };
    Shaken { client, server, heard }
}

fn shake(house: &House, host: &str, settings: &Settings, config: &Arc<ServerConfig>) -> Shaken {
    shake_in_pieces(house, host, settings, config, usize::MAX)
}

/// The words of a handshake that fails.
fn words(house: &House, host: &str, settings: &Settings, config: &Arc<ServerConfig>) -> String {
    shake(house, host, settings, config).client.expect_err("a handshake that fails").to_string()
}

/// Has both sides say something to each other.
fn exchange(shaken: Shaken) {
    let Shaken { client, mut server, heard } = shaken;
    heard.unwrap();
    let mut client = client.unwrap().connection;
    let (mut to_send, mut out) = (Vec::new(), Vec::new());
    let length = client.encrypt(b"ping", &mut to_send, &mut out).unwrap();
    hear(&mut server, &[&to_send, &out[..length]].concat()).unwrap();
    let mut heard = [0; 4];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    server.writer().write_all(b"pong").unwrap();
    let mut said = drain(&mut server);
    let mut plain = Vec::new();
    client.process(&mut said, &mut to_send, |bytes| plain.extend_from_slice(bytes)).unwrap();
    assert_eq!(plain, b"pong");
}
