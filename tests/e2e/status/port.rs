//! The port of `[status]`: its pages, its WebSocket, and what it refuses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::daemon::Daemon;
use testkit::ports::Reserved;
use testkit::websocket::{CLOSE, Peer, TEXT};

use crate::support::{LIMIT, StatClient, curl, daemon, echo_mode, eventually, while_stopped};

/// A daemon with a status port.
struct WithStatus {
    daemon: Daemon,
    port: Reserved,
}

impl WithStatus {
    /// Starts a daemon with further settings of `[status]`, and of other sections behind them.
    #[track_caller]
    fn start(more: &str) -> Self {
        let port = Reserved::new().unwrap();
        let config = format!("[status]\nport={}\n{more}\n", port.port());
        let daemon = daemon().config(&config).listeners(2).start();
        Self { daemon, port }
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    /// The status and the body that curl gets, with further arguments.
    #[track_caller]
    fn get(&self, path: &str, more: &[&str]) -> (String, String) {
        let url = self.url(path);
        let out = curl(&[&["-w", "\n%{http_code}", &*url], more].concat()).out;
        let (body, code) = out.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    }

    /// A client that has asked for a WebSocket, and the first line of the response.
    #[track_caller]
    fn upgrade(&self, path: &str, host: &str, more: &[&str]) -> (Peer, String) {
        let mut client = self.ask_for_upgrade(path, host, more);
        let line = client.request().unwrap().line;
        (client, line)
    }

    /// A client that has asked for a WebSocket, and has yet to read the response.
    #[track_caller]
    fn ask_for_upgrade(&self, path: &str, host: &str, more: &[&str]) -> Peer {
        let mut client = Peer::new(TcpStream::connect(self.addr()).unwrap());
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        more.iter().for_each(|line| request.push_str(&format!("{line}\r\n")));
        client.send(format!("{request}\r\n").as_bytes()).unwrap();
        client
    }

    /// A client with an open WebSocket.
    #[track_caller]
    fn watcher(&self) -> Peer {
        let host = self.addr().to_string();
        let (client, line) = self.upgrade("/status.json", &host, &[&format!("Origin: http://{host}")]);
        assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
        client
    }
}

/// The next status that the client is sent.
#[track_caller]
fn status(client: &mut Peer) -> Value {
    let frame = client.frame().unwrap();
    assert_eq!(frame.opcode, TEXT);
    serde_json::from_slice(&frame.payload).unwrap()
}

#[test]
fn each_path_has_its_page() {
    let served = WithStatus::start("");
    let (plugin, _remote) = echo_mode(&served.daemon, "");
    let (code, json) = served.get("/status.json", &[]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let direct = StatClient::new(served.daemon.addr()).status();
    assert_eq!((code.as_str(), keys(&json)), ("200", keys(&direct)));
    assert!(json["connections"].as_array().unwrap().iter().any(|one| one["id"] == plugin.pid()), "{json}");
    let address = served.addr().to_string();
    let listeners = json["listeners"].as_array().unwrap();
    assert!(listeners.iter().any(|one| one["address"] == *address && one["target"] == "status"), "{json}");
    let (code, metrics) = served.get("/metrics?x=y", &[]);
    assert!(code == "200" && metrics.contains("\nsockproxyd_connections{state=\"echo\"} 1\n"), "{metrics}");
    let (code, page) = served.get("/", &[]);
    assert!(code == "200" && page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    let (code, compressed) = served.get("/", &["--compressed", "-D", "-"]);
    let (head, unpacked) = compressed.split_once("\r\n\r\n").unwrap();
    assert!(code == "200" && unpacked == page && head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    for line in ["Content-Type: text/html; charset=utf-8", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
    {
        assert!(head.contains(&format!("\r\n{line}")), "{head}");
    }
    let types = [("/metrics", "text/plain; version=0.0.4; charset=utf-8"), ("/status.json", "application/json")];
    for (path, content_type) in types {
        let (_, head) = served.get(path, &["-D", "-", "-o", "/dev/null"]);
        assert!(head.contains(&format!("Content-Type: {content_type}\r\n")), "{head}");
    }
}

#[test]
fn clients_that_are_sent_the_status_at_the_same_time_share_one() {
    const CLIENTS: usize = 40;
    let served = WithStatus::start("");
    let host = served.addr().to_string();
    let mut clients = Vec::new();
    while_stopped(&served.daemon, || {
        clients.extend((0..CLIENTS).map(|_| served.ask_for_upgrade("/status.json", &host, &[])));
    });
    let mut uptimes: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.request().unwrap();
            status(client)["uptime"].to_string()
        })
        .collect();
    uptimes.sort();
    uptimes.dedup();
    assert!(uptimes.len() <= CLIENTS / 2, "{} statuses were made for {CLIENTS} clients", uptimes.len());
}

/// RFC 9110 section 9.3.2.
#[test]
fn a_head_gets_the_head_of_each_page() {
    let served = WithStatus::start("");
    for path in ["/", "/metrics", "/status.json", "/nothing"] {
        let length = |head: &str| {
            let line = head.lines().find(|line| line.starts_with("Content-Length: ")).map(str::to_owned);
            line.unwrap_or_else(|| panic!("{path}: {head}"))
        };
        let (code, head) = served.get(path, &["-I"]);
        assert_eq!(code, if path == "/nothing" { "404" } else { "200" }, "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head:?}");
        if path == "/" {
            assert_eq!(length(&head), length(&served.get(path, &["-D", "-"]).1));
        }
        let mut client = TcpStream::connect(served.addr()).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("\r\n\r\n") && response.matches("\r\n\r\n").count() == 1, "{response}");
    }
}

#[test]
fn no_other_request_is_taken() {
    let served = WithStatus::start("hosts=Box.example\n");
    let _kept = echo_mode(&served.daemon, "");
    for (path, arguments, expected) in [
        ("/nothing", &[][..], "404"),
        ("/stop", &[], "404"),
        ("/", &["-X", "POST", "-d", ""], "405"),
        ("/", &["-I", "-H", "Host: evil.example"], "403"),
        ("/nothing", &["-I"], "404"),
        ("/", &["-X", "STOP"], "405"),
        ("/status.json", &["-X", "DELETE"], "405"),
        ("/", &["-X", "GET", "-d", "x"], "400"),
        ("/", &["-H", "Host: evil.example"], "403"),
        ("/metrics", &["-H", "Host: evil.example:80"], "403"),
        ("/nothing", &["-H", "Host: 127.0.0.1.evil.example"], "403"),
        ("/", &["-H", "Host:"], "400"),
        ("/", &["-H", "Host: box.EXAMPLE:1"], "200"),
        ("/", &["-H", "Host: localhost"], "200"),
        ("/", &["-H", "Host: [::1]:1"], "200"),
        // A page of another site may send it, and gets nothing to read.
        ("/", &["-H", "Origin: http://evil.example"], "200"),
    ] {
        let (code, body) = served.get(path, &[arguments, &["-o", "/dev/null"]].concat());
        assert_eq!(code, expected, "{path} {arguments:?} {body}");
    }
    let host = served.addr().to_string();
    for (path, host, origin, code) in [
        ("/status.json", &*host, "Origin: http://evil.example", "403"),
        ("/status.json", &host, "Origin: null", "403"),
        ("/status.json", "evil.example", "Origin: http://evil.example", "403"),
        ("/", &host, "X: y", "404"),
    ] {
        let (_, line) = served.upgrade(path, host, &[origin]);
        assert!(line.starts_with(&format!("HTTP/1.1 {code} ")), "{path} {host} {origin}: {line}");
    }
    let (_, line) = served.upgrade("/status.json", "box.example", &["Origin: http://box.example"]);
    assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
    let states = eventually("the others have ended", || {
        let status = StatClient::new(served.daemon.addr()).status();
        let list = status["connections"].as_array().unwrap();
        let states: Vec<String> = list.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
        Some(states).filter(|states| !states.iter().any(|state| state == "status"))
    });
    assert!(states.iter().any(|state| state == "echo"), "nothing was changed: {states:?}");
}

#[test]
fn a_page_is_sent_the_status_every_second_while_it_is_open() {
    let served = WithStatus::start("");
    let mut client = served.watcher();
    let first = status(&mut client);
    let (plugin, _remote) = echo_mode(&served.daemon, "");
    let second = status(&mut client);
    let (before, after) = (first["uptime"].as_f64().unwrap(), second["uptime"].as_f64().unwrap());
    assert!(after - before > 0.5, "{before} {after}");
    let own = |status: &Value| {
        let list = status["connections"].as_array().unwrap();
        list.iter().filter(|one| one["state"] == "status" && one["protocol"] == "ws").count()
    };
    assert_eq!((own(&first), own(&second)), (1, 1));
    assert!(second["connections"].as_array().unwrap().iter().any(|one| one["id"] == plugin.pid()), "{second}");
    // What it sends is dropped, and changes nothing.
    client.send_masked(TEXT, b"STOP\n").unwrap();
    client.send_masked(TEXT, &[b'x'; 100_000]).unwrap();
    status(&mut client);
    client.send_masked(CLOSE, &1000u16.to_be_bytes()).unwrap();
    let closed = loop {
        let frame = client.frame().unwrap();
        if frame.opcode == CLOSE {
            break frame.payload;
        }
    };
    assert_eq!(closed, 1000u16.to_be_bytes());
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn the_end_of_the_daemon_closes_the_websocket() {
    let mut served = WithStatus::start("");
    let mut client = served.watcher();
    status(&mut client);
    served.daemon.signal(Signal::SIGTERM);
    let closed = loop {
        let frame = client.frame().unwrap();
        if frame.opcode == CLOSE {
            break frame.payload;
        }
    };
    assert_eq!(closed, 1001u16.to_be_bytes());
    assert_eq!(served.daemon.wait_exit(LIMIT).unwrap().code(), Some(0));
}

#[test]
fn a_request_that_never_ends_is_told_so_and_closed() {
    let served = WithStatus::start("");
    let mut slow = TcpStream::connect(served.addr()).unwrap();
    slow.set_read_timeout(Some(LIMIT)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let mut response = String::new();
    slow.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
}

#[test]
fn clients_that_are_not_allowed_are_told_so() {
    let served = WithStatus::start("allow=10.0.0.0/8\n");
    let (code, body) = served.get("/", &[]);
    assert_eq!((code.as_str(), body.as_str()), ("403", "Your address is not allowed.\n"));
    // The list of [host] is another.
    served.daemon.plugin();
    let open = WithStatus::start("[host]\nallow=10.0.0.0/8\n");
    assert_eq!(open.get("/metrics", &["-o", "/dev/null"]).0, "200");
}

#[test]
fn a_reload_opens_moves_and_closes_the_port() {
    let served = WithStatus::start("");
    let code = |address: &str| {
        curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{address}:{}/", served.port.port())]).out
    };
    let configure = |text: &str| std::fs::write(served.daemon.dir().join("sockproxyd.conf"), text).unwrap();
    assert_eq!((code("127.0.0.1"), code("127.0.0.2")), ("200".into(), "000".into()));
    configure(&format!("[status]\nport={}\naddress=127.0.0.2\n", served.port.port()));
    served.daemon.signal(Signal::SIGHUP);
    eventually("the port has moved", || Some(()).filter(|()| code("127.0.0.2") == "200"));
    assert_eq!(code("127.0.0.1"), "000");
    configure("");
    served.daemon.signal(Signal::SIGHUP);
    eventually("the port is closed", || Some(()).filter(|()| code("127.0.0.2") == "000"));
}

#[test]
fn what_plugins_and_remotes_name_is_data_and_no_markup() {
    let served = WithStatus::start("");
    let (plugin, _remote) = echo_mode(&served.daemon, "NTFY=5/s/a/<img_src=x_onerror=alert(1)>\"&'");
    let (_, json) = served.get("/status.json", &[]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let shown = json["connections"].as_array().unwrap().iter().find(|one| one["id"] == plugin.pid()).unwrap();
    assert_eq!(shown["notify"], "5/s/a/<img_src=x_onerror=alert(1)>\"&'");
}

/// Browsers open connections that they may need.
#[test]
fn a_spare_connection_of_a_browser_is_not_logged() {
    let status = WithStatus::start("");
    drop(TcpStream::connect(status.addr()).unwrap());
    let page = status.get("/", &[]);
    assert_eq!(page.0, "200");
    let log = status.daemon.complete_log_text();
    assert!(!log.contains("left before it was accepted"), "{log}");
}
