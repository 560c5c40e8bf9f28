//! One plugin connection, from its greeting to its end.
//!
//! ```text
//! Setup -> Connecting -> Relaying -> Draining -> closed
//! ```
//!
//! A session owns the plugin's socket, the remote's, and the line on which the plugin is notified. It knows nothing
//! of other sessions: what concerns them (STAT, STOP) it asks of the daemon by way of `Verdict::ask`.
//!
//! Contract: after every `handle_*`, call [`Session::turn`] until its verdict asks for no more, then arm a timer for
//! [`Session::deadline`].

mod connecting;
mod draining;
mod hop;
mod keeping;
mod kept;
mod left;
mod notices;
mod outbox;
mod pid;
mod plugin;
mod relaying;
mod remote;
mod securing;
mod setup;
mod snapshot;
mod upgrading;

pub use keeping::Keeping;
pub use pid::{Pid, PidSource};
pub use setup::Request;
pub use snapshot::{Snapshot, State};

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use crate::config::{Config, Direct};
use crate::net::random::Randomness;
use crate::net::resolver::{Answer, Resolver};
use crate::net::socket::TcpSocket;
use crate::notify::Schedule;
use crate::protocol::options::Parameters;
use crate::relay::Ready;
use crate::relay::buffers::Buffers;
use crate::relay::pipes::Pipes;
use crate::tls::{self, Handshakes};
use connecting::Connecting;
use draining::Draining;
use left::Left;
use notices::Notices;
use outbox::Outbox;
use plugin::PluginSide;
use relaying::Relaying;
use setup::SettingUp;

/// Reads in one turn before others have theirs, outside of echo mode: what stands before a socket (TLS) may have nothing
/// to show for them, and who only says last words might never end.
const TURN_READS: usize = 16;

/// Names a session to the daemon, and back in answers from elsewhere.
pub type Key = usize;

/// What a session needs from the daemon for a turn.
pub struct Context<'a> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// The session's own key.
    pub key: Key,
    /// The token of the remote's sockets.
    pub remote_token: Token,
    /// Where sockets are registered.
    pub registry: &'a Registry,
    /// The configuration in force.
    pub config: &'a Config,
    /// The shared buffer for reading.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held.
    pub buffers: &'a mut Buffers,
    /// Pipes to splice through.
    pub pipes: &'a mut Pipes,
    /// Who finds addresses.
    pub resolver: &'a mut Resolver<Key>,
    /// Who makes TLS handshakes.
    pub handshakes: &'a mut Handshakes<Key>,
    /// Unpredictable bytes.
    pub randomness: &'a mut Randomness,
    /// Who notifies plugins.
    pub schedule: &'a mut Schedule,
}

/// What a session asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The table of connections, by [`Session::answer`].
    Stat,
    /// The same as JSON.
    StatJson,
    /// The end of everything, where this client may.
    Stop,
    /// Something about kept connections: see [`Session::take_request`].
    Kept,
}

/// What a turn comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// There is more to do at once, when others have had their turn.
    pub again: bool,
    /// Something is asked of the daemon.
    pub ask: Option<Ask>,
    /// The session is over and may be forgotten.
    pub closed: bool,
}

impl Verdict {
    /// Nothing more to do until something happens.
    pub const WAIT: Self = Self { again: false, ask: None, closed: false };
    const AGAIN: Self = Self { again: true, ask: None, closed: false };
    const CLOSED: Self = Self { again: false, ask: None, closed: true };

    fn ask(ask: Ask) -> Self {
        Self { ask: Some(ask), ..Self::WAIT }
    }
}

/// One plugin connection.
#[derive(Debug)]
pub struct Session {
    pid: Pid,
    peer: SocketAddr,
    started: Instant,
    plugin: PluginSide,
    parameters: Parameters,
    notices: Notices,
    stage: Stage,
}

/// Where a session stands. Each stage owns what only it needs. Boxed, since the longest stage of most sessions, relaying,
/// is to cost little.
#[derive(Debug)]
enum Stage {
    Setup(Box<SettingUp>),
    Connecting(Box<Connecting>),
    Relaying(Box<Relaying>),
    Draining(Draining),
    Left(Box<Left>),
    Closed,
}

