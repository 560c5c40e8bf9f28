//! KEEP, ATCH and DROP over TCP: a connection outlives that of its plugin, and another plugin attaches to it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::random::Checker;

use crate::support::{
    LIMIT, PID, Reader, StatClient, Writer, accepted, attached, configured, ends, eventually, processor_time, started,
    stays_quiet, wait_parked, wait_until_acknowledged, with_luup,
};

/// A plugin on a kept connection, and its remote.
#[track_caller]
fn kept(daemon: &Daemon, options: &str) -> (Plugin, TcpStream) {
    kept_as(daemon, PID, options)
}

#[track_caller]
fn kept_as(daemon: &Daemon, pid: &str, options: &str) -> (Plugin, TcpStream) {
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.conn(device.addr(), &format!("KEEP=300 NTFY=5/s/a/{pid} {options}")), pid);
    (plugin, accepted(&device))
}

/// The events of Luup's notifications for [`PID`].
fn events(luup: &Luup) -> Vec<String> {
    luup.requests().iter().map(|request| request.query.rsplit_once("&Event=").unwrap().1.to_owned()).collect()
}

#[track_caller]
fn expect_bytes(remote: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    remote.read_exact(&mut received).unwrap();
    assert_eq!(received, expected);
}

/// The user has changed the address in the plugin's settings, and the pid is the same.
#[test]
fn a_plugin_names_the_target_that_it_expects() {
    let daemon = started();
    let (plugin, mut remote) = kept(&daemon, "");
    let target = remote.local_addr().unwrap();
    drop(plugin);
    wait_parked(&daemon);
    let mut plugin = daemon.plugin();
    for other in ["127.0.0.2:1", "ws://127.0.0.1/", "[::1]:1", &format!("localhost:{}", target.port())] {
        assert_eq!(plugin.command(&format!("ATCH {PID} CONN={other}")), "ERR ATCH Other target", "{other}");
    }
    assert_eq!(plugin.command(&format!("ATCH {PID}1 CONN={target}")), "ERR ATCH No such pid");
    remote.write_all(b"kept").unwrap();
    assert_eq!(plugin.command(&format!("ATCH {PID} CONN={target} SEEN=0")), format!("OK ATCH {PID}"));
    assert_eq!(plugin.bytes(4), b"kept");
    // Attached, too: another plugin with another target does not take it over.
    assert_eq!(daemon.plugin().command(&format!("ATCH {PID} CONN=127.0.0.2:1")), "ERR ATCH Other target");
    plugin.send(b"goes on");
    expect_bytes(&mut remote, b"goes on");
}

#[test]
fn a_plugin_attaches_and_goes_on() {
    let daemon = started();
    let (mut plugin, mut remote) = kept(&daemon, "");
    plugin.send(b"hello");
    expect_bytes(&mut remote, b"hello");
    remote.write_all(b"first").unwrap();
    assert_eq!(plugin.bytes(5), b"first");
    drop(plugin);
    wait_parked(&daemon);
    assert!(stays_quiet(&remote, Duration::from_millis(100)), "the remote notices nothing");
    remote.write_all(b"second").unwrap();
    let mut plugin = daemon.plugin();
    plugin.send(format!("ATCH {PID}\nahead").as_bytes());
    assert_eq!(plugin.line(), format!("OK ATCH {PID}"));
    assert_eq!(plugin.bytes(6), b"second");
    expect_bytes(&mut remote, b"ahead");
    plugin.send(b", and on");
    expect_bytes(&mut remote, b", and on");
}

#[test]
fn bytes_of_a_closed_plugin_are_still_sent() {
    let daemon = started();
    let (plugin, remote) = kept(&daemon, "");
    let mut writer = Writer::new(plugin.stream(), 7);
    let written = writer.write_until_blocked();
    drop((plugin, writer));
    let mut reader = Reader::new(&remote, 7).slow();
    reader.read(written);
    wait_parked(&daemon);
    assert!(stays_quiet(&remote, Duration::from_millis(100)));
}

