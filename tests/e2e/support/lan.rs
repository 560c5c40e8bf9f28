//! A daemon on the box of [`testkit::lan`], and plugins of its neighbour.

use std::net::{IpAddr, SocketAddr};

use testkit::daemon::{Builder, Daemon};
use testkit::lan::{BOX_V4, BOX_V6, Neighbour};
use testkit::plugin::Plugin;

/// A Luup that refuses.
pub(crate) const NO_LUUP: &str = "http://127.0.0.1:9";

/// `daemon` on all addresses of the box. `config` follows these settings of `[host]`.
pub(crate) fn on_all_addresses(daemon: Builder, luup: &str, config: &str) -> Builder {
    daemon.bare().config(&format!("[host]\nport=0\nvera={luup}\n{config}"))
}

/// The daemon's address on loopback.
pub(crate) fn on_loopback(daemon: &Daemon) -> SocketAddr {
    ([127, 0, 0, 1], daemon.port()).into()
}

/// The daemon's address in the network of `source`, an address of the neighbour in one of its first networks.
pub(crate) fn on_lan(daemon: &Daemon, source: &str) -> SocketAddr {
    let ip: IpAddr = if source.contains(':') { BOX_V6 } else { BOX_V4 }.parse().expect("an address");
    SocketAddr::new(ip, daemon.port())
}

/// A connection of the neighbour from `source`, and the first line that it reads.
#[track_caller]
pub(crate) fn from_neighbour(neighbour: &Neighbour, source: &str, daemon: &Daemon) -> (Plugin, String) {
    let mut plugin = neighbour.plugin(source, on_lan(daemon, source));
    let line = plugin.line();
    (plugin, line)
}
