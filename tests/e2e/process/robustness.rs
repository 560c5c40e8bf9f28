//! Leaks: aborted connections of clients and devices leave no descriptor, no entry in STAT and no memory behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind, reset};
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::random::Random;

use crate::support::{
    LIMIT, StatClient, accepted, both_ways, configured, daemon, echo_mode, emulated, ends, eventually, processor_time,
    read_to_end, skipped_under_emulation, started, with_luup,
};

/// True if the tests of this module run longer (`SOAK=1`).
fn soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// The resources of the idle daemon, for later comparison.
struct Baseline {
    descriptors: usize,
    rss: u64,
}

impl Baseline {
    /// Measures after a first connection, so that everything that is created once exists.
    fn of(daemon: &Daemon) -> Baseline {
        let (plugin, remote) = echo_mode(daemon, "");
        both_ways(plugin.stream(), &remote, 1_000_000);
        drop((plugin, remote));
        StatClient::new(daemon.addr()).wait_connections(0);
        // Waits until the connection of the StatClient is closed, too.
        eventually("the number of descriptors is stable", || {
            let (before, now) = (daemon.descriptors(), (daemon.descriptors(), daemon.memory().rss));
            std::thread::sleep(Duration::from_millis(100));
            (before == daemon.descriptors()).then_some(Baseline { descriptors: now.0, rss: now.1 })
        })
    }

    /// Waits until at most `descriptors` more are open (for pools), and asserts that memory has grown by at most `kb`.
    #[track_caller]
    fn is_restored(&self, daemon: &Daemon, descriptors: usize, kb: u64) {
        StatClient::new(daemon.addr()).wait_connections(0);
        eventually("descriptors are closed", || (daemon.descriptors() <= self.descriptors + descriptors).then_some(()));
        assert_eq!(StatClient::new(daemon.addr()).status()["buffered"], 0);
        if !emulated() {
            let grown = daemon.memory().rss.saturating_sub(self.rss);
            assert!(grown <= kb, "{grown} kB more than before");
        }
    }
}

/// Aborts a connection at a random moment, from a random side.
fn abort_one(daemon: &Daemon, source: &Device, manual: &Device, random: &mut Random) {
    let Ok(mut plugin) = Plugin::connect_raw(daemon.addr()) else { panic!("the daemon does not accept") };
    let ntfy = match random.below(2) {
        0 => String::new(),
        _ => format!("NTFY={}/s/a/p", random.below(5)),
    };
    let conn = |to: &Device| format!("CONN {} {ntfy}\n", to.addr());
    match random.below(8) {
        0 => {}
        1 => plugin.send(b"CO"),
        // During CONN, or right after.
        2 => plugin.send(conn(source).as_bytes()),
        // While the device sends.
        3 | 4 => {
            plugin.send(conn(source).as_bytes());
            let count = random.between(50, 300_000);
            plugin.bytes(count as usize);
        }
        // While the plugin sends and the device does not read.
        5 => {
            plugin.send(conn(manual).as_bytes());
            let remote = accepted(manual);
            plugin.stream().set_write_timeout(Some(Duration::from_millis(1))).unwrap();
            while plugin.try_send(&[7; 50_000]).is_ok() {}
            drop(remote);
        }
        // The device aborts after it has sent something.
        6 => {
            plugin.send(conn(manual).as_bytes());
            let mut remote = accepted(manual);
            remote.write_all(&[7; 10_000]).unwrap();
            reset(&remote);
        }
        // Both sides one after another.
        _ => {
            plugin.send(conn(manual).as_bytes());
            let remote = accepted(manual);
            plugin.finish();
            assert!(ends(&remote));
            reset(&remote);
        }
    }
    plugin.reset();
}

/// Aborts `count` connections from several threads.
fn abort_many(daemon: &Daemon, count: usize) {
    const THREADS: usize = 8;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let source = Device::start(Kind::Source { bytes: 400_000, seed: 1 });
                let manual = Device::start(Kind::Manual);
                let mut random = Random::new(thread as u64);
                for _ in 0..count / THREADS {
                    abort_one(daemon, &source, &manual, &mut random);
                }
            });
        }
    });
}

#[test]
fn aborted_connections_leave_nothing_behind() {
    let count = if soak() { 10_000 } else { 2000 };
    // With and without pipes; pipes stay in their pool.
    for (pipes, kept) in [(0, 0), (16, 32)] {
        let (luup, daemon): (Luup, Daemon) = with_luup(&format!("[limits]\npipes={pipes}\n"));
        let baseline = Baseline::of(&daemon);
        abort_many(&daemon, count / 2);
        StatClient::new(daemon.addr()).wait_notified();
        // A device gets one request at a time; sender threads end when the queue is empty.
        assert!((0..5).all(|device| luup.max_concurrent(device) <= 1));
        baseline.is_restored(&daemon, kept, 6 * 1024);
        let (plugin, remote) = echo_mode(&daemon, "");
        both_ways(plugin.stream(), &remote, 1_000_000);
    }
}

