//! Echo mode, and its end.

use std::fmt::Display;

use super::context::{SessionContext, TurnResult};
use super::draining::{DrainOutcome, Draining};
use super::ended::EndedConnection;
use super::keep::KeptEnd;
use super::notifier::recipient;
use super::plugin::kept::KeptPlugin;
use super::plugin::{PluginNews, PluginSide};
use super::serve::close_frame;
use super::stages::unread_tail::{TailOutcome, UnreadTail};
use super::{Next, Session, Stage};
use crate::client::ClientKey;
use crate::net::endpoint::Endpoint;
use crate::net::network::Network;
use crate::notify::Schedule;
use crate::protocol::options::Protocol;
use crate::relay::{CloseReason, RelayTotals};

impl<N: Network> Session<N> {
    pub(super) fn relaying_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let heals = matches!(&self.stage, Stage::Relaying(relaying) if self.heals(relaying));
        let Stage::Relaying(relaying) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        if !relaying.is_connect_reply_sent() {
            match relaying.send_connect_reply(self.plugin.endpoint_mut()) {
                Ok(true) => {}
                Ok(false) => return Next::Stay(TurnResult::Wait),
                Err(_) => return Next::Enter(self.end_relay(CloseReason::PluginLost, cx)),
            }
            let protocol = relaying.protocol();
            self.begin_echo_mode(protocol, cx);
        }
        let Stage::Relaying(relaying) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        self.plugin.begin_turn(cx.config.limits.history, cx.now, cx.budget);
        let turn = relaying.turn(self.pid, self.plugin.endpoint_mut(), &self.parameters, heals, cx);
        let lost = relaying.relay().remote_end().filter(|_| heals);
        let mut again = turn.again;
        let news = match &mut self.plugin {
            PluginSide::Kept(plugin) => plugin.end_turn(cx.now, cx.budget),
            side => {
                if let PluginSide::Served(client) = side {
                    if client.awaits_close() {
                        let failed = relaying.relay().failure().is_some();
                        let (code, reason) =
                            close_frame(if failed { CloseReason::RemoteLost } else { CloseReason::Done });
                        client.close(code, reason);
                    }
                    again |= client.end_turn(cx.budget);
                }
                // With HEAL the remote's end is not the plugin's.
                PluginNews { data: turn.delivered, end: turn.end_delivered && lost.is_none(), parked: false }
            }
        };
        self.notify(news, cx);
        if let Some(end) = lost {
            return Next::Enter(self.heal(end, cx));
        }
        match turn.end {
            Some(end) => Next::Enter(self.end_relay(end, cx)),
            // A plugin that was disconnected in this turn may be writable now (UDP drops the oldest bytes), which no event
            // reports.
            None if again || news.parked => Next::Stay(TurnResult::Again),
            None => Next::Stay(TurnResult::Wait),
        }
    }

    /// The plugin has its `OK CONN`: from now on it may go away (KEEP), and is notified.
    fn begin_echo_mode(&mut self, protocol: Protocol, cx: &mut SessionContext<'_, N>) {
        if self.parameters.keep.is_some()
            && let PluginSide::Attached(socket) = std::mem::replace(&mut self.plugin, PluginSide::GONE)
        {
            let framing = self.parameters.framing(protocol);
            let plugin = KeptPlugin::new(socket, framing, protocol == Protocol::Udp, cx.now);
            self.plugin = PluginSide::Kept(Box::new(plugin));
        }
        if self.parameters.notify.as_deref().is_some_and(|notify| notify.notifies()) {
            cx.schedule.handle_connection(ClientKey::of(self.peer.plugin()), cx.now);
        }
        if self.parameters.events {
            let recipient = || recipient(&self.parameters, self.pid, &self.peer);
            self.notifier.notify(Schedule::handle_connected, recipient, cx.schedule, cx.now);
        }
    }

    /// The stage that follows a relay that ended for the reason `end`.
    pub(super) fn end_relay(&mut self, end: CloseReason, cx: &mut SessionContext<'_, N>) -> Stage<N> {
        let now = cx.now;
        let Stage::Relaying(relaying) = &self.stage else { return Stage::Closed };
        self.record_end(&end, cx);
        match (end, &mut self.plugin) {
            (CloseReason::PluginLost, PluginSide::Served(_)) => Stage::Closed,
            (end, PluginSide::Served(client)) => {
                let (code, reason) = close_frame(end);
                client.close(code, reason);
                client.drain();
                Stage::Draining(Box::new(Draining::new(Vec::new(), now)))
            }
            (CloseReason::Done, _) => Stage::Closed,
            (_, PluginSide::Kept(plugin)) => {
                plugin.shutdown_write();
                let ended_by_plugin = matches!(end, CloseReason::PluginClosed | CloseReason::BadFraming);
                let kept = !ended_by_plugin && !plugin.is_given_up();
                Stage::UnreadTail(Box::new(UnreadTail {
                    target: relaying.target().clone(),
                    protocol: relaying.protocol(),
                    totals: relaying.totals(),
                    last_heard: relaying.relay().last_heard(),
                    first_connected_at: relaying.outages().first_connected_at,
                    times: relaying.times(),
                    kept,
                    since: now,
                }))
            }
            (CloseReason::PluginLost, _) => Stage::Closed,
            _ => Stage::Draining(Box::new(Draining::new(Vec::new(), now))),
        }
    }

    /// Logs the end of a connection in echo mode, and keeps it for STAT JSON.
    pub(super) fn record_end(&self, end: &dyn Display, cx: &mut SessionContext<'_, N>) {
        let (target, protocol, totals, times, failure) = match &self.stage {
            Stage::Relaying(relaying) => {
                let failure = relaying.relay().failure();
                (relaying.target(), relaying.protocol(), relaying.totals(), relaying.times(), failure)
            }
            Stage::Healing(healing) => {
                (healing.target(), healing.protocol(), healing.outages().totals, healing.times(), None)
            }
            _ => return,
        };
        let reason = &failure.map_or_else(|| end.to_string(), |failure| format!("{end} ({failure})"));
        let RelayTotals { received, sent, .. } = totals;
        log::info!("{} closed: {reason}; {target}, received {received}, sent {sent}{times}", self.pid);
        let ended = EndedConnection::new(self.pid, target, protocol, reason, times, cx.now);
        cx.ended.push(self.client(), ended);
    }

    pub(super) fn tail_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let due = self.keep_deadline();
        let (Stage::UnreadTail(tail), PluginSide::Kept(plugin)) = (&self.stage, &mut self.plugin) else {
            return Next::Enter(Stage::Closed);
        };
        plugin.begin_turn(cx.config.limits.history, cx.budget);
        match tail.turn(plugin, cx.scratch, cx.budget, cx.now, due) {
            TailOutcome::Done => Next::Enter(Stage::Closed),
            TailOutcome::Expired => {
                self.end_kept(KeptEnd::Expired, cx);
                Next::Stay(TurnResult::Again)
            }
            TailOutcome::Wait { again, news } => {
                self.notify(news, cx);
                Next::Stay(if again { TurnResult::Again } else { TurnResult::Wait })
            }
        }
    }

    pub(super) fn draining_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Stage::Draining(draining) = &mut self.stage else { return Next::Stay(TurnResult::Wait) };
        let mut again = false;
        if let Some(client) = self.plugin.served_mut() {
            client.begin_turn(cx.now, cx.budget);
            draining.set_deadline(client.drain_deadline(cx.config.limits.stall));
        }
        let outcome = draining.turn(self.plugin.endpoint_mut(), cx.scratch, cx.now);
        if let Some(client) = self.plugin.served_mut() {
            again = client.end_turn(cx.budget);
            draining.set_deadline(client.drain_deadline(cx.config.limits.stall));
        }
        match outcome {
            DrainOutcome::Wait if again => Next::Stay(TurnResult::Again),
            DrainOutcome::Wait => Next::Stay(TurnResult::Wait),
            DrainOutcome::Again => Next::Stay(TurnResult::Again),
            DrainOutcome::Done => Next::Enter(Stage::Closed),
        }
    }
}
