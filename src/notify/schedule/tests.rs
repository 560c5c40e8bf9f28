use std::time::Duration;

use super::verdicts::FIRST_RETRY;
use super::*;

const MS: Duration = Duration::from_millis(1);

fn subscription(device: &str, pid: &str) -> Subscription {
    Subscription {
        device: device.into(),
        query: format!("/{device}/{pid}").into(),
        events: false,
        pace: None,
        secret: false,
    }
}

fn with_events(device: &str, pid: &str) -> Subscription {
    Subscription { events: true, ..subscription(device, pid) }
}

fn jobs(schedule: &mut Schedule, now: Instant) -> Vec<Job> {
    std::iter::from_fn(|| schedule.poll_job(now)).collect()
}

fn queries(schedule: &mut Schedule, now: Instant) -> Vec<String> {
    jobs(schedule, now).into_iter().map(|job| job.query).collect()
}

#[test]
fn data_is_told_at_once_and_once() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    for _ in 0..100 {
        schedule.handle_data(line, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/5/a"]);
    for _ in 0..100 {
        schedule.handle_data(line, now);
    }
    assert!(queries(&mut schedule, now).is_empty(), "one is out");
    schedule.handle_outcome(line, Outcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a"], "data after one was sent causes another");
    schedule.handle_outcome(line, Outcome::Delivered, now);
    assert!(queries(&mut schedule, now).is_empty());
    assert_eq!(schedule.poll_timeout(), None);
}

#[test]
fn one_request_is_with_a_device() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let lines: Vec<_> = ["a", "b", "c"].map(|pid| schedule.open(subscription("5", pid))).into();
    let other = schedule.open(subscription("6", "x"));
    for &line in lines.iter().chain([&other]) {
        schedule.handle_data(line, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/5/a", "/6/x"]);
    schedule.handle_outcome(lines[0], Outcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/b"]);
    schedule.handle_outcome(lines[1], Outcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/c"]);
}

#[test]
fn pace_holds_back_all_but_the_first_and_the_last() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(Subscription { pace: Some(1000 * MS), ..subscription("5", "a") });
    schedule.handle_data(line, start);
    assert_eq!(queries(&mut schedule, start).len(), 1, "the first goes at once");
    schedule.handle_outcome(line, Outcome::Delivered, start + 10 * MS);
    schedule.handle_data(line, start + 20 * MS);
    assert!(queries(&mut schedule, start + 20 * MS).is_empty());
    assert_eq!(schedule.poll_timeout(), Some(start + 1000 * MS), "the burst's last is not forgotten");
    assert!(queries(&mut schedule, start + 999 * MS).is_empty());
    assert_eq!(queries(&mut schedule, start + 1000 * MS).len(), 1);
    schedule.handle_outcome(line, Outcome::Delivered, start + 1010 * MS);
    schedule.handle_data(line, start + 1020 * MS);
    schedule.handle_closed(line, start + 1030 * MS);
    assert_eq!(queries(&mut schedule, start + 1030 * MS).len(), 1, "the closing one ignores pace");
    schedule.handle_outcome(line, Outcome::Delivered, start + 1040 * MS);
    assert!(schedule.lines.is_empty());
    assert!(schedule.devices.is_empty());
}

#[test]
fn events_are_told_in_order() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(with_events("5", "a"));
    schedule.handle_connected(line, now);
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=connected"]);
    schedule.handle_outcome(line, Outcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=data"]);
    schedule.handle_data(line, now);
    schedule.handle_closed(line, now);
    schedule.handle_outcome(line, Outcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=closed"], "the close is news of the data before it");
    schedule.handle_outcome(line, Outcome::Delivered, now);
    assert!(schedule.lines.is_empty());
}

#[test]
fn without_events_connecting_is_no_news() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    schedule.handle_connected(line, now);
    assert!(queries(&mut schedule, now).is_empty());
}

#[test]
fn a_close_in_flight_of_data_follows_it() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_closed(line, now);
    schedule.handle_outcome(line, Outcome::TimedOut, now);
    assert!(queries(&mut schedule, now).is_empty());
    let retry = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, retry).len(), 1, "the closing notice stands for the lost one");
    schedule.handle_outcome(line, Outcome::Delivered, retry);
    assert!(schedule.lines.is_empty());
}

#[test]
fn while_luup_is_away_one_probe_goes_out() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let lines: Vec<_> = (0..20).map(|n| schedule.open(subscription(&n.to_string(), "p"))).collect();
    for &line in &lines {
        schedule.handle_data(line, now);
    }
    let first = jobs(&mut schedule, now);
    assert_eq!(first.len(), 4, "as many as there are senders");
    for job in first {
        schedule.handle_outcome(job.line, Outcome::Unreachable, now);
    }
    let mut probes = 0;
    for _ in 0..30 {
        assert!(queries(&mut schedule, now).is_empty());
        now = schedule.poll_timeout().unwrap();
        let probe = jobs(&mut schedule, now);
        assert_eq!(probe.len(), 1);
        probes += 1;
        schedule.handle_outcome(probe[0].line, Outcome::Unreachable, now);
    }
    assert_eq!(probes, 30);
    now = schedule.poll_timeout().unwrap();
    let mut told = Vec::new();
    loop {
        let batch = jobs(&mut schedule, now);
        if batch.is_empty() {
            break;
        }
        for job in batch {
            schedule.handle_outcome(job.line, Outcome::Delivered, now);
            told.push(job.query);
        }
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 20, "every line's last notification arrives");
}

