//! Plugins that attach to a kept connection.

use testkit::daemon::Daemon;
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::websocket::{CLOSE, Peer, TEXT, close_of};

use super::{LIMIT, StatClient, eventually, read_frame, read_message_text};

/// A pid that is long enough to be unguessable.
pub(crate) const PID: &str = "k7Xq-9bZ";

/// A plugin that has attached to the connection of [`PID`].
#[track_caller]
pub(crate) fn attached(daemon: &Daemon, options: &str) -> Plugin {
    let mut plugin = daemon.plugin();
    let answer = plugin.command(format!("ATCH {PID} {options}").trim_end());
    assert_eq!(answer, format!("OK ATCH {PID}"));
    plugin
}

/// Waits until a connection is parked.
#[track_caller]
pub(crate) fn wait_parked(daemon: &Daemon) {
    let mut stat = StatClient::new(daemon.addr());
    let parked = |shown: &serde_json::Value| shown["state"] == "parked";
    eventually("a connection is parked", || stat.connections().iter().any(parked).then_some(()));
}

/// The plugin of a kept WebSocket (with `EVNT=on`) has just disconnected after `seen` messages. The remote sends one
/// more message and closes; both must reach the plugin that attaches next.
#[track_caller]
pub(crate) fn remote_closes_while_parked(luup: &Luup, daemon: &Daemon, mut peer: Peer, seen: u32) {
    wait_parked(daemon);
    luup.clear_requests();
    peer.send_frame(TEXT, b"last").unwrap();
    peer.send_frame(CLOSE, &close_of(1000, "bye")).unwrap();
    assert_eq!(read_frame(&mut peer).0, CLOSE);
    peer.end().unwrap();
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("Event=closed"))).unwrap();
    let mut plugin = attached(daemon, &format!("SEEN={seen}"));
    assert_eq!(read_message_text(&mut plugin), "TEXT last");
    assert_eq!(read_message_text(&mut plugin), "CLOS 1000 bye");
    assert!(plugin.at_end());
}
