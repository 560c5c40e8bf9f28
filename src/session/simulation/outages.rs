//! Peers that vanish, over the simulated network and a small model of the kernel's TCP: devices and plugins that lose their
//! power, their cable or their address, that come back without their connections, or that only read nothing.
//!
//! A peer that has vanished is known within the user timeout, whatever was under way, and its end is told once. A short
//! outage and a closed window end nothing, and lose nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use testkit::random::Random;

use super::conversation::Conversation;
use super::remote::{Behaviour, RemoteKind};
use super::world::World;
use crate::net::socket::KeepAlive;
use crate::net::user_timeout::Unacknowledged;
use crate::session::{KeptState, Stage};
use crate::testing::log_recorder;
use crate::testing::network::{ConnectPlan, SimPeer};
use crate::testing::seeds::for_each_seed;

/// Seeds that are tried. Of some the connection does not come about.
const SEEDS: u64 = 400;
/// What a simulation must show at least, for that many seeds.
const OUTAGES: usize = 300;

/// User timeouts in seconds: the shortest, another, and the default.
const TIMEOUTS: [u64; 3] = [10, 40, 120];
/// The first retransmission, or probe of a closed window. Each further interval is twice as long, up to the longest.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_INTERVAL: Duration = Duration::from_secs(120);
/// How long the answer to a probe takes.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// How long is watched what happens after an outage.
const WATCHED: Duration = Duration::from_secs(700);

/// Memory for the session, as much as the daemon has at least by default.
const MEMORY: usize = 4 << 20;

/// What happens to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outage {
    /// It is gone for ever.
    PowerLoss,
    /// It has another address: gone for ever, too.
    AddressChange,
    /// It is away for a third of the user timeout at most.
    ShortCable,
    /// It is away for longer.
    LongCable,
    /// It comes back without its connections.
    Reboot,
    /// It reads nothing, and answers probes.
    ClosedWindow,
}

const OUTAGES_OF_ALL_KINDS: [Outage; 6] = [
    Outage::PowerLoss,
    Outage::AddressChange,
    Outage::ShortCable,
    Outage::LongCable,
    Outage::Reboot,
    Outage::ClosedWindow,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    Present,
    ReadsNothing,
    Absent,
    /// It resets the connection at the next segment.
    Rebooted,
}

/// The daemon's kernel at one end of a connection, whose other end may vanish.
struct Kernel {
    peer: SimPeer,
    state: PeerState,
    keep_alive: KeepAlive,
    /// The last sign of life.
    heard: Instant,
    /// Bytes that the session has written, and that the peer has acknowledged.
    written: usize,
    acknowledged: usize,
    /// Bytes that the peer has sent.
    received: usize,
    /// The next retransmission or probe, while bytes are not acknowledged, and the interval before it.
    next: Instant,
    interval: Duration,
    /// When the answer to a probe comes.
    answer_due: Option<Instant>,
    awaits_answer: bool,
    /// Keep-alive probes without an answer.
    unanswered: u64,
    over: bool,
}

impl Kernel {
    fn new(peer: SimPeer, keep_alive: KeepAlive, now: Instant) -> Self {
        let (written, received) = (peer.wire().written(), peer.wire().sent.len());
        Self {
            peer,
            state: PeerState::Present,
            keep_alive,
            heard: now,
            written,
            acknowledged: written,
            received,
            next: now,
            interval: FIRST_INTERVAL,
            answer_due: None,
            awaits_answer: false,
            unanswered: 0,
            over: false,
        }
    }

    fn is_pending(&self) -> bool {
        self.written > self.acknowledged
    }

    /// When something happens by itself.
    fn next_event(&self) -> Option<Instant> {
        let keep_alive =
            self.heard + Duration::from_secs(self.keep_alive.idle + self.keep_alive.interval * self.unanswered);
        let timer = if self.is_pending() { self.next } else { keep_alive };
        (!self.over).then(|| self.answer_due.map_or(timer, |answer| answer.min(timer)))
    }

