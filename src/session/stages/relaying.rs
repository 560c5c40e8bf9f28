//! Echo mode: bytes pass both ways.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use crate::access::OwnConnection;
use crate::net::endpoint::{DatagramEndpoint, Endpoint, SocketEndpoint};
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::reason;
use crate::net::socket::{KeepAlive, Stream as _};
use crate::protocol::heal_settings::HealSettings;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::Target;
use crate::relay::datagram::DatagramRelay;
use crate::relay::memory_budget::{HeldKinds, MemoryBudget, RESERVE};
use crate::relay::stream::StreamRelay;
use crate::relay::traced::Traced;
use crate::relay::websocket::{RelayOptions, Resumed, SentAhead, ToRemote, WebSocketRelay};
use crate::relay::{CloseReason, Relay, RelayContext, RelayTotals, RelayTurn, Timing};
use crate::session::connect_times::ConnectTimes;
use crate::session::connection::{Connected, ConnectedLink};
use crate::session::context::SessionContext;
use crate::session::outages::Outages;
use crate::session::outbox::Outbox;
use crate::session::pid::Pid;
use crate::session::remote::{RemoteStream, wait_if_needed};
use crate::trace::Way;
use crate::websocket::{Connection, Role, WebSocketSettings};

/// A connection lasts this long before its remote is probed for being alive at all. Setting that up takes four system
/// calls, which short dialogues are spared.
const KEEP_ALIVE_DELAY: Duration = Duration::from_secs(1);

/// A connection in echo mode.
#[derive(Debug)]
pub(crate) struct Relaying<N: Network> {
    target: Target,
    /// When the connection to this remote was established.
    connected_at: Instant,
    /// How long the steps of connecting have taken.
    times: ConnectTimes,
    /// What goes before any byte of the other side, until it is written. Boxed: most of the time there is nothing.
    replies: Option<Box<Replies>>,
    /// TCP_NODELAY is not set yet. It is set before the second write; a connection with one request saves the system call.
    nagle_on: bool,
    /// Keep-alive is not set up yet.
    keep_alive_pending: bool,
    link: Link<N>,
    /// What has become of earlier remotes (HEAL). `None`: there were none.
    outages: Option<Box<Outages>>,
    /// The connection is one to the proxy itself.
    _own_connection: Option<Box<OwnConnection>>,
}

/// What a connection goes on with whose remote was lost (HEAL).
pub(crate) struct Before {
    /// What has become of earlier remotes.
    pub outages: Outages,
    /// What a WebSocket goes on with.
    pub resumed: Option<Resumed>,
}

/// What the proxy itself says first.
#[derive(Debug)]
struct Replies {
    /// `OK CONN` or `OK ACPT`.
    to_plugin: Outbox,
    /// The response to the request of a remote that has connected to the proxy.
    to_remote: Outbox,
}

/// The remote, and the relay that fits it.
#[derive(Debug)]
enum Link<N: Network> {
    Stream {
        remote: SocketEndpoint<RemoteStream<N::Stream>>,
        relay: StreamRelay,
    },
    Datagrams {
        remote: DatagramEndpoint<N::Datagrams>,
        relay: Box<DatagramRelay>,
    },
    WebSocket {
        remote: SocketEndpoint<RemoteStream<N::Stream>>,
        relay: Box<WebSocketRelay>,
        subprotocol: Option<Box<str>>,
    },
}

