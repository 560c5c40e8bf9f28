use std::collections::VecDeque;
use std::time::Duration;

use testkit::random::Random;

use super::super::reconnect_backoff::SHORT_LIFE;
use super::super::retry_policy::MIN_RETRY_INTERVAL;
use super::*;

const MS: Duration = Duration::from_millis(1);

fn recipient(device: &str, pid: &str) -> Recipient {
    of_client(ClientKey::Loopback, device, pid)
}

fn of_client(client: ClientKey, device: &str, pid: &str) -> Recipient {
    Recipient {
        device: DeviceKey::new(client, device),
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
    let mut schedule = Schedule::new(16, 10);
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

/// Another machine names the device of a plugin of the box, and an action that hangs or takes long.
#[test]
fn requests_of_other_machines_to_a_device_do_not_hold_up_those_of_loopback() {
    let start = Instant::now();
    for outcome in [None, Some(NotifyOutcome::TimedOut), Some(NotifyOutcome::Delivered)] {
        let mut schedule = Schedule::new(4, 10);
        let other = schedule.open(of_client(ClientKey::V6(1), "5", "other"));
        schedule.handle_data(other, start);
        assert_eq!(queries(&mut schedule, start), ["/5/other"]);
        let now = start + Duration::from_secs(5);
        if let Some(outcome) = outcome {
            schedule.handle_outcome(other, outcome, now);
        }
        let own = schedule.open(recipient("5", "own"));
        schedule.handle_data(own, now);
        assert_eq!(queries(&mut schedule, now), ["/5/own"], "{outcome:?}");
    }
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
    schedule.handle_closed(id, SHORT_LIFE, start + 1030 * MS);
    assert_eq!(queries(&mut schedule, start + 1030 * MS).len(), 1, "the closing notice ignores pace");
    schedule.handle_outcome(id, NotifyOutcome::Delivered, start + 1040 * MS);
    assert!(schedule.subscriptions.is_empty());
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
    schedule.handle_closed(id, SHORT_LIFE, now);
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
    schedule.handle_closed(id, SHORT_LIFE, now);
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
    let mut schedule = Schedule::new(16, 10);
    let ids: Vec<_> = (0..20).map(|n| schedule.open(recipient(&n.to_string(), "p"))).collect();
    for &id in &ids {
        schedule.handle_data(id, now);
    }
    let first = jobs(&mut schedule, now);
    assert_eq!(first.len(), 6, "all that may go out to devices that are not known");
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
    let mut schedule = Schedule::new(16, 10);
    let slow: Vec<_> = (0..20).map(|n| schedule.open(recipient(&format!("h{n}"), "p"))).collect();
    for &id in &slow {
        schedule.handle_data(id, now);
    }
    for round in 0.. {
        let out = jobs(&mut schedule, now);
        if out.is_empty() {
            assert!(round >= 4, "all devices are slow now");
            break;
        }
        for job in out {
            schedule.handle_outcome(job.id, NotifyOutcome::TimedOut, now);
        }
    }
    now += Duration::from_secs(60);
    assert_eq!(jobs(&mut schedule, now).len(), 8);
    let healthy: Vec<_> = (0..2).map(|n| schedule.open(recipient(&format!("ok{n}"), "p"))).collect();
    for &id in &healthy {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now), ["/ok1/p", "/ok0/p"], "other devices do not wait for slow ones");
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
    schedule.handle_closed(id, SHORT_LIFE, now);
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
        schedule.handle_closed(id, SHORT_LIFE, now);
    }
    assert_eq!(schedule.subscriptions.len(), 2);
    for pid in ["a", "b", "c", "d"] {
        let id = schedule.open(recipient("5", pid));
        schedule.handle_closed(id, SHORT_LIFE, now);
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
        schedule.handle_closed(id, SHORT_LIFE, now);
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
    let mut schedule = Schedule::new(8, 10);
    let ids: Vec<_> = (0..4).map(|device| schedule.open(recipient(&device.to_string(), "p"))).collect();
    for &id in &ids {
        schedule.handle_data(id, now);
    }
    assert_eq!(queries(&mut schedule, now).len(), 3);
    schedule.handle_outcome(ids[0], NotifyOutcome::Unreachable, now);
    schedule.set_limits(1, 10);
    assert_eq!(schedule.poll_timeout(), None);
    schedule.handle_outcome(ids[1], NotifyOutcome::Unreachable, now);
    assert_eq!(schedule.poll_timeout(), None);
    schedule.handle_outcome(ids[2], NotifyOutcome::Unreachable, now);
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
    schedule.handle_closed(id, SHORT_LIFE, now);
    assert_eq!(schedule.held(), open, "the notice waits for Luup");
    for pid in ["abd", "abe", "abf"] {
        let id = schedule.open(with_events("5", pid));
        schedule.handle_closed(id, SHORT_LIFE, now);
    }
    assert_eq!(schedule.held(), 2 * open, "the limit of notices bounds the memory");
    schedule.set_limits(4, 1);
    assert_eq!(schedule.held(), open);
}

/// A Luup in simulated time, which answers as `took` says for the device of a request: after that time, or `None` not
/// until the time limit.
struct SimLuup<'a> {
    took: &'a dyn Fn(&Recipient) -> Option<Duration>,
    /// Requests that are out, with the instants of their outcomes.
    out: Vec<(Instant, NotifyJob, NotifyOutcome)>,
}

