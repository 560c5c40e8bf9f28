//! `--status`: asks a proxy on this machine for its status, and prints it. Blocks.
//!
//! The proxy writes the tables and the metrics itself: it has what they are made of, and a program that made them of STAT JSON
//! would need a parser for JSON, which nothing else in the binary uses.

use std::io::{self, IsTerminal, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::reason;
use crate::probe::{connect, printable, read, read_line};
use crate::protocol::command::StatFormat;

/// Time for the greeting, and for each answer. The proxy may be busy, on a machine that boots for seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two prints of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Longest status in bytes: 200000 connections (`connections=`) take less than 1 KiB each.
const MAX_STATUS_LEN: usize = 200 << 20;

/// Prints the status of the proxy that listens on `address` (as in the configuration) and `port`: once, or with `watch` every
/// second until it fails. The error is a message of one line.
pub(crate) fn show_status(address: &str, port: u16, format: StatFormat, watch: bool) -> Result<(), String> {
    let mut proxy = connect(address, port, Instant::now() + ANSWER_TIMEOUT)?;
    let mut out = io::stdout();
    // Only then is there something to clear and to colour. https://no-color.org
    let is_terminal = out.is_terminal();
    let coloured = is_terminal && format == StatFormat::Text && std::env::var_os("NO_COLOR").is_none();
    loop {
        let mut status = ask(&mut proxy, format).map_err(|error| format!("no status: {error}"))?;
        if coloured {
            status = colour(&status);
        }
        // JSON ends without a line.
        if !status.ends_with(b"\n") || (watch && !is_terminal && format == StatFormat::Text) {
            status.push(b'\n');
        }
        let clear: &[u8] = if watch && is_terminal { b"\x1b[H\x1b[2J" } else { b"" };
        let written = out.write_all(clear).and_then(|()| out.write_all(&status)).and_then(|()| out.flush());
        // A reader that has gone is no error.
        if !watch || written.is_err() {
            return Ok(());
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

/// Asks for the status.
fn ask(proxy: &mut TcpStream, format: StatFormat) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    exchange(proxy, format, deadline).unwrap_or_else(|error| Err(reason(&error)))
}

/// The status, or what the proxy answers in its place.
fn exchange(proxy: &mut TcpStream, format: StatFormat, deadline: Instant) -> io::Result<Result<Vec<u8>, String>> {
    proxy.write_all(format!("STAT {}\n", format.name()).as_bytes())?;
    let line = read_line(proxy, deadline)?;
    let text = std::str::from_utf8(&line).unwrap_or_default();
    let length = text.strip_prefix("OK STAT ").and_then(|length| length.trim_end().parse::<usize>().ok());
    let Some(length) = length.filter(|length| *length <= MAX_STATUS_LEN) else {
        // A proxy that does not know the format answers with its table.
        return Ok(Err(format!("the proxy answers: {}", printable(&line))));
    };
    let mut status = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read(proxy, &mut status[filled..], deadline)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(Ok(status))
}

/// The tables with their headers in bold type and parked connections in yellow.
fn colour(text: &[u8]) -> Vec<u8> {
    let mut coloured = Vec::new();
    // Where the table has the state of a connection.
    let mut state_column = None;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let is_header = [&b"LISTENER "[..], b"ID ", b"ENDED "].iter().any(|header| line.starts_with(header));
        if is_header {
            state_column = line.windows(7).position(|word| word == b" STATE ").map(|blank| blank + 1);
        }
        let shown_state = state_column.and_then(|column| line.get(column..)).unwrap_or_default();
        let style: &[u8] = match is_header {
            true => b"\x1b[1m",
            false if shown_state.starts_with(b"parked ") => b"\x1b[33m",
            false => b"\x1b[0m",
        };
        coloured.extend_from_slice(style);
        coloured.extend_from_slice(line);
    }
    coloured.extend_from_slice(b"\x1b[0m");
    coloured
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// What asking a server comes to that answers with `bytes`.
    fn asked(bytes: &'static [u8]) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            client.write_all(bytes).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            // Closing with unread bytes would reset the connection.
            let _ = client.read_to_end(&mut Vec::new());
        });
        let result = connect("127.0.0.1", address.port(), Instant::now() + Duration::from_secs(30))
            .and_then(|mut proxy| ask(&mut proxy, StatFormat::Json));
        server.join().unwrap();
        result
    }

    #[test]
    fn answers_are_read_whole_or_reported() {
        assert_eq!(asked(b"OK TOGGLEDBITS-SOCKPROXY 1 7\nOK STAT 2\n{}"), Ok(b"{}".to_vec()));
        for (answer, part) in [
            (&b"OK TOGGLEDBITS-SOCKPROXY 1 7\nOK STAT 3\n{}"[..], "end of file"),
            (b"OK TOGGLEDBITS-SOCKPROXY 1 7\n ID       St\x1b[2J\n", "the proxy answers:  ID       St?[2J"),
            (b"OK TOGGLEDBITS-SOCKPROXY 1 7\nOK STAT 99999999999\n", "the proxy answers: OK STAT 99999999999"),
            (b"ERR ACCESS Not allowed\n", "is not a proxy, or refuses access: ERR ACCESS Not allowed"),
        ] {
            let error = asked(answer).unwrap_err();
            assert!(error.contains(part), "{error:?} has no {part:?}");
        }
    }

    #[test]
    fn headers_and_parked_connections_are_coloured() {
        assert_eq!(
            colour(b"ID        STATE   PROTO\n1         parked  ws\n2         echo    parked \n"),
            b"\x1b[1mID        STATE   PROTO\n\x1b[33m1         parked  ws\n\x1b[0m2         echo    parked \n\x1b[0m"
        );
    }
}
