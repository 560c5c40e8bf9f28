//! [`StatusConfig`]: the section `[status]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::access::AccessList;

/// The section `[status]`. See [`super::settings::SETTINGS`] for the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusConfig {
    /// The port of the pages. `None`: there are none.
    pub port: Option<u16>,
    /// The address to listen on: `*`, or a literal address without brackets.
    pub address: Box<str>,
    /// Clients that may connect.
    pub allow: AccessList,
    /// Names by which the port may be called, in lower case, besides addresses and `localhost`.
    pub hosts: Vec<Box<str>>,
}

impl StatusConfig {
    /// True if a port of these pages cannot be one of another listener at `address`, too: both have an address in common. A name
    /// may have any; the start tells.
    pub(crate) fn shares_addresses_with(&self, address: &str) -> bool {
        let is_any = |address: &str| matches!(address, "*" | "0.0.0.0" | "::" | "[::]");
        is_any(address) || is_any(&self.address) || *self.address == *address
    }

    /// Parses the value of `address`. No name: looking it up would block the loop when the configuration is read anew.
    pub(super) fn parse_address(text: &str) -> Option<Box<str>> {
        let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        (literal == "*" || literal.parse::<IpAddr>().is_ok()).then(|| literal.into())
    }

    /// Parses the value of `hosts`: names separated by commas or blanks. An error is one that is none.
    pub(super) fn parse_hosts(text: &str) -> Result<Vec<Box<str>>, String> {
        let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        words
            .map(|word| match word.bytes().all(is_name) {
                true => Ok(word.to_ascii_lowercase().into()),
                false => Err(format!("'{word}' is not a name of a host")),
            })
            .collect()
    }

    /// True if `host` of the header Host is an address, `localhost` or one of the names, with or without a port.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let Some((address, port)) = rest.split_once(']') else { return false };
                if address.parse::<Ipv6Addr>().is_err() {
                    return false;
                }
                (None, port)
            }
            None => {
                let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
                (Some(name), port)
            }
        };
        // RFC 9110 section 7.2: uri-host [ ":" port ].
        let port = if port.is_empty() { Some("") } else { port.strip_prefix(':') };
        let has_port = port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let is_known = name.is_none_or(|name| {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.parse::<Ipv4Addr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || self.hosts.iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        has_port && is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_host_is_an_address_localhost_or_one_of_the_names() {
        let mut config = Config::default().status;
        assert!(config.has_host("box") == config.has_host("box.lan") && !config.has_host("box"));
        config.hosts = StatusConfig::parse_hosts("Box, vera.lan").unwrap();
        for host in [
            "127.0.0.1",
            "192.168.0.5:8127",
            "[::1]",
            "[::1]:8127",
            "[fe80::1]:1",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "box",
            "BOX:8127",
            "vera.lan",
        ] {
            assert!(config.has_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8127",
            "127.0.0.1.evil.example",
            "127.0.0.1:80@evil",
            "[::1",
            "[::1]x",
            "[evil]",
            "::1",
            "localhost.evil",
            "localhost:x",
            "box.evil",
            "1.2.3",
            "0x7f.1",
            ":80",
        ] {
            assert!(!config.has_host(host), "{host}");
        }
    }

    #[test]
    fn addresses_are_literal_and_hosts_are_names() {
        for (text, parsed) in
            [("*", Some("*")), ("127.0.0.1", Some("127.0.0.1")), ("[::1]", Some("::1")), ("::", Some("::"))]
        {
            assert_eq!(StatusConfig::parse_address(text).as_deref(), parsed);
        }
        for text in ["", "localhost", "1.2.3", "[*"] {
            assert_eq!(StatusConfig::parse_address(text), None, "{text}");
        }
        assert_eq!(StatusConfig::parse_hosts(" , ").unwrap(), []);
        for text in ["a:80", "http://a", "a/b", "*"] {
            assert!(StatusConfig::parse_hosts(text).is_err(), "{text}");
        }
    }
}
