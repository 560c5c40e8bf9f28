//! The plugin's side of a session: its connection, or what stands in for one that may go away.

use super::kept::KeptPlugin;
use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::relay::memory_budget::MemoryBudget;
use std::io;

/// The plugin's side.
#[derive(Debug)]
pub(super) enum PluginSide<S> {
    /// The connection itself: its end is the session's end.
    Attached(SocketEndpoint<S>),
    /// A connection that may go away, and another one take its place (KEEP).
    Kept(Box<KeptPlugin<S>>),
    /// None: another session has taken the connection over (ATCH), or the daemon ends.
    Gone(NoPlugin),
}

/// The endpoint of a plugin that is gone: reading returns the end, writing fails.
#[derive(Debug)]
pub(super) struct NoPlugin;

impl<S: Stream> PluginSide<S> {
    /// The side of a session that has no plugin.
    pub(super) const GONE: Self = Self::Gone(NoPlugin);

    /// Adds what an event of the plugin's socket reports.
    pub(super) fn handle_event(&mut self, event: Readiness) {
        match self {
            Self::Attached(socket) => socket.handle_event(event),
            Self::Kept(plugin) => plugin.handle_event(event),
            Self::Gone(_) => {}
        }
    }

    /// The kept plugin, if the session is kept.
    pub(super) fn kept(&self) -> Option<&KeptPlugin<S>> {
        if let Self::Kept(plugin) = self { Some(plugin) } else { None }
    }

    /// The kept plugin, if the session is kept.
    pub(super) fn kept_mut(&mut self) -> Option<&mut KeptPlugin<S>> {
        if let Self::Kept(plugin) = self { Some(plugin) } else { None }
    }

    /// The plugin's connection, unless there is none.
    pub(super) fn socket(&self) -> Option<&SocketEndpoint<S>> {
        match self {
            Self::Attached(socket) => Some(socket),
            Self::Kept(plugin) => plugin.socket(),
            Self::Gone(_) => None,
        }
    }

    /// The plugin's connection, unless there is none.
    pub(super) fn socket_mut(&mut self) -> Option<&mut SocketEndpoint<S>> {
        match self {
            Self::Attached(socket) => Some(socket),
            Self::Kept(plugin) => plugin.socket_mut(),
            Self::Gone(_) => None,
        }
    }

    /// Drops everything that is held.
    pub(super) fn release(&mut self, budget: &mut MemoryBudget) {
        if let Self::Kept(plugin) = self {
            plugin.release(budget);
        }
    }

    /// As stages and relays see it.
    pub(super) fn endpoint(&self) -> &dyn Endpoint {
        match self {
            Self::Attached(socket) => socket,
            Self::Kept(plugin) => plugin.as_ref(),
            Self::Gone(none) => none,
        }
    }

    /// As stages and relays see it.
    pub(super) fn endpoint_mut(&mut self) -> &mut dyn Endpoint {
        match self {
            Self::Attached(socket) => socket,
            Self::Kept(plugin) => plugin.as_mut(),
            Self::Gone(none) => none,
        }
    }
}

impl Endpoint for NoPlugin {
    fn try_read(&mut self, _: &mut [u8]) -> Transfer {
        Transfer::Eof
    }

    fn try_write(&mut self, _: &[u8]) -> Transfer {
        Transfer::Broken(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown_write(&mut self) {}

    fn is_readable(&self) -> bool {
        true
    }

    fn assume_readable(&mut self) {}

    fn is_writable(&self) -> bool {
        true
    }

    fn is_read_closed(&self) -> bool {
        true
    }

    fn is_closed(&self) -> bool {
        true
    }
}
