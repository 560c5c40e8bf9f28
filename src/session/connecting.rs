//! Finding the remote's addresses, connecting to one of them, and what handshakes there are to do, within time limits.

use std::time::Instant;

use mio::Interest;
use mio::event::Event;

use super::draining::Draining;
use super::hop::Hop;
use super::outbox::Outbox;
use super::relaying::Relaying;
use super::remote::Remote;
use super::securing::{self, Securing};
use super::upgrading::{self, Upgrading};
use super::{Context, Pid, Stage, Step, Verdict};
use crate::net::connector::{self, Connector};
use crate::net::reason;
use crate::net::resolver::Answer;
use crate::net::socket::{DatagramSocket, TcpSocket};
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::Ready;
use crate::tls;
use crate::websocket::handshake::{ClientHandshake, ErrorCode, HandshakeError, Upgraded};

/// A CONN under way.
#[derive(Debug)]
pub struct Connecting {
    /// What the plugin has asked for.
    target: Target,
    /// Where that has led by now: redirects may have changed it.
    hop: Hop,
    /// What the plugin has sent behind its CONN, for the remote.
    ahead: Vec<u8>,
    /// What is known of the plugin's socket.
    ready: Ready,
    /// What is known of the attempts' sockets, taken together. Which of them an event means is not said, and the relay
    /// needs no more: a remote that answers and ends at once may never be heard of again.
    pub remote_ready: Ready,
    /// The plugin's connection is gone both ways: nobody waits any more.
    abandoned: bool,
    /// When everything must be done (RQTM).
    answer_due: Option<Instant>,
    attempt: Attempt,
}

#[derive(Debug)]
enum Attempt {
    /// The name is being looked up.
    Resolving,
    /// The addresses are known, nothing is tried yet.
    Resolved(Answer),
    /// Attempts are under way.
    Racing(Connector),
    /// A TLS handshake is under way.
    Securing(Securing),
    /// An opening handshake of WebSocket is under way.
    Upgrading(Box<Upgrading>),
    /// Nothing is under way: only within a step.
    Over,
}

impl Attempt {
    /// Has the addresses looked up.
    fn begin(hop: &Hop, cx: &mut Context<'_>) -> Self {
        hop.find(cx).map_or(Self::Resolving, Self::Resolved)
    }
}

impl Connecting {
    /// The stage that a CONN to `target` leads to.
    pub fn begin(
        pid: Pid,
        target: Target,
        ahead: Vec<u8>,
        ready: Ready,
        parameters: &Parameters,
        cx: &mut Context<'_>,
    ) -> Stage {
        log::debug!("{pid} connects to {target}");
        let bridge = parameters.bridge.as_deref().cloned().unwrap_or_default();
        let hop = Hop::first(target.clone(), bridge.redirects, parameters, cx);
        let answer_due = hop.protocol.is_websocket().then(|| cx.now + bridge.request_timeout);
        let attempt = Attempt::begin(&hop, cx);
        Stage::Connecting(Box::new(Self {
            target,
            hop,
            ahead,
            ready,
            remote_ready: Ready::default(),
            abandoned: false,
            answer_due,
            attempt,
        }))
    }

    /// The target as it is shown in STAT.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is spoken with it.
    pub fn protocol(&self) -> Protocol {
        self.hop.protocol
    }

    /// An event of the plugin's socket. Its end of sending is no reason to stop: it may want the answer.
    pub fn handle_plugin_event(&mut self, event: &Event) {
        self.ready.handle_event(event);
        self.abandoned |= event.is_error() || event.is_write_closed();
    }

    /// The addresses of `host`, if that is what was asked for.
    pub fn handle_resolved(&mut self, host: &str, answer: Answer) {
        if matches!(self.attempt, Attempt::Resolving) && self.hop.endpoint.host.eq_ignore_ascii_case(host) {
            self.attempt = Attempt::Resolved(answer);
        }
    }

    /// A thread has done its part of a TLS handshake.
    pub fn handle_secured(&mut self, step: tls::TlsStep) {
        if let Attempt::Securing(securing) = &mut self.attempt {
            securing.handle_step(step);
        }
    }

    /// Nobody waits any more for what was asked of others.
    pub fn withdraw(&self, cx: &mut Context<'_>) {
        match self.attempt {
            Attempt::Resolving => cx.resolver.withdraw(&self.hop.endpoint.host, cx.key),
            Attempt::Securing(_) => cx.handshakes.cancel(&cx.key),
            _ => {}
        }
    }

