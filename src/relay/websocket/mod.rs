//! A plugin's byte stream and a WebSocket over another, relayed both ways.
//!
//! How it ends is a matter of two sides:
//!
//! | the plugin | the remote | what happens |
//! | --- | --- | --- |
//! | open | open | both run |
//! | sent CLOS, or ended | open | it gets our close; what it still sends is passed on until its answer, 5 s at most |
//! | gone | open | likewise, but what it sends is dropped |
//! | any | ended | the plugin gets what is left, CLOS, and its end; the remote has 5 s to close the connection |
//! | told or gone | closed the connection | over |

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod to_plugin;
mod to_remote;

use std::time::{Duration, Instant};

use super::memory_budget::{MemoryBudget, RESERVE};
use super::pipe_pool::PipePool;
use super::receive_timer::ReceiveTimer;
use super::{CloseReason, Relay, RelayContext, RelayTurn, TURN_BYTES, TURN_CALLS, Timing};
use crate::net::endpoint::{Endpoint, Transfer};
use crate::net::reason;
use crate::protocol::framing::{Framing, FramingKind};
use crate::trace::Trace;
use crate::websocket::{Connection, ConnectionLost, Entropy, Event, Kind, MessageCounts, close};
pub(crate) use to_plugin::ToPlugin;
pub(crate) use to_remote::{PluginEnd, ToRemote};

/// More bytes than this waiting for a slow plugin hold back the remote. A message is never cut.
pub(crate) const HIGH_WATER: usize = 64 * 1024;
/// More bytes than this waiting for a slow remote hold back the plugin; less is gathered, to be sent at once.
const BATCH: usize = 16 * 1024;
/// What a message from the plugin, or any frame from the remote, costs of a turn at least: a peer that sends frames without
/// payload has no longer turns than others.
const MESSAGE_COST: usize = 256;
/// A plugin's own message may be as long as those it takes, and this many bytes at least.
pub(crate) const MIN_MESSAGE_LIMIT: usize = 64 * 1024;

/// How the plugin's side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PluginState {
    /// It may send.
    Open,
    /// It sends nothing more, and may still read.
    Ended,
    /// Its connection is gone.
    Gone,
}

/// How the remote's side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemoteState {
    /// It may send.
    Open,
    /// It takes nothing more, and what it sent before is still to be read.
    WriteFailed,
    /// It sends nothing more; the connection still stands.
    Ended,
    /// Its connection is gone.
    Gone,
}

impl RemoteState {
    /// True if there may be something to read that concerns the plugin.
    fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::WriteFailed)
    }
}

/// The relay of a plugin and a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocketRelay {
    plugin: PluginState,
    remote: RemoteState,
    connection: Connection,
    to_plugin: ToPlugin,
    to_remote: ToRemote,
    /// The plugin was told the end.
    end_delivered: bool,
    /// Our side of the remote's stream is ended.
    is_shut_down: bool,
    /// The first reason to end.
    close_reason: Option<CloseReason>,
    /// See [`Relay::failure`].
    failure: Option<Box<str>>,
    /// See [`RelayContext::heals`].
    heals: bool,
    /// The remote has ended in a way of which the plugin is not told, since the proxy connects again.
    heals_now: bool,
    /// Longest silence of the remote.
    receive: Option<Duration>,
    receive_timer: ReceiveTimer,
    /// A message of the remote that has come in part waits for memory.
    waits_for_memory: bool,
    /// Bytes that are counted in the budget.
    counted: usize,
    progress: Instant,
}

/// What a plugin has asked of the relay.
pub(crate) struct RelayOptions {
    /// Framing on the plugin's side.
    pub framing: Framing,
    /// Longest message in bytes.
    pub max_message: u64,
    /// Longest silence of the remote.
    pub receive: Option<Duration>,
    /// Messages are handed over whole, whatever their length: the plugin may come back (KEEP), or the remote (HEAL).
    pub whole: bool,
}

/// What a relay goes on with after another one whose remote has ended.
#[derive(Debug)]
pub(crate) struct Resumed {
    /// What the plugin has sent, and what was not encoded yet.
    pub to_remote: ToRemote,
    /// What the plugin is still to be told.
    pub to_plugin: Vec<u8>,
}

