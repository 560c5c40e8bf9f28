//! The command line. Its options are kept in the order given, since what comes later holds.

use std::ffi::{OsStr, OsString};

use lexopt::{Arg, Parser};

use crate::config::Step;
use crate::probe::SECONDS;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The configuration, to be applied in order.
    pub steps: Vec<Step>,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Run,
    /// Serve, under a parent that starts it anew when it dies.
    Supervise,
    /// Check the configuration.
    Check,
    /// Ask a running proxy whether it is there; with a number, again and again for so many seconds.
    Probe(Option<u32>),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Print the sample configuration.
    Sample,
}

/// The help.
pub const HELP: &str = "\
sockproxyd: socket proxy for Luup plugins

usage: sockproxyd [options]

Options are applied in the order given; what comes later holds.

  -c FILE          read this configuration file
  -a ADDRESS       listen on this address (default *, all of them)
  -p PORT          listen on this port (default 2504)
  -L FILE          log to this file, to syslog or to stderr (default stderr)
  -N URL, -V URL   where Luup takes its requests (default http://127.0.0.1:3480)
  -D               log everything that is done
  -t               check the configuration, and exit
  --probe[=SECONDS]
                   ask the proxy that runs with this configuration whether it is there, and exit: 0 if it greets, else
                   1. With SECONDS (1 to 3600) keep asking, so long at most; without, ask once and wait 5 s
  --supervise      start a parent that starts the proxy anew when it dies
  --sample-config  print a configuration file that documents every key
  -h, --help       print this help
  --version        print the version

Signals: HUP reopens the log and reads the configuration anew, USR1 logs the table of connections, TERM and INT end
the proxy. Exit status: 0 after STOP, TERM or INT; 1 if something went wrong; 2 for a bad option, a bad configuration or
an address that cannot be listened on.
";

/// Reads the command line, without the program's name. An error is one line for people.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let mut parser = Parser::from_args(arguments);
    let mut invocation = Invocation { steps: Vec::new(), action: Action::Run };
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let (option, key) = match argument {
            Arg::Short('c') => {
                let file = parser.value().map_err(|error| error.to_string())?;
                invocation.steps.push(Step::File(file.into()));
                continue;
            }
            Arg::Short('D') => {
                invocation.steps.push(Step::Set("-D", "debug", "on".into()));
                continue;
            }
            Arg::Short('t') => {
                invocation.action = Action::Check;
                continue;
            }
            Arg::Long("probe") => {
                invocation.action = Action::Probe(parser.optional_value().map(|value| seconds(&value)).transpose()?);
                continue;
            }
            Arg::Long("supervise") => {
                if invocation.action == Action::Run {
                    invocation.action = Action::Supervise;
                }
                continue;
            }
            // These want nothing else, whatever else is asked for.
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation { action: Action::Help, ..invocation }),
            Arg::Long("version") => return Ok(Invocation { action: Action::Version, ..invocation }),
            Arg::Long("sample-config") => return Ok(Invocation { action: Action::Sample, ..invocation }),
            Arg::Short('a') => ("-a", "ip"),
            Arg::Short('p') => ("-p", "port"),
            Arg::Short('L') => ("-L", "log"),
            Arg::Short('N') => ("-N", "vera"),
            Arg::Short('V') => ("-V", "vera"),
            other => return Err(other.unexpected().to_string()),
        };
        let value = parser.value().map_err(|error| error.to_string())?;
        let value = value.into_string().map_err(|_| format!("the value of {option} is not UTF-8"))?;
        invocation.steps.push(Step::Set(option, key, value));
    }
    Ok(invocation)
}

/// The value of `--probe`.
fn seconds(value: &OsStr) -> Result<u32, String> {
    let given = value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| SECONDS.contains(seconds));
    given.ok_or_else(|| {
        format!("--probe takes whole seconds from {} to {}, not {value:?}", SECONDS.start(), SECONDS.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(Into::into))
    }

    #[test]
    fn options_keep_their_order() {
        let invocation = parsed("-p 7 -c a.cf -a 1.2.3.4 -c b.cf -D -N http://x:1 -V http://y:2 -L /tmp/l").unwrap();
        assert_eq!(invocation.action, Action::Run);
        assert_eq!(
            invocation.steps,
            [
                Step::Set("-p", "port", "7".into()),
                Step::File("a.cf".into()),
                Step::Set("-a", "ip", "1.2.3.4".into()),
                Step::File("b.cf".into()),
                Step::Set("-D", "debug", "on".into()),
                Step::Set("-N", "vera", "http://x:1".into()),
                Step::Set("-V", "vera", "http://y:2".into()),
                Step::Set("-L", "log", "/tmp/l".into()),
            ]
        );
    }

    #[test]
    fn actions() {
        for (line, action) in [
            ("", Action::Run),
            ("--supervise", Action::Supervise),
            ("-t --supervise", Action::Check),
            ("--supervise -t", Action::Check),
            ("--probe -p 7", Action::Probe(None)),
            ("--probe --supervise", Action::Probe(None)),
            ("--probe=1", Action::Probe(Some(1))),
            ("-p 7 --probe=3600 -D", Action::Probe(Some(3600))),
            ("-D -h", Action::Help),
            ("--version", Action::Version),
            ("--sample-config", Action::Sample),
        ] {
            assert_eq!(parsed(line).unwrap().action, action, "{line}");
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
    fn refuses_what_it_does_not_know() {
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
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
