//! A CONN under way, up to the connection that bytes can pass through.
//!
//! ```text
//! Resolving -> Resolved -> Racing -> [TLS handshake] -> [WebSocket handshake] -> ConnectOutcome::Connected
//!     ^                                                        | redirect, or 400 to an offer of compression
//!     +--------------------------------------------------------+
//! ```
//!
//! UDP ends at Resolved. Contract: after every `handle_*`, call [`Connecting::turn`], which also enforces the time limits. What has
//! come before a limit counts: after the limit a turn reads the socket first, whatever events have reported.

mod hop;
mod upgrade;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::access::{OwnConnection, RequestOrigin};
use crate::net::connector::{Connector, ConnectorProgress};
use crate::net::endpoint::{DatagramEndpoint, Endpoint as _, SocketEndpoint};
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::reason;
use crate::net::resolver::ResolveResult;
use crate::net::socket::Stream;
use crate::protocol::connect_error::ConnectError;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::Target;
use crate::session::connect_times::{ConnectStep, ConnectTimes};
use crate::session::connection::{ConnectRequest, Connected, ConnectedLink};
use crate::session::context::SessionContext;
use crate::session::pid::Pid;
use crate::session::remote::RemoteStream;
use crate::session::tls_handshake::{TlsHandshake, TlsProgress, TlsTurn, TlsWorkers};
use crate::tls::TlsStep;
use crate::websocket::handshake::{ClientHandshake, CompressionOffer};
use hop::Hop;
use upgrade::{WsHandshake, WsProgress};

/// A CONN under way.
#[derive(Debug)]
pub(crate) struct Connecting<N: Network> {
    /// For log lines.
    pid: Pid,
    /// What has asked for the connection: a client, a redirect, or the configuration.
    origin: RequestOrigin,
    request: ConnectRequest,
    /// Where the request leads by now: redirects may have changed it.
    hop: Hop,
    /// When everything must be done (RQTM).
    request_due: Option<Instant>,
    /// What the next opening handshake offers (DEFL). Each 400 makes it plainer, so that there are two further attempts at
    /// most, redirects included.
    compression: CompressionOffer,
    /// When everything must be done because the plugin has ended its side.
    half_closed_due: Option<Instant>,
    attempt: Attempt<N>,
    /// The connection is one to the proxy itself.
    own_connection: Option<Box<OwnConnection>>,
    times: ConnectTimes,
    /// When the step that is under way began.
    step_began: Instant,
}

#[derive(Debug)]
enum Attempt<N: Network> {
    /// The name is being looked up.
    Resolving,
    /// The addresses are known, nothing is tried yet.
    Resolved(ResolveResult),
    /// Attempts to connect are under way.
    Racing(Connector<N>),
    /// A TLS handshake is under way.
    Tls(TlsHandshake<N::Stream>),
    /// An opening handshake of WebSocket is under way.
    WebSocket(Box<WsHandshake<N::Stream>>),
    /// Nothing is under way: only within a turn.
    Over,
}

/// What a turn leads to.
pub(crate) enum ConnectOutcome<N: Network> {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once.
    Again,
    /// Bytes can pass.
    Connected(Connected<N>),
    /// There is no connection.
    Failed(ConnectError),
}

/// What a step of an attempt leads to.
enum AttemptOutcome<N: Network> {
    /// Something must happen first.
    Wait(Attempt<N>),
    /// The attempt goes on at once.
    Continue(Attempt<N>),
    Connected(ConnectedLink<N>),
    Failed(ConnectError),
}

impl<N: Network> Connecting<N> {
    /// Begins what `request` and `parameters` ask for, on behalf of `origin`.
    pub(crate) fn new(
        pid: Pid,
        origin: RequestOrigin,
        request: ConnectRequest,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let bridge = parameters.websocket.as_deref().cloned().unwrap_or_default();
        let hop = Hop::first(request.target.clone(), bridge.redirects, parameters, cx);
        let request_due = hop.protocol.is_websocket().then(|| cx.now + bridge.request_timeout);
        let attempt = Attempt::begin(&hop, origin, cx);
        Self {
            pid,
            origin,
            request,
            hop,
            request_due,
            compression: bridge.offer.deflate,
            half_closed_due: None,
            attempt,
            own_connection: None,
            times: ConnectTimes::default(),
            step_began: cx.now,
        }
    }

