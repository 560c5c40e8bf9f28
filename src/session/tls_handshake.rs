//! A TLS handshake under way: the socket is here, the computing is done on other threads.

use std::io;
use std::time::{Duration, Instant};

use super::remote::connection_lost;
use crate::client::ClientKey;
use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::socket::Stream;
use crate::protocol::connect_error::ConnectError;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};
use crate::session::context::{HandshakeQueue, Key};
use crate::session::outbox::Outbox;
use crate::tls::{
    PendingHandshake, ServerTlsSettings, TlsConnection, TlsError, TlsOutcome, TlsSettings, TlsStep, TlsStream,
    handshake_memory, handshake_room,
};

/// Most bytes that are read of a handshake at once. A flight with a long chain has some 6 KiB.
const MAX_READ: usize = 16 * 1024;

/// Longest time for the rest of a handshake whose peer has sent something before the limit that is read only after it, as on a
/// machine that was busy. It gets as long as the machine was late, so that a peer cannot gain by sending in small pieces.
const MAX_LATE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handshake under way.
#[derive(Debug)]
pub(super) struct TlsHandshake<S> {
    socket: SocketEndpoint<S>,
    to_send: Outbox,
    state: TlsHandshakeState,
    /// When it must be done, if that is later than the limit.
    late_due: Option<Instant>,
}

#[derive(Debug)]
enum TlsHandshakeState {
    /// A thread computes. The handshake has received this many bytes.
    Computing(usize),
    /// The server is to answer.
    Waiting(PendingHandshake),
    /// The handshake is done.
    Done(TlsConnection),
    /// The handshake has failed; what is to be sent tells the server why.
    Failed(TlsError),
}

/// How far a handshake has come.
pub(super) enum TlsProgress<S> {
    /// Not yet done.
    Pending(TlsHandshake<S>),
    /// The connection is established.
    Done(SocketEndpoint<TlsStream<S>>),
    /// There is no connection.
    Failed(ConnectError),
    /// The limit has passed.
    TimedOut,
}

/// What a turn needs.
pub(super) struct TlsTurn<'a> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// When the handshake must be done.
    pub due: Instant,
    /// The buffer that all connections share for reading.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held in all.
    pub budget: &'a mut MemoryBudget,
    /// Where the handshake is computed.
    pub workers: TlsWorkers<'a>,
}

/// Where handshakes are computed, and for which session.
pub(super) struct TlsWorkers<'a> {
    /// The threads.
    pub queue: &'a mut dyn HandshakeQueue,
    /// The session.
    pub key: Key,
    /// Its client.
    pub client: ClientKey,
}

impl<S: Stream> TlsHandshake<S> {
    /// Begins a handshake over `socket` with the server called `host`.
    pub(super) fn begin(
        socket: SocketEndpoint<S>,
        host: &str,
        settings: &TlsSettings,
        workers: TlsWorkers<'_>,
    ) -> Self {
        workers.queue.begin(workers.key, workers.client, host, settings);
        Self { socket, to_send: Outbox::default(), state: TlsHandshakeState::Computing(0), late_due: None }
    }

    /// Begins a handshake over an accepted `socket`, as the server.
    pub(super) fn begin_server(
        socket: SocketEndpoint<S>,
        settings: &ServerTlsSettings,
        workers: TlsWorkers<'_>,
    ) -> Self {
        workers.queue.begin_server(workers.key, workers.client, settings);
        Self { socket, to_send: Outbox::default(), state: TlsHandshakeState::Computing(0), late_due: None }
    }

    /// A thread has done its part.
    pub(super) fn handle_step(&mut self, step: TlsStep) {
        self.to_send.push(&step.to_send);
        self.state = match step.outcome {
            TlsOutcome::Pending(pending) => TlsHandshakeState::Waiting(pending),
            TlsOutcome::Done(connection) => TlsHandshakeState::Done(connection),
            TlsOutcome::Failed(failure) => TlsHandshakeState::Failed(failure),
        };
    }

    /// The socket.
    pub(super) fn socket(&self) -> &SocketEndpoint<S> {
        &self.socket
    }

