//! Two byte streams, relayed both ways.
//!
//! How it ends is a table of the two directions' phases:
//!
//! | from plugin | to plugin | what happens |
//! | --- | --- | --- |
//! | Open | Open | both run; RTIM and the idle limit count |
//! | Open or Ending | Ended | the plugin knows the end; what it still sends may go on while it makes progress |
//! | Ended | Open or Ending | the remote knows the end; likewise |
//! | Ending | any | what came before the end is passed on first, while the remote makes progress |
//! | any | Ending | likewise, and the plugin may take its time: the stall limit |
//! | Ended | Ended | over, once the remote's stream has pushed out what it holds itself |
//!
//! A connection that breaks ends both ways: what came from it is still passed on, what was on its way to it is lost.

use std::io;
use std::time::{Duration, Instant};

use super::direction::{Direction, Failure, Phase, Side};
use super::memory_budget::Buffers;
use super::pipe_pool::Pipes;
use super::{End, Env, Ready, Relay, Timing, Turn, interrupted, would_block};
use crate::net::socket::Stream;

/// The relay of two streams.
#[derive(Debug)]
pub struct StreamRelay {
    plugin_ready: Ready,
    remote_ready: Ready,
    to_remote: Direction,
    to_plugin: Direction,
    /// Since when the remote has been silent though we were reading. `None` while a slow plugin holds it back.
    silent_since: Option<Instant>,
    /// How it will end, if not by both sides' ending.
    lost: Option<End>,
    /// Since when both directions have ended, while the remote's stream still holds last words of its own.
    flushing_since: Option<Instant>,
}

impl StreamRelay {
    /// A relay that begins now, with what the plugin has sent ahead, and what is known of the plugin's socket and of
    /// the remote's.
    pub fn new(now: Instant, ahead: Vec<u8>, ready: (Ready, Ready), buffers: &mut Buffers) -> Self {
        let mut to_remote = Direction::new(now);
        to_remote.preload(ahead, buffers);
        Self {
            plugin_ready: ready.0,
            // A connection that has just been made may be read and written, whatever events have said so far.
            remote_ready: Ready { readable: true, writable: true, ..ready.1 },
            to_remote,
            to_plugin: Direction::new(now),
            silent_since: Some(now),
            lost: None,
            flushing_since: None,
        }
    }

    /// Moves what can be moved.
    pub fn run<P: Stream, R: Stream>(&mut self, plugin: &mut P, remote: &mut R, env: &mut Env<'_>) -> Turn {
        let mut turn = Turn::default();
        if self.plugin_ready.broken && self.to_plugin.phase() != Phase::Ended {
            // What it said before is still read; what waits for it is not worth holding a device for.
            self.to_plugin.abandon(env.buffers, env.pipes);
            self.to_remote.restart_clock(env.now);
            self.lost.get_or_insert(End::PluginLost);
        }
        let from_remote = Side { stream: &mut *remote, ready: &mut self.remote_ready };
        let into_plugin = Side { stream: &mut *plugin, ready: &mut self.plugin_ready };
        let down = self.to_plugin.pump(from_remote, into_plugin, env);
        turn.handed_over = down.written;
        turn.told_end = down.ended;
        if down.read {
            self.silent_since = Some(env.now);
        }
        if down.ended {
            self.to_remote.restart_clock(env.now);
        }
        self.handle_failure(down.failure, Way::ToPlugin, env);

        let from_plugin = Side { stream: plugin, ready: &mut self.plugin_ready };
        let into_remote = Side { stream: remote, ready: &mut self.remote_ready };
        // One block is for the plugin's eyes; the remote gets what there is.
        let block = env.block.take();
        let up = self.to_remote.pump(from_plugin, into_remote, env);
        env.block = block;
        if up.ended {
            self.to_plugin.restart_clock(env.now);
        }
        self.handle_failure(up.failure, Way::ToRemote, env);
        // What reading has brought up (an answer of the stream's own), and what writing has left behind.
        let flushed = self.flush(remote).unwrap_or_else(|error| {
            self.handle_failure(Some(Failure::Sink(error)), Way::ToRemote, env);
            true
        });
        self.flushing_since = (self.is_over() && !flushed).then(|| self.flushing_since.unwrap_or(env.now));

        self.silent_since = match (self.to_plugin.is_held_back(), self.silent_since) {
            (true, _) => None,
            (false, None) => Some(env.now),
            (false, since) => since,
        };
        // A failure may have left the other direction with something to do.
        turn.again = down.again || up.again || (self.lost.is_some() && !self.is_over() && self.can_go_on());
        turn.end = (self.is_over() && flushed).then(|| self.lost.unwrap_or(End::Done));
        turn
    }

