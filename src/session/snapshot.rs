//! What STAT shows of a session.

use std::time::{Duration, Instant};

use super::connect_times::ConnectTimes;
use super::keep::KeptState;
use super::notifier::Notifier;
use super::plugin::PluginSide;
use super::stages::healing::Healing;
use super::stages::relaying::Relaying;
use super::{Session, Stage};
use crate::net::network::Network;
use crate::notify::{NotifyOutcome, Schedule};
use crate::protocol::options::Protocol;
use crate::relay::RelayTotals;

/// Where a session stands, as STAT shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotState {
    /// Setup mode.
    Setup,
    /// A plugin that listens.
    Listening,
    /// A connection that has arrived, and that no plugin has accepted yet.
    Arriving,
    /// A client of the status port that is sent the status.
    Watching,
    /// A CONN is under way.
    Connecting,
    /// Echo mode.
    Relaying,
    /// Echo mode, while the remote is lost (HEAL).
    Healing,
    /// Echo mode, without a plugin (KEEP).
    Parked,
}

/// What STAT JSON shows of a connection with HEAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HealingSnapshot {
    /// How often the remote was lost.
    pub losses: u32,
    /// How long it has been lost. `None`: it is not.
    pub lost_for: Option<Duration>,
    /// Time until the next attempt. `None`: one is under way, or none is needed.
    pub next_attempt: Option<Duration>,
}

impl SnapshotState {
    /// All states, in the order of their declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Setup,
        Self::Listening,
        Self::Arriving,
        Self::Watching,
        Self::Connecting,
        Self::Relaying,
        Self::Healing,
        Self::Parked,
    ];

    /// STAT's column St: 1 in setup mode, 2 in echo mode.
    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::Setup | Self::Listening | Self::Arriving | Self::Watching | Self::Connecting => 1,
            Self::Relaying | Self::Healing | Self::Parked => 2,
        }
    }

    /// STAT JSON's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Listening => "listening",
            Self::Arriving => "arriving",
            Self::Watching => "status",
            Self::Connecting => "connecting",
            Self::Relaying => "echo",
            Self::Healing => "healing",
            Self::Parked => "parked",
        }
    }
}

// A state that is missing in the list would not be counted.
const _: () = assert!(SnapshotState::Parked as usize + 1 == SnapshotState::ALL.len());

/// What STAT shows of a session.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The proxy's name for it.
    pub pid: String,
    /// Where it stands.
    pub state: SnapshotState,
    /// Time since the remote last sent something.
    pub idle: Duration,
    /// Time since the plugin connected.
    pub uptime: Duration,
    /// The plugin's address.
    pub client: String,
    /// The target, as the plugin wrote it.
    pub remote: String,
    /// What is spoken with the remote; `tcp` in setup mode.
    pub protocol: Protocol,
    /// The version of TLS, if that is spoken.
    pub tls_version: Option<&'static str>,
    /// The subprotocol that the remote has chosen.
    pub subprotocol: Option<String>,
    /// What has passed from and to the remote.
    pub totals: RelayTotals,
    /// Bytes held for this session, whatever for.
    pub buffered: usize,
    /// How long the steps of connecting have taken.
    pub times: ConnectTimes,
    /// What has become of the remote, with HEAL.
    pub healing: Option<HealingSnapshot>,
    /// STAT's column Notify.
    pub notify: Vec<u8>,
    /// The result of the last notification.
    pub last_notification: Option<NotifyOutcome>,
}

impl Snapshot {
    fn describe_relaying<N: Network>(&mut self, relaying: &Relaying<N>, heals: bool, now: Instant) {
        self.state = SnapshotState::Relaying;
        self.remote = relaying.target().to_string();
        self.protocol = relaying.protocol();
        self.tls_version = relaying.tls_version();
        self.times = relaying.times();
        self.subprotocol = relaying.subprotocol().map(str::to_owned);
        self.totals = relaying.totals();
        self.idle = now.saturating_duration_since(relaying.relay().last_heard());
        let losses = relaying.outages().losses;
        self.healing = heals.then_some(HealingSnapshot { losses, lost_for: None, next_attempt: None });
    }

    fn describe_healing<N: Network>(&mut self, healing: &Healing<N>, now: Instant) {
        let outages = healing.outages();
        self.state = SnapshotState::Healing;
        self.remote = healing.target().to_string();
        self.protocol = healing.protocol();
        (self.totals, self.times) = (outages.totals, healing.times());
        self.idle = now.saturating_duration_since(healing.last_heard());
        self.healing = Some(HealingSnapshot {
            losses: outages.losses,
            lost_for: Some(now.saturating_duration_since(healing.since())),
            next_attempt: healing.next_attempt().map(|at| at.saturating_duration_since(now)),
        });
    }
}

impl<N: Network> Session<N> {
    /// True if STAT shows the session: not one that is only draining.
    pub(crate) fn is_shown(&self) -> bool {
        match &self.stage {
            // One that is answered is only draining.
            Stage::Opening => matches!(&self.plugin, PluginSide::Opening(client) if !client.opening.is_answered()),
            Stage::Draining(_) | Stage::Closed => false,
            _ => true,
        }
    }

    /// What STAT shows of the session. `None` for one that it does not show.
    pub(crate) fn snapshot(&self, schedule: &Schedule, now: Instant) -> Option<Snapshot> {
        if !self.is_shown() {
            return None;
        }
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
            totals: RelayTotals::default(),
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
            Stage::Setup(_) | Stage::Opening | Stage::Checking(_) | Stage::Draining(_) | Stage::Closed => {}
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
            Stage::Relaying(relaying) => shown.describe_relaying(relaying, self.parameters.heals().is_some(), now),
            Stage::Healing(healing) => shown.describe_healing(healing, now),
            Stage::UnreadTail(tail) => {
                shown.state = SnapshotState::Relaying;
                shown.remote = tail.target.to_string();
                (shown.protocol, shown.totals, shown.times) = (tail.protocol, tail.totals, tail.times);
                shown.idle = now.saturating_duration_since(tail.last_heard);
            }
        }
        if let (Stage::Relaying(_) | Stage::Healing(_), Some(client)) = (&self.stage, self.plugin.served()) {
            shown.totals.messages.get_or_insert(client.messages());
        }
        if self.kept_state() == KeptState::Parked {
            shown.state = SnapshotState::Parked;
        }
        Some(shown)
    }
}
