//! STAT JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::DaemonStatus;
use crate::config::Limits;
use crate::protocol::reply::{BUILD, PROTOCOL_VERSION};
use crate::session::{EndedConnection, Snapshot};

/// The status as one JSON object. Times are in seconds, sizes in bytes.
pub(crate) fn json(daemon: &DaemonStatus, limits: &Limits, sessions: &[Snapshot]) -> String {
    let counters = daemon.notifications;
    let listeners: Vec<Value> =
        daemon.listeners.iter().map(|(address, target)| json!({"address": address, "target": target})).collect();
    json!({
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
        },
        "connections": sessions.iter().map(connection).collect::<Vec<Value>>(),
        "ended": daemon.ended.iter().map(ended).collect::<Vec<Value>>(),
    })
    .to_string()
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
        "notify": String::from_utf8_lossy(&session.notify),
        "notification": session.last_notification.map(|outcome| outcome.name()),
    })
}
