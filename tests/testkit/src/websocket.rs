//! A WebSocket server that tests script, correct or faulty. Its codec is independent of the daemon's and as simple as
//! possible, so that both do not share a mistake. It checks nothing; the tests do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::{HandshakeKind, ServerConfig};

use crate::ports::Reserved;
use crate::tls::{TlsDevice, TlsStream};

/// Timeout of a peer's reads.
const LIMIT: Duration = Duration::from_secs(30);

/// Opcode: a continuation frame.
pub const CONTINUATION: u8 = 0;
/// Opcode: a text frame.
pub const TEXT: u8 = 1;
/// Opcode: a binary frame.
pub const BINARY: u8 = 2;
/// Opcode: a close frame.
pub const CLOSE: u8 = 8;
/// Opcode: a ping.
pub const PING: u8 = 9;
/// Opcode: a pong.
pub const PONG: u8 = 10;

/// The FIN bit of a frame's first byte: this frame ends its message.
const FIN: u8 = 0x80;

/// A listening server, with or without TLS. A script runs for each connection, in a thread of its own.
pub struct Server {
    addr: SocketAddr,
    scheme: &'static str,
    listening: Listening,
}

enum Listening {
    Plain { _until_dropped: Acceptor },
    Secure(TlsDevice),
}

/// Accepts connections until it is dropped.
struct Acceptor {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start(script: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let reserved = Reserved::new().expect("no port for a server");
        let listener = reserved.listen().expect("a server cannot listen");
        let accepting = listener.try_clone().expect("a socket");
        let script = Arc::new(script);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let script = Arc::clone(&script);
                // The test sees an error from the other side.
                thread::spawn(move || script(Peer::new(stream)));
            }
        });
        let listening = Listening::Plain { _until_dropped: Acceptor { listener, thread: Some(thread) } };
        Self { addr: reserved.addr(), scheme: "ws", listening }
    }

    /// As [`Server::start`], over TLS.
    pub fn start_secure(config: ServerConfig, script: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let device = TlsDevice::start(config, move |stream| drop(script(Peer::secure(stream))));
        Self { addr: device.addr(), scheme: "wss", listening: Listening::Secure(device) }
    }

    /// A server that sends back each data frame, and answers pings and close frames.
    pub fn echo() -> Self {
        Self::start(|mut peer| {
            peer.upgrade()?;
            peer.echo()
        })
    }

    /// As [`Server::echo`], over TLS.
    pub fn echo_secure(config: ServerConfig) -> Self {
        Self::start_secure(config, |mut peer| {
            peer.upgrade()?;
            peer.echo()
        })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL of this server; `path` begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr)
    }

    /// The kinds of its TLS handshakes, in order.
    pub fn handshakes(&self) -> Vec<HandshakeKind> {
        match &self.listening {
            Listening::Plain { .. } => Vec::new(),
            Listening::Secure(device) => device.handshakes(),
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET /path HTTP/1.1`
    pub line: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Parses a whole head leniently.
    pub fn parse(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { line, headers: lines.filter_map(header).collect() }
    }

    /// The values of all headers called `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that must occur exactly once.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [one] => one,
            ref other => panic!("{name}: {other:?}"),
        }
    }

    /// The Sec-WebSocket-Accept for its key.
    pub fn accept(&self) -> String {
        let key = self.all("Sec-WebSocket-Key").concat();
        let key = [&key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()))
    }

    /// The 101 response to this request, with further header lines.
    pub fn upgrade(&self, more: &[&str]) -> String {
        let more: String = more.iter().flat_map(|line| [line, "\r\n"]).collect();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
             {more}\r\n",
            self.accept()
        )
    }
}

/// A frame as received, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The FIN bit: this frame ends its message.
    pub fin: bool,
    /// The three reserved bits in their place in the first byte.
    pub reserved: u8,
    /// The opcode.
    pub opcode: u8,
    /// The masking key.
    pub mask: Option<[u8; 4]>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Encodes an unmasked frame; `first` is its whole first byte.
pub fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=65535 => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Encodes a frame of a client; `first` is its whole first byte.
pub fn masked_frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = frame_of(first, payload);
    let start = bytes.len() - payload.len();
    bytes[start..].iter_mut().zip(KEY.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    bytes[1] |= 0x80;
    bytes.splice(start..start, KEY);
    bytes
}

