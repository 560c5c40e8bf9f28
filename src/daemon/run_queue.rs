//! Whose turn it is.
//!
//! Somebody waits for each byte that a relay passes on, and passing it on takes a few system calls. Letting a plugin in,
//! connecting it, its handshake and its end are many, and twenty that come at once (after each reload of Luup) would
//! make every byte wait for all of them. So relays go first, and few of the others have a turn before the loop asks again
//! for what has come for relays.

use std::collections::VecDeque;

/// So many sessions that do not relay have a turn in one round, where few relay. It takes as long as passing on some
/// bytes. To ask for events after each costs next to nothing beside it: measured, as many handshakes are made.
const OTHERS: usize = 1;
/// A connection has about so many turns before it relays.
const BEFORE: usize = 4;

/// Those who wait for a turn. A round is what happens in one turn of the loop.
#[derive(Debug)]
pub struct Turns<K> {
    relays: VecDeque<K>,
    others: VecDeque<K>,
    /// How many of each are still to come in this round.
    left: (usize, usize),
}

impl<K: Copy> Turns<K> {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { relays: VecDeque::new(), others: VecDeque::new(), left: (0, 0) }
    }

    /// `key` waits for a turn, if it does not already. `queued` says so, and is kept by the caller, who takes it back
    /// when [`Turns::next`] gives the key. `relays`: bytes pass through it.
    pub fn add(&mut self, key: K, relays: bool, queued: &mut bool) {
        if !std::mem::replace(queued, true) {
            let line = if relays { &mut self.relays } else { &mut self.others };
            line.push_back(key);
        }
    }

    /// How many of the others have a turn in a round that begins now. Beside many busy relays it is as many as those,
    /// since a round takes long then, and there are few.
    fn share(&self) -> usize {
        self.relays.len().max(OTHERS)
    }

    /// How many may come in before a round that begins now, so that those who are in keep up with them.
    pub fn arrivals(&self) -> usize {
        self.share().div_ceil(BEFORE)
    }

    /// A round begins. Who comes from now on waits for another.
    pub fn begin(&mut self) {
        self.left = (self.relays.len(), self.others.len().min(self.share()));
    }

    /// The next in this round.
    pub fn next(&mut self) -> Option<K> {
        let (relays, others) = &mut self.left;
        let (left, line) = if *relays > 0 { (relays, &mut self.relays) } else { (others, &mut self.others) };
        *left = left.checked_sub(1)?;
        line.pop_front()
    }

    /// True where nobody waits.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty() && self.others.is_empty()
    }

    /// Gives back memory that a crowd has needed.
    pub fn shrink(&mut self) {
        self.relays.shrink_to_fit();
        self.others.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Turns of sessions named by a letter, of which the small ones relay.
    struct Line {
        turns: Turns<char>,
        queued: HashMap<char, bool>,
    }

    impl Line {
        fn new() -> Self {
            Self { turns: Turns::new(), queued: HashMap::new() }
        }

        fn add(&mut self, names: &str) {
            for name in names.chars() {
                self.turns.add(name, name.is_lowercase(), self.queued.entry(name).or_default());
            }
        }

        /// Who has a turn in a round; `again` is what each adds when it has.
        fn round(&mut self, again: impl Fn(char) -> &'static str) -> String {
            self.turns.begin();
            let mut had = String::new();
            while let Some(name) = self.turns.next() {
                self.queued.insert(name, false);
                had.push(name);
                self.add(again(name));
            }
            had
        }
    }

    #[test]
    fn relays_go_first_and_others_one_at_a_time() {
        let mut line = Line::new();
        line.add("AxBC");
        assert_eq!(line.round(|_| ""), "xA");
        line.add("Dw");
        assert_eq!(line.round(|_| ""), "wB", "first come, first served");
        assert_eq!(["C", "D", ""], [line.round(|_| ""), line.round(|_| ""), line.round(|_| "")]);
        assert!(line.turns.is_empty());
    }

    #[test]
    fn who_waits_already_has_one_turn() {
        let mut line = Line::new();
        line.add("xAxxAA");
        assert_eq!(line.round(|_| ""), "xA");
        line.add("Ax");
        assert_eq!(line.round(|_| ""), "xA");
        assert!(line.turns.is_empty());
    }

    #[test]
    fn who_wants_another_waits_for_the_next_round() {
        let mut line = Line::new();
        line.add("xABCD");
        let same = |name| match name {
            'x' => "x",
            'A' => "yA",
            _ => "",
        };
        assert_eq!(line.round(same), "xA", "y has come in this round");
        assert_eq!(line.round(|_| ""), "xyBC");
        assert_eq!(["D", "A"], [line.round(|_| ""), line.round(|_| "")], "behind those who waited before");
        assert!(line.turns.is_empty());
    }

    #[test]
    fn beside_many_relays_others_have_as_many_turns() {
        let mut line = Line::new();
        line.add("ABCDEFGHI");
        assert_eq!(line.turns.arrivals(), 1);
        line.add("stuvwxyz");
        assert_eq!(line.turns.arrivals(), 2);
        assert_eq!(line.round(|_| ""), "stuvwxyzABCDEFGH");
        assert_eq!(line.round(|_| ""), "I");
    }

    #[test]
    fn nobody_is_left_out_however_busy_the_others_are() {
        let mut line = Line::new();
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
        let mut turns = Turns::new();
        let mut queued = false;
        turns.add(1, false, &mut queued);
        turns.add(1, true, &mut queued);
        turns.begin();
        assert_eq!((turns.next(), turns.next(), turns.is_empty()), (Some(1), None, true));
    }
}
