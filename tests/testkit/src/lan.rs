//! A box on a LAN, on which a daemon runs, and a neighbour: two namespaces, see [`crate::netns`].

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::netns::{self, Netns};
use crate::plugin::Plugin;

/// The box's address in the network of [`NEIGHBOUR_V4`].
pub const BOX_V4: &str = "192.168.77.1";
/// The box's address in the network of [`NEIGHBOUR_V6`].
pub const BOX_V6: &str = "fd00:77::1";
/// All addresses of the box. The second is one for which the kernel chooses the first as the source.
pub const BOX: [&str; 5] = [BOX_V4, "192.168.77.9", "100.64.77.1", BOX_V6, "2001:db8:77::1"];
/// The neighbour's addresses, as of several machines.
pub const NEIGHBOUR_V4: [&str; 5] = ["192.168.77.2", "192.168.77.3", "192.168.77.4", "192.168.77.5", "192.168.77.6"];
/// The same over IPv6, in one network of 64 bits.
pub const NEIGHBOUR_V6: [&str; 5] = ["fd00:77::2", "fd00:77::3", "fd00:77::4", "fd00:77::5", "fd00:77::6"];
/// The neighbour's addresses in the other networks of the box.
const NEIGHBOUR_ELSEWHERE: [&str; 2] = ["100.64.77.2", "2001:db8:77::2"];

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
    connect(&home, &neighbour);
    let neighbour = Neighbour(neighbour);
    home.run(|| test(&neighbour));
}

/// Connects two namespaces by a LAN: the box and its neighbour, with these addresses.
///
/// # Panics
/// If ip(8) refuses.
#[track_caller]
pub fn connect(home: &Netns, neighbour: &Netns) {
    let with_length = |address: &&str| format!("{address}/{} ", if address.contains(':') { 64 } else { 24 });
    let here: String = BOX.iter().map(with_length).collect();
    let there: String =
        [&NEIGHBOUR_V4[..], &NEIGHBOUR_V6, &NEIGHBOUR_ELSEWHERE].concat().iter().map(with_length).collect();
    home.connect("lan", &here, neighbour, "lan", &there);
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
            for address in BOX {
                let ip: IpAddr = address.parse().unwrap();
                let listener = TcpListener::bind((ip, 0)).unwrap();
                let source = if ip.is_ipv4() { NEIGHBOUR_V4[0] } else { NEIGHBOUR_V6[2] };
                lan.plugin(source, listener.local_addr().unwrap());
                assert_eq!(listener.accept().unwrap().1.ip(), source.parse::<IpAddr>().unwrap());
            }
        });
    }
}
