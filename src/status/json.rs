//! STAT JSON: the same for programs, and more.

use serde_json::{Value, json};

use super::Overview;
use crate::config::Limits;
use crate::protocol::reply::{BUILD, PROTOCOL_VERSION};
use crate::session::Snapshot;

/// Everything, as one JSON object. Times are in seconds, sizes in bytes.
pub fn json(overview: &Overview, limits: &Limits, sessions: &[Snapshot]) -> String {
    let counters = overview.notifications;
    let listeners: Vec<Value> =
        overview.listeners.iter().map(|(address, target)| json!({"address": address, "target": target})).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": BUILD,
        "protocol": PROTOCOL_VERSION,
        "uptime": overview.uptime.as_secs_f64(),
        "accepted": overview.accepted,
        "refused": overview.refused,
        "buffered": overview.buffered,
        "history": overview.history,
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
            "pending": overview.pending,
        },
        "connections": sessions.iter().map(connection).collect::<Vec<Value>>(),
    })
    .to_string()
}

fn connection(shown: &Snapshot) -> Value {
    json!({
        "id": shown.pid,
        "state": shown.state.name(),
        "client": shown.client,
        "target": shown.remote,
        "protocol": shown.protocol.name(),
        "tls": shown.tls_version,
        "subprotocol": shown.subprotocol,
        "uptime": shown.uptime.as_secs_f64(),
        "idle": shown.idle.as_secs_f64(),
        "received": shown.received,
        "sent": shown.sent,
        "messages": shown.messages.map(|(received, sent)| json!({"received": received, "sent": sent})),
        "buffered": shown.buffered,
        "notify": String::from_utf8_lossy(&shown.notify),
        "notification": shown.last_notification.map(|outcome| outcome.name()),
    })
}
