//! Messages and control frames, out of frames: fragments, compression, UTF-8 and the limit. What a control frame means
//! is not known here.

use std::ops::Range;

use super::close::{BAD_DATA, PROTOCOL, TOO_BIG};
use super::decoder::{HeaderReader, Payload};
use super::deflate::{Inflated, Inflater};
use super::frame::{Header, Opcode};
use super::utf8::Utf8;
use super::{Deflate, Failure, Kind, Role};

/// Compressed bytes taken at once: what was unmasked and is not inflated yet has to be masked again.
const INFLATE_STEP: usize = 2048;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A message begins.
    Start(Kind),
    /// A piece of it.
    Data(Place),
    /// It is complete.
    End,
    /// A control frame, whole.
    Control(Opcode, Place),
}

/// Where bytes are, until the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the input.
    Input(Range<usize>),
    /// In the window of the inflater.
    Window(Range<usize>),
    /// A control frame that came in pieces.
    Kept,
}

/// A message that has begun.
#[derive(Clone, Copy, Debug)]
struct Message {
    compressed: bool,
    /// For text.
    utf8: Option<Utf8>,
    /// What has come of it, in bytes. Where it is not compressed: what has been announced.
    size: u64,
}

/// What is to come of a data frame.
#[derive(Clone, Copy, Debug)]
struct Part {
    payload: Payload,
    /// The last of its message.
    last: bool,
}

/// What is to come next.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The header of a frame.
    Header,
    /// The payload of a control frame.
    Control(Opcode, Payload),
    /// The payload of a data frame.
    Data(Part),
    /// What the end of a compressed message still holds.
    Tail,
    /// The end of a message.
    End,
}

/// Reads what the peer sends.
#[derive(Debug)]
pub struct Receiver {
    masked: bool,
    max_message: u64,
    deflate: Option<Deflate>,
    header: HeaderReader,
    stage: Stage,
    message: Option<Message>,
    /// Boxed, since few messages are compressed.
    inflater: Option<Box<Inflater>>,
    /// The payload of a control frame that comes in pieces.
    kept: Vec<u8>,
    /// Whether a frame has become complete.
    completed: bool,
}

fn wrong<T>(why: &'static str) -> Result<T, Failure> {
    Err(Failure { code: PROTOCOL, why })
}

const TOO_LONG: Failure = Failure { code: TOO_BIG, why: "the message is too long" };
const NO_UTF8: Failure = Failure { code: BAD_DATA, why: "a text is not UTF-8" };
const CORRUPT: Failure = Failure { code: BAD_DATA, why: "a compressed message is corrupt" };

impl Receiver {
    /// Reads as `role`.
    pub fn new(role: Role, max_message: u64, deflate: Option<Deflate>) -> Self {
        Self {
            masked: role == Role::Server,
            max_message,
            deflate,
            header: HeaderReader::default(),
            stage: Stage::Header,
            message: None,
            inflater: None,
            kept: Vec::new(),
            completed: false,
        }
    }

    /// Takes a prefix of `input[*taken..]`; `None`: all of it, and nothing is left to find.
    pub fn advance(&mut self, input: &mut [u8], taken: &mut usize) -> Result<Option<Found>, Failure> {
        loop {
            match self.stage {
                Stage::Header => {
                    if self.kept.capacity() > 0 {
                        self.kept = Vec::new();
                    }
                    let Some(header) = self.header.read(input, taken)? else { return Ok(None) };
                    if let Some(kind) = self.begin_frame(&header)? {
                        return Ok(Some(Found::Start(kind)));
                    }
                }
                Stage::Control(opcode, mut payload) => {
                    let start = *taken;
                    let piece = payload.take(&mut input[start..], usize::MAX);
                    *taken += piece.len();
                    let whole = payload.is_complete();
                    let place = if whole && self.kept.is_empty() {
                        Place::Input(start..*taken)
                    } else {
                        self.kept.extend_from_slice(piece);
                        Place::Kept
                    };
                    if !whole {
                        self.stage = Stage::Control(opcode, payload);
                        return Ok(None);
                    }
                    self.stage = Stage::Header;
                    self.completed = true;
                    return Ok(Some(Found::Control(opcode, place)));
                }
                Stage::Data(part) => {
                    let compressed = self.message.is_some_and(|message| message.compressed);
                    let found = if compressed {
                        self.take_compressed(part, input, taken)?
                    } else {
                        self.take_plain(part, input, taken)?
                    };
                    if found.is_some() || matches!(self.stage, Stage::Data(part) if !part.payload.is_complete()) {
                        return Ok(found);
                    }
                }
                Stage::Tail => {
                    if let Some(found) = self.take_tail()? {
                        return Ok(Some(found));
                    }
                }
                Stage::End => {
                    self.stage = Stage::Header;
                    let Some(message) = self.message.take() else { continue };
                    // RFC 7692 section 7.2.3: without context takeover nothing is kept between messages.
                    if self.deflate.is_some_and(|deflate| deflate.peer_no_context_takeover) {
                        self.inflater = None;
                    }
                    // RFC 6455 section 8.1: a text that is not UTF-8 MUST fail the connection.
                    if message.utf8.is_some_and(|utf8| !utf8.is_complete()) {
                        return Err(NO_UTF8);
                    }
                    return Ok(Some(Found::End));
                }
            }
        }
    }

