//! HEAL and HELO: the remote's end is not the plugin's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::random::Random;
use testkit::websocket::{CLOSE, Peer, TEXT, close_of};

use crate::support::{
    LIMIT, PID, StatClient, attached, eventually, expect_ok, read_frame, read_message_text, send_message, started,
    wait_parked, with_luup,
};

/// A remote that can be connected to again and again.
struct Remote(TcpListener);

impl Remote {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn target(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn accept_websocket(&self) -> Peer {
        let mut peer = Peer::new(self.accept());
        peer.upgrade().unwrap();
        peer
    }
}

#[track_caller]
fn expect_bytes(remote: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    remote.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(expected));
}

/// The events of all notifications so far.
fn events(luup: &Luup) -> Vec<String> {
    luup.requests().iter().map(|request| request.query.rsplit_once("&Event=").unwrap().1.to_owned()).collect()
}

/// What STAT JSON shows of the connection whose notifications have this pid.
fn session(daemon: &Daemon, pid: &str) -> Option<serde_json::Value> {
    let notify = format!("5/s/a/{pid}");
    StatClient::new(daemon.addr()).connections().into_iter().find(|shown| shown["notify"] == notify)
}

/// A plugin whose WebSocket is open, and the server's end of it.
fn websocket(daemon: &Daemon, remote: &Remote, options: &str) -> (Plugin, Peer) {
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN ws://{}/ {options}\n", remote.target()).as_bytes());
    let peer = remote.accept_websocket();
    expect_ok(&mut plugin);
    (plugin, peer)
}

#[test]
fn a_stream_is_connected_again_and_told_the_opening() {
    let (luup, daemon) = with_luup("");
    let remote = Remote::new();
    let mut plugin = daemon.plugin();
    plugin.conn(remote.target(), "HEAL=60 HELO=LOGIN%20me%0d%0a HELO=SUB%0a EVNT=on NTFY=5/s/a/p");
    let mut first = remote.accept();
    expect_bytes(&mut first, b"LOGIN me\r\nSUB\n");
    plugin.send(b"hello");
    expect_bytes(&mut first, b"hello");
    first.write_all(b"last words").unwrap();
    drop(first);
    assert_eq!(plugin.bytes(10), b"last words");
    let lost = Instant::now();
    eventually("it is lost", || (session(&daemon, "p").unwrap()["state"] == "healing").then_some(()));
    // Sent while it is lost: it follows the opening.
    plugin.send(b"meanwhile");
    let mut second = remote.accept();
    assert!(lost.elapsed() > Duration::from_millis(500), "a remote that ends at once is not connected to in a loop");
    expect_bytes(&mut second, b"LOGIN me\r\nSUB\nmeanwhile");
    second.write_all(b"more").unwrap();
    assert_eq!(plugin.bytes(4), b"more");
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("=back"))).unwrap();
    let told: Vec<String> = events(&luup).into_iter().filter(|event| event != "data").collect();
    assert_eq!(told, ["connected", "lost", "back"]);
    // By a reset, too.
    let stat = session(&daemon, "p").unwrap();
    assert_eq!(stat["heal"]["losses"], 1);
    assert!(stat["heal"]["lost"].is_null() && stat["heal"]["next"].is_null(), "{stat:#}");
    assert_eq!((&stat["received"], &stat["state"]), (&14.into(), &"echo".into()));
    testkit::device::reset(&second);
    drop(second);
    let mut third = remote.accept();
    expect_bytes(&mut third, b"LOGIN me\r\nSUB\n");
    // The plugin's end is the end.
    plugin.finish();
    assert_eq!(third.read(&mut [0; 10]).unwrap(), 0);
    drop(third);
    eventually("the session is over", || session(&daemon, "p").is_none().then_some(()));
    let log = daemon.complete_log_text();
    assert!(log.contains("lost: closed; ") && log.contains("back: connected again"), "{log}");
    assert!(!log.contains("LOGIN") && !log.contains("SUB"), "the opening is a secret: {log}");
}

