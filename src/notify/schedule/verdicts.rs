//! What the outcome of a request means for its device, for Luup as a whole, and for the notice: done, given up, or tried
//! again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::device::backoff;
use super::super::{Event, Outcome};
use super::{LineId, Pending, Schedule, Stage};

/// First pause after Luup's trouble, doubled for each failure that follows.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How long an `ERROR:` body is taken for an engine that is starting.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(60);

impl Schedule {
    /// What became of a request that [`Schedule::poll_job`] gave out.
    pub fn handle_outcome(&mut self, id: LineId, outcome: Outcome, now: Instant) {
        let Some(line) = self.lines.get_mut(id.0) else { return };
        let Stage::InFlight(event) = line.stage else { return };
        line.stage = Stage::Quiet;
        line.last = Some(outcome);
        let device = Arc::clone(&line.subscription.device);
        self.free_device(&device, outcome, now);
        self.judge_luup(outcome, now);
        self.judge_notice(id, event, outcome, now);
        self.arrange(id, now);
        self.keep_within_limit(None);
    }

    fn free_device(&mut self, name: &Arc<str>, outcome: Outcome, now: Instant) {
        self.in_flight -= 1;
        let Some(device) = self.devices.get_mut(name) else { return };
        self.suspects_in_flight -= usize::from(device.is_suspect());
        match outcome {
            Outcome::TimedOut => device.handle_timeout(now),
            // Nobody was asked: that says nothing of the device.
            Outcome::Unreachable | Outcome::NoTls | Outcome::NotSent => {}
            _ => device.handle_answer(),
        }
        if let Some(due) = device.resting_until.filter(|&due| due > now) {
            device.busy = false;
            for id in std::mem::take(&mut device.waiting) {
                self.lines[id.0].stage = Stage::Resting(due);
                self.resting.insert((due, id));
            }
            return;
        }
        match device.waiting.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => device.busy = false,
        }
    }

    fn judge_luup(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::NotSent => self.breaker.handle_not_sent(now),
            Outcome::Unreachable | Outcome::NoTls if self.breaker.handle_unreachable(now) => {
                log::warn!("Luup cannot be reached; notifications wait");
            }
            Outcome::Unreachable | Outcome::NoTls => {}
            _ if self.breaker.handle_reached() => log::info!("Luup is back"),
            _ => {}
        }
    }

    /// Decides what becomes of the notice: done, given up, or tried again.
    fn judge_notice(&mut self, id: LineId, event: Event, outcome: Outcome, now: Instant) {
        let line = &mut self.lines[id.0];
        if outcome != Outcome::ErrorBody {
            line.errors_since = None;
        }
        let retry = match outcome {
            Outcome::Delivered => {
                line.failures = 0;
                line.retry_at = None;
                self.complaints.settle(&line.subscription.query);
                self.counters.delivered += 1;
                return;
            }
            Outcome::Refused(_) | Outcome::NoHttp => None,
            // The breaker says when, or the device's rest.
            Outcome::Unreachable | Outcome::NoTls | Outcome::TimedOut => Some(Duration::ZERO),
            Outcome::Failed(_) | Outcome::HungUp | Outcome::NotSent => {
                Some(backoff(FIRST_RETRY, LONGEST_RETRY, line.failures))
            }
            Outcome::ErrorBody => {
                let since = *line.errors_since.get_or_insert(now);
                (now - since < ERROR_BODY_PATIENCE).then(|| backoff(FIRST_RETRY, LONGEST_RETRY, line.failures))
            }
        };
        let Some(pause) = retry else {
            if self.complaints.is_new(&line.subscription.query) {
                log::warn!("notification given up, {}: {}", outcome.name(), line.subscription.shown());
            }
            line.failures = 0;
            line.retry_at = None;
            self.counters.failed += 1;
            return;
        };
        if line.closing && !self.closing.keep(&line.subscription, id) {
            line.pending = Pending::default();
            return;
        }
        // Nobody was asked, so nothing grows.
        line.failures += u32::from(!matches!(outcome, Outcome::Unreachable | Outcome::NoTls));
        line.retry_at = Some(now + pause);
        // Pace spares a plugin; this one has heard nothing.
        line.paced_until = None;
        match event {
            Event::Connected => line.pending.connected = true,
            Event::Data | Event::Closed => {
                line.pending.news.get_or_insert(event);
            }
        }
    }
}
