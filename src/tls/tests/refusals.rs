//! Tests of handshakes that fail, and of their errors.

use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn each_fault_of_a_certificate_has_its_error() {
    let authority = Authority::new("us");
    let (context, _directory) = trusting(&authority);
    let them = Authority::new("them").issue(&["a.example"], Validity::Now);
    let self_signed = Identity::self_signed_authority(&["a.example"]);
    let expired = Identity::self_signed(&["a.example"], Validity::Past);
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
        (authority.issue_for_clients(&["a.example"]), "certificate is not for servers".to_owned()),
        (expired, "certificate expired at 2001-02-03T00:00:00Z, the clock says 20".to_owned()),
        (
            authority.issue(&[&long_name("a"), &long_name("b"), &long_name("c")], Validity::Now),
            "certificate is not for a.example, but for aaaa".to_owned(),
        ),
        (them.clone(), format!("unknown issuer, certificate is {}", them.pin())),
        (self_signed.clone(), format!("unknown issuer (self-signed), certificate is {}", self_signed.pin())),
        (
            Identity::from_pem(include_str!("version1.pem"), include_str!("version1.key")),
            "certificate refused (UnsupportedCertVersion), certificate is sha256/".to_owned(),
        ),
    ] {
        for versions in [V12, V13] {
            let config = Arc::new(identity.server(versions, None));
            let finished = handshake(&context, "a.example", &TlsSettings::default(), &config);
            let found = finished.client.unwrap_err().to_string();
            assert!(found.starts_with(&format!("SSL_ERROR {expected}")), "{found}\ndoes not begin with\n{expected}");
            assert!(matches!(finished.received, Err(rustls::Error::AlertReceived(_))), "{:?}", finished.received);
            // dahua#202, homebridge-hue#362: every refusal that PINS overcomes says the pin.
            let (_, pin) = found.rsplit_once(", certificate is ").unwrap_or_else(|| panic!("no pin: {found}"));
            let verify = Verify::pinned(std::iter::once(pin)).unwrap_or_else(|| panic!("no pin: {pin}"));
            let pinned = TlsSettings { verify, ..TlsSettings::default() };
            exchange(handshake(&context, "a.example", &pinned, &config));
        }
    }
}

/// A name of 235 characters.
fn long_name(letter: &str) -> String {
    [&letter.repeat(57)[..]; 4].join(".") + ".example"
}

#[test]
fn an_unknown_authority_is_refused_by_the_built_in_roots() {
    let identity = Authority::new("them").issue(&["a.example"], Validity::Now);
    let found = error_text(
        &TlsContext::new(None, None),
        "a.example",
        &TlsSettings::default(),
        &Arc::new(identity.server(BOTH, None)),
    );
    assert_eq!(found, format!("SSL_ERROR unknown issuer, certificate is {}", identity.pin()));
}

#[test]
fn the_error_of_a_refused_pin_has_the_fingerprint() {
    let authority = Authority::new("us");
    let (context, _directory) = trusting(&authority);
    let identity = authority.issue(&["a.example"], Validity::Now);
    let settings = TlsSettings { verify: Verify::Pins(vec![[1; 32]]), ..TlsSettings::default() };
    let found = error_text(&context, "a.example", &settings, &Arc::new(identity.server(BOTH, None)));
    assert_eq!(found, format!("SSL_ERROR pin refused, certificate is {}", identity.pin()));
}

#[test]
fn a_server_without_its_certificates_key_is_refused_even_unverified() {
    let (certificate, other) =
        (Identity::self_signed(&["a.example"], Validity::Now), Identity::self_signed(&["a.example"], Validity::Now));
    let wrong_key = Identity::from_pem(certificate.pem(), other.key_pem());
    let pinned = TlsSettings { verify: Verify::Pins(vec![certificate.fingerprint()]), ..TlsSettings::default() };
    for versions in [V12, V13] {
        let config = Arc::new(wrong_key.server(versions, None));
        for settings in [&unverified(), &pinned] {
            assert_eq!(
                error_text(&TlsContext::new(None, None), "a.example", settings, &config),
                "SSL_ERROR bad signature"
            );
        }
    }
}

#[test]
fn servers_with_older_versions_only_are_refused() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let settings = TlsSettings { min_version: TlsVersion::V13, ..unverified() };
    let found = error_text(&TlsContext::new(None, None), "a.example", &settings, &Arc::new(identity.server(V12, None)));
    assert!(found.starts_with("SSL_ERROR no common version of TLS"), "{found}");
    // A TLS 1.1 server that answers with its own version.
    let hello = [&[0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[5; 32], &[0, 0xc0, 0x13, 0]].concat();
    assert!(error_of_answer(&hello).starts_with("SSL_ERROR no common version of TLS"), "{}", error_of_answer(&hello));
    assert!(error_of_answer(&[0x15, 3, 1, 0, 2, 2, 70]).starts_with("SSL_ERROR no common version of TLS"));
}

