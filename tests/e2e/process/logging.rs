//! The log: its content, its file and size, and the system log.

use std::fs;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use testkit::daemon::{Builder, Daemon};
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::websocket::{CLOSE, Server, close_of};

use crate::support::{
    LIMIT, Scratch, accepted, command, conn_answer, daemon, echo_mode, eventually, may_mount, started, wait_listening,
    with_mounts,
};

/// A daemon that logs to a file, and the port it listens on.
struct Filed {
    daemon: Daemon,
    port: Reserved,
}

impl Filed {
    #[track_caller]
    fn start(config: &str, path: &str) -> Filed {
        let port = Reserved::new().unwrap();
        let config = format!("[host]\nlog={path}\n{config}\n");
        let daemon = daemon().config(&config).port(port.port()).spawn();
        wait_listening(port.addr());
        Filed { daemon, port }
    }

    /// Opens and closes a connection, which is logged; returns its pid.
    fn connect_and_quit(&self) -> String {
        let mut plugin = Plugin::connect(self.port.addr());
        assert_eq!(plugin.command("QUIT"), "OK QUIT");
        plugin.pid().to_owned()
    }
}

#[test]
fn a_connection_is_logged_from_beginning_to_end() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    let pid = plugin.conn(device.addr(), "");
    drop(accepted(&device));
    assert!(plugin.at_end());
    drop(plugin);
    let own = |word: &str| daemon.wait_for_log(LIMIT, |line| line.contains(&pid) && line.contains(word));
    own("connection from 127.0.0.1");
    own(&format!("connected to {}", device.addr()));
    own("closed");
    let line = &daemon.log_lines()[0];
    let stamp = line.split_whitespace().next().unwrap_or_default();
    assert!(stamp.starts_with("20") && stamp.matches('-').count() == 2, "lines begin with the date: {line:?}");
}

#[test]
fn control_characters_from_a_plugin_do_not_break_the_log() {
    let daemon = daemon().arg("-D").start();
    let mut plugin = daemon.plugin();
    plugin.send(b"CONN \x1b[2Jhost\x07:80 NTFY=5/a\x0bb/c\x85\x9b\n");
    plugin.rest();
    let mut plugin = daemon.plugin();
    plugin.send(b"CONN nowhere:99999 EV\x1b]0;title\x07NT=on\n");
    plugin.rest();
    daemon.wait_for_log(LIMIT, |line| line.contains("Invalid option EV"));
    let lines = daemon.log_lines();
    assert!(lines.iter().all(|line| line.chars().all(|c| !c.is_control())), "{lines:#?}");
}

#[test]
fn hup_reopens_a_file_that_was_renamed() {
    let scratch = Scratch::new();
    let filed = Filed::start("", &scratch.path("log"));
    let first = filed.connect_and_quit();
    fs::rename(scratch.path("log"), scratch.path("log.1")).unwrap();
    let second = filed.connect_and_quit();
    eventually("the line is in the file", || scratch.read("log.1").contains(&second).then_some(()));
    filed.daemon.signal(Signal::SIGHUP);
    eventually("there is a new file", || scratch.read("log").contains("read anew").then_some(()));
    let third = filed.connect_and_quit();
    eventually("the line is in the new file", || scratch.read("log").contains(&third).then_some(()));
    assert!(scratch.read("log.1").contains(&first) && !scratch.read("log.1").contains(&third));
}

#[test]
fn hup_moves_the_log_to_the_configured_file() {
    let scratch = Scratch::new();
    let filed = Filed::start("", &scratch.path("one"));
    fs::write(filed.daemon.dir().join("sockproxyd.conf"), format!("[host]\nlog={}\n", scratch.path("two"))).unwrap();
    filed.daemon.signal(Signal::SIGHUP);
    eventually("the line is there", || scratch.read("two").contains("read anew").then_some(()));
}

#[test]
fn a_log_that_cannot_be_reopened_stays_in_the_old_file() {
    let scratch = Scratch::new();
    let filed = Filed::start("", &scratch.path("log"));
    let config = format!("[host]\nlog={}\n", scratch.path("no/such/directory/log"));
    fs::write(filed.daemon.dir().join("sockproxyd.conf"), config).unwrap();
    filed.daemon.signal(Signal::SIGHUP);
    eventually("the error is logged", || scratch.read("log").contains("no/such/directory").then_some(()));
    let pid = filed.connect_and_quit();
    eventually("logging goes on", || scratch.read("log").contains(&pid).then_some(()));
}

#[test]
fn a_file_is_appended_to() {
    let scratch = Scratch::new();
    let path = scratch.write("log", "what was before\n");
    let filed = Filed::start("", &path);
    let pid = filed.connect_and_quit();
    eventually("the line is there", || scratch.read("log").contains(&pid).then_some(()));
    assert!(scratch.read("log").starts_with("what was before\n"));
}

