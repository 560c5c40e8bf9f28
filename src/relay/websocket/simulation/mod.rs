//! A seeded simulation of the relay between a plugin and a WebSocket: all framings and options, frames of every make,
//! short reads and writes, stalls, ends and errors at any moment, jumps of the clock.
//!
//! After each step the invariants hold: what arrives is what was said, in order, whole; what is lost is lost behind an
//! end that says why; what can move has moved, and what cannot is not tried; memory keeps within its bounds; no
//! deadline lies in the past. When both ends have ended, the relay says that it is over.

mod checks;
mod plugin;
mod server;

use std::time::Duration;

use testkit::random::Random;

use super::*;
use crate::net::endpoint::{Endpoint, SocketEndpoint};
use crate::net::readiness::Readiness;
use crate::testing::seeds::for_each_seed;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};
use crate::testing::{TestContext, timing_of};
use crate::websocket::{Control, Leniency, Role, WebSocketSettings};
use plugin::{Reader, Speaker};
use server::Server;

/// Calls to sockets that one turn may make, both ways together: others wait meanwhile.
const MOST_CALLS: usize = 600;
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

const IDLE: Duration = Duration::from_secs(3600);
const TIMING: Timing = Timing { idle: Some(IDLE), ..crate::testing::TIMING };

fn pick(random: &mut Random, below: usize) -> usize {
    random.below(below as u64) as usize
}