    /// The socket, to be told of its events.
    pub(super) fn socket_mut(&mut self) -> &mut SocketEndpoint<S> {
        &mut self.socket
    }

    /// Bytes held, those that a thread works on included.
    pub(super) fn held(&self) -> usize {
        let memory = match &self.state {
            TlsHandshakeState::Computing(received) => handshake_memory(*received),
            TlsHandshakeState::Waiting(pending) => handshake_memory(pending.received()),
            TlsHandshakeState::Done(connection) => connection.held(),
            TlsHandshakeState::Failed(_) => 0,
        };
        self.to_send.held() + memory
    }

    /// When a turn is needed even without an event. `due`: when the handshake must be done.
    pub(super) fn deadline(&self, due: Instant) -> Instant {
        self.late_due.unwrap_or(due)
    }

    /// Sends and receives what can be sent and received. What the peer has sent before the limit counts, even if no event has
    /// reported it yet.
    pub(super) fn turn(mut self, cx: TlsTurn<'_>) -> TlsProgress<S> {
        if let Err(error) = self.to_send.flush(&mut self.socket) {
            // What the server sent before it went, and what it did wrong, say more than the loss of the connection.
            if matches!(self.state, TlsHandshakeState::Computing(_) | TlsHandshakeState::Done(_)) {
                return TlsProgress::Failed(connection_lost(&error));
            }
        }
        let TlsTurn { now, due, scratch, budget, workers } = cx;
        let is_late = self.deadline(due) <= now;
        match self.state {
            TlsHandshakeState::Done(connection) => {
                let mut stream =
                    self.socket.wrap(|socket| TlsStream::new(socket, connection, self.to_send.into_unwritten()));
                stream.assume_readable();
                TlsProgress::Done(stream)
            }
            TlsHandshakeState::Failed(failure) => TlsProgress::Failed(ConnectError::Tls(failure.to_string().into())),
            TlsHandshakeState::Computing(_) if is_late => {
                workers.queue.cancel(workers.key);
                TlsProgress::TimedOut
            }
            TlsHandshakeState::Computing(_) => TlsProgress::Pending(self),
            // Once: a peer that goes on sending has no longer for it.
            TlsHandshakeState::Waiting(_) if is_late && self.late_due.is_some() => TlsProgress::TimedOut,
            TlsHandshakeState::Waiting(pending) => {
                if is_late {
                    self.socket.assume_readable();
                }
                let before = pending.received();
                match receive(&mut self.socket, before, scratch, budget) {
                    Err(error) => return TlsProgress::Failed(connection_lost(&error)),
                    Ok(None) if is_late => return TlsProgress::TimedOut,
                    Ok(None) => self.state = TlsHandshakeState::Waiting(pending),
                    Ok(Some(read)) => {
                        workers.queue.advance(workers.key, workers.client, pending, scratch[..read].to_vec());
                        self.state = TlsHandshakeState::Computing(before + read);
                        if is_late {
                            self.late_due = Some(now + now.duration_since(due).min(MAX_LATE_TIMEOUT));
                        }
                    }
                }
                TlsProgress::Pending(self)
            }
        }
    }
}

