//! The end of a session that others ask for.

use super::context::SessionContext;
use super::draining::Draining;
use super::keep::KeptEnd;
use super::plugin::PluginSide;
use super::{Session, Stage};
use crate::net::network::Network;
use crate::protocol::connect_error::ConnectError;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::CloseReason;
use crate::websocket::close;

impl<N: Network> Session<N> {
    /// Ends a session in setup mode with a last reply.
    pub(crate) fn reject(&mut self, reply: Vec<u8>, cx: &mut SessionContext<'_, N>) {
        if let Stage::Setup(_) = &self.stage {
            self.enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))), cx);
        }
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
            _ => {
                self.record_end(&CloseReason::Dropped, cx);
                self.enter(Stage::Closed, cx);
            }
        }
    }

    /// Ends a session that is idle in setup mode, since others need its place.
    pub(crate) fn end_idle(&mut self, cx: &mut SessionContext<'_, N>) {
        log::info!("{} no command in setup mode for too long, while there are too many connections", self.pid);
        self.enter(Stage::Closed, cx);
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
                self.record_end(&CloseReason::NoMemory, cx);
                Stage::Draining(Box::new(Draining::new(last_message, cx.now)))
            }
            (Stage::Relaying(relaying), PluginSide::Served(client)) => {
                let is_behind = client.is_behind();
                relaying.refuse_for_memory(cx);
                let drained = self.end_relay(CloseReason::NoMemory, cx);
                // What waits for the client is what others need.
                if is_behind { Stage::Closed } else { drained }
            }
            _ => {
                self.record_end(&CloseReason::NoMemory, cx);
                Stage::Closed
            }
        };
        self.enter(next, cx);
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
                let next = self.end_relay(CloseReason::Shutdown, cx);
                self.enter(next, cx);
            }
            Stage::Watching(_) => {
                if let Some(client) = self.plugin.served_mut() {
                    client.close(close::GOING_AWAY, "");
                    client.drain();
                }
                self.enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))), cx);
            }
            _ => {
                self.record_end(&CloseReason::Shutdown, cx);
                self.enter(Stage::Closed, cx);
            }
        }
    }

    /// Ends without another turn: the outgoing side of the remote's stream is ended as far as that goes at once.
    pub(crate) fn abort(&mut self, cx: &mut SessionContext<'_, N>) {
        self.record_end(&CloseReason::Shutdown, cx);
        if let Stage::Relaying(relaying) = &mut self.stage {
            relaying.shutdown_write();
        }
    }
}
