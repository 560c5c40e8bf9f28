//! A client of `[serve]` in place of a plugin: its WebSocket, as a stream for a relay.
//!
//! [`ServedClient`] is an [`Endpoint`], so that no relay knows of it. What it reads are the payloads of the client's
//! messages, and what is written to it leaves in messages:
//!
//! | target | the stream is in | from the client | to the client |
//! | --- | --- | --- | --- |
//! | tcp, tls | RAW | payloads are passed on while they come | each write is a binary message |
//! | udp | MESG | a message is a datagram | a datagram is a binary message |
//! | ws, wss | MESG | a message is a message of its kind | likewise; CLOS is a close frame |
//!
//! The session begins and ends each turn, and decides about the code of the close frame.
//!
//! Contract: [`ServedClient::begin_turn`], the relay's turn or that of [`crate::session::draining`], [`ServedClient::end_turn`].

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::protocol::framing::{Framing, FramingKind, MAX_DATAGRAM_LEN};
use crate::protocol::options::{Parameters, Protocol};
use crate::relay::TURN_BYTES;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};
use crate::relay::websocket::{HIGH_WATER, MIN_MESSAGE_LIMIT, NO_MEMORY, PluginEnd, ToPlugin, ToRemote, decoding_cost};
use crate::session::opening::Opened;
use crate::session::remote::{RemoteStream, wait_if_needed};
use crate::websocket::{
    Connection, Control, Entropy, Event, Kind, Leniency, MessageCounts, Role, WebSocketSettings, close,
};

/// How long the client may take to answer a close frame once it has everything.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of `[serve]`.
#[derive(Debug)]
pub(crate) struct ServedClient<S> {
    socket: SocketEndpoint<RemoteStream<S>>,
    connection: Connection,
    framing: Framing,
    /// The client's messages, on their way to the relay.
    from_client: ToPlugin,
    /// What the relay has written, on its way to the client.
    to_client: ToRemote,
    reading: ReadState,
    /// Why nothing can be written to the client any more.
    write_error: Option<io::ErrorKind>,
    /// The relay has said that nothing more comes for the client.
    is_told: bool,
    /// The relay has said in its framing that nothing more comes, or has violated it. No more is to be encoded.
    relay_ended: bool,
    /// The close frame that goes behind everything that waits: code and reason.
    last_frame: Option<(u16, &'static str)>,
    /// The relay is over: what the client still sends is dropped.
    draining: bool,
    pings: PingPayloads,
    turn: Turn,
    progress: Instant,
}

/// How the client's side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// It may send.
    Open,
    /// It sends nothing more: it has ended its side, or violated the protocol.
    Ended,
    /// Its connection broke.
    Broken(io::ErrorKind),
}

/// What is known of the turn under way.
#[derive(Debug)]
struct Turn {
    now: Instant,
    /// Bytes that the session could hold more when the turn began.
    left: usize,
    /// Bytes that were held then.
    held: usize,
    /// Bytes that may still be decoded: a client that sends frames without payload has no longer turns than others.
    allowance: usize,
    /// Bytes written to the socket.
    written: usize,
    /// A message that has come in part waits for memory.
    waits_for_memory: bool,
    /// Not all that waits was encoded: many short messages have no longer turns than others.
    more_to_encode: bool,
}

impl Turn {
    fn begin(now: Instant, left: usize, held: usize, allowance: usize) -> Self {
        Self { now, left, held, allowance, written: 0, waits_for_memory: false, more_to_encode: false }
    }
}

/// Payloads of pings. They need not be unpredictable: a server masks nothing, and a client that answers pings that it has not
/// read deceives only itself.
#[derive(Debug, Default)]
struct PingPayloads(u32);

impl Entropy for PingPayloads {
    fn mask(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_add(1);
        self.0.to_be_bytes()
    }
}

