//! A plugin's byte stream and a WebSocket over another, relayed both ways.
//!
//! How it ends is a matter of two sides:
//!
//! | the plugin | the remote | what happens |
//! | --- | --- | --- |
//! | open | open | both run |
//! | said CLOS, or ended | open | it gets our close; what it still says is passed on until its answer, 5 s at most |
//! | gone | open | likewise, but nobody listens |
//! | any | ended | the plugin gets what is left, CLOS, and its end; the remote is given 5 s to close the connection |
//! | told or gone | closed the connection | over |

mod downward;
mod pumps;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::buffers::Buffers;
use super::pipes::Pipes;
use super::{End, Env, Ready, Relay, Timing, Turn};
use crate::net::socket::Stream;
use crate::protocol::framing::{Decoder, Dialect, Framing};
use crate::websocket::{Connection, ConnectionLost, close};
use downward::Downward;

/// What waits for a slow plugin beyond this holds back the remote. A message is never cut.
const HIGH: usize = 64 * 1024;
/// What waits for a slow remote beyond this holds back the plugin; less is gathered, to be sent at once.
const BATCH: usize = 16 * 1024;
/// What a message or a control frame costs of a turn besides its bytes.
const MESSAGE_COST: usize = 256;
/// A plugin's own message may be as long as those it takes, and this long at least.
const LEAST_LIMIT: usize = 64 * 1024;

/// How the plugin's side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    /// It may speak.
    Open,
    /// It has said its last word, and may still listen.
    Ended,
    /// There is nobody.
    Gone,
}

/// How the remote's side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    /// It may speak.
    Open,
    /// It says nothing more; the connection still stands.
    Ended,
    /// There is no connection any more.
    Gone,
}

/// The relay of a plugin and a WebSocket.
#[derive(Debug)]
pub struct WebSocketRelay {
    plugin_ready: Ready,
    remote_ready: Ready,
    plugin: Plugin,
    remote: Remote,
    connection: Connection,
    framing: Framing,
    limit: usize,
    decoder: Decoder,
    down: Downward,
    /// What was read and not yet understood, because the plugin is slow.
    unread: Vec<u8>,
    /// The connection may have more to say even without input.
    more: bool,
    /// The plugin knows the end.
    told: bool,
    /// Why it ends.
    why: Option<End>,
    /// Longest silence of the remote.
    receive: Option<Duration>,
    /// Since when the remote has been silent though we were reading. `None` while a slow plugin holds it back.
    silent_since: Option<Instant>,
    /// Bytes that the bound on all knows of.
    counted: usize,
    sent: u64,
    progress: Instant,
}

/// What a plugin has asked of the relay.
pub struct Wishes {
    /// Framing on the plugin's side.
    pub framing: Framing,
    /// Longest message in bytes.
    pub max_message: u64,
    /// Longest silence of the remote.
    pub receive: Option<Duration>,
}

impl WebSocketRelay {
    /// A relay that begins now, with what each side has sent ahead, and what is known of the plugin's socket and of the
    /// remote's.
    pub fn new(
        now: Instant,
        connection: Connection,
        wishes: &Wishes,
        (plugin_ahead, remote_ahead): (&[u8], Vec<u8>),
        head: Option<&[u8]>,
        (plugin_ready, remote_ready): (Ready, Ready),
    ) -> Self {
        let limit = usize::try_from(wishes.max_message).unwrap_or(usize::MAX).max(LEAST_LIMIT);
        let mut decoder = Decoder::new(wishes.framing, Dialect::WebSocket, limit);
        decoder.handle_input(plugin_ahead);
        let mut down = Downward::new(wishes.framing);
        if let Some(head) = head {
            down.handle_head(head);
        }
        Self {
            plugin_ready,
            remote_ready,
            plugin: Plugin::Open,
            remote: Remote::Open,
            connection,
            framing: wishes.framing,
            limit,
            decoder,
            down,
            more: !remote_ahead.is_empty(),
            unread: remote_ahead,
            told: false,
            why: None,
            receive: wishes.receive,
            silent_since: Some(now),
            counted: 0,
            sent: 0,
            progress: now,
        }
    }

    /// Moves what can be moved.
    pub fn run<P: Stream, R: Stream>(&mut self, plugin: &mut P, remote: &mut R, env: &mut Env<'_>) -> Turn {
        let mut turn = Turn::default();
        if self.plugin_ready.broken {
            self.hear_last_words(plugin, env);
            self.lose_plugin(env);
        }
        // Before the remote is judged for its silence its socket is asked: the word may wait there.
        self.remote_ready.readable |= self.is_due(env.now);
        turn.again |= self.pump_down(plugin, remote, env, &mut turn);
        self.handle_due(env);
        turn.again |= self.pump_up(plugin, remote, env);
        // What the plugin is told of its own faults leaves in the same turn.
        self.write_plugin(plugin, env, &mut turn);
        self.tell_end(plugin, &mut turn);
        self.flush(remote, env);

        let held_back = self.is_held_back();
        self.connection.set_reading(!held_back, env.now);
        self.silent_since = match (held_back, self.silent_since) {
            (true, _) => None,
            (false, None) => Some(env.now),
            (false, since) => since,
        };
        let held = self.held();
        env.buffers.recount(&mut self.counted, held);
        turn.end = self.end(remote);
        turn
    }

