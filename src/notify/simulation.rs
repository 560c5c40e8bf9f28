//! A seeded simulation of the schedule: random operations for the world that the fuzz target has,
//! [`crate::fuzzing::schedule`]. Plugins come and go, data flows, Luup fails, time passes in jumps.
//!
//! After all has calmed down, every connection's last news has been delivered, and nothing waits.

use testkit::random::Random;

use crate::fuzzing;
use crate::testing::seeds::for_each_seed;

/// Seeds that are tried.
const SEEDS: u64 = 200;
/// Bytes of a story: more than its operations take.
const LENGTH: usize = 2000;

#[test]
fn every_last_notice_arrives_whatever_luup_does() {
    for_each_seed("notify::simulation::every", SEEDS, |seed| {
        let mut data = Random::new(seed).bytes(LENGTH);
        // Luup never says that a notice is pointless.
        data[1] |= 0x80;
        fuzzing::schedule(&data);
    });
}

#[test]
fn nothing_hangs_or_leaks_when_luup_refuses_for_good() {
    for_each_seed("notify::simulation::nothing", SEEDS, |seed| {
        let mut data = Random::new(seed).bytes(LENGTH);
        data[1] &= 0x7f;
        fuzzing::schedule(&data);
    });
}
