//! The commands of setup mode. Each is declared once, in [`COMMANDS`]: parser, arguments and help. HELP is made from
//! these declarations.

use std::num::NonZeroU32;
use std::time::Duration;

use super::connect_error::ConnectError;
use super::listen_settings::{ListenSettings, parse_address};
use super::notify_target::{NotifyTarget, NotifyTargetTooLong};
use super::options::{OptionError, Parameters, block_size, time_limit};
use super::reply::NO_CERTIFICATE;
use super::target::Target;
use super::{first_word, is_blank, number, trim};

/// A parsed command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// `CONN target [KEY=value ...]`: the target, and the parameters with the options applied.
    Connect(Target, Parameters),
    /// `NTFY dev sid action [pid]`.
    Notify(NotifyTarget),
    /// `BLKS n`: bytes, see [`Parameters::block_size`].
    BlockSize(Option<NonZeroU32>),
    /// `RTIM ms`.
    ReceiveTimeout(Option<Duration>),
    /// `PACE seconds`.
    Pace(Option<Duration>),
    /// `ATCH pid [SEEN=n] [CONN=target]` or `DROP pid`.
    Kept(KeptRequest),
    /// `LSTN [address:]port [KEY=value ...]`: the parameters with the settings of the listener and the options applied.
    Listen(Parameters),
    /// `ACPT id [KEY=value ...]` or `DENY id [status [reason]]`.
    Arrival(ArrivalRequest),
    /// `STAT [JSON|TEXT|METRICS]`. `None`: the table of the Lua daemon.
    Stat(Option<StatFormat>),
    /// `CAPA`.
    Capabilities,
    /// `BILD`.
    Build,
    /// `HELP`.
    Help,
    /// `QUIT`.
    Quit,
    /// `STOP`.
    Stop,
    /// `TRAC id [bytes]`.
    Trace(TraceRequest),
}

/// What a client asks to see of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceRequest {
    /// The id that STAT shows.
    pub id: Box<[u8]>,
    /// How many bytes of each chunk are shown at most.
    pub max_shown: usize,
}

/// Bytes of each chunk that TRAC shows, unless the client names another number.
const DEFAULT_SHOWN: usize = 256;
/// Bytes of each chunk that TRAC shows at most.
const MAX_SHOWN: usize = 4096;

/// A format of STAT that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatFormat {
    /// A JSON object.
    Json,
    /// Tables for people.
    Text,
    /// The text format of Prometheus.
    Metrics,
}

impl StatFormat {
    const ALL: [Self; 3] = [Self::Json, Self::Text, Self::Metrics];

    /// Its name, which follows STAT.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Text => "TEXT",
            Self::Metrics => "METRICS",
        }
    }

    /// The format that `word` names. `None`: it names none, which the Lua daemon takes for the table.
    fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|format| word.eq_ignore_ascii_case(format.name().as_bytes()))
    }
}

/// What a plugin asks about kept connections. The request passes unchanged from the parser to the daemon, which knows the
/// pids of all sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeptRequest {
    /// `CONN ... KEEP=`: the pid in the parameters must be free.
    Claim,
    /// `ATCH`: attach to the kept connection with this pid.
    Attach {
        /// The pid.
        pid: Box<[u8]>,
        /// The number of messages (RAW: bytes) that the plugin has read.
        seen: Option<u64>,
        /// The target that the plugin expects. `None`: any.
        target: Option<Target>,
    },
    /// `DROP`: end the kept connection with this pid, or the connection that STAT shows with it.
    Drop {
        /// The pid.
        pid: Box<[u8]>,
    },
}

/// What a plugin says about a connection that has arrived at its listener. The request passes unchanged from the parser to
/// the daemon, which knows all arrivals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArrivalRequest {
    /// `ACPT`: the plugin's connection is for this arrival.
    Accept {
        /// The id.
        id: Box<[u8]>,
        /// The options. Which there are depends on what the arrival speaks.
        options: Box<[u8]>,
    },
    /// `DENY`: refuse this arrival.
    Deny {
        /// The id.
        id: Box<[u8]>,
        /// The status of the HTTP response, 300 to 599. `None`: the plugin's is none.
        status: Option<u16>,
        /// The reason phrase. Empty: that of the status.
        reason: Box<[u8]>,
    },
}