impl<S: Stream> ServedClient<S> {
    /// The client of a connection that `opened` has made, for a target that speaks `protocol`.
    pub(crate) fn new(
        opened: Opened<S>,
        ping_interval: Option<Duration>,
        protocol: Protocol,
        parameters: &Parameters,
        now: Instant,
    ) -> Self {
        let Opened { client: mut socket, response, deflate, rest } = opened;
        let max_message = match protocol {
            // Nothing is put together.
            Protocol::Tcp | Protocol::Tls => u64::MAX,
            Protocol::Udp => MAX_DATAGRAM_LEN as u64,
            Protocol::Ws | Protocol::Wss => {
                let settings = parameters.websocket.as_deref();
                let limit = settings.map_or(0, |settings| settings.max_message);
                limit.max(MIN_MESSAGE_LIMIT as u64)
            }
        };
        let settings = WebSocketSettings {
            role: Role::Server,
            mask: false,
            control: Control::Auto,
            max_message,
            leniency: Leniency::default(),
            deflate,
            ping_interval,
        };
        let mut connection = Connection::new(settings, now);
        connection.queue_response(&response);
        let framing = parameters.framing(protocol);
        let kind = if protocol == Protocol::Udp { FramingKind::Datagrams } else { FramingKind::WebSocket };
        let limit = usize::try_from(max_message).unwrap_or(usize::MAX);
        // What the client has sent behind its request may be followed by more, which no event reports.
        socket.assume_readable();
        Self {
            socket,
            connection,
            framing,
            from_client: ToPlugin::new(framing, false, rest),
            to_client: ToRemote::new(framing, kind, limit, b""),
            reading: ReadState::Open,
            write_error: None,
            is_told: false,
            relay_ended: false,
            last_frame: None,
            draining: false,
            pings: PingPayloads::default(),
            turn: Turn::begin(now, 0, 0, 0),
            progress: now,
        }
    }

