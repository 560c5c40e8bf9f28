//! The parser of the command line, and the text of `--help`. Depends on `config`, `protocol` and `tls` for its result.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;

use lexopt::{Arg, Parser};

use crate::config::ConfigSource;
use crate::protocol::command::StatFormat;
use crate::tls::CertificateNames;

/// Range of the value of `--probe`, in seconds.
const PROBE_SECONDS: RangeInclusive<u32> = 1..=3600;

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The sources of the configuration, in the order of the options.
    pub sources: Vec<ConfigSource>,
    /// What the process does.
    pub mode: Mode,
}

/// What the process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Runs the proxy.
    Run,
    /// Runs the proxy in a child process, and restarts it when it dies.
    Supervise,
    /// Checks the configuration.
    Check,
    /// Checks that a running proxy answers: once, or repeatedly for this number of seconds.
    Probe(Option<u32>),
    /// Prints the status of a running proxy.
    Status {
        /// The form.
        format: StatFormat,
        /// Every second.
        watch: bool,
    },
    /// Makes a certificate for these names.
    MakeCert(CertificateNames),
    /// Prints the help.
    Help,
    /// Prints the version.
    Version,
    /// Prints the sample configuration.
    Sample,
}

/// The text of `--help`.
pub(crate) const HELP: &str = "\
sockproxyd: socket proxy for Luup plugins

usage: sockproxyd [options]

Options are applied in the order given; a later one overrides.

  -c FILE          read this configuration file
  -a ADDRESS       listen on this address (default *, all addresses)
  -p PORT          listen on this port (default 2504)
  -L FILE          log to this file, or to syslog or stderr (default stderr)
  -N URL, -V URL   base URL of Luup (default http://127.0.0.1:3480)
  -D               log debug messages
  -t               check the configuration and exit
  --probe[=SECONDS]
                   check that a proxy with this configuration answers, and exit with 0 if it sends its greeting, with
                   1 if not. With SECONDS (1 to 3600), try until this time has passed; without, try once for 5 s
  --status[=FORMAT]
                   print the status of the proxy that runs with this configuration, as tables (text, the default), json
                   or prometheus
  --watch          print the status every second, together with --status
  --make-cert NAME[,NAME...]
                   make a self-signed certificate for these names and addresses: NAME.pem and NAME.key in the directory
                   of [tls], for CERT= and PKEY= of LSTN
  --supervise      run the proxy in a child process, and restart it when it ends
  --sample-config  print a configuration file that documents every key
  -h, --help       print this help
  --version        print the version

Signals: HUP reopens the log and reloads the configuration, USR1 logs the table of connections, TERM and INT stop the
proxy. Exit status: 0 after STOP, TERM or INT; 1 after a failure; 2 for an invalid option, an invalid configuration or
a port for plugins that the proxy cannot listen on.
";

/// Parses the arguments, without the name of the program. The error is a message of one line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, String> {
    let mut parser = Parser::from_args(arguments);
    let mut command_line = CommandLine { sources: Vec::new(), mode: Mode::Run };
    let mut watches = false;
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let (name, key) = match argument {
            Arg::Short('c') => {
                let file = parser.value().map_err(|error| error.to_string())?;
                command_line.sources.push(ConfigSource::File(file.into()));
                continue;
            }
            Arg::Short('D') => {
                command_line.sources.push(ConfigSource::Option { name: "-D", key: "debug", value: "on".into() });
                continue;
            }
            Arg::Short('t') => {
                command_line.mode = Mode::Check;
                continue;
            }
            Arg::Long("probe") => {
                command_line.mode =
                    Mode::Probe(parser.optional_value().map(|value| probe_seconds(&value)).transpose()?);
                continue;
            }
            Arg::Long("status") => {
                let format = parser.optional_value().map_or(Ok(StatFormat::Text), |value| status_format(&value))?;
                command_line.mode = Mode::Status { format, watch: false };
                continue;
            }
            Arg::Long("watch") => {
                watches = true;
                continue;
            }
            Arg::Long("make-cert") => {
                let names = parser.value().map_err(|error| error.to_string())?;
                command_line.mode = Mode::MakeCert(CertificateNames::parse(&names.to_string_lossy())?);
                continue;
            }
            Arg::Long("supervise") => {
                if command_line.mode == Mode::Run {
                    command_line.mode = Mode::Supervise;
                }
                continue;
            }
            // These ignore all other options.
            Arg::Short('h') | Arg::Long("help") => return Ok(CommandLine { mode: Mode::Help, ..command_line }),
            Arg::Long("version") => return Ok(CommandLine { mode: Mode::Version, ..command_line }),
            Arg::Long("sample-config") => return Ok(CommandLine { mode: Mode::Sample, ..command_line }),
            Arg::Short('a') => ("-a", "ip"),
            Arg::Short('p') => ("-p", "port"),
            Arg::Short('L') => ("-L", "log"),
            Arg::Short('N') => ("-N", "vera"),
            Arg::Short('V') => ("-V", "vera"),
            other => return Err(other.unexpected().to_string()),
        };
        let value = parser.value().map_err(|error| error.to_string())?;
        let value = value.into_string().map_err(|_| format!("the value of {name} is not UTF-8"))?;
        command_line.sources.push(ConfigSource::Option { name, key, value });
    }
    match &mut command_line.mode {
        Mode::Status { watch, .. } => *watch = watches,
        _ if watches => return Err("--watch needs --status".into()),
        _ => {}
    }
    Ok(command_line)
}