/// What either side has sent before there was a relay.
#[derive(Debug, Default)]
pub(crate) struct SentAhead<'a> {
    /// By the plugin, behind its CONN.
    pub to_remote: &'a [u8],
    /// By the remote, behind its response.
    pub to_plugin: Vec<u8>,
}

/// What the plugin is told where there is no memory for a message.
pub(crate) const NO_MEMORY: &str = "no memory for the message, buffers= is used up";

impl WebSocketRelay {
    /// A relay that begins now, with what was sent `ahead`, and with the response's header block if the plugin asked for it.
    pub(crate) fn new(
        now: Instant,
        connection: Connection,
        options: &RelayOptions,
        ahead: SentAhead<'_>,
        head: Option<&[u8]>,
    ) -> Self {
        let limit = usize::try_from(options.max_message).unwrap_or(usize::MAX).max(MIN_MESSAGE_LIMIT);
        let mut to_plugin = ToPlugin::new(options.framing, options.whole, ahead.to_plugin);
        if let Some(head) = head {
            to_plugin.handle_head(head);
        }
        Self {
            plugin: PluginState::Open,
            remote: RemoteState::Open,
            connection,
            to_plugin,
            to_remote: ToRemote::new(options.framing, FramingKind::WebSocket, limit, ahead.to_remote),
            end_delivered: false,
            is_shut_down: false,
            close_reason: None,
            failure: None,
            heals: false,
            heals_now: false,
            receive: options.receive,
            receive_timer: ReceiveTimer::new(now),
            waits_for_memory: false,
            counted: 0,
            progress: now,
        }
    }

