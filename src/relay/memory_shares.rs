//! Which session holds how much of the memory, how much it may hold, and which one ends when others need memory. Sans-IO.
//!
//! A session may hold as much as is left free by all (dynamic thresholds: Choudhury and Hahne, "Dynamic queue length
//! thresholds for shared-memory packet switches", 1998). So one session gets half of the memory, each of two a third, and
//! each of n an (n + 1)th part: however many sessions take what they can, as much as each has is left for the next one.
//! Clients other than loopback have less: see [`MemoryShares::free`].
//!
//! A session that cannot go on with what it may hold waits ([`MemoryShares::wait`]). It goes on when memory is released.
//! If none is, the largest holder that stands still is ended. That is the waiting session itself if no other holds more.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::memory_budget::RESERVE;
use crate::client::{ClientKey, ClientUsage};

/// A session stands still that has neither released as many bytes as it holds for this time, nor come to hold half as many
/// again. A device that reads slowly takes 64 KiB at 13 KB/s in this time, and plugins wait 5 s for an answer.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two checks of the sessions that wait. Each may give all of them a turn.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// A check ends sessions until they have freed this many bytes: the longest message by default (MAXM).
const MIN_FREED: usize = 64 * 1024;

/// A session, as the daemon calls it.
type Key = usize;

/// What a session holds.
#[derive(Debug)]
struct Holder {
    client: ClientKey,
    held: usize,
    /// When it last had released all that it held before, or had come to hold half as much again.
    since: Instant,
    /// What it held then.
    before: usize,
    /// Bytes of that which it has not released.
    unreleased: usize,
    /// How it waits for memory, or has waited. Boxed, since few sessions ever do.
    wait: Option<Box<Wait>>,
}

/// How a session waits for memory.
#[derive(Debug)]
struct Wait {
    /// It waits now.
    waits: bool,
    /// Bytes that it needs.
    needed: usize,
    /// When it last waited, or had a turn in which it did not find enough.
    waited: Instant,
    /// Since when it has found no memory in any turn.
    since: Instant,
}

impl Holder {
    fn waits(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.waits)
    }

    /// `bytes` were released, or moved on while others took their place.
    fn handle_released(&mut self, bytes: usize, now: Instant) {
        self.unreleased = self.unreleased.saturating_sub(bytes);
        if self.unreleased == 0 {
            self.restart(now);
        }
    }

    fn restart(&mut self, now: Instant) {
        (self.since, self.before, self.unreleased) = (now, self.held, self.held);
    }
}

/// The memory that sessions and clients hold.
#[derive(Debug, Default)]
pub(super) struct MemoryShares {
    /// Boxed: the table has room for twice as many.
    holders: HashMap<Key, Box<Holder>>,
    /// Bytes held by each client.
    clients: ClientUsage,
    /// The session that has its turn, and since when.
    turn: Option<(Key, Instant)>,
    /// Sessions that wait, those that have waited longest first.
    waiting: VecDeque<Key>,
    /// Memory was released since the last check of those that wait.
    released: bool,
    next_check: Option<Instant>,
}

/// What is to be done because memory is short.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortageActions {
    /// Sessions to end, the largest first.
    pub end: Vec<Key>,
    /// Sessions that are to have a turn.
    pub wake: Vec<Key>,
}

