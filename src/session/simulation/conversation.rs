//! A scripted plugin and its remote: what each says, and what the other must have heard of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::remote::{Behaviour, Remote, RemoteKind, numbered, pattern};
use super::services::TlsWorld;
use crate::protocol::framing::Framing;
use crate::testing::choices::Choices;
use crate::testing::network::SimPeer;

/// What a plugin does with one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PluginPhase {
    /// It has sent its commands, and reads the replies.
    Setup,
    /// It has read `OK CONN` or `OK ATCH`.
    Echo,
    /// It has read `ERR`, or sent QUIT.
    Refused,
}

/// One of a plugin's connections.
pub(crate) struct PluginConnection {
    pub peer: SimPeer,
    /// What it has yet to send.
    pub out: VecDeque<u8>,
    pub phase: PluginPhase,
    /// How much of what the wire has received was read.
    read: usize,
    /// For how much of that it has made room.
    granted: usize,
    /// Where in what the wire has received the remote's bytes begin.
    start: usize,
    /// Where in what the remote has said they begin.
    base: usize,
    begun: bool,
    /// What it attached with: SEEN.
    attaching: Option<Option<usize>>,
    /// It will neither read nor send again.
    pub gone: bool,
    /// It has ended its side, or said that it will.
    pub ended: bool,
    /// It has received CLOS: nothing of the remote follows.
    pub told_end: bool,
    /// How much of what it has received was found right.
    checked: usize,
}

/// A plugin, its remote, and everything that passes between the two.
pub(crate) struct Conversation {
    pub index: usize,
    pub remote: Remote,
    pub framing: Framing,
    pub keep: Option<Duration>,
    /// The plugin says what it has read when it comes back.
    with_seen: bool,
    pub notifies: bool,
    pub events: bool,
    pub pid: String,
    /// Another conversation has the same pid.
    pub shares_pid: bool,
    setup: Vec<u8>,
    pub connections: Vec<PluginConnection>,
    /// What each connection has sent for the remote, where bytes pass.
    sent: Vec<Vec<u8>>,
    /// What was sent, where messages pass, and with which each connection began.
    messages: Vec<Vec<u8>>,
    starts: Vec<usize>,
    /// Where in `sent` the remote may stand.
    places: Vec<(usize, usize)>,
    next_message: usize,
    /// Messages, or bytes, before those that SEEN counts.
    count_base: usize,
    /// Something was written to the plugin, or came for it while it was away, of which no request has told.
    pub unheard: bool,
    /// Closing notifications that were delivered.
    pub closing_notifications: usize,
    /// Times that a plugin was attached.
    pub attaches: usize,
    /// The plugin has read `OK CONN` once.
    pub connected: bool,
    /// Its session was ended by DROP, which was announced: nothing is announced behind that.
    pub dropped: bool,
    /// The session may give the remote up at any time, for its silence.
    pub timed: bool,
    /// Bytes may be lost from now on, and it is known why.
    pub disturbed: bool,
    /// Replies that the plugin has read in setup mode.
    pub replies: Vec<String>,
    /// What waited for a parked plugin when that was last looked at, and whether it was announced.
    pub parked: Option<(std::time::Instant, usize, bool)>,
}

/// True if a framed stream passes on the plugin's side.
fn has_messages(framing: Framing) -> bool {
    framing != Framing::Raw
}

