//! One place that a CONN leads to, and where a redirect may lead from there.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Context;
use crate::net::access::Distance;
use crate::net::resolver::{Answer, literal};
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::{Endpoint, Target};
use crate::tls::TlsSettings;
use crate::websocket::handshake::{ErrorCode, HandshakeError, Url, UrlError};

/// One place that a CONN leads to.
#[derive(Debug)]
pub struct Hop {
    /// Where it is, for people.
    pub target: Target,
    /// The host and the port that are connected to.
    pub endpoint: Endpoint,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// When it must be connected to, TLS included (CTIM).
    pub due: Instant,
    /// What the plugin has entrusted is for this host, too.
    pub trusted: bool,
    /// Redirects that may still be followed.
    redirects: u32,
    /// How near it may be. A server far away must not have us knock at doors that only we can reach: Luup's, say.
    nearest: Distance,
    /// How far away it is. What is not connected to counts as far away.
    distance: Distance,
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

/// Those of `addresses` that are as far away as `nearest`, or farther.
fn not_nearer(mut addresses: Vec<SocketAddr>, nearest: Distance) -> Vec<SocketAddr> {
    addresses.retain(|address| Distance::of(address.ip()) >= nearest);
    addresses
}

impl Hop {
    /// Where the plugin wants to go. `redirects`: how many may be followed.
    pub fn first(target: Target, redirects: u32, parameters: &Parameters, cx: &Context<'_>) -> Self {
        Self::new(target, (redirects, true, Distance::Machine), parameters, cx)
    }

    /// Where the server here redirects to. What it is entrusted with goes no farther than its own host.
    pub fn redirected(
        &self,
        location: &str,
        parameters: &Parameters,
        cx: &Context<'_>,
    ) -> Result<Self, HandshakeError> {
        let Target::WebSocket(from) = &self.target else { return Err(UrlError::Schema.into()) };
        let to = follow(from, location, self.redirects)?;
        let trusted = self.trusted && to.same_host(from);
        Ok(Self::new(Target::WebSocket(to), (self.redirects - 1, trusted, self.distance), parameters, cx))
    }

    fn new(
        target: Target,
        (redirects, trusted, nearest): (u32, bool, Distance),
        parameters: &Parameters,
        cx: &Context<'_>,
    ) -> Self {
        let protocol = Protocol::of(&target, parameters.transport);
        let due = cx.now + parameters.connect_timeout.unwrap_or(cx.config.limits.connect);
        let endpoint = target.endpoint();
        Self { target, endpoint, protocol, due, trusted, redirects, nearest, distance: Distance::World }
    }

    /// It was found at `address`.
    pub fn handle_connected(&mut self, address: IpAddr) {
        self.distance = Distance::of(address);
    }

    /// What is asked of TLS here. The plugin's certificate says who it is, and SNIH is a name of the plugin's host: both
    /// are for that alone.
    pub fn tls_settings(&self, parameters: &Parameters) -> TlsSettings {
        let settings = parameters.tls.as_deref().cloned().unwrap_or_default();
        if self.trusted {
            return settings;
        }
        TlsSettings { certificate: None, private_key: None, server_name: None, ..settings }
    }

    /// Its addresses, where they are known at once.
    pub fn find(&self, cx: &mut Context<'_>) -> Option<Answer> {
        match self.endpoint.literal() {
            Some(address) => Some(Ok(vec![literal(address)])),
            None => cx.resolver.ask(&self.endpoint.host, cx.key),
        }
    }

    /// The addresses, with the port, to which this CONN may go. There is one at least.
    pub fn reachable(&self, found: Vec<SocketAddr>, cx: &Context<'_>) -> Result<Vec<SocketAddr>, &'static str> {
        // As LuaSocket has it: nobody listens there.
        let port = self.endpoint.reachable_port().ok_or("connection refused")?;
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| cx.config.targets.allows(&self.endpoint.host, address.ip(), port))
            .map(|mut address| {
                address.set_port(port);
                address
            })
            .collect();
        if allowed.is_empty() {
            return Err("Target not allowed");
        }
        let far = not_nearer(allowed, self.nearest);
        if far.is_empty() { Err("redirected to an address that is nearer") } else { Ok(far) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_no_address_that_is_nearer() {
        let all: Vec<SocketAddr> =
            ["127.0.0.1:3480", "192.168.1.9:80", "[fd00::1]:80", "8.8.8.8:80"].map(|text| text.parse().unwrap()).into();
        assert_eq!(not_nearer(all.clone(), Distance::World), all[3..]);
        assert_eq!(not_nearer(all.clone(), Distance::House), all[1..]);
        assert_eq!(not_nearer(all.clone(), Distance::Machine), all);
    }
}
