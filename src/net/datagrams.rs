//! UDP sockets of the kernel: their own address and port, multicast groups, broadcasts.
//!
//! Every socket option here is older than Linux 2.6.32, but for one that is best effort.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use mio::net::UdpSocket;
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::reason;
use super::socket::Datagrams;
use crate::protocol::datagram_settings::{DatagramSettings, LocalAddress, Membership};

/// A UDP socket.
#[derive(Debug)]
pub(crate) struct DatagramSocket(pub UdpSocket);

/// Why there is no socket. Displays as the reason of `ERR CONN`.
#[derive(Debug)]
pub(crate) enum OpenDatagramsError {
    /// The system has no socket, for a reason that has nothing to do with the settings.
    Socket(io::Error),
    /// BIND: the address or the port cannot be had.
    Bind(LocalAddress, io::Error),
    /// JOIN: the group cannot be joined.
    Join(Membership, io::Error),
}

impl DatagramSocket {
    /// A socket that can reach `target`, whose family is that of the settings. It may broadcast, since discovery does.
    pub(crate) fn open(target: SocketAddr, settings: &DatagramSettings) -> Result<Self, OpenDatagramsError> {
        let socket = Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(OpenDatagramsError::Socket)?;
        let _ = socket.set_broadcast(true);
        let ttl = u32::from(settings.multicast_ttl);
        // Best effort: the nearest devices are reached whatever it is.
        let _ = if target.is_ipv4() { socket.set_multicast_ttl_v4(ttl) } else { socket.set_multicast_hops_v6(ttl) };
        let own = settings.bind.unwrap_or(LocalAddress { address: None, port: 0 });
        bind(&socket, target, own, settings).map_err(|error| match settings.bind {
            Some(own) => OpenDatagramsError::Bind(own, error),
            None => OpenDatagramsError::Socket(error),
        })?;
        for &membership in &settings.groups {
            match join(&socket, membership, own.interface()) {
                Ok(()) => {}
                // The group was joined already, by another address of the same interface.
                Err(error) if error.raw_os_error() == Some(Errno::EADDRINUSE as i32) => {}
                Err(error) => return Err(OpenDatagramsError::Join(membership, error)),
            }
        }
        Ok(Self(UdpSocket::from_std(socket.into())))
    }
}

/// Binds the socket, and has multicasts leave by the interface of its own address.
fn bind(socket: &Socket, target: SocketAddr, own: LocalAddress, settings: &DatagramSettings) -> io::Result<()> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, own.port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, own.port).into(),
    };
    let own_address = match own.interface() {
        Some(IpAddr::V4(address)) => {
            socket.set_multicast_if_v4(&address)?;
            (address, own.port).into()
        }
        Some(IpAddr::V6(address)) => {
            let index = interface_index(address)?;
            socket.set_multicast_if_v6(index)?;
            // A link-local address means nothing without its interface (RFC 4007 section 6).
            SocketAddrV6::new(address, own.port, 0, index).into()
        }
        None => any,
    };
    // The kernel hands no multicast to a socket that is bound to an address of one host.
    let local = if settings.groups.is_empty() { own_address } else { any };
    if settings.bind.is_some() {
        if target.is_ipv6() {
            // Beside a socket of IPv4 on the same port.
            socket.set_only_v6(true)?;
        }
        // Other programs of this machine listen for discovery, too. A port that the system chooses is for one socket.
        socket.set_reuse_address(own.port != 0)?;
        receive_own_groups_only(socket, target);
    }
    socket.bind(&local.into())
}

/// Keeps away the groups that other sockets of the machine have joined. Linux hands them to every socket of the port
/// otherwise (ip(7), IP_MULTICAST_ALL). Over IPv6 it takes Linux 4.20.
fn receive_own_groups_only(socket: &Socket, target: SocketAddr) {
    let _ = if target.is_ipv4() { socket.set_multicast_all_v4(false) } else { socket.set_multicast_all_v6(false) };
}

/// Joins a group, by default on the interface of the socket's own address.
fn join(socket: &Socket, membership: Membership, own: Option<IpAddr>) -> io::Result<()> {
    match (membership.group, membership.interface.or(own)) {
        (IpAddr::V4(group), Some(IpAddr::V4(address))) => socket.join_multicast_v4(&group, &address),
        (IpAddr::V4(group), _) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        (IpAddr::V6(group), Some(IpAddr::V6(address))) => socket.join_multicast_v6(&group, interface_index(address)?),
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0),
    }
}

/// The index of the interface that has `address`. Options of IPv6 name interfaces by it.
fn interface_index(address: Ipv6Addr) -> io::Result<u32> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    find_interface(&table, address).ok_or_else(|| io::Error::from_raw_os_error(Errno::EADDRNOTAVAIL as i32))
}

/// Finds an address in the text of /proc/net/if_inet6: 32 hexadecimal digits and the index in hexadecimal come first.
fn find_interface(table: &str, address: Ipv6Addr) -> Option<u32> {
    let digits = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
    let digits: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    let rest = table.lines().find_map(|line| line.strip_prefix(&digits))?;
    u32::from_str_radix(rest.split_ascii_whitespace().next()?, 16).ok()
}

