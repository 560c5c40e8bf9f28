//! Certificates: the plugin's, and errors of the server's. The messages are the same over TLS and WebSocket.

use testkit::daemon::Daemon;
use testkit::tls::{Authority, Identity, TlsDevice, Validity};
use testkit::websocket::Server;

use crate::support::{LIMIT, StatClient, conn_answer, daemon, read_message_text, redirecting_server, send_message};

/// Long timeouts, for handshakes on a busy machine.
const LONG_TIMEOUTS: &str = "CTIM=30000 RQTM=60000";

#[test]
fn a_client_certificate_is_sent_only_to_the_server_that_the_plugin_named() {
    let clients = Authority::new("clients");
    let (daemon, identity) = with_certificates(&clients);
    let end = Server::echo_secure(identity.server(rustls::ALL_VERSIONS, Some(&clients)));
    let options = format!("{LONG_TIMEOUTS} CERT=client.pem");
    let mut plugin = daemon.plugin();
    plugin.conn(end.url("/"), &options);
    // Another port counts as another server, which must not get the certificate.
    for host in ["localhost", "127.0.0.1"] {
        let location = format!("wss://{host}:{}/", end.addr().port());
        let (server, _) = redirecting_server(Some(identity.any_server()), "302 Found", location);
        let reply = conn_answer(&daemon, &server.url("/"), &options);
        assert_eq!(reply, "ERR CONN SSL_ERROR the server wants a certificate from us", "{host}");
    }
}

/// A daemon with client.pem (issued by `clients`), other.pem (of another authority) and ca.pem, and a server's identity
/// that it trusts.
#[track_caller]
fn with_certificates(clients: &Authority) -> (Daemon, Identity) {
    let authority = Authority::new("authority");
    let both = |identity: &Identity| [identity.pem(), identity.key_pem()].concat();
    let client = clients.issue(&["client"], Validity::Now);
    let other = Authority::new("other").issue(&["client"], Validity::Now);
    let expired = clients.issue(&["client"], Validity::Past);
    let daemon = daemon()
        .config("[tls]\nca={dir}/ca.pem\ndirectory={dir}\n")
        .file("ca.pem", authority.pem().as_bytes())
        .file("client.pem", both(&client).as_bytes())
        .file("certificate.pem", client.pem().as_bytes())
        .file("key.pem", client.key_pem().as_bytes())
        .file("other.pem", both(&other).as_bytes())
        .file("expired.pem", both(&expired).as_bytes())
        .start();
    (daemon, authority.issue(&["127.0.0.1", "localhost"], Validity::Now))
}

#[test]
fn client_certificates_are_accepted_or_refused_with_a_reason() {
    let clients = Authority::new("clients");
    let (daemon, identity) = with_certificates(&clients);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let server = Server::echo_secure(identity.server(versions, Some(&clients)));
        let options = |more: &str| format!("{LONG_TIMEOUTS} {more}");
        for certificate in ["CERT=client.pem", "CERT=certificate.pem PKEY=key.pem", "CERT=client.pem PKEY=client.pem"] {
            let mut plugin = daemon.plugin();
            plugin.conn(server.url("/"), &options(certificate));
            send_message(&mut plugin, "TEXT", b"hi");
            assert_eq!(read_message_text(&mut plugin), "TEXT hi");
        }
        for (certificate, words) in [
            ("", "the server wants a certificate from us"),
            ("CERT=other.pem", "the server refuses our certificate (UnknownCA)"),
            ("CERT=expired.pem", "the server refuses our certificate (CertificateExpired)"),
            ("CERT=certificate.pem", "CERT certificate.pem: there is no private key in it"),
            ("CERT=certificate.pem PKEY=other.pem", "CERT and PKEY do not belong together"),
            ("CERT=missing.pem", "CERT missing.pem: No such file or directory (os error 2)"),
            ("PKEY=key.pem", "PKEY needs CERT"),
        ] {
            let reply = conn_answer(&daemon, &server.url("/"), &options(certificate));
            assert_eq!(reply, format!("ERR CONN SSL_ERROR {words}"), "{certificate}");
        }
    }
    // With TLS 1.3 the stream is open before the server has checked the certificate: the plugin sees an end; the log and
    // STAT JSON have the reason. (HA core#85118)
    let device = TlsDevice::echo(identity.server(&[&rustls::version::TLS13], Some(&clients)));
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=tls CTIM=30000 CERT=client.pem");
    plugin.send(b"hi\n");
    assert_eq!(plugin.line(), "hi");
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=tls CTIM=30000");
    assert!(plugin.at_end());
    let why = "remote's connection lost (SSL_ERROR the server wants a certificate from us)";
    let line = format!("{} closed: {why}; {}, received 0, sent 0", plugin.pid(), device.addr());
    daemon.wait_for_log(LIMIT, |logged| logged.contains(&line));
    let ended = StatClient::new(daemon.addr()).wait_ended(plugin.pid());
    assert_eq!((&ended["target"], &ended["protocol"]), (&device.addr().to_string().into(), &"tls".into()));
    assert_eq!(ended["reason"], why);
    let old = TlsDevice::echo(identity.server(&[&rustls::version::TLS12], Some(&clients)));
    let reply = conn_answer(&daemon, &old.addr().to_string(), "PRTO=tls CTIM=30000");
    assert_eq!(reply, "ERR CONN SSL_ERROR the server wants a certificate from us");
}

