//! Inflation into a window of the negotiated size, in slices.

use std::fmt;
use std::ops::Range;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::DecompressorOxide;
use miniz_oxide::inflate::core::decompress;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY};

/// What a sender takes off the end of a message, and a receiver appends (RFC 7692 sections 7.2.1 and 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Deflaters of zlib's kind cannot make a window of 8 bits, and some take one of 9 where 8 was agreed on.
const SMALLEST_WINDOW_BITS: u8 = 9;
/// The largest window of DEFLATE.
const LARGEST_WINDOW_BITS: u8 = 15;

/// What the two ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The peer's window in bits, 8 to 15: how far back its messages may refer, and so what inflating them costs. Says
    /// the response nothing, it is 15.
    pub peer_window_bits: u8,
    /// The peer's messages refer to nothing before their own beginning, so that nothing is kept between them.
    pub peer_no_context_takeover: bool,
    /// How far back our messages may refer in bits, 8 to 15.
    pub own_window_bits: u8,
    /// Our messages must refer to nothing before their own beginning. (They never do.)
    pub own_no_context_takeover: bool,
}

/// This is no compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// What [`Inflater::inflate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inflated {
    /// So much of the input was taken.
    pub taken: usize,
    /// Where in the window the new bytes are: see [`Inflater::window`].
    pub output: Range<usize>,
    /// Nothing more comes without more input.
    pub starved: bool,
}

/// Inflates messages: 10.5 KB and the window.
pub struct Inflater {
    core: Box<DecompressorOxide>,
    /// What messages may refer back to: the last bytes that came out, around and around.
    window: Box<[u8]>,
    /// Where in the window the next byte goes.
    at: usize,
    /// Whether anything came since the message began, or since a block that said it was the last.
    begun: bool,
    /// How much of [`TAIL`] has been taken.
    tail: usize,
    /// What came out last is followed by what is no compressed data.
    corrupt: bool,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("window", &self.window.len()).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Inflater {
    /// An inflater whose window has so many bits, 8 to 15.
    pub fn new(window_bits: u8) -> Self {
        let bits = window_bits.clamp(SMALLEST_WINDOW_BITS, LARGEST_WINDOW_BITS);
        Self {
            core: Box::default(),
            // Zeros, new for each connection: a reference to before the beginning shows nothing of anybody.
            window: vec![0; 1 << bits].into(),
            at: 0,
            begun: false,
            tail: 0,
            corrupt: false,
        }
    }

    /// The window, for the range that came out last.
    pub fn window(&self) -> &[u8] {
        &self.window
    }

    /// Takes a prefix of `input` and gives at most what is left of the window to its end.
    pub fn inflate(&mut self, input: &[u8]) -> Result<Inflated, Corrupt> {
        self.begun |= !input.is_empty();
        let (status, inflated) = self.step(input, TINFL_FLAG_HAS_MORE_INPUT)?;
        if status == TINFLStatus::Done {
            // RFC 7692 section 7.2.3.4: a block may say that it is the last. Others may follow, and refer back.
            self.core.init();
            self.begun = false;
        }
        Ok(inflated)
    }

    /// The message has ended: call until `starved`. After that, the next may begin.
    pub fn finish(&mut self) -> Result<Inflated, Corrupt> {
        // A sender that has nothing to say should say one byte (section 7.2.3.6), and after a last block another one.
        // Some do not, and mean the same.
        if !self.begun {
            return Ok(Inflated { taken: 0, output: self.at..self.at, starved: true });
        }
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let (status, mut inflated) = self.step(&TAIL[self.tail..], flags)?;
        self.tail += inflated.taken;
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::Done | TINFLStatus::BlockBoundary if self.tail == TAIL.len() => {
                if status == TINFLStatus::Done {
                    self.core.init();
                }
                (self.begun, self.tail, inflated.starved) = (false, 0, true);
            }
            TINFLStatus::BlockBoundary => {}
            // Inside a block.
            _ => return Err(Corrupt),
        }
        Ok(inflated)
    }

    fn step(&mut self, input: &[u8], flags: u32) -> Result<(TINFLStatus, Inflated), Corrupt> {
        if self.corrupt {
            return Err(Corrupt);
        }
        let (status, taken, given) = decompress(&mut self.core, input, &mut self.window, self.at, flags);
        let output = self.at..self.at + given;
        self.at = output.end % self.window.len();
        match status {
            TINFLStatus::NeedsMoreInput => Ok((status, Inflated { taken, output, starved: true })),
            TINFLStatus::Done | TINFLStatus::HasMoreOutput | TINFLStatus::BlockBoundary => {
                Ok((status, Inflated { taken, output, starved: false }))
            }
            // What came before it counts as if it had come alone: it may be too long.
            _ if given > 0 => {
                self.corrupt = true;
                Ok((TINFLStatus::HasMoreOutput, Inflated { taken, output, starved: false }))
            }
            _ => Err(Corrupt),
        }
    }
}
