//! What HEAL and HELO ask for.

/// Bytes of all HELO of a connection at most.
pub(crate) const MAX_OPENING: usize = 4096;

/// HEAL and HELO of one connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HealSettings {
    /// HEAL: longest time between two attempts to connect again. `None`: the remote's end is the connection's.
    pub max_delay: Option<std::time::Duration>,
    /// HELO: what the remote is told after each connect, in order. These are secrets.
    openings: Vec<Box<[u8]>>,
}

/// There are more than [`MAX_OPENING`] bytes of HELO.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OpeningTooLong;

impl HealSettings {
    /// Adds the text of a HELO.
    pub(crate) fn add_opening(&mut self, text: Vec<u8>) -> Result<(), OpeningTooLong> {
        let before: usize = self.openings.iter().map(|text| text.len()).sum();
        if before + text.len() > MAX_OPENING {
            return Err(OpeningTooLong);
        }
        self.openings.push(text.into());
        Ok(())
    }

    /// What the remote is told after each connect, in order.
    pub(crate) fn openings(&self) -> impl Iterator<Item = &[u8]> {
        self.openings.iter().map(|text| &text[..])
    }

    /// True if every opening can be a text message.
    pub(crate) fn is_text(&self) -> bool {
        self.openings().all(|text| std::str::from_utf8(text).is_ok())
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.openings().map(|text| size_of_val(text) + size_of::<Box<[u8]>>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_have_a_limit_in_all() {
        let mut settings = HealSettings::default();
        assert_eq!(settings.add_opening(vec![b'x'; MAX_OPENING - 1]), Ok(()));
        assert_eq!(settings.add_opening(b"ab".to_vec()), Err(OpeningTooLong));
        assert_eq!(settings.add_opening(vec![0xff]), Ok(()));
        assert!(!settings.is_text());
        assert_eq!(settings.openings().map(<[u8]>::len).collect::<Vec<_>>(), [MAX_OPENING - 1, 1]);
    }
}
