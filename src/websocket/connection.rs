//! An open connection: messages, control frames, and the closing handshake.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::Opcode;
use super::keepalive::{Answers, Liveness};
use super::receiver::{Found, Place, Receiver};
use super::sender::Sender;
use super::{CONTROL_LIMIT, Closing, Control, Entropy, Event, Failure, Kind, Lost, Refused, Role, Settings, close};

/// How long the answer to our close frame, or the server's closing of the transport, may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a close frame that says what the peer did wrong may take to be written, and the peer to end. Who shuts the
/// transport with input unread resets it, and the peer may never read why.
const FAILURE_PATIENCE: Duration = Duration::from_secs(1);

/// How far the connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Our close frame is out, the peer's is awaited until then.
    Closing(Instant),
    /// The peer's close frame came, ours is out or waits. Until then it may be written, and the server may close.
    Closed(Instant),
    /// The peer failed. Until then our close frame may be written, and the peer may end.
    Failed(Instant),
    /// The transport ended, or something took too long.
    Over,
}

/// What is to be shown, before it is known where it is.
enum Shown {
    Start(Kind),
    Data(Place),
    End,
    Ping(Place),
    Pong(Place, bool),
    Closed(u16, Place),
}

/// Pongs that wait at most: 4 KiB for a peer that asks and does not read.
const PONGS: usize = 32;

