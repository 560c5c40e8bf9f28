//! Signals: HUP rereads the configuration, USR1 logs the table of connections, TERM and INT shut down.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind, UdpEcho};
use testkit::plugin::Plugin;
use testkit::ports::{BlackHole, Reserved};
use testkit::websocket::Server;

use crate::support::{
    Answer, LIMIT, NameServer, PID, StatClient, Writer, WsClient, accepted, configured, daemon, echo_mode, ends,
    plugin_from, started, wait_parked, with_luup,
};

/// Writes another configuration, sends HUP, and returns the log line about it.
#[track_caller]
fn reconfigure(daemon: &Daemon, text: &str) -> String {
    std::fs::write(daemon.dir().join("sockproxyd.conf"), text).unwrap();
    let verdict =
        |line: &&String| line.contains("configuration read anew") || line.contains("configuration not changed");
    let before = daemon.log_lines().iter().filter(verdict).count();
    daemon.signal(Signal::SIGHUP);
    crate::support::eventually("the configuration is read", || {
        daemon.log_lines().iter().filter(verdict).nth(before).cloned()
    })
}

#[test]
fn hup_applies_the_access_lists() {
    let daemon = configured("[host]\nallow=127.0.0.1\n");
    assert_eq!(plugin_from("127.0.0.2", daemon.addr()).line(), "ERR ACCESS Not allowed");
    let mut inside = daemon.plugin();
    reconfigure(&daemon, "[host]\nallow=127.0.0.2\nstop=127.0.0.3\n");
    assert!(plugin_from("127.0.0.2", daemon.addr()).line().starts_with("OK "));
    assert_eq!(plugin_from("127.0.0.1", daemon.addr()).line(), "ERR ACCESS Not allowed");
    assert!(inside.command("CAPA").starts_with("OK CAPA"), "open connections stay");
    assert_eq!(inside.command("STOP"), "ERR STOP Not allowed");
}

#[test]
fn hup_applies_limits() {
    let daemon = configured("");
    let mut quiet = daemon.plugin();
    reconfigure(&daemon, "[limits]\nsetup=0.3\nconnections=2\n");
    assert!(quiet.at_end(), "the shorter timeout does not apply");
    let hole = BlackHole::new().unwrap();
    reconfigure(&daemon, "[limits]\nconnect=200\nconnections=1\n");
    let mut plugin = daemon.plugin();
    assert_eq!(Plugin::connect_raw(daemon.addr()).unwrap().line(), "ERR ACCESS Too many connections");
    assert_eq!(plugin.command(&format!("CONN {}", hole.addr())), "ERR CONN timeout");
}

/// Regression: during shutdown due timers were not run, which made a busy loop.
#[test]
fn shutdown_has_no_busy_loop() {
    let mut daemon = started();
    let _held: Vec<_> = (0..5).map(|_| echo_mode(&daemon, "RTIM=300")).collect();
    let before = daemon.cpu_time();
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("STOP"), "OK STOP");
    let mut after = before;
    let start = Instant::now();
    while daemon.wait_exit(Duration::from_millis(10)).is_none() {
        after = testkit::process::cpu_time(daemon.pid()).unwrap_or(after);
        assert!(start.elapsed() < LIMIT);
    }
    let (lasted, busy) = (start.elapsed(), after - before);
    assert!(lasted > Duration::from_millis(500), "shutdown does not wait for an open client: {lasted:?}");
    assert!(busy < Duration::from_millis(150), "{busy:?} of {lasted:?}");
}

