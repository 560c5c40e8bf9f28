//! STAT JSON.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{DaemonStatus, ListenerOwner, ListenerStatus};
use crate::config::Limits;
use crate::protocol::printable::is_unprintable;
use crate::protocol::reply::{BUILD, PROTOCOL_VERSION};
use crate::session::{ConnectStep, ConnectTimes, EndedConnection, HealingSnapshot, Snapshot};

/// The status as one JSON object. Times are in seconds, sizes in bytes. Each connection is written by itself: a thousand of
/// them as values would take megabytes.
pub(crate) fn json(daemon: &DaemonStatus, limits: &Limits, sessions: impl Iterator<Item = Snapshot>) -> String {
    let counters = daemon.notifications;
    let limits = object([
        ("connections", limits.connections.into()),
        ("peraddress", limits.per_address.into()),
        ("buffer", limits.buffer.into()),
        ("buffers", limits.buffers.into()),
        ("kept", limits.kept.into()),
        ("history", limits.history.into()),
        ("notices", limits.notices.into()),
        ("senders", limits.senders.into()),
        ("resolvers", limits.resolvers.into()),
        ("pipes", limits.pipes.into()),
    ]);
    let notifications = object([
        ("sent", counters.sent.into()),
        ("delivered", counters.delivered.into()),
        ("failed", counters.failed.into()),
        ("retried", counters.retried.into()),
        ("dropped", counters.dropped.into()),
        ("pending", daemon.pending.into()),
        ("latency", counters.latency.map_or(Value::Null, seconds)),
    ]);
    let overview = object([
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("build", BUILD.into()),
        ("protocol", PROTOCOL_VERSION.into()),
        ("uptime", seconds(daemon.uptime)),
        ("accepted", daemon.accepted.into()),
        ("refused", daemon.refused.into()),
        ("buffered", daemon.buffered.into()),
        ("history", daemon.history.into()),
        ("limits", limits),
        ("listeners", daemon.listeners.iter().map(listener).collect()),
        ("notifications", notifications),
        ("ended", daemon.ended.iter().map(ended).collect()),
    ])
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

/// An object with these fields. It takes less code than `json!`, which makes each field where it stands.
fn object<'f>(fields: impl Into<Vec<(&'f str, Value)>>) -> Value {
    object_of(fields.into())
}

fn object_of(fields: Vec<(&str, Value)>) -> Value {
    let mut map = Map::new();
    // Collecting takes more code: it sorts the fields first.
    for (name, value) in fields {
        map.insert(name.to_owned(), value);
    }
    Value::Object(map)
}

fn seconds(duration: Duration) -> Value {
    duration.as_secs_f64().into()
}

fn string(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Into::into)
}

fn listener(listener: &ListenerStatus) -> Value {
    let mut fields =
        vec![("address", listener.address.as_str().into()), ("target", string(listener.target.as_deref()))];
    if let Some(path) = &listener.path {
        fields.push(("path", path.as_str().into()));
    }
    if let Some((protocol, owners)) = &listener.plugins {
        fields.push(("protocol", protocol.name().into()));
        fields.push(("owners", owners.iter().map(owner).collect()));
    }
    object(fields)
}

fn owner((id, path, waiting): &ListenerOwner) -> Value {
    object([("id", id.as_str().into()), ("path", string(path.as_deref())), ("waiting", (*waiting).into())])
}

fn ended((ago, connection): &(Duration, EndedConnection)) -> Value {
    object([
        ("id", connection.pid.to_string().into()),
        ("target", (*connection.target).into()),
        ("protocol", connection.protocol.name().into()),
        ("reason", (*connection.reason).into()),
        ("times", times(&connection.times)),
        ("ago", seconds(*ago)),
    ])
}

fn healing(healing: HealingSnapshot) -> Value {
    object([
        ("losses", healing.losses.into()),
        ("lost", healing.lost_for.map_or(Value::Null, seconds)),
        ("next", healing.next_attempt.map_or(Value::Null, seconds)),
    ])
}

fn times(times: &ConnectTimes) -> Value {
    let shown = |step: ConnectStep| (step.name(), times.get(step).map_or(Value::Null, seconds));
    object(ConnectStep::ALL.map(shown))
}

fn connection(session: &Snapshot) -> Value {
    let messages = session
        .totals
        .messages
        .map_or(Value::Null, |counts| object([("received", counts.received.into()), ("sent", counts.sent.into())]));
    object([
        ("id", session.pid.as_str().into()),
        ("state", session.state.name().into()),
        ("client", session.client.as_str().into()),
        ("target", session.remote.as_str().into()),
        ("protocol", session.protocol.name().into()),
        ("tls", string(session.tls_version)),
        ("subprotocol", string(session.subprotocol.as_deref())),
        ("uptime", seconds(session.uptime)),
        ("idle", seconds(session.idle)),
        ("received", session.totals.received.into()),
        ("sent", session.totals.sent.into()),
        ("messages", messages),
        ("buffered", session.buffered.into()),
        ("times", times(&session.times)),
        ("heal", session.healing.map_or(Value::Null, healing)),
        ("notify", String::from_utf8_lossy(&session.notify).into_owned().into()),
        ("notification", session.last_notification.map_or(Value::Null, |outcome| outcome.name().into())),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
