//! STAT TEXT: tables for people, which `--status` prints. The columns may change; programs read STAT JSON.

use std::fmt::Write;

use super::table::duration;
use super::{DaemonStatus, ListenerStatus};
use crate::config::Limits;
use crate::protocol::printable::printable;
use crate::session::Snapshot;

/// The status as tables. Texts that plugins and remotes chose control no terminal.
pub(crate) fn text(daemon: &DaemonStatus, limits: &Limits, sessions: impl Iterator<Item = Snapshot>) -> String {
    let mut text = String::new();
    let counters = &daemon.notifications;
    let latency =
        counters.latency.map_or_else(|| "-".to_owned(), |latency| format!("{} ms", latency.as_millis() as u64));
    // Writing to memory cannot fail.
    let _ = writeln!(
        text,
        "sockproxyd {}, up {}: {} connections accepted, {} refused; {} of {} bytes held, and {} of history",
        env!("CARGO_PKG_VERSION"),
        duration(daemon.uptime),
        daemon.accepted,
        daemon.refused,
        daemon.buffered,
        limits.buffers,
        daemon.history,
    );
    let _ = writeln!(
        text,
        "notifications: {} sent, {} delivered, {} failed, {} retried, {} dropped, {} pending; latency {latency}",
        counters.sent, counters.delivered, counters.failed, counters.retried, counters.dropped, daemon.pending,
    );
    text.push_str("\nLISTENER                LEADS TO\n");
    for listener in &daemon.listeners {
        let _ = writeln!(text, "{:<23} {}", listener.address, printable(&leads_to(listener)));
    }
    connection(&mut text, ["ID", "STATE", "PROTO", "AGE", "IDLE", "RECEIVED", "SENT", "NOTIFIED", "CLIENT", "TARGET"]);
    for session in sessions {
        connection(
            &mut text,
            [
                &session.pid,
                session.state.name(),
                session.protocol.name(),
                &duration(session.uptime),
                &duration(session.idle),
                &session.totals.received.to_string(),
                &session.totals.sent.to_string(),
                &session.last_notification.map_or_else(|| "-".to_owned(), |outcome| outcome.name()),
                &session.client,
                &printable(&session.remote),
            ],
        );
    }
    if !daemon.ended.is_empty() {
        text.push_str("\nENDED     AGO   TARGET AND REASON\n");
    }
    for (ago, ended) in &daemon.ended {
        let (target, reason) = (printable(&ended.target), printable(&ended.reason));
        let _ = writeln!(text, "{:<9} {:<5} {target}: {reason}", ended.pid.to_string(), duration(*ago));
    }
    text
}

/// Appends a row of the table of connections; before its header, an empty line.
fn connection(text: &mut String, cells: [&str; 10]) {
    let [id, state, protocol, age, idle, received, sent, notified, client, target] = cells;
    if id == "ID" {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "{id:<9} {state:<10} {protocol:<5} {age:<6} {idle:<6} {received:>11} {sent:>11}  {notified:<11} {client:<15} {target}"
    );
}

fn leads_to(listener: &ListenerStatus) -> String {
    if let Some((protocol, owners)) = &listener.plugins {
        let owners: Vec<String> = owners
            .iter()
            .map(|(id, path, waiting)| format!("plugin {id} {} ({waiting} waiting)", path.as_deref().unwrap_or("-")))
            .collect();
        return format!("{}: {}", protocol.name(), owners.join(", "));
    }
    match (&listener.target, &listener.path) {
        (None, _) => "setup mode".into(),
        (Some(target), Some(path)) => format!("{target} ({path})"),
        (Some(target), None) => target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{daemon, session};
    use super::*;
    use crate::config::Config;
    use crate::session::SnapshotState;

    #[test]
    fn the_tables_say_what_stat_json_says_and_control_no_terminal() {
        let limits = Config::default().limits;
        let shown = text(&daemon(), &limits, [session(SnapshotState::Relaying)].into_iter());
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        for line in [
            "notifications: 5 sent, 4 delivered, 0 failed, 1 retried, 0 dropped, 0 pending; latency 12 ms",
            "0.0.0.0:2504            setup mode",
            "7         echo       ws    01m30  00m01           10          20  delivered   10.0.0.1        a\"\\?b:80",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line:?} is not in\n{shown}");
        }
    }

    #[test]
    fn the_header_stands_above_its_columns() {
        let shown = text(&daemon(), &Config::default().limits, [session(SnapshotState::Parked)].into_iter());
        let header = shown.lines().find(|line| line.starts_with("ID")).unwrap();
        let row = shown.lines().find(|line| line.starts_with("7 ")).unwrap();
        assert_eq!(header.find("STATE"), row.find("parked"));
        assert_eq!(header.find("TARGET"), row.find("a\""));
    }
}