    /// Has the remote's stream push out what it holds. False where something is known to be left.
    fn flush<R: Stream>(&mut self, remote: &mut R) -> io::Result<bool> {
        // At the very end nobody asks again, so then the stream itself must know.
        while self.remote_ready.writable || self.is_over() {
            match remote.flush() {
                Ok(true) => break,
                Err(error) if interrupted(&error) => {}
                Err(error) if !would_block(&error) => return Err(error),
                Ok(false) | Err(_) => {
                    self.remote_ready.writable = false;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        self.to_remote.phase() == Phase::Ended && self.to_plugin.phase() == Phase::Ended
    }

    /// True where a direction could move something at once.
    fn can_go_on(&self) -> bool {
        let can = |way: &Direction, source: &Ready, sink: &Ready| match way.phase() {
            Phase::Ended => false,
            _ if way.is_held_back() => sink.writable,
            Phase::Ending => true,
            Phase::Open => source.readable,
        };
        can(&self.to_plugin, &self.remote_ready, &self.plugin_ready)
            || can(&self.to_remote, &self.plugin_ready, &self.remote_ready)
    }

    fn handle_failure(&mut self, failure: Option<Failure>, way: Way, env: &mut Env<'_>) {
        let Some(failure) = failure else { return };
        let (lost, error, at_source) = match (way, failure) {
            (Way::ToPlugin, Failure::Source(error)) => (End::RemoteLost, error, true),
            (Way::ToPlugin, Failure::Sink(error)) => (End::PluginLost, error, false),
            (Way::ToRemote, Failure::Source(error)) => (End::PluginLost, error, true),
            (Way::ToRemote, Failure::Sink(error)) => (End::RemoteLost, error, false),
        };
        // What TLS has to say stands nowhere else.
        let level = if error.kind() == io::ErrorKind::InvalidData { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "{lost}: {error}");
        self.lost.get_or_insert(lost);
        let (this, other) = match way {
            Way::ToPlugin => (&mut self.to_plugin, &mut self.to_remote),
            Way::ToRemote => (&mut self.to_remote, &mut self.to_plugin),
        };
        if at_source {
            // What came from there is passed on; nothing more can go there.
            this.end_source();
            other.abandon(env.buffers, env.pipes);
        } else {
            // Nothing more can go there; what it had said before is still read, until it ends by itself.
            this.abandon(env.buffers, env.pipes);
            other.restart_clock(env.now);
        }
        let broken = match lost {
            End::PluginLost => &mut self.plugin_ready,
            _ => &mut self.remote_ready,
        };
        broken.readable = true;
        broken.hangup = true;
    }
}

impl Relay for StreamRelay {
    fn plugin_ready(&mut self) -> &mut Ready {
        &mut self.plugin_ready
    }

    fn remote_ready(&mut self) -> &mut Ready {
        &mut self.remote_ready
    }

    fn limits(&self, timing: &Timing) -> [Option<(Instant, End)>; 3] {
        let (up, down) = (&self.to_remote, &self.to_plugin);
        // A direction that holds bytes does not read, and so does not see its source's end but in the event.
        let ended = |way: &Direction, source: &Ready| match way.phase() {
            Phase::Ending => true,
            Phase::Open => way.is_held_back() && source.hangup,
            Phase::Ended => false,
        };
        let standstill = |way: &Direction, other: &Direction, source: &Ready, left_behind: Duration| {
            if ended(way, source) {
                Some((way.progress() + left_behind, End::Stalled))
            } else if way.phase() == Phase::Open && other.phase() == Phase::Ended {
                Some((way.progress() + timing.half_close, End::HalfClosed))
            } else {
                None
            }
        };
        let both_open = up.phase() == Phase::Open && down.phase() == Phase::Open;
        let silence = timing.receive.zip(self.silent_since).filter(|_| down.phase() == Phase::Open);
        let quiet =
            timing.idle.filter(|_| both_open).map(|idle| (up.progress().max(down.progress()) + idle, End::Idle));
        let last_words = self.flushing_since.map(|since| (since + timing.half_close, End::Stalled));
        [
            // A device is not held for the last words of a plugin that has gone; a plugin may take its time to read a
            // device's.
            standstill(up, down, &self.plugin_ready, timing.half_close).or(quiet).or(last_words),
            standstill(down, up, &self.remote_ready, timing.stall),
            silence.map(|(limit, since)| (since + limit, End::RemoteSilent)),
        ]
    }

    fn handle_new_plugin(&mut self, ready: Ready, now: Instant) {
        self.plugin_ready = ready;
        self.to_remote.restart_clock(now);
    }

    fn release(&mut self, buffers: &mut Buffers, pipes: &mut Pipes) {
        self.to_remote.abandon(buffers, pipes);
        self.to_plugin.abandon(buffers, pipes);
    }

    fn received(&self) -> u64 {
        self.to_plugin.moved()
    }

    fn sent(&self) -> u64 {
        self.to_remote.moved()
    }

    fn held(&self) -> usize {
        self.to_remote.held() + self.to_plugin.held()
    }

    fn last_heard(&self) -> Instant {
        self.to_plugin.progress()
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToPlugin,
    ToRemote,
}