impl SimLuup<'_> {
    /// The time limit of a request, as `answer=` has it by default.
    const ANSWER: Duration = Duration::from_secs(5);

    /// Sends what may go out, and returns the requests.
    fn send(&mut self, schedule: &mut Schedule, now: Instant) -> Vec<NotifyJob> {
        let sent = jobs(schedule, now);
        for job in &sent {
            let (due, outcome) = match (self.took)(&schedule.subscriptions[job.id.0].recipient) {
                Some(took) => (now + took, NotifyOutcome::Delivered),
                None => (now + Self::ANSWER, NotifyOutcome::TimedOut),
            };
            self.out.push((due, job.clone(), outcome));
        }
        sent
    }

    /// The next instant at which something happens.
    fn next(&self, schedule: &Schedule) -> Option<Instant> {
        self.out.iter().map(|&(due, ..)| due).chain(schedule.poll_timeout()).min()
    }

    /// Gives the schedule the outcomes that are due, and returns their requests.
    fn answer(&mut self, schedule: &mut Schedule, now: Instant) -> Vec<NotifyJob> {
        let (due, out): (Vec<_>, Vec<_>) = std::mem::take(&mut self.out).into_iter().partition(|&(due, ..)| due <= now);
        self.out = out;
        let answered = |(_, job, outcome): (Instant, NotifyJob, NotifyOutcome)| {
            schedule.handle_outcome(job.id, outcome, now);
            job
        };
        due.into_iter().map(answered).collect()
    }
}

/// Delivers each request that may go out, and then what may go out after it. Returns their queries.
fn delivered(schedule: &mut Schedule, now: Instant) -> Vec<String> {
    let deliver = || {
        let job = schedule.poll_job(now)?;
        schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now);
        Some(job.query)
    };
    std::iter::from_fn(deliver).collect()
}

/// A device accepts and closes at once, and the plugin reconnects in its action: `arduinoWebSockets#807`.
#[test]
fn a_plugin_that_reconnects_to_a_device_that_closes_at_once_makes_12_connections_a_minute_at_most() {
    // Pids differ from connection to connection, unless the plugin chooses one.
    for own_pid in [false, true] {
        let start = Instant::now();
        let (mut now, mut schedule) = (start, Schedule::new(16, 1024));
        let mut luup = SimLuup { took: &|_| Some(2 * MS), out: Vec::new() };
        let mut connections = 0;
        let mut connect = |schedule: &mut Schedule, now| {
            connections += 1;
            let pid = if own_pid { 0 } else { connections };
            let id = schedule.open(recipient("5", &format!("s/a&Pid={pid}")));
            schedule.handle_data(id, now);
            schedule.handle_closed(id, MS, now + MS);
            connections
        };
        connect(&mut schedule, now);
        let mut made = 1;
        while now < start + Duration::from_secs(60) {
            for _ in luup.send(&mut schedule, now) {
                made = connect(&mut schedule, now);
            }
            now = luup.next(&schedule).unwrap();
            luup.answer(&mut schedule, now);
        }
        assert_eq!(made, 11, "own pid: {own_pid}");
    }
}

