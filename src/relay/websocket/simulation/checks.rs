//! What must hold after each step, and in the end.

use super::plugin::Reading;
use super::server::{Said, Word};
use super::*;

impl World {
    /// How the plugin reads what has come.
    fn reading(&mut self) -> Reading {
        let lenient = self.speaker.pings > 8 || self.relay.remote != Remote::Open;
        self.reader.read(&self.plugin.heard, &self.server.said, self.remote.read, lenient)
    }

    pub fn check(&mut self) {
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
        assert_eq!(self.relay.held(), self.around.buffers.held());
        // One message beyond what holds the remote back, one that comes in, what was read at once; one message of the
        // plugin's and what was read at once; what gathers for the remote and a last message; pongs and a close frame.
        let down = HIGH + 2 * self.max_message + self.read + 2 * 200;
        let up = self.relay.limit + self.read + BATCH + self.relay.limit + 40 * 131;
        let held = self.relay.held();
        assert!(held <= down + up, "{held} bytes are held");
    }

    /// The plugin is told of an end that was, and has all that came before it where nobody cut it short.
    fn check_close(&self, reading: &Reading) {
        let Some((code, reason)) = &reading.close else { return };
        let last = self.server.said.last().map(|said| &said.word);
        let relay = &self.relay;
        assert!(relay.remote != Remote::Open, "CLOS while the remote is there");
        let cause = match (code, reason.as_str()) {
            (1006, "no answer to a ping") => self.pings,
            (1006, "no answer to a close") => self.speaker.done || self.plugin_gone || self.poor,
            (1006, "silent for too long") => relay.receive.is_some(),
            (1006, _) => self.remote_gone || self.remote.is_closed(),
            (1009, "no memory for the message") => self.poor,
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
        if !self.plugin.is_told() || self.plugin.is_broken() {
            return;
        }
        let reading = self.reading();
        let cut_short = self.poor || self.pings || self.relay.receive.is_some() || self.relay.plugin != Plugin::Open;
        let came = self.server.said.iter().take_while(|said| said.end <= self.remote.read).count();
        if !cut_short {
            assert!(reading.words >= came, "{} words of {came} have passed: {:?}", reading.words, self.relay.why);
        }
        assert!(!reading.partly || self.reader.framing == Framing::Raw, "the end comes in the midst of a message");
        assert!(reading.close.is_some() || self.reader.framing != Framing::Mesg, "the end comes without a word");
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
            assert!(said.starts_with(&heard) && heard.len() <= self.plugin.read, "the server hears other bytes");
        } else {
            for heard in heard {
                let said = said.next().expect("the server hears more than was said");
                assert_eq!(&said.word, heard, "the server hears something else");
                assert!(said.end <= self.plugin.read);
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
        if let Some(code) = self.server.goodbye() {
            self.check_goodbye(code);
        }
    }

    /// The server is told of an end that was.
    fn check_goodbye(&self, code: u16) {
        let own = self.speaker.said.last().map(|said| &said.word);
        let others = self
            .server
            .said
            .iter()
            .any(|said| matches!(said.word, Word::Close(said, _) | Word::Fault(said, _) if said == code));
        let cause = others
            || matches!(own, Some(Word::Close(said, _) | Word::Fault(said, _)) if *said == code)
            || (code == 1001 && (self.plugin_gone || self.relay.receive.is_some() || self.poor))
            || (code == 1009 && self.poor);
        assert!(cause, "the server is told {code} without a cause");
    }

    fn check_counts(&self, reading: &Reading) {
        let (received, sent) = self.relay.messages().unwrap();
        let messages = |words: &[Said], end: usize| {
            words.iter().filter(|said| said.end <= end && matches!(said.word, Word::Message(..))).count() as u64
        };
        assert!(received <= messages(&self.server.said, self.remote.read), "messages that nobody sent");
        if self.relay.plugin != Plugin::Gone {
            let passed = &self.server.said[..reading.words];
            // With RAW nobody sees the end of a message of which all bytes have come.
            let passed = messages(passed, self.remote.read);
            assert!(self.reader.framing == Framing::Raw || passed <= received, "messages that nobody counted");
        }
        if self.reader.framing != Framing::Raw {
            assert!(sent <= messages(&self.speaker.said, self.plugin.read), "messages that nobody said");
        }
        let heard = self.server.heard.iter().filter(|word| matches!(word, Word::Message(..))).count() as u64;
        assert!(heard <= sent, "messages that nobody sent");
    }

    /// What can move has moved.
    fn check_rest(&self) {
        let Self { plugin, remote, relay, .. } = self;
        let (plugin_known, remote_known) = (!plugin.has_news(), !remote.has_news());
        if plugin_known && relay.plugin != Plugin::Gone {
            assert!(!relay.is_held_back() || !plugin.is_writable(), "the plugin has room, and is not told");
            assert!(!plugin.is_broken(), "the plugin has gone, and nobody notices");
        }
        if remote_known && relay.remote != Remote::Gone {
            assert!(relay.connection.queued() == 0 || !remote.is_writable(), "the remote has room, and is not told");
            assert!(relay.is_held_back() || !remote.is_readable(), "the remote speaks, and nobody listens");
            assert!(remote.withheld().is_empty() || !remote.is_writable(), "the stream was not asked to push out");
        }
        let listens = relay.plugin == Plugin::Open && relay.remote == Remote::Open && relay.connection.queued() == 0;
        if plugin_known && remote_known && listens && remote.withheld().is_empty() {
            assert!(!plugin.is_readable(), "the plugin speaks, and nobody listens");
        }
        let ends = relay.plugin != Plugin::Open || relay.remote != Remote::Open;
        if ends && relay.remote != Remote::Gone {
            let due = relay.deadline(&TIMING);
            let (plugin, remote, why) = (relay.plugin, relay.remote, relay.why);
            assert!(due.is_some(), "nobody waits for the last words: {plugin:?}, {remote:?}, {why:?}");
            let due = due.unwrap_or(self.around.now);
            assert!(due <= self.around.now + TIMING.stall);
        }
    }

    /// Without news nothing moves.
    fn check_still(&mut self) {
        let before = (self.plugin.written(), self.remote.written(), self.plugin.read, self.remote.read);
        let ready = (*self.relay.plugin_ready(), *self.relay.remote_ready());
        let turn = self.relay.run(&mut self.plugin, &mut self.remote, &mut self.around.env());
        let after = (self.plugin.written(), self.remote.written(), self.plugin.read, self.remote.read);
        // A ready bit that is still set says that the next call will tell; but something that could move has moved.
        assert!(turn == Turn::default() && before == after, "something moves without news: {turn:?}, {ready:?}");
    }

    /// Both are there and all is calm: everything has passed.
    pub fn check_calm(&mut self) {
        if self.end.is_some() || self.relay.remote != Remote::Open || self.relay.plugin != Plugin::Open {
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
        assert_eq!((self.plugin.unread(), self.relay.connection.queued()), (0, 0), "the server misses something");
        let ping = self.server.said.iter().rev().find(|said| matches!(said.word, Word::Ping(_)));
        if let (Some(said), true) = (ping, self.control != Control::Hand)
            && let Word::Ping(payload) = &said.word
        {
            assert!(self.server.heard.contains(&Word::Pong(payload.clone())), "a ping is not answered");
        }
    }

    /// Who had said everything before the end was heard.
    pub fn check_farewell(&self) {
        let heard = self.server.heard.iter().filter(|word| matches!(word, Word::Message(..))).count();
        let said = self.speaker.said.iter().filter(|said| matches!(said.word, Word::Message(..))).count();
        if self.reader.framing != Framing::Raw && !self.plugin.is_broken() {
            assert_eq!(heard, said, "the last words are lost");
        }
    }
}
