//! Clients of `[serve]`, and the opening of those of `[status]`.

use std::net::SocketAddr;
use std::time::Instant;

use super::connection::ConnectRequest;
use super::context::{SessionContext, TurnResult};
use super::opening::{ClientProtocol, Opening, OpeningOutcome};
use super::peer::Peer;
use super::pid::Pid;
use super::plugin::served::ServedClient;
use super::plugin::{ConfiguredPort, PluginSide, ServeChoice, ServedOpening};
use super::{Next, Session, Stage};
use crate::config::Config;
use crate::net::endpoint::SocketEndpoint;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::Target;
use crate::relay::CloseReason;
use crate::tls::ServerTlsSettings;
use crate::websocket::close;
use crate::websocket::handshake::server::{AcceptOptions, Refusal, ServerRules, UpgradeRequest};

/// The subprotocol of noVNC and websockify. A browser that offers subprotocols fails a connection without one, so this one is
/// chosen where the configuration names none.
const BINARY_SUBPROTOCOL: &str = "binary";

impl<N: Network> Session<N> {
    /// A client that has connected to `port` of `[serve]`. `tls`: the port speaks TLS.
    pub(crate) fn served(
        pid: Pid,
        stream: N::Stream,
        peer: SocketAddr,
        port: u16,
        tls: Option<&ServerTlsSettings>,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let opening = Opening::new(pid, socket, tls, ClientProtocol::WebSocket, cx);
        Self::with_opening(pid, opening, peer, ConfiguredPort::Serve(port), cx.now)
    }

    pub(super) fn with_opening(
        pid: Pid,
        opening: Opening<N::Stream>,
        peer: SocketAddr,
        port: ConfiguredPort,
        now: Instant,
    ) -> Self {
        let opening = ServedOpening { opening, port, choice: ServeChoice::default() };
        let plugin = PluginSide::Opening(Box::new(opening));
        Self::with_plugin(pid, plugin, Peer::Plugin(peer), Parameters::default(), Stage::Opening, now)
    }

    pub(super) fn opening_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Some(client) = self.plugin.opening_mut() else { return Next::Enter(Stage::Closed) };
        match client.opening.turn(cx) {
            OpeningOutcome::Wait => Next::Stay(TurnResult::Wait),
            OpeningOutcome::Again => Next::Stay(TurnResult::Again),
            OpeningOutcome::Over => Next::Enter(Stage::Closed),
            OpeningOutcome::Requested => {
                let ConfiguredPort::Serve(port) = client.port else { return self.open_status(cx) };
                let Some(request) = client.opening.request() else { return Next::Stay(TurnResult::Again) };
                match find_served(cx.config, port, request) {
                    Ok((choice, parameters, target)) => {
                        (client.choice, self.parameters) = (choice, parameters);
                        let request = ConnectRequest { target, sent_ahead: Vec::new() };
                        Next::Enter(self.connect(request, cx))
                    }
                    Err(refusal) => {
                        client.opening.refuse(refusal, cx.now);
                        Next::Stay(TurnResult::Again)
                    }
                }
            }
        }
    }

    /// Accepts the request of a client of `[serve]`, whose target is connected and speaks `protocol`.
    pub(super) fn accept_served(&mut self, protocol: Protocol, now: Instant) {
        let Some(client) = self.plugin.opening_mut() else { return };
        let ServeChoice { subprotocol, deflate, ping_interval } = &client.choice;
        let options = AcceptOptions { subprotocol: subprotocol.as_deref(), headers: &[], deflate: *deflate };
        let opened = client.opening.accept(&options);
        self.plugin = match opened {
            Some(opened) => {
                let served = ServedClient::new(opened, *ping_interval, protocol, &self.parameters, now);
                PluginSide::Served(Box::new(served))
            }
            None => PluginSide::GONE,
        };
    }
}

/// What the configuration has for a request that has come to `port`: how it is accepted, and where it leads. An error is the
/// answer to the client.
fn find_served(
    config: &Config,
    port: u16,
    request: &UpgradeRequest,
) -> Result<(ServeChoice, Parameters, Target), Refusal> {
    // A path that is named goes before the line for all paths.
    let has_path = |is_named| {
        config
            .serve_on(port)
            .find(|line| line.settings.rules.path.is_some() == is_named && line.settings.rules.has_path(request))
    };
    let line = has_path(true).or_else(|| has_path(false)).ok_or_else(ServerRules::no_such_path)?;
    let settings = &line.settings;
    let chosen = settings.rules.check(request)?;
    let choice = ServeChoice {
        subprotocol: chosen.or(request.offers(BINARY_SUBPROTOCOL).then_some(BINARY_SUBPROTOCOL)).map(Into::into),
        deflate: settings.deflate,
        ping_interval: settings.ping_interval,
    };
    Ok((choice, line.parameters.clone(), line.target.clone()))
}

/// The code and reason by which a client of `[serve]` is told of the end of its relay.
pub(super) fn close_frame(end: CloseReason) -> (u16, &'static str) {
    match end {
        CloseReason::Done | CloseReason::RemoteClosed | CloseReason::PluginClosed => (close::NORMAL, ""),
        CloseReason::RemoteLost => (close::INTERNAL_ERROR, "the connection to the target was lost"),
        CloseReason::RemoteSilent => (close::INTERNAL_ERROR, "the target was silent for too long"),
        CloseReason::BadRemote => (close::INTERNAL_ERROR, "the target violated its protocol"),
        CloseReason::NoMemory => (close::TRY_AGAIN_LATER, "no memory"),
        CloseReason::Idle => (close::GOING_AWAY, "idle for too long"),
        CloseReason::Dropped => (close::GOING_AWAY, "ended by an operator"),
        CloseReason::PluginLost
        | CloseReason::HalfClosed
        | CloseReason::Stalled
        | CloseReason::BadFraming
        | CloseReason::Shutdown => (close::GOING_AWAY, ""),
    }
}