#[test]
fn seen_prevents_loss_and_duplicates() {
    let daemon = started();
    let (mut plugin, mut remote) = kept(&daemon, "");
    remote.write_all(b"0123456789").unwrap();
    assert_eq!(plugin.bytes(10), b"0123456789");
    // The plugin's kernel has received all, but the plugin has processed only 4 bytes.
    drop(plugin);
    let mut plugin = attached(&daemon, "SEEN=4");
    assert_eq!(plugin.bytes(6), b"456789");
    remote.write_all(b"abc").unwrap();
    assert_eq!(plugin.bytes(3), b"abc");
    drop(plugin);
    let mut plugin = attached(&daemon, "SEEN=12");
    assert_eq!(plugin.bytes(1), b"c");
    drop(plugin);
    // A plugin without SEEN gets only later bytes, and counts from there.
    let mut plugin = attached(&daemon, "");
    assert!(stays_quiet(plugin.stream(), Duration::from_millis(100)));
    remote.write_all(b"xyz").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    drop(plugin);
    let mut plugin = attached(&daemon, "SEEN=1");
    assert_eq!(plugin.bytes(2), b"yz");
}

#[test]
fn bytes_that_are_no_longer_kept_are_a_gap() {
    let daemon = configured("[limits]\nhistory=1000\n");
    let (plugin, remote) = kept(&daemon, "");
    Writer::new(&remote, 3).write(5000);
    Reader::new(plugin.stream(), 3).read(5000);
    drop(plugin);
    let mut plugin = daemon.plugin();
    for seen in ["0", "3999", "5001", "18446744073709551615"] {
        assert_eq!(plugin.command(&format!("ATCH {PID} SEEN={seen}")), "ERR ATCH Gap", "{seen}");
    }
    assert_eq!(plugin.command("CAPA").split(' ').next(), Some("OK"), "setup mode goes on");
    assert_eq!(plugin.command(&format!("ATCH {PID} SEEN=4000")), format!("OK ATCH {PID}"));
    assert_eq!(plugin.bytes(1000).len(), 1000);
}

#[test]
fn a_second_plugin_takes_over_an_attached_session() {
    let (luup, daemon) = with_luup("");
    let (mut old, mut remote) = kept(&daemon, "EVNT=on");
    luup.wait_for(1, LIMIT);
    old.send(b"last words");
    // The old socket stays open, since a child process of the old Luup may hold it.
    let mut new = attached(&daemon, "");
    assert!(old.at_end());
    expect_bytes(&mut remote, b"last words");
    remote.write_all(b"for the new one").unwrap();
    assert_eq!(new.bytes(15), b"for the new one");
    luup.wait_for(2, LIMIT);
    assert_eq!(events(&luup), ["connected", "data"], "the end of the old plugin is not notified");
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(1);
}

#[test]
fn an_unknown_pid_is_refused() {
    let daemon = started();
    let (_plugin, _remote) = kept(&daemon, "");
    let mut other = daemon.plugin();
    for command in ["ATCH k7Xq-9b", "ATCH", "ATCH K7XQ-9BZ", "ATCH 0 SEEN=1"] {
        assert_eq!(other.command(command), "ERR ATCH No such pid", "{command}");
    }
    for command in ["DROP k7Xq-9b", "DROP"] {
        assert_eq!(other.command(command), "ERR DROP No such pid", "{command}");
    }
    let mut other = daemon.plugin();
    assert_eq!(other.command(&format!("ATCH {PID} SEEN=x")), "ERR ATCH Invalid option");
    assert!(other.at_end());
}

#[test]
fn drop_ends_the_connection() {
    let (luup, daemon) = with_luup("");
    for parked in [true, false] {
        let (plugin, remote) = kept(&daemon, "EVNT=on");
        luup.wait_for(1, LIMIT);
        let mut plugin = Some(plugin);
        if parked {
            plugin = None;
            wait_parked(&daemon);
        }
        let mut other = daemon.plugin();
        assert_eq!(other.command(&format!("DROP {PID}")), "OK DROP");
        assert_eq!(other.command(&format!("DROP {PID}")), "ERR DROP No such pid");
        assert_eq!(other.command(&format!("ATCH {PID}")), "ERR ATCH No such pid");
        assert!(ends(&remote));
        assert!(plugin.is_none_or(|mut plugin| plugin.at_end()));
        luup.wait_for(2, LIMIT);
        assert_eq!(events(&luup), ["connected", "closed"]);
        luup.clear_requests();
    }
    drop(luup);
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn a_parked_connection_times_out() {
    let (luup, daemon) = with_luup("");
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), &format!("KEEP=0.3 NTFY=5/s/a/{PID} EVNT=on"));
    let remote = accepted(&device);
    luup.wait_for(1, LIMIT);
    let start = std::time::Instant::now();
    drop(plugin);
    assert!(ends(&remote));
    assert!(start.elapsed() >= Duration::from_millis(300));
    luup.wait_for(2, LIMIT);
    assert_eq!(events(&luup), ["connected", "closed"]);
    assert_eq!(daemon.plugin().command(&format!("ATCH {PID}")), "ERR ATCH No such pid");
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.conn(device.addr(), &format!("KEEP=300 NTFY=5/s/a/{PID}")), PID, "the pid is free again");
}

