//! What clients of other machines cannot take from the plugins of the box: places, and the log.

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::lan::{Neighbour, on_the_box};
use testkit::plugin::Plugin;

use crate::support::{
    Answer, LIMIT, NO_LUUP, NameServer, daemon, eventually, from_neighbour, on_all_addresses, on_loopback, stat_json,
    while_stopped,
};

/// Connects from `source` until the daemon refuses. Returns the connections, and the refusal.
fn fill(neighbour: &Neighbour, source: &str, daemon: &Daemon) -> (Vec<Plugin>, String) {
    let mut plugins = Vec::new();
    loop {
        let (plugin, line) = from_neighbour(neighbour, source, daemon);
        if !line.starts_with("OK TOGGLEDBITS") {
            return (plugins, line);
        }
        plugins.push(plugin);
    }
}

#[test]
fn other_machines_do_not_take_the_last_places() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "[limits]\nconnections=64\nperaddress=16\n").start();
        let device = Device::start(Kind::Silent);
        let mut held = Vec::new();
        let expected = [
            ("fd00:77::2", 16, " from your address"),
            ("fd00:77::3", 0, " from your address"),
            ("fd00:77::4", 0, " from your address"),
            ("192.168.77.2", 16, " from your address"),
            ("192.168.77.3", 16, ""),
            ("fd00:77::2", 0, ""),
        ];
        for (source, places, suffix) in expected {
            let (plugins, refusal) = fill(neighbour, source, &daemon);
            let refused = format!("ERR ACCESS Too many connections{suffix}");
            assert_eq!((plugins.len(), refusal), (places, refused), "{source}");
            held.extend(plugins);
        }
        let mut plugins: Vec<Plugin> = (0..16).map(|_| Plugin::connect(on_loopback(&daemon))).collect();
        for plugin in &mut plugins {
            plugin.conn(device.addr(), "");
        }
    });
}

#[test]
fn silent_watchers_make_room_when_places_are_scarce() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "[limits]\nconnections=20\nsetup=1\n").start();
        let watch = |plugin: &mut Plugin| {
            plugin.send(b"STAT\nBLKS 1\n");
            while plugin.line() != "OK BLKS" {}
        };
        let mut own = Plugin::connect(on_loopback(&daemon));
        watch(&mut own);
        let mut watchers: Vec<Plugin> = (0..10).map(|_| from_neighbour(neighbour, "192.168.77.2", &daemon).0).collect();
        watchers.iter_mut().for_each(watch);
        let mut found = eventually("a silent watcher makes room", || {
            let (plugin, line) = from_neighbour(neighbour, "192.168.77.3", &daemon);
            line.starts_with("OK TOGGLEDBITS").then_some(plugin)
        });
        assert!(found.command("CAPA").starts_with("OK CAPA"));
        daemon.wait_for_log(LIMIT, |line| line.contains("while there are too many connections"));
        assert!(watchers.iter_mut().any(Plugin::at_end));
        assert_eq!(own.command("BLKS 1"), "OK BLKS", "clients elsewhere do not end a watcher of loopback");
    });
}

#[test]
fn clients_elsewhere_that_give_no_command_make_room_when_places_are_scarce() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "[limits]\nconnections=20\nsetup=2\n").start();
        let mut own = Plugin::connect(on_loopback(&daemon));
        let mut held: Vec<Plugin> = (0..10).map(|_| from_neighbour(neighbour, "192.168.77.2", &daemon).0).collect();
        eventually("one that only sends blank lines makes room", || {
            held.iter_mut().for_each(|plugin| drop(plugin.try_send(b"\n")));
            own.send(b"\n");
            from_neighbour(neighbour, "192.168.77.3", &daemon).1.starts_with("OK TOGGLEDBITS").then_some(())
        });
        daemon.wait_for_log(LIMIT, |line| line.contains("while there are too many connections"));
        assert!(held.iter_mut().any(Plugin::at_end));
        assert_eq!(own.command("BLKS 1"), "OK BLKS", "it goes on as with the Lua daemon");
    });
}

