//! Handshakes that fail, and what is said about them.

use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn what_is_wrong_with_a_certificate() {
    let authority = Authority::new("us");
    let (house, _directory) = trusting(&authority);
    let them = Authority::new("them").issue(&["a.example"], Validity::Now);
    let selfish = Identity::self_signed_authority(&["a.example"]);
    let server_auth_missing = authority.issue(&["vera"], Validity::Now);
    for (identity, expected) in [
        (
            authority.issue(&["a.example"], Validity::Past),
            "certificate expired at 2001-02-03T00:00:00Z, the clock says 20".to_owned(),
        ),
        (
            authority.issue(&["a.example"], Validity::Future),
            "certificate not valid before 2199-01-01T00:00:00Z, the clock says 20".to_owned(),
        ),
        (
            authority.issue(&["b.example", "10.0.0.1"], Validity::Now),
            "certificate is not for a.example, but for b.example, 10.0.0.1".to_owned(),
        ),
        (server_auth_missing, "certificate is not for a.example, but for vera".to_owned()),
        (them.clone(), format!("unknown issuer, certificate is {}", them.pin())),
        (selfish.clone(), format!("unknown issuer (self-signed), certificate is {}", selfish.pin())),
        (
            Identity::from_pem(include_str!("version1.pem"), include_str!("version1.key")),
            "certificate refused (UnsupportedCertVersion), certificate is sha256/".to_owned(),
        ),
    ] {
        for versions in [V12, V13] {
            let config = Arc::new(identity.server(versions, None));
            let shaken = shake(&house, "a.example", &Settings::default(), &config);
            let told = shaken.client.unwrap_err().to_string();
            assert!(told.starts_with(&format!("SSL_ERROR {expected}")), "{told}\nis not\n{expected}");
            assert!(matches!(shaken.heard, Err(rustls::Error::AlertReceived(_))), "{:?}", shaken.heard);
        }
    }
}

#[test]
fn what_is_built_in_does_not_trust_everybody() {
    let identity = Authority::new("them").issue(&["a.example"], Validity::Now);
    let told =
        words(&House::new(None, None), "a.example", &Settings::default(), &Arc::new(identity.server(BOTH, None)));
    assert_eq!(told, format!("SSL_ERROR unknown issuer, certificate is {}", identity.pin()));
}

#[test]
fn a_refused_pin_tells_the_right_one() {
    let authority = Authority::new("us");
    let (house, _directory) = trusting(&authority);
    let identity = authority.issue(&["a.example"], Validity::Now);
    let settings = Settings { verify: Verify::Pins(vec![[1; 32]]), ..Settings::default() };
    let told = words(&house, "a.example", &settings, &Arc::new(identity.server(BOTH, None)));
    assert_eq!(told, format!("SSL_ERROR pin refused, certificate is {}", identity.pin()));
}

#[test]
fn who_does_not_have_the_key_is_refused_however_little_is_verified() {
    let (certificate, other) =
        (Identity::self_signed(&["a.example"], Validity::Now), Identity::self_signed(&["a.example"], Validity::Now));
    let liar = Identity::from_pem(certificate.pem(), other.key_pem());
    let pinned = Settings { verify: Verify::Pins(vec![certificate.fingerprint()]), ..Settings::default() };
    for versions in [V12, V13] {
        let config = Arc::new(liar.server(versions, None));
        for settings in [&unverified(), &pinned] {
            assert_eq!(words(&House::new(None, None), "a.example", settings, &config), "SSL_ERROR bad signature");
        }
    }
}

#[test]
fn no_common_version() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let settings = Settings { min_version: Version::V13, ..unverified() };
    let told = words(&House::new(None, None), "a.example", &settings, &Arc::new(identity.server(V12, None)));
    assert!(told.starts_with("SSL_ERROR no common version of TLS"), "{told}");
    // A server of TLS 1.1, which answers in its own version.
    let hello = [&[0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[5; 32], &[0, 0xc0, 0x13, 0]].concat();
    assert!(answered(&hello).starts_with("SSL_ERROR no common version of TLS"), "{}", answered(&hello));
    assert!(answered(&[0x15, 3, 1, 0, 2, 2, 70]).starts_with("SSL_ERROR no common version of TLS"));
}

