//! Luup in trouble: it hangs, is slow, answers errors, goes and comes. Nobody's last notification is lost, and one
//! device that hangs holds up no other.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::luup::{Behaviour, Luup, Request};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, echo_mode, emulator_mixes_up_errors, wait_quietly, with_luup};

/// Short times, so that trouble is noticed soon.
const IMPATIENT: &str = "[limits]\nanswer=500\n";

/// A connection whose plugin is told of everything.
struct House {
    pairs: Vec<(Plugin, TcpStream)>,
}

impl House {
    /// `count` connections, of devices 1, 2, ..., with pids `p1`, `p2`, ...
    fn of(daemon: &Daemon, count: usize) -> House {
        let pair = |n| echo_mode(daemon, &format!("NTFY={n}/svc/act/p{n} EVNT=on"));
        House { pairs: (1..=count).map(pair).collect() }
    }

    /// Every remote says something, and every plugin reads it.
    fn speak(&mut self) {
        for (plugin, remote) in &mut self.pairs {
            remote.write_all(b"x").unwrap();
            assert_eq!(plugin.bytes(1), b"x");
        }
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }
}

/// The pids for which this event was told.
fn told(requests: &[Request], event: &str) -> HashSet<String> {
    requests.iter().filter(|request| request.event() == Some(event)).map(|request| request.pid().to_owned()).collect()
}

/// Waits until Luup has been told of `event` for `count` pids.
#[track_caller]
fn wait_told(luup: &Luup, event: &str, count: usize) {
    let enough = luup.wait_until(2 * LIMIT, |requests| told(requests, event).len() >= count);
    if let Err(requests) = enough {
        panic!("{event} was told {} of {count} plugins", told(&requests, event).len());
    }
}

/// Luup is in the trouble that `begin` makes while a house of connections opens, speaks and ends, and gets well again
/// then; the end of each connection must be told.
#[track_caller]
fn every_last_notification_arrives(config: &str, begin: impl Fn(&Luup), end: impl Fn(&Luup)) {
    let (luup, daemon) = with_luup(config);
    begin(&luup);
    let mut house = House::of(&daemon, 25);
    house.speak();
    let count = house.len();
    drop(house);
    StatClient::new(daemon.addr()).wait_connections(0);
    luup.clear_requests();
    end(&luup);
    wait_told(&luup, "closed", count);
    StatClient::new(daemon.addr()).wait_notified();
}

/// A connection of a device that is well is told of its data without delay.
#[track_caller]
fn another_device_is_told_at_once(luup: &Luup, daemon: &Daemon) {
    let (mut plugin, mut remote) = echo_mode(daemon, "NTFY=99/svc/act/free");
    let mut best = LIMIT;
    for count in 1..=10 {
        let start = Instant::now();
        remote.write_all(b"x").unwrap();
        let free = |requests: &[Request]| requests.iter().filter(|request| request.pid() == "free").count();
        luup.wait_until(LIMIT, |requests| free(requests) >= count).expect("the other device is told");
        best = best.min(start.elapsed());
        assert_eq!(plugin.bytes(1), b"x");
    }
    assert!(best < Duration::from_millis(300), "the best of ten took {best:?}");
}

#[test]
fn luup_is_down_and_comes_up() {
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
fn luup_answers_error_while_it_starts() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Error("Invalid Service".into()));
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_hangs() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Hang);
    every_last_notification_arrives(IMPATIENT, trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_hangs_up_without_an_answer() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::CloseWithoutAnswer);
    every_last_notification_arrives("", trouble, |luup| luup.set_behaviour(Behaviour::Ok));
}

#[test]
fn luup_is_slow() {
    let trouble = |luup: &Luup| luup.set_behaviour(Behaviour::Slow(Duration::from_millis(300)));
    every_last_notification_arrives("", trouble, |_| {});
}

#[test]
fn luup_restarts_again_and_again() {
    let (luup, daemon) = with_luup("");
    let mut house = House::of(&daemon, 25);
    for _ in 0..4 {
        luup.down();
        house.speak();
        luup.clear_requests();
        luup.up();
        wait_told(&luup, "data", house.len());
    }
    luup.clear_requests();
    luup.down();
    let count = house.len();
    drop(house);
    luup.up();
    wait_told(&luup, "closed", count);
}

#[test]
fn what_was_told_before_an_outage_is_told_after_it_where_data_came_meanwhile() {
    if emulator_mixes_up_errors() {
        println!("skipped: this emulator does not tell that a connection was refused");
        return;
    }
    let (luup, daemon) = with_luup("");
    let mut house = House::of(&daemon, 1);
    house.speak();
    wait_told(&luup, "data", 1);
    luup.down();
    house.speak();
    // The outage must have been noticed: data behind a request that is on its way is news.
    daemon.wait_for_log(LIMIT, |line| line.contains("cannot be reached"));
    house.speak();
    luup.clear_requests();
    luup.up();
    wait_told(&luup, "data", 1);
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(luup.count(), 1, "an outage is no reason to tell twice");
}

