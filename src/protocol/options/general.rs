//! The options of part 1 of the protocol, and the later ones that are not only for TLS or WebSocket.

use super::OptionDefault::{ConnectTimeout, Unset, Value};
use std::num::NonZeroU32;

use super::values::{MAX_CONNECT_TIMEOUT, block_size, decoded, lenient, switch, time_limit};
use super::{Framing, NotifyTarget, NotifyTargetTooLong, OptionScope, OptionSpec, Transport, ValueError};
use crate::protocol::heal_settings::OpeningTooLong;
use crate::protocol::number;

/// Longest KEEP in seconds: a day. No restart of Luup takes longer.
const MAX_KEEP_SECONDS: f64 = 86400.0;

/// Longest HEAL in seconds: an hour. A remote that is back is to be noticed some time.
const MAX_HEAL_SECONDS: f64 = 3600.0;

/// The options of part 1 come first.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "RTIM",
        "ms",
        OptionScope::All,
        Value("0"),
        "close after this much silence of the remote; 0: never",
        |parameters, value| lenient(value, |ms| parameters.receive_timeout = time_limit(ms, 0.001)),
    ),
    OptionSpec::new(
        "BLKS",
        "bytes",
        OptionScope::All,
        Unset("chosen by the proxy"),
        "largest chunk passed on at once, 1 to 65536; no limit for WebSockets",
        |parameters, value| lenient(value, |bytes| parameters.block_size = block_size(bytes)),
    ),
    OptionSpec::new(
        "NTFY",
        "dev/sid/action[/pid]",
        OptionScope::All,
        Unset("no notifications"),
        "Luup action to invoke when there is something to read",
        |parameters, value| {
            let target = NotifyTarget::from_option(value).map_err(|NotifyTargetTooLong| ValueError::TooLong)?;
            parameters.notify = Some(Box::new(target));
            Ok(())
        },
    ),
    OptionSpec::new(
        "PACE",
        "seconds",
        OptionScope::All,
        Value("0"),
        "shortest time between two notifications of data; 0: no limit",
        |parameters, value| lenient(value, |seconds| parameters.pace = time_limit(seconds, 1.0)),
    ),
    OptionSpec::new(
        "PRTO",
        "tcp|udp|tls",
        OptionScope::Endpoints,
        Value("tcp"),
        "transport protocol",
        |parameters, value| {
            let name = value.to_ascii_lowercase();
            parameters.transport = match name.as_slice() {
                b"tcp" => Transport::Tcp,
                b"udp" => Transport::Udp,
                b"tls" => Transport::Tls,
                _ => return Err(ValueError::UnknownProtocol(name.into())),
            };
            Ok(())
        },
    )
    .connects()
    .capable(&["TLS"]),
    OptionSpec::new(
        "CTIM",
        "ms",
        OptionScope::All,
        ConnectTimeout,
        "time limit for name resolution, connecting and the TLS handshake",
        |parameters, value| {
            lenient(value, |ms| {
                let limit = time_limit(ms, 0.001).unwrap_or(MAX_CONNECT_TIMEOUT).min(MAX_CONNECT_TIMEOUT);
                parameters.connect_timeout = NonZeroU32::new(limit.as_millis() as u32).or(Some(NonZeroU32::MIN));
            })
        },
    )
    .connects(),
    OptionSpec::new(
        "EVNT",
        "on|off",
        OptionScope::All,
        Value("off"),
        "notifications give their reason: Event=connected, data or closed",
        |parameters, value| {
            parameters.events = switch(value)?;
            Ok(())
        },
    )
    .capable(&["EVNT"]),
    OptionSpec::new(
        "KEEP",
        "seconds",
        OptionScope::All,
        Value("0"),
        "keep the connection for ATCH after the plugin's own has ended; needs NTFY with a pid of 8 characters or more",
        |parameters, value| {
            let seconds = number::parse(value).filter(|&seconds| seconds >= 0.0).ok_or(ValueError::Invalid)?;
            parameters.keep = time_limit(seconds.min(MAX_KEEP_SECONDS), 1.0);
            Ok(())
        },
    )
    .capable(&["KEEP"]),
    OptionSpec::new(
        "HEAL",
        "seconds",
        OptionScope::Connections,
        Unset("0"),
        "connect again when the remote has ended: after 1 s, then twice as long each time, up to this; 0: never",
        |parameters, value| {
            let seconds = number::parse(value).filter(|&seconds| seconds >= 0.0).ok_or(ValueError::Invalid)?;
            let max_delay = time_limit(seconds.min(MAX_HEAL_SECONDS), 1.0);
            parameters.heal.get_or_insert_default().max_delay = max_delay;
            Ok(())
        },
    )
    .connects()
    .capable(&["HEAL"]),
    OptionSpec::new(
        "HELO",
        "text",
        OptionScope::Connections,
        Unset("-"),
        "say this to the remote after each connect, repeatable; over ws a text message each",
        |parameters, value| {
            let heal = parameters.heal.get_or_insert_default();
            heal.add_opening(decoded(value)?).map_err(|OpeningTooLong| ValueError::TooLong)
        },
    )
    .connects()
    .secret(),
    OptionSpec::new(
        "FRAM",
        "RAW|LINE|MESG",
        OptionScope::Messages,
        Unset("MESG for ws, else RAW"),
        "how messages are delimited on the plugin's side",
        |parameters, value| {
            parameters.framing = Some(Framing::from_name(value).ok_or(ValueError::Invalid)?);
            Ok(())
        },
    )
    .capable(&["MESG", "LINE"]),
];
