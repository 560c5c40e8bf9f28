//! A UDP device that sends every datagram back and records all it receives.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The device. Dropping it ends its thread.
pub struct UdpEcho {
    socket: UdpSocket,
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<(Vec<u8>, SocketAddr)>>,
    changed: Condvar,
}

impl UdpEcho {
    /// Starts a device on a free port of 127.0.0.1.
    pub fn start() -> UdpEcho {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("no UDP port");
        let addr = socket.local_addr().expect("UDP address");
        let shared = Arc::<Shared>::default();
        let (echoing, for_thread) = (socket.try_clone().expect("UDP socket"), shared.clone());
        let thread = thread::spawn(move || for_thread.echo(&echoing, addr));
        UdpEcho { socket, addr, shared, thread: Some(thread) }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Waits for `count` datagrams since the start, and returns all of them with their senders.
    ///
    /// # Panics
    /// If they do not arrive in time.
    #[track_caller]
    pub fn wait_received(&self, count: usize, timeout: Duration) -> Vec<(Vec<u8>, SocketAddr)> {
        let guard = self.shared.received.lock().expect("UDP lock");
        let enough = |got: &mut Vec<_>| got.len() < count;
        let (got, _) = self.shared.changed.wait_timeout_while(guard, timeout, enough).expect("UDP lock");
        assert!(got.len() >= count, "{} of {count} datagrams within {timeout:?}", got.len());
        got.clone()
    }

    /// Sends a datagram.
    pub fn send_to(&self, data: &[u8], to: SocketAddr) {
        self.socket.send_to(data, to).expect("UDP send");
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        // A datagram from the socket to itself ends the thread: no other socket can send from this address.
        self.socket.send_to(b"", self.addr).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn echo(&self, socket: &UdpSocket, own: SocketAddr) {
        let mut buf = vec![0u8; 65_536];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut buf) else { continue };
            if from == own {
                return;
            }
            self.received.lock().expect("UDP lock").push((buf[..n].to_vec(), from));
            self.changed.notify_all();
            socket.send_to(&buf[..n], from).ok();
        }
    }
}
