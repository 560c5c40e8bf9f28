//! Scripted remotes: plain TCP, TLS, WebSocket over either, datagrams; and those that refuse, redirect, stall or break.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConnection;
use testkit::websocket::frame_of;

use super::services::TlsWorld;
use crate::protocol::framing::{Framing, encode_datagram, encode_message};
use crate::testing::TestEntropy;
use crate::testing::choices::Choices;
use crate::testing::network::{SimDatagramPeer, SimPeer};
use crate::websocket::handshake::{AcceptOptions, RequestProgress, ServerHandshake};
use crate::websocket::{Connection, Control, Event, Kind, Leniency, Role, WebSocketSettings};

/// What is spoken with a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteKind {
    Tcp,
    Tls,
    Ws,
    Wss,
    Udp,
}

impl RemoteKind {
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// How a remote behaves while a session connects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// As it should.
    Serve,
    /// It sends something and ends at once.
    EndAtOnce,
    /// It says nothing at all.
    Stall,
    /// It resets the connection.
    Reset,
    /// It sends what no protocol knows.
    Garbage,
    /// Its certificate is not trusted.
    Untrusted,
    /// It answers the opening handshake with 403.
    Forbid,
    /// It redirects to `moved.test` once.
    Redirect,
    /// It redirects to itself for ever.
    RedirectLoop,
}

/// How far a remote has come.
enum RemoteStage {
    Upgrading(ServerHandshake),
    Open,
    Over,
}

/// One remote's end of a connection.
pub(crate) struct Remote {
    pub kind: RemoteKind,
    pub behaviour: Behaviour,
    framing: Framing,
    pub peer: Option<SimPeer>,
    pub mailbox: Option<SimDatagramPeer>,
    tls: Option<Box<ServerConnection>>,
    /// TLS has failed: rustls must not be given more.
    tls_failed: bool,
    stage: RemoteStage,
    connection: Option<Connection>,
    /// How much of what the wire has received was read.
    fed: usize,
    message: Vec<u8>,
    /// Bytes for the plugin, as its framing shows them, and where each message ends.
    pub said: Vec<u8>,
    pub ends: Vec<usize>,
    /// What came from the plugin since it was last taken: bytes, or messages.
    pub heard_bytes: Vec<u8>,
    pub heard_messages: Vec<Vec<u8>>,
    /// The remote has ended its side, or its connection is broken.
    pub ended: bool,
    /// It has heard the end of the plugin's side.
    pub heard_end: bool,
    entropy: TestEntropy,
    spoken: usize,
    redirected: bool,
    /// The port of `moved.test` to which it redirects.
    moved_port: u16,
}

/// The sender of all datagrams.
pub(super) fn sender() -> SocketAddr {
    "192.0.2.1:1900".parse().expect("an address")
}

impl Remote {
    pub(crate) fn new(kind: RemoteKind, behaviour: Behaviour, framing: Framing, moved_port: u16) -> Self {
        Self {
            kind,
            behaviour,
            framing,
            peer: None,
            mailbox: None,
            tls: None,
            tls_failed: false,
            stage: RemoteStage::Over,
            connection: None,
            fed: 0,
            message: Vec::new(),
            said: Vec::new(),
            ends: vec![0],
            heard_bytes: Vec::new(),
            heard_messages: Vec::new(),
            ended: false,
            heard_end: false,
            entropy: TestEntropy::default(),
            spoken: 0,
            redirected: false,
            moved_port,
        }
    }

    /// A session has begun to connect.
    pub(crate) fn accept(&mut self, peer: SimPeer) {
        self.tls = self.kind.is_tls().then(|| {
            let world = TlsWorld::get();
            let config = if self.behaviour == Behaviour::Untrusted { &world.untrusted_server } else { &world.server };
            let mut connection = ServerConnection::new(Arc::clone(config)).expect("a server");
            connection.set_buffer_limit(None);
            Box::new(connection)
        });
        self.stage = match self.kind.is_websocket() {
            true => RemoteStage::Upgrading(ServerHandshake::new()),
            false => RemoteStage::Open,
        };
        self.peer = Some(peer);
        // What was said on an attempt that another one has overtaken reaches no plugin.
        (self.said, self.ends, self.spoken) = (Vec::new(), vec![0], 0);
        (self.fed, self.ended, self.tls_failed) = (0, false, false);
    }

    /// True if bytes can pass: the handshakes are done.
    pub(crate) fn is_open(&self) -> bool {
        let connected = self.mailbox.is_some() || self.peer.as_ref().is_some_and(SimPeer::is_connected);
        connected && !self.ended && matches!(self.stage, RemoteStage::Open) || self.mailbox.is_some()
    }

