//! Tests of handshakes that succeed.

use crate::client::ClientKey;
use std::sync::mpsc;

use rustls::HandshakeKind;

use super::*;
use crate::tls::Handshakes;

#[test]
fn the_highest_common_version_is_negotiated() {
    let authority = Authority::new("us");
    let (context, _directory) = trusting(&authority);
    let identity = authority.issue(&["device.example"], Validity::Now);
    let from_13 = TlsSettings { min_version: TlsVersion::V13, ..TlsSettings::default() };
    for (versions, settings, version) in [
        (BOTH, TlsSettings::default(), "TLSv1.3"),
        (V13, TlsSettings::default(), "TLSv1.3"),
        (V12, TlsSettings::default(), "TLSv1.2"),
        (BOTH, from_13, "TLSv1.3"),
    ] {
        let finished = handshake(&context, "device.example", &settings, &Arc::new(identity.server(versions, None)));
        assert_eq!(finished.client.as_ref().unwrap().version(), version);
        assert_eq!(finished.server.server_name(), Some("device.example"));
        exchange(finished);
    }
}

#[test]
fn the_server_may_answer_in_pieces_of_any_size() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let context = TlsContext::new(None, None);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        exchange(handshake_in_pieces(&context, "device.example", &unverified(), &config, 1));
        for piece in 2..1000 {
            // Without this, later handshakes would be resumed and shorter.
            context.clear_configs();
            exchange(handshake_in_pieces(&context, "device.example", &unverified(), &config, piece));
        }
    }
}

#[test]
fn names_are_sent_and_addresses_are_not() {
    let authority = Authority::new("us");
    let (context, _directory) = trusting(&authority);
    let identity = authority.issue(&["device.example", "*.wild.example", "192.168.0.9", "fe80::1"], Validity::Now);
    let config = Arc::new(identity.server(BOTH, None));
    for (host, asked) in [
        ("device.example", Some("device.example")),
        ("device.example.", Some("device.example")),
        ("DEVICE.example", Some("device.example")),
        ("a.wild.example", Some("a.wild.example")),
        ("192.168.0.9", None),
        ("fe80::1", None),
        ("fe80::1%eth0", None),
    ] {
        let finished = handshake(&context, host, &TlsSettings::default(), &config);
        assert_eq!(finished.server.server_name().map(str::to_lowercase).as_deref(), asked, "{host}");
        exchange(finished);
    }
    let other = TlsSettings { server_name: Some("device.example".into()), ..TlsSettings::default() };
    let finished = handshake(&context, "10.0.0.1", &other, &config);
    assert_eq!(finished.server.server_name(), Some("device.example"));
    exchange(finished);
}

#[test]
fn unverified_and_pinned_certificates_may_be_invalid() {
    let context = TlsContext::new(None, None);
    for identity in [
        Identity::self_signed(&["a.example"], Validity::Past),
        Identity::self_signed(&["a.example"], Validity::Future),
        Identity::self_signed_authority(&["a.example"]),
        Authority::new("them").issue(&["a.example"], Validity::Now),
        // Version 1, which webpki refuses to read.
        Identity::from_pem(include_str!("version1.pem"), include_str!("version1.key")),
    ] {
        for versions in [V12, V13] {
            let config = Arc::new(identity.server(versions, None));
            exchange(handshake(&context, "b.example", &unverified(), &config));
            let pins = vec![[7; 32], identity.fingerprint()];
            let pinned = TlsSettings { verify: Verify::Pins(pins), ..TlsSettings::default() };
            exchange(handshake(&context, "b.example", &pinned, &config));
        }
    }
}

