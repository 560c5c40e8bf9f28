use std::time::Duration;

use super::super::retry_policy::MIN_RETRY_INTERVAL;
use super::*;

const MS: Duration = Duration::from_millis(1);

fn recipient(device: &str, pid: &str) -> Recipient {
    Recipient {
        device: device.into(),
        query: format!("/{device}/{pid}").into(),
        events: false,
        pace: None,
        secret: false,
    }
}

fn with_events(device: &str, pid: &str) -> Recipient {
    Recipient { events: true, ..recipient(device, pid) }
}

fn jobs(schedule: &mut Schedule, now: Instant) -> Vec<NotifyJob> {
    std::iter::from_fn(|| schedule.poll_job(now)).collect()
}

fn queries(schedule: &mut Schedule, now: Instant) -> Vec<String> {
    jobs(schedule, now).into_iter().map(|job| job.query).collect()
}

#[test]
fn data_is_notified_at_once_and_once() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    for _ in 0..100 {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/5/a"]);
    for _ in 0..100 {
        schedule.handle_data(id, now);
    }
    assert!(queries(&mut schedule, now).is_empty(), "one request is out");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a"], "data after a request was sent causes another one");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
    assert!(queries(&mut schedule, now).is_empty());
    assert_eq!(schedule.poll_timeout(), None);
}

#[test]
fn a_device_gets_one_request_at_a_time() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let ids: Vec<_> = ["a", "b", "c"].map(|pid| schedule.open(recipient("5", pid))).into();
    let other = schedule.open(recipient("6", "x"));
    for &id in ids.iter().chain([&other]) {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/5/a", "/6/x"]);
    schedule.handle_outcome(ids[0], NotifyOutcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/b"]);
    schedule.handle_outcome(ids[1], NotifyOutcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/c"]);
}

#[test]
fn pace_delays_all_but_the_first_and_the_closing_notice() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(Recipient { pace: Some(1000 * MS), ..recipient("5", "a") });
    schedule.handle_data(id, start);
    assert_eq!(queries(&mut schedule, start).len(), 1, "the first is not delayed");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, start + 10 * MS);
    schedule.handle_data(id, start + 20 * MS);
    assert!(queries(&mut schedule, start + 20 * MS).is_empty());
    assert_eq!(schedule.poll_timeout(), Some(start + 1000 * MS), "data within the pace waits for its end");
    assert!(queries(&mut schedule, start + 999 * MS).is_empty());
    assert_eq!(queries(&mut schedule, start + 1000 * MS).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::Delivered, start + 1010 * MS);
    schedule.handle_data(id, start + 1020 * MS);
    schedule.handle_closed(id, start + 1030 * MS);
    assert_eq!(queries(&mut schedule, start + 1030 * MS).len(), 1, "the closing notice ignores pace");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, start + 1040 * MS);
    assert!(schedule.subscriptions.is_empty());
    assert!(schedule.devices.is_empty());
}

#[test]
fn events_are_notified_in_order() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(with_events("5", "a"));
    schedule.handle_connected(id, now);
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=connected"]);
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=data"]);
    schedule.handle_data(id, now);
    schedule.handle_closed(id, now);
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
    assert_eq!(queries(&mut schedule, now), ["/5/a&Event=closed"], "closed replaces data");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
    assert!(schedule.subscriptions.is_empty());
}

#[test]
fn without_events_connected_is_not_notified() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    schedule.handle_connected(id, now);
    assert!(queries(&mut schedule, now).is_empty());
}

#[test]
fn a_closing_notice_waits_for_a_data_request_that_is_out() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_closed(id, now);
    schedule.handle_outcome(id, NotifyOutcome::TimedOut, now);
    assert!(queries(&mut schedule, now).is_empty());
    let retry = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, retry).len(), 1, "one closing notice replaces the failed request");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, retry);
    assert!(schedule.subscriptions.is_empty());
}

