//! Which session holds how much of the memory, how much it may hold, and which one ends when others need memory. Sans-IO.
//!
//! A session may hold as much as is left free by all (dynamic thresholds: Choudhury and Hahne, "Dynamic queue length
//! thresholds for shared-memory packet switches", 1998). So one session gets half of the memory, each of two a third, and
//! each of n an (n + 1)th part: however many sessions take what they can, as much as each has is left for the next one.
//! Clients other than loopback have less: see [`MemoryShares::free`]. Byte streams, which backpressure holds back, have half
//! of it together: see [`MemoryShares::stream_share`].
//!
//! A session that cannot go on with what it may hold waits ([`MemoryShares::wait`]). It goes on when memory is released.
//! If none is, a holder that stands still is ended ([`HeldKinds`] says for what). That is the waiting session itself if no
//! other holds more.

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

/// The number of a session: its slot in the daemon's table. It is an index here.
type Slot = usize;

/// What a session holds, by what its end would cost. What is in neither is the rest: whole messages that their reader does
/// not take, inflaters, the state of TLS, options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldKinds {
    /// Bytes of byte streams that their reader has yet to take. Backpressure holds back what follows them, and the bytes are
    /// lost if the session ends: no session is ended for them.
    pub stream: usize,
    /// Bytes of a message, line, record or handshake that has come in part, if only its sender keeps it from going on. If the
    /// session ends, nothing whole is lost.
    pub incomplete: usize,
}

/// What is counted of each session, whatever it holds.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    held: u32,
    /// Bytes of `held` that are a byte stream's.
    stream: u32,
}

/// A session that may be ended for what it holds.
#[derive(Debug)]
struct Holder {
    client: ClientKey,
    /// When it last had released all that it held before, or had come to hold half as much again.
    since: Instant,
    /// What it held then.
    before: u32,
    /// Bytes of that which it has not released.
    unreleased: u32,
    /// See [`HeldKinds::incomplete`].
    incomplete: u32,
    /// Bytes that are no byte stream's, if nothing is incomplete.
    other: u32,
}

/// The order in which sessions are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HolderClass {
    /// It holds a part of something, whose sender has stopped.
    Incomplete,
    /// It holds something whole, or what the connection itself needs.
    Other,
}

/// A session that waits for memory.
#[derive(Debug)]
struct Waiter {
    slot: Slot,
    client: ClientKey,
    /// Bytes that it needs.
    needed: usize,
    /// Since when it has found no memory in any turn.
    since: Instant,
}

/// The turn of a session.
#[derive(Clone, Copy, Debug)]
struct Turn {
    slot: Slot,
    client: ClientKey,
    now: Instant,
    /// What the session held when the turn began.
    held_before: usize,
    /// Since when it has found no memory in any turn, if it waited before this one.
    waits_since: Option<Instant>,
}

impl Holder {
    /// `None`: not enough to end the session for it.
    fn new(client: ClientKey, held: u32, kinds: HeldKinds, now: Instant) -> Option<Self> {
        let mut holder = Self { client, since: now, before: held, unreleased: held, incomplete: 0, other: 0 };
        holder.set_kinds(held, kinds).then_some(holder)
    }

    /// False if that is not enough to end the session for it.
    fn set_kinds(&mut self, held: u32, kinds: HeldKinds) -> bool {
        self.incomplete = to_u32(kinds.incomplete);
        self.other = held.saturating_sub(to_u32(kinds.stream.saturating_add(kinds.incomplete)));
        [self.incomplete, self.other].into_iter().any(|bytes| to_usize(bytes) > RESERVE)
    }

    fn class(&self) -> HolderClass {
        if to_usize(self.incomplete) > RESERVE { HolderClass::Incomplete } else { HolderClass::Other }
    }

    /// The bytes for which it is ended.
    fn bytes(&self) -> usize {
        to_usize(match self.class() {
            HolderClass::Incomplete => self.incomplete,
            HolderClass::Other => self.other,
        })
    }