    /// True if nothing that is said can leave yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Sends `bytes` as they are, inside of TLS where that is spoken.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let Some(peer) = &self.peer else { return };
        if self.ended || peer.wire().is_closed() {
            return;
        }
        match &mut self.tls {
            None => peer.wire_mut().send_bytes(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes).expect("memory takes it");
                drain(tls, peer);
            }
        }
    }

    /// Sends something of about `length` bytes.
    pub(crate) fn speak(&mut self, length: usize, random: &mut Choices) {
        if !self.is_open() || self.behaviour == Behaviour::Stall {
            return;
        }
        let number = self.spoken;
        self.spoken += 1;
        match self.kind {
            RemoteKind::Tcp | RemoteKind::Tls => {
                let bytes: Vec<u8> = (self.said.len()..self.said.len() + length).map(pattern).collect();
                self.said.extend_from_slice(&bytes);
                self.write(&bytes);
            }
            RemoteKind::Ws | RemoteKind::Wss => {
                let payload = numbered(number, length);
                let kind = if random.below(2) == 0 { Kind::Text } else { Kind::Binary };
                let opcode = if kind == Kind::Text { 1 } else { 2 };
                encode_message(self.framing, kind, &payload, &mut self.said);
                if random.below(4) == 0 {
                    self.write(&frame_of(0x89, b"ping"));
                }
                let cut = random.below(payload.len() as u64 + 1) as usize;
                if random.below(3) == 0 {
                    self.write(&frame_of(opcode, &payload[..cut]));
                    self.write(&frame_of(0x80, &payload[cut..]));
                } else {
                    self.write(&frame_of(0x80 | opcode, &payload));
                }
            }
            RemoteKind::Udp => {
                let payload = numbered(number, length.min(3000));
                encode_datagram(self.framing, &payload, sender(), &mut self.said);
                if let Some(mailbox) = &self.mailbox {
                    mailbox.send(&payload, sender());
                }
            }
        }
        self.ends.push(self.said.len());
    }

    /// Ends its side: with the protocol's own end if `politely`.
    pub(crate) fn end(&mut self, politely: bool, now: Instant) {
        if self.ended {
            return;
        }
        if politely && let Some(mut connection) = self.connection.take() {
            connection.close(1000, "bye", now, &mut self.entropy);
            self.connection = Some(connection);
            self.transmit();
        }
        if politely && let (Some(tls), Some(peer)) = (&mut self.tls, &self.peer) {
            // rustls asserts that no error follows, which an unfinished handshake would be.
            self.tls_failed |= tls.is_handshaking();
            tls.send_close_notify();
            drain(tls, peer);
        }
        self.ended = true;
        if let Some(peer) = &self.peer
            && !peer.wire().is_closed()
            && !peer.wire().is_broken()
        {
            peer.wire_mut().close();
        }
    }

    /// It breaks the protocol, where there is one.
    pub(crate) fn violate(&mut self, now: Instant) {
        if self.is_open() && self.kind.is_websocket() {
            self.write(&frame_of(0x83, b"no such opcode"));
        }
        self.end(false, now);
    }

    /// The connection breaks.
    pub(crate) fn reset(&mut self) {
        self.ended = true;
        if let Some(peer) = &self.peer
            && !peer.wire().is_broken()
        {
            peer.wire_mut().break_off();
        }
    }

    /// Sends what the WebSocket has to say by itself.
    fn transmit(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        loop {
            let bytes = connection.poll_transmit(&mut self.entropy).to_vec();
            if bytes.is_empty() {
                break;
            }
            connection.handle_transmitted(bytes.len());
            self.write(&bytes);
        }
        self.connection = Some(connection);
    }

    /// Reads what has come, and answers.
    pub(crate) fn process(&mut self, now: Instant) {
        if let Some(mailbox) = &self.mailbox {
            for (payload, _) in mailbox.take() {
                if self.framing == Framing::Raw {
                    self.heard_bytes.extend_from_slice(&payload);
                } else {
                    self.heard_messages.push(payload);
                }
            }
            return;
        }
        let Some(peer) = self.peer.clone() else { return };
        if !peer.is_connected() || self.behaviour == Behaviour::Stall {
            return;
        }
        let mut bytes = peer.wire().received[self.fed..].to_vec();
        self.fed += bytes.len();
        let first = self.fed == bytes.len() && !matches!(self.stage, RemoteStage::Over);
        match self.behaviour {
            Behaviour::Reset if first => return self.reset(),
            Behaviour::Garbage if first && (self.kind.is_tls() || self.kind.is_websocket()) => {
                if bytes.is_empty() || self.ended {
                    return;
                }
                peer.wire_mut().send_bytes(b"220 ready\r\n\r\n");
                peer.wire_mut().close();
                self.ended = true;
                self.stage = RemoteStage::Over;
                return;
            }
            Behaviour::EndAtOnce if self.spoken == 0 && !self.kind.is_tls() && !self.kind.is_websocket() => {
                self.speak(50, &mut Choices::seeded(1));
                self.end(true, now);
            }
            _ => {}
        }
        if let Some(tls) = &mut self.tls {
            let mut input = &bytes[..];
            let mut plain = Vec::new();
            let mut failed = self.tls_failed;
            while !input.is_empty() && !failed {
                failed = tls.read_tls(&mut input).is_err();
                match tls.process_new_packets() {
                    Ok(state) => {
                        let at = plain.len();
                        plain.resize(at + state.plaintext_bytes_to_read(), 0);
                        tls.reader().read_exact(&mut plain[at..]).expect("it is there");
                        self.heard_end |= state.peer_has_closed();
                    }
                    Err(_) => failed = true,
                }
            }
            drain(tls, &peer);
            self.tls_failed = failed;
            if failed {
                return self.end(false, now);
            }
            bytes = plain;
        }
        self.heard_end |= peer.wire().is_told() || peer.is_dropped();
        if !bytes.is_empty() {
            self.hear(&bytes, now);
        }
    }

    fn hear(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.stage {
            RemoteStage::Over => {}
            RemoteStage::Open if self.connection.is_none() => self.heard_bytes.extend_from_slice(bytes),
            RemoteStage::Open => self.hear_frames(bytes.to_vec(), now),
            RemoteStage::Upgrading(handshake) => match handshake.handle_input(bytes) {
                RequestProgress::Pending => {}
                RequestProgress::Page(page) => panic!("the session asks for a page: {page:?}"),
                RequestProgress::Refused(refusal) => panic!("the session asks badly: {refusal}"),
                RequestProgress::Received(request) => {
                    let location = match self.behaviour {
                        Behaviour::Redirect if !self.redirected => Some(format!("//moved.test:{}/", self.moved_port)),
                        Behaviour::RedirectLoop => Some("/again".into()),
                        _ => None,
                    };
                    if let Some(location) = location {
                        self.redirected = true;
                        let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
                        self.write(head.as_bytes());
                        return self.end(false, now);
                    }
                    if self.behaviour == Behaviour::Forbid {
                        self.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                        return self.end(false, now);
                    }
                    handshake.accept(&request, &AcceptOptions::default()).expect("it asks for nothing special");
                    let response = handshake.transmit().to_vec();
                    self.write(&response);
                    self.stage = RemoteStage::Open;
                    let settings = WebSocketSettings {
                        role: Role::Server,
                        mask: false,
                        control: Control::Auto,
                        max_message: u64::MAX,
                        leniency: Leniency::default(),
                        deflate: None,
                        ping_interval: None,
                    };
                    self.connection = Some(Connection::new(settings, now));
                    let rest = request.rest.clone();
                    self.hear_frames(rest, now);
                    if self.behaviour == Behaviour::EndAtOnce {
                        self.speak(50, &mut Choices::seeded(1));
                        self.end(true, now);
                    }
                }
            },
        }
    }

    fn hear_frames(&mut self, mut bytes: Vec<u8>, now: Instant) {
        let Some(mut connection) = self.connection.take() else { return };
        let mut at = 0;
        let mut closed = false;
        loop {
            let (taken, event) = connection.handle_input(&mut bytes[at..], now);
            at += taken;
            match event {
                None if taken == 0 => break,
                Some(Event::Data(piece)) => self.message.extend_from_slice(piece),
                Some(Event::End) => {
                    let message = std::mem::take(&mut self.message);
                    match self.framing {
                        Framing::Raw => self.heard_bytes.extend_from_slice(&message),
                        _ => self.heard_messages.push(message),
                    }
                }
                Some(Event::Closed { .. }) => closed = true,
                Some(Event::InvalidClose { error: failure, .. } | Event::Failed(failure)) => {
                    panic!("the session breaks the protocol: {failure}")
                }
                _ => {}
            }
        }
        self.connection = Some(connection);
        self.transmit();
        if closed {
            self.heard_end = true;
            self.end(false, now);
        }
    }
}

/// The byte at a place of a stream.
pub(super) fn pattern(at: usize) -> u8 {
    (at as u8).wrapping_mul(167) ^ (at >> 8) as u8 ^ (at >> 16) as u8
}

/// A message of about `length` bytes that begins with its number.
pub(super) fn numbered(number: usize, length: usize) -> Vec<u8> {
    let mut payload = format!("{number}:").into_bytes();
    while payload.len() < length {
        payload.push(b'a' + (payload.len() % 23) as u8);
    }
    payload
}

fn drain(tls: &mut ServerConnection, peer: &SimPeer) {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).expect("memory takes it");
    }
    if !peer.wire().is_closed() {
        peer.wire_mut().send_bytes(&out);
    }
}
