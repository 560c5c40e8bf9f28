//! Echo mode: bytes pass both ways.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::draining::Draining;
use super::outbox::Outbox;
use super::plugin::PluginSide;
use super::remote::Remote;
use super::{Context, Pid, Session, Stage, Step, Verdict};
use crate::config::Config;
use crate::net::socket::{DatagramSocket, Stream};
use crate::protocol::framing::Framing;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::datagram::DatagramRelay;
use crate::relay::stream::StreamRelay;
use crate::relay::websocket::{WebSocketRelay, Wishes};
use crate::relay::{End, Env, Ready, Relay, Timing, Turn};
use crate::websocket::handshake::Upgraded;
use crate::websocket::{Connection, Role, WebSocketSettings};

/// A connection in echo mode.
#[derive(Debug)]
pub struct Relaying {
    target: Target,
    /// `OK CONN`, until the plugin has taken it. No byte of the remote goes before it.
    outbox: Outbox,
    announced: bool,
    link: Link,
}

/// The remote and the relay that fits it.
#[derive(Debug)]
enum Link {
    Stream { remote: Remote, relay: StreamRelay },
    Datagrams { remote: DatagramSocket, relay: Box<DatagramRelay> },
    WebSocket { remote: Remote, relay: Box<WebSocketRelay>, subprotocol: Option<Box<str>> },
}

impl Relaying {
    fn new(target: Target, link: Link) -> Self {
        Self { target, outbox: Outbox::default(), announced: false, link }
    }

    /// Echo mode over TCP or TLS. `ready` is what is known of the plugin's socket and of the remote's.
    pub fn stream(target: Target, remote: Remote, ahead: Vec<u8>, ready: (Ready, Ready), cx: &mut Context<'_>) -> Self {
        let relay = StreamRelay::new(cx.now, ahead, ready, cx.buffers);
        Self::new(target, Link::Stream { remote, relay })
    }

    /// Echo mode over WebSocket. `ready` as for a stream.
    pub fn websocket(
        target: Target,
        remote: Remote,
        upgraded: Upgraded,
        ahead: &[u8],
        ready: (Ready, Ready),
        parameters: &Parameters,
        cx: &Context<'_>,
    ) -> Self {
        let bridge = parameters.bridge.as_deref().cloned().unwrap_or_default();
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: bridge.mask,
            control: bridge.control,
            max_message: bridge.max_message,
            deflate: upgraded.deflate,
            ping_interval: bridge.ping_interval,
        };
        let wishes = Wishes {
            framing: parameters.framing(Protocol::Ws),
            max_message: bridge.max_message,
            receive: parameters.receive_timeout,
        };
        let connection = Connection::new(settings, cx.now);
        let head = upgraded.head.as_deref();
        let relay = WebSocketRelay::new(cx.now, connection, &wishes, (ahead, upgraded.rest), head, ready);
        Self::new(target, Link::WebSocket { remote, relay: Box::new(relay), subprotocol: upgraded.subprotocol })
    }

    /// Echo mode over UDP.
    pub fn datagrams(
        target: Target,
        remote: DatagramSocket,
        to: SocketAddr,
        framing: Framing,
        ahead: &[u8],
        ready: Ready,
        now: Instant,
    ) -> Self {
        let relay = Box::new(DatagramRelay::new(now, to, framing, ahead, ready));
        Self::new(target, Link::Datagrams { remote, relay })
    }

    /// The stage, with the reply that leads into echo mode; a direct listener's client hears nothing.
    pub fn greeted(mut self, pid: Pid, parameters: &Parameters) -> Stage {
        if !pid.is_direct() {
            let own = pid.to_string();
            let given = parameters.notify.as_deref().and_then(|notify| notify.pid());
            self.outbox.say(&reply::connected(given.unwrap_or(own.as_bytes())));
        }
        Stage::Relaying(Box::new(self))
    }

    /// True where `OK CONN` has been written.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Writes `OK CONN`. True when that is done; nothing may be moved before.
    pub fn announce(&mut self, plugin: &mut impl Stream) -> io::Result<bool> {
        self.announced = self.outbox.flush(plugin, self.link.relay_mut().plugin_ready())?;
        Ok(self.announced)
    }

    /// Moves what can be moved.
    pub fn step(&mut self, plugin: &mut impl Stream, parameters: &Parameters, cx: &mut Context<'_>) -> Turn {
        let mut env = Env {
            now: cx.now,
            scratch: cx.scratch,
            buffers: cx.buffers,
            pipes: cx.pipes,
            entropy: cx.randomness,
            block: parameters.block.map(|block| block as usize),
        };
        let targets = &cx.config.targets;
        match &mut self.link {
            Link::Stream { remote, relay } => relay.run(plugin, remote, &mut env),
            Link::WebSocket { remote, relay, .. } => relay.run(plugin, remote, &mut env),
            Link::Datagrams { remote, relay } => {
                let own = relay.target();
                let may_send = |to: SocketAddr| to == own || targets.allows("", to.ip(), to.port());
                relay.run(plugin, remote, &may_send, &mut env)
            }
        }
    }

    /// There is no plugin any more, and the daemon ends. True where the remote is to be told in so many words: a close
    /// frame, close_notify. That takes further steps.
    pub fn begin_leaving(&mut self) -> bool {
        if !matches!(&self.link, Link::WebSocket { .. } | Link::Stream { remote: Remote::Tls(_), .. }) {
            return false;
        }
        // As with a plugin that has vanished.
        let ready = self.link.relay_mut().plugin_ready();
        (ready.broken, ready.readable) = (true, true);
        true
    }

    /// Ends the outgoing side of what stands before the remote's socket, without another step.
    pub fn hang_up(&mut self) {
        if let Link::Stream { remote, .. } | Link::WebSocket { remote, .. } = &mut self.link {
            remote.shutdown_write();
        }
    }

    /// When a time limit passes.
    pub fn deadline(&self, timing: &Timing) -> Option<Instant> {
        self.relay().deadline(timing)
    }

    /// Which time limit has passed, if any.
    pub fn handle_timeout(&self, timing: &Timing, now: Instant) -> Option<End> {
        self.relay().handle_timeout(timing, now)
    }

    /// What is spoken with the remote.
    pub fn protocol(&self) -> Protocol {
        match &self.link {
            Link::Datagrams { .. } => Protocol::Udp,
            Link::Stream { remote, .. } if remote.tls_version().is_some() => Protocol::Tls,
            Link::Stream { .. } => Protocol::Tcp,
            Link::WebSocket { remote, .. } if remote.tls_version().is_some() => Protocol::Wss,
            Link::WebSocket { .. } => Protocol::Ws,
        }
    }

    /// The version of TLS, where that is spoken.
    pub fn tls_version(&self) -> Option<&'static str> {
        match &self.link {
            Link::Datagrams { .. } => None,
            Link::Stream { remote, .. } | Link::WebSocket { remote, .. } => remote.tls_version(),
        }
    }

    /// The subprotocol that the remote has chosen.
    pub fn subprotocol(&self) -> Option<&str> {
        match &self.link {
            Link::WebSocket { subprotocol, .. } => subprotocol.as_deref(),
            _ => None,
        }
    }

    /// The target as it is shown in STAT.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The relay, whatever it relays.
    pub fn relay(&self) -> &dyn Relay {
        match &self.link {
            Link::Stream { relay, .. } => relay,
            Link::Datagrams { relay, .. } => relay.as_ref(),
            Link::WebSocket { relay, .. } => relay.as_ref(),
        }
    }

    /// The relay, to be told something.
    pub fn relay_mut(&mut self) -> &mut dyn Relay {
        self.link.relay_mut()
    }
}