    /// When a turn is needed even without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.attempt {
            Attempt::Racing(connector) => connector.deadline(),
            _ => None,
        };
        let hop = (!self.is_connected()).then_some(self.hop.due);
        [own, hop, self.answer_due].into_iter().flatten().min()
    }

    /// True where only the answer to an opening handshake is missing.
    fn is_connected(&self) -> bool {
        matches!(self.attempt, Attempt::Upgrading(_))
    }

    /// Goes on as far as it can.
    pub fn step(&mut self, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Step {
        if self.abandoned {
            log::info!("{pid} left while connecting to {}", self.target);
            return Step::Next(Stage::Closed);
        }
        loop {
            let outcome = match std::mem::replace(&mut self.attempt, Attempt::Over) {
                waiting @ (Attempt::Resolving | Attempt::Over) => Outcome::Wait(waiting),
                Attempt::Resolved(answer) => self.connect(answer, pid, parameters, cx),
                Attempt::Racing(connector) => self.race(connector, pid, parameters, cx),
                Attempt::Securing(securing) => self.secure(securing, pid, parameters, cx),
                Attempt::Upgrading(upgrading) => self.upgrade(*upgrading, pid, parameters, cx),
            };
            match outcome {
                Outcome::Wait(attempt) => {
                    self.attempt = attempt;
                    break;
                }
                Outcome::Again(attempt) => self.attempt = attempt,
                Outcome::Done(stage) => return Step::Next(stage),
                Outcome::Failed(reason) => return self.fail(pid, &reason, cx),
            }
        }
        if self.answer_due.is_some_and(|due| due <= cx.now) {
            return self.fail(pid, &self.said(ErrorCode::RequestTimeout, "timeout"), cx);
        }
        if !self.is_connected() && self.hop.due <= cx.now {
            return self.fail(pid, &self.said(ErrorCode::ConnectTimeout, "timeout"), cx);
        }
        // An answer is read until there is nothing; what is left waits for the next turn.
        Step::Stay(Verdict { again: self.is_connected() && self.remote_ready.readable, ..Verdict::WAIT })
    }

    /// Addresses are known: attempts begin.
    fn connect(&mut self, answer: Answer, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        let addresses = match answer.and_then(|found| self.hop.reachable(found, cx)) {
            Ok(addresses) => addresses,
            Err(reason) => return Outcome::Failed(self.said(ErrorCode::CouldNotConnect, reason)),
        };
        if self.hop.protocol != Protocol::Udp {
            return Outcome::Again(Attempt::Racing(Connector::new(addresses, cx.now)));
        }
        // One address has to do, since nobody answers for a wrong one; and plugins know UDP as IPv4.
        let to = *addresses.iter().find(|address| address.is_ipv4()).unwrap_or(&addresses[0]);
        let opened = DatagramSocket::reaching(to).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            cx.registry.register(&mut socket.0, cx.remote_token, interest).map(|()| socket)
        });
        match opened {
            Ok(socket) => {
                log::info!("{pid} sends datagrams to {}", self.target);
                let framing = parameters.framing(Protocol::Udp);
                let relaying =
                    Relaying::datagrams(self.target.clone(), socket, to, framing, &self.ahead, self.ready, cx.now);
                Outcome::Done(relaying.greeted(pid, parameters))
            }
            Err(error) => Outcome::Failed(reason(&error)),
        }
    }

    /// Attempts are under way.
    fn race(&mut self, mut connector: Connector, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        let socket = match connector.poll(cx.registry, cx.remote_token, cx.now) {
            connector::Progress::Pending => return Outcome::Wait(Attempt::Racing(connector)),
            connector::Progress::Failed(error) => {
                return Outcome::Failed(self.said(ErrorCode::CouldNotConnect, &reason(&error)));
            }
            connector::Progress::Connected(stream, peer) => {
                self.hop.handle_connected(peer.ip());
                TcpSocket::outgoing(stream, cx.config.limits.keep_alive)
            }
        };
        log::info!("{pid} connected to {}", self.hop.target);
        self.remote_ready = Ready { readable: true, writable: true, ..self.remote_ready };
        match self.hop.protocol {
            Protocol::Tls | Protocol::Wss => {
                let settings = self.hop.tls_settings(parameters);
                Outcome::Again(Attempt::Securing(Securing::begin(socket, &self.hop.endpoint.host, &settings, cx)))
            }
            _ => self.connected(Remote::Plain(socket), pid, parameters, cx),
        }
    }

    /// A TLS handshake is under way.
    fn secure(&mut self, securing: Securing, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        match securing.step(&mut self.remote_ready, cx) {
            securing::Progress::Secured(stream) => {
                log::debug!("{pid} speaks {} with {}", stream.version(), self.hop.target);
                self.connected(Remote::Tls(Box::new(stream)), pid, parameters, cx)
            }
            securing::Progress::Failed(reason) => Outcome::Failed(reason),
            securing::Progress::Pending(securing) => Outcome::Wait(Attempt::Securing(securing)),
        }
    }

    /// The remote can be spoken to.
    fn connected(&mut self, remote: Remote, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        // Whatever stands between may hold bytes already.
        self.remote_ready = remote.readiness(self.remote_ready);
        let Target::WebSocket(url) = &self.hop.target else {
            let ahead = std::mem::take(&mut self.ahead);
            let relaying = Relaying::stream(self.target.clone(), remote, ahead, (self.ready, self.remote_ready), cx);
            return Outcome::Done(relaying.greeted(pid, parameters));
        };
        let offer = parameters.bridge.as_deref().map(|bridge| bridge.offer.clone()).unwrap_or_default();
        let handshake = ClientHandshake::new(url, &offer, cx.randomness.nonce(), self.hop.trusted);
        Outcome::Again(Attempt::Upgrading(Box::new(Upgrading::begin(remote, handshake))))
    }

    /// An opening handshake is under way.
    fn upgrade(&mut self, upgrading: Upgrading, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        match upgrading.step(&mut self.remote_ready, cx) {
            upgrading::Progress::Upgraded(remote, upgraded) => self.open(remote, upgraded, pid, parameters, cx),
            upgrading::Progress::Redirect(location) => self.redirect(&location, pid, parameters, cx),
            upgrading::Progress::Failed(reason) => Outcome::Failed(reason),
            upgrading::Progress::Pending(upgrading) => Outcome::Wait(Attempt::Upgrading(Box::new(upgrading))),
        }
    }

    fn open(
        &mut self,
        remote: Remote,
        upgraded: Upgraded,
        pid: Pid,
        parameters: &Parameters,
        cx: &mut Context<'_>,
    ) -> Outcome {
        log::debug!("{pid} speaks WebSocket with {}", self.hop.target);
        let ahead = std::mem::take(&mut self.ahead);
        let ready = (self.ready, self.remote_ready);
        let relaying = Relaying::websocket(self.target.clone(), remote, upgraded, &ahead, ready, parameters, cx);
        Outcome::Done(relaying.greeted(pid, parameters))
    }

    fn redirect(&mut self, location: &str, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Outcome {
        self.hop = match self.hop.redirected(location, parameters, cx) {
            Ok(hop) => hop,
            Err(failure) => return Outcome::Failed(failure.to_string()),
        };
        log::info!("{pid} redirected to {}", self.hop.target);
        self.remote_ready = Ready::default();
        Outcome::Again(Attempt::begin(&self.hop, cx))
    }

    /// The reason of a failure as the plugin is told: with its word in front, where part 1 of the protocol does not say
    /// it otherwise.
    fn said(&self, word: ErrorCode, reason: &str) -> String {
        match self.hop.protocol {
            Protocol::Tcp | Protocol::Udp => reason.to_owned(),
            Protocol::Tls | Protocol::Ws | Protocol::Wss => HandshakeError::new(word, reason).to_string(),
        }
    }

    fn fail(&mut self, pid: Pid, reason: &str, cx: &Context<'_>) -> Step {
        log::info!("{pid} not connected to {}: {reason}", self.target);
        let reply = Outbox::new(reply::connect_failed(reason.as_bytes()));
        Step::Next(Stage::Draining(Draining::new(reply, self.ready, cx.now)))
    }
}

/// What a step of an attempt leads to.
enum Outcome {
    /// Something must happen first.
    Wait(Attempt),
    /// It goes on at once.
    Again(Attempt),
    /// The plugin's words can pass.
    Done(Stage),
    /// It came to nothing, and why.
    Failed(String),
}