    /// `bytes` were released, or moved on while others took their place. `held`: what it holds now.
    fn handle_released(&mut self, bytes: usize, held: u32, now: Instant) {
        self.unreleased = self.unreleased.saturating_sub(to_u32(bytes));
        if self.unreleased == 0 {
            self.restart(held, now);
        }
    }

    fn restart(&mut self, held: u32, now: Instant) {
        (self.since, self.before, self.unreleased) = (now, held, held);
    }
}

/// The memory that sessions and clients hold.
#[derive(Debug, Default)]
pub(super) struct MemoryShares {
    /// Of each slot.
    counts: Vec<Count>,
    sessions: usize,
    /// Bytes of all byte streams, as of the last turn of each session.
    streams: usize,
    /// Sessions that may be ended. Boxed: the table has room for twice as many.
    holders: HashMap<Slot, Box<Holder>>,
    /// Bytes held by each client.
    clients: ClientUsage,
    turn: Option<Turn>,
    /// Sessions that wait, those that have waited longest first.
    waiting: VecDeque<Waiter>,
    /// Memory was released since the last check of those that wait.
    released: bool,
    next_check: Option<Instant>,
}

/// What is to be done because memory is short.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortageActions {
    /// Sessions to end.
    pub end: Vec<Slot>,
    /// Sessions that are to have a turn.
    pub wake: Vec<Slot>,
}

