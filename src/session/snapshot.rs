//! What STAT shows of a session.

use std::time::Duration;

use super::connect_times::ConnectTimes;
use crate::notify::NotifyOutcome;
use crate::protocol::options::Protocol;

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
    /// Whole messages received and sent, if the protocol has messages.
    pub messages: Option<(u64, u64)>,
    /// Bytes received from the remote.
    pub received: u64,
    /// Bytes sent to the remote.
    pub sent: u64,
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
