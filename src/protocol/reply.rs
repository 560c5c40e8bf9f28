//! The replies of setup mode. Each function returns whole lines, with their newlines.

use std::time::Duration;

use super::command::{COMMANDS, CommandError};
use super::connect_error::ConnectError;
use super::options::{OptionSpec, Protocol, listen_options, options};
use super::printable::printable_bytes;

/// The name of the protocol in the greeting. Plugins check it.
pub(crate) const IDENT: &str = "TOGGLEDBITS-SOCKPROXY";
/// The version of the protocol in the greeting. Plugins check it.
pub(crate) const PROTOCOL_VERSION: u32 = 1;
/// The build number that BILD returns: year and day of the year. The last Lua daemon had 23068; plugins compare.
pub(crate) const BUILD: u32 = 26325;

/// Reason of `ERR ATCH` and `ERR DROP`: no kept connection has that pid.
pub(crate) const NO_SUCH_PID: &str = "No such pid";
/// Reason of `ERR ATCH`: some messages that the plugin has not read are no longer kept.
pub(crate) const GAP: &str = "Gap";
/// Reason of `ERR ATCH`: the kept connection has another target than the plugin expects.
pub(crate) const OTHER_TARGET: &str = "Other target";
/// Reason of `ERR ACPT` and `ERR DENY`: no such connection waits, or its listener has an owner at another address.
pub(crate) const NO_SUCH_ID: &str = "No such id";
/// Reason of `ERR DENY`: the status is none that refuses.
pub(crate) const INVALID_STATUS: &str = "Invalid status";
/// Reason of `ERR LSTN` and `ERR TRAC`: the client's address is not in the list `listen` or `stop`, or `trace` is off.
pub(crate) const NOT_ALLOWED: &str = "Not allowed";
/// Reason of `ERR TRAC`: as many connections are traced as may be, or this one is.
pub(crate) const TOO_MANY_TRACES: &str = "Too many traces";
/// Reason of `ERR LSTN`: a listener of another address has the path.
pub(crate) const PATH_IN_USE: &str = "Path in use";
/// Reason of `ERR LSTN`: as many ports are listened on, or as many listeners share one, as there may be.
pub(crate) const TOO_MANY_LISTENERS: &str = "Too many listeners";
/// Reason of `ERR LSTN`: tls and wss need a certificate.
pub(crate) const NO_CERTIFICATE: &str = "CERT is needed";
/// Reason of `ERR CONN` with KEEP: a plugin is attached to a kept connection with that pid.
pub(crate) const PID_IN_USE: &str = "Pid in use";
/// Reason of `ERR CONN` with KEEP: the limit `kept` is reached.
pub(crate) const TOO_MANY_KEPT: &str = "Too many kept connections";

/// `OK TOGGLEDBITS-SOCKPROXY 1 <pid>`, sent as soon as a plugin has connected.
pub(crate) fn greeting(pid: &[u8]) -> Vec<u8> {
    line(&[format!("OK {IDENT} {PROTOCOL_VERSION} ").as_bytes(), pid])
}

/// True if `line` is a greeting, with its newline.
pub(crate) fn is_greeting(line: &[u8]) -> bool {
    line.ends_with(b"\n") && line.starts_with(format!("OK {IDENT} {PROTOCOL_VERSION} ").as_bytes())
}

/// `OK CONN <pid>`.
pub(crate) fn connected(pid: &[u8]) -> Vec<u8> {
    line(&[b"OK CONN ", pid])
}

/// `ERR CONN <reason>`. `protocol`: what is spoken with the target.
pub(crate) fn connect_failed(error: &ConnectError, protocol: Protocol) -> Vec<u8> {
    line(&[b"ERR CONN ", &error.reason(protocol)])
}

/// `OK ATCH <pid>`.
pub(crate) fn attached(pid: &[u8]) -> Vec<u8> {
    line(&[b"OK ATCH ", pid])
}

/// `ERR <command> <reason>`. The reason may quote the plugin.
pub(crate) fn failed(command: &str, reason: impl AsRef<[u8]>) -> Vec<u8> {
    line(&[format!("ERR {command} ").as_bytes(), reason.as_ref()])
}

