//! Access lists: any text is taken or refused, and what is taken means what a plainer reading says.
//!
//! Input: an address, a port, and the text of a list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::access::{AccessList, Network, TargetList};

use super::input::Input;

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let bytes: [u8; 16] = std::array::from_fn(|_| input.byte());
    let port = u16::from_be_bytes([input.byte(), input.byte()]);
    let v4 = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    let address = match kind % 3 {
        0 => IpAddr::V4(v4),
        1 => IpAddr::V6(v4.to_ipv6_mapped()),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let words = || text.split([',', ' ', '\t']).filter(|word| !word.is_empty());

    if let Some(network) = Network::parse(text) {
        assert_eq!(network.contains(address), holds(text, address), "{text} {address}");
        assert_eq!(network.contains(address), network.contains(address.to_canonical()), "a mapped address is v4");
    }

    match AccessList::parse(text) {
        Err(word) => assert!(words().any(|known| known == word), "{word:?} is not in the list"),
        Ok(list) => {
            let each = |word| AccessList::parse(word).expect("a part of a good list is good").allows(address);
            assert_eq!(list.allows(address), words().any(each), "{text} {address}");
            assert!(!words().any(|word| word == "*") || list.allows(address), "everybody is everybody");
        }
    }

    match TargetList::parse(text) {
        Err(word) => assert!(words().any(|known| known == word), "{word:?} is not in the list"),
        Ok(list) => {
            assert_eq!(list.is_open(), words().next().is_none());
            let host = address.to_string();
            for host in [host.as_str(), "Some.Name", "*", ""] {
                let each =
                    |word| TargetList::parse(word).expect("a part of a good list is good").allows(host, address, port);
                let allowed = list.allows(host, address, port);
                assert_eq!(allowed, list.is_open() || words().any(each), "{text} {host} {address} {port}");
                assert_eq!(allowed, list.allows(&host.to_uppercase(), address, port), "names in any case");
            }
        }
    }
}

/// Whether the network that `text` is holds `address`: bit by bit.
fn holds(text: &str, address: IpAddr) -> bool {
    let (network, prefix) = text.split_once('/').unwrap_or((text, "128"));
    let network: IpAddr = network.parse().expect("it was parsed before");
    let prefix: usize = prefix.parse().expect("it was parsed before");
    let bits = |address: IpAddr| -> Vec<bool> {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1 == 1)).collect()
    };
    let address = address.to_canonical();
    network.is_ipv4() == address.is_ipv4() && bits(network).iter().zip(bits(address)).take(prefix).all(|(a, b)| *a == b)
}