/// The error for a server that answers with `bytes`.
fn error_of_answer(bytes: &[u8]) -> String {
    let (pending, _) = begin(&TlsContext::new(None, None), "a.example", &unverified()).unwrap();
    match pending.advance(bytes).outcome {
        TlsOutcome::Failed(error) => error.to_string(),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn servers_that_do_not_speak_tls_are_named() {
    assert_eq!(
        error_of_answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "SSL_ERROR the server speaks plain HTTP on this port"
    );
    assert_eq!(error_of_answer(b"SSH-2.0-dropbear\r\n"), "SSL_ERROR the server does not speak TLS on this port");
    assert_eq!(error_of_answer(&[0; 100]), "SSL_ERROR the server does not speak TLS on this port");
    assert_eq!(error_of_answer(b""), "SSL_ERROR closed by the server during the handshake");
    assert_eq!(
        error_of_answer(&[0x15, 3, 3, 0, 2, 2, 40]),
        "SSL_ERROR the server finds no common ground (handshake_failure): supported are TLS 1.2 and 1.3 with ECDHE, AES-GCM \
         or ChaCha20-Poly1305, and RSA, P-256, P-384 or Ed25519 keys; stunnel can stand before it"
    );
    assert!(error_of_answer(&[0x16, 3, 3, 0xff, 0xff, 1, 2, 3]).starts_with("SSL_ERROR "));
}

#[test]
fn an_altered_byte_anywhere_ends_the_handshake() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let context = TlsContext::new(None, None);
    let mut random = testkit::random::Random::new(7);
    for versions in [V12, V13] {
        let config = Arc::new(identity.server(versions, None));
        for _ in 0..400 {
            let (pending, hello) = begin(&context, "a.example", &unverified()).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
            receive(&mut server, &hello).unwrap();
            let mut answer = drain(&mut server);
            let mut dice = [0; 8];
            random.fill(&mut dice);
            let at = usize::from(u16::from_le_bytes([dice[0], dice[1]])) % answer.len();
            answer[at] ^= dice[2] | 1;
            let cut = usize::from(u16::from_le_bytes([dice[3], dice[4]])) % answer.len();
            let TlsOutcome::Pending(pending) = pending.advance(&answer[..cut.max(1)]).outcome else { continue };
            match pending.advance(&answer[cut..]).outcome {
                TlsOutcome::Done(_) => assert!(is_record_version(&answer, at), "altering byte {at} had no effect"),
                TlsOutcome::Failed(error) => assert!(error.to_string().starts_with("SSL_ERROR ")),
                // The altered byte may have increased a length, so that the client waits for more bytes.
                TlsOutcome::Pending(pending) => assert!(matches!(pending.advance(b"").outcome, TlsOutcome::Failed(_))),
            }
        }
    }
}

/// True if byte `at` is part of a record's version, which receivers ignore (RFC 8446 section 5.1).
fn is_record_version(flight: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start + 5 <= at {
        start += 5 + usize::from(u16::from_be_bytes([flight[start + 3], flight[start + 4]]));
    }
    at == start + 1 || at == start + 2
}

#[test]
fn an_endless_handshake_message_is_refused() {
    let (mut pending, _) = begin(&TlsContext::new(None, None), "a.example", &unverified()).unwrap();
    // A certificate message that claims 16 MiB, in records of 16 KiB.
    let mut record = [&[0x16, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat();
    record[5..9].copy_from_slice(&[11, 0xff, 0xff, 0xff]);
    for _ in 0..10 {
        match pending.advance(&record).outcome {
            TlsOutcome::Pending(more) => pending = more,
            TlsOutcome::Failed(_) => return,
            TlsOutcome::Done(_) => panic!(),
        }
        record[5..9].fill(0);
    }
    panic!("160 KiB of one message were accepted");
}

#[test]
fn a_missing_or_unknown_client_certificate_is_named() {
    let authority = Authority::new("us");
    let (context, directory) = trusting(&authority);
    let identity = authority.issue(&["a.example"], Validity::Now);
    let stranger = Authority::new("strangers").issue(&["vera"], Validity::Now);
    directory.write("stranger.pem", &[stranger.pem(), stranger.key_pem()].concat());
    let strange = TlsSettings { certificate: Some("stranger.pem".into()), ..TlsSettings::default() };
    let config = Arc::new(identity.server(V12, Some(&authority)));
    assert!(error_text(&context, "a.example", &TlsSettings::default(), &config).starts_with("SSL_ERROR the server "));
    assert_eq!(
        error_text(&context, "a.example", &strange, &config),
        "SSL_ERROR the server refuses our certificate (UnknownCA)"
    );
}

#[test]
fn the_clock_of_the_test_machine_is_plausible() {
    // Other tests here expect messages for a plausible clock.
    assert!(SystemTime::UNIX_EPOCH.elapsed().unwrap() > Duration::from_secs(1_704_067_200));
}