impl MemoryShares {
    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.holders.len()
    }

    /// A session of `client` begins. It holds nothing.
    pub(super) fn add_holder(&mut self, key: Key, client: ClientKey, now: Instant) {
        let holder = Holder { client, held: 0, since: now, before: 0, unreleased: 0, wait: None };
        self.holders.insert(key, Box::new(holder));
    }

    /// A session has ended, and holds nothing any more.
    pub(super) fn remove_holder(&mut self, key: Key) {
        self.turn.take_if(|(current, _)| *current == key);
        if let Some(holder) = self.holders.remove(&key) {
            debug_assert_eq!(holder.held, 0, "a session that has ended holds memory");
            if holder.waits() {
                self.waiting.retain(|&waiting| waiting != key);
            }
        }
        if self.holders.is_empty() {
            // Memory that many sessions have needed is freed when they are gone.
            (self.holders, self.clients, self.waiting) = Default::default();
        }
    }

    /// A session belongs to another client from now on (ATCH).
    pub(super) fn set_client(&mut self, key: Key, client: ClientKey) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        let (before, held) = (std::mem::replace(&mut holder.client, client), holder.held);
        self.clients.subtract(before, held);
        self.clients.add(client, held);
    }

    /// What is counted from now on is that of this session. `None`: of no session.
    pub(super) fn begin_turn(&mut self, turn: Option<(Key, Instant)>) {
        self.turn = turn;
        if !self.waiting.is_empty()
            && let Some((key, now)) = turn
            && let Some(holder) = self.holders.get_mut(&key)
            && let Some(wait) = &mut holder.wait
            && std::mem::take(&mut wait.waits)
        {
            wait.waited = now;
            self.waiting.retain(|&waiting| waiting != key);
        }
    }

    fn current(&self) -> Option<&Holder> {
        self.holders.get(&self.turn?.0).map(|holder| &**holder)
    }

    /// `bytes` more are held.
    pub(super) fn hold(&mut self, bytes: usize) {
        let Some((key, now)) = self.turn else { return };
        let Some(holder) = self.holders.get_mut(&key) else { return };
        holder.held += bytes;
        if holder.held >= holder.before + holder.before / 2 {
            // A message that comes in is no standstill. Where memory is short, few sessions can grow.
            holder.restart(now);
        }
        let client = holder.client;
        self.clients.add(client, bytes);
    }

    /// `bytes` less are held.
    pub(super) fn release(&mut self, bytes: usize) {
        self.released = true;
        let Some((key, now)) = self.turn else { return };
        let Some(holder) = self.holders.get_mut(&key) else { return };
        debug_assert!(bytes <= holder.held);
        holder.held = holder.held.saturating_sub(bytes);
        holder.handle_released(bytes, now);
        let client = holder.client;
        self.clients.subtract(client, bytes);
    }

    /// The session has written `bytes` of what it holds, and may hold others in their place.
    pub(super) fn handle_moved(&mut self, bytes: usize) {
        if let Some((key, now)) = self.turn
            && let Some(holder) = self.holders.get_mut(&key)
        {
            holder.handle_released(bytes, now);
        }
    }

    /// Bytes that the session which has its turn finds free, of `left` that are left of `limit`. A client other than
    /// loopback has half of the memory, and all of those three quarters: what is left is for plugins on this machine.
    fn free(&self, client: ClientKey, left: usize, limit: usize) -> usize {
        if client.is_loopback() {
            return left;
        }
        let own = self.clients.of(client);
        left.min(client_limit(limit).saturating_sub(own))
            .min(others_limit(limit).saturating_sub(self.clients.others_total()))
    }

    /// Bytes that the session which has its turn may hold more, of `left` that are left of `limit`.
    pub(super) fn share(&self, left: usize, limit: usize) -> usize {
        match self.current() {
            Some(holder) => self.free(holder.client, left, limit).saturating_sub(holder.held),
            None => left,
        }
    }

    /// True if the session which has its turn holds as much as it might hold if no other held anything. `None` has its turn:
    /// true.
    pub(super) fn is_exhausted(&self, limit: usize) -> bool {
        let most = |holder: &Holder| if holder.client.is_loopback() { limit / 2 } else { client_limit(limit) / 2 };
        self.current().is_none_or(|holder| holder.held >= most(holder))
    }

    /// The session which has its turn cannot go on before it may hold `needed` bytes more.
    pub(super) fn wait(&mut self, needed: usize) {
        let Some((key, now)) = self.turn else { return };
        let Some(holder) = self.holders.get_mut(&key) else { return };
        let wait = holder.wait.get_or_insert_with(|| Box::new(Wait { waits: false, needed, waited: now, since: now }));
        if wait.waited != now {
            // Since it last waited, it has had a turn in which it found enough.
            (wait.waited, wait.since) = (now, now);
        }
        wait.needed = needed;
        if !std::mem::replace(&mut wait.waits, true) {
            self.waiting.push_back(key);
            self.next_check.get_or_insert(now + CHECK_INTERVAL);
        }
    }

    /// True if the session waits for memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn is_waiting(&self, key: Key) -> bool {
        self.waiting.contains(&key)
    }

    /// When to call [`MemoryShares::poll`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_check.filter(|_| !self.waiting.is_empty())
    }

    /// What is to be done because memory is short.
    pub(super) fn poll(&mut self, now: Instant, left: usize, limit: usize) -> ShortageActions {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return ShortageActions::default();
        }
        self.next_check = Some(now + CHECK_INTERVAL);
        let end = self.holders_to_end(now, left, limit);
        let mut wake = Vec::new();
        if std::mem::take(&mut self.released) || !end.is_empty() {
            // Those that still do not find enough wait again.
            wake = self.waiting.iter().copied().filter(|key| !end.contains(key)).collect();
        } else {
            // It is the turn of another one to find a holder whose end helps it.
            self.waiting.rotate_left(1);
        }
        ShortageActions { end, wake }
    }

    /// The largest holders that stand still, of those whose end helps the session that has waited longest, and that hold as
    /// much as it does.
    fn holders_to_end(&self, now: Instant, left: usize, limit: usize) -> Vec<Key> {
        let Some(waiting) = self.waiting.front().and_then(|key| self.holders.get(key)) else { return Vec::new() };
        let Some(wait) = &waiting.wait else { return Vec::new() };
        let has_enough = self.free(waiting.client, left, limit) >= waiting.held + wait.needed;
        if has_enough || now.saturating_duration_since(wait.since) < CHECK_INTERVAL {
            return Vec::new();
        }
        let client = waiting.client;
        let own = self.clients.of(client);
        // The bound that the session meets first: its client's, that of all but loopback, or that of all.
        let helps = |holder: &Holder| {
            if !client.is_loopback() && client_limit(limit).saturating_sub(own) <= waiting.held + RESERVE {
                holder.client == client
            } else if !client.is_loopback()
                && others_limit(limit).saturating_sub(self.clients.others_total()) <= waiting.held + RESERVE
            {
                !holder.client.is_loopback()
            } else {
                true
            }
        };
        let largest = self.holders.values().filter(|&holder| helps(holder)).map(|holder| holder.held).max();
        // A session that waits while others hold more and make progress is not ended for the standstill.
        let may_end = |holder: &Holder| !holder.waits() || largest <= Some(holder.held);
        let mut stalled: Vec<(usize, Key)> = self
            .holders
            .iter()
            .filter(|&(_, holder)| holder.held > RESERVE && holder.held >= waiting.held)
            .filter(|&(_, holder)| helps(holder) && may_end(holder))
            .filter(|(_, holder)| now.saturating_duration_since(holder.since) >= STALL_TIMEOUT)
            .map(|(&key, holder)| (holder.held, key))
            .collect();
        stalled.sort_unstable_by(|one, other| other.cmp(one));
        let mut freed = 0;
        let mut end = Vec::new();
        for (held, key) in stalled {
            if freed >= MIN_FREED {
                break;
            }
            freed += held;
            end.push(key);
        }
        end
    }
}

