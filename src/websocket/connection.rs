//! [`Connection`]: an open WebSocket connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::Opcode;
use super::keepalive::{Keepalive, PongMatch};
use super::receiver::{Decoded, PayloadLocation, Receiver};
use super::sender::Sender;
use super::{
    ClosingError, ConnectionLost, Control, ControlFrameError, Entropy, Event, Kind, Leniency, MAX_CONTROL_PAYLOAD,
    MessageCounts, ProtocolError, Role, WebSocketSettings, WriteFrame, close,
};
use crate::trace::{Trace, Way};

/// How long the peer's close frame may take after ours, and then the server's closing of the transport.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the close frame after a protocol error may take to be written, and then the peer's closing of the
/// transport. Closing a socket with unread input resets the connection, and the peer might not read the reason.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(1);

/// The stages of a connection, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionStage {
    Open,
    /// Our close frame is queued or sent. The peer's must come before this instant.
    Closing(Instant),
    /// The peer's close frame has come. Ours must be written, and a server must close the transport, before this
    /// instant.
    Closed(Instant),
    /// The peer violated the protocol. Our close frame must be written, and the peer must close the transport, before
    /// this instant.
    Failed(Instant),
    /// The transport has ended, or a deadline has passed.
    Over,
}

/// The verb of a frame, as `FRAM=MESG` has it.
fn verb(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Text => "TEXT",
        Opcode::Binary | Opcode::Continuation => "BINA",
        Opcode::Close => "CLOS",
        Opcode::Ping => "PING",
        Opcode::Pong => "PONG",
    }
}

/// An [`Event`] whose payload is still given by its location, so that it borrows nothing.
enum PendingEvent {
    Start(Kind, Option<u64>),
    Data(PayloadLocation),
    End,
    Ping(PayloadLocation),
    Pong(PayloadLocation, bool),
    Closed(u16, PayloadLocation),
    InvalidClose(ProtocolError, u16, PayloadLocation),
}

/// Pongs that wait at most: 4 KiB for a peer that sends pings and does not read.
const MAX_PENDING_PONGS: usize = 32;

/// An open connection, from the blank line of the opening handshake to the end of the transport.
///
/// Call order: after any input, command or timeout, write what [`Connection::poll_transmit`] returns, then call
/// [`Connection::is_over`] and [`Connection::poll_timeout`].
#[derive(Debug)]
pub(crate) struct Connection {
    role: Role,
    control: Control,
    leniency: Leniency,
    stage: ConnectionStage,
    receiver: Receiver,
    sender: Sender,
    keepalive: Keepalive,
    /// Pongs that wait: one for each of the latest [`MAX_PENDING_PONGS`] pings, since one read may bring several. Boxed
    /// because they are rare.
    #[expect(clippy::box_collection, reason = "None takes a quarter of the bytes of an empty VecDeque")]
    pongs: Option<Box<VecDeque<Vec<u8>>>>,
    /// Queued bytes up to the end of the last automatic pong. Until they are written, no further pong is queued, so
    /// that a peer that sends pings and does not read cannot fill the memory.
    unwritten_pongs: usize,
    /// The close frame that waits for encoding: code and reason.
    pending_close: Option<(u16, &'static str)>,
    /// True once the transport has ended.
    eof: bool,
    last_frame: Instant,
    messages: MessageCounts,
    /// Where frames are recorded (TRAC).
    trace: Option<Box<Trace>>,
    /// The message that comes, for the trace.
    traced: TracedMessage,
}

/// A message that comes, as the trace shows it.
#[derive(Debug)]
struct TracedMessage {
    kind: Kind,
    /// The message has had a byte, so that it is in the trace already.
    has_bytes: bool,
}

impl Connection {
    /// A connection after its opening handshake. Bytes that followed the handshake are the first input.
    pub(crate) fn new(settings: WebSocketSettings, now: Instant) -> Self {
        Self {
            role: settings.role,
            control: settings.control,
            stage: ConnectionStage::Open,
            leniency: settings.leniency,
            receiver: Receiver::new(&settings),
            sender: Sender::new(&settings),
            keepalive: Keepalive::new(settings.ping_interval, now),
            pongs: None,
            unwritten_pongs: 0,
            pending_close: None,
            eof: false,
            last_frame: now,
            messages: MessageCounts::default(),
            trace: None,
            traced: TracedMessage { kind: Kind::Binary, has_bytes: false },
        }
    }

