//! What is moved between the two sides, each as far as it goes: bytes from the remote become messages for the plugin,
//! what the plugin says becomes frames. Why and when it ends is decided above.

use std::io;

use super::{BATCH, HIGH, MESSAGE_COST, Plugin, Remote, WebSocketRelay};
use crate::net::socket::Stream;
use crate::protocol::framing::{Framing, FramingError, Item};
use crate::relay::buffers::RESERVE;
use crate::relay::{End, Env, SCRATCH, TURN_BYTES, TURN_CALLS, Turn, interrupted, would_block};
use crate::websocket::{Event, Kind, close};

impl WebSocketRelay {
    /// From the remote to the plugin. True where it stopped because its turn was over.
    pub fn pump_down<P: Stream, R: Stream>(
        &mut self,
        plugin: &mut P,
        remote: &mut R,
        env: &mut Env<'_>,
        turn: &mut Turn,
    ) -> bool {
        let mut budget = TURN_BYTES;
        for _ in 0..TURN_CALLS {
            self.write_plugin(plugin, env, turn);
            if self.is_held_back() || self.remote == Remote::Gone {
                return false;
            }
            if budget == 0 {
                break;
            }
            if self.more {
                let mut unread = std::mem::take(&mut self.unread);
                let used = self.decode(&mut unread, &mut budget, env);
                unread.drain(..used);
                self.unread = if self.remote == Remote::Open { unread } else { Vec::new() };
                continue;
            }
            if !self.remote_ready.readable {
                return false;
            }
            match remote.recv(env.scratch) {
                Ok(0) => self.handle_eof("closed without goodbye"),
                Ok(read) => {
                    if read < env.scratch.len() && !self.remote_ready.insists() {
                        self.remote_ready.readable = false;
                    }
                    // Taken out for a moment, since everything else of the turn's needs is needed, too.
                    let scratch = std::mem::take(&mut env.scratch);
                    let used = self.decode(&mut scratch[..read], &mut budget, env);
                    if used < read && self.remote == Remote::Open {
                        self.unread = scratch[used..read].to_vec();
                    }
                    env.scratch = scratch;
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.remote_ready.readable = false,
                Err(error) => {
                    log::debug!("remote's connection lost: {error}");
                    self.handle_eof(&crate::net::reason(&error));
                }
            }
        }
        true
    }

    /// Takes what the remote has sent, until the plugin has enough to read, or the turn's `budget` is used up: a few bytes
    /// may be inflated to very many, of which the plugin may hear nothing. How much was taken.
    fn decode(&mut self, input: &mut [u8], budget: &mut usize, env: &mut Env<'_>) -> usize {
        let mut taken = 0;
        loop {
            self.more = self.remote == Remote::Open && (self.down.waiting().len() >= HIGH || *budget == 0);
            if self.more || self.remote != Remote::Open {
                return taken;
            }
            let (used, event) = self.connection.handle_input(&mut input[taken..], env.now);
            taken += used;
            let cost = match event {
                None => used,
                Some(Event::Data(bytes)) => bytes.len(),
                Some(_) => MESSAGE_COST,
            };
            *budget = budget.saturating_sub(cost);
            match event {
                None if used == 0 => return taken,
                None => {}
                Some(Event::Closed { code, reason }) => {
                    self.remote = Remote::Ended;
                    self.down.handle_end(code, reason);
                    self.why.get_or_insert(End::RemoteGoodbye);
                }
                Some(Event::Failed(error)) => {
                    log::info!("remote broke the protocol: {error}");
                    self.end_remote(error.code, error.reason, End::BadRemote);
                }
                Some(event) if self.down.handle_event(event, env.buffers.left() + RESERVE) => {}
                Some(_) => {
                    // Half a message must not wait for others to let go of memory: they may wait for it.
                    self.end_remote(close::MESSAGE_TOO_BIG, "no memory for the message", End::BadRemote);
                    self.connection.close(close::MESSAGE_TOO_BIG, "", env.now, env.entropy);
                }
            }
        }
    }

    fn handle_eof(&mut self, reason: &str) {
        let known = self.connection.handle_eof();
        debug_assert!(!known || self.remote != Remote::Open);
        self.end_remote(close::ABNORMAL, reason, End::RemoteLost);
        self.remote = Remote::Gone;
    }

    /// Offers the plugin what is there for it.
    pub fn write_plugin<P: Stream>(&mut self, plugin: &mut P, env: &mut Env<'_>, turn: &mut Turn) {
        while self.is_held_back() && self.plugin_ready.writable {
            let waiting = self.down.waiting();
            match plugin.send(waiting) {
                Ok(sent) => {
                    self.plugin_ready.writable = sent == waiting.len();
                    self.down.handle_written(sent);
                    turn.handed_over |= sent > 0;
                    self.progress = env.now;
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.plugin_ready.writable = false,
                Err(_) => {
                    self.hear_last_words(plugin, env);
                    self.lose_plugin(env);
                }
            }
        }
    }

    /// What the plugin had said before its connection broke, its CLOS above all: as much as goes to the remote at once.
    pub fn hear_last_words<P: Stream>(&mut self, plugin: &mut P, env: &mut Env<'_>) {
        let mut budget = TURN_BYTES;
        while self.plugin == Plugin::Open && self.remote == Remote::Open && budget > 0 {
            self.speak(&mut budget, env);
            if self.connection.queued() >= BATCH || self.plugin != Plugin::Open {
                return;
            }
            match plugin.recv(env.scratch) {
                Ok(read) if read > 0 => {
                    budget = budget.saturating_sub(read);
                    self.hear(read, env);
                }
                Err(error) if interrupted(&error) => {}
                _ => return,
            }
        }
    }

    /// Tells the plugin that nothing more comes, once it has everything.
    pub fn tell_end<P: Stream>(&mut self, plugin: &mut P, turn: &mut Turn) {
        if self.remote != Remote::Open && !self.told && !self.is_held_back() {
            plugin.shutdown_write();
            self.told = true;
            turn.told_end = true;
        }
    }

    /// From the plugin to the remote. True where it stopped because its turn was over.
    pub fn pump_up<P: Stream, R: Stream>(&mut self, plugin: &mut P, remote: &mut R, env: &mut Env<'_>) -> bool {
        let mut budget = TURN_BYTES;
        for _ in 0..TURN_CALLS {
            if !self.flush(remote, env) || self.plugin != Plugin::Open || self.remote != Remote::Open {
                return false;
            }
            self.speak(&mut budget, env);
            if budget == 0 {
                break;
            }
            if self.connection.queued() > 0 {
                continue;
            }
            if !self.plugin_ready.readable {
                return false;
            }
            match plugin.recv(env.scratch) {
                Ok(0) => {
                    self.plugin = Plugin::Ended;
                    self.why.get_or_insert(End::Done);
                    self.connection.close(close::GOING_AWAY, "", env.now, env.entropy);
                }
                Ok(read) => {
                    if read < env.scratch.len() && !self.plugin_ready.insists() {
                        self.plugin_ready.readable = false;
                    }
                    self.progress = env.now;
                    budget = budget.saturating_sub(read);
                    self.hear(read, env);
                    if self.decoder.buffered() > SCRATCH && env.buffers.left() == 0 {
                        self.end_remote(close::MESSAGE_TOO_BIG, "no memory for the message", End::BadFraming);
                        self.end_plugin(close::GOING_AWAY, env);
                    }
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.plugin_ready.readable = false,
                Err(_) => self.lose_plugin(env),
            }
        }
        true
    }

    /// Takes the `read` bytes that were just read from the plugin.
    fn hear(&mut self, read: usize, env: &mut Env<'_>) {
        let bytes = &env.scratch[..read];
        if self.framing != Framing::Raw {
            self.decoder.handle_input(bytes);
        } else if self.connection.send(Kind::Binary, bytes, true, env.entropy).is_ok() {
            // What is read at once is a message: it goes on from where it lies.
            self.sent += read as u64;
        }
    }

    /// Says to the remote what the plugin has said, until enough waits for it or the turn's `budget` is used up. Once a close
    /// is under way nothing is sent, and nothing is lost that anybody would hear.
    fn speak(&mut self, budget: &mut usize, env: &mut Env<'_>) {
        while self.connection.queued() < BATCH && self.plugin == Plugin::Open && *budget > 0 {
            match self.decoder.poll_item() {
                None => break,
                Some(Ok(Item::Message { kind, payload, .. })) => {
                    if self.connection.send(kind, payload, true, env.entropy).is_ok() {
                        self.sent += payload.len() as u64;
                    }
                }
                Some(Ok(Item::Ping(payload))) => drop(self.connection.send_ping(payload, env.entropy)),
                Some(Ok(Item::Pong(payload))) => drop(self.connection.send_pong(payload, env.entropy)),
                Some(Ok(Item::Close { code, reason })) => {
                    self.plugin = Plugin::Ended;
                    self.why.get_or_insert(End::Goodbye);
                    self.connection.close(code, reason, env.now, env.entropy);
                }
                Some(Err(error)) => self.handle_bad_framing(error, env),
            }
            *budget = budget.saturating_sub(MESSAGE_COST);
        }
    }

    /// The plugin is told what it did, and that is the end.
    fn handle_bad_framing(&mut self, error: FramingError, env: &mut Env<'_>) {
        self.end_remote(close::PROTOCOL_ERROR, &error.reason(), End::BadFraming);
        self.end_plugin(error.close_code(), env);
    }

    fn end_plugin(&mut self, code: u16, env: &mut Env<'_>) {
        self.plugin = Plugin::Ended;
        self.connection.close(code, "", env.now, env.entropy);
    }

    /// Writes to the remote what waits for it. False where it has no room.
    pub fn flush<R: Stream>(&mut self, remote: &mut R, env: &mut Env<'_>) -> bool {
        if self.remote == Remote::Gone {
            return false;
        }
        loop {
            let waiting = self.connection.poll_transmit(env.entropy);
            let outcome = match waiting.len() {
                _ if !self.remote_ready.writable => return waiting.is_empty(),
                0 => match remote.flush() {
                    Ok(true) => return true,
                    Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(error) => Err(error),
                },
                length => remote.send(waiting).map(|sent| (sent, length)),
            };
            match outcome {
                Ok((sent, length)) => {
                    self.connection.handle_transmitted(sent);
                    self.remote_ready.writable = sent == length;
                    self.progress = env.now;
                }
                Err(error) if interrupted(&error) => {}
                Err(error) if would_block(&error) => self.remote_ready.writable = false,
                Err(error) => {
                    // What it has said before is still read; that will end in the same error.
                    log::debug!("remote takes nothing more: {error}");
                    if self.remote_ready.hangup || self.remote != Remote::Open {
                        self.handle_eof(&crate::net::reason(&error));
                        return false;
                    }
                    (self.remote_ready.readable, self.remote_ready.hangup) = (true, true);
                    self.remote_ready.writable = false;
                }
            }
        }
    }
}
