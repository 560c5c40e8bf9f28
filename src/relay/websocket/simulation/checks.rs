//! What must hold after each step, and in the end.

use super::plugin::Reading;
use super::server::{Said, Word};
use super::*;

impl World {
    /// How the plugin reads what has come.
    fn reading(&mut self) -> Reading {
        let lenient = self.speaker.pings > 8 || !self.relay.remote.is_open();
        self.reader.read(&self.plugin.stream().received, &self.server.said, self.remote.stream().read, lenient)
    }

    pub(super) fn check(&mut self) {
        let reading = self.reading();
        self.check_held();
        self.check_close(&reading);
        self.check_heard();
        self.check_counts(&reading);
        if self.end.is_none() {
            self.check_rest();
            self.check_still();
        }
        self.check_end();
    }

    fn check_held(&self) {
        assert_eq!(self.relay.held(), self.around.budget.held());
        // One message beyond what holds the remote back, one that comes in, what was read at once; one message of the
        // plugin's and what was read at once; what gathers for the remote and a last message; pongs and a close frame.
        let down = HIGH_WATER + 2 * self.max_message + self.read + 2 * 200;
        let limit = self.max_message.max(MIN_MESSAGE_LIMIT);
        let up = limit + self.read + BATCH + limit + 40 * 131;
        let held = self.relay.held();
        assert!(held <= down + up, "{held} bytes are held");
    }

    /// The plugin is told of an end that was, and has all that came before it unless it was cut short.
    fn check_close(&self, reading: &Reading) {
        let Some((code, reason)) = &reading.close else { return };
        let last = self.server.said.last().map(|said| &said.word);
        let relay = &self.relay;
        assert!(!relay.remote.is_open(), "CLOS while the remote is there");
        let cause = match (code, reason.as_str()) {
            (1006, "no answer to a ping") => self.pings,
            (1006, "no answer to a close") => self.speaker.done || self.plugin_gone || self.little_memory,
            (1006, "silent for too long") => relay.receive.is_some(),
            (1006, _) => self.remote_gone || self.remote.stream().is_closed(),
            (1009, NO_MEMORY) => self.little_memory,
            (1002, reason) if reason.starts_with("PARSE ") => {
                self.speaker.said.iter().any(|said| matches!(said.word, Word::Fault(..)))
            }
            (code, reason) => match last {
                Some(Word::Close(said, why)) => (said, why.as_str()) == (code, reason),
                Some(Word::Fault(said, _)) => said == code,
                _ => false,
            },
        };
        assert!(cause, "CLOS {code} {reason:?} without a cause");
    }

    /// Where the end has been told, all is there that came before it, unless something cut it short.
    fn check_end(&mut self) {
        if !self.plugin.stream().is_told() || self.plugin.stream().is_broken() {
            return;
        }
        let reading = self.reading();
        let cut_short =
            self.little_memory || self.pings || self.relay.receive.is_some() || self.relay.plugin != PluginState::Open;
        let came = self.server.said.iter().take_while(|said| said.end <= self.remote.stream().read).count();
        // Of a message that is passed on while it comes the plugin may have a part: of one that breaks the rules, say.
        let passed = reading.partly && self.reader.may_pass(&self.server.said[reading.words]);
        if !cut_short {
            assert!(
                reading.words + usize::from(passed) >= came,
                "{} words of {came} have passed: {:?}",
                reading.words,
                self.relay.close_reason
            );
        }
        assert!(
            !reading.partly || passed || self.reader.framing == Framing::Raw,
            "the end comes in the midst of a message"
        );
        let closes = reading.close.is_some() || passed;
        assert!(closes || self.reader.framing != Framing::Mesg, "the end comes without a word");
    }

    /// The server hears what the plugin has said, in order, and pongs that answer.
    fn check_heard(&self) {
        let own = |word: &&Word| match word {
            Word::Ping(payload) => payload.len() != 4,
            Word::Pong(payload) => payload.first() == Some(&b'o'),
            Word::Close(..) => false,
            _ => true,
        };
        let mut said = self.speaker.said.iter().filter(|said| !matches!(said.word, Word::Close(..) | Word::Fault(..)));
        let heard = self.server.heard.iter().filter(own);
        if self.reader.framing == Framing::Raw {
            let said = said.map(|said| said.word.message()).collect::<Vec<_>>().concat();
            let heard = heard.map(Word::message).collect::<Vec<_>>().concat();
            assert!(
                said.starts_with(&heard) && heard.len() <= self.plugin.stream().read,
                "the server hears other bytes"
            );
        } else {
            for heard in heard {
                let said = said.next().expect("the server hears more than was said");
                assert_eq!(&said.word, heard, "the server hears something else");
                assert!(said.end <= self.plugin.stream().read);
            }
        }
        let mut asked = self.server.said.iter().filter_map(|said| match &said.word {
            Word::Ping(payload) => Some(payload),
            _ => None,
        });
        for word in &self.server.heard {
            if let Word::Pong(payload) = word
                && payload.first() == Some(&b's')
            {
                assert!(self.control != Control::Hand, "the plugin answers");
                assert!(asked.any(|ping| ping == payload), "a pong without a ping, or in the wrong order");
            }
        }
        if let Some(code) = self.server.close_code() {
            self.check_close_code(code);
        }
    }

    /// The server is told of an end that was.
    fn check_close_code(&self, code: u16) {
        let own = self.speaker.said.last().map(|said| &said.word);
        let others = self
            .server
            .said
            .iter()
            .any(|said| matches!(said.word, Word::Close(said, _) | Word::Fault(said, _) if said == code));
        let cause = others
            || matches!(own, Some(Word::Close(said, _) | Word::Fault(said, _)) if *said == code)
            || (code == 1001 && (self.plugin_gone || self.relay.receive.is_some() || self.little_memory))
            || (code == 1009 && self.little_memory);
        assert!(cause, "the server is told {code} without a cause");
    }

