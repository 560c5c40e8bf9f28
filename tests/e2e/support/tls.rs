//! Plugins connected to remotes over TLS.

use std::fmt::Display;

use testkit::daemon::Daemon;
use testkit::plugin::Plugin;

/// Sends CONN over TLS. Returns the plugin and the answer. The long CTIM is for handshakes on a busy machine.
#[track_caller]
pub(crate) fn tls_answered(daemon: &Daemon, target: impl Display, options: &str) -> (Plugin, String) {
    let mut plugin = daemon.plugin();
    let answer = plugin.command(&format!("CONN {target} PRTO=tls CTIM=30000 {options}"));
    (plugin, answer)
}

/// A plugin in echo mode over TLS.
#[track_caller]
pub(crate) fn tls_connected(daemon: &Daemon, target: impl Display, options: &str) -> Plugin {
    let (plugin, answer) = tls_answered(daemon, target, options);
    assert!(answer.starts_with("OK CONN "), "{answer}");
    plugin
}
