//! Reproducible test data: a small seeded generator, a checksum, and a checker that reports where a stream differs. The
//! same seed always gives the same bytes.

/// SplitMix64: small, fast, sufficient for test data. Not for secrets.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    spare: [u8; 8],
    spare_left: usize,
}

impl Random {
    /// A generator that starts from `seed`; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Random { state: seed, spare: [0; 8], spare_left: 0 }
    }

    /// The next 64 bits.
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if `bound` is 0. The modulus has a slight bias, which tests can ignore.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Fills `buf` with the next bytes. The byte sequence is the same however calls split it.
    pub fn fill(&mut self, buf: &mut [u8]) {
        let from_spare = self.spare_left.min(buf.len());
        let (head, rest) = buf.split_at_mut(from_spare);
        let start = 8 - self.spare_left;
        head.copy_from_slice(&self.spare[start..start + from_spare]);
        self.spare_left -= from_spare;

        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        let tail = words.into_remainder();
        if !tail.is_empty() {
            self.spare = self.next_u64().to_le_bytes();
            self.spare_left = 8 - tail.len();
            tail.copy_from_slice(&self.spare[..tail.len()]);
        }
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.fill(&mut out);
        out
    }
}

/// A running 64-bit FNV-1a checksum with a byte count. The same however updates split the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// The number of bytes.
    pub bytes: u64,
    /// Their FNV-1a hash.
    pub hash: u64,
}

impl Checksum {
    /// The checksum of no bytes.
    pub fn new() -> Self {
        Checksum { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }

    /// The checksum of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut sum = Checksum::new();
        sum.update(data);
        sum
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        for &b in data {
            self.hash = (self.hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum::new()
    }
}

/// Compares a stream with the bytes of `Random::new(seed)`, and records the first difference.
#[derive(Clone, Debug)]
pub struct Checker {
    random: Random,
    /// The number of bytes.
    pub bytes: u64,
    /// The offset of the first byte that differs.
    pub first_wrong: Option<u64>,
    scratch: Vec<u8>,
}

impl Checker {
    /// A checker that expects the bytes of `Random::new(seed)`.
    pub fn new(seed: u64) -> Self {
        Checker { random: Random::new(seed), bytes: 0, first_wrong: None, scratch: Vec::new() }
    }

    /// Compares the next bytes. True if all bytes so far are the expected ones.
    pub fn check(&mut self, data: &[u8]) -> bool {
        self.scratch.resize(data.len(), 0);
        self.random.fill(&mut self.scratch);
        if self.first_wrong.is_none() {
            self.first_wrong =
                data.iter().zip(&self.scratch).position(|(got, want)| got != want).map(|at| self.bytes + at as u64);
        }
        self.bytes += data.len() as u64;
        self.first_wrong.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_does_not_depend_on_how_it_is_split() {
        let whole = Random::new(7).bytes(1000);
        for step in [1usize, 3, 7, 8, 9, 64, 999] {
            let mut random = Random::new(7);
            let mut split = vec![0; 1000];
            for part in split.chunks_mut(step) {
                random.fill(part);
            }
            assert_eq!(split, whole, "step {step}");
        }
        assert_ne!(Random::new(8).bytes(1000), whole);
    }

    #[test]
    fn the_checksum_does_not_depend_on_how_it_is_split() {
        let data = Random::new(1).bytes(20_000);
        let mut sum = Checksum::new();
        for part in data.chunks(777) {
            sum.update(part);
        }
        assert_eq!(sum, Checksum::of(&data));
        // The published test vector of FNV-1a 64 for "a".
        assert_eq!(Checksum::of(b"a").hash, 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn the_checker_reports_the_first_wrong_byte() {
        let mut data = Random::new(5).bytes(300);
        let mut checker = Checker::new(5);
        assert!(checker.check(&data[..100]));
        data[217] ^= 1;
        data[250] ^= 1;
        assert!(!checker.check(&data[100..]));
        assert_eq!(checker.first_wrong, Some(217));
        assert_eq!(checker.bytes, 300);
    }

    #[test]
    fn numbers_stay_in_bounds() {
        let mut random = Random::new(3);
        for _ in 0..1000 {
            assert!(random.below(10) < 10);
            assert!((5..=9).contains(&random.between(5, 9)));
        }
        assert_eq!(random.below(0), 0);
    }
}
