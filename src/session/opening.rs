//! The opening of a connection that the proxy has accepted: the server's side of the handshake of TLS, if the connection
//! uses that, and of the opening handshake of WebSocket, if the client speaks that.
//!
//! ```text
//! [Tls] --> Reading --request--> Requested --accept--> the caller has the connection
//!    |         |                     | respond, refuse, or the client has left
//!    |         +-- not valid, late --+--> Answered --> Over
//!    +-- failed, late ------------------------------> Over
//! ```
//!
//! Without WebSocket there is no request: after the handshake of TLS, or at once, the caller decides about the connection.
//!
//! A client of HTTP may ask for a page in place of a WebSocket, to which the caller responds.
//!
//! [`Opening`] knows no listener. The caller may take its time to decide. A refusal of a request is written in full, and the
//! client gets time to read it; without a request the connection is closed.
//!
//! Contract: after every `handle_*`, [`Opening::respond`] and [`Opening::refuse`], call [`Opening::turn`] until it no longer
//! returns [`OpeningOutcome::Again`]; it also enforces the time limits. What has come before a limit counts.

use std::time::{Duration, Instant};

use super::draining::{DrainOutcome, Draining};
use super::tls_handshake::{TlsHandshake, TlsProgress, TlsTurn, TlsWorkers};
use crate::net::endpoint::{ClosedEndpoint, Endpoint, SocketEndpoint, Transfer};
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::net::user_timeout::UserTimeoutSettings;
use crate::protocol::options::Protocol;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};
use crate::session::TURN_READS;
use crate::session::context::SessionContext;
use crate::session::pid::Pid;
use crate::session::remote::{RemoteStream, wait_if_needed};
use crate::tls::{ServerTlsSettings, TlsStep};
use crate::websocket::Deflate;
use crate::websocket::handshake::server::head_of_response;
use crate::websocket::handshake::{
    AcceptOptions, PageRequest, Refusal, RequestProgress, ServerHandshake, UpgradeRequest,
};

/// Time for the client to make its handshakes, so that a slow one does not keep its place.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that are read at once, and so of those that a client sends before it has an answer.
const MAX_READ: usize = 4 * 1024;

/// An accepted connection that is being opened.
#[derive(Debug)]
pub(crate) struct Opening<S> {
    /// For log lines.
    pid: Pid,
    client: ClientProtocol,
    state: OpeningState<S>,
}

/// What a client speaks, over TLS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientProtocol {
    /// A stream, which begins with no request.
    Stream,
    /// WebSocket.
    WebSocket,
    /// WebSocket, or HTTP that asks for a page.
    Http,
}

#[derive(Debug)]
enum OpeningState<S> {
    /// The handshake of TLS is under way. All is to be done until this instant.
    Tls(TlsHandshake<S>, Instant),
    /// There is no TLS, or its handshake is done.
    Connected(SocketEndpoint<RemoteStream<S>>, Step),
    /// The connection is closed, or the caller has it.
    Over(ClosedEndpoint),
}

impl<S> OpeningState<S> {
    const OVER: Self = Self::Over(ClosedEndpoint);
}

/// How far a connection has come.
#[derive(Debug)]
enum Step {
    /// There is no request to read; the caller has yet to be told.
    Ready,
    /// The request is being read, until this instant at most.
    Reading(ServerHandshake, Instant),
    /// The caller is to decide about this.
    Requested(PendingRequest),
    /// The client gets time to read the page that it has asked for, or why it is refused.
    Answered(Draining),
}

/// What a caller is to decide about.
#[derive(Debug)]
enum PendingRequest {
    /// The connection: there is no request.
    Stream,
    /// A request for a WebSocket.
    WebSocket(Box<UpgradeRequest>),
    /// A request for a page.
    Page(Box<PageRequest>),
}

/// What a turn leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpeningOutcome {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once.
    Again,
    /// The client waits for [`Opening::accept`], without WebSocket for [`Opening::take_stream`], for a page for
    /// [`Opening::respond`], or for [`Opening::refuse`].
    /// Returned once.
    Requested,
    /// The client has left, or was refused: the connection is closed.
    Over,
}

