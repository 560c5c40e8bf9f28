//! Single scenes. What holds whatever happens is the simulation's.

mod limits;
mod memory;
mod turns;

use super::*;
use crate::net::endpoint::SocketEndpoint;
use crate::net::readiness::Readiness;
use crate::testing::TestContext;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint};
use crate::websocket::{Control, Deflate, Leniency, Role, WebSocketSettings};

/// A relay with its plugin and its remote, both of which read everything.
struct World {
    around: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    relay: WebSocketRelay,
}

impl World {
    /// A connection over which nothing has been sent. `ping_interval` and `deflate`: those of [`WebSocketSettings`].
    fn open(
        around: TestContext,
        options: &RelayOptions,
        ping_interval: Option<Duration>,
        deflate: Option<Deflate>,
    ) -> Self {
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: false,
            control: Control::Auto,
            max_message: options.max_message,
            leniency: Leniency::default(),
            deflate,
            ping_interval,
        };
        let connection = Connection::new(settings, around.now);
        let relay = WebSocketRelay::new(around.now, connection, options, SentAhead::default(), None);
        let wire = || {
            let mut wire = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
            wire.stream_mut().make_room(1 << 24);
            wire
        };
        Self { around, plugin: wire(), remote: wire(), relay }
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) -> RelayTurn {
        let Self { around, plugin, remote, relay } = self;
        around.turns(|cx| relay.run(plugin, remote, cx))
    }
}
