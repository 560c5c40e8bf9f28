//! Access control: which clients may connect or STOP ([`AccessList`]), and which targets CONN may reach ([`TargetList`],
//! [`OwnServices`]). Sans-IO, and depends on nothing.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// An IP network in CIDR notation. A single address is a network with the longest prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Parses `192.168.0.0/16`, `fe80::/10` or a single address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let max_prefix = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
                prefix.parse().ok().filter(|&p| p <= max_prefix)?
            }
            Some(_) => return None,
            None => max_prefix,
        };
        Some(Self { address, prefix })
    }

    /// True if `address` is in this network. An IPv4-mapped IPv6 address counts as the IPv4 address (RFC 4291 section
    /// 2.5.5.2).
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// A list of networks: an address is allowed if at least one network contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessList(Vec<Network>);

impl AccessList {
    /// Parses networks separated by commas or blanks, and the words `*`, `all` (every address), `loopback` and `local`.
    /// An empty list allows no address. The error is the word that cannot be parsed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut networks = Vec::new();
        for word in words(text) {
            let lists: &[&[&str]] = match word {
                "*" | "all" => &[&["0.0.0.0/0", "::/0"]],
                "loopback" => &[LOOPBACK],
                "local" => &[LOOPBACK, LOCAL],
                word => &[&[word]],
            };
            for network in lists.concat() {
                networks.push(Network::parse(network).ok_or_else(|| network.to_owned())?);
            }
        }
        Ok(Self(networks))
    }

    /// True if the list allows `address`.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Loopback addresses (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1"];
/// Private (RFC 1918), link-local (RFC 3927, RFC 4291) and unique-local (RFC 4193) addresses.
const LOCAL: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fe80::/10", "fc00::/7"];

/// How widely an address is reachable. A narrower scope compares as less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NetworkScope {
    /// This machine: loopback, and the unspecified address, which leads there.
    Loopback,
    /// Private, link-local and unique-local addresses.
    Local,
    /// Every other address.
    Public,
}

impl NetworkScope {
    /// The scope of `address`.
    pub(crate) fn of(address: IpAddr) -> Self {
        let is_in = |list: &[&str]| {
            list.iter().filter_map(|text| Network::parse(text)).any(|network| network.contains(address))
        };
        if address.to_canonical().is_unspecified() || is_in(LOOPBACK) {
            Self::Loopback
        } else if is_in(LOCAL) {
            Self::Local
        } else {
            Self::Public
        }
    }
}

/// What the proxy itself and Luup serve. A client on another machine reaches neither through the proxy: both trust
/// loopback, and every connection of the proxy comes from here.
///
/// A client on loopback reaches the proxy through itself, once: LuWS documents a function that connects through the proxy,
/// also to what our library for LuWS plugins connects to, which is the proxy. A further round would be for nothing, and
/// a chain of many CONNs would take all places.
#[derive(Debug, Default)]
pub(crate) struct OwnServices {
    /// The ports that the proxy listens on, whatever for.
    pub ports: Vec<u16>,
    /// Luup's address, unless its URL has a name, and its port.
    luup: (Option<IpAddr>, u16),
    /// The proxy's ends of its connections to itself.
    own_ends: Rc<RefCell<Vec<SocketAddr>>>,
}

/// A connection of the proxy to itself, while it lives.
#[derive(Debug)]
pub(crate) struct OwnConnection {
    end: SocketAddr,
    own_ends: Rc<RefCell<Vec<SocketAddr>>>,
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.own_ends.borrow_mut().retain(|end| *end != self.end);
    }
}

/// Where a request for a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestOrigin {
    /// A line of the configuration: the owner of the machine.
    Configuration,
    /// A client with this address.
    Client(SocketAddr),
    /// A server that has redirected a client with this address.
    Redirect(SocketAddr),
}