/// A connection whose request was accepted.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    /// The connection.
    pub client: SocketEndpoint<RemoteStream<S>>,
    /// The 101 response, which is to be written before any frame.
    pub response: Vec<u8>,
    /// The negotiated compression.
    pub deflate: Option<Deflate>,
    /// What the client has sent behind its request.
    pub rest: Vec<u8>,
}

/// What reading a request came to.
enum ReadOutcome {
    Pending(OpeningOutcome),
    Received(PendingRequest),
    Refused(Refusal),
    /// The client has left.
    Left,
}

impl<S: Stream> Opening<S> {
    /// Begins with an accepted `socket`. `tls`: its client speaks TLS. `client`: what it speaks, over TLS if that is set.
    pub(crate) fn new<N: Network<Stream = S>>(
        pid: Pid,
        socket: SocketEndpoint<S>,
        tls: Option<&ServerTlsSettings>,
        client: ClientProtocol,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let due = cx.now + OPENING_TIMEOUT;
        let state = match tls {
            Some(settings) => {
                let workers = TlsWorkers { queue: &mut *cx.handshakes, key: cx.key, client: cx.client };
                OpeningState::Tls(TlsHandshake::begin_server(socket, settings, workers), due)
            }
            None => OpeningState::Connected(socket.wrap(RemoteStream::Plain), Step::first(client, due)),
        };
        Self { pid, client, state }
    }

    /// Takes the connection of a client that speaks no WebSocket, and so accepts it. `None`: it does not wait.
    pub(crate) fn take_stream(&mut self) -> Option<SocketEndpoint<RemoteStream<S>>> {
        let waits = matches!(self.state, OpeningState::Connected(_, Step::Requested(PendingRequest::Stream)));
        if waits { self.take_client() } else { None }
    }