impl Link {
    fn relay_mut(&mut self) -> &mut dyn Relay {
        match self {
            Self::Stream { relay, .. } => relay,
            Self::Datagrams { relay, .. } => relay.as_mut(),
            Self::WebSocket { relay, .. } => relay.as_mut(),
        }
    }
}

impl Session {
    /// Announces the connection, if that is still to be done, and moves what can be moved.
    pub(super) fn relay(&mut self, cx: &mut Context<'_>) -> Step {
        match self.announce(cx) {
            Ok(true) => {}
            Ok(false) => return Step::Stay(Verdict::WAIT),
            Err(_) => return Step::Next(self.end_relay(End::PluginLost, cx)),
        }
        let Stage::Relaying(stage) = &mut self.stage else { return Step::Stay(Verdict::WAIT) };
        if let PluginSide::Kept(plugin) = &mut self.plugin {
            plugin.begin(cx.config.limits.history, cx.buffers);
            stage.relay_mut().plugin_ready().writable |= plugin.has_room();
        }
        let mut turn = stage.step(&mut self.plugin, &self.parameters, cx);
        let parked = match &mut self.plugin {
            PluginSide::Kept(plugin) => {
                // Its own bound may have made a write short, while the socket took more: of that no event tells.
                turn.again |= plugin.has_room() && !stage.relay_mut().plugin_ready().writable;
                plugin.settle(&mut turn, cx.now, cx.buffers)
            }
            _ => false,
        };
        if parked {
            // What the plugin has said before it went is still there to be read.
            stage.relay_mut().plugin_ready().readable = true;
        }
        self.tell(&turn, parked, cx);
        match turn.end {
            Some(end) => Step::Next(self.end_relay(end, cx)),
            // Nothing says twice that there is room for a plugin that has just been cut off.
            None => Step::Stay(Verdict { again: turn.again || parked, ..Verdict::WAIT }),
        }
    }

    /// Writes `OK CONN`, and does what follows from its being written. True where that is done.
    fn announce(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Stage::Relaying(stage) = &mut self.stage else { return Ok(false) };
        if stage.is_announced() {
            return Ok(true);
        }
        if !stage.announce(&mut self.plugin)? {
            return Ok(false);
        }
        if self.parameters.keep.is_some() {
            self.begin_keeping(cx.now);
        }
        self.notify_connected(cx);
        Ok(true)
    }

    /// The relay is over, for the reason `end`: the stage that follows.
    pub(super) fn end_relay(&mut self, end: End, cx: &mut Context<'_>) -> Stage {
        let Stage::Relaying(stage) = &mut self.stage else { return Stage::Closed };
        let relay = stage.relay_mut();
        log::info!("{} closed: {end}; received {}, sent {}", self.pid, relay.received(), relay.sent());
        relay.release(cx.buffers, cx.pipes);
        let ready = *relay.plugin_ready();
        match end {
            _ if matches!(self.plugin, PluginSide::Kept(_)) => self.leave_to_plugin(end, cx.now),
            End::Done | End::PluginLost => Stage::Closed,
            _ => Stage::Draining(Draining::new(Outbox::default(), ready, cx.now)),
        }
    }

    /// Gives back what the relay holds of what all share.
    pub(super) fn release_relay(&mut self, cx: &mut Context<'_>) {
        if let Stage::Relaying(stage) = &mut self.stage {
            stage.relay_mut().release(cx.buffers, cx.pipes);
        }
    }
}

/// The time limits that the plugin and the configuration ask for.
pub fn timing(parameters: &Parameters, config: &Config) -> Timing {
    Timing {
        receive: parameters.receive_timeout,
        idle: config.limits.idle,
        half_close: config.limits.half_close,
        stall: config.limits.stall,
    }
}
