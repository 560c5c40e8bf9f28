//! TRAC: what passes on a connection.

use std::io::{Read, Write};

use testkit::daemon::Daemon;
use testkit::device::UdpEcho;
use testkit::plugin::Plugin;
use testkit::websocket::{BINARY, PING, Server, TEXT};

use crate::support::{
    LIMIT, StatClient, configured, echo_mode, ends, plugin_from, read_frame, read_message_text, started,
};

/// A plugin that traces the connection of `id`.
#[track_caller]
fn tracing(daemon: &Daemon, id: &str, bytes: &str) -> Plugin {
    let mut tracer = daemon.plugin();
    assert_eq!(tracer.command(&format!("TRAC {id} {bytes}")), format!("OK TRAC {id}"));
    tracer
}

/// The next line without its time.
#[track_caller]
fn event(tracer: &mut Plugin) -> String {
    let line = tracer.line();
    let (seconds, event) = line.split_once(' ').unwrap();
    assert!(seconds.parse::<f64>().is_ok_and(|seconds| (0.0..LIMIT.as_secs_f64()).contains(&seconds)), "{line}");
    event.to_owned()
}

#[test]
fn bytes_are_shown_both_ways_until_a_side_ends() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    let mut tracer = tracing(&daemon, plugin.pid(), "8");
    plugin.send(b"hello\r\n");
    remote.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(event(&mut tracer), r#"> 7 bytes "hello\r\n""#);
    remote.write_all(b"\x00123456789").unwrap();
    assert_eq!(plugin.bytes(10), b"\x00123456789");
    assert_eq!(event(&mut tracer), r#"< 10 bytes "\0001234567"..."#);
    drop(plugin);
    assert!(ends(&remote) && tracer.at_end());
}

#[test]
fn frames_are_shown_with_their_verbs_and_without_credentials() {
    let daemon = started();
    let (sender, peers) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.upgrade()?;
        sender.send(peer).ok();
        Ok(())
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), "AUTH=user:secret HDRS=X-Token:secret DEFL=on");
    let mut peer = peers.recv_timeout(LIMIT).unwrap();
    let mut tracer = tracing(&daemon, plugin.pid(), "");
    plugin.send(b"TEXT 2\nhiPING 1\nx");
    read_frame(&mut peer);
    read_frame(&mut peer);
    peer.send_frame(PING, b"p\xff").unwrap();
    peer.send_frame(BINARY, b"").unwrap();
    peer.send_frame(TEXT, b"there").unwrap();
    assert_eq!(read_message_text(&mut plugin), "BINA ");
    assert_eq!(read_message_text(&mut plugin), "TEXT there");
    drop(peer);
    let text = String::from_utf8(tracer.rest()).unwrap();
    let mut events: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    events.sort_unstable();
    let expected = [
        r#"< 0 BINA """#,
        r#"< 2 PING "p\377""#,
        r#"< 5 TEXT "there""#,
        r#"> 1 PING "x""#,
        r#"> 2 PONG "p\377""#,
        r#"> 2 TEXT "hi""#,
    ];
    assert_eq!(events, expected);
}

#[test]
fn datagrams_are_shown() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp");
    let mut tracer = tracing(&daemon, plugin.pid(), "");
    plugin.send(b"1234");
    assert_eq!(plugin.bytes(4), b"1234");
    assert_eq!([event(&mut tracer), event(&mut tracer)], [r#"> 4 datagram "1234""#, r#"< 4 datagram "1234""#]);
    assert_eq!(tracer.command("QUIT"), "OK QUIT");
}

#[test]
fn a_reader_that_does_not_read_loses_lines_and_delays_nothing() {
    const BYTES: usize = 32 << 20;
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    let mut tracer = tracing(&daemon, plugin.pid(), "4096");
    let writer = std::thread::spawn(move || {
        for _ in 0..BYTES / (64 << 10) {
            remote.write_all(&[0xe4; 64 << 10]).unwrap();
        }
        remote
    });
    assert!(plugin.bytes(BYTES).iter().all(|&byte| byte == 0xe4));
    let remote = writer.join().unwrap();
    drop((plugin, remote));
    let text = String::from_utf8(tracer.rest()).unwrap();
    let (lost, shown): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("... "));
    assert!(!shown.is_empty() && shown.iter().all(|line| line.contains(" < ") && line.contains(" bytes ")));
    let counts = lost.iter().map(|line| line[4..].strip_suffix(" lines lost").unwrap().parse::<usize>().unwrap());
    let passed: usize = shown.iter().map(|line| line.split(' ').nth(2).unwrap().parse::<usize>().unwrap()).sum();
    assert!(passed == BYTES || counts.sum::<usize>() > 0, "{passed} bytes, and no line is lost");
}

#[test]
fn a_tracer_that_goes_without_a_word_leaves_nothing() {
    let daemon = started();
    let (plugin, _remote) = echo_mode(&daemon, "");
    let mut stat = StatClient::new(daemon.addr());
    let before = stat.status()["buffered"].as_u64().unwrap();
    for _ in 0..3 {
        let tracer = tracing(&daemon, plugin.pid(), "");
        assert!(stat.status()["buffered"].as_u64().unwrap() > before, "a trace takes memory");
        drop(tracer);
        stat.wait_connections(1);
        assert_eq!(stat.status()["buffered"], before);
    }
}

#[test]
fn traces_are_few_and_for_operators_alone() {
    let daemon = configured("[host]\nstop=127.0.0.1\n");
    let all: Vec<_> = (0..5).map(|_| echo_mode(&daemon, "")).collect();
    let id = |at: usize| all[at].0.pid().to_owned();
    let mut other = plugin_from("127.0.0.2", daemon.addr());
    other.line();
    assert_eq!(other.command(&format!("TRAC {}", id(0))), "ERR TRAC Not allowed");
    let mut asker = daemon.plugin();
    for unknown in [asker.pid().to_owned(), "x".into(), String::new()] {
        assert_eq!(asker.command(&format!("TRAC {unknown}")), "ERR TRAC No such pid");
    }
    let mut tracers: Vec<Plugin> = (0..4).map(|at| tracing(&daemon, &id(at), "")).collect();
    assert_eq!(asker.command(&format!("TRAC {}", id(4))), "ERR TRAC Too many traces");
    assert_eq!(tracers.pop().unwrap().command("QUIT"), "OK QUIT");
    crate::support::eventually("there is room", || {
        (asker.command(&format!("TRAC {}", id(4))) == format!("OK TRAC {}", id(4))).then_some(())
    });
    let mut wrong = daemon.plugin();
    assert_eq!(wrong.command("TRAC 1 x"), "ERR TRAC Invalid length");
    assert!(wrong.at_end());
    let daemon = configured("[host]\ntrace=off\n");
    let (plugin, _remote) = echo_mode(&daemon, "");
    assert_eq!(daemon.plugin().command(&format!("TRAC {}", plugin.pid())), "ERR TRAC Not allowed");
}
