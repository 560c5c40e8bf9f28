//! The options for UDP.

use super::OptionDefault::{Unset, Value};
use super::values::{list, text};
use super::{OptionScope, OptionSpec, Parameters, ValueError, apply_defaults};
use crate::protocol::datagram_settings::{DatagramSettings, LocalAddress};
use crate::protocol::number;

impl Default for DatagramSettings {
    /// The settings that the default texts of the options give.
    fn default() -> Self {
        let unset = Self { bind: None, groups: Vec::new(), multicast_ttl: 0 };
        let mut parameters = Parameters { datagrams: Some(Box::new(unset)), ..Parameters::UNSET };
        apply_defaults(OPTIONS, &mut parameters);
        *parameters.datagrams.unwrap_or_else(|| unreachable!())
    }
}

fn settings(parameters: &mut Parameters) -> &mut DatagramSettings {
    parameters.datagrams.get_or_insert_default()
}

/// The options for UDP.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "BIND",
        "[address:]port",
        OptionScope::Udp,
        Unset("chosen by the system"),
        "own address and port, to which others may send unasked",
        |parameters, value| {
            settings(parameters).bind = Some(LocalAddress::parse(&text(value)?).map_err(ValueError::Because)?);
            Ok(())
        },
    )
    .connects()
    .capable(&["MCST"]),
    OptionSpec::new(
        "JOIN",
        "group[@address][,...]",
        OptionScope::Udp,
        Unset("-"),
        "multicast groups to receive, on the interface that has the address; needs BIND with a port",
        |parameters, value| {
            let groups = list(value)?;
            settings(parameters).set_groups(&groups).map_err(ValueError::Because)
        },
    )
    .connects(),
    OptionSpec::new(
        "MTTL",
        "1..255",
        OptionScope::Udp,
        Value("2"),
        "time to live of multicasts; over IPv6, their hop limit",
        |parameters, value| {
            let ttl = number::parse(value).filter(|ttl| (1.0..=255.0).contains(ttl) && ttl.fract() == 0.0);
            settings(parameters).multicast_ttl = ttl.ok_or(ValueError::Invalid)? as u8;
            Ok(())
        },
    )
    .connects(),
];