/// Why a connection to this machine is refused; displays as the reason of `ERR CONN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnServiceError {
    /// It leads to the proxy itself.
    Proxy,
    /// It leads to Luup, and the client is on another machine.
    Luup,
}

impl OwnServiceError {
    /// The reason of `ERR CONN`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Proxy => "connection to the proxy itself",
            Self::Luup => "connection to Luup from another machine",
        }
    }
}

impl OwnServices {
    /// The proxy listens on these `ports`, and `luup` is Luup's address, unless its URL has a name, and its port.
    pub(crate) fn new(ports: Vec<u16>, luup: (Option<IpAddr>, u16)) -> Self {
        Self { ports, luup, own_ends: Rc::default() }
    }

    /// Checks a connection to `to` that `origin` has asked for. `is_own`: true if an address is this machine's; called for
    /// the ports in question only, since it takes system calls.
    pub(crate) fn check(
        &self,
        to: SocketAddr,
        origin: RequestOrigin,
        is_own: impl Fn(SocketAddr) -> bool,
    ) -> Result<(), OwnServiceError> {
        if self.ports.contains(&to.port()) && !self.may_reach_proxy(origin) && is_own(to) {
            return Err(OwnServiceError::Proxy);
        }
        let (luup, port) = self.luup;
        // A name counts as this machine's: looking it up would block.
        let luup_is_here = || luup.is_none_or(|luup| is_own((luup, port).into()));
        match origin {
            RequestOrigin::Client(client) | RequestOrigin::Redirect(client)
                if to.port() == port && is_own(to) && !is_own(client) && luup_is_here() =>
            {
                Err(OwnServiceError::Luup)
            }
            _ => Ok(()),
        }
    }

    /// True if `client` may take over a kept connection to `port` from `plugin`. What a plugin of this machine reaches here,
    /// no client of another machine reaches by ATCH.
    pub(crate) fn may_take_over(
        &self,
        port: u32,
        plugin: SocketAddr,
        client: SocketAddr,
        is_own: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        let is_served = self.ports.iter().chain([&self.luup.1]).any(|served| u32::from(*served) == port);
        !is_served || !is_own(plugin) || is_own(client)
    }

    fn may_reach_proxy(&self, origin: RequestOrigin) -> bool {
        match origin {
            RequestOrigin::Client(client) => {
                let client = canonical(client);
                client.ip().is_loopback() && !self.own_ends.borrow().contains(&client)
            }
            RequestOrigin::Configuration | RequestOrigin::Redirect(_) => false,
        }
    }

    /// True if a connection to `to` may be one to the proxy itself. [`OwnServices::add_connection`] is to be called for it.
    pub(crate) fn is_watched(&self, to: SocketAddr) -> bool {
        self.ports.contains(&to.port())
    }

    /// The proxy has made a connection to itself, and `end` is the address of its connecting socket. Call this before
    /// anything is sent on it, so that no client comes through it unnoticed.
    ///
    /// Boxed, since hardly any connection has one.
    pub(crate) fn add_connection(&self, end: SocketAddr) -> Box<OwnConnection> {
        let end = canonical(end);
        self.own_ends.borrow_mut().push(end);
        Box::new(OwnConnection { end, own_ends: Rc::clone(&self.own_ends) })
    }
}

/// `address` as IPv4 if it is IPv4-mapped, and without the flow label and scope of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One entry of a [`TargetList`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct TargetRule {
    host: HostRule,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostRule {
    Any,
    Network(Network),
    /// A name in lower case. It is compared with the name in the CONN, not with what the resolver returns.
    Name(String),
}

/// The targets that CONN may reach. Without entries every target is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetList(Vec<TargetRule>);

