//! STAT METRICS: the text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::DaemonStatus;
use crate::config::Limits;
use crate::protocol::number;
use crate::protocol::printable::printable;
use crate::protocol::reply::BUILD;
use crate::session::{Snapshot, SnapshotState};

/// What a metric can do.
const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// The status as metrics. The lines of a metric must stand together, so those of connections are gathered while the sessions
/// are passed once. Only connections in echo mode have metrics of their own.
pub(crate) fn metrics(daemon: &DaemonStatus, limits: &Limits, sessions: impl Iterator<Item = Snapshot>) -> String {
    let mut states = [0u64; SnapshotState::ALL.len()];
    let (mut received, mut sent, mut idle) = (String::new(), String::new(), String::new());
    for session in sessions {
        if let Some(count) = states.get_mut(session.state as usize) {
            *count += 1;
        }
        if session.state.digit() == 2 {
            let labels = format!(
                "{{id=\"{}\",target=\"{}\",protocol=\"{}\"}}",
                session.pid,
                label(&session.remote),
                session.protocol.name()
            );
            sample(&mut received, "connection_received_bytes_total", &labels, session.totals.received as f64);
            sample(&mut sent, "connection_sent_bytes_total", &labels, session.totals.sent as f64);
            sample(&mut idle, "connection_idle_seconds", &labels, session.idle.as_secs_f64());
        }
    }
    let mut text = String::new();
    let build = format!("{{version=\"{}\",build=\"{BUILD}\"}}", env!("CARGO_PKG_VERSION"));
    head(&mut text, "build_info", GAUGE, "The version of the proxy.");
    sample(&mut text, "build_info", &build, 1.0);
    let counters = &daemon.notifications;
    let values = [
        ("uptime_seconds", GAUGE, "Time since the start.", daemon.uptime.as_secs_f64()),
        ("connections_accepted_total", COUNTER, "Connections accepted.", daemon.accepted as f64),
        ("connections_refused_total", COUNTER, "Connections refused.", daemon.refused as f64),
        ("connections_limit", GAUGE, "Connections that may be open.", limits.connections as f64),
        ("buffered_bytes", GAUGE, "Memory held for connections.", daemon.buffered as f64),
        ("buffered_limit_bytes", GAUGE, "Memory that may be held for connections.", limits.buffers as f64),
        ("history_bytes", GAUGE, "Memory held of kept connections after delivery.", daemon.history as f64),
        ("notifications_sent_total", COUNTER, "Requests to Luup.", counters.sent as f64),
        ("notifications_delivered_total", COUNTER, "Requests that Luup accepted.", counters.delivered as f64),
        ("notifications_failed_total", COUNTER, "Notifications that Luup refused.", counters.failed as f64),
        ("notifications_retried_total", COUNTER, "Requests that repeat a failed one.", counters.retried as f64),
        ("notifications_dropped_total", COUNTER, "Closing notices dropped.", counters.dropped as f64),
        ("notifications_pending", GAUGE, "Notifications that wait.", daemon.pending as f64),
    ];
    for (name, kind, help, value) in values {
        head(&mut text, name, kind, help);
        sample(&mut text, name, "", value);
    }
    if let Some(latency) = counters.latency {
        head(&mut text, "notification_latency_seconds", GAUGE, "How long Luup takes to accept a request, a mean.");
        sample(&mut text, "notification_latency_seconds", "", latency.as_secs_f64());
    }
    head(&mut text, "connections", GAUGE, "Connections by their state.");
    for (state, count) in SnapshotState::ALL.iter().zip(states) {
        sample(&mut text, "connections", &format!("{{state=\"{}\"}}", state.name()), count as f64);
    }
    for (name, kind, help, lines) in [
        ("connection_received_bytes_total", COUNTER, "Bytes from the remote.", received),
        ("connection_sent_bytes_total", COUNTER, "Bytes to the remote.", sent),
        ("connection_idle_seconds", GAUGE, "Time since the remote last sent something.", idle),
    ] {
        head(&mut text, name, kind, help);
        text.push_str(&lines);
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    text.extend(["# HELP sockproxyd_", name, " ", help, "\n# TYPE sockproxyd_", name, " ", kind, "\n"]);
}

fn sample(text: &mut String, name: &str, labels: &str, value: f64) {
    text.extend(["sockproxyd_", name, labels, " ", &number::format(value), "\n"]);
}

/// The value of a label: backslashes and quotes are escaped. Line ends are not printable, and have become `?`.
fn label(value: &str) -> String {
    printable(value).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{daemon, session};
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_sample_stands_below_the_help_and_type_of_its_metric() {
        let sessions =
            [session(SnapshotState::Relaying), session(SnapshotState::Parked), session(SnapshotState::Setup)];
        let text = metrics(&daemon(), &Config::default().limits, sessions.into_iter());
        assert!(text.ends_with('\n'));
        let mut known = std::collections::HashSet::new();
        let (mut helped, mut typed) = ("", ("", ""));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split(' ').next().unwrap();
                assert!(known.insert(helped), "{helped} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                typed = rest.split_once(' ').unwrap();
                assert_eq!(typed.0, helped);
                assert_eq!(typed.0.ends_with("_total"), typed.1 == "counter", "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!((name, name), (helped, typed.0), "{line}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
        for line in [
            "sockproxyd_uptime_seconds 90.5",
            "sockproxyd_connections{state=\"setup\"} 1",
            "sockproxyd_connections{state=\"echo\"} 1",
            "sockproxyd_connections{state=\"arriving\"} 0",
            "sockproxyd_notification_latency_seconds 0.012",
            "sockproxyd_connection_sent_bytes_total{id=\"7\",target=\"a\\\"\\\\?b:80\",protocol=\"ws\"} 20",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("connection_idle_seconds{").count(), 2, "only those in echo mode\n{text}");
    }

    #[test]
    fn without_notifications_there_is_no_latency() {
        let text = metrics(
            &DaemonStatus { uptime: Duration::ZERO, ..DaemonStatus::default() },
            &Config::default().limits,
            [].into_iter(),
        );
        assert!(!text.contains("latency"), "{text}");
        assert!(text.contains("# TYPE sockproxyd_connection_idle_seconds gauge\n"), "{text}");
    }
}
