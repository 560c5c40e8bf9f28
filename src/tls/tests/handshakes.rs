//! Handshakes that come to be.

use std::sync::mpsc;

use rustls::HandshakeKind;

use super::*;
use crate::tls::Handshakes;

#[test]
fn every_version_that_both_speak() {
    let authority = Authority::new("us");
    let (house, _directory) = trusting(&authority);
    let identity = authority.issue(&["device.example"], Validity::Now);
    let from_13 = Settings { min_version: Version::V13, ..Settings::default() };
    for (versions, settings, version) in [
        (BOTH, Settings::default(), "TLSv1.3"),
        (V13, Settings::default(), "TLSv1.3"),
        (V12, Settings::default(), "TLSv1.2"),
        (BOTH, from_13, "TLSv1.3"),
    ] {
        let shaken = shake(&house, "device.example", &settings, &Arc::new(identity.server(versions, None)));
        assert_eq!(shaken.client.as_ref().unwrap().version(), version);
        assert_eq!(shaken.server.server_name(), Some("device.example"));
        exchange(shaken);
    }
}

#[test]
fn in_every_piece() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let house = House::new(None, None);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        exchange(shake_in_pieces(&house, "device.example", &unverified(), &config, 1));
        for piece in 2..1000 {
            // Not the shorter handshakes of sessions that are resumed.
            house.forget();
            exchange(shake_in_pieces(&house, "device.example", &unverified(), &config, piece));
        }
    }
}

#[test]
fn names_and_addresses() {
    let authority = Authority::new("us");
    let (house, _directory) = trusting(&authority);
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
        let shaken = shake(&house, host, &Settings::default(), &config);
        assert_eq!(shaken.server.server_name().map(str::to_lowercase).as_deref(), asked, "{host}");
        exchange(shaken);
    }
    let other = Settings { server_name: Some("device.example".into()), ..Settings::default() };
    let shaken = shake(&house, "10.0.0.1", &other, &config);
    assert_eq!(shaken.server.server_name(), Some("device.example"));
    exchange(shaken);
}

#[test]
fn whatever_stands_in_the_certificate() {
    let house = House::new(None, None);
    for identity in [
        Identity::self_signed(&["a.example"], Validity::Past),
        Identity::self_signed(&["a.example"], Validity::Future),
        Identity::self_signed_authority(&["a.example"]),
        Authority::new("them").issue(&["a.example"], Validity::Now),
        // Version 1, which webpki does not read at all.
        Identity::from_pem(include_str!("version1.pem"), include_str!("version1.key")),
    ] {
        for versions in [V12, V13] {
            let config = Arc::new(identity.server(versions, None));
            exchange(shake(&house, "b.example", &unverified(), &config));
            let pins = vec![[7; 32], identity.fingerprint()];
            let pinned = Settings { verify: Verify::Pins(pins), ..Settings::default() };
            exchange(shake(&house, "b.example", &pinned, &config));
        }
    }
}

#[test]
fn a_client_with_a_certificate() {
    let (authority, clients) = (Authority::new("us"), Authority::new("clients"));
    let (house, directory) = trusting(&authority);
    let identity = authority.issue(&["device.example"], Validity::Now);
    let client = clients.issue(&["vera"], Validity::Now);
    directory.write("client.pem", client.pem());
    directory.write("client.key", client.key_pem());
    directory.write("both.pem", &[client.key_pem(), client.pem()].concat());
    let separate = Settings {
        certificate: Some("client.pem".into()),
        private_key: Some("client.key".into()),
        ..Settings::default()
    };
    let both = Settings { certificate: Some("both.pem".into()), ..Settings::default() };
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, Some(&clients)));
        for settings in [&separate, &both] {
            let shaken = shake(&house, "device.example", settings, &config);
            assert_eq!(shaken.server.peer_certificates().unwrap(), [client.der().clone()]);
            exchange(shaken);
        }
    }
}