#[test]
fn the_log_and_its_predecessor_stay_within_logmax_with_the_newest_lines() {
    const BOUND: usize = 8000;
    let scratch = Scratch::new();
    let filed = Filed::start(&format!("logmax={BOUND}"), &scratch.path("log"));
    let mut last = String::new();
    for _ in 0..300 {
        last = filed.connect_and_quit();
        let size = |name| fs::metadata(scratch.path(name)).map_or(0, |data| data.len() as usize);
        let (new, old) = (size("log"), size("log.old"));
        assert!(new + old <= BOUND, "{new} + {old} bytes");
    }
    eventually("the last line is there", || scratch.read("log").contains(&last).then_some(()));
    let both = scratch.read("log.old") + &scratch.read("log");
    assert!(both.len() > BOUND / 4, "the files are smaller than needed: {}", both.len());
}

#[test]
fn logmax_0_disables_the_limit() {
    let scratch = Scratch::new();
    let filed = Filed::start("logmax=0", &scratch.path("log"));
    let first = filed.connect_and_quit();
    let last = (0..200).fold(None, |_, _| Some(filed.connect_and_quit())).unwrap();
    eventually("all lines are there", || scratch.read("log").contains(&last).then_some(()));
    assert!(scratch.read("log").contains(&first) && scratch.read("log.old").is_empty());
}

/// A daemon whose `/dev` has the test's log socket, or none.
fn with_dev(scratch: &Scratch, builder: Builder) -> Builder {
    let dev = scratch.path("dev");
    let devices = "null zero random urandom";
    let mounts =
        format!("for d in {devices}; do touch {dev}/$d; mount --bind /dev/$d {dev}/$d; done; mount --rbind {dev} /dev");
    with_mounts(builder, &mounts)
}

#[test]
fn syslog_lines_have_priority_name_and_pid() {
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("dev")).unwrap();
    let socket = UnixDatagram::bind(scratch.path("dev/log")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let port = Reserved::new().unwrap();
    let daemon = with_dev(&scratch, daemon().port(port.port()).args(&["-L", "syslog"])).spawn();
    let plugin = wait_listening(port.addr());
    let mut line = [0; 2048];
    let line = loop {
        let length = socket.recv(&mut line).unwrap();
        let text = String::from_utf8_lossy(&line[..length]).into_owned();
        if text.contains(plugin.pid()) {
            break text;
        }
    };
    // 30 is daemon.info (RFC 3164 section 4.1.1).
    let start = format!("<30>sockproxyd[{}]: ", daemon.pid());
    assert!(line.starts_with(&start) && line.contains("connection from 127.0.0.1"), "{line:?}");
    assert_eq!(daemon.log_text(), "");
}

#[test]
fn without_a_system_log_lines_go_to_standard_error() {
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("dev")).unwrap();
    let daemon = with_dev(&scratch, daemon().args(&["-L", "syslog"])).start();
    let (plugin, _remote) = echo_mode(&daemon, "");
    daemon.wait_for_log(LIMIT, |line| line.contains(plugin.pid()) && line.contains("connected to"));
    // A system log that starts later is used.
    let socket = UnixDatagram::bind(scratch.path("dev/log")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let plugin = daemon.plugin();
    let mut line = [0; 2048];
    let length = socket.recv(&mut line).unwrap();
    assert!(String::from_utf8_lossy(&line[..length]).contains(plugin.pid()));
}

