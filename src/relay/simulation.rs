//! A seeded simulation of the stream relay: short reads and writes, stalls, resets, jumps of the clock.
//!
//! After each step the invariants hold; in the end every byte that was accepted has arrived, in order, or its loss is
//! one that a reset explains.

use std::time::Duration;

use lab::random::Random;

use super::memory_budget::MemoryBudget;
use super::stream::StreamRelay;
use super::{CloseReason, Relay, Timing};
use crate::net::endpoint::{Endpoint, SocketEndpoint};
use crate::net::readiness::Readiness;
use crate::testing::TestContext;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};

const TIMING: Timing = Timing {
    receive: None,
    idle: None,
    half_close: Duration::from_secs(5),
    stall: Duration::from_secs(300),
    plugin_read_closed: false,
    remote_read_closed: false,
};

struct World {
    random: Random,
    around: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    /// What each says next.
    next: [u8; 2],
    relay: StreamRelay,
    end: Option<CloseReason>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut pick = |below| random.below(below) as usize;
        let mut around = TestContext::new(MemoryBudget::new(8192, 4096), 1024);
        let mut next = [1, 2];
        let ahead = bytes(&mut next[0], pick(3) * 100);
        around.block = (pick(3) == 0).then_some(7);
        let mut plugin = Wire::new(FaultProfile { eintr_every: 17, ..FaultProfile::default() });
        plugin.send_ahead(&ahead);
        plugin.make_room(100);
        let remote = Wire::new(FaultProfile { buffer: pick(2) * 300, eintr_every: 19, ..FaultProfile::default() });
        let relay = StreamRelay::new(around.now, ahead, &mut around.budget);
        let mut plugin = SocketEndpoint::new(plugin, Readiness::ACCEPTED);
        let mut remote = SocketEndpoint::new(remote, Readiness::FRESH);
        // Some remotes answer and end before anybody looks, in one event with the connection's success.
        if pick(4) == 0 {
            remote.stream_mut().send_bytes(&bytes(&mut next[1], 50));
            remote.stream_mut().close();
            deliver_event(&mut remote);
        }
        deliver_event(&mut plugin);
        Self { random, around, plugin, remote, next, relay, end: None }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.random.below(below as u64) as usize
    }

    /// Something happens to one of the peers, and the kernel says so.
    fn happen(&mut self, quiet: bool) {
        let on_plugin = self.pick(2) == 0;
        let (what, amount) = (self.pick(if quiet { 40 } else { 100 }), self.pick(3000));
        let (ends, breaks) = (self.pick(100) == 0, self.pick(1500) == 0);
        let (wire, next) = match on_plugin {
            true => (&mut self.plugin, &mut self.next[0]),
            false => (&mut self.remote, &mut self.next[1]),
        };
        let talks = !wire.stream().is_closed() && !wire.stream().is_broken();
        match what {
            0..=29 => wire.stream_mut().make_room(amount * 2 / 3),
            30..=34 if ends && !wire.stream().is_broken() => wire.stream_mut().close(),
            30..=99 if talks && !quiet => {
                wire.stream_mut().send_bytes(&bytes(next, amount));
                if breaks {
                    wire.stream_mut().break_off();
                }
            }
            _ => {}
        }
        deliver_event(wire);
    }

    fn turn(&mut self) {
        let Self { around, plugin, remote, relay, .. } = self;
        let told_before = plugin.stream().is_told();
        let turn = around.turns(|env| relay.run(plugin, remote, env));
        assert_eq!(turn.end_delivered, plugin.stream().is_told() && !told_before, "the end is told once");
        self.end = turn.end;
    }

    fn timing(&self) -> Timing {
        Timing {
            plugin_read_closed: self.plugin.is_read_closed(),
            remote_read_closed: self.remote.is_read_closed(),
            ..TIMING
        }
    }

    fn check(&mut self) {
        let timing = self.timing();
        let Self { plugin, remote, relay, .. } = self;
        self.around.check_streams(relay, plugin, remote, 2 * 4096 + 200);
        if let Some(due) = relay.deadline(&timing) {
            assert!(due >= self.around.now || relay.handle_timeout(&timing, self.around.now).is_some());
        }
        if !remote.stream().is_broken() && (self.end == Some(CloseReason::Done) || remote.stream().room > 0) {
            assert_eq!(remote.stream().withheld(), b"", "the stream was not asked to push out what it holds");
        }
    }

    /// Lets go of everything, as who ends does.
    fn release(&mut self) {
        self.relay.release(&mut self.around.budget, &mut self.around.pipes);
        assert_eq!(self.around.budget.held(), 0);
    }
}

