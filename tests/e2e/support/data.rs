//! Reproducible data through a socket: written, read, and compared byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use testkit::random::{Checker, Random};

use super::{LIMIT, eventually};

const CHUNK: usize = 64 * 1024;

/// Writes the bytes of a seed.
pub struct Writer {
    stream: TcpStream,
    random: Random,
    /// Drawn and not yet written.
    unsent: Vec<u8>,
    written: u64,
}

impl Writer {
    pub fn new(stream: &TcpStream, seed: u64) -> Writer {
        let stream = stream.try_clone().expect("socket");
        Writer { stream, random: Random::new(seed), unsent: Vec::new(), written: 0 }
    }

    /// Writes the next `bytes`, however long that takes the reader.
    #[track_caller]
    pub fn write(&mut self, bytes: u64) {
        let target = self.written + bytes;
        while self.written < target {
            let left = target - self.written;
            self.draw();
            let part = left.min(self.unsent.len() as u64) as usize;
            self.stream.write_all(&self.unsent[..part]).expect("write");
            self.taken(part);
        }
    }

    /// Writes until nothing more is taken for a while: everything between here and a reader that does not read is
    /// full then. How much was written in all.
    ///
    /// # Panics
    /// When there is no end to it: somebody throws bytes away.
    #[track_caller]
    pub fn write_until_blocked(&mut self) -> u64 {
        self.stream.set_write_timeout(Some(Duration::from_millis(250))).expect("socket");
        // Megabytes in this end's kernel would prove nothing and take their time.
        socket2::SockRef::from(&self.stream).set_send_buffer_size(128 * 1024).expect("socket");
        loop {
            assert!(self.written < 1 << 28, "{} bytes went where nobody reads", self.written);
            self.draw();
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
    pub fn finish(self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    fn draw(&mut self) {
        if self.unsent.is_empty() {
            self.unsent = self.random.bytes(CHUNK);
        }
    }

    fn taken(&mut self, bytes: usize) {
        self.unsent.drain(..bytes);
        self.written += bytes as u64;
    }
}

/// Reads, and compares with the bytes of a seed.
pub struct Reader {
    stream: TcpStream,
    checker: Checker,
    chunk: usize,
}

impl Reader {
    pub fn new(stream: &TcpStream, seed: u64) -> Reader {
        let stream = stream.try_clone().expect("socket");
        stream.set_read_timeout(Some(LIMIT)).expect("socket");
        Reader { stream, checker: Checker::new(seed), chunk: CHUNK }
    }

    /// Reads in small pieces, and lets the kernel hold little, but more than one segment of loopback (64 KiB):
    /// below that, TCP itself waits for its timers.
    pub fn slow(mut self) -> Reader {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(128 * 1024).expect("socket");
        self.chunk = 1500;
        self
    }

    /// Reads the next `bytes`.
    ///
    /// # Panics
    /// When they are wrong, or do not come.
    #[track_caller]
    pub fn read(&mut self, bytes: u64) {
        let target = self.checker.bytes + bytes;
        while self.checker.bytes < target {
            let most = (target - self.checker.bytes).min(self.chunk as u64) as usize;
            assert!(self.read_once(most), "the stream ended after {} of {target} bytes", self.checker.bytes);
        }
    }

    /// Reads to the end of the stream; how many bytes came in all.
    ///
    /// # Panics
    /// When they are wrong, or the stream does not end, or ends with a reset.
    #[track_caller]
    pub fn rest(mut self) -> u64 {
        while self.read_once(self.chunk) {}
        self.checker.bytes
    }

    /// False at the end of the stream.
    #[track_caller]
    fn read_once(&mut self, most: usize) -> bool {
        let mut buffer = vec![0u8; most];
        let before = self.checker.bytes;
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                let right = self.checker.check(&buffer[..read]);
                assert!(right, "the first wrong byte is number {:?}", self.checker.first_wrong);
                read > 0
            }
            Err(error) => panic!("read after {before} bytes: {error}"),
        }
    }
}

/// Sends `bytes` random bytes each way at once, and an end behind them; all of it must arrive.
#[track_caller]
pub fn both_ways(plugin: &TcpStream, remote: &TcpStream, bytes: u64) {
    const UP: u64 = 1;
    const DOWN: u64 = 2;
    let send = |stream: &TcpStream, seed| {
        let mut writer = Writer::new(stream, seed);
        move || {
            writer.write(bytes);
            writer.finish();
        }
    };
    thread::scope(|scope| {
        let senders = [scope.spawn(send(plugin, UP)), scope.spawn(send(remote, DOWN))];
        let up = Reader::new(remote, UP);
        let up = scope.spawn(move || up.rest());
        assert_eq!(Reader::new(plugin, DOWN).rest(), bytes, "from the remote to the plugin");
        assert_eq!(up.join().expect("reader"), bytes, "from the plugin to the remote");
        senders.into_iter().for_each(|sender| sender.join().expect("writer"));
    });
}

/// Reads until the stream ends, in order or by a reset.
#[track_caller]
pub fn read_to_end(mut stream: &TcpStream) {
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

/// The kernel's line about a connection of IPv4, from the side whose own address is `local`; its columns from
/// `tx_queue:rx_queue` on (proc(5), `/proc/net/tcp`).
fn kernel_line(local: SocketAddr, peer: SocketAddr) -> Option<Vec<String>> {
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let it = words.get(1)?.ends_with(&port(local)) && words.get(2)?.ends_with(&port(peer));
        it.then(|| words[4..].iter().map(|word| (*word).to_owned()).collect())
    })
}

/// Bytes written to a socket of IPv4 that its peer's kernel has not taken yet; the end of writing counts as one. 0 once
/// the connection is over.
pub fn unsent(stream: &TcpStream) -> u64 {
    let Ok(peer) = stream.peer_addr() else { return 0 };
    let Some(line) = kernel_line(stream.local_addr().expect("socket"), peer) else { return 0 };
    let (sending, _) = line[0].split_once(':').expect("queues");
    u64::from_str_radix(sending, 16).expect("a number")
}

/// True where the socket with these addresses sends keep-alive probes when nothing else happens.
pub fn keep_alive_is_on(local: SocketAddr, peer: SocketAddr) -> bool {
    // The timer that runs: 02 is that of keep-alive.
    kernel_line(local, peer).is_some_and(|line| line[1].starts_with("02:"))
}

/// Waits until the peer's kernel has taken everything: a reset would throw away the rest.
#[track_caller]
pub fn wait_until_taken(stream: &TcpStream) {
    eventually("everything is taken", || (unsent(stream) == 0).then_some(()));
}
