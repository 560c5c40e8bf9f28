//! The options that part 1 of the protocol has, and ours that are not about one kind of target.

use super::values::{LONGEST_CONNECT, block_size, lenient, limit, one_of};
use super::{Framing, NotifyTarget, OptionSpec, Refused, Targets, Transport};
use crate::protocol::number;

/// A kept connection is kept no longer than this: a day, in seconds. Nobody restarts that slowly.
const LONGEST_KEEP: f64 = 86400.0;

/// Part 1's first.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "RTIM",
        "ms",
        Targets::All,
        "0",
        "close when the remote has been silent that long; 0 never",
        |parameters, value| lenient(value, |ms| parameters.receive_timeout = limit(ms, 0.001)),
    ),
    OptionSpec::new(
        "BLKS",
        "bytes",
        Targets::All,
        "as is fastest",
        "largest chunk handed over at once, 1 to 65536",
        |parameters, value| lenient(value, |bytes| parameters.block = block_size(bytes)),
    ),
    OptionSpec::new(
        "NTFY",
        "dev/sid/action[/pid]",
        Targets::All,
        "nobody is notified",
        "invoke this action when there is something to read",
        |parameters, value| {
            parameters.notify = Some(Box::new(NotifyTarget::from_option(value)));
            Ok(())
        },
    ),
    OptionSpec::new(
        "PACE",
        "seconds",
        Targets::All,
        "0",
        "shortest time between two notifications of data; 0 none",
        |parameters, value| lenient(value, |seconds| parameters.pace = limit(seconds, 1.0)),
    ),
    OptionSpec::new("PRTO", "tcp|udp|tls", Targets::Endpoints, "tcp", "what carries the bytes", |parameters, value| {
        let name = value.to_ascii_lowercase();
        parameters.transport = match name.as_slice() {
            b"tcp" => Transport::Tcp,
            b"udp" => Transport::Udp,
            b"tls" => Transport::Tls,
            _ => return Err(Refused::Transport(name.into())),
        };
        Ok(())
    })
    .capable(&["TLS"]),
    OptionSpec::new(
        "CTIM",
        "ms",
        Targets::All,
        "4500",
        "time for finding the name, connecting and TLS",
        |parameters, value| {
            lenient(value, |ms| parameters.connect_timeout = Some(limit(ms, 0.001).unwrap_or(LONGEST_CONNECT)))
        },
    ),
    OptionSpec::new(
        "EVNT",
        "on|off",
        Targets::All,
        "off",
        "notifications say why: Event=connected, data or closed",
        |parameters, value| {
            parameters.events = one_of(value, &[("on", true), ("off", false)])?;
            Ok(())
        },
    )
    .capable(&["EVNT"]),
    OptionSpec::new(
        "KEEP",
        "seconds",
        Targets::All,
        "0",
        "outlive the plugin's connection, to be found again by ATCH; needs NTFY with a pid of 8 characters or more",
        |parameters, value| {
            let seconds = number::parse(value).filter(|&seconds| seconds >= 0.0).ok_or(Refused::Value)?;
            parameters.keep = limit(seconds.min(LONGEST_KEEP), 1.0);
            Ok(())
        },
    )
    .capable(&["KEEP"]),
    OptionSpec::new(
        "FRAM",
        "RAW|LINE|MESG",
        Targets::Messages,
        "MESG for ws, else RAW",
        "how messages are told apart on the plugin's side",
        |parameters, value| {
            parameters.framing = Some(Framing::from_name(value).ok_or(Refused::Value)?);
            Ok(())
        },
    )
    .capable(&["MESG", "LINE"]),
];