/// Regression: the daemon blocked when standard error was a full pipe.
#[test]
fn an_unread_standard_error_does_not_block_the_daemon() {
    use std::io::{BufRead, BufReader, Read};
    let mut command = command(&["-a", "127.0.0.1", "-p", "0", "-D"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address: std::net::SocketAddr = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    // Each connection logs three lines of some 50 bytes; a pipe holds 64 KiB.
    for _ in 0..1000 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"OK");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Level and text of a line as docs/configuration.md describes it.
fn parse_line(line: &str) -> Option<(&str, &str)> {
    let is_like = |text: &str, model: &str| {
        let same = |(byte, model): (u8, u8)| if model == b'0' { byte.is_ascii_digit() } else { byte == model };
        text.len() == model.len() && text.bytes().zip(model.bytes()).all(same)
    };
    let (stamp, level, text) = (line.get(..23)?, line.get(23..30)?, line.get(30..)?);
    let level = level.strip_prefix(' ')?.strip_suffix(' ')?;
    let is_printable = |c: char| !c.is_control() && !"\u{2028}\u{2029}\u{202e}\u{2066}".contains(c);
    let is_line = is_like(stamp, "0000-00-00 00:00:00.000")
        && ["ERROR", "WARN ", "INFO ", "DEBUG"].contains(&level)
        && !text.is_empty()
        && text.chars().all(is_printable);
    is_line.then_some((level.trim_end(), text))
}

/// Pid, reason and steps of connecting in the text of an end as docs/configuration.md describes it.
fn parse_end(text: &str) -> Option<(&str, &str, Vec<&str>)> {
    let (pid, rest) = text.split_once(" closed: ")?;
    let is_pid = pid.strip_prefix('L').unwrap_or(pid).bytes().all(|byte| byte.is_ascii_hexdigit());
    let (rest, sent) = rest.rsplit_once(", sent ")?;
    let (rest, received) = rest.rsplit_once(", received ")?;
    let (reason, target) = rest.rsplit_once("; ")?;
    let (sent, times) = sent.split_once("; ").unwrap_or((sent, ""));
    let step = |step: &'_ str| {
        let (name, seconds) = step.strip_suffix(" s").and_then(|step| step.split_once(' ')).expect("a step");
        assert!(seconds.parse::<f64>().is_ok() && seconds.split('.').nth(1).is_some_and(|ms| ms.len() == 3), "{text}");
        name.len()
    };
    let steps = times.split(", ").filter(|step| !step.is_empty()).map(|text| &text[..step(text)]).collect();
    let numbers = [received, sent].iter().all(|number| number.parse::<u64>().is_ok());
    (is_pid && numbers && !target.contains(' ')).then_some((pid, reason, steps))
}

#[test]
fn every_line_of_a_busy_log_has_the_documented_format() {
    const FORGED: &str = "\r\n2026-11-21 09:15:02.123 ERROR forged\r\u{2028}\u{202e}\x1b[2J\u{85}\x07";
    let daemon = daemon().arg("-D").config("[limits]\nkept=10\n").start();
    let mut ends = Vec::new();
    // What peers send: reasons of HTTP responses and of close frames, redirects.
    let reason = FORGED.replace('\n', "");
    let responses = [
        "HTTP/1.1 403 \u{85}2026-11-21 09:15:02.123 ERROR forged\u{202e}\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 403 {reason}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 302 Found\r\nLocation: /{reason}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 101 {reason}\r\nUpgrade: {reason}\r\n\r\n"),
        FORGED.to_owned(),
    ];
    for response in responses {
        let server = Server::start(move |mut peer| {
            peer.request()?;
            peer.send(response.as_bytes())?;
            peer.end()
        });
        conn_answer(&daemon, &server.url("/"), "");
    }
    let server = Server::start(|mut peer| {
        peer.upgrade()?;
        peer.send_frame(CLOSE, &close_of(1001, FORGED))?;
        peer.end()
    });
    let mut plugin = daemon.plugin();
    ends.push((plugin.conn(server.url("/"), ""), vec!["connect", "upgrade"]));
    plugin.rest();
    // What plugins send.
    let forged = FORGED.replace(['\r', '\n'], "\x0b").replace(' ', "\u{a0}");
    for line in [format!("CONN {forged}:80"), format!("CONN h:1 {forged}=1"), format!("NTFY 5 a/{forged} a"), forged] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("{line}\nCONN 127.0.0.1:1\n").as_bytes());
        plugin.rest();
    }
    for options in ["", "NTFY=5/urn:x/a EVNT=on PACE=1", "RTIM=60000 BLKS=5"] {
        for _ in 0..10 {
            let (plugin, remote) = echo_mode(&daemon, options);
            ends.push((plugin.pid().to_owned(), vec!["connect"]));
            drop((plugin, remote));
        }
    }
    daemon.signal(Signal::SIGUSR1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(LIMIT, |line| line.contains("read anew"));
    for (pid, _) in &ends {
        daemon.wait_for_log(LIMIT, |line| line.contains(&format!(" {pid} closed: ")));
    }
    let lines = daemon.complete_log_text();
    let lines: Vec<(&str, &str)> =
        lines.lines().map(|line| parse_line(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
    assert!(lines.iter().filter(|(_, text)| text.contains("forged")).count() >= 3, "{lines:#?}");
    assert!(lines.iter().all(|(level, text)| *level != "ERROR" && !text.starts_with("forged")), "{lines:#?}");
    for (pid, steps) in &ends {
        let mut closed = lines.iter().filter_map(|(_, text)| parse_end(text).filter(|end| end.0 == pid));
        let (_, reason, found) = closed.next().unwrap_or_else(|| panic!("no end of {pid} in {lines:#?}"));
        assert_eq!((&found, closed.next()), (steps, None), "{pid}: {reason}");
    }
}
