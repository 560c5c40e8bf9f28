//! The options of CONN, ACPT and LSTN.
//!
//! Each option is declared once, in one of the tables that [`options`] lists: name, default, help and parser. HELP, CAPA
//! and the table in the documentation are made from these declarations, and [`Parameters::default`],
//! [`TlsSettings::default`], [`DatagramSettings::default`] and [`WebSocketSettings::default`] parse their default texts.

mod general;
pub(super) mod listen;
mod tls;
mod udp;
pub(super) mod values;
mod websocket;

pub(crate) use values::{block_size, time_limit};
pub(crate) use websocket::WebSocketSettings;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use super::datagram_settings::DatagramSettings;
use super::framing::Framing;
use super::heal_settings::HealSettings;
use super::listen_settings::ListenSettings;
use super::notify_target::{NotifyTarget, NotifyTargetTooLong};
use super::number;
use super::target::Target;
use super::tls_settings::TlsSettings;

/// PRTO: the transport protocol to a `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// Unconnected UDP: datagrams go to the target, and are accepted from every sender.
    Udp,
    /// TLS over TCP.
    Tls,
}

/// The protocol between the proxy and the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Protocol {
    /// The protocol for `target`. `transport` matters for a `host:port` only.
    pub(crate) fn of(target: &Target, transport: Transport) -> Self {
        match (target, transport) {
            (Target::WebSocket(url), _) if url.secure => Self::Wss,
            (Target::WebSocket(_), _) => Self::Ws,
            (Target::Endpoint(_), Transport::Tcp) => Self::Tcp,
            (Target::Endpoint(_), Transport::Udp) => Self::Udp,
            (Target::Endpoint(_), Transport::Tls) => Self::Tls,
        }
    }

    /// The name in STAT JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// True for tls and wss.
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// True for ws and wss.
    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Shortest pid of a kept connection, in bytes. The pid is a secret that must be hard to guess.
const MIN_KEPT_PID_LEN: usize = 8;

/// Everything that commands and the options of CONN can set for a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// RTIM: longest silence of the remote. `None`: no limit.
    pub receive_timeout: Option<Duration>,
    /// BLKS: largest chunk passed on at once, 1 to 65536 bytes. `None`: the proxy chooses.
    pub block_size: Option<NonZeroU32>,
    /// PACE: shortest time between two notifications of data. `None`: no limit.
    pub pace: Option<Duration>,
    /// NTFY: the Luup action to invoke. Boxed to keep sessions small.
    pub notify: Option<Box<NotifyTarget>>,
    /// PRTO: the transport protocol to a `host:port`.
    pub transport: Transport,
    /// CTIM: time limit for name resolution, connecting and the TLS handshake, in milliseconds. `None`: the configured one.
    pub connect_timeout: Option<NonZeroU32>,
    /// EVNT: notifications give their reason.
    pub events: bool,
    /// KEEP: how long the connection is kept after the plugin's own has ended. `None`: not at all.
    pub keep: Option<Duration>,
    /// FRAM: how messages are delimited on the plugin's side. `None`: the default of the protocol.
    pub framing: Option<Framing>,
    /// The options for TLS. `None`: none was given, so [`TlsSettings::default`] holds.
    pub tls: Option<Box<TlsSettings>>,
    /// The options for UDP. `None`: none was given, so [`DatagramSettings::default`] holds.
    pub datagrams: Option<Box<DatagramSettings>>,
    /// The options for WebSocket. `None`: none was given, so [`WebSocketSettings::default`] holds.
    pub websocket: Option<Box<WebSocketSettings>>,
    /// LSTN: what the plugin listens for. `None`: it does not listen.
    pub listen: Option<Box<ListenSettings>>,
    /// HEAL and HELO. `None`: neither was given.
    pub heal: Option<Box<HealSettings>>,
}

impl Default for Parameters {
    /// The parameters that the default texts of the options give.
    fn default() -> Self {
        let mut parameters = Self::UNSET;
        apply_defaults(general::OPTIONS, &mut parameters);
        parameters
    }
}

