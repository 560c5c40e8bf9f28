//! Every line that the proxy says to a plugin is made here.

use super::command::{COMMANDS, CommandError};
use super::connect_error::ConnectError;
use super::options::{Protocol, options};

/// The name of the protocol in the greeting. It never changes.
pub const IDENT: &str = "TOGGLEDBITS-SOCKPROXY";
/// The version of the protocol in the greeting. It never changes.
pub const PROTOCOL_VERSION: u32 = 1;
/// What BILD answers: year and day of the year of this release, above the last Lua daemon's 23068.
pub const BUILD: u32 = 26325;

/// Why there is no going on: there is no kept connection of that pid.
pub const NO_SUCH_PID: &str = "No such pid";
/// Why there is no going on: what the plugin has not read is not kept any more.
pub const GAP: &str = "Gap";
/// Why a CONN with KEEP is refused: a plugin is attached to a kept connection of that pid.
pub const PID_IN_USE: &str = "Pid in use";
/// Why a CONN with KEEP is refused: there are as many as there may be.
pub const TOO_MANY_KEPT: &str = "Too many kept connections";

/// `OK TOGGLEDBITS-SOCKPROXY 1 <pid>`, said at once to whoever connects.
pub fn greeting(pid: &[u8]) -> Vec<u8> {
    line(&[format!("OK {IDENT} {PROTOCOL_VERSION} ").as_bytes(), pid])
}

/// True where `line` is a greeting.
pub fn is_greeting(line: &[u8]) -> bool {
    line.ends_with(b"\n") && line.starts_with(format!("OK {IDENT} {PROTOCOL_VERSION} ").as_bytes())
}

/// `OK CONN <pid>`.
pub fn connected(pid: &[u8]) -> Vec<u8> {
    line(&[b"OK CONN ", pid])
}

/// `ERR CONN <reason>`. `protocol`: what is spoken with the target.
pub fn connect_failed(error: &ConnectError, protocol: Protocol) -> Vec<u8> {
    line(&[b"ERR CONN ", &error.reason(protocol)])
}

/// `OK ATCH <pid>`.
pub fn attached(pid: &[u8]) -> Vec<u8> {
    line(&[b"OK ATCH ", pid])
}

/// `ERR <command> <reason>`: what was asked of a kept connection cannot be had.
pub fn kept_refused(command: &str, reason: &str) -> Vec<u8> {
    line(&[format!("ERR {command} {reason}").as_bytes()])
}

/// `OK <command>`.
pub fn ok(command: &str) -> Vec<u8> {
    line(&[b"OK ", command.as_bytes()])
}

/// `OK <build>`.
pub fn build() -> Vec<u8> {
    line(&[format!("OK {BUILD}").as_bytes()])
}

/// `OK CAPA ...`: the words of part 1, then ours, each where what it stands for is there.
pub fn capabilities() -> Vec<u8> {
    const ORDER: [&str; 10] = ["V6", "TLS", "WS", "MESG", "LINE", "DEFL", "LSTN", "KEEP", "EVNT", "JSON"];
    let there =
        |word: &&str| matches!(*word, "V6" | "JSON") || options().any(|option| option.capabilities.contains(word));
    let mut words = vec!["OK CAPA BLKS RTIM NTFY CONN UDP"];
    words.extend(ORDER.iter().copied().filter(there));
    line(&[words.join(" ").as_bytes()])
}

/// HELP: a line a command, and a line an option.
pub fn help() -> Vec<u8> {
    let mut text = String::new();
    for command in COMMANDS {
        let usage = [command.name, command.arguments].join(" ");
        text.push_str(&format!("{} - {}\n", usage.trim_end(), command.help));
    }
    for option in options() {
        text.push_str(&format!(
            "  {}={} - {} (for {}; default {})\n",
            option.name,
            option.value,
            option.help,
            option.targets.name(),
            option.default
        ));
    }
    text.into_bytes()
}

/// The line that refuses a command.
pub fn refused(error: &CommandError) -> Vec<u8> {
    match error {
        CommandError::Unknown => line(&[b"ERR INVALID COMMAND"]),
        // A target that cannot be read speaks no protocol: these errors have one reason for all.
        CommandError::Connect(error) => connect_failed(error, Protocol::Tcp),
        CommandError::Argument(command, what) => line(&[format!("ERR {command} {what}").as_bytes()]),
    }
}

/// The line that refuses a command which is too long.
pub fn line_too_long() -> Vec<u8> {
    refused(&CommandError::Unknown)
}

/// STOP from an address that may not.
pub fn stop_refused() -> Vec<u8> {
    line(&[b"ERR STOP Not allowed"])
}

/// Said to a client whose address may not come in.
pub fn access_refused() -> Vec<u8> {
    line(&[b"ERR ACCESS Not allowed"])
}

/// Said to a client for whom there is no room.
pub fn too_many(what: &str) -> Vec<u8> {
    line(&[format!("ERR ACCESS Too many connections{what}").as_bytes()])
}

/// The head of STAT JSON's answer: `OK STAT <bytes that follow>`.
pub fn stat_json(body: &str) -> Vec<u8> {
    [format!("OK STAT {}\n", body.len()).as_bytes(), body.as_bytes()].concat()
}

/// Joins `parts` to one line. A reply is one line whatever a plugin wrote: control characters become blanks.
fn line(parts: &[&[u8]]) -> Vec<u8> {
    let mut line = parts.concat();
    line.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
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
        assert_eq!(text(refused(&CommandError::Unknown)), "ERR INVALID COMMAND\n");
        assert_eq!(
            text(refused(&CommandError::Connect(ConnectError::Target(TargetError::Endpoint)))),
            "ERR CONN Invalid host:port\n"
        );
        assert_eq!(
            text(refused(&CommandError::Connect(ConnectError::Option(OptionError::Invalid(b"hello"[..].into()))))),
            "ERR CONN Invalid option hello\n"
        );
        assert_eq!(text(refused(&CommandError::Argument("PACE", "Invalid pace"))), "ERR PACE Invalid pace\n");
    }

    #[test]
    fn build_is_above_the_lua_daemons() {
        let number: u32 = text(build()).trim_start_matches("OK ").trim().parse().unwrap();
        assert!(number > 23068);
    }

    #[test]
    fn our_capabilities_follow_the_classic_ones() {
        assert_eq!(text(capabilities()), "OK CAPA BLKS RTIM NTFY CONN UDP V6 TLS WS MESG LINE DEFL KEEP EVNT JSON\n");
    }

    #[test]
    fn help_has_a_line_for_everything() {
        let help = text(help());
        assert_eq!(help.lines().count(), COMMANDS.len() + options().count());
        assert!(help.contains("CONN target [KEY=value ...] - Connect to host:port or to a URL, ws://"));
        assert!(help.contains("  PACE=seconds - "));
    }

    #[test]
    fn a_reply_is_one_line() {
        assert_eq!(
            text(refused(&CommandError::Connect(ConnectError::Option(OptionError::Invalid((*b"a\rb\tc").into()))))),
            "ERR CONN Invalid option a b c\n"
        );
    }
}
