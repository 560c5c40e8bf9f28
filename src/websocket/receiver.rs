//! [`Receiver`]: decodes messages and control frames. Checks fragments, compression, UTF-8 and the size limit. It does
//! not know what a control frame means.

use std::ops::Range;

use super::close::{INVALID_PAYLOAD, MESSAGE_TOO_BIG};
use super::decoder::{HeaderReader, Payload};
use super::deflate::{Inflated, Inflater};
use super::frame::{Header, Opcode};
use super::utf8::Utf8;
use super::{Deflate, Kind, Leniency, ProtocolError, Role, WebSocketSettings, protocol_error};

/// Compressed bytes unmasked and inflated at once. Bytes that were unmasked and not inflated must be masked again.
const INFLATE_STEP: usize = 2048;

/// A decoded element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A message begins. Its length in bytes, if its first frame is its only one and not compressed.
    Start(Kind, Option<u64>),
    /// A piece of the message.
    Data(PayloadLocation),
    /// A fragment of the message is complete that is not its last, and has nothing more to report.
    Fragment,
    /// The message is complete.
    End,
    /// A whole control frame.
    Control(Opcode, PayloadLocation),
}

/// Where the bytes of a payload are, until the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PayloadLocation {
    /// In the input.
    Input(Range<usize>),
    /// In the inflater's window.
    Window(Range<usize>),
    /// In `buffered`: a control frame that came in pieces.
    Buffered,
}

/// A message that has begun.
#[derive(Clone, Copy, Debug)]
struct Message {
    compressed: bool,
    /// For text messages, unless any text is let through.
    utf8: Option<Utf8>,
    /// Bytes of the message so far. Uncompressed: those that the frames' headers announce. Compressed: those inflated.
    size: u64,
}

/// A data frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    payload: Payload,
    /// True for the last frame of its message.
    last: bool,
}

/// What the receiver expects next.
#[derive(Clone, Copy, Debug)]
enum ReceiverStage {
    /// The header of a frame.
    Header,
    /// The payload of a control frame.
    Control(Opcode, Payload),
    /// The payload of a data frame.
    Data(DataFrame),
    /// The rest of the output of a compressed message.
    Tail,
    /// The end of a message.
    End,
}

/// Decodes the peer's bytes.
#[derive(Debug)]
pub(super) struct Receiver {
    masked: bool,
    leniency: Leniency,
    max_message: u64,
    deflate: Option<Deflate>,
    header: HeaderReader,
    stage: ReceiverStage,
    message: Option<Message>,
    /// Boxed because few messages are compressed.
    inflater: Option<Box<Inflater>>,
    /// The payload of a control frame that comes in pieces.
    buffered: Vec<u8>,
    /// True if a frame has become complete since [`Receiver::take_completed`].
    completed: bool,
}

const TOO_LONG: ProtocolError = ProtocolError { code: MESSAGE_TOO_BIG, reason: "the message is too long" };
const NOT_UTF8: ProtocolError = ProtocolError { code: INVALID_PAYLOAD, reason: "a text is not UTF-8" };
const CORRUPT: ProtocolError = ProtocolError { code: INVALID_PAYLOAD, reason: "a compressed message is corrupt" };

impl Receiver {
    /// A receiver for the end that has these settings.
    pub(super) fn new(settings: &WebSocketSettings) -> Self {
        Self {
            masked: settings.role == Role::Server,
            leniency: settings.leniency,
            max_message: settings.max_message,
            deflate: settings.deflate,
            header: HeaderReader::default(),
            stage: ReceiverStage::Header,
            message: None,
            inflater: None,
            buffered: Vec::new(),
            completed: false,
        }
    }