/// Reads what there is memory for, of a handshake that has received `before` bytes. Returns how many bytes it has read into
/// `scratch`; 0: the peer has ended its side. `None`: nothing has come.
fn receive<S: Stream>(
    socket: &mut SocketEndpoint<S>,
    before: usize,
    scratch: &mut [u8],
    budget: &mut MemoryBudget,
) -> io::Result<Option<usize>> {
    if !socket.is_readable() {
        return Ok(None);
    }
    let allowed = handshake_room(budget.left()).max(RESERVE.saturating_sub(before));
    if allowed == 0 {
        budget.wait(handshake_memory(RESERVE));
        return Ok(None);
    }
    let room = MAX_READ.min(scratch.len()).min(allowed);
    match socket.try_read(&mut scratch[..room]) {
        Transfer::Bytes(0) | Transfer::Blocked => Ok(None),
        Transfer::Bytes(read) => Ok(Some(read)),
        Transfer::Eof => Ok(Some(0)),
        Transfer::Broken(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::readiness::Readiness;
    use crate::protocol::options::Protocol;
    use crate::session::simulation::services::SimHandshakes;
    use crate::testing::wire::{FaultProfile, Wire, deliver_event};
    use crate::tls::{ServerTlsSettings, TlsContext, Verify, begin};

    /// Delivers what was computed.
    fn deliver_step(handshake: &mut TlsHandshake<Wire>, queue: &mut SimHandshakes) {
        let mut steps = Vec::new();
        while steps.is_empty() {
            steps = queue.take_due();
        }
        steps.into_iter().for_each(|(_, step)| handshake.handle_step(step));
    }

    fn turn(handshake: TlsHandshake<Wire>, queue: &mut SimHandshakes) -> TlsProgress<Wire> {
        let now = Instant::now();
        turn_at(handshake, queue, now, now + Duration::from_secs(1))
    }

    fn turn_at(
        handshake: TlsHandshake<Wire>,
        queue: &mut SimHandshakes,
        now: Instant,
        due: Instant,
    ) -> TlsProgress<Wire> {
        let (scratch, budget) = (&mut [0; 4096], &mut MemoryBudget::new(1 << 20, 10_000));
        handshake.turn(TlsTurn {
            now,
            due,
            scratch,
            budget,
            workers: TlsWorkers { queue, key: 1, client: ClientKey::Loopback },
        })
    }

    /// Regression: a flight that lay in the socket when a busy machine came to the limit was not read any more.
    #[test]
    fn what_has_come_before_the_limit_counts_once() {
        let mut queue = SimHandshakes::new(0);
        let start = Instant::now();
        let due = start + Duration::from_secs(10);
        for (sends, late, grace) in
            [(false, 3000, 0), (true, 0, 0), (true, 3, 3), (true, 3000, 3000), (true, 60_000, 5000)]
        {
            let now = due + Duration::from_millis(late);
            let socket = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::ACCEPTED);
            let workers = TlsWorkers { queue: &mut queue, key: 1, client: ClientKey::Loopback };
            let mut handshake = TlsHandshake::begin(socket, "tls.test", &TlsSettings::default(), workers);
            deliver_step(&mut handshake, &mut queue);
            if sends {
                // No event reports it: a record that does not end (RFC 8446 section 5.1).
                handshake.socket_mut().stream_mut().send_bytes(&[22, 3, 3, 1, 0, 2]);
            }
            let progress = turn_at(handshake, &mut queue, now, due);
            let TlsProgress::Pending(mut handshake) = progress else {
                assert!(matches!(progress, TlsProgress::TimedOut) && !sends);
                continue;
            };
            let late_due = now + Duration::from_millis(grace);
            assert_eq!((sends, handshake.deadline(due)), (true, late_due));
            if grace == 0 {
                assert!(matches!(turn_at(handshake, &mut queue, now, due), TlsProgress::TimedOut));
                continue;
            }
            deliver_step(&mut handshake, &mut queue);
            handshake.socket_mut().stream_mut().send_bytes(&[0]);
            deliver_event(handshake.socket_mut());
            let TlsProgress::Pending(mut handshake) = turn_at(handshake, &mut queue, now, due) else {
                panic!("it ends")
            };
            assert!(queue.is_asked_by(1), "until the later limit it goes on");
            deliver_step(&mut handshake, &mut queue);
            handshake.socket_mut().stream_mut().send_bytes(&[0]);
            assert!(matches!(turn_at(handshake, &mut queue, late_due, due), TlsProgress::TimedOut));
        }
        // A thread that has not begun in time is not asked any longer.
        let socket = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::ACCEPTED);
        let workers = TlsWorkers { queue: &mut queue, key: 1, client: ClientKey::Loopback };
        let handshake = TlsHandshake::begin(socket, "tls.test", &TlsSettings::default(), workers);
        assert!(queue.is_asked_by(1));
        assert!(matches!(turn_at(handshake, &mut queue, due, due), TlsProgress::TimedOut));
        assert!(!queue.is_asked_by(1));
    }

    #[test]
    fn a_server_s_alert_is_reported_rather_than_its_reset() {
        let mut queue = SimHandshakes::new(0);
        let socket = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
        let workers = TlsWorkers { queue: &mut queue, key: 1, client: ClientKey::Loopback };
        let mut handshake = TlsHandshake::begin(socket, "tls.test", &TlsSettings::default(), workers);
        deliver_step(&mut handshake, &mut queue);
        assert!(handshake.held() > 0, "the hello waits for room");
        // An alert, handshake_failure, and then a reset.
        let wire = handshake.socket_mut();
        wire.stream_mut().send_bytes(&[0x15, 3, 3, 0, 2, 2, 40]);
        wire.stream_mut().break_off();
        deliver_event(wire);
        let TlsProgress::Pending(mut handshake) = turn(handshake, &mut queue) else { panic!("it is over") };
        let memory = handshake_memory(7);
        assert_eq!(handshake.to_send.unwritten() + memory, handshake.held(), "what a thread works on counts");
        deliver_step(&mut handshake, &mut queue);
        assert!(handshake.to_send.unwritten() > 0, "what is to be sent cannot be sent any more");
        let TlsProgress::Failed(error) = turn(handshake, &mut queue) else { panic!("it has not failed") };
        let reason = String::from_utf8(error.reason(Protocol::Tls)).unwrap();
        assert!(reason.starts_with("SSL_ERROR"), "{reason}");
    }

    /// Keeps what it was given.
    #[derive(Default)]
    struct Queue(Vec<(PendingHandshake, Vec<u8>)>);

    impl HandshakeQueue for Queue {
        fn begin(&mut self, _: Key, _: ClientKey, _: &str, _: &TlsSettings) {}

        fn begin_server(&mut self, _: Key, _: ClientKey, _: &ServerTlsSettings) {}

        fn advance(&mut self, _: Key, _: ClientKey, pending: PendingHandshake, received: Vec<u8>) {
            self.0.push((pending, received));
        }

        fn cancel(&mut self, _: Key) {}
    }

    #[test]
    fn a_handshake_without_memory_gets_its_reserve_and_waits_then() {
        let settings = TlsSettings { verify: Verify::None, ..TlsSettings::default() };
        let mut queue = Queue::default();
        let mut budget = MemoryBudget::new(100_000, 65_536);
        budget.hold(100_000);
        let socket = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
        let mut handshake = TlsHandshake::begin(
            socket,
            "a",
            &settings,
            TlsWorkers { queue: &mut queue, key: 0, client: ClientKey::Loopback },
        );
        let (pending, _) = begin(&TlsContext::new(None, None), "a", &settings).unwrap();
        // One record of a handshake message (RFC 8446 section 5.1) that does not end.
        handshake.socket.stream_mut().send_bytes(&[&[22, 3, 3, 0x40, 0][..], &[0; 16_384]].concat());
        handshake.handle_step(TlsStep { to_send: Vec::new(), outcome: TlsOutcome::Pending(pending) });
        let mut scratch = [0; 20_000];
        let mut received = 0;
        for _ in 0..1000 {
            handshake.socket.assume_readable();
            let (scratch, budget, now) = (&mut scratch, &mut budget, Instant::now());
            let workers = TlsWorkers { queue: &mut queue, key: 0, client: ClientKey::Loopback };
            let cx = TlsTurn { now, due: now + Duration::from_secs(1), scratch, budget, workers };
            let TlsProgress::Pending(waiting) = handshake.turn(cx) else { panic!("it does not wait") };
            handshake = waiting;
            let Some((before, bytes)) = queue.0.pop() else {
                assert!(handshake.socket.is_readable(), "the rest is read when there is memory");
                if received > RESERVE {
                    break;
                }
                assert_eq!(received, RESERVE);
                budget.release(handshake_memory(1000));
                continue;
            };
            received += bytes.len();
            assert_eq!(handshake.held(), handshake_memory(received), "what a thread works on is counted");
            budget.hold(handshake_memory(bytes.len()).min(budget.left()));
            handshake.handle_step(before.advance(&bytes));
        }
        assert_eq!(received, RESERVE + 1000);
    }
}
