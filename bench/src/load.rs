//! The loads over plain connections: bulk, ping-pong, connects, held connections. One thread drives both ends of all
//! pairs, so that the load takes one processor at most and leaves the rest to what is measured.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use testkit::random::Random;

use crate::connection_pair::{ConnectionPair, PairOpener};

/// The direction of bulk data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the plugin to the remote.
    ToRemote,
    /// From the remote to the plugin.
    ToPlugin,
}

/// The result of a bulk run.
#[derive(Clone, Copy, Debug)]
pub struct Transferred {
    /// Bytes received.
    pub bytes: u64,
    /// From the first write to the last byte read.
    pub time: Duration,
}

/// How many bytes the senders may be ahead of the receivers, over all pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueDepth {
    /// 1 MiB, and at least 256 KiB for each pair. Data in flight stays in the processor's cache, the relay is the
    /// bottleneck, and the figures scatter little.
    Bounded,
    /// Limited by the kernel alone: tens of MiB may queue before a relay that is slower than the sender, so that every
    /// byte that the relay touches is a cache miss.
    Unbounded,
}

/// Sends on all pairs for `time`, then waits until everything has arrived.
///
/// The receiver has the kernel discard the bytes (MSG_TRUNC), for every relay alike, so that the load is not the
/// bottleneck. [`check_all`] compares contents instead.
pub fn bulk(
    pairs: &[ConnectionPair],
    direction: Direction,
    depth: QueueDepth,
    time: Duration,
) -> io::Result<Transferred> {
    let data = Random::new(42).bytes(CHUNK);
    let mut discarded = vec![0u8; 4 * CHUNK];
    let ahead = match depth {
        QueueDepth::Bounded => (1024 * 1024 / pairs.len().max(1)).max(CHUNK) as u64,
        QueueDepth::Unbounded => u64::MAX,
    };
    let mut streams: Vec<_> = pairs.iter().map(|pair| Stream::new(pair, direction)).collect();
    let start = Instant::now();
    loop {
        let sending = start.elapsed() < time;
        if !sending && streams.iter().all(|s| s.sent == s.received) {
            break;
        }
        let mut progress = false;
        for stream in &mut streams {
            if sending && stream.in_flight() < ahead {
                let max = (ahead - stream.in_flight()).min(CHUNK as u64) as usize;
                progress |= stream.send(&data[..max])?;
            }
            progress |= stream.receive(&mut discarded)?;
        }
        if !progress {
            wait(&streams, sending, ahead)?;
        }
    }
    let bytes = streams.iter().map(|s| s.received).sum();
    Ok(Transferred { bytes, time: start.elapsed() })
}

/// Bytes of one send(2).
const CHUNK: usize = 256 * 1024;

/// One direction of a pair.
struct Stream<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    sent: u64,
    received: u64,
}

impl<'a> Stream<'a> {
    fn new(pair: &'a ConnectionPair, direction: Direction) -> Self {
        let (from, to) = match direction {
            Direction::ToRemote => (&pair.client, &pair.remote),
            Direction::ToPlugin => (&pair.remote, &pair.client),
        };
        Stream { from, to, sent: 0, received: 0 }
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.received
    }

