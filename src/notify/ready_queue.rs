//! [`ReadyQueue`]: the due subscriptions whose device is free, and whose turn it is.

use std::collections::VecDeque;

use super::SubscriptionId;
use crate::client::ClientKey;

/// Subscriptions of each client, in order. Loopback and the other clients have turns one after the other, and so have the
/// other clients among themselves. A client that has nothing to send, or may not send, loses its turn.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    loopback: VecDeque<SubscriptionId>,
    /// Those of the other clients, in the order of their turns. None is empty.
    others: VecDeque<(ClientKey, VecDeque<SubscriptionId>)>,
    /// True if loopback has had the last turn.
    others_first: bool,
}

/// The place of a subscription in the queue, until the queue changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadyPlace {
    /// Which of the other clients; `None` for loopback.
    other: Option<usize>,
    at: usize,
}

impl ReadyQueue {
    /// Adds a subscription of `client`.
    pub(super) fn push(&mut self, client: ClientKey, id: SubscriptionId) {
        if client.is_loopback() {
            self.loopback.push_back(id);
        } else if let Some((_, queue)) = self.others.iter_mut().find(|(other, _)| *other == client) {
            queue.push_back(id);
        } else {
            self.others.push_back((client, VecDeque::from([id])));
        }
    }

    /// Removes a subscription of `client`, which has no turn for it.
    pub(super) fn remove(&mut self, client: ClientKey, id: SubscriptionId) {
        if client.is_loopback() {
            self.loopback.retain(|&ready| ready != id);
        } else if let Some(other) = self.others.iter().position(|(other, _)| *other == client) {
            self.others[other].1.retain(|&ready| ready != id);
            if self.others[other].1.is_empty() {
                self.others.remove(other);
            }
        }
    }

    /// The first place that `choose` returns of a client's subscriptions, in the order of turns.
    pub(super) fn find(
        &self,
        choose: impl Fn(ClientKey, &VecDeque<SubscriptionId>) -> Option<usize>,
    ) -> Option<ReadyPlace> {
        let loopback = || choose(ClientKey::Loopback, &self.loopback).map(|at| ReadyPlace { other: None, at });
        let others = || {
            let mut others = self.others.iter().enumerate();
            others.find_map(|(other, (client, queue))| {
                choose(*client, queue).map(|at| ReadyPlace { other: Some(other), at })
            })
        };
        if self.others_first { others().or_else(loopback) } else { loopback().or_else(others) }
    }

    /// Takes the subscription out whose place [`ReadyQueue::find`] has returned: its client has its turn.
    pub(super) fn take(&mut self, place: ReadyPlace) -> Option<SubscriptionId> {
        self.others_first = place.other.is_none();
        let Some(other) = place.other else { return self.loopback.remove(place.at) };
        let (client, mut queue) = self.others.remove(other)?;
        let id = queue.remove(place.at);
        if !queue.is_empty() {
            self.others.push_back((client, queue));
        }
        id
    }

    /// True if no subscription is in the queue.
    pub(super) fn is_empty(&self) -> bool {
        self.loopback.is_empty() && self.others.is_empty()
    }

    /// The number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.loopback.len() + self.others.iter().map(|(_, queue)| queue.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: ClientKey = ClientKey::Loopback;

    /// A queue of these subscriptions.
    fn queue(of: &[(ClientKey, &[usize])]) -> ReadyQueue {
        let mut ready = ReadyQueue::default();
        for &(client, ids) in of {
            ids.iter().for_each(|&id| ready.push(client, SubscriptionId(id)));
        }
        ready
    }

    /// Takes the first subscription of the client whose turn it is.
    fn take(ready: &mut ReadyQueue) -> Option<usize> {
        let place = ready.find(|_, queue| (!queue.is_empty()).then_some(0))?;
        ready.take(place).map(|id| id.0)
    }

    /// Takes all.
    fn take_all(ready: &mut ReadyQueue) -> Vec<usize> {
        std::iter::from_fn(|| take(ready)).collect()
    }

    #[test]
    fn loopback_has_every_other_turn_and_the_others_have_theirs_in_turn() {
        let of = [
            (ClientKey::V6(1), &[10, 11, 12, 13][..]),
            (ClientKey::V6(2), &[20]),
            (ClientKey::V6(3), &[30, 31]),
            (LOOPBACK, &[0, 1, 2]),
        ];
        assert_eq!(take_all(&mut queue(&of)), [0, 10, 1, 20, 2, 30, 11, 31, 12, 13]);
        for client in [LOOPBACK, ClientKey::V6(1)] {
            assert_eq!(take_all(&mut queue(&[(client, &[0, 1, 2])])), [0, 1, 2]);
        }
    }

    #[test]
    fn a_client_that_may_not_send_leaves_its_turn_and_has_the_next_one() {
        let mut ready = queue(&[(LOOPBACK, &[0, 1, 2]), (ClientKey::V6(1), &[10]), (ClientKey::V6(2), &[20])]);
        let only = |ready: &mut ReadyQueue, client| {
            let place = ready.find(|of, queue| (of == client && !queue.is_empty()).then_some(0))?;
            ready.take(place)
        };
        assert_eq!([0, 1].map(|_| only(&mut ready, LOOPBACK)), [0, 1].map(|id| Some(SubscriptionId(id))));
        assert_eq!(only(&mut ready, ClientKey::V6(2)), Some(SubscriptionId(20)));
        assert_eq!(take_all(&mut ready), [2, 10]);
    }

    #[test]
    fn a_client_without_subscriptions_is_forgotten() {
        let mut ready = queue(&[(LOOPBACK, &[0]), (ClientKey::V6(1), &[10]), (ClientKey::V6(2), &[20, 21])]);
        assert_eq!((ready.len(), ready.is_empty()), (4, false));
        ready.remove(ClientKey::V6(1), SubscriptionId(10));
        ready.remove(ClientKey::V6(2), SubscriptionId(20));
        ready.remove(LOOPBACK, SubscriptionId(0));
        assert_eq!(ready.others.len(), 1);
        assert_eq!(take_all(&mut ready), [21]);
        assert!(ready.is_empty() && ready.others.is_empty());
    }
}
