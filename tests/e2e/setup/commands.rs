//! The commands of setup mode, byte for byte: the reply, and whether the connection stays open.

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;

use crate::support::{LIMIT, started};

/// Sends a line, and expects `reply` and an open connection, which a second command shows.
#[track_caller]
fn stays(daemon: &Daemon, line: &str, reply: &str) {
    let mut plugin = daemon.plugin();
    plugin.send(format!("{line}\nBILD\n").as_bytes());
    let answer = plugin.bytes(reply.len());
    assert_eq!(String::from_utf8_lossy(&answer), reply, "{line:?}");
    build_number(&plugin.line());
}

/// Sends a line, and expects `reply` and the end of the stream.
#[track_caller]
fn closes(daemon: &Daemon, line: &str, reply: &str) {
    let mut plugin = daemon.plugin();
    plugin.send(format!("{line}\n").as_bytes());
    assert_eq!(String::from_utf8_lossy(&plugin.rest()), reply, "{line:?}");
}

#[track_caller]
fn build_number(line: &str) -> u64 {
    let number = line.strip_prefix("OK ").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no build number: {line:?}"))
}

#[test]
fn commands_with_a_setting_answer_ok_and_keep_the_connection() {
    let daemon = started();
    for (line, reply) in [
        ("NTFY 12 urn:x-com:serviceId:X1 Act", "OK NTFY\n"),
        ("NTFY 12 urn:x-com:serviceId:X1 Act pid", "OK NTFY\n"),
        ("BLKS 1024", "OK BLKS\n"),
        ("RTIM 1000", "OK RTIM\n"),
        ("RTIM 0", "OK RTIM\n"),
        ("PACE 5", "OK PACE\n"),
        ("PACE 0", "OK PACE\n"),
    ] {
        stays(&daemon, line, reply);
    }
}

#[test]
fn numbers_are_parsed_as_in_lua() {
    let daemon = started();
    for number in ["0x10", "0X1F", "1e3", "1E3", "1.5", ".5", "5.", "inf", "1e99", "+7", " 12", "12 ", "1000\r"] {
        stays(&daemon, &format!("BLKS {number}"), "OK BLKS\n");
        stays(&daemon, &format!("RTIM {number}"), "OK RTIM\n");
        stays(&daemon, &format!("PACE {number}"), "OK PACE\n");
    }
}

#[test]
fn bad_numbers_are_refused_and_close() {
    let daemon = started();
    for bad in ["", " ", " -1", " x", " 1x", " nan", " 0x", " 1 2", " --1", " 1,5", " -inf"] {
        closes(&daemon, &format!("BLKS{bad}"), "ERR BLKS Invalid block size\n");
        closes(&daemon, &format!("RTIM{bad}"), "ERR RTIM Invalid timeout\n");
        closes(&daemon, &format!("PACE{bad}"), "ERR PACE Invalid pace\n");
    }
    closes(&daemon, "BLKS 0", "ERR BLKS Invalid block size\n");
}

#[test]
fn capa_lists_the_original_words_first() {
    let daemon = started();
    let answer = daemon.plugin().command("CAPA");
    let ours = answer.strip_prefix("OK CAPA BLKS RTIM NTFY CONN UDP").unwrap_or_else(|| panic!("{answer:?}"));
    let known = [
        "V6", "TLS", "WS", "MESG", "LINE", "DEFL", "LSTN", "KEEP", "EVNT", "JSON", "LENI", "MCST", "HEAL", "METR",
        "TRAC",
    ];
    let words: Vec<&str> = ours.split_whitespace().collect();
    assert!(words.iter().all(|word| known.contains(word)), "{answer:?}");
    assert!(["V6", "EVNT", "JSON", "MESG", "LINE"].iter().all(|word| words.contains(word)), "{answer:?}");
    assert_eq!(ours.len(), words.iter().map(|word| word.len() + 1).sum::<usize>(), "single blanks: {answer:?}");
    stays(&daemon, "CAPA", &format!("{answer}\n"));
}

#[test]
fn bild_exceeds_the_last_build_of_the_lua_daemon() {
    let daemon = started();
    assert!(build_number(&daemon.plugin().command("BILD")) > 23068);
}

#[test]
fn help_has_a_line_for_each_command() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let build = plugin.command("BILD");
    plugin.send(b"HELP\nBILD\n");
    let lines: Vec<String> = std::iter::from_fn(|| Some(plugin.line()).filter(|line| *line != build)).collect();
    for command in
        ["CONN", "NTFY", "BLKS", "RTIM", "PACE", "ATCH", "DROP", "STAT", "CAPA", "BILD", "HELP", "QUIT", "STOP"]
    {
        assert!(lines.iter().any(|line| line.starts_with(command)), "{command} is not in {lines:#?}");
    }
    assert!(lines.iter().all(|line| !line.is_empty() && !line.contains('\r')), "{lines:#?}");
}

#[test]
fn quit_answers_and_closes() {
    let daemon = started();
    closes(&daemon, "QUIT", "OK QUIT\n");
    closes(&daemon, "QUIT\nBILD", "OK QUIT\n");
}

#[test]
fn stop_answers_closes_all_and_ends_the_daemon() {
    let mut daemon = started();
    let device = Device::start(Kind::Silent);
    let (mut idle, mut busy, mut stopper) = (daemon.plugin(), daemon.plugin(), daemon.plugin());
    busy.conn(device.addr(), "");
    let remote = device.accept(LIMIT);
    stopper.send(b"STOP\n");
    assert_eq!(stopper.rest(), b"OK STOP\n");
    assert!(idle.at_end() && busy.at_end() && crate::support::ends(&remote));
    assert_eq!(daemon.wait_exit(LIMIT).expect("the daemon exits").code(), Some(0));
    assert!(Plugin::connect_raw(daemon.addr()).is_err(), "the port is closed");
}

#[test]
fn any_other_line_is_invalid_and_closes() {
    let daemon = started();
    for line in [
        "HELLO",
        "CAPABLE",
        "XCAPA",
        "CONN:",
        "CONNECT a:1",
        "OK",
        "GET / HTTP/1.1",
        "\u{0}",
        "CAPA\u{0}",
        "\u{ff}\u{fe}",
        "-",
        "* CAPA",
        "RTIM=5",
        "A",
    ] {
        closes(&daemon, line, "ERR INVALID COMMAND\n");
    }
}

#[test]
fn an_error_is_the_last_reply() {
    let daemon = started();
    closes(&daemon, "BLKS 0\nCAPA\nBILD", "ERR BLKS Invalid block size\n");
    closes(&daemon, "nonsense\nCAPA", "ERR INVALID COMMAND\n");
    closes(&daemon, "CONN nowhere\nCAPA", "ERR CONN Invalid host:port\n");
}

#[test]
fn ntfy_takes_any_number_of_words() {
    let daemon = started();
    for words in ["", " 12", " 12 svc", " 12 svc act", " 12 svc act pid", " 12 svc act pid more words", " x y z"] {
        stays(&daemon, &format!("NTFY{words}"), "OK NTFY\n");
    }
}