impl<N: Network> Link<N> {
    /// The relay for `link`. `sent_ahead`: what the plugin has sent already. `has_arrived`: the remote has connected to the proxy.
    /// `resumed`: what a WebSocket goes on with whose remote was lost.
    fn new(
        link: ConnectedLink<N>,
        sent_ahead: &[u8],
        has_arrived: bool,
        resumed: Option<Resumed>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        match link {
            ConnectedLink::Stream(remote) => {
                let mut ahead: Vec<u8> = openings(parameters).flatten().copied().collect();
                ahead.extend_from_slice(sent_ahead);
                Self::Stream { remote, relay: StreamRelay::new(cx.now, ahead, cx.budget) }
            }
            ConnectedLink::Datagrams(remote, to) => {
                let framing = parameters.framing(Protocol::Udp);
                Self::Datagrams { remote, relay: Box::new(DatagramRelay::new(cx.now, to, framing, sent_ahead)) }
            }
            ConnectedLink::WebSocket(remote, upgraded) => {
                let bridge = parameters.websocket.as_deref().cloned().unwrap_or_default();
                let settings = WebSocketSettings {
                    role: if has_arrived { Role::Server } else { Role::Client },
                    // RFC 6455 section 5.1: a server MUST NOT mask.
                    mask: bridge.mask && !has_arrived,
                    control: bridge.control,
                    max_message: bridge.max_message,
                    leniency: bridge.leniency,
                    deflate: upgraded.deflate,
                    ping_interval: bridge.ping_interval,
                };
                let options = RelayOptions {
                    framing: parameters.framing(Protocol::Ws),
                    max_message: bridge.max_message,
                    receive: parameters.receive_timeout,
                    whole: parameters.keep.is_some() || parameters.heals().is_some(),
                };
                let ahead = SentAhead { to_remote: sent_ahead, to_plugin: upgraded.rest };
                let connection = Connection::new(settings, cx.now);
                let mut relay = WebSocketRelay::new(cx.now, connection, &options, ahead, upgraded.head.as_deref());
                relay.open_with(openings(parameters), cx.random);
                if let Some(resumed) = resumed {
                    relay.resume(resumed);
                }
                Self::WebSocket { remote, relay: Box::new(relay), subprotocol: upgraded.subprotocol }
            }
        }
    }
}

impl<N: Network> Relaying<N> {
    /// Echo mode over what `connected` has led to. `connect_reply` is written to the plugin first, and what HELO says to the
    /// remote. `before`: what it goes on with whose remote was lost.
    pub(crate) fn new(
        connected: Connected<N>,
        connect_reply: Vec<u8>,
        before: Option<Before>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let Connected { request, link, own_connection, response, times } = connected;
        let has_arrived = response.is_some();
        let (outages, resumed) = before.map_or((None, None), |before| (Some(Box::new(before.outages)), before.resumed));
        let link = Link::new(link, &request.sent_ahead, has_arrived, resumed, parameters, cx);
        // An accepted socket has inherited the options of its listener.
        let may_probe = cx.config.limits.keep_alive.is_some() && !has_arrived;
        let keep_alive_pending = may_probe && !matches!(link, Link::Datagrams { .. });
        let nagle_on =
            !has_arrived && matches!(&link, Link::Stream { remote, .. } if remote.stream().tls_version().is_none());
        let (to_plugin, to_remote) = (Outbox::new(connect_reply), Outbox::new(response.unwrap_or_default()));
        // A plugin whose remote is back was told long ago.
        let replies = outages.is_none().then(|| Box::new(Replies { to_plugin, to_remote }));
        let mut relaying = Self {
            target: request.target,
            connected_at: cx.now,
            times,
            replies,
            nagle_on,
            keep_alive_pending,
            link,
            outages,
            _own_connection: own_connection,
        };
        // A plugin that does not read its reply keeps the relay from its first turn.
        relaying.relay_mut().account(cx.budget);
        relaying
    }

    /// How long the steps of connecting have taken; after a loss (HEAL), those of connecting again.
    pub(crate) fn times(&self) -> ConnectTimes {
        self.times
    }

    /// What has become of earlier remotes.
    pub(crate) fn outages(&self) -> Outages {
        self.outages.as_deref().copied().unwrap_or(Outages::none(self.connected_at))
    }

    /// What has passed, earlier remotes included.
    pub(crate) fn totals(&self) -> RelayTotals {
        RelayTotals::of(self.relay(), &self.outages().totals)
    }

    /// What a WebSocket goes on with whose remote was lost, but for what the plugin is to be told. `None`: no WebSocket.
    pub(crate) fn take_to_remote(&mut self) -> Option<ToRemote> {
        if let Link::WebSocket { relay, .. } = &mut self.link { Some(relay.take_to_remote()) } else { None }
    }

    /// True if both sides were told what the proxy itself says first; nothing may be moved before.
    pub(crate) fn is_connect_reply_sent(&self) -> bool {
        self.replies.is_none()
    }

    /// Sends the reply to CONN or ACPT, and before that the response to a remote that has connected. True when that is done.
    pub(crate) fn send_connect_reply(&mut self, plugin: &mut dyn Endpoint) -> io::Result<bool> {
        let Some(mut replies) = self.replies.take() else { return Ok(true) };
        // The relay finds a remote that is broken.
        let is_remote_told = self.stream_mut().is_none_or(|remote| replies.to_remote.flush(remote).unwrap_or(true));
        let is_plugin_told = replies.to_plugin.flush(plugin)?;
        if !(is_remote_told && is_plugin_told) {
            self.replies = Some(replies);
        }
        Ok(self.replies.is_none())
    }