/// A connection, from the blank line of the opening handshake to the end of the transport.
///
/// Contract: after any input, command or timeout, write what [`Connection::poll_transmit`] gives, then ask
/// [`Connection::is_over`] and [`Connection::poll_timeout`].
#[derive(Debug)]
pub struct Connection {
    role: Role,
    control: Control,
    stage: Stage,
    receiver: Receiver,
    sender: Sender,
    liveness: Liveness,
    /// The pongs that wait, to the latest [`PONGS`] pings: several may have come in one read. Boxed, since they are rare.
    #[expect(clippy::box_collection, reason = "while there is none, it takes a quarter of the room")]
    pongs: Option<Box<VecDeque<Vec<u8>>>>,
    /// So many bytes are to be written until the last pong that answered by itself is out. Others have to wait for that,
    /// so that a peer who asks and does not read cannot fill our memory.
    until_ponged: usize,
    /// The close frame that waits: code and reason.
    answer: Option<(u16, &'static str)>,
    /// Nothing more comes from the transport.
    eof: bool,
    last_frame: Instant,
    received: u64,
    sent: u64,
}

impl Connection {
    /// A connection whose opening handshake is done. Bytes that came behind its blank line are the first input.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            role: settings.role,
            control: settings.control,
            stage: Stage::Open,
            receiver: Receiver::new(settings.role, settings.max_message, settings.deflate),
            sender: Sender::new(&settings),
            liveness: Liveness::new(settings.ping_interval, now),
            pongs: None,
            until_ponged: 0,
            answer: None,
            eof: false,
            last_frame: now,
            received: 0,
            sent: 0,
        }
    }

    /// Takes a prefix of `input` and gives at most one event; call with the rest until it answers `(0, None)`, also when
    /// nothing is left: what is inflated may give several pieces. What was taken has been changed in place. After
    /// [`Event::Closed`] and [`Event::Failed`] input is consumed whole and ignored.
    pub fn handle_input<'a>(&'a mut self, input: &'a mut [u8], now: Instant) -> (usize, Option<Event<'a>>) {
        if !matches!(self.stage, Stage::Open | Stage::Closing(_)) {
            return (input.len(), None);
        }
        if !input.is_empty() {
            self.liveness.handle_heard(now);
        }
        let mut taken = 0;
        loop {
            let found = self.receiver.advance(input, &mut taken);
            if self.receiver.take_completed() {
                self.last_frame = now;
            }
            let shown = match found {
                Ok(None) => return (taken, None),
                Ok(Some(found)) => self.digest(found, input, now),
                Err(failure) => Err(failure),
            };
            let event = match shown {
                Ok(None) => continue,
                Ok(Some(shown)) => self.event(shown, input),
                Err(failure) => {
                    self.fail(failure, now);
                    return (input.len(), Some(Event::Failed(failure)));
                }
            };
            return (taken, Some(event));
        }
    }

    /// The transport gives nothing more. True: the peer's end is known from [`Event::Closed`], [`Event::Failed`] or
    /// [`Lost`]; false: it vanished, which is 1006 to the plugin. A peer that has closed may still read our answer.
    pub fn handle_eof(&mut self) -> bool {
        self.eof = true;
        match self.stage {
            Stage::Open | Stage::Closing(_) => {
                self.stage = Stage::Over;
                false
            }
            Stage::Closed(_) | Stage::Failed(_) | Stage::Over => true,
        }
    }

    /// The caller reads from the transport, or has ceased to because it can take no more. While it does not, nobody can
    /// say that the peer is silent: no ping is due, and the silence begins anew when reading does. Initially true.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        self.liveness.set_listening(reading, now);
    }

    /// Sends one frame of a message; `fin` false: more follow. A whole message is one frame with `fin` true. Of a message
    /// in several frames the first one's `kind` holds. That text is UTF-8 is the caller's care.
    pub fn send(&mut self, kind: Kind, payload: &[u8], fin: bool, entropy: &mut dyn Entropy) -> Result<(), Closing> {
        // Section 5.5.1: after a close frame no more data MUST be sent.
        if self.stage != Stage::Open {
            return Err(Closing);
        }
        self.sender.data(kind, payload, fin, entropy);
        self.sent += u64::from(fin);
        Ok(())
    }

    /// Sends a ping of the user's own: its pong will be shown. `payload`: at most [`CONTROL_LIMIT`] bytes. Of more than
    /// eight that are on their way the oldest is forgotten.
    pub fn send_ping(&mut self, payload: &[u8], entropy: &mut dyn Entropy) -> Result<(), Refused> {
        self.send_control(Opcode::Ping, payload, entropy)?;
        self.liveness.handle_user_ping(payload);
        Ok(())
    }

    /// Sends a pong. `payload`: at most [`CONTROL_LIMIT`] bytes.
    pub fn send_pong(&mut self, payload: &[u8], entropy: &mut dyn Entropy) -> Result<(), Refused> {
        self.send_control(Opcode::Pong, payload, entropy)
    }

    fn send_control(&mut self, opcode: Opcode, payload: &[u8], entropy: &mut dyn Entropy) -> Result<(), Refused> {
        if self.stage != Stage::Open {
            return Err(Refused::Closing);
        }
        if payload.len() > CONTROL_LIMIT {
            return Err(Refused::TooLong);
        }
        self.sender.control(opcode, payload, entropy);
        Ok(())
    }

    /// Begins the closing handshake; where it has begun, nothing happens. `code`: one that [`close::is_valid`] accepts,
    /// any other (1005) sends none, and no reason. `reason` is cut to 123 bytes. Messages still come until the peer's
    /// close frame, for at most 5 s.
    pub fn close(&mut self, code: u16, reason: &str, now: Instant, entropy: &mut dyn Entropy) {
        if self.stage == Stage::Open {
            self.sender.control(Opcode::Close, &close::encode(code, reason), entropy);
            self.pongs = None;
            self.stage = Stage::Closing(now + CLOSE_PATIENCE);
        }
    }

    /// Encodes what waits (pongs, pings of `ping_interval`, answers to a close) and gives what is to be written.
    pub fn poll_transmit(&mut self, entropy: &mut dyn Entropy) -> &[u8] {
        if self.stage == Stage::Open {
            if self.until_ponged == 0
                && let Some(pongs) = self.pongs.take()
            {
                for payload in *pongs {
                    self.sender.control(Opcode::Pong, &payload, entropy);
                }
                self.until_ponged = self.sender.queued();
            }
            if let Some(payload) = self.liveness.poll_ping(|| entropy.mask()) {
                self.sender.control(Opcode::Ping, &payload, entropy);
            }
        }
        if let Some((code, reason)) = self.answer.take() {
            self.sender.control(Opcode::Close, &close::encode(code, reason), entropy);
        }
        self.sender.waiting()
    }

    /// So many of the bytes that [`Connection::poll_transmit`] gave have been written.
    pub fn handle_transmitted(&mut self, bytes: usize) {
        self.sender.handle_transmitted(bytes);
        self.until_ponged = self.until_ponged.saturating_sub(bytes);
    }

    /// Bytes waiting to be written: the caller's measure of backpressure.
    pub fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// When [`Connection::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Open => self.liveness.poll_timeout(),
            Stage::Closing(at) => Some(at),
            Stage::Closed(at) | Stage::Failed(at) => (!self.is_over()).then_some(at),
            Stage::Over => None,
        }
    }

    /// It is `now`. A ping may have become due, so ask [`Connection::poll_transmit`]; or the connection is lost.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Lost> {
        let lost = match self.stage {
            Stage::Open => self.liveness.handle_timeout(now).then_some(Lost::Silent),
            Stage::Closing(at) => (now >= at).then_some(Lost::Unanswered),
            Stage::Closed(at) | Stage::Failed(at) => (now >= at && !self.is_over()).then_some(Lost::Lingering),
            Stage::Over => None,
        };
        if lost.is_some() {
            self.stage = Stage::Over;
        }
        lost
    }

    /// Both closes are done and everything is transmitted: the transport may be shut. Section 7.1.1: a client leaves that
    /// to the server (for 5 s), so that the server's end does not have to wait. A peer that failed is given 1 s to read
    /// why.
    pub fn is_over(&self) -> bool {
        let flushed = self.answer.is_none() && self.sender.queued() == 0;
        match self.stage {
            Stage::Open | Stage::Closing(_) => false,
            Stage::Closed(_) => flushed && (self.role == Role::Server || self.eof),
            Stage::Failed(_) => flushed && self.eof,
            Stage::Over => true,
        }
    }

    /// When the last complete frame came from the peer, control frames included (for RTIM); before any: when the
    /// connection began.
    pub fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// Whole messages received and sent.
    pub fn messages(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// What is to be done with what was found, and what is to be shown of it.
    fn digest(&mut self, found: Found, input: &[u8], now: Instant) -> Result<Option<Shown>, Failure> {
        Ok(match found {
            Found::Start(kind) => Some(Shown::Start(kind)),
            Found::Data(place) => Some(Shown::Data(place)),
            Found::End => {
                self.received += 1;
                Some(Shown::End)
            }
            Found::Control(Opcode::Ping, place) => {
                // Section 5.5.2: a pong MUST answer, unless a close frame has been received. After our own nothing is
                // sent. Section 5.5.3: where there are too many, it is the latest that count.
                if self.control != Control::Hand && self.stage == Stage::Open {
                    let pongs = self.pongs.get_or_insert_default();
                    if pongs.len() == PONGS {
                        pongs.pop_front();
                    }
                    pongs.push_back(self.receiver.bytes(&place, input).to_vec());
                }
                (self.control != Control::Auto).then_some(Shown::Ping(place))
            }
            Found::Control(Opcode::Close, place) => {
                let code = close::parse(self.receiver.bytes(&place, input))?;
                if self.stage == Stage::Open {
                    // Section 5.5.1: a close frame MUST be answered by one, typically with its code.
                    self.answer = Some((code, ""));
                    self.pongs = None;
                }
                self.stage = Stage::Closed(now + CLOSE_PATIENCE);
                Some(Shown::Closed(code, place))
            }
            // The receiver finds no other control frames.
            Found::Control(_, place) => match self.liveness.handle_pong(self.receiver.bytes(&place, input)) {
                Answers::Ours => None,
                Answers::Users => Some(Shown::Pong(place, true)),
                Answers::Nothing => (self.control != Control::Auto).then_some(Shown::Pong(place, false)),
            },
        })
    }

    /// Section 7.1.7: the connection is failed. The peer is told why, unless it has had our close frame.
    fn fail(&mut self, failure: Failure, now: Instant) {
        if self.stage == Stage::Open {
            self.answer = Some((failure.code, failure.why));
            self.pongs = None;
        }
        self.stage = Stage::Failed(now + FAILURE_PATIENCE);
    }

    fn event<'a>(&'a self, shown: Shown, input: &'a [u8]) -> Event<'a> {
        let bytes = |place| self.receiver.bytes(place, input);
        match &shown {
            Shown::Start(kind) => Event::Start(*kind),
            Shown::Data(place) => Event::Data(bytes(place)),
            Shown::End => Event::End,
            Shown::Ping(place) => Event::Ping(bytes(place)),
            Shown::Pong(place, answers) => Event::Pong(bytes(place), *answers),
            // Both have been checked: see `close::parse`.
            Shown::Closed(code, place) => {
                let reason = bytes(place).get(2..).unwrap_or_default();
                Event::Closed { code: *code, reason: std::str::from_utf8(reason).unwrap_or_default() }
            }
        }
    }
}
