//! Messages there and back over a WebSocket bridge. One thread drives every client and every remote, so that the load
//! takes one processor at most and leaves the rest to what is measured.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use testkit::random::Random;

use crate::codec::{Codec, Decoder, Echo};
use crate::connection_pair::ConnectionPair;

/// Buffer size of one read.
const READ: usize = 128 * 1024;

/// The result of an echo run.
#[derive(Clone, Copy, Debug)]
pub struct EchoResult {
    /// Messages that came back complete.
    pub messages: u64,
    /// From the first write to the last message's return.
    pub time: Duration,
}

/// The load of an echo run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes in a message.
    pub size: usize,
    /// Messages in flight on a pair.
    pub in_flight: usize,
    /// Duration of the run.
    pub time: Duration,
}

/// Sends messages over every pair, and one more for each that has come back. Compares what comes back. `codecs`: those
/// of client and remote.
pub fn echo(
    pairs: &[ConnectionPair],
    codecs: (Codec, Codec),
    Load { size, in_flight, time }: Load,
) -> io::Result<EchoResult> {
    // Printable text, which every framing accepts.
    let payload: Vec<u8> = Random::new(size as u64).bytes(size).iter().map(|byte| b' ' + byte % 95).collect();
    let mut message = Vec::new();
    for _ in 0..in_flight {
        codecs.0.encode(&payload, &mut message);
    }
    let length = message.len() / in_flight;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut ends = Vec::new();
    for pair in pairs {
        for stream in [&pair.client, &pair.remote] {
            stream.set_nonblocking(true)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(stream.as_fd(), EpollEvent::new(flags, ends.len() as u64))?;
            let role = match ends.len() % 2 {
                0 => Role::Client { decoder: Decoder::new(codecs.0), received: 0 },
                _ => Role::Remote(Echo::new(codecs.1)),
            };
            ends.push(End { stream, role, out: VecDeque::new() });
        }
    }
    let start = Instant::now();
    let (mut buffer, mut answer) = (vec![0u8; READ], Vec::new());
    let (mut messages, mut outstanding) = (0, in_flight * pairs.len());
    for end in ends.iter_mut().step_by(2) {
        end.send(&message)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    while outstanding > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        if count == 0 {
            let what = format!("stuck: {messages} messages came back, {outstanding} are in flight");
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
        for event in &events[..count] {
            let end = &mut ends[event.data() as usize];
            end.flush()?;
            // Read only after EPOLLIN: a read that finds nothing would be one more system call for every message.
            if !event.events().contains(EpollFlags::EPOLLIN) {
                continue;
            }
            let whole = end.read(&mut buffer, &mut answer, &payload)?;
            messages += whole as u64;
            if start.elapsed() < time {
                end.send(&message[..whole * length])?;
            } else {
                outstanding -= whole;
            }
        }
    }
    for pair in pairs {
        pair.client.set_nonblocking(false)?;
        pair.remote.set_nonblocking(false)?;
    }
    Ok(EchoResult { messages, time: start.elapsed() })
}

struct End<'a> {
    stream: &'a TcpStream,
    role: Role,
    /// Bytes that the socket has not taken yet.
    out: VecDeque<u8>,
}

enum Role {
    /// Sends messages; `received` counts the bytes of the current message that are back.
    Client { decoder: Decoder, received: usize },
    /// Sends everything back.
    Remote(Echo),
}

impl End<'_> {
    /// Reads until the socket is empty. Returns how many messages have come back complete.
    fn read(&mut self, buffer: &mut [u8], answer: &mut Vec<u8>, payload: &[u8]) -> io::Result<usize> {
        let mut whole = 0;
        loop {
            let read = match (&mut &*self.stream).read(buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "a connection has ended")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(whole),
                Err(error) => return Err(error),
            };
            match &mut self.role {
                Role::Client { decoder, received } => {
                    let mut right = true;
                    decoder.decode(&mut buffer[..read], |_, mut piece| {
                        while !piece.is_empty() {
                            let count = piece.len().min(payload.len() - *received);
                            right &= payload[*received..*received + count] == piece[..count];
                            *received = (*received + count) % payload.len();
                            whole += usize::from(*received == 0);
                            piece = &piece[count..];
                        }
                    })?;
                    if !right {
                        return Err(io::Error::other("wrong bytes came back"));
                    }
                }
                Role::Remote(echo) => {
                    answer.clear();
                    echo.answer(&mut buffer[..read], answer)?;
                    self.send(answer)?;
                }
            }
            if read < buffer.len() {
                return Ok(whole);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.out.is_empty() { write(self.stream, bytes)? } else { 0 };
        self.out.extend(&bytes[sent..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let sent = write(self.stream, self.out.as_slices().0)?;
            if sent == 0 {
                break;
            }
            self.out.drain(..sent);
        }
        Ok(())
    }
}

/// Writes until the socket takes no more; returns how much.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection_pair::{PairOpener, Via};
    use std::net::TcpListener;

    #[test]
    fn messages_go_there_and_back() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = PairOpener { via: Via::Direct, backend: &backend };
        let pairs = opener.open_many(3, "").unwrap();
        // A direct connection, so the remote decodes what the client encodes. The largest messages exceed the socket
        // buffers.
        let time = Duration::from_millis(20);
        for (size, in_flight) in [(1, 1), (128, 7), (4 << 20, 2)] {
            let echoed = echo(&pairs, (Codec::Raw, Codec::Raw), Load { size, in_flight, time }).unwrap();
            assert!(echoed.messages >= 3 * in_flight as u64 && echoed.time >= Duration::from_millis(20), "{echoed:?}");
        }
        drop(pairs[1].remote.shutdown(std::net::Shutdown::Both));
        assert!(echo(&pairs, (Codec::Raw, Codec::Raw), Load { size: 1, in_flight: 1, time }).is_err());
    }
}