    /// Consumes a prefix of `input[*taken..]` and returns the next element; `None` if all input is consumed and more is
    /// needed.
    pub(super) fn advance(&mut self, input: &mut [u8], taken: &mut usize) -> Result<Option<Decoded>, ProtocolError> {
        loop {
            match self.stage {
                ReceiverStage::Header => {
                    if self.buffered.capacity() > 0 {
                        self.buffered = Vec::new();
                    }
                    let Some(header) = self.header.read(input, taken)? else { return Ok(None) };
                    if let Some(kind) = self.begin_frame(&header)? {
                        let length = (header.fin && !header.compressed).then_some(header.length);
                        return Ok(Some(Decoded::Start(kind, length)));
                    }
                }
                ReceiverStage::Control(opcode, mut payload) => {
                    let start = *taken;
                    let piece = payload.take(&mut input[start..], usize::MAX);
                    *taken += piece.len();
                    let whole = payload.is_complete();
                    let location = if whole && self.buffered.is_empty() {
                        PayloadLocation::Input(start..*taken)
                    } else {
                        self.buffered.extend_from_slice(piece);
                        PayloadLocation::Buffered
                    };
                    if !whole {
                        self.stage = ReceiverStage::Control(opcode, payload);
                        return Ok(None);
                    }
                    self.stage = ReceiverStage::Header;
                    self.completed = true;
                    return Ok(Some(Decoded::Control(opcode, location)));
                }
                ReceiverStage::Data(frame) => {
                    let compressed = self.message.is_some_and(|message| message.compressed);
                    let decoded = if compressed {
                        self.take_compressed(frame, input, taken)?
                    } else {
                        self.take_plain(frame, input, taken)?
                    };
                    if decoded.is_some()
                        || matches!(self.stage, ReceiverStage::Data(frame) if !frame.payload.is_complete())
                    {
                        return Ok(decoded);
                    }
                    // Returned one by one, so that the caller can count what a peer sends without any payload.
                    if matches!(self.stage, ReceiverStage::Header) {
                        return Ok(Some(Decoded::Fragment));
                    }
                }
                ReceiverStage::Tail => {
                    if let Some(decoded) = self.take_tail()? {
                        return Ok(Some(decoded));
                    }
                }
                ReceiverStage::End => {
                    self.stage = ReceiverStage::Header;
                    let Some(message) = self.message.take() else { continue };
                    // RFC 7692 section 7.1.1.1: without context takeover no window is kept between messages.
                    if self.deflate.is_some_and(|deflate| deflate.peer_no_context_takeover) {
                        self.inflater = None;
                    }
                    // RFC 6455 section 8.1: a text that is not UTF-8 MUST fail the connection.
                    if message.utf8.is_some_and(|utf8| !utf8.is_complete()) {
                        return Err(NOT_UTF8);
                    }
                    return Ok(Some(Decoded::End));
                }
            }
        }
    }

    /// Returns the bytes at `location`, which the last [`Receiver::advance`] with this input returned.
    pub(super) fn bytes<'a>(&'a self, location: &PayloadLocation, input: &'a [u8]) -> &'a [u8] {
        match (location, &self.inflater) {
            (PayloadLocation::Input(range), _) => &input[range.clone()],
            (PayloadLocation::Window(range), Some(inflater)) => &inflater.window()[range.clone()],
            (PayloadLocation::Window(_), None) => &[],
            (PayloadLocation::Buffered, _) => &self.buffered,
        }
    }

    /// True if compression was negotiated.
    pub(super) fn is_compressed(&self) -> bool {
        self.deflate.is_some()
    }

    /// True if a frame has become complete since the last call.
    pub(super) fn take_completed(&mut self) -> bool {
        std::mem::take(&mut self.completed)
    }

    /// Bytes held: the inflater, and a control frame that comes in pieces.
    pub(super) fn held(&self) -> usize {
        self.buffered.len() + self.inflater.as_ref().map_or(0, |inflater| inflater.held())
    }

    /// Bytes that an inflater will take that the message which has begun needs and that does not exist yet.
    pub(super) fn inflater_needed(&self) -> usize {
        match (self.message, self.deflate, &self.inflater) {
            (Some(message), Some(deflate), None) if message.compressed => Inflater::memory(deflate.peer_window_bits),
            _ => 0,
        }
    }

