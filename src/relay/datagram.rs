//! A plugin's byte stream and a datagram socket, relayed both ways, with the plugin's framing in between.
//!
//! The socket is unconnected: datagrams go to the target, answers are taken from any sender, so that discovery works.
//! At most one datagram is held for each way. While a slow plugin has not taken it, the kernel's buffer fills, and the
//! kernel drops what comes then.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::memory_budget::{MemoryBudget, RESERVE};
use super::pipe_pool::PipePool;
use super::receive_timer::ReceiveTimer;
use super::{CloseReason, Relay, RelayContext, RelayTurn, Timing};
use crate::buffer_pool;
use crate::net::endpoint::{DatagramEndpoint, Endpoint, Received, Transfer};
use crate::net::socket::Datagrams;
use crate::protocol::framing::{Decoder, Framing, FramingError, FramingKind, Item, MAX_DATAGRAM_LEN, encode_datagram};
use crate::trace::{Trace, Way};

/// Datagrams that pass each way in one turn before other sessions have theirs; each takes two calls at most.
const TURN_DATAGRAMS: usize = 64;
/// This many bytes from a plugin count as a datagram: empty lines cost time, too.
const READ_COST: usize = 1024;

/// The relay of a stream and datagrams.
#[derive(Debug)]
pub(crate) struct DatagramRelay {
    target: SocketAddr,
    framing: Framing,
    decoder: Decoder,
    /// What the plugin has not taken yet: at most one datagram with its header, and what it is told at the end.
    to_plugin: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// A datagram that the socket had no room for.
    to_remote: Option<(Vec<u8>, SocketAddr)>,
    phase: PluginPhase,
    /// Bytes that are counted in the budget.
    counted: usize,
    received: u64,
    sent: u64,
    progress: Instant,
    receive_timer: ReceiveTimer,
    last_heard: Instant,
}

/// How far the plugin has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PluginPhase {
    /// It may send.
    Open,
    /// It has ended its side, and may still read answers.
    HalfClosed,
    /// It has sent CLOS, or violated its framing. What is under way to it is written, and nothing else.
    Closing(CloseReason),
}

/// Says whether a plugin may send datagrams to an address that it names itself.
pub(crate) type MaySend<'a> = &'a dyn Fn(SocketAddr) -> bool;
/// Called for each datagram that the system does not send, with its address.
pub(crate) type OnUnsent<'a> = &'a mut dyn FnMut(SocketAddr, &io::Error);

impl DatagramRelay {
    /// A relay that begins now, with what the plugin has sent behind its CONN.
    pub(crate) fn new(now: Instant, target: SocketAddr, framing: Framing, sent_ahead: &[u8]) -> Self {
        let mut decoder = Decoder::new(framing, FramingKind::Datagrams, MAX_DATAGRAM_LEN);
        decoder.handle_input(sent_ahead);
        Self {
            target,
            framing,
            decoder,
            to_plugin: Vec::new(),
            written: 0,
            to_remote: None,
            phase: PluginPhase::Open,
            counted: 0,
            received: 0,
            sent: 0,
            progress: now,
            receive_timer: ReceiveTimer::new(now),
            last_heard: now,
        }
    }

    /// Where datagrams go that the plugin does not address.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Moves what can be moved.
    pub(crate) fn run<D: Datagrams>(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut DatagramEndpoint<D>,
        may_send: MaySend<'_>,
        on_unsent: OnUnsent<'_>,
        cx: &mut RelayContext<'_>,
    ) -> RelayTurn {
        let mut turn = RelayTurn::default();
        let before = (self.received, self.sent, self.phase);
        let outcome = self
            .pump_to_plugin(plugin, remote, cx, &mut turn)
            .and_then(|()| self.pump_to_remote(plugin, remote, (may_send, on_unsent), cx, &mut turn))
            // What the plugin is told at the end of its framing leaves in the same turn.
            .and_then(|()| self.write_plugin(plugin, &mut turn));
        self.account(cx.budget);
        if turn.delivered || (self.received, self.sent, self.phase) != before {
            self.progress = cx.now;
        }
        self.receive_timer.set_held_back(!self.to_plugin.is_empty(), cx.now);
        turn.end = match (outcome, self.phase) {
            (Err(end), _) => Some(end),
            (Ok(()), PluginPhase::Closing(end)) if self.to_plugin.is_empty() => Some(end),
            _ => None,
        };
        turn
    }

