//! Tests of our end as the server.

use std::sync::mpsc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use super::*;
use crate::tls::handshake::begin_server;
use crate::tls::{Handshakes, PendingHandshake, ServerTlsSettings};

/// A context with a certificate for `a.example`, and its directory.
fn with_certificate() -> (TlsContext, TempDirectory, Identity) {
    let directory = TempDirectory::new();
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    directory.write("own.pem", identity.pem());
    directory.write("own.key", identity.key_pem());
    (TlsContext::new(Some(directory.0.clone()), None), directory, identity)
}

fn files(certificate: &str, key: &str) -> ServerTlsSettings {
    ServerTlsSettings { certificate: certificate.into(), key: (!key.is_empty()).then(|| key.into()) }
}

fn own() -> ServerTlsSettings {
    files("own.pem", "own.key")
}

/// A configuration of rustls' own client that trusts `identity`.
fn client_config(identity: &Identity, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(testkit::tls::provider());
    builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth()
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("a.example").unwrap()).unwrap()
}

fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).unwrap();
    }
    sent
}

fn received_by(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// Runs a handshake of our server with rustls' client, whose bytes come in pieces of at most `piece` bytes.
fn accept(
    mut pending: PendingHandshake,
    client: &mut ClientConnection,
    piece: usize,
) -> Result<TlsConnection, TlsError> {
    let mut sent = sent_by(client);
    let mut refused = None;
    loop {
        let rest = sent.split_off(piece.min(sent.len()));
        let TlsStep { to_send, outcome } = pending.advance(&sent);
        if let Err(error) = received_by(client, &to_send) {
            refused.get_or_insert(error);
        }
        sent = [rest, sent_by(client)].concat();
        match outcome {
            TlsOutcome::Pending(more) => pending = more,
            TlsOutcome::Done(connection) => return Ok(connection),
            TlsOutcome::Failed(error) => return Err(error),
        }
    }
}

/// Passes bytes in both directions.
fn exchange_with(connection: TlsConnection, client: &mut ClientConnection) {
    let mut server = connection.connection;
    client.writer().write_all(b"ping").unwrap();
    let mut plain = connection.plain;
    let mut incoming = [server.incomplete(), &sent_by(client)].concat();
    let mut to_send = Vec::new();
    server.process(&mut incoming, &mut to_send, |bytes| plain.extend_from_slice(bytes)).unwrap();
    assert_eq!(plain, b"ping");
    let mut out = Vec::new();
    let length = server.encrypt(b"pong", &mut to_send, &mut out).unwrap();
    received_by(client, &[&to_send, &out[..length]].concat()).unwrap();
    let mut received = [0; 4];
    client.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"pong");
}

#[test]
fn clients_of_both_versions_are_accepted_in_pieces_of_any_size() {
    let (context, _directory, identity) = with_certificate();
    for (versions, version) in [(BOTH, "TLSv1.3"), (V13, "TLSv1.3"), (V12, "TLSv1.2")] {
        for piece in [1, 2, 3, 5, 6, 100, 517, usize::MAX] {
            let mut client = client(&Arc::new(client_config(&identity, versions)));
            let pending = begin_server(&context, &own()).unwrap();
            let connection = accept(pending, &mut client, piece).unwrap();
            assert_eq!(connection.version(), version);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            exchange_with(connection, &mut client);
        }
    }
}
