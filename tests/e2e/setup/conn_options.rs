//! The options of CONN and the equivalent commands: which one takes precedence, and how odd values are treated.

use std::io::Write;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};

use crate::support::{StatClient, accepted, both_ways, echo_mode, processor_time, skipped_under_emulation, started};

/// Sends the commands `before`, then CONN to a device. Returns its reply and the plugin's own pid.
#[track_caller]
fn answer(daemon: &Daemon, before: &[&str], options: &str) -> (String, String) {
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    for line in before {
        assert!(plugin.command(line).starts_with("OK "), "{line}");
    }
    (plugin.command(&format!("CONN {} {options}", device.addr())), plugin.pid().to_owned())
}

#[test]
fn the_pid_of_ntfy_replaces_that_of_the_greeting() {
    let daemon = started();
    for (before, options, pid) in [
        (&[][..], "NTFY=5/s/a/mine", Some("mine")),
        (&[], "NTFY=5/s/a/0", Some("0")),
        (&[], "NTFY=-1/s/a/quiet", Some("quiet")),
        (&[], "NTFY=5/s/a/", None),
        (&[], "NTFY=5/s/a", None),
        (&[], "NTFY=5", None),
        (&[], "", None),
        (&[], "NTFY=5/s/a/with%20sign", Some("with%20sign")),
        (&["NTFY 5 s a mine"], "", Some("mine")),
        (&["NTFY 5 s a"], "", None),
        (&["NTFY 5 s a mine"], "NTFY=5/s/a/other", Some("other")),
        (&["NTFY 5 s a mine"], "NTFY=5/s/a", None),
        (&["NTFY 5 s a first", "NTFY 5 s a second"], "", Some("second")),
        (&[], "NTFY=5/s/a/first NTFY=5/s/a/second", Some("second")),
    ] {
        let (answer, own) = answer(&daemon, before, options);
        assert_eq!(answer, format!("OK CONN {}", pid.unwrap_or(&own)), "{before:?} {options}");
    }
}

#[test]
fn plugins_can_share_a_pid() {
    let daemon = started();
    let pairs: Vec<_> = (0..3).map(|_| echo_mode(&daemon, "NTFY=5/s/a/0")).collect();
    assert_eq!(StatClient::new(daemon.addr()).connections().len(), pairs.len());
}

#[test]
fn the_pid_of_ntfy_is_shown_by_stat() {
    let daemon = started();
    let _pair = echo_mode(&daemon, "NTFY=5/svc/act/mine");
    let mut asker = daemon.plugin();
    asker.send(b"STAT\nQUIT\n");
    let table = String::from_utf8(asker.rest()).unwrap();
    assert!(table.contains(" 5/svc/act/mine\n"), "{table}");
}

#[test]
fn bad_numbers_in_options_are_ignored() {
    let daemon = started();
    for options in [
        "RTIM=x BLKS=y PACE=z CTIM=w",
        "RTIM= BLKS= PACE= CTIM=",
        "RTIM=nan BLKS=nan PACE=nan CTIM=nan",
        "RTIM=-5 PACE=-5 NTFY=x/y/z",
        "RTIM=inf PACE=inf CTIM=inf",
        "RTIM=1e300 PACE=1e300 CTIM=1e300",
        "NTFY=",
        "NTFY=/",
        "NTFY=1e400/a/b",
    ] {
        let (mut plugin, mut remote) = echo_mode(&daemon, options);
        remote.write_all(b"fine").unwrap();
        assert_eq!(plugin.bytes(4), b"fine", "{options}");
    }
}

/// The original daemon read 0 bytes in an endless loop.
#[test]
fn odd_block_sizes_pass_everything_without_a_busy_loop() {
    let daemon = started();
    let mut open = Vec::new();
    for block in ["0", "-1", "-inf", "inf", "0.5", "1e-300", "nan", "x", "99999999", "1", "0x10", "65536"] {
        let (plugin, remote) = echo_mode(&daemon, &format!("BLKS={block}"));
        let (stream, _) = plugin.into_stream();
        both_ways(&stream, &remote, 50_000);
        let (mut idle, mut idle_remote) = echo_mode(&daemon, &format!("BLKS={block}"));
        idle_remote.write_all(b"x").unwrap();
        assert_eq!(idle.bytes(1), b"x", "BLKS={block}");
        open.push((idle, idle_remote));
    }
    for block in ["inf", "0.5"] {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&format!("BLKS {block}")), "OK BLKS");
        plugin.conn(device.addr(), "");
        open.push((plugin, accepted(&device)));
    }
    if skipped_under_emulation("processor time is the emulator's") {
        return;
    }
    let used = processor_time(&daemon, Duration::from_secs(1));
    assert!(used < Duration::from_millis(200), "{used:?} of processor time in an idle second");
    drop(open);
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn the_block_size_is_the_largest_datagram_made_from_one_read() {
    let daemon = started();
    let device = testkit::device::UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp BLKS=0x64");
    plugin.send(&[b'x'; 250]);
    let datagrams = device.wait_received(3, crate::support::LIMIT);
    assert_eq!(datagrams.iter().map(|(data, _)| data.len()).sum::<usize>(), 250);
    assert!(
        datagrams.iter().all(|(data, _)| data.len() <= 100),
        "{:?}",
        datagrams.iter().map(|c| c.0.len()).collect::<Vec<_>>()
    );
}
