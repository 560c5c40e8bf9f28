//! Seeded simulations of the relays of streams and of datagrams: random operations for the worlds that the fuzz targets
//! have, [`crate::fuzzing`]. After each step the invariants hold that stand there.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::random::Random;

use super::memory_budget::MemoryBudget;
use super::stream::StreamRelay;
use super::{CloseReason, Relay, Timing};
use crate::fuzzing;
use crate::net::endpoint::SocketEndpoint;
use crate::net::readiness::Readiness;
use crate::testing::seeds::for_each_seed;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};
use crate::testing::{TIMING, TestContext, timing_of};

/// Seeds that are tried for each relay.
const SEEDS: u64 = 500;

/// Operations for the relay of streams. Ends are rare, so that a story has a middle.
fn stream_operations(random: &mut Random) -> Vec<u8> {
    let mut data = random.bytes(3);
    for _ in 0..random.below(400) {
        let mut kind = random.below(256) as u8;
        let ends = matches!(kind >> 1 & 7, 4 | 5) && kind < 0xf0;
        if (ends || kind >= 0xf0) && random.below(8) > 0 {
            kind = 0x06 | kind & 1;
        }
        data.extend([kind, random.below(256) as u8]);
    }
    data
}

/// Operations for the relay of datagrams.
fn datagram_operations(random: &mut Random) -> Vec<u8> {
    let mut data = random.bytes(2);
    for _ in 0..random.below(200) {
        let mut kind = random.below(8) as u8;
        if matches!(kind, 5 | 6) && random.below(8) > 0 {
            kind = 7;
        }
        data.extend([kind, random.below(256) as u8]);
    }
    data
}

/// Checks that every kind of end has occurred, unless the environment has chosen the seeds.
fn check_ends(seeds: u64, ends: &BTreeSet<String>, expected: &[CloseReason]) {
    if seeds >= SEEDS {
        for end in expected {
            assert!(ends.contains(&end.to_string()), "{end} never happened: {ends:?}");
        }
    }
}

#[test]
fn bytes_arrive_in_order_whatever_the_sockets_do() {
    let (mut ends, mut seeds) = (BTreeSet::new(), 0);
    for_each_seed("relay::simulation::bytes", SEEDS, |seed| {
        let end = fuzzing::relay::run_story(&stream_operations(&mut Random::new(seed)));
        ends.extend(end.map(|end| end.to_string()));
        seeds += 1;
    });
    let expected = [
        CloseReason::Done,
        CloseReason::PluginLost,
        CloseReason::RemoteLost,
        CloseReason::RemoteSilent,
        CloseReason::HalfClosed,
        CloseReason::Stalled,
    ];
    check_ends(seeds, &ends, &expected);
}

#[test]
fn datagrams_arrive_in_order_whatever_the_sockets_do() {
    let (mut ends, mut seeds) = (BTreeSet::new(), 0);
    for_each_seed("relay::simulation::datagrams", SEEDS, |seed| {
        let end = fuzzing::datagrams::run_story(&datagram_operations(&mut Random::new(seed)));
        ends.extend(end.map(|end| end.to_string()));
        seeds += 1;
    });
    check_ends(seeds, &ends, &[CloseReason::HalfClosed, CloseReason::PluginClosed, CloseReason::BadFraming]);
}

/// Two connections and their relay, without chance.
struct Pair {
    cx: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    relay: StreamRelay,
    end: Option<CloseReason>,
}

impl Pair {
    /// The remote's stream takes 1000 bytes beyond what its socket has room for.
    fn new() -> Self {
        let mut cx = TestContext::new(MemoryBudget::new(8192, 4096), 1024);
        let remote = Wire::new(FaultProfile { buffer: 1000, ..FaultProfile::default() });
        Self {
            relay: StreamRelay::new(cx.now, Vec::new(), &mut cx.budget),
            cx,
            plugin: SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH),
            remote: SocketEndpoint::new(remote, Readiness::FRESH),
            end: None,
        }
    }

    /// Delivers events, and runs a turn.
    fn turn(&mut self) {
        deliver_event(&mut self.plugin);
        deliver_event(&mut self.remote);
        let Self { cx, plugin, remote, relay, .. } = self;
        self.end = cx.turns(|cx| relay.run(plugin, remote, cx)).end;
    }

    fn timing(&self) -> Timing {
        timing_of(TIMING, &self.plugin, &self.remote)
    }
}

#[test]
fn the_last_bytes_that_the_stream_itself_holds_are_pushed_out() {
    for has_room in [true, false] {
        let mut pair = Pair::new();
        pair.plugin.stream_mut().make_room(10_000);
        pair.plugin.stream_mut().send_bytes(&[7; 100]);
        pair.remote.stream_mut().close();
        pair.turn();
        pair.cx.now += Duration::from_secs(60);
        pair.plugin.stream_mut().close();
        pair.turn();
        assert!(pair.remote.stream().is_told() && pair.plugin.stream().is_told());
        assert_eq!(pair.end, None, "the remote has yet to take what the stream holds");
        assert_eq!(pair.relay.deadline(&TIMING), Some(pair.cx.now + TIMING.half_close));
        if has_room {
            pair.remote.stream_mut().make_room(10_000);
            pair.turn();
            assert_eq!((pair.end, pair.remote.stream().withheld()), (Some(CloseReason::Done), &b""[..]));
        } else {
            pair.cx.now += TIMING.half_close;
            assert_eq!(pair.relay.handle_timeout(&TIMING, pair.cx.now), Some(CloseReason::Stalled));
        }
    }
}

#[test]
fn a_broken_remote_that_holds_bytes_of_its_own_gives_the_plugin_no_more_time() {
    let mut pair = Pair::new();
    pair.plugin.stream_mut().send_bytes(&[7; 100]);
    pair.remote.stream_mut().send_bytes(&[8; 100]);
    pair.turn();
    pair.remote.stream_mut().break_off();
    pair.turn();
    let due = pair.relay.deadline(&pair.timing()).unwrap();
    pair.cx.now += Duration::from_secs(10);
    pair.turn();
    assert_eq!(pair.relay.deadline(&pair.timing()), Some(due));
}
