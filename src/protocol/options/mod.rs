//! The options of CONN. Each is declared once, in one of the tables that [`options`] lists: the parser, HELP, CAPA and
//! the table of the README come from there.

mod general;
mod tls;
mod values;
mod websocket;

pub use values::{block_size, limit};
pub use websocket::Bridge;

use std::time::Duration;

use super::framing::Framing;
use super::notify::NotifyTarget;
use super::target::Target;
use crate::tls::TlsSettings;

/// What carries the bytes to a `host:port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A TCP stream.
    #[default]
    Tcp,
    /// Unconnected UDP: datagrams go to the target, answers are taken from anyone.
    Udp,
    /// TLS over TCP.
    Tls,
}

/// What is spoken with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A TCP stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// TLS.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Protocol {
    /// What is spoken with `target` over `transport`. A URL says it by itself.
    pub fn of(target: &Target, transport: Transport) -> Self {
        match (target, transport) {
            (Target::WebSocket(url), _) if url.secure => Self::Wss,
            (Target::WebSocket(_), _) => Self::Ws,
            (Target::Endpoint(_), Transport::Tcp) => Self::Tcp,
            (Target::Endpoint(_), Transport::Udp) => Self::Udp,
            (Target::Endpoint(_), Transport::Tls) => Self::Tls,
        }
    }

    /// Its name in STAT JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// True where messages are spoken over a stream.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// A kept connection's pid has so many bytes at least, so that nobody hits it by chance.
const KEPT_PID_LEAST: usize = 8;

/// Everything that commands and options of CONN can set for a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// RTIM: the longest silence of the remote. `None`: no limit.
    pub receive_timeout: Option<Duration>,
    /// BLKS: the largest chunk handed over at once, 1 to 65536 bytes. `None`: as is fastest.
    pub block: Option<u32>,
    /// PACE: the shortest time between two notifications of data. `None`: no limit.
    pub pace: Option<Duration>,
    /// NTFY: whom to tell. Boxed, since most of a connection's life nobody looks at it.
    pub notify: Option<Box<NotifyTarget>>,
    /// PRTO.
    pub transport: Transport,
    /// CTIM: time for the name and the connection. `None`: the configured default.
    pub connect_timeout: Option<Duration>,
    /// EVNT: notifications say why they come.
    pub events: bool,
    /// KEEP: how long the connection outlives the plugin's. `None`: not at all.
    pub keep: Option<Duration>,
    /// FRAM: messages on the plugin's side. `None`: the target's default.
    pub framing: Option<Framing>,
    /// The options for TLS, where any was given.
    pub tls: Option<Box<TlsSettings>>,
    /// The options for WebSocket, where any was given.
    pub bridge: Option<Box<Bridge>>,
}

impl Parameters {
    /// The framing in force with a remote that speaks `protocol`.
    pub fn framing(&self, protocol: Protocol) -> Framing {
        self.framing.unwrap_or(if protocol.is_websocket() { Framing::Mesg } else { Framing::Raw })
    }

    /// The remote is connected: what was only needed for that is forgotten.
    pub fn handle_connected(&mut self) {
        (self.tls, self.bridge) = (None, None);
    }

    /// The name by which the plugin finds a kept connection again. It is a secret that only the plugin knows.
    pub fn kept_pid(&self) -> Option<&[u8]> {
        self.keep.and(self.notify.as_deref()?.pid())
    }

    /// Applies the options that follow `target`, `KEY=value` separated by blanks. The last of two equal ones holds.
    pub fn apply(&mut self, target: &Target, options: &[u8]) -> Result<(), OptionError> {
        let mut given = Vec::new();
        for option in options.split(|&b| super::is_blank(b)).filter(|option| !option.is_empty()) {
            let unknown = || OptionError::Invalid(option.into());
            let equals = option.iter().position(|&b| b == b'=').ok_or_else(unknown)?;
            let (name, value) = (&option[..equals], &option[equals + 1..]);
            let spec = self::options().find(|spec| spec.name.as_bytes() == name).ok_or_else(unknown)?;
            (spec.apply)(self, value).map_err(|refused| refused.of(spec, option))?;
            given.push((spec, option));
        }
        let protocol = Protocol::of(target, self.transport);
        if let Some((spec, option)) = given.into_iter().find(|(spec, _)| !spec.targets.include(protocol)) {
            return Err(Refused::Value.of(spec, option));
        }
        if let Some(keep) = self.keep
            && self.kept_pid().is_none_or(|pid| pid.len() < KEPT_PID_LEAST)
        {
            return Err(OptionError::Keep(keep));
        }
        // Framing a stream of which nothing marks the messages would invent them.
        if matches!(protocol, Protocol::Tcp | Protocol::Tls) && self.framing(protocol) != Framing::Raw {
            return Err(OptionError::Invalid(format!("FRAM={}", self.framing(protocol).name()).into_bytes().into()));
        }
        Ok(())
    }
}

