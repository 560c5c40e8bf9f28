//! Plugins that come back to a connection that was kept.

use lab::daemon::Daemon;
use lab::plugin::Plugin;

use super::{Observer, eventually};

/// A pid that nobody would guess.
pub const PID: &str = "k7Xq-9bZ";

/// A plugin that has come back to the connection of [`PID`].
#[track_caller]
pub fn attached(daemon: &Daemon, options: &str) -> Plugin {
    let mut plugin = daemon.plugin();
    let answer = plugin.command(format!("ATCH {PID} {options}").trim_end());
    assert_eq!(answer, format!("OK ATCH {PID}"));
    plugin
}

/// Waits until a connection is parked.
#[track_caller]
pub fn wait_parked(daemon: &Daemon) {
    let mut observer = Observer::new(daemon.addr());
    let parked = |shown: &serde_json::Value| shown["state"] == "parked";
    eventually("a connection that is parked", || observer.connections().iter().any(parked).then_some(()));
}
