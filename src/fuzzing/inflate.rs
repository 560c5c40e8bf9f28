//! Inflation: whatever is in a message, in whatever pieces, the same comes of it, no call gives more than the window
//! holds, it comes to an end, and where zlib-rs makes something of it, it is the same. What zlib-rs deflates comes back, and so does
//! what is deflated here, in the window that was agreed on.
//!
//! Input: how it is split, the window in bits and whether to deflate, and the message.

use crate::websocket::deflate::{InflateError, Inflater};
use crate::websocket::deflater::deflate;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::input::{Input, expand, pieces};

/// What a receiver appends to a message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What is inflated at most: more is more of the same.
const ENOUGH: usize = 1 << 20;

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, mode) = (input.byte(), input.byte());
    let text = expand(input.rest());
    let bits = 8 + mode % 8;
    if mode & 8 == 0 {
        arbitrary(&text, bits, split);
    } else {
        there_and_back(&text, bits, split);
        deflated_here(&text, bits, split);
    }
}

fn arbitrary(text: &[u8], bits: u8, split: u8) {
    let mut one = Inflater::new(bits);
    let whole = inflate(&mut one, &[text]);
    let mut other = Inflater::new(bits);
    let parts = inflate(&mut other, &pieces(text, split));
    assert_eq!(parts.is_ok(), whole.is_ok(), "the split matters");
    let Ok(whole) = whole else { return };
    assert!(parts.is_ok_and(|parts| parts == whole), "the split matters");
    if let Some(reference) = reference(text) {
        assert!(whole.starts_with(&reference), "zlib-rs makes something else of it");
    }
    // Whatever it was, the next message can be read.
    let hello = [0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00];
    if whole.len() < ENOUGH {
        assert!(inflate(&mut one, &[&hello]).is_ok_and(|said| said == b"Hello"), "the next message is lost");
    }
}

fn inflate(inflater: &mut Inflater, pieces: &[&[u8]]) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let step = inflater.inflate(rest)?;
            assert!(step.consumed > 0 || !step.output.is_empty() || step.needs_input, "it goes nowhere");
            out.extend_from_slice(&inflater.window()[step.output]);
            rest = &rest[step.consumed..];
            if step.needs_input {
                assert!(rest.is_empty(), "starved with {} bytes left", rest.len());
                break;
            }
            if out.len() >= ENOUGH {
                out.truncate(ENOUGH);
                return Ok(out);
            }
        }
    }
    loop {
        let step = inflater.finish()?;
        out.extend_from_slice(&inflater.window()[step.output]);
        if step.needs_input {
            out.truncate(ENOUGH);
            return Ok(out);
        }
    }
}

/// What zlib-rs makes of it up to the first block that says it is the last; `None`: nothing.
fn reference(text: &[u8]) -> Option<Vec<u8>> {
    let input = [text, &TAIL].concat();
    let mut decompress = Decompress::new(false);
    let mut out = Vec::with_capacity(ENOUGH);
    match decompress.decompress_vec(&input, &mut out, FlushDecompress::Sync) {
        Ok(Status::Ok | Status::StreamEnd) => Some(out),
        _ => None,
    }
}

fn there_and_back(text: &[u8], bits: u8, split: u8) {
    // It cannot deflate with a window of 8 bits; nor does anybody.
    let mut compress = Compress::new_with_window_bits(Compression::new(u32::from(split) % 10), false, bits.max(9));
    let mut inflater = Inflater::new(bits);
    for message in text.chunks(text.len() / 3 + 1) {
        let mut deflated = Vec::with_capacity(message.len() * 2 + 1000);
        compress.compress_vec(message, &mut deflated, FlushCompress::Sync).expect("it deflates");
        let deflated = deflated.strip_suffix(&TAIL).expect("a sync flush ends so");
        let back = inflate(&mut inflater, &pieces(deflated, split)).expect("what was deflated can be inflated");
        assert!(back == message, "there and back");
    }
}

/// The room for the result is less at times than the result needs.
fn deflated_here(text: &[u8], bits: u8, split: u8) {
    let mut out = vec![0; (text.len() * 9 / 8 + 16) * usize::from(split % 8 + 1) / 8];
    let Some(length) = deflate(text, bits, &mut out) else { return };
    let mut inflater = Inflater::new(bits);
    let back = inflate(&mut inflater, &pieces(&out[..length], split)).expect("what was deflated can be inflated");
    assert!(back == text[..text.len().min(ENOUGH)], "there and back");
    assert!(
        reference(&out[..length]).is_none_or(|reference| text.starts_with(&reference)),
        "zlib-rs reads another thing"
    );
}
