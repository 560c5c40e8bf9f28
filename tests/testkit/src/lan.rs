//! A box on a LAN, on which a daemon runs, and a neighbour: two namespaces, see [`crate::netns`].

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::netns::{self, Netns};
use crate::plugin::Plugin;

/// The box's addresses. The second is one for which the kernel chooses the first as the source.
pub const BOX: &str = "192.168.77.1/24 192.168.77.9/24 100.64.77.1/24 fd00:77::1/64 2001:db8:77::1/64";
/// The neighbour's addresses.
pub const NEIGHBOUR: &str = "192.168.77.2/24 192.168.77.3/24 100.64.77.2/24 \
                             fd00:77::2/64 fd00:77::3/64 fd00:77::4/64 2001:db8:77::2/64";

/// The neighbour.
pub struct Neighbour(Netns);

/// Runs `test` on the box: what it starts (processes, threads, sockets) is there. Prints that the test is skipped, and why,
/// if this machine has no network namespaces.
///
/// # Panics
/// As `test` does.
pub fn on_the_box(test: impl FnOnce(&Neighbour) + Send) {
    if !netns::available() {
        return;
    }
    let (home, neighbour) = (Netns::new(), Netns::new());
    home.connect("lan", BOX, &neighbour, "lan", NEIGHBOUR);
    let neighbour = Neighbour(neighbour);
    home.run(|| test(&neighbour));
}

impl Neighbour {
    /// Runs `function` on the neighbour and returns its result.
    ///
    /// # Panics
    /// If `function` does.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        self.0.run(function)
    }

    /// Connects a plugin from `source`, an address of the neighbour, without reading the greeting.
    pub fn plugin(&self, source: &str, to: SocketAddr) -> Plugin {
        let source: IpAddr = source.parse().expect("an address");
        self.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
            socket.bind(&SocketAddr::new(source, 0).into()).expect("bind");
            socket.connect(&to.into()).expect("connect to the daemon");
            Plugin::from_stream(socket.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_neighbour_reaches_every_address_of_the_box() {
        on_the_box(|lan| {
            for address in BOX.split(' ') {
                let ip: IpAddr = address.split('/').next().unwrap().parse().unwrap();
                let listener = TcpListener::bind((ip, 0)).unwrap();
                let source = if ip.is_ipv4() { "192.168.77.2" } else { "fd00:77::4" };
                lan.plugin(source, listener.local_addr().unwrap());
                assert_eq!(listener.accept().unwrap().1.ip(), source.parse::<IpAddr>().unwrap());
            }
        });
    }
}
