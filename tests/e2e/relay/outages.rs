//! Peers that vanish: their power, their cable, their address; and those that only seem to have vanished.
//!
//! The daemon, devices and a box with plugins are in network namespaces of their own. What vanishes says nothing: its
//! address goes away, and not even ARP answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::netns::{self, Netns};
use testkit::plugin::Plugin;
use testkit::tls::{self, Identity, TlsStream, Validity};
use testkit::websocket::{Peer, TEXT};

use crate::support::{
    LIMIT, LONG_TIMEOUTS, PID, Reader, StatClient, Writer, daemon, ends, eventually, expect_ok, read_frame,
    skipped_under_emulation, stays_quiet, while_stopped,
};

/// The shortest time that the owner may set.
const LOST: Duration = Duration::from_secs(10);
/// What a loaded machine may add.
const DELAY: Duration = Duration::from_secs(6);
const CONFIG: &str = "[limits]\nlost=10\n";

/// A network with the daemon and its Luup, and a box beside it.
struct Network {
    home: Netns,
    beside: Netns,
    luup: Luup,
    daemon: Daemon,
}

/// What a test holds of a device's end of a connection. Nothing reads it any more.
enum DeviceEnd {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    WebSocket(Peer),
}

impl Network {
    /// `None`, with the reason printed, if this machine has no network namespaces.
    fn new(config: &str) -> Option<Network> {
        if skipped_under_emulation("time limits of the kernel are not tested") || !netns::available() {
            return None;
        }
        let (home, beside) = (Netns::new(), Netns::new());
        home.connect("eth0", "10.77.0.1/24", &beside, "eth0", "10.77.0.2/24");
        let luup = home.run(Luup::start);
        let daemon = daemon().within(&home.script()).address("*").config(config).luup(&luup.url()).start();
        Some(Network { home, beside, luup, daemon })
    }

    /// A plugin on the daemon's own machine.
    #[track_caller]
    fn plugin(&self) -> Plugin {
        self.home.run(|| Plugin::connect(("127.0.0.1", self.daemon.port())))
    }

    /// A plugin on the box beside.
    #[track_caller]
    fn plugin_beside(&self) -> Plugin {
        self.beside.run(|| Plugin::connect(("10.77.0.1", self.daemon.port())))
    }

    /// A device on the daemon's own machine.
    fn device(&self) -> Device {
        self.home.run(|| Device::start(Kind::Manual))
    }

    /// A device that is the box beside.
    fn device_beside(&self) -> Device {
        self.beside.run(|| Device::start_at("10.77.0.2:0".parse().unwrap(), Kind::Manual)).unwrap()
    }

    fn stat(&self) -> StatClient {
        self.home.run(|| StatClient::new(("127.0.0.1", self.daemon.port())))
    }

    /// The box beside loses its power.
    fn power_off(&self) {
        self.beside.ip("address flush dev eth0");
    }

    /// Checks that the end of `plugin`'s connection was told once, in the log and to Luup.
    #[track_caller]
    fn check_told_once(&self, plugin: &Plugin, target: &str, closing_notices: usize) {
        let pid = plugin.pid();
        self.daemon.wait_for_log(LIMIT, |line| line.contains(&format!("{pid} closed: ")));
        let text = self.daemon.log_text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(&format!("{pid} closed: "))).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(target), "{}", lines[0]);
        let told = |requests: &[testkit::luup::Request]| {
            let ours = |query: &str| query.contains(&format!("Pid={pid}&")) && query.ends_with("Event=closed");
            requests.iter().filter(|request| ours(&request.query)).count()
        };
        if closing_notices > 0 {
            self.luup.wait_until(LIMIT, |requests| told(requests) > 0).unwrap();
        }
        assert_eq!(told(&self.luup.requests()), closing_notices);
        assert!(self.stat().connection(pid).is_none(), "STAT still shows it");
    }
}

