//! A connection's line of notices, as the schedule keeps it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Event, Outcome};

/// Names a line: see [`super::Schedule::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(pub(super) usize);

/// What a line tells and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Luup's device number, as printed.
    pub device: Arc<str>,
    /// Path and query of the request, without its event.
    pub query: Arc<str>,
    /// True where requests say their event.
    pub events: bool,
    /// Shortest time between two notifications of data.
    pub pace: Option<Duration>,
    /// The query ends in a pid that only the plugin may know: the log shows its first four characters.
    pub secret: bool,
}

impl Subscription {
    /// The query as the log shows it.
    pub fn shown(&self) -> Cow<'_, str> {
        shown(&self.query, self.secret)
    }
}

/// A query as the log shows it: of a secret pid its first four characters.
pub fn shown(query: &str, secret: bool) -> Cow<'_, str> {
    const PID: &str = "&Pid=";
    let Some(at) = query.rfind(PID).filter(|_| secret) else { return Cow::Borrowed(query) };
    let (head, pid) = query.split_at(at + PID.len());
    Cow::Owned(head.chars().chain(pid.chars().take(4)).chain(['*']).collect())
}

/// The notices that wait on a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// The connection stands.
    pub connected: bool,
    /// Data or Closed: the close is news of everything before it.
    pub news: Option<Event>,
}

impl Pending {
    /// What is told next.
    pub fn next(self) -> Option<Event> {
        if self.connected { Some(Event::Connected) } else { self.news }
    }

    /// It has been told.
    pub fn clear(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = false,
            // Data that was asked for again while a closing notice came up is covered by that.
            Event::Data | Event::Closed => self.news = None,
        }
    }
}

/// Where a line stands. What it waits for is owned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing waits.
    Quiet,
    /// Waits for an instant: pace, or a pause after failure.
    Resting(Instant),
    /// Is due, and stands in the queue of senders or of its device.
    Due,
    /// A request is out.
    InFlight(Event),
}

#[derive(Debug)]
pub struct Line {
    /// What it tells and to whom.
    pub subscription: Subscription,
    /// Where it stands.
    pub stage: Stage,
    /// What waits on it.
    pub pending: Pending,
    /// The connection has gone; the line ends with its last notice.
    pub closing: bool,
    /// No data notice before this: pace.
    pub paced_until: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// No request before this: a pause after failure.
    pub retry_at: Option<Instant>,
    /// Since when Luup has answered `ERROR:`.
    pub errors_since: Option<Instant>,
    /// What became of the last request.
    pub last: Option<Outcome>,
}

impl Line {
    /// A line on which nothing waits.
    pub fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            stage: Stage::Quiet,
            pending: Pending::default(),
            closing: false,
            paced_until: None,
            failures: 0,
            retry_at: None,
            errors_since: None,
            last: None,
        }
    }
}
