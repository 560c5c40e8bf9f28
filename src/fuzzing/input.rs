//! How a target reads its input.

/// The input bytes, read from the front; zeros after their end.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number below `bound`, from the next byte; `bound` must be 1 to 256.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// True if all bytes have been read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The remaining bytes.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Introduces a repetition: a count follows, then the byte that is repeated count * [`UNIT`] times. Valid texts do not
/// contain it.
const REPEAT: u8 = 0x1a;
/// The unit of the count of a repetition.
const UNIT: usize = 257;
/// The number of repetitions that are expanded: two already exceed every limit.
const REPETITIONS: usize = 2;

/// Expands repetitions, so that a few bytes of a seed can become a line that is too long.
pub(super) fn expand(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut input = Input(data);
    let mut repetitions = 0;
    while !input.is_empty() {
        match input.byte() {
            REPEAT if repetitions < REPETITIONS => {
                repetitions += 1;
                let count = usize::from(input.byte()) * UNIT;
                text.resize(text.len() + count, input.byte());
            }
            byte => text.push(byte),
        }
    }
    text
}

/// Splits `text` into pieces whose sizes depend on `seed`: 0 gives one piece, 1 gives single bytes (or hundreds of
/// equal pieces), any other value mixed sizes.
pub(super) fn pieces(text: &[u8], seed: u8) -> Vec<&[u8]> {
    match seed {
        0 => return vec![text],
        1 => return text.chunks(text.len() / 512 + 1).collect(),
        _ => {}
    }
    let mut random = u32::from(seed);
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        // A linear congruential generator (Numerical Recipes) is sufficient; its high bits are the better ones.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let max = [1, 3, 20, 1500, 65_536][(random >> 29) as usize % 5];
        let (piece, tail) = rest.split_at(rest.len().min((random >> 8) as usize % max + 1));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}