// As openssl and curl do: `openssl req -x509` makes certificates that claim to be authorities.
#[test]
fn a_self_signed_certificate_of_a_file_is_accepted_even_if_it_claims_to_be_an_authority() {
    let settings = |file: &str| TlsSettings { ca_file: Some(file.into()), ..TlsSettings::default() };
    for identity in
        [Identity::self_signed(&["a.example"], Validity::Now), Identity::self_signed_authority(&["a.example"])]
    {
        let directory = TempDirectory::new();
        directory.write("other.pem", Identity::self_signed_authority(&["a.example"]).pem());
        let file = directory.write("device.pem", identity.pem());
        let by_setting = TlsContext::new(Some(directory.0.clone()), Some(file));
        let by_option = TlsContext::new(Some(directory.0.clone()), None);
        for versions in [V12, V13] {
            let config = Arc::new(identity.server(versions, None));
            exchange(handshake(&by_setting, "a.example", &TlsSettings::default(), &config));
            exchange(handshake(&by_option, "a.example", &settings("device.pem"), &config));
            for (context, host, settings, expected) in [
                (
                    &by_option,
                    "b.example",
                    settings("device.pem"),
                    "certificate is not for b.example, but for a.example",
                ),
                // The same name, and another key.
                (&by_option, "a.example", settings("other.pem"), ""),
                (&by_option, "a.example", TlsSettings::default(), "unknown issuer"),
            ] {
                let found = handshake(context, host, &settings, &config).client.unwrap_err().to_string();
                assert!(
                    found.starts_with(&format!("SSL_ERROR {expected}")),
                    "{found}\ndoes not begin with\n{expected}"
                );
            }
        }
    }
}

#[test]
fn a_client_certificate_reaches_the_server() {
    let (authority, clients) = (Authority::new("us"), Authority::new("clients"));
    let (context, directory) = trusting(&authority);
    let identity = authority.issue(&["device.example"], Validity::Now);
    let client = clients.issue(&["vera"], Validity::Now);
    directory.write("client.pem", client.pem());
    directory.write("client.key", client.key_pem());
    directory.write("both.pem", &[client.key_pem(), client.pem()].concat());
    let separate = TlsSettings {
        certificate: Some("client.pem".into()),
        private_key: Some("client.key".into()),
        ..TlsSettings::default()
    };
    let both = TlsSettings { certificate: Some("both.pem".into()), ..TlsSettings::default() };
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, Some(&clients)));
        for settings in [&separate, &both] {
            let finished = handshake(&context, "device.example", settings, &config);
            assert_eq!(finished.server.peer_certificates().unwrap(), [client.der().clone()]);
            exchange(finished);
        }
    }
}

#[test]
fn sessions_are_resumed_across_connections() {
    let authority = Authority::new("us");
    let (context, _directory) = trusting(&authority);
    let identity = authority.issue(&["device.example", "other.example"], Validity::Now);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        let kind = |host: &str, settings: &TlsSettings| {
            let finished = handshake(&context, host, settings, &config);
            let kind = finished.server.handshake_kind().unwrap();
            exchange(finished);
            kind
        };
        let settings = TlsSettings { min_version: TlsVersion::V12, ..TlsSettings::default() };
        assert_eq!(kind("device.example", &settings), HandshakeKind::Full);
        assert_eq!(kind("device.example", &settings), HandshakeKind::Resumed);
        assert_eq!(kind("device.example", &settings.clone()), HandshakeKind::Resumed);
        assert_eq!(kind("other.example", &settings), HandshakeKind::Full, "another server");
        // A session without verification must not be resumed by a connection that verifies, nor the reverse.
        assert_eq!(kind("device.example", &unverified()), HandshakeKind::Full);
        assert_eq!(kind("device.example", &unverified()), HandshakeKind::Resumed);
        context.clear_configs();
    }
}

/// Waits until `count` steps are there.
fn steps(handshakes: &mut Handshakes<u32>, wake: &mpsc::Receiver<()>, count: usize) -> Vec<(u32, TlsStep)> {
    let mut steps = Vec::new();
    while steps.len() < count {
        wake.recv().unwrap();
        steps.extend(handshakes.take_results());
    }
    steps
}

fn handshakes(context: TlsContext, max: usize) -> (Handshakes<u32>, mpsc::Receiver<()>) {
    let (woken, wake) = mpsc::channel();
    let wake_up = move || {
        let _ = woken.send(());
    };
    (Handshakes::new(Arc::new(context), max, wake_up), wake)
}

