//! The configuration: from files and command-line options to a validated [`Config`].
//!
//! Each setting is declared once, in [`settings::SETTINGS`], with its parser, default and help. The [`sample`]
//! configuration is made from these declarations. Depends on `access` and `protocol`.

mod base_url;
mod file;
pub(crate) mod sample;
pub(crate) mod settings;
mod status;

pub(crate) use status::StatusConfig;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use file::ReadTime;

use crate::access::{AccessList, TargetList};
use crate::protocol::command::parse_connect;
use crate::protocol::framing::Framing;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::reply;
use crate::protocol::serve_settings::ServeSettings;
use crate::protocol::target::Target;
use crate::protocol::tls_settings::{ServerTlsSettings, TlsVerify};

/// Lines of `[direct]`, and of `[serve]`. Each may take a descriptor, and a number in a token.
const MAX_LISTENERS: usize = 1000;

/// A part of the configuration that the command line gives. Sources are applied in order; a later one overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// A configuration file (`-c`).
    File(PathBuf),
    /// A command-line option that sets a key of `[host]`.
    Option {
        /// The option, for error messages.
        name: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
}

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The address to listen on: `*`, a literal address or a name.
    pub address: String,
    /// The port to listen on. 0: the system chooses one.
    pub port: u16,
    /// Luup's base URL, http or https, valid, without a slash at its end.
    pub luup: String,
    /// The destination of the log.
    pub log: LogTarget,
    /// Largest size in bytes of the log file and its predecessor together. 0: no limit.
    pub log_max: u64,
    /// Log debug messages.
    pub debug: bool,
    /// Clients that may connect.
    pub allow: AccessList,
    /// Clients that may STOP.
    pub stop: AccessList,
    /// Clients that may STOP may also trace connections (TRAC).
    pub trace: bool,
    /// Clients that may listen (LSTN).
    pub listen: AccessList,
    /// Targets that CONN may reach.
    pub targets: TargetList,
    /// Limits on numbers, sizes and times.
    pub limits: Limits,
    /// Listeners without setup mode.
    pub direct: Vec<DirectListener>,
    /// WebSocket ports in front of targets. Several lines may have one port, and different paths then.
    pub serve: Vec<ServeListener>,
    /// The port of the pages with the status.
    pub status: StatusConfig,
    /// TLS settings that are not a plugin's.
    pub tls: TlsConfig,
}

/// The section `[tls]`. See [`settings::SETTINGS`] for the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsConfig {
    /// File of certificates (PEM) to trust in addition to the built-in roots.
    pub ca: Option<PathBuf>,
    /// Directory of the files that plugins may name. `None`: plugins may name none.
    pub directory: Option<PathBuf>,
    /// How the certificate of a Luup at `https` is verified.
    pub luup: TlsVerify,
}

/// The destination of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// Standard error.
    Stderr,
    /// The system log.
    Syslog,
    /// A file.
    File(PathBuf),
}

/// The section `[limits]`. See [`settings::SETTINGS`] for ranges and reasons.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Connections in total.
    pub connections: usize,
    /// Connections from one address other than loopback.
    pub per_address: usize,
    /// Longest line in setup mode, in bytes.
    pub line: usize,
    /// Longest silence in setup mode.
    pub setup: Duration,
    /// Longest time without a byte after one side has ended.
    pub half_close: Duration,
    /// Longest time without a byte while a plugin reads the last bytes of a remote that has ended.
    pub stall: Duration,
    /// Longest silence of both sides in echo mode. `None`: no limit.
    pub idle: Option<Duration>,
    /// Bytes held for each direction of a connection.
    pub buffer: usize,
    /// Bytes held in total.
    pub buffers: usize,
    /// Kept connections, with or without an attached plugin.
    pub kept: usize,
    /// Bytes of a kept connection that are held after the plugin has received them.
    pub history: usize,
    /// Time limit for name resolution, connecting and TLS if CTIM is not given.
    pub connect: Duration,
    /// Names looked up at once.
    pub resolvers: usize,
    /// Closing notices held while Luup does not answer.
    pub notices: usize,
    /// Notifications sent at once.
    pub senders: usize,
    /// Time limit for Luup's answer to a notification.
    pub answer: Duration,
    /// Pipes for bulk transfers. 0: no splicing.
    pub pipes: usize,
    /// Silence after which TCP probes the peer. `None`: never.
    pub keep_alive: Option<Duration>,
    /// Time after which a peer that answers nothing is lost. `None`: as the kernel has it.
    pub lost: Option<Duration>,
}

/// A listener whose connections lead to one target, without setup mode.
#[derive(Clone, Debug)]
pub(crate) struct DirectListener {
    /// The port to listen on.
    pub port: u16,
    /// The target.
    pub target: Target,
    /// The options of the CONN.
    pub parameters: Parameters,
}