    /// An event of the remote's socket.
    pub(crate) fn handle_remote_event(&mut self, event: Readiness) {
        match &mut self.link {
            Link::Stream { remote, .. } | Link::WebSocket { remote, .. } => remote.handle_event(event),
            Link::Datagrams { remote, .. } => remote.handle_event(event),
        }
    }

    /// Has the next turn read the remote's socket, whatever events have reported.
    pub(crate) fn assume_readable(&mut self) {
        match &mut self.link {
            Link::Stream { remote, .. } | Link::WebSocket { remote, .. } => remote.assume_readable(),
            Link::Datagrams { remote, .. } => remote.assume_readable(),
        }
    }

    /// When keep-alive is to be set up. `None`: it is, or is not wanted.
    fn keep_alive_due(&self) -> Option<Instant> {
        self.keep_alive_pending.then(|| self.connected_at + KEEP_ALIVE_DELAY)
    }

    /// When the connection to this remote was established. That to the first one: see [`Outages::first_connected_at`].
    pub(crate) fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// Moves what can be moved. `pid`: for log lines. `heals`: the plugin is not told the remote's end.
    pub(crate) fn turn(
        &mut self,
        pid: Pid,
        plugin: &mut dyn Endpoint,
        parameters: &Parameters,
        heals: bool,
        cx: &mut SessionContext<'_, N>,
    ) -> RelayTurn {
        if self.nagle_on && self.relay().sent() > 0 && self.writes_again(plugin) {
            self.set_no_delay(cx);
        }
        if self.keep_alive_due().is_some_and(|due| due <= cx.now) {
            self.set_keep_alive(cx);
        }
        self.set_limits(cx.budget);
        let targets = &cx.config.targets;
        let mut relay_cx = RelayContext {
            now: cx.now,
            scratch: cx.scratch,
            budget: cx.budget,
            pipes: cx.pipes,
            entropy: cx.random,
            block: parameters.block_size.map(|block| block.get() as usize),
            heals,
            trace: None,
        };
        let mut trace = if cx.traces.is_empty() { None } else { cx.traces.take(cx.key, cx.now) };
        let turn = match &mut self.link {
            Link::Stream { remote, relay } => match trace.as_deref_mut() {
                Some(trace) => {
                    let trace = RefCell::new(trace);
                    let mut plugin = Traced::new(plugin, &trace, Way::ToRemote);
                    let mut remote = Traced::new(remote, &trace, Way::ToPlugin);
                    relay.run(&mut plugin, &mut remote, &mut relay_cx)
                }
                None => relay.run(plugin, remote, &mut relay_cx),
            },
            Link::WebSocket { remote, relay, .. } => {
                relay.replace_trace(trace.take());
                let turn = relay.run(plugin, remote, &mut relay_cx);
                trace = relay.replace_trace(None);
                turn
            }
            Link::Datagrams { remote, relay } => {
                relay_cx.trace = trace.as_deref_mut();
                let own = relay.target();
                let may_send = |to: std::net::SocketAddr| to == own || targets.allows("", to.ip(), to.port());
                let (failures, now) = (&mut *cx.send_failures, cx.now);
                let mut on_unsent = |to: std::net::SocketAddr, error: &io::Error| {
                    let level = if failures.may_warn(to, now) { log::Level::Warn } else { log::Level::Debug };
                    log::log!(level, "{pid} datagram to {to} not sent: {}", reason(error));
                };
                relay.run(plugin, remote, &may_send, &mut on_unsent, &mut relay_cx)
            }
        };
        if trace.is_some() {
            cx.traces.give_back(cx.key, trace);
        }
        if let Some(remote) = self.stream()
            && self.relay().reads_remote()
        {
            wait_if_needed(remote, cx.budget);
        }
        turn
    }

    /// Bounds what the remote's stream itself may hold. A socket holds nothing.
    fn set_limits(&mut self, budget: &MemoryBudget) {
        let is_byte_stream = matches!(self.link, Link::Stream { .. });
        if let Some(remote) = self.stream_mut()
            && remote.stream().is_layered()
        {
            let left = budget.left();
            let left_to_send = if is_byte_stream { budget.left_for_stream() } else { left };
            // Less than the reserve of a direction, which the relay may hold besides.
            remote.set_send_limit((remote.stream().unsent() + left_to_send).max(RESERVE / 4));
            remote.set_receive_limit(left.max(RESERVE));
        }
    }