    /// The bytes at `place`, which is of the last [`Receiver::advance`] with this input.
    pub fn bytes<'a>(&'a self, place: &Place, input: &'a [u8]) -> &'a [u8] {
        match (place, &self.inflater) {
            (Place::Input(range), _) => &input[range.clone()],
            (Place::Window(range), Some(inflater)) => &inflater.window()[range.clone()],
            (Place::Window(_), None) => &[],
            (Place::Kept, _) => &self.kept,
        }
    }

    /// Whether a frame has become complete since this was asked last.
    pub fn take_completed(&mut self) -> bool {
        std::mem::take(&mut self.completed)
    }

    /// A header has come. Gives the kind of the message that it begins.
    fn begin_frame(&mut self, header: &Header) -> Result<Option<Kind>, Failure> {
        // Section 5.1: a server MUST close upon a frame that is not masked, a client upon one that is.
        if header.mask.is_some() != self.masked {
            return wrong(if self.masked { "a frame that is not masked" } else { "a masked frame" });
        }
        let payload = Payload::new(header);
        let kind = match header.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.stage = Stage::Control(header.opcode, payload);
                return Ok(None);
            }
            Opcode::Continuation => None,
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
        };
        // RFC 7692 section 6: RSV1 MUST NOT be set on a continuation; RFC 6455 section 5.2: nor without the extension.
        if header.compressed && (self.deflate.is_none() || kind.is_none()) {
            return wrong("a compressed frame where none may be");
        }
        let message = match (&mut self.message, kind) {
            (Some(message), None) => message,
            (empty @ None, Some(kind)) => empty.insert(Message {
                compressed: header.compressed,
                utf8: (kind == Kind::Text).then(Utf8::default),
                size: 0,
            }),
            // Section 5.4: the fragments of a message MUST NOT be interleaved with another.
            (Some(_), Some(_)) => return wrong("a message inside a message"),
            (None, None) => return wrong("a continuation of nothing"),
        };
        if !message.compressed {
            message.size = message.size.saturating_add(header.length);
            if message.size > self.max_message {
                return Err(TOO_LONG);
            }
        }
        self.stage = Stage::Data(Part { payload, last: header.fin });
        Ok(kind)
    }

    fn take_plain(&mut self, mut part: Part, input: &mut [u8], taken: &mut usize) -> Result<Option<Found>, Failure> {
        let start = *taken;
        let piece = part.payload.take(&mut input[start..], usize::MAX);
        *taken += piece.len();
        if let Some(Message { utf8: Some(utf8), .. }) = &mut self.message
            && !utf8.check(piece)
        {
            return Err(NO_UTF8);
        }
        self.go_on(part, Stage::End);
        Ok((start < *taken).then_some(Found::Data(Place::Input(start..*taken))))
    }

    /// Not inlined: inflating needs kilobytes of stack, which short messages would pay for.
    #[inline(never)]
    fn take_compressed(
        &mut self,
        mut part: Part,
        input: &mut [u8],
        taken: &mut usize,
    ) -> Result<Option<Found>, Failure> {
        // Not negotiated, no compressed message.
        let Some(deflate) = self.deflate else { return Err(CORRUPT) };
        let inflater = self.inflater.get_or_insert_with(|| Box::new(Inflater::new(deflate.peer_window_bits)));
        loop {
            let before = part.payload;
            let piece = part.payload.take(&mut input[*taken..], INFLATE_STEP);
            let inflated = inflater.inflate(piece).map_err(|_| CORRUPT)?;
            if inflated.taken < piece.len() {
                part.payload.give_back(&before, piece, inflated.taken);
            }
            *taken += inflated.taken;
            if inflated.starved && part.payload.is_complete() {
                self.go_on(part, Stage::Tail);
                return self.check_inflated(&inflated);
            }
            if !inflated.output.is_empty() || (inflated.starved && *taken == input.len()) {
                self.stage = Stage::Data(part);
                return self.check_inflated(&inflated);
            }
        }
    }

    /// Not inlined, as [`Receiver::take_compressed`].
    #[inline(never)]
    fn take_tail(&mut self) -> Result<Option<Found>, Failure> {
        let Some(inflater) = &mut self.inflater else { return Err(CORRUPT) };
        let inflated = inflater.finish().map_err(|_| CORRUPT)?;
        if inflated.starved {
            self.stage = Stage::End;
        }
        self.check_inflated(&inflated)
    }

    /// What comes after this piece of a data frame.
    fn go_on(&mut self, part: Part, end: Stage) {
        let complete = part.payload.is_complete();
        self.stage = match (complete, part.last) {
            (false, _) => Stage::Data(part),
            (true, false) => Stage::Header,
            (true, true) => end,
        };
        self.completed |= complete;
    }

    /// RFC 7692 section 6.2: what holds for a message holds for what is inflated.
    fn check_inflated(&mut self, inflated: &Inflated) -> Result<Option<Found>, Failure> {
        let (Some(message), Some(inflater)) = (&mut self.message, &self.inflater) else { return Err(CORRUPT) };
        let output = &inflater.window()[inflated.output.clone()];
        // As if it came byte by byte: what is wrong within the limit is wrong first.
        let room = self.max_message.saturating_sub(message.size);
        let within = &output[..(output.len() as u64).min(room) as usize];
        if let Some(utf8) = &mut message.utf8
            && !utf8.check(within)
        {
            return Err(NO_UTF8);
        }
        if within.len() < output.len() {
            return Err(TOO_LONG);
        }
        message.size += output.len() as u64;
        Ok((!output.is_empty()).then(|| Found::Data(Place::Window(inflated.output.clone()))))
    }
}
