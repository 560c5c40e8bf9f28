//! One plugin connection, from its greeting to its end.
//!
//! ```text
//! Setup --CONN--> Connecting --connected--> Relaying --both sides ended--> Closed
//!   |     \        ^    |                    |  |  ^
//!   |  (KEEP)      |    | failed      ended  |  |  | ATCH (a kept plugin comes back)
//!   |  Claiming ---'    v                    |  |  |
//!   +-- QUIT, ERR --> Draining --> Closed <--'  '--+-- remote ended (KEEP) --> UnreadTail --> Closed
//!   '-- LSTN --> Listening                         '-- remote ended (HEAL) --> Healing --connected--> Relaying
//!
//! Opening (a client of [serve]) --request--> Connecting --connected, 101--> Relaying --> Draining: close frames --> Closed
//!    ^ '-- refused --> Closed                    | failed: 502
//!    '-------------------------------------------'
//!
//! Opening (a client of [status]) --WebSocket, 101--> Watching --> Draining: close frames --> Closed
//!      '-- page, refused --> Closed
//!
//! Arriving (at the port of a session that listens) --ACPT of another session in setup mode--> Relaying
//!   '-- refused, not accepted in time --> Closed
//! ```
//!
//! `docs/architecture.md` says what each stage is for.
//!
//! A session owns the plugin's side, the remote's, and the plugin's notifications. Each stage is a type of its own
//! ([`stages`]) that knows neither the session nor its siblings: its turn returns an outcome, of which a method of the session
//! makes the next stage. These methods stand in the files here that are named by a verb (`set_up`, `connect`, `relay`, `heal`,
//! `keep`, `listen`, `arrive`, `serve`, `end`), and in `status_port`. What several stages need stands in files that are named by a
//! noun. A session knows nothing of other sessions: what concerns them it asks of the daemon, by [`TurnResult::Request`].
//!
//! Contract: after every `handle_*`, call [`Session::turn`] until it no longer returns [`TurnResult::Again`], then arm a
//! timer for [`Session::deadline`]. Where the deadline has passed, call [`Session::assume_readable`] and
//! [`Session::turn`] first: bytes may have come while the machine slept, and no event has reported them yet. Only then
//! [`Session::handle_timeout`], and another turn.

mod arrive;
mod connect;
mod connect_times;
mod connection;
pub(crate) mod context;
mod draining;
mod end;
mod ended;
mod heal;
mod keep;
mod listen;
mod memory;
mod notifier;
mod opening;
mod outages;
mod outbox;
mod peer;
mod pid;
mod plugin;
mod plugin_port;
mod relay;
mod remote;
mod send_failures;
mod serve;
mod set_up;
mod setup_commands;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod simulation;
mod snapshot;
mod stages;
mod status_port;
mod time;
mod tls_handshake;
mod traces;

pub(crate) use arrive::{AcceptError, not_served};
pub(crate) use connect_times::{ConnectStep, ConnectTimes};
pub(crate) use context::{DaemonRequest, Key, SessionContext, TurnResult};
pub(crate) use ended::{EndedConnection, EndedConnections};
pub(crate) use keep::{KeptEnd, KeptState};
pub(crate) use pid::{Pid, PidSource};
pub(crate) use plugin_port::{Owner, PluginPort, WaitingArrival};
pub(crate) use send_failures::SendFailures;
pub(crate) use snapshot::{HealingSnapshot, Snapshot, SnapshotState};
pub(crate) use status_port::StatusPage;
pub(crate) use traces::Traces;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::client::ClientKey;
use crate::config::DirectListener;
use crate::net::endpoint::SocketEndpoint;
use crate::net::network::{MioNetwork, Network};
use crate::net::readiness::Readiness;
use crate::net::resolver::ResolveResult;
use crate::protocol::options::Parameters;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::tls::TlsStep;
use connection::ConnectRequest;
use draining::Draining;
use listen::Checking;
use notifier::Notifier;
use peer::Peer;
use plugin::PluginSide;
use stages::arriving::Arriving;
use stages::connecting::Connecting;
use stages::healing::Healing;
use stages::listening::Listening;
use stages::relaying::Relaying;
use stages::setup::Setup;
use stages::unread_tail::UnreadTail;
use stages::watching::Watching;