    /// Reads datagrams while the plugin takes them.
    fn pump_to_plugin<D: Datagrams>(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut DatagramEndpoint<D>,
        cx: &mut RelayContext<'_>,
        turn: &mut RelayTurn,
    ) -> Result<(), CloseReason> {
        for _ in 0..TURN_DATAGRAMS {
            self.write_plugin(plugin, turn)?;
            let closing = matches!(self.phase, PluginPhase::Closing(_));
            if closing || !self.to_plugin.is_empty() || !remote.is_readable() {
                return Ok(());
            }
            if let Received::Datagram(length, sender) = remote.try_receive(cx.scratch) {
                self.received += length as u64;
                if let Some(trace) = &mut cx.trace {
                    trace.record(Way::ToPlugin, "datagram", &cx.scratch[..length], length);
                }
                self.last_heard = cx.now;
                self.receive_timer.handle_received(cx.now);
                encode_datagram(self.framing, &cx.scratch[..length], sender, &mut self.to_plugin);
            }
        }
        turn.again = true;
        self.write_plugin(plugin, turn)
    }

    /// Offers the plugin what is held for it.
    fn write_plugin(&mut self, plugin: &mut dyn Endpoint, turn: &mut RelayTurn) -> Result<(), CloseReason> {
        while !self.to_plugin.is_empty() {
            match plugin.try_write(&self.to_plugin[self.written..]) {
                Transfer::Bytes(sent) => {
                    self.written += sent;
                    turn.delivered |= sent > 0;
                    if self.written == self.to_plugin.len() {
                        self.to_plugin = Vec::new();
                        self.written = 0;
                    }
                }
                Transfer::Blocked | Transfer::Eof => break,
                Transfer::Broken(_) => return Err(CloseReason::PluginLost),
            }
        }
        Ok(())
    }

    /// Reads what the plugin sends while the socket takes it.
    fn pump_to_remote<D: Datagrams>(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut DatagramEndpoint<D>,
        (may_send, on_unsent): (MaySend<'_>, OnUnsent<'_>),
        cx: &mut RelayContext<'_>,
        turn: &mut RelayTurn,
    ) -> Result<(), CloseReason> {
        let mut budget = TURN_DATAGRAMS;
        while budget > 0 {
            budget -= 1;
            if !self.write_remote(remote, on_unsent, cx.trace.as_deref_mut()) {
                return Ok(());
            }
            if self.take_item(may_send) {
                continue;
            }
            match self.read_plugin(plugin, cx)? {
                Some(read) => budget = budget.saturating_sub(read / READ_COST),
                None => return Ok(()),
            }
        }
        turn.again |= self.write_remote(remote, on_unsent, cx.trace.as_deref_mut());
        Ok(())
    }

    /// Offers the socket the datagram that is held for it. False if it has no room.
    fn write_remote<D: Datagrams>(
        &mut self,
        remote: &mut DatagramEndpoint<D>,
        on_unsent: OnUnsent<'_>,
        trace: Option<&mut Trace>,
    ) -> bool {
        if let Some((payload, to)) = self.to_remote.take_if(|_| remote.is_writable()) {
            match remote.try_send(&payload, to) {
                Transfer::Bytes(sent) => {
                    self.sent += sent as u64;
                    if let Some(trace) = trace {
                        trace.record(Way::ToRemote, "datagram", &payload, payload.len());
                    }
                }
                Transfer::Blocked | Transfer::Eof => self.to_remote = Some((payload, to)),
                // It is lost, as datagrams may be; the next may be sent.
                Transfer::Broken(error) => on_unsent(to, &error),
            }
        }
        self.to_remote.is_none()
    }

    /// Takes the next whole item that the plugin has sent. False if there is none.
    fn take_item(&mut self, may_send: MaySend<'_>) -> bool {
        if let PluginPhase::Closing(_) = self.phase {
            return false;
        }
        match self.decoder.poll_item() {
            None => return false,
            Some(Ok(Item::Message { payload, to, .. })) => match to {
                Some(to) if !may_send(to) => log::debug!("datagram to {to} not allowed"),
                to => self.to_remote = Some((payload.to_vec(), to.unwrap_or(self.target))),
            },
            // Datagrams have neither.
            Some(Ok(Item::Ping(_) | Item::Pong(_))) => {}
            Some(Ok(Item::Close { .. })) => self.phase = PluginPhase::Closing(CloseReason::PluginClosed),
            Some(Err(error)) => self.refuse(error),
        }
        true
    }