#[test]
fn a_closing_notice_that_is_held_back_comes_in_time_and_is_not_lost() {
    let start = Instant::now();
    let mut schedule = Schedule::new(16, 1024);
    for pid in 0..30 {
        let id = schedule.open(recipient("5", &format!("s/a&Pid={pid}")));
        schedule.handle_closed(id, Duration::ZERO, start);
    }
    let other = schedule.open(recipient("5", "s/b&Pid=x"));
    schedule.handle_closed(other, Duration::ZERO, start);
    let (mut now, mut told) = (start, Vec::new());
    loop {
        told.extend(delivered(&mut schedule, now).into_iter().map(|query| (query, (now - start).as_secs())));
        let Some(due) = schedule.poll_timeout() else { break };
        now = due;
    }
    let at = |query: &str| told.iter().find(|(told, _)| told == query).unwrap().1;
    assert_eq!([0, 1, 2, 3, 4, 29].map(|pid| at(&format!("/5/s/a&Pid={pid}"))), [0, 1, 3, 7, 8, 8]);
    assert_eq!(at("/5/s/b&Pid=x"), 0, "another action");
    assert_eq!(told.len(), 31);
}

/// Regression: each end put off the equal notice that waited already, and it never came.
#[test]
fn equal_notices_do_not_put_each_other_off() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(16, 1024);
    let mut told = 0;
    for _ in 0..600 {
        let id = schedule.open(recipient("5", "s/a&Pid=0"));
        schedule.handle_closed(id, 50 * MS, now);
        told += delivered(&mut schedule, now).len();
        now += 100 * MS;
    }
    assert!((8..=12).contains(&told), "{told} in a minute");
}

#[test]
fn the_end_of_the_daemon_holds_no_notice_back() {
    let now = Instant::now();
    let mut schedule = Schedule::new(16, 1024);
    for pid in 0..5 {
        let id = schedule.open(recipient("5", &format!("s/a&Pid={pid}")));
        schedule.handle_closed(id, Duration::ZERO, now);
    }
    let job = schedule.poll_job(now).unwrap();
    let now = now + 200 * MS;
    schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now);
    assert_eq!(schedule.poll_job(now), None);
    schedule.handle_shutdown(now);
    let mut told = 0;
    while let Some(job) = schedule.poll_job(now + 100 * MS * told) {
        told += 1;
        if told == 2 {
            let id = schedule.open(recipient("5", "s/a&Pid=late"));
            schedule.handle_closed(id, Duration::ZERO, now);
        }
        schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now + 100 * MS * told);
    }
    assert_eq!((told, schedule.pending()), (5, 0));
}

/// Regression: an end whose data request was out sent a notice of its own beside the newer equal one.
#[test]
fn an_end_during_a_data_request_is_told_by_the_newer_equal_notice() {
    let now = Instant::now();
    for outcome in [NotifyOutcome::Delivered, NotifyOutcome::ServerError(500), NotifyOutcome::Refused(404)] {
        let mut schedule = Schedule::new(16, 10);
        let [older, newer] = [0, 1].map(|_| schedule.open(recipient("5", "same")));
        schedule.handle_data(older, now);
        assert_eq!(queries(&mut schedule, now).len(), 1);
        schedule.handle_closed(older, SHORT_LIFE, now);
        schedule.handle_closed(newer, SHORT_LIFE, now);
        schedule.handle_outcome(older, outcome, now);
        let job = schedule.poll_job(now).unwrap();
        assert_eq!(job.id, newer);
        schedule.handle_outcome(newer, NotifyOutcome::Delivered, now);
        assert_eq!((schedule.poll_job(now), schedule.poll_timeout()), (None, None), "{outcome:?}");
        assert!(schedule.subscriptions.is_empty());
    }
}

