//! Connections to the proxy itself and to Luup: clients on other machines get none, by whatever address.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::lan::{BOX, on_the_box};
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::websocket::Peer;

use crate::support::{
    LIMIT, NO_LUUP, StatClient, daemon, emulated, from_neighbour, on_all_addresses, on_lan, on_loopback,
    redirecting_server, started,
};

const PROXY: &str = "ERR CONN connection to the proxy itself";
const LUUP: &str = "ERR CONN connection to Luup from another machine";

/// The addresses of the box in CONN's notation.
fn addresses() -> impl Iterator<Item = String> {
    BOX.into_iter().map(|address| if address.contains(':') { format!("[{address}]") } else { address.to_owned() })
}

/// A daemon on all addresses of the box, for clients anywhere, with Luup at `luup`.
fn for_all(luup: &str) -> Daemon {
    on_all_addresses(daemon(), luup, "allow=*\n").start()
}

/// LuWS documents a function that connects through the proxy, also to what our library for LuWS plugins connects to: the
/// proxy.
#[test]
fn a_plugin_of_the_box_reaches_the_proxy_through_itself_once() {
    let device = Device::start(Kind::Echo);
    let port = Reserved::new().unwrap();
    let config = format!("[direct]\n{}={}\n", port.port(), device.addr());
    let daemon = daemon().config(&config).listeners(2).start();
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1"] {
        let mut plugin = daemon.plugin();
        plugin.conn(format!("{host}:{}", daemon.port()), "");
        assert!(plugin.line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "));
        for own in [daemon.port(), port.port()] {
            let mut plugin = daemon.plugin();
            plugin.conn(format!("{host}:{}", daemon.port()), "");
            plugin.line();
            assert_eq!(plugin.command(&format!("CONN {host}:{own}")), PROXY, "{host}:{own}");
        }
        assert!(plugin.command(&format!("CONN {}", device.addr())).starts_with("OK CONN "));
        plugin.send(b"through both");
        assert_eq!(plugin.bytes(12), b"through both");
    }
    let mut plugin = daemon.plugin();
    plugin.conn(port.addr(), "");
    plugin.send(b"hello");
    assert_eq!(plugin.bytes(5), b"hello");
}

/// Regression: each line was passed on to a further connection of the proxy to itself, until there were too many.
#[test]
fn a_line_of_conns_to_the_proxy_itself_ends_at_once() {
    let mut daemon = started();
    let mut plugin = daemon.plugin();
    let line = format!("CONN 127.0.0.1:{}\n", daemon.port());
    plugin.send(format!("{}STOP\n", line.repeat(500)).as_bytes());
    assert!(plugin.line().starts_with("OK CONN "));
    assert!(plugin.line().starts_with("OK TOGGLEDBITS"));
    assert_eq!(plugin.line(), PROXY);
    assert!(plugin.at_end());
    drop(plugin);
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    assert_eq!(stat.status()["accepted"], 3);
    assert!(daemon.wait_exit(Duration::ZERO).is_none());
}

#[test]
fn a_redirect_does_not_lead_to_the_proxy_itself() {
    let daemon = started();
    let (server, _requests) = redirecting_server(None, "302 Found", format!("ws://127.0.0.1:{}/", daemon.port()));
    let reply = daemon.plugin().command(&format!("CONN {}", server.url("/")));
    assert_eq!(reply, "ERR CONN COULD_NOT_CONNECT connection to the proxy itself");
}