fn client_limit(limit: usize) -> usize {
    limit / 2
}

fn others_limit(limit: usize) -> usize {
    limit - limit / 4
}

#[cfg(test)]
mod tests {
    use testkit::random::Random;

    use super::*;
    use crate::relay::memory_budget::MemoryBudget;
    use crate::testing::seeds::for_each_seed;

    const LIMIT: usize = 1 << 20;

    fn client(last: u8) -> ClientKey {
        ClientKey::of([192, 168, 0, last].into())
    }

    struct Fixture {
        budget: MemoryBudget,
        now: Instant,
    }

    impl Fixture {
        /// Sessions 0.. of these clients.
        fn new(clients: &[ClientKey]) -> Self {
            let (mut budget, now) = (MemoryBudget::new(LIMIT, 65_536), Instant::now());
            for (key, &client) in clients.iter().enumerate() {
                budget.add_session(key, client, now);
            }
            Self { budget, now }
        }

        /// The session takes what it may, up to `most`, and waits if that is less.
        fn take(&mut self, key: Key, most: usize) -> usize {
            self.budget.begin_turn(key, self.now);
            let mut taken = 0;
            // As connections read: in pieces.
            while taken < most {
                let piece = self.budget.left().min(4096).min(most - taken);
                if piece == 0 {
                    self.budget.wait(1);
                    break;
                }
                self.budget.hold(piece);
                taken += piece;
            }
            taken
        }

