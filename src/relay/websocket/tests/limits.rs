//! The time limits of a WebSocket relay.

use super::super::*;
use crate::net::endpoint::SocketEndpoint;
use crate::net::readiness::Readiness;
use crate::relay::SCRATCH_SIZE;
use crate::testing::TestContext;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};
use crate::websocket::{Control, Role, WebSocketSettings};

const TIMING: Timing = Timing {
    receive: None,
    idle: None,
    half_close: Duration::from_secs(5),
    stall: Duration::from_secs(300),
    plugin_read_closed: false,
    remote_read_closed: false,
};

struct World {
    around: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    relay: WebSocketRelay,
}

impl World {
    /// A plugin that reads MESG, and a remote, with room for everything; nothing has been said.
    fn new(receive: Option<Duration>, ping_interval: Option<Duration>) -> Self {
        let around = TestContext::new(MemoryBudget::new(1 << 20, 1 << 16), SCRATCH_SIZE);
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: false,
            control: Control::Auto,
            max_message: 1000,
            deflate: None,
            ping_interval,
        };
        let wishes = RelayOptions { framing: Framing::Mesg, max_message: 1000, receive };
        let connection = Connection::new(settings, around.now);
        let relay = WebSocketRelay::new(around.now, connection, &wishes, (b"", Vec::new()), None);
        let wire = || SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
        let mut world = Self { around, plugin: wire(), remote: wire(), relay };
        world.plugin.stream_mut().make_room(1 << 20);
        world.remote.stream_mut().make_room(1 << 20);
        world
    }

    fn turn(&mut self) -> RelayTurn {
        let Self { around, plugin, remote, relay } = self;
        around.turns(|env| relay.run(plugin, remote, env))
    }

    /// The remote says something, and the kernel tells.
    fn remote_says(&mut self, bytes: &[u8]) {
        self.remote.stream_mut().send_bytes(bytes);
        deliver_event(&mut self.remote);
    }

    fn due(&self) -> Duration {
        self.relay.deadline(&TIMING).map(|due| due - self.around.now).expect("it waits for something")
    }
}

#[test]
fn a_remote_that_broke_the_protocol_and_stays_is_let_go() {
    let mut world = World::new(None, None);
    world.remote_says(b"\x83\x00");
    assert_eq!(world.turn().end, None, "the remote has yet to read why");
    assert_eq!(world.plugin.stream().received, b"CLOS 1002 14\nunknown opcode");
    assert_eq!(world.remote.stream().received, b"\x88\x10\x03\xeaunknown opcode");
    assert_eq!(world.due(), Duration::from_secs(1));
    world.around.now += Duration::from_secs(1);
    assert_eq!(world.turn().end, Some(CloseReason::BadRemote));
}

#[test]
fn a_remote_that_broke_the_protocol_and_ends_is_not_waited_for() {
    let mut world = World::new(None, None);
    world.remote_says(b"\x83\x00");
    world.turn();
    world.remote.stream_mut().close();
    deliver_event(&mut world.remote);
    assert_eq!(world.turn().end, Some(CloseReason::BadRemote));
}

#[test]
fn a_word_that_waits_to_be_read_is_no_silence() {
    let limit = Duration::from_secs(10);
    for (receive, ping_interval) in [(Some(limit), None), (None, Some(limit / 2))] {
        for is_told in [true, false] {
            let mut world = World::new(receive, ping_interval);
            world.turn();
            while world.due() < limit && world.remote.stream().received.is_empty() {
                world.around.now += limit / 2;
                world.turn();
            }
            // The machine slept; meanwhile the word has come, and its event may be yet to be fetched.
            world.around.now += 3 * limit;
            world.remote.stream_mut().send_bytes(b"\x81\x05hello");
            if is_told {
                deliver_event(&mut world.remote);
            }
            assert_eq!(world.turn().end, None);
            assert_eq!(world.plugin.stream().received, b"TEXT 5\nhello");
            assert!(!world.plugin.stream().is_told() && world.relay.deadline(&TIMING) > Some(world.around.now));
        }
    }
}
