//! Connections that outlive the plugin's (KEEP, ATCH, DROP): what a session does about it. What concerns two sessions
//! the daemon brings together; what is to be read and read again is [`super::kept`]'s.

use std::time::{Duration, Instant};

use mio::Token;

use super::connecting::Connecting;
use super::kept::{Gap, KeptPlugin};
use super::left::Left;
use super::notices::Notices;
use super::plugin::PluginSide;
use super::setup::Request;
use super::{Context, Session, Stage};
use crate::config::Config;
use crate::net::socket::{INTEREST, Stream};
use crate::protocol::options::Protocol;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::{End, Ready, Timing};

/// Ten years, which can be added to an instant without overflow: no limit.
const NO_STALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 86400);

/// How a kept connection stands towards those who want it, or its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is connecting, or a plugin is attached.
    Taken,
    /// Nobody is attached.
    Parked,
    /// It is ending, or was never kept.
    Over,
}

impl Session {
    /// The name by which the plugin finds this connection again, if it is to be kept.
    pub fn kept_pid(&self) -> Option<&[u8]> {
        self.parameters.kept_pid()
    }

    /// How it stands.
    pub fn keeping(&self) -> Keeping {
        match (&self.stage, &self.plugin) {
            (Stage::Left(left), _) if !left.kept => Keeping::Over,
            (_, PluginSide::Kept(plugin)) if plugin.is_given_up() => Keeping::Over,
            (Stage::Relaying(_) | Stage::Left(_), PluginSide::Kept(plugin)) => match plugin.parked_since() {
                Some(_) => Keeping::Parked,
                None => Keeping::Taken,
            },
            (Stage::Connecting(_) | Stage::Relaying(_), _) => Keeping::Taken,
            _ => Keeping::Over,
        }
    }

    /// What is asked of the daemon concerning kept connections.
    pub fn take_request(&mut self) -> Option<Request> {
        match &mut self.stage {
            Stage::Setup(stage) => stage.take_request(),
            _ => None,
        }
    }

    /// The pid that was asked for is this connection's: it connects.
    pub fn handle_pid(&mut self, target: Target, cx: &mut Context<'_>) {
        if let Stage::Setup(stage) = &mut self.stage {
            let (rest, ready) = (stage.take_rest(), stage.ready);
            let next = Connecting::begin(self.pid, target, rest, ready, &self.parameters, cx);
            self.enter(next, cx);
        }
    }

    /// The pid that was asked for cannot be had. Its owner is not told of that by way of Luup.
    pub fn refuse_pid(&mut self, reason: &str, cx: &mut Context<'_>) {
        log::info!("{} not connected: {reason}", self.pid);
        self.notices = Notices::Closed;
        self.dismiss(reply::connect_failed(reason.as_bytes()), cx);
    }

    /// The plugin's connection was announced: from now on it may go away.
    pub(super) fn begin_keeping(&mut self, now: Instant) {
        let Stage::Relaying(stage) = &mut self.stage else { return };
        self.plugin = match std::mem::replace(&mut self.plugin, PluginSide::Gone) {
            PluginSide::Attached(socket) => {
                let protocol = stage.protocol();
                let (ready, framing) = (*stage.relay_mut().plugin_ready(), self.parameters.framing(protocol));
                let lossy = protocol == Protocol::Udp;
                let plugin = KeptPlugin::new(socket, ready, framing, lossy, now);
                *stage.relay_mut().plugin_ready() = plugin.relay_ready();
                PluginSide::Kept(Box::new(plugin))
            }
            other => other,
        };
    }

    /// Notes an event of a kept plugin's connection. False where the plugin is not kept.
    pub(super) fn note_kept_event(&mut self, event: &mio::event::Event) -> bool {
        let PluginSide::Kept(plugin) = &mut self.plugin else { return false };
        plugin.ready_mut().handle_event(event);
        if let Stage::Relaying(stage) = &mut self.stage {
            *stage.relay_mut().plugin_ready() = plugin.relay_ready();
        }
        true
    }

    /// The relay of a kept connection is over, for the reason `end`.
    pub(super) fn leave_to_plugin(&mut self, end: End, now: Instant) -> Stage {
        let (PluginSide::Kept(plugin), Stage::Relaying(stage)) = (&mut self.plugin, &self.stage) else {
            return Stage::Closed;
        };
        if end == End::Done {
            return Stage::Closed;
        }
        plugin.shutdown_write();
        let kept = !matches!(end, End::Goodbye | End::BadFraming) && !plugin.is_given_up();
        Stage::Left(Box::new(Left::new(stage, kept, now)))
    }

