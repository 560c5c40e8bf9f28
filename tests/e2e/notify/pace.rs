//! PACE: the first notification goes at once, the next when its time has come, the last of a burst always.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use testkit::device::{Device, Kind};
use testkit::luup::Request;
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, accepted, echo_mode, stays_quiet, with_luup};

/// The arrival of a request may be seen a little later than it was sent; on a loaded machine, some more than a little.
const SLACK: Duration = Duration::from_millis(400);

/// Data that has reached the plugin.
fn news(plugin: &mut Plugin, mut remote: &TcpStream) {
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
}

fn apart(requests: &[Request], at: usize) -> Duration {
    requests[at].arrival - requests[at - 1].arrival + SLACK
}

#[test]
fn the_first_goes_at_once_and_the_last_of_a_burst_when_its_time_has_come() {
    let (luup, daemon) = with_luup("");
    for (before, options) in [("", "PACE=2"), ("PACE 2\n", ""), ("PACE 99\n", "PACE=99 PACE=2")] {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        plugin.send(format!("{before}CONN {} NTFY=5/s/a/p {options}\n", device.addr()).as_bytes());
        let remote = accepted(&device);
        while !plugin.line().starts_with("OK CONN") {}
        luup.clear_requests();
        news(&mut plugin, &remote);
        luup.wait_for(1, Duration::from_millis(1900));
        for _ in 0..5 {
            news(&mut plugin, &remote);
        }
        // The last of the burst is told without anything more coming.
        let requests = luup.wait_for(2, LIMIT);
        assert!(apart(&requests, 1) >= Duration::from_secs(2), "{:?}", apart(&requests, 1));
        drop(remote);
        let requests = luup.wait_for(3, LIMIT);
        assert_eq!(requests.len(), 3, "the burst was told once: {requests:#?}");
    }
}

#[test]
fn after_a_pause_the_next_goes_at_once() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=1");
    news(&mut plugin, &remote);
    luup.wait_for(1, LIMIT);
    assert!(stays_quiet(&remote, Duration::from_millis(1500)));
    assert_eq!(luup.count(), 1, "nothing came, nothing is told");
    let start = std::time::Instant::now();
    news(&mut plugin, &remote);
    let requests = luup.wait_for(2, LIMIT);
    assert!(requests[1].arrival - start < Duration::from_millis(900), "{:?}", requests[1].arrival - start);
}

#[test]
fn the_end_ignores_the_pace() {
    let (luup, daemon) = with_luup("");
    for remote_ends in [true, false] {
        luup.clear_requests();
        let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=600 EVNT=on");
        news(&mut plugin, &remote);
        luup.wait_for(2, LIMIT);
        news(&mut plugin, &remote);
        if remote_ends {
            drop(remote);
            assert!(plugin.at_end());
        } else {
            drop(plugin);
        }
        let requests = luup.wait_for(3, LIMIT);
        assert_eq!(requests[2].event(), Some("closed"), "it tells of the data that waited, too");
        StatClient::new(daemon.addr()).wait_notified();
        assert_eq!(luup.count(), 3);
    }
}

#[test]
fn connected_does_not_use_up_the_pace() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p PACE=600 EVNT=on");
    luup.wait_for(1, LIMIT);
    news(&mut plugin, &remote);
    let requests = luup.wait_for(2, LIMIT);
    let events: Vec<_> = requests.iter().map(Request::event).collect();
    assert_eq!(events, [Some("connected"), Some("data")]);
}

#[test]
fn the_pace_of_one_connection_holds_up_no_other_of_its_device() {
    let (luup, daemon) = with_luup("");
    let (mut paced, paced_remote) = echo_mode(&daemon, "NTFY=5/s/a/paced PACE=600");
    news(&mut paced, &paced_remote);
    luup.wait_for(1, LIMIT);
    news(&mut paced, &paced_remote);
    let (mut free, free_remote) = echo_mode(&daemon, "NTFY=5/s/a/free");
    for count in 2..6 {
        news(&mut free, &free_remote);
        let requests = luup.wait_for(count, LIMIT);
        assert_eq!(requests[count - 1].pid(), "free");
    }
}

#[test]
fn no_pace_is_no_pace() {
    let (luup, daemon) = with_luup("");
    for options in ["PACE=0", "PACE=-1", "PACE=inf", "PACE=x", "PACE=600 PACE=0"] {
        luup.clear_requests();
        let (mut plugin, remote) = echo_mode(&daemon, &format!("NTFY=5/s/a/p {options}"));
        for count in 1..4 {
            news(&mut plugin, &remote);
            luup.wait_for(count, LIMIT);
        }
    }
}