#[test]
fn the_remotes_end_waits_for_a_plugin_with_all_bytes_before_it() {
    let (luup, daemon) = with_luup("");
    let (plugin, mut remote) = kept(&daemon, "EVNT=on");
    luup.wait_for(1, LIMIT);
    drop(plugin);
    wait_parked(&daemon);
    remote.write_all(b"something").unwrap();
    luup.wait_for(2, LIMIT);
    remote.write_all(b", and a farewell").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    luup.wait_for(3, LIMIT);
    assert_eq!(events(&luup), ["connected", "data", "closed"], "the first data, and the close");
    drop(remote);
    wait_parked(&daemon);
    // A plugin that disconnects before it has read the end leaves everything to the next one.
    for _ in 0..3 {
        let mut plugin = attached(&daemon, "SEEN=0");
        assert_eq!(plugin.bytes(9), b"something");
        plugin.reset();
        wait_parked(&daemon);
    }
    luup.clear_requests();
    let mut plugin = attached(&daemon, "SEEN=9");
    assert_eq!(plugin.rest(), b", and a farewell");
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("Event=closed"))).unwrap();
    drop(plugin);
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    assert_eq!(
        daemon.plugin().command(&format!("ATCH {PID}")),
        "ERR ATCH No such pid",
        "the connection was read to its end"
    );
}

#[test]
fn a_remote_that_has_ended_is_closed_at_once() {
    let daemon = configured("[limits]\nhalfclose=0.3\n");
    let (plugin, remote) = kept(&daemon, "");
    drop(plugin);
    wait_parked(&daemon);
    remote.shutdown(Shutdown::Write).unwrap();
    assert!(ends(&remote), "the device's connection stays open");
    let mut plugin = attached(&daemon, "");
    assert!(plugin.at_end());
}

#[test]
fn a_pid_belongs_to_one_connection() {
    let (luup, daemon) = with_luup("");
    let (plugin, remote) = kept(&daemon, "EVNT=on");
    luup.wait_for(1, LIMIT);
    let device = Device::start(Kind::Manual);
    let command = format!("CONN {} KEEP=300 EVNT=on NTFY=5/s/a/{PID}", device.addr());
    let mut other = daemon.plugin();
    assert_eq!(other.command(&command), "ERR CONN Pid in use");
    assert!(other.at_end());
    drop(plugin);
    wait_parked(&daemon);
    let mut other = daemon.plugin();
    assert_eq!(other.command(&command), format!("OK CONN {PID}"), "a parked connection is replaced");
    assert!(ends(&remote), "the old connection stays open");
    let mut remote = accepted(&device);
    remote.write_all(b"new").unwrap();
    assert_eq!(other.bytes(3), b"new");
    luup.wait_for(3, LIMIT);
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(
        events(&luup),
        ["connected", "connected", "data"],
        "the end of the old connection is not notified for the new one"
    );
}

#[test]
fn a_pid_can_be_used_again_at_once_after_its_plugin_closes() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    for _ in 0..50 {
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), &format!("KEEP=300 NTFY=5/s/a/{PID}"));
        plugin.finish();
        // On a busy machine the kernel may deliver the next plugin's first bytes before this plugin's FIN.
        wait_until_acknowledged(plugin.stream());
    }
    StatClient::new(daemon.addr()).wait_connections(1);
}

#[test]
fn keep_requires_an_unguessable_pid() {
    let daemon = started();
    for options in ["KEEP=300", "KEEP=300 NTFY=5/s/a", "KEEP=300 NTFY=5/s/a/1234567"] {
        let mut plugin = daemon.plugin();
        let reason = "Invalid option KEEP=300: it needs NTFY with a pid of 8 characters or more";
        assert_eq!(plugin.command(&format!("CONN 127.0.0.1:1 {options}")), format!("ERR CONN {reason}"));
        assert!(plugin.at_end());
    }
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("NTFY 5 s a secretsecret"), "OK NTFY");
    assert_eq!(plugin.conn(device.addr(), "KEEP=300"), "secretsecret", "the pid of the command counts");
}

