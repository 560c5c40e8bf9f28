//! Failures of Luup: it hangs, is slow, answers errors, stops and restarts. No last notification is lost, and one
//! device that hangs delays no other.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::luup::{Behaviour, Luup, Request};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, echo_mode, emulator_mixes_up_errors, wait_quietly, with_luup};

/// Short timeouts, so that failures are noticed soon.
const IMPATIENT: &str = "[limits]\nanswer=500\n";

/// Connections whose plugins are notified of all events.
struct Connections {
    pairs: Vec<(Plugin, TcpStream)>,
}

impl Connections {
    /// Opens `count` connections for devices 1, 2, ..., with pids `p1`, `p2`, ...
    fn open(daemon: &Daemon, count: usize) -> Connections {
        let pair = |n| echo_mode(daemon, &format!("NTFY={n}/svc/act/p{n} EVNT=on"));
        Connections { pairs: (1..=count).map(pair).collect() }
    }

    /// Every remote sends something, and every plugin reads it.
    fn transfer(&mut self) {
        for (plugin, remote) in &mut self.pairs {
            remote.write_all(b"x").unwrap();
            assert_eq!(plugin.bytes(1), b"x");
        }
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }
}

/// The pids with a notification of this event.
fn notified_pids(requests: &[Request], event: &str) -> HashSet<String> {
    requests.iter().filter(|request| request.event() == Some(event)).map(|request| request.pid().to_owned()).collect()
}

/// Waits until Luup has notifications of `event` for `count` pids.
#[track_caller]
fn wait_notified(luup: &Luup, event: &str, count: usize) {
    let enough = luup.wait_until(2 * LIMIT, |requests| notified_pids(requests, event).len() >= count);
    if let Err(requests) = enough {
        panic!("{event} was notified to {} of {count} plugins", notified_pids(&requests, event).len());
    }
}

/// Makes Luup fail with `begin` while connections open, transfer data and close, then lets it recover with `end`. The
/// close of each connection must be notified.
#[track_caller]
fn every_last_notification_arrives(config: &str, begin: impl Fn(&Luup), end: impl Fn(&Luup)) {
    let (luup, daemon) = with_luup(config);
    begin(&luup);
    let mut connections = Connections::open(&daemon, 25);
    connections.transfer();
    let count = connections.len();
    drop(connections);
    StatClient::new(daemon.addr()).wait_connections(0);
    luup.clear_requests();
    end(&luup);
    wait_notified(&luup, "closed", count);
    StatClient::new(daemon.addr()).wait_notified();
}

/// Checks that the connection of another device is notified without delay.
#[track_caller]
fn another_device_is_notified_at_once(luup: &Luup, daemon: &Daemon) {
    let (mut plugin, mut remote) = echo_mode(daemon, "NTFY=99/svc/act/free");
    let mut best = LIMIT;
    for count in 1..=10 {
        let start = Instant::now();
        remote.write_all(b"x").unwrap();
        let free = |requests: &[Request]| requests.iter().filter(|request| request.pid() == "free").count();
        luup.wait_until(LIMIT, |requests| free(requests) >= count).expect("notifications of the other device");
        best = best.min(start.elapsed());
        assert_eq!(plugin.bytes(1), b"x");
    }
    assert!(best < Duration::from_millis(300), "the best of ten took {best:?}");
}

#[test]
fn luup_is_down_and_comes_back() {
    every_last_notification_arrives("", Luup::down, Luup::up);
}

#[test]
fn luup_answers_500() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Status(500, "oops".into()));
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_answers_503() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Status(503, "ERROR: starting".into()));
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_answers_errors_while_it_starts() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Error("Invalid Service".into()));
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_hangs() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Hang);
    every_last_notification_arrives(IMPATIENT, trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_closes_without_an_answer() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::CloseWithoutAnswer);
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_is_slow() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Slow(Duration::from_millis(300)));
    every_last_notification_arrives("", trouble, |_| {});
}