/// The newer equal notice is dropped, since too many wait: then the older one tells of the end, not of data.
#[test]
fn a_failed_data_request_of_an_ended_connection_becomes_its_closing_notice() {
    let now = Instant::now();
    let mut schedule = Schedule::new(16, 1);
    let [older, newer] = [0, 1].map(|_| schedule.open(with_events("5", "same")));
    schedule.handle_data(older, now);
    assert_eq!(queries(&mut schedule, now), ["/5/same&Event=data"]);
    schedule.handle_closed(older, SHORT_LIFE, now);
    schedule.handle_closed(newer, SHORT_LIFE, now);
    let other = schedule.open(with_events("6", "other"));
    schedule.handle_closed(other, SHORT_LIFE, now);
    assert_eq!(queries(&mut schedule, now), ["/6/other&Event=closed"]);
    assert_eq!(schedule.counters().dropped, 1);
    schedule.handle_outcome(other, NotifyOutcome::Delivered, now);
    schedule.handle_outcome(older, NotifyOutcome::TimedOut, now);
    let due = schedule.poll_timeout().unwrap();
    assert_eq!(queries(&mut schedule, due), ["/5/same&Event=closed"]);
}

/// 1100 short connections with the longest NTFY while Luup is away.
#[test]
fn closing_notices_are_bounded_by_their_bytes() {
    let now = Instant::now();
    let mut schedule = Schedule::new(16, 1024);
    let mut first = None;
    for number in 0..1100 {
        let long = |letter: &str| letter.repeat(1000);
        let id = schedule.open(recipient("5", &format!("{}&Pid={}{number}", long("%ff"), long("p"))));
        schedule.handle_closed(id, Duration::ZERO, now);
        first = first.or_else(|| schedule.poll_job(now));
        assert!(schedule.held() < 300 * 1024, "{} bytes after {number} connections", schedule.held());
    }
    schedule.handle_outcome(first.unwrap().id, NotifyOutcome::Unreachable, now);
    let kept = schedule.pending() as u64;
    assert!((60..100).contains(&kept), "{kept} are kept");
    assert_eq!(schedule.counters().dropped, 1100 - kept);
    // Usual ones are bounded by their number.
    let mut schedule = Schedule::new(16, 1024);
    for number in 0..1100 {
        let query = "/data_request?id=action&output_format=json&DeviceNum=123&serviceId=urn%3aexample-com%3aserviceId\
                     %3aExample1&action=HandleReceive&Pid=17160";
        let id = schedule.open(Recipient { query: format!("{query}{number}").into(), ..recipient("123", "") });
        schedule.handle_closed(id, Duration::ZERO, now);
    }
    assert_eq!(schedule.pending(), 1024);
}

/// 100 devices hang at once, and a good device has a notice every 100 ms. Returns how late one of these is at most.
/// `known`: the last requests of all devices were answered. `good_is_known`: those of the good one were.
fn latest_of_a_good_device(known: bool, good_is_known: bool) -> Duration {
    let start = Instant::now();
    let hangs = std::cell::Cell::new(false);
    let took = |recipient: &Recipient| (recipient.device.number.starts_with('g') || !hangs.get()).then_some(5 * MS);
    let mut luup = SimLuup { took: &took, out: Vec::new() };
    let (mut now, mut schedule) = (start, Schedule::new(16, 1024));
    let bad: Vec<_> = (0..100).map(|n| schedule.open(recipient(&format!("bad{n}"), "p"))).collect();
    let good = schedule.open(recipient("good", "p"));
    let warm_up = bad.iter().filter(|_| known).chain([&good].into_iter().filter(|_| good_is_known));
    warm_up.for_each(|&id| schedule.handle_data(id, now));
    while schedule.pending() > 0 {
        luup.send(&mut schedule, now);
        now = luup.next(&schedule).unwrap();
        luup.answer(&mut schedule, now);
    }
    hangs.set(true);
    now += Duration::from_secs(1);
    bad.iter().for_each(|&id| schedule.handle_data(id, now));
    let end = now + Duration::from_secs(120);
    let (mut next_news, mut since, mut latest) = (now + 50 * MS, None, Duration::ZERO);
    while now < end {
        if now >= next_news {
            schedule.handle_data(good, now);
            since = since.or(Some(now));
            next_news = now + 100 * MS;
        }
        for job in luup.send(&mut schedule, now) {
            if job.id == good {
                latest = latest.max(now - since.take().unwrap());
            }
        }
        now = luup.next(&schedule).map_or(next_news, |next| next.min(next_news));
        luup.answer(&mut schedule, now);
    }
    latest
}