#[test]
fn devices_that_hang_take_half_of_the_senders() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let hanging: Vec<_> = (0..8).map(|n| schedule.open(subscription(&format!("h{n}"), "p"))).collect();
    for &line in &hanging {
        schedule.handle_data(line, now);
    }
    for _ in 0..2 {
        for job in jobs(&mut schedule, now) {
            schedule.handle_outcome(job.line, Outcome::TimedOut, now);
        }
    }
    now += Duration::from_secs(60);
    assert_eq!(jobs(&mut schedule, now).len(), 2, "all are suspects now");
    let healthy: Vec<_> = (0..2).map(|n| schedule.open(subscription(&format!("ok{n}"), "p"))).collect();
    for &line in &healthy {
        schedule.handle_data(line, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/ok0/p", "/ok1/p"], "nobody else waits for them");
}

#[test]
fn error_bodies_are_tried_for_a_minute() {
    let start = Instant::now();
    let mut now = start;
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    schedule.handle_data(line, now);
    let mut tries = 0;
    while !queries(&mut schedule, now).is_empty() {
        tries += 1;
        schedule.handle_outcome(line, Outcome::ErrorBody, now);
        now = schedule.poll_timeout().unwrap_or(now);
    }
    let lasted = now - start;
    assert!((60..=66).contains(&lasted.as_secs()), "{lasted:?}");
    assert!((10..30).contains(&tries), "{tries}");
    assert_eq!(schedule.counters().failed, 1);
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "fresh data is tried");
    schedule.handle_outcome(line, Outcome::ErrorBody, now);
    assert_eq!(schedule.poll_timeout(), None, "but not for another minute");
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(line, Outcome::Delivered, now);
}

#[test]
fn refusals_are_not_repeated() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(line, Outcome::Refused(401), now);
    assert_eq!(schedule.poll_timeout(), None);
    assert!(queries(&mut schedule, now).is_empty());
    schedule.handle_closed(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "the next notice is a new one");
    schedule.handle_outcome(line, Outcome::Refused(401), now);
    assert!(schedule.lines.is_empty());
}

#[test]
fn a_probe_that_could_not_be_sent_says_nothing_of_luup() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(subscription("5", "a"));
    schedule.handle_data(line, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(line, Outcome::Unreachable, now);
    let probe = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, probe).len(), 1);
    schedule.handle_outcome(line, Outcome::NotSent, probe);
    let mut later = probe;
    while queries(&mut schedule, later).is_empty() {
        later = schedule.poll_timeout().expect("it is tried again");
        assert!(later < probe + 10_000 * MS);
    }
    let other = schedule.open(subscription("6", "b"));
    schedule.handle_data(other, later);
    assert!(queries(&mut schedule, later).is_empty(), "Luup is still taken to be away");
    schedule.handle_outcome(line, Outcome::Delivered, later);
    assert_eq!(queries(&mut schedule, later).len(), 1);
}

