//! Clients of other machines, which guess pids and make kept connections: loopback keeps its share.

use testkit::device::{Device, Kind};
use testkit::lan::on_the_box;
use testkit::plugin::Plugin;

use crate::support::{NO_LUUP, PID, daemon, from_neighbour, on_all_addresses, on_loopback};

#[test]
fn guesses_from_another_machine_do_not_keep_loopback_from_its_pids() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "").start();
        let loopback = on_loopback(&daemon);
        let device = Device::start(Kind::Silent);
        let _kept = {
            let mut plugin = Plugin::connect(loopback);
            plugin.conn(device.addr(), &format!("KEEP=300 NTFY=5/s/a/{PID}"));
            plugin
        };
        let (mut guesser, _) = from_neighbour(neighbour, "192.168.77.2", &daemon);
        for round in 0..30 {
            for guess in 0..20 {
                let answer = guesser.command(&format!("ATCH {round:04}{guess:04}"));
                assert_eq!(answer, "ERR ATCH No such pid");
            }
            assert_eq!(Plugin::connect(loopback).command(&format!("ATCH {PID}")), format!("OK ATCH {PID}"));
        }
        // In one piece, since the proxy looks up another wrong pid each tenth of a second.
        let guesses = "ATCH wrong\n".repeat(300);
        let answer = |command: &str| {
            let (mut guesser, _) = from_neighbour(neighbour, "192.168.77.2", &daemon);
            guesser.send(format!("{guesses}{command}\n").as_bytes());
            (0..300).for_each(|_| assert_eq!(guesser.line(), "ERR ATCH No such pid"));
            guesser.line()
        };
        assert_eq!(answer(&format!("ATCH {PID}")), "ERR ATCH No such pid");
        assert_eq!(answer(&format!("DROP {PID}")), "ERR DROP No such pid");
        // CONN tells no more.
        for pid in [PID, "a-free-pid"] {
            let command = format!("CONN {} KEEP=300 NTFY=5/s/a/{pid}", device.addr());
            assert_eq!(answer(&command), "ERR CONN Pid in use", "{pid}");
        }
        // A client that has named no wrong pid is another one.
        let (mut other, _) = from_neighbour(neighbour, "192.168.77.3", &daemon);
        assert_eq!(other.command(&format!("ATCH {PID}")), format!("OK ATCH {PID}"));
    });
}

#[test]
fn another_machine_makes_half_of_the_kept_connections() {
    on_the_box(|neighbour| {
        let daemon = on_all_addresses(daemon(), NO_LUUP, "[limits]\nkept=8\n").start();
        let device = Device::start(Kind::Silent);
        let command = |number: usize| format!("CONN {} KEEP=300 NTFY=5/s/a/{number:08}", device.addr());
        let mut plugins = Vec::new();
        let mut made = |source: &str| {
            let before = plugins.len();
            loop {
                let mut plugin = match source {
                    "127.0.0.1" => Plugin::connect(on_loopback(&daemon)),
                    source => from_neighbour(neighbour, source, &daemon).0,
                };
                let answer = plugin.command(&command(plugins.len()));
                if answer == "ERR CONN Too many kept connections" {
                    return plugins.len() - before;
                }
                assert!(answer.starts_with("OK CONN "), "{source}: {answer}");
                plugins.push(plugin);
            }
        };
        assert_eq!(made("192.168.77.2"), 4);
        assert_eq!(made("192.168.77.3"), 2);
        assert_eq!(made("127.0.0.1"), 2, "the quarter that is loopback's");
    });
}
