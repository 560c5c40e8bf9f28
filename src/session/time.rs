//! The time limits of a session.

use std::time::{Duration, Instant};

use super::context::SessionContext;
use super::keep::KeptEnd;
use super::plugin::PluginSide;
use super::plugin::served::ServedClient;
use super::stages::relaying::Relaying;
use super::{Session, Stage};
use crate::config::{Config, Limits};
use crate::net::network::Network;
use crate::net::user_timeout::UserTimeoutSettings;
use crate::protocol::number;
use crate::relay::{CloseReason, Timing};

/// Longer than any connection lasts.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl<N: Network> Session<N> {
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
    pub(super) fn timing(&self, relaying: &Relaying<N>, config: &Config) -> Timing {
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

    /// The user timeout of the session's connections.
    pub(super) fn user_timeout(&self, limits: &Limits) -> Option<UserTimeoutSettings> {
        let (keep_alive, epoch) = (limits.keep_alive.is_some(), self.started);
        limits.lost.map(|timeout| UserTimeoutSettings { timeout, keep_alive, epoch })
    }

    /// Takes the connection of a peer that has vanished for broken.
    pub(super) fn find_lost_peers(&mut self, user_timeout: Option<&UserTimeoutSettings>, now: Instant) {
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

    pub(super) fn end_turn_of_sockets(&mut self, user_timeout: Option<&UserTimeoutSettings>, now: Instant) {
        self.plugin.end_turn_of_socket(user_timeout, now);
        if let Stage::Relaying(relaying) = &mut self.stage
            && let Some(socket) = relaying.stream_mut()
        {
            socket.end_turn(user_timeout, now);
        }
    }
}