    fn is_held_back(&self) -> bool {
        !self.down.waiting().is_empty()
    }

    /// True where a time limit has passed that leads to last words, or to a ping.
    fn is_due(&self, now: Instant) -> bool {
        [self.connection.poll_timeout(), self.silence_due()].into_iter().flatten().any(|due| due <= now)
    }

    /// The time limits that lead to last words.
    fn handle_due(&mut self, env: &mut Env<'_>) {
        if self.connection.poll_timeout().is_some_and(|due| due <= env.now)
            && let Some(lost) = self.connection.handle_timeout(env.now)
        {
            log::debug!("WebSocket lost: {lost:?}");
            let reason =
                if lost == ConnectionLost::PingTimeout { "no answer to a ping" } else { "no answer to a close" };
            self.end_remote(close::ABNORMAL, reason, End::RemoteLost);
            self.remote = Remote::Gone;
        }
        if self.silence_due().is_some_and(|due| due <= env.now) {
            self.end_remote(close::ABNORMAL, "silent for too long", End::RemoteSilent);
            self.connection.close(close::GOING_AWAY, "silent for too long", env.now, env.entropy);
        }
    }

    /// When the remote will have been silent for too long.
    fn silence_due(&self) -> Option<Instant> {
        let since = self.silent_since.filter(|_| self.remote == Remote::Open)?.max(self.connection.last_frame());
        self.receive.map(|limit| since + limit)
    }

    /// The remote says nothing more.
    fn end_remote(&mut self, code: u16, reason: &str, why: End) {
        if self.remote == Remote::Open {
            self.remote = Remote::Ended;
            self.down.handle_end(code, reason);
            self.unread = Vec::new();
            self.more = false;
            self.why.get_or_insert(why);
        }
    }

    /// There is nobody at the plugin's side any more.
    fn lose_plugin(&mut self, env: &mut Env<'_>) {
        if self.plugin != Plugin::Gone {
            self.plugin = Plugin::Gone;
            self.down.forget();
            self.told = true;
            self.why.get_or_insert(End::PluginLost);
            self.connection.close(close::GOING_AWAY, "", env.now, env.entropy);
        }
    }

    /// Why it is over, if it is.
    fn end<R: Stream>(&mut self, remote: &mut R) -> Option<End> {
        if !self.told || self.remote != Remote::Gone {
            return None;
        }
        // The last words of what stands before the socket (TLS), as far as they go.
        remote.shutdown_write();
        let _ = remote.flush();
        Some(self.why.unwrap_or(End::Done))
    }
}

impl Relay for WebSocketRelay {
    fn plugin_ready(&mut self) -> &mut Ready {
        &mut self.plugin_ready
    }

    fn remote_ready(&mut self) -> &mut Ready {
        &mut self.remote_ready
    }

    fn limits(&self, timing: &Timing) -> [Option<(Instant, End)>; 3] {
        let both_open = self.plugin == Plugin::Open && self.remote == Remote::Open;
        let idle = timing.idle.filter(|_| both_open);
        let idle = idle.map(|idle| (self.progress.max(self.connection.last_frame()) + idle, End::Idle));
        let stalled =
            (self.remote != Remote::Open && self.is_held_back()).then(|| (self.progress + timing.stall, End::Stalled));
        [idle, stalled, None]
    }

    fn deadline(&self, timing: &Timing) -> Option<Instant> {
        let limits = self.limits(timing).into_iter().flatten().map(|(due, _)| due);
        limits.chain(self.connection.poll_timeout()).chain(self.silence_due()).min()
    }

    fn handle_new_plugin(&mut self, ready: Ready, now: Instant) {
        self.plugin_ready = ready;
        self.decoder.reset();
        self.progress = now;
    }

    fn release(&mut self, buffers: &mut Buffers, _: &mut Pipes) {
        buffers.recount(&mut self.counted, 0);
        self.down.forget();
        self.unread = Vec::new();
        self.decoder = Decoder::new(self.framing, Dialect::WebSocket, self.limit);
    }

    fn received(&self) -> u64 {
        self.down.received()
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn held(&self) -> usize {
        self.down.held() + self.unread.len() + self.decoder.buffered() + self.connection.queued()
    }

    fn last_heard(&self) -> Instant {
        self.connection.last_frame()
    }

    fn messages(&self) -> Option<(u64, u64)> {
        Some(self.connection.messages())
    }
}