/// What is said of a server that answers with `bytes`.
fn answered(bytes: &[u8]) -> String {
    let (pending, _) = begin(&House::new(None, None), "a.example", &unverified()).unwrap();
    match pending.advance(bytes).outcome {
        Outcome::Failed(failure) => failure.to_string(),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn servers_that_do_not_speak_tls() {
    assert_eq!(answered(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "SSL_ERROR the server speaks plain HTTP on this port");
    assert_eq!(answered(b"SSH-2.0-dropbear\r\n"), "SSL_ERROR the server does not speak TLS on this port");
    assert_eq!(answered(&[0; 100]), "SSL_ERROR the server does not speak TLS on this port");
    assert_eq!(answered(b""), "SSL_ERROR closed by the server during the handshake");
    assert_eq!(answered(&[0x15, 3, 3, 0, 2, 2, 40]), "SSL_ERROR the server finds no common ground (handshake_failure)");
    assert!(answered(&[0x16, 3, 3, 0xff, 0xff, 1, 2, 3]).starts_with("SSL_ERROR "));
}

#[test]
fn garbage_anywhere_is_refused_and_harms_nobody() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let house = House::new(None, None);
    let mut random = testkit::random::Random::new(7);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        for _ in 0..400 {
            let (pending, hello) = begin(&house, "a.example", &unverified()).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
            hear(&mut server, &hello).unwrap();
            let mut answer = drain(&mut server);
            let mut dice = [0; 8];
            random.fill(&mut dice);
            let at = usize::from(u16::from_le_bytes([dice[0], dice[1]])) % answer.len();
            answer[at] ^= dice[2] | 1;
            let cut = usize::from(u16::from_le_bytes([dice[3], dice[4]])) % answer.len();
            let Outcome::More(pending) = pending.advance(&answer[..cut.max(1)]).outcome else { continue };
            match pending.advance(&answer[cut..]).outcome {
                Outcome::Done(_) => assert!(is_record_version(&answer, at), "byte {at} did not matter"),
                Outcome::Failed(failure) => assert!(failure.to_string().starts_with("SSL_ERROR ")),
                // A length that has grown: more would have to come.
                Outcome::More(pending) => assert!(matches!(pending.advance(b"").outcome, Outcome::Failed(_))),
            }
        }
    }
}

/// True where byte `at` is part of a record's version, which has no meaning any more (RFC 8446, section 5.1).
fn is_record_version(flight: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start + 5 <= at {
        start += 5 + usize::from(u16::from_be_bytes([flight[start + 3], flight[start + 4]]));
    }
    at == start + 1 || at == start + 2
}

#[test]
fn a_server_that_never_finishes_is_not_listened_to_for_ever() {
    let (mut pending, _) = begin(&House::new(None, None), "a.example", &unverified()).unwrap();
    // A certificate message of 16 MiB, in records of 16 KiB.
    let mut record = [&[0x16, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat();
    record[5..9].copy_from_slice(&[11, 0xff, 0xff, 0xff]);
    for _ in 0..10 {
        match pending.advance(&record).outcome {
            Outcome::More(more) => pending = more,
            Outcome::Failed(_) => return,
            Outcome::Done(_) => panic!(),
        }
        record[5..9].fill(0);
    }
    panic!("160 KiB of one message were taken");
}

#[test]
fn a_server_that_wants_a_certificate() {
    let authority = Authority::new("us");
    let (house, directory) = trusting(&authority);
    let identity = authority.issue(&["a.example"], Validity::Now);
    let stranger = Authority::new("strangers").issue(&["vera"], Validity::Now);
    directory.write("stranger.pem", &[stranger.pem(), stranger.key_pem()].concat());
    let strange = Settings { certificate: Some("stranger.pem".into()), ..Settings::default() };
    let config = Arc::new(identity.server(V12, Some(&authority)));
    assert!(words(&house, "a.example", &Settings::default(), &config).starts_with("SSL_ERROR the server "));
    assert_eq!(
        words(&house, "a.example", &strange, &config),
        "SSL_ERROR the server refuses our certificate (UnknownCA)"
    );
}

#[test]
fn the_clock_is_asked_when_it_matters() {
    // The tests above go by this.
    assert!(SystemTime::UNIX_EPOCH.elapsed().unwrap() > Duration::from_secs(1_704_067_200));
}