/// Reads in one turn before other sessions have theirs, outside of echo mode: a layer (TLS) may return nothing for many
/// reads, and a plugin that is ending may never stop sending.
const TURN_READS: usize = 16;

/// One plugin connection.
#[derive(Debug)]
pub(crate) struct Session<N: Network = MioNetwork> {
    pid: Pid,
    peer: Peer,
    started: Instant,
    plugin: PluginSide<N::Stream>,
    parameters: Parameters,
    notifier: Notifier,
    stage: Stage<N>,
    /// Bytes of the stage that are counted in the budget. Relays and a kept plugin count their own. 4 bytes, to keep idle
    /// sessions small.
    counted: u32,
}

/// Where a session stands. Each stage owns what only it needs. Boxed, so that relaying, in which most sessions are, costs
/// little.
#[derive(Debug)]
enum Stage<N: Network> {
    /// Commands are read.
    Setup(Box<Setup>),
    /// A client of `[serve]` or `[status]` opens its WebSocket, gets its page, or is told why not.
    Opening,
    /// A client of `[status]` is sent the status over its WebSocket.
    Watching(Box<Watching>),
    /// A LSTN waits for a thread to say whether its certificate can be used.
    Checking(Box<Checking>),
    /// The plugin is told of connections that arrive.
    Listening(Box<Listening>),
    /// The connection has arrived, and no plugin has accepted it yet.
    Arriving(Box<Arriving<N::Stream>>),
    /// A CONN with KEEP waits for the daemon to say whether its pid is free.
    Claiming(Box<ConnectRequest>),
    /// A CONN is under way.
    Connecting(Box<Connecting<N>>),
    /// Bytes pass.
    Relaying(Box<Relaying<N>>),
    /// The remote has ended, and the proxy connects again (HEAL).
    Healing(Box<Healing<N>>),
    /// The remote has ended; a kept plugin reads what it left.
    UnreadTail(Box<UnreadTail>),
    /// The plugin gets time to read its last reply.
    Draining(Box<Draining>),
    /// The session is over.
    Closed,
}

/// What a turn of a stage leads to.
enum Next<N: Network> {
    /// The stage stays.
    Stay(TurnResult),
    /// The next stage takes over at once.
    Enter(Stage<N>),
}

impl<N: Network> Session<N> {
    /// A plugin that has just connected. It is greeted.
    pub(crate) fn greet(pid: Pid, stream: N::Stream, peer: SocketAddr, cx: &SessionContext<'_, N>) -> Self {
        let greeting = reply::greeting(pid.to_string().as_bytes());
        let stage = Stage::Setup(Box::new(Setup::new(greeting, cx.now, cx.config.limits.line)));
        Self::new(pid, stream, peer, Parameters::default(), stage, cx.now)
    }

    /// A client of a direct listener: no greeting, no setup mode.
    pub(crate) fn direct(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        direct: &DirectListener,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let parameters = direct.parameters.clone();
        let request = ConnectRequest { target: direct.target.clone(), sent_ahead: Vec::new() };
        let mut session = Self::new(pid, stream, peer, parameters, Stage::Closed, cx.now);
        session.stage = session.connect(request, cx);
        session
    }

    fn new(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        parameters: Parameters,
        stage: Stage<N>,
        now: Instant,
    ) -> Self {
        let plugin = PluginSide::Attached(SocketEndpoint::new(stream, Readiness::ACCEPTED));
        Self::with_plugin(pid, plugin, Peer::Plugin(peer), parameters, stage, now)
    }

