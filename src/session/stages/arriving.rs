//! A connection that has arrived at a plugin's listener, until a plugin accepts it (ACPT).
//!
//! ```text
//! Opening --> Arrived: the daemon looks for an owner --> Waiting --ACPT--> the session relays
//!    |           | none has the path, or room              | DENY, WAIT has passed, the owner has gone
//!    '-----------+-----------------------------------------+--> Refused --> Over
//! ```
//!
//! Contract: after every `handle_*` and [`Arriving::refuse`], call [`Arriving::turn`], which also enforces the time limits.

use std::net::SocketAddr;
use std::time::Instant;

use crate::net::endpoint::SocketEndpoint;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::protocol::options::{Protocol, WebSocketSettings};
use crate::session::context::SessionContext;
use crate::session::opening::{ClientProtocol, Opening, OpeningOutcome};
use crate::session::pid::Pid;
use crate::session::plugin_port::PluginPort;
use crate::session::remote::RemoteStream;
use crate::tls::TlsStep;
use crate::websocket::handshake::{AcceptOptions, CompressionOffer, Refusal, UpgradeRequest, Upgraded};

/// A connection that has arrived.
#[derive(Debug)]
pub(crate) struct Arriving<S> {
    /// The address of the listener.
    listener: SocketAddr,
    protocol: Protocol,
    /// The connection, and the handshakes of TLS and WebSocket that it needs. Without any, nothing is read before a plugin
    /// accepts it.
    opening: Opening<S>,
    claim: Claim,
    /// The subprotocol that the listener prefers of those that the client offers.
    subprotocol: Option<Box<str>>,
}

/// What has been decided about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing: no owner has been told of it.
    Undecided,
    /// An owner has been told. A plugin may accept it until this instant.
    Waiting(Instant),
    /// It is refused.
    Refused,
}

/// ACPT names a subprotocol that the client does not offer, or several: these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotOffered(pub String);

/// A connection that a plugin has accepted.
#[derive(Debug)]
pub(crate) struct AcceptedArrival<S> {
    /// The connection.
    pub remote: SocketEndpoint<RemoteStream<S>>,
    /// WebSocket: what the handshake has agreed on.
    pub upgraded: Option<Upgraded>,
    /// What the remote is to be sent first: the response to its request.
    pub response: Vec<u8>,
}

impl<S: Stream> Arriving<S> {
    /// A connection that was accepted at `listener`, the address of `port`.
    pub(crate) fn new<N: Network<Stream = S>>(
        pid: Pid,
        socket: SocketEndpoint<S>,
        listener: SocketAddr,
        port: &PluginPort,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let client = if port.protocol.is_websocket() { ClientProtocol::WebSocket } else { ClientProtocol::Stream };
        let opening = Opening::new(pid, socket, port.tls.as_ref(), client, cx);
        Self { listener, protocol: port.protocol, opening, claim: Claim::Undecided, subprotocol: None }
    }

    /// The address of the listener.
    pub(crate) fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// What is spoken with the remote.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The request of WebSocket that is to be decided about.
    pub(crate) fn request(&self) -> Option<&UpgradeRequest> {
        self.opening.request()
    }

