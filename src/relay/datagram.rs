//! A plugin's byte stream and a datagram socket, relayed both ways, with the plugin's framing in between.
//!
//! The socket is unconnected: datagrams go to the target, answers are taken from anyone, so that discovery works.
//! One datagram at most is held for each way; while a slow plugin has not taken it, the kernel's buffer fills, and
//! what comes then is lost, as UDP has it.

use std::net::SocketAddr;
use std::time::Instant;

use super::buffers::Buffers;
use super::pipes::Pipes;
use super::{End, Env, Ready, Relay, Timing, Turn, interrupted, would_block};
use crate::net::socket::{Datagrams, Stream};
use crate::protocol::framing::{DATAGRAM_LIMIT, Decoder, Framing, Item, encode_datagram};

/// Datagrams that pass each way in one turn before others have theirs.
const TURN: usize = 64;

/// The relay of a stream and datagrams.
#[derive(Debug)]
pub struct DatagramRelay {
    plugin_ready: Ready,
    remote_ready: Ready,
    target: SocketAddr,
    framing: Framing,
    decoder: Decoder,
    /// What the plugin has not taken yet: at most one datagram with its header.
    to_plugin: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// A datagram that the socket had no room for.
    to_remote: Option<(Vec<u8>, SocketAddr)>,
    /// The plugin has ended, or has been told why we do.
    ending: Option<End>,
    received: u64,
    sent: u64,
    progress: Instant,
    silent_since: Option<Instant>,
    last_heard: Instant,
}

/// So many bytes from a plugin count as a datagram.
const READ_COST: usize = 1024;

/// Where a plugin may send datagrams of its own addressing.
pub type MaySend<'a> = &'a dyn Fn(SocketAddr) -> bool;

impl DatagramRelay {
    /// A relay that begins now, with what the plugin has sent ahead.
    pub fn new(now: Instant, target: SocketAddr, framing: Framing, ahead: &[u8], plugin_ready: Ready) -> Self {
        let mut decoder = Decoder::new(framing);
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
            ending: None,
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
        let before = (self.received, self.sent);
        let lost = self.read_remote(plugin, remote, env, &mut turn)
            || self.read_plugin(plugin, remote, may_send, env, &mut turn);
        // What the plugin is told at the end of its framing leaves in the same turn.
        let lost = lost || self.write_plugin(plugin, env, &mut turn);
        if (self.received, self.sent) != before {
            self.progress = env.now;
        }
        self.silent_since = match (self.to_plugin.is_empty(), self.silent_since) {
            (false, _) => None,
            (true, None) => Some(env.now),
            (true, since) => since,
        };
        turn.end = match self.ending {
            _ if lost => Some(End::PluginLost),
            Some(end @ (End::Goodbye | End::BadFraming)) if self.to_plugin.is_empty() => Some(end),
            _ => None,
        };
        turn
    }

    /// Reads datagrams while the plugin takes them. True where the plugin is lost.
    fn read_remote<P: Stream, D: Datagrams>(
        &mut self,
        plugin: &mut P,
        remote: &mut D,
        env: &mut Env<'_>,
        turn: &mut Turn,
    ) -> bool {
        for _ in 0..TURN {
            if self.write_plugin(plugin, env, turn) {
                return true;
            }
            if !self.to_plugin.is_empty() || !self.remote_ready.readable {
                return false;
            }
            match remote.recv_from(env.scratch) {
                Ok((length, sender)) => {
                    self.received += length as u64;
                    self.last_heard = env.now;
                    self.silent_since = Some(env.now);
                    encode_datagram(self.framing, &env.scratch[..length], sender, &mut self.to_plugin);
                    env.buffers.hold(self.to_plugin.len());
                }
                Err(error) if would_block(&error) => self.remote_ready.readable = false,
                // An ICMP error of an earlier datagram: it says nothing about the next.
                Err(_) => {}
            }
        }
        turn.again = true;
        false
    }

