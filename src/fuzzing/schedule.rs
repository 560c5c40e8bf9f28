//! The schedule of notifications: whatever plugins, Luup and the clock do, the rules hold, and in the end every plugin
//! has heard its last news.
//!
//! Input: the bounds, then an operation a byte, each followed by its arguments.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::client::ClientKey;
use crate::notify::{DeviceKey, NotifyJob, NotifyOutcome, Recipient, Schedule, SubscriptionId};

use super::input::Input;

/// Clients, one of which is loopback, devices, and names that a plugin gives to its connections: few, so that they meet.
const CLIENTS: [ClientKey; 3] = [ClientKey::Loopback, ClientKey::V6(1), ClientKey::V6(2)];
const DEVICES: usize = 4;
const NAMES: usize = 3;
/// Subscriptions open at once.
const MOST_SUBSCRIPTIONS: usize = 12;
/// The longest pause of a device after an answer, and the shortest after none in time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SHORTEST_REST: Duration = Duration::from_millis(500);
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 600;

/// The notifications of an open connection.
struct Subscription {
    id: SubscriptionId,
    opened: Instant,
    recipient: Recipient,
    /// News of which no request has been delivered since.
    unheard: bool,
    /// When the last request with news went out, and whether it or one after it failed.
    last: Option<(Instant, bool)>,
}

