//! What clients of other machines cannot take from the plugins of the box: places of closing notices.

use testkit::device::{Device, Kind};
use testkit::lan::on_the_box;
use testkit::luup::{Luup, Request};
use testkit::plugin::Plugin;

use crate::support::{StatClient, daemon, from_neighbour, on_all_addresses, on_loopback};

/// True if there is a request with this pid.
fn has(requests: &[Request], pid: &str) -> bool {
    requests.iter().any(|request| request.pid() == pid)
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
        assert!(has(&requests, "secret"), "{} notices came, without that of the plugin", requests.len());
        assert!(has(&requests, "p119"), "the last ones of other machines come, too");
        assert!((60..=80).contains(&requests.len()), "{} notices", requests.len());
    });
}