#[test]
fn devices_that_hang_at_once_do_not_delay_a_good_one() {
    assert_eq!(latest_of_a_good_device(false, true), Duration::ZERO, "it has senders of its own");
    for known in [false, true] {
        let latest = latest_of_a_good_device(known, known);
        assert!(latest <= 1500 * MS, "known: {known}: {latest:?}");
    }
}

/// A remote that sends a byte a millisecond, or datagrams of a stranger.
#[test]
fn a_device_takes_half_of_luups_time_at_most() {
    for took in [MS, 20 * MS, 900 * MS] {
        let start = Instant::now();
        let answer = |_: &Recipient| Some(took);
        let mut luup = SimLuup { took: &answer, out: Vec::new() };
        let (mut now, mut schedule) = (start, Schedule::new(16, 1024));
        let ids = ["a", "b"].map(|pid| schedule.open(recipient("5", pid)));
        let mut busy = Duration::ZERO;
        while now < start + Duration::from_secs(10) {
            ids.iter().for_each(|&id| schedule.handle_data(id, now));
            busy += took * luup.send(&mut schedule, now).len() as u32;
            now = luup.next(&schedule).map_or(now + MS, |next| next.min(now + MS));
            luup.answer(&mut schedule, now);
        }
        let share = busy.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.4..=0.55).contains(&share), "{took:?}: {share}");
    }
}

/// Connections of a device that pauses have their turns in order, whatever each has to tell meanwhile.
#[test]
fn connections_of_a_device_share_its_time() {
    let start = Instant::now();
    let answer = |_: &Recipient| Some(10 * MS);
    let mut luup = SimLuup { took: &answer, out: Vec::new() };
    let (mut now, mut schedule) = (start, Schedule::new(16, 1024));
    let ids: Vec<_> = (0..5).map(|pid| schedule.open(recipient("5", &pid.to_string()))).collect();
    let mut sent = [0; 5];
    while now < start + Duration::from_secs(10) {
        ids.iter().for_each(|&id| schedule.handle_data(id, now));
        for job in luup.send(&mut schedule, now) {
            sent[ids.iter().position(|&id| id == job.id).unwrap()] += 1;
        }
        now = luup.next(&schedule).unwrap();
        luup.answer(&mut schedule, now);
    }
    assert!(sent.iter().all(|&sent| (99..=101).contains(&sent)), "{sent:?}");
}

#[test]
fn the_first_notice_after_silence_is_sent_at_once() {
    let start = Instant::now();
    let mut schedule = Schedule::new(16, 10);
    let mut now = start;
    for pid in 0..3 {
        // What is known of the device outlives its connections.
        let id = schedule.open(recipient("5", &format!("p{pid}")));
        schedule.handle_data(id, now);
        assert_eq!(queries(&mut schedule, now).len(), 1);
        now += 300 * MS;
        schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
        schedule.handle_closed(id, SHORT_LIFE, now);
        assert!(queries(&mut schedule, now).is_empty());
        assert_eq!(schedule.poll_timeout(), Some(now + 300 * MS));
        now += 300 * MS;
        assert_eq!(queries(&mut schedule, now).len(), 1);
        schedule.handle_outcome(id, NotifyOutcome::Delivered, now + 300 * MS);
        now += 600 * MS;
    }
}