    /// True if this turn is likely to write to the remote.
    fn writes_again(&self, plugin: &dyn Endpoint) -> bool {
        (plugin.is_readable() && !plugin.is_read_closed()) || self.relay().held() > 0
    }

    fn set_no_delay(&mut self, cx: &mut SessionContext<'_, N>) {
        self.nagle_on = false;
        if let Link::Stream { remote, .. } = &self.link {
            cx.network.set_no_delay(remote.stream().socket());
        }
    }

    fn set_keep_alive(&mut self, cx: &mut SessionContext<'_, N>) {
        self.keep_alive_pending = false;
        let limits = &cx.config.limits;
        if let (Some(remote), Some(silence)) = (self.stream(), limits.keep_alive) {
            cx.network.set_keep_alive(remote.stream().socket(), KeepAlive::new(silence, limits.lost));
        }
    }

    /// Bytes held outside of the relay: by the remote's stream, and of what the proxy itself says first.
    pub(crate) fn held(&self) -> usize {
        self.target.held()
            + self.stream().map_or(0, Endpoint::held)
            + self.replies.as_ref().map_or(0, |replies| replies.to_plugin.held() + replies.to_remote.held())
    }

    /// Of what kinds are the bytes that the relay and the remote's stream hold.
    pub(crate) fn held_kinds(&self) -> HeldKinds {
        let relay = self.relay();
        let (held, record, state) = self.stream().map_or((0, 0, 0), |remote| {
            let stream = remote.stream();
            (stream.held(), stream.incomplete(), stream.state_memory())
        });
        // If the plugin takes nothing, the record is not read on.
        let record = if relay.reads_remote() { record } else { 0 };
        let stream = if let Link::Stream { .. } = self.link { held.saturating_sub(record + state) } else { 0 };
        HeldKinds { stream: relay.stream_held() + stream, incomplete: relay.incomplete() + record }
    }

    /// True if the remote's protocol has an end of its own to be told: a close frame, or close_notify.
    pub(crate) fn has_close_handshake(&self) -> bool {
        matches!(self.link, Link::WebSocket { .. }) || self.tls_version().is_some()
    }

    /// The connection ends for want of memory. Tells the remote as far as that goes at once, and returns the last message for
    /// the plugin: none if its framing has no messages, or part of another was written to it.
    pub(crate) fn refuse_for_memory(&mut self, cx: &mut SessionContext<'_, N>) -> Vec<u8> {
        let message = match &mut self.link {
            Link::Stream { .. } => Vec::new(),
            Link::Datagrams { relay, .. } => relay.refuse_for_memory(),
            Link::WebSocket { remote, relay, .. } => relay.refuse_for_memory(remote, cx.now, cx.random),
        };
        self.shutdown_write();
        message
    }

    /// Ends the outgoing side of the remote's stream, without another turn.
    pub(crate) fn shutdown_write(&mut self) {
        if let Link::Stream { remote, .. } | Link::WebSocket { remote, .. } = &mut self.link {
            remote.shutdown_write();
        }
    }

    /// True if an event reported the end of the remote's side.
    pub(crate) fn is_remote_read_closed(&self) -> bool {
        self.stream().is_some_and(Endpoint::is_read_closed)
    }

    /// When a time limit passes, or a turn is needed even without an event.
    pub(crate) fn deadline(&self, timing: &Timing) -> Option<Instant> {
        if !self.is_connect_reply_sent() {
            // The relay has no turns yet, and only a turn enforces the limits of a protocol: pings, say.
            return self.relay().next_limit(timing);
        }
        [self.relay().deadline(timing), self.keep_alive_due()].into_iter().flatten().min()
    }

    /// The time limit that has passed, if one has.
    pub(crate) fn handle_timeout(&self, timing: &Timing, now: Instant) -> Option<CloseReason> {
        self.relay().handle_timeout(timing, now)
    }

    /// What is spoken with the remote.
    pub(crate) fn protocol(&self) -> Protocol {
        match (&self.link, self.tls_version()) {
            (Link::Datagrams { .. }, _) => Protocol::Udp,
            (Link::Stream { .. }, None) => Protocol::Tcp,
            (Link::Stream { .. }, Some(_)) => Protocol::Tls,
            (Link::WebSocket { .. }, None) => Protocol::Ws,
            (Link::WebSocket { .. }, Some(_)) => Protocol::Wss,
        }
    }