/// `OK TRAC <id>`.
pub(crate) fn tracing(id: &[u8]) -> Vec<u8> {
    line(&[b"OK TRAC ", id])
}

/// `OK LSTN <pid>`.
pub(crate) fn listening(pid: &[u8]) -> Vec<u8> {
    line(&[b"OK LSTN ", pid])
}

/// `INCO <id> <peer> <path> <subprotocols>`: a connection has arrived. `head`: the header block of its request, which follows
/// the line.
pub(crate) fn incoming(id: &str, peer: &str, path: &str, subprotocols: &str, head: Option<&[u8]>) -> Vec<u8> {
    let [path, subprotocols] = [path, subprotocols].map(|text| if text.is_empty() { "-" } else { text });
    let mut text = format!("INCO {id} {peer} {path} {subprotocols}");
    if let Some(head) = head {
        text.push_str(&format!(" {}", head.len()));
    }
    let mut bytes = line(&[text.as_bytes()]);
    bytes.extend_from_slice(head.unwrap_or_default());
    bytes
}

/// `OK ACPT <id>`.
pub(crate) fn accepted(id: &[u8]) -> Vec<u8> {
    line(&[b"OK ACPT ", id])
}

/// `OK DENY <id>`.
pub(crate) fn denied(id: &[u8]) -> Vec<u8> {
    line(&[b"OK DENY ", id])
}

/// `OK <command>`.
pub(crate) fn ok(command: &str) -> Vec<u8> {
    line(&[b"OK ", command.as_bytes()])
}

/// `OK <build>`.
pub(crate) fn build() -> Vec<u8> {
    line(&[format!("OK {BUILD}").as_bytes()])
}

/// `OK CAPA ...`: the words of part 1, then those of the declared options.
pub(crate) fn capabilities() -> Vec<u8> {
    const ORDER: [&str; 15] = [
        "V6", "TLS", "WS", "MESG", "LINE", "DEFL", "LSTN", "KEEP", "EVNT", "JSON", "LENI", "MCST", "HEAL", "METR",
        "TRAC",
    ];
    let is_supported = |word: &&str| {
        matches!(*word, "V6" | "JSON" | "METR" | "TRAC")
            || options().chain(listen_options()).any(|option| option.capabilities.contains(word))
    };
    let mut words = vec!["OK CAPA BLKS RTIM NTFY CONN UDP"];
    words.extend(ORDER.iter().copied().filter(is_supported));
    line(&[words.join(" ").as_bytes()])
}

/// HELP: a line for each command, then a line for each option of CONN, then of LSTN. `connect_timeout` is the configured one, which is
/// the default of CTIM.
pub(crate) fn help(connect_timeout: Duration) -> Vec<u8> {
    let mut text = String::new();
    for command in COMMANDS {
        let usage = [command.name, command.arguments].join(" ");
        text.push_str(&format!("{} - {}\n", usage.trim_end(), command.help));
    }
    let mut line = |option: &OptionSpec, command: &str| {
        text.push_str(&format!(
            "  {}={} - {} (for {command}{}; default {})\n",
            option.name,
            option.value,
            option.help,
            option.scope.name(),
            option.default.text(connect_timeout)
        ));
    };
    options().for_each(|option| line(option, ""));
    listen_options().for_each(|option| line(option, "LSTN, "));
    text.into_bytes()
}

/// The reply to a line that is rejected.
pub(crate) fn command_failed(error: &CommandError) -> Vec<u8> {
    match error {
        CommandError::Unknown => line(&[b"ERR INVALID COMMAND"]),
        // These errors have the same reason for all protocols.
        CommandError::Connect(error) => connect_failed(error, Protocol::Tcp),
        CommandError::Listen(error) => failed("LSTN", error.reason()),
        CommandError::Argument(command, what) => failed(command, what),
    }
}

/// The reply to a line that is too long.
pub(crate) fn line_too_long() -> Vec<u8> {
    command_failed(&CommandError::Unknown)
}