impl MemoryShares {
    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.sessions
    }

    /// A session begins. It holds nothing.
    pub(super) fn add_session(&mut self, slot: Slot) {
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, Count::default());
        }
        self.sessions += 1;
    }

    /// A session has ended, and holds nothing any more.
    pub(super) fn remove_session(&mut self, slot: Slot) {
        self.turn.take_if(|turn| turn.slot == slot);
        let Some(count) = self.counts.get_mut(slot).map(std::mem::take) else { return };
        debug_assert_eq!(count.held, 0, "a session that has ended holds memory");
        self.streams -= to_usize(count.stream);
        self.sessions -= 1;
        self.holders.remove(&slot);
        self.stop_waiting(slot);
        if self.sessions == 0 {
            // Memory that many sessions have needed is freed when they are gone.
            (self.counts, self.holders, self.clients, self.waiting) = Default::default();
        }
    }

    /// A session of the client `from` is one of `to` from now on (ATCH).
    pub(super) fn set_client(&mut self, slot: Slot, from: ClientKey, to: ClientKey) {
        let held = self.held(slot);
        self.clients.subtract(from, held);
        self.clients.add(to, held);
        if let Some(holder) = self.holders.get_mut(&slot) {
            holder.client = to;
        }
        for waiter in self.waiting.iter_mut().filter(|waiter| waiter.slot == slot) {
            waiter.client = to;
        }
    }

    /// What is counted from now on is that of this session, which is one of `client`.
    pub(super) fn begin_turn(&mut self, slot: Slot, client: ClientKey, now: Instant) {
        let waits_since = self.stop_waiting(slot);
        let is_known = slot < self.counts.len();
        self.turn = is_known.then(|| Turn { slot, client, now, held_before: self.held(slot), waits_since });
    }

    /// What is counted from now on is that of no session.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
    }

    /// The session waits no longer. Since when it has, if it did.
    fn stop_waiting(&mut self, slot: Slot) -> Option<Instant> {
        let at = self.waiting.iter().position(|waiter| waiter.slot == slot)?;
        self.waiting.remove(at).map(|waiter| waiter.since)
    }

    fn held(&self, slot: Slot) -> usize {
        self.counts.get(slot).map_or(0, |count| to_usize(count.held))
    }

    /// `bytes` more are held.
    pub(super) fn hold(&mut self, bytes: usize) {
        let Some(Turn { slot, client, now, .. }) = self.turn else { return };
        let held = &mut self.counts[slot].held;
        *held = held.saturating_add(to_u32(bytes));
        if let Some(holder) = self.holders.get_mut(&slot)
            && *held >= holder.before.saturating_add(holder.before / 2)
        {
            // A message that comes in is no standstill. Where memory is short, few sessions can grow.
            holder.restart(*held, now);
        }
        self.clients.add(client, bytes);
    }

    /// `bytes` less are held.
    pub(super) fn release(&mut self, bytes: usize) {
        self.released = true;
        let Some(Turn { slot, client, now, .. }) = self.turn else { return };
        let held = &mut self.counts[slot].held;
        debug_assert!(bytes <= to_usize(*held));
        *held = held.saturating_sub(to_u32(bytes));
        if let Some(holder) = self.holders.get_mut(&slot) {
            holder.handle_released(bytes, *held, now);
        }
        self.clients.subtract(client, bytes);
    }

    /// The session has written `bytes` of what it holds, and may hold others in their place.
    pub(super) fn handle_moved(&mut self, bytes: usize) {
        if let Some(Turn { slot, now, .. }) = self.turn
            && let Some(holder) = self.holders.get_mut(&slot)
        {
            holder.handle_released(bytes, self.counts[slot].held, now);
        }
    }

    /// What the session which has its turn holds now is of these kinds.
    pub(super) fn set_kinds(&mut self, kinds: HeldKinds) {
        let Some(Turn { slot, client, now, .. }) = self.turn else { return };
        let Count { held, stream } = &mut self.counts[slot];
        let before = std::mem::replace(stream, to_u32(kinds.stream));
        self.streams = self.streams - to_usize(before) + to_usize(*stream);
        match self.holders.get_mut(&slot) {
            Some(holder) => {
                if !holder.set_kinds(*held, kinds) {
                    self.holders.remove(&slot);
                }
            }
            None => {
                if let Some(holder) = Holder::new(client, *held, kinds, now) {
                    self.holders.insert(slot, Box::new(holder));
                }
            }
        }
    }

    /// Bytes that a session of `client` finds free, of `left` that are left of `limit`. A client other than loopback has half
    /// of the memory, and all of those three quarters: what is left is for plugins on this machine.
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
        match self.turn {
            Some(Turn { slot, client, .. }) => self.free(client, left, limit).saturating_sub(self.held(slot)),
            None => left,
        }
    }

    /// Bytes of a byte stream that the session which has its turn may hold more. No session is ended for those, so all
    /// streams together have half of the memory: the other half is always to be had by ending sessions.
    pub(super) fn stream_share(&self, left: usize, limit: usize) -> usize {
        let Some(Turn { slot, client, held_before, .. }) = self.turn else { return left };
        let held = self.held(slot);
        let streams = self.streams + held.saturating_sub(held_before);
        let all = stream_limit(limit);
        let limit_of_client = if client.is_loopback() { all } else { others_limit(all) };
        self.share(left, limit).min(limit_of_client.saturating_sub(streams).saturating_sub(held))
    }

    /// True if the session which has its turn holds as much as it might hold if no other held anything. `None` has its turn:
    /// true.
    pub(super) fn is_exhausted(&self, limit: usize) -> bool {
        self.turn.is_none_or(|Turn { slot, client, .. }| {
            let most = if client.is_loopback() { limit / 2 } else { client_limit(limit) / 2 };
            self.held(slot) >= most
        })
    }

    /// The session which has its turn cannot go on before it may hold `needed` bytes more.
    pub(super) fn wait(&mut self, needed: usize) {
        let Some(Turn { slot, client, now, waits_since, .. }) = self.turn else { return };
        if let Some(waiter) = self.waiting.iter_mut().find(|waiter| waiter.slot == slot) {
            waiter.needed = needed;
            return;
        }
        self.waiting.push_back(Waiter { slot, client, needed, since: waits_since.unwrap_or(now) });
        self.next_check.get_or_insert(now + CHECK_INTERVAL);
    }

    /// True if the session waits for memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn is_waiting(&self, slot: Slot) -> bool {
        self.waiting.iter().any(|waiter| waiter.slot == slot)
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
            wake = self.waiting.iter().map(|waiter| waiter.slot).filter(|slot| !end.contains(slot)).collect();
        } else {
            // It is the turn of another one to find a holder whose end helps it.
            self.waiting.rotate_left(1);
        }
        ShortageActions { end, wake }
    }

    /// The holders that stand still, of those whose end helps the session that has waited longest, and that hold as much as
    /// it does: those that hold something incomplete, or the others if there is none. The largest first.
    fn holders_to_end(&self, now: Instant, left: usize, limit: usize) -> Vec<Slot> {
        let Some(&Waiter { slot: waiting, client, needed, since }) = self.waiting.front() else { return Vec::new() };
        let waiting_held = self.held(waiting);
        let has_enough = self.free(client, left, limit) >= waiting_held + needed;
        if has_enough || now.saturating_duration_since(since) < CHECK_INTERVAL {
            return Vec::new();
        }
        let own = self.clients.of(client);
        // The bound that the session meets first: its client's, that of all but loopback, or that of all.
        let helps = |holder: &Holder| {
            if !client.is_loopback() && client_limit(limit).saturating_sub(own) <= waiting_held + RESERVE {
                holder.client == client
            } else if !client.is_loopback()
                && others_limit(limit).saturating_sub(self.clients.others_total()) <= waiting_held + RESERVE
            {
                !holder.client.is_loopback()
            } else {
                true
            }
        };
        let waiting_bytes = self.holders.get(&waiting).map_or(0, |holder| holder.bytes());
        let helping = || self.holders.iter().filter(|&(_, holder)| helps(holder));
        let largest = helping().map(|(_, holder)| holder.bytes()).max();
        // A session that waits while others hold more and make progress is not ended for the standstill.
        let waits = |slot: Slot| self.waiting.iter().any(|waiter| waiter.slot == slot);
        let may_end = |slot: Slot, holder: &Holder| !waits(slot) || largest <= Some(holder.bytes());
        let mut stalled: Vec<(usize, Slot)> = Vec::new();
        for class in [HolderClass::Incomplete, HolderClass::Other] {
            let found = helping()
                .filter(|&(_, holder)| holder.class() == class && holder.bytes() >= waiting_bytes)
                .filter(|(_, holder)| now.saturating_duration_since(holder.since) >= STALL_TIMEOUT)
                .filter(|&(&slot, holder)| may_end(slot, holder));
            stalled = found.map(|(&slot, holder)| (holder.bytes(), slot)).collect();
            if !stalled.is_empty() {
                break;
            }
        }
        stalled.sort_unstable_by(|one, other| other.cmp(one));
        let mut freed = 0;
        let mut end = Vec::new();
        for (_, slot) in stalled {
            if freed >= MIN_FREED {
                break;
            }
            freed += self.held(slot);
            end.push(slot);
        }
        end
    }
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn to_usize(bytes: u32) -> usize {
    bytes as usize
}