    /// Takes the header of a frame. Returns the type of the message that it begins, if it begins one.
    fn begin_frame(&mut self, header: &Header) -> Result<Option<Kind>, ProtocolError> {
        // Section 5.1: a server MUST close the connection on a frame that is not masked, a client on one that is.
        let is_excused = header.mask.is_some() && self.leniency.mask;
        if header.mask.is_some() != self.masked && !is_excused {
            return protocol_error(if self.masked { "an unmasked frame" } else { "a masked frame" });
        }
        let payload = Payload::new(header);
        let kind = match header.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.stage = ReceiverStage::Control(header.opcode, payload);
                return Ok(None);
            }
            Opcode::Continuation => None,
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
        };
        // RFC 7692 section 6: RSV1 MUST NOT be set on a continuation. RFC 6455 section 5.2: nor without the extension.
        if header.compressed && (self.deflate.is_none() || kind.is_none()) {
            return protocol_error("RSV1 is set on a frame that cannot be compressed");
        }
        let message = match (&mut self.message, kind) {
            (Some(message), None) => message,
            (empty @ None, Some(kind)) => empty.insert(Message {
                compressed: header.compressed,
                utf8: (kind == Kind::Text && !self.leniency.utf8).then(Utf8::default),
                size: 0,
            }),
            // Section 5.4: the fragments of a message MUST NOT be interleaved with those of another.
            (Some(_), Some(_)) => return protocol_error("a message inside a message"),
            (None, None) => return protocol_error("a continuation without a message"),
        };
        if !message.compressed {
            message.size = message.size.saturating_add(header.length);
            if message.size > self.max_message {
                return Err(TOO_LONG);
            }
        }
        self.stage = ReceiverStage::Data(DataFrame { payload, last: header.fin });
        Ok(kind)
    }

    fn take_plain(
        &mut self,
        mut frame: DataFrame,
        input: &mut [u8],
        taken: &mut usize,
    ) -> Result<Option<Decoded>, ProtocolError> {
        let start = *taken;
        let piece = frame.payload.take(&mut input[start..], usize::MAX);
        *taken += piece.len();
        if let Some(Message { utf8: Some(utf8), .. }) = &mut self.message
            && !utf8.check(piece)
        {
            return Err(NOT_UTF8);
        }
        self.finish_piece(frame, ReceiverStage::End);
        Ok((start < *taken).then_some(Decoded::Data(PayloadLocation::Input(start..*taken))))
    }

    /// Not inlined: inflation needs kilobytes of stack, which would slow down short messages.
    #[inline(never)]
    fn take_compressed(
        &mut self,
        mut frame: DataFrame,
        input: &mut [u8],
        taken: &mut usize,
    ) -> Result<Option<Decoded>, ProtocolError> {
        // `begin_frame` accepts compressed messages only with the extension.
        let Some(deflate) = self.deflate else { return Err(CORRUPT) };
        let inflater = self.inflater.get_or_insert_with(|| Box::new(Inflater::new(deflate.peer_window_bits)));
        loop {
            let before = frame.payload;
            let piece = frame.payload.take(&mut input[*taken..], INFLATE_STEP);
            let inflated = inflater.inflate(piece).map_err(|_| CORRUPT)?;
            if inflated.consumed < piece.len() {
                frame.payload.give_back(&before, piece, inflated.consumed);
            }
            *taken += inflated.consumed;
            if inflated.needs_input && frame.payload.is_complete() {
                self.finish_piece(frame, ReceiverStage::Tail);
                return self.check_inflated(&inflated);
            }
            if !inflated.output.is_empty() || (inflated.needs_input && *taken == input.len()) {
                self.stage = ReceiverStage::Data(frame);
                return self.check_inflated(&inflated);
            }
        }
    }

    /// Not inlined; see [`Receiver::take_compressed`].
    #[inline(never)]
    fn take_tail(&mut self) -> Result<Option<Decoded>, ProtocolError> {
        let Some(inflater) = &mut self.inflater else { return Err(CORRUPT) };
        let inflated = inflater.finish().map_err(|_| CORRUPT)?;
        if inflated.needs_input {
            self.stage = ReceiverStage::End;
        }
        self.check_inflated(&inflated)
    }

    /// Sets the next stage after a piece of a data frame: `end` after the last piece of a message.
    fn finish_piece(&mut self, frame: DataFrame, end: ReceiverStage) {
        let complete = frame.payload.is_complete();
        self.stage = match (complete, frame.last) {
            (false, _) => ReceiverStage::Data(frame),
            (true, false) => ReceiverStage::Header,
            (true, true) => end,
        };
        self.completed |= complete;
    }

    /// RFC 7692 section 6.2: inflated data is subject to the same checks as plain data.
    fn check_inflated(&mut self, inflated: &Inflated) -> Result<Option<Decoded>, ProtocolError> {
        let (Some(message), Some(inflater)) = (&mut self.message, &self.inflater) else { return Err(CORRUPT) };
        let output = &inflater.window()[inflated.output.clone()];
        // The result must not depend on the pieces: an error within the limit takes precedence over the limit.
        let available = self.max_message.saturating_sub(message.size);
        let within = &output[..(output.len() as u64).min(available) as usize];
        if let Some(utf8) = &mut message.utf8
            && !utf8.check(within)
        {
            return Err(NOT_UTF8);
        }
        if within.len() < output.len() {
            return Err(TOO_LONG);
        }
        message.size += output.len() as u64;
        Ok((!output.is_empty()).then(|| Decoded::Data(PayloadLocation::Window(inflated.output.clone()))))
    }
}
