//! Notifications that arrive at once, whatever other connections do.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::plugin::Plugin;

use crate::support::{LIMIT, echo_mode, with_luup};

/// Less than a third of the Lua daemon's best time. Tests compare the best of several, since machines are loaded.
const AT_ONCE: Duration = Duration::from_millis(300);

/// The shortest latency of five notifications of this connection.
#[track_caller]
fn shortest_latency(luup: &Luup, plugin: &mut Plugin, mut remote: &TcpStream, pid: &str) -> Duration {
    let mut shortest_latency = LIMIT;
    for count in 1..=5 {
        let start = Instant::now();
        remote.write_all(b"x").unwrap();
        let arrived = luup.wait_until(LIMIT, |all| all.iter().filter(|request| request.pid() == pid).count() >= count);
        assert!(arrived.is_ok(), "notification {count} does not come");
        shortest_latency = shortest_latency.min(start.elapsed());
        assert_eq!(plugin.bytes(1), b"x");
    }
    shortest_latency
}

/// Plugins that read from a device that sends all the time; they end with the device.
fn busy(daemon: &Daemon, device: &Device, options: &str) -> Vec<std::thread::JoinHandle<()>> {
    let read = |_| {
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), options);
        std::thread::spawn(move || while plugin.try_line().is_ok() {})
    };
    (0..20).map(read).collect()
}

#[test]
fn a_notification_does_not_take_a_second() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/mine");
    let took = shortest_latency(&luup, &mut plugin, &remote, "mine");
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn traffic_of_other_connections_delays_no_notification() {
    let (luup, daemon) = with_luup("");
    for options in ["", "NTFY=6/s/a/other"] {
        luup.clear_requests();
        let device = Device::start(Kind::Ticking(Duration::from_millis(20)));
        let others = busy(&daemon, &device, options);
        let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/mine");
        let took = shortest_latency(&luup, &mut plugin, &remote, "mine");
        assert!(took < AT_ONCE, "{took:?}");
        drop(device);
        others.into_iter().for_each(|other| other.join().unwrap());
    }
}

#[test]
fn traffic_of_its_own_connection_delays_no_notification() {
    let (luup, daemon) = with_luup("");
    let device = Device::start(Kind::Ticking(Duration::from_millis(20)));
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "NTFY=5/s/a/mine");
    let reading = std::thread::spawn(move || while plugin.try_line().is_ok() {});
    let requests = luup.wait_for(10, LIMIT);
    let shortest = requests.windows(2).map(|pair| pair[1].arrival - pair[0].arrival).min().unwrap();
    assert!(shortest < AT_ONCE, "{shortest:?} between two notifications");
    drop(device);
    reading.join().unwrap();
}

#[test]
fn a_burst_on_many_connections_is_notified_within_a_second() {
    const MANY: usize = 20;
    let (luup, daemon) = with_luup("");
    let mut pairs: Vec<_> = (0..MANY).map(|n| echo_mode(&daemon, &format!("NTFY={n}/s/a/p{n}"))).collect();
    for (_, remote) in &mut pairs {
        remote.write_all(b"x").unwrap();
    }
    let start = Instant::now();
    let mut pids: Vec<_> = luup.wait_for(MANY, LIMIT).iter().map(|request| request.pid().to_owned()).collect();
    // The Lua daemon took one second for each notification.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), MANY, "each connection is notified once");
}