    fn with_plugin(
        pid: Pid,
        plugin: PluginSide<N::Stream>,
        peer: Peer,
        parameters: Parameters,
        stage: Stage<N>,
        now: Instant,
    ) -> Self {
        Self { pid, peer, started: now, plugin, parameters, notifier: Notifier::Unopened, stage, counted: 0 }
    }

    /// The proxy's name for this connection.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The address at which the session is counted, IPv4 if it is v4-mapped: the plugin's, or that of a remote that has arrived.
    pub(crate) fn address(&self) -> IpAddr {
        self.peer.address().ip().to_canonical()
    }

    /// The address and port of the client.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// [`Session::address`] as it is counted.
    pub(crate) fn client(&self) -> ClientKey {
        ClientKey::of(self.peer.address().ip())
    }

    /// True in echo mode.
    pub(crate) fn is_relaying(&self) -> bool {
        matches!(self.stage, Stage::Relaying(_))
    }

    /// True in echo mode, and while the remote is away (HEAL): what TRAC may show.
    pub(crate) fn may_be_traced(&self) -> bool {
        matches!(self.stage, Stage::Relaying(_) | Stage::Healing(_))
    }

    /// True in setup mode.
    pub(crate) fn is_in_setup(&self) -> bool {
        matches!(self.stage, Stage::Setup(_))
    }

    /// True if the session may end when places are scarce: in setup mode, it has given no command for `limit`. One of loopback
    /// only if STAT has lifted the limit on its silence, and it has been silent for as long.
    pub(crate) fn is_idle_in_setup(&self, limit: Duration, now: Instant) -> bool {
        let Stage::Setup(setup) = &self.stage else { return false };
        if self.client().is_loopback() { setup.is_idle_watcher(limit, now) } else { setup.gives_no_command(limit, now) }
    }

    /// An event of the plugin's socket.
    pub(crate) fn handle_plugin_event(&mut self, event: Readiness) {
        self.plugin.handle_event(event);
    }

    /// An event of one of the remote's sockets.
    pub(crate) fn handle_remote_event(&mut self, event: Readiness) {
        match &mut self.stage {
            Stage::Connecting(connecting) => connecting.handle_remote_event(event),
            Stage::Relaying(relaying) => relaying.handle_remote_event(event),
            Stage::Healing(healing) => healing.handle_remote_event(event),
            Stage::Arriving(arriving) => arriving.handle_event(event),
            Stage::Setup(_)
            | Stage::Opening
            | Stage::Watching(_)
            | Stage::Checking(_)
            | Stage::Listening(_)
            | Stage::Claiming(_)
            | Stage::UnreadTail(_)
            | Stage::Draining(_)
            | Stage::Closed => {}
        }
    }

    /// The addresses of `host`, or why there are none.
    pub(crate) fn handle_resolved(&mut self, host: &str, answer: ResolveResult) {
        match &mut self.stage {
            Stage::Connecting(connecting) => connecting.handle_resolved(host, answer),
            Stage::Healing(healing) => healing.handle_resolved(host, answer),
            _ => {}
        }
    }

    /// A part of a TLS handshake is computed.
    pub(crate) fn handle_tls_step(&mut self, step: TlsStep) {
        match &mut self.stage {
            Stage::Connecting(connecting) => connecting.handle_tls_step(step),
            Stage::Healing(healing) => healing.handle_tls_step(step),
            Stage::Opening => drop(self.plugin.opening_mut().map(|client| client.opening.handle_tls_step(step))),
            Stage::Arriving(arriving) => arriving.handle_tls_step(step),
            Stage::Checking(checking) => checking.outcome = Some(step.outcome),
            _ => {}
        }
    }

    /// The daemon's answer to a request.
    pub(crate) fn reply(&mut self, bytes: &[u8]) {
        match &mut self.stage {
            Stage::Setup(setup) => setup.reply(bytes),
            Stage::Listening(listening) => listening.reply(bytes),
            _ => {}
        }
    }

