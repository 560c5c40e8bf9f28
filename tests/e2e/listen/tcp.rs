//! Listeners for plain TCP: from the arrival to the end of the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use testkit::ports::Reserved;

use crate::support::{
    LIMIT, Listener, PID, StatClient, accepted_by, attached, client_of, ends, eventually, listening, plugin_from,
    started, wait_parked, with_luup,
};

#[test]
fn an_arrival_is_accepted_and_bytes_pass_both_ways() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (mut client, words) = listener.arrival();
    assert_eq!(words[2..], ["-", "-"], "tcp has no path");
    client.write_all(b"sent before").unwrap();
    let mut plugin = daemon.plugin();
    plugin.send(format!("RTIM 60000\nACPT {} EVNT=on\nbehind", words[0]).as_bytes());
    assert_eq!(plugin.line(), "OK RTIM");
    assert_eq!(plugin.line(), format!("OK ACPT {}", words[0]));
    assert_eq!(plugin.bytes(11), b"sent before");
    let mut behind = [0; 6];
    client.read_exact(&mut behind).unwrap();
    assert_eq!(&behind, b"behind");
    // The client ends its side; the plugin may go on.
    client.shutdown(Shutdown::Write).unwrap();
    assert!(plugin.at_end());
    plugin.send(b"last");
    plugin.finish();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
    assert!(listener.owner.is_quiet(), "the owner is told nothing of all this");
}

#[test]
fn the_owner_may_end_and_accepted_connections_live_on() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (mut accepted, words) = listener.arrival();
    let (unclaimed, _) = listener.arrival();
    let mut plugin = accepted_by(&daemon, &words[0], "");
    let addr = listener.addr();
    assert_eq!(listener.owner.command("QUIT"), "OK QUIT");
    assert!(listener.owner.at_end());
    drop(listener.owner);
    assert!(ends(&unclaimed), "an arrival that no plugin has accepted ends with its owner");
    eventually("the port is closed", || TcpStream::connect(addr).is_err().then_some(()));
    plugin.send(b"still here");
    let mut received = [0; 10];
    accepted.read_exact(&mut received).unwrap();
    StatClient::new(daemon.addr()).wait_connections(1);
}

#[test]
fn deny_closes_the_connection_and_leaves_the_owner() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (client, words) = listener.arrival();
    let id = &words[0];
    assert_eq!(daemon.plugin().command(&format!("DENY {id}")), "ERR DENY No such id", "it is another's");
    assert_eq!(listener.owner.command(&format!("DENY {id} 200")), "ERR DENY Invalid status");
    assert_eq!(listener.owner.command(&format!("DENY {id} 404 Not here")), format!("OK DENY {id}"));
    assert!(ends(&client));
    assert_eq!(listener.owner.command(&format!("DENY {id}")), "ERR DENY No such id");
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command(&format!("ACPT {id}")), "ERR ACPT No such id");
    let (_client, words) = listener.arrival();
    // Setup mode goes on.
    assert_eq!(plugin.command(&format!("ACPT {}", words[0])), format!("OK ACPT {}", words[0]));
}

#[test]
fn an_arrival_waits_for_wait_seconds() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "WAIT=0.3");
    let start = std::time::Instant::now();
    let (client, words) = listener.arrival();
    assert!(ends(&client));
    assert!(start.elapsed() >= Duration::from_millis(250));
    assert_eq!(daemon.plugin().command(&format!("ACPT {}", words[0])), "ERR ACPT No such id");
    StatClient::new(daemon.addr()).wait_connections(1);
}

#[test]
fn an_arrival_that_leaves_is_no_longer_there() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (client, words) = listener.arrival();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    StatClient::new(daemon.addr()).wait_connections(1);
    assert_eq!(daemon.plugin().command(&format!("ACPT {}", words[0])), "ERR ACPT No such id");
    // A client that has only ended its side may want an answer.
    let (mut client, words) = listener.arrival();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut plugin = accepted_by(&daemon, &words[0], "");
    assert_eq!(plugin.bytes(8), b"question");
    assert!(plugin.at_end());
    plugin.send(b"answer");
    plugin.finish();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}

#[test]
fn a_newer_owner_takes_over_from_the_same_address() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (unclaimed, _) = listener.arrival();
    let mut newer = listening(daemon.plugin(), listener.port(), "");
    assert!(listener.owner.at_end(), "the older owner is told by the end of its stream");
    assert!(ends(&unclaimed));
    drop(listener.owner);
    let client = client_of(([127, 0, 0, 1], newer_port(&newer, &daemon)).into());
    assert!(newer.line().starts_with("INCO "));
    drop(client);
}