/// Encodes the payload of a close frame.
pub fn close_of(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// The server's end of a connection. Reads fail on timeout.
pub struct Peer {
    transport: Transport,
    buffered: Vec<u8>,
}

enum Transport {
    Plain(TcpStream),
    Secure(Box<TlsStream>),
}

impl Peer {
    /// A new connection.
    pub fn new(stream: TcpStream) -> Self {
        Self::over(Transport::Plain(stream))
    }

    /// A new connection over TLS. It must end with close_notify: any other end is an error.
    pub fn secure(stream: TlsStream) -> Self {
        Self::over(Transport::Secure(Box::new(stream)))
    }

    fn over(transport: Transport) -> Self {
        let peer = Self { transport, buffered: Vec::new() };
        peer.stream().set_read_timeout(Some(LIMIT)).ok();
        peer.stream().set_nodelay(true).ok();
        peer
    }

    /// Reads the request.
    pub fn request(&mut self) -> io::Result<Request> {
        let end = loop {
            match self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more()?,
            }
        };
        let head: Vec<u8> = self.buffered.drain(..end).collect();
        Ok(Request::parse(&head))
    }

    /// Reads the request and answers 101.
    pub fn upgrade(&mut self) -> io::Result<Request> {
        self.upgrade_with(&[])
    }

    /// Reads the request and answers 101 with further header lines.
    pub fn upgrade_with(&mut self, more: &[&str]) -> io::Result<Request> {
        let request = self.request()?;
        self.send(request.upgrade(more).as_bytes())?;
        Ok(request)
    }

    /// Sends bytes unchanged.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(stream) => stream.write_all(bytes),
            Transport::Secure(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends a whole message or a control frame.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.send(&frame_of(FIN | opcode, payload))
    }

    /// As [`Peer::send_frame`], for a peer that is the client.
    pub fn send_masked(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.send(&masked_frame_of(FIN | opcode, payload))
    }

    /// Sends a frame of a message that is not its last.
    pub fn send_fragment(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.send(&frame_of(opcode, payload))
    }

    /// Reads a frame.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let start = self.take(2)?;
        let length = match start[1] & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")) as usize,
            length => usize::from(length),
        };
        let mask: Option<[u8; 4]> =
            if start[1] & 0x80 == 0 { None } else { Some(self.take(4)?.try_into().expect("four bytes")) };
        let mut payload = self.take(length)?;
        if let Some(mask) = mask {
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        Ok(Frame { fin: start[0] & FIN != 0, reserved: start[0] & 0x70, opcode: start[0] & 0x0f, mask, payload })
    }

    /// Sends back all frames, compressed ones as they came, until the peer closes, then answers the close frame and ends.
    pub fn echo(&mut self) -> io::Result<()> {
        loop {
            let frame = self.frame()?;
            match frame.opcode {
                CLOSE => {
                    self.send_frame(CLOSE, &frame.payload)?;
                    return self.end();
                }
                PING => self.send_frame(PONG, &frame.payload)?,
                PONG => {}
                opcode => {
                    let fin = if frame.fin { FIN } else { 0 };
                    self.send(&frame_of(fin | frame.reserved | opcode, &frame.payload))?;
                }
            }
        }
    }

    /// Ends this side's stream, and reads to the end of the peer's.
    pub fn end(&mut self) -> io::Result<()> {
        if let Transport::Secure(stream) = &mut self.transport {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.stream().shutdown(Shutdown::Write)?;
        while self.read()? > 0 {}
        Ok(())
    }

    /// Reads to the end of the stream and returns the bytes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.read()? > 0 {}
        Ok(std::mem::take(&mut self.buffered))
    }

    /// Returns the next `count` bytes.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffered.len() < count {
            self.more()?;
        }
        Ok(self.buffered.drain(..count).collect())
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Secure(stream) => &stream.sock,
        }
    }

    fn more(&mut self) -> io::Result<()> {
        if self.read()? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0u8; 64 * 1024];
        let read = loop {
            let read = match &mut self.transport {
                Transport::Plain(stream) => stream.read(&mut buffer),
                Transport::Secure(stream) => stream.read(&mut buffer),
            };
            match read {
                // A socket with a timeout ends so when its process was stopped and goes on (signal(7)).
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffered.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_and_closes() {
        let server = Server::echo();
        let mut client = Peer::new(TcpStream::connect(server.addr()).unwrap());
        // The example of RFC 6455, sections 1.3 and 5.7.
        client
            .send(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
            .unwrap();
        let answer = client.request().unwrap();
        assert_eq!(answer.line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(answer.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(client.take(7).unwrap(), b"\x81\x05Hello");
        assert_eq!(masked_frame_of(FIN | TEXT, b"Hello"), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        for (length, head) in [(125, 2), (126, 4), (65535, 4), (65536, 10)] {
            let frame = frame_of(FIN | BINARY, &vec![7; length]);
            assert_eq!(frame.len(), length + head);
            client.send(&frame).unwrap();
            let frame = client.frame().unwrap();
            assert_eq!((frame.fin, frame.opcode, frame.payload.len(), frame.mask), (true, BINARY, length, None));
        }
        client.send_frame(CLOSE, &close_of(1000, "bye")).unwrap();
        assert_eq!(client.frame().unwrap().payload, b"\x03\xe8bye");
        assert_eq!(client.rest().unwrap(), b"");
    }
}
