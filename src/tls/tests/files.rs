//! Tests of the files that plugins name.

use std::os::unix::fs::symlink;

use super::*;

/// The error of CAFL=`name`, or `None` if there is none.
fn error_for(context: &TlsContext, name: &str) -> Option<String> {
    let settings = TlsSettings { ca_file: Some(name.into()), ..TlsSettings::default() };
    context.config(&settings).err().map(|error| error.to_string())
}

/// The error of CERT=own.pem PKEY=own.key with this content, or `None` if there is none.
fn error_for_identity(certificate: &str, key: &str) -> Option<String> {
    let directory = TempDirectory::new();
    directory.write("own.pem", certificate);
    directory.write("own.key", key);
    let settings = TlsSettings {
        certificate: Some("own.pem".into()),
        private_key: Some("own.key".into()),
        ..TlsSettings::default()
    };
    TlsContext::new(Some(directory.0.clone()), None).config(&settings).err().map(|error| error.to_string())
}

#[test]
fn files_outside_the_directory_are_refused() {
    let directory = TempDirectory::new();
    let authority = Authority::new("us");
    let inside = directory.0.join("inside");
    std::fs::create_dir_all(inside.join("deep")).unwrap();
    // A neighbouring directory whose name has the same prefix.
    std::fs::create_dir_all(directory.0.join("inside-too")).unwrap();
    for name in ["secret.pem", "inside/own.pem", "inside/deep/own.pem", "inside-too/secret.pem"] {
        directory.write(name, &authority.pem());
    }
    symlink("../secret.pem", inside.join("link.pem")).unwrap();
    symlink(directory.0.join("secret.pem"), inside.join("absolute.pem")).unwrap();
    symlink("..", inside.join("up")).unwrap();
    symlink("deep", inside.join("down")).unwrap();
    symlink("own.pem", inside.join("alias.pem")).unwrap();
    symlink("loop.pem", inside.join("loop.pem")).unwrap();
    let context = TlsContext::new(Some(inside.clone()), None);
    for name in ["own.pem", "./own.pem", "deep/own.pem", "down/own.pem", "alias.pem", "deep//own.pem"] {
        assert_eq!(error_for(&context, name), None, "{name}");
    }
    let absolute = inside.join("own.pem");
    for name in [
        "../secret.pem",
        "deep/../../secret.pem",
        "deep/../own.pem",
        "../inside-too/secret.pem",
        "link.pem",
        "absolute.pem",
        "up/secret.pem",
        "up/inside-too/secret.pem",
        "/etc/passwd",
        "//etc/passwd",
        absolute.to_str().unwrap(),
        "..",
        "",
    ] {
        let found = error_for(&context, name).unwrap_or_else(|| panic!("'{name}' was read"));
        assert_eq!(found, format!("SSL_ERROR CAFL {name}: it lies outside of the directory for such files"));
    }
    for name in ["nothing.pem", "own.pem/x", "loop.pem", "a\0b"] {
        assert!(error_for(&context, name).is_some_and(|found| found.starts_with("SSL_ERROR CAFL ")), "{name}");
    }
    let through_a_link = directory.0.join("way-in");
    symlink(&inside, &through_a_link).unwrap();
    assert_eq!(
        error_for(&TlsContext::new(Some(through_a_link), None), "own.pem"),
        None,
        "the configured directory itself may be a link"
    );
}

#[test]
fn only_regular_files_up_to_256_kib_are_read() {
    let directory = TempDirectory::new();
    let authority = Authority::new("us");
    std::fs::create_dir(directory.0.join("folder")).unwrap();
    nix::unistd::mkfifo(&directory.0.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.0.join("socket")).unwrap();
    directory.write("empty.pem", "");
    directory.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    directory.write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let fits = authority.pem() + &" ".repeat(256 * 1024 - authority.pem().len());
    directory.write("fits.pem", &fits);
    directory.write("big.pem", &(fits + " "));
    let context = TlsContext::new(Some(directory.0.clone()), None);
    assert_eq!(error_for(&context, "fits.pem"), None);
    for (name, reason) in [
        ("folder", "it is no regular file"),
        ("fifo", "it is no regular file"),
        ("empty.pem", "there is no certificate in it"),
        ("broken.pem", "its PEM is broken"),
        ("nonsense.pem", "a certificate in it cannot be read"),
        ("big.pem", "it has more than 262144 bytes"),
    ] {
        assert_eq!(error_for(&context, name).unwrap(), format!("SSL_ERROR CAFL {name}: {reason}"));
    }
    assert!(error_for(&context, "socket").is_some());
}

#[test]
fn without_a_directory_every_file_is_refused() {
    let found = error_for(&TlsContext::new(None, None), "a.pem").unwrap();
    assert_eq!(found, "SSL_ERROR CAFL names a file, and there is no directory for any");
    let found = error_for(&TlsContext::new(Some("/nonexistent/directory".into()), None), "a.pem").unwrap();
    assert!(found.starts_with("SSL_ERROR CAFL a.pem: the directory for such files: No such file"), "{found}");
}

