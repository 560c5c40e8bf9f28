//! What is sent when. Sans-IO: events and an instant in, requests and a deadline out.
//!
//! Each connection that wants notifications has a *line*. On it wait at most one `connected` and one `data` or
//! `closed`; what comes while one waits is the same news. Rules, in order of weight:
//!
//! 1. At most one request is with a device, and one of a line is answered before the next goes out: order is kept.
//! 2. PACE holds back data; never its first, and never the closing notice.
//! 3. While Luup cannot be reached, one probe goes out now and then (`breaker`).
//! 4. What failed and may yet succeed is tried again, later each time. A closing notice outlives its connection; of
//!    those at most `limit` are kept, and two that read the same are one.
//!
//! Contract: after every `handle_*`, call [`Schedule::poll_job`] until `None`, then ask [`Schedule::poll_timeout`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::breaker::Breaker;
use super::closing_notices::Closing;
pub use super::counters::Counters;
use super::device::Device;
use super::log_once::Complaints;
use super::subscription::{Line, Pending, Stage};
pub use super::subscription::{LineId, Subscription};
use super::{Event, Outcome};

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whose it is.
    pub line: LineId,
    /// Path and query.
    pub query: String,
    /// See [`Subscription::secret`].
    pub secret: bool,
}

/// The schedule of all notifications.
#[derive(Debug)]
pub struct Schedule {
    lines: Slab<Line>,
    devices: HashMap<Arc<str>, Device>,
    /// Lines that are due and whose device is free, in order.
    ready: VecDeque<LineId>,
    /// Lines that rest, by the instant at which they are due.
    resting: BTreeSet<(Instant, LineId)>,
    /// Lines of connections that have gone: what is told twice is told once.
    closing: Closing,
    /// Refusals that have been logged.
    complaints: Complaints,
    breaker: Breaker,
    in_flight: usize,
    /// Requests out to devices that have lately not answered.
    suspects_in_flight: usize,
    senders: usize,
    limit: usize,
    counters: Counters,
}

impl Schedule {
    /// A schedule for `senders` requests at once that keeps at most `limit` notices of connections that have gone.
    pub fn new(senders: usize, limit: usize) -> Self {
        Self {
            lines: Slab::new(),
            devices: HashMap::new(),
            ready: VecDeque::new(),
            resting: BTreeSet::new(),
            closing: Closing::default(),
            complaints: Complaints::default(),
            breaker: Breaker::default(),
            in_flight: 0,
            suspects_in_flight: 0,
            senders: senders.max(1),
            limit: limit.max(1),
            counters: Counters::default(),
        }
    }

    /// Changes the bounds; what is under way goes on.
    pub fn set_limits(&mut self, senders: usize, limit: usize) {
        self.senders = senders.max(1);
        self.limit = limit.max(1);
        self.keep_within_limit(None);
    }

    /// A line for a connection. It must be given back by [`Schedule::handle_closed`].
    pub fn open(&mut self, subscription: Subscription) -> LineId {
        self.devices.entry(Arc::clone(&subscription.device)).or_default().lines += 1;
        LineId(self.lines.insert(Line::new(subscription)))
    }

    /// The connection stands. Only a line that says its events tells that.
    pub fn handle_connected(&mut self, id: LineId, now: Instant) {
        let line = &mut self.lines[id.0];
        if line.subscription.events {
            line.pending.connected = true;
            self.arrange(id, now);
        }
    }

    /// Data was handed over to the plugin.
    pub fn handle_data(&mut self, id: LineId, now: Instant) {
        let line = &mut self.lines[id.0];
        if line.pending.news.is_none() {
            line.pending.news = Some(Event::Data);
            self.arrange(id, now);
        }
    }

    /// The connection has ended. The line lives on until its last notice has been taken or given up.
    pub fn handle_closed(&mut self, id: LineId, now: Instant) {
        let line = &mut self.lines[id.0];
        line.closing = true;
        line.pending.news = Some(Event::Closed);
        let subscription = line.subscription.clone();
        if let Some(older) = self.closing.insert(subscription, id)
            && !self.is_in_flight(older)
        {
            // The same words for the same plugin: they are said once.
            self.remove(older);
        }
        self.arrange(id, now);
        self.keep_within_limit(Some(id));
    }

    /// The connection has ended, and its plugin is told nothing of that: its name is another connection's now.
    pub fn forget(&mut self, id: LineId) {
        let line = &mut self.lines[id.0];
        if matches!(line.stage, Stage::InFlight(_)) {
            line.closing = true;
            line.pending = Pending::default();
        } else {
            self.remove(id);
        }
        self.check_invariants();
    }

    /// Nobody needs a closing notice that waits for `subscription`: see [`Schedule::forget`].
    pub fn withdraw(&mut self, subscription: &Subscription) {
        if let Some(line) = self.closing.find(subscription).filter(|&line| !self.is_in_flight(line)) {
            self.remove(line);
        }
    }