impl Parameters {
    /// Parameters to apply options to. The values of options that have a default text mean nothing yet.
    const UNSET: Self = Self {
        receive_timeout: None,
        block_size: None,
        pace: None,
        notify: None,
        transport: Transport::Tcp,
        connect_timeout: None,
        events: false,
        keep: None,
        framing: None,
        tls: None,
        datagrams: None,
        websocket: None,
        listen: None,
        heal: None,
    };

    /// The framing with a remote that speaks `protocol`.
    pub(crate) fn framing(&self, protocol: Protocol) -> Framing {
        self.framing.unwrap_or(if protocol.is_websocket() { Framing::Mesg } else { Framing::Raw })
    }

    /// Bytes of memory besides those that every session takes.
    pub(crate) fn held(&self) -> usize {
        let notify = self.notify.as_deref().map_or(0, NotifyTarget::held);
        let websocket = self.websocket.as_deref().map_or(0, |settings| size_of_val(settings) + settings.offer.held());
        let listen = self.listen.as_deref().map_or(0, ListenSettings::held);
        let heal = self.heal.as_deref().map_or(0, HealSettings::held);
        notify + websocket + listen + heal + self.tls.as_deref().map_or(0, TlsSettings::held)
    }

    /// Frees the settings that only connecting needs.
    pub(crate) fn drop_connect_settings(&mut self) {
        (self.tls, self.datagrams, self.websocket, self.heal) = (None, None, None, None);
    }

    /// CTIM, or the configured limit.
    pub(crate) fn connect_limit(&self, configured: Duration) -> Duration {
        self.connect_timeout.map_or(configured, |ms| Duration::from_millis(ms.get().into()))
    }

    /// HEAL: the longest time between two attempts to connect again. `None`: the remote's end is the connection's.
    pub(crate) fn heals(&self) -> Option<Duration> {
        self.heal.as_deref()?.max_delay
    }

    /// The pid by which ATCH finds the kept connection. It is the plugin's secret. `None`: the connection is not kept, or
    /// has no pid.
    pub(crate) fn kept_pid(&self) -> Option<&[u8]> {
        self.keep.and(self.notify.as_deref()?.pid())
    }

    /// Applies the options that follow the target of a CONN: `KEY=value`, separated by blanks. If an option is given twice,
    /// the last one holds.
    pub(crate) fn apply(&mut self, target: &Target, options: &[u8]) -> Result<(), OptionError> {
        let given = self.apply_each(options, |name| self::options().find(|spec| spec.is_named(name)))?;
        self.check(Protocol::of(target, self.transport), &given)
    }

    /// Applies the options of an ACPT, whose arrival speaks `protocol`: those of CONN that do not only concern connecting.
    pub(crate) fn apply_to_arrival(&mut self, protocol: Protocol, options: &[u8]) -> Result<(), OptionError> {
        let given =
            self.apply_each(options, |name| self::options().find(|spec| spec.is_named(name) && !spec.connects))?;
        self.check(protocol, &given)
    }

    /// Applies the options of a LSTN.
    pub(crate) fn apply_to_listener(&mut self, options: &[u8]) -> Result<(), OptionError> {
        let given = self.apply_each(options, |name| listen_options().find(|spec| spec.is_named(name)))?;
        let protocol = self.listen.as_ref().map_or(Protocol::Tcp, |settings| settings.protocol);
        match given.iter().find(|(spec, _)| !spec.scope.includes_listener(protocol)) {
            Some((spec, option)) => Err(ValueError::Invalid.into_option_error(spec, option)),
            None => Ok(()),
        }
    }