impl Conversation {
    /// A conversation of any kind. `other_pid`: the pid of another conversation that this one takes.
    pub(crate) fn new(index: usize, other_pid: Option<String>, random: &mut Choices) -> Self {
        let mut pick = |below: u64| random.below(below) as usize;
        let kind = [
            RemoteKind::Tcp,
            RemoteKind::Tcp,
            RemoteKind::Tls,
            RemoteKind::Ws,
            RemoteKind::Ws,
            RemoteKind::Wss,
            RemoteKind::Udp,
        ][pick(7)];
        let behaviour = match pick(16) {
            0 => Behaviour::EndAtOnce,
            1 => Behaviour::Stall,
            2 => Behaviour::Reset,
            3 => Behaviour::Garbage,
            4 => Behaviour::Untrusted,
            5 => Behaviour::Forbid,
            6 | 7 => Behaviour::Redirect,
            8 => Behaviour::RedirectLoop,
            _ => Behaviour::Serve,
        };
        let keep = (other_pid.is_some() || pick(5) < 3).then(|| Duration::from_secs([5, 60, 600][pick(3)]));
        let framing = match kind {
            RemoteKind::Tcp | RemoteKind::Tls => Framing::Raw,
            // What a parked plugin loses of datagrams can only be told where they can be told apart.
            RemoteKind::Udp if keep.is_some() => [Framing::Line, Framing::Mesg][pick(2)],
            _ => [Framing::Raw, Framing::Line, Framing::Mesg, Framing::Mesg][pick(4)],
        };
        let shares_pid = other_pid.is_some();
        let pid = other_pid.unwrap_or_else(|| format!("secret-of-{index}"));
        let notifies = keep.is_some() || pick(3) > 0;
        let events = notifies && pick(2) == 0;
        let (host, port) = (["192.0.2.1", "tls.test", "tls.test", "tls.test"][pick(4)], 8000 + index);
        let target = match kind {
            RemoteKind::Ws => format!("ws://{host}:{port}/"),
            RemoteKind::Wss => format!("wss://{host}:{port}/"),
            _ => format!("{host}:{port}"),
        };
        let target = match pick(40) {
            0 => "nonsense".into(),
            1 => target.replace("tls.test", "unknown.test"),
            2 => target.replace("tls.test", "slow.test"),
            _ => target,
        };
        let mut options = String::new();
        let mut add = |option: String| options.extend([" ", &option]);
        if kind.is_tls() {
            add(format!("PINS={}", TlsWorld::get().pin));
        }
        match kind {
            RemoteKind::Tls => add("PRTO=tls".into()),
            RemoteKind::Udp => add("PRTO=udp".into()),
            RemoteKind::Ws | RemoteKind::Wss => {
                add(format!("MAXM={}", [65_536, 1_000_000][pick(2)]));
                if pick(3) == 0 {
                    add("PNGI=20".into());
                }
            }
            RemoteKind::Tcp => {}
        }
        if framing != if kind.is_websocket() { Framing::Mesg } else { Framing::Raw } {
            add(format!("FRAM={}", framing.name()));
        }
        if let Some(keep) = keep {
            add(format!("KEEP={}", keep.as_secs()));
        }
        if events {
            add("EVNT=on".into());
        }
        match pick(12) {
            0 => add("BLKS=7".into()),
            1 => add("RTIM=30000".into()),
            2 => add("PACE=2".into()),
            3 => add("CTIM=1000".into()),
            _ => {}
        }
        if pick(50) == 0 {
            add("NONE=1".into());
        }
        let mut setup = String::new();
        match pick(12) {
            0 => setup.push_str("CAPA\n"),
            1 => setup.push_str("STAT\n"),
            2 => setup.push_str("RTIM 60000\nPACE 1\n"),
            3 => setup.push_str("DROP no-such-pid\n"),
            4 => setup.push_str("BLKS 100\nBILD\n"),
            _ => {}
        }
        if notifies {
            setup.push_str(&format!("NTFY {} urn:x Act {pid}\n", pick(2)));
        }
        setup.push_str(&format!("CONN {target}{options}\n"));
        if pick(60) == 0 {
            setup = "QUIT\n".into();
        }
        let timed = [&setup, &options].iter().any(|text| text.contains("RTIM") || text.contains("PNGI"));
        Self {
            index,
            timed,
            dropped: false,
            remote: Remote::new(kind, behaviour, framing, 9000 + index as u16),
            framing,
            keep,
            with_seen: kind != RemoteKind::Udp && pick(3) > 0,
            notifies,
            events,
            pid,
            shares_pid,
            setup: setup.into_bytes(),
            connections: Vec::new(),
            sent: Vec::new(),
            messages: Vec::new(),
            starts: Vec::new(),
            places: vec![(0, 0)],
            next_message: 0,
            count_base: 0,
            unheard: false,
            closing_notifications: 0,
            attaches: 0,
            connected: false,
            disturbed: false,
            replies: Vec::new(),
            parked: None,
        }
    }