#[test]
fn while_luup_is_unreachable_one_probe_goes_out() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let ids: Vec<_> = (0..20).map(|n| schedule.open(recipient(&n.to_string(), "p"))).collect();
    for &id in &ids {
        schedule.handle_data(id, now);
    }
    let first = jobs(&mut schedule, now);
    assert_eq!(first.len(), 4, "one request per sender");
    for job in first {
        schedule.handle_outcome(job.id, NotifyOutcome::Unreachable, now);
    }
    let mut probes = 0;
    for _ in 0..30 {
        assert!(queries(&mut schedule, now).is_empty());
        now = schedule.poll_timeout().unwrap();
        let probe = jobs(&mut schedule, now);
        assert_eq!(probe.len(), 1);
        probes += 1;
        schedule.handle_outcome(probe[0].id, NotifyOutcome::Unreachable, now);
    }
    assert_eq!(probes, 30);
    now = schedule.poll_timeout().unwrap();
    let mut delivered = Vec::new();
    loop {
        let batch = jobs(&mut schedule, now);
        if batch.is_empty() {
            break;
        }
        for job in batch {
            schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now);
            delivered.push(job.query);
        }
    }
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered.len(), 20, "each subscription's last notification is delivered");
}

#[test]
fn slow_devices_take_half_of_the_senders() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let slow: Vec<_> = (0..8).map(|n| schedule.open(recipient(&format!("h{n}"), "p"))).collect();
    for &id in &slow {
        schedule.handle_data(id, now);
    }
    for _ in 0..2 {
        for job in jobs(&mut schedule, now) {
            schedule.handle_outcome(job.id, NotifyOutcome::TimedOut, now);
        }
    }
    now += Duration::from_secs(60);
    assert_eq!(jobs(&mut schedule, now).len(), 2, "all devices are slow now");
    let healthy: Vec<_> = (0..2).map(|n| schedule.open(recipient(&format!("ok{n}"), "p"))).collect();
    for &id in &healthy {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/ok0/p", "/ok1/p"], "other devices do not wait for slow ones");
}

#[test]
fn error_bodies_are_repeated_for_a_minute() {
    let start = Instant::now();
    let mut now = start;
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    schedule.handle_data(id, now);
    let mut attempts = 0;
    while !queries(&mut schedule, now).is_empty() {
        attempts += 1;
        schedule.handle_outcome(id, NotifyOutcome::ErrorBody, now);
        now = schedule.poll_timeout().unwrap_or(now);
    }
    let lasted = now - start;
    assert!((60..=66).contains(&lasted.as_secs()), "{lasted:?}");
    assert!((10..30).contains(&attempts), "{attempts}");
    assert_eq!(schedule.counters().failed, 1);
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "new data is sent once");
    schedule.handle_outcome(id, NotifyOutcome::ErrorBody, now);
    assert_eq!(schedule.poll_timeout(), None, "and not repeated for another minute");
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
}

#[test]
fn refusals_are_not_repeated() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::Refused(401), now);
    assert_eq!(schedule.poll_timeout(), None);
    assert!(queries(&mut schedule, now).is_empty());
    schedule.handle_closed(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "the closing notice is a new notification");
    schedule.handle_outcome(id, NotifyOutcome::Refused(401), now);
    assert!(schedule.subscriptions.is_empty());
}

#[test]
fn a_probe_that_was_not_sent_leaves_the_breaker_open() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(recipient("5", "a"));
    schedule.handle_data(id, now);
    assert_eq!(queries(&mut schedule, now).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::Unreachable, now);
    let probe = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, probe).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::NotSent, probe);
    let mut later = probe;
    while queries(&mut schedule, later).is_empty() {
        later = schedule.poll_timeout().expect("the probe should be repeated");
        assert!(later < probe + 10_000 * MS);
    }
    let other = schedule.open(recipient("6", "b"));
    schedule.handle_data(other, later);
    assert!(queries(&mut schedule, later).is_empty(), "the breaker is still open");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, later);
    assert_eq!(queries(&mut schedule, later).len(), 1);
}

#[test]
fn closing_notices_are_limited_and_equal_ones_are_merged() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1, 3);
    let blocker = schedule.open(recipient("0", "blocker"));
    schedule.handle_data(blocker, now);
    assert_eq!(queries(&mut schedule, now).len(), 1, "the only sender is busy");
    for _ in 0..50 {
        let id = schedule.open(recipient("5", "same"));
        schedule.handle_closed(id, now);
    }
    assert_eq!(schedule.subscriptions.len(), 2);
    for pid in ["a", "b", "c", "d"] {
        let id = schedule.open(recipient("5", pid));
        schedule.handle_closed(id, now);
    }
    assert_eq!(schedule.counters().dropped, 2);
    schedule.handle_outcome(blocker, NotifyOutcome::Delivered, now);
    let mut delivered = Vec::new();
    while let Some(job) = schedule.poll_job(now) {
        schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now);
        delivered.push(job.query);
    }
    assert_eq!(delivered, ["/5/b", "/5/c", "/5/d"], "the oldest were dropped");
}