        fn release(&mut self, key: Key, bytes: usize) {
            self.budget.begin_turn(key, self.now);
            self.budget.release(bytes);
        }

        /// Lets `time` pass, and returns what is to be done then. Sessions that are to end release what they hold, `held`.
        fn pass(&mut self, time: Duration, held: &mut [usize]) -> ShortageActions {
            self.now += time;
            let actions = self.budget.poll_shortage(self.now);
            for &key in &actions.end {
                self.release(key, std::mem::take(&mut held[key]));
            }
            actions
        }
    }

    #[test]
    fn a_session_may_hold_as_much_as_is_left_free() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 9]);
        let all = fixture.budget.left_in_all();
        let taken = fixture.take(0, usize::MAX);
        assert!((all / 2..all / 2 + 4096).contains(&taken), "{taken}");
        let later = fixture.take(1, usize::MAX);
        assert!((all / 4 - 4096..all / 4 + 4096).contains(&later), "a later one gets half of what is left: {later}");
        fixture.release(0, taken);
        let taken = fixture.take(0, usize::MAX);
        assert!(taken > all / 4, "{taken}");
        // However many come, the next one finds something.
        let last = (2..9).map(|key| fixture.take(key, usize::MAX)).last().unwrap();
        assert!(last > 1000, "{last}");
    }

    #[test]
    fn clients_other_than_loopback_leave_it_a_quarter() {
        let mut fixture = Fixture::new(&[client(1), client(1), client(1), client(2), client(3), ClientKey::Loopback]);
        let taken: usize = (0..3).map(|key| fixture.take(key, usize::MAX)).sum();
        assert!((LIMIT / 3..=LIMIT / 2).contains(&taken), "{taken}");
        let others: usize = (3..5).map(|key| fixture.take(key, usize::MAX)).sum();
        assert!(taken + others <= LIMIT * 3 / 4, "{}", taken + others);
        assert!(fixture.take(5, 100_000) == 100_000, "a plugin on this machine gets its message");
    }

    #[test]
    fn the_largest_holder_that_stands_still_ends_for_one_that_waits() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 4]);
        let mut held = [300_000, 200_000, 250_000, 0];
        for (key, &most) in held[..3].iter().enumerate() {
            assert_eq!(fixture.take(key, most), most);
        }
        held[3] = fixture.take(3, 190_000);
        assert!(fixture.budget.is_waiting(3) && held[3] < 190_000);
        assert_eq!(fixture.pass(STALL_TIMEOUT / 2, &mut held), ShortageActions::default(), "none stands still yet");
        // The largest has written all that it held, and holds as much again.
        fixture.budget.begin_turn(0, fixture.now);
        fixture.budget.handle_moved(300_000);
        let actions = fixture.pass(STALL_TIMEOUT / 2, &mut held);
        assert_eq!(actions, ShortageActions { end: vec![2], wake: vec![3] });
        held[3] += fixture.take(3, 190_000 - held[3]);
        assert_eq!(held[3], 190_000);
    }

    #[test]
    fn a_session_that_wants_more_than_all_others_hold_ends_itself() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 3]);
        let mut held = [100_000, 60_000, 0];
        for (key, &most) in held[..2].iter().enumerate() {
            fixture.take(key, most);
        }
        held[2] = fixture.take(2, usize::MAX);
        assert!(held[2] > 400_000);
        let actions = fixture.pass(STALL_TIMEOUT, &mut held);
        assert_eq!(actions, ShortageActions { end: vec![2], wake: vec![] });
    }

    #[test]
    fn a_client_that_has_used_up_its_share_ends_no_session_of_others() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback, client(1), client(1), client(2)]);
        let mut held = [400_000, 0, 0, 50_000];
        fixture.take(0, held[0]);
        fixture.take(3, held[3]);
        held[1] = fixture.take(1, usize::MAX);
        held[2] = fixture.take(2, usize::MAX);
        let actions = fixture.pass(STALL_TIMEOUT, &mut held);
        assert_eq!(actions.end, [1], "{held:?}");
        let actions = fixture.pass(CHECK_INTERVAL, &mut held);
        assert_eq!(actions, ShortageActions { end: vec![], wake: vec![2] }, "it has enough now");
    }

    #[test]
    fn what_is_counted_of_no_session_bounds_all() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback]);
        fixture.budget.hold(LIMIT);
        assert_eq!(fixture.take(0, 10), 0);
        fixture.budget.end_turn();
        fixture.budget.release(LIMIT);
        assert_eq!(fixture.take(0, 10), 10);
        fixture.budget.begin_turn(0, fixture.now);
        fixture.budget.release(10);
        fixture.budget.remove_session(0);
        assert_eq!(fixture.budget.held(), 0);
    }

    /// Sessions take, write and release at random; some of them never release anything. What is held stays within the
    /// bound, and a session that holds nothing and needs an equal part gets it in time.
    fn simulate(seed: u64) {
        let mut random = Random::new(seed);
        let clients: Vec<ClientKey> = (0..2 + random.below(60))
            .map(|_| if random.below(2) == 0 { ClientKey::Loopback } else { client(1 + random.below(4) as u8) })
            .collect();
        let mut fixture = Fixture::new(&clients);
        let never_releases: Vec<bool> = clients.iter().map(|_| random.below(2) == 0).collect();
        let mut held = vec![0; clients.len()];
        for _ in 0..300 {
            let key = random.below(clients.len() as u64) as usize;
            if random.below(3) > 0 {
                held[key] += fixture.take(key, random.below(200_000) as usize);
            } else if !never_releases[key] {
                let released = random.below(held[key] as u64 + 1) as usize;
                fixture.release(key, released);
                held[key] -= released;
            }
            fixture.pass(Duration::from_millis(random.below(60)), &mut held);
            assert_eq!(fixture.budget.held(), held.iter().sum::<usize>());
            assert!(fixture.budget.held() <= LIMIT);
            let of_others = clients.iter().zip(&held).filter(|(client, _)| !client.is_loopback());
            assert!(of_others.map(|(_, held)| held).sum::<usize>() <= LIMIT - LIMIT / 4);
        }
        // A newcomer on this machine needs an equal part.
        let needed = (LIMIT / 2 / (clients.len() + 1)).min(65_536);
        let newcomer = clients.len();
        fixture.budget.add_session(newcomer, ClientKey::Loopback, fixture.now);
        held.push(0);
        let start = fixture.now;
        loop {
            held[newcomer] += fixture.take(newcomer, needed - held[newcomer]);
            if held[newcomer] == needed {
                break;
            }
            let actions = fixture.pass(CHECK_INTERVAL, &mut held);
            assert!(!actions.end.contains(&newcomer), "a session that holds little is ended");
            // All others stand still, and take what they can.
            for key in actions.wake.into_iter().filter(|&key| key != newcomer) {
                held[key] += fixture.take(key, 1000);
            }
            let waited = fixture.now - start;
            assert!(waited <= STALL_TIMEOUT + 20 * CHECK_INTERVAL, "it waits for {waited:?}: {held:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_a_session_that_holds_little_finds_some_in_time() {
        for_each_seed("relay::memory_shares", 300, simulate);
    }
}
