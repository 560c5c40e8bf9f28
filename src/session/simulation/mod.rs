//! A seeded simulation of whole sessions over a network in memory: plugins, remotes and a small stand-in for the daemon.
//!
//! Sessions are real, and so are the schedule of notifications, the budget and TLS. After each step the invariants hold:
//! bytes arrive in order and once, memory is accounted for, no deadline is missed, and nothing can move without a further
//! event. In the end every notification has been made, and all memory is given back.

mod arrivals;
mod conversation;
mod healing;
#[cfg(test)]
mod outages;
mod remote;
pub(super) mod services;
pub(super) mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use super::Session;
use crate::buffer_pool;
use crate::protocol::framing::Framing;
use conversation::PluginPhase;
use remote::{Behaviour, RemoteKind};
use world::World;

/// Longest life of a session without its plugin and its remote: KEEP, the relay's limits, and what drains.
const LONGEST_END: Duration = Duration::from_secs(3600 + 600 + 300 + 60);

impl World {
    /// Something happens.
    fn happen(&mut self) {
        let amount = self.amount();
        let index = self.pick(self.conversations.len());
        match self.pick(24) {
            0..=3 => {
                let World { conversations, random, .. } = self;
                conversations[index].remote.speak(amount, random);
            }
            4 | 5 if self.conversations[index].connected => self.conversations[index].speak(amount.min(20_000)),
            6..=9 => self.conversations[index].send(amount),
            10..=12 => self.conversations[index].listen(amount),
            13..=15 => self.make_room_for_remote(index, amount),
            16 => {
                let seconds = [0, 0, 0, 1, 1, 3, 11, 40][self.pick(8)];
                self.now += Duration::from_millis(seconds * 1000 + self.random.below(300));
            }
            17 if self.pick(12) == 0 => {
                let seconds = [400, 4000][self.pick(2)];
                self.now += Duration::from_secs(seconds);
            }
            18 => self.finish_connecting(true),
            19 => self.answer_notification(false),
            20 if self.pick(3) == 0 => {
                self.disturb(index);
                if self.pick(3) == 0 {
                    self.come_to_rest();
                    self.check_rest();
                }
            }
            21 | 22 => self.come_back(index),
            _ => {}
        }
    }

    fn make_room_for_remote(&mut self, index: usize, amount: usize) {
        let remote = &mut self.conversations[index].remote;
        if let Some(peer) = &remote.peer {
            peer.wire_mut().make_room(amount);
        }
        if let Some(mailbox) = &remote.mailbox {
            mailbox.make_room(if amount > 100_000 { amount } else { 1 + amount % 5 });
        }
    }

    /// A plugin or a remote ends, breaks, or breaks the rules.
    fn disturb(&mut self, index: usize) {
        let choice = self.pick(10);
        let (politely, now) = (self.pick(3) > 0, self.now);
        let conversation = &mut self.conversations[index];
        let kept = conversation.keep.is_some();
        match choice {
            // A kept plugin restarts, whatever it was doing.
            0..=4 if kept => {
                if let Some(connection) = conversation.current() {
                    match choice {
                        0 | 1 => connection.peer.wire_mut().close(),
                        2 | 3 => connection.peer.wire_mut().break_off(),
                        _ => {}
                    }
                    (connection.gone, connection.ended) = (true, true);
                    connection.out.clear();
                }
            }
            0 | 5 => {
                conversation.disturbed = true;
                conversation.remote.end(politely, now);
            }
            1 => {
                conversation.disturbed = true;
                conversation.remote.reset();
            }
            4 => {
                conversation.disturbed = true;
                conversation.remote.violate(now);
            }
            2 | 6 if conversation.connected => {
                conversation.disturbed = true;
                self.end_plugin(index);
            }
            3 if conversation.connected => {
                conversation.disturbed = true;
                if let Some(connection) = conversation.current() {
                    connection.peer.wire_mut().break_off();
                    (connection.gone, connection.ended) = (true, true);
                }
            }
            7 | 9 if conversation.connected && conversation.framing == Framing::Mesg => {
                conversation.disturbed = true;
                let words: &[u8] = if choice == 7 { b"CLOS 1000 3\nbye" } else { b"nonsense\n" };
                if let Some(connection) = conversation.current().filter(|connection| !connection.ended) {
                    connection.out.extend(words);
                    connection.ended = true;
                }
            }
            8 if conversation.connected && kept => {
                (conversation.disturbed, conversation.dropped) = (true, true);
                self.drop_kept(index);
            }
            _ => {}
        }
    }

