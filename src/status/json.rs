//! STAT JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DaemonStatus, ListenerOwner, ListenerStatus};
use crate::config::Limits;
use crate::protocol::printable::is_unprintable;
use crate::protocol::reply::{BUILD, PROTOCOL_VERSION};
use crate::session::{EndedConnection, Snapshot};

/// The status as one JSON object. Times are in seconds, sizes in bytes. Each connection is written by itself: a thousand of
/// them as values would take megabytes.
pub(crate) fn json(daemon: &DaemonStatus, limits: &Limits, sessions: impl Iterator<Item = Snapshot>) -> String {
    let counters = daemon.notifications;
    let listeners: Vec<Value> = daemon.listeners.iter().map(listener).collect();
    let overview = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": BUILD,
        "protocol": PROTOCOL_VERSION,
        "uptime": daemon.uptime.as_secs_f64(),
        "accepted": daemon.accepted,
        "refused": daemon.refused,
        "buffered": daemon.buffered,
        "history": daemon.history,
        "limits": {
            "connections": limits.connections,
            "peraddress": limits.per_address,
            "buffer": limits.buffer,
            "buffers": limits.buffers,
            "kept": limits.kept,
            "history": limits.history,
            "notices": limits.notices,
            "senders": limits.senders,
            "resolvers": limits.resolvers,
            "pipes": limits.pipes,
        },
        "listeners": listeners,
        "notifications": {
            "sent": counters.sent,
            "delivered": counters.delivered,
            "failed": counters.failed,
            "retried": counters.retried,
            "dropped": counters.dropped,
            "pending": daemon.pending,
            "latency": counters.latency.map(|latency| latency.as_secs_f64()),
        },
        "ended": daemon.ended.iter().map(ended).collect::<Vec<Value>>(),
    })
    .to_string();
    let mut text = String::from("{\"connections\":[");
    for (number, session) in sessions.enumerate() {
        if number > 0 {
            text.push(',');
        }
        escape(&connection(&session).to_string(), &mut text);
    }
    text.push_str("],");
    escape(&overview[1..], &mut text);
    text
}

/// Appends `json`, and escapes what is not printable and JSON leaves as it is. Such characters occur in strings alone (RFC 8259
/// section 7).
fn escape(json: &str, text: &mut String) {
    for character in json.chars() {
        if is_unprintable(character) {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
}

fn listener(listener: &ListenerStatus) -> Value {
    let mut value = json!({"address": listener.address, "target": listener.target});
    if let Some(path) = &listener.path {
        value["path"] = json!(path);
    }
    if let Some((protocol, owners)) = &listener.plugins {
        let owner = |(id, path, waiting): &ListenerOwner| json!({"id": id, "path": path, "waiting": waiting});
        value["protocol"] = protocol.name().into();
        value["owners"] = owners.iter().map(owner).collect();
    }
    value
}

fn ended((ago, connection): &(Duration, EndedConnection)) -> Value {
    json!({
        "id": connection.pid.to_string(),
        "target": connection.target,
        "protocol": connection.protocol.name(),
        "reason": connection.reason,
        "ago": ago.as_secs_f64(),
    })
}

fn connection(session: &Snapshot) -> Value {
    json!({
        "id": session.pid,
        "state": session.state.name(),
        "client": session.client,
        "target": session.remote,
        "protocol": session.protocol.name(),
        "tls": session.tls_version,
        "subprotocol": session.subprotocol,
        "uptime": session.uptime.as_secs_f64(),
        "idle": session.idle.as_secs_f64(),
        "received": session.received,
        "sent": session.sent,
        "messages": session.messages.map(|(received, sent)| json!({"received": received, "sent": sent})),
        "buffered": session.buffered,
        "heal": session.healing.map(|healing| json!({
            "losses": healing.losses,
            "lost": healing.lost_for.map(|time| time.as_secs_f64()),
            "next": healing.next_attempt.map(|time| time.as_secs_f64()),
        })),
        "notify": String::from_utf8_lossy(&session.notify),
        "notification": session.last_notification.map(|outcome| outcome.name()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped() {
        let value = json!({"target": "a\x7f\u{9b}1m\u{202e}b \u{e4}\x1b"});
        let mut text = String::new();
        escape(&value.to_string(), &mut text);
        assert_eq!(text, r#"{"target":"a\u007f\u009b1m\u202eb ä\u001b"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
