//! What an open page of the status costs: the processor time of a daemon with 500 connections that talk, with a client of the
//! page and without.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::websocket::{frame_of, masked_frame_of};

use crate::connection_pair::{ConnectionPair, RemoteKind};
use crate::report::{Report, Unit};
use crate::run::{Bench, settle};
use crate::targets::{Kind, Target};

/// Connections, of which every second one is a WebSocket.
const CONNECTIONS: usize = 500;
/// Time between two messages: 100 a second, each from the remote of another connection.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(10);
/// Time between two frames of the page's client.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(10);
const MESSAGE: [u8; 64] = [b'm'; 64];

impl Bench {
    /// Processor time with a page open, and without.
    pub(crate) fn status_page(&mut self) -> io::Result<()> {
        let time = Duration::from_secs(if self.quick { 20 } else { 60 });
        eprintln!("{CONNECTIONS} connections, with the page of the status and without");
        for kind in self.kinds.clone().iter().filter(|kind| matches!(kind, Kind::Ours { .. })) {
            let (target, port) = Target::start_with_status(kind)?;
            self.attempt(&target, "status page", |report| measure(&target, port, time, report));
        }
        Ok(())
    }
}

fn measure(target: &Target, port: u16, time: Duration, report: &mut Report) -> io::Result<()> {
    let kind_of = |number| if number % 2 == 0 { RemoteKind::Plain } else { RemoteKind::WebSocket };
    let pairs = (0..CONNECTIONS).map(|number| target.opener().open_to(&kind_of(number), ""));
    let pairs = pairs.collect::<io::Result<Vec<_>>>()?;
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&pairs, &ends));
        let measured = (|| -> io::Result<(f64, f64, f64, f64)> {
            // Without a page twice: the difference of the two shows how exact this is.
            let (before, _) = share_of(target, time, None)?;
            let page = open_page(port)?;
            settle();
            let (with, updates) = share_of(target, time, Some(&page))?;
            page.shutdown(Shutdown::Both)?;
            settle();
            let (after, _) = share_of(target, time, None)?;
            Ok((before, with, after, updates))
        })();
        ends.store(true, Ordering::Relaxed);
        talking.join().map_err(|_| io::Error::other("the load has failed"))??;
        let (before, with, after, updates) = measured?;
        let column = target.kind.name();
        report.add("500 connections, no page, CPU of a core", Unit::Percent, column, before);
        report.add("500 connections, no page again, CPU of a core", Unit::Percent, column, after);
        report.add("500 connections, a page, CPU of a core", Unit::Percent, column, with);
        report.add("status page, CPU of a core", Unit::Percent, column, with - (before + after) / 2.0);
        report.add("status page, kB a second", Unit::Kilobytes, column, updates / 1024.0);
        Ok(())
    })
}

/// Has one remote after the other say something, and its plugin read it, until `ends`.
fn talk(pairs: &[ConnectionPair], ends: &AtomicBool) -> io::Result<()> {
    let (start, mut count) = (Instant::now(), 0);
    let frame = frame_of(0x82, &MESSAGE);
    let header = format!("BINA {}\n", MESSAGE.len());
    let mut received = vec![0; header.len() + MESSAGE.len()];
    while !ends.load(Ordering::Relaxed) {
        let number = count as usize % pairs.len();
        let (mut client, mut remote) = (&pairs[number].client, &pairs[number].remote);
        let (bytes, expected) =
            if number.is_multiple_of(2) { (&MESSAGE[..], MESSAGE.len()) } else { (&frame[..], received.len()) };
        remote.write_all(bytes)?;
        client.read_exact(&mut received[..expected])?;
        count += 1;
        let due = start + MESSAGE_INTERVAL * count;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Opens the WebSocket of the page.
fn open_page(port: u16) -> io::Result<TcpStream> {
    let mut page = TcpStream::connect(("127.0.0.1", port))?;
    page.set_read_timeout(Some(Duration::from_millis(100)))?;
    let request = format!(
        "GET /status.json HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    page.write_all(request.as_bytes())?;
    Ok(page)
}

/// Percent of one core that the daemon takes for `time`, and how many bytes a second `page` reads meanwhile.
fn share_of(target: &Target, time: Duration, page: Option<&TcpStream>) -> io::Result<(f64, f64)> {
    let unknown = || io::Error::other("the daemon has ended");
    let (start, before) = (Instant::now(), target.cpu_time().ok_or_else(unknown)?);
    let (mut bytes, mut buffer, mut alive) = (0, vec![0; 1 << 16], Duration::ZERO);
    while start.elapsed() < time {
        if let Some(mut page) = page
            && start.elapsed() >= alive
        {
            // The daemon ends a client that is silent for long.
            page.write_all(&masked_frame_of(0x8a, b""))?;
            alive += SIGN_OF_LIFE_INTERVAL;
        }
        match page.map(|mut page| page.read(&mut buffer)) {
            None => std::thread::sleep(time.saturating_sub(start.elapsed())),
            Some(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Ok(read)) => bytes += read,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => return Err(error),
        }
    }
    let (spent, took) = (target.cpu_time().ok_or_else(unknown)?.saturating_sub(before), start.elapsed());
    Ok((100.0 * spent.as_secs_f64() / took.as_secs_f64(), bytes as f64 / took.as_secs_f64()))
}