/// A plugin that is notified, connected to `device` over tcp, tls, ws or wss, and the device's end.
#[track_caller]
fn connected(mut plugin: Plugin, device: &Device, scheme: &str) -> (Plugin, DeviceEnd) {
    assert_eq!(plugin.command("NTFY 7 urn:x Act"), "OK NTFY");
    let (addr, secure) = (device.addr(), scheme == "tls" || scheme == "wss");
    let security = if secure { LONG_TIMEOUTS } else { "" };
    let target = match scheme {
        "tcp" => format!("{addr}"),
        "tls" => format!("{addr} PRTO=tls VRFY=none CTIM=30000"),
        _ => format!("{scheme}://{addr}/ {security} FRAM=LINE"),
    };
    plugin.send(format!("CONN {target} EVNT=on\n").as_bytes());
    let stream = device.accept(LIMIT);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let secured = |stream: TcpStream| {
        let config = Arc::new(Identity::self_signed(&["10.77.0.2"], Validity::Now).any_server());
        tls::accept(&config, stream).unwrap()
    };
    let end = match scheme {
        "tcp" => DeviceEnd::Plain(stream),
        "tls" => DeviceEnd::Tls(Box::new(secured(stream))),
        _ => {
            let mut peer = if secure { Peer::secure(secured(stream)) } else { Peer::new(stream) };
            peer.upgrade().unwrap();
            DeviceEnd::WebSocket(peer)
        }
    };
    expect_ok(&mut plugin);
    (plugin, end)
}

impl DeviceEnd {
    /// Reads the line that the plugin has sent.
    #[track_caller]
    fn expect_line(&mut self) {
        let mut line = [0; 5];
        match self {
            Self::Plain(stream) => stream.read_exact(&mut line).unwrap(),
            Self::Tls(stream) => stream.read_exact(&mut line).unwrap(),
            Self::WebSocket(peer) => assert_eq!(read_frame(peer), (TEXT, b"line".to_vec())),
        }
    }

    #[track_caller]
    fn into_plain(self) -> TcpStream {
        let Self::Plain(stream) = self else { panic!("no plain stream") };
        stream
    }
}

/// Waits for the end of a plugin's stream. Returns how long after `since` it came.
#[track_caller]
fn time_of_end(plugin: &mut Plugin, since: Instant) -> Duration {
    plugin.set_timeout(4 * LOST);
    assert!(plugin.at_end());
    since.elapsed()
}

/// True if the daemon's kernel has everything that a plugin in another namespace has sent (proc(5): tx_queue).
fn has_acknowledged(namespace: &Netns, plugin: &Plugin) -> bool {
    let table = namespace.command("cat").arg("/proc/net/tcp").output().unwrap().stdout;
    let own = format!(":{:04X}", plugin.local_addr().port());
    let table = String::from_utf8(table).unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words[1].ends_with(&own)).expect("the kernel's line of the connection");
    line[4].starts_with("00000000:")
}

fn a_device_that_loses_its_power_is_lost_in_time_whatever_is_under_way() {
    let Some(network) = Network::new(CONFIG) else { return };
    let device = network.device_beside();
    let mut connections: Vec<_> = ["tcp", "tls", "ws", "wss", "tcp", "tcp"]
        .iter()
        .map(|scheme| connected(network.plugin(), &device, scheme))
        .collect();
    let idle = connections.len() - 1;
    // The window of the last but one is closed, and bulk is under way to it.
    Writer::new(connections[idle - 1].0.stream(), 1).write_until_blocked();
    let active = 0..idle - 1;
    for (plugin, end) in &mut connections[active.clone()] {
        plugin.send(b"line\n");
        end.expect_line();
    }
    let start = Instant::now();
    network.power_off();
    for (plugin, _) in &mut connections[active] {
        plugin.send(b"line\n");
    }
    thread::scope(|scope| {
        for (number, (plugin, _)) in connections.iter_mut().enumerate() {
            let network = &network;
            let target = device.addr().to_string();
            scope.spawn(move || {
                let lost = time_of_end(plugin, start);
                println!("connection {number} is lost after {lost:?}");
                assert!(lost < LOST + DELAY, "connection {number} is lost after {lost:?}");
                assert!(lost > LOST / 3, "connection {number} is lost after {lost:?}");
                if number < idle {
                    let line = format!("{} lost: no answer from ", plugin.pid());
                    network.daemon.wait_for_log(LIMIT, |logged| logged.contains(&line) && logged.contains(&target));
                }
                network.check_told_once(plugin, &target, 1);
            });
        }
    });
}