    /// The plugin ends its side, behind everything that it has said.
    fn end_plugin(&mut self, index: usize) {
        self.conversations[index].send(usize::MAX);
        if let Some(connection) = self.conversations[index].current() {
            let mut wire = connection.peer.wire_mut();
            if !wire.is_closed() && !wire.is_broken() {
                wire.close();
            }
            drop(wire);
            connection.ended = true;
        }
    }

    /// DROP, by another connection.
    fn drop_kept(&mut self, index: usize) {
        let pid = self.conversations[index].pid.clone();
        let key =
            self.slots.iter().find(|(_, slot)| slot.session.kept_pid() == Some(pid.as_bytes())).map(|(key, _)| *key);
        if let Some(key) = key {
            self.with_session(key, |session, cx| session.end_kept(super::KeptEnd::Dropped, cx));
            self.enqueue(key);
        }
    }

    /// A plugin without a connection makes one.
    fn come_back(&mut self, index: usize) {
        let conversation = &mut self.conversations[index];
        let refused =
            conversation.connections.last().is_some_and(|connection| connection.phase == PluginPhase::Refused);
        let first = conversation.connections.is_empty();
        let told_end = conversation.connections.iter().any(|connection| connection.told_end);
        let back = conversation.keep.is_some() && conversation.connected && !refused && !told_end;
        let restarts = back && conversation.current().is_none();
        if first || restarts || (back && self.pick(40) == 0) {
            self.connect_plugin(index);
        }
    }

    fn step(&mut self) {
        self.finish_connecting(false);
        self.run();
        self.check();
    }