struct World {
    random: Random,
    around: TestContext,
    plugin: WireEndpoint,
    remote: WireEndpoint,
    relay: WebSocketRelay,
    server: Server,
    speaker: Speaker,
    reader: Reader,
    control: Control,
    max_message: usize,
    /// The most that is read at once.
    read: usize,
    pings: bool,
    /// There is little memory for all.
    little_memory: bool,
    /// Either side may break the rules or close at any time.
    faults: bool,
    /// The plugin, or the remote, has gone without a close.
    plugin_gone: bool,
    remote_gone: bool,
    end: Option<CloseReason>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let framing = [Framing::Mesg, Framing::Mesg, Framing::Line, Framing::Raw][pick(&mut random, 4)];
        let control = [Control::Auto, Control::Show, Control::Hand][pick(&mut random, 3)];
        let max_message = [65_536, 65_536, 300, 5000, 200_000][pick(&mut random, 5)];
        let ping_interval = (pick(&mut random, 3) == 0).then(|| Duration::from_secs(10));
        let receive = (pick(&mut random, 4) == 0).then(|| Duration::from_secs(15));
        let deflates = pick(&mut random, 2) == 0;
        let little_memory = pick(&mut random, 8) == 0;
        let keep = pick(&mut random, 4) == 0;
        let buffers = MemoryBudget::new(if little_memory { 3000 } else { 4 << 20 }, 65_536);
        // Reads of few bytes are many, so that turns end before there is nothing more.
        let read = [200, 8192][pick(&mut random, 2)];
        let around = TestContext::new(buffers, read);
        let faults = pick(&mut random, 3) == 0;
        // What is let through is no fault.
        let mut lenient = || !faults && pick(&mut random, 3) == 0;
        let leniency = Leniency { utf8: lenient(), mask: lenient() };
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: pick(&mut random, 4) > 0,
            control,
            max_message: max_message as u64,
            leniency,
            deflate: deflates.then_some(server::AGREED),
            ping_interval,
        };
        let mut server = Server::new(around.now, deflates, &settings);
        let mut speaker = Speaker::new(framing);
        let head = (pick(&mut random, 4) == 0).then_some(HEAD);
        let layered = pick(&mut random, 3) == 0;
        let mut plugin =
            Wire::new(FaultProfile { eintr_every: [0, 7][pick(&mut random, 2)], ..FaultProfile::default() });
        let mut remote = Wire::new(match layered {
            false => FaultProfile { eintr_every: [0, 9][pick(&mut random, 2)], ..FaultProfile::default() },
            true => FaultProfile {
                buffer: pick(&mut random, 2000),
                record_size: 1 + pick(&mut random, 3000),
                eintr_every: 11,
                layered,
            },
        });
        for _ in 0..pick(&mut random, 4) {
            server.speak(&mut random, faults, around.now);
            speaker.speak(&mut random, faults);
        }
        let (server_ahead, plugin_ahead) =
            (pick(&mut random, server.pending.len() + 1), pick(&mut random, speaker.pending.len() + 1));
        let server_ahead: Vec<u8> = server.pending.drain(..server_ahead).collect();
        let plugin_ahead: Vec<u8> = speaker.pending.drain(..plugin_ahead).collect();
        remote.send_ahead(&server_ahead);
        plugin.send_ahead(&plugin_ahead);
        let connection = Connection::new(settings, around.now);
        let options = RelayOptions { framing, max_message: max_message as u64, receive, whole: keep };
        let relay = WebSocketRelay::new(
            around.now,
            connection,
            &options,
            SentAhead { to_remote: &plugin_ahead, to_plugin: server_ahead },
            head,
        );
        let plugin = SocketEndpoint::new(plugin, Readiness::FRESH);
        let remote = SocketEndpoint::new(remote, Readiness::FRESH);
        Self {
            random,
            around,
            plugin,
            remote,
            relay,
            server,
            speaker,
            reader: Reader::new(framing, control, head, keep, little_memory),
            control,
            max_message,
            read,
            pings: ping_interval.is_some(),
            little_memory,
            faults,
            plugin_gone: false,
            remote_gone: false,
            end: None,
        }
    }

    fn pick(&mut self, below: usize) -> usize {
        pick(&mut self.random, below)
    }

    /// An amount that is small as a rule.
    fn amount(&mut self) -> usize {
        let most = [3, 40, 600, 9000, 90_000][self.pick(5)];
        1 + self.pick(most)
    }

    /// Something happens.
    fn happen(&mut self) {
        let amount = self.amount();
        let rare = self.faults && self.pick(40) == 0;
        match self.pick(16) {
            0..=2 => self.server.speak(&mut self.random, self.faults, self.around.now),
            3 | 4 => self.speaker.speak(&mut self.random, self.faults),
            5..=7 => self.deliver_from_server(amount),
            8 | 9 => self.deliver_from_plugin(amount),
            10 => self.plugin.stream_mut().make_room(amount),
            11 => self.remote.stream_mut().make_room(amount),
            12 => self.server.listen(self.remote.stream(), self.around.now),
            13 if rare => self.lose_plugin_or_its_words(),
            14 if rare => self.lose_remote(),
            15 => {
                let seconds = [0, 0, 0, 1, 1, 5, 11, 40][self.pick(8)];
                self.around.now += Duration::from_millis(seconds * 1000 + self.random.below(300));
            }
            _ => {}
        }
    }

    fn deliver_from_server(&mut self, amount: usize) {
        if !self.remote_gone {
            let amount = amount.min(self.server.pending.len());
            let bytes: Vec<u8> = self.server.pending.drain(..amount).collect();
            self.remote.stream_mut().send_bytes(&bytes);
        }
    }

    fn deliver_from_plugin(&mut self, amount: usize) {
        if !self.plugin_gone {
            let amount = amount.min(self.speaker.pending.len());
            let bytes: Vec<u8> = self.speaker.pending.drain(..amount).collect();
            self.plugin.stream_mut().send_bytes(&bytes);
        }
    }

    /// The plugin ends, in the midst of its words or behind them, or its connection breaks.
    fn lose_plugin_or_its_words(&mut self) {
        match self.pick(3) {
            _ if self.plugin_gone => return,
            0 => self.plugin.stream_mut().break_off(),
            1 => self.plugin.stream_mut().close(),
            _ => {
                self.deliver_from_plugin(usize::MAX);
                self.plugin.stream_mut().close();
            }
        }
        (self.plugin_gone, self.speaker.done) = (true, true);
    }

    fn lose_remote(&mut self) {
        if !self.remote_gone {
            if self.pick(2) == 0 {
                self.remote.stream_mut().break_off();
            } else {
                self.remote.stream_mut().close();
            }
            (self.remote_gone, self.server.done) = (true, true);
        }
    }

    fn tell(&mut self) {
        deliver_event(&mut self.plugin);
        deliver_event(&mut self.remote);
    }

    /// Turns, as the daemon gives them: once more with a look at the sockets where a deadline has passed, before the
    /// limits are enforced.
    fn live(&mut self) {
        self.turns();
        if self.is_late() {
            self.plugin.assume_readable();
            self.remote.assume_readable();
            self.turns();
        }
        if self.is_late() {
            self.end = self.relay.handle_timeout(&self.timing(), self.around.now);
            assert!(self.end.is_some(), "a deadline lies in the past, and nothing comes of it");
        }
    }

    fn timing(&self) -> Timing {
        timing_of(TIMING, &self.plugin, &self.remote)
    }

    fn is_late(&self) -> bool {
        self.end.is_none() && self.relay.deadline(&self.timing()).is_some_and(|due| due <= self.around.now)
    }

    fn turns(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Self { around, plugin, remote, relay, server, .. } = self;
        let (heard, told) = (plugin.stream().written(), plugin.stream().is_told());
        let whole =
            server.said.iter().any(|said| (remote.stream().read + 1..=remote.stream().sent.len()).contains(&said.end));
        let unheard = whole && !relay.is_held_back() && relay.remote.is_open();
        let open = relay.close_reason.is_none();
        let turn = around.turns(|cx| {
            plugin.stream_mut().take_calls();
            remote.stream_mut().take_calls();
            let turn = relay.run(plugin, remote, cx);
            let calls = plugin.stream_mut().take_calls() + remote.stream_mut().take_calls();
            assert!(calls <= MOST_CALLS, "{calls} calls in a turn");
            turn
        });
        assert_eq!(turn.delivered, plugin.stream().written() > heard, "handed over is what was written");
        assert_eq!(turn.end_delivered, plugin.stream().is_told() && !told, "the end is told once");
        assert!(
            !(open && unheard && relay.close_reason == Some(CloseReason::RemoteSilent)),
            "silent, and its words wait to be read"
        );
        self.end = turn.end;
    }

    fn step(&mut self) {
        self.live();
        self.check();
    }

    /// There is room for everything, both sides read, and every event is delivered, until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let passed = |world: &Self| {
                (
                    world.plugin.stream().received.len(),
                    world.remote.stream().received.len(),
                    world.plugin.stream().read,
                    world.remote.stream().read,
                )
            };
            let before = passed(self);
            self.deliver_from_plugin(usize::MAX);
            self.deliver_from_server(usize::MAX);
            self.plugin.stream_mut().make_room(1 << 24);
            self.remote.stream_mut().make_room(1 << 24);
            self.server.listen(self.remote.stream(), self.around.now);
            if self.server.done && self.server.close_code().is_some() && self.server.pending.is_empty() {
                self.close_remote();
            }
            self.tell();
            self.step();
            let pending = !self.remote_gone && !self.server.pending.is_empty();
            let news = self.plugin.stream().has_news() || self.remote.stream().has_news() || pending;
            if self.end.is_some() || (before == passed(self) && !news) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn close_remote(&mut self) {
        if !self.remote.stream().is_closed() {
            self.remote.stream_mut().close();
        }
    }

    /// One side ends it, and the other helps or does not; then it is over.
    fn finish(&mut self) -> CloseReason {
        let settles = self.pick(4) > 0;
        if settles {
            self.settle();
            self.check_calm();
        }
        let helps = self.pick(2) == 0;
        let both_open = self.relay.remote.is_open() && self.relay.plugin == PluginState::Open;
        let calm = settles && both_open && self.end.is_none();
        match self.pick(5) {
            0 => self.server.send_close(&mut self.random, self.around.now),
            1 => self.lose_remote(),
            2 if self.reader.framing == Framing::Mesg => self.speaker.send_close(&mut self.random),
            _ => self.lose_plugin_or_its_words(),
        }
        if helps {
            self.settle();
        } else {
            (self.plugin.stream_mut().room, self.remote.stream_mut().room) = (0, 0);
            self.deliver_from_plugin(usize::MAX);
            self.deliver_from_server(usize::MAX);
            self.tell();
            self.step();
        }
        if helps && calm && !self.remote_gone {
            assert!(
                self.end.is_some(),
                "all have ended, and it goes on: {:?}, {:?}",
                self.relay.plugin,
                self.relay.remote
            );
            self.check_last_messages();
        }
        let start = self.around.now;
        while self.end.is_none() {
            let due = self.relay.deadline(&self.timing()).expect("it waits for nothing");
            self.around.now = self.around.now.max(due);
            let waited = self.around.now - start;
            // The end of a side that is held back is not read.
            let blocked = self.relay.is_held_back()
                || self.relay.connection.queued() > 0
                || !self.remote.stream().withheld().is_empty();
            let patience = if blocked { IDLE + TIMING.stall } else { TIMING.stall };
            assert!(waited <= patience + Duration::from_secs(60), "it takes {waited:?} to end");
            self.step();
        }
        self.relay.release(&mut self.around.budget, &mut self.around.pipes);
        assert_eq!(self.around.budget.held(), 0);
        self.end.unwrap_or(CloseReason::Done)
    }
}

