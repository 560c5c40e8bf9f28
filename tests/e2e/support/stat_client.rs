//! Watches the daemon by `STAT JSON`, on a connection of its own.

use std::net::ToSocketAddrs;

use serde_json::Value;
use testkit::plugin::Plugin;

use super::eventually;

/// A connection that asks for the status; it is not counted itself.
pub struct StatClient {
    plugin: Plugin,
}

impl StatClient {
    #[track_caller]
    pub fn new(to: impl ToSocketAddrs) -> StatClient {
        StatClient { plugin: Plugin::connect(to) }
    }

    /// The whole status.
    #[track_caller]
    pub fn status(&mut self) -> Value {
        let head = self.plugin.command("STAT JSON");
        let length = head.strip_prefix("OK STAT ").and_then(|length| length.parse().ok());
        let length = length.unwrap_or_else(|| panic!("no status: {head:?}"));
        let body = self.plugin.bytes(length);
        serde_json::from_slice(&body).expect("STAT JSON is JSON")
    }

    /// The connections other than this one.
    #[track_caller]
    pub fn connections(&mut self) -> Vec<Value> {
        let own = Value::from(self.plugin.pid());
        let Value::Array(mut all) = self.status()["connections"].take() else { panic!("no connections in STAT JSON") };
        all.retain(|connection| connection["id"] != own);
        all
    }

    /// The connection of this pid.
    #[track_caller]
    pub fn connection(&mut self, pid: &str) -> Option<Value> {
        self.connections().into_iter().find(|connection| connection["id"] == pid)
    }

    /// Waits until so many connections other than this one are left.
    #[track_caller]
    pub fn wait_connections(&mut self, count: usize) {
        eventually(&format!("{count} connections"), || (self.connections().len() == count).then_some(()));
    }

    /// Waits until no notification waits or is under way.
    #[track_caller]
    pub fn wait_notified(&mut self) {
        eventually("no notification pending", || (self.status()["notifications"]["pending"] == 0).then_some(()));
    }
}
