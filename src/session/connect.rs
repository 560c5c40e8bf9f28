//! From CONN to echo mode, or to the answer why there is no connection.

use std::time::Instant;

use super::connection::{ConnectRequest, Connected};
use super::context::{SessionContext, TurnResult};
use super::draining::Draining;
use super::notifier::Notifier;
use super::stages::connecting::{ConnectOutcome, Connecting};
use super::stages::relaying::Relaying;
use super::{Next, Session, Stage};
use crate::access::RequestOrigin;
use crate::net::network::Network;
use crate::protocol::connect_error::ConnectError;
use crate::protocol::options::Protocol;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::websocket::handshake::server::Refusal;

impl<N: Network> Session<N> {
    /// The stage that a CONN leads to.
    pub(super) fn connect(&self, request: ConnectRequest, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        log::debug!("{} connects to {}", self.pid, request.target);
        Stage::Connecting(Box::new(Connecting::new(self.pid, self.origin(), request, &self.parameters, cx)))
    }

    /// What has asked for the connection to the remote.
    pub(super) fn origin(&self) -> RequestOrigin {
        if self.pid.is_direct() { RequestOrigin::Configuration } else { RequestOrigin::Client(self.peer.address()) }
    }

    /// The daemon's answer to a claim of the pid: it is free, or why it cannot be had. In that case its owner is
    /// not notified: it is another session's plugin.
    pub(crate) fn handle_claimed(&mut self, claim: Result<(), &'static str>, cx: &mut SessionContext<'_, N>) {
        let request = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Claiming(request) => request,
            other => {
                self.stage = other;
                return;
            }
        };
        let next = match claim {
            Ok(()) => self.connect(*request, cx),
            Err(reason) => {
                self.notifier = Notifier::Closed;
                let protocol = Protocol::of(&request.target, self.parameters.transport);
                self.refuse(&request.target, protocol, &ConnectError::Pid(reason), cx.now)
            }
        };
        self.enter(next, cx);
    }

    pub(super) fn connecting_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Connecting(connecting) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        // A plugin that has only ended its side may still want the answer.
        if self.plugin.endpoint().is_closed() {
            log::info!("{} left while connecting to {}", self.pid, connecting.target());
            return Next::Enter(Stage::Closed);
        }
        if self.plugin.endpoint().is_read_closed() {
            connecting.handle_half_close(cx.config.limits.connect, cx.now);
        }
        match connecting.turn(&self.parameters, cx) {
            ConnectOutcome::Wait => Next::Stay(TurnResult::Wait),
            ConnectOutcome::Again => Next::Stay(TurnResult::Again),
            ConnectOutcome::Connected(connected) => Next::Enter(self.relay(connected, cx)),
            ConnectOutcome::Failed(error) => {
                let (target, protocol) = (connecting.target().clone(), connecting.protocol());
                Next::Enter(self.refuse(&target, protocol, &error, cx.now))
            }
        }
    }

    /// The stage that a failed CONN leads to.
    pub(super) fn refuse(
        &mut self,
        target: &Target,
        protocol: Protocol,
        error: &ConnectError,
        now: Instant,
    ) -> Stage<N> {
        let reason = error.reason(protocol);
        let shown = String::from_utf8_lossy(&reason);
        log::info!("{} not connected to {target}: {shown}", self.pid);
        let Some(client) = self.plugin.opening_mut() else {
            return Stage::Draining(Box::new(Draining::new(reply::connect_failed(error, protocol), now)));
        };
        let sentence = format!("There is no connection to the target: {shown}.");
        client.opening.refuse(Refusal::new(error.http_status(), &sentence), now);
        Stage::Opening
    }

    /// The stage after a successful CONN. A direct listener's client gets no reply.
    pub(super) fn relay(&mut self, connected: Connected<N>, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let given = self.parameters.notify.as_deref().and_then(|notify| notify.pid());
        let greeting = match given {
            _ if self.pid.is_direct() => Vec::new(),
            _ if self.peer.is_remote() => reply::accepted(self.pid.to_string().as_bytes()),
            Some(given) => reply::connected(given),
            None => reply::connected(self.pid.to_string().as_bytes()),
        };
        let relaying = Relaying::new(connected, greeting, None, &self.parameters, cx);
        self.accept_served(relaying.protocol(), cx.now);
        let what = match relaying.protocol() {
            _ if self.peer.is_remote() => "accepted, connected",
            Protocol::Udp => "sends datagrams",
            _ => "connected",
        };
        log::info!("{} {what} to {}", self.pid, relaying.target());
        if let Some(version) = relaying.tls_version() {
            log::debug!("{} speaks {version}", self.pid);
        }
        if self.parameters.heals().is_none() {
            self.parameters.drop_connect_settings();
        }
        Stage::Relaying(Box::new(relaying))
    }
}
