//! Messages there and back over bridged lanes: one thread speaks as every client and as every remote, so that it takes
//! one processor at most and leaves the rest to what it measures.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lab::random::Random;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::lane::Lane;
use super::speech::{Echo, Listener, Speech};

/// What is read at once.
const READ: usize = 128 * 1024;

/// What an echo run has come to.
#[derive(Clone, Copy, Debug)]
pub struct Echoed {
    /// Messages that came back whole.
    pub messages: u64,
    /// From the first write to the last message's return.
    pub time: Duration,
}

/// What goes to and fro.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a message.
    pub size: usize,
    /// Messages under way on a lane.
    pub flight: usize,
    /// For how long.
    pub time: Duration,
}

/// Sends messages over every lane, and a further one for each that is back. What comes back is compared. `speaks`: what
/// client and remote speak.
pub fn echo(lanes: &[Lane], speaks: (Speech, Speech), Load { size, flight, time }: Load) -> io::Result<Echoed> {
    // Text, of which no framing takes offence.
    let payload: Vec<u8> = Random::new(size as u64).bytes(size).iter().map(|byte| b' ' + byte % 95).collect();
    let mut message = Vec::new();
    for _ in 0..flight {
        speaks.0.encode(&payload, &mut message);
    }
    let length = message.len() / flight;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut ends = Vec::new();
    for lane in lanes {
        for stream in [&lane.client, &lane.remote] {
            stream.set_nonblocking(true)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(stream.as_fd(), EpollEvent::new(flags, ends.len() as u64))?;
            let role = match ends.len() % 2 {
                0 => Role::Client { listener: Listener::new(speaks.0), came: 0 },
                _ => Role::Remote(Echo::new(speaks.1)),
            };
            ends.push(End { stream, role, out: VecDeque::new() });
        }
    }
    let start = Instant::now();
    let (mut buffer, mut answer) = (vec![0u8; READ], Vec::new());
    let (mut messages, mut under_way) = (0, flight * lanes.len());
    for end in ends.iter_mut().step_by(2) {
        end.say(&message)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    while under_way > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        if count == 0 {
            let what = format!("stuck: {messages} messages came back, {under_way} are under way");
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
        for event in &events[..count] {
            let end = &mut ends[event.data() as usize];
            end.flush()?;
            // Only bytes that lie there are read: a call that finds none would be one for every message.
            if !event.events().contains(EpollFlags::EPOLLIN) {
                continue;
            }
            let whole = end.hear(&mut buffer, &mut answer, &payload)?;
            messages += whole as u64;
            if start.elapsed() < time {
                end.say(&message[..whole * length])?;
            } else {
                under_way -= whole;
            }
        }
    }
    for lane in lanes {
        lane.client.set_nonblocking(false)?;
        lane.remote.set_nonblocking(false)?;
    }
    Ok(Echoed { messages, time: start.elapsed() })
}

struct End<'a> {
    stream: &'a TcpStream,
    role: Role,
    /// What the socket has not taken yet.
    out: VecDeque<u8>,
}

enum Role {
    /// Sends, and counts what has come back of the message.
    Client { listener: Listener, came: usize },
    /// Sends back.
    Remote(Echo),
}

impl End<'_> {
    /// Reads until nothing is left. How many messages have come back whole.
    fn hear(&mut self, buffer: &mut [u8], answer: &mut Vec<u8>, payload: &[u8]) -> io::Result<usize> {
        let mut whole = 0;
        loop {
            let read = match (&mut &*self.stream).read(buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "a lane has ended")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(whole),
                Err(error) => return Err(error),
            };
            match &mut self.role {
                Role::Client { listener, came } => {
                    let mut right = true;
                    listener.hear(&mut buffer[..read], |_, mut piece| {
                        while !piece.is_empty() {
                            let count = piece.len().min(payload.len() - *came);
                            right &= payload[*came..*came + count] == piece[..count];
                            *came = (*came + count) % payload.len();
                            whole += usize::from(*came == 0);
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
                    self.say(answer)?;
                }
            }
            if read < buffer.len() {
                return Ok(whole);
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
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

/// Writes until the socket takes no more; how much.
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
    use super::super::lane::{Opener, Via};
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn messages_go_there_and_back() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = Opener { via: Via::Direct, backend: &backend };
        let lanes = opener.open_many(3, "").unwrap();
        // Directly, so the remote hears what the client says; large ones do not fit into the sockets.
        let time = Duration::from_millis(20);
        for (size, flight) in [(1, 1), (128, 7), (4 << 20, 2)] {
            let echoed = echo(&lanes, (Speech::Raw, Speech::Raw), Load { size, flight, time }).unwrap();
            assert!(echoed.messages >= 3 * flight as u64 && echoed.time >= Duration::from_millis(20), "{echoed:?}");
        }
        drop(lanes[1].remote.shutdown(std::net::Shutdown::Both));
        assert!(echo(&lanes, (Speech::Raw, Speech::Raw), Load { size: 1, flight: 1, time }).is_err());
    }
}
