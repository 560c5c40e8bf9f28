//! An endless series of TLS handshakes that plugins have the daemon make.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::helper_process::HelperProcess;
use crate::setup_exchange::exchange;
use crate::tls_handshakes::Server;

/// A running flood. Its plugins and its server are a process of their own.
pub struct HandshakeFlood {
    process: HelperProcess,
    start: Instant,
}

impl HandshakeFlood {
    /// Starts `concurrent` plugins of the daemon on `port`, and returns when the first handshake is done.
    pub fn start(port: u16, concurrent: usize) -> io::Result<Self> {
        let mut process = HelperProcess::start(&["flood", &port.to_string(), &concurrent.to_string()])?;
        process.line()?;
        Ok(Self { process, start: Instant::now() })
    }

    /// Ends the flood; returns handshakes a second.
    pub fn finish(self) -> io::Result<f64> {
        let time = self.start.elapsed();
        Ok(self.process.finish("")? as f64 / time.as_secs_f64())
    }
}

/// The helper process of a [`HandshakeFlood`]: makes handshakes until its standard input ends, then prints their
/// number.
pub fn run_flood(port: u16, concurrent: usize) -> io::Result<()> {
    let server = Server::start(concurrent + 1)?;
    let conn = server.conn(&server.pin());
    exchange(port, &conn)?;
    println!("started");
    let before = server.full_handshakes()?;
    let stop = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                exchange(port, &conn)?;
            }
            io::Result::Ok(())
        };
        let plugins: Vec<_> = (0..concurrent).map(|_| scope.spawn(work)).collect();
        io::stdin().read_to_end(&mut Vec::new())?;
        let after = server.full_handshakes()?;
        stop.store(true, Ordering::Relaxed);
        plugins
            .into_iter()
            .try_for_each(|plugin| plugin.join().map_err(|_| io::Error::other("a plugin panicked"))?)?;
        io::Result::Ok(after - before)
    })?;
    println!("{count}");
    Ok(())
}
