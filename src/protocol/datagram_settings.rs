//! How a UDP socket is opened: BIND, JOIN and MTTL. The module `net` reads these settings.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Multicast groups that a connection may join. Linux allows a socket 20 of IPv4 (igmp_max_memberships).
pub(crate) const MAX_GROUPS: usize = 16;

/// The settings of one UDP socket. The defaults are those of the options (`options::udp`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatagramSettings {
    /// BIND: the socket's own address and port. `None`: the system chooses them.
    pub bind: Option<LocalAddress>,
    /// JOIN: the multicast groups of the socket, at most [`MAX_GROUPS`], each once.
    pub groups: Vec<Membership>,
    /// MTTL: time to live of multicasts, over IPv6 their hop limit. 1 to 255.
    pub multicast_ttl: u8,
}

/// An address and a port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// The address. `None`: all of them.
    pub address: Option<IpAddr>,
    /// The port. 0: the system chooses it.
    pub port: u16,
}

/// A multicast group on one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The group.
    pub group: IpAddr,
    /// An address of the interface. `None`: that of BIND, or else the system chooses the interface.
    pub interface: Option<IpAddr>,
}

/// Why settings, or a part of them, mean nothing: the words of `ERR CONN`, after the option.
pub(crate) type SettingsError = &'static str;

impl LocalAddress {
    /// Parses the value of BIND: `port`, `address:port` or `[address]:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, SettingsError> {
        let port =
            Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
        if let Some(port) = port {
            return Ok(Self { address: None, port });
        }
        // A zone is not needed: an address of this machine says which interface is meant.
        let socket = text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
        let socket = socket.ok_or("not a port or address:port")?;
        if socket.ip().is_multicast() {
            return Err("a multicast address, which is for JOIN");
        }
        Ok(Self { address: Some(socket.ip().to_canonical()), port: socket.port() })
    }

    /// The address if it belongs to one interface.
    pub(crate) fn interface(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }
}

impl Membership {
    /// Parses one value of JOIN: `group` or `group@address`.
    pub(crate) fn parse(text: &str) -> Result<Self, SettingsError> {
        let (group, interface) = match text.split_once('@') {
            Some((group, interface)) => (group, Some(interface)),
            None => (text, None),
        };
        let group = group.parse::<IpAddr>().ok().filter(IpAddr::is_multicast).ok_or("not a multicast address")?;
        let interface = match interface.map(str::parse::<IpAddr>) {
            None => None,
            Some(Ok(address)) if !address.is_unspecified() && !address.is_multicast() => Some(address),
            Some(_) => return Err("not an address after the @"),
        };
        Ok(Self { group, interface })
    }
}

impl DatagramSettings {
    /// Sets the groups to those that JOIN lists. Each is joined once.
    pub(crate) fn set_groups(&mut self, list: &[Box<str>]) -> Result<(), SettingsError> {
        self.groups.clear();
        for item in list {
            let membership = Membership::parse(item)?;
            if !self.groups.contains(&membership) {
                self.groups.push(membership);
            }
        }
        match self.groups.len() {
            0 => Err("no group"),
            1..=MAX_GROUPS => Ok(()),
            _ => Err("more than 16 groups"),
        }
    }

    /// True for IPv6, false for IPv4. `None`: the settings name no address.
    pub(crate) fn is_ipv6(&self) -> Option<bool> {
        let group = self.groups.first().map(|membership| membership.group);
        self.bind.and_then(|bind| bind.address).or(group).map(|address| address.is_ipv6())
    }

    /// Checks what several options say together. The error has the name of the option that is at fault.
    pub(crate) fn check(&self) -> Result<(), (&'static str, SettingsError)> {
        // The kernel hands a multicast to the sockets of its port, and no sender knows a port that the system chose.
        if !self.groups.is_empty() && self.bind.is_none_or(|bind| bind.port == 0) {
            return Err(("JOIN", "it needs BIND with a port"));
        }
        let family = self.is_ipv6();
        for membership in &self.groups {
            let is_other = |address: IpAddr| Some(address.is_ipv6()) != family;
            if is_other(membership.group) || membership.interface.is_some_and(is_other) {
                return Err(("JOIN", "IPv4 and IPv6 together"));
            }
        }
        Ok(())
    }
}

/// As the plugin writes it.
impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "BIND={}", SocketAddr::new(address, self.port)),
            None => write!(f, "BIND={}", self.port),
        }
    }
}

