//! One direction of a relay: from a source to a sink.
//!
//! Bytes that were read and could not be written are pending, and while any are pending nothing is read: the kernel's
//! buffers do the rest, and their filling up is what slows down the sender.

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use super::memory_budget::MemoryBudget;
use super::pipe_pool::{Pipe, PipePool};
use super::{RelayContext, TURN_BYTES, TURN_CALLS};
use crate::net::endpoint::{Endpoint, Transfer};

/// A read of this many bytes is a sign of bulk.
const BULK_READ: usize = 16 * 1024;
/// After this many such reads in a row, bytes go through a pipe.
const BULK_AFTER: u8 = 3;
/// Fewer bytes than this in a pipe are no bulk any more: reading them costs less.
const MIN_BULK: usize = 4 * 1024;

/// A block of this many bytes or more is replaced by a smaller one when three quarters of it are written.
const MIN_SHRUNK: usize = 4 * 1024;

/// Bytes that were read and not yet written.
#[derive(Debug, Default)]
enum Pending {
    #[default]
    Nothing,
    Bytes {
        bytes: Box<[u8]>,
        /// How many of them are written: 4 bytes, to keep idle connections small.
        written: u32,
        /// See [`Direction::preload`].
        preloaded: bool,
    },
    Pipe {
        pipe: Pipe,
        len: usize,
    },
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectionPhase {
    /// The source may send.
    Open,
    /// The source has ended; what came before is still being written.
    Ending,
    /// The sink was told the end, or takes nothing more.
    Ended,
}

/// Which side failed, and how.
#[derive(Debug)]
pub(crate) enum DirectionError {
    /// Reading failed.
    Source(io::Error),
    /// Writing failed.
    Sink(io::Error),
}

/// What [`Direction::pump`] did.
#[derive(Debug, Default)]
pub(crate) struct PumpResult {
    /// Bytes were read.
    pub read: bool,
    /// Bytes were written.
    pub written: bool,
    /// It stopped because its turn was over.
    pub again: bool,
    /// The sink was told the end.
    pub ended: bool,
    /// A side failed.
    pub error: Option<DirectionError>,
}

/// One direction of a relay.
#[derive(Debug)]
pub(crate) struct Direction {
    pending: Pending,
    phase: DirectionPhase,
    /// Bulk reads in a row.
    bulk_reads: u8,
    moved: u64,
    progress: Instant,
}

/// What a step of [`Direction::pump`] leads to.
type StepResult = Result<Flow, DirectionError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// There may be more to do.
    Continue,
    /// Nothing more can be done now.
    Stop,
}

