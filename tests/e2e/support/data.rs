//! Reproducible data over a socket: written, read, and compared byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use testkit::random::{Checker, Random};

use super::{LIMIT, eventually};

const CHUNK: usize = 64 * 1024;

/// Writes the bytes of `Random::new(seed)`.
pub(crate) struct Writer {
    stream: TcpStream,
    random: Random,
    /// Bytes that are generated and not written yet.
    unsent: Vec<u8>,
    written: u64,
}

impl Writer {
    pub(crate) fn new(stream: &TcpStream, seed: u64) -> Writer {
        let stream = stream.try_clone().expect("socket");
        Writer { stream, random: Random::new(seed), unsent: Vec::new(), written: 0 }
    }

    /// Writes the next `bytes` bytes; waits for the reader without limit.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: u64) {
        let target = self.written + bytes;
        while self.written < target {
            let left = target - self.written;
            self.generate();
            let part = left.min(self.unsent.len() as u64) as usize;
            self.stream.write_all(&self.unsent[..part]).expect("write");
            self.taken(part);
        }
    }

    /// Writes until the socket takes nothing for 250 ms: then all buffers up to a reader that does not read are full.
    /// Returns the number of bytes written so far.
    ///
    /// # Panics
    /// If the socket takes 256 MiB, because then the bytes are discarded on the way.
    #[track_caller]
    pub(crate) fn write_until_blocked(&mut self) -> u64 {
        self.stream.set_write_timeout(Some(Duration::from_millis(250))).expect("socket");
        // A small send buffer, since bytes in this end's kernel prove nothing and take time.
        socket2::SockRef::from(&self.stream).set_send_buffer_size(128 * 1024).expect("socket");
        loop {
            assert!(self.written < 1 << 28, "{} bytes were taken without a reader", self.written);
            self.generate();
            match self.stream.write(&self.unsent) {
                Ok(written) => self.taken(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        self.stream.set_write_timeout(None).expect("socket");
        self.written
    }

    /// Ends the stream.
    pub(crate) fn finish(self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    fn generate(&mut self) {
        if self.unsent.is_empty() {
            self.unsent = self.random.bytes(CHUNK);
        }
    }

    fn taken(&mut self, bytes: usize) {
        self.unsent.drain(..bytes);
        self.written += bytes as u64;
    }
}

/// Reads, and compares with the bytes of `Random::new(seed)`.
pub(crate) struct Reader {
    stream: TcpStream,
    checker: Checker,
    chunk: usize,
}

impl Reader {
    pub(crate) fn new(stream: &TcpStream, seed: u64) -> Reader {
        let stream = stream.try_clone().expect("socket");
        stream.set_read_timeout(Some(LIMIT)).expect("socket");
        Reader { stream, checker: Checker::new(seed), chunk: CHUNK }
    }

    /// Reads in small pieces with a small receive buffer. The buffer is larger than one segment of loopback (64 KiB):
    /// with a smaller one TCP itself waits for its timers.
    pub(crate) fn slow(mut self) -> Reader {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(128 * 1024).expect("socket");
        self.chunk = 1500;
        self
    }

    /// Reads the next `bytes` bytes.
    ///
    /// # Panics
    /// If they are wrong, or do not arrive.
    #[track_caller]
    pub(crate) fn read(&mut self, bytes: u64) {
        let target = self.checker.bytes + bytes;
        while self.checker.bytes < target {
            let max = (target - self.checker.bytes).min(self.chunk as u64) as usize;
            assert!(self.read_once(max), "the stream ended after {} of {target} bytes", self.checker.bytes);
        }
    }

    /// Reads to the end of the stream, and returns the number of bytes read so far.
    ///
    /// # Panics
    /// If they are wrong, or the stream does not end, or ends with a reset.
    #[track_caller]
    pub(crate) fn rest(mut self) -> u64 {
        while self.read_once(self.chunk) {}
        self.checker.bytes
    }

    /// Reads once. False at the end of the stream.
    #[track_caller]
    fn read_once(&mut self, max: usize) -> bool {
        let mut buffer = vec![0u8; max];
        let before = self.checker.bytes;
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                let right = self.checker.check(&buffer[..read]);
                assert!(right, "the first wrong byte is at offset {:?}", self.checker.first_wrong);
                read > 0
            }
            Err(error) => panic!("read after {before} bytes: {error}"),
        }
    }
}

/// Sends `bytes` random bytes in both directions at once, and ends both streams; all bytes must arrive.
#[track_caller]
pub(crate) fn both_ways(plugin: &TcpStream, remote: &TcpStream, bytes: u64) {
    const TO_REMOTE: u64 = 1;
    const TO_PLUGIN: u64 = 2;
    let send = |stream: &TcpStream, seed| {
        let mut writer = Writer::new(stream, seed);
        move || {
            writer.write(bytes);
            writer.finish();
        }
    };
    thread::scope(|scope| {
        let senders = [scope.spawn(send(plugin, TO_REMOTE)), scope.spawn(send(remote, TO_PLUGIN))];
        let to_remote = Reader::new(remote, TO_REMOTE);
        let to_remote = scope.spawn(move || to_remote.rest());
        assert_eq!(Reader::new(plugin, TO_PLUGIN).rest(), bytes, "from the remote to the plugin");
        assert_eq!(to_remote.join().expect("reader"), bytes, "from the plugin to the remote");
        senders.into_iter().for_each(|sender| sender.join().expect("writer"));
    });
}

/// Reads until the stream ends, with FIN or a reset.
#[track_caller]
pub(crate) fn read_to_end(mut stream: &TcpStream) {
    let mut buffer = vec![0; CHUNK];
    stream.set_read_timeout(Some(LIMIT)).expect("socket");
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("no end: {error}"),
        }
    }
}

/// The line of an IPv4 connection in `/proc/net/tcp`, for the side with the address `local`. Returns the columns from
/// `tx_queue:rx_queue` on (proc(5)).
fn kernel_line(local: SocketAddr, peer: SocketAddr) -> Option<Vec<String>> {
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let it = words.get(1)?.ends_with(&port(local)) && words.get(2)?.ends_with(&port(peer));
        it.then(|| words[4..].iter().map(|word| (*word).to_owned()).collect())
    })
}

/// Bytes written to an IPv4 socket that the peer's kernel has not acknowledged yet; the FIN counts as one byte. 0 after
/// the connection has ended.
pub(crate) fn unacknowledged(stream: &TcpStream) -> u64 {
    let Ok(peer) = stream.peer_addr() else { return 0 };
    let Some(line) = kernel_line(stream.local_addr().expect("socket"), peer) else { return 0 };
    let (sending, _) = line[0].split_once(':').expect("queues");
    u64::from_str_radix(sending, 16).expect("a number")
}

/// True if keep-alive is enabled on the socket with these addresses and the connection is idle.
pub(crate) fn keep_alive_is_on(local: SocketAddr, peer: SocketAddr) -> bool {
    // The running timer: 02 is the keep-alive timer.
    kernel_line(local, peer).is_some_and(|line| line[1].starts_with("02:"))
}

/// Waits until the peer's kernel has acknowledged everything. A reset before that would discard the rest.
#[track_caller]
pub(crate) fn wait_until_acknowledged(stream: &TcpStream) {
    eventually("all bytes are acknowledged", || (unacknowledged(stream) == 0).then_some(()));
}