#[test]
fn luup_restarts_repeatedly() {
    let (luup, daemon) = with_luup("");
    let mut connections = Connections::open(&daemon, 25);
    for _ in 0..4 {
        luup.down();
        connections.transfer();
        luup.clear_requests();
        luup.up();
        wait_notified(&luup, "data", connections.len());
    }
    luup.clear_requests();
    luup.down();
    let count = connections.len();
    drop(connections);
    luup.up();
    wait_notified(&luup, "closed", count);
}

#[test]
fn data_that_arrives_during_an_outage_is_notified_after_it() {
    if emulator_mixes_up_errors() {
        println!("skipped: this emulator does not report refused connections");
        return;
    }
    let (luup, daemon) = with_luup("");
    let mut connections = Connections::open(&daemon, 1);
    connections.transfer();
    wait_notified(&luup, "data", 1);
    luup.down();
    connections.transfer();
    // The daemon must have noticed the outage first, since data behind a request in flight is notified anyway.
    daemon.wait_for_log(LIMIT, |line| line.contains("cannot be reached"));
    connections.transfer();
    luup.clear_requests();
    luup.up();
    wait_notified(&luup, "data", 1);
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(luup.count(), 1, "notified twice after an outage");
}

#[test]
fn a_luup_that_is_down_is_retried_at_intervals() {
    if emulator_mixes_up_errors() {
        println!("skipped: this emulator does not report refused connections");
        return;
    }
    let (luup, daemon) = with_luup("");
    luup.down();
    let mut connections = Connections::open(&daemon, 25);
    connections.transfer();
    let mut stat = StatClient::new(daemon.addr());
    let sent = |stat: &mut StatClient| stat.status()["notifications"]["sent"].as_u64().unwrap();
    let before = sent(&mut stat);
    wait_quietly(&daemon, Duration::from_secs(2));
    let asked = sent(&mut stat) - before;
    assert!((1..=20).contains(&asked), "{asked} requests in 2 s to a Luup that is down");
    let warnings = daemon.log_lines().iter().filter(|line| line.contains("cannot be reached")).count();
    assert_eq!(warnings, 1, "an outage is logged once");
}

#[test]
fn one_device_that_hangs_delays_no_other() {
    let (luup, daemon) = with_luup("");
    luup.set_device(1, Behaviour::Hang);
    // More connections of the hanging device than there are senders.
    let hanging: Vec<_> = (0..40).map(|n| echo_mode(&daemon, &format!("NTFY=1/svc/act/h{n}"))).collect();
    for (_, remote) in &hanging {
        (&mut &*remote).write_all(b"x").unwrap();
    }
    assert!(luup.wait_in_flight(1, LIMIT));
    another_device_is_notified_at_once(&luup, &daemon);
    assert_eq!(luup.max_concurrent(1), 1);
}

#[test]
fn more_hanging_devices_than_senders_delay_others_only_briefly() {
    let (luup, daemon) = with_luup(IMPATIENT);
    (1..=40).for_each(|device| luup.set_device(device, Behaviour::Hang));
    let mut connections = Connections::open(&daemon, 40);
    connections.transfer();
    // Each of them has timed out at least once.
    luup.wait_until(2 * LIMIT, |requests| requests.len() >= 80).expect("hanging devices are retried");
    another_device_is_notified_at_once(&luup, &daemon);
}

#[test]
fn a_refusal_is_logged_once_and_not_repeated() {
    for status in [401, 404, 501] {
        let (luup, daemon) = with_luup("");
        luup.set_behaviour(Behaviour::Status(status, "no".into()));
        let mut connections = Connections::open(&daemon, 2);
        wait_notified(&luup, "connected", 2);
        connections.transfer();
        wait_notified(&luup, "data", 2);
        connections.transfer();
        let mut stat = StatClient::new(daemon.addr());
        stat.wait_notified();
        // Each event is one request, which is not repeated after a refusal.
        assert_eq!(luup.count(), 6, "status {status}");
        let log = daemon.complete_log_text();
        assert_eq!(log.matches(&format!("status {status}:")).count(), 2, "one line for each connection:\n{log}");
        assert!(log.contains("DeviceNum=1&serviceId=svc&action=act&Pid=p1"), "{log}");
        // Another connection for the same action is not logged.
        let _another = Connections::open(&daemon, 1);
        luup.wait_for(7, LIMIT);
        stat.wait_notified();
        let log = daemon.complete_log_text();
        assert_eq!(log.matches("given up").count(), 2, "one line for each target:\n{log}");
        // A plugin that is installed meanwhile is notified.
        luup.set_behaviour(Behaviour::Ok);
        luup.clear_requests();
        connections.transfer();
        wait_notified(&luup, "data", 2);
        assert_eq!(stat.status()["notifications"]["failed"], 7);
    }
}

