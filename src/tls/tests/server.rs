//! Tests of our end as the server.

use crate::client::ClientKey;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::mpsc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme,
};

use super::streams::{MemoryWire, WireStream};
use super::*;
use crate::net::socket::Stream;
use crate::tls::handshake::begin_server;
use crate::tls::{Handshakes, PendingHandshake, ServerTlsSettings, TlsStream};

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

/// A configuration of rustls' own client that trusts the certificate `trusted`.
fn client_config(trusted: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
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
            let mut client = client(&Arc::new(client_config(identity.pem(), versions)));
            let pending = begin_server(&context, &own()).unwrap();
            let connection = accept(pending, &mut client, piece).unwrap();
            assert_eq!(connection.version(), version);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            exchange_with(connection, &mut client);
        }
    }
}

#[test]
fn our_own_client_is_accepted() {
    let (context, _directory, identity) = with_certificate();
    let pinned = TlsSettings { verify: Verify::Pins(vec![identity.fingerprint()]), ..TlsSettings::default() };
    let (mut client, mut sent) = begin(&context, "a.example", &pinned).unwrap();
    let mut server = begin_server(&context, &own()).unwrap();
    let (mut accepted, mut connected) = (None, None);
    while accepted.is_none() || connected.is_none() {
        let step = server.advance(&sent);
        match step.outcome {
            TlsOutcome::Pending(more) => server = more,
            TlsOutcome::Done(connection) => {
                accepted = Some(connection);
                break;
            }
            TlsOutcome::Failed(error) => panic!("{error}"),
        }
        let step = client.advance(&step.to_send);
        sent = step.to_send;
        match step.outcome {
            TlsOutcome::Pending(more) => client = more,
            TlsOutcome::Done(connection) => {
                connected = Some(connection);
                client = begin(&context, "a.example", &pinned).unwrap().0;
            }
            TlsOutcome::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(accepted.unwrap().version(), "TLSv1.3");
    assert_eq!(connected.unwrap().version(), "TLSv1.3");
}

#[test]
fn protocols_and_names_that_clients_ask_for_are_ignored() {
    let (context, _directory, identity) = with_certificate();
    for versions in [V12, V13] {
        for (name, protocols) in [
            // Browsers offer one of these for wss://.
            ("a.example", &["http/1.1"][..]),
            ("a.example", &["h2", "http/1.1"]),
            ("a.example", &["mqtt"]),
            ("b.example", &[]),
            ("my_vera.local", &[]),
            ("127.0.0.1", &[]),
        ] {
            let mut config = client_config(identity.pem(), versions);
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate));
            let name = ServerName::try_from(name).unwrap();
            let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
            let connection = accept(begin_server(&context, &own()).unwrap(), &mut client, usize::MAX).unwrap();
            assert_eq!(client.alpn_protocol(), None);
            exchange_with(connection, &mut client);
        }
    }
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        testkit::tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn sessions_are_resumed_until_the_certificate_changes() {
    for versions in [V12, V13] {
        let (context, directory, identity) = with_certificate();
        let mut config = client_config(identity.pem(), versions);
        config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate));
        let config = Arc::new(config);
        let connect = |kind| {
            let mut client = client(&config);
            let connection = accept(begin_server(&context, &own()).unwrap(), &mut client, usize::MAX).unwrap();
            exchange_with(connection, &mut client);
            assert_eq!(client.handshake_kind(), Some(kind));
        };
        connect(HandshakeKind::Full);
        connect(HandshakeKind::Resumed);
        let other = Identity::self_signed(&["a.example", "other.example"], Validity::Now);
        directory.write("own.pem", other.pem());
        directory.write("own.key", other.key_pem());
        connect(HandshakeKind::Full);
        connect(HandshakeKind::Resumed);
    }
}

#[test]
fn a_new_certificate_is_used_once_both_files_are_written() {
    let (context, directory, identity) = with_certificate();
    let config = context.server_config(&own()).unwrap();
    assert!(Arc::ptr_eq(&config, &context.server_config(&own()).unwrap()));
    let other = Identity::self_signed(&["a.example", "other.example"], Validity::Now);
    directory.write("own.pem", other.pem());
    let found = begin_server(&context, &own()).unwrap_err().to_string();
    assert_eq!(found, "SSL_ERROR CERT and PKEY do not belong together");
    directory.write("own.key", other.key_pem());
    let mut client = client(&Arc::new(client_config(other.pem(), BOTH)));
    exchange_with(accept(begin_server(&context, &own()).unwrap(), &mut client, usize::MAX).unwrap(), &mut client);
    assert_ne!(other.der(), identity.der());
    std::fs::remove_file(directory.0.join("own.key")).unwrap();
    let found = begin_server(&context, &own()).unwrap_err().to_string();
    assert!(found.starts_with("SSL_ERROR PKEY own.key: No such file"), "{found}");
}

