//! A seeded simulation of [`Schedule`]: connections open, receive data and end; Luup answers with random outcomes; the
//! time advances in steps and jumps.
//!
//! Then Luup accepts every request. At the end each connection's last event has been delivered, and the schedule holds
//! nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use testkit::random::Random;

use super::{NotifyJob, NotifyOutcome, Recipient, Schedule, SubscriptionId};
use crate::testing::seeds::for_each_seed;

const MAX_IN_FLIGHT: usize = 4;

/// One open connection.
struct OpenConnection {
    id: SubscriptionId,
    device: u64,
    /// True if there was an event since the last request that did not fail.
    unnotified: bool,
}

struct World {
    schedule: Schedule,
    random: Random,
    now: Instant,
    connections: HashMap<String, OpenConnection>,
    /// Ended connections whose subscription is not gone yet.
    ended: HashMap<String, SubscriptionId>,
    /// Requests that are out, with their device.
    out: Vec<(NotifyJob, u64)>,
    serial: u64,
    /// True in the last phase: no new events, and Luup accepts every request.
    settling: bool,
    /// True if Luup never refuses a notification for good, so that none may be given up.
    never_refuses: bool,
}

impl World {
    fn new(seed: u64, never_refuses: bool) -> Self {
        Self {
            schedule: Schedule::new(MAX_IN_FLIGHT, 10_000),
            random: Random::new(seed),
            now: Instant::now(),
            connections: HashMap::new(),
            ended: HashMap::new(),
            out: Vec::new(),
            serial: 0,
            settling: false,
            never_refuses,
        }
    }

    fn open(&mut self) {
        self.serial += 1;
        let device = self.random.below(6);
        let name = format!("/{device}/{}", self.serial);
        let pace = (self.random.below(3) == 0).then(|| Duration::from_millis(self.random.below(3000) + 1));
        let id = self.schedule.open(Recipient {
            device: device.to_string().into(),
            query: name.as_str().into(),
            events: false,
            pace,
            secret: false,
        });
        self.connections.insert(name, OpenConnection { id, device, unnotified: false });
    }

    fn pick(&mut self) -> Option<String> {
        let mut names: Vec<_> = self.connections.keys().cloned().collect();
        names.sort();
        (!names.is_empty()).then(|| names[self.random.below(names.len() as u64) as usize].clone())
    }

    fn data(&mut self) {
        if let Some(name) = self.pick()
            && let Some(connection) = self.connections.get_mut(&name)
        {
            connection.unnotified = true;
            self.schedule.handle_data(connection.id, self.now);
        }
    }

    fn close(&mut self) {
        if let Some(name) = self.pick()
            && let Some(connection) = self.connections.remove(&name)
        {
            self.schedule.handle_closed(connection.id, self.now);
            self.ended.insert(name, connection.id);
        }
    }

    /// Takes all requests that may go out, and checks the rules for each.
    fn send(&mut self) {
        while let Some(job) = self.schedule.poll_job(self.now) {
            let device: u64 = job.query.split('/').nth(1).unwrap().parse().unwrap();
            assert!(self.out.iter().all(|(_, busy)| *busy != device), "two requests are out for device {device}");
            assert!(self.out.iter().all(|(other, _)| other.id != job.id), "two requests are out for one subscription");
            if let Some(connection) = self.connections.get_mut(&job.query) {
                assert_eq!(connection.device, device);
                assert!(connection.unnotified, "{} is notified without a new event", job.query);
                connection.unnotified = false;
            }
            self.out.push((job, device));
            assert!(self.out.len() <= MAX_IN_FLIGHT, "{} requests are out", self.out.len());
        }
    }

    fn answer(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let at = self.random.below(self.out.len() as u64) as usize;
        let (job, _) = self.out.remove(at);
        let outcomes = match (self.settling, self.never_refuses) {
            (true, _) => 1,
            (false, true) => 8,
            (false, false) => 10,
        };
        let outcome = match self.random.below(outcomes) {
            0..=2 => NotifyOutcome::Delivered,
            3 => NotifyOutcome::Unreachable,
            4 => NotifyOutcome::TlsFailed,
            5 => NotifyOutcome::TimedOut,
            6 => NotifyOutcome::ServerError(503),
            7 => NotifyOutcome::NotSent,
            8 => NotifyOutcome::ErrorBody,
            _ => NotifyOutcome::Refused(401),
        };
        if outcome != NotifyOutcome::Delivered
            && let Some(connection) = self.connections.get_mut(&job.query)
        {
            connection.unnotified = true;
        }
        self.schedule.handle_outcome(job.id, outcome, self.now);
        if self.schedule.last_outcome(job.id).is_none() {
            self.ended.remove(&job.query);
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0 if !self.settling => self.open(),
            1 if !self.settling && self.random.below(3) == 0 => self.close(),
            2..=5 if !self.settling => self.data(),
            6 | 7 => self.answer(),
            8 => self.now += Duration::from_micros(self.random.below(500_000)),
            _ => {}
        }
        // The clock jumps, as after a machine was suspended.
        if self.random.below(500) == 0 {
            self.now += Duration::from_secs(self.random.below(30));
        }
        self.send();
    }
}

fn run(seed: u64, never_refuses: bool) {
    let mut world = World::new(seed, never_refuses);
    for _ in 0..2000 {
        world.step();
    }
    world.settling = true;
    for _ in 0..200_000 {
        world.step();
        if world.out.is_empty() {
            match world.schedule.poll_timeout() {
                Some(due) => world.now = world.now.max(due),
                None => break,
            }
        }
    }
    assert!(world.out.is_empty() && world.schedule.poll_timeout().is_none(), "the schedule does not come to rest");
    assert_eq!(world.schedule.pending(), 0);
    for (name, connection) in &world.connections {
        assert!(!never_refuses || !connection.unnotified, "{name} was not notified of its last event");
    }
    assert!(world.ended.is_empty(), "subscriptions of ended connections remain: {:?}", world.ended.keys());
    let names = world.connections.iter().map(|(name, connection)| name.len() + connection.device.to_string().len());
    assert_eq!(world.schedule.held(), names.sum::<usize>(), "only open connections take memory");
    assert_eq!(world.schedule.counters().dropped, 0);
    if never_refuses {
        assert_eq!(world.schedule.counters().failed, 0, "a notification was given up");
    }
}

#[test]
fn every_last_event_is_delivered_despite_any_errors() {
    for_each_seed("notify::simulation", 100, |seed| run(seed, true));
}

#[test]
fn refusals_leave_nothing_behind() {
    for_each_seed("notify::simulation", 100, |seed| run(seed, false));
}