#[test]
fn errors_of_the_servers_certificate_are_reported_with_a_reason() {
    let clients = Authority::new("unused");
    let (daemon, identity) = with_certificates(&clients);
    let authority = Authority::new("another authority");
    let issued = |names: &[&str], validity| authority.issue(names, validity);
    let directory = daemon.dir().to_owned();
    std::fs::write(directory.join("another.pem"), authority.pem()).unwrap();
    let unknown = issued(&["127.0.0.1"], Validity::Now);
    let own = Identity::self_signed_authority(&["127.0.0.1"]);
    std::fs::write(directory.join("own.pem"), own.pem()).unwrap();
    let no_name = Identity::self_signed(&[], Validity::Now);
    let pin = |identity: &Identity| format!("PINS={}", identity.pin());
    let refused = |identity: &Identity, why: &str| format!("{why}, certificate is {}", identity.pin());
    for (config, options, words) in [
        (identity.any_server(), String::new(), None),
        (identity.any_server(), "TLSV=1.3".into(), None),
        (identity.any_server(), pin(&identity), None),
        (identity.any_server(), format!("{},{}", pin(&own), identity.pin()), None),
        (unknown.any_server(), "CAFL=another.pem".into(), None),
        (unknown.any_server(), String::new(), Some(refused(&unknown, "unknown issuer"))),
        (own.any_server(), String::new(), Some(refused(&own, "unknown issuer (self-signed)"))),
        (own.any_server(), pin(&own), None),
        (own.any_server(), "CAFL=own.pem".into(), None),
        (no_name.any_server(), pin(&no_name), None),
        (unknown.any_server(), pin(&own), Some(refused(&unknown, "pin refused"))),
        (
            issued(&["127.0.0.1"], Validity::Past).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate expired at 2001-02-03T00:00:00Z, the clock says ".into()),
        ),
        (
            issued(&["127.0.0.1"], Validity::Future).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate not valid before 2199-01-01T00:00:00Z, the clock says ".into()),
        ),
        (
            issued(&["a.example", "b.example"], Validity::Now).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate is not for 127.0.0.1, but for a.example, b.example".into()),
        ),
        (issued(&["a.example"], Validity::Now).any_server(), "CAFL=another.pem SNIH=a.example".into(), None),
        (identity.tls12_server(), "TLSV=1.3".into(), Some("no common version of TLS: the server refuses ours".into())),
    ] {
        // The same messages over both protocols.
        let server = Server::echo_secure(config.clone());
        let device = TlsDevice::echo(config);
        let plain = format!("{} PRTO=tls", device.addr());
        for target in [format!("{} RQTM=60000", server.url("/")), plain] {
            let reply = conn_answer(&daemon, &target, &format!("CTIM=30000 {options}"));
            match &words {
                None => assert!(reply.starts_with("OK CONN "), "{target} {options}: {reply}"),
                Some(words) => {
                    assert!(reply.starts_with(&format!("ERR CONN SSL_ERROR {words}")), "{target} {options}: {reply}");
                }
            }
        }
    }
}
