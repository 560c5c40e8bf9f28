//! The options of CONN. Each is declared once, in [`OPTIONS`]: the parser, HELP, CAPA and the table of the README
//! come from there.

use std::time::Duration;

use super::framing::Framing;
use super::notify::NotifyTarget;
use super::number;

/// What carries the bytes to the remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A TCP stream.
    #[default]
    Tcp,
    /// Unconnected UDP: datagrams go to the target, answers are taken from anyone.
    Udp,
}

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
    /// FRAM: messages on the plugin's side. `None`: the target's default.
    pub framing: Option<Framing>,
}

impl Parameters {
    /// The framing in force.
    pub fn framing(&self) -> Framing {
        self.framing.unwrap_or_default()
    }

    /// Applies the options that follow a target, `KEY=value` separated by blanks. The last of two equal ones holds.
    pub fn apply(&mut self, options: &[u8]) -> Result<(), OptionError> {
        for option in options.split(|&b| super::is_blank(b)).filter(|option| !option.is_empty()) {
            let invalid = || OptionError::Invalid(option.into());
            let equals = option.iter().position(|&b| b == b'=').ok_or_else(invalid)?;
            let (name, value) = (&option[..equals], &option[equals + 1..]);
            let spec = OPTIONS.iter().find(|spec| spec.name.as_bytes() == name).ok_or_else(invalid)?;
            match (spec.apply)(self, value) {
                Ok(()) => {}
                Err(Refused::Value) => return Err(invalid()),
                Err(Refused::Transport) => return Err(OptionError::Protocol(value.to_ascii_lowercase().into())),
            }
        }
        // Framing a stream of which nothing marks the messages would invent them.
        if self.transport == Transport::Tcp && self.framing() != Framing::Raw {
            return Err(OptionError::Invalid(format!("FRAM={}", self.framing().name()).into_bytes().into()));
        }
        Ok(())
    }
}

/// Why the options of a CONN are refused; displays as the reason that `ERR CONN` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// No such option, no value, or a value that is none: the option as written.
    Invalid(Box<[u8]>),
    /// A protocol that is not spoken, in lower case.
    Protocol(Box<[u8]>),
}

impl OptionError {
    /// The reason, as bytes, since a plugin may write any.
    pub fn reason(&self) -> Vec<u8> {
        match self {
            Self::Invalid(option) => [b"Invalid option ", &option[..]].concat(),
            Self::Protocol(protocol) => [b"Invalid protocol ", &protocol[..]].concat(),
        }
    }
}

/// Why one option's value is refused.
enum Refused {
    Value,
    Transport,
}

/// One option of CONN.
pub struct OptionSpec {
    /// Four upper-case letters.
    pub name: &'static str,
    /// The form of its value, as HELP prints it.
    pub value: &'static str,
    /// Which targets it is for.
    pub targets: &'static str,
    /// What holds where it is not given.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What CAPA says where this option is there; part 1's options have none.
    pub capabilities: &'static [&'static str],
    apply: fn(&mut Parameters, &[u8]) -> Result<(), Refused>,
}

/// All options of CONN, part 1's first.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "RTIM",
        value: "ms",
        targets: "all",
        default: "0",
        help: "close when the remote has been silent that long; 0 never",
        capabilities: &[],
        apply: |parameters, value| lenient(value, |ms| parameters.receive_timeout = limit(ms, 0.001)),
    },
    OptionSpec {
        name: "BLKS",
        value: "bytes",
        targets: "all",
        default: "as is fastest",
        help: "largest chunk handed over at once, 1 to 65536",
        capabilities: &[],
        apply: |parameters, value| lenient(value, |bytes| parameters.block = block_size(bytes)),
    },
    OptionSpec {
        name: "NTFY",
        value: "dev/sid/action[/pid]",
        targets: "all",
        default: "nobody is notified",
        help: "invoke this action when there is something to read",
        capabilities: &[],
        apply: |parameters, value| {
            parameters.notify = Some(Box::new(NotifyTarget::from_option(value)));
            Ok(())
        },
    },
    OptionSpec {
        name: "PACE",
        value: "seconds",
        targets: "all",
        default: "0",
        help: "shortest time between two notifications of data; 0 none",
        capabilities: &[],
        apply: |parameters, value| lenient(value, |seconds| parameters.pace = limit(seconds, 1.0)),
    },
    OptionSpec {
        name: "PRTO",
        value: "tcp|udp",
        targets: "host:port",
        default: "tcp",
        help: "what carries the bytes",
        capabilities: &[],
        apply: |parameters, value| {
            parameters.transport = match value.to_ascii_lowercase().as_slice() {
                b"tcp" => Transport::Tcp,
                b"udp" => Transport::Udp,
                _ => return Err(Refused::Transport),
            };
            Ok(())
        },
    },
    OptionSpec {
        name: "CTIM",
        value: "ms",
        targets: "all",
        default: "4500",
        help: "time for finding the name and connecting",
        capabilities: &[],
        apply: |parameters, value| {
            lenient(value, |ms| parameters.connect_timeout = Some(limit(ms, 0.001).unwrap_or(LONGEST_CONNECT)))
        },
    },
    OptionSpec {
        name: "EVNT",
        value: "on|off",
        targets: "all",
        default: "off",
        help: "notifications say why: Event=connected, data or closed",
        capabilities: &["EVNT"],
        apply: |parameters, value| {
            parameters.events = match value.to_ascii_lowercase().as_slice() {
                b"on" => true,
                b"off" => false,
                _ => return Err(Refused::Value),
            };
            Ok(())
        },
    },
    OptionSpec {
        name: "FRAM",
        value: "RAW|LINE|MESG",
        targets: "udp",
        default: "RAW",
        help: "how datagrams are told apart on the plugin's side",
        capabilities: &["MESG", "LINE"],
        apply: |parameters, value| {
            parameters.framing = Some(Framing::from_name(value).ok_or(Refused::Value)?);
            Ok(())
        },
    },
];