    /// Tells the remote `texts`, before anything of the plugin.
    pub(crate) fn open_with<'t>(&mut self, texts: impl Iterator<Item = &'t [u8]>, entropy: &mut dyn Entropy) {
        for text in texts {
            // A connection that has just begun takes messages.
            let _ = self.connection.send(Kind::Text, text, true, entropy);
        }
    }

    /// Goes on where another relay has stopped.
    pub(crate) fn resume(&mut self, resumed: Resumed) {
        self.to_remote = resumed.to_remote;
        self.to_plugin.handle_resumed(resumed.to_plugin);
    }

    /// What another relay goes on with, which takes the place of this one; but for what the plugin is to be told.
    pub(crate) fn take_to_remote(&mut self) -> ToRemote {
        let empty = ToRemote::new(self.to_remote.framing(), FramingKind::WebSocket, MIN_MESSAGE_LIMIT, b"");
        let mut taken = std::mem::replace(&mut self.to_remote, empty);
        taken.restart_count();
        taken
    }

    /// See [`Connection::replace_trace`].
    pub(crate) fn replace_trace(&mut self, trace: Option<Box<Trace>>) -> Option<Box<Trace>> {
        self.connection.replace_trace(trace)
    }

    /// Moves what can be moved.
    pub(crate) fn run(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
    ) -> RelayTurn {
        let mut turn = RelayTurn::default();
        self.heals = cx.heals;
        let writes_failed = self.remote == RemoteState::WriteFailed;
        if plugin.is_closed() {
            self.read_last_bytes(plugin, remote, cx);
            self.lose_plugin(cx);
        }
        if self.is_due(cx.now) {
            // The remote's socket is read before its silence is judged: what it sent may wait there.
            remote.assume_readable();
        }
        turn.again |= self.pump_to_plugin(plugin, remote, cx, &mut turn);
        self.account(cx.budget);
        self.handle_due(cx);
        turn.again |= self.pump_to_remote(plugin, remote, cx);
        // What the plugin is told of its own violations leaves in the same turn.
        self.write_plugin(plugin, remote, cx, &mut turn);
        self.deliver_end(plugin, &mut turn);
        if self.write_remote(remote, cx) && self.connection.ends_first() {
            self.shutdown_remote(remote);
        }
        if self.connection.is_over() {
            // RFC 6455 section 7.1.1: the server closes the connection first.
            self.remote = RemoteState::Gone;
        }
        // What the remote sent before it failed is still to be read, and no event reports it.
        turn.again |= !writes_failed && self.remote == RemoteState::WriteFailed;

        let held_back = self.is_held_back() || self.waits_for_memory || remote.waits_for_memory();
        self.connection.set_reading(!held_back, cx.now);
        self.receive_timer.set_held_back(held_back, cx.now);
        self.to_plugin.shrink();
        self.to_remote.shrink();
        self.connection.shrink();
        self.account(cx.budget);
        turn.end = self.end(remote);
        turn
    }

    fn is_held_back(&self) -> bool {
        !self.to_plugin.waiting().is_empty()
    }

    /// True if a time limit has passed that leads to a close, or to a ping.
    fn is_due(&self, now: Instant) -> bool {
        [self.connection.poll_timeout(), self.silence_deadline()].into_iter().flatten().any(|due| due <= now)
    }

    /// Enforces the time limits that lead to a close.
    fn handle_due(&mut self, cx: &mut RelayContext<'_>) {
        if self.connection.poll_timeout().is_some_and(|due| due <= cx.now)
            && let Some(lost) = self.connection.handle_timeout(cx.now)
        {
            let reason = if lost == ConnectionLost::NoPong { "no answer to a ping" } else { "no answer to a close" };
            log::debug!("WebSocket lost: {reason}");
            self.end_remote(close::ABNORMAL, reason, CloseReason::RemoteLost);
            self.remote = RemoteState::Gone;
        }
        if self.silence_deadline().is_some_and(|due| due <= cx.now) {
            self.end_remote(close::ABNORMAL, "silent for too long", CloseReason::RemoteSilent);
            self.connection.close(close::GOING_AWAY, "silent for too long", cx.now, cx.entropy);
        }
    }

    /// When the remote has been silent for RTIM.
    fn silence_deadline(&self) -> Option<Instant> {
        let mut timer = self.receive_timer;
        timer.handle_received(self.connection.last_frame());
        timer.deadline(self.receive).filter(|_| self.remote.is_open())
    }

    /// Reads from the remote and writes to the plugin. True if it stopped because its turn was over.
    fn pump_to_plugin(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
        turn: &mut RelayTurn,
    ) -> bool {
        let mut allowance = TURN_BYTES;
        self.waits_for_memory = false;
        for _ in 0..TURN_CALLS {
            self.write_plugin(plugin, remote, cx, turn);
            if self.is_held_back() || self.remote == RemoteState::Gone {
                return false;
            }
            if allowance == 0 {
                break;
            }
            self.account(cx.budget);
            if self.to_plugin.more {
                let mut undecoded = std::mem::take(&mut self.to_plugin.undecoded);
                let used = self.decode_remote(&mut undecoded, &mut allowance, cx);
                if self.remote.is_open() {
                    undecoded.drain(..used);
                    self.to_plugin.undecoded = undecoded;
                }
                continue;
            }
            if !remote.is_readable() {
                return false;
            }
            if self.to_plugin.incomplete() > RESERVE && cx.budget.is_full() && !self.to_plugin.pass_early(0) {
                if cx.budget.is_exhausted() {
                    self.refuse_message(cx);
                    continue;
                }
                self.waits_for_memory = true;
                cx.budget.wait(RESERVE);
                return false;
            }
            let room = room(cx);
            match remote.try_read(&mut cx.scratch[..room]) {
                Transfer::Eof => self.handle_eof("closed without a close frame"),
                Transfer::Bytes(read) => {
                    // Taken out for a moment, since decoding needs the rest of the context, too.
                    let scratch = std::mem::take(&mut cx.scratch);
                    let used = self.decode_remote(&mut scratch[..read], &mut allowance, cx);
                    if used < read && self.remote.is_open() {
                        self.to_plugin.undecoded = scratch[used..read].to_vec();
                    }
                    cx.scratch = scratch;
                }
                Transfer::Blocked => {}
                Transfer::Broken(error) => {
                    self.handle_eof(&reason(&error));
                }
            }
        }
        true
    }

    /// Decodes what the remote has sent, until the plugin has enough to read, or the turn's `allowance` is used up: a few
    /// bytes may inflate to very many. Returns how many bytes of `input` it took. To be called after
    /// [`WebSocketRelay::account`].
    fn decode_remote(&mut self, input: &mut [u8], allowance: &mut usize, cx: &mut RelayContext<'_>) -> usize {
        let mut taken = 0;
        let counted = self.to_plugin.held();
        loop {
            if !self.remote.is_open() {
                return taken;
            }
            self.to_plugin.more = self.to_plugin.waiting().len() >= HIGH_WATER || *allowance == 0;
            if self.to_plugin.more {
                return taken;
            }
            let (used, event) = self.connection.handle_input(&mut input[taken..], cx.now);
            taken += used;
            *allowance = allowance.saturating_sub(decoding_cost(used, event));
            match event {
                None if used == 0 => return taken,
                None => {}
                Some(Event::Closed { code, reason }) => {
                    let reason = reason.to_vec();
                    self.remote = RemoteState::Ended;
                    if self.begins_to_heal(CloseReason::RemoteClosed) {
                        let text = format!("closed {code} {}", String::from_utf8_lossy(&reason));
                        self.failure = Some(text.trim_end().into());
                    } else {
                        self.to_plugin.handle_end(code, &reason);
                    }
                    self.close_reason.get_or_insert(CloseReason::RemoteClosed);
                }
                Some(Event::InvalidClose { error, code, reason }) => {
                    let text = close::describe_invalid(error, code, reason);
                    self.end_remote(error.code, &text, CloseReason::BadRemote);
                }
                Some(Event::Failed(failure)) => {
                    self.end_remote(failure.code, failure.reason, CloseReason::BadRemote);
                }
                Some(Event::Start { kind, length }) => {
                    self.to_plugin.handle_event(Event::Start { kind, length }, 0);
                    if self.connection.inflater_needed() > cx.budget.left() + RESERVE {
                        self.refuse_message(cx);
                    }
                }
                Some(event) => {
                    let grown = self.to_plugin.held().saturating_sub(counted);
                    let left = (cx.budget.left() + RESERVE).saturating_sub(grown);
                    if !self.to_plugin.handle_event(event, left) {
                        // What was read inflates to more than there is memory for.
                        self.refuse_message(cx);
                    }
                }
            }
        }
    }

    /// The connection ends for want of memory. Tells the remote as far as that goes at once, and returns the last message for
    /// the plugin: none if its framing has no messages, or part of another was written to it.
    pub(crate) fn refuse_for_memory(
        &mut self,
        remote: &mut dyn Endpoint,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Vec<u8> {
        if self.connection.queued() == 0 {
            self.connection.close(close::MESSAGE_TOO_BIG, "", now, entropy);
            let frame = self.connection.poll_transmit(entropy);
            if !frame.is_empty() {
                // Best effort: the connection ends in any case.
                let _ = remote.try_write(frame);
            }
        }
        if self.is_held_back() || !self.remote.is_open() {
            return Vec::new();
        }
        self.to_plugin.handle_end(close::MESSAGE_TOO_BIG, NO_MEMORY.as_bytes());
        self.to_plugin.waiting().to_vec()
    }

    /// There is no memory for the remote's message: both sides are told so.
    fn refuse_message(&mut self, cx: &mut RelayContext<'_>) {
        self.end_remote(close::MESSAGE_TOO_BIG, NO_MEMORY, CloseReason::NoMemory);
        self.connection.close(close::MESSAGE_TOO_BIG, "", cx.now, cx.entropy);
    }

    /// Writes to the plugin what waits for it.
    fn write_plugin(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
        turn: &mut RelayTurn,
    ) {
        while self.is_held_back() {
            match plugin.try_write(self.to_plugin.waiting()) {
                Transfer::Bytes(sent) => {
                    self.to_plugin.handle_written(sent);
                    cx.budget.handle_moved(sent);
                    turn.delivered |= sent > 0;
                    self.progress = cx.now;
                }
                Transfer::Blocked | Transfer::Eof => return,
                Transfer::Broken(_) => {
                    self.read_last_bytes(plugin, remote, cx);
                    self.lose_plugin(cx);
                }
            }
        }
    }

    /// Tells the plugin that nothing more comes, once it has everything.
    fn deliver_end(&mut self, plugin: &mut dyn Endpoint, turn: &mut RelayTurn) {
        if !self.remote.is_open() && !self.end_delivered && !self.is_held_back() {
            if !self.heals_now {
                plugin.shutdown_write();
            }
            self.end_delivered = true;
            turn.end_delivered = true;
        }
    }

    /// Reads from the plugin and writes to the remote. True if it stopped because its turn was over.
    fn pump_to_remote(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
    ) -> bool {
        let mut allowance = TURN_BYTES;
        for _ in 0..TURN_CALLS {
            if !self.write_remote(remote, cx) || self.plugin != PluginState::Open || !self.remote.is_open() {
                return false;
            }
            self.encode_plugin(remote, &mut allowance, cx);
            if allowance == 0 {
                break;
            }
            if self.connection.queued() > 0 {
                continue;
            }
            if !plugin.is_readable() {
                return false;
            }
            // All whole messages are encoded: what is left is a part of one. If several wait for each other's memory, the
            // budget ends the largest.
            if self.to_remote.buffered() > RESERVE && cx.budget.is_full() {
                if cx.budget.is_exhausted() {
                    self.end_remote(close::MESSAGE_TOO_BIG, NO_MEMORY, CloseReason::NoMemory);
                    self.end_plugin(close::GOING_AWAY, cx);
                    self.to_remote.reset();
                } else {
                    cx.budget.wait(RESERVE);
                }
                return false;
            }
            let room = room(cx);
            match plugin.try_read(&mut cx.scratch[..room]) {
                Transfer::Eof => {
                    self.close_reason.get_or_insert(CloseReason::Done);
                    self.end_plugin(close::GOING_AWAY, cx);
                }
                Transfer::Bytes(read) => {
                    self.progress = cx.now;
                    allowance = allowance.saturating_sub(read);
                    self.decode_plugin(remote, read, cx);
                    self.account(cx.budget);
                }
                Transfer::Blocked => {}
                Transfer::Broken(_) => self.lose_plugin(cx),
            }
        }
        true
    }

    /// Decodes what was read from the plugin: the first `read` bytes of the scratch buffer.
    fn decode_plugin(&mut self, remote: &mut dyn Endpoint, read: usize, cx: &mut RelayContext<'_>) {
        let memory = cx.budget.left();
        let mut write = writer(remote, cx.budget, &mut self.progress, cx.now);
        self.to_remote.decode(&cx.scratch[..read], memory, &mut self.connection, &mut write, cx.entropy);
    }

    /// Encodes what the plugin has sent.
    fn encode_plugin(&mut self, remote: &mut dyn Endpoint, allowance: &mut usize, cx: &mut RelayContext<'_>) {
        let mut write = writer(remote, cx.budget, &mut self.progress, cx.now);
        let end = self.to_remote.encode(&mut self.connection, allowance, cx.now, &mut write, cx.entropy);
        drop(write);
        match end {
            None => {}
            Some(PluginEnd::Closed) => {
                self.plugin = PluginState::Ended;
                self.close_reason.get_or_insert(CloseReason::PluginClosed);
            }
            Some(PluginEnd::Violation(error)) => {
                // The plugin is told what it did, and that is the end.
                self.end_remote(close::PROTOCOL_ERROR, &error.reason(), CloseReason::BadFraming);
                self.end_plugin(error.close_code(), cx);
            }
        }
    }

    /// Reads what the plugin sent before its connection broke, its CLOS above all: as much as the remote takes at once.
    fn read_last_bytes(&mut self, plugin: &mut dyn Endpoint, remote: &mut dyn Endpoint, cx: &mut RelayContext<'_>) {
        let mut allowance = TURN_BYTES;
        while self.plugin == PluginState::Open && self.remote.is_open() && allowance > 0 {
            self.encode_plugin(remote, &mut allowance, cx);
            if self.connection.queued() >= BATCH || self.plugin != PluginState::Open {
                return;
            }
            let Transfer::Bytes(read) = plugin.try_read(cx.scratch) else { return };
            allowance = allowance.saturating_sub(read.max(MESSAGE_COST));
            self.decode_plugin(remote, read, cx);
        }
    }

    /// Writes to the remote what waits for it. False if something is left.
    fn write_remote(&mut self, remote: &mut dyn Endpoint, cx: &mut RelayContext<'_>) -> bool {
        while !matches!(self.remote, RemoteState::Gone | RemoteState::WriteFailed) {
            let waiting = self.connection.poll_transmit(cx.entropy);
            let outcome = if waiting.is_empty() {
                match remote.flush() {
                    Ok(flushed) => return flushed,
                    Err(error) => Transfer::Broken(error),
                }
            } else {
                remote.try_write(waiting)
            };
            match outcome {
                Transfer::Bytes(sent) => {
                    self.connection.handle_transmitted(sent);
                    cx.budget.handle_moved(sent);
                    self.progress = cx.now;
                }
                Transfer::Blocked | Transfer::Eof => return false,
                Transfer::Broken(error) => {
                    log::debug!("remote takes nothing more: {error}");
                    if self.remote == RemoteState::Open {
                        // What it sent before is still read; that ends in the same error.
                        self.remote = RemoteState::WriteFailed;
                    } else {
                        self.handle_eof(&reason(&error));
                    }
                }
            }
        }
        false
    }

    /// The remote's connection has ended.
    fn handle_eof(&mut self, reason: &str) {
        let known = self.connection.handle_eof();
        debug_assert!(!known || !self.remote.is_open());
        self.end_remote(close::ABNORMAL, reason, CloseReason::RemoteLost);
        self.remote = RemoteState::Gone;
    }

    /// The remote sends nothing more that concerns the plugin.
    fn end_remote(&mut self, code: u16, reason: &str, why: CloseReason) {
        if self.remote.is_open() {
            self.remote = RemoteState::Ended;
            if self.begins_to_heal(why) {
                self.failure = Some(reason.into());
                self.close_reason = Some(why);
                return;
            }
            let is_in_part = self.to_plugin.handle_end(code, reason.as_bytes());
            if is_in_part {
                self.failure = Some(format!("{reason}, within a message that the plugin has in part").into());
            } else if self.close_reason.is_none() && matches!(why, CloseReason::RemoteLost | CloseReason::BadRemote) {
                self.failure = Some(reason.into());
            }
            self.close_reason.get_or_insert(why);
        }
    }

    /// True if the proxy connects again after this end of the remote. What has come of a message is dropped.
    fn begins_to_heal(&mut self, why: CloseReason) -> bool {
        let is_remotes = matches!(
            why,
            CloseReason::RemoteLost | CloseReason::RemoteClosed | CloseReason::RemoteSilent | CloseReason::BadRemote
        );
        self.heals_now = self.heals
            && is_remotes
            && self.plugin == PluginState::Open
            && self.close_reason.is_none()
            && self.to_plugin.handle_loss();
        self.heals_now
    }

    /// The plugin sends nothing more: the remote is told so with `code`.
    fn end_plugin(&mut self, code: u16, cx: &mut RelayContext<'_>) {
        self.plugin = PluginState::Ended;
        self.connection.close(code, "", cx.now, cx.entropy);
    }

    /// The plugin's connection is gone.
    fn lose_plugin(&mut self, cx: &mut RelayContext<'_>) {
        if self.plugin != PluginState::Gone {
            self.plugin = PluginState::Gone;
            self.to_plugin.discard();
            self.end_delivered = true;
            self.close_reason.get_or_insert(CloseReason::PluginLost);
            self.connection.close(close::GOING_AWAY, "", cx.now, cx.entropy);
        }
    }

    /// Ends our side of the remote's stream, once.
    fn shutdown_remote(&mut self, remote: &mut dyn Endpoint) {
        if !std::mem::replace(&mut self.is_shut_down, true) {
            remote.shutdown_write();
        }
    }

    /// The close reason, once the relay has ended.
    fn end(&mut self, remote: &mut dyn Endpoint) -> Option<CloseReason> {
        if !self.end_delivered || self.remote != RemoteState::Gone {
            return None;
        }
        // A layer's own end (close_notify), as far as it can be written.
        self.shutdown_remote(remote);
        let _ = remote.flush();
        Some(self.close_reason.unwrap_or(CloseReason::Done))
    }
}