    /// Applies each option that `find` knows, and returns them with what the plugin wrote.
    fn apply_each<'o>(
        &mut self,
        options: &'o [u8],
        find: fn(&[u8]) -> Option<&'static OptionSpec>,
    ) -> Result<Vec<(&'static OptionSpec, &'o [u8])>, OptionError> {
        let mut given = Vec::new();
        for option in options.split(|&b| super::is_blank(b)).filter(|option| !option.is_empty()) {
            let unknown = || OptionError::Invalid(option.into());
            let equals = option.iter().position(|&b| b == b'=').ok_or_else(unknown)?;
            let (name, value) = (&option[..equals], &option[equals + 1..]);
            let spec = find(name).ok_or_else(|| match self::options().find(|spec| spec.is_named(name)) {
                // Another command's option may be a secret here, too.
                Some(spec) => ValueError::Invalid.into_option_error(spec, option),
                None => unknown(),
            })?;
            (spec.apply)(self, value).map_err(|error| error.into_option_error(spec, option))?;
            given.push((spec, option));
        }
        Ok(given)
    }

    /// Checks that the options that were `given` fit a connection that speaks `protocol`, and each other.
    fn check(&self, protocol: Protocol, given: &[(&OptionSpec, &[u8])]) -> Result<(), OptionError> {
        if let Some((spec, option)) = given.iter().find(|(spec, _)| !spec.scope.includes(protocol)) {
            return Err(ValueError::Invalid.into_option_error(spec, option));
        }
        if let Some(Err((name, why))) = self.datagrams.as_deref().map(DatagramSettings::check)
            && let Some((spec, option)) = given.iter().rfind(|(spec, _)| spec.name == name)
        {
            return Err(ValueError::Because(why).into_option_error(spec, option));
        }
        if let Some(keep) = self.keep
            && self.kept_pid().is_none_or(|pid| pid.len() < MIN_KEPT_PID_LEN)
        {
            return Err(OptionError::Keep(keep));
        }
        if protocol.is_websocket()
            && let Some((spec, option)) = given.iter().find(|(spec, _)| spec.name == "HELO")
            && self.heal.as_deref().is_some_and(|heal| !heal.is_text())
        {
            return Err(ValueError::Invalid.into_option_error(spec, option));
        }
        // A byte stream has no messages that the framing could delimit.
        if matches!(protocol, Protocol::Tcp | Protocol::Tls) && self.framing(protocol) != Framing::Raw {
            return Err(OptionError::Invalid(format!("FRAM={}", self.framing(protocol).name()).into_bytes().into()));
        }
        Ok(())
    }
}

/// Why the options of a CONN, ACPT or LSTN are rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OptionError {
    /// Unknown option, missing or malformed value: the option as written, or only its name if the value is a secret or too
    /// long.
    Invalid(Box<[u8]>),
    /// The same, and why.
    Explained(Box<[u8]>, &'static str),
    /// Unknown value of PRTO, in lower case.
    Protocol(Box<[u8]>),
    /// KEEP without a pid that is long enough: the value of KEEP.
    Keep(Duration),
}

impl OptionError {
    /// SUBP has `names` that cannot be chosen.
    pub(crate) fn subprotocol(names: &str) -> Self {
        Self::Invalid(format!("SUBP={names}").into_bytes().into())
    }

    /// The reason in `ERR CONN <reason>`, and in that of ACPT and LSTN. It quotes the plugin, so it need not be UTF-8.
    pub(crate) fn reason(&self) -> Vec<u8> {
        match self {
            Self::Invalid(option) => [b"Invalid option ", &option[..]].concat(),
            Self::Explained(option, why) => [b"Invalid option ", &option[..], b": ", why.as_bytes()].concat(),
            Self::Protocol(protocol) => [b"Invalid protocol ", &protocol[..]].concat(),
            Self::Keep(keep) => format!(
                "Invalid option KEEP={}: it needs NTFY with a pid of {MIN_KEPT_PID_LEN} characters or more",
                number::format(keep.as_secs_f64())
            )
            .into_bytes(),
        }
    }
}

/// Why the value of an option is rejected.
pub(super) enum ValueError {
    Invalid,
    /// Invalid, for a reason that the plugin is told.
    Because(&'static str),
    /// The error does not repeat it.
    TooLong,
    UnknownProtocol(Box<[u8]>),
}

impl ValueError {
    /// The error of `option`, which `spec` declares and the plugin wrote.
    fn into_option_error(self, spec: &OptionSpec, option: &[u8]) -> OptionError {
        match self {
            Self::UnknownProtocol(name) => OptionError::Protocol(name),
            Self::TooLong => OptionError::Invalid(spec.name.as_bytes().into()),
            Self::Invalid | Self::Because(_) if spec.is_secret => OptionError::Invalid(spec.name.as_bytes().into()),
            Self::Invalid => OptionError::Invalid(option.into()),
            Self::Because(why) => OptionError::Explained(option.into(), why),
        }
    }
}

/// The targets for which an option is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OptionScope {
    /// All targets.
    All,
    /// Targets written as `host:port`.
    Endpoints,
    /// Protocols that have messages.
    Messages,
    /// Protocols with a connection to the remote.
    Connections,
    /// UDP.
    Udp,
    /// TLS, and WebSocket, whose server may redirect to TLS.
    Tls,
    /// WebSocket URLs.
    WebSocket,
}