impl Direction {
    /// A direction through which nothing has passed.
    pub(crate) fn new(now: Instant) -> Self {
        Self { pending: Pending::Nothing, phase: DirectionPhase::Open, bulk_reads: 0, moved: 0, progress: now }
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> DirectionPhase {
        self.phase
    }

    /// Bytes written to the sink.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// When bytes last moved, or the clock was restarted.
    pub(crate) fn progress(&self) -> Instant {
        self.progress
    }

    /// Lets time limits begin anew.
    pub(crate) fn restart_clock(&mut self, now: Instant) {
        self.progress = now;
    }

    /// True while a slow sink holds back the source.
    pub(crate) fn is_held_back(&self) -> bool {
        !matches!(self.pending, Pending::Nothing)
    }

    /// Bytes that are pending. Those in memory count with all of their block, of which a part may be written.
    pub(crate) fn held(&self) -> usize {
        match &self.pending {
            Pending::Nothing => 0,
            Pending::Bytes { bytes, .. } => bytes.len(),
            Pending::Pipe { len, .. } => *len,
        }
    }

    /// Bytes in memory that were read from the source, which backpressure bounds: not those of [`Direction::preload`].
    pub(crate) fn stream_held(&self) -> usize {
        match &self.pending {
            Pending::Bytes { bytes, preloaded: false, .. } => bytes.len(),
            Pending::Bytes { .. } | Pending::Pipe { .. } | Pending::Nothing => 0,
        }
    }

    /// Holds `bytes` for the sink: what a plugin sent behind its CONN. Only for a direction in which nothing is pending.
    pub(crate) fn preload(&mut self, bytes: Vec<u8>, budget: &mut MemoryBudget) {
        debug_assert!(!self.is_held_back());
        if !bytes.is_empty() {
            budget.hold(bytes.len());
            self.pending = Pending::Bytes { bytes: bytes.into(), written: 0, preloaded: true };
        }
    }

    /// The source sends nothing more; what is pending is still written.
    pub(crate) fn end_source(&mut self) {
        if self.phase == DirectionPhase::Open {
            self.phase = DirectionPhase::Ending;
        }
    }

    /// The sink takes nothing more; what is pending is dropped.
    pub(crate) fn abandon(&mut self, budget: &mut MemoryBudget, pipes: &mut PipePool) {
        match std::mem::take(&mut self.pending) {
            Pending::Nothing => {}
            Pending::Bytes { bytes, .. } => budget.release(bytes.len()),
            Pending::Pipe { pipe, .. } => pipes.discard(pipe),
        }
        self.phase = DirectionPhase::Ended;
    }

    /// Moves bytes until one of the sides blocks, or the turn is over. `close_follows`: the sink is closed as soon as this
    /// direction has ended, so that it need not be told the end before.
    pub(crate) fn pump(
        &mut self,
        source: &mut dyn Endpoint,
        sink: &mut dyn Endpoint,
        close_follows: bool,
        cx: &mut RelayContext<'_>,
    ) -> PumpResult {
        let mut result = PumpResult::default();
        let start = self.moved;
        for call in 0.. {
            if call == TURN_CALLS || self.moved - start >= TURN_BYTES as u64 {
                result.again = true;
                break;
            }
            if self.phase == DirectionPhase::Ending && !self.is_held_back() {
                self.phase = DirectionPhase::Ended;
                result.ended = true;
                if !close_follows {
                    sink.shutdown_write();
                }
            }
            match self.step(source, sink, cx, &mut result) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => break,
                Err(error) => {
                    result.error = Some(error);
                    break;
                }
            }
        }
        result.written = self.moved != start;
        if result.written || result.read {
            self.progress = cx.now;
        }
        result
    }

    fn step(
        &mut self,
        source: &mut dyn Endpoint,
        sink: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
        result: &mut PumpResult,
    ) -> StepResult {
        if self.is_held_back() {
            return self.write_pending(sink, cx);
        }
        match self.phase {
            DirectionPhase::Ending | DirectionPhase::Ended => Ok(Flow::Stop),
            DirectionPhase::Open if !source.is_readable() => Ok(Flow::Stop),
            DirectionPhase::Open if self.bulk_reads >= BULK_AFTER && cx.block.is_none() => {
                self.fill_pipe(source, sink, cx, result)
            }
            DirectionPhase::Open => self.copy(source, sink, cx, result),
        }
    }

    /// Reads into the shared buffer and writes at once; what the sink does not take is pending.
    fn copy(
        &mut self,
        source: &mut dyn Endpoint,
        sink: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
        result: &mut PumpResult,
    ) -> StepResult {
        let room = cx.scratch.len().min(cx.budget.available_for_stream()).min(cx.block.unwrap_or(usize::MAX)).max(1);
        let read = match source.try_read(&mut cx.scratch[..room]) {
            Transfer::Bytes(0) => return Ok(Flow::Continue),
            Transfer::Bytes(read) => read,
            Transfer::Eof => {
                self.phase = DirectionPhase::Ending;
                return Ok(Flow::Continue);
            }
            Transfer::Blocked => return Ok(Flow::Stop),
            Transfer::Broken(error) => return Err(DirectionError::Source(error)),
        };
        result.read = true;
        self.bulk_reads = if read >= BULK_READ { self.bulk_reads.saturating_add(1) } else { 0 };
        let written = match sink.try_write(&cx.scratch[..read]) {
            Transfer::Bytes(written) => written,
            Transfer::Broken(error) => return Err(DirectionError::Sink(error)),
            Transfer::Eof | Transfer::Blocked => 0,
        };
        self.moved += written as u64;
        if written < read {
            let rest = &cx.scratch[written..read];
            cx.budget.hold(rest.len());
            self.pending = Pending::Bytes { bytes: rest.into(), written: 0, preloaded: false };
        }
        // An interrupted write goes on at once; a full sink says so without another call.
        Ok(Flow::Continue)
    }

