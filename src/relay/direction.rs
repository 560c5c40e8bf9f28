//! One way of a relay: from a source to a sink.
//!
//! What was read and could not be written is held, and while anything is held nothing is read: the kernel's buffers
//! do the rest, and their filling up is what slows down the sender.

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use super::memory_budget::Buffers;
use super::pipe_pool::{Pipe, Pipes};
use super::{Env, Ready, TURN_BYTES, TURN_CALLS, interrupted, would_block};
use crate::net::socket::Stream;

/// A read of this size is a sign of bulk.
const BULK_READ: usize = 16 * 1024;
/// So many in a row, and bytes go through a pipe.
const BULK_AFTER: u8 = 3;
/// Less than this from a pipe is no bulk any more: reading it costs less.
const BULK_LEAST: usize = 4 * 1024;

/// A side of the relay, as a direction sees it.
pub struct Side<'a, S> {
    /// The socket.
    pub stream: &'a mut S,
    /// What is known of it.
    pub ready: &'a mut Ready,
}

/// Bytes that were read and not yet written.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Bytes {
        bytes: Box<[u8]>,
        written: usize,
    },
    Pipe {
        pipe: Pipe,
        len: usize,
    },
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The source may send.
    #[default]
    Open,
    /// The source has ended; what came before is still being passed on.
    Ending,
    /// The end has been passed on, or there is nobody to pass anything to.
    Ended,
}

/// Which side failed, and how.
#[derive(Debug)]
pub enum Failure {
    /// Reading failed.
    Source(io::Error),
    /// Writing failed.
    Sink(io::Error),
}

/// What [`Direction::pump`] did.
#[derive(Debug, Default)]
pub struct Pumped {
    /// Bytes were read.
    pub read: bool,
    /// Bytes were written.
    pub written: bool,
    /// It stopped because its turn was over.
    pub again: bool,
    /// The end was passed on.
    pub ended: bool,
    /// A socket failed.
    pub failure: Option<Failure>,
}

/// One way of a relay.
#[derive(Debug)]
pub struct Direction {
    held: Held,
    phase: Phase,
    /// Full reads in a row.
    bulk: u8,
    moved: u64,
    progress: Instant,
}

impl Direction {
    /// A direction through which nothing has passed.
    pub fn new(now: Instant) -> Self {
        Self { held: Held::Nothing, phase: Phase::Open, bulk: 0, moved: 0, progress: now }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes written to the sink.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// When bytes last moved, or the waiting began.
    pub fn progress(&self) -> Instant {
        self.progress
    }

    /// The waiting begins anew.
    pub fn restart_clock(&mut self, now: Instant) {
        self.progress = now;
    }

    /// True while a slow sink holds back the source.
    pub fn is_held_back(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::Bytes { bytes, written } => bytes.len() - written,
            Held::Pipe { len, .. } => *len,
        }
    }

    /// Holds `bytes` for the sink: what a plugin sent behind its CONN. Only on a direction that holds nothing.
    pub fn preload(&mut self, bytes: Vec<u8>, buffers: &mut Buffers) {
        debug_assert!(!self.is_held_back());
        if !bytes.is_empty() {
            buffers.hold(bytes.len());
            self.held = Held::Bytes { bytes: bytes.into(), written: 0 };
        }
    }