/// Parses the value of `--status`.
fn status_format(value: &OsStr) -> Result<StatFormat, String> {
    match value.to_str() {
        Some("text") => Ok(StatFormat::Text),
        Some("json") => Ok(StatFormat::Json),
        Some("prometheus") => Ok(StatFormat::Metrics),
        _ => Err(format!("--status takes text, json or prometheus, not '{}'", value.to_string_lossy())),
    }
}

/// Parses the value of `--probe`.
fn probe_seconds(value: &OsStr) -> Result<u32, String> {
    let given = value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| PROBE_SECONDS.contains(seconds));
    given.ok_or_else(|| {
        let (min, max) = PROBE_SECONDS.into_inner();
        format!("--probe takes whole seconds from {min} to {max}, not '{}'", value.to_string_lossy())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<CommandLine, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(Into::into))
    }

    fn option(name: &'static str, key: &'static str, value: String) -> ConfigSource {
        ConfigSource::Option { name, key, value }
    }

    #[test]
    fn options_keep_their_order() {
        let command_line = parsed("-p 7 -c a.cf -a 1.2.3.4 -c b.cf -D -N http://x:1 -V http://y:2 -L /tmp/l").unwrap();
        assert_eq!(command_line.mode, Mode::Run);
        assert_eq!(
            command_line.sources,
            [
                option("-p", "port", "7".into()),
                ConfigSource::File("a.cf".into()),
                option("-a", "ip", "1.2.3.4".into()),
                ConfigSource::File("b.cf".into()),
                option("-D", "debug", "on".into()),
                option("-N", "vera", "http://x:1".into()),
                option("-V", "vera", "http://y:2".into()),
                option("-L", "log", "/tmp/l".into()),
            ]
        );
    }

    #[test]
    fn modes() {
        for (line, mode) in [
            ("", Mode::Run),
            ("--supervise", Mode::Supervise),
            ("-t --supervise", Mode::Check),
            ("--supervise -t", Mode::Check),
            ("--probe -p 7", Mode::Probe(None)),
            ("--probe --supervise", Mode::Probe(None)),
            ("--probe=1", Mode::Probe(Some(1))),
            ("-p 7 --probe=3600 -D", Mode::Probe(Some(3600))),
            ("--status", Mode::Status { format: StatFormat::Text, watch: false }),
            ("--watch --status=json", Mode::Status { format: StatFormat::Json, watch: true }),
            ("--status=prometheus -p 7", Mode::Status { format: StatFormat::Metrics, watch: false }),
            ("-D -h", Mode::Help),
            (
                "--make-cert vera,10.0.0.1 -c x",
                Mode::MakeCert(CertificateNames::parse("vera,10.0.0.1").unwrap_or_else(|error| panic!("{error}"))),
            ),
            ("--version", Mode::Version),
            ("--sample-config", Mode::Sample),
        ] {
            assert_eq!(parsed(line).unwrap().mode, mode, "{line}");
        }
    }

    #[test]
    fn the_manual_names_every_option_of_the_help() {
        let manual = include_str!("../man/sockproxyd.8").replace('\\', "");
        let options = manual.split(".SH OPTIONS").nth(1).unwrap().split(".SH ").next().unwrap();
        let words = HELP.lines().filter(|line| line.starts_with("  -")).flat_map(str::split_whitespace);
        for option in words.filter(|word| word.starts_with('-')) {
            let name = option.trim_end_matches(',').split(['[', '=']).next().unwrap();
            assert!(options.split_whitespace().any(|word| word == name), "{name}");
        }
    }

    #[test]
    fn rejects_unknown_options_and_bad_values() {
        for line in [
            "-x",
            "--port 7",
            "-p",
            "word",
            "-D=1",
            "--probe 2",
            "--probe=",
            "--probe=0",
            "--probe=3601",
            "--probe=-1",
            "--probe=1.5",
            "--probe=2s",
            "--probe=4294967297",
            "--supervise=1",
            "--status json",
            "--status=",
            "--status=xml",
            "--watch",
            "--watch -t",
            "--make-cert",
            "--make-cert=",
            "--make-cert a,",
            "--make-cert *.a",
            "--make-cert a/b",
            "--make-cert ..",
            "--make-cert a.",
            "--make-cert a,*.*.b",
            "--make-cert a b",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
