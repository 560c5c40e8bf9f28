//! `--make-cert`: files, errors, and what other programs think of the certificate.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::openssl::{OpenSsl, openssl};
use crate::support::{Run, Scratch, daemon, run, tls_connected};

/// A private directory with a configuration file that names its folder `certificates`, which does not exist.
fn configured() -> (Scratch, String) {
    let scratch = Scratch::new();
    let config = scratch.write("a.cf", format!("[tls]\ndirectory={}\n", scratch.path("certificates")));
    (scratch, config)
}

#[track_caller]
fn make(config: &str, names: &str) -> Run {
    run(&["-c", config, "--make-cert", names])
}

#[test]
fn openssl_accepts_the_certificate_for_each_of_its_names() {
    let (scratch, config) = configured();
    let made = make(&config, "vera.local,192.168.0.5,fd00::1,*.home.example");
    assert_eq!((made.status, &*made.err), (Some(0), ""), "{made:?}");
    let (certificate, key) = (scratch.path("certificates/vera.local.pem"), scratch.path("certificates/vera.local.key"));
    let fingerprint = openssl(&["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"]);
    let digits: String = fingerprint.trim().split_once('=').unwrap().1.to_ascii_lowercase().split(':').collect();
    assert_eq!(
        made.out,
        format!(
            "certificate  {certificate}\nkey          {key}\noptions      CERT=vera.local.pem PKEY=vera.local.key\n\
             fingerprint  sha256/{digits}\n"
        )
    );
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&certificate) & 0o400, 0o400);
    let text = openssl(&["x509", "-in", &certificate, "-noout", "-text"]);
    for part in [
        "Version: 3",
        "ecdsa-with-SHA256",
        "prime256v1",
        "Not Before: Jan  1 00:00:00 1970 GMT",
        "Not After : Dec 31 23:59:59 2049 GMT",
        "CA:FALSE",
        "TLS Web Server Authentication",
        "DNS:vera.local, IP Address:192.168.0.5, IP Address:FD00:0:0:0:0:0:0:1, DNS:*.home.example",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let public = |args: &[&str]| openssl(args);
    assert_eq!(public(&["x509", "-in", &certificate, "-noout", "-pubkey"]), public(&["pkey", "-in", &key, "-pubout"]));
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", &certificate];
    for name in [
        ["-verify_hostname", "vera.local"],
        ["-verify_ip", "192.168.0.5"],
        ["-verify_ip", "fd00::1"],
        ["-verify_hostname", "boiler.home.example"],
        // A box without a clock.
        ["-attime", "1"],
    ] {
        openssl(&[&verify[..], &name, &[&certificate]].concat());
    }
}

#[test]
fn the_proxy_verifies_the_certificate_by_its_chain_and_by_its_pin() {
    let (scratch, config) = configured();
    let made = make(&config, "127.0.0.1");
    let pin = made.out.split_whitespace().last().unwrap_or_else(|| panic!("{made:?}")).to_owned();
    let daemon = daemon().config(&std::fs::read_to_string(&config).unwrap()).start();
    let (certificate, key) = (scratch.path("certificates/127.0.0.1.pem"), scratch.path("certificates/127.0.0.1.key"));
    for version in ["-tls1_2", "-tls1_3"] {
        let server = OpenSsl::serve(&["-rev", "-cert", &certificate, "-key", &key, version]);
        for options in ["CAFL=127.0.0.1.pem", &format!("PINS={pin}")] {
            let mut plugin = tls_connected(&daemon, &server.address, options);
            plugin.send(b"hello\n");
            assert_eq!(plugin.line(), "olleh", "{version} {options}");
        }
    }
}

#[test]
fn the_files_belong_to_the_owner_of_the_directory() {
    let (scratch, config) = configured();
    let directory = scratch.path("certificates");
    std::fs::create_dir(&directory).unwrap();
    if std::os::unix::fs::chown(&directory, Some(65534), Some(65533)).is_err() {
        println!("skipped: only root can give files away");
        return;
    }
    assert_eq!(make(&config, "vera").status, Some(0));
    for file in ["certificates/vera.pem", "certificates/vera.key"] {
        let file = std::fs::metadata(scratch.path(file)).unwrap();
        assert_eq!((file.uid(), file.gid()), (65534, 65533));
    }
}

/// As the packages for OpenWrt make the directory: root's, with the group of the proxy's user.
#[test]
fn the_key_is_for_the_group_of_a_directory_that_others_may_not_enter() {
    let (scratch, config) = configured();
    let directory = scratch.path("certificates");
    std::fs::create_dir(&directory).unwrap();
    for (mode, name, expected) in [(0o2750, "a", 0o640), (0o700, "b", 0o600), (0o755, "c", 0o600)] {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(make(&config, name).status, Some(0));
        let key = std::fs::metadata(scratch.path(&format!("certificates/{name}.key"))).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, expected, "{mode:o}");
    }
}

#[test]
fn files_are_never_overwritten() {
    let (scratch, config) = configured();
    assert_eq!(make(&config, "vera").status, Some(0));
    let files = ["certificates/vera.pem", "certificates/vera.key"];
    let before = files.map(|file| scratch.read(file));
    let refused = |missing: &str, there: &str| {
        let again = make(&config, "vera");
        let error = format!("sockproxyd: {} exists, and is not overwritten\n", scratch.path(there));
        assert_eq!((again.status, &*again.out, &*again.err), (Some(1), "", &*error));
        assert!(missing.is_empty() || !std::path::Path::new(&scratch.path(missing)).exists(), "{missing} was made");
    };
    refused("", files[0]);
    assert_eq!(files.map(|file| scratch.read(file)), before);
    std::fs::remove_file(scratch.path(files[0])).unwrap();
    refused(files[0], files[1]);
    // Not through a link, either.
    std::fs::remove_file(scratch.path(files[1])).unwrap();
    std::os::unix::fs::symlink(scratch.path("elsewhere"), scratch.path(files[1])).unwrap();
    let through_link = make(&config, "vera");
    assert_eq!(through_link.status, Some(1), "{through_link:?}");
    assert_eq!((scratch.read("elsewhere"), scratch.read(files[0])), (String::new(), String::new()));
}

#[test]
fn bad_names_and_directories_are_refused() {
    let (scratch, config) = configured();
    for (names, words) in [
        ("", "'' is neither the name of a host nor an address (-h for help)"),
        ("../vera", "'../vera' is neither the name of a host nor an address (-h for help)"),
        ("*.example", "the first name also names the files, and cannot begin with '*' (-h for help)"),
    ] {
        let made = make(&config, names);
        assert_eq!((made.status, &*made.err), (Some(2), &*format!("sockproxyd: {words}\n")));
    }
    let none = scratch.write("none.cf", "[tls]\ndirectory=\n");
    let made = make(&none, "vera");
    assert_eq!(made.status, Some(1), "{made:?}");
    assert!(made.err.contains("the configuration has no directory for certificates (directory= in [tls])"), "{made:?}");
    let file = scratch.write("file", "");
    let made = make(&scratch.write("file.cf", format!("[tls]\ndirectory={file}\n")), "vera");
    assert_eq!(
        (made.status, made.err.starts_with(&format!("sockproxyd: {file}/vera.key: "))),
        (Some(1), true),
        "{made:?}"
    );
}