    /// Adds what an event of the connection reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        self.socket.handle_event(event);
    }

    /// The client's connection.
    pub(crate) fn socket(&self) -> &SocketEndpoint<RemoteStream<S>> {
        &self.socket
    }

    /// See [`ServedClient::socket`].
    pub(crate) fn socket_mut(&mut self) -> &mut SocketEndpoint<RemoteStream<S>> {
        &mut self.socket
    }

    /// The client's messages, as those of the remote: what the client was sent was received from there.
    pub(crate) fn messages(&self) -> MessageCounts {
        let MessageCounts { received, sent } = self.connection.messages();
        MessageCounts { received: sent, sent: received }
    }

    /// Begins a turn: looks up the bounds, and writes what can be written.
    pub(crate) fn begin_turn(&mut self, now: Instant, budget: &MemoryBudget) {
        let (left, held) = (budget.left(), Endpoint::held(self));
        self.turn = Turn::begin(now, left, held, TURN_BYTES);
        if self.socket.stream().is_layered() {
            self.socket.set_send_limit((self.socket.stream().unsent() + left).max(RESERVE / 4));
            self.socket.set_receive_limit(left.max(RESERVE));
        }
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            // The socket is read before the client's silence is judged: what it sent may wait there.
            self.socket.assume_readable();
        }
        self.write();
    }

    /// Ends a turn: enforces the time limits, and writes what they and the client's frames have led to. True if there is more
    /// to do at once.
    pub(crate) fn end_turn(&mut self, budget: &mut MemoryBudget) -> bool {
        let now = self.turn.now;
        let mut again = self.turn.allowance == 0;
        if self.connection.poll_timeout().is_some_and(|due| due <= now)
            && let Some(lost) = self.connection.handle_timeout(now)
        {
            log::debug!("client lost: {lost:?}");
            self.break_off(io::ErrorKind::TimedOut);
            again = true;
        }
        if self.turn.waits_for_memory && budget.is_exhausted() {
            self.refuse_message();
            again = true;
        } else if self.turn.waits_for_memory {
            budget.wait(RESERVE);
        }
        self.write();
        again |= self.turn.more_to_encode;
        wait_if_needed(&self.socket, budget);
        budget.handle_moved(self.turn.written);
        // What is not read because the target takes nothing is no silence of the client.
        self.connection.set_reading(!self.is_readable() && !self.turn.waits_for_memory, now);
        self.from_client.shrink();
        self.to_client.shrink();
        self.connection.shrink();
        again
    }

    /// When a turn is needed even without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// True if the relay has said that nothing more comes, and no close frame is decided on.
    pub(crate) fn awaits_close(&self) -> bool {
        self.is_told && self.last_frame.is_none()
    }

    /// Sends a close frame with `code` and `reason` behind everything that waits, unless one was decided on.
    pub(crate) fn close(&mut self, code: u16, reason: &'static str) {
        self.last_frame.get_or_insert((code, reason));
        self.write();
    }

    /// The relay is over: from now on what the client sends is dropped, and its stream ends when both close frames have passed.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.progress = self.turn.now;
        self.from_client.discard();
    }

    /// When the client's time is up, after [`ServedClient::drain`]. `stall`: longest standstill of a client that has yet to
    /// read what waits.
    pub(crate) fn drain_deadline(&self, stall: Duration) -> Instant {
        self.progress + if self.is_behind() { stall } else { CLOSE_TIMEOUT }
    }

    /// Sends a text message to a client that no relay uses. False if it is not sent: something still waits for the client, or there
    /// is no memory for the message.
    pub(crate) fn send_text(&mut self, text: &str) -> bool {
        let can_send = self.write_error.is_none() && self.reading == ReadState::Open && !self.is_behind();
        let sent = can_send
            && text.len() <= self.left()
            && self.connection.send(Kind::Text, text.as_bytes(), true, &mut self.pings).is_ok();
        self.write();
        sent
    }

    /// True if something waits for the client that is not written.
    pub(crate) fn is_behind(&self) -> bool {
        self.write_error.is_none() && self.connection.queued() > 0
    }

    /// Drops everything that is held for the relay.
    pub(crate) fn release(&mut self) {
        self.from_client.clear();
    }

    /// Bytes that may be held more.
    fn left(&self) -> usize {
        self.turn.left.saturating_sub(Endpoint::held(self).saturating_sub(self.turn.held))
    }

    fn break_off(&mut self, error: io::ErrorKind) {
        if !matches!(self.reading, ReadState::Broken(_)) {
            self.reading = ReadState::Broken(error);
        }
        self.write_error.get_or_insert(error);
    }

    /// There is no memory for a message of the client.
    fn refuse_message(&mut self) {
        self.reading = ReadState::Ended;
        self.from_client.handle_end(close::MESSAGE_TOO_BIG, b"");
        self.last_frame.get_or_insert((close::MESSAGE_TOO_BIG, NO_MEMORY));
    }

    /// Writes what can be written. True if nothing is left.
    fn write(&mut self) -> bool {
        let mut allowance = TURN_BYTES;
        self.turn.more_to_encode = false;
        while self.write_error.is_none() {
            if self.framing != Framing::Raw && !self.relay_ended {
                let now = self.turn.now;
                let mut write = writer(&mut self.socket, &mut self.turn, &mut self.progress);
                let end = self.to_client.encode(&mut self.connection, &mut allowance, now, &mut write, &mut self.pings);
                drop(write);
                self.relay_ended = end.is_some();
                match end {
                    None => {}
                    Some(PluginEnd::Closed) => drop(self.last_frame.get_or_insert((close::NO_STATUS, ""))),
                    // The relay's own framing.
                    Some(PluginEnd::Violation(error)) => {
                        log::error!("a relay's framing: {}", error.reason());
                        self.last_frame.get_or_insert((close::INTERNAL_ERROR, ""));
                    }
                }
            }
            // With an allowance left and nothing queued, all is encoded.
            let is_all_sent = self.connection.queued() == 0 && allowance > 0;
            if is_all_sent && let Some((code, reason)) = self.last_frame {
                self.connection.close(code, reason, self.turn.now, &mut self.pings);
            }
            let waiting = self.connection.poll_transmit(&mut self.pings);
            if waiting.is_empty() {
                self.turn.more_to_encode = allowance == 0;
                return self.flush_socket();
            }
            match self.socket.try_write(waiting) {
                Transfer::Bytes(sent) => {
                    self.connection.handle_transmitted(sent);
                    self.turn.written += sent;
                    self.progress = self.turn.now;
                }
                Transfer::Blocked | Transfer::Eof => return false,
                // What it sent before is still read; that ends in the same error.
                Transfer::Broken(error) => self.write_error = Some(error.kind()),
            }
        }
        true
    }

    fn flush_socket(&mut self) -> bool {
        match self.socket.flush() {
            Ok(true) => {
                if self.connection.ends_first() {
                    self.socket.shutdown_write();
                    self.write_error = Some(io::ErrorKind::BrokenPipe);
                }
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.write_error = Some(error.kind());
                true
            }
        }
    }

    /// Takes what waits for the relay.
    fn take(&mut self, buffer: &mut [u8]) -> Transfer {
        let waiting = self.from_client.waiting();
        let length = waiting.len().min(buffer.len());
        buffer[..length].copy_from_slice(&waiting[..length]);
        self.from_client.handle_written(length);
        Transfer::Bytes(length)
    }

    /// Decodes what the client has sent, until enough waits for the relay, or the turn's allowance is used up. What is left of
    /// `input` is decoded later.
    fn decode(&mut self, input: &mut [u8]) {
        let mut at = 0;
        while self.reading == ReadState::Open {
            self.from_client.more = self.from_client.waiting().len() >= HIGH_WATER || self.turn.allowance == 0;
            if self.from_client.more {
                self.from_client.undecoded = input[at..].to_vec();
                return;
            }
            let left = self.left() + RESERVE;
            let (used, event) = self.connection.handle_input(&mut input[at..], self.turn.now);
            at += used;
            self.turn.allowance = self.turn.allowance.saturating_sub(decoding_cost(used, event));
            let has_room = match event {
                None if used == 0 => return,
                None => true,
                Some(Event::Closed { code, reason }) => {
                    self.reading = ReadState::Ended;
                    self.from_client.handle_end(code, reason);
                    true
                }
                Some(Event::InvalidClose { error, .. } | Event::Failed(error)) => {
                    log::debug!("client violates the protocol: {error}");
                    self.reading = ReadState::Ended;
                    true
                }
                Some(event @ Event::Start { .. }) => {
                    self.from_client.handle_event(event, left) && self.connection.inflater_needed() <= left
                }
                Some(event) => self.from_client.handle_event(event, left),
            };
            if !has_room {
                self.refuse_message();
            }
        }
    }

    /// The same in RAW without compression: the payloads in the first `read` bytes of `buffer` are moved together there. Returns
    /// how many bytes these are.
    fn decode_in_place(&mut self, buffer: &mut [u8], read: usize) -> usize {
        let (mut at, mut filled) = (0, 0);
        while self.reading == ReadState::Open {
            if self.turn.allowance == 0 {
                self.from_client.more = true;
                self.from_client.undecoded = buffer[at..read].to_vec();
                break;
            }
            let (used, event) = self.connection.handle_input(&mut buffer[at..read], self.turn.now);
            at += used;
            self.turn.allowance = self.turn.allowance.saturating_sub(decoding_cost(used, event));
            let piece: Range<usize> = match event {
                None if used == 0 => break,
                // What is not compressed lies where it was read, and is the last that was consumed.
                Some(Event::Data(bytes)) => at - bytes.len()..at,
                Some(Event::Closed { .. } | Event::InvalidClose { .. } | Event::Failed(_)) => {
                    self.reading = ReadState::Ended;
                    break;
                }
                _ => continue,
            };
            let length = piece.len();
            if piece.start != filled {
                buffer.copy_within(piece, filled);
            }
            filled += length;
        }
        filled
    }

    /// True if the connection may be closed. A client that has violated the protocol gets time to read why.
    fn is_drained(&self) -> bool {
        self.connection.is_over()
            || matches!(self.reading, ReadState::Broken(_))
            || (self.write_error.is_some() && !self.connection.has_failed())
    }

    /// Reads after [`ServedClient::drain`]: [`Transfer::Eof`] says that the connection may be closed.
    fn drain_socket(&mut self, buffer: &mut [u8]) -> Transfer {
        if self.is_drained() {
            return Transfer::Eof;
        }
        let transfer = self.socket.try_read(buffer);
        match transfer {
            Transfer::Bytes(read) => {
                let mut input = &mut buffer[..read];
                loop {
                    let (used, event) = self.connection.handle_input(input, self.turn.now);
                    if used == 0 && event.is_none() {
                        break;
                    }
                    input = &mut std::mem::take(&mut input)[used..];
                }
                // The answer to a close frame.
                self.write();
            }
            Transfer::Eof => drop(self.connection.handle_eof()),
            Transfer::Blocked | Transfer::Broken(_) => {}
        }
        transfer
    }
}

