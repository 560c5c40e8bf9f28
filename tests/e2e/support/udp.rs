//! Sockets of devices in network namespaces.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, SockRef, Socket, Type};
use testkit::netns::{self, Netns};

use super::{LIMIT, skipped_under_emulation};

/// True if the daemon may be in networks of the test's own. If not, prints that the test is skipped, and why.
pub(crate) fn may_have_networks() -> bool {
    !skipped_under_emulation("there is no IP_MULTICAST_IF") && netns::available()
}

/// A device's socket, which shares its port and may broadcast.
pub(crate) fn shared_socket(machine: &Netns, address: &str) -> UdpSocket {
    machine.run(|| {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.bind(&address.into()).unwrap();
        let socket: UdpSocket = socket.into();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    })
}

/// A device's socket on the port of a group that it has joined, on the interface of its `address`.
pub(crate) fn member(machine: &Netns, group: &str, address: &str) -> UdpSocket {
    let group: SocketAddr = group.parse().unwrap();
    let any = if group.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let socket = shared_socket(machine, &format!("{any}:{}", group.port()));
    match (group.ip(), address.parse().unwrap()) {
        (IpAddr::V4(group), IpAddr::V4(address)) => {
            socket.join_multicast_v4(&group, &address).unwrap();
            SockRef::from(&socket).set_multicast_if_v4(&address).unwrap();
        }
        // A device has one interface besides loopback.
        (IpAddr::V6(group), _) => machine.run(|| socket.join_multicast_v6(&group, 0).unwrap()),
        _ => unreachable!("of one family"),
    }
    socket
}

/// Sends to a group from a device's address.
pub(crate) fn announce(machine: &Netns, from: &str, group: &str, payload: &[u8]) {
    let socket = shared_socket(machine, from);
    if let IpAddr::V4(address) = socket.local_addr().unwrap().ip() {
        SockRef::from(&socket).set_multicast_if_v4(&address).unwrap();
    }
    socket.send_to(payload, group).unwrap();
}
