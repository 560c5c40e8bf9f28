//! Which requests are taken, and what the others are told.

use std::io::{Read, Write};

use nix::sys::signal::Signal;
use testkit::device::{Device, Kind};
use testkit::ports::{BlackHole, Reserved};
use testkit::websocket::{BINARY, TEXT};

use super::{Served, request};
use crate::support::{StatClient, accepted, curl, daemon, eventually, read_frame};

#[test]
fn each_refusal_is_a_sentence_that_a_person_understands() {
    let device = Device::start(Kind::Silent);
    let (closed, hole) = (Reserved::new().unwrap(), BlackHole::new().unwrap());
    let target = device.addr();
    let served = Served::start(&[
        format!("/plain CONN {target}"),
        format!("/pages ORIG=http://*.lan CONN {target}"),
        format!("/secret AUTH=user:word CONN {target}"),
        format!("/sub SUBP=a,b CONN {target}"),
        format!("/closed CONN {}", closed.addr()),
        format!("/hole CONN {} CTIM=300", hole.addr()),
    ]);
    let plain_get = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    for (bytes, status, sentence) in [
        (plain_get, "426 Upgrade Required", "This is a WebSocket port of sockproxyd."),
        (request("/other", &[]), "404 Not Found", "This port has no such path."),
        (request("/plain", &["Origin: http://evil"]), "403 Forbidden", "Pages of this origin may not connect here."),
        (request("/pages", &["Origin: http://box:80"]), "403 Forbidden", "Pages of this origin may not connect here."),
        (request("/secret", &[]), "401 Unauthorized", "A user name and a password are needed."),
        (
            request("/secret", &["Authorization: Basic dXNlcjp3b3Jk1"]),
            "401 Unauthorized",
            "A user name and a password are needed.",
        ),
        (
            request("/sub", &["Sec-WebSocket-Protocol: c"]),
            "400 Bad Request",
            "The client offers no subprotocol of this port.",
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "405 Method Not Allowed", "A WebSocket request is a GET."),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "505 HTTP Version Not Supported", "This port takes only HTTP/1.1."),
        (request("/closed", &[]), "502 Bad Gateway", "There is no connection to the target: connection refused."),
        (request("/hole", &[]), "504 Gateway Timeout", "There is no connection to the target: timeout."),
    ] {
        let response = served.response(&bytes);
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{response}");
        assert!(body.starts_with(sentence) && body.ends_with('\n'), "{response}");
        assert!(head.contains("\r\nContent-Type: text/plain\r\n"), "{response}");
    }
    let log = served.daemon.complete_log_text();
    assert!(log.contains("not opened: 403 Forbidden: Pages of this origin may not connect here."), "{log}");
    assert!(!log.contains("user:word") && !log.contains("dXNlcjp3b3Jk"), "{log}");
    StatClient::new(served.daemon.addr()).wait_connections(0);
}

#[test]
fn curl_shows_what_the_port_is() {
    let served = Served::start(&["/a CONN 127.0.0.1:1".into()]);
    let shown = curl(&[&format!("http://{}/", served.addr())]).out;
    assert!(shown.starts_with("This is a WebSocket port of sockproxyd. It has no pages:"), "{shown:?}");
}

