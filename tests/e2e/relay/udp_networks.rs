//! UDP in networks: BIND, JOIN and MTTL, broadcasts, a machine in two networks, one without routes.
//!
//! Each test has its networks to itself: the proxy's machine is a network namespace, and each device another.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::sockopt::{Ipv4RecvTtl, Ipv6RecvHopLimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use testkit::daemon::Daemon;
use testkit::netns::Netns;
use testkit::plugin::Plugin;

use crate::support::{LIMIT, StatClient, announce, daemon, may_have_networks, member, shared_socket};

const SSDP: &str = "239.255.255.250:1900";
/// Time in which a datagram would have come.
const A_MOMENT: Duration = Duration::from_millis(300);

/// The proxy's machine: 198.51.100.1 and fd00:1::1 in one network, 203.0.113.1 and fd00:2::1 in the other. The device of
/// each network has the address that ends with 2.
struct Home {
    daemon: Daemon,
    machine: Netns,
    /// The device of 198.51.100.0/24.
    device: Netns,
    /// The device of 203.0.113.0/24.
    other: Netns,
}

/// `None`, and the reason is printed, where there are no such networks.
fn home() -> Option<Home> {
    if !may_have_networks() {
        return None;
    }
    let (machine, device, other) = (Netns::new(), Netns::new(), Netns::new());
    machine.connect("eth0", "198.51.100.1/24 fd00:1::1/64", &device, "eth0", "198.51.100.2/24 fd00:1::2/64");
    machine.connect("eth1", "203.0.113.1/24 fd00:2::1/64", &other, "eth0", "203.0.113.2/24 fd00:2::2/64");
    // As on a machine with a router: multicasts without an address leave by eth0.
    machine.ip("route add default via 198.51.100.2");
    let daemon = daemon().within(&machine.script()).start();
    Some(Home { daemon, machine, device, other })
}

impl Home {
    fn plugin(&self) -> Plugin {
        self.machine.run(|| self.daemon.plugin())
    }

    /// A plugin that speaks UDP with `target` in MESG framing.
    #[track_caller]
    fn udp(&self, target: &str, options: &str) -> Plugin {
        let mut plugin = self.plugin();
        plugin.conn(target, &format!("PRTO=udp FRAM=MESG {options}"));
        plugin
    }

    /// Waits until no plugin is connected.
    fn wait_unconnected(&self) {
        self.machine.run(|| StatClient::new(self.daemon.addr()).wait_connections(0));
    }

    /// The answer to a CONN that fails.
    fn refusal(&self, target: &str, options: &str) -> String {
        self.plugin().command(&format!("CONN {target} PRTO=udp {options}"))
    }
}

#[track_caller]
fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 2000];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}

/// Reads a datagram: its sender and its bytes.
#[track_caller]
fn datagram(plugin: &mut Plugin) -> (String, String) {
    let header = plugin.line();
    let mut words = header.strip_prefix("DGRM ").expect("a datagram").split(' ');
    let length = words.next().unwrap().parse().unwrap();
    (words.next().unwrap().into(), String::from_utf8(plugin.bytes(length)).unwrap())
}

#[test]
fn a_search_is_answered_and_announcements_come_unasked() {
    let Some(home) = home() else { return };
    let device = member(&home.device, SSDP, "198.51.100.2");
    let mut searcher = home.udp(SSDP, "");
    let mut listener = home.udp(SSDP, "BIND=1900 JOIN=239.255.255.250");
    searcher.send(b"TEXT 8\nM-SEARCH");
    let (search, searcher_address) = receive(&device);
    assert_eq!((search.as_str(), searcher_address.ip().to_string()), ("M-SEARCH", "198.51.100.1".into()));
    // A member hears those of its own machine, too.
    assert_eq!(datagram(&mut listener), (searcher_address.to_string(), "M-SEARCH".into()));
    device.send_to(b"answer", searcher_address).unwrap();
    assert_eq!(datagram(&mut searcher), ("198.51.100.2:1900".into(), "answer".into()));
    announce(&home.device, "198.51.100.2:1900", SSDP, b"NOTIFY");
    assert_eq!(datagram(&mut listener), ("198.51.100.2:1900".into(), "NOTIFY".into()));
    assert!(searcher.is_quiet());
    // What is sent to the port alone, from another port.
    let from = shared_socket(&home.device, "198.51.100.2:4000");
    from.send_to(b"unasked", "198.51.100.1:1900").unwrap();
    assert_eq!(datagram(&mut listener), ("198.51.100.2:4000".into(), "unasked".into()));
    // And answers leave from it.
    listener.send(b"DGRM 2 198.51.100.2:4000\nhi");
    assert_eq!(receive(&from), ("hi".into(), "198.51.100.1:1900".parse().unwrap()));
}