/// What a step of a stage leads to.
enum Step {
    /// Nothing more to do now.
    Stay(Verdict),
    /// The next stage takes over at once.
    Next(Stage),
}

impl Session {
    /// A plugin that has just come in. It is greeted.
    pub fn greet(pid: Pid, stream: TcpStream, peer: SocketAddr, cx: &Context<'_>) -> Self {
        let stage = Stage::Setup(Box::new(SettingUp::new(pid, cx.now, cx.config.limits.line)));
        Self::new(pid, stream, peer, Parameters::default(), stage, cx)
    }

    /// A client of a direct listener: no greeting, no setup mode.
    pub fn direct(pid: Pid, stream: TcpStream, peer: SocketAddr, direct: &Direct, cx: &mut Context<'_>) -> Self {
        let mut session = Self::new(pid, stream, peer, direct.parameters.clone(), Stage::Closed, cx);
        // A fresh socket takes what is written to it; whatever it cannot, its first event will say.
        let ready = Ready::fresh();
        session.stage = Connecting::begin(pid, direct.target.clone(), Vec::new(), ready, &session.parameters, cx);
        session
    }

    fn new(
        pid: Pid,
        stream: TcpStream,
        peer: SocketAddr,
        parameters: Parameters,
        stage: Stage,
        cx: &Context<'_>,
    ) -> Self {
        let plugin = PluginSide::Attached(TcpSocket(stream));
        Self { pid, peer, started: cx.now, plugin, parameters, notices: Notices::None, stage }
    }

    /// The name that the proxy gave to this connection.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The plugin's address, v4 where it is one.
    pub fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// True where bytes pass, for which somebody waits: not while it is being set up, nor at its end.
    pub fn relays(&self) -> bool {
        matches!(self.stage, Stage::Relaying(_))
    }

    /// An event of the plugin's socket.
    pub fn handle_plugin_event(&mut self, event: &Event) {
        if self.note_kept_event(event) {
            return;
        }
        match &mut self.stage {
            Stage::Setup(stage) => stage.ready.handle_event(event),
            Stage::Connecting(stage) => stage.handle_plugin_event(event),
            Stage::Relaying(stage) => stage.relay_mut().plugin_ready().handle_event(event),
            Stage::Draining(stage) => stage.ready.handle_event(event),
            Stage::Left(_) | Stage::Closed => {}
        }
    }

    /// An event of one of the remote's sockets.
    pub fn handle_remote_event(&mut self, event: &Event) {
        match &mut self.stage {
            Stage::Connecting(stage) => stage.remote_ready.handle_event(event),
            Stage::Relaying(stage) => stage.relay_mut().remote_ready().handle_event(event),
            Stage::Setup(_) | Stage::Draining(_) | Stage::Left(_) | Stage::Closed => {}
        }
    }

    /// The addresses of `host`, or why there are none.
    pub fn handle_resolved(&mut self, host: &str, answer: Answer) {
        if let Stage::Connecting(stage) = &mut self.stage {
            stage.handle_resolved(host, answer);
        }
    }

    /// A part of a TLS handshake is done.
    pub fn handle_secured(&mut self, step: tls::TlsStep) {
        if let Stage::Connecting(stage) = &mut self.stage {
            stage.handle_secured(step);
        }
    }

    /// What was asked of the daemon.
    pub fn answer(&mut self, bytes: Vec<u8>) {
        if let Stage::Setup(stage) = &mut self.stage {
            stage.answer(bytes);
        }
    }

    /// Bytes of replies in setup mode that the plugin has yet to take.
    pub fn unread(&self) -> usize {
        if let Stage::Setup(stage) = &self.stage { stage.unread() } else { 0 }
    }

    /// Says a last word to a plugin in setup mode, and ends.
    pub fn dismiss(&mut self, bytes: Vec<u8>, cx: &mut Context<'_>) {
        if let Stage::Setup(stage) = &self.stage {
            let draining = Draining::new(Outbox::new(bytes), stage.ready, cx.now);
            self.enter(Stage::Draining(draining), cx);
        }
    }

