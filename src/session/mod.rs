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
//! A session owns the plugin's side, the remote's, and the plugin's notifications. Each stage is a type of its own that
//! knows neither the session nor its siblings: its turn returns an outcome, and [`Session::turn`] makes the next stage of
//! it. A session knows nothing of other sessions: what concerns them it asks of the daemon, by [`TurnResult::Request`].
//!
//! Contract: after every `handle_*`, call [`Session::turn`] until it no longer returns [`TurnResult::Again`], then arm a
//! timer for [`Session::deadline`]. Where the deadline has passed, call [`Session::assume_readable`] and
//! [`Session::turn`] first: bytes may have come while the machine slept, and no event has reported them yet. Only then
//! [`Session::handle_timeout`], and another turn.

mod connect_times;
pub(crate) mod context;
mod ended;
mod notifier;
mod outbox;
mod peer;
mod pid;
mod plugin;
mod plugin_port;
mod remote;
mod send_failures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod simulation;
mod snapshot;
mod stages;
mod traces;

pub(crate) use connect_times::{ConnectStep, ConnectTimes};
pub(crate) use context::{DaemonRequest, Key, SessionContext, TurnResult};
pub(crate) use ended::{EndedConnection, EndedConnections};
pub(crate) use pid::{Pid, PidSource};
pub(crate) use plugin_port::{Owner, PluginPort};
pub(crate) use send_failures::SendFailures;
pub(crate) use snapshot::{HealingSnapshot, Snapshot, SnapshotState};
pub(crate) use stages::watching::StatusPage;
pub(crate) use traces::Traces;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use crate::access::RequestOrigin;
use crate::client::ClientKey;
use crate::config::{Config, DirectListener, Limits};
use crate::net::endpoint::{Endpoint, SocketEndpoint};
use crate::net::network::{MioNetwork, Network};
use crate::net::readiness::Readiness;
use crate::net::resolver::ResolveResult;
use crate::net::user_timeout::UserTimeoutSettings;
use crate::notify::Recipient;
use crate::notify::Schedule;
use crate::protocol::command::KeptRequest;
use crate::protocol::connect_error::ConnectError;
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::number;
use crate::protocol::options::{OptionError, Parameters, Protocol};
use crate::protocol::reply;
use crate::protocol::target::{self, Target};
use crate::relay::memory_budget::{HeldKinds, MemoryBudget, RESERVE};
use crate::relay::{CloseReason, RelayTurn, Timing};
use crate::tls::{ServerTlsSettings, TlsOutcome, TlsStep};
use crate::websocket::close;
use crate::websocket::handshake::server::{AcceptOptions, Refusal, ServerRules, UpgradeRequest};
use notifier::Notifier;
use peer::Peer;
use plugin::kept::{Gap, KeptPlugin};
use plugin::served::ServedClient;
use plugin::{ConfiguredPort, PluginSide, ServeChoice, ServedOpening};
use stages::arriving::{AcceptedArrival, Arriving, NotOffered};
use stages::connecting::{ConnectOutcome, Connected, ConnectedLink, Connecting};
use stages::draining::{DrainOutcome, Draining};
use stages::healing::{HealOutcome, Healing, LostRemote};
use stages::listening::Listening;
use stages::opening::{ClientProtocol, Opening, OpeningOutcome};
use stages::relaying::{Before, Relaying};
use stages::setup::{ConnectRequest, Setup, SetupContext, SetupOutcome};
use stages::unread_tail::{TailOutcome, UnreadTail};
use stages::watching::{self, WatchOutcome, Watching};

/// Reads in one turn before other sessions have theirs, outside of echo mode: a layer (TLS) may return nothing for many
/// reads, and a plugin that is ending may never stop sending.
const TURN_READS: usize = 16;

/// Turns given to an attached plugin's unread bytes before ATCH replaces it. What is left then is what the remote does not
/// take.
const ATTACH_TURNS: usize = 16;

/// The subprotocol of noVNC and websockify. A browser that offers subprotocols fails a connection without one, so this one is
/// chosen where the configuration names none.
const BINARY_SUBPROTOCOL: &str = "binary";

/// Longer than any connection lasts.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

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

/// A LSTN whose certificate is being read.
#[derive(Debug)]
struct Checking {
    setup: Box<Setup>,
    /// What a handshake with the certificate comes to, before anything is received: it is not made.
    outcome: Option<TlsOutcome>,
}

/// What a turn of a stage leads to.
enum Next<N: Network> {
    /// The stage stays.
    Stay(TurnResult),
    /// The next stage takes over at once.
    Enter(Stage<N>),
}

/// Whether a CONN, ATCH or DROP may use the pid of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptState {
    /// It is connecting, or a plugin is attached.
    Taken,
    /// No plugin is attached.
    Parked,
    /// It is ending, or was never kept.
    Over,
}

/// What the owner of a listener is told of an arrival.
#[derive(Debug)]
pub(crate) struct Introduction {
    /// The line INCO, and what follows it.
    pub line: Vec<u8>,
    /// The subprotocol that the listener prefers of those that the client offers.
    subprotocol: Option<Box<str>>,
    /// How long the arrival waits to be accepted.
    wait: Duration,
}

/// The refusal of an arrival that no plugin takes.
pub(crate) fn not_served() -> Refusal {
    Refusal::new(503, "No plugin takes the connection now.")
}

/// Why an ACPT fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// No arrival with that id waits.
    NoSuchId,
    /// An option is none for this arrival.
    Option(OptionError),
    /// KEEP: the pid cannot be had, and why.
    Pid(&'static str),
}

/// Why a session is kept no longer; displays as the log shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptEnd {
    /// KEEP has run out.
    Expired,
    /// By DROP.
    Dropped,
    /// A new connection has taken its pid: the plugin is not notified.
    Replaced,
}

impl fmt::Display for KeptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "no plugin has come for it",
            Self::Dropped => "DROP",
            Self::Replaced => "replaced by a new connection",
        })
    }
}

/// A plugin's connection on its way from a session in setup mode to a kept one (ATCH).
#[derive(Debug)]
pub(crate) struct PluginConnection<S> {
    socket: SocketEndpoint<S>,
    /// What the plugin has sent behind its ATCH.
    sent_ahead: Vec<u8>,
    peer: SocketAddr,
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

    /// A client that has connected to `port` of `[serve]`. `tls`: the port speaks TLS.
    pub(crate) fn served(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        (port, tls): (u16, Option<&ServerTlsSettings>),
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let opening = Opening::new(pid, socket, tls, ClientProtocol::WebSocket, cx);
        Self::with_opening(pid, opening, peer, ConfiguredPort::Serve(port), cx.now)
    }

    /// A client that has connected to the port of `[status]`.
    pub(crate) fn status(pid: Pid, stream: N::Stream, peer: SocketAddr, cx: &mut SessionContext<'_, N>) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let opening = Opening::new(pid, socket, None, ClientProtocol::Http, cx);
        Self::with_opening(pid, opening, peer, ConfiguredPort::Status, cx.now)
    }

    fn with_opening(
        pid: Pid,
        opening: Opening<N::Stream>,
        peer: SocketAddr,
        port: ConfiguredPort,
        now: Instant,
    ) -> Self {
        let opening = ServedOpening { opening, port, choice: ServeChoice::default() };
        let plugin = PluginSide::Opening(Box::new(opening));
        Self::with_plugin(pid, plugin, Peer::Plugin(peer), Parameters::default(), Stage::Opening, now)
    }

