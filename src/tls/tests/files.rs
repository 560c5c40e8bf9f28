//! Files that plugins name.

use std::os::unix::fs::symlink;

use super::*;

/// What is said of CAFL=`name`; `None`: it is fine.
fn complaint(house: &House, name: &str) -> Option<String> {
    let settings = Settings { ca_file: Some(name.into()), ..Settings::default() };
    house.config(&settings).err().map(|failure| failure.to_string())
}

#[test]
fn nothing_outside_of_the_directory_is_read() {
    let directory = Directory::new();
    let authority = Authority::new("us");
    let inside = directory.0.join("inside");
    std::fs::create_dir_all(inside.join("deep")).unwrap();
    // A neighbour whose name begins alike.
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
    let house = House::new(Some(inside.clone()), None);
    for name in ["own.pem", "./own.pem", "deep/own.pem", "down/own.pem", "alias.pem", "deep//own.pem"] {
        assert_eq!(complaint(&house, name), None, "{name}");
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
        let told = complaint(&house, name).unwrap_or_else(|| panic!("'{name}' was read"));
        assert_eq!(told, format!("SSL_ERROR CAFL {name}: it lies outside of the directory for such files"));
    }
    for name in ["nothing.pem", "own.pem/x", "loop.pem", "a\0b"] {
        assert!(complaint(&house, name).is_some_and(|told| told.starts_with("SSL_ERROR CAFL ")), "{name}");
    }
    let through_a_link = directory.0.join("way-in");
    symlink(&inside, &through_a_link).unwrap();
    assert_eq!(complaint(&House::new(Some(through_a_link), None), "own.pem"), None, "the owner may link as he likes");
}

#[test]
fn only_regular_files_of_sensible_size() {
    let directory = Directory::new();
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
    let house = House::new(Some(directory.0.clone()), None);
    assert_eq!(complaint(&house, "fits.pem"), None);
    for (name, why) in [
        ("folder", "it is no regular file"),
        ("fifo", "it is no regular file"),
        ("empty.pem", "there is no certificate in it"),
        ("broken.pem", "its PEM is broken"),
        ("nonsense.pem", "a certificate in it cannot be read"),
        ("big.pem", "it has more than 262144 bytes"),
    ] {
        assert_eq!(complaint(&house, name).unwrap(), format!("SSL_ERROR CAFL {name}: {why}"));
    }
    assert!(complaint(&house, "socket").is_some());
}

#[test]
fn without_a_directory_there_are_no_files() {
    let told = complaint(&House::new(None, None), "a.pem").unwrap();
    assert_eq!(told, "SSL_ERROR CAFL names a file, and there is no directory for any");
    let told = complaint(&House::new(Some("/nonexistent/directory".into()), None), "a.pem").unwrap();
    assert!(told.starts_with("SSL_ERROR CAFL a.pem: the directory for such files: No such file"), "{told}");
}

#[test]
fn keys_and_certificates_belong_together() {
    let directory = Directory::new();
    let identity = Identity::self_signed(&["vera"], Validity::Now);
    let other = Identity::self_signed(&["vera"], Validity::Now);
    directory.write("own.pem", identity.pem());
    directory.write("own.key", identity.key_pem());
    directory.write("other.key", other.key_pem());
    directory.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let house = House::new(Some(directory.0.clone()), None);
    let told = |certificate: Option<&str>, key: Option<&str>| {
        let named = |name: &str| Some(name.into());
        let settings = Settings {
            certificate: certificate.and_then(named),
            private_key: key.and_then(named),
            ..Settings::default()
        };
        house.config(&settings).err().map(|failure| failure.to_string())
    };
    assert_eq!(told(Some("own.pem"), Some("own.key")), None);
    for (certificate, key, why) in [
        (Some("own.pem"), Some("other.key"), "CERT and PKEY do not belong together"),
        (Some("own.pem"), Some("own.pem"), "PKEY own.pem: there is no private key in it"),
        (Some("own.pem"), None, "CERT own.pem: there is no private key in it"),
        (Some("own.key"), Some("own.key"), "CERT own.key: there is no certificate in it"),
        (Some("own.pem"), Some("locked.key"), "PKEY locked.key: its key is locked by a password"),
        (None, Some("own.key"), "PKEY needs CERT"),
    ] {
        assert_eq!(told(certificate, key), Some(format!("SSL_ERROR {why}")));
    }
}

#[test]
fn keys_of_every_form() {
    // The same key as PKCS#8 and SEC1; and an RSA key as PKCS#1.
    let directory = Directory::new();
    for (certificate, key) in [
        (include_str!("version1.pem"), include_str!("version1.key")),
        (include_str!("version1.pem"), include_str!("version1.sec1.key")),
        (include_str!("rsa.pem"), include_str!("rsa.pkcs1.key")),
    ] {
        directory.write("own.pem", certificate);
        directory.write("own.key", key);
        let settings = Settings {
            certificate: Some("own.pem".into()),
            private_key: Some("own.key".into()),
            ..Settings::default()
        };
        // A house of its own: the files have just been written, perhaps within the clock's resolution.
        let told = House::new(Some(directory.0.clone()), None).config(&settings).err();
        // rustls compares a key with a certificate only where webpki can read it.
        assert!(told.is_none() || certificate == include_str!("version1.pem"), "{told:?}");
    }
}

#[test]
fn a_file_that_has_changed_is_read_again_and_others_are_not() {
    let directory = Directory::new();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    directory.write("ca.pem", &first.pem());
    let house = House::new(Some(directory.0.clone()), None);
    let settings = Settings { ca_file: Some("ca.pem".into()), ..Settings::default() };
    let config = house.config(&settings).unwrap();
    assert!(Arc::ptr_eq(&config, &house.config(&settings).unwrap()));
    let elsewhere = Settings { server_name: Some("x.example".into()), ..settings.clone() };
    assert!(Arc::ptr_eq(&config, &house.config(&elsewhere).unwrap()), "the name is no part of it");
    // Another size: the clock of the file system may be too coarse to show the change.
    directory.write("ca.pem", &(second.pem() + &first.pem()));
    let identity = second.issue(&["a.example"], Validity::Now);
    exchange(shake(&house, "a.example", &settings, &Arc::new(identity.server(BOTH, None))));
    assert!(!Arc::ptr_eq(&config, &house.config(&settings).unwrap()));
}

#[test]
fn as_many_kinds_of_settings_as_anybody_likes() {
    let house = House::new(None, None);
    for number in 0..100 {
        let settings = Settings { verify: Verify::Pins(vec![[number; 32]]), ..Settings::default() };
        house.config(&settings).unwrap();
        assert!(house.kept() <= 32);
    }
}