/// `ERR STOP`: the client's address is not in the list `stop`.
pub(crate) fn stop_refused() -> Vec<u8> {
    line(&[b"ERR STOP Not allowed"])
}

/// `ERR ACCESS`: the client's address is not in the list `allow`.
pub(crate) fn access_refused() -> Vec<u8> {
    line(&[b"ERR ACCESS Not allowed"])
}

/// `ERR ACCESS`: a limit of connections is reached. `suffix` names the limit.
pub(crate) fn too_many(suffix: &str) -> Vec<u8> {
    line(&[format!("ERR ACCESS Too many connections{suffix}").as_bytes()])
}

/// The reply to STAT with the name of a format: `OK STAT <length>`, with the length of `body` in bytes, then `body`.
pub(crate) fn stat_body(body: &str) -> Vec<u8> {
    [format!("OK STAT {}\n", body.len()).as_bytes(), body.as_bytes()].concat()
}

/// Joins `parts` to one line. Characters that are not printable become blanks, because parts may quote what a plugin wrote.
fn line(parts: &[&[u8]]) -> Vec<u8> {
    let mut line = printable_bytes(&parts.concat(), b' ');
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::options::OptionError;
    use super::super::target::TargetError;
    use super::*;

    fn text(reply: Vec<u8>) -> String {
        String::from_utf8(reply).unwrap()
    }

    #[test]
    fn replies_of_part_1_are_byte_for_byte() {
        assert_eq!(text(greeting(b"1716058a")), "OK TOGGLEDBITS-SOCKPROXY 1 1716058a\n");
        assert_eq!(text(connected(b"0")), "OK CONN 0\n");
        assert_eq!(text(ok("NTFY")), "OK NTFY\n");
        assert!(text(capabilities()).starts_with("OK CAPA BLKS RTIM NTFY CONN UDP "));
        assert_eq!(text(command_failed(&CommandError::Unknown)), "ERR INVALID COMMAND\n");
        assert_eq!(
            text(command_failed(&CommandError::Connect(ConnectError::Target(TargetError::Endpoint)))),
            "ERR CONN Invalid host:port\n"
        );
        assert_eq!(
            text(command_failed(&CommandError::Connect(ConnectError::Option(OptionError::Invalid(
                b"hello"[..].into()
            ))))),
            "ERR CONN Invalid option hello\n"
        );
        assert_eq!(text(command_failed(&CommandError::Argument("PACE", "Invalid pace"))), "ERR PACE Invalid pace\n");
    }

    #[test]
    fn build_is_above_that_of_the_lua_daemon() {
        let number: u32 = text(build()).trim_start_matches("OK ").trim().parse().unwrap();
        assert!(number > 23068);
    }

    #[test]
    fn capabilities_beyond_part_1_come_last() {
        assert_eq!(
            text(capabilities()),
            "OK CAPA BLKS RTIM NTFY CONN UDP V6 TLS WS MESG LINE DEFL LSTN KEEP EVNT JSON LENI MCST HEAL METR TRAC\n"
        );
    }

    #[test]
    fn help_has_a_line_for_every_command_and_option() {
        let help = text(help(Duration::from_millis(1234)));
        assert_eq!(help.lines().count(), COMMANDS.len() + options().count() + listen_options().count());
        assert!(help.contains("CONN target [KEY=value ...] - Connect to host:port or to a URL, ws://"));
        assert!(help.contains("  PACE=seconds - "));
        let line = help.lines().find(|line| line.starts_with("  CTIM=")).unwrap();
        assert!(line.ends_with("default 1234)"), "{line}");
    }

    #[test]
    fn a_reply_is_one_line() {
        let error = ConnectError::Option(OptionError::Invalid((*b"a\rb\tc").into()));
        assert_eq!(text(connect_failed(&error, Protocol::Tcp)), "ERR CONN Invalid option a b c\n");
        let error = ConnectError::Option(OptionError::Invalid((*b"a\x7fb\xc2\x9bc").into()));
        assert_eq!(text(connect_failed(&error, Protocol::Tcp)), "ERR CONN Invalid option a b c\n");
    }
}
