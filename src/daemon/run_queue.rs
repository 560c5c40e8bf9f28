//! The order in which sessions have their turns.
//!
//! A plugin waits for each byte that a relay passes on, and passing it on takes a few system calls. Accepting a plugin,
//! connecting it, its handshake and its end take many, and twenty that come at once (after each reload of Luup) would
//! make every byte wait for all of them. So relaying sessions go first, and few of the others have a turn before the loop
//! polls again for events of relays.

use std::collections::VecDeque;

/// Minimum number of non-relaying sessions in one round. A turn of one takes as long as passing on some bytes.
/// Polling after each costs little: measured, the rate of handshakes is the same.
const MIN_OTHERS: usize = 1;
/// Relaying sessions of other machines in a round without one of loopback. Polling after each would cost them a system
/// call for every two or three of their own. A hostile one may take 2 ms.
const MAX_RELAYS_ELSEWHERE: usize = 8;
/// A connection has about this many turns before it relays.
const TURNS_BEFORE_RELAYING: usize = 4;

/// What decides when a session has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Precedence {
    /// Bytes pass through the session.
    pub relays: bool,
    /// Its client is loopback.
    pub is_loopback: bool,
}

impl Precedence {
    /// The line in which the session waits: the first ones go first.
    fn line(self) -> usize {
        2 * usize::from(!self.relays) + usize::from(!self.is_loopback)
    }
}

/// Sessions that wait for a turn. A round is what happens in one turn of the loop.
#[derive(Debug)]
pub(super) struct RunQueue<K> {
    /// Relays of loopback, relays of other machines, others of loopback, others of other machines.
    lines: [VecDeque<K>; 4],
    /// How many of each line are still to come in this round.
    left: [usize; 4],
}