    /// The plugin connects: to make its CONN, or to come back.
    pub(crate) fn connect(&mut self, peer: SimPeer, random: &mut Choices) {
        let attaching = self.connected.then(|| self.seen());
        let setup = match attaching {
            None => self.setup.clone(),
            Some(Some(seen)) => format!("ATCH {} SEEN={seen}\n", self.pid).into_bytes(),
            Some(None) => format!("ATCH {}\n", self.pid).into_bytes(),
        };
        if let Some(before) = self.connections.last_mut() {
            (before.gone, before.ended) = (true, true);
            before.out.clear();
        }
        self.connections.push(PluginConnection {
            peer,
            out: setup.into(),
            phase: PluginPhase::Setup,
            read: 0,
            granted: 0,
            start: 0,
            base: 0,
            begun: false,
            told_end: false,
            attaching,
            gone: false,
            ended: false,
            checked: 0,
        });
        self.sent.push(Vec::new());
        self.starts.push(self.messages.len());
        if random.below(3) == 0 {
            // Behind the newline of CONN or ATCH.
            self.speak(1 + random.below(200) as usize);
        }
    }

    /// What the plugin says it has read.
    fn seen(&self) -> Option<usize> {
        if !self.with_seen {
            return None;
        }
        let last = self.connections.iter().rev().find(|connection| connection.phase == PluginPhase::Echo)?;
        let read = (last.base + last.read.saturating_sub(last.start)).min(self.remote.said.len());
        Some(if has_messages(self.framing) { self.whole(read) - self.count_base } else { read - self.count_base })
    }

    /// The session knows the plugin that it is to notify.
    pub(crate) fn subscribed(&self) -> bool {
        self.notifies && self.connected
    }

    /// Messages that end at or before `at`.
    fn whole(&self, at: usize) -> usize {
        self.remote.ends.partition_point(|&end| end <= at) - 1
    }

    /// The plugin's connection, unless it has none.
    pub(crate) fn current(&mut self) -> Option<&mut PluginConnection> {
        self.connections.last_mut().filter(|connection| !connection.gone)
    }

    /// The plugin says about `length` bytes for the remote.
    pub(crate) fn speak(&mut self, length: usize) {
        let number = self.messages.len();
        let (framing, index) = (self.framing, self.connections.len() - 1);
        let Some(connection) = self.connections.last_mut().filter(|connection| !connection.ended) else { return };
        match framing {
            Framing::Raw => {
                let at = self.sent[index].len();
                let bytes: Vec<u8> = (at..at + length).map(|at| pattern(at * 3 + index * 1001 + 17)).collect();
                connection.out.extend(&bytes);
                self.sent[index].extend(bytes);
            }
            Framing::Line => {
                let payload = numbered(number, length.min(3000));
                connection.out.extend(&payload);
                connection.out.push_back(b'\n');
                self.messages.push(payload);
            }
            Framing::Mesg => {
                let payload = numbered(number, length.min(3000));
                connection.out.extend(format!("BINA {}\n", payload.len()).bytes());
                connection.out.extend(&payload);
                self.messages.push(payload);
            }
        }
    }

    /// The plugin sends up to `amount` bytes of what it has said.
    pub(crate) fn send(&mut self, amount: usize) {
        if let Some(connection) = self.current() {
            let amount = amount.min(connection.out.len());
            let bytes: Vec<u8> = connection.out.drain(..amount).collect();
            let mut wire = connection.peer.wire_mut();
            if !wire.is_closed() && !wire.is_broken() {
                wire.send_bytes(&bytes);
            }
        }
    }

