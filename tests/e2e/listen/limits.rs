//! Many arrivals: what waits is bounded, nothing is left behind, and other plugins are unharmed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::lan::on_the_box;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::process::raise_descriptor_limit;
use testkit::random::Random;

use crate::support::{
    LIMIT, Listener, NO_LUUP, StatClient, Strace, WsClient, accepted_by, client_of, daemon, ends, eventually,
    listening, on_all_addresses, on_lan, on_loopback, read_frame, skipped_under_emulation, started,
};

/// Arrivals that may wait for a plugin.
const MAX_WAITING: usize = 16;

/// A CONN beside what is tested works, and quickly.
#[track_caller]
fn check_innocent(daemon: &Daemon, device: &Device) {
    let start = Instant::now();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    plugin.send(b"hello");
    assert_eq!(plugin.bytes(5), b"hello");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn beyond_16_that_wait_arrivals_are_refused() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let mut clients: Vec<WsClient> = (0..MAX_WAITING)
        .map(|_| {
            let client = WsClient::request(listener.addr(), "/", &[]);
            listener.incoming();
            client
        })
        .collect();
    for _ in 0..20 {
        let mut client = WsClient::request(listener.addr(), "/", &[]);
        assert_eq!(client.response().line, "HTTP/1.1 503 Service Unavailable");
        check_innocent(&daemon, &device);
    }
    assert!(listener.owner.is_quiet());
    // One leaves, one may come.
    drop(clients.pop());
    StatClient::new(daemon.addr()).wait_connections(MAX_WAITING);
    let mut client = WsClient::request(listener.addr(), "/", &[]);
    let id = listener.incoming()[0].clone();
    let _plugin = accepted_by(&daemon, &id, "");
    client.upgraded();
    // Over tcp they are closed.
    let mut listener = Listener::new(&daemon, "");
    let _waiting: Vec<TcpStream> = (0..MAX_WAITING).map(|_| listener.arrival().0).collect();
    assert!(ends(&client_of(listener.addr())));
}

#[test]
fn a_client_elsewhere_takes_4_places_and_4_are_for_loopback() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "").start();
        let port = Reserved::new().unwrap();
        let mut owner = Plugin::connect(on_loopback(&daemon));
        assert!(owner.command(&format!("LSTN *:{} WAIT=60", port.port())).starts_with("OK LSTN "));
        let arrive = |source: &str| {
            let mut listener = on_lan(&daemon, source);
            listener.set_port(port.port());
            neighbour.plugin(source, listener)
        };
        let mut told = |client: Plugin, source: &str| {
            let line = owner.line();
            assert!(line.starts_with("INCO ") && line.contains(source), "{line}");
            client
        };
        let mut held = Vec::new();
        for (source, places) in
            [("192.168.77.2", 4), ("fd00:77::2", 4), ("fd00:77::3", 0), ("192.168.77.3", 4), ("192.168.77.4", 0)]
        {
            held.extend((0..places).map(|_| told(arrive(source), source)));
            assert!(arrive(source).at_end(), "{source}");
        }
        let here = || Plugin::connect_raw(port.addr()).unwrap();
        held.extend((0..4).map(|_| told(here(), "127.0.0.1")));
        assert!(here().at_end());
        // A reset gives a place back.
        held.remove(0).reset();
        daemon.wait_for_log(LIMIT, |line| line.contains("left before it was accepted"));
        told(arrive("192.168.77.2"), "192.168.77.2");
    });
}

#[test]
fn an_owner_that_does_not_read_is_told_of_no_more_than_a_bound() {
    if skipped_under_emulation("it takes long") {
        return;
    }
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let port = Reserved::new().unwrap();
    // Segments as on Ethernet, and a small window: otherwise the kernel's buffers take megabytes.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(1460).unwrap();
    socket.connect(&daemon.addr().into()).unwrap();
    let mut owner = Plugin::from_stream(socket.into());
    owner.line();
    let mut owner = listening(owner, port.port(), "PRTO=ws WAIT=0.05 RHDR=on");
    let path = format!("/{}", "x".repeat(6000));
    eventually("an arrival is refused at once", || {
        let burst: Vec<WsClient> = (0..50).map(|_| WsClient::request(port.addr(), &path, &[])).collect();
        for mut client in burst {
            assert_eq!(client.response().line, "HTTP/1.1 503 Service Unavailable");
        }
        let log = daemon.log_text();
        log.contains("No plugin takes the connection now").then_some(())
    });
    check_innocent(&daemon, &device);
    let buffered = StatClient::new(daemon.addr()).status()["buffered"].as_u64().unwrap();
    assert!(buffered < 64 * 1024, "{buffered}");
    // It is alive, and reads on.
    assert!(owner.line().starts_with("INCO "));
}