/// One path of a WebSocket port, whose connections lead to one target.
#[derive(Clone, Debug)]
pub(crate) struct ServeListener {
    /// The port to listen on.
    pub port: u16,
    /// The browser's side.
    pub settings: ServeSettings,
    /// The target.
    pub target: Target,
    /// The options of the CONN.
    pub parameters: Parameters,
}

/// What is wrong with the configuration, and where: a file with a line number, or a command-line option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    place: String,
    reason: String,
}

impl ConfigError {
    fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The configuration that `sources` give, starting from the defaults. A file may be a pipe, which is waited for.
    pub(crate) fn load(sources: &[ConfigSource]) -> Result<Self, ConfigError> {
        Self::read(sources, ReadTime::Start)
    }

    /// As [`Config::load`], but without waiting: every file must be a regular one.
    pub(crate) fn reload(sources: &[ConfigSource]) -> Result<Self, ConfigError> {
        Self::read(sources, ReadTime::Reload)
    }

    fn read(sources: &[ConfigSource], time: ReadTime) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for source in sources {
            match source {
                ConfigSource::File(path) => config.apply_text(&path.display().to_string(), &file::read(path, time)?)?,
                ConfigSource::Option { name, key, value } => {
                    config.set("host", key, Some(value)).map_err(|reason| ConfigError::new(*name, reason))?;
                }
            }
        }
        config.check_ports()?;
        Ok(config)
    }

    /// No port has two uses. The port of setup mode, and the addresses, may be set behind a line that takes the port, and by the
    /// command line.
    fn check_ports(&self) -> Result<(), ConfigError> {
        let direct = self.direct.iter().map(|listener| ("[direct]", listener.port));
        let serve = self.serve.iter().map(|listener| ("[serve]", listener.port));
        let own = "is that of plugins: [host] port";
        if let Some((section, port)) = direct.clone().chain(serve.clone()).find(|(_, port)| *port == self.port) {
            return Err(ConfigError::new(section, format!("port {port} {own}")));
        }
        let Some(port) = self.status.port.filter(|_| self.status.shares_addresses_with(&self.address)) else {
            return Ok(());
        };
        let taken = direct.chain(serve).find(|(_, taken)| *taken == port);
        match taken.map(|(section, _)| format!("is in {section} already")).or((port == self.port).then(|| own.into())) {
            Some(why) => Err(ConfigError::new("[status]", format!("port {port} {why}"))),
            None => Ok(()),
        }
    }

    /// Applies the text of a file called `name`. After an error, the lines before it are applied.
    pub(crate) fn apply_text(&mut self, name: &str, text: &[u8]) -> Result<(), ConfigError> {
        file::apply(name, text, self)
    }

    /// Luup's address, unless its URL has a name, and its port.
    pub(crate) fn luup_address(&self) -> (Option<IpAddr>, u16) {
        base_url::host_and_port(&self.luup)
    }

    /// Sets one key. A bare key has no value. The error is the reason, without the place.
    fn set(&mut self, section: &str, key: &str, value: Option<&str>) -> Result<(), String> {
        match section {
            "direct" => return self.add_direct(parse_port(key)?, value.unwrap_or_default()),
            "serve" => return self.add_serve(parse_port(key)?, value.unwrap_or_default()),
            _ => {}
        }
        let setting = settings::SETTINGS
            .iter()
            .find(|setting| setting.section == section && setting.key == key)
            .ok_or_else(|| format!("unknown key '{key}' in [{section}]"))?;
        let value = match (value, setting.bare) {
            (Some(value), _) => value,
            (None, Some(bare)) => bare,
            (None, None) => return Err(format!("'{key}' needs a value: {key}={}", setting.value)),
        };
        (setting.apply)(self, value).map_err(|reason| format!("bad value '{value}' for '{key}': {reason}"))
    }

    /// Adds a direct listener. It replaces an earlier one on the same port, so that a second file can override the first.
    fn add_direct(&mut self, port: u16, spec: &str) -> Result<(), String> {
        let text = crate::protocol::trim(spec.as_bytes());
        let (word, rest) = crate::protocol::first_word(text);
        let text = if word.eq_ignore_ascii_case(b"CONN") { rest } else { text };
        // The text after these characters may be a secret, and errors of a reload are logged.
        let shown = spec.split(['?', '=']).next().unwrap_or_default();
        let (target, mut parameters) = parse_target(port, shown, text)?;
        // Clients of a direct listener expect a byte stream, unless FRAM says otherwise.
        parameters.framing.get_or_insert(Framing::Raw);
        if self.serve.iter().any(|other| other.port == port) {
            return Err(format!("port {port} is in [serve] already"));
        }
        self.direct.retain(|other| other.port != port);
        if self.direct.len() >= MAX_LISTENERS {
            return Err(format!("more than {MAX_LISTENERS} direct listeners"));
        }
        self.direct.push(DirectListener { port, target, parameters });
        Ok(())
    }

    /// Adds a path of a WebSocket port. It replaces an earlier one of the same port and path, so that a second file can
    /// override the first.
    fn add_serve(&mut self, port: u16, spec: &str) -> Result<(), String> {
        let (settings, text) = ServeSettings::parse(crate::protocol::trim(spec.as_bytes()))
            .map_err(|reason| format!("bad line for port {port}: {reason}"))?;
        let shown = String::from_utf8_lossy(text);
        let shown = shown.split(['?', '=']).next().unwrap_or_default();
        let (target, mut parameters) = parse_target(port, shown, text)?;
        let shows_head = parameters.websocket.as_deref().is_some_and(|settings| settings.offer.keep_head);
        if parameters.framing.is_some() || shows_head {
            return Err(format!("bad target '{shown}' for port {port}: FRAM and RHDR are for plugins"));
        }
        // With messages in it, the stream between the two sides keeps those of the target.
        let is_stream = matches!(Protocol::of(&target, parameters.transport), Protocol::Tcp | Protocol::Tls);
        parameters.framing = Some(if is_stream { Framing::Raw } else { Framing::Mesg });
        if self.direct.iter().any(|other| other.port == port) {
            return Err(format!("port {port} is in [direct] already"));
        }
        if self.serve_on(port).any(|other| other.settings.tls != settings.tls) {
            return Err(format!("port {port} has lines with another CERT or PKEY"));
        }
        self.serve.retain(|other| other.port != port || other.settings.rules.path != settings.rules.path);
        if self.serve.len() >= MAX_LISTENERS {
            return Err(format!("more than {MAX_LISTENERS} lines in [serve]"));
        }
        self.serve.push(ServeListener { port, settings, target, parameters });
        Ok(())
    }

    /// The lines of `[serve]` for `port`.
    pub(crate) fn serve_on(&self, port: u16) -> impl Iterator<Item = &ServeListener> {
        self.serve.iter().filter(move |listener| listener.port == port)
    }

    /// How a port of `[serve]` speaks TLS, if it does: the lines of a port agree in that.
    pub(crate) fn serve_tls(&self, port: u16) -> Option<&ServerTlsSettings> {
        self.serve_on(port).find_map(|listener| listener.settings.tls.as_ref())
    }

    /// The ports of `[serve]`, each once.
    pub(crate) fn serve_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.serve.iter().map(|listener| listener.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// Parses a key of `[direct]` and `[serve]`.
fn parse_port(key: &str) -> Result<u16, String> {
    key.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("'{key}' is not a port (1 to 65535)"))
}