    /// The time limits of the relay. What a plugin that is not there does not do is no silence of its own, and what it
    /// has yet to read no standstill.
    pub(super) fn timing(&self, config: &Config) -> Timing {
        let mut timing = super::relaying::timing(&self.parameters, config);
        if let PluginSide::Kept(plugin) = &self.plugin {
            if plugin.parked_since().is_some() {
                // What is buffered waits until KEEP runs out.
                (timing.idle, timing.stall) = (None, NO_STALL_LIMIT);
            } else if plugin.is_behind() {
                timing.half_close = timing.half_close.max(timing.stall);
            }
        }
        timing
    }

    /// When KEEP runs out, or the patience with a plugin that does not read what is left.
    pub(super) fn keep_deadline(&self) -> Option<Instant> {
        let PluginSide::Kept(plugin) = &self.plugin else { return None };
        let keep = self.parameters.keep;
        match (plugin.parked_since(), &self.stage) {
            // The relay has its own limits for last words.
            (_, Stage::Relaying(_)) if plugin.is_given_up() => None,
            (Some(since), _) => Some(since + keep.unwrap_or(Duration::ZERO)),
            (None, Stage::Left(left)) => Some(left.deadline(plugin.progress(), keep)),
            (None, _) => None,
        }
    }

    /// Ends a kept connection: DROP, or KEEP has run out. The remote is told as by a plugin that goes; a plugin that is
    /// attached is told the end.
    pub fn end_keeping(&mut self, why: &str, cx: &mut Context<'_>) {
        log::info!("{} ends: {why}", self.pid);
        let next = match (&mut self.stage, &mut self.plugin) {
            (Stage::Relaying(stage), PluginSide::Kept(plugin)) if stage.protocol() != Protocol::Udp => {
                plugin.give_up();
                *stage.relay_mut().plugin_ready() = plugin.relay_ready();
                return self.notify_closed(cx);
            }
            (Stage::Relaying(_), PluginSide::Kept(plugin)) => {
                plugin.give_up();
                self.release_relay(cx);
                self.leave_to_plugin(End::PluginLost, cx.now)
            }
            _ => Stage::Closed,
        };
        self.enter(next, cx);
    }

    /// Ends, since another connection has taken its pid: the plugin hears nothing of that.
    pub fn give_way(&mut self, cx: &mut Context<'_>) {
        self.fall_silent(cx);
        self.end_keeping("replaced by a new connection", cx);
    }

    /// Goes on behind the first `seen` messages, or with what was not handed over. An error is the reason, and changes
    /// nothing. To be followed by [`Session::attach`].
    pub fn resume(&mut self, seen: Option<u64>) -> Result<(), &'static str> {
        match (self.keeping(), &mut self.plugin) {
            (Keeping::Taken | Keeping::Parked, PluginSide::Kept(plugin)) => {
                plugin.resume(seen).map_err(|Gap| reply::GAP)
            }
            _ => Err(reply::NO_SUCH_PID),
        }
    }

    /// Takes over the connection of `other`, which is in setup mode and ends without another word. An error says that
    /// nobody is attached now.
    pub fn attach(&mut self, other: &mut Session, cx: &mut Context<'_>) -> std::io::Result<()> {
        let PluginSide::Kept(plugin) = &mut self.plugin else { return Ok(()) };
        let Stage::Setup(mut setup) = std::mem::replace(&mut other.stage, Stage::Closed) else { return Ok(()) };
        let PluginSide::Attached(mut socket) = std::mem::replace(&mut other.plugin, PluginSide::Gone) else {
            return Ok(());
        };
        other.notices = Notices::Closed;
        // Each address keeps as many connections as it has.
        std::mem::swap(&mut self.peer, &mut other.peer);
        cx.registry.reregister(&mut socket.0, Token(cx.key), INTEREST)?;
        log::info!("{} goes on with the connection of {} from {}", self.pid, other.pid, self.peer.ip().to_canonical());
        let pid = self.parameters.kept_pid().unwrap_or_default();
        plugin.attach(socket, setup.ready, setup.take_rest(), reply::attached(pid), cx.now);
        if let Stage::Relaying(stage) = &mut self.stage {
            stage.relay_mut().handle_new_plugin(Ready::fresh(), cx.now);
        }
        if matches!(self.notices, Notices::Closed) {
            // What was told to the plugin before is to be told to this one, too.
            self.notices = Notices::None;
        }
        Ok(())
    }
}
