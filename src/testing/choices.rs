//! [`Choices`]: where a simulation takes its choices from.

use testkit::random::Random;

/// A source of choices: a seed, or the input of a fuzz target.
#[derive(Clone, Debug)]
pub(crate) enum Choices {
    /// Any number of choices, the same for the same seed.
    Seeded(Random),
    /// The bytes that no choice has taken yet, the next one last. After them every choice is 0.
    Input(Vec<u8>),
}

impl Choices {
    /// Choices that follow from `seed`.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(Random::new(seed))
    }

    /// Choices that `data` makes.
    pub(crate) fn from_input(data: &[u8]) -> Self {
        Self::Input(data.iter().rev().copied().collect())
    }

    /// A number below `bound`; 0 if `bound` is 0. Of an input it takes as many bytes as `bound` needs.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let input = match self {
            Self::Seeded(random) => return random.below(bound),
            Self::Input(input) => input,
        };
        let (mut number, mut largest) = (0u64, 0u64);
        while largest < bound.saturating_sub(1) {
            number = number << 8 | u64::from(input.pop().unwrap_or(0));
            largest = largest << 8 | 0xff;
        }
        if bound == 0 { 0 } else { number % bound }
    }

    /// True if all bytes of an input have been taken. A seed has no end.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(self, Self::Input(input) if input.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_gives_as_many_bytes_as_a_choice_needs() {
        let mut choices = Choices::from_input(&[7, 1, 2, 9]);
        assert_eq!([0, 1].map(|bound| choices.below(bound)), [0, 0]);
        assert_eq!(choices.below(256), 7);
        assert_eq!(choices.below(257), (256 + 2) % 257);
        assert!(!choices.is_exhausted());
        assert_eq!(choices.below(4), 1);
        assert!(choices.is_exhausted());
        assert_eq!(choices.below(90_000), 0);
        assert!(!Choices::seeded(1).is_exhausted());
    }
}