/// Time to live of the next datagram that the socket receives.
fn time_to_live(socket: &UdpSocket) -> i32 {
    let mut space = nix::cmsg_space!(i32);
    let mut buffer = [0; 100];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
    let ttl = received.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
        _ => None,
    });
    ttl.expect("a time to live")
}

/// HA core#69360: a search with a time to live of 1 does not reach the devices behind a router.
#[test]
fn multicasts_may_pass_as_many_routers_as_asked_for() {
    let Some(home) = home() else { return };
    let group = "[ff05::c]:1900";
    let (device, device6) = (member(&home.device, SSDP, "198.51.100.2"), member(&home.device, group, "fd00:1::2"));
    setsockopt(&device, Ipv4RecvTtl, &true).unwrap();
    setsockopt(&device6, Ipv6RecvHopLimit, &true).unwrap();
    for (options, expected) in [("", 2), ("MTTL=1", 1), ("MTTL=255", 255)] {
        home.udp(SSDP, options).send(b"TEXT 2\nhi");
        assert_eq!(time_to_live(&device), expected, "{options}");
        home.udp(group, &format!("BIND=[fd00:1::1]:0 {options}")).send(b"TEXT 2\nhi");
        assert_eq!(time_to_live(&device6), expected, "IPv6 {options}");
    }
}

#[test]
fn a_port_is_shared_and_each_socket_has_the_groups_that_it_has_joined() {
    let Some(home) = home() else { return };
    let group = "224.0.1.187:5683";
    // Another program, on the same port and in another group.
    let program = member(&home.machine, "224.0.1.1:5683", "198.51.100.1");
    let mut two =
        [home.udp(group, "BIND=5683 JOIN=224.0.1.187"), home.udp(group, "BIND=5683 JOIN=224.0.1.187,224.0.1.2")];
    announce(&home.device, "198.51.100.2:5683", "224.0.1.1:5683", b"not for the plugins");
    announce(&home.device, "198.51.100.2:5683", "224.0.1.2:5683", b"for the second");
    announce(&home.device, "198.51.100.2:5683", group, b"for both");
    assert_eq!(receive(&program).0, "not for the plugins");
    assert_eq!(datagram(&mut two[1]).1, "for the second");
    for plugin in &mut two {
        assert_eq!(datagram(plugin).1, "for both");
    }
    // A group ends with its connection.
    two.into_iter().for_each(Plugin::reset);
    home.wait_unconnected();
    let groups = home.machine.command("cat").arg("/proc/net/igmp").output().unwrap();
    let groups = String::from_utf8_lossy(&groups.stdout).into_owned();
    assert!(groups.contains("010100E0") && !groups.contains("BB0100E0"), "{groups}");
}

#[test]
fn an_address_of_bind_chooses_the_network_of_multicasts_and_broadcasts() {
    let Some(home) = home() else { return };
    for to in [SSDP, "255.255.255.255:1900"] {
        let (device, other) = (member(&home.device, SSDP, "198.51.100.2"), member(&home.other, SSDP, "203.0.113.2"));
        for (bind, receiver, deaf) in [("198.51.100.1", &device, &other), ("203.0.113.1", &other, &device)] {
            let mut plugin = home.udp(to, &format!("BIND={bind}:0"));
            plugin.send(format!("TEXT {}\n{bind}", bind.len()).as_bytes());
            let (payload, from) = receive(receiver);
            assert_eq!((payload.as_str(), from.ip().to_string()), (bind, bind.to_owned()), "{to}");
            deaf.set_read_timeout(Some(A_MOMENT)).unwrap();
            assert!(deaf.recv_from(&mut [0; 10]).is_err(), "{to} from {bind} has reached the other network");
            deaf.set_read_timeout(Some(LIMIT)).unwrap();
            receiver.send_to(b"answer", from).unwrap();
            assert_eq!(datagram(&mut plugin).1, "answer");
        }
    }
}

#[test]
fn a_group_is_joined_in_the_network_of_its_address() {
    let Some(home) = home() else { return };
    let announcements = || {
        announce(&home.device, "198.51.100.2:1900", SSDP, b"here");
        announce(&home.other, "203.0.113.2:1900", SSDP, b"there");
    };
    for (options, heard) in [
        ("BIND=1900 JOIN=239.255.255.250", &["here"][..]),
        ("BIND=1900 JOIN=239.255.255.250@203.0.113.1", &["there"]),
        ("BIND=203.0.113.1:1900 JOIN=239.255.255.250", &["there"]),
        ("BIND=203.0.113.1:1900 JOIN=239.255.255.250@198.51.100.1", &["here"]),
        ("BIND=1900 JOIN=239.255.255.250@198.51.100.1,239.255.255.250@203.0.113.1", &["here", "there"]),
    ] {
        let mut plugin = home.udp(SSDP, options);
        announcements();
        // The order of two networks is not known.
        let mut received: Vec<String> = heard.iter().map(|_| datagram(&mut plugin).1).collect();
        received.sort();
        assert_eq!(received, heard, "{options}");
        assert!(plugin.is_quiet(), "{options}");
    }
    // Multicasts leave by the network of the address in BIND, with that address.
    let other = member(&home.other, SSDP, "203.0.113.2");
    let mut plugin = home.udp(SSDP, "BIND=203.0.113.1:1900 JOIN=239.255.255.250");
    plugin.send(b"TEXT 8\nM-SEARCH");
    assert_eq!(receive(&other), ("M-SEARCH".into(), "203.0.113.1:1900".parse().unwrap()));
}