#[test]
fn ten_thousand_arrivals_whose_owners_die_leave_nothing_behind() {
    const ARRIVALS: usize = 10_000;
    const BATCH: usize = 50;
    raise_descriptor_limit();
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut stat = StatClient::new(daemon.addr());
    let mut random = Random::new(7);
    let mut round = |daemon: &Daemon, stat: &mut StatClient| {
        let mut listener = Listener::new(daemon, ["PRTO=ws", "PRTO=tcp"][random.below(2) as usize]);
        let addr = listener.addr();
        let clients: Vec<TcpStream> = (0..BATCH).map(|_| client_of(addr)).collect();
        for mut client in &clients {
            if random.below(3) > 0 {
                client.write_all(REQUEST).ok();
            }
        }
        let mut plugins = Vec::new();
        for _ in 0..random.below(4) {
            let Ok(line) = listener.owner.try_line() else { break };
            let id = line.split(' ').nth(1).unwrap().to_owned();
            let mut plugin = daemon.plugin();
            plugin.send(format!("ACPT {id}\nbye").as_bytes());
            plugins.push(plugin);
        }
        match random.below(3) {
            0 => listener.owner.reset(),
            1 => {
                listener.owner.send(b"QUIT\n");
                drop(listener);
            }
            _ => drop(listener),
        }
        drop((clients, plugins));
        stat.wait_connections(0);
    };
    (0..3).for_each(|_| round(&daemon, &mut stat));
    let (descriptors, memory) = (daemon.descriptors(), daemon.memory().rss);
    let start = Instant::now();
    (0..ARRIVALS / BATCH).for_each(|_| round(&daemon, &mut stat));
    println!("{ARRIVALS} arrivals in {:?}", start.elapsed());
    assert!(daemon.descriptors() <= descriptors, "{} descriptors, {descriptors} before", daemon.descriptors());
    if !skipped_under_emulation("memory is the emulator's") {
        let grown = daemon.memory().rss.saturating_sub(memory);
        assert!(grown <= 2048, "{grown} kB more than before");
    }
    let status = stat.status();
    assert_eq!((&status["buffered"], status["listeners"].as_array().unwrap().len()), (&0.into(), 1));
    check_innocent(&daemon, &device);
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn a_flood_of_arrivals_harms_no_other_plugin() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let listener = Listener::new(&daemon, "PRTO=ws");
    let addr = listener.addr();
    let flood = std::thread::spawn(move || {
        let mut clients: Vec<TcpStream> = (0..500).map(|_| client_of(addr)).collect();
        clients.iter_mut().for_each(|client| drop(client.write_all(REQUEST)));
        // All but those that wait are refused, and those are after a while.
        clients.iter_mut().for_each(|client| {
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 503");
        });
    });
    while !flood.is_finished() {
        check_innocent(&daemon, &device);
    }
    flood.join().unwrap();
    drop(listener);
}

#[test]
fn listeners_are_bounded() {
    let daemon = started();
    let first = Listener::new(&daemon, "PRTO=ws PATH=/0");
    let owners: Vec<Plugin> =
        (1..64).map(|number| listening(daemon.plugin(), first.port(), &format!("PRTO=ws PATH=/{number}"))).collect();
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command(&format!("LSTN {} PRTO=ws", first.port())), "ERR LSTN Too many listeners");
    let ports: Vec<Listener> = (1..64).map(|_| Listener::new(&daemon, "")).collect();
    assert_eq!(daemon.plugin().command("LSTN 61234"), "ERR LSTN Too many listeners");
    drop((owners, ports));
    StatClient::new(daemon.addr()).wait_connections(1);
    Listener::new(&daemon, "");
}

#[test]
fn a_message_through_an_accepted_websocket_costs_three_system_calls() {
    const MESSAGES: usize = 300;
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let mut client = WsClient::request(listener.addr(), "/", &[]);
    let id = listener.incoming()[0].clone();
    let mut plugin = accepted_by(&daemon, &id, "FRAM=LINE");
    client.upgraded();
    let mut there_and_back = || {
        plugin.send(b"question\n");
        assert_eq!(read_frame(&mut client.0).1, b"question");
        client.send(0x81, b"answer");
        assert_eq!(plugin.line(), "answer");
    };
    there_and_back();
    let Some(strace) = Strace::attach(&daemon) else { return };
    there_and_back();
    strace.wait_for_rest();
    (0..MESSAGES / 2).for_each(|_| there_and_back());
    let message = [("epoll_wait", 1.0), ("recvfrom", 1.0), ("sendto", 1.0)];
    strace.wait_for_rest().check(MESSAGES, &message, MESSAGES / 20).unwrap();
}
