//! All settings, each declared once: section, key, form of the value, default, and what it is for and costs.

use std::path::PathBuf;
use std::time::Duration;

use super::{Config, LogTarget};
use crate::access::{AccessList, TargetList};
use crate::protocol::tls_settings::TlsVerify;

/// One setting of the configuration file.
pub struct Setting {
    /// The section, in lower case.
    pub section: &'static str,
    /// The key, in lower case.
    pub key: &'static str,
    /// The form of its value.
    pub value: &'static str,
    /// The value that holds where it is not given.
    pub default: &'static str,
    /// The value that the bare key means, where it may stand alone.
    pub bare: Option<&'static str>,
    /// What it is for, what it costs, and why its default is what it is.
    pub help: &'static str,
    pub(super) apply: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    const fn new(
        section: &'static str,
        key: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
        apply: fn(&mut Config, &str) -> Result<(), String>,
    ) -> Self {
        Self { section, key, value, default, bare: None, help, apply }
    }

    const fn bare(mut self, value: &'static str) -> Self {
        self.bare = Some(value);
        self
    }
}

/// All settings, in the order of the sample configuration.
pub static SETTINGS: &[Setting] = &[
    Setting::new(
        "host",
        "ip",
        "address",
        "*",
        "The address on which the proxy listens; * is all of them, IPv6 where there is any.",
        |c, v| {
            c.address = v.to_owned();
            if v.is_empty() { Err("an address is needed".into()) } else { Ok(()) }
        },
    ),
    Setting::new("host", "port", "number", "2504", "The port of setup mode. Plugins expect 2504.", |c, v| {
        number(v, 0, 65535).map(|n| c.port = n as u16)
    }),
    Setting::new(
        "host",
        "vera",
        "url",
        "http://127.0.0.1:3480",
        "Where Luup takes its requests: http, or https for one behind TLS (see luup below).",
        |c, v| {
            c.luup = base_url(v)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "log",
        "file|syslog|stderr",
        "stderr",
        "Where the log goes. On a box, prefer syslog or a file in /tmp: flash wears out.",
        |c, v| {
            c.log = match v {
                "" => return Err("a file, syslog or stderr is needed".into()),
                "-" | "stderr" => LogTarget::Stderr,
                "syslog" => LogTarget::Syslog,
                file => LogTarget::File(file.into()),
            };
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "logmax",
        "bytes",
        "262144",
        "Largest log file, together with the one before it (.old); /tmp is memory. 0 is no bound.",
        |c, v| number(v, 0, u64::MAX >> 1).map(|n| c.log_max = n),
    ),
    Setting::new(
        "host",
        "debug",
        "on|off",
        "off",
        "Log everything that is done. Costs a system call or two for each event.",
        |c, v| switch(v).map(|on| c.debug = on),
    )
    .bare("on"),
    Setting::new(
        "host",
        "allow",
        "networks",
        "local",
        "Who may connect: addresses and networks (10.0.0.0/8), local (loopback, private, link-local and unique-local ones), loopback, or *. Whoever may connect may reach what this box can reach.",
        |c, v| {
            c.allow = AccessList::parse(v).map_err(no_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "stop",
        "networks",
        "loopback",
        "Who may end the proxy by STOP; the same words as for allow.",
        |c, v| {
            c.stop = AccessList::parse(v).map_err(no_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "targets",
        "hosts",
        "",
        "Where CONN may go: names, addresses and networks, each with :port or without, and *:port. Empty: anywhere.",
        |c, v| {
            c.targets = TargetList::parse(v).map_err(|word| format!("'{word}' is no host, network or port"))?;
            Ok(())
        },
    ),
    Setting::new(
        "limits",
        "connections",
        "number",
        "1024",
        "Connections in all. An idle one costs about 1.5 KiB here and two descriptors; the limit of descriptors is raised as far as it goes.",
        |c, v| number(v, 1, 200_000).map(|n| c.limits.connections = n as usize),
    ),
    Setting::new(
        "limits",
        "peraddress",
        "number",
        "256",
        "Connections from one address; loopback is exempt, since the whole house lives there.",
        |c, v| number(v, 1, 200_000).map(|n| c.limits.per_address = n as usize),
    ),
    Setting::new(
        "limits",
        "line",
        "bytes",
        "16384",
        "Longest line in setup mode. No sensible CONN is longer.",
        |c, v| number(v, 512, 65536).map(|n| c.limits.line = n as usize),
    ),
    Setting::new("limits", "setup", "seconds", "30", "Longest silence in setup mode.", |c, v| {
        seconds(v).map(|d| c.limits.setup = d)
    }),
    Setting::new(
        "limits",
        "halfclose",
        "seconds",
        "5",
        "When one side has ended, the other may go on; so long without a byte, and both are closed. A device that takes one session is held no longer by a plugin that has gone.",
        |c, v| seconds(v).map(|d| c.limits.half_close = d),
    ),
    Setting::new(
        "limits",
        "stall",
        "seconds",
        "300",
        "What a device has left behind waits so long for a plugin that does not read. Luup may be busy for minutes.",
        |c, v| seconds(v).map(|d| c.limits.stall = d),
    ),
    Setting::new(
        "limits",
        "idle",
        "seconds",
        "0",
        "Longest silence of both sides in echo mode; 0 is no limit, as plugins expect.",
        |c, v| seconds_or_none(v).map(|d| c.limits.idle = d),
    ),
    Setting::new(
        "limits",
        "buffer",
        "bytes",
        "65536",
        "Bytes held for one direction of one connection whose reader is slow. What is full stops reading.",
        |c, v| number(v, 2048, 1 << 24).map(|n| c.limits.buffer = n as usize),
    ),
    Setting::new(
        "limits",
        "buffers",
        "bytes",
        "4194304",
        "Bytes held in all. When they are used up, every connection may still hold 2 KiB, so that none waits for another.",
        |c, v| number(v, 65536, 1 << 31).map(|n| c.limits.buffers = n as usize),
    ),
    Setting::new(
        "limits",
        "kept",
        "number",
        "64",
        "Connections made with KEEP=, with a plugin attached or without.",
        |c, v| number(v, 0, 200_000).map(|n| c.limits.kept = n as usize),
    ),
    Setting::new(
        "limits",
        "history",
        "bytes",
        "65536",
        "Bytes of a kept connection (KEEP=) that are kept after they were handed over, for a plugin that comes back and says what it has read. In all they may take half as much as 'buffers', beyond that 2 KiB each.",
        |c, v| number(v, 0, 1 << 24).map(|n| c.limits.history = n as usize),
    ),
    Setting::new(
        "limits",
        "connect",
        "ms",
        "4500",
        "Time for finding a name, connecting and TLS, where CTIM= says nothing. Plugins wait 5 s.",
        |c, v| number(v, 1, 600_000).map(|n| c.limits.connect = Duration::from_millis(n)),
    ),
    Setting::new(
        "limits",
        "resolvers",
        "number",
        "8",
        "Names looked up at once; each is a thread while it lasts (about 20 KiB).",
        |c, v| number(v, 1, 64).map(|n| c.limits.resolvers = n as usize),
    ),
    Setting::new(
        "limits",
        "notices",
        "number",
        "1024",
        "Closing notices kept for a Luup that is away; each is about 0.5 KiB.",
        |c, v| number(v, 1, 1_000_000).map(|n| c.limits.notices = n as usize),
    ),
    Setting::new(
        "limits",
        "senders",
        "number",
        "16",
        "Notifications sent at once; each is a thread while it is needed (about 30 KiB). Devices that hang take at most half of them.",
        |c, v| number(v, 1, 64).map(|n| c.limits.senders = n as usize),
    ),
    Setting::new("limits", "answer", "ms", "5000", "Time for Luup's answer to a notification.", |c, v| {
        number(v, 100, 600_000).map(|n| c.limits.answer = Duration::from_millis(n))
    }),
    Setting::new(
        "limits",
        "pipes",
        "number",
        "16",
        "Pipes for bulk transfers, which then never pass through this process: two descriptors and at most 256 KiB of kernel memory each, while in use. 0 turns that off.",
        |c, v| number(v, 0, 1024).map(|n| c.limits.pipes = n as usize),
    ),
    Setting::new(
        "limits",
        "keepalive",
        "seconds",
        "60",
        "Silence after which TCP asks whether the other end is still there; 0 never.",
        |c, v| seconds_or_none(v).map(|d| c.limits.keep_alive = d),
    ),
    Setting::new(
        "tls",
        "ca",
        "file",
        "",
        "A file of certificates (PEM) that are trusted in addition to the built-in ones of Mozilla: your own authority's, so that VRFY=peer accepts your devices.",
        |c, v| {
            c.tls.ca = path(v);
            Ok(())
        },
    ),
    Setting::new(
        "tls",
        "directory",
        "directory",
        "/etc/sockproxyd.d",
        "Where the files lie that plugins may name by CAFL=, CERT= and PKEY=. Whoever may connect may use them, and none outside of it. It is not there until you make it; empty: plugins may name none.",
        |c, v| {
            c.tls.directory = path(v);
            Ok(())
        },
    ),
    Setting::new(
        "tls",
        "luup",
        "verify|none|sha256/<hex>[,...]",
        "verify",
        "How a Luup at https:// proves who it is: by a certificate that is valid and for its name, with the authorities above; not at all; or by having exactly one of these certificates. The log says what is wrong with another, and what to write here to accept it.",
        |c, v| {
            c.tls.luup = match v {
                "verify" => TlsVerify::Peer,
                "none" => TlsVerify::None,
                pins => TlsVerify::pinned(pins.split(',').map(str::trim))
                    .ok_or("verify, none or sha256/ and 64 hexadecimal digits are needed")?,
            };
            Ok(())
        },
    ),
];

/// Longest time that a setting can have: ten years, which can be added to an instant without overflow.
const MAX_SECONDS: f64 = 10.0 * 365.0 * 86400.0;

fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a whole number from {least} to {most} is needed"))
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS);
    let duration = seconds.map(Duration::from_secs_f64).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "seconds above 0 are needed".into())
}

fn seconds_or_none(text: &str) -> Result<Option<Duration>, String> {
    if text.parse() == Ok(0.0) { Ok(None) } else { seconds(text).map(Some) }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(true),
        "off" | "no" | "false" | "0" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

fn no_network(word: String) -> String {
    format!("'{word}' is no address or network")
}

/// A base URL without a slash at its end.
fn base_url(text: &str) -> Result<String, String> {
    let wrong = || String::from("a URL such as http://127.0.0.1:3480 is needed");
    let url = text.trim_end_matches('/');
    let uri: ureq::http::Uri = url.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
    // The type takes any digits for a port, and silently cuts off a fragment.
    let has_port = authority.as_str().len() > authority.host().len();
    let is_base = uri.query().is_none() && !url.contains('#') && (!has_port || uri.port_u16().is_some());
    match scheme {
        "http" | "https" if is_base && !authority.host().is_empty() => Ok(url.to_owned()),
        _ => Err(wrong()),
    }
}