#[test]
fn an_error_body_is_given_up_after_about_a_minute_and_logged_once() {
    let (luup, daemon) = with_luup("");
    luup.set_device(1, Behaviour::Error("No implementation".into()));
    let start = Instant::now();
    let mut connections = Connections::open(&daemon, 1);
    connections.transfer();
    let log = daemon.wait_for_log(Duration::from_secs(120), |line| line.contains("ERROR body"));
    assert!((50..100).contains(&start.elapsed().as_secs()), "after {:?}", start.elapsed());
    assert!(log.contains("DeviceNum=1&serviceId=svc&action=act&Pid=p1"), "{log}");
    let count = luup.count();
    assert!((8..60).contains(&count), "{count} requests in a minute");
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(daemon.log_text().matches("ERROR body").count(), 1, "{}", daemon.log_text());
}

#[test]
fn an_odd_answer_delays_no_notification() {
    let (luup, daemon) = with_luup("");
    for odd in [
        Behaviour::Status(204, String::new()),
        Behaviour::Status(302, "elsewhere".into()),
        Behaviour::Status(200, "x".repeat(3_000_000)),
        Behaviour::Status(200, String::new()),
        Behaviour::Status(599, "?".into()),
    ] {
        luup.push_next(odd.clone());
        let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=1/svc/act/p EVNT=on");
        wait_notified(&luup, "connected", 1);
        remote.write_all(b"x").unwrap();
        wait_notified(&luup, "data", 1);
        assert_eq!(plugin.bytes(1), b"x");
        drop(remote);
        wait_notified(&luup, "closed", 1);
        luup.clear_requests();
    }
}

#[test]
fn data_passes_during_any_failure_of_luup() {
    let (luup, daemon) = with_luup("");
    luup.set_behaviour(Behaviour::Hang);
    let mut connections = Connections::open(&daemon, 30);
    for _ in 0..10 {
        connections.transfer();
    }
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

#[test]
fn pending_closing_notices_are_limited_and_the_newest_are_kept() {
    let (luup, daemon) = with_luup("[limits]\nnotices=10\n");
    luup.down();
    for n in 0..30 {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&format!("NTFY {n} svc act p{n}")), "OK NTFY");
        assert_eq!(plugin.command("QUIT"), "OK QUIT");
    }
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    let pending = stat.status()["notifications"]["pending"].as_u64().unwrap();
    assert!((10..=12).contains(&pending), "{pending} wait");
    luup.up();
    stat.wait_notified();
    let requests = luup.requests();
    assert!(requests.iter().any(|request| request.pid() == "p29"), "{requests:#?}");
    assert!(stat.status()["notifications"]["dropped"].as_u64().unwrap() >= 18);
}

#[test]
fn pending_closing_notices_are_limited_by_their_bytes_and_counted() {
    let (luup, daemon) = with_luup("");
    luup.down();
    // Percent-encoded, each takes 3 KiB.
    let long = "\u{7f}".repeat(1000);
    for n in 0..300 {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&format!("NTFY 1 svc act{n} {long}")), "OK NTFY");
        assert_eq!(plugin.command("QUIT"), "OK QUIT");
    }
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    let status = stat.status();
    let (buffered, pending) =
        (status["buffered"].as_u64().unwrap(), status["notifications"]["pending"].as_u64().unwrap());
    assert!((70..100).contains(&pending), "{pending} wait");
    assert!((200 << 10..300 << 10).contains(&buffered), "{buffered} bytes");
    luup.up();
    stat.wait_notified();
    assert!(luup.requests().iter().any(|request| request.action() == "act299"), "the newest are kept");
    assert!(stat.status()["buffered"].as_u64().unwrap() < 10_000);
}
