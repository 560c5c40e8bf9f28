//! A plugin's byte stream and a datagram socket, relayed both ways, with the plugin's framing in between.
//!
//! The socket is unconnected: datagrams go to the target, answers are taken from anyone, so that discovery works.
//! One datagram at most is held for each way; while a slow plugin has not taken it, the kernel's buffer fills, and
//! what comes then is lost, as UDP has it.

use std::net::SocketAddr;
use std::time::Instant;

use super::buffers::{Buffers, RESERVE};
use super::pipes::Pipes;
use super::{End, Env, Ready, Relay, Timing, Turn, interrupted, would_block};
use crate::net::socket::{Datagrams, Stream};
use crate::protocol::framing::{Decoder, Framing, FramingError, FramingKind, Item, MAX_DATAGRAM_LEN, encode_datagram};

/// Datagrams that pass each way in one turn before others have theirs; each takes two calls at most.
const TURN_DATAGRAMS: usize = 64;
/// So many bytes from a plugin count as a datagram: lines that say nothing cost time, too.
const READ_COST: usize = 1024;

/// The relay of a stream and datagrams.
#[derive(Debug)]
pub struct DatagramRelay {
    plugin_ready: Ready,
    remote_ready: Ready,
    target: SocketAddr,
    framing: Framing,
    decoder: Decoder,
    /// What the plugin has not taken yet: at most one datagram with its header, and what it is told at the end.
    to_plugin: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// A datagram that the socket had no room for.
    to_remote: Option<(Vec<u8>, SocketAddr)>,
    phase: Phase,
    /// What the bound on bytes held in all knows of.
    counted: usize,
    received: u64,
    sent: u64,
    progress: Instant,
    silent_since: Option<Instant>,
    last_heard: Instant,
}

/// How far the plugin has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may say something.
    Open,
    /// It says nothing more, and may still hear answers.
    HalfClosed,
    /// It has said goodbye, or broken the rules. It is told what is under way, and nothing else.
    Closing(End),
}

/// Where a plugin may send datagrams of its own addressing.
pub type MaySend<'a> = &'a dyn Fn(SocketAddr) -> bool;

impl DatagramRelay {
    /// A relay that begins now, with what the plugin has sent ahead.
    pub fn new(now: Instant, target: SocketAddr, framing: Framing, ahead: &[u8], plugin_ready: Ready) -> Self {
        let mut decoder = Decoder::new(framing, FramingKind::Datagrams, MAX_DATAGRAM_LEN);
        decoder.handle_input(ahead);
        Self {
            plugin_ready,
            remote_ready: Ready::fresh(),
            target,
            framing,
            decoder,
            to_plugin: Vec::new(),
            written: 0,
            to_remote: None,
            phase: Phase::Open,
            counted: 0,
            received: 0,
            sent: 0,
            progress: now,
            silent_since: Some(now),
            last_heard: now,
        }
    }

    /// Where datagrams go that the plugin does not address.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Moves what can be moved.
    pub fn run<P: Stream, D: Datagrams>(
        &mut self,
        plugin: &mut P,
        remote: &mut D,
        may_send: MaySend<'_>,
        env: &mut Env<'_>,
    ) -> Turn {
        let mut turn = Turn::default();
        let before = (self.received, self.sent, self.phase);
        let outcome = self
            .pump_to_plugin(plugin, remote, env, &mut turn)
            .and_then(|()| self.pump_to_remote(plugin, remote, may_send, env, &mut turn))
            // What the plugin is told at the end of its framing leaves in the same turn.
            .and_then(|()| self.write_plugin(plugin, &mut turn));
        self.count(env.buffers);
        if turn.handed_over || (self.received, self.sent, self.phase) != before {
            self.progress = env.now;
        }
        self.silent_since = match (self.to_plugin.is_empty(), self.silent_since) {
            (false, _) => None,
            (true, None) => Some(env.now),
            (true, since) => since,
        };
        turn.end = match (outcome, self.phase) {
            (Err(end), _) => Some(end),
            (Ok(()), Phase::Closing(end)) if self.to_plugin.is_empty() => Some(end),
            _ => None,
        };
        turn
    }

    /// Reads datagrams while the plugin takes them.
    fn pump_to_plugin<P: Stream, D: Datagrams>(
        &mut self,
        plugin: &mut P,
        remote: &mut D,
        env: &mut Env<'_>,
        turn: &mut Turn,
    ) -> Result<(), End> {
        for _ in 0..TURN_DATAGRAMS {
            self.write_plugin(plugin, turn)?;
            let closing = matches!(self.phase, Phase::Closing(_));
            if closing || !self.to_plugin.is_empty() || !self.remote_ready.readable {
                return Ok(());
            }
            match remote.recv_from(env.scratch) {
                Ok((length, sender)) => {
                    self.received += length as u64;
                    self.last_heard = env.now;
                    self.silent_since = Some(env.now);
                    encode_datagram(self.framing, &env.scratch[..length], sender, &mut self.to_plugin);
                }
                Err(error) if would_block(&error) => self.remote_ready.readable = false,
                // An ICMP error of an earlier datagram: it says nothing about the next.
                Err(_) => {}
            }
        }
        turn.again = true;
        self.write_plugin(plugin, turn)
    }

