//! The greeting, its pid, and the addresses that the daemon listens on.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use testkit::plugin::Plugin;

use crate::support::{StatClient, daemon, started};

/// 2020-01-01T05:00:00Z, the origin of the original daemon's pids.
const PID_EPOCH: u64 = 1_577_854_800;

fn pid_now() -> u64 {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - PID_EPOCH) / 10
}

#[test]
fn the_greeting_is_one_exact_line() {
    let daemon = started();
    let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
    let greeting = plugin.line();
    let pid = greeting.strip_prefix("OK TOGGLEDBITS-SOCKPROXY 1 ").unwrap_or_else(|| panic!("{greeting:?}"));
    assert!((1..=8).contains(&pid.len()), "{pid:?}");
    assert!(pid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{pid:?}");
    assert!(!pid.starts_with('0'), "{pid:?}");
    assert!(plugin.is_quiet(), "no bytes follow the greeting");
}

#[test]
fn pids_count_from_the_original_epoch_and_are_unique() {
    let before = pid_now();
    let daemon = started();
    let plugins: Vec<Plugin> = (0..60).map(|_| daemon.plugin()).collect();
    let first = u64::from_str_radix(plugins[0].pid(), 16).unwrap();
    assert!((before..=pid_now()).contains(&first), "{first:x} is not now ({before:x})");
    let different: HashSet<&str> = plugins.iter().map(Plugin::pid).collect();
    assert_eq!(different.len(), plugins.len());
}

#[test]
fn the_pid_of_a_closed_connection_is_not_reused() {
    let daemon = started();
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let mut plugin = daemon.plugin();
        assert!(seen.insert(plugin.pid().to_owned()), "{} twice", plugin.pid());
        assert_eq!(plugin.command("QUIT"), "OK QUIT");
        assert!(plugin.at_end());
    }
}

#[test]
fn the_greeting_comes_first_even_if_the_client_sends_first() {
    let daemon = started();
    let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
    plugin.send(b"BILD\n");
    assert!(plugin.line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "));
    assert!(plugin.line().starts_with("OK "));
}

#[test]
fn the_daemon_listens_on_all_addresses_by_default() {
    let daemon = daemon().bare().args(&["-p", "0", "-N", "http://127.0.0.1:9"]).start();
    let port = daemon.port();
    let v4 = Plugin::connect(("127.0.0.1", port));
    Plugin::connect(("127.0.0.2", port));
    let mut stat = StatClient::new(("127.0.0.1", port));
    let shown = stat.connection(v4.pid()).unwrap();
    assert_eq!(shown["client"], "127.0.0.1", "an IPv4 client of an IPv6 socket has its IPv4 address");
    if daemon.addr().is_ipv6() {
        let v6 = Plugin::connect(("::1", port));
        assert_eq!(stat.connection(v6.pid()).unwrap()["client"], "::1");
    } else {
        println!("skipped: this machine has no IPv6");
    }
}

#[test]
fn a_configured_address_is_the_only_one() {
    let daemon = daemon().address("127.0.0.3").start();
    Plugin::connect(("127.0.0.3", daemon.port()));
    assert!(Plugin::connect_raw(("127.0.0.1", daemon.port())).is_err());
}