    /// Sends what the socket takes without blocking. True if it took anything.
    fn send(&mut self, data: &[u8]) -> io::Result<bool> {
        match send(self.from.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => self.sent += n as u64,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        Ok(true)
    }

    /// Discards what has arrived. True if there was anything.
    fn receive(&mut self, discarded: &mut [u8]) -> io::Result<bool> {
        match recv(self.to.as_raw_fd(), discarded, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "a connection has ended")),
            Ok(n) => {
                self.received += n as u64;
                Ok(true)
            }
            Err(Errno::EAGAIN) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Waits until a receiver has data, or a sender that is not too far ahead can write.
fn wait(streams: &[Stream], sending: bool, ahead: u64) -> io::Result<()> {
    let mut fds: Vec<_> = streams.iter().map(|s| PollFd::new(s.to.as_fd(), PollFlags::POLLIN)).collect();
    let sendable = streams.iter().filter(|s| sending && s.in_flight() < ahead);
    fds.extend(sendable.map(|s| PollFd::new(s.from.as_fd(), PollFlags::POLLOUT)));
    if poll(&mut fds, PollTimeout::from(10_000u16))? == 0 {
        let (sent, received) = streams.iter().fold((0, 0), |(sent, got), s| (sent + s.sent, got + s.received));
        let what = format!("stuck: {received} of {sent} bytes arrived");
        return Err(io::Error::new(ErrorKind::TimedOut, what));
    }
    Ok(())
}

/// Sends `size` bytes there and back `count` times; returns the round-trip times.
pub fn ping_pong(pair: &mut ConnectionPair, size: usize, count: usize) -> io::Result<Vec<Duration>> {
    // The first round trips warm up caches and TCP windows.
    let warm_up = count / 20 + 10;
    let mut times = ping_pong_while(pair, size, |done| done < count + warm_up)?;
    Ok(times.split_off(warm_up))
}

/// Sends `size` bytes there and back while `proceed`, called with the number of round trips so far, returns true.
pub fn ping_pong_while(
    pair: &mut ConnectionPair,
    size: usize,
    proceed: impl Fn(usize) -> bool,
) -> io::Result<Vec<Duration>> {
    let data = Random::new(size as u64).bytes(size);
    let mut got = vec![0u8; size];
    let mut times = Vec::new();
    while proceed(times.len()) {
        let start = Instant::now();
        pair.client.write_all(&data)?;
        pair.remote.read_exact(&mut got)?;
        pair.remote.write_all(&got)?;
        pair.client.read_exact(&mut got)?;
        times.push(start.elapsed());
    }
    if !times.is_empty() && got != data {
        return Err(io::Error::other("wrong bytes came back"));
    }
    Ok(times)
}

/// Sends a request in two small writes 0.3 ms apart, as careless plugins do, and answers it when it is complete. A
/// relay that holds back the second write until the first is acknowledged shows here. The times include the gap.
pub fn two_writes(pair: &mut ConnectionPair, count: usize) -> io::Result<Vec<Duration>> {
    const GAP: Duration = Duration::from_micros(300);
    let half = [b'x'; 32];
    let mut got = [0u8; 64];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        pair.client.write_all(&half)?;
        while start.elapsed() < GAP {
            std::hint::spin_loop();
        }
        pair.client.write_all(&half)?;
        pair.remote.read_exact(&mut got)?;
        pair.remote.write_all(&got)?;
        pair.client.read_exact(&mut got)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Opens `count` pairs one after another, with the whole setup exchange; returns pairs a second, and the pairs.
pub fn connects(opener: &PairOpener, count: usize) -> io::Result<(f64, Vec<ConnectionPair>)> {
    let start = Instant::now();
    let pairs = opener.open_many(count, "")?;
    Ok((count as f64 / start.elapsed().as_secs_f64(), pairs))
}

/// Sends `size` distinct bytes through every pair in both directions, and compares what arrives.
pub fn check_all(pairs: &mut [ConnectionPair], size: usize) -> io::Result<()> {
    let mut got = vec![0u8; size];
    for (n, pair) in pairs.iter_mut().enumerate() {
        for (seed, direction) in [(2 * n as u64, Direction::ToRemote), (2 * n as u64 + 1, Direction::ToPlugin)] {
            let data = Random::new(seed).bytes(size);
            let (from, to) = match direction {
                Direction::ToRemote => (&mut pair.client, &mut pair.remote),
                Direction::ToPlugin => (&mut pair.remote, &mut pair.client),
            };
            from.write_all(&data)?;
            to.read_exact(&mut got)?;
            if got != data {
                return Err(io::Error::other(format!("wrong bytes on connection {n}, {direction:?}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection_pair::Via;
    use std::net::TcpListener;

    #[test]
    fn all_loads_run_over_direct_connections() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = PairOpener { via: Via::Direct, backend: &backend };
        let (rate, mut pairs) = connects(&opener, 4).unwrap();
        assert!(rate > 0.0);
        check_all(&mut pairs, 1000).unwrap();
        for (direction, depth) in
            [(Direction::ToRemote, QueueDepth::Bounded), (Direction::ToPlugin, QueueDepth::Unbounded)]
        {
            let transferred = bulk(&pairs, direction, depth, Duration::from_millis(30)).unwrap();
            assert!(transferred.bytes > 1_000_000 && transferred.time >= Duration::from_millis(30));
        }
        assert_eq!(ping_pong(&mut pairs[0], 64, 50).unwrap().len(), 50);
        let times = two_writes(&mut pairs[1], 5).unwrap();
        assert!(times.iter().all(|t| *t >= Duration::from_micros(300)));
    }

    #[test]
    fn a_closed_connection_is_an_error() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = PairOpener { via: Via::Direct, backend: &backend };
        let pairs = opener.open_many(1, "").unwrap();
        pairs[0].client.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(bulk(&pairs, Direction::ToRemote, QueueDepth::Unbounded, Duration::from_millis(30)).is_err());
    }
}