#[test]
fn what_the_rules_ask_for_opens_a_connection() {
    let device = Device::start(Kind::Manual);
    let target = device.addr();
    let served = Served::start(&[
        format!("/pages ORIG=http://*.lan,null CONN {target}"),
        format!("/secret AUTH=user:pass%20word CONN {target}"),
        format!("/sub SUBP=a,b CONN {target}"),
        format!("/any ORIG=* CONN {target}"),
        format!("CONN {target}"),
    ]);
    for (path, lines, subprotocol) in [
        ("/pages", vec!["Origin: http://Phone.LAN"], None),
        ("/pages", vec!["Origin: null"], None),
        ("/pages", vec![], None),
        ("/secret?x=y", vec!["Authorization: Basic dXNlcjpwYXNzIHdvcmQ="], None),
        ("/sub", vec!["Sec-WebSocket-Protocol: c, b", "Sec-WebSocket-Protocol: a"], Some("a")),
        ("/any", vec!["Origin: https://anywhere"], None),
        ("/other", vec!["Origin: http://box"], None),
        ("/other", vec!["Sec-WebSocket-Protocol: base64, binary"], Some("binary")),
        ("/other", vec!["Sec-WebSocket-Protocol: base64"], None),
    ] {
        let (mut client, response) = served.opened_with(path, &lines);
        assert_eq!(response.all("Sec-WebSocket-Protocol"), subprotocol.as_slice(), "{path} {lines:?}");
        let mut remote = accepted(&device);
        client.send_masked(TEXT, b"hello").unwrap();
        remote.read_exact(&mut [0; 5]).unwrap();
        remote.write_all(b"answer").unwrap();
        assert_eq!(read_frame(&mut client), (BINARY, b"answer".to_vec()));
    }
}

#[test]
fn a_request_may_come_byte_by_byte_and_with_frames_behind_it() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    let mut client = served.connect();
    for byte in request("/a", &[]).chunks(1) {
        client.send(byte).unwrap();
    }
    assert_eq!(client.request().unwrap().line, "HTTP/1.1 101 Switching Protocols");
    drop(accepted(&device));
    let mut client = served.connect();
    let frame = testkit::websocket::masked_frame_of(0x82, b"early");
    client.send(&[&request("/a", &[])[..], &frame].concat()).unwrap();
    let mut early = [0; 5];
    accepted(&device).read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
}

#[test]
fn lines_are_read_anew_on_sighup_and_shown_by_stat_json() {
    let device = Device::start(Kind::Silent);
    let port = Reserved::new().unwrap();
    let text = |paths: &[&str]| -> String {
        let line = |path: &&str| format!("{}={path} AUTH=u:hidden CONN {}\n", port.port(), device.addr());
        format!("[serve]\n{}", paths.iter().map(line).collect::<String>())
    };
    let daemon = daemon().config(&text(&["/a", "/b"])).listeners(3).start();
    let shown = |paths: &[&str]| {
        let entry = |path: &&str| {
            let target = device.addr().to_string();
            serde_json::json!({"address": port.addr().to_string(), "target": target, "path": path})
        };
        paths.iter().map(entry).collect::<Vec<_>>()
    };
    let listeners = || StatClient::new(daemon.addr()).status()["listeners"].as_array().unwrap()[1..].to_vec();
    assert_eq!(listeners(), shown(&["/a", "/b"]));
    for paths in [&["/b", "/c"][..], &[], &["/d"]] {
        std::fs::write(daemon.dir().join("sockproxyd.conf"), text(paths)).unwrap();
        daemon.signal(Signal::SIGHUP);
        eventually("the lines are read", || (listeners() == shown(paths)).then_some(()));
        assert_eq!(std::net::TcpStream::connect(port.addr()).is_ok(), !paths.is_empty());
    }
    assert!(!daemon.log_text().contains("hidden"));
}

#[test]
fn a_client_that_is_not_admitted_is_told_so_in_http() {
    let device = Device::start(Kind::Silent);
    let served = Served::configured("[host]\nallow=192.0.2.1\n", &[format!("/a CONN {}", device.addr())]);
    let response = served.response(b"");
    assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nYour address is not allowed.\n"), "{response}");
}

#[test]
fn a_client_that_leaves_before_its_target_answers_ends_the_attempt() {
    let hole = BlackHole::new().unwrap();
    let served = Served::start(&[format!("/a CONN {} CTIM=60000", hole.addr())]);
    let mut stat = StatClient::new(served.daemon.addr());
    let client = served.requested("/a", &[]);
    stat.wait_connections(1);
    drop(client);
    stat.wait_connections(0);
}
