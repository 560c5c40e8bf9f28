//! The time limits of a WebSocket relay.

use super::*;
use crate::relay::SCRATCH_SIZE;
use crate::testing::TIMING;
use crate::testing::wire::deliver_event;

impl World {
    /// A plugin that reads MESG, and a remote.
    fn limited(receive: Option<Duration>, ping_interval: Option<Duration>) -> Self {
        let around = TestContext::new(MemoryBudget::new(1 << 20, 1 << 16), SCRATCH_SIZE);
        let options = RelayOptions { framing: Framing::Mesg, max_message: 1000, receive, whole: false };
        Self::open(around, &options, ping_interval, None)
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
    let mut world = World::limited(None, None);
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
    let mut world = World::limited(None, None);
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
            let mut world = World::limited(receive, ping_interval);
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

/// Regression: a remote that had ended was held for ever for a plugin that read nothing.
#[test]
fn a_remote_that_has_ended_is_not_held_for_a_plugin_that_does_not_read() {
    let mut world = World::limited(None, None);
    world.plugin.stream_mut().room = 0;
    world.remote_says(b"\x81\x05hello");
    world.turn();
    world.remote.stream_mut().break_off();
    deliver_event(&mut world.remote);
    assert_eq!(world.turn().end, None, "the plugin may still read");
    let timing = Timing { remote_read_closed: world.remote.is_read_closed(), ..TIMING };
    assert_eq!(world.relay.deadline(&timing), Some(world.around.now + timing.stall));
}

/// A plugin that has accepted a connection.
fn server() -> World {
    let mut world = World::limited(None, None);
    let settings = WebSocketSettings {
        role: Role::Server,
        mask: false,
        control: Control::Auto,
        max_message: 1000,
        leniency: Leniency::default(),
        deflate: None,
        ping_interval: None,
    };
    let options = RelayOptions { framing: Framing::Mesg, max_message: 1000, receive: None, whole: false };
    let connection = Connection::new(settings, world.around.now);
    world.relay = WebSocketRelay::new(world.around.now, connection, &options, SentAhead::default(), None);
    world
}

/// The server SHOULD close the connection first: it waits for nothing after both close frames.
#[test]
fn rfc6455_7_1_1_a_server_ends_the_connection() {
    let mut world = server();
    world.remote_says(b"\x88\x82\0\0\0\0\x03\xe8");
    assert_eq!(world.turn().end, Some(CloseReason::RemoteClosed));
    assert_eq!(world.plugin.stream().received, b"CLOS 1000 0\n");
    assert_eq!(world.remote.stream().received, b"\x88\x02\x03\xe8");
}

/// After a violation, too: the client gets the reason and the end at once, and has a second to read them.
#[test]
fn rfc6455_7_1_1_a_server_ends_its_side_after_a_violation() {
    let mut world = server();
    world.remote_says(b"\x83\x80\0\0\0\0");
    assert_eq!(world.turn().end, None);
    assert_eq!(world.remote.stream().received, b"\x88\x10\x03\xeaunknown opcode");
    assert!(world.remote.stream().is_told());
    world.remote_says(b"more");
    assert_eq!(world.turn().end, None, "its bytes are still read");
    world.remote.stream_mut().close();
    deliver_event(&mut world.remote);
    assert_eq!(world.turn().end, Some(CloseReason::BadRemote));
}