    /// The version of TLS, if that is spoken.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        self.stream()?.stream().tls_version()
    }

    /// The remote's connection. `None` for datagrams.
    pub(crate) fn stream(&self) -> Option<&SocketEndpoint<RemoteStream<N::Stream>>> {
        match &self.link {
            Link::Stream { remote, .. } | Link::WebSocket { remote, .. } => Some(remote),
            Link::Datagrams { .. } => None,
        }
    }

    /// See [`Relaying::stream`].
    pub(crate) fn stream_mut(&mut self) -> Option<&mut SocketEndpoint<RemoteStream<N::Stream>>> {
        match &mut self.link {
            Link::Stream { remote, .. } | Link::WebSocket { remote, .. } => Some(remote),
            Link::Datagrams { .. } => None,
        }
    }

    /// The subprotocol that the remote has chosen.
    pub(crate) fn subprotocol(&self) -> Option<&str> {
        match &self.link {
            Link::WebSocket { subprotocol, .. } => subprotocol.as_deref(),
            Link::Stream { .. } | Link::Datagrams { .. } => None,
        }
    }

    /// The target as the plugin wrote it.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The relay, whatever it relays.
    pub(crate) fn relay(&self) -> &dyn Relay {
        match &self.link {
            Link::Stream { relay, .. } => relay,
            Link::Datagrams { relay, .. } => relay.as_ref(),
            Link::WebSocket { relay, .. } => relay.as_ref(),
        }
    }

    /// The relay, to be told something.
    pub(crate) fn relay_mut(&mut self) -> &mut dyn Relay {
        match &mut self.link {
            Link::Stream { relay, .. } => relay,
            Link::Datagrams { relay, .. } => relay.as_mut(),
            Link::WebSocket { relay, .. } => relay.as_mut(),
        }
    }
}