/// As the plugin writes it.
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JOIN={}", self.group)?;
        self.interface.map_or(Ok(()), |interface| write!(f, "@{interface}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bind: &str, groups: &[&str]) -> DatagramSettings {
        let bind = (!bind.is_empty()).then(|| LocalAddress::parse(bind).unwrap());
        let groups = groups.iter().map(|group| Membership::parse(group).unwrap()).collect();
        DatagramSettings { bind, groups, ..DatagramSettings::default() }
    }

    #[test]
    fn own_addresses() {
        for (text, address, port) in [
            ("1900", None, 1900),
            ("0", None, 0),
            ("192.0.2.1:0", Some("192.0.2.1"), 0),
            ("0.0.0.0:5683", Some("0.0.0.0"), 5683),
            ("[2001:db8::1]:5353", Some("2001:db8::1"), 5353),
            ("[::]:1", Some("::"), 1),
        ] {
            let address = address.map(|address| address.parse().unwrap());
            let parsed = LocalAddress::parse(text).unwrap();
            assert_eq!(parsed, LocalAddress { address, port }, "{text}");
            assert_eq!(parsed.to_string(), format!("BIND={text}"));
        }
        for bad in ["", "+1", "-1", "65536", "x", "192.0.2.1", "192.0.2.1:", "::1:80", "[fe80::1%2]:80", "host:80"] {
            assert_eq!(LocalAddress::parse(bad), Err("not a port or address:port"), "{bad}");
        }
        assert!(LocalAddress::parse("239.1.2.3:80").is_err());
        assert_eq!(LocalAddress::parse("0.0.0.0:1").unwrap().interface(), None);
    }

    #[test]
    fn groups() {
        for text in ["239.255.255.250", "224.0.0.251@192.0.2.1", "ff02::fb", "ff02::fb@fe80::1"] {
            assert_eq!(Membership::parse(text).unwrap().to_string(), format!("JOIN={text}"));
        }
        for bad in ["", "x", "192.0.2.1", "223.255.255.255", "240.0.0.0", "fe80::1", "@192.0.2.1"] {
            assert_eq!(Membership::parse(bad), Err("not a multicast address"), "{bad}");
        }
        for bad in ["224.0.0.251@", "224.0.0.251@eth0", "224.0.0.251@0.0.0.0", "224.0.0.251@224.0.0.1"] {
            assert_eq!(Membership::parse(bad), Err("not an address after the @"), "{bad}");
        }
    }

    #[test]
    fn the_number_of_groups_is_bounded_and_each_is_joined_once() {
        let mut settings = DatagramSettings::default();
        let groups = |count: usize| (0..count).map(|n| format!("224.1.1.{n}").into()).collect::<Vec<Box<str>>>();
        assert_eq!(settings.set_groups(&[groups(MAX_GROUPS), groups(MAX_GROUPS)].concat()), Ok(()));
        assert_eq!(settings.groups.len(), MAX_GROUPS);
        let why = settings.set_groups(&groups(MAX_GROUPS + 1)).unwrap_err();
        assert!(why.contains(&MAX_GROUPS.to_string()), "{why}");
        assert_eq!(settings.set_groups(&[]), Err("no group"));
    }

    #[test]
    fn groups_need_a_port_and_one_family() {
        for (bind, groups, is_ipv6) in [
            ("", &[][..], None),
            ("1900", &[], None),
            ("192.0.2.1:0", &[], Some(false)),
            ("1900", &["239.255.255.250"], Some(false)),
            ("192.0.2.1:1900", &["239.255.255.250@192.0.2.2", "224.0.0.1"], Some(false)),
            ("[::]:5353", &["ff02::fb@fe80::1"], Some(true)),
        ] {
            let settings = settings(bind, groups);
            assert_eq!((settings.check(), settings.is_ipv6()), (Ok(()), is_ipv6), "{bind} {groups:?}");
        }
        for (bind, groups, why) in [
            ("", &["239.255.255.250"][..], "it needs BIND with a port"),
            ("192.0.2.1:0", &["239.255.255.250"], "it needs BIND with a port"),
            ("1900", &["239.255.255.250", "ff02::c"], "IPv4 and IPv6 together"),
            ("1900", &["239.255.255.250@::1"], "IPv4 and IPv6 together"),
            ("[::]:1900", &["239.255.255.250"], "IPv4 and IPv6 together"),
        ] {
            assert_eq!(settings(bind, groups).check(), Err(("JOIN", why)), "{bind} {groups:?}");
        }
    }
}
