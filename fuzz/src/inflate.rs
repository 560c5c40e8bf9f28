//! Inflation: any message, in any pieces, has the same result. No call returns more than the window, every run ends,
//! and the result equals that of zlib-rs if that succeeds. What zlib-rs deflates is inflated unchanged.
//!
//! Input: the split, the window in bits and the direction, and the message.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use sockproxyd::websocket::deflate::{InflateError, Inflater};

use super::input::{Input, expand, pieces};

/// The bytes that a receiver appends to a message (RFC 7692 section 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The maximum output that is compared.
const MAX_OUTPUT: usize = 1 << 20;

/// The body of the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, mode) = (input.byte(), input.byte());
    let text = expand(input.rest());
    let bits = 8 + mode % 8;
    if mode & 8 == 0 {
        arbitrary(&text, bits, split);
    } else {
        round_trip(&text, bits, split);
    }
}

fn arbitrary(text: &[u8], bits: u8, split: u8) {
    let mut one = Inflater::new(bits);
    let whole = inflate(&mut one, &[text]);
    let mut other = Inflater::new(bits);
    let parts = inflate(&mut other, &pieces(text, split));
    assert_eq!(parts.is_ok(), whole.is_ok(), "the result depends on the split");
    let Ok(whole) = whole else { return };
    assert!(parts.is_ok_and(|parts| parts == whole), "the result depends on the split");
    if let Some(reference) = reference(text) {
        assert!(whole.starts_with(&reference), "zlib-rs gives another result");
    }
    // The next message must be readable in any case.
    let hello = [0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00];
    if whole.len() < MAX_OUTPUT {
        assert!(inflate(&mut one, &[&hello]).is_ok_and(|data| data == b"Hello"), "the next message is lost");
    }
}

fn inflate(inflater: &mut Inflater, pieces: &[&[u8]]) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let step = inflater.inflate(rest)?;
            assert!(step.consumed > 0 || !step.output.is_empty() || step.needs_input, "a step without progress");
            out.extend_from_slice(&inflater.window()[step.output]);
            rest = &rest[step.consumed..];
            if step.needs_input {
                assert!(rest.is_empty(), "starved with {} bytes left", rest.len());
                break;
            }
            if out.len() >= MAX_OUTPUT {
                out.truncate(MAX_OUTPUT);
                return Ok(out);
            }
        }
    }
    loop {
        let step = inflater.finish()?;
        out.extend_from_slice(&inflater.window()[step.output]);
        if step.needs_input {
            out.truncate(MAX_OUTPUT);
            return Ok(out);
        }
    }
}

/// The output of zlib-rs up to the first final block; None if zlib-rs fails.
fn reference(text: &[u8]) -> Option<Vec<u8>> {
    let input = [text, &TAIL].concat();
    let mut decompress = Decompress::new(false);
    let mut out = Vec::with_capacity(MAX_OUTPUT);
    match decompress.decompress_vec(&input, &mut out, FlushDecompress::Sync) {
        Ok(Status::Ok | Status::StreamEnd) => Some(out),
        _ => None,
    }
}

fn round_trip(text: &[u8], bits: u8, split: u8) {
    // zlib-rs cannot deflate with a window of 8 bits; nor do other implementations.
    let mut compress = Compress::new_with_window_bits(Compression::new(u32::from(split) % 10), false, bits.max(9));
    let mut inflater = Inflater::new(bits);
    for message in text.chunks(text.len() / 3 + 1) {
        let mut deflated = Vec::with_capacity(message.len() * 2 + 1000);
        compress.compress_vec(message, &mut deflated, FlushCompress::Sync).expect("zlib-rs deflates");
        let deflated = deflated.strip_suffix(&TAIL).expect("a sync flush ends with these bytes");
        let back = inflate(&mut inflater, &pieces(deflated, split)).expect("what was deflated can be inflated");
        assert!(back == message, "the message is inflated unchanged");
    }
}
