//! Which addresses are this machine's.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::errno::Errno;

/// True if a connection to `address` ends on this machine, by whatever address: loopback, that of an interface, or one
/// that a local route leads here. The port does not matter. An error counts as true, since callers refuse what is true.
///
/// The kernel is asked, by bind(2). Comparing the two addresses of a connection does not suffice: for a second address of
/// an interface, and for 127.0.0.2, the kernel chooses the first address as the source.
pub(crate) fn is_own_address(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    // A connection to the unspecified address leads to loopback.
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let mut any_port = address;
    any_port.set_ip(ip);
    any_port.set_port(0);
    match UdpSocket::bind(any_port) {
        // With ip_nonlocal_bind (ip-sysctl.rst) every address can be bound.
        Ok(_) => !binds_to_any_address() || is_own_source(any_port),
        Err(error) => !is_not_local(&error),
    }
}

/// True if the error says that an address is not one of this machine's, or of a family that the kernel does not have.
fn is_not_local(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn binds_to_any_address() -> bool {
    ["ipv4", "ipv6"].iter().any(|family| {
        let value = std::fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
        value.is_ok_and(|value| value.trim() != "0")
    })
}

/// True if the kernel chooses `address` as the source of a connection to it: it does so for the first address of an
/// interface.
fn is_own_source(mut address: SocketAddr) -> bool {
    let mut any = address;
    any.set_ip(if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() });
    // Connecting a UDP socket sends nothing. The port is that of discard, but any will do.
    address.set_port(9);
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_and_documentation_addresses_are_not() {
        for (address, own) in [
            ("127.0.0.1:80", true),
            ("127.0.0.2:2504", true),
            ("0.0.0.0:2504", true),
            ("[::]:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.9]:1", true),
            ("192.0.2.1:80", false),
            ("[::ffff:192.0.2.1]:80", false),
            ("[2001:db8::1]:80", false),
        ] {
            assert_eq!(is_own_address(address.parse().unwrap()), own, "{address}");
        }
    }
}