    /// Nothing more can be read; what is held is still passed on.
    pub fn end_source(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Ending;
        }
    }

    /// Nothing more can be written; what is held is lost.
    pub fn abandon(&mut self, buffers: &mut Buffers, pipes: &mut Pipes) {
        self.drop_held(buffers, pipes);
        self.phase = Phase::Ended;
    }

    /// Moves bytes until one of the sockets has had enough, or the turn is over.
    pub fn pump<A: Stream, B: Stream>(&mut self, source: Side<'_, A>, sink: Side<'_, B>, env: &mut Env<'_>) -> Pumped {
        let mut pumped = Pumped::default();
        let mut work = Work { source, sink, env, pumped: &mut pumped };
        let start = self.moved;
        for call in 0.. {
            if call == TURN_CALLS || self.moved - start >= TURN_BYTES as u64 {
                work.pumped.again = true;
                break;
            }
            match self.step(&mut work) {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) => {
                    work.pumped.failure = Some(failure);
                    break;
                }
            }
        }
        if self.moved != start || pumped.read {
            self.progress = env.now;
        }
        pumped
    }

    /// One step. `Ok(false)`: nothing more can be done now.
    fn step<A: Stream, B: Stream>(&mut self, work: &mut Work<'_, '_, A, B>) -> Result<bool, Failure> {
        if self.is_held_back() {
            return self.flush(work);
        }
        match self.phase {
            Phase::Ending => {
                work.sink.stream.shutdown_write();
                self.phase = Phase::Ended;
                work.pumped.ended = true;
                return Ok(false);
            }
            Phase::Ended => return Ok(false),
            Phase::Open => {}
        }
        if !work.source.ready.readable {
            return Ok(false);
        }
        if self.bulk >= BULK_AFTER && work.env.block.is_none() { self.fill_pipe(work) } else { self.fill_bytes(work) }
    }

    /// Reads into the shared buffer and writes at once; what does not go is held.
    fn fill_bytes<A: Stream, B: Stream>(&mut self, work: &mut Work<'_, '_, A, B>) -> Result<bool, Failure> {
        let env = &mut *work.env;
        let room = env.scratch.len().min(env.buffers.room()).min(env.block.unwrap_or(usize::MAX)).max(1);
        let read = match work.source.stream.recv(&mut env.scratch[..room]) {
            Ok(0) => {
                self.phase = Phase::Ending;
                return Ok(true);
            }
            Ok(read) => read,
            Err(error) if interrupted(&error) => return Ok(true),
            Err(error) if would_block(&error) => {
                work.source.ready.readable = false;
                return Ok(false);
            }
            Err(error) => return Err(Failure::Source(error)),
        };
        work.pumped.read = true;
        if read < room && !work.source.ready.insists() {
            work.source.ready.readable = false;
        }
        self.bulk = if read >= BULK_READ { self.bulk.saturating_add(1) } else { 0 };
        let mut written = 0;
        if work.sink.ready.writable {
            match send(&mut work.sink, &env.scratch[..read]) {
                Ok(sent) => written = sent,
                Err(error) => return Err(Failure::Sink(error)),
            }
        }
        self.count(written, work.pumped);
        if written < read {
            let rest = &work.env.scratch[written..read];
            work.env.buffers.hold(rest.len());
            self.held = Held::Bytes { bytes: rest.into(), written: 0 };
            return Ok(false);
        }
        Ok(true)
    }

    /// Moves bytes into a pipe. Whatever is unclear is left to [`Direction::fill_bytes`] to find out.
    fn fill_pipe<A: Stream, B: Stream>(&mut self, work: &mut Work<'_, '_, A, B>) -> Result<bool, Failure> {
        let (Some(source), Some(_)) = (work.source.stream.fd(), work.sink.stream.fd()) else {
            return self.fill_bytes(work);
        };
        let Some(pipe) = work.env.pipes.take() else { return self.fill_bytes(work) };
        let filled = pipe.fill(source);
        if let Ok(len) = filled
            && len > 0
        {
            if len < BULK_LEAST {
                self.bulk = 0;
            }
            work.pumped.read = true;
            self.held = Held::Pipe { pipe, len };
            return Ok(true);
        }
        work.env.pipes.give(pipe);
        match filled {
            // The pipe was empty, so it is the socket that has nothing. Old kernels say so at the end of the stream,
            // too; a hang-up that was announced is therefore looked into by reading.
            Err(Errno::EAGAIN) if !work.source.ready.insists() => {
                work.source.ready.readable = false;
                Ok(false)
            }
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EBADF | Errno::EPERM) => {
                work.env.pipes.turn_off();
                self.bulk = 0;
                Ok(true)
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {
                self.bulk = 0;
                Ok(true)
            }
            Err(errno) => Err(Failure::Source(errno.into())),
        }
    }

    /// Writes what is held. `Ok(false)`: the sink has had enough.
    fn flush<A: Stream, B: Stream>(&mut self, work: &mut Work<'_, '_, A, B>) -> Result<bool, Failure> {
        if !work.sink.ready.writable {
            return Ok(false);
        }
        match &mut self.held {
            Held::Nothing => {}
            Held::Bytes { bytes, written } => {
                let sent = send(&mut work.sink, &bytes[*written..]).map_err(Failure::Sink)?;
                *written += sent;
                let done = *written == bytes.len();
                work.env.buffers.release(sent);
                self.count(sent, work.pumped);
                if done {
                    self.held = Held::Nothing;
                }
            }
            Held::Pipe { pipe, len } => {
                let Some(sink) = work.sink.stream.fd() else { return Ok(false) };
                match pipe.empty(sink, *len) {
                    Ok(0) | Err(Errno::EAGAIN) => work.sink.ready.writable = false,
                    Ok(sent) => {
                        *len -= sent;
                        let rest = *len;
                        self.count(sent, work.pumped);
                        if rest == 0
                            && let Held::Pipe { pipe, .. } = std::mem::take(&mut self.held)
                        {
                            work.env.pipes.give(pipe);
                        }
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EINVAL) => self.unsplice(work.env)?,
                    Err(errno) => return Err(Failure::Sink(errno.into())),
                }
            }
        }
        Ok(true)
    }

    /// Takes bytes back out of a pipe whose sink does not take them spliced.
    fn unsplice(&mut self, env: &mut Env<'_>) -> Result<(), Failure> {
        let Held::Pipe { pipe, len } = std::mem::take(&mut self.held) else { return Ok(()) };
        let mut bytes = vec![0; len];
        let mut at = 0;
        let outcome = loop {
            match pipe.read(&mut bytes[at..]) {
                Ok(0) => break Ok(()),
                Ok(read) => at += read,
                Err(Errno::EINTR) => {}
                Err(errno) => break Err(Failure::Sink(errno.into())),
            }
            if at == len {
                break Ok(());
            }
        };
        env.pipes.discard(pipe);
        env.pipes.turn_off();
        self.bulk = 0;
        bytes.truncate(at);
        env.buffers.hold(at);
        self.held = Held::Bytes { bytes: bytes.into(), written: 0 };
        outcome
    }

    fn drop_held(&mut self, buffers: &mut Buffers, pipes: &mut Pipes) {
        match std::mem::take(&mut self.held) {
            Held::Nothing => {}
            Held::Bytes { bytes, written } => buffers.release(bytes.len() - written),
            Held::Pipe { pipe, .. } => pipes.discard(pipe),
        }
    }

    fn count(&mut self, written: usize, pumped: &mut Pumped) {
        self.moved += written as u64;
        pumped.written |= written > 0;
    }
}

/// What a step works with.
struct Work<'a, 'e, A, B> {
    source: Side<'a, A>,
    sink: Side<'a, B>,
    env: &'a mut Env<'e>,
    pumped: &'a mut Pumped,
}

/// Writes once; what does not fit says that the socket is full.
fn send<S: Stream>(sink: &mut Side<'_, S>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match sink.stream.send(bytes) {
            Ok(sent) => {
                if sent < bytes.len() {
                    sink.ready.writable = false;
                }
                return Ok(sent);
            }
            Err(error) if interrupted(&error) => {}
            Err(error) if would_block(&error) => {
                sink.ready.writable = false;
                return Ok(0);
            }
            Err(error) => return Err(error),
        }
    }
}
