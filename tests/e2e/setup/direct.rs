//! `[direct]` listeners: ports that connect to a fixed target.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind, UdpEcho};
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::ports::{BlackHole, Reserved};

use crate::support::{LIMIT, StatClient, accepted, both_ways, daemon, stays_quiet};

/// Starts a daemon with direct listeners for `specs`, and returns their ports, too.
#[track_caller]
fn direct(specs: &[String]) -> (Daemon, Vec<Reserved>) {
    let ports: Vec<Reserved> = specs.iter().map(|_| Reserved::new().unwrap()).collect();
    let lines: String = ports.iter().zip(specs).map(|(port, spec)| format!("{}={spec}\n", port.port())).collect();
    let daemon = daemon().config(&format!("[direct]\n{lines}")).listeners(specs.len() + 1).start();
    (daemon, ports)
}

#[test]
fn both_spellings_lead_to_the_target_without_a_greeting() {
    let device = Device::start(Kind::Manual);
    let spellings = ["CONN ", "conn ", "", "  CONN  ", "CONN\t"].map(|conn| format!("{conn}{}", device.addr()));
    let (_daemon, ports) = direct(&spellings);
    for (port, spelling) in ports.iter().zip(&spellings) {
        let mut client = Plugin::connect_raw(port.addr()).unwrap();
        let mut remote = accepted(&device);
        assert!(stays_quiet(client.stream(), Duration::from_millis(100)), "{spelling:?}: bytes from the daemon");
        client.send(b"CAPA\n");
        remote.read_exact(&mut [0; 5]).unwrap();
        remote.write_all(b"answer").unwrap();
        assert_eq!(client.bytes(6), b"answer", "{spelling:?}");
    }
}

#[test]
fn bytes_of_a_client_that_sends_first_arrive() {
    let device = Device::start(Kind::Manual);
    let (_daemon, ports) = direct(&[device.addr().to_string()]);
    for _ in 0..20 {
        let mut client = Plugin::connect_raw(ports[0].addr()).unwrap();
        client.send(b"GET / HTTP/1.0\r\n\r\n");
        client.finish();
        let mut remote = accepted(&device);
        let mut received = Vec::new();
        remote.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"GET / HTTP/1.0\r\n\r\n");
        remote.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        remote.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"HTTP/1.0 200 OK\r\n\r\n");
    }
}

#[test]
fn data_passes_both_ways() {
    let device = Device::start(Kind::Manual);
    let (_daemon, ports) = direct(&[format!("CONN {} BLKS=3000", device.addr()), device.addr().to_string()]);
    for port in &ports {
        let client = Plugin::connect_raw(port.addr()).unwrap();
        both_ways(client.stream(), &accepted(&device), 2_000_000);
    }
}

#[test]
fn a_failure_is_reported_with_its_reason() {
    let (closed, hole) = (Reserved::new().unwrap(), BlackHole::new().unwrap());
    let (_daemon, ports) = direct(&[closed.addr().to_string(), format!("CONN {} CTIM=300", hole.addr())]);
    let reasons = ["connection refused", "timeout"];
    for (port, reason) in ports.iter().zip(reasons) {
        let mut client = Plugin::connect_raw(port.addr()).unwrap();
        assert_eq!(String::from_utf8(client.rest()).unwrap(), format!("ERR CONN {reason}\n"));
    }
}

#[test]
fn options_apply_and_notifications_have_their_own_pid() {
    let device = Device::start(Kind::Manual);
    let ports = [Reserved::new().unwrap(), Reserved::new().unwrap()];
    let config = format!(
        "[direct]\n{}=CONN {} NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0\n{}={1} NTFY=56 RTIM=300\n",
        ports[0].port(),
        device.addr(),
        ports[1].port()
    );
    let luup = Luup::start();
    let daemon = daemon().config(&config).luup(&luup.url()).listeners(3).start();
    let mut client = Plugin::connect_raw(ports[0].addr()).unwrap();
    let mut remote = accepted(&device);
    remote.write_all(b"220 mail\r\n").unwrap();
    assert_eq!(client.line(), "220 mail\r");
    let request = &luup.wait_for(1, LIMIT)[0];
    assert_eq!((request.device(), request.pid()), (Some(55), "0"));
    drop(remote);
    assert!(client.at_end());
    luup.wait_for(2, LIMIT);
    luup.clear_requests();

    let mut client = Plugin::connect_raw(ports[1].addr()).unwrap();
    let _remote = accepted(&device);
    let shown = StatClient::new(daemon.addr()).connections();
    let second = |shown: &&serde_json::Value| shown["notify"].as_str().is_some_and(|notify| notify.starts_with("56/"));
    let id = shown.iter().find(second).unwrap()["id"].as_str().unwrap().to_owned();
    let hex = id.strip_prefix('L').unwrap_or_else(|| panic!("{id:?}"));
    assert!(u64::from_str_radix(hex, 16).is_ok() && hex == hex.to_ascii_lowercase(), "{id:?}");
    assert!(client.at_end(), "RTIM applies");
    let request = &luup.wait_for(1, LIMIT)[0];
    assert_eq!((request.device(), request.pid()), (Some(56), &*id));
}

