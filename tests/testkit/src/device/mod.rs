//! Remotes: TCP devices that echo, read, send, tick or stay silent, which tests can also drive directly, and a UDP
//! echo.
//!
//! A device owns its listener, an accepting thread and up to two threads for each connection.

mod udp;

pub use udp::UdpEcho;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ports::Reserved;
use crate::random::{Checksum, Random};

/// What a device does with its connections.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing: [`Device::accept`] returns the connection, and the test drives it.
    Manual,
    /// Keeps the connection open, reads nothing, and sends only what [`Device::push`] is given.
    Silent,
    /// Sends back what it reads; ends its stream when the peer's ends.
    Echo,
    /// Reads everything into a checksum (see [`Device::received`]); ends its stream when the peer's ends.
    Sink,
    /// Sends a line `tick <n>\n` at this interval, and reads everything into a checksum.
    Ticking(Duration),
    /// Sends the first `bytes` of `Random::new(seed)`, then ends its stream; reads everything into a checksum.
    Source {
        /// The number of bytes to send.
        bytes: u64,
        /// Their seed.
        seed: u64,
    },
}

/// A listening device. Dropping it closes its connections.
pub struct Device {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    kind: Kind,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Connections in order of arrival; those of a Manual device until [`Device::accept`] returns them.
    arrived: VecDeque<Arc<TcpStream>>,
    open: Vec<Arc<TcpStream>>,
    accepted: usize,
    finished: usize,
    received: Checksum,
    ended: bool,
}

impl Device {
    /// Starts a device on a free port of 127.0.0.1.
    pub fn start(kind: Kind) -> Device {
        let reserved = Reserved::new().expect("no port for a device");
        Device::listen(reserved, kind).expect("a device cannot listen")
    }

    /// Starts a device on a free port of ::1; None if the machine has no IPv6.
    pub fn start_v6(kind: Kind) -> Option<Device> {
        let reserved = Reserved::on(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).ok()?;
        Device::listen(reserved, kind).ok()
    }

    /// Starts a device on `addr`.
    pub fn start_at(addr: SocketAddr, kind: Kind) -> io::Result<Device> {
        Device::listen(Reserved::on(addr)?, kind)
    }

    fn listen(reserved: Reserved, kind: Kind) -> io::Result<Device> {
        let listener = reserved.listen()?;
        let shared = Arc::new(Shared { kind, state: Mutex::default(), changed: Condvar::new() });
        let accepting = listener.try_clone()?;
        let for_thread = shared.clone();
        let acceptor =
            thread::Builder::new().name("device".into()).spawn(move || accept_all(&accepting, &for_thread))?;
        Ok(Device { shared, addr: reserved.addr(), listener, acceptor: Some(acceptor) })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Its address in CONN's notation: `127.0.0.1:1234` or `[::1]:1234`.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the next connection that is still open, in order of arrival. The stream of a Manual device is the only
    /// handle: dropping it closes the connection. The other kinds keep the connection, and this is a second handle.
    ///
    /// # Panics
    /// If none arrives in time.
    #[track_caller]
    pub fn accept(&self, timeout: Duration) -> TcpStream {
        self.try_accept(timeout).unwrap_or_else(|| panic!("no connection to the device within {timeout:?}"))
    }

    /// As [`Device::accept`], but returns None if no connection arrives in time.
    fn try_accept(&self, timeout: Duration) -> Option<TcpStream> {
        let mut state = self.shared.wait(timeout, |state| !state.arrived.is_empty());
        let stream = state.arrived.pop_front()?;
        drop(state);
        // A Manual device holds no other handle, so unwrap returns the only one.
        match Arc::try_unwrap(stream) {
            Ok(only) => Some(only),
            Err(shared) => shared.try_clone().ok(),
        }
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Waits for `count` connections since the start. False on timeout.
    pub fn wait_accepted(&self, count: usize, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| state.accepted >= count).accepted >= count
    }

    /// Waits until `count` connections have ended, with an end of stream or a read error. False on timeout. Manual and
    /// Silent devices do not read, so they never count.
    pub fn wait_finished(&self, count: usize, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| state.finished >= count).finished >= count
    }

    /// The checksum of all bytes read from all connections, in the order read.
    pub fn received(&self) -> Checksum {
        self.shared.lock().received
    }

    /// Waits until at least `bytes` bytes were read, and returns the checksum.
    ///
    /// # Panics
    /// If they do not arrive in time.
    #[track_caller]
    pub fn wait_received(&self, bytes: u64, timeout: Duration) -> Checksum {
        let sum = self.shared.wait(timeout, |state| state.received.bytes >= bytes).received;
        assert!(sum.bytes >= bytes, "the device read {} of {bytes} bytes within {timeout:?}", sum.bytes);
        sum
    }

