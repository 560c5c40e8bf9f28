//! A session whose plugin may disconnect and come back (KEEP): the state of its pid, and its next plugin (ATCH).

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;

use super::context::{SessionContext, TurnResult};
use super::notifier::{Notifier, recipient};
use super::peer::Peer;
use super::plugin::PluginSide;
use super::plugin::kept::Gap;
use super::{Session, Stage};
use crate::net::endpoint::SocketEndpoint;
use crate::net::network::Network;
use crate::protocol::options::Protocol;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::CloseReason;

/// Turns given to an attached plugin's unread bytes before ATCH replaces it. What is left then is what the remote does not
/// take.
const ATTACH_TURNS: usize = 16;

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
    pub(super) socket: SocketEndpoint<S>,
    /// What the plugin has sent behind its ATCH.
    pub(super) sent_ahead: Vec<u8>,
    pub(super) peer: SocketAddr,
}

impl<N: Network> Session<N> {
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

    /// When KEEP runs out, or the time of a plugin that does not read what is left.
    pub(super) fn keep_deadline(&self) -> Option<Instant> {
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
        let PluginSide::Attached(mut socket) = std::mem::replace(&mut self.plugin, PluginSide::GONE) else {
            return None;
        };
        // Another session has the connection now, and counts its time from another moment.
        socket.restart_user_timeout();
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

    /// See [`Session::attach`].
    pub(crate) fn set_peer(&mut self, peer: SocketAddr) {
        self.peer = Peer::Plugin(peer);
    }

    /// Ends a kept session. The remote is told as by a plugin that goes; a plugin that is attached is told the end.
    pub(crate) fn end_kept(&mut self, why: KeptEnd, cx: &mut SessionContext<'_, N>) {
        log::info!("{} ends: {why}", self.pid);
        if why == KeptEnd::Replaced {
            self.notifier.cancel_all(|| recipient(&self.parameters, self.pid, &self.peer), cx.schedule);
        }
        let next = match (&mut self.stage, &mut self.plugin) {
            (Stage::Relaying(relaying), PluginSide::Kept(plugin)) => {
                plugin.give_up();
                if relaying.protocol() != Protocol::Udp {
                    return self.notify_closed(cx);
                }
                self.end_relay(CloseReason::PluginLost, cx)
            }
            (Stage::Healing(_), _) => {
                self.record_end(&why, cx);
                Stage::Closed
            }
            _ => Stage::Closed,
        };
        self.enter(next, cx);
    }
}
