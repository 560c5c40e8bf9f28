//! A connection that arrives at the port of a plugin, until a plugin accepts it (ACPT).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;

use super::connect_times::ConnectTimes;
use super::connection::{ConnectRequest, Connected, ConnectedLink};
use super::context::{DaemonRequest, SessionContext, TurnResult};
use super::keep::PluginConnection;
use super::opening::OpeningOutcome;
use super::peer::Peer;
use super::pid::Pid;
use super::plugin::PluginSide;
use super::plugin_port::PluginPort;
use super::stages::arriving::{AcceptedArrival, Arriving, NotOffered};
use super::{Next, Session, Stage};
use crate::net::endpoint::SocketEndpoint;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::options::{OptionError, Parameters, Protocol};
use crate::protocol::target::Target;
use crate::protocol::{reply, target};
use crate::websocket::handshake::server::{Refusal, UpgradeRequest};

/// What the owner of a listener is told of an arrival.
#[derive(Debug)]
pub(crate) struct Introduction {
    /// The line INCO, and what follows it.
    pub line: Vec<u8>,
    /// The subprotocol that the listener prefers of those that the client offers.
    subprotocol: Option<Box<str>>,
    /// How long the arrival waits to be accepted.
    wait: Duration,
}

/// The refusal of an arrival that no plugin takes.
pub(crate) fn not_served() -> Refusal {
    Refusal::new(503, "No plugin takes the connection now.")
}

/// Why an ACPT fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// No arrival with that id waits.
    NoSuchId,
    /// An option is none for this arrival.
    Option(OptionError),
    /// KEEP: the pid cannot be had, and why.
    Pid(&'static str),
}

impl<N: Network> Session<N> {
    /// A connection that has arrived at `listener`, which is the address of `port`. Its socket is registered under the token of
    /// remotes.
    pub(crate) fn arrive(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        listener: SocketAddr,
        port: &PluginPort,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let stage = Stage::Arriving(Box::new(Arriving::new(pid, socket, listener, port, cx)));
        Self::with_plugin(pid, PluginSide::GONE, Peer::remote(peer), Parameters::default(), stage, cx.now)
    }

    /// True if the session began at a plugin's listener.
    pub(crate) fn has_arrived(&self) -> bool {
        self.peer.is_remote()
    }

    /// The address of the listener where the connection has arrived, and what it speaks. `None` once a plugin has accepted it.
    pub(crate) fn port(&self) -> Option<(SocketAddr, Protocol)> {
        let Stage::Arriving(arriving) = &self.stage else { return None };
        Some((arriving.listener(), arriving.protocol()))
    }

    /// The path of the arrival's request. `None` for tcp and tls.
    pub(crate) fn path(&self) -> Option<&str> {
        let Stage::Arriving(arriving) = &self.stage else { return None };
        arriving.request().map(UpgradeRequest::path)
    }