    /// True while a plugin may accept it.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.claim, Claim::Waiting(_)) && self.opening.is_requested()
    }

    /// An owner has been told of it. It waits until `due` for a plugin to accept it.
    pub(crate) fn handle_announced(&mut self, due: Instant, subprotocol: Option<Box<str>>) {
        (self.claim, self.subprotocol) = (Claim::Waiting(due), subprotocol);
    }

    /// An event of the connection.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        self.opening.handle_event(event);
    }

    /// A thread has done its part of the handshake of TLS.
    pub(crate) fn handle_tls_step(&mut self, step: TlsStep) {
        self.opening.handle_tls_step(step);
    }

    /// Cancels what was asked of threads. To be called before it is dropped.
    pub(crate) fn cancel<N: Network<Stream = S>>(&self, cx: &mut SessionContext<'_, N>) {
        self.opening.cancel(cx);
    }

    /// Has the next turn read the connection, whatever events have reported.
    pub(crate) fn assume_readable(&mut self) {
        self.opening.assume_readable();
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.opening.held() + self.subprotocol.as_deref().map_or(0, str::len)
    }

    /// When a turn is needed even without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if let Claim::Waiting(due) = self.claim { Some(due) } else { self.opening.deadline() }
    }

    /// Goes on as far as it can. [`OpeningOutcome::Requested`]: the daemon is to look for an owner.
    pub(crate) fn turn<N: Network<Stream = S>>(&mut self, cx: &mut SessionContext<'_, N>) -> OpeningOutcome {
        if let Claim::Waiting(due) = self.claim
            && due <= cx.now
        {
            self.refuse(Refusal::new(503, "No plugin has taken the connection in time."), cx.now);
        }
        self.opening.turn(cx)
    }

    /// Refuses the connection: WebSocket by `refusal`, all others by closing. To be followed by a turn.
    pub(crate) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        if self.claim != Claim::Refused {
            self.claim = Claim::Refused;
            self.opening.refuse(refusal, now);
        }
    }

    /// The subprotocol that the remote is to be told: that of ACPT, or else the listener's.
    pub(crate) fn choose_subprotocol(
        &self,
        settings: Option<&WebSocketSettings>,
    ) -> Result<Option<Box<str>>, NotOffered> {
        match settings.map(|settings| &settings.offer.subprotocols[..]) {
            None | Some([]) => Ok(self.subprotocol.clone()),
            Some([one]) if self.request().is_some_and(|request| request.offers(one)) => Ok(Some(one.clone())),
            Some(names) => Err(NotOffered(names.join(","))),
        }
    }

    /// A plugin accepts the connection, with these settings. `None` if it does not wait, or does not offer the subprotocol.
    pub(crate) fn accept(&mut self, settings: Option<&WebSocketSettings>) -> Option<AcceptedArrival<S>> {
        if !self.is_waiting() {
            return None;
        }
        let subprotocol = self.choose_subprotocol(settings).ok()?;
        if let Some(remote) = self.opening.take_stream() {
            return Some(AcceptedArrival { remote, upgraded: None, response: Vec::new() });
        }
        let offer = settings.map(|settings| &settings.offer);
        let head = self.request().filter(|_| offer.is_some_and(|offer| offer.keep_head));
        let head = head.map(|request| request.head.clone());
        let options = AcceptOptions {
            subprotocol: subprotocol.as_deref(),
            headers: offer.map_or(&[], |offer| &offer.headers),
            deflate: offer.is_some_and(|offer| offer.deflate != CompressionOffer::None),
        };
        let opened = self.opening.accept(&options)?;
        let upgraded = Upgraded { subprotocol, deflate: opened.deflate, head, rest: opened.rest };
        Some(AcceptedArrival { remote: opened.client, upgraded: Some(upgraded), response: opened.response })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::net::endpoint::Endpoint as _;
    use crate::protocol::listen_settings::ListenSettings;
    use crate::session::pid::PidSource;
    use crate::session::simulation::world::World;
    use crate::testing::network::{SimPeer, SimStream, connection};
    use crate::testing::wire::FaultProfile;

    const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: x, y\r\n\r\n";

    struct Fixture {
        world: World,
        arriving: Arriving<SimStream>,
        peer: SimPeer,
    }

    impl Fixture {
        fn new(protocol: Protocol) -> Self {
            let mut world = World::new(0);
            let address = "127.0.0.1:80".parse().unwrap();
            let port = PluginPort::new(&ListenSettings { protocol, ..ListenSettings::new(address) });
            let (stream, peer) = connection(FaultProfile::default(), 1000);
            let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
            let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, false);
            let arriving = world.with_context(1, |cx| Arriving::new(pid, socket, address, &port, cx));
            Self { world, arriving, peer }
        }

        fn turn(&mut self) -> OpeningOutcome {
            self.arriving.handle_event(self.peer.wire_mut().take_event());
            self.world.with_context(1, |cx| self.arriving.turn(cx))
        }

        /// An arrival that waits for 5 s.
        fn waiting(protocol: Protocol) -> Self {
            let mut fixture = Self::new(protocol);
            if protocol.is_websocket() {
                fixture.peer.wire_mut().send_bytes(REQUEST);
            }
            assert_eq!(fixture.turn(), OpeningOutcome::Requested);
            assert_eq!((fixture.turn(), fixture.arriving.is_waiting()), (OpeningOutcome::Wait, false), "asked once");
            fixture.arriving.handle_announced(fixture.world.now + Duration::from_secs(5), Some("y".into()));
            assert!(fixture.arriving.is_waiting());
            fixture
        }
    }

    fn naming(subprotocols: &[&str]) -> WebSocketSettings {
        let mut settings = WebSocketSettings::default();
        settings.offer.set_subprotocols(subprotocols.iter().map(|name| name.as_bytes())).unwrap();
        settings
    }

    #[test]
    fn what_a_client_sends_is_left_until_a_plugin_accepts_it() {
        let mut fixture = Fixture::waiting(Protocol::Tcp);
        fixture.peer.wire_mut().send_bytes(b"hello");
        assert_eq!((fixture.turn(), fixture.peer.wire().unread()), (OpeningOutcome::Wait, 5));
        let accepted = fixture.arriving.accept(None).unwrap();
        assert!(accepted.upgraded.is_none() && accepted.response.is_empty() && accepted.remote.is_readable());
        assert!(fixture.arriving.accept(None).is_none(), "once");
    }

    #[test]
    fn the_101_has_the_subprotocol_of_acpt_or_the_listeners() {
        for (settings, chosen) in [(None, "y"), (Some(naming(&["x"])), "x")] {
            let mut fixture = Fixture::waiting(Protocol::Ws);
            let AcceptedArrival { upgraded, response, .. } = fixture.arriving.accept(settings.as_ref()).unwrap();
            let response = String::from_utf8(response).unwrap();
            assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
            assert!(response.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{response}");
            let upgraded = upgraded.unwrap();
            assert_eq!((upgraded.subprotocol.as_deref(), upgraded.head), (Some(chosen), None));
            assert!(fixture.peer.wire().received.is_empty(), "the relay writes it");
        }
        let mut fixture = Fixture::waiting(Protocol::Ws);
        for bad in [&["z"][..], &["x", "y"]] {
            let refused = fixture.arriving.choose_subprotocol(Some(&naming(bad)));
            assert_eq!(refused, Err(NotOffered(bad.join(","))));
            assert!(fixture.arriving.accept(Some(&naming(bad))).is_none());
        }
        let mut settings = naming(&["x"]);
        settings.offer.keep_head = true;
        let head = fixture.arriving.accept(Some(&settings)).unwrap().upgraded.unwrap().head;
        assert_eq!(head.as_deref(), Some(REQUEST), "what was refused before is still there");
    }

    #[test]
    fn an_arrival_waits_until_its_time_is_over() {
        for protocol in [Protocol::Tcp, Protocol::Ws] {
            let mut fixture = Fixture::waiting(protocol);
            fixture.world.now = fixture.arriving.deadline().unwrap();
            let outcome = fixture.turn();
            assert!(!fixture.arriving.is_waiting() && fixture.arriving.accept(None).is_none());
            match protocol {
                Protocol::Tcp => assert_eq!(outcome, OpeningOutcome::Over),
                _ => {
                    assert!(fixture.peer.wire().received.starts_with(b"HTTP/1.1 503 "));
                    fixture.peer.wire_mut().close();
                    assert_eq!(fixture.turn(), OpeningOutcome::Over);
                }
            }
        }
    }

    #[test]
    fn a_client_that_leaves_waits_no_longer() {
        for (protocol, breaks, ends) in [
            (Protocol::Tcp, true, true),
            (Protocol::Tcp, false, false),
            (Protocol::Ws, true, true),
            (Protocol::Ws, false, true),
        ] {
            let mut fixture = Fixture::waiting(protocol);
            if breaks {
                fixture.peer.wire_mut().break_off();
            } else {
                fixture.peer.wire_mut().close();
            }
            assert_eq!(fixture.turn() == OpeningOutcome::Over, ends, "{protocol:?} {breaks}");
            assert_eq!(fixture.arriving.is_waiting(), !ends, "a client of tcp may have ended its side alone");
        }
    }
}