#[test]
fn a_conn_of_the_box_waits_for_few_of_the_stat_requests_of_another_machine() {
    const CLIENTS: usize = 60;
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "").start();
        let device = Device::start(Kind::Silent);
        let mut others: Vec<Plugin> =
            (0..CLIENTS).map(|_| from_neighbour(neighbour, "192.168.77.2", &daemon).0).collect();
        let mut plugin = None;
        while_stopped(&daemon, || {
            others.iter_mut().for_each(|other| other.send(b"STAT JSON\nSTAT JSON\n"));
            let plugin = plugin.insert(Plugin::connect_raw(on_loopback(&daemon)).unwrap());
            plugin.send(format!("CONN {}\n", device.addr()).as_bytes());
        });
        let mut plugin = plugin.unwrap();
        let greeting = plugin.line();
        assert!(plugin.line().starts_with("OK CONN"));
        let pid = greeting.rsplit(' ').next().unwrap();
        let is_before = |other: &mut Plugin| {
            let status = stat_json(other);
            let connections = status["connections"].as_array().unwrap();
            !connections.iter().any(|connection| connection["id"] == pid && connection["state"] == "echo")
        };
        let before = (0..2).flat_map(|_| others.iter_mut().map(is_before).collect::<Vec<_>>()).filter(|&is| is).count();
        assert!(before <= CLIENTS / 3, "{before} answers were made before that of the CONN");
    });
}

#[test]
fn another_machine_does_not_push_all_else_out_of_the_log() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "").start();
        for _ in 0..100 {
            let (mut plugin, _) = from_neighbour(neighbour, "192.168.77.2", &daemon);
            assert_eq!(plugin.command("CONN 127.0.0.1:0"), "ERR CONN connection refused");
        }
        let plugin = Plugin::connect(on_loopback(&daemon));
        let _other = from_neighbour(neighbour, "192.168.77.3", &daemon);
        daemon.wait_for_log(LIMIT, |line| line.contains(plugin.pid()));
        daemon.wait_for_log(LIMIT, |line| line.contains("connection from 192.168.77.3"));
        let from = daemon.log_lines().iter().filter(|line| line.contains("connection from 192.168.77.2")).count();
        assert!((20..=60).contains(&from), "{from} lines of 100 connections");
    });
}

/// Everything at once: whatever clients elsewhere do, a plugin of the box gets its connections.
#[test]
fn a_plugin_of_the_box_is_served_beside_every_attack() {
    on_the_box(|neighbour| {
        let Some(server) = NameServer::start() else { return };
        server.set_addresses("device.example", &["127.0.0.1"]);
        let config = "[limits]\nconnections=128\nperaddress=48\nkept=8\n";
        let daemon = on_all_addresses(server.daemon(), NO_LUUP, config).start();
        let device = Device::start(Kind::Echo);
        let own = on_loopback(&daemon);
        let pid = "k7Xq-9bZ";
        Plugin::connect(own).conn(device.addr(), &format!("KEEP=300 NTFY=5/s/a/{pid}"));
        let mut held = Vec::new();
        let mut attack = |source: &str, lines: &str| {
            let (mut plugin, greeting) = from_neighbour(neighbour, source, &daemon);
            // Once its places are taken, it is refused.
            if greeting.starts_with("OK ") && plugin.try_send(lines.as_bytes()).is_ok() {
                held.push(plugin);
            }
        };
        for round in 0..20 {
            for (number, source) in ["192.168.77.2", "192.168.77.3", "fd00:77::2", "fd00:77::3"].iter().enumerate() {
                let silent = format!("silent{round}-{number}.example");
                server.set(&silent, Answer::Silence);
                attack(source, &format!("CONN {silent}:80 CTIM=600000\n"));
                attack(source, &format!("CONN 127.0.0.1:{}\nSTOP\n", daemon.port()));
                attack(source, &"ATCH wrongwrong\n".repeat(30));
                attack(source, &format!("CONN {} KEEP=86400 NTFY=5/s/a/{round:04}{number:04}\n", device.addr()));
                attack(source, "STAT\n");
            }
            for target in [device.addr().to_string(), format!("localhost:{}", device.port())] {
                let mut plugin = Plugin::connect(own);
                plugin.conn(&target, "");
                plugin.send(b"hello");
                assert_eq!(plugin.bytes(5), b"hello");
            }
            assert_eq!(Plugin::connect(own).command(&format!("ATCH {pid}")), format!("OK ATCH {pid}"));
        }
        Plugin::connect(own).conn(format!("device.example:{}", device.port()), "");
        Plugin::connect(own).conn(device.addr(), "KEEP=300 NTFY=5/s/a/another-one");
    });
}
