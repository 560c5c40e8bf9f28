//! [`ClosingNotices`]: the closing notices that wait for Luup after their connections have ended.

use std::collections::HashMap;

use super::subscription::{Recipient, SubscriptionId};

/// Bytes of a recipient, on average, that the limit of notices allows for. Usual ones have 150; the longest NTFY makes 3200.
pub(super) const BYTES_PER_NOTICE: usize = 256;

/// Subscriptions whose closing notice waits. There is one for each recipient: two notices with the same request are one.
#[derive(Debug, Default)]
pub(super) struct ClosingNotices {
    waiting: HashMap<Recipient, ClosingNotice>,
    /// Bytes of their recipients; see [`Recipient::held`].
    held: usize,
    /// Counts ended connections, to find the oldest.
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
struct ClosingNotice {
    id: SubscriptionId,
    serial: u64,
}

impl ClosingNotices {
    /// Adds the notice of `id`, whose connection has ended. Returns the older subscription with the same recipient,
    /// which it replaces.
    pub(super) fn insert(&mut self, recipient: Recipient, id: SubscriptionId) -> Option<SubscriptionId> {
        self.serial += 1;
        let held = recipient.held();
        let older = self.waiting.insert(recipient, ClosingNotice { id, serial: self.serial });
        if older.is_none() {
            self.held += held;
        }
        older.map(|older| older.id)
    }

    /// True if the failed notice of `id` must be repeated; false if a newer one with the same recipient replaces it.
    /// If the newer one is gone, this one is added again as the oldest.
    pub(super) fn must_repeat(&mut self, recipient: &Recipient, id: SubscriptionId) -> bool {
        match self.waiting.get(recipient) {
            Some(waiting) => waiting.id == id,
            None => {
                self.waiting.insert(recipient.clone(), ClosingNotice { id, serial: 0 });
                self.held += recipient.held();
                true
            }
        }
    }

    /// Returns the subscription whose notice waits for this recipient.
    pub(super) fn find(&self, recipient: &Recipient) -> Option<SubscriptionId> {
        self.waiting.get(recipient).map(|waiting| waiting.id)
    }

    /// Removes the notice of `id`. A newer one with the same recipient stays.
    pub(super) fn remove(&mut self, recipient: &Recipient, id: SubscriptionId) {
        if self.waiting.get(recipient).is_some_and(|waiting| waiting.id == id) {
            self.waiting.remove(recipient);
            self.held -= recipient.held();
        }
    }

    /// If more than `limit` notices wait, or more than [`BYTES_PER_NOTICE`] times as many bytes, returns the oldest that
    /// `may_drop` accepts.
    pub(super) fn oldest_above(
        &self,
        limit: usize,
        may_drop: impl Fn(SubscriptionId) -> bool,
    ) -> Option<SubscriptionId> {
        if self.waiting.len() <= limit && self.held <= limit.saturating_mul(BYTES_PER_NOTICE) {
            return None;
        }
        let candidates = self.waiting.values().filter(|waiting| may_drop(waiting.id));
        candidates.min_by_key(|waiting| waiting.serial).map(|waiting| waiting.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientKey;
    use crate::notify::DeviceKey;

    const FIRST: SubscriptionId = SubscriptionId(1);
    const SECOND: SubscriptionId = SubscriptionId(2);
    const THIRD: SubscriptionId = SubscriptionId(3);

    fn recipient(query: &str) -> Recipient {
        Recipient {
            device: DeviceKey::new(ClientKey::Loopback, "5"),
            query: query.into(),
            events: false,
            pace: None,
            secret: false,
        }
    }

    #[test]
    fn the_newest_replaces_those_with_the_same_recipient() {
        let mut notices = ClosingNotices::default();
        assert_eq!(notices.insert(recipient("a"), FIRST), None);
        assert_eq!(notices.insert(recipient("a"), SECOND), Some(FIRST));
        assert!(!notices.must_repeat(&recipient("a"), FIRST));
        notices.remove(&recipient("a"), FIRST);
        assert!(notices.must_repeat(&recipient("a"), SECOND), "only its own subscription removes a notice");
    }

    #[test]
    fn a_notice_whose_successor_is_gone_is_the_oldest() {
        let mut notices = ClosingNotices::default();
        notices.insert(recipient("a"), FIRST);
        notices.insert(recipient("b"), SECOND);
        notices.insert(recipient("a"), THIRD);
        notices.remove(&recipient("a"), THIRD);
        assert!(notices.must_repeat(&recipient("a"), FIRST));
        assert_eq!(notices.oldest_above(2, |_| true), None);
        assert_eq!(notices.oldest_above(1, |_| true), Some(FIRST));
        assert_eq!(notices.oldest_above(1, |id| id != FIRST), Some(SECOND));
        assert_eq!(notices.oldest_above(0, |_| false), None);
    }

    #[test]
    fn long_recipients_are_bounded_by_their_bytes() {
        let mut notices = ClosingNotices::default();
        let long = |letter: &str| recipient(&letter.repeat(BYTES_PER_NOTICE));
        notices.insert(long("a"), FIRST);
        notices.insert(long("a"), FIRST);
        assert_eq!(notices.held, long("a").held());
        notices.insert(long("b"), SECOND);
        notices.remove(&long("b"), FIRST);
        assert_eq!(notices.oldest_above(2, |_| true), Some(FIRST));
        notices.remove(&long("a"), FIRST);
        assert_eq!(notices.oldest_above(2, |_| true), None);
        assert!(notices.must_repeat(&long("a"), FIRST));
        assert_eq!(notices.held, 2 * long("a").held());
    }
}
