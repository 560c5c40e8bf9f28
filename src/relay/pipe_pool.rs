//! A small pool of pipes for splice(2): bytes go from socket to socket without passing through this process.
//!
//! A pipe is borrowed for a burst and given back when it is empty, so that many connections share a few.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// Empty pipes kept open for the next burst; the rest are closed.
const MAX_IDLE: usize = 4;
/// Size of a pipe in bytes: four times the kernel's default, for a quarter of the calls. The default number of pipes holds
/// as much as all buffers together may on a small box.
const PIPE_SIZE: i32 = 256 * 1024;
/// Bytes that one call asks for: more than a pipe takes.
const MAX_SPLICE: usize = 1 << 20;

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct PipePool {
    idle: Vec<Pipe>,
    lent: usize,
    limit: usize,
}

impl PipePool {
    /// A pool of at most `limit` pipes; 0 turns splicing off.
    pub(crate) fn new(limit: usize) -> Self {
        Self { idle: Vec::new(), lent: 0, limit }
    }

    /// Changes the bound; what is lent stays so until it comes back.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.idle.truncate(limit.min(MAX_IDLE));
    }

    /// Lends an empty pipe, if the pool has one left.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if self.lent >= self.limit {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => {
                let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
                // Not allowed before Linux 2.6.35 and beyond a user's limit (pipe(7)): then 64 KiB have to do.
                let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
                Pipe { read, write }
            }
        };
        self.lent += 1;
        Some(pipe)
    }

    /// Takes back a pipe that is empty.
    pub(crate) fn give(&mut self, pipe: Pipe) {
        self.lent -= 1;
        if self.idle.len() < MAX_IDLE.min(self.limit) {
            self.idle.push(pipe);
        }
    }

    /// Takes back a pipe that still holds bytes, and closes it.
    pub(crate) fn discard(&mut self, pipe: Pipe) {
        self.lent -= 1;
        drop(pipe);
    }

    /// Turns splicing off: this kernel, or this kind of socket, cannot splice.
    pub(crate) fn turn_off(&mut self) {
        self.limit = 0;
        self.idle.clear();
    }
}

impl Pipe {
    /// Moves what is there from a socket into the pipe. 0 is the end, or an old kernel's `EAGAIN`.
    pub(crate) fn fill(&self, source: BorrowedFd<'_>) -> Result<usize, Errno> {
        move_between(source, self.write.as_fd(), MAX_SPLICE)
    }

    /// Moves up to `len` bytes from the pipe into a socket.
    pub(crate) fn empty(&self, sink: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
        move_between(self.read.as_fd(), sink, len)
    }

    /// Reads bytes out of the pipe, if the socket refuses to have them spliced.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        nix::unistd::read(&self.read, buffer)
    }
}

fn move_between(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    splice(from, None, to, None, len, SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_as_many_as_allowed() {
        let mut pool = PipePool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        pool.give(first);
        assert!(pool.take().is_some());
        pool.discard(second);
        assert!(pool.take().is_some());
        pool.turn_off();
        assert!(pool.take().is_none());
    }
}
