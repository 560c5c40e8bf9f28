//! One place that a CONN leads to, and where a redirect may lead from there.

use std::net::SocketAddr;
use std::time::Instant;

use crate::access::{NetworkScope, RequestOrigin};
use crate::client::ClientKey;
use crate::net::network::Network;
use crate::net::resolver::{ResolveResult, literal};
use crate::protocol::connect_error::ConnectError;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::{Endpoint, Target};
use crate::session::context::SessionContext;
use crate::tls::TlsSettings;
use crate::websocket::handshake::{ErrorCode, HandshakeError, Url, UrlError};

/// One place that a CONN leads to.
#[derive(Debug)]
pub(super) struct Hop {
    /// Where it is, for people.
    pub target: Target,
    /// The host and the port that are connected to.
    pub endpoint: Endpoint,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// When it must be connected to, TLS included (CTIM).
    pub due: Instant,
    /// The plugin's credentials are for this host, too.
    pub trusted: bool,
    /// Redirects that may still be followed.
    redirects: u32,
    /// Addresses in a more private scope are refused: a public server must not have this machine connect to a service that
    /// only this machine can reach, such as Luup's.
    min_scope: NetworkScope,
    /// Where it was connected to.
    address: Option<SocketAddr>,
}

/// Where a redirect leads, if it may be followed.
fn follow(from: &Url, location: &str, left: u32) -> Result<Url, HandshakeError> {
    if left == 0 {
        return Err(HandshakeError::new(ErrorCode::RedirectMax, "redirected too often"));
    }
    let to = from.join(location)?;
    if from.secure && !to.secure {
        return Err(HandshakeError::new(ErrorCode::RedirectMax, "redirected from wss to ws"));
    }
    Ok(to)
}

/// When a connection that begins now must be made (CTIM).
fn connect_due<N: Network>(parameters: &Parameters, cx: &SessionContext<'_, N>) -> Instant {
    cx.now + parameters.connect_limit(cx.config.limits.connect)
}

/// The scope of `address`. Every address of this machine is in the scope of loopback.
fn scope_of(address: SocketAddr, network: &impl Network) -> NetworkScope {
    match NetworkScope::of(address.ip()) {
        NetworkScope::Local | NetworkScope::Public if network.is_own_address(address) => NetworkScope::Loopback,
        scope => scope,
    }
}

/// Those of `addresses` that are in `scope` or a wider one.
fn at_or_beyond(mut addresses: Vec<SocketAddr>, scope: NetworkScope, network: &impl Network) -> Vec<SocketAddr> {
    if scope > NetworkScope::Loopback {
        addresses.retain(|address| scope_of(*address, network) >= scope);
    }
    addresses
}

impl Hop {
    /// Where the plugin wants to go. `redirects`: how many may be followed.
    pub(super) fn first<N: Network>(
        target: Target,
        redirects: u32,
        parameters: &Parameters,
        cx: &SessionContext<'_, N>,
    ) -> Self {
        Self::new(target, redirects, true, NetworkScope::Loopback, parameters, cx)
    }

    /// Where the server here redirects to. Credentials go no farther than the server's own host.
    pub(super) fn redirected<N: Network>(
        &self,
        location: &str,
        parameters: &Parameters,
        cx: &SessionContext<'_, N>,
    ) -> Result<Self, HandshakeError> {
        let Target::WebSocket(from) = &self.target else { return Err(UrlError::Schema.into()) };
        let to = follow(from, location, self.redirects)?;
        let trusted = self.trusted && to.same_host(from);
        let scope = self.address.map_or(NetworkScope::Public, |address| scope_of(address, cx.network));
        Ok(Self::new(Target::WebSocket(to), self.redirects - 1, trusted, scope, parameters, cx))
    }

    fn new<N: Network>(
        target: Target,
        redirects: u32,
        trusted: bool,
        min_scope: NetworkScope,
        parameters: &Parameters,
        cx: &SessionContext<'_, N>,
    ) -> Self {
        let protocol = Protocol::of(&target, parameters.transport);
        let due = connect_due(parameters, cx);
        let endpoint = target.endpoint();
        Self { target, endpoint, protocol, due, trusted, redirects, min_scope, address: None }
    }