    /// Offers the plugin what is held for it. True where the plugin is lost.
    fn write_plugin<P: Stream>(&mut self, plugin: &mut P, env: &mut Env<'_>, turn: &mut Turn) -> bool {
        while !self.to_plugin.is_empty() && self.plugin_ready.writable {
            let end = env.block.map_or(self.to_plugin.len(), |block| self.to_plugin.len().min(self.written + block));
            match plugin.send(&self.to_plugin[self.written..end]) {
                Ok(sent) => {
                    self.written += sent;
                    turn.handed_over |= sent > 0;
                    env.buffers.release(sent);
                    if self.written == self.to_plugin.len() {
                        self.to_plugin = Vec::new();
                        self.written = 0;
                    } else if self.written < end {
                        self.plugin_ready.writable = false;
                    }
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.plugin_ready.writable = false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Reads what the plugin says, and sends it on. True where the plugin is lost.
    fn read_plugin<P: Stream, D: Datagrams>(
        &mut self,
        plugin: &mut P,
        remote: &mut D,
        may_send: MaySend<'_>,
        env: &mut Env<'_>,
        turn: &mut Turn,
    ) -> bool {
        let mut budget = TURN;
        while budget > 0 {
            if !self.send_items(remote, may_send, env, &mut budget)
                || self.ending.is_some()
                || !self.plugin_ready.readable
            {
                break;
            }
            if budget == 0 {
                break;
            }
            let room = env.block.unwrap_or(DATAGRAM_LIMIT).min(DATAGRAM_LIMIT);
            match plugin.recv(&mut env.scratch[..room]) {
                Ok(0) => self.ending = Some(End::HalfClosed),
                Ok(read) => {
                    if read < room && !self.plugin_ready.insists() {
                        self.plugin_ready.readable = false;
                    }
                    // Lines that say nothing cost time, too.
                    budget = budget.saturating_sub(read / READ_COST);
                    self.decoder.handle_input(&env.scratch[..read]);
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.plugin_ready.readable = false,
                Err(_) => return true,
            }
        }
        turn.again |= budget == 0;
        false
    }

    /// Sends what the plugin has said whole, while `budget` lasts. False where the socket has no room.
    fn send_items<D: Datagrams>(
        &mut self,
        remote: &mut D,
        may_send: MaySend<'_>,
        env: &mut Env<'_>,
        budget: &mut usize,
    ) -> bool {
        while *budget > 0 {
            if let Some((payload, to)) = self.to_remote.take() {
                if !self.remote_ready.writable {
                    self.to_remote = Some((payload, to));
                    return false;
                }
                match remote.send_to(&payload, to) {
                    Ok(sent) => self.sent += sent as u64,
                    Err(error) if would_block(&error) || interrupted(&error) => {
                        self.remote_ready.writable = interrupted(&error);
                        self.to_remote = Some((payload, to));
                    }
                    // It is lost, as datagrams may be; the next may have more luck.
                    Err(error) => log::debug!("datagram of {} bytes to {to} not sent: {error}", payload.len()),
                }
                continue;
            }
            *budget -= 1;
            if matches!(self.ending, Some(End::Goodbye | End::BadFraming)) {
                return true;
            }
            match self.decoder.poll_item() {
                None => return true,
                Some(Ok(Item::Message { payload, to })) => match to {
                    Some(to) if !may_send(to) => log::debug!("datagram to {to} not allowed"),
                    to => self.to_remote = Some((payload, to.unwrap_or(self.target))),
                },
                Some(Ok(Item::Close { .. })) => self.ending = Some(End::Goodbye),
                Some(Err(error)) => {
                    self.ending = Some(End::BadFraming);
                    if self.framing == Framing::Mesg {
                        let message = error.close_message();
                        env.buffers.hold(message.len());
                        self.to_plugin.extend_from_slice(&message);
                    }
                }
            }
        }
        true
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
        let half_closed = self.ending.map(|_| (self.progress + timing.half_close, End::HalfClosed));
        let quiet = timing.idle.filter(|_| self.ending.is_none()).map(|idle| (self.progress + idle, End::Idle));
        let silence = timing.receive.zip(self.silent_since).map(|(limit, since)| (since + limit, End::RemoteSilent));
        [half_closed, quiet, silence]
    }

    fn release(&mut self, buffers: &mut Buffers, _: &mut Pipes) {
        buffers.release(self.to_plugin.len() - self.written);
        self.to_plugin = Vec::new();
        self.written = 0;
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn held(&self) -> usize {
        self.to_plugin.len() - self.written + self.decoder.buffered()
    }

    fn last_heard(&self) -> Instant {
        self.last_heard
    }
}
