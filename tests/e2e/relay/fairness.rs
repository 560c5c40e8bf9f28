//! Twenty plugins that come at once keep nobody else waiting, and none of them is forgotten.

use std::net::{Shutdown, TcpStream};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, configured, echo_mode, eventually, wait_until_acknowledged, while_stopped};

/// As after a reload of Luup.
const CROWD: usize = 20;

/// The log's lines with `word`, when there are so many: which ones they are.
fn logged(daemon: &Daemon, word: &str, count: usize) -> Vec<usize> {
    eventually(word, || {
        let lines = daemon.log_lines();
        let found: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(word)).collect();
        (found.len() == count).then_some(found)
    })
}

/// The last event of all, of which the daemon's kernel knows when this returns. That the daemon has seen it stands in the log.
fn end(plugin: &mut Plugin, remote: &TcpStream) {
    plugin.finish();
    remote.shutdown(Shutdown::Write).unwrap();
    wait_until_acknowledged(plugin.stream());
    wait_until_acknowledged(remote);
}

#[test]
fn who_relays_has_a_turn_before_a_crowd_that_connects() {
    let daemon = configured("[host]\ndebug=1\n");
    let device = Device::start(Kind::Manual);
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let mut crowd: Vec<Plugin> = (0..CROWD).map(|_| daemon.plugin()).collect();
    while_stopped(&daemon, || {
        crowd.iter_mut().for_each(|one| one.send(format!("CONN {}\n", device.addr()).as_bytes()));
        end(&mut plugin, &remote);
    });
    for one in &mut crowd {
        assert!(one.line().starts_with("OK CONN"));
        device.accept(LIMIT);
    }
    let connects = logged(&daemon, " connects to ", 1 + CROWD);
    let closed = logged(&daemon, " closed: ", 1);
    assert!(closed[0] < connects[1], "{}", daemon.log_text());
}

#[test]
fn who_relays_waits_for_no_crowd_that_comes_in() {
    let daemon = configured("[host]\ndebug=1\n");
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let mut crowd = Vec::new();
    while_stopped(&daemon, || {
        crowd.extend((0..CROWD).map(|_| Plugin::connect_raw(daemon.addr()).unwrap()));
        end(&mut plugin, &remote);
    });
    for one in &mut crowd {
        assert!(one.line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "));
    }
    let came_in = logged(&daemon, " connection from ", 1 + CROWD);
    let closed = logged(&daemon, " closed: ", 1);
    // One is let in at the same time.
    assert!(closed[0] < came_in[2], "{}", daemon.log_text());
}