#[test]
fn a_trace_outlives_the_remote_and_does_not_show_the_opening() {
    let daemon = started();
    let remote = Remote::new();
    let mut plugin = daemon.plugin();
    let pid = plugin.conn(remote.target(), "HEAL=60 HELO=LOGIN%20me%0a");
    let mut first = remote.accept();
    expect_bytes(&mut first, b"LOGIN me\n");
    let mut tracer = daemon.plugin();
    assert_eq!(tracer.command(&format!("TRAC {pid}")), format!("OK TRAC {pid}"));
    drop(first);
    let mut second = remote.accept();
    plugin.send(b"1");
    expect_bytes(&mut second, b"LOGIN me\n1");
    second.write_all(b"2").unwrap();
    assert_eq!(plugin.bytes(1), b"2");
    drop(plugin);
    let text = String::from_utf8(tracer.rest()).unwrap();
    let events: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(events, [r#"> 1 bytes "1""#, r#"< 1 bytes "2""#]);
}

#[test]
fn a_remote_that_stays_away_is_asked_at_growing_intervals() {
    let daemon = started();
    let port = Reserved::new().unwrap();
    let listener = port.listen().unwrap();
    let mut plugin = daemon.plugin();
    let pid = plugin.conn(port.addr(), "HEAL=2");
    drop(listener.accept().unwrap());
    drop(listener);
    // Two failures: after about one and two seconds more.
    let failures = || daemon.log_text().matches("not connected again").count();
    eventually("two failures", || (failures() >= 2).then_some(()));
    let shown = StatClient::new(daemon.addr()).connection(&pid).unwrap();
    assert_eq!(shown["state"], "healing");
    assert!(shown["heal"]["lost"].as_f64().unwrap() > 1.5, "{shown:#}");
    assert!(shown["heal"]["next"].as_f64().is_none_or(|seconds| seconds <= 2.4), "{shown:#}");
    let listener = port.listen().unwrap();
    let (mut remote, _) = listener.accept().unwrap();
    remote.write_all(b"back").unwrap();
    assert_eq!(plugin.bytes(4), b"back");
    assert!(failures() <= 4, "{}", daemon.log_text());
}

#[test]
fn the_first_connection_fails_as_ever() {
    let daemon = started();
    let port = Reserved::new().unwrap();
    assert_eq!(daemon.plugin().command(&format!("CONN {} HEAL=60", port.addr())), "ERR CONN connection refused");
    let udp = daemon.plugin().command("CONN 127.0.0.1:9 PRTO=udp HEAL=60");
    assert_eq!(udp, "ERR CONN Invalid option HEAL=60");
    for secret in ["HELO=%zz".to_owned(), format!("HELO={}", "x".repeat(5000))] {
        let answer = daemon.plugin().command(&format!("CONN 127.0.0.1:9 {secret}"));
        assert_eq!(answer, "ERR CONN Invalid option HELO");
    }
    let answer = daemon.plugin().command("CONN ws://127.0.0.1:9/ HELO=%ff");
    assert_eq!(answer, "ERR CONN Invalid option HELO", "no text");
}

#[test]
fn a_websocket_is_opened_again_between_messages() {
    let (luup, daemon) = with_luup("");
    let remote = Remote::new();
    let options = "HEAL=60 HELO=%7b%22auth%22:1%7d HELO=subscribe EVNT=on NTFY=5/s/a/p";
    let (mut plugin, mut peer) = websocket(&daemon, &remote, options);
    assert_eq!(read_frame(&mut peer), (TEXT, b"{\"auth\":1}".to_vec()));
    assert_eq!(read_frame(&mut peer), (TEXT, b"subscribe".to_vec()));
    peer.send_frame(TEXT, b"whole").unwrap();
    // Half a message is lost, and the plugin sees nothing of it.
    peer.send_fragment(TEXT, b"half").unwrap();
    peer.send_frame(CLOSE, &close_of(1012, "restart")).unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT whole");
    assert_eq!(read_message_text(&mut plugin), "EVNT lost closed 1012 restart");
    // The close is answered.
    assert_eq!(read_frame(&mut peer).0, CLOSE);
    // A message of which one part comes before, and one after the loss.
    plugin.send(b"TEXT 9\nmean");
    let mut peer = remote.accept_websocket();
    plugin.send(b"while");
    assert_eq!(read_message_text(&mut plugin), "EVNT back");
    for expected in [&b"{\"auth\":1}"[..], b"subscribe", b"meanwhile"] {
        assert_eq!(read_frame(&mut peer), (TEXT, expected.to_vec()));
    }
    peer.send_frame(TEXT, b"again").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT again");
    // A loss would take the place of a return that Luup was not told.
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("=back"))).unwrap();
    // Without a close frame.
    drop(peer);
    assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
    let mut peer = remote.accept_websocket();
    assert_eq!(read_message_text(&mut plugin), "EVNT back");
    assert_eq!(read_frame(&mut peer).1, b"{\"auth\":1}");
    assert_eq!(read_frame(&mut peer).1, b"subscribe");
    // CLOS of the plugin is the end.
    plugin.send(b"CLOS 1000 3\nbye");
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1000, "bye")));
    peer.send_frame(CLOSE, &close_of(1000, "bye")).unwrap();
    assert_eq!(read_message_text(&mut plugin), "CLOS 1000 bye");
    assert!(plugin.at_end());
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("=closed"))).unwrap();
    let told: Vec<String> = events(&luup).into_iter().filter(|event| event != "data").collect();
    assert_eq!(told, ["connected", "lost", "back", "lost", "back", "closed"]);
}