/// The port of the only listener that `owner` has.
fn newer_port(owner: &testkit::plugin::Plugin, daemon: &testkit::daemon::Daemon) -> u16 {
    let status = StatClient::new(daemon.addr()).status();
    let listeners = status["listeners"].as_array().unwrap();
    let own = listeners.iter().find(|listener| listener["owners"][0]["id"] == owner.pid()).expect("a listener");
    own["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn arrivals_are_announced_with_the_owners_pid() {
    let (luup, daemon) = with_luup("");
    let mut listener = Listener::new(&daemon, "NTFY=5/urn:x/Arrived");
    let owner = listener.owner.pid().to_owned();
    let (mut client, words) = listener.arrival();
    let requests = luup.wait_for(1, LIMIT);
    let request = &requests[0];
    assert_eq!((request.pid(), request.action(), request.event()), (&*owner, "Arrived", Some("incoming")));
    luup.clear_requests();
    // The accepted connection has its own notifications.
    let plugin = accepted_by(&daemon, &words[0], "NTFY=6/urn:y/Data EVNT=on");
    let connected = &luup.wait_for(1, LIMIT)[0];
    assert_eq!((connected.pid(), connected.action(), connected.event()), (&*words[0], "Data", Some("connected")));
    client.write_all(b"x").unwrap();
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.event() == Some("data"))).unwrap();
    drop((client, plugin));
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.event() == Some("closed"))).unwrap();
    luup.clear_requests();
    listener.owner.finish();
    let closed = &luup.wait_for(1, LIMIT)[0];
    assert_eq!((closed.pid(), closed.event()), (&*owner, Some("closed")));
}

#[test]
fn a_pid_of_ntfy_stands_in_for_the_owners() {
    let (luup, daemon) = with_luup("");
    let port = Reserved::new().unwrap();
    let mut owner = daemon.plugin();
    assert_eq!(owner.command(&format!("LSTN {} NTFY=5/s/a/mine", port.port())), "OK LSTN mine");
    let _client = client_of(port.addr());
    assert_eq!(luup.wait_for(1, LIMIT)[0].pid(), "mine");
}

#[test]
fn an_accepted_connection_may_be_kept() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (mut client, words) = listener.arrival();
    let plugin = accepted_by(&daemon, &words[0], &format!("KEEP=60 NTFY=-1///{PID}"));
    client.write_all(b"first").unwrap();
    drop(plugin);
    wait_parked(&daemon);
    client.write_all(b"second").unwrap();
    let mut plugin = attached(&daemon, "SEEN=0");
    assert_eq!(plugin.bytes(11), b"firstsecond");
    plugin.send(b"back");
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    // The pid is in use: the arrival waits for another.
    let (mut other, words) = listener.arrival();
    let mut claimer = daemon.plugin();
    let answer = claimer.command(&format!("ACPT {} KEEP=60 NTFY=-1///{PID}", words[0]));
    assert_eq!(answer, "ERR ACPT Pid in use");
    assert_eq!(claimer.command(&format!("ACPT {}", words[0])), format!("OK ACPT {}", words[0]));
    other.write_all(b"other").unwrap();
    assert_eq!(claimer.bytes(5), b"other");
}

#[test]
fn stat_shows_owners_and_arrivals() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "NTFY=5/s/a");
    let (client, words) = listener.arrival();
    let mut stat = StatClient::new(daemon.addr());
    let owner = stat.connection(listener.owner.pid()).unwrap();
    let addr = listener.addr().to_string();
    assert_eq!(
        (&owner["state"], &owner["target"], &owner["protocol"]),
        (&"listening".into(), &addr.clone().into(), &"tcp".into())
    );
    let peer = client.local_addr().unwrap().to_string();
    let arrival = stat.connection(&words[0]).unwrap();
    assert_eq!((&arrival["state"], &arrival["target"]), (&"arriving".into(), &peer.clone().into()));
    let status = stat.status();
    let shown = status["listeners"].as_array().unwrap().iter().find(|shown| shown["address"] == *addr).unwrap().clone();
    assert_eq!(
        shown,
        serde_json::json!({
            "address": addr, "target": null, "protocol": "tcp",
            "owners": [{"id": listener.owner.pid(), "path": null, "waiting": 1}],
        })
    );
    let plugin = accepted_by(&daemon, &words[0], "");
    let accepted = stat.connection(&words[0]).unwrap();
    assert_eq!(
        (&accepted["state"], &accepted["target"], &accepted["client"]),
        (&"echo".into(), &peer.into(), &"127.0.0.1".into())
    );
    assert_eq!(stat.status()["listeners"][1]["owners"][0]["waiting"], 0);
    drop((plugin, client));
}

#[test]
fn a_plugin_at_another_address_accepts_nothing() {
    let daemon = crate::support::configured("[host]\nlisten=127.0.0.0/8\n");
    let mut listener = Listener::new(&daemon, "");
    let (_client, words) = listener.arrival();
    let mut stranger = plugin_from("127.0.0.2", daemon.addr());
    stranger.line();
    assert_eq!(stranger.command(&format!("ACPT {}", words[0])), "ERR ACPT No such id");
    assert_eq!(stranger.command(&format!("DENY {}", words[0])), "ERR DENY No such id");
    // It has an own listener on another port, with clients of its own.
    let port = Reserved::new().unwrap();
    let mut stranger = listening(stranger, port.port(), "");
    let _own = client_of(port.addr());
    let line = stranger.line();
    let id = line.split(' ').nth(1).unwrap();
    assert_eq!(daemon.plugin().command(&format!("ACPT {id}")), "ERR ACPT No such id");
    accepted_by(&daemon, &words[0], "");
}
