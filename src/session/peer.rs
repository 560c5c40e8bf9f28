//! [`Peer`]: the plugin or remote whose connection a session began with.

use std::net::{IpAddr, SocketAddr};

/// The peer that has made the connection which a session began with. The session is counted at its address.
#[derive(Debug)]
pub(super) enum Peer {
    /// The plugin, or the client of a port of the configuration.
    Plugin(SocketAddr),
    /// A remote that has connected to a plugin's listener. Boxed, to keep the sessions of others small.
    Remote(Box<Arrival>),
}

/// A remote that has connected to a plugin's listener.
#[derive(Debug)]
pub(super) struct Arrival {
    address: SocketAddr,
    /// The address of the plugin that has accepted it.
    plugin: Option<IpAddr>,
}

impl Peer {
    /// A remote that no plugin has accepted yet.
    pub(super) fn remote(address: SocketAddr) -> Self {
        Self::Remote(Box::new(Arrival { address, plugin: None }))
    }

    /// The address of the peer, as the socket gives it.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Plugin(address) => *address,
            Self::Remote(arrival) => arrival.address,
        }
    }

    /// The plugin's address, IPv4 if it is v4-mapped. That of the remote while no plugin has accepted it.
    pub(super) fn plugin(&self) -> IpAddr {
        match self {
            Self::Plugin(address) => address.ip().to_canonical(),
            Self::Remote(arrival) => arrival.plugin.unwrap_or_else(|| arrival.address.ip().to_canonical()),
        }
    }

    /// True of a remote that has connected to a plugin's listener.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// The plugin has another connection from now on, from the address `plugin`. Returns the address at which the session that
    /// gave this connection up is to be counted: each connection is counted once.
    pub(super) fn replace_plugin(&mut self, plugin: SocketAddr) -> SocketAddr {
        match self {
            Self::Plugin(address) => std::mem::replace(address, plugin),
            // It stays counted at the remote's address.
            Self::Remote(arrival) => {
                arrival.plugin = Some(plugin.ip().to_canonical());
                plugin
            }
        }
    }
}
