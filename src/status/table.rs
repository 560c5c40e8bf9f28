//! STAT's table: columns that people and plugins have read for years.

use std::time::Duration;

use crate::session::Snapshot;

/// The line above the table.
pub fn header() -> Vec<u8> {
    columns(b' ', ["ID", "St", "Idle", "Uptim", "Client", "Remote", "#recv", "#xmit"], b"Notify")
}

/// A connection's line; `own` marks the asker's.
pub fn row(shown: &Snapshot, own: bool) -> Vec<u8> {
    let (state, received, sent) = (shown.state.digit().to_string(), shown.received.to_string(), shown.sent.to_string());
    columns(
        if own { b'*' } else { b' ' },
        [
            &shown.pid,
            &state,
            &duration(shown.idle),
            &duration(shown.uptime),
            &shown.client,
            &shown.remote,
            &received,
            &sent,
        ],
        &shown.notify,
    )
}

fn columns(mark: u8, [id, state, idle, uptime, client, remote, received, sent]: [&str; 8], notify: &[u8]) -> Vec<u8> {
    let mut line = vec![mark];
    line.extend_from_slice(
        format!("{id:<8} {state:<2} {idle:<5}|{uptime:<5} {client:<16} {remote:<21} {received:>6} {sent:>6} ")
            .as_bytes(),
    );
    // A plugin may have put anything there; a line stays a line.
    line.extend(notify.iter().map(|&byte| if byte < b' ' { b' ' } else { byte }));
    line.push(b'\n');
    line
}

/// `MMmSS`, and `HHhMM` from 100 minutes.
fn duration(duration: Duration) -> String {
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
    fn the_header_is_the_classic_one() {
        assert_eq!(
            String::from_utf8(header()).unwrap(),
            " ID       St Idle |Uptim Client           Remote                 #recv  #xmit Notify\n"
        );
    }
}
