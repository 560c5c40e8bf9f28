//! The setup exchange of a plugin: connect, send CONN, read the answer, close.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::tls_handshakes::{HandshakeStats, LIMIT, thread_cpu_time};

/// Connects a plugin to `port`. Its close resets the connection, so that no port stays in TIME_WAIT.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let plugin = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    socket2::SockRef::from(&plugin).set_linger(Some(Duration::ZERO))?;
    Ok(plugin)
}

/// Repeats the exchange on `plugins` connections at once for `time`. The daemon listens on `port`; `conn` is the line
/// that each plugin sends. One thread drives all plugins, so that the load takes little from what is measured.
pub fn exchange_many(port: u16, conn: &str, plugins: usize, time: Duration) -> io::Result<HandshakeStats> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let begin = |at: usize| {
        let mut stream = connect(port)?;
        // A plugin may send its command before it has read the greeting.
        stream.write_all(conn.as_bytes())?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        io::Result::Ok((stream, Vec::new()))
    };
    let (start, cpu) = (Instant::now(), thread_cpu_time());
    let mut slots = (0..plugins).map(|at| begin(at).map(Some)).collect::<io::Result<Vec<_>>>()?;
    let mut count = 0;
    let mut events = [EpollEvent::empty(); 64];
    while slots.iter().any(Option::is_some) {
        let ready = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        if ready == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a plugin gets no answer"));
        }
        for event in &events[..ready] {
            let at = event.data() as usize;
            let Some((stream, received)) = &mut slots[at] else { continue };
            let mut buffer = [0; 256];
            let read = stream.read(&mut buffer)?;
            received.extend_from_slice(&buffer[..read]);
            if read > 0 && line_count(received) < 2 {
                continue;
            }
            check_connected(received)?;
            count += 1;
            // Closed before the next connects: the kernel would hand out the same descriptor again.
            slots[at] = None;
            if start.elapsed() < time {
                slots[at] = Some(begin(at)?);
            }
        }
    }
    Ok(HandshakeStats { count, time: start.elapsed(), cpu: thread_cpu_time().saturating_sub(cpu) })
}

/// Makes one exchange from beginning to end.
pub fn exchange(port: u16, conn: &str) -> io::Result<()> {
    let mut plugin = connect(port)?;
    // A plugin may send its command before it has read the greeting.
    plugin.write_all(conn.as_bytes())?;
    check_connected(&read_lines(&mut plugin, 2)?)
}

/// Reads `count` lines, or until the end of the stream.
pub fn read_lines(plugin: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    while line_count(&received) < count {
        let mut buffer = [0; 256];
        match plugin.read(&mut buffer)? {
            0 => break,
            read => received.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(received)
}

/// An error unless the last line of `received` is `OK CONN`.
pub fn check_connected(received: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(received);
    let last = text.lines().last().unwrap_or_default();
    if last.starts_with("OK CONN ") { Ok(()) } else { Err(io::Error::other(text.into_owned())) }
}

fn line_count(received: &[u8]) -> usize {
    received.iter().filter(|byte| **byte == b'\n').count()
}
