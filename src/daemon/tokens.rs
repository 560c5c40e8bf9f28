//! Tokens: which socket an event is of.
//!
//! A token names a slot, its side, and a generation, so that a late event of a slot that has been given to another
//! session is dropped rather than misdelivered. Tokens are as wide as a pointer: 32 bits on the boxes.

use mio::Token;

/// The waker's token.
pub(super) const WAKER: Token = Token(0);
/// The signals' token.
pub(super) const SIGNALS: Token = Token(1);
/// The first token of a listener; the rest follow.
const LISTENERS: usize = 2;

/// The first token of a session; those of listeners are lower.
const SESSIONS: usize = 1 << 12;

const SLOT_BITS: u32 = 18;
const GENERATION_BITS: u32 = 12;
/// Slots that a token can tell apart: the most sessions that there can be.
pub(super) const SLOTS: usize = 1 << SLOT_BITS;

/// Which of a session's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The plugin's.
    Plugin,
    /// The remote's, all attempts included.
    Remote,
}

/// What a token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A worker has a result.
    Waker,
    /// A signal has come.
    Signals,
    /// A connection is waiting at this listener.
    Listener(usize),
    /// A session's socket: slot, generation, side.
    Session(usize, u16, Side),
}

/// The token of the listener at `index`.
pub(super) fn listener(index: usize) -> Token {
    Token(LISTENERS + index)
}

/// The token of a session's socket. Only the lowest bits of the generation count.
pub(super) fn session(slot: usize, generation: u16, side: Side) -> Token {
    let side = usize::from(side == Side::Remote);
    let generation = usize::from(generation) & ((1 << GENERATION_BITS) - 1);
    // 12 + 18 + 1 bits, and the lowest numbers for everything else.
    let packed = generation << (SLOT_BITS + 1) | slot << 1 | side;
    Token(SESSIONS + packed)
}

/// What a token means.
pub(super) fn decode(token: Token) -> TokenKind {
    match token {
        WAKER => TokenKind::Waker,
        SIGNALS => TokenKind::Signals,
        Token(number) if number < SESSIONS => TokenKind::Listener(number - LISTENERS),
        Token(number) => {
            let packed = number - SESSIONS;
            let side = if packed & 1 == 1 { Side::Remote } else { Side::Plugin };
            TokenKind::Session(packed >> 1 & (SLOTS - 1), (packed >> (SLOT_BITS + 1)) as u16, side)
        }
    }
}

/// The generation after `generation`, as tokens count.
pub(super) fn next_generation(generation: u16) -> u16 {
    generation.wrapping_add(1) & ((1 << GENERATION_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_mean_what_they_were_made_for() {
        assert_eq!(decode(WAKER), TokenKind::Waker);
        assert_eq!(decode(SIGNALS), TokenKind::Signals);
        assert_eq!(decode(listener(7)), TokenKind::Listener(7));
        for slot in [0, 1, SLOTS - 1] {
            for generation in [0, 1, (1 << GENERATION_BITS) - 1] {
                for side in [Side::Plugin, Side::Remote] {
                    let token = session(slot, generation, side);
                    assert_eq!(decode(token), TokenKind::Session(slot, generation, side));
                    assert!(u32::try_from(token.0).is_ok(), "fits a pointer of the boxes");
                }
            }
        }
        assert_eq!(next_generation((1 << GENERATION_BITS) - 1), 0);
    }
}