/// So many bytes, of which the first is `next`.
fn bytes(next: &mut u8, count: usize) -> Vec<u8> {
    let mut one = || std::mem::replace(next, next.wrapping_mul(31).wrapping_add(7));
    (0..count).map(|_| one()).collect()
}

fn run(seed: u64) -> CloseReason {
    let mut world = World::new(seed);
    for step in 0.. {
        world.happen(step > 2000);
        world.turn();
        world.check();
        if let Some(end) = world.end {
            world.release();
            return end;
        }
        // Now and then a while passes; when nothing else happens any more, the time limits must end it.
        if world.pick(if step > 2000 { 2 } else { 50 }) == 0 {
            let a_while = Duration::from_millis(world.pick(1500) as u64);
            world.around.now += a_while;
        }
        if let Some(end) = world.relay.handle_timeout(&world.timing(), world.around.now) {
            world.release();
            return end;
        }
        if step > 4000 {
            // Both are open and silent: they may stay so for ever.
            let closed = world.plugin.stream().is_closed() || world.remote.stream().is_closed();
            assert!(!closed || step < 100_000, "it never ends");
            if !closed {
                return CloseReason::Idle;
            }
        }
    }
    unreachable!()
}

#[test]
fn last_words_that_the_stream_itself_holds_are_pushed_out() {
    for comes_room in [true, false] {
        let mut world = World::new(1);
        world.plugin.stream_mut().make_room(10_000);
        world.plugin.stream_mut().send_bytes(&bytes(&mut world.next[0], 100));
        deliver_event(&mut world.plugin);
        let remote = Wire::new(FaultProfile { buffer: 1000, ..FaultProfile::default() });
        world.remote = SocketEndpoint::new(remote, Readiness::FRESH);
        world.remote.stream_mut().close();
        deliver_event(&mut world.remote);
        world.turn();
        world.around.now += Duration::from_secs(60);
        world.plugin.stream_mut().close();
        deliver_event(&mut world.plugin);
        world.turn();
        assert!(world.remote.stream().is_told() && world.plugin.stream().is_told());
        assert_eq!(world.end, None, "the remote has yet to take what the stream holds");
        assert_eq!(world.relay.deadline(&TIMING), Some(world.around.now + TIMING.half_close));
        if comes_room {
            world.remote.stream_mut().make_room(10_000);
            deliver_event(&mut world.remote);
            world.turn();
            assert_eq!(world.end, Some(CloseReason::Done));
            world.check();
        } else {
            world.around.now += TIMING.half_close;
            assert_eq!(world.relay.handle_timeout(&TIMING, world.around.now), Some(CloseReason::Stalled));
        }
    }
}

#[test]
fn a_broken_remote_that_holds_bytes_of_its_own_gives_the_plugin_no_more_time() {
    let mut world = World::new(1);
    let remote = Wire::new(FaultProfile { buffer: 1000, ..FaultProfile::default() });
    world.remote = SocketEndpoint::new(remote, Readiness::FRESH);
    // The plugin reads nothing, and the stream holds what it has sent.
    world.plugin.stream_mut().room = 0;
    world.plugin.stream_mut().send_bytes(&bytes(&mut world.next[0], 100));
    world.remote.stream_mut().send_bytes(&bytes(&mut world.next[1], 100));
    deliver_event(&mut world.plugin);
    deliver_event(&mut world.remote);
    world.turn();
    world.remote.stream_mut().break_off();
    deliver_event(&mut world.remote);
    world.turn();
    let due = world.relay.deadline(&world.timing()).unwrap();
    world.around.now += Duration::from_secs(10);
    world.turn();
    assert_eq!(world.relay.deadline(&world.timing()), Some(due));
}

#[test]
fn bytes_arrive_in_order_whatever_the_sockets_do() {
    let mut ends = std::collections::HashMap::new();
    for seed in 0..80 {
        let end = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        *ends.entry(end.to_string()).or_insert(0) += 1;
    }
    // The simulation is worth something only if it sees every kind of end.
    for end in [
        CloseReason::Done,
        CloseReason::PluginLost,
        CloseReason::RemoteLost,
        CloseReason::HalfClosed,
        CloseReason::Stalled,
    ] {
        assert!(ends.contains_key(&end.to_string()), "{end} never happened: {ends:?}");
    }
}
