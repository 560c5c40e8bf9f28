//! An endpoint that is traced.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recv};

use crate::net::endpoint::{Endpoint, Transfer};
use crate::trace::{Trace, Way};

/// One end of a stream while the connection is traced: what is read of it is recorded. Bytes that are spliced are looked at
/// before, so that the trace costs little where there are many.
pub(crate) struct Traced<'a> {
    endpoint: &'a mut dyn Endpoint,
    trace: &'a RefCell<&'a mut Trace>,
    way: Way,
    /// The first bytes that splice(2) is about to read.
    first: Vec<u8>,
}

impl<'a> Traced<'a> {
    /// Records in `trace` what is read of `endpoint`, which passes `way`.
    pub(crate) fn new(endpoint: &'a mut dyn Endpoint, trace: &'a RefCell<&'a mut Trace>, way: Way) -> Self {
        Self { endpoint, trace, way, first: Vec::new() }
    }
}

impl Endpoint for Traced<'_> {
    fn try_read(&mut self, buffer: &mut [u8]) -> Transfer {
        let outcome = self.endpoint.try_read(buffer);
        if let Transfer::Bytes(read @ 1..) = outcome {
            self.trace.borrow_mut().record(self.way, "bytes", &buffer[..read], read);
        }
        outcome
    }

    fn prepare_splice(&mut self) {
        self.endpoint.prepare_splice();
        self.first.resize(self.trace.borrow().max_shown(), 0);
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // What cannot be read now fails in splice(2), too.
        let read = self.endpoint.fd().and_then(|fd| recv(fd.as_raw_fd(), &mut self.first, flags).ok());
        self.first.truncate(read.unwrap_or_default());
    }

    fn handle_spliced_in(&mut self, length: usize) {
        self.endpoint.handle_spliced_in(length);
        let first = &self.first[..self.first.len().min(length)];
        self.trace.borrow_mut().record(self.way, "bytes", first, length);
    }

    fn try_write(&mut self, bytes: &[u8]) -> Transfer {
        self.endpoint.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.endpoint.flush()
    }

    fn shutdown_write(&mut self) {
        self.endpoint.shutdown_write();
    }

    fn is_readable(&self) -> bool {
        self.endpoint.is_readable()
    }

    fn assume_readable(&mut self) {
        self.endpoint.assume_readable();
    }

    fn is_writable(&self) -> bool {
        self.endpoint.is_writable()
    }

    fn is_read_closed(&self) -> bool {
        self.endpoint.is_read_closed()
    }

    fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    fn held(&self) -> usize {
        self.endpoint.held()
    }

    fn set_send_limit(&mut self, bytes: usize) {
        self.endpoint.set_send_limit(bytes);
    }

    fn set_receive_limit(&mut self, bytes: usize) {
        self.endpoint.set_receive_limit(bytes);
    }

    fn waits_for_memory(&self) -> bool {
        self.endpoint.waits_for_memory()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.endpoint.fd()
    }

    fn clear_readable(&mut self) {
        self.endpoint.clear_readable();
    }

    fn clear_writable(&mut self) {
        self.endpoint.clear_writable();
    }

    fn handle_spliced_out(&mut self) {
        self.endpoint.handle_spliced_out();
    }
}
