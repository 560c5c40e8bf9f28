//! Who is waited for, and for how long.

use super::super::*;
use crate::relay::SCRATCH;
use crate::testing::Surroundings;
use crate::testing::wire::{Manners, Wire};
use crate::websocket::{Control, Role, WebSocketSettings};

const TIMING: Timing =
    Timing { receive: None, idle: None, half_close: Duration::from_secs(5), stall: Duration::from_secs(300) };

struct World {
    around: Surroundings,
    plugin: Wire,
    remote: Wire,
    relay: WebSocketRelay,
}

impl World {
    /// A plugin that reads MESG, and a remote, with room for everything; nothing has been said.
    fn new(receive: Option<Duration>, ping_interval: Option<Duration>) -> Self {
        let around = Surroundings::new(Buffers::new(1 << 20, 1 << 16), SCRATCH);
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: false,
            control: Control::Auto,
            max_message: 1000,
            deflate: None,
            ping_interval,
        };
        let wishes = Wishes { framing: Framing::Mesg, max_message: 1000, receive };
        let connection = Connection::new(settings, around.now);
        let ready = (Ready::fresh(), Ready::fresh());
        let relay = WebSocketRelay::new(around.now, connection, &wishes, (b"", Vec::new()), None, ready);
        let mut world =
            Self { around, plugin: Wire::new(Manners::default()), remote: Wire::new(Manners::default()), relay };
        world.plugin.make_room(1 << 20);
        world.remote.make_room(1 << 20);
        world
    }

    fn turn(&mut self) -> Turn {
        let Self { around, plugin, remote, relay } = self;
        around.turns(|env| relay.run(plugin, remote, env))
    }

    /// The remote says something, and the kernel tells.
    fn remote_says(&mut self, bytes: &[u8]) {
        self.remote.say(bytes);
        self.remote.tell(self.relay.remote_ready());
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
    assert_eq!(world.plugin.heard, b"CLOS 1002 14\nunknown opcode");
    assert_eq!(world.remote.heard, b"\x88\x10\x03\xeaunknown opcode");
    assert_eq!(world.due(), Duration::from_secs(1));
    world.around.now += Duration::from_secs(1);
    assert_eq!(world.turn().end, Some(End::BadRemote));
}

#[test]
fn a_remote_that_broke_the_protocol_and_ends_is_not_waited_for() {
    let mut world = World::new(None, None);
    world.remote_says(b"\x83\x00");
    world.turn();
    world.remote.close();
    world.remote.tell(world.relay.remote_ready());
    assert_eq!(world.turn().end, Some(End::BadRemote));
}

#[test]
fn a_word_that_waits_to_be_read_is_no_silence() {
    let limit = Duration::from_secs(10);
    for (receive, ping_interval) in [(Some(limit), None), (None, Some(limit / 2))] {
        for is_told in [true, false] {
            let mut world = World::new(receive, ping_interval);
            world.turn();
            while world.due() < limit && world.remote.heard.is_empty() {
                world.around.now += limit / 2;
                world.turn();
            }
            // The machine slept; meanwhile the word has come, and its event may be yet to be fetched.
            world.around.now += 3 * limit;
            world.remote.say(b"\x81\x05hello");
            if is_told {
                world.remote.tell(world.relay.remote_ready());
            }
            assert_eq!(world.turn().end, None);
            assert_eq!(world.plugin.heard, b"TEXT 5\nhello");
            assert!(!world.plugin.is_told() && world.relay.deadline(&TIMING) > Some(world.around.now));
        }
    }
}