#[test]
fn unusable_certificates_and_keys_are_named() {
    let (context, directory, identity) = with_certificate();
    let other = Identity::self_signed(&["a.example"], Validity::Now);
    directory.write("other.key", other.key_pem());
    directory.write("both.pem", &(identity.key_pem().to_owned() + identity.pem()));
    directory.write("p521.key", include_str!("p521.key"));
    directory.write("rsa.pem", include_str!("rsa.pem"));
    directory.write("rsa.key", include_str!("rsa.pkcs1.key"));
    for usable in [files("both.pem", ""), files("both.pem", "own.key"), files("rsa.pem", "rsa.key")] {
        begin_server(&context, &usable).unwrap_or_else(|error| panic!("{usable:?}: {error}"));
    }
    for (certificate, key, reason) in [
        ("own.pem", "other.key", "CERT and PKEY do not belong together"),
        ("own.pem", "", "CERT own.pem: there is no private key in it"),
        ("own.pem", "own.pem", "PKEY own.pem: there is no private key in it"),
        ("own.key", "own.key", "CERT own.key: there is no certificate in it"),
        ("none.pem", "own.key", "CERT none.pem: No such file or directory (os error 2)"),
        ("../own.pem", "own.key", "CERT ../own.pem: it lies outside of the directory for such files"),
        ("own.pem", "/etc/shadow", "PKEY /etc/shadow: it lies outside of the directory for such files"),
        (
            "own.pem",
            "p521.key",
            "PKEY p521.key: its P-521 key is not supported: RSA of 2048 to 4096 bits, P-256 and P-384 work",
        ),
    ] {
        let found = begin_server(&context, &files(certificate, key)).unwrap_err().to_string();
        assert_eq!(found, format!("SSL_ERROR {reason}"));
    }
    let found = begin_server(&TlsContext::new(None, None), &own()).unwrap_err().to_string();
    assert_eq!(found, "SSL_ERROR CERT names a file, and there is no directory for any");
}

#[test]
fn a_pool_tells_at_once_whether_a_certificate_can_be_used() {
    let (context, _directory, _) = with_certificate();
    let (woken, wake) = mpsc::channel();
    let wake_up = move || {
        let _ = woken.send(());
    };
    let mut handshakes = Handshakes::new(Arc::new(context), 1, wake_up);
    handshakes.begin_server(1, ClientKey::Loopback, &own());
    handshakes.begin_server(2, ClientKey::Loopback, &files("none.pem", "own.key"));
    let mut found = Vec::new();
    while found.len() < 2 {
        wake.recv().unwrap();
        found.extend(handshakes.take_results());
    }
    assert!(found.iter().all(|(_, step)| step.to_send.is_empty()), "{found:?}");
    found.sort_by_key(|(key, _)| *key);
    assert!(matches!(found[0].1.outcome, TlsOutcome::Pending(_)), "{found:?}");
    assert!(matches!(found[1].1.outcome, TlsOutcome::Failed(_)), "{found:?}");
}

/// What the server says of a client whose first bytes are these: the bytes to send, and the error.
fn refused(bytes: &[u8]) -> (Vec<u8>, String) {
    let (context, _directory, _) = with_certificate();
    let TlsStep { to_send, outcome } = begin_server(&context, &own()).unwrap().advance(bytes);
    let TlsOutcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    (to_send, error.to_string())
}

#[test]
fn clients_that_do_not_speak_tls_are_named() {
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: vera\r\n\r\n"[..], "the client speaks plain HTTP on this port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the client does not speak TLS on this port"),
        (&[0; 100], "the client does not speak TLS on this port"),
        (b"\x80\x2e\x01\x00\x02", "the client speaks SSL 2, which is too old"),
        (b"", "closed by the client during the handshake"),
        (
            &[0x15, 3, 1, 0, 2, 2, 40],
            "the client finds no common ground (HandshakeFailure): supported are TLS 1.2 and 1.3",
        ),
        (&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3], "the client sent "),
        (&[0x16, 3, 1, 0, 4, 1, 0, 0, 0], "the client sent an invalid TLS message"),
    ] {
        let (to_send, found) = refused(bytes);
        assert!(found.starts_with(&format!("SSL_ERROR {reason}")), "{found}");
        // A browser shows what it gets.
        let to_send = String::from_utf8_lossy(&to_send);
        assert_eq!(to_send.starts_with("HTTP/1.1 400 "), reason.contains("HTTP"), "{to_send}");
        if let Some((head, body)) = to_send.split_once("\r\n\r\n") {
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        }
    }
}

