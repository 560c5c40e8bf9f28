//! The status of the proxy: the table of STAT, STAT JSON, STAT TEXT and STAT METRICS, and the page of the status port. Formats
//! what the daemon and the sessions report.

mod json;
mod metrics;
mod page;
mod table;
mod text;

pub(crate) use json::json;
pub(crate) use metrics::metrics;
pub(crate) use page::page;
pub(crate) use table::{header, row};
pub(crate) use text::text;

use std::time::Duration;

use crate::notify::Counters;
use crate::protocol::options::Protocol;
use crate::session::EndedConnection;

/// Pid, path, and how many arrivals wait.
pub(crate) type ListenerOwner = (String, Option<Box<str>>, usize);

/// The status of the daemon, without its sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaemonStatus {
    /// Time since the start.
    pub uptime: Duration,
    /// Bytes held for slow readers, in total.
    pub buffered: usize,
    /// Bytes of kept connections that are held after the plugin has received them, in total.
    pub history: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused since the start.
    pub refused: u64,
    /// The listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Counters of notifications since the start.
    pub notifications: Counters,
    /// Notifications that wait, or wait for their answer.
    pub pending: usize,
    /// The last ends of connections, the last one first, each with the time since.
    pub ended: Vec<(Duration, EndedConnection)>,
}

/// A listener, or one path of it.
#[derive(Clone, Debug)]
pub(crate) struct ListenerStatus {
    /// Where it listens.
    pub address: String,
    /// Where its connections lead. `None`: to setup mode.
    pub target: Option<String>,
    /// The path of WebSocket requests, `*` for any. `None`: it does not speak WebSocket.
    pub path: Option<String>,
    /// What is spoken at a plugins' one; and of each plugin its pid, its path, and how many arrivals wait for it.
    pub plugins: Option<(Protocol, Vec<ListenerOwner>)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::NotifyOutcome;
    use crate::relay::RelayTotals;
    use crate::session::{ConnectTimes, Snapshot, SnapshotState};
    use crate::websocket::MessageCounts;

    /// A daemon that has sent notifications.
    pub(super) fn daemon() -> DaemonStatus {
        DaemonStatus {
            uptime: Duration::from_millis(90_500),
            accepted: 9,
            listeners: vec![ListenerStatus { address: "0.0.0.0:2504".into(), target: None, path: None, plugins: None }],
            notifications: Counters {
                sent: 5,
                delivered: 4,
                retried: 1,
                latency: Some(Duration::from_millis(12)),
                ..Counters::default()
            },
            ..DaemonStatus::default()
        }
    }

    /// A connection whose target would end a line, and a label.
    pub(super) fn session(state: SnapshotState) -> Snapshot {
        Snapshot {
            pid: "7".into(),
            state,
            idle: Duration::from_secs(1),
            uptime: Duration::from_secs(90),
            client: "10.0.0.1".into(),
            remote: "a\"\\\nb:80".into(),
            protocol: Protocol::Ws,
            tls_version: None,
            subprotocol: None,
            totals: RelayTotals { received: 10, sent: 20, messages: Some(MessageCounts { received: 1, sent: 2 }) },
            buffered: 0,
            times: ConnectTimes::default(),
            healing: None,
            notify: Vec::new(),
            last_notification: Some(NotifyOutcome::Delivered),
        }
    }
}