#[test]
fn sessions_are_resumed_across_connections() {
    let authority = Authority::new("us");
    let (house, _directory) = trusting(&authority);
    let identity = authority.issue(&["device.example", "other.example"], Validity::Now);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        let kind = |host: &str, settings: &Settings| {
            let shaken = shake(&house, host, settings, &config);
            let kind = shaken.server.handshake_kind().unwrap();
            exchange(shaken);
            kind
        };
        let settings = Settings { min_version: Version::V12, ..Settings::default() };
        assert_eq!(kind("device.example", &settings), HandshakeKind::Full);
        assert_eq!(kind("device.example", &settings), HandshakeKind::Resumed);
        assert_eq!(kind("device.example", &settings.clone()), HandshakeKind::Resumed);
        assert_eq!(kind("other.example", &settings), HandshakeKind::Full, "another server");
        // What was not verified must not be resumed by who verifies, nor the other way round.
        assert_eq!(kind("device.example", &unverified()), HandshakeKind::Full);
        assert_eq!(kind("device.example", &unverified()), HandshakeKind::Resumed);
        house.forget();
    }
}

/// Takes steps until there are `count`.
fn steps(handshakes: &mut Handshakes<u32>, wake: &mpsc::Receiver<()>, count: usize) -> Vec<(u32, Step)> {
    let mut steps = Vec::new();
    while steps.len() < count {
        wake.recv().unwrap();
        steps.extend(handshakes.take_results());
    }
    steps
}

fn handshakes(house: House, most: usize) -> (Handshakes<u32>, mpsc::Receiver<()>) {
    let (woken, wake) = mpsc::channel();
    let wake_up = move || {
        let _ = woken.send(());
    };
    (Handshakes::new(Arc::new(house), most, wake_up), wake)
}

#[test]
fn threads_make_them() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let config = Arc::new(identity.server(BOTH, None));
    let (mut handshakes, wake) = handshakes(House::new(None, None), 2);
    let mut servers: Vec<_> = (0..20).map(|_| ServerConnection::new(Arc::clone(&config)).unwrap()).collect();
    (0..20).for_each(|asker| handshakes.begin(asker, "device.example", &unverified()));
    let mut done = 0;
    while done < 20 {
        for (asker, Step { to_send, outcome }) in steps(&mut handshakes, &wake, 1) {
            let server = &mut servers[asker as usize];
            hear(server, &to_send).unwrap();
            match outcome {
                Outcome::More(pending) => handshakes.advance(asker, pending, drain(server)),
                Outcome::Done(connection) => {
                    assert!(!server.is_handshaking());
                    assert_eq!(connection.version(), "TLSv1.3");
                    done += 1;
                }
                Outcome::Failed(failure) => panic!("{failure}"),
            }
        }
    }
}

#[test]
fn who_has_withdrawn_hears_nothing_of_it() {
    let (mut handshakes, wake) = handshakes(House::new(None, None), 1);
    handshakes.begin(1, "a.example", &unverified());
    handshakes.begin(2, "b.example", &unverified());
    handshakes.withdraw(&1);
    // The same asker with another question.
    handshakes.begin(1, "no name", &unverified());
    let mut found = steps(&mut handshakes, &wake, 2);
    found.sort_by_key(|(asker, _)| *asker);
    let [(1, Step { outcome: Outcome::Failed(failure), .. }), (2, Step { outcome: Outcome::More(_), .. })] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!(failure.to_string(), "SSL_ERROR 'no name' is no server's name");
}

#[test]
fn those_that_have_begun_go_first() {
    let identity = Identity::self_signed(&["device.example"], Validity::Now);
    let config = Arc::new(identity.server(BOTH, None));
    // The thread waits in this callback after each result.
    let (woken, wake) = mpsc::sync_channel(0);
    let wake_up = move || {
        let _ = woken.send(());
    };
    let mut handshakes = Handshakes::new(Arc::new(House::new(None, None)), 1, wake_up);
    handshakes.begin(0, "device.example", &unverified());
    let Some((0, Step { to_send, outcome: Outcome::More(pending) })) = steps(&mut handshakes, &wake, 1).pop() else {
        panic!()
    };
    let mut server = ServerConnection::new(config).unwrap();
    hear(&mut server, &to_send).unwrap();
    (1..5).for_each(|asker| handshakes.begin(asker, "device.example", &unverified()));
    handshakes.advance(0, pending, drain(&mut server));
    let order: Vec<u32> = steps(&mut handshakes, &wake, 5).into_iter().map(|(asker, _)| asker).collect();
    // The thread may have taken the first of the others before.
    assert!(order == [1, 0, 2, 3, 4] || order == [0, 1, 2, 3, 4], "{order:?}");
}
