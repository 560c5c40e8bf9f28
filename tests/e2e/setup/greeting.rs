//! What the proxy says first, to whom, and on which addresses.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use testkit::plugin::Plugin;

use crate::support::{StatClient, daemon, started};

/// 2020-01-01T05:00:00Z, from which classic pids count.
const CLASSIC_EPOCH: u64 = 1_577_854_800;

fn classic_now() -> u64 {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - CLASSIC_EPOCH) / 10
}

#[test]
fn it_is_one_line_byte_for_byte_and_comes_unasked() {
    let daemon = started();
    let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
    let greeting = plugin.line();
    let pid = greeting.strip_prefix("OK TOGGLEDBITS-SOCKPROXY 1 ").unwrap_or_else(|| panic!("{greeting:?}"));
    assert!((1..=8).contains(&pid.len()), "{pid:?}");
    assert!(pid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{pid:?}");
    assert!(!pid.starts_with('0'), "{pid:?}");
    assert!(plugin.is_quiet(), "there is nothing behind the greeting");
}

#[test]
fn pids_are_the_classic_clock_and_unique() {
    let before = classic_now();
    let daemon = started();
    let plugins: Vec<Plugin> = (0..60).map(|_| daemon.plugin()).collect();
    let first = u64::from_str_radix(plugins[0].pid(), 16).unwrap();
    assert!((before..=classic_now()).contains(&first), "{first:x} is not now ({before:x})");
    let different: HashSet<&str> = plugins.iter().map(Plugin::pid).collect();
    assert_eq!(different.len(), plugins.len());
}

#[test]
fn pids_are_not_given_again_after_a_connection_has_gone() {
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
fn a_client_that_speaks_first_is_greeted_first() {
    let daemon = started();
    let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
    plugin.send(b"BILD\n");
    assert!(plugin.line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "));
    assert!(plugin.line().starts_with("OK "));
}

#[test]
fn by_default_every_address_is_listened_on() {
    let daemon = daemon().bare().args(&["-p", "0", "-N", "http://127.0.0.1:9"]).start();
    let port = daemon.port();
    let v4 = Plugin::connect(("127.0.0.1", port));
    Plugin::connect(("127.0.0.2", port));
    let mut stat = StatClient::new(("127.0.0.1", port));
    let shown = stat.connection(v4.pid()).unwrap();
    assert_eq!(shown["client"], "127.0.0.1", "an IPv4 client is shown as one, though the socket speaks IPv6");
    if daemon.addr().is_ipv6() {
        let v6 = Plugin::connect(("::1", port));
        assert_eq!(stat.connection(v6.pid()).unwrap()["client"], "::1");
    } else {
        println!("skipped: this machine has no IPv6");
    }
}

#[test]
fn an_address_that_is_given_is_the_only_one() {
    let daemon = daemon().address("127.0.0.3").start();
    Plugin::connect(("127.0.0.3", daemon.port()));
    assert!(Plugin::connect_raw(("127.0.0.1", daemon.port())).is_err());
}