/// A ClientHello for `version`, the second byte of it, with one cipher suite and no extensions.
fn client_hello(version: u8, suite: [u8; 2]) -> Vec<u8> {
    let body = [&[3, version][..], &[7; 32], &[0, 0, 2], &suite, &[1, 0]].concat();
    let length = body.len() as u8;
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[test]
fn old_clients_are_told_and_named() {
    // SSL 3, TLS 1.0 and 1.1, and 1.2 without signature_algorithms, with and without a cipher suite in common.
    for version in 0..4 {
        for suite in [[0, 0x2f], [0xc0, 0x2b]] {
            let (to_send, found) = refused(&client_hello(version, suite));
            assert_eq!(
                found,
                "SSL_ERROR the client is too old: supported are TLS 1.2 and 1.3 with ECDHE, and AES-GCM or ChaCha20-Poly1305"
            );
            // A fatal alert.
            assert!(matches!(to_send[..], [0x15, 3, _, 0, 2, 2, _]), "{to_send:?}");
        }
    }
}

#[test]
fn a_client_with_nothing_in_common_is_named() {
    let (context, directory, _) = with_certificate();
    directory.write("rsa.pem", include_str!("rsa.pem"));
    directory.write("rsa.key", include_str!("rsa.pkcs1.key"));
    let all = testkit::tls::provider();
    let suite = all.cipher_suites.iter().copied();
    let suites = suite.filter(|suite| suite.suite() == CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256).collect();
    let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..CryptoProvider::clone(&all) });
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(V12).unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = client(&Arc::new(config));
    let pending = begin_server(&context, &files("rsa.pem", "rsa.key")).unwrap();
    let found = accept(pending, &mut client, usize::MAX).unwrap_err().to_string();
    assert!(
        found.starts_with("SSL_ERROR no common ground: ") && found.ends_with("AES-GCM or ChaCha20-Poly1305"),
        "{found}"
    );
}

#[test]
fn a_client_that_refuses_the_certificate_is_named() {
    let (context, _directory, _) = with_certificate();
    let stranger = Authority::new("strangers").pem();
    for versions in [V12, V13] {
        let mut client = client(&Arc::new(client_config(&stranger, versions)));
        let found = accept(begin_server(&context, &own()).unwrap(), &mut client, usize::MAX).unwrap_err().to_string();
        assert!(found.starts_with("SSL_ERROR the client refuses our certificate ("), "{found}");
    }
    // Some clients only close.
    let mut client = client(&Arc::new(client_config(&stranger, BOTH)));
    let TlsOutcome::Pending(pending) = begin_server(&context, &own()).unwrap().advance(&sent_by(&mut client)).outcome
    else {
        panic!()
    };
    let TlsOutcome::Failed(error) = pending.advance(b"").outcome else { panic!() };
    assert_eq!(error.to_string(), "SSL_ERROR closed by the client during the handshake: it may refuse our certificate");
}

#[test]
fn an_endless_client_hello_is_refused() {
    // A ClientHello that claims 16 MiB, in one byte after the other and in records of 16 KiB; and one that claims 60 KiB.
    for claim in [[0xff, 0xff, 0xff], [0, 0xf0, 0]] {
        for record_length in [1, 0x100, 0x4000_usize] {
            let (context, _directory, _) = with_certificate();
            let mut pending = begin_server(&context, &own()).unwrap();
            let message = [&[1][..], &claim, &[0; 60_000]].concat();
            let mut received = 0;
            let refused = message.chunks(record_length).any(|piece| {
                let [high, low] = (piece.len() as u16).to_be_bytes();
                let TlsStep { outcome, .. } = std::mem::replace(&mut pending, begin_server(&context, &own()).unwrap())
                    .advance(&[&[0x16, 3, 1, high, low], piece].concat());
                received += piece.len() + 5;
                match outcome {
                    TlsOutcome::Pending(more) => pending = more,
                    TlsOutcome::Failed(error) => {
                        assert!(error.to_string().starts_with("SSL_ERROR the client sent "), "{error}");
                        return true;
                    }
                    TlsOutcome::Done(_) => panic!(),
                }
                false
            });
            assert!(refused, "{claim:?} in records of {record_length} bytes");
            assert!(received <= 20 * 1024 + record_length + 5, "{received} bytes");
        }
    }
}

