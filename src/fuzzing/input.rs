//! How a target reads the bytes it is given.

/// Bytes, taken from the front. When they are used up there are zeros.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number below `most`, from the next byte; `most` must be 1 to 256.
    pub fn below(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % most
    }

    /// True where nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Stands in front of a count and a byte: the byte, so many times [`UNIT`]. No sensible text has it.
const REPEAT: u8 = 0x1a;
/// What a count counts.
const UNIT: usize = 257;
/// As many repetitions are written out: two make a text that is longer than anything may be.
const REPETITIONS: usize = 2;

/// Writes out repetitions, so that a few bytes of a seed can be a line that is too long.
pub fn expand(data: &[u8]) -> Vec<u8> {
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

/// `text` in pieces whose sizes follow from `seed`: 0 is one piece, 1 is single bytes (or hundreds of equal pieces),
/// anything else is mixed.
pub fn pieces(text: &[u8], seed: u8) -> Vec<&[u8]> {
    match seed {
        0 => return vec![text],
        1 => return text.chunks(text.len() / 512 + 1).collect(),
        _ => {}
    }
    let mut random = u32::from(seed);
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        // A small generator will do (Numerical Recipes); its high bits are the better ones.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = [1, 3, 20, 1500, 65_536][(random >> 29) as usize % 5];
        let (piece, tail) = rest.split_at(rest.len().min((random >> 8) as usize % most + 1));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}
