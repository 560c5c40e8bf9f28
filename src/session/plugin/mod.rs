//! The plugin's side of a session: its connection, or what stands in for one that may go away.

pub(crate) mod kept;
pub(crate) mod served;

use crate::net::endpoint::{ClosedEndpoint, Endpoint, SocketEndpoint};
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::net::user_timeout::UserTimeoutSettings;
use crate::relay::memory_budget::MemoryBudget;
use crate::session::opening::Opening;
use kept::KeptPlugin;
use served::ServedClient;
use std::time::{Duration, Instant};

/// The plugin's side.
#[derive(Debug)]
pub(crate) enum PluginSide<S> {
    /// The connection itself: its end is the session's end.
    Attached(SocketEndpoint<S>),
    /// A connection that may go away, and another one take its place (KEEP).
    Kept(Box<KeptPlugin<S>>),
    /// A client of `[serve]` or `[status]` whose WebSocket is being opened.
    Opening(Box<ServedOpening<S>>),
    /// A client of `[serve]` or `[status]`.
    Served(Box<ServedClient<S>>),
    /// None: another session has taken the connection over (ATCH), or the daemon ends.
    Gone(ClosedEndpoint),
}

/// The port of the configuration that a client has connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfiguredPort {
    /// A port of `[serve]`.
    Serve(u16),
    /// That of `[status]`.
    Status,
}

/// A client of `[serve]` or `[status]` whose WebSocket is being opened, and what the configuration says of its request.
#[derive(Debug)]
pub(crate) struct ServedOpening<S> {
    /// The opening.
    pub opening: Opening<S>,
    /// The port that the client has connected to.
    pub port: ConfiguredPort,
    /// What is chosen for its request.
    pub choice: ServeChoice,
}

/// What is chosen for a request that is accepted.
#[derive(Debug, Default)]
pub(crate) struct ServeChoice {
    /// The subprotocol.
    pub subprotocol: Option<Box<str>>,
    /// Compression may be negotiated.
    pub deflate: bool,
    /// Silence of the client after which it is sent a ping.
    pub ping_interval: Option<Duration>,
}

/// What a turn has brought that concerns the plugin: of data and the end it is notified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PluginNews {
    /// There is something to read.
    pub data: bool,
    /// The plugin was told that nothing more comes.
    pub end: bool,
    /// The plugin has gone, and another may come (KEEP).
    pub parked: bool,
}

impl<S: Stream> PluginSide<S> {
    /// The side of a session that has no plugin.
    pub(crate) const GONE: Self = Self::Gone(ClosedEndpoint);

    /// Adds what an event of the plugin's socket reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        match self {
            Self::Attached(socket) => socket.handle_event(event),
            Self::Kept(plugin) => plugin.handle_event(event),
            Self::Opening(opening) => opening.opening.handle_event(event),
            Self::Served(client) => client.handle_event(event),
            Self::Gone(_) => {}
        }
    }

    /// The kept plugin, if the session is kept.
    pub(crate) fn kept(&self) -> Option<&KeptPlugin<S>> {
        if let Self::Kept(plugin) = self { Some(plugin) } else { None }
    }

    /// The client of `[serve]`, once its WebSocket is open.
    pub(crate) fn served(&self) -> Option<&ServedClient<S>> {
        if let Self::Served(client) = self { Some(client) } else { None }
    }

    /// See [`PluginSide::served`].
    pub(crate) fn served_mut(&mut self) -> Option<&mut ServedClient<S>> {
        if let Self::Served(client) = self { Some(client) } else { None }
    }

    /// The client of `[serve]` whose WebSocket is being opened.
    pub(crate) fn opening_mut(&mut self) -> Option<&mut ServedOpening<S>> {
        if let Self::Opening(opening) = self { Some(opening) } else { None }
    }

    /// Begins a turn in which the plugin's side is read or written. `history`: see [`KeptPlugin::begin_turn`].
    pub(crate) fn begin_turn(&mut self, history: usize, now: Instant, budget: &MemoryBudget) {
        match self {
            Self::Kept(plugin) => plugin.begin_turn(history, budget),
            Self::Served(client) => client.begin_turn(now, budget),
            Self::Attached(_) | Self::Opening(_) | Self::Gone(_) => {}
        }
    }

    /// Takes the connection of a peer that has vanished for broken. True if it has been lost just now.
    pub(crate) fn find_lost_peer(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) -> bool {
        match self {
            Self::Attached(socket) => socket.handle_timeout(settings, now),
            Self::Kept(plugin) => plugin.socket_mut().is_some_and(|socket| socket.handle_timeout(settings, now)),
            Self::Opening(opening) => opening.opening.find_lost_client(settings, now),
            Self::Served(client) => client.socket_mut().handle_timeout(settings, now),
            Self::Gone(_) => false,
        }
    }

    /// Ends the turn of the connection; see [`SocketEndpoint::end_turn`].
    pub(crate) fn end_turn_of_socket(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) {
        match self {
            Self::Attached(socket) => socket.end_turn(settings, now),
            Self::Kept(plugin) => drop(plugin.socket_mut().map(|socket| socket.end_turn(settings, now))),
            Self::Opening(opening) => opening.opening.end_turn_of_socket(settings, now),
            Self::Served(client) => client.socket_mut().end_turn(settings, now),
            Self::Gone(_) => {}
        }
    }

    /// When a turn is needed even without an event, whatever the stage is.
    pub(crate) fn deadline(&self, settings: Option<&UserTimeoutSettings>) -> Option<Instant> {
        match self {
            Self::Attached(socket) => socket.deadline(settings),
            Self::Kept(plugin) => plugin.socket().and_then(|socket| socket.deadline(settings)),
            Self::Opening(opening) => opening.opening.client().and_then(|client| client.deadline(settings)),
            Self::Served(client) => [client.socket().deadline(settings), client.deadline()].into_iter().flatten().min(),
            Self::Gone(_) => None,
        }
    }

    /// Bytes held, but for those that a kept plugin counts itself.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Attached(_) | Self::Kept(_) | Self::Gone(_) => 0,
            Self::Opening(opening) => opening.opening.held(),
            Self::Served(client) => client.held(),
        }
    }

    /// Bytes of [`PluginSide::held`] of a page, or of a refusal, that a client whose WebSocket is not open has yet to read.
    pub(crate) fn unread(&self) -> usize {
        if let Self::Opening(opening) = self { opening.opening.unread() } else { 0 }
    }

    /// Drops everything that is held, but for what a client of `[serve]` is still to be sent.
    pub(crate) fn release(&mut self, budget: &mut MemoryBudget) {
        match self {
            Self::Kept(plugin) => plugin.release(budget),
            Self::Served(client) => client.release(),
            Self::Attached(_) | Self::Opening(_) | Self::Gone(_) => {}
        }
    }

    /// As stages and relays see it.
    pub(crate) fn endpoint(&self) -> &dyn Endpoint {
        match self {
            Self::Attached(socket) => socket,
            Self::Kept(plugin) => plugin.as_ref(),
            Self::Opening(opening) => opening.opening.endpoint(),
            Self::Served(client) => client.as_ref(),
            Self::Gone(none) => none,
        }
    }

    /// See [`PluginSide::endpoint`].
    pub(crate) fn endpoint_mut(&mut self) -> &mut dyn Endpoint {
        match self {
            Self::Attached(socket) => socket,
            Self::Kept(plugin) => plugin.as_mut(),
            Self::Opening(opening) => opening.opening.endpoint_mut(),
            Self::Served(client) => client.as_mut(),
            Self::Gone(none) => none,
        }
    }
}
