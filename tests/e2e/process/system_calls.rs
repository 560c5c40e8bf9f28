//! What the daemon costs in system calls, counted by strace. A count is the same on every machine, a time is not.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::process::raise_descriptor_limit;
use testkit::websocket::{BINARY, Peer, TEXT};

use crate::support::{Calls, Strace, accepted, configured, daemon, ends, read_frame, started, websocket_connected};

/// Messages that are counted.
const MESSAGES: usize = 300;
/// System calls that are left out of account: timers, of which there are few, and the last line of the log.
const TOLERANCE: usize = MESSAGES / 20;
/// How long lines of the log wait for others.
const LOG_INTERVAL: Duration = Duration::from_millis(50);
/// A relayed message: it is waited for, read and written.
const MESSAGE: [(&str, f64); 3] = [("epoll_wait", 1.0), ("recvfrom", 1.0), ("sendto", 1.0)];

/// Counts the calls of messages, two of which `there_and_back` sends and receives.
fn check_messages(daemon: &Daemon, mut there_and_back: impl FnMut()) {
    // What only the first messages cost, and the keep-alive, which is set up after a while.
    there_and_back();
    let Some(strace) = Strace::attach(daemon) else { return };
    there_and_back();
    strace.wait_for_rest();
    (0..MESSAGES / 2).for_each(|_| there_and_back());
    strace.wait_for_rest().check(MESSAGES, &MESSAGE, TOLERANCE).unwrap();
}

#[test]
fn a_message_over_tcp_costs_three_system_calls() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    let mut remote = accepted(&device);
    let there_and_back = || {
        plugin.send(b"question");
        let mut question = [0; 8];
        remote.read_exact(&mut question).unwrap();
        remote.write_all(b"answer").unwrap();
        assert_eq!(plugin.bytes(6), b"answer");
    };
    check_messages(&daemon, there_and_back);
}

#[test]
fn a_message_over_websocket_costs_three_system_calls() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "FRAM=LINE");
    let there_and_back = || {
        plugin.send(b"question\n");
        assert_eq!(read_frame(&mut peer), (TEXT, b"question".to_vec()));
        peer.send_frame(TEXT, b"answer").unwrap();
        assert_eq!(plugin.line(), "answer");
    };
    check_messages(&daemon, there_and_back);
}

#[test]
fn a_message_over_a_websocket_port_costs_three_system_calls() {
    let device = Device::start(Kind::Manual);
    let port = Reserved::new().unwrap();
    let config = format!("[serve]\n{}=/a CONN {}\n", port.port(), device.addr());
    let daemon = daemon().config(&config).listeners(2).start();
    let mut browser = Peer::new(TcpStream::connect(port.addr()).unwrap());
    browser
        .send(
            b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .unwrap();
    assert!(browser.request().unwrap().line.contains("101"));
    let mut remote = accepted(&device);
    let there_and_back = || {
        browser.send_masked(TEXT, b"question").unwrap();
        let mut question = [0; 8];
        remote.read_exact(&mut question).unwrap();
        remote.write_all(b"answer").unwrap();
        assert_eq!(read_frame(&mut browser), (BINARY, b"answer".to_vec()));
    };
    check_messages(&daemon, there_and_back);
}

#[test]
fn idle_relays_cost_no_system_call() {
    const RELAYS: usize = 1000;
    if raise_descriptor_limit() < 5 * RELAYS as u64 {
        println!("skipped: too few descriptors here");
        return;
    }
    // With so short a time the kernel is asked within a second whether all was acknowledged, and only once. Its keep-alive
    // probes cost no system call.
    let daemon = configured("[limits]\nconnections=1100\nlost=10\n");
    let device = Device::start(Kind::Silent);
    let mut plugins: Vec<Plugin> = (0..RELAYS).map(|_| daemon.plugin()).collect();
    plugins.iter_mut().for_each(|plugin| drop(plugin.conn(device.addr(), "")));
    let Some(strace) = Strace::attach(&daemon) else { return };
    strace.wait_for_rest();
    // Nothing to wait for: the time itself is what is tested.
    let call = strace.next_within(Duration::from_secs(10));
    assert_eq!(call, None, "{RELAYS} idle relays");
    assert_eq!(plugins.len(), RELAYS);
}

/// A device on a port that the kernel gives to no outgoing connection. A connection to one of the others might be a
/// connection to itself, and the daemon asks the kernel about it.
fn device_outside_of_the_local_ports() -> Option<Device> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut bounds = range.split_whitespace().filter_map(|port| port.parse::<u16>().ok());
    let (low, high) = (bounds.next()?, bounds.next()?);
    // Other tests may look for one at the same time, from other processes, too.
    let start = 1024 + std::process::id() as u16 % 4096;
    let outside = (start..low).chain(high.saturating_add(1)..u16::MAX).chain(1024..start.min(low));
    let mut addresses = outside.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    addresses.find_map(|addr| Device::start_at(addr, Kind::Manual).ok())
}

/// Checks the calls of so many dialogues, which have taken this time.
fn check_dialogues(calls: &Calls, dialogues: usize, time: Duration) -> Result<(), String> {
    // The log is also written by the clock, and when a page is full: the loop wakes up, asks and writes.
    let all_log_writes = time.as_millis() as f64 / LOG_INTERVAL.as_millis() as f64 + 10.0;
    let log_writes = all_log_writes / dialogues as f64;
    let expected = [
        // The plugin comes, CONN, its byte, the remote's, and the end of each.
        ("epoll_wait", 6.0 + log_writes),
        ("accept4", 1.0),
        ("recvfrom", 5.0),
        ("sendto", 4.0),
        ("socket", 1.0),
        ("connect", 2.0),
        ("epoll_ctl", 2.0),
        ("shutdown", 1.0),
        ("close", 2.0),
        // Whether standard error has room, and all lines that wait.
        ("write", log_writes),
        ("poll", log_writes),
    ];
    let tolerance = dialogues / 5;
    calls.check(dialogues, &expected, tolerance)?;
    // Each write of the log takes three calls.
    let bound = 24 * dialogues + tolerance + 3 * all_log_writes as usize;
    if calls.total() > bound { Err(format!("{dialogues} dialogues take {calls}")) } else { Ok(()) }
}

#[test]
fn a_whole_dialogue_costs_24_system_calls_and_a_share_of_the_log() {
    const DIALOGUES: usize = 100;
    // On a loaded machine the loop also wakes up for a new socket's being writable, before anything else happens to it.
    const ATTEMPTS: usize = 6;
    let Some(device) = device_outside_of_the_local_ports() else {
        println!("skipped: no port outside of the local ones here");
        return;
    };
    let daemon = started();
    let dialogue = || {
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "");
        let mut remote: TcpStream = accepted(&device);
        plugin.send(b"?");
        remote.read_exact(&mut [0]).unwrap();
        remote.write_all(b"!").unwrap();
        assert_eq!(plugin.bytes(1), b"!");
        plugin.finish();
        assert!(ends(&remote));
        drop(remote);
        assert!(plugin.at_end());
    };
    dialogue();
    let Some(strace) = Strace::attach(&daemon) else { return };
    let attempt = || {
        let start = Instant::now();
        (0..DIALOGUES).for_each(|_| dialogue());
        let time = start.elapsed();
        let calls = strace.wait_for_rest();
        println!("{DIALOGUES} dialogues: {calls}");
        check_dialogues(&calls, DIALOGUES, time)
    };
    let results: Vec<_> = (0..ATTEMPTS).map(|_| attempt()).take_while(Result::is_err).collect();
    assert!(results.len() < ATTEMPTS, "{results:#?}");
}
