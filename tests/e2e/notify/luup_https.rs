//! A Luup behind `https`: notified over TLS, verified as configured, and what the log says where that fails.

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

/// A Luup behind TLS, which answers `answers` requests on a connection, and says so in the last.
struct SecureLuup {
    device: TlsDevice,
    heads: Receiver<String>,
}

impl SecureLuup {
    fn start(config: ServerConfig, answers: usize) -> Self {
        let (heard, heads) = channel();
        let device = TlsDevice::start(config, move |stream| {
            let mut stream = BufReader::new(stream);
            for left in (0..answers).rev() {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if !matches!(stream.read_line(&mut head), Ok(1..)) {
                        return;
                    }
                }
                let _ = heard.send(head);
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

    /// The next request.
    #[track_caller]
    fn request(&self) -> String {
        self.heads.recv_timeout(LIMIT).expect("a notification")
    }
}

fn loopback(authority: &Authority) -> Identity {
    authority.issue(&["127.0.0.1", "localhost"], Validity::Now)
}

/// A daemon that notifies the Luup at `url`, and has `authority` in house.pem.
#[track_caller]
fn notifying(url: &str, tls: &str, authority: &Authority) -> Daemon {
    let config = format!("[limits]\nanswer=2000\n[tls]\n{tls}\n");
    daemon().config(&config).file("house.pem", authority.pem().as_bytes()).luup(url).start()
}

/// Has `count` notifications sent, one after the other, and reads them.
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

/// What the log says of TLS to Luup.
#[track_caller]
fn complaint(daemon: &Daemon) -> String {
    let line = daemon.wait_for_log(LIMIT, |line| line.contains("no TLS to Luup"));
    line.split_once("no TLS to Luup: ").unwrap().1.to_owned()
}

#[test]
fn a_luup_that_the_house_vouches_for_is_notified_over_one_connection() {
    let authority = Authority::new("house");
    for config in [loopback(&authority).any_server(), loopback(&authority).tls12_server()] {
        let luup = SecureLuup::start(config, usize::MAX);
        let daemon = notifying(&luup.url(), "ca={dir}/house.pem", &authority);
        for head in notify(&daemon, &luup, 5) {
            let (line, headers) = head.split_once("\r\n").unwrap();
            assert!(line.starts_with("GET /data_request?id=action&") && line.ends_with("&Pid=p HTTP/1.1"), "{line}");
            let headers = headers.to_ascii_lowercase();
            assert!(headers.contains(&format!("host: {}\r\n", luup.device.addr())), "{headers}");
            assert!(headers.contains("user-agent: sockproxyd-1\r\n") && !headers.contains("connection:"), "{headers}");
        }
        // The last is that of the connection's end.
        luup.request();
        assert_eq!(luup.device.handshakes(), [Full], "one connection for all");
    }
}

#[test]
fn a_luup_that_closes_each_connection_has_its_sessions_resumed() {
    let authority = Authority::new("house");
    let luup = SecureLuup::start(loopback(&authority).any_server(), 1);
    let url = format!("https://localhost:{}/", luup.device.addr().port());
    let daemon = notifying(&url, "ca={dir}/house.pem", &authority);
    assert!(notify(&daemon, &luup, 3)[2].contains(&format!("localhost:{}\r\n", luup.device.addr().port())));
    luup.request();
    assert_eq!(luup.device.handshakes(), [Full, Resumed, Resumed, Resumed]);
    assert!(!daemon.log_text().contains("cannot be reached"), "{}", daemon.log_text());
}

#[test]
fn a_luup_that_nobody_vouches_for_is_told_nothing_until_it_is_accepted() {
    let authority = Authority::new("house");
    let identity = loopback(&authority);
    let luup = SecureLuup::start(identity.any_server(), usize::MAX);
    let daemon = notifying(&luup.url(), "", &authority);
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    assert_eq!(complaint(&daemon), format!("SSL_ERROR unknown issuer, certificate is {}", identity.pin()));
    daemon.wait_for_log(LIMIT, |line| line.contains("notifications wait"));
    // It is said once, however often it is tried.
    crate::support::eventually("it is tried again", || {
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
fn what_is_wrong_with_a_luup_stands_in_the_log() {
    let house = Authority::new("house");
    let issue = |names: &[&str], validity| house.issue(names, validity);
    let ip: &[&str] = &["127.0.0.1"];
    let good = issue(ip, Validity::Now);
    let wrong_pin = format!("luup=sha256/{}", "00".repeat(32));
    let verified = "ca={dir}/house.pem";
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
        (good.server(rustls::ALL_VERSIONS, Some(&house)), verified, "the server wants a certificate from us"),
        (good.server(&[&rustls::version::TLS12], Some(&house)), verified, "the server wants a certificate from us"),
        (good.any_server(), "ca={dir}/missing.pem", "ca "),
    ] {
        let luup = SecureLuup::start(config, usize::MAX);
        let daemon = notifying(&luup.url(), tls, &house);
        let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
        remote.write_all(b"x").unwrap();
        let said = complaint(&daemon);
        assert!(said.starts_with(&format!("SSL_ERROR {words}")), "{words}: {said}");
        daemon.wait_for_log(LIMIT, |line| line.contains("notifications wait"));
    }
    // Verification is not asked for, and a server that does not speak TLS.
    let luup = SecureLuup::start(issue(&["other"], Validity::Past).any_server(), usize::MAX);
    notify(&notifying(&luup.url(), "luup=none", &house), &luup, 2);
    let plain = Device::start(Kind::Manual);
    let daemon = notifying(&format!("https://{}", plain.addr()), "", &house);
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    let mut server = accepted(&plain);
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    server.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    assert_eq!(complaint(&daemon), "SSL_ERROR the server speaks plain HTTP on this port");
}

#[test]
fn a_luup_that_refuses_is_waited_for() {
    let authority = Authority::new("house");
    let reserved = testkit::ports::Reserved::new().unwrap();
    let daemon = notifying(&format!("https://{}", reserved.addr()), "", &authority);
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    daemon.wait_for_log(LIMIT, |line| line.contains("cannot be reached"));
    assert!(!daemon.log_text().contains("no TLS"), "{}", daemon.log_text());
}

#[test]
fn a_handshake_that_hangs_stops_nobody() {
    let authority = Authority::new("house");
    // The first connection hangs, as at a server that is stopped; others are passed on.
    let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = notifying(&format!("https://{}", front.local_addr().unwrap()), "ca={dir}/house.pem", &authority);
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
    assert!(luup.request().contains("second"), "it does not wait for the first");
    assert_eq!(complaint(&daemon), "SSL_ERROR timeout during the handshake");
    let again = luup.heads.recv_timeout(LIMIT).expect("the first, again");
    assert!(again.contains("first"), "{again}");
}

#[test]
fn https_is_for_the_command_line_and_the_file() {
    let authority = Authority::new("house");
    for option in ["-N", "-V"] {
        let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
        let daemon = daemon()
            .bare()
            .config("[tls]\nca={dir}/house.pem\n")
            .file("house.pem", authority.pem().as_bytes())
            .args(&["-a", "127.0.0.1", "-p", "0", option, &luup.url()])
            .start();
        notify(&daemon, &luup, 1);
    }
    let luup = SecureLuup::start(loopback(&authority).any_server(), usize::MAX);
    let config = format!("[host]\nip=127.0.0.1\nport=0\nvera={}\n[tls]\nluup=none\n", luup.url());
    notify(&daemon().bare().config(&config).start(), &luup, 1);
}

#[test]
fn a_luup_without_tls_is_spoken_to_as_ever() {
    let (luup, daemon) = with_luup("[tls]\nluup=none\n");
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    let request = &luup.wait_for(1, LIMIT)[0];
    assert_eq!(request.header("Connection"), Some("close"));
    assert_eq!(request.header("TE"), Some("trailers"));
}

#[test]
fn a_luup_behind_nginx() {
    let authority = Authority::new("house");
    let luup = Luup::start();
    let port = luup.port();
    let servers = |secure| {
        format!("server {{ listen 127.0.0.1:{secure} ssl; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}")
    };
    let nginx = Nginx::start(&loopback(&authority), servers);
    let url = format!("https://127.0.0.1:{}", nginx.secure.port());
    let daemon = notifying(&url, "ca={dir}/house.pem", &authority);
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    for count in 1..=5 {
        remote.write_all(b"x").unwrap();
        assert_eq!(plugin.bytes(1), b"x");
        assert_eq!(luup.wait_for(count, LIMIT)[count - 1].pid(), "p");
    }
    drop(plugin);
    luup.wait_for(6, LIMIT);
    assert!(!daemon.log_text().contains("WARN"), "{}", daemon.log_text());
    // A kept connection is of no use any more when its server has ended; that is no loss.
    let secure = nginx.end();
    let (_plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/q");
    remote.write_all(b"x").unwrap();
    let _nginx = Nginx::start_at(secure, &loopback(&authority), servers);
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.pid() == "q")).unwrap();
}