#[test]
fn a_luup_that_is_down_is_asked_now_and_then_and_not_by_a_storm() {
    if emulator_mixes_up_errors() {
        println!("skipped: this emulator does not tell that a connection was refused");
        return;
    }
    let (luup, daemon) = with_luup("");
    luup.down();
    let mut house = House::of(&daemon, 25);
    house.speak();
    let mut stat = StatClient::new(daemon.addr());
    let sent = |stat: &mut StatClient| stat.status()["notifications"]["sent"].as_u64().unwrap();
    let before = sent(&mut stat);
    wait_quietly(&daemon, Duration::from_secs(2));
    let asked = sent(&mut stat) - before;
    assert!((1..=20).contains(&asked), "{asked} requests in 2 s to a Luup that is down");
    let complaints = daemon.log_lines().iter().filter(|line| line.contains("cannot be reached")).count();
    assert_eq!(complaints, 1, "an outage is told once");
}

#[test]
fn one_device_that_hangs_holds_up_no_other() {
    let (luup, daemon) = with_luup("");
    luup.set_device(1, Behaviour::Hang);
    // Many connections of the one device that hangs, more than there are senders.
    let hanging: Vec<_> = (0..40).map(|n| echo_mode(&daemon, &format!("NTFY=1/svc/act/h{n}"))).collect();
    for (_, remote) in &hanging {
        (&mut &*remote).write_all(b"x").unwrap();
    }
    assert!(luup.wait_in_flight(1, LIMIT));
    another_device_is_told_at_once(&luup, &daemon);
    assert_eq!(luup.max_concurrent(1), 1);
}

#[test]
fn more_devices_that_hang_than_senders_hold_up_no_other_for_long() {
    let (luup, daemon) = with_luup(IMPATIENT);
    (1..=40).for_each(|device| luup.set_device(device, Behaviour::Hang));
    let mut house = House::of(&daemon, 40);
    house.speak();
    // All of them have been found to hang, more than once.
    luup.wait_until(2 * LIMIT, |requests| requests.len() >= 80).expect("hanging devices are asked again");
    another_device_is_told_at_once(&luup, &daemon);
}

#[test]
fn a_refusal_is_logged_once_and_not_repeated() {
    for status in [401, 404, 501] {
        let (luup, daemon) = with_luup("");
        luup.set_behaviour(Behaviour::Status(status, "no".into()));
        let mut house = House::of(&daemon, 2);
        wait_told(&luup, "connected", 2);
        house.speak();
        wait_told(&luup, "data", 2);
        house.speak();
        let mut stat = StatClient::new(daemon.addr());
        stat.wait_notified();
        // Each piece of news is one request, and its refusal the end of it.
        assert_eq!(luup.count(), 6, "status {status}");
        let count = daemon.log_lines().iter().filter(|line| line.contains(&format!("status {status}:"))).count();
        assert_eq!(count, 2, "one line a connection:\n{}", daemon.log_text());
        assert!(daemon.log_text().contains("DeviceNum=1&serviceId=svc&action=act&Pid=p1"), "{}", daemon.log_text());
        // Another connection for the same action is no news.
        let _another = House::of(&daemon, 1);
        luup.wait_for(7, LIMIT);
        stat.wait_notified();
        let count = daemon.log_lines().iter().filter(|line| line.contains("given up")).count();
        assert_eq!(count, 2, "one line a target:\n{}", daemon.log_text());
        // A plugin that has been installed meanwhile is told.
        luup.set_behaviour(Behaviour::Ok);
        luup.clear_requests();
        house.speak();
        wait_told(&luup, "data", 2);
        assert_eq!(stat.status()["notifications"]["failed"], 7);
    }
}

#[test]
fn an_error_body_is_given_up_after_about_a_minute_and_logged_once() {
    let (luup, daemon) = with_luup("");
    luup.set_device(1, Behaviour::Error("No implementation".into()));
    let start = Instant::now();
    let mut house = House::of(&daemon, 1);
    house.speak();
    let log = daemon.wait_for_log(Duration::from_secs(120), |line| line.contains("ERROR body"));
    assert!((50..100).contains(&start.elapsed().as_secs()), "after {:?}", start.elapsed());
    assert!(log.contains("DeviceNum=1&serviceId=svc&action=act&Pid=p1"), "{log}");
    let count = luup.count();
    assert!((8..60).contains(&count), "{count} requests in a minute");
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(daemon.log_text().matches("ERROR body").count(), 1, "{}", daemon.log_text());
}

#[test]
fn an_odd_answer_delays_nobody() {
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
        wait_told(&luup, "connected", 1);
        remote.write_all(b"x").unwrap();
        wait_told(&luup, "data", 1);
        assert_eq!(plugin.bytes(1), b"x");
        drop(remote);
        wait_told(&luup, "closed", 1);
        luup.clear_requests();
    }
}

#[test]
fn data_passes_whatever_luup_does() {
    let (luup, daemon) = with_luup("");
    luup.set_behaviour(Behaviour::Hang);
    let mut house = House::of(&daemon, 30);
    for _ in 0..10 {
        house.speak();
    }
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

#[test]
fn closing_notices_that_wait_are_bounded_and_the_newest_kept() {
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
