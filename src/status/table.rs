//! The table of STAT. Plugins and scripts parse its columns, so they stay as in the Lua daemon.

use std::time::Duration;

use crate::protocol::printable::{printable, printable_bytes};
use crate::session::Snapshot;

/// The header line.
pub(crate) fn header() -> Vec<u8> {
    columns(b' ', ["ID", "St", "Idle", "Uptim", "Client", "Remote", "#recv", "#xmit"], b"Notify")
}

/// The line of a connection. `is_own`: the connection that sent STAT, which is marked with a star.
pub(crate) fn row(session: &Snapshot, is_own: bool) -> Vec<u8> {
    let (state, received, sent) =
        (session.state.digit().to_string(), session.totals.received.to_string(), session.totals.sent.to_string());
    columns(
        if is_own { b'*' } else { b' ' },
        [
            &session.pid,
            &state,
            &duration(session.idle),
            &duration(session.uptime),
            &session.client,
            &session.remote,
            &received,
            &sent,
        ],
        &session.notify,
    )
}

fn columns(mark: u8, [id, state, idle, uptime, client, remote, received, sent]: [&str; 8], notify: &[u8]) -> Vec<u8> {
    let mut line = vec![mark];
    // The plugin chose the remote and the notification. Nothing in them must end the line or control a terminal.
    let remote = printable(remote);
    line.extend_from_slice(
        format!("{id:<8} {state:<2} {idle:<5}|{uptime:<5} {client:<16} {remote:<21} {received:>6} {sent:>6} ")
            .as_bytes(),
    );
    line.extend(printable_bytes(notify, b'?'));
    line.push(b'\n');
    line
}

/// `MMmSS`, or from 100 minutes on `HHhMM`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (units, letter) = if seconds >= 6000 { (seconds / 60, 'h') } else { (seconds, 'm') };
    format!("{:02}{letter}{:02}", units / 60, units % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in
            [(0, "00m00"), (59, "00m59"), (60, "01m00"), (5999, "99m59"), (6000, "01h40"), (360_000, "100h00")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_a_plugin_wrote_ends_no_line_and_controls_no_terminal() {
        let cells = ["1", "1", "0", "0", "c", "ho\x1b[2Jst\r\u{9b}:80", "0", "0"];
        let line = columns(b' ', cells, b"5/a\nb\x7f/\xe2\x80\xae/\x9b/p");
        assert_eq!(
            String::from_utf8(line).unwrap(),
            " 1        1  0    |0     c                ho?[2Jst??:80              0      0 5/a?b?/?/?/p\n"
        );
    }

    #[test]
    fn the_header_is_that_of_the_lua_daemon() {
        assert_eq!(
            String::from_utf8(header()).unwrap(),
            " ID       St Idle |Uptim Client           Remote                 #recv  #xmit Notify\n"
        );
    }
}
