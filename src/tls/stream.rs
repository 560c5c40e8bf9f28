//! An established TLS connection as a stream of plain bytes.

use std::cell::Cell;
use std::io;

use super::connection::{Connection, Reached};
use super::error::Failure;
use super::handshake::TlsConnection;
use crate::net::socket::Stream;

/// As much is received at once: a record.
const READ: usize = 16 * 1024;
/// As much at least, however little is asked for: a record is of use as a whole only.
const READ_LEAST: usize = 2 * 1024;
/// As much goes into a record.
const RECORD: usize = 16 * 1024;
/// Encrypted bytes that may wait for the stream below, at most.
const MAX_UNSENT: usize = 16 * 1024;

thread_local! {
    /// Where all connections of this thread have their bytes for the time of a call.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// TLS over a stream.
///
/// Two promises to who waits for edge-triggered events: where less is received than was asked for, or less is taken
/// than was to be sent, the stream below has said that it would block; the exception is what [`TlsStream::has_more`]
/// tells. And what was taken and could not be sent on waits for [`Stream::flush`].
///
/// A server may send very much that is of no use (records of one byte, tickets, new keys). So a call ends early where
/// little has come of what it received, with [`io::ErrorKind::Interrupted`] where that was nothing, and its caller
/// decides when it goes on.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: S,
    connection: Box<Connection>,
    /// Decrypted, and not yet asked for: what did not fit. While there is any, nothing more is received.
    plain: Vec<u8>,
    /// How much of `plain` has gone.
    taken: usize,
    /// Encrypted, and not yet taken by the stream below.
    unsent: Vec<u8>,
    limit: usize,
    reading: Reading,
    writing: Writing,
    /// The last call ended early.
    early: bool,
}

/// How the incoming side ends.
#[derive(Debug)]
enum Reading {
    Open,
    /// The server said so.
    Closed,
    /// It broke.
    Failed(Fault),
}

/// Why the incoming side broke. It stays, since who asks again is to hear it again.
#[derive(Debug)]
enum Fault {
    /// The stream below did, or ended where it must not.
    Below(io::ErrorKind, Box<str>),
    /// What came is no TLS, or not as it should be.
    Tls(Failure),
}

impl Fault {
    fn error(&self) -> io::Error {
        match self {
            Self::Below(kind, words) => io::Error::new(*kind, words.as_ref()),
            Self::Tls(failure) => io::Error::new(io::ErrorKind::InvalidData, failure.clone()),
        }
    }
}

/// How the outgoing side ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writing {
    Open,
    /// The notice is made, and waits behind `unsent`.
    Closing,
    /// The stream below has been told.
    Closed,
}

impl<S: Stream> TlsStream<S> {
    /// A stream over `inner`, with what earlier steps of the handshake left unsent.
    pub fn new(inner: S, TlsConnection { connection, plain, closed }: TlsConnection, unsent: Vec<u8>) -> Self {
        let reading = if closed { Reading::Closed } else { Reading::Open };
        let writing = Writing::Open;
        Self { inner, connection, plain, taken: 0, unsent, limit: MAX_UNSENT, reading, writing, early: false }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The version that is spoken, in OpenSSL's words: `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.connection.version()
    }

    /// True where receiving may give something at once, bytes or the end, whatever the stream below would say. Events do
    /// not tell; so a stream like this is read until it would block.
    pub fn has_more(&self) -> bool {
        self.early || !self.plain.is_empty() || !matches!(self.reading, Reading::Open)
    }