    /// A connection that has arrived at `listener`, which is the address of `port`. Its socket is registered under the token of
    /// remotes.
    pub(crate) fn arrive(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        listener: SocketAddr,
        port: &PluginPort,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let stage = Stage::Arriving(Box::new(Arriving::new(pid, socket, listener, port, cx)));
        Self::with_plugin(pid, PluginSide::GONE, Peer::remote(peer), Parameters::default(), stage, cx.now)
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

    /// [`Session::address`] as it is counted.
    pub(crate) fn client(&self) -> ClientKey {
        ClientKey::of(self.peer.address().ip())
    }

    /// True in echo mode.
    pub(crate) fn is_relaying(&self) -> bool {
        matches!(self.stage, Stage::Relaying(_))
    }

    /// True in setup mode.
    pub(crate) fn is_in_setup(&self) -> bool {
        matches!(self.stage, Stage::Setup(_))
    }

    /// Bytes of replies in setup mode, or of pages, that the client has yet to read.
    pub(crate) fn unread(&self) -> usize {
        match &self.stage {
            Stage::Setup(setup) => setup.unread(),
            Stage::Opening => self.plugin.held(),
            _ => 0,
        }
    }

    /// True if STAT has lifted the limit on silence in setup mode, and the plugin has been silent for longer than `limit`.
    pub(crate) fn is_idle_watcher(&self, limit: Duration, now: Instant) -> bool {
        matches!(&self.stage, Stage::Setup(setup) if setup.is_idle_watcher(limit, now))
    }

    /// Ends an idle watcher, since others need its place.
    pub(crate) fn end_watcher(&mut self, cx: &mut SessionContext<'_, N>) {
        log::info!("{} silent in setup mode for too long, while there are too many connections", self.pid);
        self.enter(Stage::Closed, cx);
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

    /// The daemon's answer to [`KeptRequest::Claim`]: the pid is free, or why it cannot be had. In that case its owner is
    /// not notified: it is another session's plugin.
    pub(crate) fn handle_claimed(&mut self, claim: Result<(), &'static str>, cx: &mut SessionContext<'_, N>) {
        let Stage::Claiming(request) = std::mem::replace(&mut self.stage, Stage::Closed) else { return };
        let next = match claim {
            Ok(()) => self.connect(*request, cx),
            Err(reason) => {
                self.notifier = Notifier::Closed;
                let protocol = Protocol::of(&request.target, self.parameters.transport);
                self.refuse(&request.target, protocol, &ConnectError::Pid(reason), cx.now)
            }
        };
        self.enter(next, cx);
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

    /// The user timeout of the session's connections.
    fn user_timeout(&self, limits: &Limits) -> Option<UserTimeoutSettings> {
        let (keep_alive, epoch) = (limits.keep_alive.is_some(), self.started);
        limits.lost.map(|timeout| UserTimeoutSettings { timeout, keep_alive, epoch })
    }

    /// Takes the connection of a peer that has vanished for broken.
    fn find_lost_peers(&mut self, user_timeout: Option<&UserTimeoutSettings>, now: Instant) {
        let seconds = || number::format(user_timeout.map_or(0.0, |settings| settings.timeout.as_secs_f64()));
        if self.plugin.find_lost_peer(user_timeout, now) {
            log::info!("{} lost: no answer from the plugin at {} for {} s", self.pid, self.peer.plugin(), seconds());
        }
        if let Stage::Relaying(relaying) = &mut self.stage
            && relaying.stream_mut().is_some_and(|socket| socket.handle_timeout(user_timeout, now))
        {
            log::info!("{} lost: no answer from {} for {} s", self.pid, relaying.target(), seconds());
        }
    }

    fn end_turn_of_sockets(&mut self, user_timeout: Option<&UserTimeoutSettings>, now: Instant) {
        self.plugin.end_turn_of_socket(user_timeout, now);
        if let Stage::Relaying(relaying) = &mut self.stage
            && let Some(socket) = relaying.stream_mut()
        {
            socket.end_turn(user_timeout, now);
        }
    }

    fn setup_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let plugin = self.plugin.endpoint_mut();
        let connect_timeout = cx.config.limits.connect;
        let mut setup_cx = SetupContext { now: cx.now, scratch: cx.scratch, budget: cx.budget, connect_timeout };
        let before = self.parameters.held();
        let outcome = match &mut self.stage {
            Stage::Setup(setup) => setup.turn(plugin, &mut self.parameters, &mut setup_cx),
            Stage::Listening(listening) => listening.turn(plugin, &mut self.parameters, &mut setup_cx),
            _ => return Next::Stay(TurnResult::Wait),
        };
        let memory = before + cx.budget.left() + RESERVE;
        match outcome {
            // A command has set what there is no memory for.
            SetupOutcome::Wait | SetupOutcome::Again if self.parameters.held() > memory => {
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply::line_too_long(), cx.now))))
            }
            SetupOutcome::Wait => Next::Stay(TurnResult::Wait),
            SetupOutcome::Again => Next::Stay(TurnResult::Again),
            SetupOutcome::Request(DaemonRequest::Listen) => self.begin_to_listen(cx),
            SetupOutcome::Request(request) => Next::Stay(TurnResult::Request(request)),
            SetupOutcome::Connect(request) if request.held() + self.parameters.held() > memory => {
                let protocol = Protocol::of(&request.target, self.parameters.transport);
                Next::Enter(self.refuse(&request.target, protocol, &ConnectError::NO_MEMORY, cx.now))
            }
            SetupOutcome::Connect(request) if self.parameters.keep.is_some() => {
                self.stage = Stage::Claiming(Box::new(request));
                Next::Stay(TurnResult::Request(DaemonRequest::Kept(KeptRequest::Claim)))
            }
            SetupOutcome::Connect(request) => Next::Enter(self.connect(request, cx)),
            SetupOutcome::Close(reply) => {
                // The value of an unknown option may be a secret: only its name is logged.
                let shown = reply.split(|&byte| byte == b'=').next().unwrap_or_default();
                log::debug!("{} closes setup mode: {}", self.pid, String::from_utf8_lossy(shown).trim_end());
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))))
            }
            SetupOutcome::Lost => {
                let what =
                    if matches!(self.stage, Stage::Setup(_)) { "left in setup mode" } else { "listens no longer" };
                log::info!("{} {what}", self.pid);
                Next::Enter(Stage::Closed)
            }
        }
    }

    fn opening_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Some(client) = self.plugin.opening_mut() else { return Next::Enter(Stage::Closed) };
        match client.opening.turn(cx) {
            OpeningOutcome::Wait => Next::Stay(TurnResult::Wait),
            OpeningOutcome::Again => Next::Stay(TurnResult::Again),
            OpeningOutcome::Over => Next::Enter(Stage::Closed),
            OpeningOutcome::Requested => {
                let ConfiguredPort::Serve(port) = client.port else { return self.open_status(cx) };
                let Some(request) = client.opening.request() else { return Next::Stay(TurnResult::Again) };
                match find_served(cx.config, port, request) {
                    Ok((choice, parameters, target)) => {
                        (client.choice, self.parameters) = (choice, parameters);
                        let request = ConnectRequest { target, sent_ahead: Vec::new() };
                        Next::Enter(self.connect(request, cx))
                    }
                    Err(refusal) => {
                        client.opening.refuse(refusal, cx.now);
                        Next::Stay(TurnResult::Again)
                    }
                }
            }
        }
    }

    /// A client of `[status]` has sent its request.
    fn open_status(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Some(client) = self.plugin.opening_mut() else { return Next::Enter(Stage::Closed) };
        let config = &cx.config.status;
        let asked = match (client.opening.page(), client.opening.request()) {
            (Some(page), _) => StatusPage::find(page, config).map(Some),
            (None, Some(request)) => watching::check_upgrade(request, config).map(|()| None),
            (None, None) => return Next::Stay(TurnResult::Again),
        };
        match asked {
            Ok(Some(page)) => Next::Stay(TurnResult::Request(DaemonRequest::StatusPage(page))),
            Ok(None) => {
                client.choice.ping_interval = Some(watching::PING_INTERVAL);
                // Its messages are put together by no relay.
                self.accept_served(Protocol::Tcp, cx.now);
                Next::Enter(Stage::Watching(Box::new(Watching::new(cx.now))))
            }
            Err(refusal) => {
                client.opening.refuse(refusal, cx.now);
                Next::Stay(TurnResult::Again)
            }
        }
    }

    fn watching_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let (Stage::Watching(watching), Some(client)) = (&mut self.stage, self.plugin.served_mut()) else {
            return Next::Enter(Stage::Closed);
        };
        client.begin_turn(cx.now, cx.budget);
        let outcome = watching.turn(client, cx.scratch, cx.now);
        let again = client.end_turn(cx.budget);
        match outcome {
            WatchOutcome::Wait if again => Next::Stay(TurnResult::Again),
            WatchOutcome::Wait => Next::Stay(TurnResult::Wait),
            WatchOutcome::Again => Next::Stay(TurnResult::Again),
            WatchOutcome::Update => Next::Stay(TurnResult::Request(DaemonRequest::StatusUpdate)),
            WatchOutcome::Ended => {
                client.close(close::NORMAL, "");
                client.drain();
                Next::Enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))))
            }
            WatchOutcome::Lost => Next::Enter(Stage::Closed),
        }
    }

    /// The daemon's answer to [`DaemonRequest::StatusPage`]: a response, or why there is none.
    pub(crate) fn respond(&mut self, response: Result<Vec<u8>, Refusal>, now: Instant) {
        let Some(client) = self.plugin.opening_mut() else { return };
        match response {
            Ok(response) => client.opening.respond(response, now),
            Err(refusal) => client.opening.refuse(refusal, now),
        }
    }

    /// The daemon's answer to [`DaemonRequest::StatusUpdate`].
    pub(crate) fn send_status(&mut self, status: &str, cx: &mut SessionContext<'_, N>) {
        let (Stage::Watching(_), Some(client)) = (&self.stage, self.plugin.served_mut()) else { return };
        client.begin_turn(cx.now, cx.budget);
        if !client.send_text(status) {
            log::debug!("{} is not sent the status: there is no memory for it, or it has gone", self.pid);
        }
        client.end_turn(cx.budget);
        self.account(cx.budget);
    }

    /// The plugin has said LSTN. If TLS is to be spoken, a thread reads the certificate before the daemon is asked.
    fn begin_to_listen(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let tls = self.listen_settings().and_then(|settings| settings.tls.as_ref());
        let Some(tls) = tls else { return Next::Stay(TurnResult::Request(DaemonRequest::Listen)) };
        cx.handshakes.begin_server(cx.key, tls);
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Setup(setup) => Next::Enter(Stage::Checking(Box::new(Checking { setup, outcome: None }))),
            other => Next::Enter(other),
        }
    }

    fn checking_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Checking(checking) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        match checking.outcome.take() {
            None if self.plugin.endpoint().is_closed() => Next::Enter(Stage::Closed),
            None => Next::Stay(TurnResult::Wait),
            Some(TlsOutcome::Failed(error)) => {
                log::info!("{} does not listen: {error}", self.pid);
                let reply = reply::failed("LSTN", error.to_string());
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))))
            }
            Some(TlsOutcome::Pending(_) | TlsOutcome::Done(_)) => {
                if let Stage::Checking(checking) = std::mem::replace(&mut self.stage, Stage::Closed) {
                    self.stage = Stage::Setup(checking.setup);
                }
                Next::Stay(TurnResult::Request(DaemonRequest::Listen))
            }
        }
    }

    fn arriving_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Arriving(arriving) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        match arriving.turn(cx) {
            OpeningOutcome::Wait => Next::Stay(TurnResult::Wait),
            OpeningOutcome::Again => Next::Stay(TurnResult::Again),
            OpeningOutcome::Requested => Next::Stay(TurnResult::Request(DaemonRequest::Arrived)),
            OpeningOutcome::Over => Next::Enter(Stage::Closed),
        }
    }

    /// The stage that a CONN leads to.
    fn connect(&self, request: ConnectRequest, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        log::debug!("{} connects to {}", self.pid, request.target);
        Stage::Connecting(Box::new(Connecting::new(self.pid, self.origin(), request, &self.parameters, cx)))
    }

    /// What has asked for the connection to the remote.
    fn origin(&self) -> RequestOrigin {
        if self.pid.is_direct() { RequestOrigin::Configuration } else { RequestOrigin::Client(self.peer.address()) }
    }

    fn connecting_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Connecting(connecting) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        // A plugin that has only ended its side may still want the answer.
        if self.plugin.endpoint().is_closed() {
            log::info!("{} left while connecting to {}", self.pid, connecting.target());
            return Next::Enter(Stage::Closed);
        }
        if self.plugin.endpoint().is_read_closed() {
            connecting.handle_half_close(cx.config.limits.connect, cx.now);
        }
        match connecting.turn(&self.parameters, cx) {
            ConnectOutcome::Wait => Next::Stay(TurnResult::Wait),
            ConnectOutcome::Again => Next::Stay(TurnResult::Again),
            ConnectOutcome::Connected(connected) => Next::Enter(self.relay(connected, cx)),
            ConnectOutcome::Failed(error) => {
                let (target, protocol) = (connecting.target().clone(), connecting.protocol());
                Next::Enter(self.refuse(&target, protocol, &error, cx.now))
            }
        }
    }

    /// The stage that a failed CONN leads to.
    fn refuse(&mut self, target: &Target, protocol: Protocol, error: &ConnectError, now: Instant) -> Stage<N> {
        let reason = error.reason(protocol);
        let shown = String::from_utf8_lossy(&reason);
        log::info!("{} not connected to {target}: {shown}", self.pid);
        let Some(client) = self.plugin.opening_mut() else {
            return Stage::Draining(Box::new(Draining::new(reply::connect_failed(error, protocol), now)));
        };
        let sentence = format!("There is no connection to the target: {shown}.");
        client.opening.refuse(Refusal::new(error.http_status(), &sentence), now);
        Stage::Opening
    }

    /// The stage after a successful CONN. A direct listener's client gets no reply.
    fn relay(&mut self, connected: Connected<N>, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let given = self.parameters.notify.as_deref().and_then(|notify| notify.pid());
        let greeting = match given {
            _ if self.pid.is_direct() => Vec::new(),
            _ if self.peer.is_remote() => reply::accepted(self.pid.to_string().as_bytes()),
            Some(given) => reply::connected(given),
            None => reply::connected(self.pid.to_string().as_bytes()),
        };
        let relaying = Relaying::new(connected, greeting, None, &self.parameters, cx);
        self.accept_served(relaying.protocol(), cx.now);
        let what = match relaying.protocol() {
            _ if self.peer.is_remote() => "accepted, connected",
            Protocol::Udp => "sends datagrams",
            _ => "connected",
        };
        log::info!("{} {what} to {}", self.pid, relaying.target());
        if let Some(version) = relaying.tls_version() {
            log::debug!("{} speaks {version}", self.pid);
        }
        if self.parameters.heals().is_none() {
            self.parameters.drop_connect_settings();
        }
        Stage::Relaying(Box::new(relaying))
    }

    /// True if the end of the remote that `relaying` leads to is not the plugin's: the proxy connects again.
    fn heals(&self, relaying: &Relaying<N>) -> bool {
        let plugin = self.plugin.endpoint();
        let may_heal = self.parameters.heals().is_some() && relaying.protocol() != Protocol::Udp;
        may_heal && !plugin.is_closed() && !plugin.is_read_closed()
    }

    /// The stage that follows a relay whose remote has ended for the reason `end`, and to which the proxy connects again.
    fn heal(&mut self, end: CloseReason, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let origin = self.origin();
        let Stage::Relaying(relaying) = &mut self.stage else { return Stage::Closed };
        let relay = relaying.relay();
        let reason = match (relay.failure(), end) {
            (Some(failure), _) => failure.to_owned(),
            (None, CloseReason::RemoteClosed) => "closed".to_owned(),
            (None, end) => end.to_string(),
        };
        let lasted = cx.now.saturating_duration_since(relaying.connected_at());
        let messages = relay.messages().unwrap_or_default();
        let (received, sent, last_heard) = (relay.received(), relay.sent(), relay.last_heard());
        let lost = LostRemote {
            target: relaying.target().clone(),
            protocol: relaying.protocol(),
            reason,
            connected_at: relaying.connected_at(),
            last_heard,
            to_remote: relaying.take_to_remote(),
        };
        let mut outages = relaying.outages();
        outages.handle_lost(lasted, (received, sent), messages);
        if self.parameters.events {
            let recipient = || recipient(&self.parameters, self.pid);
            self.notifier.notify(Schedule::handle_lost, recipient, cx.schedule, cx.now);
        }
        Stage::Healing(Box::new(Healing::new((self.pid, origin), lost, outages, &self.parameters, cx)))
    }

    fn healing_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Healing(healing) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        if let Some(plugin) = self.plugin.kept_mut() {
            plugin.begin_turn(cx.config.limits.history, cx.budget);
        }
        let outcome = healing.turn(self.plugin.endpoint_mut(), &self.parameters, cx);
        let (told, next) = match outcome {
            HealOutcome::Wait { told } => (told, Next::Stay(TurnResult::Wait)),
            HealOutcome::Again { told } => (told, Next::Stay(TurnResult::Again)),
            HealOutcome::Back(connected, resumed) => {
                let before = Before { outages: healing.outages(), resumed };
                let relaying = Relaying::new(*connected, Vec::new(), Some(before), &self.parameters, cx);
                if self.parameters.events {
                    let recipient = || recipient(&self.parameters, self.pid);
                    self.notifier.notify(Schedule::handle_back, recipient, cx.schedule, cx.now);
                }
                (false, Next::Enter(Stage::Relaying(Box::new(relaying))))
            }
            HealOutcome::PluginLost => {
                log::info!("{} closed: {}; {}, lost", self.pid, CloseReason::PluginLost, healing.target());
                (false, Next::Enter(Stage::Closed))
            }
        };
        let mut turn = RelayTurn { delivered: told, ..RelayTurn::default() };
        let mut parked = false;
        if let Some(plugin) = self.plugin.kept_mut() {
            parked = plugin.end_turn(&mut turn, cx.now, cx.budget);
        }
        self.notify(&turn, parked, cx);
        match next {
            Next::Stay(_) if parked => Next::Stay(TurnResult::Again),
            next => next,
        }
    }

    /// Accepts the request of a client of `[serve]`, whose target is connected and speaks `protocol`.
    fn accept_served(&mut self, protocol: Protocol, now: Instant) {
        let Some(client) = self.plugin.opening_mut() else { return };
        let ServeChoice { subprotocol, deflate, ping_interval } = &client.choice;
        let options = AcceptOptions { subprotocol: subprotocol.as_deref(), headers: &[], deflate: *deflate };
        let opened = client.opening.accept(&options);
        self.plugin = match opened {
            Some(opened) => {
                let served = ServedClient::new(opened, *ping_interval, protocol, &self.parameters, now);
                PluginSide::Served(Box::new(served))
            }
            None => PluginSide::GONE,
        };
    }

    fn relaying_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let heals = matches!(&self.stage, Stage::Relaying(relaying) if self.heals(relaying));
        let Stage::Relaying(relaying) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        if !relaying.is_connect_reply_sent() {
            match relaying.send_connect_reply(self.plugin.endpoint_mut()) {
                Ok(true) => {}
                Ok(false) => return Next::Stay(TurnResult::Wait),
                Err(_) => return Next::Enter(self.end_relay(CloseReason::PluginLost, cx)),
            }
            // From now on the plugin may go away.
            if self.parameters.keep.is_some()
                && let PluginSide::Attached(socket) = std::mem::replace(&mut self.plugin, PluginSide::GONE)
            {
                let protocol = relaying.protocol();
                let framing = self.parameters.framing(protocol);
                let plugin = KeptPlugin::new(socket, framing, protocol == Protocol::Udp, cx.now);
                self.plugin = PluginSide::Kept(Box::new(plugin));
            }
            if self.parameters.events {
                let recipient = || recipient(&self.parameters, self.pid);
                self.notifier.notify(Schedule::handle_connected, recipient, cx.schedule, cx.now);
            }
        }
        if let Some(plugin) = self.plugin.kept_mut() {
            plugin.begin_turn(cx.config.limits.history, cx.budget);
        }
        if let Some(client) = self.plugin.served_mut() {
            client.begin_turn(cx.now, cx.budget);
        }
        let mut turn = relaying.turn(self.pid, self.plugin.endpoint_mut(), (&self.parameters, heals), cx);
        let lost = relaying.relay().remote_end().filter(|_| heals);
        if lost.is_some() {
            // For the plugin this is no end.
            turn.end_delivered = false;
        }
        if let Some(client) = self.plugin.served_mut() {
            if client.awaits_close() {
                let failed = relaying.relay().failure().is_some();
                let (code, reason) = close_frame(if failed { CloseReason::RemoteLost } else { CloseReason::Done });
                client.close(code, reason);
            }
            turn.again |= client.end_turn(cx.budget);
        }
        let mut parked = false;
        if let Some(plugin) = self.plugin.kept_mut() {
            parked = plugin.end_turn(&mut turn, cx.now, cx.budget);
        }
        self.notify(&turn, parked, cx);
        if let Some(end) = lost {
            return Next::Enter(self.heal(end, cx));
        }
        match turn.end {
            Some(end) => Next::Enter(self.end_relay(end, cx)),
            // A plugin that was disconnected in this turn may be writable now (UDP drops the oldest bytes), which no event
            // reports.
            None if turn.again || parked => Next::Stay(TurnResult::Again),
            None => Next::Stay(TurnResult::Wait),
        }
    }

    /// The stage that follows a relay that ended for the reason `end`.
    fn end_relay(&mut self, end: CloseReason, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let Stage::Relaying(relaying) = &self.stage else { return Stage::Closed };
        let (relay, now) = (relaying.relay(), cx.now);
        let reason = relay.failure().map_or_else(|| end.to_string(), |failure| format!("{end} ({failure})"));
        let (target, received, sent) = (relaying.target(), relay.received(), relay.sent());
        let times = relaying.times();
        log::info!("{} closed: {reason}; {target}, received {received}, sent {sent}{times}", self.pid);
        cx.ended.push(EndedConnection::new(self.pid, target, relaying.protocol(), &reason, times, now));
        match (end, &mut self.plugin) {
            (CloseReason::PluginLost, PluginSide::Served(_)) => Stage::Closed,
            (end, PluginSide::Served(client)) => {
                let (code, reason) = close_frame(end);
                client.close(code, reason);
                client.drain();
                Stage::Draining(Box::new(Draining::new(Vec::new(), now)))
            }
            (CloseReason::Done, _) => Stage::Closed,
            (_, PluginSide::Kept(plugin)) => {
                plugin.shutdown_write();
                let ended_by_plugin = matches!(end, CloseReason::PluginClosed | CloseReason::BadFraming);
                let kept = !ended_by_plugin && !plugin.is_given_up();
                let (target, protocol) = (relaying.target().clone(), relaying.protocol());
                Stage::UnreadTail(Box::new(UnreadTail::new(
                    target,
                    protocol,
                    relaying.relay(),
                    (relaying.connected_at(), times),
                    kept,
                    now,
                )))
            }
            (CloseReason::PluginLost, _) => Stage::Closed,
            _ => Stage::Draining(Box::new(Draining::new(Vec::new(), now))),
        }
    }

    fn tail_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let (Stage::UnreadTail(tail), PluginSide::Kept(plugin)) = (&self.stage, &mut self.plugin) else {
            return Next::Enter(Stage::Closed);
        };
        match tail.turn(plugin, cx.config.limits.history, cx.scratch, cx.budget, cx.now) {
            TailOutcome::Done => Next::Enter(Stage::Closed),
            TailOutcome::Wait { turn, parked } => {
                self.notify(&turn, parked, cx);
                Next::Stay(if turn.again { TurnResult::Again } else { TurnResult::Wait })
            }
        }
    }

    fn draining_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Draining(draining) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        let mut again = false;
        if let Some(client) = self.plugin.served_mut() {
            client.begin_turn(cx.now, cx.budget);
        }
        let outcome = draining.turn(self.plugin.endpoint_mut(), cx.scratch);
        if let Some(client) = self.plugin.served_mut() {
            again = client.end_turn(cx.budget);
            draining.set_deadline(client.drain_deadline(cx.config.limits.stall));
        }
        match outcome {
            DrainOutcome::Wait if again => Next::Stay(TurnResult::Again),
            DrainOutcome::Wait => Next::Stay(TurnResult::Wait),
            DrainOutcome::Again => Next::Stay(TurnResult::Again),
            DrainOutcome::Done => Next::Enter(Stage::Closed),
        }
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

    /// Notifies the plugin of what a turn has brought, and logs that the connection was `parked` in it.
    fn notify(&mut self, turn: &RelayTurn, parked: bool, cx: &mut SessionContext<'_, N>) {
        if parked {
            let time = number::format(self.parameters.keep.unwrap_or_default().as_secs_f64());
            log::info!("{} parked, its plugin has gone; kept for {time} s", self.pid);
        }
        if turn.delivered {
            let recipient = || recipient(&self.parameters, self.pid);
            self.notifier.notify(Schedule::handle_data, recipient, cx.schedule, cx.now);
        }
        if turn.end_delivered {
            // For the plugin this is the end: there is nothing more to read, whatever it may still send.
            self.notify_closed(cx);
        }
    }

    /// Makes the closing notification, once.
    fn notify_closed(&mut self, cx: &mut SessionContext<'_, N>) {
        let recipient = || recipient(&self.parameters, self.pid);
        let connected_at = match &self.stage {
            Stage::Relaying(relaying) => Some(relaying.connected_at()),
            Stage::Healing(healing) => Some(healing.connected_at()),
            Stage::UnreadTail(tail) => Some(tail.connected_at),
            Stage::Listening(listening) => Some(listening.since()),
            Stage::Setup(_)
            | Stage::Opening
            | Stage::Watching(_)
            | Stage::Checking(_)
            | Stage::Arriving(_)
            | Stage::Claiming(_)
            | Stage::Connecting(_)
            | Stage::Draining(_)
            | Stage::Closed => None,
        };
        let lived = connected_at.map_or(Duration::ZERO, |at| cx.now.saturating_duration_since(at));
        self.notifier.notify_closed(recipient, lived, cx.schedule, cx.now);
    }

    /// Ends because others need the memory that this session holds. A plugin is told so where its framing can say it and no
    /// part of another message was written to it. To be followed by a turn.
    pub(crate) fn end_for_memory(&mut self, cx: &mut SessionContext<'_, N>) {
        let target = self.target().map_or_else(|| "no target".to_owned(), Target::to_string);
        log::warn!("{} ends: it holds {} bytes, which others need, and stands still ({target})", self.pid, self.held());
        let next = match (&mut self.stage, &self.plugin) {
            (Stage::Setup(setup), _) if setup.unread() == 0 => {
                Stage::Draining(Box::new(Draining::new(reply::line_too_long(), cx.now)))
            }
            (Stage::Connecting(connecting), _) => {
                let (target, protocol) = (connecting.target().clone(), connecting.protocol());
                self.refuse(&target, protocol, &ConnectError::NO_MEMORY, cx.now)
            }
            (Stage::Relaying(relaying), PluginSide::Attached(_)) if relaying.is_connect_reply_sent() => {
                let last_message = relaying.refuse_for_memory(cx);
                Stage::Draining(Box::new(Draining::new(last_message, cx.now)))
            }
            (Stage::Relaying(relaying), PluginSide::Served(client)) => {
                let is_behind = client.is_behind();
                relaying.refuse_for_memory(cx);
                // What waits for the client is what others need.
                if is_behind { Stage::Closed } else { self.end_relay(CloseReason::NoMemory, cx) }
            }
            _ => Stage::Closed,
        };
        self.enter(next, cx);
    }

    /// Where the connection leads, if that is known.
    fn target(&self) -> Option<&Target> {
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

    /// Counts in the budget what the stage holds.
    fn account(&mut self, budget: &mut MemoryBudget) {
        let held = match &self.stage {
            Stage::Setup(setup) => setup.held(),
            Stage::Opening | Stage::Watching(_) => 0,
            Stage::Checking(checking) => checking.setup.held(),
            Stage::Listening(listening) => listening.held(),
            Stage::Arriving(arriving) => arriving.held(),
            Stage::Claiming(request) => request.held(),
            Stage::Connecting(connecting) => connecting.held(),
            Stage::Relaying(relaying) => relaying.held(),
            Stage::Healing(healing) => healing.held(),
            Stage::Draining(draining) => draining.held(),
            Stage::UnreadTail(tail) => tail.target.held(),
            Stage::Closed => 0,
        };
        // A session that is over is dropped next, with its options.
        let rest = if let Stage::Closed = self.stage { 0 } else { self.plugin.held() + self.parameters.held() };
        let mut counted = self.counted as usize;
        budget.adjust(&mut counted, (held + rest).min(u32::MAX as usize));
        self.counted = counted as u32;
        budget.set_kinds(self.held_kinds());
    }

    /// Of what kinds are the bytes that the session holds.
    fn held_kinds(&self) -> HeldKinds {
        match &self.stage {
            Stage::Setup(setup) => HeldKinds { incomplete: setup.incomplete(), ..HeldKinds::default() },
            Stage::Checking(checking) => HeldKinds { incomplete: checking.setup.incomplete(), ..HeldKinds::default() },
            // A connection that is not established has passed no byte yet.
            Stage::Connecting(connecting) => HeldKinds { incomplete: connecting.held(), ..HeldKinds::default() },
            Stage::Arriving(arriving) => HeldKinds { incomplete: arriving.held(), ..HeldKinds::default() },
            // A request that has come in part.
            Stage::Opening => HeldKinds { incomplete: self.plugin.held(), ..HeldKinds::default() },
            Stage::Relaying(relaying) => relaying.held_kinds(),
            Stage::Watching(_)
            | Stage::Listening(_)
            | Stage::Claiming(_)
            | Stage::Healing(_)
            | Stage::UnreadTail(_)
            | Stage::Draining(_)
            | Stage::Closed => HeldKinds::default(),
        }
    }

    /// When [`Session::handle_timeout`] is to be called, if no event comes before.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Instant> {
        let user_timeout = self.user_timeout(&config.limits);
        let stage = match &self.stage {
            Stage::Setup(setup) => setup.deadline(config.limits.setup),
            Stage::Checking(checking) => checking.setup.deadline(config.limits.setup),
            Stage::Connecting(connecting) => connecting.deadline(),
            Stage::Relaying(relaying) => {
                let remote = relaying.stream().and_then(|remote| remote.deadline(user_timeout.as_ref()));
                let limits = [relaying.deadline(&self.timing(relaying, config)), self.keep_deadline(), remote];
                limits.into_iter().flatten().min()
            }
            Stage::Healing(healing) => [healing.deadline(), self.keep_deadline()].into_iter().flatten().min(),
            Stage::UnreadTail(_) => self.keep_deadline(),
            Stage::Draining(draining) => Some(draining.deadline()),
            Stage::Opening => {
                if let PluginSide::Opening(client) = &self.plugin {
                    client.opening.deadline()
                } else {
                    None
                }
            }
            Stage::Arriving(arriving) => arriving.deadline(),
            Stage::Watching(watching) => Some(watching.deadline()),
            Stage::Claiming(_) | Stage::Listening(_) => None,
            Stage::Closed => return None,
        };
        [stage, self.plugin.deadline(user_timeout.as_ref())].into_iter().flatten().min()
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

    /// The deadline has passed, and a turn has not moved it. To be followed by another turn.
    pub(crate) fn handle_timeout(&mut self, cx: &mut SessionContext<'_, N>) {
        if self.keep_deadline().is_some_and(|due| due <= cx.now) {
            return self.end_kept(KeptEnd::Expired, cx);
        }
        let next = match &self.stage {
            Stage::Setup(setup) if setup.deadline(cx.config.limits.setup).is_some_and(|due| due <= cx.now) => {
                log::info!("{} silent in setup mode for too long", self.pid);
                Stage::Closed
            }
            Stage::Checking(checking)
                if checking.setup.deadline(cx.config.limits.setup).is_some_and(|due| due <= cx.now) =>
            {
                Stage::Closed
            }
            Stage::Relaying(relaying) => match relaying.handle_timeout(&self.timing(relaying, cx.config), cx.now) {
                Some(CloseReason::RemoteSilent) if self.heals(relaying) => self.heal(CloseReason::RemoteSilent, cx),
                Some(end) => self.end_relay(end, cx),
                None => return,
            },
            Stage::Draining(draining) if draining.deadline() <= cx.now => Stage::Closed,
            // A connecting session enforces its limits in its turn: a result may have come at the last moment.
            _ => return,
        };
        self.enter(next, cx);
    }

    /// The time limits of the relay. A plugin that is not there is neither silent nor slow.
    fn timing(&self, relaying: &Relaying<N>, config: &Config) -> Timing {
        let mut timing = Timing {
            receive: self.parameters.receive_timeout,
            idle: config.limits.idle,
            half_close: config.limits.half_close,
            stall: config.limits.stall,
            plugin_read_closed: self.plugin.endpoint().is_read_closed(),
            remote_read_closed: relaying.is_remote_read_closed(),
        };
        if self.plugin.served().is_some_and(ServedClient::is_behind) {
            timing.half_close = timing.half_close.max(timing.stall);
        }
        if let Some(plugin) = self.plugin.kept() {
            if plugin.parked_since().is_some() {
                // What is buffered waits until KEEP runs out.
                (timing.idle, timing.stall) = (None, NO_LIMIT);
            } else if plugin.is_behind() {
                timing.half_close = timing.half_close.max(timing.stall);
            }
        }
        timing
    }

    /// When KEEP runs out, or the time of a plugin that does not read what is left.
    fn keep_deadline(&self) -> Option<Instant> {
        let plugin = self.plugin.kept()?;
        let keep = self.parameters.keep;
        match (plugin.parked_since(), &self.stage) {
            // The relay has its own limits for its last bytes.
            (_, Stage::Relaying(_)) if plugin.is_given_up() => None,
            (Some(since), _) => Some(since + keep.unwrap_or(Duration::ZERO)),
            (None, Stage::UnreadTail(tail)) => Some(tail.deadline(plugin.progress(), keep)),
            (None, _) => None,
        }
    }

    /// The name by which the plugin finds this connection again, if it is to be kept.
    pub(crate) fn kept_pid(&self) -> Option<&[u8]> {
        self.parameters.kept_pid()
    }

    /// Whether a CONN, ATCH or DROP may use the session's pid.
    pub(crate) fn kept_state(&self) -> KeptState {
        match (&self.stage, &self.plugin) {
            (Stage::UnreadTail(tail), _) if !tail.kept => KeptState::Over,
            (_, PluginSide::Kept(plugin)) if plugin.is_given_up() => KeptState::Over,
            (Stage::Relaying(_) | Stage::Healing(_) | Stage::UnreadTail(_), PluginSide::Kept(plugin)) => {
                match plugin.parked_since() {
                    Some(_) => KeptState::Parked,
                    None => KeptState::Taken,
                }
            }
            (Stage::Claiming(_) | Stage::Connecting(_) | Stage::Relaying(_), _) => KeptState::Taken,
            _ => KeptState::Over,
        }
    }

    /// Ends this kept session, because another is to have its pid. False if a plugin still uses it: then it goes on.
    pub(crate) fn release_pid(&mut self, cx: &mut SessionContext<'_, N>) -> bool {
        // The plugin may just have gone, which no event has reported yet.
        self.assume_readable();
        self.turn(cx);
        if self.kept_state() == KeptState::Taken {
            return false;
        }
        self.end_kept(KeptEnd::Replaced, cx);
        true
    }

    /// Relays what the plugin before has sent, as far as it goes; then goes on behind the first `seen` messages, or with
    /// what was not sent. An error is the reason why it cannot; `target`: what the plugin expects, or any. To be followed by
    /// [`Session::attach`].
    pub(crate) fn resume(
        &mut self,
        seen: Option<u64>,
        target: Option<&Target>,
        cx: &mut SessionContext<'_, N>,
    ) -> Result<(), &'static str> {
        self.assume_readable();
        for _ in 0..ATTACH_TURNS {
            if self.turn(cx) != TurnResult::Again {
                break;
            }
        }
        let is_other = target.is_some() && target != self.target();
        match (self.kept_state(), &mut self.plugin) {
            (KeptState::Taken | KeptState::Parked, PluginSide::Kept(_)) if is_other => Err(reply::OTHER_TARGET),
            (KeptState::Taken | KeptState::Parked, PluginSide::Kept(plugin)) => {
                plugin.resume(seen).map_err(|Gap| reply::GAP)
            }
            _ => Err(reply::NO_SUCH_PID),
        }
    }

    /// Takes the plugin's connection out of a session in setup mode, which is over then and notifies no plugin.
    pub(crate) fn take_connection(&mut self) -> Option<PluginConnection<N::Stream>> {
        let Stage::Setup(setup) = &mut self.stage else { return None };
        let sent_ahead = setup.take_rest();
        let PluginSide::Attached(socket) = std::mem::replace(&mut self.plugin, PluginSide::GONE) else { return None };
        (self.stage, self.notifier) = (Stage::Closed, Notifier::Closed);
        Some(PluginConnection { socket, sent_ahead, peer: self.peer.address() })
    }

    /// Attaches a plugin's connection to this kept session. Returns the previous peer, which the caller sets on the session
    /// that gave up its connection ([`Session::set_peer`]), so that connections are counted at the right address. An error
    /// says that the connection cannot be registered for events; no plugin is attached then.
    pub(crate) fn attach(
        &mut self,
        connection: PluginConnection<N::Stream>,
        cx: &mut SessionContext<'_, N>,
    ) -> (SocketAddr, std::io::Result<()>) {
        let PluginConnection { mut socket, sent_ahead, peer } = connection;
        socket.restart_user_timeout();
        let before = self.peer.replace_plugin(peer);
        let PluginSide::Kept(plugin) = &mut self.plugin else { return (before, Ok(())) };
        if let Err(error) = cx.network.reregister(socket.stream_mut(), Token(cx.key)) {
            return (before, Err(error));
        }
        log::info!("{} goes on with a connection from {}", self.pid, peer.ip().to_canonical());
        let pid = self.parameters.kept_pid().unwrap_or_default();
        plugin.attach(socket, sent_ahead, reply::attached(pid), cx.now);
        match &mut self.stage {
            Stage::Relaying(relaying) => relaying.relay_mut().handle_new_plugin(cx.now),
            Stage::Healing(healing) => healing.handle_new_plugin(),
            _ => {}
        }
        if matches!(self.notifier, Notifier::Closed) {
            // What the plugin before was notified of is news for this one, too.
            self.notifier = Notifier::Unopened;
        }
        (before, Ok(()))
    }

    /// What the plugin listens for, if it does or has asked to.
    pub(crate) fn listen_settings(&self) -> Option<&ListenSettings> {
        self.parameters.listen.as_deref()
    }

    /// The plugin listens from now on.
    pub(crate) fn listen(&mut self, now: Instant) {
        let Stage::Setup(setup) = &mut self.stage else { return };
        let given = self.parameters.notify.as_deref().and_then(|notify| notify.pid());
        let reply = given.map_or_else(|| reply::listening(self.pid.to_string().as_bytes()), reply::listening);
        self.stage = Stage::Listening(Box::new(Listening::new(setup.take_parser(), reply, now)));
    }

    /// The plugin cannot listen: the daemon's answer to [`DaemonRequest::Listen`]. `why`: the reason of `ERR LSTN`.
    pub(crate) fn handle_not_listening(&mut self, why: &str, cx: &mut SessionContext<'_, N>) {
        self.reject(reply::failed("LSTN", why), cx);
    }

    /// Tells the plugin that listens of an arrival, by `line` and by a notification. False if it cannot be told now.
    pub(crate) fn announce(&mut self, line: &[u8], cx: &mut SessionContext<'_, N>) -> bool {
        let Stage::Listening(listening) = &mut self.stage else { return false };
        if cx.budget.left() < line.len() || !listening.announce(line, self.plugin.endpoint_mut()) {
            return false;
        }
        let recipient = || recipient(&self.parameters, self.pid);
        self.notifier.notify(Schedule::handle_incoming, recipient, cx.schedule, cx.now);
        self.account(cx.budget);
        true
    }

    /// Another plugin's connection listens in place of this one, whose plugin is told the end.
    pub(crate) fn end_listening(&mut self, cx: &mut SessionContext<'_, N>) {
        if let Stage::Listening(_) = &self.stage {
            log::info!("{} listens no longer: another connection has taken its place", self.pid);
            self.enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))), cx);
        }
    }

    /// True if the session began at a plugin's listener.
    pub(crate) fn has_arrived(&self) -> bool {
        self.peer.is_remote()
    }

    /// The address of the listener where the connection has arrived, and what it speaks. `None` once a plugin has accepted it.
    pub(crate) fn port(&self) -> Option<(SocketAddr, Protocol)> {
        let Stage::Arriving(arriving) = &self.stage else { return None };
        Some((arriving.listener(), arriving.protocol()))
    }

    /// The path of the arrival's request. `None` for tcp and tls.
    pub(crate) fn path(&self) -> Option<&str> {
        let Stage::Arriving(arriving) = &self.stage else { return None };
        arriving.request().map(UpgradeRequest::path)
    }

    /// What the owner of the listener, which has these `settings`, is to be told of the arrival; or why the arrival is
    /// refused.
    pub(crate) fn introduce(&self, settings: Option<&ListenSettings>) -> Result<Introduction, Refusal> {
        let (Stage::Arriving(arriving), Some(settings)) = (&self.stage, settings) else { return Err(not_served()) };
        let (id, peer) = (self.pid.to_string(), self.remote_address().to_string());
        let (wait, request) = (settings.wait, arriving.request());
        let Some(request) = request else {
            return Ok(Introduction { line: reply::incoming(&id, &peer, "", "", None), subprotocol: None, wait });
        };
        let subprotocol = settings.rules.check(request)?.map(Into::into);
        let head = settings.shows_head.then_some(&request.head[..]);
        let line = reply::incoming(&id, &peer, &request.resource, &request.subprotocols.join(","), head);
        Ok(Introduction { line, subprotocol, wait })
    }

    /// The peer, IPv4 if it is v4-mapped.
    fn remote_address(&self) -> SocketAddr {
        SocketAddr::new(self.address(), self.peer.address().port())
    }

    /// A plugin was told of the arrival, which waits from now on to be accepted.
    pub(crate) fn handle_announced(&mut self, introduction: Introduction, now: Instant) {
        if let Stage::Arriving(arriving) = &mut self.stage {
            arriving.handle_announced(now + introduction.wait, introduction.subprotocol);
        }
    }

    /// No plugin accepts the arrival. To be followed by a turn.
    pub(crate) fn refuse_arrival(&mut self, refusal: Refusal, now: Instant) {
        if let Stage::Arriving(arriving) = &mut self.stage {
            arriving.refuse(refusal, now);
        }
    }

    /// The parameters of an ACPT: those that commands have set in this session, and `options`.
    pub(crate) fn parameters_for(&self, protocol: Protocol, options: &[u8]) -> Result<Parameters, OptionError> {
        let mut parameters = self.parameters.clone();
        parameters.apply_to_arrival(protocol, options)?;
        Ok(parameters)
    }

    /// Checks that the arrival still waits, and that a plugin may accept it with `parameters`. An error is the reason of
    /// `ERR ACPT`.
    pub(crate) fn check_acceptance(
        &mut self,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Result<(), AcceptError> {
        // It may just have left, which no event has reported yet.
        self.assume_readable();
        self.turn(cx);
        let Stage::Arriving(arriving) = &self.stage else { return Err(AcceptError::NoSuchId) };
        if !arriving.is_waiting() {
            return Err(AcceptError::NoSuchId);
        }
        let chosen = arriving.choose_subprotocol(parameters.websocket.as_deref());
        chosen.map(drop).map_err(|NotOffered(names)| AcceptError::Option(OptionError::subprotocol(&names)))
    }

    /// A plugin's connection accepts this arrival. An error says that it cannot be registered for events; the arrival is over
    /// then.
    pub(crate) fn accept(
        &mut self,
        connection: PluginConnection<N::Stream>,
        parameters: Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> std::io::Result<()> {
        let PluginConnection { mut socket, sent_ahead, peer } = connection;
        let Stage::Arriving(mut arriving) = std::mem::replace(&mut self.stage, Stage::Closed) else { return Ok(()) };
        let Some(accepted) = arriving.accept(parameters.websocket.as_deref()) else { return Ok(()) };
        let AcceptedArrival { remote, upgraded, response } = accepted;
        // Before anything fails: a pid that was claimed is this session's now.
        self.parameters = parameters;
        cx.network.reregister(socket.stream_mut(), Token(cx.key))?;
        socket.handle_event(Readiness::FRESH);
        self.plugin = PluginSide::Attached(socket);
        self.peer.replace_plugin(peer);
        let target = Target::Endpoint(target::Endpoint::of(self.remote_address()));
        let link = match upgraded {
            Some(upgraded) => ConnectedLink::WebSocket(remote, upgraded),
            None => ConnectedLink::Stream(remote),
        };
        let request = ConnectRequest { target, sent_ahead };
        let connected =
            Connected { request, link, own_connection: None, response: Some(response), times: ConnectTimes::default() };
        let stage = self.relay(connected, cx);
        self.enter(stage, cx);
        Ok(())
    }

    /// The plugin cannot have the arrival: the daemon's answer to ACPT. An invalid option ends setup mode, as one of CONN does.
    pub(crate) fn handle_not_accepted(&mut self, error: &AcceptError, cx: &mut SessionContext<'_, N>) {
        match error {
            AcceptError::Option(error) => self.reject(reply::failed("ACPT", error.reason()), cx),
            AcceptError::NoSuchId => self.reply(&reply::failed("ACPT", reply::NO_SUCH_ID)),
            AcceptError::Pid(why) => self.reply(&reply::failed("ACPT", why)),
        }
    }

    /// See [`Session::attach`].
    pub(crate) fn set_peer(&mut self, peer: SocketAddr) {
        self.peer = Peer::Plugin(peer);
    }

    /// Ends a session in setup mode with a last reply.
    pub(crate) fn reject(&mut self, reply: Vec<u8>, cx: &mut SessionContext<'_, N>) {
        if let Stage::Setup(_) = &self.stage {
            self.enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))), cx);
        }
    }

    /// Ends a kept session. The remote is told as by a plugin that goes; a plugin that is attached is told the end.
    pub(crate) fn end_kept(&mut self, why: KeptEnd, cx: &mut SessionContext<'_, N>) {
        log::info!("{} ends: {why}", self.pid);
        if why == KeptEnd::Replaced {
            self.notifier.cancel_all(|| recipient(&self.parameters, self.pid), cx.schedule);
        }
        let next = match (&mut self.stage, &mut self.plugin) {
            (Stage::Relaying(relaying), PluginSide::Kept(plugin)) => {
                plugin.give_up();
                if relaying.protocol() != Protocol::Udp {
                    return self.notify_closed(cx);
                }
                self.end_relay(CloseReason::PluginLost, cx)
            }
            _ => Stage::Closed,
        };
        self.enter(next, cx);
    }

    /// Ends because an operator has said DROP, whatever the session is at. To be followed by a turn.
    pub(crate) fn end_by_operator(&mut self, cx: &mut SessionContext<'_, N>) {
        match (&self.stage, &self.plugin) {
            (Stage::Draining(_) | Stage::Closed, _) => return,
            (_, PluginSide::Kept(_)) => return self.end_kept(KeptEnd::Dropped, cx),
            _ => log::info!("{} ends: {}", self.pid, KeptEnd::Dropped),
        }
        match &self.stage {
            Stage::Relaying(relaying) if self.plugin.served().is_none() && relaying.has_close_handshake() => {
                self.shut_down(cx);
            }
            Stage::Relaying(_) => {
                let next = self.end_relay(CloseReason::Dropped, cx);
                self.enter(next, cx);
            }
            _ => self.enter(Stage::Closed, cx),
        }
    }

    /// Ends for the end of the daemon. A remote whose protocol has an end of its own is told, which takes further turns;
    /// [`Session::abort`] follows if there is no time for them.
    pub(crate) fn shut_down(&mut self, cx: &mut SessionContext<'_, N>) {
        match &mut self.stage {
            Stage::Draining(_) => {}
            Stage::Relaying(relaying) if relaying.has_close_handshake() => {
                if let Some(client) = self.plugin.served_mut() {
                    // As far as that goes at once.
                    client.close(close::GOING_AWAY, "");
                }
                // The connection goes on without its plugin until the remote has answered.
                self.notify_closed(cx);
                self.plugin.release(cx.budget);
                self.plugin = PluginSide::GONE;
            }
            Stage::Relaying(_) if self.plugin.served().is_some() => {
                if let Some(client) = self.plugin.served_mut() {
                    client.close(close::GOING_AWAY, "");
                }
                let next = self.end_relay(CloseReason::Done, cx);
                self.enter(next, cx);
            }
            Stage::Watching(_) => {
                if let Some(client) = self.plugin.served_mut() {
                    client.close(close::GOING_AWAY, "");
                    client.drain();
                }
                self.enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))), cx);
            }
            _ => self.enter(Stage::Closed, cx),
        }
    }

    /// Ends without another turn: the outgoing side of the remote's stream is ended as far as that goes at once.
    pub(crate) fn abort(&mut self) {
        if let Stage::Relaying(relaying) = &mut self.stage {
            relaying.shutdown_write();
        }
    }

    /// Bytes held for this session, whatever for.
    fn held(&self) -> usize {
        let relay = if let Stage::Relaying(relaying) = &self.stage { relaying.relay().held() } else { 0 };
        self.counted as usize + relay + self.plugin.kept().map_or(0, KeptPlugin::held)
    }

    /// What STAT shows of the session. `None` for one that is only draining.
    pub(crate) fn snapshot(&self, schedule: &Schedule, now: Instant) -> Option<Snapshot> {
        let pid = self.pid.to_string();
        let mut shown = Snapshot {
            state: SnapshotState::Setup,
            idle: Duration::ZERO,
            uptime: now.saturating_duration_since(self.started),
            client: self.peer.plugin().to_string(),
            remote: String::new(),
            protocol: Protocol::Tcp,
            tls_version: None,
            subprotocol: None,
            messages: None,
            received: 0,
            sent: 0,
            buffered: self.held(),
            times: ConnectTimes::default(),
            healing: None,
            notify: match self.parameters.notify.as_deref() {
                // The pid of a kept connection is a secret, and STAT is asked on another connection.
                Some(notify) if self.parameters.keep.is_some() => notify.redacted_column(pid.as_bytes()),
                Some(notify) => notify.column(pid.as_bytes()),
                None => Vec::new(),
            },
            last_notification: match self.notifier {
                Notifier::Open(id) => schedule.last_outcome(id),
                Notifier::Unopened | Notifier::Closed => None,
            },
            pid,
        };
        match &self.stage {
            Stage::Setup(_) | Stage::Checking(_) => {}
            Stage::Opening => {
                // One that is answered is only draining.
                let PluginSide::Opening(client) = &self.plugin else { return None };
                if client.opening.is_answered() {
                    return None;
                }
            }
            Stage::Watching(_) => {
                shown.state = SnapshotState::Watching;
                shown.protocol = Protocol::Ws;
            }
            Stage::Listening(_) => {
                shown.state = SnapshotState::Listening;
                if let Some(settings) = self.listen_settings() {
                    (shown.remote, shown.protocol) = (settings.to_string(), settings.protocol);
                }
            }
            Stage::Arriving(arriving) => {
                shown.state = SnapshotState::Arriving;
                (shown.remote, shown.protocol) = (self.remote_address().to_string(), arriving.protocol());
            }
            Stage::Claiming(request) => {
                shown.state = SnapshotState::Connecting;
                shown.remote = request.target.to_string();
                shown.protocol = Protocol::of(&request.target, self.parameters.transport);
            }
            Stage::Connecting(connecting) => {
                shown.state = SnapshotState::Connecting;
                shown.remote = connecting.target().to_string();
                shown.protocol = connecting.protocol();
                shown.times = connecting.times();
            }
            Stage::Relaying(relaying) => {
                let relay = relaying.relay();
                shown.state = SnapshotState::Relaying;
                shown.remote = relaying.target().to_string();
                shown.protocol = relaying.protocol();
                shown.tls_version = relaying.tls_version();
                shown.times = relaying.times();
                shown.subprotocol = relaying.subprotocol().map(str::to_owned);
                shown.messages = relay.messages().or(self.plugin.served().map(ServedClient::messages));
                shown.idle = now.saturating_duration_since(relay.last_heard());
                (shown.received, shown.sent) = (relay.received(), relay.sent());
                if self.parameters.heals().is_some() {
                    // Earlier remotes count, too.
                    let before = relaying.outages();
                    (shown.received, shown.sent) = (shown.received + before.received, shown.sent + before.sent);
                    shown.messages =
                        shown.messages.map(|(received, sent)| (received + before.messages.0, sent + before.messages.1));
                    shown.healing = Some(HealingSnapshot { losses: before.losses, lost_for: None, next_attempt: None });
                }
            }
            Stage::Healing(healing) => {
                let outages = healing.outages();
                shown.state = SnapshotState::Healing;
                shown.remote = healing.target().to_string();
                shown.protocol = healing.protocol();
                shown.messages = healing.protocol().is_websocket().then_some(outages.messages);
                shown.idle = now.saturating_duration_since(healing.last_heard());
                (shown.received, shown.sent) = (outages.received, outages.sent);
                shown.healing = Some(HealingSnapshot {
                    losses: outages.losses,
                    lost_for: Some(now.saturating_duration_since(healing.since())),
                    next_attempt: healing.next_attempt().map(|at| at.saturating_duration_since(now)),
                });
            }
            Stage::UnreadTail(tail) => {
                shown.state = SnapshotState::Relaying;
                shown.remote = tail.target.to_string();
                (shown.protocol, shown.messages, shown.times) = (tail.protocol, tail.messages, tail.times);
                shown.idle = now.saturating_duration_since(tail.last_heard);
                (shown.received, shown.sent) = (tail.received, tail.sent);
            }
            Stage::Draining(_) | Stage::Closed => return None,
        }
        if self.kept_state() == KeptState::Parked {
            shown.state = SnapshotState::Parked;
        }
        Some(shown)
    }
}

