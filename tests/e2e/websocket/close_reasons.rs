//! The table in docs/protocol.md that maps error reasons of verawebsockets to those of the proxy: every row is tested.

use testkit::device::{Device, Kind};
use testkit::ports::Reserved;
use testkit::websocket::{Peer, Server};

use crate::support::{accepted, started};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

/// The texts in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table: the reasons of verawebsockets, and those of the proxy.
fn rows() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let table = PROTOCOL.split("| verawebsockets | here |\n| --- | --- |\n").nth(1).expect("a table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches(['|', ' ']).split_once(" | ").unwrap())
        .map(|(left, right)| (quoted(left), quoted(right)))
        .collect()
}

/// The reply to a CONN whose server answers with `answer`. `%more` in it is replaced by a valid 101.
#[track_caller]
fn reply_after(answer: &'static str) -> String {
    let server = Server::start(move |mut peer: Peer| {
        let request = peer.request()?;
        let accept = request.accept();
        let answer = match answer.strip_prefix("%more ") {
            Some(more) => request.upgrade(&[more]),
            None => answer.replace("%accept", &format!("Sec-WebSocket-Accept: {accept}")),
        };
        peer.send(answer.as_bytes())?;
        peer.end()
    });
    started().plugin().command(&format!("CONN {} DEFL=on SUBP=a", server.url("/")))
}

/// Provokes the error that verawebsockets reports with this reason. None if it is not an error.
#[track_caller]
fn provoked(reason: &str) -> Option<String> {
    let daemon = started();
    Some(match reason {
        "getaddrinfo (ipv4) failed" => {
            let closed = Reserved::new().unwrap();
            daemon.plugin().command(&format!("CONN ws://127.0.0.1:{}/", closed.port()))
        }
        "lws_ssl_client_connect1 failed" => {
            let device = Device::start(Kind::Manual);
            let mut plugin = daemon.plugin();
            plugin.send(format!("CONN wss://{}/ CTIM=30000\n", device.addr()).as_bytes());
            let mut remote = accepted(&device);
            std::io::Read::read(&mut remote, &mut [0; 4096]).unwrap();
            drop(remote);
            plugin.line()
        }
        "Peer hung up" => reply_after(""),
        "HS: URI missing" => reply_after("\r\n\r\n"),
        "HS: Redirect code but no Location" => reply_after("HTTP/1.1 302 Found\r\n\r\n"),
        "HS: URI did not parse" => reply_after("HTTP/1.1 302 Found\r\nLocation: ws://:x/\r\n\r\n"),
        "HS: Redirect failed" => {
            let closed = Reserved::new().unwrap();
            let answer = format!("HTTP/1.1 302 Found\r\nLocation: ws://{}/\r\n\r\n", closed.addr());
            reply_after(Box::leak(answer.into_boxed_str()))
        }
        "HS: ws upgrade response not 101" => reply_after("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "HS: ACCEPT missing" => reply_after("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        "HS: Accept hash wrong" => reply_after(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        ),
        "HS: UPGRADE missing" => reply_after("HTTP/1.1 101 X\r\nConnection: Upgrade\r\n%accept\r\n\r\n"),
        "HS: Upgrade to something other than websocket" => {
            reply_after("HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n%accept\r\n\r\n")
        }
        "HS: CONNECTION missing" => reply_after("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n%accept\r\n\r\n"),
        "HS: UPGRADE malformed" => {
            reply_after("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: close\r\n%accept\r\n\r\n")
        }
        "HS: PROTOCOL malformed" => reply_after("%more Sec-WebSocket-Protocol: b"),
        "HS: EXT: unknown ext" => reply_after("%more Sec-WebSocket-Extensions: x-unheard-of"),
        "HS: EXT: failed parsing options" => reply_after("%more Sec-WebSocket-Extensions: permessage-deflate; a=b"),
        "HS: EXT: list too big" => {
            reply_after(Box::leak(format!("%more Sec-WebSocket-Extensions: {}", "x,".repeat(5000)).into_boxed_str()))
        }
        _ => return None,
    })
}

#[test]
fn every_row_of_the_table_is_correct() {
    let rows = rows();
    assert_eq!(rows.len(), 18);
    for (reasons, words) in rows {
        let provoked: Vec<String> = reasons.iter().filter_map(|reason| provoked(reason)).collect();
        // Timeouts have no reason there; the module secure tests them.
        assert_eq!(provoked.is_empty(), reasons.is_empty(), "{reasons:?}");
        for reply in provoked {
            assert!(reply.starts_with(&format!("ERR CONN {}", words[0])), "{reasons:?}: {reply}");
        }
    }
}