#[test]
fn hup_changes_direct_listeners_and_keeps_connections() {
    let (one, two) = (Device::start(Kind::Manual), Device::start(Kind::Manual));
    let ports: Vec<Reserved> = (0..3).map(|_| Reserved::new().unwrap()).collect();
    let spec = |port: &Reserved, device: &Device| format!("{}=CONN {}\n", port.port(), device.addr());
    let config = format!("[direct]\n{}{}", spec(&ports[0], &one), spec(&ports[1], &one));
    let daemon = daemon().config(&config).listeners(3).start();
    let (mut plugin, mut plugin_remote) = echo_mode(&daemon, "");
    let open = |port: &Reserved, device: &Device| {
        (Plugin::connect_raw(port.addr()).expect("a direct listener"), accepted(device))
    };
    let mut before = [open(&ports[0], &one), open(&ports[1], &one)];

    // The first listener changes its target, the second is removed, a third is added.
    let line = reconfigure(&daemon, &format!("[direct]\n{}{}", spec(&ports[0], &two), spec(&ports[2], &one)));
    assert!(line.contains("read anew"), "{line}");
    assert!(Plugin::connect_raw(ports[1].addr()).is_err(), "the port is still open");
    let mut after = [open(&ports[0], &two), open(&ports[2], &one)];

    for (client, remote) in before.iter_mut().chain(&mut after) {
        remote.write_all(b"alive").unwrap();
        assert_eq!(client.bytes(5), b"alive");
    }
    plugin_remote.write_all(b"alive").unwrap();
    assert_eq!(plugin.bytes(5), b"alive");
    assert_eq!(StatClient::new(daemon.addr()).status()["listeners"].as_array().unwrap().len(), 3);
}

#[test]
fn hup_with_a_bad_configuration_changes_nothing_and_logs_the_error() {
    let daemon = configured("[host]\nallow=127.0.0.1\n");
    let line = reconfigure(&daemon, "[host]\nallow=127.0.0.2\nport=x\n");
    assert!(line.contains("not changed") && line.contains("sockproxyd.conf:3: "), "{line}");
    assert!(plugin_from("127.0.0.1", daemon.addr()).line().starts_with("OK "));
    std::fs::remove_file(daemon.dir().join("sockproxyd.conf")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(LIMIT, |line| line.contains("not changed") && line.contains("No such file"));
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

/// Regression: reading a FIFO that no process writes to blocked the loop.
#[test]
fn hup_does_not_wait_for_a_fifo() {
    let daemon = configured("[host]\nallow=127.0.0.1\n");
    let file = daemon.dir().join("sockproxyd.conf");
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(LIMIT, |line| line.contains("not changed") && line.contains("not a regular file"));
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
    assert_eq!(plugin_from("127.0.0.2", daemon.addr()).line(), "ERR ACCESS Not allowed");
}

/// Regression: for a new direct listener the loop waited for the name server to answer for the name in `ip`.
#[test]
fn hup_looks_no_name_up() {
    let Some(server) = NameServer::start() else { return };
    server.set_addresses("here.example", &["127.0.0.1"]);
    let config = "[host]\nip=here.example\nport=0\nvera=http://127.0.0.1:9\n";
    let daemon = server.daemon().bare().config(config).start();
    server.set("here.example", Answer::Silence);
    let (device, port) = (Device::start(Kind::Echo), Reserved::new().unwrap());
    let line = reconfigure(&daemon, &format!("{config}[direct]\n{}=CONN {}\n", port.port(), device.addr()));
    assert!(line.contains("read anew"), "{line}");
    let mut client = Plugin::connect_raw(port.addr()).unwrap();
    client.send(b"hello");
    assert_eq!(client.bytes(5), b"hello");
}

#[test]
fn hup_with_a_direct_port_in_use_logs_that_and_goes_on() {
    let daemon = configured("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    reconfigure(&daemon, &format!("[host]\nallow=127.0.0.1\n[direct]\n{port}=CONN 127.0.0.1:1\n"));
    daemon.wait_for_log(LIMIT, |line| line.contains(&port.to_string()) && line.contains("in use"));
    assert_eq!(
        plugin_from("127.0.0.2", daemon.addr()).line(),
        "ERR ACCESS Not allowed",
        "the rest of the configuration does not apply"
    );
}

#[test]
fn hup_logs_settings_that_need_a_restart() {
    let daemon = daemon().bare().config("[host]\nip=127.0.0.1\nport=0\nvera=http://127.0.0.1:9\n").start();
    reconfigure(&daemon, "[host]\nip=127.0.0.2\nport=1\nvera=http://127.0.0.1:10\n");
    daemon.wait_for_log(LIMIT, |line| line.contains("restart"));
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

#[test]
fn many_hups_in_a_row_do_no_harm() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    for _ in 0..200 {
        daemon.signal(Signal::SIGHUP);
        daemon.signal(Signal::SIGUSR1);
    }
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    daemon.wait_for_log(LIMIT, |line| line.contains("read anew"));
}

#[test]
fn usr1_logs_the_table() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "NTFY=5/svc/act/mine");
    let target = remote.local_addr().unwrap().to_string();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log(LIMIT, |line| line.contains("Client") && line.contains("#recv"));
    let row = daemon.wait_for_log(LIMIT, |line| line.contains("5/svc/act/mine"));
    assert!(row.contains(plugin.pid()) && row.contains(&target), "{row}");
}

#[test]
fn term_and_int_end_the_daemon_in_time_in_any_state() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (luup, mut daemon) = with_luup("");
        luup.set_behaviour(testkit::luup::Behaviour::Hang);
        let mut setup = daemon.plugin();
        let hole = BlackHole::new().unwrap();
        let mut connecting = daemon.plugin();
        connecting.send(format!("CONN {} CTIM=600000\n", hole.addr()).as_bytes());
        let (mut idle, idle_remote) = echo_mode(&daemon, "NTFY=5/s/a/p EVNT=on");
        let (full, full_remote) = echo_mode(&daemon, "");
        Writer::new(&full_remote, 1).write_until_blocked();
        Writer::new(full.stream(), 2).write_until_blocked();
        assert!(luup.wait_in_flight(1, LIMIT));
        let start = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait_exit(LIMIT).expect("the daemon exits");
        assert_eq!(status.code(), Some(0), "{signal}");
        // Two seconds, plus time for a loaded machine.
        assert!(start.elapsed() < Duration::from_secs(4), "{signal}: {:?}", start.elapsed());
        assert!(setup.at_end() && connecting.at_end() && idle.at_end() && ends(&idle_remote));
    }
}