#[test]
fn several_ports_can_share_a_target_and_a_target_can_be_a_name() {
    let device = Device::start(Kind::Echo);
    let name = format!("CONN localhost:{}", device.port());
    let (_daemon, ports) = direct(&[device.addr().to_string(), device.addr().to_string(), name]);
    for port in &ports {
        let mut client = Plugin::connect_raw(port.addr()).unwrap();
        client.send(b"hello");
        assert_eq!(client.bytes(5), b"hello");
    }
}

#[test]
fn a_target_can_be_udp() {
    let device = UdpEcho::start();
    let (_daemon, ports) = direct(&[format!("CONN {} PRTO=udp FRAM=MESG", device.addr())]);
    let mut client = Plugin::connect_raw(ports[0].addr()).unwrap();
    client.send(b"BINA 2\nhi");
    assert_eq!(client.line(), format!("DGRM 2 {}", device.addr()));
    assert_eq!(client.bytes(2), b"hi");
}

#[test]
fn the_timeout_of_setup_mode_does_not_apply() {
    let device = Device::start(Kind::Manual);
    let port = Reserved::new().unwrap();
    let config = format!("[limits]\nsetup=0.3\n[direct]\n{}={}\n", port.port(), device.addr());
    let _daemon = daemon().config(&config).listeners(2).start();
    let mut client = Plugin::connect_raw(port.addr()).unwrap();
    let mut remote = accepted(&device);
    assert!(stays_quiet(client.stream(), Duration::from_secs(1)));
    remote.write_all(b"late").unwrap();
    assert_eq!(client.bytes(4), b"late");
}

#[test]
fn listeners_are_shown_by_stat_json() {
    let device = Device::start(Kind::Silent);
    let (daemon, ports) = direct(&[format!("CONN {} NTFY=5", device.addr())]);
    let listeners = StatClient::new(daemon.addr()).status()["listeners"].clone();
    let expected = serde_json::json!({"address": ports[0].addr().to_string(), "target": device.addr().to_string()});
    assert_eq!(listeners[1], expected);
}

/// Regression: the daemon ended if another program had a port of the configuration. So a web server that was started
/// first took all plugins their connections.
#[test]
fn a_port_that_is_taken_at_the_start_is_served_as_soon_as_it_is_free() {
    let device = Device::start(Kind::Manual);
    let ports: Vec<Reserved> = (0..3).map(|_| Reserved::new().unwrap()).collect();
    let taken: Vec<_> = ports.iter().map(|port| port.listen().unwrap()).collect();
    let [direct, serve, status] = [0, 1, 2].map(|at: usize| ports[at].port());
    let config = format!(
        "[direct]\n{direct}=CONN {addr}\n[serve]\n{serve}=CONN {addr}\n[status]\nport={status}\n",
        addr = device.addr()
    );
    let daemon = daemon().config(&config).start();
    let is_about = |line: &str, what: &str, port: u16| line.contains(what) && line.contains(&format!(":{port}"));
    for port in [direct, serve, status] {
        daemon.wait_for_log(LIMIT, |line| is_about(line, "cannot listen on", port) && line.contains("in use"));
    }
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));

    drop(taken);
    for port in [direct, serve, status] {
        daemon.wait_for_log(LIMIT, |line| is_about(line, "listening on", port) && !line.contains("cannot"));
    }
    let mut client = Plugin::connect_raw(ports[0].addr()).unwrap();
    accepted(&device).write_all(b"hello").unwrap();
    assert_eq!(client.bytes(5), b"hello");
    // These ports are the proxy's own from now on.
    for port in &ports {
        let mut plugin = daemon.plugin();
        plugin.conn(daemon.addr(), "");
        plugin.line();
        assert_eq!(plugin.command(&format!("CONN {}", port.addr())), "ERR CONN connection to the proxy itself");
    }
}