    /// The target as the plugin wrote it.
    pub(crate) fn target(&self) -> &Target {
        &self.request.target
    }

    /// What is spoken with it.
    pub(crate) fn protocol(&self) -> Protocol {
        self.hop.protocol
    }

    /// How long the steps that are over have taken.
    pub(crate) fn times(&self) -> ConnectTimes {
        self.times
    }

    /// `step` is over, and the next one begins.
    fn end_step(&mut self, step: ConnectStep, now: Instant) {
        self.times.add(step, now.saturating_duration_since(self.step_began));
        self.step_began = now;
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        let attempt = match &self.attempt {
            Attempt::Tls(handshake) => handshake.held(),
            Attempt::WebSocket(handshake) => handshake.held(),
            Attempt::Resolving | Attempt::Resolved(_) | Attempt::Racing(_) | Attempt::Over => 0,
        };
        self.request.held() + self.hop.target.held() + attempt
    }

    /// An event of one of the remote's sockets.
    pub(crate) fn handle_remote_event(&mut self, event: Readiness) {
        match &mut self.attempt {
            Attempt::Racing(connector) => connector.handle_event(event),
            Attempt::Tls(handshake) => handshake.socket_mut().handle_event(event),
            Attempt::WebSocket(handshake) => handshake.remote_mut().handle_event(event),
            Attempt::Resolving | Attempt::Resolved(_) | Attempt::Over => {}
        }
    }

    /// The addresses of `host`, if that is what was asked for.
    pub(crate) fn handle_resolved(&mut self, host: &str, answer: ResolveResult) {
        if matches!(self.attempt, Attempt::Resolving) && self.hop.endpoint.host.eq_ignore_ascii_case(host) {
            self.attempt = Attempt::Resolved(answer);
        }
    }

    /// A thread has done its part of a TLS handshake.
    pub(crate) fn handle_tls_step(&mut self, step: TlsStep) {
        if let Attempt::Tls(handshake) = &mut self.attempt {
            handshake.handle_step(step);
        }
    }

    /// Cancels what was asked of threads.
    pub(crate) fn cancel(&self, cx: &mut SessionContext<'_, N>) {
        match self.attempt {
            Attempt::Resolving => cx.resolver.cancel(&self.hop.endpoint.host, cx.key),
            Attempt::Tls(_) => cx.handshakes.cancel(cx.key),
            Attempt::Resolved(_) | Attempt::Racing(_) | Attempt::WebSocket(_) | Attempt::Over => {}
        }
    }

    /// The plugin has ended its side. It may still want the connection, as nc(1) does at the end of its input; but it may as
    /// well have gone, which the kernel does not tell before something is written. So a long CTIM or RQTM no longer holds: `limit`
    /// from now on does.
    pub(crate) fn handle_half_close(&mut self, limit: Duration, now: Instant) {
        self.half_closed_due.get_or_insert(now + limit);
    }

