//! The relay of streams: whatever the sockets do, all bytes arrive in order, ends are passed on, readiness is not lost,
//! and turns are short.
//!
//! Input: the sizes, then operations of one byte, each followed by its argument. The sockets are modelled as the
//! kernel's under edge-triggered epoll: readiness is reported once.

use std::time::Duration;

use sockproxyd::relay::buffers::{Buffers, RESERVE};
use sockproxyd::relay::stream::StreamRelay;
use sockproxyd::relay::{End, Ready, Relay, Timing};
use sockproxyd::testing::Surroundings;
use sockproxyd::testing::wire::{Manners, Wire};

use super::input::Input;

/// The maximum number of socket calls in one turn, both directions together; other connections wait meanwhile.
const MAX_CALLS: usize = 600;
/// The maximum number of operations.
const MAX_STEPS: usize = 400;
/// The largest chunk of one operation.
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
    /// Values that distinguish the bytes of both sides.
    salts: [u8; 2],
    relay: StreamRelay,
    each: usize,
    end: Option<End>,
}

/// The body of the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let each = RESERVE + 16 * input.below(256);
    let mut world = World::new(&mut input, each);
    for _ in 0..MAX_STEPS {
        if input.is_empty() || world.end.is_some() {
            break;
        }
        world.happen(&mut input);
        world.turn();
        world.check();
    }
    world.settle();
    world.relay.release(&mut world.around.buffers, &mut world.around.pipes);
    assert_eq!(world.around.buffers.held(), 0, "all memory is given back");
}

/// The next `count` bytes on a wire.
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

    /// Executes one operation: an action of a peer, or the delivery of an event.
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

    /// Runs one turn, and further ones as long as the relay asks for them.
    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Self { around, plugin, remote, relay, .. } = self;
        let turn = around.turns(|env| {
            let turn = relay.run(plugin, remote, env);
            let calls = plugin.take_calls() + remote.take_calls();
            assert!(calls <= MAX_CALLS, "{calls} calls in a turn");
            turn
        });
        self.end = turn.end;
    }

    fn check(&mut self) {
        let Self { plugin, remote, relay, .. } = self;
        self.around.check_streams(relay, plugin, remote, 2 * self.each.max(RESERVE));
        let gone = [&*plugin, &*remote].iter().any(|wire| wire.is_closed() || wire.is_broken());
        let known = self.end.is_some() || plugin.has_news() || remote.has_news();
        assert!(
            !gone || known || relay.deadline(&TIMING).is_some(),
            "one side has closed without a pending event or timeout"
        );
    }

    /// Both sides read everything and all events are delivered; then all bytes must have arrived.
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
            assert!(ends, "a broken connection without a pending event or timeout");
        }
    }
}
