//! PACE: the first notification is sent at once, later ones at the pace, and the last of a burst always.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use testkit::device::{Device, Kind};
use testkit::luup::Request;
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, accepted, echo_mode, stays_quiet, with_luup};

/// Tolerance between sending a request and seeing it, for a loaded machine.
const SLACK: Duration = Duration::from_millis(400);

/// Sends data, which the plugin reads.
fn transfer(plugin: &mut Plugin, mut remote: &TcpStream) {
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
}

fn interval(requests: &[Request], at: usize) -> Duration {
    requests[at].arrival - requests[at - 1].arrival + SLACK
}

#[test]
fn the_first_is_sent_at_once_and_the_last_of_a_burst_at_the_pace() {
    let (luup, daemon) = with_luup("");
    for (before, options) in [("", "PACE=2"), ("PACE 2\n", ""), ("PACE 99\n", "PACE=99 PACE=2")] {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        plugin.send(format!("{before}CONN {} NTFY=5/s/a/p {options}\n", device.addr()).as_bytes());
        let remote = accepted(&device);
        while !plugin.line().starts_with("OK CONN") {}
        luup.clear_requests();
        transfer(&mut plugin, &remote);
        luup.wait_for(1, Duration::from_millis(1900));
        for _ in 0..5 {
            transfer(&mut plugin, &remote);
        }
        // The last of the burst is sent without a further event.
        let requests = luup.wait_for(2, LIMIT);
        assert!(interval(&requests, 1) >= Duration::from_secs(2), "{:?}", interval(&requests, 1));
        drop(remote);
        let requests = luup.wait_for(3, LIMIT);
        assert_eq!(requests.len(), 3, "more than one request for the burst: {requests:#?}");
    }
}

#[test]
fn after_a_pause_the_next_is_sent_at_once() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=1");
    transfer(&mut plugin, &remote);
    luup.wait_for(1, LIMIT);
    assert!(stays_quiet(&remote, Duration::from_millis(1500)));
    assert_eq!(luup.count(), 1, "a notification without data");
    let start = std::time::Instant::now();
    transfer(&mut plugin, &remote);
    let requests = luup.wait_for(2, LIMIT);
    assert!(requests[1].arrival - start < Duration::from_millis(900), "{:?}", requests[1].arrival - start);
}

#[test]
fn closing_notices_ignore_the_pace() {
    let (luup, daemon) = with_luup("");
    for remote_ends in [true, false] {
        luup.clear_requests();
        let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=600 EVNT=on");
        transfer(&mut plugin, &remote);
        luup.wait_for(2, LIMIT);
        transfer(&mut plugin, &remote);
        if remote_ends {
            drop(remote);
            assert!(plugin.at_end());
        } else {
            drop(plugin);
        }
        let requests = luup.wait_for(3, LIMIT);
        assert_eq!(requests[2].event(), Some("closed"), "the closing notice stands for the waiting data, too");
        StatClient::new(daemon.addr()).wait_notified();
        assert_eq!(luup.count(), 3);
    }
}

#[test]
fn the_connected_event_does_not_count_for_the_pace() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=600 EVNT=on");
    luup.wait_for(1, LIMIT);
    transfer(&mut plugin, &remote);
    let requests = luup.wait_for(2, LIMIT);
    let events: Vec<_> = requests.iter().map(Request::event).collect();
    assert_eq!(events, [Some("connected"), Some("data")]);
}

#[test]
fn the_pace_applies_to_each_connection_of_a_device_separately() {
    let (luup, daemon) = with_luup("");
    let (mut paced, paced_remote) = echo_mode(&daemon, "NTFY=5/s/a/paced PACE=600");
    transfer(&mut paced, &paced_remote);
    luup.wait_for(1, LIMIT);
    transfer(&mut paced, &paced_remote);
    let (mut free, free_remote) = echo_mode(&daemon, "NTFY=5/s/a/free");
    for count in 2..6 {
        transfer(&mut free, &free_remote);
        let requests = luup.wait_for(count, LIMIT);
        assert_eq!(requests[count - 1].pid(), "free");
    }
}

#[test]
fn without_pace_every_event_is_sent_at_once() {
    let (luup, daemon) = with_luup("");
    for options in ["PACE=0", "PACE=-1", "PACE=inf", "PACE=x", "PACE=600 PACE=0"] {
        luup.clear_requests();
        let (mut plugin, remote) = echo_mode(&daemon, &format!("NTFY=5/s/a/p {options}"));
        for count in 1..4 {
            transfer(&mut plugin, &remote);
            luup.wait_for(count, LIMIT);
        }
    }
}
