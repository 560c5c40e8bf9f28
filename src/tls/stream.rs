//! An established TLS connection as a [`Stream`] of plain bytes.

use std::cell::Cell;
use std::io;

use super::error::TlsError;
use super::handshake::{RECORD_HEADER, TlsConnection};
use super::unbuffered::{TlsState, UnbufferedConnection};
use crate::net::socket::Stream;

/// Bytes received at once at most: one record.
const MAX_READ: usize = 16 * 1024;
/// Bytes received at once at least, however few the caller asks for: only a whole record can be decrypted.
const MIN_READ: usize = 2 * 1024;
/// Plain bytes in one record at most (RFC 8446 section 5.1: 2^14).
const MAX_RECORD: usize = 16 * 1024;
/// Encrypted bytes that may wait for the stream below, at most. [`Stream::set_send_limit`] lowers it.
const MAX_UNSENT: usize = 16 * 1024;
/// Bytes of a record with its header at most (RFC 5246 section 6.2.3: 2^14 + 2048).
const MAX_WIRE_RECORD: usize = RECORD_HEADER + MAX_RECORD + 2048;

thread_local! {
    /// Temporary memory of all connections of this thread, in use during a call only. It keeps its initialised bytes
    /// between calls. A buffer from the free list of `buffer_pool` is empty, and to fill it with zeros for each record makes
    /// receiving 6 % slower (TLS 1.3, records of 16 KiB, x86-64).
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// TLS over a stream.
///
/// For edge-triggered events: read until `WouldBlock`, because no event announces decrypted bytes that are held here. If
/// `send` takes fewer bytes than it was given, the stream below has returned `WouldBlock`. Bytes that were taken and could
/// not be sent wait for [`Stream::flush`].
///
/// A peer may send much that yields no plain bytes (records of one byte, tickets, key updates). To bound the work of
/// one call, `recv` returns early when it has received at least twice as many bytes as it yields, with
/// [`io::ErrorKind::Interrupted`] if it yields none. The caller decides when to go on.
#[derive(Debug)]
pub(crate) struct TlsStream<S> {
    inner: S,
    connection: Box<UnbufferedConnection>,
    /// Decrypted bytes that did not fit into the caller's buffer. While there are any, nothing more is received.
    plain: Vec<u8>,
    /// Bytes of `plain` that the caller has taken.
    plain_taken: usize,
    /// Encrypted bytes that the stream below has not taken.
    unsent: Vec<u8>,
    send_limit: usize,
    /// Bytes that an incomplete record may have.
    receive_limit: usize,
    /// Bytes that the record which is to be received has, those before it that are incomplete, too, included. 0: it is not
    /// known, or not longer than `receive_limit` was.
    needed: usize,
    /// Bytes of memory for the state of the connection.
    state_memory: usize,
    reading: ReadState,
    writing: WriteState,
}

/// State of the incoming direction.
#[derive(Debug)]
enum ReadState {
    Open,
    /// The peer has sent close_notify.
    Closed,
    /// An error occurred; every further `recv` returns it again.
    Failed(ReadError),
}

/// Why the incoming direction failed. Kept, because `recv` returns it again on every further call.
#[derive(Debug)]
enum ReadError {
    /// The stream below failed, or ended without close_notify.
    Below(io::ErrorKind, Box<str>),
    /// The peer's bytes violate TLS.
    Tls(TlsError),
}

impl ReadError {
    fn to_io(&self) -> io::Error {
        match self {
            Self::Below(kind, message) => io::Error::new(*kind, message.as_ref()),
            Self::Tls(failure) => io::Error::new(io::ErrorKind::InvalidData, failure.clone()),
        }
    }
}

/// State of the outgoing direction.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WriteState {
    Open,
    /// close_notify is in `unsent`, and the stream below has not been shut down.
    Closing,
    /// The stream below has been shut down.
    Closed,
}

