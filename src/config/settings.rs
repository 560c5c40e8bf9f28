//! The declarations of all settings: section, key, syntax of the value, default, help with costs, and parser.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::base_url::parse_base_url;
use super::{Config, LogTarget, StatusConfig};
use crate::access::{AccessList, TargetList};
use crate::protocol;
use crate::protocol::tls_settings::TlsVerify;

/// One setting of the configuration file.
pub(crate) struct Setting {
    /// The section, in lower case.
    pub section: &'static str,
    /// The key, in lower case.
    pub key: &'static str,
    /// The syntax of the value.
    pub value: &'static str,
    /// The value if the key is not given.
    pub default: &'static str,
    /// The value of the bare key. `None`: the key needs a value.
    pub bare: Option<&'static str>,
    /// What the setting does, what it costs, and why the default is what it is.
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
pub(crate) static SETTINGS: &[Setting] = &[
    Setting::new(
        "host",
        "ip",
        "address",
        "*",
        "Address to listen on. * means all addresses: IPv4 and, if the system has it, IPv6.",
        |c, v| {
            c.address = v.to_owned();
            if v.is_empty() { Err("an address is needed".into()) } else { Ok(()) }
        },
    ),
    Setting::new("host", "port", "number", "2504", "Port of setup mode. Plugins expect 2504.", |c, v| {
        number(v, 0, 65535).map(|n| c.port = n as u16)
    }),
    Setting::new(
        "host",
        "vera",
        "url",
        "http://127.0.0.1:3480",
        "Base URL of Luup: http, or https if Luup is behind TLS (see luup below).",
        |c, v| {
            c.luup = parse_base_url(v).ok_or("a URL such as http://127.0.0.1:3480 is needed")?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "log",
        "file|syslog|stderr",
        "stderr",
        "Destination of the log. On a router, prefer syslog or a file in /tmp: flash memory wears out.",
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
        "Largest size of the log file and its predecessor (.old) together. /tmp is in RAM. 0: no limit.",
        |c, v| number(v, 0, u64::MAX >> 1).map(|n| c.log_max = n),
    ),
    Setting::new(
        "host",
        "debug",
        "on|off",
        "off",
        "Log debug messages: a line for each notification, and a few for each connection.",
        |c, v| switch(v).map(|on| c.debug = on),
    )
    .bare("on"),
    Setting::new(
        "host",
        "allow",
        "networks",
        "local",
        "Clients that may connect: addresses and networks (10.0.0.0/8), local (loopback, private, link-local and unique-local addresses), loopback, or *. Such a client can reach whatever this machine can reach.",
        |c, v| {
            c.allow = AccessList::parse(v).map_err(not_a_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "stop",
        "networks",
        "loopback",
        "Clients that may stop the proxy with STOP, and end any connection with DROP, in the syntax of allow.",
        |c, v| {
            c.stop = AccessList::parse(v).map_err(not_a_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "trace",
        "on|off",
        "on",
        "Clients that may say STOP may see what passes on a connection, with TRAC.",
        |c, v| switch(v).map(|on| c.trace = on),
    ),
    Setting::new(
        "host",
        "listen",
        "networks",
        "loopback",
        "Clients that may open ports, with LSTN and over UDP with BIND, in the syntax of allow. The clients of a port of LSTN must be in allow.",
        |c, v| {
            c.listen = AccessList::parse(v).map_err(not_a_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "host",
        "targets",
        "hosts",
        "",
        "Targets that CONN may reach: names, addresses and networks, each with or without :port, and *:port. Empty: all targets.",
        |c, v| {
            c.targets = TargetList::parse(v).map_err(|word| format!("'{word}' is not a host, network or port"))?;
            Ok(())
        },
    ),
    Setting::new(
        "limits",
        "connections",
        "number",
        "1024",
        "Connections in total. An idle one takes 0.7 kB of memory (ws 1.5 kB, wss 6 kB) and two descriptors. The proxy raises its limit of descriptors as far as the system allows. An eighth of the places, 16 at least but no more than half, is for loopback alone.",
        |c, v| number(v, 1, 200_000).map(|n| c.limits.connections = n as usize),
    ),
    Setting::new(
        "limits",
        "peraddress",
        "number",
        "256",
        "Connections from one IPv4 address, or from one IPv6 network of 64 bits, all of whose addresses a host may use. Loopback is exempt, because the plugins on this machine share it.",
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
        "After one side has ended, the other may continue until this time passes without a byte. The limit frees devices that accept a single connection from plugins that have gone.",
        |c, v| seconds(v).map(|d| c.limits.half_close = d),
    ),
    Setting::new(
        "limits",
        "stall",
        "seconds",
        "300",
        "How long the last bytes of a remote that has ended wait for a plugin that does not read. Luup may be busy for minutes.",
        |c, v| seconds(v).map(|d| c.limits.stall = d),
    ),
    Setting::new(
        "limits",
        "idle",
        "seconds",
        "0",
        "Longest silence of both sides in echo mode. 0: no limit, as plugins expect.",
        |c, v| seconds_or_none(v).map(|d| c.limits.idle = d),
    ),
    Setting::new(
        "limits",
        "buffer",
        "bytes",
        "65536",
        "Bytes held for each direction of a connection whose reader is slow. If they are used up, the proxy stops reading.",
        |c, v| number(v, 2048, 1 << 24).map(|n| c.limits.buffer = n as usize),
    ),
    Setting::new(
        "limits",
        "buffers",
        "auto|bytes",
        "auto",
        "Bytes held in total, a compressed WebSocket's 43 KiB for inflation included. A connection may hold as much as is left free. If nothing is, each direction may still hold 1 KiB, and the largest holder of messages that stands still is closed for those that need more. auto: a sixteenth of the machine's memory, 4 MiB at least and 64 MiB at most.",
        |c, v| {
            c.limits.buffers = match v {
                "auto" => buffers_for(total_memory()),
                bytes => number(bytes, 65536, 1 << 31).map_err(|error| format!("auto or {error}"))? as usize,
            };
            Ok(())
        },
    ),
    Setting::new(
        "limits",
        "kept",
        "number",
        "64",
        "Connections made with KEEP=, with or without an attached plugin. A client on another machine may make half of them, and all such clients together three quarters.",
        |c, v| number(v, 0, 200_000).map(|n| c.limits.kept = n as usize),
    ),
    Setting::new(
        "limits",
        "history",
        "bytes",
        "65536",
        "Bytes of a kept connection (KEEP=) that are held after the plugin has received them, for a plugin that comes back and says how much it has read. In total they may take half of 'buffers'; beyond that, 1 KiB for each connection.",
        |c, v| number(v, 0, 1 << 24).map(|n| c.limits.history = n as usize),
    ),
    Setting::new(
        "limits",
        "connect",
        "ms",
        "4500",
        "Time limit for name resolution, connecting and TLS, if CTIM= is not given. Plugins wait 5 s.",
        |c, v| number(v, 1, 600_000).map(|n| c.limits.connect = Duration::from_millis(n)),
    ),
    Setting::new(
        "limits",
        "resolvers",
        "number",
        "8",
        "Names looked up at once. Each lookup takes a thread (about 20 KiB). Names that have not answered a plugin of this machine get half of them, and a quarter if other machines ask. One more is for the names in /etc/hosts.",
        |c, v| number(v, 1, 64).map(|n| c.limits.resolvers = n as usize),
    ),
    Setting::new(
        "limits",
        "notices",
        "number",
        "1024",
        "Closing notices held while Luup does not answer. Those with a long NTFY count for more: they take 256 bytes each on average at most.",
        |c, v| number(v, 1, 1_000_000).map(|n| c.limits.notices = n as usize),
    ),
    Setting::new(
        "limits",
        "senders",
        "number",
        "16",
        "Notifications sent at once. Each takes a thread (about 30 KiB). Devices that do not answer take at most half of them, new ones at most three quarters.",
        |c, v| number(v, 1, 64).map(|n| c.limits.senders = n as usize),
    ),
    Setting::new("limits", "answer", "ms", "5000", "Time limit for Luup's answer to a notification.", |c, v| {
        number(v, 100, 600_000).map(|n| c.limits.answer = Duration::from_millis(n))
    }),
    Setting::new(
        "limits",
        "pipes",
        "number",
        "16",
        "Pipes for bulk transfers, whose bytes then stay in the kernel. Each takes two descriptors, and up to 256 KiB of kernel memory while in use. 0: no pipes.",
        |c, v| number(v, 0, 1024).map(|n| c.limits.pipes = n as usize),
    ),
    Setting::new(
        "limits",
        "keepalive",
        "seconds",
        "30",
        "Silence after which TCP probes whether the peer is still there, a quarter of 'lost' at most. 0: never; a peer that vanishes is then noticed only if something is sent to it.",
        |c, v| seconds_or_none(v).map(|d| c.limits.keep_alive = d),
    ),
    Setting::new(
        "limits",
        "lost",
        "seconds",
        "120",
        "Time after which a plugin or remote that answers nothing counts as lost: neither bytes that wait for its acknowledgement nor probes. One that answers and reads nothing is not lost; if it has read nothing for minutes and then vanishes, that is known up to 120 s later. An outage of the network of up to a third of this time ends no connection. 10 to 900. 0: no limit but the kernel's, some 15 minutes.",
        |c, v| {
            c.limits.lost = match seconds_or_none(v)? {
                Some(lost) if !LOST_RANGE.contains(&lost) => return Err("0, or 10 to 900 seconds are needed".into()),
                lost => lost,
            };
            Ok(())
        },
    ),
    Setting::new(
        "tls",
        "ca",
        "file",
        "",
        "File of certificates (PEM) to trust in addition to the built-in roots of Mozilla, such as that of your own authority, so that VRFY=peer accepts your devices.",
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
        "Directory of the files that plugins may name with CAFL=, CERT= and PKEY=. Every client that may connect can use them, and no file outside. Create the directory if you need it. Empty: plugins may name no files.",
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
        "How the certificate of a Luup at https:// is verified: its chain (with the authorities above), name and validity period; not at all; or its fingerprint, which must be one of those listed. If a certificate is rejected, the log gives the reason, and what to write here to accept it.",
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
    Setting::new(
        "status",
        "port",
        "number",
        "0",
        "Port of the status for browsers and monitoring, over HTTP: / is a page, /status.json is STAT JSON, /metrics is for Prometheus. No request changes anything. 0: none.",
        |c, v| number(v, 0, 65535).map(|n| c.status.port = (n != 0).then_some(n as u16)),
    ),
    Setting::new(
        "status",
        "address",
        "address",
        "127.0.0.1",
        "Address that this port listens on: a literal one, or * for all addresses.",
        |c, v| {
            c.status.address = StatusConfig::parse_address(v).ok_or("a literal address or * is needed")?;
            Ok(())
        },
    ),
    Setting::new(
        "status",
        "allow",
        "networks",
        "local",
        "Clients that may connect to this port, in the syntax of allow in [host], which does not apply to it.",
        |c, v| {
            c.status.allow = AccessList::parse(v).map_err(not_a_network)?;
            Ok(())
        },
    ),
    Setting::new(
        "status",
        "hosts",
        "names",
        "",
        "Names by which browsers may call this port, besides addresses and localhost. All others are refused, so that no foreign page can read the status by a name that it has resolve to this machine.",
        |c, v| {
            c.status.hosts = StatusConfig::parse_hosts(v)?;
            Ok(())
        },
    ),
];

/// Below, a few lost segments would end a connection. Above, the kernel's own limit ends it first (tcp_retries2 in tcp(7):
/// 924 s at least).
const LOST_RANGE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(900);

/// Bytes of the machine's memory; 0 if the kernel does not say.
fn total_memory() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total())
}

/// The automatic bound on bytes held in total, for a machine with `memory` bytes. A sixteenth leaves Luup its memory: the
/// smallest boxes have 64 MiB. On a large machine slow readers gain nothing beyond 64 MiB.
fn buffers_for(memory: u64) -> usize {
    const MIN_BUFFERS: u64 = 4 << 20;
    const MAX_BUFFERS: u64 = 64 << 20;
    (memory / 16).clamp(MIN_BUFFERS, MAX_BUFFERS) as usize
}

/// Longest time that a setting can have: ten years, which can be added to an instant without overflow.
pub(crate) const MAX_SECONDS: f64 = 10.0 * 365.0 * 86400.0;

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("a whole number from {min} to {max} is needed"))
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = protocol::number::parse(text.as_bytes()).filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS);
    let duration = seconds.map(Duration::from_secs_f64).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "seconds above 0 are needed".into())
}

fn seconds_or_none(text: &str) -> Result<Option<Duration>, String> {
    if protocol::number::parse(text.as_bytes()) == Some(0.0) { Ok(None) } else { seconds(text).map(Some) }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(true),
        "off" | "no" | "false" | "0" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

fn not_a_network(word: String) -> String {
    format!("'{word}' is not an address or network")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_the_memory_of_the_machine() {
        const MIB: u64 = 1 << 20;
        for (memory, buffers) in [(0, 4), (32, 4), (64, 4), (128, 8), (250, 15), (1024, 64), (65_536, 64)] {
            assert!((buffers_for(memory * MIB) as u64).abs_diff(buffers * MIB) < MIB, "{memory} MiB");
        }
        let mut config = Config::default();
        assert_eq!(config.limits.buffers, buffers_for(total_memory()));
        config.apply_text("f", b"[limits]\nbuffers=4194304\n").unwrap();
        assert_eq!(config.limits.buffers, 4 << 20);
        config.apply_text("f", b"[limits]\nbuffers=auto\n").unwrap();
        assert_eq!(config.limits.buffers, buffers_for(total_memory()));
        let error = config.apply_text("f", b"[limits]\nbuffers=x\n").unwrap_err().to_string();
        let expected = "f:2: bad value 'x' for 'buffers': auto or a whole number from 65536 to 2147483648 is needed";
        assert_eq!(error, expected);
    }
}