#[test]
fn silence_and_unanswered_pings_count_as_losses() {
    let daemon = started();
    let remote = Remote::new();
    for (options, reason) in [("RTIM=300", "silent for too long"), ("PNGI=1", "no answer to a ping")] {
        let (mut plugin, _silent) = websocket(&daemon, &remote, &format!("HEAL=5 {options}"));
        assert_eq!(read_message_text(&mut plugin), format!("EVNT lost {reason}"));
        let mut peer = remote.accept_websocket();
        peer.send_frame(TEXT, b"here").unwrap();
        assert_eq!(read_message_text(&mut plugin), "EVNT back");
        assert_eq!(read_message_text(&mut plugin), "TEXT here");
    }
    // A stream, too. It is not told.
    let mut plugin = daemon.plugin();
    plugin.conn(remote.target(), "HEAL=5 RTIM=300");
    let _silent = remote.accept();
    let mut second = remote.accept();
    second.write_all(b"here").unwrap();
    assert_eq!(plugin.bytes(4), b"here");
}

#[test]
fn lines_go_on_after_a_loss() {
    let daemon = started();
    let remote = Remote::new();
    let (mut plugin, mut peer) = websocket(&daemon, &remote, "HEAL=5 FRAM=LINE HELO=hi");
    assert_eq!(read_frame(&mut peer).1, b"hi");
    peer.send_fragment(TEXT, b"broken").unwrap();
    drop(peer);
    let mut peer = remote.accept_websocket();
    assert_eq!(read_frame(&mut peer).1, b"hi");
    peer.send_frame(TEXT, b"whole").unwrap();
    assert_eq!(plugin.line(), "whole", "the broken line is dropped");
    plugin.send(b"answer\n");
    assert_eq!(read_frame(&mut peer).1, b"answer");
}

#[test]
fn a_plugin_that_leaves_while_the_remote_is_lost_ends_it() {
    let daemon = started();
    let remote = Remote::new();
    for resets in [false, true] {
        let (mut plugin, peer) = websocket(&daemon, &remote, "HEAL=60 NTFY=5/s/a/leaves");
        drop(peer);
        assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
        assert_eq!(session(&daemon, "leaves").unwrap()["state"], "healing");
        if resets {
            plugin.reset();
        } else {
            drop(plugin);
        }
        eventually("the session is over", || session(&daemon, "leaves").is_none().then_some(()));
    }
}

/// Regression: the log had the bytes of the last remote alone, and after the end of a connection whose remote was lost, none.
#[test]
fn the_log_line_of_an_end_counts_the_bytes_of_all_remotes() {
    let daemon = started();
    let remote = Remote::new();
    for (is_lost, kept) in [(false, false), (true, false), (false, true), (true, true)] {
        let pid = if kept { PID } else { "counts" };
        let keep = if kept { "KEEP=300 " } else { "" };
        let (mut plugin, mut peer) = websocket(&daemon, &remote, &format!("HEAL=60 {keep}NTFY=5/s/a/{pid}"));
        for _ in 0..2 {
            peer.send_frame(TEXT, b"from remote").unwrap();
            assert_eq!(read_message_text(&mut plugin), "TEXT from remote");
            send_message(&mut plugin, "TEXT", b"to remote");
            assert_eq!(read_frame(&mut peer).1, b"to remote");
            drop(peer);
            assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
            peer = remote.accept_websocket();
            assert_eq!(read_message_text(&mut plugin), "EVNT back");
        }
        let mut peer = Some(peer);
        if is_lost {
            drop(peer.take());
            assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
        }
        let shown = session(&daemon, if kept { "****" } else { pid }).unwrap();
        assert_eq!(shown["messages"], serde_json::json!({ "received": 2, "sent": 2 }));
        let id = shown["id"].as_str().unwrap().to_owned();
        if kept {
            assert_eq!(daemon.plugin().command(&format!("DROP {PID}")), "OK DROP");
        }
        drop(plugin);
        if let Some(mut peer) = peer {
            assert_eq!(read_frame(&mut peer).0, CLOSE);
        }
        let line = eventually("the end is logged", || {
            let log = daemon.log_text();
            log.lines().find(|line| line.contains(&format!(" {id} closed: "))).map(str::to_owned)
        });
        let counts = format!(", received {}, sent {}; ", shown["received"], shown["sent"]);
        assert!(line.contains(&counts), "{line}, not {counts}");
        let ended = &StatClient::new(daemon.addr()).status()["ended"][0];
        assert_eq!((ended["id"].as_str(), ended["protocol"].as_str()), (Some(&*id), Some("ws")));
    }
}

