//! Input in pieces: every split of an HTTP head, fed to a handshake until it is over.

#[cfg(test)]
use std::fmt::Debug;

use crate::websocket::handshake::{ClientHandshake, HandshakeProgress, RequestProgress, ServerHandshake};

/// A whole head, of lines that end in `end`.
#[cfg(test)]
pub(crate) fn head_of(lines: &[&str], end: &str) -> Vec<u8> {
    lines.iter().chain(&[""]).flat_map(|line| [*line, end]).collect::<String>().into_bytes()
}

/// A whole head of `length` bytes: these lines, and a header that fills it up.
///
/// # Panics
///
/// Where they are longer without it.
#[cfg(test)]
pub(crate) fn head_of_length(lines: &[&str], length: usize) -> Vec<u8> {
    let filler = length - head_of(lines, "\r\n").len() - "X: \r\n".len();
    head_of(&[lines, &[&format!("X: {}", "y".repeat(filler))]].concat(), "\r\n")
}

/// What `read` makes of `input` as a whole, after checking that it makes the same of it byte by byte and cut in two at
/// any place.
///
/// # Panics
///
/// Where it does not.
#[cfg(test)]
pub(crate) fn at_every_split<T: PartialEq + Debug>(input: &[u8], mut read: impl FnMut(&[&[u8]]) -> T) -> T {
    let whole = read(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(read(&bytes), whole, "byte by byte");
    for split in 0..=input.len() {
        let (first, second) = input.split_at(split);
        assert_eq!(read(&[first, second]), whole, "split at {split}");
    }
    whole
}

/// What a client makes of an answer. What comes behind its end is put to the rest.
pub(crate) fn read_response(handshake: &mut ClientHandshake, pieces: &[&[u8]]) -> HandshakeProgress {
    let mut progress = HandshakeProgress::Pending;
    for piece in pieces {
        match &mut progress {
            HandshakeProgress::Pending => progress = handshake.handle_input(piece),
            HandshakeProgress::Upgraded(upgraded) => upgraded.rest.extend_from_slice(piece),
            _ => break,
        }
    }
    progress
}

/// What a server makes of a request. What comes behind its end is put to the rest.
pub(crate) fn read_request(handshake: &mut ServerHandshake, pieces: &[&[u8]]) -> RequestProgress {
    let mut progress = RequestProgress::Pending;
    for piece in pieces {
        match &mut progress {
            RequestProgress::Pending => progress = handshake.handle_input(piece),
            RequestProgress::Received(request) => request.rest.extend_from_slice(piece),
            RequestProgress::Page(_) | RequestProgress::Refused(_) => break,
        }
    }
    progress
}