    /// Where frames are recorded from now on; `None`: nowhere. Returns what was set before. A message that comes in pieces has
    /// a record for each.
    pub(crate) fn replace_trace(&mut self, trace: Option<Box<Trace>>) -> Option<Box<Trace>> {
        std::mem::replace(&mut self.trace, trace)
    }

    fn record(&mut self, way: Way, what: &str, bytes: &[u8]) {
        if let Some(trace) = &mut self.trace {
            trace.record(way, what, bytes, bytes.len());
        }
    }

    /// Queues a control frame.
    fn queue_control(&mut self, opcode: Opcode, payload: &[u8], entropy: &mut dyn Entropy) {
        self.record(Way::ToRemote, verb(opcode), payload);
        self.sender.control(opcode, payload, entropy);
    }

    /// Queues the server's response of the opening handshake, which goes before any frame. For a new connection.
    pub(crate) fn queue_response(&mut self, response: &[u8]) {
        self.sender.raw(response);
    }

    /// Consumes a prefix of `input` and returns its length with at most one event. Call with the rest until it returns
    /// `(0, None)`, even if the rest is empty: one input may inflate to several pieces. Consumed bytes are changed in
    /// place. After [`Event::Closed`], [`Event::InvalidClose`] and [`Event::Failed`] all input is consumed and ignored.
    ///
    /// A call consumes at most one frame that causes no event, so that the caller can count what such frames cost.
    pub(crate) fn handle_input<'a>(&'a mut self, input: &'a mut [u8], now: Instant) -> (usize, Option<Event<'a>>) {
        if !matches!(self.stage, ConnectionStage::Open | ConnectionStage::Closing(_)) {
            return (input.len(), None);
        }
        if !input.is_empty() {
            self.keepalive.handle_received(now);
        }
        let mut taken = 0;
        loop {
            let decoded = self.receiver.advance(input, &mut taken);
            if self.receiver.take_completed() {
                self.last_frame = now;
            }
            let event = match decoded {
                Ok(None) => return (taken, None),
                Ok(Some(decoded)) => self.handle_decoded(decoded, input, now),
                Err(error) => Err(error),
            };
            let event = match event {
                // `(0, None)` would mean that there is nothing more. Only the empty fragment that begins a message gets here
                // without a byte: its header was consumed with the start of the message.
                Ok(None) if taken == 0 => continue,
                Ok(None) => return (taken, None),
                Ok(Some(event)) => self.event(event, input),
                Err(error) => {
                    self.fail(error, now);
                    return (input.len(), Some(Event::Failed(error)));
                }
            };
            return (taken, Some(event));
        }
    }

    /// The transport has ended. True if the peer's end is known already from [`Event::Closed`], [`Event::Failed`] or
    /// [`ConnectionLost`]; false if the peer vanished, which the plugin sees as 1006. A peer that has sent its close
    /// frame may still read the answer.
    pub(crate) fn handle_eof(&mut self) -> bool {
        self.eof = true;
        match self.stage {
            ConnectionStage::Open | ConnectionStage::Closing(_) => {
                self.stage = ConnectionStage::Over;
                false
            }
            ConnectionStage::Closed(_) | ConnectionStage::Failed(_) | ConnectionStage::Over => true,
        }
    }

    /// Sets whether the caller reads from the transport; initially true. While it does not, the peer cannot be called
    /// silent: no ping is due, and the ping interval starts anew when reading resumes.
    pub(crate) fn set_reading(&mut self, reading: bool, now: Instant) {
        self.keepalive.set_reading(reading, now);
    }

    /// Queues one frame of a message. `fin` is false if more frames follow; a whole message in one frame has `fin`
    /// true. The `kind` of a message's first frame counts. The caller guarantees that text is UTF-8.
    pub(crate) fn send(
        &mut self,
        kind: Kind,
        payload: &[u8],
        fin: bool,
        entropy: &mut dyn Entropy,
    ) -> Result<(), ClosingError> {
        self.send_uncopied(kind, payload, fin, &mut |_, _| 0, entropy)
    }

