//! Polls `STAT JSON` on a connection of its own.

use std::net::ToSocketAddrs;

use serde_json::Value;
use testkit::plugin::Plugin;

use super::eventually;

/// A connection that requests the status. It leaves itself out of [`StatClient::connections`].
pub(crate) struct StatClient {
    plugin: Plugin,
}

/// Reads the answer to `STAT JSON`.
#[track_caller]
pub(crate) fn stat_json(plugin: &mut Plugin) -> Value {
    let head = plugin.line();
    let length = head.strip_prefix("OK STAT ").and_then(|length| length.parse().ok());
    let length = length.unwrap_or_else(|| panic!("no status: {head:?}"));
    serde_json::from_slice(&plugin.bytes(length)).expect("STAT JSON is JSON")
}

impl StatClient {
    #[track_caller]
    pub(crate) fn new(to: impl ToSocketAddrs) -> StatClient {
        StatClient { plugin: Plugin::connect(to) }
    }

    /// The whole status.
    #[track_caller]
    pub(crate) fn status(&mut self) -> Value {
        self.plugin.send(b"STAT JSON\n");
        stat_json(&mut self.plugin)
    }

    /// All connections except this one.
    #[track_caller]
    pub(crate) fn connections(&mut self) -> Vec<Value> {
        let own = Value::from(self.plugin.pid());
        let Value::Array(mut all) = self.status()["connections"].take() else { panic!("no connections in STAT JSON") };
        all.retain(|connection| connection["id"] != own);
        all
    }

    /// The connection with this pid.
    #[track_caller]
    pub(crate) fn connection(&mut self, pid: &str) -> Option<Value> {
        self.connections().into_iter().find(|connection| connection["id"] == pid)
    }

    /// Waits until the connection with this pid is among the last ends, and returns the entry.
    #[track_caller]
    pub(crate) fn wait_ended(&mut self, pid: &str) -> Value {
        eventually(&format!("{pid} has ended"), || {
            let Value::Array(ended) = self.status()["ended"].take() else { panic!("no ends in STAT JSON") };
            ended.into_iter().find(|end| end["id"] == pid)
        })
    }

    /// Waits until there are exactly `count` connections besides this one.
    #[track_caller]
    pub(crate) fn wait_connections(&mut self, count: usize) {
        eventually(&format!("{count} connections"), || (self.connections().len() == count).then_some(()));
    }

    /// Waits until no notification is queued or in flight.
    #[track_caller]
    pub(crate) fn wait_notified(&mut self) {
        eventually("no notification pending", || (self.status()["notifications"]["pending"] == 0).then_some(()));
    }
}