    fn hear(&mut self, at: Instant) {
        self.heard = at;
        (self.awaits_answer, self.unanswered, self.answer_due) = (false, 0, None);
    }

    fn break_off(&mut self) {
        self.over = true;
        if !self.peer.is_dropped() {
            self.peer.wire_mut().break_off();
        }
    }

    /// The peer takes everything.
    fn acknowledge(&mut self, at: Instant) {
        self.acknowledged = self.written;
        self.interval = FIRST_INTERVAL;
        self.peer.wire_mut().come_back();
        self.hear(at);
    }

    /// Lets everything happen until `now`.
    fn run(&mut self, now: Instant) {
        self.note_bytes(now);
        while let Some(at) = self.next_event().filter(|&at| at <= now) {
            if self.answer_due == Some(at) {
                self.hear(at);
                continue;
            }
            let pending = self.is_pending();
            match self.state {
                PeerState::Rebooted => self.break_off(),
                PeerState::Present if pending => self.acknowledge(at),
                PeerState::Present => self.hear(at),
                PeerState::ReadsNothing if !pending => self.hear(at),
                PeerState::Absent if !pending => {
                    if self.unanswered == self.keep_alive.probes {
                        self.break_off();
                    }
                    self.unanswered += 1;
                }
                PeerState::ReadsNothing | PeerState::Absent => {
                    self.awaits_answer = true;
                    self.answer_due = (self.state == PeerState::ReadsNothing).then(|| at + ROUND_TRIP);
                    self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
                    self.next = at + self.interval;
                }
            }
        }
        let state = Unacknowledged { silent: now - self.heard, awaits_answer: self.awaits_answer };
        self.peer.wire_mut().unacknowledged = self.is_pending().then_some(state);
    }

    /// Notes what has passed until `now`.
    fn note_bytes(&mut self, now: Instant) {
        let (written, received) = (self.peer.wire().written(), self.peer.wire().sent.len());
        if received > self.received {
            self.received = received;
            self.hear(now);
        }
        if written == self.written || self.over {
            return;
        }
        let pending = self.is_pending();
        self.written = written;
        match self.state {
            PeerState::Present if !pending => self.acknowledge(now),
            PeerState::Rebooted => self.break_off(),
            _ if pending => {}
            _ => {
                self.awaits_answer = self.state != PeerState::ReadsNothing;
                self.next = now + self.interval;
            }
        }
    }

    /// The peer vanishes, or reads nothing any more.
    fn vanish(&mut self, state: PeerState) {
        self.state = state;
        self.peer.wire_mut().go_away();
    }

    /// The peer is there again.
    fn come_back(&mut self) {
        self.state = PeerState::Present;
        if !self.is_pending() {
            self.peer.wire_mut().come_back();
        }
    }
}

/// A connection of which one side is to vanish.
struct Scene {
    world: World,
    kernel: Kernel,
    /// The remote vanishes, and not the plugin.
    is_remote: bool,
    /// The user timeout.
    timeout: Duration,
}

