//! A seeded simulation of the schedule: plugins come and go, data flows, Luup is moody, time passes in jumps.
//!
//! After all has calmed down, every connection's last news has been delivered, and nothing is remembered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use testkit::random::Random;

use super::schedule::Subscription;
use super::{Job, LineId, Outcome, Schedule};

/// One connection, as a careful plugin sees it.
struct Plugin {
    line: LineId,
    device: u64,
    /// Data or a close was announced to nobody since the last request went out.
    unheard: bool,
}

struct House {
    schedule: Schedule,
    random: Random,
    now: Instant,
    plugins: HashMap<String, Plugin>,
    /// Connections that have ended and whose plugin has not heard of it.
    ended: HashMap<String, LineId>,
    out: Vec<(Job, u64)>,
    serial: u64,
    calm: bool,
    /// Luup never says that a notice is pointless, so that none may be given up.
    forgiving: bool,
}

impl House {
    fn new(seed: u64, forgiving: bool) -> Self {
        Self {
            schedule: Schedule::new(4, 10_000),
            random: Random::new(seed),
            now: Instant::now(),
            plugins: HashMap::new(),
            ended: HashMap::new(),
            out: Vec::new(),
            serial: 0,
            calm: false,
            forgiving,
        }
    }

    fn open(&mut self) {
        self.serial += 1;
        let device = self.random.below(6);
        let name = format!("/{device}/{}", self.serial);
        let pace = (self.random.below(3) == 0).then(|| Duration::from_millis(self.random.below(3000) + 1));
        let line = self.schedule.open(Subscription {
            device: device.to_string().into(),
            query: name.as_str().into(),
            events: false,
            pace,
            secret: false,
        });
        self.plugins.insert(name, Plugin { line, device, unheard: false });
    }

    fn pick(&mut self) -> Option<String> {
        let mut names: Vec<_> = self.plugins.keys().cloned().collect();
        names.sort();
        (!names.is_empty()).then(|| names[self.random.below(names.len() as u64) as usize].clone())
    }

    fn data(&mut self) {
        if let Some(name) = self.pick()
            && let Some(plugin) = self.plugins.get_mut(&name)
        {
            plugin.unheard = true;
            self.schedule.handle_data(plugin.line, self.now);
        }
    }

    fn close(&mut self) {
        if let Some(name) = self.pick()
            && let Some(plugin) = self.plugins.remove(&name)
        {
            self.schedule.handle_closed(plugin.line, self.now);
            self.ended.insert(name, plugin.line);
        }
    }

    /// Takes every request that may go out, and checks that each may.
    fn send(&mut self) {
        while let Some(job) = self.schedule.poll_job(self.now) {
            let device: u64 = job.query.split('/').nth(1).unwrap().parse().unwrap();
            assert!(self.out.iter().all(|(_, busy)| *busy != device), "two requests are with device {device}");
            assert!(self.out.iter().all(|(other, _)| other.line != job.line), "two requests of one line");
            if let Some(plugin) = self.plugins.get_mut(&job.query) {
                assert_eq!(plugin.device, device);
                assert!(plugin.unheard, "{} is told what it knows", job.query);
                plugin.unheard = false;
            }
            self.out.push((job, device));
            assert!(self.out.len() <= 4, "more requests than senders");
        }
    }

    fn answer(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let at = self.random.below(self.out.len() as u64) as usize;
        let (job, _) = self.out.remove(at);
        let moods = match (self.calm, self.forgiving) {
            (true, _) => 1,
            (false, true) => 8,
            (false, false) => 10,
        };
        let outcome = match self.random.below(moods) {
            0..=2 => Outcome::Delivered,
            3 => Outcome::Unreachable,
            4 => Outcome::NoTls,
            5 => Outcome::TimedOut,
            6 => Outcome::Failed(503),
            7 => Outcome::NotSent,
            8 => Outcome::ErrorBody,
            _ => Outcome::Refused(401),
        };
        if outcome != Outcome::Delivered
            && let Some(plugin) = self.plugins.get_mut(&job.query)
        {
            plugin.unheard = true;
        }
        self.schedule.handle_outcome(job.line, outcome, self.now);
        let gone = self.schedule.last_outcome(job.line).is_none();
        if gone {
            self.ended.remove(&job.query);
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0 if !self.calm => self.open(),
            1 if !self.calm && self.random.below(3) == 0 => self.close(),
            2..=5 if !self.calm => self.data(),
            6 | 7 => self.answer(),
            8 => self.now += Duration::from_micros(self.random.below(500_000)),
            _ => {}
        }
        // A clock that jumps far, as a suspended machine's does.
        if self.random.below(500) == 0 {
            self.now += Duration::from_secs(self.random.below(30));
        }
        self.send();
    }
}

fn run(seed: u64, forgiving: bool) {
    let mut house = House::new(seed, forgiving);
    for _ in 0..2000 {
        house.step();
    }
    house.calm = true;
    for _ in 0..200_000 {
        house.step();
        if house.out.is_empty() {
            match house.schedule.poll_timeout() {
                Some(due) => house.now = house.now.max(due),
                None => break,
            }
        }
    }
    assert!(house.out.is_empty() && house.schedule.poll_timeout().is_none(), "seed {seed}: it never calms down");
    assert_eq!(house.schedule.pending(), 0, "seed {seed}");
    for (name, plugin) in &house.plugins {
        assert!(!forgiving || !plugin.unheard, "seed {seed}: {name} was never told");
    }
    assert!(house.ended.is_empty(), "seed {seed}: lines of the dead: {:?}", house.ended.keys());
    assert_eq!(house.schedule.counters().dropped, 0);
    if forgiving {
        assert_eq!(house.schedule.counters().failed, 0, "seed {seed}: a notice was given up");
    }
}

#[test]
fn every_last_notice_arrives_whatever_luup_does() {
    for seed in 0..100 {
        run(seed, true);
    }
}

#[test]
fn nothing_hangs_or_leaks_when_luup_refuses_for_good() {
    for seed in 0..100 {
        run(seed, false);
    }
}