/// What the configuration has for a request that has come to `port`: how it is accepted, and where it leads. An error is the
/// answer to the client.
fn find_served(
    config: &Config,
    port: u16,
    request: &UpgradeRequest,
) -> Result<(ServeChoice, Parameters, Target), Refusal> {
    // A path that is named goes before the line for all paths.
    let has_path = |is_named| {
        config
            .serve_on(port)
            .find(|line| line.settings.rules.path.is_some() == is_named && line.settings.rules.has_path(request))
    };
    let line = has_path(true).or_else(|| has_path(false)).ok_or_else(ServerRules::no_such_path)?;
    let settings = &line.settings;
    let chosen = settings.rules.check(request)?;
    let choice = ServeChoice {
        subprotocol: chosen.or(request.offers(BINARY_SUBPROTOCOL).then_some(BINARY_SUBPROTOCOL)).map(Into::into),
        deflate: settings.deflate,
        ping_interval: settings.ping_interval,
    };
    Ok((choice, line.parameters.clone(), line.target.clone()))
}

/// The code and reason by which a client of `[serve]` is told of the end of its relay.
fn close_frame(end: CloseReason) -> (u16, &'static str) {
    match end {
        CloseReason::Done | CloseReason::RemoteClosed | CloseReason::PluginClosed => (close::NORMAL, ""),
        CloseReason::RemoteLost => (close::INTERNAL_ERROR, "the connection to the target was lost"),
        CloseReason::RemoteSilent => (close::INTERNAL_ERROR, "the target was silent for too long"),
        CloseReason::BadRemote => (close::INTERNAL_ERROR, "the target violated its protocol"),
        CloseReason::NoMemory => (close::TRY_AGAIN_LATER, "no memory"),
        CloseReason::Idle => (close::GOING_AWAY, "idle for too long"),
        CloseReason::Dropped => (close::GOING_AWAY, "ended by an operator"),
        CloseReason::PluginLost | CloseReason::HalfClosed | CloseReason::Stalled | CloseReason::BadFraming => {
            (close::GOING_AWAY, "")
        }
    }
}

/// What the plugin has subscribed to, if anything.
fn recipient(parameters: &Parameters, pid: Pid) -> Option<Recipient> {
    let notify = parameters.notify.as_deref().filter(|notify| notify.notifies())?;
    Some(Recipient {
        device: notify.device().into(),
        query: Arc::from(notify.query(pid.to_string().as_bytes())),
        events: parameters.events,
        pace: parameters.pace,
        secret: parameters.keep.is_some(),
    })
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
