//! Setup mode, and resources of the daemon.

use std::time::Duration;

use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::Reserved;

use crate::support::{
    LIMIT, accepted, configured, daemon, echo_mode, ends, plugin_from, processor_time, skipped_under_emulation, started,
};

#[test]
fn several_commands_in_one_packet_are_all_answered() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    plugin.send(b"RTIM 1000\nPACE 1\nBILD\nQUIT\n");
    let answers = String::from_utf8(plugin.rest()).unwrap();
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3], lines.len()), ("OK RTIM", "OK PACE", "OK QUIT", 4), "{lines:?}");
}

#[test]
fn bytes_behind_conn_are_not_lost() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    for behind in ["hello", "hello\n"] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {}\n{behind}", device.addr()).as_bytes());
        assert!(plugin.line().starts_with("OK CONN "));
        assert_eq!(plugin.bytes(behind.len()), behind.as_bytes());
    }
}

#[test]
fn a_bad_pace_is_answered() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("PACE soon"), "ERR PACE Invalid pace");
    assert!(plugin.at_end());
}

#[test]
fn lower_case_and_several_blanks_are_accepted() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("rtim 0"), "OK RTIM");
    let answer = plugin.command(&format!("conn   {}   RTIM=0    BLKS=100", device.addr()));
    assert!(answer.starts_with("OK CONN "), "{answer}");
}

#[test]
fn a_line_without_end_is_refused() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    plugin.send(&[b'x'; 100_000]);
    assert_eq!(plugin.line(), "ERR INVALID COMMAND");
}

#[test]
fn odd_block_sizes_do_not_spin() {
    if skipped_under_emulation("processor time is the emulator's") {
        return;
    }
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut open = Vec::new();
    for (before, options) in [("BLKS inf\n", ""), ("BLKS 0.5\n", ""), ("", "BLKS=0")] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("{before}CONN {} {options}\n", device.addr()).as_bytes());
        while !plugin.line().starts_with("OK CONN") {}
        plugin.send(b"x");
        open.push((plugin, accepted(&device)));
    }
    let used = processor_time(&daemon, Duration::from_secs(1));
    assert!(used < Duration::from_millis(200), "{used:?} of processor time in a second");
}

#[test]
fn a_block_size_below_zero_does_not_close() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "BLKS=-1");
    std::io::Write::write_all(&mut remote, b"hello").unwrap();
    assert_eq!(plugin.bytes(5), b"hello");
}

#[test]
fn six_hundred_connections_do_not_end_the_daemon() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugins: Vec<Plugin> = (0..600).map(|_| daemon.plugin()).collect();
    for plugin in &mut plugins {
        plugin.conn(device.addr(), "");
    }
    assert!(device.wait_accepted(plugins.len(), LIMIT));
    assert_eq!(device.push(b"hello"), plugins.len());
    assert!(plugins.iter_mut().all(|plugin| plugin.bytes(5) == b"hello"));
}

#[test]
fn stat_shows_sane_times_in_a_sane_order() {
    let daemon = started();
    let mut plugins: Vec<Plugin> = (0..9).map(|_| daemon.plugin()).collect();
    let device = Device::start(Kind::Echo);
    let mut talking = daemon.plugin();
    talking.conn(device.addr(), "");
    talking.send(b"x");
    talking.bytes(1);
    plugins[0].send(b"STAT\nQUIT\n");
    let table = String::from_utf8(plugins[0].rest()).unwrap();
    let rows: Vec<&str> = table.lines().skip(1).filter(|line| line.contains("127.0.0.1")).collect();
    let pids: Vec<&str> = rows.iter().map(|row| row[1..].split(' ').next().unwrap()).collect();
    let expected: Vec<&str> = plugins.iter().chain([&talking]).map(Plugin::pid).collect();
    assert_eq!(pids, expected, "in order of arrival");
    assert!(!table.contains("-1m59") && !table.contains(" -"), "{table}");
}

#[test]
fn direct_as_documented_works() {
    let device = Device::start(Kind::Echo);
    let port = Reserved::new().unwrap();
    let config = format!("[direct]\n{}=CONN {}\n", port.port(), device.addr());
    let _daemon = daemon().config(&config).listeners(2).start();
    let mut client = Plugin::connect_raw(port.addr()).unwrap();
    client.send(b"hello");
    assert_eq!(client.bytes(5), b"hello");
}

#[test]
fn an_ipv6_address_is_a_target() {
    let daemon = started();
    let Some(device) = Device::start_v6(Kind::Silent) else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    daemon.plugin().conn(device.addr(), "");
}

#[test]
fn stop_can_be_restricted() {
    let mut daemon = configured("[host]\nstop=127.0.0.1\n");
    let mut other = plugin_from("127.0.0.2", daemon.addr());
    other.line();
    assert!(other.command("STOP").starts_with("ERR STOP "));
    assert_eq!(daemon.plugin().command("STOP"), "OK STOP");
    assert!(daemon.wait_exit(LIMIT).is_some());
}

#[test]
fn the_port_is_free_after_a_restart() {
    let port = Reserved::new().unwrap();
    for _ in 0..2 {
        let mut daemon = daemon().port(port.port()).start();
        let (mut plugin, remote) = echo_mode(&daemon, "");
        assert_eq!(daemon.plugin().command("STOP"), "OK STOP");
        assert!(daemon.wait_exit(LIMIT).is_some() && plugin.at_end() && ends(&remote));
    }
}