#[test]
fn term_without_connections_ends_at_once() {
    let mut daemon = started();
    let _pairs: Vec<_> = (0..5).map(|_| echo_mode(&daemon, "")).collect();
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT).unwrap().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_closed_pipe_on_standard_error_does_not_end_the_daemon() {
    let daemon = started();
    daemon.signal(Signal::SIGPIPE);
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

/// Regression: connections over tcp and udp, kept ones, those whose remote is lost, and WebSockets that take too long to
/// end had no line.
#[test]
fn at_the_end_each_connection_in_echo_mode_has_its_line() {
    let (device, silent) =
        (Device::start(Kind::Manual), Server::start(|mut peer| peer.upgrade().and_then(|_| peer.rest()).map(drop)));
    let (served, udp) = (Reserved::new().unwrap(), UdpEcho::start());
    let config = format!("[serve]\n{}=CONN {}\n", served.port(), device.addr());
    let mut daemon = daemon().config(&config).listeners(2).start();
    let mut targets = Vec::new();
    let mut connect = |target: String, options: &str| {
        let mut plugin = daemon.plugin();
        plugin.conn(&target, options);
        targets.push((plugin.pid().to_owned(), target));
        plugin
    };
    let address = device.addr().to_string();
    let _plain = (connect(address.clone(), ""), accepted(&device));
    let _datagrams = connect(udp.addr().to_string(), "PRTO=udp");
    drop(connect(address.clone(), &format!("KEEP=60 NTFY=5/s/a/{PID}")));
    let _kept = accepted(&device);
    let _mute = connect(silent.url("/"), "");
    let _lost = connect(address, "HEAL=60");
    let lost = accepted(&device);
    let mut browser = WsClient::request(served.addr(), "/", &[]);
    let _served = (browser.upgraded(), accepted(&device));
    wait_parked(&daemon);
    drop(lost);
    daemon.wait_for_log(LIMIT, |line| line.contains("connecting again"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit(LIMIT).is_some());
    daemon.wait_for_log(LIMIT, |line| line.ends_with(" ended"));
    let log = daemon.log_lines().join("\n");
    for (pid, target) in targets {
        let ends = log.lines().filter(|line| line.contains(&format!(" {pid} closed: "))).count();
        assert_eq!(ends, 1, "{target}: {log}");
    }
    assert_eq!(log.lines().filter(|line| line.contains(" closed: ")).count(), 6, "with the browser's: {log}");
}
