//! permessage-deflate (RFC 7692): the negotiated parameters, and inflation into a window of the negotiated size.

use std::fmt;
use std::ops::Range;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::DecompressorOxide;
use miniz_oxide::inflate::core::decompress;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY};

/// The bytes that a sender removes from the end of a message and a receiver appends (RFC 7692 sections 7.2.1 and
/// 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Smallest window of an [`Inflater`] in bits. zlib cannot deflate with a window of 8 bits, and some peers use one of 9 if 8 was
/// negotiated.
const MIN_WINDOW_BITS: u8 = 9;
/// Largest window of DEFLATE in bits.
const MAX_WINDOW_BITS: u8 = 15;

/// The negotiated parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// The peer's window in bits, 8 to 15: how far back its messages may refer. Inflation needs this much memory. 15 if
    /// the response does not say.
    pub peer_window_bits: u8,
    /// True if the peer's messages do not refer to earlier ones, so that no window is kept between messages.
    pub peer_no_context_takeover: bool,
    /// Our window in bits, 8 to 15: how far back our messages may refer.
    pub own_window_bits: u8,
    /// True if our messages must not refer to earlier ones. They never do: each is compressed by itself.
    pub own_no_context_takeover: bool,
}

/// The input is not valid DEFLATE data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InflateError;

/// The result of [`Inflater::inflate`] and [`Inflater::finish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inflated {
    /// Bytes of the input that were consumed.
    pub consumed: usize,
    /// Where the new bytes are in [`Inflater::window`].
    pub output: Range<usize>,
    /// True if no more output comes without more input.
    pub needs_input: bool,
}

/// Bytes of a window of `bits`, 8 to 15.
fn window_size(bits: u8) -> usize {
    1 << bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS)
}

/// Inflates messages. Uses 10.5 KB and the window.
pub(crate) struct Inflater {
    core: Box<DecompressorOxide>,
    /// The last bytes of output, as a ring buffer: messages may refer back to them.
    window: Box<[u8]>,
    /// Position of the next byte in the window.
    at: usize,
    /// True if input has come since the message began, or since a block that was marked as the last.
    begun: bool,
    /// Bytes of [`TAIL`] that have been consumed.
    tail: usize,
    /// True if the input after the last output is invalid. The next call returns the error.
    corrupt: bool,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("window", &self.window.len()).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Inflater {
    /// An inflater with a window of `window_bits`, 8 to 15.
    pub(crate) fn new(window_bits: u8) -> Self {
        Self {
            core: Box::default(),
            // Zeroed, so that a reference to before the start cannot reveal data of another connection.
            window: vec![0; window_size(window_bits)].into(),
            at: 0,
            begun: false,
            tail: 0,
            corrupt: false,
        }
    }

    /// Bytes of memory of an inflater for a window of `window_bits`.
    pub(crate) fn memory(window_bits: u8) -> usize {
        size_of::<Self>() + size_of::<DecompressorOxide>() + window_size(window_bits)
    }

    /// Bytes of memory that this inflater takes.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + size_of::<DecompressorOxide>() + self.window.len()
    }

    /// The window, which [`Inflated::output`] indexes.
    pub(crate) fn window(&self) -> &[u8] {
        &self.window
    }

    /// Consumes a prefix of `input`. The output of one call ends at the end of the window at the latest.
    pub(crate) fn inflate(&mut self, input: &[u8]) -> Result<Inflated, InflateError> {
        self.begun |= !input.is_empty();
        let (status, inflated) = self.step(input, TINFL_FLAG_HAS_MORE_INPUT)?;
        if status == TINFLStatus::Done {
            // RFC 7692 section 7.2.3.4: a block may be marked as the last. Further blocks may follow and refer back.
            self.core.init();
            self.begun = false;
        }
        Ok(inflated)
    }

    /// Inflates the end of the message. Call until `needs_input`; then the next message may begin.
    pub(crate) fn finish(&mut self) -> Result<Inflated, InflateError> {
        // Section 7.2.3.6: an empty message has one byte, and so has the end after a last block. Some senders leave
        // that byte out, and mean the same.
        if !self.begun {
            return Ok(Inflated { consumed: 0, output: self.at..self.at, needs_input: true });
        }
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let (status, mut inflated) = self.step(&TAIL[self.tail..], flags)?;
        self.tail += inflated.consumed;
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::Done | TINFLStatus::BlockBoundary if self.tail == TAIL.len() => {
                if status == TINFLStatus::Done {
                    self.core.init();
                }
                (self.begun, self.tail, inflated.needs_input) = (false, 0, true);
            }
            TINFLStatus::BlockBoundary => {}
            // The message ends within a block.
            _ => return Err(InflateError),
        }
        Ok(inflated)
    }

    fn step(&mut self, input: &[u8], flags: u32) -> Result<(TINFLStatus, Inflated), InflateError> {
        if self.corrupt {
            return Err(InflateError);
        }
        let (status, consumed, produced) = decompress(&mut self.core, input, &mut self.window, self.at, flags);
        let output = self.at..self.at + produced;
        self.at = output.end % self.window.len();
        match status {
            TINFLStatus::NeedsMoreInput => Ok((status, Inflated { consumed, output, needs_input: true })),
            TINFLStatus::Done | TINFLStatus::HasMoreOutput | TINFLStatus::BlockBoundary => {
                Ok((status, Inflated { consumed, output, needs_input: false }))
            }
            // The output before the invalid input is delivered first, as if it had come alone: it may exceed the limit.
            _ if produced > 0 => {
                self.corrupt = true;
                Ok((TINFLStatus::HasMoreOutput, Inflated { consumed, output, needs_input: false }))
            }
            _ => Err(InflateError),
        }
    }
}
