//! The user timeout (RFC 9293 section 3.10.8): a peer that vanishes while bytes for it are under way is lost after a
//! time that the owner sets. The kernel's own limit is about 15 minutes (tcp_retries2 in tcp(7)).
//!
//! TCP_USER_TIMEOUT is no help: since Linux 3.18 the kernel also ends a connection whose peer answers all probes and keeps
//! its window closed, and before 3.18 it does not end one whose window was closed when the peer vanished. So the kernel is
//! asked, and [`UserTimeout`] decides.
//!
//! It costs no system call while bytes are answered by bytes. A while after the last byte the kernel is asked once whether
//! all that was written is acknowledged. If so, nothing more happens before the next write.
//!
//! Nothing under way: keep-alive probes find a peer that vanishes ([`super::socket::KeepAlive`]). They take three quarters
//! of the time at most. So a write to a peer that has vanished before leaves at least a quarter of it.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The kernel is first asked after this part of the timeout, and an answer of the peer may take as long.
const INTERVAL_DIVISOR: u32 = 16;

/// Time is kept in sixteenths of a second: a connection that is 8 years old has used up 32 bits of them.
const TICKS_PER_SECOND: u64 = 16;
const TICK_NANOS: u32 = 1_000_000_000 / TICKS_PER_SECOND as u32;
const TICK: Duration = Duration::from_nanos(TICK_NANOS as u64);

/// How long a peer may answer nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserTimeoutSettings {
    /// The time since the peer's last sign of life.
    pub timeout: Duration,
    /// While nothing is under way, keep-alive probes ask for a sign of life. Without them time runs from the write.
    pub keep_alive: bool,
    /// An instant that does not change and from which all times of a connection are counted, so that each takes 4 bytes.
    pub epoch: Instant,
}

impl UserTimeoutSettings {
    /// Whole ticks from the epoch to `at`.
    fn ticks(&self, at: Instant) -> u32 {
        let time = at.saturating_duration_since(self.epoch);
        let ticks = time.as_secs() * TICKS_PER_SECOND + u64::from(time.subsec_nanos() / TICK_NANOS);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Ticks from the epoch to `at`, or to a fraction of a tick later.
    fn ticks_rounded_up(&self, at: Instant) -> u32 {
        let ticks = self.ticks(at);
        if self.at(ticks) < at { ticks.saturating_add(1) } else { ticks }
    }

    fn at(&self, ticks: u32) -> Instant {
        self.epoch + TICK * ticks
    }

    fn interval(&self) -> Duration {
        self.timeout / INTERVAL_DIVISOR
    }

    /// How much silence before the first write counts. Keep-alive probes have filled it: they take three quarters of the
    /// timeout, and the kernel's timers may be an eighth late.
    fn probed(&self) -> Duration {
        if self.keep_alive { self.timeout * 7 / 8 } else { Duration::ZERO }
    }
}

/// The part of a user timeout in which keep-alive finds a peer that has vanished.
pub(super) fn keep_alive_share(timeout: Duration) -> Duration {
    timeout * 3 / 4
}

/// What the kernel says of a connection on which the peer has not acknowledged everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unacknowledged {
    /// Time since anything came from the peer: bytes, or an acknowledgement.
    pub silent: Duration,
    /// The kernel has sent something since that asks for an answer: bytes, or a probe of a closed window. False while it
    /// waits for the time of its next probe.
    pub awaits_answer: bool,
}

/// The user timeout of one connection.
///
/// Call [`UserTimeout::handle_sent`] and [`UserTimeout::handle_received`] for bytes that pass, then
/// [`UserTimeout::handle_timeout`] at [`UserTimeout::poll_timeout`].
#[derive(Debug, Default)]
pub(crate) struct UserTimeout(Option<Pending>);

/// The peer may not have acknowledged everything. Times are in ticks.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// When the kernel is asked next.
    due: NonZeroU32,
    /// The first write that may be unacknowledged, or the last bytes that came after it.
    since: u32,
    /// Since when the kernel is known to wait for an answer. 0: it is not.
    unanswered_since: u32,
}

impl Pending {
    fn new(settings: &UserTimeoutSettings, now: Instant) -> Self {
        let since = settings.ticks_rounded_up(now);
        Self { since, due: Self::due(settings, now + settings.interval()), unanswered_since: 0 }
    }

    fn due(settings: &UserTimeoutSettings, due: Instant) -> NonZeroU32 {
        NonZeroU32::new(settings.ticks_rounded_up(due)).unwrap_or(NonZeroU32::MIN)
    }
}

impl UserTimeout {
    /// Bytes were written to the peer.
    pub(crate) fn handle_sent(&mut self, settings: &UserTimeoutSettings, now: Instant) {
        self.0.get_or_insert_with(|| Pending::new(settings, now));
    }