impl TargetList {
    /// Parses entries separated by commas or blanks: `host`, `network`, `host:port`, `network:port` and `*:port`. An IPv6
    /// address or network with a port is written in brackets. The error is the word that cannot be parsed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        words(text)
            .map(|word| TargetRule::parse(word).ok_or_else(|| word.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// True if the list has no entries, so that every target is allowed.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a CONN to `host`, which resolved to `address`, may connect to `port` there.
    pub(crate) fn allows(&self, host: &str, address: IpAddr, port: u16) -> bool {
        self.is_open()
            || self.0.iter().any(|rule| {
                rule.port.is_none_or(|allowed| allowed == port)
                    && match &rule.host {
                        HostRule::Any => true,
                        HostRule::Network(network) => network.contains(address),
                        HostRule::Name(name) => host.eq_ignore_ascii_case(name),
                    }
            })
    }
}

impl TargetRule {
    fn parse(word: &str) -> Option<Self> {
        let (host, port) = split_port(word)?;
        let host = match host {
            "" => return None,
            "*" => HostRule::Any,
            host => match Network::parse(host) {
                Some(network) => HostRule::Network(network),
                None if host.contains(['/', ':', '*']) => return None,
                None => HostRule::Name(host.to_ascii_lowercase()),
            },
        };
        Some(Self { host, port })
    }
}

/// Splits off the port of `host:port`, `[v6]:port`, `[v6/n]:port`, `[v6]`, `host` or `v6`. `None`: a bad port or bracket.
fn split_port(word: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = word.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match word.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port.parse().ok()?))),
        _ => Some((word, None)),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses() {
        for (network, address, inside) in [
            ("192.168.0.0/16", "192.168.255.1", true),
            ("192.168.0.0/16", "192.169.0.1", false),
            ("192.168.0.0/16", "::ffff:192.168.1.1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("fe80::/10", "febf::1", true),
            ("fe80::/10", "fec0::1", false),
            ("::1", "::1", true),
        ] {
            assert_eq!(Network::parse(network).unwrap().contains(ip(address)), inside, "{network} {address}");
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/+8", "::/129", "1.2.3.4/-1"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn access_lists() {
        let local = AccessList::parse("local").unwrap();
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("192.168.1.9", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("169.254.7.7", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("8.8.8.8", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(local.allows(ip(address)), allowed, "{address}");
        }
        assert!(AccessList::parse("*").unwrap().allows(ip("2001:db8::1")));
        assert!(!AccessList::parse("").unwrap().allows(ip("127.0.0.1")));
        let two = AccessList::parse("loopback, 192.168.0.20").unwrap();
        assert!(two.allows(ip("::1")) && two.allows(ip("192.168.0.20")) && !two.allows(ip("192.168.0.21")));
        assert_eq!(AccessList::parse("127.0.0.1, here"), Err("here".into()));
    }

    #[test]
    fn network_scopes() {
        for (address, scope) in [
            ("127.3.2.1", NetworkScope::Loopback),
            ("::1", NetworkScope::Loopback),
            ("0.0.0.0", NetworkScope::Loopback),
            ("::", NetworkScope::Loopback),
            ("::ffff:127.0.0.1", NetworkScope::Loopback),
            ("192.168.1.9", NetworkScope::Local),
            ("fe80::1", NetworkScope::Local),
            ("::ffff:10.0.0.1", NetworkScope::Local),
            ("8.8.8.8", NetworkScope::Public),
            ("2001:db8::1", NetworkScope::Public),
        ] {
            assert_eq!(NetworkScope::of(ip(address)), scope, "{address}");
        }
        assert!(NetworkScope::Loopback < NetworkScope::Local && NetworkScope::Local < NetworkScope::Public);
    }

    #[test]
    fn own_services_are_refused() {
        let is_own = |address: SocketAddr| address.ip().is_loopback() || address.ip() == ip("192.168.0.1");
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (here, same, other) = ("127.0.0.1:5", "192.168.0.1:5", "192.168.0.9:5");
        let services = OwnServices::new(vec![2504, 8125], (Some(ip("127.0.0.1")), 3480));
        for (to, client, result) in [
            ("127.0.0.1:2504", other, Err(OwnServiceError::Proxy)),
            ("127.0.0.1:2504", same, Err(OwnServiceError::Proxy)),
            ("127.0.0.1:2504", here, Ok(())),
            ("192.168.0.1:8125", other, Err(OwnServiceError::Proxy)),
            ("192.168.0.9:2504", other, Ok(())),
            ("127.0.0.1:3480", here, Ok(())),
            ("192.168.0.1:3480", same, Ok(())),
            ("127.0.0.1:3480", other, Err(OwnServiceError::Luup)),
            ("192.168.0.1:3480", other, Err(OwnServiceError::Luup)),
            ("192.168.0.9:3480", other, Ok(())),
            ("127.0.0.1:80", other, Ok(())),
        ] {
            let origin = RequestOrigin::Client(address(client));
            assert_eq!(services.check(address(to), origin, is_own), result, "{client} to {to}");
        }
        let connection = services.add_connection(address("[::ffff:127.0.0.1]:5"));
        let through = RequestOrigin::Client(address(here));
        assert_eq!(services.check(address("127.0.0.1:2504"), through, is_own), Err(OwnServiceError::Proxy), "once");
        assert_eq!(services.check(address("127.0.0.1:80"), through, is_own), Ok(()));
        drop(connection);
        assert_eq!(services.check(address("127.0.0.1:2504"), through, is_own), Ok(()), "another client's port by now");
        let redirect = RequestOrigin::Redirect(address(here));
        assert_eq!(services.check(address("127.0.0.1:2504"), redirect, is_own), Err(OwnServiceError::Proxy));
        let configured = RequestOrigin::Configuration;
        assert_eq!(services.check(address("127.0.0.1:3480"), configured, is_own), Ok(()), "the owner wants it");
        assert_eq!(services.check(address("127.0.0.1:2504"), configured, is_own), Err(OwnServiceError::Proxy));
        let origin = RequestOrigin::Client(address(other));
        for (port, plugin, client, may) in [
            (2504, here, here, true),
            (2504, here, same, true),
            (2504, same, other, false),
            (3480, here, other, false),
            (3480, other, other, true),
            (80, here, other, true),
            (80 + 65536, here, other, true),
        ] {
            let taken = services.may_take_over(port, address(plugin), address(client), is_own);
            assert_eq!(taken, may, "{port}, from {plugin} to {client}");
        }
        for (luup, refused) in [(None, true), (Some(ip("192.168.0.1")), true), (Some(ip("192.168.0.9")), false)] {
            let services = OwnServices::new(vec![2504], (luup, 3480));
            let result = services.check(address("127.0.0.1:3480"), origin, is_own);
            assert_eq!(result.is_err(), refused, "Luup at {luup:?}");
        }
    }

    #[test]
    fn target_lists() {
        assert!(TargetList::default().allows("x", ip("8.8.8.8"), 1));
        let list =
            TargetList::parse("mail.example.com:25 192.168.0.0/16,*:443 [fd00::/8]:80 [::1] 10.0.0.1:7").unwrap();
        for (host, address, port, allowed) in [
            ("Mail.Example.com", "192.0.2.1", 25, true),
            ("mail.example.com", "192.0.2.1", 26, false),
            ("192.0.2.1", "192.0.2.1", 25, false),
            ("box", "192.168.3.4", 9999, true),
            ("any", "192.0.2.1", 443, true),
            ("v6", "fd00::7", 80, true),
            ("v6", "fd00::7", 81, false),
            ("v6", "::1", 81, true),
            ("h", "10.0.0.1", 7, true),
            ("h", "10.0.0.1", 8, false),
        ] {
            assert_eq!(list.allows(host, ip(address), port), allowed, "{host} {address} {port}");
        }
        for bad in ["a:b", "1.2.3.4/99", "[::1", "[::1]x", "a:99999", ":80", "*.example.com"] {
            assert_eq!(TargetList::parse(bad), Err(bad.into()), "{bad}");
        }
    }
}