#[test]
fn an_altered_byte_anywhere_ends_the_handshake_as_a_server() {
    let (context, _directory, identity) = with_certificate();
    let mut random = testkit::random::Random::new(7);
    for versions in [V12, V13] {
        let config = Arc::new(client_config(identity.pem(), versions));
        for _ in 0..300 {
            let mut client = client(&config);
            let mut dice = [0; 4];
            random.fill(&mut dice);
            let mut hello = sent_by(&mut client);
            let at = usize::from(u16::from_le_bytes([dice[0], dice[1]])) % hello.len();
            hello[at] ^= dice[2] | 1;
            let mut pending = begin_server(&context, &own()).unwrap();
            for _ in 0..3 {
                let TlsStep { to_send, outcome } = pending.advance(&hello);
                let _ = received_by(&mut client, &to_send);
                hello = sent_by(&mut client);
                match outcome {
                    // The version of a record is ignored (RFC 8446 section 5.1).
                    TlsOutcome::Done(_) => assert!(at == 1 || at == 2, "altering byte {at} had no effect"),
                    TlsOutcome::Failed(error) => assert!(error.to_string().starts_with("SSL_ERROR ")),
                    TlsOutcome::Pending(more) => {
                        pending = more;
                        continue;
                    }
                }
                break;
            }
        }
    }
}

/// A client, and the stream of the server that has accepted it.
struct Accepted {
    stream: TlsStream<WireStream>,
    wire: Rc<RefCell<MemoryWire>>,
    client: ClientConnection,
}

impl Accepted {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let (context, _directory, identity) = with_certificate();
        let mut client = client(&Arc::new(client_config(identity.pem(), versions)));
        let connection = accept(begin_server(&context, &own()).unwrap(), &mut client, usize::MAX).unwrap();
        let wire = Rc::new(RefCell::new(MemoryWire { window: usize::MAX, ..MemoryWire::default() }));
        Self { stream: TlsStream::new(WireStream(Rc::clone(&wire)), connection, Vec::new()), wire, client }
    }

    /// Moves the bytes that the client wants to send to the wire.
    fn deliver(&mut self) {
        let sent = sent_by(&mut self.client);
        self.wire.borrow_mut().inbound.extend(sent);
    }

    /// Passes the server's bytes to the client and returns the plain bytes.
    fn receive(&mut self) -> Vec<u8> {
        let sent = std::mem::take(&mut self.wire.borrow_mut().outbound);
        received_by(&mut self.client, &sent).unwrap();
        let mut received = Vec::new();
        let _ = self.client.reader().read_to_end(&mut received);
        received
    }

    fn recv(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 100];
        let length = self.stream.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[test]
fn either_end_may_close_its_direction_first() {
    for versions in [V12, V13] {
        let mut pair = Accepted::new(versions);
        pair.client.writer().write_all(b"last bytes").unwrap();
        pair.client.send_close_notify();
        pair.deliver();
        assert_eq!(pair.recv().unwrap(), b"last bytes");
        assert_eq!(pair.recv().unwrap(), b"");
        assert_eq!(pair.stream.send(b"thanks").unwrap(), 6);
        pair.stream.shutdown_write();
        assert_eq!(pair.receive(), b"thanks");
        assert!(pair.wire.borrow().shut);

        let mut pair = Accepted::new(versions);
        assert_eq!(pair.stream.send(b"last bytes").unwrap(), 10);
        pair.stream.shutdown_write();
        assert_eq!(pair.receive(), b"last bytes");
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        pair.client.writer().write_all(b"more").unwrap();
        pair.deliver();
        assert_eq!(pair.recv().unwrap(), b"more");
        pair.wire.borrow_mut().ended = true;
        let error = pair.recv().unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::UnexpectedEof, "closed without close_notify"));
    }
}

#[test]
fn errors_after_the_handshake_name_the_client() {
    for versions in [V12, V13] {
        let mut pair = Accepted::new(versions);
        pair.client.writer().write_all(b"forged").unwrap();
        pair.deliver();
        *pair.wire.borrow_mut().inbound.back_mut().unwrap() ^= 1;
        assert_eq!(pair.recv().unwrap_err().kind(), ErrorKind::InvalidData);
        let sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(received_by(&mut pair.client, &sent), Err(alert));
        // A client that does not understand what it gets, and says so.
        let mut pair = Accepted::new(versions);
        pair.stream.send(b"forged").unwrap();
        let mut sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        *sent.last_mut().unwrap() ^= 1;
        assert!(received_by(&mut pair.client, &sent).is_err());
        pair.deliver();
        assert_eq!(pair.recv().unwrap_err().to_string(), "SSL_ERROR the client says BadRecordMac");
    }
}

#[test]
fn an_idle_connection_holds_its_state_alone() {
    for versions in [V12, V13] {
        let mut pair = Accepted::new(versions);
        assert_eq!(pair.recv().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!((1000..4000).contains(&pair.stream.held()), "{}", pair.stream.held());
    }
}