    /// When a turn is needed even without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let limit = self.limit().map(|(due, _)| due);
        match &self.attempt {
            Attempt::Racing(connector) => [connector.deadline(), limit].into_iter().flatten().min(),
            Attempt::Tls(handshake) => limit.map(|due| handshake.deadline(due)),
            _ => limit,
        }
    }

    /// The next time limit, and what passing it means. `None`: only while the response to an opening handshake is missing, which
    /// has its own.
    fn limit(&self) -> Option<(Instant, ConnectError)> {
        let is_connected = matches!(self.attempt, Attempt::WebSocket(_));
        let hop_due = Some(self.hop.due).filter(|_| !is_connected);
        let request_due = self.request_due.map(|due| (due, ConnectError::REQUEST_TIMEOUT));
        let others = [hop_due, self.half_closed_due].into_iter().flatten();
        request_due
            .into_iter()
            .chain(others.map(|due| (due, ConnectError::CONNECT_TIMEOUT)))
            .min_by_key(|(due, _)| *due)
    }

    /// Goes on as far as it can.
    pub(crate) fn turn(&mut self, parameters: &Parameters, cx: &mut SessionContext<'_, N>) -> ConnectOutcome<N> {
        let is_late = self.limit().is_some_and(|(due, _)| due <= cx.now);
        if let Attempt::WebSocket(handshake) = &mut self.attempt
            && is_late
        {
            handshake.remote_mut().assume_readable();
        }
        loop {
            let outcome = match std::mem::replace(&mut self.attempt, Attempt::Over) {
                waiting @ (Attempt::Resolving | Attempt::Over) => AttemptOutcome::Wait(waiting),
                Attempt::Resolved(answer) => self.connect(answer, parameters, cx),
                Attempt::Racing(connector) => self.race(connector, parameters, cx),
                Attempt::Tls(handshake) => self.secure(handshake, parameters, cx),
                Attempt::WebSocket(handshake) => self.upgrade(*handshake, parameters, cx),
            };
            match outcome {
                AttemptOutcome::Wait(attempt) => {
                    self.attempt = attempt;
                    break;
                }
                AttemptOutcome::Continue(attempt) => self.attempt = attempt,
                AttemptOutcome::Connected(link) => {
                    let (target, sent_ahead) =
                        (self.request.target.clone(), std::mem::take(&mut self.request.sent_ahead));
                    return ConnectOutcome::Connected(Connected {
                        request: ConnectRequest { target, sent_ahead },
                        link,
                        own_connection: self.own_connection.take(),
                        response: None,
                        times: self.times,
                    });
                }
                AttemptOutcome::Failed(error) => return ConnectOutcome::Failed(error),
            }
        }
        match (&self.attempt, self.limit()) {
            (Attempt::WebSocket(handshake), _) if handshake.is_readable() => ConnectOutcome::Again,
            // It enforces the limit itself.
            (Attempt::Tls(_), _) => ConnectOutcome::Wait,
            (_, Some((due, error))) if due <= cx.now => ConnectOutcome::Failed(error),
            _ => ConnectOutcome::Wait,
        }
    }

    /// The addresses are known: attempts begin.
    fn connect(
        &mut self,
        answer: ResolveResult,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> AttemptOutcome<N> {
        if self.hop.endpoint.literal().is_none() {
            self.end_step(ConnectStep::Name, cx.now);
        }
        let found = answer.map_err(ConnectError::could_not_connect);
        let addresses = match found.and_then(|found| self.hop.reachable(found, self.origin, cx)) {
            Ok(addresses) => addresses,
            Err(error) => return AttemptOutcome::Failed(error),
        };
        if self.hop.protocol != Protocol::Udp {
            return AttemptOutcome::Continue(Attempt::Racing(Connector::new(addresses, cx.now)));
        }
        let settings = parameters.datagrams.as_deref().cloned().unwrap_or_default();
        // A port of UDP is listened on, too: by this client alone, where it is bound last (socket(7), SO_REUSEADDR).
        if let Some(own) = settings.bind.filter(|own| own.port != 0)
            && let RequestOrigin::Client(client) = self.origin
            && !cx.config.listen.allows(client.ip().to_canonical())
        {
            return AttemptOutcome::Failed(ConnectError::could_not_connect(format!("{own}: not allowed")));
        }
        let to = match choose_address(&addresses, settings.is_ipv6()) {
            Ok(to) => to,
            Err(error) => return AttemptOutcome::Failed(error),
        };
        match cx.network.open_datagrams(to, &settings, cx.remote_token) {
            Ok(socket) => AttemptOutcome::Connected(ConnectedLink::Datagrams(DatagramEndpoint::new(socket), to)),
            Err(error) => AttemptOutcome::Failed(ConnectError::could_not_connect(error.to_string())),
        }
    }

    /// Attempts to connect are under way.
    fn race(
        &mut self,
        mut connector: Connector<N>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> AttemptOutcome<N> {
        let (mut socket, peer) = match connector.poll(cx.network, cx.remote_token, cx.now) {
            ConnectorProgress::Pending => return AttemptOutcome::Wait(Attempt::Racing(connector)),
            ConnectorProgress::Failed(error) => {
                return AttemptOutcome::Failed(ConnectError::could_not_connect(reason(&error)));
            }
            ConnectorProgress::Connected(socket, peer) => (socket, peer),
        };
        self.hop.handle_connected(peer);
        self.end_step(ConnectStep::Connect, cx.now);
        if cx.own.is_watched(peer) {
            match cx.network.local_address(socket.stream()) {
                Ok(end) => self.own_connection = Some(cx.own.add_connection(end)),
                Err(error) => return AttemptOutcome::Failed(ConnectError::could_not_connect(reason(&error))),
            }
        }
        if self.hop.protocol != Protocol::Tcp {
            // A handshake writes several times in a row.
            cx.network.set_no_delay(socket.stream());
            // Layers read without an event.
            socket.stream_mut().keep_urgent_bytes();
        }
        match self.hop.protocol {
            Protocol::Tls | Protocol::Wss => {
                let settings = self.hop.tls_settings(parameters);
                let workers = TlsWorkers { queue: &mut *cx.handshakes, key: cx.key, client: cx.client };
                let handshake = TlsHandshake::begin(socket, &self.hop.endpoint.host, &settings, workers);
                AttemptOutcome::Continue(Attempt::Tls(handshake))
            }
            Protocol::Tcp | Protocol::Udp | Protocol::Ws => {
                self.handle_stream(socket.wrap(RemoteStream::Plain), parameters, cx)
            }
        }
    }

    /// A TLS handshake is under way.
    fn secure(
        &mut self,
        handshake: TlsHandshake<N::Stream>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> AttemptOutcome<N> {
        let (due, timeout) = self.limit().unwrap_or((self.hop.due, ConnectError::CONNECT_TIMEOUT));
        let workers = TlsWorkers { queue: &mut *cx.handshakes, key: cx.key, client: cx.client };
        match handshake.turn(TlsTurn { now: cx.now, due, scratch: cx.scratch, budget: cx.budget, workers }) {
            TlsProgress::Pending(handshake) => AttemptOutcome::Wait(Attempt::Tls(handshake)),
            TlsProgress::Failed(error) => AttemptOutcome::Failed(error),
            TlsProgress::TimedOut => AttemptOutcome::Failed(timeout),
            TlsProgress::Done(socket) => {
                self.end_step(ConnectStep::Tls, cx.now);
                self.handle_stream(socket.wrap(|stream| RemoteStream::Tls(Box::new(stream))), parameters, cx)
            }
        }
    }

    /// The remote's stream is established.
    fn handle_stream(
        &mut self,
        remote: SocketEndpoint<RemoteStream<N::Stream>>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> AttemptOutcome<N> {
        let Target::WebSocket(url) = &self.hop.target else {
            return AttemptOutcome::Connected(ConnectedLink::Stream(remote));
        };
        let mut offer = parameters.websocket.as_deref().map(|bridge| bridge.offer.clone()).unwrap_or_default();
        offer.deflate = self.compression;
        let handshake = ClientHandshake::new(url, &offer, cx.random.nonce(), self.hop.trusted);
        AttemptOutcome::Continue(Attempt::WebSocket(Box::new(WsHandshake::begin(remote, handshake))))
    }

    /// An opening handshake of WebSocket is under way.
    fn upgrade(
        &mut self,
        handshake: WsHandshake<N::Stream>,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> AttemptOutcome<N> {
        let progress = handshake.turn(cx.scratch, cx.budget);
        if !matches!(progress, WsProgress::Pending(_) | WsProgress::Failed(_)) {
            self.end_step(ConnectStep::Upgrade, cx.now);
        }
        match progress {
            WsProgress::Pending(handshake) => AttemptOutcome::Wait(Attempt::WebSocket(Box::new(handshake))),
            WsProgress::Failed(error) => AttemptOutcome::Failed(error),
            WsProgress::OfferRefused(error) => {
                let Some(plainer) = self.compression.plainer() else { return AttemptOutcome::Failed(error.into()) };
                log::debug!("{} offers less compression after {error}", self.pid);
                self.compression = plainer;
                self.hop.renew(parameters, cx);
                self.begin_again(cx)
            }
            WsProgress::Upgraded(remote, upgraded) => {
                AttemptOutcome::Connected(ConnectedLink::WebSocket(remote, upgraded))
            }
            WsProgress::Redirect(location) => match self.hop.redirected(&location, parameters, cx) {
                Ok(hop) => {
                    log::info!("{} redirected to {}", self.pid, hop.target);
                    self.hop = hop;
                    if let RequestOrigin::Client(client) = self.origin {
                        self.origin = RequestOrigin::Redirect(client);
                    }
                    self.begin_again(cx)
                }
                Err(failure) => AttemptOutcome::Failed(failure.into()),
            },
        }
    }

    /// A connection to the hop is made from the beginning. The one before is closed.
    fn begin_again(&mut self, cx: &mut SessionContext<'_, N>) -> AttemptOutcome<N> {
        self.own_connection = None;
        AttemptOutcome::Continue(Attempt::begin(&self.hop, self.origin, cx))
    }
}

impl<N: Network> Attempt<N> {
    /// Starts to resolve `hop`.
    fn begin(hop: &Hop, origin: RequestOrigin, cx: &mut SessionContext<'_, N>) -> Self {
        hop.resolve(origin, cx).map_or(Self::Resolving, Self::Resolved)
    }
}

/// The address that datagrams go to. UDP has no answer by which to choose one; and plugins know UDP as IPv4. `is_ipv6`: the
/// family that BIND and JOIN name, if they do.
fn choose_address(addresses: &[SocketAddr], is_ipv6: Option<bool>) -> Result<SocketAddr, ConnectError> {
    let wanted = is_ipv6.unwrap_or(false);
    let found = addresses.iter().find(|address| address.is_ipv6() == wanted);
    let found = found.or_else(|| addresses.first().filter(|_| is_ipv6.is_none()));
    found.copied().ok_or(ConnectError::could_not_connect(match wanted {
        true => "BIND and JOIN are IPv6, the target is IPv4",
        false => "BIND and JOIN are IPv4, the target is IPv6",
    }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Config;
    use crate::protocol::options::{Transport, WebSocketSettings};
    use crate::session::pid::PidSource;
    use crate::session::simulation::services::Delay;
    use crate::session::simulation::world::World;
    use crate::testing::network::{ConnectPlan, SimNetwork};

    const KEY: usize = 1;

    /// A world in which `plans` hold.
    fn world(plans: &[(&str, ConnectPlan)]) -> World {
        let mut world = World::new(0);
        world.config = Config::default();
        for (address, plan) in plans {
            world.network.plans.insert(address.parse().unwrap(), *plan);
        }
        world
    }

    fn begin(world: &mut World, target: &str, parameters: &Parameters) -> Connecting<SimNetwork> {
        let target = Target::parse_prefix(target.as_bytes()).unwrap().0;
        let request = ConnectRequest { target, sent_ahead: b"hello".to_vec() };
        let pid = PidSource::default().next(std::time::SystemTime::UNIX_EPOCH, false);
        let origin = RequestOrigin::Client("192.0.2.99:1".parse().unwrap());
        world.with_context(KEY, |cx| Connecting::new(pid, origin, request, parameters, cx))
    }

    fn turn(world: &mut World, connecting: &mut Connecting<SimNetwork>) -> ConnectOutcome<SimNetwork> {
        world.with_context(KEY, |cx| connecting.turn(&Parameters::default(), cx))
    }

    fn failure(outcome: ConnectOutcome<SimNetwork>) -> ConnectError {
        let ConnectOutcome::Failed(error) = outcome else { panic!("it has not failed") };
        error
    }

    #[test]
    fn the_next_address_is_tried_where_one_refuses() {
        let mut world = world(&[("192.0.2.1:80", ConnectPlan::Unreachable), ("192.0.2.2:80", ConnectPlan::Immediate)]);
        let addresses = vec!["192.0.2.1:0".parse().unwrap(), "192.0.2.2:0".parse().unwrap()];
        world.resolver.answers.insert("two.test".into(), (Ok(addresses), Delay::None));
        let mut connecting = begin(&mut world, "two.test:80", &Parameters::default());
        assert_eq!(connecting.held(), 5 + 2 * connecting.target().held(), "what was sent behind CONN, and the target");
        // A connection that this machine has not answered at once is asked for in the next turn.
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        let ConnectOutcome::Connected(connected) = turn(&mut world, &mut connecting) else { panic!("no connection") };
        assert!(matches!(connected.link, ConnectedLink::Stream(_)));
        assert_eq!(connected.request.sent_ahead, b"hello");
    }

    #[test]
    fn each_step_has_its_time() {
        let mut world = world(&[("192.0.2.1:80", ConnectPlan::Immediate)]);
        world.resolver.answers.insert("a.test".into(), (Ok(vec!["192.0.2.1:0".parse().unwrap()]), Delay::None));
        let mut connecting = begin(&mut world, "ws://a.test/", &Parameters::default());
        world.now += Duration::from_millis(7);
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        let steps = |connecting: &Connecting<SimNetwork>| {
            ConnectStep::ALL.map(|step| connecting.times().get(step).map(|time| time.as_millis()))
        };
        assert_eq!(steps(&connecting), [Some(7), None, None, None]);
        world.now += Duration::from_millis(20);
        turn(&mut world, &mut connecting);
        world.now += Duration::from_millis(300);
        let (_, peer) = world.network.begun.pop().expect("a connection is begun");
        peer.wire_mut().send_bytes(b"HTTP/1.1 302 Found\r\nLocation: /on\r\nContent-Length: 0\r\n\r\n");
        connecting.handle_remote_event(peer.wire_mut().take_event());
        turn(&mut world, &mut connecting);
        assert_eq!(steps(&connecting), [Some(7), Some(20), None, Some(300)], "what follows a redirect is added");
        world.now += Duration::from_millis(5);
        turn(&mut world, &mut connecting);
        assert_eq!(steps(&connecting)[3], Some(300), "the second request is not answered yet");
    }

    #[test]
    fn the_last_address_says_why_there_is_no_connection() {
        let mut world = world(&[("192.0.2.1:80", ConnectPlan::Refused)]);
        let mut connecting = begin(&mut world, "192.0.2.1:80", &Parameters::default());
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        let error = failure(turn(&mut world, &mut connecting));
        assert_eq!(error, ConnectError::could_not_connect("connection refused"));
    }

    #[test]
    fn no_connection_is_made_to_the_proxy_itself() {
        let mut world = world(&[("192.0.2.2:2504", ConnectPlan::Immediate)]);
        world.own.ports = vec![2504];
        world.network.own.insert("192.0.2.1".parse().unwrap());
        for target in ["127.0.0.1:2504", "192.0.2.1:2504", "ws://127.0.0.1:2504/"] {
            let mut connecting = begin(&mut world, target, &Parameters::default());
            let error = failure(turn(&mut world, &mut connecting));
            assert_eq!(error, ConnectError::could_not_connect("connection to the proxy itself"), "{target}");
        }
        let addresses = vec!["192.0.2.1:0".parse().unwrap(), "192.0.2.2:0".parse().unwrap()];
        world.resolver.answers.insert("two.test".into(), (Ok(addresses), Delay::None));
        let mut connecting = begin(&mut world, "two.test:2504", &Parameters::default());
        turn(&mut world, &mut connecting);
        assert_eq!(world.network.begun.len(), 1, "the other address is connected to, and no own one");
        let parameters = Parameters { transport: Transport::Udp, ..Parameters::default() };
        let mut connecting = begin(&mut world, "127.0.0.1:2504", &parameters);
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Connected(_)), "no listener is for UDP");
    }

    #[test]
    fn a_connection_that_is_made_again_is_no_longer_one_to_the_proxy_itself() {
        const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        const REDIRECT: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
        for answers in [[REFUSAL, REDIRECT, REFUSAL], [REDIRECT, REFUSAL, REDIRECT]] {
            // Connections to the proxy's port are watched, whatever the address.
            let mut world = world(&[("192.0.2.1:2504", ConnectPlan::Immediate)]);
            world.own.ports = vec![2504];
            let mut bridge = WebSocketSettings { redirects: 5, ..WebSocketSettings::default() };
            bridge.offer.deflate = CompressionOffer::SmallWindows;
            let parameters = Parameters { websocket: Some(Box::new(bridge)), ..Parameters::default() };
            let mut connecting = begin(&mut world, "ws://192.0.2.1:2504/", &parameters);
            assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
            for answer in answers {
                let (_, peer) = world.network.begun.pop().expect("a connection is begun");
                peer.wire_mut().make_room(10_000);
                connecting.handle_remote_event(peer.wire_mut().take_event());
                assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
                assert!(connecting.own_connection.is_some() && !peer.is_dropped());
                peer.wire_mut().send_bytes(answer);
                connecting.handle_remote_event(peer.wire_mut().take_event());
                turn(&mut world, &mut connecting);
                assert!(connecting.own_connection.is_none() && peer.is_dropped());
            }
            assert_eq!(world.network.begun.len(), 1, "the last answer leads to a connection, too");
        }
    }

    #[test]
    fn a_name_without_an_answer_is_given_up_in_time() {
        let mut world = world(&[]);
        world.resolver.answers.insert("slow.test".into(), (Ok(Vec::new()), Delay::Forever));
        let parameters = Parameters { connect_timeout: NonZeroU32::new(2000), ..Parameters::default() };
        let mut connecting = begin(&mut world, "slow.test:80", &parameters);
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        assert_eq!(connecting.deadline(), Some(world.now + Duration::from_secs(2)));
        world.now += Duration::from_secs(2);
        assert_eq!(failure(turn(&mut world, &mut connecting)), ConnectError::CONNECT_TIMEOUT);
        assert!(world.resolver.is_asked_by(KEY));
        world.with_context(KEY, |cx| connecting.cancel(cx));
        assert!(!world.resolver.is_asked_by(KEY));
    }

    /// Regression: what no event had reported when a limit passed, as on a machine that was busy, was not read any more.
    #[test]
    fn what_has_come_before_a_limit_counts() {
        const RESPONSE: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: /on\r\nContent-Length: 0\r\n\r\n";
        for (answers, half_closed) in [(true, false), (true, true), (false, false)] {
            let mut world = world(&[("192.0.2.1:80", ConnectPlan::Immediate)]);
            let mut connecting = begin(&mut world, "ws://192.0.2.1/", &Parameters::default());
            turn(&mut world, &mut connecting);
            let (_, peer) = world.network.begun.pop().expect("a connection is begun");
            peer.wire_mut().make_room(1000);
            connecting.handle_remote_event(peer.wire_mut().take_event());
            assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
            if half_closed {
                connecting.handle_half_close(Duration::from_secs(1), world.now);
            }
            if answers {
                peer.wire_mut().send_bytes(RESPONSE);
            }
            world.now = connecting.deadline().unwrap();
            let outcome = turn(&mut world, &mut connecting);
            assert_eq!(connecting.times().get(ConnectStep::Upgrade).is_some(), answers);
            let error = if half_closed { ConnectError::CONNECT_TIMEOUT } else { ConnectError::REQUEST_TIMEOUT };
            assert_eq!(failure(outcome), error, "the response was read, and a connection takes longer");
        }
        // Racing: the connection is there, and a plain stream needs nothing more.
        let mut world = world(&[("192.0.2.1:80", ConnectPlan::Immediate)]);
        let mut connecting = begin(&mut world, "192.0.2.1:80", &Parameters::default());
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        world.now = connecting.deadline().unwrap();
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Connected(_)));
    }

    #[test]
    fn a_plugin_that_has_ended_its_side_waits_for_a_short_time_only() {
        let mut world = world(&[]);
        let parameters = Parameters { connect_timeout: NonZeroU32::new(60_000), ..Parameters::default() };
        let (mut connecting, start) = (begin(&mut world, "192.0.2.1:80", &parameters), world.now);
        assert!(matches!(turn(&mut world, &mut connecting), ConnectOutcome::Wait));
        let limit = Duration::from_secs(4);
        connecting.handle_half_close(limit, start);
        connecting.handle_half_close(limit, start + limit / 2);
        assert_eq!(connecting.deadline(), Some(start + limit), "counted from the first time");
        world.now += limit;
        assert_eq!(failure(turn(&mut world, &mut connecting)), ConnectError::CONNECT_TIMEOUT);
    }

    #[test]
    fn datagrams_go_to_an_ipv4_address_if_there_is_one() {
        let mut world = world(&[]);
        let addresses = vec!["[2001:db8::1]:0".parse().unwrap(), "192.0.2.2:0".parse().unwrap()];
        world.resolver.answers.insert("two.test".into(), (Ok(addresses), Delay::None));
        let parameters = Parameters { transport: Transport::Udp, ..Parameters::default() };
        let mut connecting = begin(&mut world, "two.test:80", &parameters);
        let ConnectOutcome::Connected(connected) = turn(&mut world, &mut connecting) else { panic!("no socket") };
        let ConnectedLink::Datagrams(_, to) = connected.link else { panic!("no datagrams") };
        assert_eq!(to, "192.0.2.2:80".parse().unwrap());
    }

    #[test]
    fn datagrams_go_to_an_address_of_the_family_of_bind_and_join() {
        let [v6, v4]: [SocketAddr; 2] = ["[2001:db8::1]:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        assert_eq!(choose_address(&[v6, v4], None), Ok(v4));
        assert_eq!(choose_address(&[v6], None), Ok(v6));
        assert_eq!(choose_address(&[v6, v4], Some(false)), Ok(v4));
        assert_eq!(choose_address(&[v4, v6], Some(true)), Ok(v6));
        assert!(choose_address(&[v4], Some(true)).is_err() && choose_address(&[v6], Some(false)).is_err());
    }
}
