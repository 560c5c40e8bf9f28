//! The relay of streams: whatever the sockets do, bytes arrive in order and whole, ends are passed on, nothing that is
//! ready is forgotten, and no turn is long.
//!
//! Input: the sizes and the faults, then an operation a byte, each followed by its argument. The sockets are modelled as
//! the kernel has them under edge-triggered epoll: what was reported once is not reported again.

use std::time::Duration;

use crate::net::endpoint::{Endpoint, SocketEndpoint};
use crate::net::readiness::Readiness;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};
use crate::relay::stream::StreamRelay;
use crate::relay::{CloseReason, Relay, Timing};
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};
use crate::testing::{TestContext, timing_of};

use super::input::Input;

/// Calls to sockets that one turn may make, both ways together: others wait meanwhile.
const MOST_CALLS: usize = 600;
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 400;
/// Largest chunk in one operation.
const CHUNK: usize = 512;

const TIMING: Timing =
    Timing { receive: Some(Duration::from_secs(20)), stall: Duration::from_secs(60), ..crate::testing::TIMING };

struct World {
    around: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    /// What tells the bytes of the one from those of the other.
    salts: [u8; 2],
    relay: StreamRelay,
    each: usize,
    end: Option<CloseReason>,
}

/// The target's body.
pub fn run(data: &[u8]) {
    run_story(data);
}

/// Runs what `data` says. Returns how the relay ended, if it did.
pub(crate) fn run_story(data: &[u8]) -> Option<CloseReason> {
    let mut input = Input::new(data);
    let each = RESERVE + 16 * input.below(256);
    let mut world = World::new(&mut input, each);
    for _ in 0..MOST_STEPS {
        if input.is_empty() || world.end.is_some() {
            break;
        }
        world.happen(&mut input);
        world.turn();
        world.check();
    }
    world.settle();
    world.relay.release(&mut world.around.budget, &mut world.around.pipes);
    assert_eq!(world.around.budget.held(), 0, "memory is accounted for to the end");
    world.end
}

/// The next `count` bytes of a wire over which something has been said.
fn bytes(wire: &Wire, salt: u8, count: usize) -> Vec<u8> {
    (wire.sent.len()..wire.sent.len() + count).map(|at| (at as u8).wrapping_mul(167) ^ (at >> 8) as u8 ^ salt).collect()
}

impl World {
    fn new(input: &mut Input<'_>, each: usize) -> Self {
        let mut around = TestContext::new(MemoryBudget::new(each + 100, each), each);
        let salts = [0x5a, 0];
        let mut plugin = Wire::new(FaultProfile::default());
        let ahead = bytes(&plugin, salts[0], input.below(200));
        // The size of a block, and above it how the sockets misbehave.
        let options = input.byte();
        around.block = Some(usize::from(options % 64)).filter(|&block| block > 0);
        let eintr_every = |every| if options & 0x40 == 0 { 0 } else { every };
        plugin.set_faults(FaultProfile { eintr_every: eintr_every(17), ..FaultProfile::default() });
        let buffer = if options & 0x80 == 0 { 0 } else { 300 };
        let remote = Wire::new(FaultProfile { buffer, eintr_every: eintr_every(19), ..FaultProfile::default() });
        plugin.send_ahead(&ahead);
        let relay = StreamRelay::new(around.now, ahead, &mut around.budget);
        let plugin = SocketEndpoint::new(plugin, Readiness::FRESH);
        let remote = SocketEndpoint::new(remote, Readiness::FRESH);
        Self { around, plugin, remote, salts, relay, each, end: None }
    }

    /// Something happens to one of the peers, or an event tells of what has happened.
    fn happen(&mut self, input: &mut Input<'_>) {
        let (kind, argument) = (input.byte(), usize::from(input.byte()));
        if kind >= 0xf0 {
            self.around.now += Duration::from_millis(argument as u64 * 100);
            if let Some(end) = self.relay.handle_timeout(&self.timing(), self.around.now) {
                self.end = Some(end);
            }
            return;
        }
        let (wire, salt) = match kind & 1 {
            0 => (&mut self.plugin, self.salts[0]),
            _ => (&mut self.remote, self.salts[1]),
        };
        match kind >> 1 & 7 {
            0..=2 if !wire.stream().is_closed() && !wire.stream().is_broken() => {
                let next = bytes(wire.stream(), salt, argument * CHUNK / 16);
                wire.stream_mut().send_bytes(&next);
            }
            3 => wire.stream_mut().make_room(argument * CHUNK / 16),
            4 if argument > 100 && !wire.stream().is_broken() => wire.stream_mut().close(),
            5 if argument > 200 => wire.stream_mut().break_off(),
            _ => deliver_event(wire),
        }
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Self { around, plugin, remote, relay, .. } = self;
        let told_before = plugin.stream().is_told();
        let turn = around.turns(|cx| {
            let turn = relay.run(plugin, remote, cx);
            let calls = plugin.stream_mut().take_calls() + remote.stream_mut().take_calls();
            assert!(calls <= MOST_CALLS, "{calls} calls in a turn");
            turn
        });
        assert_eq!(turn.end_delivered, plugin.stream().is_told() && !told_before, "the end is told once");
        self.end = turn.end;
    }

    fn timing(&self) -> Timing {
        timing_of(TIMING, &self.plugin, &self.remote)
    }

    fn check(&mut self) {
        let timing = self.timing();
        let Self { plugin, remote, relay, .. } = self;
        self.around.check_streams(relay, plugin, remote, 2 * self.each.max(RESERVE));
        let gone = [plugin.stream(), remote.stream()].iter().any(|wire| wire.is_closed() || wire.is_broken());
        let known = self.end.is_some() || plugin.stream().has_news() || remote.stream().has_news();
        assert!(!gone || known || relay.deadline(&timing).is_some(), "one side has gone, and no limit runs");
        if let Some(due) = relay.deadline(&timing) {
            let late = due < self.around.now && self.end.is_none();
            assert!(!late || relay.handle_timeout(&timing, self.around.now).is_some(), "a deadline without a limit");
        }
        let pushes = self.end == Some(CloseReason::Done) || remote.is_writable() && remote.stream().room > 0;
        if pushes && !remote.stream().is_broken() {
            assert_eq!(remote.stream().withheld(), b"", "the stream was not asked to push out what it holds");
        }
    }

    /// Both read whatever comes, and every event is told: then all that was said has arrived.
    fn settle(&mut self) {
        if self.end.is_some() {
            return;
        }
        for _ in 0..4 {
            for wire in [&mut self.plugin, &mut self.remote] {
                wire.stream_mut().make_room(usize::MAX / 8);
            }
            deliver_event(&mut self.plugin);
            deliver_event(&mut self.remote);
            self.turn();
        }
        self.check();
        let timing = self.timing();
        let Self { plugin, remote, .. } = self;
        if !plugin.stream().is_broken() && !remote.stream().is_broken() {
            assert_eq!(remote.stream().written(), plugin.stream().sent.len(), "to the remote");
            assert_eq!(plugin.stream().written(), remote.stream().sent.len(), "to the plugin");
            let (told, ended) = (
                (plugin.stream().is_told(), remote.stream().is_told()),
                (remote.stream().is_closed(), plugin.stream().is_closed()),
            );
            assert_eq!(told, ended, "ends are passed on");
        } else {
            let ends = self.end.is_some() || self.relay.deadline(&timing).is_some();
            assert!(ends, "a connection broke, and no limit runs");
        }
    }
}