/// A Luup that runs one action at a time, each for so long. Loopback has news twice a second, and 200 devices of `others` have
/// news all the time. Returns how long the news of loopback wait for their action to begin, and the number of the others'
/// actions.
fn waits_for_one_action_at_a_time(senders: usize, others: &[ClientKey], action: Duration) -> (Vec<Duration>, usize) {
    let start = Instant::now();
    let (mut now, mut schedule) = (start, Schedule::new(senders, 1024));
    schedule.handle_connection(ClientKey::Loopback, start);
    let mut own = None;
    let open = |n: usize| schedule.open(of_client(others[n % others.len()], &format!("{}", 1000 + n), "p"));
    let bad: Vec<_> = (0..200).map(open).collect();
    // Requests with the instants at which their actions begin.
    let mut out: VecDeque<(Instant, SubscriptionId)> = VecDeque::new();
    let (mut idle_from, mut next_news, mut since) = (now, now + 500 * MS, None);
    let (mut waits, mut actions) = (Vec::new(), 0);
    while now < start + Duration::from_secs(30) {
        bad.iter().for_each(|&id| schedule.handle_data(id, now));
        if now >= next_news {
            let own = *own.get_or_insert_with(|| schedule.open(recipient("7", "own")));
            schedule.handle_data(own, now);
            (since, next_news) = (Some(now), now + 500 * MS);
        }
        for job in jobs(&mut schedule, now) {
            let begin = idle_from.max(now);
            idle_from = begin + action;
            out.push_back((begin, job.id));
            match since.take_if(|_| own == Some(job.id)) {
                Some(since) => waits.push(begin - since),
                None => actions += 1,
            }
        }
        let answer = out.front().map(|&(begin, _)| begin + action);
        now = [answer, schedule.poll_timeout()].into_iter().flatten().fold(next_news, Instant::min);
        while let Some(&(begin, id)) = out.front()
            && begin + action <= now
        {
            out.pop_front();
            schedule.handle_outcome(id, NotifyOutcome::Delivered, now);
        }
    }
    (waits, actions)
}

#[test]
fn devices_that_other_machines_make_up_delay_loopback_by_one_action() {
    let crowd: Vec<_> = (0..50).map(ClientKey::V6).collect();
    for action in [5 * MS, 30 * MS] {
        for senders in [1, 2, 4, 16, 64] {
            for others in [&crowd[..1], &crowd] {
                let (waits, actions) = waits_for_one_action_at_a_time(senders, others, action);
                let latest = waits.iter().max().unwrap();
                assert!(waits.len() > 50 && *latest <= action, "{senders} senders: {latest:?} of {action:?}");
                let share = actions as f64 * action.as_secs_f64() / 30.0;
                assert!(share > 0.9, "{senders} senders: the others have {share} of what loopback leaves");
            }
        }
    }
}

/// Another machine has one device, and a third one 200.
#[test]
fn machines_have_turns_if_loopback_has_no_subscription() {
    let now = Instant::now();
    let mut schedule = Schedule::new(4, 10);
    for n in 0..200 {
        let id = schedule.open(of_client(ClientKey::V6(1), &n.to_string(), "p"));
        schedule.handle_data(id, now);
    }
    let id = schedule.open(of_client(ClientKey::V6(2), "7", "own"));
    schedule.handle_data(id, now);
    assert_eq!(delivered(&mut schedule, now)[..3], ["/0/p", "/7/own", "/1/p"]);
}

/// Whatever happens, a machine alone is served as loopback alone is.
#[test]
fn a_machine_alone_is_served_as_loopback_alone_is() {
    let start = Instant::now();
    for seed in 0..50 {
        let [loopback, other] = [ClientKey::Loopback, ClientKey::V6(1)].map(|client| {
            let mut random = Random::new(seed);
            let mut below = |bound: usize| random.below(bound as u64) as usize;
            let (mut now, mut schedule) = (start, Schedule::new(1 + below(16), 100));
            let (mut open, mut out, mut sent) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..500 {
                match below(8) {
                    0 => open.push(schedule.open(of_client(client, &below(9).to_string(), &below(3).to_string()))),
                    1..=3 if !open.is_empty() => {
                        schedule.handle_data(open[below(open.len())], now);
                    }
                    4 if !open.is_empty() => {
                        let id = open.swap_remove(below(open.len()));
                        schedule.handle_closed(id, Duration::from_secs(below(20) as u64), now);
                    }
                    5 | 6 if !out.is_empty() => {
                        let job: NotifyJob = out.swap_remove(below(out.len()));
                        let outcomes =
                            [NotifyOutcome::Delivered, NotifyOutcome::TimedOut, NotifyOutcome::ServerError(500)];
                        schedule.handle_outcome(job.id, outcomes[below(3)], now);
                    }
                    _ => now += (1 << below(13)) * MS,
                }
                while let Some(job) = schedule.poll_job(now) {
                    sent.push((now - start, job.query.clone()));
                    out.push(job);
                }
            }
            (sent, schedule.poll_timeout().map(|due| due - start), schedule.counters())
        });
        assert!(loopback.0.len() > 20, "seed {seed}: {} requests", loopback.0.len());
        assert_eq!(loopback, other, "seed {seed}");
    }
}