#[test]
fn pace_does_not_delay_a_retry() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let id = schedule.open(Recipient { pace: Some(Duration::from_secs(60)), ..recipient("5", "a") });
    schedule.handle_data(id, start);
    assert_eq!(queries(&mut schedule, start).len(), 1);
    schedule.handle_outcome(id, NotifyOutcome::ServerError(500), start);
    let retry = schedule.poll_timeout().unwrap();
    assert_eq!(retry - start, MIN_RETRY_INTERVAL);
    assert_eq!(queries(&mut schedule, retry).len(), 1);
}

/// Regression: only the subscription without an answer was paused, and others of the same device were sent at once.
#[test]
fn a_device_without_an_answer_is_paused() {
    let start = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    let ids = ["a", "b"].map(|pid| schedule.open(recipient("5", pid)));
    for id in ids {
        schedule.handle_data(id, start);
    }
    assert_eq!(queries(&mut schedule, start), ["/5/a"]);
    schedule.handle_outcome(ids[0], NotifyOutcome::TimedOut, start);
    assert!(queries(&mut schedule, start).is_empty());
    let late = schedule.open(recipient("5", "c"));
    schedule.handle_data(late, start);
    assert!(queries(&mut schedule, start).is_empty());
    let due = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, due).len(), 1);
}

/// Regression: a failed notice was repeated beside a newer equal one, and they accumulated.
#[test]
fn a_failed_closing_notice_is_replaced_by_a_newer_equal_one() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    for _ in 0..50 {
        let id = schedule.open(recipient("5", "same"));
        schedule.handle_closed(id, now);
        for job in jobs(&mut schedule, now) {
            schedule.handle_outcome(job.id, NotifyOutcome::TimedOut, now);
        }
        now = schedule.poll_timeout().unwrap_or(now);
    }
    assert!(schedule.subscriptions.len() <= 2, "{}", schedule.subscriptions.len());
}

/// Regression: `poll_timeout` returned the breaker's deadline although nothing could be sent, and the loop spun.
#[test]
fn poll_timeout_omits_instants_at_which_nothing_can_be_sent() {
    let now = Instant::now();
    let mut schedule = Schedule::new(2, 10);
    let ids = ["1", "2", "3"].map(|device| schedule.open(recipient(device, "p")));
    for id in ids {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now).len(), 2);
    schedule.handle_outcome(ids[0], NotifyOutcome::Unreachable, now);
    schedule.set_limits(1, 10);
    assert_eq!(schedule.poll_timeout(), None);
    schedule.handle_outcome(ids[1], NotifyOutcome::Unreachable, now);
    assert!(schedule.poll_timeout().is_some());
}

#[test]
fn memory_is_counted_until_the_closing_notice_is_delivered_or_dropped() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 2);
    let open = with_events("5", "abc").held();
    assert_eq!(open, "5".len() + "/5/abc".len());
    let id = schedule.open(with_events("5", "abc"));
    schedule.handle_connected(id, now);
    assert_eq!(schedule.held(), open);
    assert_eq!(queries(&mut schedule, now), ["/5/abc&Event=connected"]);
    assert_eq!(schedule.held(), open + "/5/abc&Event=connected".len(), "a sender has the request");
    schedule.handle_outcome(id, NotifyOutcome::Unreachable, now);
    schedule.handle_closed(id, now);
    assert_eq!(schedule.held(), open, "the notice waits for Luup");
    for pid in ["abd", "abe", "abf"] {
        let id = schedule.open(with_events("5", pid));
        schedule.handle_closed(id, now);
    }
    assert_eq!(schedule.held(), 2 * open, "the limit of notices bounds the memory");
    schedule.set_limits(4, 1);
    assert_eq!(schedule.held(), open);
}
