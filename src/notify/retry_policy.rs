//! [`RetryState`]: whether and when a failed request is repeated.

use std::time::{Duration, Instant};

use super::NotifyOutcome;

/// First pause after an error of Luup, doubled for each further failure.
pub(super) const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Longest pause between two attempts.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long an `ERROR:` body may mean that Vera's engine is starting. After this it means an unknown action.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do with an event whose request has an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryDecision {
    /// The event has been delivered.
    Delivered,
    /// Another attempt would fail as well: drop the event.
    GiveUp,
    /// Send the event again, not before [`RetryState::not_before`].
    Retry,
}

/// What the failures of a subscription's requests mean for its next one.
#[derive(Debug, Default)]
pub(super) struct RetryState {
    /// Failures in a row.
    failures: u32,
    /// No request before this instant.
    not_before: Option<Instant>,
    /// When Luup began to answer with `ERROR:` bodies only.
    error_body_since: Option<Instant>,
}

impl RetryState {
    /// The end of the pause after a failure; `None`: no pause.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Takes the outcome of a request.
    pub(super) fn handle_outcome(&mut self, outcome: NotifyOutcome, now: Instant) -> RetryDecision {
        if outcome != NotifyOutcome::ErrorBody {
            self.error_body_since = None;
        }
        let pause = match outcome {
            NotifyOutcome::Delivered => {
                self.reset();
                return RetryDecision::Delivered;
            }
            NotifyOutcome::Refused(_) | NotifyOutcome::InvalidHttp => None,
            // The circuit breaker or the device's pause decides when.
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed | NotifyOutcome::TimedOut => Some(Duration::ZERO),
            NotifyOutcome::ServerError(_) | NotifyOutcome::ConnectionLost | NotifyOutcome::NotSent => {
                Some(self.interval())
            }
            NotifyOutcome::ErrorBody => {
                let since = *self.error_body_since.get_or_insert(now);
                (now - since < ERROR_BODY_TIMEOUT).then(|| self.interval())
            }
        };
        let Some(pause) = pause else {
            self.reset();
            return RetryDecision::GiveUp;
        };
        // While Luup as a whole is unreachable the pauses do not grow: the action was not called.
        self.failures += u32::from(!matches!(outcome, NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed));
        self.not_before = Some(now + pause);
        RetryDecision::Retry
    }

    /// Ends a series of failures. A series of `ERROR:` bodies goes on: once its time is over, each further event is sent
    /// once.
    fn reset(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    fn interval(&self) -> Duration {
        backoff(MIN_RETRY_INTERVAL, MAX_RETRY_INTERVAL, self.failures)
    }
}

/// Returns `first` doubled `times` times, at most `max`.
pub(super) fn backoff(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses in milliseconds after each of these outcomes at one instant; `None`: no retry.
    fn pauses(outcomes: &[NotifyOutcome]) -> Vec<Option<u128>> {
        let now = Instant::now();
        let mut retry = RetryState::default();
        let pause = |&outcome: &NotifyOutcome| match retry.handle_outcome(outcome, now) {
            RetryDecision::Retry => retry.not_before().map(|at| (at - now).as_millis()),
            RetryDecision::Delivered | RetryDecision::GiveUp => {
                assert_eq!(retry.not_before(), None);
                None
            }
        };
        outcomes.iter().map(pause).collect()
    }

    #[test]
    fn pauses_grow_up_to_5_s_and_start_again_after_a_delivery() {
        let failed = NotifyOutcome::ServerError(503);
        let expected = [250, 500, 1000, 2000, 4000, 5000, 5000].map(Some);
        assert_eq!(pauses(&[failed; 7]), expected);
        assert_eq!(
            pauses(&[failed, failed, NotifyOutcome::Delivered, failed]),
            [Some(250), Some(500), None, Some(250)]
        );
    }

    #[test]
    fn pauses_do_not_grow_while_luup_is_unreachable() {
        let (away, failed) = (NotifyOutcome::Unreachable, NotifyOutcome::ConnectionLost);
        assert_eq!(pauses(&[away, away, NotifyOutcome::TlsFailed, failed]), [Some(0), Some(0), Some(0), Some(250)]);
    }

    #[test]
    fn refusals_are_not_repeated() {
        assert_eq!(pauses(&[NotifyOutcome::Refused(401), NotifyOutcome::InvalidHttp]), [None, None]);
    }

    #[test]
    fn error_bodies_are_repeated_for_a_minute_and_then_once_per_event() {
        let start = Instant::now();
        let mut retry = RetryState::default();
        let mut at = |seconds| retry.handle_outcome(NotifyOutcome::ErrorBody, start + Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 61].map(&mut at),
            [RetryDecision::Retry, RetryDecision::Retry, RetryDecision::GiveUp, RetryDecision::GiveUp]
        );
        retry.handle_outcome(NotifyOutcome::Delivered, start);
        let later = start + Duration::from_secs(100);
        assert_eq!(retry.handle_outcome(NotifyOutcome::ErrorBody, later), RetryDecision::Retry, "a new series");
    }
}