    /// Adds what an event of the connection reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        match &mut self.state {
            OpeningState::Tls(handshake, _) => handshake.socket_mut().handle_event(event),
            OpeningState::Connected(client, _) => client.handle_event(event),
            OpeningState::Over(_) => {}
        }
    }

    /// A thread has done its part of the handshake of TLS.
    pub(crate) fn handle_tls_step(&mut self, step: TlsStep) {
        if let OpeningState::Tls(handshake, _) = &mut self.state {
            handshake.handle_step(step);
        }
    }

    /// Cancels what was asked of threads. To be called before it is dropped.
    pub(crate) fn cancel<N: Network<Stream = S>>(&self, cx: &mut SessionContext<'_, N>) {
        if let OpeningState::Tls(..) = self.state {
            cx.handshakes.cancel(cx.key);
        }
    }

    /// Has the next turn read the connection, whatever events have reported.
    pub(crate) fn assume_readable(&mut self) {
        match &mut self.state {
            OpeningState::Tls(handshake, _) => handshake.socket_mut().assume_readable(),
            // Nothing is read of it before it is accepted.
            OpeningState::Connected(_, Step::Ready | Step::Requested(PendingRequest::Stream)) => {}
            OpeningState::Connected(client, _) => client.assume_readable(),
            OpeningState::Over(_) => {}
        }
    }

    /// The client as stages see it. It is gone when the connection is closed, or the caller has taken it.
    pub(crate) fn endpoint(&self) -> &dyn Endpoint {
        match &self.state {
            OpeningState::Tls(handshake, _) => handshake.socket(),
            OpeningState::Connected(client, _) => client,
            OpeningState::Over(none) => none,
        }
    }

    /// See [`Opening::endpoint`].
    pub(crate) fn endpoint_mut(&mut self) -> &mut dyn Endpoint {
        match &mut self.state {
            OpeningState::Tls(handshake, _) => handshake.socket_mut(),
            OpeningState::Connected(client, _) => client,
            OpeningState::Over(none) => none,
        }
    }

    /// The connection, until it is closed or the caller has taken it. `None` while the handshake of TLS is made.
    pub(crate) fn client(&self) -> Option<&SocketEndpoint<RemoteStream<S>>> {
        if let OpeningState::Connected(client, _) = &self.state { Some(client) } else { None }
    }

    /// See [`Opening::client`].
    fn client_mut(&mut self) -> Option<&mut SocketEndpoint<RemoteStream<S>>> {
        if let OpeningState::Connected(client, _) = &mut self.state { Some(client) } else { None }
    }

    /// The request for a WebSocket that waits for the caller's decision.
    pub(crate) fn request(&self) -> Option<&UpgradeRequest> {
        match &self.state {
            OpeningState::Connected(_, Step::Requested(PendingRequest::WebSocket(request))) => Some(request),
            _ => None,
        }
    }

    /// The request for a page that waits for the caller's response.
    pub(crate) fn page(&self) -> Option<&PageRequest> {
        match &self.state {
            OpeningState::Connected(_, Step::Requested(PendingRequest::Page(page))) => Some(page),
            _ => None,
        }
    }

    /// True if the caller is to decide about the client.
    pub(crate) fn is_requested(&self) -> bool {
        matches!(self.state, OpeningState::Connected(_, Step::Requested(_)))
    }

    /// Takes the connection of a client that has vanished for broken; see [`SocketEndpoint::handle_timeout`].
    pub(crate) fn find_lost_client(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) -> bool {
        self.client_mut().is_some_and(|client| client.handle_timeout(settings, now))
    }

    /// Ends the turn of the connection; see [`SocketEndpoint::end_turn`].
    pub(crate) fn end_turn_of_socket(&mut self, settings: Option<&UserTimeoutSettings>, now: Instant) {
        if let Some(client) = self.client_mut() {
            client.end_turn(settings, now);
        }
    }

    /// True if the client has got its page, or was told that it is refused.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.state, OpeningState::Connected(_, Step::Answered(_)))
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        match &self.state {
            OpeningState::Tls(handshake, _) => handshake.held(),
            OpeningState::Connected(client, step) => client.held() + step.held(),
            OpeningState::Over(_) => 0,
        }
    }

    /// Bytes of [`Opening::held`] of a page, or of a refusal, that the client has yet to read.
    pub(crate) fn unread(&self) -> usize {
        if let OpeningState::Connected(_, Step::Answered(_)) = self.state { self.held() } else { 0 }
    }

    /// When a turn is needed even without an event. `None`: not by time. What waits for the caller has no limit here.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            OpeningState::Tls(handshake, due) => Some(handshake.deadline(*due)),
            OpeningState::Connected(_, Step::Reading(_, due)) => Some(*due),
            OpeningState::Connected(_, Step::Answered(draining)) => Some(draining.deadline()),
            OpeningState::Connected(_, Step::Ready | Step::Requested(_)) | OpeningState::Over(_) => None,
        }
    }

    /// Goes on as far as it can.
    pub(crate) fn turn<N: Network<Stream = S>>(&mut self, cx: &mut SessionContext<'_, N>) -> OpeningOutcome {
        if let OpeningState::Tls(..) = self.state
            && let Some(outcome) = self.make_tls_handshake(cx)
        {
            return outcome;
        }
        if let OpeningState::Connected(client, Step::Reading(handshake, due)) = &mut self.state {
            match read_request(client, handshake, *due, cx.scratch, cx.budget, cx.now) {
                ReadOutcome::Pending(outcome) => return outcome,
                ReadOutcome::Received(request) => {
                    if let PendingRequest::WebSocket(request) = &request {
                        log::debug!("{} asks for {}", self.pid, request.path());
                    }
                    return self.request_decision(request);
                }
                ReadOutcome::Refused(refusal) => self.refuse(refusal, cx.now),
                ReadOutcome::Left => return self.leave(),
            }
        }
        match &mut self.state {
            OpeningState::Connected(client, Step::Ready | Step::Requested(PendingRequest::Stream))
                if client.is_closed() =>
            {
                self.leave()
            }
            OpeningState::Connected(_, Step::Ready) => self.request_decision(PendingRequest::Stream),
            // RFC 6455 section 4.1: a client waits for the response, so one that ends its side has gone.
            OpeningState::Connected(client, Step::Requested(PendingRequest::WebSocket(_)))
                if client.is_read_closed() =>
            {
                self.leave()
            }
            OpeningState::Connected(client, Step::Answered(draining)) => {
                match draining.turn(client, cx.scratch, cx.now) {
                    DrainOutcome::Again => OpeningOutcome::Again,
                    DrainOutcome::Wait if cx.now < draining.deadline() => OpeningOutcome::Wait,
                    DrainOutcome::Wait | DrainOutcome::Done => {
                        self.state = OpeningState::OVER;
                        OpeningOutcome::Over
                    }
                }
            }
            OpeningState::Tls(..) | OpeningState::Connected(_, Step::Reading(..) | Step::Requested(_)) => {
                OpeningOutcome::Wait
            }
            OpeningState::Over(_) => OpeningOutcome::Over,
        }
    }

    /// Goes on with the handshake of TLS. `None`: it is done.
    fn make_tls_handshake<N: Network<Stream = S>>(&mut self, cx: &mut SessionContext<'_, N>) -> Option<OpeningOutcome> {
        let state = std::mem::replace(&mut self.state, OpeningState::OVER);
        let OpeningState::Tls(handshake, due) = state else { return None };
        let request_due = handshake.deadline(due);
        let workers = TlsWorkers { queue: &mut *cx.handshakes, key: cx.key, client: cx.client };
        let reason = match handshake.turn(TlsTurn { now: cx.now, due, scratch: cx.scratch, budget: cx.budget, workers })
        {
            TlsProgress::Done(socket) => {
                let client = socket.wrap(|stream| RemoteStream::Tls(Box::new(stream)));
                self.state = OpeningState::Connected(client, Step::first(self.client, request_due));
                return None;
            }
            TlsProgress::Pending(handshake) => {
                self.state = OpeningState::Tls(handshake, due);
                return Some(OpeningOutcome::Wait);
            }
            TlsProgress::TimedOut => b"the handshake took too long".to_vec(),
            TlsProgress::Failed(error) => error.reason(Protocol::Tls),
        };
        log::info!("{} no TLS: {}", self.pid, String::from_utf8_lossy(&reason));
        Some(OpeningOutcome::Over)
    }

    /// The caller is to decide about `request`, or about the connection.
    fn request_decision(&mut self, request: PendingRequest) -> OpeningOutcome {
        if let OpeningState::Connected(_, step) = &mut self.state {
            *step = Step::Requested(request);
        }
        OpeningOutcome::Requested
    }

    fn leave(&mut self) -> OpeningOutcome {
        // Browsers open spare connections to a port with pages.
        let level = if self.client == ClientProtocol::Http { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "{} left before it was accepted", self.pid);
        self.state = OpeningState::OVER;
        OpeningOutcome::Over
    }

    fn take_client(&mut self) -> Option<SocketEndpoint<RemoteStream<S>>> {
        match std::mem::replace(&mut self.state, OpeningState::OVER) {
            OpeningState::Connected(client, _) => Some(client),
            OpeningState::Tls(..) | OpeningState::Over(_) => None,
        }
    }

    /// Accepts the request and returns the connection. `None` if no request waits, or if the client does not offer the
    /// subprotocol; nothing has changed then.
    pub(crate) fn accept(&mut self, options: &AcceptOptions<'_>) -> Option<Opened<S>> {
        let OpeningState::Connected(_, Step::Requested(PendingRequest::WebSocket(request))) = &mut self.state else {
            return None;
        };
        let mut handshake = ServerHandshake::new();
        let deflate = handshake.accept(request, options).ok()?;
        let rest = std::mem::take(&mut request.rest);
        let client = self.take_client()?;
        Some(Opened { client, response: handshake.transmit().to_vec(), deflate, rest })
    }

    /// Refuses the client in place of what was under way: answers with `refusal`, which the client gets 2 s to read; without
    /// WebSocket closes the connection. To be followed by a turn.
    pub(crate) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        if self.client == ClientProtocol::Stream {
            log::info!("{} not accepted: {} {}", self.pid, refusal.code(), refusal.reason());
            self.state = OpeningState::OVER;
            return;
        }
        let OpeningState::Connected(_, step) = &mut self.state else { return };
        let refusal = if step.is_head() { refusal.without_body() } else { refusal };
        let colon = if refusal.reason().is_empty() { "" } else { ": " };
        log::info!("{} not opened: {refusal}{colon}{}", self.pid, refusal.reason());
        let mut handshake = ServerHandshake::new();
        handshake.refuse(refusal);
        *step = Step::Answered(Draining::new(handshake.transmit().to_vec(), now));
    }

    /// Answers a request for a page with `response` (of a HEAD: up to the body), which the client gets 10 s to read. To be followed
    /// by a turn.
    pub(crate) fn respond(&mut self, response: Vec<u8>, now: Instant) {
        if let OpeningState::Connected(_, step @ Step::Requested(PendingRequest::Page(_))) = &mut self.state {
            let response = if step.is_head() { head_of_response(response) } else { response };
            let mut draining = Draining::new(response, now);
            draining.set_deadline(now + OPENING_TIMEOUT);
            *step = Step::Answered(draining);
        }
    }
}