struct World {
    schedule: Schedule,
    now: Instant,
    subscriptions: Vec<Subscription>,
    /// Requests that are out, and since when.
    out: Vec<(NotifyJob, Instant)>,
    /// Until when devices must be left alone, since Luup has taken as long to answer.
    pauses: HashMap<DeviceKey, Instant>,
    /// Subscriptions of connections that have ended, with whether a request has gone out since.
    closed: HashMap<Recipient, bool>,
    /// Recipients of loopback whose closing notice may wait, and the most there were at once.
    own_notices: HashSet<Recipient>,
    most_own_notices: usize,
    /// Every subscription ever opened that may still have a request out.
    known: HashMap<SubscriptionId, Recipient>,
    senders: usize,
    /// The largest bounds there were.
    most_senders: usize,
    limit: usize,
    /// Luup has said that a notice is pointless: not everything needs to be heard.
    given_up: bool,
    /// Luup never says that.
    forgiving: bool,
}

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (senders, options) = (1 + input.below(8), usize::from(input.byte()));
    let (limit, forgiving) = (1 + options % 16, options & 0x80 != 0);
    let mut world = World {
        schedule: Schedule::new(senders, limit),
        now: Instant::now(),
        subscriptions: Vec::new(),
        out: Vec::new(),
        pauses: HashMap::new(),
        closed: HashMap::new(),
        own_notices: HashSet::new(),
        most_own_notices: 0,
        known: HashMap::new(),
        senders,
        most_senders: senders,
        limit,
        given_up: false,
        forgiving,
    };
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.send();
    }
    world.calm_down();
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 | 1 => self.open(input),
            2 | 3 => self.data(input),
            4 => {
                // A connection stands before there is any data.
                if let Some(at) = self.pick(input)
                    && !self.subscriptions[at].unheard
                    && self.subscriptions[at].last.is_none()
                {
                    self.schedule.handle_connected(self.subscriptions[at].id, self.now);
                }
            }
            5 => self.close(input),
            6..=8 => self.answer(input),
            9 => self.now += Duration::from_millis(1 << input.below(17)),
            10 => self.now = self.schedule.poll_timeout().map_or(self.now, |due| due.max(self.now)),
            _ => {
                self.senders = 1 + input.below(8);
                self.most_senders = self.most_senders.max(self.senders);
                self.schedule.set_limits(self.senders, self.limit);
            }
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<usize> {
        (!self.subscriptions.is_empty()).then(|| input.below(self.subscriptions.len()))
    }

    fn open(&mut self, input: &mut Input<'_>) {
        if self.subscriptions.len() == MOST_SUBSCRIPTIONS {
            return;
        }
        let kind = input.byte();
        let (device, name) = (usize::from(kind) % DEVICES, usize::from(kind >> 2) % NAMES);
        let client = CLIENTS[usize::from(kind >> 4) % CLIENTS.len()];
        let recipient = Recipient {
            device: DeviceKey::new(client, &device.to_string()),
            query: format!("/{device}&Pid={name}").into(),
            events: kind & 0x40 != 0,
            pace: (kind & 0x80 != 0).then_some(Duration::from_secs(2)),
            secret: false,
        };
        let id = self.schedule.open(recipient.clone());
        self.known.insert(id, recipient.clone());
        self.subscriptions.push(Subscription { id, opened: self.now, recipient, unheard: false, last: None });
    }

    fn data(&mut self, input: &mut Input<'_>) {
        if let Some(at) = self.pick(input) {
            let subscription = &mut self.subscriptions[at];
            subscription.unheard = true;
            self.schedule.handle_data(subscription.id, self.now);
        }
    }

    fn close(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.pick(input) else { return };
        let closed = self.subscriptions.swap_remove(at);
        self.schedule.handle_closed(closed.id, self.now - closed.opened, self.now);
        if closed.recipient.device.client.is_loopback() {
            self.own_notices.insert(closed.recipient.clone());
            self.most_own_notices = self.most_own_notices.max(self.own_notices.len());
        }
        self.closed.insert(closed.recipient, false);
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        if self.out.is_empty() {
            return;
        }
        let (job, since) = self.out.swap_remove(input.below(self.out.len()));
        let which = input.byte();
        let outcome = match which % 8 {
            0..=2 => NotifyOutcome::Delivered,
            3 => [NotifyOutcome::Unreachable, NotifyOutcome::TlsFailed, NotifyOutcome::NotSent]
                [usize::from(which / 8) % 3],
            4 => NotifyOutcome::TimedOut,
            5 => NotifyOutcome::ServerError(503),
            _ if self.forgiving => NotifyOutcome::Delivered,
            6 => NotifyOutcome::ErrorBody,
            _ => NotifyOutcome::Refused(401),
        };
        self.give_up_if(matches!(outcome, NotifyOutcome::ErrorBody | NotifyOutcome::Refused(_)));
        self.judge(&job, since, outcome);
    }

    fn give_up_if(&mut self, pointless: bool) {
        self.given_up |= pointless;
    }

    fn judge(&mut self, job: &NotifyJob, since: Instant, outcome: NotifyOutcome) {
        let took = (self.now - since).min(LONGEST_PAUSE);
        let pause = match outcome {
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed | NotifyOutcome::NotSent => None,
            NotifyOutcome::TimedOut => Some(SHORTEST_REST),
            _ => Some(took),
        };
        if let Some(pause) = pause {
            self.pauses.insert(self.known[&job.id].device.clone(), self.now + pause);
        }
        if let Some(subscription) = self.subscriptions.iter_mut().find(|subscription| subscription.id == job.id)
            && outcome != NotifyOutcome::Delivered
            && is_news(job)
        {
            subscription.unheard = true;
            subscription.last = subscription.last.map(|(when, _)| (when, true));
        }
        let recipient = &self.known[&job.id];
        if outcome == NotifyOutcome::Delivered && self.closed.get(recipient) == Some(&true) {
            self.own_notices.remove(recipient);
        }
        self.schedule.handle_outcome(job.id, outcome, self.now);
    }

    /// Takes every request that may go out now, and checks that each may.
    fn send(&mut self) {
        let is_own = |recipient: &Recipient| recipient.device.client.is_loopback();
        let shares = self.subscriptions.iter().any(|subscription| is_own(&subscription.recipient));
        let mut others_in_turn = 0;
        while let Some(job) = self.schedule.poll_job(self.now) {
            let recipient = self.known[&job.id].clone();
            if is_own(&recipient) {
                assert!(others_in_turn <= 1, "other clients have the turn of loopback");
                others_in_turn = 0;
            } else {
                let others = self.out.iter().filter(|(other, _)| !is_own(&self.known[&other.id])).count();
                assert!(!shares || others < (self.senders / 4).max(1), "other clients take the senders of loopback");
                others_in_turn += 1;
            }
            let path = job.query.split("&Event=").next().expect("a first part");
            assert_eq!(path, &*recipient.query, "a request of another subscription");
            assert_eq!(job.query.contains("&Event="), recipient.events, "{}", job.query);
            for (other, _) in &self.out {
                assert_ne!(
                    self.known[&other.id].device, recipient.device,
                    "two requests of a client are with a device"
                );
            }
            let pauses = self.pauses.get(&recipient.device).is_some_and(|&until| until > self.now);
            assert!(!pauses, "a device takes more than half of Luup's time");
            self.note(&job, &recipient);
            self.out.push((job, self.now));
            assert!(self.out.len() <= self.most_senders, "more requests than senders");
        }
        // A caller that calls again at the deadline would do so for ever.
        if let Some(due) = self.schedule.poll_timeout() {
            assert!(due > self.now, "a busy loop: {:?} late", self.now - due);
        }
        // Those that are out are not counted, and come back when they fail. The newest one stays.
        let most = self.subscriptions.len() + self.limit + 2 * self.most_senders + 1;
        assert!(self.schedule.pending() <= most, "{} notices wait", self.schedule.pending());
    }

    /// Notes what a request tells its plugin.
    fn note(&mut self, job: &NotifyJob, recipient: &Recipient) {
        match self.subscriptions.iter_mut().find(|subscription| subscription.id == job.id) {
            Some(subscription) if is_news(job) => {
                assert!(subscription.unheard, "{} is told what it knows", job.query);
                assert!(!job.query.ends_with("&Event=closed"), "it stands");
                if let (Some(pace), Some((last, failed))) = (recipient.pace, subscription.last) {
                    assert!(failed || self.now >= last + pace, "faster than its pace");
                }
                subscription.unheard = false;
                subscription.last = Some((self.now, false));
            }
            Some(_) => {}
            None => {
                assert!(self.closed.contains_key(recipient), "a request of no connection");
                if is_news(job) {
                    self.closed.insert(recipient.clone(), true);
                }
            }
        }
    }

    /// Luup is in a good mood and time passes, until nothing waits any more.
    fn calm_down(&mut self) {
        for _ in 0..10_000 {
            while let Some((job, since)) = self.out.pop() {
                self.judge(&job, since, NotifyOutcome::Delivered);
            }
            self.send();
            if self.out.is_empty() {
                match self.schedule.poll_timeout() {
                    Some(due) => self.now = due,
                    None => break,
                }
                self.send();
            }
        }
        assert!(self.out.is_empty() && self.schedule.poll_timeout().is_none(), "it never calms down");
        assert_eq!(self.schedule.pending(), 0);
        let open: usize = self.subscriptions.iter().map(|open| open.recipient.held()).sum();
        assert_eq!(self.schedule.held(), open, "only open connections take memory");
        if !self.given_up {
            assert_eq!(self.schedule.counters().failed, 0, "a notification was given up");
            assert!(self.subscriptions.iter().all(|subscription| !subscription.unheard), "a plugin was never told");
            let dropped = self.schedule.counters().dropped;
            let untold = self.closed.values().filter(|told| !**told).count() as u64;
            assert!(untold <= dropped, "{untold} were never told of their end, {dropped} dropped");
            if self.most_own_notices <= self.limit / 4 {
                let is_untold = |(recipient, told): (&Recipient, &bool)| !told && recipient.device.client.is_loopback();
                assert!(!self.closed.iter().any(is_untold), "other clients take the share of loopback");
            }
        }
    }
}

/// True where a request tells of data or of the end.
fn is_news(job: &NotifyJob) -> bool {
    !job.query.ends_with("&Event=connected")
}