fn a_box_of_plugins_that_loses_its_power_is_lost_in_time() {
    let Some(network) = Network::new(CONFIG) else { return };
    let device = network.device();
    let (plugin, echo) = connected(network.plugin_beside(), &device, "tcp");
    let mut echo = echo.into_plain();
    let mut kept = network.plugin_beside();
    assert_eq!(kept.command(&format!("NTFY 7 urn:x Act {PID}")), "OK NTFY");
    kept.conn(device.addr(), "KEEP=60 EVNT=on");
    let mut kept_remote = device.accept(LIMIT);
    let mut in_setup = network.plugin_beside();
    while_stopped(&network.daemon, || {
        in_setup.send(b"STAT\n");
        eventually("STAT has arrived", || (has_acknowledged(&network.beside, &in_setup)).then_some(()));
        network.power_off();
        echo.write_all(b"line\n").unwrap();
        kept_remote.write_all(b"line\n").unwrap();
    });
    let start = Instant::now();
    echo.set_read_timeout(Some(4 * LOST)).unwrap();
    assert!(ends(&echo), "the device is free again");
    let lost = start.elapsed();
    println!("the plugin is lost after {lost:?}");
    assert!(lost > LOST / 3 && lost < LOST + DELAY, "{lost:?}");
    let left = format!("{} left in setup mode", in_setup.pid());
    network.daemon.wait_for_log(LIMIT, |line| line.contains(&left));
    network.daemon.wait_for_log(LIMIT, |line| line.contains(&format!("{} parked", kept.pid())));
    assert!(start.elapsed() < LOST + DELAY, "{:?}", start.elapsed());
    network.check_told_once(&plugin, &device.addr().to_string(), 1);
    // What was under way to the kept plugin is not lost.
    let mut back = network.home.run(|| {
        let mut plugin = Plugin::connect(("127.0.0.1", network.daemon.port()));
        assert_eq!(plugin.command(&format!("ATCH {PID} SEEN=0")), format!("OK ATCH {PID}"));
        plugin
    });
    assert_eq!(back.line(), "line");
}

fn an_outage_of_a_third_of_the_time_ends_no_connection() {
    let Some(network) = Network::new(CONFIG) else { return };
    let device = network.device_beside();
    let (mut plugin, mut end) = connected(network.plugin(), &device, "tcp");
    let (mut idle, idle_end) = connected(network.plugin(), &device, "tcp");
    let (mut beside, beside_end) = connected(network.plugin_beside(), &network.device(), "tcp");
    let mut beside_end = beside_end.into_plain();
    network.home.ip("link set eth0 down");
    plugin.send(b"line\n");
    beside_end.write_all(b"line\n").unwrap();
    // The outage itself is what is tested.
    thread::sleep(LOST / 3);
    network.home.ip("link set eth0 up");
    end.expect_line();
    assert_eq!(beside.line(), "line");
    let mut idle_end = idle_end.into_plain();
    idle_end.write_all(b"fine\n").unwrap();
    assert_eq!(idle.line(), "fine");
    assert!(stays_quiet(plugin.stream(), LOST + DELAY), "the connection has ended later");
    assert!(!network.daemon.log_text().contains("closed"), "{}", network.daemon.log_text());
}

fn a_device_that_is_back_without_its_connections_resets_them_at_the_next_byte() {
    let Some(network) = Network::new(CONFIG) else { return };
    let device = network.device_beside();
    let target = device.addr().to_string();
    let (mut plugin, end) = connected(network.plugin(), &device, "tcp");
    network.power_off();
    // Without an address nothing tells of the end.
    drop((end, device));
    network.beside.ip("address add 10.77.0.2/24 dev eth0");
    let start = Instant::now();
    plugin.send(b"line\n");
    let lost = time_of_end(&mut plugin, start);
    assert!(lost < LOST, "{lost:?}");
    network.check_told_once(&plugin, &target, 1);
}