/// Writes long frames to the client from where their payload lies: see [`Connection::send_uncopied`].
fn writer<S: Stream>(
    socket: &mut SocketEndpoint<RemoteStream<S>>,
    turn: &mut Turn,
    progress: &mut Instant,
) -> impl FnMut(&[u8], &[u8]) -> usize {
    move |header, payload| {
        let written = socket.try_write_both(header, payload);
        if written > 0 {
            turn.written += written;
            *progress = turn.now;
        }
        written
    }
}

impl<S: Stream> Endpoint for ServedClient<S> {
    /// Payloads of messages, or messages in the framing of the relay.
    fn try_read(&mut self, buffer: &mut [u8]) -> Transfer {
        if self.draining {
            return self.drain_socket(buffer);
        }
        if !self.from_client.waiting().is_empty() {
            return self.take(buffer);
        }
        if self.from_client.more && self.turn.allowance > 0 {
            let mut undecoded = std::mem::take(&mut self.from_client.undecoded);
            self.decode(&mut undecoded);
            return self.take(buffer);
        }
        match self.reading {
            ReadState::Open if self.turn.allowance == 0 => return Transfer::Blocked,
            ReadState::Open => {}
            ReadState::Ended => return Transfer::Eof,
            ReadState::Broken(error) => return Transfer::Broken(error.into()),
        }
        if self.from_client.incomplete() > RESERVE && self.left() == 0 && !self.from_client.pass_early(0) {
            self.turn.waits_for_memory = true;
            return Transfer::Blocked;
        }
        match self.socket.try_read(buffer) {
            Transfer::Bytes(read) if self.framing == Framing::Raw && !self.connection.is_compressed() => {
                Transfer::Bytes(self.decode_in_place(buffer, read))
            }
            Transfer::Bytes(read) => {
                self.decode(&mut buffer[..read]);
                self.take(buffer)
            }
            Transfer::Eof => {
                self.connection.handle_eof();
                self.reading = ReadState::Ended;
                self.write_error.get_or_insert(io::ErrorKind::BrokenPipe);
                Transfer::Eof
            }
            Transfer::Broken(error) => {
                self.break_off(error.kind());
                Transfer::Broken(error)
            }
            Transfer::Blocked => Transfer::Blocked,
        }
    }

