//! CONN to names: answers, errors and silence of the name server, and names with several addresses.

use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::lan::on_the_box;
use testkit::plugin::Plugin;
use testkit::ports::{BlackHole, Reserved};

use crate::support::{
    Answer, LIMIT, NO_LUUP, NameServer, StatClient, eventually, from_neighbour, on_all_addresses, on_loopback,
};

#[track_caller]
fn conn(daemon: &Daemon, target: &str) -> String {
    daemon.plugin().command(&format!("CONN {target}"))
}

/// Plugins whose CONN waits for names that the server does not answer.
fn waiting(server: &NameServer, daemon: &Daemon, count: usize) -> Vec<Plugin> {
    let wait = |number| {
        let name = format!("silent{number}.example");
        server.set(&name, Answer::Silence);
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {name}:80 CTIM=120000\n").as_bytes());
        (plugin, name)
    };
    let (plugins, names): (Vec<_>, Vec<_>) = (0..count).map(wait).unzip();
    names.iter().for_each(|name| server.wait_asked(name));
    plugins
}

#[test]
fn unknown_names_fail_with_the_messages_of_luasocket() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    assert_eq!(conn(&daemon, "no-such-name.example:80"), "ERR CONN host or service not provided, or not known");
    server.set("broken.example", Answer::ServerFailure);
    // Some C libraries repeat the query until the timeout.
    let answer = conn(&daemon, "broken.example:80");
    assert!(["ERR CONN temporary failure in name resolution", "ERR CONN timeout"].contains(&&*answer), "{answer}");
}

#[test]
fn a_name_is_looked_up_anew_for_each_conn() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    let first = Device::start(Kind::Silent);
    let at_another_address = std::net::SocketAddr::from(([127, 0, 0, 2], first.port()));
    let second = Device::start_at(at_another_address, Kind::Silent).unwrap();
    server.set_addresses("device.example", &["127.0.0.1"]);
    assert!(conn(&daemon, &format!("device.example:{}", first.port())).starts_with("OK CONN "));
    server.set_addresses("device.example", &["127.0.0.2"]);
    assert!(conn(&daemon, &format!("Device.Example:{}", first.port())).starts_with("OK CONN "));
    assert!(first.wait_accepted(1, LIMIT) && second.wait_accepted(1, LIMIT), "an old address was used");
}

#[test]
fn a_silent_name_server_times_out() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    server.set("silent.example", Answer::Silence);
    let start = Instant::now();
    assert_eq!(conn(&daemon, "silent.example:80 CTIM=700"), "ERR CONN timeout");
    assert!((700..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn a_silent_name_server_delays_no_other_connection() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    let device = Device::start(Kind::Silent);
    server.set_addresses("device.example", &["127.0.0.1"]);
    let mut waiting = waiting(&server, &daemon, 3);
    assert!(conn(&daemon, &device.addr().to_string()).starts_with("OK CONN "));
    assert!(conn(&daemon, &format!("localhost:{}", device.port())).starts_with("OK CONN "));
    assert!(conn(&daemon, &format!("device.example:{}", device.port())).starts_with("OK CONN "));
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
    assert!(waiting.iter_mut().all(testkit::plugin::Plugin::is_quiet));
}

#[test]
fn connections_by_address_do_not_wait_for_a_full_lookup_queue() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().config("[limits]\nresolvers=4\n").start();
    let device = Device::start(Kind::Silent);
    // Names that have never answered take half of the threads.
    let _waiting = waiting(&server, &daemon, 2);
    let mut queued = daemon.plugin();
    queued.send(b"CONN silent0.example:80 CTIM=600\n");
    assert!(conn(&daemon, &device.addr().to_string()).starts_with("OK CONN "));
    assert_eq!(queued.line(), "ERR CONN timeout");
}

#[test]
fn a_plugin_that_disconnects_during_a_lookup_leaves_nothing_behind() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    let mut stat = StatClient::new(daemon.addr());
    let plugins = waiting(&server, &daemon, 4);
    assert_eq!(stat.connections().len(), 4);
    plugins.into_iter().for_each(Plugin::reset);
    stat.wait_connections(0);
}

