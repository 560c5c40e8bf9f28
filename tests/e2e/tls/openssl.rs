//! openssl(1) as a server: versions, ciphers, RSA, client certificates, key updates, and renegotiation, which is
//! refused.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use testkit::daemon::Daemon;
use testkit::tls::{Authority, Validity};

use crate::support::{LIMIT, Scratch, daemon, started, tls_answered, tls_connected};

/// `openssl s_server`. Dropping it ends the process.
pub(super) struct OpenSsl {
    child: Child,
    /// Where it listens.
    pub(super) address: String,
    stdin: ChildStdin,
    output: Receiver<String>,
}

impl OpenSsl {
    /// Starts it on a free port, with these options.
    #[track_caller]
    pub(super) fn serve(options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("openssl: {error} (apt-get install openssl)"));
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, output) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut server = Self { child, address: String::new(), stdin, output };
        server.address = server.wait("ACCEPT ").trim_start_matches("ACCEPT ").trim().to_owned();
        server
    }

    /// Waits for a line that begins with `beginning`.
    #[track_caller]
    fn wait(&self, beginning: &str) -> String {
        loop {
            let line = self.output.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("openssl does not print {beginning}"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    /// Writes a line to its standard input.
    fn type_line(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.stdin.flush().unwrap();
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a self-signed certificate with an RSA key. Returns its file, and its fingerprint as openssl prints it.
#[track_caller]
fn rsa(scratch: &Scratch) -> (String, String) {
    let file = scratch.path("rsa.pem");
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=device", "-days", "30", "-keyout"];
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().expect("openssl is needed (apt-get install openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let certificate = scratch.path("certificate.pem");
    run(&[&made[..], &[&file, "-out", &certificate]].concat());
    let fingerprint = run(&["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"]);
    let both = std::fs::read_to_string(&file).unwrap() + &std::fs::read_to_string(&certificate).unwrap();
    std::fs::write(&file, both).unwrap();
    (file, fingerprint.trim().split_once('=').unwrap().1.to_owned())
}

#[test]
fn openssl_connects_with_every_version_and_cipher() {
    let scratch = Scratch::new();
    let (file, fingerprint) = rsa(&scratch);
    let daemon = started();
    let pins = format!("PINS=sha256/{fingerprint}");
    for options in [
        &["-tls1_3"][..],
        &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
        &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
        &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
        &["-tls1_3", "-groups", "P-384"],
        &["-tls1_2", "-no_renegotiation"],
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"],
        &["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"],
    ] {
        let server = OpenSsl::serve(&[&["-rev", "-cert", &file], options].concat());
        let mut plugin = tls_connected(&daemon, &server.address, &pins);
        plugin.send(b"hello\n");
        assert_eq!(plugin.line(), "olleh", "{options:?}");
        plugin.finish();
        assert_eq!(plugin.rest(), b"", "{options:?}");
    }
    // The reported fingerprint equals openssl's.
    let server = OpenSsl::serve(&["-rev", "-cert", &file]);
    let plain: String = fingerprint.to_ascii_lowercase().split(':').collect();
    let (_, answer) = tls_answered(&daemon, &server.address, "");
    assert_eq!(answer, format!("ERR CONN SSL_ERROR unknown issuer (self-signed), certificate is sha256/{plain}"));
    // Obsolete ciphers and versions.
    for (options, words) in [
        (&["-tls1_2", "-cipher", "AES128-SHA"][..], NO_COMMON_GROUND),
        (
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            "no common version of TLS: the server refuses ours; stunnel can stand before it",
        ),
    ] {
        let server = OpenSsl::serve(&[&["-rev", "-cert", &file], options].concat());
        let (_, answer) = tls_answered(&daemon, &server.address, &pins);
        assert_eq!(answer, format!("ERR CONN SSL_ERROR {words}"));
    }
}

/// The error for a server with which nothing is in common.
const NO_COMMON_GROUND: &str = "the server finds no common ground (handshake_failure): supported are TLS 1.2 and 1.3 with ECDHE, AES-GCM or \
     ChaCha20-Poly1305, and RSA, P-256, P-384 or Ed25519 keys; stunnel can stand before it";

/// Runs openssl. Returns its output.
#[track_caller]
pub(super) fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().expect("openssl is needed (apt-get install openssl)");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a self-signed certificate with a key of `kind`, as `openssl req` names it, in one file. Returns the file, and the
/// certificate as PINS names it.
#[track_caller]
pub(super) fn self_signed(scratch: &Scratch, name: &str, kind: &[&str]) -> (String, String) {
    let (key, certificate) = (scratch.path(&format!("{name}.key")), scratch.path(&format!("{name}.crt")));
    let request =
        ["req", "-x509", "-nodes", "-subj", "/CN=device", "-days", "30", "-keyout", &key, "-out", &certificate];
    openssl(&[&request[..], kind].concat());
    let fingerprint = openssl(&["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"]);
    let digits: String = fingerprint.trim().split_once('=').unwrap().1.to_ascii_lowercase().split(':').collect();
    let both = [&key, &certificate].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    (scratch.write(&format!("{name}.pem"), both.as_bytes()).to_string(), format!("sha256/{digits}"))
}

/// Asserts that bytes pass.
#[track_caller]
fn assert_echo(daemon: &Daemon, server: &OpenSsl, options: &str) {
    let mut plugin = tls_connected(daemon, &server.address, options);
    plugin.send(b"hello\n");
    assert_eq!(plugin.line(), "olleh", "{options}");
}

/// The answer to a CONN that fails.
#[track_caller]
pub(super) fn refusal(daemon: &Daemon, server: &OpenSsl, options: &str) -> String {
    let (_, answer) = tls_answered(daemon, &server.address, options);
    answer.strip_prefix("ERR CONN SSL_ERROR ").unwrap_or_else(|| panic!("{options}: {answer}")).to_owned()
}

/// openssl's own rules are off.
const ANY_LEVEL: [&str; 2] = ["-cipher", "DEFAULT:@SECLEVEL=0"];

#[test]
fn rsa_keys_of_1024_bits_work_in_tls_1_2_without_a_chain() {
    // rustls#234; "EE certificate key too weak" of Tapo cameras.
    let scratch = Scratch::new();
    let (file, pin) = self_signed(&scratch, "short", &["-newkey", "rsa:1024"]);
    let daemon = daemon().config("[tls]\ndirectory={dir}\n").start();
    let serve = |file: &str, version| OpenSsl::serve(&[&["-rev", "-cert", file, version][..], &ANY_LEVEL].concat());
    let server = serve(&file, "-tls1_2");
    assert_echo(&daemon, &server, "VRFY=none");
    assert_echo(&daemon, &server, &format!("PINS={pin}"));
    assert_eq!(refusal(&daemon, &server, ""), format!("unknown issuer (self-signed), certificate is {pin}"));
    let other = format!("PINS=sha256/{}", "00".repeat(32));
    assert_eq!(refusal(&daemon, &server, &other), format!("pin refused, certificate is {pin}"));
    // A server that knows only signatures that ring does not check with such a key.
    let options = ["-rev", "-cert", &file, "-tls1_2", "-sigalgs", "RSA+SHA384"];
    let server = OpenSsl::serve(&[&options[..], &ANY_LEVEL].concat());
    for options in ["VRFY=none", &format!("PINS={pin}")] {
        let why = "the server's RSA key of 1024 bits is too short for its kind of signature";
        assert_eq!(refusal(&daemon, &server, options), why);
    }
    // In TLS 1.3 no pin helps, so none is said.
    let server = serve(&file, "-tls1_3");
    let short = "the server's RSA key of 1024 bits is too short for TLS 1.3 (2048 are needed)";
    assert_eq!(refusal(&daemon, &server, "VRFY=none"), short);
    assert_eq!(refusal(&daemon, &server, &format!("PINS={pin}")), short);
    assert_eq!(refusal(&daemon, &server, ""), format!("unknown issuer (self-signed), and {short}"));
    assert_eq!(refusal(&daemon, &server, &other), format!("pin refused, and {short}"));

    // A certificate of an authority that is trusted.
    let (ca, _) = self_signed(&scratch, "ca", &["-newkey", "rsa:2048"]);
    std::fs::copy(&ca, daemon.dir().join("ca.pem")).unwrap();
    let names = scratch.write("names", b"subjectAltName=IP:127.0.0.1\n").to_string();
    let [key, request, certificate] = ["ee.key", "ee.csr", "ee.crt"].map(|name| scratch.path(name));
    openssl(&["req", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=ee", "-keyout", &key, "-out", &request]);
    let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca, "-CAcreateserial", "-days", "30"];
    openssl(&[&sign[..], &["-extfile", &names, "-out", &certificate]].concat());
    let both = [&key, &certificate].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let issued = scratch.write("issued.pem", both.as_bytes()).to_string();
    let server = serve(&issued, "-tls1_2");
    let refused = refusal(&daemon, &server, "CAFL=ca.pem");
    let (why, pin) = refused.split_once(", certificate is ").unwrap_or_else(|| panic!("no pin: {refused}"));
    assert_eq!(why, "the server's RSA key of 1024 bits is too short");
    assert_echo(&daemon, &server, &format!("PINS={pin}"));
    assert_eq!(refusal(&daemon, &serve(&issued, "-tls1_3"), "CAFL=ca.pem"), short);

    // Shorter ones never work.
    let (file, pin) = self_signed(&scratch, "shorter", &["-newkey", "rsa:768"]);
    let server = serve(&file, "-tls1_2");
    for options in ["VRFY=none", &format!("PINS={pin}")] {
        assert_eq!(refusal(&daemon, &server, options), "the server's RSA key of 768 bits is too short");
    }
}

#[test]
fn errors_of_servers_with_other_algorithms_say_what_is_supported() {
    // go2rtc#2383, python-kasa#1724.
    let scratch = Scratch::new();
    let daemon = started();
    let rsa = || self_signed(&scratch, "rsa", &["-newkey", "rsa:2048"]).0;
    let curve = |curve: &str| {
        self_signed(&scratch, curve, &["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")]).0
    };
    let pss = || self_signed(&scratch, "pss", &["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"]).0;
    for (file, options) in [
        (rsa(), &["-tls1_2", "-cipher", "kRSA"][..]),
        (rsa(), &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"]),
        (rsa(), &["-tls1_2", "-cipher", "DHE"]),
        (rsa(), &["-tls1_2", "-groups", "P-521"]),
        (rsa(), &["-tls1_3", "-groups", "P-521"]),
        (rsa(), &["-tls1_2", "-sigalgs", "RSA+SHA1", "-cipher", "DEFAULT:@SECLEVEL=0"]),
        (curve("secp521r1"), &["-tls1_2"]),
        (curve("secp521r1"), &["-tls1_3"]),
        (curve("secp256k1"), &["-tls1_2"]),
        (pss(), &["-tls1_2"]),
        (pss(), &["-tls1_3"]),
    ] {
        let server = OpenSsl::serve(&[&["-rev", "-cert", &file], options].concat());
        assert_eq!(refusal(&daemon, &server, "VRFY=none"), NO_COMMON_GROUND, "{file} {options:?}");
    }
}

#[test]
fn a_client_certificate_of_version_1_is_sent() {
    // rustls#2364, deno#33505: OpenSSL 3.0 makes version 1 of a request by default.
    let scratch = Scratch::new();
    let (file, _) = self_signed(&scratch, "server", &["-newkey", "rsa:2048"]);
    let (ca, _) = self_signed(&scratch, "ca", &["-newkey", "rsa:2048"]);
    let [key, request, certificate] = ["client.key", "client.csr", "client.crt"].map(|name| scratch.path(name));
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=vera", "-keyout", &key, "-out", &request]);
    let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca, "-CAcreateserial", "-days", "30"];
    openssl(&[&sign[..], &["-out", &certificate]].concat());
    assert!(openssl(&["x509", "-in", &certificate, "-noout", "-text"]).contains("Version: 1 (0x0)"));
    let daemon = daemon().config("[tls]\ndirectory={dir}\n").start();
    std::fs::copy(&key, daemon.dir().join("client.key")).unwrap();
    std::fs::copy(&certificate, daemon.dir().join("client.pem")).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let options = ["-rev", "-cert", &file, version, "-Verify", "2", "-verify_return_error", "-CAfile", &ca];
        assert_echo(&daemon, &OpenSsl::serve(&options), "VRFY=none CERT=client.pem PKEY=client.key");
    }
}

/// RFC 8446 section 4.4.2.4: a server of TLS 1.3 says certificate_required.
const WANTED: &str = "the server wants a certificate from us";

#[test]
fn openssl_requires_a_client_certificate() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let server = authority.issue(&["127.0.0.1"], Validity::Now);
    let client = clients.issue(&["client"], Validity::Now);
    let other = Authority::new("other").issue(&["client"], Validity::Now);
    let scratch = Scratch::new();
    let file = scratch.write("server.pem", [server.pem(), server.key_pem()].concat().as_bytes()).to_string();
    let ca = scratch.write("clients.pem", clients.pem().as_bytes()).to_string();
    let daemon = daemon()
        .config("[tls]\nca={dir}/ca.pem\ndirectory={dir}\n")
        .file("ca.pem", authority.pem().as_bytes())
        .file("client.pem", [client.pem(), client.key_pem()].concat().as_bytes())
        .file("other.pem", [other.pem(), other.key_pem()].concat().as_bytes())
        .start();
    for version in ["-tls1_2", "-tls1_3"] {
        let openssl =
            OpenSsl::serve(&["-rev", "-cert", &file, version, "-Verify", "2", "-verify_return_error", "-CAfile", &ca]);
        for _ in 0..2 {
            let mut plugin = tls_connected(&daemon, &openssl.address, "CERT=client.pem");
            plugin.send(b"hello\n");
            assert_eq!(plugin.line(), "olleh", "{version}");
        }
        for (certificate, words) in [("", WANTED), ("CERT=other.pem", "the server refuses our certificate (UnknownCA)")]
        {
            let (mut plugin, answer) = tls_answered(&daemon, &openssl.address, certificate);
            if version == "-tls1_2" {
                // RFC 5246 section 7.4.6: a server says so by handshake_failure.
                let hint = "the server breaks off the handshake (handshake_failure): it may want a certificate from us";
                let words = if words == WANTED { hint } else { words };
                assert_eq!(answer, format!("ERR CONN SSL_ERROR {words}"));
            } else {
                // The server checks the certificate after the handshake: the plugin sees an end, the log has the
                // reason.
                assert!(answer.starts_with("OK CONN "), "{answer}");
                assert!(plugin.at_end());
                let line = format!("{} closed: remote's connection lost (SSL_ERROR {words})", plugin.pid());
                daemon.wait_for_log(LIMIT, |logged| logged.contains(&line));
            }
        }
    }
}

#[test]
fn openssl_updates_its_keys_and_cannot_renegotiate() {
    let scratch = Scratch::new();
    let (file, _) = rsa(&scratch);
    let daemon = started();
    // At the beginning of a line, K updates both sides' keys (TLS 1.3) and R requests a renegotiation (TLS 1.2).
    for (version, letter) in [("-tls1_3", "K"), ("-tls1_2", "R")] {
        let mut server = OpenSsl::serve(&["-cert", &file, version]);
        let mut plugin = tls_connected(&daemon, &server.address, "VRFY=none");
        server.type_line("before");
        assert_eq!(plugin.line(), "before");
        plugin.send(b"from the plugin\n");
        server.wait("from the plugin");
        server.type_line(letter);
        if letter == "R" {
            // openssl insists and ends the connection; the plugin sees that.
            plugin.send(b"after\n");
            assert!(plugin.rest().is_empty());
            continue;
        }
        for round in 0..3 {
            plugin.send(format!("after {round}\n").as_bytes());
            server.wait(&format!("after {round}"));
            server.type_line(&format!("answer {round}"));
            assert_eq!(plugin.line(), format!("answer {round}"));
            server.type_line("K");
        }
    }
}
