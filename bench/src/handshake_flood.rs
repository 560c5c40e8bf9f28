//! Handshakes without end that a daemon makes.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::aside::Aside;
use super::dialogues::dialogue;
use super::handshakes::Server;

/// Handshakes without end. Plugins and server are a process of their own.
pub struct Storm {
    process: Aside,
    start: Instant,
}

impl Storm {
    /// So many at once through the daemon on `port`; the first is done.
    pub fn start(port: u16, at_once: usize) -> io::Result<Self> {
        let mut process = Aside::start(&["storm", &port.to_string(), &at_once.to_string()])?;
        process.line()?;
        Ok(Self { process, start: Instant::now() })
    }

    /// Ends it; handshakes a second.
    pub fn end(self) -> io::Result<f64> {
        let time = self.start.elapsed();
        Ok(self.process.end("")? as f64 / time.as_secs_f64())
    }
}

/// What the process of a [`Storm`] does, until its standard input ends; then it tells how many there were.
pub fn storm(port: u16, at_once: usize) -> io::Result<()> {
    let server = Server::start(at_once + 1)?;
    let conn = server.conn(&server.pin());
    dialogue(port, &conn)?;
    println!("begun");
    let begun = server.made()?;
    let ended = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let work = || {
            while !ended.load(Ordering::Relaxed) {
                dialogue(port, &conn)?;
            }
            io::Result::Ok(())
        };
        let plugins: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        io::stdin().read_to_end(&mut Vec::new())?;
        let made = server.made()?;
        ended.store(true, Ordering::Relaxed);
        plugins
            .into_iter()
            .try_for_each(|plugin| plugin.join().map_err(|_| io::Error::other("a plugin panicked"))?)?;
        io::Result::Ok(made - begun)
    })?;
    println!("{made}");
    Ok(())
}
