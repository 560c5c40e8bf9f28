//! What clients of other machines cannot take from the plugins of the box: Luup's time, and places of closing notices.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};
use testkit::lan::on_the_box;
use testkit::luup::{Behaviour, Luup, Request};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, accepted, daemon, from_neighbour, on_all_addresses, on_loopback};

/// True if there are `count` requests with this pid.
fn has(requests: &[Request], pid: &str, count: usize) -> bool {
    requests.iter().filter(|request| request.pid() == pid).count() >= count
}

#[test]
fn closing_notices_of_other_machines_do_not_displace_that_of_a_plugin() {
    on_the_box(|neighbour| {
        let luup = Luup::start();
        let daemon = on_all_addresses(daemon(), &luup.url(), "[limits]\nnotices=64\n").start();
        luup.down();
        let mut stat = StatClient::new(on_loopback(&daemon));
        let device = Device::start(Kind::Silent);
        let mut plugin = Plugin::connect(on_loopback(&daemon));
        plugin.conn(device.addr(), "NTFY=7/urn:x/Innocent/secret");
        drop(plugin);
        stat.wait_connections(0);
        for n in 0..120 {
            let source = ["192.168.77.2", "192.168.77.3", "fd00:77::2"][n % 3];
            let (mut plugin, _) = from_neighbour(neighbour, source, &daemon);
            assert_eq!(plugin.command(&format!("NTFY {n} u a p{n}")), "OK NTFY");
            assert_eq!(plugin.command("QUIT"), "OK QUIT");
        }
        stat.wait_connections(0);
        luup.up();
        stat.wait_notified();
        let requests = luup.requests();
        assert!(has(&requests, "secret", 1), "{} notices came, without that of the plugin", requests.len());
        assert!(has(&requests, "p119", 1), "the last ones of other machines come, too");
        assert!((60..=80).contains(&requests.len()), "{} notices", requests.len());
    });
}

#[test]
fn devices_that_other_machines_make_up_do_not_delay_a_plugin() {
    const ACTION: Duration = Duration::from_millis(30);
    on_the_box(|neighbour| {
        let luup = Luup::start();
        luup.serve_one_at_a_time();
        luup.set_behaviour(Behaviour::Slow(ACTION));
        let daemon = on_all_addresses(daemon(), &luup.url(), "").start();
        let device = Device::start(Kind::Manual);
        let mut plugin = Plugin::connect(on_loopback(&daemon));
        plugin.conn(device.addr(), "NTFY=7/urn:x/Good/own");
        let mut own = accepted(&device);
        let chatty = Device::start(Kind::Manual);
        let others: Vec<_> = (0..120)
            .map(|n| {
                let (mut plugin, _) = from_neighbour(neighbour, ["192.168.77.2", "192.168.77.3"][n % 2], &daemon);
                plugin.conn(chatty.addr(), &format!("NTFY={}/u/Bad", 1000 + n));
                (plugin, accepted(&chatty))
            })
            .collect();
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    others.iter().for_each(|(_, remote)| (&mut &*remote).write_all(b"x").unwrap());
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let enough = luup.wait_until(LIMIT, |requests| requests.len() >= 20);
            let took = (1..=9).map(|count| {
                let start = Instant::now();
                own.write_all(b"x").unwrap();
                let told = luup.wait_until(LIMIT, |requests| has(requests, "own", count));
                let took = start.elapsed();
                // The pause that follows the answer.
                thread::sleep(10 * ACTION);
                told.map(|_| took)
            });
            let took: Result<Vec<_>, _> = took.collect();
            ends.store(true, Ordering::Relaxed);
            enough.expect("requests of the others");
            let mut took = took.expect("notifications of the plugin");
            println!("{took:?}");
            took.sort();
            assert!(took[4] < 4 * ACTION && took[8] < 20 * ACTION, "the notifications took {took:?}");
            let requests = luup.requests();
            assert!(requests.len() > 60, "the others have what the plugin leaves: {}", requests.len());
        });
    });
}