/// Why a line is rejected. The proxy replies with one line and closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// Unknown command, or a line that is too long.
    Unknown,
    /// CONN without a valid target, or with an invalid option.
    Connect(ConnectError),
    /// LSTN with an invalid option.
    Listen(OptionError),
    /// Invalid argument: the command, and the reason in the reply.
    Argument(&'static str, &'static str),
}

/// The declaration of a command.
pub(crate) struct CommandSpec {
    /// Four upper-case letters.
    pub name: &'static str,
    /// The syntax of the arguments, as HELP shows it.
    pub arguments: &'static str,
    /// A phrase that says what the command does.
    pub help: &'static str,
    parse: fn(&[u8], &Parameters) -> Result<Command, CommandError>,
}

/// All commands, in the order of HELP.
pub(crate) static COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "STAT",
        arguments: "[JSON|TEXT|METRICS]",
        help: "Status of all connections",
        parse: |rest, _| Ok(Command::Stat(StatFormat::parse(first_word(rest).0))),
    },
    CommandSpec { name: "HELP", arguments: "", help: "This text", parse: |_, _| Ok(Command::Help) },
    CommandSpec { name: "QUIT", arguments: "", help: "Disconnect", parse: |_, _| Ok(Command::Quit) },
    CommandSpec {
        name: "STOP",
        arguments: "",
        help: "Close all connections and shut down the proxy",
        parse: |_, _| Ok(Command::Stop),
    },
    CommandSpec { name: "CAPA", arguments: "", help: "Capabilities", parse: |_, _| Ok(Command::Capabilities) },
    CommandSpec { name: "BILD", arguments: "", help: "Build number", parse: |_, _| Ok(Command::Build) },
    CommandSpec {
        name: "RTIM",
        arguments: "ms",
        help: "Longest silence of the remote in milliseconds (default 0: no limit)",
        parse: |rest, _| match number::parse(rest) {
            Some(ms) if ms >= 0.0 => Ok(Command::ReceiveTimeout(time_limit(ms, 0.001))),
            _ => Err(CommandError::Argument("RTIM", "Invalid timeout")),
        },
    },
    CommandSpec {
        name: "PACE",
        arguments: "seconds",
        help: "Shortest time between two notifications of data in seconds (default 0: no limit)",
        parse: |rest, _| match number::parse(rest) {
            Some(seconds) if seconds >= 0.0 => Ok(Command::Pace(time_limit(seconds, 1.0))),
            _ => Err(CommandError::Argument("PACE", "Invalid pace")),
        },
    },
    CommandSpec {
        name: "BLKS",
        arguments: "bytes",
        help: "Largest chunk passed on at once, 1 to 65536 bytes",
        parse: |rest, _| match number::parse(rest) {
            Some(bytes) if bytes > 0.0 => Ok(Command::BlockSize(block_size(bytes))),
            _ => Err(CommandError::Argument("BLKS", "Invalid block size")),
        },
    },
    CommandSpec {
        name: "NTFY",
        arguments: "dev sid action [pid]",
        help: "Luup action to invoke when there is something to read",
        parse: |rest, _| match NotifyTarget::from_command(rest) {
            Ok(target) => Ok(Command::Notify(target)),
            Err(NotifyTargetTooLong) => Err(CommandError::Argument("NTFY", "Invalid length")),
        },
    },
    CommandSpec {
        name: "CONN",
        arguments: "target [KEY=value ...]",
        help: "Connect to host:port or to a URL, ws://... or wss://... (enters echo mode, must be the last command)",
        parse: |rest, parameters| parse_connect(rest, parameters).map(|(target, with)| Command::Connect(target, with)),
    },
    CommandSpec {
        name: "ATCH",
        arguments: "pid [SEEN=n] [CONN=target]",
        help: "Attach to a connection made with KEEP=, after the first n messages (RAW: bytes) if n is given, if it is one to the target (enters echo mode)",
        parse: |rest, _| parse_attach(rest),
    },
    CommandSpec {
        name: "DROP",
        arguments: "pid",
        help: "End a connection made with KEEP=; or any connection, by the id that STAT shows, if you may say STOP",
        parse: |rest, _| Ok(Command::Kept(KeptRequest::Drop { pid: first_word(rest).0.into() })),
    },
    CommandSpec {
        name: "TRAC",
        arguments: "id [bytes]",
        help: "Show what passes on a connection, by the id that STAT shows; of each chunk this many bytes (default 256), if you may say STOP",
        parse: |rest, _| {
            let (id, bytes) = first_word(rest);
            let max_shown = match number::parse(bytes) {
                _ if bytes.is_empty() => DEFAULT_SHOWN,
                Some(bytes) if bytes >= 0.0 => bytes.min(MAX_SHOWN as f64) as usize,
                _ => return Err(CommandError::Argument("TRAC", "Invalid length")),
            };
            Ok(Command::Trace(TraceRequest { id: id.into(), max_shown }))
        },
    },
    CommandSpec {
        name: "LSTN",
        arguments: "[address:]port [KEY=value ...]",
        help: "Listen; of each connection that arrives, INCO tells its id (only DENY and QUIT may follow)",
        parse: parse_listen,
    },
    CommandSpec {
        name: "ACPT",
        arguments: "id [KEY=value ...]",
        help: "Accept a connection that has arrived, with options of CONN (enters echo mode, must be the last command)",
        parse: |rest, _| {
            let (id, options) = first_word(rest);
            Ok(Command::Arrival(ArrivalRequest::Accept { id: id.into(), options: options.into() }))
        },
    },
    CommandSpec {
        name: "DENY",
        arguments: "id [status [reason]]",
        help: "Refuse a connection that has arrived, over ws with this HTTP status (on the connection of LSTN)",
        parse: |rest, _| Ok(Command::Arrival(parse_deny(rest))),
    },
];