    /// Bytes came from the peer. What was written before may still be under way.
    pub(crate) fn handle_received(&mut self, settings: &UserTimeoutSettings, now: Instant) {
        if let Some(pending) = &mut self.0 {
            *pending = Pending::new(settings, now);
        }
    }

    /// When to call [`UserTimeout::handle_timeout`]. Without settings: never.
    pub(crate) fn poll_timeout(&self, settings: Option<&UserTimeoutSettings>) -> Option<Instant> {
        Some(settings?.at(self.0?.due.get()))
    }

    /// True if the peer is lost. Asks the kernel by `unacknowledged` if that is due; `None` says that the peer has
    /// acknowledged everything. No settings: no peer is ever lost.
    pub(crate) fn handle_timeout(
        &mut self,
        settings: Option<&UserTimeoutSettings>,
        now: Instant,
        unacknowledged: impl FnOnce() -> Option<Unacknowledged>,
    ) -> bool {
        let Some(settings) = settings else {
            self.0 = None;
            return false;
        };
        let Some(mut pending) = self.0.take_if(|pending| settings.at(pending.due.get()) <= now) else { return false };
        let Some(Unacknowledged { silent, awaits_answer }) = unacknowledged() else { return false };
        let mut due = now + settings.interval();
        // RFC 9293 section 3.8.6.1 (MUST-37): a connection stays open as long as the peer answers the probes of its closed
        // window.
        if awaits_answer {
            // An answer that came meanwhile was an answer to something else.
            let unanswered_since = NonZeroU32::new(pending.unanswered_since).map(|ticks| settings.at(ticks.get()));
            let unanswered = unanswered_since.filter(|&unanswered| unanswered + silent >= now).unwrap_or(now);
            // Without probes, silence before the write says nothing of the peer.
            let since = settings.at(pending.since);
            let silent = silent.min(now.saturating_duration_since(since) + settings.probed());
            // The kernel probes a closed window up to 120 s apart. The last probe may have been sent just now.
            let answer_due = unanswered + settings.interval();
            if silent >= settings.timeout && answer_due <= now {
                return true;
            }
            due = answer_due.max(now + settings.timeout.saturating_sub(silent));
            pending.unanswered_since = settings.ticks(unanswered);
        } else {
            pending.unanswered_since = 0;
        }
        pending.due = Pending::due(settings, due);
        self.0 = Some(pending);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keep_alive: bool) -> UserTimeoutSettings {
        UserTimeoutSettings { timeout: Duration::from_secs(160), keep_alive, epoch: Instant::now() }
    }

    /// A peer, and what the kernel knows of it. Times are in seconds since the start.
    struct Fixture {
        start: Instant,
        timeout: UserTimeout,
        settings: UserTimeoutSettings,
        /// When the kernel was asked.
        asked: Vec<u64>,
    }