impl Scene {
    /// `None` if the connection does not come about: the target is nonsense.
    fn new(seed: u64) -> Option<Self> {
        let mut world = World::new(seed);
        // A session that is ended for its memory is none that was lost.
        world.config.limits.buffers = MEMORY;
        world.budget.set_limits(MEMORY, world.config.limits.buffer);
        world.add_conversation();
        let fits = |conversation: &Conversation| {
            let serves = matches!(conversation.remote.behaviour, Behaviour::Serve | Behaviour::Redirect);
            serves && !conversation.timed && conversation.remote.kind != RemoteKind::Udp
        };
        while !fits(&world.conversations[0]) {
            world.conversations[0] = Conversation::new(0, None, &mut world.random);
        }
        world.network.plans.values_mut().for_each(|plan| *plan = ConnectPlan::Immediate);
        world.handshakes.lost_every = 0;
        let timeout = Duration::from_secs(TIMEOUTS[world.pick(3)]);
        world.config.limits.lost = Some(timeout);
        world.connect_plugin(0);
        for _ in 0..10 {
            world.finish_connecting(true);
            world.conversations[0].send(usize::MAX);
            world.conversations[0].listen(usize::MAX);
            world.make_room_for_remote(0, 1 << 20);
            world.come_to_rest();
        }
        let is_remote = world.pick(2) == 0;
        let conversation = &mut world.conversations[0];
        if !(conversation.connected && conversation.remote.is_open()) {
            return None;
        }
        let plugin = conversation.current()?.peer.clone();
        let remote = conversation.remote.peer.clone()?;
        plugin.wire_mut().make_room(1 << 20);
        let limits = &world.config.limits;
        let keep_alive = KeepAlive::new(limits.keep_alive?, limits.lost);
        let kernel = Kernel::new(if is_remote { remote } else { plugin }, keep_alive, world.now);
        let mut scene = Self { world, kernel, is_remote, timeout };
        scene.rest();
        matches!(scene.world.slots.values().next()?.session.stage, Stage::Relaying(_)).then_some(scene)
    }

    /// Everything that can happen at this moment.
    fn rest(&mut self) {
        self.kernel.run(self.world.now);
        let present = self.kernel.state == PeerState::Present;
        if present || self.is_remote {
            self.world.conversations[0].listen(usize::MAX);
        }
        if present || !self.is_remote {
            self.world.make_room_for_remote(0, 1 << 20);
        }
        self.world.come_to_rest();
        self.kernel.run(self.world.now);
    }

    /// Says something to the side that vanishes.
    fn write(&mut self, amount: usize) {
        let World { conversations, random, .. } = &mut self.world;
        let conversation = &mut conversations[0];
        if !self.is_remote {
            conversation.remote.speak(amount, random);
        } else if conversation.current().is_some() {
            conversation.speak(amount);
            conversation.send(usize::MAX);
        }
        self.rest();
    }

    /// Says something from the side that vanishes.
    fn answer(&mut self, amount: usize) {
        self.is_remote = !self.is_remote;
        self.write(amount);
        self.is_remote = !self.is_remote;
    }

    /// True once the session knows that the peer has vanished.
    fn is_lost(&self) -> bool {
        let Some(slot) = self.world.slots.values().next() else { return true };
        slot.session.kept_state() == KeptState::Parked || !matches!(slot.session.stage, Stage::Relaying(_))
    }

    /// Lets time pass, until the session knows that the peer has vanished. True if it does.
    fn pass(&mut self, until: Instant) -> bool {
        while !self.is_lost() {
            let deadlines = self.world.slots.values().filter_map(|slot| slot.session.deadline(&self.world.config));
            let next = deadlines.chain(self.kernel.next_event()).chain([until]).min().unwrap_or(until);
            self.world.now = next.max(self.world.now);
            self.rest();
            if self.world.now >= until {
                break;
            }
        }
        self.is_lost()
    }
}

fn seconds(random: &mut Random, below: u64) -> Duration {
    Duration::from_millis(random.below(below * 1000))
}