    /// The plugin reads up to `amount` bytes, and in setup mode all replies.
    pub(crate) fn listen(&mut self, amount: usize) {
        let Some(at) = self.connections.len().checked_sub(1) else { return };
        let connection = &self.connections[at];
        if connection.gone {
            return;
        }
        self.read_replies(at);
        let connection = &mut self.connections[at];
        let received = connection.peer.wire().received.len();
        let setup = connection.phase == PluginPhase::Setup;
        if !setup {
            connection.read = received.min(connection.read.saturating_add(amount));
        }
        let read = connection.read - std::mem::replace(&mut connection.granted, connection.read);
        let mut wire = connection.peer.wire_mut();
        wire.make_room(read);
        if wire.room == 0 && (setup || connection.read == received) {
            // A plugin that has read everything has room.
            wire.make_room(1 + amount.min(50));
        }
    }

    /// Reads replies of setup mode, up to the one that ends it.
    fn read_replies(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        while connection.phase == PluginPhase::Setup {
            let line = {
                let wire = connection.peer.wire();
                let rest = &wire.received[connection.read..];
                let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return };
                connection.read += end + 1;
                String::from_utf8_lossy(&rest[..end]).into_owned()
            };
            if line.starts_with("OK CONN") || line.starts_with("OK ATCH") {
                connection.phase = PluginPhase::Echo;
                (connection.start, connection.checked) = (connection.read, connection.read);
            } else if line.starts_with("ERR CONN") || line.starts_with("ERR ATCH") || line.starts_with("OK QUIT") {
                connection.phase = PluginPhase::Refused;
            }
            self.replies.push(line);
        }
        if connection.phase == PluginPhase::Echo && !std::mem::replace(&mut connection.begun, true) {
            self.begin_echo(at);
        }
    }

    fn begin_echo(&mut self, at: usize) {
        self.connected = true;
        let Some(seen) = self.connections[at].attaching else { return };
        let messages = has_messages(self.framing);
        let base = match seen {
            _ if self.shares_pid => 0,
            Some(seen) if messages => self.remote.ends[self.count_base + seen],
            Some(seen) => self.count_base + seen,
            None => {
                let before = self.connections[..at].iter().rev().find(|before| before.phase == PluginPhase::Echo);
                let taken = before
                    .map_or(0, |before| before.base + before.peer.wire().received.len().saturating_sub(before.start));
                let taken = taken.min(self.remote.said.len());
                self.count_base = if messages { self.whole(taken) } else { taken };
                if messages { self.remote.ends[self.count_base] } else { taken }
            }
        };
        self.connections[at].base = base;
    }

    /// Notes that something was written to the plugin since this was last called. True if so.
    pub(crate) fn check_written(&mut self) -> bool {
        // Echo mode begins with what the session writes, whether or not the plugin has read it.
        for at in 0..self.connections.len() {
            self.read_replies(at);
        }
        if self.shares_pid {
            // Two plugins that take each other's connections read anything.
            return false;
        }
        let drops_oldest = self.remote.kind == RemoteKind::Udp && self.keep.is_some();
        let (said, ends, framing) = (&self.remote.said, &self.remote.ends, self.framing);
        let mut written = false;
        for connection in self.connections.iter_mut().filter(|connection| connection.phase == PluginPhase::Echo) {
            let wire = connection.peer.wire();
            let received = &wire.received[connection.checked..];
            if received.is_empty() {
                continue;
            }
            written = true;
            if connection.told_end {
                drop(wire);
                connection.checked = connection.peer.wire().received.len();
                continue;
            }
            if drops_oldest {
                check_datagrams(framing, &wire.received[connection.start..]);
                drop(wire);
                connection.checked = connection.peer.wire().received.len();
                continue;
            }
            let at = connection.base + connection.checked - connection.start;
            let expected = said.get(at..).unwrap_or_default();
            let same = received.iter().zip(expected).take_while(|(one, other)| one == other).count();
            let rest = &received[same..];
            let is_close = framing == Framing::Mesg
                && ends.binary_search(&(at + same)).is_ok()
                && b"CLOS ".starts_with(&rest[..rest.len().min(5)]);
            assert!(
                rest.is_empty() || is_close,
                "conversation {}: the plugin reads other bytes at {}: {:?} for {:?}",
                self.index,
                at + same,
                String::from_utf8_lossy(&rest[..rest.len().min(60)]),
                String::from_utf8_lossy(&expected[same..expected.len().min(same + 60)]),
            );
            connection.told_end = !rest.is_empty();
            self.disturbed |= connection.told_end;
            connection.ended |= connection.told_end;
            drop(wire);
            connection.checked = connection.peer.wire().received.len();
        }
        written
    }

    /// Checks what the remote has heard since this was last called.
    pub(crate) fn check_heard(&mut self) {
        let bytes = std::mem::take(&mut self.remote.heard_bytes);
        if self.shares_pid {
            return self.remote.heard_messages.clear();
        }
        let mut places = std::mem::take(&mut self.places);
        for (at, byte) in bytes.iter().enumerate() {
            let mut next = Vec::new();
            for &(connection, place) in &places {
                for later in connection..self.sent.len() {
                    let place = if later == connection { place } else { 0 };
                    if self.sent[later].get(place) == Some(byte) && !next.contains(&(later, place + 1)) {
                        next.push((later, place + 1));
                    }
                    if self.keep.is_none() {
                        break;
                    }
                }
            }
            assert!(
                !next.is_empty(),
                "conversation {}: the remote hears other bytes, {at} behind {places:?}: {:?} {:?}",
                self.index,
                self.remote.kind,
                self.framing
            );
            places = next;
        }
        self.places = places;
        for message in std::mem::take(&mut self.remote.heard_messages) {
            let text = String::from_utf8_lossy(&message);
            let number = text.split(':').next().and_then(|digits| digits.parse::<usize>().ok());
            let number = number.unwrap_or_else(|| panic!("conversation {}: no message is {text:?}", self.index));
            assert_eq!(self.messages[number], message, "conversation {}", self.index);
            let skips = number > self.next_message && self.starts.contains(&number);
            assert!(
                number == self.next_message || skips,
                "conversation {}: message {number} follows {}",
                self.index,
                self.next_message
            );
            self.next_message = number + 1;
        }
    }

    /// Checks that everything that was said has arrived: both sides stand, and both have read everything.
    pub(crate) fn check_complete(&mut self) {
        let Some(connection) = self.connections.last() else { return };
        assert!(connection.out.is_empty());
        if self.remote.kind != RemoteKind::Udp || self.keep.is_none() {
            let arrived = connection.base + connection.peer.wire().received.len() - connection.start;
            assert_eq!(arrived, self.remote.said.len(), "conversation {}: bytes for the plugin stall", self.index);
        }
        if self.remote.behaviour == Behaviour::Stall {
            return;
        }
        let last = self.sent.len() - 1;
        if has_messages(self.framing) {
            let all = self.next_message == self.messages.len();
            // What an earlier connection has left may be lost.
            let none = self.starts[last] == self.messages.len();
            assert!(all || none, "conversation {}: messages for the remote stall", self.index);
        } else {
            let all = self.places.contains(&(last, self.sent[last].len()));
            assert!(
                all || self.sent[last].is_empty(),
                "conversation {}: bytes for the remote stall: {:?}",
                self.index,
                self.places
            );
        }
    }
}

/// Checks that datagrams of which some may be lost come in order and once.
fn check_datagrams(framing: Framing, received: &[u8]) {
    let mut last = None;
    let mut rest = received;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        let payload = match framing {
            Framing::Mesg => {
                let text = String::from_utf8_lossy(line);
                let length = text.split(' ').nth(1).and_then(|digits| digits.parse::<usize>().ok());
                let length = length.unwrap_or_else(|| panic!("no header is {text:?}"));
                if text.starts_with("CLOS") || behind.len() < length {
                    return;
                }
                rest = &behind[length..];
                &behind[..length]
            }
            _ => {
                rest = behind;
                line
            }
        };
        let text = String::from_utf8_lossy(payload);
        let number = text.split(':').next().and_then(|digits| digits.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| panic!("no datagram is {text:?}"));
        assert!(last.is_none_or(|last| number > last), "datagram {number} follows {last:?}");
        assert_eq!(numbered(number, payload.len()), payload);
        last = Some(number);
    }
}