#[test]
fn several_threads_complete_all_handshakes() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let config = Arc::new(identity.server(BOTH, None));
    let (mut handshakes, wake) = handshakes(TlsContext::new(None, None), 2);
    let mut servers: Vec<_> = (0..20).map(|_| ServerConnection::new(Arc::clone(&config)).unwrap()).collect();
    (0..20).for_each(|key| handshakes.begin(key, ClientKey::Loopback, "device.example", &unverified()));
    let mut done = 0;
    while done < 20 {
        for (key, TlsStep { to_send, outcome }) in steps(&mut handshakes, &wake, 1) {
            let server = &mut servers[key as usize];
            receive(server, &to_send).unwrap();
            match outcome {
                TlsOutcome::Pending(pending) => handshakes.advance(key, ClientKey::Loopback, pending, drain(server)),
                TlsOutcome::Done(connection) => {
                    assert!(!server.is_handshaking());
                    assert_eq!(connection.version(), "TLSv1.3");
                    done += 1;
                }
                TlsOutcome::Failed(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_cancelled_handshake_yields_no_step() {
    let (mut handshakes, wake) = handshakes(TlsContext::new(None, None), 1);
    handshakes.begin(1, ClientKey::Loopback, "a.example", &unverified());
    handshakes.begin(2, ClientKey::Loopback, "b.example", &unverified());
    handshakes.cancel(&1);
    // The same key begins another handshake.
    handshakes.begin(1, ClientKey::Loopback, "no name", &unverified());
    let mut found = steps(&mut handshakes, &wake, 2);
    found.sort_by_key(|(key, _)| *key);
    let [(1, TlsStep { outcome: TlsOutcome::Failed(error), .. }), (2, TlsStep { outcome: TlsOutcome::Pending(_), .. })] =
        &found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!(error.to_string(), "SSL_ERROR 'no name' is no server's name");
}

#[test]
fn handshakes_under_way_go_before_new_ones() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let config = Arc::new(identity.server(BOTH, None));
    // The thread waits in this callback after each result.
    let (woken, wake) = mpsc::sync_channel(0);
    let wake_up = move || {
        let _ = woken.send(());
    };
    let mut handshakes = Handshakes::new(Arc::new(TlsContext::new(None, None)), 1, wake_up);
    handshakes.begin(0, ClientKey::Loopback, "device.example", &unverified());
    let Some((0, TlsStep { to_send, outcome: TlsOutcome::Pending(pending) })) = steps(&mut handshakes, &wake, 1).pop()
    else {
        panic!()
    };
    let mut server = ServerConnection::new(config).unwrap();
    receive(&mut server, &to_send).unwrap();
    (1..5).for_each(|key| handshakes.begin(key, ClientKey::Loopback, "device.example", &unverified()));
    handshakes.advance(0, ClientKey::Loopback, pending, drain(&mut server));
    let order: Vec<u32> = steps(&mut handshakes, &wake, 5).into_iter().map(|(key, _)| key).collect();
    // The thread may have taken the first of the new ones already.
    assert!(order == [1, 0, 2, 3, 4] || order == [0, 1, 2, 3, 4], "{order:?}");
}

#[test]
fn what_a_handshake_has_received_is_counted() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let config = Arc::new(identity.server(V12, None));
    let mut server = ServerConnection::new(config).unwrap();
    let (pending, hello) = begin(&TlsContext::new(None, None), "device.example", &unverified()).unwrap();
    assert_eq!(pending.received(), 0);
    receive(&mut server, &hello).unwrap();
    let flight = drain(&mut server);
    let TlsOutcome::Pending(pending) = pending.advance(&flight[..flight.len() - 1]).outcome else { panic!() };
    assert_eq!(pending.received(), flight.len() - 1);
    let TlsOutcome::Pending(pending) = pending.advance(&flight[flight.len() - 1..]).outcome else { panic!() };
    assert_eq!(pending.received(), flight.len(), "rustls keeps the certificates");
}

/// Regression: plugins waited for all handshakes that one client of another machine had begun.
#[test]
fn clients_of_other_machines_leave_a_thread_to_loopback() {
    const COUNT: u32 = 200;
    let (woken, wake) = mpsc::channel();
    let wake_up = move || {
        let _ = woken.send(());
    };
    let mut handshakes = Handshakes::new(Arc::new(TlsContext::new(None, None)), 2, wake_up);
    let other = ClientKey::of("192.0.2.1".parse().unwrap());
    (1..COUNT).for_each(|key| handshakes.begin(key, other, "device.example", &unverified()));
    handshakes.begin(0, ClientKey::Loopback, "device.example", &unverified());
    let order = steps(&mut handshakes, &wake, COUNT as usize).into_iter().map(|(key, _)| key);
    // Some were done before it came.
    let place = order.enumerate().find_map(|(place, key)| (key == 0).then_some(place)).unwrap();
    assert!(place < COUNT as usize / 2, "{place}");
}