    /// Does what can be done now.
    pub(crate) fn turn(&mut self, cx: &mut SessionContext<'_, N>) -> TurnResult {
        let user_timeout = self.user_timeout(&cx.config.limits);
        self.find_lost_peers(user_timeout.as_ref(), cx.now);
        let result = loop {
            let next = match self.stage {
                Stage::Setup(_) | Stage::Listening(_) => self.setup_turn(cx),
                Stage::Opening => self.opening_turn(cx),
                Stage::Watching(_) => self.watching_turn(cx),
                Stage::Checking(_) => self.checking_turn(cx),
                Stage::Arriving(_) => self.arriving_turn(cx),
                Stage::Claiming(_) => Next::Stay(TurnResult::Wait),
                Stage::Connecting(_) => self.connecting_turn(cx),
                Stage::Relaying(_) => self.relaying_turn(cx),
                Stage::Healing(_) => self.healing_turn(cx),
                Stage::UnreadTail(_) => self.tail_turn(cx),
                Stage::Draining(_) => self.draining_turn(cx),
                Stage::Closed => Next::Stay(TurnResult::Closed),
            };
            match next {
                Next::Stay(result) => break result,
                Next::Enter(stage) => self.enter(stage, cx),
            }
        };
        self.end_turn_of_sockets(user_timeout.as_ref(), cx.now);
        self.account(cx.budget);
        result
    }

    /// Enters a stage. The end of the connection is news for the plugin.
    fn enter(&mut self, stage: Stage<N>, cx: &mut SessionContext<'_, N>) {
        match &mut self.stage {
            Stage::Connecting(connecting) => connecting.cancel(cx),
            Stage::Relaying(relaying) => relaying.relay_mut().release(cx.budget, cx.pipes),
            Stage::Healing(healing) => healing.cancel(cx),
            Stage::Opening => drop(self.plugin.opening_mut().map(|client| client.opening.cancel(cx))),
            Stage::Arriving(arriving) => arriving.cancel(cx),
            Stage::Checking(_) => cx.handshakes.cancel(cx.key),
            _ => {}
        }
        if matches!(stage, Stage::Draining(_) | Stage::Closed) {
            self.notify_closed(cx);
            self.plugin.release(cx.budget);
            self.parameters.drop_connect_settings();
        }
        self.stage = stage;
        self.account(cx.budget);
    }

    /// Where the connection leads, if that is known.
    pub(crate) fn target(&self) -> Option<&Target> {
        match &self.stage {
            Stage::Setup(_)
            | Stage::Opening
            | Stage::Watching(_)
            | Stage::Checking(_)
            | Stage::Listening(_)
            | Stage::Arriving(_)
            | Stage::Draining(_)
            | Stage::Closed => None,
            Stage::Claiming(request) => Some(&request.target),
            Stage::Connecting(connecting) => Some(connecting.target()),
            Stage::Relaying(relaying) => Some(relaying.target()),
            Stage::Healing(healing) => Some(healing.target()),
            Stage::UnreadTail(tail) => Some(&tail.target),
        }
    }

    /// Has the next turn read the sockets, whatever events have reported.
    pub(crate) fn assume_readable(&mut self) {
        self.plugin.endpoint_mut().assume_readable();
        match &mut self.stage {
            Stage::Relaying(relaying) => relaying.assume_readable(),
            Stage::Arriving(arriving) => arriving.assume_readable(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection takes besides its sockets and its target: `scripts/bench --quick --only connections` shows it.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_idle_session_is_small() {
        // In debug builds mio keeps 16 bytes more with each socket.
        let debug = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size_of::<Session>() <= 232 + debug, "{}", size_of::<Session>());
        assert!(size_of::<Relaying<MioNetwork>>() <= 280 + debug, "{}", size_of::<Relaying<MioNetwork>>());
    }
}