/// How it ended, and whether the plugin has read a part of a message before the rest had come.
fn run(seed: u64) -> (CloseReason, bool) {
    let mut world = World::new(seed);
    for _ in 0..60 + world.pick(100) {
        world.happen();
        if world.pick(5) > 0 {
            world.tell();
        }
        world.step();
        if world.end.is_some() {
            break;
        }
    }
    (world.finish(), world.reader.read_early)
}

/// Seeds that are tried.
const SEEDS: u64 = 2000;

#[test]
fn messages_arrive_in_order_and_whole_whatever_the_sockets_do() {
    let mut ends = std::collections::HashMap::new();
    let (mut seeds, mut early) = (0, 0);
    for_each_seed("relay::websocket::simulation", SEEDS, |seed| {
        let (end, read_early) = run(seed);
        *ends.entry(end.to_string()).or_insert(0) += 1;
        early += u32::from(read_early);
        seeds += 1;
    });
    if seeds < SEEDS {
        return;
    }
    assert!(early > 10, "{early} messages were passed on while they came");
    // The simulation is worth something only if it sees every kind of end.
    for end in [
        CloseReason::Done,
        CloseReason::PluginLost,
        CloseReason::RemoteLost,
        CloseReason::RemoteSilent,
        CloseReason::Stalled,
        CloseReason::PluginClosed,
        CloseReason::BadFraming,
        CloseReason::RemoteClosed,
        CloseReason::BadRemote,
        CloseReason::NoMemory,
    ] {
        assert!(ends.contains_key(&end.to_string()), "{end} never happened: {ends:?}");
    }
}