#[test]
fn a_key_must_match_its_certificate() {
    let directory = TempDirectory::new();
    let identity = Identity::self_signed(&["vera"], Validity::Now);
    let other = Identity::self_signed(&["vera"], Validity::Now);
    directory.write("own.pem", identity.pem());
    directory.write("own.key", identity.key_pem());
    directory.write("other.key", other.key_pem());
    directory.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let context = TlsContext::new(Some(directory.0.clone()), None);
    let found = |certificate: Option<&str>, key: Option<&str>| {
        let named = |name: &str| Some(name.into());
        let settings = TlsSettings {
            certificate: certificate.and_then(named),
            private_key: key.and_then(named),
            ..TlsSettings::default()
        };
        context.config(&settings).err().map(|error| error.to_string())
    };
    assert_eq!(found(Some("own.pem"), Some("own.key")), None);
    for (certificate, key, reason) in [
        (Some("own.pem"), Some("other.key"), "CERT and PKEY do not belong together"),
        (Some("own.pem"), Some("own.pem"), "PKEY own.pem: there is no private key in it"),
        (Some("own.pem"), None, "CERT own.pem: there is no private key in it"),
        (Some("own.key"), Some("own.key"), "CERT own.key: there is no certificate in it"),
        (Some("own.pem"), Some("locked.key"), "PKEY locked.key: its key is locked by a password"),
        (None, Some("own.key"), "PKEY needs CERT"),
    ] {
        assert_eq!(found(certificate, key), Some(format!("SSL_ERROR {reason}")));
    }
}

#[test]
fn keys_in_pkcs8_sec1_and_pkcs1_are_read() {
    // The same key as PKCS#8 and SEC1, and an RSA key as PKCS#1.
    for (certificate, key) in [
        (include_str!("version1.pem"), include_str!("version1.key")),
        (include_str!("version1.pem"), include_str!("version1.sec1.key")),
        (include_str!("rsa.pem"), include_str!("rsa.pkcs1.key")),
    ] {
        assert_eq!(error_for_identity(certificate, key), None);
    }
}

#[test]
fn a_certificate_of_version_1_is_compared_with_its_key() {
    // rustls#2364, deno#33505: `openssl x509 -req` of OpenSSL 3.0 makes version 1, which webpki does not read.
    let (certificate, key) = (include_str!("version1.pem"), include_str!("version1.key"));
    assert_eq!(error_for_identity(certificate, key), None);
    for other in [Identity::self_signed(&["vera"], Validity::Now).key_pem(), include_str!("rsa.pkcs1.key")] {
        let found = error_for_identity(certificate, other);
        assert_eq!(found.as_deref(), Some("SSL_ERROR CERT and PKEY do not belong together"));
    }
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let found = error_for_identity(nonsense, key);
    assert_eq!(found.as_deref(), Some("SSL_ERROR CERT own.pem: a certificate in it cannot be read"));
}

#[test]
fn a_key_of_an_unsupported_kind_is_named() {
    const WORK: &str = "RSA of 2048 to 4096 bits, P-256 and P-384 work";
    let pkcs8 = include_str!("version1.key");
    // A key whose last bytes are missing.
    let broken: String = pkcs8
        .lines()
        .filter(|line| line.starts_with('-') || line.len() == 64)
        .map(|line| format!("{line}\n"))
        .collect();
    for (key, reason) in [
        (include_str!("rsa1024.pkcs1.key"), format!("its RSA key of 1024 bits is too short: {WORK}")),
        (include_str!("p521.key"), format!("its P-521 key is not supported: {WORK}")),
        (include_str!("p521.sec1.key"), format!("its P-521 key is not supported: {WORK}")),
        (include_str!("secp256k1.key"), format!("its secp256k1 key is not supported: {WORK}")),
        (include_str!("ed25519.key"), format!("its Ed25519 key is not supported: {WORK}")),
        (include_str!("rsa-pss.key"), format!("its RSA-PSS key is not supported: {WORK}")),
        (&broken, format!("its kind of key is not supported: {WORK}")),
    ] {
        let found = error_for_identity(include_str!("version1.pem"), key);
        assert_eq!(found, Some(format!("SSL_ERROR PKEY own.key: {reason}")));
    }
}

#[test]
fn only_changed_files_are_read_again() {
    let directory = TempDirectory::new();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    directory.write("ca.pem", &first.pem());
    let context = TlsContext::new(Some(directory.0.clone()), None);
    let settings = TlsSettings { ca_file: Some("ca.pem".into()), ..TlsSettings::default() };
    let config = context.config(&settings).unwrap();
    assert!(Arc::ptr_eq(&config, &context.config(&settings).unwrap()));
    let elsewhere = TlsSettings { server_name: Some("x.example".into()), ..settings.clone() };
    assert!(
        Arc::ptr_eq(&config, &context.config(&elsewhere).unwrap()),
        "the configuration does not depend on the server name"
    );
    // The new content has another size, in case the file system's timestamps are too coarse to differ.
    directory.write("ca.pem", &(second.pem() + &first.pem()));
    let identity = second.issue(&["a.example"], Validity::Now);
    exchange(handshake(&context, "a.example", &settings, &Arc::new(identity.server(BOTH, None))));
    assert!(!Arc::ptr_eq(&config, &context.config(&settings).unwrap()));
}

#[test]
fn the_number_of_cached_configurations_is_bounded() {
    let context = TlsContext::new(None, None);
    for number in 0..100 {
        let settings = TlsSettings { verify: Verify::Pins(vec![[number; 32]]), ..TlsSettings::default() };
        context.config(&settings).unwrap();
        assert!(context.config_count() <= 32);
    }
}