    /// Delivers events until nothing moves any more.
    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            self.deliver();
            self.step();
            let news = self.conversations.iter().any(|conversation| {
                let connections = conversation.connections.iter().map(|connection| &connection.peer);
                connections.chain(&conversation.remote.peer).any(|peer| !peer.is_dropped() && peer.wire().has_news())
                    || conversation.remote.mailbox.as_ref().is_some_and(|mailbox| mailbox.has_news())
            });
            if !news && !self.pending.iter().any(|(_, peer, _)| !peer.is_dropped() && peer.wire().has_news()) {
                return;
            }
        }
        let stages: Vec<_> = self.slots.values().map(|slot| &slot.session.stage).collect();
        panic!("it never comes to rest: {stages:?}");
    }

    /// All plugins and remotes read and have room, until nothing moves any more.
    fn help_all(&mut self) {
        let mut rounds = 0;
        // A session that waits for memory gets it, or is ended, within STALL_TIMEOUT.
        while rounds < 30 || (self.budget.poll_timeout().is_some() && rounds < 300) {
            rounds += 1;
            self.finish_connecting(true);
            for index in 0..self.conversations.len() {
                self.conversations[index].send(usize::MAX);
                self.conversations[index].listen(usize::MAX);
                if let Some(connection) = self.conversations[index].current() {
                    connection.peer.wire_mut().make_room(1 << 24);
                }
                self.make_room_for_remote(index, 1 << 24);
            }
            self.come_to_rest();
            if let Some(due) = self.budget.poll_timeout() {
                self.now = self.now.max(due);
                self.come_to_rest();
            }
        }
    }

    /// A plugin that is not kept ends or breaks its connection: its remote, which reads, learns of it.
    fn check_end_is_passed_on(&mut self) {
        let breaks = self.pick(2) == 0;
        let found = self.slots.values().find(|slot| {
            let conversation = &self.conversations[slot.conversation];
            let attached = conversation.connections.last().is_some_and(|connection| {
                connection.phase == PluginPhase::Echo && !connection.gone && !connection.ended
            });
            let remote = &conversation.remote;
            let stands = remote.is_open() && !remote.heard_end && remote.behaviour != Behaviour::Stall;
            let relaying = matches!(slot.session.stage, super::Stage::Relaying(_));
            let plain = conversation.keep.is_none() && !conversation.disturbed && !conversation.timed;
            relaying && attached && stands && plain && remote.kind != RemoteKind::Udp
        });
        let Some(index) = found.map(|slot| slot.conversation) else { return };
        self.conversations[index].disturbed = true;
        if breaks && let Some(connection) = self.conversations[index].current() {
            connection.peer.wire_mut().break_off();
            (connection.gone, connection.ended) = (true, true);
        } else {
            self.end_plugin(index);
        }
        self.help_all();
        assert!(self.conversations[index].remote.heard_end, "conversation {index}: the plugin's end is not passed on");
        self.seen.insert("end passed on".into());
    }

    /// Plugins come back, and all have room: then everything arrives.
    fn settle(&mut self) {
        for index in 0..self.conversations.len() {
            if self.conversations[index].connected && self.conversations[index].current().is_none() {
                self.come_back(index);
            }
        }
        self.help_all();
        self.check_rest();
        // Before anything ends: a closing notification would tell of data, too.
        self.drain_notifications();
        // Meanwhile a session may have tried the next address of its remote, and this one has connected.
        self.help_all();
        for slot in self.slots.values() {
            let conversation = &mut self.conversations[slot.conversation];
            let relaying = matches!(slot.session.stage, super::Stage::Relaying(_));
            let Some(connection) = conversation.connections.last() else { continue };
            let attached = connection.phase == PluginPhase::Echo && !connection.gone && !connection.ended;
            let alive = conversation.remote.is_open() && !conversation.remote.heard_end;
            if relaying
                && attached
                && alive
                && !conversation.disturbed
                && !conversation.shares_pid
                && !conversation.timed
            {
                conversation.check_complete();
                self.seen.insert(format!("complete {:?}", conversation.remote.kind));
            }
        }
    }

    /// Luup answers everything, and as much time passes as notifications ask for.
    fn drain_notifications(&mut self) {
        for _ in 0..10_000 {
            self.send_notifications();
            if !self.jobs.is_empty() {
                self.answer_notification(true);
            } else if let Some(due) = self.schedule.poll_timeout() {
                self.now = self.now.max(due);
            } else {
                break;
            }
        }
        assert!(self.jobs.is_empty() && self.schedule.pending() == 0, "notifications never calm down");
        for conversation in &self.conversations {
            assert!(
                !conversation.unheard || conversation.shares_pid || conversation.dropped,
                "conversation {}: the plugin was never told",
                conversation.index
            );
        }
    }

    /// Both sides of all sessions go, or the daemon ends; then all sessions end within their limits.
    fn finish(&mut self) {
        let shuts_down = self.pick(4) == 0;
        for index in 0..self.conversations.len() {
            let (how, now) = (self.pick(4), self.now);
            let conversation = &mut self.conversations[index];
            conversation.disturbed = true;
            match how {
                0 => conversation.remote.reset(),
                1 => conversation.remote.end(true, now),
                _ => conversation.remote.end(false, now),
            }
            for connection in
                conversation.connections.iter().filter(|connection| connection.phase == PluginPhase::Setup)
            {
                // STAT has lifted the limit on silence in setup mode: TCP's keep-alive finds a plugin that vanished.
                let mut wire = connection.peer.wire_mut();
                if !wire.is_closed() && !wire.is_broken() {
                    wire.break_off();
                }
            }
            if let Some(connection) = conversation.current() {
                let mut wire = connection.peer.wire_mut();
                match how {
                    _ if wire.is_closed() || wire.is_broken() => {}
                    0 | 1 => wire.close(),
                    _ => wire.break_off(),
                }
                drop(wire);
                (connection.gone, connection.ended) = (true, true);
            }
        }
        if shuts_down {
            self.seen.insert("shutdown".into());
            self.schedule.handle_shutdown(self.now);
            let keys: Vec<_> = self.slots.keys().copied().collect();
            for key in keys {
                self.with_session(key, Session::shut_down);
                self.enqueue(key);
            }
        }
        self.come_to_rest();
        let start = self.now;
        for _ in 0..10_000 {
            let next = self
                .slots
                .values()
                .map(|slot| slot.session.deadline(&self.config).expect("it waits for nothing"))
                .min();
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let lasts = self.now - start;
            assert!(
                lasts <= LONGEST_END,
                "sessions last for {lasts:?}: {:?}",
                self.slots.values().map(|slot| &slot.session).collect::<Vec<_>>()
            );
            self.come_to_rest();
        }
        assert!(self.slots.is_empty(), "sessions never end");
        assert_eq!((self.budget.held(), self.budget.history()), (0, 0), "all memory is given back");
        self.drain_notifications();
        for conversation in &self.conversations {
            let (count, index) = (conversation.closing_notifications, conversation.index);
            if conversation.events && !conversation.shares_pid && conversation.subscribed() {
                let most = 1 + conversation.attaches;
                assert!((1..=most).contains(&count), "conversation {index}: {count} closing notifications");
            }
        }
    }
}