    /// The next request to send, if one may go out at `now`.
    pub fn poll_job(&mut self, now: Instant) -> Option<Job> {
        while let Some(&(due, id)) = self.resting.first()
            && due <= now
        {
            self.resting.pop_first();
            self.arrange(id, now);
        }
        if self.in_flight >= self.senders || !self.breaker.lets_through(now) {
            return None;
        }
        let at = self.ready.iter().position(|id| self.may_send(*id))?;
        let id = self.ready.remove(at)?;
        let line = &mut self.lines[id.0];
        // A line stands in the queue only while something waits on it.
        let event = line.pending.next()?;
        let secret = line.subscription.secret;
        line.pending.clear(event);
        line.stage = Stage::InFlight(event);
        if event != Event::Connected {
            line.paced_until = line.subscription.pace.map(|pace| now + pace);
        }
        let mut query = line.subscription.query.to_string();
        if line.subscription.events {
            query.push_str("&Event=");
            query.push_str(event.name());
        }
        let device = self.devices.entry(Arc::clone(&line.subscription.device)).or_default();
        self.suspects_in_flight += usize::from(device.is_suspect());
        self.in_flight += 1;
        self.counters.sent += 1;
        self.counters.retried += u64::from(line.last.is_some_and(|last| last != Outcome::Delivered));
        self.breaker.handle_request();
        self.check_invariants();
        Some(Job { line: id, query, secret })
    }

    /// When to call [`Schedule::poll_job`] again, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rest = self.resting.first().map(|&(due, _)| due);
        // An instant at which nothing could be sent anyway would only wake the loop for nothing.
        let could_send = self.in_flight < self.senders && self.ready.iter().any(|&id| self.may_send(id));
        let probe = self.breaker.deadline().filter(|_| could_send);
        [rest, probe].into_iter().flatten().min()
    }

    /// What became of the last request of a line.
    pub fn last_outcome(&self, id: LineId) -> Option<Outcome> {
        self.lines.get(id.0).and_then(|line| line.last)
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Notices that wait or are under way.
    pub fn pending(&self) -> usize {
        self.lines.iter().filter(|(_, line)| line.stage != Stage::Quiet).count()
    }

    /// Puts a line where its notices and the time say it belongs.
    fn arrange(&mut self, id: LineId, now: Instant) {
        let line = &mut self.lines[id.0];
        match line.stage {
            Stage::InFlight(_) => return,
            // The instant may change: a close need not wait for the pace.
            Stage::Resting(due) => {
                self.resting.remove(&(due, id));
            }
            Stage::Due => return,
            Stage::Quiet => {}
        }
        let due = match line.pending.next() {
            None => {
                line.stage = Stage::Quiet;
                if line.closing {
                    self.remove(id);
                }
                return;
            }
            Some(Event::Data) => line.retry_at.max(line.paced_until),
            Some(Event::Connected | Event::Closed) => line.retry_at,
        };
        let rest = self.devices.get(&line.subscription.device).and_then(|device| device.resting_until);
        match due.max(rest).filter(|&due| due > now) {
            Some(due) => {
                line.stage = Stage::Resting(due);
                self.resting.insert((due, id));
            }
            None => self.enqueue(id),
        }
        self.check_invariants();
    }

    /// Puts a line that is due into the queue, or behind the request that is with its device.
    fn enqueue(&mut self, id: LineId) {
        let line = &mut self.lines[id.0];
        line.stage = Stage::Due;
        let device = self.devices.entry(Arc::clone(&line.subscription.device)).or_default();
        if device.busy {
            device.waiting.push_back(id);
        } else {
            device.busy = true;
            self.ready.push_back(id);
        }
    }

    /// Devices that hang may take half of the senders, so that the others never wait for them.
    fn may_send(&self, id: LineId) -> bool {
        let device = &self.lines[id.0].subscription.device;
        let suspect = self.devices.get(device).is_some_and(Device::is_suspect);
        !suspect || self.suspects_in_flight < self.senders.div_ceil(2)
    }

    /// Forgets the oldest closing notices where there are too many. Those under way are left alone, and `newest`.
    fn keep_within_limit(&mut self, newest: Option<LineId>) {
        while let Some(id) = self.closing.surplus(self.limit, |id| Some(id) != newest && !self.is_in_flight(id)) {
            log::warn!("too many closing notices wait; one is dropped: {}", self.lines[id.0].subscription.shown());
            self.counters.dropped += 1;
            self.remove(id);
        }
    }

    /// Takes a line out of everything that knows it.
    fn remove(&mut self, id: LineId) {
        let line = self.lines.remove(id.0);
        self.closing.remove(&line.subscription, id);
        match line.stage {
            Stage::Resting(due) => {
                self.resting.remove(&(due, id));
            }
            Stage::Due => {
                let device = self.devices.entry(Arc::clone(&line.subscription.device)).or_default();
                if let Some(at) = device.waiting.iter().position(|&waiting| waiting == id) {
                    device.waiting.remove(at);
                } else {
                    self.ready.retain(|&ready| ready != id);
                    match device.waiting.pop_front() {
                        Some(next) => self.ready.push_back(next),
                        None => device.busy = false,
                    }
                }
            }
            Stage::Quiet | Stage::InFlight(_) => {}
        }
        if let Some(device) = self.devices.get_mut(&line.subscription.device) {
            device.lines -= 1;
            if device.lines == 0 {
                self.devices.remove(&line.subscription.device);
            }
        }
    }

    fn is_in_flight(&self, id: LineId) -> bool {
        matches!(self.lines[id.0].stage, Stage::InFlight(_))
    }
}

mod invariants;
#[cfg(test)]
mod tests;
mod verdicts;