#[test]
fn closing_notices_are_bounded_and_equal_ones_are_one() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1, 3);
    let blocker = schedule.open(subscription("0", "blocker"));
    schedule.handle_data(blocker, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "the only sender is busy");
    for _ in 0..50 {
        let line = schedule.open(subscription("5", "same"));
        schedule.handle_closed(line, now);
    }
    assert_eq!(schedule.lines.len(), 2);
    for pid in ["a", "b", "c", "d"] {
        let line = schedule.open(subscription("5", pid));
        schedule.handle_closed(line, now);
    }
    assert_eq!(schedule.counters().dropped, 2);
    schedule.handle_outcome(blocker, Outcome::Delivered, now);
    let mut told = Vec::new();
    while let Some(job) = schedule.poll_job(now) {
        schedule.handle_outcome(job.line, Outcome::Delivered, now);
        told.push(job.query);
    }
    assert_eq!(told, ["/5/b", "/5/c", "/5/d"], "the oldest were dropped");
}

#[test]
fn pace_does_not_hold_back_what_was_never_heard() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let line = schedule.open(Subscription { pace: Some(Duration::from_secs(60)), ..subscription("5", "a") });
    schedule.handle_data(line, start);
    assert_eq!(queries(&mut schedule, start).len(), 1);
    schedule.handle_outcome(line, Outcome::Failed(500), start);
    let retry = schedule.poll_timeout().unwrap();
    assert_eq!(retry - start, FIRST_RETRY);
    assert_eq!(queries(&mut schedule, retry).len(), 1);
}

/// Regression: only the line that got no answer rested, and others of the same device went out at once.
#[test]
fn a_device_that_hangs_is_left_alone() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let lines = ["a", "b"].map(|pid| schedule.open(subscription("5", pid)));
    for line in lines {
        schedule.handle_data(line, start);
    }
    assert_eq!(queries(&mut schedule, start), ["/5/a"]);
    schedule.handle_outcome(lines[0], Outcome::TimedOut, start);
    assert!(queries(&mut schedule, start).is_empty());
    let late = schedule.open(subscription("5", "c"));
    schedule.handle_data(late, start);
    assert!(queries(&mut schedule, start).is_empty());
    let due = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, due).len(), 1);
}

/// Regression: an equal notice in flight was retried beside the newer one, and they piled up.
#[test]
fn equal_closing_notices_are_one_even_if_the_first_fails_on_its_way() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    for _ in 0..50 {
        let line = schedule.open(subscription("5", "same"));
        schedule.handle_closed(line, now);
        for job in jobs(&mut schedule, now) {
            schedule.handle_outcome(job.line, Outcome::TimedOut, now);
        }
        now = schedule.poll_timeout().unwrap_or(now);
    }
    assert!(schedule.lines.len() <= 2, "{}", schedule.lines.len());
}

/// Regression: the breaker's instant was offered although nothing could be sent, and the loop spun.
#[test]
fn no_instant_is_offered_at_which_nothing_can_be_sent() {
    let now = Instant::now();
    let mut schedule = Schedule::new(2, 10);
    let lines = ["1", "2", "3"].map(|device| schedule.open(subscription(device, "p")));
    for line in lines {
        schedule.handle_data(line, now);
    }
    assert_eq!(queries(&mut schedule, now).len(), 2);
    schedule.handle_outcome(lines[0], Outcome::Unreachable, now);
    schedule.set_limits(1, 10);
    assert_eq!(schedule.poll_timeout(), None);
    schedule.handle_outcome(lines[1], Outcome::Unreachable, now);
    assert!(schedule.poll_timeout().is_some());
}