#[test]
fn kept_connections_are_limited() {
    let daemon = configured("[limits]\nkept=2\n");
    let (first, _remotes) = kept_as(&daemon, "aaaaaaaa", "");
    let _second = kept_as(&daemon, "bbbbbbbb", "");
    let device = Device::start(Kind::Manual);
    let command = format!("CONN {} KEEP=300 NTFY=5/s/a/cccccccc", device.addr());
    assert_eq!(daemon.plugin().command(&command), "ERR CONN Too many kept connections");
    drop(first);
    wait_parked(&daemon);
    assert_eq!(daemon.plugin().command(&command), "ERR CONN Too many kept connections", "parked connections count");
    assert_eq!(daemon.plugin().command("DROP aaaaaaaa"), "OK DROP");
    assert_eq!(daemon.plugin().command(&command), "OK CONN cccccccc");
}

#[test]
fn guesses_of_a_pid_are_rate_limited() {
    let daemon = started();
    let (_plugin, _remote) = kept(&daemon, "");
    let mut guesser = daemon.plugin();
    let guesses: String = (0..150).map(|guess| format!("ATCH {guess:08}\nDROP {guess:08}\n")).collect();
    guesser.send(format!("{guesses}ATCH {PID}\nCAPA\n").as_bytes());
    for _ in 0..150 {
        assert_eq!(guesser.line(), "ERR ATCH No such pid");
        assert_eq!(guesser.line(), "ERR DROP No such pid");
    }
    assert_eq!(guesser.line(), "ERR ATCH No such pid", "the right pid, after too many wrong ones");
    assert!(guesser.line().starts_with("OK CAPA"), "setup mode goes on");
    // The limit expires.
    eventually("the pid is accepted again", || {
        (daemon.plugin().command(&format!("ATCH {PID}")) == format!("OK ATCH {PID}")).then_some(())
    });
}

#[test]
fn stat_and_log_do_not_reveal_the_pid() {
    let daemon = started();
    let (plugin, mut remote) = kept(&daemon, "");
    let mut stat = StatClient::new(daemon.addr());
    let shown = stat.connection(plugin.pid()).unwrap();
    assert_eq!(shown["notify"], "5/s/a/****");
    drop(plugin);
    wait_parked(&daemon);
    let held = stat.connections().pop().and_then(|connection| connection["buffered"].as_u64());
    remote.write_all(b"1234").unwrap();
    let shown = eventually("the bytes are buffered", || {
        stat.connections()
            .pop()
            .filter(|connection| connection["buffered"].as_u64() > held && connection["received"] == 4)
    });
    assert_eq!((&shown["state"], &shown["notify"]), (&"parked".into(), &"5/s/a/****".into()));
    let mut asker = daemon.plugin();
    asker.send(b"STAT\nBLKS 1\n");
    let table: Vec<String> = std::iter::from_fn(|| Some(asker.line()).filter(|line| line != "OK BLKS")).collect();
    assert!(table.iter().any(|row| row.ends_with(" 5/s/a/****")), "{table:#?}");
    drop(attached(&daemon, ""));
    let log = daemon.complete_log_text();
    assert!(log.contains("parked") && !log.contains(PID), "{log}");
}

#[test]
fn a_parked_connection_applies_backpressure() {
    let daemon = started();
    let (plugin, remote) = kept(&daemon, "");
    drop(plugin);
    wait_parked(&daemon);
    let mut writer = Writer::new(&remote, 9);
    let written = writer.write_until_blocked();
    // Besides, a notification waits.
    assert!(StatClient::new(daemon.addr()).status()["buffered"].as_u64().unwrap() <= 2 * 65536 + 200);
    writer.finish();
    let received = attached(&daemon, "").rest();
    assert_eq!(received.len() as u64, written);
    assert!(Checker::new(9).check(&received));
}

#[test]
fn a_parked_connection_takes_no_processor_time() {
    let daemon = started();
    let (plugin, remote) = kept_as(&daemon, "aaaaaaaa", "");
    let (other, mut leaving) = kept_as(&daemon, "bbbbbbbb", "");
    drop((plugin, other));
    let mut stat = StatClient::new(daemon.addr());
    eventually("both connections are parked", || {
        stat.connections().iter().all(|connection| connection["state"] == "parked").then_some(())
    });
    Writer::new(&remote, 9).write_until_blocked();
    leaving.write_all(b"last words").unwrap();
    drop(leaving);
    let used = processor_time(&daemon, Duration::from_secs(1));
    assert!(used < Duration::from_millis(100), "{used:?} of processor time in an idle second");
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("ATCH bbbbbbbb"), "OK ATCH bbbbbbbb");
    assert_eq!(plugin.rest(), b"last words");
}
