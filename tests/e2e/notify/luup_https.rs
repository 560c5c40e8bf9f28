//! A Luup with an `https` URL: notifications over TLS, verification as configured, and errors in the log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::Signal;
use rustls::HandshakeKind::{Full, Resumed};
use rustls::ServerConfig;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::tls::{Authority, Identity, TlsDevice, Validity};

use crate::support::{LIMIT, Nginx, accepted, daemon, echo_mode, with_luup};

/// A Luup over TLS. It answers `answers` requests on each connection; its last answer has `Connection: close`.
struct SecureLuup {
    device: TlsDevice,
    heads: Receiver<String>,
}

impl SecureLuup {
    fn start(config: ServerConfig, answers: usize) -> Self {
        let (sender, heads) = channel();
        let device = TlsDevice::start(config, move |stream| {
            let mut stream = BufReader::new(stream);
            for left in (0..answers).rev() {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if !matches!(stream.read_line(&mut head), Ok(1..)) {
                        return;
                    }
                }
                let _ = sender.send(head);
                let last = if left == 0 { "Connection: close\r\n" } else { "" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{last}\r\nOK");
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            stream.get_mut().conn.send_close_notify();
            let _ = stream.get_mut().flush();
            let _ = stream.read(&mut [0]);
        });
        Self { device, heads }
    }

    fn url(&self) -> String {
        format!("https://{}", self.device.addr())
    }

    /// Waits for the next request.
    #[track_caller]
    fn request(&self) -> String {
        self.heads.recv_timeout(LIMIT).expect("a notification")
    }
}

fn loopback(authority: &Authority) -> Identity {
    authority.issue(&["127.0.0.1", "localhost"], Validity::Now)
}

/// A daemon that notifies the Luup at `url`, with `authority` in ca.pem.
#[track_caller]
fn notifying(url: &str, tls: &str, authority: &Authority) -> Daemon {
    let config = format!("[limits]\nanswer=2000\n[tls]\n{tls}\n");
    daemon().config(&config).file("ca.pem", authority.pem().as_bytes()).luup(url).start()
}

/// Triggers `count` notifications one after another, and returns the requests.
#[track_caller]
fn notify(daemon: &Daemon, luup: &SecureLuup, count: usize) -> Vec<String> {
    let (mut plugin, mut remote) = echo_mode(daemon, "NTFY=5/s/a/p");
    let heads = (0..count).map(|_| {
        remote.write_all(b"x").unwrap();
        assert_eq!(plugin.bytes(1), b"x");
        luup.request()
    });
    heads.collect()
}

/// The TLS error in the log.
#[track_caller]
fn tls_error(daemon: &Daemon) -> String {
    let line = daemon.wait_for_log(LIMIT, |line| line.contains("no TLS to Luup"));
    line.split_once("no TLS to Luup: ").unwrap().1.to_owned()
}

#[test]
fn a_verified_luup_is_notified_over_one_connection() {
    let authority = Authority::new("authority");
    for config in [loopback(&authority).any_server(), loopback(&authority).tls12_server()] {
        let luup = SecureLuup::start(config, usize::MAX);
        let daemon = notifying(&luup.url(), "ca={dir}/ca.pem", &authority);
        for head in notify(&daemon, &luup, 5) {
            let (line, headers) = head.split_once("\r\n").unwrap();
            assert!(line.starts_with("GET /data_request?id=action&") && line.ends_with("&Pid=p HTTP/1.1"), "{line}");
            let headers = headers.to_ascii_lowercase();
            assert!(headers.contains(&format!("host: {}\r\n", luup.device.addr())), "{headers}");
            assert!(headers.contains("user-agent: sockproxyd-1\r\n") && !headers.contains("connection:"), "{headers}");
        }
        // The last request is the closing notice.
        luup.request();
        assert_eq!(luup.device.handshakes(), [Full], "one connection for all requests");
    }
}

#[test]
fn tls_sessions_are_resumed_if_luup_closes_each_connection() {
    let authority = Authority::new("authority");
    let luup = SecureLuup::start(loopback(&authority).any_server(), 1);
    let url = format!("https://localhost:{}/", luup.device.addr().port());
    let daemon = notifying(&url, "ca={dir}/ca.pem", &authority);
    assert!(notify(&daemon, &luup, 3)[2].contains(&format!("localhost:{}\r\n", luup.device.addr().port())));
    luup.request();
    assert_eq!(luup.device.handshakes(), [Full, Resumed, Resumed, Resumed]);
    assert!(!daemon.log_text().contains("cannot be reached"), "{}", daemon.log_text());
}

#[test]
fn an_unverified_luup_gets_no_request_until_its_certificate_is_trusted() {
    let authority = Authority::new("authority");
    let identity = loopback(&authority);
    let luup = SecureLuup::start(identity.any_server(), usize::MAX);
    let daemon = notifying(&luup.url(), "", &authority);
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    assert_eq!(tls_error(&daemon), format!("SSL_ERROR unknown issuer, certificate is {}", identity.pin()));
    daemon.wait_for_log(LIMIT, |line| line.contains("notifications wait"));
    // Repeated attempts are logged once.
    crate::support::eventually("another attempt", || {
        let tried = crate::support::StatClient::new(daemon.addr()).status()["notifications"]["sent"].as_u64()?;
        (tried >= 4).then_some(())
    });
    assert_eq!(daemon.log_lines().iter().filter(|line| line.contains("no TLS")).count(), 1);
    assert!(luup.heads.try_recv().is_err());
    for verify in [identity.pin(), "none".into()] {
        std::fs::write(daemon.dir().join("sockproxyd.conf"), format!("[tls]\nluup={verify}\n")).unwrap();
        daemon.signal(Signal::SIGHUP);
        luup.request();
        daemon.wait_for_log(LIMIT, |line| line.contains("Luup is back"));
        remote.write_all(b"x").unwrap();
    }
}

#[test]
fn the_reason_of_a_failed_verification_is_logged() {
    let authority = Authority::new("authority");
    let issue = |names: &[&str], validity| authority.issue(names, validity);
    let ip: &[&str] = &["127.0.0.1"];
    let good = issue(ip, Validity::Now);
    let wrong_pin = format!("luup=sha256/{}", "00".repeat(32));
    let verified = "ca={dir}/ca.pem";
    for (config, tls, words) in [
        (
            issue(ip, Validity::Past).any_server(),
            verified,
            "certificate expired at 2001-02-03T00:00:00Z, the clock says",
        ),
        (issue(ip, Validity::Future).any_server(), verified, "certificate not valid before 2199-01-01T00:00:00Z, the"),
        (
            issue(&["vera.example"], Validity::Now).any_server(),
            verified,
            "certificate is not for 127.0.0.1, but for vera",
        ),
        (good.any_server(), &wrong_pin, "pin refused, certificate is sha256/"),
        (good.server(rustls::ALL_VERSIONS, Some(&authority)), verified, "the server wants a certificate from us"),
        (good.server(&[&rustls::version::TLS12], Some(&authority)), verified, "the server wants a certificate from us"),
        (good.any_server(), "ca={dir}/missing.pem", "ca "),
    ] {
        let luup = SecureLuup::start(config, usize::MAX);
        let daemon = notifying(&luup.url(), tls, &authority);
        let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
        remote.write_all(b"x").unwrap();
        let error = tls_error(&daemon);
        assert!(error.starts_with(&format!("SSL_ERROR {words}")), "{words}: {error}");
        daemon.wait_for_log(LIMIT, |line| line.contains("notifications wait"));
    }
    // No verification, and a server that does not speak TLS.
    let luup = SecureLuup::start(issue(&["other"], Validity::Past).any_server(), usize::MAX);
    notify(&notifying(&luup.url(), "luup=none", &authority), &luup, 2);
    let plain = Device::start(Kind::Manual);
    let daemon = notifying(&format!("https://{}", plain.addr()), "", &authority);
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    let mut server = accepted(&plain);
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    server.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    assert_eq!(tls_error(&daemon), "SSL_ERROR the server speaks plain HTTP on this port");
}

#[test]
fn notifications_wait_for_a_luup_that_refuses_connections() {
    let authority = Authority::new("authority");
    let reserved = testkit::ports::Reserved::new().unwrap();
    let daemon = notifying(&format!("https://{}", reserved.addr()), "", &authority);
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    daemon.wait_for_log(LIMIT, |line| line.contains("cannot be reached"));
    assert!(!daemon.log_text().contains("no TLS"), "{}", daemon.log_text());
}

#[test]
fn a_hanging_handshake_delays_no_other_notification() {
    let authority = Authority::new("authority");
    // The first connection hangs, as with a stopped server; later connections are passed on.
    let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = notifying(&format!("https://{}", front.local_addr().unwrap()), "ca={dir}/ca.pem", &authority);
    let (_first, mut first_remote) = echo_mode(&daemon, "NTFY=1/s/a/first");
    first_remote.write_all(b"x").unwrap();
    let _hanging = front.accept().unwrap();
    let (_second, mut second_remote) = echo_mode(&daemon, "NTFY=2/s/a/second");
    second_remote.write_all(b"x").unwrap();
    let to = luup.device.addr();
    std::thread::spawn(move || {
        while let Ok((client, _)) = front.accept() {
            let server = TcpStream::connect(to).unwrap();
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    assert!(luup.request().contains("second"), "the second notification waits for the first");
    assert_eq!(tls_error(&daemon), "SSL_ERROR timeout during the handshake");
    let again = luup.heads.recv_timeout(LIMIT).expect("the first notification, repeated");
    assert!(again.contains("first"), "{again}");
}

#[test]
fn https_works_on_the_command_line_and_in_the_file() {
    let authority = Authority::new("authority");
    for option in ["-N", "-V"] {
        let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
        let daemon = daemon()
            .bare()
            .config("[tls]\nca={dir}/ca.pem\n")
            .file("ca.pem", authority.pem().as_bytes())
            .args(&["-a", "127.0.0.1", "-p", "0", option, &luup.url()])
            .start();
        notify(&daemon, &luup, 1);
    }
    let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
    let config = format!("[host]\nip=127.0.0.1\nport=0\nvera={}\n[tls]\nluup=none\n", luup.url());
    notify(&daemon().bare().config(&config).start(), &luup, 1);
}

#[test]
fn a_luup_without_tls_is_notified_over_http() {
    let (luup, daemon) = with_luup("[tls]\nluup=none\n");
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    let request = &luup.wait_for(1, LIMIT)[0];
    assert_eq!(request.header("Connection"), Some("close"));
    assert_eq!(request.header("TE"), Some("trailers"));
}

#[test]
fn a_luup_behind_nginx() {
    let authority = Authority::new("authority");
    let luup = Luup::start();
    let port = luup.port();
    let servers = |secure| {
        format!("server {{ listen 127.0.0.1:{secure} ssl; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}")
    };
    let nginx = Nginx::start(&loopback(&authority), servers);
    let url = format!("https://127.0.0.1:{}", nginx.secure.port());
    let daemon = notifying(&url, "ca={dir}/ca.pem", &authority);
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    for count in 1..=5 {
        remote.write_all(b"x").unwrap();
        assert_eq!(plugin.bytes(1), b"x");
        assert_eq!(luup.wait_for(count, LIMIT)[count - 1].pid(), "p");
    }
    drop(plugin);
    luup.wait_for(6, LIMIT);
    assert!(!daemon.log_text().contains("WARN"), "{}", daemon.log_text());
    // The server has closed the kept connection; no notification may be lost.
    let secure = nginx.end();
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/q");
    remote.write_all(b"x").unwrap();
    let _nginx = Nginx::start_at(secure, &loopback(&authority), servers);
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.pid() == "q")).unwrap();
}