    /// Offers the plugin what is held for it.
    fn write_plugin<P: Stream>(&mut self, plugin: &mut P, turn: &mut Turn) -> Result<(), End> {
        while !self.to_plugin.is_empty() && self.plugin_ready.writable {
            match plugin.send(&self.to_plugin[self.written..]) {
                Ok(sent) => {
                    self.written += sent;
                    turn.handed_over |= sent > 0;
                    if self.written == self.to_plugin.len() {
                        self.to_plugin = Vec::new();
                        self.written = 0;
                    } else {
                        self.plugin_ready.writable = false;
                    }
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.plugin_ready.writable = false,
                Err(_) => return Err(End::PluginLost),
            }
        }
        Ok(())
    }

    /// Reads what the plugin says while the socket takes it.
    fn pump_to_remote<P: Stream, D: Datagrams>(
        &mut self,
        plugin: &mut P,
        remote: &mut D,
        may_send: MaySend<'_>,
        env: &mut Env<'_>,
        turn: &mut Turn,
    ) -> Result<(), End> {
        let mut budget = TURN_DATAGRAMS;
        while budget > 0 {
            budget -= 1;
            if !self.write_remote(remote) {
                return Ok(());
            }
            if self.take_item(may_send) {
                continue;
            }
            match self.read_plugin(plugin, env)? {
                Some(read) => budget = budget.saturating_sub(read / READ_COST),
                None => return Ok(()),
            }
        }
        turn.again |= self.write_remote(remote);
        Ok(())
    }

    /// Offers the socket the datagram that is held for it. False where there is no room.
    fn write_remote<D: Datagrams>(&mut self, remote: &mut D) -> bool {
        while let Some((payload, to)) = self.to_remote.take_if(|_| self.remote_ready.writable) {
            match remote.send_to(&payload, to) {
                Ok(sent) => self.sent += sent as u64,
                Err(error) if would_block(&error) || interrupted(&error) => {
                    self.remote_ready.writable = interrupted(&error);
                    self.to_remote = Some((payload, to));
                }
                // It is lost, as datagrams may be; the next may have more luck.
                Err(error) => log::debug!("datagram of {} bytes to {to} not sent: {error}", payload.len()),
            }
        }
        self.to_remote.is_none()
    }

    /// Takes the next thing that the plugin has said whole. False where there is none.
    fn take_item(&mut self, may_send: MaySend<'_>) -> bool {
        if let Phase::Closing(_) = self.phase {
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
            Some(Ok(Item::Close { .. })) => self.phase = Phase::Closing(End::Goodbye),
            Some(Err(error)) => self.refuse(error),
        }
        true
    }

    /// Reads from the plugin, how many bytes it says. `None`: there is nothing to read now.
    fn read_plugin<P: Stream>(&mut self, plugin: &mut P, env: &mut Env<'_>) -> Result<Option<usize>, End> {
        if self.phase != Phase::Open {
            return Ok(None);
        }
        if self.decoder.buffered() > RESERVE && env.buffers.is_full() {
            // Half a message that waited for memory could wait for another that waits for memory, too.
            self.refuse(FramingError::NoMemory);
            return Ok(None);
        }
        if !self.plugin_ready.readable {
            return Ok(None);
        }
        let room = env.block.unwrap_or(MAX_DATAGRAM_LEN).min(MAX_DATAGRAM_LEN);
        match plugin.recv(&mut env.scratch[..room]) {
            Ok(0) => {
                self.phase = Phase::HalfClosed;
                Ok(None)
            }
            Ok(read) => {
                if read < room && !self.plugin_ready.insists() {
                    self.plugin_ready.readable = false;
                }
                self.decoder.handle_input(&env.scratch[..read]);
                self.count(env.buffers);
                Ok(Some(read))
            }
            Err(error) if interrupted(&error) => Ok(Some(0)),
            Err(error) if would_block(&error) => {
                self.plugin_ready.readable = false;
                Ok(None)
            }
            Err(_) => Err(End::PluginLost),
        }
    }

    /// The plugin has broken the rules, and is told so where its framing has words for it.
    fn refuse(&mut self, error: FramingError) {
        log::debug!("plugin's framing: {error}");
        self.phase = Phase::Closing(End::BadFraming);
        self.decoder.reset();
        if self.framing == Framing::Mesg {
            self.to_plugin.extend_from_slice(&error.close_message());
        }
    }

    /// Brings the bound on bytes held in all up to date.
    fn count(&mut self, buffers: &mut Buffers) {
        buffers.release(self.counted);
        self.counted = self.held();
        buffers.hold(self.counted);
    }
}

impl Relay for DatagramRelay {
    fn plugin_ready(&mut self) -> &mut Ready {
        &mut self.plugin_ready
    }

    fn remote_ready(&mut self) -> &mut Ready {
        &mut self.remote_ready
    }

    fn limits(&self, timing: &Timing) -> [Option<(Instant, End)>; 3] {
        let open = self.phase == Phase::Open;
        let half_closed = (!open).then_some((self.progress + timing.half_close, End::HalfClosed));
        let quiet = timing.idle.filter(|_| open).map(|idle| (self.progress + idle, End::Idle));
        let silence = timing.receive.zip(self.silent_since).map(|(limit, since)| (since + limit, End::RemoteSilent));
        [half_closed, quiet, silence]
    }

    fn handle_new_plugin(&mut self, ready: Ready, now: Instant) {
        self.plugin_ready = ready;
        self.decoder.reset();
        self.progress = now;
    }

    fn release(&mut self, buffers: &mut Buffers, _: &mut Pipes) {
        buffers.release(std::mem::take(&mut self.counted));
        self.decoder.reset();
        (self.to_plugin, self.written, self.to_remote) = (Vec::new(), 0, None);
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn held(&self) -> usize {
        let to_remote = self.to_remote.as_ref().map_or(0, |(payload, _)| payload.len());
        self.to_plugin.len() - self.written + to_remote + self.decoder.buffered()
    }

    fn last_heard(&self) -> Instant {
        self.last_heard
    }
}

#[cfg(test)]
mod tests;