    /// Receives once from the stream below and processes it. How much that was; `None`: it has nothing.
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
        let start = self.connection.rest().len();
        let end = start + (buffer.len() - *filled).clamp(READ_LEAST, READ);
        if scratch.len() < end {
            scratch.resize(end.max(2 * READ), 0);
        }
        let read = loop {
            match self.inner.recv(&mut scratch[start..end]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                outcome => break outcome?,
            }
        };
        if read == 0 {
            // Somebody may have cut off the end: whoever needs to know must be able to.
            let words = "closed without close_notify".into();
            self.reading = Reading::Failed(Fault::Below(io::ErrorKind::UnexpectedEof, words));
            return Ok(Some(0));
        }
        scratch[..start].copy_from_slice(self.connection.rest());
        let plain = &mut self.plain;
        let deliver = |bytes: &[u8]| {
            let fits = bytes.len().min(buffer.len() - *filled);
            buffer[*filled..*filled + fits].copy_from_slice(&bytes[..fits]);
            *filled += fits;
            plain.extend_from_slice(&bytes[fits..]);
        };
        match self.connection.process(&mut scratch[..start + read], &mut self.unsent, deliver) {
            Ok(Reached::Closed) => self.reading = Reading::Closed,
            Ok(_) => {}
            Err(error) => {
                // The peer is to hear why; if it does not listen any more, that is no further harm.
                let _ = self.flush();
                self.reading = Reading::Failed(Fault::Tls(Failure::of(&error)));
            }
        }
        Ok(Some(read))
    }

    /// Takes from what was decrypted before. Gives how much.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = &self.plain[self.taken..];
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.taken += length;
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
        length
    }

    /// Encrypts one record and sends what goes of it. False where the stream below is full.
    fn send_record(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut scratch = SCRATCH.take();
        let outcome = self.connection.encrypt(bytes, &mut self.unsent, &mut scratch);
        let outcome = outcome.map_err(|error| io::Error::other(Failure::of(&error))).and_then(|length| {
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
    /// `UnexpectedEof` where the stream below ended without the server's having said so; where TLS itself failed, the
    /// error holds the [`Failure`].
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = self.take_plain(buffer);
        let mut received = 0;
        self.early = false;
        while filled < buffer.len() {
            match &self.reading {
                Reading::Open => {}
                _ if filled > 0 => break,
                Reading::Closed => return Ok(0),
                Reading::Failed(fault) => return Err(fault.error()),
            }
            match self.receive(buffer, &mut filled) {
                Ok(Some(read)) => received += read,
                Ok(None) if filled > 0 => break,
                Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => {
                    let words = crate::net::reason(&error).into();
                    self.reading = Reading::Failed(Fault::Below(error.kind(), words));
                }
            }
            // The beginning of a record may be of use yet.
            if matches!(self.reading, Reading::Open) && filled + self.connection.rest().len() < received / 2 {
                self.early = true;
                return if filled > 0 { Ok(filled) } else { Err(io::ErrorKind::Interrupted.into()) };
            }
        }
        Ok(filled)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writing != Writing::Open || matches!(self.reading, Reading::Failed(..)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut goes = self.flush()?;
        let mut taken = 0;
        while taken < bytes.len() {
            let room =
                if goes { RECORD.min(self.limit) } else { self.limit.saturating_sub(self.unsent.len()).min(RECORD) };
            if room == 0 {
                break;
            }
            let record = &bytes[taken..bytes.len().min(taken + room)];
            goes = self.send_record(record)?;
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
        if self.writing == Writing::Closing {
            self.writing = Writing::Closed;
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
        self.unsent.len() + self.plain.len() - self.taken + self.connection.rest().len()
    }

    /// What does not fit is not taken. A record is no longer than that, either.
    fn set_send_limit(&mut self, bytes: usize) {
        self.limit = bytes.clamp(1, MAX_UNSENT);
    }

    fn shutdown_write(&mut self) {
        if self.writing != Writing::Open {
            return;
        }
        self.writing = Writing::Closing;
        if !matches!(self.reading, Reading::Failed(..)) {
            let _ = self.connection.close(&mut self.unsent);
        }
        // What does not go now goes when the stream below is writable again.
        let _ = self.flush();
    }
}

/// Sends `bytes` until all are gone or the stream has had enough, and counts them.
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
