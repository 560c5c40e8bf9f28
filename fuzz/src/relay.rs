//! The relay of streams: whatever the sockets do, bytes arrive in order and whole, ends are passed on, nothing that is
//! ready is forgotten, and no turn is long.
//!
//! Input: the sizes, then an operation a byte, each followed by its argument. The sockets are modelled as the kernel
//! has them under edge-triggered epoll: what has been said once is not said again.

use std::time::Duration;

use sockproxyd::relay::memory_budget::{Buffers, RESERVE};
use sockproxyd::relay::stream::StreamRelay;
use sockproxyd::relay::{End, Ready, Relay, Timing};
use sockproxyd::testing::Surroundings;
use sockproxyd::testing::wire::{Manners, Wire};

use super::input::Input;

/// Calls to sockets that one turn may make, both ways together: others wait meanwhile.
const MOST_CALLS: usize = 600;
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 400;
/// Largest chunk in one operation.
const CHUNK: usize = 512;

const TIMING: Timing = Timing {
    receive: Some(Duration::from_secs(20)),
    idle: None,
    half_close: Duration::from_secs(5),
    stall: Duration::from_secs(60),
};

struct World {
    around: Surroundings,
    plugin: Wire,
    remote: Wire,
    /// What tells the bytes of the one from those of the other.
    salts: [u8; 2],
    relay: StreamRelay,
    each: usize,
    end: Option<End>,
}

/// The target's body.
pub fn run(data: &[u8]) {
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
    world.relay.release(&mut world.around.buffers, &mut world.around.pipes);
    assert_eq!(world.around.buffers.held(), 0, "memory is accounted for to the end");
}

/// The next `count` bytes of a wire over which something has been said.
fn bytes(wire: &Wire, salt: u8, count: usize) -> Vec<u8> {
    (wire.said.len()..wire.said.len() + count).map(|at| (at as u8).wrapping_mul(167) ^ (at >> 8) as u8 ^ salt).collect()
}

impl World {
    fn new(input: &mut Input<'_>, each: usize) -> Self {
        let mut around = Surroundings::new(Buffers::new(each + 100, each), each);
        let salts = [0x5a, 0];
        let mut plugin = Wire::new(Manners::default());
        let ahead = bytes(&plugin, salts[0], input.below(200));
        plugin.say_ahead(&ahead);
        around.block = Some(input.below(64)).filter(|&block| block > 0);
        let relay = StreamRelay::new(around.now, ahead, (Ready::fresh(), Ready::default()), &mut around.buffers);
        Self { around, plugin, remote: Wire::new(Manners::default()), salts, relay, each, end: None }
    }

    /// Something happens to one of the peers, or an event tells of what has happened.
    fn happen(&mut self, input: &mut Input<'_>) {
        let (kind, argument) = (input.byte(), usize::from(input.byte()));
        if kind >= 0xf0 {
            self.around.now += Duration::from_millis(argument as u64 * 100);
            if let Some(end) = self.relay.handle_timeout(&TIMING, self.around.now) {
                self.end = Some(end);
            }
            return;
        }
        let (wire, salt, ready) = match kind & 1 {
            0 => (&mut self.plugin, self.salts[0], self.relay.plugin_ready()),
            _ => (&mut self.remote, self.salts[1], self.relay.remote_ready()),
        };
        match kind >> 1 & 7 {
            0..=2 if !wire.is_closed() && !wire.is_broken() => wire.say(&bytes(wire, salt, argument * CHUNK / 16)),
            3 => wire.make_room(argument * CHUNK / 16),
            4 if argument > 100 && !wire.is_broken() => wire.close(),
            5 if argument > 200 => wire.break_off(),
            _ => wire.tell(ready),
        }
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Self { around, plugin, remote, relay, .. } = self;
        let turn = around.turns(|env| {
            let turn = relay.run(plugin, remote, env);
            let calls = plugin.take_calls() + remote.take_calls();
            assert!(calls <= MOST_CALLS, "{calls} calls in a turn");
            turn
        });
        self.end = turn.end;
    }

    fn check(&mut self) {
        let Self { plugin, remote, relay, .. } = self;
        self.around.check_streams(relay, plugin, remote, 2 * self.each.max(RESERVE));
        let gone = [&*plugin, &*remote].iter().any(|wire| wire.is_closed() || wire.is_broken());
        let known = self.end.is_some() || plugin.has_news() || remote.has_news();
        assert!(!gone || known || relay.deadline(&TIMING).is_some(), "one side has gone, and nobody waits for it");
    }

    /// Both read whatever comes, and every event is told: then all that was said has arrived.
    fn settle(&mut self) {
        if self.end.is_some() {
            return;
        }
        for _ in 0..4 {
            for wire in [&mut self.plugin, &mut self.remote] {
                wire.make_room(usize::MAX / 8);
            }
            self.plugin.tell(self.relay.plugin_ready());
            self.remote.tell(self.relay.remote_ready());
            self.turn();
        }
        self.check();
        let Self { plugin, remote, .. } = self;
        if !plugin.is_broken() && !remote.is_broken() {
            assert_eq!(remote.written(), plugin.said.len(), "to the remote");
            assert_eq!(plugin.written(), remote.said.len(), "to the plugin");
            let (told, ended) = ((plugin.is_told(), remote.is_told()), (remote.is_closed(), plugin.is_closed()));
            assert_eq!(told, ended, "ends are passed on");
        } else {
            let ends = self.end.is_some() || self.relay.deadline(&TIMING).is_some();
            assert!(ends, "a connection broke, and nobody notices");
        }
    }
}