/// A process that sends without end; `address` makes it connect or listen.
fn endless(address: &str) -> Child {
    let mut command = Command::new("socat");
    command.args(["-u", "OPEN:/dev/zero", address]).stderr(Stdio::null());
    command.spawn().expect("socat is needed (apt-get install socat)")
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn clients_that_are_killed_leave_nothing_behind() {
    let count = if soak() { 300 } else { 30 };
    let device = Device::start(Kind::Sink);
    let port = Reserved::new().unwrap();
    let config = format!("[limits]\npipes=0\n[direct]\n{}=CONN {}\n", port.port(), device.addr());
    let daemon = daemon().config(&config).listeners(2).start();
    let baseline = Baseline::of(&daemon);
    for round in 1..=count {
        let client = endless(&format!("TCP:{}", port.addr()));
        device.wait_received(device.received().bytes + 200_000, LIMIT);
        kill(client);
        assert!(device.wait_finished(round, LIMIT), "the device does not see the end");
    }
    baseline.is_restored(&daemon, 0, 2048);
}

#[test]
fn devices_that_are_killed_leave_nothing_behind() {
    let count = if soak() { 300 } else { 30 };
    let daemon = configured("[limits]\npipes=0\n");
    let baseline = Baseline::of(&daemon);
    for _ in 0..count {
        let port = Reserved::new().unwrap().port();
        let device = endless(&format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"));
        let mut plugin = eventually("the device listens", || {
            let mut plugin = daemon.plugin();
            plugin.command(&format!("CONN 127.0.0.1:{port}")).starts_with("OK ").then_some(plugin)
        });
        assert!(plugin.bytes(200_000).iter().all(|byte| *byte == 0));
        kill(device);
        read_to_end(plugin.stream());
    }
    baseline.is_restored(&daemon, 0, 2048);
}

#[test]
fn five_thousand_connections_get_their_own_bytes() {
    const MANY: usize = 5000;
    // Two descriptors each, in this process and in the daemon, which inherits this process's limit.
    if testkit::process::raise_descriptor_limit() < 2 * MANY as u64 + 500 {
        println!("skipped: too few descriptors");
        return;
    }
    let daemon = configured(&format!("[limits]\nconnections={}\n", MANY + 10));
    let baseline = Baseline::of(&daemon);
    let held = open_and_check(&daemon, MANY, baseline.rss);
    // The allocator keeps freed memory, which the next connections use.
    baseline.is_restored(&daemon, 32, MANY as u64);
    let again = Baseline::of(&daemon);
    open_and_check(&daemon, MANY, baseline.rss);
    again.is_restored(&daemon, 32, 1024);
    if !emulated() {
        println!("{MANY} connections take {held} kB");
        assert!(held < 4 * MANY as u64, "{held} kB for {MANY} connections");
    }
}

/// Opens `count` connections and sends distinct bytes through each in both directions. Returns the memory in kB.
fn open_and_check(daemon: &Daemon, count: usize, rss_before: u64) -> u64 {
    let device = Device::start(Kind::Manual);
    let open = |_| {
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "NTFY=-1");
        (plugin, accepted(&device))
    };
    let mut pairs: Vec<(Plugin, TcpStream)> = (0..count).map(open).collect();
    for (number, (plugin, remote)) in pairs.iter_mut().enumerate() {
        plugin.send(format!("{number:>8}").as_bytes());
        remote.write_all(format!("{:>8}", count - number).as_bytes()).unwrap();
    }
    for (number, (plugin, remote)) in pairs.iter_mut().enumerate() {
        let mut up = [0; 8];
        remote.read_exact(&mut up).unwrap();
        assert_eq!(up, format!("{number:>8}").as_bytes());
        assert_eq!(plugin.bytes(8), format!("{:>8}", count - number).as_bytes());
        assert!(plugin.is_quiet());
    }
    daemon.memory().rss.saturating_sub(rss_before)
}

#[test]
fn idle_connections_take_no_processor_time() {
    if skipped_under_emulation("processor time is the emulator's") {
        return;
    }
    let daemon = started();
    let _setup: Vec<Plugin> = (0..200).map(|_| daemon.plugin()).collect();
    let _echo: Vec<_> = (0..100).map(|_| echo_mode(&daemon, "RTIM=60000 NTFY=5/s/a")).collect();
    let used = processor_time(&daemon, Duration::from_secs(2));
    assert!(used < Duration::from_millis(50), "{used:?} of processor time in two idle seconds");
}

#[test]
fn garbage_is_refused_without_harm() {
    let daemon = started();
    let (mut other, mut other_remote) = echo_mode(&daemon, "");
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
        let garbage = match seed % 3 {
            0 => {
                let length = random.between(1, 3000) as usize;
                random.bytes(length)
            }
            // Garbage after a valid beginning.
            1 => [&b"CONN 127.0.0.1:9 NTFY="[..], &random.bytes(200), b"\n"].concat(),
            _ => [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], &random.bytes(500)].concat(),
        };
        plugin.send(&garbage);
        plugin.finish();
        read_to_end(plugin.stream());
    }
    other_remote.write_all(b"fine").unwrap();
    assert_eq!(other.bytes(4), b"fine");
    let log = daemon.log_text();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_burst_of_connections_is_served() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for round in 0..20u32 {
                    let mut plugin = daemon.plugin();
                    plugin.conn(device.addr(), "");
                    plugin.send(&round.to_be_bytes());
                    assert_eq!(plugin.bytes(4), round.to_be_bytes());
                }
            });
        }
    });
    assert_eq!(device.accepted(), 320);
    StatClient::new(daemon.addr()).wait_connections(0);
}