#[test]
fn several_addresses_are_tried_until_one_answers() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    let device = Device::start(Kind::Silent);
    server.set_addresses("many.example", &["127.0.0.2", "127.0.0.3", "::1", "127.0.0.4", "127.0.0.1"]);
    for _ in 0..5 {
        assert!(conn(&daemon, &format!("many.example:{}", device.port())).starts_with("OK CONN "));
    }
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_others() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    let hole = BlackHole::new().unwrap();
    let answering = std::net::SocketAddr::from(([127, 0, 0, 2], hole.addr().port()));
    let device = Device::start_at(answering, Kind::Silent).unwrap();
    // The C library sorts addresses; with either order one of the two names begins with the black hole.
    server.set_addresses("hole-first.example", &["127.0.0.1", "127.0.0.2"]);
    server.set_addresses("hole-last.example", &["127.0.0.2", "127.0.0.1"]);
    for name in ["hole-first.example", "hole-last.example"] {
        let start = Instant::now();
        assert!(conn(&daemon, &format!("{name}:{}", device.port())).starts_with("OK CONN "));
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn refusals_of_all_addresses_are_reported_as_refused() {
    let Some(server) = NameServer::start() else { return };
    let daemon = server.daemon().start();
    server.set_addresses("all-refuse.example", &["127.0.0.1", "127.0.0.2", "::1"]);
    let closed = Reserved::new().unwrap();
    let answer = conn(&daemon, &format!("all-refuse.example:{}", closed.port()));
    assert_eq!(answer, "ERR CONN connection refused");
}

/// Regression: clients on another machine asked for ever new names of a silent name server, and `CONN localhost` timed out.
#[test]
fn names_that_other_machines_invent_delay_no_name_of_the_box() {
    on_the_box(|neighbour| {
        let Some(server) = NameServer::start() else { return };
        let daemon = on_all_addresses(server.daemon(), NO_LUUP, "").start();
        let device = Device::start(Kind::Silent);
        let port = device.port();
        server.set_addresses("device.example", &["127.0.0.1"]);
        let loopback = on_loopback(&daemon);
        let mut asked = Vec::new();
        // A CONN whose name the server does not answer. `begins`: there is a thread for it.
        let mut ask = |source: &str, begins: bool| {
            let name = format!("silent{}.example", asked.len());
            server.set(&name, Answer::Silence);
            let mut plugin = match source {
                "127.0.0.1" => Plugin::connect(loopback),
                source => from_neighbour(neighbour, source, &daemon).0,
            };
            plugin.send(format!("CONN {name}:80 CTIM=120000\n").as_bytes());
            if begins {
                server.wait_asked(&name);
            }
            asked.push(plugin);
        };
        let connects = |target: &str| {
            let answer = Plugin::connect(loopback).command(&format!("CONN {target}:{port}"));
            assert!(answer.starts_with("OK CONN "), "{target}: {answer}");
        };
        // A quarter of eight threads.
        (0..20).for_each(|number| ask("192.168.77.2", number < 2));
        (0..20).for_each(|_| ask("192.168.77.3", false));
        for target in ["localhost", "127.1", "device.example", "localhost"] {
            connects(target);
        }
        // Plugins of the box, too, may ask for names that do not answer.
        (0..6).for_each(|number| ask("127.0.0.1", number < 2));
        for target in ["localhost", "device.example"] {
            connects(target);
        }
        // A client has 32 lookups at most.
        (0..12).for_each(|_| ask("192.168.77.2", false));
        let mut stat = StatClient::new(loopback);
        eventually("all wait for their names", || {
            let waiting = stat.connections().iter().filter(|shown| shown["state"] == "connecting").count();
            (waiting == asked.len()).then_some(())
        });
        let (mut plugin, _) = from_neighbour(neighbour, "192.168.77.2", &daemon);
        assert_eq!(plugin.command("CONN device.example:80"), "ERR CONN temporary failure in name resolution");
    });
}
