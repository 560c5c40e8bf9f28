//! The load itself: bulk, ping-pong, connects, held connections. One thread drives both ends of all
//! lanes, so that the generator takes one processor at most and leaves the rest to what it measures.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use lab::random::Random;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use super::lane::{Lane, Opener};

/// Which way bulk data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the remote.
    Up,
    /// From the remote to the client.
    Down,
}

/// What a bulk run moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first write to the last byte read.
    pub time: Duration,
}

/// How far the senders may be ahead of the receivers, all lanes together, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// 1 MiB (256 KiB a lane at least): what is under way stays in the processor's cache, the relay
    /// sets the pace, and the figures hardly scatter.
    Bounded,
    /// As far as the kernel lets them: tens of MiB may queue up before a relay that is slower than
    /// the sender, and every byte it touches is then a cache miss.
    Deep,
}

/// Sends on all lanes for `time`, then waits until everything has arrived.
///
/// The receiving end lets the kernel throw the bytes away (MSG_TRUNC), for every way through alike:
/// that they are the right ones is looked at elsewhere, and the generator shall not be the slowest.
pub fn bulk(lanes: &[Lane], way: Way, flight: Flight, time: Duration) -> io::Result<Moved> {
    let data = Random::new(42).bytes(CHUNK);
    let mut trash = vec![0u8; 4 * CHUNK];
    let ahead = match flight {
        Flight::Bounded => (1024 * 1024 / lanes.len().max(1)).max(CHUNK) as u64,
        Flight::Deep => u64::MAX,
    };
    let mut streams: Vec<_> = lanes.iter().map(|lane| Stream::new(lane, way)).collect();
    let start = Instant::now();
    loop {
        let sending = start.elapsed() < time;
        if !sending && streams.iter().all(|s| s.sent == s.received) {
            break;
        }
        let mut progress = false;
        for stream in &mut streams {
            if sending && stream.in_flight() < ahead {
                let most = (ahead - stream.in_flight()).min(CHUNK as u64) as usize;
                progress |= stream.send(&data[..most])?;
            }
            progress |= stream.receive(&mut trash)?;
        }
        if !progress {
            wait(&streams, sending, ahead)?;
        }
    }
    let bytes = streams.iter().map(|s| s.received).sum();
    Ok(Moved { bytes, time: start.elapsed() })
}

/// What is written at once.
const CHUNK: usize = 256 * 1024;

/// One lane in one direction.
struct Stream<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    sent: u64,
    received: u64,
}

impl<'a> Stream<'a> {
    fn new(lane: &'a Lane, way: Way) -> Self {
        let (from, to) = match way {
            Way::Up => (&lane.client, &lane.remote),
            Way::Down => (&lane.remote, &lane.client),
        };
        Stream { from, to, sent: 0, received: 0 }
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.received
    }

