//! The options of LSTN.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::OptionDefault::{Unset, Value};
use super::values::{decoded, lenient, list, one_of, switch, text, time_limit};
use super::{
    NotifyTarget, NotifyTargetTooLong, OptionScope, OptionSpec, Parameters, Protocol, ValueError, apply_defaults,
};
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::tls_settings::ServerTlsSettings;
use crate::websocket::handshake::{MAX_TEXTS, Offer, ServerRules};

/// Longest WAIT: clients give up earlier.
const MAX_WAIT: Duration = Duration::from_secs(600);

impl ListenSettings {
    /// The settings for `address` that the default texts of the options give.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let unset = Self {
            address,
            protocol: Protocol::Tcp,
            rules: ServerRules::default(),
            shows_head: false,
            tls: None,
            wait: Duration::ZERO,
        };
        let mut parameters = Parameters { listen: Some(Box::new(unset)), ..Parameters::UNSET };
        apply_defaults(OPTIONS, &mut parameters);
        *parameters.listen.unwrap_or_else(|| unreachable!())
    }
}

fn settings(parameters: &mut Parameters) -> &mut ListenSettings {
    // LSTN sets the address before its options are applied.
    let unset = || Box::new(ListenSettings::new((Ipv4Addr::LOCALHOST, 0).into()));
    parameters.listen.get_or_insert_with(unset)
}

fn tls(parameters: &mut Parameters) -> &mut ServerTlsSettings {
    settings(parameters).tls.get_or_insert_with(|| ServerTlsSettings { certificate: "".into(), key: None })
}

/// Parses PATH, of LSTN and of a line of `[serve]`: a path that a request may have, without a query.
pub(in crate::protocol) fn path(value: &[u8]) -> Result<Box<str>, ValueError> {
    let is_path = value.starts_with(b"/") && value.iter().all(|b| b.is_ascii_graphic() && !b"?#".contains(b));
    let path = std::str::from_utf8(value).ok().filter(|_| is_path);
    path.map(Into::into).ok_or(ValueError::Invalid)
}

/// Parses ORIG, of both: 1 to [`MAX_TEXTS`] patterns.
pub(in crate::protocol) fn origins(value: &[u8]) -> Result<Vec<Box<str>>, ValueError> {
    let patterns = list(value)?;
    if patterns.is_empty() || patterns.len() > MAX_TEXTS { Err(ValueError::Invalid) } else { Ok(patterns) }
}

/// Parses SUBP, of both. The rules are those of the SUBP of CONN.
pub(in crate::protocol) fn subprotocols(value: &[u8]) -> Result<Vec<Box<str>>, ValueError> {
    let names: Vec<_> = value.split(|&b| b == b',').map(decoded).collect::<Result<_, _>>()?;
    let mut offer = Offer::default();
    offer.set_subprotocols(names.iter().map(Vec::as_slice))?;
    Ok(offer.subprotocols)
}

/// Parses AUTH, of both: user and password. The rules are those of the AUTH of CONN.
pub(in crate::protocol) fn credentials(value: &[u8]) -> Result<(Box<str>, Box<str>), ValueError> {
    let mut offer = Offer::default();
    offer.set_auth(&decoded(value)?)?;
    offer.auth.ok_or(ValueError::Invalid)
}

/// The options of LSTN.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "PRTO",
        "tcp|tls|ws|wss",
        OptionScope::All,
        Value("tcp"),
        "what those that connect speak",
        |parameters, value| {
            let names = [Protocol::Tcp, Protocol::Tls, Protocol::Ws, Protocol::Wss].map(|name| (name.name(), name));
            settings(parameters).protocol =
                one_of(value, &names).map_err(|_| ValueError::UnknownProtocol(value.to_ascii_lowercase().into()))?;
            Ok(())
        },
    )
    .capable(&["LSTN"]),
    OptionSpec::new(
        "PATH",
        "/path",
        OptionScope::WebSocket,
        Unset("any that no other has"),
        "path of the requests to take, without a query",
        |parameters, value| {
            settings(parameters).rules.path = Some(path(value)?);
            Ok(())
        },
    ),
    OptionSpec::new(
        "ORIG",
        "pattern,...",
        OptionScope::WebSocket,
        Unset("the same host and port"),
        "origins of pages that may connect; * stands for any characters but /, alone for every origin",
        |parameters, value| {
            settings(parameters).rules.origins = Some(origins(value)?);
            Ok(())
        },
    ),
    OptionSpec::new(
        "SUBP",
        "a,b",
        OptionScope::WebSocket,
        Unset("-"),
        "subprotocols, of which a client must offer one",
        |parameters, value| {
            settings(parameters).rules.subprotocols = subprotocols(value)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "AUTH",
        "user:password",
        OptionScope::WebSocket,
        Unset("-"),
        "HTTP basic authentication that is asked for",
        |parameters, value| {
            settings(parameters).rules.credentials = Some(credentials(value)?);
            Ok(())
        },
    )
    .secret(),
    OptionSpec::new(
        "CERT",
        "file",
        OptionScope::Tls,
        Unset("-"),
        "certificate: a PEM file in the configured directory",
        |parameters, value| {
            tls(parameters).certificate = text(value)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "PKEY",
        "file",
        OptionScope::Tls,
        Unset("the file of CERT"),
        "private key of the certificate: a PEM file in the configured directory",
        |parameters, value| {
            tls(parameters).key = Some(text(value)?);
            Ok(())
        },
    ),
    OptionSpec::new(
        "NTFY",
        "dev/sid/action[/pid]",
        OptionScope::All,
        Unset("no notifications"),
        "Luup action to invoke when a connection has arrived",
        |parameters, value| {
            let target = NotifyTarget::from_option(value).map_err(|NotifyTargetTooLong| ValueError::TooLong)?;
            parameters.notify = Some(Box::new(target));
            Ok(())
        },
    ),
    OptionSpec::new(
        "WAIT",
        "seconds",
        OptionScope::All,
        Value("10"),
        "how long a connection waits for ACPT, 600 at most",
        |parameters, value| {
            lenient(value, |seconds| {
                settings(parameters).wait = time_limit(seconds, 1.0).map_or(MAX_WAIT, |wait| wait.min(MAX_WAIT));
            })
        },
    ),
    OptionSpec::new(
        "RHDR",
        "on|off",
        OptionScope::WebSocket,
        Value("off"),
        "INCO has the header of the request behind it",
        |parameters, value| {
            settings(parameters).shows_head = switch(value)?;
            Ok(())
        },
    ),
];