/// Why the options of a CONN are refused; displays as the reason that `ERR CONN` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// No such option, no value, or a value that is none: the option as written, of a secret one its name.
    Invalid(Box<[u8]>),
    /// A protocol that is not spoken, in lower case.
    Protocol(Box<[u8]>),
    /// KEEP without a pid that nobody else would think of.
    Keep(Duration),
}

impl OptionError {
    /// The reason, as bytes, since a plugin may write any.
    pub fn reason(&self) -> Vec<u8> {
        match self {
            Self::Invalid(option) => [b"Invalid option ", &option[..]].concat(),
            Self::Protocol(protocol) => [b"Invalid protocol ", &protocol[..]].concat(),
            Self::Keep(keep) => format!(
                "Invalid option KEEP={}: it needs NTFY with a pid of {KEPT_PID_LEAST} characters or more",
                keep.as_secs_f64()
            )
            .into_bytes(),
        }
    }
}

/// Why one option's value is refused.
enum Refused {
    Value,
    Transport(Box<[u8]>),
}

impl Refused {
    /// The refusal of `option`, which is one of `spec`.
    fn of(self, spec: &OptionSpec, option: &[u8]) -> OptionError {
        match self {
            Self::Transport(name) => OptionError::Protocol(name),
            Self::Value if spec.secret => OptionError::Invalid(spec.name.as_bytes().into()),
            Self::Value => OptionError::Invalid(option.into()),
        }
    }
}

/// For which targets an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every one.
    All,
    /// Those that are written as host and port.
    Endpoints,
    /// Those that mark where a message ends.
    Messages,
    /// Those that speak TLS, or may be redirected to one that does.
    Tls,
    /// URLs.
    WebSocket,
}

impl Targets {
    fn include(self, protocol: Protocol) -> bool {
        match self {
            // With a stream, framing has its own say.
            Self::All | Self::Messages => true,
            Self::Endpoints => !protocol.is_websocket(),
            Self::Tls => protocol == Protocol::Tls || protocol.is_websocket(),
            Self::WebSocket => protocol.is_websocket(),
        }
    }

    /// As HELP and the README say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Endpoints => "host:port",
            Self::Messages => "ws, udp",
            Self::Tls => "tls, wss",
            Self::WebSocket => "ws, wss",
        }
    }
}

/// One option of CONN.
pub struct OptionSpec {
    /// Four upper-case letters.
    pub name: &'static str,
    /// The form of its value, as HELP prints it.
    pub value: &'static str,
    /// Which targets it is for.
    pub targets: Targets,
    /// What holds where it is not given.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What CAPA says where this option is there; part 1's options have none.
    pub capabilities: &'static [&'static str],
    /// Its value is never repeated to anybody.
    pub secret: bool,
    apply: fn(&mut Parameters, &[u8]) -> Result<(), Refused>,
}

impl OptionSpec {
    const fn new(
        name: &'static str,
        value: &'static str,
        targets: Targets,
        default: &'static str,
        help: &'static str,
        apply: fn(&mut Parameters, &[u8]) -> Result<(), Refused>,
    ) -> Self {
        Self { name, value, targets, default, help, capabilities: &[], secret: false, apply }
    }

    const fn capable(mut self, of: &'static [&'static str]) -> Self {
        self.capabilities = of;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// All options of CONN, part 1's first.
pub fn options() -> impl Iterator<Item = &'static OptionSpec> {
    [general::OPTIONS, tls::OPTIONS, websocket::OPTIONS].into_iter().flatten()
}

#[cfg(test)]
mod tests;
