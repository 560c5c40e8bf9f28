//! What STAT shows of a session.

use std::time::{Duration, Instant};

use super::plugin::PluginSide;
use super::{Keeping, Notices, Session, Stage};
use crate::notify::{NotifyOutcome, Schedule};
use crate::protocol::options::Protocol;

/// Where a session stands, in STAT's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Commands are taken.
    Setup,
    /// A CONN is under way.
    Connecting,
    /// Echo mode.
    Relaying,
    /// Echo mode, without a plugin (KEEP).
    Parked,
}

impl State {
    /// STAT's column St: 1 in setup mode, 2 in echo mode.
    pub fn digit(self) -> u8 {
        match self {
            Self::Setup | Self::Connecting => 1,
            Self::Relaying | Self::Parked => 2,
        }
    }

    /// STAT JSON's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Connecting => "connecting",
            Self::Relaying => "echo",
            Self::Parked => "parked",
        }
    }
}

/// What STAT shows of a session.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The proxy's name for it.
    pub pid: String,
    /// Where it stands.
    pub state: State,
    /// Since the remote was last heard.
    pub idle: Duration,
    /// Since the plugin connected.
    pub uptime: Duration,
    /// The plugin's address.
    pub client: String,
    /// The target, as the plugin wrote it.
    pub remote: String,
    /// What is spoken with the remote; in setup mode, what nothing was said against.
    pub protocol: Protocol,
    /// The version of TLS, where that is spoken.
    pub tls_version: Option<&'static str>,
    /// The subprotocol that the remote has chosen.
    pub subprotocol: Option<String>,
    /// Whole messages received and sent, where there are messages.
    pub messages: Option<(u64, u64)>,
    /// Bytes received from the remote.
    pub received: u64,
    /// Bytes sent to the remote.
    pub sent: u64,
    /// Bytes held for slow readers; in setup mode, replies that the plugin has not taken.
    pub buffered: usize,
    /// STAT's column Notify.
    pub notify: Vec<u8>,
    /// What became of the last notification.
    pub last_notification: Option<NotifyOutcome>,
}

impl Session {
    /// What STAT shows of it. A session that is only saying its last words is not shown.
    pub fn snapshot(&self, schedule: &Schedule, now: Instant) -> Option<Snapshot> {
        let pid = self.pid.to_string();
        let mut shown = Snapshot {
            state: State::Setup,
            idle: Duration::ZERO,
            uptime: now.saturating_duration_since(self.started),
            client: self.address().to_string(),
            remote: String::new(),
            protocol: Protocol::Tcp,
            tls_version: None,
            subprotocol: None,
            messages: None,
            received: 0,
            sent: 0,
            buffered: 0,
            notify: self.notify_column(pid.as_bytes()),
            last_notification: match self.notices {
                Notices::Open(line) => schedule.last_outcome(line),
                Notices::None | Notices::Closed => None,
            },
            pid,
        };
        match &self.stage {
            Stage::Setup(stage) => shown.buffered = stage.unread(),
            Stage::Connecting(stage) => {
                shown.state = State::Connecting;
                shown.remote = stage.target().to_string();
                shown.protocol = stage.protocol();
            }
            Stage::Relaying(stage) => {
                shown.state = State::Relaying;
                shown.remote = stage.target().to_string();
                shown.protocol = stage.protocol();
                shown.tls_version = stage.tls_version();
                shown.subprotocol = stage.subprotocol().map(str::to_owned);
                let relay = stage.relay();
                shown.messages = relay.messages();
                shown.idle = now.saturating_duration_since(relay.last_heard());
                (shown.received, shown.sent, shown.buffered) = (relay.received(), relay.sent(), relay.held());
            }
            Stage::Left(left) => {
                shown.state = State::Relaying;
                shown.remote = left.target.to_string();
                (shown.protocol, shown.messages) = (left.protocol, left.messages);
                shown.idle = now.saturating_duration_since(left.last_heard);
                (shown.received, shown.sent) = (left.received, left.sent);
            }
            Stage::Draining(_) | Stage::Closed => return None,
        }
        if let PluginSide::Kept(plugin) = &self.plugin {
            shown.buffered += plugin.held();
        }
        if self.keeping() == Keeping::Parked {
            shown.state = State::Parked;
        }
        Some(shown)
    }

    /// STAT's column Notify. The pid of a kept connection is a secret, and whoever asks is another connection.
    fn notify_column(&self, pid: &[u8]) -> Vec<u8> {
        match self.parameters.notify.as_deref() {
            Some(notify) if self.parameters.keep.is_some() => notify.column_of_a_secret(pid),
            Some(notify) => notify.column(pid),
            None => Vec::new(),
        }
    }
}
