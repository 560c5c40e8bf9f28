//! Plugins that have handshakes made: they connect, say CONN, and go as soon as they know that it is done.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::handshakes::{LIMIT, Made, own_cpu};

/// A plugin that has just connected to `port`. It will leave no port that is kept for what comes too late.
pub fn come(port: u16) -> io::Result<TcpStream> {
    let plugin = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    socket2::SockRef::from(&plugin).set_linger(Some(Duration::ZERO))?;
    Ok(plugin)
}

/// Handshakes that who listens on `port` makes for so many plugins at once, for `time`. `conn`: what they say. One thread
/// is all the plugins, so that it takes as little as can be from what is measured.
pub fn by_dialogues(port: u16, conn: &str, plugins: usize, time: Duration) -> io::Result<Made> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let come = |at: usize| {
        let mut stream = come(port)?;
        // What a plugin says need not wait for the greeting.
        stream.write_all(conn.as_bytes())?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        io::Result::Ok((stream, Vec::new()))
    };
    let (start, cpu) = (Instant::now(), own_cpu());
    let mut there = (0..plugins).map(|at| come(at).map(Some)).collect::<io::Result<Vec<_>>>()?;
    let mut count = 0;
    let mut events = [EpollEvent::empty(); 64];
    while there.iter().any(Option::is_some) {
        let ready = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        if ready == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a plugin gets no answer"));
        }
        for event in &events[..ready] {
            let at = event.data() as usize;
            let Some((stream, heard)) = &mut there[at] else { continue };
            let mut buffer = [0; 256];
            let read = stream.read(&mut buffer)?;
            heard.extend_from_slice(&buffer[..read]);
            if read > 0 && lines(heard) < 2 {
                continue;
            }
            check(heard)?;
            count += 1;
            // Before another comes, since both would be the same descriptor.
            there[at] = None;
            if start.elapsed() < time {
                there[at] = Some(come(at)?);
            }
        }
    }
    Ok(Made { count, time: start.elapsed(), cpu: own_cpu().saturating_sub(cpu) })
}

/// A plugin's dialogue from its beginning to its end.
pub fn dialogue(port: u16, conn: &str) -> io::Result<()> {
    let mut plugin = come(port)?;
    // What a plugin says need not wait for the greeting.
    plugin.write_all(conn.as_bytes())?;
    check(&hear(&mut plugin, 2)?)
}

/// Reads so many lines, or until the end.
pub fn hear(plugin: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    while lines(&heard) < count {
        let mut buffer = [0; 256];
        match plugin.read(&mut buffer)? {
            0 => break,
            read => heard.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(heard)
}

/// What the daemon has said: last of all, that the connection stands.
pub fn check(heard: &[u8]) -> io::Result<()> {
    let said = String::from_utf8_lossy(heard);
    let last = said.lines().last().unwrap_or_default();
    if last.starts_with("OK CONN ") { Ok(()) } else { Err(io::Error::other(said.into_owned())) }
}

fn lines(heard: &[u8]) -> usize {
    heard.iter().filter(|byte| **byte == b'\n').count()
}