#[test]
fn groups_of_ipv6_are_joined_in_the_network_of_their_address() {
    let Some(home) = home() else { return };
    let group = "[ff05::fb]:5353";
    for (options, heard) in [
        ("BIND=5353 JOIN=ff05::fb@fd00:2::1", "there"),
        ("BIND=[fd00:2::1]:5353 JOIN=ff05::fb", "there"),
        ("BIND=[fd00:1::1]:5353 JOIN=ff05::fb", "here"),
        ("BIND=[::]:5353 JOIN=ff05::fb@fd00:1::1", "here"),
    ] {
        let mut plugin = home.udp(group, options);
        announce(&home.device, "[fd00:1::2]:5353", group, b"here");
        announce(&home.other, "[fd00:2::2]:5353", group, b"there");
        assert_eq!(datagram(&mut plugin).1, heard, "{options}");
        assert!(plugin.is_quiet(), "{options}");
        plugin.reset();
        // Linux hands a socket a group of IPv6 from every interface on which any socket has joined it.
        home.wait_unconnected();
    }
    let other = member(&home.other, group, "fd00:2::2");
    let mut plugin = home.udp(group, "BIND=[fd00:2::1]:0");
    plugin.send(b"TEXT 5\nquery");
    let (query, from) = receive(&other);
    assert_eq!((query.as_str(), from.ip().to_string()), ("query", "fd00:2::1".into()));
    other.send_to(b"answer", from).unwrap();
    assert_eq!(datagram(&mut plugin), ("[fd00:2::2]:5353".into(), "answer".into()));
}

#[test]
fn a_link_local_address_says_which_interface_is_meant() {
    let Some(home) = home() else { return };
    home.machine.ip("address add fe80::a/64 dev eth1 nodad");
    home.other.ip("address add fe80::b/64 dev eth0 nodad");
    let group = "[ff02::fb]:5353";
    let (here, there) = (member(&home.device, group, "fd00:1::2"), member(&home.other, group, "fd00:2::2"));
    for options in ["BIND=[fe80::a]:5353 JOIN=ff02::fb", "BIND=5353 JOIN=ff02::fb@fe80::a"] {
        let mut plugin = home.udp(group, options);
        here.send_to(b"here", group).unwrap();
        there.send_to(b"there", group).unwrap();
        let (sender, payload) = datagram(&mut plugin);
        assert!(payload == "there" && sender.starts_with("[fe80::"), "{payload} of {sender}, {options}");
        // The sender as DGRM gives it is an address that DGRM takes.
        plugin.send(format!("DGRM 2 {sender}\nhi").as_bytes());
        // A member hears itself.
        let received = [receive(&there).0, receive(&there).0];
        assert!(received.contains(&"hi".to_owned()), "{received:?}");
        assert!(plugin.is_quiet(), "{options}");
        plugin.reset();
        home.wait_unconnected();
    }
    let mut plugin = home.udp(group, "BIND=[fe80::a]:0");
    plugin.send(b"TEXT 5\nquery");
    let (query, from) = receive(&there);
    assert!(query == "query" && from.ip().to_string() == "fe80::a", "{query} of {from}");
    there.send_to(b"answer", from).unwrap();
    assert_eq!(datagram(&mut plugin).1, "answer");
}

#[test]
fn broadcasts_are_sent_and_received() {
    let Some(home) = home() else { return };
    let device = shared_socket(&home.device, "0.0.0.0:48899");
    for to in ["198.51.100.255:48899", "255.255.255.255:48899"] {
        let mut plugin = home.udp(to, "");
        plugin.send(b"TEXT 5\nhello");
        let (hello, from) = receive(&device);
        assert_eq!(hello, "hello", "{to}");
        device.send_to(b"me", from).unwrap();
        assert_eq!(datagram(&mut plugin), ("198.51.100.2:48899".into(), "me".into()));
    }
    let mut listener = home.udp("198.51.100.255:6666", "BIND=6666");
    device.send_to(b"one", "198.51.100.255:6666").unwrap();
    assert_eq!(datagram(&mut listener), ("198.51.100.2:48899".into(), "one".into()));
    home.device.ip("route add 255.255.255.255 dev eth0");
    device.send_to(b"all", "255.255.255.255:6666").unwrap();
    assert_eq!(datagram(&mut listener).1, "all");
}