    impl Fixture {
        /// A connection that has lived for 100 s. `keep_alive`: keep-alive probes are sent.
        fn new(keep_alive: bool) -> Self {
            let settings = settings(keep_alive);
            let start = settings.epoch + Duration::from_secs(100);
            Self { start, timeout: UserTimeout::default(), settings, asked: Vec::new() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn sent(&mut self, at: u64) {
            let now = self.at(at);
            self.timeout.handle_sent(&self.settings, now);
        }

        fn received(&mut self, at: u64) {
            let now = self.at(at);
            self.timeout.handle_received(&self.settings, now);
        }

        /// Lets time pass until the second `until`. `kernel` says for a second when the peer was last heard of, and whether
        /// an answer is awaited. Returns when the peer was lost.
        fn run(&mut self, until: u64, kernel: impl Fn(u64) -> Option<(u64, bool)>) -> Option<u64> {
            while let Some(due) = self.timeout.poll_timeout(Some(&self.settings)).filter(|&due| due <= self.at(until)) {
                let second = (due - self.start).as_secs();
                assert_eq!(due, self.at(second), "whole seconds here");
                self.asked.push(second);
                let state = kernel(second).map(|(heard, awaits_answer)| Unacknowledged {
                    silent: Duration::from_secs(second - heard),
                    awaits_answer,
                });
                if self.timeout.handle_timeout(Some(&self.settings), due, || state) {
                    assert_eq!(self.timeout.poll_timeout(Some(&self.settings)), None);
                    return Some(second);
                }
            }
            None
        }
    }

    #[test]
    fn the_kernel_is_asked_once_after_the_last_byte() {
        let mut fixture = Fixture::new(true);
        fixture.received(0);
        assert_eq!(fixture.timeout.poll_timeout(Some(&fixture.settings)), None, "nothing is under way");
        for second in 1..9 {
            fixture.sent(second);
            fixture.received(second);
        }
        assert_eq!(fixture.run(10_000, |_| None), None);
        assert_eq!(fixture.asked, [18]);
    }

    #[test]
    fn writes_without_an_answer_do_not_put_the_question_off() {
        let mut fixture = Fixture::new(true);
        for second in 0..10 {
            fixture.sent(second);
        }
        assert_eq!(fixture.timeout.poll_timeout(Some(&fixture.settings)), Some(fixture.at(10)));
        assert!(!fixture.timeout.handle_timeout(Some(&fixture.settings), fixture.at(9), || panic!("not due")));
    }

    #[test]
    fn a_peer_that_vanishes_before_a_write_is_lost_in_time() {
        // The write comes at once, or when the keep-alive probes are about to find that the peer has vanished.
        for written in [0, 1, 30, 119, 120, 135] {
            let mut fixture = Fixture::new(true);
            fixture.sent(written);
            assert_eq!(fixture.run(10_000, |_| Some((0, true))), Some(160), "written at {written}");
            assert!(fixture.asked.len() <= 2, "{:?}", fixture.asked);
        }
    }

    #[test]
    fn a_peer_that_vanishes_while_much_is_under_way_is_lost_in_time() {
        let mut fixture = Fixture::new(true);
        fixture.sent(0);
        let kernel = |second: u64| Some((second.min(1003), true));
        assert_eq!(fixture.run(10_000, kernel), Some(1163));
        assert!(fixture.asked.len() < 12, "{:?}", fixture.asked);
    }

    #[test]
    fn without_probes_time_runs_from_the_write() {
        let mut fixture = Fixture::new(false);
        fixture.sent(5000);
        assert_eq!(fixture.run(10_000, |_| Some((0, true))), Some(5160));
    }

    /// RFC 9293 section 3.8.6.1: as long as the peer answers the probes of its closed window, the connection must stay open
    /// (MUST-37).
    #[test]
    fn a_peer_that_answers_probes_of_its_closed_window_is_not_lost() {
        // Probes come up to 300 s apart here, longer than the timeout. Each answer takes a second.
        for interval in [1, 7, 100, 300] {
            for phase in 0..interval {
                let mut fixture = Fixture::new(true);
                fixture.sent(0);
                let kernel = |second: u64| {
                    let since_probe = (second + phase) % interval;
                    let answered = since_probe > 0;
                    Some((
                        if answered { second - since_probe.min(second) } else { second.saturating_sub(interval) },
                        !answered,
                    ))
                };
                assert_eq!(fixture.run(3000, kernel), None, "every {interval} s, phase {phase}");
            }
        }
    }

    #[test]
    fn a_peer_that_vanishes_with_its_window_closed_is_lost_by_the_next_probe() {
        let mut fixture = Fixture::new(true);
        fixture.sent(0);
        // It answered at 500; the next probe is sent at 620.
        let lost = fixture.run(3000, |second| Some((second.min(500), second >= 620)));
        assert!(lost.is_some_and(|lost| (660..=680).contains(&lost)), "{lost:?}");
    }

    #[test]
    fn no_timeout_loses_nothing_and_asks_nothing() {
        let (mut timeout, settings) = (UserTimeout::default(), settings(true));
        timeout.handle_sent(&settings, settings.epoch);
        let later = settings.epoch + Duration::from_secs(10_000);
        assert_eq!(timeout.poll_timeout(None), None);
        assert!(!timeout.handle_timeout(None, later, || panic!("the kernel is asked")));
        assert_eq!(timeout.poll_timeout(Some(&settings)), None);
    }

    #[test]
    fn fractions_of_a_tick_neither_lose_a_peer_early_nor_ask_in_vain() {
        for nanos in [0, 1, 1_000_000, 62_499_999, 62_500_000, 62_500_001, 999_999_999] {
            let (mut timeout, settings) = (UserTimeout::default(), settings(false));
            let written = settings.epoch + Duration::from_nanos(nanos);
            timeout.handle_sent(&settings, written);
            let mut asked = 0;
            let lost = loop {
                let due = timeout.poll_timeout(Some(&settings)).unwrap();
                asked += 1;
                assert!(asked < 5, "{nanos}");
                let state = Some(Unacknowledged { silent: due - written, awaits_answer: true });
                if timeout.handle_timeout(Some(&settings), due, || state) {
                    break due - written;
                }
                assert!(timeout.poll_timeout(Some(&settings)).unwrap() > due, "{nanos}");
            };
            assert!(lost >= settings.timeout && lost < settings.timeout + 3 * TICK, "{nanos}: {lost:?}");
        }
    }
}