impl<K: Copy> RunQueue<K> {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Self { lines: std::array::from_fn(|_| VecDeque::new()), left: [0; 4] }
    }

    /// Queues `key`, unless `queued` says that it is queued already. The caller keeps `queued`, and clears it when
    /// [`RunQueue::next`] returns the key.
    pub(super) fn add(&mut self, key: K, precedence: Precedence, queued: &mut bool) {
        if !std::mem::replace(queued, true) {
            self.lines[precedence.line()].push_back(key);
        }
    }

    /// How many of each line have a turn in a round that begins now.
    fn round(&self) -> [usize; 4] {
        let [relays, relays_elsewhere, others, others_elsewhere] = self.lines.each_ref().map(VecDeque::len);
        let most_elsewhere = if relays > 0 { relays } else { MAX_RELAYS_ELSEWHERE };
        let relays_elsewhere = relays_elsewhere.min(most_elsewhere);
        // Beside many busy relays it is as many as those, since such a round takes long and so there are few rounds.
        let share = (relays + relays_elsewhere).max(MIN_OTHERS);
        let others = others.min(share);
        [relays, relays_elsewhere, others, others_elsewhere.min(others.max(MIN_OTHERS))]
    }

    /// How many connections may be accepted before a round that begins now, so that those accepted before keep up.
    pub(super) fn accept_limit(&self) -> usize {
        let [relays, relays_elsewhere, ..] = self.round();
        (relays + relays_elsewhere).max(MIN_OTHERS).div_ceil(TURNS_BEFORE_RELAYING)
    }

    /// Begins a round. A session that is queued from now on waits for the next one.
    pub(super) fn begin_round(&mut self) {
        self.left = self.round();
    }

    /// The next session in this round.
    pub(super) fn next(&mut self) -> Option<K> {
        let line = self.left.iter().position(|&left| left > 0)?;
        self.left[line] -= 1;
        self.lines[line].pop_front()
    }

    /// True if no session waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    /// Frees memory that many sessions have needed.
    pub(super) fn shrink(&mut self) {
        self.lines.iter_mut().for_each(VecDeque::shrink_to_fit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A queue of sessions named by a letter, of which the small ones relay.
    struct TestQueue {
        queue: RunQueue<char>,
        /// Those of other machines.
        elsewhere: &'static str,
        queued: HashMap<char, bool>,
    }

    impl TestQueue {
        fn new() -> Self {
            Self::with("")
        }

        /// `elsewhere`: the names of sessions of other machines.
        fn with(elsewhere: &'static str) -> Self {
            Self { queue: RunQueue::new(), elsewhere, queued: HashMap::new() }
        }

        fn add(&mut self, names: &str) {
            for name in names.chars() {
                let is_loopback = !self.elsewhere.contains(name);
                let precedence = Precedence { relays: name.is_lowercase(), is_loopback };
                self.queue.add(name, precedence, self.queued.entry(name).or_default());
            }
        }

        /// The sessions that have a turn in a round; `again` is what each adds when it has.
        fn round(&mut self, again: impl Fn(char) -> &'static str) -> String {
            self.queue.begin_round();
            let mut had = String::new();
            while let Some(name) = self.queue.next() {
                self.queued.insert(name, false);
                had.push(name);
                self.add(again(name));
            }
            had
        }
    }

    #[test]
    fn relays_go_first_and_others_one_at_a_time() {
        let mut line = TestQueue::new();
        line.add("AxBC");
        assert_eq!(line.round(|_| ""), "xA");
        line.add("Dw");
        assert_eq!(line.round(|_| ""), "wB", "first come, first served");
        assert_eq!(["C", "D", ""], [line.round(|_| ""), line.round(|_| ""), line.round(|_| "")]);
        assert!(line.queue.is_empty());
    }

    #[test]
    fn a_queued_session_has_one_turn() {
        let mut line = TestQueue::new();
        line.add("xAxxAA");
        assert_eq!(line.round(|_| ""), "xA");
        line.add("Ax");
        assert_eq!(line.round(|_| ""), "xA");
        assert!(line.queue.is_empty());
    }

    #[test]
    fn a_session_that_wants_another_turn_waits_for_the_next_round() {
        let mut line = TestQueue::new();
        line.add("xABCD");
        let same = |name| match name {
            'x' => "x",
            'A' => "yA",
            _ => "",
        };
        assert_eq!(line.round(same), "xA", "y has come in this round");
        assert_eq!(line.round(|_| ""), "xyBC");
        assert_eq!(["D", "A"], [line.round(|_| ""), line.round(|_| "")], "behind those that waited before");
        assert!(line.queue.is_empty());
    }

    #[test]
    fn beside_many_relays_others_have_as_many_turns() {
        let mut line = TestQueue::new();
        line.add("ABCDEFGHI");
        assert_eq!(line.queue.accept_limit(), 1);
        line.add("stuvwxyz");
        assert_eq!(line.queue.accept_limit(), 2);
        assert_eq!(line.round(|_| ""), "stuvwxyzABCDEFGH");
        assert_eq!(line.round(|_| ""), "I");
    }

    #[test]
    fn a_session_of_loopback_waits_for_one_turn_of_another_machine() {
        let mut line = TestQueue::with("PQRSabcdefghi");
        line.add("PQRSAB");
        assert_eq!([line.round(|_| ""), line.round(|_| "")], ["AP", "BQ"]);
        line.add("C");
        assert_eq!([line.round(|_| ""), line.round(|_| "")], ["CR", "S"]);
        line.add("abcdefghxy");
        assert_eq!(line.round(|_| ""), "xyab", "relays go first, too");
        line.add("z");
        assert_eq!(line.round(|_| ""), "zc");
        line.add("abci");
        assert_eq!(line.round(|_| ""), "defghabc", "a few, if loopback has none");
        assert_eq!(line.round(|_| ""), "i");
    }

    #[test]
    fn beside_many_relays_other_machines_have_a_turn_for_each_of_loopback() {
        let mut line = TestQueue::with("PQRSabcdefghi");
        line.add("stuvwxyzPQR");
        assert_eq!(line.round(|_| ""), "stuvwxyzP");
        line.add("stuvwxyzAB");
        assert_eq!(line.round(|_| ""), "stuvwxyzABQR");
        line.add("abcdefghi");
        assert_eq!(line.queue.accept_limit(), 2, "relays that wait for a later round do not count");
        assert_eq!([line.round(|_| ""), line.round(|_| "")], ["abcdefgh", "i"]);
    }

    #[test]
    fn no_session_is_left_out_however_busy_the_others_are() {
        let mut line = TestQueue::new();
        let names: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        line.add(&names[22..].iter().collect::<String>());
        let mut turns = HashMap::new();
        let always: HashMap<char, &'static str> = names.iter().map(|name| (*name, &*name.to_string().leak())).collect();
        for _ in 0..26 {
            for name in line.round(|name| always[&name]).chars() {
                *turns.entry(name).or_insert(0) += 1;
            }
        }
        for name in &names[22..] {
            assert_eq!(turns[name], if name.is_lowercase() { 26 } else { 4 }, "{name}");
        }
    }

    #[test]
    fn one_that_has_begun_to_relay_meanwhile_keeps_its_place() {
        let mut queue = RunQueue::new();
        let mut queued = false;
        for relays in [false, true] {
            queue.add(1, Precedence { relays, is_loopback: true }, &mut queued);
        }
        queue.begin_round();
        assert_eq!((queue.next(), queue.next(), queue.is_empty()), (Some(1), None, true));
    }
}