/// What HELO says to the remote after each connect.
fn openings(parameters: &Parameters) -> impl Iterator<Item = &[u8]> {
    parameters.heal.as_deref().into_iter().flat_map(HealSettings::openings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::socket::Stream;
    use crate::protocol::datagram_settings::DatagramSettings;
    use crate::session::connection::ConnectRequest;
    use crate::session::pid::PidSource;
    use crate::session::simulation::world::World;
    use crate::testing::network::{SimNetwork, SimStream, connection};
    use crate::testing::wire::FaultProfile;
    use crate::websocket::MessageCounts;
    use crate::websocket::handshake::Upgraded;

    fn pid() -> Pid {
        PidSource::default().next(std::time::SystemTime::UNIX_EPOCH, false)
    }

    fn remote_endpoint(stream: SimStream) -> SocketEndpoint<RemoteStream<SimStream>> {
        SocketEndpoint::new(RemoteStream::Plain(stream), Readiness::FRESH)
    }

    fn relaying(world: &mut World, link: ConnectedLink<SimNetwork>) -> Relaying<SimNetwork> {
        let target = Target::parse_prefix(b"h:1").unwrap().0;
        let request = ConnectRequest { target, sent_ahead: b"TEXT 5\nhello".to_vec() };
        let connected =
            Connected { request, link, own_connection: None, response: None, times: ConnectTimes::default() };
        world.with_context(1, |cx| Relaying::new(connected, b"OK CONN\n".to_vec(), None, &Parameters::default(), cx))
    }

    #[test]
    fn what_was_sent_ahead_is_counted_before_the_first_turn() {
        let mut world = World::new(0);
        let to = "192.0.2.1:9".parse().unwrap();
        let settings = DatagramSettings::default();
        let socket = world.with_context(1, |cx| cx.network.open_datagrams(to, &settings, cx.remote_token).unwrap());
        let mut relaying = relaying(&mut world, ConnectedLink::Datagrams(DatagramEndpoint::new(socket), to));
        assert_eq!((world.budget.held(), relaying.relay().held()), (12, 12));
        relaying.relay_mut().release(&mut world.budget, &mut crate::relay::pipe_pool::PipePool::new(0));
        assert_eq!(world.budget.held(), 0);
    }

    /// Regression: with HEAL, a connection counted the bytes of its last remote alone, and was as old as that.
    #[test]
    fn a_connection_that_is_made_again_has_the_totals_and_the_age_of_all() {
        let mut world = World::new(0);
        let (remote, peer) = connection(FaultProfile::default(), 1000);
        let first = relaying(&mut world, ConnectedLink::Stream(remote_endpoint(remote)));
        let mut outages = first.outages();
        let messages = Some(MessageCounts { received: 1, sent: 2 });
        outages.handle_lost(Duration::from_secs(1), RelayTotals { received: 10, sent: 20, messages });
        let start = world.now;
        drop(peer);
        world.now += Duration::from_secs(3600);
        let (remote, peer) = connection(FaultProfile::default(), 1000);
        let connected = Connected {
            request: ConnectRequest { target: first.target().clone(), sent_ahead: Vec::new() },
            link: ConnectedLink::Stream(remote_endpoint(remote)),
            own_connection: None,
            response: None,
            times: ConnectTimes::default(),
        };
        let before = Before { outages, resumed: None };
        let parameters = Parameters::default();
        let mut again: Relaying<SimNetwork> =
            world.with_context(1, |cx| Relaying::new(connected, Vec::new(), Some(before), &parameters, cx));
        peer.wire_mut().send_bytes(b"data");
        again.handle_remote_event(peer.wire_mut().take_event());
        let (plugin, _plugin_peer) = connection(FaultProfile::default(), 1000);
        world.with_context(1, |cx| {
            again.turn(pid(), &mut SocketEndpoint::new(plugin, Readiness::FRESH), &parameters, false, cx)
        });
        assert_eq!((again.totals().received, again.totals().sent), (14, 20));
        assert_eq!((again.outages().first_connected_at, again.connected_at()), (start, world.now));
    }

    #[test]
    fn a_plugin_that_does_not_read_its_greeting_leaves_no_deadline_in_the_past() {
        let mut world = World::new(0);
        let (remote, _peer) = connection(FaultProfile::default(), 1000);
        let remote = SocketEndpoint::new(RemoteStream::Plain(remote), Readiness::FRESH);
        let upgraded = Upgraded { subprotocol: None, deflate: None, head: None, rest: Vec::new() };
        let target = Target::parse_prefix(b"ws://h/").unwrap().0;
        let request = ConnectRequest { target, sent_ahead: Vec::new() };
        let connected = Connected {
            request,
            link: ConnectedLink::WebSocket(remote, upgraded),
            own_connection: None,
            response: None,
            times: ConnectTimes::default(),
        };
        let parameters = Parameters { receive_timeout: Some(Duration::from_secs(30)), ..Parameters::default() };
        let connect_reply = b"OK CONN\n".to_vec();
        let mut relaying: Relaying<SimNetwork> =
            world.with_context(1, |cx| Relaying::new(connected, connect_reply, None, &parameters, cx));
        let timing = Timing {
            receive: parameters.receive_timeout,
            idle: Some(Duration::from_secs(3600)),
            ..crate::testing::TIMING
        };
        let idle = world.now + Duration::from_secs(3600);
        assert_eq!(relaying.deadline(&timing), Some(idle));
        assert_eq!(relaying.handle_timeout(&timing, idle), Some(CloseReason::Idle));
        let (plugin, _plugin_peer) = connection(FaultProfile::default(), 1000);
        assert!(relaying.send_connect_reply(&mut SocketEndpoint::new(plugin, Readiness::FRESH)).unwrap());
        assert!(relaying.deadline(&timing).unwrap() <= world.now + Duration::from_secs(30));
    }

    #[test]
    fn the_plugin_is_greeted_before_any_byte_of_the_remote() {
        let mut world = World::new(0);
        let (remote, peer) = connection(FaultProfile::default(), 1000);
        peer.wire_mut().send_bytes(b"data");
        let remote = SocketEndpoint::new(RemoteStream::Plain(remote), Readiness::FRESH);
        let mut relaying = relaying(&mut world, ConnectedLink::Stream(remote));
        let (plugin, plugin_peer) = connection(FaultProfile::default(), 4);
        let mut plugin = SocketEndpoint::new(plugin, Readiness::FRESH);
        assert!(!relaying.send_connect_reply(&mut plugin).unwrap() && !relaying.is_connect_reply_sent());
        assert_eq!(relaying.held(), 8 + relaying.target().held(), "the reply to CONN, of which half is written");
        plugin_peer.wire_mut().make_room(1000);
        plugin.handle_event(plugin_peer.wire_mut().take_event());
        assert!(relaying.send_connect_reply(&mut plugin).unwrap() && relaying.is_connect_reply_sent());
        let turn = world.with_context(1, |cx| relaying.turn(pid(), &mut plugin, &Parameters::default(), false, cx));
        assert!(turn.delivered);
        assert_eq!(plugin_peer.wire().received, b"OK CONN\ndata");
        assert_eq!(plugin.stream().held(), 0);
    }
}