    /// Sends `data` on every open connection, and returns how many took it.
    pub fn push(&self, data: &[u8]) -> usize {
        let open = self.shared.lock().open.clone();
        open.iter().filter(|stream| (&***stream).write_all(data).is_ok()).count()
    }

    /// Shuts down all connections in both directions. Later connections are still accepted.
    fn close_all(&self) {
        for stream in self.shared.take_connections() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Resets all connections (RST), as a restarted device does. A connection that a thread is reading is reset as soon
    /// as that thread has released it.
    pub fn reset_all(&self) {
        for stream in self.shared.take_connections() {
            reset(&stream);
        }
    }
}

/// Has the kernel send a reset when the last handle of `stream` is closed. Shuts down reading, so that readers release
/// it.
pub fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
    // Wakes a thread that blocks in read(), which then closes its handle. Nothing is sent to the peer.
    stream.shutdown(Shutdown::Read).ok();
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
        self.close_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("device lock")
    }

    /// Returns the state as soon as `enough` accepts it, or after `timeout`.
    fn wait(&self, timeout: Duration, mut enough: impl FnMut(&State) -> bool) -> MutexGuard<'_, State> {
        let guard = self.lock();
        self.changed.wait_timeout_while(guard, timeout, |state| !enough(state)).expect("device lock").0
    }

    fn take_connections(&self) -> Vec<Arc<TcpStream>> {
        let mut state = self.lock();
        state.arrived.clear();
        std::mem::take(&mut state.open)
    }

    fn arrived(self: &Arc<Self>, stream: TcpStream) {
        stream.set_nodelay(true).ok();
        let stream = Arc::new(stream);
        let mut state = self.lock();
        state.accepted += 1;
        state.arrived.push_back(stream.clone());
        if !matches!(self.kind, Kind::Manual) {
            state.open.push(stream.clone());
        }
        drop(state);
        if !matches!(self.kind, Kind::Manual | Kind::Silent) {
            let reading = stream.clone();
            self.spawn(move |shared| shared.read(&reading));
        }
        match self.kind.clone() {
            Kind::Ticking(interval) => self.spawn(move |shared| shared.tick(&stream, interval)),
            Kind::Source { bytes, seed } => self.spawn(move |_| send_random(&stream, bytes, seed)),
            // Before the notification below: the stream of a Manual device must have one owner.
            _ => drop(stream),
        }
        self.changed.notify_all();
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Shared) + Send + 'static) {
        let shared = self.clone();
        let spawned =
            thread::Builder::new().name("device-connection".into()).stack_size(256 * 1024).spawn(move || work(&shared));
        if let Err(e) = spawned {
            eprintln!("device: no thread for a connection: {e}");
        }
    }

    fn read(&self, stream: &Arc<TcpStream>) {
        let mut buf = [0u8; 64 * 1024];
        let mut socket: &TcpStream = stream;
        loop {
            match socket.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    self.lock().received.update(&buf[..n]);
                    self.changed.notify_all();
                    if matches!(self.kind, Kind::Echo) && socket.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // After `reset` no FIN may precede the RST.
        let to_be_reset = socket2::SockRef::from(socket).linger().is_ok_and(|linger| linger.is_some());
        if matches!(self.kind, Kind::Echo | Kind::Sink) && !to_be_reset {
            socket.shutdown(Shutdown::Write).ok();
        }
        // From here on only a thread that is still writing holds the descriptor.
        let mut state = self.lock();
        state.finished += 1;
        state.open.retain(|other| !Arc::ptr_eq(other, stream));
        state.arrived.retain(|other| !Arc::ptr_eq(other, stream));
        drop(state);
        self.changed.notify_all();
    }

    fn tick(&self, stream: &TcpStream, interval: Duration) {
        let mut socket = stream;
        for n in 1u64.. {
            let due = Instant::now() + interval;
            let state = self.wait(interval, |state| state.ended);
            if state.ended || Instant::now() < due {
                return;
            }
            drop(state);
            if socket.write_all(format!("tick {n}\n").as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => shared.arrived(stream),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(_) => return,
        }
    }
}

fn send_random(stream: &TcpStream, bytes: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut buf = vec![0u8; 64 * 1024];
    let mut left = bytes;
    let mut socket = stream;
    while left > 0 {
        let part = left.min(buf.len() as u64) as usize;
        random.fill(&mut buf[..part]);
        if socket.write_all(&buf[..part]).is_err() {
            return;
        }
        left -= part as u64;
    }
    socket.shutdown(Shutdown::Write).ok();
}

#[cfg(test)]
mod tests;