    /// Sends what goes at once; whether anything did.
    fn send(&mut self, data: &[u8]) -> io::Result<bool> {
        match send(self.from.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => self.sent += n as u64,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        Ok(true)
    }

    /// Throws away what has come; whether anything had.
    fn receive(&mut self, trash: &mut [u8]) -> io::Result<bool> {
        match recv(self.to.as_raw_fd(), trash, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "a lane has ended")),
            Ok(n) => {
                self.received += n as u64;
                Ok(true)
            }
            Err(Errno::EAGAIN) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Waits until something can be read, or written by who may.
fn wait(streams: &[Stream], sending: bool, ahead: u64) -> io::Result<()> {
    let mut fds: Vec<_> = streams.iter().map(|s| PollFd::new(s.to.as_fd(), PollFlags::POLLIN)).collect();
    let may_send = streams.iter().filter(|s| sending && s.in_flight() < ahead);
    fds.extend(may_send.map(|s| PollFd::new(s.from.as_fd(), PollFlags::POLLOUT)));
    if poll(&mut fds, PollTimeout::from(10_000u16))? == 0 {
        let (sent, received) = streams.iter().fold((0, 0), |(sent, got), s| (sent + s.sent, got + s.received));
        let what = format!("stuck: {received} of {sent} bytes arrived");
        return Err(io::Error::new(ErrorKind::TimedOut, what));
    }
    Ok(())
}

/// Sends `size` bytes there and back `count` times; the round trips.
pub fn ping_pong(lane: &mut Lane, size: usize, count: usize) -> io::Result<Vec<Duration>> {
    // The first ones warm up caches and windows.
    let warm_up = count / 20 + 10;
    let mut times = ping_pong_while(lane, size, |made| made < count + warm_up)?;
    Ok(times.split_off(warm_up))
}

/// Sends `size` bytes there and back as long as `goes_on` says, which is told how often that was done; the round trips.
pub fn ping_pong_while(lane: &mut Lane, size: usize, goes_on: impl Fn(usize) -> bool) -> io::Result<Vec<Duration>> {
    let data = Random::new(size as u64).bytes(size);
    let mut got = vec![0u8; size];
    let mut times = Vec::new();
    while goes_on(times.len()) {
        let start = Instant::now();
        lane.client.write_all(&data)?;
        lane.remote.read_exact(&mut got)?;
        lane.remote.write_all(&got)?;
        lane.client.read_exact(&mut got)?;
        times.push(start.elapsed());
    }
    if !times.is_empty() && got != data {
        return Err(io::Error::other("wrong bytes came back"));
    }
    Ok(times)
}

/// A request in two small writes 0.3 ms apart, answered when complete, as careless plugins send it.
/// Where somebody waits for an acknowledgement before he passes the second on, it shows. The times include the gap.
pub fn two_writes(lane: &mut Lane, count: usize) -> io::Result<Vec<Duration>> {
    const GAP: Duration = Duration::from_micros(300);
    let half = [b'x'; 32];
    let mut got = [0u8; 64];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        lane.client.write_all(&half)?;
        while start.elapsed() < GAP {
            std::hint::spin_loop();
        }
        lane.client.write_all(&half)?;
        lane.remote.read_exact(&mut got)?;
        lane.remote.write_all(&got)?;
        lane.client.read_exact(&mut got)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Opens `count` lanes one after another, the whole dialogue included; lanes a second, and the lanes.
pub fn connects(opener: &Opener, count: usize) -> io::Result<(f64, Vec<Lane>)> {
    let start = Instant::now();
    let lanes = opener.open_many(count, "")?;
    Ok((count as f64 / start.elapsed().as_secs_f64(), lanes))
}

/// Sends `size` bytes of its own through every lane, both ways, and compares what arrives.
pub fn check_all(lanes: &mut [Lane], size: usize) -> io::Result<()> {
    let mut got = vec![0u8; size];
    for (n, lane) in lanes.iter_mut().enumerate() {
        for (seed, way) in [(2 * n as u64, Way::Up), (2 * n as u64 + 1, Way::Down)] {
            let data = Random::new(seed).bytes(size);
            let (from, to) = match way {
                Way::Up => (&mut lane.client, &mut lane.remote),
                Way::Down => (&mut lane.remote, &mut lane.client),
            };
            from.write_all(&data)?;
            to.read_exact(&mut got)?;
            if got != data {
                return Err(io::Error::other(format!("wrong bytes on connection {n}, {way:?}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lane::Via;
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn all_loads_run_directly() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = Opener { via: Via::Direct, backend: &backend };
        let (rate, mut lanes) = connects(&opener, 4).unwrap();
        assert!(rate > 0.0);
        check_all(&mut lanes, 1000).unwrap();
        for (way, flight) in [(Way::Up, Flight::Bounded), (Way::Down, Flight::Deep)] {
            let moved = bulk(&lanes, way, flight, Duration::from_millis(30)).unwrap();
            assert!(moved.bytes > 1_000_000 && moved.time >= Duration::from_millis(30));
        }
        assert_eq!(ping_pong(&mut lanes[0], 64, 50).unwrap().len(), 50);
        let times = two_writes(&mut lanes[1], 5).unwrap();
        assert!(times.iter().all(|t| *t >= Duration::from_micros(300)));
    }

    #[test]
    fn a_lane_that_ends_is_an_error() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let opener = Opener { via: Via::Direct, backend: &backend };
        let lanes = opener.open_many(1, "").unwrap();
        lanes[0].client.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(bulk(&lanes, Way::Up, Flight::Deep, Duration::from_millis(30)).is_err());
    }
}
