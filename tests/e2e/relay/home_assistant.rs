//! The opening dialogue of Home Assistant's WebSocket API, over restarts of the server, with HEAL and HELO.
//!
//! <https://developers.home-assistant.io/docs/api/websocket>: the server says `auth_required`, takes `auth`, says `auth_ok`, and
//! takes commands from then on. HELO says `auth` and the subscription at once; the server reads them one after the other.

use std::net::TcpListener;

use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::websocket::{CLOSE, Peer, TEXT, close_of};

use crate::support::{LIMIT, eventually, expect_ok, read_frame, read_message_text, send_message, with_luup};

const AUTH: &str = r#"{"type":"auth","access_token":"secret"}"#;
const SUBSCRIBE: &str = r#"{"id":1,"type":"subscribe_events","event_type":"state_changed"}"#;
const AUTH_REQUIRED: &str = r#"{"type":"auth_required","ha_version":"2026.11.0"}"#;
const AUTH_OK: &str = r#"{"type":"auth_ok","ha_version":"2026.11.0"}"#;
const RESULT: &str = r#"{"id":1,"type":"result","success":true,"result":null}"#;

/// Percent-encodes what an option cannot hold as it is.
fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace(' ', "%20").replace('"', "%22")
}

/// Accepts a connection, and asks for the token.
fn begin(listener: &TcpListener) -> Peer {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut peer = Peer::new(stream);
    let request = peer.upgrade().unwrap();
    assert_eq!(request.line, "GET /api/websocket HTTP/1.1");
    peer.send_frame(TEXT, AUTH_REQUIRED.as_bytes()).unwrap();
    peer
}

#[track_caller]
fn expect_text(peer: &mut Peer, expected: &str) {
    let (opcode, payload) = read_frame(peer);
    assert_eq!((opcode, &*String::from_utf8_lossy(&payload)), (TEXT, expected));
}

/// The rest of the dialogue, up to the first event.
fn serve(peer: &mut Peer, event: &str) {
    expect_text(peer, AUTH);
    peer.send_frame(TEXT, AUTH_OK.as_bytes()).unwrap();
    expect_text(peer, SUBSCRIBE);
    peer.send_frame(TEXT, RESULT.as_bytes()).unwrap();
    peer.send_frame(TEXT, event.as_bytes()).unwrap();
}

#[track_caller]
fn expect_messages(plugin: &mut Plugin, expected: &[&str]) {
    for message in expected {
        assert_eq!(read_message_text(plugin), *message);
    }
}

#[test]
fn a_subscription_outlives_restarts_of_the_server() {
    let (luup, daemon) = with_luup("");
    let port = Reserved::new().unwrap();
    let listener = port.listen().unwrap();
    let mut plugin = daemon.plugin();
    let (auth, subscribe) = (encoded(AUTH), encoded(SUBSCRIBE));
    let options = format!("HEAL=2 EVNT=on NTFY=5/s/a/p HELO={auth} HELO={subscribe}");
    plugin.send(format!("CONN ws://{}/api/websocket {options}\n", port.addr()).as_bytes());
    let mut peer = begin(&listener);
    expect_ok(&mut plugin);
    serve(&mut peer, "event 1");
    let opening = [AUTH_REQUIRED, AUTH_OK, RESULT].map(|text| format!("TEXT {text}"));
    let opening = opening.each_ref().map(String::as_str);
    expect_messages(&mut plugin, &opening);
    expect_messages(&mut plugin, &["TEXT event 1"]);

    let events = || -> Vec<String> {
        let events = luup.requests().into_iter().map(|request| request.query.rsplit_once('=').unwrap().1.to_owned());
        events.filter(|event| event != "data").collect()
    };

    // A restart: the server closes, and refuses connections until it is up again.
    drop(listener);
    peer.send_frame(CLOSE, &close_of(1001, "restart")).unwrap();
    assert_eq!(read_frame(&mut peer).0, CLOSE);
    drop(peer);
    expect_messages(&mut plugin, &["EVNT lost closed 1001 restart"]);
    let command = r#"{"id":2,"type":"call_service"}"#;
    send_message(&mut plugin, "TEXT", command.as_bytes());
    eventually("a refusal", || daemon.log_text().contains("not connected again").then_some(()));
    let listener = port.listen().unwrap();

    // It is killed within the dialogue, before it has read all of it.
    let mut peer = begin(&listener);
    expect_text(&mut peer, AUTH);
    expect_messages(&mut plugin, &["EVNT back", opening[0]]);
    // A loss takes the place of a return that is not notified yet.
    eventually("the notification", || events().contains(&"back".to_owned()).then_some(()));
    testkit::device::reset(peer.stream());
    drop(peer);
    let lost = read_message_text(&mut plugin);
    assert!(lost.starts_with("EVNT lost "), "{lost}");

    let mut peer = begin(&listener);
    serve(&mut peer, "event 2");
    expect_messages(&mut plugin, &["EVNT back"]);
    expect_messages(&mut plugin, &opening);
    expect_messages(&mut plugin, &["TEXT event 2"]);
    // The plugin knows that what was under way may be lost, and says it again.
    send_message(&mut plugin, "TEXT", b"again");
    expect_text(&mut peer, "again");

    eventually("all notifications", || (events().len() >= 5).then_some(()));
    assert_eq!(events(), ["connected", "lost", "back", "lost", "back"]);
    let log = daemon.log_text();
    assert!(!log.contains("secret") && !log.contains("subscribe"), "the opening is a secret: {log}");
}