    /// Moves bytes into a pipe. [`Direction::copy`] finds out what splice(2) does not say.
    fn fill_pipe(
        &mut self,
        source: &mut dyn Endpoint,
        sink: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
        result: &mut PumpResult,
    ) -> StepResult {
        if source.fd().is_none() || sink.fd().is_none() {
            return self.copy(source, sink, cx, result);
        }
        let Some(pipe) = cx.pipes.take() else { return self.copy(source, sink, cx, result) };
        source.prepare_splice();
        let filled = source.fd().map_or(Err(Errno::EINTR), |fd| pipe.fill(fd));
        if let Ok(len) = filled
            && len > 0
        {
            if len < MIN_BULK {
                self.bulk_reads = 0;
            }
            result.read = true;
            source.handle_spliced_in(len);
            self.pending = Pending::Pipe { pipe, len };
            return Ok(Flow::Continue);
        }
        cx.pipes.give(pipe);
        match filled {
            Err(Errno::EAGAIN) => {
                // The pipe was empty, so it is the socket that has nothing.
                source.clear_readable();
                if !source.is_readable() {
                    return Ok(Flow::Stop);
                }
            }
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EBADF | Errno::EPERM) => cx.pipes.turn_off(),
            Ok(_) | Err(Errno::EINTR) => {}
            // The kernel reports a socket's error once: a read after this would return the end.
            Err(errno) => return Err(DirectionError::Source(errno.into())),
        }
        self.bulk_reads = 0;
        Ok(Flow::Continue)
    }

    /// Writes what is pending.
    fn write_pending(&mut self, sink: &mut dyn Endpoint, cx: &mut RelayContext<'_>) -> StepResult {
        if !sink.is_writable() {
            return Ok(Flow::Stop);
        }
        match &mut self.pending {
            Pending::Nothing => {}
            Pending::Bytes { bytes, written, .. } => match sink.try_write(&bytes[*written as usize..]) {
                Transfer::Bytes(sent) => {
                    *written += sent as u32;
                    self.moved += sent as u64;
                    cx.budget.handle_moved(sent);
                    let left = bytes.len() - *written as usize;
                    if left == 0 {
                        cx.budget.release(bytes.len());
                        self.pending = Pending::Nothing;
                    } else if bytes.len() >= MIN_SHRUNK && left <= bytes.len() / 4 {
                        // A few bytes for a slow reader do not keep the block of many.
                        cx.budget.release(*written as usize);
                        (*bytes, *written) = (bytes[*written as usize..].into(), 0);
                    }
                }
                Transfer::Broken(error) => return Err(DirectionError::Sink(error)),
                Transfer::Eof | Transfer::Blocked => {}
            },
            Pending::Pipe { pipe, len } => {
                let Some(fd) = sink.fd() else {
                    self.unsplice(cx)?;
                    return Ok(Flow::Continue);
                };
                match pipe.empty(fd, *len) {
                    Ok(0) | Err(Errno::EAGAIN) => sink.clear_writable(),
                    Ok(sent) => {
                        *len -= sent;
                        self.moved += sent as u64;
                        sink.handle_spliced_out();
                        if *len == 0
                            && let Pending::Pipe { pipe, .. } = std::mem::take(&mut self.pending)
                        {
                            cx.pipes.give(pipe);
                        }
                    }
                    Err(Errno::EINTR) => {}
                    Err(errno) => {
                        if errno == Errno::EINVAL {
                            cx.pipes.turn_off();
                        }
                        self.unsplice(cx)?;
                    }
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Takes bytes back out of a pipe, if the sink does not take them spliced. The next write returns the socket's error.
    fn unsplice(&mut self, cx: &mut RelayContext<'_>) -> Result<(), DirectionError> {
        let Pending::Pipe { pipe, len } = std::mem::take(&mut self.pending) else { return Ok(()) };
        let mut bytes = vec![0; len];
        let mut at = 0;
        let outcome = loop {
            match pipe.read(&mut bytes[at..]) {
                Ok(0) => break Ok(()),
                Ok(read) => at += read,
                Err(Errno::EINTR) => {}
                Err(errno) => break Err(DirectionError::Sink(errno.into())),
            }
            if at == len {
                break Ok(());
            }
        };
        cx.pipes.discard(pipe);
        self.bulk_reads = 0;
        bytes.truncate(at);
        cx.budget.hold(at);
        self.pending = Pending::Bytes { bytes: bytes.into(), written: 0, preloaded: false };
        outcome
    }
}