    fn check_counts(&self, reading: &Reading) {
        let MessageCounts { received, sent } = self.relay.messages().unwrap();
        let messages = |words: &[Said], end: usize| {
            words.iter().filter(|said| said.end <= end && matches!(said.word, Word::Message(..))).count() as u64
        };
        assert!(received <= messages(&self.server.said, self.remote.stream().read), "messages that were not sent");
        if self.relay.plugin != PluginState::Gone {
            let passed = &self.server.said[..reading.words];
            // With RAW the plugin does not see the end of a message of which all bytes have come.
            let passed = messages(passed, self.remote.stream().read);
            assert!(self.reader.framing == Framing::Raw || passed <= received, "messages that were not counted");
        }
        if self.reader.framing != Framing::Raw {
            assert!(sent <= messages(&self.speaker.said, self.plugin.stream().read), "messages that were not said");
        }
        let heard = self.server.heard.iter().filter(|word| matches!(word, Word::Message(..))).count() as u64;
        assert!(heard <= sent, "messages that were not sent");
    }

    /// What can move has moved.
    fn check_rest(&self) {
        let Self { plugin, remote, relay, .. } = self;
        let (plugin_known, remote_known) = (!plugin.stream().has_news(), !remote.stream().has_news());
        if plugin_known && relay.plugin != PluginState::Gone {
            assert!(!relay.is_held_back() || !plugin.stream().is_writable(), "the plugin has room, and is not told");
            assert!(!plugin.stream().is_broken(), "the plugin has gone, and the relay does not notice");
        }
        if remote_known && relay.remote != RemoteState::Gone {
            // A remote that has failed takes nothing more.
            let has_room = remote.stream().is_writable() && relay.remote != RemoteState::WriteFailed;
            assert!(relay.connection.queued() == 0 || !has_room, "the remote has room, and is not told");
            assert!(
                relay.is_held_back() || !remote.stream().is_readable(),
                "the remote sends, and the relay does not read"
            );
            assert!(remote.stream().withheld().is_empty() || !has_room, "the stream was not asked to push out");
        }
        let listens =
            relay.plugin == PluginState::Open && relay.remote == RemoteState::Open && relay.connection.queued() == 0;
        if plugin_known && remote_known && listens && remote.stream().withheld().is_empty() {
            assert!(!plugin.stream().is_readable(), "the plugin sends, and the relay does not read");
        }
        let ends = relay.plugin != PluginState::Open || !relay.remote.is_open();
        if ends && relay.remote != RemoteState::Gone {
            let due = relay.deadline(&self.timing());
            let (plugin, remote, why) = (relay.plugin, relay.remote, relay.close_reason);
            assert!(due.is_some(), "no limit runs for the last bytes: {plugin:?}, {remote:?}, {why:?}");
            let due = due.unwrap_or(self.around.now);
            assert!(due <= self.around.now + TIMING.stall);
        }
    }

    /// Without news nothing moves.
    fn check_still(&mut self) {
        let before = (
            self.plugin.stream().written(),
            self.remote.stream().written(),
            self.plugin.stream().read,
            self.remote.stream().read,
        );
        let turn = self.relay.run(&mut self.plugin, &mut self.remote, &mut self.around.relay());
        let after = (
            self.plugin.stream().written(),
            self.remote.stream().written(),
            self.plugin.stream().read,
            self.remote.stream().read,
        );
        // A ready bit that is still set says that the next call will tell; but something that could move has moved.
        assert!(
            turn == RelayTurn::default() && before == after,
            "something moves without news: {turn:?}, {:?}, {:?}",
            self.plugin,
            self.remote
        );
    }

    /// Both are there and all is calm: everything has passed.
    pub(super) fn check_calm(&mut self) {
        if self.end.is_some() || !self.relay.remote.is_open() || self.relay.plugin != PluginState::Open {
            return;
        }
        let reading = self.reading();
        let missing = self.server.said.get(reading.words);
        let listening = (self.plugin_gone, self.remote_gone);
        assert!(missing.is_none() && !reading.partly, "the plugin misses {missing:?}; {reading:?} {listening:?}");
        let words = |words: &[Word]| words.iter().filter(|word| matches!(word, Word::Message(..))).count();
        if self.reader.framing != Framing::Raw {
            let said: Vec<Word> = self.speaker.said.iter().map(|said| said.word.clone()).collect();
            assert_eq!(words(&self.server.heard), words(&said), "the server misses something");
        }
        assert_eq!(
            (self.plugin.stream().unread(), self.relay.connection.queued()),
            (0, 0),
            "the server misses something"
        );
        let ping = self.server.said.iter().rev().find(|said| matches!(said.word, Word::Ping(_)));
        if let (Some(said), true) = (ping, self.control != Control::Hand)
            && let Word::Ping(payload) = &said.word
        {
            assert!(self.server.heard.contains(&Word::Pong(payload.clone())), "a ping is not answered");
        }
    }

    /// The sides that had sent everything before the end was received.
    pub(super) fn check_last_messages(&self) {
        let heard = self.server.heard.iter().filter(|word| matches!(word, Word::Message(..))).count();
        let said = self.speaker.said.iter().filter(|said| matches!(said.word, Word::Message(..))).count();
        if self.reader.framing != Framing::Raw && !self.plugin.stream().is_broken() {
            assert_eq!(heard, said, "the last words are lost");
        }
    }
}