#[test]
fn a_kept_plugin_comes_back_while_the_remote_is_lost() {
    let daemon = started();
    let remote = Remote::new();
    let (mut plugin, mut peer) = websocket(&daemon, &remote, &format!("HEAL=60 KEEP=300 NTFY=5/s/a/{PID}"));
    peer.send_frame(TEXT, b"one").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT one");
    drop(plugin);
    wait_parked(&daemon);
    drop(peer);
    // The plugin has read one message; the loss is the second one.
    let mut plugin = attached(&daemon, "SEEN=1");
    assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
    send_message(&mut plugin, "TEXT", b"from the next plugin");
    let mut peer = remote.accept_websocket();
    assert_eq!(read_message_text(&mut plugin), "EVNT back");
    assert_eq!(read_frame(&mut peer).1, b"from the next plugin");
    drop(plugin);
    wait_parked(&daemon);
    peer.send_frame(TEXT, b"two").unwrap();
    let mut plugin = attached(&daemon, "SEEN=3");
    assert_eq!(read_message_text(&mut plugin), "TEXT two");
    // DROP ends it while the remote is lost.
    drop(peer);
    assert!(read_message_text(&mut plugin).starts_with("EVNT lost "));
    assert_eq!(daemon.plugin().command(&format!("DROP {PID}")), "OK DROP");
    assert!(plugin.rest().is_empty());
}

/// How a remote ends its connection.
fn end(stream: TcpStream, mode: u64) {
    if mode == 0 {
        testkit::device::reset(&stream);
    }
    drop(stream);
}

/// A remote that ends again and again: each time it is told the opening, says a line, and hears one.
fn stream_outages(daemon: &Daemon, outages: u64, random: &mut Random) {
    let remote = Remote::new();
    let mut plugin = daemon.plugin();
    plugin.conn(remote.target(), "HEAL=1 HELO=hello%0a");
    for round in 0..outages {
        let mut stream = remote.accept();
        expect_bytes(&mut stream, b"hello\n");
        stream.write_all(format!("to plugin {round}\n").as_bytes()).unwrap();
        assert_eq!(plugin.line(), format!("to plugin {round}"));
        plugin.send(format!("to remote {round}\n").as_bytes());
        expect_bytes(&mut stream, format!("to remote {round}\n").as_bytes());
        end(stream, random.below(2));
    }
    let mut last = remote.accept();
    expect_bytes(&mut last, b"hello\n");
    assert!(plugin.is_quiet(), "nothing comes twice");
    drop(plugin);
    assert_eq!(last.read(&mut [0; 10]).unwrap(), 0);
}

/// The same over WebSocket, where each loss is announced, and what has come of a message is dropped.
fn websocket_outages(daemon: &Daemon, outages: u64, random: &mut Random) {
    let remote = Remote::new();
    let (mut plugin, mut peer) = websocket(daemon, &remote, "HEAL=1 HELO=hello");
    for round in 0..outages {
        assert_eq!(read_frame(&mut peer), (TEXT, b"hello".to_vec()));
        peer.send_frame(TEXT, format!("to plugin {round}").as_bytes()).unwrap();
        assert_eq!(read_message_text(&mut plugin), format!("TEXT to plugin {round}"));
        send_message(&mut plugin, "TEXT", format!("to remote {round}").as_bytes());
        assert_eq!(read_frame(&mut peer).1, format!("to remote {round}").into_bytes());
        if random.below(2) == 0 {
            peer.send_fragment(TEXT, b"half a message").unwrap();
        }
        if random.below(2) == 0 {
            peer.send_frame(CLOSE, &close_of(1001, "")).unwrap();
        }
        drop(peer);
        let lost = read_message_text(&mut plugin);
        assert!(lost.starts_with("EVNT lost "), "{lost}");
        peer = remote.accept_websocket();
        assert_eq!(read_message_text(&mut plugin), "EVNT back");
    }
    assert_eq!(read_frame(&mut peer).1, b"hello");
    assert!(plugin.is_quiet(), "nothing comes twice");
    drop(plugin);
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1001, "")));
}

#[test]
fn a_thousand_outages_lose_no_connection() {
    const OUTAGES: u64 = 25;
    let daemon = started();
    std::thread::scope(|scope| {
        for seed in 0..40 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                if seed % 2 == 0 {
                    stream_outages(daemon, OUTAGES, &mut random);
                } else {
                    websocket_outages(daemon, OUTAGES, &mut random);
                }
            });
        }
    });
    let log = daemon.log_text();
    assert!(!log.contains("not connected again"), "every remote was there: {log}");
}