/// What it costs of a turn to decode `used` bytes, which have caused `event`: bytes, as they count in a turn's allowance.
pub(crate) fn decoding_cost(used: usize, event: Option<Event<'_>>) -> usize {
    match event {
        // The end of a message has no frame of its own.
        Some(Event::End) => 0,
        None if used == 0 => 0,
        // A frame that causes no event, or a part of one.
        None => used.max(MESSAGE_COST),
        Some(Event::Data(bytes)) => bytes.len().max(MESSAGE_COST),
        Some(_) => MESSAGE_COST,
    }
}

/// Writes long frames to `remote` from where their payload lies: see [`Connection::send_uncopied`].
fn writer(
    remote: &mut dyn Endpoint,
    budget: &mut MemoryBudget,
    progress: &mut Instant,
    now: Instant,
) -> impl FnMut(&[u8], &[u8]) -> usize {
    move |header, payload| {
        let written = remote.try_write_both(header, payload);
        if written > 0 {
            budget.handle_moved(written);
            *progress = now;
        }
        written
    }
}

/// Bytes to read at once. What is read must be held if the other side is slow.
fn room(cx: &RelayContext<'_>) -> usize {
    cx.scratch.len().min(cx.budget.left().max(RESERVE))
}

impl Relay for WebSocketRelay {
    fn limits(&self, timing: &Timing) -> [Option<(Instant, CloseReason)>; 3] {
        let both_open = self.plugin == PluginState::Open && self.remote.is_open();
        let idle = timing.idle.filter(|_| both_open);
        let idle = idle.map(|idle| (self.progress.max(self.connection.last_frame()) + idle, CloseReason::Idle));
        // The remote's end is not read while the plugin reads nothing.
        let plugin_stalls = (!self.remote.is_open() || timing.remote_read_closed) && self.is_held_back();
        let plugin_stalled = plugin_stalls.then(|| (self.progress + timing.stall, CloseReason::Stalled));
        // The plugin's end is not read while the remote takes nothing. A device is not held for a plugin that has gone.
        let remote_stalls = both_open && timing.plugin_read_closed;
        let remote_stalled = remote_stalls.then(|| (self.progress + timing.half_close, CloseReason::Stalled));
        [idle, plugin_stalled, remote_stalled]
    }