/// Parses the arguments of LSTN.
fn parse_listen(text: &[u8], parameters: &Parameters) -> Result<Command, CommandError> {
    let (address, options) = first_word(text);
    let address = parse_address(address).map_err(|why| CommandError::Argument("LSTN", why))?;
    let mut with = parameters.clone();
    with.listen = Some(Box::new(ListenSettings::new(address)));
    with.apply_to_listener(options).map_err(CommandError::Listen)?;
    let lacks_certificate = |settings: &ListenSettings| {
        settings.protocol.is_secure() && settings.tls.as_ref().is_none_or(|tls| tls.certificate.is_empty())
    };
    if with.listen.as_deref().is_some_and(lacks_certificate) {
        return Err(CommandError::Argument("LSTN", NO_CERTIFICATE));
    }
    // The listener's own notifications tell of arrivals and of its end.
    with.events = true;
    Ok(Command::Listen(with))
}

/// Parses the arguments of DENY. The default status is 403.
fn parse_deny(text: &[u8]) -> ArrivalRequest {
    let (id, rest) = first_word(text);
    let (digits, reason) = first_word(rest);
    let status = match digits {
        [] => Some(403),
        // RFC 9110 section 15: a status has three digits.
        [b'3'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
            Some(digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
        }
        _ => None,
    };
    ArrivalRequest::Deny { id: id.into(), status, reason: reason.into() }
}

/// Parses the arguments of ATCH.
fn parse_attach(text: &[u8]) -> Result<Command, CommandError> {
    let (pid, mut rest) = first_word(text);
    let (mut seen, mut target) = (None, None);
    while !rest.is_empty() {
        let (option, more) = first_word(rest);
        let valid = if let Some(digits) = option.strip_prefix(b"SEEN=") {
            let digits = Some(digits).filter(|digits| digits.iter().all(u8::is_ascii_digit));
            seen = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            seen.is_some()
        } else {
            let parsed = option.strip_prefix(b"CONN=").and_then(|text| Target::parse_prefix(text).ok());
            target = parsed.filter(|(_, rest)| rest.is_empty()).map(|(target, _)| target);
            target.is_some()
        };
        if !valid {
            return Err(CommandError::Argument("ATCH", "Invalid option"));
        }
        rest = more;
    }
    Ok(Command::Kept(KeptRequest::Attach { pid: pid.into(), seen, target }))
}

/// Parses the arguments of CONN, which are also the value of a `[direct]` listener.
pub(crate) fn parse_connect(text: &[u8], parameters: &Parameters) -> Result<(Target, Parameters), CommandError> {
    let (target, options) =
        Target::parse_prefix(text).map_err(|error| CommandError::Connect(ConnectError::Target(error)))?;
    let mut parameters = parameters.clone();
    parameters.apply(&target, options).map_err(|error| CommandError::Connect(ConnectError::Option(error)))?;
    Ok((target, parameters))
}

/// True if the last word of a line with several is a version of HTTP/1.
fn is_http_request_line(line: &[u8]) -> bool {
    matches!(line, [.., blank, b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]
        if is_blank(*blank) && minor.is_ascii_digit())
}

/// Parses one line, without its newline. `Ok(None)`: the line is blank.
///
/// `parameters` are those that earlier commands have set. CONN applies its options to a copy of them.
pub(crate) fn parse(line: &[u8], parameters: &Parameters) -> Result<Option<Command>, CommandError> {
    let line = trim(line);
    if line.is_empty() {
        return Ok(None);
    }
    // The first line of a request that a browser sends: a page may have it send a method of its own choice, such as STOP, to
    // any address (DNS rebinding). Its version ends the line (RFC 9112 section 3).
    if is_http_request_line(line) {
        return Err(CommandError::Unknown);
    }
    let (word, rest) = first_word(line);
    let spec =
        COMMANDS.iter().find(|spec| word.eq_ignore_ascii_case(spec.name.as_bytes())).ok_or(CommandError::Unknown)?;
    (spec.parse)(rest, parameters).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::options::{Protocol, options};
    use super::super::target::TargetError;
    use super::*;

    fn line(text: &str) -> Result<Option<Command>, CommandError> {
        parse(text.as_bytes(), &Parameters::default())
    }

    #[test]
    fn ignores_case_further_words_and_blank_lines() {
        assert_eq!(line("CAPA"), Ok(Some(Command::Capabilities)));
        assert_eq!(line(" \tcapa some words\r"), Ok(Some(Command::Capabilities)));
        assert_eq!(line("QUIT now"), Ok(Some(Command::Quit)));
        assert_eq!(line("stat json"), Ok(Some(Command::Stat(Some(StatFormat::Json)))));
        assert_eq!(line("STAT Text"), Ok(Some(Command::Stat(Some(StatFormat::Text)))));
        assert_eq!(line("STAT metrics now"), Ok(Some(Command::Stat(Some(StatFormat::Metrics)))));
        assert_eq!(line("STAT"), Ok(Some(Command::Stat(None))));
        assert_eq!(line("STAT all"), Ok(Some(Command::Stat(None))));
        assert_eq!(line(""), Ok(None));
        assert_eq!(line(" \r"), Ok(None));
    }

    /// The method is the page's choice; the rest of the line is the browser's.
    #[test]
    fn rfc9112_3_request_lines_are_no_commands() {
        for request in ["STOP / HTTP/1.1", "STAT /x HTTP/1.0\r", "QUIT  HTTP/1.1 \r", "DROP /abcdefgh HTTP/1.1"] {
            assert_eq!(line(request), Err(CommandError::Unknown), "{request}");
        }
        for words in ["STOP HTTP/1.", "STOP HTTP/1.1 now", "STOP xHTTP/1.1", "STOP http/1.1"] {
            assert_eq!(line(words), Ok(Some(Command::Stop)), "{words}");
        }
        assert_eq!(line("HTTP/1.1"), Err(CommandError::Unknown));
    }

    #[test]
    fn numbers_of_commands_are_strict() {
        assert_eq!(line("RTIM 0"), Ok(Some(Command::ReceiveTimeout(None))));
        assert_eq!(line("RTIM 1e3"), Ok(Some(Command::ReceiveTimeout(Some(Duration::from_secs(1))))));
        assert_eq!(line("PACE 1.5"), Ok(Some(Command::Pace(Some(Duration::from_millis(1500))))));
        assert_eq!(line("BLKS inf"), Ok(Some(Command::BlockSize(block_size(65536.0)))));
        for (text, name, what) in [
            ("RTIM -1", "RTIM", "Invalid timeout"),
            ("RTIM", "RTIM", "Invalid timeout"),
            ("RTIM 1 2", "RTIM", "Invalid timeout"),
            ("RTIM nan", "RTIM", "Invalid timeout"),
            ("PACE x", "PACE", "Invalid pace"),
            ("BLKS 0", "BLKS", "Invalid block size"),
            ("BLKS -inf", "BLKS", "Invalid block size"),
        ] {
            assert_eq!(line(text), Err(CommandError::Argument(name, what)), "{text}");
        }
    }

    #[test]
    fn attach_and_drop() {
        let attach =
            |pid: &[u8], seen| Ok(Some(Command::Kept(KeptRequest::Attach { pid: pid.into(), seen, target: None })));
        assert_eq!(line("ATCH abcdefgh"), attach(b"abcdefgh", None));
        assert_eq!(line(" atch  abcdefgh\tSEEN=0 \r"), attach(b"abcdefgh", Some(0)));
        assert_eq!(line("ATCH p SEEN=1 SEEN=18446744073709551615"), attach(b"p", Some(u64::MAX)));
        assert_eq!(line("ATCH"), attach(b"", None));
        for text in ["h:1", "[::1]:80", "wss://h/p?q=%20"] {
            let (target, _) = Target::parse_prefix(text.as_bytes()).unwrap();
            let expected = KeptRequest::Attach { pid: b"p"[..].into(), seen: Some(1), target: Some(target) };
            assert_eq!(line(&format!("ATCH p SEEN=1 CONN={text}")), Ok(Some(Command::Kept(expected))), "{text}");
        }
        for bad in [
            "ATCH p x",
            "ATCH p SEEN",
            "ATCH p SEEN=",
            "ATCH p SEEN=-1",
            "ATCH p SEEN=+1",
            "ATCH p SEEN=1.0",
            "ATCH p seen=1",
            "ATCH p CONN=",
            "ATCH p CONN=h",
            "ATCH p CONN=h:1/x",
            "ATCH p CONN=ws://:/",
            "ATCH p SEEN=18446744073709551616",
        ] {
            assert_eq!(line(bad), Err(CommandError::Argument("ATCH", "Invalid option")), "{bad}");
        }
        assert_eq!(
            line("DROP abcdefgh and more"),
            Ok(Some(Command::Kept(KeptRequest::Drop { pid: b"abcdefgh"[..].into() })))
        );
        assert_eq!(line("drop"), Ok(Some(Command::Kept(KeptRequest::Drop { pid: b""[..].into() }))));
    }

    #[test]
    fn conn_applies_its_options_to_the_parameters_of_earlier_commands() {
        let before = Parameters { pace: Some(Duration::from_secs(5)), ..Parameters::default() };
        let Ok(Some(Command::Connect(target, with))) = parse(b"CONN host:80  RTIM=100 ", &before) else { panic!() };
        assert_eq!(target.to_string(), "host:80");
        assert_eq!((with.pace, with.receive_timeout), (before.pace, Some(Duration::from_millis(100))));
        assert_eq!(line("CONN"), Err(CommandError::Connect(ConnectError::Target(TargetError::Endpoint))));
        assert_eq!(line("CONN host"), Err(CommandError::Connect(ConnectError::Target(TargetError::Endpoint))));
        assert!(matches!(line("CONN host:1 x"), Err(CommandError::Connect(ConnectError::Option(_)))));
    }

    #[test]
    fn listening() {
        let Ok(Some(Command::Listen(with))) = line("lstn 8080 PRTO=WS PATH=/a WAIT=2 NTFY=3/s/a/p SUBP=x,y RHDR=on")
        else {
            panic!()
        };
        assert!(with.events && with.notify.is_some_and(|notify| notify.notifies()));
        let listen = with.listen.unwrap();
        assert_eq!(
            (listen.protocol, listen.rules.path.as_deref(), listen.wait.as_secs()),
            (Protocol::Ws, Some("/a"), 2)
        );
        assert_eq!((listen.rules.subprotocols.len(), listen.shows_head), (2, true));
        let Ok(Some(Command::Listen(plain))) = line("LSTN *:80") else { panic!() };
        let plain = plain.listen.unwrap();
        assert_eq!((plain.protocol, plain.wait.as_secs(), plain.rules.origins), (Protocol::Tcp, 10, None));
        for bad in ["LSTN", "LSTN 0", "LSTN x", "LSTN name:80"] {
            assert_eq!(line(bad), Err(CommandError::Argument("LSTN", "Invalid port")), "{bad}");
        }
        for secure in ["PRTO=tls", "PRTO=wss PKEY=k.pem"] {
            let refused = Err(CommandError::Argument("LSTN", "CERT is needed"));
            assert_eq!(line(&format!("LSTN 80 {secure}")), refused);
        }
        for (bad, why) in [
            ("x", "Invalid option x"),
            ("KEEP=5", "Invalid option KEEP=5"),
            ("PRTO=udp", "Invalid protocol udp"),
            ("PATH=/a", "Invalid option PATH=/a"),
            ("CERT=a.pem PRTO=ws", "Invalid option CERT=a.pem"),
            ("PRTO=ws PATH=a", "Invalid option PATH=a"),
            ("PRTO=ws PATH=/a?b", "Invalid option PATH=/a?b"),
            ("PRTO=ws AUTH=nocolon", "Invalid option AUTH"),
            ("PRTO=ws AUTH=u%0a:p", "Invalid option AUTH"),
            ("PRTO=ws SUBP=a,a", "Invalid option SUBP=a,a"),
            ("PRTO=ws ORIG=", "Invalid option ORIG="),
        ] {
            let Err(CommandError::Listen(error)) = line(&format!("LSTN 80 {bad}")) else { panic!("{bad}") };
            assert_eq!(String::from_utf8(error.reason()).unwrap(), why);
        }
    }

    #[test]
    fn accept_and_deny() {
        let arrival = |text| match line(text) {
            Ok(Some(Command::Arrival(request))) => request,
            other => panic!("{other:?}"),
        };
        let accept = |id: &[u8], options: &[u8]| ArrivalRequest::Accept { id: id.into(), options: options.into() };
        assert_eq!(arrival("ACPT 1a FRAM=LINE  EVNT=on"), accept(b"1a", b"FRAM=LINE  EVNT=on"));
        assert_eq!(arrival("acpt"), accept(b"", b""));
        for (text, status, reason) in [
            ("DENY 1a", Some(403), ""),
            ("DENY 1a 404", Some(404), ""),
            ("deny 1a 599 Go away", Some(599), "Go away"),
            ("DENY 1a 300", Some(300), ""),
            ("DENY 1a 101", None, ""),
            ("DENY 1a 200", None, ""),
            ("DENY 1a 600", None, ""),
            ("DENY 1a 4040", None, ""),
            ("DENY 1a no", None, ""),
        ] {
            let reason = reason.as_bytes().into();
            assert_eq!(arrival(text), ArrivalRequest::Deny { id: b"1a"[..].into(), status, reason }, "{text}");
        }
    }

    #[test]
    fn unknown_commands() {
        for text in ["HELLO", "CAPABLE", "GET / HTTP/1.1", "CONN:", "\u{0}"] {
            assert_eq!(line(text), Err(CommandError::Unknown), "{text}");
        }
    }

    #[test]
    fn no_option_beyond_part_1_has_the_name_of_a_command() {
        let classic = ["RTIM", "PACE", "BLKS", "NTFY"];
        for option in options().filter(|option| !classic.contains(&option.name)) {
            assert!(COMMANDS.iter().all(|command| command.name != option.name), "{}", option.name);
        }
    }
}