#[test]
fn a_direct_listener_does_not_lead_to_the_proxy_itself() {
    let (one, two) = (Reserved::new().unwrap(), Reserved::new().unwrap());
    let config = format!("[direct]\n{}=127.0.0.1:{1}\n{1}=localhost:{1}\n", one.port(), two.port());
    let daemon = daemon().config(&config).listeners(3).start();
    for port in [one, two] {
        let mut client = Plugin::connect_raw(port.addr()).unwrap();
        assert_eq!(client.rest(), format!("{PROXY}\n").as_bytes());
    }
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

#[test]
fn another_machine_does_not_stop_the_proxy_through_itself() {
    on_the_box(|lan| {
        let mut daemon = for_all(NO_LUUP);
        for host in addresses().chain(["127.0.0.1", "[::1]", "0.0.0.0", "[::]"].map(String::from)) {
            let (mut plugin, _) = from_neighbour(lan, "192.168.77.2", &daemon);
            plugin.send(format!("CONN {host}:{}\nSTOP\n", daemon.port()).as_bytes());
            assert_eq!(plugin.line(), PROXY, "{host}");
        }
        let (mut plugin, _) = from_neighbour(lan, "192.168.77.2", &daemon);
        assert_eq!(plugin.command("STOP"), "ERR STOP Not allowed");
        assert!(daemon.wait_exit(Duration::ZERO).is_none());
    });
}

#[test]
fn another_machine_does_not_reach_luup_on_the_box() {
    on_the_box(|lan| {
        let luup = Luup::start_at("0.0.0.0:0".parse().unwrap()).unwrap();
        for host in ["127.0.0.1", "localhost", "192.168.77.1"] {
            let daemon = for_all(&format!("http://{host}:{}", luup.port()));
            for target in addresses().chain(["127.0.0.1", "localhost"].map(String::from)) {
                let (mut plugin, _) = from_neighbour(lan, "192.168.77.2", &daemon);
                assert_eq!(plugin.command(&format!("CONN {target}:{}", luup.port())), LUUP, "{target}");
            }
            // Plugins of the box may, by whatever address they come.
            let (lo, to) = (on_loopback(&daemon), on_lan(&daemon, "192.168.77.2"));
            for (to, target) in [(lo, "127.0.0.1"), (lo, "192.168.77.9"), (to, "127.0.0.1"), (to, "192.168.77.1")] {
                Plugin::connect(to).conn(format!("{target}:{}", luup.port()), "");
            }
        }
    });
}

#[test]
fn luup_on_another_machine_and_other_services_of_the_box_are_reached() {
    on_the_box(|lan| {
        let luup = lan.run(|| Device::start_at("192.168.77.2:0".parse().unwrap(), Kind::Silent).unwrap());
        let same_port = Device::start_at(([127, 0, 0, 1], luup.port()).into(), Kind::Silent).unwrap();
        let daemon = for_all(&format!("http://{}", luup.addr()));
        for target in [luup.addr(), same_port.addr()] {
            let (mut plugin, _) = from_neighbour(lan, "192.168.77.3", &daemon);
            plugin.conn(target, "");
        }
    });
}

#[test]
fn a_direct_listener_may_lead_to_luup() {
    on_the_box(|lan| {
        let luup = Device::start(Kind::Echo);
        let config = format!("allow=*\n[direct]\n8480=CONN {}\n", luup.addr());
        let url = format!("http://{}", luup.addr());
        let _daemon = on_all_addresses(daemon(), &url, &config).listeners(2).start();
        let mut client = lan.plugin("192.168.77.2", "192.168.77.1:8480".parse().unwrap());
        client.send(b"as the owner wants");
        assert_eq!(client.bytes(18), b"as the owner wants");
    });
}

/// Reads a request and answers that the resource is at `location`.
fn redirect(stream: TcpStream, location: &str) {
    let mut peer = Peer::new(stream);
    peer.request().unwrap();
    peer.send(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
}

#[test]
fn a_server_elsewhere_redirects_to_no_address_of_the_box() {
    on_the_box(|lan| {
        for address in addresses() {
            let own = Device::start_at(format!("{address}:0").parse().unwrap(), Kind::Silent).unwrap();
            let server = lan.run(|| Device::start_at("100.64.77.2:0".parse().unwrap(), Kind::Manual).unwrap());
            let daemon = for_all(NO_LUUP);
            let (target, location) = (server.addr(), format!("ws://{}/", own.addr()));
            let answer = thread::spawn(move || redirect(server.accept(LIMIT), &location));
            let reply = Plugin::connect(on_loopback(&daemon)).command(&format!("CONN ws://{target}/"));
            answer.join().unwrap();
            assert_eq!(reply, "ERR CONN COULD_NOT_CONNECT redirected to an address that is nearer", "{address}");
            assert_eq!(own.accepted(), 0, "{address} was connected to");
        }
    });
}

/// Regression: only CONN was refused.
#[test]
fn another_machine_takes_no_kept_connection_to_the_proxy_or_luup_over() {
    on_the_box(|lan| {
        let luup = Luup::start_at("0.0.0.0:0".parse().unwrap()).unwrap();
        let mut daemon = for_all(&format!("http://127.0.0.1:{}", luup.port()));
        let device = Device::start(Kind::Echo);
        let targets = [on_loopback(&daemon), ([127, 0, 0, 1], luup.port()).into(), device.addr()];
        for (number, target) in targets.into_iter().enumerate() {
            let pid = format!("kept-pid-{number}");
            Plugin::connect(on_loopback(&daemon)).conn(target, &format!("KEEP=300 NTFY=-1/s/a/{pid}"));
            let (mut stranger, _) = from_neighbour(lan, "192.168.77.2", &daemon);
            let answer = stranger.command(&format!("ATCH {pid}"));
            if target == device.addr() {
                assert_eq!(answer, format!("OK ATCH {pid}"), "the pid of a device suffices");
            } else {
                assert_eq!(answer, "ERR ATCH No such pid", "{target}");
                let own = Plugin::connect(on_loopback(&daemon)).command(&format!("ATCH {pid}"));
                assert_eq!(own, format!("OK ATCH {pid}"), "{target}");
            }
        }
        assert!(daemon.wait_exit(Duration::ZERO).is_none());
    });
}

/// Regression: a stranger had the datagrams that devices send to a plugin's port.
#[test]
fn another_machine_has_no_udp_port_of_its_own_unless_it_may_listen() {
    on_the_box(|lan| {
        for (listen, port, answer) in [
            ("loopback", "5683", "ERR CONN BIND=5683: not allowed"),
            ("loopback", "192.168.77.1:0", "OK CONN "),
            ("192.168.77.2", "5683", "OK CONN "),
        ] {
            // There is no IP_MULTICAST_IF.
            if emulated() && answer.starts_with("OK") {
                continue;
            }
            let daemon = on_all_addresses(daemon(), NO_LUUP, &format!("listen={listen}\n")).start();
            let (mut plugin, _) = from_neighbour(lan, "192.168.77.2", &daemon);
            let said = plugin.command(&format!("CONN 192.168.77.2:9 PRTO=udp BIND={port}"));
            assert!(said.starts_with(answer), "listen={listen}: {said}");
        }
        let device = Device::start(Kind::Silent);
        let daemon = for_all(NO_LUUP);
        let said = Plugin::connect(on_loopback(&daemon)).command(&format!("CONN {} PRTO=udp BIND=5683", device.addr()));
        assert!(said.starts_with("OK CONN "), "{said}");
    });
}