    /// It is connected to again, with a new time limit.
    pub(super) fn renew<N: Network>(&mut self, parameters: &Parameters, cx: &SessionContext<'_, N>) {
        (self.due, self.address) = (connect_due(parameters, cx), None);
    }

    /// It was connected to at `address`.
    pub(super) fn handle_connected(&mut self, address: SocketAddr) {
        self.address = Some(address);
    }

    /// What is asked of TLS here. The plugin's certificate identifies the plugin, and SNIH is a name of the host that it
    /// wrote: both are for that host alone.
    pub(super) fn tls_settings(&self, parameters: &Parameters) -> TlsSettings {
        let settings = parameters.tls.as_deref().cloned().unwrap_or_default();
        if self.trusted {
            return settings;
        }
        TlsSettings { certificate: None, private_key: None, server_name: None, ..settings }
    }

    /// Looks its addresses up, for `origin`. Some if they are known at once.
    pub(super) fn resolve<N: Network>(
        &self,
        origin: RequestOrigin,
        cx: &mut SessionContext<'_, N>,
    ) -> Option<ResolveResult> {
        // The owner's names count as loopback's.
        let client = match origin {
            RequestOrigin::Configuration => ClientKey::Loopback,
            RequestOrigin::Client(address) | RequestOrigin::Redirect(address) => ClientKey::of(address.ip()),
        };
        match self.endpoint.literal() {
            Some(address) => Some(Ok(vec![literal(address)])),
            None => cx.resolver.resolve(&self.endpoint.host, cx.key, client),
        }
    }

    /// The addresses, with the port, to which this CONN of `origin` may go: at least one.
    pub(super) fn reachable<N: Network>(
        &self,
        found: Vec<SocketAddr>,
        origin: RequestOrigin,
        cx: &SessionContext<'_, N>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        // LuaSocket reports an invalid port as connection refused.
        let port = self.endpoint.reachable_port().ok_or(ConnectError::could_not_connect("connection refused"))?;
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| cx.config.targets.allows(&self.endpoint.host, address.ip(), port))
            .map(|mut address| {
                address.set_port(port);
                address
            })
            .collect();
        if allowed.is_empty() {
            return Err(ConnectError::could_not_connect("Target not allowed"));
        }
        let mut reachable = at_or_beyond(allowed, self.min_scope, cx.network);
        if reachable.is_empty() {
            return Err(ConnectError::could_not_connect("redirected to an address that is nearer"));
        }
        // The listeners are for TCP.
        if self.protocol != Protocol::Udp {
            let mut refusal = None;
            reachable.retain(|&to| {
                let checked = cx.own.check(to, origin, |address| cx.network.is_own_address(address));
                refusal = refusal.or(checked.err());
                checked.is_ok()
            });
            if let Some(refusal) = refusal.filter(|_| reachable.is_empty()) {
                return Err(ConnectError::could_not_connect(refusal.reason()));
            }
        }
        Ok(reachable)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::testing::network::SimNetwork;

    #[test]
    fn a_redirect_leads_to_no_address_that_is_nearer() {
        let mut network = SimNetwork::default();
        network
            .own
            .extend(["192.168.1.9", "fd00::9", "100.64.0.9", "2001:db8::9"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let all: Vec<SocketAddr> = [
            "127.0.0.1:3480",
            "192.168.1.9:80",
            "[fd00::9]:80",
            "100.64.0.9:80",
            "[2001:db8::9]:80",
            "192.168.1.8:80",
            "[fd00::1]:80",
            "8.8.8.8:80",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        assert_eq!(at_or_beyond(all.clone(), NetworkScope::Public, &network), all[7..]);
        assert_eq!(at_or_beyond(all.clone(), NetworkScope::Local, &network), all[5..]);
        assert_eq!(at_or_beyond(all.clone(), NetworkScope::Loopback, &network), all);
    }
}