impl Step {
    /// Where a connection begins. `due`: when its request must have come.
    fn first(client: ClientProtocol, due: Instant) -> Self {
        match client {
            ClientProtocol::Stream => Self::Ready,
            ClientProtocol::WebSocket => Self::Reading(ServerHandshake::new(), due),
            ClientProtocol::Http => Self::Reading(ServerHandshake::with_pages(), due),
        }
    }

    /// True if the caller is to decide about a HEAD.
    fn is_head(&self) -> bool {
        matches!(self, Self::Requested(PendingRequest::Page(page)) if page.is_head)
    }

    fn held(&self) -> usize {
        match self {
            Self::Reading(handshake, _) => handshake.received(),
            Self::Requested(PendingRequest::WebSocket(request)) => request.held(),
            Self::Requested(PendingRequest::Page(page)) => page.held(),
            Self::Answered(draining) => draining.held(),
            Self::Ready | Self::Requested(PendingRequest::Stream) => 0,
        }
    }
}

/// Reads what has come of a request, as far as there is memory for it. It must have come until `due`.
fn read_request<S: Stream>(
    client: &mut SocketEndpoint<RemoteStream<S>>,
    handshake: &mut ServerHandshake,
    due: Instant,
    scratch: &mut [u8],
    budget: &mut MemoryBudget,
    now: Instant,
) -> ReadOutcome {
    client.set_receive_limit(budget.left().max(RESERVE));
    if due <= now {
        // What has come before the limit counts, even if no event has reported it yet.
        client.assume_readable();
    }
    let before = handshake.received();
    let mut outcome = OpeningOutcome::Again;
    for _ in 0..TURN_READS {
        if !client.is_readable() {
            outcome = OpeningOutcome::Wait;
            break;
        }
        let received = handshake.received();
        let allowed = budget.left().saturating_sub(received - before).max(RESERVE.saturating_sub(received));
        if allowed == 0 {
            budget.wait(RESERVE);
            outcome = OpeningOutcome::Wait;
            break;
        }
        let room = MAX_READ.min(scratch.len()).min(allowed);
        match client.try_read(&mut scratch[..room]) {
            Transfer::Bytes(read) => match handshake.handle_input(&scratch[..read]) {
                RequestProgress::Pending => {}
                RequestProgress::Received(request) => return ReadOutcome::Received(PendingRequest::WebSocket(request)),
                RequestProgress::Page(page) => return ReadOutcome::Received(PendingRequest::Page(page)),
                RequestProgress::Refused(refusal) => return ReadOutcome::Refused(refusal),
            },
            Transfer::Blocked => {
                outcome = OpeningOutcome::Wait;
                break;
            }
            Transfer::Eof | Transfer::Broken(_) => return ReadOutcome::Left,
        }
    }
    wait_if_needed(client, budget);
    if outcome == OpeningOutcome::Wait && due <= now {
        return ReadOutcome::Refused(Refusal::new(408, "The request did not come in time."));
    }
    ReadOutcome::Pending(outcome)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::pid::PidSource;
    use crate::session::simulation::world::World;
    use crate::testing::log_recorder;
    use crate::testing::network::{SimPeer, SimStream, connection};
    use crate::testing::wire::FaultProfile;

    const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: x\r\n\r\n";

    fn begin(world: &mut World, room: usize) -> (Opening<SimStream>, SimPeer) {
        let (stream, peer) = connection(FaultProfile::default(), room);
        let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, true);
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        (world.with_context(1, |cx| Opening::new(pid, socket, None, ClientProtocol::WebSocket, cx)), peer)
    }

    fn turn(opening: &mut Opening<SimStream>, peer: &SimPeer, world: &mut World) -> OpeningOutcome {
        opening.handle_event(peer.wire_mut().take_event());
        world.with_context(1, |cx| opening.turn(cx))
    }

    fn received(peer: &SimPeer) -> String {
        String::from_utf8_lossy(&peer.wire().received).into_owned()
    }

    #[test]
    fn a_request_is_read_byte_by_byte_and_at_every_split() {
        let all = [REQUEST, b"rest"].concat();
        let pieces = (0..all.len()).map(|at| vec![&all[..at], &all[at..]]).chain([all.chunks(1).collect()]);
        for pieces in pieces {
            let mut world = World::new(0);
            let (mut opening, peer) = begin(&mut world, 1000);
            let mut requested = 0;
            for piece in pieces {
                peer.wire_mut().send_bytes(piece);
                match turn(&mut opening, &peer, &mut world) {
                    OpeningOutcome::Requested => requested += 1,
                    other => assert_eq!(other, OpeningOutcome::Wait),
                }
                assert!(opening.held() <= 3 * all.len(), "{} bytes", opening.held());
            }
            assert_eq!((requested, opening.deadline()), (1, None));
            assert_eq!(opening.request().unwrap().path(), "/a");
            assert!(received(&peer).is_empty(), "the caller decides");
            let none = AcceptOptions { subprotocol: Some("y"), ..AcceptOptions::default() };
            assert!(opening.accept(&none).is_none() && opening.request().is_some());
            let options = AcceptOptions { subprotocol: Some("x"), ..AcceptOptions::default() };
            let mut opened = opening.accept(&options).unwrap();
            assert!(opened.response.starts_with(b"HTTP/1.1 101 ") && opened.deflate.is_none());
            // What is not read yet is still in the socket.
            let mut rest = [0; 8];
            if let Transfer::Bytes(read) = opened.client.try_read(&mut rest) {
                opened.rest.extend_from_slice(&rest[..read]);
            }
            assert_eq!(opened.rest, b"rest");
            assert!(opening.client().is_none() && opening.held() == 0);
        }
    }

    #[test]
    fn a_refusal_is_written_in_full_and_what_still_comes_is_dropped() {
        let mut world = World::new(0);
        let (mut opening, peer) = begin(&mut world, 10);
        peer.wire_mut().send_bytes(REQUEST);
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Requested);
        opening.refuse(Refusal::new(502, "The target refuses."), world.now);
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
        assert!(!peer.wire().is_told());
        peer.wire_mut().make_room(1000);
        peer.wire_mut().send_bytes(b"more");
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
        let response = received(&peer);
        assert!(response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nThe target refuses.\n"), "{response}");
        assert_eq!((peer.wire().is_told(), peer.wire().unread()), (true, 0));
        peer.wire_mut().close();
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Over);
    }

    /// Regression: of all responses with 426, the log had the status alone.
    #[test]
    fn the_log_has_the_sentence_that_the_client_is_told() {
        let old_version = String::from_utf8_lossy(REQUEST).replace("Version: 13", "Version: 8");
        for request in [&old_version, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let mut world = World::new(0);
            let (mut opening, peer) = begin(&mut world, 1000);
            peer.wire_mut().send_bytes(request.as_bytes());
            log_recorder::start();
            assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
            let (log, response) = (log_recorder::take(), received(&peer));
            let (head, sentence) = response.trim_end().split_once("\r\n\r\n").unwrap();
            let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
            assert!(log.iter().any(|line| line.ends_with(&format!(" not opened: {status}: {sentence}"))), "{log:?}");
        }
    }

    #[test]
    fn a_client_that_does_not_read_its_refusal_is_closed_after_a_while() {
        let mut world = World::new(0);
        let (mut opening, peer) = begin(&mut world, 10);
        peer.wire_mut().send_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
        assert_eq!(received(&peer), "HTTP/1.1 4");
        world.now = opening.deadline().unwrap();
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Over);
    }

    #[test]
    fn a_request_that_does_not_come_in_time_gets_408() {
        for sent in [&b""[..], &REQUEST[..REQUEST.len() - 1]] {
            let mut world = World::new(0);
            let (mut opening, peer) = begin(&mut world, 1000);
            let due = opening.deadline().unwrap();
            // However slowly it comes.
            for byte in sent.chunks(1) {
                peer.wire_mut().send_bytes(byte);
                assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
            }
            world.now = due - Duration::from_millis(1);
            assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
            assert!(received(&peer).is_empty());
            world.now = due;
            assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
            assert!(received(&peer).starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{}", received(&peer));
        }
        let mut world = World::new(0);
        let (mut opening, peer) = begin(&mut world, 1000);
        peer.wire_mut().send_bytes(REQUEST);
        world.now = opening.deadline().unwrap();
        // No event has reported it.
        let outcome = world.with_context(1, |cx| opening.turn(cx));
        assert_eq!(outcome, OpeningOutcome::Requested, "it has come meanwhile");
    }

    #[test]
    fn a_client_that_speaks_another_protocol_gets_no_answer() {
        let mut world = World::new(0);
        let (mut opening, peer) = begin(&mut world, 1000);
        peer.wire_mut().send_bytes(b"\x16\x03\x01\x02\x00");
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
        assert_eq!((received(&peer).len(), peer.wire().is_told()), (0, true));
    }

    #[test]
    fn a_client_that_leaves_ends_the_opening() {
        for (sent, breaks) in [(&REQUEST[..9], false), (REQUEST, false), (&b""[..], true), (REQUEST, true)] {
            let mut world = World::new(0);
            let (mut opening, peer) = begin(&mut world, 1000);
            peer.wire_mut().send_bytes(sent);
            let expected = if sent == REQUEST { OpeningOutcome::Requested } else { OpeningOutcome::Wait };
            assert_eq!(turn(&mut opening, &peer, &mut world), expected);
            if breaks {
                peer.wire_mut().break_off();
            } else {
                peer.wire_mut().close();
            }
            assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Over);
            assert!(received(&peer).is_empty());
        }
    }

    #[test]
    fn a_request_without_memory_gets_its_reserve_and_waits_then() {
        let mut world = World::new(0);
        world.budget = MemoryBudget::new(100_000, 65_536);
        world.budget.hold(100_000);
        let (mut opening, peer) = begin(&mut world, 1000);
        let long = [&REQUEST[..REQUEST.len() - 2], b"X: ", &[b'y'; 3000], b"\r\n\r\n"].concat();
        peer.wire_mut().send_bytes(&long);
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Wait);
        assert_eq!((opening.held(), peer.wire().unread()), (RESERVE, long.len() - RESERVE));
        world.budget.release(100_000);
        assert_eq!(turn(&mut opening, &peer, &mut world), OpeningOutcome::Requested);
        assert!(opening.held() >= long.len());
    }
}
