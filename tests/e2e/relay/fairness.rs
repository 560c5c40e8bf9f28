//! Twenty plugins that connect at once delay no other connection, and each of them is served.

use std::net::{Shutdown, TcpStream};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, configured, echo_mode, eventually, wait_until_acknowledged, while_stopped};

/// The number of plugins that connect at once, as after a reload of Luup.
const BURST: usize = 20;

/// Waits until the log has `count` lines with `word`, and returns their line numbers.
fn logged(daemon: &Daemon, word: &str, count: usize) -> Vec<usize> {
    eventually(word, || {
        let lines = daemon.log_lines();
        let found: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(word)).collect();
        (found.len() == count).then_some(found)
    })
}

/// Ends both streams, as the last event. The kernel has it when this returns; the log shows when the daemon has seen
/// it.
fn end(plugin: &mut Plugin, remote: &TcpStream) {
    plugin.finish();
    remote.shutdown(Shutdown::Write).unwrap();
    wait_until_acknowledged(plugin.stream());
    wait_until_acknowledged(remote);
}

#[test]
fn a_relay_runs_before_a_burst_of_conns() {
    let daemon = configured("[host]\ndebug=1\n");
    let device = Device::start(Kind::Manual);
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let mut burst: Vec<Plugin> = (0..BURST).map(|_| daemon.plugin()).collect();
    while_stopped(&daemon, || {
        burst.iter_mut().for_each(|plugin| plugin.send(format!("CONN {}\n", device.addr()).as_bytes()));
        end(&mut plugin, &remote);
    });
    for one in &mut burst {
        assert!(one.line().starts_with("OK CONN"));
        device.accept(LIMIT);
    }
    let connects = logged(&daemon, " connects to ", 1 + BURST);
    let closed = logged(&daemon, " closed: ", 1);
    assert!(closed[0] < connects[1], "{}", daemon.log_text());
}

#[test]
fn a_relay_does_not_wait_for_a_burst_of_new_connections() {
    let daemon = configured("[host]\ndebug=1\n");
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let mut burst = Vec::new();
    while_stopped(&daemon, || {
        burst.extend((0..BURST).map(|_| Plugin::connect_raw(daemon.addr()).unwrap()));
        end(&mut plugin, &remote);
    });
    for one in &mut burst {
        assert!(one.line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "));
    }
    let accepted_lines = logged(&daemon, " connection from ", 1 + BURST);
    let closed = logged(&daemon, " closed: ", 1);
    // One connection is accepted in the same turn.
    assert!(closed[0] < accepted_lines[2], "{}", daemon.log_text());
}
