//! [`ClosingNotices`]: the closing notices that wait for Luup after their connections have ended.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::subscription::{Recipient, SubscriptionId};
use crate::client::ClientUsage;

/// Bytes of a recipient, on average, that the limit of notices allows for. Usual ones have 150; the longest NTFY makes 3200.
pub(super) const BYTES_PER_NOTICE: usize = 256;

/// Subscriptions whose closing notice waits. There is one for each recipient: two notices of a client with the same request
/// are one.
///
/// The limit is shared by clients: beyond it the one that holds most loses its oldest notice. While clients other than
/// loopback hold more than three quarters together, it is one of them, so that a quarter is for loopback whatever the
/// others leave. As in `relay::memory_shares`, a quarter is more than the plugins of a box need. As long as the limit is
/// not reached, each client may hold as much as it likes.
#[derive(Debug, Default)]
pub(super) struct ClosingNotices {
    waiting: HashMap<Recipient, ClosingNotice>,
    /// How many of them each client holds.
    count: ClientUsage,
    /// Bytes of their recipients; see [`Recipient::held`].
    held: ClientUsage,
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
        let notice = ClosingNotice { id, serial: self.serial };
        if let Some(older) = self.waiting.get_mut(&recipient) {
            return Some(std::mem::replace(older, notice).id);
        }
        self.add(recipient, notice);
        None
    }

    /// True if the failed notice of `id` must be repeated; false if a newer one with the same recipient replaces it.
    /// If the newer one is gone, this one is added again as the oldest.
    pub(super) fn must_repeat(&mut self, recipient: &Recipient, id: SubscriptionId) -> bool {
        match self.waiting.get(recipient) {
            Some(waiting) => waiting.id == id,
            None => {
                self.add(recipient.clone(), ClosingNotice { id, serial: 0 });
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
            self.count.subtract(recipient.device.client, 1);
            self.held.subtract(recipient.device.client, recipient.held());
        }
    }

    /// If more than `limit` notices wait, or more than [`BYTES_PER_NOTICE`] times as many bytes, returns the one to drop:
    /// of those that `may_drop` accepts, the oldest of the client that holds most. `None` also if only those of loopback
    /// may be dropped while other clients hold more than their share.
    pub(super) fn poll_excess(
        &self,
        limit: usize,
        may_drop: impl Fn(SubscriptionId) -> bool,
    ) -> Option<SubscriptionId> {
        let max_bytes = limit.saturating_mul(BYTES_PER_NOTICE);
        let (usage, max) = match () {
            () if self.count.total() > limit => (&self.count, limit),
            () if self.held.total() > max_bytes => (&self.held, max_bytes),
            () => return None,
        };
        let others_have_too_much = usage.others_total() > max - max / 4;
        let candidates = self.waiting.iter().filter(|(recipient, notice)| {
            may_drop(notice.id) && !(others_have_too_much && recipient.device.client.is_loopback())
        });
        let (_, notice) =
            candidates.min_by_key(|(recipient, notice)| (Reverse(usage.of(recipient.device.client)), notice.serial))?;
        Some(notice.id)
    }

    fn add(&mut self, recipient: Recipient, notice: ClosingNotice) {
        self.count.add(recipient.device.client, 1);
        self.held.add(recipient.device.client, recipient.held());
        self.waiting.insert(recipient, notice);
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
        of_client(ClientKey::Loopback, query)
    }

    fn of_client(client: ClientKey, query: &str) -> Recipient {
        Recipient { device: DeviceKey::new(client, "5"), query: query.into(), events: false, pace: None, secret: false }
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
        assert_eq!(notices.poll_excess(2, |_| true), None);
        assert_eq!(notices.poll_excess(1, |_| true), Some(FIRST));
        assert_eq!(notices.poll_excess(1, |id| id != FIRST), Some(SECOND));
        assert_eq!(notices.poll_excess(0, |_| false), None);
    }

    #[test]
    fn long_recipients_are_bounded_by_their_bytes() {
        let mut notices = ClosingNotices::default();
        let long = |letter: &str| recipient(&letter.repeat(BYTES_PER_NOTICE));
        notices.insert(long("a"), FIRST);
        notices.insert(long("a"), FIRST);
        assert_eq!(notices.held.total(), long("a").held());
        notices.insert(long("b"), SECOND);
        notices.remove(&long("b"), FIRST);
        assert_eq!(notices.poll_excess(2, |_| true), Some(FIRST));
        notices.remove(&long("a"), FIRST);
        assert_eq!(notices.poll_excess(2, |_| true), None);
        assert!(notices.must_repeat(&long("a"), FIRST));
        assert_eq!(notices.held.total(), 2 * long("a").held());
    }

    /// Adds `count` notices of `client` with queries of so many bytes, the first of which is `first`.
    fn fill(notices: &mut ClosingNotices, client: ClientKey, first: usize, count: usize, bytes: usize) {
        for number in first..first + count {
            notices.insert(of_client(client, &format!("{number:0bytes$}")), SubscriptionId(number));
        }
    }

    /// Removes what is beyond the limit, and returns what it was.
    fn drop_excess(notices: &mut ClosingNotices, limit: usize) -> Vec<usize> {
        let drop_one = || {
            let id = notices.poll_excess(limit, |_| true)?;
            let recipient =
                notices.waiting.iter().find(|(_, notice)| notice.id == id).map(|(recipient, _)| recipient.clone());
            notices.remove(&recipient.unwrap(), id);
            Some(id.0)
        };
        std::iter::from_fn(drop_one).collect()
    }

    #[test]
    fn the_client_that_holds_most_loses_its_oldest() {
        let mut notices = ClosingNotices::default();
        fill(&mut notices, ClientKey::V6(1), 0, 3, 8);
        fill(&mut notices, ClientKey::V6(2), 10, 5, 8);
        fill(&mut notices, ClientKey::V6(1), 20, 4, 8);
        assert!(drop_excess(&mut notices, 12).is_empty());
        assert_eq!(drop_excess(&mut notices, 7), [0, 1, 2, 10, 11], "7 and 5 become 4 and 3");
        assert_eq!(notices.poll_excess(6, |id| id.0 < 20), Some(SubscriptionId(12)), "as far as they may be dropped");
    }

    #[test]
    fn loopback_keeps_a_quarter_whatever_other_clients_hold() {
        // By number, and by bytes where these are few and those of other clients long.
        for bytes in [8, 4 * BYTES_PER_NOTICE] {
            let mut notices = ClosingNotices::default();
            let (limit, own) = (40, if bytes > BYTES_PER_NOTICE { 30 } else { 10 });
            fill(&mut notices, ClientKey::Loopback, 0, own, 8);
            for client in 0..100 {
                fill(&mut notices, ClientKey::V6(client), 100 + client as usize, 1, bytes);
                assert!(drop_excess(&mut notices, limit).iter().all(|&id| id >= 100), "{bytes} bytes");
            }
            assert_eq!(notices.count.of(ClientKey::Loopback), own);
            let left = if bytes > BYTES_PER_NOTICE { 9 } else { 30 };
            assert_eq!(notices.count.others_total(), left, "{bytes} bytes: the others have the rest");
        }
    }

    #[test]
    fn each_client_alone_may_hold_all() {
        for client in [ClientKey::Loopback, ClientKey::V6(1)] {
            let mut notices = ClosingNotices::default();
            fill(&mut notices, client, 0, 41, 8);
            assert_eq!(drop_excess(&mut notices, 40), [0], "{client}");
        }
    }

    #[test]
    fn loopback_loses_no_notice_in_place_of_one_that_is_out() {
        let mut notices = ClosingNotices::default();
        fill(&mut notices, ClientKey::V6(1), 0, 2, 8);
        fill(&mut notices, ClientKey::Loopback, 2, 1, 8);
        assert_eq!(notices.poll_excess(2, |id| id.0 >= 2), Some(SubscriptionId(2)), "more than its half");
        assert_eq!(notices.poll_excess(1, |id| id.0 >= 2), None);
    }
}