/// Bytes that all byte streams may hold together.
fn stream_limit(limit: usize) -> usize {
    limit / 2
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

    /// Of what kind is what a session holds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Stream,
        Incomplete,
        /// Whole messages.
        Unread,
    }

    struct Fixture {
        budget: MemoryBudget,
        now: Instant,
        clients: Vec<ClientKey>,
        kinds: Vec<Kind>,
        held: Vec<usize>,
    }

    impl Fixture {
        /// Sessions 0.. of these clients. What they hold is incomplete.
        fn new(clients: &[ClientKey]) -> Self {
            let mut fixture = Self {
                budget: MemoryBudget::new(LIMIT, 65_536),
                now: Instant::now(),
                clients: Vec::new(),
                kinds: Vec::new(),
                held: Vec::new(),
            };
            clients.iter().for_each(|&client| fixture.add(client, Kind::Incomplete));
            fixture
        }

        /// A session begins, which holds nothing.
        fn add(&mut self, client: ClientKey, kind: Kind) {
            self.budget.add_session(self.held.len());
            self.clients.push(client);
            self.kinds.push(kind);
            self.held.push(0);
        }

        fn begin_turn(&mut self, slot: usize) {
            self.budget.begin_turn(slot, self.clients[slot], self.now);
        }

        fn end_turn(&mut self, slot: usize) {
            let held = self.held[slot];
            self.budget.set_kinds(match self.kinds[slot] {
                Kind::Stream => HeldKinds { stream: held, incomplete: 0 },
                Kind::Incomplete => HeldKinds { stream: 0, incomplete: held },
                Kind::Unread => HeldKinds::default(),
            });
        }

        /// The session takes what it may, up to `most`, and waits if that is less, unless it is a stream. Returns how much.
        fn take(&mut self, slot: usize, most: usize) -> usize {
            self.begin_turn(slot);
            let is_stream = self.kinds[slot] == Kind::Stream;
            let mut taken = 0;
            // As connections read: in pieces.
            while taken < most {
                let left = if is_stream { self.budget.left_for_stream() } else { self.budget.left() };
                let piece = left.min(4096).min(most - taken);
                if piece == 0 {
                    if !is_stream {
                        self.budget.wait(1);
                    }
                    break;
                }
                self.budget.hold(piece);
                taken += piece;
            }
            self.held[slot] += taken;
            self.end_turn(slot);
            taken
        }

        /// Each of these sessions takes what it may, up to `most`.
        fn take_each(&mut self, slots: impl IntoIterator<Item = usize>, most: usize) {
            for slot in slots {
                self.take(slot, most);
            }
        }

        fn release(&mut self, slot: usize, bytes: usize) {
            self.begin_turn(slot);
            self.budget.release(bytes);
            self.held[slot] -= bytes;
            self.end_turn(slot);
        }

        /// Lets `time` pass, and returns what is to be done then. Sessions that are to end release what they hold.
        fn pass(&mut self, time: Duration) -> ShortageActions {
            self.now += time;
            let actions = self.budget.poll_shortage(self.now);
            for &slot in &actions.end {
                assert!(self.kinds[slot] != Kind::Stream, "a stream is ended");
                self.release(slot, self.held[slot]);
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
        let last = (2..9).map(|slot| fixture.take(slot, usize::MAX)).last().unwrap();
        assert!(last > 1000, "{last}");
    }

    #[test]
    fn clients_other_than_loopback_leave_it_a_quarter() {
        let mut fixture = Fixture::new(&[client(1), client(1), client(1), client(2), client(3), ClientKey::Loopback]);
        let taken: usize = (0..3).map(|slot| fixture.take(slot, usize::MAX)).sum();
        assert!((LIMIT / 3..=LIMIT / 2).contains(&taken), "{taken}");
        let others: usize = (3..5).map(|slot| fixture.take(slot, usize::MAX)).sum();
        assert!(taken + others <= LIMIT * 3 / 4, "{}", taken + others);
        assert!(fixture.take(5, 100_000) == 100_000, "a plugin on this machine gets its message");
    }

    #[test]
    fn the_largest_holder_that_stands_still_ends_for_one_that_waits() {
        for kind in [Kind::Incomplete, Kind::Unread] {
            let mut fixture = Fixture::new(&[ClientKey::Loopback; 4]);
            fixture.kinds = vec![kind; 4];
            for (slot, most) in [300_000, 200_000, 250_000].into_iter().enumerate() {
                assert_eq!(fixture.take(slot, most), most);
            }
            let taken = fixture.take(3, 190_000);
            assert!(fixture.budget.is_waiting(3) && taken < 190_000);
            assert_eq!(fixture.pass(STALL_TIMEOUT / 2), ShortageActions::default(), "none stands still yet");
            // The largest has written all that it held, and holds as much again.
            fixture.begin_turn(0);
            fixture.budget.handle_moved(300_000);
            let actions = fixture.pass(STALL_TIMEOUT / 2);
            assert_eq!(actions, ShortageActions { end: vec![2], wake: vec![3] });
            fixture.take(3, 190_000 - taken);
            assert_eq!(fixture.held[3], 190_000);
        }
    }

    #[test]
    fn what_has_come_in_part_ends_before_whole_messages_for_a_slow_reader() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 4]);
        fixture.kinds[0] = Kind::Unread;
        for (slot, most) in [400_000, 100_000, 200_000].into_iter().enumerate() {
            assert_eq!(fixture.take(slot, most), most);
        }
        let mut ended = Vec::new();
        for _ in 0..3 {
            fixture.take(3, 210_000 - fixture.held[3]);
            ended.extend(fixture.pass(STALL_TIMEOUT).end);
            fixture.now += CHECK_INTERVAL;
        }
        assert_eq!((ended, fixture.held[3]), (vec![2], 210_000));
        // None is left that holds as much in part.
        fixture.take(1, 300_000);
        assert!(fixture.budget.is_waiting(1));
        assert_eq!(fixture.pass(STALL_TIMEOUT).end, [0]);
    }

    #[test]
    fn a_stream_whose_reader_stands_still_is_never_ended() {
        for others in [Kind::Incomplete, Kind::Unread] {
            let mut fixture = Fixture::new(&[ClientKey::Loopback; 20]);
            fixture.kinds = vec![others; 20];
            // They take what they can before the others come, and later.
            fixture.kinds[..10].fill(Kind::Stream);
            fixture.take_each(0..10, 131_072);
            let streams: usize = fixture.held.iter().sum();
            assert!((LIMIT / 3..=LIMIT / 2).contains(&streams), "{streams}");
            fixture.take_each(10..19, usize::MAX);
            fixture.take_each(0..10, 131_072);
            // The session that came last needs an equal part of what streams leave.
            let needed = LIMIT / 4 / 20;
            let start = fixture.now;
            while fixture.held[19] < needed {
                fixture.take(19, needed - fixture.held[19]);
                let wake = fixture.pass(CHECK_INTERVAL).wake;
                fixture.take_each(wake.into_iter().filter(|&slot| slot != 19), 1000);
                assert!(fixture.now - start <= STALL_TIMEOUT + 20 * CHECK_INTERVAL, "{:?}", fixture.held);
            }
            assert!(fixture.held[..10].iter().sum::<usize>() >= streams);
        }
    }

    #[test]
    fn a_session_that_streams_leave_too_little_for_ends_itself() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 10]);
        fixture.kinds[..9].fill(Kind::Stream);
        fixture.take_each(0..9, 131_072);
        fixture.take(9, LIMIT / 2);
        assert!(fixture.budget.is_waiting(9) && fixture.held[9] >= LIMIT / 4 - 20_000, "{:?}", fixture.held);
        assert_eq!(fixture.pass(STALL_TIMEOUT).end, [9]);
    }

    #[test]
    fn other_clients_streams_leave_a_quarter_of_theirs_to_loopback() {
        let mut fixture = Fixture::new(&[]);
        (1..9).for_each(|last| fixture.add(client(last), Kind::Stream));
        fixture.take_each(0..8, 131_072);
        let streams: usize = fixture.held.iter().sum();
        assert!((LIMIT / 4..=LIMIT / 2 * 3 / 4).contains(&streams), "{streams}");
        fixture.add(ClientKey::Loopback, Kind::Stream);
        assert_eq!(fixture.take(8, 60_000), 60_000);
    }

    #[test]
    fn a_session_that_wants_more_than_all_others_hold_ends_itself() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback; 3]);
        for (slot, most) in [100_000, 60_000].into_iter().enumerate() {
            fixture.take(slot, most);
        }
        assert!(fixture.take(2, usize::MAX) > 400_000);
        let actions = fixture.pass(STALL_TIMEOUT);
        assert_eq!(actions, ShortageActions { end: vec![2], wake: vec![] });
    }

    #[test]
    fn a_client_that_has_used_up_its_share_ends_no_session_of_others() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback, client(1), client(1), client(2)]);
        fixture.take(0, 400_000);
        fixture.take(3, 50_000);
        fixture.take(1, usize::MAX);
        fixture.take(2, usize::MAX);
        let actions = fixture.pass(STALL_TIMEOUT);
        assert_eq!(actions.end, [1], "{:?}", fixture.held);
        let actions = fixture.pass(CHECK_INTERVAL);
        assert_eq!(actions, ShortageActions { end: vec![], wake: vec![2] }, "it has enough now");
    }

    #[test]
    fn what_a_session_holds_moves_to_another_client_with_it() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback, client(1)]);
        fixture.take(0, 300_000);
        assert!(fixture.take(1, usize::MAX) > 200_000);
        fixture.release(1, fixture.held[1]);
        fixture.budget.set_client(0, ClientKey::Loopback, client(1));
        fixture.clients[0] = client(1);
        assert!(fixture.take(1, usize::MAX) < 120_000);
        fixture.release(0, 300_000);
        assert!(fixture.take(1, usize::MAX) > 100_000);
    }

    #[test]
    fn what_is_counted_of_no_session_bounds_all() {
        let mut fixture = Fixture::new(&[ClientKey::Loopback]);
        fixture.budget.hold(LIMIT);
        assert_eq!(fixture.take(0, 10), 0);
        fixture.budget.end_turn();
        fixture.budget.release(LIMIT);
        assert_eq!(fixture.take(0, 10), 10);
        fixture.release(0, 10);
        fixture.budget.remove_session(0);
        assert_eq!(fixture.budget.held(), 0);
    }

    /// Sessions take, write and release at random; some of them never release anything. What is held stays within the
    /// bound, no stream is ended, and a session that holds nothing and needs an equal part of what streams leave gets it in
    /// time.
    fn simulate(seed: u64) {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(&[]);
        for _ in 0..2 + random.below(60) {
            let client = if random.below(2) == 0 { ClientKey::Loopback } else { client(1 + random.below(4) as u8) };
            let kind = [Kind::Stream, Kind::Incomplete, Kind::Unread][random.below(3) as usize];
            fixture.add(client, kind);
        }
        let sessions = fixture.held.len();
        let never_releases: Vec<bool> = (0..sessions).map(|_| random.below(2) == 0).collect();
        for _ in 0..300 {
            let slot = random.below(sessions as u64) as usize;
            if random.below(3) > 0 {
                fixture.take(slot, random.below(200_000) as usize);
            } else if !never_releases[slot] {
                let released = random.below(fixture.held[slot] as u64 + 1) as usize;
                fixture.release(slot, released);
            }
            fixture.pass(Duration::from_millis(random.below(60)));
            assert_eq!(fixture.budget.held(), fixture.held.iter().sum::<usize>());
            assert!(fixture.budget.held() <= LIMIT);
            let held = |matches: &dyn Fn(usize) -> bool| -> usize {
                (0..sessions).filter(|&slot| matches(slot)).map(|slot| fixture.held[slot]).sum()
            };
            assert!(held(&|slot| !fixture.clients[slot].is_loopback()) <= LIMIT - LIMIT / 4);
            assert!(held(&|slot| fixture.kinds[slot] == Kind::Stream) <= LIMIT / 2);
        }
        // A newcomer on this machine needs an equal part.
        let needed = (LIMIT / 4 / (sessions + 1)).min(65_536);
        let newcomer = sessions;
        fixture.add(ClientKey::Loopback, Kind::Incomplete);
        let start = fixture.now;
        loop {
            fixture.take(newcomer, needed - fixture.held[newcomer]);
            if fixture.held[newcomer] == needed {
                break;
            }
            let actions = fixture.pass(CHECK_INTERVAL);
            assert!(!actions.end.contains(&newcomer), "a session that holds little is ended");
            // All others stand still, and take what they can.
            for slot in actions.wake.into_iter().filter(|&slot| slot != newcomer) {
                fixture.take(slot, 1000);
            }
            let waited = fixture.now - start;
            assert!(waited <= STALL_TIMEOUT + 20 * CHECK_INTERVAL, "it waits for {waited:?}: {:?}", fixture.held);
        }
    }

    #[test]
    fn memory_is_bounded_and_a_session_that_holds_little_finds_some_in_time() {
        for_each_seed("relay::memory_shares", 300, simulate);
    }
}