/// Parses target and options of a line for `port`, of which errors repeat `shown`.
fn parse_target(port: u16, shown: &str, text: &[u8]) -> Result<(Target, Parameters), String> {
    let (target, parameters) = parse_connect(text, &Parameters::default()).map_err(|error| {
        let refusal = reply::command_failed(&error);
        let reason = String::from_utf8_lossy(&refusal);
        format!("bad target '{shown}' for port {port}: {}", reason.trim_end().trim_start_matches("ERR CONN "))
    })?;
    if parameters.keep.is_some() {
        // Such a client cannot send ATCH.
        return Err(format!("bad target '{shown}' for port {port}: KEEP is for connections made in setup mode"));
    }
    Ok((target, parameters))
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            address: String::new(),
            port: 0,
            luup: String::new(),
            log: LogTarget::Stderr,
            log_max: 0,
            debug: false,
            allow: AccessList::parse("").unwrap_or_else(|_| unreachable!()),
            stop: AccessList::parse("").unwrap_or_else(|_| unreachable!()),
            trace: true,
            listen: AccessList::parse("").unwrap_or_else(|_| unreachable!()),
            targets: TargetList::default(),
            limits: Limits {
                connections: 0,
                per_address: 0,
                line: 0,
                setup: Duration::ZERO,
                half_close: Duration::ZERO,
                stall: Duration::ZERO,
                idle: None,
                buffer: 0,
                buffers: 0,
                kept: 0,
                history: 0,
                connect: Duration::ZERO,
                resolvers: 0,
                notices: 0,
                senders: 0,
                answer: Duration::ZERO,
                pipes: 0,
                keep_alive: None,
                lost: None,
            },
            direct: Vec::new(),
            serve: Vec::new(),
            status: StatusConfig {
                port: None,
                address: "".into(),
                allow: AccessList::parse("").unwrap_or_else(|_| unreachable!()),
                hosts: Vec::new(),
            },
            tls: TlsConfig { ca: None, directory: None, luup: TlsVerify::Peer },
        };
        // Each default is declared once, as text, in SETTINGS. A test covers them all.
        for setting in settings::SETTINGS {
            let result = (setting.apply)(&mut config, setting.default);
            debug_assert!(result.is_ok(), "default of {}: {result:?}", setting.key);
        }
        config
    }
}

#[cfg(test)]
mod tests;