/// The body of the fuzz target. An input that begins with `arrivals` or `healing` is one of [`arrivals`] or [`healing`].
pub(crate) fn run_input(data: &[u8]) {
    if let Some(choices) = data.strip_prefix(b"arrivals") {
        arrivals::run(World::from_input(choices));
    } else if let Some(choices) = data.strip_prefix(b"healing") {
        healing::run(World::from_input(choices));
    } else {
        run(World::from_input(data));
    }
}

/// Lets things happen until the choices end, then checks what must be so in the end. Returns what has occurred.
fn run(mut world: World) -> BTreeSet<String> {
    // Buffers count with their capacity: what an earlier run has left must not decide.
    buffer_pool::clear();
    for _ in 0..1 + world.pick(3) {
        world.add_conversation();
    }
    world.connect_plugin(0);
    for _ in 0..100 + world.pick(200) {
        if world.random.is_exhausted() {
            break;
        }
        world.happen();
        if world.pick(5) > 0 {
            world.deliver();
        }
        world.step();
        if world.pick(20) == 0 {
            world.come_to_rest();
            world.check_rest();
        }
    }
    if world.random.is_exhausted() || world.pick(3) > 0 {
        world.settle();
        world.check_end_is_passed_on();
    }
    world.finish();
    for conversation in &world.conversations {
        world.seen.extend(conversation.replies.iter().filter(|reply| reply.starts_with("ERR")).cloned());
    }
    world.seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::CloseReason;
    use crate::testing::log_recorder;
    use crate::testing::seeds::for_each_seed;

    /// Seeds that are tried.
    const SEEDS: u64 = 1200;

    #[test]
    fn invariants_of_sessions_hold_whatever_plugins_remotes_and_the_clock_do() {
        let mut seen = BTreeSet::new();
        let mut seeds = 0;
        for_each_seed("session::simulation", SEEDS, |seed| {
            log_recorder::start();
            seen.extend(run(World::new(seed)));
            seen.extend(log_recorder::take());
            seeds += 1;
        });
        if seeds < SEEDS {
            return;
        }
        let occurs = |what: &str| seen.iter().any(|line| line.contains(what));
        let close_reasons = [
            CloseReason::Done,
            CloseReason::PluginLost,
            CloseReason::RemoteLost,
            CloseReason::RemoteSilent,
            CloseReason::Idle,
            CloseReason::HalfClosed,
            CloseReason::Stalled,
            CloseReason::PluginClosed,
            CloseReason::BadFraming,
            CloseReason::RemoteClosed,
            CloseReason::BadRemote,
        ];
        let mut missing: Vec<String> =
            close_reasons.iter().map(|reason| format!("closed: {reason}")).filter(|reason| !occurs(reason)).collect();
        for what in [
            "stage setup",
            "stage claiming",
            "stage connecting",
            "stage relaying",
            "stage unread tail",
            "stage draining",
            "parked",
            "attached",
            "ATCH Gap",
            "ATCH No such pid",
            "no plugin has come for it",
            "ends: DROP",
            "replaced by a new connection",
            "shutdown",
            "left in setup mode",
            "silent in setup mode",
            "left while connecting",
            "redirected to",
            "Invalid host:port",
            "Invalid option",
            "Pid in use",
            "connection refused",
            "host not found",
            "CONNECT_TIMEOUT",
            "REQUEST_TIMEOUT",
            "SSL_ERROR",
            "403",
            "complete Tcp",
            "complete Tls",
            "complete Ws",
            "complete Wss",
            "complete Udp",
            "end passed on",
            "ended for memory",
        ] {
            if !occurs(what) {
                missing.push(what.into());
            }
        }
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}