impl fmt::Display for OpenDatagramsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NOT_HERE: &str = "no such address on this machine";
        let (error, option) = match self {
            Self::Socket(error) => return f.write_str(&reason(error)),
            Self::Bind(own, error) => (error, own as &dyn fmt::Display),
            Self::Join(membership, error) => (error, membership as &dyn fmt::Display),
        };
        let why = match (self, error.raw_os_error().map(Errno::from_raw)) {
            // Where no address was given, no route leads to the group.
            (Self::Join(Membership { interface: None, .. }, _), Some(Errno::ENODEV)) => "no route to the group",
            (_, Some(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => NOT_HERE,
            (Self::Bind(..), Some(Errno::EACCES)) => "permission denied: a privileged port",
            _ => &reason(error),
        };
        write!(f, "{option}: {why}")
    }
}

impl Datagrams for DatagramSocket {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer)
    }

    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.0.send_to(payload, to)
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    const TARGET: &str = "127.0.0.1:9";

    fn open(bind: &str, groups: &[&str]) -> Result<DatagramSocket, String> {
        let bind = (!bind.is_empty()).then(|| LocalAddress::parse(bind).unwrap());
        let groups = groups.iter().map(|group| Membership::parse(group).unwrap()).collect();
        let settings = DatagramSettings { bind, groups, ..DatagramSettings::default() };
        DatagramSocket::open(TARGET.parse().unwrap(), &settings).map_err(|error| error.to_string())
    }

    /// A port that is free at this moment.
    fn free_port() -> u16 {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn the_options_reach_the_kernel() {
        let settings = DatagramSettings { multicast_ttl: 7, ..DatagramSettings::default() };
        let socket = DatagramSocket::open(TARGET.parse().unwrap(), &settings).unwrap();
        let socket = SockRef::from(&socket.0);
        assert_eq!((socket.broadcast().unwrap(), socket.multicast_ttl_v4().unwrap()), (true, 7));
        assert!(!socket.reuse_address().unwrap(), "a port that the system chose is not shared");
        assert_eq!(SockRef::from(&open("", &[]).unwrap().0).multicast_ttl_v4().unwrap(), 2);
        let Ok(socket) = DatagramSocket::open("[::1]:9".parse().unwrap(), &settings) else {
            println!("skipped: this machine has no IPv6");
            return;
        };
        assert_eq!(SockRef::from(&socket.0).multicast_hops_v6().unwrap(), 7);
    }

    #[test]
    fn a_port_is_shared_by_those_that_ask_for_it() {
        let port = free_port();
        let first = open(&port.to_string(), &[]).unwrap();
        let second = open(&format!("127.0.0.1:{port}"), &[]).unwrap();
        assert_eq!(first.0.local_addr().unwrap().to_string(), format!("0.0.0.0:{port}"));
        assert_eq!(second.0.local_addr().unwrap().to_string(), format!("127.0.0.1:{port}"));
        let chosen = open("127.0.0.1:0", &[]).unwrap().0.local_addr().unwrap();
        assert!(chosen.ip().is_loopback() && chosen.port() != 0);
    }

    #[test]
    fn a_port_of_another_program_is_taken() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let bind = other.local_addr().unwrap();
        assert_eq!(open(&bind.to_string(), &[]).unwrap_err(), format!("BIND={bind}: address already in use"));
    }

    #[test]
    fn an_address_that_is_not_here_is_named() {
        let here = "no such address on this machine";
        let (port, group) = (free_port().to_string(), "239.255.255.250");
        assert_eq!(open("192.0.2.77:0", &[]).unwrap_err(), format!("BIND=192.0.2.77:0: {here}"));
        assert_eq!(open("192.0.2.77:5", &[group]).unwrap_err(), format!("BIND=192.0.2.77:5: {here}"));
        let group = format!("{group}@192.0.2.77");
        assert_eq!(open(&port, &[&group]).unwrap_err(), format!("JOIN={group}: {here}"));
    }

    #[test]
    fn a_group_that_is_joined_by_two_names_of_an_interface_is_joined() {
        let port = free_port().to_string();
        assert!(open(&format!("127.0.0.1:{port}"), &["239.255.255.250", "239.255.255.250@127.0.0.1"]).is_ok());
    }

    #[test]
    fn reasons() {
        let own = LocalAddress { address: None, port: 80 };
        let group = Membership::parse("239.255.255.250").unwrap();
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        for (failure, reason) in [
            (OpenDatagramsError::Bind(own, error(Errno::EACCES)), "BIND=80: permission denied: a privileged port"),
            (OpenDatagramsError::Join(group, error(Errno::ENODEV)), "JOIN=239.255.255.250: no route to the group"),
            (OpenDatagramsError::Join(group, error(Errno::ENOBUFS)), "JOIN=239.255.255.250: No buffer space available"),
            (OpenDatagramsError::Socket(error(Errno::EMFILE)), "Too many open files"),
        ] {
            assert_eq!(failure.to_string(), reason);
        }
    }

    #[test]
    fn interfaces_are_found_by_their_addresses() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe80000000000000a8bbccfffedd0011 1f 40 20 80     eth0\nnonsense\n";
        assert_eq!(find_interface(table, "::1".parse().unwrap()), Some(1));
        assert_eq!(find_interface(table, "fe80::a8bb:ccff:fedd:11".parse().unwrap()), Some(31));
        assert_eq!(find_interface(table, "fe80::1".parse().unwrap()), None);
        assert_eq!(find_interface("", Ipv6Addr::LOCALHOST), None);
    }
}