/// One outage. Returns what happened, and when the peer was known as lost: what part of the user timeout after the outage
/// began.
fn run(seed: u64) -> Option<(Outage, Option<f64>)> {
    let mut scene = Scene::new(seed)?;
    let timeout = scene.timeout;
    let mut random = Random::new(seed ^ 0x6f75_7461_6765);
    let outage = OUTAGES_OF_ALL_KINDS[random.below(6) as usize];
    for _ in 0..random.below(4) {
        scene.write(1 + random.below(300) as usize);
        if random.below(2) == 0 {
            scene.answer(1 + random.below(300) as usize);
        }
        let until = scene.world.now + seconds(&mut random, 100);
        assert!(!scene.pass(until), "it ends without a reason");
    }
    let start = scene.world.now;
    scene.kernel.vanish(if outage == Outage::ClosedWindow { PeerState::ReadsNothing } else { PeerState::Absent });
    let away = match outage {
        Outage::PowerLoss | Outage::AddressChange => WATCHED,
        Outage::ShortCable => seconds(&mut random, timeout.as_secs() / 3),
        Outage::LongCable => timeout / 3 + seconds(&mut random, timeout.as_secs()),
        Outage::Reboot => seconds(&mut random, timeout.as_secs() * 5 / 4),
        Outage::ClosedWindow => seconds(&mut random, WATCHED.as_secs()),
    };
    // Nothing, or one or more writes at any time.
    let mut writes: Vec<Duration> = (0..random.below(4))
        .map(|_| {
            let within = [1, 1 + timeout.as_secs() / 6, timeout.as_secs() + 10][random.below(3) as usize];
            seconds(&mut random, within)
        })
        .collect();
    writes.sort();
    let mut is_back = false;
    for at in writes.into_iter().map(Some).chain([None]) {
        if !is_back && at.is_none_or(|at| at >= away) && !scene.pass(start + away) {
            is_back = true;
            match outage {
                Outage::Reboot => scene.kernel.state = PeerState::Rebooted,
                Outage::PowerLoss | Outage::AddressChange => panic!("{outage:?}: never lost"),
                _ => scene.kernel.come_back(),
            }
        }
        let until = start + at.unwrap_or(WATCHED + WATCHED);
        if scene.pass(until) {
            break;
        }
        if at.is_some() {
            scene.write(1 + random.below(2000) as usize);
        }
    }
    let lost = scene.is_lost().then(|| scene.world.now - start);
    match outage {
        Outage::ShortCable | Outage::ClosedWindow => assert_eq!(lost, None, "{outage:?} for {away:?}"),
        Outage::PowerLoss | Outage::AddressChange => {
            let lost = lost.expect("it is lost");
            assert!(lost >= timeout / 2 && lost <= timeout, "{outage:?}: lost after {lost:?}");
        }
        Outage::LongCable => assert!(lost.is_none_or(|lost| lost <= timeout), "{away:?}: lost after {lost:?}"),
        Outage::Reboot => {
            let lost = lost.expect("it is lost");
            assert!(lost <= timeout.max(away + timeout * 3 / 8), "away for {away:?}: lost after {lost:?}");
        }
    }
    if lost.is_none() {
        scene.world.help_all();
        scene.world.conversations[0].check_complete();
    } else {
        scene.world.conversations[0].disturbed = true;
        if let (false, Some(connection)) = (scene.is_remote, scene.world.conversations[0].current()) {
            (connection.gone, connection.ended) = (true, true);
            connection.out.clear();
        }
        scene.world.come_back(0);
        scene.world.help_all();
    }
    scene.world.finish();
    Some((outage, lost.map(|lost| lost.div_duration_f64(timeout))))
}

#[test]
fn a_peer_that_vanishes_is_known_in_time_and_told_once() {
    let mut outages = BTreeMap::new();
    let mut seeds = 0;
    for_each_seed("session::simulation::outages", SEEDS, |seed| {
        log_recorder::start();
        let happened = run(seed);
        let log = log_recorder::take();
        seeds += 1;
        let Some((outage, lost)) = happened else { return };
        let count = |what: &str| log.iter().filter(|line| line.contains(what)).count();
        assert!(count(" closed: ") <= 1 && count(" lost: no answer") <= usize::from(lost.is_some()), "{log:#?}");
        let (total, ended, last) = outages.entry(outage).or_insert((0, 0, 0.0));
        *total += 1;
        *ended += usize::from(lost.is_some());
        *last = f64::max(lost.unwrap_or_default(), *last);
    });
    let total: usize = outages.values().map(|(total, ..)| total).sum();
    println!("{total} outages of {seeds} seeds (in all, lost, the last after this part of the timeout): {outages:?}");
    if seeds >= SEEDS {
        assert!(total >= OUTAGES && outages.len() == OUTAGES_OF_ALL_KINDS.len(), "{outages:?}");
    }
}