/// HA core#90704: discovery on a machine without a route for multicasts finds nothing, and the log must say why.
#[test]
fn a_multicast_without_a_route_is_logged_once() {
    let Some(home) = home() else { return };
    home.machine.ip("route del default");
    let device = shared_socket(&home.device, "198.51.100.2:1900");
    let mut plugins = [home.udp(SSDP, ""), home.udp(SSDP, "")];
    for plugin in &mut plugins {
        plugin.send("TEXT 8\nM-SEARCH".repeat(20).as_bytes());
        // The connection goes on.
        plugin.send(b"DGRM 2 198.51.100.2:1900\nhi");
        assert_eq!(receive(&device).0, "hi");
    }
    let log = home.machine.run(|| home.daemon.complete_log_text());
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("not sent")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let expected = format!("{} datagram to {SSDP} not sent: Network is unreachable", plugins[0].pid());
    assert!(warnings[0].ends_with(&expected), "{} is not {expected}", warnings[0]);
    assert_eq!(
        home.refusal(SSDP, "BIND=1900 JOIN=239.255.255.250"),
        "ERR CONN JOIN=239.255.255.250: no route to the group"
    );
    // An address takes the place of the route.
    let mut listener = home.udp(SSDP, "BIND=1900 JOIN=239.255.255.250@198.51.100.1");
    announce(&home.device, "198.51.100.2:1900", SSDP, b"NOTIFY");
    assert_eq!(datagram(&mut listener).1, "NOTIFY");
}

#[test]
fn a_socket_that_cannot_be_had_is_refused_with_its_reason() {
    let Some(home) = home() else { return };
    let taken = home.machine.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 1900)).unwrap());
    for (options, reason) in [
        ("BIND=1900", "BIND=1900: address already in use"),
        ("BIND=198.51.100.1:1900", "BIND=198.51.100.1:1900: address already in use"),
        ("BIND=198.51.100.9:0", "BIND=198.51.100.9:0: no such address on this machine"),
        ("BIND=5353 JOIN=224.0.0.251@198.51.100.9", "JOIN=224.0.0.251@198.51.100.9: no such address on this machine"),
        ("BIND=5353 JOIN=ff02::fb", "BIND and JOIN are IPv6, the target is IPv4"),
    ] {
        assert_eq!(home.refusal("198.51.100.2:9", options), format!("ERR CONN {reason}"));
    }
    for (options, reason) in [
        ("BIND=[fd00:1::9]:0", "BIND=[fd00:1::9]:0: no such address on this machine"),
        ("BIND=5353 JOIN=ff02::fb@fd00:1::9", "JOIN=ff02::fb@fd00:1::9: no such address on this machine"),
        ("BIND=198.51.100.1:0", "BIND and JOIN are IPv4, the target is IPv6"),
    ] {
        assert_eq!(home.refusal("[fd00:1::2]:9", options), format!("ERR CONN {reason}"));
    }
    drop(taken);
    home.udp("198.51.100.2:9", "BIND=1900");
}

#[test]
fn a_privileged_port_takes_a_proxy_that_may_have_it() {
    if !may_have_networks() {
        return;
    }
    let machine = Netns::new();
    let unprivileged = "setpriv --bounding-set=-net_bind_service --inh-caps=-net_bind_service \"$@\"";
    let daemon = daemon().within(&machine.script().replace("\"$@\"", unprivileged)).start();
    let conn = |options: &str| machine.run(|| daemon.plugin().command(&format!("CONN 127.0.0.1:9 PRTO=udp {options}")));
    assert_eq!(conn("BIND=161"), "ERR CONN BIND=161: permission denied: a privileged port");
    assert!(conn("BIND=1900").starts_with("OK CONN "));
}

#[test]
fn a_machine_without_ipv6_has_multicasts_of_ipv4() {
    let Some(home) = home() else { return };
    let script =
        "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
    assert!(home.machine.command("sh").args(["-c", script]).status().unwrap().success());
    let mut plugin = home.udp(SSDP, "BIND=1900 JOIN=239.255.255.250");
    announce(&home.device, "198.51.100.2:1900", SSDP, b"NOTIFY");
    assert_eq!(datagram(&mut plugin).1, "NOTIFY");
    for options in ["", "BIND=5353", "BIND=5353 JOIN=ff02::fb", "BIND=[fd00:1::1]:0"] {
        let answer = home.refusal("[fd00:1::2]:5353", options);
        assert!(answer.starts_with("ERR CONN ") || options.len() < 10, "{options}: {answer}");
    }
}
