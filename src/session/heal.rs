//! The remote's end as an interruption (HEAL).

use super::context::{SessionContext, TurnResult};
use super::notifier::recipient;
use super::plugin::{PluginNews, PluginSide};
use super::stages::healing::{HealOutcome, Healing, LostRemote};
use super::stages::relaying::{Before, Relaying};
use super::{Next, Session, Stage};
use crate::net::network::Network;
use crate::notify::Schedule;
use crate::protocol::options::Protocol;
use crate::relay::CloseReason;

impl<N: Network> Session<N> {
    /// True if the end of the remote that `relaying` leads to is not the plugin's: the proxy connects again.
    pub(super) fn heals(&self, relaying: &Relaying<N>) -> bool {
        let plugin = self.plugin.endpoint();
        let may_heal = self.parameters.heals().is_some() && relaying.protocol() != Protocol::Udp;
        may_heal && !plugin.is_closed() && !plugin.is_read_closed()
    }

    /// The stage that follows a relay whose remote has ended for the reason `end`, and to which the proxy connects again.
    pub(super) fn heal(&mut self, end: CloseReason, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let origin = self.origin();
        let Stage::Relaying(relaying) = &mut self.stage else { return Stage::Closed };
        let relay = relaying.relay();
        let reason = match (relay.failure(), end) {
            (Some(failure), _) => failure.to_owned(),
            (None, CloseReason::RemoteClosed) => "closed".to_owned(),
            (None, end) => end.to_string(),
        };
        let lasted = cx.now.saturating_duration_since(relaying.connected_at());
        let last_heard = relay.last_heard();
        let (mut outages, totals) = (relaying.outages(), relaying.totals());
        outages.handle_lost(lasted, totals);
        let lost = LostRemote {
            target: relaying.target().clone(),
            protocol: relaying.protocol(),
            reason,
            last_heard,
            times: relaying.times(),
            to_remote: relaying.take_to_remote(),
            tells_plugin: self.plugin.served().is_none(),
        };
        if self.parameters.events {
            let recipient = || recipient(&self.parameters, self.pid, &self.peer);
            self.notifier.notify(Schedule::handle_lost, recipient, cx.schedule, cx.now);
        }
        Stage::Healing(Box::new(Healing::new(self.pid, origin, lost, outages, &self.parameters, cx)))
    }

    pub(super) fn healing_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Healing(healing) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        self.plugin.begin_turn(cx.config.limits.history, cx.now, cx.budget);
        let outcome = healing.turn(self.plugin.endpoint_mut(), &self.parameters, cx);
        let (told, next) = match outcome {
            HealOutcome::Wait { told } => (told, Next::Stay(TurnResult::Wait)),
            HealOutcome::Again { told } => (told, Next::Stay(TurnResult::Again)),
            HealOutcome::Back(connected, resumed) => {
                let before = Before { outages: healing.outages(), resumed };
                let relaying = Relaying::new(*connected, Vec::new(), Some(before), &self.parameters, cx);
                if self.parameters.events {
                    let recipient = || recipient(&self.parameters, self.pid, &self.peer);
                    self.notifier.notify(Schedule::handle_back, recipient, cx.schedule, cx.now);
                }
                (false, Next::Enter(Stage::Relaying(Box::new(relaying))))
            }
            HealOutcome::PluginLost => {
                self.record_end(&CloseReason::PluginLost, cx);
                (false, Next::Enter(Stage::Closed))
            }
        };
        let mut again = false;
        let news = match &mut self.plugin {
            PluginSide::Kept(plugin) => plugin.end_turn(cx.now, cx.budget),
            PluginSide::Served(client) => {
                again = client.end_turn(cx.budget);
                PluginNews::default()
            }
            _ => PluginNews { data: told, ..PluginNews::default() },
        };
        self.notify(news, cx);
        match next {
            Next::Stay(_) if news.parked || again => Next::Stay(TurnResult::Again),
            next => next,
        }
    }
}
