//! The configuration: from the command line's steps and the files they name to a validated [`Config`].
//!
//! Every setting is declared once, in [`settings::SETTINGS`]; the parser and the [`sample`] come from there.

mod file;
pub mod sample;
pub mod settings;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::{AccessList, TargetList};
use crate::protocol::command::parse_connect;
use crate::protocol::framing::Framing;
use crate::protocol::options::Parameters;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::protocol::tls_settings::TlsVerify;

/// Direct listeners there may be. Each is a descriptor and a number in a token.
const MOST_DIRECT: usize = 1000;

/// One thing the command line says. They are applied in order, so that what comes later holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `-c file`.
    File(PathBuf),
    /// An option that sets a key of `[host]`: the option, the key, the value.
    Set(&'static str, &'static str, String),
}

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on: `*`, a literal one or a name.
    pub address: String,
    /// The port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Luup's base URL.
    pub luup: String,
    /// Where the log goes.
    pub log: LogTarget,
    /// Largest size of a log file in bytes, with the one before it; 0 is no bound.
    pub log_max: u64,
    /// True where the log says everything.
    pub debug: bool,
    /// Who may connect.
    pub allow: AccessList,
    /// Who may STOP.
    pub stop: AccessList,
    /// Where CONN may go.
    pub targets: TargetList,
    /// Bounds and time limits.
    pub limits: Limits,
    /// Listeners that connect at once.
    pub direct: Vec<Direct>,
    /// TLS.
    pub tls: Tls,
}

/// What TLS goes by. The reasons stand in [`settings::SETTINGS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates (PEM) that are trusted in addition to the built-in roots.
    pub ca: Option<PathBuf>,
    /// Where the files lie that plugins may name.
    pub directory: Option<PathBuf>,
    /// How a Luup behind `https` proves who it is.
    pub luup: TlsVerify,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The system's log.
    Syslog,
    /// A file.
    File(PathBuf),
}

/// Bounds and time limits. Their reasons stand beside their declarations in [`settings::SETTINGS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address that is not loopback.
    pub per_address: usize,
    /// Longest line in setup mode, in bytes.
    pub line: usize,
    /// Longest silence in setup mode.
    pub setup: Duration,
    /// Longest standstill once one side has ended.
    pub half_close: Duration,
    /// Longest standstill of a plugin that has yet to read what a device left behind.
    pub stall: Duration,
    /// Longest silence of both sides in echo mode.
    pub idle: Option<Duration>,
    /// Bytes held for one direction of one connection.
    pub buffer: usize,
    /// Bytes held in all.
    pub buffers: usize,
    /// Connections that outlive their plugins', with or without one.
    pub kept: usize,
    /// Bytes kept for a plugin that comes back.
    pub history: usize,
    /// Time for name, connection and TLS, where CTIM says nothing.
    pub connect: Duration,
    /// Names looked up at once.
    pub resolvers: usize,
    /// Closing notices kept for a Luup that is away.
    pub notices: usize,
    /// Notifications sent at once.
    pub senders: usize,
    /// Time for Luup's answer.
    pub answer: Duration,
    /// Pipes for bulk transfers; 0 turns splicing off.
    pub pipes: usize,
    /// Silence after which TCP asks whether the peer is there; `None`: never.
    pub keep_alive: Option<Duration>,
}

/// A port on which a connection leads straight to a target.
#[derive(Clone, Debug)]
pub struct Direct {
    /// The port.
    pub port: u16,
    /// What was configured, to see whether it has changed.
    pub spec: String,
    /// Where it leads.
    pub target: Target,
    /// With which options.
    pub parameters: Parameters,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    what: String,
}

impl ConfigError {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The configuration that `steps` make, starting from the defaults.
    pub fn load(steps: &[Step]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for step in steps {
            match step {
                Step::File(path) => config.apply_text(&path.display().to_string(), &file::read(path)?)?,
                Step::Set(option, key, value) => {
                    config.set("host", key, Some(value)).map_err(|what| ConfigError::new(*option, what))?;
                }
            }
        }
        Ok(config)
    }

    /// Applies the text of a file called `name` on top. After an error, what stood before it has been applied.
    pub fn apply_text(&mut self, name: &str, text: &[u8]) -> Result<(), ConfigError> {
        file::apply(name, text, self)
    }

    /// Sets one key. A bare key has no value. An error says what is wrong, without the place.
    fn set(&mut self, section: &str, key: &str, value: Option<&str>) -> Result<(), String> {
        if section == "direct" {
            return self.add_direct(key, value.unwrap_or_default());
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
        (setting.apply)(self, value).map_err(|what| format!("bad value '{value}' for '{key}': {what}"))
    }

    /// A later listener on the same port replaces an earlier one: a second file may override the first.
    fn add_direct(&mut self, key: &str, spec: &str) -> Result<(), String> {
        let port =
            key.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("'{key}' is no port to listen on"))?;
        // What stands behind these may be a secret, and errors of a reload are logged.
        let shown = spec.split(['?', '=']).next().unwrap_or_default();
        let text = crate::protocol::trim(spec.as_bytes());
        let (word, rest) = crate::protocol::first_word(text);
        let text = if word.eq_ignore_ascii_case(b"CONN") { rest } else { text };
        let (target, mut parameters) = parse_connect(text, &Parameters::default()).map_err(|error| {
            let refusal = reply::command_failed(&error);
            let reason = String::from_utf8_lossy(&refusal);
            format!("bad target '{shown}' for port {port}: {}", reason.trim_end().trim_start_matches("ERR CONN "))
        })?;
        if parameters.keep.is_some() {
            // Nobody there could come back: a direct listener's client says neither who it is nor ATCH.
            return Err(format!("bad target '{shown}' for port {port}: KEEP is for connections made in setup mode"));
        }
        // Who speaks to such a port knows nothing of framing, unless it is asked for.
        parameters.framing.get_or_insert(Framing::Raw);
        self.direct.retain(|other| other.port != port);
        if self.direct.len() >= MOST_DIRECT {
            return Err(format!("more than {MOST_DIRECT} direct listeners"));
        }
        self.direct.push(Direct { port, spec: spec.to_owned(), target, parameters });
        Ok(())
    }
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
            },
            direct: Vec::new(),
            tls: Tls { ca: None, directory: None, luup: TlsVerify::Peer },
        };
        // Every default stands once, as text, in its declaration; a test sets them all.
        for setting in settings::SETTINGS {
            let outcome = (setting.apply)(&mut config, setting.default);
            debug_assert!(outcome.is_ok(), "default of {}: {outcome:?}", setting.key);
        }
        config
    }
}

#[cfg(test)]
mod tests;