    /// Takes bytes if nothing waits for the client, and writes what can be written. In RAW they are one message.
    fn try_write(&mut self, bytes: &[u8]) -> Transfer {
        if let Some(error) = self.write_error {
            return Transfer::Broken(error.into());
        }
        if self.reading == ReadState::Ended {
            // Its close frame has come. A relay of messages has been told so in its framing.
            return match self.framing {
                Framing::Raw => Transfer::Broken(io::ErrorKind::BrokenPipe.into()),
                Framing::Line | Framing::Mesg => Transfer::Bytes(bytes.len()),
            };
        }
        if !self.write() {
            return Transfer::Blocked;
        }
        // A part of a message that is put together waits for the rest, so its memory is what limits it.
        let room = if self.to_client.buffered() > RESERVE { self.left() } else { self.left().max(RESERVE) };
        let taken = bytes.len().min(room);
        if taken == 0 {
            self.turn.waits_for_memory = true;
            return Transfer::Blocked;
        }
        let left = self.left();
        let mut write = writer(&mut self.socket, &mut self.turn, &mut self.progress);
        self.to_client.decode(&bytes[..taken], left, &mut self.connection, &mut write, &mut self.pings);
        drop(write);
        self.write();
        Transfer::Bytes(taken)
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(self.write())
    }

    /// Notes the end, whose code the session knows: see [`ServedClient::close`].
    fn shutdown_write(&mut self) {
        self.is_told = true;
    }

    fn is_readable(&self) -> bool {
        if self.draining {
            return self.is_drained() || self.socket.is_readable();
        }
        let has_more = self.from_client.more || self.socket.is_readable();
        !self.from_client.waiting().is_empty()
            || self.reading != ReadState::Open
            || (has_more && self.turn.allowance > 0 && !self.turn.waits_for_memory)
    }

    fn assume_readable(&mut self) {
        self.socket.assume_readable();
    }

    fn is_writable(&self) -> bool {
        self.write_error.is_some() || (self.socket.is_writable() && !self.is_behind() && !self.turn.waits_for_memory)
    }

    fn is_read_closed(&self) -> bool {
        self.reading != ReadState::Open || self.socket.is_read_closed()
    }

    /// A client that has ended its side is read to its end, which tells the relay; only one that breaks off is closed.
    fn is_closed(&self) -> bool {
        match self.reading {
            ReadState::Open => self.socket.is_closed(),
            ReadState::Ended => false,
            ReadState::Broken(_) => true,
        }
    }

    fn held(&self) -> usize {
        self.socket.held() + self.connection.held() + self.from_client.held() + self.to_client.held()
    }
}
