//! Setup mode, and what the commands of a plugin that listens ask for.

use super::context::{DaemonRequest, SessionContext, TurnResult};
use super::draining::Draining;
use super::setup_commands::{SetupContext, SetupOutcome};
use super::{Next, Session, Stage};
use crate::net::network::Network;
use crate::protocol::command::KeptRequest;
use crate::protocol::connect_error::ConnectError;
use crate::protocol::options::Protocol;
use crate::protocol::reply;
use crate::relay::memory_budget::RESERVE;

impl<N: Network> Session<N> {
    pub(super) fn setup_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let plugin = self.plugin.endpoint_mut();
        let connect_timeout = cx.config.limits.connect;
        let mut setup_cx = SetupContext { now: cx.now, scratch: cx.scratch, budget: cx.budget, connect_timeout };
        let before = self.parameters.held();
        let outcome = match &mut self.stage {
            Stage::Setup(setup) => setup.turn(plugin, &mut self.parameters, &mut setup_cx),
            Stage::Listening(listening) => listening.turn(plugin, &mut self.parameters, &mut setup_cx),
            _ => return Next::Stay(TurnResult::Wait),
        };
        let memory = before + cx.budget.left() + RESERVE;
        match outcome {
            // A command has set what there is no memory for.
            SetupOutcome::Wait | SetupOutcome::Again if self.parameters.held() > memory => {
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply::line_too_long(), cx.now))))
            }
            SetupOutcome::Wait => Next::Stay(TurnResult::Wait),
            SetupOutcome::Again => Next::Stay(TurnResult::Again),
            SetupOutcome::Request(DaemonRequest::Listen) => self.begin_to_listen(cx),
            SetupOutcome::Request(request) => Next::Stay(TurnResult::Request(request)),
            SetupOutcome::Connect(request) if request.held() + self.parameters.held() > memory => {
                let protocol = Protocol::of(&request.target, self.parameters.transport);
                Next::Enter(self.refuse(&request.target, protocol, &ConnectError::NO_MEMORY, cx.now))
            }
            SetupOutcome::Connect(request) if self.parameters.keep.is_some() => {
                self.stage = Stage::Claiming(Box::new(request));
                Next::Stay(TurnResult::Request(DaemonRequest::Kept(KeptRequest::Claim)))
            }
            SetupOutcome::Connect(request) => Next::Enter(self.connect(request, cx)),
            SetupOutcome::Close(reply) => {
                // The value of an unknown option may be a secret: only its name is logged.
                let shown = reply.split(|&byte| byte == b'=').next().unwrap_or_default();
                log::debug!("{} closes setup mode: {}", self.pid, String::from_utf8_lossy(shown).trim_end());
                Next::Enter(Stage::Draining(Box::new(Draining::new(reply, cx.now))))
            }
            SetupOutcome::Lost => {
                let what =
                    if matches!(self.stage, Stage::Setup(_)) { "left in setup mode" } else { "listens no longer" };
                log::info!("{} {what}", self.pid);
                Next::Enter(Stage::Closed)
            }
        }
    }
}