fn a_device_with_another_address_is_lost_in_the_time_that_a_reload_has_set() {
    let Some(network) = Network::new("[limits]\nlost=900\n") else { return };
    std::fs::write(network.daemon.dir().join("sockproxyd.conf"), CONFIG).unwrap();
    network.daemon.signal(Signal::SIGHUP);
    network.daemon.wait_for_log(LIMIT, |line| line.contains("configuration read anew"));
    let device = network.device_beside();
    let (mut plugin, _end) = connected(network.plugin(), &device, "tcp");
    network.power_off();
    network.beside.ip("address add 10.77.0.9/24 dev eth0");
    let start = Instant::now();
    plugin.send(b"line\n");
    let lost = time_of_end(&mut plugin, start);
    println!("lost after {lost:?}");
    assert!(lost > LOST / 3 && lost < LOST + DELAY, "{lost:?}");
    network.check_told_once(&plugin, &device.addr().to_string(), 1);
}

/// The kernel's probes are 12 s apart by then: an answer is older than the time limit, and no other probe was sent.
fn a_device_that_reads_nothing_but_answers_is_not_lost() {
    let Some(network) = Network::new(CONFIG) else { return };
    let device = network.device_beside();
    let (mut plugin, end) = connected(network.plugin(), &device, "tcp");
    let mut writer = Writer::new(plugin.stream(), 1);
    let written = writer.write_until_blocked();
    // Time is what is tested.
    assert!(stays_quiet(plugin.stream(), LOST * 5 / 2));
    writer.finish();
    let stream = end.into_plain();
    assert_eq!(Reader::new(&stream, 1).rest(), written);
    drop(stream);
    assert!(plugin.at_end());
}

fn a_luup_that_vanishes_is_notified_when_it_is_back() {
    if skipped_under_emulation("time limits of the kernel are not tested") || !netns::available() {
        return;
    }
    let (home, beside) = (Netns::new(), Netns::new());
    home.connect("eth0", "10.77.0.1/24", &beside, "eth0", "10.77.0.2/24");
    let luup = beside.run(|| Luup::start_at("10.77.0.2:0".parse().unwrap())).unwrap();
    let url = format!("http://10.77.0.2:{}", luup.port());
    let daemon =
        daemon().within(&home.script()).address("127.0.0.1").config("[limits]\nanswer=1000\n").luup(&url).start();
    let device = home.run(|| Device::start(Kind::Manual));
    let mut plugin = home.run(|| daemon.plugin());
    assert_eq!(plugin.command("NTFY 7 urn:x Act"), "OK NTFY");
    plugin.conn(device.addr(), "");
    let mut remote = device.accept(LIMIT);
    remote.write_all(b"1").unwrap();
    luup.wait_for(1, LIMIT);
    let mut stat = home.run(|| StatClient::new(daemon.addr()));
    stat.wait_notified();
    beside.ip("address flush dev eth0");
    remote.write_all(b"2").unwrap();
    let retried = |stat: &mut StatClient| stat.status()["notifications"]["retried"].as_u64().unwrap_or(0);
    eventually("the notification is tried again", || (retried(&mut stat) >= 3).then_some(()));
    let away = |line: &&str| line.contains("Luup cannot be reached") || line.contains("Luup is back");
    assert_eq!(daemon.log_text().lines().filter(away).count(), 1, "{}", daemon.log_text());
    beside.ip("address add 10.77.0.2/24 dev eth0");
    luup.wait_for(2, LIMIT);
    stat.wait_notified();
    assert_eq!(luup.count(), 2, "once");
}

/// Runs tests at the same time: they wait for time to pass.
fn at_once(tests: &[fn()]) {
    thread::scope(|scope| tests.iter().for_each(|test| drop(scope.spawn(test))));
}

#[test]
fn peers_that_vanish_are_lost_in_time() {
    at_once(&[
        a_device_that_loses_its_power_is_lost_in_time_whatever_is_under_way,
        a_box_of_plugins_that_loses_its_power_is_lost_in_time,
        a_device_with_another_address_is_lost_in_the_time_that_a_reload_has_set,
        a_luup_that_vanishes_is_notified_when_it_is_back,
    ]);
}

#[test]
fn peers_that_have_not_vanished_are_not_lost() {
    at_once(&[
        an_outage_of_a_third_of_the_time_ends_no_connection,
        a_device_that_reads_nothing_but_answers_is_not_lost,
        a_device_that_is_back_without_its_connections_resets_them_at_the_next_byte,
    ]);
}
