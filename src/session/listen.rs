//! A plugin that listens (LSTN).

use std::time::Instant;

use super::context::{DaemonRequest, SessionContext, TurnResult};
use super::draining::Draining;
use super::notifier::recipient;
use super::stages::listening::Listening;
use super::stages::setup::Setup;
use super::{Next, Session, Stage};
use crate::net::network::Network;
use crate::notify::Schedule;
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::reply;
use crate::tls::TlsOutcome;

/// A LSTN whose certificate is being read.
#[derive(Debug)]
pub(super) struct Checking {
    pub setup: Box<Setup>,
    /// What a handshake with the certificate comes to, before anything is received: it is not made.
    pub outcome: Option<TlsOutcome>,
}

impl<N: Network> Session<N> {
    /// The plugin has said LSTN. If TLS is to be spoken, a thread reads the certificate before the daemon is asked.
    pub(super) fn begin_to_listen(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let tls = self.listen_settings().and_then(|settings| settings.tls.as_ref());
        let Some(tls) = tls else { return Next::Stay(TurnResult::Request(DaemonRequest::Listen)) };
        cx.handshakes.begin_server(cx.key, cx.client, tls);
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Setup(setup) => Next::Enter(Stage::Checking(Box::new(Checking { setup, outcome: None }))),
            other => Next::Enter(other),
        }
    }

    pub(super) fn checking_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Checking(checking) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        match checking.outcome.take() {
            None if self.plugin.endpoint().is_closed() => Next::Enter(Stage::Closed),
            None => Next::Stay(TurnResult::Wait),
            Some(TlsOutcome::Failed(error)) => {
                log::info!("{} does not listen: {error}", self.pid);
                let reply = reply::failed("LSTN", error.to_string());
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))))
            }
            Some(TlsOutcome::Pending(_) | TlsOutcome::Done(_)) => {
                self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
                    Stage::Checking(checking) => Stage::Setup(checking.setup),
                    other => other,
                };
                Next::Stay(TurnResult::Request(DaemonRequest::Listen))
            }
        }
    }

    /// What the plugin listens for, if it does or has asked to.
    pub(crate) fn listen_settings(&self) -> Option<&ListenSettings> {
        self.parameters.listen.as_deref()
    }

    /// The plugin listens from now on.
    pub(crate) fn listen(&mut self, now: Instant) {
        let Stage::Setup(setup) = &mut self.stage else { return };
        let given = self.parameters.notify.as_deref().and_then(|notify| notify.pid());
        let reply = given.map_or_else(|| reply::listening(self.pid.to_string().as_bytes()), reply::listening);
        self.stage = Stage::Listening(Box::new(Listening::new(setup.take_parser(), reply, now)));
    }

    /// The plugin cannot listen: the daemon's answer to [`DaemonRequest::Listen`]. `why`: the reason of `ERR LSTN`.
    pub(crate) fn handle_not_listening(&mut self, why: &str, cx: &mut SessionContext<'_, N>) {
        self.reject(reply::failed("LSTN", why), cx);
    }

    /// Tells the plugin that listens of an arrival, by `line` and by a notification. False if it cannot be told now.
    pub(crate) fn announce(&mut self, line: &[u8], cx: &mut SessionContext<'_, N>) -> bool {
        let Stage::Listening(listening) = &mut self.stage else { return false };
        if cx.budget.left() < line.len() || !listening.announce(line, self.plugin.endpoint_mut()) {
            return false;
        }
        let recipient = || recipient(&self.parameters, self.pid, &self.peer);
        self.notifier.notify(Schedule::handle_incoming, recipient, cx.schedule, cx.now);
        self.account(cx.budget);
        true
    }

    /// Another plugin's connection listens in place of this one, whose plugin is told the end.
    pub(crate) fn end_listening(&mut self, cx: &mut SessionContext<'_, N>) {
        if let Stage::Listening(_) = &self.stage {
            log::info!("{} listens no longer: another connection has taken its place", self.pid);
            self.enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))), cx);
        }
    }
}