impl<S: Stream> TlsStream<S> {
    /// A stream over `inner`. `unsent`: bytes of the handshake that have not been sent yet.
    pub(crate) fn new(inner: S, TlsConnection { connection, plain }: TlsConnection, unsent: Vec<u8>) -> Self {
        let reading = if connection.is_closed() { ReadState::Closed } else { ReadState::Open };
        let state_memory = connection.state_memory();
        Self {
            inner,
            connection,
            plain,
            plain_taken: 0,
            unsent,
            send_limit: MAX_UNSENT,
            receive_limit: usize::MAX,
            needed: 0,
            state_memory,
            reading,
            writing: WriteState::Open,
        }
    }

    /// The stream below.
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The negotiated version as OpenSSL prints it, for example `TLSv1.3`.
    pub(crate) fn version(&self) -> &'static str {
        self.connection.version()
    }

    /// Receives once from the stream below and processes the bytes. Returns their number, or `None` if the stream below
    /// would block.
    fn receive(&mut self, buffer: &mut [u8], filled: &mut usize) -> io::Result<Option<usize>> {
        let mut scratch = SCRATCH.take();
        let outcome = self.receive_through(&mut scratch, buffer, filled);
        SCRATCH.set(scratch);
        outcome
    }

    fn receive_through(
        &mut self,
        scratch: &mut Vec<u8>,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> io::Result<Option<usize>> {
        let start = self.connection.incomplete().len();
        let end = if self.receive_limit >= start.saturating_add(MAX_WIRE_RECORD) {
            start + (buffer.len() - *filled).clamp(MIN_READ, MAX_READ)
        } else {
            // Where memory is short a record is received when there is memory for all of it, and nothing behind it.
            let end = record_end(self.connection.incomplete());
            if end > self.receive_limit {
                self.needed = end;
                return Ok(None);
            }
            end
        };
        if scratch.len() < end {
            scratch.resize(end.max(2 * MAX_READ), 0);
        }
        let read = loop {
            match self.inner.recv(&mut scratch[start..end]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                outcome => break outcome?,
            }
        };
        if read == 0 {
            // RFC 8446 section 6.1: without close_notify the data may be truncated, and the application must be able to
            // tell.
            let message = "closed without close_notify".into();
            self.reading = ReadState::Failed(ReadError::Below(io::ErrorKind::UnexpectedEof, message));
            return Ok(Some(0));
        }
        scratch[..start].copy_from_slice(self.connection.incomplete());
        let plain = &mut self.plain;
        let deliver = |bytes: &[u8]| {
            let fits = bytes.len().min(buffer.len() - *filled);
            buffer[*filled..*filled + fits].copy_from_slice(&bytes[..fits]);
            *filled += fits;
            plain.extend_from_slice(&bytes[fits..]);
        };
        let waiting = self.unsent.len();
        let outcome = self.connection.process(&mut scratch[..start + read], &mut self.unsent, deliver);
        if self.writing != WriteState::Open {
            // RFC 8446 section 6.1: nothing follows close_notify, neither an alert nor the answer to a key update.
            self.unsent.truncate(waiting);
        }
        match outcome {
            Ok(TlsState::Closed) => self.reading = ReadState::Closed,
            Ok(_) => {}
            Err(error) => {
                // Send the alert. If that fails too, the first error is still the one to report.
                let _ = self.flush();
                let error = self.connection.error(&error);
                self.reading = ReadState::Failed(ReadError::Tls(error));
            }
        }
        Ok(Some(read))
    }

    /// Copies decrypted bytes to `buffer` and returns their number.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = &self.plain[self.plain_taken..];
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.plain_taken += length;
        if self.plain_taken == self.plain.len() {
            (self.plain, self.plain_taken) = (Vec::new(), 0);
        }
        length
    }

    /// Encrypts one record and sends as much of it as possible. Returns false if bytes wait for the stream below.
    fn send_record(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut scratch = SCRATCH.take();
        let outcome = self.connection.encrypt(bytes, &mut self.unsent, &mut scratch);
        let to_io = |error| io::Error::other(self.connection.error(&error));
        let outcome = outcome.map_err(to_io).and_then(|length| {
            let encrypted = &scratch[..length];
            let mut sent = 0;
            let outcome = if self.unsent.is_empty() { push(&mut self.inner, encrypted, &mut sent) } else { Ok(()) };
            self.unsent.extend_from_slice(&encrypted[sent..]);
            outcome.map(|()| self.unsent.is_empty())
        });
        SCRATCH.set(scratch);
        outcome
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    /// Errors: `UnexpectedEof` if the stream below ended without close_notify, `InvalidData` with a [`TlsError`] inside
    /// if TLS failed, `Interrupted` if it returned early without bytes.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = self.take_plain(buffer);
        let mut received = 0;
        while filled < buffer.len() {
            match &self.reading {
                ReadState::Open => {}
                _ if filled > 0 => break,
                ReadState::Closed => return Ok(0),
                ReadState::Failed(error) => return Err(error.to_io()),
            }
            match self.receive(buffer, &mut filled) {
                Ok(Some(read)) => received += read,
                Ok(None) if filled > 0 => break,
                Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => {
                    let message = crate::net::reason(&error).into();
                    self.reading = ReadState::Failed(ReadError::Below(error.kind(), message));
                }
            }
            // The incomplete record counts as useful, since it will yield bytes.
            if matches!(self.reading, ReadState::Open) && filled + self.connection.incomplete().len() < received / 2 {
                return if filled > 0 { Ok(filled) } else { Err(io::ErrorKind::Interrupted.into()) };
            }
        }
        Ok(filled)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writing != WriteState::Open || matches!(self.reading, ReadState::Failed(..)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut is_writable = self.flush()?;
        let mut taken = 0;
        while taken < bytes.len() {
            let available = if is_writable {
                MAX_RECORD.min(self.send_limit)
            } else {
                self.send_limit.saturating_sub(self.unsent.len()).min(MAX_RECORD)
            };
            if available == 0 {
                break;
            }
            let record = &bytes[taken..bytes.len().min(taken + available)];
            is_writable = self.send_record(record)?;
            taken += record.len();
        }
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        let outcome = push(&mut self.inner, &self.unsent, &mut sent);
        if sent == self.unsent.len() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..sent);
        }
        outcome?;
        if !self.unsent.is_empty() {
            return Ok(false);
        }
        if self.writing == WriteState::Closing {
            self.writing = WriteState::Closed;
            self.inner.shutdown_write();
        }
        Ok(true)
    }

    fn is_layered(&self) -> bool {
        true
    }

    fn unsent(&self) -> usize {
        self.unsent.len()
    }

    fn held(&self) -> usize {
        // Both vectors are freed when they become empty.
        self.state_memory + self.unsent.capacity() + self.plain.capacity() + self.connection.incomplete().len()
    }

    fn incomplete(&self) -> usize {
        self.connection.incomplete().len()
    }

    fn state_memory(&self) -> usize {
        self.state_memory
    }

    fn set_receive_limit(&mut self, bytes: usize) {
        self.receive_limit = self.connection.incomplete().len().saturating_add(bytes);
        if self.needed <= self.receive_limit {
            self.needed = 0;
        }
    }

    fn waits_for_memory(&self) -> bool {
        self.needed > 0
    }

    /// Bytes that do not fit are not taken. A record is no longer than the limit, either.
    fn set_send_limit(&mut self, bytes: usize) {
        self.send_limit = bytes.clamp(1, MAX_UNSENT);
    }

    fn shutdown_write(&mut self) {
        if self.writing != WriteState::Open {
            return;
        }
        self.writing = WriteState::Closing;
        if !matches!(self.reading, ReadState::Failed(..)) {
            let _ = self.connection.close(&mut self.unsent);
        }
        // Bytes that cannot be sent now wait for the next `flush`; an error shows there again.
        let _ = self.flush();
    }
}

/// Where the record ends that comes in, or its header if that is incomplete. `incomplete`: received bytes from the beginning
/// of a record on.
fn record_end(incomplete: &[u8]) -> usize {
    let mut start = 0;
    loop {
        let Some(header) = incomplete.get(start..start + RECORD_HEADER) else { return start + RECORD_HEADER };
        // RFC 8446 section 5.1: type, version, and the length in two bytes.
        let end = start + RECORD_HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if end > incomplete.len() {
            return end;
        }
        start = end;
    }
}

/// Sends `bytes` until all are sent or the stream below would block, and adds their number to `sent`.
fn push<S: Stream>(inner: &mut S, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while *sent < bytes.len() {
        match inner.send(&bytes[*sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => *sent += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