    /// Does what can be done now.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Verdict {
        loop {
            let Self { plugin, parameters, stage, pid, .. } = self;
            let step = match stage {
                Stage::Setup(setup) => setup.step(*pid, plugin, parameters, cx),
                Stage::Connecting(connecting) => connecting.step(*pid, parameters, cx),
                Stage::Relaying(_) => self.relay(cx),
                Stage::Draining(draining) => draining.step(plugin, cx),
                Stage::Left(_) => self.leave(cx),
                Stage::Closed => Step::Stay(Verdict::CLOSED),
            };
            match step {
                Step::Stay(verdict) => return verdict,
                Step::Next(next) => self.enter(next, cx),
            }
        }
    }

    /// When [`Session::handle_timeout`] should be called, if nothing happens before.
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        match &self.stage {
            Stage::Setup(stage) => stage.deadline(config),
            Stage::Connecting(stage) => stage.deadline(),
            Stage::Relaying(stage) => {
                let limits = [stage.deadline(&self.timing(config)), self.keep_deadline()];
                limits.into_iter().flatten().min()
            }
            Stage::Draining(stage) => Some(stage.deadline()),
            Stage::Left(_) => self.keep_deadline(),
            Stage::Closed => None,
        }
    }

    /// Takes nothing for granted that is known of the sockets: the next turn reads, whatever events have said.
    pub fn look_again(&mut self) {
        match &mut self.stage {
            Stage::Setup(stage) => stage.ready.readable = true,
            Stage::Relaying(stage) => {
                let relay = stage.relay_mut();
                relay.plugin_ready().readable = true;
                relay.remote_ready().readable = true;
            }
            // Who leaves looks for itself.
            Stage::Connecting(_) | Stage::Draining(_) | Stage::Left(_) | Stage::Closed => {}
        }
    }

    /// The deadline has passed, and a turn has not moved it. To be followed by another turn.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.keep_deadline().is_some_and(|due| due <= cx.now) {
            return self.end_keeping("nobody has come for it", cx);
        }
        let timing = self.timing(cx.config);
        let next = match &mut self.stage {
            Stage::Setup(stage) if stage.deadline(cx.config).is_some_and(|due| due <= cx.now) => {
                log::info!("{} silent in setup mode for too long", self.pid);
                Stage::Closed
            }
            Stage::Relaying(stage) => match stage.handle_timeout(&timing, cx.now) {
                Some(end) => self.end_relay(end, cx),
                None => return,
            },
            Stage::Draining(stage) if stage.deadline() <= cx.now => Stage::Closed,
            // A connecting session looks at its deadline in its turn: an answer may have come at the last moment.
            _ => return,
        };
        self.enter(next, cx);
    }

    /// Ends, whatever was under way; for the end of the daemon. Last words are still said, and remotes told where their
    /// protocol has a word for it. To be followed by turns until it is over, and by [`Session::hang_up`] where there is
    /// no time for that.
    pub fn shut(&mut self, cx: &mut Context<'_>) {
        let leaves = match &mut self.stage {
            Stage::Draining(_) => return,
            Stage::Relaying(stage) => stage.begin_leaving(),
            _ => false,
        };
        if leaves {
            // The connection goes on until the remote has taken its leave, too, or the daemon's time is up.
            self.notify_closed(cx);
            self.plugin.release(cx.buffers);
            self.plugin = PluginSide::Gone;
        } else {
            self.release_relay(cx);
            self.enter(Stage::Closed, cx);
        }
    }

    /// There is no time left. What stands before the remote's socket says so.
    pub fn hang_up(&mut self) {
        if let Stage::Relaying(stage) = &mut self.stage {
            stage.hang_up();
        }
    }

    /// Takes on a stage. The end of the connection is news for the plugin.
    fn enter(&mut self, stage: Stage, cx: &mut Context<'_>) {
        if let Stage::Connecting(connecting) = &self.stage {
            connecting.withdraw(cx);
        }
        if matches!(stage, Stage::Draining(_) | Stage::Closed) {
            self.notify_closed(cx);
            self.plugin.release(cx.buffers);
        }
        if matches!(stage, Stage::Relaying(_)) {
            self.parameters.handle_connected();
        }
        self.stage = stage;
    }
}