impl OptionScope {
    fn includes(self, protocol: Protocol) -> bool {
        match self {
            // `Parameters::apply` checks the framing itself, after all options.
            Self::All | Self::Messages => true,
            Self::Endpoints => !protocol.is_websocket(),
            Self::Connections => protocol != Protocol::Udp,
            Self::Udp => protocol == Protocol::Udp,
            Self::Tls => protocol == Protocol::Tls || protocol.is_websocket(),
            Self::WebSocket => protocol.is_websocket(),
        }
    }

    /// True if the option is one for a listener that speaks `protocol`. A listener for ws never speaks TLS.
    fn includes_listener(self, protocol: Protocol) -> bool {
        match self {
            Self::Tls => protocol.is_secure(),
            _ => self.includes(protocol),
        }
    }

    /// The word for it in HELP and in the documentation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Endpoints => "host:port",
            Self::Messages => "ws, udp",
            Self::Connections => "tcp, tls, ws",
            Self::Udp => "udp",
            Self::Tls => "tls, wss",
            Self::WebSocket => "ws, wss",
        }
    }
}

/// What holds if an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OptionDefault {
    /// This value, in the syntax of the option. The option's own parser reads it.
    Value(&'static str),
    /// No value. The text says what the proxy does instead.
    Unset(&'static str),
    /// The configured time limit for connecting (`connect=`).
    ConnectTimeout,
}

impl OptionDefault {
    /// The default as HELP and the documentation show it. `connect_timeout` is the configured one.
    pub(crate) fn text(self, connect_timeout: Duration) -> Cow<'static, str> {
        match self {
            Self::Value(text) | Self::Unset(text) => text.into(),
            Self::ConnectTimeout => (connect_timeout.as_millis() as u64).to_string().into(),
        }
    }
}

/// One option of CONN or LSTN.
pub(crate) struct OptionSpec {
    /// Four upper-case letters.
    pub name: &'static str,
    /// The syntax of the value, as HELP shows it.
    pub value: &'static str,
    /// The targets for which the option is valid.
    pub scope: OptionScope,
    /// What holds if the option is not given.
    pub default: OptionDefault,
    /// A phrase that says what the option does.
    pub help: &'static str,
    /// The words that the option adds to CAPA.
    pub capabilities: &'static [&'static str],
    /// The value never appears in replies and logs.
    pub is_secret: bool,
    /// The option only concerns how a connection is made: it is none of ACPT.
    connects: bool,
    apply: fn(&mut Parameters, &[u8]) -> Result<(), ValueError>,
}

impl OptionSpec {
    const fn new(
        name: &'static str,
        value: &'static str,
        scope: OptionScope,
        default: OptionDefault,
        help: &'static str,
        apply: fn(&mut Parameters, &[u8]) -> Result<(), ValueError>,
    ) -> Self {
        Self { name, value, scope, default, help, capabilities: &[], is_secret: false, connects: false, apply }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_bytes() == name
    }

    const fn capable(mut self, words: &'static [&'static str]) -> Self {
        self.capabilities = words;
        self
    }

    const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    const fn connects(mut self) -> Self {
        self.connects = true;
        self
    }
}

/// Applies the default texts of `options`.
fn apply_defaults(options: &[OptionSpec], parameters: &mut Parameters) {
    for option in options {
        if let OptionDefault::Value(text) = option.default {
            let is_valid = (option.apply)(parameters, text.as_bytes()).is_ok();
            debug_assert!(is_valid, "default of {}: {text}", option.name);
        }
    }
}

/// All options of CONN, those of part 1 first.
pub(crate) fn options() -> impl Iterator<Item = &'static OptionSpec> {
    [general::OPTIONS, udp::OPTIONS, tls::OPTIONS, websocket::OPTIONS].into_iter().flatten()
}

/// All options of LSTN.
pub(crate) fn listen_options() -> impl Iterator<Item = &'static OptionSpec> {
    listen::OPTIONS.iter()
}

#[cfg(test)]
mod tests;