    /// Reads from the plugin, and returns how many bytes. `None`: there is nothing to read now.
    fn read_plugin(
        &mut self,
        plugin: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
    ) -> Result<Option<usize>, CloseReason> {
        if self.phase != PluginPhase::Open {
            return Ok(None);
        }
        if self.decoder.buffered() > RESERVE && cx.budget.is_full() {
            if cx.budget.is_exhausted() {
                self.refuse(FramingError::NoMemory);
            } else {
                // If several parts of messages wait for each other's memory, the budget ends the largest.
                cx.budget.wait(RESERVE);
            }
            return Ok(None);
        }
        if !plugin.is_readable() {
            return Ok(None);
        }
        let room = cx.block.unwrap_or(MAX_DATAGRAM_LEN).min(MAX_DATAGRAM_LEN);
        match plugin.try_read(&mut cx.scratch[..room]) {
            Transfer::Eof => {
                self.phase = PluginPhase::HalfClosed;
                Ok(None)
            }
            Transfer::Bytes(read) => {
                self.decoder.handle_input(&cx.scratch[..read]);
                self.account(cx.budget);
                Ok(Some(read))
            }
            Transfer::Blocked => Ok(None),
            Transfer::Broken(_) => Err(CloseReason::PluginLost),
        }
    }

    /// The connection ends for want of memory. Returns the last message for the plugin, if its framing has messages.
    pub(crate) fn refuse_for_memory(&mut self) -> Vec<u8> {
        let can_tell = self.framing == Framing::Mesg && self.to_plugin.is_empty();
        if can_tell { FramingError::NoMemory.close_message() } else { Vec::new() }
    }

    /// The plugin has violated its framing, and is told so where the framing can express that.
    fn refuse(&mut self, error: FramingError) {
        log::debug!("plugin's framing: {error}");
        self.phase = PluginPhase::Closing(CloseReason::BadFraming);
        self.decoder.reset();
        if self.framing == Framing::Mesg {
            self.to_plugin.extend_from_slice(&error.close_message());
        }
    }
}

impl Relay for DatagramRelay {
    fn limits(&self, timing: &Timing) -> [Option<(Instant, CloseReason)>; 3] {
        let open = self.phase == PluginPhase::Open;
        let half_closed = (!open).then_some((self.progress + timing.half_close, CloseReason::HalfClosed));
        let idle = timing.idle.filter(|_| open).map(|idle| (self.progress + idle, CloseReason::Idle));
        let silent = self.receive_timer.deadline(timing.receive).map(|due| (due, CloseReason::RemoteSilent));
        [half_closed, idle, silent]
    }

    fn handle_new_plugin(&mut self, now: Instant) {
        self.decoder.reset();
        self.progress = now;
    }

    fn account(&mut self, budget: &mut MemoryBudget) {
        self.decoder.shrink();
        let held = self.held();
        budget.adjust(&mut self.counted, held);
    }

    fn release(&mut self, budget: &mut MemoryBudget, _: &mut PipePool) {
        self.decoder.reset();
        (self.to_plugin, self.written, self.to_remote) = (Vec::new(), 0, None);
        budget.adjust(&mut self.counted, 0);
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    /// Datagrams have no connection that could end.
    fn remote_end(&self) -> Option<CloseReason> {
        None
    }

    fn held(&self) -> usize {
        let to_remote = self.to_remote.as_ref().map_or(0, |(payload, _)| payload.capacity());
        buffer_pool::held(&self.to_plugin) + to_remote + self.decoder.held()
    }

    fn incomplete(&self) -> usize {
        if self.to_remote.is_none() { self.decoder.held() } else { 0 }
    }

    fn reads_remote(&self) -> bool {
        self.to_plugin.is_empty()
    }

    fn last_heard(&self) -> Instant {
        self.last_heard
    }
}

#[cfg(test)]
mod tests;