    /// [`Connection::send`] for a caller that can write the payload to the transport from where it lies. If nothing waits
    /// before a long frame without mask and compression, `write` gets its header and its payload. It returns how many bytes
    /// of both together it has written, 0 if none. The rest is queued.
    #[inline]
    pub(crate) fn send_uncopied(
        &mut self,
        kind: Kind,
        payload: &[u8],
        fin: bool,
        write: &mut WriteFrame<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<(), ClosingError> {
        // Section 5.5.1: an endpoint MUST NOT send data frames after a close frame.
        if self.stage != ConnectionStage::Open {
            return Err(ClosingError);
        }
        self.record(Way::ToRemote, verb(kind.into()), payload);
        self.sender.data(kind, payload, fin, write, entropy);
        self.messages.sent += u64::from(fin);
        Ok(())
    }

    /// Queues a ping of the user; its pong will be reported. `payload`: at most [`MAX_CONTROL_PAYLOAD`] bytes. Of more
    /// than eight unanswered pings the oldest is forgotten.
    pub(crate) fn send_ping(&mut self, payload: &[u8], entropy: &mut dyn Entropy) -> Result<(), ControlFrameError> {
        self.send_control(Opcode::Ping, payload, entropy)?;
        self.keepalive.handle_user_ping(payload);
        Ok(())
    }

    /// Queues a pong. `payload`: at most [`MAX_CONTROL_PAYLOAD`] bytes.
    pub(crate) fn send_pong(&mut self, payload: &[u8], entropy: &mut dyn Entropy) -> Result<(), ControlFrameError> {
        self.send_control(Opcode::Pong, payload, entropy)
    }

    fn send_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), ControlFrameError> {
        if self.stage != ConnectionStage::Open {
            return Err(ControlFrameError::Closing);
        }
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(ControlFrameError::TooLong);
        }
        self.queue_control(opcode, payload, entropy);
        Ok(())
    }

    /// Begins the closing handshake; does nothing if it has begun. A `code` that [`close::is_valid`] rejects, such as
    /// 1005, sends a close frame without code and reason. `reason` is cut to 123 bytes. Messages may still come until
    /// the peer's close frame, for at most 5 s.
    pub(crate) fn close(&mut self, code: u16, reason: &str, now: Instant, entropy: &mut dyn Entropy) {
        if self.stage == ConnectionStage::Open {
            self.queue_control(Opcode::Close, &close::encode(code, reason), entropy);
            self.pongs = None;
            self.stage = ConnectionStage::Closing(now + CLOSE_TIMEOUT);
        }
    }

    /// Encodes the frames that wait (pongs, pings of `ping_interval`, the answer to a close frame) and returns the
    /// bytes to write.
    pub(crate) fn poll_transmit(&mut self, entropy: &mut dyn Entropy) -> &[u8] {
        if self.stage == ConnectionStage::Open {
            if self.unwritten_pongs == 0
                && let Some(pongs) = self.pongs.take()
            {
                for payload in *pongs {
                    self.queue_control(Opcode::Pong, &payload, entropy);
                }
                self.unwritten_pongs = self.sender.queued();
            }
            if let Some(payload) = self.keepalive.poll_ping(|| entropy.mask()) {
                self.queue_control(Opcode::Ping, &payload, entropy);
            }
        }
        if let Some((code, reason)) = self.pending_close.take() {
            self.queue_control(Opcode::Close, &close::encode(code, reason), entropy);
        }
        self.sender.pending()
    }

    /// `bytes` of those that [`Connection::poll_transmit`] returned have been written.
    pub(crate) fn handle_transmitted(&mut self, bytes: usize) {
        self.sender.handle_transmitted(bytes);
        self.unwritten_pongs = self.unwritten_pongs.saturating_sub(bytes);
    }

    /// Bytes that wait to be written: the caller's measure for backpressure.
    pub(crate) fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// Bytes of memory held: by frames that wait to be written, the inflater, a control frame that has come in part, and
    /// the payloads of pings that are yet to be answered by either side.
    pub(crate) fn held(&self) -> usize {
        let pongs = self.pongs.as_ref().map_or(0, |pongs| pongs.iter().map(Vec::len).sum());
        self.sender.held() + self.receiver.held() + self.keepalive.held() + pongs
    }

    /// Gives back memory that the frames which wait do not need. To be called when they wait for the transport.
    pub(crate) fn shrink(&mut self) {
        self.sender.shrink();
    }

    /// After [`Event::Start`]: bytes that the message will take for an inflater, besides [`Connection::held`]. 0 unless it
    /// is compressed, and if the inflater of an earlier message is still there. A caller without that much memory calls
    /// [`Connection::close`] and gives no more input.
    pub(crate) fn inflater_needed(&self) -> usize {
        self.receiver.inflater_needed()
    }

    /// When to call [`Connection::handle_timeout`]; `None`: not by time.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            ConnectionStage::Open => self.keepalive.poll_timeout(),
            ConnectionStage::Closing(at) => Some(at),
            ConnectionStage::Closed(at) | ConnectionStage::Failed(at) => (!self.is_over()).then_some(at),
            ConnectionStage::Over => None,
        }
    }

    /// A deadline may have passed. If the result is `None`, a ping may have become due: call
    /// [`Connection::poll_transmit`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<ConnectionLost> {
        let lost = match self.stage {
            ConnectionStage::Open => self.keepalive.handle_timeout(now).then_some(ConnectionLost::NoPong),
            ConnectionStage::Closing(at) => (now >= at).then_some(ConnectionLost::NoCloseFrame),
            ConnectionStage::Closed(at) | ConnectionStage::Failed(at) => {
                (now >= at && !self.is_over()).then_some(ConnectionLost::NotClosed)
            }
            ConnectionStage::Over => None,
        };
        if lost.is_some() {
            self.stage = ConnectionStage::Over;
        }
        lost
    }

    /// True if both close frames are done and everything is written: the transport is to be closed. Section 7.1.1: the
    /// server SHOULD close it first, so a client waits for that, for up to 5 s. After a protocol error the peer has 1 s
    /// to read the reason.
    pub(crate) fn is_over(&self) -> bool {
        let flushed = self.is_flushed();
        match self.stage {
            ConnectionStage::Open | ConnectionStage::Closing(_) => false,
            ConnectionStage::Closed(_) => flushed && (self.role == Role::Server || self.eof),
            ConnectionStage::Failed(_) => flushed && self.eof,
            ConnectionStage::Over => true,
        }
    }

    /// True if a server has nothing more to write: its side of the transport is to be ended. Section 7.1.1: the server SHOULD
    /// end the connection first. After a violation the client's bytes are still read, so that it gets the reason.
    pub(crate) fn ends_first(&self) -> bool {
        self.role == Role::Server && self.is_flushed() && (self.has_failed() || self.is_over())
    }

    /// True if no frame waits to be encoded or written, but for pongs and pings of `ping_interval`.
    fn is_flushed(&self) -> bool {
        self.pending_close.is_none() && self.sender.queued() == 0
    }

    /// True if the peer may send compressed messages.
    pub(crate) fn is_compressed(&self) -> bool {
        self.receiver.is_compressed()
    }

    /// True if nothing more comes from the peer, because it has violated the protocol.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.stage, ConnectionStage::Failed(_))
    }

    /// When the last complete frame came from the peer, control frames included (for RTIM). Initially the start of the
    /// connection.
    pub(crate) fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// The messages that have passed.
    pub(crate) fn messages(&self) -> MessageCounts {
        self.messages
    }

    /// Acts on a decoded element and returns the event to report, if any.
    fn handle_decoded(
        &mut self,
        decoded: Decoded,
        input: &[u8],
        now: Instant,
    ) -> Result<Option<PendingEvent>, ProtocolError> {
        self.record_decoded(&decoded, input);
        Ok(match decoded {
            Decoded::Start(kind, length) => Some(PendingEvent::Start(kind, length)),
            Decoded::Data(location) => Some(PendingEvent::Data(location)),
            Decoded::Fragment => None,
            Decoded::End => {
                self.messages.received += 1;
                Some(PendingEvent::End)
            }
            Decoded::Control(Opcode::Ping, location) => {
                // Section 5.5.2: a pong MUST answer a ping, unless a close frame has been received. After our own close
                // frame nothing is sent. Section 5.5.3: if several pings wait, answering the latest is enough.
                if self.control != Control::Hand && self.stage == ConnectionStage::Open {
                    let pongs = self.pongs.get_or_insert_default();
                    if pongs.len() == MAX_PENDING_PONGS {
                        pongs.pop_front();
                    }
                    pongs.push_back(self.receiver.bytes(&location, input).to_vec());
                }
                (self.control != Control::Auto).then_some(PendingEvent::Ping(location))
            }
            Decoded::Control(Opcode::Close, location) => Some(self.handle_close_frame(location, input, now)?),
            // The receiver decodes no control frames but close, ping and pong.
            Decoded::Control(_, location) => match self.keepalive.handle_pong(self.receiver.bytes(&location, input)) {
                PongMatch::Keepalive => None,
                PongMatch::User => Some(PendingEvent::Pong(location, true)),
                PongMatch::Unsolicited => {
                    (self.control != Control::Auto).then_some(PendingEvent::Pong(location, false))
                }
            },
        })
    }

    /// Records what was decoded for the trace.
    fn record_decoded(&mut self, decoded: &Decoded, input: &[u8]) {
        let TracedMessage { kind, has_bytes } = self.traced;
        if let Some(trace) = &mut self.trace {
            let passes = match decoded {
                Decoded::Data(location) => Some((kind.into(), self.receiver.bytes(location, input))),
                Decoded::End if !has_bytes => Some((kind.into(), &b""[..])),
                Decoded::Control(opcode, location) => Some((*opcode, self.receiver.bytes(location, input))),
                Decoded::Start(..) | Decoded::Fragment | Decoded::End => None,
            };
            if let Some((opcode, bytes)) = passes {
                trace.record(Way::ToPlugin, verb(opcode), bytes, bytes.len());
            }
        }
        match decoded {
            Decoded::Start(kind, _) => self.traced = TracedMessage { kind: *kind, has_bytes: false },
            Decoded::Data(_) => self.traced.has_bytes = true,
            Decoded::Fragment | Decoded::End | Decoded::Control(..) => {}
        }
    }

    fn handle_close_frame(
        &mut self,
        location: PayloadLocation,
        input: &[u8],
        now: Instant,
    ) -> Result<PendingEvent, ProtocolError> {
        let payload = self.receiver.bytes(&location, input);
        let code = match (close::parse(payload, self.leniency.utf8), payload.first_chunk()) {
            (Ok(code), _) => code,
            (Err(error), None) => return Err(error),
            (Err(error), Some(code)) => {
                let code = u16::from_be_bytes(*code);
                self.fail(error, now);
                return Ok(PendingEvent::InvalidClose(error, code, location));
            }
        };
        if self.stage == ConnectionStage::Open {
            // Section 5.5.1: a close frame MUST be answered by a close frame, which typically echoes the code.
            self.pending_close = Some((code, ""));
            self.pongs = None;
        }
        self.stage = ConnectionStage::Closed(now + CLOSE_TIMEOUT);
        Ok(PendingEvent::Closed(code, location))
    }

    /// Section 7.1.7: fails the connection. The peer is sent the code and reason, unless our close frame has been sent
    /// already.
    fn fail(&mut self, error: ProtocolError, now: Instant) {
        if self.stage == ConnectionStage::Open {
            self.pending_close = Some((error.code, error.reason));
            self.pongs = None;
        }
        self.stage = ConnectionStage::Failed(now + FAILURE_TIMEOUT);
    }

    fn event<'a>(&'a self, event: PendingEvent, input: &'a [u8]) -> Event<'a> {
        let bytes = |location| self.receiver.bytes(location, input);
        match &event {
            PendingEvent::Start(kind, length) => Event::Start { kind: *kind, length: *length },
            PendingEvent::Data(location) => Event::Data(bytes(location)),
            PendingEvent::End => Event::End,
            PendingEvent::Ping(location) => Event::Ping(bytes(location)),
            PendingEvent::Pong(location, answers) => Event::Pong(bytes(location), *answers),
            PendingEvent::InvalidClose(error, code, location) => {
                let reason = bytes(location).get(2..).unwrap_or_default();
                Event::InvalidClose { error: *error, code: *code, reason }
            }
            // `close::parse` has checked code and reason.
            PendingEvent::Closed(code, location) => {
                Event::Closed { code: *code, reason: bytes(location).get(2..).unwrap_or_default() }
            }
        }
    }
}