    pub(super) fn arriving_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Arriving(arriving) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        match arriving.turn(cx) {
            OpeningOutcome::Wait => Next::Stay(TurnResult::Wait),
            OpeningOutcome::Again => Next::Stay(TurnResult::Again),
            OpeningOutcome::Requested => Next::Stay(TurnResult::Request(DaemonRequest::Arrived)),
            OpeningOutcome::Over => Next::Enter(Stage::Closed),
        }
    }

    /// What the owner of the listener, which has these `settings`, is to be told of the arrival; or why the arrival is
    /// refused.
    pub(crate) fn introduce(&self, settings: Option<&ListenSettings>) -> Result<Introduction, Refusal> {
        let (Stage::Arriving(arriving), Some(settings)) = (&self.stage, settings) else { return Err(not_served()) };
        let (id, peer) = (self.pid.to_string(), self.remote_address().to_string());
        let (wait, request) = (settings.wait, arriving.request());
        let Some(request) = request else {
            return Ok(Introduction { line: reply::incoming(&id, &peer, "", "", None), subprotocol: None, wait });
        };
        let subprotocol = settings.rules.check(request)?.map(Into::into);
        let head = settings.shows_head.then_some(&request.head[..]);
        let line = reply::incoming(&id, &peer, &request.resource, &request.subprotocols.join(","), head);
        Ok(Introduction { line, subprotocol, wait })
    }

    /// The peer, IPv4 if it is v4-mapped.
    pub(super) fn remote_address(&self) -> SocketAddr {
        SocketAddr::new(self.address(), self.peer.address().port())
    }

    /// A plugin was told of the arrival, which waits from now on to be accepted.
    pub(crate) fn handle_announced(&mut self, introduction: Introduction, now: Instant) {
        if let Stage::Arriving(arriving) = &mut self.stage {
            arriving.handle_announced(now + introduction.wait, introduction.subprotocol);
        }
    }

    /// No plugin accepts the arrival. To be followed by a turn.
    pub(crate) fn refuse_arrival(&mut self, refusal: Refusal, now: Instant) {
        if let Stage::Arriving(arriving) = &mut self.stage {
            arriving.refuse(refusal, now);
        }
    }

    /// The parameters of an ACPT: those that commands have set in this session, and `options`.
    pub(crate) fn parameters_for(&self, protocol: Protocol, options: &[u8]) -> Result<Parameters, OptionError> {
        let mut parameters = self.parameters.clone();
        parameters.apply_to_arrival(protocol, options)?;
        Ok(parameters)
    }

    /// Checks that the arrival still waits, and that a plugin may accept it with `parameters`. An error is the reason of
    /// `ERR ACPT`.
    pub(crate) fn check_acceptance(
        &mut self,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Result<(), AcceptError> {
        // It may just have left, which no event has reported yet.
        self.assume_readable();
        self.turn(cx);
        let Stage::Arriving(arriving) = &self.stage else { return Err(AcceptError::NoSuchId) };
        if !arriving.is_waiting() {
            return Err(AcceptError::NoSuchId);
        }
        let chosen = arriving.choose_subprotocol(parameters.websocket.as_deref());
        chosen.map(drop).map_err(|NotOffered(names)| AcceptError::Option(OptionError::subprotocol(&names)))
    }

    /// A plugin's connection accepts this arrival. An error says that it cannot be registered for events; the arrival is over
    /// then.
    pub(crate) fn accept(
        &mut self,
        connection: PluginConnection<N::Stream>,
        parameters: Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> std::io::Result<()> {
        let PluginConnection { mut socket, sent_ahead, peer } = connection;
        let Stage::Arriving(arriving) = &mut self.stage else { return Ok(()) };
        let Some(accepted) = arriving.accept(parameters.websocket.as_deref()) else { return Ok(()) };
        self.stage = Stage::Closed;
        let AcceptedArrival { remote, upgraded, response } = accepted;
        // Before anything fails: a pid that was claimed is this session's now.
        self.parameters = parameters;
        cx.network.reregister(socket.stream_mut(), Token(cx.key))?;
        socket.handle_event(Readiness::FRESH);
        self.plugin = PluginSide::Attached(socket);
        self.peer.replace_plugin(peer);
        let target = Target::Endpoint(target::Endpoint::of(self.remote_address()));
        let link = match upgraded {
            Some(upgraded) => ConnectedLink::WebSocket(remote, upgraded),
            None => ConnectedLink::Stream(remote),
        };
        let request = ConnectRequest { target, sent_ahead };
        let connected =
            Connected { request, link, own_connection: None, response: Some(response), times: ConnectTimes::default() };
        let stage = self.relay(connected, cx);
        self.enter(stage, cx);
        Ok(())
    }

    /// The plugin cannot have the arrival: the daemon's answer to ACPT. An invalid option ends setup mode, as one of CONN does.
    pub(crate) fn handle_not_accepted(&mut self, error: &AcceptError, cx: &mut SessionContext<'_, N>) {
        match error {
            AcceptError::Option(error) => self.reject(reply::failed("ACPT", error.reason()), cx),
            AcceptError::NoSuchId => self.reply(&reply::failed("ACPT", reply::NO_SUCH_ID)),
            AcceptError::Pid(why) => self.reply(&reply::failed("ACPT", why)),
        }
    }
}