/// No limit for a connection attempt means this: something must end it.
const LONGEST_CONNECT: Duration = Duration::from_secs(600);

/// Longer than this is as good as for ever, and adding it to an instant is still safe.
const FOR_EVER: f64 = 10.0 * 365.0 * 86400.0;

/// A number that is none is ignored.
fn lenient(value: &[u8], set: impl FnOnce(f64)) -> Result<(), Refused> {
    if let Some(number) = number::parse(value) {
        set(number);
    }
    Ok(())
}

/// A limit of `number` times `unit` seconds; 0, less (than a nanosecond, too), infinite and no number at all mean none.
pub fn limit(number: f64, unit: f64) -> Option<Duration> {
    let seconds = number * unit;
    let limit = (seconds > 0.0 && seconds < FOR_EVER).then(|| Duration::from_secs_f64(seconds));
    limit.filter(|limit| !limit.is_zero())
}

/// A block size brought into 1..65536; 0, less and no number at all mean none.
pub fn block_size(bytes: f64) -> Option<u32> {
    (bytes > 0.0).then(|| bytes.clamp(1.0, 65536.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &str) -> Parameters {
        let mut parameters = Parameters::default();
        parameters.apply(options.as_bytes()).unwrap();
        parameters
    }

    fn reason(options: &str) -> String {
        let error = Parameters::default().apply(options.as_bytes()).unwrap_err();
        String::from_utf8(error.reason()).unwrap()
    }

    #[test]
    fn applies_every_option() {
        let all = applied("RTIM=1500  BLKS=0x10\tNTFY=3/s/a PACE=2 PRTO=UDP CTIM=100 EVNT=on FRAM=mesg");
        assert_eq!(all.receive_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(all.block, Some(16));
        assert!(all.notify.unwrap().notifies());
        assert_eq!(all.pace, Some(Duration::from_secs(2)));
        assert_eq!(all.transport, Transport::Udp);
        assert_eq!(all.connect_timeout, Some(Duration::from_millis(100)));
        assert!(all.events);
        assert_eq!(all.framing, Some(Framing::Mesg));
    }

    #[test]
    fn the_last_of_two_holds() {
        assert_eq!(applied("BLKS=1 BLKS=2").block, Some(2));
        assert_eq!(applied("RTIM=1 RTIM=0").receive_timeout, None);
    }

    #[test]
    fn bad_numbers_are_ignored_and_odd_ones_brought_into_range() {
        assert_eq!(applied("RTIM=5 RTIM=x").receive_timeout, Some(Duration::from_millis(5)));
        for none in ["0", "-1", "inf", "nan", "1e99", "1e-9", "1e-300"] {
            assert_eq!(applied(&format!("RTIM={none}")).receive_timeout, None, "{none}");
        }
        for (text, block) in [("0", None), ("-1", None), ("0.5", Some(1)), ("inf", Some(65536)), ("99999", Some(65536))]
        {
            assert_eq!(applied(&format!("BLKS={text}")).block, block, "{text}");
        }
        assert_eq!(applied("CTIM=0").connect_timeout, Some(LONGEST_CONNECT));
    }

    #[test]
    fn refuses_with_the_words_of_the_lua_daemon() {
        assert_eq!(reason("hello"), "Invalid option hello");
        assert_eq!(reason("XXXX=1"), "Invalid option XXXX=1");
        assert_eq!(reason("rtim=1"), "Invalid option rtim=1", "option names are upper case");
        assert_eq!(reason("PRTO=SCTP"), "Invalid protocol sctp");
        assert_eq!(reason("EVNT=perhaps"), "Invalid option EVNT=perhaps");
        assert_eq!(reason("FRAM=x PRTO=udp"), "Invalid option FRAM=x");
        assert_eq!(reason("FRAM=MESG"), "Invalid option FRAM=MESG", "tcp has no messages");
    }

    #[test]
    fn names_are_four_upper_case_letters_and_stand_once() {
        for (at, spec) in OPTIONS.iter().enumerate() {
            assert!(spec.name.len() == 4 && spec.name.bytes().all(|b| b.is_ascii_uppercase()), "{}", spec.name);
            assert!(OPTIONS[..at].iter().all(|other| other.name != spec.name), "{} twice", spec.name);
        }
    }

    /// The README's table of options.
    fn table() -> String {
        let row = |option: &OptionSpec| {
            let value = option.value.replace('|', "\\|");
            format!("| `{}={value}` | {} | {} | {} |\n", option.name, option.targets, option.help, option.default)
        };
        let head = "| option | for | meaning | default |\n| --- | --- | --- | --- |\n";
        head.to_owned() + &OPTIONS.iter().map(row).collect::<String>()
    }

    #[test]
    fn the_readme_shows_every_option() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&table()), "the README's table should be:\n{}", table());
    }
}