    fn deadline(&self, timing: &Timing) -> Option<Instant> {
        [self.next_limit(timing), self.connection.poll_timeout(), self.silence_deadline()].into_iter().flatten().min()
    }

    fn handle_new_plugin(&mut self, now: Instant) {
        self.to_remote.reset();
        self.progress = now;
    }

    fn account(&mut self, budget: &mut MemoryBudget) {
        let held = self.held();
        budget.adjust(&mut self.counted, held);
    }

    fn release(&mut self, budget: &mut MemoryBudget, _: &mut PipePool) {
        budget.adjust(&mut self.counted, 0);
        self.to_plugin.clear();
        self.to_remote.reset();
    }

    fn received(&self) -> u64 {
        self.to_plugin.received()
    }

    fn sent(&self) -> u64 {
        self.to_remote.sent()
    }

    fn held(&self) -> usize {
        self.to_plugin.held() + self.to_remote.held() + self.connection.held()
    }

    fn incomplete(&self) -> usize {
        let of_remote = if self.reads_remote() { self.to_plugin.incomplete_held() } else { 0 };
        let of_plugin = if self.connection.queued() == 0 { self.to_remote.held() } else { 0 };
        of_remote + of_plugin
    }

    fn reads_remote(&self) -> bool {
        !self.is_held_back()
    }

    fn last_heard(&self) -> Instant {
        self.connection.last_frame()
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn remote_end(&self) -> Option<CloseReason> {
        self.close_reason.filter(|_| self.heals_now && self.end_delivered && self.plugin == PluginState::Open)
    }

    fn messages(&self) -> Option<MessageCounts> {
        Some(self.connection.messages())
    }
}
